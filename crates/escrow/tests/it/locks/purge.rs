//! A device removed for ever (R2): by a person who may, whole, also from the lock journal; and not while its codes are what unlocks it.

use std::fs;

use crate::beside::Beside;
use escrow::approvals::{Action, Policy};
use escrow::devices::{PurgeProblem, Purged};
use escrow::permit::{Purge, Role};
use escrow::{Error, Result};

use super::*;
use crate::people::settled;

async fn purge(
    desk: &Desk,
    even_though_locked: bool,
) -> Result<std::result::Result<Purged, PurgeProblem>> {
    let permit: Permit<Purge> = desk.permit(SERIAL).await;
    desk.escrow
        .devices()
        .purge(&permit, &serial(SERIAL), "sold", even_though_locked)
        .await
}

/// Where the device's serial number or one of these texts still stands, by table.
async fn found(desk: &Desk, texts: &[&str]) -> Vec<String> {
    let mut beside = Beside::of(desk.escrow.folder()).await;
    let mut found = Vec::new();
    for place in beside.columns().await {
        let (table, column) = place.split_once('.').unwrap();
        for text in texts {
            let sql = format!(
                "SELECT 'here' FROM {table} WHERE CAST(\"{column}\" AS TEXT) = '{text}' LIMIT 1"
            );
            if !beside.texts(&sql).await.is_empty() {
                found.push(place.clone());
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// A table that is added with a serial number in it has to be thought of when a device is removed.
#[tokio::test]
async fn r2_every_table_that_names_devices_is_known_here() {
    let desk = Desk::new().await;
    let columns = Beside::of(desk.escrow.folder()).await.columns().await;
    let mut tables: Vec<&str> = columns
        .iter()
        .filter_map(|place| place.split_once('.'))
        .filter(|(_, column)| ["serial", "epoch", "operation"].contains(column))
        .map(|(table, _)| table)
        .collect();
    tables.dedup();
    assert_eq!(
        tables,
        [
            "attempts",
            "batch_lines",
            "code_observations",
            "codes",
            "commands",
            "device_terms",
            "devices",
            "epochs",
            "held_answers",
            "idempotency_keys",
            "listed_devices",
            "lock_calls",
            "lock_statuses",
            "operations",
            "purges",
        ]
    );
}

#[tokio::test]
async fn r2_a_device_is_removed_whole_and_its_journal_lines_too_and_nothing_brings_it_back() {
    let mut desk = Desk::new().await;
    desk.certificate().await;
    desk.add_code(CODE_A, CodeKind::Device).await;
    let (lock, _) = desk.lock_answered(LockOutcome::Locked).await;
    desk.know("OTHER0000001").await;
    let other = desk.lock("OTHER0000001").await;
    let begun = desk.begin().await;
    desk.finish(&begun, LockOutcome::Locked).await;
    let made = desk.server_codes().await.remove(0).0;
    let unlocked = desk.work_unlock_with(&made).await;
    desk.clock.advance(Duration::from_secs(1));
    let codes: Vec<String> = desk
        .device(SERIAL)
        .await
        .codes
        .iter()
        .map(|code| code.id.0.clone())
        .collect();
    let texts: Vec<&str> = [SERIAL, lock.as_str(), unlocked.as_str()]
        .into_iter()
        .chain(codes.iter().map(String::as_str))
        .collect();
    assert!(found(&desk, &texts).await.len() > 10, "there is much of it");

    assert_eq!(purge(&desk, false).await.unwrap(), Ok(Purged { codes: 2 }));
    assert_eq!(
        found(&desk, &texts).await,
        ["audit.subject", "purges.serial"],
        "only the record of it is left"
    );
    assert!(desk.find(SERIAL).await.is_none());
    let journal = fs::read_to_string(desk.path().join("lock-journal")).unwrap();
    assert_eq!(journal.lines().count(), 1, "the other device's");
    let texts = audit_texts(&desk).await;
    let row = texts
        .iter()
        .find(|text| text.contains("device.purge"))
        .unwrap();
    assert!(row.contains("sold") && codes.iter().all(|code| row.contains(code)));
    assert_eq!(
        desk.escrow.coverage().sweep().await.unwrap(),
        0,
        "it is not counted any more"
    );

    desk.vault.reopen(|_| {}).await;
    let replayed = desk.escrow.locks().replay().await.unwrap();
    assert_eq!((replayed.restored, replayed.unplaced), (0, 0));
    assert_eq!(desk.view(&other).await.state, StateName::Locked);
    assert_eq!(
        purge(&desk, false).await.unwrap(),
        Err(PurgeProblem::Unknown)
    );
}

/// A crash between the database and the journal.
#[tokio::test]
async fn r2_lines_that_stayed_in_the_journal_bring_nothing_back_and_go_with_the_next_start() {
    let mut desk = Desk::new().await;
    desk.lock_answered(LockOutcome::Locked).await;
    let journal = desk.path().join("lock-journal");
    let before = fs::read_to_string(&journal).unwrap();
    assert!(purge(&desk, true).await.unwrap().is_ok());
    assert_eq!(fs::read_to_string(&journal).unwrap(), "");
    fs::write(&journal, &before).unwrap();
    assert_eq!(desk.escrow.locks().journal().await.unwrap().missing, 0);
    desk.know("OTHER0000001").await;
    let waiting = desk.lock("OTHER0000001").await;
    desk.vault.reopen(|_| {}).await;
    let replayed = desk.escrow.locks().replay().await.unwrap();
    assert_eq!(replayed.restored, 0);
    assert_eq!(
        desk.view(&waiting).await.state,
        StateName::Queued,
        "nothing was held as after a restore"
    );
    assert_eq!(fs::read_to_string(&journal).unwrap(), "");

    // Known anew and locked anew, it is a device like any other.
    desk.clock.advance(Duration::from_secs(1));
    desk.know(SERIAL).await;
    desk.cancel(&waiting).await;
    desk.lock_answered(LockOutcome::Locked).await;
    let replayed = desk.escrow.locks().replay().await.unwrap();
    assert_eq!(replayed.restored, 0);
    assert_eq!(fs::read_to_string(&journal).unwrap().lines().count(), 1);
}

#[tokio::test]
async fn r2_what_may_be_locked_or_is_under_way_stays_unless_a_person_says_so() {
    let desk = Desk::new().await;
    let id = desk.lock(SERIAL).await;
    assert_eq!(
        purge(&desk, true).await.unwrap(),
        Err(PurgeProblem::UnderWay)
    );
    let begun = desk.begin().await;
    desk.finish(&begun, LockOutcome::Unknown).await;
    desk.cancel(&id).await;
    assert_eq!(desk.standing().await.0, OurLock::Unknown);
    assert_eq!(
        purge(&desk, false).await.unwrap(),
        Err(PurgeProblem::MayBeLocked)
    );
    assert_eq!(desk.server_codes().await.len(), 1, "nothing is gone");
    desk.clock.advance(Duration::from_secs(1));
    assert!(purge(&desk, true).await.unwrap().is_ok());
}

#[tokio::test]
async fn r2_a_purge_takes_others_where_the_policy_says_so() {
    let desk = Desk::new().await;
    settled(&desk, "max", &[Role::Approver]).await;
    let admin = settled(&desk, "ann", &[Role::Admin]).await;
    let permit = desk.permit("policy").await;
    let one = Policy {
        people: 1,
        ..Policy::default()
    };
    let set = desk
        .escrow
        .policies()
        .set(&permit, Action::Purge, one)
        .await;
    set.unwrap().unwrap();
    let actor = admin.actor(&desk).await;
    let permit: Permit<Purge> = desk
        .escrow
        .authorise(&actor, &desk.organisation, SERIAL)
        .await
        .unwrap();
    let refused = desk
        .escrow
        .devices()
        .purge(&permit, &serial(SERIAL), "sold", false)
        .await;
    let Err(Error::Refused(refusal)) = refused else {
        panic!("it takes another person")
    };
    assert_eq!(refusal.name(), "approval_needed");
    assert!(desk.find(SERIAL).await.is_some());
}
