//! SQLite: how connections are made and statements run. The only file that knows sqlx's types.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{Column as _, ConnectOptions as _, Connection as _, Row as _, Sqlite, SqliteConnection};
use sqlx::{TypeInfo as _, ValueRef as _};

use super::value::{Row, Value};
use super::{Fault, Folder};

fn options(folder: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(Folder::database(folder))
        .create_if_missing(false)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
        .statement_cache_capacity(512)
        .pragma("secure_delete", "ON")
        .pragma("temp_store", "MEMORY")
        // Statements would be logged with their texts; none holds a value, but they are many.
        .disable_statement_logging()
}

/// The one connection that writes: a commit is on disk before it is acknowledged.
pub(super) async fn connect_writer(folder: &Path) -> Result<SqliteConnection, Fault> {
    let options = options(folder)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", "8000");
    Ok(options.connect().await?)
}

/// A connection that cannot write.
pub(super) async fn connect_reader(folder: &Path) -> Result<SqliteConnection, Fault> {
    Ok(options(folder).pragma("query_only", "ON").connect().await?)
}

/// Writes what the database holds at one moment into another file, which is there and empty, while others go on writing.
pub(super) async fn copy(folder: &Path, to: &Path) -> Result<(), Fault> {
    let mut connection = options(folder).connect().await?;
    let to = to.to_string_lossy().into_owned();
    let done = sqlx::query("VACUUM INTO $1")
        .bind(to)
        .execute(&mut connection)
        .await;
    close(connection).await;
    done?;
    Ok(())
}

/// Closes a connection. What it could not flush stays in the write-ahead log, where the next opening finds it.
pub(super) async fn close(connection: SqliteConnection) {
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "a database connection did not close cleanly");
    }
}

/// Runs a script of statements without parameters.
pub(super) async fn script(
    connection: &mut SqliteConnection,
    sql: &'static str,
) -> Result<(), Fault> {
    sqlx::raw_sql(sql).execute(connection).await?;
    Ok(())
}

pub(super) async fn execute(
    connection: &mut SqliteConnection,
    sql: &'static str,
    params: Vec<Value>,
) -> Result<u64, Fault> {
    Ok(query(sql, params)
        .execute(connection)
        .await?
        .rows_affected())
}

pub(super) async fn fetch_all(
    connection: &mut SqliteConnection,
    sql: &'static str,
    params: Vec<Value>,
) -> Result<Vec<Row>, Fault> {
    let rows = query(sql, params).fetch_all(connection).await?;
    let Some(first) = rows.first() else {
        return Ok(Vec::new());
    };
    let columns = columns(first);
    rows.iter().map(|row| convert(&columns, row)).collect()
}

/// The first row. A statement that changes something runs to its end all the same.
pub(super) async fn fetch_optional(
    connection: &mut SqliteConnection,
    sql: &'static str,
    params: Vec<Value>,
) -> Result<Option<Row>, Fault> {
    let rows = query(sql, params).fetch_all(connection).await?;
    rows.first()
        .map(|row| convert(&columns(row), row))
        .transpose()
}

fn query(sql: &'static str, params: Vec<Value>) -> Query<'static, Sqlite, SqliteArguments> {
    params
        .into_iter()
        .fold(sqlx::query(sql), |query, value| match value {
            Value::Null => query.bind(None::<i64>),
            Value::Int(number) => query.bind(number),
            Value::Real(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
            Value::Blob(bytes) => query.bind(bytes),
        })
}

fn columns(row: &SqliteRow) -> Arc<[String]> {
    row.columns()
        .iter()
        .map(|column| column.name().to_owned())
        .collect()
}

fn convert(columns: &Arc<[String]>, row: &SqliteRow) -> Result<Row, Fault> {
    let value = |index| -> Result<Value, sqlx::Error> {
        let raw = row.try_get_raw(index)?;
        if raw.is_null() {
            return Ok(Value::Null);
        }
        let kind = raw.type_info();
        Ok(match kind.name() {
            "INTEGER" => Value::Int(row.try_get_unchecked(index)?),
            "REAL" => Value::Real(row.try_get_unchecked(index)?),
            "TEXT" => Value::Text(row.try_get_unchecked(index)?),
            _ => Value::Blob(row.try_get_unchecked(index)?),
        })
    };
    let values = (0..columns.len()).map(value).collect::<Result<_, _>>()?;
    Ok(Row::new(columns.clone(), values))
}
