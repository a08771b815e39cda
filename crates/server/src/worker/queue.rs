//! The queue of unlocks and locks: claims what is due, and has it worked on by those who can.
//!
//! A call that has begun is never dropped: it ends by its own time-out, and its answer is recorded, also while the server
//! stops. What is not in flight then is given back.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use activation_lock::time::Timestamp;
use escrow::Fault;
use escrow::clock::Clock;
use escrow::operations::{Claim, Kind, Lease, WorkSettings};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::{Pauses, locks, rest, unlocks, wait_until};
use crate::App;
use crate::lifecycle::Shutdown;

/// However quiet it is, the queue is looked at this often: another process may have put something in it.
const LOOK: Duration = Duration::from_secs(10);
/// So many operations are claimed in one commit.
const CLAIMS_AT_ONCE: usize = 8;
/// An answer that the database does not take is tried so often before it is given up, where the database does not just fail
/// but finds something wrong with it, or where the server is to end.
const TRIES: u32 = 10;

/// The part of the worker that unlocks and locks. Copies of it are one.
#[derive(Clone)]
pub(super) struct Queue(Arc<Parts>);

/// See [`Queue`].
pub(super) struct Parts {
    pub(super) app: App,
    pub(super) shutdown: Shutdown,
    pub(super) settings: WorkSettings,
    /// One permit for each operation that may be worked on at once.
    places: Arc<Semaphore>,
    all_places: u32,
    /// Somebody has left their place.
    left: Notify,
}

impl std::ops::Deref for Queue {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Queue {
    pub(super) fn new(app: &App, shutdown: &Shutdown) -> Self {
        let settings = &app.settings;
        // One place is always left for an urgent operation, so there are two at least.
        let all_places = settings.in_flight.max(2);
        Self(Arc::new(Parts {
            settings: WorkSettings {
                owner: app.replica.id.clone(),
                call_timeout: settings
                    .apple
                    .timeouts
                    .overall
                    .max(settings.enrolment.timeouts.overall)
                    .max(settings.mdm_timeout),
                in_flight: all_places,
                pace: settings.pace,
                apple_host: settings.apple.origin.host().to_owned(),
                enrolment_host: settings.enrolment.origin.host().to_owned(),
            },
            places: Arc::new(Semaphore::new(all_places as usize)),
            all_places,
            left: Notify::new(),
            app: app.clone(),
            shutdown: shutdown.clone(),
        }))
    }

    /// Claims what is due and has it worked on, until the server is to end.
    pub(super) async fn work(self) {
        let operations = self.app.escrow.operations();
        let mut pauses = Pauses::new();
        // A claim is answered with the commit it is part of. Where much is due, several are asked for in one.
        let mut at_once = 1;
        while !self.shutdown.is_requested() {
            let place = tokio::select! {
                place = self.places.clone().acquire_owned() => {
                    place.expect("the places are never closed")
                }
                () = self.shutdown.requested() => return,
            };
            let mut places = vec![place];
            while places.len() < at_once
                && let Ok(place) = self.places.clone().try_acquire_owned()
            {
                places.push(place);
            }
            let claims = places.iter().map(|_| operations.claim(&self.settings));
            let mut nothing: Option<Duration> = None;
            for (claimed, place) in join_all(claims).await.into_iter().zip(places) {
                match claimed {
                    Ok(Claim::Lease(lease)) => {
                        pauses = Pauses::new();
                        self.take_place(lease, place);
                    }
                    Ok(Claim::Nothing { look_again_at }) => {
                        pauses = Pauses::new();
                        let now = self.app.now();
                        let wait = look_again_at.map_or(LOOK, |at| wait_until(now, at).min(LOOK));
                        nothing = Some(nothing.map_or(wait, |other| other.min(wait)));
                    }
                    Err(error) => {
                        tracing::error!(%error, "unlocks and locks cannot be taken from the queue; it is tried again");
                        let wait = pauses.next();
                        nothing = Some(nothing.map_or(wait, |other| other.min(wait)));
                    }
                }
            }
            let Some(wait) = nothing else {
                at_once = (at_once * 2).min(CLAIMS_AT_ONCE);
                continue;
            };
            at_once = 1;
            tokio::select! {
                () = operations.woken() => {}
                () = self.left.notified() => {}
                () = self.app.clock.sleep(wait) => {}
                () = self.shutdown.requested() => {}
            }
        }
    }

    /// Waits until nobody works any more.
    pub(super) async fn finish(&self) {
        let everybody = self.places.acquire_many(self.all_places).await;
        drop(everybody.expect("the places are never closed"));
    }

    /// Works on an operation, then on the next that is due, until there is none. Not part of [`Self::work`]: what is in flight
    /// outlives it.
    fn take_place(&self, lease: Lease, place: OwnedSemaphorePermit) {
        let queue = self.clone();
        tokio::spawn(async move {
            let work = AssertUnwindSafe(queue.work_on_what_is_due(lease)).catch_unwind();
            if work.await.is_err() {
                // What the panic said is on standard error. The lease runs out, and a call in flight is then unknown (R14).
                tracing::error!(
                    "the work on an unlock or a lock stopped at an error in this program; it is taken up again when its lease has run out"
                );
            }
            drop(place);
            queue.left.notify_one();
        });
    }

    async fn work_on_what_is_due(&self, first: Lease) {
        let mut next = Some(first);
        while let Some(lease) = next.take() {
            match lease.kind() {
                Kind::Unlock => unlocks::work_on(self, lease).await,
                Kind::Lock => locks::work_on(self, lease).await,
            }
            if self.shutdown.is_requested() {
                return;
            }
            match self.app.escrow.operations().claim(&self.settings).await {
                Ok(Claim::Lease(lease)) => next = Some(lease),
                Ok(Claim::Nothing { .. }) => {}
                Err(error) => {
                    tracing::error!(%error, "unlocks and locks cannot be taken from the queue; it is tried again");
                }
            }
        }
    }

    /// Waits for the pace's sake. Gives the lease back where it would run out meanwhile, and then `None`.
    pub(super) async fn pace(&self, lease: Lease, until: Timestamp) -> Option<Lease> {
        let wait = wait_until(self.app.now(), until);
        if wait > self.settings.lease_length() / 2 {
            self.give_back(lease, Some(until)).await;
            return None;
        }
        rest(&*self.app.clock, &self.shutdown, wait).await;
        Some(lease)
    }

    pub(super) async fn give_back(&self, lease: Lease, next_at: Option<Timestamp>) {
        let (kind, operation) = (lease.kind().as_str(), lease.operation().to_owned());
        match self.app.escrow.operations().release(lease, next_at).await {
            Ok(_) => tracing::info!(kind, operation, "given back to the queue"),
            // It is free when the lease has run out, or at the next start.
            Err(error) => {
                tracing::error!(%error, kind, operation, "cannot be given back to the queue")
            }
        }
    }

    /// Puts the end of a call on record, however often the database fails. `None` when it cannot be. `told` stands in the log.
    pub(super) async fn until_recorded<T, F>(&self, told: &str, finish: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = escrow::Result<T>>,
    {
        until_recorded(&*self.app.clock, &self.shutdown, told, finish).await
    }
}

async fn until_recorded<T, F>(
    clock: &dyn Clock,
    shutdown: &Shutdown,
    told: &str,
    finish: impl Fn() -> F,
) -> Option<T>
where
    F: Future<Output = escrow::Result<T>>,
{
    let mut pauses = Pauses::new();
    let mut counted = 0;
    loop {
        let error = match finish().await {
            Ok(finished) => return Some(finished),
            Err(error) => error,
        };
        let passes = matches!(
            error,
            escrow::Error::Database(Fault::Engine(_) | Fault::Commit(_))
        );
        let ending = shutdown.is_requested();
        counted += u32::from(ending || !passes);
        let closed = matches!(error, escrow::Error::Database(Fault::Closed));
        let given_up = closed || counted > TRIES;
        // Given up, it stands as in flight, and is read as unknown later (R14): nothing false is said.
        tracing::error!(%error, told, given_up, "the end of a call cannot be recorded");
        if given_up {
            return None;
        }
        if ending {
            // The answer is worth a few moments more.
            clock.sleep(super::FIRST_PAUSE).await;
        } else {
            rest(clock, shutdown, pauses.next()).await;
        }
    }
}

/// What is said of a call that does not start, because its lease might run out under it.
pub(super) const TOO_LATE: &str =
    "it took too long until the call could start, and somebody else may have the device now";

/// Words, if there are any.
pub(super) fn said(diagnostic: String) -> Option<String> {
    (!diagnostic.is_empty()).then_some(diagnostic)
}

#[cfg(test)]
mod tests;
