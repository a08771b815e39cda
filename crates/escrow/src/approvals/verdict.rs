//! Whether an approval lets something happen: a function of what is on record alone.

use std::time::Duration;

use activation_lock::time::Timestamp;

use super::policy::Policy;
use super::{State, Unfit};

/// How long codes that were shown can be shown again to the same session, if the answer was lost.
pub(super) const SHOWN_AGAIN_FOR: Duration = Duration::from_secs(300);

/// What is known of an approval and of who wants to use it.
#[derive(Clone, Debug)]
pub(super) struct Facts<'a> {
    pub(super) state: State,
    /// The human being who asked.
    pub(super) asked_by: &'a str,
    /// The human being who wants to use it, and how they prove themselves now.
    pub(super) used_by: Option<&'a str>,
    pub(super) proof: &'a str,
    /// Whether it is for this action on these targets.
    pub(super) is_for_this: bool,
    /// Those who said yes and may still approve, who asked included.
    pub(super) yes: &'a [String],
    pub(super) use_until: Option<Timestamp>,
    /// When it was used, and with which proof.
    pub(super) used: Option<(Timestamp, &'a str)>,
    /// Whether it is for something that can be shown again.
    pub(super) is_shown: bool,
    pub(super) now: Timestamp,
}

/// What an approval is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It is used up by this.
    First,
    /// It was used for this a moment ago, and the answer may have been lost.
    Again,
}

/// Whether an approval lets it happen under a policy as that is now.
pub(super) fn verdict(facts: &Facts<'_>, policy: &Policy) -> Result<Use, Unfit> {
    if facts.used_by != Some(facts.asked_by) {
        return Err(Unfit::SomebodyElses);
    }
    if !facts.is_for_this {
        return Err(Unfit::OtherTargets);
    }
    match facts.state {
        State::Asked => return Err(Unfit::Undecided),
        State::Refused => return Err(Unfit::Refused),
        State::Cancelled => return Err(Unfit::Cancelled),
        State::Used => {
            let again = facts.is_shown
                && facts.used.is_some_and(|(at, proof)| {
                    proof == facts.proof && facts.now.since(at) < SHOWN_AGAIN_FOR
                });
            return if again {
                Ok(Use::Again)
            } else {
                Err(Unfit::Used)
            };
        }
        State::Approved => {}
    }
    if facts.use_until.is_none_or(|until| facts.now >= until) {
        return Err(Unfit::Expired);
    }
    if suffices(facts.asked_by, facts.yes, policy) {
        Ok(Use::First)
    } else {
        Err(Unfit::TooFew)
    }
}

/// Whether so many different people said yes.
pub(super) fn suffices(asked_by: &str, yes: &[String], policy: &Policy) -> bool {
    let mut counted: Vec<_> = yes
        .iter()
        .filter(|one| policy.self_approval || *one != asked_by)
        .collect();
    counted.sort_unstable();
    counted.dedup();
    counted.len() >= usize::from(policy.people)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn people(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn facts(yes: &[String]) -> Facts<'_> {
        Facts {
            state: State::Approved,
            asked_by: "zoe",
            used_by: Some("zoe"),
            proof: "session 1",
            is_for_this: true,
            yes,
            use_until: Some(Timestamp(1_000)),
            used: None,
            is_shown: true,
            now: Timestamp(999),
        }
    }

    fn needs(people: u8) -> Policy {
        Policy {
            people,
            ..Policy::default()
        }
    }

    #[test]
    fn it_is_good_for_who_asked_for_what_they_asked_in_time_once() {
        let yes = people(&["max"]);
        let good = facts(&yes);
        assert_eq!(verdict(&good, &needs(1)), Ok(Use::First));
        let cases = [
            (
                Facts {
                    used_by: Some("eve"),
                    ..good.clone()
                },
                Unfit::SomebodyElses,
            ),
            (
                Facts {
                    used_by: None,
                    ..good.clone()
                },
                Unfit::SomebodyElses,
            ),
            (
                Facts {
                    is_for_this: false,
                    ..good.clone()
                },
                Unfit::OtherTargets,
            ),
            (
                Facts {
                    now: Timestamp(1_000),
                    ..good.clone()
                },
                Unfit::Expired,
            ),
            (
                Facts {
                    use_until: None,
                    ..good.clone()
                },
                Unfit::Expired,
            ),
            (
                Facts {
                    state: State::Asked,
                    ..good.clone()
                },
                Unfit::Undecided,
            ),
            (
                Facts {
                    state: State::Refused,
                    ..good.clone()
                },
                Unfit::Refused,
            ),
            (
                Facts {
                    state: State::Cancelled,
                    ..good.clone()
                },
                Unfit::Cancelled,
            ),
            (
                Facts {
                    state: State::Used,
                    ..good.clone()
                },
                Unfit::Used,
            ),
        ];
        for (facts, unfit) in cases {
            assert_eq!(verdict(&facts, &needs(1)), Err(unfit));
        }
    }

    #[test]
    fn what_was_shown_is_shown_again_for_five_minutes_to_the_same_session() {
        let yes = people(&["max"]);
        let used = Facts {
            state: State::Used,
            used: Some((Timestamp(900), "session 1")),
            ..facts(&yes)
        };
        let at = |now: i64, proof: &'static str, is_shown| {
            verdict(
                &Facts {
                    now: Timestamp(now),
                    proof,
                    is_shown,
                    ..used.clone()
                },
                &needs(1),
            )
        };
        let end = 900 + i64::try_from(SHOWN_AGAIN_FOR.as_millis()).unwrap();
        assert_eq!(at(end - 1, "session 1", true), Ok(Use::Again));
        assert_eq!(at(end, "session 1", true), Err(Unfit::Used));
        assert_eq!(at(901, "session 2", true), Err(Unfit::Used));
        assert_eq!(
            at(901, "session 1", false),
            Err(Unfit::Used),
            "an unlock is not asked for twice"
        );
    }

    #[test]
    fn a_policy_that_became_stricter_counts() {
        let yes = people(&["max"]);
        assert_eq!(verdict(&facts(&yes), &needs(2)), Err(Unfit::TooFew));
        assert_eq!(
            verdict(&facts(&[]), &needs(1)),
            Err(Unfit::TooFew),
            "who said yes may no longer"
        );
    }

    proptest! {
        #[test]
        fn nobody_is_counted_twice_and_who_asked_only_where_that_is_allowed(
            yes in prop::collection::vec(prop::sample::select(vec!["zoe", "max", "eve", "ann"]), 0..8),
            needed in 0_u8..3,
            self_approval: bool,
        ) {
            let yes = people(&yes);
            let policy = Policy { self_approval, ..needs(needed) };
            let different: std::collections::BTreeSet<_> =
                yes.iter().filter(|one| self_approval || *one != "zoe").collect();
            prop_assert_eq!(suffices("zoe", &yes, &policy), different.len() >= usize::from(needed));
        }
    }
}
