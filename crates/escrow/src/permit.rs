//! Who may do what: actors, permissions, and the proof of a check that every verb asks for.
//!
//! A [`Permit`] can only be made by [`Escrow::authorise`], so a verb that takes one cannot be reached without the
//! check. The verb confirms the permit first in its own transaction: a token that was revoked in between opens
//! nothing.

use std::fmt;
use std::marker::PhantomData;

use activation_lock::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::audit::{self, Entry};
use crate::db::{Tx, params};
use crate::{Error, Escrow, Result};

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

/// The organisations an actor may act in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One of them.
    One(OrganisationId),
    /// Every one.
    All,
}

impl Scope {
    /// Whether it covers an organisation.
    #[must_use]
    pub fn covers(&self, organisation: &OrganisationId) -> bool {
        match self {
            Self::One(one) => one == organisation,
            Self::All => true,
        }
    }

    /// Whether it covers all that `other` covers.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        match other {
            Self::One(one) => self.covers(one),
            Self::All => *self == Self::All,
        }
    }

    /// The organisation, when it is one.
    #[must_use]
    pub fn organisation(&self) -> Option<&OrganisationId> {
        match self {
            Self::One(one) => Some(one),
            Self::All => None,
        }
    }
}

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// One thing that may be allowed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Permission { $($(#[$doc])* $name),+ }

        impl Permission {
            /// Every permission.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The stable text kept in the database and shown in the API.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            fn from_name(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|p| p.as_str() == text)
            }
        }

        $(
            $(#[$doc])*
            pub struct $name;
            impl sealed::Sealed for $name {}
            impl Right for $name { const PERMISSION: Permission = Permission::$name; }
        )+
    };
}

mod sealed {
    pub trait Sealed {}
}

/// A permission as a type, so that a [`Permit`] of one cannot be handed in for another.
pub trait Right: sealed::Sealed + Send + Sync + 'static {
    /// The permission it stands for.
    const PERMISSION: Permission;
}

permissions! {
    /// See devices, unlocks, coverage and connections. No codes.
    Read = "read",
    /// See codes in plaintext.
    Reveal = "reveal",
    /// Ask for unlocks, cancel and continue them.
    Unlock = "unlock",
    /// Ask for locks by the organisation, cancel and continue them.
    Lock = "lock",
    /// Have devices asked for their code again.
    Refresh = "refresh",
    /// Set by hand what is known of a device, its code included.
    Edit = "edit",
    /// Change where codes can be sent, and what we are known by: MDM connections, push certificates, server tokens (R19).
    Connections = "connections",
    /// Manage organisations, policies and tokens. It does not include seeing codes.
    Admin = "admin",
    /// Report what devices did: an MDM's own permission.
    Record = "record",
    /// Carry out what others asked for: the worker's own permission.
    Work = "work",
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u16);

impl Permissions {
    /// None.
    pub const NONE: Self = Self(0);

    /// The set of these.
    #[must_use]
    pub fn of(permissions: &[Permission]) -> Self {
        Self(permissions.iter().fold(0, |set, p| set | 1 << (*p as u16)))
    }

    /// All of them: for the program acting on its own machine's files.
    #[must_use]
    pub fn all() -> Self {
        Self::of(Permission::ALL)
    }

    /// The names of the scopes that a token can be given; each is a set of permissions.
    pub const SCOPES: &'static [&'static str] =
        &["read", "reveal", "unlock", "lock", "connections", "admin"];

    /// The permissions of a scope; `None` for a name that is not in [`Self::SCOPES`].
    #[must_use]
    pub fn of_scope(name: &str) -> Option<Self> {
        use Permission as P;
        Some(Self::of(match name {
            "read" => &[P::Read],
            "reveal" => &[P::Read, P::Reveal],
            "unlock" => &[P::Read, P::Unlock, P::Refresh],
            "lock" => &[P::Read, P::Lock, P::Refresh],
            "connections" => &[P::Read, P::Connections],
            "admin" => &[P::Read, P::Refresh, P::Edit, P::Admin],
            _ => return None,
        }))
    }

    /// Both sets together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a permission is in the set.
    #[must_use]
    pub fn allow(self, permission: Permission) -> bool {
        self.0 & (1 << (permission as u16)) != 0
    }

    /// Whether every permission of `other` is in the set.
    #[must_use]
    pub fn include(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Each permission in the set.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL
            .iter()
            .copied()
            .filter(move |p| self.allow(*p))
    }

    /// The names, separated by spaces, as stored.
    pub(crate) fn to_text(self) -> String {
        self.iter()
            .map(Permission::as_str)
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Reads [`Self::to_text`]. A name not known here, of a newer program, allows nothing.
    pub(crate) fn from_text(text: &str) -> Self {
        Self::of(
            &text
                .split_whitespace()
                .filter_map(Permission::from_name)
                .collect::<Vec<_>>(),
        )
    }
}

/// How an actor proved who it is. Never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A token, by its identifier.
    Token(String),
    /// A signed or secretly addressed webhook, by the connection's identifier.
    Connection(String),
    /// It is this program.
    Program,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(id) => write!(f, "token {id}"),
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
    pub(crate) scope: Scope,
    pub(crate) permissions: Permissions,
    pub(crate) proof: Proof,
    pub(crate) address: Option<String>,
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
            scope: Scope::All,
            permissions,
            proof: Proof::Program,
            address: None,
        }
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

    /// Where it may act.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What it may do.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        self.permissions
    }

    /// How it proved who it is.
    #[must_use]
    pub fn proof(&self) -> &Proof {
        &self.proof
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
    #[error("{actor} does not have the permission `{}`: ask an administrator for a token that has it", permission.as_str())]
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
    /// The token was revoked or expired after the check.
    #[error("the token is no longer valid: it was revoked or has expired")]
    Revoked,
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

    /// Checks again, within the verb's own transaction and before anything else in it, that the proof still holds.
    ///
    /// # Errors
    /// [`Error::Refused`] when the token was revoked or has expired since. The verb passes its result through
    /// [`Escrow::audit_refusal`], for the failed transaction leaves no audit row behind.
    pub(crate) async fn confirm(&self, tx: &mut Tx<'_>) -> Result<()> {
        let Proof::Token(token) = &self.actor.proof else {
            return Ok(());
        };
        let now = tx.now();
        let row = tx
            .fetch_optional(
                "SELECT expires_at, revoked_at FROM tokens WHERE id = $1",
                params![token.as_str()],
            )
            .await?
            .ok_or(Error::Refused(Refusal::Revoked))?;
        let expires: Option<Timestamp> = row.get("expires_at")?;
        let revoked: Option<Timestamp> = row.get("revoked_at")?;
        if revoked.is_none() && expires.is_none_or(|e| now < e) {
            Ok(())
        } else {
            Err(Error::Refused(Refusal::Revoked))
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
        let refusal = if !actor.permissions.allow(P::PERMISSION) {
            Refusal::Permission {
                actor: actor.name.clone(),
                permission: P::PERMISSION,
            }
        } else if !actor.scope.covers(organisation) {
            Refusal::Organisation {
                actor: actor.name.clone(),
                organisation: organisation.clone(),
            }
        } else {
            return Ok(permit);
        };
        self.audit_refusal(&permit, Err(Error::Refused(refusal)))
            .await
    }

    /// Passes the result of a verb through. A refusal in it is put on the audit trail first.
    pub(crate) async fn audit_refusal<P: Right, T>(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_does_not_include_seeing_codes_or_changing_where_they_go() {
        let admin = Permissions::of_scope("admin").unwrap();
        for lacking in [
            Permission::Reveal,
            Permission::Connections,
            Permission::Unlock,
            Permission::Lock,
            Permission::Work,
        ] {
            assert!(!admin.allow(lacking), "{}", lacking.as_str());
        }
        assert!(admin.allow(Permission::Admin));
    }

    #[test]
    fn no_scope_has_the_programs_own_permissions() {
        for scope in Permissions::SCOPES {
            let set = Permissions::of_scope(scope).unwrap();
            assert!(
                !set.allow(Permission::Record) && !set.allow(Permission::Work),
                "{scope}"
            );
        }
        assert_eq!(Permissions::of_scope("root"), None);
    }

    #[test]
    fn sets_survive_being_stored() {
        let set = Permissions::of(&[Permission::Read, Permission::Connections]);
        assert_eq!(Permissions::from_text(&set.to_text()), set);
        assert_eq!(
            Permissions::from_text("read levitate"),
            Permissions::of(&[Permission::Read])
        );
        assert_eq!(Permissions::from_text(""), Permissions::NONE);
    }

    #[test]
    fn a_scope_of_one_organisation_does_not_include_all() {
        let one = Scope::One(OrganisationId::new("a"));
        assert!(Scope::All.includes(&one) && one.includes(&one));
        assert!(!one.includes(&Scope::All) && !one.covers(&OrganisationId::new("b")));
    }
}
