//! Apple's own status: kept as it came, read again until it agrees, and otherwise seldom (T31).

use activation_lock::lock::{AppleStatus, LockType};
use escrow::lock_statuses::Expected;

use super::*;

impl Desk {
    async fn status(&self) -> escrow::lock_statuses::StatusView {
        self.device(SERIAL).await.status
    }

    async fn due(&self) -> usize {
        self.escrow.lock_statuses().due(10).await.unwrap().0.len()
    }
}

#[tokio::test]
async fn t31_what_nobody_described_is_kept_as_it_came_and_concluded_from_in_nothing() {
    let desk = Desk::new().await;
    desk.account().await;
    let odd = AppleStatus {
        is_locked: Some(true),
        lock_type: Some(LockType::from_text("LOST_MODE")),
    };
    let more = Some("{\"lockedBy\":\"x\"}".to_owned());
    let reading = StatusReading::Said {
        status: odd.clone(),
        more: more.clone(),
    };
    desk.read(reading).await;
    let last = desk.status().await.last.unwrap();
    assert_eq!((last.status, last.more), (odd, more));
    assert_eq!(desk.standing().await, (OurLock::None, Evidence::Nothing));
    desk.read(StatusReading::Problem("internal_state")).await;
    let status = desk.status().await;
    assert_eq!(status.problem.as_deref(), Some("internal_state"));
    assert!(status.last.is_some(), "a problem takes nothing away");
    assert_eq!(
        desk.standing().await.0,
        OurLock::None,
        "and it is not \"unlocked\""
    );
}

#[tokio::test]
async fn t31_the_same_status_again_is_one_entry_with_two_times() {
    let desk = Desk::new().await;
    desk.account().await;
    desk.apple_says(true, LockType::User).await;
    let first = desk.status().await.last.unwrap();
    desk.clock.advance(DAY);
    desk.apple_says(true, LockType::User).await;
    let second = desk.status().await.last.unwrap();
    assert_eq!(first.first_at, second.first_at);
    assert!(second.last_at > first.last_at);
    desk.apple_says(false, LockType::None).await;
    let changes = desk.device(SERIAL).await.timeline;
    let said: Vec<&str> = changes
        .iter()
        .filter(|line| line.what == "status.changed")
        .map(|line| line.details.as_str())
        .collect();
    assert_eq!(said, ["Apple says NONE", "Apple says USER"]);
}

#[tokio::test]
async fn after_a_lock_the_status_is_read_until_it_agrees() {
    let desk = Desk::new().await;
    desk.account().await;
    desk.apple_says(false, LockType::None).await;
    assert_eq!(desk.due().await, 0);
    desk.lock_answered(LockOutcome::Locked).await;
    assert_eq!(desk.due().await, 0, "Apple needs a moment");
    desk.clock.advance(Duration::from_secs(60));
    assert_eq!(desk.due().await, 1);
    desk.apple_says(false, LockType::None).await;
    let status = desk.status().await;
    assert_eq!(
        status.expected.map(|(expected, _)| expected),
        Some(Expected::Locked)
    );
    assert_eq!(
        desk.standing().await.0,
        OurLock::Confirmed,
        "a late status takes nothing back"
    );
    desk.clock.advance(Duration::from_secs(61));
    assert_eq!(desk.due().await, 1, "it is read again soon");
    desk.apple_says(true, LockType::Mdm).await;
    assert_eq!(desk.status().await.expected, None);
    assert_eq!(desk.due().await, 0);
    desk.clock.advance(31 * DAY);
    assert_eq!(desk.due().await, 1, "and otherwise once in a long while");
}

#[tokio::test]
async fn a_status_that_never_agrees_is_believed_after_a_time_and_put_on_record() {
    let desk = Desk::new().await;
    desk.account().await;
    desk.lock_answered(LockOutcome::Locked).await;
    desk.clock.advance(Duration::from_secs(60));
    desk.apple_says(false, LockType::None).await;
    desk.clock.advance(StatusSettings::default().settles_in);
    desk.apple_says(false, LockType::None).await;
    assert_eq!(desk.status().await.expected, None);
    assert_eq!(desk.standing().await, (OurLock::None, Evidence::Status));
    let rows = audit_texts(&desk).await;
    assert!(
        rows.iter()
            .any(|row| row.contains("\"result\":\"disagrees\""))
    );
    assert_eq!(desk.server_codes().await.len(), 1);
}

#[tokio::test]
async fn without_an_account_nothing_is_due() {
    let desk = Desk::new().await;
    assert_eq!(desk.due().await, 0);
    assert!(!desk.status().await.can_be_asked);
    desk.account().await;
    assert!(desk.status().await.can_be_asked);
    assert_eq!(desk.due().await, 1);
    let account = desk.escrow.business_apis().all().await.unwrap().remove(0);
    let later = desk.now().plus(Duration::from_secs(30));
    let problem = Some("too many requests".to_owned());
    desk.escrow
        .business_apis()
        .note(&account, problem, Some(later))
        .await
        .unwrap();
    let (due, next) = desk.escrow.lock_statuses().due(10).await.unwrap();
    assert_eq!((due.len(), next), (0, Some(later)));
}

#[tokio::test]
async fn r20_a_status_that_may_be_late_takes_away_no_lock_while_another_is_waited_for() {
    let desk = Desk::new().await;
    desk.account().await;
    let (_, hash) = desk.lock_answered(LockOutcome::Locked).await;
    desk.clock.advance(Duration::from_secs(60));
    desk.apple_says(false, LockType::None).await;
    desk.clock.advance(Duration::from_secs(10 * 60));
    desk.apple_says(false, LockType::None).await;
    assert!(
        desk.status().await.expected.is_some(),
        "it is put down to its being late"
    );
    assert_eq!(
        desk.standing().await,
        (OurLock::Confirmed, Evidence::Success)
    );
    let (_, next) = desk.lock_answered(LockOutcome::AlreadyLocked).await;
    assert!(next == hash);
    assert_eq!(desk.standing().await.0, OurLock::Confirmed);
}

#[tokio::test]
async fn r4_a_lock_without_an_answer_keeps_its_code_also_once_apple_says_that_none_is_on() {
    let desk = Desk::new().await;
    desk.account().await;
    let (id, hash) = desk.lock_answered(LockOutcome::Unknown).await;
    desk.cancel(&id).await;
    desk.clock.advance(Duration::from_secs(11 * 60));
    desk.apple_says(false, LockType::None).await;
    desk.clock.advance(StatusSettings::default().settles_in);
    desk.apple_says(false, LockType::None).await;
    assert_eq!(desk.standing().await.0, OurLock::None);
    let (_, next) = desk.lock_answered(LockOutcome::AlreadyLocked).await;
    assert!(next == hash, "the next request uses it again");
    assert_eq!(
        desk.standing().await.0,
        OurLock::Unknown,
        "it may be that lock"
    );
    assert_eq!(desk.server_codes().await.len(), 1);
}

#[tokio::test]
async fn r12_none_a_minute_after_our_own_lock_ends_no_unlock() {
    let desk = Desk::new().await;
    desk.certificate().await;
    desk.account().await;
    desk.lock_answered(LockOutcome::Locked).await;
    desk.clock.advance(Duration::from_secs(60));
    let permit: Permit<Unlock> = desk.permit(SERIAL).await;
    let new = NewUnlock {
        serial: serial(SERIAL),
        reason: "returned".to_owned(),
        requester: "desk@example.org".to_owned(),
        insists: false,
        urgent: false,
        idempotency: None,
    };
    let operations = desk.escrow.operations();
    operations.enqueue(&permit, new).await.unwrap();
    let mut lease = desk.claim().await;
    let next = operations.advance(&mut lease, &settings()).await.unwrap();
    assert!(matches!(next, operations::Advance::AskStatus));
    let none = StatusReading::Said {
        status: AppleStatus {
            is_locked: Some(false),
            lock_type: Some(LockType::None),
        },
        more: None,
    };
    let waits = StatusSettings::default();
    operations.status_read(&lease, none, waits).await.unwrap();
    let next = operations.advance(&mut lease, &settings()).await.unwrap();
    assert!(
        matches!(next, operations::Advance::Call(_)),
        "it is locked, and its code is held: what Apple says may be of the time before"
    );
}

#[tokio::test]
async fn a_wait_that_ends_without_an_answer_is_no_disagreement() {
    let desk = Desk::new().await;
    desk.account().await;
    desk.lock_answered(LockOutcome::Locked).await;
    desk.clock.advance(Duration::from_secs(60));
    desk.read(StatusReading::Problem("unavailable")).await;
    desk.clock.advance(StatusSettings::default().settles_in);
    desk.read(StatusReading::Problem("unavailable")).await;
    assert_eq!(desk.status().await.expected, None);
    let rows = audit_texts(&desk).await;
    assert!(!rows.iter().any(|row| row.contains("disagrees")));
}

#[tokio::test]
async fn how_long_a_status_is_waited_for_can_be_set() {
    let desk = Desk::new().await;
    desk.account().await;
    desk.lock_answered(LockOutcome::Locked).await;
    let settings = StatusSettings {
        settles_in: Duration::from_secs(60 * 60),
        ..StatusSettings::default()
    };
    let says_none = async || {
        let none = StatusReading::Said {
            status: AppleStatus {
                is_locked: Some(false),
                lock_type: Some(LockType::None),
            },
            more: None,
        };
        let statuses = desk.escrow.lock_statuses();
        statuses
            .record(&desk.organisation, &serial(SERIAL), none, settings)
            .await
            .unwrap();
    };
    for minutes in [1, 30, 29] {
        desk.clock.advance(Duration::from_secs(60 * minutes));
        says_none().await;
        assert_eq!(desk.standing().await.0, OurLock::Confirmed);
    }
    desk.clock.advance(Duration::from_secs(60));
    says_none().await;
    assert_eq!(desk.standing().await, (OurLock::None, Evidence::Status));
}

#[tokio::test]
async fn an_account_is_shown_opened_and_removed_and_what_apple_said_stays() {
    let desk = Desk::new().await;
    desk.account().await;
    desk.apple_says(true, LockType::User).await;
    let read = desk.permit("account").await;
    let apis = desk.escrow.business_apis();
    assert!(apis.get(&read).await.unwrap().is_some());
    let opened = apis.open(&desk.organisation).await.unwrap().unwrap();
    assert_eq!(opened.private_key.as_str(), "a key");
    let may = desk.permit("account").await;
    assert!(apis.remove(&may).await.unwrap());
    assert!(!apis.remove(&may).await.unwrap());
    assert!(apis.get(&read).await.unwrap().is_none());
    assert!(apis.open(&desk.organisation).await.unwrap().is_none());
    let statuses = desk.escrow.lock_statuses();
    let status = statuses.of_device(&read, &serial(SERIAL)).await.unwrap();
    assert!(status.last.is_some());
}
