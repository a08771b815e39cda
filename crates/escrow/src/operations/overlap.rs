//! Two calls for one device under way at once: nothing can fence that off after a freeze, but it is found and shown (R16).

use activation_lock::device::SerialNumber;
use activation_lock::time::Timestamp;

use super::state;
use crate::db::{Row, Tx, params};
use crate::permit::OrganisationId;
use crate::{Escrow, Result, audit};

/// A call whose answer came after it had been given up.
pub(crate) struct Overlapped<'a> {
    pub(crate) organisation: &'a OrganisationId,
    pub(crate) operation: &'a str,
    pub(crate) call: &'a str,
    pub(crate) serial: &'a SerialNumber,
    pub(crate) began_at: Timestamp,
    /// What it is called on the record: `unlock.double_sent`, `lock.double_sent`.
    pub(crate) action: &'static str,
}

/// Looks for a call for the same device, to turn its lock on or off, that began while this one was under way. Both of them, and
/// what they belong to, are marked.
pub(crate) async fn mark(tx: &mut Tx<'_>, escrow: &Escrow, this: &Overlapped<'_>) -> Result<()> {
    let since = || params![this.serial.as_str(), this.began_at, this.call];
    let mut others: Vec<Row> = tx
        .fetch_optional(
            "SELECT organisation, id, operation, began_at FROM attempts WHERE serial = $1 AND began_at >= $2 AND id <> $3 \
             ORDER BY began_at LIMIT 1",
            since(),
        )
        .await?
        .into_iter()
        .collect();
    others.extend(
        tx.fetch_optional(
            "SELECT organisation, id, operation, began_at FROM lock_calls WHERE serial = $1 AND began_at >= $2 AND id <> $3 \
             ORDER BY began_at LIMIT 1",
            since(),
        )
        .await?,
    );
    for other in &others {
        let organisation: String = other.get("organisation")?;
        let (call, operation): (String, Option<String>) =
            (other.get("id")?, other.get("operation")?);
        let pairs = [
            (
                this.organisation.as_str(),
                this.call,
                Some(this.operation),
                call.as_str(),
            ),
            (
                organisation.as_str(),
                call.as_str(),
                operation.as_deref(),
                this.call,
            ),
        ];
        for (organisation, call, operation, overlapped) in pairs {
            tx.execute(
                "UPDATE attempts SET \"overlaps\" = $3 WHERE organisation = $1 AND id = $2",
                params![organisation, call, overlapped],
            )
            .await?;
            tx.execute(
                "UPDATE operations SET double_sent = 1, version = version + 1 WHERE organisation = $1 AND id = $2",
                params![organisation, operation],
            )
            .await?;
        }
        let entry = audit::Entry::by(&state::worker(), this.organisation, this.action)
            .subject(this.serial.as_str())
            .detail("call", this.call)
            .detail("other", call.as_str());
        audit::record(tx, escrow, entry).await?;
    }
    Ok(())
}
