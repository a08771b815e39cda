//! Where an actor may do what: roles and scopes become grants.

use serde::{Deserialize, Serialize};

use super::OrganisationId;
use super::permission::{Permission, Permissions};

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

/// A named set of permissions that a person is given, in one organisation or in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Sees everything but codes.
    Viewer,
    /// Unlocks, locks, and has devices asked again.
    Operator,
    /// Sees codes, and takes them away in an archive.
    Revealer,
    /// Says yes or no to what others ask for.
    Approver,
    /// Reads and verifies the audit record.
    Auditor,
    /// Changes where codes can be sent.
    Connections,
    /// Manages people and policies; reveals nothing.
    Admin,
    /// Does without an approval in an emergency.
    BreakGlass,
}

impl Role {
    /// Every role.
    pub const ALL: &'static [Self] = &[
        Self::Viewer,
        Self::Operator,
        Self::Revealer,
        Self::Approver,
        Self::Auditor,
        Self::Connections,
        Self::Admin,
        Self::BreakGlass,
    ];

    /// What the first person is given: every role but that of emergencies.
    pub const OF_THE_FIRST: &'static [Self] = &[
        Self::Viewer,
        Self::Operator,
        Self::Revealer,
        Self::Approver,
        Self::Auditor,
        Self::Connections,
        Self::Admin,
    ];

    /// The stable text kept in the database and shown in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Revealer => "revealer",
            Self::Approver => "approver",
            Self::Auditor => "auditor",
            Self::Connections => "connections",
            Self::Admin => "admin",
            Self::BreakGlass => "break-glass",
        }
    }

    /// The role of a name.
    #[must_use]
    pub fn from_name(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|role| role.as_str() == text)
    }

    /// What it allows.
    #[must_use]
    pub fn permissions(self) -> Permissions {
        use Permission as P;
        Permissions::of(match self {
            Self::Viewer => &[P::Read],
            Self::Operator => &[P::Read, P::Unlock, P::Lock, P::Refresh],
            Self::Revealer => &[P::Read, P::Reveal, P::Export],
            Self::Approver => &[P::Read, P::Approve],
            Self::Auditor => &[P::Read, P::Audit],
            Self::Connections => &[P::Read, P::Connections],
            Self::Admin => &[P::Read, P::Refresh, P::Edit, P::Audit, P::Purge, P::Admin],
            Self::BreakGlass => &[P::Read, P::BreakGlass],
        })
    }

    /// Whether giving it opens a way to codes, so that it needs as much approval as seeing one.
    #[must_use]
    pub fn opens_codes(self) -> bool {
        matches!(
            self,
            Self::Revealer | Self::Approver | Self::Connections | Self::BreakGlass
        )
    }
}

/// What is allowed, and where: some permissions in one organisation or in all, any number of times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(Vec<(Scope, Permissions)>);

impl Grants {
    /// Nothing, anywhere.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// These permissions there.
    #[must_use]
    pub fn of(scope: Scope, permissions: Permissions) -> Self {
        Self(vec![(scope, permissions)])
    }

    /// These permissions there as well.
    pub fn add(&mut self, scope: Scope, permissions: Permissions) {
        match self.0.iter_mut().find(|(known, _)| *known == scope) {
            Some((_, known)) => *known = known.and(permissions),
            None => self.0.push((scope, permissions)),
        }
    }

    /// What is allowed by both: a token allows no more than its owner may.
    #[must_use]
    pub fn limited_to(&self, other: &Self) -> Self {
        let mut both = Self::none();
        for (scope, permissions) in &self.0 {
            for (other_scope, other_permissions) in &other.0 {
                let narrower = match (scope.includes(other_scope), other_scope.includes(scope)) {
                    (true, _) => other_scope,
                    (_, true) => scope,
                    _ => continue,
                };
                both.add(narrower.clone(), permissions.in_common(*other_permissions));
            }
        }
        both
    }

    /// What is allowed in one organisation.
    #[must_use]
    pub fn within(&self, organisation: &OrganisationId) -> Permissions {
        self.union(|scope| scope.covers(organisation))
    }

    /// What is allowed in every organisation, those yet to be made included.
    #[must_use]
    pub fn everywhere(&self) -> Permissions {
        self.union(|scope| *scope == Scope::All)
    }

    /// What is allowed somewhere.
    #[must_use]
    pub fn somewhere(&self) -> Permissions {
        self.union(|_| true)
    }

    fn union(&self, wanted: impl Fn(&Scope) -> bool) -> Permissions {
        let wanted = self.0.iter().filter(|(scope, _)| wanted(scope));
        wanted.fold(Permissions::NONE, |all, (_, these)| all.and(*these))
    }

    /// What is allowed in a scope: for all organisations, only what is allowed in every one.
    #[must_use]
    pub fn in_scope(&self, scope: &Scope) -> Permissions {
        match scope {
            Scope::One(organisation) => self.within(organisation),
            Scope::All => self.everywhere(),
        }
    }

    /// Whether anything is granted in an organisation.
    #[must_use]
    pub fn reach(&self, organisation: &OrganisationId) -> bool {
        self.0.iter().any(|(scope, _)| scope.covers(organisation))
    }

    /// Whether something is granted in all organisations.
    #[must_use]
    pub fn reach_all(&self) -> bool {
        self.0.iter().any(|(scope, _)| *scope == Scope::All)
    }

    /// The organisation, when everything is granted in the same one.
    #[must_use]
    pub fn only(&self) -> Option<&OrganisationId> {
        let first = self.0.first()?.0.organisation()?;
        let same = self
            .0
            .iter()
            .all(|(scope, _)| scope.organisation() == Some(first));
        same.then_some(first)
    }

    /// Each scope with what is allowed there.
    pub fn iter(&self) -> impl Iterator<Item = (&Scope, Permissions)> {
        self.0
            .iter()
            .map(|(scope, permissions)| (scope, *permissions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(id: &str) -> Scope {
        Scope::One(OrganisationId::new(id))
    }

    #[test]
    fn a_scope_of_one_organisation_does_not_include_all() {
        let one = one("a");
        assert!(Scope::All.includes(&one) && one.includes(&one));
        assert!(!one.includes(&Scope::All) && !one.covers(&OrganisationId::new("b")));
    }

    #[test]
    fn what_is_granted_in_one_organisation_allows_nothing_in_another() {
        let mut grants = Grants::of(one("a"), Role::Revealer.permissions());
        grants.add(one("b"), Role::Viewer.permissions());
        let (a, b, c) = (
            OrganisationId::new("a"),
            OrganisationId::new("b"),
            OrganisationId::new("c"),
        );
        assert!(grants.within(&a).allow(Permission::Reveal));
        assert!(
            !grants.within(&b).allow(Permission::Reveal)
                && grants.within(&b).allow(Permission::Read)
        );
        assert_eq!(grants.within(&c), Permissions::NONE);
        assert!(!grants.reach(&c) && !grants.reach_all() && grants.only().is_none());
        assert_eq!(grants.everywhere(), Permissions::NONE);
        grants.add(Scope::All, Role::Auditor.permissions());
        assert!(
            grants.within(&c).allow(Permission::Audit)
                && grants.within(&b).allow(Permission::Audit)
        );
        assert!(!grants.everywhere().allow(Permission::Reveal));
        assert_eq!(Grants::of(one("a"), Permissions::NONE).only(), Some(&a));
    }

    #[test]
    fn a_token_allows_no_more_than_its_owner() {
        let (a, b) = (OrganisationId::new("a"), OrganisationId::new("b"));
        let mut owner = Grants::of(one("a"), Role::Revealer.permissions());
        owner.add(Scope::All, Role::Viewer.permissions());
        let token = Grants::of(
            Scope::All,
            Permissions::of(&[Permission::Reveal, Permission::Read]),
        );
        let both = token.limited_to(&owner);
        assert!(
            both.within(&a).allow(Permission::Reveal) && both.within(&b).allow(Permission::Read)
        );
        assert!(
            !both.within(&b).allow(Permission::Reveal)
                && !both.everywhere().allow(Permission::Reveal)
        );
        assert!(
            !both.within(&a).allow(Permission::Export),
            "the token does not have it"
        );
        let narrow = Grants::of(one("b"), Permissions::of(&[Permission::Read]));
        assert_eq!(narrow.limited_to(&owner), narrow);
        assert_eq!(token.limited_to(&Grants::none()), Grants::none());
    }

    /// The table of issue and documents: who may see codes, decide about others, and change where codes go.
    #[test]
    fn admin_reveals_nothing_and_only_the_roles_named_open_codes() {
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.as_str()), Some(*role));
            let opens = [
                Permission::Reveal,
                Permission::Export,
                Permission::Approve,
                Permission::Connections,
                Permission::BreakGlass,
            ]
            .iter()
            .any(|one| role.permissions().allow(*one));
            assert_eq!(role.opens_codes(), opens, "{}", role.as_str());
            assert!(role.permissions().allow(Permission::Read));
            assert!(
                !role.permissions().allow(Permission::Record)
                    && !role.permissions().allow(Permission::Work)
            );
        }
        assert!(!Role::OF_THE_FIRST.contains(&Role::BreakGlass));
        assert_eq!(Role::OF_THE_FIRST.len() + 1, Role::ALL.len());
    }
}
