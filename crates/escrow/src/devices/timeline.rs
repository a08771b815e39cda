//! What happened to a device, told from the rows that record it.

use activation_lock::device::SerialNumber;
use activation_lock::time::Timestamp;
use serde::Serialize;

use crate::Result;
use crate::commands::Command;
use crate::db::{Tx, params};
use crate::enrollments::{Epoch, OpenedBy};
use crate::lock_statuses;
use crate::locks::LockSummary;
use crate::operations::UnlockSummary;
use crate::permit::OrganisationId;

/// One line of a device's timeline.
#[derive(Clone, Debug, Serialize)]
pub struct TimelineEntry {
    /// When.
    pub at: Timestamp,
    /// A stable word, such as `code.observed`.
    pub what: String,
    /// More, in words.
    pub details: String,
}

/// What a timeline is told from, apart from the rows it reads itself.
pub(super) struct History<'a> {
    pub(super) epochs: &'a [Epoch],
    pub(super) commands: &'a [Command],
    pub(super) unlocks: &'a [UnlockSummary],
    pub(super) locks: &'a [LockSummary],
}

/// What happened to a device, newest first, from the rows that record it.
pub(super) async fn timeline(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    history: &History<'_>,
) -> Result<Vec<TimelineEntry>> {
    let mut lines = Vec::new();
    let mut add = |at: Timestamp, what: &str, details: String| {
        lines.push(TimelineEntry {
            at,
            what: what.to_owned(),
            details,
        });
    };
    for epoch in history.epochs {
        let how = match epoch.opened_by {
            OpenedBy::Authenticate => "it enrolled",
            OpenedBy::TokenUpdate => "it enrolled; its Authenticate was not seen",
            OpenedBy::Adopted => "first seen, enrolled already",
        };
        add(epoch.opened_at, "enrollment.opened", how.to_owned());
        if let Some(closed_at) = epoch.closed_at {
            add(
                closed_at,
                "enrollment.closed",
                epoch.state_reason.clone().unwrap_or_default(),
            );
        }
    }
    for command in history.commands {
        add(
            command.created_at,
            "command.made",
            command.what.request_type().to_owned(),
        );
        if let Some(at) = command.answered_at {
            let outcome = command.reason.as_deref().unwrap_or("answered");
            add(
                at,
                "command.answered",
                format!("{}: {outcome}", command.what.request_type()),
            );
        }
    }
    for unlock in history.unlocks {
        add(
            unlock.requested_at,
            "unlock.requested",
            format!("by {}: {}", unlock.requested_by, unlock.reason),
        );
        if let Some(at) = unlock.ended_at {
            add(at, "unlock.ended", unlock.state.as_str().to_owned());
        }
    }
    for lock in history.locks {
        add(
            lock.requested_at,
            "lock.requested",
            format!("by {}: {}", lock.requested_by, lock.reason),
        );
        if let Some(at) = lock.ended_at {
            add(at, "lock.ended", lock.state.as_str().to_owned());
        }
    }
    for (at, said) in lock_statuses::changes(tx, organisation, serial).await? {
        add(at, "status.changed", said);
    }
    let observations = tx
        .fetch_all(
            "SELECT code, standing, recorded_at FROM code_observations WHERE organisation = $1 AND serial = $2 \
             ORDER BY id DESC LIMIT 100",
            params![organisation.as_str(), serial.as_str()],
        )
        .await?;
    for row in observations {
        let code: String = row.get("code")?;
        let standing: String = row.get("standing")?;
        lines.push(TimelineEntry {
            at: row.get("recorded_at")?,
            what: "code.observed".to_owned(),
            details: format!("{code} ({standing})"),
        });
    }
    lines.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.what.cmp(&b.what)));
    lines.truncate(200);
    Ok(lines)
}
