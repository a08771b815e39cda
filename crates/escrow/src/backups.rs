//! Backups: the whole vault in one encrypted file, made while it is in use, read back before it is called one, and restored into an
//! empty place only.
//!
//! The file: a line of JSON in the open (what it is, when it was made, which data keys it needs, and the file's own key wrapped for the
//! running key and the recovery key), then an [archive](seal::ArchiveWriter) of entries, each a name, a length and bytes: the database and
//! the lock journal. Codes in it are sealed a second time, by the data keys.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use activation_lock::time::Timestamp;
use data_encoding::BASE64;
use seal::{
    ArchiveReader, ArchiveWriter, DataKey, KeyEncryptionKey, Keyring, Purpose, Random, Recipient,
    RecoveryKey, Wrapping,
};
use serde::{Deserialize, Serialize};

use crate::audit::{self, Entry};
use crate::clock::Clock;
use crate::db::{Row, Tx, params};
use crate::meta::DataKind;
use crate::people::credentials::nowhere;
use crate::permit::{Actor, Admin, Permissions, Permit};
use crate::{Database, Error, Escrow, Opening, Result, keys};

/// What the first line says that it is.
const FORMAT: &str = "lockwarden backup 1";
/// No first line is longer.
const LONGEST_HEADER: u64 = 64 * 1024;
/// The entries of the archive, which are files of the data folder.
const DATABASE: &str = "lockwarden.db";
const JOURNAL: &str = "lock-journal";

/// The first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    id: String,
    made_at: i64,
    schema: i64,
    data_keys: Vec<String>,
    key: String,
    wrappings: Vec<Wrapped>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Wrapped {
    recipient: String,
    bytes: String,
}

/// A backup that was made, or looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Its identifier.
    pub id: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// The schema of the database in it.
    pub schema: i64,
    /// The data keys that it needs.
    pub data_keys: Vec<String>,
    /// SHA-256 of the file, hexadecimal.
    pub digest: String,
    /// Bytes of the file.
    pub size: u64,
}

/// A backup on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupView {
    /// Its identifier.
    pub id: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// What it is called.
    pub name: String,
    /// The data keys that it needs.
    pub data_keys: Vec<String>,
    /// SHA-256 of the file, hexadecimal; empty while it is being made.
    pub digest: String,
    /// Until when it is kept.
    pub expires_at: Option<Timestamp>,
    /// When it was said to be gone.
    pub forgotten_at: Option<Timestamp>,
}

impl BackupView {
    fn from_row(row: &Row) -> Result<Self> {
        let keys: String = row.get("keys")?;
        Ok(Self {
            id: row.get("id")?,
            made_at: row.get("made_at")?,
            name: row.get("name")?,
            data_keys: keys.split_whitespace().map(str::to_owned).collect(),
            digest: row.get("digest")?,
            expires_at: row.get("expires_at")?,
            forgotten_at: row.get("forgotten_at")?,
        })
    }
}

/// Why a backup cannot be made, or is none.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file system, or the file's contents.
    #[error("{what}: {error}")]
    File {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// It is something else.
    #[error("this is not a backup of Lockwarden, or one of a newer version")]
    NotOne,
    /// It is for other keys.
    #[error(
        "the backup opens with {wanted}, and the key that was given is {given}: a backup needs the running key or the recovery key of its time"
    )]
    OtherKey {
        /// Whom it is wrapped for.
        wanted: String,
        /// The key that was given.
        given: String,
    },
    /// The place is taken.
    #[error("{} is not empty: a backup is restored into an empty place only, and nothing was changed", .0.display())]
    NotEmpty(PathBuf),
    /// The vault, its own or the restored one.
    #[error(transparent)]
    Vault(#[from] Error),
}

fn file(what: &'static str) -> impl FnOnce(io::Error) -> BackupError {
    move |error| BackupError::File { what, error }
}

/// What opens a backup.
pub enum OpensWith {
    /// The running key of its time.
    Running(Arc<KeyEncryptionKey>),
    /// The recovery key; the restored vault is wrapped for this new running key.
    Recovery {
        /// The recovery key of its time.
        recovery: Box<RecoveryKey>,
        /// The running key of the restored vault.
        new: Arc<KeyEncryptionKey>,
    },
}

impl OpensWith {
    fn recipient(&self) -> Recipient {
        match self {
            Self::Running(key) => key.recipient(),
            Self::Recovery { recovery, .. } => recovery.public().recipient(),
        }
    }

    fn unwrap(&self, header: &Header) -> Result<DataKey, BackupError> {
        let wrapped = header
            .wrappings
            .iter()
            .find(|one| one.recipient == self.recipient().to_string());
        let wrapped = wrapped.ok_or_else(|| {
            let all: Vec<_> = header
                .wrappings
                .iter()
                .map(|one| one.recipient.as_str())
                .collect();
            BackupError::OtherKey {
                wanted: all.join(" or "),
                given: self.recipient().to_string(),
            }
        })?;
        let wrapping = Wrapping {
            recipient: self.recipient(),
            bytes: BASE64
                .decode(wrapped.bytes.as_bytes())
                .map_err(|_| BackupError::NotOne)?,
        };
        let id = header.key.parse().map_err(|_| BackupError::NotOne)?;
        let opened = match self {
            Self::Running(key) => key.unwrap(Purpose::Cells, id, &wrapping),
            Self::Recovery { recovery, .. } => recovery.unwrap(Purpose::Cells, id, &wrapping),
        };
        opened.map_err(|error| BackupError::Vault(Error::Keys(error.into())))
    }

    fn running(&self) -> Arc<KeyEncryptionKey> {
        match self {
            Self::Running(key) => key.clone(),
            Self::Recovery { new, .. } => new.clone(),
        }
    }
}

/// The verbs on backups. See [`Escrow::backups`].
pub struct Backups<'a>(&'a Escrow);

impl Escrow {
    /// Backups of this vault.
    #[must_use]
    pub fn backups(&self) -> Backups<'_> {
        Backups(self)
    }
}

impl Backups<'_> {
    /// Writes a backup to a new file, while everything goes on, and reads it back. It is on record with the data keys that it needs,
    /// which are not destroyed before it ends. `name` is what it is called on record; `lasts_until` when it is no longer kept.
    ///
    /// # Errors
    /// When the permit no longer holds, the database fails, or the file cannot be written or read back; it is removed then.
    pub async fn make(
        &self,
        permit: &Permit<Admin>,
        path: &Path,
        name: &str,
        lasts_until: Option<Timestamp>,
    ) -> Result<Backup, BackupError> {
        let id = self.begin(permit, name, lasts_until).await?;
        let copy = self.0.folder().join(format!("backup-{id}.db"));
        let made = self.write(&id, &copy, path).await;
        // It is sealed as the database is; and it is not needed any more.
        let _ = std::fs::remove_file(&copy);
        match made {
            Ok(backup) => {
                self.end(permit, &backup).await?;
                Ok(backup)
            }
            Err(error) => {
                let _ = std::fs::remove_file(path);
                self.abandon(&id).await?;
                Err(error)
            }
        }
    }

    /// Puts on record that one is being made, so that no key is destroyed meanwhile.
    async fn begin(
        &self,
        permit: &Permit<Admin>,
        name: &str,
        lasts_until: Option<Timestamp>,
    ) -> Result<String> {
        let (escrow, confirmed, name) = (self.0.clone(), permit.clone(), name.to_owned());
        let result = self
            .0
            .db
            .write("backups.begin", async move |tx| {
                confirmed.confirm(tx).await?;
                let (id, now) = (tx.new_id().to_string(), tx.now());
                let keys = all_keys(&escrow.keyring()).join(" ");
                tx.execute(
                    "INSERT INTO backups (id, made_at, name, keys, digest, expires_at) VALUES ($1, $2, $3, $4, '', $5)",
                    params![id.as_str(), now, name.as_str(), keys, lasts_until],
                )
                .await?;
                let entry = confirmed.entry("backup.begin").subject(&id).detail("name", name.as_str());
                audit::record(tx, &escrow, entry).await?;
                Ok(id)
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    async fn end(&self, permit: &Permit<Admin>, backup: &Backup) -> Result<()> {
        let (escrow, confirmed, backup) = (self.0.clone(), permit.clone(), backup.clone());
        self.0
            .db
            .write("backups.end", async move |tx| {
                tx.execute(
                    "UPDATE backups SET digest = $2, keys = $3 WHERE id = $1",
                    params![
                        backup.id.as_str(),
                        backup.digest.as_str(),
                        backup.data_keys.join(" ")
                    ],
                )
                .await?;
                let entry = confirmed
                    .entry("backup.made")
                    .subject(&backup.id)
                    .detail("digest", backup.digest.as_str())
                    .detail("size", backup.size)
                    .detail("keys", backup.data_keys.join(" "));
                audit::record(tx, &escrow, entry).await
            })
            .await
    }

    /// The backups on record, newest first.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn list(&self, permit: &Permit<Admin>) -> Result<Vec<BackupView>> {
        let confirmed = permit.clone();
        let result = self
            .0
            .db
            .read(async move |tx| {
                confirmed.confirm(tx).await?;
                tx.fetch_all(
                    "SELECT id, made_at, name, keys, digest, expires_at, forgotten_at FROM backups ORDER BY id DESC",
                    params![],
                )
                .await?
                .iter()
                .map(BackupView::from_row)
                .collect()
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Puts on record that a backup is gone. False when there is none of that identifier, or it was forgotten before.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn forget(&self, permit: &Permit<Admin>, id: &str) -> Result<bool> {
        let (escrow, confirmed, id) = (self.0.clone(), permit.clone(), id.to_owned());
        let result = self
            .0
            .db
            .write("backups.forget", async move |tx| {
                confirmed.confirm(tx).await?;
                let now = tx.now();
                let forgotten = tx
                    .execute(
                        "UPDATE backups SET forgotten_at = $2 WHERE id = $1 AND forgotten_at IS NULL",
                        params![id.as_str(), now],
                    )
                    .await?;
                if forgotten == 1 {
                    audit::record(tx, &escrow, confirmed.entry("backup.forget").subject(&id)).await?;
                }
                Ok(forgotten == 1)
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    async fn abandon(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.0
            .db
            .write("backups.abandon", async move |tx| {
                let now = tx.now();
                tx.execute(
                    "UPDATE backups SET forgotten_at = $2 WHERE id = $1",
                    params![id.as_str(), now],
                )
                .await?;
                Ok(())
            })
            .await
    }

    async fn write(&self, id: &str, copy: &Path, path: &Path) -> Result<Backup, BackupError> {
        // The database first: what the journal knows beyond it is put back from there (R4).
        self.0
            .db
            .copy_to(copy, self.0.clock().now())
            .await
            .map_err(Error::Database)?;
        let recovery = self.0.db.read(keys::recovery_public).await?;
        let key = DataKey::generate(Purpose::Cells, &*self.0.shared.random);
        let random = &*self.0.shared.random;
        let mut wrappings = vec![self.0.shared.running.wrap(&key, random)];
        wrappings.extend(recovery.map(|public| public.wrap(&key, random)));
        let header = Header {
            format: FORMAT.to_owned(),
            id: id.to_owned(),
            made_at: self.0.clock().now().0,
            schema: crate::db::program_version(),
            data_keys: all_keys(&self.0.keyring()),
            key: key.id().to_string(),
            wrappings: wrappings
                .into_iter()
                .map(|wrapping| Wrapped {
                    recipient: wrapping.recipient.to_string(),
                    bytes: BASE64.encode(&wrapping.bytes),
                })
                .collect(),
        };
        let (copy, path, journal) = (
            copy.to_owned(),
            path.to_owned(),
            self.0.folder().join(JOURNAL),
        );
        let running = OpensWith::Running(self.0.shared.running.clone());
        let written = tokio::task::spawn_blocking(move || {
            write(&header, &key, &copy, &journal, &path)?;
            // What cannot be read back is no backup.
            look(&path, &running)
        });
        written
            .await
            .map_err(io::Error::other)
            .map_err(file("the backup was not finished"))?
    }
}

/// Every data key that is opened.
fn all_keys(keyring: &Keyring) -> Vec<String> {
    let all = Purpose::ALL
        .into_iter()
        .flat_map(|purpose| keyring.key_ids(purpose));
    all.map(|id| id.to_string()).collect()
}

fn write(
    header: &Header,
    key: &DataKey,
    copy: &Path,
    journal: &Path,
    path: &Path,
) -> Result<(), BackupError> {
    let line = serde_json::to_string(header)
        .map_err(|error| file("the header cannot be written")(error.into()))?;
    let new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(file("the backup cannot be made"))?;
    let mut out = BufWriter::new(new);
    let cannot = file("the backup cannot be written");
    let done = (|| {
        out.write_all(line.as_bytes())?;
        out.write_all(b"\n")?;
        let mut archive = ArchiveWriter::new(out, key, line.as_bytes());
        for (name, from) in [(DATABASE, copy), (JOURNAL, journal)] {
            match File::open(from) {
                Ok(from) => put(&mut archive, name, from)?,
                // There is no journal before the first lock.
                Err(error) if error.kind() == io::ErrorKind::NotFound && name == JOURNAL => {}
                Err(error) => return Err(error),
            }
        }
        let out = archive
            .finish()?
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        out.sync_all()
    })();
    done.map_err(cannot)
}

/// Adds a file as it is now: what is written to it meanwhile is not in it.
fn put(archive: &mut impl Write, name: &str, from: File) -> io::Result<()> {
    let length = from.metadata()?.len();
    let name_length = u8::try_from(name.len()).map_err(io::Error::other)?;
    archive.write_all(&[name_length])?;
    archive.write_all(name.as_bytes())?;
    archive.write_all(&length.to_be_bytes())?;
    let copied = io::copy(&mut from.take(length), archive)?;
    if copied == length {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// A backup whose key is opened.
struct Opened {
    header: Header,
    line: String,
    key: DataKey,
    from: BufReader<File>,
}

fn open(path: &Path, with: &OpensWith) -> Result<Opened, BackupError> {
    let cannot = || file("the backup cannot be read");
    let mut from = BufReader::new(File::open(path).map_err(cannot())?);
    let mut line = Vec::new();
    (&mut from)
        .take(LONGEST_HEADER)
        .read_until(b'\n', &mut line)
        .map_err(cannot())?;
    let line = String::from_utf8(line).map_err(|_| BackupError::NotOne)?;
    let line = line
        .strip_suffix('\n')
        .ok_or(BackupError::NotOne)?
        .to_owned();
    let header: Header = serde_json::from_str(&line).map_err(|_| BackupError::NotOne)?;
    if header.format != FORMAT {
        return Err(BackupError::NotOne);
    }
    let key = with.unwrap(&header)?;
    Ok(Opened {
        header,
        line,
        key,
        from,
    })
}

/// Reads a backup from its first byte to its last, and says what it is. Nothing is written.
///
/// # Errors
/// When it is none, does not open with this key, or was changed or cut off.
pub fn look(path: &Path, with: &OpensWith) -> Result<Backup, BackupError> {
    each(path, with, |_, entry| {
        io::copy(entry, &mut io::sink()).map(drop)
    })
}

/// Goes through the entries of a backup.
fn each(
    path: &Path,
    with: &OpensWith,
    mut take: impl FnMut(&str, &mut dyn Read) -> io::Result<()>,
) -> Result<Backup, BackupError> {
    let Opened {
        header,
        line,
        key,
        from,
    } = open(path, with)?;
    let cannot = || file("the backup was changed or cut off, or cannot be read");
    let mut archive = ArchiveReader::new(from, &key, line.as_bytes());
    let mut found = Vec::new();
    loop {
        let mut name_length = [0];
        if archive.read(&mut name_length).map_err(cannot())? == 0 {
            break;
        }
        let mut name = vec![0; usize::from(name_length[0])];
        archive.read_exact(&mut name).map_err(cannot())?;
        let mut length = [0; 8];
        archive.read_exact(&mut length).map_err(cannot())?;
        let name = String::from_utf8(name).map_err(|_| BackupError::NotOne)?;
        // Nothing of a backup is ever a path.
        if ![DATABASE, JOURNAL].contains(&name.as_str()) {
            return Err(BackupError::NotOne);
        }
        let length = u64::from_be_bytes(length);
        let mut entry = (&mut archive).take(length);
        take(&name, &mut entry).map_err(cannot())?;
        if entry.limit() != 0 {
            return Err(cannot()(io::ErrorKind::UnexpectedEof.into()));
        }
        found.push(name);
    }
    if !found.iter().any(|name| name == DATABASE) {
        return Err(BackupError::NotOne);
    }
    let (digest, size) = digest_of(path).map_err(cannot())?;
    Ok(Backup {
        id: header.id,
        made_at: Timestamp(header.made_at),
        schema: header.schema,
        data_keys: header.data_keys,
        digest,
        size,
    })
}

fn digest_of(path: &Path) -> io::Result<(String, u64)> {
    let mut from = File::open(path)?;
    let size = from.seek(SeekFrom::End(0))?;
    from.seek(SeekFrom::Start(0))?;
    let mut digest = seal::Digest::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok((digest.hex(), size)),
            read => digest.update(&buffer[..read]),
        }
    }
}

/// What came of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The backup.
    pub backup: Backup,
    /// Unlocks and locks that were live, and wait for a person now (R21).
    pub held: usize,
}

/// Restores a backup into an empty place, and sees that it opens. Every live unlock and lock waits for a person afterwards (R21), every
/// session has ended and every open approval is taken back: what happened since the backup is not known. Codes of locks come back from
/// the journal in it.
///
/// # Errors
/// When the place is not empty, the backup does not open or was changed, or the vault in it does not open. What was written is removed.
pub async fn restore(
    path: &Path,
    with: &OpensWith,
    folder: &Path,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> Result<Restored, BackupError> {
    let cannot = || file("the place for it cannot be made");
    let was_there = folder.exists();
    if was_there && folder.read_dir().map_err(cannot())?.next().is_some() {
        return Err(BackupError::NotEmpty(folder.to_owned()));
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(cannot())?;
    let restored = into(path, with, folder, clock, random).await;
    if restored.is_err() {
        // Half a vault would look like one.
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
        if !was_there {
            let _ = std::fs::remove_dir(folder);
        }
    }
    restored
}

async fn into(
    path: &Path,
    with: &OpensWith,
    folder: &Path,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> Result<Restored, BackupError> {
    let backup = each(path, with, |name, entry| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(folder.join(name))?;
        io::copy(entry, &mut file)?;
        file.sync_all()
    })?;
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(file("the restored files are not certain to be on disk"))?;
    if let OpensWith::Recovery { recovery, new } = with {
        keys::adopt(folder, recovery, new, clock.clone(), random.clone()).await?;
    }
    let escrow = Escrow::open(Opening {
        folder,
        database: Database::Embedded,
        kind: DataKind::Production,
        key: with.running(),
        recovery: None,
        clock,
        random,
    })
    .await?;
    let held = settle(&escrow, &backup).await;
    escrow.close().await;
    Ok(Restored {
        held: held?,
        backup,
    })
}

/// In a database that is a copy of another nothing fires by itself (R21): what was under way waits for a person, nobody is signed
/// in, and no approval is open. Does nothing where that was done.
pub(crate) async fn settle_copy(escrow: &Escrow) -> Result<()> {
    let copied_at = escrow.db.read(async |tx| {
        let row = tx
            .fetch_one("SELECT copied_at FROM meta", params![])
            .await?;
        row.get::<Option<Timestamp>>("copied_at")
    });
    if copied_at.await?.is_none() {
        return Ok(());
    }
    let held = escrow.operations().hold_after_restore().await?;
    let owner = escrow.clone();
    escrow
        .db
        .write("backups.settle_copy", async move |tx| {
            end_sessions_and_approvals(tx).await?;
            tx.execute("UPDATE meta SET copied_at = NULL", params![])
                .await?;
            let actor = Actor::system("command line", Permissions::NONE);
            let entry = Entry::by(&actor, &nowhere(), "database.copy")
                .detail("held", u64::try_from(held).unwrap_or(u64::MAX));
            audit::record(tx, &owner, entry).await
        })
        .await
}

async fn end_sessions_and_approvals(tx: &mut Tx<'_>) -> Result<()> {
    let now = tx.now();
    tx.execute(
        "UPDATE sessions SET ended_at = $1, ended_by = 'a restore' WHERE ended_at IS NULL",
        params![now],
    )
    .await?;
    tx.execute(
        "UPDATE approvals SET state = 'cancelled', decided_at = $1 WHERE state IN ('asked', 'approved')",
        params![now],
    )
    .await?;
    Ok(())
}

async fn settle(escrow: &Escrow, backup: &Backup) -> Result<usize> {
    let held = escrow.operations().hold_after_restore().await?;
    let (owner, id) = (escrow.clone(), backup.id.clone());
    escrow
        .db
        .write("backups.restored", async move |tx| {
            end_sessions_and_approvals(tx).await?;
            let actor = Actor::system("command line", Permissions::NONE);
            let entry = Entry::by(&actor, &nowhere(), "backup.restore")
                .subject(&id)
                .detail("held", u64::try_from(held).unwrap_or(u64::MAX));
            audit::record(tx, &owner, entry).await
        })
        .await?;
    Ok(held)
}
