//! Unlocks as they are shown.

use activation_lock::codes::{CodeId, CodeKind};
use activation_lock::device::{DeviceIdentity, SerialNumber};
use activation_lock::operation::StateName;
use activation_lock::time::Timestamp;
use activation_lock::unlock::{AttemptResult, End, Outcome, RejectedWhy, ReviewReason, WaitReason};
use serde::{Deserialize, Serialize};

use super::{Kind, Operation, plan};
use crate::db::{Tx, params};
use crate::permit::OrganisationId;
use crate::{Error, Result};

/// An unlock as it stands.
#[derive(Clone, Debug)]
pub struct OperationView {
    /// Its identifier.
    pub id: String,
    /// Its organisation.
    pub organisation: OrganisationId,
    /// The device.
    pub serial: SerialNumber,
    /// Its state (R15).
    pub state: StateName,
    /// What the state rests on.
    pub details: Details,
    /// Why it was asked for.
    pub reason: String,
    /// The real person behind it.
    pub requester: String,
    /// The principal that asked.
    pub principal: String,
    /// The name of the principal that asked.
    pub requested_by: String,
    /// Whether it is tried even though Apple says the device is not locked.
    pub insists: bool,
    /// Whether it goes before those asked for in bulk.
    pub urgent: bool,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When a person last continued it.
    pub resumed_at: Option<Timestamp>,
    /// When it ends for want of an answer.
    pub deadline: Timestamp,
    /// Who asked to cancel it.
    pub cancelled_by: Option<String>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Two calls for the device may have been under way at once (R16).
    pub double_sent: bool,
    /// Rises with every change.
    pub version: i64,
    /// Its calls, oldest first.
    pub attempts: Vec<AttemptView>,
}

impl OperationView {
    /// Whether nothing more happens by itself.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ended_at.is_some()
    }

    /// How it ended, for [`activation_lock::explain::end`]; `None` while it lives.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.details.end(self.state, self.cancelled_by.as_deref())
    }
}

/// What a state rests on; each field where it applies. Kept as JSON, open to more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// `waiting`: what for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitReason>,
    /// `waiting`: until when at the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// `needs_review`: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub review: Option<ReviewReason>,
    /// `needs_review`: tries left undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untried: Option<usize>,
    /// `rejected`: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<RejectedWhy>,
    /// `unlocked`: the code that did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<CodeId>,
    /// `unlocked`: the kind of that code; `server` means the lock was ours (R15).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_kind: Option<CodeKind>,
}

impl Details {
    /// How an unlock in a state ended; `None` while it lives.
    #[must_use]
    pub fn end(&self, state: StateName, cancelled_by: Option<&str>) -> Option<End> {
        match state {
            StateName::Queued | StateName::Running | StateName::Waiting => None,
            StateName::Unlocked => self.by.clone().map(|by| End::Unlocked { by }),
            StateName::ProbablyUnlocked => Some(End::ProbablyUnlocked),
            StateName::Rejected => Some(End::Rejected {
                why: self.rejected.unwrap_or(RejectedWhy::CannotTell),
            }),
            StateName::NotLocked => Some(End::NotLocked),
            StateName::NeedsReview => Some(End::NeedsReview {
                why: self.review?,
                untried: self.untried.unwrap_or(0),
            }),
            StateName::Cancelled => Some(End::Cancelled {
                by: cancelled_by?.to_owned(),
            }),
            // States of locks.
            StateName::Locked | StateName::AlreadyLocked | StateName::Refused => None,
        }
    }
}

/// One call, without the code's text.
#[derive(Clone, Debug)]
pub struct AttemptView {
    /// Its identifier.
    pub id: String,
    /// Its place in the order of calls of this unlock, from 1.
    pub position: u32,
    /// How it stands.
    pub result: AttemptResult,
    /// The HTTP status, if one came.
    pub status: Option<u16>,
    /// The code tried.
    pub code: CodeId,
    /// Who made the code.
    pub code_kind: CodeKind,
    /// Whether it was the current code of its kind then.
    pub code_current: bool,
    /// When the code had last been seen then.
    pub code_seen_at: Timestamp,
    /// How the device was named to Apple.
    pub identity: DeviceIdentity,
    /// Where the IMEIs came from (`list`, `device`, `slots`, `person`).
    pub identity_source: String,
    /// Whether the IMEIs were swapped (R18).
    pub swapped: bool,
    /// The topic of the certificate used (R18).
    pub topic: String,
    /// Whom the code was sent to (R17).
    pub recipient: String,
    /// When it was put on record.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Redacted words of the answer.
    pub diagnostic: Option<String>,
    /// What an answer said that came after the attempt was given up (R14).
    pub late: Option<(Timestamp, Outcome)>,
    /// Another call for the device that may have been under way at the same time (R16).
    pub overlaps: Option<String>,
}

/// An unlock as a device's page lists it.
#[derive(Clone, Debug, Serialize)]
pub struct UnlockSummary {
    /// Its identifier.
    pub id: String,
    /// Its state (R15).
    pub state: StateName,
    /// Why it was asked for.
    pub reason: String,
    /// Who asked.
    pub requested_by: String,
    /// When.
    pub requested_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// The unlocks of a device, newest first, inside another verb's transaction.
pub(crate) async fn of_device(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    limit: u32,
) -> Result<Vec<UnlockSummary>> {
    tx.fetch_all(
        "SELECT id, state, reason, requested_by, requested_at, ended_at FROM operations \
         WHERE organisation = $1 AND serial = $2 AND kind = 'unlock' ORDER BY id DESC LIMIT $3",
        params![organisation.as_str(), serial.as_str(), limit],
    )
    .await?
    .iter()
    .map(|row| {
        Ok(UnlockSummary {
            id: row.get("id")?,
            state: row
                .get::<String>("state")?
                .parse()
                .map_err(|_| Error::Corrupt("operations.state"))?,
            reason: row.get("reason")?,
            requested_by: row.get("requested_by")?,
            requested_at: row.get("requested_at")?,
            ended_at: row.get("ended_at")?,
        })
    })
    .collect()
}

/// One unlock with its calls, inside a verb's transaction.
pub(super) async fn view(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    id: &str,
) -> Result<Option<OperationView>> {
    let Some(op) = Operation::load(tx, Kind::Unlock, organisation, id).await? else {
        return Ok(None);
    };
    let attempts = plan::attempts_of(tx, organisation, id).await?;
    let details = op.details()?;
    Ok(Some(OperationView {
        id: op.id,
        organisation: op.organisation,
        serial: op.serial,
        state: op.state,
        details,
        reason: op.reason,
        requester: op.requester,
        principal: op.principal,
        requested_by: op.requested_by,
        insists: op.insists,
        urgent: op.urgent,
        requested_at: op.requested_at,
        resumed_at: op.resumed_at,
        deadline: op.deadline,
        cancelled_by: op.cancelled_by,
        ended_at: op.ended_at,
        double_sent: op.double_sent,
        version: op.version,
        attempts: attempts.into_iter().map(|a| a.view).collect(),
    }))
}
