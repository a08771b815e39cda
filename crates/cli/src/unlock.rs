//! `lockwarden unlock`: have the lock of a device turned off, and watch.

use activation_lock::device::SerialNumber;
use clap::Args;
use serde_json::json;

use crate::api::{Api, LeaveArgs, ServerArgs};
use crate::devices;
use crate::operation::{self, Kind};
use crate::voice::{DONE, FAILED, Outcome, Voice};

/// Unlocks.
pub(crate) const UNLOCK: Kind = Kind {
    one: "unlock",
    all: "unlocks",
    call: "attempt",
    calls: "attempts",
    facts: &[
        ("id", "id"),
        ("serial", "serial"),
        ("state", "state"),
        ("reason", "reason"),
    ],
    columns: &[
        ("ATTEMPT", "position"),
        ("OUTCOME", "outcome"),
        ("STATUS", "status"),
        ("CODE", "code_kind"),
        ("CURRENT", "code_current"),
        ("SENT TO", "recipient"),
        ("AT", "began_at"),
    ],
    exit_status,
};

/// Turn the Activation Lock of a device off, with its codes, through Apple
///
/// The server does it: known codes are tried in the order in which they are likely to work. With --wait each attempt is shown
/// as it happens. Leaving early stops nothing; the unlock goes on.
///
/// Exit status with --wait: 0 unlocked; 3 rejected (every code was refused); 4 needs_review (a person has to look);
/// 7 probably_unlocked; 8 not_locked; 9 cancelled; 1 for anything else. Without --wait: 0 when it is queued.
#[derive(Args)]
pub(crate) struct UnlockArgs {
    /// The serial number
    serial: SerialNumber,
    /// Why: kept on record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who it is for, a real person: Apple is told [default: the token's name]
    #[arg(long, value_name = "WHO")]
    requester: Option<String>,
    /// Wait until it has ended
    #[arg(long)]
    wait: bool,
    /// Try even though Apple says that the device is not locked
    #[arg(long)]
    insist: bool,
    /// Asking twice with the same key asks once [default: a new one each time]
    #[arg(long, value_name = "TEXT", value_parser = operation::idempotency_key)]
    idempotency_key: Option<String>,
    #[command(flatten)]
    leave: LeaveArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
pub(crate) async fn run(args: UnlockArgs, voice: Voice) -> Outcome {
    let reason = devices::reason(&args.reason)?;
    let api = Api::new(&args.server, voice)?.with_leave(&args.leave)?;
    let mut wish = json!({ "reason": reason });
    if let Some(requester) = &args.requester {
        wish["requester"] = requester.as_str().into();
    }
    if args.insist {
        wish["insist"] = true.into();
    }
    let key = args.idempotency_key;
    UNLOCK
        .ask(&api, &args.serial, &wish, key, args.wait, voice)
        .await
}

fn exit_status(state: &str) -> u8 {
    match state {
        "unlocked" => DONE,
        "rejected" => 3,
        "needs_review" => 4,
        "probably_unlocked" => 7,
        "not_locked" => 8,
        "cancelled" => 9,
        _ => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r15_only_unlocked_is_success() {
        for state in [
            "queued",
            "running",
            "waiting",
            "probably_unlocked",
            "rejected",
            "not_locked",
            "needs_review",
            "cancelled",
            "a state to come",
        ] {
            assert_ne!(exit_status(state), DONE, "{state}");
        }
        assert_eq!(exit_status("unlocked"), DONE);
    }
}
