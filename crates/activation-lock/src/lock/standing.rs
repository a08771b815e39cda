//! How our lock on a device stands, from everything on record about it (R20).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CallResult, LockOutcome};
use crate::codes::{CodeId, LockStatus, named};
use crate::time::Timestamp;

named! {
    /// How the organisation's lock on a device stands (R20).
    OurLock {
        /// No lock of ours is on.
        None = "none",
        /// Apple said `SUCCESS`, and nothing since says that it ended.
        Confirmed = "confirmed",
        /// A call of ours may have turned it on.
        Unknown = "unknown",
        /// A lock is on that is not ours.
        SomeoneElses = "someone_elses",
    }
}

named! {
    /// What the standing of our lock rests on (R20).
    Evidence {
        /// Nothing is on record.
        Nothing = "nothing",
        /// Apple answered `SUCCESS` to our call.
        Success = "success",
        /// A call of ours got no definite answer.
        NoAnswer = "no_answer",
        /// Apple answered `DEVICE_ALREADY_LOCKED` to our call.
        AlreadyLocked = "already_locked",
        /// Apple accepted a code and turned the lock off.
        TurnedOff = "turned_off",
        /// Apple's own status.
        Status = "status",
    }
}

/// Something that bears on a device's lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When: of a call without an answer, or with one that came late, when it began; of all else when we learned it.
    pub at: Timestamp,
    /// When an answer came that nobody waited for any more: what it tells of happened at some moment until then.
    pub late: Option<Timestamp>,
    /// What.
    pub what: What,
}

/// What happened to a device's lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// We called, with the hash of this code.
    Called(CodeId, CallResult),
    /// Apple accepted a code.
    TurnedOff {
        /// The code.
        code: CodeId,
        /// Whether it was one made by a server.
        by_server_code: bool,
    },
    /// Apple's status said this.
    Said(LockStatus),
}

/// How our lock on a device stands, with what that rests on and since when (R20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The state.
    pub state: OurLock,
    /// What it rests on.
    pub evidence: Evidence,
    /// The moment of that evidence; `None` where there is none.
    pub at: Option<Timestamp>,
    /// Server codes whose lock may be on; each belongs to a lock that is confirmed, or unknown.
    pub live: Vec<LiveCode>,
}

/// A server code whose lock is on or may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveCode {
    /// The code.
    pub code: CodeId,
    /// Whether Apple said `SUCCESS` to it.
    pub confirmed: bool,
}

/// How long after a change Apple's status may still tell of the time before. Not documented (contract sheet, end of section 4):
/// within it a status proves nothing about the change.
pub const STATUS_LAGS: Duration = Duration::from_secs(10 * 60);

/// Folds all that bears on a device's lock, in any order, into how our lock stands (R20).
#[must_use]
pub fn standing(mut events: Vec<Event>) -> Standing {
    events.sort_by_key(|e| e.at);
    let mut doubts = doubts(&events);
    // Codes of calls without an answer that Apple's status has since told to hold nothing. They remain ours (R4).
    let mut let_go: Vec<LiveCode> = Vec::new();
    let mut standing = Standing {
        state: OurLock::None,
        evidence: Evidence::Nothing,
        at: None,
        live: Vec::new(),
    };
    let mut changed_at: Option<Timestamp> = None;
    for event in events {
        while doubts.first().is_some_and(|(at, _)| *at < event.at) {
            standing.doubt(doubts.remove(0));
        }
        let evidence = match &event.what {
            What::Called(code, result) => {
                if result.is(LockOutcome::AlreadyLocked) && standing.live.is_empty() {
                    standing.live.append(&mut let_go);
                    if !standing.live.is_empty() {
                        standing.state = OurLock::Unknown;
                    }
                }
                if result.is(LockOutcome::Locked) {
                    let_go.clear();
                }
                standing.called(code, *result)
            }
            What::TurnedOff { by_server_code, .. } => {
                if *by_server_code {
                    let_go.clear();
                }
                standing.turned_off(*by_server_code)
            }
            // What Apple says soon after a change may be about the time before it.
            What::Said(_) if changed_at.is_some_and(|at| event.at < at.plus(STATUS_LAGS)) => None,
            What::Said(status) => {
                if *status == LockStatus::None {
                    let_go.extend(standing.live.drain(..).filter(|live| !live.confirmed));
                }
                standing.said(*status)
            }
        };
        if event.what.may_change_the_lock() {
            changed_at = Some(event.at);
        }
        if let Some(evidence) = evidence {
            standing.evidence = evidence;
            standing.at = Some(event.at);
        }
    }
    for doubt in doubts {
        standing.doubt(doubt);
    }
    standing
}

/// Late answers of which cannot be said whether what they tell of came before or after something else that changed the lock: when
/// they were learned, with the code that may hold it.
fn doubts(events: &[Event]) -> Vec<(Timestamp, CodeId)> {
    let mut doubts = Vec::new();
    for event in events {
        let Some(until) = event.late else { continue };
        let meanwhile = || {
            let others = events.iter().filter(|other| !std::ptr::eq(*other, event));
            others.filter(|other| event.at <= other.at && other.at <= until)
        };
        let turned_off = || {
            meanwhile().filter_map(|other| match &other.what {
                What::TurnedOff { code, .. } => Some(code),
                _ => None,
            })
        };
        let locked = || {
            meanwhile().filter_map(|other| match &other.what {
                What::Called(code, result) if result.is(LockOutcome::Locked) => Some(code),
                _ => None,
            })
        };
        let code = match &event.what {
            // Where its own code was accepted meanwhile, the lock was on before that and is off since.
            What::Called(code, result) if result.is(LockOutcome::Locked) => (!turned_off()
                .any(|by| by == code)
                && (turned_off().next().is_some() || locked().any(|with| with != code)))
            .then_some(code),
            // A lock with another code that went on meanwhile cannot be the one that was turned off.
            What::TurnedOff { code, .. } => locked().any(|with| with == code).then_some(code),
            _ => None,
        };
        doubts.extend(code.map(|code| (until, code.clone())));
    }
    doubts.sort_by_key(|(at, _)| *at);
    doubts
}

impl What {
    /// Whether the lock may be another one after this than before.
    fn may_change_the_lock(&self) -> bool {
        match self {
            Self::Called(_, CallResult::Ended { outcome, .. }) => {
                *outcome == LockOutcome::Locked || outcome.leaves_doubt()
            }
            Self::Called(..) | Self::TurnedOff { .. } => true,
            Self::Said(_) => false,
        }
    }
}

impl Standing {
    /// What is on record does not tell whether this code's lock is on.
    fn doubt(&mut self, (at, code): (Timestamp, CodeId)) {
        self.live.iter_mut().for_each(|live| live.confirmed = false);
        if !self.live.iter().any(|live| live.code == code) {
            self.live.push(LiveCode {
                code,
                confirmed: false,
            });
        }
        self.state = OurLock::Unknown;
        self.evidence = Evidence::NoAnswer;
        self.at = Some(at);
    }

    fn called(&mut self, code: &CodeId, result: CallResult) -> Option<Evidence> {
        if let CallResult::Ended { outcome, .. } = result {
            if outcome == LockOutcome::Locked {
                // The first lock wins, so that none was on before this one.
                self.live = vec![LiveCode {
                    code: code.clone(),
                    confirmed: true,
                }];
                self.state = OurLock::Confirmed;
                return Some(Evidence::Success);
            }
            if outcome == LockOutcome::AlreadyLocked {
                if self.live.is_empty() {
                    self.state = OurLock::SomeoneElses;
                }
                // It may be ours: an earlier call may have turned it on.
                return Some(Evidence::AlreadyLocked);
            }
        }
        if !result.leaves_doubt() {
            return None;
        }
        if !self.live.iter().any(|l| l.code == *code) {
            self.live.push(LiveCode {
                code: code.clone(),
                confirmed: false,
            });
        }
        if self.live.iter().any(|l| l.confirmed) {
            return None;
        }
        self.state = OurLock::Unknown;
        Some(Evidence::NoAnswer)
    }

    fn turned_off(&mut self, by_server_code: bool) -> Option<Evidence> {
        if by_server_code {
            self.live.clear();
            self.state = OurLock::None;
            return Some(Evidence::TurnedOff);
        }
        // Where a lock of ours may be on although a device's code was accepted, one of the two is not as we think.
        self.live.iter_mut().for_each(|l| l.confirmed = false);
        self.state = if self.live.is_empty() {
            OurLock::None
        } else {
            OurLock::Unknown
        };
        Some(Evidence::TurnedOff)
    }

    fn said(&mut self, status: LockStatus) -> Option<Evidence> {
        match status {
            LockStatus::None => {
                self.live.clear();
                self.state = OurLock::None;
            }
            LockStatus::User => {
                // Codes of calls without an answer remain worth trying for ever (R4).
                self.live.iter_mut().for_each(|l| l.confirmed = false);
                self.state = OurLock::SomeoneElses;
            }
            LockStatus::Mdm if self.live.is_empty() => self.state = OurLock::SomeoneElses,
            LockStatus::Mdm if self.live.iter().any(|l| l.confirmed) => {
                self.state = OurLock::Confirmed;
            }
            LockStatus::Mdm => self.state = OurLock::Unknown,
        }
        Some(Evidence::Status)
    }
}
