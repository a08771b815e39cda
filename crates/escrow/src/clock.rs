//! Time as an argument: the one clock that the server makes, and the one that tests and simulations move by hand.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use activation_lock::time::Timestamp;
use tokio::sync::oneshot;

/// A sleep that ends when its clock says so.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the time is, and waiting for it to pass. Nothing else in this project reads a clock or sleeps.
pub trait Clock: Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> Timestamp;

    /// Ends once `duration` has passed by this clock.
    fn sleep(&self, duration: Duration) -> Sleep;
}

/// A clock that stands still until it is moved. Copies of it are one clock.
#[derive(Clone)]
pub struct ManualClock(Arc<Mutex<Hands>>);

struct Hands {
    now: Timestamp,
    /// Who sleeps, by the moment they wake at and the order in which they came.
    sleepers: BTreeMap<(Timestamp, u64), oneshot::Sender<()>>,
    next: u64,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(Hands {
            now,
            sleepers: BTreeMap::new(),
            next: 0,
        })))
    }

    /// Moves it on, and wakes whoever slept until then.
    pub fn advance(&self, duration: Duration) {
        let now = self.hands().now.plus(duration);
        self.set(now);
    }

    /// Sets it, backwards too, as an administrator may.
    pub fn set(&self, now: Timestamp) {
        let mut hands = self.hands();
        hands.now = now;
        let asleep = hands
            .sleepers
            .split_off(&(Timestamp(now.0.saturating_add(1)), 0));
        for (_, sleeper) in std::mem::replace(&mut hands.sleepers, asleep) {
            // One who stopped waiting cannot be woken.
            let _ = sleeper.send(());
        }
    }

    /// The earliest moment that somebody sleeps until, if anybody does.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        let mut hands = self.hands();
        hands.sleepers.retain(|_, sleeper| !sleeper.is_closed());
        hands.sleepers.keys().next().map(|(at, _)| *at)
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.hands().now
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let mut hands = self.hands();
        let at = hands.now.plus(duration);
        if at <= hands.now {
            return Box::pin(std::future::ready(()));
        }
        let (sleeper, woken) = oneshot::channel();
        let place = (at, hands.next);
        hands.next += 1;
        hands.sleepers.insert(place, sleeper);
        // The sender is dropped only with the clock itself; a clock that is gone wakes everybody.
        Box::pin(async move { woken.await.unwrap_or(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_clock_has_reached_its_moment() {
        let clock = ManualClock::new(Timestamp(1_000));
        clock.sleep(Duration::ZERO).await;
        let long = clock.sleep(Duration::from_secs(2));
        let mut long = tokio::spawn(long);
        let short = clock.sleep(Duration::from_secs(1));
        assert_eq!(clock.next_wake(), Some(Timestamp(2_000)));
        clock.advance(Duration::from_secs(1));
        short.await;
        assert_eq!(clock.next_wake(), Some(Timestamp(3_000)));
        clock.advance(Duration::from_millis(999));
        assert_eq!(clock.next_wake(), Some(Timestamp(3_000)));
        tokio::select! {
            biased;
            _ = &mut long => panic!("it woke a millisecond early"),
            () = std::future::ready(()) => {}
        }
        clock.advance(Duration::from_millis(1));
        long.await.unwrap();
        assert_eq!(clock.now(), Timestamp(3_000));
    }

    #[test]
    fn one_who_stopped_waiting_is_not_waited_for() {
        let clock = ManualClock::new(Timestamp(0));
        drop(clock.sleep(Duration::from_secs(1)));
        assert_eq!(clock.next_wake(), None);
    }
}
