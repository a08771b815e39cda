//! `lockwarden unlock`: have the lock of a device turned off, and watch.

use std::time::Duration;

use activation_lock::device::SerialNumber;
use clap::Args;
use data_encoding::HEXLOWER;
use seal::Random as _;
use serde_json::{Value, json};

use crate::api::{Api, Ask, ServerArgs};
use crate::voice::{DONE, FAILED, Failure, Outcome, Voice};
use crate::{devices, machine, show};

/// How often it is looked at while we wait.
const LOOK_EVERY: Duration = Duration::from_millis(500);

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
    #[arg(long, value_name = "TEXT", value_parser = idempotency_key)]
    idempotency_key: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

fn idempotency_key(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    let is_visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    let fits = (1..=255).contains(&text.len()) && text.bytes().all(is_visible);
    fits.then(|| text.to_owned())
        .ok_or("it is not 1 to 255 visible ASCII characters")
}

/// Runs the command.
pub(crate) async fn run(args: UnlockArgs, voice: Voice) -> Outcome {
    let reason = devices::reason(&args.reason)?;
    let api = Api::new(&args.server, voice)?;
    let key = args.idempotency_key.unwrap_or_else(|| {
        let mut bytes = [0; 16];
        machine::random().fill(&mut bytes);
        HEXLOWER.encode(&bytes)
    });
    let mut wish = json!({ "reason": reason });
    if let Some(requester) = &args.requester {
        wish["requester"] = requester.as_str().into();
    }
    if args.insist {
        wish["insist"] = true.into();
    }
    let path = ["devices", args.serial.as_str(), "unlock"];
    let queued = api
        .ask(Ask::post(&path).json(&wish)?.once(&key))
        .await?
        .json()?;
    let id = queued.get("id").and_then(Value::as_str).ok_or_else(|| {
        Failure::new("the server's answer names no unlock")
            .hint("is the server of the same version?")
    })?;
    if !args.wait {
        voice.data(&queued, || {
            format!("{id}  {}", show::cell(&queued, "state"))
        })?;
        voice.talk(format!(
            "asked for; `lockwarden devices show {}` shows how it stands",
            args.serial
        ));
        return Ok(DONE);
    }
    voice.talk(format!(
        "unlock {id} is queued; it goes on when you leave this"
    ));
    ended(&api, id, voice).await
}

/// Watches an unlock to its end, and shows that.
pub(crate) async fn ended(api: &Api, id: &str, voice: Voice) -> Outcome {
    let ended = watch(api, id, voice).await?;
    let state = ended
        .get("state")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    voice.data(&ended, || {
        let mut lines = vec![format!("{}: {state}", show::cell(&ended, "serial"))];
        lines.extend(show::words(&ended));
        lines.join("\n")
    })?;
    Ok(exit_status(&state))
}

/// Shows each attempt and each wait as it happens, until the unlock has ended.
async fn watch(api: &Api, id: &str, voice: Voice) -> Result<Value, Failure> {
    let path = ["unlocks", id];
    let mut told: Vec<String> = Vec::new();
    let mut last_wait = String::new();
    loop {
        let unlock = api.ask(Ask::get(&path)).await.map_err(|failure| {
            failure.hint(format!(
                "the unlock goes on; `lockwarden unlocks show {id}` shows how it stands"
            ))
        })?;
        let unlock = unlock.json()?;
        for (index, attempt) in unlock
            .get("attempts")
            .map_or(&[][..], show::rows)
            .iter()
            .enumerate()
        {
            let line = attempt_line(index, attempt);
            if told.get(index) != Some(&line) {
                voice.talk(&line);
                told.truncate(index);
                told.resize(index, String::new());
                told.push(line);
            }
        }
        let done = unlock.get("done").and_then(Value::as_bool).unwrap_or(false);
        if done {
            return Ok(unlock);
        }
        let wait = if unlock.get("state").and_then(Value::as_str) == Some("waiting") {
            format!("waiting: {}", show::words(&unlock).join(" "))
        } else {
            String::new()
        };
        if wait != last_wait && !wait.is_empty() {
            voice.talk(&wait);
        }
        last_wait = wait;
        machine::pause(LOOK_EVERY).await;
    }
}

fn attempt_line(index: usize, attempt: &Value) -> String {
    let outcome = attempt
        .get("outcome")
        .and_then(Value::as_str)
        .unwrap_or("in flight");
    let status = attempt
        .get("status")
        .and_then(Value::as_u64)
        .map(|status| format!(" ({status})"))
        .unwrap_or_default();
    let kind = attempt
        .get("code_kind")
        .and_then(Value::as_str)
        .map(|kind| format!(", {kind} code"))
        .unwrap_or_default();
    let happened = show::words(attempt).into_iter().next().unwrap_or_default();
    format!("attempt {}{kind}: {outcome}{status}  {happened}", index + 1)
        .trim_end()
        .to_owned()
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
    fn a_key_fits_into_a_header() {
        assert_eq!(
            idempotency_key(" ticket 4711 ").as_deref(),
            Ok("ticket 4711")
        );
        for bad in ["", " ", "a\nb", "\u{e4}", &"x".repeat(256)] {
            assert!(idempotency_key(bad).is_err(), "{bad:?}");
        }
    }

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
