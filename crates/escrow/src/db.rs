//! The one door to SQL. Nothing above this module sees an engine: verbs speak to a [`Tx`], and get [`Row`]s of our own
//! [`Value`]s. SQLite now; PostgreSQL is to be a second engine behind the same shapes.
//!
//! ```ignore
//! let name = name.to_owned();                      // what a verb needs, it owns: it may be run again
//! let id = self.db.write("things.add", async move |tx| {
//!     let (id, now) = (tx.new_id().to_string(), tx.now());
//!     tx.execute("INSERT INTO things (id, name, at) VALUES ($1, $2, $3)", params![id.as_str(), name.as_str(), now]).await?;
//!     Ok(id)                                       // durable when `write` returns; an `Err` leaves nothing behind
//! }).await?;
//! let at: Option<Timestamp> = self.db.read(async move |tx| {
//!     let row = tx.fetch_optional("SELECT at FROM things WHERE id = $1", params![id]).await?;
//!     row.map(|row| row.get("at")).transpose()
//! }).await?;
//! ```
//!
//! A verb does no I/O but SQL: on SQLite every other write waits for it.

mod counter;
mod engine;
mod fault;
mod folder;
mod ids;
mod lane;
mod schema;
mod statistics;
mod value;

#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use activation_lock::time::Timestamp;
use seal::Random;
use sqlx::SqliteConnection;
use tokio::sync::{Notify, mpsc, oneshot};
use uuid::Uuid;

use self::counter::Counter;
pub use self::fault::{Fault, OpenError};
pub(crate) use self::folder::Folder;
use self::ids::Ids;
use self::lane::{Job, Message, Settled};
pub(crate) use self::schema::program_version;
pub(crate) use self::value::{Row, Value, params};
use crate::Result;
use crate::clock::Clock;
use crate::meta::{DataKind, Status};

/// How many verbs may wait for the writer, and how many reads for a connection, before callers wait to get in line.
const QUEUE: usize = 1024;

/// An open database. Copies of it are one database.
#[derive(Clone)]
pub(crate) struct Db(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    writer: mpsc::Sender<Message>,
    readers: mpsc::Sender<Message>,
    audited: Arc<Notify>,
}

/// What [`Db::open`] needs to know.
pub(crate) struct Opening<'a> {
    /// The data folder; made when it is not there.
    pub(crate) folder: &'a Path,
    /// What the folder must be, or is made as.
    pub(crate) kind: DataKind,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    /// For identifiers.
    pub(crate) random: Arc<dyn Random>,
}

impl Db {
    /// Opens the database of a data folder, making both when they are not there, and brings its schema up to date. The
    /// folder is locked until every copy is dropped or [`close`](Self::close) has returned.
    pub(crate) async fn open(opening: Opening<'_>) -> std::result::Result<Self, OpenError> {
        let folder = Folder::lock(opening.folder)?;
        let mut connection = engine::connect_writer(folder.path()).await?;
        let now = opening.clock.now();
        let migrated = schema::migrate(&mut connection, folder.path(), opening.kind, now).await;
        if let Err(error) = migrated {
            engine::close(connection).await;
            return Err(error);
        }
        statistics::set(&mut connection).await?;
        let path = folder.path().to_owned();
        let ids = Arc::new(Ids::new(opening.random));
        let counter = Counter::open(&mut connection, &ids, now).await?;
        let audited = Arc::new(Notify::new());
        let folder = Arc::new(folder);
        let writer = lane::start_writer(
            connection,
            counter,
            audited.clone(),
            opening.clock.clone(),
            ids.clone(),
            folder.clone(),
        )?;
        let readers = lane::start_readers(path.clone(), opening.clock, ids, folder)?;
        Ok(Self(Arc::new(Inner {
            folder: path,
            writer,
            readers,
            audited,
        })))
    }

    /// Looks into the database of a folder, beside the process that holds it, if one does. Nothing can be written: every
    /// [`write`](Self::write) answers that the database is closed.
    pub(crate) async fn look(opening: Opening<'_>) -> std::result::Result<Self, OpenError> {
        let mut connection = engine::connect_reader(opening.folder).await?;
        let may = schema::may_use(&mut connection, opening.folder, opening.kind).await;
        engine::close(connection).await;
        may?;
        let path = opening.folder.to_owned();
        let ids = Arc::new(Ids::new(opening.random));
        let folder = Arc::new(Folder::unlocked(&path));
        let readers = lane::start_readers(path.clone(), opening.clock, ids, folder)?;
        // Nobody listens at the other end.
        let (writer, _) = mpsc::channel(1);
        Ok(Self(Arc::new(Inner {
            folder: path,
            writer,
            readers,
            audited: Arc::new(Notify::new()),
        })))
    }

    /// What `db status` shows of the database in a folder. Takes no lock and changes nothing.
    pub(crate) async fn status(folder: &Path) -> std::result::Result<Option<Status>, OpenError> {
        if !Folder::database(folder).exists() {
            return Ok(None);
        }
        let mut connection = engine::connect_reader(folder).await?;
        let status = schema::status(&mut connection).await;
        engine::close(connection).await;
        status.map(Some)
    }

    /// Writes what the database holds at one moment into a new file that only its owner may read, while everything goes on.
    pub(crate) async fn copy_to(&self, path: &Path) -> std::result::Result<(), Fault> {
        folder::private_file(path).map_err(|error| Fault::Engine(error.to_string()))?;
        engine::copy(&self.0.folder, path).await
    }

    /// The data folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Waits until audit rows were committed since the last wait.
    pub(crate) async fn audited(&self) {
        self.0.audited.notified().await;
    }

    /// Runs a verb that changes something, atomically. When it gives `Ok`, everything it did is on disk before this returns;
    /// when it gives `Err`, nothing of it is. `name` is for logs.
    ///
    /// The verb must bear being run again from the start: an engine may have to. It runs even when the caller stops waiting.
    pub(crate) async fn write<T, F>(&self, name: &'static str, verb: F) -> Result<T>
    where
        F: AsyncFn(&mut Tx<'_>) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Job {
            name,
            run: Box::new(move |tx| {
                Box::pin(async move {
                    let result = match tx {
                        Ok(tx) => verb(tx).await,
                        Err(fault) => Err(fault.into()),
                    };
                    Settled {
                        keep: result.is_ok(),
                        deliver: Box::new(move |committed| {
                            let result = result
                                .and_then(|value| committed.map(|()| value).map_err(Into::into));
                            // Nobody waits for it any more: it is done all the same.
                            let _ = reply.send(result);
                        }),
                    }
                })
            }),
        };
        Self::send(&self.0.writer, job).await?;
        answer.await.unwrap_or_else(|_| Err(self.lost(name).into()))
    }

    /// Runs a verb that changes nothing, on a snapshot of what was committed when it began to read.
    pub(crate) async fn read<T, F>(&self, verb: F) -> Result<T>
    where
        F: AsyncFn(&mut Tx<'_>) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Job {
            name: "read",
            run: Box::new(move |tx| {
                Box::pin(async move {
                    let result = match tx {
                        Ok(tx) => verb(tx).await,
                        Err(fault) => Err(fault.into()),
                    };
                    let deliver: lane::Deliver = Box::new(move |_| {
                        let _ = reply.send(result);
                    });
                    Settled {
                        keep: false,
                        deliver,
                    }
                })
            }),
        };
        Self::send(&self.0.readers, job).await?;
        answer
            .await
            .unwrap_or_else(|_| Err(self.lost("read").into()))
    }

    /// How the writer's connection is set, read back from it: what `doctor` shows and a test holds to its word.
    pub(crate) async fn live_settings(&self) -> Result<LiveSettings> {
        self.write("db.live_settings", async |tx| {
            let mut pragma = async |sql| -> Result<Value> {
                let row = tx.fetch_one(sql, params![]).await?;
                Ok(row.first().cloned().unwrap_or(Value::Null))
            };
            Ok(LiveSettings {
                journal_mode: pragma("PRAGMA journal_mode").await?.to_string(),
                synchronous: match pragma("PRAGMA synchronous").await? {
                    Value::Int(0) => "off".to_owned(),
                    Value::Int(1) => "normal".to_owned(),
                    Value::Int(2) => "full".to_owned(),
                    Value::Int(3) => "extra".to_owned(),
                    other => other.to_string(),
                },
                foreign_keys: pragma("PRAGMA foreign_keys").await? == Value::Int(1),
                secure_delete: pragma("PRAGMA secure_delete").await? == Value::Int(1),
                autocheckpoint_pages: match pragma("PRAGMA wal_autocheckpoint").await? {
                    Value::Int(pages) => pages,
                    _ => 0,
                },
            })
        })
        .await
    }

    /// Ends it: waits for the verbs in line, closes the connections and unlocks the folder. Later verbs are refused.
    pub(crate) async fn close(&self) {
        for lane in [&self.0.readers, &self.0.writer] {
            let (closed, done) = oneshot::channel();
            if lane.send(Message::Close(closed)).await.is_ok() {
                // An error means that the lane is gone, which is what was asked for.
                let _ = done.await;
            }
        }
    }

    async fn send(lane: &mpsc::Sender<Message>, job: Job) -> Result<()> {
        Ok(lane
            .send(Message::Run(job))
            .await
            .map_err(|_| Fault::Closed)?)
    }

    /// Why there is no answer to a verb that was accepted.
    fn lost(&self, verb: &'static str) -> Fault {
        if self.0.writer.is_closed() {
            Fault::Closed
        } else {
            Fault::Panicked { verb }
        }
    }
}

/// How the writer's connection is set. See [`crate::Escrow::live_settings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSettings {
    /// `wal`, or what else SQLite says.
    pub journal_mode: String,
    /// `full` when every commit is on disk before it is acknowledged.
    pub synchronous: String,
    /// Whether references between tables are enforced.
    pub foreign_keys: bool,
    /// Whether what is deleted is overwritten.
    pub secure_delete: bool,
    /// After how many pages the write-ahead log is moved into the database.
    pub autocheckpoint_pages: i64,
}

/// Makes identifiers in the order of those of [`Tx::new_id`].
pub(crate) struct IdSource(Arc<Ids>);

impl IdSource {
    /// A new UUIDv7, later in order than every one before it in this process.
    pub(crate) fn next(&self, now: Timestamp) -> Uuid {
        self.0.next(now)
    }
}

/// A transaction, as a verb sees it.
pub(crate) struct Tx<'t> {
    connection: &'t mut SqliteConnection,
    /// Nothing in a read.
    counter: Option<&'t mut Counter>,
    ids: &'t Arc<Ids>,
    now: Timestamp,
}

impl<'t> Tx<'t> {
    fn new(
        connection: &'t mut SqliteConnection,
        counter: Option<&'t mut Counter>,
        ids: &'t Arc<Ids>,
        now: Timestamp,
    ) -> Self {
        Self {
            connection,
            counter,
            ids,
            now,
        }
    }

    /// The writer of this transaction's audit rows, and the number of the next of them.
    pub(crate) fn next_audit_row(&mut self) -> Result<(Arc<str>, i64)> {
        let counter = self.counter.as_mut();
        let counter = counter.ok_or_else(|| Fault::Engine("a read writes nothing".to_owned()))?;
        Ok(counter.take())
    }

    /// The moment at which the verb began. It stands still within a verb.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Where identifiers come from, for those who make many between statements.
    pub(crate) fn ids(&self) -> IdSource {
        IdSource(self.ids.clone())
    }

    /// A new UUIDv7, later in order than every one before it in this process.
    pub(crate) fn new_id(&self) -> Uuid {
        self.ids.next(self.now)
    }

    /// Runs a statement; gives the number of rows it changed.
    pub(crate) async fn execute(&mut self, sql: &'static str, params: Vec<Value>) -> Result<u64> {
        Ok(engine::execute(self.connection, sql, params).await?)
    }

    /// All rows.
    pub(crate) async fn fetch_all(
        &mut self,
        sql: &'static str,
        params: Vec<Value>,
    ) -> Result<Vec<Row>> {
        Ok(engine::fetch_all(self.connection, sql, params).await?)
    }

    /// The first row, if there is one.
    pub(crate) async fn fetch_optional(
        &mut self,
        sql: &'static str,
        params: Vec<Value>,
    ) -> Result<Option<Row>> {
        Ok(engine::fetch_optional(self.connection, sql, params).await?)
    }

    /// The first row, of a statement that always has one.
    pub(crate) async fn fetch_one(&mut self, sql: &'static str, params: Vec<Value>) -> Result<Row> {
        Ok(self
            .fetch_optional(sql, params)
            .await?
            .ok_or(Fault::NoRow { sql })?)
    }
}
