//! Who works on an operation, and for how long. A lease is a row with a time, not a lock: it is worth nothing once its
//! time is over or its number is no longer the newest.

use std::time::Duration;

use activation_lock::device::SerialNumber;
use activation_lock::operation::StateName;
use activation_lock::time::Timestamp;

use super::{Kind, Operations};
use crate::db::{Row, Tx, params};
use crate::pace::{self, Pace, Rate};
use crate::permit::OrganisationId;
use crate::{Error, Result};

/// The row of `pace` that all calls for unlocks share.
pub(crate) const PACE: &str = "unlock";
/// By how much a lease outlasts the whole call's time-out (R16).
const MARGIN: Duration = Duration::from_secs(30);

/// How workers work.
#[derive(Clone, Debug)]
pub struct WorkSettings {
    /// Names this process; another one after every start.
    pub owner: String,
    /// The time-out of a whole call, to Apple or to an MDM.
    pub call_timeout: Duration,
    /// Operations worked on at once over all processes, at least 2: one place is always left for an urgent one.
    pub in_flight: u32,
    /// Calls a second over all processes.
    pub pace: Rate,
    /// The host of Apple's unlock service, as the audit trail names the recipient (R17).
    pub apple_host: String,
    /// The host of Apple's enrolment service, likewise.
    pub enrolment_host: String,
}

impl WorkSettings {
    /// How long a lease is given for.
    #[must_use]
    pub fn lease_length(&self) -> Duration {
        self.call_timeout + MARGIN
    }
}

/// The right to work on one operation. It cannot be copied, and [`Operations::advance`] renews it.
#[derive(Debug)]
pub struct Lease {
    pub(crate) hold: Hold,
    kind: Kind,
    serial: SerialNumber,
    urgent: bool,
    /// The token of the pace row taken with the claim is not used up yet.
    pub(crate) paid: bool,
}

/// Which operation, and which of its leases: a lower number than the row's is a lost one.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) organisation: OrganisationId,
    pub(crate) operation: String,
    pub(crate) number: i64,
}

impl Lease {
    /// The organisation.
    #[must_use]
    pub fn organisation(&self) -> &OrganisationId {
        &self.hold.organisation
    }

    /// The operation's identifier.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.hold.operation
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The device.
    #[must_use]
    pub fn serial(&self) -> &SerialNumber {
        &self.serial
    }

    /// Whether it is an urgent one.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.urgent
    }
}

/// What there is to do.
#[derive(Debug)]
pub enum Claim {
    /// This operation.
    Lease(Lease),
    /// Nothing before that moment, unless something is enqueued; `None` when nothing is waiting at all.
    Nothing {
        /// When to look again.
        look_again_at: Option<Timestamp>,
    },
}

impl Operations<'_> {
    /// Takes the operation that is due first, the urgent ones before all others, if there is room for one more at work
    /// and the pace allows a call.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim(&self, settings: &WorkSettings) -> Result<Claim> {
        let settings = settings.clone();
        self.0
            .db
            .write("operations.claim", async move |tx| {
                claim(tx, &settings).await
            })
            .await
    }

    /// Gives an operation back, to be taken again at a moment; for a worker that stops. A call that is in flight
    /// keeps the operation: it is taken up when the lease has run out. False when the lease had been lost.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release(&self, lease: Lease, next_at: Option<Timestamp>) -> Result<bool> {
        let hold = lease.hold;
        let released = self
            .0
            .db
            .write("operations.release", async move |tx| {
                let next_at = next_at.unwrap_or(tx.now());
                let released = tx
                    .execute(
                        "UPDATE operations SET state = $4, details = '{}', next_at = $5, lease_owner = NULL, \
                         lease_until = NULL, version = version + 1 \
                         WHERE organisation = $1 AND id = $2 AND lease_number = $3 AND lease_owner IS NOT NULL \
                         AND ended_at IS NULL AND NOT EXISTS (SELECT 1 FROM attempts \
                         WHERE attempts.organisation = $1 AND attempts.operation = $2 \
                         AND attempts.ended_at IS NULL AND attempts.lost_at IS NULL) \
                         AND NOT EXISTS (SELECT 1 FROM lock_calls \
                         WHERE lock_calls.organisation = $1 AND lock_calls.operation = $2 \
                         AND lock_calls.ended_at IS NULL AND lock_calls.lost_at IS NULL)",
                        params![
                            hold.organisation.as_str(),
                            hold.operation.as_str(),
                            hold.number,
                            StateName::Queued.as_str(),
                            next_at
                        ],
                    )
                    .await?;
                Ok(released == 1)
            })
            .await?;
        self.wake();
        Ok(released)
    }

    /// Frees what earlier processes held, for a database that only one process uses: whoever held a lease is dead. Their
    /// calls without an answer may have worked (R14). To be called once, before the first claim. Gives how many
    /// operations were freed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn free_leases_of_earlier_incarnations(&self) -> Result<u64> {
        self.0
            .db
            .write("operations.free_leases", async move |tx| free_all(tx).await)
            .await
    }
}

pub(super) async fn free_all(tx: &mut Tx<'_>) -> Result<u64> {
    let now = tx.now();
    tx.execute(
        "UPDATE attempts SET lost_at = $1 WHERE ended_at IS NULL AND lost_at IS NULL",
        params![now],
    )
    .await?;
    tx.execute(
        "UPDATE lock_calls SET lost_at = $1 WHERE ended_at IS NULL AND lost_at IS NULL",
        params![now],
    )
    .await?;
    tx.execute(
        "UPDATE operations SET state = $2, details = '{}', next_at = $1, lease_owner = NULL, lease_until = NULL, \
         version = version + 1 WHERE ended_at IS NULL AND lease_owner IS NOT NULL",
        params![now, StateName::Queued.as_str()],
    )
    .await
}

async fn claim(tx: &mut Tx<'_>, settings: &WorkSettings) -> Result<Claim> {
    let now = tx.now();
    let busy = tx
        .fetch_one(
            "SELECT COUNT(*) AS leases, MIN(lease_until) AS first_end FROM operations WHERE lease_until > $1",
            params![now],
        )
        .await?;
    let leases: i64 = busy.get("leases")?;
    let first_end: Option<Timestamp> = busy.get("first_end")?;
    let limit = i64::from(settings.in_flight.max(2));
    if leases >= limit {
        return Ok(Claim::Nothing {
            look_again_at: first_end,
        });
    }
    // One place is always left for an urgent one.
    let lanes: &[bool] = if leases < limit - 1 {
        &[true, false]
    } else {
        &[true]
    };
    let Some(due) = first_due(tx, lanes).await? else {
        let room = first_end.filter(|_| lanes.len() == 1);
        let next = next_due(tx).await?;
        return Ok(Claim::Nothing {
            look_again_at: next.into_iter().chain(room).min(),
        });
    };
    if let Pace::Until(until) = pace::take(tx, PACE, settings.pace).await? {
        return Ok(Claim::Nothing {
            look_again_at: Some(until),
        });
    }
    let lease = Lease {
        hold: Hold {
            organisation: OrganisationId::new(due.get::<String>("organisation")?),
            operation: due.get("id")?,
            number: due.get::<i64>("lease_number")? + 1,
        },
        kind: Kind::from_name(&due.get::<String>("kind")?)?,
        serial: due
            .get::<String>("serial")?
            .parse()
            .map_err(|_| Error::Corrupt("operations.serial"))?,
        urgent: due.get("urgent")?,
        paid: true,
    };
    // Whoever held it before has lost it, and a call of theirs without an answer may have worked (R14).
    let lost = match lease.kind {
        Kind::Unlock => {
            "UPDATE attempts SET lost_at = $3 WHERE organisation = $1 AND operation = $2 AND ended_at IS NULL \
             AND lost_at IS NULL"
        }
        Kind::Lock => {
            "UPDATE lock_calls SET lost_at = $3 WHERE organisation = $1 AND operation = $2 AND ended_at IS NULL \
             AND lost_at IS NULL"
        }
    };
    tx.execute(
        lost,
        params![
            lease.hold.organisation.as_str(),
            lease.hold.operation.as_str(),
            now
        ],
    )
    .await?;
    take(tx, &lease.hold, settings).await?;
    Ok(Claim::Lease(lease))
}

/// The operation due first in the first lane that has one.
async fn first_due(tx: &mut Tx<'_>, lanes: &[bool]) -> Result<Option<Row>> {
    let now = tx.now();
    for &urgent in lanes {
        let due = tx
            .fetch_optional(
                "SELECT organisation, id, kind, serial, urgent, lease_number FROM operations \
                 WHERE ended_at IS NULL AND urgent = $1 AND next_at <= $2 ORDER BY next_at, id LIMIT 1",
                params![urgent, now],
            )
            .await?;
        if due.is_some() {
            return Ok(due);
        }
    }
    Ok(None)
}

/// When the next operation becomes due, or its lease runs out.
async fn next_due(tx: &mut Tx<'_>) -> Result<Option<Timestamp>> {
    let now = tx.now();
    let mut next = None;
    for urgent in [true, false] {
        let row = tx
            .fetch_optional(
                "SELECT next_at FROM operations WHERE ended_at IS NULL AND urgent = $1 AND next_at > $2 \
                 ORDER BY next_at, id LIMIT 1",
                params![urgent, now],
            )
            .await?;
        let at: Option<Timestamp> = row.map(|row| row.get("next_at")).transpose()?;
        next = next.into_iter().chain(at).min();
    }
    Ok(next)
}

/// Writes the lease, with its full length from now on. Gives its end.
pub(crate) async fn take(
    tx: &mut Tx<'_>,
    hold: &Hold,
    settings: &WorkSettings,
) -> Result<Timestamp> {
    let until = tx.now().plus(settings.lease_length());
    // The moment of the next look is the lease's end: one index finds both what is due and what was left behind.
    tx.execute(
        "UPDATE operations SET state = $4, details = '{}', lease_owner = $5, lease_number = $3, lease_until = $6, \
         next_at = $6, version = version + 1 WHERE organisation = $1 AND id = $2",
        params![
            hold.organisation.as_str(),
            hold.operation.as_str(),
            hold.number,
            StateName::Running.as_str(),
            settings.owner.as_str(),
            until
        ],
    )
    .await?;
    Ok(until)
}
