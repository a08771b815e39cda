//! The lines of batches, on their way into the queue.

use std::time::Duration;

use escrow::batches::Window;
use escrow::duties::Duty;
use escrow::operations::WorkSettings;

use super::Pauses;
use crate::App;
use crate::lifecycle::Shutdown;

/// So long is waited between two looks while a batch runs that has as much in the queue as it may.
const WHILE_SOME_RUN: Duration = Duration::from_millis(200);
/// However quiet it is, somebody looks this often: another process may have had the duty and died.
const LOOK: Duration = Duration::from_secs(30);

/// Feeds the queue until the server is to end.
pub(super) async fn work(app: App, settings: WorkSettings, shutdown: Shutdown) {
    let mut pauses = Pauses::new();
    while !shutdown.is_requested() {
        let wait = match feed(&app, Window::of(&settings)).await {
            Ok(wait) => {
                pauses = Pauses::new();
                wait
            }
            Err(error) => {
                tracing::error!(%error, "the lines of batches cannot enter the queue; it is tried again");
                Some(pauses.next())
            }
        };
        let Some(wait) = wait else { continue };
        tokio::select! {
            () = app.escrow.batches_woken() => {}
            () = app.clock.sleep(wait) => {}
            () = shutdown.requested() => {}
        }
    }
}

/// Gives the time until the next look; none when there is more to do at once.
async fn feed(app: &App, window: Window) -> escrow::Result<Option<Duration>> {
    let held = app
        .escrow
        .duties()
        .hold(Duty::Batches, &app.replica.id)
        .await?;
    let Some(held) = held else {
        return Ok(Some(LOOK));
    };
    let fed = app.escrow.batches().feed(&held, window).await?;
    Ok(match (fed.begun > 0, fed.some_run) {
        (true, _) => None,
        (false, true) => Some(WHILE_SOME_RUN),
        (false, false) => Some(LOOK),
    })
}
