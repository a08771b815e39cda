//! The fake Apple's controls over HTTP.

use serde_json::{Value, json};
use sim::{PushCertificate, StartError, apple::control::Control};

use crate::support::{CODE, SERIAL, apple, client, plain, status, unlock};

#[tokio::test]
async fn a_device_is_added_locked_and_unlocked_without_a_line_of_rust() {
    let apple = sim::Apple::start(sim::AppleOptions::default())
        .await
        .unwrap();
    let control = Control::start(apple.clone(), ([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let (http, url) = (plain(), control.url());
    let post = |path: &str, body: Value| {
        http.post(format!("{url}{path}"))
            .header("content-type", "application/json")
            .body(body.to_string())
    };
    let device = json!({ "serial": SERIAL, "product_type": "iPad4,1", "lock": { "kind": "user", "code": CODE } });
    assert_eq!(status(post("/devices", device.clone())).await, 201);
    assert_eq!(
        status(post("/devices", device)).await,
        409,
        "the first lock wins"
    );

    let issued = post("/push-certificates", json!({})).send().await.unwrap();
    let issued: Value = serde_json::from_slice(&issued.bytes().await.unwrap()).unwrap();
    let text = |key: &str| issued[key].as_str().unwrap().to_owned();
    let certificate = PushCertificate {
        topic: text("topic"),
        certificate_pem: text("certificate_pem"),
        key_pem: text("key_pem"),
        not_after: time::OffsetDateTime::UNIX_EPOCH,
    };
    let ca = http
        .get(format!("{url}/ca.pem"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(
        status(post(
            "/faults",
            json!({ "kind": "status", "status": 503, "retry_after": "1" })
        ))
        .await,
        204
    );
    let unlocker = client(&ca, Some(&certificate));
    assert_eq!(status(unlock(&apple, &unlocker, CODE)).await, 503);
    let show = || async {
        let answer = http
            .get(format!("{url}/devices/{SERIAL}"))
            .send()
            .await
            .unwrap();
        serde_json::from_slice::<Value>(&answer.bytes().await.unwrap()).unwrap()
    };
    assert_eq!(show().await["lock"], "user");
    assert_eq!(status(unlock(&apple, &unlocker, CODE)).await, 200);
    assert_eq!(show().await["lock"], Value::Null);
    let journal = http
        .get(format!("{url}/journal"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let calls: Vec<Value> = serde_json::from_str(&journal).unwrap();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0]["answered"], json!({ "status": 503 }));
    assert!(!journal.contains(CODE));
}

#[tokio::test]
async fn unknown_keys_and_kinds_are_refused() {
    let apple = apple().await;
    let control = Control::start(apple.clone(), ([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let (http, url) = (plain(), control.url());
    for (path, body) in [
        (
            "/devices",
            json!({ "serial": SERIAL, "product_type": "iPad4,1", "colour": "red" }),
        ),
        ("/faults", json!({ "kind": "earthquake" })),
        ("/faults", json!({ "kind": "status" })),
        ("/faults", json!({ "kind": "echo" })),
        ("/faults", json!({ "kind": "delay" })),
        (
            "/faults",
            json!({ "kind": "status", "status": 503, "retry_after": [7] }),
        ),
        ("/push-certificates", json!({ "issuer": "me" })),
    ] {
        let answer = http
            .post(format!("{url}{path}"))
            .header("content-type", "application/json")
            .body(body.to_string());
        let answer = status(answer).await;
        assert!((400..500).contains(&answer), "{path} {body}: {answer}");
    }
    assert_eq!(apple.faults_waiting(), 0);
}

#[tokio::test]
async fn a_wait_is_asked_for_in_seconds_or_in_any_text() {
    let apple = apple().await;
    let control = Control::start(apple.clone(), ([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let http = plain();
    let certificate = apple.push_certificate(sim::SIM_TOPIC);
    let unlocker = client(&apple.ca_pem(), Some(&certificate));
    for (given, sent) in [(json!(7), "7"), (json!("soon"), "soon")] {
        let fault = json!({ "kind": "status", "status": 503, "retry_after": given });
        let put = http
            .post(format!("{}/faults", control.url()))
            .header("content-type", "application/json")
            .body(fault.to_string());
        assert_eq!(status(put).await, 204);
        let answer = unlock(&apple, &unlocker, CODE).send().await.unwrap();
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], sent);
    }
}

#[tokio::test]
async fn controls_are_for_loopback_alone() {
    let refused = Control::start(apple().await, ([0, 0, 0, 0], 0).into()).await;
    assert!(matches!(refused.err(), Some(StartError::NotLoopback(_))));
}
