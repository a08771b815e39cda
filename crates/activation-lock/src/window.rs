//! The 15 days in which a device gives out its code (R9; contract sheet 3.3).
//!
//! They run from supervision, which we do not see. Only evidence of a fresh set-up puts a date on them; everything else
//! is shown as "unknown", never as 15 days that may long be over.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codes::named;
use crate::time::{DAY, Timestamp};

/// How long a device gives out its code, counted from supervision.
pub const WINDOW: Duration = Duration::from_secs(15 * 24 * 60 * 60);
/// From this age on, a window without a code is closing.
pub const CLOSING_AFTER: Duration = Duration::from_secs(10 * 24 * 60 * 60);

named! {
    /// What shows that an epoch began with an erase or a first set-up, and supervision with it.
    Evidence {
        /// `AwaitingConfiguration` was true when it enrolled: the device stood in Setup Assistant.
        AwaitingConfiguration = "awaiting_configuration",
        /// It gave another code than in the epoch before: an erase makes a new one (contract sheet 3.4).
        DifferentCode = "different_code",
    }
}

/// What an epoch shows about a fresh set-up; `None` when nothing does.
///
/// `awaiting_configuration` is what the epoch's check-ins said, true if any did. `different_code` is true when the first
/// code of this epoch differs from the newest of the epoch before.
#[must_use]
pub fn evidence(awaiting_configuration: bool, different_code: bool) -> Option<Evidence> {
    if awaiting_configuration {
        Some(Evidence::AwaitingConfiguration)
    } else if different_code {
        Some(Evidence::DifferentCode)
    } else {
        None
    }
}

/// How it stands with getting the code of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// A code was observed in this epoch.
    Satisfied,
    /// No code yet, and nobody knows when the device was supervised.
    Unknown,
    /// No code yet, and time enough.
    Open {
        /// When the device stops giving it out.
        closes_at: Timestamp,
        /// Days until then, begun ones counted as whole: 6 to 15.
        days_left: u8,
    },
    /// No code yet, and ten days or more have gone.
    Closing {
        /// When the device stops giving it out.
        closes_at: Timestamp,
        /// Days until then, begun ones counted as whole: 1 to 5.
        days_left: u8,
    },
    /// No code, and the 15 days are over. Asking goes on; some devices answer later.
    Closed {
        /// When it closed.
        closed_at: Timestamp,
    },
}

named! {
    /// How loudly a window is shown.
    Alert {
        /// Nothing to show.
        None = "none",
        /// Worth knowing: no code, and no date to worry about.
        Notice = "notice",
        /// Somebody should look within days.
        Warning = "warning",
        /// The code may never be had without an erase.
        Critical = "critical",
    }
}

/// The window of an epoch (R9, T30).
///
/// `opened_at` is when the epoch was opened, `evidence` what shows that supervision began with it, `code_observed`
/// whether any code was observed in it. A code that comes later clears every alert.
#[must_use]
pub fn window(
    opened_at: Timestamp,
    evidence: Option<Evidence>,
    code_observed: bool,
    now: Timestamp,
) -> Window {
    if code_observed {
        return Window::Satisfied;
    }
    if evidence.is_none() {
        return Window::Unknown;
    }
    let closes_at = opened_at.plus(WINDOW);
    let age = now.since(opened_at);
    if age >= WINDOW {
        return Window::Closed {
            closed_at: closes_at,
        };
    }
    let days_left = u8::try_from((WINDOW - age).as_millis().div_ceil(DAY.as_millis()))
        .expect("a rest of at most 15 days");
    if age >= CLOSING_AFTER {
        Window::Closing {
            closes_at,
            days_left,
        }
    } else {
        Window::Open {
            closes_at,
            days_left,
        }
    }
}

impl Window {
    /// The stable text shown in the API and used in filters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Satisfied => "satisfied",
            Self::Unknown => "unknown",
            Self::Open { .. } => "open",
            Self::Closing { .. } => "closing",
            Self::Closed { .. } => "closed",
        }
    }

    /// How loudly it is shown.
    #[must_use]
    pub fn alert(self) -> Alert {
        match self {
            Self::Satisfied | Self::Open { .. } => Alert::None,
            Self::Unknown => Alert::Notice,
            Self::Closing { .. } => Alert::Warning,
            Self::Closed { .. } => Alert::Critical,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENED: Timestamp = Timestamp(1_700_000_000_000);
    const ERASED: Option<Evidence> = Some(Evidence::AwaitingConfiguration);

    fn at(days: u32, more: Duration) -> Timestamp {
        OPENED.plus(DAY * days).plus(more)
    }

    fn without_code(now: Timestamp) -> Window {
        window(OPENED, ERASED, false, now)
    }

    #[test]
    fn t30_the_countdown_warns_at_day_ten_and_is_critical_at_day_fifteen() {
        let closes_at = at(15, Duration::ZERO);
        let moment = Duration::from_millis(1);
        let cases = [
            (
                at(0, Duration::ZERO),
                Window::Open {
                    closes_at,
                    days_left: 15,
                },
                Alert::None,
            ),
            (
                at(0, moment),
                Window::Open {
                    closes_at,
                    days_left: 15,
                },
                Alert::None,
            ),
            (
                at(1, Duration::ZERO),
                Window::Open {
                    closes_at,
                    days_left: 14,
                },
                Alert::None,
            ),
            (
                at(10, Duration::ZERO).minus(moment),
                Window::Open {
                    closes_at,
                    days_left: 6,
                },
                Alert::None,
            ),
            (
                at(10, Duration::ZERO),
                Window::Closing {
                    closes_at,
                    days_left: 5,
                },
                Alert::Warning,
            ),
            (
                at(15, Duration::ZERO).minus(moment),
                Window::Closing {
                    closes_at,
                    days_left: 1,
                },
                Alert::Warning,
            ),
            (
                at(15, Duration::ZERO),
                Window::Closed {
                    closed_at: closes_at,
                },
                Alert::Critical,
            ),
            (
                at(400, Duration::ZERO),
                Window::Closed {
                    closed_at: closes_at,
                },
                Alert::Critical,
            ),
        ];
        for (now, state, alert) in cases {
            assert_eq!(without_code(now), state);
            assert_eq!(state.alert(), alert);
        }
    }

    #[test]
    fn t30_a_later_code_clears_the_alert() {
        let late = at(20, Duration::ZERO);
        assert_eq!(without_code(late).alert(), Alert::Critical);
        let satisfied = window(OPENED, ERASED, true, late);
        assert_eq!(
            (satisfied, satisfied.alert()),
            (Window::Satisfied, Alert::None)
        );
    }

    #[test]
    fn r9_without_evidence_of_an_erase_the_window_is_unknown_at_any_age() {
        for days in [0, 9, 10, 15, 400] {
            let state = window(OPENED, None, false, at(days, Duration::ZERO));
            assert_eq!((state, state.alert()), (Window::Unknown, Alert::Notice));
        }
    }

    #[test]
    fn r9_only_setup_assistant_or_a_different_code_is_evidence() {
        assert_eq!(evidence(false, false), None);
        assert_eq!(evidence(true, false), ERASED);
        assert_eq!(evidence(false, true), Some(Evidence::DifferentCode));
        assert_eq!(evidence(true, true), ERASED);
    }

    #[test]
    fn a_clock_that_stands_before_the_opening_opens_the_whole_window() {
        let state = without_code(OPENED.minus(DAY));
        assert_eq!(
            state,
            Window::Open {
                closes_at: at(15, Duration::ZERO),
                days_left: 15
            }
        );
    }
}
