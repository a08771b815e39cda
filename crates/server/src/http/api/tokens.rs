//! API tokens: made, listed, taken back.

use std::time::Duration;

use activation_lock::time::{DAY, Timestamp};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use escrow::permit::{Admin, Permissions, Permit, Scope};
use escrow::principals::{NewToken as NewRow, TokenView};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::shown::{Moment, Page};
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Body, Path, SecretJson, name};
use crate::http::problem::Problem;

/// The most days a token that ends by itself is valid.
pub(crate) const LONGEST_LIFE: u32 = 3650;

/// A token: everything but its text.
#[derive(Serialize, ToSchema)]
pub(super) struct Token {
    id: String,
    /// What it is for; stands on the record of all it does.
    name: String,
    /// What it may do: `read`, `reveal`, `unlock`, `refresh`, `edit`, `connections`, `admin`. More may come.
    permissions: Vec<&'static str>,
    /// The identifier of the organisation it is valid in; null when it is valid in all of them.
    organisation: Option<String>,
    /// Whether it opens anything now.
    valid: bool,
    /// The identifier of the person whose it is, and who is the most that it may; null when it is nobody's in particular.
    owner: Option<String>,
    created_at: Moment,
    created_by: String,
    /// When it ends by itself.
    expires_at: Option<Moment>,
    /// When it was taken back.
    revoked_at: Option<Moment>,
    /// When it was last used, to within ten minutes.
    used_at: Option<Moment>,
}

impl Token {
    fn new(view: TokenView, now: Timestamp) -> Self {
        Self {
            valid: view.is_valid(now),
            permissions: names(view.permissions),
            organisation: view.scope.organisation().map(|id| id.as_str().to_owned()),
            id: view.id,
            name: view.name,
            owner: view.owner,
            created_at: view.created_at.into(),
            created_by: view.created_by,
            expires_at: view.expires_at.map(Moment),
            revoked_at: view.revoked_at.map(Moment),
            used_at: view.used_at.map(Moment),
        }
    }
}

/// The names of permissions.
pub(super) fn names(permissions: Permissions) -> Vec<&'static str> {
    permissions.iter().map(|one| one.as_str()).collect()
}

/// A token that was made. Its text is in this answer and in no other.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedToken)]
pub(super) struct Made<'a> {
    /// The text, for `Authorization: Bearer`.
    token: &'a str,
    #[serde(flatten)]
    view: Token,
}

/// A token to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    /// What it is for. 1 to 200 characters.
    name: String,
    /// What it may do, one or more of `read`, `reveal`, `unlock`, `connections`, `admin`. Nobody gives away what they do not have.
    scopes: Vec<String>,
    /// Days until it ends by itself, 1 to 3650; never when it is left out.
    #[schema(minimum = 1, maximum = 3650)]
    expires_in_days: Option<u32>,
    /// Valid in all organisations. Only a token that is so can make another.
    #[serde(default)]
    all_organisations: bool,
}

/// List the tokens, newest first; revoked ones too.
#[utoipa::path(
    get,
    path = "/v1/tokens",
    tag = "tokens",
    operation_id = "list_tokens",
    security(("token" = ["admin"])),
    responses((status = 200, description = "All of them; there is one page.", body = Page<Token>))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Page<Token>>, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Admin> = app
        .escrow
        .authorise(&caller.actor, &organisation, "tokens")
        .await?;
    let now = app.now();
    let all = app.escrow.principals().list_tokens(&permit).await?;
    Ok(Json(Page::whole(
        all.into_iter().map(|one| Token::new(one, now)).collect(),
    )))
}

/// Make a token. Its text is in the answer, once.
#[utoipa::path(
    post,
    path = "/v1/tokens",
    tag = "tokens",
    operation_id = "create_token",
    security(("token" = ["admin"])),
    request_body = NewToken,
    responses(
        (status = 201, description = "It is valid from now on.", body = Made<'_>),
        (status = 403, description = "`forbidden`: the token lacks `admin`, or something that would be given away.")
    )
)]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> Result<Response, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Admin> = app
        .escrow
        .authorise(&caller.actor, &organisation, "tokens")
        .await?;
    let given: NewToken = body.json()?;
    let name = name("The name", &given.name)?;
    let expires_in = match given.expires_in_days {
        Some(days @ 1..=LONGEST_LIFE) => Some(DAY * days),
        Some(_) => {
            return Err(Problem::bad_request(format!(
                "`expires_in_days` is not 1 to {LONGEST_LIFE}."
            )));
        }
        None => None,
    };
    let now = app.now();
    let new = NewRow {
        name: name.to_owned(),
        scope: if given.all_organisations {
            Scope::All
        } else {
            Scope::One(organisation)
        },
        permissions: permissions(&given.scopes)?,
        expires_at: expires_in.map(|life: Duration| now.plus(life)),
    };
    let (view, text) = app.escrow.principals().create_token(&permit, new).await?;
    let made = Made {
        token: text.expose(),
        view: Token::new(view, now),
    };
    Ok(SecretJson(StatusCode::CREATED, made).into_response())
}

fn permissions(scopes: &[String]) -> Result<Permissions, Problem> {
    let known = || {
        let all: Vec<_> = Permissions::SCOPES
            .iter()
            .map(|name| format!("`{name}`"))
            .collect();
        Problem::bad_request("No scope is given, or one that is not known.")
            .hint(format!("Give one or more of {}.", all.join(", ")))
    };
    if scopes.is_empty() {
        return Err(known());
    }
    scopes.iter().try_fold(Permissions::NONE, |all, name| {
        Ok(all.and(Permissions::of_scope(name).ok_or_else(known)?))
    })
}

/// Take a token back: it opens nothing from now on.
#[utoipa::path(
    delete,
    path = "/v1/tokens/{id}",
    tag = "tokens",
    operation_id = "revoke_token",
    security(("token" = ["admin"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 204, description = "It opens nothing any more."),
        (status = 404, description = "`unknown-token`: there is none of that identifier that is yours to manage, or it was taken back before.")
    )
)]
pub(super) async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Admin> = app
        .escrow
        .authorise(&caller.actor, &organisation, format!("token {id}"))
        .await?;
    if app.escrow.principals().revoke_token(&permit, &id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-token",
            "No such token",
            "No token with this identifier is valid here, or it was taken back before.",
        )
        .hint("`GET /v1/tokens` lists them."))
    }
}
