//! Locks on record: what R4, R16, R20 and R21 ask of rows, of the lock journal, and of answers that do not come.

use std::time::Duration;

use activation_lock::bypass_code::{BypassCode, EscrowKeyHash};
use activation_lock::codes::{CodeKind, CodeText};
use activation_lock::device::SerialNumber;
use activation_lock::lock::{
    Evidence, LOCK_DEADLINE, LockOutcome, OurLock, ResponseStatus, ReviewReason,
    TRIES_AFTER_FAILED, WaitReason,
};
use activation_lock::operation::StateName;
use activation_lock::time::DAY;
use activation_lock::unlock::Outcome;
use escrow::codes::TypedCode;
use escrow::devices::{Corrections, DeviceView};
use escrow::lock_statuses::{Reading as StatusReading, StatusSettings};
use escrow::locks::{
    Advance, Answer, Begun, Cancelled, Enqueued, Finished, LockView, NewLock, Resumed,
};
use escrow::operations::{self, Claim, Kind, Lease, LiveElsewhere, NewUnlock, WorkSettings};
use escrow::pace::Rate;
use escrow::permit::{Lock, Permit, Unlock};
use escrow::push_certificates::NewPushCertificate;
use escrow::server_tokens::{Access, NewServerToken, Problem, ServerTokenView};

use crate::beside::audit_texts;
use crate::support::{CODE_A, CODE_B, Vault};

mod failover;
mod journal;
mod late;
mod listing;
mod purge;
mod standing;
mod statuses;
mod tokens;
mod wishes;

const SERIAL: &str = "C02XL0GTJGH5";

fn serial(text: &str) -> SerialNumber {
    text.parse().unwrap()
}

fn settings() -> WorkSettings {
    WorkSettings {
        owner: "one".to_owned(),
        call_timeout: Duration::from_secs(60),
        in_flight: 8,
        pace: Rate::per_second(0.0),
        apple_host: "deviceservices-external.apple.com".to_owned(),
        enrolment_host: "mdmenrollment.apple.com".to_owned(),
    }
}

/// A vault with a server token, a push certificate and one device.
struct Desk {
    vault: Vault,
    token: ServerTokenView,
}

impl std::ops::Deref for Desk {
    type Target = Vault;
    fn deref(&self) -> &Vault {
        &self.vault
    }
}

impl Desk {
    async fn new() -> Self {
        Self::of(Vault::new().await).await
    }

    async fn of(vault: Vault) -> Self {
        let token = put_token(&vault, "main").await;
        let desk = Self { vault, token };
        desk.know(SERIAL).await;
        desk
    }

    async fn know(&self, name: &str) {
        let set = Corrections {
            product_type: "iPad4,1".parse().ok(),
            ..Corrections::default()
        };
        let permit = self.permit(name).await;
        self.escrow
            .devices()
            .correct(&permit, &serial(name), &set)
            .await
            .unwrap();
    }

    async fn certificate(&self) {
        let permit = self.permit("push certificate").await;
        let new = NewPushCertificate {
            topic: "com.apple.mgmt.External.test".to_owned(),
            fingerprint: "aa".to_owned(),
            subject: "a test".to_owned(),
            not_before: self.now().minus(DAY),
            not_after: self.now().plus(300 * DAY),
            pem: "a certificate".to_owned().into(),
        };
        self.escrow
            .push_certificates()
            .add(&permit, new)
            .await
            .unwrap();
    }

    async fn add_code(&self, code: &str, kind: CodeKind) {
        self.clock.advance(Duration::from_secs(1));
        let permit = self.permit(SERIAL).await;
        let typed = TypedCode {
            serial: serial(SERIAL),
            text: CodeText::new(code.to_owned()).unwrap(),
            kind,
            note: None,
        };
        self.escrow.codes().add_typed(&permit, typed).await.unwrap();
    }

    fn wish(&self, name: &str) -> NewLock {
        NewLock {
            serial: serial(name),
            reason: "lost".to_owned(),
            requester: "desk@example.org".to_owned(),
            message: None,
            server_token: None,
            override_reason: Some("a test: no list was read".to_owned()),
            urgent: false,
            idempotency: None,
        }
    }

    async fn may_lock(&self) -> Permit<Lock> {
        self.permit(SERIAL).await
    }

    async fn ask(&self, wish: NewLock) -> Enqueued {
        self.escrow
            .locks()
            .enqueue(&self.may_lock().await, wish)
            .await
            .unwrap()
    }

    async fn lock(&self, name: &str) -> String {
        match self.ask(self.wish(name)).await {
            Enqueued::New(view) => view.id,
            other => panic!("it is new: {other:?}"),
        }
    }

    async fn view(&self, id: &str) -> LockView {
        let permit = self.permit(id).await;
        let view = self.escrow.locks().get(&permit, id).await.unwrap();
        view.expect("it is there")
    }

    async fn claim(&self) -> Lease {
        match self.escrow.operations().claim(&settings()).await.unwrap() {
            Claim::Lease(lease) => lease,
            Claim::Nothing { look_again_at } => {
                panic!("something is due, and not only at {look_again_at:?}")
            }
        }
    }

    async fn advance(&self, lease: &mut Lease) -> Advance {
        let locks = self.escrow.locks();
        locks.advance(lease, &settings()).await.unwrap()
    }

    /// Begins the call that is next of what is due.
    async fn begin(&self) -> Begun {
        let mut lease = self.claim().await;
        assert_eq!(lease.kind(), Kind::Lock);
        match self.advance(&mut lease).await {
            Advance::Call(begun) => *begun,
            other => panic!("a call is next: {}", name_of(&other)),
        }
    }

    async fn finish(&self, begun: &Begun, outcome: LockOutcome) -> Finished {
        let locks = self.escrow.locks();
        let answer = Answer::default();
        locks.finish(&begun.ticket, outcome, answer).await.unwrap()
    }

    /// Locks the device with one call that is answered so. Gives the lock and the hash that was sent.
    async fn lock_answered(&self, outcome: LockOutcome) -> (String, EscrowKeyHash) {
        let id = self.lock(SERIAL).await;
        let begun = self.begin().await;
        self.finish(&begun, outcome).await;
        self.clock.advance(Duration::from_secs(1));
        (id, begun.escrow_key)
    }

    async fn cancel(&self, id: &str) -> Cancelled {
        let permit = self.may_lock().await;
        self.escrow.locks().cancel(&permit, id).await.unwrap()
    }

    async fn standing(&self) -> (OurLock, Evidence) {
        let lock = self.device(SERIAL).await.lock;
        (lock.state, lock.evidence)
    }

    /// The device's server codes as they are kept, oldest first, with the state of their locks.
    async fn server_codes(&self) -> Vec<(String, String)> {
        let mut codes = Vec::new();
        for revealed in self.reveal(SERIAL).await {
            if revealed.view.kind == CodeKind::Server {
                codes.push((
                    revealed.text.expose().to_owned(),
                    revealed.view.lock_state.clone(),
                ));
            }
        }
        codes
    }

    /// What an unlock would send, in order, when every code is refused.
    async fn unlock_order(&self) -> Vec<String> {
        let permit: Permit<Unlock> = self.permit(SERIAL).await;
        let new = NewUnlock {
            serial: serial(SERIAL),
            reason: "returned".to_owned(),
            requester: "desk@example.org".to_owned(),
            insists: false,
            urgent: false,
            idempotency: None,
        };
        let asked = self
            .escrow
            .operations()
            .enqueue(&permit, new)
            .await
            .unwrap();
        assert!(matches!(asked, operations::Enqueued::New(_)), "{asked:?}");
        self.work_on_unlock(|_| Outcome::Refused).await
    }

    /// Unlocks the device with this code, and gives the unlock.
    async fn work_unlock_with(&self, code: &str) -> String {
        let permit: Permit<Unlock> = self.permit(SERIAL).await;
        let new = NewUnlock {
            serial: serial(SERIAL),
            reason: "returned".to_owned(),
            requester: "desk@example.org".to_owned(),
            insists: false,
            urgent: false,
            idempotency: None,
        };
        let operations = self.escrow.operations();
        let asked = operations.enqueue(&permit, new).await.unwrap();
        let operations::Enqueued::New(view) = asked else {
            panic!("it is new: {asked:?}")
        };
        self.work_on_unlock(|sent| match sent == code {
            true => Outcome::Unlocked,
            false => Outcome::Refused,
        })
        .await;
        view.id
    }

    async fn work_on_unlock(&self, answer: impl Fn(&str) -> Outcome) -> Vec<String> {
        let (mut sent, mut lease) = (Vec::new(), self.claim().await);
        let operations = self.escrow.operations();
        loop {
            match operations.advance(&mut lease, &settings()).await.unwrap() {
                operations::Advance::Call(begun) => {
                    let code = begun.code.expose().to_owned();
                    let outcome = answer(&code);
                    sent.push(code);
                    let finished = operations
                        .finish(&begun.ticket, outcome, operations::Answer::default())
                        .await
                        .unwrap();
                    if finished != operations::Finished::More {
                        return sent;
                    }
                }
                operations::Advance::AskStatus => {
                    let nothing = StatusReading::Problem("unavailable");
                    operations
                        .status_read(&lease, nothing, StatusSettings::default())
                        .await
                        .unwrap();
                }
                _ => return sent,
            }
        }
    }
}

pub(crate) async fn put_token(vault: &Vault, name: &str) -> ServerTokenView {
    let permit = vault.permit("server token").await;
    let new = NewServerToken {
        name: name.to_owned(),
        access: Access::Apple {
            json: "{}".to_owned().into(),
            expires_at: vault.now().plus(300 * DAY),
            key: None,
        },
    };
    vault
        .escrow
        .server_tokens()
        .put(&permit, new)
        .await
        .unwrap()
}

fn name_of(advance: &Advance) -> String {
    match advance {
        Advance::Call(_) => "call".to_owned(),
        Advance::Paced { .. } => "paced".to_owned(),
        Advance::Parked(state) => format!("parked as {state}"),
        Advance::Lost => "lost".to_owned(),
    }
}

fn hash_of(text: &str) -> EscrowKeyHash {
    EscrowKeyHash::of(&BypassCode::parse(text).unwrap())
}

/// Whether two secret texts are the same, without an assertion that prints them.
fn same(sent: &[String], expected: &[&str]) -> bool {
    sent.iter().map(String::as_str).eq(expected.iter().copied())
}

#[tokio::test]
async fn t3_a_lock_that_apple_confirms_is_on_record_before_the_call_and_live_after_it() {
    let desk = Desk::new().await;
    let id = desk.lock(SERIAL).await;
    let begun = desk.begin().await;
    let codes = desk.server_codes().await;
    assert_eq!(codes.len(), 1);
    assert!(
        hash_of(&codes[0].0) == begun.escrow_key,
        "the code kept is the one sent"
    );
    assert_eq!(
        codes[0].1, "unknown",
        "it may be live from the moment it leaves"
    );
    assert_eq!(
        desk.standing().await,
        (OurLock::Unknown, Evidence::NoAnswer)
    );
    let call = desk.view(&id).await.calls.remove(0);
    assert_eq!(call.recipient, "mdmenrollment.apple.com");
    let rows = audit_texts(&desk).await;
    let row = rows
        .iter()
        .find(|t| t.contains("lock.call"))
        .expect("a row");
    assert!(row.contains("mdmenrollment.apple.com") && row.contains(begun.ticket.call()));

    let finished = desk.finish(&begun, LockOutcome::Locked).await;
    assert_eq!(finished, Finished::Parked(StateName::Locked));
    assert_eq!(desk.view(&id).await.state, StateName::Locked);
    assert_eq!(
        desk.standing().await,
        (OurLock::Confirmed, Evidence::Success)
    );
    assert_eq!(desk.server_codes().await[0].1, "confirmed");
}

#[tokio::test]
async fn t5_each_answer_leaves_its_own_state_and_keeps_the_code() {
    use LockOutcome as O;
    for (outcome, state, ours) in [
        (O::Locked, StateName::Locked, OurLock::Confirmed),
        (
            O::AlreadyLocked,
            StateName::AlreadyLocked,
            OurLock::SomeoneElses,
        ),
        (O::NotAccessible, StateName::Refused, OurLock::None),
        (O::OrgNotSupported, StateName::Refused, OurLock::None),
        (O::DeviceNotSupported, StateName::Refused, OurLock::None),
        (O::Failed, StateName::Waiting, OurLock::Unknown),
        (O::Undescribed, StateName::NeedsReview, OurLock::Unknown),
        (O::Malformed, StateName::NeedsReview, OurLock::None),
        (O::Credential, StateName::Waiting, OurLock::None),
        (O::TermsNotSigned, StateName::Waiting, OurLock::None),
        (O::AccessDenied, StateName::Waiting, OurLock::None),
        (O::Unavailable, StateName::Waiting, OurLock::None),
        (O::Unknown, StateName::Waiting, OurLock::Unknown),
        (O::Unexpected, StateName::NeedsReview, OurLock::Unknown),
    ] {
        let desk = Desk::new().await;
        let (id, _) = desk.lock_answered(outcome).await;
        assert_eq!(desk.view(&id).await.state, state, "{outcome}");
        assert_eq!(desk.standing().await.0, ours, "{outcome}");
        assert_eq!(desk.server_codes().await.len(), 1, "{outcome}");
    }
}

#[tokio::test]
async fn t5_apples_own_word_is_kept_verbatim() {
    let desk = Desk::new().await;
    let id = desk.lock(SERIAL).await;
    let begun = desk.begin().await;
    let answer = Answer {
        response_status: Some(ResponseStatus::from_text("LOCKED_SOMEHOW")),
        status: Some(200),
        ..Answer::default()
    };
    let outcome = LockOutcome::Undescribed;
    let locks = desk.escrow.locks();
    locks.finish(&begun.ticket, outcome, answer).await.unwrap();
    let view = desk.view(&id).await;
    assert_eq!(view.details.review, Some(ReviewReason::Undescribed));
    assert_eq!(
        view.calls[0].response_status.as_deref(),
        Some("LOCKED_SOMEHOW")
    );
    assert_eq!(view.calls[0].status, Some(200));
}

#[tokio::test]
async fn r4_the_same_code_is_sent_again_until_there_is_an_answer_and_by_the_next_request() {
    let desk = Desk::new().await;
    let (first, hash) = desk.lock_answered(LockOutcome::Unknown).await;
    desk.clock.advance(Duration::from_secs(60));
    let again = desk.begin().await;
    assert!(again.escrow_key == hash, "the retry has the same code");
    desk.finish(&again, LockOutcome::Failed).await;
    desk.cancel(&first).await;
    assert_eq!(desk.view(&first).await.state, StateName::Cancelled);
    assert_eq!(desk.standing().await.0, OurLock::Unknown);
    // A person sees it meanwhile: it stays the code of what may be locked.
    desk.server_codes().await;
    let (_, next) = desk.lock_answered(LockOutcome::AlreadyLocked).await;
    assert!(next == hash, "the next request has the same code");
    assert_eq!(
        desk.standing().await,
        (OurLock::Unknown, Evidence::AlreadyLocked)
    );
    assert_eq!(desk.server_codes().await.len(), 1);
}

#[tokio::test]
async fn r4_a_code_that_held_a_lock_or_was_seen_is_not_used_for_another() {
    let desk = Desk::new().await;
    desk.certificate().await;
    let (_, first) = desk.lock_answered(LockOutcome::Locked).await;
    desk.unlock_with(|_| Outcome::Unlocked).await;
    assert_eq!(desk.standing().await, (OurLock::None, Evidence::TurnedOff));
    let (_, second) = desk.lock_answered(LockOutcome::NotAccessible).await;
    assert!(first != second, "a lock that ended takes its code with it");
    let (_, third) = desk.lock_answered(LockOutcome::NotAccessible).await;
    assert!(
        second == third,
        "a code that never held anything is used up first"
    );
    desk.server_codes().await; // Somebody sees it.
    let (_, fourth) = desk.lock_answered(LockOutcome::Locked).await;
    assert!(
        third != fourth,
        "a code that was seen is not for a new lock"
    );
    let codes = desk.device(SERIAL).await.codes;
    let current: Vec<_> = codes.iter().filter(|code| code.current).collect();
    assert_eq!(current.len(), 1);
    assert_eq!(
        current[0].lock_state, "confirmed",
        "the newest is the current one"
    );
}

impl Desk {
    async fn unlock_with(&self, answer: impl Fn(&str) -> Outcome) {
        let permit: Permit<Unlock> = self.permit(SERIAL).await;
        let new = NewUnlock {
            serial: serial(SERIAL),
            reason: "returned".to_owned(),
            requester: "desk@example.org".to_owned(),
            insists: false,
            urgent: false,
            idempotency: None,
        };
        self.escrow
            .operations()
            .enqueue(&permit, new)
            .await
            .unwrap();
        self.work_on_unlock(answer).await;
        self.clock.advance(Duration::from_secs(1));
    }
}

#[tokio::test]
async fn t5_a_failed_ends_for_a_person_and_goes_on_with_the_same_code() {
    let desk = Desk::new().await;
    let (id, hash) = desk.lock_answered(LockOutcome::Failed).await;
    for _ in 1..TRIES_AFTER_FAILED {
        desk.clock.advance(Duration::from_secs(600));
        let begun = desk.begin().await;
        desk.finish(&begun, LockOutcome::Failed).await;
    }
    let view = desk.view(&id).await;
    assert_eq!(view.details.review, Some(ReviewReason::Failed));
    desk.clock.advance(Duration::from_secs(1));
    let permit = desk.may_lock().await;
    let resumed = desk.escrow.locks().resume(&permit, &id).await.unwrap();
    assert!(matches!(resumed, Resumed::Queued(_)));
    let begun = desk.begin().await;
    assert!(begun.escrow_key == hash);
    desk.finish(&begun, LockOutcome::Locked).await;
    assert_eq!(desk.standing().await.0, OurLock::Confirmed);
    let again = desk.escrow.locks().resume(&permit, &id).await.unwrap();
    assert!(matches!(again, Resumed::NotInReview(_)));
}

#[tokio::test]
async fn r15_a_lock_without_a_definite_answer_ends_after_an_hour_and_stays_unknown() {
    let desk = Desk::new().await;
    let (id, _) = desk.lock_answered(LockOutcome::Unknown).await;
    desk.clock.advance(LOCK_DEADLINE);
    let mut lease = desk.claim().await;
    let parked = desk.advance(&mut lease).await;
    assert!(matches!(parked, Advance::Parked(StateName::NeedsReview)));
    assert_eq!(
        desk.view(&id).await.details.review,
        Some(ReviewReason::Deadline)
    );
    assert_eq!(desk.standing().await.0, OurLock::Unknown);
}

#[tokio::test]
async fn r16_one_operation_a_device_and_the_second_is_told_of_the_first() {
    let desk = Desk::new().await;
    desk.certificate().await;
    desk.add_code(CODE_A, CodeKind::Device).await;
    let id = desk.lock(SERIAL).await;
    let same = desk.ask(desk.wish(SERIAL)).await;
    assert!(matches!(same, Enqueued::UnderWay(view) if view.id == id));
    let permit: Permit<Unlock> = desk.permit(SERIAL).await;
    let new = NewUnlock {
        serial: serial(SERIAL),
        reason: "returned".to_owned(),
        requester: "desk@example.org".to_owned(),
        insists: false,
        urgent: false,
        idempotency: None,
    };
    let asked = desk
        .escrow
        .operations()
        .enqueue(&permit, new.clone())
        .await
        .unwrap();
    let operations::Enqueued::LiveElsewhere(live) = asked else {
        panic!("a lock is live: {asked:?}")
    };
    let elsewhere = LiveElsewhere {
        kind: Kind::Lock,
        id: Some(id.clone()),
    };
    assert_eq!(live, elsewhere);
    desk.cancel(&id).await;
    let asked = desk
        .escrow
        .operations()
        .enqueue(&permit, new)
        .await
        .unwrap();
    let operations::Enqueued::New(unlock) = asked else {
        panic!("nothing is live: {asked:?}")
    };
    let asked = desk.ask(desk.wish(SERIAL)).await;
    let Enqueued::LiveElsewhere(live) = asked else {
        panic!("an unlock is live: {asked:?}")
    };
    assert_eq!(
        (live.kind, live.id),
        (Kind::Unlock, Some(unlock.id.clone()))
    );
    // An identifier of one kind is none of the other.
    let read = desk.permit(SERIAL).await;
    assert!(
        desk.escrow
            .locks()
            .get(&read, &unlock.id)
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        desk.escrow
            .operations()
            .get(&read, &id)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn r14_an_answer_after_the_lease_was_lost_raises_to_locked_and_lowers_nothing() {
    let desk = Desk::new().await;
    let id = desk.lock(SERIAL).await;
    let begun = desk.begin().await;
    desk.clock.advance(Duration::from_secs(91));
    // Somebody else takes it up: the call counts as lost, and after a while the same code is sent once more.
    let mut lease = desk.claim().await;
    let waits = desk.advance(&mut lease).await;
    assert!(matches!(waits, Advance::Parked(StateName::Waiting)));
    desk.clock.advance(Duration::from_secs(60));
    let second = desk.begin().await;
    assert!(second.escrow_key == begun.escrow_key);
    let late = desk.finish(&begun, LockOutcome::Locked).await;
    assert!(matches!(late, Finished::Late { .. }));
    assert_eq!(desk.standing().await.0, OurLock::Confirmed);
    assert!(
        desk.view(&id).await.double_sent,
        "two may have been under way at once"
    );
    desk.finish(&second, LockOutcome::AlreadyLocked).await;
    assert_eq!(desk.view(&id).await.state, StateName::Locked);
    assert_eq!(desk.standing().await.0, OurLock::Confirmed);
    desk.finish(&begun, LockOutcome::NotAccessible).await;
    assert_eq!(desk.standing().await.0, OurLock::Confirmed);
}

#[tokio::test]
async fn r16_a_lease_that_was_lost_begins_no_call() {
    let desk = Desk::new().await;
    desk.lock(SERIAL).await;
    let mut first = desk.claim().await;
    desk.clock.advance(Duration::from_secs(91));
    let _second = desk.claim().await;
    assert!(matches!(desk.advance(&mut first).await, Advance::Lost));
    assert_eq!(desk.server_codes().await.len(), 0);
}

#[tokio::test]
async fn r15_an_answer_in_flight_wins_over_a_wish_to_cancel() {
    let desk = Desk::new().await;
    let id = desk.lock(SERIAL).await;
    let begun = desk.begin().await;
    assert!(matches!(desk.cancel(&id).await, Cancelled::Pending(_)));
    desk.finish(&begun, LockOutcome::Locked).await;
    assert_eq!(desk.view(&id).await.state, StateName::Locked);
    assert!(matches!(desk.cancel(&id).await, Cancelled::Ended(_)));
    assert!(matches!(desk.cancel("none").await, Cancelled::Unknown));
}

#[tokio::test]
async fn a_device_that_no_list_names_is_locked_only_with_a_reason() {
    let desk = Desk::new().await;
    let mut wish = desk.wish(SERIAL);
    wish.override_reason = None;
    assert!(matches!(desk.ask(wish).await, Enqueued::NotAssigned));
    let unknown = desk.ask(desk.wish("NOBODYHASIT1")).await;
    assert!(matches!(unknown, Enqueued::UnknownDevice));
    let mut wish = desk.wish(SERIAL);
    wish.server_token = Some("no such token".to_owned());
    assert!(matches!(desk.ask(wish).await, Enqueued::UnknownToken));
    let rows = audit_texts(&desk).await;
    for word in ["not_assigned", "unknown_device", "unknown_token"] {
        let quoted = format!("\"result\":\"{word}\"");
        assert!(rows.iter().any(|row| row.contains(&quoted)), "{word}");
    }
    let id = desk.lock(SERIAL).await;
    assert!(desk.view(&id).await.override_reason.is_some());
    assert!(
        audit_texts(&desk)
            .await
            .iter()
            .any(|row| row.contains("no list was read"))
    );
}

/// A device with a lock, as it is shown.
async fn shown(desk: &Desk) -> DeviceView {
    desk.device(SERIAL).await
}

#[tokio::test]
async fn t29_the_page_of_a_device_knows_whether_a_lock_may_be_on() {
    let desk = Desk::new().await;
    assert!(!shown(&desk).await.lock.may_be_on());
    desk.lock_answered(LockOutcome::Unknown).await;
    let view = shown(&desk).await;
    assert!(view.lock.may_be_on());
    assert_eq!(view.summary.lock, OurLock::Unknown);
    assert_eq!(view.locks.len(), 1);
    assert!(
        view.timeline
            .iter()
            .any(|line| line.what == "lock.requested")
    );
    let permit = desk.permit("locks").await;
    let standing = desk
        .escrow
        .locks()
        .standing(&permit, None, 10)
        .await
        .unwrap();
    assert_eq!(standing.len(), 1);
    assert_eq!(standing[0].serial.as_str(), SERIAL);
}
