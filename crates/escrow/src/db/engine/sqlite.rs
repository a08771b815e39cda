//! SQLite: how connections are made and statements run. Knows sqlx's types for it, and nobody else does.

use std::path::Path;
use std::time::Duration;

use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Row as _, SqlSafeStr, Sqlite, SqliteConnection};
use sqlx::{TypeInfo as _, ValueRef as _};

use super::super::value::{Kind, Row, Value};
use super::{Access, rows_of};

fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(false)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
        .statement_cache_capacity(512)
        .pragma("secure_delete", "ON")
        .pragma("temp_store", "MEMORY")
        // Statements would be logged with their texts; none holds a value, but they are many.
        .disable_statement_logging()
}

/// A connection to the database in a file. Of the one that writes, a commit is on disk before it is acknowledged.
pub(super) async fn connect(file: &Path, access: Access) -> Result<SqliteConnection, sqlx::Error> {
    let options = match access {
        Access::Write => options(file)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("wal_autocheckpoint", "8000"),
        Access::Read => options(file).pragma("query_only", "ON"),
    };
    options.connect().await
}

/// What begins a transaction.
pub(super) fn begin(access: Access) -> &'static str {
    match access {
        Access::Write => "BEGIN IMMEDIATE",
        Access::Read => "BEGIN",
    }
}

/// Writes what the database holds at one moment into another file, which is there and empty, while others go on writing.
pub(super) async fn copy(file: &Path, to: &Path) -> Result<(), sqlx::Error> {
    let mut connection = options(file).connect().await?;
    let to = to.to_string_lossy().into_owned();
    let done = sqlx::query("VACUUM INTO $1")
        .bind(to)
        .execute(&mut connection)
        .await;
    super::close_link(connection).await;
    done.map(drop)
}

pub(super) async fn execute(
    connection: &mut SqliteConnection,
    sql: impl SqlSafeStr,
    params: Vec<Value>,
) -> Result<u64, sqlx::Error> {
    Ok(query(sql, params)
        .execute(connection)
        .await?
        .rows_affected())
}

/// The rows, at most so many of them. A statement that changes something runs to its end all the same.
pub(super) async fn fetch(
    connection: &mut SqliteConnection,
    sql: impl SqlSafeStr,
    params: Vec<Value>,
    most: usize,
) -> Result<Vec<Row>, sqlx::Error> {
    let rows = query(sql, params).fetch_all(connection).await?;
    rows_of(&rows, most, value)
}

fn query(sql: impl SqlSafeStr, params: Vec<Value>) -> Query<'static, Sqlite, SqliteArguments> {
    params
        .into_iter()
        .fold(sqlx::query(sql), |query, value| match value {
            Value::Null(_) => query.bind(None::<i64>),
            Value::Int(number) => query.bind(number),
            Value::Real(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
            Value::Blob(bytes) => query.bind(bytes),
        })
}

fn value(row: &SqliteRow, index: usize) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(index)?;
    let kind = match raw.type_info().name() {
        "INTEGER" => Kind::Int,
        "REAL" => Kind::Real,
        "TEXT" => Kind::Text,
        _ => Kind::Blob,
    };
    if raw.is_null() {
        return Ok(Value::Null(kind));
    }
    Ok(match kind {
        Kind::Int => Value::Int(row.try_get_unchecked(index)?),
        Kind::Real => Value::Real(row.try_get_unchecked(index)?),
        Kind::Text => Value::Text(row.try_get_unchecked(index)?),
        Kind::Blob => Value::Blob(row.try_get_unchecked(index)?),
    })
}
