//! Answers that come when nobody waits for them any more, calls that overlap, and clocks that are set back (R14, R16, R20).

use super::*;

impl Desk {
    async fn ask_unlock(&self) -> String {
        let permit: Permit<Unlock> = self.permit(SERIAL).await;
        let new = NewUnlock {
            serial: serial(SERIAL),
            reason: "returned".to_owned(),
            requester: "desk@example.org".to_owned(),
            insists: false,
            urgent: false,
            idempotency: None,
        };
        match self
            .escrow
            .operations()
            .enqueue(&permit, new)
            .await
            .unwrap()
        {
            operations::Enqueued::New(view) => view.id,
            other => panic!("{other:?}"),
        }
    }

    async fn begin_unlock(&self) -> operations::Begun {
        let mut lease = self.claim().await;
        match self
            .escrow
            .operations()
            .advance(&mut lease, &settings())
            .await
            .unwrap()
        {
            operations::Advance::Call(begun) => *begun,
            _ => panic!("there is nothing to call with"),
        }
    }

    /// An unlock whose process freezes in the middle of a call, and that is then cancelled.
    async fn frozen_unlock(&self) -> (String, operations::Begun) {
        let id = self.ask_unlock().await;
        let frozen = self.begin_unlock().await;
        self.clock.advance(Duration::from_secs(91));
        let operations = self.escrow.operations();
        let mut lease = self.claim().await;
        operations.advance(&mut lease, &settings()).await.unwrap();
        let permit: Permit<Unlock> = self.permit(SERIAL).await;
        operations.cancel(&permit, &id).await.unwrap();
        self.clock.advance(Duration::from_secs(1));
        (id, frozen)
    }

    async fn finish_unlock(&self, begun: &operations::Begun, outcome: Outcome) {
        let answer = operations::Answer::default();
        self.escrow
            .operations()
            .finish(&begun.ticket, outcome, answer)
            .await
            .unwrap();
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn r20_a_late_success_does_not_bring_back_a_lock_that_was_turned_off_since() {
    let desk = Desk::new().await;
    desk.certificate().await;
    desk.lock(SERIAL).await;
    let frozen = desk.begin().await;
    desk.clock.advance(Duration::from_secs(91));
    let mut lease = desk.claim().await;
    desk.advance(&mut lease).await;
    desk.clock.advance(Duration::from_secs(60));
    let second = desk.begin().await;
    desk.finish(&second, LockOutcome::AlreadyLocked).await;
    desk.clock.advance(Duration::from_secs(60));
    desk.unlock_with(|_| Outcome::Unlocked).await;
    assert_eq!(desk.standing().await.0, OurLock::None);
    desk.clock.advance(Duration::from_secs(60));
    desk.finish(&frozen, LockOutcome::Locked).await;
    assert_eq!(desk.standing().await.0, OurLock::None);
}

#[tokio::test]
async fn r20_a_late_unlock_does_not_take_away_a_lock_that_went_on_since() {
    let desk = Desk::new().await;
    desk.certificate().await;
    desk.add_code(CODE_B, CodeKind::Server).await;
    let (_, frozen) = desk.frozen_unlock().await;
    desk.lock_answered(LockOutcome::Locked).await;
    assert_eq!(desk.standing().await.0, OurLock::Confirmed);
    desk.finish_unlock(&frozen, Outcome::Unlocked).await;
    assert_eq!(
        desk.standing().await.0,
        OurLock::Confirmed,
        "Apple accepted another code before it locked with this one"
    );
}

#[tokio::test]
async fn r16_a_lock_and_an_unlock_under_way_at_once_are_both_marked() {
    let desk = Desk::new().await;
    desk.certificate().await;
    desk.add_code(CODE_A, CodeKind::Device).await;
    let (unlock, frozen) = desk.frozen_unlock().await;
    let lock = desk.lock(SERIAL).await;
    let begun = desk.begin().await;
    desk.finish_unlock(&frozen, Outcome::Refused).await;
    assert!(desk.view(&lock).await.double_sent);
    let read = desk.permit(SERIAL).await;
    let view = desk
        .escrow
        .operations()
        .get(&read, &unlock)
        .await
        .unwrap()
        .unwrap();
    assert!(view.double_sent);
    desk.finish(&begun, LockOutcome::Locked).await;

    // The other way round.
    let desk = Desk::new().await;
    desk.certificate().await;
    desk.add_code(CODE_A, CodeKind::Device).await;
    let lock = desk.lock(SERIAL).await;
    let frozen = desk.begin().await;
    desk.clock.advance(Duration::from_secs(91));
    let mut lease = desk.claim().await;
    desk.advance(&mut lease).await;
    desk.cancel(&lock).await;
    desk.clock.advance(Duration::from_secs(1));
    let unlock = desk.ask_unlock().await;
    let begun = desk.begin_unlock().await;
    desk.finish(&frozen, LockOutcome::Locked).await;
    assert!(desk.view(&lock).await.double_sent);
    let read = desk.permit(SERIAL).await;
    let view = desk
        .escrow
        .operations()
        .get(&read, &unlock)
        .await
        .unwrap()
        .unwrap();
    assert!(view.double_sent);
    desk.finish_unlock(&begun, Outcome::Refused).await;
    assert_eq!(desk.standing().await.0, OurLock::Confirmed);
}

#[tokio::test]
async fn r20_a_clock_that_is_set_back_leaves_the_order_of_what_happened() {
    let desk = Desk::new().await;
    desk.certificate().await;
    desk.lock_answered(LockOutcome::Locked).await;
    desk.clock.set(desk.now().minus(HOUR));
    desk.unlock_with(|_| Outcome::Unlocked).await;
    assert_eq!(
        desk.standing().await.0,
        OurLock::None,
        "unlocked after it was locked"
    );
    desk.clock.set(desk.now().minus(HOUR));
    desk.lock_answered(LockOutcome::Locked).await;
    assert_eq!(
        desk.standing().await.0,
        OurLock::Confirmed,
        "locked after it was unlocked"
    );
}

#[tokio::test]
async fn r20_a_clock_that_is_set_back_between_two_runs_leaves_the_order_too() {
    let mut desk = Desk::new().await;
    desk.certificate().await;
    desk.lock_answered(LockOutcome::Locked).await;
    let clock = desk.clock.clone();
    let earlier = desk.now().minus(HOUR);
    desk.vault.reopen(|_| clock.set(earlier)).await;
    desk.unlock_with(|_| Outcome::Unlocked).await;
    assert_eq!(desk.standing().await.0, OurLock::None);
}

#[tokio::test]
async fn r13_a_clock_that_is_set_back_does_not_forget_what_was_tried() {
    let desk = Desk::new().await;
    desk.lock(SERIAL).await;
    desk.clock.advance(Duration::from_secs(1));
    let mut lease = desk.claim().await;
    desk.clock.set(desk.now().minus(Duration::from_secs(600)));
    let Advance::Call(begun) = desk.advance(&mut lease).await else {
        panic!("a call")
    };
    assert_eq!(
        desk.finish(&begun, LockOutcome::NotAccessible).await,
        Finished::Parked(StateName::Refused)
    );

    let desk = Desk::new().await;
    desk.certificate().await;
    desk.add_code(CODE_A, CodeKind::Device).await;
    desk.ask_unlock().await;
    desk.clock.advance(Duration::from_secs(1));
    let mut lease = desk.claim().await;
    desk.clock.set(desk.now().minus(Duration::from_secs(600)));
    let operations = desk.escrow.operations();
    let operations::Advance::Call(begun) =
        operations.advance(&mut lease, &settings()).await.unwrap()
    else {
        panic!("a call")
    };
    let answer = operations::Answer::default();
    assert_eq!(
        operations
            .finish(&begun.ticket, Outcome::Unknown, answer)
            .await
            .unwrap(),
        operations::Finished::Parked(StateName::Waiting),
        "the next try waits"
    );
}

#[tokio::test]
async fn r16_a_lock_and_an_unlock_of_two_organisations_are_not_under_way_at_once_either() {
    let desk = Desk::new().await;
    let made = desk
        .escrow
        .organisations()
        .create(&desk.actor, "The next owner")
        .await;
    let escrow::organisations::Created::New(other) = made.unwrap() else {
        panic!("it is new")
    };
    let id = desk.lock(SERIAL).await;
    let permit: Permit<Unlock> = desk
        .escrow
        .authorise(&desk.actor, &other.id, SERIAL)
        .await
        .unwrap();
    let new = NewUnlock {
        serial: serial(SERIAL),
        reason: "bought".to_owned(),
        requester: "desk@example.org".to_owned(),
        insists: false,
        urgent: false,
        idempotency: None,
    };
    let asked = desk
        .escrow
        .operations()
        .enqueue(&permit, new)
        .await
        .unwrap();
    let operations::Enqueued::LiveElsewhere(live) = asked else {
        panic!("{asked:?}")
    };
    assert_eq!(live.id, None, "whose it is, is not told");
    desk.cancel(&id).await;
}
