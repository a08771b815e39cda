//! Operations: wishes to change a lock, the queue they stand in, and for those to turn one off the calls made (R12-R19). Those
//! to turn one on are [`crate::locks`]; they stand in the same queue.
//!
//! What to do next is decided by [`activation_lock::unlock::next`] alone. This module maps rows to its values and
//! back, and keeps the promises around it: on record before it leaves (R17), one in flight a serial number over all
//! organisations (R16), a stale lease starts nothing, and a late answer is recorded and lowers nothing (R14).
//!
//! The walk: [`Operations::enqueue`], then a worker's [`Operations::claim`], [`Operations::advance`], the call,
//! [`Operations::finish`], and `advance` again until it parks or ends.

use activation_lock::codes::CodeId;
use activation_lock::device::SerialNumber;
use activation_lock::operation::StateName;
use activation_lock::time::Timestamp;
use activation_lock::unlock::{ReviewReason, UNLOCK_DEADLINE};

use crate::approvals::{self, Action, Guard};
use crate::db::{Row, Tx, params};
use crate::news::News;
use crate::permit::{Actor, OrganisationId, Permit, Read, Unlock};
use crate::{Error, Escrow, Result, audit, batches, devices, locks};

mod attempt;
mod idempotency;
mod lease;
pub(crate) mod overlap;
mod plan;
mod review;
mod state;
mod view;
mod wish;

pub use attempt::{Advance, Answer, Begun, Finished, Ticket, Via};
pub use idempotency::Key;
pub(crate) use idempotency::{Found, find as find_key, keep as keep_key};
pub use lease::{Claim, Lease, WorkSettings};
pub(crate) use lease::{Hold, PACE, take as take_lease};
pub use plan::Order;
pub use review::{InReview, Week};
pub(crate) use state::{give_up, worker};
pub(crate) use view::of_device;
use view::view;
pub use view::{AttemptView, Details, OperationView, UnlockSummary};
pub(crate) use wish::{Wish, insert};

/// Waiting operations that are looked at for [`Operations::waiting`], at most.
const MOST_LOOKED_AT: i64 = 10_000;

/// What an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To turn a lock off.
    Unlock,
    /// To turn one on.
    Lock,
}

impl Kind {
    /// The stable text kept in the database and shown in the API; also the route that idempotency keys count for.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unlock => "unlock",
            Self::Lock => "lock",
        }
    }

    pub(crate) fn from_name(text: &str) -> Result<Self> {
        match text {
            "unlock" => Ok(Self::Unlock),
            "lock" => Ok(Self::Lock),
            _ => Err(Error::Corrupt("operations.kind")),
        }
    }
}

/// What a person asks for.
#[derive(Clone, Debug)]
pub struct NewUnlock {
    /// The device.
    pub serial: SerialNumber,
    /// Why, in the person's words; on the audit trail.
    pub reason: String,
    /// The real person behind it, whom Apple is given as `guid` (contract sheet 1.5).
    pub requester: String,
    /// Try even though Apple says the device is not locked (R12).
    pub insists: bool,
    /// A person waits for it: it goes before those asked for in bulk.
    pub urgent: bool,
    /// Makes asking twice harmless.
    pub idempotency: Option<Key>,
}

/// What came of asking for an unlock.
#[derive(Clone, Debug)]
pub enum Enqueued {
    /// It stands in the queue.
    New(OperationView),
    /// The same was asked before with the same key: it is this one.
    Same(OperationView),
    /// An unlock of the same principal is live: it is this one. The wish adds nothing to it; that it was made is on record.
    UnderWay(OperationView),
    /// Another operation of the device is live: another principal's unlock, or a lock.
    LiveElsewhere(LiveElsewhere),
    /// The key was used for another request.
    KeyReused,
    /// Apple demands a product type and none is known; nothing was attempted (R15).
    NoProductType,
    /// No such device in this organisation.
    UnknownDevice,
}

/// The one operation that a device has at a time, where it is in the way of another (R16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveElsewhere {
    /// What it is for.
    pub kind: Kind,
    /// Its identifier; `None` when it is another organisation's.
    pub id: Option<String>,
}

/// What came of asking to cancel.
#[derive(Clone, Debug)]
pub enum Cancelled {
    /// It has ended, by this or before it.
    Ended(OperationView),
    /// A call is in flight: its answer wins; nothing further is tried.
    Pending(OperationView),
    /// No such unlock in this organisation.
    Unknown,
}

/// What came of asking to continue.
#[derive(Clone, Debug)]
pub enum Resumed {
    /// It stands in the queue again, with a new deadline and new counts.
    Queued(OperationView),
    /// Only an unlock that needs review can be continued.
    NotInReview(OperationView),
    /// Another operation of the device is live.
    LiveElsewhere(LiveElsewhere),
    /// Apple demands a product type and still none is known.
    NoProductType,
    /// No such unlock in this organisation.
    Unknown,
}

/// The verbs on operations. See [`Escrow::operations`].
pub struct Operations<'a>(pub(crate) &'a Escrow);

impl Operations<'_> {
    /// Puts an unlock in the queue, with its audit row, in one transaction.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn enqueue(&self, permit: &Permit<Unlock>, new: NewUnlock) -> Result<Enqueued> {
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let result = self
            .0
            .db
            .write("operations.enqueue", async move |tx| {
                confirmed.confirm(tx).await?;
                wish::enqueue(tx, &escrow, &confirmed, &new).await
            })
            .await;
        let enqueued = self.0.audit_refusal(permit, result).await;
        self.wake();
        enqueued
    }

    /// An unlock with its calls; `None` when there is none of that identifier in the organisation.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, permit: &Permit<Read>, id: &str) -> Result<Option<OperationView>> {
        let (organisation, id) = (permit.organisation().clone(), id.to_owned());
        self.0
            .db
            .read(async move |tx| view(tx, &organisation, &id).await)
            .await
    }

    /// The unlocks of a device, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn of_device(
        &self,
        permit: &Permit<Read>,
        serial: &SerialNumber,
        limit: u32,
    ) -> Result<Vec<OperationView>> {
        let (organisation, serial) = (permit.organisation().clone(), serial.clone());
        self.0
            .db
            .read(async move |tx| {
                let summaries = of_device(tx, &organisation, &serial, limit).await?;
                let mut views = Vec::with_capacity(summaries.len());
                for summary in summaries {
                    views.extend(view(tx, &organisation, &summary.id).await?);
                }
                Ok(views)
            })
            .await
    }

    /// In which order the codes of a device would be tried, if an unlock of it were asked for now (R12). It is read again before every
    /// call of one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn order(&self, permit: &Permit<Read>, serial: &SerialNumber) -> Result<Order> {
        let (organisation, serial) = (permit.organisation().clone(), serial.clone());
        self.0
            .db
            .read(async move |tx| plan::order_now(tx, &organisation, &serial).await)
            .await
    }

    /// Asks to cancel. Where nothing is in flight the unlock ends at once, also one that needs review; else the answer in
    /// flight wins (R15).
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn cancel(&self, permit: &Permit<Unlock>, id: &str) -> Result<Cancelled> {
        let (escrow, confirmed, id) = (self.0.clone(), permit.clone(), id.to_owned());
        let result = self
            .0
            .db
            .write("operations.cancel", async move |tx| {
                confirmed.confirm(tx).await?;
                let organisation = confirmed.organisation();
                let Some(op) = Operation::load(tx, Kind::Unlock, organisation, &id).await? else {
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
                        .entry("unlock.cancel")
                        .subject(op.serial.as_str())
                        .detail("operation", id.as_str());
                    audit::record(tx, &escrow, entry).await?;
                    state::settle(tx, &escrow, organisation, &id).await?;
                } else if op.state == StateName::NeedsReview {
                    let after = op
                        .details::<Details>()?
                        .review
                        .map_or("", ReviewReason::as_str);
                    let entry = confirmed.entry("unlock.cancel").detail("after", after);
                    give_up(tx, &escrow, &op, confirmed.actor(), entry).await?;
                }
                let view = view(tx, organisation, &id)
                    .await?
                    .ok_or(Error::Corrupt("operations.id"))?;
                Ok(if view.is_done() {
                    Cancelled::Ended(view)
                } else {
                    Cancelled::Pending(view)
                })
            })
            .await;
        self.0.tell(News::Commands);
        self.0.audit_refusal(permit, result).await
    }

    /// A person continues an unlock that needs review: with new counts and a new deadline (R12, R15).
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn resume(&self, permit: &Permit<Unlock>, id: &str) -> Result<Resumed> {
        let (escrow, confirmed, id) = (self.0.clone(), permit.clone(), id.to_owned());
        let result = self
            .0
            .db
            .write("operations.resume", async move |tx| {
                confirmed.confirm(tx).await?;
                let organisation = confirmed.organisation();
                let Some(op) = Operation::load(tx, Kind::Unlock, organisation, &id).await? else {
                    return Ok(Resumed::Unknown);
                };
                if op.state != StateName::NeedsReview {
                    let view = view(tx, organisation, &id).await?.ok_or(Error::Corrupt("operations.id"))?;
                    return Ok(Resumed::NotInReview(view));
                }
                if let Some(live) = live_of_serial(tx, &op.serial).await? {
                    return Ok(Resumed::LiveElsewhere(live.elsewhere(organisation)));
                }
                if devices::identity_for_unlock(tx, organisation, &op.serial).await?.is_none() {
                    return Ok(Resumed::NoProductType);
                }
                let guard = Guard::device(Action::Unlock, &op.serial);
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
                        now.plus(UNLOCK_DEADLINE)
                    ],
                )
                .await?;
                let entry = confirmed
                    .entry("unlock.continue")
                    .subject(op.serial.as_str())
                    .detail("operation", id.as_str())
                    .detail("after", op.details::<Details>()?.review.map_or("", ReviewReason::as_str));
                audit::record(tx, &escrow, passed.mark(entry)).await?;
                let view = view(tx, organisation, &id).await?.ok_or(Error::Corrupt("operations.id"))?;
                Ok(Resumed::Queued(view))
            })
            .await;
        let resumed = self.0.audit_refusal(permit, result).await;
        self.wake();
        resumed
    }

    /// Tells the workers of this process that there may be something to do now.
    pub fn wake(&self) {
        self.0.tell(News::Operations);
    }

    /// Waits until [`Self::wake`] is called in this process. A wake-up that came since the last wait counts.
    pub async fn woken(&self) {
        self.0.told(News::Operations).await;
    }

    /// After a restore or a copy of the database every live unlock and lock needs review: nothing fires by itself (R21).
    /// Gives the number of operations held.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn hold_after_restore(&self) -> Result<usize> {
        let escrow = self.0.clone();
        self.0
            .db
            .write("operations.hold_after_restore", async move |tx| {
                let now = tx.now();
                lease::free_all(tx).await?;
                // Later than the wish itself, even when both fall into one millisecond.
                tx.execute(
                    "UPDATE operations SET restored_at = CASE WHEN COALESCE(resumed_at, requested_at) < $1 THEN $1 \
                     ELSE COALESCE(resumed_at, requested_at) + 1 END WHERE ended_at IS NULL",
                    params![now],
                )
                .await?;
                let rows =
                    tx.fetch_all("SELECT organisation, id, kind FROM operations WHERE ended_at IS NULL", params![]).await?;
                for row in &rows {
                    let organisation = OrganisationId::new(row.get::<String>("organisation")?);
                    let id: String = row.get("id")?;
                    match Kind::from_name(&row.get::<String>("kind")?)? {
                        Kind::Unlock => {
                            state::settle(tx, &escrow, &organisation, &id).await?;
                        }
                        Kind::Lock => {
                            locks::settle(tx, &escrow, &organisation, &id).await?;
                        }
                    }
                }
                batches::hold_after_restore(tx).await?;
                Ok(rows.len())
            })
            .await
    }

    /// Forgets idempotency keys older than seven days. Gives how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sweep_idempotency_keys(&self) -> Result<u64> {
        self.0
            .db
            .write("operations.sweep_keys", async move |tx| {
                idempotency::sweep(tx).await
            })
            .await
    }

    /// How the queue stands with operations of one kind, for metrics.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn queue(&self, kind: Kind) -> Result<Queue> {
        self.0
            .db
            .read(async move |tx| {
                let row = tx
                    .fetch_one(
                        "SELECT COUNT(*) AS live, COUNT(lease_until) AS leased, MIN(requested_at) AS oldest \
                         FROM operations WHERE ended_at IS NULL AND kind = $1",
                        params![kind.as_str()],
                    )
                    .await?;
                Ok(Queue {
                    live: row.get("live")?,
                    leased: row.get("leased")?,
                    oldest_requested_at: row.get("oldest")?,
                    now: tx.now(),
                })
            })
            .await
    }

    /// What live operations wait for, by kind and stable word; of very many, those that are due first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn waiting(&self) -> Result<Vec<Waiting>> {
        self.0
            .db
            .read(async move |tx| {
                let rows = tx
                    .fetch_all(
                        "SELECT organisation, id, kind, details FROM operations \
                         WHERE ended_at IS NULL AND state = $1 ORDER BY urgent, next_at, id LIMIT $2",
                        params![StateName::Waiting.as_str(), MOST_LOOKED_AT],
                    )
                    .await?;
                let mut found: Vec<Waiting> = Vec::new();
                for row in rows {
                    let kind = Kind::from_name(&row.get::<String>("kind")?)?;
                    let details: serde_json::Value =
                        serde_json::from_str(&row.get::<String>("details")?)
                            .map_err(|_| Error::Corrupt("operations.details"))?;
                    let Some(why) = details["waits_for"].as_str() else {
                        continue;
                    };
                    if let Some(known) =
                        found.iter_mut().find(|one| one.kind == kind && one.why == why)
                    {
                        known.count += 1;
                        continue;
                    }
                    let last_call = match kind {
                        Kind::Unlock => {
                            "SELECT diagnostic FROM attempts WHERE organisation = $1 AND operation = $2 ORDER BY id DESC LIMIT 1"
                        }
                        Kind::Lock => {
                            "SELECT diagnostic FROM lock_calls WHERE organisation = $1 AND operation = $2 ORDER BY id DESC LIMIT 1"
                        }
                    };
                    let of = params![row.get::<String>("organisation")?, row.get::<String>("id")?];
                    let last = tx.fetch_optional(last_call, of).await?;
                    let diagnostic = match last {
                        Some(last) => last.get("diagnostic")?,
                        None => None,
                    };
                    found.push(Waiting { kind, why: why.to_owned(), count: 1, diagnostic });
                }
                Ok(found)
            })
            .await
    }
}

/// Operations that wait for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// What they are for.
    pub kind: Kind,
    /// What for: a [`activation_lock::unlock::WaitReason`] or a [`activation_lock::lock::WaitReason`], as its stable word.
    pub why: String,
    /// How many.
    pub count: u64,
    /// What went wrong at the last call of one of them, in technical words.
    pub diagnostic: Option<String>,
}

/// How the queue stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Operations that have not ended.
    pub live: i64,
    /// Those a worker holds.
    pub leased: i64,
    /// When the oldest of them was asked for.
    pub oldest_requested_at: Option<Timestamp>,
    /// The moment of this reading.
    pub now: Timestamp,
}

/// Cancels what of a batch is under way: what is not in flight ends at once.
pub(crate) async fn cancel_of_batch(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    organisation: &OrganisationId,
    batch: &str,
    by: &Actor,
) -> Result<()> {
    let rows = tx
        .fetch_all(
            "UPDATE operations SET cancelled_by = $3, version = version + 1 WHERE organisation = $1 AND batch = $2 \
             AND state IN ('queued', 'running', 'waiting') AND cancelled_by IS NULL RETURNING id, kind",
            params![organisation.as_str(), batch, by.name()],
        )
        .await?;
    for row in &rows {
        let id: String = row.get("id")?;
        match Kind::from_name(&row.get::<String>("kind")?)? {
            Kind::Unlock => state::settle(tx, escrow, organisation, &id).await?,
            Kind::Lock => locks::settle(tx, escrow, organisation, &id).await?,
        };
    }
    Ok(())
}

/// Operations that wait for a certificate, a token or a key go on now: one was added or changed.
pub(crate) async fn wake_for_credential(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
) -> Result<()> {
    let now = tx.now();
    tx.execute(
        "UPDATE operations SET next_at = $2 WHERE organisation = $1 AND ended_at IS NULL AND lease_owner IS NULL \
         AND state = 'waiting' AND next_at > $2",
        params![organisation.as_str(), now],
    )
    .await?;
    Ok(())
}

/// On the audit trail, what came of a wish whose like is under way.
pub(crate) const UNDER_WAY: &str = "under_way";

/// The live operation of a serial number, whosever it is.
pub(crate) struct Live {
    kind: Kind,
    organisation: OrganisationId,
    pub(crate) id: String,
    principal: String,
}

impl Live {
    /// Whether it is the very one that somebody asks for.
    pub(crate) fn is_of(&self, kind: Kind, organisation: &OrganisationId, principal: &str) -> bool {
        self.kind == kind && self.organisation == *organisation && self.principal == principal
    }

    /// As the organisation that asks may know it.
    pub(crate) fn elsewhere(self, organisation: &OrganisationId) -> LiveElsewhere {
        LiveElsewhere {
            kind: self.kind,
            id: (self.organisation == *organisation).then_some(self.id),
        }
    }
}

pub(crate) async fn live_of_serial(tx: &mut Tx<'_>, serial: &SerialNumber) -> Result<Option<Live>> {
    tx.fetch_optional(
        "SELECT kind, organisation, id, principal FROM operations WHERE serial = $1 AND ended_at IS NULL",
        params![serial.as_str()],
    )
    .await?
    .map(|row| {
        Ok(Live {
            kind: Kind::from_name(&row.get::<String>("kind")?)?,
            organisation: OrganisationId::new(row.get::<String>("organisation")?),
            id: row.get("id")?,
            principal: row.get("principal")?,
        })
    })
    .transpose()
}

/// One row of `operations`.
pub(crate) struct Operation {
    pub(crate) organisation: OrganisationId,
    pub(crate) id: String,
    pub(crate) serial: SerialNumber,
    pub(crate) state: StateName,
    details: String,
    pub(crate) reason: String,
    pub(crate) requester: String,
    pub(crate) principal: String,
    pub(crate) requested_by: String,
    pub(crate) insists: bool,
    pub(crate) urgent: bool,
    pub(crate) requested_at: Timestamp,
    pub(crate) resumed_at: Option<Timestamp>,
    pub(crate) deadline: Timestamp,
    pub(crate) cancelled_by: Option<String>,
    pub(crate) restored_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    lease_owner: Option<String>,
    lease_number: i64,
    lease_until: Option<Timestamp>,
    pub(crate) double_sent: bool,
    pub(crate) version: i64,
    /// Of a lock: the code whose hash is sent, once there is one.
    pub(crate) code: Option<CodeId>,
    /// Of a lock: what the screen is to show.
    pub(crate) message: Option<String>,
    /// Of a lock: the server token that was named.
    pub(crate) server_token: Option<String>,
    /// Of a lock: why it is asked for against a guard.
    pub(crate) override_reason: Option<String>,
    /// Of an unlock: when Apple's status was last asked for.
    pub(crate) status_asked_at: Option<Timestamp>,
}

impl Operation {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            organisation: OrganisationId::new(row.get::<String>("organisation")?),
            id: row.get("id")?,
            serial: row
                .get::<String>("serial")?
                .parse()
                .map_err(|_| Error::Corrupt("operations.serial"))?,
            state: row
                .get::<String>("state")?
                .parse()
                .map_err(|_| Error::Corrupt("operations.state"))?,
            details: row.get("details")?,
            reason: row.get("reason")?,
            requester: row.get("requester")?,
            principal: row.get("principal")?,
            requested_by: row.get("requested_by")?,
            insists: row.get::<bool>("insists")?,
            urgent: row.get::<bool>("urgent")?,
            requested_at: row.get("requested_at")?,
            resumed_at: row.get("resumed_at")?,
            deadline: row.get("deadline")?,
            cancelled_by: row.get("cancelled_by")?,
            restored_at: row.get("restored_at")?,
            ended_at: row.get("ended_at")?,
            lease_owner: row.get("lease_owner")?,
            lease_number: row.get("lease_number")?,
            lease_until: row.get("lease_until")?,
            double_sent: row.get::<bool>("double_sent")?,
            version: row.get("version")?,
            code: row.get::<Option<String>>("code")?.map(CodeId),
            message: row.get("message")?,
            server_token: row.get("server_token")?,
            override_reason: row.get("override_reason")?,
            status_asked_at: row.get("status_asked_at")?,
        })
    }

    /// One of a kind; `None` when there is none of that identifier.
    pub(crate) async fn load(
        tx: &mut Tx<'_>,
        kind: Kind,
        organisation: &OrganisationId,
        id: &str,
    ) -> Result<Option<Self>> {
        tx.fetch_optional(
            "SELECT organisation, id, serial, state, details, reason, requester, principal, requested_by, insists, urgent, \
             requested_at, resumed_at, deadline, cancelled_by, restored_at, ended_at, lease_owner, lease_number, lease_until, \
             double_sent, version, code, message, server_token, override_reason, status_asked_at \
             FROM operations WHERE organisation = $1 AND id = $2 AND kind = $3",
            params![organisation.as_str(), id, kind.as_str()],
        )
        .await?
        .map(|row| Self::from_row(&row))
        .transpose()
    }

    /// What its state rests on, as its kind has it.
    pub(crate) fn details<D: serde::de::DeserializeOwned>(&self) -> Result<D> {
        serde_json::from_str(&self.details).map_err(|_| Error::Corrupt("operations.details"))
    }

    /// Whether a lease on it is still worth something at a moment.
    pub(crate) fn is_held(&self, hold: &Hold, now: Timestamp) -> bool {
        self.ended_at.is_none()
            && self.lease_owner.is_some()
            && self.lease_number == hold.number
            && self.lease_until.is_some_and(|until| now < until)
    }
}
