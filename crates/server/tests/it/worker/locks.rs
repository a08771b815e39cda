//! Locks against the fake of Apple's enrolment service, and the unlocks that follow: R4, R12, R20, T3 to T9, T13, T33.

use std::time::Duration;

use activation_lock::lock::{
    CallResult, Evidence, LockOutcome, OurLock, RefusedWhy, ReviewReason, WaitReason,
};
use activation_lock::operation::StateName;
use activation_lock::time::{DAY, Timestamp};
use activation_lock::unlock::RejectedWhy;
use apple::transport::Timeouts;
use escrow::locks::{Enqueued, LockView};
use escrow::operations::Enqueued as UnlockEnqueued;
use escrow::server_tokens::{Access, Problem};
use sim::business_manager::StatusAnswer;
use sim::dep::{DepDevice, NanoDep, NanoDepOptions};
use sim::{Fault, Gate, Kind, LockKind};

use crate::support::{CODE_A, Options, Stage, in_time, lock_wish};

mod lists;
mod statuses;

const SERIAL: &str = "SIMLOCK00001";
const LOCK: &str = "/device/activationlock";

fn outcomes(lock: &LockView) -> Vec<LockOutcome> {
    let outcome = |result| match result {
        CallResult::Ended { outcome, .. } => Some(outcome),
        CallResult::InFlight | CallResult::Lost => None,
    };
    let calls = lock.calls.iter();
    calls.filter_map(|call| outcome(call.result)).collect()
}

/// A stage whose device is assigned to the server of a token.
async fn stage() -> Stage {
    stage_with(Options::default()).await
}

async fn stage_with(options: Options) -> Stage {
    let stage = Stage::with(options).await;
    let token = stage.server_token().await;
    stage.assigned(&token, SERIAL).await;
    stage
}

/// Unlocks the device, and says how it ended and how many calls it took.
async fn unlocked(stage: &Stage, serial: &str) -> (StateName, usize) {
    let asked = stage.unlock(serial).await;
    let view = stage.ended(&asked.id).await;
    (view.state, view.attempts.len())
}

#[tokio::test]
async fn t3_a_device_locked_by_the_organisation_is_unlocked_with_the_code_that_was_kept_first() {
    let stage = stage().await;
    let gate = Gate::new();
    stage.dep.push_fault(Fault::hold(&gate).on(LOCK));
    let asked = stage.lock(SERIAL).await;
    let calls = stage.dep.journal().wait_for("the call", |calls| {
        calls.iter().any(|call| call.path == LOCK)
    });
    in_time("the call", calls).await;
    // It has left, and is not answered: the code is on record, and in the journal.
    assert_eq!(stage.view(SERIAL).await.codes.len(), 1);
    let journal = stage.escrow().locks().journal().await.unwrap();
    assert_eq!((journal.calls, journal.missing), (1, 0));
    gate.open();
    let lock = stage.lock_when(&asked.id, LockView::is_done).await;
    assert_eq!(lock.state, StateName::Locked);
    assert_eq!(stage.apple.lock_state(SERIAL), Some(LockKind::Mdm));
    assert_eq!(
        stage.standing(SERIAL).await,
        (OurLock::Confirmed, Evidence::Success)
    );
    // A user's code typed in meanwhile does not come first (R12).
    stage.type_code(SERIAL, CODE_A).await;
    assert_eq!(unlocked(&stage, SERIAL).await, (StateName::Unlocked, 1));
    assert_eq!(stage.apple.lock_state(SERIAL), None);
    assert_eq!(
        stage.standing(SERIAL).await,
        (OurLock::None, Evidence::TurnedOff)
    );
    assert_eq!(
        stage.view(SERIAL).await.codes.len(),
        2,
        "nothing is deleted (R2)"
    );
}

#[tokio::test]
async fn t5_each_of_apples_answers_has_its_own_end() {
    let stage = stage().await;
    for (word, state) in [
        ("NOT_ACCESSIBLE", StateName::Refused),
        ("ORG_NOT_SUPPORTED", StateName::Refused),
        ("DEVICE_NOT_SUPPORTED", StateName::Refused),
        ("DEVICE_ALREADY_LOCKED", StateName::AlreadyLocked),
        ("SOMETHING_NEW", StateName::NeedsReview),
        ("FAILED", StateName::NeedsReview),
    ] {
        stage.dep.refuse_lock(SERIAL, Some(word));
        let lock = stage.lock_to_its_end(SERIAL).await;
        assert_eq!(lock.state, state, "{word}");
        let call = lock.calls.last().unwrap();
        assert_eq!(call.response_status.as_deref(), Some(word));
        assert_eq!(call.status, Some(200), "HTTP 200 is no success (R20)");
        assert_eq!(stage.apple.lock_state(SERIAL), None);
    }
    // What may have locked it leaves its code live; it is the one that the next request uses.
    assert_eq!(stage.standing(SERIAL).await.0, OurLock::Unknown);
    stage.dep.refuse_lock(SERIAL, None);
    let lock = stage.lock_to_its_end(SERIAL).await;
    assert_eq!(lock.state, StateName::Locked);
    assert_eq!(unlocked(&stage, SERIAL).await, (StateName::Unlocked, 1));
}

#[tokio::test]
async fn t5_a_mac_is_tried_and_apples_answer_believed() {
    let stage = Stage::new().await;
    let token = stage.server_token().await;
    let device = stage.device("SIMMAC000001", Kind::Mac);
    stage.dep.assign(&token, device.dep_device());
    stage.listed("SIMMAC000001").await;
    let lock = stage.lock_to_its_end("SIMMAC000001").await;
    assert_eq!(lock.state, StateName::Refused);
    assert_eq!(lock.details.refused, Some(RefusedWhy::DeviceNotSupported));
}

#[tokio::test]
async fn t6_a_session_that_ended_is_renewed_and_apples_errors_have_their_own_states() {
    let stage = stage().await;
    stage.dep.expire_sessions();
    assert_eq!(stage.lock_to_its_end(SERIAL).await.state, StateName::Locked);
    stage.apple.clear_lock(SERIAL);
    for (status, review) in [
        (400, ReviewReason::Malformed),
        (418, ReviewReason::Unexpected),
    ] {
        stage.dep.push_fault(Fault::status(status).on(LOCK));
        let lock = stage.lock_to_its_end(SERIAL).await;
        assert_eq!(lock.details.review, Some(review), "{status}");
    }
    // Asked to come back, it does: with the same code.
    let busy = Fault::status(503).retry_after("20").on(LOCK);
    stage.dep.push_fault(busy);
    let lock = stage.lock_to_its_end(SERIAL).await;
    assert_eq!(
        outcomes(&lock),
        [LockOutcome::Unavailable, LockOutcome::Locked]
    );
    let waited = lock.calls[1]
        .began_at
        .since(lock.calls[0].ended_at.unwrap());
    assert!(waited >= Duration::from_secs(20), "{waited:?}");
}

/// Waits until a lock waits for this.
async fn waits_for(stage: &Stage, id: &str, why: WaitReason) {
    let view = stage
        .lock_when(id, |view| {
            view.is_done() || view.details.waits_for == Some(why)
        })
        .await;
    assert_eq!(view.state, StateName::Waiting, "{:?}", view.details);
}

async fn problem(stage: &Stage) -> Option<Problem> {
    let tokens = stage.escrow().server_tokens().all().await.unwrap();
    tokens[0].problem.map(|(problem, _)| problem)
}

#[tokio::test]
async fn t6_terms_to_be_signed_are_a_persons_job_and_the_lock_goes_on_afterwards() {
    let stage = Stage::new().await;
    let token = stage.server_token().await;
    stage.assigned(&token, SERIAL).await;
    stage.dep.set_terms_signed(&token, false);
    let asked = stage.lock(SERIAL).await;
    waits_for(&stage, &asked.id, WaitReason::TermsNotSigned).await;
    assert_eq!(problem(&stage).await, Some(Problem::TermsNotSigned));
    // No loop: what is asked again is the list, now and then, and not the lock.
    let calls = stage.dep.calls_for(SERIAL).len();
    stage.dep.set_terms_signed(&token, true);
    stage.read_list().await;
    let lock = stage.lock_when(&asked.id, LockView::is_done).await;
    assert_eq!(lock.state, StateName::Locked);
    assert_eq!(stage.dep.calls_for(SERIAL).len(), calls + 1);
    assert_eq!(problem(&stage).await, None);
}

#[tokio::test]
async fn t6_denied_access_is_told_as_such_and_asked_about_by_no_loop() {
    let stage = Stage::new().await;
    let token = stage.server_token().await;
    stage.assigned(&token, SERIAL).await;
    stage.dep.set_access_denied(&token, true);
    let asked = stage.lock(SERIAL).await;
    waits_for(&stage, &asked.id, WaitReason::AccessDenied).await;
    assert_eq!(problem(&stage).await, Some(Problem::AccessDenied));
    stage.dep.set_access_denied(&token, false);
    stage.read_list().await;
    let lock = stage.lock_when(&asked.id, LockView::is_done).await;
    assert_eq!(lock.state, StateName::Locked);
}

#[tokio::test]
async fn t6_a_test_of_the_token_shows_that_it_was_mended_and_the_lock_goes_on() {
    let stage = Stage::new().await;
    let token = stage.server_token().await;
    stage.assigned(&token, SERIAL).await;
    stage.dep.set_terms_signed(&token, false);
    let asked = stage.lock(SERIAL).await;
    waits_for(&stage, &asked.id, WaitReason::TermsNotSigned).await;
    stage.dep.set_terms_signed(&token, true);
    let token = stage.token(&["connections"]).await;
    let url = format!("{}/v1/dep-tokens/main/test", stage.url());
    let tested = crate::support::client()
        .post(url)
        .bearer_auth(token)
        .send()
        .await;
    assert_eq!(tested.unwrap().status(), 200);
    let lock = stage.lock_when(&asked.id, LockView::is_done).await;
    assert_eq!(lock.state, StateName::Locked);
    assert_eq!(problem(&stage).await, None);
}

#[tokio::test]
async fn t6_a_dead_token_waits_for_another_one() {
    let stage = Stage::new().await;
    let token = stage.server_token().await;
    stage.assigned(&token, SERIAL).await;
    stage.dep.expire_token(&token);
    stage.dep.expire_sessions();
    let asked = stage.lock(SERIAL).await;
    waits_for(&stage, &asked.id, WaitReason::Credential).await;
    assert_eq!(problem(&stage).await, Some(Problem::Refused));
    let renewed = stage.dep.issue_token("A server");
    stage.dep.assign(&renewed, DepDevice::new(SERIAL, "iPad"));
    stage.keep_token(&renewed).await;
    let lock = stage.lock_when(&asked.id, LockView::is_done).await;
    assert_eq!(lock.state, StateName::Locked);
}

#[tokio::test]
async fn t7_r4_a_lock_committed_at_apple_whose_reply_was_lost_is_unlocked_after_a_second_request() {
    let timeouts = Timeouts {
        connect: Duration::from_secs(10),
        overall: Duration::from_secs(20),
    };
    let stage = stage_with(Options {
        timeouts,
        ..Options::default()
    })
    .await;
    stage.type_code(SERIAL, CODE_A).await;
    stage.dep.push_fault(Fault::drop_after_commit().on(LOCK));
    let first = stage.lock(SERIAL).await;
    waits_for(&stage, &first.id, WaitReason::NoAnswer).await;
    assert_eq!(
        stage.apple.lock_state(SERIAL),
        Some(LockKind::Mdm),
        "Apple has locked it"
    );
    assert_eq!(
        stage.standing(SERIAL).await,
        (OurLock::Unknown, Evidence::NoAnswer)
    );
    let permit = stage.permit(SERIAL).await;
    stage
        .escrow()
        .locks()
        .cancel(&permit, &first.id)
        .await
        .unwrap();

    let second = stage.lock_to_its_end(SERIAL).await;
    assert_eq!(second.state, StateName::AlreadyLocked);
    assert_eq!(
        second.details.ours,
        Some(OurLock::Unknown),
        "it may be ours (R20)"
    );
    let calls = stage.dep.calls_for(SERIAL);
    let prints: Vec<_> = calls
        .iter()
        .filter_map(|c| c.escrow_key_fingerprint.clone())
        .collect();
    assert_eq!(prints.len(), 2);
    assert_eq!(prints[0], prints[1], "the same code");
    assert_eq!(unlocked(&stage, SERIAL).await, (StateName::Unlocked, 1));
    assert_eq!(stage.apple.lock_state(SERIAL), None);
}

#[tokio::test]
async fn t8_a_lock_says_who_it_is_what_it_locks_and_what_the_screen_shows_and_nothing_else() {
    let stage = stage().await;
    let mut wish = lock_wish(SERIAL);
    wish.message = Some("Please call 555".to_owned());
    let Enqueued::New(asked) = stage.ask_for_lock(wish).await else {
        panic!("it is new")
    };
    stage.lock_when(&asked.id, LockView::is_done).await;
    let call = stage.dep.calls_for(SERIAL).pop().unwrap();
    assert!(call.locked);
    assert_eq!(call.lost_message.as_deref(), Some("Please call 555"));
    assert!(
        call.escrow_key_fingerprint.is_some(),
        "never without a code"
    );
    assert_eq!(call.protocol_version.as_deref(), Some("10"));
    let agent = call.user_agent.unwrap_or_default();
    assert!(agent.starts_with("Lockwarden/"), "{agent}");
}

#[tokio::test]
async fn t9_many_locks_at_once_share_one_session() {
    let stage = Stage::new().await;
    let token = stage.server_token().await;
    let serials: Vec<String> = (0..6).map(|n| format!("SIMLOCK{n:05}")).collect();
    for serial in &serials {
        stage.known_to_apple(serial);
        stage
            .dep
            .assign(&token, DepDevice::new(serial.clone(), "iPad"));
    }
    stage.listed(&serials[5]).await;
    stage.dep.expire_sessions();
    let before = stage.dep.sessions();
    let mut asked = Vec::new();
    for serial in &serials {
        asked.push(stage.lock(serial).await.id);
    }
    for id in &asked {
        let lock = stage.lock_when(id, LockView::is_done).await;
        assert_eq!(lock.state, StateName::Locked);
    }
    let begun = stage.dep.sessions() - before;
    assert!((1..=2).contains(&begun), "{begun} sessions for six locks");
}

#[tokio::test]
async fn r20_a_device_that_its_user_locked_is_someone_elses_and_its_own_code_comes_first() {
    let stage = Stage::new().await;
    let token = stage.server_token().await;
    stage.account().await;
    let device = stage.enrolled(SERIAL, Kind::IpadWifi).await;
    stage.dep.assign(&token, device.dep_device());
    stage.business.add_device(device.org_device());
    stage.listed(SERIAL).await;
    device.lock_with_own_code().unwrap();
    let lock = stage.lock_to_its_end(SERIAL).await;
    assert_eq!(lock.state, StateName::AlreadyLocked);
    assert_eq!(lock.details.ours, Some(OurLock::SomeoneElses));
    let asked = stage.unlock(SERIAL).await;
    let view = stage.ended(&asked.id).await;
    assert_eq!((view.state, view.attempts.len()), (StateName::Unlocked, 1));
    assert_eq!(view.attempts[0].code_kind.as_str(), "device");
    let said = stage.view(SERIAL).await.status.last.unwrap();
    assert_eq!(said.status.lock_type.unwrap().as_str(), "USER");
}

#[tokio::test]
async fn t33_a_lock_and_an_unlock_of_one_device_come_one_after_the_other() {
    let stage = stage().await;
    stage.type_code(SERIAL, CODE_A).await;
    let gate = Gate::new();
    stage.dep.push_fault(Fault::hold(&gate).on(LOCK));
    let lock = stage.lock(SERIAL).await;
    let second = stage.ask_for_lock(lock_wish(SERIAL)).await;
    assert!(matches!(second, Enqueued::UnderWay(same) if same.id == lock.id));
    let unlock = stage.ask_for_unlock(SERIAL).await;
    assert!(
        matches!(unlock, UnlockEnqueued::LiveElsewhere(live) if live.id == Some(lock.id.clone()))
    );
    gate.open();
    stage.lock_when(&lock.id, LockView::is_done).await;
    assert_eq!(stage.standing(SERIAL).await.0, OurLock::Confirmed);

    let gate = Gate::new();
    stage.apple.push_fault(Fault::hold(&gate));
    let unlock = stage.unlock(SERIAL).await;
    let again = stage.ask_for_lock(lock_wish(SERIAL)).await;
    assert!(matches!(again, Enqueued::LiveElsewhere(live) if live.id == Some(unlock.id.clone())));
    gate.open();
    assert_eq!(stage.ended(&unlock.id).await.state, StateName::Unlocked);
    assert_eq!(stage.standing(SERIAL).await.0, OurLock::None);
    assert_eq!(
        stage.apple.lock_state(SERIAL),
        None,
        "what is said of it is true"
    );
}

#[tokio::test]
async fn a_lock_goes_through_a_nanodep_that_has_the_token() {
    let stage = Stage::new().await;
    let token = stage.dep.issue_token("A server");
    let options = NanoDepOptions::default();
    let key = options.api_key.clone();
    let nanodep = NanoDep::start(&stage.dep, options).await.unwrap();
    nanodep.add_name("school", &token);
    stage
        .put_token(Access::NanoDep {
            base_url: nanodep.url(),
            dep_name: "school".to_owned(),
            api_key: key.into(),
        })
        .await;
    stage.assigned(&token, SERIAL).await;
    let lock = stage.lock_to_its_end(SERIAL).await;
    assert_eq!(lock.state, StateName::Locked);
    assert_eq!(lock.calls[0].recipient, nanodep.url(), "R17");
    assert_eq!(unlocked(&stage, SERIAL).await, (StateName::Unlocked, 1));
}

/// An unlock of a device whose only code does not fit.
async fn refused(stage: &Stage) -> (StateName, Option<RejectedWhy>) {
    let asked = stage.unlock(SERIAL).await;
    let view = stage.ended(&asked.id).await;
    (view.state, view.details.rejected)
}

#[tokio::test]
async fn t13_after_every_code_was_refused_apples_status_says_what_that_means() {
    let stage = stage().await;
    stage.type_code(SERIAL, CODE_A).await;
    // Nobody to ask.
    let cannot_tell = (StateName::Rejected, Some(RejectedWhy::CannotTell));
    assert_eq!(refused(&stage).await, cannot_tell);
    stage.account().await;
    let later = async || stage.clock.advance(DAY + Duration::from_secs(1));
    later().await;
    // Not locked: nothing is tried.
    let calls = stage.apple.calls_for(SERIAL).len();
    assert_eq!(refused(&stage).await, (StateName::NotLocked, None));
    assert_eq!(stage.apple.calls_for(SERIAL).len(), calls);
    // A person's lock, of which no code is held.
    let foreign = "PXH8M-QYJZA-2H1J-H9CV-HN5U-KDN7";
    stage.apple.user_lock(SERIAL, foreign).unwrap();
    let by_user = (StateName::Rejected, Some(RejectedWhy::LockedByUser));
    assert_eq!(refused(&stage).await, by_user);
    later().await;
    // An organisation's lock that no code held opens.
    stage.apple.clear_lock(SERIAL);
    let code = sim::Code::parse(foreign).unwrap();
    stage.apple.org_lock(SERIAL, code.hash()).unwrap();
    let by_us = (StateName::Rejected, Some(RejectedWhy::LockedByOrganisation));
    assert_eq!(refused(&stage).await, by_us);
    later().await;
    // Apple does not say.
    stage
        .business
        .set_status(SERIAL, StatusAnswer::InternalState);
    assert_eq!(refused(&stage).await, cannot_tell);
}

#[tokio::test]
async fn r21_a_lock_that_was_not_answered_when_the_server_stopped_is_asked_about_again_with_the_same_code()
 {
    let mut stage = stage_with(Options {
        timeouts: Timeouts {
            connect: Duration::from_secs(2),
            overall: Duration::from_secs(3),
        },
        ..Options::default()
    })
    .await;
    let gate = Gate::new();
    stage.dep.push_fault(Fault::hold(&gate).on(LOCK));
    let asked = stage.lock(SERIAL).await;
    let calls = stage.dep.journal().wait_for("the call", |calls| {
        calls.iter().any(|call| call.path == LOCK)
    });
    in_time("the call", calls).await;
    stage.stop().await;
    gate.open();
    stage.start().await;
    let lock = stage.lock_when(&asked.id, LockView::is_done).await;
    assert!(
        matches!(lock.state, StateName::Locked | StateName::AlreadyLocked),
        "{:?}",
        lock.state
    );
    assert_eq!(stage.view(SERIAL).await.codes.len(), 1);
    assert_eq!(unlocked(&stage, SERIAL).await, (StateName::Unlocked, 1));
}

/// A moment before everything.
const LONG_AGO: Timestamp = Timestamp(0);
