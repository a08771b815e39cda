//! What the walk does not reach: codes that change while an unlock goes on, caps, and what a person mends (R12-R15).

use std::time::Duration;

use activation_lock::codes::{CodeId, Credential, LockStatus, Try};
use activation_lock::operation::Backoff;
use activation_lock::time::Timestamp;
use activation_lock::unlock::{
    ATTEMPTS_A_DEVICE_A_DAY, ATTEMPTS_AN_UNLOCK, AttemptResult, End, Outcome, RejectedWhy,
    ReviewReason, Step, Unlock, WaitReason, next,
};

use crate::walk::{BEGAN, ended, tries, unlock};

const SECOND: Duration = Duration::from_secs(1);

fn refused(unlock: &mut Unlock, tried: &Try, now: Timestamp) {
    let attempt = ended(tried, Some(Outcome::Refused), now);
    unlock.attempts.push(attempt);
}

fn step(unlock: &Unlock, tries: &[Try], now: Timestamp) -> Step {
    next(unlock, tries, tries.len(), now)
}

fn review(why: ReviewReason, untried: usize) -> Step {
    Step::End(End::NeedsReview { why, untried })
}

fn cannot_tell() -> Step {
    Step::End(End::Rejected {
        why: RejectedWhy::CannotTell,
    })
}

fn tried(step: Step) -> CodeId {
    match step {
        Step::Try(chosen) => chosen.code,
        other => panic!("a code is next: {other:?}"),
    }
}

#[test]
fn r12_codes_that_may_be_live_are_not_counted_in_the_caps() {
    let mut all = tries(ATTEMPTS_AN_UNLOCK + 2);
    all[0].uncapped = true;
    let (mut unlock, mut now) = (unlock(), BEGAN);
    for one in &all[..=ATTEMPTS_AN_UNLOCK] {
        assert_eq!(tried(step(&unlock, &all, now)), one.code);
        refused(&mut unlock, one, now);
        now = now.plus(SECOND);
    }
    assert_eq!(step(&unlock, &all, now), review(ReviewReason::Cap, 1));
}

#[test]
fn r12_what_other_unlocks_spent_today_counts_until_a_person_says_continue() {
    let mut all = tries(3);
    let (mut unlock, now) = (unlock(), BEGAN.plus(SECOND));
    unlock.spent_by_others_today = ATTEMPTS_A_DEVICE_A_DAY - 1;
    assert_eq!(tried(step(&unlock, &all, BEGAN)), all[0].code);
    refused(&mut unlock, &all[0], BEGAN);
    assert_eq!(step(&unlock, &all, now), review(ReviewReason::Cap, 2));
    all[2].uncapped = true;
    assert_eq!(tried(step(&unlock, &all, now)), all[2].code);
    unlock.resumed_at = Some(now);
    assert_eq!(tried(step(&unlock, &all, now)), all[1].code);
}

#[test]
fn r12_a_code_that_arrives_meanwhile_is_next_also_after_everything_was_refused() {
    let (mut unlock, mut all) = (unlock(), tries(2));
    for one in &all {
        refused(&mut unlock, one, BEGAN);
    }
    let later = BEGAN.plus(SECOND);
    assert_eq!(step(&unlock, &all, later), cannot_tell());
    let mut fresh = all[0].clone();
    fresh.code = CodeId("fresh".to_owned());
    all.insert(0, fresh);
    assert_eq!(tried(step(&unlock, &all, later)).0, "fresh");
}

#[test]
fn r13_a_text_that_is_no_code_may_be_malformed_and_the_search_goes_on() {
    let mut all = tries(3);
    all[0].parses = false;
    let (mut unlock, later) = (unlock(), BEGAN.plus(SECOND));
    let malformed = ended(&all[0], Some(Outcome::Malformed), BEGAN);
    unlock.attempts.push(malformed);
    assert_eq!(tried(step(&unlock, &all, later)), all[1].code);
    refused(&mut unlock, &all[1], BEGAN);
    refused(&mut unlock, &all[2], BEGAN);
    // Not every candidate answered 404.
    assert_eq!(
        step(&unlock, &all, later),
        review(ReviewReason::Malformed, 0)
    );
    // Nor is it "probably unlocked" when a call got no answer besides.
    let unknown = ended(&all[1], Some(Outcome::Unknown), BEGAN);
    unlock.attempts.insert(1, unknown);
    assert_eq!(
        step(&unlock, &all, later),
        review(ReviewReason::Malformed, 0)
    );
}

#[test]
fn r15_a_code_that_was_malformed_once_and_refused_after_continue_is_refused() {
    let all = tries(1);
    let (mut unlock, later) = (unlock(), BEGAN.plus(SECOND));
    let malformed = ended(&all[0], Some(Outcome::Malformed), BEGAN);
    unlock.attempts.push(malformed);
    assert_eq!(
        step(&unlock, &all, later),
        review(ReviewReason::Malformed, 1)
    );
    unlock.resumed_at = Some(later);
    assert_eq!(tried(step(&unlock, &all, later)), all[0].code);
    refused(&mut unlock, &all[0], later);
    assert_eq!(step(&unlock, &all, later), cannot_tell());
}

#[test]
fn r15_it_is_never_called_rejected_when_a_call_before_continue_got_no_answer() {
    let all = tries(2);
    for (how, end) in [
        (Some(Outcome::Unknown), Step::End(End::ProbablyUnlocked)),
        (None, review(ReviewReason::PossiblyDone, 0)),
    ] {
        let (mut unlock, later) = (unlock(), BEGAN.plus(SECOND));
        unlock.attempts.push(ended(&all[0], how, BEGAN));
        unlock.resumed_at = Some(later);
        refused(&mut unlock, &all[0], later);
        refused(&mut unlock, &all[1], later);
        assert_eq!(step(&unlock, &all, later), end);
    }
}

#[test]
fn r13_while_a_person_has_to_mend_the_certificate_no_code_is_sent() {
    let all = tries(2);
    let (mut unlock, later) = (unlock(), BEGAN.plus(SECOND));
    let credential = ended(&all[0], Some(Outcome::Credential), BEGAN);
    unlock.attempts.push(credential);
    let waits = |why| Step::Wait {
        until: unlock.deadline,
        why,
    };
    assert_eq!(step(&unlock, &all, later), waits(WaitReason::Credential));
    assert_eq!(
        next(&unlock, &[], all.len(), later),
        waits(WaitReason::NoCredential)
    );
    let with = |topic: &str| {
        let mut all = all.clone();
        for one in &mut all {
            one.credential = Credential {
                id: "another".to_owned(),
                topic: topic.to_owned(),
            };
        }
        all
    };
    // Renewed, or replaced by one of another topic: the same code again, for it was not to blame.
    for topic in ["topic", "another topic"] {
        assert_eq!(
            tried(step(&unlock, &with(topic), later)),
            all[0].code,
            "{topic}"
        );
    }
    // One more beside the bad one mends nothing as long as the bad one is to be used first.
    let both = [all.clone(), with("another topic")].concat();
    assert_eq!(step(&unlock, &both, later), waits(WaitReason::Credential));
}

#[test]
fn r13_a_retry_after_is_waited_for_and_one_of_no_time_at_all_is_no_licence_to_hurry() {
    let all = tries(2);
    let first = Backoff::default().first;
    for (asked, waited) in [
        (Duration::ZERO, first),
        (first * 9, first * 9),
        (Duration::MAX, unlock().deadline.since(BEGAN)),
    ] {
        let mut unlock = unlock();
        let mut attempt = ended(&all[0], Some(Outcome::Unavailable), BEGAN);
        attempt.result = AttemptResult::Ended {
            outcome: Outcome::Unavailable,
            retry_after: Some(asked),
        };
        unlock.attempts.push(attempt);
        let expected = Step::Wait {
            until: BEGAN.plus(waited),
            why: WaitReason::Unavailable,
        };
        assert_eq!(step(&unlock, &all, BEGAN), expected, "{asked:?}");
    }
}

#[test]
fn r15_a_definite_end_is_said_also_after_the_deadline() {
    let all = tries(1);
    let mut unlock = unlock();
    let late = unlock.deadline;
    assert_eq!(step(&unlock, &all, late), review(ReviewReason::Deadline, 1));
    assert_eq!(
        next(&unlock, &[], 0, late),
        review(ReviewReason::NoCandidate, 0)
    );
    refused(&mut unlock, &all[0], BEGAN);
    assert_eq!(step(&unlock, &all, late), cannot_tell());
    unlock.attempts[0] = ended(&all[0], Some(Outcome::Unknown), BEGAN);
    assert_eq!(step(&unlock, &all, late), review(ReviewReason::Deadline, 1));
}

#[test]
fn r12_apples_status_is_asked_for_before_the_first_call_and_again_when_all_was_refused() {
    let all = tries(2);
    let (mut unlock, now) = (unlock(), BEGAN.plus(SECOND));
    unlock.status.can_be_asked = true;
    unlock.status.asked_at = Some(BEGAN.minus(SECOND));
    assert_eq!(step(&unlock, &all, BEGAN), Step::AskStatus);
    // Asked in vain: nothing waits for it.
    unlock.status.asked_at = Some(BEGAN);
    assert_eq!(tried(step(&unlock, &all, BEGAN)), all[0].code);
    refused(&mut unlock, &all[0], now);
    assert_eq!(tried(step(&unlock, &all, now)), all[1].code);
    refused(&mut unlock, &all[1], now);
    assert_eq!(step(&unlock, &all, now), Step::AskStatus);
    unlock.status.asked_at = Some(now);
    assert_eq!(step(&unlock, &all, now), cannot_tell());
}

#[test]
fn t13_what_was_refused_is_explained_by_apples_status() {
    let all = tries(1);
    let mut unlock = unlock();
    unlock.insists = true;
    refused(&mut unlock, &all[0], BEGAN);
    for (said, end) in [
        (Some(LockStatus::None), End::NotLocked),
        (
            Some(LockStatus::User),
            End::Rejected {
                why: RejectedWhy::LockedByUser,
            },
        ),
        (
            Some(LockStatus::Mdm),
            End::Rejected {
                why: RejectedWhy::LockedByOrganisation,
            },
        ),
        (
            None,
            End::Rejected {
                why: RejectedWhy::CannotTell,
            },
        ),
    ] {
        unlock.status.said = said;
        assert_eq!(step(&unlock, &all, BEGAN), Step::End(end));
    }
    // A call without an answer is explained by a lock that is off, and by nothing else.
    let mut unknown = unlock.clone();
    let mut attempt = ended(&all[0], Some(Outcome::Unknown), BEGAN);
    attempt.began_at = BEGAN;
    unknown.attempts.insert(0, attempt);
    unknown.status.said = Some(LockStatus::User);
    assert_eq!(
        step(&unknown, &all, BEGAN),
        Step::End(End::ProbablyUnlocked)
    );
    unknown.status.said = Some(LockStatus::None);
    assert_eq!(step(&unknown, &all, BEGAN), Step::End(End::NotLocked));
}
