//! A connection to a database of either engine: one set of verbs, and the branch below them.

mod postgres;
mod sqlite;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use activation_lock::time::Timestamp;
use sqlx::{
    AssertSqlSafe, Column as _, Connection as _, PgConnection, SqlSafeStr, SqliteConnection,
};

use super::address::Database;
use super::value::{Row, Value, params};
use super::{Fault, Folder, copy};

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Write,
    Read,
}

/// What befell a connection's transaction, if it is not just a statement that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Another transaction was first. The same again may go through.
    Conflict,
    /// The connection is of no use any more. On another one the same may go through.
    Lost,
}

/// Where connections are made to.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) database: Database,
}

impl Place {
    /// A database; the folder is that of the process, and the embedded one is in it.
    pub(super) fn new(folder: &Path, database: Database) -> Self {
        Self {
            folder: folder.to_owned(),
            database,
        }
    }

    /// A new connection.
    pub(super) async fn connect(&self, access: Access) -> Result<Connection, Fault> {
        let link = match &self.database {
            Database::Embedded => {
                Link::Sqlite(sqlite::connect(&Folder::database(&self.folder), access).await?)
            }
            Database::Postgres(address) => {
                Link::Postgres(Box::new(postgres::connect(address).await?))
            }
        };
        Ok(Connection::over(link))
    }

    /// Writes what the database holds at one moment into another file, which is there and empty, while others go on writing.
    pub(super) async fn copy(&self, to: &Path, now: Timestamp) -> Result<(), Fault> {
        match &self.database {
            Database::Embedded => Ok(sqlite::copy(&Folder::database(&self.folder), to).await?),
            Database::Postgres(_) => {
                let mut from = self.connect(Access::Read).await?;
                let mut to =
                    Connection::over(Link::Sqlite(sqlite::connect(to, Access::Write).await?));
                let copied = copy::copy(&mut from, &mut to, now, None, |_| {}).await;
                from.close().await;
                to.close().await;
                copied.map(drop)
            }
        }
    }

    /// How many connections write at the same time, and how many read.
    pub(super) fn connections(&self) -> (usize, usize) {
        match &self.database {
            Database::Embedded => (1, 4),
            Database::Postgres(address) => address.connections(),
        }
    }

    /// Whether a connection that was lost may be made again, and others may be writing at the same time.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.database, Database::Postgres(_))
    }
}

/// How a transaction finds the database.
pub(super) struct Began {
    /// The server's time.
    pub(super) now: Timestamp,
    /// The state of the data keys: another text once they are exchanged.
    pub(super) keys: Option<String>,
}

/// Hears what other processes tell.
pub(super) struct Listener(postgres::Listener);

impl Listener {
    /// Begins to listen.
    pub(super) async fn start(place: &Place) -> Result<Self, Fault> {
        match &place.database {
            Database::Embedded => Err(Fault::Engine("there is nobody to hear".to_owned())),
            Database::Postgres(address) => Ok(Self(postgres::listen(address).await?)),
        }
    }

    /// The next text; nothing when the connection was lost.
    pub(super) async fn next(&mut self) -> Option<String> {
        postgres::next(&mut self.0).await
    }
}

/// A connection.
pub(super) struct Connection {
    link: Link,
    trouble: Option<(Trouble, Fault)>,
    changed: bool,
}

enum Link {
    Sqlite(SqliteConnection),
    Postgres(Box<PgConnection>),
}

impl Connection {
    fn over(link: Link) -> Self {
        Self {
            link,
            trouble: None,
            changed: false,
        }
    }

    /// What befell the transaction. Whoever runs verbs looks here, for a verb may have passed over an error.
    pub(super) fn interrupted(&self) -> Option<(Trouble, Fault)> {
        self.trouble.clone()
    }

    /// Whether anything was changed since the last [`begin`](Self::begin).
    pub(super) fn has_changed(&self) -> bool {
        self.changed
    }

    /// Whether others may write at the same time.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.link, Link::Postgres(_))
    }

    /// The server's time, when there is a server.
    pub(super) async fn server_time(&mut self) -> Result<Option<Timestamp>, Fault> {
        if let Link::Sqlite(_) = self.link {
            return Ok(None);
        }
        let sql = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now";
        let row = self.fetch_optional(sql, params![]).await?;
        row.map(|row| row.column("now")).transpose()
    }

    /// Begins a transaction.
    pub(super) async fn begin(&mut self, access: Access) -> Result<(), Fault> {
        self.trouble = None;
        self.changed = false;
        let sql = match self.link {
            Link::Sqlite(_) => sqlite::begin(access),
            Link::Postgres(_) => postgres::begin(access),
        };
        self.script(sql).await.map(drop)
    }

    /// Begins a transaction. Gives what others may have changed, when there may be others.
    pub(super) async fn begin_watched(&mut self, access: Access) -> Result<Option<Began>, Fault> {
        if let Link::Sqlite(_) = self.link {
            self.begin(access).await?;
            return Ok(None);
        }
        self.trouble = None;
        self.changed = false;
        let rows = self.script(postgres::begin_watched(access)).await?;
        let row = rows.first().ok_or(Fault::NoRow { sql: "BEGIN" })?;
        Ok(Some(Began {
            now: row.column("now")?,
            keys: row.column("keys")?,
        }))
    }

    /// Runs a script of statements without parameters.
    pub(super) async fn script(&mut self, sql: &'static str) -> Result<Vec<Row>, Fault> {
        let done = match &mut self.link {
            Link::Sqlite(link) => sqlx::raw_sql(sql).execute(link).await.map(|_| Vec::new()),
            Link::Postgres(link) => in_time(postgres::script(link, sql)).await,
        };
        self.noted(done)
    }

    /// Runs a statement; gives the number of rows it changed.
    pub(super) async fn execute(
        &mut self,
        sql: &'static str,
        params: Vec<Value>,
    ) -> Result<u64, Fault> {
        self.run(sql, params).await
    }

    async fn run(&mut self, sql: impl SqlSafeStr, params: Vec<Value>) -> Result<u64, Fault> {
        let done = match &mut self.link {
            Link::Sqlite(link) => sqlite::execute(link, sql, params).await,
            Link::Postgres(link) => in_time(postgres::execute(link, sql, params)).await,
        };
        let rows = self.noted(done)?;
        self.changed |= rows > 0;
        Ok(rows)
    }

    /// All rows.
    pub(super) async fn fetch_all(
        &mut self,
        sql: &'static str,
        params: Vec<Value>,
    ) -> Result<Vec<Row>, Fault> {
        self.fetch(sql, params, usize::MAX).await
    }

    /// The first row. A statement that changes something runs to its end all the same.
    pub(super) async fn fetch_optional(
        &mut self,
        sql: &'static str,
        params: Vec<Value>,
    ) -> Result<Option<Row>, Fault> {
        Ok(self.fetch(sql, params, 1).await?.into_iter().next())
    }

    /// All rows of a statement that was put together; of nothing but names of tables and columns.
    pub(super) async fn fetch_text(
        &mut self,
        sql: String,
        params: Vec<Value>,
    ) -> Result<Vec<Row>, Fault> {
        self.fetch(AssertSqlSafe(sql), params, usize::MAX).await
    }

    /// Runs a statement that was put together; of nothing but names of tables and columns.
    pub(super) async fn execute_text(
        &mut self,
        sql: String,
        params: Vec<Value>,
    ) -> Result<u64, Fault> {
        self.run(AssertSqlSafe(sql), params).await
    }

    async fn fetch(
        &mut self,
        sql: impl SqlSafeStr,
        params: Vec<Value>,
        most: usize,
    ) -> Result<Vec<Row>, Fault> {
        let sql = sql.into_sql_str();
        let reads = sql.as_str().starts_with("SELECT");
        let done = match &mut self.link {
            Link::Sqlite(link) => sqlite::fetch(link, sql, params, most).await,
            Link::Postgres(link) => in_time(postgres::fetch(link, sql, params, most)).await,
        };
        let rows = self.noted(done)?;
        self.changed |= !rows.is_empty() && !reads;
        Ok(rows)
    }

    /// Takes a name that no other session can have at the same time, until this one ends. False when another has it.
    pub(super) async fn claim(&mut self, name: i64) -> Result<bool, Fault> {
        let Link::Postgres(_) = self.link else {
            // The folder's lock keeps everybody else out.
            return Ok(true);
        };
        let sql = "SELECT pg_try_advisory_lock($1) AS is_ours";
        let row = self.fetch_optional(sql, params![name]).await?;
        row.ok_or(Fault::NoRow { sql })?.column("is_ours")
    }

    /// Gives a name back.
    pub(super) async fn release(&mut self, name: i64) -> Result<(), Fault> {
        if let Link::Postgres(_) = self.link {
            let sql = "SELECT pg_advisory_unlock($1) AS was_ours";
            self.fetch_all(sql, params![name]).await?;
        }
        Ok(())
    }

    /// Ends the session that has a name, if one has: its program was cut off from it, and is us.
    pub(super) async fn evict(&mut self, name: i64) -> Result<(), Fault> {
        if let Link::Postgres(_) = self.link {
            // An advisory lock's number is shown in two halves.
            let sql = "SELECT pg_terminate_backend(pid) AS ended FROM pg_locks WHERE locktype = 'advisory' \
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                       AND ((CAST(classid AS BIGINT) << 32) | CAST(objid AS BIGINT)) = $1 AND granted";
            self.fetch_all(sql, params![name]).await?;
        }
        Ok(())
    }

    /// Whether there is nothing of anybody's in the database.
    pub(super) async fn is_empty(&mut self) -> Result<bool, Fault> {
        let sql = match self.link {
            Link::Sqlite(_) => "SELECT COUNT(*) AS tables FROM sqlite_schema",
            Link::Postgres(_) => {
                "SELECT COUNT(*) AS tables FROM pg_tables WHERE schemaname = current_schema()"
            }
        };
        let row = self.fetch_optional(sql, params![]).await?;
        Ok(row.ok_or(Fault::NoRow { sql })?.column::<i64>("tables")? == 0)
    }

    /// Closes it. What SQLite could not flush stays in the write-ahead log, where the next opening finds it.
    pub(super) async fn close(self) {
        match self.link {
            Link::Sqlite(link) => close_link(link).await,
            Link::Postgres(link) => {
                // A server that no longer answers is not waited for.
                let closed = tokio::time::timeout(Duration::from_secs(5), link.close());
                if let Ok(Err(error)) = closed.await {
                    tracing::debug!(%error, "a database connection did not close cleanly");
                }
            }
        }
    }

    fn noted<T>(&mut self, done: Result<T, sqlx::Error>) -> Result<T, Fault> {
        done.map_err(|error| {
            let trouble = match self.link {
                Link::Sqlite(_) => None,
                Link::Postgres(_) => postgres::trouble(&error),
            };
            let fault = Fault::from(error);
            // The first says why; what follows it only says that it is so.
            if let (Some(trouble), None) = (trouble, &self.trouble) {
                self.trouble = Some((trouble, fault.clone()));
            }
            fault
        })
    }
}

/// At most so many rows of either engine, each value read by `value`.
fn rows_of<R: sqlx::Row>(
    rows: &[R],
    most: usize,
    value: impl Fn(&R, usize) -> Result<Value, sqlx::Error>,
) -> Result<Vec<Row>, sqlx::Error> {
    let Some(first) = rows.first() else {
        return Ok(Vec::new());
    };
    let names = first
        .columns()
        .iter()
        .map(|column| column.name().to_owned());
    let columns: Arc<[String]> = names.collect();
    let row = |row: &R| {
        let values = (0..columns.len()).map(|index| value(row, index));
        Ok(Row::new(columns.clone(), values.collect::<Result<_, _>>()?))
    };
    rows.iter().take(most).map(row).collect()
}

/// A server that does not answer in time is taken for gone.
async fn in_time<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(postgres::ANSWER, answer)
        .await
        .unwrap_or_else(|_| {
            let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
            Err(sqlx::Error::Io(late))
        })
}

async fn close_link(link: SqliteConnection) {
    if let Err(error) = link.close().await {
        tracing::warn!(%error, "a database connection did not close cleanly");
    }
}
