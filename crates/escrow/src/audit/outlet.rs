//! Where the record goes outside: how far each place has it, and since when it does not take it.

use activation_lock::time::Timestamp;

use super::Audit;
use super::chain::number;
use super::row::{AuditRow, select_rows};
use crate::Result;
use crate::db::{Row, params};

/// A place outside, as the vault knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlet {
    /// What it is called, such as `checkpoint file`.
    pub name: String,
    /// The position up to which it was given the record.
    pub position: u64,
    /// When it last took something.
    pub sent_at: Option<Timestamp>,
    /// Since when it takes nothing; nothing when all is well.
    pub failing_since: Option<Timestamp>,
    /// Why, in words.
    pub failure: Option<String>,
}

impl Outlet {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            name: row.get("name")?,
            position: row.get("position")?,
            sent_at: row.get("sent_at")?,
            failing_since: row.get("failing_since")?,
            failure: row.get("failure")?,
        })
    }
}

impl Audit<'_> {
    /// The places that were ever sent to.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn outlets(&self) -> Result<Vec<Outlet>> {
        self.0
            .db
            .read(async |tx| {
                tx.fetch_all(
                    "SELECT name, position, sent_at, failing_since, failure FROM audit_outlets ORDER BY name",
                    params![],
                )
                .await?
                .iter()
                .map(Outlet::from_row)
                .collect()
            })
            .await
    }

    /// A place has taken the record up to a position. It is durable when this returns: what comes after is sent next.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delivered(&self, outlet: &'static str, position: u64) -> Result<()> {
        self.0
            .db
            .write("audit.delivered", async move |tx| {
                let now = tx.now();
                tx.execute(
                    "INSERT INTO audit_outlets (name, position, sent_at) VALUES ($1, $2, $3) \
                     ON CONFLICT (name) DO UPDATE SET position = excluded.position, sent_at = excluded.sent_at, \
                     failing_since = NULL, failure = NULL",
                    params![outlet, number(position), now],
                )
                .await?;
                Ok(())
            })
            .await
    }

    /// A place took nothing, for this reason.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn undelivered(&self, outlet: &'static str, failure: &str) -> Result<()> {
        let failure = failure.to_owned();
        self.0
            .db
            .write("audit.undelivered", async move |tx| {
                let now = tx.now();
                tx.execute(
                    "INSERT INTO audit_outlets (name, position, failing_since, failure) VALUES ($1, 0, $2, $3) \
                     ON CONFLICT (name) DO UPDATE SET \
                     failing_since = COALESCE(audit_outlets.failing_since, excluded.failing_since), \
                     failure = excluded.failure",
                    params![outlet, now, failure.as_str()],
                )
                .await?;
                Ok(())
            })
            .await
    }

    /// The rows of every organisation in the order of the chain, after a position: for a place outside.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rows_after(&self, position: u64, limit: u32) -> Result<Vec<AuditRow>> {
        let escrow = self.0.clone();
        self.0
            .db
            .read(async move |tx| {
                let rows = tx
                    .fetch_all(
                        select_rows!(
                            "FROM audit_chain JOIN audit ON audit.organisation = audit_chain.organisation \
                             AND audit.id = audit_chain.audit_row \
                             WHERE audit_chain.position > $1 ORDER BY audit_chain.position LIMIT $2"
                        ),
                        params![number(position), limit],
                    )
                    .await?;
                let read = |row| AuditRow::from_row(row, &escrow.keyring());
                Ok(rows.iter().map(read).collect())
            })
            .await
    }
}
