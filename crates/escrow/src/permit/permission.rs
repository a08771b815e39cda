//! What may be allowed, one by one and in sets.

use serde::{Deserialize, Serialize};

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

/// A permission as a type, so that a [`Permit`](super::Permit) of one cannot be handed in for another.
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
    /// Say yes or no to what another person asks for.
    Approve = "approve",
    /// Read the audit record, export and verify it.
    Audit = "audit",
    /// Take codes away in an archive.
    Export = "export",
    /// Remove what is kept of a device, for ever (R2).
    Purge = "purge",
    /// Do without an approval in an emergency, loudly.
    BreakGlass = "break-glass",
    /// Manage organisations, people, policies, tokens and keys. It does not include seeing codes.
    Admin = "admin",
    /// Report what devices did: an MDM's own permission.
    Record = "record",
    /// Carry out what others asked for: the worker's own permission.
    Work = "work",
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u32);

impl Permissions {
    /// None.
    pub const NONE: Self = Self(0);

    /// The set of these.
    #[must_use]
    pub fn of(permissions: &[Permission]) -> Self {
        Self(permissions.iter().fold(0, |set, p| set | 1 << (*p as u32)))
    }

    /// All of them: for the program acting on its own machine's files.
    #[must_use]
    pub fn all() -> Self {
        Self::of(Permission::ALL)
    }

    /// The names of the scopes that a token can be given; each is a set of permissions.
    pub const SCOPES: &'static [&'static str] = &[
        "read",
        "reveal",
        "unlock",
        "lock",
        "connections",
        "audit",
        "export",
        "admin",
    ];

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
            "audit" => &[P::Read, P::Audit],
            "export" => &[P::Read, P::Export],
            "admin" => &[P::Read, P::Refresh, P::Edit, P::Audit, P::Purge, P::Admin],
            _ => return None,
        }))
    }

    /// Both sets together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub fn in_common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether a permission is in the set.
    #[must_use]
    pub fn allow(self, permission: Permission) -> bool {
        self.0 & (1 << (permission as u32)) != 0
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
}
