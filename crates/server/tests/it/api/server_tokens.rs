//! Server tokens and the account for Apple's own status, through the API: T10, R23.

use serde_json::{Value, json};
use sim::business_manager::AccountKind;
use sim::dep::DepToken;

use crate::api::{Answer, Client};
use crate::support::Stage;

struct Office {
    stage: Stage,
    client: Client,
    base: String,
}

impl Office {
    async fn new() -> Self {
        let stage = Stage::new().await;
        let client = Client::with(&stage, &["connections", "unlock"]).await;
        let base = format!("/v1/organisations/{}", stage.organisation.as_str());
        Self {
            stage,
            client,
            base,
        }
    }

    async fn key(&self) -> String {
        let made = self
            .client
            .post(&format!("{}/dep-keys", self.base), json!({}))
            .await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json()["certificate_pem"].as_str().unwrap().to_owned()
    }

    async fn put(&self, body: Value) -> Answer {
        self.client
            .put(&format!("{}/dep-tokens", self.base), body)
            .await
    }

    async fn import(&self, token: &DepToken, certificate: &str) -> Answer {
        let file = self.stage.dep.token_file(token, certificate);
        let file = data_encoding::BASE64.encode(&file);
        self.put(json!({ "name": "main", "file": file })).await
    }
}

#[tokio::test]
async fn t10_a_token_file_is_opened_with_the_key_whose_certificate_was_uploaded() {
    let office = Office::new().await;
    let token = office.stage.dep.issue_token("A server");
    let certificate = office.key().await;
    office.key().await;
    let kept = office.import(&token, &certificate).await;
    assert_eq!(kept.status, 200, "{kept:?}");
    let kept = kept.json();
    assert_eq!(
        (&kept["name"], &kept["expiry"]),
        (&json!("main"), &json!("fine"))
    );
    assert!(kept["expires_at"].is_string());
    let tested = office
        .client
        .post("/v1/dep-tokens/main/test", json!({}))
        .await
        .json();
    assert_eq!(tested["ok"], true, "{tested}");
    assert!(tested["detail"].as_str().unwrap().contains("A server"));
    office
        .stage
        .until("the server to be named", async || {
            let list = office
                .client
                .get(&format!("{}/dep-tokens", office.base))
                .await
                .json();
            list["items"][0]["server_name"] == "A server"
        })
        .await;
    let keys = office
        .client
        .get(&format!("{}/dep-keys", office.base))
        .await
        .json();
    let used: Vec<bool> = keys["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["used_at"].is_string())
        .collect();
    assert_eq!(used, [false, true], "newest first; the older one opened it");
}

#[tokio::test]
async fn t10_what_is_no_token_is_refused_each_with_its_own_words() {
    let office = Office::new().await;
    let token = office.stage.dep.issue_token("A server");
    let unusable = |answer: &Answer| {
        assert_eq!(answer.refusal(), (422, "server-token-unusable".to_owned()));
        answer.json()["detail"].as_str().unwrap().to_owned()
    };
    let other = apple::dep::key::TokenKey::generate(office.stage.now()).unwrap();
    let other = other.certificate_pem().unwrap().to_owned();
    let none = unusable(&office.import(&token, &other).await);
    assert!(none.contains("dep keypair"), "{none}");
    let certificate = office.key().await;
    let wrong = unusable(&office.import(&token, &other).await);
    assert!(wrong.contains("another certificate"), "{wrong}");
    let answer = office.import(&token, &other).await.json();
    let hint = answer["hint"].as_str().unwrap();
    assert!(
        hint.contains("dep keypair") && hint.contains("as JSON"),
        "{hint}"
    );
    assert!(
        !wrong.contains("give the private key"),
        "no option takes one: {wrong}"
    );
    let whole = office.stage.dep.token_file(&token, &certificate);
    let half = data_encoding::BASE64.encode(&whole[..whole.len() / 2]);
    let cut = unusable(&office.put(json!({ "name": "main", "file": half })).await);
    assert!(cut.contains("breaks off"), "{cut}");
    let garbage = data_encoding::BASE64.encode(b"hello");
    let not = unusable(&office.put(json!({ "name": "main", "file": garbage })).await);
    assert!(not.contains("not a server token file"), "{not}");
    office.stage.clock.advance(400 * activation_lock::time::DAY);
    let ended = office.import(&token, &certificate).await;
    assert_eq!(ended.refusal(), (422, "server-token-expired".to_owned()));
    for body in [
        json!({ "name": "main" }),
        json!({ "name": "main", "file": "x", "token": "{}" }),
        json!({ "name": "main", "file": "no base64!" }),
        json!({ "name": "", "token": "{}" }),
        json!({ "name": "n", "nanodep": { "url": "http://example.com", "name": "x", "api_key": "k" } }),
    ] {
        assert_eq!(office.put(body.clone()).await.status, 400, "{body}");
    }
    let list = office
        .client
        .get(&format!("{}/dep-tokens", office.base))
        .await
        .json();
    assert_eq!(list["items"], json!([]), "nothing was changed");
}

#[tokio::test]
async fn r23_no_answer_and_no_audit_row_shows_a_secret() {
    let office = Office::new().await;
    let token = office.stage.dep.issue_token("A server");
    let account = office.stage.business.issue_account(AccountKind::School);
    let body = json!({ "name": "main", "token": token.json() });
    let mut told = office.put(body).await.text().to_owned();
    let path = format!("{}/business-api", office.base);
    let body = json!({
        "client_id": account.client_id,
        "key_id": account.key_id,
        "private_key": account.private_key_pem,
    });
    let put = office.client.put(&path, body).await;
    assert_eq!(put.status, 200, "{put:?}");
    told.push_str(put.text());
    for path in [
        format!("{}/dep-tokens", office.base),
        path.clone(),
        "/v1/devices".to_owned(),
    ] {
        told.push_str(office.client.get(&path).await.text());
    }
    let tested = office.client.post(&format!("{path}/test"), json!({})).await;
    assert_eq!(tested.json()["ok"], true, "{}", tested.json());
    told.push_str(tested.text());
    let admin = Client::with(&office.stage, &["admin"]).await;
    told.push_str(admin.get("/v1/audit?limit=500").await.text());
    let pem: String = account.private_key_pem.lines().nth(1).unwrap().to_owned();
    for secret in [
        &token.consumer_secret,
        &token.access_token,
        &token.access_secret,
        &pem,
    ] {
        assert!(!told.contains(secret.as_str()), "a secret is told");
    }
    assert!(told.contains("server_token.put") && told.contains("business_api.put"));
}

#[tokio::test]
async fn tokens_and_accounts_are_removed_and_what_is_none_is_refused() {
    let office = Office::new().await;
    let token = office.stage.dep.issue_token("A server");
    office
        .put(json!({ "name": "main", "token": token.json() }))
        .await;
    let synced = office
        .client
        .post("/v1/dep-tokens/main/sync", json!({}))
        .await;
    assert_eq!(synced.status, 202);
    assert_eq!(
        office.client.delete("/v1/dep-tokens/main").await.status,
        204
    );
    let again = office.client.delete("/v1/dep-tokens/main").await;
    assert_eq!(again.refusal(), (404, "unknown-server-token".to_owned()));
    let path = format!("{}/business-api", office.base);
    let shown = office.client.get(&path).await;
    assert_eq!(shown.refusal(), (404, "no-business-api".to_owned()));
    let account = office.stage.business.issue_account(AccountKind::Business);
    for (client_id, key) in [
        ("SOMETHING.else", account.private_key_pem.as_str()),
        (account.client_id.as_str(), "no key"),
    ] {
        let body = json!({ "client_id": client_id, "key_id": "k", "private_key": key });
        let answer = office.client.put(&path, body).await;
        assert_eq!(answer.refusal(), (422, "business-api-unusable".to_owned()));
    }
    let body = json!({ "client_id": account.client_id, "key_id": "another", "private_key": account.private_key_pem });
    assert_eq!(office.client.put(&path, body).await.status, 200);
    let tested = office
        .client
        .post(&format!("{path}/test"), json!({}))
        .await
        .json();
    assert_eq!(tested["ok"], false, "the key's identifier is another one");
    assert_eq!(office.client.delete(&path).await.status, 204);
    assert_eq!(office.client.delete(&path).await.status, 404);
}
