//! Codes shown to a person.

use activation_lock::asking::Trigger;
use activation_lock::codes::Form;
use activation_lock::device::SerialNumber;

use super::{Codes, RevealedCode, rows};
use crate::approvals::{self, Action, Guard};
use crate::db::{Tx, list, params};
use crate::news::News;
use crate::permit::{Permit, Reveal};
use crate::{Escrow, Result, audit, commands};

impl Codes<'_> {
    /// Opens every code of a device for a person (R8: the device is asked again afterwards). The audit row is
    /// committed before the texts are handed out. A code whose cell is damaged is left out, and named in that row.
    ///
    /// # Errors
    /// When the permit no longer holds, none of the cells opens, or the database fails.
    pub async fn reveal(
        &self,
        permit: &Permit<Reveal>,
        serial: &SerialNumber,
        reason: &str,
    ) -> Result<Vec<RevealedCode>> {
        let (escrow, confirmed, serial, reason) = (
            self.0.clone(),
            permit.clone(),
            serial.clone(),
            reason.to_owned(),
        );
        let result = self
            .0
            .db
            .write("codes.reveal", async move |tx| {
                confirmed.confirm(tx).await?;
                reveal(tx, &escrow, &confirmed, &serial, &reason).await
            })
            .await;
        let revealed = self.0.audit_refusal(permit, result).await?;
        self.0.tell(News::Commands);
        revealed
    }
}

/// Opens what opens of a device's codes, and puts on record who sees which. The inner error is that of codes none of which
/// opens: that it was tried stays on record.
async fn reveal(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    permit: &Permit<Reveal>,
    serial: &SerialNumber,
    reason: &str,
) -> Result<Result<Vec<RevealedCode>>> {
    let organisation = permit.organisation();
    let (mut revealed, mut damaged, mut fault) = (Vec::new(), Vec::new(), None);
    for row in rows(tx, organisation, serial).await? {
        let form = if row.reported {
            Form::Reported
        } else {
            Form::Kept
        };
        match row.open(escrow, organisation, form) {
            Ok(text) => revealed.push(RevealedCode {
                text,
                view: row.view,
            }),
            Err(error) => {
                tracing::error!(%error, code = row.view.id.0, "a sealed code does not open; run doctor");
                damaged.push(row.view.id.0);
                fault = Some(error);
            }
        }
    }
    let ids: Vec<&str> = revealed.iter().map(|r| r.view.id.0.as_str()).collect();
    let mut entry = permit
        .entry("code.reveal")
        .subject(serial.as_str())
        .reason(reason)
        .detail("codes", ids.join(" "));
    if !damaged.is_empty() {
        entry = entry.detail("damaged", damaged.join(" "));
    }
    if let Some(fault) = fault.filter(|_| revealed.is_empty()) {
        audit::record(tx, escrow, entry.result("damaged")).await?;
        return Ok(Err(fault));
    }
    // An approval is not used up for nothing, nor does it count as seeing one.
    if !revealed.is_empty() {
        let guard = Guard::device(Action::Reveal, serial);
        entry = approvals::pass(tx, escrow, permit, &guard)
            .await?
            .mark(entry);
    }
    audit::record(tx, escrow, entry).await?;
    let now = tx.now();
    tx.execute(
        "UPDATE codes SET revealed_at = $3, revealed_by = $4 WHERE organisation = $1 \
         AND id IN (SELECT value ->> 0 FROM json_each($2))",
        params![
            organisation.as_str(),
            list(&ids),
            now,
            permit.actor().name()
        ],
    )
    .await?;
    commands::ask_soon(tx, escrow, organisation, serial, Trigger::Reveal).await?;
    Ok(Ok(revealed))
}
