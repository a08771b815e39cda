//! Single sign-on: people for whom a provider of identities vouches, by OpenID Connect's code flow with PKCE (RFC 7636).
//!
//! Nothing of a sign-in that is under way is stored. What has to be kept of it is a ticket, sealed by the vault: a browser has it in a
//! cookie, a terminal in its memory. Whoever has not got the ticket can do nothing with the provider's answer, and the other way round.

use std::path::PathBuf;

use escrow::permit::Role;

#[cfg(feature = "oidc")]
mod open_id;

#[cfg(feature = "oidc")]
pub(crate) use open_id::{Provider, begin, identify};

/// Which provider, and what its groups give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SingleSignOn {
    /// The provider: https, or http on this machine.
    pub issuer: String,
    /// What we are called there.
    pub client_id: String,
    /// A file with the secret that goes with it, if there is one. It is read for each sign-in.
    pub client_secret_file: Option<PathBuf>,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// The claim that is taken for the name to sign in with.
    pub login_claim: String,
    /// The claim that lists groups.
    pub groups_claim: String,
    /// One of these must be among the ways (`amr`) in which the person proved themselves; when it is empty, the provider decides.
    pub methods: Vec<String>,
    /// What groups give.
    pub groups: Vec<Group>,
}

/// What a group gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The group, as the provider writes it.
    pub name: String,
    /// The organisation, by name; all of them without one.
    pub organisation: Option<String>,
    /// The roles.
    pub roles: Vec<Role>,
}

/// A sign-in that is under way.
pub(crate) struct Begun {
    /// The provider's page that a person is sent to.
    pub(crate) url: String,
    /// What is to be kept of it.
    pub(crate) ticket: String,
}

/// What the provider sends a person back with.
#[cfg_attr(
    not(feature = "oidc"),
    expect(
        dead_code,
        reason = "a build without single sign-on looks at no answer"
    )
)]
pub(crate) struct Answer<'a> {
    pub(crate) code: &'a str,
    pub(crate) state: &'a str,
}

#[cfg(not(feature = "oidc"))]
mod none {
    use super::{Answer, Begun};
    use crate::App;
    use crate::http::problem::Problem;

    pub(crate) async fn begin(_: &App) -> Result<Begun, Problem> {
        Err(Problem::no_single_sign_on())
    }

    pub(crate) async fn identify(
        _: &App,
        _: &str,
        _: Answer<'_>,
    ) -> Result<escrow::sessions::Identity, Problem> {
        Err(Problem::no_single_sign_on())
    }
}

#[cfg(not(feature = "oidc"))]
pub(crate) use none::{begin, identify};
