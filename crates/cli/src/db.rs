//! `lockwarden db`: the vault of this machine.

use clap::{Args, Subcommand};
use escrow::Escrow;
use escrow::meta::Status;
use serde_json::json;

use crate::local::{self, ConfigArgs};
use crate::show;
use crate::voice::{DONE, FAILED, Failure, Outcome, Voice};

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
        DbCommand::Migrate(args) => {
            let config = args.config.read()?;
            local::open(&config, voice).await?.close().await;
            status(&args.config, voice).await
        }
    }
}

async fn status(config: &ConfigArgs, voice: Voice) -> Outcome {
    let config = config.read()?;
    let folder = &config.data.folder;
    let found = Escrow::status(folder)
        .await
        .map_err(|error| Failure::new(error.to_string()))?;
    let Some(status) = found else {
        return Err(
            Failure::new(format!("there is no vault in {}", folder.display()))
                .hint("`lockwarden init` makes one"),
        );
    };
    let value = value(&status);
    voice.data(&value, || {
        show::pairs(
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
        )
    })?;
    Ok(if status.is_compatible() { DONE } else { FAILED })
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
    })
}
