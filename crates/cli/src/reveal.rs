//! `lockwarden reveal`: the codes of a device, for a person.

use std::borrow::Cow;

use activation_lock::device::SerialNumber;
use clap::Args;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::api::{Api, Ask, LeaveArgs, ServerArgs};
use crate::devices;
use crate::voice::{DONE, Failure, Outcome, Voice, visible};

/// Show the codes of a device
///
/// Who asked, and why, goes on record before the codes are shown. The codes go to standard output and nowhere else; each
/// comes with how it is typed. The device is asked for its code again afterwards.
#[derive(Args)]
pub(crate) struct RevealArgs {
    /// The serial number
    serial: SerialNumber,
    /// Why: kept on record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    leave: LeaveArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// The answer, read in place so that no copy of a code is made. What else it says is left alone.
#[derive(Deserialize)]
struct Revealed<'a> {
    #[serde(borrow)]
    codes: Vec<Shown<'a>>,
    #[serde(default)]
    afterwards: Option<String>,
}

#[derive(Deserialize)]
struct Shown<'a> {
    #[serde(borrow, alias = "text")]
    code: Cow<'a, str>,
    #[serde(default)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    current: bool,
    #[serde(default)]
    doubt: Option<String>,
    #[serde(default)]
    doubt_explanation: Option<Doubt>,
    #[serde(default)]
    how_to_type: Option<String>,
}

#[derive(Deserialize)]
struct Doubt {
    happened: String,
    means: String,
}

/// Runs the command.
pub(crate) async fn run(args: RevealArgs, voice: Voice) -> Outcome {
    let reason = devices::reason(&args.reason)?;
    let api = Api::new(&args.server, voice)?.with_leave(&args.leave)?;
    let path = ["devices", args.serial.as_str(), "reveal"];
    let answer = api
        .ask(Ask::post(&path).json(&json!({ "reason": reason }))?)
        .await?;
    if voice.is_json() {
        voice.raw(answer.text()?)?;
        return Ok(DONE);
    }
    let revealed: Revealed<'_> = serde_json::from_slice(&answer.body).map_err(|_| {
        Failure::new("the answer does not hold codes in the form that this version knows")
    })?;
    if revealed.codes.is_empty() {
        voice.talk("No code of this device is known.");
    }
    for shown in &revealed.codes {
        let made_by = shown.kind.as_deref().unwrap_or("unknown");
        let standing = if shown.current { "current" } else { "earlier" };
        // A device may have made anything up: a line is one code.
        let code = Zeroizing::new(visible(&shown.code, &[]).into_owned());
        let line = Zeroizing::new(format!("{}  ({standing} {made_by} code)", *code));
        voice.line(&line)?;
        match (&shown.doubt_explanation, &shown.doubt) {
            (Some(why), _) => voice.talk(format!("  doubtful: {} {}", why.happened, why.means)),
            (None, Some(word)) => voice.talk(format!("  doubtful: {word}")),
            (None, None) => {}
        }
    }
    // All of them are of one device.
    if let Some(how) = revealed
        .codes
        .iter()
        .find_map(|shown| shown.how_to_type.as_deref())
    {
        voice.talk(how);
    }
    if let Some(afterwards) = revealed.afterwards.filter(|_| !revealed.codes.is_empty()) {
        voice.talk(afterwards);
    }
    Ok(DONE)
}
