//! Organisations: whose everything else is, and what they want done about their people's locks.

use activation_lock::guard::UserLockPolicy;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use escrow::organisations::{Created, Organisation as Row};
use escrow::permit::{Admin, OrganisationId, Permit};
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
    created_at: Moment,
}

impl From<Row> for Organisation {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            name: row.name,
            user_lock: row.user_lock,
            created_at: row.created_at.into(),
        }
    }
}

/// An organisation to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewOrganisation {
    /// Its name. Apple is given it with every unlock. 1 to 200 characters.
    name: String,
}

/// What an organisation wants.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OrganisationPolicy)]
pub(super) struct Policy {
    /// `leave`, `allow` or `deny`.
    user_lock: String,
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
        .authorise(&caller.actor, &caller.anywhere(), "organisations")
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

/// Set whether the devices of an organisation may be told to allow a person's lock.
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
        .authorise(&caller.actor, &caller.anywhere(), "organisations")
        .await?;
    let mut found = app
        .escrow
        .organisations()
        .find(&caller.actor, &id)
        .await?
        .ok_or_else(|| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "unknown-organisation",
                "No such organisation",
                "No organisation with this identifier is known to this token.",
            )
        })?;
    let permit: Permit<Admin> = app
        .escrow
        .authorise(
            &caller.actor,
            &found.id,
            format!("organisation {}", found.name),
        )
        .await?;
    let given: Policy = body.json()?;
    found.user_lock = given
        .user_lock
        .parse()
        .map_err(|_| Problem::bad_request("`user_lock` is not one of `leave`, `allow`, `deny`."))?;
    app.escrow
        .organisations()
        .set_user_lock(&permit, found.user_lock)
        .await?;
    Ok(Json(found.into()))
}
