//! Who asks: tokens and sessions become actors, and requests find their organisation.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use activation_lock::device::SerialNumber;
use axum::extract::{ConnectInfo, FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use escrow::approvals::Leave;
use escrow::devices::Located;
use escrow::permit::{Actor, OrganisationId, Permission, Refusal};
use escrow::sessions::looks_like_a_session;
use serde::Deserialize;

use crate::App;
use crate::http::api::reason;
use crate::http::problem::Problem;
use crate::http::refusals::Kind;

pub(crate) mod cookie;

/// Asks for the approval that the request needs, in place of doing it. Holds the reason.
const ASK_APPROVAL: &str = "lockwarden-ask-approval";
/// Does what was approved. Holds the approval's identifier.
const APPROVAL: &str = "lockwarden-approval";
/// Does it without, in an emergency. Holds the reason.
const BREAK_GLASS: &str = "lockwarden-break-glass";
/// Where a proxy names the client.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// An authenticated request: who asks, and for which organisation.
pub(crate) struct Caller {
    /// Who asks.
    pub(crate) actor: Actor,
    named: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    organisation: Option<String>,
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let actor = actor(parts, app).await?;
        let named = Query::<Named>::try_from_uri(&parts.uri)
            .map_err(|_| Problem::bad_request("The query holds something that cannot be read."))?
            .0
            .organisation;
        let actor = actor.with_leave(leave(&parts.headers)?);
        Ok(Self { actor, named })
    }
}

/// How a request means to do what takes other people: one of three headers. Their texts are percent-encoded, for a header holds no
/// more than ASCII.
fn leave(headers: &HeaderMap) -> Result<Leave, Problem> {
    let mut said = Vec::new();
    for (name, value) in headers {
        let leave: fn(String) -> Leave = match name.as_str() {
            ASK_APPROVAL => Leave::Asking,
            APPROVAL => Leave::Under,
            BREAK_GLASS => Leave::BreakingGlass,
            _ => continue,
        };
        let text = percent_encoding::percent_decode(value.as_bytes()).decode_utf8();
        let text = text.map_err(|_| {
            Problem::bad_request(format!("The header `{name}` is not percent-encoded UTF-8."))
        })?;
        said.push(leave(reason(&text)?.to_owned()));
    }
    match said.len() {
        0 => Ok(Leave::Plain),
        1 => Ok(said.remove(0)),
        _ => Err(Problem::bad_request(
            "An approval is either brought, or asked for, or done without: one of the three headers is one too many.",
        )),
    }
}

/// Who asks: by the token or the session of an `Authorization: Bearer` header, or by a browser's cookie. A browser sends its cookie
/// whoever's page has it do so: what changes anything must come from a page of ours.
///
/// # Errors
/// When nobody does that is known, which is counted; or when the vault fails.
pub(crate) async fn actor(parts: &Parts, app: &App) -> Result<Actor, Problem> {
    let from = client(parts, app);
    let address = from.map(|ip| ip.to_string());
    let bearer = bearer(&parts.headers);
    let kept = cookie::session(&parts.headers);
    let found = match (bearer, kept) {
        (Some(text), _) if !looks_like_a_session(text) => {
            let principals = app.escrow.principals();
            principals.authenticate(text, address.as_deref()).await?
        }
        (Some(text), _) | (None, Some(text)) => {
            let sessions = app.escrow.sessions();
            let rules = app.settings.sign_in;
            sessions
                .authenticate(text, address.as_deref(), rules)
                .await?
        }
        (None, None) => None,
    };
    let Some(actor) = found else {
        app.refusals.count(Kind::Token, from, app.now());
        return Err(Problem::unauthenticated());
    };
    if bearer.is_none() && !cookie::is_safe(&parts.method) {
        cookie::from_ours(&parts.headers, app, from)?;
    }
    Ok(actor)
}

/// Where a request comes from.
pub(crate) struct Address(pub(crate) Option<IpAddr>);

impl FromRequestParts<App> for Address {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        Ok(Self(client(parts, app)))
    }
}

/// Whether a request says at all who asks.
pub(crate) fn says_who(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION) || cookie::session(headers).is_some()
}

/// The token of an `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

/// Where a request comes from. Behind a proxy of ours, what that one says: the last entry is its own.
fn client(parts: &Parts, app: &App) -> Option<IpAddr> {
    match app.settings.trusted_proxy {
        true => forwarded(&parts.headers).or(peer(parts)),
        false => peer(parts),
    }
}

fn peer(parts: &Parts) -> Option<IpAddr> {
    let info = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    info.map(|info| info.0.ip())
}

/// The last entry of `X-Forwarded-For`; some proxies add the port.
fn forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all(FORWARDED_FOR).iter().next_back()?;
    let last = last.to_str().ok()?.rsplit(',').next()?.trim();
    let bare = last.trim_start_matches('[').trim_end_matches(']');
    let with_port = || last.parse().ok().map(|address: SocketAddr| address.ip());
    bare.parse().ok().or_else(with_port)
}

/// Whether a request was made on this machine, as far as that can be known. Behind a proxy it cannot: what the proxy brings
/// comes from its own address.
pub(crate) fn is_local(parts: &Parts, app: &App) -> bool {
    let brought = ["forwarded", FORWARDED_FOR, "x-real-ip", "via"];
    !app.settings.trusted_proxy
        && peer(parts).is_some_and(|ip| ip.is_loopback())
        && !brought.iter().any(|name| parts.headers.contains_key(*name))
}

impl Caller {
    /// The organisation a request is about that names no device: the token's, the one that `?organisation=` names, or the only
    /// one there is.
    pub(crate) async fn organisation(&self, app: &App) -> Result<OrganisationId, Problem> {
        let actor = self.actor.name().to_owned();
        if self.actor.is_unfinished() {
            return Err(escrow::Error::Refused(Refusal::Unfinished { actor }).into());
        }
        if self.actor.grants().iter().next().is_none() {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "That is not allowed",
                format!("{actor} has no role in any organisation: ask an administrator for one."),
            ));
        }
        let within = app.escrow.organisations();
        if let Some(name) = &self.named {
            let found = within.find(&self.actor, name).await?;
            return found.map(|found| found.id).ok_or_else(|| {
                Problem::new(
                    StatusCode::NOT_FOUND,
                    "unknown-organisation",
                    "No such organisation",
                    "No organisation of that name is known to this token.",
                )
            });
        }
        if let Some(organisation) = self.actor.grants().only() {
            return Ok(organisation.clone());
        }
        let mut all = within.list(&self.actor).await?;
        match all.len() {
            1 => Ok(all.remove(0).id),
            0 => Err(Problem::new(
                StatusCode::CONFLICT,
                "no-organisation",
                "There is no organisation yet",
                "Everything belongs to an organisation, and none was made.",
            )
            .hint("`lockwarden init` makes the first one.")),
            _ => Err(Problem::new(
                StatusCode::CONFLICT,
                "organisation-needed",
                "The organisation has to be named",
                "This token is valid in several organisations.",
            )
            .hint("Add `?organisation=NAME`.")
            .organisations(all.into_iter().map(|one| one.name).collect())),
        }
    }

    /// The organisation whose record is meant: as [`Self::organisation`], and `*` for what concerns no single one.
    pub(crate) async fn record(&self, app: &App) -> Result<OrganisationId, Problem> {
        match self.named.as_deref() {
            Some("*") if self.actor.grants().reach_all() => Ok(OrganisationId::new("*")),
            _ => self.organisation(app).await,
        }
    }

    async fn names_of(&self, app: &App, these: &[OrganisationId]) -> Result<Vec<String>, Problem> {
        let all = app.escrow.organisations().list(&self.actor).await?;
        Ok(all
            .into_iter()
            .filter(|one| these.contains(&one.id))
            .map(|one| one.name)
            .collect())
    }

    /// Whether there is no choice of organisation: one is named, or the token is of one.
    pub(crate) fn is_of_one(&self) -> bool {
        self.named.is_some() || self.actor.grants().only().is_some()
    }

    /// The same request as if this one had made it.
    pub(crate) fn acting_as(&self, actor: Actor) -> Self {
        Self {
            actor,
            named: self.named.clone(),
        }
    }

    /// The organisation that the request itself names.
    pub(crate) fn named(&self) -> Option<&str> {
        self.named.as_deref()
    }

    /// Whether the request itself names an organisation.
    pub(crate) fn names_one(&self) -> bool {
        self.named.is_some()
    }

    /// Where a request stands that is about no organisation and takes a permission: all of them, or the first where the actor has
    /// it.
    pub(crate) fn anywhere(&self, permission: Permission) -> OrganisationId {
        let everywhere = || OrganisationId::new("*");
        let grants = self.actor.grants();
        if grants.everywhere().allow(permission) {
            return everywhere();
        }
        let own = || grants.iter().filter_map(|(scope, _)| scope.organisation());
        let may = own().find(|one| grants.within(one).allow(permission));
        may.or_else(|| own().next())
            .cloned()
            .unwrap_or_else(everywhere)
    }

    /// The organisation of a device (R5): the one named, the token's, or the only one that knows the serial number.
    pub(crate) async fn organisation_of(
        &self,
        app: &App,
        serial: &SerialNumber,
    ) -> Result<OrganisationId, Problem> {
        match self.that_knows(app, serial).await? {
            Some(organisation) => Ok(organisation),
            // One organisation alone needs no naming, also for a device that is not known yet.
            None => self
                .organisation(app)
                .await
                .map_err(|_| Problem::unknown_device()),
        }
    }

    /// The same where a device that is not known becomes known: it has to be said whose it is.
    pub(crate) async fn organisation_to_be_of(
        &self,
        app: &App,
        serial: &SerialNumber,
    ) -> Result<OrganisationId, Problem> {
        match self.that_knows(app, serial).await? {
            Some(organisation) => Ok(organisation),
            None => self.organisation(app).await,
        }
    }

    async fn that_knows(
        &self,
        app: &App,
        serial: &SerialNumber,
    ) -> Result<Option<OrganisationId>, Problem> {
        if self.is_of_one() {
            return self.organisation(app).await.map(Some);
        }
        match app.escrow.devices().locate(&self.actor, serial).await? {
            Located::In(organisation) => Ok(Some(organisation)),
            Located::Nowhere => Ok(None),
            Located::Several(organisations) => Err(Problem::new(
                StatusCode::CONFLICT,
                "ambiguous-device",
                "Several organisations know this serial number",
                "The device may have been handed on; which organisation's record is meant has to be said.",
            )
            .hint("Add `?organisation=NAME`.")
            .organisations(self.names_of(app, &organisations).await?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_of_the_last_header_is_the_proxys_own() {
        let told = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, line.parse().unwrap());
            }
            forwarded(&headers).map(|ip| ip.to_string())
        };
        let ip = |text: &str| Some(text.to_owned());
        assert_eq!(told(&[]), None);
        assert_eq!(told(&["192.0.2.7"]), ip("192.0.2.7"));
        assert_eq!(told(&["127.0.0.1, 192.0.2.7"]), ip("192.0.2.7"));
        assert_eq!(told(&["192.0.2.1", "127.0.0.1,192.0.2.7"]), ip("192.0.2.7"));
        assert_eq!(told(&["192.0.2.7:4711"]), ip("192.0.2.7"));
        assert_eq!(told(&["2001:db8::7"]), ip("2001:db8::7"));
        assert_eq!(told(&["[2001:db8::7]"]), ip("2001:db8::7"));
        assert_eq!(told(&["[2001:db8::7]:4711"]), ip("2001:db8::7"));
        assert_eq!(told(&["192.0.2.7, unknown"]), None);
    }
}
