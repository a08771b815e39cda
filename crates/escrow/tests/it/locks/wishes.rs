//! Locks that are asked for a second time while they are under way, or taken back once they need a person.

use super::*;

#[tokio::test]
async fn r15_r4_a_lock_that_needs_a_person_is_cancelled_and_its_code_stays_live() {
    let desk = Desk::new().await;
    let (id, hash) = desk.lock_answered(LockOutcome::Undescribed).await;
    assert_eq!(desk.view(&id).await.state, StateName::NeedsReview);
    let before = desk.standing().await;
    assert_eq!(before.0, OurLock::Unknown);
    for _ in 0..2 {
        let cancelled = desk.cancel(&id).await;
        let Cancelled::Ended(view) = cancelled else {
            panic!("nothing is in flight: {cancelled:?}")
        };
        assert_eq!(
            (view.state, view.cancelled_by.as_deref()),
            (StateName::Cancelled, Some("test"))
        );
        assert_eq!(view.details.review, None);
        assert!(view.end().is_some(), "there are words for it");
    }
    assert_eq!(desk.standing().await, before);
    let rows = audit_texts(&desk).await;
    let rows: Vec<_> = rows
        .iter()
        .filter(|row| row.contains("lock.cancel"))
        .collect();
    assert_eq!(rows.len(), 1, "the second time nothing is done");
    assert!(rows[0].contains("\"after\":\"undescribed\"") && rows[0].contains(&id));
    let permit = desk.may_lock().await;
    let resumed = desk.escrow.locks().resume(&permit, &id).await.unwrap();
    assert!(matches!(resumed, Resumed::NotInReview(_)));
    // The next lock of the device uses the very code that may be live.
    let (_, again) = desk.lock_answered(LockOutcome::Locked).await;
    assert!(again == hash);
}

#[tokio::test]
async fn t33_a_second_wish_for_the_lock_that_is_under_way_adds_nothing_and_is_on_record() {
    let desk = Desk::new().await;
    let id = desk.lock(SERIAL).await;
    let mut wish = desk.wish(SERIAL);
    wish.reason = "stolen from a car".to_owned();
    wish.requester = "bert@example.org".to_owned();
    wish.message = Some("Please call".to_owned());
    wish.urgent = true;
    let asked = desk.ask(wish).await;
    let Enqueued::UnderWay(view) = asked else {
        panic!("one is under way: {asked:?}")
    };
    assert_eq!((view.id.as_str(), view.urgent), (id.as_str(), false));
    assert_eq!((view.reason.as_str(), view.message), ("lost", None));
    let rows = audit_texts(&desk).await;
    let row = rows.iter().find(|row| row.contains("stolen from a car"));
    let row = row.expect("the second wish is on record");
    for told in ["lock.request", "bert@example.org", "under_way", &id] {
        assert!(row.contains(told), "{told}");
    }
}
