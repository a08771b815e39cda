//! The threads that verbs run on: those that write, in batches, and those that read.
//!
//! Verbs are handed over whole and run there, so that callers need not be able to send a verb's half-run state between
//! threads, and so that a caller who goes away cannot leave a transaction half done. A verb may be run more than once: its
//! caller is told of the run that was kept.

mod news;
mod readers;
mod writer;

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex as StdMutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::LocalSet;

pub(super) use self::writer::Writer;
use super::engine::{Connection, Place};
use super::ids::Ids;
use super::{Fault, Folder, OpenError, QUEUE, Tx};
use crate::Result;
use crate::clock::{Clock as _, Steady};

/// How long a database that went away is waited for before callers are told.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest wait between two tries.
const LONGEST: Duration = Duration::from_secs(1);

/// A verb in line.
pub(super) trait Job: Send {
    /// Its name, for logs.
    fn name(&self) -> &'static str;

    /// Runs the verb. True when what it did is to be kept.
    fn run<'a>(&'a mut self, tx: &'a mut Tx<'_>) -> Pin<Box<dyn Future<Output = bool> + 'a>>;

    /// Tells the caller what became of it: what its last run gave, unless that could not be kept.
    fn settle(self: Box<Self>, committed: std::result::Result<(), Fault>);
}

/// A verb and who waits for it.
pub(super) struct Waiting<F, T> {
    name: &'static str,
    verb: F,
    answer: Option<Result<T>>,
    has_panicked: bool,
    reply: oneshot::Sender<Result<T>>,
}

impl<F, T> Waiting<F, T> {
    /// The verb in line, and where its answer will be.
    pub(super) fn new(name: &'static str, verb: F) -> (Self, oneshot::Receiver<Result<T>>) {
        let (reply, answer) = oneshot::channel();
        let waiting = Self {
            name,
            verb,
            answer: None,
            has_panicked: false,
            reply,
        };
        (waiting, answer)
    }
}

impl<F, T> Job for Waiting<F, T>
where
    F: AsyncFn(&mut Tx<'_>) -> Result<T> + Send,
    T: Send,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn run<'a>(&'a mut self, tx: &'a mut Tx<'_>) -> Pin<Box<dyn Future<Output = bool> + 'a>> {
        Box::pin(async move {
            self.answer = unless_it_panics(self.name, Box::pin((self.verb)(tx))).await;
            self.has_panicked = self.answer.is_none();
            matches!(self.answer, Some(Ok(_)))
        })
    }

    fn settle(self: Box<Self>, committed: std::result::Result<(), Fault>) {
        let answer = match (self.answer, committed) {
            // The caller sees that there is no answer, and why.
            _ if self.has_panicked => return,
            (Some(Ok(_)), Err(fault)) => Err(fault.uncommitted().into()),
            (Some(answer), _) => answer,
            (None, Err(fault)) => Err(fault.into()),
            (None, Ok(())) => return,
        };
        // Nobody may wait for it any more: it is done all the same.
        let _ = self.reply.send(answer);
    }
}

/// Who waits for a lane to have closed.
type Closers = Vec<oneshot::Sender<()>>;

/// What a lane is sent.
pub(super) enum Message {
    Run(Box<dyn Job>),
    /// Finish what is in line, close, and say so.
    Close(oneshot::Sender<()>),
}

/// The line that lanes take from.
type Inbox = Arc<Mutex<mpsc::Receiver<Message>>>;

/// What lanes share.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) place: Place,
    pub(super) clock: Arc<Steady>,
    pub(super) ids: Arc<Ids>,
    pub(super) folder: Arc<Folder>,
    pub(super) hooks: Arc<Hooks>,
}

/// Reads the keys of the vault anew.
pub(crate) type ReadKeys = Box<
    dyn for<'a, 't> Fn(&'a mut Tx<'t>) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>
        + Send
        + Sync,
>;

/// Takes a word that came from another process; nothing when some may have been missed.
type Heard = Box<dyn Fn(Option<&str>) + Send + Sync>;

/// What the vault is told of what other processes do.
#[derive(Default)]
pub(crate) struct Hooks {
    heard: OnceLock<Heard>,
    read_keys: OnceLock<ReadKeys>,
    /// The state of the keys when they were last read.
    keys: StdMutex<Option<String>>,
    /// Counts the connections for writing that were made after one was lost.
    reconnections: watch::Sender<u64>,
}

impl Hooks {
    /// From now on, `heard` is given every word that comes, and nothing when some may have been missed; and `read_keys` is called
    /// before a verb that may come upon keys that are new.
    pub(crate) fn set(
        &self,
        heard: impl Fn(Option<&str>) + Send + Sync + 'static,
        read_keys: ReadKeys,
    ) {
        // The first stays; there is but one vault.
        let _ = self.heard.set(Box::new(heard));
        let _ = self.read_keys.set(read_keys);
    }

    /// Changes whenever a connection for writing was lost and another one is there: perhaps to a server that has taken over, and
    /// does not have all that was kept.
    pub(crate) fn reconnections(&self) -> watch::Receiver<u64> {
        self.reconnections.subscribe()
    }

    fn reconnected(&self) {
        self.reconnections.send_modify(|count| *count += 1);
    }

    fn heard(&self, word: Option<&str>) {
        if let Some(heard) = self.heard.get() {
            heard(word);
        }
    }
}

impl Common {
    /// Sees to it that a verb finds the keys that this transaction sees.
    async fn mind_keys(&self, connection: &mut Connection, state: Option<String>) {
        let known = || {
            self.hooks
                .keys
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let Some(read_keys) = self.hooks.read_keys.get() else {
            return;
        };
        if state.is_none() || *known() == state {
            return;
        }
        let mut tx = Tx::new(connection, None, &self.ids, self.clock.now());
        let read = read_keys(&mut tx).await;
        if connection.interrupted().is_none() {
            if let Err(error) = read {
                tracing::error!(%error, "the keys were exchanged by another process, and the new ones do not open here");
            }
            *known() = state;
        }
    }
}

/// Starts the thread that carries word between processes; nothing where there are no others.
pub(super) fn start_news(
    common: Common,
    writer: mpsc::Sender<Message>,
) -> std::result::Result<Option<mpsc::UnboundedSender<&'static str>>, OpenError> {
    if !common.place.is_shared() {
        return Ok(None);
    }
    let (sender, told) = mpsc::unbounded_channel();
    // It is not waited for when the database is closed, and must not hold the folder's lock until it has noticed.
    let folder = Arc::new(Folder::unlocked(common.folder.path()));
    let common = Common {
        folder: folder.clone(),
        ..common
    };
    let lane = async move || {
        news::run(common, writer, told).await;
        Closers::new()
    };
    start("escrow-news", folder, lane, tell)?;
    Ok(Some(sender))
}

/// Starts the thread that writes.
pub(super) fn start_writer(
    writer: Writer,
    folder: &Arc<Folder>,
) -> std::result::Result<mpsc::Sender<Message>, OpenError> {
    let lane = async move |inbox| writer.run(inbox).await;
    start_line("escrow-writer", folder, std::iter::once(lane))
}

/// Starts the threads that read.
pub(super) fn start_readers(
    common: &Common,
) -> std::result::Result<mpsc::Sender<Message>, OpenError> {
    let connections = common.place.readers();
    // A statement holds its thread where it runs in this process; where a server runs it, one thread waits for many.
    let threads = if common.place.is_shared() {
        1
    } else {
        connections
    };
    let lanes = (0..threads).map(|_| {
        let common = common.clone();
        async move |inbox| readers::run(common, inbox, connections / threads).await
    });
    start_line("escrow-reader", &common.folder, lanes)
}

/// Starts a thread for each lane; they take from one line.
fn start_line<L>(
    name: &'static str,
    folder: &Arc<Folder>,
    lanes: impl ExactSizeIterator<Item = L>,
) -> std::result::Result<mpsc::Sender<Message>, OpenError>
where
    L: AsyncFnOnce(Inbox) -> Closers + Send + 'static,
{
    let (sender, inbox) = mpsc::channel(QUEUE);
    let inbox = Arc::new(Mutex::new(inbox));
    let running = Arc::new(StdMutex::new((lanes.len(), Closers::new())));
    for lane in lanes {
        let (inbox, running) = (inbox.clone(), running.clone());
        let lane = async move || lane(inbox).await;
        // Only the last of them has closed the line.
        start(name, folder.clone(), lane, move |closers| {
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            running.0 -= 1;
            running.1.extend(closers);
            if running.0 == 0 {
                tell(std::mem::take(&mut running.1));
            }
        })?;
    }
    Ok(sender)
}

/// Runs a lane on a thread of its own. The folder stays locked until its connections are closed; then whoever asked for
/// the end is told.
fn start(
    name: &'static str,
    folder: Arc<Folder>,
    lane: impl AsyncFnOnce() -> Closers + Send + 'static,
    closed: impl FnOnce(Closers) + Send + 'static,
) -> std::result::Result<(), OpenError> {
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
            closed(closers);
        })
        .map_err(cannot)?;
    Ok(())
}

fn tell(closers: Closers) {
    for closer in closers {
        // Who asked may have stopped waiting.
        let _ = closer.send(());
    }
}

/// Runs a verb to its end; nothing when it panicked, which the panic hook has reported.
async fn unless_it_panics<T>(
    name: &'static str,
    verb: Pin<Box<dyn Future<Output = T> + '_>>,
) -> Option<T> {
    let mut verb = Some(verb);
    poll_fn(|context| {
        let Some(running) = verb.as_mut() else {
            return Poll::Ready(None);
        };
        // What the verb leaves half done in the database is rolled back, and nothing else of it is looked at again.
        match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(answer)) => Poll::Ready(Some(answer)),
            Err(_) => {
                tracing::error!(verb = name, "a verb panicked; nothing of it is kept");
                verb = None;
                Poll::Ready(None)
            }
        }
    })
    .await
}

/// Waiting for a database that went away, a little longer each time, and not for ever.
struct Patience {
    left: Duration,
    next: Duration,
}

impl Patience {
    fn new() -> Self {
        Self {
            left: PATIENCE,
            next: Duration::from_millis(2),
        }
    }

    /// Waits. False when that was done for long enough, and nothing was waited for.
    async fn wait(&mut self) -> bool {
        if self.left.is_zero() {
            return false;
        }
        pause(self.next.min(self.left)).await;
        self.left = self.left.saturating_sub(self.next);
        self.next = (self.next * 2).min(LONGEST);
        true
    }
}

/// Lets real time pass.
#[allow(
    clippy::disallowed_methods,
    reason = "a database's server lives by the real time, also where the clock is moved by hand"
)]
pub(super) async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}
