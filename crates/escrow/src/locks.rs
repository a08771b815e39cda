//! Locks by the organisation: wishes to turn one on, the calls made for them, and how ours on a device stands (R4, R20).
//!
//! A lock stands in the same queue as an unlock ([`crate::operations`]) and is worked on under the same lease. What to do next
//! is decided by [`activation_lock::lock::next`]. What this module promises is R4: the code of a lock is in the database and in
//! the lock journal, both on disk, before the call leaves; a call without an answer leaves its code live; and the next lock of
//! the device uses that very code.

use activation_lock::codes::CodeId;
use activation_lock::device::SerialNumber;
use activation_lock::lock::{LOCK_DEADLINE, ReviewReason};
use activation_lock::operation::StateName;

use crate::approvals::{self, Action, Guard, Passed};
use crate::db::{Tx, params};
use crate::operations::{self, Key, Kind, LiveElsewhere, Operation};
use crate::permit::{Actor, Lock, OrganisationId, Permit, Read};
use crate::{Error, Escrow, Result, audit, server_tokens};

mod call;
pub(crate) mod journal;
mod plan;
mod replay;
mod standing;
mod view;

pub use call::{Advance, Answer, Begun, Finished, Ticket, Via};
pub(crate) use plan::settle;
pub use replay::{JournalState, Replayed};
pub use standing::{LockStanding, LockedDevice};
pub(crate) use standing::{refresh, stands};
pub(crate) use view::of_device;
pub use view::{CallView, Details, LockSummary, LockView};

/// What a person asks for.
#[derive(Clone, Debug)]
pub struct NewLock {
    /// The device.
    pub serial: SerialNumber,
    /// Why, in the person's words; on the audit trail.
    pub reason: String,
    /// The real person behind it.
    pub requester: String,
    /// What the locked screen is to show.
    pub message: Option<String>,
    /// The server token to use, by name or identifier; else the one whose server lists the device.
    pub server_token: Option<String>,
    /// Why it is to be done against a guard.
    pub override_reason: Option<String>,
    /// A person waits for it: it goes before those asked for in bulk.
    pub urgent: bool,
    /// Makes asking twice harmless.
    pub idempotency: Option<Key>,
}

/// What came of asking for a lock.
#[derive(Clone, Debug)]
pub enum Enqueued {
    /// It stands in the queue.
    New(LockView),
    /// The same was asked before with the same key: it is this one.
    Same(LockView),
    /// A lock of the same principal is live: it is this one. The wish adds nothing to it; that it was made is on record.
    UnderWay(LockView),
    /// Another operation of the device is live.
    LiveElsewhere(LiveElsewhere),
    /// The key was used for another request.
    KeyReused,
    /// No server of ours lists the device: Apple would not lock it, as far as we know. A person may insist with a reason.
    NotAssigned,
    /// No such server token in this organisation.
    UnknownToken,
    /// No such device in this organisation, and no server lists it.
    UnknownDevice,
}

/// What came of asking to cancel.
#[derive(Clone, Debug)]
pub enum Cancelled {
    /// It has ended, by this or before it.
    Ended(LockView),
    /// A call is in flight: its answer wins; nothing further is tried.
    Pending(LockView),
    /// No such lock in this organisation.
    Unknown,
}

/// What came of asking to continue.
#[derive(Clone, Debug)]
pub enum Resumed {
    /// It stands in the queue again, with a new deadline, and with the same code.
    Queued(LockView),
    /// Only a lock that needs review can be continued.
    NotInReview(LockView),
    /// Another operation of the device is live.
    LiveElsewhere(LiveElsewhere),
    /// No such lock in this organisation.
    Unknown,
}

/// The verbs on locks. See [`Escrow::locks`].
pub struct Locks<'a>(pub(crate) &'a Escrow);

impl Locks<'_> {
    /// Puts a lock in the queue, with its audit row, in one transaction.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn enqueue(&self, permit: &Permit<Lock>, new: NewLock) -> Result<Enqueued> {
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let result = self
            .0
            .db
            .write("locks.enqueue", async move |tx| {
                confirmed.confirm(tx).await?;
                enqueue(tx, &escrow, &confirmed, &new).await
            })
            .await;
        let enqueued = self.0.audit_refusal(permit, result).await;
        self.0.operations().wake();
        enqueued
    }

    /// A lock with its calls; `None` when there is none of that identifier in the organisation.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, permit: &Permit<Read>, id: &str) -> Result<Option<LockView>> {
        let (organisation, id) = (permit.organisation().clone(), id.to_owned());
        self.0
            .db
            .read(async move |tx| view::view(tx, &organisation, &id).await)
            .await
    }

    /// The locks of a device, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn of_device(
        &self,
        permit: &Permit<Read>,
        serial: &SerialNumber,
        limit: u32,
    ) -> Result<Vec<LockView>> {
        let (organisation, serial) = (permit.organisation().clone(), serial.clone());
        self.0
            .db
            .read(async move |tx| {
                let mut views = Vec::new();
                for summary in of_device(tx, &organisation, &serial, limit).await? {
                    views.extend(view::view(tx, &organisation, &summary.id).await?);
                }
                Ok(views)
            })
            .await
    }

    /// Devices on which a lock of ours may be or not, for nobody saw what Apple said (R4, R20); by serial number, `limit` at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unknown(&self, permit: &Permit<Read>, limit: u32) -> Result<Vec<SerialNumber>> {
        let organisation = permit.organisation().clone();
        self.0
            .db
            .read(async move |tx| {
                let rows = tx
                    .fetch_all(
                        "SELECT serial FROM devices WHERE organisation = $1 AND lock_state <> 'none' \
                         AND lock_state = 'unknown' ORDER BY serial LIMIT $2",
                        params![organisation.as_str(), i64::from(limit)],
                    )
                    .await?;
                rows.iter()
                    .map(|row| {
                        let serial: String = row.get("serial")?;
                        serial.parse().map_err(|_| Error::Corrupt("devices.serial"))
                    })
                    .collect()
            })
            .await
    }

    /// Asks to cancel. Where nothing is in flight the lock ends at once, also one that needs review; else the answer in
    /// flight wins. How ours stands is as it was: a code that may be live stays so (R4).
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn cancel(&self, permit: &Permit<Lock>, id: &str) -> Result<Cancelled> {
        let (escrow, confirmed, id) = (self.0.clone(), permit.clone(), id.to_owned());
        let result = self
            .0
            .db
            .write("locks.cancel", async move |tx| {
                confirmed.confirm(tx).await?;
                let organisation = confirmed.organisation();
                let Some(op) = Operation::load(tx, Kind::Lock, organisation, &id).await? else {
                    return Ok(Cancelled::Unknown);
                };
                if op.ended_at.is_none() && op.cancelled_by.is_none() {
                    tx.execute(
                        "UPDATE operations SET cancelled_by = $3, version = version + 1 \
                         WHERE organisation = $1 AND id = $2",
                        params![organisation.as_str(), id.as_str(), confirmed.actor().name()],
                    )
                    .await?;
                    let entry = confirmed
                        .entry("lock.cancel")
                        .subject(op.serial.as_str())
                        .detail("operation", id.as_str());
                    audit::record(tx, &escrow, entry).await?;
                    settle(tx, &escrow, organisation, &id).await?;
                } else if op.state == StateName::NeedsReview {
                    let after = op
                        .details::<Details>()?
                        .review
                        .map_or("", ReviewReason::as_str);
                    let entry = confirmed.entry("lock.cancel").detail("after", after);
                    operations::give_up(tx, &escrow, &op, confirmed.actor(), entry).await?;
                }
                let view = known(tx, organisation, &id).await?;
                Ok(if view.is_done() {
                    Cancelled::Ended(view)
                } else {
                    Cancelled::Pending(view)
                })
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// A person continues a lock that needs review: with the same code, and a new deadline.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn resume(&self, permit: &Permit<Lock>, id: &str) -> Result<Resumed> {
        let (escrow, confirmed, id) = (self.0.clone(), permit.clone(), id.to_owned());
        let result = self
            .0
            .db
            .write("locks.resume", async move |tx| {
                confirmed.confirm(tx).await?;
                let organisation = confirmed.organisation();
                let Some(op) = Operation::load(tx, Kind::Lock, organisation, &id).await? else {
                    return Ok(Resumed::Unknown);
                };
                if op.state != StateName::NeedsReview {
                    return Ok(Resumed::NotInReview(known(tx, organisation, &id).await?));
                }
                if let Some(live) = operations::live_of_serial(tx, &op.serial).await? {
                    return Ok(Resumed::LiveElsewhere(live.elsewhere(organisation)));
                }
                let guard = Guard::device(Action::Lock, &op.serial);
                let passed = approvals::pass(tx, &escrow, &confirmed, &guard).await?;
                let now = tx.now();
                tx.execute(
                    "UPDATE operations SET state = $3, details = '{}', resumed_at = $4, deadline = $5, next_at = $4, \
                     cancelled_by = NULL, ended_at = NULL, version = version + 1 WHERE organisation = $1 AND id = $2",
                    params![
                        organisation.as_str(),
                        id.as_str(),
                        StateName::Queued.as_str(),
                        now,
                        now.plus(LOCK_DEADLINE)
                    ],
                )
                .await?;
                let after = op.details::<Details>()?.review;
                let entry = confirmed
                    .entry("lock.continue")
                    .subject(op.serial.as_str())
                    .detail("operation", id.as_str())
                    .detail("after", after.map_or("", ReviewReason::as_str));
                audit::record(tx, &escrow, passed.mark(entry)).await?;
                Ok(Resumed::Queued(known(tx, organisation, &id).await?))
            })
            .await;
        let resumed = self.0.audit_refusal(permit, result).await;
        self.0.operations().wake();
        resumed
    }
}

async fn known(tx: &mut Tx<'_>, organisation: &OrganisationId, id: &str) -> Result<LockView> {
    view::view(tx, organisation, id)
        .await?
        .ok_or(Error::Corrupt("operations.id"))
}

async fn enqueue(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    permit: &Permit<Lock>,
    new: &NewLock,
) -> Result<Enqueued> {
    let organisation = permit.organisation();
    let principal = permit.actor().principal();
    if let Some(key) = &new.idempotency {
        match operations::find_key(tx, organisation, principal, Kind::Lock.as_str(), key).await? {
            Some(operations::Found::Same { operation }) => {
                return Ok(Enqueued::Same(known(tx, organisation, &operation).await?));
            }
            Some(operations::Found::OtherBody) => return Ok(Enqueued::KeyReused),
            None => {}
        }
    }
    if let Some(live) = operations::live_of_serial(tx, &new.serial).await? {
        if !live.is_of(Kind::Lock, organisation, principal) {
            return Ok(Enqueued::LiveElsewhere(live.elsewhere(organisation)));
        }
        keep_key(tx, permit, new, &live.id).await?;
        let entry = audit::Entry::by(permit.actor(), organisation, "lock.request");
        let entry = wished(entry, &live.id, &Wish::of(new, None)).result(operations::UNDER_WAY);
        audit::record(tx, escrow, entry).await?;
        let view = known(tx, organisation, &live.id).await?;
        return Ok(Enqueued::UnderWay(view));
    }
    let refusal = async |tx: &mut Tx<'_>, result: &'static str| {
        let entry = permit
            .entry("lock.request")
            .subject(new.serial.as_str())
            .reason(&new.reason)
            .result(result);
        audit::record(tx, escrow, entry).await
    };
    let token = match &new.server_token {
        None => None,
        Some(wanted) => match server_tokens::find(tx, organisation, wanted).await? {
            Some(token) => Some(token),
            None => {
                refusal(tx, "unknown_token").await?;
                return Ok(Enqueued::UnknownToken);
            }
        },
    };
    let listed = server_tokens::listing_of(tx, organisation, &new.serial).await?;
    let is_known = !listed.is_empty()
        || tx
            .fetch_optional(
                "SELECT serial FROM devices WHERE organisation = $1 AND serial = $2",
                params![organisation.as_str(), new.serial.as_str()],
            )
            .await?
            .is_some();
    if !is_known {
        refusal(tx, "unknown_device").await?;
        return Ok(Enqueued::UnknownDevice);
    }
    let assigned = match &token {
        Some(token) => listed.contains(token),
        None => !listed.is_empty(),
    };
    if !assigned && new.override_reason.is_none() {
        refusal(tx, "not_assigned").await?;
        return Ok(Enqueued::NotAssigned);
    }
    let wish = Wish::of(new, token.as_deref());
    let guard = Guard::device(Action::Lock, &new.serial);
    let passed = approvals::pass(tx, escrow, permit, &guard).await?;
    let id = insert(tx, escrow, permit.actor(), organisation, &wish, &passed).await?;
    keep_key(tx, permit, new, &id).await?;
    Ok(Enqueued::New(known(tx, organisation, &id).await?))
}

async fn keep_key(
    tx: &mut Tx<'_>,
    permit: &Permit<Lock>,
    new: &NewLock,
    operation: &str,
) -> Result<()> {
    let Some(key) = &new.idempotency else {
        return Ok(());
    };
    let (organisation, principal) = (permit.organisation(), permit.actor().principal());
    operations::keep_key(
        tx,
        organisation,
        principal,
        Kind::Lock.as_str(),
        key,
        operation,
    )
    .await
}

/// A lock to be put in the queue, all questions about it being answered.
pub(crate) struct Wish<'a> {
    pub(crate) serial: &'a SerialNumber,
    pub(crate) reason: &'a str,
    pub(crate) requester: &'a str,
    pub(crate) message: Option<&'a str>,
    pub(crate) server_token: Option<&'a str>,
    pub(crate) override_reason: Option<&'a str>,
    pub(crate) urgent: bool,
    /// The batch of which it is a line.
    pub(crate) batch: Option<&'a str>,
}

impl<'a> Wish<'a> {
    fn of(new: &'a NewLock, server_token: Option<&'a str>) -> Self {
        Self {
            serial: &new.serial,
            reason: &new.reason,
            requester: &new.requester,
            message: new.message.as_deref(),
            server_token,
            override_reason: new.override_reason.as_deref(),
            urgent: new.urgent,
            batch: None,
        }
    }
}

/// What the audit trail says of a wish, whatever came of it.
fn wished(entry: audit::Entry, operation: &str, wish: &Wish<'_>) -> audit::Entry {
    let entry = entry
        .subject(wish.serial.as_str())
        .reason(wish.reason)
        .detail("operation", operation)
        .detail("requester", wish.requester)
        .detail("message", wish.message.is_some());
    match wish.override_reason {
        Some(why) => entry.detail("override", why),
        None => entry,
    }
}

/// Puts a lock in the queue, with its audit row. No operation of the device may be live.
pub(crate) async fn insert(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    actor: &Actor,
    organisation: &OrganisationId,
    wish: &Wish<'_>,
    passed: &Passed,
) -> Result<String> {
    let (now, id) = (tx.now(), tx.new_id().to_string());
    tx.execute(
        "INSERT INTO operations (organisation, id, kind, serial, state, details, reason, requester, principal, \
         requested_by, insists, urgent, requested_at, deadline, next_at, lease_number, double_sent, version, message, \
         server_token, override_reason, batch) \
         VALUES ($1, $2, $3, $4, $5, '{}', $6, $7, $8, $9, 0, $10, $11, $12, $11, 0, 0, 1, $13, $14, $15, $16)",
        params![
            organisation.as_str(),
            id.as_str(),
            Kind::Lock.as_str(),
            wish.serial.as_str(),
            StateName::Queued.as_str(),
            wish.reason,
            wish.requester,
            actor.principal(),
            actor.name(),
            i64::from(wish.urgent),
            now,
            now.plus(LOCK_DEADLINE),
            wish.message,
            wish.server_token,
            wish.override_reason,
            wish.batch
        ],
    )
    .await?;
    let entry = audit::Entry::by(actor, organisation, "lock.request");
    audit::record(tx, escrow, passed.mark(wished(entry, &id, wish))).await?;
    Ok(id)
}

/// The code that a lock of this device is to use, where there is one already: whatever may be live, else one of a call without an
/// answer (R4), even if Apple's status has since said that no lock is on; else one that never held a lock nor was seen by anybody.
pub(crate) async fn code_to_reuse(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Option<CodeId>> {
    let standing = stands(tx, organisation, serial).await?;
    if let Some(live) = standing
        .live
        .iter()
        .find(|l| l.confirmed)
        .or(standing.live.last())
    {
        return Ok(Some(live.code.clone()));
    }
    let row = tx
        .fetch_optional(
            "SELECT id FROM (SELECT codes.id, revealed_at, EXISTS (SELECT 1 FROM lock_calls \
             WHERE lock_calls.organisation = $1 AND lock_calls.serial = $2 AND lock_calls.code = codes.id \
             AND (outcome IS NULL OR outcome IN ('failed', 'undescribed', 'unknown', 'unexpected'))) AS may_hold \
             FROM codes WHERE organisation = $1 AND serial = $2 AND kind = 'server' AND origin = 'made' \
             AND used_at IS NULL AND NOT EXISTS (SELECT 1 FROM lock_calls WHERE lock_calls.organisation = $1 \
             AND lock_calls.serial = $2 AND lock_calls.code = codes.id AND outcome = 'locked')) AS candidates \
             WHERE may_hold OR revealed_at IS NULL ORDER BY may_hold DESC, id DESC LIMIT 1",
            params![organisation.as_str(), serial.as_str()],
        )
        .await?;
    row.map(|row| Ok(CodeId(row.get("id")?))).transpose()
}
