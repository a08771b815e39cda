//! Connections to MDMs: made, changed, tested, removed, and their webhooks' secrets (R19, R22).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use escrow::connections::{
    ConnectionChange, ConnectionKind, ConnectionProblem, ConnectionView, HookAuth, NewConnection,
    UnlockVia,
};
use escrow::permit::{Connections, Permit, Read};
use escrow::principals::SecretText;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::shown::{Moment, Page};
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Body, Path, Secret, SecretJson, sentence};
use crate::http::problem::Problem;

/// A connection to an MDM, without its secrets.
#[derive(Serialize, ToSchema)]
pub(super) struct Mdm {
    #[serde(flatten)]
    connection: Connection,
    /// Where its webhooks go; null where the address holds the secret, which was shown once.
    webhook_url: Option<String>,
    /// The same without the server.
    webhook_path: Option<String>,
}

impl Mdm {
    fn new(app: &App, view: ConnectionView) -> Self {
        let path = (view.hook_auth == HookAuth::Hmac).then(|| hook_path(&view.name, None));
        Self {
            webhook_url: path.as_ref().map(|path| format!("{}{path}", app.url)),
            webhook_path: path,
            connection: view.into(),
        }
    }
}

/// What is known of a connection.
#[derive(Serialize, ToSchema)]
#[schema(as = MdmConnection)]
struct Connection {
    id: String,
    name: String,
    /// `nanomdm`, `nanohub` or `micromdm`. More may come.
    kind: &'static str,
    /// Where its API is.
    base_url: String,
    /// What stands before the API's own paths.
    path_prefix: String,
    /// The user name of its API.
    username: String,
    /// How its webhooks prove themselves: `hmac` or `path`.
    hook_auth: &'static str,
    /// Whether the secret before the last rotation is still accepted.
    previous_secret_live: bool,
    /// Who calls Apple for its devices: `own` (this server, with a push certificate) or `delegated` (the MDM).
    unlock_via: &'static str,
    /// Calls to it a second, at most.
    max_rate: Option<f64>,
    created_at: Moment,
    updated_at: Moment,
}

impl From<ConnectionView> for Connection {
    fn from(view: ConnectionView) -> Self {
        Self {
            id: view.id,
            name: view.name,
            kind: view.kind.as_str(),
            base_url: view.base_url,
            path_prefix: view.path_prefix,
            username: view.username,
            hook_auth: view.hook_auth.as_str(),
            previous_secret_live: view.previous_secret_live,
            unlock_via: view.unlock_via.as_str(),
            max_rate: view.max_rate,
            created_at: view.created_at.into(),
            updated_at: view.updated_at.into(),
        }
    }
}

/// A connection that was made. Its secrets are in this answer and in no other.
#[derive(Serialize, ToSchema)]
#[schema(as = ConnectedMdm)]
pub(super) struct Made<'a> {
    #[serde(flatten)]
    connection: Connection,
    #[serde(flatten)]
    webhook: Webhook<'a>,
}

/// A webhook's new secret. It is in this answer and in no other.
#[derive(Serialize, ToSchema)]
#[schema(as = RotatedSecret)]
pub(super) struct Rotated<'a> {
    name: &'a str,
    /// The secret before is accepted until it is retired, or until the next rotation.
    previous_secret_live: bool,
    #[serde(flatten)]
    webhook: Webhook<'a>,
}

/// What the MDM is to be given for its webhooks.
#[derive(Serialize, ToSchema)]
struct Webhook<'a> {
    /// Where webhooks go. With `hook_auth` `path` it holds the secret.
    webhook_url: &'a str,
    /// The same without the server.
    webhook_path: &'a str,
    /// The key for `X-Hmac-Signature`, where it was made here.
    #[serde(skip_serializing_if = "Option::is_none")]
    hmac_secret: Option<&'a str>,
    /// The secret in the address, where webhooks prove themselves so.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_secret: Option<&'a str>,
}

fn hook_path(name: &str, secret: Option<&str>) -> String {
    match secret {
        Some(secret) => format!("/v1/hooks/{name}/{secret}"),
        None => format!("/v1/hooks/{name}"),
    }
}

/// Where webhooks go, with the secret where it is part of the address. Wiped when dropped.
struct Address {
    path: Zeroizing<String>,
    url: Zeroizing<String>,
}

impl Address {
    /// `made` is a secret that was made here.
    fn new(app: &App, name: &str, auth: HookAuth, made: Option<&SecretText>) -> Self {
        let secret = made
            .filter(|_| auth == HookAuth::Path)
            .map(SecretText::expose);
        let path = Zeroizing::new(hook_path(name, secret));
        let url = Zeroizing::new(format!("{}{}", app.url, *path));
        Self { path, url }
    }

    fn shown<'a>(&'a self, auth: HookAuth, made: Option<&'a SecretText>) -> Webhook<'a> {
        let made = made.map(SecretText::expose);
        Webhook {
            webhook_url: &self.url,
            webhook_path: &self.path,
            hmac_secret: made.filter(|_| auth == HookAuth::Hmac),
            path_secret: made.filter(|_| auth == HookAuth::Path),
        }
    }
}

/// A connection to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMdm {
    /// Part of the webhook's address: lower-case letters, digits and dashes, at most 40.
    name: String,
    /// `nanomdm` (when left out), `nanohub` or `micromdm`.
    kind: Option<String>,
    /// Where its API is: https, or http on the server's own machine.
    base_url: String,
    /// What stands before the API's own paths. When left out: `/api/v1/nanomdm` for NanoHUB, nothing for others.
    path_prefix: Option<String>,
    /// The user name of its API. When left out, the one that this kind of MDM has.
    username: Option<String>,
    /// The password or key of its API.
    #[schema(value_type = String, write_only)]
    api_key: Secret,
    /// How its webhooks prove themselves: they are signed (`hmac`), or their address holds a secret (`path`), for MDMs that
    /// cannot sign. When left out: `path` for MicroMDM, `hmac` for others.
    hook_auth: Option<String>,
    /// The HMAC key it uses already; one is made when this is left out.
    #[schema(value_type = Option<String>, write_only)]
    hmac_secret: Option<Secret>,
    /// Who calls Apple for its devices: `own` (when left out: this server, with a push certificate) or `delegated` (the MDM).
    unlock_via: Option<String>,
    /// Calls to it a second, at most.
    max_rate: Option<f64>,
}

/// What is to be changed of a connection. What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MdmChange)]
pub(super) struct Change {
    base_url: Option<String>,
    username: Option<String>,
    #[schema(value_type = Option<String>, write_only)]
    api_key: Option<Secret>,
    /// `own` or `delegated`.
    unlock_via: Option<String>,
}

/// The new secret, where it is not to be made here.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewWebhookSecret)]
pub(super) struct NewSecret {
    /// The HMAC key that the MDM uses from now on; one is made when this is left out.
    #[schema(value_type = Option<String>, write_only)]
    hmac_secret: Option<Secret>,
}

/// What a test found.
#[derive(Serialize, ToSchema)]
#[schema(as = TestResult)]
pub(super) struct Tested {
    /// It works as far as a test can tell.
    pub(super) ok: bool,
    /// What was found, in words.
    pub(super) detail: String,
    /// What to do.
    pub(super) hint: Option<String>,
}

fn word<T>(
    name: &str,
    given: Option<&str>,
    read: impl Fn(&str) -> Option<T>,
    else_: T,
    known: &str,
) -> Result<T, Problem> {
    match given {
        None => Ok(else_),
        Some(text) => read(text)
            .ok_or_else(|| Problem::bad_request(format!("`{name}` is not one of {known}."))),
    }
}

fn secret(name: &str, given: Secret) -> Result<Zeroizing<String>, Problem> {
    let text = given.into_text();
    if text.trim().is_empty() {
        return Err(Problem::bad_request(format!("`{name}` is blank.")));
    }
    Ok(text)
}

fn refused(problem: &ConnectionProblem) -> Problem {
    match problem {
        ConnectionProblem::Unknown => unknown(),
        ConnectionProblem::NameTaken => Problem::new(
            StatusCode::CONFLICT,
            "name-taken",
            "The name is taken",
            sentence(&problem.to_string()),
        ),
        _ => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "connection-unusable",
            "The connection cannot be so",
            sentence(&problem.to_string()),
        ),
    }
}

fn unknown() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown-connection",
        "No such MDM connection",
        "No MDM connection of this name is known here.",
    )
    .hint("`GET /v1/mdm` lists them.")
}

fn only_for_hmac() -> Problem {
    Problem::bad_request(
        "`hmac_secret` is given, and webhooks prove themselves by the secret in their address.",
    )
    .hint("Leave it out: a secret in the address is made here.")
}

/// The identifier of the connection of a name: the live one, else the one that was removed last.
pub(super) async fn id_of(app: &App, permit: &Permit<Read>, name: &str) -> Result<String, Problem> {
    let all = app.escrow.connections().list_with_removed(permit).await?;
    all.into_iter()
        .filter(|one| one.name == name)
        .max_by_key(|one| (one.removed_at.is_none(), one.removed_at))
        .map(|one| one.id)
        .ok_or_else(unknown)
}

fn subject(name: &str) -> String {
    format!("connection {name}")
}

/// List the MDM connections, by name. Removed ones are left out.
#[utoipa::path(
    get,
    path = "/v1/mdm",
    tag = "mdm",
    operation_id = "list_mdms",
    security(("token" = ["read"])),
    responses((status = 200, description = "All of them; there is one page.", body = Page<Mdm>))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Page<Mdm>>, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, "connections")
        .await?;
    let all = app.escrow.connections().list(&permit).await?;
    Ok(Json(Page::whole(
        all.into_iter().map(|one| Mdm::new(&app, one)).collect(),
    )))
}

/// Connect an MDM. The answer holds, once, what its webhooks prove themselves by.
#[utoipa::path(
    post,
    path = "/v1/mdm",
    tag = "mdm",
    operation_id = "add_mdm",
    security(("token" = ["connections"])),
    request_body = NewMdm,
    responses(
        (status = 201, description = "It is connected.", body = Made<'_>),
        (status = 409, description = "`name-taken`"),
        (status = 422, description = "`connection-unusable`: the name, the address, the prefix or the rate cannot be so.")
    )
)]
pub(super) async fn add(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> Result<Response, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Connections> = app
        .escrow
        .authorise(&caller.actor, &organisation, "connections")
        .await?;
    let given: NewMdm = body.json()?;
    let kind = word(
        "kind",
        given.kind.as_deref(),
        ConnectionKind::from_name,
        ConnectionKind::NanoMdm,
        "`nanomdm`, `nanohub`, `micromdm`",
    )?;
    let (usual, prefix) = usual(kind);
    let auth = word(
        "hook_auth",
        given.hook_auth.as_deref(),
        HookAuth::from_name,
        usual,
        "`hmac`, `path`",
    )?;
    if auth == HookAuth::Path && given.hmac_secret.is_some() {
        return Err(only_for_hmac());
    }
    let new = NewConnection {
        name: given.name,
        kind,
        base_url: given.base_url,
        path_prefix: given.path_prefix.unwrap_or_else(|| prefix.to_owned()),
        // Each of these MDMs has one API user, named after itself (mdm-connectors, 1 to 3).
        username: given.username.unwrap_or_else(|| kind.as_str().to_owned()),
        api_key: secret("api_key", given.api_key)?,
        hook_auth: auth,
        hmac_secret: given
            .hmac_secret
            .map(|given| secret("hmac_secret", given))
            .transpose()?,
        unlock_via: unlock_via(given.unlock_via.as_deref())?.unwrap_or(UnlockVia::Own),
        max_rate: given.max_rate,
    };
    let added = add_mdm::<Problem>(&app, &permit, new).await?;
    let answer = Made {
        webhook: added.address.shown(auth, added.made.as_ref()),
        connection: added.view.into(),
    };
    Ok(SecretJson(StatusCode::CREATED, answer).into_response())
}

/// How the webhooks of such an MDM prove themselves, and what stands before its API's own paths, where nobody says otherwise.
pub(crate) fn usual(kind: ConnectionKind) -> (HookAuth, &'static str) {
    match kind {
        ConnectionKind::NanoMdm => (HookAuth::Hmac, ""),
        ConnectionKind::NanoHub => (HookAuth::Hmac, "/api/v1/nanomdm"),
        ConnectionKind::MicroMdm => (HookAuth::Path, ""),
    }
}

/// A connection that was made, and what its MDM is to be given.
pub(crate) struct Added {
    pub(crate) view: ConnectionView,
    made: Option<SecretText>,
    address: Address,
}

impl Added {
    /// Where its webhooks go.
    pub(crate) fn address(&self) -> &str {
        &self.address.url
    }

    /// The key for their signatures, where it was made here.
    pub(crate) fn hmac_key(&self) -> Option<&str> {
        let made = self.made.as_ref().map(SecretText::expose);
        made.filter(|_| self.view.hook_auth == HookAuth::Hmac)
    }
}

/// Makes a connection.
pub(crate) async fn add_mdm<E: From<Problem> + From<escrow::Error>>(
    app: &App,
    permit: &Permit<Connections>,
    new: NewConnection,
) -> Result<Added, E> {
    let auth = new.hook_auth;
    let added = app.escrow.connections().add(permit, new).await?;
    let (view, made) = added.map_err(|problem| refused(&problem))?;
    app.hooks.forget();
    Ok(Added {
        address: Address::new(app, &view.name, auth, made.as_ref()),
        view,
        made,
    })
}

fn unlock_via(given: Option<&str>) -> Result<Option<UnlockVia>, Problem> {
    let read = |text: &str| UnlockVia::from_name(text).map(Some);
    word("unlock_via", given, read, None, "`own`, `delegated`")
}

/// Show one MDM connection.
#[utoipa::path(
    get,
    path = "/v1/mdm/{name}",
    tag = "mdm",
    operation_id = "show_mdm",
    security(("token" = ["read"])),
    params(("name" = String, Path, description = "Its name.")),
    responses((status = 200, description = "The connection.", body = Mdm), (status = 404, description = "`unknown-connection`"))
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Mdm>, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(&name))
        .await?;
    let view = app
        .escrow
        .connections()
        .get(&permit, &name)
        .await?
        .ok_or_else(unknown)?;
    Ok(Json(Mdm::new(&app, view)))
}

/// Change where an MDM's API is, by what it is logged in to, and who calls Apple for its devices.
///
/// Unlocks that wait for it go on at once.
#[utoipa::path(
    patch,
    path = "/v1/mdm/{name}",
    tag = "mdm",
    operation_id = "change_mdm",
    security(("token" = ["connections"])),
    params(("name" = String, Path, description = "Its name.")),
    request_body = Change,
    responses(
        (status = 200, description = "The connection as it is now.", body = Mdm),
        (status = 404, description = "`unknown-connection`"),
        (status = 422, description = "`connection-unusable`: the address cannot be so.")
    )
)]
pub(super) async fn change(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    body: Body,
) -> Result<Json<Mdm>, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Connections> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(&name))
        .await?;
    let given: Change = body.json()?;
    let change = ConnectionChange {
        base_url: given.base_url,
        username: given.username,
        api_key: given
            .api_key
            .map(|given| secret("api_key", given))
            .transpose()?,
        unlock_via: unlock_via(given.unlock_via.as_deref())?,
    };
    let view = app
        .escrow
        .connections()
        .change(&permit, &name, change)
        .await?
        .map_err(|problem| refused(&problem))?;
    app.hooks.forget();
    Ok(Json(Mdm::new(&app, view)))
}

/// Disconnect an MDM: its webhooks are refused from now on. Its devices and their codes stay.
#[utoipa::path(
    delete,
    path = "/v1/mdm/{name}",
    tag = "mdm",
    operation_id = "remove_mdm",
    security(("token" = ["connections"])),
    params(("name" = String, Path, description = "Its name.")),
    responses((status = 204, description = "It is disconnected."), (status = 404, description = "`unknown-connection`"))
)]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Connections> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(&name))
        .await?;
    app.escrow
        .connections()
        .remove(&permit, &name)
        .await?
        .map_err(|problem| refused(&problem))?;
    app.hooks.forget();
    Ok(StatusCode::NO_CONTENT)
}

/// Ask an MDM whether it takes our commands.
#[utoipa::path(
    post,
    path = "/v1/mdm/{name}/test",
    tag = "mdm",
    operation_id = "test_mdm",
    security(("token" = ["connections", "read"])),
    params(("name" = String, Path, description = "Its name.")),
    responses((status = 200, description = "What was found, good or bad.", body = Tested), (status = 404, description = "`unknown-connection`"))
)]
pub(super) async fn test(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Tested>, Problem> {
    Ok(Json(match test_mdm(&app, &caller, &name).await? {
        Ok(said) => Tested {
            ok: true,
            detail: said,
            hint: None,
        },
        Err(why) => Tested {
            ok: false,
            detail: why,
            hint: Some(
                "Compare the address, the user name and the key with the MDM's own settings."
                    .to_owned(),
            ),
        },
    }))
}

/// Give the webhooks of an MDM a new secret. The one before stays good until it is retired, or until the next rotation.
#[utoipa::path(
    post,
    path = "/v1/mdm/{name}/rotate-secret",
    tag = "mdm",
    operation_id = "rotate_mdm_secret",
    security(("token" = ["connections", "read"])),
    params(("name" = String, Path, description = "Its name.")),
    request_body(content = Option<NewSecret>, description = "May be left out."),
    responses((status = 200, description = "The new secret.", body = Rotated<'_>), (status = 404, description = "`unknown-connection`"))
)]
pub(super) async fn rotate_secret(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Connections> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(&name))
        .await?;
    let read: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(&name))
        .await?;
    let given: NewSecret = body.json_or_default()?;
    let auth = app
        .escrow
        .connections()
        .get(&read, &name)
        .await?
        .ok_or_else(unknown)?
        .hook_auth;
    if auth == HookAuth::Path && given.hmac_secret.is_some() {
        return Err(only_for_hmac());
    }
    let given = given
        .hmac_secret
        .map(|given| secret("hmac_secret", given))
        .transpose()?;
    let made = app
        .escrow
        .connections()
        .rotate_secret(&permit, &name, given)
        .await?
        .map_err(|problem| refused(&problem))?;
    app.hooks.forget();
    let address = Address::new(&app, &name, auth, made.as_ref());
    let answer = Rotated {
        name: &name,
        previous_secret_live: true,
        webhook: address.shown(auth, made.as_ref()),
    };
    Ok(SecretJson(StatusCode::OK, answer).into_response())
}

/// Asks an MDM whether it takes our commands; what it says, or what is wrong in words.
pub(crate) async fn test_mdm(
    app: &App,
    caller: &Caller,
    name: &str,
) -> Result<Result<String, String>, Problem> {
    let organisation = caller.organisation(app).await?;
    let _: Permit<Connections> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(name))
        .await?;
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(name))
        .await?;
    let view = app
        .escrow
        .connections()
        .get(&permit, name)
        .await?
        .ok_or_else(unknown)?;
    let open = app
        .escrow
        .connections()
        .open(&view.id)
        .await?
        .ok_or_else(unknown)?;
    Ok(app.mdm.test(&open).await)
}

/// Stop accepting the secret before the last rotation.
#[utoipa::path(
    post,
    path = "/v1/mdm/{name}/retire-previous-secret",
    tag = "mdm",
    operation_id = "retire_mdm_secret",
    security(("token" = ["connections"])),
    params(("name" = String, Path, description = "Its name.")),
    responses((status = 204, description = "Only the newest secret is accepted."), (status = 404, description = "`unknown-connection`"))
)]
pub(super) async fn retire_previous_secret(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Connections> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(&name))
        .await?;
    app.escrow
        .connections()
        .retire_previous_secret(&permit, &name)
        .await?
        .map_err(|problem| refused(&problem))?;
    app.hooks.forget();
    Ok(StatusCode::NO_CONTENT)
}
