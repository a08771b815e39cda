//! Codes taken away, through the API.

use std::io::Read as _;

use age::x25519::Identity;
use serde_json::json;

use crate::api::Client;
use crate::support::{CODE_A, Stage};

const PATH: &str = "/v1/exports";

async fn typed(stage: &Stage, serial: &str, text: &str) {
    let client = Client::with(stage, &["admin"]).await;
    let body = json!({ "text": text, "kind": "device", "note": "a, \"quoted\" note" });
    let path = format!("/v1/devices/{serial}/codes");
    assert_eq!(client.post(&path, body).await.status, 201);
}

fn opened(archive: &[u8], identity: &Identity) -> String {
    let identity: &dyn age::Identity = identity;
    let mut table = String::new();
    age::Decryptor::new(archive)
        .unwrap()
        .decrypt(std::iter::once(identity))
        .unwrap()
        .read_to_string(&mut table)
        .unwrap();
    table
}

#[tokio::test]
async fn an_archive_opens_with_the_key_it_is_for_and_holds_a_row_a_code() {
    let stage = Stage::new().await;
    typed(&stage, "SIMPHONE0001", CODE_A).await;
    for number in 0..700 {
        typed(&stage, &format!("MANY{number:08}"), "=not a code").await;
    }
    let admin = Client::with(&stage, &["admin"]).await;
    let path = format!("/v1/organisations/{}", stage.organisation.as_str());
    let set = admin.patch(&path, json!({ "reveals_an_hour": 1000 })).await;
    assert_eq!(set.status, 200);
    let zoe = Identity::generate();
    let client = Client::with(&stage, &["export"]).await;
    let body = json!({ "reason": "leaving", "recipients": [zoe.to_public().to_string()] });
    let request = client.request(reqwest::Method::POST, PATH);
    let answer = request
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let archive = answer.bytes().await.unwrap();
    assert!(
        !archive
            .windows(CODE_A.len())
            .any(|part| part == CODE_A.as_bytes())
    );
    let table = opened(&archive, &zoe);
    let lines: Vec<_> = table.split("\r\n").collect();
    assert_eq!(
        lines[0],
        "serial,code,kind,product_type,imei,imei2,meid,source,captured_at,note"
    );
    assert_eq!((lines.len(), lines[702]), (703, ""));
    let row = lines.iter().find(|line| line.starts_with("SIMPHONE0001,"));
    let (begin, end) = (
        format!("SIMPHONE0001,{CODE_A},device,,,,,person,"),
        ",\"former: a, \"\"quoted\"\" note\"",
    );
    assert!(row.is_some_and(|row| row.starts_with(&begin) && row.ends_with(end)));
    assert!(
        lines[1].starts_with("MANY00000000,=not a code,device,"),
        "byte for byte"
    );
}

#[tokio::test]
async fn what_is_not_for_somebody_is_refused_and_no_code_leaves() {
    let stage = Stage::new().await;
    typed(&stage, "SIMPHONE0001", CODE_A).await;
    let client = Client::with(&stage, &["export"]).await;
    let key = Identity::generate().to_public().to_string();
    for (body, problem) in [
        (json!({ "reason": "x" }), (400, "bad-request")),
        (
            json!({ "reason": " ", "recipients": [key] }),
            (400, "bad-request"),
        ),
        (
            json!({ "reason": "x", "recipients": ["age1nothing"] }),
            (400, "bad-request"),
        ),
        (
            json!({ "reason": "x", "recipients": [key], "plain": true }),
            (400, "bad-request"),
        ),
        (
            json!({ "reason": "x", "plain": true }),
            (403, "approval-needed"),
        ),
    ] {
        let answer = client.post(PATH, body.clone()).await;
        assert!(!answer.text().contains(CODE_A));
        assert_eq!(
            answer.refusal(),
            (problem.0, problem.1.to_owned()),
            "{body}"
        );
    }
}
