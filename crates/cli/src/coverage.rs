//! `lockwarden coverage`: of how many devices the code is held.

use clap::Args;

use crate::api::{Api, Ask, ServerArgs};
use crate::show;
use crate::voice::{DONE, Outcome, Voice};

/// Count the devices whose code is held, and those that could not be unlocked tomorrow
#[derive(Args)]
pub(crate) struct CoverageArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
pub(crate) async fn run(args: CoverageArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let report = api.ask(Ask::get(&["coverage"])).await?.json()?;
    voice.data(&report, || {
        show::pairs(
            &report,
            &[
                ("devices", "devices"),
                ("code held", "covered"),
                ("code missing", "missing"),
                ("  ends within 5 days", "closing"),
                ("  15 days are over", "closed"),
                ("give no code", "exempt"),
            ],
        )
    })?;
    Ok(DONE)
}
