//! An exchange of keys: what the older keys made is made anew, batch by batch, beside everything else.

use escrow::keys::Step;

use super::{Pauses, rest};
use crate::App;
use crate::lifecycle::Shutdown;

/// Works until the server stops.
pub(super) async fn work(app: App, shutdown: Shutdown) {
    let mut pauses = Pauses::new();
    while !shutdown.is_requested() {
        match app.escrow.keys().step().await {
            Ok(Step::More) => {
                pauses = Pauses::new();
                // A batch is one verb: whoever came meanwhile is before the next.
                tokio::task::yield_now().await;
            }
            Ok(Step::Finished) => tracing::info!("the exchange of keys is done"),
            Ok(Step::Idle) => {
                let keys = app.escrow.keys();
                tokio::select! {
                    () = keys.woken() => {}
                    () = shutdown.requested() => {}
                }
            }
            Err(error) => {
                tracing::error!(%error, "the exchange of keys cannot go on now; it is tried again");
                if rest(&*app.clock, &shutdown, pauses.next()).await {
                    return;
                }
            }
        }
    }
}
