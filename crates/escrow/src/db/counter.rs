//! The counter of the audit rows of one writer: taken in the transaction of the row, gapless, and rolled back with it.
//!
//! A *writer* is whatever commits audit rows one transaction after the other: a connection. On SQLite the folder's lock lets one
//! process in, and all of them go on with the one writer of the database. On PostgreSQL each connection claims a writer that no
//! other session has, and makes one when none is free. The counter stands in memory, so that a row costs nothing for it;
//! what was taken is stored once a transaction, there with the transaction's own number: by that it is known whether a
//! commit without an answer was kept.

use std::sync::Arc;

use activation_lock::time::Timestamp;
use uuid::Uuid;

use super::Fault;
use super::engine::Connection;
use super::ids::Ids;
use super::value::params;

/// See the module.
pub(super) struct Counter {
    writer: Arc<str>,
    next: i64,
    /// As the database has it; nothing while that is not known.
    stored: Option<i64>,
    /// The number of the transaction.
    batch: i64,
}

impl Counter {
    /// A writer that nobody else is, made when there is none.
    pub(super) async fn open(
        connection: &mut Connection,
        ids: &Ids,
        now: Timestamp,
    ) -> Result<Self, Fault> {
        let sql = "SELECT id FROM audit_writers ORDER BY id";
        for row in connection.fetch_all(sql, params![]).await? {
            let id: Uuid = row.column("id")?;
            if connection.claim(name(id)).await? {
                return Ok(Self::of(id));
            }
        }
        let id = ids.next(now);
        connection.claim(name(id)).await?;
        let sql = "INSERT INTO audit_writers (id, next) VALUES ($1, 1)";
        connection.execute(sql, params![id]).await?;
        Ok(Self::of(id))
    }

    fn of(id: Uuid) -> Self {
        Self {
            writer: id.to_string().into(),
            next: 0,
            stored: None,
            batch: 0,
        }
    }

    /// Another connection is to go on: as the same writer if nobody else has become it.
    pub(super) async fn reopen(
        &mut self,
        connection: &mut Connection,
        ids: &Ids,
        now: Timestamp,
    ) -> Result<(), Fault> {
        if !connection.claim(self.name()?).await? {
            *self = Self::open(connection, ids, now).await?;
        }
        Ok(())
    }

    /// Whether the last transaction, whose commit had no answer, was kept. Nothing while the session that sent it may still be
    /// at it: that is ended, and asked about again.
    pub(super) async fn was_kept(
        &mut self,
        connection: &mut Connection,
    ) -> Result<Option<bool>, Fault> {
        let name = self.name()?;
        if !connection.claim(name).await? {
            connection.evict(name).await?;
            return Ok(None);
        }
        let sql = "SELECT batch FROM audit_writers WHERE id = $1";
        let row = connection
            .fetch_optional(sql, params![&*self.writer])
            .await?;
        let batch: i64 = row.ok_or_else(Self::gone)?.column("batch")?;
        Ok(Some(batch == self.batch))
    }

    fn name(&self) -> Result<i64, Fault> {
        self.writer.parse().map(name).map_err(|_| Self::gone())
    }

    /// A transaction begins. After one that was lost the counter is read again: nobody knows how that one ended.
    pub(super) async fn begin(&mut self, connection: &mut Connection) -> Result<(), Fault> {
        if self.stored.is_some() {
            return Ok(());
        }
        let sql = "SELECT next, batch, (SELECT MAX(counter) FROM audit WHERE writer = $1) AS last FROM audit_writers \
                   WHERE id = $1";
        let row = connection
            .fetch_optional(sql, params![&*self.writer])
            .await?;
        let row = row.ok_or_else(Self::gone)?;
        let (next, last): (i64, Option<i64>) = (row.column("next")?, row.column("last")?);
        self.batch = row.column("batch")?;
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
    pub(super) async fn store(&mut self, connection: &mut Connection) -> Result<(), Fault> {
        let is_marked = connection.is_shared() && connection.has_changed();
        if self.stored == Some(self.next) && !is_marked {
            return Ok(());
        }
        self.batch += 1;
        let batch = self.batch;
        let changed = if self.stored == Some(self.next) {
            let sql = "UPDATE audit_writers SET batch = $2 WHERE id = $1";
            connection.execute(sql, params![&*self.writer, batch])
        } else {
            let sql = "UPDATE audit_writers SET next = $2, batch = $3 WHERE id = $1";
            connection.execute(sql, params![&*self.writer, self.next, batch])
        };
        if changed.await? == 1 {
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

/// What a session claims to be a writer: the half of its identifier that is random.
fn name(writer: Uuid) -> i64 {
    let (_, half) = writer.as_u64_pair();
    half.cast_signed()
}
