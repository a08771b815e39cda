//! How many devices have their code held.

use axum::Json;
use axum::extract::State;
use escrow::permit::{Permit, Read};
use serde::Serialize;
use utoipa::ToSchema;

use crate::App;
use crate::auth::Caller;
use crate::http::problem::Problem;

/// How many devices of an organisation stand how.
#[derive(Serialize, ToSchema)]
pub(super) struct Coverage {
    /// All of them: covered, missing and exempt.
    devices: i64,
    /// Devices whose code is held.
    covered: i64,
    /// Devices whose code should be held and is not.
    missing: i64,
    /// Of those, the ones whose 15 days end within five.
    closing: i64,
    /// Of those, the ones whose 15 days are over.
    closed: i64,
    /// Devices that give no code.
    exempt: i64,
}

/// Count the devices whose code is held, and those that could not be unlocked tomorrow.
#[utoipa::path(
    get,
    path = "/v1/coverage",
    tag = "devices",
    operation_id = "show_coverage",
    security(("token" = ["read"])),
    responses((status = 200, description = "The counts.", body = Coverage))
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Coverage>, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, "coverage")
        .await?;
    let report = app.escrow.coverage().report(&permit).await?;
    Ok(Json(Coverage {
        devices: report.covered + report.missing + report.exempt,
        covered: report.covered,
        missing: report.missing,
        closing: report.closing,
        closed: report.closed,
        exempt: report.exempt,
    }))
}
