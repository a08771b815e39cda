//! A lock by the organisation: the wish, the calls made for it, and how our lock on a device stands (R4, R20).
//!
//! [`outcome`] is the one reading of what Apple's device enrolment service answers, [`next`] the state machine of one wish,
//! and [`standing`] folds everything that ever happened to a device's lock into what may be said of it today. Nothing here
//! knows a database or a clock.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codes::{CodeId, LockStatus, named};
use crate::operation::{Backoff, StateName};
use crate::time::Timestamp;

mod standing;

pub use standing::{Event, Evidence, LiveCode, OurLock, STATUS_LAGS, Standing, What, standing};

/// A lock ends for want of an answer after so long (R15).
pub const LOCK_DEADLINE: Duration = Duration::from_secs(60 * 60);
/// A `FAILED` is asked about again so often in all, as Apple advises a retry before calling support (contract sheet 2a).
pub const TRIES_AFTER_FAILED: usize = 3;

/// The most of a `response_status` nobody described that is kept, in characters.
const STATUS_LIMIT: usize = 200;

/// What Apple's service said of one device: `response_status` of the answer (contract sheet 2a).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ResponseStatus {
    /// Locked, by this very call.
    Success,
    /// The service of this token does not have the device.
    NotAccessible,
    /// The device is not in the organisation's programme.
    OrgNotSupported,
    /// Such devices cannot be locked this way.
    DeviceNotSupported,
    /// Somebody, a person or an organisation, holds the lock already.
    DeviceAlreadyLocked,
    /// Something went wrong at Apple. What became of the lock is not said.
    Failed,
    /// A word nobody described, kept as it came. It is no success.
    Other(String),
}

impl ResponseStatus {
    /// Reads the word; one that is not known is kept (the first 200 characters of it).
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        match text {
            "SUCCESS" => Self::Success,
            "NOT_ACCESSIBLE" => Self::NotAccessible,
            "ORG_NOT_SUPPORTED" => Self::OrgNotSupported,
            "DEVICE_NOT_SUPPORTED" => Self::DeviceNotSupported,
            "DEVICE_ALREADY_LOCKED" => Self::DeviceAlreadyLocked,
            "FAILED" => Self::Failed,
            other => Self::Other(other.chars().take(STATUS_LIMIT).collect()),
        }
    }

    /// The word as Apple writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Success => "SUCCESS",
            Self::NotAccessible => "NOT_ACCESSIBLE",
            Self::OrgNotSupported => "ORG_NOT_SUPPORTED",
            Self::DeviceNotSupported => "DEVICE_NOT_SUPPORTED",
            Self::DeviceAlreadyLocked => "DEVICE_ALREADY_LOCKED",
            Self::Failed => "FAILED",
            Self::Other(text) => text,
        }
    }
}

impl fmt::Display for ResponseStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How one call ended, seen from the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// HTTP 200 with a readable body about this very device.
    Answered(ResponseStatus),
    /// HTTP 200 whose body could not be read, or was about another device.
    Unreadable,
    /// Another HTTP status to the lock call itself.
    Status {
        /// The status.
        code: u16,
        /// Whether a usable `Retry-After` came with it.
        retry_after: bool,
        /// What the body named.
        trouble: Option<Trouble>,
    },
    /// There was no session to call with: the server token is expired or was not accepted. The lock call did not leave.
    TokenRefused,
    /// TLS refused us, at any moment.
    TlsRefused,
    /// It failed before the first byte of the lock call was sent.
    NotSent,
    /// It failed, or the time ran out, after a byte of the lock call may have been sent.
    NoAnswer,
}

named! {
    /// What a refusal of the service names, which a person has to mend (contract sheet 2.23).
    Trouble {
        /// `T_C_NOT_SIGNED`: Apple's new terms were not accepted by the organisation.
        TermsNotSigned = "terms_not_signed",
        /// `ACCESS_DENIED`: the token may not do this.
        AccessDenied = "access_denied",
    }
}

named! {
    /// What one call meant. Only [`LockOutcome::Locked`] says that the lock is on by it.
    LockOutcome {
        /// `SUCCESS`.
        Locked = "locked",
        /// `DEVICE_ALREADY_LOCKED`: a lock is on; whose, this does not say (R20).
        AlreadyLocked = "already_locked",
        /// `NOT_ACCESSIBLE`.
        NotAccessible = "not_accessible",
        /// `ORG_NOT_SUPPORTED`.
        OrgNotSupported = "org_not_supported",
        /// `DEVICE_NOT_SUPPORTED`.
        DeviceNotSupported = "device_not_supported",
        /// `FAILED`: it may be on or not (R4).
        Failed = "failed",
        /// A `response_status` nobody described: it may be on or not.
        Undescribed = "undescribed",
        /// Apple could not read the request (400).
        Malformed = "malformed",
        /// Apple did not accept the server token.
        Credential = "credential",
        /// Apple's terms have to be accepted by a person first.
        TermsNotSigned = "terms_not_signed",
        /// Apple does not let the organisation's server do this (`ACCESS_DENIED`).
        AccessDenied = "access_denied",
        /// Nothing was decided: Apple was not reached or asked us to come back.
        Unavailable = "unavailable",
        /// It may have happened or not.
        Unknown = "unknown",
        /// An answer nobody described.
        Unexpected = "unexpected",
    }
}

/// What a response means. Total: every status and every failure has one outcome.
#[must_use]
pub fn outcome(response: &Response) -> LockOutcome {
    match response {
        Response::Answered(status) => match status {
            ResponseStatus::Success => LockOutcome::Locked,
            ResponseStatus::NotAccessible => LockOutcome::NotAccessible,
            ResponseStatus::OrgNotSupported => LockOutcome::OrgNotSupported,
            ResponseStatus::DeviceNotSupported => LockOutcome::DeviceNotSupported,
            ResponseStatus::DeviceAlreadyLocked => LockOutcome::AlreadyLocked,
            ResponseStatus::Failed => LockOutcome::Failed,
            ResponseStatus::Other(_) => LockOutcome::Undescribed,
        },
        Response::Status {
            trouble: Some(Trouble::TermsNotSigned),
            ..
        } => LockOutcome::TermsNotSigned,
        Response::Status {
            code: 401 | 403,
            trouble: Some(Trouble::AccessDenied),
            ..
        } => LockOutcome::AccessDenied,
        Response::Status { code: 400, .. } => LockOutcome::Malformed,
        Response::Status {
            code: 401 | 403, ..
        }
        | Response::TokenRefused
        | Response::TlsRefused => LockOutcome::Credential,
        Response::Status { code: 429, .. }
        | Response::Status {
            code: 503,
            retry_after: true,
            ..
        }
        | Response::NotSent => LockOutcome::Unavailable,
        Response::Status {
            code: 408 | 500..=599 | 200..=299,
            ..
        }
        | Response::Unreadable
        | Response::NoAnswer => LockOutcome::Unknown,
        Response::Status { .. } => LockOutcome::Unexpected,
    }
}

impl LockOutcome {
    /// The exit status of the one-shot command; the same numbers as for an unlock (R13).
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Locked => 0,
            Self::AlreadyLocked
            | Self::NotAccessible
            | Self::OrgNotSupported
            | Self::DeviceNotSupported => 3,
            Self::Malformed | Self::Unexpected => 4,
            Self::Credential | Self::TermsNotSigned | Self::AccessDenied => 5,
            Self::Unavailable => 6,
            Self::Unknown | Self::Failed | Self::Undescribed => 7,
        }
    }

    /// Whether the lock may be on by this call without our knowing: its code remains worth trying for ever (R4).
    #[must_use]
    pub fn leaves_doubt(self) -> bool {
        matches!(
            self,
            Self::Failed | Self::Undescribed | Self::Unknown | Self::Unexpected
        )
    }
}

/// How a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallResult {
    /// Sent, or about to be; somebody holds the lease.
    InFlight,
    /// Begun by a process that died or lost its lease; read as unknown.
    Lost,
    /// Ended.
    Ended {
        /// What it meant.
        outcome: LockOutcome,
        /// How long Apple asked us to wait.
        retry_after: Option<Duration>,
    },
}

impl CallResult {
    /// Whether it is an answer that means this.
    #[must_use]
    pub fn is(self, wanted: LockOutcome) -> bool {
        matches!(self, Self::Ended { outcome, .. } if outcome == wanted)
    }

    /// Whether the lock may be on by this call without our knowing.
    #[must_use]
    pub fn leaves_doubt(self) -> bool {
        match self {
            Self::InFlight | Self::Lost => true,
            Self::Ended { outcome, .. } => outcome.leaves_doubt(),
        }
    }
}

/// One call, on record before it left (R17).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The code whose hash was sent.
    pub code: CodeId,
    /// What authenticated us: the server token, by its identifier.
    pub credential: String,
    /// When it was put on record.
    pub began_at: Timestamp,
    /// When it ended, or when it was found lost.
    pub ended_at: Option<Timestamp>,
    /// How it stands.
    pub result: CallResult,
}

impl Call {
    fn ended_as(&self, wanted: LockOutcome) -> bool {
        matches!(self.result, CallResult::Ended { outcome, .. } if outcome == wanted)
    }
}

/// What can authenticate a call now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Its identifier; another one after every renewal.
    pub id: String,
    /// When it was last found to work again after it had not.
    pub mended_at: Option<Timestamp>,
}

/// A wish to lock and everything that bears on it.
#[derive(Clone, Debug)]
pub struct Lock {
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When a person last said `continue`.
    pub resumed_at: Option<Timestamp>,
    /// When it ends for want of an answer.
    pub deadline: Timestamp,
    /// Who asked to cancel.
    pub cancelled_by: Option<String>,
    /// When this record was restored from a backup or copied from another database (R21).
    pub restored_at: Option<Timestamp>,
    /// The calls so far, oldest first. All of them with the same code.
    pub calls: Vec<Call>,
    /// What can authenticate the next one.
    pub credential: Option<Credential>,
    /// How our lock on the device stands, from [`standing`].
    pub ours: OurLock,
    /// Waiting times between calls that got no definite answer.
    pub backoff: Backoff,
}

named! {
    /// What a lock waits for.
    WaitReason {
        /// Apple could not be reached or asked us to come back.
        Unavailable = "unavailable",
        /// The last call got no answer; it is made again with the same code.
        NoAnswer = "no_answer",
        /// Apple said `FAILED`, and advises to try again.
        Failed = "failed",
        /// Apple did not accept the server token; a person has to mend it.
        Credential = "credential",
        /// Apple's terms have to be accepted by a person.
        TermsNotSigned = "terms_not_signed",
        /// Apple does not let the server do this; a person has to look there.
        AccessDenied = "access_denied",
        /// There is no server token, nor a proxy that has one.
        NoCredential = "no_credential",
    }
}

named! {
    /// Why a person has to look at a lock.
    ReviewReason {
        /// Apple said `FAILED` as often as we asked.
        Failed = "failed",
        /// A `response_status` nobody described.
        Undescribed = "undescribed",
        /// Apple could not read the request (400).
        Malformed = "malformed",
        /// An answer nobody described.
        Unexpected = "unexpected",
        /// No definite answer in time.
        Deadline = "deadline",
        /// Restored from a backup: nothing fires by itself (R21).
        Restored = "restored",
    }
}

named! {
    /// Why Apple does not lock a device.
    RefusedWhy {
        /// `NOT_ACCESSIBLE`.
        NotAccessible = "not_accessible",
        /// `ORG_NOT_SUPPORTED`.
        OrgNotSupported = "org_not_supported",
        /// `DEVICE_NOT_SUPPORTED`.
        DeviceNotSupported = "device_not_supported",
    }
}

/// How a lock ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Apple said `SUCCESS`.
    Locked,
    /// A lock was on already. Ours says whose it is, as far as can be told (R20).
    AlreadyLocked {
        /// How our lock on the device stands.
        ours: OurLock,
    },
    /// Apple does not lock this device for us.
    Refused {
        /// Why.
        why: RefusedWhy,
    },
    /// A person has to look.
    NeedsReview {
        /// Why.
        why: ReviewReason,
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
    /// Call Apple, with the code of this wish.
    Call,
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

/// What to do now.
#[must_use]
pub fn next(lock: &Lock, now: Timestamp) -> Step {
    let review = |why| Step::End(End::NeedsReview { why });
    if lock.calls.iter().any(|c| c.ended_as(LockOutcome::Locked)) {
        return Step::End(End::Locked);
    }
    if lock.calls.iter().any(|c| c.result == CallResult::InFlight) {
        return Step::Await;
    }
    if let Some(by) = &lock.cancelled_by {
        return Step::End(End::Cancelled { by: by.clone() });
    }
    if lock.restored_at.is_some_and(|at| at > lock.since()) {
        return review(ReviewReason::Restored);
    }
    match after_last_call(lock, now) {
        // What is definite is said whenever it comes; for another call there is no time.
        Step::Call | Step::Wait { .. } if now >= lock.deadline => review(ReviewReason::Deadline),
        Step::Call if lock.credential.is_none() => Step::Wait {
            until: lock.deadline,
            why: WaitReason::NoCredential,
        },
        step => step,
    }
}

/// What the last call since the request, or since the last `continue`, allows.
fn after_last_call(lock: &Lock, now: Timestamp) -> Step {
    let recent = || lock.calls.iter().filter(|c| c.began_at >= lock.since());
    let Some(last) = recent().next_back() else {
        return Step::Call;
    };
    let (outcome, retry_after) = match last.result {
        CallResult::Ended {
            outcome,
            retry_after,
        } => (outcome, retry_after),
        CallResult::Lost | CallResult::InFlight => (LockOutcome::Unknown, None),
    };
    let again = |why| {
        let failures = recent()
            .rev()
            .take_while(|c| match c.result {
                CallResult::Ended { outcome, .. } => matches!(
                    outcome,
                    LockOutcome::Unavailable | LockOutcome::Unknown | LockOutcome::Failed
                ),
                CallResult::Lost | CallResult::InFlight => true,
            })
            .count();
        let wait = match retry_after {
            Some(asked) => asked.max(lock.backoff.first),
            None => lock.backoff.after(failures),
        };
        let until = last.ended_at.unwrap_or(last.began_at).plus(wait);
        let until = until.min(lock.deadline);
        if now < until {
            Step::Wait { until, why }
        } else {
            Step::Call
        }
    };
    let when_mended = |why| {
        let ended_at = last.ended_at.unwrap_or(last.began_at);
        match &lock.credential {
            Some(credential)
                if credential.id != last.credential
                    || credential.mended_at.is_some_and(|at| at > ended_at) =>
            {
                Step::Call
            }
            _ => Step::Wait {
                until: lock.deadline,
                why,
            },
        }
    };
    let refused = |why| Step::End(End::Refused { why });
    let review = |why| Step::End(End::NeedsReview { why });
    match outcome {
        LockOutcome::Locked => Step::End(End::Locked),
        LockOutcome::AlreadyLocked => Step::End(End::AlreadyLocked { ours: lock.ours }),
        LockOutcome::NotAccessible => refused(RefusedWhy::NotAccessible),
        LockOutcome::OrgNotSupported => refused(RefusedWhy::OrgNotSupported),
        LockOutcome::DeviceNotSupported => refused(RefusedWhy::DeviceNotSupported),
        LockOutcome::Failed => {
            let failed = recent().filter(|c| c.ended_as(LockOutcome::Failed)).count();
            if failed >= TRIES_AFTER_FAILED {
                review(ReviewReason::Failed)
            } else {
                again(WaitReason::Failed)
            }
        }
        LockOutcome::Undescribed => review(ReviewReason::Undescribed),
        LockOutcome::Malformed => review(ReviewReason::Malformed),
        LockOutcome::Unexpected => review(ReviewReason::Unexpected),
        LockOutcome::Credential => when_mended(WaitReason::Credential),
        LockOutcome::TermsNotSigned => when_mended(WaitReason::TermsNotSigned),
        LockOutcome::AccessDenied => when_mended(WaitReason::AccessDenied),
        LockOutcome::Unavailable => again(WaitReason::Unavailable),
        LockOutcome::Unknown => again(WaitReason::NoAnswer),
    }
}

impl Lock {
    fn since(&self) -> Timestamp {
        self.resumed_at.unwrap_or(self.requested_at)
    }
}

impl End {
    /// The name of the state it leaves the lock in.
    #[must_use]
    pub fn state(&self) -> StateName {
        match self {
            Self::Locked => StateName::Locked,
            Self::AlreadyLocked { .. } => StateName::AlreadyLocked,
            Self::Refused { .. } => StateName::Refused,
            Self::NeedsReview { .. } => StateName::NeedsReview,
            Self::Cancelled { .. } => StateName::Cancelled,
        }
    }
}

/// What is on record of a call when it is later answered after all: only a "locked" changes anything (as R14 has it of
/// unlocks).
#[must_use]
pub fn late_outcome(recorded: Option<LockOutcome>, late: LockOutcome) -> Option<LockOutcome> {
    if late == LockOutcome::Locked {
        Some(late)
    } else {
        recorded
    }
}

/// The kind of a lock in Apple's own words (contract sheet 4.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LockType {
    /// `MDM`: the organisation's.
    Mdm,
    /// `USER`: a person's.
    User,
    /// `NONE`: not locked.
    None,
    /// A word nobody described, kept as it came and never guessed at.
    Other(String),
}

impl LockType {
    /// Reads the word; one that is not known is kept (the first 200 characters of it).
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        match text {
            "MDM" => Self::Mdm,
            "USER" => Self::User,
            "NONE" => Self::None,
            other => Self::Other(other.chars().take(STATUS_LIMIT).collect()),
        }
    }

    /// The word as Apple writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Mdm => "MDM",
            Self::User => "USER",
            Self::None => "NONE",
            Self::Other(text) => text,
        }
    }
}

/// Apple's own word on a device's lock, as it came: either part may be missing (contract sheet 4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppleStatus {
    /// `isLocked`.
    pub is_locked: Option<bool>,
    /// `lockType`.
    pub lock_type: Option<LockType>,
}

impl AppleStatus {
    /// What it says, where it says something that is described and does not contradict itself.
    ///
    /// ```
    /// use activation_lock::codes::LockStatus;
    /// use activation_lock::lock::{AppleStatus, LockType};
    ///
    /// let said = |is_locked, lock_type| AppleStatus { is_locked, lock_type }.known();
    /// assert_eq!(said(Some(true), Some(LockType::User)), Some(LockStatus::User));
    /// assert_eq!(said(Some(false), None), Some(LockStatus::None));
    /// assert_eq!(said(Some(true), None), None, "whose lock it is is not said");
    /// assert_eq!(said(Some(true), Some(LockType::None)), None, "it contradicts itself");
    /// ```
    #[must_use]
    pub fn known(&self) -> Option<LockStatus> {
        match (self.is_locked, &self.lock_type) {
            (Some(true) | None, Some(LockType::Mdm)) => Some(LockStatus::Mdm),
            (Some(true) | None, Some(LockType::User)) => Some(LockStatus::User),
            (Some(false) | None, Some(LockType::None)) | (Some(false), None) => {
                Some(LockStatus::None)
            }
            _ => None,
        }
    }
}
