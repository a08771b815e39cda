//! Codes, through the API. Those here are published vectors.

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::Client;
use crate::support::{CODE_A, CODE_B, Stage};

const CODES: &str = "/v1/devices/SIMPHONE0001/codes";
const REVEAL: &str = "/v1/devices/SIMPHONE0001/reveal";

async fn made_known(client: &Client, product_type: &str) {
    let body = json!({ "product_type": product_type });
    assert_eq!(
        client.patch("/v1/devices/SIMPHONE0001", body).await.status,
        200
    );
}

fn texts(revealed: &Value) -> Vec<bool> {
    let codes = revealed["codes"].as_array().unwrap().iter();
    codes.map(|code| code["code"] == CODE_A).collect()
}

#[tokio::test]
async fn t36_a_reveal_needs_a_reason_is_on_record_and_shows_codes_dashed() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["admin", "reveal"]).await;
    made_known(&client, "iPhone14,5").await;
    let undashed = CODE_A.replace('-', "").to_lowercase();
    let added = client
        .post(CODES, json!({ "text": undashed, "kind": "device" }))
        .await;
    assert_eq!(
        (added.status, &added.json()["shape"]),
        (201, &json!("lenient"))
    );

    for (number, blank) in [
        json!({}),
        json!({ "reason": " \n" }),
        json!({ "reason": "x".repeat(1_001) }),
    ]
    .iter()
    .enumerate()
    {
        let answer = client.post(REVEAL, blank.clone()).await;
        assert_eq!(
            answer.refusal(),
            (400, "bad-request".to_owned()),
            "reason {number}"
        );
    }
    let rows = async || {
        let path = "/v1/audit?action=code.reveal&subject=SIMPHONE0001";
        client.get(path).await.json()["items"]
            .as_array()
            .unwrap()
            .clone()
    };
    assert!(rows().await.is_empty());

    for times in 1..=2 {
        let answer = client
            .post(REVEAL, json!({ "reason": " ticket 4711 " }))
            .await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let revealed = answer.json();
        assert_eq!(revealed["serial"], "SIMPHONE0001");
        assert_eq!(texts(&revealed), [true]);
        let code = &revealed["codes"][0];
        assert!(code["as_given"] == undashed, "the text as it was given");
        assert_eq!(code["kind"], "device");
        assert_eq!(code["origin"], "person");
        assert_eq!(code["current"], false);
        assert_eq!(code["doubt"], Value::Null);
        let how = code["how_to_type"].as_str().unwrap();
        assert!(
            how.contains("password") && !how.contains("Recovery"),
            "{how}"
        );

        let rows = rows().await;
        assert_eq!(rows.len(), times);
        assert_eq!(rows[0]["reason"], "ticket 4711");
        assert_eq!(rows[0]["actor"]["name"], "token for admin and reveal");
        assert_eq!(rows[0]["details"]["codes"], code["id"]);
        assert_eq!(rows[0]["intact"], "yes");
        assert_eq!(rows[0]["address"], "127.0.0.1");
    }
    let shown = client.get("/v1/devices/SIMPHONE0001").await.json();
    assert_eq!(
        shown["codes"][0]["revealed_by"],
        "token for admin and reveal"
    );
}

#[tokio::test]
async fn t36_on_a_mac_a_code_is_typed_elsewhere() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["admin", "reveal"]).await;
    made_known(&client, "MacBookPro17,1").await;
    client.post(CODES, json!({ "text": CODE_A })).await;
    let revealed = client.post(REVEAL, json!({ "reason": "x" })).await.json();
    let how = revealed["codes"][0]["how_to_type"].as_str().unwrap();
    assert!(
        how.contains("Recovery") && !how.contains("password"),
        "{how}"
    );
}

#[tokio::test]
async fn a_device_without_codes_reveals_none_and_an_unknown_one_is_not_there() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["admin", "reveal"]).await;
    let why = || json!({ "reason": "x" });
    assert_eq!(
        client.post(REVEAL, why()).await.refusal(),
        (404, "unknown-device".to_owned())
    );
    made_known(&client, "iPhone14,5").await;
    let answer = client.post(REVEAL, why()).await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({ "serial": "SIMPHONE0001", "codes": [] }))
    );
}

#[tokio::test]
async fn r3_a_text_that_is_no_code_is_kept_with_a_warning() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["admin", "reveal"]).await;
    // O instead of 0, as a person reads it off a sheet of paper.
    let misread = CODE_A.replacen('0', "O", 1);
    let added = client
        .post(
            CODES,
            json!({ "text": misread, "note": "from the old list" }),
        )
        .await;
    assert_eq!(added.status, 201);
    assert!(!added.text().contains("0R40M"), "the text is not echoed");
    let said = added.json();
    assert_eq!(
        (&said["new"], &said["shape"]),
        (&json!(true), &json!("opaque"))
    );
    let warning = said["warning"].as_str().unwrap();
    assert!(
        warning.contains("character 1 is 'O'") && warning.contains("kept as it is"),
        "{warning}"
    );

    let again = client.post(CODES, json!({ "text": misread })).await;
    assert_eq!((again.status, &again.json()["new"]), (200, &json!(false)));
    assert_eq!(again.json()["id"], said["id"]);

    let good = client
        .post(CODES, json!({ "text": CODE_A, "kind": "server" }))
        .await;
    assert_eq!((good.status, &good.json()["warning"]), (201, &Value::Null));

    let revealed = client.post(REVEAL, json!({ "reason": "x" })).await.json();
    let kept: Vec<bool> = revealed["codes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["code"] == misread.as_str())
        .collect();
    assert_eq!(kept.len(), 2);
    assert!(kept.contains(&true), "byte for byte");
    for (number, bad) in [
        json!({ "text": "  " }),
        json!({ "text": "x".repeat(201) }),
        json!({ "text": CODE_B, "kind": "apple" }),
        json!({}),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = client.post(CODES, bad).await;
        assert_eq!(
            answer.refusal(),
            (400, "bad-request".to_owned()),
            "body {number}"
        );
    }
    let rows = client.get("/v1/audit?action=code.typed").await.json();
    assert_eq!(rows["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn bypass_codes_are_made_and_read() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["read"]).await;
    let path = "/v1/bypass-codes";
    let mut made = Vec::new();
    for body in [None, Some(json!({})), Some(json!(null))] {
        let answer = client.ask(Method::POST, path, body.as_ref()).await;
        assert_eq!(answer.status, 200);
        made.push(answer.json());
    }
    assert!(
        made[0]["code"] != made[1]["code"] && made[1]["code"] != made[2]["code"],
        "each is a new one"
    );
    for forms in &made {
        // Each form leads back to the same three.
        for key in ["code", "raw"] {
            let read = client.post(path, json!({ key: forms[key] })).await.json();
            assert!(read == *forms, "read back by {key}");
        }
        assert_eq!(forms["code"].as_str().unwrap().len(), 31);
        assert_eq!(forms["hash"].as_str().unwrap().len(), 64);
    }
    // A published vector.
    let body = json!({ "raw": "000102030405060708090A0B0C0D0E0F" });
    let known = client.post(path, body).await.json();
    assert!(known["code"] == CODE_A);
    assert!(
        known["hash"].as_str().unwrap().eq_ignore_ascii_case(
            "c5ced1d0c51459c1a887866a5868dd3e9e6f4fc4a8c244f3f9eb9383c0f8aecb"
        )
    );
    for (number, bad) in [
        json!({ "raw": "00" }),
        json!({ "code": "00000" }),
        json!({ "raw": "zz".repeat(16) }),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = client.post(path, bad).await;
        assert_eq!(
            answer.refusal(),
            (422, "not-a-code".to_owned()),
            "body {number}"
        );
    }
    let both = client
        .post(path, json!({ "raw": "00", "code": "00" }))
        .await;
    assert_eq!(both.refusal(), (400, "bad-request".to_owned()));
}

#[tokio::test]
async fn r2_a_device_is_removed_for_ever_by_who_may_and_with_a_reason() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["admin"]).await;
    made_known(&client, "iPhone14,5").await;
    client.post(CODES, json!({ "text": CODE_A })).await;
    let path = "/v1/devices/SIMPHONE0001/purge";
    let no_reason = client.post(path, json!({ "reason": " " })).await;
    assert_eq!(no_reason.refusal(), (400, "bad-request".to_owned()));
    let reader = Client::with(&stage, &["reveal"]).await;
    assert_eq!(
        reader.post(path, json!({ "reason": "sold" })).await.status,
        403
    );
    let gone = client.post(path, json!({ "reason": "sold" })).await;
    assert_eq!(
        (gone.status, gone.json()),
        (200, json!({ "serial": "SIMPHONE0001", "codes": 1 }))
    );
    assert_eq!(
        client.get("/v1/devices/SIMPHONE0001").await.refusal(),
        (404, "unknown-device".to_owned())
    );
    let rows = client.get("/v1/audit?action=device.purge").await.json();
    assert_eq!(rows["items"][0]["reason"], "sold");
}
