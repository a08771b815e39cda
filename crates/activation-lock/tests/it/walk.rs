//! The state machine of an unlock, walked exhaustively: every answer of Apple at every call, to a depth.

use std::time::Duration;

use activation_lock::codes::{CodeId, Credential, Form, LockStatus, Try};
use activation_lock::operation::Backoff;
use activation_lock::time::Timestamp;
use activation_lock::unlock::{
    ATTEMPTS_AN_UNLOCK, AskedStatus, Attempt, AttemptResult, End, Outcome, Response, ReviewReason,
    Step, UNLOCK_DEADLINE, Unlock, WaitReason, late_outcome, next, outcome,
};

pub(crate) const BEGAN: Timestamp = Timestamp(1_000_000);

pub(crate) fn unlock() -> Unlock {
    Unlock {
        requested_at: BEGAN,
        resumed_at: None,
        deadline: BEGAN.plus(UNLOCK_DEADLINE),
        cancelled_by: None,
        insists: false,
        attempts: Vec::new(),
        spent_by_others_today: 0,
        epoch_opened_at: None,
        lock_requested_at: None,
        restored_at: None,
        status: AskedStatus::default(),
        backoff: Backoff::default(),
    }
}

pub(crate) fn tries(count: usize) -> Vec<Try> {
    (0..count)
        .map(|number| Try {
            code: CodeId(format!("code {number}")),
            form: Form::Reported,
            parses: true,
            uncapped: false,
            identity: activation_lock::device::DeviceIdentity {
                serial: "SERIAL1".parse().unwrap(),
                product_type: "iPad4,1".parse().unwrap(),
                imei: None,
                imei2: None,
                meid: None,
            },
            swapped: false,
            credential: Credential {
                id: "certificate".to_owned(),
                topic: "topic".to_owned(),
            },
        })
        .collect()
}

/// What may become of a call; `None` is a process that died meanwhile.
fn endings() -> Vec<Option<Outcome>> {
    let mut endings: Vec<_> = Outcome::ALL.iter().copied().map(Some).collect();
    endings.push(None);
    endings
}

pub(crate) fn ended(tried: &Try, how: Option<Outcome>, now: Timestamp) -> Attempt {
    Attempt {
        tried: tried.clone(),
        began_at: now,
        ended_at: Some(now),
        result: match how {
            Some(outcome) => AttemptResult::Ended {
                outcome,
                retry_after: None,
            },
            None => AttemptResult::Lost,
        },
        delegate_failed: false,
    }
}

fn outcomes(unlock: &Unlock) -> Vec<Option<Outcome>> {
    unlock
        .attempts
        .iter()
        .map(|attempt| match attempt.result {
            AttemptResult::Ended { outcome, .. } => Some(outcome),
            AttemptResult::Lost | AttemptResult::InFlight => None,
        })
        .collect()
}

/// Walks on from here, and counts the ends.
fn walk(unlock: &Unlock, tries: &[Try], now: Timestamp, depth: usize, ends: &mut usize) {
    let so_far = outcomes(unlock);
    let last = so_far.last().copied();
    match next(unlock, tries, tries.len(), now) {
        Step::AskStatus => panic!("there is nobody to ask: {so_far:?}"),
        Step::End(end) => {
            *ends += 1;
            holds_at_the_end(unlock, tries, &end, now);
        }
        Step::Await => panic!("nothing is in flight: {so_far:?}"),
        Step::Wait { until, why } => {
            assert!(until > now, "a wait is for something to come: {so_far:?}");
            let expected = match last {
                Some(Some(Outcome::Credential)) => WaitReason::Credential,
                Some(Some(Outcome::Unavailable)) => WaitReason::Unavailable,
                Some(Some(Outcome::Unknown) | None) => WaitReason::NoAnswer,
                other => panic!("nothing to wait for after {other:?}"),
            };
            assert_eq!(why, expected, "{so_far:?}");
            walk(unlock, tries, until, depth, ends);
        }
        Step::Try(chosen) => {
            // R14: while nothing definite is known of a code, no other is spent.
            if let Some(Some(Outcome::Unavailable | Outcome::Unknown) | None) = last {
                let before = &unlock.attempts.last().unwrap().tried;
                assert!(chosen.is_same(before), "another code after {so_far:?}");
            }
            let refused = unlock.attempts.iter().any(|attempt| {
                attempt.tried.is_same(&chosen)
                    && matches!(
                        attempt.result,
                        AttemptResult::Ended {
                            outcome: Outcome::Refused,
                            ..
                        }
                    )
            });
            assert!(!refused, "a refused code is tried again: {so_far:?}");
            let mut spent: Vec<&CodeId> = unlock
                .attempts
                .iter()
                .filter(|attempt| attempt.may_have_spent())
                .map(|attempt| &attempt.tried.code)
                .collect();
            spent.sort();
            spent.dedup();
            assert!(
                spent.contains(&&chosen.code) || spent.len() < ATTEMPTS_AN_UNLOCK,
                "beyond the cap: {so_far:?}"
            );
            if depth == 0 {
                return;
            }
            for ending in endings() {
                let mut further = unlock.clone();
                further.attempts.push(ended(&chosen, ending, now));
                let later = now.plus(Duration::from_millis(1));
                walk(&further, tries, later, depth - 1, ends);
            }
        }
    }
}

fn holds_at_the_end(unlock: &Unlock, tries: &[Try], end: &End, now: Timestamp) {
    let so_far = outcomes(unlock);
    let was = |outcome| so_far.contains(&Some(outcome));
    let all_refused = tries.iter().all(|one| {
        unlock.attempts.iter().any(|attempt| {
            attempt.tried.is_same(one)
                && matches!(
                    attempt.result,
                    AttemptResult::Ended {
                        outcome: Outcome::Refused,
                        ..
                    }
                )
        })
    });
    let said = format!("{end:?} after {so_far:?}");
    match end {
        End::Unlocked { .. } => assert!(was(Outcome::Unlocked), "{said}"),
        _ => assert!(!was(Outcome::Unlocked), "{said}"),
    }
    match end {
        End::Unlocked { .. } => {}
        End::Rejected { .. } => {
            assert!(all_refused, "{said}");
            assert!(!was(Outcome::Unknown) && !so_far.contains(&None), "{said}");
        }
        End::ProbablyUnlocked => assert!(all_refused && was(Outcome::Unknown), "{said}"),
        End::NeedsReview { why, .. } => match why {
            ReviewReason::PossiblyDone => {
                assert!(all_refused && so_far.contains(&None), "{said}");
            }
            ReviewReason::Malformed => assert!(was(Outcome::Malformed), "{said}"),
            ReviewReason::Unexpected => assert!(was(Outcome::Unexpected), "{said}"),
            ReviewReason::Deadline => assert!(now >= unlock.deadline, "{said}"),
            other => panic!("{other}: {said}"),
        },
        End::NotLocked | End::Cancelled { .. } => panic!("{said}"),
    }
}

#[test]
fn r15_every_history_of_answers_ends_in_what_may_be_said_of_it() {
    let mut ends = 0;
    for count in 1..=3 {
        walk(&unlock(), &tries(count), BEGAN, 6, &mut ends);
    }
    assert!(ends > 10_000, "the walk went nowhere: {ends} ends");
}

#[test]
fn r12_at_most_six_codes_an_unlock_and_live_ones_outside_of_that() {
    let mut tries = tries(9);
    tries[8].uncapped = true;
    let (mut unlock, mut now) = (unlock(), BEGAN);
    let mut sent = Vec::new();
    let end = loop {
        match next(&unlock, &tries, tries.len(), now) {
            Step::Try(chosen) => {
                sent.push(chosen.code.0.clone());
                unlock
                    .attempts
                    .push(ended(&chosen, Some(Outcome::Refused), now));
                now = now.plus(Duration::from_secs(1));
            }
            Step::End(end) => break end,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(sent.len(), ATTEMPTS_AN_UNLOCK + 1);
    assert_eq!(sent.last().unwrap(), "code 8");
    assert_eq!(
        end,
        End::NeedsReview {
            why: ReviewReason::Cap,
            untried: 2
        }
    );
    // A person lets it go on: the rest is tried.
    unlock.resumed_at = Some(now);
    assert!(matches!(
        next(&unlock, &tries, tries.len(), now),
        Step::Try(chosen) if chosen.code.0 == "code 6"
    ));
}

#[test]
fn r13_the_outcome_of_every_status_is_the_rules_own() {
    for code in 100..=599_u16 {
        for retry_after in [false, true] {
            let expected = match code {
                200 => Outcome::Unlocked,
                404 => Outcome::Refused,
                400 => Outcome::Malformed,
                401 | 403 => Outcome::Credential,
                429 => Outcome::Unavailable,
                503 if retry_after => Outcome::Unavailable,
                408 | 500.. => Outcome::Unknown,
                201..=299 => Outcome::Unknown,
                _ => Outcome::Unexpected,
            };
            assert_eq!(
                outcome(Response::Status { code, retry_after }),
                expected,
                "{code}"
            );
        }
    }
    assert_eq!(outcome(Response::TlsRefused), Outcome::Credential);
    assert_eq!(outcome(Response::NotSent), Outcome::Unavailable);
    assert_eq!(outcome(Response::NoAnswer), Outcome::Unknown);
    let statuses: Vec<u8> = Outcome::ALL.iter().map(|one| one.exit_status()).collect();
    assert_eq!(statuses, [0, 3, 4, 5, 6, 7, 4]);
}

#[test]
fn r14_a_late_answer_raises_and_lowers_nothing() {
    for recorded in [
        None,
        Some(Outcome::Unknown),
        Some(Outcome::Refused),
        Some(Outcome::Unlocked),
    ] {
        for late in Outcome::ALL.iter().copied() {
            let expected = if late == Outcome::Unlocked {
                Some(late)
            } else {
                recorded
            };
            assert_eq!(late_outcome(recorded, late), expected);
        }
    }
}

#[test]
fn r15_what_happened_since_the_request_is_for_a_person() {
    let later = BEGAN.plus(Duration::from_secs(1));
    let tries = tries(1);
    let review = |change: &dyn Fn(&mut Unlock)| {
        let mut unlock = unlock();
        change(&mut unlock);
        match next(&unlock, &tries, 1, later) {
            Step::End(End::NeedsReview { why, .. }) => Some(why),
            _ => None,
        }
    };
    assert_eq!(
        review(&|u| u.epoch_opened_at = Some(later)),
        Some(ReviewReason::NewEpoch)
    );
    assert_eq!(
        review(&|u| u.lock_requested_at = Some(later)),
        Some(ReviewReason::LockedSince)
    );
    assert_eq!(
        review(&|u| u.restored_at = Some(later)),
        Some(ReviewReason::Restored)
    );
    assert_eq!(
        review(&|u| u.deadline = later),
        Some(ReviewReason::Deadline)
    );
    assert_eq!(review(&|_| {}), None);
    // What was so before the request stops nothing.
    assert_eq!(review(&|u| u.epoch_opened_at = Some(BEGAN)), None);
}

#[test]
fn r12_apples_none_stops_it_unless_the_person_insists() {
    let mut unlock = unlock();
    unlock.status.said = Some(LockStatus::None);
    let tries = tries(1);
    assert_eq!(next(&unlock, &tries, 1, BEGAN), Step::End(End::NotLocked));
    unlock.insists = true;
    assert!(matches!(next(&unlock, &tries, 1, BEGAN), Step::Try(_)));
}

#[test]
fn r15_an_answer_in_flight_wins_over_a_wish_to_cancel() {
    let tries = tries(2);
    let mut unlock = unlock();
    unlock.cancelled_by = Some("anna".to_owned());
    let cancelled = Step::End(End::Cancelled {
        by: "anna".to_owned(),
    });
    assert_eq!(next(&unlock, &tries, 2, BEGAN), cancelled);
    let mut attempt = ended(&tries[0], Some(Outcome::Unlocked), BEGAN);
    attempt.result = AttemptResult::InFlight;
    unlock.attempts.push(attempt);
    assert_eq!(next(&unlock, &tries, 2, BEGAN), Step::Await);
    unlock.attempts[0].result = AttemptResult::Ended {
        outcome: Outcome::Unlocked,
        retry_after: None,
    };
    let unlocked = End::Unlocked {
        by: tries[0].code.clone(),
    };
    assert_eq!(next(&unlock, &tries, 2, BEGAN), Step::End(unlocked));
}
