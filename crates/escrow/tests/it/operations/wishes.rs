//! Unlocks that are asked for a second time while they are under way, or taken back once they need a person; and the list of them.

use escrow::permit::Read;

use super::*;

#[tokio::test]
async fn r15_an_unlock_that_needs_a_person_is_cancelled_and_that_is_on_record() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let id = desk.unlock(SERIAL).await;
    desk.work(|_| Outcome::Unexpected).await;
    assert_eq!(desk.state(&id).await, StateName::NeedsReview);
    desk.clock.advance(Duration::from_secs(60));
    let permit = desk.may_unlock().await;
    let operations = desk.escrow.operations();
    for _ in 0..2 {
        let cancelled = operations.cancel(&permit, &id).await.unwrap();
        let Cancelled::Ended(view) = cancelled else {
            panic!("nothing is in flight: {cancelled:?}")
        };
        assert_eq!(
            (view.state, view.cancelled_by.as_deref(), view.ended_at),
            (StateName::Cancelled, Some("test"), Some(desk.now()))
        );
        assert_eq!(view.details.review, None);
        assert!(view.end().is_some(), "there are words for it");
    }
    let rows = audit_texts(&desk).await;
    let rows: Vec<_> = rows
        .iter()
        .filter(|row| row.contains("unlock.cancel"))
        .collect();
    assert_eq!(rows.len(), 1, "the second time nothing is done");
    assert!(rows[0].contains("\"after\":\"unexpected\"") && rows[0].contains(&id));
    let resumed = operations.resume(&permit, &id).await.unwrap();
    assert!(matches!(resumed, Resumed::NotInReview(_)));
    assert!(claim(&desk.escrow, &settings("one")).await.is_none());
}

#[tokio::test]
async fn r14_a_late_200_raises_also_what_was_cancelled_in_review() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let id = desk.unlock(SERIAL).await;
    let mut lease = desk.claim().await;
    let begun = desk.begin(&mut lease).await;
    desk.escrow.operations().hold_after_restore().await.unwrap();
    assert_eq!(desk.state(&id).await, StateName::NeedsReview);
    let permit = desk.may_unlock().await;
    desk.escrow.operations().cancel(&permit, &id).await.unwrap();
    desk.finish(&begun, Outcome::Unlocked).await;
    assert_eq!(desk.state(&id).await, StateName::Unlocked);
}

#[tokio::test]
async fn t33_a_second_wish_for_the_unlock_that_is_under_way_adds_nothing_and_is_on_record() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let id = desk.unlock(SERIAL).await;
    let mut wish = desk.wish(SERIAL);
    wish.reason = "its new user waits".to_owned();
    wish.requester = "bert@example.org".to_owned();
    wish.urgent = true;
    wish.idempotency = Some(Key::new("again", &[]));
    let asked = desk.ask(wish.clone()).await;
    let Enqueued::UnderWay(view) = asked else {
        panic!("one is under way: {asked:?}")
    };
    assert_eq!((view.id.as_str(), view.urgent), (id.as_str(), false));
    assert_eq!(view.reason, "returned by its user");
    // The same with the same key is no third wish.
    assert!(matches!(desk.ask(wish).await, Enqueued::Same(view) if view.id == id));
    let rows = audit_texts(&desk).await;
    let rows: Vec<_> = rows
        .iter()
        .filter(|row| row.contains("unlock.request") && row.contains("its new user waits"))
        .collect();
    assert_eq!(rows.len(), 1);
    for told in ["bert@example.org", "under_way", &id] {
        assert!(rows[0].contains(told), "{told}");
    }
}

#[tokio::test]
async fn the_unlocks_of_a_device_are_listed_newest_first() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    desk.ask(desk.wish(SERIAL)).await;
    desk.work(|_| Outcome::Refused).await;
    desk.clock.advance(Duration::from_secs(60));
    let Enqueued::New(second) = desk.ask(desk.wish(SERIAL)).await else {
        panic!("the first has ended")
    };
    let permit: Permit<Read> = desk.permit(SERIAL).await;
    let operations = desk.escrow.operations();
    let listed = operations.of_device(&permit, &serial(SERIAL), 10).await;
    let listed = listed.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0].id, second.id);
}
