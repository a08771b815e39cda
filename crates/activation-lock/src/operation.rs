//! What unlocks and locks have in common: the states they stand in, and how long is waited between calls.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codes::named;

named! {
    /// The state of an unlock or a lock, as the API names it (R15, R20). An open set: clients must tolerate new ones.
    StateName {
        /// Asked for, not begun.
        Queued = "queued",
        /// A worker holds it.
        Running = "running",
        /// Nothing to do until a time, or until a person mends something.
        Waiting = "waiting",
        /// An unlock: Apple answered 200.
        Unlocked = "unlocked",
        /// An unlock: all refused after a call without an answer.
        ProbablyUnlocked = "probably_unlocked",
        /// An unlock: all refused.
        Rejected = "rejected",
        /// An unlock: Apple says it is not locked.
        NotLocked = "not_locked",
        /// A lock: Apple said `SUCCESS`.
        Locked = "locked",
        /// A lock: one was on already.
        AlreadyLocked = "already_locked",
        /// A lock: Apple does not lock this device for us.
        Refused = "refused",
        /// A person has to look.
        NeedsReview = "needs_review",
        /// Cancelled.
        Cancelled = "cancelled",
    }
}

impl StateName {
    /// Whether nothing more happens by itself.
    #[must_use]
    pub fn is_done(self) -> bool {
        !matches!(self, Self::Queued | Self::Running | Self::Waiting)
    }
}

/// Waiting times that double from `first` to `longest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// Never longer than this.
    pub longest: Duration,
}

impl Default for Backoff {
    /// 10 seconds to one hour.
    fn default() -> Self {
        Self {
            first: Duration::from_secs(10),
            longest: Duration::from_secs(3600),
        }
    }
}

impl Backoff {
    /// The wait after the `failures`-th failure in a row, counted from one.
    #[must_use]
    pub fn after(&self, failures: usize) -> Duration {
        let doublings = u32::try_from(failures.saturating_sub(1))
            .unwrap_or(u32::MAX)
            .min(31);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }
}
