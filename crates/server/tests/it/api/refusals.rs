//! What cannot be read is refused as a problem document, and nothing of it is repeated.

use escrow::permit::{Permissions, Scope};
use reqwest::Method;
use serde_json::json;

use crate::api::{Client, token_of};
use crate::support::{CODE_A, Stage};

const CODES: &str = "/v1/devices/SIMTEST00001/codes";

#[tokio::test]
async fn r23_no_refusal_repeats_a_body() {
    let stage = Stage::new().await;
    let client = Client::new(
        &stage,
        &token_of(&stage, Scope::All, Permissions::all()).await,
    );
    let paths = [
        ("POST", CODES),
        ("PATCH", "/v1/devices/SIMTEST00001"),
        ("POST", "/v1/devices/SIMTEST00001/reveal"),
        ("POST", "/v1/devices/SIMTEST00001/unlock"),
        ("POST", "/v1/bypass-codes"),
        ("POST", "/v1/mdm"),
        ("PATCH", "/v1/mdm/mdm"),
        ("POST", "/v1/mdm/mdm/rotate-secret"),
        ("POST", "/v1/push-certificates"),
        ("POST", "/v1/tokens"),
        ("POST", "/v1/organisations"),
        (
            "PATCH",
            &format!("/v1/organisations/{}", stage.organisation),
        ),
    ];
    let bodies = [
        json!(CODE_A).to_string(),
        json!({ "text": { "text": CODE_A } }).to_string(),
        json!({ "text": CODE_A, "kind": CODE_A, "more": CODE_A }).to_string(),
        json!({ CODE_A: true }).to_string(),
        json!({ "code": [CODE_A], "pem": [CODE_A], "api_key": [CODE_A], "reason": [CODE_A] })
            .to_string(),
        format!("{{\"text\": \"{CODE_A}\""),
        CODE_A.to_owned(),
    ];
    for (method, path) in paths {
        let method: Method = method.parse().unwrap();
        for (number, body) in bodies.iter().enumerate() {
            let request = client
                .request(method.clone(), path)
                .header("content-type", "application/json");
            let answer = client.send(request.body(body.clone())).await;
            assert_eq!(
                answer.refusal(),
                (400, "bad-request".to_owned()),
                "{method} {path}, body {number}"
            );
            assert!(
                !answer.text().contains("0R40M"),
                "{method} {path}, body {number}"
            );
        }
    }
}

#[tokio::test]
async fn a_body_is_json_and_is_said_to_be() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["admin"]).await;
    for kind in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
    ] {
        let mut request = client.request(Method::POST, CODES).body(r#"{"text":"x"}"#);
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        let answer = client.send(request).await;
        assert_eq!(answer.refusal(), (415, "not-json".to_owned()), "{kind}");
    }
    let request = client
        .request(Method::POST, CODES)
        .header("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(
        client.send(request.body(r#"{"text":"x"}"#)).await.status,
        201
    );
    let nothing = client.ask(Method::POST, CODES, None).await;
    assert_eq!(nothing.refusal(), (400, "bad-request".to_owned()));
}

#[tokio::test]
async fn an_oversize_body_is_refused_with_or_without_its_length() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["admin"]).await;
    let large = json!({ "text": "x".repeat(256 * 1024) }).to_string();
    let request = || {
        client
            .request(Method::POST, CODES)
            .header("content-type", "application/json")
    };
    let answer = client.send(request().body(large.clone())).await;
    assert_eq!(answer.refusal(), (413, "too-large".to_owned()));
    let pieces = futures_util::stream::iter(vec![Ok::<_, std::io::Error>(large)]);
    let answer = client
        .send(request().body(reqwest::Body::wrap_stream(pieces)))
        .await;
    assert_eq!(answer.refusal(), (413, "too-large".to_owned()));
    assert!(stage.find("SIMTEST00001").await.is_none());
}

#[tokio::test]
async fn unknown_fields_and_parameters_are_refused() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["admin"]).await;
    let answer = client
        .post(CODES, json!({ "text": "x", "textt": "y" }))
        .await;
    assert_eq!(answer.refusal(), (400, "bad-request".to_owned()));
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("expected one of `text`, `kind`, `note`"),
        "{detail}"
    );

    for query in [
        "coverge=missing",
        "coverage=gone",
        "limit=many",
        "closing=maybe",
        "limit=1&limit=2",
        "limit=-1",
    ] {
        let answer = client.get(&format!("/v1/devices?{query}")).await;
        assert_eq!(answer.refusal(), (400, "bad-request".to_owned()), "{query}");
    }
    let answer = client.get("/v1/devices?coverage=gone").await.json();
    assert!(
        answer["detail"]
            .as_str()
            .unwrap()
            .contains("expected one of `covered`, `missing`, `exempt`")
    );
    for query in ["limit=1", "closing=true", "coverage=exempt&search=a%20b"] {
        assert_eq!(
            client.get(&format!("/v1/devices?{query}")).await.status,
            200,
            "{query}"
        );
    }
}

#[tokio::test]
async fn what_is_no_serial_number_is_refused() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["admin"]).await;
    for bad in [
        "A-B",
        "A%20B",
        "%FF",
        "123456789012345678901234567890123",
        "%C3%A4",
    ] {
        let answer = client.get(&format!("/v1/devices/{bad}")).await;
        assert_eq!(answer.refusal(), (400, "bad-request".to_owned()), "{bad}");
    }
    let body = json!({ "product_type": "iPad4,1" });
    assert_eq!(
        client.patch("/v1/devices/simtest00001", body).await.status,
        200
    );
    let found = client.get("/v1/devices/SimTest00001").await.json();
    assert_eq!(found["summary"]["serial"], "SIMTEST00001");
}

#[tokio::test]
async fn other_methods_and_addresses_are_problems_too() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["read"]).await;
    let answer = client.get("/v1/nothing").await;
    assert_eq!(answer.refusal(), (404, "not-found".to_owned()));
    let answer = client.ask(Method::PUT, "/v1/devices", None).await;
    assert_eq!(answer.refusal(), (405, "method-not-allowed".to_owned()));
    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
    let answer = client.ask(Method::OPTIONS, "/v1/unlocks/x", None).await;
    assert_eq!(answer.refusal(), (405, "method-not-allowed".to_owned()));
    let allowed = answer.header("allow").unwrap().to_owned();
    assert!(
        allowed.contains("GET") && allowed.contains("DELETE"),
        "{allowed}"
    );

    // HEAD is GET without the body, and needs the same token.
    let whole = client.get("/v1/devices").await;
    let head = client.ask(Method::HEAD, "/v1/devices", None).await;
    assert_eq!((head.status, head.text()), (200, ""));
    assert_eq!(
        head.header("content-length"),
        Some(whole.text().len().to_string().as_str())
    );
    let nobody = Client::new(&stage, "");
    assert_eq!(
        nobody.ask(Method::HEAD, "/v1/devices", None).await.status,
        401
    );
    // What shows codes has no HEAD.
    assert_eq!(
        client
            .ask(Method::HEAD, "/v1/devices/A/reveal", None)
            .await
            .status,
        405
    );

    for answer in [whole, head] {
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}

#[tokio::test]
async fn methods_that_nobody_knows_are_not_kept_one_by_one() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["read"]).await;
    for method in ["BREW", "PROPFIND"] {
        let answer = client
            .ask(method.parse().unwrap(), "/v1/devices", None)
            .await;
        assert_eq!(answer.refusal(), (405, "method-not-allowed".to_owned()));
    }
    let metrics = client.get("/metrics").await;
    assert!(metrics.text().contains("method=\"other\""));
    assert!(!metrics.text().contains("BREW"));
}

#[tokio::test]
async fn what_would_mislead_whoever_reads_the_record_is_refused() {
    let stage = Stage::new().await;
    let client = Client::new(
        &stage,
        &token_of(&stage, Scope::All, Permissions::all()).await,
    );
    let product = json!({ "product_type": "iPad4,1" });
    let device = client.patch("/v1/devices/SIMTEST00001", product).await;
    assert_eq!(device.status, 200);
    const UNLOCK: &str = "/v1/devices/SIMTEST00001/unlock";
    for bad in ["a\u{1b}[2Jb", "a\u{202e}b", "a\u{0}b", "a\u{9b}b"] {
        for (path, body) in [
            (UNLOCK, json!({ "reason": bad })),
            (UNLOCK, json!({ "reason": "r", "requester": bad })),
            ("/v1/devices/SIMTEST00001/reveal", json!({ "reason": bad })),
            ("/v1/tokens", json!({ "name": bad, "scopes": ["read"] })),
            ("/v1/organisations", json!({ "name": bad })),
        ] {
            let answer = client.post(path, body).await;
            assert_eq!(
                answer.refusal(),
                (400, "bad-request".to_owned()),
                "{path}: {bad:?}"
            );
        }
    }
    // A name stands in one line; a reason may have several.
    for (body, status) in [
        (json!({ "reason": "r", "requester": "a\nb" }), 400),
        (json!({ "reason": "first\r\n\tsecond" }), 202),
    ] {
        assert_eq!(client.post(UNLOCK, body).await.status, status);
    }
    let long = "x".repeat(801);
    for path in [
        "/v1/unlocks/a%0Ab",
        "/v1/mdm/a%1Bb",
        &format!("/v1/unlocks/{long}"),
    ] {
        let answer = client.get(path).await;
        assert_eq!(answer.refusal(), (400, "bad-request".to_owned()));
    }
    let answer = client.get(&format!("/v1/unlocks/{}", &long[1..])).await;
    assert_eq!(answer.refusal(), (404, "unknown-unlock".to_owned()));
}

#[tokio::test]
async fn every_answer_says_what_a_browser_must_not_do() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["read"]).await;
    for path in [
        "/v1/devices",
        "/v1/nothing",
        "/openapi.json",
        "/healthz",
        "/nothing",
    ] {
        for asked in [&client, &Client::new(&stage, "")] {
            let answer = asked.get(path).await;
            let told = |name: &str| answer.header(name).unwrap_or_default().to_owned();
            assert_eq!(told("cache-control"), "no-store", "{path}");
            assert_eq!(told("x-content-type-options"), "nosniff", "{path}");
            assert_eq!(told("x-frame-options"), "DENY", "{path}");
            assert_eq!(told("referrer-policy"), "no-referrer", "{path}");
            assert_eq!(
                told("cross-origin-resource-policy"),
                "same-origin",
                "{path}"
            );
            assert!(
                told("content-security-policy").starts_with("default-src 'none'"),
                "{path}"
            );
            assert_eq!(
                told("strict-transport-security"),
                "",
                "{path}: it is reached without TLS"
            );
            assert_eq!(told("access-control-allow-origin"), "", "{path}");
        }
    }
}
