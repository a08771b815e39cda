//! Unlocks: claims them, makes the calls, and records what became of each (R13-R19).
//!
//! A call that has begun is never dropped: it ends by its own time-out, and its answer is recorded, also while the server
//! stops. What is not in flight then is given back.

use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use activation_lock::time::Timestamp;
use activation_lock::unlock::{Outcome, Response, outcome};
use apple::escrow_key_unlock::{UnlockRequest, UnlockService};
use apple::push_certificate::PushCertificate;
use escrow::Fault;
use escrow::clock::Clock;
use escrow::operations::{Advance, Answer, Begun, Claim, Finished, Lease, Via, WorkSettings};
use escrow::permit::OrganisationId;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use lru::LruCache;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::{Pauses, rest, wait_until};
use crate::App;
use crate::connectors::DelegatedUnlock;
use crate::lifecycle::Shutdown;

/// However quiet it is, the queue is looked at this often: another process may have put something in it.
const LOOK: Duration = Duration::from_secs(10);
/// So many unlocks are claimed in one commit.
const CLAIMS_AT_ONCE: usize = 8;
/// Push certificates whose connections to Apple are kept.
const SERVICES: NonZeroUsize = NonZeroUsize::new(32).expect("32 is not zero");
/// An answer that the database does not take is tried so often before it is given up, where the database does not just fail
/// but finds something wrong with it, or where the server is to end.
const TRIES: u32 = 10;

/// The part of the worker that unlocks. Copies of it are one.
#[derive(Clone)]
pub(super) struct Unlocks(Arc<Parts>);

pub(super) struct Parts {
    app: App,
    shutdown: Shutdown,
    settings: WorkSettings,
    /// One permit for each unlock that may be worked on at once.
    places: Arc<Semaphore>,
    all_places: u32,
    /// Somebody has left their place.
    left: Notify,
    services: Mutex<LruCache<String, UnlockService>>,
}

impl std::ops::Deref for Unlocks {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What became of one call, before it is on record.
struct Called {
    outcome: Outcome,
    answer: Answer,
}

impl Called {
    /// Nothing was sent.
    fn not_made(outcome: Outcome, why: impl Into<String>) -> Self {
        Self {
            outcome,
            answer: Answer {
                diagnostic: Some(format!("nothing was sent: {}", why.into())),
                ..Answer::default()
            },
        }
    }
}

impl Unlocks {
    pub(super) fn new(app: &App, shutdown: &Shutdown) -> Self {
        let mut owner = [0; 16];
        app.random.fill(&mut owner);
        let apple = &app.settings.apple;
        // One place is always left for an urgent unlock, so there are two at least.
        let all_places = app.settings.in_flight.max(2);
        Self(Arc::new(Parts {
            settings: WorkSettings {
                owner: data_encoding::HEXLOWER.encode(&owner),
                call_timeout: apple.timeouts.overall.max(app.settings.mdm_timeout),
                in_flight: all_places,
                pace: app.settings.pace,
                enrolment_host: apple.origin.host().to_owned(),
                apple_host: apple.origin.host().to_owned(),
            },
            places: Arc::new(Semaphore::new(all_places as usize)),
            all_places,
            left: Notify::new(),
            services: Mutex::new(LruCache::new(SERVICES)),
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
                        tracing::error!(%error, "unlocks cannot be taken from the queue; it is tried again");
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

    /// Works on an unlock, then on the next that is due, until there is none. Not part of [`Self::work`]: what is in flight
    /// outlives it.
    fn take_place(&self, lease: Lease, place: OwnedSemaphorePermit) {
        let unlocks = self.clone();
        tokio::spawn(async move {
            let work = AssertUnwindSafe(unlocks.work_on_what_is_due(lease)).catch_unwind();
            if work.await.is_err() {
                // What the panic said is on standard error. The lease runs out, and a call in flight is then unknown (R14).
                tracing::error!(
                    "the work on an unlock stopped at an error in this program; it is taken up again when its lease has run out"
                );
            }
            drop(place);
            unlocks.left.notify_one();
        });
    }

    async fn work_on_what_is_due(&self, first: Lease) {
        let mut next = Some(first);
        while let Some(lease) = next.take() {
            self.work_on(lease).await;
            if self.shutdown.is_requested() {
                return;
            }
            match self.app.escrow.operations().claim(&self.settings).await {
                Ok(Claim::Lease(lease)) => next = Some(lease),
                Ok(Claim::Nothing { .. }) => {}
                Err(error) => {
                    tracing::error!(%error, "unlocks cannot be taken from the queue; it is tried again");
                }
            }
        }
    }

    /// Works on one unlock until it ends, waits, or is somebody else's.
    async fn work_on(&self, mut lease: Lease) {
        let operations = self.app.escrow.operations();
        let mut pauses = Pauses::new();
        loop {
            if self.shutdown.is_requested() {
                return self.give_back(lease, None).await;
            }
            match operations.advance(&mut lease, &self.settings).await {
                Ok(Advance::Call(begun)) => {
                    pauses = Pauses::new();
                    if !self.call_and_record(&lease, &begun).await {
                        return;
                    }
                }
                Ok(Advance::Paced { until }) => {
                    let wait = wait_until(self.app.now(), until);
                    // The lease would run out while we sleep.
                    if wait > self.settings.lease_length() / 2 {
                        return self.give_back(lease, Some(until)).await;
                    }
                    rest(&*self.app.clock, &self.shutdown, wait).await;
                }
                Ok(Advance::AskStatus) => unreachable!("written next"),
                Ok(Advance::Parked(state)) => {
                    tracing::info!(
                        unlock = lease.operation(),
                        serial = lease.serial().as_str(),
                        state = state.as_str(),
                        "an unlock ended or waits"
                    );
                    return;
                }
                Ok(Advance::Lost) => {
                    tracing::warn!(
                        unlock = lease.operation(),
                        "the lease of an unlock is lost; whoever has it goes on"
                    );
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, unlock = lease.operation(), "an unlock cannot go on; it is tried again");
                    if rest(&*self.app.clock, &self.shutdown, pauses.next()).await {
                        return;
                    }
                }
            }
        }
    }

    async fn give_back(&self, lease: Lease, next_at: Option<Timestamp>) {
        let unlock = lease.operation().to_owned();
        match self.app.escrow.operations().release(lease, next_at).await {
            Ok(_) => tracing::info!(unlock, "an unlock is given back to the queue"),
            // It is free when the lease has run out, or at the next start.
            Err(error) => tracing::error!(%error, unlock, "an unlock cannot be given back"),
        }
    }

    /// Makes the call and puts its end on record. True when there is more to do under this lease.
    async fn call_and_record(&self, lease: &Lease, begun: &Begun) -> bool {
        let began = self.app.now();
        let called = self.call(lease.organisation(), begun).await;
        let took = self.app.now().since(began);
        self.app.metrics.attempt(called.outcome, took);
        tracing::info!(
            unlock = lease.operation(),
            serial = lease.serial().as_str(),
            attempt = begun.ticket.attempt(),
            outcome = called.outcome.as_str(),
            status = called.answer.status,
            milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "a call to turn a lock off ended"
        );
        let operations = self.app.escrow.operations();
        let finish = || operations.finish(&begun.ticket, called.outcome, called.answer.clone());
        let (attempt, status) = (begun.ticket.attempt(), called.answer.status);
        let told = format!("attempt {attempt}: {} {status:?}", called.outcome.as_str());
        match until_recorded(&*self.app.clock, &self.shutdown, &told, finish).await {
            Some(Finished::More) => true,
            Some(Finished::Parked(state)) => {
                tracing::info!(
                    unlock = lease.operation(),
                    serial = lease.serial().as_str(),
                    state = state.as_str(),
                    "an unlock ended or waits"
                );
                false
            }
            Some(Finished::Late { state }) => {
                tracing::warn!(
                    unlock = lease.operation(),
                    state = state.as_str(),
                    "an answer came after its attempt was given up, and is recorded on it"
                );
                false
            }
            None => false,
        }
    }

    async fn call(&self, organisation: &OrganisationId, begun: &Begun) -> Called {
        match &begun.via {
            Via::Certificate { id, topic } => match self.service(organisation, id, topic).await {
                Ok(service) => self.call_apple(&service, begun).await,
                Err(not_made) => not_made,
            },
            Via::Connection { id, topic } => self.call_mdm(id, topic, begun).await,
        }
    }

    async fn call_apple(&self, service: &UnlockService, begun: &Begun) -> Called {
        let request = match UnlockRequest::new(
            &begun.identity,
            &begun.org_name,
            &begun.guid,
            begun.code.expose(),
        ) {
            Ok(request) => request,
            Err(incomplete) => {
                return Called::not_made(Outcome::Malformed, incomplete.to_string());
            }
        };
        // The last thing before it leaves (R16).
        let now = self.app.now();
        if now > begun.latest_start {
            return too_late();
        }
        let answer = service.unlock(&request, now).await;
        Called {
            outcome: answer.outcome,
            answer: Answer {
                status: answer.status,
                retry_after: answer.retry_after,
                delegate_failed: false,
                diagnostic: said(answer.diagnostic),
            },
        }
    }

    async fn call_mdm(&self, id: &str, topic: &str, begun: &Begun) -> Called {
        let connection = match self.app.escrow.connections().open(id).await {
            Ok(Some(connection)) => connection,
            Ok(None) => {
                return Called::not_made(
                    Outcome::Credential,
                    "the MDM's connection was removed; add it again, or a push certificate",
                );
            }
            Err(error) => return not_opened(&error, "the MDM's connection"),
        };
        let request = DelegatedUnlock {
            topic,
            identity: &begun.identity,
            org_name: &begun.org_name,
            guid: &begun.guid,
            code: begun.code.expose(),
        };
        let now = self.app.now();
        if now > begun.latest_start {
            return too_late();
        }
        // The pace of it was taken with the attempt; commands give way to it.
        self.app.mdm.turn(&connection.view, now);
        let answer = self.app.mdm.unlock(&connection, &request).await;
        Called {
            outcome: answer.outcome,
            answer: Answer {
                status: answer.status,
                retry_after: None,
                delegate_failed: answer.delegate_failed,
                diagnostic: said(answer.diagnostic),
            },
        }
    }

    /// Apple's service as one push certificate sees it, with the connections that are open to it.
    async fn service(
        &self,
        organisation: &OrganisationId,
        id: &str,
        topic: &str,
    ) -> Result<UnlockService, Called> {
        if let Some(service) = self.services().get(id) {
            return Ok(service.clone());
        }
        let certificates = self.app.escrow.push_certificates();
        let opened = match certificates.open_by_id(organisation, id).await {
            Ok(Some(opened)) => opened,
            Ok(None) => {
                let why = format!("the push certificate for {topic} was removed; add one for it");
                return Err(Called::not_made(Outcome::Credential, why));
            }
            Err(error) => {
                let what = format!("the push certificate for {topic}");
                return Err(not_opened(&error, &what));
            }
        };
        let unusable = |why: &dyn std::fmt::Display| {
            let why = format!("the push certificate for {topic} cannot be used: {why}");
            Called::not_made(Outcome::Credential, why)
        };
        let certificate =
            PushCertificate::from_sealed_pem(&opened.pem).map_err(|error| unusable(&error))?;
        let service = UnlockService::new(&self.app.settings.apple, &certificate)
            .map_err(|error| unusable(&error))?;
        self.services().put(id.to_owned(), service.clone());
        Ok(service)
    }

    fn services(&self) -> std::sync::MutexGuard<'_, LruCache<String, UnlockService>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the end of a call on record, however often the database fails. `None` when it cannot be. `told` stands in the log.
async fn until_recorded<F>(
    clock: &dyn Clock,
    shutdown: &Shutdown,
    told: &str,
    finish: impl Fn() -> F,
) -> Option<Finished>
where
    F: Future<Output = escrow::Result<Finished>>,
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

/// A call that does not start, because its lease might run out under it, has the outcome of one that was not sent.
fn too_late() -> Called {
    Called::not_made(
        outcome(Response::NotSent),
        "it took too long until the call could start, and somebody else may have the device now",
    )
}

/// What a call needs does not open: its key is lost or it was changed, which a person has to mend; or the database failed.
fn not_opened(error: &escrow::Error, what: &str) -> Called {
    match error {
        escrow::Error::Seal(_) | escrow::Error::Corrupt(_) => Called::not_made(
            Outcome::Credential,
            format!("{what} does not open; run doctor, or add it again"),
        ),
        other => Called::not_made(
            outcome(Response::NotSent),
            format!("{what} could not be read: {other}"),
        ),
    }
}

fn said(diagnostic: String) -> Option<String> {
    (!diagnostic.is_empty()).then_some(diagnostic)
}

#[cfg(test)]
mod tests;
