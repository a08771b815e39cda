//! Backups: made while everything goes on, opened by either key, restored into an empty place, and what a restore makes of it (R21, R25).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use activation_lock::operation::StateName;
use escrow::backups::{self, Backup, BackupError, OpensWith};
use escrow::devices::Corrections;
use escrow::keys::{DestroyProblem, Step};
use escrow::meta::DataKind;
use escrow::operations::NewUnlock;
use escrow::permit::{Admin, Permit, Read, Role, Unlock};
use escrow::{Escrow, Opening};
use seal::{KeyEncryptionKey, Purpose, RecoveryKey};
use tempfile::TempDir;

use crate::people::settled;
use crate::support::{CODE_A, CODE_B, Seeded, Vault};

const SERIAL: &str = "BACKEDUP0001";

/// The keys that every test folder has: see [`crate::support::open`].
fn keys() -> (Arc<KeyEncryptionKey>, RecoveryKey) {
    let same = Seeded::new(1);
    let key = Arc::new(KeyEncryptionKey::generate(&same));
    (key, RecoveryKey::generate(&same))
}

fn running() -> OpensWith {
    OpensWith::Running(keys().0)
}

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("vault.backup")
    }

    fn restored(&self) -> PathBuf {
        self.folder.path().join("restored")
    }
}

async fn make(vault: &Vault, path: &Path) -> Backup {
    let permit: Permit<Admin> = vault.permit("backup").await;
    vault
        .escrow
        .backups()
        .make(&permit, path, "of today", None)
        .await
        .unwrap()
}

async fn restore(
    vault: &Vault,
    place: &Place,
    with: &OpensWith,
) -> Result<backups::Restored, BackupError> {
    let (clock, random) = (Arc::new(vault.clock.clone()), Arc::new(Seeded::new(5)));
    backups::restore(&place.file(), with, &place.restored(), clock, random).await
}

async fn open(vault: &Vault, folder: &Path, key: Arc<KeyEncryptionKey>) -> Escrow {
    let opening = Opening {
        folder,
        database: escrow::Database::Embedded,
        kind: DataKind::Production,
        key,
        recovery: None,
        clock: Arc::new(vault.clock.clone()),
        random: Arc::new(Seeded::new(6)),
    };
    Escrow::open(opening).await.unwrap()
}

async fn codes(escrow: &Escrow, vault: &Vault) -> Vec<String> {
    let permit: Permit<escrow::permit::Reveal> = escrow
        .authorise(&vault.actor, &vault.organisation, SERIAL)
        .await
        .unwrap();
    let revealed = escrow
        .codes()
        .reveal(&permit, &SERIAL.parse().unwrap(), "a drill")
        .await
        .unwrap();
    revealed
        .iter()
        .map(|code| code.text.expose().to_owned())
        .collect()
}

#[tokio::test]
async fn t35_with_nothing_but_a_backup_and_the_recovery_key_every_code_is_there_again() {
    let vault = Vault::new().await;
    vault.type_code(SERIAL, CODE_A).await;
    let place = Place::new();
    let backup = make(&vault, &place.file()).await;
    vault.type_code(SERIAL, CODE_B).await;
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(place.file()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let left = fs::read_dir(vault.path()).unwrap().filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with("backup-")
    });
    assert_eq!(left.count(), 0, "the copy is gone");

    let (_, recovery) = keys();
    let new = Arc::new(KeyEncryptionKey::generate(&Seeded::new(50)));
    let with = OpensWith::Recovery {
        recovery: Box::new(recovery),
        new: new.clone(),
    };
    let restored = restore(&vault, &place, &with).await.unwrap();
    assert_eq!(restored.backup, backup);
    let again = open(&vault, &place.restored(), new).await;
    assert_eq!(codes(&again, &vault).await, [CODE_A]);
    assert_eq!(again.audit().verifier().record().await.unwrap(), None);
    again.close().await;
}

#[tokio::test]
async fn r21_after_a_restore_nothing_fires_by_itself_and_nobody_is_signed_in() {
    let vault = Vault::new().await;
    vault.type_code(SERIAL, CODE_A).await;
    let set = Corrections {
        product_type: "iPad4,1".parse().ok(),
        ..Corrections::default()
    };
    let permit = vault.permit(SERIAL).await;
    vault
        .escrow
        .devices()
        .correct(&permit, &SERIAL.parse().unwrap(), &set)
        .await
        .unwrap();
    let zoe = settled(&vault, "zoe", &[Role::Viewer]).await;
    let session = zoe.session(&vault).await;
    let may: Permit<Unlock> = vault.permit(SERIAL).await;
    let wish = NewUnlock {
        serial: SERIAL.parse().unwrap(),
        reason: "returned".to_owned(),
        requester: "desk".to_owned(),
        insists: false,
        urgent: true,
        idempotency: None,
    };
    vault.escrow.operations().enqueue(&may, wish).await.unwrap();
    let place = Place::new();
    make(&vault, &place.file()).await;
    let restored = restore(&vault, &place, &running()).await.unwrap();
    assert_eq!(restored.held, 1);
    let again = open(&vault, &place.restored(), keys().0).await;
    let read: Permit<Read> = again
        .authorise(&vault.actor, &vault.organisation, SERIAL)
        .await
        .unwrap();
    let unlocks = again
        .operations()
        .of_device(&read, &SERIAL.parse().unwrap(), 5)
        .await
        .unwrap();
    assert_eq!(unlocks[0].state, StateName::NeedsReview);
    let who = again
        .sessions()
        .authenticate(session.expose(), None, escrow::sessions::Rules::default())
        .await;
    assert!(who.unwrap().is_none());
    again.close().await;
}

#[tokio::test]
async fn t35_a_backup_that_was_touched_is_none_and_leaves_nothing_behind() {
    let vault = Vault::new().await;
    vault.type_code(SERIAL, CODE_A).await;
    let place = Place::new();
    make(&vault, &place.file()).await;
    backups::look(&place.file(), &running()).unwrap();
    let whole = fs::read(place.file()).unwrap();
    let header = whole.iter().position(|byte| *byte == b'\n').unwrap();
    for (at, what) in [
        (header / 2, "its head"),
        (header + 100, "its first chunk"),
        (whole.len() - 3, "its last byte but two"),
    ] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(place.file(), changed).unwrap();
        assert!(backups::look(&place.file(), &running()).is_err(), "{what}");
        assert!(restore(&vault, &place, &running()).await.is_err(), "{what}");
        assert!(!place.restored().exists(), "{what}");
    }
    for length in [0, header, header + 1, whole.len() / 2, whole.len() - 1] {
        fs::write(place.file(), &whole[..length]).unwrap();
        assert!(
            backups::look(&place.file(), &running()).is_err(),
            "cut at {length}"
        );
    }
    fs::write(place.file(), &whole).unwrap();
    fs::create_dir(place.restored()).unwrap();
    fs::write(place.restored().join("something"), "precious").unwrap();
    let refused = restore(&vault, &place, &running()).await.err().unwrap();
    assert!(matches!(refused, BackupError::NotEmpty(_)), "{refused}");
    assert_eq!(
        fs::read(place.restored().join("something")).unwrap(),
        b"precious"
    );
}

#[tokio::test]
async fn an_older_backup_names_the_keys_that_open_it() {
    let vault = Vault::new().await;
    let place = Place::new();
    make(&vault, &place.file()).await;
    let newer = Arc::new(KeyEncryptionKey::generate(&Seeded::new(60)));
    let refused = backups::look(&place.file(), &OpensWith::Running(newer.clone()))
        .err()
        .unwrap()
        .to_string();
    let (key, recovery) = keys();
    for id in [key.id(), recovery.public().id(), newer.id()] {
        assert!(refused.contains(&id.to_string()), "{refused}");
    }
}

#[tokio::test]
async fn r25_a_key_stays_while_a_backup_needs_it() {
    let vault = Vault::new().await;
    vault.type_code(SERIAL, CODE_A).await;
    let place = Place::new();
    let backup = make(&vault, &place.file()).await;
    let permit: Permit<Admin> = vault.permit("keys").await;
    let keys = vault.escrow.keys();
    keys.rotate(&permit).await.unwrap();
    while keys.step().await.unwrap() == Step::More {}
    let all = keys.status(&permit).await.unwrap().keys;
    let older = all
        .iter()
        .find(|key| key.purpose == Purpose::Cells && key.standing == "older")
        .unwrap();
    assert!(backup.data_keys.contains(&older.id.to_string()));
    let kept = keys.destroy(&permit, &older.id.to_string()).await.unwrap();
    assert!(
        matches!(kept, Err(DestroyProblem::Needed { what, .. }) if what == "the backup of today")
    );
}

#[tokio::test]
async fn a_backup_is_consistent_while_everything_goes_on() {
    let vault = Vault::new().await;
    let place = Place::new();
    let writing = async {
        for number in 0..200 {
            vault.type_code(&format!("BUSY{number:08}"), CODE_A).await;
        }
    };
    let file = place.file();
    let (backup, ()) = tokio::join!(make(&vault, &file), writing);
    assert!(backup.size > 0);
    restore(&vault, &place, &running()).await.unwrap();
    let again = open(&vault, &place.restored(), keys().0).await;
    let permit: Permit<Admin> = again
        .authorise(&vault.actor, &vault.organisation, "keys")
        .await
        .unwrap();
    assert!(
        again
            .keys()
            .verify(&permit)
            .await
            .unwrap()
            .damaged
            .is_empty()
    );
    assert_eq!(again.audit().verifier().record().await.unwrap(), None);
    again.close().await;
}

/// Who has the files and no key has nothing that opens anything.
#[tokio::test]
async fn a_stolen_database_with_its_log_or_a_backup_gives_no_code_no_token_and_no_password() {
    let vault = Vault::in_a_file().await;
    vault.type_code(SERIAL, CODE_A).await;
    let zoe = settled(&vault, "zoe", &[Role::Viewer]).await;
    let session = zoe.session(&vault).await;
    let permit: Permit<Admin> = vault.permit("tokens").await;
    let new = escrow::principals::NewToken {
        name: "stolen".to_owned(),
        scope: escrow::permit::Scope::All,
        permissions: escrow::permit::Permissions::all(),
        expires_at: None,
    };
    let (_, token) = vault
        .escrow
        .principals()
        .create_token(&permit, new)
        .await
        .unwrap();
    let place = Place::new();
    make(&vault, &place.file()).await;
    let mut stolen = vec![fs::read(place.file()).unwrap()];
    for entry in fs::read_dir(vault.path()).unwrap() {
        stolen.push(fs::read(entry.unwrap().path()).unwrap());
    }
    let dense = CODE_A.replace('-', "");
    for bytes in &stolen {
        let text = String::from_utf8_lossy(bytes);
        for secret in [
            CODE_A,
            &dense,
            session.expose(),
            token.expose(),
            "correct horse battery",
        ] {
            assert!(!text.contains(secret), "a secret is in a file");
        }
    }
    // The only hashes of passwords are argon2id.
    let all: String = stolen
        .iter()
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .collect();
    assert!(all.contains("$argon2id$"));
    vault.escrow.close().await;
    let other = Arc::new(KeyEncryptionKey::generate(&Seeded::new(70)));
    let opening = Opening {
        folder: vault.path(),
        database: escrow::Database::Embedded,
        kind: DataKind::Production,
        key: other,
        recovery: None,
        clock: Arc::new(vault.clock.clone()),
        random: Arc::new(Seeded::new(6)),
    };
    assert!(Escrow::open(opening).await.is_err());
}
