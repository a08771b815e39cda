//! Faults on demand.

use std::time::Duration;

use sim::{Fault, Gate, LockKind, apple::Answered};

use crate::support::{CODE, OTHER_CODE, SERIAL, good_client, locked, status, unlock, whole_story};

#[tokio::test]
async fn a_dropped_request_changes_nothing_before_and_everything_after_the_commit() {
    let apple = locked().await;
    let client = good_client(&apple);
    apple.push_fault(Fault::drop_before());
    assert!(unlock(&apple, &client, CODE).send().await.is_err());
    assert_eq!(apple.lock_state(SERIAL), Some(LockKind::User));
    apple.push_fault(Fault::drop_after_commit());
    assert!(unlock(&apple, &client, CODE).send().await.is_err());
    assert_eq!(apple.lock_state(SERIAL), None);
    let calls = apple.calls_for(SERIAL);
    assert_eq!(
        (calls[0].answered, calls[0].unlocked),
        (Answered::HungUp, false)
    );
    assert_eq!(
        (calls[1].answered, calls[1].unlocked),
        (Answered::HungUp, true)
    );
}

#[tokio::test]
async fn a_held_request_is_seen_before_it_is_answered() {
    let apple = locked().await;
    let client = good_client(&apple);
    let gate = Gate::new();
    apple.push_fault(Fault::hold(&gate));
    let waiting = tokio::spawn(status(unlock(&apple, &client, CODE)));
    let seen = apple
        .journal()
        .wait_for("the request", |calls| !calls.is_empty())
        .await;
    assert_eq!(seen[0].answered, Answered::Pending);
    assert_eq!(
        apple.lock_state(SERIAL),
        Some(LockKind::User),
        "held before the lock is looked at"
    );
    gate.open();
    assert_eq!(waiting.await.unwrap(), 200);
}

#[tokio::test]
async fn a_client_that_leaves_is_served_all_the_same() {
    let apple = locked().await;
    let client = good_client(&apple);
    let gate = Gate::new();
    apple.push_fault(Fault::hold(&gate));
    let waiting = tokio::spawn(unlock(&apple, &client, CODE).send());
    apple
        .journal()
        .wait_for("the request", |calls| !calls.is_empty())
        .await;
    waiting.abort();
    drop(client);
    gate.open();
    apple
        .journal()
        .wait_for("the lock to go off", |calls| calls[0].unlocked)
        .await;
    assert_eq!(apple.lock_state(SERIAL), None);
}

#[tokio::test]
async fn held_after_the_commit_the_lock_is_off_while_the_client_waits() {
    let apple = locked().await;
    let client = good_client(&apple);
    let gate = Gate::new();
    apple.push_fault(Fault::hold_after_commit(&gate));
    let waiting = tokio::spawn(status(unlock(&apple, &client, CODE)));
    apple
        .journal()
        .wait_for("the lock to go off", |calls| {
            calls.iter().any(|call| call.unlocked)
        })
        .await;
    assert_eq!(apple.lock_state(SERIAL), None);
    gate.open();
    assert_eq!(waiting.await.unwrap(), 200);
}

#[tokio::test]
async fn statuses_come_as_asked_with_retry_after_and_body() {
    let apple = locked().await;
    let client = good_client(&apple);
    apple.push_fault(
        Fault::status(503)
            .retry_after("7")
            .location("https://127.0.0.1:1/elsewhere")
            .body("later"),
    );
    let answer = unlock(&apple, &client, CODE).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 503);
    assert_eq!(answer.headers()["retry-after"], "7");
    assert_eq!(
        answer.headers()["location"],
        "https://127.0.0.1:1/elsewhere"
    );
    assert_eq!(answer.text().await.unwrap(), "later");
    assert_eq!(apple.lock_state(SERIAL), Some(LockKind::User));
    apple.push_fault(Fault::status(500).committing());
    assert_eq!(status(unlock(&apple, &client, CODE)).await, 500);
    assert_eq!(apple.lock_state(SERIAL), None);
}

#[tokio::test]
async fn faults_wait_for_their_device_and_their_turn() {
    let apple = locked().await;
    let client = good_client(&apple);
    apple.push_fault(Fault::status(418).for_serial("SIMTEST00099"));
    apple.push_fault(Fault::status(500).for_serial(SERIAL).times(2));
    apple.push_fault(Fault::status(429));
    for expected in [500, 500, 429, 200] {
        assert_eq!(status(unlock(&apple, &client, CODE)).await, expected);
    }
    assert_eq!(apple.faults_waiting(), 1, "the other device's");
    apple.clear_faults();
    assert_eq!(apple.faults_waiting(), 0);
}

#[tokio::test]
async fn t18_odd_bodies_go_with_the_true_status() {
    let apple = locked().await;
    let client = good_client(&apple);
    apple.push_fault(Fault::huge_body());
    let answer = unlock(&apple, &client, OTHER_CODE).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 404);
    assert_eq!(answer.bytes().await.unwrap().len(), 5 * 1024 * 1024);
    apple.push_fault(Fault::xml_body());
    let answer = unlock(&apple, &client, OTHER_CODE).send().await.unwrap();
    assert!(answer.text().await.unwrap().contains("<code>404</code>"));
    apple.push_fault(Fault::empty_body());
    let answer = unlock(&apple, &client, OTHER_CODE).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "");
    apple.push_fault(Fault::echo(404));
    let answer = unlock(&apple, &client, OTHER_CODE).send().await.unwrap();
    assert_eq!(
        answer.text().await.unwrap().matches(OTHER_CODE).count(),
        3,
        "form, plain and JSON"
    );
}

#[tokio::test]
async fn rubbish_is_no_http_and_changes_nothing() {
    let apple = locked().await;
    let client = good_client(&apple);
    apple.push_fault(Fault::garbage());
    let error = unlock(&apple, &client, CODE).send().await.unwrap_err();
    assert!(
        !error.is_timeout() && !error.is_connect(),
        "{}",
        whole_story(&error)
    );
    assert_eq!(apple.calls_for(SERIAL)[0].answered, Answered::Garbage);
    assert_eq!(apple.lock_state(SERIAL), Some(LockKind::User));
    assert_eq!(status(unlock(&apple, &client, CODE)).await, 200);
}

#[tokio::test]
async fn a_delay_is_longer_than_an_impatient_client() {
    let apple = locked().await;
    let client = good_client(&apple);
    apple.push_fault(Fault::delay(Duration::from_secs(3)));
    let error = unlock(&apple, &client, CODE)
        .timeout(Duration::from_millis(200))
        .send()
        .await
        .unwrap_err();
    assert!(error.is_timeout());
    apple.push_fault(Fault::delay(Duration::from_millis(1)));
    assert_eq!(
        status(unlock(&apple, &good_client(&apple), OTHER_CODE)).await,
        404
    );
}

#[tokio::test]
async fn offline_refuses_connections_and_comes_back_at_the_same_address() {
    let apple = locked().await;
    let client = good_client(&apple);
    let address = apple.address();
    apple.go_offline().await;
    assert!(
        unlock(&apple, &client, CODE)
            .send()
            .await
            .unwrap_err()
            .is_connect()
    );
    apple.come_back().await;
    assert_eq!(apple.address(), address);
    apple.close_connections(1);
    assert!(
        unlock(&apple, &client, CODE)
            .send()
            .await
            .unwrap_err()
            .is_connect()
    );
    assert_eq!(status(unlock(&apple, &client, CODE)).await, 200);
}
