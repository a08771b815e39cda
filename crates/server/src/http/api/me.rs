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
    /// The token's name.
    name: String,
    /// `token`, or another kind of principal.
    kind: &'static str,
    /// The principal's identifier, as the record names it.
    principal: String,
    /// What it may do: `read`, `reveal`, `unlock`, `refresh`, `edit`, `connections`, `admin`. More may come.
    permissions: Vec<&'static str>,
    /// The identifier of the organisation it is valid in; null when it is valid in all of them.
    organisation: Option<String>,
    /// The organisations it may act in, by name.
    organisations: Vec<Named>,
    /// The version of the server.
    version: &'static str,
    /// Everything here is made up.
    sandbox: bool,
}

/// An organisation by its name.
#[derive(Serialize, ToSchema)]
#[schema(as = NamedOrganisation)]
struct Named {
    #[schema(value_type = String)]
    id: OrganisationId,
    name: String,
}

/// Show who asks: the name, permissions and organisations of the token. Needs no permission.
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
        permissions: names(actor.grants().somewhere()),
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
