//! Whom to ask for a bypass code, and when to ask again (R8, R10).
//!
//! Codes change behind a server's back: after an erase, and perhaps when Find My goes on (contract sheet 3.4, 3.5). So a
//! device is asked for as long as it is enrolled, not once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codes::named;
use crate::device::ProductFamily;
use crate::observation::{EnrollmentKind, ErrorLink};
use crate::time::{DAY, Timestamp};

/// What is known of an enrollment when the question is whether to ask it. `None` is "not known yet".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The channel the MDM named.
    pub kind: EnrollmentKind,
    /// From the product type.
    pub family: Option<ProductFamily>,
    /// `IsMultiUser`: true is a Shared iPad.
    pub multi_user: Option<bool>,
    /// `IsSupervised`.
    pub supervised: Option<bool>,
    /// `IsUserEnrollment` of SecurityInfo.
    pub user_enrollment: Option<bool>,
}

impl Known {
    /// An enrollment of which only the channel is known.
    #[must_use]
    pub fn only(kind: EnrollmentKind) -> Self {
        Self {
            kind,
            family: None,
            multi_user: None,
            supervised: None,
            user_enrollment: None,
        }
    }
}

named! {
    /// Why a device is not asked for a code (R10; contract sheet 3.1, 3f).
    NotAsked {
        /// A person's channel on a device; its device channel is asked instead.
        UserChannel = "user_channel",
        /// A User Enrollment, where Apple forbids the question.
        UserEnrollment = "user_enrollment",
        /// A Shared iPad, where Apple forbids the question.
        SharedIpad = "shared_ipad",
        /// An Apple TV, which has no bypass code.
        AppleTv = "apple_tv",
        /// An Apple Watch, for which MDM has no such question.
        AppleWatch = "apple_watch",
        /// Known not to be supervised: it makes no code.
        Unsupervised = "unsupervised",
    }
}

/// Why this enrollment is not to be asked for a code; `None` means ask. What is not known is no reason (R10, T25).
#[must_use]
pub fn why_not(known: &Known) -> Option<NotAsked> {
    match known.kind {
        EnrollmentKind::User => return Some(NotAsked::UserChannel),
        EnrollmentKind::UserEnrollmentDevice | EnrollmentKind::UserEnrollment => {
            return Some(NotAsked::UserEnrollment);
        }
        EnrollmentKind::SharedIpad => return Some(NotAsked::SharedIpad),
        EnrollmentKind::Device => {}
    }
    match known.family {
        Some(ProductFamily::Tv) => return Some(NotAsked::AppleTv),
        Some(ProductFamily::Watch) => return Some(NotAsked::AppleWatch),
        _ => {}
    }
    if known.user_enrollment == Some(true) {
        Some(NotAsked::UserEnrollment)
    } else if known.multi_user == Some(true) {
        Some(NotAsked::SharedIpad)
    } else if known.supervised == Some(false) {
        Some(NotAsked::Unsupervised)
    } else {
        None
    }
}

named! {
    /// What a device said when it refused the question. Apple asks not to rely on error numbers, so a refusal is shown
    /// and slows the asking down, and never ends it (R10).
    Refusal {
        /// Error 12021: the device does not know the question (contract sheet 3.9).
        NotSupported = "not_supported",
        /// Error 29000: the device is not supervised (contract sheet 3.9).
        NotSupervised = "not_supervised",
    }
}

impl Refusal {
    /// Finds a refusal in an error chain; `None` for any other error, after which asking goes on as before.
    #[must_use]
    pub fn in_chain(errors: &[ErrorLink]) -> Option<Self> {
        errors.iter().find_map(|link| match link.code {
            12021 => Some(Self::NotSupported),
            29000 => Some(Self::NotSupervised),
            _ => None,
        })
    }
}

named! {
    /// What makes us ask again at once (R1, R8).
    Trigger {
        /// A person saw the code.
        Reveal = "reveal",
        /// An unlock ended.
        Unlock = "unlock",
        /// A sign that Find My went on, which may have made a new code.
        FindMy = "find_my",
        /// An answer came that was not to the newest ask of the live epoch.
        StrayAnswer = "stray_answer",
        /// A person pressed "refresh".
        Person = "person",
        /// Many webhooks were refused: an answer may have been among them.
        RefusedWebhooks = "refused_webhooks",
        /// We were down: an answer may have been lost.
        Downtime = "downtime",
    }
}

impl Trigger {
    /// Whether the answer to a pending ask may have been lost, so that waiting for it makes no sense.
    #[must_use]
    pub fn may_have_lost_an_answer(self) -> bool {
        matches!(self, Self::RefusedWebhooks | Self::Downtime)
    }
}

/// The asks of one epoch, as far as they decide when the next is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskHistory {
    /// When the epoch was opened.
    pub opened_at: Timestamp,
    /// When the newest ask of this epoch was put on record; `None` before the first.
    pub last_asked: Option<Timestamp>,
    /// Whether that ask still has no final answer. NotNow is none: the MDM keeps the command.
    pub pending: bool,
    /// The newest moment of any [`Trigger`].
    pub triggered_at: Option<Timestamp>,
    /// The newest moment of a [`Trigger`] that [may have lost an answer](Trigger::may_have_lost_an_answer).
    pub answers_lost_at: Option<Timestamp>,
    /// How the device refused the newest answered ask, if it did.
    pub refusal: Option<Refusal>,
}

/// For this long after its opening an epoch is asked daily: as long as Apple gives the code out (contract sheet 3.3).
pub const DAILY_FOR: Duration = Duration::from_secs(15 * 24 * 60 * 60);
/// Between asks afterwards, and between asks of a device that refuses. Also how long a pending ask holds off the next:
/// an MDM may lose a command, and nobody would ever tell us.
pub const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// When this epoch is to be asked next (R8): at once when it never was or when something happened since, else daily for
/// 15 days, then weekly. The moment may lie in the past: then ask now.
///
/// An ask that is due while an older one is pending replaces it, with a new CommandUUID.
#[must_use]
pub fn next_ask(history: &AskHistory) -> Timestamp {
    let Some(last) = history.last_asked else {
        return history.opened_at;
    };
    let since_then = |moment: Option<Timestamp>| moment.filter(|moment| *moment > last);
    if let Some(lost) = since_then(history.answers_lost_at) {
        return lost;
    }
    if history.pending {
        return last.plus(WEEK);
    }
    if let Some(trigger) = since_then(history.triggered_at) {
        return trigger;
    }
    let daily = history.refusal.is_none() && last < history.opened_at.plus(DAILY_FOR);
    last.plus(if daily { DAY } else { WEEK })
}

/// The longest wait between two tries to queue a command at an MDM.
pub const LONGEST_QUEUE_RETRY: Duration = Duration::from_secs(6 * 60 * 60);
/// From this many failures on, a command that cannot be queued is shown as a gap of its device. It is retried all the
/// same, until it is queued, its epoch ends or a person gives it up.
pub const QUEUE_FAILURES_SHOWN: u32 = 3;

/// How long to wait before queueing a command again at the MDM after `failures` failures in a row (counted from one):
/// about a minute at first, doubling, six hours at most. `random` is any number from a generator; it spreads the wait
/// over its last quarter, so that a fleet does not come back in one moment.
#[must_use]
pub fn queue_retry(failures: u32, random: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let longest = Duration::from_secs(80)
        .saturating_mul(1 << doublings)
        .min(LONGEST_QUEUE_RETRY);
    let spread = longest / 4;
    let millis = u64::try_from(spread.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    longest - spread + Duration::from_millis(random % millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENED: Timestamp = Timestamp(1_000_000);

    fn device() -> Known {
        Known::only(EnrollmentKind::Device)
    }

    #[test]
    fn r10_unknown_devices_are_asked() {
        assert_eq!(why_not(&device()), None);
        assert_eq!(
            why_not(&Known {
                family: Some(ProductFamily::Unknown),
                ..device()
            }),
            None
        );
    }

    #[test]
    fn t25_known_unsupported_devices_are_not_asked_and_the_reason_is_named() {
        let cases = [
            (Known::only(EnrollmentKind::User), NotAsked::UserChannel),
            (
                Known::only(EnrollmentKind::UserEnrollment),
                NotAsked::UserEnrollment,
            ),
            (
                Known::only(EnrollmentKind::UserEnrollmentDevice),
                NotAsked::UserEnrollment,
            ),
            (
                Known {
                    user_enrollment: Some(true),
                    ..device()
                },
                NotAsked::UserEnrollment,
            ),
            (
                Known::only(EnrollmentKind::SharedIpad),
                NotAsked::SharedIpad,
            ),
            (
                Known {
                    multi_user: Some(true),
                    supervised: Some(true),
                    ..device()
                },
                NotAsked::SharedIpad,
            ),
            (
                Known {
                    family: Some(ProductFamily::Tv),
                    ..device()
                },
                NotAsked::AppleTv,
            ),
            (
                Known {
                    family: Some(ProductFamily::Watch),
                    ..device()
                },
                NotAsked::AppleWatch,
            ),
            (
                Known {
                    supervised: Some(false),
                    ..device()
                },
                NotAsked::Unsupervised,
            ),
        ];
        for (known, reason) in cases {
            assert_eq!(why_not(&known), Some(reason));
        }
    }

    #[test]
    fn r10_supported_devices_are_asked() {
        for family in [
            ProductFamily::Mobile,
            ProductFamily::Mac,
            ProductFamily::Vision,
        ] {
            let known = Known {
                family: Some(family),
                multi_user: Some(false),
                supervised: Some(true),
                user_enrollment: Some(false),
                ..device()
            };
            assert_eq!(why_not(&known), None);
        }
    }

    fn asked(last: Timestamp) -> AskHistory {
        AskHistory {
            opened_at: OPENED,
            last_asked: Some(last),
            pending: false,
            triggered_at: None,
            answers_lost_at: None,
            refusal: None,
        }
    }

    #[test]
    fn r8_a_new_epoch_is_asked_at_once_then_daily_for_fifteen_days_then_weekly() {
        let mut history = AskHistory {
            last_asked: None,
            ..asked(OPENED)
        };
        let mut asks = Vec::new();
        for _ in 0..19 {
            let due = next_ask(&history);
            asks.push(due.since(OPENED).as_secs() / DAY.as_secs());
            history.last_asked = Some(due);
        }
        assert_eq!(
            asks,
            [
                0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 22, 29, 36
            ]
        );
    }

    #[test]
    fn r8_a_trigger_since_the_last_ask_asks_at_once_and_an_older_one_does_not() {
        let last = OPENED.plus(DAY);
        let later = last.plus(Duration::from_secs(5));
        assert_eq!(
            next_ask(&AskHistory {
                triggered_at: Some(later),
                ..asked(last)
            }),
            later
        );
        assert_eq!(
            next_ask(&AskHistory {
                triggered_at: Some(last),
                ..asked(last)
            }),
            last.plus(DAY)
        );
    }

    #[test]
    fn r8_a_pending_ask_is_waited_for_unless_its_answer_may_be_lost() {
        let last = OPENED.plus(DAY);
        let later = last.plus(Duration::from_secs(5));
        let pending = AskHistory {
            pending: true,
            triggered_at: Some(later),
            ..asked(last)
        };
        assert_eq!(next_ask(&pending), last.plus(WEEK));
        assert_eq!(
            next_ask(&AskHistory {
                answers_lost_at: Some(later),
                ..pending
            }),
            later
        );
        for trigger in Trigger::ALL {
            let lost = matches!(trigger.as_str(), "refused_webhooks" | "downtime");
            assert_eq!(trigger.may_have_lost_an_answer(), lost);
        }
    }

    #[test]
    fn r10_errors_12021_and_29000_slow_the_asking_and_never_end_it() {
        let link = |code| ErrorLink {
            code,
            domain: "MCMDMErrorDomain".into(),
            description: String::new(),
        };
        assert_eq!(
            Refusal::in_chain(&[link(12021)]),
            Some(Refusal::NotSupported)
        );
        assert_eq!(
            Refusal::in_chain(&[link(1), link(29000)]),
            Some(Refusal::NotSupervised)
        );
        assert_eq!(Refusal::in_chain(&[link(12078)]), None);
        assert_eq!(Refusal::in_chain(&[]), None);
        let refused = AskHistory {
            refusal: Some(Refusal::NotSupported),
            ..asked(OPENED)
        };
        assert_eq!(next_ask(&refused), OPENED.plus(WEEK));
        let later = OPENED.plus(Duration::from_secs(1));
        assert_eq!(
            next_ask(&AskHistory {
                triggered_at: Some(later),
                ..refused
            }),
            later
        );
    }

    #[test]
    fn queue_retries_grow_from_a_minute_to_six_hours_and_spread() {
        for random in [0, 1, 12_345, u64::MAX] {
            let mut shortest = Duration::from_secs(60);
            for failures in 1..40 {
                let wait = queue_retry(failures, random);
                assert!(wait >= shortest && wait <= LONGEST_QUEUE_RETRY);
                shortest = wait.min(queue_retry(failures + 1, 0));
            }
            assert!(queue_retry(u32::MAX, random) >= LONGEST_QUEUE_RETRY * 3 / 4);
            assert_eq!(queue_retry(0, random), queue_retry(1, random));
        }
        assert_ne!(queue_retry(5, 1), queue_retry(5, 100_000));
    }
}
