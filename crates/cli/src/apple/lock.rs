//! `lockwarden apple lock`: turns the organisation's lock of one device on, with a code that is on disk before Apple is asked
//! (R4).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use activation_lock::bypass_code::{BypassCode, EscrowKeyHash, RAW_BYTES};
use activation_lock::device::SerialNumber;
use activation_lock::explain;
use activation_lock::lock::LockOutcome;
use apple::dep::key::TokenKey;
use apple::dep::token::{ServerToken, TokenExpiry};
use apple::dep::{DepService, DepSettings, LockAnswer, LostMessage};
use apple::transport::Origin;
use clap::Args;
use seal::Random as _;
use serde::Serialize;
use server::lifecycle;
use zeroize::Zeroizing;

use crate::voice::{self, Failure, Voice};
use crate::{machine, private_file, secret_file};

/// The exit statuses, for `--help`.
pub(super) const EXIT_STATUSES: &str = "\
Exit status:
  0  locked
  1  failed on this machine, such as that the code could not be kept; then nothing was sent
  2  wrong usage; nothing was sent
  3  refused (NOT_ACCESSIBLE, ORG_NOT_SUPPORTED, DEVICE_NOT_SUPPORTED), or locked already
  4  Apple could not read the request, or an answer came that it does not describe
  5  the server token has ended, does not open or is not accepted, or Apple's new terms are not
  6  unavailable: Apple was not reached or asks to come back; nothing was decided
  7  unknown: no answer, FAILED, or a word that Apple does not describe; the lock may be on";

/// Enough of what Apple says to recognise it; the whole may have 4,096 characters.
const TOLD: usize = 300;

/// What to lock, with which code, and as whom.
#[derive(Args)]
pub(super) struct LockArgs {
    /// The serial number
    #[arg(long, value_name = "S")]
    serial: SerialNumber,
    /// The server token: the file that was downloaded (.p7m), or the JSON in it; - is standard input
    #[arg(long, value_name = "P7M|JSON")]
    token_file: PathBuf,
    /// The private key of the certificate that the .p7m file was made for
    #[arg(long, value_name = "PEM")]
    key: Option<PathBuf>,
    /// What the locked device shows
    #[arg(long, value_name = "M")]
    message: Option<LostMessage>,
    #[command(flatten)]
    code: CodeFiles,
    /// Another address than Apple's: scheme, host and port alone; https, or http on this machine
    #[arg(long, value_name = "URL")]
    apple_url: Option<Origin>,
    /// A certificate authority (PEM) to trust beside the well-known ones
    #[arg(long, value_name = "PEM")]
    ca_file: Option<PathBuf>,
}

/// Which code.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct CodeFiles {
    /// Make a new code and keep it in this file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    code_out: Option<PathBuf>,
    /// Use the code in this file, and make none; - is standard input
    #[arg(long, value_name = "FILE")]
    code_file: Option<PathBuf>,
}

/// What came of it.
#[derive(Serialize)]
struct Report<'a> {
    serial: &'a SerialNumber,
    outcome: LockOutcome,
    response_status: Option<&'a str>,
}

impl Report<'_> {
    fn tell(&self, voice: Voice) -> Result<(), Failure> {
        voice.data(self, || {
            let outcome = self.outcome.as_str().replace('_', " ");
            match self.response_status {
                Some(said) => format!("{}: {outcome} ({said})", self.serial),
                None => format!("{}: {outcome}", self.serial),
            }
        })
    }
}

/// Runs the command.
pub(super) async fn run(args: &LockArgs, voice: Voice) -> voice::Outcome {
    if of_standard_input(args) > 1 {
        return Err(Failure::usage(
            "standard input can be only one of the files: it is read once",
        ));
    }
    let service = match service(args, voice) {
        Ok(service) => service,
        Err(failure) => {
            // Without a token to prove us, nothing is made or sent: the same outcome as when Apple refuses it.
            if failure.status == LockOutcome::Credential.exit_status() {
                let report = Report {
                    serial: &args.serial,
                    outcome: LockOutcome::Credential,
                    response_status: None,
                };
                report.tell(voice)?;
            }
            return Err(failure);
        }
    };
    let (code, place) = args.code.kept(voice)?;
    let hash = EscrowKeyHash::of(&code);
    let now = lifecycle::clock().now();
    let answer = service
        .activate_lock(&args.serial, &hash, args.message.as_ref(), now)
        .await;
    let report = Report {
        serial: &args.serial,
        outcome: answer.outcome,
        response_status: answer.response_status.as_ref().map(|said| said.as_str()),
    };
    // Where the code is must be told, also when nobody takes the data.
    let told = report.tell(voice);
    if !voice.is_json() {
        explain(&report, &answer, voice);
    }
    voice.talk(of_the_code(&answer, &place));
    told?;
    Ok(answer.outcome.exit_status())
}

fn of_standard_input(args: &LockArgs) -> usize {
    let files = [
        Some(&args.token_file),
        args.key.as_ref(),
        args.code.code_file.as_ref(),
    ];
    let is_input = |path: &&PathBuf| path.as_os_str() == "-";
    files.into_iter().flatten().filter(is_input).count()
}

fn service(args: &LockArgs, voice: Voice) -> Result<DepService, Failure> {
    let mut settings = DepSettings {
        authorities: super::authorities(args.ca_file.as_deref())?,
        ..DepSettings::default()
    };
    if let Some(origin) = &args.apple_url {
        settings.origin = origin.clone();
    }
    let token = token(args, voice)?;
    let random = machine::random();
    let random = Arc::new(move |bytes: &mut [u8]| random.fill(bytes));
    DepService::new(&settings, token, random).map_err(|error| Failure::new(error.to_string()))
}

/// The server token, decrypted before or now, and not over yet.
fn token(args: &LockArgs, voice: Voice) -> Result<ServerToken, Failure> {
    let unusable = |error: &dyn fmt::Display| Failure {
        status: LockOutcome::Credential.exit_status(),
        ..Failure::new(error.to_string())
    };
    let what = "the server token's file";
    let file = secret_file::read_bytes(&args.token_file, what).map_err(super::as_usage)?;
    let token = if is_decrypted(&file) {
        warn(&args.token_file, what, voice);
        if args.key.is_some() {
            voice.talk("--key is not needed: the server token is decrypted already");
        }
        ServerToken::from_json(&file).map_err(|error| {
            unusable(&format!("this is not a decrypted server token: {error}")).hint(
                "give the JSON that the downloaded file holds, or that file itself with --key",
            )
        })?
    } else {
        let Some(path) = &args.key else {
            return Err(
                Failure::usage("the server token's file is encrypted, or is none").hint(
                    "give the private key of the certificate that it was made for with --key",
                ),
            );
        };
        let what = "the private key's file";
        let pem = secret_file::read_bytes(path, what).map_err(super::as_usage)?;
        warn(path, what, voice);
        let key = TokenKey::from_pem(&pem, None).map_err(|error| unusable(&error))?;
        ServerToken::open(&file, &key).map_err(|error| unusable(&error))?
    };
    let now = lifecycle::clock().now();
    let days = token.days_left(now);
    match token.expiry_level(now) {
        TokenExpiry::Fine => {}
        TokenExpiry::Expiring | TokenExpiry::Urgent => {
            voice.talk(format!(
                "warning: the server token ends in {days} days; download a new one in time"
            ));
        }
        TokenExpiry::Expired => {
            return Err(unusable(
                &"the server token has ended: Apple takes it no more, so that nothing was made or sent",
            )
            .hint(
                "download a new token of this server in Apple Business Manager or Apple School Manager; a token is good for \
                 a year",
            ));
        }
    }
    Ok(token)
}

/// Whether there is JSON in the file. One that is still encrypted has no braces, unless it is binary.
fn is_decrypted(file: &[u8]) -> bool {
    std::str::from_utf8(file).is_ok_and(|text| text.contains('{'))
}

fn warn(path: &Path, what: &str, voice: Voice) {
    if let Some(warning) = secret_file::warning(path, what) {
        voice.talk(warning);
    }
}

/// Where the code is.
enum Place<'a> {
    /// In this file, since now.
    New(&'a Path),
    /// In this file, since before.
    File(&'a Path),
    /// Wherever it was piped from.
    Elsewhere,
}

impl CodeFiles {
    /// The code, once it is on disk.
    fn kept(&self, voice: Voice) -> Result<(BypassCode, Place<'_>), Failure> {
        match (&self.code_out, &self.code_file) {
            (Some(path), _) => {
                let code = new_code(path)?;
                voice.talk(format!("the new code is kept in {}", path.display()));
                Ok((code, Place::New(path)))
            }
            (None, Some(path)) => Ok((read_code(path, voice)?, place_of(path))),
            (None, None) => Err(Failure::usage(
                "neither --code-out nor --code-file is given",
            )),
        }
    }
}

fn place_of(path: &Path) -> Place<'_> {
    match path.as_os_str() == "-" {
        true => Place::Elsewhere,
        false => Place::File(path),
    }
}

/// A new code, in a file of its own that is on disk with its name.
fn new_code(path: &Path) -> Result<BypassCode, Failure> {
    if path.as_os_str() == "-" {
        return Err(Failure::usage(
            "a new code is kept in a file before Apple is asked, and not written to standard output",
        ));
    }
    let mut raw = Zeroizing::new([0; RAW_BYTES]);
    machine::random().fill(raw.as_mut_slice());
    let code = BypassCode::from_raw(*raw);
    let mut file = private_file::create(path).map_err(|failure| {
        if path.symlink_metadata().is_ok() {
            failure.hint(
                "nothing is overwritten, and nothing was sent: give another name, or --code-file to lock with the code that \
                 the file holds",
            )
        } else {
            failure.hint("nothing was sent: a code is kept before Apple is asked")
        }
    })?;
    file.write_line(&code.to_text()).map_err(|failure| {
        failure.hint("nothing was sent: a code is kept before Apple is asked")
    })?;
    file.keep();
    Ok(code)
}

/// A code that a person keeps, read as a person types.
fn read_code(path: &Path, voice: Voice) -> Result<BypassCode, Failure> {
    let what = "the file with the code";
    let text = secret_file::read(path, what).map_err(super::as_usage)?;
    let code = BypassCode::parse_lenient(text.trim()).map_err(|error| {
        Failure::usage(format!("this is not a bypass code: {error}"))
            .hint("compare it with where it came from; the file holds one code and nothing else")
    })?;
    if let Place::File(path) = place_of(path) {
        warn(path, what, voice);
        private_file::make_durable(path).map_err(|failure| {
            failure.hint("nothing was sent: a code is on disk before Apple is asked")
        })?;
    }
    Ok(code)
}

/// Says what happened, what it means, and what to do where nothing goes on by itself.
fn explain(report: &Report<'_>, answer: &LockAnswer, voice: Voice) {
    if let Some(wait) = answer.retry_after {
        voice.talk(format!("Apple asks to wait {} s", wait.as_secs()));
    }
    if report.response_status.is_none() && !answer.diagnostic.is_empty() {
        let told: String = answer.diagnostic.chars().take(TOLD).collect();
        voice.talk(format!("the answer says: {told}"));
    }
    let said = explain::lock::outcome(report.outcome, answer.status, report.response_status);
    let to_do = to_do(report.outcome).unwrap_or(&said.to_do);
    voice.talk(format!(
        "{} {}\nWhat to do: {to_do}",
        said.happened, said.means
    ));
}

/// What to do where nothing goes on by itself, unlike with a server; `None` where the words are the same.
fn to_do(outcome: LockOutcome) -> Option<&'static str> {
    match outcome {
        LockOutcome::NotAccessible
        | LockOutcome::OrgNotSupported
        | LockOutcome::DeviceNotSupported
        | LockOutcome::Malformed => None,
        LockOutcome::Locked => Some(
            "Turn the lock off before the device is released from the organisation, moved to another device management \
             system, or erased to be set up by itself.",
        ),
        LockOutcome::AlreadyLocked => Some(
            "Nothing, if it only has to be locked. `lockwarden apple lock-status` shows in Apple's own words whose lock it is.",
        ),
        LockOutcome::Failed => Some(
            "Run the command again with the same code. If it goes on, contact Apple, as Apple advises.",
        ),
        LockOutcome::Undescribed => Some(
            "See Apple's own status of the device with `lockwarden apple lock-status`, or the device itself. To ask again, use \
             the same code.",
        ),
        LockOutcome::Credential => Some(
            "Look at the clock of this machine. If it is right, look at the server in Apple Business Manager or Apple School \
             Manager: its token ends after a year, and when a newer one is downloaded. Somebody who manages servers there \
             downloads a new one; run the command again with that.",
        ),
        LockOutcome::TermsNotSigned => Some(
            "Somebody with the role of Administrator signs in to Apple Business Manager or Apple School Manager and accepts the \
             new terms. Then run the command again.",
        ),
        LockOutcome::AccessDenied => Some(
            "Somebody with the role of Administrator looks in Apple Business Manager or Apple School Manager whether the server \
             is still there and the organisation's account is in order. Then run the command again.",
        ),
        LockOutcome::Unavailable => Some(
            "Run the command again later. If it lasts longer than an hour, check that this machine reaches \
             mdmenrollment.apple.com on port 443 and that nothing between inspects the encrypted traffic.",
        ),
        LockOutcome::Unknown => Some(
            "Run the command again with the same code, until there is a definite answer. If Apple then says that the device is \
             locked already, this call may be the one that did it.",
        ),
        LockOutcome::Unexpected => Some(
            "Find out what answered: the beginning of its text is shown. It may come from something between us and Apple, such \
             as a proxy server. Then run the command again with the same code.",
        ),
    }
}

/// Why the code must be kept, or need not be (R4).
fn of_the_code(answer: &LockAnswer, place: &Place<'_>) -> String {
    let (the_code, same) = match place {
        Place::New(path) | Place::File(path) => (
            format!("the code in {}", path.display()),
            format!("with --code-file {}", path.display()),
        ),
        Place::Elsewhere => (
            "the code that was given".to_owned(),
            "with the same code".to_owned(),
        ),
    };
    let may_be_on = answer.outcome.leaves_doubt() && answer.may_have_reached_apple;
    match answer.outcome {
        LockOutcome::Locked => {
            format!("Keep {the_code}: it opens this lock, and nobody else has it.")
        }
        LockOutcome::AlreadyLocked => format!(
            "Keep {the_code}, and every other code of this device: a lock of before opens with the code of its own call."
        ),
        _ if may_be_on => format!(
            "Keep {the_code}, whatever comes of it: it may be what opens the device. Ask again {same}, and not with a new one."
        ),
        _ => {
            let unless = match place {
                Place::New(_) => "Nothing hangs on it until then.",
                Place::File(_) | Place::Elsewhere => {
                    "Keep it if an earlier call with it got no definite answer."
                }
            };
            format!(
                "This call locked nothing with {the_code}. To ask again, do so {same}. {unless}"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(outcome: LockOutcome, may_have_reached_apple: bool) -> LockAnswer {
        LockAnswer {
            outcome,
            response_status: None,
            status: None,
            retry_after: None,
            diagnostic: String::new(),
            may_have_reached_apple,
        }
    }

    #[test]
    fn r4_a_code_may_go_only_after_a_definite_no() {
        let path = Path::new("new.code");
        for (outcome, is_kept) in [
            (LockOutcome::Locked, true),
            (LockOutcome::AlreadyLocked, true),
            (LockOutcome::NotAccessible, false),
            (LockOutcome::OrgNotSupported, false),
            (LockOutcome::DeviceNotSupported, false),
            (LockOutcome::Failed, true),
            (LockOutcome::Undescribed, true),
            (LockOutcome::Malformed, false),
            (LockOutcome::Credential, false),
            (LockOutcome::TermsNotSigned, false),
            (LockOutcome::AccessDenied, false),
            (LockOutcome::Unavailable, false),
            (LockOutcome::Unknown, true),
            (LockOutcome::Unexpected, true),
        ] {
            let said = of_the_code(&answer(outcome, true), &Place::New(path));
            assert_eq!(said.starts_with("Keep "), is_kept, "{said}");
            assert!(said.contains("new.code"), "{said}");
            // A code that was used before may be in a lock since then.
            let before = of_the_code(&answer(outcome, true), &Place::File(path));
            assert!(before.contains("Keep "), "{before}");
        }
    }

    #[test]
    fn r4_a_lock_in_doubt_is_asked_for_again_with_the_same_code() {
        let unknown = answer(LockOutcome::Unknown, true);
        let said = of_the_code(&unknown, &Place::New(Path::new("new.code")));
        assert!(said.contains("--code-file new.code"), "{said}");
        let said = of_the_code(&unknown, &Place::Elsewhere);
        assert!(said.contains("with the same code"), "{said}");
    }

    #[test]
    fn a_token_that_is_decrypted_is_told_from_one_that_is_not() {
        for (file, is_json) in [
            (&b"{\"consumer_key\": 1}"[..], true),
            (b"\xef\xbb\xbf {", true),
            (
                b"Content-Type: text/plain\r\n\r\n-----BEGIN MESSAGE-----\r\n{",
                true,
            ),
            (
                b"Content-Type: application/pkcs7-mime\r\n\r\nMIAGCSq",
                false,
            ),
            (b"\x30\x80{\x06\x09\xff", false),
            (b"", false),
        ] {
            assert_eq!(is_decrypted(file), is_json);
        }
    }
}
