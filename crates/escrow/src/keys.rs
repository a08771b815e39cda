//! The data keys of a database: made with it, stored wrapped for the running key and the recovery key (R25), opened at
//! start, exchanged while it is in use ([`rotation`]), looked after ([`care`]).

use std::path::Path;
use std::sync::Arc;

use seal::{
    DataKey, KeyEncryptionKey, KeyId, Keyring, KeyringError, Purpose, Random, Recipient,
    RecipientKind, RecoveryKey, RecoveryPublicKey, Standing, UnwrapError, Wrapping,
};
use thiserror::Error;

pub use self::care::{DestroyProblem, KeyStatus, KeyView, Verified};
pub(crate) use self::rotation::recovery_public;
use self::rotation::standing_of;
pub use self::rotation::{Rotation, Step};

use crate::audit::{self, Entry};
use crate::clock::{Clock, Steady};
use crate::db::{Db, Fault, ReadKeys, Row, Tx, params};
use crate::meta::DataKind;
use crate::permit::{Actor, OrganisationId, Permissions};
use crate::{Database, Error, Escrow, Shared};

pub mod care;
mod cells;
pub mod rotation;

/// The kind of cell that each cell key seals once, so that a recovery key can be shown to open one (R25).
const SAMPLE: &str = "key sample";
const SAMPLE_TEXT: &[u8] = b"this cell opens";

/// Why the keys of a database did not open. Nothing was changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeysError {
    /// The key file is another database's.
    #[error(
        "the key file holds key {given}, and this database's data keys are wrapped for {wanted}: nothing was opened or changed; give the key file of {wanted}"
    )]
    WrongKey {
        /// The key that was given.
        given: KeyId,
        /// The keys that would do, separated by commas.
        wanted: String,
    },
    /// A new production database without a recovery key.
    #[error(
        "a new database needs a recovery key (R25), so that the codes outlive this server: run `lockwarden init`, and name the public half in the configuration"
    )]
    NoRecoveryKey,
    /// The recovery key is another database's.
    #[error(
        "that recovery key is {given}, and this database's data keys are wrapped for {wanted}: look for the other one"
    )]
    WrongRecoveryKey {
        /// The key that was given.
        given: KeyId,
        /// The recovery keys that would do, separated by commas; `none` when there are none.
        wanted: String,
    },
    /// A wrapping does not open.
    #[error(transparent)]
    Unwrap(#[from] UnwrapError),
    /// The key table is incomplete.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A stored key is unreadable, or opens no cell.
    #[error("the database's key table is damaged ({0}): restore the database from a backup")]
    Damaged(&'static str),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] Fault),
}

impl From<Error> for KeysError {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(fault) => Self::Database(fault),
            Error::Corrupt(what) => Self::Damaged(what),
            other => Self::Database(Fault::Engine(other.to_string())),
        }
    }
}

/// A data key as it is stored.
struct Stored {
    id: KeyId,
    purpose: Purpose,
    standing: Standing,
    sample: Option<Vec<u8>>,
    wrappings: Vec<Wrapping>,
}

impl Stored {
    fn for_kind(&self, kind: RecipientKind) -> impl Iterator<Item = &Wrapping> {
        self.wrappings
            .iter()
            .filter(move |wrapping| wrapping.recipient.kind == kind)
    }
}

/// The ids of all recipients of one kind, for a message.
fn recipients(keys: &[Stored], kind: RecipientKind) -> String {
    let mut ids: Vec<_> = keys
        .iter()
        .flat_map(|key| key.for_kind(kind))
        .map(|wrapping| wrapping.recipient.id.to_string())
        .collect();
    ids.sort();
    ids.dedup();
    if ids.is_empty() {
        "none".to_owned()
    } else {
        ids.join(", ")
    }
}

/// Opens the keyring of a database, making the first data keys when it has none. A new database in production needs the
/// public half of a recovery key; for one that has keys it is not looked at.
pub(crate) async fn open(
    db: &Db,
    running: Arc<KeyEncryptionKey>,
    recovery: Option<RecoveryPublicKey>,
    recovery_required: bool,
    random: Arc<dyn Random>,
) -> crate::Result<Keyring> {
    let mut keys = db.read(stored).await?;
    if keys.is_empty() {
        if recovery.is_none() && recovery_required {
            return Err(KeysError::NoRecoveryKey.into());
        }
        create(db, &running, recovery.as_ref(), &*random).await?;
        keys = db.read(stored).await?;
    } else if complete(db, &keys, &running, random).await? {
        keys = db.read(stored).await?;
    }
    Ok(unlock(&keys, &running)?)
}

/// Reads the data keys anew, for a process that shares the database with one that exchanges them.
pub(crate) fn reader(shared: Arc<Shared>) -> ReadKeys {
    Box::new(move |tx| {
        let shared = shared.clone();
        Box::pin(async move {
            let keyring = unlock(&stored(tx).await?, &shared.running)?;
            shared.set_keyring(keyring);
            Ok(())
        })
    })
}

/// Makes a data key for each purpose that an earlier program did not know, for the same recipients. True when there was
/// one.
async fn complete(
    db: &Db,
    keys: &[Stored],
    running: &KeyEncryptionKey,
    random: Arc<dyn Random>,
) -> crate::Result<bool> {
    let is_new = |purpose: &Purpose| keys.iter().all(|key| key.purpose != *purpose);
    let new: Vec<Purpose> = Purpose::ALL.into_iter().filter(is_new).collect();
    if new.is_empty() {
        return Ok(false);
    }
    // A wrong key is found out before anything is wrapped for it.
    opened(keys, running)?;
    let keys = new.into_iter().map(|purpose| {
        let key = DataKey::generate(purpose, &random);
        let wrapped = running.wrap(&key, &random);
        (key, wrapped)
    });
    let keys: Vec<_> = keys.collect();
    // The keys are wiped with the verb, which may run again.
    db.write("keys.complete", async move |tx| {
        let recovery = rotation::recovery_public(tx).await?;
        for (key, wrapped) in &keys {
            let for_recovery = recovery.as_ref().map(|public| public.wrap(key, &random));
            insert(tx, key.id(), key.purpose()).await?;
            for wrapping in [Some(wrapped), for_recovery.as_ref()].into_iter().flatten() {
                insert_wrapping(tx, key.id(), wrapping).await?;
            }
        }
        Ok(())
    })
    .await?;
    Ok(true)
}

/// Opens the keyring of a database that has one, changing nothing.
pub(crate) async fn look(db: &Db, running: &KeyEncryptionKey) -> crate::Result<Keyring> {
    Ok(unlock(&db.read(stored).await?, running)?)
}

/// Makes the first data keys, unless another replica was first.
async fn create(
    db: &Db,
    running: &KeyEncryptionKey,
    recovery: Option<&RecoveryPublicKey>,
    random: &dyn Random,
) -> Result<(), KeysError> {
    let mut keys = Vec::new();
    let mut wrappings = Vec::new();
    for purpose in Purpose::ALL {
        let key = DataKey::generate(purpose, random);
        wrappings.push((key.id(), running.wrap(&key, random)));
        wrappings.extend(recovery.map(|recovery| (key.id(), recovery.wrap(&key, random))));
        keys.push((key, Standing::Current));
    }
    let ids = keys
        .iter()
        .map(|(key, _)| (key.id(), key.purpose()))
        .collect::<Vec<_>>();
    let keyring = Keyring::new(keys)?;
    let sealing = keyring.key_ids(Purpose::Cells)[0].to_string();
    let sample = keyring.seal_cell(SAMPLE, "", &sealing, SAMPLE_TEXT, random);
    let recovery = recovery.map(RecoveryPublicKey::to_text);
    let made = db.write("keys.create", async move |tx| {
        if !stored(tx).await?.is_empty() {
            return Ok(());
        }
        for (id, purpose) in &ids {
            insert(tx, *id, *purpose).await?;
        }
        for (id, wrapping) in &wrappings {
            insert_wrapping(tx, *id, wrapping).await?;
        }
        tx.execute(
            "UPDATE data_keys SET sample = $2 WHERE id = $1",
            params![sealing.as_str(), sample.as_slice()],
        )
        .await?;
        tx.execute(
            "UPDATE meta SET recovery_public = $1",
            params![recovery.as_deref()],
        )
        .await?;
        Ok(())
    });
    Ok(made.await?)
}

async fn insert(tx: &mut Tx<'_>, id: KeyId, purpose: Purpose) -> crate::Result<()> {
    let now = tx.now();
    tx.execute(
        "INSERT INTO data_keys (id, purpose, standing, created_at) VALUES ($1, $2, 'current', $3)",
        params![id.to_string(), purpose.as_str(), now],
    )
    .await?;
    Ok(())
}

async fn insert_wrapping(tx: &mut Tx<'_>, id: KeyId, wrapping: &Wrapping) -> crate::Result<()> {
    let now = tx.now();
    tx.execute(
        "INSERT INTO key_wrappings (data_key, recipient, bytes, created_at) VALUES ($1, $2, $3, $4)",
        params![id.to_string(), wrapping.recipient.to_string(), wrapping.bytes.as_slice(), now],
    )
    .await?;
    Ok(())
}

async fn stored(tx: &mut Tx<'_>) -> crate::Result<Vec<Stored>> {
    let rows = tx
        .fetch_all(
            "SELECT id, purpose, standing, sample FROM data_keys WHERE standing <> 'destroyed' ORDER BY id",
            params![],
        )
        .await?;
    let mut keys = Vec::with_capacity(rows.len());
    for row in &rows {
        let id: String = row.get("id")?;
        let wrappings = tx
            .fetch_all(
                "SELECT recipient, bytes FROM key_wrappings WHERE data_key = $1 ORDER BY recipient",
                params![id.as_str()],
            )
            .await?;
        keys.push(stored_key(row, &id, &wrappings)?);
    }
    Ok(keys)
}

fn stored_key(row: &Row, id: &str, wrappings: &[Row]) -> crate::Result<Stored> {
    let purpose: String = row.get("purpose")?;
    let standing: String = row.get("standing")?;
    let wrapping = |row: &Row| -> crate::Result<Wrapping> {
        let recipient: Recipient = row
            .get::<String>("recipient")?
            .parse()
            .map_err(|_| Error::Corrupt("key_wrappings.recipient"))?;
        Ok(Wrapping {
            recipient,
            bytes: row.get("bytes")?,
        })
    };
    Ok(Stored {
        id: id.parse().map_err(|_| Error::Corrupt("data_keys.id"))?,
        purpose: Purpose::from_word(&purpose).ok_or(Error::Corrupt("data_keys.purpose"))?,
        standing: standing_of(&standing).ok_or(Error::Corrupt("data_keys.standing"))?,
        sample: row.get("sample")?,
        wrappings: wrappings
            .iter()
            .map(wrapping)
            .collect::<crate::Result<_>>()?,
    })
}

fn unlock(keys: &[Stored], running: &KeyEncryptionKey) -> Result<Keyring, KeysError> {
    Ok(Keyring::new(opened(keys, running)?)?)
}

fn opened(
    keys: &[Stored],
    running: &KeyEncryptionKey,
) -> Result<Vec<(DataKey, Standing)>, KeysError> {
    let mut opened = Vec::with_capacity(keys.len());
    for key in keys {
        match opened_by(key, keys, running) {
            Ok(data_key) => opened.push((data_key, key.standing)),
            // What it made does not open; everything else does.
            Err(error) if key.standing == Standing::Older => {
                tracing::error!(%error, key = %key.id, purpose = %key.purpose, "an older data key does not open");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(opened)
}

fn opened_by(
    key: &Stored,
    keys: &[Stored],
    running: &KeyEncryptionKey,
) -> Result<DataKey, KeysError> {
    let wrapping = key
        .for_kind(RecipientKind::Running)
        .find(|wrapping| wrapping.recipient == running.recipient())
        .ok_or_else(|| KeysError::WrongKey {
            given: running.id(),
            wanted: recipients(keys, RecipientKind::Running),
        })?;
    Ok(running.unwrap(key.purpose, key.id, wrapping)?)
}

/// Seals a sample with a key for cells, so that a recovery key can be shown to open one.
async fn keep_sample(
    tx: &mut Tx<'_>,
    key: &DataKey,
    random: &(impl Random + ?Sized),
) -> crate::Result<()> {
    let id = key.id().to_string();
    let sample = Keyring::seal_cell_with(key, SAMPLE, "", &id, SAMPLE_TEXT, random);
    tx.execute(
        "UPDATE data_keys SET sample = $2 WHERE id = $1",
        params![id.as_str(), sample],
    )
    .await?;
    Ok(())
}

/// Wraps the data keys of a vault for another running key, and takes those for the one of now away: from then on only the other one
/// opens it. With a recovery key's public half they are wrapped for that as well, in place of the one before.
///
/// # Errors
/// [`Error::Keys`] when a data key does not open; or when the database fails.
async fn rewrap(
    escrow: &Escrow,
    new: Option<Arc<KeyEncryptionKey>>,
    recovery: Option<RecoveryPublicKey>,
) -> crate::Result<()> {
    let (escrow, random) = (escrow.clone(), escrow.shared.random.clone());
    let db = escrow.db.clone();
    db.write("keys.rewrap", async move |tx| {
        let running = &escrow.shared.running;
        let keys = stored(tx).await?;
        for key in &keys {
            let data_key = opened_by(key, &keys, running)?;
            let id = key.id.to_string();
            let made = [
                (
                    RecipientKind::Running,
                    new.as_ref().map(|new| new.wrap(&data_key, &random)),
                ),
                (
                    RecipientKind::Recovery,
                    recovery.as_ref().map(|new| new.wrap(&data_key, &random)),
                ),
            ];
            for (kind, wrapping) in made {
                let Some(wrapping) = wrapping else { continue };
                for old in key.for_kind(kind) {
                    tx.execute(
                        "DELETE FROM key_wrappings WHERE data_key = $1 AND recipient = $2",
                        params![id.as_str(), old.recipient.to_string()],
                    )
                    .await?;
                }
                insert_wrapping(tx, key.id, &wrapping).await?;
            }
        }
        if let Some(recovery) = &recovery {
            // Whether the new one works has to be shown again.
            tx.execute(
                "UPDATE meta SET recovery_public = $1, recovery_opened_at = NULL",
                params![recovery.to_text()],
            )
            .await?;
        }
        let actor = Actor::system("command line", Permissions::NONE);
        let everywhere = OrganisationId::new("*");
        let mut entry =
            Entry::by(&actor, &everywhere, "key.rewrap").detail("from", running.id().to_string());
        if let Some(new) = &new {
            entry = entry.detail("to", new.id().to_string());
        }
        if let Some(recovery) = &recovery {
            entry = entry.detail("recovery", recovery.id().to_string());
        }
        audit::record(tx, &escrow, entry).await
    })
    .await
}

/// Wraps the data keys of a restored vault for a new running key, by the recovery key of its time. Those for the running key of before
/// are taken away.
pub(crate) async fn adopt(
    folder: &Path,
    recovery: &RecoveryKey,
    new: &Arc<KeyEncryptionKey>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> crate::Result<()> {
    let db = Db::open(crate::db::Opening {
        folder,
        database: Database::Embedded,
        kind: DataKind::Production,
        clock: Arc::new(Steady::new(clock)),
        random: random.clone(),
    })
    .await?;
    let done = take_over(&db, recovery, new, random).await;
    db.close().await;
    done
}

async fn take_over(
    db: &Db,
    recovery: &RecoveryKey,
    new: &Arc<KeyEncryptionKey>,
    random: Arc<dyn Random>,
) -> crate::Result<()> {
    let keys = db.read(stored).await?;
    let mut wrappings = Vec::with_capacity(keys.len());
    for (data_key, _) in opened_by_recovery(&keys, recovery)? {
        wrappings.push((data_key.id(), new.wrap(&data_key, &random)));
    }
    db.write("keys.adopt", async move |tx| {
        for key in &keys {
            for old in key.for_kind(RecipientKind::Running) {
                tx.execute(
                    "DELETE FROM key_wrappings WHERE data_key = $1 AND recipient = $2",
                    params![key.id.to_string(), old.recipient.to_string()],
                )
                .await?;
            }
        }
        for (id, wrapping) in &wrappings {
            insert_wrapping(tx, *id, wrapping).await?;
        }
        let now = tx.now();
        tx.execute("UPDATE meta SET recovery_opened_at = $1", params![now])
            .await?;
        Ok(())
    })
    .await
}

/// The verbs on keys. See [`Escrow::keys`].
pub struct Keys<'a>(&'a Escrow);

impl Keys<'_> {
    /// Wraps the data keys for another running key, another recovery key, or both, in place of those of now. Nothing is sealed anew.
    /// From then on this vault opens with the new running key alone, this process until it ends.
    ///
    /// # Errors
    /// [`Error::Keys`] when a data key does not open; or when the database fails. Nothing is changed then.
    pub async fn rewrap(
        &self,
        new: Option<Arc<KeyEncryptionKey>>,
        recovery: Option<RecoveryPublicKey>,
    ) -> crate::Result<()> {
        rewrap(self.0, new, recovery).await
    }
}

impl Escrow {
    /// The keys of this vault.
    #[must_use]
    pub fn keys(&self) -> Keys<'_> {
        Keys(self)
    }

    /// Shows that the recovery key opens this database: every data key, and a cell with the one that seals cells. That it
    /// did is put on record; until then `doctor` warns (R25).
    ///
    /// # Errors
    /// [`Error::Keys`] when it does not; or when the database fails.
    pub async fn check_recovery(&self, recovery: &RecoveryKey) -> crate::Result<()> {
        open_sample(&self.db.read(stored).await?, recovery)?;
        let escrow = self.clone();
        let key = recovery.public().id().to_string();
        self.db
            .write("keys.check_recovery", async move |tx| {
                let now = tx.now();
                tx.execute("UPDATE meta SET recovery_opened_at = $1", params![now])
                    .await?;
                let actor = Actor::system("command line", Permissions::NONE);
                let everywhere = OrganisationId::new("*");
                let entry = Entry::by(&actor, &everywhere, "key.recovery_check").subject(&key);
                audit::record(tx, &escrow, entry).await
            })
            .await
    }
}

fn opened_by_recovery(
    keys: &[Stored],
    recovery: &RecoveryKey,
) -> Result<Vec<(DataKey, Standing)>, KeysError> {
    let recipient = recovery.public().recipient();
    let mut opened = Vec::with_capacity(keys.len());
    for key in keys {
        let wrapping = key
            .wrappings
            .iter()
            .find(|wrapping| wrapping.recipient == recipient)
            .ok_or_else(|| KeysError::WrongRecoveryKey {
                given: recipient.id,
                wanted: recipients(keys, RecipientKind::Recovery),
            })?;
        opened.push((
            recovery.unwrap(key.purpose, key.id, wrapping)?,
            key.standing,
        ));
    }
    Ok(opened)
}

fn open_sample(keys: &[Stored], recovery: &RecoveryKey) -> Result<(), KeysError> {
    let keyring = Keyring::new(opened_by_recovery(keys, recovery)?)?;
    let sealing = keys
        .iter()
        .find(|key| key.purpose == Purpose::Cells && key.standing == Standing::Current)
        .ok_or(KeysError::Damaged("data_keys"))?;
    let sample = sealing
        .sample
        .as_deref()
        .ok_or(KeysError::Damaged("data_keys.sample"))?;
    match keyring.open_cell(SAMPLE, "", &sealing.id.to_string(), sample) {
        Ok(text) if *text == SAMPLE_TEXT => Ok(()),
        _ => Err(KeysError::Damaged("data_keys.sample")),
    }
}

#[cfg(test)]
mod tests;
