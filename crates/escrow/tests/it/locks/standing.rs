//! How our lock stands, and what that means for an unlock (R12, R20).

use activation_lock::lock::{AppleStatus, LockType};
use escrow::business_apis::NewBusinessApi;

use super::*;

impl Desk {
    pub(super) async fn account(&self) {
        let permit = self.permit("business api").await;
        let new = NewBusinessApi {
            client_id: "BUSINESSAPI.test".to_owned(),
            key_id: "key".to_owned(),
            private_key: "a key".to_owned().into(),
        };
        let apis = self.escrow.business_apis();
        apis.put(&permit, new).await.unwrap();
    }

    pub(super) async fn apple_says(&self, is_locked: bool, lock_type: LockType) {
        let reading = StatusReading::Said {
            status: AppleStatus {
                is_locked: Some(is_locked),
                lock_type: Some(lock_type),
            },
            more: None,
        };
        self.read(reading).await;
    }

    pub(super) async fn read(&self, reading: StatusReading) {
        let statuses = self.escrow.lock_statuses();
        let settings = StatusSettings::default();
        statuses
            .record(&self.organisation, &serial(SERIAL), reading, settings)
            .await
            .unwrap();
        self.clock.advance(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn r12_a_lock_of_ours_that_may_be_live_puts_its_code_first_and_someone_elses_the_devices() {
    for (outcome, server_first) in [
        (LockOutcome::Locked, true),
        (LockOutcome::Unknown, true),
        (LockOutcome::AlreadyLocked, false),
        (LockOutcome::NotAccessible, false),
    ] {
        let desk = Desk::new().await;
        desk.certificate().await;
        desk.add_code(CODE_A, CodeKind::Device).await;
        let (id, _) = desk.lock_answered(outcome).await;
        desk.cancel(&id).await;
        let code = desk.server_codes().await.remove(0).0;
        let sent = desk.unlock_order().await;
        let wanted = if server_first {
            [&code, CODE_A]
        } else {
            [CODE_A, &code]
        };
        assert!(same(&sent, &wanted), "{outcome}");
    }
}

#[tokio::test]
async fn r12_apples_status_decides_which_codes_come_first() {
    for (lock_type, server_first) in [(LockType::Mdm, true), (LockType::User, false)] {
        let desk = Desk::new().await;
        desk.certificate().await;
        desk.account().await;
        desk.add_code(CODE_A, CodeKind::Device).await;
        desk.add_code(CODE_B, CodeKind::Server).await;
        desk.apple_says(true, lock_type.clone()).await;
        let sent = desk.unlock_order().await;
        let wanted = if server_first {
            [CODE_B, CODE_A]
        } else {
            [CODE_A, CODE_B]
        };
        assert!(same(&sent, &wanted), "{lock_type:?}");
    }
}

#[tokio::test]
async fn r12_a_status_that_was_overtaken_or_is_old_guides_nothing() {
    let desk = Desk::new().await;
    desk.certificate().await;
    desk.account().await;
    desk.add_code(CODE_A, CodeKind::Device).await;
    desk.add_code(CODE_B, CodeKind::Server).await;
    desk.apple_says(true, LockType::User).await;
    desk.clock.advance(2 * DAY);
    assert!(
        same(&desk.unlock_order().await, &[CODE_B, CODE_A]),
        "the newest first"
    );

    let desk = Desk::new().await;
    desk.certificate().await;
    desk.account().await;
    desk.add_code(CODE_A, CodeKind::Device).await;
    desk.apple_says(true, LockType::User).await;
    desk.unlock_with(|_| Outcome::Unlocked).await;
    desk.lock_answered(LockOutcome::Locked).await;
    let code = desk.server_codes().await.remove(0).0;
    assert!(
        same(&desk.unlock_order().await, &[&code, CODE_A]),
        "the lock is newer than the status"
    );
}

#[tokio::test]
async fn r20_already_locked_is_someone_elses_only_where_no_earlier_call_is_unknown_or_apple_says_user()
 {
    let desk = Desk::new().await;
    desk.account().await;
    desk.lock_answered(LockOutcome::AlreadyLocked).await;
    assert_eq!(desk.standing().await.0, OurLock::SomeoneElses);

    let desk = Desk::new().await;
    desk.account().await;
    let (id, _) = desk.lock_answered(LockOutcome::Unknown).await;
    desk.clock.advance(Duration::from_secs(60));
    let begun = desk.begin().await;
    desk.finish(&begun, LockOutcome::AlreadyLocked).await;
    let view = desk.view(&id).await;
    assert_eq!(view.state, StateName::AlreadyLocked);
    assert_eq!(view.details.ours, Some(OurLock::Unknown));
    assert_eq!(desk.standing().await.0, OurLock::Unknown);
    desk.clock.advance(Duration::from_secs(15 * 60));
    desk.apple_says(true, LockType::User).await;
    assert_eq!(
        desk.standing().await,
        (OurLock::SomeoneElses, Evidence::Status)
    );
    assert_eq!(
        desk.server_codes().await[0].1,
        "unknown",
        "its code is worth trying for ever"
    );
}

#[tokio::test]
async fn r15_a_200_with_the_server_code_ends_locked_by_us() {
    let desk = Desk::new().await;
    desk.certificate().await;
    desk.lock_answered(LockOutcome::Locked).await;
    desk.unlock_with(|_| Outcome::Unlocked).await;
    assert_eq!(desk.standing().await, (OurLock::None, Evidence::TurnedOff));
    let codes = desk.server_codes().await;
    assert_eq!(
        (codes.len(), codes[0].1.as_str()),
        (1, "none"),
        "it is kept (R2)"
    );
}

#[tokio::test]
async fn r12_none_from_apple_ends_an_unlock_as_not_locked() {
    let desk = Desk::new().await;
    desk.certificate().await;
    desk.account().await;
    desk.add_code(CODE_A, CodeKind::Device).await;
    let permit: Permit<Unlock> = desk.permit(SERIAL).await;
    let new = NewUnlock {
        serial: serial(SERIAL),
        reason: "returned".to_owned(),
        requester: "desk@example.org".to_owned(),
        insists: false,
        urgent: false,
        idempotency: None,
    };
    desk.escrow
        .operations()
        .enqueue(&permit, new)
        .await
        .unwrap();
    let mut lease = desk.claim().await;
    let operations = desk.escrow.operations();
    let next = operations.advance(&mut lease, &settings()).await.unwrap();
    assert!(matches!(next, operations::Advance::AskStatus));
    desk.clock.advance(Duration::from_secs(1));
    let none = StatusReading::Said {
        status: AppleStatus {
            is_locked: Some(false),
            lock_type: Some(LockType::None),
        },
        more: None,
    };
    operations
        .status_read(&lease, none, StatusSettings::default())
        .await
        .unwrap();
    let next = operations.advance(&mut lease, &settings()).await.unwrap();
    assert!(matches!(
        next,
        operations::Advance::Parked(StateName::NotLocked)
    ));
}

#[tokio::test]
async fn r20_devices_whose_lock_nobody_knows_are_listed() {
    let desk = Desk::new().await;
    let permit: Permit<escrow::permit::Read> = desk.permit("today").await;
    let locks = desk.escrow.locks();
    assert!(locks.unknown(&permit, 8).await.unwrap().is_empty());
    desk.lock_answered(LockOutcome::Unknown).await;
    assert_eq!(locks.unknown(&permit, 8).await.unwrap(), [serial(SERIAL)]);
}
