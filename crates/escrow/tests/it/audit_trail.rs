//! The audit trail as it lies in the database file, read beside the vault.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Row};

use crate::support::Vault;

/// The text of each audit row, oldest first.
pub(crate) async fn audit_texts(vault: &Vault) -> Vec<String> {
    let file = vault.escrow.folder().join("lockwarden.db");
    let mut beside = SqliteConnectOptions::new()
        .filename(file)
        .read_only(true)
        .connect()
        .await
        .unwrap();
    let rows = sqlx::query("SELECT text FROM audit ORDER BY id")
        .fetch_all(&mut beside)
        .await
        .unwrap();
    rows.iter().map(|row| row.get("text")).collect()
}
