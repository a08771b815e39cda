//! The controls of the Business and School Manager API.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
    routing::{delete, get, patch, post, put},
};
use serde::Deserialize;

use super::{NewFault, Refused, bad};
use crate::{AccountKind, BusinessManager, OrgDevice, StatusAnswer};

pub(super) fn router(api: BusinessManager) -> Router {
    Router::new()
        .route("/accounts", post(issue))
        .route("/accounts/{client_id}", patch(change))
        .route("/devices", post(add_device))
        .route("/devices/{serial}", delete(remove_device))
        .route("/devices/{serial}/lock-status", put(set_status))
        .route("/stale-for", put(set_stale_for))
        .route("/expire-tokens", post(expire_tokens))
        .route("/faults", post(add_fault).delete(clear_faults))
        .route("/journal", get(journal))
        .with_state(api)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAccount {
    kind: Option<AccountKind>,
}

async fn issue(
    State(api): State<BusinessManager>,
    Json(new): Json<NewAccount>,
) -> impl IntoResponse {
    let kind = new.kind.unwrap_or(AccountKind::Business);
    (StatusCode::CREATED, Json(api.issue_account(kind)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountChange {
    denied: bool,
}

async fn change(
    State(api): State<BusinessManager>,
    Path(client_id): Path<String>,
    Json(change): Json<AccountChange>,
) -> Result<StatusCode, Refused> {
    if api.deny_client(&client_id, change.denied) {
        return Ok(StatusCode::NO_CONTENT);
    }
    let why = "no account with this client id was issued";
    Err(Refused(StatusCode::NOT_FOUND, why.to_owned()))
}

async fn add_device(
    State(api): State<BusinessManager>,
    Json(device): Json<OrgDevice>,
) -> Result<StatusCode, Refused> {
    if device.serial_number.is_empty() {
        return Err(bad("serialNumber is missing"));
    }
    api.add_device(device);
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_device(
    State(api): State<BusinessManager>,
    Path(serial): Path<String>,
) -> StatusCode {
    api.remove_device(&serial);
    StatusCode::NO_CONTENT
}

async fn set_status(
    State(api): State<BusinessManager>,
    Path(serial): Path<String>,
    Json(answer): Json<StatusAnswer>,
) -> StatusCode {
    api.set_status(&serial, answer);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stale {
    seconds: u64,
}

async fn set_stale_for(State(api): State<BusinessManager>, Json(stale): Json<Stale>) -> StatusCode {
    api.set_stale_for(Duration::from_secs(stale.seconds));
    StatusCode::NO_CONTENT
}

async fn expire_tokens(State(api): State<BusinessManager>) -> StatusCode {
    api.expire_tokens();
    StatusCode::NO_CONTENT
}

async fn add_fault(
    State(api): State<BusinessManager>,
    Json(new): Json<NewFault>,
) -> Result<StatusCode, Refused> {
    api.push_fault(new.into_fault()?);
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_faults(State(api): State<BusinessManager>) -> StatusCode {
    api.clear_faults();
    StatusCode::NO_CONTENT
}

async fn journal(State(api): State<BusinessManager>) -> impl IntoResponse {
    Json(api.journal().all())
}
