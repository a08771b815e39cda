//! A connection to a database of either engine: one set of verbs, and the branch below them.

mod postgres;
mod sqlite;

use std::path::{Path, PathBuf};
use std::time::Duration;

use activation_lock::time::Timestamp;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqlSafeStr};

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
                Link::Sqlite(sqlite::connect(&Folder::database(&self.folder), access)?)
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
            Database::Embedded => {
                let (file, to) = (Folder::database(&self.folder), to.to_owned());
                // It takes as long as the database is large.
                let copied = tokio::task::spawn_blocking(move || sqlite::copy(&file, &to)).await;
                let stopped = |_| Fault::Engine("the copy stopped".to_owned());
                Ok(copied.map_err(stopped)??)
            }
            Database::Postgres(_) => {
                let mut from = self.connect(Access::Read).await?;
                let mut to = Connection::over(Link::Sqlite(sqlite::connect(to, Access::Write)?));
                let copied = copy::copy(&mut from, &mut to, now, None, |_| {}).await;
                from.close().await;
                to.close().await;
                copied.map(drop)
            }
        }
    }

    /// How many connections read; one more writes.
    pub(super) fn readers(&self) -> usize {
        match &self.database {
            Database::Embedded => 4,
            Database::Postgres(address) => address.readers(),
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
    Sqlite(rusqlite::Connection),
    Postgres(Box<PgConnection>),
}

/// An engine's error, and what befell the transaction with it.
struct Refused(Fault, Option<Trouble>);

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Self(error.into(), None)
    }
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        let trouble = postgres::trouble(&error);
        Self(error.into(), trouble)
    }
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
            Link::Sqlite(link) => {
                let done = sqlite::script(link, sql);
                done.map(|()| Vec::new()).map_err(Refused::from)
            }
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

    /// Runs an `INSERT` with one list of `VALUES` for each row; gives the number of rows it changed.
    pub(super) async fn execute_each(
        &mut self,
        sql: &'static str,
        rows: Vec<Vec<Value>>,
    ) -> Result<u64, Fault> {
        let mut changed = 0;
        if let Link::Sqlite(_) = self.link {
            for row in rows {
                changed += self.run(sql, row).await?;
            }
            return Ok(changed);
        }
        let mut rows = rows.into_iter();
        while rows.len() > 0 {
            let (together, text) = postgres::together(sql, rows.len());
            let params = rows.by_ref().take(together).flatten().collect();
            changed += self.run(AssertSqlSafe(text), params).await?;
        }
        Ok(changed)
    }

    async fn run(&mut self, sql: impl SqlSafeStr, params: Vec<Value>) -> Result<u64, Fault> {
        let sql = sql.into_sql_str();
        let done = match &mut self.link {
            Link::Sqlite(link) => {
                sqlite::execute(link, sql.as_str(), &params).map_err(Refused::from)
            }
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
            Link::Sqlite(link) => {
                sqlite::fetch(link, sql.as_str(), &params, most).map_err(Refused::from)
            }
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
            Link::Sqlite(link) => sqlite::close(link),
            Link::Postgres(link) => {
                // A server that no longer answers is not waited for.
                let closed = tokio::time::timeout(Duration::from_secs(5), link.close());
                if let Ok(Err(error)) = closed.await {
                    tracing::debug!(%error, "a database connection did not close cleanly");
                }
            }
        }
    }

    fn noted<T>(&mut self, done: Result<T, Refused>) -> Result<T, Fault> {
        done.map_err(|Refused(fault, trouble)| {
            // The first says why; what follows it only says that it is so.
            if let (Some(trouble), None) = (trouble, &self.trouble) {
                self.trouble = Some((trouble, fault.clone()));
            }
            fault
        })
    }
}

/// A server that does not answer in time is taken for gone.
async fn in_time<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Refused> {
    let answer = tokio::time::timeout(postgres::ANSWER, answer).await;
    let late = |_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
    answer.unwrap_or_else(late).map_err(Refused::from)
}
