//! The fake NanoMDM: commands in, webhooks out, and its faults.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use sim::{
    ApiFault, Device, DeviceSpec, Gate, Kind, LockKind, NanoMdm, NanoMdmOptions, SIM_TOPIC,
    Webhook, WebhookFault,
    nanomdm::{CommandState, Delivery, Flavour, WebhookForm},
};

use crate::support::{
    CODE, OTHER_CODE, SERIAL, call, command, enqueue, plain, status, trio, whole_story,
};

fn iphone(mdm: &NanoMdm, apple: &sim::Apple) -> Device {
    Device::new(DeviceSpec::new("SIMPHONE0001", Kind::Iphone, 1), mdm, apple)
}

async fn json(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (
        status,
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap(),
    )
}

#[tokio::test]
async fn a_command_goes_in_and_its_answer_comes_out() {
    let (apple, mdm, receiver) = trio().await;
    let device = iphone(&mdm, &apple);
    device.enrol();
    let id = device.enrollment_id();
    let request = call(&mdm, Method::PUT, &format!("/enqueue/{id}")).body(command(
        "U-1",
        "ActivationLockBypassCode",
        "",
    ));
    let (status, body) = json(request).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["command_uuid"], "U-1");
    assert_eq!(body["request_type"], "ActivationLockBypassCode");
    assert!(body["status"][&id]["push_result"].is_string(), "{body}");
    assert_eq!(mdm.take_pushed(), std::slice::from_ref(&id));
    assert_eq!(device.poll(), 1);
    mdm.webhooks_settled().await;
    assert_eq!(
        receiver.topics(),
        [
            "mdm.Authenticate",
            "mdm.TokenUpdate",
            "mdm.Connect",
            "mdm.Connect"
        ]
    );
    let all = receiver.all();
    let token_update = all[1].json();
    assert_eq!(token_update["checkin_event"]["token_update_tally"], 1);
    assert_eq!(
        token_update["checkin_event"]["ids"],
        json!({ "id": id, "type": "Device" })
    );
    assert_eq!(token_update["checkin_event"]["udid"], id);
    assert!(
        all[0].json()["checkin_event"]
            .get("token_update_tally")
            .is_none()
    );
    assert!(token_update["created_at"].as_str().unwrap().ends_with('Z'));
    let idle = all[2].json();
    assert_eq!(idle["acknowledge_event"]["status"], "Idle");
    assert!(idle["acknowledge_event"].get("command_uuid").is_none());
    let answer = all[3].json();
    assert_eq!(answer["acknowledge_event"]["status"], "Acknowledged");
    assert_eq!(answer["acknowledge_event"]["command_uuid"], "U-1");
    let payload = all[3].payload();
    let told = payload
        .get("ActivationLockBypassCode")
        .and_then(|code| code.as_string());
    assert!(
        told == Some(device.code_text().as_str()),
        "the answer holds the device's code"
    );
    assert_eq!(
        mdm.commands().all()[0].state,
        CommandState::Answered("Acknowledged".to_owned())
    );
    assert!(all.iter().all(|one| one.signature.is_none()));
}

#[tokio::test]
async fn r22_webhooks_are_signed_over_the_raw_body() {
    let (apple, mdm, receiver) = trio().await;
    mdm.set_webhook(Some(Webhook::new(&receiver.url, Some(b"key"))));
    iphone(&mdm, &apple).enrol();
    mdm.webhooks_settled().await;
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
    for one in receiver.all() {
        let signature = STANDARD.decode(one.signature.as_ref().unwrap()).unwrap();
        assert!(hmac::verify(&key, &one.body, &signature).is_ok());
    }
}

#[tokio::test]
async fn unknown_enrollments_bad_plists_and_used_uuids_are_errors_in_nanomdms_form() {
    let (apple, mdm, _) = trio().await;
    let device = iphone(&mdm, &apple);
    device.enrol();
    let id = device.enrollment_id();
    let put = |path: String, body: String| json(call(&mdm, Method::PUT, &path).body(body));
    let (status, body) = put(
        "/enqueue/NOBODY".to_owned(),
        command("U-1", "SecurityInfo", ""),
    )
    .await;
    assert_eq!(status, 500);
    assert!(
        body["status"]["NOBODY"]["command_error"].is_string(),
        "{body}"
    );
    let (status, body) = put(
        format!("/enqueue/NOBODY,{id}"),
        command("U-2", "SecurityInfo", ""),
    )
    .await;
    assert_eq!(status, 207);
    assert!(
        body["status"]["NOBODY"]["command_error"].is_string()
            && body["status"][&id]["push_result"].is_string()
    );
    let (status, body) = put(format!("/enqueue/{id}"), command("U-2", "SecurityInfo", "")).await;
    assert_eq!(status, 500);
    assert!(
        body["command_error"]
            .as_str()
            .unwrap()
            .contains("Duplicate"),
        "{body}"
    );
    for bad in [
        "",
        "rubbish",
        "<plist><dict/></plist>",
        &command("", "SecurityInfo", ""),
        &command("U-3", "", ""),
    ] {
        let (status, body) = put(format!("/enqueue/{id}"), bad.to_owned()).await;
        assert_eq!(status, 500);
        assert!(body["command_error"].is_string(), "{body}");
    }
    let (status, body) = put(
        format!("/enqueue/{id}?nopush=1"),
        command("U-4", "SecurityInfo", ""),
    )
    .await;
    assert_eq!((status, &body["no_push"]), (200, &json!(true)));
    assert!(body.get("status").is_none(), "{body}");
    assert_eq!(mdm.queue(&id).len(), 2);
}

#[tokio::test]
async fn the_key_and_the_user_are_checked() {
    let (_, mdm, _) = trio().await;
    let url = format!("{}/push/X", mdm.api_url());
    for (user, key) in [("nanomdm", "wrong"), ("nanohub", "sim-api-key")] {
        assert_eq!(
            status(plain().put(&url).basic_auth(user, Some(key))).await,
            401
        );
    }
    assert_eq!(status(plain().put(&url)).await, 401);
    assert_eq!(
        status(plain().get(format!("{}/version", mdm.url()))).await,
        200
    );
    assert_eq!(
        status(call(&mdm, Method::PUT, "/push/X")).await,
        500,
        "nobody to push to"
    );
}

#[tokio::test]
async fn nanohub_has_its_own_prefix_and_user() {
    let options = NanoMdmOptions {
        flavour: Flavour::NanoHub,
        ..NanoMdmOptions::default()
    };
    let mdm = NanoMdm::start(options).await.unwrap();
    assert!(mdm.api_url().ends_with("/api/v1/nanomdm"));
    assert_eq!(
        status(call(&mdm, Method::PUT, "/enqueue/X").body(command("U", "SecurityInfo", ""))).await,
        500
    );
    let elsewhere = plain()
        .put(format!("{}/v1/enqueue/X", mdm.url()))
        .basic_auth("nanohub", Some("sim-api-key"));
    assert_eq!(status(elsewhere).await, 404);
}

#[tokio::test]
async fn an_authenticate_empties_the_queue_and_stops_it_until_the_token_update() {
    let (apple, mdm, _) = trio().await;
    let device = iphone(&mdm, &apple);
    device.enrol();
    let id = device.enrollment_id();
    enqueue(&mdm, &id, "U-1", "SecurityInfo", "").await;
    device.authenticate();
    assert!(!mdm.is_enabled(&id));
    assert!(mdm.queue(&id).is_empty());
    assert_eq!(mdm.commands().all()[0].state, CommandState::Cleared);
    let (status, body) = json(
        call(&mdm, Method::PUT, &format!("/enqueue/{id}")).body(command("U-2", "SecurityInfo", "")),
    )
    .await;
    assert_eq!(
        status, 207,
        "queued, but there is nobody to push to: {body}"
    );
    device.token_update();
    assert_eq!(device.poll(), 1);
}

#[tokio::test]
async fn not_now_leaves_the_command_and_lets_the_next_pass() {
    let (apple, mdm, receiver) = trio().await;
    let device = iphone(&mdm, &apple);
    device.enrol();
    let id = device.enrollment_id();
    enqueue(&mdm, &id, "U-1", "ActivationLockBypassCode", "").await;
    enqueue(&mdm, &id, "U-2", "SecurityInfo", "").await;
    device.not_now(1);
    // U-1 is put off, U-2 answered; then, no longer right after a NotNow, U-1 comes again.
    assert_eq!(device.poll(), 3);
    mdm.webhooks_settled().await;
    let told: Vec<_> = receiver
        .all()
        .iter()
        .skip(3)
        .map(|one| one.json()["acknowledge_event"].clone())
        .collect();
    let told: Vec<_> = told
        .iter()
        .map(|event| (event["command_uuid"].as_str(), event["status"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (Some("U-1"), Some("NotNow")),
            (Some("U-2"), Some("Acknowledged")),
            (Some("U-1"), Some("Acknowledged"))
        ]
    );
    assert_eq!(mdm.commands().all()[0].not_now, 1);
}

#[tokio::test]
async fn webhooks_are_dropped_doubled_swapped_held_and_replayed_on_demand() {
    let (apple, mdm, receiver) = trio().await;
    let device = iphone(&mdm, &apple);
    mdm.push_webhook_fault(WebhookFault::drop().for_topic("mdm.Authenticate"));
    device.enrol();
    mdm.push_webhook_fault(WebhookFault::duplicate().for_id(device.enrollment_id()));
    device.poll();
    mdm.webhooks_settled().await;
    assert_eq!(
        receiver.topics(),
        ["mdm.TokenUpdate", "mdm.Connect", "mdm.Connect"]
    );
    assert_eq!(receiver.all()[1].body, receiver.all()[2].body);
    mdm.push_webhook_fault(WebhookFault::swap_with_next());
    device.set_bootstrap_token();
    device.poll();
    mdm.webhooks_settled().await;
    assert_eq!(
        receiver.topics()[3..],
        ["mdm.Connect", "mdm.SetBootstrapToken"]
    );
    mdm.push_webhook_fault(WebhookFault::hold());
    device.check_out();
    mdm.webhooks_settled().await;
    assert_eq!(receiver.topics().len(), 5);
    mdm.release_webhooks();
    mdm.webhooks_settled().await;
    assert_eq!(receiver.topics()[5..], ["mdm.CheckOut"]);
    assert!(mdm.replay_webhook(1));
    mdm.webhooks_settled().await;
    assert_eq!(receiver.topics()[6..], ["mdm.TokenUpdate"]);
    let journal = mdm.webhooks().all();
    assert_eq!(journal[0].delivery, Delivery::Dropped);
    assert_eq!(journal.last().unwrap().repeats, Some(1));
}

#[tokio::test]
async fn a_refused_or_unreachable_webhook_is_never_sent_again() {
    let (apple, mdm, receiver) = trio().await;
    receiver.answer(500);
    let device = iphone(&mdm, &apple);
    device.enrol();
    mdm.webhooks_settled().await;
    assert_eq!(receiver.topics().len(), 2);
    assert!(
        mdm.webhooks()
            .all()
            .iter()
            .all(|sent| sent.delivery == Delivery::Answered(500))
    );
    mdm.set_webhook(Some(Webhook::new("http://127.0.0.1:1/secret-path", None)));
    device.poll();
    mdm.webhooks_settled().await;
    let Some(Delivery::Failed(why)) = mdm.webhooks().all().pop().map(|sent| sent.delivery) else {
        panic!("nobody listens there");
    };
    assert!(!why.contains("secret-path"), "{why}");
    mdm.set_webhook(None);
    device.poll();
    assert_eq!(
        mdm.webhooks().count(),
        3,
        "without a receiver there is no webhook"
    );
}

#[tokio::test]
async fn older_and_other_forms_of_the_webhook() {
    let (apple, mdm, receiver) = trio().await;
    let device = iphone(&mdm, &apple);
    let signed = Webhook::new(&receiver.url, Some(b"key"));
    mdm.set_webhook(Some(signed.clone().in_form(WebhookForm::NanoMdm08)));
    device.enrol();
    device.poll();
    mdm.set_webhook(Some(signed.in_form(WebhookForm::MicroMdm)));
    device.enrol();
    mdm.webhooks_settled().await;
    let all = receiver.all();
    assert!(
        all.iter().all(|one| one.signature.is_none()),
        "neither can sign"
    );
    let old = all[1].json();
    assert!(old["checkin_event"].get("ids").is_none() && old.get("event_id").is_none());
    assert_eq!(old["checkin_event"]["token_update_tally"], 1);
    assert_eq!(all[2].json()["acknowledge_event"]["command_uuid"], "");
    let micro = all[4].json();
    assert_eq!(micro["event_id"].as_str().map(str::len), Some(36));
    let event = &micro["checkin_event"];
    assert!(event.get("ids").is_none() && event.get("token_update_tally").is_none());
    assert_eq!(event.get("url_params"), Some(&Value::Null));
    assert!(all[4].body.contains(&b'\n'), "indented");
    let with_ids = Webhook {
        event_ids: true,
        ..receiver.webhook()
    };
    mdm.set_webhook(Some(with_ids));
    device.poll();
    mdm.webhooks_settled().await;
    assert!(receiver.all().pop().unwrap().json()["event_id"].is_string());
}

#[tokio::test]
async fn the_api_fails_on_demand() {
    let (apple, mdm, _) = trio().await;
    let device = iphone(&mdm, &apple);
    device.enrol();
    let id = device.enrollment_id();
    let put = |uuid: &str| {
        call(&mdm, Method::PUT, &format!("/enqueue/{id}")).body(command(uuid, "SecurityInfo", ""))
    };
    mdm.push_api_fault(ApiFault::hang_up().for_path("enqueue"));
    assert_eq!(
        status(plain().get(format!("{}/version", mdm.url()))).await,
        200,
        "a fault waits for its path"
    );
    assert!(put("U-1").send().await.is_err());
    assert!(mdm.queue(&id).is_empty());
    mdm.push_api_fault(ApiFault::lose_answer());
    assert!(put("U-1").send().await.is_err());
    assert_eq!(mdm.queue(&id).len(), 1, "queued, but nobody was told");
    assert_eq!(status(put("U-1")).await, 500, "so it is a duplicate now");
    mdm.push_api_fault(ApiFault::status(503));
    mdm.push_api_fault(ApiFault::reject_key());
    assert_eq!(status(put("U-2")).await, 503);
    assert_eq!(status(put("U-2")).await, 401);
    let gate = Gate::new();
    mdm.push_api_fault(ApiFault::hold(&gate));
    let waiting = tokio::spawn(status(put("U-2")));
    mdm.calls()
        .wait_for("the call", |calls| calls.len() == 7)
        .await;
    assert_eq!(mdm.queue(&id).len(), 1);
    gate.open();
    assert_eq!(waiting.await.unwrap(), 200);
    mdm.go_offline().await;
    let error = put("U-3").send().await.unwrap_err();
    assert!(error.is_connect(), "{}", whole_story(&error));
    mdm.come_back().await;
    assert_eq!(status(put("U-3")).await, 200);
    assert_eq!(mdm.wait_for_command(&id, "SecurityInfo").await.uuid, "U-3");
}

fn unlock_form(code: &str, topic: &str) -> String {
    format!(
        "topic={topic}&serial={SERIAL}&productType=iPad4%2C1&escrowKey={code}&orgName=Example&guid=anna"
    )
}

#[tokio::test]
async fn r19_the_unlock_is_passed_on_to_apple_with_the_stored_certificate() {
    let (apple, mdm, _) = trio().await;
    apple.user_lock(SERIAL, CODE).unwrap();
    let unlock = |body: String| {
        call(&mdm, Method::POST, "/escrowkeyunlock")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
    };
    let (status_without, body) = json(unlock(unlock_form(CODE, SIM_TOPIC))).await;
    assert_eq!(status_without, 500, "no certificate yet");
    assert!(body["error"].is_string());
    let certificate = apple.push_certificate(SIM_TOPIC);
    let (stored, body) =
        json(call(&mdm, Method::PUT, "/pushcert").body(certificate.bundle_pem())).await;
    assert_eq!((stored, body["topic"].as_str()), (200, Some(SIM_TOPIC)));
    assert!(body["not_after"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        status(unlock("topic=x&serial=y".to_owned())).await,
        400,
        "NanoMDM's own 400"
    );
    assert_eq!(
        status(unlock(unlock_form(OTHER_CODE, SIM_TOPIC))).await,
        404
    );
    apple.push_fault(sim::Fault::status(503).retry_after("9").body("later"));
    let answer = unlock(unlock_form(CODE, SIM_TOPIC)).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 503);
    assert!(
        answer.headers().get("retry-after").is_none(),
        "Apple's headers are lost"
    );
    assert_eq!(answer.text().await.unwrap(), "later");
    assert_eq!(apple.lock_state(SERIAL), Some(LockKind::User));
    assert_eq!(status(unlock(unlock_form(CODE, SIM_TOPIC))).await, 200);
    assert_eq!(apple.lock_state(SERIAL), None);
    let last = apple.calls_for(SERIAL).pop().unwrap();
    assert_eq!(
        (last.topic.as_deref(), last.guid.as_deref()),
        (Some(SIM_TOPIC), Some("anna"))
    );
    apple.go_offline().await;
    let (status, body) = json(unlock(unlock_form(CODE, SIM_TOPIC))).await;
    assert_eq!(status, 500);
    assert!(!body["error"].as_str().unwrap().contains(SERIAL), "{body}");
}
