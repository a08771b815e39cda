//! `lockwarden lock`: have a device locked by the organisation, and watch.

use activation_lock::device::SerialNumber;
use apple::dep::LostMessage;
use clap::Args;
use serde_json::json;

use crate::api::{Api, Ask, LeaveArgs, ServerArgs};
use crate::operation::{self, Kind};
use crate::voice::{DONE, FAILED, Failure, Outcome, Voice};
use crate::{devices, show};

/// Locks by the organisation.
pub(crate) const LOCK: Kind = Kind {
    one: "lock",
    all: "locks",
    call: "call",
    calls: "calls",
    facts: &[
        ("id", "id"),
        ("serial", "serial"),
        ("state", "state"),
        ("message", "message"),
        ("reason", "reason"),
        ("not listed, but", "override_reason"),
    ],
    columns: &[
        ("CALL", "position"),
        ("OUTCOME", "outcome"),
        ("APPLE'S WORD", "response_status"),
        ("STATUS", "status"),
        ("SENT TO", "recipient"),
        ("AT", "began_at"),
    ],
    exit_status,
};

/// Turn the Activation Lock of a device on for the organisation, through Apple
///
/// The server does it: it makes a code, puts it away twice, and only then asks Apple. With --wait each call is shown as it
/// happens. Leaving early stops nothing; the lock goes on. Whether Apple locks devices of this kind at all is told first,
/// where that is doubtful.
///
/// Unlock the device before it is released from the organisation, moved to another device management system, or erased to
/// set itself up again.
///
/// Exit status with --wait: 0 locked; 3 refused, or already_locked (somebody's lock was on before, perhaps our own); 4
/// needs_review (a person has to look); 9 cancelled; 1 for anything else. Without --wait: 0 when it is queued.
#[derive(Args)]
pub(crate) struct LockArgs {
    /// The serial number
    serial: SerialNumber,
    /// Why: kept on record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// What the locked screen is to show
    #[arg(long, value_name = "TEXT")]
    message: Option<LostMessage>,
    /// The server token to use, by its name [default: the one whose server lists the device]
    #[arg(long, value_name = "NAME")]
    server_token: Option<String>,
    /// Lock it although no server of ours lists it, and why: kept on record. It must be a device that is known here
    #[arg(long, value_name = "TEXT")]
    override_reason: Option<String>,
    /// Who it is for, a real person: kept on record [default: the token's name]
    #[arg(long, value_name = "WHO")]
    requester: Option<String>,
    /// Somebody waits for it: it goes before those asked for in bulk
    #[arg(long)]
    urgent: bool,
    /// Wait until it has ended
    #[arg(long)]
    wait: bool,
    /// Asking twice with the same key asks once [default: a new one each time]
    #[arg(long, value_name = "TEXT", value_parser = operation::idempotency_key)]
    idempotency_key: Option<String>,
    #[command(flatten)]
    leave: LeaveArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
pub(crate) async fn run(args: LockArgs, voice: Voice) -> Outcome {
    let reason = devices::reason(&args.reason)?;
    let against = args.override_reason.as_deref().map(devices::reason);
    let against = against.transpose()?;
    let api = Api::new(&args.server, voice)?.with_leave(&args.leave)?;
    tell_doubt(&api, &args.serial, voice).await?;
    let mut wish = json!({ "reason": reason });
    let message = args.message.as_ref().map(LostMessage::as_str);
    for (key, value) in [
        ("message", message),
        ("server_token", args.server_token.as_deref()),
        ("override_reason", against),
        ("requester", args.requester.as_deref()),
    ] {
        if let Some(value) = value {
            wish[key] = value.into();
        }
    }
    if args.urgent {
        wish["urgent"] = true.into();
    }
    let key = args.idempotency_key;
    LOCK.ask(&api, &args.serial, &wish, key, args.wait, voice)
        .await
}

/// Says before anything is asked for what is doubtful about a lock of this kind of device.
async fn tell_doubt(api: &Api, serial: &SerialNumber, voice: Voice) -> Result<(), Failure> {
    let path = ["devices", serial.as_str(), "lock-status"];
    let standing = api.ask(Ask::get(&path)).await?.json()?;
    let doubt = standing.pointer("/organisation_lock/doubt");
    if let Some(doubt) = doubt.filter(|doubt| doubt.is_object()) {
        voice.talk(format!("doubtful: {}", show::sentences(doubt)));
    }
    Ok(())
}

fn exit_status(state: &str) -> u8 {
    match state {
        "locked" => DONE,
        "refused" | "already_locked" => 3,
        "needs_review" => 4,
        "cancelled" => 9,
        _ => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r20_only_locked_is_success() {
        for state in [
            "queued",
            "running",
            "waiting",
            "already_locked",
            "refused",
            "needs_review",
            "cancelled",
            "a state to come",
        ] {
            assert_ne!(exit_status(state), DONE, "{state}");
        }
        assert_eq!(exit_status("locked"), DONE);
    }
}
