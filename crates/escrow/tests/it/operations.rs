//! Unlocks on record: what R12 to R19 and R21 ask of rows, leases and late answers.

use std::time::Duration;

use activation_lock::codes::{CodeId, CodeKind, CodeText, FirstBecause};
use activation_lock::device::SerialNumber;
use activation_lock::observation::{
    Authenticate, CommandReport, EnrollmentKind, Event, Observation, ReportStatus, ReportedCode,
    TokenUpdate,
};
use activation_lock::operation::StateName;
use activation_lock::time::{DAY, Timestamp};
use activation_lock::unlock::{AttemptResult, Outcome, ReviewReason, WaitReason};
use escrow::Escrow;
use escrow::codes::TypedCode;
use escrow::commands::{Command, CommandType};
use escrow::connections::{ConnectionChange, UnlockVia};
use escrow::devices::Corrections;
use escrow::operations::{
    Advance, Answer, Begun, Cancelled, Claim, Enqueued, Finished, Key, Kind, Lease, NewUnlock,
    OperationView, Resumed, Via, WorkSettings,
};
use escrow::organisations::Created;
use escrow::pace::Rate;
use escrow::permit::{Actor, OrganisationId, Permission, Permissions, Permit, Read, Unlock};
use escrow::push_certificates::NewPushCertificate;
use escrow::record::Incoming;

use crate::beside::{audit_texts, damage, tamper};
use crate::support::{CODE_A, CODE_B, CODE_C, Vault, open_in};

const SERIAL: &str = "C02XL0GTJGH5";
const TOPIC: &str = "com.apple.mgmt.External.test";
const MORE_CODES: [&str; 4] = [
    "00000-00000-0000-0000-0000-0000",
    "ZZZZZ-ZZZZZ-ZZZZ-ZZZZ-ZZZZ-ZZZ7",
    "A8QK7-GFG21-6RHT-V0U9-756P-L7E3",
    "A8QK7-GFG21-6RHT-V0U9-756P-L7E4",
];

fn serial(text: &str) -> SerialNumber {
    text.parse().unwrap()
}

fn settings(owner: &str) -> WorkSettings {
    WorkSettings {
        owner: owner.to_owned(),
        call_timeout: Duration::from_secs(60),
        in_flight: 8,
        pace: Rate::per_second(0.0),
        enrolment_host: "mdmenrollment.apple.com".to_owned(),
        apple_host: "deviceservices-external.apple.com".to_owned(),
    }
}

mod credentials;
mod leases;
mod order;
mod wishes;

/// A vault with a push certificate, whose devices and unlocks are one call each.
struct Desk {
    vault: Vault,
}

impl std::ops::Deref for Desk {
    type Target = Vault;
    fn deref(&self) -> &Vault {
        &self.vault
    }
}

impl Desk {
    /// With a push certificate and one device that has these codes, the last one seen last.
    async fn with_codes(codes: &[&str]) -> Self {
        Self::of(Vault::new().await, codes).await
    }

    /// The same, where nobody else uses the database: it is a file.
    async fn in_a_file(codes: &[&str]) -> Self {
        Self::of(Vault::in_a_file().await, codes).await
    }

    async fn of(vault: Vault, codes: &[&str]) -> Self {
        let desk = Self { vault };
        desk.certificate(TOPIC, "aa").await;
        desk.device_of(SERIAL, codes).await;
        desk
    }

    async fn device_of(&self, name: &str, codes: &[&str]) {
        let set = Corrections {
            product_type: "iPhone14,5".parse().ok(),
            ..Corrections::default()
        };
        let permit = self.permit(name).await;
        self.escrow
            .devices()
            .correct(&permit, &serial(name), &set)
            .await
            .unwrap();
        for code in codes {
            self.add_code(name, code, CodeKind::Device).await;
        }
    }

    async fn add_code(&self, name: &str, code: &str, kind: CodeKind) {
        self.clock.advance(Duration::from_secs(1));
        let permit = self.permit(name).await;
        let text = CodeText::new(code.to_owned()).unwrap();
        let typed = TypedCode {
            serial: serial(name),
            text,
            kind,
            note: None,
        };
        self.escrow.codes().add_typed(&permit, typed).await.unwrap();
    }

    async fn certificate(&self, topic: &str, fingerprint: &str) -> String {
        let permit = self.permit("push certificate").await;
        let new = NewPushCertificate {
            topic: topic.to_owned(),
            fingerprint: fingerprint.to_owned(),
            subject: "a test".to_owned(),
            not_before: self.now().minus(DAY),
            not_after: self.now().plus(30 * DAY),
            pem: "a certificate".to_owned().into(),
        };
        self.escrow
            .push_certificates()
            .add(&permit, new)
            .await
            .unwrap()
            .id
    }

    fn wish(&self, name: &str) -> NewUnlock {
        NewUnlock {
            serial: serial(name),
            reason: "returned by its user".to_owned(),
            requester: "desk@example.org".to_owned(),
            insists: false,
            urgent: false,
            idempotency: None,
        }
    }

    async fn may_unlock(&self) -> Permit<Unlock> {
        self.permit(SERIAL).await
    }

    async fn ask(&self, wish: NewUnlock) -> Enqueued {
        self.escrow
            .operations()
            .enqueue(&self.may_unlock().await, wish)
            .await
            .unwrap()
    }

    async fn unlock(&self, name: &str) -> String {
        match self.ask(self.wish(name)).await {
            Enqueued::New(view) => view.id,
            other => panic!("it is new: {other:?}"),
        }
    }

    async fn view(&self, id: &str) -> OperationView {
        let permit = self.permit(id).await;
        self.escrow
            .operations()
            .get(&permit, id)
            .await
            .unwrap()
            .expect("it is there")
    }

    async fn state(&self, id: &str) -> StateName {
        self.view(id).await.state
    }

    async fn claim(&self) -> Lease {
        claim(&self.escrow, &settings("one"))
            .await
            .expect("something is due")
    }

    async fn begin(&self, lease: &mut Lease) -> Begun {
        match self
            .escrow
            .operations()
            .advance(lease, &settings("one"))
            .await
            .unwrap()
        {
            Advance::Call(begun) => *begun,
            other => panic!("a call is next: {}", name_of(&other)),
        }
    }

    async fn finish(&self, begun: &Begun, outcome: Outcome) -> Finished {
        self.escrow
            .operations()
            .finish(&begun.ticket, outcome, Answer::default())
            .await
            .unwrap()
    }

    /// Works on whatever is due until it parks or ends, with one outcome a code. Gives the codes as they were sent.
    async fn work(&self, answer: impl Fn(&str) -> Outcome) -> Vec<String> {
        let (mut sent, mut lease) = (Vec::new(), self.claim().await);
        loop {
            match self
                .escrow
                .operations()
                .advance(&mut lease, &settings("one"))
                .await
                .unwrap()
            {
                Advance::Call(begun) => {
                    sent.push(begun.code.expose().to_owned());
                    if self.finish(&begun, answer(begun.code.expose())).await != Finished::More {
                        return sent;
                    }
                }
                Advance::Parked(_) | Advance::Lost => return sent,
                Advance::AskStatus => panic!("there is no account to ask with in this test"),
                Advance::Paced { .. } => panic!("there is no limit of pace in this test"),
            }
        }
    }
}

async fn claim(escrow: &Escrow, settings: &WorkSettings) -> Option<Lease> {
    match escrow.operations().claim(settings).await.unwrap() {
        Claim::Lease(lease) => Some(lease),
        Claim::Nothing { .. } => None,
    }
}

fn name_of(advance: &Advance) -> String {
    match advance {
        Advance::Call(_) => "call".to_owned(),
        Advance::Paced { .. } => "paced".to_owned(),
        Advance::Parked(state) => format!("parked as {state}"),
        Advance::Lost => "lost".to_owned(),
        Advance::AskStatus => "asks".to_owned(),
    }
}

/// Whether two secret texts are the same, without an assertion that prints them.
fn same(sent: &[String], expected: &[&str]) -> bool {
    sent.iter().map(String::as_str).eq(expected.iter().copied())
}

// What a call meant.

#[tokio::test]
async fn t12_a_wrong_first_code_is_followed_by_the_right_second_one_and_nothing_is_deleted() {
    let desk = Desk::with_codes(&[CODE_A, CODE_B]).await;
    let id = desk.unlock(SERIAL).await;
    let sent = desk
        .work(|code| {
            if code == CODE_A {
                Outcome::Unlocked
            } else {
                Outcome::Refused
            }
        })
        .await;
    assert!(same(&sent, &[CODE_B, CODE_A]));
    let view = desk.view(&id).await;
    assert_eq!(view.state, StateName::Unlocked);
    assert!(view.is_done());
    assert_eq!(view.details.by_kind, Some(CodeKind::Device));
    let device = desk.device(SERIAL).await;
    assert_eq!(device.codes.len(), 2);
    let used: Vec<_> = device
        .codes
        .iter()
        .filter(|c| c.used_at.is_some())
        .map(|c| c.id.clone())
        .collect();
    assert_eq!(Some(used), view.details.by.map(|by| vec![by]));
    for text in audit_texts(&desk).await {
        assert!(
            !text.contains(CODE_A) && !text.contains(CODE_B),
            "a code is on the audit trail"
        );
    }
}

#[tokio::test]
async fn t11_r15_a_server_code_that_works_says_that_the_lock_was_ours() {
    let desk = Desk::with_codes(&[]).await;
    desk.add_code(SERIAL, CODE_A, CodeKind::Server).await;
    let id = desk.unlock(SERIAL).await;
    assert_eq!(desk.work(|_| Outcome::Unlocked).await.len(), 1);
    assert_eq!(desk.view(&id).await.details.by_kind, Some(CodeKind::Server));
}

#[tokio::test]
async fn r13_each_outcome_leads_to_its_state() {
    let review = |why| (StateName::NeedsReview, Some(why), None);
    let wait = |why| (StateName::Waiting, None, Some(why));
    for (outcome, (state, why, waits_for)) in [
        (Outcome::Unlocked, (StateName::Unlocked, None, None)),
        (Outcome::Refused, (StateName::Rejected, None, None)),
        (Outcome::Malformed, review(ReviewReason::Malformed)),
        (Outcome::Unexpected, review(ReviewReason::Unexpected)),
        (Outcome::Credential, wait(WaitReason::Credential)),
        (Outcome::Unavailable, wait(WaitReason::Unavailable)),
        (Outcome::Unknown, wait(WaitReason::NoAnswer)),
    ] {
        let desk = Desk::with_codes(&[CODE_A]).await;
        let id = desk.unlock(SERIAL).await;
        assert_eq!(desk.work(|_| outcome).await.len(), 1, "{outcome}");
        let view = desk.view(&id).await;
        assert_eq!(
            (view.state, view.details.review, view.details.waits_for),
            (state, why, waits_for),
            "{outcome}"
        );
        assert_eq!(view.is_done(), view.end().is_some(), "{outcome}");
    }
}

#[tokio::test]
async fn r13_a_wait_that_apple_asked_for_is_honoured() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let id = desk.unlock(SERIAL).await;
    let mut lease = desk.claim().await;
    let begun = desk.begin(&mut lease).await;
    let answer = Answer {
        status: Some(429),
        retry_after: Some(Duration::from_secs(90)),
        ..Answer::default()
    };
    let finished = desk
        .escrow
        .operations()
        .finish(&begun.ticket, Outcome::Unavailable, answer)
        .await
        .unwrap();
    assert_eq!(finished, Finished::Parked(StateName::Waiting));
    assert_eq!(desk.view(&id).await.attempts[0].status, Some(429));
    desk.clock.advance(Duration::from_secs(89));
    assert!(claim(&desk.escrow, &settings("one")).await.is_none());
    desk.clock.advance(Duration::from_secs(1));
    assert!(same(&desk.work(|_| Outcome::Unlocked).await, &[CODE_A]));
    assert_eq!(desk.state(&id).await, StateName::Unlocked);
}

#[tokio::test]
async fn t16_r14_a_refusal_after_a_call_without_an_answer_does_not_end_the_search_and_is_not_called_rejected()
 {
    let desk = Desk::with_codes(&[CODE_A, CODE_B]).await;
    let id = desk.unlock(SERIAL).await;
    desk.work(|_| Outcome::Unknown).await;
    desk.clock.advance(Duration::from_secs(3600));
    let sent = desk.work(|_| Outcome::Refused).await;
    assert!(
        same(&sent, &[CODE_B, CODE_A]),
        "the same candidate again, then the next"
    );
    assert_eq!(desk.state(&id).await, StateName::ProbablyUnlocked);
}

#[tokio::test]
async fn t15_r13_a_refused_certificate_blames_no_code_and_a_new_one_goes_on_at_once() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let id = desk.unlock(SERIAL).await;
    desk.work(|_| Outcome::Credential).await;
    desk.clock.advance(Duration::from_secs(3600));
    assert!(
        claim(&desk.escrow, &settings("one")).await.is_none(),
        "a person has to mend it"
    );
    desk.certificate(TOPIC, "bb").await;
    assert!(same(&desk.work(|_| Outcome::Unlocked).await, &[CODE_A]));
    assert_eq!(desk.state(&id).await, StateName::Unlocked);
}

#[tokio::test]
async fn r13_without_a_usable_certificate_nothing_is_sent_and_the_deadline_runs() {
    let desk = Desk {
        vault: Vault::new().await,
    };
    desk.device_of(SERIAL, &[CODE_A]).await;
    desk.certificate(TOPIC, "aa").await;
    desk.clock.advance(31 * DAY);
    let id = desk.unlock(SERIAL).await;
    assert!(
        desk.work(|_| Outcome::Unlocked).await.is_empty(),
        "the certificate has expired"
    );
    assert_eq!(
        desk.view(&id).await.details.waits_for,
        Some(WaitReason::NoCredential)
    );
    desk.clock.advance(DAY);
    desk.work(|_| Outcome::Unlocked).await;
    assert_eq!(
        desk.view(&id).await.details.review,
        Some(ReviewReason::Deadline)
    );
}

// The order of candidates.

#[tokio::test]
async fn r12_a_code_that_arrives_between_two_attempts_is_tried_next() {
    let desk = Desk::with_codes(&[CODE_A, CODE_B]).await;
    let id = desk.unlock(SERIAL).await;
    let mut lease = desk.claim().await;
    let first = desk.begin(&mut lease).await;
    desk.add_code(SERIAL, CODE_C, CodeKind::Device).await;
    assert_eq!(desk.finish(&first, Outcome::Refused).await, Finished::More);
    let second = desk.begin(&mut lease).await;
    assert!(second.code.expose() == CODE_C);
    assert_eq!(
        desk.finish(&second, Outcome::Unlocked).await,
        Finished::Parked(StateName::Unlocked)
    );
    assert_eq!(desk.view(&id).await.attempts.len(), 2);
}

#[tokio::test]
async fn r12_triples_never_tried_come_before_those_refused_in_an_earlier_unlock() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    desk.unlock(SERIAL).await;
    desk.work(|_| Outcome::Refused).await;
    desk.add_code(SERIAL, CODE_B, CodeKind::Server).await;
    desk.add_code(SERIAL, CODE_A, CodeKind::Device).await;
    desk.unlock(SERIAL).await;
    assert!(same(
        &desk.work(|_| Outcome::Refused).await,
        &[CODE_B, CODE_A]
    ));
}

#[tokio::test]
async fn r12_six_attempts_then_a_person_decides_and_continue_tries_the_rest() {
    let mut codes = vec![CODE_A, CODE_B, CODE_C];
    codes.extend(MORE_CODES);
    let desk = Desk::with_codes(&codes).await;
    let id = desk.unlock(SERIAL).await;
    assert_eq!(desk.work(|_| Outcome::Refused).await.len(), 6);
    let view = desk.view(&id).await;
    assert_eq!(
        (view.state, view.details.review),
        (StateName::NeedsReview, Some(ReviewReason::Cap))
    );
    assert_eq!(view.details.untried, Some(1));

    desk.clock.advance(Duration::from_secs(60));
    let permit = desk.may_unlock().await;
    let resumed = desk.escrow.operations().resume(&permit, &id).await.unwrap();
    assert!(matches!(resumed, Resumed::Queued(_)));
    assert!(
        same(&desk.work(|_| Outcome::Refused).await, &[CODE_A]),
        "the oldest code is the one left"
    );
    assert_eq!(desk.state(&id).await, StateName::Rejected);
    let resumed = desk.escrow.operations().resume(&permit, &id).await.unwrap();
    assert!(matches!(resumed, Resumed::NotInReview(_)));
}

#[tokio::test]
async fn r12_ten_attempts_a_device_a_day_over_all_its_unlocks() {
    let desk = Desk::with_codes(&[CODE_A, CODE_B, CODE_C]).await;
    for _ in 0..3 {
        desk.unlock(SERIAL).await;
        desk.work(|_| Outcome::Refused).await;
    }
    let id = desk.unlock(SERIAL).await;
    assert_eq!(
        desk.work(|_| Outcome::Refused).await.len(),
        1,
        "nine were spent by the others"
    );
    assert_eq!(desk.view(&id).await.details.review, Some(ReviewReason::Cap));
    desk.clock.advance(DAY);
    let id = desk.unlock(SERIAL).await;
    assert_eq!(desk.work(|_| Outcome::Refused).await.len(), 3);
    assert_eq!(desk.state(&id).await, StateName::Rejected);
}

#[tokio::test]
async fn r15_a_device_without_a_code_needs_a_person() {
    let desk = Desk::with_codes(&[]).await;
    let id = desk.unlock(SERIAL).await;
    assert!(desk.work(|_| Outcome::Unlocked).await.is_empty());
    assert_eq!(
        desk.view(&id).await.details.review,
        Some(ReviewReason::NoCandidate)
    );
}

#[tokio::test]
async fn r15_without_a_product_type_it_is_refused_before_any_attempt() {
    let desk = Desk {
        vault: Vault::new().await,
    };
    desk.certificate(TOPIC, "aa").await;
    desk.add_code(SERIAL, CODE_A, CodeKind::Device).await;
    assert!(matches!(
        desk.ask(desk.wish(SERIAL)).await,
        Enqueued::NoProductType
    ));
    assert!(matches!(
        desk.ask(desk.wish("NEVERSEEN1")).await,
        Enqueued::UnknownDevice
    ));
    assert!(claim(&desk.escrow, &settings("one")).await.is_none());
    assert!(
        audit_texts(&desk)
            .await
            .iter()
            .any(|text| text.contains("no_product_type"))
    );
}

#[tokio::test]
async fn r15_a_new_enrolment_since_the_request_needs_a_person() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let id = desk.unlock(SERIAL).await;
    let connection = desk.connection("mdm").await;
    desk.clock.advance(Duration::from_secs(5));
    enrol(&desk, &connection).await;
    assert!(desk.work(|_| Outcome::Unlocked).await.is_empty());
    assert_eq!(
        desk.view(&id).await.details.review,
        Some(ReviewReason::NewEpoch)
    );
}

async fn enrol(desk: &Desk, connection: &str) {
    let said = Authenticate {
        serial: SERIAL.parse().ok(),
        product_type: "iPhone14,5".parse().ok(),
        topic: Some(TOPIC.to_owned()),
        ..Authenticate::default()
    };
    tell(desk, connection, Event::Authenticate(said)).await;
}

async fn tell(desk: &Desk, connection: &str, event: Event) {
    desk.clock.advance(Duration::from_secs(1));
    let incoming = Incoming {
        connection: desk.connection_ref(connection),
        digest: desk.next_digest(),
        observation: Observation {
            enrollment: "enrollment".to_owned(),
            kind: EnrollmentKind::Device,
            at: desk.now(),
            event,
        },
    };
    desk.escrow.record(incoming).await.unwrap();
}

#[tokio::test]
async fn r8_after_an_unlock_the_device_is_asked_again() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let connection = desk.connection("mdm").await;
    enrol(&desk, &connection).await;
    let first = TokenUpdate {
        tally: Some(1),
        ..TokenUpdate::default()
    };
    tell(&desk, &connection, Event::TokenUpdate(first)).await;
    let asked = due(&desk, CommandType::BypassCode)
        .await
        .expect("a new enrolment is asked");
    let answer = CommandReport {
        command: Some(asked.id),
        status: ReportStatus::Acknowledged,
        errors: Vec::new(),
        bypass_code: ReportedCode::Code(CodeText::new(CODE_B.to_owned()).unwrap()),
        device_information: None,
        security_info: None,
        failed_settings: None,
    };
    tell(&desk, &connection, Event::Report(answer)).await;
    assert!(due(&desk, CommandType::BypassCode).await.is_none());
    desk.clock.advance(Duration::from_secs(1));
    desk.unlock(SERIAL).await;
    assert!(
        same(&desk.work(|_| Outcome::Unlocked).await, &[CODE_B]),
        "the current code first"
    );
    assert!(due(&desk, CommandType::BypassCode).await.is_some());
}

async fn due(desk: &Desk, what: CommandType) -> Option<Command> {
    let commands = desk.escrow.commands();
    let taken = commands
        .take_due(10, Duration::from_secs(60), &[])
        .await
        .unwrap();
    for command in &taken {
        commands.queued(command).await.unwrap();
    }
    taken.into_iter().find(|command| command.what == what)
}

#[tokio::test]
async fn a_sealed_code_that_does_not_open_is_not_sent_and_does_not_stand_in_the_way() {
    let desk = Desk::with_codes(&[CODE_A, CODE_B]).await;
    let id = desk.unlock(SERIAL).await;
    let codes = desk.device(SERIAL).await.codes;
    let newest = codes.iter().max_by_key(|c| c.seen_at).unwrap().id.0.clone();
    damage(&desk, &newest).await;
    let mut lease = desk.claim().await;
    let first = desk
        .escrow
        .operations()
        .advance(&mut lease, &settings("one"))
        .await
        .unwrap();
    assert!(matches!(first, Advance::Paced { until } if until == desk.now()));
    let begun = desk.begin(&mut lease).await;
    assert!(begun.code.expose() == CODE_A);
    let finished = desk.finish(&begun, Outcome::Refused).await;
    assert_eq!(
        finished,
        Finished::Parked(StateName::NeedsReview),
        "not every code was refused"
    );
    let view = desk.view(&id).await;
    assert!(
        view.attempts[0]
            .diagnostic
            .as_ref()
            .is_some_and(|d| d.contains("nothing was sent"))
    );
}

// Cancelling.

#[tokio::test]
async fn r15_with_nothing_in_flight_it_is_cancelled_at_once() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let id = desk.unlock(SERIAL).await;
    let permit = desk.may_unlock().await;
    let cancelled = desk.escrow.operations().cancel(&permit, &id).await.unwrap();
    assert!(matches!(cancelled, Cancelled::Ended(_)));
    let view = desk.view(&id).await;
    assert_eq!(
        (view.state, view.cancelled_by.as_deref()),
        (StateName::Cancelled, Some("test"))
    );
    assert!(claim(&desk.escrow, &settings("one")).await.is_none());
}

#[tokio::test]
async fn r15_an_answer_in_flight_wins_over_cancelling() {
    for (outcome, state) in [
        (Outcome::Unlocked, StateName::Unlocked),
        (Outcome::Refused, StateName::Cancelled),
        (Outcome::Unknown, StateName::Cancelled),
    ] {
        let desk = Desk::with_codes(&[CODE_A, CODE_B]).await;
        let id = desk.unlock(SERIAL).await;
        let mut lease = desk.claim().await;
        let begun = desk.begin(&mut lease).await;
        let permit = desk.may_unlock().await;
        let cancelled = desk.escrow.operations().cancel(&permit, &id).await.unwrap();
        assert!(matches!(cancelled, Cancelled::Pending(_)));
        assert_eq!(desk.finish(&begun, outcome).await, Finished::Parked(state));
        assert_eq!(
            desk.view(&id).await.attempts.len(),
            1,
            "nothing further is tried"
        );
    }
}

// Whom the call goes through.

#[tokio::test]
async fn an_idempotency_key_counts_a_principal_and_a_body_for_seven_days() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let keyed = |body: &str| NewUnlock {
        idempotency: Some(Key::new("key", &[SERIAL, body])),
        ..desk.wish(SERIAL)
    };
    let Enqueued::New(first) = desk.ask(keyed("a")).await else {
        panic!("it is new")
    };
    assert!(matches!(desk.ask(keyed("a")).await, Enqueued::Same(view) if view.id == first.id));
    assert!(matches!(desk.ask(keyed("b")).await, Enqueued::KeyReused));
    desk.work(|_| Outcome::Refused).await;
    assert!(
        matches!(desk.ask(keyed("a")).await, Enqueued::Same(view) if view.state == StateName::Rejected)
    );

    let second = Actor::system("second", Permissions::of(&[Permission::Unlock]));
    let permit = desk
        .escrow
        .authorise(&second, &desk.organisation, SERIAL)
        .await
        .unwrap();
    let asked = desk
        .escrow
        .operations()
        .enqueue(&permit, keyed("b"))
        .await
        .unwrap();
    assert!(
        matches!(asked, Enqueued::New(_)),
        "another principal's key is another key"
    );
    desk.work(|_| Outcome::Refused).await;

    desk.clock.advance(7 * DAY);
    assert!(
        matches!(desk.ask(keyed("b")).await, Enqueued::New(_)),
        "forgotten"
    );
    assert_eq!(
        desk.escrow
            .operations()
            .sweep_idempotency_keys()
            .await
            .unwrap(),
        1
    );
}

#[tokio::test]
async fn an_unlock_of_another_organisation_is_not_found() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let id = desk.unlock(SERIAL).await;
    let elsewhere = OrganisationId::new("elsewhere");
    let permit = desk
        .escrow
        .authorise(&desk.actor, &elsewhere, &id)
        .await
        .unwrap();
    assert!(
        desk.escrow
            .operations()
            .get(&permit, &id)
            .await
            .unwrap()
            .is_none()
    );
    let permit = desk
        .escrow
        .authorise(&desk.actor, &elsewhere, &id)
        .await
        .unwrap();
    assert!(matches!(
        desk.escrow.operations().cancel(&permit, &id).await.unwrap(),
        Cancelled::Unknown
    ));
    assert!(matches!(
        desk.escrow.operations().resume(&permit, &id).await.unwrap(),
        Resumed::Unknown
    ));
}

#[tokio::test]
async fn the_worker_is_woken_by_a_new_unlock() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let escrow = desk.escrow.clone();
    let waiting = tokio::spawn(async move { escrow.operations().woken().await });
    desk.unlock(SERIAL).await;
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .expect("it is woken")
        .unwrap();
    let queue = desk.escrow.operations().queue(Kind::Unlock).await.unwrap();
    assert_eq!((queue.live, queue.leased), (1, 0));
    assert_eq!(queue.oldest_requested_at, Some(Timestamp(desk.now().0)));
}

/// A vault in a file with a code and an unlock under way, and that unlock.
pub(crate) async fn moved_desk() -> (Vault, String) {
    let desk = Desk {
        vault: Vault::in_a_file().await,
    };
    desk.certificate(TOPIC, "aa").await;
    desk.device_of(SERIAL, &[CODE_A, CODE_B]).await;
    let id = desk.unlock(SERIAL).await;
    (desk.vault, id)
}
