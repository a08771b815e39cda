//! A device removed for ever.

use activation_lock::device::SerialNumber;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use escrow::devices::PurgeProblem;
use escrow::permit::{Permit, Purge};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::codes::reason;
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Body, Path, sentence};
use crate::http::problem::Problem;

/// Why, and whether its codes may still be needed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DevicePurge)]
pub(super) struct Why {
    /// In the person's own words; kept on record. 1 to 1,000 characters.
    reason: String,
    /// True to remove it although it is locked, or may be: then nobody but Apple can unlock it.
    #[serde(default)]
    even_though_locked: bool,
}

/// What was removed.
#[derive(Serialize, ToSchema)]
#[schema(as = PurgedDevice)]
pub(super) struct Removed {
    #[schema(value_type = String)]
    serial: SerialNumber,
    /// How many codes went with it.
    codes: usize,
}

/// Remove a device for ever, with its codes and all else that is kept of it.
///
/// Nothing of a device goes in any other way. The audit record stays, and so do backups made before. A device that an MDM or Apple's list
/// still has becomes known anew, without its codes.
#[utoipa::path(
    post,
    path = "/v1/devices/{serial}/purge",
    tag = "devices",
    operation_id = "purge_device",
    security(("token" = ["purge"])),
    params(("serial" = String, Path, description = "The serial number.")),
    request_body = Why,
    responses(
        (status = 200, description = "It is gone.", body = Removed),
        (status = 202, description = "Others were asked to approve it first, as the request wanted. Nothing was removed.",
            headers(("Location" = String, description = "Where the approval stands."))),
        (status = 404, description = "`unknown-device`"),
        (status = 409, description = "`may-be-locked`: its codes are what unlocks it. `under-way`: an unlock or a lock of it is. `ambiguous-device`: several organisations know it; name one.")
    )
)]
pub(super) async fn device(
    State(app): State<App>,
    caller: Caller,
    Path(serial): Path<SerialNumber>,
    body: Body,
) -> Result<Json<Removed>, Problem> {
    let organisation = caller.organisation_of(&app, &serial).await?;
    let permit: Permit<Purge> = app
        .escrow
        .authorise(&caller.actor, &organisation, format!("device {serial}"))
        .await?;
    let why: Why = body.json()?;
    let devices = app.escrow.devices();
    let done = devices
        .purge(
            &permit,
            &serial,
            reason(&why.reason)?,
            why.even_though_locked,
        )
        .await?;
    match done {
        Ok(purged) => Ok(Json(Removed {
            serial,
            codes: purged.codes,
        })),
        Err(PurgeProblem::Unknown) => Err(Problem::unknown_device()),
        Err(problem @ PurgeProblem::MayBeLocked) => Err(Problem::new(
            StatusCode::CONFLICT,
            "may-be-locked",
            "Its codes are what unlocks it",
            sentence(&problem.to_string()),
        )
        .hint("Unlock it first. Where that is no concern any more, say `\"even_though_locked\": true`. Nothing was removed.")),
        Err(problem @ PurgeProblem::UnderWay) => Err(Problem::new(
            StatusCode::CONFLICT,
            "under-way",
            "Something is done with it",
            sentence(&problem.to_string()),
        )
        .hint("Wait for its end, or cancel it. Nothing was removed.")),
    }
}
