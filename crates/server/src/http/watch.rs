//! What watches over a server: is it alive, can it work, how does it stand.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::*;
use crate::auth;
use crate::telemetry::{self, Readings};
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
    match unready(&app).await {
        None => {
            app.readiness.ready();
            Json(json!({ "ready": true, "sandbox": app.settings.sandbox })).into_response()
        }
        Some(problem) => problem.into_response(),
    }
}

/// Why this process should be given nothing to do.
async fn unready(app: &App) -> Option<Problem> {
    let not_ready = |title, detail: Cow<'static, str>| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", title, detail)
    };
    if app.leaving.load(Ordering::Relaxed) {
        return Some(not_ready(
            "This process is ending",
            "It finishes what is under way; another one, or this one once it has started again, takes what comes.".into(),
        ));
    }
    // The log has it from where it was noticed.
    if !app.keeps.load(Ordering::Relaxed) {
        return Some(not_ready(
            "The vault cannot keep anything now",
            "The log says why: its disk may be full or read-only. Webhooks are refused until it can; it is tried again all the time."
                .into(),
        ));
    }
    let looked = async {
        app.escrow.operations().queue(Kind::Unlock).await?;
        app.escrow.live_settings().await
    };
    // A database that went away is waited for; whoever asks here is not kept waiting with us.
    let Ok(looked) = tokio::time::timeout(LOOK, looked).await else {
        app.readiness
            .not_ready("the database does not answer within five seconds");
        return Some(not_ready(
            "The database does not answer",
            "It does not within five seconds, so that little or nothing can be kept now. It is tried again all the time.".into(),
        ));
    };
    match looked {
        Ok(settings) => {
            let found = weaknesses(app, &settings);
            if found.is_empty() {
                return None;
            }
            let said: Vec<_> = found.into_iter().map(Weakness::explain).collect();
            let said = said.join("; ");
            app.readiness.not_ready(&said);
            Some(not_ready(
                "The database may lose what it acknowledges",
                format!("{said}.").into(),
            ))
        }
        Err(error) => {
            app.readiness
                .not_ready(&format!("the vault failed: {error}"));
            Some(Problem::failed())
        }
    }
}

/// What was last said in the log of whether this process is ready: whoever asks does so every few seconds.
#[derive(Default)]
pub(crate) struct Readiness(Mutex<Option<String>>);

impl Readiness {
    fn not_ready(&self, why: &str) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.as_deref() != Some(why) {
            tracing::error!("not ready: {why}");
            *said = Some(why.to_owned());
        }
    }

    fn ready(&self) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.take().is_some() {
            tracing::info!("ready again");
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
    // What this process counts is told also when the vault does not answer.
    let readings = tokio::time::timeout(LOOK, readings(&app)).await;
    let readings = readings.ok().and_then(Result::ok);
    let state = telemetry::State {
        vault_answers: readings.is_some(),
        vault_keeps: app.keeps.load(Ordering::Relaxed),
        clock_behind: app.escrow.clock_behind(),
    };
    let text = app
        .metrics
        .text(&state, readings.as_ref())
        .map_err(|error| {
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
