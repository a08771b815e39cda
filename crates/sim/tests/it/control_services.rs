//! The controls of the enrolment service and of the Business and School Manager API.

use serde_json::{Value, json};
use sim::{
    Apple, AppleOptions, BusinessManager, BusinessManagerOptions, Dep, DepOptions, DepToken,
    apple::control::{Control, Controlled},
};
use time::OffsetDateTime;

use crate::{
    business_client,
    dep_client::{self, Answer, Clock},
    support::{SERIAL, ipad, plain},
};

struct Controls {
    control: Control,
    http: reqwest::Client,
}

impl Controls {
    async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        let url = format!("{}{path}", self.control.url());
        let request = self.http.request(method.parse().unwrap(), url);
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string());
        Answer::of(request).await
    }

    async fn made(&self, path: &str, body: Value) -> Value {
        let answer = self.send("POST", path, body).await;
        assert_eq!(answer.status, 201, "{path}");
        answer.json()
    }

    async fn done(&self, method: &str, path: &str, body: Value) {
        let answer = self.send(method, path, body).await;
        assert_eq!(answer.status, 204, "{method} {path} {}", answer.body);
    }
}

async fn all() -> (Apple, Dep, BusinessManager, Clock, Controls) {
    let clock = Clock::new();
    let apple = Apple::start(AppleOptions {
        now: clock.now(),
        ..AppleOptions::default()
    })
    .await
    .unwrap();
    apple.add_device(ipad());
    let dep = Dep::start(
        &apple,
        DepOptions {
            now: clock.now(),
            ..DepOptions::default()
        },
    )
    .await
    .unwrap();
    let options = BusinessManagerOptions {
        now: clock.now(),
        ..BusinessManagerOptions::default()
    };
    let api = BusinessManager::start(&apple, options).await.unwrap();
    let controlled = Controlled {
        apple: apple.clone(),
        dep: Some(dep.clone()),
        business_manager: Some(api.clone()),
    };
    let control = Control::start(controlled, ([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let http = plain();
    (apple, dep, api, clock, Controls { control, http })
}

#[tokio::test]
async fn the_enrolment_service_is_set_up_without_a_line_of_rust() {
    let (apple, dep, _api, clock, controls) = all().await;
    let issued = controls.made("/dep/tokens", json!({})).await;
    let text = |key: &str| issued[key].as_str().unwrap().to_owned();
    let token = DepToken {
        server_name: text("server_name"),
        server_uuid: text("server_uuid"),
        consumer_key: text("consumer_key"),
        consumer_secret: text("consumer_secret"),
        access_token: text("access_token"),
        access_secret: text("access_secret"),
        access_token_expiry: OffsetDateTime::UNIX_EPOCH,
    };
    let server = format!("/dep/tokens/{}", token.consumer_key);
    let devices = format!("{server}/devices");
    let stage = dep_client::Stage::at(&apple, &dep, &token, clock);
    controls
        .done("POST", &devices, json!({ "serial_number": SERIAL }))
        .await;
    controls
        .done(
            "POST",
            &devices,
            json!({ "serial_number": "SIM1", "model": "iPad Air", "imei": ["353000000000001"] }),
        )
        .await;
    controls
        .done("DELETE", &format!("{devices}/SIM1"), Value::Null)
        .await;
    let list = stage.call("/server/devices", &json!({})).await.json();
    assert_eq!(list["devices"].as_array().unwrap().len(), 1);

    let hash = "ab".repeat(32);
    let refusal = format!("/dep/lock-refusals/{SERIAL}");
    let status = json!({ "response_status": "ORG_NOT_SUPPORTED" });
    controls.done("PUT", &refusal, status).await;
    assert_eq!(stage.lock_status(SERIAL, &hash).await, "ORG_NOT_SUPPORTED");
    controls.done("DELETE", &refusal, Value::Null).await;
    let fault = json!({ "kind": "status", "status": 500, "path": "/device/activationlock" });
    controls.done("POST", "/dep/faults", fault.clone()).await;
    assert_eq!(stage.lock(SERIAL, &hash).await.status, 500);
    controls.done("POST", "/dep/faults", fault).await;
    controls.done("DELETE", "/dep/faults", Value::Null).await;
    assert_eq!(stage.lock_status(SERIAL, &hash).await, "SUCCESS");

    let session = stage.session().await;
    controls
        .done(
            "POST",
            "/dep/expire",
            json!({ "sessions": true, "cursors": true }),
        )
        .await;
    assert_eq!(
        Answer::of(stage.get("/account", &session)).await.status,
        401
    );
    let sync = stage
        .call("/devices/sync", &json!({ "cursor": list["cursor"] }))
        .await;
    assert!(sync.is(400, "EXPIRED_CURSOR"), "{sync:?}");
    for (change, status) in [
        (json!({ "terms_signed": false }), 403),
        (json!({ "terms_signed": true, "access_denied": true }), 403),
        (json!({ "access_denied": false }), 200),
        (json!({ "expired": true }), 401),
    ] {
        controls.done("PATCH", &server, change).await;
        let answer = stage.ask_session(&stage.signing().header()).await;
        assert_eq!(answer.status, status);
    }
    let back = json!({ "expired": false, "terms_signed": false });
    let refused = controls.send("PATCH", &server, back).await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.body.contains("POST /dep/tokens"),
        "{}",
        refused.body
    );
    let journal = controls.send("GET", "/dep/journal", Value::Null).await;
    assert_eq!(
        journal.json().as_array().unwrap().len() as u64,
        dep.journal().count()
    );
    assert!(!journal.body.contains(&token.consumer_secret));
}

#[tokio::test]
async fn t10_a_token_file_is_made_for_a_certificate_that_is_posted() {
    let (_apple, _dep, _api, _clock, controls) = all().await;
    let issued = controls
        .made("/dep/tokens", json!({ "server_name": "Mine" }))
        .await;
    assert_eq!(issued["server_name"], "Mine");
    let path = format!(
        "/dep/tokens/{}/file",
        issued["consumer_key"].as_str().unwrap()
    );
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
        .unwrap();
    let certificate = rcgen::CertificateParams::default()
        .self_signed(&key)
        .unwrap();
    let body = json!({
        "certificate_pem": certificate.pem(), "cipher": "aes128", "message_marks": true, "width": 70, "crlf": false,
    });
    let file = controls.send("POST", &path, body).await;
    assert_eq!(file.status, 201);
    assert!(
        file.body
            .starts_with("Content-Type: application/pkcs7-mime;")
    );
    assert!(!file.body.contains('\r'));
    let body = json!({ "certificate_pem": certificate.pem(), "cipher": "triple_des" });
    assert_eq!(controls.send("POST", &path, body).await.status, 201);
    for body in [
        json!({ "certificate_pem": "none" }),
        json!({ "certificate_pem": certificate.pem(), "cipher": "rot13" }),
        json!({ "certificate_pem": certificate.pem(), "colour": "red" }),
    ] {
        let refused = controls.send("POST", &path, body).await.status;
        assert!((400..500).contains(&refused), "{refused}");
    }
}

#[tokio::test]
async fn the_business_manager_is_set_up_without_a_line_of_rust() {
    let (apple, _dep, api, clock, controls) = all().await;
    let issued = controls.made("/business-manager/accounts", json!({})).await;
    let text = |key: &str| issued[key].as_str().unwrap().to_owned();
    let account = sim::ApiAccount {
        client_id: text("client_id"),
        key_id: text("key_id"),
        private_key_pem: text("private_key_pem"),
        private_key_sec1_pem: text("private_key_sec1_pem"),
    };
    assert!(account.client_id.starts_with("BUSINESSAPI."));
    let stage = business_client::Stage::at(&apple, &api, &account, clock.clone());
    assert_eq!(stage.lock_status().await.status, 404);
    let device = json!({ "serialNumber": SERIAL, "productType": "iPad4,1" });
    controls
        .done("POST", "/business-manager/devices", device)
        .await;
    let lock_type =
        async || stage.lock_status().await.json()["data"]["attributes"]["lockType"].clone();
    assert_eq!(lock_type().await, "NONE");
    let status = format!("/business-manager/devices/{SERIAL}/lock-status");
    controls
        .done("PUT", &status, json!({ "other": "PARTS" }))
        .await;
    assert_eq!(lock_type().await, "PARTS");
    controls
        .done(
            "PUT",
            &status,
            json!({ "exactly": { "is_locked": false, "lock_type": null } }),
        )
        .await;
    assert_eq!(lock_type().await, Value::Null);
    controls.done("PUT", &status, json!("truth")).await;
    controls
        .done(
            "PUT",
            "/business-manager/stale-for",
            json!({ "seconds": 60 }),
        )
        .await;
    apple.user_lock(SERIAL, "anything").unwrap();
    assert_eq!(lock_type().await, "NONE");
    clock.advance(60);
    assert_eq!(lock_type().await, "USER");

    let fault = json!({ "kind": "status", "status": 429, "retry_after": "5", "path": "/v1" });
    controls
        .done("POST", "/business-manager/faults", fault.clone())
        .await;
    assert_eq!(stage.lock_status().await.status, 429);
    controls
        .done("POST", "/business-manager/faults", fault)
        .await;
    controls
        .done("DELETE", "/business-manager/faults", Value::Null)
        .await;
    let token = stage.token().await;
    controls
        .done("POST", "/business-manager/expire-tokens", Value::Null)
        .await;
    assert_eq!(
        Answer::of(stage.get("/v1/orgDevices", &token)).await.status,
        401
    );
    let path = format!("/business-manager/accounts/{}", account.client_id);
    controls
        .done("PATCH", &path, json!({ "denied": true }))
        .await;
    assert_eq!(stage.lock_status().await.status, 403);
    let path = format!("/business-manager/devices/{SERIAL}");
    controls.done("DELETE", &path, Value::Null).await;
    let journal = controls
        .send("GET", "/business-manager/journal", Value::Null)
        .await;
    assert_eq!(
        journal.json().as_array().unwrap().len() as u64,
        api.journal().count()
    );
}

#[tokio::test]
async fn what_is_unknown_is_refused() {
    let (_apple, dep, _api, _clock, controls) = all().await;
    let token = dep.issue_token("Mine");
    let devices = format!("/dep/tokens/{}/devices", token.consumer_key);
    for (method, path, body) in [
        ("POST", "/dep/tokens", json!({ "name": "x" })),
        (
            "PATCH",
            "/dep/tokens/CK_unknown",
            json!({ "expired": true }),
        ),
        (
            "POST",
            "/dep/tokens/CK_unknown/devices",
            json!({ "serial_number": "SIM1" }),
        ),
        ("POST", &devices, json!({ "model": "iPad Air" })),
        (
            "POST",
            &devices,
            json!({ "serial_number": "SIM1", "product_type": "iPad4,1" }),
        ),
        ("POST", "/dep/expire", json!({ "tokens": true })),
        ("POST", "/dep/faults", json!({ "kind": "earthquake" })),
        (
            "POST",
            "/business-manager/accounts",
            json!({ "kind": "university" }),
        ),
        (
            "PATCH",
            "/business-manager/accounts/unknown",
            json!({ "denied": true }),
        ),
        (
            "POST",
            "/business-manager/devices",
            json!({ "productType": "iPad4,1" }),
        ),
        (
            "PUT",
            "/business-manager/devices/SIM1/lock-status",
            json!("lie"),
        ),
        (
            "PUT",
            "/business-manager/stale-for",
            json!({ "minutes": 1 }),
        ),
        (
            "POST",
            "/business-manager/faults",
            json!({ "kind": "status" }),
        ),
    ] {
        let answer = controls.send(method, path, body).await;
        assert!((400..500).contains(&answer.status), "{method} {path}");
    }
    assert_eq!(dep.faults_waiting(), 0);

    let alone = Control::start(crate::support::apple().await, ([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let alone = Controls {
        control: alone,
        http: plain(),
    };
    assert_eq!(
        alone.send("POST", "/dep/tokens", json!({})).await.status,
        404
    );
}
