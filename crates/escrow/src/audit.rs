//! The record of who did what: one immutable text a row, authenticated with a key that the database does not hold in
//! the open, numbered by its writer, and linked into one chain.
//!
//! The text is canonical JSON (keys sorted, no spaces) of `version`, `id`, `at` (milliseconds), `organisation`, `actor`,
//! `proof`, `address`, `action`, `subject`, `reason`, `result`, `details`, `writer` and `counter`. The row's other columns are
//! copies of some of these, to filter by. Nothing secret is ever in it.
//!
//! What shows what: the MAC, that a row was changed; the writer's gapless counter, which is in the text, that one is missing
//! or was put in, sealed or not; the chain, in which order they became durable; a checkpoint that was kept outside, that the
//! end is still there. [`Audit::verifier`] looks at all of them.

mod chain;
mod checkpoint;
mod entry;
mod horizon;
mod outlet;
mod retain;
mod row;
mod signed;
mod unauthenticated;
mod verify;

use activation_lock::time::Timestamp;
use data_encoding::HEXLOWER;
use seal::CheckpointPublicKey;
use uuid::Uuid;

pub use self::chain::{Sealer, Turn};
pub use self::checkpoint::Checkpoint;
pub(crate) use self::entry::{Entry, record, record_all};
pub use self::outlet::Outlet;
pub use self::retain::{RetainError, Retained, Retention};
use self::row::Next;
pub use self::row::{AuditFilter, AuditRow, Intact};
pub use self::signed::Signed;
pub use self::unauthenticated::Unauthenticated;
pub use self::verify::{Bad, Place, Proven, Verified, Verifier};
use crate::db::params;
use crate::permit::{self, Permit};
use crate::{Escrow, Result};

/// The verbs on the record. See [`Escrow::audit`].
pub struct Audit<'a>(&'a Escrow);

impl Escrow {
    /// The record of who did what.
    #[must_use]
    pub fn audit(&self) -> Audit<'_> {
        Audit(self)
    }
}

impl Audit<'_> {
    /// The rows of the permit's organisation that pass a filter, newest first: at most `limit`, older than the row `after`
    /// when one is given. That somebody looked is put on record with the first page, and not with each further one.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn list(
        &self,
        permit: &Permit<permit::Audit>,
        filter: &AuditFilter,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<AuditRow>> {
        let (escrow, confirmed, asked) = (self.0.clone(), permit.clone(), filter.clone());
        let from = after.map(str::to_owned);
        let result = self
            .0
            .db
            .read(async move |tx| {
                confirmed.confirm(tx).await?;
                let (keyring, next) = (escrow.keyring(), Next::OlderThan(from.as_deref()));
                row::list(tx, &keyring, confirmed.organisation(), &asked, next, limit).await
            })
            .await;
        let rows = self.0.audit_refusal(permit, result).await?;
        if after.is_none() {
            self.note(permit, "audit.read", filter).await?;
        }
        Ok(rows)
    }

    /// Begins to give out every row of the permit's organisation that passes a filter, oldest first, up to the row that tells
    /// of the export itself.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn export(
        &self,
        permit: &Permit<permit::Audit>,
        filter: AuditFilter,
    ) -> Result<Export> {
        let last = self.note(permit, "audit.export", &filter).await?;
        Ok(Export {
            escrow: self.0.clone(),
            permit: permit.clone(),
            filter,
            after: None,
            last,
        })
    }

    /// Puts on record that the record was read. Gives the row's identifier.
    async fn note(
        &self,
        permit: &Permit<permit::Audit>,
        action: &'static str,
        filter: &AuditFilter,
    ) -> Result<String> {
        let (escrow, confirmed, told) = (self.0.clone(), permit.clone(), filter.told());
        let result = self
            .0
            .db
            .write(action, async move |tx| {
                confirmed.confirm(tx).await?;
                let entry = confirmed.entry(action).detail("filter", told.clone());
                entry::insert(tx, &escrow, entry).await
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Puts on record that the record was verified, and whether something bad was found. It comes after the verification, so that
    /// this row is none of those that were looked at.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails: then nothing is to be said of what was found.
    pub async fn note_verification(
        &self,
        permit: &Permit<permit::Audit>,
        found: Option<&Bad>,
    ) -> Result<()> {
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let found = found.map(ToString::to_string);
        let result = self
            .0
            .db
            .write("audit.verify", async move |tx| {
                confirmed.confirm(tx).await?;
                let entry = confirmed.entry("audit.verify");
                let entry = match &found {
                    Some(found) => entry.result("bad").detail("found", found.as_str()),
                    None => entry,
                };
                record(tx, &escrow, entry).await
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// What verifies the whole record, of every organisation. It changes nothing.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        Verifier::new(self.0)
    }

    /// The checkpoints that the vault keeps, newest first: at most `limit`, with numbers below `before` when one is given.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn checkpoints(
        &self,
        permit: &Permit<permit::Audit>,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<(u64, Signed)>> {
        let confirmed = permit.clone();
        let result = self
            .0
            .db
            .read(async move |tx| {
                confirmed.confirm(tx).await?;
                let before = before.unwrap_or(u64::MAX);
                let kept = checkpoint::Kept::newest(tx, before, limit).await?;
                Ok(kept
                    .into_iter()
                    .map(|kept| (kept.number, kept.signed))
                    .collect())
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// The public halves of the keys that sign checkpoints: the current one first, then the older ones.
    #[must_use]
    pub fn public_keys(&self) -> Vec<CheckpointPublicKey> {
        self.0.keyring().checkpoint_keys()
    }

    /// A sealer of the record. One of all that there are acts at a time.
    #[must_use]
    pub fn sealer(&self) -> Sealer {
        let mut id = [0; 16];
        self.0.random().fill(&mut id);
        Sealer {
            escrow: self.0.clone(),
            id: HEXLOWER.encode(&id),
        }
    }

    /// Frees the sealer's lease: on this engine whoever held it is dead.
    pub(crate) async fn free_lease(&self) -> Result<()> {
        self.0
            .db
            .write("audit.free_lease", async |tx| chain::free(tx, None).await)
            .await
    }

    /// When the newest row was written, as its identifier tells; `None` in an empty record.
    pub(crate) async fn last_moment(&self) -> Result<Option<Timestamp>> {
        self.0
            .db
            .read(async |tx| {
                // One seek for each organisation, whatever the length of the record.
                let row = tx
                    .fetch_optional(
                        "SELECT MAX(last) AS last FROM (SELECT (SELECT MAX(audit.id) FROM audit \
                         WHERE audit.organisation = organisations.id) AS last FROM organisations) AS each_last",
                        params![],
                    )
                    .await?;
                let last: Option<String> = row.map(|row| row.get("last")).transpose()?.flatten();
                Ok(last.as_deref().and_then(moment_of))
            })
            .await
    }

    /// Waits until rows were written since the last wait.
    pub async fn written(&self) {
        self.0.db.audited().await;
    }
}

/// When an identifier of ours was made.
pub(crate) fn moment_of(id: &str) -> Option<Timestamp> {
    let (seconds, nanos) = Uuid::parse_str(id).ok()?.get_timestamp()?.to_unix();
    let millis = i64::try_from(seconds).ok()?.checked_mul(1_000)?;
    Some(Timestamp(millis.checked_add(i64::from(nanos / 1_000_000))?))
}

/// An export that is under way. See [`Audit::export`].
pub struct Export {
    escrow: Escrow,
    permit: Permit<permit::Audit>,
    filter: AuditFilter,
    after: Option<String>,
    last: String,
}

impl Export {
    /// The next rows; none at the end.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn next(&mut self) -> Result<Vec<AuditRow>> {
        /// Rows read at once.
        const PAGE: u32 = 500;
        let (escrow, confirmed) = (self.escrow.clone(), self.permit.clone());
        let (filter, last) = (self.filter.clone(), self.last.clone());
        let after = self.after.clone();
        let result = self
            .escrow
            .db
            .read(async move |tx| {
                confirmed.confirm(tx).await?;
                let (keyring, next) = (escrow.keyring(), Next::NewerThan(after.as_deref(), &last));
                row::list(tx, &keyring, confirmed.organisation(), &filter, next, PAGE).await
            })
            .await;
        let rows = self.escrow.audit_refusal(&self.permit, result).await?;
        if let Some(row) = rows.last() {
            self.after = Some(row.id.clone());
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests;
