//! One call: on record with its recipient before it leaves (R17), and whatever became of it recorded on itself (R14).

use std::time::Duration;

use activation_lock::codes::{CodeText, Try};
use activation_lock::device::DeviceIdentity;
use activation_lock::operation::StateName;
use activation_lock::time::Timestamp;
use activation_lock::unlock::{AttemptResult, End, Outcome, Step, late_outcome, late_state};

use super::lease::{self, Hold, Lease, WorkSettings};
use super::overlap::{self, Overlapped};
use super::plan::{self, AttemptRow, Decision};
use super::{Details, Operation, Operations, state};
use crate::db::{Tx, params};
use crate::lock_statuses::{self, Reading, StatusSettings};
use crate::news::News;
use crate::pace::{self, Pace, Rate};
use crate::permit::OrganisationId;
use crate::{Error, Escrow, Result, audit, codes, connections, locks, organisations};

/// At most this much of a diagnostic is kept, in characters.
const DIAGNOSTIC: usize = 2_000;

/// What a worker does next with an operation it holds.
pub enum Advance {
    /// Make this call. It is on record.
    Call(Box<Begun>),
    /// Ask for Apple's status of the lock, report it with [`Operations::status_read`], and advance again.
    AskStatus,
    /// The pace allows the next call at this moment; hold on to the lease and advance again then.
    Paced {
        /// When.
        until: Timestamp,
    },
    /// It ended, or waits; the lease is given back.
    Parked(StateName),
    /// The lease was lost: somebody else has the operation. Nothing was changed.
    Lost,
}

/// Names an attempt, to report what became of it.
#[derive(Clone, Debug)]
pub struct Ticket {
    organisation: OrganisationId,
    operation: String,
    attempt: String,
}

impl Ticket {
    /// The attempt's identifier.
    #[must_use]
    pub fn attempt(&self) -> &str {
        &self.attempt
    }
}

/// Who makes the call to Apple.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// We, with this push certificate.
    Certificate {
        /// Its identifier, for [`crate::push_certificates::PushCertificates::open_by_id`].
        id: String,
        /// Its topic.
        topic: String,
    },
    /// An MDM for us (R19).
    Connection {
        /// Its identifier, for [`crate::connections::Connections::open`].
        id: String,
        /// The topic whose certificate it is to use.
        topic: String,
    },
}

/// A call that is on record and may leave.
pub struct Begun {
    /// Names it.
    pub ticket: Ticket,
    /// The code's text in the form to send.
    pub code: CodeText,
    /// The device, as it is named to Apple.
    pub identity: DeviceIdentity,
    /// The organisation's name for Apple.
    pub org_name: String,
    /// The real person for Apple.
    pub guid: String,
    /// Who makes the call.
    pub via: Via,
    /// After this moment the call must not start any more (R16): report `NotSent` instead.
    pub latest_start: Timestamp,
}

/// What became of a call.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The HTTP status, if one came.
    pub status: Option<u16>,
    /// How long Apple asked us to wait.
    pub retry_after: Option<Duration>,
    /// It was the MDM's own error, not Apple's (R19).
    pub delegate_failed: bool,
    /// Words for a person, with every code already taken out of them (R23).
    pub diagnostic: Option<String>,
}

/// What reporting a call's end led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finished {
    /// It is recorded and there is more to do: advance again.
    More,
    /// It is recorded, and with it the operation ended or waits; the lease is given back.
    Parked(StateName),
    /// The attempt had been given up. The answer is recorded on it and has raised the operation's state, or not.
    Late {
        /// The operation's state now.
        state: StateName,
    },
}

impl Operations<'_> {
    /// Decides what to do next with an operation, with everything read again (R12), and puts it on record: a call with its
    /// attempt and its audit row before it leaves (R17), an end, or a wait.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn advance(&self, lease: &mut Lease, settings: &WorkSettings) -> Result<Advance> {
        let (escrow, settings, hold, paid) = (
            self.0.clone(),
            settings.clone(),
            lease.hold.clone(),
            lease.paid,
        );
        let advance = self
            .0
            .write_minding_journal("operations.advance", async move |tx| {
                let Some(decision) = decide(tx, &hold).await? else {
                    return Ok(Advance::Lost);
                };
                if decision.step == Step::AskStatus {
                    lease::take(tx, &hold, &settings).await?;
                    return Ok(Advance::AskStatus);
                }
                let Step::Try(next) = &decision.step else {
                    return Ok(match state::apply(tx, &escrow, &decision).await? {
                        Some(state) => Advance::Parked(state),
                        // A call of this very lease is in flight: whoever advances has not finished it.
                        None => Advance::Lost,
                    });
                };
                if !paid
                    && let Pace::Until(until) = pace::take(tx, lease::PACE, settings.pace).await?
                {
                    lease::take(tx, &hold, &settings).await?;
                    return Ok(Advance::Paced { until });
                }
                begin(tx, &escrow, &settings, &hold, &decision, next).await
            })
            .await?;
        match &advance {
            Advance::Call(_) => lease.paid = false,
            Advance::Parked(_) => self.0.tell(News::Commands),
            Advance::AskStatus | Advance::Paced { .. } | Advance::Lost => {}
        }
        Ok(advance)
    }

    /// Puts Apple's status on record that an unlock asked for, answered or not: it is not asked for a second time at the same
    /// point.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn status_read(
        &self,
        lease: &Lease,
        reading: Reading,
        settings: StatusSettings,
    ) -> Result<()> {
        let (escrow, hold, serial) = (self.0.clone(), lease.hold.clone(), lease.serial().clone());
        self.0
            .db
            .write("operations.status_read", async move |tx| {
                let now = tx.now();
                let organisation = &hold.organisation;
                lock_statuses::record(tx, &escrow, organisation, &serial, &reading, settings).await?;
                tx.execute(
                    "UPDATE operations SET status_asked_at = $3 WHERE organisation = $1 AND id = $2",
                    params![organisation.as_str(), hold.operation.as_str(), now],
                )
                .await?;
                Ok(())
            })
            .await
    }

    /// Records what became of a call, on its own attempt, whatever happened to the lease meanwhile (R14).
    ///
    /// # Errors
    /// When there is no such attempt, or the database fails.
    pub async fn finish(
        &self,
        ticket: &Ticket,
        outcome: Outcome,
        answer: Answer,
    ) -> Result<Finished> {
        let (escrow, ticket) = (self.0.clone(), ticket.clone());
        let finished = self
            .0
            .db
            .write("operations.finish", async move |tx| {
                finish(tx, &escrow, &ticket, outcome, &answer).await
            })
            .await?;
        if finished != Finished::More {
            self.0.tell(News::Commands);
            self.wake();
        }
        Ok(finished)
    }
}

/// Decides, if the lease is still worth something.
async fn decide(tx: &mut Tx<'_>, hold: &Hold) -> Result<Option<Decision>> {
    let now = tx.now();
    let decision = plan::decide(tx, &hold.organisation, &hold.operation).await?;
    Ok(decision.filter(|d| d.op.is_held(hold, now)))
}

async fn begin(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    settings: &WorkSettings,
    hold: &Hold,
    decision: &Decision,
    next: &Try,
) -> Result<Advance> {
    let op = &decision.op;
    let (via, recipient) = match plan::connection_of(&next.credential) {
        None => (
            Via::Certificate {
                id: next.credential.id.clone(),
                topic: next.credential.topic.clone(),
            },
            settings.apple_host.clone(),
        ),
        Some(id) => {
            let connection = connections::by_id(tx, id)
                .await?
                .ok_or(Error::Corrupt("connections.id"))?;
            if let Some(rate) = connection.max_rate
                && let Pace::Until(until) =
                    pace::take(tx, &format!("connection:{id}"), Rate::per_second(rate)).await?
            {
                state::park(tx, decision, StateName::Queued, &Details::default(), until).await?;
                return Ok(Advance::Parked(StateName::Queued));
            }
            (
                Via::Connection {
                    id: id.to_owned(),
                    topic: next.credential.topic.clone(),
                },
                format!("{} ({})", connection.name, connection.base_url),
            )
        }
    };
    let id = tx.new_id().to_string();
    let until = lease::take(tx, hold, settings).await?;
    insert(tx, hold, decision, next, &id, &recipient).await?;
    let entry = audit::Entry::by(&state::worker(), &op.organisation, "unlock.attempt")
        .subject(op.serial.as_str())
        .reason(&op.reason)
        .detail("operation", op.id.as_str())
        .detail("attempt", id.as_str())
        .detail("code", next.code.0.as_str())
        .detail("form", next.form.as_str())
        .detail("credential", next.credential.id.as_str())
        .detail("topic", next.credential.topic.as_str())
        .detail("for", op.requester.as_str())
        .detail("recipient", recipient.as_str());
    audit::record(tx, escrow, entry).await?;

    let ticket = Ticket {
        organisation: op.organisation.clone(),
        operation: op.id.clone(),
        attempt: id,
    };
    let text = codes::open_for_attempt(tx, escrow, &op.organisation, &next.code, next.form).await;
    let code = match text {
        Ok(text) => text.and_then(|text| CodeText::new(text.as_str().to_owned())),
        Err(Error::Seal(_) | Error::Corrupt(_)) => None,
        Err(other) => return Err(other),
    };
    let Some(code) = code else {
        return unusable(tx, escrow, &ticket).await;
    };
    let organisation = organisations::by_id(tx, &op.organisation)
        .await?
        .ok_or(Error::Corrupt("operations.organisation"))?;
    Ok(Advance::Call(Box::new(Begun {
        ticket,
        code,
        identity: next.identity.clone(),
        org_name: organisation.name,
        guid: op.requester.clone(),
        via,
        latest_start: until.minus(settings.call_timeout),
    })))
}

/// The sealed code of an attempt does not open: it was changed, or its key is lost. Nothing is sent, and like a text that
/// Apple cannot read it does not stop the search (R13); what is left to say in the end is for a person.
async fn unusable(tx: &mut Tx<'_>, escrow: &Escrow, ticket: &Ticket) -> Result<Advance> {
    tx.execute(
        "UPDATE attempts SET parses = 0 WHERE organisation = $1 AND id = $2",
        params![ticket.organisation.as_str(), ticket.attempt.as_str()],
    )
    .await?;
    let answer = Answer {
        diagnostic: Some("nothing was sent: the sealed code does not open; run doctor".to_owned()),
        ..Answer::default()
    };
    Ok(
        match finish(tx, escrow, ticket, Outcome::Malformed, &answer).await? {
            Finished::Parked(state) | Finished::Late { state } => Advance::Parked(state),
            Finished::More => Advance::Paced { until: tx.now() },
        },
    )
}

async fn insert(
    tx: &mut Tx<'_>,
    hold: &Hold,
    decision: &Decision,
    next: &Try,
    id: &str,
    recipient: &str,
) -> Result<()> {
    let op = &decision.op;
    let candidate = decision
        .candidate(&next.code)
        .ok_or(Error::Corrupt("codes.id"))?;
    let identity = serde_json::to_string(&next.identity).expect("an identity is plain values");
    let position = i64::try_from(decision.attempts.len() + 1).unwrap_or(i64::MAX);
    let now = tx.now();
    tx.execute(
        "INSERT INTO attempts (organisation, id, operation, serial, position, code, code_kind, code_current, \
         code_seen_at, form, parses, uncapped, identity, identity_source, swapped, credential, topic, recipient, \
         lease_number, began_at, delegate_failed) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, 0)",
        params![
            op.organisation.as_str(),
            id,
            op.id.as_str(),
            op.serial.as_str(),
            position,
            next.code.0.as_str(),
            candidate.kind.as_str(),
            i64::from(candidate.current),
            candidate.last_seen,
            next.form.as_str(),
            i64::from(next.parses),
            i64::from(next.uncapped),
            identity,
            decision.source.as_str(),
            i64::from(next.swapped),
            next.credential.id.as_str(),
            next.credential.topic.as_str(),
            recipient,
            hold.number,
            now
        ],
    )
    .await?;
    Ok(())
}

async fn finish(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    ticket: &Ticket,
    outcome: Outcome,
    answer: &Answer,
) -> Result<Finished> {
    let row = plan::attempt(tx, &ticket.organisation, &ticket.attempt)
        .await?
        .ok_or(Error::Corrupt("attempts.id"))?;
    if row.attempt.result != AttemptResult::InFlight {
        return late(tx, escrow, ticket, &row, outcome, answer).await;
    }
    let now = tx.now();
    let retry_after = answer
        .retry_after
        .map(|d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
    tx.execute(
        "UPDATE attempts SET outcome = $3, ended_at = $4, status = $5, retry_after = $6, delegate_failed = $7, \
         diagnostic = $8 WHERE organisation = $1 AND id = $2",
        params![
            ticket.organisation.as_str(),
            ticket.attempt.as_str(),
            outcome.as_str(),
            now,
            answer.status.map(i64::from),
            retry_after,
            i64::from(answer.delegate_failed),
            short(answer.diagnostic.as_deref())
        ],
    )
    .await?;
    audit_answer(tx, escrow, ticket, &row, "unlock.answer", outcome, answer).await?;
    Ok(
        match state::settle(tx, escrow, &ticket.organisation, &ticket.operation).await? {
            Some(state) => Finished::Parked(state),
            None => Finished::More,
        },
    )
}

/// An answer to an attempt that was given up, or that had one already. It may raise, it never lowers (R14); and where another
/// call for the device began before it came, both were under way at once, which is shown (R16).
async fn late(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    ticket: &Ticket,
    row: &AttemptRow,
    outcome: Outcome,
    answer: &Answer,
) -> Result<Finished> {
    let now = tx.now();
    let recorded = match row.attempt.result {
        AttemptResult::Ended { outcome, .. } => Some(outcome),
        AttemptResult::InFlight | AttemptResult::Lost => None,
    };
    let raised = late_outcome(recorded, outcome);
    tx.execute(
        "UPDATE attempts SET late_outcome = $3, late_at = $4, outcome = $5, status = COALESCE($6, status), \
         ended_at = CASE WHEN $5 IS NULL THEN ended_at ELSE COALESCE(ended_at, $4) END, \
         diagnostic = COALESCE($7, diagnostic) WHERE organisation = $1 AND id = $2",
        params![
            ticket.organisation.as_str(),
            ticket.attempt.as_str(),
            outcome.as_str(),
            now,
            raised.map(Outcome::as_str),
            answer.status.map(i64::from),
            short(answer.diagnostic.as_deref())
        ],
    )
    .await?;
    audit_answer(
        tx,
        escrow,
        ticket,
        row,
        "unlock.late_answer",
        outcome,
        answer,
    )
    .await?;
    if recorded.is_none() {
        let this = Overlapped {
            organisation: &ticket.organisation,
            operation: &ticket.operation,
            call: &ticket.attempt,
            serial: &row.attempt.tried.identity.serial,
            began_at: row.attempt.began_at,
            action: "unlock.double_sent",
        };
        overlap::mark(tx, escrow, &this).await?;
    }

    let decision = plan::decide(tx, &ticket.organisation, &ticket.operation)
        .await?
        .ok_or(Error::Corrupt("attempts.operation"))?;
    if decision.op.ended_at.is_none() {
        // The operation goes on, and its holder decides what is next. An "unlocked" ends it.
        let state = match &decision.step {
            Step::End(End::Unlocked { .. }) => state::apply(tx, escrow, &decision).await?,
            _ => None,
        };
        return Ok(Finished::Late {
            state: state.unwrap_or(decision.op.state),
        });
    }
    let state = late_state(decision.op.state, outcome);
    if state != decision.op.state {
        raise(tx, escrow, &decision, row, state).await?;
    }
    Ok(Finished::Late { state })
}

/// A late answer raises the state of an operation that had ended.
async fn raise(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    decision: &Decision,
    row: &AttemptRow,
    state: StateName,
) -> Result<()> {
    let Operation {
        organisation,
        id,
        serial,
        state: before,
        ..
    } = &decision.op;
    let details = state::unlocked_details(decision, &row.view.code);
    tx.execute(
        "UPDATE operations SET state = $3, details = $4, version = version + 1 WHERE organisation = $1 AND id = $2",
        params![organisation.as_str(), id.as_str(), state.as_str(), state::json(&details)],
    )
    .await?;
    let entry = audit::Entry::by(&state::worker(), organisation, "unlock.end")
        .subject(serial.as_str())
        .detail("operation", id.as_str())
        .detail("before", before.as_str())
        .result(state.as_str());
    audit::record(tx, escrow, entry).await?;
    codes::mark_used(tx, organisation, &row.view.code).await?;
    locks::refresh(tx, organisation, serial).await?;
    lock_statuses::expect_not_locked(tx, organisation, serial).await?;
    state::ask_again(tx, escrow, decision).await
}

async fn audit_answer(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    ticket: &Ticket,
    row: &AttemptRow,
    action: &'static str,
    outcome: Outcome,
    answer: &Answer,
) -> Result<()> {
    let entry = audit::Entry::by(&state::worker(), &ticket.organisation, action)
        .subject(row.attempt.tried.identity.serial.as_str())
        .detail("operation", ticket.operation.as_str())
        .detail("attempt", ticket.attempt.as_str())
        .detail(
            "status",
            answer.status.map_or_else(String::new, |s| s.to_string()),
        )
        .result(outcome.as_str());
    audit::record(tx, escrow, entry).await
}

fn short(diagnostic: Option<&str>) -> Option<String> {
    diagnostic.map(|text| text.chars().take(DIAGNOSTIC).collect())
}
