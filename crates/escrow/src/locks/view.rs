//! Locks as they are shown.

use activation_lock::codes::CodeId;
use activation_lock::device::SerialNumber;
use activation_lock::lock::{
    CallResult, End, LockOutcome, OurLock, RefusedWhy, ReviewReason, WaitReason,
};
use activation_lock::operation::StateName;
use activation_lock::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::standing;
use crate::db::{Row, Tx, params};
use crate::operations::{Kind, Operation};
use crate::permit::OrganisationId;
use crate::{Error, Result};

/// A lock as it stands.
#[derive(Clone, Debug)]
pub struct LockView {
    /// Its identifier.
    pub id: String,
    /// Its organisation.
    pub organisation: OrganisationId,
    /// The device.
    pub serial: SerialNumber,
    /// Its state.
    pub state: StateName,
    /// What the state rests on.
    pub details: Details,
    /// Why it was asked for.
    pub reason: String,
    /// The real person behind it.
    pub requester: String,
    /// The name of the principal that asked.
    pub requested_by: String,
    /// What the locked screen is to show.
    pub message: Option<String>,
    /// Why it was asked for against a guard.
    pub override_reason: Option<String>,
    /// The code whose hash is sent, once there is one.
    pub code: Option<CodeId>,
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
    pub calls: Vec<CallView>,
}

impl LockView {
    /// Whether nothing more happens by itself.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ended_at.is_some()
    }

    /// How it ended, for [`activation_lock::explain::lock::end`]; `None` while it lives.
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
    /// `refused`: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedWhy>,
    /// `already_locked`: how ours stood then (R20).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours: Option<OurLock>,
}

impl Details {
    /// How a lock in a state ended; `None` while it lives.
    #[must_use]
    pub fn end(&self, state: StateName, cancelled_by: Option<&str>) -> Option<End> {
        match state {
            StateName::Locked => Some(End::Locked),
            StateName::AlreadyLocked => Some(End::AlreadyLocked {
                ours: self.ours.unwrap_or(OurLock::Unknown),
            }),
            StateName::Refused => Some(End::Refused { why: self.refused? }),
            StateName::NeedsReview => Some(End::NeedsReview { why: self.review? }),
            StateName::Cancelled => Some(End::Cancelled {
                by: cancelled_by?.to_owned(),
            }),
            _ => None,
        }
    }

    pub(super) fn of(end: &End) -> Self {
        let mut details = Self::default();
        match end {
            End::AlreadyLocked { ours } => details.ours = Some(*ours),
            End::Refused { why } => details.refused = Some(*why),
            End::NeedsReview { why } => details.review = Some(*why),
            End::Locked | End::Cancelled { .. } => {}
        }
        details
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("details are plain values")
    }
}

/// One call, without the code's text or hash.
#[derive(Clone, Debug)]
pub struct CallView {
    /// Its identifier.
    pub id: String,
    /// Its place in the order of calls of this lock, from 1.
    pub position: u32,
    /// How it stands.
    pub result: CallResult,
    /// Apple's own word, if it came, as it came.
    pub response_status: Option<String>,
    /// The HTTP status, if one came.
    pub status: Option<u16>,
    /// The code whose hash was sent.
    pub code: CodeId,
    /// Whom it was sent to (R17).
    pub recipient: String,
    /// When it was put on record.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Redacted words of the answer.
    pub diagnostic: Option<String>,
    /// What an answer said that came after the call was given up.
    pub late: Option<(Timestamp, LockOutcome)>,
}

impl CallView {
    fn from_row(row: &Row) -> Result<Self> {
        let late: Option<String> = row.get("late_outcome")?;
        let late: Option<LockOutcome> = late
            .map(|o| o.parse())
            .transpose()
            .map_err(|_| Error::Corrupt("lock_calls.late_outcome"))?;
        let late_at: Option<Timestamp> = row.get("late_at")?;
        let status: Option<i64> = row.get("status")?;
        Ok(Self {
            id: row.get("id")?,
            position: u32::try_from(row.get::<i64>("position")?).unwrap_or(u32::MAX),
            result: standing::result(row)?,
            response_status: row.get("response_status")?,
            status: status.and_then(|s| u16::try_from(s).ok()),
            code: CodeId(row.get("code")?),
            recipient: row.get("recipient")?,
            began_at: row.get("began_at")?,
            ended_at: row.get("ended_at")?,
            diagnostic: row.get("diagnostic")?,
            late: late_at.zip(late),
        })
    }
}

/// A lock as a device's page lists it.
#[derive(Clone, Debug, Serialize)]
pub struct LockSummary {
    /// Its identifier.
    pub id: String,
    /// Its state.
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

/// The locks of a device, newest first, inside another verb's transaction.
pub(crate) async fn of_device(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    limit: u32,
) -> Result<Vec<LockSummary>> {
    tx.fetch_all(
        "SELECT id, state, reason, requested_by, requested_at, ended_at FROM operations \
         WHERE organisation = $1 AND serial = $2 AND kind = 'lock' ORDER BY id DESC LIMIT $3",
        params![organisation.as_str(), serial.as_str(), limit],
    )
    .await?
    .iter()
    .map(|row| {
        Ok(LockSummary {
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

/// One lock with its calls, inside a verb's transaction.
pub(super) async fn view(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    id: &str,
) -> Result<Option<LockView>> {
    let Some(op) = Operation::load(tx, Kind::Lock, organisation, id).await? else {
        return Ok(None);
    };
    let calls = tx
        .fetch_all(
            "SELECT id, position, code, recipient, began_at, ended_at, lost_at, outcome, response_status, status, \
             retry_after, diagnostic, late_outcome, late_at FROM lock_calls \
             WHERE organisation = $1 AND operation = $2 ORDER BY position",
            params![organisation.as_str(), id],
        )
        .await?
        .iter()
        .map(CallView::from_row)
        .collect::<Result<_>>()?;
    let details = op.details()?;
    Ok(Some(LockView {
        id: op.id,
        organisation: op.organisation,
        serial: op.serial,
        state: op.state,
        details,
        reason: op.reason,
        requester: op.requester,
        requested_by: op.requested_by,
        message: op.message,
        override_reason: op.override_reason,
        code: op.code,
        urgent: op.urgent,
        requested_at: op.requested_at,
        resumed_at: op.resumed_at,
        deadline: op.deadline,
        cancelled_by: op.cancelled_by,
        ended_at: op.ended_at,
        double_sent: op.double_sent,
        version: op.version,
        calls,
    }))
}
