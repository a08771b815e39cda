//! Unlocks, through the API. Where an unlock is to stay live there is no push certificate: it waits for one.

use std::time::Duration;

use serde_json::{Value, json};
use sim::{Fault, Gate, Kind};

use crate::api::{Answer, Client, without_certificate};
use crate::support::{CODE_A, Stage};

const DEVICE: &str = "/v1/devices/SIMPAD1";
const UNLOCK: &str = "/v1/devices/SIMPAD1/unlock";

/// A stage without push certificate, with a device that has a code.
async fn stage() -> Stage {
    let stage = Stage::new().await;
    without_certificate(&stage).await;
    let admin = Client::with(&stage, &["admin"]).await;
    assert_eq!(
        admin
            .patch(DEVICE, json!({ "product_type": "iPad4,1" }))
            .await
            .status,
        200
    );
    let code = json!({ "text": CODE_A });
    assert_eq!(
        admin.post("/v1/devices/SIMPAD1/codes", code).await.status,
        201
    );
    stage
}

async fn ask(client: &Client, key: &str, body: &Value) -> Answer {
    let mut request = client
        .request(reqwest::Method::POST, UNLOCK)
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

#[tokio::test]
async fn r15_an_unlock_is_asked_for_and_read() {
    let stage = stage().await;
    let client = Client::with(&stage, &["unlock"]).await;
    let body = json!({ "reason": " returned by its user ", "requester": "anna@example.org", "insist": true, "urgent": true });
    let asked = ask(&client, "", &body).await;
    let id = id(&asked);
    let location = asked.header("location").unwrap();
    assert_eq!(location, format!("/v1/unlocks/{id}"));

    for unlock in [asked.json(), client.get(location).await.json()] {
        assert_eq!(unlock["id"], id.as_str());
        assert_eq!(unlock["serial"], "SIMPAD1");
        assert_eq!(unlock["organisation"], stage.organisation.as_str());
        assert!(["queued", "running", "waiting"].contains(&unlock["state"].as_str().unwrap()));
        assert_eq!(unlock["done"], false);
        assert_eq!(unlock["outcome"], Value::Null);
        assert_eq!(unlock["attempts"], json!([]));
        assert_eq!(unlock["reason"], "returned by its user");
        assert_eq!(unlock["requester"], "anna@example.org");
        assert_eq!(unlock["requested_by"], "token for unlock");
        assert_eq!(
            (&unlock["insist"], &unlock["urgent"]),
            (&json!(true), &json!(true))
        );
        assert!(
            unlock["requested_at"]
                .as_str()
                .unwrap()
                .starts_with("2026-05-28T20:26:40.")
        );
        assert!(
            unlock["deadline"]
                .as_str()
                .unwrap()
                .starts_with("2026-05-29T20:26:40.")
        );
        for part in ["happened", "means", "to_do"] {
            assert!(unlock["explanation"][part].is_string(), "{part}");
        }
    }
    let listed = client
        .get("/v1/devices/SIMPAD1/unlocks?limit=1")
        .await
        .json();
    assert_eq!(listed["items"][0]["id"], id.as_str());
    let page = client.get(DEVICE).await.json();
    assert_eq!(page["unlocks"][0]["id"], id.as_str());

    let admin = Client::with(&stage, &["admin"]).await;
    let row = &admin.get("/v1/audit?action=unlock.request").await.json()["items"][0];
    assert_eq!(row["reason"], "returned by its user");
    assert_eq!(row["details"]["requester"], "anna@example.org");
}

#[tokio::test]
async fn the_same_key_with_the_same_body_is_the_same_unlock() {
    let stage = stage().await;
    let client = Client::with(&stage, &["unlock"]).await;
    let body = json!({ "reason": "returned" });
    let first = id(&ask(&client, "key-1", &body).await);
    assert_eq!(id(&ask(&client, "key-1", &body).await), first);
    for other in [
        json!({ "reason": "stolen" }),
        json!({ "reason": "returned", "insist": true }),
        json!({ "reason": "returned", "urgent": true }),
        json!({ "reason": "returned", "requester": "anna@example.org" }),
    ] {
        let answer = ask(&client, "key-1", &other).await;
        assert_eq!(
            answer.refusal(),
            (422, "idempotency-key-reused".to_owned()),
            "{other}"
        );
    }
    // Another wish of the same token while one is under way is that one, and adds nothing but its own line on record.
    for key in ["key-2", ""] {
        let wish = json!({ "reason": "again", "requester": "bert@example.org", "urgent": true });
        let answer = ask(&client, key, &wish).await;
        let location = answer.header("location").unwrap();
        assert_eq!(location, format!("/v1/unlocks/{first}"));
        let unlock = answer.json();
        assert_eq!((answer.status, &unlock["id"]), (200, &json!(first)));
        assert_eq!(
            (&unlock["reason"], &unlock["urgent"]),
            (&json!("returned"), &json!(false))
        );
    }
    let admin = Client::with(&stage, &["admin"]).await;
    let row = &admin.get("/v1/audit?action=unlock.request").await.json()["items"][0];
    assert_eq!(
        (&row["reason"], &row["result"]),
        (&json!("again"), &json!("under_way"))
    );
    assert_eq!(row["details"]["requester"], "bert@example.org");
    assert_eq!(row["details"]["operation"], first.as_str());

    // The key outlives the unlock; without it a new one is made.
    assert_eq!(
        client.delete(&format!("/v1/unlocks/{first}")).await.status,
        200
    );
    assert_eq!(id(&ask(&client, "key-1", &body).await), first);
    let second = id(&ask(&client, "key-3", &body).await);
    assert_ne!(second, first);
    // A key counts for one token.
    assert_eq!(
        client.delete(&format!("/v1/unlocks/{second}")).await.status,
        200
    );
    let other = Client::with(&stage, &["unlock"]).await;
    assert_ne!(
        id(&ask(&other, "key-1", &json!({ "reason": "mine" })).await),
        first
    );

    for bad in [" ", &"x".repeat(256)] {
        assert_eq!(
            ask(&client, bad, &body).await.refusal(),
            (400, "bad-request".to_owned())
        );
    }
}

#[tokio::test]
async fn t33_somebody_elses_unlock_is_named() {
    let stage = stage().await;
    let first = Client::with(&stage, &["unlock"]).await;
    let second = Client::with(&stage, &["unlock"]).await;
    let id = id(&ask(&first, "", &json!({ "reason": "returned" })).await);
    for key in ["", "a-key"] {
        let answer = ask(&second, key, &json!({ "reason": "mine" })).await;
        assert_eq!(answer.refusal(), (409, "unlock-in-progress".to_owned()));
        assert_eq!(answer.json()["unlock"], id.as_str());
        let hint = answer.json()["hint"].as_str().unwrap().to_owned();
        assert!(
            hint.contains(&format!("`DELETE /v1/unlocks/{id}`")),
            "{hint}"
        );
    }
    assert_eq!(second.get(&format!("/v1/unlocks/{id}")).await.status, 200);
}

#[tokio::test]
async fn r15_without_a_product_type_it_is_said_how_to_supply_it() {
    let stage = stage().await;
    let client = Client::with(&stage, &["unlock", "admin"]).await;
    let code = json!({ "text": CODE_A });
    client.post("/v1/devices/SIMBARE1/codes", code).await;
    let path = "/v1/devices/SIMBARE1/unlock";
    let wish = json!({ "reason": "returned" });
    let answer = client.post(path, wish.clone()).await;
    assert_eq!(answer.refusal(), (409, "no-product-type".to_owned()));
    let hint = answer.json()["hint"].as_str().unwrap().to_owned();
    assert!(
        hint.contains("PATCH /v1/devices/{serial}") && hint.contains("iPad4,1"),
        "{hint}"
    );
    client
        .patch("/v1/devices/SIMBARE1", json!({ "product_type": "iPad4,1" }))
        .await;
    assert_eq!(client.post(path, wish.clone()).await.status, 202);

    let answer = client.post("/v1/devices/SIMNEVER1/unlock", wish).await;
    assert_eq!(answer.refusal(), (404, "unknown-device".to_owned()));
    let hint = answer.json()["hint"].as_str().unwrap().to_owned();
    assert!(hint.contains("`POST /v1/dep-tokens/{id}/sync`"), "{hint}");
    let rows = client
        .get("/v1/audit?action=unlock.request&subject=SIMBARE1")
        .await
        .json();
    let results: Vec<_> = rows["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["result"].clone())
        .collect();
    assert_eq!(results, ["ok", "no_product_type"]);
}

#[tokio::test]
async fn an_unlock_needs_a_reason() {
    let stage = stage().await;
    let client = Client::with(&stage, &["unlock"]).await;
    for bad in [
        json!({}),
        json!({ "reason": "" }),
        json!({ "reason": "x", "requester": " " }),
        json!({ "reason": "x", "requester": "y".repeat(201) }),
        json!({ "reason": "x", "insist": "yes" }),
        json!({ "reason": "x", "force": true }),
    ] {
        let answer = ask(&client, "", &bad).await;
        assert_eq!(answer.refusal(), (400, "bad-request".to_owned()), "{bad}");
    }
    assert_eq!(
        client.get("/v1/devices/SIMPAD1/unlocks").await.json()["items"],
        json!([])
    );
}

#[tokio::test]
async fn an_unlock_is_cancelled_once() {
    let stage = stage().await;
    let client = Client::with(&stage, &["unlock"]).await;
    let id = id(&ask(&client, "", &json!({ "reason": "returned" })).await);
    let path = format!("/v1/unlocks/{id}");
    for _ in 0..2 {
        let answer = client.delete(&path).await;
        assert_eq!(answer.status, 200);
        let unlock = answer.json();
        assert_eq!(
            (&unlock["state"], &unlock["outcome"]),
            (&json!("cancelled"), &json!("cancelled"))
        );
        assert_eq!(
            (&unlock["done"], &unlock["cancelled_by"]),
            (&json!(true), &json!("token for unlock"))
        );
        assert_eq!(
            unlock["explanation"]["happened"],
            "token for unlock cancelled the unlock."
        );
    }
    let answer = client.post(&format!("{path}/continue"), json!({})).await;
    assert_eq!(answer.refusal(), (409, "not-in-review".to_owned()));
    assert_eq!(answer.json()["unlock"], id.as_str());
}

#[tokio::test]
async fn r15_what_needs_review_ends_as_cancelled_when_a_person_says_so() {
    let stage = stage().await;
    let client = Client::with(&stage, &["unlock"]).await;
    let id = id(&ask(&client, "", &json!({ "reason": "returned" })).await);
    stage
        .escrow()
        .operations()
        .hold_after_restore()
        .await
        .unwrap();
    let path = format!("/v1/unlocks/{id}");
    assert_eq!(client.get(&path).await.json()["state"], "needs_review");
    let answer = client.delete(&path).await;
    let unlock = answer.json();
    assert_eq!(
        (answer.status, &unlock["state"]),
        (200, &json!("cancelled"))
    );
    assert_eq!(unlock["review"], Value::Null);
    assert_eq!(
        unlock["explanation"]["happened"],
        "token for unlock cancelled the unlock."
    );
}

#[tokio::test]
async fn r21_what_needs_review_goes_on_when_a_person_says_so() {
    let stage = stage().await;
    let client = Client::with(&stage, &["unlock"]).await;
    let id = id(&ask(&client, "", &json!({ "reason": "returned" })).await);
    assert_eq!(
        stage
            .escrow()
            .operations()
            .hold_after_restore()
            .await
            .unwrap(),
        1
    );
    let path = format!("/v1/unlocks/{id}");
    let held = client.get(&path).await.json();
    assert_eq!(
        (&held["state"], &held["outcome"]),
        (&json!("needs_review"), &json!("needs_review"))
    );
    assert_eq!(held["review"]["why"], "restored");
    assert!(
        held["explanation"]["happened"]
            .as_str()
            .unwrap()
            .contains("backup")
    );

    stage.clock.advance(Duration::from_secs(1));
    let answer = client.post(&format!("{path}/continue"), json!({})).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("location"), Some(path.as_str()));
    let unlock = answer.json();
    assert_eq!(
        (&unlock["done"], &unlock["review"]),
        (&json!(false), &Value::Null)
    );
    assert!(unlock["resumed_at"].is_string());
    let again = client.post(&format!("{path}/continue"), json!({})).await;
    assert_eq!(again.refusal(), (409, "not-in-review".to_owned()));
}

/// A stage with a device that has told its code and is locked with it.
async fn locked(serial: &str) -> Stage {
    let stage = Stage::new().await;
    let device = stage.enrolled(serial, Kind::IpadWifi).await;
    device.lock_with_own_code().unwrap();
    stage
}

#[tokio::test]
async fn t11_an_unlock_is_followed_to_its_end() {
    let stage = locked("SIMPAD1").await;
    let client = Client::with(&stage, &["unlock", "reveal"]).await;
    let path = format!(
        "/v1/unlocks/{}",
        id(&ask(&client, "", &json!({ "reason": "returned" })).await)
    );
    stage
        .until("the unlock to end", async || {
            client.get(&path).await.json()["done"] == true
        })
        .await;
    let answer = client.get(&path).await;
    let unlock = answer.json();
    assert_eq!(unlock["state"], "unlocked");
    assert_eq!(unlock["outcome"], "unlocked");
    assert_eq!(unlock["unlocked_by"]["kind"], "device");
    assert!(unlock["ended_at"].is_string());
    let happened = "Apple accepted a code.";
    assert_eq!(unlock["explanation"]["happened"], happened);
    let attempts = unlock["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 1);
    let attempt = &attempts[0];
    assert_eq!(attempt["position"], 1);
    assert_eq!(attempt["outcome"], "unlocked");
    assert_eq!(attempt["lost"], false);
    assert_eq!(attempt["status"], 200);
    assert_eq!(attempt["code"], unlock["unlocked_by"]["code"]);
    assert_eq!(attempt["code_kind"], "device");
    assert_eq!(attempt["code_current"], true);
    assert_eq!(attempt["recipient"], "127.0.0.1");
    assert_eq!(attempt["identity"]["serial"], "SIMPAD1");
    assert_eq!(attempt["swapped"], false);
    assert_eq!(attempt["late"], Value::Null);
    assert!(attempt["topic"].is_string() && attempt["identity_source"].is_string());
    let happened = "Apple accepted the code (answer 200).";
    assert_eq!(attempt["explanation"]["happened"], happened);
    let why = json!({ "reason": "x" });
    let revealed = client.post("/v1/devices/SIMPAD1/reveal", why).await.json();
    let code = revealed["codes"][0]["code"].as_str().unwrap();
    assert!(!answer.text().contains(code), "an unlock shows no code");
    assert!(revealed["codes"][0]["used_at"].is_string());
}

#[tokio::test]
async fn r15_an_answer_in_flight_wins_over_a_cancel() {
    let stage = locked("SIMPAD1").await;
    let gate = Gate::new();
    stage.apple.push_fault(Fault::hold_after_commit(&gate));
    let client = Client::with(&stage, &["unlock"]).await;
    let path = format!(
        "/v1/unlocks/{}",
        id(&ask(&client, "", &json!({ "reason": "returned" })).await)
    );
    stage
        .until("the call to be under way", async || {
            client.get(&path).await.json()["attempts"][0]["outcome"] == Value::Null
                && stage.apple.lock_state("SIMPAD1").is_none()
        })
        .await;
    for _ in 0..2 {
        let answer = client.delete(&path).await;
        assert_eq!(answer.status, 202);
        let unlock = answer.json();
        assert_eq!(unlock["done"], false);
        assert_eq!(unlock["cancelled_by"], "token for unlock");
        let happened = "The request is on its way to Apple.";
        assert_eq!(unlock["attempts"][0]["explanation"]["happened"], happened);
    }
    gate.open();
    stage
        .until("the unlock to end", async || {
            client.get(&path).await.json()["done"] == true
        })
        .await;
    let answer = client.delete(&path).await;
    assert_eq!(
        (answer.status, &answer.json()["state"]),
        (200, &json!("unlocked"))
    );
}
