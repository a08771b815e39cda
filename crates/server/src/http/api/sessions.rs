//! Signing in and out, and what people do about how they prove who they are.

use std::net::IpAddr;
use std::time::Duration;

use activation_lock::time::Timestamp;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use escrow::people::credentials::Change;
use escrow::sessions::{Claim, Origin, SessionView, SignIn};
use seal::{Password, PasswordError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::shown::{Moment, Page};
use crate::App;
use crate::auth::{Address, Caller, cookie};
use crate::http::extract::{Body, Path, Secret, SecretJson, sentence};
use crate::http::problem::Problem;
use crate::http::refusals::Kind;

/// What is said to sign in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SignIn)]
pub(super) struct Claimed {
    /// The name to sign in with.
    login: String,
    #[schema(value_type = String)]
    password: Secret,
    /// The six digits of the second factor, for who has one.
    #[schema(value_type = Option<String>)]
    code: Option<Secret>,
    /// Have a browser keep the session in a cookie, in place of giving it in the answer.
    #[serde(default)]
    cookie: bool,
}

/// A session that has begun. Its text is in this answer and in no other.
#[derive(Serialize, ToSchema)]
#[schema(as = BegunSession)]
pub(super) struct Begun<'a> {
    /// The text, for `Authorization: Bearer`; left out when it is in a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<&'a str>,
    #[serde(flatten)]
    pub(super) view: Session,
}

/// A session: everything but its text.
#[derive(Serialize, ToSchema)]
pub(super) struct Session {
    id: String,
    /// Whether it opens anything now.
    live: bool,
    created_at: Moment,
    /// Whether a provider of identities vouched for the person, in place of a password of theirs.
    by_provider: bool,
    /// When it was last used, to within a minute.
    seen_at: Moment,
    /// When it ends if it is not used.
    idle_until: Moment,
    /// When it ends in any case.
    expires_at: Moment,
    /// Where it began.
    address: Option<String>,
    /// The program it began with, as that calls itself.
    agent: Option<String>,
    /// When it was ended before its time.
    ended_at: Option<Moment>,
    /// By whom or what.
    ended_by: Option<String>,
}

impl Session {
    pub(super) fn new(view: SessionView, now: Timestamp) -> Self {
        let live = view.is_live(now);
        let (ended_at, ended_by) = view.ended.unzip();
        Self {
            id: view.id,
            live,
            by_provider: view.by_provider,
            created_at: view.created_at.into(),
            seen_at: view.seen_at.into(),
            idle_until: view.idle_until.into(),
            expires_at: view.expires_at.into(),
            address: view.address,
            agent: view.agent,
            ended_at: ended_at.map(Moment),
            ended_by,
        }
    }
}

/// Sign in. What of it was wrong is not told. After some wrong tries the next has to wait, longer each time.
#[utoipa::path(
    post,
    path = "/v1/sign-in",
    tag = "people",
    operation_id = "sign_in",
    security(()),
    request_body = Claimed,
    responses(
        (status = 201, description = "The session has begun.", body = Begun<'_>),
        (status = 401, description = "`sign-in-refused`: the name, the password or the code is wrong."),
        (status = 403, description = "`foreign-page`: a browser was asked to by a page of another site."),
        (status = 429, description = "`too-many-tries`: nothing was looked at; `retry_after` says how long to wait.")
    )
)]
pub(super) async fn sign_in(
    State(app): State<App>,
    Address(address): Address,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let given: Claimed = body.json()?;
    if given.cookie {
        cookie::from_ours(&headers, &app, address)?;
    }
    let claim = Claim {
        login: given.login,
        password: Password::claimed(given.password.into_text()),
        code: given.code.map(Secret::into_text),
    };
    let origin = origin_of(&headers, address);
    let rules = app.settings.sign_in;
    match app.escrow.sessions().sign_in(claim, origin, rules).await? {
        SignIn::In(view, text) => {
            let lasts = view.expires_at.since(view.created_at);
            let begun = Begun {
                session: (!given.cookie).then(|| text.expose()),
                view: Session::new(*view, app.now()),
            };
            let mut response = SecretJson(StatusCode::CREATED, begun).into_response();
            if given.cookie {
                let kept = cookie::set(text.expose(), lasts).ok_or_else(Problem::failed)?;
                response.headers_mut().insert(header::SET_COOKIE, kept);
            }
            Ok(response)
        }
        SignIn::Refused { on_record } => {
            if !on_record {
                app.refusals.count(Kind::SignIn, address, app.now());
            }
            Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "sign-in-refused",
                "Not signed in",
                "The name, the password or the code is wrong, or the code was used before.",
            )
            .hint("Wait for the next code and try again. Who lost their password or second factor asks an administrator for a new invitation."))
        }
        SignIn::Wait(wait) => {
            app.refusals.count(Kind::SignIn, address, app.now());
            Err(too_many(wait))
        }
    }
}

/// Where somebody signs in from, as the request has it.
pub(crate) fn origin_of(headers: &HeaderMap, address: Option<IpAddr>) -> Origin {
    let agent = headers.get(header::USER_AGENT);
    let agent = agent.and_then(|agent| agent.to_str().ok());
    Origin {
        address: address.map(|ip| ip.to_string()),
        agent: agent.map(str::to_owned),
    }
}

pub(super) fn too_many(wait: Duration) -> Problem {
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too-many-tries",
        "Too many wrong tries",
        "After some wrong tries the next one has to wait, longer each time; nothing was looked at.",
    )
    .retry_after(wait)
}

/// An invitation that is taken.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TakenInvitation)]
pub(super) struct Taken {
    /// Its text, `lw_invite_...`.
    #[schema(value_type = String)]
    invitation: Secret,
    /// The password from now on: at least 12 characters.
    #[schema(value_type = String)]
    password: Secret,
}

/// Take an invitation: set the password that one signs in with.
#[utoipa::path(
    post,
    path = "/v1/invitations",
    tag = "people",
    operation_id = "take_invitation",
    security(()),
    request_body = Taken,
    responses(
        (status = 204, description = "The password is set: sign in."),
        (status = 400, description = "`password-refused`: too short or too long."),
        (status = 401, description = "`invitation-refused`: there is no such invitation, or none any more.")
    )
)]
pub(super) async fn take_invitation(
    State(app): State<App>,
    Address(address): Address,
    body: Body,
) -> Result<StatusCode, Problem> {
    let given: Taken = body.json()?;
    let invitation = given.invitation.into_text();
    let password = new_password(given.password)?;
    let told = address.map(|ip| ip.to_string());
    let credentials = app.escrow.credentials();
    if credentials
        .accept(invitation.trim(), password, told.as_deref())
        .await?
    {
        return Ok(StatusCode::NO_CONTENT);
    }
    app.refusals.count(Kind::SignIn, address, app.now());
    Err(Problem::new(
        StatusCode::UNAUTHORIZED,
        "invitation-refused",
        "No such invitation",
        "The invitation is mistyped, was taken before, or is older than seven days.",
    )
    .hint("Ask an administrator for a new one."))
}

fn new_password(given: Secret) -> Result<Password, Problem> {
    Password::new(given.into_text()).map_err(|error: PasswordError| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "password-refused",
            "Not a password that is taken",
            sentence(&error.to_string()),
        )
    })
}

/// Sign out: the session that is used here ends.
#[utoipa::path(
    post,
    path = "/v1/sign-out",
    tag = "people",
    operation_id = "sign_out",
    security(("session" = [])),
    responses((status = 204, description = "It opens nothing any more."))
)]
pub(super) async fn sign_out(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    app.escrow.sessions().end_own(&caller.actor, None).await?;
    Ok((
        StatusCode::NO_CONTENT,
        [(header::SET_COOKIE, cookie::forget())],
    )
        .into_response())
}

/// List one's own sessions, newest first; ended ones too, for ninety days.
#[utoipa::path(
    get,
    path = "/v1/sessions",
    tag = "people",
    operation_id = "list_sessions",
    security(("session" = [])),
    responses((status = 200, description = "All of them; there is one page.", body = Page<Session>))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Page<Session>>, Problem> {
    let now = app.now();
    let all = app.escrow.sessions().list_own(&caller.actor).await?;
    Ok(Json(Page::whole(
        all.into_iter().map(|one| Session::new(one, now)).collect(),
    )))
}

/// End one of one's own sessions.
#[utoipa::path(
    delete,
    path = "/v1/sessions/{id}",
    tag = "people",
    operation_id = "end_session",
    security(("session" = [])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 204, description = "It opens nothing any more."),
        (status = 404, description = "`unknown-session`: none of yours has this identifier, or it has ended.")
    )
)]
pub(super) async fn end(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let sessions = app.escrow.sessions();
    if sessions.end_own(&caller.actor, Some(&id)).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::new(
        StatusCode::NOT_FOUND,
        "unknown-session",
        "No such session",
        "None of your sessions has this identifier, or it has ended.",
    )
    .hint("`GET /v1/sessions` lists them."))
}

/// A change of one's own password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPassword {
    /// The password so far.
    #[schema(value_type = String)]
    old: Secret,
    /// The password from now on: at least 12 characters.
    #[schema(value_type = String)]
    new: Secret,
}

/// Change one's own password. One's other sessions end.
#[utoipa::path(
    put,
    path = "/v1/me/password",
    tag = "people",
    operation_id = "change_password",
    security(("session" = [])),
    request_body = NewPassword,
    responses(
        (status = 204, description = "It is the new one from now on."),
        (status = 400, description = "`password-refused`: too short or too long."),
        (status = 403, description = "`wrong-proof`: the old one is wrong."),
        (status = 429, description = "`too-many-tries`.")
    )
)]
pub(super) async fn change_password(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> Result<StatusCode, Problem> {
    let given: NewPassword = body.json()?;
    let new = new_password(given.new)?;
    let old = Password::claimed(given.old.into_text());
    let credentials = app.escrow.credentials();
    changed(credentials.change_password(&caller.actor, old, new).await?)
}

fn changed(change: Change) -> Result<StatusCode, Problem> {
    match change {
        Change::Done => Ok(StatusCode::NO_CONTENT),
        Change::Wrong => Err(wrong()),
        Change::Wait(wait) => Err(too_many(wait)),
    }
}

fn wrong() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "wrong-proof",
        "The password or the code is wrong",
        "Nothing was changed.",
    )
}

/// The password again, before a second factor is made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Proved {
    #[schema(value_type = String)]
    password: Secret,
}

/// The secret of a second factor that was made. It is in this answer and in no other.
#[derive(Serialize, ToSchema)]
#[schema(as = SecondFactor)]
pub(super) struct MadeSecret<'a> {
    /// The secret, to be typed into an authenticator app.
    secret: &'a str,
    /// The same as an address, to be shown as a QR code.
    address: &'a str,
}

/// Make the secret of a second factor. It counts once it is confirmed with a code.
#[utoipa::path(
    post,
    path = "/v1/me/second-factor",
    tag = "people",
    operation_id = "make_second_factor",
    security(("session" = [])),
    request_body = Proved,
    responses(
        (status = 201, description = "Put it into an authenticator app, and confirm it with a code.", body = MadeSecret<'_>),
        (status = 403, description = "`wrong-proof`: the password is wrong."),
        (status = 429, description = "`too-many-tries`.")
    )
)]
pub(super) async fn make_second_factor(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> Result<Response, Problem> {
    let given: Proved = body.json()?;
    let password = Password::claimed(given.password.into_text());
    let credentials = app.escrow.credentials();
    match credentials
        .begin_second_factor(&caller.actor, password)
        .await?
    {
        Ok(secret) => {
            let (text, address) = (
                secret.text(),
                secret.address("Lockwarden", caller.actor.name()),
            );
            let made = MadeSecret {
                secret: &text,
                address: &address,
            };
            Ok(SecretJson(StatusCode::CREATED, made).into_response())
        }
        Err(Change::Wait(wait)) => Err(too_many(wait)),
        Err(_) => Err(wrong()),
    }
}

/// A code of the second factor that was made last.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Confirmed {
    /// The six digits that the app shows.
    #[schema(value_type = String)]
    code: Secret,
}

/// Confirm the second factor that was made last: it is asked for from now on. One's other sessions end.
#[utoipa::path(
    put,
    path = "/v1/me/second-factor",
    tag = "people",
    operation_id = "confirm_second_factor",
    security(("session" = [])),
    request_body = Confirmed,
    responses(
        (status = 204, description = "It is asked for from now on."),
        (status = 403, description = "`wrong-proof`: the code is not the one that the app shows now.")
    )
)]
pub(super) async fn confirm_second_factor(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> Result<StatusCode, Problem> {
    let given: Confirmed = body.json()?;
    let credentials = app.escrow.credentials();
    let code = given.code.into_text();
    changed(
        credentials
            .confirm_second_factor(&caller.actor, code)
            .await?,
    )
}
