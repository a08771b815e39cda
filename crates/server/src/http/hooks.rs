//! Webhooks of MDMs: proven, read, on record, and only then acknowledged (R22).

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use activation_lock::asking::Trigger;
use activation_lock::observation::{Event, Observation};
use activation_lock::time::Timestamp;
use aws_lc_rs::{digest, hmac};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use escrow::connections::{Hook, HookProof};
use escrow::record::{Incoming, Recorded};
use lru::LruCache;
use seal::TokenHash;
use subtle::ConstantTimeEq as _;

use crate::App;
use crate::auth::Address;
use crate::connectors;
use crate::http::problem::Problem;
use crate::http::refusals;
use crate::telemetry::WebhookResult;

/// The most that a webhook holds, bytes.
const BODY_LIMIT: usize = 1024 * 1024;
/// Connections kept in memory.
const KEPT: NonZeroUsize = NonZeroUsize::new(256).expect("256 is not zero");
/// How long one is kept: another process may change it.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// So many refused webhooks are a burst (R8).
const BURST: u32 = 3;
/// A burst makes a fleet be asked again at most this often, for anybody can send what is refused.
const ASK_AGAIN_AT_MOST: Duration = Duration::from_secs(60 * 60);

/// Where webhooks go.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/hooks/{name}", post(signed))
        .route("/v1/hooks/{name}/{secret}", post(addressed))
}

/// A webhook that proves itself by `X-Hmac-Signature`.
async fn signed(
    State(app): State<App>,
    Path(name): Path<String>,
    Address(from): Address,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let signature = headers
        .get("x-hmac-signature")
        .and_then(|value| STANDARD.decode(value.as_bytes()).ok());
    accept(&app, &name, from, body, |proof, body| {
        match (proof, &signature) {
            (HookProof::Hmac(secrets), Some(signature)) => secrets.iter().any(|secret| {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::verify(&key, body, signature).is_ok()
            }),
            _ => false,
        }
    })
    .await
}

/// A webhook that proves itself by the secret in its address, for senders that cannot sign.
async fn addressed(
    State(app): State<App>,
    Path((name, secret)): Path<(String, String)>,
    Address(from): Address,
    body: Body,
) -> Result<StatusCode, Problem> {
    let given = TokenHash::of(&secret);
    accept(&app, &name, from, body, |proof, _| match proof {
        HookProof::Path(hashes) => hashes.iter().any(|hash| bool::from(hash.ct_eq(&given))),
        HookProof::Hmac(_) => false,
    })
    .await
}

async fn accept(
    app: &App,
    name: &str,
    from: Option<IpAddr>,
    body: Body,
    is_proof: impl Fn(&HookProof, &[u8]) -> bool,
) -> Result<StatusCode, Problem> {
    let result = receive(app, name, body, is_proof).await;
    let became = match &result {
        Ok(became) | Err((became, _)) => *became,
    };
    app.metrics.webhook(became);
    if became == WebhookResult::Refused {
        app.refusals.count(refusals::Kind::Webhook, from, app.now());
    }
    // NanoMDM wants exactly 200 (mdm-connectors, 1).
    result
        .map(|_| StatusCode::OK)
        .map_err(|(_, problem)| problem)
}

type Refused = (WebhookResult, Problem);

async fn receive(
    app: &App,
    name: &str,
    body: Body,
    is_proof: impl Fn(&HookProof, &[u8]) -> bool,
) -> Result<WebhookResult, Refused> {
    let failed = |error: escrow::Error| (WebhookResult::Failed, Problem::from(error));
    let body = tokio::time::timeout(app.settings.client_timeout, to_bytes(body, BODY_LIMIT))
        .await
        .map_err(|_| (WebhookResult::TooSlow, Problem::too_slow()))?
        .map_err(|_| (WebhookResult::TooLarge, too_large()))?;
    let hook = app.hooks.get(app, name).await.map_err(failed)?;
    let Some(hook) = hook.filter(|hook| is_proof(&hook.proof, &body)) else {
        app.hooks.refused(name);
        tracing::warn!("a webhook was refused: it does not prove that it is its MDM's own");
        return Err((WebhookResult::Refused, not_proven()));
    };
    if app.hooks.came_after_a_burst(name, app.now()) {
        app.escrow
            .commands()
            .ask_all(Some(&hook.connection.id), Trigger::RefusedWebhooks, false)
            .await
            .map_err(failed)?;
    }
    let observation = match connectors::read_event(hook.kind, &body) {
        Ok(Some(observation)) => observation,
        Ok(None) => return Ok(WebhookResult::Quiet),
        Err(error) => {
            let problem = Problem::bad_request(format!("The webhook cannot be read: {error}"))
                .hint("Is the connection of the kind of MDM that sends this?");
            return Err((WebhookResult::Garbage, problem));
        }
    };
    record(app, &hook, observation, &body).await.map_err(failed)
}

async fn record(
    app: &App,
    hook: &Hook,
    observation: Observation,
    body: &Bytes,
) -> escrow::Result<WebhookResult> {
    let is_poll = matches!(observation.event, Event::Seen);
    let known = app.escrow.enrollments();
    if is_poll
        && known
            .is_known(&hook.connection, &observation.enrollment)
            .await?
    {
        return Ok(WebhookResult::Quiet);
    }
    let hash = digest::digest(&digest::SHA256, body);
    let incoming = Incoming {
        connection: hook.connection.clone(),
        digest: hash
            .as_ref()
            .try_into()
            .expect("a SHA-256 hash has 32 bytes"),
        observation,
    };
    Ok(match app.escrow.record(incoming).await? {
        Recorded::Recorded => WebhookResult::Recorded,
        Recorded::Known => WebhookResult::Known,
        Recorded::Ignored => WebhookResult::Quiet,
    })
}

fn too_large() -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too-large",
        "The webhook is too large",
        "It holds more than a mebibyte, or broke off; nothing was recorded.",
    )
}

fn not_proven() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "webhook-not-proven",
        "The webhook does not prove itself",
        "There is no connection of that name, or the signature or secret is not its own.",
    )
    .hint("Compare the webhook's address and its HMAC key in the MDM's settings with the connection's.")
}

/// The connections as webhooks need them, kept for a few seconds, and what was refused in their name.
pub(crate) struct Hooks {
    kept: Mutex<LruCache<String, (Arc<Hook>, Timestamp)>>,
    /// How often connections have changed. Rises while `kept` is held.
    changes: AtomicU64,
    refused: Mutex<HashMap<String, Refusals>>,
}

#[derive(Default)]
struct Refusals {
    count: u32,
    asked_at: Option<Timestamp>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            kept: Mutex::new(LruCache::new(KEPT)),
            changes: AtomicU64::default(),
            refused: Mutex::default(),
        }
    }
}

impl Hooks {
    async fn get(&self, app: &App, name: &str) -> escrow::Result<Option<Arc<Hook>>> {
        let now = app.now();
        if let Some((hook, read_at)) = lock(&self.kept).get(name)
            && now >= *read_at
            && now.since(*read_at) < KEPT_FOR
        {
            return Ok(Some(hook.clone()));
        }
        let changes = self.changes.load(Ordering::SeqCst);
        let Some(hook) = app.escrow.connections().for_hook(name).await? else {
            lock(&self.kept).pop(name);
            return Ok(None);
        };
        let hook = Arc::new(hook);
        self.keep(name, &hook, now, changes);
        Ok(Some(hook))
    }

    /// Keeps a connection as it was read when there had been so many changes. One that may have changed since is not kept: its
    /// secret may have been taken back.
    fn keep(&self, name: &str, hook: &Arc<Hook>, read_at: Timestamp, changes: u64) {
        let mut kept = lock(&self.kept);
        if self.changes.load(Ordering::SeqCst) == changes {
            kept.put(name.to_owned(), (hook.clone(), read_at));
        }
    }

    /// Connections have changed: they are read anew.
    pub(crate) fn forget(&self) {
        let mut kept = lock(&self.kept);
        self.changes.fetch_add(1, Ordering::SeqCst);
        kept.clear();
    }

    /// A webhook in this name was refused. Only names that exist are remembered: others have no fleet to ask.
    fn refused(&self, name: &str) {
        if lock(&self.kept).contains(name) {
            let mut refused = lock(&self.refused);
            let of_name = refused.entry(name.to_owned()).or_default();
            of_name.count = of_name.count.saturating_add(1);
        }
    }

    /// Whether a good webhook comes after a burst of refused ones, among which an answer may have been (R8).
    fn came_after_a_burst(&self, name: &str, now: Timestamp) -> bool {
        let mut refused = lock(&self.refused);
        let Some(of_name) = refused.get_mut(name).filter(|one| one.count >= BURST) else {
            return false;
        };
        let due = of_name
            .asked_at
            .is_none_or(|at| now.since(at) >= ASK_AGAIN_AT_MOST);
        if due {
            *of_name = Refusals {
                count: 0,
                asked_at: Some(now),
            };
        }
        due
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use escrow::connections::{ConnectionKind, ConnectionRef};
    use escrow::permit::OrganisationId;

    use super::*;

    #[test]
    fn r22_what_was_read_before_a_change_is_not_kept_after_it() {
        let hook = Arc::new(Hook {
            connection: ConnectionRef {
                organisation: OrganisationId::new("o"),
                id: "c".to_owned(),
            },
            name: "mdm".to_owned(),
            kind: ConnectionKind::NanoMdm,
            proof: HookProof::Path(Vec::new()),
            version: 1,
        });
        let hooks = Hooks::default();
        let keep = |changes| {
            hooks.keep("mdm", &hook, Timestamp(0), changes);
            lock(&hooks.kept).contains("mdm")
        };
        assert!(keep(0));
        hooks.forget();
        assert!(!keep(0));
        assert!(keep(1));
    }
}
