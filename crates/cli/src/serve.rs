//! `lockwarden serve`: the server, and its sandbox.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use escrow::Database;
use serde::Serialize;
use server::Settings;
use server::lifecycle::{Running, Setup, StartError};
use server::telemetry;

use crate::local::{self, ConfigArgs};
use crate::machine::{self, Signals, Wish};
use crate::private_file;
use crate::voice::{DONE, Failure, Outcome, Voice};

mod sandbox;

/// Run the server, or with --sandbox the whole product against built-in fakes
///
/// It ends on SIGINT and SIGTERM: requests and calls to Apple under way are finished. On SIGHUP it reads the listener's
/// certificate and key anew.
#[derive(Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Serve only: another process on the database, `lockwarden worker`, does the work
    #[arg(long, conflicts_with = "sandbox")]
    without_work: bool,
    /// Play: fakes of Apple, of an MDM and of devices, in a data folder of its own. Nothing reaches Apple
    #[arg(long, conflicts_with = "config")]
    sandbox: bool,
    /// The sandbox's data folder [default: ./lockwarden-sandbox]
    #[arg(long, value_name = "FOLDER", requires = "sandbox")]
    data: Option<PathBuf>,
    /// The file that holds the address of a PostgreSQL database for the sandbox, in place of one in its data folder
    #[arg(long, value_name = "FILE", requires = "sandbox")]
    database_file: Option<PathBuf>,
    /// Where the sandbox listens: a loopback address; port 0 takes any free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", requires = "sandbox")]
    listen: Option<SocketAddr>,
    /// How many devices the sandbox has [default: 25]
    #[arg(long, value_name = "N", requires = "sandbox", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    devices: Option<u32>,
    /// Once it serves, write where as JSON to this file (mode 0600): url; a sandbox also token and devices
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
}

/// What the ready file says.
#[derive(Serialize)]
struct Ready<'a> {
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<&'a [String]>,
}

/// Runs the command until it is to end.
pub(crate) async fn run(args: ServeArgs, voice: Voice) -> Outcome {
    if args.sandbox {
        sandbox::run(args, voice).await
    } else {
        let does = |settings: &mut Settings| settings.works = !args.without_work;
        production(&args.config, args.ready_file.as_deref(), does, voice).await
    }
}

/// Do the work without serving: unlocks, locks, commands to MDMs, Apple's lists
///
/// For a vault in a PostgreSQL database, beside any number of `lockwarden serve`. At its listener it answers /healthz, /readyz and
/// /metrics alone. It ends on SIGINT and SIGTERM as `serve` does.
#[derive(Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Once it works, write where it listens as JSON to this file (mode 0600): url
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
}

/// Runs the command until it is to end.
pub(crate) async fn worker(args: WorkerArgs, voice: Voice) -> Outcome {
    let does = |settings: &mut Settings| settings.serves = false;
    production(&args.config, args.ready_file.as_deref(), does, voice).await
}

async fn production(
    config: &ConfigArgs,
    ready_file: Option<&Path>,
    does: impl FnOnce(&mut Settings),
    voice: Voice,
) -> Outcome {
    let mut signals = Signals::new()?;
    let config = config.read()?;
    telemetry::log(config.log.format, &config.log.level)
        .map_err(|error| Failure::new(error.to_string()))?;
    if !config.process.core_dumps {
        machine::keep_memory_private().map_err(|failure| {
            failure.hint("if this machine has to allow them, set core_dumps = true under [process]")
        })?;
    }
    if !machine::keep_memory_out_of_swap() {
        tracing::info!(
            "this process may not lock its memory: keys may be written to the swap, where there is one; LimitMEMLOCK=infinity in the unit lets it"
        );
    }
    let mut settings = config
        .settings()
        .map_err(|error| Failure::new(error.to_string()))?;
    settings.connections = machine::connections();
    does(&mut settings);
    let says = if settings.serves { "serves" } else { "works" };
    if !(settings.serves && settings.works)
        && matches!(local::database(&config)?, Database::Embedded)
    {
        return Err(Failure::usage(
            "a vault in a data folder has one process, which both serves and works",
        )
        .hint("several processes share a vault in a PostgreSQL database: docs/SCALING.md"));
    }
    let escrow = local::open(&config, voice).await?;
    let running = server::lifecycle::start(Setup {
        escrow,
        clock: server::lifecycle::clock(),
        random: server::lifecycle::random(),
        settings,
    })
    .await
    .map_err(|error| {
        let elsewhere = "name another address under [listen], such as one with port 0, which takes any free one";
        not_started(&error, elsewhere)
    })?;
    let ready = Ready {
        url: running.url(),
        token: None,
        devices: None,
    };
    if let Err(failure) = write_ready(ready_file, &ready) {
        running.stop().await;
        return Err(failure);
    }
    voice.talk(format!(
        "lockwarden {says} at {} (listening on {})",
        running.url(),
        running.address()
    ));
    until_the_end(running, &mut signals, voice).await
}

/// A server that did not start. `elsewhere` is how it is told to listen at another address.
fn not_started(error: &StartError, elsewhere: &str) -> Failure {
    let failure = Failure::new(error.to_string());
    match error {
        StartError::Listen { .. } => failure.hint(format!(
            "does another program listen there, perhaps a Lockwarden that runs already? Else {elsewhere}"
        )),
        _ => failure,
    }
}

fn write_ready(path: Option<&std::path::Path>, ready: &Ready<'_>) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string(ready)
        .map_err(|error| Failure::new(format!("the ready file cannot be written: {error}")))?;
    private_file::replace(path, &zeroize::Zeroizing::new(text))
}

/// Serves until a signal says to end, or the listener fails.
async fn until_the_end(mut running: Running, signals: &mut Signals, voice: Voice) -> Outcome {
    loop {
        let wish = tokio::select! {
            wish = signals.next() => wish,
            error = running.failed() => {
                running.stop().await;
                return Err(Failure::new(format!("the listener failed: {error}")));
            }
        };
        match wish {
            Wish::End => break,
            Wish::Reload => match running.reload_tls() {
                Ok(true) => tracing::info!("read the listener's certificate and key anew"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "the listener's new certificate is not used; the one before stays");
                }
            },
        }
    }
    voice.talk("ending: what is under way is finished first");
    running.stop().await;
    Ok(DONE)
}
