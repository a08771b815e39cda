//! `lockwarden doctor`: what is wrong with this installation, and what to do about it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use server::config::{Config, KeySource};
use server::doctor::{Finding, Verdict};

use crate::local::ConfigArgs;
use crate::voice::{DONE, FAILED, Outcome, Voice};
use crate::{key_source, machine, secret_file};

/// Look at the configuration, the vault, the keys, certificates, MDMs and the clock: one line each
///
/// Works beside a running server. Nothing is changed, and no code is sent anywhere.
///
/// Exit status: 0 when nothing fails; 1 when something does. With --json each line is an object with the keys what, verdict
/// (ok, warn, fail), says, hint.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs the command.
pub(crate) async fn run(args: DoctorArgs, voice: Voice) -> Outcome {
    let mut worst = Verdict::Ok;
    for finding in findings(&args.config, voice).await {
        worst = worst.max(finding.verdict);
        voice.data(&finding, || line(&finding))?;
    }
    Ok(if worst == Verdict::Fail { FAILED } else { DONE })
}

async fn findings(args: &ConfigArgs, voice: Voice) -> Vec<Finding> {
    let config = match args.read() {
        Ok(config) => config,
        Err(failure) => {
            let hint = failure.hint.unwrap_or_else(|| "correct it".to_owned());
            return vec![Finding::fail("configuration", failure.what, hint)];
        }
    };
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let mut found = Vec::new();
    let key = match config.key_source(credentials.as_deref()) {
        Ok(source) => {
            found.extend(file_of(&source));
            match key_source::read(&source, voice).await {
                Ok(key) => Some(Arc::new(key)),
                Err(failure) => {
                    found.push(Finding::fail(
                        "key",
                        failure.what,
                        failure
                            .hint
                            .unwrap_or_else(|| "[keys] names where the running key is".to_owned()),
                    ));
                    None
                }
            }
        }
        Err(error) => {
            found.push(Finding::fail(
                "key",
                error.to_string(),
                "`lockwarden init` makes one",
            ));
            None
        }
    };
    let (clock, random) = (server::lifecycle::clock(), machine::random());
    found.extend(server::doctor::examine(&config, key, clock, random).await);
    found.push(running(&config).await);
    found
}

/// Whether something listens where the server is to.
async fn running(config: &Config) -> Finding {
    let address = config.listen.address;
    let connected = tokio::time::timeout(
        Duration::from_secs(5),
        tokio::net::TcpStream::connect(address),
    )
    .await;
    match connected {
        Ok(Ok(_)) => Finding::ok("server", format!("something listens on {address}")),
        _ => Finding::warn(
            "server",
            format!("nothing listens on {address}"),
            "`lockwarden serve` starts the server",
        ),
    }
}

fn line(finding: &Finding) -> String {
    let verdict = match finding.verdict {
        Verdict::Ok => "ok  ",
        Verdict::Warn => "warn",
        Verdict::Fail => "fail",
    };
    let mut line = format!("{verdict}  {:<16}  {}", finding.what, finding.says);
    if let Some(hint) = &finding.hint {
        line.push_str(&format!(" -> {hint}"));
    }
    line
}

/// Who can read the file that the key comes from. Of one that is not there the path is not repeated: the key itself may have been put
/// in its place.
fn file_of(source: &KeySource) -> Option<Finding> {
    let (KeySource::File(path)
    | KeySource::EnvironmentFile(path)
    | KeySource::Command { wrapped: path, .. }) = source;
    if !path.exists() {
        return None;
    }
    Some(match secret_file::warning(path, "the key file") {
        Some(_) => Finding::warn(
            "key file",
            format!("others than its owner can read {}", path.display()),
            format!("chmod 600 {}", path.display()),
        ),
        None => Finding::ok("key file", path.display().to_string()),
    })
}
