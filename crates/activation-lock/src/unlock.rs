//! An unlock: a person's wish to have a device's lock off, the calls made for it, and what may be said
//! about the device afterwards (R12-R15).
//!
//! [`outcome`] is the one reading of Apple's answers. [`next`] is the state machine: given what happened so
//! far it says what to do now. Nothing here knows a database or a clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codes::{CodeId, LockStatus, Try, named};
use crate::operation::{Backoff, StateName};
use crate::time::{DAY, Timestamp};

/// How one call ended, seen from the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Response {
    /// An HTTP status arrived.
    Status {
        /// The status.
        code: u16,
        /// Whether a usable `Retry-After` came with it.
        retry_after: bool,
    },
    /// TLS refused us, at any moment: an alert of the peer, or there was no usable certificate to show.
    TlsRefused,
    /// It failed before the first byte of the request was sent: name lookup, connection, the server's
    /// certificate.
    NotSent,
    /// It failed, or the time ran out, after a byte may have been sent.
    NoAnswer,
}

named! {
    /// What one call with one code meant (R13).
    Outcome {
        /// Apple accepted the code.
        Unlocked = "unlocked",
        /// Not this code, or not this device: Apple says both with 404.
        Refused = "refused",
        /// Apple could not read the request.
        Malformed = "malformed",
        /// Apple did not accept us; no code is blamed.
        Credential = "credential",
        /// Nothing was decided: Apple was not reached or asked us to come back.
        Unavailable = "unavailable",
        /// It may have happened or not.
        Unknown = "unknown",
        /// An answer nobody described.
        Unexpected = "unexpected",
    }
}

impl Outcome {
    /// The exit status of the one-shot command (R13).
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Unlocked => 0,
            Self::Refused => 3,
            Self::Malformed | Self::Unexpected => 4,
            Self::Credential => 5,
            Self::Unavailable => 6,
            Self::Unknown => 7,
        }
    }

    /// Whether the call may have used up one of Apple's (guessed) chances of a device.
    #[must_use]
    pub fn spends(self) -> bool {
        matches!(
            self,
            Self::Unlocked | Self::Refused | Self::Malformed | Self::Unknown
        )
    }
}

/// What a response means (R13). Total: every status and every failure has one outcome.
#[must_use]
pub fn outcome(response: Response) -> Outcome {
    match response {
        Response::Status { code: 200, .. } => Outcome::Unlocked,
        Response::Status { code: 404, .. } => Outcome::Refused,
        Response::Status { code: 400, .. } => Outcome::Malformed,
        Response::Status {
            code: 401 | 403, ..
        }
        | Response::TlsRefused => Outcome::Credential,
        Response::Status { code: 429, .. }
        | Response::Status {
            code: 503,
            retry_after: true,
        }
        | Response::NotSent => Outcome::Unavailable,
        Response::Status {
            code: 408 | 500..=599 | 200..=299,
            ..
        }
        | Response::NoAnswer => Outcome::Unknown,
        Response::Status { .. } => Outcome::Unexpected,
    }
}

/// What is on record of an attempt when it is later answered after all (R14): only an "unlocked" changes
/// anything.
#[must_use]
pub fn late_outcome(recorded: Option<Outcome>, late: Outcome) -> Option<Outcome> {
    if late == Outcome::Unlocked {
        Some(late)
    } else {
        recorded
    }
}

/// How an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptResult {
    /// Sent, or about to be; somebody holds the lease.
    InFlight,
    /// Begun by a process that died or lost its lease; read as unknown (R14).
    Lost,
    /// Ended.
    Ended {
        /// What it meant.
        outcome: Outcome,
        /// How long Apple asked us to wait.
        retry_after: Option<Duration>,
    },
}

/// One call, on record before it left (R17).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What was tried.
    pub tried: Try,
    /// When it was put on record.
    pub began_at: Timestamp,
    /// When it ended, or when it was found lost.
    pub ended_at: Option<Timestamp>,
    /// How it stands.
    pub result: AttemptResult,
    /// The call was made through an MDM, whose own error this was (R19): three of them end the search.
    pub delegate_failed: bool,
}

/// A wish to unlock and everything that bears on it.
#[derive(Clone, Debug)]
pub struct Unlock {
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When a person last said `continue`; counts and changes before it no longer stop the search.
    pub resumed_at: Option<Timestamp>,
    /// When it ends for want of an answer.
    pub deadline: Timestamp,
    /// Who asked to cancel.
    pub cancelled_by: Option<String>,
    /// The person wants it tried even though Apple says the device is not locked (R12).
    pub insists: bool,
    /// The calls so far, oldest first.
    pub attempts: Vec<Attempt>,
    /// Calls of other unlocks of this device in the last 24 hours that spent a chance.
    pub spent_by_others_today: usize,
    /// When the live epoch of the device was opened.
    pub epoch_opened_at: Option<Timestamp>,
    /// When a lock of ours was last asked for.
    pub lock_requested_at: Option<Timestamp>,
    /// When this record was restored from a backup or copied from another database (R21).
    pub restored_at: Option<Timestamp>,
    /// Apple's own word on the lock.
    pub status: AskedStatus,
    /// First and longest wait between calls that got no definite answer.
    pub backoff: Backoff,
}

/// Apple's own word on the lock, as far as it was asked for (contract sheet, section 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskedStatus {
    /// Whether it can be asked for at all.
    pub can_be_asked: bool,
    /// When it was last asked for, answered or not.
    pub asked_at: Option<Timestamp>,
    /// What it said, if it was read after the request or the last `continue`.
    pub said: Option<LockStatus>,
}

impl AskedStatus {
    /// Whether to ask, so that the word is not older than a moment.
    fn is_wanted(&self, since: Timestamp) -> bool {
        self.can_be_asked && self.asked_at.is_none_or(|at| at < since)
    }
}

/// Calls of one unlock that spend a chance, at most (R12).
pub const ATTEMPTS_AN_UNLOCK: usize = 6;
/// Calls for one device in 24 hours that spend a chance, at most (R12).
pub const ATTEMPTS_A_DEVICE_A_DAY: usize = 10;
/// How long an unlock may take (R15).
pub const UNLOCK_DEADLINE: Duration = DAY;

named! {
    /// What an unlock waits for.
    WaitReason {
        /// Apple could not be reached or asked us to come back.
        Unavailable = "unavailable",
        /// The last call got no answer; the same code is asked about again.
        NoAnswer = "no_answer",
        /// Apple did not accept our certificate, or the MDM our key; a person has to mend it.
        Credential = "credential",
        /// There is no push certificate, and no MDM to call Apple for us.
        NoCredential = "no_credential",
    }
}

named! {
    /// Why a person has to look.
    ReviewReason {
        /// Apple could not read the request (400).
        Malformed = "malformed",
        /// An answer nobody described.
        Unexpected = "unexpected",
        /// The cap was reached with codes left to try.
        Cap = "cap",
        /// No code of the device is known.
        NoCandidate = "no_candidate",
        /// No product type is known, which Apple demands.
        NoProductType = "no_product_type",
        /// No definite answer in time.
        Deadline = "deadline",
        /// The device was enrolled anew since the request.
        NewEpoch = "new_epoch",
        /// A lock was asked for since the request.
        LockedSince = "locked_since",
        /// Every code was refused, but one may have worked before a crash.
        PossiblyDone = "possibly_done",
        /// Restored from a backup: nothing fires by itself (R21).
        Restored = "restored",
        /// The MDM that calls Apple for us failed three times (R19).
        DelegateFails = "delegate_fails",
    }
}

named! {
    /// Why every code was refused, from Apple's own status (contract sheet T13).
    RejectedWhy {
        /// A person's lock, of which no code is held.
        LockedByUser = "locked_by_user",
        /// A lock of the organisation, which no code held opens.
        LockedByOrganisation = "locked_by_organisation",
        /// Apple's status is not known.
        CannotTell = "cannot_tell",
    }
}

/// How an unlock ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Apple answered 200 to this code.
    Unlocked {
        /// The code that did it.
        by: CodeId,
    },
    /// Every code was refused, but a call got no answer that may have worked.
    ProbablyUnlocked,
    /// Every code was refused.
    Rejected {
        /// What Apple's status says about it.
        why: RejectedWhy,
    },
    /// Apple's status says the device is not locked.
    NotLocked,
    /// A person has to look.
    NeedsReview {
        /// Why.
        why: ReviewReason,
        /// Tries left undone.
        untried: usize,
    },
    /// Cancelled before anything was decided.
    Cancelled {
        /// Who asked.
        by: String,
    },
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask for Apple's status of the lock first.
    AskStatus,
    /// Call Apple with this.
    Try(Box<Try>),
    /// A call is in flight; its answer decides.
    Await,
    /// Do nothing until then.
    Wait {
        /// When to look again.
        until: Timestamp,
        /// What is waited for.
        why: WaitReason,
    },
    /// It is over.
    End(End),
}

/// What to do now (R12-R15).
///
/// `tries` is a fresh [`crate::codes::order`]: it is read again before every attempt, so that a code that
/// arrived meanwhile is next. `candidates` is the number of codes of the device: with codes but no
/// credential there is nothing to try and something to wait for.
#[must_use]
pub fn next(unlock: &Unlock, tries: &[Try], candidates: usize, now: Timestamp) -> Step {
    if let Some(by) = unlock.attempts.iter().find_map(unlocked_by) {
        return Step::End(End::Unlocked { by });
    }
    if unlock
        .attempts
        .iter()
        .any(|a| a.result == AttemptResult::InFlight)
    {
        return Step::Await;
    }
    let undone = || tries.iter().filter(|t| !is_settled(unlock, t)).count();
    let review = |why| {
        Step::End(End::NeedsReview {
            why,
            untried: undone(),
        })
    };
    if let Some(by) = &unlock.cancelled_by {
        return Step::End(End::Cancelled { by: by.clone() });
    }
    let since = unlock.since();
    let after = |moment: Option<Timestamp>| moment.is_some_and(|m| m > since);
    if after(unlock.restored_at) {
        return review(ReviewReason::Restored);
    }
    if unlock.status.said == Some(LockStatus::None) && !unlock.insists {
        return Step::End(End::NotLocked);
    }
    if after(unlock.epoch_opened_at) {
        return review(ReviewReason::NewEpoch);
    }
    if after(unlock.lock_requested_at) {
        return review(ReviewReason::LockedSince);
    }
    if candidates == 0 {
        return review(ReviewReason::NoCandidate);
    }
    let step = match after_last_attempt(unlock, tries, now) {
        Onward::Stop(why) => return review(why),
        Onward::Step(step) => step,
        Onward::NextCandidate => next_candidate(unlock, tries, review),
    };
    let last = unlock.recent().next_back();
    match step {
        // What is definite is said whenever it comes; for another call there is no time.
        Step::Try(_) | Step::Wait { .. } if now >= unlock.deadline => {
            review(ReviewReason::Deadline)
        }
        // Whose lock it is decides which codes come first; and whether it is on, whether any should (R12).
        Step::Try(_) if last.is_none() && unlock.status.is_wanted(since) => Step::AskStatus,
        // It may have changed by our own calls, and explains what came of them.
        Step::End(
            End::Rejected { .. }
            | End::ProbablyUnlocked
            | End::NotLocked
            | End::NeedsReview {
                why: ReviewReason::PossiblyDone,
                ..
            },
        ) if last.is_some_and(|last| {
            unlock
                .status
                .is_wanted(last.ended_at.unwrap_or(last.began_at))
        }) =>
        {
            Step::AskStatus
        }
        step => step,
    }
}

/// The first try without a definite answer that the caps allow; an end when there is none.
fn next_candidate(unlock: &Unlock, tries: &[Try], review: impl Fn(ReviewReason) -> Step) -> Step {
    if tries.is_empty() {
        return Step::Wait {
            until: unlock.deadline,
            why: WaitReason::NoCredential,
        };
    }
    let spent = unlock.spent();
    let capped = spent >= ATTEMPTS_AN_UNLOCK
        || (unlock.resumed_at.is_none()
            && spent + unlock.spent_by_others_today >= ATTEMPTS_A_DEVICE_A_DAY);
    let open: Vec<&Try> = tries.iter().filter(|t| !is_settled(unlock, t)).collect();
    match open.iter().find(|t| !capped || t.uncapped) {
        Some(next) => Step::Try(Box::new((*next).clone())),
        None if open.is_empty() => all_refused(unlock, review),
        None => review(ReviewReason::Cap),
    }
}

impl Unlock {
    fn since(&self) -> Timestamp {
        self.resumed_at.unwrap_or(self.requested_at)
    }

    /// Attempts since the request or the last `continue`.
    fn recent(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        let since = self.since();
        self.attempts.iter().filter(move |a| a.began_at >= since)
    }

    /// What counts against the cap of an unlock, since the request or the last `continue`.
    fn spent(&self) -> usize {
        spent(self.recent())
    }
}

/// How much of the caps these calls of one unlock use up (R12): distinct triples that may have used up a chance. Asking about the
/// same one again does not count, nor do codes that may be live.
pub fn spent<'a>(attempts: impl Iterator<Item = &'a Attempt>) -> usize {
    let mut spent: Vec<&Try> = Vec::new();
    for attempt in attempts.filter(|a| a.may_have_spent() && !a.tried.uncapped) {
        if !spent.iter().any(|t| t.is_same(&attempt.tried)) {
            spent.push(&attempt.tried);
        }
    }
    spent.len()
}

impl Attempt {
    /// Whether the call may have used up one of Apple's (guessed) chances of a device.
    #[must_use]
    pub fn may_have_spent(&self) -> bool {
        match self.result {
            AttemptResult::InFlight | AttemptResult::Lost => true,
            AttemptResult::Ended { outcome, .. } => outcome.spends(),
        }
    }
}

fn unlocked_by(attempt: &Attempt) -> Option<CodeId> {
    matches!(
        attempt.result,
        AttemptResult::Ended {
            outcome: Outcome::Unlocked,
            ..
        }
    )
    .then(|| attempt.tried.code.clone())
}

/// Whether a try has had a definite answer in this unlock, so that it is not made again.
fn is_settled(unlock: &Unlock, candidate: &Try) -> bool {
    unlock.attempts.iter().any(|a| {
        a.tried.is_same(candidate)
            && match a.result {
                AttemptResult::Ended {
                    outcome: Outcome::Refused,
                    ..
                } => true,
                AttemptResult::Ended {
                    outcome: Outcome::Malformed,
                    ..
                } => !a.tried.parses,
                _ => false,
            }
    })
}

enum Onward {
    NextCandidate,
    Step(Step),
    Stop(ReviewReason),
}

/// What the last call since the request, or since the last `continue`, allows.
fn after_last_attempt(unlock: &Unlock, tries: &[Try], now: Timestamp) -> Onward {
    let Some(last) = unlock.recent().next_back() else {
        return Onward::NextCandidate;
    };
    let (outcome, retry_after) = match last.result {
        AttemptResult::Ended {
            outcome,
            retry_after,
        } => (outcome, retry_after),
        AttemptResult::Lost | AttemptResult::InFlight => (Outcome::Unknown, None),
    };
    let same = tries.iter().find(|t| t.is_same(&last.tried));
    match outcome {
        Outcome::Refused | Outcome::Unlocked => Onward::NextCandidate,
        Outcome::Malformed if !last.tried.parses => Onward::NextCandidate,
        Outcome::Malformed => Onward::Stop(ReviewReason::Malformed),
        Outcome::Unexpected => Onward::Stop(ReviewReason::Unexpected),
        Outcome::Credential => match same {
            Some(again) if again.credential.id != last.tried.credential.id => {
                Onward::Step(Step::Try(Box::new(again.clone())))
            }
            // The one that was not accepted is not used any more.
            _ if !tries
                .iter()
                .any(|t| t.credential.id == last.tried.credential.id) =>
            {
                Onward::NextCandidate
            }
            _ => Onward::Step(Step::Wait {
                until: unlock.deadline,
                why: WaitReason::Credential,
            }),
        },
        Outcome::Unavailable | Outcome::Unknown => {
            let delegate_failures = unlock.recent().filter(|a| a.delegate_failed).count();
            if delegate_failures >= 3 {
                return Onward::Stop(ReviewReason::DelegateFails);
            }
            let why = if outcome == Outcome::Unknown {
                WaitReason::NoAnswer
            } else {
                WaitReason::Unavailable
            };
            let wait = match retry_after {
                // "At once" from a server that cannot help is no reason to hurry.
                Some(asked) => asked.max(unlock.backoff.first),
                None => unlock.backoff.after(failures_in_a_row(unlock)),
            };
            let until = last
                .ended_at
                .unwrap_or(last.began_at)
                .plus(wait)
                .min(unlock.deadline);
            match same {
                _ if now < until => Onward::Step(Step::Wait { until, why }),
                Some(again) => Onward::Step(Step::Try(Box::new(again.clone()))),
                // Its code was purged or its certificate removed: nothing is left to ask about it.
                None => Onward::NextCandidate,
            }
        }
    }
}

fn failures_in_a_row(unlock: &Unlock) -> usize {
    unlock
        .recent()
        .rev()
        .take_while(|a| {
            matches!(
                a.result,
                AttemptResult::Lost
                    | AttemptResult::Ended {
                        outcome: Outcome::Unavailable | Outcome::Unknown,
                        ..
                    }
            )
        })
        .count()
}

/// Everything was tried and nothing worked: what may be said (R15).
fn all_refused(unlock: &Unlock, review: impl Fn(ReviewReason) -> Step) -> Step {
    let ended_as = |attempt: &Attempt, wanted| matches!(attempt.result, AttemptResult::Ended { outcome, .. } if outcome == wanted);
    let any = |wanted: &dyn Fn(&Attempt) -> bool| unlock.attempts.iter().any(wanted);
    let is_refused =
        |tried: &Try| any(&|a| ended_as(a, Outcome::Refused) && a.tried.is_same(tried));
    if any(&|a| ended_as(a, Outcome::Malformed) && !is_refused(&a.tried)) {
        // Not every candidate answered 404, whatever else happened.
        review(ReviewReason::Malformed)
    } else if unlock.status.said == Some(LockStatus::None) {
        Step::End(End::NotLocked)
    } else if any(&|a| ended_as(a, Outcome::Unknown)) {
        Step::End(End::ProbablyUnlocked)
    } else if any(&|a| a.result == AttemptResult::Lost) {
        review(ReviewReason::PossiblyDone)
    } else {
        let why = match unlock.status.said {
            Some(LockStatus::User) => RejectedWhy::LockedByUser,
            Some(LockStatus::Mdm) => RejectedWhy::LockedByOrganisation,
            Some(LockStatus::None) | None => RejectedWhy::CannotTell,
        };
        Step::End(End::Rejected { why })
    }
}

impl End {
    /// The name of the state it leaves the unlock in.
    #[must_use]
    pub fn state(&self) -> StateName {
        match self {
            Self::Unlocked { .. } => StateName::Unlocked,
            Self::ProbablyUnlocked => StateName::ProbablyUnlocked,
            Self::Rejected { .. } => StateName::Rejected,
            Self::NotLocked => StateName::NotLocked,
            Self::NeedsReview { .. } => StateName::NeedsReview,
            Self::Cancelled { .. } => StateName::Cancelled,
        }
    }
}

/// The state after a late answer (R14): a late "unlocked" raises every other state, nothing else changes it.
#[must_use]
pub fn late_state(state: StateName, late: Outcome) -> StateName {
    if late == Outcome::Unlocked {
        StateName::Unlocked
    } else {
        state
    }
}
