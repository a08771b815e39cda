//! What of a call cannot be seen from outside: that no answer is lost.

use std::cell::Cell;

use activation_lock::operation::StateName;
use escrow::clock::ManualClock;
use escrow::operations::Finished;

use super::super::tests::pass_time;
use super::*;

/// Fails so often, then succeeds. Gives what came of it, after how many tries, and when.
async fn recorded(failures: u32, fault: Fault, ending: bool) -> (bool, u32, Timestamp) {
    let clock = ManualClock::new(Timestamp(0));
    let (ask, shutdown) = Shutdown::new();
    ask.send(ending).unwrap();
    let tries = Cell::new(0);
    let finish = || {
        tries.set(tries.get() + 1);
        let fails = tries.get() <= failures;
        let fault = fault.clone();
        async move {
            match fails {
                true => Err(escrow::Error::Database(fault)),
                false => Ok(Finished::Parked(StateName::Unlocked)),
            }
        }
    };
    let finished = tokio::select! {
        finished = until_recorded(&clock, &shutdown, "a test", finish) => finished,
        () = pass_time(&clock) => None,
    };
    (finished.is_some(), tries.get(), clock.now())
}

fn full() -> Fault {
    Fault::Commit("database or disk is full".to_owned())
}

#[tokio::test]
async fn r14_an_answer_is_recorded_however_long_the_database_fails() {
    let (recorded, tries, at) = recorded(1_000, full(), false).await;
    assert!(recorded && tries == 1_001);
    assert!(at > Timestamp(8 * 60 * 60 * 1000), "{at:?}");
}

#[tokio::test]
async fn a_server_that_is_to_end_tries_for_a_few_seconds() {
    assert_eq!(
        recorded(10, full(), true).await,
        (true, 11, Timestamp(2_500))
    );
    assert_eq!(
        recorded(11, full(), true).await,
        (false, 11, Timestamp(2_500))
    );
}

#[tokio::test]
async fn what_no_waiting_mends_is_given_up() {
    let broken = Fault::Panicked { verb: "test" };
    assert_eq!(recorded(1_000, broken, false).await.1, 11);
    assert_eq!(
        recorded(1_000, Fault::Closed, false).await,
        (false, 1, Timestamp(0))
    );
}
