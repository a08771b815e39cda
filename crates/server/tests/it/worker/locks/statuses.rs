//! Apple's own status, read from its fake: T13, T31.

use escrow::lock_statuses::Expected;

use super::*;

#[tokio::test]
async fn t31_after_a_lock_and_an_unlock_apples_status_is_read_until_it_agrees() {
    let stage = stage().await;
    stage.account().await;
    assert_eq!(stage.apple_said(SERIAL, LONG_AGO).await, "NONE");
    // Apple is some minutes behind.
    stage.business.set_stale_for(Duration::from_secs(150));
    stage.lock_to_its_end(SERIAL).await;
    let expected = stage.view(SERIAL).await.status.expected;
    assert!(expected.is_none(), "it is not even asked for yet");
    let step = Duration::from_secs(5);
    stage
        .until_in_steps("the first look", step, async || {
            let status = stage.view(SERIAL).await.status;
            status.expected.map(|(expected, _)| expected) == Some(Expected::Locked)
        })
        .await;
    assert_eq!(stage.standing(SERIAL).await.0, OurLock::Confirmed);
    stage
        .until_in_steps("Apple to agree", step, async || {
            stage.view(SERIAL).await.status.expected.is_none()
        })
        .await;
    let last = stage.view(SERIAL).await.status.last.unwrap();
    assert_eq!(last.status.lock_type.unwrap().as_str(), "MDM");

    stage.business.set_stale_for(Duration::ZERO);
    let now = stage.now();
    assert_eq!(unlocked(&stage, SERIAL).await, (StateName::Unlocked, 1));
    stage
        .until_in_steps("Apple to agree", step, async || {
            let last = stage.view(SERIAL).await.status.last.unwrap();
            last.last_at > now && last.status.lock_type.unwrap().as_str() == "NONE"
        })
        .await;
}

#[tokio::test]
async fn t31_what_apple_answers_is_kept_as_it_came_and_its_silence_is_not_unlocked() {
    let stage = stage().await;
    let says = async |answer| {
        stage.business.set_status(SERIAL, answer);
        let permit = stage.permit(SERIAL).await;
        let token = stage.token(&["unlock"]).await;
        let url = format!("{}/v1/devices/{SERIAL}/lock-status?fresh=1", stage.url());
        let answer = crate::support::client()
            .get(url)
            .bearer_auth(token)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        let body = answer.bytes().await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let view = stage
            .escrow()
            .lock_statuses()
            .of_device(&permit, &SERIAL.parse().unwrap())
            .await;
        (body["apple"].clone(), view.unwrap())
    };
    stage.account().await;
    let (shown, _) = says(StatusAnswer::Truth).await;
    assert_eq!(
        (&shown["is_locked"], &shown["lock_type"]),
        (&false.into(), &"NONE".into())
    );
    let (shown, view) = says(StatusAnswer::Other("LOST_MODE".to_owned())).await;
    assert_eq!(shown["lock_type"], "LOST_MODE");
    assert!(view.last.unwrap().status.known().is_none());
    let (shown, _) = says(StatusAnswer::Missing).await;
    assert!(shown["is_locked"].is_null() && shown["lock_type"].is_null());
    let (shown, _) = says(StatusAnswer::InternalState).await;
    assert_eq!(shown["problem"], "internal_state");
    assert!(shown["read_at"].is_string(), "what was said before stays");
    assert_eq!(stage.standing(SERIAL).await.0, OurLock::None);
}

#[tokio::test]
async fn t31_an_account_that_is_asked_to_slow_down_waits() {
    let stage = stage().await;
    let slow = Fault::status(429)
        .retry_after("90")
        .on("/v1/orgDevices")
        .times(1);
    stage.business.push_fault(slow);
    stage.account().await;
    stage
        .until("Apple to be asked", async || {
            stage.business.faults_waiting() == 0
        })
        .await;
    stage
        .until("the account to wait", async || {
            let accounts = stage.escrow().business_apis().all().await.unwrap();
            accounts[0].retry_at.is_some()
        })
        .await;
    assert_eq!(stage.apple_said(SERIAL, LONG_AGO).await, "NONE");
}

#[tokio::test]
async fn t31_apple_is_asked_at_once_only_by_who_may_and_not_while_it_wants_no_questions() {
    let stage = stage().await;
    stage.account().await;
    let url = format!("{}/v1/devices/{SERIAL}/lock-status", stage.url());
    let ask = async |scope: &str, query: &str| {
        let token = stage.token(&[scope]).await;
        let ask = crate::support::client()
            .get(format!("{url}{query}"))
            .bearer_auth(token);
        ask.send().await.unwrap()
    };
    assert_eq!(ask("read", "").await.status(), 200);
    assert_eq!(ask("read", "?fresh=1").await.status(), 403);
    assert_eq!(ask("unlock", "?fresh=1").await.status(), 200);
    let slow = Fault::status(429)
        .retry_after("90")
        .on("/v1/orgDevices")
        .times(1);
    stage.business.push_fault(slow);
    ask("unlock", "?fresh=1").await;
    let asked = stage.business.journal().all().len();
    let refused = ask("unlock", "?fresh=1").await;
    assert_eq!(refused.status(), 503);
    let wait: u64 = refused.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((60..=90).contains(&wait), "{wait}");
    assert_eq!(
        stage.business.journal().all().len(),
        asked,
        "Apple was left alone"
    );
    assert_eq!(ask("unlock", "").await.status(), 200);
}

#[tokio::test]
async fn t31_no_answer_keeps_an_account_waiting_for_longer_than_a_day() {
    let stage = stage().await;
    let slow = Fault::status(503)
        .retry_after("99999999")
        .on("/v1/orgDevices")
        .times(1);
    stage.business.push_fault(slow);
    stage.account().await;
    let accounts = async || stage.escrow().business_apis().all().await.unwrap();
    stage
        .until("the account to wait", async || {
            accounts().await[0].retry_at.is_some()
        })
        .await;
    let until = accounts().await[0].retry_at.unwrap();
    assert!(until <= stage.now().plus(DAY), "{until:?}");
}

#[tokio::test]
async fn r12_none_ends_an_unlock_unless_the_person_insists() {
    let stage = stage().await;
    stage.account().await;
    stage.type_code(SERIAL, CODE_A).await;
    assert_eq!(unlocked(&stage, SERIAL).await, (StateName::NotLocked, 0));
    let url = format!("{}/v1/devices/{SERIAL}/unlock", stage.url());
    let wish = r#"{"reason":"the screen says that it is locked","insist":true}"#;
    let ask = crate::support::client()
        .post(url)
        .bearer_auth(stage.token(&["unlock"]).await)
        .header("content-type", "application/json")
        .body(wish);
    let answer = ask.send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let body: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    // The code is tried; that it was refused then says what Apple's status says.
    let ended = stage.ended(body["id"].as_str().unwrap()).await;
    assert_eq!(
        (ended.state, ended.attempts.len()),
        (StateName::NotLocked, 1)
    );
}
