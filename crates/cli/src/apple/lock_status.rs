//! `lockwarden apple lock-status`: whether devices are locked, in Apple's own words.

use std::path::PathBuf;
use std::time::Duration;

use activation_lock::device::SerialNumber;
use activation_lock::unlock::Outcome;
use apple::business_manager::assertion::SigningKey;
use apple::business_manager::{
    ApiAccount, BusinessError, BusinessService, BusinessSettings, StatusAnswer,
};
use apple::transport::{Endpoint, Origin};
use clap::Args;
use serde::Serialize;
use server::lifecycle;

use crate::voice::{self, DONE, Failure, Voice};
use crate::{machine, secret_file, show};

/// The longest that is waited when Apple asks to; asked to wait longer, a person had better come back.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How often one device is asked about in all, when Apple asks to wait.
const TRIES: usize = 3;
/// Enough of what Apple says to recognise it; the whole may have 4,096 characters.
const TOLD: usize = 300;

/// About which devices to ask, and as whom.
#[derive(Args)]
pub(super) struct LockStatusArgs {
    /// The serial numbers
    #[arg(required = true, value_name = "SERIAL")]
    serials: Vec<SerialNumber>,
    /// The client ID of the API account: BUSINESSAPI. or SCHOOLAPI. and a UUID
    #[arg(long, value_name = "C")]
    client_id: String,
    /// The ID of its key
    #[arg(long, value_name = "K")]
    key_id: String,
    /// The file with its private key, as it was downloaded; - is standard input
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    /// Another address than Apple's: scheme, host and port alone; https, or http on this machine
    #[arg(long, value_name = "URL")]
    apple_url: Option<Origin>,
    /// Another address than Apple's to get access tokens from, path and all
    #[arg(long, value_name = "URL")]
    token_url: Option<Endpoint>,
    /// A certificate authority (PEM) to trust beside the well-known ones
    #[arg(long, value_name = "PEM")]
    ca_file: Option<PathBuf>,
}

/// What is known of one device.
#[derive(Serialize)]
struct Row {
    serial: SerialNumber,
    is_locked: Option<bool>,
    lock_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Runs the command.
pub(super) async fn run(args: &LockStatusArgs, voice: Voice) -> voice::Outcome {
    let service = service(args, voice)?;
    let mut rows: Vec<Row> = Vec::new();
    let mut worst = DONE;
    let mut ending: Option<BusinessError> = None;
    for serial in &args.serials {
        if rows.iter().any(|row| row.serial == *serial) {
            continue;
        }
        let row = match &ending {
            Some(error) => Row {
                problem: Some(format!("not asked: {error}")),
                ..nothing(serial)
            },
            None => {
                let answer = ask(&service, serial, voice).await;
                worst = worse(worst, exit_status(&answer));
                let row = row(serial, &answer);
                ending = answer.err().filter(BusinessError::concerns_every_call);
                row
            }
        };
        if voice.is_json() {
            voice.data(&row, String::new)?;
        } else if let Some(problem) = &row.problem {
            voice.talk(format!("{serial}: {problem}"));
        }
        rows.push(row);
    }
    if !voice.is_json() {
        voice.line(&table(&rows)?)?;
    }
    Ok(worst)
}

fn service(args: &LockStatusArgs, voice: Voice) -> Result<BusinessService, Failure> {
    let mut settings = BusinessSettings {
        authorities: super::authorities(args.ca_file.as_deref())?,
        ..BusinessSettings::default()
    };
    if let Some(origin) = &args.apple_url {
        settings.business_origin = origin.clone();
        settings.school_origin = origin.clone();
    }
    if let Some(url) = &args.token_url {
        settings.token_url = url.clone();
    }
    let what = "the file with the API account's private key";
    if let Some(warning) = secret_file::warning(&args.key, what) {
        voice.talk(warning);
    }
    let pem = secret_file::read_bytes(&args.key, what).map_err(super::as_usage)?;
    // Without a key to sign with, nothing is asked: the same outcome as when Apple refuses the account.
    let key = SigningKey::from_pem(&pem).map_err(|error| Failure {
        status: Outcome::Credential.exit_status(),
        ..Failure::new(error.to_string())
    })?;
    let account = ApiAccount::new(&args.client_id, &args.key_id, key)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let random = machine::random();
    BusinessService::new(&settings, account, move |bytes| random.fill(bytes))
        .map_err(|error| Failure::new(error.to_string()))
}

type Answer = Result<StatusAnswer, BusinessError>;

/// Asks, and waits for as long as Apple asks to, where that is not long.
async fn ask(service: &BusinessService, serial: &SerialNumber, voice: Voice) -> Answer {
    let clock = lifecycle::clock();
    let mut tries = 1;
    loop {
        let answer = service.lock_status(serial, clock.now()).await;
        let wait = match &answer {
            Err(BusinessError::Unavailable {
                retry_after: Some(wait),
                ..
            }) if tries < TRIES && *wait <= LONGEST_WAIT => *wait,
            _ => return answer,
        };
        if !voice.is_json() {
            voice.talk(format!("{serial}: Apple asks to wait {} s", wait.as_secs()));
        }
        clock.sleep(wait).await;
        tries += 1;
    }
}

fn exit_status(answer: &Answer) -> u8 {
    let outcome = match answer {
        Ok(StatusAnswer::Known { .. }) => return DONE,
        Ok(StatusAnswer::NotManaged) => Outcome::Refused,
        Ok(StatusAnswer::InternalState { .. }) | Err(BusinessError::Unexpected { .. }) => {
            Outcome::Unexpected
        }
        Err(BusinessError::Credential(_)) => Outcome::Credential,
        Err(BusinessError::Unavailable { .. }) => Outcome::Unavailable,
    };
    outcome.exit_status()
}

/// The one of two exit statuses that a person should hear of first.
fn worse(one: u8, other: u8) -> u8 {
    let order = [
        Outcome::Credential,
        Outcome::Unavailable,
        Outcome::Unexpected,
        Outcome::Refused,
    ];
    let statuses = order.map(Outcome::exit_status);
    let found = statuses.into_iter().find(|s| [one, other].contains(s));
    found.unwrap_or(DONE)
}

fn nothing(serial: &SerialNumber) -> Row {
    Row {
        serial: serial.clone(),
        is_locked: None,
        lock_type: None,
        problem: None,
    }
}

fn row(serial: &SerialNumber, answer: &Answer) -> Row {
    let problem = match answer {
        Ok(StatusAnswer::Known { status, .. }) => {
            let lock_type = status.lock_type.as_ref();
            return Row {
                is_locked: status.is_locked,
                lock_type: lock_type.map(|kind| kind.as_str().to_owned()),
                ..nothing(serial)
            };
        }
        Ok(StatusAnswer::NotManaged) => {
            "your organisation does not manage a device with this serial number; compare it with the device, and see in \
             Apple Business Manager or Apple School Manager whose it is"
                .to_owned()
        }
        Ok(StatusAnswer::InternalState { diagnostic }) => with(
            "Apple's server failed over this device, as it is said to do when the lock is in a state that only Apple sees \
             (unverified); that does not mean it is not locked. Ask again once; if it stays so, ask Apple",
            diagnostic,
        ),
        Err(error) => with(&error.to_string(), error.diagnostic()),
    };
    Row {
        problem: Some(problem),
        ..nothing(serial)
    }
}

/// The words, and the beginning of what Apple says.
fn with(words: &str, diagnostic: &str) -> String {
    if diagnostic.is_empty() {
        return words.to_owned();
    }
    let told: String = diagnostic.chars().take(TOLD).collect();
    format!("{words} ({told})")
}

fn table(rows: &[Row]) -> Result<String, Failure> {
    let rows: Result<Vec<_>, _> = rows.iter().map(serde_json::to_value).collect();
    let rows = rows.map_err(|error| {
        Failure::new(format!("the result cannot be written as a table: {error}"))
    })?;
    let columns = [
        ("SERIAL", "serial"),
        ("LOCKED", "is_locked"),
        ("LOCK TYPE", "lock_type"),
    ];
    Ok(show::table(&columns, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_is_that_of_the_worst() {
        for (one, other, expected) in [
            (0, 0, 0),
            (0, 3, 3),
            (3, 4, 4),
            (6, 4, 6),
            (5, 6, 5),
            (3, 5, 5),
        ] {
            assert_eq!(worse(one, other), expected);
            assert_eq!(worse(other, one), expected);
        }
    }
}
