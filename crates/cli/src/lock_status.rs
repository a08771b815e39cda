//! `lockwarden lock-status`: how the locks of devices stand, in Apple's own words and in ours.

use activation_lock::device::SerialNumber;
use clap::Args;
use serde_json::{Value, json};

use crate::api::{Api, Ask, Refusal, ServerArgs};
use crate::show;
use crate::voice::{DONE, FAILED, Failure, Outcome, Voice};

/// Show how the locks of devices stand, in Apple's own words and in ours
///
/// LOCKED and LOCK TYPE are Apple's words, as last read: MDM (the organisation's lock), USER (a person's), NONE, or a word
/// that is not known here, as Apple wrote it. After a lock or an unlock Apple may still tell of before for some minutes. OUR
/// LOCK is how the organisation's own lock stands from everything on record: none, confirmed, unknown (it may be on) or
/// someone_elses; EVIDENCE is what that rests on.
///
/// With --json, each device is one line: {"serial", "apple", "organisation_lock"}, or {"serial", "error", "hint"} for one that
/// is not known.
///
/// Exit status: 0 every device was shown, and with --fresh also read; 1 otherwise; 2 wrong usage.
#[derive(Args)]
pub(crate) struct LockStatusArgs {
    /// The serial numbers
    #[arg(required = true, value_name = "SERIAL")]
    serials: Vec<SerialNumber>,
    /// Ask Apple now, one device after the other, instead of showing what it last said
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    server: ServerArgs,
}

const COLUMNS: &[(&str, &str)] = &[
    ("SERIAL", "serial"),
    ("LOCKED", "is_locked"),
    ("LOCK TYPE", "lock_type"),
    ("READ AT", "read_at"),
    ("OUR LOCK", "lock"),
    ("EVIDENCE", "evidence"),
];

/// Refusals that say nothing about the next device.
const OF_ONE_DEVICE: &[&str] = &["unknown-device", "ambiguous-device"];

/// Runs the command.
pub(crate) async fn run(args: LockStatusArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let mut seen: Vec<&SerialNumber> = Vec::new();
    let mut shown: Vec<Value> = Vec::new();
    let mut status = DONE;
    let mut ending: Option<Failure> = None;
    for serial in &args.serials {
        if seen.contains(&serial) {
            continue;
        }
        seen.push(serial);
        match ask(&api, serial, args.fresh).await {
            Ok(standing) => {
                if voice.is_json() {
                    voice.data(&standing, String::new)?;
                }
                if tell_problem(serial, &standing, voice) && args.fresh {
                    status = FAILED;
                }
                shown.push(standing);
            }
            Err(Refusal {
                problem: Some(problem),
                failure,
            }) if OF_ONE_DEVICE.contains(&problem.as_str()) => {
                tell_refusal(serial, &failure, voice)?;
                status = FAILED;
            }
            Err(refusal) => {
                ending = Some(refusal.failure);
                break;
            }
        }
    }
    if !voice.is_json() && !shown.is_empty() {
        let rows: Vec<Value> = shown.iter().map(row).collect();
        voice.line(&show::table(COLUMNS, &rows))?;
        tell_once(&shown, voice);
    }
    match ending {
        Some(failure) => Err(failure),
        None => Ok(status),
    }
}

async fn ask(api: &Api, serial: &SerialNumber, fresh: bool) -> Result<Value, Refusal> {
    let path = ["devices", serial.as_str(), "lock-status"];
    let answer = api
        .try_ask(Ask::get(&path).with("fresh", fresh.then_some("1")))
        .await?;
    answer.json().map_err(|failure| Refusal {
        problem: None,
        failure,
    })
}

/// Says why the last question gave nothing, if it did not.
fn tell_problem(serial: &SerialNumber, standing: &Value, voice: Voice) -> bool {
    let problem = standing.pointer("/apple/problem").and_then(Value::as_str);
    if let Some(word) = problem.filter(|_| !voice.is_json()) {
        voice.talk(format!("{serial}: {}", in_words(word)));
    }
    problem.is_some()
}

fn tell_refusal(serial: &SerialNumber, failure: &Failure, voice: Voice) -> Result<(), Failure> {
    if voice.is_json() {
        let line = json!({ "serial": serial, "error": failure.what, "hint": failure.hint });
        return voice.data(&line, String::new);
    }
    voice.talk(format!("{serial}: {failure}"));
    if let Some(hint) = &failure.hint {
        voice.talk(format!("hint: {hint}"));
    }
    Ok(())
}

/// Says what is the same for several devices: that Apple cannot be asked, and what would strand a lock that is on (T29).
fn tell_once(shown: &[Value], voice: Voice) {
    if shown.iter().any(|standing| !can_be_asked(standing)) {
        voice.talk(NOBODY_TO_ASK);
    }
    let mut told: Vec<&str> = Vec::new();
    let warnings = shown
        .iter()
        .filter_map(|standing| standing.pointer("/organisation_lock/warnings")?.as_array())
        .flatten();
    for warning in warnings.filter_map(|warning| warning.get("happened")?.as_str()) {
        if !told.contains(&warning) {
            voice.talk(format!("warning: {warning}"));
            told.push(warning);
        }
    }
}

/// What is to be done where there is nobody to ask Apple as.
pub(crate) const NOBODY_TO_ASK: &str = "Apple cannot be asked: there is no API account. Somebody with the role of \
     Administrator makes one in Apple Business Manager or Apple School Manager; `lockwarden business-api set` sets it.";

fn can_be_asked(standing: &Value) -> bool {
    standing
        .pointer("/apple/can_be_asked")
        .is_none_or(|can| can != false)
}

/// What it means that Apple gave no status (contract sheet 4.4). The word itself where it is not known here.
pub(crate) fn in_words(problem: &str) -> String {
    match problem {
        "not_managed" => {
            "Apple says that the organisation does not manage a device with this serial number; see in Apple Business Manager or \
             Apple School Manager whose it is"
        }
        "internal_state" => {
            "Apple's server failed over this device, as it is said to do when the lock is in a state that only Apple sees \
             (unverified); that does not mean it is not locked. Ask again once; if it stays so, ask Apple"
        }
        "credential" => {
            "Apple did not accept the API account; `lockwarden business-api show` shows why, and `lockwarden business-api set` sets \
             another key"
        }
        "unavailable" => "Apple was not reached, or asks to wait; it is asked again by itself",
        "unexpected" => {
            "Apple gave an answer that does not say how the lock is; the server's log has it"
        }
        other => return format!("Apple gave no status ({other})"),
    }
    .to_owned()
}

fn row(standing: &Value) -> Value {
    let of = |path: &str| standing.pointer(path).cloned().unwrap_or_default();
    json!({
        "serial": of("/serial"),
        "is_locked": of("/apple/is_locked"),
        "lock_type": of("/apple/lock_type"),
        "read_at": of("/apple/read_at"),
        "lock": of("/organisation_lock/state"),
        "evidence": of("/organisation_lock/evidence"),
    })
}
