//! `lockwarden locks`: locks by the organisation that were asked for.

use activation_lock::device::SerialNumber;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::api::{Api, Ask, LeaveArgs, ServerArgs};
use crate::lock::LOCK;
use crate::show;
use crate::voice::{DONE, Outcome, Voice};

/// List the locks of a device that were asked for; show, cancel or continue one
#[derive(Args)]
pub(crate) struct LocksArgs {
    #[command(subcommand)]
    command: LocksCommand,
}

#[derive(Subcommand)]
enum LocksCommand {
    /// List the newest locks of a device, newest first
    List(ListArgs),
    /// Show how it stands, with every call
    Show(NamedArgs),
    /// Cancel it, also one that needs review; an answer on its way wins, and a lock that is on stays on
    Cancel(NamedArgs),
    /// Let one that needs review go on, with the same code and a new deadline
    Continue(ContinueArgs),
}

#[derive(Args)]
struct ListArgs {
    /// The serial number
    serial: SerialNumber,
    /// At most so many, 1 to 100 [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: Option<u32>,
    #[command(flatten)]
    server: ServerArgs,
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
    /// Wait until it has ended; the exit status is then that of `lock --wait`
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    leave: LeaveArgs,
    #[command(flatten)]
    named: NamedArgs,
}

/// Runs the command.
pub(crate) async fn run(args: LocksArgs, voice: Voice) -> Outcome {
    match args.command {
        LocksCommand::List(args) => list(args, voice).await,
        LocksCommand::Show(args) => {
            let api = Api::new(&args.server, voice)?;
            tell(
                &api.ask(Ask::get(&["locks", &args.id])).await?.json()?,
                voice,
            )
        }
        LocksCommand::Cancel(args) => {
            let api = Api::new(&args.server, voice)?;
            let lock = api.ask(Ask::delete(&["locks", &args.id])).await?.json()?;
            tell(&lock, voice)
        }
        LocksCommand::Continue(args) => {
            let api = Api::new(&args.named.server, voice)?.with_leave(&args.leave)?;
            let id = args.named.id.as_str();
            let lock = api
                .ask(Ask::post(&["locks", id, "continue"]))
                .await?
                .json()?;
            if args.wait {
                return LOCK.ended(&api, id, voice).await;
            }
            tell(&lock, voice)
        }
    }
}

async fn list(args: ListArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let path = ["devices", args.serial.as_str(), "locks"];
    let ask = Ask::get(&path).with("limit", args.limit.map(|limit| limit.to_string()));
    let answer = api.ask(ask).await?.json()?;
    let rows = show::rows(&answer);
    voice.data(&rows, || {
        show::table(
            &[
                ("ID", "id"),
                ("STATE", "state"),
                ("REASON", "reason"),
                ("ASKED BY", "requested_by"),
                ("ASKED AT", "requested_at"),
                ("ENDED AT", "ended_at"),
            ],
            rows,
        )
    })?;
    Ok(DONE)
}

fn tell(lock: &Value, voice: Voice) -> Outcome {
    voice.data(lock, || LOCK.page(lock))?;
    Ok(DONE)
}
