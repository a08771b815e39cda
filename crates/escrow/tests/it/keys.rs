//! Keys that are exchanged while the vault is in use, looked after, and ended only when nothing needs them (R24, R25).

use std::collections::BTreeSet;

use escrow::keys::{DestroyProblem, KeyStatus, Step, Verified};
use escrow::permit::{Admin, Permit, Role};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use seal::{KeyEncryptionKey, Purpose, RecoveryKey};

use crate::beside::{audit_texts, run};
use crate::people::settled;
use crate::support::{CODE_A, CODE_B, CODE_C, Seeded, Vault, open};

async fn permit(vault: &Vault) -> Permit<Admin> {
    vault.permit("keys").await
}

async fn rotate(vault: &Vault) {
    vault
        .escrow
        .keys()
        .rotate(&permit(vault).await)
        .await
        .unwrap();
}

async fn step(vault: &Vault) -> Step {
    vault.escrow.keys().step().await.unwrap()
}

async fn finish(vault: &Vault) -> u32 {
    let mut steps = 1;
    while step(vault).await == Step::More {
        steps += 1;
    }
    steps
}

async fn status(vault: &Vault) -> KeyStatus {
    vault
        .escrow
        .keys()
        .status(&permit(vault).await)
        .await
        .unwrap()
}

async fn verified(vault: &Vault) -> Verified {
    vault
        .escrow
        .keys()
        .verify(&permit(vault).await)
        .await
        .unwrap()
}

async fn older(vault: &Vault, purpose: Purpose) -> Vec<String> {
    let all = status(vault).await.keys.into_iter();
    let older = all.filter(|key| key.purpose == purpose && key.standing == "older");
    older.map(|key| key.id.to_string()).collect()
}

async fn texts(vault: &Vault, serial: &str) -> BTreeSet<String> {
    let revealed = vault.reveal(serial).await;
    revealed
        .iter()
        .map(|code| code.text.expose().to_owned())
        .collect()
}

fn device(number: usize) -> String {
    format!("ROTATED{number:06}")
}

#[tokio::test]
async fn keys_are_exchanged_and_everything_opens_before_during_and_after() {
    let vault = Vault::new().await;
    let zoe = settled(&vault, "zoe", &[Role::Viewer]).await;
    vault.connection("nanomdm").await;
    for number in 0..250 {
        vault.type_code(&device(number), CODE_A).await;
    }
    rotate(&vault).await;
    vault.type_code(&device(0), CODE_B).await;
    assert_eq!(step(&vault).await, Step::More);
    assert_eq!(texts(&vault, &device(0)).await.len(), 2);
    assert_eq!(texts(&vault, &device(249)).await.len(), 1);
    let mut vault = vault;
    // A crash in the middle: it goes on where it was.
    vault.reopen(|_| ()).await;
    let rotation = status(&vault).await.rotation.unwrap();
    assert!(
        rotation.finished_at.is_none() && rotation.resealed >= 100,
        "{rotation:?}"
    );
    finish(&vault).await;
    let now = status(&vault).await;
    let rotation = now.rotation.clone().unwrap();
    assert!(
        rotation.finished_at.is_some() && rotation.damaged == 0,
        "{rotation:?}"
    );
    assert!(rotation.resealed >= 253, "{rotation:?}");
    let uses = verified(&vault).await;
    assert!(uses.damaged.is_empty());
    for purpose in [Purpose::Cells, Purpose::Fingerprints] {
        for id in older(&vault, purpose).await {
            assert_eq!(uses.by_key.get(&id), None, "{purpose} {id}");
        }
    }
    for number in [0, 1, 100, 249] {
        assert!(texts(&vault, &device(number)).await.contains(CODE_A));
    }
    zoe.session(&vault).await;
    assert_eq!(step(&vault).await, Step::Idle);
    let rows = audit_texts(&vault).await;
    let count = |action: &str| {
        rows.iter()
            .filter(|row| row.contains(&format!("\"action\":\"{action}\"")))
            .count()
    };
    assert_eq!((count("key.rotate"), count("key.rotated")), (1, 1));
    assert!(count("key.reseal") >= 3, "one row a batch");
}

#[tokio::test]
async fn r25_a_key_ends_only_when_nothing_needs_it() {
    let mut vault = Vault::new().await;
    vault.type_code(&device(0), CODE_A).await;
    let destroy = async |vault: &Vault, id: &str| {
        vault
            .escrow
            .keys()
            .destroy(&permit(vault).await, id)
            .await
            .unwrap()
    };
    let current = status(&vault)
        .await
        .keys
        .iter()
        .find(|key| key.purpose == Purpose::Cells)
        .unwrap()
        .id;
    assert_eq!(
        destroy(&vault, &current.to_string()).await,
        Err(DestroyProblem::Current(current))
    );
    assert!(matches!(
        destroy(&vault, "0000000000000000").await,
        Err(DestroyProblem::Unknown(_))
    ));
    rotate(&vault).await;
    let cells = older(&vault, Purpose::Cells).await.remove(0);
    let needed = |result: Result<(), DestroyProblem>| match result {
        Err(DestroyProblem::Needed { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(destroy(&vault, &cells).await, Err(DestroyProblem::UnderWay));
    finish(&vault).await;
    let backup = "INSERT INTO backups (id, made_at, name, keys, digest) SELECT 'b', 0, 'of monday', 'x ' || id, '' \
                  FROM data_keys WHERE purpose = 'cells' AND standing = 'older'";
    run(&vault, backup).await;
    assert_eq!(
        needed(destroy(&vault, &cells).await),
        "the backup of monday"
    );
    run(&vault, "UPDATE backups SET expires_at = 1").await;
    destroy(&vault, &cells).await.unwrap();
    let prints = older(&vault, Purpose::Fingerprints).await.remove(0);
    destroy(&vault, &prints).await.unwrap();
    let macs = older(&vault, Purpose::Audit).await.remove(0);
    assert!(
        needed(destroy(&vault, &macs).await).contains("values"),
        "audit rows are checked with it"
    );
    let signs = older(&vault, Purpose::Checkpoints).await.remove(0);
    assert!(needed(destroy(&vault, &signs).await).contains("checkpoints"));
    vault.reopen(|_| ()).await;
    assert!(texts(&vault, &device(0)).await.contains(CODE_A));
    vault.type_code(&device(0), CODE_A).await;
    assert_eq!(vault.device(&device(0)).await.codes.len(), 1);
    let gone = status(&vault)
        .await
        .keys
        .into_iter()
        .filter(|key| key.standing == "destroyed");
    assert!(
        gone.clone().count() == 2
            && gone
                .clone()
                .all(|key| key.recipients.is_empty() && !key.is_open)
    );
}

#[tokio::test]
async fn what_is_damaged_is_left_and_named_and_keeps_its_key() {
    let vault = Vault::new().await;
    for number in 0..3 {
        vault.type_code(&device(number), CODE_A).await;
    }
    // A cell that was moved to another row.
    run(
        &vault,
        "UPDATE codes SET cell = (SELECT cell FROM codes WHERE serial = 'ROTATED000000') WHERE serial = 'ROTATED000001'",
    )
    .await;
    rotate(&vault).await;
    finish(&vault).await;
    assert_eq!(status(&vault).await.rotation.unwrap().damaged, 1);
    let found = verified(&vault).await.damaged;
    assert!(
        found.len() == 1 && found[0].contains("codes.cell") && found[0].contains("another row"),
        "{found:?}"
    );
    let cells = older(&vault, Purpose::Cells).await.remove(0);
    let kept = vault
        .escrow
        .keys()
        .destroy(&permit(&vault).await, &cells)
        .await
        .unwrap();
    assert!(matches!(kept, Err(DestroyProblem::Needed { .. })));
    assert!(
        texts(&vault, &device(2)).await.contains(CODE_A),
        "the rest works"
    );
}

#[tokio::test]
async fn a_damaged_older_key_takes_only_what_it_made_with_it() {
    let mut vault = Vault::new().await;
    vault.type_code(&device(0), CODE_A).await;
    rotate(&vault).await;
    vault.type_code(&device(1), CODE_B).await;
    run(
        &vault,
        "UPDATE key_wrappings SET bytes = x'00' WHERE data_key IN \
         (SELECT id FROM data_keys WHERE purpose = 'cells' AND standing = 'older') AND recipient LIKE 'running%'",
    )
    .await;
    vault.reopen(|_| ()).await;
    assert!(texts(&vault, &device(1)).await.contains(CODE_B));
    let found = verified(&vault).await.damaged;
    let key = older(&vault, Purpose::Cells).await.remove(0);
    assert!(
        found.len() == 1 && found[0].contains(&key),
        "it is named: {found:?}"
    );
    assert!(
        status(&vault)
            .await
            .keys
            .iter()
            .any(|one| one.id.to_string() == key && !one.is_open)
    );
}

#[tokio::test]
async fn r25_a_vault_is_wrapped_anew_for_another_running_key_and_another_recovery_key() {
    let vault = Vault::new().await;
    vault.type_code(&device(0), CODE_A).await;
    let random = Seeded::new(77);
    let key = std::sync::Arc::new(KeyEncryptionKey::generate(&random));
    let recovery = RecoveryKey::generate(&random);
    vault
        .escrow
        .keys()
        .rewrap(Some(key.clone()), Some(recovery.public().clone()))
        .await
        .unwrap();
    vault.escrow.close().await;
    let refused = open(vault.path(), &vault.clock, 9)
        .await
        .err()
        .unwrap()
        .to_string();
    let first = KeyEncryptionKey::generate(&Seeded::new(1)).id().to_string();
    assert!(
        refused.contains(&first) && refused.contains(&key.id().to_string()),
        "{refused}"
    );
    let again = escrow::Escrow::open(escrow::Opening {
        folder: vault.path(),
        database: crate::support::database(vault.path()),
        kind: escrow::meta::DataKind::Production,
        key,
        recovery: None,
        clock: std::sync::Arc::new(vault.clock.clone()),
        random: std::sync::Arc::new(Seeded::new(9)),
    })
    .await
    .unwrap();
    again.check_recovery(&recovery).await.unwrap();
    let same = Seeded::new(1);
    let _running = KeyEncryptionKey::generate(&same);
    let former = RecoveryKey::generate(&same);
    assert!(again.check_recovery(&former).await.is_err());
    again.close().await;
}

/// R24: whatever the keys do in between, the same code is the same row, and another one is another.
#[test]
fn r24_a_code_is_known_again_at_any_moment_of_an_exchange() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let moves = prop::collection::vec((0..6_usize, 0..3_usize, 0..3_usize), 1..25);
    let config = ProptestConfig {
        cases: 16,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&moves, |moves| {
            runtime.block_on(async {
                let vault = Vault::new().await;
                let codes = [CODE_A, CODE_B, CODE_C];
                let mut told: BTreeSet<(usize, usize)> = BTreeSet::new();
                for (what, one, code) in moves {
                    match what {
                        0 => rotate(&vault).await,
                        1 => drop(step(&vault).await),
                        2 => drop(finish(&vault).await),
                        _ => {
                            vault.type_code(&device(one), codes[code]).await;
                            told.insert((one, code));
                        }
                    }
                }
                finish(&vault).await;
                for one in 0..3 {
                    let held = if told.iter().any(|(known, _)| *known == one) {
                        texts(&vault, &device(one)).await
                    } else {
                        BTreeSet::new()
                    };
                    let rows = match vault.find(&device(one)).await {
                        Some(view) => view.codes.len(),
                        None => 0,
                    };
                    let wanted: BTreeSet<_> = told
                        .iter()
                        .filter(|(known, _)| *known == one)
                        .map(|(_, code)| codes[*code].to_owned())
                        .collect();
                    assert!(
                        held == wanted && rows == wanted.len(),
                        "device {one}: {rows} rows"
                    );
                }
                assert!(verified(&vault).await.damaged.is_empty());
            });
            Ok(())
        })
        .unwrap();
}
