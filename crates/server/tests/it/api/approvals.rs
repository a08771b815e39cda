//! Approvals through the API: asked for with a header, decided by others, used once; emergencies.

use escrow::permit::Role;
use reqwest::Method;
use serde_json::{Value, json};
use sim::Kind;

use crate::api::sessions::Person;
use crate::api::{Answer, Client};
use crate::support::Stage;

/// A stage with a device that told its code, people, and a policy for seeing and unlocking.
struct Shop {
    stage: Stage,
    desk: Client,
    max: Client,
    ann: Client,
}

const DEVICE: &str = "SHOP00000001";

impl Shop {
    async fn open(people: u8) -> Self {
        let stage = Stage::new().await;
        stage.enrolled(DEVICE, Kind::IpadWifi).await;
        let desk = Person::settled(&stage, "desk", &[Role::Revealer, Role::Operator]).await;
        let max = Person::settled(&stage, "max", &[Role::Approver]).await;
        let ann = Person::settled(&stage, "ann", &[Role::Approver]).await;
        let admin = Client::with(&stage, &["admin"]).await;
        for action in ["reveal", "unlock"] {
            let path = format!("/v1/approval-policies/{action}");
            let set = admin.put(&path, json!({ "people": people })).await;
            assert_eq!(set.status, 200, "{set:?}");
        }
        let (desk, max, ann) = (
            desk.client(&stage).await,
            max.client(&stage).await,
            ann.client(&stage).await,
        );
        Self {
            stage,
            desk,
            max,
            ann,
        }
    }
}

fn reveal() -> (String, Value) {
    (
        format!("/v1/devices/{DEVICE}/reveal"),
        json!({ "reason": "returned" }),
    )
}

/// A request with one more header.
async fn with(client: &Client, path: &str, body: &Value, header: &str, value: &str) -> Answer {
    let request = client
        .request(Method::POST, path)
        .header("content-type", "application/json")
        .header(header, value)
        .body(body.to_string());
    client.send(request).await
}

async fn ask(client: &Client, path: &str, body: &Value) -> String {
    let asked = with(
        client,
        path,
        body,
        "lockwarden-ask-approval",
        "zur%C3%BCckgegeben",
    )
    .await;
    assert_eq!(asked.status, 202, "{asked:?}");
    let id = asked.json()["approval"].as_str().unwrap().to_owned();
    assert_eq!(
        asked.header("location"),
        Some(&*format!("/v1/approvals/{id}"))
    );
    id
}

#[tokio::test]
async fn two_people_reveal_a_code() {
    let shop = Shop::open(1).await;
    let (path, body) = reveal();
    let refused = shop.desk.post(&path, body.clone()).await;
    assert_eq!(refused.refusal(), (403, "approval-needed".to_owned()));
    assert!(refused.text().contains("Lockwarden-Ask-Approval"));
    let id = ask(&shop.desk, &path, &body).await;

    let waiting = shop.max.get("/v1/approvals").await.json();
    let waiting = &waiting["items"][0];
    assert_eq!(
        (&waiting["id"], &waiting["state"], &waiting["own"]),
        (&json!(id), &json!("asked"), &json!(false))
    );
    assert_eq!(waiting["reason"], "zurückgegeben");
    assert_eq!(waiting["targets"], json!([format!("device {DEVICE}")]));
    let early = with(&shop.desk, &path, &body, "lockwarden-approval", &id).await;
    assert_eq!(early.refusal(), (409, "approval-unfit".to_owned()));
    let own = shop
        .desk
        .post(&format!("/v1/approvals/{id}/approve"), Value::Null)
        .await;
    assert_eq!(
        own.refusal(),
        (403, "forbidden".to_owned()),
        "the desk may not approve at all"
    );
    let said = shop
        .max
        .post(
            &format!("/v1/approvals/{id}/approve"),
            json!({ "comment": "fine" }),
        )
        .await;
    assert_eq!(said.json()["state"], "approved");
    assert_eq!(said.json()["votes"][0]["name"], "max by name");
    let late = shop
        .ann
        .post(&format!("/v1/approvals/{id}/refuse"), Value::Null)
        .await;
    assert_eq!(late.refusal(), (409, "approval-closed".to_owned()));

    let shown = with(&shop.desk, &path, &body, "lockwarden-approval", &id).await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.json()["codes"].as_array().unwrap().len(), 1);
    let again = with(&shop.desk, &path, &body, "lockwarden-approval", &id).await;
    assert_eq!(again.status, 200, "the answer may have been lost");
    assert_eq!(
        shop.desk.get(&format!("/v1/approvals/{id}")).await.json()["state"],
        "used"
    );
    let stolen = with(&shop.max, &path, &body, "lockwarden-approval", &id).await;
    assert_eq!(stolen.refusal(), (403, "forbidden".to_owned()));
    let both = shop
        .desk
        .request(Method::POST, &path)
        .header("lockwarden-approval", &id);
    let both = shop
        .desk
        .send(both.header("lockwarden-break-glass", "x"))
        .await;
    assert_eq!(both.refusal(), (400, "bad-request".to_owned()));
}

#[tokio::test]
async fn an_unlock_takes_two_others_and_another_ones_idempotency_key_is_no_way_in() {
    let shop = Shop::open(2).await;
    let path = format!("/v1/devices/{DEVICE}/unlock");
    let body = json!({ "reason": "returned" });
    let id = ask(&shop.desk, &path, &body).await;
    let yes = format!("/v1/approvals/{id}/approve");
    assert_eq!(
        shop.max.post(&yes, Value::Null).await.json()["state"],
        "asked"
    );
    assert_eq!(
        shop.max.post(&yes, Value::Null).await.refusal(),
        (409, "approval-closed".to_owned())
    );
    assert_eq!(
        shop.ann.post(&yes, Value::Null).await.json()["state"],
        "approved"
    );
    let unlock = |client: &Client, header: &'static str, value: &str, key: &'static str| {
        let request = client
            .request(Method::POST, &path)
            .header("content-type", "application/json");
        request
            .header(header, value)
            .header("idempotency-key", key)
            .body(body.to_string())
    };
    let done = shop
        .desk
        .send(unlock(
            &shop.desk,
            "lockwarden-approval",
            &id,
            "key of the desk",
        ))
        .await;
    assert_eq!(done.status, 202, "{done:?}");
    let unlock_id = done.json()["id"].clone();
    let same = shop
        .desk
        .send(unlock(
            &shop.desk,
            "lockwarden-approval",
            &id,
            "key of the desk",
        ))
        .await;
    assert_eq!(
        (same.status, &same.json()["id"]),
        (202, &unlock_id),
        "a lost answer is had again"
    );
    shop.stage
        .until("the unlock to end", async || {
            let shown = shop
                .desk
                .get(&format!("/v1/unlocks/{}", unlock_id.as_str().unwrap()))
                .await;
            shown.json()["done"] == true
        })
        .await;
    let other = Person::settled(&shop.stage, "eve", &[Role::Operator])
        .await
        .client(&shop.stage)
        .await;
    let stolen = other
        .send(unlock(
            &other,
            "lockwarden-approval",
            &id,
            "key of the desk",
        ))
        .await;
    assert_eq!(stolen.refusal(), (409, "approval-unfit".to_owned()));
    let replayed = other
        .send(unlock(&other, "accept", "*/*", "key of the desk"))
        .await;
    assert_eq!(replayed.refusal(), (403, "approval-needed".to_owned()));
    let spent = shop
        .desk
        .send(unlock(
            &shop.desk,
            "lockwarden-approval",
            &id,
            "another key",
        ))
        .await;
    assert_eq!(spent.refusal(), (409, "approval-unfit".to_owned()));
}

#[tokio::test]
async fn what_is_refused_or_taken_back_is_so() {
    let shop = Shop::open(1).await;
    let (path, body) = reveal();
    let id = ask(&shop.desk, &path, &body).await;
    let no = shop
        .max
        .post(
            &format!("/v1/approvals/{id}/refuse"),
            json!({ "comment": "ask the owner" }),
        )
        .await;
    assert_eq!(no.json()["state"], "refused");
    let refused = with(&shop.desk, &path, &body, "lockwarden-approval", &id).await;
    assert!(refused.text().contains("it was refused"), "{refused:?}");
    let id = ask(&shop.desk, &path, &body).await;
    let foreign = shop.max.delete(&format!("/v1/approvals/{id}")).await;
    assert_eq!(foreign.refusal(), (404, "unknown-approval".to_owned()));
    assert_eq!(
        shop.desk
            .delete(&format!("/v1/approvals/{id}"))
            .await
            .status,
        204
    );
    let gone = with(&shop.desk, &path, &body, "lockwarden-approval", &id).await;
    assert!(gone.text().contains("taken back"), "{gone:?}");
    let own = shop.desk.get("/v1/approvals?which=own").await.json();
    assert_eq!(own["items"].as_array().unwrap().len(), 2);
    let token = Client::with(&shop.stage, &["read", "reveal"]).await;
    let nobody = with(&token, &path, &body, "lockwarden-ask-approval", "x").await;
    assert_eq!(nobody.refusal(), (403, "person-needed".to_owned()));
}

#[tokio::test]
async fn glass_is_broken_loudly() {
    let shop = Shop::open(1).await;
    let stage = &shop.stage;
    let (path, body) = reveal();
    let refused = with(&shop.desk, &path, &body, "lockwarden-break-glass", "fire").await;
    assert_eq!(refused.refusal(), (403, "forbidden".to_owned()));
    let eve = Person::settled(stage, "eve", &[Role::Revealer, Role::BreakGlass])
        .await
        .client(stage)
        .await;
    let shown = with(&eve, &path, &body, "lockwarden-break-glass", "fire").await;
    assert_eq!(shown.status, 200, "{shown:?}");
    let listed = shop.max.get("/v1/emergencies").await.json();
    let emergency = &listed["items"][0];
    assert_eq!(
        (&emergency["name"], &emergency["reason"]),
        (&json!("eve by name"), &json!("fire"))
    );
    let path = format!(
        "/v1/emergencies/{}/acknowledge",
        emergency["id"].as_str().unwrap()
    );
    assert_eq!(
        eve.post(&path, Value::Null).await.refusal(),
        (403, "forbidden".to_owned())
    );
    let seen = shop.ann.post(&path, Value::Null).await.json();
    assert_eq!(seen["acknowledged_by"], "ann by name");
    assert_eq!(
        shop.max.get("/v1/emergencies").await.json()["items"],
        json!([])
    );
    assert_eq!(
        shop.max.get("/v1/emergencies?all=true").await.json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let auditor = Client::with(stage, &["audit"]).await;
    let rows = auditor.get("/v1/audit?action=break_glass").await.json();
    assert_eq!(rows["items"][0]["reason"], "fire");
}

#[tokio::test]
async fn a_policy_is_tightened_at_once_and_loosened_under_itself() {
    let shop = Shop::open(1).await;
    let stage = &shop.stage;
    let admin = Person::settled(stage, "admin", &[Role::Admin])
        .await
        .client(stage)
        .await;
    let path = "/v1/approval-policies/reveal";
    let looser = admin.put(path, json!({ "people": 0 })).await;
    assert_eq!(looser.refusal(), (403, "approval-needed".to_owned()));
    assert_eq!(admin.put(path, json!({ "people": 2 })).await.status, 200);
    let beyond = admin.put(path, json!({ "people": 3 })).await;
    assert_eq!(beyond.refusal(), (400, "policy-refused".to_owned()));
    let derived = admin
        .put("/v1/approval-policies/connections", json!({ "people": 1 }))
        .await;
    assert_eq!(derived.refusal(), (400, "policy-refused".to_owned()));
    let listed = admin.get("/v1/approval-policies").await.json();
    assert_eq!(listed["items"][0]["people"], 2);
    let quotas = admin
        .patch(
            "/v1/organisations/Example%20School",
            json!({ "reveals_an_hour": 1000 }),
        )
        .await;
    assert_eq!(quotas.refusal(), (403, "approval-needed".to_owned()));
    let fewer = admin
        .patch(
            "/v1/organisations/Example%20School",
            json!({ "reveals_an_hour": 1 }),
        )
        .await;
    assert_eq!(fewer.json()["reveals_an_hour"], 1);
}
