//! Devices, through the API.

use escrow::permit::{Permissions, Scope};
use serde_json::{Value, json};
use sim::Kind;

use crate::api::{Answer, Client, another_organisation, token_of, without_certificate};
use crate::support::{CODE_A, Stage};

fn serials(page: &Answer) -> Vec<String> {
    assert_eq!(page.status, 200, "{page:?}");
    let page = page.json();
    let items = page["items"].as_array().unwrap().iter();
    items
        .map(|row| row["serial"].as_str().unwrap().to_owned())
        .collect()
}

async fn made_known(client: &Client, serial: &str, product_type: &str) {
    let body = json!({ "product_type": product_type });
    let answer = client.patch(&format!("/v1/devices/{serial}"), body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_list_comes_in_pages() {
    let stage = Stage::new().await;
    let admin = Client::with(&stage, &["admin"]).await;
    for number in 1..=5 {
        made_known(&admin, &format!("SIM{number}"), "iPad4,1").await;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/devices?limit=2".to_owned();
    for pages in 1.. {
        let page = admin.get(&path).await;
        seen.extend(serials(&page));
        match page.json()["next"].as_str() {
            Some(cursor) => path = format!("/v1/devices?limit=2&cursor={cursor}"),
            None => {
                assert_eq!(pages, 3);
                break;
            }
        }
    }
    assert_eq!(seen, ["SIM1", "SIM2", "SIM3", "SIM4", "SIM5"]);
    assert_eq!(
        serials(&admin.get("/v1/devices?cursor=SIM5").await).len(),
        0
    );
    assert_eq!(
        serials(&admin.get("/v1/devices?limit=65535").await).len(),
        5
    );
}

#[tokio::test]
async fn devices_are_found_by_the_beginning_of_a_word() {
    let stage = Stage::new().await;
    let admin = Client::with(&stage, &["admin"]).await;
    made_known(&admin, "SIMPAD1", "iPad4,1").await;
    made_known(&admin, "SIMPHONE1", "iPhone14,5").await;
    made_known(&admin, "OTHER1", "iPhone15,2").await;
    let found = async |query: &str| serials(&admin.get(&format!("/v1/devices?{query}")).await);
    assert_eq!(found("search=sim").await, ["SIMPAD1", "SIMPHONE1"]);
    assert_eq!(found("search=SIMP").await, ["SIMPAD1", "SIMPHONE1"]);
    assert_eq!(found("search=iphone").await, ["SIMPHONE1", "OTHER1"]);
    assert_eq!(found("search=iphone14").await, ["SIMPHONE1"]);
    assert_eq!(found("search=phone").await, [""; 0]);
    assert_eq!(found("product_type=iPad4%2C1").await, ["SIMPAD1"]);
    assert_eq!(found("coverage=missing").await.len(), 3);
    assert_eq!(found("coverage=covered").await.len(), 0);
    assert_eq!(found("closing=true").await.len(), 0);
}

#[tokio::test]
async fn a_device_is_shown_with_everything_but_its_codes_texts() {
    let stage = Stage::new().await;
    let device = stage.device("SIMPHONE0001", Kind::IphoneDualSim);
    device.enrol();
    stage.mdm.webhooks_settled().await;
    let admin = Client::with(&stage, &["admin", "reveal"]).await;
    let added = admin
        .post(
            "/v1/devices/SIMPHONE0001/codes",
            json!({ "text": CODE_A, "note": "ticket 7" }),
        )
        .await;
    assert_eq!(added.status, 201);
    let shown = admin.get("/v1/devices/SIMPHONE0001").await;
    assert_eq!(shown.status, 200);
    assert!(!shown.text().contains(CODE_A));
    let shown = shown.json();
    let summary = &shown["summary"];
    assert_eq!(summary["serial"], "SIMPHONE0001");
    assert_eq!(summary["organisation"], stage.organisation.as_str());
    assert_eq!(summary["connection"], "mdm");
    assert_eq!(summary["coverage"], "missing");
    let seen_at = summary["seen_at"].as_str().unwrap();
    assert!(
        seen_at.starts_with("2026-05-28T20:26:40.")
            && seen_at.ends_with('Z')
            && seen_at.len() == 24,
        "{seen_at}"
    );
    assert_eq!(shown["codes"][0]["origin"], "person");
    assert_eq!(shown["codes"][0]["shape"], "canonical");
    assert_eq!(shown["codes"][0]["note"], "ticket 7");
    assert_eq!(shown["codes"][0]["current"], false);
    assert_eq!(shown["epochs"][0]["connection"], "mdm");
    assert_eq!(shown["epochs"][0]["opened_by"], "authenticate");
    assert_eq!(shown["epochs"][0]["not_asked"], Value::Null);
    assert!(shown["window"]["to_do"].is_string());
    assert!(
        shown["timeline"]
            .as_array()
            .unwrap()
            .iter()
            .any(|line| line["what"] == "enrollment.opened")
    );
    let types: Vec<_> = shown["commands"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["type"].as_str().unwrap())
        .collect();
    assert!(types.contains(&"ActivationLockBypassCode"), "{types:?}");
}

#[tokio::test]
async fn r10_why_a_device_is_not_asked_is_said_in_words() {
    let stage = Stage::new().await;
    let device = stage.device("SIMTV0000001", Kind::AppleTv);
    device.enrol();
    stage.mdm.webhooks_settled().await;
    let client = Client::with(&stage, &["read"]).await;
    let shown = client.get("/v1/devices/SIMTV0000001").await.json();
    assert_eq!(shown["summary"]["coverage"], "exempt");
    assert_eq!(shown["window"], Value::Null);
    let not_asked = &shown["epochs"][0]["not_asked"];
    assert_eq!(not_asked["word"], "apple_tv");
    assert_eq!(
        not_asked["explanation"]["happened"],
        "The device is an Apple TV."
    );
}

#[tokio::test]
async fn r15_what_apple_demands_is_set_by_hand() {
    let stage = Stage::new().await;
    let admin = Client::with(&stage, &["admin"]).await;
    let path = "/v1/devices/SIMHAND1";
    let body = json!({ "product_type": "iPhone14,5", "imei": "35 882334 083223 0", "imei2": null });
    for _ in 0..2 {
        let answer = admin.patch(path, body.clone()).await;
        assert_eq!(answer.status, 200);
        let device = answer.json();
        assert_eq!(device["identity"]["product_type"], "iPhone14,5");
        assert_eq!(device["identity"]["imei"], "358823340832230");
        assert_eq!(device["identity"]["imei2"], Value::Null);
        assert_eq!(device["product_source"], "person");
        assert_eq!(device["cellular"]["source"], "person");
    }
    // What is left out stays as it is.
    let device = admin
        .patch(path, json!({ "meid": "a0-0000 0912 3456" }))
        .await
        .json();
    assert_eq!(device["identity"]["meid"], "A0000009123456");
    assert_eq!(device["identity"]["imei"], "358823340832230");

    for bad in [
        json!({}),
        json!({ "product_type": "iPhone XR" }),
        json!({ "imei": "12" }),
        json!({ "meid": 7 }),
    ] {
        let answer = admin.patch(path, bad.clone()).await;
        assert_eq!(answer.refusal(), (400, "bad-request".to_owned()), "{bad}");
    }
    let rows = admin
        .get("/v1/audit?subject=SIMHAND1&action=device.corrected")
        .await
        .json();
    assert_eq!(rows["items"].as_array().unwrap().len(), 3);
    assert_eq!(rows["items"][0]["actor"]["name"], "token for admin");
}

#[tokio::test]
async fn r5_a_device_of_another_organisation_is_not_there() {
    let stage = Stage::new().await;
    let other = another_organisation(&stage, "Other School").await;
    let ours = Client::with(&stage, &["admin", "reveal", "unlock", "connections"]).await;
    let token = token_of(&stage, Scope::One(other.clone()), Permissions::all()).await;
    let theirs = Client::new(&stage, &token);
    without_certificate(&stage).await;
    made_known(&ours, "SIMOURS1", "iPad4,1").await;
    let code = json!({ "text": CODE_A });
    ours.post("/v1/devices/SIMOURS1/codes", code).await;
    let unlock = ours
        .post("/v1/devices/SIMOURS1/unlock", json!({ "reason": "x" }))
        .await;
    assert_eq!(unlock.status, 202);
    let id = unlock.json()["id"].as_str().unwrap().to_owned();

    assert_eq!(serials(&theirs.get("/v1/devices").await).len(), 0);
    for path in ["/v1/devices/SIMOURS1", "/v1/devices/SIMOURS1/unlocks"] {
        assert_eq!(
            theirs.get(path).await.refusal(),
            (404, "unknown-device".to_owned()),
            "{path}"
        );
    }
    for verb in ["reveal", "refresh", "unlock"] {
        let path = format!("/v1/devices/SIMOURS1/{verb}");
        let answer = theirs.post(&path, json!({ "reason": "mine" })).await;
        // One unlock a serial number over all organisations (R16): that one is under way is said, whose it is is not.
        let expected = if verb == "unlock" {
            (409, "unlock-in-progress")
        } else {
            (404, "unknown-device")
        };
        assert_eq!(
            answer.refusal(),
            (expected.0, expected.1.to_owned()),
            "{verb}"
        );
        assert!(answer.json().get("unlock").is_none(), "{verb}");
    }
    let unknown = (404, "unknown-unlock".to_owned());
    assert_eq!(
        theirs.get(&format!("/v1/unlocks/{id}")).await.refusal(),
        unknown
    );
    assert_eq!(
        theirs.delete(&format!("/v1/unlocks/{id}")).await.refusal(),
        unknown
    );
    assert_eq!(
        theirs
            .post(&format!("/v1/unlocks/{id}/continue"), json!({}))
            .await
            .refusal(),
        unknown
    );
    assert_eq!(
        theirs.get("/v1/mdm/mdm").await.refusal(),
        (404, "unknown-connection".to_owned())
    );
    assert_eq!(
        theirs.delete("/v1/mdm/mdm").await.refusal(),
        (404, "unknown-connection".to_owned())
    );
    // Naming an organisation that the token is not for does not help.
    for named in [stage.organisation.as_str(), "Example%20School"] {
        let answer = theirs
            .get(&format!("/v1/devices/SIMOURS1?organisation={named}"))
            .await;
        assert_eq!(
            answer.refusal(),
            (404, "unknown-organisation".to_owned()),
            "{named}"
        );
    }
}

#[tokio::test]
async fn r5_a_serial_number_known_twice_needs_the_organisation_named() {
    let stage = Stage::new().await;
    let other = another_organisation(&stage, "Other School").await;
    let everywhere = Client::new(
        &stage,
        &token_of(&stage, Scope::All, Permissions::all()).await,
    );
    let named = |name: &str| format!("/v1/devices/SIMTWICE1?organisation={name}");
    let body = |product: &str| json!({ "product_type": product });
    assert_eq!(
        everywhere
            .patch(&named("Example%20School"), body("iPad4,1"))
            .await
            .status,
        200
    );

    // Known once, it needs no naming; a list does.
    assert_eq!(everywhere.get("/v1/devices/SIMTWICE1").await.status, 200);
    assert_eq!(
        everywhere.get("/v1/devices").await.refusal(),
        (409, "organisation-needed".to_owned())
    );
    assert_eq!(
        everywhere.get("/v1/devices/SIMNEVER1").await.refusal(),
        (404, "unknown-device".to_owned())
    );
    // What would make it known needs to say whose it is.
    for answer in [
        everywhere
            .patch("/v1/devices/SIMNEVER1", body("iPad4,1"))
            .await,
        everywhere
            .post("/v1/devices/SIMNEVER1/codes", json!({ "text": "x" }))
            .await,
    ] {
        assert_eq!(answer.refusal(), (409, "organisation-needed".to_owned()));
    }

    assert_eq!(
        everywhere
            .patch(&named(other.as_str()), body("iPad5,1"))
            .await
            .status,
        200
    );
    for (method, path) in [
        ("GET", "/v1/devices/SIMTWICE1"),
        ("PATCH", "/v1/devices/SIMTWICE1"),
        ("POST", "/v1/devices/SIMTWICE1/reveal"),
        ("POST", "/v1/devices/SIMTWICE1/codes"),
        ("POST", "/v1/devices/SIMTWICE1/refresh"),
        ("POST", "/v1/devices/SIMTWICE1/unlock"),
        ("GET", "/v1/devices/SIMTWICE1/unlocks"),
    ] {
        let answer = everywhere
            .ask(
                method.parse().unwrap(),
                path,
                Some(&json!({ "reason": "x" })),
            )
            .await;
        assert_eq!(
            answer.refusal(),
            (409, "ambiguous-device".to_owned()),
            "{method} {path}"
        );
        assert_eq!(
            answer.json()["organisations"],
            json!(["Example School", "Other School"])
        );
    }
    let shown = everywhere.get(&named("Other%20School")).await.json();
    assert_eq!(shown["identity"]["product_type"], "iPad5,1");

    // An unlock is found by its identifier alone.
    let path = "/v1/devices/SIMTWICE1/unlock?organisation=Other%20School";
    let unlock = everywhere.post(path, json!({ "reason": "x" })).await;
    let location = unlock.header("location").unwrap().to_owned();
    assert_eq!(
        everywhere.get(&location).await.json()["organisation"],
        other.as_str()
    );
}

#[tokio::test]
async fn a_connection_is_named_also_after_it_was_removed() {
    let mut stage = Stage::new().await;
    stage.another_mdm("second").await;
    let device = stage.device("SIMPHONE0001", Kind::Iphone);
    device.enrol();
    stage.mdm.webhooks_settled().await;
    let client = Client::with(&stage, &["admin", "connections"]).await;
    assert_eq!(
        serials(&client.get("/v1/devices?connection=mdm").await),
        ["SIMPHONE0001"]
    );
    assert_eq!(
        serials(&client.get("/v1/devices?connection=second").await).len(),
        0
    );
    let never = client.get("/v1/devices?connection=never").await;
    assert_eq!(never.refusal(), (404, "unknown-connection".to_owned()));

    assert_eq!(client.delete("/v1/mdm/mdm").await.status, 204);
    assert_eq!(
        client.delete("/v1/mdm/mdm").await.refusal(),
        (404, "unknown-connection".to_owned())
    );
    assert_eq!(
        serials(&client.get("/v1/devices?connection=mdm").await),
        ["SIMPHONE0001"]
    );
    let shown = client.get("/v1/devices/SIMPHONE0001").await.json();
    assert_eq!(shown["summary"]["connection"], "mdm");
    let names: Vec<_> = client.get("/v1/mdm").await.json()["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].clone())
        .collect();
    assert_eq!(names, ["second"]);
}

#[tokio::test]
async fn a_device_is_asked_again() {
    let stage = Stage::new().await;
    let device = stage.device("SIMPHONE0001", Kind::Iphone);
    device.enrol();
    stage.mdm.webhooks_settled().await;
    let client = Client::with(&stage, &["admin", "unlock"]).await;
    for _ in 0..2 {
        let answer = client
            .ask(
                reqwest::Method::POST,
                "/v1/devices/SIMPHONE0001/refresh",
                None,
            )
            .await;
        assert_eq!(answer.status, 202);
        assert_eq!(
            answer.json(),
            json!({ "serial": "SIMPHONE0001", "asked": true })
        );
    }
    made_known(&client, "SIMNOWHERE1", "iPad4,1").await;
    let nowhere = client
        .post("/v1/devices/SIMNOWHERE1/refresh", json!({}))
        .await;
    assert_eq!(nowhere.refusal(), (409, "not-enrolled".to_owned()));
    let unknown = client
        .post("/v1/devices/SIMNEVER1/refresh", json!({}))
        .await;
    assert_eq!(unknown.refusal(), (404, "unknown-device".to_owned()));
    let rows = client
        .get("/v1/audit?action=device.refresh&subject=SIMPHONE0001")
        .await
        .json();
    assert_eq!(rows["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn coverage_counts_devices() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["admin"]).await;
    let before = client.get("/v1/coverage").await.json();
    assert_eq!(
        before,
        json!({ "devices": 0, "covered": 0, "missing": 0, "closing": 0, "closed": 0, "exempt": 0 })
    );
    made_known(&client, "SIMPAD1", "iPad4,1").await;
    made_known(&client, "SIMPAD2", "iPad4,1").await;
    client
        .post("/v1/devices/SIMPAD2/codes", json!({ "text": CODE_A }))
        .await;
    let tv = stage.device("SIMTV0000001", Kind::AppleTv);
    tv.enrol();
    stage.mdm.webhooks_settled().await;
    let after = client.get("/v1/coverage").await.json();
    assert_eq!(after["devices"], 3);
    assert_eq!(
        (&after["covered"], &after["missing"], &after["exempt"]),
        (&json!(1), &json!(1), &json!(1))
    );
}
