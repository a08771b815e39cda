//! What goes on by itself: unlocks and locks, commands to MDMs, Apple's lists and statuses, and what has to be looked at now and
//! then.

use std::time::Duration;

use activation_lock::time::Timestamp;
use escrow::clock::Clock;

use crate::App;
use crate::lifecycle::Shutdown;

mod batches;
mod courier;
pub(crate) mod lists;
mod locks;
mod notices;
mod presence;
mod queue;
mod record;
mod rotation;
mod rounds;
pub(crate) mod statuses;
mod unlocks;

pub(crate) use record::finish as finish_record;

/// How long a part rests after it stopped at an error in this program.
const AFTER_A_PANIC: Duration = Duration::from_secs(1);
/// Between two tries after the database failed: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Works until the server is to end; then finishes what is under way and gives back what is not.
pub(crate) async fn run(app: App, shutdown: Shutdown) {
    let clock = &*app.clock;
    presence::arrive(&app, &shutdown).await;
    let presence = async {
        keep_up("presence", clock, &shutdown, || {
            presence::work(app.clone(), shutdown.clone())
        })
        .await;
        presence::end(&app).await;
    };
    let journal = keep_up("journal", clock, &shutdown, || {
        presence::watch_journal(app.clone(), shutdown.clone())
    });
    let connections = keep_up("connections", clock, &shutdown, || {
        rounds::watch_connections(app.clone(), shutdown.clone())
    });
    if !app.settings.works {
        tokio::join!(presence, connections);
        return;
    }
    let queue = queue::Queue::new(&app, &shutdown);
    tokio::join!(
        async {
            keep_up("queue", clock, &shutdown, || queue.clone().work()).await;
            queue.finish().await;
        },
        keep_up("batches", clock, &shutdown, || {
            batches::work(app.clone(), queue.settings.clone(), shutdown.clone())
        }),
        keep_up("lists", clock, &shutdown, || {
            lists::work(app.clone(), shutdown.clone())
        }),
        keep_up("statuses", clock, &shutdown, || {
            statuses::work(app.clone(), shutdown.clone())
        }),
        keep_up("courier", clock, &shutdown, || {
            courier::work(app.clone(), shutdown.clone())
        }),
        keep_up("rounds", clock, &shutdown, || {
            rounds::work(app.clone(), shutdown.clone())
        }),
        keep_up("rotation", clock, &shutdown, || {
            rotation::work(app.clone(), shutdown.clone())
        }),
        keep_up("notices", clock, &shutdown, || {
            notices::work(app.clone(), shutdown.clone())
        }),
        keep_up("record", clock, &shutdown, || {
            record::work(app.clone(), shutdown.clone())
        }),
        presence,
        journal,
        connections,
    );
}

/// Runs a part until it ends as it was asked to. One that stops at an error in this program is started again.
async fn keep_up<F>(
    name: &'static str,
    clock: &dyn Clock,
    shutdown: &Shutdown,
    mut part: impl FnMut() -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    while tokio::spawn(part()).await.is_err() {
        // What the panic said is on standard error.
        tracing::error!(
            part = name,
            "a part of the worker stopped at an error in this program and is started again; please report it, with the log"
        );
        if rest(clock, shutdown, AFTER_A_PANIC).await {
            return;
        }
    }
}

/// Sleeps by the clock. True when the server is to end, which ends the sleep.
async fn rest(clock: &dyn Clock, shutdown: &Shutdown, duration: Duration) -> bool {
    tokio::select! {
        () = clock.sleep(duration) => shutdown.is_requested(),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use escrow::clock::ManualClock;

    use super::*;

    /// Moves the clock whenever somebody sleeps.
    pub(super) async fn pass_time(clock: &ManualClock) {
        loop {
            if let Some(wake) = clock.next_wake() {
                clock.set(wake);
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_part_that_panics_is_started_again_until_the_end() {
        let clock = ManualClock::new(Timestamp(0));
        let (ask, shutdown) = Shutdown::new();
        let starts = Arc::new(AtomicU32::new(0));
        let part = || {
            let (starts, shutdown) = (starts.clone(), shutdown.clone());
            async move {
                if starts.fetch_add(1, Ordering::SeqCst) < 3 {
                    panic!("a test");
                }
                shutdown.requested().await;
            }
        };
        let end = async {
            while starts.load(Ordering::SeqCst) < 4 {
                tokio::task::yield_now().await;
            }
            ask.send(true).unwrap();
            std::future::pending().await
        };
        tokio::select! {
            () = keep_up("test", &clock, &shutdown, part) => {}
            () = pass_time(&clock) => {}
            () = end => {}
        }
        assert_eq!(starts.load(Ordering::SeqCst), 4);
        assert_eq!(clock.now(), Timestamp(3_000), "it rests a second each time");
    }

    #[test]
    fn pauses_grow_to_half_a_minute() {
        let mut pauses = Pauses::new();
        let millis: Vec<u128> = (0..9).map(|_| pauses.next().as_millis()).collect();
        let wanted = [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000];
        assert_eq!(millis, wanted);
    }
}
