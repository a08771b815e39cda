//! A thread that writes: it takes what is in line, commits it together, and then tells the callers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{Closers, Common, Inbox, Job, Message, Patience, Tx, pause};
use crate::clock::Clock as _;
use crate::db::Fault;
use crate::db::counter::Counter;
use crate::db::engine::{Access, Connection, Trouble};

/// How many verbs are committed together at most.
const BATCH: usize = 128;
/// After how many conflicts the verbs of a batch are committed one by one.
const CONFLICTS_TOGETHER: u32 = 2;
/// After how many conflicts a verb is given up.
const CONFLICTS: u32 = 200;

/// See the module.
pub(in crate::db) struct Writer {
    common: Common,
    /// Nothing while there is none: it is made anew.
    connection: Option<Connection>,
    counter: Counter,
    audited: Arc<Notify>,
}

/// Why a batch was not committed.
struct Lost {
    fault: Fault,
    trouble: Option<Trouble>,
    /// The commit was sent, and there was no answer.
    in_doubt: bool,
}

impl From<Fault> for Lost {
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            trouble: None,
            in_doubt: false,
        }
    }
}

impl Writer {
    /// A writer with its first connection.
    pub(in crate::db) fn new(
        common: Common,
        connection: Connection,
        counter: Counter,
        audited: Arc<Notify>,
    ) -> Self {
        Self {
            common,
            connection: Some(connection),
            counter,
            audited,
        }
    }

    /// Runs until it is told to close, or nobody can send any more.
    pub(super) async fn run(mut self, inbox: Inbox) -> Closers {
        let mut closers = Closers::new();
        let mut messages = Vec::with_capacity(BATCH);
        loop {
            let mut line = inbox.lock().await;
            if line.recv_many(&mut messages, BATCH).await == 0 {
                break;
            }
            let mut jobs = Vec::with_capacity(messages.len());
            for message in messages.drain(..) {
                match message {
                    Message::Run(job) => jobs.push(job),
                    Message::Close(closer) => {
                        // What is in line is still finished; nothing more gets in.
                        line.close();
                        closers.push(closer);
                    }
                }
            }
            drop(line);
            if !jobs.is_empty() {
                self.batch(jobs).await;
            }
        }
        if let Some(connection) = self.connection.take() {
            connection.close().await;
        }
        closers
    }

    /// Commits verbs together and tells their callers; one by one when together they get in others' way.
    async fn batch(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        if jobs.len() > 1 {
            let done = self.commit(&mut jobs, CONFLICTS_TOGETHER).await;
            let is_conflict = matches!(&done, Err(lost) if lost.trouble == Some(Trouble::Conflict));
            if !is_conflict {
                return settle(jobs, &done);
            }
        }
        for job in jobs {
            let mut alone = vec![job];
            let done = self.commit(&mut alone, CONFLICTS).await;
            settle(alone, &done);
        }
    }

    /// Commits verbs together, trying again when something came between.
    async fn commit(&mut self, jobs: &mut [Box<dyn Job>], most: u32) -> Result<(), Lost> {
        let mut patience = Patience::new();
        let mut conflicts = 0;
        loop {
            let Err(lost) = self.once(jobs).await else {
                return Ok(());
            };
            self.counter.lost();
            if lost.trouble != Some(Trouble::Conflict) {
                let first = jobs.first().map_or("none", |job| job.name());
                tracing::error!(fault = %lost.fault, verbs = jobs.len(), first, "a batch of writes was not committed");
            }
            match lost.trouble {
                Some(Trouble::Conflict) if conflicts < most => {
                    conflicts += 1;
                    self.roll_back().await;
                    pause(Duration::from_millis(u64::from(conflicts.min(50)))).await;
                }
                Some(Trouble::Lost) => {
                    self.drop_connection().await;
                    if lost.in_doubt && self.was_committed(&mut patience).await? {
                        return Ok(());
                    }
                    if !patience.wait().await {
                        return Err(lost);
                    }
                }
                _ => {
                    self.roll_back().await;
                    return Err(lost);
                }
            }
        }
    }

    /// Runs verbs one after another, each in a savepoint, and commits them together.
    async fn once(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<(), Lost> {
        let is_shared = self.common.place.is_shared();
        self.connected().await?;
        let Some(connection) = &mut self.connection else {
            return Err(Fault::Closed.into());
        };
        let began = connection.begin_watched(Access::Write).await;
        if let Some(began) = lost(began, connection)? {
            self.common.clock.set_right(began.now);
            self.common.mind_keys(connection, began.keys).await;
        }
        let counted = self.counter.begin(connection).await;
        lost(counted, connection)?;
        // Where each statement is a journey, one verb alone does without a savepoint.
        let alone = is_shared && jobs.len() == 1;
        let mut next = "SAVEPOINT verb";
        for job in jobs {
            if !alone {
                let marked = connection.script(next).await;
                lost(marked, connection)?;
                next = "RELEASE verb; SAVEPOINT verb";
            }
            let mark = self.counter.mark();
            let mut tx = Tx::new(
                connection,
                Some(&mut self.counter),
                &self.common.ids,
                self.common.clock.now(),
            );
            let keep = job.run(&mut tx).await;
            if let Some((trouble, fault)) = connection.interrupted() {
                return Err(Lost {
                    fault,
                    trouble: Some(trouble),
                    in_doubt: false,
                });
            }
            if !keep {
                self.counter.back(mark);
                if alone {
                    let ended = connection.script("ROLLBACK").await;
                    return lost(ended, connection).map(drop);
                }
                let undone = connection.script("ROLLBACK TO verb").await;
                lost(undone, connection)?;
            }
        }
        // The last savepoint ends with the transaction.
        let stored = self.counter.store(connection).await;
        lost(stored, connection)?;
        let committed = connection.script("COMMIT").await;
        lost(committed, connection).map_err(|lost| Lost {
            in_doubt: lost.trouble == Some(Trouble::Lost),
            ..lost
        })?;
        if self.counter.committed() {
            self.audited.notify_one();
        }
        Ok(())
    }

    /// Sees to it that there is a connection.
    async fn connected(&mut self) -> Result<(), Lost> {
        if self.connection.is_some() {
            return Ok(());
        }
        let gone = |fault| Lost {
            fault,
            trouble: Some(Trouble::Lost),
            in_doubt: false,
        };
        let mut connection = self
            .common
            .place
            .connect(Access::Write)
            .await
            .map_err(gone)?;
        let now = self.common.clock.now();
        let reopened = self
            .counter
            .reopen(&mut connection, &self.common.ids, now)
            .await;
        reopened.map_err(gone)?;
        self.common.hooks.reconnected();
        self.connection = Some(connection);
        Ok(())
    }

    /// Whether the batch whose commit had no answer was kept: known once no session can be at it any more.
    async fn was_committed(&mut self, patience: &mut Patience) -> Result<bool, Lost> {
        loop {
            if let Ok(mut connection) = self.common.place.connect(Access::Write).await
                && let Ok(Some(kept)) = self.counter.was_kept(&mut connection).await
            {
                self.common.hooks.reconnected();
                self.connection = Some(connection);
                return Ok(kept);
            }
            if !patience.wait().await {
                return Err(Fault::InDoubt.into());
            }
        }
    }

    async fn roll_back(&mut self) {
        if let Some(connection) = &mut self.connection {
            // The engine may have ended the transaction by itself; then there is none to roll back, and it says so.
            let _ = connection.script("ROLLBACK").await;
            if matches!(connection.interrupted(), Some((Trouble::Lost, _))) {
                self.drop_connection().await;
            }
        }
    }

    async fn drop_connection(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close().await;
        }
    }
}

/// An error between verbs means that the whole transaction is lost.
fn lost<T>(done: Result<T, Fault>, connection: &Connection) -> Result<T, Lost> {
    done.map_err(|fault| Lost {
        fault,
        trouble: connection.interrupted().map(|(trouble, _)| trouble),
        in_doubt: false,
    })
}

fn settle(jobs: Vec<Box<dyn Job>>, done: &Result<(), Lost>) {
    for job in jobs {
        let done = done.as_ref().copied().map_err(|lost| lost.fault.clone());
        job.settle(done);
    }
}
