//! The one door to SQL. Nothing above this module sees an engine: verbs speak to a [`Tx`], and get [`Row`]s of our own
//! [`Value`]s. SQLite and PostgreSQL take the same texts.
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
//! A verb does no I/O but SQL: on SQLite every other write waits for it, and on PostgreSQL, where others write at the same time,
//! it may be run again from the start.

mod address;
mod copy;
mod counter;
mod engine;
mod fault;
mod folder;
mod ids;
mod lane;
#[cfg(debug_assertions)]
mod noted;
mod schema;
mod settings;
mod statistics;
mod value;

#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use activation_lock::time::Timestamp;
use seal::Random;
use tokio::sync::{Notify, mpsc, oneshot};
use uuid::Uuid;

pub use self::address::{BadAddress, Database, PostgresAddress};
pub use self::copy::Copied;
use self::counter::Counter;
use self::engine::{Access, Connection, Place};
pub use self::fault::{Fault, OpenError};
pub(crate) use self::folder::Folder;
use self::ids::Ids;
use self::lane::{Common, Message, Waiting, Writer};
pub(crate) use self::lane::{Hooks, ReadKeys};
pub(crate) use self::schema::program_version;
pub use self::settings::{LiveSettings, Weakness};
pub(crate) use self::value::{Row, Value, list, params};
use crate::Result;
use crate::clock::{Clock as _, Steady};
use crate::meta::{DataKind, Status};

/// How many verbs may wait for the writer, and how many reads for a connection, before callers wait to get in line.
const QUEUE: usize = 1024;

/// An open database. Copies of it are one database.
#[derive(Clone)]
pub(crate) struct Db(Arc<Inner>);

struct Inner {
    place: Place,
    writer: mpsc::Sender<Message>,
    readers: mpsc::Sender<Message>,
    /// Word for other processes; nothing where there are none, and once this is closed.
    news: Mutex<Option<mpsc::UnboundedSender<&'static str>>>,
    hooks: Arc<Hooks>,
    audited: Arc<Notify>,
}

/// What [`Db::open`] needs to know.
pub(crate) struct Opening<'a> {
    /// The data folder; made when it is not there.
    pub(crate) folder: &'a Path,
    /// Which database.
    pub(crate) database: Database,
    /// What the folder must be, or is made as.
    pub(crate) kind: DataKind,
    /// The time.
    pub(crate) clock: Arc<Steady>,
    /// For identifiers.
    pub(crate) random: Arc<dyn Random>,
}

impl Db {
    /// Opens the database of a data folder, making both when they are not there, and brings its schema up to date. The
    /// folder is locked until every copy is dropped or [`close`](Self::close) has returned.
    pub(crate) async fn open(opening: Opening<'_>) -> std::result::Result<Self, OpenError> {
        let place = Place::new(opening.folder, opening.database);
        let folder = Arc::new(Folder::lock(opening.folder, !place.is_shared())?);
        let mut connection = place.connect(Access::Write).await?;
        if let Some(now) = connection.server_time().await? {
            opening.clock.set_right(now);
        }
        let now = opening.clock.now();
        let migrated = schema::migrate(&mut connection, folder.path(), opening.kind, now).await;
        if let Err(error) = migrated {
            connection.close().await;
            return Err(error);
        }
        statistics::set(&mut connection).await?;
        let common = Common {
            place: place.clone(),
            clock: opening.clock,
            ids: Arc::new(Ids::new(opening.random)),
            folder: folder.clone(),
            hooks: Arc::default(),
        };
        let audited = Arc::new(Notify::new());
        let counter = Counter::open(&mut connection, &common.ids, now).await?;
        let writer = Writer::new(common.clone(), connection, counter, audited.clone());
        let hooks = common.hooks.clone();
        let writer = lane::start_writer(writer, &folder)?;
        let news = lane::start_news(common.clone(), writer.clone())?;
        Ok(Self(Arc::new(Inner {
            place,
            writer,
            readers: lane::start_readers(&common)?,
            news: Mutex::new(news),
            hooks,
            audited,
        })))
    }

    /// Looks into the database of a folder, beside the process that holds it, if one does. Nothing can be written: every
    /// [`write`](Self::write) answers that the database is closed.
    pub(crate) async fn look(opening: Opening<'_>) -> std::result::Result<Self, OpenError> {
        let place = Place::new(opening.folder, opening.database);
        let mut connection = place.connect(Access::Read).await?;
        let may = schema::may_use(&mut connection, opening.folder, opening.kind).await;
        connection.close().await;
        may?;
        let hooks = Arc::new(Hooks::default());
        let readers = lane::start_readers(&Common {
            place: place.clone(),
            clock: opening.clock,
            ids: Arc::new(Ids::new(opening.random)),
            folder: Arc::new(Folder::unlocked(opening.folder)),
            hooks: hooks.clone(),
        })?;
        // Nobody listens at the other end.
        let (writer, _) = mpsc::channel(1);
        Ok(Self(Arc::new(Inner {
            place,
            writer,
            readers,
            news: Mutex::new(None),
            hooks,
            audited: Arc::new(Notify::new()),
        })))
    }

    /// What `db status` shows of a database. Takes no lock and changes nothing.
    pub(crate) async fn status(
        folder: &Path,
        database: Database,
        now: Timestamp,
    ) -> std::result::Result<Option<Status>, OpenError> {
        let place = Place::new(folder, database);
        if !place.is_shared() && !Folder::database(folder).exists() {
            return Ok(None);
        }
        let mut connection = place.connect(Access::Read).await?;
        let status = schema::status(&mut connection, now).await;
        connection.close().await;
        status
    }

    /// Writes what the database holds at one moment into a new file that only its owner may read, while everything goes on.
    pub(crate) async fn copy_to(
        &self,
        path: &Path,
        now: Timestamp,
    ) -> std::result::Result<(), Fault> {
        folder::private_file(path).map_err(|error| Fault::Engine(error.to_string()))?;
        self.0.place.copy(path, now).await
    }

    /// The data folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.0.place.folder
    }

    /// Tells other processes that share the database.
    pub(crate) fn tell(&self, word: &'static str) {
        if let Some(news) = &*self.news() {
            // Who carries word is gone with the database.
            let _ = news.send(word);
        }
    }

    fn news(&self) -> MutexGuard<'_, Option<mpsc::UnboundedSender<&'static str>>> {
        self.0.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is told of other processes.
    pub(crate) fn hooks(&self) -> &Hooks {
        &self.0.hooks
    }

    /// Whether other processes may use the database at the same time.
    pub(crate) fn is_shared(&self) -> bool {
        self.0.place.is_shared()
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
        self.note::<F>();
        let (job, answer) = Waiting::new(name, verb);
        Self::send(&self.0.writer, job).await?;
        answer.await.unwrap_or_else(|_| Err(self.lost(name).into()))
    }

    /// Runs a verb that changes nothing, on a snapshot of what was committed when it began to read.
    pub(crate) async fn read<T, F>(&self, verb: F) -> Result<T>
    where
        F: AsyncFn(&mut Tx<'_>) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.note::<F>();
        let (job, answer) = Waiting::new("read", verb);
        Self::send(&self.0.readers, job).await?;
        answer
            .await
            .unwrap_or_else(|_| Err(self.lost("read").into()))
    }

    /// Tests want to know which verbs they run.
    fn note<F>(&self) {
        #[cfg(debug_assertions)]
        noted::note(std::any::type_name::<F>(), self.is_shared());
    }

    /// How the database keeps what is committed, read back from a connection that writes: what `doctor` shows, and a test holds to its
    /// word.
    pub(crate) async fn live_settings(&self) -> Result<LiveSettings> {
        if self.0.place.is_shared() {
            return self.read(settings::postgres).await;
        }
        self.write("db.live_settings", settings::sqlite).await
    }

    /// How large it is, in bytes.
    pub(crate) async fn bytes(&self) -> Result<u64> {
        let sql = if self.0.place.is_shared() {
            "SELECT pg_database_size(current_database()) AS bytes"
        } else {
            "SELECT page_count * page_size AS bytes FROM pragma_page_count(), pragma_page_size()"
        };
        let size = self.read(async move |tx| tx.fetch_one(sql, params![]).await?.get("bytes"));
        size.await
    }

    /// Ends it: waits for the verbs in line, closes the connections and unlocks the folder. Later verbs are refused.
    pub(crate) async fn close(&self) {
        // Nothing more is told; what was is still sent.
        self.news().take();
        for lane in [&self.0.readers, &self.0.writer] {
            let (closed, done) = oneshot::channel();
            if lane.send(Message::Close(closed)).await.is_ok() {
                // An error means that the lane is gone, which is what was asked for.
                let _ = done.await;
            }
        }
    }

    async fn send<J: lane::Job + 'static>(lane: &mpsc::Sender<Message>, job: J) -> Result<()> {
        Ok(lane
            .send(Message::Run(Box::new(job)))
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

/// Copies the database of a folder to a server.
pub(crate) async fn copy_to_server(
    folder: &Path,
    server: &PostgresAddress,
    now: Timestamp,
    progress: impl FnMut(Copied),
) -> std::result::Result<Copied, OpenError> {
    let from = Place::new(folder, Database::Embedded);
    let to = Place::new(folder, Database::Postgres(server.clone()));
    let copied = copy_between(&from, &to, now, progress).await?;
    // With the last connection that may write, the write-ahead log moves into the file.
    from.connect(Access::Write).await?.close().await;
    Ok(copied)
}

/// Copies the database of a server to a folder, where there is an empty file for it.
pub(crate) async fn copy_to_folder(
    server: &PostgresAddress,
    folder: &Path,
    now: Timestamp,
    progress: impl FnMut(Copied),
) -> std::result::Result<Copied, OpenError> {
    let from = Place::new(folder, Database::Postgres(server.clone()));
    let to = Place::new(folder, Database::Embedded);
    copy_between(&from, &to, now, progress).await
}

async fn copy_between(
    from: &Place,
    to: &Place,
    now: Timestamp,
    progress: impl FnMut(Copied),
) -> std::result::Result<Copied, OpenError> {
    let mut from = from.connect(Access::Read).await?;
    let mut to = to.connect(Access::Write).await?;
    let copied = match schema::is_current(&mut from).await {
        Ok(()) => copy::copy(&mut from, &mut to, now, Some(now), progress).await,
        Err(fault) => Err(fault),
    };
    from.close().await;
    to.close().await;
    Ok(copied?)
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
    connection: &'t mut Connection,
    /// Nothing in a read.
    counter: Option<&'t mut Counter>,
    ids: &'t Arc<Ids>,
    now: Timestamp,
}

impl<'t> Tx<'t> {
    fn new(
        connection: &'t mut Connection,
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
        Ok(self.connection.execute(sql, params).await?)
    }

    /// Runs an `INSERT` with one list of `VALUES` for each row, in turn, in as few journeys as the engine allows. Gives the number of
    /// rows it changed.
    pub(crate) async fn execute_each(
        &mut self,
        sql: &'static str,
        rows: Vec<Vec<Value>>,
    ) -> Result<u64> {
        Ok(self.connection.execute_each(sql, rows).await?)
    }

    /// All rows.
    pub(crate) async fn fetch_all(
        &mut self,
        sql: &'static str,
        params: Vec<Value>,
    ) -> Result<Vec<Row>> {
        Ok(self.connection.fetch_all(sql, params).await?)
    }

    /// The first row, if there is one.
    pub(crate) async fn fetch_optional(
        &mut self,
        sql: &'static str,
        params: Vec<Value>,
    ) -> Result<Option<Row>> {
        Ok(self.connection.fetch_optional(sql, params).await?)
    }

    /// The first row, of a statement that always has one.
    pub(crate) async fn fetch_one(&mut self, sql: &'static str, params: Vec<Value>) -> Result<Row> {
        Ok(self
            .fetch_optional(sql, params)
            .await?
            .ok_or(Fault::NoRow { sql })?)
    }
}
