//! How often an MDM is called: the `max_rate` of its connection.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use activation_lock::time::Timestamp;

/// So many calls may be waiting for their turn; a longer wait than theirs comes of a clock that was set back.
const WAITING: f64 = 64.0;

/// The turns of each connection. What is kept of one is the moment at which its calls so far, spread evenly, end.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, f64>>);

impl Turns {
    /// Takes the next turn of a connection that may be called `per_second` times a second, with a second's worth at once.
    /// Gives how long it is until then.
    pub(super) fn take(&self, connection: &str, per_second: f64, now: Timestamp) -> Duration {
        if !(per_second.is_finite() && per_second > 0.0) {
            return Duration::ZERO;
        }
        let apart = 1000.0 / per_second;
        let at_once = apart * (per_second.max(1.0) - 1.0);
        let now = now.0 as f64;
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = turns.entry(connection.to_owned()).or_insert(now);
        *end = end.clamp(now, now + at_once + apart * WAITING);
        let wait = (*end - at_once - now).max(0.0);
        *end += apart;
        Duration::from_millis(wait.ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(turns: &Turns, rate: f64, now: i64, count: usize) -> Vec<u128> {
        let take = |_| turns.take("a", rate, Timestamp(now)).as_millis();
        (0..count).map(take).collect()
    }

    #[test]
    fn a_second_s_worth_goes_at_once_and_the_rest_is_spread() {
        let turns = Turns::default();
        assert_eq!(waits(&turns, 4.0, 1_000, 6), [0, 0, 0, 0, 250, 500]);
        assert_eq!(turns.take("b", 4.0, Timestamp(1_000)), Duration::ZERO);
        assert_eq!(waits(&turns, 4.0, 1_750, 1), [0]);
        assert_eq!(waits(&turns, 4.0, 60_000, 5), [0, 0, 0, 0, 250]);
    }

    #[test]
    fn less_than_one_a_second_waits_from_the_second_on() {
        let turns = Turns::default();
        assert_eq!(waits(&turns, 0.1, 0, 3), [0, 10_000, 20_000]);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_stop_the_calls() {
        let turns = Turns::default();
        assert_eq!(waits(&turns, 1.0, 3_600_000, 1), [0]);
        assert_eq!(waits(&turns, 1.0, 0, 1), [64_000]);
        assert_eq!(waits(&turns, f64::NAN, 0, 1), [0]);
    }
}
