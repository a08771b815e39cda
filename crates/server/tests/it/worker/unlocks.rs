//! Unlocks against the fake of Apple, over mutual TLS: R11 to R19.

use std::time::Duration;

use activation_lock::operation::StateName;
use activation_lock::time::Timestamp;
use activation_lock::unlock::{AttemptResult, Outcome, ReviewReason, WaitReason};
use apple::transport::Timeouts;
use escrow::connections::{ConnectionChange, UnlockVia};
use escrow::operations::{Enqueued, OperationView};
use escrow::push_certificates::NewPushCertificate;
use sim::nanomdm::Flavour;
use sim::{ApiFault, Fault, Gate, Kind, PushCertificateOptions, SIM_TOPIC};
use time::OffsetDateTime;

use crate::support::{CODE_A, CODE_B, Options, Stage, in_time};

const SERIAL: &str = "SIMTEST00001";

fn outcomes(view: &OperationView) -> Vec<Outcome> {
    let outcome = |result| match result {
        AttemptResult::Ended { outcome, .. } => Some(outcome),
        AttemptResult::InFlight | AttemptResult::Lost => None,
    };
    let ended = view
        .attempts
        .iter()
        .filter_map(|attempt| outcome(attempt.result));
    ended.collect()
}

/// Waits until an unlock waits for this.
async fn waits_for(stage: &Stage, id: &str, why: WaitReason) -> OperationView {
    let view = stage
        .operation_when(id, |view| {
            view.is_done()
                || (view.state == StateName::Waiting && view.details.waits_for == Some(why))
        })
        .await;
    assert_eq!(view.state, StateName::Waiting, "{:?}", view.details);
    view
}

/// A stage with a device that has told its code and is locked with it.
async fn locked(options: Options) -> Stage {
    let stage = Stage::with(options).await;
    let device = stage.enrolled(SERIAL, Kind::IphoneDualSim).await;
    device.lock_with_own_code().unwrap();
    stage
}

#[tokio::test]
async fn t11_a_device_locked_by_its_user_is_unlocked_with_its_own_code() {
    let stage = locked(Options::default()).await;
    let asked = stage.unlock(SERIAL).await;
    let view = stage.ended(&asked.id).await;
    assert_eq!(view.state, StateName::Unlocked);
    assert_eq!(outcomes(&view), [Outcome::Unlocked]);
    assert_eq!(stage.apple.lock_state(SERIAL), None);
    let calls = stage.apple.calls_for(SERIAL);
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].org_name.as_deref(), Some("Example School"));
    assert_eq!(calls[0].guid.as_deref(), Some("anna@example.org"));
    assert_eq!(calls[0].topic.as_deref(), Some(SIM_TOPIC));
    assert!(
        calls[0].query.contains_key("imei2"),
        "both slots are named (R18)"
    );
    assert_eq!(view.attempts[0].recipient, "127.0.0.1", "R17");
    // Nothing is deleted on success (R2).
    assert_eq!(stage.view(SERIAL).await.codes.len(), 1);
}

#[tokio::test]
async fn t12_a_wrong_first_code_is_followed_by_the_right_second() {
    let stage = Stage::new().await;
    let device = stage.enrolled(SERIAL, Kind::IpadWifi).await;
    device.lock_with_own_code().unwrap();
    device.rotate_code();
    ask_again(&stage).await;
    stage.tell_code(&device).await;
    assert_eq!(stage.view(SERIAL).await.codes.len(), 2);
    let asked = stage.unlock(SERIAL).await;
    let view = stage.ended(&asked.id).await;
    assert_eq!(view.state, StateName::Unlocked);
    assert_eq!(outcomes(&view), [Outcome::Refused, Outcome::Unlocked]);
    assert!(view.attempts[0].code_current && !view.attempts[1].code_current);
    let connections: Vec<u64> = stage
        .apple
        .calls_for(SERIAL)
        .iter()
        .map(|c| c.connection)
        .collect();
    assert_eq!(
        connections[0], connections[1],
        "the connection to Apple is reused"
    );
}

/// A person wants the code asked for again.
async fn ask_again(stage: &Stage) {
    stage.clock.advance(Duration::from_secs(1));
    let permit = stage.permit(SERIAL).await;
    let serial = SERIAL.parse().unwrap();
    stage
        .escrow()
        .commands()
        .refresh(&permit, &serial)
        .await
        .unwrap();
}

#[tokio::test]
async fn r15_a_device_whose_codes_are_all_refused_is_rejected_and_not_called_unlocked() {
    let stage = Stage::new().await;
    stage.enrolled(SERIAL, Kind::IpadWifi).await;
    stage.type_code(SERIAL, CODE_A).await;
    stage.apple.user_lock(SERIAL, CODE_B).unwrap();
    let asked = stage.unlock(SERIAL).await;
    let view = stage.ended(&asked.id).await;
    assert_eq!(view.state, StateName::Rejected);
    assert_eq!(outcomes(&view), [Outcome::Refused, Outcome::Refused]);
    assert!(stage.apple.lock_state(SERIAL).is_some());
}

#[tokio::test]
async fn t16_a_500_is_asked_about_again_with_the_same_code() {
    let stage = locked(Options::default()).await;
    stage.apple.push_fault(Fault::status(500));
    let asked = stage.unlock(SERIAL).await;
    waits_for(&stage, &asked.id, WaitReason::NoAnswer).await;
    assert_eq!(stage.apple.calls_for(SERIAL).len(), 1);
    stage.clock.advance(Duration::from_secs(10));
    let view = stage.ended(&asked.id).await;
    assert_eq!(view.state, StateName::Unlocked);
    assert_eq!(outcomes(&view), [Outcome::Unknown, Outcome::Unlocked]);
    assert_eq!(view.attempts[0].code, view.attempts[1].code);
}

#[tokio::test]
async fn t16_a_time_out_that_is_followed_by_a_404_is_probably_unlocked() {
    let stage = locked(Options {
        timeouts: Timeouts {
            connect: Duration::from_secs(2),
            overall: Duration::from_secs(3),
        },
        ..Options::default()
    })
    .await;
    let gate = Gate::new();
    stage.apple.push_fault(Fault::hold_after_commit(&gate));
    let asked = stage.unlock(SERIAL).await;
    let view = waits_for(&stage, &asked.id, WaitReason::NoAnswer).await;
    assert_eq!(
        (outcomes(&view), view.attempts[0].status),
        (vec![Outcome::Unknown], None)
    );
    stage.clock.advance(Duration::from_secs(10));
    let view = stage.ended(&asked.id).await;
    assert_eq!(view.state, StateName::ProbablyUnlocked);
    assert_eq!(outcomes(&view), [Outcome::Unknown, Outcome::Refused]);
    gate.open();
}

#[tokio::test]
async fn r14_a_time_out_on_a_wrong_first_code_still_reaches_the_right_second() {
    let stage = Stage::new().await;
    let device = stage.enrolled(SERIAL, Kind::IpadWifi).await;
    device.lock_with_own_code().unwrap();
    device.rotate_code();
    ask_again(&stage).await;
    stage.tell_code(&device).await;
    stage.apple.push_fault(Fault::drop_after_commit());
    let asked = stage.unlock(SERIAL).await;
    waits_for(&stage, &asked.id, WaitReason::NoAnswer).await;
    stage.clock.advance(Duration::from_secs(10));
    let view = stage.ended(&asked.id).await;
    assert_eq!(view.state, StateName::Unlocked);
    assert_eq!(
        outcomes(&view),
        [Outcome::Unknown, Outcome::Refused, Outcome::Unlocked]
    );
}

#[tokio::test]
async fn r13_while_apple_is_away_no_code_is_spent_and_retry_after_is_honoured() {
    let stage = locked(Options::default()).await;
    stage.apple.go_offline().await;
    let asked = stage.unlock(SERIAL).await;
    let view = waits_for(&stage, &asked.id, WaitReason::Unavailable).await;
    assert_eq!(outcomes(&view), [Outcome::Unavailable]);
    stage.apple.come_back().await;
    stage
        .apple
        .push_fault(Fault::status(503).retry_after("3600"));
    stage.clock.advance(Duration::from_secs(10));
    let view = stage
        .operation_when(&asked.id, |view| {
            view.state == StateName::Waiting && view.attempts.len() == 2
        })
        .await;
    let answered_at = view.attempts[1].ended_at.unwrap();
    let until = view.details.until.unwrap();
    assert_eq!(until.since(answered_at), Duration::from_secs(3600));
    stage.clock.set(until);
    let view = stage.ended(&asked.id).await;
    assert_eq!(view.state, StateName::Unlocked);
}

#[tokio::test]
async fn r16_no_second_call_for_a_device_leaves_while_one_is_in_flight() {
    let stage = locked(Options::default()).await;
    let gate = Gate::new();
    stage.apple.push_fault(Fault::hold(&gate));
    let asked = stage.unlock(SERIAL).await;
    in_time(
        "the call",
        stage
            .apple
            .journal()
            .wait_for("the call", |calls| calls.len() == 1),
    )
    .await;
    let again = stage.ask_for_unlock(SERIAL).await;
    assert!(matches!(again, Enqueued::UnderWay(view) if view.id == asked.id));
    // Well within the lease, which outlasts the time-out of the call.
    stage.clock.advance(Duration::from_secs(60));
    stage.enrolled("SIMTEST00002", Kind::IpadWifi).await;
    let other = stage.unlock("SIMTEST00002").await;
    let other = stage.ended(&other.id).await;
    assert_eq!(other.state, StateName::Rejected, "others go on meanwhile");
    assert_eq!(stage.apple.calls_for(SERIAL).len(), 1);
    assert_eq!(stage.operation(&asked.id).await.state, StateName::Running);
    gate.open();
    let view = stage.ended(&asked.id).await;
    assert_eq!((view.state, view.attempts.len()), (StateName::Unlocked, 1));
    assert!(!view.double_sent);
}

#[tokio::test]
async fn r14_an_answer_that_comes_after_its_lease_ran_out_is_recorded_and_raises_the_state() {
    let stage = locked(Options::default()).await;
    let (first, second) = (Gate::new(), Gate::new());
    stage.apple.push_fault(Fault::hold_after_commit(&first));
    stage.apple.push_fault(Fault::hold(&second));
    let asked = stage.unlock(SERIAL).await;
    let journal = stage.apple.journal();
    journal
        .wait_for("the first call", |calls| calls.len() == 1)
        .await;
    // The process was frozen for longer than any lease, by its clock.
    stage.clock.advance(Duration::from_secs(120));
    stage
        .until_in_steps("the second call", Duration::from_secs(1), async || {
            stage.apple.calls_for(SERIAL).len() == 2
        })
        .await;
    first.open();
    stage
        .operation_when(&asked.id, |view| {
            view.attempts
                .first()
                .is_some_and(|first| first.late.is_some())
        })
        .await;
    second.open();
    let view = stage.ended(&asked.id).await;
    assert_eq!(view.state, StateName::Unlocked);
    assert!(
        view.double_sent,
        "it is shown that two calls were under way (R16)"
    );
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_call_waits_for_the_answer_and_records_it() {
    let mut stage = locked(Options::default()).await;
    let gate = Gate::new();
    stage.apple.push_fault(Fault::hold(&gate));
    let asked = stage.unlock(SERIAL).await;
    stage
        .apple
        .journal()
        .wait_for("the call", |calls| calls.len() == 1)
        .await;
    let mut stop = Box::pin(stage.stop());
    let too_soon = tokio::time::timeout(Duration::from_millis(500), &mut stop).await;
    assert!(
        too_soon.is_err(),
        "it does not stop while a call is in flight"
    );
    gate.open();
    in_time("the stop", stop).await;
    assert_eq!(stage.apple.lock_state(SERIAL), None);
    stage.start().await;
    let view = stage.operation(&asked.id).await;
    assert_eq!(view.state, StateName::Unlocked);
    assert_eq!(outcomes(&view), [Outcome::Unlocked]);
    assert_eq!(stage.apple.calls_for(SERIAL).len(), 1);
}

#[tokio::test]
async fn a_stop_gives_back_what_waits_for_its_turn() {
    let mut stage = Stage::with(Options {
        pace: 0.2,
        ..Options::default()
    })
    .await;
    let device = stage.enrolled(SERIAL, Kind::IpadWifi).await;
    stage.type_code(SERIAL, CODE_A).await;
    stage.apple.user_lock(SERIAL, CODE_A).unwrap();
    let asked = stage.unlock(SERIAL).await;
    stage
        .operation_when(&asked.id, |view| {
            view.state == StateName::Running && outcomes(view) == [Outcome::Refused]
        })
        .await;
    in_time("the stop", stage.stop()).await;
    assert_eq!(stage.apple.calls_for(SERIAL).len(), 1, "the pace is kept");
    stage.start().await;
    stage
        .until_in_steps("the end", Duration::from_secs(1), async || {
            stage.operation(&asked.id).await.is_done()
        })
        .await;
    let view = stage.operation(&asked.id).await;
    assert_eq!(view.state, StateName::Unlocked);
    assert_eq!(outcomes(&view), [Outcome::Refused, Outcome::Unlocked]);
    assert!(!device.code_text().is_empty());
}

#[tokio::test]
async fn a_hundred_unlocks_are_worked_off_within_the_limits() {
    let stage = Stage::with(Options {
        in_flight: 4,
        ..Options::default()
    })
    .await;
    let serials: Vec<String> = (0..100).map(|n| format!("SIMMANY{n:05}")).collect();
    for serial in &serials {
        stage.device(serial, Kind::IpadWifi).enrol();
    }
    stage.mdm.webhooks_settled().await;
    for serial in &serials {
        stage.type_code(serial, CODE_A).await;
        stage.apple.user_lock(serial, CODE_A).unwrap();
    }
    let mut ids = Vec::new();
    for serial in &serials {
        ids.push(stage.unlock(serial).await.id);
    }
    for id in &ids {
        let view = stage.ended(id).await;
        assert_eq!(view.state, StateName::Unlocked);
    }
    assert_eq!(stage.apple.journal().count(), 100);
    assert!(
        stage.apple.connections() <= 20,
        "connections to Apple are reused"
    );
}

#[tokio::test]
async fn t15_without_a_certificate_an_unlock_waits_and_goes_on_when_one_is_added() {
    let stage = locked(Options {
        unlock_via: UnlockVia::Own,
        ..Options::default()
    })
    .await;
    let now = OffsetDateTime::from_unix_timestamp(stage.now().0 / 1000).unwrap();
    let unknown = PushCertificateOptions::new(SIM_TOPIC, now).signed_by(sim::Issuer::Unknown);
    stage
        .add_certificate(&stage.apple.issue(&unknown).unwrap())
        .await;
    let asked = stage.unlock(SERIAL).await;
    let view = waits_for(&stage, &asked.id, WaitReason::Credential).await;
    assert_eq!(
        outcomes(&view),
        [Outcome::Credential],
        "one call, and no loop"
    );
    assert_eq!(stage.apple.calls_for(SERIAL).len(), 0);
    stage
        .add_certificate(&stage.apple.push_certificate(SIM_TOPIC))
        .await;
    let view = stage.ended(&asked.id).await;
    assert_eq!(view.state, StateName::Unlocked);
    assert_eq!(outcomes(&view), [Outcome::Credential, Outcome::Unlocked]);
}

#[tokio::test]
async fn t15_a_certificate_that_cannot_be_used_is_said_to_be_so_and_nothing_is_sent() {
    let stage = locked(Options::default()).await;
    let permit = stage.permit("certificate").await;
    let damaged = NewPushCertificate {
        topic: SIM_TOPIC.to_owned(),
        fingerprint: "00".repeat(32),
        subject: "CN=damaged".to_owned(),
        not_before: Timestamp(0),
        not_after: Timestamp(i64::MAX),
        pem: "-----BEGIN CERTIFICATE-----".to_owned().into(),
    };
    let certificates = stage.escrow().push_certificates();
    certificates.add(&permit, damaged).await.unwrap();
    let asked = stage.unlock(SERIAL).await;
    let view = waits_for(&stage, &asked.id, WaitReason::Credential).await;
    assert_eq!(outcomes(&view), [Outcome::Credential]);
    let said = view.attempts[0].diagnostic.as_deref().unwrap();
    assert!(
        said.starts_with("nothing was sent: the push certificate for"),
        "{said}"
    );
    assert_eq!(stage.apple.connections(), 0);
}

#[tokio::test]
async fn t15_an_expired_certificate_is_not_even_tried() {
    let stage = locked(Options::default()).await;
    let now = OffsetDateTime::from_unix_timestamp(stage.now().0 / 1000).unwrap();
    let expired = PushCertificateOptions::new(SIM_TOPIC, now).expired();
    stage
        .add_certificate(&stage.apple.issue(&expired).unwrap())
        .await;
    let asked = stage.unlock(SERIAL).await;
    let view = waits_for(&stage, &asked.id, WaitReason::NoCredential).await;
    assert_eq!(view.attempts.len(), 0);
    stage
        .add_certificate(&stage.apple.push_certificate(SIM_TOPIC))
        .await;
    assert_eq!(stage.ended(&asked.id).await.state, StateName::Unlocked);
}

#[tokio::test]
async fn r19_an_unlock_is_delegated_to_the_mdm_that_holds_the_certificate() {
    for flavour in [Flavour::NanoMdm, Flavour::NanoHub] {
        let stage = locked(Options {
            unlock_via: UnlockVia::Delegated,
            flavour,
            ..Options::default()
        })
        .await;
        let asked = stage.unlock(SERIAL).await;
        let view = stage.ended(&asked.id).await;
        assert_eq!(view.state, StateName::Unlocked);
        let recipient = format!("mdm ({})", stage.mdm.url());
        assert_eq!(view.attempts[0].recipient, recipient, "R17");
    }
}

#[tokio::test]
async fn r19_three_errors_of_the_mdm_s_own_need_review() {
    let stage = locked(Options {
        unlock_via: UnlockVia::Delegated,
        ..Options::default()
    })
    .await;
    stage.apple.go_offline().await;
    let asked = stage.unlock(SERIAL).await;
    stage
        .until_in_steps("three tries", Duration::from_secs(1), async || {
            stage.operation(&asked.id).await.is_done()
        })
        .await;
    let view = stage.operation(&asked.id).await;
    assert_eq!(view.state, StateName::NeedsReview);
    assert_eq!(view.details.review, Some(ReviewReason::DelegateFails));
    assert_eq!(outcomes(&view), [Outcome::Unknown; 3]);
    let said = view.attempts[0].diagnostic.as_deref().unwrap();
    assert!(said.starts_with("the MDM's own error: "), "{said}");
}

#[tokio::test]
async fn r19_an_mdm_that_refuses_our_key_is_a_credential_and_a_new_key_goes_on_at_once() {
    let stage = locked(Options {
        unlock_via: UnlockVia::Delegated,
        ..Options::default()
    })
    .await;
    stage.mdm.set_api_key("another");
    let asked = stage.unlock(SERIAL).await;
    let view = waits_for(&stage, &asked.id, WaitReason::Credential).await;
    assert_eq!(outcomes(&view), [Outcome::Credential]);
    let permit = stage.permit("connection").await;
    let change = ConnectionChange {
        api_key: Some("another".to_owned().into()),
        ..ConnectionChange::default()
    };
    let connections = stage.escrow().connections();
    connections
        .change(&permit, "mdm", change)
        .await
        .unwrap()
        .unwrap();
    let view = stage.ended(&asked.id).await;
    assert_eq!(view.state, StateName::Unlocked);
}

#[tokio::test]
async fn r14_a_lost_answer_of_the_mdm_is_unknown_and_asked_about_again() {
    let stage = locked(Options {
        unlock_via: UnlockVia::Delegated,
        ..Options::default()
    })
    .await;
    stage
        .mdm
        .push_api_fault(ApiFault::lose_answer().for_path("escrowkeyunlock"));
    let asked = stage.unlock(SERIAL).await;
    waits_for(&stage, &asked.id, WaitReason::NoAnswer).await;
    stage.clock.advance(Duration::from_secs(10));
    let view = stage.ended(&asked.id).await;
    assert_eq!(view.state, StateName::ProbablyUnlocked);
}

#[tokio::test]
async fn t14_a_400_stops_without_a_second_code() {
    let stage = locked(Options::default()).await;
    stage.type_code(SERIAL, CODE_A).await;
    stage.apple.push_fault(Fault::status(400));
    let asked = stage.unlock(SERIAL).await;
    let view = stage.ended(&asked.id).await;
    assert_eq!(view.state, StateName::NeedsReview);
    assert_eq!(view.details.review, Some(ReviewReason::Malformed));
    assert_eq!(stage.apple.calls_for(SERIAL).len(), 1);
}

#[tokio::test]
async fn r12_a_code_that_arrives_between_two_attempts_is_tried() {
    let stage = Stage::new().await;
    stage.enrolled(SERIAL, Kind::IpadWifi).await;
    stage.apple.user_lock(SERIAL, CODE_B).unwrap();
    let gate = Gate::new();
    stage.apple.push_fault(Fault::hold(&gate));
    let asked = stage.unlock(SERIAL).await;
    stage
        .apple
        .journal()
        .wait_for("the call", |calls| calls.len() == 1)
        .await;
    stage.type_code(SERIAL, CODE_B).await;
    gate.open();
    let view = stage.ended(&asked.id).await;
    assert_eq!(view.state, StateName::Unlocked);
    assert_eq!(outcomes(&view), [Outcome::Refused, Outcome::Unlocked]);
}

#[tokio::test]
async fn r23_an_answer_that_repeats_the_code_is_kept_without_it() {
    let stage = locked(Options::default()).await;
    stage.apple.push_fault(Fault::echo(404));
    let asked = stage.unlock(SERIAL).await;
    let view = stage.ended(&asked.id).await;
    let code = stage.reveal(SERIAL).await.remove(0).text;
    let said = view.attempts[0].diagnostic.as_deref().unwrap();
    let bare = code.expose().replace('-', "");
    assert!(!said.is_empty() && !said.contains(code.expose()) && !said.contains(&bare));
}
