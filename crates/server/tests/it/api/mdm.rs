//! Connections to MDMs, through the API.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use sim::NanoMdmOptions;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::api::{Answer, Client};
use crate::support::Stage;

const API_KEY: &str = "the-key-of-the-api-0451";

fn new(name: &str) -> Value {
    json!({ "name": name, "base_url": "https://mdm.example.org", "api_key": API_KEY })
}

/// A webhook that says nothing: 400 when it is proven, 401 when not.
async fn webhook(stage: &Stage, path: &str, secret: Option<&str>) -> Answer {
    let client = Client::new(stage, "");
    let body = "{}";
    let mut request = client.request(Method::POST, path).body(body);
    if let Some(secret) = secret {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let signature = STANDARD.encode(hmac::sign(&key, body.as_bytes()));
        request = request.header("x-hmac-signature", signature);
    }
    client.send(request).await
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn an_mdm_is_connected_and_its_secret_shown_once() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["connections"]).await;
    let answer = client.post("/v1/mdm", new("second")).await;
    assert_eq!(answer.status, 201);
    assert!(!answer.text().contains(API_KEY));
    let made = answer.json();
    let secret = text(&made["hmac_secret"]);
    assert!(secret.starts_with("lw_hook_"));
    assert!(made.get("path_secret").is_none());
    assert_eq!(made["webhook_path"], "/v1/hooks/second");
    assert_eq!(
        made["webhook_url"],
        format!("{}/v1/hooks/second", stage.url())
    );
    for (key, expected) in [
        ("name", "second"),
        ("kind", "nanomdm"),
        ("base_url", "https://mdm.example.org"),
        ("path_prefix", ""),
        ("username", "nanomdm"),
        ("hook_auth", "hmac"),
        ("unlock_via", "own"),
    ] {
        assert_eq!(made[key], expected, "{key}");
    }
    assert_eq!(
        webhook(&stage, "/v1/hooks/second", Some(&secret))
            .await
            .status,
        400
    );
    assert_eq!(
        webhook(&stage, "/v1/hooks/second", Some("another"))
            .await
            .status,
        401
    );

    for path in ["/v1/mdm", "/v1/mdm/second"] {
        let shown = client.get(path).await;
        assert_eq!(shown.status, 200);
        assert!(
            !shown.text().contains(&secret) && !shown.text().contains(API_KEY),
            "{path}"
        );
    }
    let shown = client.get("/v1/mdm/second").await.json();
    assert_eq!(shown["webhook_url"], made["webhook_url"]);
    let again = client.post("/v1/mdm", new("second")).await;
    assert_eq!(again.refusal(), (409, "name-taken".to_owned()));
}

#[tokio::test]
async fn each_kind_has_its_own_usual_settings() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["connections"]).await;
    for (kind, prefix, user, auth) in [
        ("nanomdm", "", "nanomdm", "hmac"),
        ("nanohub", "/api/v1/nanomdm", "nanohub", "hmac"),
        ("micromdm", "", "micromdm", "path"),
    ] {
        let mut body = new(&format!("a-{kind}"));
        body["kind"] = kind.into();
        let made = client.post("/v1/mdm", body).await.json();
        assert_eq!(
            (&made["path_prefix"], &made["username"], &made["hook_auth"]),
            (&json!(prefix), &json!(user), &json!(auth))
        );
    }
    let mut body = new("own-words");
    for (key, value) in [
        ("path_prefix", "/x"),
        ("username", "me"),
        ("hook_auth", "path"),
        ("unlock_via", "delegated"),
    ] {
        body[key] = value.into();
    }
    body["max_rate"] = 2.5.into();
    let made = client.post("/v1/mdm", body).await.json();
    assert_eq!(
        (&made["path_prefix"], &made["username"]),
        (&json!("/x"), &json!("me"))
    );
    assert_eq!(
        (&made["unlock_via"], &made["max_rate"]),
        (&json!("delegated"), &json!(2.5))
    );
}

#[tokio::test]
async fn r19_a_connection_that_would_give_codes_away_is_refused() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["connections"]).await;
    let with = |key: &str, value: Value| {
        let mut body = new("other");
        body[key] = value;
        body
    };
    for (number, bad) in [
        with("base_url", json!("http://mdm.example.org")),
        with("base_url", json!("mdm.example.org")),
        with("name", json!("Other/../mdm")),
        with("path_prefix", json!("no-slash")),
        with("max_rate", json!(0.0)),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = client.post("/v1/mdm", bad).await;
        assert_eq!(
            answer.refusal(),
            (422, "connection-unusable".to_owned()),
            "body {number}"
        );
        assert!(!answer.text().contains(API_KEY));
    }
    for (number, bad) in [
        with("kind", json!("jamf")),
        with("api_key", json!(" ")),
        with("hook_auth", json!("none")),
        with("unlock_via", json!("apple")),
        with("hmac_secret", json!("")),
        json!({ "name": "other", "base_url": "https://mdm.example.org", "api_key": API_KEY, "hook_auth": "path", "hmac_secret": "x" }),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = client.post("/v1/mdm", bad).await;
        assert_eq!(answer.refusal(), (400, "bad-request".to_owned()), "body {number}");
        assert!(!answer.text().contains(API_KEY));
    }
    let answer = client
        .patch(
            "/v1/mdm/mdm",
            json!({ "base_url": "http://mdm.example.org" }),
        )
        .await;
    assert_eq!(answer.refusal(), (422, "connection-unusable".to_owned()));
    assert_eq!(
        client.get("/v1/mdm").await.json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_connection_is_changed_and_tested() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["connections", "admin"]).await;
    let tested = client.ask(Method::POST, "/v1/mdm/mdm/test", None).await;
    assert_eq!(tested.status, 200);
    let tested = tested.json();
    assert_eq!(tested["ok"], true, "{tested}");

    let changed = client
        .patch(
            "/v1/mdm/mdm",
            json!({ "api_key": "another", "unlock_via": "delegated" }),
        )
        .await;
    assert_eq!(
        (changed.status, &changed.json()["unlock_via"]),
        (200, &json!("delegated"))
    );
    assert_eq!(changed.json()["username"], "nanomdm");
    let tested = client
        .ask(Method::POST, "/v1/mdm/mdm/test", None)
        .await
        .json();
    assert_eq!(tested["ok"], false, "{tested}");
    assert!(tested["detail"].is_string() && tested["hint"].is_string());

    let right = NanoMdmOptions::default().api_key;
    assert_eq!(
        client
            .patch("/v1/mdm/mdm", json!({ "api_key": right }))
            .await
            .status,
        200
    );
    let tested = client
        .ask(Method::POST, "/v1/mdm/mdm/test", None)
        .await
        .json();
    assert_eq!(tested["ok"], true, "{tested}");

    let rows = client
        .get("/v1/audit?action=connection.change")
        .await
        .json();
    assert_eq!(rows["items"].as_array().unwrap().len(), 2);
    assert_eq!(rows["items"][0]["details"]["api_key_changed"], true);
}

#[tokio::test]
async fn r22_a_webhooks_secret_is_rotated_without_a_gap() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["connections"]).await;
    let hook = "/v1/hooks/second";
    let first = text(&client.post("/v1/mdm", new("second")).await.json()["hmac_secret"]);
    assert_eq!(webhook(&stage, hook, Some(&first)).await.status, 400);

    let rotated = client
        .ask(Method::POST, "/v1/mdm/second/rotate-secret", None)
        .await;
    assert_eq!(rotated.status, 200);
    let second = text(&rotated.json()["hmac_secret"]);
    assert!(first != second);
    assert_eq!(
        client.get("/v1/mdm/second").await.json()["previous_secret_live"],
        true
    );
    for secret in [&first, &second] {
        assert_eq!(webhook(&stage, hook, Some(secret)).await.status, 400);
    }
    let retired = client
        .ask(Method::POST, "/v1/mdm/second/retire-previous-secret", None)
        .await;
    assert_eq!(retired.status, 204);
    assert_eq!(webhook(&stage, hook, Some(&first)).await.status, 401);
    assert_eq!(webhook(&stage, hook, Some(&second)).await.status, 400);

    // One that the MDM has already is taken, and not shown.
    let given = "chosen-by-the-mdm-7719";
    let rotated = client
        .post(
            "/v1/mdm/second/rotate-secret",
            json!({ "hmac_secret": given }),
        )
        .await;
    assert_eq!(rotated.status, 200);
    assert!(!rotated.text().contains(given));
    assert_eq!(webhook(&stage, hook, Some(given)).await.status, 400);
    assert_eq!(client.delete("/v1/mdm/second").await.status, 204);
    assert_eq!(webhook(&stage, hook, Some(given)).await.status, 401);
}

/// Every log line of this process, at every level. The client of the tests is left out.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn r22_a_secret_in_an_address_is_in_no_log_no_metric_and_no_refusal() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("trace,reqwest=off,hyper_util::client=off"))
        .with_writer(lines.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber)
        .expect("this test has a process of its own");

    let stage = Stage::new().await;
    let client = Client::with(&stage, &["connections"]).await;
    let mut body = new("secretly");
    body["hook_auth"] = "path".into();
    let made = client.post("/v1/mdm", body).await.json();
    let secret = text(&made["path_secret"]);
    let path = text(&made["webhook_path"]);
    assert!(path == format!("/v1/hooks/secretly/{secret}"));
    assert!(made["webhook_url"] == format!("{}{path}", stage.url()));
    assert!(made.get("hmac_secret").is_none());

    let mut answers = vec![
        webhook(&stage, &path, None).await,
        webhook(&stage, &format!("{path}x"), None).await,
        webhook(&stage, &format!("{path}/x"), None).await,
        client.ask(Method::GET, &path, None).await,
        client.get("/v1/mdm").await,
        client.get("/v1/mdm/secretly").await,
        client.get("/metrics").await,
    ];
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [400, 401, 404, 405, 200, 200, 200]);
    assert_eq!(
        client.get("/v1/mdm/secretly").await.json()["webhook_url"],
        Value::Null
    );

    let rotated = client
        .ask(Method::POST, "/v1/mdm/secretly/rotate-secret", None)
        .await
        .json();
    let newer = text(&rotated["path_secret"]);
    for secret in [&secret, &newer] {
        answers.push(webhook(&stage, &format!("/v1/hooks/secretly/{secret}"), None).await);
        assert_eq!(answers.last().unwrap().status, 400);
    }
    client
        .ask(
            Method::POST,
            "/v1/mdm/secretly/retire-previous-secret",
            None,
        )
        .await;
    answers.push(webhook(&stage, &path, None).await);
    assert_eq!(answers.last().unwrap().status, 401);

    let log = lines.text();
    assert!(
        log.contains("/v1/hooks/{name}/{secret}"),
        "the log is there, with routes and not paths"
    );
    for secret in [&secret, &newer] {
        // A part of it is enough to begin guessing.
        let part = &secret["lw_hook_".len()..][..16];
        assert!(!log.contains(part), "the log");
        assert!(
            answers.iter().all(|answer| !answer.text().contains(part)),
            "an answer"
        );
    }
    assert!(!log.contains(API_KEY));
}
