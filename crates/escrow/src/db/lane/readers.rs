//! A thread that reads, one verb or many at once, each on a connection of its own.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Closers, Common, Inbox, Job, Message, Patience, Tx};
use crate::clock::Clock as _;
use crate::db::Fault;
use crate::db::engine::{Access, Connection, Trouble};

struct Readers {
    common: Common,
    idle: RefCell<Vec<Connection>>,
}

/// Runs until it is told to close, or nobody can send any more.
pub(super) async fn run(common: Common, inbox: Inbox, at_once: usize) -> Closers {
    let readers = Rc::new(Readers {
        common,
        idle: RefCell::default(),
    });
    let mut closers = Closers::new();
    let places = Arc::new(Semaphore::new(at_once));
    let mut reads = JoinSet::new();
    loop {
        let place = places
            .clone()
            .acquire_owned()
            .await
            .expect("the places are never closed");
        while reads.try_join_next().is_some() {}
        let mut line = inbox.lock().await;
        let Some(message) = line.recv().await else {
            break;
        };
        match message {
            Message::Run(job) => {
                let readers = readers.clone();
                reads.spawn_local(async move {
                    readers.read(job).await;
                    drop(place);
                });
            }
            Message::Close(closer) => {
                line.close();
                closers.push(closer);
            }
        }
    }
    while reads.join_next().await.is_some() {}
    let idle = readers.idle.take();
    for connection in idle {
        connection.close().await;
    }
    closers
}

impl Readers {
    /// Runs one verb, again when its connection was lost, and tells its caller.
    async fn read(&self, mut job: Box<dyn Job>) {
        let mut patience = Patience::new();
        let done = loop {
            match self.once(&mut job).await {
                Ok(()) => break Ok(()),
                Err((fault, Some(_))) => {
                    // The others went with it.
                    let idle = self.idle.take();
                    for connection in idle {
                        connection.close().await;
                    }
                    if !patience.wait().await {
                        break Err(fault);
                    }
                }
                Err((fault, None)) => break Err(fault),
            }
        };
        job.settle(done);
    }

    /// Its connection is kept for the next when it is as it was.
    async fn once(&self, job: &mut Box<dyn Job>) -> Result<(), (Fault, Option<Trouble>)> {
        let place = &self.common.place;
        let again = place.is_shared().then_some(Trouble::Lost);
        let idle = self.idle.borrow_mut().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => place
                .connect(Access::Read)
                .await
                .map_err(|fault| (fault, again))?,
        };
        match connection.begin_watched(Access::Read).await {
            Ok(None) => {}
            Ok(Some(began)) => {
                self.common.clock.set_right(began.now);
                self.common.mind_keys(&mut connection, began.keys).await;
            }
            Err(fault) => {
                let trouble = connection.interrupted().map(|(trouble, _)| trouble);
                connection.close().await;
                return Err((fault, trouble));
            }
        }
        let mut tx = Tx::new(
            &mut connection,
            None,
            &self.common.ids,
            self.common.clock.now(),
        );
        job.run(&mut tx).await;
        let ended = connection.script("ROLLBACK").await;
        if let Some((trouble, fault)) = connection.interrupted() {
            connection.close().await;
            return Err((fault, Some(trouble)));
        }
        if ended.is_ok() {
            self.idle.borrow_mut().push(connection);
        }
        Ok(())
    }
}
