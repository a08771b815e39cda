//! What watches over a server: is it alive, can it work, how does it stand.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::auth;
use crate::telemetry::Readings;
use activation_lock::time::DAY;
use axum::Json;
use escrow::operations::Kind;
use escrow::organisations::Organisation;
use escrow::permit::{Actor, Permission, Permissions};
use escrow::{LiveSettings, Weakness};
use serde_json::json;

/// How long the database may take to answer.
const LOOK: Duration = Duration::from_secs(5);

/// The process answers.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// The vault answers too, and keeps what it acknowledges.
pub(super) async fn ready(State(app): State<App>) -> Response {
    if app.leaving.load(Ordering::Relaxed) {
        return Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not-ready",
            "This process is ending",
            "It finishes what is under way; another one, or this one once it has started again, takes what comes.",
        )
        .into_response();
    }
    if !app.keeps.load(Ordering::Relaxed) {
        return Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not-ready",
            "The vault cannot keep anything now",
            "The log says why: its disk may be full or read-only. Webhooks are refused until it can; it is tried again all the time.",
        )
        .into_response();
    }
    let looked = async {
        app.escrow.operations().queue(Kind::Unlock).await?;
        app.escrow.live_settings().await
    };
    // A database that went away is waited for; whoever asks here is not kept waiting with us.
    let Ok(looked) = tokio::time::timeout(LOOK, looked).await else {
        tracing::error!("not ready: the database does not answer");
        return Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not-ready",
            "The database does not answer",
            "Nothing can be kept now. It is tried again all the time.",
        )
        .into_response();
    };
    match looked {
        Ok(settings) if !weaknesses(&app, &settings).is_empty() => {
            let found = weaknesses(&app, &settings).into_iter();
            let said: Vec<_> = found.map(Weakness::explain).collect();
            tracing::error!("not ready: {}", said.join("; "));
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "not-ready",
                "The database may lose what it acknowledges",
                format!("{}.", said.join("; ")),
            )
            .into_response()
        }
        Ok(_) => Json(json!({ "ready": true, "sandbox": app.settings.sandbox })).into_response(),
        Err(error) => {
            tracing::error!(%error, "not ready: the vault failed");
            Problem::failed().into_response()
        }
    }
}

/// The ways in which the database may lose what it has acknowledged, but for those that are put up with.
fn weaknesses(app: &App, settings: &LiveSettings) -> Vec<Weakness> {
    let allowed = &app.settings.allowed_weaknesses;
    let mut found = settings.weaknesses();
    found.retain(|weakness| !allowed.contains(weakness));
    found
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
