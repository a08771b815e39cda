//! The guard before the permission to lock (R7): a person may turn Find My's lock on only once the code that turns it
//! off again is held. A lock that comes first may not open with the code (contract sheet 3.21).
//!
//! The permission is the `MDMOptions` item of a Settings command, `ActivationLockAllowedWhileSupervised`. It is off by
//! default, lasts until the next erase, and taking it back does not take a lock off (contract sheet 3.20 to 3.26).

use serde::{Deserialize, Serialize};

use crate::asking::NotAsked;
use crate::codes::named;
use crate::device::ProductFamily;
use crate::time::Timestamp;

named! {
    /// What an organisation wants done about its people's locks.
    #[derive(Default)]
    UserLockPolicy {
        /// Send nothing: somebody else, or nobody, sets the permission. The default.
        #[default]
        Leave = "leave",
        /// Allow the lock, once a code is held.
        Allow = "allow",
        /// Forbid the lock.
        Deny = "deny",
    }
}

impl UserLockPolicy {
    /// The value of the option under this policy; `None` when it is not to be touched.
    #[must_use]
    pub fn wanted(self) -> Option<bool> {
        match self {
            Self::Leave => None,
            Self::Allow => Some(true),
            Self::Deny => Some(false),
        }
    }
}

/// The newest permission command of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The value it carries.
    pub allowed: bool,
    /// How it stands.
    pub answer: Answer,
}

/// How a permission command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No final answer yet; NotNow is none.
    Pending,
    /// Done, and no item of the answer failed.
    Acknowledged {
        /// When the answer came.
        at: Timestamp,
    },
    /// An error, or `Acknowledged` with a failed item, which is a failure too (R7, T21).
    Failed,
}

/// The option as DeviceInformation read it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadBack {
    /// Its value.
    pub allowed: bool,
    /// When that answer came.
    pub at: Timestamp,
}

/// What the guard looks at, all of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The organisation's policy.
    pub policy: UserLockPolicy,
    /// Why the device is not asked for a code, if it is not ([`crate::asking::why_not`]).
    pub not_asked: Option<NotAsked>,
    /// A code was observed in this epoch, in the answer to the newest ask, and is durably stored.
    pub code_held: bool,
    /// From the product type; `None` until it is known.
    pub family: Option<ProductFamily>,
    /// `IsActivationLockManageable` of SecurityInfo (Macs only); `None` until it is known.
    pub manageable: Option<bool>,
    /// The newest reading of the option.
    pub read_back: Option<ReadBack>,
    /// The newest permission command.
    pub sent: Option<Sent>,
}

/// What to do about the permission now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Send Settings/MDMOptions with `ActivationLockAllowedWhileSupervised` true.
    SendAllow,
    /// Send it with false.
    SendDeny,
    /// Send SecurityInfo first: whether a Mac's lock can be managed is not known.
    AskSecurityInfo,
    /// Send DeviceInformation for `MDMOptions`: the device acknowledged, now see whether it did it.
    ReadBack,
    /// Send nothing.
    Nothing(Nothing),
}

named! {
    /// Why no permission is sent.
    Nothing {
        /// The policy is to leave it alone.
        PolicyLeave = "policy_leave",
        /// The device is not one that gives a code.
        NotAsked = "not_asked",
        /// No code was observed in this epoch yet.
        NoCodeYet = "no_code_yet",
        /// Whether it is a Mac is not known yet, or its product type is new to us.
        FamilyUnknown = "family_unknown",
        /// The Mac says that its lock cannot be managed.
        NotManageable = "not_manageable",
        /// A permission command waits for its answer.
        Pending = "pending",
        /// The device refused it.
        Refused = "refused",
        /// The device acknowledged it, and reads back the opposite.
        ReadsOtherwise = "reads_otherwise",
        /// The option already is as it should be.
        AsWanted = "as_wanted",
    }
}

/// What to do about the permission now (R7).
///
/// Forbidding needs neither code nor Mac: it cannot lock anybody out. A refusal, or a device that does not do what it
/// acknowledged, is left to a person; nothing is sent over and over.
#[must_use]
pub fn permission(facts: &Facts) -> Permission {
    use Permission::{AskSecurityInfo, SendAllow, SendDeny};
    let Some(wanted) = facts.policy.wanted() else {
        return Permission::Nothing(Nothing::PolicyLeave);
    };
    if facts.not_asked.is_some() {
        return Permission::Nothing(Nothing::NotAsked);
    }
    match facts.sent {
        Some(Sent {
            answer: Answer::Pending,
            ..
        }) => return Permission::Nothing(Nothing::Pending),
        Some(Sent { allowed, answer }) if allowed == wanted => {
            return answered(wanted, answer, facts.read_back);
        }
        _ => {}
    }
    if facts
        .read_back
        .is_some_and(|read| read.allowed == wanted && !is_stale(read, facts.sent))
    {
        return Permission::Nothing(Nothing::AsWanted);
    }
    if !wanted {
        return SendDeny;
    }
    if !facts.code_held {
        return Permission::Nothing(Nothing::NoCodeYet);
    }
    match (facts.family, facts.manageable) {
        (None | Some(ProductFamily::Unknown), _) => Permission::Nothing(Nothing::FamilyUnknown),
        (Some(ProductFamily::Mac), None) => AskSecurityInfo,
        (Some(ProductFamily::Mac), Some(false)) => Permission::Nothing(Nothing::NotManageable),
        _ => SendAllow,
    }
}

/// The wanted value was sent and answered: has it taken effect?
fn answered(wanted: bool, answer: Answer, read_back: Option<ReadBack>) -> Permission {
    match answer {
        Answer::Pending => Permission::Nothing(Nothing::Pending),
        Answer::Failed => Permission::Nothing(Nothing::Refused),
        Answer::Acknowledged { at } => match read_back {
            Some(read) if read.at >= at && read.allowed == wanted => {
                Permission::Nothing(Nothing::AsWanted)
            }
            Some(read) if read.at >= at => Permission::Nothing(Nothing::ReadsOtherwise),
            _ => Permission::ReadBack,
        },
    }
}

/// Whether a command of ours was acknowledged after the option was read, so that the reading says nothing any more.
fn is_stale(read: ReadBack, sent: Option<Sent>) -> bool {
    matches!(sent, Some(Sent { answer: Answer::Acknowledged { at }, .. }) if at > read.at)
}

/// When the option was seen and the code was had, in one epoch. Each `None` is "not yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptionHistory {
    /// The option was first read back as true.
    pub first_true: Option<Timestamp>,
    /// The option was first read back as false.
    pub first_false: Option<Timestamp>,
    /// A code was first observed.
    pub first_code: Option<Timestamp>,
    /// Permission of ours was first acknowledged: until then it was not ours that a reading found.
    pub first_allow: Option<Timestamp>,
}

named! {
    /// The gap "allowed before escrow" (R7): a person may have locked the device before its code was had, and then the
    /// code may not open it.
    AllowedBeforeEscrow {
        /// The option was true while no code was held.
        Certain = "certain",
        /// The option was true the first time anybody looked, and we had not set it: it may have been so all along.
        Possible = "possible",
    }
}

/// Whether the lock was allowed before a code was held (R7). If so the code is doubtful, and stays so until the next
/// epoch: nobody can tell whether a lock came in between.
#[must_use]
pub fn allowed_before_escrow(history: &OptionHistory) -> Option<AllowedBeforeEscrow> {
    let first_true = history.first_true?;
    let before = |moment: Option<Timestamp>| moment.is_some_and(|moment| moment <= first_true);
    if !before(history.first_code) {
        Some(AllowedBeforeEscrow::Certain)
    } else if before(history.first_allow) || before(history.first_false) {
        None
    } else {
        Some(AllowedBeforeEscrow::Possible)
    }
}

named! {
    /// What is wrong with the lock of a Mac before anything is tried (T26; contract sheet 3f, 5.11).
    MacWarning {
        /// The Mac says that its lock cannot be managed: the permission is not sent.
        NotManageable = "not_manageable",
        /// Find My was on before the Mac enrolled by hand: MDM cannot take that lock off.
        LockedBeforeEnrolment = "locked_before_enrolment",
    }
}

/// What the first answers of an epoch told about a Mac.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MacFacts {
    /// `IsActivationLockManageable`.
    pub manageable: Option<bool>,
    /// `EnrolledViaDEP`: true rules out that a lock came before the enrolment.
    pub enrolled_via_dep: Option<bool>,
    /// Find My was on in the first DeviceInformation of the epoch.
    pub find_my_at_first: Option<bool>,
    /// `IsActivationLockEnabled` in the first DeviceInformation of the epoch: a hint, good enough for a warning (R11).
    pub lock_hint_at_first: Option<bool>,
}

/// The warning to show about a Mac, the graver one if there are two; `None` for other devices.
#[must_use]
pub fn mac_warning(family: Option<ProductFamily>, facts: &MacFacts) -> Option<MacWarning> {
    if family != Some(ProductFamily::Mac) {
        return None;
    }
    let on_at_first =
        facts.find_my_at_first == Some(true) || facts.lock_hint_at_first == Some(true);
    if on_at_first && facts.enrolled_via_dep != Some(true) {
        Some(MacWarning::LockedBeforeEnrolment)
    } else if facts.manageable == Some(false) {
        Some(MacWarning::NotManageable)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: [Timestamp; 4] = [Timestamp(0), Timestamp(1), Timestamp(2), Timestamp(3)];

    /// An iPhone whose code is held, under a policy.
    fn ready(policy: UserLockPolicy) -> Facts {
        Facts {
            policy,
            not_asked: None,
            code_held: true,
            family: Some(ProductFamily::Mobile),
            manageable: None,
            read_back: None,
            sent: None,
        }
    }

    fn nothing(why: Nothing) -> Permission {
        Permission::Nothing(why)
    }

    #[test]
    fn r7_the_default_policy_sends_nothing() {
        assert_eq!(
            permission(&ready(UserLockPolicy::default())),
            nothing(Nothing::PolicyLeave)
        );
        assert_eq!("allow".parse(), Ok(UserLockPolicy::Allow));
        assert!("Allow".parse::<UserLockPolicy>().is_err());
    }

    #[test]
    fn r7_allow_waits_for_a_code_of_this_epoch() {
        let facts = ready(UserLockPolicy::Allow);
        assert_eq!(
            permission(&Facts {
                code_held: false,
                ..facts
            }),
            nothing(Nothing::NoCodeYet)
        );
        assert_eq!(permission(&facts), Permission::SendAllow);
    }

    #[test]
    fn t26_a_mac_must_say_that_its_lock_is_manageable() {
        let mac = Facts {
            family: Some(ProductFamily::Mac),
            ..ready(UserLockPolicy::Allow)
        };
        assert_eq!(permission(&mac), Permission::AskSecurityInfo);
        assert_eq!(
            permission(&Facts {
                manageable: Some(false),
                ..mac
            }),
            nothing(Nothing::NotManageable)
        );
        assert_eq!(
            permission(&Facts {
                manageable: Some(true),
                ..mac
            }),
            Permission::SendAllow
        );
    }

    #[test]
    fn t26_a_device_that_may_be_a_mac_is_not_allowed() {
        for family in [None, Some(ProductFamily::Unknown)] {
            let facts = Facts {
                family,
                ..ready(UserLockPolicy::Allow)
            };
            assert_eq!(permission(&facts), nothing(Nothing::FamilyUnknown));
        }
    }

    #[test]
    fn r7_deny_is_sent_without_a_code_and_once() {
        let deny = Facts {
            code_held: false,
            family: None,
            ..ready(UserLockPolicy::Deny)
        };
        assert_eq!(permission(&deny), Permission::SendDeny);
        let reads_false = Some(ReadBack {
            allowed: false,
            at: T[0],
        });
        assert_eq!(
            permission(&Facts {
                read_back: reads_false,
                ..deny
            }),
            nothing(Nothing::AsWanted)
        );
        let sent = Some(Sent {
            allowed: false,
            answer: Answer::Pending,
        });
        assert_eq!(
            permission(&Facts { sent, ..deny }),
            nothing(Nothing::Pending)
        );
    }

    #[test]
    fn r7_an_acknowledged_permission_is_read_back_before_it_is_believed() {
        let sent = Some(Sent {
            allowed: true,
            answer: Answer::Acknowledged { at: T[1] },
        });
        let facts = Facts {
            sent,
            ..ready(UserLockPolicy::Allow)
        };
        let read = |allowed, at| Facts {
            read_back: Some(ReadBack { allowed, at }),
            ..facts
        };
        assert_eq!(permission(&facts), Permission::ReadBack);
        assert_eq!(permission(&read(false, T[0])), Permission::ReadBack);
        assert_eq!(permission(&read(true, T[2])), nothing(Nothing::AsWanted));
        assert_eq!(
            permission(&read(false, T[2])),
            nothing(Nothing::ReadsOtherwise)
        );
    }

    #[test]
    fn t21_a_refused_permission_is_shown_and_not_sent_again() {
        let sent = Some(Sent {
            allowed: true,
            answer: Answer::Failed,
        });
        let facts = Facts {
            sent,
            ..ready(UserLockPolicy::Allow)
        };
        assert_eq!(permission(&facts), nothing(Nothing::Refused));
    }

    #[test]
    fn r7_a_changed_policy_is_sent_even_after_the_old_one_was_read_back() {
        let sent = Some(Sent {
            allowed: true,
            answer: Answer::Acknowledged { at: T[1] },
        });
        let facts = Facts {
            sent,
            read_back: Some(ReadBack {
                allowed: true,
                at: T[2],
            }),
            ..ready(UserLockPolicy::Deny)
        };
        assert_eq!(permission(&facts), Permission::SendDeny);
        // A reading older than the command does not count as "already false".
        let stale = Facts {
            read_back: Some(ReadBack {
                allowed: false,
                at: T[0],
            }),
            ..facts
        };
        assert_eq!(permission(&stale), Permission::SendDeny);
    }

    #[test]
    fn r7_a_device_that_is_not_asked_gets_no_permission() {
        for policy in [UserLockPolicy::Allow, UserLockPolicy::Deny] {
            let facts = Facts {
                not_asked: Some(NotAsked::Unsupervised),
                ..ready(policy)
            };
            assert_eq!(permission(&facts), nothing(Nothing::NotAsked));
        }
    }

    #[test]
    fn r7_allow_is_never_sent_unless_policy_code_and_mac_agree() {
        let bools = [None, Some(false), Some(true)];
        let families = [
            None,
            Some(ProductFamily::Mobile),
            Some(ProductFamily::Mac),
            Some(ProductFamily::Unknown),
        ];
        let answers = [
            Answer::Pending,
            Answer::Acknowledged { at: T[1] },
            Answer::Failed,
        ];
        let mut sents = vec![None];
        for answer in answers {
            sents.extend([true, false].map(|allowed| Some(Sent { allowed, answer })));
        }
        let mut looked = 0;
        for &policy in UserLockPolicy::ALL {
            for not_asked in [None, Some(NotAsked::SharedIpad)] {
                for code_held in [false, true] {
                    for family in families {
                        for manageable in bools {
                            for &sent in &sents {
                                for read in bools {
                                    let read_back =
                                        read.map(|allowed| ReadBack { allowed, at: T[2] });
                                    let facts = Facts {
                                        policy,
                                        not_asked,
                                        code_held,
                                        family,
                                        manageable,
                                        read_back,
                                        sent,
                                    };
                                    looked += 1;
                                    match permission(&facts) {
                                        Permission::SendAllow => {
                                            assert_eq!(policy, UserLockPolicy::Allow);
                                            assert!(code_held && not_asked.is_none());
                                            assert!(
                                                family == Some(ProductFamily::Mobile)
                                                    || manageable == Some(true)
                                            );
                                            assert!(read != Some(true));
                                        }
                                        Permission::SendDeny => {
                                            assert_eq!(policy, UserLockPolicy::Deny)
                                        }
                                        Permission::AskSecurityInfo => assert_eq!(manageable, None),
                                        Permission::ReadBack | Permission::Nothing(_) => {}
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(looked, 3 * 2 * 2 * 4 * 3 * 7 * 3);
    }

    #[test]
    fn r7_the_option_found_true_before_a_code_was_held_makes_the_code_doubtful() {
        let history = OptionHistory {
            first_true: Some(T[1]),
            ..OptionHistory::default()
        };
        assert_eq!(
            allowed_before_escrow(&history),
            Some(AllowedBeforeEscrow::Certain)
        );
        let late = OptionHistory {
            first_code: Some(T[2]),
            ..history
        };
        assert_eq!(
            allowed_before_escrow(&late),
            Some(AllowedBeforeEscrow::Certain)
        );
        let early = OptionHistory {
            first_code: Some(T[0]),
            ..history
        };
        assert_eq!(
            allowed_before_escrow(&early),
            Some(AllowedBeforeEscrow::Possible)
        );
        assert_eq!(
            allowed_before_escrow(&OptionHistory {
                first_allow: Some(T[1]),
                ..early
            }),
            None
        );
        assert_eq!(
            allowed_before_escrow(&OptionHistory {
                first_false: Some(T[0]),
                ..early
            }),
            None
        );
        assert_eq!(
            allowed_before_escrow(&OptionHistory {
                first_allow: Some(T[2]),
                ..early
            }),
            Some(AllowedBeforeEscrow::Possible)
        );
        assert_eq!(
            allowed_before_escrow(&OptionHistory {
                first_true: None,
                ..early
            }),
            None
        );
    }

    #[test]
    fn t26_find_my_on_before_a_macs_enrolment_is_a_warning() {
        let mac = Some(ProductFamily::Mac);
        let on = MacFacts {
            find_my_at_first: Some(true),
            ..MacFacts::default()
        };
        let hint = MacFacts {
            lock_hint_at_first: Some(true),
            ..MacFacts::default()
        };
        for facts in [on, hint] {
            assert_eq!(
                mac_warning(mac, &facts),
                Some(MacWarning::LockedBeforeEnrolment)
            );
            assert_eq!(
                mac_warning(
                    mac,
                    &MacFacts {
                        enrolled_via_dep: Some(true),
                        ..facts
                    }
                ),
                None
            );
            assert_eq!(mac_warning(Some(ProductFamily::Mobile), &facts), None);
            assert_eq!(mac_warning(None, &facts), None);
        }
        let unmanageable = MacFacts {
            manageable: Some(false),
            ..MacFacts::default()
        };
        assert_eq!(
            mac_warning(mac, &unmanageable),
            Some(MacWarning::NotManageable)
        );
        assert_eq!(mac_warning(mac, &MacFacts::default()), None);
    }
}
