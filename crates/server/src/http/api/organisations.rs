//! Organisations: whose everything else is, and what they want done about their people's locks.

use activation_lock::guard::UserLockPolicy;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use escrow::organisations::{Created, Organisation as Row};
use escrow::permit::{Admin, OrganisationId, Permission, Permit, Right};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::shown::{Moment, Page};
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Body, Path, name};
use crate::http::problem::Problem;

/// An organisation.
#[derive(Serialize, ToSchema)]
pub(super) struct Organisation {
    #[schema(value_type = String)]
    id: OrganisationId,
    /// Its name, which Apple is given with every unlock.
    name: String,
    /// Whether devices may be told to allow a person's lock: `leave` (nothing is sent), `allow` (once a code is held) or `deny`.
    #[schema(value_type = String)]
    user_lock: UserLockPolicy,
    /// Whether devices that Apple newly lists are locked by the organisation. At most 20 an hour; then it pauses for a person.
    lock_on_listing: bool,
    /// Since when it pauses; setting it anew goes on.
    lock_on_listing_paused_at: Option<Moment>,
    /// How many reveals one may have in an hour without another's approval.
    reveals_an_hour: u32,
    /// The same of unlocks.
    unlocks_an_hour: u32,
    created_at: Moment,
}

impl From<Row> for Organisation {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            name: row.name,
            user_lock: row.user_lock,
            lock_on_listing: row.lock_on_listing,
            lock_on_listing_paused_at: row.listing_paused_at.map(Moment),
            reveals_an_hour: row.reveals_an_hour,
            unlocks_an_hour: row.unlocks_an_hour,
            created_at: row.created_at.into(),
        }
    }
}

/// A permit in the organisation that a path names. Who may not do so anywhere is not told which organisations there are.
pub(super) async fn permit_in<P: Right>(
    app: &App,
    caller: &Caller,
    id: &str,
    subject: &str,
) -> Result<Permit<P>, Problem> {
    let anywhere = caller.anywhere(P::PERMISSION);
    let _: Permit<P> = app
        .escrow
        .authorise(&caller.actor, &anywhere, subject)
        .await?;
    let organisation = of_path(app, caller, id).await?.id;
    let permit = app
        .escrow
        .authorise(&caller.actor, &organisation, subject)
        .await?;
    Ok(permit)
}

/// An organisation to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewOrganisation {
    /// Its name. Apple is given it with every unlock. 1 to 200 characters.
    name: String,
}

/// What an organisation wants. What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OrganisationPolicy)]
pub(super) struct Policy {
    /// `leave`, `allow` or `deny`.
    user_lock: Option<String>,
    /// Whether devices that Apple newly lists are locked by the organisation.
    lock_on_listing: Option<bool>,
    /// How many reveals one may have in an hour without another's approval.
    reveals_an_hour: Option<u32>,
    /// The same of unlocks.
    unlocks_an_hour: Option<u32>,
}

/// The organisation that a path names, by identifier or name, among those within reach.
pub(super) async fn of_path(app: &App, caller: &Caller, id: &str) -> Result<Row, Problem> {
    app.escrow
        .organisations()
        .find(&caller.actor, id)
        .await?
        .ok_or_else(|| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "unknown-organisation",
                "No such organisation",
                "No organisation with this identifier is known to this token.",
            )
        })
}

/// List the organisations that the token may act in, by name.
#[utoipa::path(
    get,
    path = "/v1/organisations",
    tag = "organisations",
    operation_id = "list_organisations",
    security(("token" = ["admin"])),
    responses((status = 200, description = "All of them; there is one page.", body = Page<Organisation>))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Page<Organisation>>, Problem> {
    let _: Permit<Admin> = app
        .escrow
        .authorise(
            &caller.actor,
            &caller.anywhere(Permission::Admin),
            "organisations",
        )
        .await?;
    let all = app.escrow.organisations().list(&caller.actor).await?;
    Ok(Json(Page::whole(
        all.into_iter().map(Organisation::from).collect(),
    )))
}

/// Make an organisation. Only a token that is valid in all of them may.
#[utoipa::path(
    post,
    path = "/v1/organisations",
    tag = "organisations",
    operation_id = "create_organisation",
    security(("token" = ["admin"])),
    request_body = NewOrganisation,
    responses(
        (status = 201, description = "It is made.", body = Organisation),
        (status = 409, description = "`name-taken`")
    )
)]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<Organisation>), Problem> {
    let _: Permit<Admin> = app
        .escrow
        .authorise(&caller.actor, &OrganisationId::new("*"), "organisations")
        .await?;
    let given: NewOrganisation = body.json()?;
    let name = name("The name", &given.name)?;
    match app
        .escrow
        .organisations()
        .create(&caller.actor, name)
        .await?
    {
        Created::New(organisation) => Ok((StatusCode::CREATED, Json(organisation.into()))),
        Created::NameTaken => Err(Problem::new(
            StatusCode::CONFLICT,
            "name-taken",
            "The name is taken",
            "There is an organisation of this name already.",
        )),
    }
}

/// Set what an organisation wants: whether its devices may be told to allow a person's lock, whether newly listed ones are
/// locked by it, and how much one may do in an hour.
#[utoipa::path(
    patch,
    path = "/v1/organisations/{id}",
    tag = "organisations",
    operation_id = "set_organisation",
    security(("token" = ["admin"])),
    params(("id" = String, Path, description = "Its identifier, or its name.")),
    request_body = Policy,
    responses(
        (status = 200, description = "The organisation as it is now.", body = Organisation),
        (status = 404, description = "`unknown-organisation`")
    )
)]
pub(super) async fn set(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Organisation>, Problem> {
    let _: Permit<Admin> = app
        .escrow
        .authorise(
            &caller.actor,
            &caller.anywhere(Permission::Admin),
            "organisations",
        )
        .await?;
    let found = of_path(&app, &caller, &id).await?;
    let permit: Permit<Admin> = app
        .escrow
        .authorise(
            &caller.actor,
            &found.id,
            format!("organisation {}", found.name),
        )
        .await?;
    let given: Policy = body.json()?;
    let user_lock: Option<UserLockPolicy> = match given.user_lock.as_deref() {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            Problem::bad_request("`user_lock` is not one of `leave`, `allow`, `deny`.")
        })?),
    };
    let quotas = given.reveals_an_hour.is_some() || given.unlocks_an_hour.is_some();
    if user_lock.is_none() && given.lock_on_listing.is_none() && !quotas {
        return Err(Problem::bad_request("Nothing is given that could be set.")
            .hint("Give `user_lock`, `lock_on_listing`, `reveals_an_hour` or `unlocks_an_hour`."));
    }
    let organisations = app.escrow.organisations();
    if let Some(user_lock) = user_lock {
        organisations.set_user_lock(&permit, user_lock).await?;
    }
    if let Some(on) = given.lock_on_listing {
        organisations.set_lock_on_listing(&permit, on).await?;
    }
    if quotas {
        let (reveals, unlocks) = (given.reveals_an_hour, given.unlocks_an_hour);
        organisations.set_quotas(&permit, reveals, unlocks).await?;
    }
    let now = of_path(&app, &caller, found.id.as_str()).await?;
    Ok(Json(now.into()))
}
