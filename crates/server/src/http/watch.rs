//! What watches over a server: is it alive, can it work, how does it stand.

use std::time::Duration;

use super::*;
use crate::auth;
use crate::telemetry::Readings;
use activation_lock::time::DAY;
use axum::Json;
use escrow::operations::Kind;
use escrow::organisations::Organisation;
use escrow::permit::{Actor, Permission, Permissions};
use serde_json::json;

/// The process answers.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// The vault answers too.
pub(super) async fn ready(State(app): State<App>) -> Response {
    match app.escrow.operations().queue(Kind::Unlock).await {
        Ok(_) => Json(json!({ "ready": true, "sandbox": app.settings.sandbox })).into_response(),
        Err(error) => {
            tracing::error!(%error, "not ready: the vault failed");
            Problem::failed().into_response()
        }
    }
}

/// The metrics. On this machine anybody may read them; from elsewhere, or behind a proxy, a token with the permission `read` is
/// needed that is valid in every organisation, for they count all of them together.
pub(super) async fn metrics(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    if !auth::is_local(&parts, &app) {
        let actor = auth::actor(&parts, &app).await?;
        let everybody = Actor::system("metrics", Permissions::NONE);
        let all = app.escrow.organisations().list(&everybody).await?;
        let may = |one: &Organisation| actor.grants().within(&one.id).allow(Permission::Read);
        if !actor.grants().somewhere().allow(Permission::Read) || !all.iter().all(may) {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "That is not allowed",
                "The metrics count all organisations together: a token with the permission `read` in each of them is needed.",
            ));
        }
    }
    let text = app.metrics.text(&readings(&app).await?).map_err(|error| {
        tracing::error!(%error, "the metrics cannot be written");
        Problem::failed()
    })?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

async fn readings(app: &App) -> Result<Readings, Problem> {
    let queue = app.escrow.operations().queue(Kind::Unlock).await?;
    let locks = app.escrow.operations().queue(Kind::Lock).await?;
    let tokens = app.escrow.server_tokens().all().await?;
    let coverage = app.escrow.coverage().total().await?;
    let certificates = app.escrow.push_certificates().all_current().await?;
    let count = |value: i64| value as f64;
    let devices = [
        ("covered", coverage.covered),
        ("missing", coverage.missing),
        ("closing", coverage.closing),
        ("closed", coverage.closed),
        ("exempt", coverage.exempt),
    ];
    let days = |until: activation_lock::time::Timestamp| {
        (until.0 - queue.now.0) as f64 / DAY.as_millis() as f64
    };
    Ok(Readings {
        unlocks_live: count(queue.live),
        unlocks_running: count(queue.leased),
        oldest_unlock_seconds: queue
            .oldest_requested_at
            .map_or(Duration::ZERO, |since| queue.now.since(since))
            .as_secs_f64(),
        locks_live: count(locks.live),
        server_tokens: tokens
            .into_iter()
            .filter_map(|one| Some((one.name, days(one.expires_at?))))
            .collect(),
        devices: devices
            .map(|(state, value)| (state.to_owned(), count(value)))
            .into(),
        certificates: certificates
            .into_iter()
            .map(|one| (one.topic, days(one.not_after)))
            .collect(),
    })
}
