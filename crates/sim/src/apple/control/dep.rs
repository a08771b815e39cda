//! The controls of the enrolment service.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{delete, get, patch, post, put},
};
use serde::{Deserialize, Serialize};

use super::{NewFault, Refused, bad};
use crate::{
    Dep, DepDevice, DepToken,
    dep::{TokenFileCipher, TokenFileOptions},
};

pub(super) fn router(dep: Dep) -> Router {
    Router::new()
        .route("/tokens", post(issue))
        .route("/tokens/{consumer_key}", patch(change))
        .route("/tokens/{consumer_key}/file", post(file))
        .route("/tokens/{consumer_key}/devices", post(assign))
        .route("/tokens/{consumer_key}/devices/{serial}", delete(unassign))
        .route(
            "/lock-refusals/{serial}",
            put(refuse_lock).delete(allow_lock),
        )
        .route("/expire", post(expire))
        .route("/faults", post(add_fault).delete(clear_faults))
        .route("/journal", get(journal))
        .with_state(dep)
}

fn known(dep: &Dep, consumer_key: &str) -> Result<DepToken, Refused> {
    let unknown = || "no token with this consumer key was issued".to_owned();
    dep.token(consumer_key)
        .ok_or_else(|| Refused(StatusCode::NOT_FOUND, unknown()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    #[serde(default = "usual_name")]
    server_name: String,
}

fn usual_name() -> String {
    "Sim Server".to_owned()
}

#[derive(Serialize)]
struct Issued {
    server_name: String,
    server_uuid: String,
    #[serde(flatten)]
    token: DepToken,
}

async fn issue(State(dep): State<Dep>, Json(new): Json<NewToken>) -> impl IntoResponse {
    let token = dep.issue_token(&new.server_name);
    let issued = Issued {
        server_name: token.server_name.clone(),
        server_uuid: token.server_uuid.clone(),
        token,
    };
    (StatusCode::CREATED, Json(issued))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenChange {
    expired: Option<bool>,
    terms_signed: Option<bool>,
    access_denied: Option<bool>,
}

async fn change(
    State(dep): State<Dep>,
    Path(consumer_key): Path<String>,
    Json(change): Json<TokenChange>,
) -> Result<StatusCode, Refused> {
    let token = known(&dep, &consumer_key)?;
    if change.expired == Some(false) {
        return Err(bad(
            "a token that has ended stays so: issue another one (POST /dep/tokens)",
        ));
    }
    if change.expired == Some(true) {
        dep.expire_token(&token);
    }
    if let Some(signed) = change.terms_signed {
        dep.set_terms_signed(&token, signed);
    }
    if let Some(denied) = change.access_denied {
        dep.set_access_denied(&token, denied);
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFile {
    certificate_pem: String,
    #[serde(default)]
    cipher: TokenFileCipher,
    message_marks: Option<bool>,
    width: Option<usize>,
    crlf: Option<bool>,
}

async fn file(
    State(dep): State<Dep>,
    Path(consumer_key): Path<String>,
    Json(new): Json<NewFile>,
) -> Result<impl IntoResponse, Refused> {
    let token = known(&dep, &consumer_key)?;
    let usual = TokenFileOptions::default();
    let options = TokenFileOptions {
        cipher: new.cipher,
        message_marks: new.message_marks.unwrap_or(usual.message_marks),
        width: new.width.unwrap_or(usual.width),
        crlf: new.crlf.unwrap_or(usual.crlf),
    };
    let file = dep
        .token_file_with(&token, &new.certificate_pem, options)
        .map_err(|error| bad(error.to_string()))?;
    let kind = [(header::CONTENT_TYPE, "application/pkcs7-mime")];
    Ok((StatusCode::CREATED, kind, file))
}

async fn assign(
    State(dep): State<Dep>,
    Path(consumer_key): Path<String>,
    Json(device): Json<DepDevice>,
) -> Result<StatusCode, Refused> {
    let token = known(&dep, &consumer_key)?;
    if device.serial_number.is_empty() {
        return Err(bad("serial_number is missing"));
    }
    dep.assign(&token, device);
    Ok(StatusCode::NO_CONTENT)
}

async fn unassign(
    State(dep): State<Dep>,
    Path((consumer_key, serial)): Path<(String, String)>,
) -> Result<StatusCode, Refused> {
    let token = known(&dep, &consumer_key)?;
    dep.unassign(&token, &serial);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LockRefusal {
    response_status: String,
}

async fn refuse_lock(
    State(dep): State<Dep>,
    Path(serial): Path<String>,
    Json(refusal): Json<LockRefusal>,
) -> StatusCode {
    dep.refuse_lock(&serial, Some(&refusal.response_status));
    StatusCode::NO_CONTENT
}

async fn allow_lock(State(dep): State<Dep>, Path(serial): Path<String>) -> StatusCode {
    dep.refuse_lock(&serial, None);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expired {
    #[serde(default)]
    sessions: bool,
    #[serde(default)]
    cursors: bool,
}

async fn expire(State(dep): State<Dep>, Json(expired): Json<Expired>) -> StatusCode {
    if expired.sessions {
        dep.expire_sessions();
    }
    if expired.cursors {
        dep.expire_cursors();
    }
    StatusCode::NO_CONTENT
}

async fn add_fault(
    State(dep): State<Dep>,
    Json(new): Json<NewFault>,
) -> Result<StatusCode, Refused> {
    dep.push_fault(new.into_fault()?);
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_faults(State(dep): State<Dep>) -> StatusCode {
    dep.clear_faults();
    StatusCode::NO_CONTENT
}

async fn journal(State(dep): State<Dep>) -> impl IntoResponse {
    Json(dep.journal().all())
}
