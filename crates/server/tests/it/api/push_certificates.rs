//! Push certificates, through the API.

use reqwest::Method;
use serde_json::{Value, json};
use sim::{Issuer, PushCertificateOptions, SIM_TOPIC};
use time::OffsetDateTime;

use crate::api::{Answer, Client};
use crate::support::Stage;

const PATH: &str = "/v1/push-certificates";

fn options(stage: &Stage) -> PushCertificateOptions {
    let now = OffsetDateTime::from_unix_timestamp(stage.now().0 / 1000).unwrap();
    PushCertificateOptions::new(SIM_TOPIC, now)
}

async fn add(client: &Client, certificate: &sim::PushCertificate) -> Value {
    let answer = client
        .post(PATH, json!({ "pem": certificate.bundle_pem() }))
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert!(
        !answer.text().contains("PRIVATE"),
        "the key is not given back"
    );
    answer.json()
}

async fn test(client: &Client, certificate: &Value) -> Answer {
    let path = format!("{PATH}/{}/test", certificate["id"].as_str().unwrap());
    client.ask(Method::POST, &path, None).await
}

#[tokio::test]
async fn a_push_certificate_is_added_renewed_and_removed() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["connections"]).await;
    let renewed = stage.apple.push_certificate(SIM_TOPIC);
    let added = add(&client, &renewed).await;
    assert_eq!(
        (&added["topic"], &added["state"]),
        (&json!(SIM_TOPIC), &json!("usable"))
    );
    assert_eq!(added["days_left"], 364);
    assert_eq!(added["fingerprint"].as_str().unwrap().len(), 64);
    assert!(added["not_after"].as_str().unwrap().ends_with('Z'));
    // The very same changes nothing.
    assert_eq!(add(&client, &renewed).await["id"], added["id"]);

    let listed = client.get(PATH).await.json();
    let states: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["state"].clone())
        .collect();
    assert_eq!(states, ["usable", "superseded"]);

    let path = format!("{PATH}/{}", added["id"].as_str().unwrap());
    assert_eq!(client.delete(&path).await.status, 204);
    assert_eq!(
        client.delete(&path).await.refusal(),
        (404, "unknown-push-certificate".to_owned())
    );
    assert_eq!(
        test(&client, &added).await.refusal(),
        (404, "unknown-push-certificate".to_owned())
    );
    assert_eq!(
        client.get(PATH).await.json()["items"][0]["state"],
        "removed"
    );
}

#[tokio::test]
async fn what_is_no_push_certificate_with_its_key_is_refused_without_being_repeated() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["connections"]).await;
    let (one, other) = (
        stage.apple.push_certificate("com.apple.mgmt.External.a"),
        stage.apple.push_certificate("com.apple.mgmt.External.b"),
    );
    let key_line = one.key_pem.lines().nth(1).unwrap().to_owned();
    for (number, pem) in [
        "certificate".to_owned(),
        one.certificate_pem.clone(),
        one.key_pem.clone(),
        format!("{}{}", other.certificate_pem, one.key_pem),
        format!(
            "{}{}",
            one.certificate_pem,
            one.key_pem.replace(&key_line, &key_line[1..])
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = client.post(PATH, json!({ "pem": pem })).await;
        assert_eq!(
            answer.refusal(),
            (422, "push-certificate-unusable".to_owned()),
            "pem {number}"
        );
        assert!(!answer.text().contains(&key_line[8..40]), "pem {number}");
    }
}

#[tokio::test]
async fn a_push_certificate_is_shown_to_apple_without_a_code() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["connections"]).await;
    let listed = client.get(PATH).await.json();
    let answer = test(&client, &listed["items"][0]).await;
    assert_eq!(answer.status, 200);
    let tested = answer.json();
    assert_eq!(tested["ok"], true, "{tested}");
    assert!(
        tested["detail"].as_str().unwrap().contains("unverified"),
        "{tested}"
    );

    let unknown = stage
        .apple
        .issue(&options(&stage).signed_by(Issuer::Unknown))
        .unwrap();
    let tested = test(&client, &add(&client, &unknown).await).await.json();
    assert_eq!(tested["ok"], false, "{tested}");
    assert!(
        tested["detail"]
            .as_str()
            .unwrap()
            .contains("did not accept this certificate"),
        "{tested}"
    );

    let expired = stage.apple.issue(&options(&stage).expired()).unwrap();
    let added = add(&client, &expired).await;
    assert_eq!(added["state"], "expired");
    assert!(added["days_left"].as_i64().unwrap() < 0);
    let tested = test(&client, &added).await.json();
    assert_eq!(
        (&tested["ok"], &tested["detail"]),
        (&json!(false), &json!("The certificate has expired."))
    );

    // No call that could be an unlock was made.
    assert!(
        stage
            .apple
            .journal()
            .all()
            .iter()
            .all(|call| !call.unlocked)
    );
}
