//! Looking after keys: which there are, whether everything opens, what an older one is still needed for, and its end (R25).

use std::collections::BTreeMap;

use activation_lock::time::Timestamp;
use seal::{KeyId, Keyring, Purpose};

use super::cells::CELLS;
use super::{Keys, Rotation, rotation, stored};
use crate::audit;
use crate::db::{Tx, params};
use crate::permit::{Admin, Permit};
use crate::{Error, Escrow, Result};

/// Rows read at once.
const PAGE: i64 = 500;

/// A data key as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyView {
    /// Its identifier, which cells, fingerprints and audit rows name.
    pub id: KeyId,
    /// What it is for.
    pub purpose: Purpose,
    /// `current`, `older`, or `destroyed`.
    pub standing: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was destroyed.
    pub destroyed_at: Option<Timestamp>,
    /// Whom it is wrapped for, such as `running ...` and `recovery ...`.
    pub recipients: Vec<String>,
    /// Whether this process has it opened.
    pub is_open: bool,
}

/// All keys, and how far their exchange is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatus {
    /// The data keys, oldest first.
    pub keys: Vec<KeyView>,
    /// The newest exchange, under way or done.
    pub rotation: Option<Rotation>,
    /// When the recovery key last opened this vault.
    pub recovery_opened_at: Option<Timestamp>,
}

/// What came of opening everything that is sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Values by the key that made them.
    pub by_key: BTreeMap<String, u64>,
    /// Those that do not open: table, column, row, and why.
    pub damaged: Vec<String>,
}

/// Why a key was not destroyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestroyProblem {
    /// There is no such key.
    #[error("there is no data key {0}")]
    Unknown(String),
    /// New values are made with it.
    #[error("data key {0} is in use: `lockwarden key rotate` makes another first")]
    Current(KeyId),
    /// An exchange of keys is under way.
    #[error("keys are being exchanged: wait until `lockwarden key status` says that it is done")]
    UnderWay,
    /// Something would be lost with it.
    #[error("data key {id} is still needed for {what}: with it they would be lost for ever")]
    Needed {
        /// The key.
        id: KeyId,
        /// What for.
        what: String,
    },
}

impl Keys<'_> {
    /// All keys, and how far their exchange is.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn status(&self, permit: &Permit<Admin>) -> Result<KeyStatus> {
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let result = self
            .0
            .db
            .read(async move |tx| {
                confirmed.confirm(tx).await?;
                status(tx, &escrow).await
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Opens everything that is sealed, and says with which keys it was made. Takes as long as there is much; nothing waits for it.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn verify(&self, permit: &Permit<Admin>) -> Result<Verified> {
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let result = self
            .0
            .db
            .write("keys.verify", async move |tx| {
                confirmed.confirm(tx).await?;
                audit::record(tx, &escrow, confirmed.entry("key.verify")).await
            })
            .await;
        self.0.audit_refusal(permit, result).await?;
        self.look_through().await
    }

    async fn look_through(&self) -> Result<Verified> {
        let mut verified = Verified::default();
        for cells in CELLS {
            let mut after = (String::new(), String::new());
            loop {
                let from = after.clone();
                let rows = self
                    .0
                    .db
                    .read(async move |tx| {
                        tx.fetch_all(cells.page, params![from.0.as_str(), from.1.as_str(), PAGE])
                            .await?
                            .iter()
                            .map(|row| {
                                let cell: Vec<u8> = row.get("cell")?;
                                Ok((row.get("place")?, row.get("row_id")?, cell))
                            })
                            .collect::<Result<Vec<(String, String, Vec<u8>)>>>()
                    })
                    .await?;
                let keyring = self.0.keyring();
                for (place, row, cell) in &rows {
                    let name = Keyring::cell_key(cell)
                        .map_or_else(|_| "none".to_owned(), |id| id.to_string());
                    *verified.by_key.entry(name).or_default() += 1;
                    if let Err(error) = keyring.open_cell(cells.kind, place, row, cell) {
                        verified
                            .damaged
                            .push(format!("{}.{} {row}: {error}", cells.table, cells.column));
                    }
                }
                match rows.last() {
                    Some((place, row, _)) => after = (place.clone(), row.clone()),
                    None => break,
                }
            }
        }
        let (counted, by_others) = (
            self.0.lock_journal().keys()?,
            self.0.db.read(by_name).await?,
        );
        for (id, count) in counted.into_iter().chain(by_others) {
            *verified.by_key.entry(id).or_default() += count;
        }
        Ok(verified)
    }

    /// Destroys an older data key: its wrappings are gone, and with them every copy that this vault has. Only when nothing needs it
    /// any more (R25): no cell, no fingerprint, no audit row, no line of the lock journal, no backup that is on record and has not
    /// ended. A key that signed checkpoints stays, for they are verified with it.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn destroy(
        &self,
        permit: &Permit<Admin>,
        id: &str,
    ) -> Result<Result<(), DestroyProblem>> {
        let uses = self.look_through().await?;
        let (escrow, confirmed, id) = (self.0.clone(), permit.clone(), id.to_owned());
        let result = self
            .0
            .db
            .write("keys.destroy", async move |tx| {
                confirmed.confirm(tx).await?;
                let status = status(tx, &escrow).await?;
                let Some(key) = status.keys.iter().find(|key| key.id.to_string() == id) else {
                    return Ok(Err(DestroyProblem::Unknown(id.clone())));
                };
                if key.standing == "current" {
                    return Ok(Err(DestroyProblem::Current(key.id)));
                }
                // No new value is made with an older key but by a verb that began before it became one.
                if status.rotation.is_some_and(|rotation| rotation.finished_at.is_none()) {
                    return Ok(Err(DestroyProblem::UnderWay));
                }
                let needed = |what: String| Ok(Err(DestroyProblem::Needed { id: key.id, what }));
                if key.purpose == Purpose::Checkpoints {
                    return needed("the checkpoints that it signed".to_owned());
                }
                if let Some(count) = uses.by_key.get(&id).filter(|count| **count > 0) {
                    return needed(format!("{count} values that were made with it"));
                }
                let now = tx.now();
                let backups = tx
                    .fetch_all(
                        "SELECT name, keys FROM backups WHERE forgotten_at IS NULL AND (expires_at IS NULL OR expires_at > $1)",
                        params![now],
                    )
                    .await?;
                for backup in &backups {
                    if backup.get::<String>("keys")?.split(' ').any(|needs| needs == id) {
                        return needed(format!("the backup {}", backup.get::<String>("name")?));
                    }
                }
                tx.execute("DELETE FROM key_wrappings WHERE data_key = $1", params![id.as_str()])
                    .await?;
                tx.execute(
                    "UPDATE data_keys SET standing = 'destroyed', sample = NULL, destroyed_at = $2 WHERE id = $1",
                    params![id.as_str(), now],
                )
                .await?;
                let entry = confirmed
                    .entry("key.destroy")
                    .subject(&id)
                    .detail("purpose", key.purpose.as_str());
                audit::record(tx, &escrow, entry).await?;
                Ok(Ok(()))
            })
            .await;
        let destroyed = self.0.audit_refusal(permit, result).await?;
        self.reload().await?;
        Ok(destroyed)
    }
}

async fn status(tx: &mut Tx<'_>, escrow: &Escrow) -> Result<KeyStatus> {
    let rows = tx
        .fetch_all(
            "SELECT id, purpose, standing, created_at, destroyed_at FROM data_keys ORDER BY created_at, id",
            params![],
        )
        .await?;
    let wrapped = stored(tx).await?;
    let keyring = escrow.keyring();
    let mut keys = Vec::with_capacity(rows.len());
    for row in &rows {
        let id: String = row.get("id")?;
        let id: KeyId = id.parse().map_err(|_| Error::Corrupt("data_keys.id"))?;
        let purpose: String = row.get("purpose")?;
        let purpose = Purpose::from_word(&purpose).ok_or(Error::Corrupt("data_keys.purpose"))?;
        let for_whom = wrapped
            .iter()
            .filter(|key| key.id == id)
            .flat_map(|key| &key.wrappings);
        keys.push(KeyView {
            id,
            purpose,
            standing: row.get("standing")?,
            created_at: row.get("created_at")?,
            destroyed_at: row.get("destroyed_at")?,
            recipients: for_whom
                .map(|wrapping| wrapping.recipient.to_string())
                .collect(),
            is_open: keyring.key_ids(purpose).contains(&id),
        });
    }
    let meta = tx
        .fetch_one("SELECT recovery_opened_at FROM meta", params![])
        .await?;
    Ok(KeyStatus {
        keys,
        rotation: rotation::newest(tx).await?,
        recovery_opened_at: meta.get("recovery_opened_at")?,
    })
}

/// How many fingerprints and audit rows each key made.
async fn by_name(tx: &mut Tx<'_>) -> Result<Vec<(String, u64)>> {
    let mut counted = Vec::new();
    for sql in [
        "SELECT fingerprint_key AS key_id, COUNT(*) AS uses FROM codes GROUP BY fingerprint_key",
        "SELECT mac_key AS key_id, COUNT(*) AS uses FROM audit GROUP BY mac_key",
    ] {
        for row in tx.fetch_all(sql, params![]).await? {
            let uses: i64 = row.get("uses")?;
            counted.push((row.get("key_id")?, u64::try_from(uses).unwrap_or(0)));
        }
    }
    Ok(counted)
}
