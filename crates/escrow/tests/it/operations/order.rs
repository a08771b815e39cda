//! What earlier calls mean for the order and the caps of an unlock, and what a lock of ours that may be on means (R4, R12, R14).

use super::*;

#[tokio::test]
async fn r14_a_404_after_a_call_without_an_answer_does_not_put_the_code_behind_others() {
    let desk = Desk::with_codes(&[CODE_A, CODE_B]).await;
    let id = desk.unlock(SERIAL).await;
    desk.work(|_| Outcome::Unknown).await;
    desk.clock.advance(Duration::from_secs(3600));
    desk.work(|_| Outcome::Refused).await;
    assert_eq!(desk.state(&id).await, StateName::ProbablyUnlocked);
    // Locked again, with the same code as likely as not.
    desk.add_code(SERIAL, "no code at all", CodeKind::Device)
        .await;
    desk.unlock(SERIAL).await;
    let sent = desk.work(|_| Outcome::Refused).await;
    assert!(same(&sent, &[CODE_B, CODE_A, "no code at all"]));
    // Now they were refused for sure.
    desk.add_code(SERIAL, "nor is this", CodeKind::Device).await;
    desk.unlock(SERIAL).await;
    let sent = desk.work(|_| Outcome::Refused).await;
    assert!(same(
        &sent,
        &["nor is this", CODE_B, CODE_A, "no code at all"]
    ));
}

#[tokio::test]
async fn r12_asking_about_one_code_often_uses_up_one_attempt_of_the_day() {
    let desk = Desk::with_codes(&[CODE_A, CODE_B]).await;
    let id = desk.unlock(SERIAL).await;
    for _ in 0..12 {
        assert!(same(&desk.work(|_| Outcome::Unknown).await, &[CODE_B]));
        desk.clock.advance(Duration::from_secs(3600));
    }
    let permit = desk.may_unlock().await;
    desk.escrow.operations().cancel(&permit, &id).await.unwrap();
    let id = desk.unlock(SERIAL).await;
    assert_eq!(desk.work(|_| Outcome::Refused).await.len(), 2);
    assert_eq!(desk.state(&id).await, StateName::Rejected);
}

/// A lock of ours with this code may be on, as far as anybody knows.
async fn may_be_live(desk: &Desk, code: &str) {
    desk.add_code(SERIAL, code, CodeKind::Server).await;
    let codes = desk.device(SERIAL).await.codes;
    let id = &codes.last().unwrap().id.0;
    let lost = "INSERT INTO lock_calls (organisation, id, serial, position, code, credential, recipient, lease_number, \
                began_at, lost_at) SELECT organisation, 'a lost call', serial, 1, id, '', '', 0, created_at, created_at \
                FROM codes WHERE id = $1";
    tamper(desk, lost, id).await;
    let sql = "UPDATE codes SET lock_state = 'unknown' WHERE id = $1";
    tamper(desk, sql, id).await;
}

#[tokio::test]
async fn r4_a_server_code_that_may_be_live_is_tried_first_and_outside_every_cap_for_ever() {
    let mut codes = vec![CODE_A, CODE_B];
    codes.extend(MORE_CODES);
    let desk = Desk::with_codes(&codes).await;
    may_be_live(&desk, CODE_C).await;
    let id = desk.unlock(SERIAL).await;
    let sent = desk.work(|_| Outcome::Refused).await;
    assert!(sent[0] == CODE_C);
    assert_eq!(sent.len(), 7, "six codes and the one that is outside");
    assert_eq!(desk.state(&id).await, StateName::Rejected);
    // Refusals do not make it any less of a candidate, and the cap of the day does not keep it out.
    for _ in 0..3 {
        desk.clock.advance(Duration::from_secs(60));
        let id = desk.unlock(SERIAL).await;
        let sent = desk.work(|_| Outcome::Refused).await;
        assert!(sent.iter().any(|code| code == CODE_C));
        let view = desk.view(&id).await;
        assert!(
            view.attempts
                .iter()
                .any(|a| a.code_kind == CodeKind::Server)
        );
    }
    let live = desk.device(SERIAL).await.codes.pop().unwrap();
    assert_eq!(live.lock_state, "unknown");
    desk.clock.advance(30 * DAY);
    desk.certificate(TOPIC, "bb").await;
    desk.unlock(SERIAL).await;
    let sent = desk.work(|code| match code == CODE_C {
        true => Outcome::Unlocked,
        false => Outcome::Refused,
    });
    assert!(sent.await.iter().any(|code| code == CODE_C));
    // A 200 with it ends "locked by us" (R15), and it stays a candidate.
    let live = desk.device(SERIAL).await.codes.pop().unwrap();
    assert_eq!(live.lock_state, "none");
    assert!(live.used_at.is_some());
}

#[tokio::test]
async fn r4_an_unlock_with_another_code_leaves_a_lock_that_may_be_ours_unknown() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    may_be_live(&desk, CODE_C).await;
    desk.unlock(SERIAL).await;
    desk.work(|code| match code == CODE_A {
        true => Outcome::Unlocked,
        false => Outcome::Refused,
    })
    .await;
    let codes = desk.device(SERIAL).await.codes;
    assert!(codes[0].used_at.is_some() && codes[0].lock_state == "none");
    assert_eq!(codes[1].lock_state, "unknown");
}

#[tokio::test]
async fn t13_without_a_status_api_both_codes_refused_is_rejected_and_not_called_unlocked() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    desk.add_code(SERIAL, CODE_B, CodeKind::Server).await;
    let id = desk.unlock(SERIAL).await;
    assert_eq!(desk.work(|_| Outcome::Refused).await.len(), 2);
    let view = desk.view(&id).await;
    assert_eq!(view.state, StateName::Rejected);
    // Nobody can tell whether it is locked, and that is what is said of it.
    let words = activation_lock::explain::end(&view.end().unwrap());
    assert!(words.means.contains("cannot be told"));
    let codes = desk.device(SERIAL).await.codes;
    assert!(codes.len() == 2 && codes.iter().all(|code| code.used_at.is_none()));
}

/// The codes that an unlock asked for now would try, and why.
async fn order_now(desk: &Desk) -> (Vec<String>, usize, FirstBecause) {
    let permit: Permit<Read> = desk.permit(SERIAL).await;
    let operations = desk.escrow.operations();
    let order = operations.order(&permit, &serial(SERIAL)).await.unwrap();
    let revealed = desk.reveal(SERIAL).await;
    let text = |id: &CodeId| {
        let code = revealed.iter().find(|code| code.view.id == *id).unwrap();
        code.text.expose().to_owned()
    };
    let refused = order.refused_before.len();
    (order.codes.iter().map(text).collect(), refused, order.why)
}

#[tokio::test]
async fn r12_the_order_that_is_shown_is_the_order_that_is_tried() {
    let desk = Desk::with_codes(&[CODE_A, CODE_B]).await;
    let (shown, refused, why) = order_now(&desk).await;
    assert_eq!(
        (shown.as_slice(), refused),
        (&[CODE_B.to_owned(), CODE_A.to_owned()][..], 0)
    );
    assert_eq!(why, FirstBecause::Nothing);
    desk.unlock(SERIAL).await;
    let sent = desk.work(|_| Outcome::Refused).await;
    assert!(same(&sent, &[CODE_B, CODE_A]));
    // Both were refused; what was never tried goes before them.
    desk.add_code(SERIAL, CODE_C, CodeKind::Unknown).await;
    let (shown, refused, _) = order_now(&desk).await;
    assert_eq!((shown[0].as_str(), refused), (CODE_C, 2));
    may_be_live(&desk, MORE_CODES[0]).await;
    let (shown, _, why) = order_now(&desk).await;
    assert_eq!(
        (shown[0].as_str(), why),
        (MORE_CODES[0], FirstBecause::MayBeOurs)
    );
    // Without a product type nothing can be tried.
    let permit: Permit<Read> = desk.permit("UNKNOWN1").await;
    let operations = desk.escrow.operations();
    let order = operations
        .order(&permit, &serial("UNKNOWN1"))
        .await
        .unwrap();
    assert!(order.codes.is_empty());
}

#[tokio::test]
async fn what_needs_a_person_and_what_came_of_each_week_is_counted() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let first = desk.unlock(SERIAL).await;
    desk.work(|_| Outcome::Unlocked).await;
    desk.clock.advance(DAY * 7);
    let second = desk.unlock(SERIAL).await;
    desk.work(|_| Outcome::Unexpected).await;
    assert_ne!(first, second);
    let permit: Permit<Read> = desk.permit("today").await;
    let operations = desk.escrow.operations();
    let (review, count) = operations.in_review(&permit, 8).await.unwrap();
    assert_eq!((review.len(), count), (1, 1));
    assert_eq!(
        (review[0].id.as_str(), review[0].kind),
        (second.as_str(), Kind::Unlock)
    );
    let weeks = operations.outcomes(&permit, 2).await.unwrap();
    assert_eq!(weeks.len(), 2);
    assert_eq!(weeks[0].outcomes, [(StateName::Unlocked, 1)]);
    assert_eq!(weeks[1].outcomes, [(StateName::NeedsReview, 1)]);
    assert_eq!(weeks[1].began_at, weeks[0].began_at.plus(DAY * 7));
    // The 25th of May 2026 was a Monday.
    assert_eq!(weeks[0].began_at, Timestamp(1_779_667_200_000));
    let more = operations.outcomes(&permit, 3).await.unwrap();
    assert!(more.len() == 3 && more[0].outcomes.is_empty());
    let cancelled = operations.cancel(&desk.may_unlock().await, &second).await;
    assert!(matches!(cancelled.unwrap(), Cancelled::Ended(_)));
    assert_eq!(operations.in_review(&permit, 8).await.unwrap().1, 0);
}
