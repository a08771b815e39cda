//! The Business and School Manager API: who may read it, and what it tells.

use std::time::Duration;

use serde_json::{Value, json};
use sim::{
    AccountKind, BusinessFault, BusinessManagerOptions, OrgDevice, StatusAnswer, apple::Answered,
};

use crate::{
    business_client::{Form, Stage, assertion, stage, stage_with},
    dep_client::Answer,
    support::{CODE, SERIAL, client, good_client, status, unlock},
};

/// A change of something that is made of JSON.
type Change = fn(&mut Value);

const DAY: i64 = 86_400;

#[tokio::test]
async fn t32_a_good_assertion_gets_an_access_token_for_an_hour() {
    let stage = stage().await;
    let answer = stage.ask_token(&stage.good_form()).await;
    assert_eq!(answer.status, 200);
    let told = answer.json();
    assert_eq!(
        (&told["token_type"], &told["expires_in"]),
        (&json!("Bearer"), &json!(3600))
    );
    let token = told["access_token"].as_str().unwrap();
    stage.clock.advance(3599);
    let read = async || Answer::of(stage.get("/v1/orgDevices", token)).await.status;
    assert_eq!(read().await, 200);
    stage.clock.advance(1);
    assert_eq!(read().await, 401);
    let call = stage.api.journal().get(0).unwrap();
    assert_eq!(
        call.client_id.as_deref(),
        Some(stage.account.client_id.as_str())
    );
    assert_eq!(call.key_id.as_deref(), Some(stage.account.key_id.as_str()));
    assert_eq!((call.token_number, stage.api.tokens_given()), (Some(1), 1));
}

#[tokio::test]
async fn t32_an_assertion_is_read_strictly() {
    let stage = stage().await;
    let other = stage.api.issue_account(AccountKind::Business);
    let headers: [(&str, Change); 7] = [
        ("another algorithm", |header| header["alg"] = json!("RS256")),
        ("no algorithm", |header| header["alg"] = json!("none")),
        ("an unknown key", |header| header["kid"] = json!("unknown")),
        ("no key", |header| {
            header.as_object_mut().unwrap().remove("kid");
        }),
        ("another type", |header| header["typ"] = json!("JOSE")),
        ("something critical", |header| {
            header["crit"] = json!(["b64"])
        }),
        ("no object", |header| {
            *header = json!(["ES256", "kid", "JWT"])
        }),
    ];
    for (what, change) in headers {
        let mut header = stage.header();
        change(&mut header);
        let form = stage.form(assertion(&stage.account, &header, &stage.claims()));
        assert_eq!(
            stage.refused(&form).await,
            (400, "invalid_client".to_owned()),
            "{what}"
        );
    }
    let claims: [(&str, Change); 13] = [
        ("another issuer", |claims| {
            claims["iss"] = json!("BUSINESSAPI.other")
        }),
        ("another subject", |claims| {
            claims["sub"] = json!("BUSINESSAPI.other")
        }),
        ("another audience", |claims| {
            claims["aud"] = json!("https://account.apple.com/auth/oauth2/token");
        }),
        ("an audience in a list", |claims| {
            claims["aud"] = json!([claims["aud"]])
        }),
        ("made in the future", |claims| {
            claims["iat"] = json!(claims["iat"].as_i64().unwrap() + 301);
        }),
        ("expired", |claims| claims["exp"] = claims["iat"].clone()),
        ("too long", |claims| {
            claims["exp"] = json!(claims["iat"].as_i64().unwrap() + 180 * DAY + 1);
        }),
        ("a time with a fraction", |claims| {
            claims["iat"] = json!(claims["iat"].as_f64().unwrap() + 0.5);
        }),
        ("no time", |claims| {
            claims.as_object_mut().unwrap().remove("iat");
        }),
        ("no end", |claims| {
            claims.as_object_mut().unwrap().remove("exp");
        }),
        ("no identifier", |claims| {
            claims.as_object_mut().unwrap().remove("jti");
        }),
        ("an empty identifier", |claims| claims["jti"] = json!("")),
        ("an unknown claim", |claims| {
            claims["scope"] = json!("business.api")
        }),
    ];
    for (what, change) in claims {
        let mut claims = stage.claims();
        change(&mut claims);
        let form = stage.form(assertion(&stage.account, &stage.header(), &claims));
        assert_eq!(
            stage.refused(&form).await,
            (400, "invalid_client".to_owned()),
            "{what}"
        );
    }
    let good = assertion(&stage.account, &stage.header(), &stage.claims());
    let parts: Vec<&str> = good.split('.').collect();
    for (what, text) in [
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("padding", format!("{good}=")),
        ("half a signature", good[..good.len() - 43].to_owned()),
        ("other claims", {
            let claims = assertion(&stage.account, &stage.header(), &stage.claims());
            let claims = claims.split('.').nth(1).unwrap();
            format!("{}.{claims}.{}", parts[0], parts[2])
        }),
        (
            "the key of another client",
            assertion(&other, &stage.header(), &stage.claims()),
        ),
    ] {
        let refused = stage.refused(&stage.form(text)).await;
        assert_eq!(refused, (400, "invalid_client".to_owned()), "{what}");
    }
    let mut form = stage.good_form();
    form.insert("client_id", other.client_id.clone());
    assert_eq!(
        stage.refused(&form).await.1,
        "invalid_client",
        "signed by another client"
    );
    form.insert("client_id", "BUSINESSAPI.unknown".to_owned());
    assert_eq!(
        stage.refused(&form).await.1,
        "invalid_client",
        "an unknown client"
    );
    assert_eq!(stage.api.tokens_given(), 0);

    // Just inside; and without a type.
    let mut claims = stage.claims();
    let now = stage.clock.seconds();
    claims["iat"] = json!(now + 300);
    claims["exp"] = json!(now + 300 + 180 * DAY);
    let header = json!({ "alg": "ES256", "kid": stage.account.key_id });
    let form = stage.form(assertion(&stage.account, &header, &claims));
    assert_eq!(stage.ask_token(&form).await.status, 200);
}

#[tokio::test]
async fn t32_a_der_signature_is_not_what_es256_means() {
    let stage = stage().await;
    let key = rcgen::KeyPair::from_pem(&stage.account.private_key_pem).unwrap();
    let good = assertion(&stage.account, &stage.header(), &stage.claims());
    let (signed, _) = good.rsplit_once('.').unwrap();
    let der = rcgen::SigningKey::sign(&key, signed.as_bytes()).unwrap();
    let form = stage.form(format!(
        "{signed}.{}",
        data_encoding::BASE64URL_NOPAD.encode(&der)
    ));
    assert_eq!(
        stage.refused(&form).await,
        (400, "invalid_client".to_owned())
    );
    let note = stage.api.journal().get(0).unwrap().note;
    assert!(note.contains("32 bytes each"), "{note}");
}

#[tokio::test]
async fn t32_an_assertion_may_be_used_again_but_its_identifier_may_not() {
    let stage = stage().await;
    let mut claims = stage.claims();
    let first = stage.form(assertion(&stage.account, &stage.header(), &claims));
    assert_eq!(stage.ask_token(&first).await.status, 200);
    assert_eq!(stage.ask_token(&first).await.status, 200);
    claims["exp"] = json!(stage.clock.seconds() + 600);
    let other = stage.form(assertion(&stage.account, &stage.header(), &claims));
    assert_eq!(
        stage.refused(&other).await,
        (400, "invalid_client".to_owned())
    );
    stage.clock.advance(1200);
    assert_eq!(
        stage.refused(&first).await.1,
        "invalid_client",
        "it has ended"
    );

    let strict = stage_with(BusinessManagerOptions {
        one_time_assertions: true,
        ..BusinessManagerOptions::default()
    })
    .await;
    let form = strict.good_form();
    assert_eq!(strict.ask_token(&form).await.status, 200);
    assert_eq!(
        strict.refused(&form).await,
        (400, "invalid_client".to_owned())
    );
}

#[tokio::test]
async fn the_token_endpoint_takes_one_form_alone() {
    let stage = stage().await;
    let with = |key: &'static str, value: &str| {
        let mut form = stage.good_form();
        form.insert(key, value.to_owned());
        form
    };
    for key in stage.good_form().into_keys() {
        let mut form = stage.good_form();
        form.remove(key);
        assert_eq!(
            stage.refused(&form).await,
            (400, "invalid_request".to_owned()),
            "{key}"
        );
    }
    for (form, error) in [
        (
            with("grant_type", "authorization_code"),
            "unsupported_grant_type",
        ),
        (
            with("client_assertion_type", "jwt-bearer"),
            "invalid_request",
        ),
        (with("client_secret", "x"), "invalid_request"),
        (with("scope", "school.api"), "invalid_scope"),
        (with("scope", "business.api school.api"), "invalid_scope"),
        (with("client_assertion", "x"), "invalid_client"),
    ] {
        assert_eq!(stage.refused(&form).await, (400, error.to_owned()));
    }
    let json = stage
        .token_request(&Form::new())
        .header("content-type", "application/json");
    assert_eq!(Answer::of(json).await.status, 400);
    let twice = stage.token_request(&stage.good_form());
    let twice = twice.body("scope=business.api&scope=business.api");
    assert_eq!(Answer::of(twice).await.json()["error"], "invalid_request");
    let http = client(&stage.api.ca_pem(), None);
    assert_eq!(status(http.get(stage.api.token_url())).await, 405);
    let query = http.post(format!("{}?scope=business.api", stage.api.token_url()));
    assert_eq!(status(query).await, 400);
}

#[tokio::test]
async fn a_school_account_has_the_schools_scope_and_both_forms_of_one_key() {
    let mut stage = stage().await;
    stage.account = stage.api.issue_account(AccountKind::School);
    assert!(stage.account.client_id.starts_with("SCHOOLAPI."));
    let mut form = stage.good_form();
    form.insert("scope", "business.api".to_owned());
    assert_eq!(stage.refused(&form).await.1, "invalid_scope");
    form.insert("scope", "school.api".to_owned());
    assert_eq!(stage.ask_token(&form).await.status, 200);

    let old = &stage.account.private_key_sec1_pem;
    assert!(old.starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
    let (old, new) = (
        rcgen::KeyPair::from_pem_and_sign_algo(old, &rcgen::PKCS_ECDSA_P256_SHA256).unwrap(),
        rcgen::KeyPair::from_pem(&stage.account.private_key_pem).unwrap(),
    );
    assert_eq!(old.public_key_raw(), new.public_key_raw());
}

#[tokio::test]
async fn t31_the_lock_status_is_that_of_apples_table() {
    let stage = stage().await;
    let told = async || stage.lock_status().await.json()["data"]["attributes"].clone();
    assert_eq!(
        told().await,
        json!({ "isLocked": false, "lockType": "NONE" })
    );
    stage.apple.user_lock(SERIAL, CODE).unwrap();
    assert_eq!(
        told().await,
        json!({ "isLocked": true, "lockType": "USER" })
    );
    assert_eq!(
        status(unlock(&stage.apple, &good_client(&stage.apple), CODE)).await,
        200
    );
    assert_eq!(
        told().await,
        json!({ "isLocked": false, "lockType": "NONE" })
    );
    let code = sim::Code::parse(CODE).unwrap();
    stage.apple.org_lock(SERIAL, code.hash()).unwrap();
    let answer = stage.lock_status().await.json();
    let path = format!("/v1/orgDevices/{SERIAL}/activationLockStatus");
    assert_eq!(
        answer,
        json!({
            "data": {
                "type": "activationLockStatus", "id": SERIAL,
                "attributes": { "isLocked": true, "lockType": "MDM" },
            },
            "links": { "self": format!("{}{path}", stage.api.api_url()) },
        })
    );
    for (fields, expected) in [
        ("isLocked", json!({ "isLocked": true })),
        (
            "isLocked,lockType",
            json!({ "isLocked": true, "lockType": "MDM" }),
        ),
    ] {
        for key in [
            "fields[activationLockStatus]",
            "fields%5BactivationLockStatus%5D",
        ] {
            let answer = stage.call(&format!("{path}?{key}={fields}")).await;
            assert_eq!(answer.json()["data"]["attributes"], expected);
        }
    }
    for odd in [
        "fields[activationLockStatus]=color",
        "fields[orgDevices]=isLocked",
        "a=b",
        "fields[activationLockStatus]=",
    ] {
        let answer = stage.call(&format!("{path}?{odd}")).await;
        assert_eq!(answer.status, 400, "{odd}");
        assert_eq!(
            answer.json()["errors"][0]["code"],
            "PARAMETER_ERROR.INVALID"
        );
    }
}

#[tokio::test]
async fn t31_the_lock_status_may_be_that_of_a_while_ago() {
    let stage = stage_with(BusinessManagerOptions {
        stale_for: Duration::from_secs(120),
        ..BusinessManagerOptions::default()
    })
    .await;
    let lock_type =
        async || stage.lock_status().await.json()["data"]["attributes"]["lockType"].clone();
    stage.apple.user_lock(SERIAL, CODE).unwrap();
    assert_eq!(lock_type().await, "NONE");
    stage.clock.advance(100);
    stage.apple.clear_lock(SERIAL);
    assert_eq!(lock_type().await, "NONE");
    stage.clock.advance(20);
    assert_eq!(lock_type().await, "USER", "two minutes after it went on");
    stage.clock.advance(99);
    assert_eq!(lock_type().await, "USER");
    stage.clock.advance(1);
    assert_eq!(lock_type().await, "NONE", "two minutes after it went off");
    stage.apple.user_lock(SERIAL, CODE).unwrap();
    stage.api.set_stale_for(Duration::ZERO);
    assert_eq!(lock_type().await, "USER");
}

#[tokio::test]
async fn t31_answers_that_are_hard_to_read() {
    let stage = stage().await;
    let told = async |answer: StatusAnswer| {
        stage.api.set_status(SERIAL, answer);
        stage.lock_status().await
    };
    let data = async |answer: StatusAnswer| told(answer).await.json()["data"].clone();
    let missing = data(StatusAnswer::Missing).await;
    assert_eq!(
        missing,
        json!({ "type": "activationLockStatus", "id": SERIAL })
    );
    let half = data(StatusAnswer::Exactly {
        is_locked: Some(true),
        lock_type: None,
    })
    .await;
    assert_eq!(half["attributes"], json!({ "isLocked": true }));
    let other = data(StatusAnswer::Other("PARTS".to_owned())).await;
    assert_eq!(
        other["attributes"],
        json!({ "isLocked": true, "lockType": "PARTS" })
    );
    let more = data(StatusAnswer::MoreThanTruth).await["attributes"].clone();
    assert_eq!(
        (&more["lockType"], more.as_object().unwrap().len()),
        (&json!("NONE"), 4)
    );
    let another = data(StatusAnswer::AboutAnother("SIMTEST00009".to_owned())).await;
    assert_eq!(another["id"], "SIMTEST00009");
    let internal = told(StatusAnswer::InternalState).await;
    assert_eq!(
        (internal.status, &internal.json()["errors"][0]["status"]),
        (500, &json!("500"))
    );
    let truth = data(StatusAnswer::Truth).await;
    assert_eq!(truth["attributes"]["lockType"], "NONE");
}

/// The one error of an answer.
fn error(answer: &Answer) -> (u16, String) {
    let errors = answer.json()["errors"].clone();
    let error = &errors[0];
    assert_eq!(errors.as_array().unwrap().len(), 1);
    assert_eq!(error["status"], answer.status.to_string());
    for key in ["id", "title", "detail"] {
        assert!(error[key].is_string(), "{key}");
    }
    (answer.status, error["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn t31_refusals_are_error_responses() {
    let stage = stage().await;
    let path = format!("/v1/orgDevices/{SERIAL}/activationLockStatus");
    let token = stage.token().await;
    let get = async |path: &str| error(&Answer::of(stage.get(path, &token)).await);
    let unknown = "/v1/orgDevices/SIMTEST00009/activationLockStatus";
    assert_eq!(get(unknown).await, (404, "NOT_FOUND".to_owned()));
    assert_eq!(get("/v1/orgDevices/SIMTEST00009").await.0, 404);
    assert_eq!(get("/v1/mdmServers").await.0, 404);
    assert_eq!(get("/v1/orgDevicesX").await.0, 404);
    stage.api.remove_device(SERIAL);
    assert_eq!(get(&path).await.0, 404);
    stage.api.add_device(OrgDevice::new(SERIAL, "iPad4,1"));

    stage.api.deny(&stage.account, true);
    assert_eq!(get(&path).await, (403, "FORBIDDEN".to_owned()));
    stage.api.deny(&stage.account, false);
    for fault in [
        BusinessFault::status(429)
            .retry_after("30")
            .on("/v1/orgDevices"),
        BusinessFault::status(503).for_serial(SERIAL),
    ] {
        stage.api.push_fault(fault);
    }
    let limited = stage.get(&path, &token).send().await.unwrap();
    assert_eq!(
        (limited.status().as_u16(), &limited.headers()["retry-after"]),
        (429, &"30".parse().unwrap())
    );
    assert_eq!(get(&path).await, (503, "SERVICE_UNAVAILABLE".to_owned()));

    stage.api.expire_tokens();
    assert_eq!(get(&path).await, (401, "NOT_AUTHORIZED".to_owned()));
    let token = stage.token().await;
    let none = stage.bare(&path).header("accept", "application/json");
    assert_eq!(error(&Answer::of(none).await).0, 401);
    for accept in [None, Some("text/html"), Some("application/vnd.api+json")] {
        let mut request = stage.bare(&path).bearer_auth(&token);
        if let Some(accept) = accept {
            request = request.header("accept", accept);
        }
        let refused = Answer::of(request).await;
        assert_eq!(
            error(&refused),
            (406, "NOT_ACCEPTABLE".to_owned()),
            "{accept:?}"
        );
    }
    let http = client(&stage.api.ca_pem(), None);
    let post = http.post(format!("{}{path}", stage.api.api_url()));
    assert_eq!(error(&Answer::of(post).await).0, 405);
    let call = stage.api.journal().all().pop().unwrap();
    assert_eq!(call.serial.as_deref(), Some(SERIAL));
    assert_eq!(
        (call.answered, call.error.as_deref()),
        (Answered::Status(405), Some("METHOD_NOT_ALLOWED"))
    );
}

#[tokio::test]
async fn t31_faults_at_the_token_endpoint_speak_oauth() {
    let stage = stage().await;
    let path = sim::business_manager::TOKEN_PATH;
    stage.api.push_fault(BusinessFault::status(400).on(path));
    assert_eq!(
        stage.refused(&stage.good_form()).await,
        (400, "invalid_request".to_owned())
    );
    stage.api.push_fault(
        BusinessFault::status(400)
            .body("{\"error\":\"invalid_grant\"}")
            .on(path),
    );
    assert_eq!(
        stage.refused(&stage.good_form()).await,
        (400, "invalid_grant".to_owned())
    );
    stage
        .api
        .push_fault(BusinessFault::drop_after_commit().on(path));
    assert!(
        stage
            .token_request(&stage.good_form())
            .send()
            .await
            .is_err()
    );
    assert_eq!(stage.api.tokens_given(), 1);
    stage.api.push_fault(BusinessFault::garbage().on("/v1"));
    let token = stage.token().await;
    assert!(stage.get("/v1/orgDevices", &token).send().await.is_err());
    stage.api.go_offline().await;
    assert!(stage.get("/v1/orgDevices", &token).send().await.is_err());
    stage.api.come_back().await;
    assert_eq!(status(stage.get("/v1/orgDevices", &token)).await, 200);
}

fn ids(list: &Value) -> Vec<String> {
    let data = list["data"].as_array().unwrap().iter();
    data.map(|device| device["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn devices_are_listed_in_pages_that_link_to_the_next() {
    let stage = stage().await;
    for number in 0..1500 {
        stage
            .api
            .add_device(OrgDevice::new(format!("SIM{number:06}"), "iPhone12,8"));
    }
    let token = stage.token().await;
    let get = async |path: &str| {
        let answer = Answer::of(stage.get(path, &token)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    };
    assert_eq!(ids(&get("/v1/orgDevices").await).len(), 100);
    let mut path =
        "/v1/orgDevices?limit=700&fields[orgDevices]=serialNumber,productType".to_owned();
    let mut found = Vec::new();
    let mut lengths = Vec::new();
    loop {
        let list = get(&path).await;
        assert_eq!(
            list["links"]["self"],
            format!("{}{path}", stage.api.api_url())
        );
        assert_eq!(list["data"][0]["attributes"].as_object().unwrap().len(), 2);
        lengths.push(ids(&list).len());
        found.extend(ids(&list));
        let Some(next) = list["links"].get("next") else {
            assert!(list["meta"]["paging"].get("nextCursor").is_none());
            break;
        };
        let next = next.as_str().unwrap();
        let cursor = list["meta"]["paging"]["nextCursor"].as_str().unwrap();
        assert!(next.contains(cursor), "both lead on");
        path = next.strip_prefix(&stage.api.api_url()).unwrap().to_owned();
    }
    assert_eq!(lengths, [700, 700, 101]);
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 1501);
    for odd in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "cursor=x",
        "page=2",
        "fields[orgDevices]=price",
    ] {
        let answer = Answer::of(stage.get(&format!("/v1/orgDevices?{odd}"), &token)).await;
        assert_eq!(error(&answer).0, 400, "{odd}");
    }
}

#[tokio::test]
async fn t27_a_device_is_told_with_its_product_type_and_numbers() {
    let stage = stage().await;
    let phone = OrgDevice::new("SIM1", "iPhone15,3")
        .with_imeis(["353000000000001", "353000000000002"])
        .with_meids(["35300000000000"]);
    stage.api.add_device(phone);
    let answer = stage.call("/v1/orgDevices/SIM1").await.json();
    assert_eq!(answer["data"]["type"], "orgDevices");
    assert_eq!(
        answer["data"]["attributes"],
        json!({
            "serialNumber": "SIM1", "addedToOrgDateTime": "2026-01-31T12:00:00Z", "deviceModel": "iPhone",
            "productFamily": "iPhone", "productType": "iPhone15,3", "deviceCapacity": "64GB",
            "partNumber": "FD311LL/A", "color": "SILVER", "status": "ASSIGNED", "orderNumber": "1234567890",
            "imei": ["353000000000001", "353000000000002"], "meid": ["35300000000000"],
        })
    );
    let some = stage
        .call("/v1/orgDevices/SIM1?fields[orgDevices]=imei")
        .await
        .json();
    assert_eq!(
        some["data"]["attributes"],
        json!({ "imei": ["353000000000001", "353000000000002"] })
    );
}

#[tokio::test]
#[should_panic(expected = "did not issue")]
async fn an_account_of_another_service_is_a_mistake_of_the_test() {
    let (one, two) = (stage().await, stage().await);
    one.api.deny(&two.account, true);
}

#[tokio::test]
async fn t34_no_secret_is_in_the_journal_or_in_debug() {
    let stage = stage().await;
    let form = stage.good_form();
    stage.ask_token(&form).await;
    let token = stage.token().await;
    status(stage.get("/v1/orgDevices", &token)).await;
    let mut wrong = form.clone();
    wrong.insert("scope", "school.api".to_owned());
    stage.ask_token(&wrong).await;
    let written = written(&stage);
    let key: String = stage
        .account
        .private_key_pem
        .lines()
        .skip(1)
        .take(1)
        .collect();
    for secret in [&form["client_assertion"], &token, &key] {
        assert!(
            !written.contains(secret.as_str()),
            "a secret is written down"
        );
    }
}

fn written(stage: &Stage) -> String {
    let calls = stage.api.journal().all();
    format!(
        "{calls:?}{}{:?}",
        serde_json::to_string(&calls).unwrap(),
        stage.account
    )
}
