//! Unlocks: makes the calls, and records what became of each (R13-R19).

use std::time::Duration;

use activation_lock::unlock::{Outcome, Response, outcome};
use apple::escrow_key_unlock::{UnlockRequest, UnlockService};
use escrow::lock_statuses::Reading;
use escrow::operations::{Advance, Answer, Begun, Finished, Lease, Via};
use escrow::permit::OrganisationId;

use super::queue::{Queue, TOO_LATE, said};
use super::{Pauses, rest, statuses};
use crate::connectors::DelegatedUnlock;
use crate::services::NoService;

/// An unlock does not wait longer for Apple's status of the lock: it goes on without.
const STATUS_PATIENCE: Duration = Duration::from_secs(20);

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

    /// A call that does not start, because its lease might run out under it, has the outcome of one that was not sent.
    fn too_late() -> Self {
        Self::not_made(outcome(Response::NotSent), TOO_LATE)
    }
}

/// Works on one unlock until it ends, waits, or is somebody else's.
pub(super) async fn work_on(queue: &Queue, mut lease: Lease) {
    let operations = queue.app.escrow.operations();
    let mut pauses = Pauses::new();
    loop {
        if queue.shutdown.is_requested() {
            return queue.give_back(lease, None).await;
        }
        match operations.advance(&mut lease, &queue.settings).await {
            Ok(Advance::Call(begun)) => {
                pauses = Pauses::new();
                if !call_and_record(queue, &lease, &begun).await {
                    return;
                }
            }
            Ok(Advance::AskStatus) => {
                let asked = statuses::ask(&queue.app, lease.organisation(), lease.serial());
                let reading = match tokio::time::timeout(STATUS_PATIENCE, asked).await {
                    Ok(reading) => reading,
                    Err(_) => Reading::Problem("unavailable"),
                };
                let settings = queue.app.settings.statuses;
                if let Err(error) = operations.status_read(&lease, reading, settings).await {
                    tracing::error!(%error, unlock = lease.operation(), "Apple's status cannot be recorded; it is tried again");
                    if rest(&*queue.app.clock, &queue.shutdown, pauses.next()).await {
                        return;
                    }
                }
            }
            Ok(Advance::Paced { until }) => match queue.pace(lease, until).await {
                Some(held) => lease = held,
                None => return,
            },
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
                if rest(&*queue.app.clock, &queue.shutdown, pauses.next()).await {
                    return;
                }
            }
        }
    }
}

/// Makes the call and puts its end on record. True when there is more to do under this lease.
async fn call_and_record(queue: &Queue, lease: &Lease, begun: &Begun) -> bool {
    let app = &queue.app;
    let began = app.now();
    let called = call(queue, lease.organisation(), begun).await;
    let took = app.now().since(began);
    app.metrics.attempt(called.outcome, took);
    tracing::info!(
        unlock = lease.operation(),
        serial = lease.serial().as_str(),
        attempt = begun.ticket.attempt(),
        outcome = called.outcome.as_str(),
        status = called.answer.status,
        milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "a call to turn a lock off ended"
    );
    let operations = app.escrow.operations();
    let finish = || operations.finish(&begun.ticket, called.outcome, called.answer.clone());
    let (attempt, status) = (begun.ticket.attempt(), called.answer.status);
    let told = format!("attempt {attempt}: {} {status:?}", called.outcome.as_str());
    match queue.until_recorded(&told, finish).await {
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

async fn call(queue: &Queue, organisation: &OrganisationId, begun: &Begun) -> Called {
    match &begun.via {
        Via::Certificate { id, topic } => {
            match queue.app.services.unlock(organisation, id, topic).await {
                Ok(service) => call_apple(queue, &service, begun).await,
                Err(none) => Called::not_made(none.unlock_outcome(), none.why()),
            }
        }
        Via::Connection { id, topic } => call_mdm(queue, id, topic, begun).await,
    }
}

async fn call_apple(queue: &Queue, service: &UnlockService, begun: &Begun) -> Called {
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
    let now = queue.app.now();
    if now > begun.latest_start {
        return Called::too_late();
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

async fn call_mdm(queue: &Queue, id: &str, topic: &str, begun: &Begun) -> Called {
    let app = &queue.app;
    let connection = match app.escrow.connections().open(id).await {
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
    let now = app.now();
    if now > begun.latest_start {
        return Called::too_late();
    }
    // The pace of it was taken with the attempt; commands give way to it.
    app.mdm.turn(&connection.view, now);
    let answer = app.mdm.unlock(&connection, &request).await;
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

/// What a call needs does not open: its key is lost or it was changed, which a person has to mend; or the database failed.
fn not_opened(error: &escrow::Error, what: &str) -> Called {
    let none = NoService::of(error, what);
    Called::not_made(none.unlock_outcome(), none.why())
}

#[cfg(test)]
mod tests;
