//! The vault: every fact about devices, codes, commands, unlocks and people, and every change of them.
//!
//! This is the only crate that knows SQL. Its verbs sit on nouns: `escrow.devices().list(..)`,
//! `escrow.codes().reveal(..)`, `escrow.operations().enqueue(..)`, and the hot one, [`Escrow::record`]. A verb that changes or
//! reveals anything takes a [`permit::Permit`], which only [`Escrow::authorise`] makes. When a verb returns, what it did
//! is durable.

pub mod approvals;
pub mod audit;
pub mod backups;
pub mod batches;
pub mod business_apis;
pub mod clock;
pub mod codes;
pub mod commands;
pub mod connections;
pub mod coverage;
mod db;
pub mod devices;
pub mod duties;
pub mod enrollments;
pub mod exports;
pub mod keys;
mod ledger;
pub mod listing;
pub mod lock_statuses;
pub mod locks;
pub mod meta;
pub mod moving;
mod names;
mod news;
pub mod notices;
pub mod operations;
pub mod organisations;
pub mod pace;
pub mod people;
pub mod permit;
pub mod principals;
pub mod push_certificates;
pub mod record;
pub mod replicas;
mod search;
pub mod server_tokens;
pub mod sessions;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use seal::{KeyEncryptionKey, Keyring, Random, RecoveryPublicKey};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::clock::{Clock, Steady};
pub use crate::db::{
    BadAddress, Database, Fault, LiveSettings, OpenError, PostgresAddress, Weakness,
};
use crate::meta::{DataKind, Status};
use crate::permit::Refusal;

/// The result of a verb.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a verb did nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The actor may not, or may no longer.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] Fault),
    /// A data folder could not be opened; nothing in it was changed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The keys of a database did not open; nothing was changed.
    #[error(transparent)]
    Keys(#[from] keys::KeysError),
    /// A sealed value does not open.
    #[error("a sealed value does not open, and nothing was changed: {0}")]
    Seal(#[from] seal::OpenError),
    /// The lock journal cannot be read; nothing was changed.
    #[error(
        "the lock journal cannot be read, and without it no lock is safe: {0}; it is in the data folder"
    )]
    Journal(#[from] std::io::Error),
    /// A value in the database is not what this program writes.
    #[error(
        "the database holds a value in {0} that this program does not write: it was changed by another program, or is damaged"
    )]
    Corrupt(&'static str),
}

/// Passwords that are hashed at the same time. Others wait.
const PASSWORDS_AT_ONCE: usize = 2;

/// The vault. Copies of it are one vault.
#[derive(Clone)]
pub struct Escrow {
    db: db::Db,
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<Steady>,
    /// Exchanged while the vault is in use.
    keyring: RwLock<Arc<Keyring>>,
    /// Unwraps the data keys, and wraps new ones.
    running: Arc<KeyEncryptionKey>,
    random: Arc<dyn Random>,
    kind: DataKind,
    line: record::Line,
    waits: news::Waits,
    lock_journal: locks::journal::LockJournal,
    /// How often the database had been connected to anew when the lock journal was last compared with it.
    replayed_at: AtomicU64,
    /// How many passwords are hashed at once: each takes 19 MiB and a core.
    hashing: Semaphore,
}

impl Shared {
    fn set_keyring(&self, keyring: Keyring) {
        *self.keyring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keyring);
    }
}

/// What [`Escrow::open`] needs to know.
pub struct Opening<'a> {
    /// The data folder; made, with mode 0700, when it is not there.
    pub folder: &'a Path,
    /// Which database the vault is in.
    pub database: Database,
    /// What the folder must be, or is made as. The two kinds are never mixed.
    pub kind: DataKind,
    /// The running key, which unwraps the data keys.
    pub key: Arc<KeyEncryptionKey>,
    /// For a new folder: the public half of the recovery key (R25). A sandbox may do without.
    pub recovery: Option<RecoveryPublicKey>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

impl Escrow {
    /// Opens the vault of a data folder, making it when it is not there. The folder is locked against other processes, and
    /// leases of earlier ones on it are freed.
    ///
    /// # Errors
    /// When the folder is in use, of the other kind, of a newer program, or sealed with another key.
    pub async fn open(opening: Opening<'_>) -> Result<Self> {
        let Opening {
            folder,
            database,
            kind,
            key,
            recovery,
            clock,
            random,
        } = opening;
        let clock = Arc::new(Steady::new(clock));
        let db = db::Db::open(db::Opening {
            folder,
            database,
            kind,
            clock: clock.clone(),
            random: random.clone(),
        })
        .await?;
        let keyring = match keys::open(
            &db,
            key.clone(),
            recovery,
            kind == DataKind::Production,
            random.clone(),
        )
        .await
        {
            Ok(keyring) => keyring,
            Err(error) => {
                db.close().await;
                return Err(error);
            }
        };
        let escrow = Self::around(db, clock.clone(), keyring, key, random, kind);
        if let Err(error) = escrow.recover().await {
            escrow.close().await;
            return Err(error);
        }
        Ok(escrow)
    }

    /// Looks into the vault of a data folder that another process may hold, for `doctor`. Its verbs that change something
    /// answer that the database is closed. `recovery` is not looked at.
    ///
    /// # Errors
    /// When there is no vault, it is of the other kind, of a newer program, or sealed with another key.
    pub async fn look(opening: Opening<'_>) -> Result<Self> {
        let clock = Arc::new(Steady::new(opening.clock));
        let db = db::Db::look(db::Opening {
            folder: opening.folder,
            database: opening.database,
            kind: opening.kind,
            clock: clock.clone(),
            random: opening.random.clone(),
        })
        .await?;
        match keys::look(&db, &opening.key).await {
            Ok(keyring) => Ok(Self::around(
                db,
                clock,
                keyring,
                opening.key,
                opening.random,
                opening.kind,
            )),
            Err(error) => {
                db.close().await;
                Err(error)
            }
        }
    }

    fn around(
        db: db::Db,
        clock: Arc<Steady>,
        keyring: Keyring,
        running: Arc<KeyEncryptionKey>,
        random: Arc<dyn Random>,
        kind: DataKind,
    ) -> Self {
        let lock_journal = locks::journal::LockJournal::of(db.folder());
        let shared = Arc::new(Shared {
            clock,
            keyring: RwLock::new(Arc::new(keyring)),
            running,
            random,
            kind,
            line: record::Line::default(),
            waits: news::Waits::new(),
            lock_journal,
            replayed_at: AtomicU64::new(0),
            hashing: Semaphore::new(PASSWORDS_AT_ONCE),
        });
        let told = shared.clone();
        db.hooks().set(
            move |word| told.waits.heard(word),
            keys::reader(shared.clone()),
        );
        Self { db, shared }
    }

    /// Where nobody else uses the database, what earlier processes held is free again: whoever held it is dead. Elsewhere leases
    /// end by their time. What the lock journal knows and the database has forgotten is put back (R4), and in a copy nothing
    /// fires by itself (R21).
    async fn recover(&self) -> Result<()> {
        if let Some(last) = self.audit().last_moment().await? {
            self.shared.clock.not_before(last);
        }
        if !self.db.is_shared() {
            self.operations()
                .free_leases_of_earlier_incarnations()
                .await?;
            self.commands().free_leases().await?;
            self.audit().free_lease().await?;
            self.duties().free().await?;
        }
        backups::settle_copy(self).await?;
        self.locks().replay().await?;
        Ok(())
    }

    /// Compares the lock journal with the database when that was connected to anew since: a standby that has taken over may have
    /// forgotten codes (R4).
    async fn mind_journal(&self) -> Result<()> {
        while let Some(count) = self.unminded() {
            self.locks().replay().await?;
            self.shared.replayed_at.store(count, Ordering::SeqCst);
        }
        Ok(())
    }

    /// How often the database was connected to anew, when the lock journal was not compared with it since.
    fn unminded(&self) -> Option<u64> {
        let count = *self.db.hooks().reconnections().borrow();
        (self.shared.replayed_at.load(Ordering::SeqCst) != count).then_some(count)
    }

    /// A write that decides which code a call takes: not in a database that may have forgotten one.
    pub(crate) async fn write_minding_journal<T, F>(&self, name: &'static str, verb: F) -> Result<T>
    where
        F: AsyncFn(&mut db::Tx<'_>) -> Result<T> + Clone + Send + 'static,
        T: Send + 'static,
    {
        loop {
            self.mind_journal().await?;
            let (escrow, verb) = (self.clone(), verb.clone());
            let done = self.db.write(name, async move |tx| {
                // The connection of this very transaction may be a new one.
                match escrow.unminded() {
                    Some(_) => Ok(None),
                    None => verb(tx).await.map(Some),
                }
            });
            if let Some(done) = done.await? {
                return Ok(done);
            }
        }
    }

    /// Waits until the database was connected to anew, and compares the lock journal with it. Never ends by itself where the
    /// database is a file.
    ///
    /// # Errors
    /// When the journal cannot be read, or the database fails.
    pub async fn watch_journal(&self) -> Result<()> {
        let mut count = self.db.hooks().reconnections();
        let replayed_at = &self.shared.replayed_at;
        let changed = count.wait_for(|count| *count != replayed_at.load(Ordering::SeqCst));
        // The sender is in the database itself.
        let _ = changed.await;
        self.mind_journal().await
    }

    /// What `db status` shows of a data folder; `None` when there is no database in it. Takes no lock, changes nothing.
    ///
    /// # Errors
    /// When there is a database that cannot be read.
    pub async fn status(
        folder: &Path,
        database: Database,
        clock: &dyn Clock,
    ) -> Result<Option<Status>> {
        Ok(db::Db::status(folder, database, clock.now()).await?)
    }

    /// Waits for verbs in line, closes the database and unlocks the folder.
    pub async fn close(&self) {
        self.db.close().await;
    }

    /// What the folder holds.
    #[must_use]
    pub fn kind(&self) -> DataKind {
        self.shared.kind
    }

    /// The clock that everything here is dated by: the one it was opened with, except that it never goes back.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.shared.clock.clone()
    }

    /// How far this machine's clock is behind that one, in milliseconds; less than nothing when it is ahead. It was set back, or
    /// the database's server has another time.
    #[must_use]
    pub fn clock_behind(&self) -> i64 {
        self.shared.clock.behind()
    }

    /// The data folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.db.folder()
    }

    /// How the database keeps what is committed, read back from a connection that writes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn live_settings(&self) -> Result<LiveSettings> {
        self.db.live_settings().await
    }

    /// How large the database is, in bytes. On SQLite without its write-ahead log.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn database_bytes(&self) -> Result<u64> {
        self.db.bytes().await
    }

    /// Devices: list, show, correct.
    #[must_use]
    pub fn devices(&self) -> devices::Devices<'_> {
        devices::Devices(self)
    }

    /// Codes: reveal, add by hand.
    #[must_use]
    pub fn codes(&self) -> codes::Codes<'_> {
        codes::Codes(self)
    }

    /// Commands on their way to devices.
    #[must_use]
    pub fn commands(&self) -> commands::Commands<'_> {
        commands::Commands(self)
    }

    /// Enrollments: which are known, which dispute a serial number.
    #[must_use]
    pub fn enrollments(&self) -> enrollments::Enrollments<'_> {
        enrollments::Enrollments(self)
    }

    /// How many devices have their code held.
    #[must_use]
    pub fn coverage(&self) -> coverage::Coverage<'_> {
        coverage::Coverage(self)
    }

    /// Unlocks.
    #[must_use]
    pub fn operations(&self) -> operations::Operations<'_> {
        operations::Operations(self)
    }

    /// Locks by the organisation.
    #[must_use]
    pub fn locks(&self) -> locks::Locks<'_> {
        locks::Locks(self)
    }

    /// Apple's own status of locks.
    #[must_use]
    pub fn lock_statuses(&self) -> lock_statuses::LockStatuses<'_> {
        lock_statuses::LockStatuses(self)
    }

    /// What Apple's enrolment service knows us by.
    #[must_use]
    pub fn server_tokens(&self) -> server_tokens::ServerTokens<'_> {
        server_tokens::ServerTokens(self)
    }

    /// The devices that Apple's lists name.
    #[must_use]
    pub fn listing(&self) -> listing::Listings<'_> {
        listing::Listings(self, None)
    }

    /// What one process does for all.
    #[must_use]
    pub fn duties(&self) -> duties::Duties<'_> {
        duties::Duties(self)
    }

    /// What the Business and School Manager API knows us by.
    #[must_use]
    pub fn business_apis(&self) -> business_apis::BusinessApis<'_> {
        business_apis::BusinessApis(self)
    }

    /// The processes on this database.
    #[must_use]
    pub fn replicas(&self) -> replicas::Replicas<'_> {
        replicas::Replicas(self)
    }

    /// Organisations and their policies.
    #[must_use]
    pub fn organisations(&self) -> organisations::Organisations<'_> {
        organisations::Organisations(self)
    }

    /// Principals and their tokens.
    #[must_use]
    pub fn principals(&self) -> principals::Principals<'_> {
        principals::Principals(self)
    }

    /// Connections to MDMs.
    #[must_use]
    pub fn connections(&self) -> connections::Connections<'_> {
        connections::Connections(self)
    }

    /// Push certificates.
    #[must_use]
    pub fn push_certificates(&self) -> push_certificates::PushCertificates<'_> {
        push_certificates::PushCertificates(self)
    }

    /// The actor that a connection is, for the audit trail of what its MDM reported.
    pub(crate) fn connection_actor(&self, connection: &str) -> permit::Actor {
        permit::Actor {
            principal: format!("connection:{connection}"),
            kind: permit::PrincipalKind::Connection,
            name: connection.to_owned(),
            grants: permit::Grants::of(
                permit::Scope::All,
                permit::Permissions::of(&[permit::Permission::Record]),
            ),
            proof: permit::Proof::Connection(connection.to_owned()),
            address: None,
            owner: None,
            unfinished: false,
            leave: approvals::Leave::Plain,
        }
    }

    pub(crate) fn lock_journal(&self) -> &locks::journal::LockJournal {
        &self.shared.lock_journal
    }

    /// The keys of now. They may be exchanged at any time: what belongs together is done with one of these.
    pub(crate) fn keyring(&self) -> Arc<Keyring> {
        self.shared
            .keyring
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_keyring(&self, keyring: Keyring) {
        self.shared.set_keyring(keyring);
    }

    pub(crate) fn random(&self) -> &dyn Random {
        &*self.shared.random
    }

    pub(crate) fn seal_cell(
        &self,
        kind: &'static str,
        organisation: &str,
        row: &str,
        plaintext: &[u8],
    ) -> Vec<u8> {
        self.keyring()
            .seal_cell(kind, organisation, row, plaintext, self.random())
    }

    pub(crate) fn open_cell(
        &self,
        kind: &'static str,
        organisation: &str,
        row: &str,
        cell: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        Ok(self.keyring().open_cell(kind, organisation, row, cell)?)
    }
}
