//! Locks: makes the calls to Apple's enrolment service, and records what became of each (R4, R20).

use activation_lock::lock::{LockOutcome, Response, outcome};
use apple::dep::LostMessage;
use escrow::locks::{Advance, Answer, Begun, Finished};
use escrow::operations::Lease;
use escrow::permit::OrganisationId;

use super::queue::{Queue, TOO_LATE, said};
use super::{Pauses, rest};

/// What became of one call, before it is on record.
struct Called {
    outcome: LockOutcome,
    answer: Answer,
}

impl Called {
    /// Nothing was sent.
    fn not_made(outcome: LockOutcome, why: &str) -> Self {
        Self {
            outcome,
            answer: Answer {
                diagnostic: Some(format!("nothing was sent: {why}")),
                ..Answer::default()
            },
        }
    }
}

/// Works on one lock until it ends, waits, or is somebody else's.
pub(super) async fn work_on(queue: &Queue, mut lease: Lease) {
    let locks = queue.app.escrow.locks();
    let mut pauses = Pauses::new();
    loop {
        if queue.shutdown.is_requested() {
            return queue.give_back(lease, None).await;
        }
        match locks.advance(&mut lease, &queue.settings).await {
            Ok(Advance::Call(begun)) => {
                pauses = Pauses::new();
                if !call_and_record(queue, &lease, &begun).await {
                    return;
                }
            }
            Ok(Advance::Paced { until }) => match queue.pace(lease, until).await {
                Some(held) => lease = held,
                None => return,
            },
            Ok(Advance::Parked(state)) => {
                tracing::info!(
                    lock = lease.operation(),
                    serial = lease.serial().as_str(),
                    state = state.as_str(),
                    "a lock ended or waits"
                );
                return;
            }
            Ok(Advance::Lost) => {
                tracing::warn!(
                    lock = lease.operation(),
                    "the lease of a lock is lost; whoever has it goes on"
                );
                return;
            }
            Err(error) => {
                tracing::error!(%error, lock = lease.operation(), "a lock cannot go on; it is tried again");
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
    app.metrics.lock_call(called.outcome, took);
    tracing::info!(
        lock = lease.operation(),
        serial = lease.serial().as_str(),
        call = begun.ticket.call(),
        outcome = called.outcome.as_str(),
        status = called.answer.status,
        milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "a call to turn a lock on ended"
    );
    let locks = app.escrow.locks();
    let finish = || locks.finish(&begun.ticket, called.outcome, called.answer.clone());
    let told = format!(
        "lock call {}: {} {:?}",
        begun.ticket.call(),
        called.outcome.as_str(),
        called.answer.status
    );
    match queue.until_recorded(&told, finish).await {
        Some(Finished::More) => true,
        Some(Finished::Parked(state)) => {
            tracing::info!(
                lock = lease.operation(),
                serial = lease.serial().as_str(),
                state = state.as_str(),
                "a lock ended or waits"
            );
            false
        }
        Some(Finished::Late { state }) => {
            tracing::warn!(
                lock = lease.operation(),
                state = state.as_str(),
                "an answer came after its call was given up, and is recorded on it"
            );
            false
        }
        None => false,
    }
}

async fn call(queue: &Queue, organisation: &OrganisationId, begun: &Begun) -> Called {
    let services = &queue.app.services;
    let (service, token) = match services
        .enrolment(organisation, &begun.via.server_token)
        .await
    {
        Ok(opened) => opened,
        Err(none) => return Called::not_made(none.lock_outcome(), none.why()),
    };
    // Whoever is named as the recipient on the audit trail is who is called (R17).
    if token.version != begun.via.version {
        let why = "the server token was renewed just now";
        return Called::not_made(outcome(&Response::NotSent), why);
    }
    let message = match begun.message.as_deref().map(str::parse::<LostMessage>) {
        None => None,
        Some(Ok(message)) => Some(message),
        Some(Err(error)) => return Called::not_made(LockOutcome::Malformed, &error.to_string()),
    };
    // The last thing before it leaves (R16).
    if queue.app.now() > begun.latest_start {
        return Called::not_made(outcome(&Response::NotSent), TOO_LATE);
    }
    let answer = service
        .activate_lock(
            &begun.serial,
            &begun.escrow_key,
            message.as_ref(),
            queue.app.machine_now(),
        )
        .await;
    Called {
        outcome: answer.outcome,
        answer: Answer {
            response_status: answer.response_status,
            status: answer.status,
            retry_after: answer.retry_after,
            diagnostic: said(answer.diagnostic),
        },
    }
}

#[cfg(test)]
mod tests;
