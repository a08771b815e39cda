//! Operations: wishes to turn a lock off, the queue they stand in, and the calls made for them (R12-R19).
//!
//! What to do next is decided by [`activation_lock::unlock::next`] alone. This module maps rows to its values and
//! back, and keeps the promises around it: on record before it leaves (R17), one in flight a serial number over all
//! organisations (R16), a stale lease starts nothing, and a late answer is recorded and lowers nothing (R14).
//!
//! The walk: [`Operations::enqueue`], then a worker's [`Operations::claim`], [`Operations::advance`], the call,
//! [`Operations::finish`], and `advance` again until it parks or ends.

use activation_lock::device::SerialNumber;
use activation_lock::operation::StateName;
use activation_lock::time::Timestamp;
use activation_lock::unlock::{ReviewReason, UNLOCK_DEADLINE};

use crate::db::{Row, Tx, params};
use crate::permit::{OrganisationId, Permit, Read, Unlock};
use crate::{Error, Escrow, Result, audit, devices};

mod attempt;
mod idempotency;
mod lease;
mod plan;
mod state;
mod view;

pub use attempt::{Advance, Answer, Begun, Finished, Ticket, Via};
pub use idempotency::Key;
pub use lease::{Claim, Lease, WorkSettings};
pub(crate) use view::of_device;
use view::view;
pub use view::{AttemptView, Details, OperationView, UnlockSummary};

/// The kind of operation that turns a lock off.
const UNLOCK: &str = "unlock";
/// The route that idempotency keys of unlocks count for.
const UNLOCK_ROUTE: &str = "unlock";

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
    /// The same was asked before with the same key, or by the same principal with an unlock that is still live: it is
    /// this one.
    Same(OperationView),
    /// Another principal's unlock of the device is live.
    LiveElsewhere {
        /// Its identifier; `None` when it is another organisation's.
        id: Option<String>,
    },
    /// The key was used for another request.
    KeyReused,
    /// Apple demands a product type and none is known; nothing was attempted (R15).
    NoProductType,
    /// No such device in this organisation.
    UnknownDevice,
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
    /// Another unlock of the device is live.
    LiveElsewhere {
        /// Its identifier; `None` when it is another organisation's.
        id: Option<String>,
    },
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
                enqueue(tx, &escrow, &confirmed, &new).await
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

    /// Asks to cancel. Where nothing is in flight the unlock ends at once; else the answer in flight wins (R15).
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
                let Some(op) = Operation::load(tx, organisation, &id).await? else {
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
        self.0.wake_courier();
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
                let Some(op) = Operation::load(tx, organisation, &id).await? else {
                    return Ok(Resumed::Unknown);
                };
                if op.state != StateName::NeedsReview {
                    let view = view(tx, organisation, &id).await?.ok_or(Error::Corrupt("operations.id"))?;
                    return Ok(Resumed::NotInReview(view));
                }
                if let Some(live) = live_of_serial(tx, &op.serial).await? {
                    return Ok(Resumed::LiveElsewhere { id: live.id_for(organisation) });
                }
                if devices::identity_for_unlock(tx, organisation, &op.serial).await?.is_none() {
                    return Ok(Resumed::NoProductType);
                }
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
                    .detail("after", op.details.review.map_or("", ReviewReason::as_str));
                audit::record(tx, &escrow, entry).await?;
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
        self.0.operations_wake().notify_waiters();
        self.0.operations_wake().notify_one();
    }

    /// Waits until [`Self::wake`] is called in this process. A wake-up that came since the last wait counts.
    pub async fn woken(&self) {
        self.0.operations_wake().notified().await;
    }

    /// After a restore or a copy of the database every live unlock needs review: nothing fires by itself (R21). Gives
    /// the number of unlocks held.
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
                    tx.fetch_all("SELECT organisation, id FROM operations WHERE ended_at IS NULL", params![]).await?;
                for row in &rows {
                    let organisation = OrganisationId::new(row.get::<String>("organisation")?);
                    state::settle(tx, &escrow, &organisation, &row.get::<String>("id")?).await?;
                }
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

    /// How the queue stands, for metrics.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn queue(&self) -> Result<Queue> {
        self.0
            .db
            .read(async move |tx| {
                let row = tx
                    .fetch_one(
                        "SELECT COUNT(*) AS live, COUNT(lease_until) AS leased, MIN(requested_at) AS oldest \
                         FROM operations WHERE ended_at IS NULL",
                        params![],
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
}

/// How the queue stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Unlocks that have not ended.
    pub live: i64,
    /// Those a worker holds.
    pub leased: i64,
    /// When the oldest of them was asked for.
    pub oldest_requested_at: Option<Timestamp>,
    /// The moment of this reading.
    pub now: Timestamp,
}

async fn enqueue(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    permit: &Permit<Unlock>,
    new: &NewUnlock,
) -> Result<Enqueued> {
    let organisation = permit.organisation();
    let principal = permit.actor().principal();
    if let Some(key) = &new.idempotency {
        match idempotency::find(tx, organisation, principal, UNLOCK_ROUTE, key).await? {
            Some(idempotency::Found::Same { operation }) => {
                let view = view(tx, organisation, &operation)
                    .await?
                    .ok_or(Error::Corrupt("idempotency_keys.operation"))?;
                return Ok(Enqueued::Same(view));
            }
            Some(idempotency::Found::OtherBody) => return Ok(Enqueued::KeyReused),
            None => {}
        }
    }
    if let Some(live) = live_of_serial(tx, &new.serial).await? {
        if live.organisation != *organisation || live.principal != principal {
            return Ok(Enqueued::LiveElsewhere {
                id: live.id_for(organisation),
            });
        }
        if let Some(key) = &new.idempotency {
            idempotency::keep(tx, organisation, principal, UNLOCK_ROUTE, key, &live.id).await?;
        }
        let view = view(tx, organisation, &live.id)
            .await?
            .ok_or(Error::Corrupt("operations.id"))?;
        return Ok(Enqueued::Same(view));
    }
    let entry = permit
        .entry("unlock.request")
        .subject(new.serial.as_str())
        .reason(&new.reason);
    if devices::identity_for_unlock(tx, organisation, &new.serial)
        .await?
        .is_none()
    {
        let known = tx
            .fetch_optional(
                "SELECT serial FROM devices WHERE organisation = $1 AND serial = $2",
                params![organisation.as_str(), new.serial.as_str()],
            )
            .await?
            .is_some();
        let entry = entry.result(if known {
            "no_product_type"
        } else {
            "unknown_device"
        });
        audit::record(tx, escrow, entry).await?;
        return Ok(if known {
            Enqueued::NoProductType
        } else {
            Enqueued::UnknownDevice
        });
    }
    let (now, id) = (tx.now(), tx.new_id().to_string());
    tx.execute(
        "INSERT INTO operations (organisation, id, kind, serial, state, details, reason, requester, principal, \
         requested_by, insists, urgent, requested_at, deadline, next_at, lease_number, double_sent, version) \
         VALUES ($1, $2, $3, $4, $5, '{}', $6, $7, $8, $9, $10, $11, $12, $13, $12, 0, 0, 1)",
        params![
            organisation.as_str(),
            id.as_str(),
            UNLOCK,
            new.serial.as_str(),
            StateName::Queued.as_str(),
            new.reason.as_str(),
            new.requester.as_str(),
            principal,
            permit.actor().name(),
            i64::from(new.insists),
            i64::from(new.urgent),
            now,
            now.plus(UNLOCK_DEADLINE)
        ],
    )
    .await?;
    if let Some(key) = &new.idempotency {
        idempotency::keep(tx, organisation, principal, UNLOCK_ROUTE, key, &id).await?;
    }
    let entry = entry
        .detail("operation", id.as_str())
        .detail("requester", new.requester.as_str());
    audit::record(tx, escrow, entry).await?;
    let view = view(tx, organisation, &id)
        .await?
        .ok_or(Error::Corrupt("operations.id"))?;
    Ok(Enqueued::New(view))
}

/// Unlocks that wait for a certificate or a key go on now: one was added or changed.
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

/// The live operation of a serial number, whosever it is.
struct Live {
    organisation: OrganisationId,
    id: String,
    principal: String,
}

impl Live {
    /// Its identifier, where the organisation that asks may know it.
    fn id_for(self, organisation: &OrganisationId) -> Option<String> {
        (self.organisation == *organisation).then_some(self.id)
    }
}

async fn live_of_serial(tx: &mut Tx<'_>, serial: &SerialNumber) -> Result<Option<Live>> {
    tx.fetch_optional(
        "SELECT organisation, id, principal FROM operations WHERE serial = $1 AND ended_at IS NULL",
        params![serial.as_str()],
    )
    .await?
    .map(|row| {
        Ok(Live {
            organisation: OrganisationId::new(row.get::<String>("organisation")?),
            id: row.get("id")?,
            principal: row.get("principal")?,
        })
    })
    .transpose()
}

/// One row of `operations`.
struct Operation {
    organisation: OrganisationId,
    id: String,
    serial: SerialNumber,
    state: StateName,
    details: Details,
    reason: String,
    requester: String,
    principal: String,
    requested_by: String,
    insists: bool,
    urgent: bool,
    requested_at: Timestamp,
    resumed_at: Option<Timestamp>,
    deadline: Timestamp,
    cancelled_by: Option<String>,
    restored_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    lease_owner: Option<String>,
    lease_number: i64,
    lease_until: Option<Timestamp>,
    double_sent: bool,
    version: i64,
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
            details: serde_json::from_str(&row.get::<String>("details")?)
                .map_err(|_| Error::Corrupt("operations.details"))?,
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
        })
    }

    async fn load(
        tx: &mut Tx<'_>,
        organisation: &OrganisationId,
        id: &str,
    ) -> Result<Option<Self>> {
        tx.fetch_optional(
            "SELECT organisation, id, serial, state, details, reason, requester, principal, requested_by, \
             insists, urgent, requested_at, resumed_at, deadline, cancelled_by, restored_at, ended_at, lease_owner, lease_number, \
             lease_until, double_sent, version FROM operations WHERE organisation = $1 AND id = $2",
            params![organisation.as_str(), id],
        )
        .await?
        .map(|row| Self::from_row(&row))
        .transpose()
    }
}
