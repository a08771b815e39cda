//! Lists of devices: whole, and what changed.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use sim::{DepDevice, DepOptions};

use crate::{
    dep_client::{Answer, Stage, stage, stage_with},
    support::SERIAL,
};

const FETCH: &str = "/server/devices";
const SYNC: &str = "/devices/sync";

async fn page(stage: &Stage, path: &str, body: Value) -> Value {
    let answer = stage.call(path, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let page = answer.json();
    let keys: Vec<&str> = page
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        ["cursor", "devices", "fetched_until", "more_to_follow"]
    );
    page
}

fn serials(page: &Value) -> Vec<String> {
    let devices = page["devices"].as_array().unwrap().iter();
    devices
        .map(|device| device["serial_number"].as_str().unwrap().to_owned())
        .collect()
}

/// Each change as `serial operation`.
fn changes(page: &Value) -> Vec<String> {
    let devices = page["devices"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    devices
        .map(|device| {
            format!(
                "{} {}",
                text(&device["serial_number"]),
                text(&device["op_type"])
            )
        })
        .collect()
}

fn assign(stage: &Stage, serial: &str) {
    stage
        .dep
        .assign(&stage.token, DepDevice::new(serial, "iPhone XR"));
}

#[tokio::test]
async fn ten_thousand_devices_are_fetched_each_once() {
    let stage = stage().await;
    stage.dep.unassign(&stage.token, SERIAL);
    let all: Vec<String> = (0..10_000)
        .map(|number| format!("SIM{number:09}"))
        .collect();
    // Added in another order than they are named.
    for serial in all.iter().rev() {
        assign(&stage, serial);
    }
    let mut found = Vec::new();
    let mut body = json!({ "limit": 1000 });
    loop {
        let page = page(&stage, FETCH, body).await;
        found.extend(serials(&page));
        body = json!({ "limit": 1000, "cursor": page["cursor"] });
        if page["more_to_follow"] == false {
            break;
        }
        assert_eq!(serials(&page).len(), 1000);
    }
    assert_eq!(found.len(), 10_000);
    assert_eq!(
        found.into_iter().collect::<BTreeSet<_>>(),
        all.into_iter().collect()
    );
}

#[tokio::test]
async fn pages_are_as_long_as_asked_for_and_as_allowed() {
    let stage = stage_with(DepOptions {
        page_limit: 150,
        ..DepOptions::default()
    })
    .await;
    for number in 0..200 {
        assign(&stage, &format!("SIM{number:09}"));
    }
    for (body, length) in [
        (json!({}), 100),
        (json!({ "limit": 7 }), 7),
        (json!({ "limit": 5000 }), 150),
    ] {
        assert_eq!(serials(&page(&stage, FETCH, body).await).len(), length);
    }
    for body in [
        json!({ "limit": 0 }),
        json!({ "limit": -1 }),
        json!({ "limit": "7" }),
        json!({ "cursor": Value::Null }),
        json!({ "offset": 5 }),
        json!([]),
    ] {
        let answer = stage.call(FETCH, &body).await;
        assert!(answer.is(400, "MALFORMED_REQUEST_BODY"), "{body}");
    }
}

#[tokio::test]
async fn what_happens_during_and_after_a_fetch_is_told_by_the_synchronisation() {
    let stage = stage().await;
    for number in 1..=3 {
        assign(&stage, &format!("SIM{number}"));
    }
    let first = page(&stage, FETCH, json!({ "limit": 2 })).await;
    assert_eq!(serials(&first), [SERIAL, "SIM1"]);
    assert_eq!(first["more_to_follow"], true);
    assign(&stage, "SIM4");
    stage.dep.unassign(&stage.token, "SIM3");
    stage.dep.assign(
        &stage.token,
        DepDevice {
            asset_tag: "A-1".to_owned(),
            ..DepDevice::new("SIM1", "iPhone XR")
        },
    );
    let second = page(
        &stage,
        FETCH,
        json!({ "limit": 2, "cursor": first["cursor"] }),
    )
    .await;
    assert_eq!(serials(&second), ["SIM2"]);
    assert_eq!(second["more_to_follow"], false);

    let sync = page(&stage, SYNC, json!({ "cursor": second["cursor"] })).await;
    assert_eq!(
        changes(&sync),
        ["SIM4 added", "SIM3 deleted", "SIM1 modified"]
    );
    assert_eq!(
        sync["devices"][1].as_object().unwrap().len(),
        3,
        "which it was, and when"
    );
    assert_eq!(sync["devices"][2]["asset_tag"], "A-1");
    assert_eq!(sync["devices"][2]["op_date"], "2027-01-15T08:00:00Z");
    assert_eq!(sync["more_to_follow"], false);
    let again = page(
        &stage,
        SYNC,
        json!({ "cursor": second["cursor"], "limit": 2 }),
    )
    .await;
    assert_eq!(
        changes(&again),
        ["SIM4 added", "SIM3 deleted"],
        "a cursor may be used again"
    );
    assert_eq!(again["more_to_follow"], true);
    let rest = page(&stage, SYNC, json!({ "cursor": again["cursor"] })).await;
    assert_eq!(changes(&rest), ["SIM1 modified"]);

    let quiet = page(&stage, SYNC, json!({ "cursor": sync["cursor"] })).await;
    assert_eq!(changes(&quiet), [""; 0]);
    stage.dep.unassign(&stage.token, "SIM3");
    assign(&stage, "SIM3");
    let back = page(&stage, SYNC, json!({ "cursor": quiet["cursor"] })).await;
    assert_eq!(
        changes(&back),
        ["SIM3 added"],
        "it was gone, and a second time nothing happens"
    );
}

#[tokio::test]
async fn a_cursor_is_demanded_known_and_not_too_old() {
    let stage = stage_with(DepOptions {
        cursor_lifetime: Duration::from_secs(3600),
        ..DepOptions::default()
    })
    .await;
    assign(&stage, "SIM1");
    let refused = async |path: &str, cursor: &Value, body: &str| {
        let answer = stage.call(path, &json!({ "cursor": cursor })).await;
        assert!(answer.is(400, body), "{path} {answer:?}");
    };
    let answer = stage.call(SYNC, &json!({})).await;
    assert!(answer.is(400, "CURSOR_REQUIRED"), "{answer:?}");
    refused(SYNC, &json!("nonsense"), "INVALID_CURSOR").await;
    refused(FETCH, &json!(""), "INVALID_CURSOR").await;

    let begun = page(&stage, FETCH, json!({ "limit": 1 })).await["cursor"].clone();
    let ended = page(&stage, FETCH, json!({})).await["cursor"].clone();
    refused(SYNC, &begun, "INVALID_CURSOR").await;
    refused(FETCH, &ended, "EXHAUSTED_CURSOR").await;

    let other = stage.dep.issue_token("Other Server");
    let mut theirs = stage.signing();
    theirs.token = other;
    let session = stage.ask_session(&theirs.header()).await.json()["auth_session_token"].clone();
    let body = json!({ "cursor": ended }).to_string();
    let answer = Answer::of(stage.post(SYNC, session.as_str().unwrap(), &body)).await;
    assert!(
        answer.is(400, "INVALID_CURSOR"),
        "a cursor of another server"
    );

    stage.clock.advance(3599);
    page(&stage, SYNC, json!({ "cursor": ended })).await;
    stage.clock.advance(1);
    refused(SYNC, &ended, "EXPIRED_CURSOR").await;
    let fresh = page(&stage, FETCH, json!({})).await["cursor"].clone();
    stage.dep.expire_cursors();
    refused(SYNC, &fresh, "EXPIRED_CURSOR").await;
    stage.dep.set_quoted_errors(true);
    refused(SYNC, &fresh, "\"EXPIRED_CURSOR\"").await;
}

#[tokio::test]
async fn t27_a_record_has_the_numbers_of_the_protocol_that_is_spoken() {
    let stage = stage().await;
    let device = DepDevice {
        asset_tag: "A-7".to_owned(),
        eid: Some("89049032000001000000000000000000".to_owned()),
        is_replacement_device: true,
        mdm_migration_deadline: Some("2027-03-01T00:00:00Z".to_owned()),
        ..DepDevice::new(SERIAL, "iPhone XR")
            .with_imeis(["353000000000001", "353000000000002"])
            .with_meids(["35300000000000"])
    };
    stage.dep.assign(&stage.token, device);
    let record = async |protocol: &str| {
        let session = stage.session().await;
        let request = stage
            .bare("POST", FETCH)
            .header("user-agent", "sim-tests/1.0")
            .header("content-type", crate::dep_client::JSON)
            .header("x-server-protocol-version", protocol)
            .header("x-adm-auth-session", session)
            .body("{}");
        Answer::of(request).await.json()["devices"][0].clone()
    };
    let ten = record("10").await;
    assert_eq!(
        ten,
        json!({
            "serial_number": SERIAL, "model": "iPhone XR", "description": "IPHONE XR", "color": "SPACE GRAY",
            "asset_tag": "A-7", "device_assigned_by": "admin@school.example",
            "device_assigned_date": "2027-01-15T08:00:00Z", "device_family": "iPhone", "os": "iOS",
            "profile_status": "empty", "imei": ["353000000000001", "353000000000002"], "meid": ["35300000000000"],
            "eid": "89049032000001000000000000000000", "is_replacement_device": true,
            "released_by_replacement": false, "mdm_migration_deadline": "2027-03-01T00:00:00Z",
        })
    );
    let nine = record("9").await;
    for key in [
        "imei",
        "meid",
        "eid",
        "is_replacement_device",
        "released_by_replacement",
    ] {
        assert!(nine.get(key).is_none(), "{key}");
    }
    assert!(nine.get("mdm_migration_deadline").is_some());
    assert!(record("7").await.get("mdm_migration_deadline").is_none());
}

#[tokio::test]
async fn details_are_told_of_the_devices_that_are_assigned() {
    let stage = stage().await;
    let answer = stage
        .call("/devices", &json!({ "devices": [SERIAL, "SIM9"] }))
        .await
        .json();
    assert_eq!(answer["devices"][SERIAL]["response_status"], "SUCCESS");
    assert_eq!(answer["devices"][SERIAL]["model"], "iPad Air");
    assert_eq!(
        answer["devices"]["SIM9"],
        json!({ "response_status": "NOT_ACCESSIBLE" })
    );
}
