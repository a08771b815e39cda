//! The lock journal: where a code is a second time before its call leaves, and what it puts back (R4, R21).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use crate::beside::Beside;

const JOURNAL: &str = "lock-journal";
const DATABASE: [&str; 3] = ["lockwarden.db", "lockwarden.db-wal", "lockwarden.db-shm"];

fn copy_database(from: &Path, to: &Path) {
    if sim::copy_test_database(from, to) {
        return;
    }
    for name in DATABASE {
        let _ = fs::remove_file(to.join(name));
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

#[tokio::test]
async fn r4_before_a_call_leaves_its_code_is_in_the_journal_sealed_and_for_its_owner_alone() {
    let desk = Desk::new().await;
    desk.lock(SERIAL).await;
    assert!(!desk.path().join(JOURNAL).exists());
    let begun = desk.begin().await;
    let text = fs::read_to_string(desk.path().join(JOURNAL)).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains(begun.ticket.call()));
    let mode = fs::metadata(desk.path().join(JOURNAL))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let code = desk.server_codes().await.remove(0).0;
    let raw: Vec<&str> = code.split('-').collect();
    assert!(
        !text.contains(&code) && !text.contains(raw[0]),
        "it is sealed"
    );
    let state = desk.escrow.locks().journal().await.unwrap();
    assert_eq!((state.calls, state.missing, state.unreadable), (1, 0, 0));
}

#[tokio::test]
async fn r4_where_the_journal_cannot_be_written_nothing_is_sent() {
    let desk = Desk::new().await;
    fs::create_dir(desk.path().join(JOURNAL)).unwrap();
    let id = desk.lock(SERIAL).await;
    let mut lease = desk.claim().await;
    let parked = desk.advance(&mut lease).await;
    assert!(matches!(parked, Advance::Parked(StateName::Waiting)));
    let view = desk.view(&id).await;
    assert_eq!(view.details.waits_for, Some(WaitReason::Unavailable));
    let diagnostic = view.calls[0].diagnostic.as_deref().unwrap();
    assert!(
        diagnostic.contains("nothing was sent: the lock journal"),
        "{diagnostic}"
    );
    assert_eq!(desk.standing().await.0, OurLock::None);
    fs::remove_dir(desk.path().join(JOURNAL)).unwrap();
    desk.clock.advance(Duration::from_secs(60));
    let begun = desk.begin().await;
    desk.finish(&begun, LockOutcome::Locked).await;
    assert_eq!(desk.view(&id).await.state, StateName::Locked);
}

/// Locks a device after a copy of the database was taken, puts the copy back, and gives the hash that Apple was sent.
async fn rolled_back(
    desk: &mut Desk,
    outcome: LockOutcome,
    before_the_request: bool,
) -> EscrowKeyHash {
    desk.certificate().await;
    desk.add_code(CODE_A, CodeKind::Device).await;
    let copy = tempfile::TempDir::new().unwrap();
    if !before_the_request {
        desk.lock(SERIAL).await;
    }
    desk.vault
        .reopen(|folder| copy_database(folder, copy.path()))
        .await;
    desk.clock.advance(Duration::from_secs(60));
    if before_the_request {
        desk.lock(SERIAL).await;
    }
    let begun = desk.begin().await;
    desk.finish(&begun, outcome).await;
    desk.vault
        .reopen(|folder| copy_database(copy.path(), folder))
        .await;
    begun.escrow_key
}

#[tokio::test]
async fn r4_a_database_rolled_back_by_a_minute_still_has_every_code() {
    for outcome in [LockOutcome::Locked, LockOutcome::Unknown] {
        let mut desk = Desk::new().await;
        let sent = rolled_back(&mut desk, outcome, true).await;
        let codes = desk.server_codes().await;
        assert_eq!(codes.len(), 1);
        assert!(
            hash_of(&codes[0].0) == sent,
            "what the journal kept is what was sent"
        );
        assert_eq!(codes[0].1, "unknown");
        assert_eq!(
            desk.standing().await,
            (OurLock::Unknown, Evidence::NoAnswer)
        );
        assert!(
            same(&desk.unlock_order().await, &[&codes[0].0, CODE_A]),
            "the code of the lock is tried first"
        );
        assert!(
            audit_texts(&desk)
                .await
                .iter()
                .any(|row| row.contains("lock.replay"))
        );
        // Once is enough.
        desk.vault.reopen(|_| {}).await;
        assert_eq!(desk.server_codes().await.len(), 1);
    }
}

#[tokio::test]
async fn r21_after_a_rollback_nothing_fires_by_itself_and_continuing_uses_the_same_code() {
    let mut desk = Desk::new().await;
    let sent = rolled_back(&mut desk, LockOutcome::Unknown, false).await;
    let permit = desk.permit(SERIAL).await;
    let locks = desk.escrow.locks();
    let lock = locks
        .of_device(&permit, &serial(SERIAL), 1)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(lock.details.review, Some(ReviewReason::Restored));
    assert_eq!(lock.calls.len(), 1, "the call that the journal knows");
    desk.clock.advance(Duration::from_secs(1));
    let may = desk.may_lock().await;
    desk.escrow.locks().resume(&may, &lock.id).await.unwrap();
    let begun = desk.begin().await;
    assert!(begun.escrow_key == sent);
    desk.finish(&begun, LockOutcome::AlreadyLocked).await;
    assert_eq!(
        desk.standing().await,
        (OurLock::Unknown, Evidence::AlreadyLocked)
    );
}

#[tokio::test]
async fn r4_a_line_cut_off_by_a_crash_spoils_no_other() {
    let mut desk = Desk::new().await;
    desk.know("C02XL0GTJGH6").await;
    let copy = tempfile::TempDir::new().unwrap();
    desk.vault
        .reopen(|folder| copy_database(folder, copy.path()))
        .await;
    let (_, first) = desk.lock_answered(LockOutcome::Locked).await;
    desk.vault
        .reopen(|folder| {
            let path = folder.join(JOURNAL);
            let mut text = fs::read_to_string(&path).unwrap();
            let half = text[..text.len() / 2].to_owned();
            text.push_str(&half);
            fs::write(&path, text).unwrap();
        })
        .await;
    let state = desk.escrow.locks().journal().await.unwrap();
    assert_eq!(
        (state.calls, state.unreadable),
        (1, 0),
        "it was followed by no call"
    );
    desk.lock("C02XL0GTJGH6").await;
    let second = desk.begin().await;
    desk.finish(&second, LockOutcome::Locked).await;
    desk.vault
        .reopen(|folder| copy_database(copy.path(), folder))
        .await;
    let state = desk.escrow.locks().journal().await.unwrap();
    assert_eq!((state.calls, state.missing, state.unreadable), (2, 0, 0));
    assert!(hash_of(&desk.server_codes().await[0].0) == first);
    let other = desk.reveal("C02XL0GTJGH6").await;
    assert!(hash_of(other[0].text.expose()) == second.escrow_key);
}

#[tokio::test]
async fn r4_a_call_of_an_organisation_that_is_not_there_stays_in_the_journal() {
    let mut desk = Desk::new().await;
    desk.lock_answered(LockOutcome::Locked).await;
    desk.vault
        .reopen(|folder| {
            let path = folder.join(JOURNAL);
            let text = fs::read_to_string(&path).unwrap();
            let (_, rest) = text.split_once(' ').unwrap();
            let (organisation, rest) = rest.split_once(' ').unwrap();
            let other = organisation.replace('0', "1");
            fs::write(&path, format!("{text}1 {other} {rest}")).unwrap();
        })
        .await;
    let state = desk.escrow.locks().journal().await.unwrap();
    assert_eq!(
        (state.calls, state.missing, state.unreadable),
        (1, 0, 1),
        "a line moved to another organisation does not open"
    );
}

#[tokio::test]
async fn r21_a_start_after_a_rollback_that_ends_early_is_found_out_by_the_next() {
    let mut desk = Desk::new().await;
    let other = "C02XL0GTJGH6";
    desk.know(other).await;
    let waiting = desk.lock(other).await;
    let copy = tempfile::TempDir::new().unwrap();
    desk.vault
        .reopen(|folder| copy_database(folder, copy.path()))
        .await;
    desk.cancel(&waiting).await;
    desk.lock_answered(LockOutcome::Locked).await;
    desk.vault.escrow.close().await;
    let folder = desk.path().to_owned();
    copy_database(copy.path(), &folder);
    // The first start fails at one step after the other; whatever it had done by then, the last one holds what waits.
    let mut seed = 5;
    for table in ["operations", "codes", "lock_calls", "audit"] {
        let mut beside = Beside::of(&folder).await;
        beside.refuse("UPDATE", table).await;
        beside.refuse("INSERT", table).await;
        seed += 1;
        let failed = crate::support::open(&folder, &desk.clock, seed).await;
        assert!(failed.is_err(), "{table}");
        beside.allow("UPDATE", table).await;
        beside.allow("INSERT", table).await;
    }
    desk.vault.escrow = crate::support::open(&folder, &desk.clock, seed + 1)
        .await
        .unwrap();
    let view = desk.view(&waiting).await;
    assert_eq!(view.state, StateName::NeedsReview);
    assert_eq!(view.details.review, Some(ReviewReason::Restored));
    assert_eq!(desk.server_codes().await.len(), 1);
}

#[tokio::test]
async fn r25_an_exchange_of_keys_seals_the_journal_anew_so_that_the_older_key_can_end() {
    let mut desk = Desk::new().await;
    desk.lock(SERIAL).await;
    desk.begin().await;
    let journal = desk.path().join(JOURNAL);
    let before = fs::read_to_string(&journal).unwrap();
    let permit: Permit<escrow::permit::Admin> = desk.permit("keys").await;
    let keys = desk.escrow.keys();
    keys.rotate(&permit).await.unwrap();
    while keys.step().await.unwrap() == escrow::keys::Step::More {}
    let after = fs::read_to_string(&journal).unwrap();
    assert!(after != before && after.lines().count() == 1);
    let mode = fs::metadata(&journal).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let all = keys.status(&permit).await.unwrap().keys;
    let older = all
        .iter()
        .find(|key| key.purpose == seal::Purpose::Cells && key.standing == "older");
    keys.destroy(&permit, &older.unwrap().id.to_string())
        .await
        .unwrap()
        .unwrap();
    desk.vault.reopen(|_| ()).await;
    let state = desk.escrow.locks().journal().await.unwrap();
    assert_eq!((state.calls, state.missing, state.unreadable), (1, 0, 0));
}
