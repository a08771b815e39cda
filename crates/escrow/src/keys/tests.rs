use seal::RecoveryKey;
use tempfile::TempDir;

use super::*;
use crate::clock::ManualClock;
use crate::db::tests::{START, Seeded, database};
use crate::meta::DataKind;

fn random(seed: u64) -> Arc<dyn Random> {
    Arc::new(Seeded::new(seed))
}

fn running(seed: u64) -> Arc<KeyEncryptionKey> {
    Arc::new(KeyEncryptionKey::generate(&random(seed)))
}

fn recovery(seed: u64) -> RecoveryKey {
    RecoveryKey::generate(&random(seed))
}

async fn open_vault(
    folder: &TempDir,
    kind: DataKind,
    key: Arc<KeyEncryptionKey>,
    recovery: Option<&RecoveryKey>,
) -> crate::Result<Escrow> {
    Escrow::open(crate::Opening {
        folder: folder.path(),
        database: database(folder.path()),
        kind,
        key,
        recovery: recovery.map(RecoveryKey::public),
        clock: Arc::new(ManualClock::new(START)),
        random: random(3),
    })
    .await
}

#[tokio::test]
async fn the_same_key_opens_the_same_keyring_again() {
    let folder = tempfile::tempdir().unwrap();
    let vault = open_vault(
        &folder,
        DataKind::Production,
        running(1),
        Some(&recovery(2)),
    )
    .await
    .unwrap();
    let cell = vault.seal_cell("test cell", "org", "row", b"plaintext");
    vault.close().await;
    let again = open_vault(&folder, DataKind::Production, running(1), None)
        .await
        .unwrap();
    assert_eq!(
        *again.open_cell("test cell", "org", "row", &cell).unwrap(),
        b"plaintext"
    );
}

#[tokio::test]
async fn a_wrong_key_is_refused_with_both_ids_and_lets_go_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    open_vault(
        &folder,
        DataKind::Production,
        running(1),
        Some(&recovery(2)),
    )
    .await
    .unwrap()
    .close()
    .await;
    let refused = open_vault(&folder, DataKind::Production, running(9), None)
        .await
        .err()
        .unwrap();
    let message = refused.to_string();
    assert!(message.contains(&running(1).id().to_string()), "{message}");
    assert!(message.contains(&running(9).id().to_string()), "{message}");
    open_vault(&folder, DataKind::Production, running(1), None)
        .await
        .unwrap();
}

#[tokio::test]
async fn r25_production_begins_with_a_recovery_key_and_a_sandbox_may_do_without() {
    let folder = tempfile::tempdir().unwrap();
    let refused = open_vault(&folder, DataKind::Production, running(1), None)
        .await
        .err()
        .unwrap();
    assert!(
        matches!(refused, Error::Keys(KeysError::NoRecoveryKey)),
        "{refused}"
    );
    open_vault(
        &folder,
        DataKind::Production,
        running(1),
        Some(&recovery(2)),
    )
    .await
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sandbox = open_vault(&folder, DataKind::Sandbox, running(1), None)
        .await
        .unwrap();
    let refused = sandbox.check_recovery(&recovery(2)).await.err().unwrap();
    assert!(
        matches!(&refused, Error::Keys(KeysError::WrongRecoveryKey { wanted, .. }) if wanted == "none"),
        "{refused}"
    );
}

#[tokio::test]
async fn r25_that_the_recovery_key_opened_a_cell_is_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let vault = open_vault(
        &folder,
        DataKind::Production,
        running(1),
        Some(&recovery(2)),
    )
    .await
    .unwrap();
    let status = async || {
        Escrow::status(
            folder.path(),
            database(folder.path()),
            &ManualClock::new(START),
        )
        .await
        .unwrap()
        .unwrap()
    };
    assert_eq!(
        status().await.recovery_public,
        Some(recovery(2).public().to_text())
    );

    let refused = vault
        .check_recovery(&recovery(8))
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        refused.contains(&recovery(8).public().id().to_string()),
        "{refused}"
    );
    assert!(
        refused.contains(&recovery(2).public().id().to_string()),
        "{refused}"
    );
    assert_eq!(status().await.recovery_opened_at, None);

    vault.check_recovery(&recovery(2)).await.unwrap();
    assert_eq!(status().await.recovery_opened_at, Some(START));
}

#[tokio::test]
async fn r25_a_recovery_wrapping_that_opens_no_cell_is_no_proof() {
    let folder = tempfile::tempdir().unwrap();
    let vault = open_vault(
        &folder,
        DataKind::Production,
        running(1),
        Some(&recovery(2)),
    )
    .await
    .unwrap();
    vault
        .db
        .write("damage", async |tx| {
            tx.execute(
                "UPDATE data_keys SET sample = $1 WHERE purpose = 'cells'",
                params![vec![0; 64]],
            )
            .await
        })
        .await
        .unwrap();
    let refused = vault.check_recovery(&recovery(2)).await.err().unwrap();
    assert!(
        matches!(refused, Error::Keys(KeysError::Damaged("data_keys.sample"))),
        "{refused}"
    );
    assert_eq!(
        Escrow::status(
            folder.path(),
            database(folder.path()),
            &ManualClock::new(START)
        )
        .await
        .unwrap()
        .unwrap()
        .recovery_opened_at,
        None
    );
}

#[tokio::test]
async fn r25_a_vault_of_before_gets_the_keys_it_lacks_for_both_recipients() {
    let folder = tempfile::tempdir().unwrap();
    let public = recovery(2);
    let open = |key, recovery| open_vault(&folder, DataKind::Production, key, recovery);
    let vault = open(running(1), Some(&public)).await.unwrap();
    vault
        .db
        .write("as an earlier program made it", async |tx| {
            for sql in [
                "DELETE FROM key_wrappings WHERE data_key IN (SELECT id FROM data_keys WHERE purpose = 'checkpoints')",
                "DELETE FROM data_keys WHERE purpose = 'checkpoints'",
            ] {
                tx.execute(sql, params![]).await?;
            }
            Ok(())
        })
        .await
        .unwrap();
    vault.close().await;
    // A wrong key gets nothing wrapped for it.
    assert!(matches!(
        open(running(7), None).await,
        Err(Error::Keys(KeysError::WrongKey { .. }))
    ));
    let vault = open(running(1), None).await.unwrap();
    let made = vault.keyring().checkpoint_keys();
    vault.check_recovery(&recovery(2)).await.unwrap();
    vault.close().await;
    let again = open(running(1), None).await.unwrap();
    assert_eq!(again.keyring().checkpoint_keys(), made);
}
