//! `lockwarden unlocks`: unlocks that were asked for.

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::api::{Api, Ask, LeaveArgs, ServerArgs};
use crate::unlock::UNLOCK;
use crate::voice::{DONE, Outcome, Voice};

/// Show, cancel or continue an unlock that was asked for
#[derive(Args)]
pub(crate) struct UnlocksArgs {
    #[command(subcommand)]
    command: UnlocksCommand,
}

#[derive(Subcommand)]
enum UnlocksCommand {
    /// Show how it stands, with every attempt
    Show(NamedArgs),
    /// Cancel it, also one that needs review; an answer on its way wins
    Cancel(NamedArgs),
    /// Let one that needs review go on, with new limits and a new deadline
    Continue(ContinueArgs),
}

#[derive(Args)]
struct NamedArgs {
    /// Its identifier
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct ContinueArgs {
    /// Wait until it has ended; the exit status is then that of `unlock --wait`
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    leave: LeaveArgs,
    #[command(flatten)]
    named: NamedArgs,
}

/// Runs the command.
pub(crate) async fn run(args: UnlocksArgs, voice: Voice) -> Outcome {
    match args.command {
        UnlocksCommand::Show(args) => {
            let api = Api::new(&args.server, voice)?;
            tell(
                &api.ask(Ask::get(&["unlocks", &args.id])).await?.json()?,
                voice,
            )
        }
        UnlocksCommand::Cancel(args) => {
            let api = Api::new(&args.server, voice)?;
            let unlock = api.ask(Ask::delete(&["unlocks", &args.id])).await?.json()?;
            tell(&unlock, voice)
        }
        UnlocksCommand::Continue(args) => {
            let api = Api::new(&args.named.server, voice)?.with_leave(&args.leave)?;
            let id = args.named.id.as_str();
            let unlock = api
                .ask(Ask::post(&["unlocks", id, "continue"]))
                .await?
                .json()?;
            if args.wait {
                return UNLOCK.ended(&api, id, voice).await;
            }
            tell(&unlock, voice)
        }
    }
}

fn tell(unlock: &Value, voice: Voice) -> Outcome {
    voice.data(unlock, || UNLOCK.page(unlock))?;
    Ok(DONE)
}
