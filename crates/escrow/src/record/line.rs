//! The line before the record: while one batch is being written, the next gathers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{Incoming, Recorded, write};
use crate::news::News;
use crate::{Error, Escrow, Fault, Result};

/// How many events are put on record at once, at most.
const BATCH: usize = 256;

/// An event in line, and who waits for it.
type Waiting = (Arc<Incoming>, oneshot::Sender<Result<Recorded>>);

/// The line before the record: while one batch is being written, the next gathers here.
#[derive(Default)]
pub(crate) struct Line {
    waiting: Mutex<Vec<Waiting>>,
    moving: AtomicBool,
}

impl Line {
    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Escrow {
    /// Puts one event on record. When this returns, it is durable. Events that arrive together are written together.
    ///
    /// # Errors
    /// When the database fails: then nothing is on record, and the sender is to be told so.
    pub async fn record(&self, incoming: Incoming) -> Result<Recorded> {
        let (reply, answer) = oneshot::channel();
        let line = &self.shared.line;
        line.waiting().push((Arc::new(incoming), reply));
        if !line.moving.swap(true, Ordering::SeqCst) {
            tokio::spawn(self.clone().move_line());
        }
        answer.await.unwrap_or(Err(Error::Database(Fault::Closed)))
    }

    /// Writes batch after batch until nobody waits.
    async fn move_line(self) {
        let line = &self.shared.line;
        loop {
            let batch: Vec<Waiting> = {
                let mut waiting = line.waiting();
                let size = waiting.len().min(BATCH);
                waiting.drain(..size).collect()
            };
            if batch.is_empty() {
                line.moving.store(false, Ordering::SeqCst);
                // One may have come between the look and the word that nobody moves the line.
                if line.waiting().is_empty() || line.moving.swap(true, Ordering::SeqCst) {
                    return;
                }
                continue;
            }
            self.record_batch(batch).await;
        }
    }

    async fn record_batch(&self, mut batch: Vec<Waiting>) {
        let events: Vec<Arc<Incoming>> = batch.iter().map(|(event, _)| event.clone()).collect();
        match self.write_events(events).await {
            Ok(recorded) => {
                if recorded.contains(&Recorded::Recorded) {
                    self.tell(News::Commands);
                }
                for ((_, reply), recorded) in batch.into_iter().zip(recorded) {
                    // Nobody waits for it any more: it is on record all the same.
                    let _ = reply.send(Ok(recorded));
                }
            }
            Err(error) if batch.len() == 1 => {
                if let Some((_, reply)) = batch.pop() {
                    let _ = reply.send(Err(error));
                }
            }
            // One bad event must not keep the others off the record.
            Err(_) => {
                for (event, reply) in batch {
                    let result = self.write_events(vec![event]).await;
                    let _ = reply.send(
                        result.map(|recorded| recorded.first().copied().unwrap_or(Recorded::Known)),
                    );
                    self.tell(News::Commands);
                }
            }
        }
    }

    async fn write_events(&self, events: Vec<Arc<Incoming>>) -> Result<Vec<Recorded>> {
        let escrow = self.clone();
        self.db
            .write("record", async move |tx| write(tx, &escrow, &events).await)
            .await
    }
}
