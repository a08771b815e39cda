//! The data keys of the vault: shown, exchanged, looked through, ended.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use escrow::keys::{DestroyProblem, KeyStatus, Rotation as Row, Verified as Found};
use escrow::permit::{Admin, OrganisationId, Permit};
use serde::Serialize;
use utoipa::ToSchema;

use super::shown::Moment;
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Path, sentence};
use crate::http::problem::Problem;

/// The keys of the vault.
#[derive(Serialize, ToSchema)]
pub(super) struct Keys {
    /// The data keys, oldest first.
    keys: Vec<Key>,
    /// The newest exchange of keys, under way or done; null when there was none.
    rotation: Option<Rotation>,
    /// When the recovery key last showed that it opens the vault.
    recovery_opened_at: Option<Moment>,
}

/// A data key. Never the key itself.
#[derive(Serialize, ToSchema)]
#[schema(as = DataKey)]
struct Key {
    id: String,
    /// What it is for: `cells`, `fingerprints`, `audit` or `checkpoints`.
    purpose: &'static str,
    /// `current`, `older` or `destroyed`.
    standing: String,
    created_at: Moment,
    destroyed_at: Option<Moment>,
    /// Whom it is wrapped for: `running` or `recovery`, and that key's identifier.
    recipients: Vec<String>,
    /// Whether this server has it opened.
    open: bool,
}

/// How far an exchange of keys is.
#[derive(Serialize, ToSchema)]
#[schema(as = KeyRotation)]
pub(super) struct Rotation {
    id: String,
    started_at: Moment,
    started_by: String,
    /// Which time everything is gone through; the last one finds nothing left.
    pass: u32,
    /// Values made anew so far.
    resealed: u64,
    /// Values that do not open, and were left as they are.
    damaged: u64,
    finished_at: Option<Moment>,
}

impl From<Row> for Rotation {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            started_at: row.started_at.into(),
            started_by: row.started_by,
            pass: row.pass,
            resealed: row.resealed,
            damaged: row.damaged,
            finished_at: row.finished_at.map(Moment),
        }
    }
}

impl From<KeyStatus> for Keys {
    fn from(status: KeyStatus) -> Self {
        let keys = status.keys.into_iter().map(|key| Key {
            id: key.id.to_string(),
            purpose: key.purpose.as_str(),
            standing: key.standing,
            created_at: key.created_at.into(),
            destroyed_at: key.destroyed_at.map(Moment),
            recipients: key.recipients,
            open: key.is_open,
        });
        Self {
            keys: keys.collect(),
            rotation: status.rotation.map(Rotation::from),
            recovery_opened_at: status.recovery_opened_at.map(Moment),
        }
    }
}

/// What came of opening everything that is sealed.
#[derive(Serialize, ToSchema)]
#[schema(as = VerifiedKeys)]
pub(super) struct Verified {
    /// How many values each key made, by its identifier.
    by_key: BTreeMap<String, u64>,
    /// What does not open: where, and why. Nothing of what is sealed.
    damaged: Vec<String>,
}

impl From<Found> for Verified {
    fn from(found: Found) -> Self {
        Self {
            by_key: found.by_key,
            damaged: found.damaged,
        }
    }
}

/// Keys are those of all organisations.
async fn permit(app: &App, caller: &Caller, subject: &str) -> Result<Permit<Admin>, Problem> {
    let everywhere = OrganisationId::new("*");
    Ok(app
        .escrow
        .authorise(&caller.actor, &everywhere, subject)
        .await?)
}

/// Show the data keys, and how far their exchange is. It takes who may manage all organisations.
#[utoipa::path(
    get,
    path = "/v1/keys",
    tag = "keys",
    operation_id = "show_keys",
    security(("token" = ["admin"])),
    responses((status = 200, description = "The keys.", body = Keys))
)]
pub(super) async fn show(State(app): State<App>, caller: Caller) -> Result<Json<Keys>, Problem> {
    let permit = permit(&app, &caller, "keys").await?;
    Ok(Json(app.escrow.keys().status(&permit).await?.into()))
}

/// Exchange the data keys: new ones are used at once, and what the older ones made is made anew meanwhile. One that is under way goes
/// on.
#[utoipa::path(
    post,
    path = "/v1/keys/rotate",
    tag = "keys",
    operation_id = "rotate_keys",
    security(("token" = ["admin"])),
    responses((status = 202, description = "It is under way.", body = Rotation))
)]
pub(super) async fn rotate(
    State(app): State<App>,
    caller: Caller,
) -> Result<(StatusCode, Json<Rotation>), Problem> {
    let permit = permit(&app, &caller, "keys").await?;
    let rotation = app.escrow.keys().rotate(&permit).await?;
    Ok((StatusCode::ACCEPTED, Json(rotation.into())))
}

/// Open everything that is sealed, to see that it does, and count which keys made it. Takes as long as there is much.
#[utoipa::path(
    post,
    path = "/v1/keys/verify",
    tag = "keys",
    operation_id = "verify_keys",
    security(("token" = ["admin"])),
    responses((status = 200, description = "What was found.", body = Verified))
)]
pub(super) async fn verify(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Verified>, Problem> {
    let permit = permit(&app, &caller, "keys").await?;
    Ok(Json(app.escrow.keys().verify(&permit).await?.into()))
}

/// Destroy an older data key that nothing needs any more.
#[utoipa::path(
    delete,
    path = "/v1/keys/{id}",
    tag = "keys",
    operation_id = "destroy_key",
    security(("token" = ["admin"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 204, description = "This vault has no copy of it any more."),
        (status = 404, description = "`unknown-key`."),
        (status = 409, description = "`key-needed`: it is in use, something was made with it, or a backup needs it.")
    )
)]
pub(super) async fn destroy(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let permit = permit(&app, &caller, &format!("key {id}")).await?;
    match app.escrow.keys().destroy(&permit, &id).await? {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(problem) => {
            let detail = sentence(&problem.to_string());
            Err(match problem {
                DestroyProblem::Unknown(_) => {
                    Problem::new(StatusCode::NOT_FOUND, "unknown-key", "No such key", detail)
                }
                _ => Problem::new(
                    StatusCode::CONFLICT,
                    "key-needed",
                    "The key is needed",
                    detail,
                ),
            })
        }
    }
}
