//! Server tokens of Apple's device enrolment service: keys to have them made for, their files, their lists (contract sheet 2b,
//! 2c).

use apple::dep::key::TokenKey;
use apple::dep::token::{ServerToken, TokenExpiry};
use apple::dep::token_file::TokenFileError;
use apple::dep::{Account, DepError, NanoDep};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use escrow::listing::Listing;
use escrow::permit::{Connections, Permit, Read, Refresh};
use escrow::server_tokens::{
    Access, KeyView, NewServerToken, Problem as Trouble, ServerTokenView, TokenKind,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::organisations;
use super::shown::{Moment, Page};
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Body, Path, Secret, name, sentence};
use crate::http::problem::Problem;
use crate::worker::lists;

/// A server token: what Apple's enrolment service knows us by. Not its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = DepToken)]
pub(super) struct Token {
    id: String,
    /// Our name for it.
    name: String,
    /// `apple` (we talk to Apple) or `nanodep` (a NanoDEP does, which has the token).
    #[schema(value_type = String)]
    kind: &'static str,
    /// The NanoDEP's address.
    nanodep_url: Option<String>,
    /// The NanoDEP's name for the token.
    nanodep_name: Option<String>,
    /// When it ends; not known of one that a NanoDEP has.
    expires_at: Option<Moment>,
    /// `fine`, `expiring` (60 days or less), `urgent` (14 days or less) or `expired`; null where the end is not known.
    #[schema(value_type = Option<String>)]
    expiry: Option<&'static str>,
    /// Apple's name for the server.
    server_name: Option<String>,
    /// Apple's identifier of the server.
    server_uuid: Option<String>,
    /// The organisation's name at Apple.
    org_name: Option<String>,
    /// What a person has to mend: `refused`, `terms_not_signed` or `access_denied`. An open set.
    problem: Option<&'static str>,
    /// Since when.
    problem_at: Option<Moment>,
    /// Who has to do what about it.
    to_do: Option<&'static str>,
    /// When its list of devices was last read to its end.
    listed_at: Option<Moment>,
    /// When the list was last read whole.
    read_whole_at: Option<Moment>,
    /// Until when the list is left alone, after a failure or because Apple asked for it.
    list_retry_at: Option<Moment>,
    created_at: Moment,
    updated_at: Moment,
}

impl Token {
    fn new(view: ServerTokenView, app: &App) -> Self {
        let now = app.now();
        let expiry = view.expires_at.map(|at| match TokenExpiry::of(at, now) {
            TokenExpiry::Fine => "fine",
            TokenExpiry::Expiring => "expiring",
            TokenExpiry::Urgent => "urgent",
            TokenExpiry::Expired => "expired",
        });
        let (problem, problem_at) = view.problem.unzip();
        Self {
            id: view.id,
            name: view.name,
            kind: view.kind.as_str(),
            nanodep_url: view.base_url,
            nanodep_name: view.dep_name,
            expires_at: view.expires_at.map(Moment),
            expiry,
            server_name: view.server_name,
            server_uuid: view.server_uuid,
            org_name: view.org_name,
            problem: problem.map(Trouble::as_str),
            problem_at: problem_at.map(Moment),
            to_do: problem.map(|problem| to_do(problem, view.kind)),
            listed_at: view.listed_at.map(Moment),
            read_whole_at: view.whole_at.map(Moment),
            list_retry_at: view.list_retry_at.filter(|at| *at > now).map(Moment),
            created_at: view.created_at.into(),
            updated_at: view.updated_at.into(),
        }
    }
}

/// Who has to do what (contract sheet 2.23).
pub(crate) fn to_do(problem: Trouble, kind: TokenKind) -> &'static str {
    match problem {
        Trouble::Refused if kind == TokenKind::NanoDep => {
            "Somebody who runs the NanoDEP looks at its address, its name for the token and its API key; set them right here with \
             `lockwarden dep token add-nanodep` under the same name."
        }
        Trouble::Refused => {
            "Somebody who manages servers in Apple Business Manager or Apple School Manager downloads a new token of this \
             server; import it here under the same name."
        }
        Trouble::TermsNotSigned => {
            "Somebody with the role of Administrator signs in to Apple Business Manager or Apple School Manager and accepts \
             Apple's new terms."
        }
        Trouble::AccessDenied => {
            "Somebody with the role of Administrator looks in Apple Business Manager or Apple School Manager whether the \
             server is still there and the organisation's account is in order."
        }
    }
}

/// A key whose certificate is uploaded at Apple.
#[derive(Serialize, ToSchema)]
#[schema(as = DepKey)]
pub(super) struct TokenKeyRow {
    id: String,
    /// The certificate to upload, PEM. Its private key stays here, sealed.
    certificate_pem: String,
    created_at: Moment,
    /// When it last opened a token's file.
    used_at: Option<Moment>,
}

impl From<KeyView> for TokenKeyRow {
    fn from(key: KeyView) -> Self {
        Self {
            id: key.id,
            certificate_pem: key.certificate,
            created_at: key.created_at.into(),
            used_at: key.used_at.map(Moment),
        }
    }
}

/// A token to be kept: exactly one of `file`, `token` and `nanodep`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewDepToken)]
pub(super) struct NewToken {
    /// Our name for it. A token of the same name is renewed by it.
    name: String,
    /// Apple's file (`.p7m`), base64. It is opened with one of the keys made here.
    #[schema(value_type = Option<String>)]
    file: Option<Secret>,
    /// The token as the JSON text that is in such a file.
    #[schema(value_type = Option<String>)]
    token: Option<Secret>,
    /// A NanoDEP that has the token.
    nanodep: Option<NewNanoDep>,
}

/// How a NanoDEP is reached.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewNanoDep {
    /// Its address; https, or http on this machine.
    url: String,
    /// Its name for the token.
    name: String,
    /// Its API key.
    #[schema(value_type = String)]
    api_key: Secret,
}

/// A list of Apple's enrolment service that names a device, or did.
#[derive(Serialize, ToSchema)]
#[schema(as = Listing)]
pub(super) struct ListingRow {
    /// Our name for the server token.
    server_token: String,
    /// Apple's words for the model, such as `iPhone XR`: not a product type.
    model: Option<String>,
    description: Option<String>,
    device_family: Option<String>,
    asset_tag: Option<String>,
    profile_status: Option<String>,
    assigned_by: Option<String>,
    assigned_at: Option<Moment>,
    /// It came in place of another device, whose codes it does not share.
    is_replacement: Option<bool>,
    /// It was released because another came in its place.
    released_by_replacement: Option<bool>,
    /// Until when it is to be moved to another device management system, which ends a lock and its codes.
    migration_deadline: Option<Moment>,
    first_at: Moment,
    last_at: Moment,
    /// When the list was found to name it no more.
    gone_at: Option<Moment>,
}

impl From<Listing> for ListingRow {
    fn from(listing: Listing) -> Self {
        Self {
            server_token: listing.name,
            model: listing.model,
            description: listing.description,
            device_family: listing.device_family,
            asset_tag: listing.asset_tag,
            profile_status: listing.profile_status,
            assigned_by: listing.assigned_by,
            assigned_at: listing.assigned_at.map(Moment),
            is_replacement: listing.is_replacement,
            released_by_replacement: listing.released_by_replacement,
            migration_deadline: listing.migration_deadline.map(Moment),
            first_at: listing.first_at.into(),
            last_at: listing.last_at.into(),
            gone_at: listing.gone_at.map(Moment),
        }
    }
}

/// Make a key, and the certificate to upload in Apple Business Manager or Apple School Manager.
#[utoipa::path(
    post,
    path = "/v1/organisations/{id}/dep-keys",
    tag = "server tokens",
    operation_id = "create_dep_key",
    security(("token" = ["connections"])),
    params(("id" = String, Path, description = "The organisation's identifier, or its name.")),
    responses((status = 201, description = "It is made. Upload its certificate.", body = TokenKeyRow), (status = 404, description = "`unknown-organisation`"))
)]
pub(super) async fn make_key(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<TokenKeyRow>), Problem> {
    let permit = may_connect(&app, &caller, &id).await?;
    let now = app.now();
    // An RSA key takes a moment to make.
    let made = tokio::task::spawn_blocking(move || TokenKey::generate(now)).await;
    let failed = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "a key for server tokens cannot be made");
        Problem::failed()
    };
    let key = made
        .map_err(|error| failed(&error))?
        .map_err(|error| failed(&error))?;
    let certificate = key.certificate_pem().unwrap_or_default().to_owned();
    let private = key.private_key_pem();
    let tokens = app.escrow.server_tokens();
    let kept = tokens.add_key(&permit, certificate, private).await?;
    Ok((StatusCode::CREATED, Json(kept.into())))
}

/// List the keys, newest first.
#[utoipa::path(
    get,
    path = "/v1/organisations/{id}/dep-keys",
    tag = "server tokens",
    operation_id = "list_dep_keys",
    security(("token" = ["read"])),
    params(("id" = String, Path, description = "The organisation's identifier, or its name.")),
    responses((status = 200, description = "All of them; there is one page.", body = Page<TokenKeyRow>))
)]
pub(super) async fn list_keys(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Page<TokenKeyRow>>, Problem> {
    let permit = may_read(&app, &caller, &id).await?;
    let keys = app.escrow.server_tokens().keys(&permit).await?;
    Ok(Json(Page::whole(
        keys.into_iter().map(TokenKeyRow::from).collect(),
    )))
}

/// List the server tokens, by name.
#[utoipa::path(
    get,
    path = "/v1/organisations/{id}/dep-tokens",
    tag = "server tokens",
    operation_id = "list_dep_tokens",
    security(("token" = ["read"])),
    params(("id" = String, Path, description = "The organisation's identifier, or its name.")),
    responses((status = 200, description = "All of them; there is one page.", body = Page<Token>))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Page<Token>>, Problem> {
    let permit = may_read(&app, &caller, &id).await?;
    let tokens = app.escrow.server_tokens().list(&permit).await?;
    Ok(Json(Page::whole(
        tokens
            .into_iter()
            .map(|one| Token::new(one, &app))
            .collect(),
    )))
}

/// Keep a server token; one of the same name is renewed by it. Locks that wait for one go on at once, and its list is read.
#[utoipa::path(
    put,
    path = "/v1/organisations/{id}/dep-tokens",
    tag = "server tokens",
    operation_id = "put_dep_token",
    security(("token" = ["connections"])),
    params(("id" = String, Path, description = "The organisation's identifier, or its name.")),
    request_body = NewToken,
    responses(
        (status = 200, description = "It is kept.", body = Token),
        (status = 404, description = "`unknown-organisation`"),
        (status = 422, description = "`server-token-unusable`: the file does not open, or what is in it is none. \
            `server-token-expired`: it has ended already. Nothing was changed.")
    )
)]
pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Token>, Problem> {
    let permit = may_connect(&app, &caller, &id).await?;
    let given: NewToken = body.json()?;
    let name = name("The name", &given.name)?.to_owned();
    let access = match (given.file, given.token, given.nanodep) {
        (Some(file), None, None) => from_file(&app, &permit, &file.into_text()).await?,
        (None, Some(token), None) => {
            let token = ServerToken::from_json(token.into_text().as_bytes())
                .map_err(|error| unusable(&error.to_string()))?;
            apple_access(&app, &token, None)?
        }
        (None, None, Some(nanodep)) => {
            let key = nanodep.api_key.into_text();
            NanoDep::new(&nanodep.url, &nanodep.name, &key)
                .map_err(|error| Problem::bad_request(sentence(&error.to_string())))?;
            Access::NanoDep {
                base_url: nanodep.url.trim().to_owned(),
                dep_name: nanodep.name,
                api_key: Zeroizing::new(key.to_string()),
            }
        }
        _ => {
            return Err(Problem::bad_request(
                "Exactly one of `file`, `token` and `nanodep` is wanted.",
            ));
        }
    };
    let new = NewServerToken { name, access };
    let view = app.escrow.server_tokens().put(&permit, new).await?;
    Ok(Json(Token::new(view, &app)))
}

async fn from_file(
    app: &App,
    permit: &Permit<Connections>,
    base64: &str,
) -> Result<Access, Problem> {
    let file = data_encoding::BASE64
        .decode(base64.trim().as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| Problem::bad_request("`file` is not base64."))?;
    let keys = app.escrow.server_tokens().open_keys(permit).await?;
    if keys.is_empty() {
        return Err(unusable(
            "no key was made here whose certificate Apple could have encrypted it for; make one (`lockwarden dep keypair`), \
             upload its certificate, and download the token anew",
        ));
    }
    for kept in keys {
        let key = TokenKey::from_pem(
            kept.private_key.as_bytes(),
            Some(kept.certificate.as_bytes()),
        )
        .map_err(|error| unusable(&error.to_string()))?;
        match ServerToken::open(&file, &key) {
            Ok(token) => return apple_access(app, &token, Some(kept.id)),
            // Made for another of our keys, perhaps.
            Err(TokenFileError::OtherCertificate | TokenFileError::NotOpened) => {}
            Err(error) => return Err(unusable(&error.to_string())),
        }
    }
    Err(unusable(
        "Apple made this server token file for another certificate: no key that was made here opens it",
    )
    .hint(
        "Make a key here (`lockwarden dep keypair`), upload its certificate to the server's settings in Apple Business Manager \
         or Apple School Manager, save, download a new token there, and import that one. Where another program has the key of \
         this file, let that program open it, and import the token as JSON.",
    ))
}

fn apple_access(app: &App, token: &ServerToken, key: Option<String>) -> Result<Access, Problem> {
    if token.expiry_level(app.now()) == TokenExpiry::Expired {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "server-token-expired",
            "The server token has ended",
            "It opened, but Apple takes it no more: a token is good for a year. Nothing was changed.",
        )
        .hint("Download a new token of this server in Apple Business Manager or Apple School Manager."));
    }
    Ok(Access::Apple {
        json: token.to_sealed_json(),
        expires_at: token.access_token_expiry(),
        key,
    })
}

fn unusable(why: &str) -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "server-token-unusable",
        "The server token cannot be used",
        sentence(why),
    )
}

/// Remove a server token: it is not used any more. What was done with it stays on record.
#[utoipa::path(
    delete,
    path = "/v1/dep-tokens/{id}",
    tag = "server tokens",
    operation_id = "remove_dep_token",
    security(("token" = ["connections"])),
    params(("id" = String, Path, description = "Its identifier or name.")),
    responses((status = 204, description = "It is removed."), (status = 404, description = "`unknown-server-token`"))
)]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Connections> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(&id))
        .await?;
    if app.escrow.server_tokens().remove(&permit, &id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown())
    }
}

/// Have the list of devices of a server read now.
#[utoipa::path(
    post,
    path = "/v1/dep-tokens/{id}/sync",
    tag = "server tokens",
    operation_id = "sync_dep_token",
    security(("token" = ["refresh"])),
    params(("id" = String, Path, description = "Its identifier or name.")),
    responses((status = 202, description = "It is being read; `listed_at` says when it was.", body = Token), (status = 404, description = "`unknown-server-token`"))
)]
pub(super) async fn sync(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Token>), Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Refresh> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(&id))
        .await?;
    let token = app.escrow.server_tokens().list_now(&permit, &id).await?;
    let token = token.ok_or_else(unknown)?;
    Ok((StatusCode::ACCEPTED, Json(Token::new(token, &app))))
}

/// What came of a test.
#[derive(Serialize, ToSchema)]
#[schema(as = DepTokenTest)]
pub(super) struct Tested {
    /// Whether Apple took the token.
    ok: bool,
    /// What was found.
    detail: String,
}

/// Ask Apple whom a server token speaks for. It changes nothing there.
#[utoipa::path(
    post,
    path = "/v1/dep-tokens/{id}/test",
    tag = "server tokens",
    operation_id = "test_dep_token",
    security(("token" = ["connections"])),
    params(("id" = String, Path, description = "Its identifier or name.")),
    responses((status = 200, description = "What was found, good or bad.", body = Tested), (status = 404, description = "`unknown-server-token`"))
)]
pub(super) async fn test(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Tested>, Problem> {
    let organisation = caller.organisation(&app).await?;
    let _: Permit<Connections> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(&id))
        .await?;
    let found = app.escrow.server_tokens().find(&organisation, &id).await?;
    let token = found.ok_or_else(unknown)?;
    let asked = match app.services.enrolment(&organisation, &token.id).await {
        Ok((service, _)) => service.account(app.machine_now()).await,
        Err(none) => {
            return Ok(Json(Tested {
                ok: false,
                detail: sentence(none.why()),
            }));
        }
    };
    // It is as good a look as any other: a lock that waits for the token goes on.
    let problem = asked.as_ref().err().map(lists::problem);
    if let None | Some(Some(_)) = problem {
        app.escrow
            .server_tokens()
            .note(&token, problem.flatten())
            .await?;
    }
    Ok(Json(match asked {
        Ok(account) => Tested {
            ok: true,
            detail: speaks_for(&account),
        },
        Err(error) => Tested {
            ok: false,
            detail: sentence(&DepError::to_string(&error)),
        },
    }))
}

fn speaks_for(account: &Account) -> String {
    let named = |text: &Option<String>| text.clone().unwrap_or_else(|| "(not named)".to_owned());
    format!(
        "Apple took it: it speaks for the server {} of {}.",
        named(&account.server_name),
        named(&account.org_name)
    )
}

fn subject(id: &str) -> String {
    format!("server token {id}")
}

fn unknown() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown-server-token",
        "No such server token",
        "No server token of that name or identifier is known here.",
    )
}

async fn may_connect(app: &App, caller: &Caller, id: &str) -> Result<Permit<Connections>, Problem> {
    organisations::permit_in(app, caller, id, "server tokens").await
}

async fn may_read(app: &App, caller: &Caller, id: &str) -> Result<Permit<Read>, Problem> {
    organisations::permit_in(app, caller, id, "server tokens").await
}
