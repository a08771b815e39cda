//! Who asks.

use axum::Json;
use axum::extract::State;
use escrow::permit::OrganisationId;
use serde::Serialize;
use utoipa::ToSchema;

use super::tokens::names;
use crate::App;
use crate::auth::Caller;
use crate::http::problem::Problem;

/// Who asks, and what they may do.
#[derive(Serialize, ToSchema)]
pub(super) struct Me {
    /// The token's name, or the person's.
    name: String,
    /// `token` or `person`.
    kind: &'static str,
    /// The principal's identifier, as the record names it.
    principal: String,
    /// Whether it is a person who has to set up a second factor before anything else.
    second_factor_needed: bool,
    /// What may be done in some organisation: `read`, `reveal`, `unlock`, `refresh`, `edit`, `connections`, `admin`. More may come.
    permissions: Vec<&'static str>,
    /// The same, where it may be done.
    grants: Vec<Allowed>,
    /// The identifier of the organisation it is valid in; null when it is valid in all of them.
    organisation: Option<String>,
    /// The organisations it may act in, by name.
    organisations: Vec<Named>,
    /// The version of the server.
    version: &'static str,
    /// Everything here is made up.
    sandbox: bool,
}

/// What may be done in one organisation, or in all.
#[derive(Serialize, ToSchema)]
struct Allowed {
    /// The organisation's identifier; null for all of them.
    organisation: Option<String>,
    permissions: Vec<&'static str>,
}

/// An organisation by its name.
#[derive(Serialize, ToSchema)]
#[schema(as = NamedOrganisation)]
struct Named {
    #[schema(value_type = String)]
    id: OrganisationId,
    name: String,
}

/// Show who asks: the name, permissions and organisations of the token or person. Needs no permission.
#[utoipa::path(
    get,
    path = "/v1/me",
    tag = "tokens",
    operation_id = "show_me",
    security(("token" = [])),
    responses((status = 200, description = "Who asks.", body = Me))
)]
pub(super) async fn show(State(app): State<App>, caller: Caller) -> Result<Json<Me>, Problem> {
    let actor = &caller.actor;
    let all = app.escrow.organisations().list(actor).await?;
    Ok(Json(Me {
        name: actor.name().to_owned(),
        kind: actor.kind().as_str(),
        principal: actor.principal().to_owned(),
        second_factor_needed: actor.is_unfinished(),
        permissions: names(actor.grants().somewhere()),
        grants: actor
            .grants()
            .iter()
            .map(|(scope, permissions)| Allowed {
                organisation: scope.organisation().map(|id| id.as_str().to_owned()),
                permissions: names(permissions),
            })
            .collect(),
        organisation: (!actor.grants().reach_all())
            .then(|| actor.grants().only())
            .flatten()
            .map(|id| id.as_str().to_owned()),
        organisations: all
            .into_iter()
            .map(|one| Named {
                id: one.id,
                name: one.name,
            })
            .collect(),
        version: env!("CARGO_PKG_VERSION"),
        sandbox: app.settings.sandbox,
    }))
}
