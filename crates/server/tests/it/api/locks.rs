//! Locks, through the API.

use std::time::Duration;

use serde_json::{Value, json};
use sim::dep::DepDevice;
use sim::{Fault, LockKind};

use crate::api::{Answer, Client};
use crate::support::{CODE_A, Stage};

const SERIAL: &str = "SIMPAD000001";
const DEVICE: &str = "/v1/devices/SIMPAD000001";
const LOCK: &str = "/v1/devices/SIMPAD000001/lock";

/// A stage whose device is assigned to the server of a token.
async fn stage() -> Stage {
    let stage = Stage::new().await;
    let token = stage.server_token().await;
    stage.assigned(&token, SERIAL).await;
    stage
}

async fn ask(client: &Client, key: &str, body: &Value) -> Answer {
    let mut request = client
        .request(reqwest::Method::POST, LOCK)
        .header("content-type", "application/json")
        .body(body.to_string());
    if !key.is_empty() {
        request = request.header("idempotency-key", key);
    }
    client.send(request).await
}

fn id(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// Waits until a lock is done, and gives it.
async fn done(stage: &Stage, client: &Client, id: &str) -> Value {
    let path = format!("/v1/locks/{id}");
    let step = Duration::from_millis(50);
    stage
        .until_in_steps("the lock to end", step, async || {
            client.get(&path).await.json()["done"] == true
        })
        .await;
    client.get(&path).await.json()
}

#[tokio::test]
async fn a_lock_is_asked_for_and_read_and_the_device_then_says_what_would_strand_it() {
    let stage = stage().await;
    let client = Client::with(&stage, &["lock"]).await;
    let body = json!({ "reason": " lost ", "message": "Please call", "requester": "anna@example.org", "urgent": true });
    let asked = ask(&client, "", &body).await;
    let id = id(&asked);
    let location = asked.header("location").unwrap().to_owned();
    assert_eq!(location, format!("/v1/locks/{id}"));
    let lock = done(&stage, &client, &id).await;
    assert_eq!(
        (&lock["state"], &lock["outcome"]),
        (&json!("locked"), &json!("locked"))
    );
    assert_eq!(
        (&lock["reason"], &lock["message"]),
        (&json!("lost"), &json!("Please call"))
    );
    assert_eq!(lock["requester"], "anna@example.org");
    assert_eq!(lock["calls"][0]["response_status"], "SUCCESS");
    assert_eq!(lock["calls"][0]["recipient"], "127.0.0.1");
    assert_eq!(lock["code"], lock["calls"][0]["code"]);
    for part in ["happened", "means", "to_do"] {
        assert!(lock["explanation"][part].is_string(), "{part}");
    }
    let device = client.get(DEVICE).await.json();
    assert_eq!(device["organisation_lock"]["state"], "confirmed");
    let warnings = device["organisation_lock"]["warnings"].as_array().unwrap();
    assert_eq!(
        warnings.len(),
        3,
        "release, Return to Service, moving (T29)"
    );
    assert_eq!(device["locks"][0]["id"], id.as_str());
    assert_eq!(device["summary"]["lock"], "confirmed");
    assert_eq!(device["listings"][0]["server_token"], "main");
    let listed = client
        .get("/v1/devices/SIMPAD000001/locks?limit=1")
        .await
        .json();
    assert_eq!(listed["items"][0]["id"], id.as_str());
    let status = client
        .get("/v1/devices/SIMPAD000001/lock-status")
        .await
        .json();
    assert_eq!(status["organisation_lock"]["evidence"], "success");
    assert_eq!(status["apple"]["can_be_asked"], false);
    let fresh = client
        .get("/v1/devices/SIMPAD000001/lock-status?fresh=1")
        .await;
    assert_eq!(fresh.refusal(), (409, "no-business-api".to_owned()));
}

#[tokio::test]
async fn t29_without_a_lock_nothing_is_warned_of() {
    let stage = stage().await;
    let client = Client::with(&stage, &["read"]).await;
    let device = client.get(DEVICE).await.json();
    assert_eq!(device["organisation_lock"]["state"], "none");
    assert_eq!(device["organisation_lock"]["warnings"], json!([]));
}

#[tokio::test]
async fn the_same_key_with_the_same_body_is_the_same_lock() {
    let stage = stage().await;
    let client = Client::with(&stage, &["lock"]).await;
    let body = json!({ "reason": "lost" });
    let first = id(&ask(&client, "key-1", &body).await);
    done(&stage, &client, &first).await;
    assert_eq!(id(&ask(&client, "key-1", &body).await), first);
    for other in [
        json!({ "reason": "stolen" }),
        json!({ "reason": "lost", "urgent": true }),
        json!({ "reason": "lost", "message": "x" }),
        json!({ "reason": "lost", "override_reason": "x" }),
        json!({ "reason": "lost", "server_token": "main" }),
    ] {
        let answer = ask(&client, "key-1", &other).await;
        assert_eq!(
            answer.refusal(),
            (422, "idempotency-key-reused".to_owned()),
            "{other}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_said_and_nothing_is_attempted() {
    let stage = stage().await;
    let client = Client::with(&stage, &["lock", "admin"]).await;
    let unlisted = json!({ "product_type": "iPad4,1" });
    client.patch("/v1/devices/SIMPAD000002", unlisted).await;
    let ask = async |serial: &str, body: Value| {
        let path = format!("/v1/devices/{serial}/lock");
        client.post(&path, body).await
    };
    let plain = json!({ "reason": "lost" });
    let answer = ask("NOSUCHDEVICE", plain.clone()).await;
    assert_eq!(answer.refusal(), (404, "unknown-device".to_owned()));
    let answer = ask("SIMPAD000002", plain).await;
    assert_eq!(answer.refusal(), (409, "not-assigned".to_owned()));
    assert!(
        answer.json()["hint"]
            .as_str()
            .unwrap()
            .contains("override_reason")
    );
    let named = json!({ "reason": "lost", "server_token": "none" });
    let answer = ask(SERIAL, named).await;
    assert_eq!(answer.refusal(), (404, "unknown-server-token".to_owned()));
    for body in [
        json!({ "reason": " " }),
        json!({ "reason": "lost", "message": "x".repeat(501) }),
        json!({ "reason": "lost", "message": "bell\u{7}" }),
        json!({ "reason": "lost", "override_reason": "" }),
        json!({ "reason": "lost", "escrow_key": "x" }),
        json!({}),
    ] {
        assert_eq!(ask(SERIAL, body.clone()).await.status, 400, "{body}");
    }
    assert!(stage.dep.calls_for(SERIAL).is_empty());
    // With a reason it is tried, and Apple decides.
    let insisted = json!({ "reason": "lost", "override_reason": "the list is wrong" });
    let answer = ask("SIMPAD000002", insisted).await;
    let lock = done(&stage, &client, &id(&answer)).await;
    assert_eq!(
        (&lock["state"], &lock["refused"]),
        (&json!("refused"), &json!("not_accessible"))
    );
}

#[tokio::test]
async fn t33_of_a_lock_and_an_unlock_the_second_is_told_of_the_first() {
    let stage = stage().await;
    stage.type_code(SERIAL, CODE_A).await;
    // Apple is not reached: the lock stays live.
    stage.dep.go_offline().await;
    let client = Client::with(&stage, &["lock", "unlock"]).await;
    let lock = id(&ask(&client, "", &json!({ "reason": "lost" })).await);
    let answer = client
        .post(
            "/v1/devices/SIMPAD000001/unlock",
            json!({ "reason": "returned" }),
        )
        .await;
    assert_eq!(answer.refusal(), (409, "lock-in-progress".to_owned()));
    assert_eq!(answer.json()["lock"], lock.as_str());
    let hint = answer.json()["hint"].as_str().unwrap().to_owned();
    assert!(
        hint.contains(&format!("`DELETE /v1/locks/{lock}`")),
        "{hint}"
    );
    let again = ask(&client, "", &json!({ "reason": "stolen", "urgent": true })).await;
    assert_eq!(
        (again.status, again.header("location")),
        (200, Some(format!("/v1/locks/{lock}").as_str()))
    );
    assert_eq!(
        (&again.json()["reason"], &again.json()["urgent"]),
        (&json!("lost"), &json!(false))
    );
    let other = Client::with(&stage, &["lock"]).await;
    let answer = ask(&other, "", &json!({ "reason": "lost" })).await;
    assert_eq!(answer.refusal(), (409, "lock-in-progress".to_owned()));
    let cancelled = client.delete(&format!("/v1/locks/{lock}")).await;
    assert!([200, 202].contains(&cancelled.status));
    done(&stage, &client, &lock).await;
    let asked = client
        .post(
            "/v1/devices/SIMPAD000001/unlock",
            json!({ "reason": "returned" }),
        )
        .await;
    assert_eq!(asked.status, 202);
}

#[tokio::test]
async fn a_lock_that_needs_review_is_continued_and_no_other() {
    let stage = stage().await;
    let client = Client::with(&stage, &["lock"]).await;
    stage
        .dep
        .push_fault(Fault::status(400).on("/device/activationlock"));
    let lock = id(&ask(&client, "", &json!({ "reason": "lost" })).await);
    let ended = done(&stage, &client, &lock).await;
    assert_eq!(
        (&ended["state"], &ended["review"]),
        (&json!("needs_review"), &json!("malformed"))
    );
    stage.clock.advance(Duration::from_secs(1));
    let path = format!("/v1/locks/{lock}/continue");
    assert_eq!(client.post(&path, json!({})).await.status, 202);
    assert_eq!(done(&stage, &client, &lock).await["state"], "locked");
    let again = client.post(&path, json!({})).await;
    assert_eq!(again.refusal(), (409, "not-in-review".to_owned()));
    assert_eq!(stage.apple.lock_state(SERIAL), Some(LockKind::Mdm));
    // What is of one kind is not found as the other.
    let unlock = client.get(&format!("/v1/unlocks/{lock}")).await;
    assert_eq!(unlock.refusal(), (404, "unknown-unlock".to_owned()));
}

#[tokio::test]
async fn r15_a_lock_that_needs_review_is_cancelled_and_what_was_unknown_stays_so() {
    let stage = stage().await;
    let client = Client::with(&stage, &["lock"]).await;
    stage.dep.refuse_lock(SERIAL, Some("SOMETHING_NEW"));
    let lock = id(&ask(&client, "", &json!({ "reason": "lost" })).await);
    let ended = done(&stage, &client, &lock).await;
    assert_eq!(ended["state"], "needs_review");
    let answer = client.delete(&format!("/v1/locks/{lock}")).await;
    assert_eq!(
        (answer.status, &answer.json()["state"]),
        (200, &json!("cancelled"))
    );
    assert_eq!(answer.json()["review"], Value::Null);
    let device = client.get(DEVICE).await.json();
    assert_eq!(device["organisation_lock"]["state"], "unknown");
}

#[tokio::test]
async fn r20_lock_on_listing_is_a_policy_that_is_off_until_it_is_set() {
    let stage = Stage::new().await;
    let admin = Client::with(&stage, &["admin"]).await;
    let path = format!("/v1/organisations/{}", stage.organisation.as_str());
    let shown = admin.get("/v1/organisations").await.json();
    assert_eq!(shown["items"][0]["lock_on_listing"], false);
    assert_eq!(admin.patch(&path, json!({})).await.status, 400);
    let set = admin.patch(&path, json!({ "lock_on_listing": true })).await;
    assert_eq!(
        (set.status, &set.json()["lock_on_listing"]),
        (200, &json!(true))
    );
    assert_eq!(set.json()["user_lock"], "leave", "what is left out stays");
    let token = stage.dep.issue_token("A server");
    stage.keep_token(&token).await;
    stage
        .until("the list to be read", async || {
            let tokens = stage.escrow().server_tokens().all().await.unwrap();
            tokens[0].whole_at.is_some()
        })
        .await;
    for n in 0..25 {
        stage
            .dep
            .assign(&token, DepDevice::new(format!("SIMNEW{n:06}"), "iPad"));
    }
    stage.read_list().await;
    stage
        .until("the policy to pause", async || {
            let shown = admin.get("/v1/organisations").await.json();
            shown["items"][0]["lock_on_listing_paused_at"].is_string()
        })
        .await;
    let on = admin.patch(&path, json!({ "lock_on_listing": true })).await;
    assert!(
        on.json()["lock_on_listing_paused_at"].is_null(),
        "a person goes on"
    );
}
