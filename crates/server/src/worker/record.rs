//! The audit record: sealed as it grows, signed once a minute, and given to the places outside.

use std::time::Duration;

use activation_lock::time::Timestamp;
use escrow::audit::{Checkpoint, Sealer, Turn};

use super::{Pauses, rest, wait_until};
use crate::App;
use crate::lifecycle::Shutdown;
use crate::outside::Outlet;

/// How long after a row the next sealing begins, so that rows that come together are sealed together.
const GATHER: Duration = Duration::from_secs(1);
/// Between two checkpoints: with the time to send one, less than a minute.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(50);
/// How long a place may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// Rows given to a place at once.
const STREAMED_AT_ONCE: u32 = 200;

/// Keeps it up until the server is to end. What is written after that is sealed by [`finish`].
pub(super) async fn work(app: App, shutdown: Shutdown) {
    let sealer = app.escrow.audit().sealer();
    let mut pauses = Pauses::new();
    let mut due = app.now();
    while !shutdown.is_requested() {
        match round(&app, &sealer, &mut due).await {
            Ok(()) => pauses = Pauses::new(),
            Err(error) => {
                tracing::error!(%error, "the audit record cannot be sealed now; it is tried again");
                if rest(&*app.clock, &shutdown, pauses.next()).await {
                    break;
                }
                continue;
            }
        }
        let until = wait_until(app.now(), due).min(CHECKPOINT_EVERY);
        let audit = app.escrow.audit();
        tokio::select! {
            () = audit.written() => {
                rest(&*app.clock, &shutdown, GATHER).await;
            }
            () = app.clock.sleep(until) => {}
            () = shutdown.requested() => {}
        }
    }
    if let Err(error) = sealer.release().await {
        tracing::warn!(%error, "the lease of the sealer was not given back; it ends by itself");
    }
}

/// Seals what the other parts wrote to their end, and signs it: nothing is written after that.
pub(crate) async fn finish(app: &App) {
    let sealer = app.escrow.audit().sealer();
    let mut due = app.now();
    if let Err(error) = round(app, &sealer, &mut due).await {
        tracing::error!(%error, "the end of the audit record is not sealed; the next start does that");
    }
    if let Err(error) = sealer.release().await {
        tracing::warn!(%error, "the lease of the sealer was not given back; it ends by itself");
    }
}

async fn round(app: &App, sealer: &Sealer, due: &mut Timestamp) -> escrow::Result<()> {
    let now = app.now();
    // The clock may have been set back.
    let is_due = now >= *due || due.since(now) > CHECKPOINT_EVERY;
    if is_due {
        app.escrow
            .audit()
            .unauthenticated(app.refusals.take())
            .await?;
    }
    loop {
        match sealer.seal().await? {
            Turn::Ours(0) => break,
            Turn::Ours(_) => {}
            Turn::AnothersUntil(until) => {
                *due = until;
                return Ok(());
            }
        }
    }
    for outlet in app.settings.outside.of_rows() {
        stream(app, outlet).await?;
    }
    if is_due {
        *due = now.plus(CHECKPOINT_EVERY);
        if let Turn::Ours(Some(checkpoint)) = sealer.checkpoint().await? {
            // All at once: a place that is slow does not keep the others waiting.
            let places = app.settings.outside.of_checkpoints();
            let sent = places.iter().map(|outlet| send(app, *outlet, &checkpoint));
            futures_util::future::try_join_all(sent).await?;
        }
    }
    Ok(())
}

async fn send(app: &App, outlet: Outlet, checkpoint: &Checkpoint) -> escrow::Result<()> {
    let outside = &app.settings.outside;
    let sent = in_time(outside.send_checkpoint(app, outlet, checkpoint)).await;
    settle(app, outlet, sent, checkpoint.position)
        .await
        .map(drop)
}

/// Gives a place what it has not got; at least once each, in the order of the chain.
async fn stream(app: &App, outlet: Outlet) -> escrow::Result<()> {
    let audit = app.escrow.audit();
    let known = audit.outlets().await?;
    let known = known.iter().find(|one| one.name == outlet.as_str());
    let mut position = known.map_or(0, |one| one.position);
    loop {
        let rows = audit.rows_after(position, STREAMED_AT_ONCE).await?;
        let Some(last) = rows.last().and_then(|row| row.position) else {
            return Ok(());
        };
        let sent = in_time(app.settings.outside.send_rows(app, outlet, &rows)).await;
        if !settle(app, outlet, sent, last).await? {
            return Ok(());
        }
        position = last;
    }
}

/// A place that does not answer has not taken it.
async fn in_time(sending: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    tokio::time::timeout(PATIENCE, sending)
        .await
        .unwrap_or_else(|_| Err(format!("it took nothing for {PATIENCE:?}")))
}

/// Keeps what became of it. True when it was taken.
async fn settle(
    app: &App,
    outlet: Outlet,
    sent: Result<(), String>,
    position: u64,
) -> escrow::Result<bool> {
    let audit = app.escrow.audit();
    app.metrics.outside(outlet.as_str(), sent.is_ok());
    match sent {
        Ok(()) => audit.delivered(outlet.as_str(), position).await?,
        Err(ref failure) => {
            tracing::error!(
                place = outlet.as_str(),
                failure,
                "the audit record does not get outside; it is tried again"
            );
            audit.undelivered(outlet.as_str(), failure).await?;
        }
    }
    Ok(sent.is_ok())
}
