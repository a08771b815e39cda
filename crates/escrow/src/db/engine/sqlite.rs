//! SQLite: how connections are made and statements run. Knows rusqlite's types, and nobody else does.
//!
//! A statement runs on the thread that asks for it: a verb's dozen of them would otherwise be a dozen journeys to another thread and back.
//! The lanes have threads of their own for this.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Error, OpenFlags, Statement, ToSql, ffi};

use super::super::Fault;
use super::super::value::{Kind, Row, Value};
use super::Access;

/// How many prepared statements a connection keeps.
const STATEMENTS: usize = 512;

fn open(file: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.execute_batch(
        "PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY",
    )?;
    Ok(connection)
}

/// A connection to the database in a file. Of the one that writes, a commit is on disk before it is acknowledged.
pub(super) fn connect(file: &Path, access: Access) -> Result<Connection, Error> {
    let connection = open(file)?;
    connection.execute_batch(match access {
        Access::Write => {
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 8000"
        }
        Access::Read => "PRAGMA query_only = ON",
    })?;
    Ok(connection)
}

/// What begins a transaction.
pub(super) fn begin(access: Access) -> &'static str {
    match access {
        Access::Write => "BEGIN IMMEDIATE",
        Access::Read => "BEGIN",
    }
}

/// Writes what the database holds at one moment into another file, which is there and empty, while others go on writing.
pub(super) fn copy(file: &Path, to: &Path) -> Result<(), Error> {
    let connection = open(file)?;
    let done = connection.execute("VACUUM INTO ?1", [to.to_string_lossy()]);
    close(connection);
    done.map(drop)
}

/// Runs a script of statements without parameters.
pub(super) fn script(connection: &Connection, sql: &str) -> Result<(), Error> {
    connection.execute_batch(sql)
}

/// Runs a statement; gives the number of rows it changed.
pub(super) fn execute(connection: &Connection, sql: &str, params: &[Value]) -> Result<u64, Error> {
    let mut statement = connection.prepare_cached(sql)?;
    bind(&mut statement, params)?;
    let mut rows = statement.raw_query();
    while rows.next()?.is_some() {}
    drop(rows);
    Ok(connection.changes())
}

/// The rows, at most so many of them. A statement that changes something runs to its end all the same.
pub(super) fn fetch(
    connection: &Connection,
    sql: &str,
    params: &[Value],
    most: usize,
) -> Result<Vec<Row>, Error> {
    let mut statement = connection.prepare_cached(sql)?;
    bind(&mut statement, params)?;
    let mut found = Vec::new();
    let mut columns: Option<Arc<[String]>> = None;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        if found.len() >= most {
            continue;
        }
        let statement = row.as_ref();
        let columns = columns.get_or_insert_with(|| {
            let names = statement.column_names();
            names.map(str::to_owned).collect()
        });
        let values = (0..columns.len()).map(|index| {
            let value = row.get_ref(index)?;
            Ok(match value {
                ValueRef::Null => Value::Null(kind(statement, index)),
                ValueRef::Integer(number) => Value::Int(number),
                ValueRef::Real(number) => Value::Real(number),
                ValueRef::Text(_) => Value::Text(value.as_str()?.to_owned()),
                ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
            })
        });
        let values = values.collect::<Result<_, Error>>()?;
        found.push(Row::new(columns.clone(), values));
    }
    Ok(found)
}

/// Closes it. What SQLite could not flush stays in the write-ahead log, where the next opening finds it.
pub(super) fn close(connection: Connection) {
    if let Err((_, error)) = connection.close() {
        tracing::warn!(%error, "a database connection did not close cleanly");
    }
}

/// To SQLite `$1` is a name, numbered by where it first stands.
fn bind(statement: &mut Statement<'_>, params: &[Value]) -> Result<(), Error> {
    for index in 1..=statement.parameter_count() {
        let name = statement.parameter_name(index);
        let number: Option<usize> = name.and_then(|name| name.get(1..)?.parse().ok());
        let value = number.and_then(|number| params.get(number.checked_sub(1)?));
        let value = value.ok_or(Error::InvalidParameterCount(params.len(), index))?;
        statement.raw_bind_parameter(index, value)?;
    }
    Ok(())
}

impl ToSql for Value {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>, Error> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null(_) => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// What a column without a value would hold.
fn kind(statement: &Statement<'_>, index: usize) -> Kind {
    let column = statement.columns().nth(index);
    match column.as_ref().and_then(|column| column.decl_type()) {
        Some("INTEGER") => Kind::Int,
        Some("REAL") => Kind::Real,
        Some("TEXT") => Kind::Text,
        _ => Kind::Blob,
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let Error::SqliteFailure(inner, message) = error else {
            return Self::Engine(error.to_string());
        };
        let code = inner.extended_code;
        let text = message.unwrap_or_else(|| ffi::code_to_str(code).to_owned());
        let text = format!("{text} (SQLite's code {code})");
        match code {
            ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY => {
                Self::NotUnique(text)
            }
            _ => Self::Engine(text),
        }
    }
}
