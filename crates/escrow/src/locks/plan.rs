//! From rows to the values that the decision is made on, and the decision on record.

use activation_lock::lock::{self, Call, End, OurLock, Step};
use activation_lock::operation::{Backoff, StateName};
use activation_lock::time::Timestamp;

use super::standing;
use super::view::Details;
use crate::db::{Row, Tx, params};
use crate::operations::{Kind, Operation, worker};
use crate::permit::OrganisationId;
use crate::server_tokens::{self, Usable};
use crate::{Escrow, Result, audit, lock_statuses};

/// A lock, all that bears on it, and what is to be done now.
pub(super) struct Decision {
    pub(super) op: Operation,
    pub(super) calls: Vec<Call>,
    /// What can authenticate the next call.
    pub(super) token: Option<Usable>,
    pub(super) step: Step,
}

impl Decision {
    /// How many calls were made.
    pub(super) fn position(&self) -> i64 {
        i64::try_from(self.calls.len() + 1).unwrap_or(i64::MAX)
    }
}

fn call(row: &Row) -> Result<Call> {
    let ended_at: Option<Timestamp> = row.get("ended_at")?;
    let lost_at: Option<Timestamp> = row.get("lost_at")?;
    Ok(Call {
        code: activation_lock::codes::CodeId(row.get("code")?),
        credential: row.get("credential")?,
        began_at: row.get("began_at")?,
        ended_at: ended_at.or(lost_at),
        result: standing::result(row)?,
    })
}

/// Reads everything again and decides. `None` when there is no such lock.
pub(super) async fn decide(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    operation: &str,
) -> Result<Option<Decision>> {
    let Some(op) = Operation::load(tx, Kind::Lock, organisation, operation).await? else {
        return Ok(None);
    };
    let calls = tx
        .fetch_all(
            "SELECT code, credential, began_at, ended_at, lost_at, outcome, retry_after FROM lock_calls \
             WHERE organisation = $1 AND operation = $2 ORDER BY position",
            params![organisation.as_str(), operation],
        )
        .await?
        .iter()
        .map(call)
        .collect::<Result<Vec<_>>>()?;
    let token = server_tokens::for_lock(tx, &op).await?;
    let standing = standing::stands(tx, organisation, &op.serial).await?;
    let wish = lock::Lock {
        requested_at: op.requested_at,
        resumed_at: op.resumed_at,
        deadline: op.deadline,
        cancelled_by: op.cancelled_by.clone(),
        restored_at: op.restored_at,
        calls: calls.clone(),
        credential: token.as_ref().map(Usable::credential),
        ours: standing.state,
        backoff: Backoff::default(),
    };
    let step = lock::next(&wish, tx.now());
    Ok(Some(Decision {
        op,
        calls,
        token,
        step,
    }))
}

/// Decides anew and puts an end or a wait on record. Gives the state when the lock is now ended or waits; `None` when there is
/// a call to make or one in flight.
pub(crate) async fn settle(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    organisation: &OrganisationId,
    operation: &str,
) -> Result<Option<StateName>> {
    match decide(tx, organisation, operation).await? {
        Some(decision) if decision.op.ended_at.is_some() => Ok(Some(decision.op.state)),
        Some(decision) => apply(tx, escrow, &decision).await,
        None => Ok(None),
    }
}

/// Puts the end or the wait of a decision on record. A lock with a call in flight stays as it is: whoever reports that call
/// ends it.
pub(super) async fn apply(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    decision: &Decision,
) -> Result<Option<StateName>> {
    let in_flight = |c: &Call| c.result == lock::CallResult::InFlight;
    if decision.calls.iter().any(in_flight) {
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
        Step::Call | Step::Await => Ok(None),
    }
}

/// Gives the lock back to the queue until a moment.
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
            details.to_json(),
            until
        ],
    )
    .await?;
    Ok(())
}

async fn ended(tx: &mut Tx<'_>, escrow: &Escrow, decision: &Decision, end: &End) -> Result<()> {
    let op = &decision.op;
    let details = Details::of(end);
    let now = tx.now();
    tx.execute(
        "UPDATE operations SET state = $3, details = $4, ended_at = $5, next_at = $5, lease_owner = NULL, \
         lease_until = NULL, version = version + 1 WHERE organisation = $1 AND id = $2",
        params![op.organisation.as_str(), op.id.as_str(), end.state().as_str(), details.to_json(), now],
    )
    .await?;
    let why = match end {
        End::NeedsReview { why } => why.as_str(),
        End::Refused { why } => why.as_str(),
        End::AlreadyLocked { ours } => ours.as_str(),
        End::Locked | End::Cancelled { .. } => "",
    };
    let entry = audit::Entry::by(&worker(), &op.organisation, "lock.end")
        .subject(op.serial.as_str())
        .detail("operation", op.id.as_str())
        .detail("why", why)
        .result(end.state().as_str());
    audit::record(tx, escrow, entry).await?;
    if decision.calls.is_empty() {
        return Ok(());
    }
    let standing = standing::stands(tx, &op.organisation, &op.serial).await?;
    if matches!(
        standing.state,
        OurLock::Confirmed | OurLock::Unknown | OurLock::SomeoneElses
    ) {
        lock_statuses::expect_locked(tx, &op.organisation, &op.serial).await?;
    }
    Ok(())
}
