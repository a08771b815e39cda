//! `lockwarden bench`: how much this machine's disk and cores can take. Figures for `docs/PERFORMANCE.md`, not a test.
//!
//! Everything is real but the far ends: the server over HTTP on a loopback address, the vault in a folder, unlocks over mutual
//! TLS against the fake Apple. The load generator and the fakes run on the same cores.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use escrow::meta::DataKind;
use escrow::{Database, Escrow, Opening};
use seal::KeyEncryptionKey;
use serde::Serialize;
use server::Settings;
use server::lifecycle::{self, Running, Setup};

use crate::owner::Broken;
use crate::voice::{DONE, Failure, Outcome, Voice};
use crate::{local, machine};

mod fleet;
mod load;
mod unlocks;
mod webhooks;

/// Measure webhooks and unlocks a second on this machine, and a fleet of any size
///
/// Everything happens in a new folder, which is removed afterwards, and between fakes on this machine: nothing reaches Apple.
/// Choose a folder on the disk that is to be measured: every webhook is on it before it is answered.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// What to measure [default: all]
    #[arg(value_enum)]
    what: Vec<What>,
    /// Connections at once, each in turn
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [32, 128, 256], value_parser = clap::value_parser!(u32).range(1..=4096))]
    connections: Vec<u32>,
    /// How long webhooks are sent at each number of connections
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How many devices are unlocked
    #[arg(long, value_name = "N", default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    unlocks: u32,
    /// How many devices the fleet has
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1000..=100_000_000))]
    devices: u64,
    /// Unlocks at work at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=4096))]
    in_flight: u32,
    /// The file that holds the address of an empty PostgreSQL database, to measure that in place of one in the folder
    #[arg(long, value_name = "FILE")]
    database_file: Option<PathBuf>,
    /// Servers on the database, which must be PostgreSQL for more than one; all of them in this process, on the same cores
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    replicas: u32,
    /// The folder to make and remove
    #[arg(long, value_name = "FOLDER", default_value = "lockwarden-bench")]
    folder: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Webhooks accepted a second, each durable before it is answered.
    Webhooks,
    /// Unlocks a second, limits lifted.
    Unlocks,
    /// A fleet of the size that `--devices` says: how long it takes to record, how much room it takes, and how fast it is found.
    Fleet,
}

/// One figure.
#[derive(Serialize)]
struct Figure {
    what: &'static str,
    connections: u32,
    count: u64,
    seconds: f64,
    per_second: f64,
    /// Of answers, milliseconds.
    median_ms: Option<f64>,
    worst_in_a_hundred_ms: Option<f64>,
    worst_in_a_thousand_ms: Option<f64>,
}

impl Figure {
    /// Of as many answers as there are times, in milliseconds.
    fn of_answers(what: &'static str, connections: u32, seconds: f64, mut took: Vec<f64>) -> Self {
        took.sort_by(f64::total_cmp);
        let at = |part: f64| took.get((took.len() as f64 * part) as usize).copied();
        Self {
            what,
            connections,
            count: took.len() as u64,
            seconds,
            per_second: took.len() as f64 / seconds,
            median_ms: at(0.5),
            worst_in_a_hundred_ms: at(0.99),
            worst_in_a_thousand_ms: at(0.999),
        }
    }
}

/// Runs the command.
pub(crate) async fn run(args: BenchArgs, voice: Voice) -> Outcome {
    if args.folder.exists() {
        return Err(
            Failure::usage(format!("{} is there already", args.folder.display()))
                .hint("the folder is made for the measurement and removed afterwards: name another with --folder"),
        );
    }
    if args.replicas > 1 && args.database_file.is_none() {
        return Err(Failure::usage(
            "SQLite is for one server: name a PostgreSQL database for several",
        )
        .hint("--database-file names the file that holds its address"));
    }
    let measured = measure(&args, voice).await;
    let removed = std::fs::remove_dir_all(&args.folder);
    measured?;
    removed.map_err(|error| {
        Failure::new(format!(
            "{} cannot be removed: {error}",
            args.folder.display()
        ))
    })?;
    Ok(DONE)
}

async fn measure(args: &BenchArgs, voice: Voice) -> Result<(), Failure> {
    let place = Place {
        folder: args.folder.clone(),
        database: local::database_in(args.database_file.as_deref())?,
        key: Arc::new(KeyEncryptionKey::generate(&machine::random())),
        replicas: args.replicas,
    };
    let wanted = |what| args.what.is_empty() || args.what.contains(&what);
    if wanted(What::Webhooks) {
        for &connections in &args.connections {
            let figure = webhooks::measure(&place, connections, args.seconds)
                .await
                .map_err(broken)?;
            tell(&figure, voice)?;
        }
    }
    if wanted(What::Unlocks) {
        let figure = unlocks::measure(&place, args.unlocks, args.in_flight)
            .await
            .map_err(broken)?;
        tell(&figure, voice)?;
    }
    if wanted(What::Fleet) {
        fleet::measure(&place, args.devices, args.seconds, voice)
            .await
            .map_err(broken)?;
    }
    Ok(())
}

fn broken(error: Broken) -> Failure {
    Failure::new(format!("the measurement broke off: {error}"))
}

fn tell(figure: &Figure, voice: Voice) -> Result<(), Failure> {
    voice.data(figure, || {
        let mut line = format!(
            "{:<18} {:>5} at once: {:>8.0} a second ({} in {:.1} s)",
            figure.what, figure.connections, figure.per_second, figure.count, figure.seconds
        );
        if let (Some(median), Some(worst), Some(worse)) = (
            figure.median_ms,
            figure.worst_in_a_hundred_ms,
            figure.worst_in_a_thousand_ms,
        ) {
            line.push_str(&format!(
                "; answers: median {median:.1} ms, one in a hundred over {worst:.1} ms, one in a thousand over {worse:.1} ms"
            ));
        }
        line
    })
}

/// Where the vaults are: each in a folder of its own, or all of them in the one database of a server.
struct Place {
    folder: PathBuf,
    database: Database,
    key: Arc<KeyEncryptionKey>,
    replicas: u32,
}

impl Place {
    /// Servers on a vault: as many as are wanted, each with a data folder of its own.
    async fn serve(
        &self,
        name: &str,
        escrow: &Escrow,
        settings: Settings,
    ) -> Result<Vec<Running>, Broken> {
        let first = lifecycle::start(setup(escrow.clone(), settings.clone())).await?;
        let mut servers = vec![first];
        for number in 1..self.replicas {
            let escrow = self.vault(&format!("{name}-{number}")).await?;
            servers.push(lifecycle::start(setup(escrow, settings.clone())).await?);
        }
        Ok(servers)
    }

    async fn vault(&self, name: &str) -> escrow::Result<Escrow> {
        Escrow::open(Opening {
            folder: &self.folder.join(name),
            database: self.database.clone(),
            kind: DataKind::Sandbox,
            key: self.key.clone(),
            recovery: None,
            clock: lifecycle::clock(),
            random: lifecycle::random(),
        })
        .await
    }
}

fn settings() -> Settings {
    Settings {
        sandbox: true,
        pace: escrow::pace::Rate::per_second(0.0),
        ..Settings::new(([127, 0, 0, 1], 0).into())
    }
}

fn addresses(servers: &[Running]) -> Vec<SocketAddr> {
    servers.iter().map(Running::address).collect()
}

/// All of them end.
async fn stop(servers: Vec<Running>) {
    for server in servers {
        server.stop().await;
    }
}

fn setup(escrow: Escrow, settings: Settings) -> Setup {
    Setup {
        escrow,
        clock: lifecycle::clock(),
        random: lifecycle::random(),
        settings,
    }
}

/// Milliseconds since `began`, by the machine's clock.
fn seconds_since(began: activation_lock::time::Timestamp) -> f64 {
    let took: Duration = lifecycle::clock().now().since(began);
    took.as_secs_f64()
}
