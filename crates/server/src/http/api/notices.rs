//! Channels by which people are told.

use apple::transport::Endpoint;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use escrow::notices::{ChannelView, MailServer, NewAddress, NewChannel as NewRow};
use escrow::permit::{Admin, Permit};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::people::email;
use super::shown::{Moment, Page};
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Body, Path, Secret, SecretJson, name, parsed};
use crate::http::problem::Problem;
use crate::notices::is_server;

/// A channel: nothing secret.
#[derive(Serialize, ToSchema)]
#[schema(as = NoticeChannel)]
pub(super) struct Channel {
    id: String,
    /// `webhook` or `mail`.
    kind: &'static str,
    name: String,
    /// The identifier of the organisation that it tells of; null for all of them.
    organisation: Option<String>,
    /// The webhook's host, or the mail addresses. The rest of a webhook's address may be what lets one in, and is not shown.
    address: String,
    mail_server: Option<Server>,
    created_at: Moment,
    /// When something was last taken there.
    sent_at: Option<Moment>,
    /// Since when nothing is.
    failing_since: Option<Moment>,
    /// Why.
    failure: Option<String>,
}

/// How a mail server is reached.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MailServer)]
pub(super) struct Server {
    host: String,
    port: u16,
    /// `tls` from the first byte, `starttls`, or `none`, which is for a server on this machine alone.
    security: String,
    /// Whom to sign in as.
    username: Option<String>,
    /// From whom the mail is.
    from: String,
}

impl From<ChannelView> for Channel {
    fn from(view: ChannelView) -> Self {
        let (failing_since, failure) = view.failing.unzip();
        Self {
            id: view.id,
            kind: view.kind.as_str(),
            name: view.name,
            organisation: view.organisation.map(|id| id.as_str().to_owned()),
            address: view.address,
            mail_server: view.server.map(|server| Server {
                host: server.host,
                port: server.port,
                security: server.security,
                username: server.username,
                from: server.from,
            }),
            created_at: view.created_at.into(),
            sent_at: view.sent_at.map(Moment),
            failing_since: failing_since.map(Moment),
            failure,
        }
    }
}

/// A channel to be made: a webhook, or mail.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewNoticeChannel)]
pub(super) struct NewChannel {
    /// What it is called. 1 to 200 characters.
    name: String,
    /// Where a webhook is posted to: https, or http on this machine.
    webhook_url: Option<String>,
    /// To whom mail goes: addresses, or `approvers` for those who may approve where it happened.
    #[serde(default)]
    mail_to: Vec<String>,
    mail_server: Option<Server>,
    /// What to sign in at the mail server with.
    #[schema(value_type = Option<String>, write_only)]
    mail_password: Option<Secret>,
    /// It tells of every organisation.
    #[serde(default)]
    all_organisations: bool,
}

/// A channel that was made, or a webhook's new secret. It is in this answer and in no other.
#[derive(Serialize, ToSchema)]
#[schema(as = MadeNoticeChannel)]
pub(super) struct Made<'a> {
    /// What a webhook is signed with, `whsec_...` (Standard Webhooks).
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    #[serde(flatten)]
    channel: Option<Channel>,
}

async fn permit(app: &App, caller: &Caller) -> Result<Permit<Admin>, Problem> {
    let organisation = caller.organisation(app).await?;
    Ok(app
        .escrow
        .authorise(&caller.actor, &organisation, "notice channels")
        .await?)
}

fn unknown() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown-channel",
        "No such channel",
        "No channel with this identifier is yours to manage here.",
    )
    .hint("`GET /v1/notice-channels` lists them.")
}

/// List the channels by which people are told, by name.
#[utoipa::path(
    get,
    path = "/v1/notice-channels",
    tag = "notices",
    operation_id = "list_notice_channels",
    security(("token" = ["admin"])),
    responses((status = 200, description = "All of them; there is one page.", body = Page<Channel>))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Page<Channel>>, Problem> {
    let permit = permit(&app, &caller).await?;
    let all = app.escrow.notices().list(&permit).await?;
    Ok(Json(Page::whole(
        all.into_iter().map(Channel::from).collect(),
    )))
}

/// Make a channel. A webhook's secret is in the answer, once.
#[utoipa::path(
    post,
    path = "/v1/notice-channels",
    tag = "notices",
    operation_id = "add_notice_channel",
    security(("token" = ["admin"])),
    request_body = NewChannel,
    responses((status = 201, description = "People are told there from now on.", body = Made<'_>))
)]
pub(super) async fn add(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> Result<Response, Problem> {
    let permit = permit(&app, &caller).await?;
    let given: NewChannel = body.json()?;
    let address = match (given.webhook_url, given.mail_server) {
        (Some(url), None) => {
            let url = parsed::<Endpoint>(&url)?;
            NewAddress::Webhook {
                shown: url.host().to_owned(),
                url: url.to_string(),
            }
        }
        (None, Some(server)) => mail(given.mail_to, server, given.mail_password)?,
        _ => {
            return Err(Problem::bad_request(
                "A channel is either a webhook (`webhook_url`) or mail (`mail_server` and `mail_to`).",
            ));
        }
    };
    let new = NewRow {
        name: name("The name", &given.name)?.to_owned(),
        address,
        everywhere: given.all_organisations,
    };
    let (view, secret) = app.escrow.notices().add(&permit, new).await?;
    let made = Made {
        secret: secret.as_ref().map(|secret| secret.as_str()),
        channel: Some(view.into()),
    };
    Ok(SecretJson(StatusCode::CREATED, made).into_response())
}

fn mail(to: Vec<String>, server: Server, password: Option<Secret>) -> Result<NewAddress, Problem> {
    let mut addresses = Vec::with_capacity(to.len());
    for one in to {
        addresses.push(match one.as_str() {
            "approvers" => one,
            _ => email(&one)?,
        });
    }
    if addresses.is_empty() {
        return Err(Problem::bad_request("`mail_to` names nobody."));
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
    let server = MailServer {
        host: server.host,
        port: server.port,
        security: server.security,
        username: server.username,
        from: email(&server.from)?,
    };
    if server.host.is_empty() || !server.host.chars().all(is_name) || !is_server(&server) {
        return Err(Problem::bad_request(
            "The mail server is not one that mail can be given to: `security` is `tls`, `starttls`, or `none` for a server on this machine.",
        ));
    }
    Ok(NewAddress::Mail {
        to: addresses.join(" "),
        server,
        password: password.map(Secret::into_text),
    })
}

/// Remove a channel: nobody is told there any more.
#[utoipa::path(
    delete,
    path = "/v1/notice-channels/{id}",
    tag = "notices",
    operation_id = "remove_notice_channel",
    security(("token" = ["admin"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 204, description = "It is removed."),
        (status = 404, description = "`unknown-channel`.")
    )
)]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let permit = permit(&app, &caller).await?;
    match app.escrow.notices().remove(&permit, &id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(unknown()),
    }
}

/// Send a notice through a channel, to see that it gets there.
#[utoipa::path(
    post,
    path = "/v1/notice-channels/{id}/test",
    tag = "notices",
    operation_id = "test_notice_channel",
    security(("token" = ["admin"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 202, description = "It is on its way; the list shows whether it was taken."),
        (status = 404, description = "`unknown-channel`.")
    )
)]
pub(super) async fn test(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let permit = permit(&app, &caller).await?;
    match app.escrow.notices().test(&permit, &id).await? {
        true => Ok(StatusCode::ACCEPTED),
        false => Err(unknown()),
    }
}

/// Give a webhook another secret. The one before still signs beside it until the next time.
#[utoipa::path(
    post,
    path = "/v1/notice-channels/{id}/rotate-secret",
    tag = "notices",
    operation_id = "rotate_notice_secret",
    security(("token" = ["admin"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 200, description = "The secret, once.", body = Made<'_>),
        (status = 404, description = "`unknown-channel`: none, or no webhook.")
    )
)]
pub(super) async fn rotate_secret(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let permit = permit(&app, &caller).await?;
    let secret = app.escrow.notices().rotate_secret(&permit, &id).await?;
    let secret = secret.ok_or_else(unknown)?;
    let made = Made {
        secret: Some(&secret),
        channel: None,
    };
    Ok(SecretJson(StatusCode::OK, made).into_response())
}
