//! Approvals: what one person may do only when another says yes.
//!
//! A guarded verb says in its own transaction what it is about to do (`Guard`) and asks `pass`. Where a policy asks for other
//! people, that wants one of three things of the request, its [`Leave`]: an approval, which is then used up; that it be asked for,
//! which puts exactly this action on exactly these targets before others; or an emergency, which is loud.
//!
//! An approval is bound to the human being who asked, the action, the organisation and the exact targets, and is used once. Who said
//! yes is looked at again when it is used. "Another person" is another human being who signed in: never a token, whoever's it is.

use activation_lock::time::Timestamp;
use serde_json::{Map, Value as Json, json};

use crate::audit::Entry;
use crate::db::{Row, Tx, params};
use crate::names::names;
use crate::notices::{self, NoticeKind};
use crate::people::credentials::themselves;
use crate::permit::{Actor, Approve, OrganisationId, Permit, Read, Refusal};
use crate::{Error, Escrow, Result, audit};

mod break_glass;
mod guard;
mod policy;
mod quota;
mod verdict;

pub use self::break_glass::{Acknowledged, Emergencies, Emergency};
pub use self::guard::Needed;
pub(crate) use self::guard::{Guard, Passed, pass};
pub use self::policy::{Action, Policies, Policy, PolicyProblem};
pub use self::quota::{REVEALS_AN_HOUR, UNLOCKS_AN_HOUR};
use self::verdict::suffices;

/// How a request means to get past a guard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Leave {
    /// In no particular way.
    #[default]
    Plain,
    /// Ask for an approval of exactly this, for this reason, in place of doing it.
    Asking(String),
    /// With the approval of this identifier.
    Under(String),
    /// Without one, in an emergency, for this reason.
    BreakingGlass(String),
}

names! {
    /// How a request for an approval stands. That its time is over is told by its times.
    State {
        /// Nobody, or not enough people, have said yes.
        Asked = "asked",
        /// Enough people have said yes; it is not used yet.
        Approved = "approved",
        /// Somebody said no.
        Refused = "refused",
        /// Who asked took it back.
        Cancelled = "cancelled",
        /// It was used.
        Used = "used",
    }
}

/// Why an approval is not good for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// There is none.
    #[error("there is no such approval in this organisation")]
    Unknown,
    /// Another person asked for it.
    #[error("another person asked for it")]
    SomebodyElses,
    /// It is for something else.
    #[error("it is for another action or for other targets")]
    OtherTargets,
    /// It is not decided.
    #[error("it is not decided yet")]
    Undecided,
    /// It was refused.
    #[error("it was refused")]
    Refused,
    /// It was taken back.
    #[error("it was taken back")]
    Cancelled,
    /// It was used.
    #[error("it was used before")]
    Used,
    /// Its time is over.
    #[error("the time to use it is over")]
    Expired,
    /// Too few of those who said yes may still approve, or the policy asks for more people now.
    #[error("too few people have said yes who may still approve")]
    TooFew,
}

/// A vote of one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The person, by their principal's identifier.
    pub human: String,
    /// Their name.
    pub name: String,
    /// Yes, or no.
    pub yes: bool,
    /// What they said to it.
    pub comment: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// A request for an approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Its identifier.
    pub id: String,
    /// What for.
    pub action: Action,
    /// On what.
    pub targets: Vec<String>,
    /// Why, in the words of who asked.
    pub reason: String,
    /// The human being who asked, by their principal's identifier.
    pub human: String,
    /// Who asked, by name.
    pub requested_by: String,
    /// How it stands.
    pub state: State,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// Until when it can be decided.
    pub ask_until: Timestamp,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
    /// Until when it can be used.
    pub use_until: Option<Timestamp>,
    /// When it was used, and with which proof.
    pub used: Option<(Timestamp, String)>,
    /// Who said what, in the order of saying it.
    pub votes: Vec<Vote>,
    governed_by: Vec<Action>,
    digest: String,
}

impl Approval {
    /// Whether its time is over, with nothing decided or nothing done.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        match self.state {
            State::Asked => now >= self.ask_until,
            State::Approved => self.use_until.is_none_or(|until| now >= until),
            State::Refused | State::Cancelled | State::Used => false,
        }
    }
}

/// What came of a vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// It is counted.
    Counted(Approval),
    /// Who asked cannot say yes to themselves.
    Own,
    /// They have voted before.
    Before,
    /// It is decided, taken back, or its time is over.
    Closed(Approval),
    /// There is no such request in this organisation.
    Unknown,
}

/// Which requests are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that wait for a decision.
    Open,
    /// Those of the actor.
    Own,
    /// All.
    All,
}

/// The verbs on approvals. See [`Escrow::approvals`].
pub struct Approvals<'a>(&'a Escrow);

impl Escrow {
    /// What waits for other people, and what they said.
    #[must_use]
    pub fn approvals(&self) -> Approvals<'_> {
        Approvals(self)
    }
}

macro_rules! select_approvals {
    ($rest:literal) => {
        concat!(
            "SELECT id, action, governed_by, targets, digest, reason, human, requested_by, state, asked_at, ask_until, ",
            "decided_at, use_until, used_at, used_by FROM approvals ",
            $rest
        )
    };
}

impl Approvals<'_> {
    /// Puts a request before those who may approve it. Gives its identifier. The same request that is open already is the same one.
    pub(crate) async fn ask(&self, actor: &Actor, needed: &Needed, reason: &str) -> Result<String> {
        let Some(human) = actor.human() else {
            return Err(Error::Refused(Refusal::NotAPerson {
                actor: actor.name().to_owned(),
            }));
        };
        let (escrow, actor, organisation) =
            (self.0.clone(), actor.clone(), needed.organisation.clone());
        let (needed, reason, human) = (needed.clone(), reason.to_owned(), human.to_owned());
        self.0
            .db
            .write("approvals.ask", async move |tx| {
                let now = tx.now();
                let open = tx
                    .fetch_optional(
                        "SELECT id FROM approvals WHERE organisation = $1 AND state = $2 AND human = $3 AND digest = $4 \
                         AND ask_until > $5",
                        params![
                            organisation.as_str(),
                            State::Asked.as_str(),
                            human.as_str(),
                            needed.digest.as_str(),
                            now
                        ],
                    )
                    .await?;
                if let Some(open) = open {
                    return open.get("id");
                }
                let id = tx.new_id().to_string();
                let governed: Vec<_> = needed.governed_by.iter().map(|one| one.as_str()).collect();
                tx.execute(
                    "INSERT INTO approvals (organisation, id, action, governed_by, targets, digest, reason, human, \
                     requested_by, state, asked_at, ask_until) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
                    params![
                        organisation.as_str(),
                        id.as_str(),
                        needed.action.as_str(),
                        governed.join(" "),
                        json!(needed.targets).to_string(),
                        needed.digest.as_str(),
                        reason.as_str(),
                        human.as_str(),
                        actor.name(),
                        State::Asked.as_str(),
                        now,
                        now.plus(needed.policy.ask_within)
                    ],
                )
                .await?;
                let entry = Entry::by(&actor, &organisation, "approval.ask")
                    .subject(&id)
                    .reason(&reason)
                    .detail("action", needed.action.as_str())
                    .detail("targets", json!(needed.targets))
                    .detail("people", needed.people);
                audit::record(tx, &escrow, entry).await?;
                let told = json!({
                    "approval": id,
                    "action": needed.action.as_str(),
                    "targets": needed.targets,
                    "requested_by": actor.name(),
                    "reason": reason,
                });
                tell(tx, &escrow, &organisation, NoticeKind::ApprovalRequested, told).await?;
                Ok(id)
            })
            .await
    }

    /// The requests of the permit's organisation, newest first, at most `limit`.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn list(
        &self,
        permit: &Permit<Read>,
        which: Which,
        limit: u32,
    ) -> Result<Vec<Approval>> {
        let confirmed = permit.clone();
        let result = self
            .0
            .db
            .read(async move |tx| {
                confirmed.confirm(tx).await?;
                let organisation = confirmed.organisation();
                let own = confirmed.actor().human().unwrap_or_default().to_owned();
                let now = tx.now();
                let rows = tx
                    .fetch_all(
                        select_approvals!(
                            "WHERE organisation = $1 AND ($2 = 0 OR (state = 'asked' AND ask_until > $5)) \
                             AND ($3 = 0 OR human = $4) ORDER BY id DESC LIMIT $6"
                        ),
                        params![
                            organisation.as_str(),
                            i64::from(which == Which::Open),
                            i64::from(which == Which::Own),
                            own,
                            now,
                            i64::from(limit)
                        ],
                    )
                    .await?;
                let mut all = Vec::with_capacity(rows.len());
                for row in &rows {
                    all.push(with_votes(tx, organisation, row).await?);
                }
                Ok(all)
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// One request of the permit's organisation.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn get(&self, permit: &Permit<Read>, id: &str) -> Result<Option<Approval>> {
        let (confirmed, id) = (permit.clone(), id.to_owned());
        let result = self
            .0
            .db
            .read(async move |tx| {
                confirmed.confirm(tx).await?;
                load(tx, confirmed.organisation(), &id).await
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Says yes or no, as a person who signed in and is not the one who asked. One no is enough.
    ///
    /// # Errors
    /// [`Error::Refused`] when the actor is not such a person; or when the database fails.
    pub async fn decide(
        &self,
        permit: &Permit<Approve>,
        id: &str,
        yes: bool,
        comment: Option<&str>,
    ) -> Result<Decided> {
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let (id, comment) = (id.to_owned(), comment.map(str::to_owned));
        let result = self
            .0
            .db
            .write("approvals.decide", async move |tx| {
                confirmed.confirm(tx).await?;
                let (organisation, now) = (confirmed.organisation(), tx.now());
                let Some(approval) = load(tx, organisation, &id).await? else {
                    return Ok(Decided::Unknown);
                };
                let (human, _) = themselves(confirmed.actor())?;
                if approval.state != State::Asked || approval.is_expired(now) {
                    return Ok(Decided::Closed(approval));
                }
                let policy = policy::governing(tx, organisation, &approval.governed_by).await?;
                if yes && approval.human == human && !policy.self_approval {
                    let entry = confirmed.entry("approval.approve").subject(&id).result("own");
                    audit::record(tx, &escrow, entry).await?;
                    return Ok(Decided::Own);
                }
                if approval.votes.iter().any(|vote| vote.human == human) {
                    return Ok(Decided::Before);
                }
                tx.execute(
                    "INSERT INTO approval_votes (organisation, approval, human, name, vote, comment, at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7)",
                    params![
                        organisation.as_str(),
                        id.as_str(),
                        human.as_str(),
                        confirmed.actor().name(),
                        if yes { "yes" } else { "no" },
                        comment.as_deref(),
                        now
                    ],
                )
                .await?;
                let mut said: Vec<String> =
                    approval.votes.iter().filter(|vote| vote.yes).map(|vote| vote.human.clone()).collect();
                said.extend(yes.then_some(human));
                let state = if !yes {
                    State::Refused
                } else if suffices(&approval.human, &said, &policy) {
                    State::Approved
                } else {
                    State::Asked
                };
                if state != State::Asked {
                    let use_until = yes.then(|| now.plus(policy.use_within));
                    tx.execute(
                        "UPDATE approvals SET state = $3, decided_at = $4, use_until = $5 WHERE organisation = $1 AND id = $2",
                        params![organisation.as_str(), id.as_str(), state.as_str(), now, use_until],
                    )
                    .await?;
                }
                let action = if yes { "approval.approve" } else { "approval.refuse" };
                let mut entry = confirmed
                    .entry(action)
                    .subject(&id)
                    .detail("state", state.as_str())
                    .detail("requested_by", approval.requested_by.as_str());
                if let Some(comment) = &comment {
                    entry = entry.reason(comment);
                }
                audit::record(tx, &escrow, entry).await?;
                if state != State::Asked {
                    let told = json!({
                        "approval": id,
                        "action": approval.action.as_str(),
                        "targets": approval.targets,
                        "requested_by": approval.requested_by,
                        "state": state.as_str(),
                        "by": confirmed.actor().name(),
                        "comment": comment,
                    });
                    tell(tx, &escrow, organisation, NoticeKind::ApprovalDecided, told).await?;
                }
                let decided = load(tx, organisation, &id).await?;
                Ok(Decided::Counted(decided.ok_or(Error::Corrupt("approvals"))?))
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Takes back what one asked for, before it is used. False when there is no such request of the actor's that is open.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn cancel(&self, permit: &Permit<Read>, id: &str) -> Result<bool> {
        let (escrow, confirmed, id) = (self.0.clone(), permit.clone(), id.to_owned());
        let result = self
            .0
            .db
            .write("approvals.cancel", async move |tx| {
                confirmed.confirm(tx).await?;
                let Some(human) = confirmed.actor().human() else {
                    return Ok(false);
                };
                let now = tx.now();
                let cancelled = tx
                    .execute(
                        "UPDATE approvals SET state = $4, decided_at = $5 WHERE organisation = $1 AND id = $2 AND human = $3 \
                         AND state IN ('asked', 'approved')",
                        params![
                            confirmed.organisation().as_str(),
                            id.as_str(),
                            human,
                            State::Cancelled.as_str(),
                            now
                        ],
                    )
                    .await?;
                if cancelled == 1 {
                    audit::record(tx, &escrow, confirmed.entry("approval.cancel").subject(&id)).await?;
                }
                Ok(cancelled == 1)
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }
}

/// Has people told of what happened.
pub(crate) async fn tell(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    organisation: &OrganisationId,
    kind: NoticeKind,
    told: Json,
) -> Result<()> {
    let told = match told {
        Json::Object(told) => told,
        _ => Map::new(),
    };
    notices::post(tx, escrow, organisation, kind, told).await
}

/// How many people may approve in an organisation.
async fn approvers(tx: &mut Tx<'_>, organisation: &OrganisationId) -> Result<u64> {
    let row = tx
        .fetch_one(
            "SELECT COUNT(DISTINCT people.principal) AS approvers FROM people JOIN grants ON grants.principal = people.principal \
             WHERE grants.organisation IN ($1, '*') AND role = 'approver' AND disabled_at IS NULL",
            params![organisation.as_str()],
        )
        .await?;
    let approvers: i64 = row.get("approvers")?;
    u64::try_from(approvers).map_err(|_| Error::Corrupt("grants"))
}

async fn load(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    id: &str,
) -> Result<Option<Approval>> {
    let row = tx
        .fetch_optional(
            select_approvals!("WHERE organisation = $1 AND id = $2"),
            params![organisation.as_str(), id],
        )
        .await?;
    match row {
        Some(row) => with_votes(tx, organisation, &row).await.map(Some),
        None => Ok(None),
    }
}

async fn with_votes(tx: &mut Tx<'_>, organisation: &OrganisationId, row: &Row) -> Result<Approval> {
    let id: String = row.get("id")?;
    let votes = tx
        .fetch_all(
            "SELECT human, name, vote, comment, at FROM approval_votes WHERE organisation = $1 AND approval = $2 ORDER BY at, human",
            params![organisation.as_str(), id.as_str()],
        )
        .await?;
    let vote = |row: &Row| -> Result<Vote> {
        Ok(Vote {
            human: row.get("human")?,
            name: row.get("name")?,
            yes: row.get::<String>("vote")? == "yes",
            comment: row.get("comment")?,
            at: row.get("at")?,
        })
    };
    let action: String = row.get("action")?;
    let state: String = row.get("state")?;
    let governed: String = row.get("governed_by")?;
    let used_at: Option<Timestamp> = row.get("used_at")?;
    let used_by: Option<String> = row.get("used_by")?;
    Ok(Approval {
        id,
        action: Action::from_name(&action).ok_or(Error::Corrupt("approvals.action"))?,
        targets: read_targets(row)?,
        reason: row.get("reason")?,
        human: row.get("human")?,
        requested_by: row.get("requested_by")?,
        state: State::from_name(&state).ok_or(Error::Corrupt("approvals.state"))?,
        asked_at: row.get("asked_at")?,
        ask_until: row.get("ask_until")?,
        decided_at: row.get("decided_at")?,
        use_until: row.get("use_until")?,
        used: used_at.map(|at| (at, used_by.unwrap_or_default())),
        votes: votes.iter().map(vote).collect::<Result<_>>()?,
        governed_by: governed
            .split_whitespace()
            .filter_map(Action::from_name)
            .collect(),
        digest: row.get("digest")?,
    })
}

fn read_targets(row: &Row) -> Result<Vec<String>> {
    serde_json::from_str(&row.get::<String>("targets")?)
        .map_err(|_| Error::Corrupt("approvals.targets"))
}
