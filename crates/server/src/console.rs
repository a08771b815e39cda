//! The console: pages for people, made here of the same verbs and permits as the API.
//!
//! Every page works without scripts: what is looked at is a link, what is done is a form. htmx replaces a part of a page where
//! that is quicker, and asks again for what goes on. Scripts and styles come from here alone, and none stand in a page.

use std::borrow::Cow;
use std::time::Duration;

use activation_lock::time::Timestamp;
use askama::Template;
use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use escrow::permit::{OrganisationId, Permission, Permissions, Refusal};

use crate::App;
use crate::auth::{self, Caller, cookie};
use crate::http::REFRESH;
use crate::http::api::moment;
use crate::http::problem::Problem;

mod approvals;
mod assets;
mod audit;
mod batches;
mod charts;
mod connections;
mod device;
mod devices;
mod form;
mod keys;
mod lock;
mod people;
mod policies;
mod reveal;
mod sessions;
mod sign_in;
mod system;
mod today;
mod tokens;
mod unlock;

pub(crate) use form::Form;

/// What a page may load and do: what comes from here.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

/// Every page.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(today::show))
        .route("/sign-in", get(sign_in::show).post(sign_in::sign_in))
        .route("/sign-in/provider", post(sign_in::by_provider))
        .route("/sign-out", post(sign_in::sign_out))
        .route(
            "/second-factor",
            get(sign_in::second_factor).post(sign_in::make_second_factor),
        )
        .route(
            "/second-factor/confirm",
            post(sign_in::confirm_second_factor),
        )
        .route("/devices", get(devices::list))
        .route("/devices/{serial}", get(device::show))
        .route("/devices/{serial}/refresh", post(device::refresh))
        .route(
            "/devices/{serial}/product-type",
            post(device::set_product_type),
        )
        .route(
            "/devices/{serial}/unlock",
            get(unlock::ask).post(unlock::request),
        )
        .route(
            "/devices/{serial}/reveal",
            get(reveal::ask).post(reveal::reveal),
        )
        .route("/devices/{serial}/lock", get(lock::ask).post(lock::request))
        .route("/locks/{id}", get(lock::show))
        .route("/locks/{id}/cancel", post(lock::cancel))
        .route("/locks/{id}/resume", post(lock::resume))
        .route(
            "/batches",
            get(batches::list)
                .post(batches::create)
                .layer(DefaultBodyLimit::max(batches::LARGEST_LIST)),
        )
        .route("/batches/new", get(batches::ask))
        .route("/batches/{id}", get(batches::show))
        .route("/batches/{id}/results.csv", get(batches::results))
        .route("/batches/{id}/start", post(batches::start))
        .route("/batches/{id}/pause", post(batches::pause))
        .route("/batches/{id}/resume", post(batches::resume))
        .route("/batches/{id}/cancel", post(batches::cancel))
        .route("/connections", get(connections::list))
        .route("/connections/mdm", post(connections::add_mdm))
        .route("/connections/mdm/new", get(connections::ask_mdm))
        .route(
            "/connections/certificate",
            post(connections::add_certificate),
        )
        .route("/connections/{name}/test", post(connections::test))
        .route("/join", get(people::join).post(people::take_invitation))
        .route("/people", get(people::list).post(people::invite))
        .route("/people/{person}/roles", post(people::set_roles))
        .route("/people/{person}/shut-out", post(people::shut_out))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{id}/revoke", post(tokens::revoke))
        .route("/policies", get(policies::show))
        .route("/policies/quotas", post(policies::set_quotas))
        .route("/policies/{action}", post(policies::set))
        .route("/keys", get(keys::show))
        .route("/keys/rotate", post(keys::rotate))
        .route("/system", get(system::show))
        .route("/audit", get(audit::list))
        .route("/audit/verify", post(audit::verify))
        .route("/audit/rows.jsonl", get(audit::export))
        .route("/sessions", get(sessions::list))
        .route("/sessions/{id}/end", post(sessions::end))
        .route("/approvals", get(approvals::list))
        .route("/approvals/{id}", post(approvals::decide))
        .route("/approvals/{id}/cancel", post(approvals::cancel))
        .route("/unlocks/{id}", get(unlock::show))
        .route("/unlocks/{id}/cancel", post(unlock::cancel))
        .route("/unlocks/{id}/resume", post(unlock::resume))
        .route("/assets/{name}", get(assets::get))
}

/// A rendered page.
struct Page<T>(StatusCode, T);

impl<T: Template> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        match self.1.render() {
            Ok(html) => html_response(self.0, html),
            Err(error) => {
                tracing::error!(%error, "a page cannot be rendered");
                Problem::failed().into_response()
            }
        }
    }
}

fn html_response(status: StatusCode, html: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (status, headers, html).into_response()
}

/// Whoever looks at a page has signed in.
pub(crate) struct Visitor {
    caller: Caller,
    app: App,
    /// The path of the page.
    path: String,
    /// What is to be told about what was just done.
    said: Option<&'static str>,
}

/// Why a page is not shown.
pub(crate) enum Turned {
    /// To sign in first, and then here.
    SignIn { next: String },
    /// To set up a second factor first.
    SecondFactor,
    /// To where it stands that others were asked.
    Asked,
    /// To say what is wrong.
    Problem(Problem),
}

impl From<Problem> for Turned {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<escrow::Error> for Turned {
    fn from(error: escrow::Error) -> Self {
        match error {
            escrow::Error::Refused(Refusal::Asked { .. }) => Self::Asked,
            escrow::Error::Refused(refusal @ Refusal::ApprovalNeeded(_)) => {
                let problem = Problem::from(escrow::Error::Refused(refusal));
                Self::Problem(problem.hint("Go back, and choose to ask them. Nothing was done."))
            }
            error => Self::Problem(error.into()),
        }
    }
}

type Shown<T> = Result<Page<T>, Turned>;

impl IntoResponse for Turned {
    fn into_response(self) -> Response {
        match self {
            Self::SignIn { next } if next == "/" => see("/sign-in"),
            Self::SignIn { next } => {
                let next = percent_encoding::utf8_percent_encode(
                    &next,
                    percent_encoding::NON_ALPHANUMERIC,
                );
                see(&format!("/sign-in?next={next}"))
            }
            Self::SecondFactor => see("/second-factor"),
            Self::Asked => see("/approvals?done=wanted"),
            Self::Problem(problem) => problem_page(&problem),
        }
    }
}

/// To another page, after something was done here.
fn see(place: &str) -> Response {
    let place = HeaderValue::try_from(place).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response()
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    title: &'a str,
    detail: &'a str,
    hint: Option<&'a str>,
    organisations: Vec<Named>,
}

/// Another place with the same page, by the organisation it is of.
struct Named {
    name: String,
    link: String,
}

/// A problem as a page.
pub(crate) fn problem_page(problem: &Problem) -> Response {
    let said = problem.said();
    let organisations = said.organisations.iter().map(|name| Named {
        link: format!("?{}", in_query(name)),
        name: name.clone(),
    });
    let page = ProblemPage {
        title: said.title,
        detail: said.detail,
        hint: said.hint,
        organisations: organisations.collect(),
    };
    let mut response = Page(problem.status(), page).into_response();
    // Nothing else is kept of the answer that the API would give.
    response.headers_mut().remove(header::WWW_AUTHENTICATE);
    response
}

fn in_query(organisation: &str) -> String {
    let name =
        percent_encoding::utf8_percent_encode(organisation, percent_encoding::NON_ALPHANUMERIC);
    format!("organisation={name}")
}

/// Whether a browser would rather have a page than a problem as JSON.
pub(crate) fn wants_a_page(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

impl FromRequestParts<App> for Visitor {
    type Rejection = Turned;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Turned> {
        let sign_in = |uri: &Uri| {
            // What was to be done is not done by itself after the sign-in.
            let next = if parts.method.is_safe() {
                uri.path_and_query().map_or("/", |place| place.as_str())
            } else {
                "/"
            };
            Turned::SignIn {
                next: next.to_owned(),
            }
        };
        if !auth::says_who(&parts.headers) {
            return Err(sign_in(&parts.uri));
        }
        let (uri, path) = (parts.uri.clone(), parts.uri.path().to_owned());
        let next = sign_in(&uri);
        let said = said(&uri);
        let caller = match Caller::from_request_parts(parts, app).await {
            Ok(caller) => caller,
            Err(problem) if problem.status() == StatusCode::UNAUTHORIZED => return Err(next),
            Err(problem) => return Err(problem.into()),
        };
        if caller.actor.is_unfinished()
            && !path.starts_with("/second-factor")
            && path != "/sign-out"
        {
            return Err(Turned::SecondFactor);
        }
        Ok(Self {
            caller,
            app: app.clone(),
            path,
            said,
        })
    }
}

/// What an address asks for under a name.
fn asked(uri: &Uri, name: &str) -> Option<String> {
    let query = uri.query().unwrap_or_default().as_bytes();
    url::form_urlencoded::parse(query)
        .find(|(given, _)| given == name)
        .map(|(_, value)| value.into_owned())
}

/// What is told after something was done, by the word that the address then has.
fn said(uri: &Uri) -> Option<&'static str> {
    let query = uri.query()?;
    let done = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("done="))?;
    Some(match done {
        "asked" => "The device is asked for its code when it next checks in.",
        "set" => "It is kept, and used for the next call to Apple.",
        "cancelled" => "The unlock ends before its next call.",
        "resumed" => "The unlock goes on.",
        "lock-cancelled" => "The lock ends before its next call.",
        "lock-resumed" => "The lock goes on.",
        "certificate" => "It is kept sealed, and used for the next call to Apple.",
        "policy" => "It holds from now on.",
        "token-back" => "It opens nothing any more.",
        "rotated" => "New keys are in use. What the older ones made is made anew meanwhile.",
        "batch-started" => "It was started. You can leave this page: it goes on.",
        "batch-paused" => "It is paused: no further line enters the queue.",
        "batch-resumed" => "It goes on.",
        "batch-cancelled" => "It is cancelled. What is on its way to Apple still ends there.",
        "ended" => "That session opens nothing any more.",
        "roles" => "They may do that from now on, and nothing else here.",
        "out" => "They are shut out: their sessions have ended.",
        "in" => "They may sign in again.",
        "wanted" => "Others are asked. Once enough have said yes, it goes on from here.",
        "yes" => "It is on record that you said yes.",
        "no" => "It is on record that you said no.",
        "taken-back" => "It is taken back.",
        _ => return None,
    })
}

impl Visitor {
    /// A page within the organisation that was named.
    fn at(&self, path: &str) -> String {
        match self.caller.named() {
            Some(organisation) => format!("{path}?{}", in_query(organisation)),
            None => path.to_owned(),
        }
    }

    /// Where a form leads back to, with the word for what was done, within the organisation that was named.
    fn back(&self, path: &str, done: &str) -> String {
        match self.caller.named() {
            Some(organisation) => format!("{path}?{}&done={done}", in_query(organisation)),
            None => format!("{path}?done={done}"),
        }
    }

    /// What stands around a page, for a page of one organisation.
    async fn frame(
        &self,
        title: impl Into<Cow<'static, str>>,
        organisation: &OrganisationId,
    ) -> Result<Frame, Turned> {
        let actor = &self.caller.actor;
        let all = self.app.escrow.organisations().list(actor).await?;
        let named = all.iter().find(|one| one.id == *organisation);
        let organisation_name = named.map_or_else(String::new, |one| one.name.clone());
        let within = if all.len() > 1 {
            format!("?{}", in_query(&organisation_name))
        } else {
            String::new()
        };
        let others = all.iter().filter(|one| one.id != *organisation);
        let others = others.map(|one| Named {
            link: format!("{}?{}", self.path, in_query(&one.name)),
            name: one.name.clone(),
        });
        Ok(Frame {
            title: title.into(),
            person: actor.name().to_owned(),
            section: self.path.split('/').nth(1).unwrap_or_default().to_owned(),
            others: others.collect(),
            organisation: organisation_name,
            within,
            is_sandbox: self.app.settings.sandbox,
            said: self.said,
            may: actor.grants().within(organisation),
            sees_all: actor.grants().everywhere().allow(Permission::Read),
            now: self.app.now(),
        })
    }
}

/// What stands around a page.
struct Frame {
    title: Cow<'static, str>,
    person: String,
    /// The first part of the path.
    section: String,
    organisation: String,
    /// The same page for the other organisations.
    others: Vec<Named>,
    /// What an address of this organisation has behind its path.
    within: String,
    is_sandbox: bool,
    said: Option<&'static str>,
    may: Permissions,
    /// Whether they may see every organisation.
    sees_all: bool,
    now: Timestamp,
}

impl Frame {
    fn may_unlock(&self) -> bool {
        self.may.allow(Permission::Unlock)
    }

    fn may_lock(&self) -> bool {
        self.may.allow(Permission::Lock)
    }

    fn may_manage(&self) -> bool {
        self.may.allow(Permission::Admin)
    }

    /// Whether it is about who may do what.
    fn is_managing(&self) -> bool {
        matches!(self.section.as_str(), "people" | "tokens" | "policies")
    }

    fn may_audit(&self) -> bool {
        self.may.allow(Permission::Audit)
    }

    fn may_reveal(&self) -> bool {
        self.may.allow(Permission::Reveal)
    }

    fn may_refresh(&self) -> bool {
        self.may.allow(Permission::Refresh)
    }

    fn may_edit(&self) -> bool {
        self.may.allow(Permission::Edit)
    }

    fn may_bulk(&self) -> bool {
        self.may_unlock() || self.may_lock() || self.may_refresh()
    }

    /// The address of a page of this organisation that asks for something.
    fn link(&self, path: &str, pairs: &[(&str, &str)]) -> String {
        let pairs = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        let within = self.within.trim_start_matches('?');
        match (within.is_empty(), pairs.is_empty()) {
            (true, true) => path.to_owned(),
            (true, false) => format!("{path}?{pairs}"),
            (false, true) => format!("{path}?{within}"),
            (false, false) => format!("{path}?{within}&{pairs}"),
        }
    }

    /// A moment as a page shows it.
    fn when(&self, at: &Timestamp) -> When {
        When {
            exactly: moment(*at),
            about: about(self.now, *at),
        }
    }
}

/// A moment: exactly, and as one says it.
#[derive(Template)]
#[template(
    source = r#"<time datetime="{{ exactly }}" title="{{ exactly }}">{{ about }}</time>"#,
    ext = "html"
)]
struct When {
    exactly: String,
    about: String,
}

/// How long ago, or how long until.
fn about(now: Timestamp, at: Timestamp) -> String {
    let (is_past, distance) = if at <= now {
        (true, now.since(at))
    } else {
        (false, at.since(now))
    };
    let Some(length) = length(distance) else {
        return if is_past { "just now" } else { "in a moment" }.to_owned();
    };
    if is_past {
        format!("{length} ago")
    } else {
        format!("in {length}")
    }
}

/// A length of time in the largest unit of which it has one; `None` for less than a minute.
fn length(distance: Duration) -> Option<String> {
    const UNITS: [(u64, &str); 5] = [
        (365 * 24 * 60 * 60, "year"),
        (30 * 24 * 60 * 60, "month"),
        (24 * 60 * 60, "day"),
        (60 * 60, "hour"),
        (60, "minute"),
    ];
    let seconds = distance.as_secs();
    let (unit, name) = UNITS.into_iter().find(|(unit, _)| seconds >= *unit)?;
    let count = seconds / unit;
    Some(format!(
        "{count} {name}{}",
        if count == 1 { "" } else { "s" }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_said_as_people_say_them() {
        let now = Timestamp(1_780_000_000_000);
        let about = |seconds: i64| about(now, Timestamp(now.0 + seconds * 1000));
        assert_eq!(about(0), "just now");
        assert_eq!(about(-59), "just now");
        assert_eq!(about(30), "in a moment");
        assert_eq!(about(-60), "1 minute ago");
        assert_eq!(about(-7_199), "1 hour ago");
        assert_eq!(about(-3 * 86_400), "3 days ago");
        assert_eq!(about(15 * 86_400), "in 15 days");
        assert_eq!(about(-800 * 86_400), "2 years ago");
    }

    #[test]
    fn what_is_told_is_a_text_of_ours() {
        let told = |query: &'static str| said(&Uri::from_static(query));
        assert!(told("/devices/X?organisation=A&done=asked").is_some());
        assert_eq!(told("/devices/X?done=%3Cscript%3E"), None);
        assert_eq!(told("/devices/X"), None);
    }
}
