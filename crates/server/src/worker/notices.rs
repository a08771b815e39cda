//! Notices are sent as they come, one after the other.

use std::time::Duration;

use super::{Pauses, rest, wait_until};
use crate::App;
use crate::lifecycle::Shutdown;
use crate::notices;

/// Without anything queued, a look all the same.
const LOOK: Duration = Duration::from_secs(60);

/// Works until the server stops.
pub(super) async fn work(app: App, shutdown: Shutdown) {
    let mut pauses = Pauses::new();
    while !shutdown.is_requested() {
        let claimed = app.escrow.notices().claim().await;
        let done = match claimed {
            Ok(Ok(delivery)) => {
                let taken = notices::send(&app, &delivery).await;
                app.escrow.notices().finish(&delivery, &taken).await
            }
            Ok(Err(due)) => {
                let now = app.now();
                let wait = due.map_or(LOOK, |due| wait_until(now, due));
                let queue = app.escrow.notices();
                tokio::select! {
                    () = app.clock.sleep(wait) => {}
                    () = queue.woken() => {}
                    () = shutdown.requested() => {}
                }
                continue;
            }
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => pauses = Pauses::new(),
            Err(error) => {
                tracing::error!(%error, "notices cannot be sent now; it is tried again");
                if rest(&*app.clock, &shutdown, pauses.next()).await {
                    return;
                }
            }
        }
    }
}
