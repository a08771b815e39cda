//! Putting a decision on record: what ends an operation, and what it waits for.

use activation_lock::asking::Trigger;
use activation_lock::codes::CodeId;
use activation_lock::operation::StateName;
use activation_lock::time::Timestamp;
use activation_lock::unlock::{AttemptResult, End, Step};

use super::plan::{self, Decision};
use super::{Details, Operation};
use crate::db::{Tx, params};
use crate::permit::{Actor, OrganisationId, Permissions};
use crate::{Escrow, Result, audit, codes, commands, lock_statuses, locks};

/// How the program itself is named on the audit trail when it carries out what others asked for.
pub(crate) fn worker() -> Actor {
    Actor::system("worker", Permissions::NONE)
}

/// Decides anew and puts an end or a wait on record. Gives the state when the operation is now ended or waits; `None` when
/// there is a call to make or one in flight.
pub(super) async fn settle(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    organisation: &OrganisationId,
    operation: &str,
) -> Result<Option<StateName>> {
    match plan::decide(tx, organisation, operation).await? {
        Some(decision) if decision.op.ended_at.is_some() => Ok(Some(decision.op.state)),
        Some(decision) => apply(tx, escrow, &decision).await,
        None => Ok(None),
    }
}

/// Puts the end or the wait of a decision on record. An operation with a call in flight stays as it is, even when a late
/// answer has decided it: whoever reports that call ends it.
pub(super) async fn apply(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    decision: &Decision,
) -> Result<Option<StateName>> {
    if decision
        .attempts
        .iter()
        .any(|row| row.attempt.result == AttemptResult::InFlight)
    {
        return Ok(None);
    }
    match &decision.step {
        Step::End(end) => {
            ended(tx, escrow, decision, end).await?;
            Ok(Some(end.state()))
        }
        Step::Wait { until, why } => {
            let details = Details {
                waits_for: Some(*why),
                until: Some(*until),
                ..Details::default()
            };
            park(tx, decision, StateName::Waiting, &details, *until).await?;
            Ok(Some(StateName::Waiting))
        }
        Step::AskStatus | Step::Await | Step::Try(_) => Ok(None),
    }
}

/// Gives the operation back to the queue until a moment.
pub(super) async fn park(
    tx: &mut Tx<'_>,
    decision: &Decision,
    state: StateName,
    details: &Details,
    until: Timestamp,
) -> Result<()> {
    tx.execute(
        "UPDATE operations SET state = $3, details = $4, next_at = $5, lease_owner = NULL, lease_until = NULL, \
         version = version + 1 WHERE organisation = $1 AND id = $2",
        params![
            decision.op.organisation.as_str(),
            decision.op.id.as_str(),
            state.as_str(),
            json(details),
            until
        ],
    )
    .await?;
    Ok(())
}

async fn ended(tx: &mut Tx<'_>, escrow: &Escrow, decision: &Decision, end: &End) -> Result<()> {
    let op = &decision.op;
    let details = match end {
        End::Unlocked { by } => unlocked_details(decision, by),
        End::NeedsReview { why, untried } => Details {
            review: Some(*why),
            untried: Some(*untried),
            ..Details::default()
        },
        End::Rejected { why } => Details {
            rejected: Some(*why),
            ..Details::default()
        },
        End::ProbablyUnlocked | End::NotLocked | End::Cancelled { .. } => Details::default(),
    };
    let now = tx.now();
    tx.execute(
        "UPDATE operations SET state = $3, details = $4, ended_at = $5, next_at = $5, lease_owner = NULL, \
         lease_until = NULL, version = version + 1 WHERE organisation = $1 AND id = $2",
        params![op.organisation.as_str(), op.id.as_str(), end.state().as_str(), json(&details), now],
    )
    .await?;
    let entry = audit::Entry::by(&worker(), &op.organisation, "unlock.end")
        .subject(op.serial.as_str())
        .detail("operation", op.id.as_str())
        .detail(
            "review",
            details
                .review
                .map_or("", activation_lock::unlock::ReviewReason::as_str),
        )
        .result(end.state().as_str());
    audit::record(tx, escrow, entry).await?;
    if let End::Unlocked { by } = end {
        codes::mark_used(tx, &op.organisation, by).await?;
        locks::refresh(tx, &op.organisation, &op.serial).await?;
    }
    if !decision.attempts.is_empty() {
        ask_again(tx, escrow, decision).await?;
    }
    if matches!(end, End::Unlocked { .. } | End::ProbablyUnlocked) {
        lock_statuses::expect_not_locked(tx, &op.organisation, &op.serial).await?;
    }
    Ok(())
}

/// Ends as cancelled what needed a person, an unlock or a lock. `entry` is the wish to, without what it is about. Nothing is in
/// flight there, and nothing else changes: what a call without an answer left unknown stays so.
pub(crate) async fn give_up(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    op: &Operation,
    by: &Actor,
    entry: audit::Entry,
) -> Result<()> {
    let now = tx.now();
    tx.execute(
        "UPDATE operations SET state = $3, details = '{}', cancelled_by = $4, ended_at = $5, next_at = $5, \
         version = version + 1 WHERE organisation = $1 AND id = $2",
        params![
            op.organisation.as_str(),
            op.id.as_str(),
            StateName::Cancelled.as_str(),
            by.name(),
            now
        ],
    )
    .await?;
    let entry = entry
        .subject(op.serial.as_str())
        .detail("operation", op.id.as_str())
        .result(StateName::Cancelled.as_str());
    audit::record(tx, escrow, entry).await
}

/// What is said of an unlock that a code turned off.
pub(super) fn unlocked_details(decision: &Decision, by: &CodeId) -> Details {
    Details {
        by: Some(by.clone()),
        by_kind: decision.kind_tried(by),
        ..Details::default()
    }
}

/// The device is asked for its code again (R8): a lock that went off, or nearly did, may come back with another.
pub(super) async fn ask_again(tx: &mut Tx<'_>, escrow: &Escrow, decision: &Decision) -> Result<()> {
    let op = &decision.op;
    commands::ask_soon(tx, escrow, &op.organisation, &op.serial, Trigger::Unlock).await?;
    Ok(())
}

pub(super) fn json(details: &Details) -> String {
    serde_json::to_string(details).expect("details are plain values")
}
