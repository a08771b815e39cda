//! `lockwarden apple unlock`: turns the lock of one device off with codes at hand.

use std::path::{Path, PathBuf};

use activation_lock::codes::{CodeText, TextShape, forms};
use activation_lock::device::{DeviceIdentity, Imei, Meid, ProductType, SerialNumber};
use activation_lock::explain;
use activation_lock::unlock::Outcome;
use apple::escrow_key_unlock::{Answer, UnlockRequest, UnlockService, UnlockSettings};
use apple::transport::Origin;
use clap::Args;
use serde::Serialize;
use server::lifecycle;
use zeroize::Zeroizing;

use crate::push_certificate::CertificateFiles;
use crate::secret_file;
use crate::voice::{self, Failure, Voice};

/// What to unlock, with what, and as whom.
#[derive(Args)]
pub(super) struct UnlockArgs {
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
    #[arg(long, value_name = "O", value_parser = a_name)]
    org_name: String,
    /// Who asks: a real person, for Apple's record
    #[arg(long, value_name = "G", value_parser = a_name)]
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

fn a_name(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if text.is_empty() {
        Err("it is empty")
    } else if text.chars().any(server::misleads) {
        Err("it holds control characters")
    } else {
        Ok(text.to_owned())
    }
}

/// What came of it.
#[derive(Serialize)]
struct Report {
    outcome: Outcome,
    attempts: Vec<Attempt>,
}

/// One try of a code: what it meant, and the HTTP status if one came.
#[derive(Clone, Copy, Serialize)]
struct Attempt {
    outcome: Outcome,
    status: Option<u16>,
}

/// One text to send.
struct Candidate {
    text: Zeroizing<String>,
    /// Whether it can be read as a bypass code. When not, it is no wonder that Apple cannot read it either.
    parses: bool,
}

/// Runs the command.
pub(super) async fn run(args: &UnlockArgs, voice: Voice) -> voice::Outcome {
    let of_codes = usize::from(args.code_file == Path::new("-"));
    if of_codes + args.certificate.of_standard_input() > 1 {
        return Err(Failure::usage(
            "standard input can be only one of the files: it is read once",
        ));
    }
    let candidates = candidates(&args.code_file)?;
    let settings = settings(args)?;
    let identity = DeviceIdentity {
        serial: args.serial.clone(),
        product_type: args.product_type.clone(),
        imei: args.imei.clone(),
        imei2: args.imei2.clone(),
        meid: args.meid.clone(),
    };
    let service = match service(&args.certificate, &settings, voice) {
        Ok(service) => service,
        Err(failure) => {
            // Without a certificate to show, nothing is sent: the same outcome as when Apple refuses it (R13).
            let report = Report {
                outcome: Outcome::Credential,
                attempts: Vec::new(),
            };
            voice.data(&report, || report.outcome.as_str().to_owned())?;
            return Err(Failure {
                status: report.outcome.exit_status(),
                ..failure
            });
        }
    };
    let mut report = Report {
        outcome: Outcome::Unavailable,
        attempts: Vec::new(),
    };
    for candidate in &candidates {
        let request =
            UnlockRequest::new(&identity, &args.org_name, &args.requester, &candidate.text)
                .map_err(|error| Failure::usage(error.to_string()))?;
        let answer = service.unlock(&request, lifecycle::clock().now()).await;
        report.outcome = answer.outcome;
        report.attempts.push(Attempt {
            outcome: answer.outcome,
            status: answer.status,
        });
        if !voice.is_json() {
            voice.talk(attempt_in_words(report.attempts.len(), &answer));
        }
        if !goes_on(answer.outcome, candidate) {
            break;
        }
    }
    voice.data(&report, || report.outcome.as_str().to_owned())?;
    if !voice.is_json() {
        let last = report.attempts.last();
        let said = explain::outcome(report.outcome, last.and_then(|attempt| attempt.status));
        let to_do = to_do(report.outcome).unwrap_or(&said.to_do);
        voice.talk(format!(
            "{} {}\nWhat to do: {to_do}",
            said.happened, said.means
        ));
    }
    Ok(report.outcome.exit_status())
}

/// Whether the next code is tried after this answer (R13): after a refusal; and after a 400 to a text that is no code, which
/// says nothing about the others.
fn goes_on(outcome: Outcome, candidate: &Candidate) -> bool {
    outcome == Outcome::Refused || (outcome == Outcome::Malformed && !candidate.parses)
}

/// The texts to try: each line in the order given, once; of what a person typed the canonical form first and the text as it
/// stands second (R3).
fn candidates(file: &Path) -> Result<Vec<Candidate>, Failure> {
    let whole = secret_file::read(file, "the file with the codes").map_err(super::as_usage)?;
    let mut seen: Vec<CodeText> = Vec::new();
    let mut candidates = Vec::new();
    for line in whole.lines() {
        let Some(code) = CodeText::new(line.trim().to_owned()) else {
            continue;
        };
        if seen.iter().any(|other| other.is_same_code(&code)) {
            continue;
        }
        let shape = code.shape();
        for form in forms(shape, false, false) {
            candidates.push(Candidate {
                text: code.in_form(form),
                parses: shape != TextShape::Opaque,
            });
        }
        seen.push(code);
    }
    if candidates.is_empty() {
        return Err(
            Failure::usage("there is no code in the file given with --code-file")
                .hint("write one code a line"),
        );
    }
    Ok(candidates)
}

fn settings(args: &UnlockArgs) -> Result<UnlockSettings, Failure> {
    let mut settings = UnlockSettings::default();
    if let Some(origin) = &args.apple_url {
        settings.origin = origin.clone();
    }
    settings.authorities = super::authorities(args.ca_file.as_deref())?;
    Ok(settings)
}

fn service(
    files: &CertificateFiles,
    settings: &UnlockSettings,
    voice: Voice,
) -> Result<UnlockService, Failure> {
    let certificate = files.load(voice)?;
    UnlockService::new(settings, &certificate).map_err(|error| Failure::new(error.to_string()))
}

fn attempt_in_words(number: usize, answer: &Answer) -> String {
    let mut words = format!("attempt {number}: {}", answer.outcome.as_str());
    if let Some(status) = answer.status {
        words.push_str(&format!(" ({status})"));
    }
    if let Some(wait) = answer.retry_after {
        words.push_str(&format!(", asked to wait {} s", wait.as_secs()));
    }
    if !answer.diagnostic.is_empty() {
        words.push_str(": ");
        // Enough to recognise what answered; the whole may have 4,096 characters.
        words.extend(answer.diagnostic.chars().take(300));
    }
    words
}

/// What to do where nothing goes on by itself, unlike with a server; `None` where the words are the same.
fn to_do(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Unlocked | Outcome::Credential => None,
        Outcome::Refused => Some(
            "Compare the serial number, the product type (such as iPad4,1) and the IMEI with the device. If they are right, \
             try the other codes you have of this device: its own and the one your MDM made. If none is left, somebody with \
             the Manage Devices privilege may turn the lock off in Apple Business Manager or Apple School Manager.",
        ),
        Outcome::Malformed => Some(
            "Compare the serial number, the product type (such as iPad4,1), the IMEI and the code with where they came from, \
             and run the command again.",
        ),
        Outcome::Unavailable => Some(
            "Run the command again later. If it lasts longer than an hour, check that this machine reaches \
             deviceservices-external.apple.com on port 443 and that nothing between inspects the encrypted traffic.",
        ),
        Outcome::Unknown => Some(
            "With the device in hand, see whether it is still locked. If it is, or you cannot see it, run the command again \
             with the same codes; if Apple then refuses them all, this call may be the one that turned the lock off.",
        ),
        Outcome::Unexpected => Some(
            "Find out what answered: the beginning of its text is shown with the attempt. Then run the command again.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(parses: bool) -> Candidate {
        Candidate {
            text: Zeroizing::new(String::new()),
            parses,
        }
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
