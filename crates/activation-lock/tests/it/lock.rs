//! Locks: what an answer means, what is done next, and how our lock then stands (R4, R20).

use std::time::Duration;

use activation_lock::codes::{CodeId, LockStatus};
use activation_lock::lock::{
    Call, CallResult, Credential, End, Event, Evidence, LOCK_DEADLINE, Lock, LockOutcome, OurLock,
    RefusedWhy, Response, ResponseStatus, ReviewReason, STATUS_LAGS, Step, TRIES_AFTER_FAILED,
    Trouble, WaitReason, What, late_outcome, next, outcome, standing,
};
use activation_lock::operation::Backoff;
use activation_lock::time::Timestamp;
use proptest::prelude::*;

const BEGAN: Timestamp = Timestamp(1_000_000);
const SECOND: Duration = Duration::from_secs(1);

fn lock() -> Lock {
    Lock {
        requested_at: BEGAN,
        resumed_at: None,
        deadline: BEGAN.plus(LOCK_DEADLINE),
        cancelled_by: None,
        restored_at: None,
        calls: Vec::new(),
        credential: Some(Credential {
            id: "token".to_owned(),
            mended_at: None,
        }),
        ours: OurLock::None,
        backoff: Backoff::default(),
    }
}

fn code(name: &str) -> CodeId {
    CodeId(name.to_owned())
}

fn ended(outcome: LockOutcome) -> CallResult {
    CallResult::Ended {
        outcome,
        retry_after: None,
    }
}

fn call(result: CallResult, at: Timestamp) -> Call {
    Call {
        code: code("a"),
        credential: "token".to_owned(),
        began_at: at,
        ended_at: Some(at),
        result,
    }
}

fn after(result: CallResult) -> Step {
    let mut lock = lock();
    lock.calls.push(call(result, BEGAN));
    next(&lock, BEGAN)
}

#[test]
fn t5_each_answer_is_an_outcome_of_its_own_and_only_success_is_locked() {
    let words = [
        ("SUCCESS", LockOutcome::Locked),
        ("NOT_ACCESSIBLE", LockOutcome::NotAccessible),
        ("ORG_NOT_SUPPORTED", LockOutcome::OrgNotSupported),
        ("DEVICE_NOT_SUPPORTED", LockOutcome::DeviceNotSupported),
        ("DEVICE_ALREADY_LOCKED", LockOutcome::AlreadyLocked),
        ("FAILED", LockOutcome::Failed),
        ("success", LockOutcome::Undescribed),
        ("LOCKED", LockOutcome::Undescribed),
        ("", LockOutcome::Undescribed),
    ];
    for (word, wanted) in words {
        let status = ResponseStatus::from_text(word);
        assert_eq!(status.as_str(), word, "kept verbatim");
        assert_eq!(outcome(&Response::Answered(status)), wanted, "{word}");
    }
}

#[test]
fn r20_http_200_alone_is_no_success_and_every_status_has_an_outcome() {
    for code in 100..=999 {
        for retry_after in [false, true] {
            for trouble in [
                None,
                Some(Trouble::TermsNotSigned),
                Some(Trouble::AccessDenied),
            ] {
                let response = Response::Status {
                    code,
                    retry_after,
                    trouble,
                };
                let outcome = outcome(&response);
                assert_ne!(outcome, LockOutcome::Locked, "{code}");
                let wanted = match (code, trouble) {
                    (_, Some(Trouble::TermsNotSigned)) => LockOutcome::TermsNotSigned,
                    (400, _) => LockOutcome::Malformed,
                    (401 | 403, Some(Trouble::AccessDenied)) => LockOutcome::AccessDenied,
                    (401 | 403, _) => LockOutcome::Credential,
                    (429, _) => LockOutcome::Unavailable,
                    (503, _) if retry_after => LockOutcome::Unavailable,
                    (200..=299 | 408 | 500..=599, _) => LockOutcome::Unknown,
                    _ => LockOutcome::Unexpected,
                };
                assert_eq!(outcome, wanted, "{code} {retry_after} {trouble:?}");
            }
        }
    }
    assert_eq!(outcome(&Response::Unreadable), LockOutcome::Unknown);
    assert_eq!(outcome(&Response::NoAnswer), LockOutcome::Unknown);
    assert_eq!(outcome(&Response::NotSent), LockOutcome::Unavailable);
    assert_eq!(outcome(&Response::TokenRefused), LockOutcome::Credential);
    assert_eq!(outcome(&Response::TlsRefused), LockOutcome::Credential);
}

#[test]
fn t5_what_follows_each_outcome() {
    let refused = |why| Step::End(End::Refused { why });
    let review = |why| Step::End(End::NeedsReview { why });
    let soon = BEGAN.plus(Backoff::default().first);
    let wait = |until, why| Step::Wait { until, why };
    let deadline = BEGAN.plus(LOCK_DEADLINE);
    for &outcome in LockOutcome::ALL {
        let wanted = match outcome {
            LockOutcome::Locked => Step::End(End::Locked),
            LockOutcome::AlreadyLocked => Step::End(End::AlreadyLocked {
                ours: OurLock::None,
            }),
            LockOutcome::NotAccessible => refused(RefusedWhy::NotAccessible),
            LockOutcome::OrgNotSupported => refused(RefusedWhy::OrgNotSupported),
            LockOutcome::DeviceNotSupported => refused(RefusedWhy::DeviceNotSupported),
            LockOutcome::Failed => wait(soon, WaitReason::Failed),
            LockOutcome::Undescribed => review(ReviewReason::Undescribed),
            LockOutcome::Malformed => review(ReviewReason::Malformed),
            LockOutcome::Unexpected => review(ReviewReason::Unexpected),
            LockOutcome::Credential => wait(deadline, WaitReason::Credential),
            LockOutcome::TermsNotSigned => wait(deadline, WaitReason::TermsNotSigned),
            LockOutcome::AccessDenied => wait(deadline, WaitReason::AccessDenied),
            LockOutcome::Unavailable => wait(soon, WaitReason::Unavailable),
            LockOutcome::Unknown => wait(soon, WaitReason::NoAnswer),
        };
        assert_eq!(after(ended(outcome)), wanted, "{outcome}");
    }
    assert_eq!(after(CallResult::InFlight), Step::Await);
    assert_eq!(after(CallResult::Lost), wait(soon, WaitReason::NoAnswer));
}

#[test]
fn t5_a_failed_is_asked_about_again_a_few_times() {
    let (mut lock, mut now) = (lock(), BEGAN);
    for _ in 0..TRIES_AFTER_FAILED {
        loop {
            match next(&lock, now) {
                Step::Wait { until, why } => {
                    assert_eq!(why, WaitReason::Failed);
                    now = until;
                }
                step => {
                    assert_eq!(step, Step::Call);
                    break;
                }
            }
        }
        lock.calls.push(call(ended(LockOutcome::Failed), now));
    }
    let review = Step::End(End::NeedsReview {
        why: ReviewReason::Failed,
    });
    assert_eq!(next(&lock, now), review);
    lock.resumed_at = Some(now.plus(SECOND));
    assert_eq!(next(&lock, now.plus(SECOND)), Step::Call);
}

#[test]
fn t6_what_a_person_has_to_mend_is_not_called_about_until_it_is_mended() {
    for outcome in [
        LockOutcome::Credential,
        LockOutcome::TermsNotSigned,
        LockOutcome::AccessDenied,
    ] {
        let mut lock = lock();
        lock.calls.push(call(ended(outcome), BEGAN));
        let just_before = BEGAN.plus(LOCK_DEADLINE).minus(SECOND);
        assert!(matches!(next(&lock, just_before), Step::Wait { .. }));
        let mut renewed = lock.clone();
        renewed.credential = Some(Credential {
            id: "another token".to_owned(),
            mended_at: None,
        });
        assert_eq!(next(&renewed, just_before), Step::Call);
        let mended = lock.credential.as_mut().unwrap();
        mended.mended_at = Some(BEGAN);
        assert!(matches!(next(&lock, just_before), Step::Wait { .. }));
        lock.credential.as_mut().unwrap().mended_at = Some(BEGAN.plus(SECOND));
        assert_eq!(next(&lock, just_before), Step::Call);
        assert_eq!(
            next(&lock, BEGAN.plus(LOCK_DEADLINE)),
            Step::End(End::NeedsReview {
                why: ReviewReason::Deadline
            })
        );
    }
}

#[test]
fn r15_without_a_token_a_lock_waits_and_a_definite_end_is_said_also_late() {
    let mut lock = lock();
    lock.credential = None;
    let waits = Step::Wait {
        until: lock.deadline,
        why: WaitReason::NoCredential,
    };
    assert_eq!(next(&lock, BEGAN), waits);
    lock.calls.push(call(ended(LockOutcome::Locked), BEGAN));
    let late = lock.deadline.plus(SECOND);
    assert_eq!(next(&lock, late), Step::End(End::Locked));
}

#[test]
fn r21_a_restored_lock_is_for_a_person_and_one_cancelled_ends_unless_it_is_in_flight() {
    let mut lock = lock();
    lock.restored_at = Some(BEGAN.plus(SECOND));
    let restored = Step::End(End::NeedsReview {
        why: ReviewReason::Restored,
    });
    assert_eq!(next(&lock, BEGAN), restored);
    lock.cancelled_by = Some("anna".to_owned());
    let cancelled = Step::End(End::Cancelled {
        by: "anna".to_owned(),
    });
    assert_eq!(next(&lock, BEGAN), cancelled);
    lock.calls.push(call(CallResult::InFlight, BEGAN));
    assert_eq!(next(&lock, BEGAN), Step::Await);
    lock.calls[0].result = ended(LockOutcome::Locked);
    assert_eq!(next(&lock, BEGAN), Step::End(End::Locked));
}

#[test]
fn r14_a_late_success_raises_and_nothing_late_lowers() {
    for &recorded in LockOutcome::ALL {
        for &late in LockOutcome::ALL {
            let wanted = match late {
                LockOutcome::Locked => LockOutcome::Locked,
                _ => recorded,
            };
            assert_eq!(late_outcome(Some(recorded), late), Some(wanted));
        }
    }
    assert_eq!(late_outcome(None, LockOutcome::Failed), None);
}

fn at(seconds: u64, what: What) -> Event {
    Event {
        at: BEGAN.plus(Duration::from_secs(seconds)),
        late: None,
        what,
    }
}

/// An answer to what began at one moment, learned at another.
fn late(began: u64, learned: u64, what: What) -> Event {
    Event {
        late: Some(BEGAN.plus(Duration::from_secs(learned))),
        ..at(began, what)
    }
}

fn turned_off(name: &str, by_server_code: bool) -> What {
    What::TurnedOff {
        code: code(name),
        by_server_code,
    }
}

fn called(name: &str, outcome: LockOutcome) -> What {
    What::Called(code(name), ended(outcome))
}

fn stands(events: Vec<Event>) -> (OurLock, Evidence, Vec<(String, bool)>) {
    let standing = standing(events);
    let live = standing
        .live
        .iter()
        .map(|l| (l.code.0.clone(), l.confirmed))
        .collect();
    (standing.state, standing.evidence, live)
}

fn live(name: &str, confirmed: bool) -> Vec<(String, bool)> {
    vec![(name.to_owned(), confirmed)]
}

const LAG: u64 = STATUS_LAGS.as_secs();

#[test]
fn r20_success_alone_confirms() {
    assert_eq!(stands(vec![]), (OurLock::None, Evidence::Nothing, vec![]));
    for &outcome in LockOutcome::ALL {
        let (state, _, codes) = stands(vec![at(0, called("a", outcome))]);
        let wanted = match outcome {
            LockOutcome::Locked => OurLock::Confirmed,
            LockOutcome::AlreadyLocked => OurLock::SomeoneElses,
            LockOutcome::Failed
            | LockOutcome::Undescribed
            | LockOutcome::Unknown
            | LockOutcome::Unexpected => OurLock::Unknown,
            _ => OurLock::None,
        };
        assert_eq!(state, wanted, "{outcome}");
        assert_eq!(
            codes.is_empty(),
            !matches!(wanted, OurLock::Confirmed | OurLock::Unknown),
            "{outcome}"
        );
    }
    for result in [CallResult::InFlight, CallResult::Lost] {
        let events = vec![at(0, What::Called(code("a"), result))];
        assert_eq!(
            stands(events),
            (OurLock::Unknown, Evidence::NoAnswer, live("a", false))
        );
    }
}

#[test]
fn r20_already_locked_after_a_lost_answer_stays_unknown_until_apple_says_user() {
    let lost = at(0, called("a", LockOutcome::Unknown));
    let already = at(30, called("a", LockOutcome::AlreadyLocked));
    let unknown = vec![lost, already];
    assert_eq!(
        stands(unknown.clone()),
        (OurLock::Unknown, Evidence::AlreadyLocked, live("a", false))
    );
    let mut user = unknown.clone();
    user.push(at(LAG, What::Said(LockStatus::User)));
    assert_eq!(
        stands(user),
        (OurLock::SomeoneElses, Evidence::Status, live("a", false)),
        "its code remains worth trying for ever (R4)"
    );
    let mut mdm = unknown.clone();
    mdm.push(at(LAG, What::Said(LockStatus::Mdm)));
    assert_eq!(stands(mdm).0, OurLock::Unknown);
    let mut none = unknown;
    none.push(at(LAG, What::Said(LockStatus::None)));
    assert_eq!(stands(none), (OurLock::None, Evidence::Status, vec![]));
}

#[test]
fn r20_a_status_soon_after_a_change_may_be_of_the_time_before_and_proves_nothing() {
    for said in [LockStatus::None, LockStatus::User] {
        let events = vec![
            at(0, called("a", LockOutcome::Locked)),
            at(LAG - 1, What::Said(said)),
        ];
        assert_eq!(stands(events).0, OurLock::Confirmed, "{said:?}");
    }
    // Where nothing was changed it counts at once.
    let events = vec![
        at(0, called("a", LockOutcome::AlreadyLocked)),
        at(1, What::Said(LockStatus::None)),
    ];
    assert_eq!(stands(events).0, OurLock::None);
}

#[test]
fn r15_a_200_with_a_server_code_ends_locked_by_us_and_one_with_a_device_code_does_not() {
    let off = |by_server_code| {
        vec![
            at(0, called("a", LockOutcome::Locked)),
            at(1, turned_off("a", by_server_code)),
        ]
    };
    assert_eq!(
        stands(off(true)),
        (OurLock::None, Evidence::TurnedOff, vec![])
    );
    assert_eq!(
        stands(off(false)),
        (OurLock::Unknown, Evidence::TurnedOff, live("a", false))
    );
    let foreign = vec![
        at(0, called("a", LockOutcome::AlreadyLocked)),
        at(1, turned_off("d", false)),
    ];
    assert_eq!(stands(foreign).0, OurLock::None);
}

#[test]
fn r4_a_new_success_is_the_only_live_code_since_the_first_lock_wins() {
    let events = vec![
        at(0, called("a", LockOutcome::Unknown)),
        at(1, called("b", LockOutcome::Locked)),
        at(2, called("b", LockOutcome::Unknown)),
    ];
    assert_eq!(
        stands(events),
        (OurLock::Confirmed, Evidence::Success, live("b", true))
    );
}

#[test]
fn r14_a_late_answer_is_of_the_time_of_its_call() {
    // The lock was on before its own code was accepted.
    let off = vec![
        late(0, 300, called("a", LockOutcome::Locked)),
        at(100, called("a", LockOutcome::AlreadyLocked)),
        at(200, turned_off("a", true)),
    ];
    assert_eq!(stands(off), (OurLock::None, Evidence::TurnedOff, vec![]));
    // What a lock with another code followed was over before that.
    let on = vec![
        late(0, 300, turned_off("b", true)),
        at(100, called("a", LockOutcome::Locked)),
    ];
    assert_eq!(
        stands(on),
        (OurLock::Confirmed, Evidence::Success, live("a", true))
    );
}

#[test]
fn r20_what_came_first_cannot_be_told_of_a_late_answer_and_is_unknown() {
    let same = vec![
        late(0, 300, turned_off("a", true)),
        at(100, called("a", LockOutcome::Locked)),
    ];
    assert_eq!(
        stands(same),
        (OurLock::Unknown, Evidence::NoAnswer, live("a", false))
    );
    let two = vec![
        late(0, 300, called("a", LockOutcome::Locked)),
        at(100, called("b", LockOutcome::Locked)),
    ];
    let (state, _, codes) = stands(two.clone());
    assert_eq!((state, codes.len()), (OurLock::Unknown, 2));
    let mut since = two;
    since.push(at(400, turned_off("b", true)));
    assert_eq!(
        stands(since).0,
        OurLock::None,
        "known again by what came since"
    );
}

#[test]
fn r4_a_code_without_an_answer_is_ours_again_when_a_lock_is_found_that_apple_had_not_told_of() {
    let mut events = vec![
        at(0, called("a", LockOutcome::Unknown)),
        at(LAG, What::Said(LockStatus::None)),
    ];
    assert_eq!(
        stands(events.clone()),
        (OurLock::None, Evidence::Status, vec![])
    );
    events.push(at(LAG + 60, called("a", LockOutcome::AlreadyLocked)));
    assert_eq!(
        stands(events.clone()),
        (OurLock::Unknown, Evidence::AlreadyLocked, live("a", false))
    );
    // Not where a lock of ours was certainly on and off meanwhile.
    events.insert(2, at(LAG + 20, called("b", LockOutcome::Locked)));
    events.insert(3, at(LAG + 40, turned_off("b", true)));
    assert_eq!(stands(events).0, OurLock::SomeoneElses);
}

fn any_result() -> impl Strategy<Value = CallResult> {
    prop_oneof![
        Just(CallResult::InFlight),
        Just(CallResult::Lost),
        proptest::sample::select(LockOutcome::ALL).prop_map(ended),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let what = prop_oneof![
        (proptest::sample::select(vec!["a", "b"]), any_result())
            .prop_map(|(name, result)| What::Called(code(name), result)),
        (proptest::sample::select(vec!["a", "b"]), any::<bool>())
            .prop_map(|(name, by_server_code)| turned_off(name, by_server_code)),
        proptest::sample::select(vec![LockStatus::Mdm, LockStatus::User, LockStatus::None])
            .prop_map(What::Said),
    ];
    let waited = prop_oneof![3 => Just(None), 1 => (0..2_000_u64).prop_map(Some)];
    (0..5_000_u64, waited, what).prop_map(|(seconds, waited, what)| match waited {
        Some(waited) => late(seconds, seconds + waited, what),
        None => at(seconds, what),
    })
}

proptest! {
    /// Confirmed rests on a SUCCESS; a call in doubt is forgotten by nothing but evidence that no lock of ours is on.
    #[test]
    fn r20_whatever_happens_nothing_is_confirmed_without_success_and_no_doubt_is_dropped(
        events in proptest::collection::vec(any_event(), 0..12)
    ) {
        let mut sorted = events.clone();
        sorted.sort_by_key(|e| e.at);
        let standing = standing(events);
        let is_success = |e: &Event| matches!(&e.what, What::Called(_, result) if *result == ended(LockOutcome::Locked));
        prop_assert_eq!(standing.state == OurLock::Confirmed, standing.live.iter().any(|l| l.confirmed));
        if standing.state == OurLock::Confirmed {
            prop_assert!(sorted.iter().any(is_success));
        }
        let clears = |e: &Event| {
            is_success(e)
                || matches!(e.what, What::TurnedOff { by_server_code: true, .. })
                || e.what == What::Said(LockStatus::None)
        };
        let after = sorted.iter().rposition(clears).map_or(0, |i| i + 1);
        for event in &sorted[after..] {
            if let What::Called(code, result) = &event.what
                && result.leaves_doubt()
            {
                prop_assert!(standing.live.iter().any(|l| l.code == *code));
                prop_assert!(standing.state != OurLock::None);
            }
        }
    }

    /// Whatever is answered, a lock is called locked only on SUCCESS, and no call is made while one is in flight.
    #[test]
    fn r20_whatever_is_answered_locked_is_said_of_success_alone(
        results in proptest::collection::vec(any_result(), 0..8), later in 0..8_000_u64
    ) {
        let mut lock = lock();
        lock.calls = results.iter().map(|result| call(*result, BEGAN)).collect();
        let step = next(&lock, BEGAN.plus(Duration::from_secs(later)));
        let success = results.contains(&ended(LockOutcome::Locked));
        prop_assert_eq!(step == Step::End(End::Locked), success);
        if results.contains(&CallResult::InFlight) {
            prop_assert!(step != Step::Call);
        }
    }
}
