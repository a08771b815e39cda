//! Turning the lock on through the enrolment service.

use std::time::Duration;

use serde_json::{Value, json};
use sim::{Code, DepDevice, DepFault, DepOptions, Gate, LockKind, apple::Answered};

use crate::{
    dep_client::{Answer, Stage, stage, stage_with},
    support::{CODE, OTHER_CODE, SERIAL, good_client, status, unlock},
};

fn hash(code: &str) -> String {
    Code::parse(code).unwrap().hash().hex()
}

/// Whether the code opens the iPad's lock at the unlock service.
async fn opens(stage: &Stage, code: &str) -> bool {
    status(unlock(&stage.apple, &good_client(&stage.apple), code)).await == 200
}

#[tokio::test]
async fn t3_a_lock_opens_with_the_code_whose_hash_was_sent_in_either_case() {
    let stage = stage().await;
    for hash in [hash(CODE), hash(CODE).to_lowercase()] {
        assert_eq!(stage.lock_status(SERIAL, &hash).await, "SUCCESS");
        assert_eq!(stage.apple.lock_state(SERIAL), Some(LockKind::Mdm));
        let locked = stage.dep.calls_for(SERIAL).pop().unwrap();
        assert!(locked.locked && locked.response_status.as_deref() == Some("SUCCESS"));
        assert!(!opens(&stage, OTHER_CODE).await);
        assert!(opens(&stage, CODE).await);
        assert_eq!(stage.apple.lock_state(SERIAL), None);
    }
}

#[tokio::test]
async fn t5_the_first_lock_wins_whoever_turns_it_on() {
    let stage = stage().await;
    assert_eq!(stage.lock_status(SERIAL, &hash(CODE)).await, "SUCCESS");
    let again = stage.lock_status(SERIAL, &hash(OTHER_CODE)).await;
    assert_eq!(again, "DEVICE_ALREADY_LOCKED");
    assert!(stage.apple.user_lock(SERIAL, OTHER_CODE).is_err());
    assert!(
        !opens(&stage, OTHER_CODE).await,
        "the second hash was not adopted"
    );
    assert!(opens(&stage, CODE).await);

    stage.apple.user_lock(SERIAL, CODE).unwrap();
    let refused = stage.lock_status(SERIAL, &hash(OTHER_CODE)).await;
    assert_eq!(refused, "DEVICE_ALREADY_LOCKED");
    assert_eq!(stage.apple.lock_state(SERIAL), Some(LockKind::User));
}

#[tokio::test]
async fn t5_every_status_and_invented_ones() {
    let stage = stage().await;
    let told = [
        "ORG_NOT_SUPPORTED",
        "DEVICE_NOT_SUPPORTED",
        "FAILED",
        "SUCCESS",
        "SOMETHING_NEW",
    ];
    for status in told {
        stage.dep.refuse_lock(SERIAL, Some(status));
        assert_eq!(stage.lock_status(SERIAL, &hash(CODE)).await, status);
        assert_eq!(stage.apple.lock_state(SERIAL), None, "{status}");
        assert!(!stage.dep.calls_for(SERIAL).pop().unwrap().locked);
    }
    stage.dep.refuse_lock(SERIAL, None);
    let unknown = stage.lock_status("SIMTEST00009", &hash(CODE)).await;
    assert_eq!(unknown, "NOT_ACCESSIBLE");
    stage
        .dep
        .assign(&stage.token, DepDevice::new("SIMTEST00009", "iPad Air"));
    let nowhere = stage.lock_status("SIMTEST00009", &hash(CODE)).await;
    assert_eq!(nowhere, "FAILED", "Apple's table does not know it");
    stage.dep.unassign(&stage.token, SERIAL);
    assert_eq!(
        stage.lock_status(SERIAL, &hash(CODE)).await,
        "NOT_ACCESSIBLE"
    );
}

#[tokio::test]
async fn t5_a_mac_is_not_locked_unless_the_fake_is_told_so() {
    for (locks_macs, expected) in [(false, "DEVICE_NOT_SUPPORTED"), (true, "SUCCESS")] {
        let stage = stage_with(DepOptions {
            locks_macs,
            ..DepOptions::default()
        })
        .await;
        stage
            .dep
            .assign(&stage.token, DepDevice::new(SERIAL, "MacBook Pro"));
        assert_eq!(stage.lock_status(SERIAL, &hash(CODE)).await, expected);
    }
}

#[tokio::test]
async fn only_the_server_it_is_assigned_to_locks_a_device() {
    let stage = stage().await;
    let other = stage.dep.issue_token("Other Server");
    stage.dep.unassign(&stage.token, SERIAL);
    stage.dep.assign(&other, DepDevice::new(SERIAL, "iPad Air"));
    assert_eq!(
        stage.lock_status(SERIAL, &hash(CODE)).await,
        "NOT_ACCESSIBLE"
    );
}

#[tokio::test]
async fn t8_the_body_holds_a_device_a_hash_and_perhaps_a_message() {
    let stage = stage().await;
    let hash = hash(CODE);
    for (what, body) in [
        ("nothing", json!({})),
        ("the values alone", json!([SERIAL, hash])),
        ("no device", json!({ "escrow_key": hash })),
        (
            "an empty device",
            json!({ "device": "", "escrow_key": hash }),
        ),
        (
            "two devices",
            json!({ "device": "A,B", "escrow_key": hash }),
        ),
        ("a list", json!({ "device": [SERIAL], "escrow_key": hash })),
        (
            "another key",
            json!({ "device": SERIAL, "escrow_key": hash, "color": "red" }),
        ),
        (
            "another case",
            json!({ "device": SERIAL, "escrowKey": hash }),
        ),
        ("the code", json!({ "device": SERIAL, "escrow_key": CODE })),
        (
            "half a hash",
            json!({ "device": SERIAL, "escrow_key": hash[..32] }),
        ),
        (
            "more than a hash",
            json!({ "device": SERIAL, "escrow_key": format!("{hash}00") }),
        ),
        (
            "no hexadecimal",
            json!({ "device": SERIAL, "escrow_key": hash.replace('A', "G") }),
        ),
        (
            "null",
            json!({ "device": SERIAL, "escrow_key": Value::Null }),
        ),
        (
            "an empty hash",
            json!({ "device": SERIAL, "escrow_key": "" }),
        ),
        (
            "a message that is a number",
            json!({ "device": SERIAL, "escrow_key": hash, "lost_message": 5 }),
        ),
    ] {
        let answer = stage.call("/device/activationlock", &body).await;
        assert!(answer.is(400, "MALFORMED_REQUEST_BODY"), "{what}");
    }
    let session = stage.session().await;
    let twice =
        format!("{{\"device\":\"{SERIAL}\",\"device\":\"{SERIAL}\",\"escrow_key\":\"{hash}\"}}");
    let answer = Answer::of(stage.post("/device/activationlock", &session, &twice)).await;
    assert!(answer.is(400, "MALFORMED_REQUEST_BODY"), "a key twice");
    assert_eq!(stage.apple.lock_state(SERIAL), None);

    let body = json!({ "device": SERIAL, "escrow_key": hash, "lost_message": "Please return it" });
    assert_eq!(
        stage.call("/device/activationlock", &body).await.status,
        200
    );
    let call = stage.dep.calls_for(SERIAL).pop().unwrap();
    assert_eq!(call.lost_message.as_deref(), Some("Please return it"));
    assert_eq!(call.escrow_key_fingerprint, Some(sim::fingerprint(&hash)));
    assert_eq!(call.protocol_version.as_deref(), Some("10"));
    assert_eq!(call.user_agent.as_deref(), Some("sim-tests/1.0"));
}

#[tokio::test]
async fn a_lock_without_a_hash_is_one_that_no_code_opens() {
    let stage = stage().await;
    let answer = stage
        .call("/device/activationlock", &json!({ "device": SERIAL }))
        .await;
    assert_eq!(answer.json()["response_status"], "SUCCESS");
    assert_eq!(stage.apple.lock_state(SERIAL), Some(LockKind::Mdm));
    assert!(!opens(&stage, CODE).await);
    let call = stage.dep.calls_for(SERIAL).pop().unwrap();
    assert_eq!(call.escrow_key_fingerprint, None);
    assert!(call.note.contains("tied to the person"), "{}", call.note);
}

#[tokio::test]
async fn t7_the_lock_is_on_though_its_answer_was_lost() {
    let stage = stage().await;
    stage.dep.push_fault(
        DepFault::drop_after_commit()
            .on("/device/activationlock")
            .for_serial(SERIAL),
    );
    let session = stage.session().await;
    let body = json!({ "device": SERIAL, "escrow_key": hash(CODE) }).to_string();
    let lost = stage
        .post("/device/activationlock", &session, &body)
        .send()
        .await;
    assert!(lost.is_err());
    assert_eq!(stage.apple.lock_state(SERIAL), Some(LockKind::Mdm));
    let call = stage.dep.calls_for(SERIAL).pop().unwrap();
    assert!(call.locked && call.answered == Answered::HungUp);
    assert_eq!(call.fault, Some("drop_after_commit"));
    assert_eq!(
        stage.lock_status(SERIAL, &hash(CODE)).await,
        "DEVICE_ALREADY_LOCKED"
    );
    assert!(opens(&stage, CODE).await);
}

#[tokio::test]
async fn t6_faults_that_do_not_commit_leave_the_lock_off() {
    let stage = stage().await;
    stage.dep.push_fault(
        DepFault::status(503)
            .retry_after("7")
            .on("/device/activationlock"),
    );
    let session = stage.session().await;
    let body = json!({ "device": SERIAL, "escrow_key": hash(CODE) }).to_string();
    let answer = stage
        .post("/device/activationlock", &session, &body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 503);
    assert_eq!(answer.headers()["retry-after"], "7");
    assert!(answer.headers().get("x-adm-auth-session").is_none());
    stage.dep.push_fault(DepFault::drop_before());
    assert!(
        stage
            .post("/device/activationlock", &session, &body)
            .send()
            .await
            .is_err()
    );
    stage.dep.push_fault(DepFault::garbage());
    assert!(
        stage
            .post("/device/activationlock", &session, &body)
            .send()
            .await
            .is_err()
    );
    stage
        .dep
        .push_fault(DepFault::status(400).body("USER_AGENT_INVALID"));
    let answer = Answer::of(stage.post("/device/activationlock", &session, &body)).await;
    assert!(answer.is(400, "USER_AGENT_INVALID"));
    assert_eq!(stage.apple.lock_state(SERIAL), None);
    let calls = stage.dep.calls_for(SERIAL);
    assert!(
        calls
            .iter()
            .all(|call| !call.locked && call.response_status.is_none())
    );

    stage.dep.push_fault(DepFault::status(500).committing());
    assert_eq!(
        Answer::of(stage.post("/device/activationlock", &session, &body))
            .await
            .status,
        500
    );
    assert_eq!(stage.apple.lock_state(SERIAL), Some(LockKind::Mdm));
    assert_eq!(stage.dep.faults_waiting(), 0);
}

#[tokio::test]
async fn faults_wait_for_their_path_and_device() {
    let stage = stage().await;
    stage.dep.push_fault(DepFault::status(500).on("/account"));
    stage
        .dep
        .push_fault(DepFault::status(501).for_serial("SIMTEST00009"));
    assert_eq!(stage.lock_status(SERIAL, &hash(CODE)).await, "SUCCESS");
    assert_eq!(stage.lock("SIMTEST00009", &hash(CODE)).await.status, 501);
    let session = stage.session().await;
    assert_eq!(
        Answer::of(stage.get("/account", &session)).await.status,
        500
    );
    stage
        .dep
        .push_fault(DepFault::delay(Duration::from_millis(1)).times(2));
    stage.dep.clear_faults();
    assert_eq!(stage.dep.faults_waiting(), 0);

    stage.dep.push_fault(DepFault::huge_body().on("/account"));
    let huge = Answer::of(stage.get("/account", &session)).await;
    assert_eq!((huge.status, huge.body.len()), (200, 5 * 1024 * 1024));
    stage
        .dep
        .push_fault(DepFault::echo(403).on("/device/activationlock"));
    let echo = stage.lock(SERIAL, &hash(OTHER_CODE)).await;
    assert!(echo.status == 403 && echo.body.contains(&hash(OTHER_CODE)));
}

#[tokio::test]
async fn a_session_whose_answer_was_lost_exists_all_the_same() {
    let stage = stage().await;
    let first = stage.session().await;
    stage
        .dep
        .push_fault(DepFault::drop_after_commit().on("/session"));
    let request = stage
        .request("GET", "/session")
        .header("authorization", stage.signing().header());
    assert!(request.send().await.is_err());
    assert_eq!(stage.dep.sessions(), 2);
    assert_eq!(Answer::of(stage.get("/account", &first)).await.status, 401);
}

#[tokio::test]
async fn a_lock_is_worked_on_though_nobody_waits_any_more() {
    let stage = stage().await;
    let gate = Gate::new();
    stage.dep.push_fault(DepFault::hold(&gate).on("/device"));
    let session = stage.session().await;
    let body = json!({ "device": SERIAL, "escrow_key": hash(CODE) }).to_string();
    let sent = tokio::spawn(stage.post("/device/activationlock", &session, &body).send());
    stage
        .dep
        .journal()
        .wait_for("the lock call", |calls| calls.len() == 2)
        .await;
    sent.abort();
    assert_eq!(stage.apple.lock_state(SERIAL), None);
    gate.open();
    stage
        .dep
        .journal()
        .wait_for("the lock", |calls| calls[1].locked)
        .await;
    assert_eq!(stage.apple.lock_state(SERIAL), Some(LockKind::Mdm));
}

#[tokio::test]
async fn it_goes_offline_and_comes_back_at_the_same_address() {
    let stage = stage().await;
    let session = stage.session().await;
    stage.dep.go_offline().await;
    assert!(stage.get("/account", &session).send().await.is_err());
    stage.dep.come_back().await;
    assert_eq!(
        Answer::of(stage.get("/account", &session)).await.status,
        200
    );
    stage.dep.stop().await;
    assert!(stage.get("/account", &session).send().await.is_err());
}
