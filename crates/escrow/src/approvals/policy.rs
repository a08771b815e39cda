//! What needs other people: policies, and which of them governs what.

use std::time::Duration;

use activation_lock::time::DAY;

use crate::db::{Row, Tx, params};
use crate::names::names;
use crate::notices::NoticeKind;
use crate::permit::{Admin, OrganisationId, Permit};
use crate::{Error, Escrow, Result, audit};

use super::{Guard, pass, tell};

/// What stands for all organisations.
pub(super) const EVERYWHERE: &str = "*";
/// The most people that can be asked for.
const MOST: u8 = 2;

names! {
    /// What can need an approval. A policy can be set for the first five; the others follow from these.
    Action {
        /// See codes.
        Reveal = "reveal",
        /// Turn a lock off.
        Unlock = "unlock",
        /// Turn a lock on.
        Lock = "lock",
        /// Take codes away in an archive.
        Export = "export",
        /// Remove what is kept of a device, for ever.
        Purge = "purge",
        /// Take codes away in a table that anybody can read: as strong as `export`, and another person in any case.
        ExportPlain = "export_plain",
        /// Change where codes can be sent (R19): as strong as `reveal`.
        Connections = "connections",
        /// Give a role that opens codes, or how one who has it proves themselves: as strong as the strongest.
        People = "people",
        /// Loosen a policy: as strong as that one is.
        Policies = "policies",
    }
}

impl Action {
    /// Those that a policy can be set for.
    pub const SETTABLE: &'static [Self] = &[
        Self::Reveal,
        Self::Unlock,
        Self::Lock,
        Self::Export,
        Self::Purge,
    ];
}

/// How many other people something takes, and within what times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How many people have to say yes: 0, 1 or 2.
    pub people: u8,
    /// Whether who asks may be one of them.
    pub self_approval: bool,
    /// How long a request can be decided.
    pub ask_within: Duration,
    /// How long what was approved can be done.
    pub use_within: Duration,
}

impl Default for Policy {
    /// No approval is needed; where it is, seven days to decide and an hour to use.
    fn default() -> Self {
        Self {
            people: 0,
            self_approval: false,
            ask_within: DAY * 7,
            use_within: Duration::from_secs(3_600),
        }
    }
}

impl Policy {
    /// Whether changing this one to `new` makes anything easier. Where none is needed there is nothing to loosen.
    #[must_use]
    pub fn is_loosened_by(&self, new: &Self) -> bool {
        self.people > 0
            && (new.people < self.people
                || (new.self_approval && !self.self_approval)
                || new.ask_within > self.ask_within
                || new.use_within > self.use_within)
    }

    /// The stricter of two in every respect.
    fn and(self, other: Self) -> Self {
        // Where none is needed, nothing else of it counts.
        match (self.people, other.people) {
            (0, _) => other,
            (_, 0) => self,
            _ => Self {
                people: self.people.max(other.people),
                self_approval: self.self_approval && other.self_approval,
                ask_within: self.ask_within.min(other.ask_within),
                use_within: self.use_within.min(other.use_within),
            },
        }
    }

    /// In words, for targets and audit rows.
    fn told(&self) -> String {
        format!(
            "people={} self_approval={} ask_within_hours={} use_within_minutes={}",
            self.people,
            self.self_approval,
            self.ask_within.as_secs() / 3_600,
            self.use_within.as_secs() / 60
        )
    }
}

/// Why a policy was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyProblem {
    /// There is none of its own.
    #[error("no policy can be set for that: it follows from the others")]
    Derived,
    /// More people than can be asked for.
    #[error("a policy asks for 0, 1 or 2 people")]
    TooMany,
    /// A time that is none.
    #[error(
        "a request can be decided within 1 hour to 30 days, and used within 5 minutes to 24 hours"
    )]
    Times,
    /// Nobody could ever say yes.
    #[error(
        "so many people would have to say yes, and only {0} may in this organisation: give more people the role `approver` first"
    )]
    TooFewApprovers(u64),
}

/// The policy that governs something in an organisation: of several, the strictest. For what concerns all organisations, the
/// strictest of all of them.
pub(super) async fn governing(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    governed_by: &[Action],
) -> Result<Policy> {
    let mut strictest = Policy {
        people: u8::from(governed_by.contains(&Action::ExportPlain)),
        ..Policy::default()
    };
    for (action, policy) in all(tx, organisation).await? {
        if governed_by.contains(&action) {
            strictest = strictest.and(policy);
        }
    }
    Ok(strictest)
}

async fn all(tx: &mut Tx<'_>, organisation: &OrganisationId) -> Result<Vec<(Action, Policy)>> {
    let rows = if organisation.as_str() == EVERYWHERE {
        tx.fetch_all(
            "SELECT action, people, self_approval, ask_within, use_within FROM approval_policies",
            params![],
        )
        .await?
    } else {
        tx.fetch_all(
            "SELECT action, people, self_approval, ask_within, use_within FROM approval_policies WHERE organisation = $1",
            params![organisation.as_str()],
        )
        .await?
    };
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<(Action, Policy)> {
    let action: String = row.get("action")?;
    let span = |name| -> Result<Duration> {
        let millis: i64 = row.get(name)?;
        Ok(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
    };
    let people: i64 = row.get("people")?;
    let self_approval: i64 = row.get("self_approval")?;
    Ok((
        Action::from_name(&action).ok_or(Error::Corrupt("approval_policies.action"))?,
        Policy {
            people: u8::try_from(people).map_err(|_| Error::Corrupt("approval_policies.people"))?,
            self_approval: self_approval != 0,
            ask_within: span("ask_within")?,
            use_within: span("use_within")?,
        },
    ))
}

/// The verbs on policies. See [`Escrow::policies`].
pub struct Policies<'a>(&'a Escrow);

impl Escrow {
    /// What needs other people.
    #[must_use]
    pub fn policies(&self) -> Policies<'_> {
        Policies(self)
    }
}

impl Policies<'_> {
    /// The policy of each action that one can be set for, in an organisation. Anybody who may act there may know.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, organisation: &OrganisationId) -> Result<Vec<(Action, Policy)>> {
        let organisation = organisation.clone();
        self.0
            .db
            .read(async move |tx| {
                let set = all(tx, &organisation).await?;
                let of = |action: &Action| set.iter().find(|(known, _)| known == action);
                let settable = Action::SETTABLE.iter();
                let listed = settable.map(|action| match of(action) {
                    Some((_, policy)) => (*action, *policy),
                    None => (*action, Policy::default()),
                });
                Ok(listed.collect())
            })
            .await
    }

    /// Sets the policy of an action. Loosening it needs the approval that it asks for itself.
    ///
    /// # Errors
    /// [`Error::Refused`] when that is missing or the permit no longer holds; or when the database fails.
    pub async fn set(
        &self,
        permit: &Permit<Admin>,
        action: Action,
        new: Policy,
    ) -> Result<Result<(), PolicyProblem>> {
        if let Err(problem) = check(action, &new) {
            return Ok(Err(problem));
        }
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let result = self
            .0
            .db
            .write("policies.set", async move |tx| {
                confirmed.confirm(tx).await?;
                let organisation = confirmed.organisation();
                let old = governing(tx, organisation, &[action]).await?;
                let mut entry = confirmed
                    .entry("policy.approval")
                    .subject(action.as_str())
                    .detail("from", old.told())
                    .detail("to", new.told());
                if old.is_loosened_by(&new) {
                    let guard = Guard::loosening(action, &new.told());
                    let passed = pass(tx, &escrow, &confirmed, &guard).await?;
                    entry = passed.mark(entry).detail("loosened", true);
                    let told = serde_json::json!({
                        "policy": action.as_str(),
                        "from": old.told(),
                        "to": new.told(),
                        "by": confirmed.actor().name(),
                    });
                    tell(tx, &escrow, organisation, NoticeKind::PolicyLoosened, told).await?;
                } else if new.people > 0 {
                    let approvers = super::approvers(tx, organisation).await?;
                    if approvers < u64::from(new.people) {
                        return Ok(Err(PolicyProblem::TooFewApprovers(approvers)));
                    }
                }
                let now = tx.now();
                tx.execute(
                    "INSERT INTO approval_policies (organisation, action, people, self_approval, ask_within, use_within, \
                     updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (organisation, action) DO UPDATE SET \
                     people = excluded.people, self_approval = excluded.self_approval, ask_within = excluded.ask_within, \
                     use_within = excluded.use_within, updated_at = excluded.updated_at",
                    params![
                        organisation.as_str(),
                        action.as_str(),
                        i64::from(new.people),
                        i64::from(new.self_approval),
                        millis(new.ask_within),
                        millis(new.use_within),
                        now
                    ],
                )
                .await?;
                audit::record(tx, &escrow, entry).await?;
                Ok(Ok(()))
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }
}

fn check(action: Action, policy: &Policy) -> Result<(), PolicyProblem> {
    let hour = Duration::from_secs(3_600);
    if !Action::SETTABLE.contains(&action) {
        return Err(PolicyProblem::Derived);
    }
    if policy.people > MOST {
        return Err(PolicyProblem::TooMany);
    }
    let ask = (hour..=DAY * 30).contains(&policy.ask_within);
    let used = (Duration::from_secs(300)..=DAY).contains(&policy.use_within);
    if ask && used {
        Ok(())
    } else {
        Err(PolicyProblem::Times)
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(people: u8) -> Policy {
        Policy {
            people,
            ..Policy::default()
        }
    }

    #[test]
    fn fewer_people_more_time_or_ones_own_word_is_looser() {
        let two = policy(2);
        assert!(two.is_loosened_by(&policy(1)) && two.is_loosened_by(&policy(0)));
        assert!(!two.is_loosened_by(&two) && !policy(1).is_loosened_by(&two));
        let own = Policy {
            self_approval: true,
            ..two
        };
        let longer = Policy {
            use_within: two.use_within * 2,
            ..two
        };
        let later = Policy {
            ask_within: two.ask_within * 2,
            ..two
        };
        for looser in [own, longer, later] {
            assert!(two.is_loosened_by(&looser));
            assert!(!looser.is_loosened_by(&two));
        }
        assert!(
            !policy(0).is_loosened_by(&own),
            "there is nothing to loosen"
        );
        // More people do not make up for something else that is easier.
        assert!(policy(1).is_loosened_by(&own));
    }

    #[test]
    fn of_several_the_strictest_counts_in_every_respect() {
        let one = Policy {
            people: 1,
            self_approval: true,
            ask_within: DAY,
            use_within: Duration::from_secs(600),
        };
        let two = Policy {
            people: 2,
            self_approval: false,
            ..Policy::default()
        };
        let both = one.and(two);
        assert_eq!((both.people, both.self_approval), (2, false));
        assert_eq!(
            (both.ask_within, both.use_within),
            (DAY, Duration::from_secs(600))
        );
        assert_eq!(one.and(policy(0)), one);
        assert_eq!(policy(0).and(one), one);
    }

    #[test]
    fn what_follows_from_others_has_no_policy_of_its_own() {
        for action in [Action::Connections, Action::People, Action::Policies] {
            assert_eq!(check(action, &policy(1)), Err(PolicyProblem::Derived));
        }
        assert_eq!(
            check(Action::Reveal, &policy(3)),
            Err(PolicyProblem::TooMany)
        );
        let never = Policy {
            use_within: Duration::ZERO,
            ..policy(1)
        };
        assert_eq!(check(Action::Reveal, &never), Err(PolicyProblem::Times));
        assert_eq!(check(Action::Purge, &policy(2)), Ok(()));
    }
}
