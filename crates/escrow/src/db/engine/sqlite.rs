//! SQLite: how connections are made and statements run. Knows rusqlite's types, and nobody else does.
//!
//! A statement runs on the thread that asks for it: a verb's dozen of them would otherwise be a dozen journeys to another thread and back.
//! The lanes have threads of their own for this.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::hooks::Wal;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Error, OpenFlags, Statement, ToSql, ffi};

use super::super::Fault;
use super::super::value::{Kind, Row, Value};
use super::Access;

/// How many prepared statements a connection keeps.
const STATEMENTS: usize = 512;
/// After how many more pages in the write-ahead log these are to be carried into the database.
const CARRY: i32 = 1_000;
/// With so many pages in the log whoever writes carries the rest itself, so that it begins anew.
const RESTART: i32 = 8_000;

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
    let mut connection = open(file)?;
    match access {
        Access::Write => {
            connection.execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -32768",
            )?;
            let mut carrier = Carrier::new(file);
            // What goes wrong here is no failure of the commit, which is on disk: it is tried again after the next.
            connection.wal_hook(Some(move |log: &mut Wal, pages| {
                carrier.committed(log, pages);
                Ok(())
            }))?;
        }
        Access::Read => connection.execute_batch("PRAGMA query_only = ON")?,
    }
    Ok(connection)
}

/// Carries what was committed from the write-ahead log into the database while others are written, on a thread of its own: it is as
/// much work as the writing.
struct Carrier {
    file: PathBuf,
    carried: i32,
    thread: Option<(SyncSender<()>, JoinHandle<()>)>,
}

impl Carrier {
    fn new(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            carried: 0,
            thread: None,
        }
    }

    /// There are so many pages in the log.
    fn committed(&mut self, log: &mut Wal, pages: i32) {
        if pages < self.carried {
            self.carried = 0;
        }
        if pages >= RESTART {
            if let Err(error) = log.checkpoint() {
                tracing::debug!(%error, "the write-ahead log was not carried into the database");
            }
        } else if pages - self.carried >= CARRY {
            self.carried = pages;
            if self.thread.is_none() {
                self.thread = Self::start(self.file.clone());
            }
            if let Some((wake, _)) = &self.thread {
                // Full means that it is to wake up already.
                let _ = wake.try_send(());
            }
        }
    }

    fn start(file: PathBuf) -> Option<(SyncSender<()>, JoinHandle<()>)> {
        let (wake, woken) = sync_channel(1);
        let carry = move || {
            let carried = open(&file).and_then(|connection| {
                while woken.recv().is_ok() {
                    connection.execute_batch("PRAGMA wal_checkpoint(PASSIVE)")?;
                }
                Ok(())
            });
            if let Err(error) = carried {
                tracing::warn!(%error, "the write-ahead log is carried into the database by whoever writes, which is slower");
            }
        };
        let name = "escrow-carrier".to_owned();
        let thread = std::thread::Builder::new().name(name).spawn(carry).ok()?;
        Some((wake, thread))
    }
}

/// Its connection is closed when this returns.
impl Drop for Carrier {
    fn drop(&mut self) {
        if let Some((wake, thread)) = self.thread.take() {
            drop(wake);
            // A panic there has been reported.
            let _ = thread.join();
        }
    }
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
pub(super) fn close(mut connection: Connection) {
    // The carrier's connection goes first, so that the last one tidies up.
    let let_go = connection.wal_hook(None::<fn(&mut Wal, i32) -> Result<(), Error>>);
    debug_assert!(let_go.is_ok());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_carried_into_the_database_and_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (file, log) = (folder.path().join("db"), folder.path().join("db-wal"));
        std::fs::write(&file, []).unwrap();
        let size = |path: &Path| path.metadata().map_or(0, |of| of.len());
        let connection = connect(&file, Access::Write).unwrap();
        script(&connection, "CREATE TABLE things (bytes BLOB)").unwrap();
        let add = || {
            let sql = "INSERT INTO things (bytes) VALUES (zeroblob($1))";
            execute(&connection, sql, &[Value::Int(4 << 20)]).unwrap();
        };
        // Far from where the writer does it.
        for _ in 0..3 {
            add();
        }
        while size(&file) < 4 << 20 {
            std::thread::yield_now();
        }
        for _ in 0..24 {
            add();
        }
        // Of 108 MiB that were written. A busy machine carries late.
        assert!(size(&log) < 80 << 20, "{} bytes of log", size(&log));
        close(connection);
        assert!(!log.exists(), "the last connection tidies up");
        let connection = connect(&file, Access::Read).unwrap();
        let rows = fetch(&connection, "SELECT COUNT(*) FROM things", &[], 9).unwrap();
        assert!(rows[0].first() == Some(&Value::Int(27)));
    }

    #[test]
    fn a_parameter_is_told_by_its_number_wherever_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("db");
        std::fs::write(&file, []).unwrap();
        let connection = connect(&file, Access::Write).unwrap();
        let params = [Value::Int(1), Value::Int(2)];
        let rows = fetch(&connection, "SELECT $2 - $1, $2", &params, 9).unwrap();
        let values: Vec<Value> = rows.into_iter().next().unwrap().into_values().collect();
        assert!(values == [Value::Int(1), Value::Int(2)]);
        assert!(fetch(&connection, "SELECT $3", &params, 9).is_err());
    }
}
