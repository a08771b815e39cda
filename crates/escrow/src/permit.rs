//! Who may do what: actors, permissions, and the proof of a check that every verb asks for.
//!
//! A [`Permit`] can only be made by [`Escrow::authorise`], so a verb that takes one cannot be reached without the
//! check. The verb confirms the permit first in its own transaction: a token that was revoked in between opens
//! nothing.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::approvals::{Action, Leave, Needed, Unfit};
use crate::audit::{self, Entry};
use crate::db::Tx;
use crate::{Error, Escrow, Result, people, principals, sessions};

mod grants;
mod permission;

pub use grants::{Grants, Role, Scope};
pub use permission::{
    Admin, Approve, Audit, BreakGlass, Connections, Edit, Export, Lock, Permission, Permissions,
    Purge, Read, Record, Refresh, Reveal, Right, Unlock, Work,
};

/// The identifier of an organisation. It is part of every key, query and sealed cell (R5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrganisationId(String);

impl OrganisationId {
    /// An identifier as a row, a path or a query gives it. Whether there is such an organisation shows when it is
    /// used.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The identifier's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OrganisationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of thing acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// A program with a token.
    Token,
    /// A person who signed in.
    Person,
    /// An MDM that reports to us.
    Connection,
    /// This program itself: a worker, or a command on the machine's own files.
    System,
}

impl PrincipalKind {
    /// The stable text kept in the database and shown in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Person => "person",
            Self::Connection => "connection",
            Self::System => "system",
        }
    }
}

/// How an actor proved who it is. Never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A token, by its identifier.
    Token(String),
    /// A session of a person who signed in, by its identifier.
    Session(String),
    /// The invitation that they were given, which is used up with it.
    Invitation,
    /// The batch that they started, in whose lines the program acts for them.
    Batch(String),
    /// A signed or secretly addressed webhook, by the connection's identifier.
    Connection(String),
    /// It is this program.
    Program,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(id) => write!(f, "token {id}"),
            Self::Session(id) => write!(f, "session {id}"),
            Self::Invitation => f.write_str("invitation"),
            Self::Batch(id) => write!(f, "batch {id}"),
            Self::Connection(id) => write!(f, "connection {id}"),
            Self::Program => f.write_str("program"),
        }
    }
}

/// Who acts, as shown by a proof of it.
#[derive(Clone, Debug)]
pub struct Actor {
    pub(crate) principal: String,
    pub(crate) kind: PrincipalKind,
    pub(crate) name: String,
    pub(crate) grants: Grants,
    pub(crate) proof: Proof,
    pub(crate) address: Option<String>,
    /// The person whose token it is.
    pub(crate) owner: Option<String>,
    /// A person who has to set up a second factor before anything else.
    pub(crate) unfinished: bool,
    /// How this one request means to get past a guard.
    pub(crate) leave: Leave,
}

impl Actor {
    /// The program itself, named after what part of it acts, such as `worker` or `command line`. It may act in every
    /// organisation with the permissions given.
    #[must_use]
    pub fn system(name: &str, permissions: Permissions) -> Self {
        Self {
            principal: format!("system:{name}"),
            kind: PrincipalKind::System,
            name: name.to_owned(),
            grants: Grants::of(Scope::All, permissions),
            proof: Proof::Program,
            address: None,
            owner: None,
            unfinished: false,
            leave: Leave::Plain,
        }
    }

    /// The same, for one request that brings an approval, asks for one, or is an emergency.
    #[must_use]
    pub fn with_leave(self, leave: Leave) -> Self {
        Self { leave, ..self }
    }

    /// How its request means to get past a guard.
    #[must_use]
    pub fn leave(&self) -> &Leave {
        &self.leave
    }

    /// The principal's identifier, which counts for idempotency keys and for whose unlock it is.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// The kind of principal.
    #[must_use]
    pub fn kind(&self) -> PrincipalKind {
        self.kind
    }

    /// The name to show.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it may do what.
    #[must_use]
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// How it proved who it is.
    #[must_use]
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// The human being who acts, by their principal's identifier: the person, or the one whose token it is. `None` for a token of
    /// nobody, an MDM and this program.
    #[must_use]
    pub fn human(&self) -> Option<&str> {
        match self.kind {
            PrincipalKind::Person => Some(&self.principal),
            _ => self.owner.as_deref(),
        }
    }

    /// Whether it is a person who has to set up a second factor before they may do anything else.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// The network address it spoke from, if it did.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }
}

/// Why something is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The actor lacks a permission.
    #[error("{actor} does not have the permission `{}`: ask an administrator for it", permission.as_str())]
    Permission {
        /// Who asked.
        actor: String,
        /// What is missing.
        permission: Permission,
    },
    /// The actor may not act in that organisation.
    #[error("{actor} may not act in organisation {organisation}")]
    Organisation {
        /// Who asked.
        actor: String,
        /// Where.
        organisation: OrganisationId,
    },
    /// The token was revoked or expired, or the session ended, after the check.
    #[error("the token or session is no longer valid: it was revoked, has ended or has expired")]
    Revoked,
    /// The person has no second factor yet.
    #[error("{actor} has to set up a second factor first: `lockwarden second-factor` does it")]
    Unfinished {
        /// Who asked.
        actor: String,
    },
    /// It takes other people.
    #[error(
        "{} takes the approval of {}: ask for it, and do the same again once it is given",
        .0.action.as_str(),
        if .0.people == 1 { "another person" } else { "two other people" }
    )]
    ApprovalNeeded(Box<Needed>),
    /// It takes nobody else, and others were to be asked.
    #[error("that takes nobody else's approval: do it without asking for one")]
    NotNeeded,
    /// It takes other people, who were asked.
    #[error("approval {approval} was asked for; nothing is done before others say yes")]
    Asked {
        /// The request.
        approval: String,
    },
    /// The approval that was brought is not good for this.
    #[error("the approval is not good for this: {unfit}")]
    Unfit {
        /// Why not.
        unfit: Unfit,
    },
    /// Enough for an hour.
    #[error(
        "{actor} may do that for {limit} devices an hour without another's approval, and this would be more"
    )]
    Quota {
        /// Who asked.
        actor: String,
        /// What for.
        action: Action,
        /// How many times an hour.
        limit: u32,
        /// How long until once more is free.
        wait: Duration,
    },
    /// Only a person who signed in can do that, for it is about themselves or takes a human being.
    #[error(
        "{actor} is not a person who signed in, and this takes one: `lockwarden sign-in` signs in"
    )]
    NotAPerson {
        /// Who asked.
        actor: String,
    },
    /// A token can only be given what its giver has.
    #[error("{actor} cannot give away what it does not have: `{}`", permission.as_str())]
    Beyond {
        /// Who asked.
        actor: String,
        /// What it lacks.
        permission: Permission,
    },
}

impl Refusal {
    /// A short stable name, for audit and problem documents.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Permission { .. } => "no_permission",
            Self::Organisation { .. } => "other_organisation",
            Self::Revoked => "revoked",
            Self::Unfinished { .. } => "unfinished",
            Self::NotAPerson { .. } => "not_a_person",
            Self::ApprovalNeeded(_) => "approval_needed",
            Self::NotNeeded => "approval_not_needed",
            Self::Asked { .. } => "asked",
            Self::Unfit { .. } => "approval_unfit",
            Self::Quota { .. } => "quota",
            Self::Beyond { .. } => "beyond_own_permissions",
        }
    }
}

/// Proof that an actor was found allowed to do `P` in one organisation, to one subject.
pub struct Permit<P: Right> {
    actor: Actor,
    organisation: OrganisationId,
    subject: String,
    right: PhantomData<P>,
}

impl<P: Right> Clone for Permit<P> {
    fn clone(&self) -> Self {
        Self {
            actor: self.actor.clone(),
            organisation: self.organisation.clone(),
            subject: self.subject.clone(),
            right: PhantomData,
        }
    }
}

impl<P: Right> Permit<P> {
    /// Who may.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// In which organisation.
    #[must_use]
    pub fn organisation(&self) -> &OrganisationId {
        &self.organisation
    }

    /// To what, in words such as `device C02XL0GTJGH5`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// An audit entry for what is being done under this permit, with its subject as the entry's.
    pub(crate) fn entry(&self, action: &'static str) -> Entry {
        Entry::by(&self.actor, &self.organisation, action).subject(&self.subject)
    }

    /// Checks again, within the verb's own transaction and before anything else in it, that the proof still holds, and that a
    /// person's roles still allow it.
    ///
    /// # Errors
    /// [`Error::Refused`] when the token was revoked, the session ended, or a role was taken away since. The verb passes its
    /// result through [`Escrow::audit_refusal`], for the failed transaction leaves no audit row behind.
    pub(crate) async fn confirm(&self, tx: &mut Tx<'_>) -> Result<()> {
        let holds = match &self.actor.proof {
            Proof::Token(token) => principals::is_valid(tx, token).await?,
            Proof::Session(session) => sessions::is_live(tx, session).await?,
            Proof::Invitation | Proof::Batch(_) | Proof::Connection(_) | Proof::Program => {
                return Ok(());
            }
        };
        if !holds {
            return Err(Error::Refused(Refusal::Revoked));
        }
        let Some(human) = self.actor.human() else {
            return Ok(());
        };
        let may = people::grants_of(tx, human).await?;
        if may.within(&self.organisation).allow(P::PERMISSION) {
            Ok(())
        } else {
            Err(Error::Refused(Refusal::Permission {
                actor: self.actor.name.clone(),
                permission: P::PERMISSION,
            }))
        }
    }
}

impl Escrow {
    /// Checks that an actor may do `P` in an organisation to a subject (in words such as `device C02XL0GTJGH5`).
    ///
    /// # Errors
    /// [`Error::Refused`] when it may not, which is then on the audit trail; or when the database fails.
    pub async fn authorise<P: Right>(
        &self,
        actor: &Actor,
        organisation: &OrganisationId,
        subject: impl Into<String>,
    ) -> Result<Permit<P>> {
        let permit = Permit {
            actor: actor.clone(),
            organisation: organisation.clone(),
            subject: subject.into(),
            right: PhantomData,
        };
        let refusal = if actor.unfinished {
            Refusal::Unfinished {
                actor: actor.name.clone(),
            }
        } else if actor.grants.within(organisation).allow(P::PERMISSION) {
            return Ok(permit);
        } else if actor.grants.somewhere().allow(P::PERMISSION) && !actor.grants.reach(organisation)
        {
            Refusal::Organisation {
                actor: actor.name.clone(),
                organisation: organisation.clone(),
            }
        } else {
            Refusal::Permission {
                actor: actor.name.clone(),
                permission: P::PERMISSION,
            }
        };
        self.audit_refusal(&permit, Err(Error::Refused(refusal)))
            .await
    }

    /// Passes the result of a verb through. A refusal in it is put on the audit trail first; one that an approval would have
    /// prevented becomes the request for it, where the actor asks for that.
    pub(crate) async fn audit_refusal<P: Right, T>(
        &self,
        permit: &Permit<P>,
        result: Result<T>,
    ) -> Result<T> {
        if let Err(Error::Refused(Refusal::ApprovalNeeded(needed))) = &result
            && let Leave::Asking(reason) = permit.actor.leave()
        {
            return match self.approvals().ask(&permit.actor, needed, reason).await {
                Ok(approval) => Err(Error::Refused(Refusal::Asked { approval })),
                Err(error) => self.record_refusal(permit, Err(error)).await,
            };
        }
        self.record_refusal(permit, result).await
    }

    async fn record_refusal<P: Right, T>(
        &self,
        permit: &Permit<P>,
        result: Result<T>,
    ) -> Result<T> {
        if let Err(Error::Refused(refusal)) = &result {
            let escrow = self.clone();
            let permit = permit.clone();
            let refusal = refusal.name();
            self.db
                .write("refuse", async move |tx| {
                    let entry = permit
                        .entry("refused")
                        .detail("permission", P::PERMISSION.as_str())
                        .result(refusal);
                    audit::record(tx, &escrow, entry).await
                })
                .await?;
        }
        result
    }
}
