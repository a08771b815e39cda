//! The one session of a token.

use activation_lock::lock::LockOutcome;
use sim::apple::Gate;
use sim::dep::{DepCall, DepFault, Rotation};

use super::*;

#[tokio::test]
async fn t9_the_newest_text_of_a_session_is_used() {
    // The fake forgets the text before last: who keeps the first is refused at the third call.
    let organisation = Organisation::new().await;
    let service = organisation.service();
    for _ in 0..6 {
        service.account(now()).await.unwrap();
    }
    assert_eq!(organisation.dep.sessions(), 1);
    assert_eq!(organisation.calls(SESSION), 1);
    assert_eq!(organisation.calls("/account"), 6);
}

#[tokio::test]
async fn t9_two_calls_at_once_begin_one_session() {
    let organisation = Organisation::new().await;
    let service = organisation.service();
    let gate = Gate::new();
    organisation
        .dep
        .push_fault(DepFault::hold(&gate).on(SESSION));
    let one = service.clone();
    let one = tokio::spawn(async move { one.account(now()).await });
    let other = service.clone();
    let other = tokio::spawn(async move { lock(&other).await });
    gate.open();
    one.await.unwrap().unwrap();
    assert_eq!(other.await.unwrap().outcome, LockOutcome::Locked);
    assert_eq!(
        (organisation.dep.sessions(), organisation.calls(SESSION)),
        (1, 1)
    );
}

#[tokio::test]
async fn t9_many_calls_whose_session_ended_begin_one_new_one() {
    let options = DepOptions {
        rotation: Rotation::Never,
        ..DepOptions::default()
    };
    let organisation = Organisation::with(options).await;
    let service = organisation.service();
    service.account(now()).await.unwrap();
    organisation.dep.expire_sessions();
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { service.account(now()).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(organisation.dep.sessions(), 2);
}

#[tokio::test]
async fn t9_calls_at_once_do_not_take_the_session_from_each_other_for_good() {
    // The fake forgets the text before last, which of many calls at once is almost everybody's.
    let organisation = Organisation::new().await;
    let service = organisation.service();
    for round in 1..=3 {
        let calls: Vec<_> = (0..16)
            .map(|_| {
                let service = service.clone();
                tokio::spawn(async move { service.account(now()).await })
            })
            .collect();
        for call in calls {
            let account = call.await.unwrap();
            assert!(account.is_ok(), "round {round}: {account:?}");
        }
    }
}

/// An answer that is there is told, whatever others wait for.
#[tokio::test]
async fn t9_an_answer_does_not_wait_for_the_session_that_another_begins() {
    let organisation = Organisation::new().await;
    let service = organisation.service();
    service.account(now()).await.unwrap();
    let answered = Gate::new();
    organisation
        .dep
        .push_fault(DepFault::hold_after_commit(&answered).on(LOCK));
    let late = service.clone();
    let late = tokio::spawn(async move { lock(&late).await });
    let journal = organisation.dep.journal();
    journal
        .wait_for("the lock", |calls| calls.iter().any(|call| call.locked))
        .await;
    organisation.dep.expire_sessions();
    let begun = Gate::new();
    organisation
        .dep
        .push_fault(DepFault::hold(&begun).on(SESSION));
    let other = service.clone();
    let other = tokio::spawn(async move { other.account(now()).await });
    held(&organisation, SESSION).await;
    answered.open();
    assert_eq!(late.await.unwrap().outcome, LockOutcome::Locked);
    begun.open();
    other.await.unwrap().unwrap();
}

#[tokio::test]
async fn t9_a_call_that_two_others_overtook_is_sent_again_with_their_session() {
    let organisation = Organisation::new().await;
    let service = organisation.service();
    service.account(now()).await.unwrap();
    let gate = Gate::new();
    organisation.dep.push_fault(DepFault::hold(&gate).on(LOCK));
    let slow = service.clone();
    let slow = tokio::spawn(async move { lock(&slow).await });
    held(&organisation, LOCK).await;
    for _ in 0..3 {
        service.account(now()).await.unwrap();
    }
    gate.open();
    assert_eq!(slow.await.unwrap().outcome, LockOutcome::Locked);
    assert_eq!(organisation.calls(LOCK), 2, "refused once, and sent again");
    assert_eq!(organisation.dep.sessions(), 1);
}

#[tokio::test]
async fn t9_a_late_answer_of_an_ended_session_does_not_bring_it_back() {
    let organisation = Organisation::new().await;
    let service = organisation.service();
    service.account(now()).await.unwrap();
    let gate = Gate::new();
    organisation
        .dep
        .push_fault(DepFault::hold_after_commit(&gate).on(LOCK));
    let late = service.clone();
    let late = tokio::spawn(async move { lock(&late).await });
    let journal = organisation.dep.journal();
    journal
        .wait_for("the lock", |calls| calls.iter().any(|call| call.locked))
        .await;
    organisation.dep.expire_sessions();
    service.account(now()).await.unwrap();
    assert_eq!(organisation.dep.sessions(), 2);
    gate.open();
    assert_eq!(late.await.unwrap().outcome, LockOutcome::Locked);
    for _ in 0..3 {
        service.account(now()).await.unwrap();
    }
    assert_eq!(
        organisation.dep.sessions(),
        2,
        "the new session is still used"
    );
}

#[tokio::test]
async fn t9_a_caller_that_gave_up_keeps_nobody_from_the_session() {
    let organisation = Organisation::new().await;
    let service = organisation.service();
    let gate = Gate::new();
    organisation
        .dep
        .push_fault(DepFault::hold(&gate).on(SESSION));
    let given_up = service.clone();
    let given_up = tokio::spawn(async move { given_up.account(now()).await });
    held(&organisation, SESSION).await;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    service.account(now()).await.unwrap();
    gate.open();
}

#[tokio::test]
async fn t9_a_session_whose_reply_was_lost_is_begun_again_with_another_nonce() {
    let organisation = Organisation::new().await;
    let service = organisation.service();
    organisation
        .dep
        .push_fault(DepFault::drop_after_commit().on(SESSION));
    assert_eq!(lock(&service).await.outcome, LockOutcome::Unavailable);
    // The same second, and the fake remembers every nonce of it.
    assert_eq!(lock(&service).await.outcome, LockOutcome::Locked);
    assert_eq!(organisation.dep.sessions(), 2);
}

/// Waits until a call of this path is held by a fault.
async fn held(organisation: &Organisation, path: &str) {
    let is_held = |call: &DepCall| call.path == path && call.fault.is_some();
    let journal = organisation.dep.journal();
    journal
        .wait_for("a call that is held", |calls| calls.iter().any(is_held))
        .await;
}
