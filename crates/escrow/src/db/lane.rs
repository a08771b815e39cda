//! The two threads that verbs run on: one that writes, in batches, and one that reads, many at once.
//!
//! Verbs are handed over whole and run there, so that callers need not be able to send a verb's half-run state between
//! threads, and so that a caller who goes away cannot leave a transaction half done.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use sqlx::SqliteConnection;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};

use super::counter::Counter;
use super::ids::Ids;
use super::{Fault, Folder, OpenError, QUEUE, Tx, engine};
use crate::clock::Clock;

/// How many verbs are committed together at most.
const BATCH: usize = 128;
/// How many reads run at once.
const READERS: usize = 4;

/// Tells a caller what became of its verb, given how the commit went.
pub(super) type Deliver = Box<dyn FnOnce(Result<(), Fault>)>;

/// A verb that has run, and is not committed yet.
pub(super) struct Settled {
    /// Whether what it did is to be kept.
    pub(super) keep: bool,
    pub(super) deliver: Deliver,
}

type Running<'a> = Pin<Box<dyn Future<Output = Settled> + 'a>>;

/// A verb that has not run: given a transaction, it runs in it; given a fault, it answers with that.
type Verb = dyn for<'a, 't> FnOnce(Result<&'a mut Tx<'t>, Fault>) -> Running<'a> + Send;

/// A verb in line.
pub(super) struct Job {
    pub(super) name: &'static str,
    pub(super) run: Box<Verb>,
}

/// Who waits for a lane to have closed.
type Closers = Vec<oneshot::Sender<()>>;

/// What a lane is sent.
pub(super) enum Message {
    Run(Job),
    /// Finish what is in line, close, and say so.
    Close(oneshot::Sender<()>),
}

/// Starts the thread that writes. `audited` is told of each transaction with an audit row in it.
pub(super) fn start_writer(
    connection: SqliteConnection,
    counter: Counter,
    audited: Arc<Notify>,
    clock: Arc<dyn Clock>,
    ids: Arc<Ids>,
    folder: Arc<Folder>,
) -> Result<mpsc::Sender<Message>, OpenError> {
    let (sender, inbox) = mpsc::channel(QUEUE);
    start("escrow-writer", folder, async move || {
        let writer = Writer {
            connection,
            counter,
            audited,
            clock,
            ids,
        };
        writer.run(inbox).await
    })?;
    Ok(sender)
}

/// Starts the thread that reads.
pub(super) fn start_readers(
    path: PathBuf,
    clock: Arc<dyn Clock>,
    ids: Arc<Ids>,
    folder: Arc<Folder>,
) -> Result<mpsc::Sender<Message>, OpenError> {
    let (sender, inbox) = mpsc::channel(QUEUE);
    start("escrow-reader", folder, async move || {
        let readers = Rc::new(Readers {
            path,
            clock,
            ids,
            idle: RefCell::default(),
        });
        readers.run(inbox).await
    })?;
    Ok(sender)
}

/// Runs a lane on a thread of its own. The folder stays locked until its connections are closed; then whoever asked for
/// the end is told.
fn start(
    name: &'static str,
    folder: Arc<Folder>,
    lane: impl AsyncFnOnce() -> Closers + Send + 'static,
) -> Result<(), OpenError> {
    let cannot = |source| OpenError::File {
        doing: "start a thread for",
        path: folder.path().to_owned(),
        source,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(cannot)?;
    let held = folder.clone();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let closers = LocalSet::new().block_on(&runtime, lane());
            drop(held);
            for closer in closers {
                // Who asked may have stopped waiting.
                let _ = closer.send(());
            }
        })
        .map_err(cannot)?;
    Ok(())
}

struct Writer {
    connection: SqliteConnection,
    counter: Counter,
    audited: Arc<Notify>,
    clock: Arc<dyn Clock>,
    ids: Arc<Ids>,
}

impl Writer {
    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) -> Closers {
        let mut closers = Closers::new();
        let mut messages = Vec::with_capacity(BATCH);
        while inbox.recv_many(&mut messages, BATCH).await > 0 {
            let mut jobs = Vec::with_capacity(messages.len());
            for message in messages.drain(..) {
                match message {
                    Message::Run(job) => jobs.push(job),
                    Message::Close(closer) => {
                        // What is in line is still finished; nothing more gets in.
                        inbox.close();
                        closers.push(closer);
                    }
                }
            }
            if !jobs.is_empty() {
                self.batch(jobs).await;
            }
        }
        engine::close(self.connection).await;
        closers
    }

    /// Runs verbs one after another, each in a savepoint, commits them together, and then tells their callers.
    async fn batch(&mut self, jobs: Vec<Job>) {
        let mut ran = Vec::with_capacity(jobs.len());
        let mut lost = self.begin().await.err();
        for job in jobs {
            match &lost {
                None => lost = self.one(job, &mut ran).await.err(),
                Some(fault) => ran.push((job.run)(Err(fault.clone())).await.deliver),
            }
        }
        if lost.is_none() {
            lost = self.commit().await.err();
        }
        if let Some(fault) = &lost {
            tracing::error!(%fault, verbs = ran.len(), "a batch of writes was not committed");
            self.counter.lost();
            // The engine may have ended the transaction by itself; then there is none to roll back, and it says so.
            let _ = self.statement("ROLLBACK").await;
        }
        for deliver in ran {
            deliver(
                lost.clone()
                    .map_or(Ok(()), |fault| Err(Fault::Commit(fault.to_string()))),
            );
        }
    }

    async fn begin(&mut self) -> Result<(), Fault> {
        self.statement("BEGIN IMMEDIATE").await?;
        self.counter.begin(&mut self.connection).await
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        self.counter.store(&mut self.connection).await?;
        self.statement("COMMIT").await?;
        if self.counter.committed() {
            self.audited.notify_one();
        }
        Ok(())
    }

    /// Runs one verb. An error means that the whole transaction is lost.
    async fn one(&mut self, job: Job, ran: &mut Vec<Deliver>) -> Result<(), Fault> {
        self.statement("SAVEPOINT verb").await?;
        let mark = self.counter.mark();
        let mut tx = Tx::new(
            &mut self.connection,
            Some(&mut self.counter),
            &self.ids,
            self.clock.now(),
        );
        let settled = unless_it_panics(job.name, (job.run)(Ok(&mut tx))).await;
        let keep = settled.as_ref().is_some_and(|settled| settled.keep);
        ran.extend(settled.map(|settled| settled.deliver));
        if !keep {
            self.counter.back(mark);
            self.statement("ROLLBACK TO verb").await?;
        }
        self.statement("RELEASE verb").await
    }

    async fn statement(&mut self, sql: &'static str) -> Result<(), Fault> {
        engine::execute(&mut self.connection, sql, Vec::new())
            .await
            .map(drop)
    }
}

struct Readers {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    ids: Arc<Ids>,
    idle: RefCell<Vec<SqliteConnection>>,
}

impl Readers {
    async fn run(self: Rc<Self>, mut inbox: mpsc::Receiver<Message>) -> Closers {
        let mut closers = Closers::new();
        let places = Arc::new(Semaphore::new(READERS));
        let mut reads = JoinSet::new();
        while let Some(message) = inbox.recv().await {
            match message {
                Message::Run(job) => {
                    let place = places
                        .clone()
                        .acquire_owned()
                        .await
                        .expect("the places are never closed");
                    while reads.try_join_next().is_some() {}
                    let readers = self.clone();
                    reads.spawn_local(async move {
                        readers.one(job).await;
                        drop(place);
                    });
                }
                Message::Close(closer) => {
                    inbox.close();
                    closers.push(closer);
                }
            }
        }
        while reads.join_next().await.is_some() {}
        let idle = self.idle.take();
        for connection in idle {
            engine::close(connection).await;
        }
        closers
    }

    /// Runs one verb. Its connection is kept for the next when it is as it was.
    async fn one(&self, job: Job) {
        let idle = self.idle.borrow_mut().pop();
        let began = async {
            let mut connection = match idle {
                Some(connection) => connection,
                None => engine::connect_reader(&self.path).await?,
            };
            engine::execute(&mut connection, "BEGIN", Vec::new()).await?;
            Ok(connection)
        };
        let mut connection = match began.await {
            Ok(connection) => connection,
            Err(fault) => {
                let settled = (job.run)(Err(fault)).await;
                return (settled.deliver)(Ok(()));
            }
        };
        let mut tx = Tx::new(&mut connection, None, &self.ids, self.clock.now());
        let settled = unless_it_panics(job.name, (job.run)(Ok(&mut tx))).await;
        if engine::execute(&mut connection, "ROLLBACK", Vec::new())
            .await
            .is_ok()
        {
            self.idle.borrow_mut().push(connection);
        }
        if let Some(settled) = settled {
            (settled.deliver)(Ok(()));
        }
    }
}

/// Runs a verb to its end; nothing when it panicked, which the panic hook has reported.
async fn unless_it_panics(name: &'static str, verb: Running<'_>) -> Option<Settled> {
    let mut verb = Some(verb);
    poll_fn(|context| {
        let Some(running) = verb.as_mut() else {
            return Poll::Ready(None);
        };
        // What the verb leaves half done in the database is rolled back, and nothing else of it is looked at again.
        match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(settled)) => Poll::Ready(Some(settled)),
            Err(_) => {
                tracing::error!(verb = name, "a verb panicked; nothing of it is kept");
                verb = None;
                Poll::Ready(None)
            }
        }
    })
    .await
}
