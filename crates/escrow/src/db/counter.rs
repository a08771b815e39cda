//! The counter of the audit rows of one writer: taken in the transaction of the row, gapless, and rolled back with it.
//!
//! A *writer* is whatever commits audit rows one transaction after the other; here that is the lane that writes, and since the
//! folder's lock lets one process in, all of them go on with the one writer of the database. A replica will need one of its own.
//! The counter stands in memory, so that a row costs nothing for it; what was taken is stored once a transaction.

use std::sync::Arc;

use activation_lock::time::Timestamp;
use sqlx::SqliteConnection;

use super::ids::Ids;
use super::value::params;
use super::{Fault, engine};

/// See the module.
pub(super) struct Counter {
    writer: Arc<str>,
    next: i64,
    /// As the database has it; nothing while that is not known.
    stored: Option<i64>,
}

impl Counter {
    /// The writer of a database, made when there is none.
    pub(super) async fn open(
        connection: &mut SqliteConnection,
        ids: &Ids,
        now: Timestamp,
    ) -> Result<Self, Fault> {
        let sql = "SELECT id FROM audit_writers ORDER BY id LIMIT 1";
        let writer = match engine::fetch_optional(connection, sql, params![]).await? {
            Some(row) => row.column("id")?,
            None => {
                let id = ids.next(now).to_string();
                let sql = "INSERT INTO audit_writers (id, next) VALUES ($1, 1)";
                engine::execute(connection, sql, params![id.as_str()]).await?;
                id
            }
        };
        Ok(Self {
            writer: writer.into(),
            next: 0,
            stored: None,
        })
    }

    /// A transaction begins. After one that was lost the counter is read again: nobody knows how that one ended.
    pub(super) async fn begin(&mut self, connection: &mut SqliteConnection) -> Result<(), Fault> {
        if self.stored.is_some() {
            return Ok(());
        }
        let row = engine::fetch_optional(
            connection,
            "SELECT next, (SELECT MAX(counter) FROM audit WHERE writer = $1) AS last FROM audit_writers WHERE id = $1",
            params![&*self.writer],
        )
        .await?
        .ok_or_else(Self::gone)?;
        let (next, last): (i64, Option<i64>) = (row.column("next")?, row.column("last")?);
        // A count that was set back gives no number twice: it would keep every further row out.
        self.next = next.max(last.unwrap_or(0).saturating_add(1));
        self.stored = Some(next);
        Ok(())
    }

    /// The writer, and the number of its next row.
    pub(super) fn take(&mut self) -> (Arc<str>, i64) {
        let taken = self.next;
        self.next += 1;
        (self.writer.clone(), taken)
    }

    /// Where it stands, to go [`back`](Self::back) to.
    pub(super) fn mark(&self) -> i64 {
        self.next
    }

    /// What was taken since a mark is rolled back.
    pub(super) fn back(&mut self, mark: i64) {
        self.next = mark;
    }

    /// Stores what was taken, as the last of a transaction. Without that none of its rows is kept.
    pub(super) async fn store(&self, connection: &mut SqliteConnection) -> Result<(), Fault> {
        if self.stored == Some(self.next) {
            return Ok(());
        }
        let changed = engine::execute(
            connection,
            "UPDATE audit_writers SET next = $2 WHERE id = $1",
            params![&*self.writer, self.next],
        )
        .await?;
        if changed == 1 {
            Ok(())
        } else {
            Err(Self::gone())
        }
    }

    /// The transaction was committed. True when rows were.
    pub(super) fn committed(&mut self) -> bool {
        self.stored.replace(self.next) != Some(self.next)
    }

    /// The transaction was lost.
    pub(super) fn lost(&mut self) {
        self.stored = None;
    }

    fn gone() -> Fault {
        Fault::Engine(
            "the counter of audit rows is gone: the database was changed by another program, or is damaged"
                .to_owned(),
        )
    }
}
