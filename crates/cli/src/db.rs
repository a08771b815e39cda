//! `lockwarden db`: the vault of this machine.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use escrow::meta::Status;
use escrow::moving::{self, Copied, Move};
use escrow::replicas::ReplicaView;
use escrow::{Database, Escrow, PostgresAddress};
use serde::Serialize;
use serde_json::json;

use crate::local::{self, ConfigArgs};
use crate::show;
use crate::voice::{self, DONE, FAILED, Failure, Outcome, Voice};

/// Look after the vault: status, migrate
#[derive(Args)]
pub(crate) struct DbArgs {
    #[command(subcommand)]
    command: DbCommand,
}

#[derive(Subcommand)]
enum DbCommand {
    /// Show what the vault is, and whether this program may open it; works beside a running server
    ///
    /// Exit status: 0 when this program may open it; 1 when not, or there is none.
    Status(PlainArgs),
    /// Bring the vault's schema up to date; `serve` does so too
    Migrate(PlainArgs),
    /// Move a vault from a data folder to a PostgreSQL database, or back, while no server uses it
    ///
    /// Every row is copied and then compared. A copy that was interrupted is gone on with by the same command. When the server first
    /// starts on the copy, unlocks and locks that were under way wait for a person, and everybody signs in again.
    Copy(CopyArgs),
}

#[derive(Args)]
struct CopyArgs {
    /// What to copy: sqlite:FOLDER, postgres://user@host/database, or file:PATH of a file that holds such an address
    #[arg(long, value_name = "ADDRESS")]
    from: String,
    /// Where to: the other of the two, empty
    #[arg(long, value_name = "ADDRESS")]
    to: String,
}

#[derive(Args)]
struct PlainArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs the command.
pub(crate) async fn run(args: DbArgs, voice: Voice) -> Outcome {
    match args.command {
        DbCommand::Status(args) => status(&args.config, voice).await,
        DbCommand::Copy(args) => copy(&args, voice).await,
        DbCommand::Migrate(args) => {
            let config = args.config.read()?;
            local::open(&config, voice).await?.close().await;
            status(&args.config, voice).await
        }
    }
}

/// One end of a copy.
enum End {
    Folder(PathBuf),
    Server(PostgresAddress),
}

impl End {
    fn read(text: &str) -> Result<Self, Failure> {
        if let Some(folder) = text.strip_prefix("sqlite:") {
            return Ok(Self::Folder(folder.into()));
        }
        if let Some(path) = text.strip_prefix("file:") {
            return match local::database_in(Some(Path::new(path)))? {
                Database::Postgres(address) => Ok(Self::Server(address)),
                Database::Embedded => Err(Failure::usage("the file holds no address")),
            };
        }
        let address: PostgresAddress = text
            .parse()
            .map_err(|error| Failure::usage(format!("{error}; a data folder is sqlite:FOLDER")))?;
        if address.has_password() {
            return Err(Failure::usage(
                "a password on a command line is seen by everybody on this machine",
            )
            .hint("put the address into a file that only you may read, and give file:PATH"));
        }
        Ok(Self::Server(address))
    }
}

/// What was copied. The keys of JSON output.
#[derive(Serialize)]
struct Done {
    rows: u64,
    compared: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<PathBuf>,
}

async fn copy(args: &CopyArgs, voice: Voice) -> Outcome {
    let way = match (End::read(&args.from)?, End::read(&args.to)?) {
        (End::Folder(folder), End::Server(server)) => Move::ToServer { folder, server },
        (End::Server(server), End::Folder(folder)) => Move::ToFolder { server, folder },
        _ => {
            return Err(Failure::usage(
                "a copy goes from a data folder to a PostgreSQL database, or back",
            ));
        }
    };
    let bar = voice::bar(0);
    let moved = moving::copy(&way, &*server::lifecycle::clock(), |so_far: Copied| {
        // Each row is copied, and then compared.
        bar.set_length(2 * so_far.of);
        bar.set_position(so_far.rows + so_far.compared);
    })
    .await;
    bar.finish_and_clear();
    let moved = moved.map_err(|error| Failure::new(error.to_string()))?;
    let done = Done {
        rows: moved.copied.rows,
        compared: moved.copied.compared,
        left: moved.left,
    };
    voice.data(&done, || {
        let mut lines = vec![format!("{} rows copied, {} compared", done.rows, done.compared)];
        match &way {
            Move::ToServer { .. } => lines.push(
                "Name the database in the configuration: address_file under [database]. The data folder stays in use: it \
                 holds the lock journal."
                    .to_owned(),
            ),
            Move::ToFolder { .. } => {
                lines.push("Take [database] out of the configuration.".to_owned());
            }
        }
        if let Some(left) = &done.left {
            lines.push(format!(
                "The database of before is {}: nothing opens it any more. Remove it once you have a backup.",
                left.display()
            ));
        }
        lines.join("\n")
    })?;
    Ok(DONE)
}

async fn status(config: &ConfigArgs, voice: Voice) -> Outcome {
    let config = config.read()?;
    let database = local::database(&config)?;
    let found = Escrow::status(
        &config.data.folder,
        database.clone(),
        &*server::lifecycle::clock(),
    )
    .await
    .map_err(|error| Failure::new(error.to_string()))?;
    let Some(status) = found else {
        return Err(Failure::new(format!(
            "there is no vault in {}",
            database.place(&config.data.folder)
        ))
        .hint("`lockwarden init` makes one"));
    };
    let value = value(&status);
    let replicas = value["replicas"].as_array().cloned().unwrap_or_default();
    voice.data(&value, || {
        let status = show::pairs(
            &value,
            &[
                ("kind", "kind"),
                ("schema", "schema_version"),
                ("program's schema", "program_version"),
                ("oldest program's", "oldest_compatible"),
                ("may be opened", "compatible"),
                ("to be applied", "pending"),
                ("made", "created_at"),
                ("recovery key opened it", "recovery_opened_at"),
            ],
        );
        if replicas.is_empty() {
            return status;
        }
        let columns = [
            ("PROCESS ON", "host"),
            ("VERSION", "version"),
            ("DOES", "does"),
            ("STARTED", "started_at"),
            ("STANDING", "standing"),
        ];
        format!("{status}\n\n{}", show::table(&columns, &replicas))
    })?;
    Ok(if status.is_compatible() { DONE } else { FAILED })
}

fn replica(view: &ReplicaView) -> serde_json::Value {
    json!({
        "host": view.replica.host,
        "version": view.replica.version,
        "does": view.replica.roles,
        "schema_version": view.schema_version,
        "started_at": view.started_at.0,
        "seen_at": view.seen_at.0,
        "ended_at": view.ended_at.map(|at| at.0),
        "standing": match (view.is_alive, view.ended_at) {
            (true, _) => "runs",
            (false, Some(_)) => "ended",
            (false, None) => "not heard of",
        },
    })
}

fn value(status: &Status) -> serde_json::Value {
    json!({
        "kind": status.kind.as_str(),
        "schema_version": status.schema_version,
        "program_version": status.program_version,
        "oldest_compatible": status.oldest_compatible,
        "compatible": status.is_compatible(),
        "pending": status.pending,
        "created_at": status.created_at.0,
        "recovery_opened_at": status.recovery_opened_at.map(|at| at.0),
        "replicas": status.replicas.iter().map(replica).collect::<Vec<_>>(),
    })
}
