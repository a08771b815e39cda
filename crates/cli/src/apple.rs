//! `lockwarden apple`: one call to Apple without a server, a database or a record.

use std::path::PathBuf;

use activation_lock::codes::{CodeText, Form, forms};
use activation_lock::device::{DeviceIdentity, Imei, Meid, ProductType, SerialNumber};
use activation_lock::explain;
use activation_lock::unlock::Outcome;
use clap::{Args, Subcommand};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::secret_file;
use crate::voice::{self, Failure, Voice};

mod caller;

/// Ask Apple directly, without a server
#[derive(Args)]
pub(crate) struct AppleArgs {
    #[command(subcommand)]
    command: AppleCommand,
}

#[derive(Subcommand)]
enum AppleCommand {
    /// Turn the Activation Lock of one device off with codes you have
    ///
    /// Needs nothing but the push certificate. Nothing is recorded. Codes are tried in the order given: the next one only when
    /// Apple refused the one before.
    ///
    /// Exit status: 0 unlocked; 2 wrong usage, nothing was sent; 3 refused: not this code, or not this device; 4 malformed or
    /// unexpected; 5 credential: Apple did not accept the certificate, or it cannot be used; 6 unavailable: nothing was decided,
    /// try again later; 7 unknown: the lock may be off or not.
    Unlock(Box<UnlockArgs>),
}

#[derive(Args)]
struct UnlockArgs {
    /// The serial number
    #[arg(long, value_name = "S")]
    serial: SerialNumber,
    /// The hardware identifier, such as iPad4,1 (not the model's name)
    #[arg(long, value_name = "P")]
    product_type: ProductType,
    /// The IMEI of slot one, or the only one
    #[arg(long, value_name = "N")]
    imei: Option<Imei>,
    /// The IMEI of slot two
    #[arg(long, value_name = "N")]
    imei2: Option<Imei>,
    /// The MEID
    #[arg(long, value_name = "N")]
    meid: Option<Meid>,
    /// The name of your organisation, for Apple's record
    #[arg(long, value_name = "O", value_parser = not_blank)]
    org_name: String,
    /// Who asks: a real person, for Apple's record
    #[arg(long, value_name = "G", value_parser = not_blank)]
    requester: String,
    /// The file with the code, or several, a line each; - is standard input
    #[arg(long, value_name = "FILE")]
    code_file: PathBuf,
    #[command(flatten)]
    certificate: CertificateFiles,
    /// Another address than Apple's: scheme, host and port alone; https, or http on this machine
    #[arg(long, value_name = "URL")]
    apple_url: Option<Origin>,
    /// A certificate authority (PEM) to trust beside the well-known ones
    #[arg(long, value_name = "PEM")]
    ca_file: Option<PathBuf>,
}

fn not_blank(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if text.is_empty() { Err("it is empty") } else { Ok(text.to_owned()) }
}

/// What came of it.
#[derive(Serialize)]
struct Report {
    outcome: Outcome,
    attempts: Vec<Attempt>,
}

/// One call: what it meant, and the HTTP status if one came.
#[derive(Clone, Copy, Serialize)]
struct Attempt {
    outcome: Outcome,
    status: Option<u16>,
}

/// One text to send.
struct Candidate {
    text: Zeroizing<String>,
    /// Whether it is a code in its canonical form, or a text that Apple may not be able to read.
    canonical: bool,
}

/// Runs the command.
pub(crate) async fn run(args: AppleArgs, voice: Voice) -> voice::Outcome {
    let AppleCommand::Unlock(args) = args.command;
    let candidates = candidates(&args)?;
    let identity = DeviceIdentity {
        serial: args.serial.clone(),
        product_type: args.product_type.clone(),
        imei: args.imei.clone(),
        imei2: args.imei2.clone(),
        meid: args.meid.clone(),
    };
    let caller = match caller::Caller::new(&args)? {
        Ok(caller) => caller,
        Err(failure) => {
            // Without a certificate to show, nothing is sent: the same outcome as when Apple refuses it (R13).
            let report = Report { outcome: Outcome::Credential, attempts: Vec::new() };
            tell(&report, voice)?;
            return Err(Failure { status: Outcome::Credential.exit_status(), ..failure });
        }
    };
    let mut report = Report { outcome: Outcome::Unavailable, attempts: Vec::new() };
    for candidate in &candidates {
        let (outcome, status) = caller.call(&identity, &candidate.text, voice).await;
        report.attempts.push(Attempt { outcome, status });
        report.outcome = outcome;
        if !goes_on(outcome, candidate) {
            break;
        }
    }
    tell(&report, voice)?;
    Ok(report.outcome.exit_status())
}

/// Whether the next code is tried after this answer (R13): after a refusal; and after a 400 to a text that is no code, which
/// says nothing about the others.
fn goes_on(outcome: Outcome, candidate: &Candidate) -> bool {
    outcome == Outcome::Refused || (outcome == Outcome::Malformed && !candidate.canonical)
}

/// The texts to try: each line in the order given; of what a person typed the canonical form first and the text as it stands
/// second (R3).
fn candidates(args: &UnlockArgs) -> Result<Vec<Candidate>, Failure> {
    let whole = secret_file::read(&args.code_file, "the file with the codes")?;
    let mut seen: Vec<CodeText> = Vec::new();
    let mut candidates = Vec::new();
    for line in whole.lines() {
        let Some(code) = CodeText::new(line.trim().to_owned()) else {
            continue;
        };
        if seen.iter().any(|other| other.is_same_code(&code)) {
            continue;
        }
        for form in forms(code.shape(), false, false) {
            candidates.push(Candidate { text: code.in_form(form), canonical: form == Form::Canonical });
        }
        seen.push(code);
    }
    if candidates.is_empty() {
        return Err(Failure::usage("there is no code in the file given with --code-file").hint("write one code a line"));
    }
    Ok(candidates)
}

fn tell(report: &Report, voice: Voice) -> Result<(), Failure> {
    voice.data(report, || {
        let mut lines: Vec<String> = report
            .attempts
            .iter()
            .enumerate()
            .map(|(index, attempt)| {
                let status = attempt.status.map(|status| format!(" ({status})")).unwrap_or_default();
                format!("attempt {}: {}{status}", index + 1, attempt.outcome.as_str())
            })
            .collect();
        lines.push(report.outcome.as_str().to_owned());
        lines.join("\n")
    })?;
    if !voice.is_json() {
        let said = explain::outcome(report.outcome, report.attempts.last().and_then(|attempt| attempt.status));
        voice.talk(format!("{} {}\nWhat to do: {}", said.happened, said.means, said.to_do));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(canonical: bool) -> Candidate {
        Candidate { text: Zeroizing::new(String::new()), canonical }
    }

    #[test]
    fn r13_a_second_code_is_tried_after_refused_and_nothing_else() {
        for outcome in [
            Outcome::Unlocked,
            Outcome::Malformed,
            Outcome::Credential,
            Outcome::Unavailable,
            Outcome::Unknown,
            Outcome::Unexpected,
        ] {
            assert!(!goes_on(outcome, &candidate(true)), "{}", outcome.as_str());
        }
        assert!(goes_on(Outcome::Refused, &candidate(true)));
        assert!(goes_on(Outcome::Malformed, &candidate(false)));
        assert!(!goes_on(Outcome::Unknown, &candidate(false)));
    }
}
