//! A wish for many devices at once: what is done to each, and whether a line of it could be.
//!
//! Every line is looked at before anything runs, so that a person sees what will happen; what is found then is looked at again when the
//! line's turn comes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codes::named;
use crate::lock::OurLock;
use crate::time::{DAY, Timestamp};

/// How long Apple's word that a device is not locked keeps it out of a batch of unlocks.
pub const BELIEVED: Duration = DAY;

named! {
    /// What a batch does to each device.
    BatchAction {
        /// Its lock is turned off.
        Unlock = "unlock",
        /// Its lock is turned on.
        Lock = "lock",
        /// It is asked for its code again.
        Refresh = "refresh",
    }
}

named! {
    /// How a line stands by itself. Once it has an unlock or a lock, that one's state says more.
    LineState {
        /// It will be done.
        Ready = "ready",
        /// It was done.
        Asked = "asked",
        /// What stands there is no serial number.
        NotASerial = "not_a_serial",
        /// The same device stands in an earlier line.
        Duplicate = "duplicate",
        /// The organisation knows no such device.
        UnknownDevice = "unknown_device",
        /// An unlock: no code of it is held.
        NoCode = "no_code",
        /// An unlock: Apple demands a product type, and none is known (R15).
        NoProductType = "no_product_type",
        /// An unlock: Apple said within the last day that it is not locked (R12).
        NotLocked = "not_locked",
        /// A lock: ours is on, and Apple confirmed it (R20).
        AlreadyLocked = "already_locked",
        /// A lock: no server of ours lists the device.
        NotAssigned = "not_assigned",
        /// Another unlock or lock of it was under way (R16).
        InProgress = "in_progress",
        /// To be asked for its code: no MDM knows it at present.
        NotEnrolled = "not_enrolled",
    }
}

/// What is known of a device that bears on whether its line can be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The organisation has a record of it.
    pub is_known: bool,
    /// Its product type is known.
    pub has_product_type: bool,
    /// At least one code of it is held, of whatever kind and age.
    pub has_code: bool,
    /// An unlock or a lock of it is under way, whoever asked.
    pub is_live: bool,
    /// A server of ours lists it.
    pub is_listed: bool,
    /// An MDM knows it at present.
    pub is_enrolled: bool,
    /// How our lock on it stands; `None` where that is not known.
    pub ours: Option<OurLock>,
    /// Whether Apple said that it is locked, and when it last did.
    pub said: Option<(bool, Timestamp)>,
}

/// Whether a line could be done, and if not, why. With `insists` a device is unlocked although Apple says that it is not locked.
///
/// ```
/// use activation_lock::batch::{BatchAction, Facts, LineState, check};
/// use activation_lock::time::Timestamp;
///
/// let returned = Facts { is_known: true, has_product_type: true, has_code: true, ..Facts::default() };
/// let now = Timestamp(1_780_000_000_000);
/// assert_eq!(check(BatchAction::Unlock, false, &returned, now), LineState::Ready);
/// let without = Facts { has_code: false, ..returned };
/// assert_eq!(check(BatchAction::Unlock, false, &without, now), LineState::NoCode);
/// ```
#[must_use]
pub fn check(action: BatchAction, insists: bool, facts: &Facts, now: Timestamp) -> LineState {
    match action {
        BatchAction::Unlock => {
            let is_open = facts
                .said
                .is_some_and(|(locked, at)| !locked && now.since(at) < BELIEVED);
            match facts {
                Facts {
                    is_known: false, ..
                } => LineState::UnknownDevice,
                Facts { is_live: true, .. } => LineState::InProgress,
                Facts {
                    has_code: false, ..
                } => LineState::NoCode,
                Facts {
                    has_product_type: false,
                    ..
                } => LineState::NoProductType,
                _ if is_open && !insists => LineState::NotLocked,
                _ => LineState::Ready,
            }
        }
        // A device that only Apple's list has may be locked before any MDM has heard of it.
        BatchAction::Lock => match facts {
            Facts {
                is_known: false,
                is_listed: false,
                ..
            } => LineState::UnknownDevice,
            Facts { is_live: true, .. } => LineState::InProgress,
            Facts {
                is_listed: false, ..
            } => LineState::NotAssigned,
            Facts {
                ours: Some(OurLock::Confirmed),
                ..
            } => LineState::AlreadyLocked,
            _ => LineState::Ready,
        },
        BatchAction::Refresh => match facts {
            Facts {
                is_known: false, ..
            } => LineState::UnknownDevice,
            Facts {
                is_enrolled: false, ..
            } => LineState::NotEnrolled,
            _ => LineState::Ready,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_780_000_000_000);

    fn whole() -> Facts {
        Facts {
            is_known: true,
            has_product_type: true,
            has_code: true,
            is_live: false,
            is_listed: true,
            is_enrolled: true,
            ours: Some(OurLock::None),
            said: None,
        }
    }

    #[test]
    fn what_stands_in_the_way_of_each_action_is_named() {
        let check = |action, facts: Facts| super::check(action, false, &facts, NOW);
        for action in BatchAction::ALL {
            assert_eq!(check(*action, whole()), LineState::Ready, "{action}");
        }
        let unknown = Facts::default();
        for action in BatchAction::ALL {
            assert_eq!(check(*action, unknown), LineState::UnknownDevice);
        }
        let live = Facts {
            is_live: true,
            ..whole()
        };
        assert_eq!(check(BatchAction::Unlock, live), LineState::InProgress);
        assert_eq!(check(BatchAction::Lock, live), LineState::InProgress);
        assert_eq!(check(BatchAction::Refresh, live), LineState::Ready);
        let listed = Facts {
            is_known: false,
            ..whole()
        };
        assert_eq!(check(BatchAction::Lock, listed), LineState::Ready);
        let apart = Facts {
            is_listed: false,
            is_enrolled: false,
            ..whole()
        };
        assert_eq!(check(BatchAction::Unlock, apart), LineState::Ready);
        assert_eq!(check(BatchAction::Lock, apart), LineState::NotAssigned);
        assert_eq!(check(BatchAction::Refresh, apart), LineState::NotEnrolled);
        let locked = Facts {
            ours: Some(OurLock::Confirmed),
            ..whole()
        };
        assert_eq!(check(BatchAction::Lock, locked), LineState::AlreadyLocked);
        let nameless = Facts {
            has_product_type: false,
            ..whole()
        };
        assert_eq!(
            check(BatchAction::Unlock, nameless),
            LineState::NoProductType
        );
    }

    #[test]
    fn r4_a_lock_that_may_be_on_is_asked_for_again_for_its_code_is_used_again() {
        let unknown = Facts {
            ours: Some(OurLock::Unknown),
            ..whole()
        };
        assert_eq!(
            check(BatchAction::Lock, false, &unknown, NOW),
            LineState::Ready
        );
    }

    #[test]
    fn r12_apples_word_that_a_device_is_not_locked_counts_for_a_day_unless_a_person_insists() {
        let said = |locked, ago| Facts {
            said: Some((locked, NOW.minus(ago))),
            ..whole()
        };
        let unlock = |facts: Facts, insists| check(BatchAction::Unlock, insists, &facts, NOW);
        let hour = Duration::from_secs(3_600);
        assert_eq!(unlock(said(false, hour), false), LineState::NotLocked);
        assert_eq!(unlock(said(false, hour), true), LineState::Ready);
        assert_eq!(unlock(said(false, DAY), false), LineState::Ready);
        assert_eq!(unlock(said(true, hour), false), LineState::Ready);
    }
}
