//! Wishes to have a lock turned off, and how they come into the queue.

use activation_lock::device::SerialNumber;
use activation_lock::operation::StateName;
use activation_lock::unlock::UNLOCK_DEADLINE;

use super::{Enqueued, Kind, NewUnlock, UNDER_WAY, idempotency, live_of_serial, view};
use crate::approvals::{self, Action, Guard, Passed};
use crate::db::{Tx, params};
use crate::permit::{Actor, OrganisationId, Permit, Unlock};
use crate::{Error, Escrow, Result, audit, devices};

/// An unlock to be put in the queue, all questions about it being answered.
pub(crate) struct Wish<'a> {
    pub(crate) serial: &'a SerialNumber,
    pub(crate) reason: &'a str,
    pub(crate) requester: &'a str,
    pub(crate) insists: bool,
    pub(crate) urgent: bool,
    /// The batch of which it is a line.
    pub(crate) batch: Option<&'a str>,
}

/// Puts an unlock in the queue, with its audit row. No operation of the device may be live.
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
         requested_by, insists, urgent, requested_at, deadline, next_at, lease_number, double_sent, version, batch) \
         VALUES ($1, $2, $3, $4, $5, '{}', $6, $7, $8, $9, $10, $11, $12, $13, $12, 0, 0, 1, $14)",
        params![
            organisation.as_str(),
            id.as_str(),
            Kind::Unlock.as_str(),
            wish.serial.as_str(),
            StateName::Queued.as_str(),
            wish.reason,
            wish.requester,
            actor.principal(),
            actor.name(),
            i64::from(wish.insists),
            i64::from(wish.urgent),
            now,
            now.plus(UNLOCK_DEADLINE),
            wish.batch
        ],
    )
    .await?;
    let entry = audit::Entry::by(actor, organisation, "unlock.request")
        .subject(wish.serial.as_str())
        .reason(wish.reason)
        .detail("operation", id.as_str())
        .detail("requester", wish.requester);
    audit::record(tx, escrow, passed.mark(entry)).await?;
    Ok(id)
}

pub(super) async fn enqueue(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    permit: &Permit<Unlock>,
    new: &NewUnlock,
) -> Result<Enqueued> {
    let organisation = permit.organisation();
    let principal = permit.actor().principal();
    if let Some(key) = &new.idempotency {
        match idempotency::find(tx, organisation, principal, Kind::Unlock.as_str(), key).await? {
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
    let entry = permit
        .entry("unlock.request")
        .subject(new.serial.as_str())
        .reason(&new.reason);
    if let Some(live) = live_of_serial(tx, &new.serial).await? {
        if !live.is_of(Kind::Unlock, organisation, principal) {
            return Ok(Enqueued::LiveElsewhere(live.elsewhere(organisation)));
        }
        if let Some(key) = &new.idempotency {
            let route = Kind::Unlock.as_str();
            idempotency::keep(tx, organisation, principal, route, key, &live.id).await?;
        }
        let entry = entry
            .detail("operation", live.id.as_str())
            .detail("requester", new.requester.as_str())
            .result(UNDER_WAY);
        audit::record(tx, escrow, entry).await?;
        let view = view(tx, organisation, &live.id)
            .await?
            .ok_or(Error::Corrupt("operations.id"))?;
        return Ok(Enqueued::UnderWay(view));
    }
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
    let guard = Guard::device(Action::Unlock, &new.serial);
    let passed = approvals::pass(tx, escrow, permit, &guard).await?;
    let wish = Wish {
        serial: &new.serial,
        reason: &new.reason,
        requester: &new.requester,
        insists: new.insists,
        urgent: new.urgent,
        batch: None,
    };
    let id = insert(tx, escrow, permit.actor(), organisation, &wish, &passed).await?;
    if let Some(key) = &new.idempotency {
        let route = Kind::Unlock.as_str();
        idempotency::keep(tx, organisation, principal, route, key, &id).await?;
    }
    let view = view(tx, organisation, &id)
        .await?
        .ok_or(Error::Corrupt("operations.id"))?;
    Ok(Enqueued::New(view))
}
