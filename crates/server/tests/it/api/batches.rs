//! Batches, through the API, to their end at Apple's fake.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sim::Kind;

use crate::api::{Answer, Client, without_certificate};
use crate::support::{CODE_A, Stage};

async fn make(client: &Client, action: &str, serials: &[&str]) -> String {
    let wish = json!({ "reason": "the end of the year", "requester": "anna@example.org" });
    let made = client
        .post(&format!("/v1/batches?action={action}"), wish)
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        made.header("location").unwrap(),
        format!("/v1/batches/{id}")
    );
    let lines = json!({ "first": 1, "serials": serials });
    let brought = client.post(&format!("/v1/batches/{id}/lines"), lines).await;
    assert_eq!(brought.status, 200, "{brought:?}");
    id
}

async fn turn(client: &Client, id: &str, how: &str) -> Answer {
    let path = format!("/v1/batches/{id}/{how}");
    client.ask(Method::POST, &path, None).await
}

/// Waits until a batch is as is wanted, and gives it as it then is.
async fn until(stage: &Stage, client: &Client, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/v1/batches/{id}");
    let step = Duration::from_millis(50);
    let mut last = Value::Null;
    stage
        .until_in_steps("the batch", step, async || {
            last = client.get(&path).await.json();
            is_so(&last)
        })
        .await;
    last
}

fn count(batch: &Value, word: &str) -> i64 {
    let counts = batch["counts"].as_array().unwrap();
    let found = counts.iter().find(|count| count["state"] == word);
    found.map_or(0, |count| count["lines"].as_i64().unwrap())
}

#[tokio::test]
async fn a_batch_is_looked_at_started_and_every_line_says_what_came_of_it() {
    let stage = Stage::new().await;
    let locked = stage.enrolled("SIMPHONE0001", Kind::IphoneDualSim).await;
    locked.lock_with_own_code().unwrap();
    let is_locked = || stage.apple.lock_state("SIMPHONE0001").is_some();
    let client = Client::with(&stage, &["unlock"]).await;
    let id = make(
        &client,
        "unlock",
        &["simphone0001", "NOSUCHDEVICE", "SIMPHONE0001", "?"],
    )
    .await;
    let draft = client.get(&format!("/v1/batches/{id}")).await.json();
    assert_eq!(
        (&draft["state"], &draft["ready"]),
        (&json!("draft"), &json!(1))
    );
    assert_eq!((&draft["done"], &draft["rate"]), (&json!(3), &Value::Null));
    assert!(is_locked(), "nothing runs before it is started");
    let started = turn(&client, &id, "start").await;
    assert_eq!(started.status, 202, "{started:?}");
    let ended = until(&stage, &client, &id, |batch| batch["state"] == "ended").await;
    assert_eq!(count(&ended, "unlocked"), 1);
    for word in ["unknown_device", "duplicate", "not_a_serial"] {
        assert_eq!(count(&ended, word), 1, "{word}");
    }
    assert!(!is_locked());
    let lines = client.get(&format!("/v1/batches/{id}/lines")).await.json();
    let first = &lines["items"][0];
    assert_eq!(
        (&first["serial"], &first["state"]),
        (&json!("SIMPHONE0001"), &json!("unlocked"))
    );
    let unlock = first["operation"].as_str().unwrap();
    let unlock = client.get(&format!("/v1/unlocks/{unlock}")).await.json();
    assert_eq!(unlock["requester"], "anna@example.org");
    assert_eq!(unlock["requested_by"], "token for unlock");
    assert_eq!(
        (&unlock["reason"], &unlock["urgent"]),
        (&json!("the end of the year"), &json!(false))
    );
    for line in lines["items"].as_array().unwrap() {
        for part in ["happened", "means", "to_do"] {
            assert!(!line["words"][part].as_str().unwrap().is_empty(), "{line}");
        }
    }
    let some = client
        .get(&format!("/v1/batches/{id}/lines?state=unlocked&limit=1"))
        .await
        .json();
    assert_eq!(some["items"].as_array().unwrap().len(), 1);
    let table = client.get(&format!("/v1/batches/{id}/results")).await;
    assert!(
        table
            .header("content-type")
            .unwrap()
            .starts_with("text/csv")
    );
    let rows: Vec<_> = table.text().lines().collect();
    assert_eq!(rows.len(), 5);
    assert!(rows[0].starts_with("line,serial,state,operation,ended_at"));
    assert!(
        rows[1].starts_with("1,SIMPHONE0001,unlocked,"),
        "{}",
        rows[1]
    );
    assert!(rows[4].starts_with("4,,not_a_serial,,,"), "{}", rows[4]);
    let listed = client.get("/v1/batches").await.json();
    assert_eq!(listed["items"][0]["id"], id.as_str());
}

/// An iPad that waits for a certificate once it is asked to be unlocked.
async fn waiting() -> (Stage, Client, String) {
    let stage = Stage::new().await;
    without_certificate(&stage).await;
    let admin = Client::with(&stage, &["admin"]).await;
    let set = json!({ "product_type": "iPad4,1" });
    admin.patch("/v1/devices/SIMPAD1", set).await;
    admin
        .post("/v1/devices/SIMPAD1/codes", json!({ "text": CODE_A }))
        .await;
    let client = Client::with(&stage, &["unlock"]).await;
    let id = make(&client, "unlock", &["SIMPAD1"]).await;
    (stage, client, id)
}

#[tokio::test]
async fn it_is_paused_goes_on_and_is_cancelled_and_says_when_that_cannot_be() {
    let (stage, client, id) = waiting().await;
    assert_eq!(
        turn(&client, &id, "pause").await.refusal(),
        (409, "batch-not-running".into())
    );
    assert_eq!(
        turn(&client, &id, "resume").await.refusal(),
        (409, "batch-not-paused".into())
    );
    assert_eq!(turn(&client, &id, "start").await.status, 202);
    assert_eq!(
        turn(&client, &id, "start").await.status,
        202,
        "twice is once"
    );
    let more = json!({ "first": 2, "serials": ["SIMPAD2"] });
    let late = client.post(&format!("/v1/batches/{id}/lines"), more).await;
    assert_eq!(late.refusal(), (409, "batch-not-a-draft".into()));
    assert_eq!(turn(&client, &id, "pause").await.json()["state"], "paused");
    assert_eq!(
        turn(&client, &id, "resume").await.json()["state"],
        "running"
    );
    until(&stage, &client, &id, |batch| count(batch, "waiting") == 1).await;
    let cancelled = client.delete(&format!("/v1/batches/{id}")).await.json();
    assert_eq!(
        (&cancelled["state"], count(&cancelled, "cancelled")),
        (&json!("cancelled"), 1)
    );
    assert_eq!(
        turn(&client, &id, "start").await.refusal(),
        (409, "batch-over".into())
    );
}

#[tokio::test]
async fn each_action_takes_its_own_permission_and_nothing_runs_without_it() {
    let (stage, client, id) = waiting().await;
    let reader = Client::with(&stage, &["read"]).await;
    let refresher = Client::with(&stage, &["admin"]).await;
    for other in [&reader, &refresher] {
        for how in ["start", "pause", "resume", "lines"] {
            assert_eq!(turn(other, &id, how).await.status, 403, "{how}");
        }
        assert_eq!(other.delete(&format!("/v1/batches/{id}")).await.status, 403);
    }
    let wish = json!({ "reason": "x" });
    for action in ["unlock", "lock"] {
        let path = format!("/v1/batches?action={action}");
        assert_eq!(
            refresher.post(&path, wish.clone()).await.status,
            403,
            "{action}"
        );
    }
    let other = refresher
        .post("/v1/batches?action=refresh", wish.clone())
        .await;
    assert_eq!(other.status, 201);
    let unknown = refresher.post("/v1/batches?action=erase", wish).await;
    assert_eq!(unknown.status, 400);
    let none = make(&client, "unlock", &["NOSUCHDEVICE"]).await;
    assert_eq!(
        turn(&client, &none, "start").await.refusal(),
        (409, "nothing-to-do".into())
    );
}
