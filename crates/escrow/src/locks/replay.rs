//! What the lock journal knows and the database has forgotten: put back at every start (R4). Where there is any, the database
//! was rolled back or copied, and nothing fires by itself (R21).

use std::collections::HashMap;

use activation_lock::codes::CodeText;
use activation_lock::time::Timestamp;

use super::Locks;
use super::journal::{Line, Record};
use super::standing::refresh;
use crate::db::{Tx, params};
use crate::operations::worker;
use crate::{Escrow, Result, audit, codes, devices, organisations};

/// What reading the journal gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Calls that the database had forgotten and has again.
    pub restored: usize,
    /// Calls of organisations that the database does not have: they stay in the journal.
    pub unplaced: usize,
    /// Lines that do not open, one that a crash cut off not counted.
    pub unreadable: usize,
}

/// How the journal stands, for `doctor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalState {
    /// Calls in it.
    pub calls: usize,
    /// Lines that do not open, one that a crash cut off not counted.
    pub unreadable: usize,
    /// Calls that the database does not have.
    pub missing: usize,
}

/// What became of one line.
enum Put {
    Known,
    /// A person had the device removed since (R2).
    Purged,
    Restored,
    Unplaced,
}

impl Locks<'_> {
    /// Puts back what the journal knows and the database has forgotten. To be called once, before anything is worked on.
    ///
    /// # Errors
    /// When the journal cannot be read, or the database fails.
    pub async fn replay(&self) -> Result<Replayed> {
        let mut replayed = Replayed::default();
        let (mut held, mut purged) = (None, false);
        for line in self.0.lock_journal().read(self.0)? {
            let record = match line {
                Line::Record(record) => std::sync::Arc::new(record),
                Line::Unreadable { cut_off: true, .. } => continue,
                Line::Unreadable { number, .. } => {
                    tracing::error!(
                        line = number,
                        "a line of the lock journal does not open: it is damaged, or its key is lost; run doctor"
                    );
                    replayed.unreadable += 1;
                    continue;
                }
            };
            if held.is_none() && self.is_forgotten(record.clone()).await? {
                // First, so that a start which ends here is found out by the next one.
                held = Some(self.0.operations().hold_after_restore().await?);
            }
            let escrow = self.0.clone();
            let put = self
                .0
                .db
                .write("locks.replay", async move |tx| {
                    put(tx, &escrow, &record).await
                })
                .await?;
            match put {
                Put::Known => {}
                Put::Purged => purged = true,
                Put::Restored => replayed.restored += 1,
                Put::Unplaced => replayed.unplaced += 1,
            }
        }
        if purged {
            self.forget_purged().await?;
        }
        if let Some(held) = held {
            tracing::warn!(
                calls = replayed.restored,
                held,
                "the database was older than the lock journal: what it had forgotten is put back, and what was under way waits for a person"
            );
        }
        Ok(replayed)
    }

    /// Whether the database does not know a call, and has the organisation that it belongs to.
    async fn is_forgotten(&self, record: std::sync::Arc<Record>) -> Result<bool> {
        self.0
            .db
            .read(async move |tx| {
                let known = is_known(tx, &record).await? || is_purged(tx, &record).await?;
                Ok(!known
                    && organisations::by_id(tx, &record.organisation)
                        .await?
                        .is_some())
            })
            .await
    }

    /// Takes out of the journal what a person had removed for ever (R2).
    pub(crate) async fn forget_purged(&self) -> Result<()> {
        let rows = self
            .0
            .db
            .read(async move |tx| {
                tx.fetch_all(
                    "SELECT organisation, serial, purged_at FROM purges",
                    params![],
                )
                .await
            })
            .await?;
        let mut purges = HashMap::with_capacity(rows.len());
        for row in &rows {
            let device: (String, String) = (row.get("organisation")?, row.get("serial")?);
            purges.insert(device, row.get::<Timestamp>("purged_at")?);
        }
        let forgotten = self.0.lock_journal().forget(self.0, move |record| {
            let device = (
                record.organisation.as_str().to_owned(),
                record.serial.as_str().to_owned(),
            );
            is_before(record, purges.get(&device).copied())
        });
        forgotten.await?;
        Ok(())
    }

    /// How the journal stands beside the database.
    ///
    /// # Errors
    /// When the journal cannot be read, or the database fails.
    pub async fn journal(&self) -> Result<JournalState> {
        let mut state = JournalState::default();
        for line in self.0.lock_journal().read(self.0)? {
            match line {
                Line::Record(record) => {
                    state.calls += 1;
                    let is_known = self
                        .0
                        .db
                        .read(async move |tx| {
                            Ok(is_known(tx, &record).await? || is_purged(tx, &record).await?)
                        })
                        .await?;
                    state.missing += usize::from(!is_known);
                }
                Line::Unreadable { cut_off, .. } => state.unreadable += usize::from(!cut_off),
            }
        }
        Ok(state)
    }
}

async fn is_known(tx: &mut Tx<'_>, record: &Record) -> Result<bool> {
    Ok(tx
        .fetch_optional(
            "SELECT id FROM lock_calls WHERE organisation = $1 AND id = $2",
            params![record.organisation.as_str(), record.call.as_str()],
        )
        .await?
        .is_some())
}

async fn is_purged(tx: &mut Tx<'_>, record: &Record) -> Result<bool> {
    let at = devices::purged_at(tx, &record.organisation, &record.serial).await?;
    Ok(is_before(record, at))
}

/// Whether a call began before its device was removed. In doubt it did not: a code is not lost.
fn is_before(record: &Record, purged_at: Option<Timestamp>) -> bool {
    let began_at = audit::moment_of(&record.call);
    began_at
        .zip(purged_at)
        .is_some_and(|(began, purged)| began < purged)
}

async fn put(tx: &mut Tx<'_>, escrow: &Escrow, record: &Record) -> Result<Put> {
    if is_known(tx, record).await? {
        return Ok(Put::Known);
    }
    if is_purged(tx, record).await? {
        return Ok(Put::Purged);
    }
    let organisation = organisations::by_id(tx, &record.organisation).await?;
    let text = CodeText::new(record.code.as_str().to_owned());
    let (Some(_), Some(text)) = (organisation, text) else {
        return Ok(Put::Unplaced);
    };
    let key = (record.organisation.clone(), record.serial.clone());
    let code = codes::keep_made(tx, escrow, &key, &text).await?;
    let operation = tx
        .fetch_optional(
            "SELECT id FROM operations WHERE organisation = $1 AND id = $2 AND kind = 'lock'",
            params![record.organisation.as_str(), record.operation.as_str()],
        )
        .await?;
    let operation = operation.map(|_| record.operation.as_str());
    // The identifier was made in the transaction in which the call began.
    let began_at = audit::moment_of(&record.call).unwrap_or(tx.now());
    tx.execute(
        "INSERT INTO lock_calls (organisation, id, operation, serial, position, code, credential, recipient, lease_number, \
         began_at, lost_at, diagnostic) SELECT $1, $2, $3, $4, 1 + (SELECT COUNT(*) FROM lock_calls \
         WHERE organisation = $1 AND operation = $3), $5, '', '', 0, $6, $6, 'known from the lock journal alone'",
        params![
            record.organisation.as_str(),
            record.call.as_str(),
            operation,
            record.serial.as_str(),
            code.0.as_str(),
            began_at
        ],
    )
    .await?;
    if operation.is_some() {
        // Whatever goes on with it goes on with this code (R4).
        tx.execute(
            "UPDATE operations SET code = COALESCE(code, $3) WHERE organisation = $1 AND id = $2",
            params![record.organisation.as_str(), operation, code.0.as_str()],
        )
        .await?;
    }
    refresh(tx, &record.organisation, &record.serial).await?;
    let entry = audit::Entry::by(&worker(), &record.organisation, "lock.replay")
        .subject(record.serial.as_str())
        .detail("call", record.call.as_str())
        .detail("code", code.0.as_str());
    audit::record(tx, escrow, entry).await?;
    Ok(Put::Restored)
}
