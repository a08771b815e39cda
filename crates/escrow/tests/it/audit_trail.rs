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

/// Changes one row behind the vault's back, as somebody with the file could.
pub(crate) async fn tamper(vault: &Vault, sql: &'static str, id: &str) {
    let file = vault.escrow.folder().join("lockwarden.db");
    let mut beside = SqliteConnectOptions::new()
        .filename(file)
        .connect()
        .await
        .unwrap();
    let changed = sqlx::query(sql)
        .bind(id)
        .execute(&mut beside)
        .await
        .unwrap();
    assert_eq!(changed.rows_affected(), 1);
}

/// Runs a statement behind the vault's back.
pub(crate) async fn run(vault: &Vault, sql: &'static str) {
    let file = vault.escrow.folder().join("lockwarden.db");
    let options = SqliteConnectOptions::new().filename(file);
    let mut beside = options.connect().await.unwrap();
    sqlx::query(sql).execute(&mut beside).await.unwrap();
}
