//! Who may do what: tokens, organisations, the record, and who one is.

use std::time::Duration;

use escrow::permit::{Permissions, Scope};
use serde_json::{Value, json};

use crate::api::{Client, another_organisation, token_of};
use crate::support::Stage;

fn names(rows: &Value) -> Vec<String> {
    let items = rows["items"].as_array().unwrap().iter();
    items
        .map(|row| row["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_token_is_made_used_and_taken_back() {
    let stage = Stage::new().await;
    let admin = Client::with(&stage, &["admin", "reveal"]).await;
    let body = json!({ "name": " service desk ", "scopes": ["read", "reveal"] });
    let answer = admin.post("/v1/tokens", body.clone()).await;
    assert_eq!(answer.status, 201);
    let made = answer.json();
    let token = made["token"].as_str().unwrap();
    assert!(token.starts_with("lw_token_"));
    assert_eq!(made["name"], "service desk");
    assert_eq!(made["permissions"], json!(["read", "reveal"]));
    assert_eq!(made["organisation"], stage.organisation.as_str());
    assert_eq!(
        (&made["expires_at"], &made["valid"]),
        (&Value::Null, &json!(true))
    );
    assert_eq!(made["created_by"], "token for admin and reveal");

    let theirs = Client::new(&stage, token);
    assert_eq!(theirs.get("/v1/devices").await.status, 200);
    let listed = admin.get("/v1/tokens").await;
    assert!(!listed.text().contains(token));
    assert_eq!(
        names(&listed.json()),
        ["service desk", "token for admin and reveal"]
    );
    assert!(listed.json()["items"][0]["used_at"].is_string());

    // The same again is another token.
    let second = admin.post("/v1/tokens", body).await.json();
    assert!(second["token"] != made["token"]);

    let path = format!("/v1/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(admin.delete(&path).await.status, 204);
    assert_eq!(
        theirs.get("/v1/devices").await.refusal(),
        (401, "unauthenticated".to_owned())
    );
    assert_eq!(
        admin.delete(&path).await.refusal(),
        (404, "unknown-token".to_owned())
    );
    assert_eq!(
        admin.get("/v1/tokens").await.json()["items"][1]["valid"],
        false
    );
}

#[tokio::test]
async fn a_token_ends_by_itself() {
    let stage = Stage::new().await;
    let admin = Client::with(&stage, &["admin"]).await;
    let made = admin
        .post(
            "/v1/tokens",
            json!({ "name": "short", "scopes": ["read"], "expires_in_days": 2 }),
        )
        .await
        .json();
    assert!(
        made["expires_at"]
            .as_str()
            .unwrap()
            .starts_with("2026-05-30T20:26:40.")
    );
    let theirs = Client::new(&stage, made["token"].as_str().unwrap());
    let day = Duration::from_secs(24 * 60 * 60);
    stage.clock.advance(day);
    assert_eq!(theirs.get("/v1/me").await.status, 200);
    stage.clock.advance(day);
    assert_eq!(theirs.get("/v1/me").await.status, 401);
}

#[tokio::test]
async fn nobody_gives_away_what_they_do_not_have() {
    let stage = Stage::new().await;
    let admin = Client::with(&stage, &["admin"]).await;
    for scope in ["reveal", "unlock", "connections"] {
        let answer = admin
            .post(
                "/v1/tokens",
                json!({ "name": "x", "scopes": ["read", scope] }),
            )
            .await;
        assert_eq!(answer.refusal(), (403, "forbidden".to_owned()), "{scope}");
        assert!(
            answer.json()["detail"]
                .as_str()
                .unwrap()
                .contains(&format!("`{scope}`"))
        );
    }
    // Of one organisation, it makes none that is valid in all.
    let everywhere = json!({ "name": "x", "scopes": ["read"], "all_organisations": true });
    assert_eq!(
        admin.post("/v1/tokens", everywhere.clone()).await.refusal(),
        (403, "forbidden".to_owned())
    );
    let root = Client::new(
        &stage,
        &token_of(&stage, Scope::All, Permissions::all()).await,
    );
    let made = root.post("/v1/tokens", everywhere).await.json();
    assert_eq!(made["organisation"], Value::Null);

    for bad in [
        json!({ "name": "x", "scopes": [] }),
        json!({ "name": "x", "scopes": ["root"] }),
        json!({ "name": "x", "scopes": ["work"] }),
        json!({ "name": " ", "scopes": ["read"] }),
        json!({ "name": "x", "scopes": ["read"], "expires_in_days": 0 }),
        json!({ "name": "x", "scopes": ["read"], "expires_in_days": 3651 }),
        json!({ "name": "x", "scopes": "read" }),
    ] {
        let answer = root.post("/v1/tokens", bad.clone()).await;
        assert_eq!(answer.refusal(), (400, "bad-request".to_owned()), "{bad}");
    }
    let rows = root.get("/v1/audit?action=refused").await.json();
    let results: Vec<_> = rows["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["result"].clone())
        .collect();
    assert_eq!(
        results,
        [
            "other_organisation",
            "beyond_own_permissions",
            "beyond_own_permissions",
            "beyond_own_permissions"
        ]
    );
}

#[tokio::test]
async fn r5_tokens_and_the_record_of_another_organisation_are_not_there() {
    let stage = Stage::new().await;
    let other = another_organisation(&stage, "Other School").await;
    let ours = Client::with(&stage, &["admin"]).await;
    let theirs = Client::new(
        &stage,
        &token_of(&stage, Scope::One(other), Permissions::all()).await,
    );
    let made = ours
        .post("/v1/tokens", json!({ "name": "ours", "scopes": ["read"] }))
        .await
        .json();
    assert_eq!(names(&theirs.get("/v1/tokens").await.json()), ["a token"]);
    let path = format!("/v1/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(
        theirs.delete(&path).await.refusal(),
        (404, "unknown-token".to_owned())
    );
    let rows = theirs.get("/v1/audit").await.json();
    assert!(
        rows["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|row| row["subject"] != made["id"])
    );
    assert_eq!(
        names(&theirs.get("/v1/organisations").await.json()),
        ["Other School"]
    );
    let path = format!("/v1/organisations/{}", stage.organisation);
    let answer = theirs.patch(&path, json!({ "user_lock": "allow" })).await;
    assert_eq!(answer.refusal(), (404, "unknown-organisation".to_owned()));
}

#[tokio::test]
async fn organisations_are_made_and_have_a_policy() {
    let stage = Stage::new().await;
    let root = Client::new(
        &stage,
        &token_of(&stage, Scope::All, Permissions::all()).await,
    );
    let one = Client::with(&stage, &["admin"]).await;
    let body = json!({ "name": "Second School" });
    assert_eq!(
        one.post("/v1/organisations", body.clone()).await.refusal(),
        (403, "forbidden".to_owned())
    );
    let answer = root.post("/v1/organisations", body.clone()).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json()["user_lock"], "leave");
    assert_eq!(
        root.post("/v1/organisations", body).await.refusal(),
        (409, "name-taken".to_owned())
    );
    assert_eq!(
        root.post("/v1/organisations", json!({ "name": " " }))
            .await
            .status,
        400
    );
    assert_eq!(
        names(&root.get("/v1/organisations").await.json()),
        ["Example School", "Second School"]
    );

    let path = format!("/v1/organisations/{}", stage.organisation);
    for policy in ["allow", "allow", "deny", "leave"] {
        let answer = one.patch(&path, json!({ "user_lock": policy })).await;
        assert_eq!(
            (answer.status, &answer.json()["user_lock"]),
            (200, &json!(policy))
        );
    }
    assert_eq!(
        one.patch(&path, json!({ "user_lock": "maybe" }))
            .await
            .refusal(),
        (400, "bad-request".to_owned())
    );
    let rows = one.get("/v1/audit?action=policy.user_lock").await.json();
    assert_eq!(rows["items"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn the_record_comes_in_pages_newest_first() {
    let stage = Stage::new().await;
    let admin = Client::with(&stage, &["admin"]).await;
    for number in 1..=5 {
        admin
            .patch(
                &format!("/v1/devices/SIM{number}"),
                json!({ "product_type": "iPad4,1" }),
            )
            .await;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/audit?action=device.corrected&limit=2".to_owned();
    loop {
        let page = admin.get(&path).await.json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        seen.extend(
            items
                .iter()
                .map(|row| row["subject"].as_str().unwrap().to_owned()),
        );
        assert!(
            items
                .iter()
                .all(|row| row["intact"] == "yes" && row["result"] == "ok")
        );
        match page["next"].as_str() {
            Some(cursor) => {
                path = format!("/v1/audit?action=device.corrected&limit=2&cursor={cursor}")
            }
            None => break,
        }
    }
    assert_eq!(seen, ["SIM5", "SIM4", "SIM3", "SIM2", "SIM1"]);
    let row = &admin.get("/v1/audit?subject=SIM1").await.json()["items"][0];
    assert!(
        row["at"]
            .as_str()
            .unwrap()
            .starts_with("2026-05-28T20:26:40.")
    );
    assert!(row["proof"].as_str().unwrap().starts_with("token "));
    let principal = admin.get("/v1/me").await.json()["principal"].clone();
    assert_eq!(row["actor"]["id"], principal);
    let rows = admin
        .get(&format!("/v1/audit?actor={}", principal.as_str().unwrap()))
        .await
        .json();
    // Beside the five changes, that the record was read: once a query, and not once a page.
    let rows = rows["items"].as_array().unwrap();
    let reads = rows.iter().filter(|row| row["action"] == "audit.read");
    assert_eq!((rows.len(), reads.count()), (7, 2));
}

#[tokio::test]
async fn who_asks_is_told() {
    let stage = Stage::new().await;
    another_organisation(&stage, "Other School").await;
    let me = Client::with(&stage, &["unlock"])
        .await
        .get("/v1/me")
        .await
        .json();
    assert_eq!(me["name"], "token for unlock");
    assert_eq!(me["kind"], "token");
    assert_eq!(me["permissions"], json!(["read", "unlock", "refresh"]));
    assert_eq!(me["organisation"], stage.organisation.as_str());
    assert_eq!(
        me["organisations"],
        json!([{ "id": stage.organisation.as_str(), "name": "Example School" }])
    );
    assert_eq!(me["sandbox"], false);
    let root = Client::new(
        &stage,
        &token_of(&stage, Scope::All, Permissions::NONE).await,
    );
    let me = root.get("/v1/me").await.json();
    assert_eq!(
        (&me["organisation"], &me["permissions"]),
        (&Value::Null, &json!([]))
    );
    assert_eq!(me["organisations"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn r5_metrics_are_for_this_machine_and_for_who_may_see_every_organisation() {
    let stage = Stage::new().await;
    let read = Client::with(&stage, &["read"]).await;
    let unlock = Client::new(
        &stage,
        &token_of(
            &stage,
            Scope::All,
            Permissions::of(&[escrow::permit::Permission::Unlock]),
        )
        .await,
    );
    let nobody = Client::new(&stage, "");
    assert_eq!(nobody.get("/metrics").await.status, 200);
    // What a proxy brings comes from its own address, whatever it says of the client.
    let brought = async |client: &Client, name: &str, value: &str| {
        let request = client.request(reqwest::Method::GET, "/metrics");
        client.send(request.header(name, value)).await
    };
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-for", "192.0.2.1:4711"),
        ("forwarded", "for=127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("via", "1.1 proxy"),
    ] {
        let answer = brought(&nobody, name, value).await;
        assert_eq!(
            answer.refusal(),
            (401, "unauthenticated".to_owned()),
            "{name}"
        );
        assert_eq!(brought(&read, name, value).await.status, 200, "{name}");
        assert_eq!(brought(&unlock, name, value).await.status, 403, "{name}");
    }
    another_organisation(&stage, "Another School").await;
    let answer = brought(&read, "via", "1.1 proxy").await;
    assert_eq!(answer.refusal(), (403, "forbidden".to_owned()));
    let everywhere = token_of(&stage, Scope::All, Permissions::of_scope("read").unwrap()).await;
    let everywhere = Client::new(&stage, &everywhere);
    assert_eq!(brought(&everywhere, "via", "1.1 proxy").await.status, 200);
}
