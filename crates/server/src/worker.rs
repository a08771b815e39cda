//! What goes on by itself: unlocks, commands to MDMs, and what has to be looked at now and then.

use crate::App;
use crate::lifecycle::Shutdown;

/// Works until the server is to end; then finishes what is under way and gives back what is not.
pub(crate) async fn run(_app: App, shutdown: Shutdown) {
    shutdown.requested().await;
}
