//! How rows get their numbers and their places.

use std::collections::BTreeSet;

use super::*;

/// Writer and number of each row, oldest first.
async fn numbers(vault: &Vault) -> Vec<(String, i64)> {
    vault
        .escrow
        .db
        .read(async |tx| {
            let rows = tx
                .fetch_all("SELECT writer, counter FROM audit ORDER BY id", params![])
                .await?;
            rows.iter()
                .map(|row| Ok((row.get("writer")?, row.get("counter")?)))
                .collect()
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn a_number_is_taken_with_its_row_and_given_back_with_it() {
    let vault = vault().await;
    let mut calls = Vec::new();
    for call in 0..40 {
        let escrow = vault.escrow.clone();
        calls.push(tokio::spawn(async move {
            let db = escrow.db.clone();
            db.write("some fail", async move |tx| {
                for _ in 0..2 {
                    let entry = Entry::by(&actor(), &organisation(), "a").detail("call", call);
                    record(tx, &escrow, entry).await?;
                }
                match call % 4 {
                    0 => Err(Error::Corrupt("a test")),
                    1 => panic!("a test"),
                    _ => Ok(()),
                }
            })
            .await
        }));
    }
    for call in calls {
        let _ = call.await.unwrap();
    }
    let numbers = numbers(&vault).await;
    let writers: BTreeSet<_> = numbers.iter().map(|(writer, _)| writer).collect();
    assert_eq!(writers.len(), 1);
    let counted: Vec<_> = numbers.iter().map(|(_, counter)| *counter).collect();
    assert_eq!(counted, (1..=40).collect::<Vec<_>>());
    assert_eq!(vault.verify(&[]).await.unwrap().unsealed, 40);
}

#[tokio::test]
async fn a_later_process_goes_on_with_the_count() {
    let mut vault = vault().await;
    vault.put("a", "one").await;
    vault.escrow.close().await;
    vault.escrow = Escrow::open(opening(&vault.folder, &vault.clock, 2))
        .await
        .unwrap();
    vault.put("a", "two").await;
    let numbers = numbers(&vault).await;
    assert_eq!(numbers[0].0, numbers[1].0);
    assert_eq!((numbers[0].1, numbers[1].1), (1, 2));
    let verified = vault.verify(&[]).await.unwrap();
    assert_eq!((verified.rows, verified.position), (2, 0));
}

#[tokio::test]
async fn every_row_is_sealed_once_in_the_order_of_its_writer() {
    let vault = vault().await;
    for round in 0..3 {
        // The clock goes back: identifiers go on, times do not.
        vault.clock.set(Timestamp(START.0 - round * 1_000));
        for _ in 0..7 {
            vault.put("a", "one").await;
        }
        vault.seal().await;
    }
    let verified = vault.verify(&[]).await.unwrap();
    assert_eq!(
        (verified.rows, verified.position, verified.unsealed),
        (21, 21, 0)
    );
    let rows = vault.listed(AuditFilter::default(), None, 50).await;
    let positions: Vec<_> = rows.iter().rev().map(|row| row.position.unwrap()).collect();
    assert_eq!(positions, (1..=21).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_sealer_acts_at_a_time_and_an_overtaken_one_waits() {
    let vault = vault().await;
    vault.put("a", "one").await;
    let (first, second) = (vault.escrow.audit().sealer(), vault.escrow.audit().sealer());
    assert_eq!(first.seal().await.unwrap(), Turn::Ours(1));
    vault.put("a", "two").await;
    let Turn::AnothersUntil(until) = second.seal().await.unwrap() else {
        panic!("two seal at once");
    };
    vault.clock.set(until);
    assert_eq!(second.seal().await.unwrap(), Turn::Ours(1));
    vault.put("a", "three").await;
    assert!(matches!(
        first.seal().await.unwrap(),
        Turn::AnothersUntil(_)
    ));
    second.release().await.unwrap();
    assert_eq!(first.seal().await.unwrap(), Turn::Ours(1));
    assert_eq!(vault.verify(&[]).await.unwrap().position, 3);
}

#[tokio::test]
async fn the_lease_of_a_process_that_died_keeps_no_later_one_waiting() {
    // Where others may use the database, a lease ends by its time alone.
    let folder = tempfile::tempdir().unwrap();
    let mut vault = vault_in(folder, Database::Embedded).await;
    vault.put("a", "one").await;
    let sealer = vault.escrow.audit().sealer();
    assert_eq!(sealer.seal().await.unwrap(), Turn::Ours(1));
    vault.escrow.close().await;
    let again = Opening {
        database: Database::Embedded,
        ..opening(&vault.folder, &vault.clock, 2)
    };
    vault.escrow = Escrow::open(again).await.unwrap();
    let sealer = vault.escrow.audit().sealer();
    assert_eq!(sealer.seal().await.unwrap(), Turn::Ours(0));
}

#[tokio::test]
async fn a_checkpoint_is_kept_when_the_chain_has_grown_and_said_again_when_not() {
    let vault = vault().await;
    let sealer = vault.escrow.audit().sealer();
    assert_eq!(sealer.checkpoint().await.unwrap(), Turn::Ours(None));
    sealer.release().await.unwrap();
    vault.put("a", "one").await;
    vault.seal().await;
    let first = vault.checkpoint().await;
    vault.clock.advance(Duration::from_secs(60));
    let again = vault.checkpoint().await;
    vault.put("a", "two").await;
    vault.seal().await;
    let second = vault.checkpoint().await;
    let said = |line: &str| {
        let said: Json = serde_json::from_str(line).unwrap();
        let said = &said["checkpoint"];
        (said["number"].as_u64(), said["position"].as_u64())
    };
    assert_eq!(said(&first), (Some(1), Some(1)));
    assert_eq!(said(&again), (Some(1), Some(1)));
    assert_ne!(first, again);
    assert_eq!(said(&second), (Some(2), Some(2)));
    let permit = vault.permit().await;
    let audit = vault.escrow.audit();
    let kept = audit.checkpoints(&permit, None, 10).await.unwrap();
    let numbers: Vec<_> = kept.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [2, 1]);
    assert_eq!(kept[0].1.to_line(), second);
    assert!(audit.public_keys()[0].verifies(&kept[0].1.text, &kept[0].1.signature));
    let verified = vault.verify(&[first, again, second]).await.unwrap();
    assert!(verified.is_proven() && verified.compared == 3);
}

#[tokio::test]
async fn when_a_row_cannot_be_written_what_it_tells_of_does_not_happen() {
    let vault = vault().await;
    vault.put("a", "one").await;
    for (broken, postgres, mended) in [
        (
            "CREATE TRIGGER broken BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END",
            "CREATE TRIGGER broken BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION refuse('no room')",
            said("DROP TRIGGER broken", "DROP TRIGGER broken ON audit"),
        ),
        (
            "CREATE TRIGGER broken BEFORE UPDATE ON audit_writers BEGIN SELECT RAISE(ABORT, 'no room'); END",
            "CREATE TRIGGER broken BEFORE UPDATE ON audit_writers FOR EACH ROW WHEN (NEW.next <> OLD.next) \
             EXECUTE FUNCTION refuse('no room')",
            said(
                "DROP TRIGGER broken",
                "DROP TRIGGER broken ON audit_writers",
            ),
        ),
    ] {
        vault.run(said(broken, postgres)).await.unwrap();
        let escrow = vault.escrow.clone();
        let done = vault.escrow.db.write("act", async move |tx| {
            tx.execute(
                "INSERT INTO pace (name, tokens, updated_at) VALUES ('acted', 0, 0)",
                params![],
            )
            .await?;
            let entry = Entry::by(&actor(), &organisation(), "act");
            record(tx, &escrow, entry).await
        });
        assert!(done.await.is_err(), "{broken}");
        vault.run(mended).await.unwrap();
    }
    let acted = vault.run("DELETE FROM pace WHERE name = 'acted'").await;
    assert_eq!(acted.unwrap(), 0);
    // The count goes on where it was.
    vault.put("a", "two").await;
    assert_eq!(vault.verify(&[]).await.unwrap().rows, 2);
}

#[tokio::test]
async fn verification_goes_through_every_page() {
    let vault = vault().await;
    let many = async |count: i64| {
        let escrow = vault.escrow.clone();
        let put = vault.escrow.db.write("many", async move |tx| {
            for _ in 0..count {
                let entry = Entry::by(&actor(), &organisation(), "a");
                record(tx, &escrow, entry).await?;
            }
            Ok(())
        });
        put.await.unwrap();
    };
    many(2_200).await;
    vault.seal().await;
    let outside = vault.checkpoint().await;
    many(1_100).await;
    let verified = vault.verify(&[outside]).await.unwrap();
    assert_eq!(
        (verified.rows, verified.position, verified.unsealed),
        (3_300, 2_200, 1_100)
    );
    assert_eq!((verified.unproven, verified.is_proven()), (1_100, false));
}

#[tokio::test]
async fn a_count_that_was_set_back_keeps_no_row_out() {
    let mut vault = vault().await;
    for subject in ["one", "two", "three"] {
        vault.put("a", subject).await;
    }
    vault.escrow.close().await;
    vault.escrow = Escrow::open(opening(&vault.folder, &vault.clock, 2))
        .await
        .unwrap();
    vault
        .run("UPDATE audit_writers SET next = 2")
        .await
        .unwrap();
    assert!(vault.verify(&[]).await.is_err());
    vault.escrow.close().await;
    vault.escrow = Escrow::open(opening(&vault.folder, &vault.clock, 3))
        .await
        .unwrap();
    vault.put("a", "four").await;
    assert_eq!(vault.verify(&[]).await.unwrap().rows, 4);
}
