//! A device removed for ever, with its codes: the one way in which anything of it is lost (R2).

use activation_lock::device::SerialNumber;
use activation_lock::time::Timestamp;

use super::Devices;
use crate::approvals::{self, Action, Guard};
use crate::coverage::{self, CoverageState};
use crate::db::{Row, Tx, params};
use crate::operations::live_of_serial;
use crate::permit::{OrganisationId, Permit, Purge};
use crate::{Escrow, Result, audit};

/// Why nothing was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurgeProblem {
    /// The organisation does not know it.
    #[error("there is no such device")]
    Unknown,
    /// An unlock or a lock of it is under way.
    #[error("an unlock or a lock of it is under way")]
    UnderWay,
    /// It may be locked, and then its codes are what unlocks it.
    #[error("it is locked, or may be: without its codes nobody but Apple can unlock it")]
    MayBeLocked,
}

/// What was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// How many codes.
    pub codes: usize,
}

/// All that is kept of a device, children first. Each takes organisation and serial number.
const OF_DEVICE: &[&str] = &[
    "DELETE FROM idempotency_keys WHERE organisation = $1 AND operation IN \
     (SELECT id FROM operations WHERE organisation = $1 AND serial = $2)",
    "DELETE FROM held_answers WHERE organisation = $1 AND epoch IN \
     (SELECT id FROM epochs WHERE organisation = $1 AND serial = $2)",
    "DELETE FROM commands WHERE organisation = $1 AND epoch IN \
     (SELECT id FROM epochs WHERE organisation = $1 AND serial = $2)",
    "DELETE FROM attempts WHERE organisation = $1 AND serial = $2",
    "DELETE FROM lock_calls WHERE organisation = $1 AND serial = $2",
    "DELETE FROM batch_lines WHERE organisation = $1 AND serial = $2",
    "DELETE FROM operations WHERE organisation = $1 AND serial = $2",
    "DELETE FROM lock_statuses WHERE organisation = $1 AND serial = $2",
    "DELETE FROM listed_devices WHERE organisation = $1 AND serial = $2",
    "DELETE FROM code_observations WHERE organisation = $1 AND serial = $2",
    "DELETE FROM codes WHERE organisation = $1 AND serial = $2",
    "DELETE FROM epochs WHERE organisation = $1 AND serial = $2",
    "DELETE FROM device_terms WHERE organisation = $1 AND serial = $2",
    "DELETE FROM devices WHERE organisation = $1 AND serial = $2",
];

impl Devices<'_> {
    /// Removes a device and all that is kept of it, its codes first of all, from the database and from the lock journal. The audit
    /// record stays; so do backups that were made before. An MDM or Apple's list that still has it makes it known anew.
    ///
    /// With `even_though_locked` it is also done where its codes may be what unlocks it.
    ///
    /// # Errors
    /// When the permit no longer holds, it takes others, or the database fails; when the lock journal cannot be written: then it is done at
    /// the next start.
    pub async fn purge(
        &self,
        permit: &Permit<Purge>,
        serial: &SerialNumber,
        reason: &str,
        even_though_locked: bool,
    ) -> Result<Result<Purged, PurgeProblem>> {
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let (wanted, reason) = (serial.clone(), reason.to_owned());
        let result = self
            .0
            .db
            .write("devices.purge", async move |tx| {
                confirmed.confirm(tx).await?;
                purge(
                    tx,
                    &escrow,
                    &confirmed,
                    &wanted,
                    &reason,
                    even_though_locked,
                )
                .await
            })
            .await;
        let done = self.0.audit_refusal(permit, result).await?;
        if done.is_ok() {
            self.0.locks().forget_purged().await?;
        }
        Ok(done)
    }
}

async fn purge(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    permit: &Permit<Purge>,
    serial: &SerialNumber,
    reason: &str,
    even_though_locked: bool,
) -> Result<Result<Purged, PurgeProblem>> {
    let organisation = permit.organisation();
    let key = || params![organisation.as_str(), serial.as_str()];
    let known = tx
        .fetch_optional(
            "SELECT coverage FROM devices WHERE organisation = $1 AND serial = $2",
            key(),
        )
        .await?;
    let Some(known) = known else {
        return Ok(Err(PurgeProblem::Unknown));
    };
    if live_of_serial(tx, serial).await?.is_some() {
        return Ok(Err(PurgeProblem::UnderWay));
    }
    let rows = tx
        .fetch_all(
            "SELECT id, lock_state FROM codes WHERE organisation = $1 AND serial = $2 ORDER BY id",
            key(),
        )
        .await?;
    let ours = |row: &Row| -> Result<bool> { Ok(row.get::<String>("lock_state")? != "none") };
    let mut may_be_locked = is_locked(tx, organisation, serial).await?;
    let mut codes = Vec::with_capacity(rows.len());
    for row in &rows {
        may_be_locked |= ours(row)?;
        codes.push(row.get::<String>("id")?);
    }
    if may_be_locked && !even_though_locked {
        return Ok(Err(PurgeProblem::MayBeLocked));
    }
    let passed = approvals::pass(tx, escrow, permit, &Guard::device(Action::Purge, serial)).await?;
    for sql in OF_DEVICE {
        tx.execute(sql, key()).await?;
    }
    let state = CoverageState::from_name(&known.get::<String>("coverage")?);
    coverage::count(tx, organisation, state, -1).await?;
    let now = tx.now();
    tx.execute(
        "INSERT INTO purges (organisation, serial, purged_at) VALUES ($1, $2, $3) \
         ON CONFLICT (organisation, serial) DO UPDATE SET purged_at = excluded.purged_at",
        params![organisation.as_str(), serial.as_str(), now],
    )
    .await?;
    let entry = permit
        .entry("device.purge")
        .subject(serial.as_str())
        .reason(reason)
        .detail("codes", codes.join(" "))
        .detail("may_be_locked", may_be_locked);
    audit::record(tx, escrow, passed.mark(entry)).await?;
    Ok(Ok(Purged { codes: codes.len() }))
}

/// Whether Apple said last that somebody's lock is on.
async fn is_locked(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<bool> {
    let row = tx
        .fetch_optional(
            "SELECT is_locked FROM lock_statuses WHERE organisation = $1 AND serial = $2 ORDER BY id DESC LIMIT 1",
            params![organisation.as_str(), serial.as_str()],
        )
        .await?;
    let locked: Option<i64> = row.map(|row| row.get("is_locked")).transpose()?.flatten();
    Ok(locked == Some(1))
}

/// When a device was removed, if it was.
pub(crate) async fn purged_at(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Option<Timestamp>> {
    let row = tx
        .fetch_optional(
            "SELECT purged_at FROM purges WHERE organisation = $1 AND serial = $2",
            params![organisation.as_str(), serial.as_str()],
        )
        .await?;
    row.map(|row| row.get("purged_at")).transpose()
}
