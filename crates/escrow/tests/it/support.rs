//! A vault in a folder of its own, with a clock and randomness in the test's hands.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use activation_lock::codes::{CodeKind, CodeText};
use activation_lock::device::SerialNumber;
use activation_lock::time::Timestamp;
use escrow::clock::ManualClock;
use escrow::codes::{RevealedCode, TypedCode};
use escrow::connections::{ConnectionKind, ConnectionRef, HookAuth, NewConnection, UnlockVia};
use escrow::devices::DeviceView;
use escrow::meta::DataKind;
use escrow::organisations::Created;
use escrow::permit::{Actor, OrganisationId, Permissions, Permit, Right};
use escrow::{Database, Escrow, Opening};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use seal::{KeyEncryptionKey, Random, RecoveryKey};
use tempfile::TempDir;

/// Published vectors, used as codes.
pub(crate) const CODE_A: &str = "000H4-0R40M-30F2-0918-5HR3-8F17";
/// Another.
pub(crate) const CODE_B: &str = "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4";
/// A third.
pub(crate) const CODE_C: &str = "PXH8M-QYJZA-2H1J-H9CV-HN5U-KDN7";

/// Randomness from a seed.
pub(crate) struct Seeded(Mutex<ChaCha20Rng>);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(ChaCha20Rng::seed_from_u64(seed)))
    }
}

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap().fill_bytes(bytes);
    }
}

/// A vault with one organisation.
pub(crate) struct Vault {
    pub(crate) escrow: Escrow,
    pub(crate) clock: ManualClock,
    pub(crate) organisation: OrganisationId,
    pub(crate) actor: Actor,
    folder: TempDir,
    connections: Mutex<HashMap<String, ConnectionRef>>,
    digests: Mutex<u64>,
}

/// The database of a folder, on whichever engine the tests run.
pub(crate) fn database(folder: &Path) -> Database {
    sim::test_database(folder).map_or(Database::Embedded, |address| {
        Database::Postgres(address.parse().unwrap())
    })
}

/// Opens the vault of a folder with the key that every test folder has.
pub(crate) async fn open(folder: &Path, clock: &ManualClock, seed: u64) -> escrow::Result<Escrow> {
    open_in(folder, database(folder), clock, seed).await
}

pub(crate) async fn open_in(
    folder: &Path,
    database: Database,
    clock: &ManualClock,
    seed: u64,
) -> escrow::Result<Escrow> {
    let same = Seeded::new(1);
    let key = Arc::new(KeyEncryptionKey::generate(&same));
    let recovery = RecoveryKey::generate(&same);
    Escrow::open(Opening {
        folder,
        database,
        kind: DataKind::Production,
        key,
        recovery: Some(recovery.public().clone()),
        clock: Arc::new(clock.clone()),
        random: Arc::new(Seeded::new(seed)),
    })
    .await
}

impl Vault {
    pub(crate) async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let database = database(folder.path());
        Self::of(folder, database).await
    }

    /// One whose database is a file, whichever engine the tests run on.
    pub(crate) async fn in_a_file() -> Self {
        Self::of(TempDir::new().unwrap(), Database::Embedded).await
    }

    /// One in a database of a server.
    pub(crate) async fn on(address: &str) -> Self {
        let database = Database::Postgres(address.parse().unwrap());
        Self::of(TempDir::new().unwrap(), database).await
    }

    async fn of(folder: TempDir, database: Database) -> Self {
        let clock = ManualClock::new(Timestamp(1_780_000_000_000));
        let escrow = open_in(folder.path(), database, &clock, 2).await.unwrap();
        let actor = Actor::system("test", Permissions::all());
        let made = escrow
            .organisations()
            .create(&actor, "Example School")
            .await
            .unwrap();
        let Created::New(organisation) = made else {
            panic!("the first organisation is new")
        };
        Self {
            escrow,
            clock,
            organisation: organisation.id,
            actor,
            folder,
            connections: Mutex::default(),
            digests: Mutex::default(),
        }
    }

    /// The data folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Closes the vault, does something to its folder, and opens it again.
    pub(crate) async fn reopen(&mut self, meanwhile: impl FnOnce(&Path)) {
        self.escrow.close().await;
        meanwhile(self.folder.path());
        self.escrow = open(self.folder.path(), &self.clock, 3).await.unwrap();
    }

    pub(crate) fn now(&self) -> Timestamp {
        use escrow::clock::Clock;
        self.clock.now()
    }

    pub(crate) async fn permit<P: Right>(&self, subject: &str) -> Permit<P> {
        self.escrow
            .authorise(&self.actor, &self.organisation, subject)
            .await
            .unwrap()
    }

    /// The identifier of the connection of that name, made at first mention.
    pub(crate) async fn connection(&self, name: &str) -> String {
        if let Some(known) = self.connections.lock().unwrap().get(name) {
            return known.id.clone();
        }
        let new = NewConnection {
            name: name.to_owned(),
            kind: ConnectionKind::NanoMdm,
            base_url: "http://127.0.0.1:9".to_owned(),
            path_prefix: String::new(),
            username: "nanomdm".to_owned(),
            api_key: "key".to_owned().into(),
            hook_auth: HookAuth::Hmac,
            hmac_secret: None,
            unlock_via: UnlockVia::Own,
            max_rate: None,
        };
        let permit = self.permit("connections").await;
        let made = self.escrow.connections().add(&permit, new).await.unwrap();
        let Ok((view, _)) = made else {
            panic!("the connection was refused")
        };
        let reference = view.reference();
        self.connections
            .lock()
            .unwrap()
            .insert(name.to_owned(), reference.clone());
        reference.id
    }

    pub(crate) fn connection_ref(&self, id: &str) -> ConnectionRef {
        ConnectionRef {
            organisation: self.organisation.clone(),
            id: id.to_owned(),
        }
    }

    /// A digest that no event had before.
    pub(crate) fn next_digest(&self) -> [u8; 32] {
        let mut next = self.digests.lock().unwrap();
        *next += 1;
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&next.to_le_bytes());
        digest
    }

    /// Whether the audit record is whole.
    pub(crate) async fn record_is_whole(&self) -> bool {
        let mut verifier = self.escrow.audit().verifier();
        verifier.record().await.unwrap().is_none()
    }

    pub(crate) async fn find(&self, serial: &str) -> Option<DeviceView> {
        let serial: SerialNumber = serial.parse().unwrap();
        let permit = self.permit(serial.as_str()).await;
        self.escrow.devices().get(&permit, &serial).await.unwrap()
    }

    pub(crate) async fn device(&self, serial: &str) -> DeviceView {
        self.find(serial).await.expect("the device is known")
    }

    pub(crate) async fn reveal(&self, serial: &str) -> Vec<RevealedCode> {
        let serial: SerialNumber = serial.parse().unwrap();
        let permit = self.permit(serial.as_str()).await;
        self.escrow
            .codes()
            .reveal(&permit, &serial, "a test")
            .await
            .unwrap()
    }

    pub(crate) async fn type_code(&self, serial: &str, text: &str) {
        let serial: SerialNumber = serial.parse().unwrap();
        let permit = self.permit(serial.as_str()).await;
        let text = CodeText::new(text.to_owned()).unwrap();
        let typed = TypedCode {
            serial,
            text,
            kind: CodeKind::Unknown,
            note: None,
        };
        self.escrow.codes().add_typed(&permit, typed).await.unwrap();
    }

    pub(crate) async fn user_lock_policy(&self, policy: &str) {
        let permit = self.permit("policy").await;
        self.escrow
            .organisations()
            .set_user_lock(&permit, policy.parse().unwrap())
            .await
            .unwrap();
    }
}
