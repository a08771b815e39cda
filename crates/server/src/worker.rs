//! What goes on by itself: unlocks, commands to MDMs, and what has to be looked at now and then.

use std::future::Future;
use std::time::Duration;

use activation_lock::time::Timestamp;

use crate::App;
use crate::lifecycle::Shutdown;

mod courier;
mod rounds;
mod unlocks;

/// How long a part rests after it stopped at an error in this program.
const AFTER_A_PANIC: Duration = Duration::from_secs(1);
/// Between two tries after the database failed: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Works until the server is to end; then finishes what is under way and gives back what is not.
pub(crate) async fn run(app: App, shutdown: Shutdown) {
    let unlocks = unlocks::Unlocks::new(&app, &shutdown);
    tokio::join!(
        async {
            keep_up("unlocks", &app, &shutdown, || unlocks.clone().work()).await;
            unlocks.finish().await;
        },
        keep_up("courier", &app, &shutdown, || {
            courier::work(app.clone(), shutdown.clone())
        }),
        keep_up("rounds", &app, &shutdown, || {
            rounds::work(app.clone(), shutdown.clone())
        }),
        keep_up("connections", &app, &shutdown, || {
            rounds::watch_connections(app.clone(), shutdown.clone())
        }),
    );
}

/// Runs a part until it ends as it was asked to. One that stops at an error in this program is started again.
async fn keep_up<F>(name: &'static str, app: &App, shutdown: &Shutdown, part: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    // What a panic said is on standard error already, and is not repeated.
    while tokio::spawn(part()).await.is_err() {
        tracing::error!(
            part = name,
            "a part of the worker stopped at an error in this program and is started again; please report it, with the log"
        );
        if rest(app, shutdown, AFTER_A_PANIC).await {
            return;
        }
    }
}

/// Sleeps by the clock. True when the server is to end, which ends the sleep.
async fn rest(app: &App, shutdown: &Shutdown, duration: Duration) -> bool {
    tokio::select! {
        () = app.clock.sleep(duration) => shutdown.is_requested(),
        () = shutdown.requested() => true,
    }
}

/// How long it is from now to a moment; never nothing, so that nobody goes round in circles.
fn wait_until(now: Timestamp, moment: Timestamp) -> Duration {
    moment.since(now).max(Duration::from_millis(1))
}

/// Pauses that grow while the database fails.
struct Pauses(Duration);

impl Pauses {
    fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}
