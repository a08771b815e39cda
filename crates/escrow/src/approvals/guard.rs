//! What a guarded verb asks before it does something.

use activation_lock::device::SerialNumber;
use serde_json::json;

use super::policy::{self, Action, Policy};
use super::verdict::{Facts, Use, verdict};
use super::{Leave, State, Unfit, break_glass, load, quota, tell};
use crate::audit::{self, Entry};
use crate::db::{Tx, params};
use crate::notices::NoticeKind;
use crate::permit::{OrganisationId, Permission, Permit, PrincipalKind, Refusal, Right, Scope};
use crate::{Error, Escrow, Result, people};

/// What a guarded verb is about to do.
pub(crate) struct Guard {
    pub(super) action: Action,
    governed_by: Vec<Action>,
    targets: Vec<String>,
    /// How many devices it is about, for the quota.
    devices: u32,
    /// Where it counts, when that is not the permit's organisation.
    scope: Option<Scope>,
}

impl Guard {
    fn of(action: Action, governed_by: &[Action], target: String) -> Self {
        Self {
            action,
            governed_by: governed_by.to_vec(),
            targets: vec![target],
            devices: 1,
            scope: None,
        }
    }

    /// It counts there, whatever organisation the permit is of.
    pub(crate) fn in_scope(self, scope: Scope) -> Self {
        Self {
            scope: Some(scope),
            ..self
        }
    }

    pub(super) fn organisation<P: Right>(&self, permit: &Permit<P>) -> OrganisationId {
        match &self.scope {
            None => permit.organisation().clone(),
            Some(Scope::One(organisation)) => organisation.clone(),
            Some(Scope::All) => OrganisationId::new(policy::EVERYWHERE),
        }
    }

    /// Something about one device.
    pub(crate) fn device(action: Action, serial: &SerialNumber) -> Self {
        Self::of(action, &[action], format!("device {serial}"))
    }

    /// Something about many devices at once, which is said in one target: what a batch holds cannot be changed.
    pub(crate) fn batch(action: Action, target: String, devices: u32) -> Self {
        Self {
            devices,
            ..Self::of(action, &[action], target)
        }
    }

    /// Codes taken away: as strong as seeing one.
    pub(crate) fn export(action: Action, targets: Vec<String>, devices: u32) -> Self {
        Self {
            action,
            governed_by: vec![Action::Export, Action::Reveal, action],
            targets,
            devices,
            scope: None,
        }
    }

    /// A change of where codes can be sent (R19).
    pub(crate) fn connections(change: String) -> Self {
        Self::of(Action::Connections, &[Action::Reveal], change)
    }

    /// A role that opens codes, or how one who has it proves themselves.
    pub(crate) fn people(change: String) -> Self {
        Self::of(Action::People, Action::SETTABLE, change)
    }

    /// A policy made looser.
    pub(crate) fn loosening(of: Action, change: &str) -> Self {
        Self::of(
            Action::Policies,
            &[of],
            format!("policy {of}: {change}", of = of.as_str()),
        )
    }

    pub(super) fn written(&self) -> String {
        let mut sorted = self.targets.clone();
        sorted.sort_unstable();
        sorted.dedup();
        json!(sorted).to_string()
    }

    /// Of action, organisation and targets, so that nothing else can be done with an approval.
    fn digest(&self, organisation: &OrganisationId) -> String {
        let text = json!([self.action.as_str(), organisation.as_str(), self.written()]);
        seal::digest_of(text.to_string().as_bytes())
    }
}

/// How a guard was passed, for the audit row of what is done then.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    Free,
    Under { approval: String, approvers: String },
    Emergency { id: String, reason: String },
}

impl Passed {
    pub(crate) fn mark(&self, entry: Entry) -> Entry {
        match self {
            Self::Free => entry,
            Self::Under {
                approval,
                approvers,
            } => entry
                .detail("approval", approval.as_str())
                .detail("approvers", approvers.as_str()),
            Self::Emergency { id, reason } => entry
                .detail("break_glass", id.as_str())
                .detail("break_glass_reason", reason.as_str()),
        }
    }
}

/// What is needed and was not given. See [`Refusal::ApprovalNeeded`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Who asked.
    pub actor: String,
    /// What for.
    pub action: Action,
    /// How many people have to say yes.
    pub people: u8,
    /// On what.
    pub targets: Vec<String>,
    pub(super) organisation: OrganisationId,
    pub(super) governed_by: Vec<Action>,
    pub(super) digest: String,
    pub(super) policy: Policy,
}

/// Whether what a guarded verb is about to do may happen. Called once a verb, when nothing else can be in its way any more: an
/// approval is used up by it.
///
/// # Errors
/// [`Error::Refused`] when it may not: the verb's transaction leaves nothing then, and its result goes through
/// [`Escrow::audit_refusal`].
pub(crate) async fn pass<P: Right>(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    permit: &Permit<P>,
    guard: &Guard,
) -> Result<Passed> {
    let (actor, organisation) = (permit.actor(), &guard.organisation(permit));
    // The program carries out what was allowed before, or is run by who has the vault's key.
    if actor.kind() == PrincipalKind::System {
        return Ok(Passed::Free);
    }
    let policy = policy::governing(tx, organisation, &guard.governed_by).await?;
    if policy.people == 0 {
        // Who asks others expects that nothing is done.
        if matches!(actor.leave(), Leave::Asking(_)) {
            return Err(Error::Refused(Refusal::NotNeeded));
        }
        quota::take(tx, actor, organisation, guard.action, guard.devices).await?;
        return Ok(Passed::Free);
    }
    match actor.leave() {
        Leave::Under(id) => spend(tx, permit, guard, &policy, id).await,
        Leave::BreakingGlass(reason) => {
            quota::take(tx, actor, organisation, guard.action, guard.devices).await?;
            let id = break_glass::begin(tx, permit, guard, reason).await?;
            let entry = permit
                .entry("break_glass")
                .reason(reason)
                .detail("action", guard.action.as_str())
                .detail("targets", guard.written())
                .detail("break_glass", id.as_str());
            audit::record(tx, escrow, entry).await?;
            let told = json!({
                "emergency": id,
                "action": guard.action.as_str(),
                "targets": guard.targets,
                "by": actor.name(),
                "reason": reason,
            });
            tell(tx, escrow, organisation, NoticeKind::BreakGlass, told).await?;
            Ok(Passed::Emergency {
                id,
                reason: reason.clone(),
            })
        }
        Leave::Plain | Leave::Asking(_) => {
            Err(Error::Refused(Refusal::ApprovalNeeded(Box::new(Needed {
                actor: actor.name().to_owned(),
                action: guard.action,
                people: policy.people,
                targets: guard.targets.clone(),
                governed_by: guard.governed_by.clone(),
                digest: guard.digest(organisation),
                organisation: organisation.clone(),
                policy,
            }))))
        }
    }
}

/// Uses an approval up.
async fn spend<P: Right>(
    tx: &mut Tx<'_>,
    permit: &Permit<P>,
    guard: &Guard,
    policy: &Policy,
    id: &str,
) -> Result<Passed> {
    let (actor, organisation) = (permit.actor(), &guard.organisation(permit));
    let unfit = |unfit| Error::Refused(Refusal::Unfit { unfit });
    let Some(approval) = load(tx, organisation, id).await? else {
        return Err(unfit(Unfit::Unknown));
    };
    let mut yes = Vec::new();
    let mut names = Vec::new();
    for vote in approval.votes.iter().filter(|vote| vote.yes) {
        let may = people::grants_of(tx, &vote.human).await?;
        let is_out = people::is_shut_out(tx, &vote.human).await?;
        if !is_out && may.within(organisation).allow(Permission::Approve) {
            yes.push(vote.human.clone());
            names.push(vote.name.as_str());
        }
    }
    let (proof, now) = (actor.proof().to_string(), tx.now());
    let used = approval.used.as_ref().map(|(at, by)| (*at, by.as_str()));
    let facts = Facts {
        state: approval.state,
        asked_by: &approval.human,
        used_by: actor.human(),
        proof: &proof,
        is_for_this: approval.digest == guard.digest(organisation),
        yes: &yes,
        use_until: approval.use_until,
        used,
        is_shown: guard.action == Action::Reveal,
        now,
    };
    if verdict(&facts, policy).map_err(unfit)? == Use::First {
        let spent = tx
            .execute(
                "UPDATE approvals SET state = $3, used_at = $4, used_by = $5 \
                 WHERE organisation = $1 AND id = $2 AND state = $6",
                params![
                    organisation.as_str(),
                    id,
                    State::Used.as_str(),
                    now,
                    proof,
                    State::Approved.as_str()
                ],
            )
            .await?;
        if spent != 1 {
            return Err(unfit(Unfit::Used));
        }
    }
    Ok(Passed::Under {
        approval: id.to_owned(),
        approvers: names.join(", "),
    })
}
