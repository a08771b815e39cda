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

    /// Whether it is moved by hand: then it is right, whatever others say.
    fn is_moved_by_hand(&self) -> bool {
        false
    }
}

/// A clock that never goes back. What is on record is put in order by its times, and waits are counted from them: a machine's
/// clock that is set back, also between two runs, must not bring an unlock before the lock it ended, nor forget what was tried.
///
/// After a step back, time goes on from where it was; once the other clock has caught up, it is followed again. A clock that is
/// set back by more than a day and a half was wrong before, and is followed at once. Not for what others check against their own
/// clocks, such as signatures: for them only the machine's clock may be right.
pub struct Steady {
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
}

/// A longer step back is a clock that was ahead and is set right. More than a day: a wrong date is off by whole ones.
const MOST_BACK: Duration = Duration::from_secs(36 * 60 * 60);

struct Seen {
    /// How far the other clock is behind the database's server, in milliseconds.
    behind: i64,
    /// What the other clock showed last, set right.
    shown: Timestamp,
    /// What was given last.
    given: Timestamp,
}

impl Steady {
    /// Follows a clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let now = clock.now();
        Self {
            clock,
            seen: Mutex::new(Seen {
                behind: 0,
                shown: now,
                given: now,
            }),
        }
    }

    /// Goes on from no earlier than a moment: the last one that is on record.
    pub fn not_before(&self, moment: Timestamp) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if moment.since(seen.shown) <= MOST_BACK {
            seen.given = seen.given.max(moment);
        }
    }
}

impl Steady {
    /// How far the clock it follows is behind the time that is given here, in milliseconds; less than nothing when ahead.
    pub(crate) fn behind(&self) -> i64 {
        self.now().0.saturating_sub(self.clock.now().0)
    }

    /// The database's server says what the time is: replicas whose machines disagree all go by that.
    pub(crate) fn set_right(&self, server: Timestamp) {
        if !self.clock.is_moved_by_hand() {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.behind = server.0.saturating_sub(self.clock.now().0);
        }
    }
}

impl Clock for Steady {
    fn now(&self) -> Timestamp {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = Timestamp(self.clock.now().0.saturating_add(seen.behind));
        // By as much as the other clock went on; what it went back by is not made up.
        let went_on = shown.since(seen.shown);
        let is_back = shown < seen.shown;
        let given = seen
            .given
            .plus(went_on)
            .plus(Duration::from_millis(u64::from(is_back)));
        let is_caught_up = shown >= seen.given || given.since(shown) > MOST_BACK;
        *seen = Seen {
            behind: seen.behind,
            shown,
            given: if is_caught_up { shown } else { given },
        };
        seen.given
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.clock.sleep(duration)
    }

    fn is_moved_by_hand(&self) -> bool {
        self.clock.is_moved_by_hand()
    }
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

    fn is_moved_by_hand(&self) -> bool {
        true
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
    fn a_steady_clock_goes_on_when_the_other_is_set_back_and_follows_it_once_it_has_caught_up() {
        let clock = ManualClock::new(Timestamp(100_000));
        let steady = Steady::new(Arc::new(clock.clone()));
        assert_eq!(steady.now(), Timestamp(100_000));
        clock.set(Timestamp(40_000));
        assert_eq!(steady.now(), Timestamp(100_001), "later than before");
        clock.advance(Duration::from_secs(5));
        assert_eq!(steady.now(), Timestamp(105_001), "as fast as the other");
        clock.set(Timestamp(105_500));
        assert_eq!(steady.now(), Timestamp(105_500), "set right again");
        clock.advance(Duration::from_secs(1));
        assert_eq!(steady.now(), Timestamp(106_500));
        clock.set(Timestamp(400_000_000));
        assert_eq!(
            steady.now(),
            Timestamp(400_000_000),
            "a step on is followed"
        );
        clock.set(Timestamp(250_000_000));
        assert_eq!(
            steady.now(),
            Timestamp(250_000_000),
            "it was ahead by more than a day and a half"
        );
    }

    #[test]
    fn a_steady_clock_goes_on_from_what_is_on_record() {
        let clock = ManualClock::new(Timestamp(40_000));
        let steady = Steady::new(Arc::new(clock.clone()));
        steady.not_before(Timestamp(100_000));
        assert_eq!(steady.now(), Timestamp(100_000));
        clock.advance(Duration::from_secs(2));
        assert_eq!(steady.now(), Timestamp(102_000));
        clock.set(Timestamp(102_500));
        assert_eq!(steady.now(), Timestamp(102_500));
        steady.not_before(Timestamp(100_000_000_000));
        assert_eq!(
            steady.now(),
            Timestamp(102_500),
            "what is on record was dated by a clock far ahead"
        );
    }

    #[test]
    fn one_who_stopped_waiting_is_not_waited_for() {
        let clock = ManualClock::new(Timestamp(0));
        drop(clock.sleep(Duration::from_secs(1)));
        assert_eq!(clock.next_wake(), None);
    }
}
