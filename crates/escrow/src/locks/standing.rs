//! How our lock on a device stands, from the rows that bear on it (R20), kept beside the device for lists and for the order
//! of candidates.

use std::time::Duration;

use activation_lock::codes::CodeId;
use activation_lock::device::SerialNumber;
use activation_lock::lock::{CallResult, Event, Evidence, LockOutcome, OurLock, Standing, What};
use activation_lock::time::Timestamp;

use crate::db::{Row, Tx, params};
use crate::permit::{OrganisationId, Permit, Read};
use crate::{Error, Result, lock_statuses};

use super::Locks;

/// How our lock on a device stands, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockStanding {
    /// The state.
    pub state: OurLock,
    /// What it rests on.
    pub evidence: Evidence,
    /// Since when; `None` where nothing is on record.
    pub at: Option<Timestamp>,
}

impl LockStanding {
    /// From the columns `lock_state`, `lock_evidence` and `lock_at` of a device.
    pub(crate) fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            state: row
                .get::<String>("lock_state")?
                .parse()
                .map_err(|_| Error::Corrupt("devices.lock_state"))?,
            evidence: row
                .get::<String>("lock_evidence")?
                .parse()
                .map_err(|_| Error::Corrupt("devices.lock_evidence"))?,
            at: row.get("lock_at")?,
        })
    }

    /// Whether a lock is on, or may be: what would strand it is warned about (T29).
    #[must_use]
    pub fn may_be_on(&self) -> bool {
        self.state != OurLock::None
    }
}

/// A device with a lock that is on or may be.
#[derive(Clone, Debug)]
pub struct LockedDevice {
    /// The device.
    pub serial: SerialNumber,
    /// How our lock stands.
    pub standing: LockStanding,
}

impl Locks<'_> {
    /// The devices of an organisation with a lock that is on or may be, by serial number, after the one given; at most `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn standing(
        &self,
        permit: &Permit<Read>,
        after: Option<&SerialNumber>,
        limit: u32,
    ) -> Result<Vec<LockedDevice>> {
        let organisation = permit.organisation().clone();
        let after = after.map_or_else(String::new, ToString::to_string);
        self.0
            .db
            .read(async move |tx| {
                tx.fetch_all(
                    "SELECT serial, lock_state, lock_evidence, lock_at FROM devices \
                     WHERE organisation = $1 AND lock_state <> 'none' AND serial > $2 ORDER BY serial LIMIT $3",
                    params![organisation.as_str(), after.as_str(), limit],
                )
                .await?
                .iter()
                .map(|row| {
                    Ok(LockedDevice {
                        serial: row
                            .get::<String>("serial")?
                            .parse()
                            .map_err(|_| Error::Corrupt("devices.serial"))?,
                        standing: LockStanding::from_row(row)?,
                    })
                })
                .collect()
            })
            .await
    }
}

/// How a call stands, from the columns of `lock_calls`.
pub(super) fn result(row: &Row) -> Result<CallResult> {
    let outcome: Option<String> = row.get("outcome")?;
    let outcome: Option<LockOutcome> = outcome
        .map(|o| o.parse())
        .transpose()
        .map_err(|_| Error::Corrupt("lock_calls.outcome"))?;
    let lost_at: Option<Timestamp> = row.get("lost_at")?;
    let retry_after: Option<i64> = row.get("retry_after")?;
    Ok(match outcome {
        Some(outcome) => CallResult::Ended {
            outcome,
            retry_after: retry_after
                .map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))),
        },
        None if lost_at.is_some() => CallResult::Lost,
        None => CallResult::InFlight,
    })
}

/// How our lock on a device stands, by everything on record (R20).
pub(crate) async fn stands(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Standing> {
    let device = || params![organisation.as_str(), serial.as_str()];
    let mut events = Vec::new();
    let calls = tx
        .fetch_all(
            "SELECT code, began_at, ended_at, lost_at, outcome, retry_after, late_outcome, late_at FROM lock_calls \
             WHERE organisation = $1 AND serial = $2 ORDER BY id",
            device(),
        )
        .await?;
    for row in &calls {
        let result = result(row)?;
        let began_at: Timestamp = row.get("began_at")?;
        let ended_at: Option<Timestamp> = row.get("ended_at")?;
        let late = late(row)?;
        events.push(Event {
            at: match result {
                CallResult::Ended { .. } if late.is_none() => ended_at.unwrap_or(began_at),
                _ => began_at,
            },
            late,
            what: What::Called(CodeId(row.get("code")?), result),
        });
    }
    let turned_off = tx
        .fetch_all(
            "SELECT attempts.code, attempts.code_kind, attempts.began_at, attempts.ended_at, attempts.outcome, \
             attempts.late_outcome, attempts.late_at FROM operations JOIN attempts \
             ON attempts.organisation = operations.organisation AND attempts.operation = operations.id \
             WHERE operations.organisation = $1 AND operations.serial = $2 AND attempts.outcome = 'unlocked'",
            device(),
        )
        .await?;
    for row in &turned_off {
        let kind: String = row.get("code_kind")?;
        let began_at: Timestamp = row.get("began_at")?;
        let ended_at: Option<Timestamp> = row.get("ended_at")?;
        let late = late(row)?;
        events.push(Event {
            at: match late {
                None => ended_at.unwrap_or(began_at),
                Some(_) => began_at,
            },
            late,
            what: What::TurnedOff {
                code: CodeId(row.get("code")?),
                by_server_code: kind == "server",
            },
        });
    }
    events.extend(lock_statuses::events(tx, organisation, serial).await?);
    Ok(activation_lock::lock::standing(events))
}

/// When the answer came that an outcome rests on, where nobody waited for it any more.
fn late(row: &Row) -> Result<Option<Timestamp>> {
    let (outcome, late): (Option<String>, Option<String>) =
        (row.get("outcome")?, row.get("late_outcome")?);
    match outcome.is_some() && outcome == late {
        true => row.get("late_at"),
        false => Ok(None),
    }
}

/// Works out anew how our lock on a device stands, and keeps it beside the device and its codes.
pub(crate) async fn refresh(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Standing> {
    let standing = stands(tx, organisation, serial).await?;
    let live: Vec<serde_json::Value> = standing
        .live
        .iter()
        .map(|l| {
            let state = if l.confirmed { "confirmed" } else { "unknown" };
            serde_json::json!([l.code.0, state])
        })
        .collect();
    let live = serde_json::Value::Array(live).to_string();
    tx.execute(
        "UPDATE codes SET lock_state = COALESCE((SELECT value ->> 1 FROM json_each($3) \
         WHERE value ->> 0 = codes.id), 'none') WHERE organisation = $1 AND serial = $2 AND kind = 'server'",
        params![organisation.as_str(), serial.as_str(), live.as_str()],
    )
    .await?;
    // The current server code is the newest whose lock was ever on, or may have been.
    tx.execute(
        "UPDATE devices SET lock_state = $3, lock_evidence = $4, lock_at = $5, \
         server_code = COALESCE((SELECT code FROM lock_calls WHERE lock_calls.organisation = $1 AND lock_calls.serial = $2 \
         AND (outcome IN ('locked', 'failed', 'undescribed', 'unknown', 'unexpected') OR lost_at IS NOT NULL) \
         ORDER BY lock_calls.id DESC LIMIT 1), server_code) WHERE organisation = $1 AND serial = $2",
        params![
            organisation.as_str(),
            serial.as_str(),
            standing.state.as_str(),
            standing.evidence.as_str(),
            standing.at
        ],
    )
    .await?;
    Ok(standing)
}
