//! The vault: every fact about devices, codes, commands, unlocks and people, and every change of them.
//!
//! This is the only crate that knows SQL. Its verbs sit on nouns: `escrow.devices().list(..)`,
//! `escrow.codes().reveal(..)`, `escrow.operations().enqueue(..)`, and the hot one, [`Escrow::record`]. A verb that changes or
//! reveals anything takes a [`permit::Permit`], which only [`Escrow::authorise`] makes. When a verb returns, what it did
//! is durable.

pub mod approvals;
pub mod audit;
pub mod backups;
pub mod business_apis;
pub mod clock;
pub mod codes;
pub mod commands;
pub mod connections;
pub mod coverage;
mod db;
pub mod devices;
pub mod enrollments;
pub mod exports;
pub mod keys;
mod ledger;
pub mod listing;
pub mod lock_statuses;
pub mod locks;
pub mod meta;
mod names;
pub mod notices;
pub mod operations;
pub mod organisations;
pub mod pace;
pub mod people;
pub mod permit;
pub mod principals;
pub mod push_certificates;
pub mod record;
mod search;
pub mod server_tokens;
pub mod sessions;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use seal::{KeyEncryptionKey, Keyring, Random, RecoveryPublicKey};
use tokio::sync::{Notify, Semaphore, watch};
use zeroize::Zeroizing;

use crate::clock::{Clock, Steady};
pub use crate::db::{Fault, LiveSettings, OpenError};
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
    courier: Notify,
    asks: Notify,
    operations: Notify,
    statuses: Notify,
    listings: Notify,
    rotations: Notify,
    notices: Notify,
    lock_journal: locks::journal::LockJournal,
    /// How many passwords are hashed at once: each takes 19 MiB and a core.
    hashing: Semaphore,
    /// Counts the changes of connections.
    connections: watch::Sender<u64>,
}

/// What [`Escrow::open`] needs to know.
pub struct Opening<'a> {
    /// The data folder; made, with mode 0700, when it is not there.
    pub folder: &'a Path,
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
            kind,
            key,
            recovery,
            clock,
            random,
        } = opening;
        let clock = Arc::new(Steady::new(clock));
        let db = db::Db::open(db::Opening {
            folder,
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
        Self {
            db,
            shared: Arc::new(Shared {
                clock,
                keyring: RwLock::new(Arc::new(keyring)),
                running,
                random,
                kind,
                line: record::Line::default(),
                courier: Notify::new(),
                asks: Notify::new(),
                operations: Notify::new(),
                statuses: Notify::new(),
                listings: Notify::new(),
                rotations: Notify::new(),
                notices: Notify::new(),
                lock_journal,
                hashing: Semaphore::new(PASSWORDS_AT_ONCE),
                connections: watch::Sender::new(0),
            }),
        }
    }

    /// What earlier processes held is free again: whoever held it is dead. What the lock journal knows and the database has
    /// forgotten is put back (R4).
    async fn recover(&self) -> Result<()> {
        if let Some(last) = self.audit().last_moment().await? {
            self.shared.clock.not_before(last);
        }
        self.operations()
            .free_leases_of_earlier_incarnations()
            .await?;
        self.commands().free_leases().await?;
        self.audit().free_lease().await?;
        self.locks().replay().await?;
        Ok(())
    }

    /// What `db status` shows of a data folder; `None` when there is no database in it. Takes no lock, changes nothing.
    ///
    /// # Errors
    /// When there is a database that cannot be read.
    pub async fn status(folder: &Path) -> Result<Option<Status>> {
        Ok(db::Db::status(folder).await?)
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

    /// The data folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.db.folder()
    }

    /// How the writer's connection is set, read back from it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn live_settings(&self) -> Result<LiveSettings> {
        self.db.live_settings().await
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
        listing::Listings(self)
    }

    /// What the Business and School Manager API knows us by.
    #[must_use]
    pub fn business_apis(&self) -> business_apis::BusinessApis<'_> {
        business_apis::BusinessApis(self)
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

    /// Waits until commands may have become due.
    pub async fn courier_woken(&self) {
        self.shared.courier.notified().await;
    }

    /// Waits until [`commands::Commands::plan_due`] may have something to do before its time. A wake-up that came since the
    /// last wait counts.
    pub async fn asks_woken(&self) {
        self.shared.asks.notified().await;
    }

    /// Changes with every change of a connection or its secrets, so that copies of them are read anew.
    #[must_use]
    pub fn connection_changes(&self) -> watch::Receiver<u64> {
        self.shared.connections.subscribe()
    }

    pub(crate) fn connections_changed(&self) {
        self.shared.connections.send_modify(|changes| *changes += 1);
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

    pub(crate) fn wake_courier(&self) {
        self.shared.courier.notify_one();
    }

    /// Waits until Apple's status of a lock may have become due.
    pub async fn statuses_woken(&self) {
        self.shared.statuses.notified().await;
    }

    pub(crate) fn wake_statuses(&self) {
        self.shared.statuses.notify_one();
    }

    /// Waits until a list of Apple's may have become due.
    pub async fn listings_woken(&self) {
        self.shared.listings.notified().await;
    }

    pub(crate) fn wake_listings(&self) {
        self.shared.listings.notify_one();
    }

    pub(crate) fn lock_journal(&self) -> &locks::journal::LockJournal {
        &self.shared.lock_journal
    }

    pub(crate) fn operations_wake(&self) -> &Notify {
        &self.shared.operations
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
        *self
            .shared
            .keyring
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(keyring);
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
