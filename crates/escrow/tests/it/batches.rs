//! Batches: lines that are looked at, that enter the queue once and a few at a time, and what holds them.

use std::time::Duration;

use activation_lock::batch::{BatchAction, LineState};
use activation_lock::device::SerialNumber;
use activation_lock::operation::StateName;
use escrow::Error;
use escrow::approvals::{Action, Leave, Policy};
use escrow::batches::{
    BatchState, BatchView, Bulk, Changed, Created, Fed, HeldFor, NewBatch, Window,
};
use escrow::devices::Corrections;
use escrow::duties::{Duty, Held};
use escrow::operations::{Claim, Key, NewUnlock, WorkSettings};
use escrow::pace::Rate;
use escrow::permit::{Actor, Approve, Lock, Permit, Read, Refresh, Refusal, Role, Unlock};

use crate::beside::audit_texts;
use crate::people::settled;
use crate::support::{CODE_A, Vault};

fn settings(in_flight: u32, per_second: f64) -> WorkSettings {
    WorkSettings {
        owner: "one".to_owned(),
        call_timeout: Duration::from_secs(60),
        in_flight,
        pace: Rate::per_second(per_second),
        enrolment_host: "mdmenrollment.apple.com".to_owned(),
        apple_host: "deviceservices-external.apple.com".to_owned(),
    }
}

/// Four operations of a batch are live at most.
fn narrow() -> Window {
    Window::of(&settings(2, 1.0))
}

fn serial(number: usize) -> String {
    format!("BATCHED{number:05}")
}

fn new() -> NewBatch {
    NewBatch {
        reason: "the end of the year".to_owned(),
        requester: None,
        message: None,
        insists: false,
        idempotency: None,
    }
}

/// A vault with devices that have codes and product types.
struct Fleet {
    vault: Vault,
}

impl std::ops::Deref for Fleet {
    type Target = Vault;
    fn deref(&self) -> &Vault {
        &self.vault
    }
}

impl Fleet {
    async fn of(count: usize) -> Self {
        let fleet = Self {
            vault: Vault::new().await,
        };
        for number in 0..count {
            fleet.name_product(&serial(number)).await;
            fleet.type_code(&serial(number), CODE_A).await;
        }
        fleet
    }

    async fn name_product(&self, name: &str) {
        let set = Corrections {
            product_type: "iPad4,1".parse().ok(),
            ..Corrections::default()
        };
        let name: SerialNumber = name.parse().unwrap();
        let permit = self.permit(name.as_str()).await;
        let devices = self.escrow.devices();
        devices.correct(&permit, &name, &set).await.unwrap();
    }

    async fn draft<P: Bulk>(&self, texts: &[String]) -> BatchView {
        let permit: Permit<P> = self.permit("batch").await;
        let made = self.escrow.batches().create(&permit, new()).await.unwrap();
        let Created::New(view) = made else {
            panic!("it is new: {made:?}")
        };
        self.add::<P>(&view.id, 1, texts).await
    }

    async fn add<P: Bulk>(&self, id: &str, first: i64, texts: &[String]) -> BatchView {
        let permit: Permit<P> = self.permit("batch").await;
        let batches = self.escrow.batches();
        let changed = batches.add_lines(&permit, id, first, texts.to_vec()).await;
        done(changed.unwrap())
    }

    /// The identifier of a batch of unlocks that runs.
    async fn running(&self, texts: &[String]) -> String {
        let view = self.draft::<Unlock>(texts).await;
        let permit: Permit<Unlock> = self.permit("batch").await;
        done(
            self.escrow
                .batches()
                .start(&permit, &view.id)
                .await
                .unwrap(),
        );
        view.id
    }

    async fn view(&self, id: &str) -> BatchView {
        let permit: Permit<Read> = self.permit("batch").await;
        self.escrow
            .batches()
            .get(&permit, id)
            .await
            .unwrap()
            .unwrap()
    }

    async fn words(&self, id: &str) -> Vec<&'static str> {
        let permit: Permit<Read> = self.permit("batch").await;
        let lines = self.escrow.batches().lines(&permit, id, None, 0, 500).await;
        lines
            .unwrap()
            .iter()
            .map(|line| line.stands.word())
            .collect()
    }

    async fn duty(&self, process: &str) -> Held {
        let held = self.escrow.duties().hold(Duty::Batches, process).await;
        held.unwrap().expect("nobody else has it")
    }

    async fn feed(&self, window: Window) -> Fed {
        let held = self.duty("one").await;
        self.escrow.batches().feed(&held, window).await.unwrap()
    }

    /// Feeds until a batch has nothing to do.
    async fn feed_all(&self) {
        let wide = Window::of(&settings(8, 0.0));
        while self.feed(wide).await.begun > 0 {}
    }

    /// A person waits for this one.
    async fn urgently(&self, number: usize) {
        let permit: Permit<Unlock> = self.permit("unlock").await;
        let wish = NewUnlock {
            serial: serial(number).parse().unwrap(),
            reason: "a person waits".to_owned(),
            requester: "desk".to_owned(),
            insists: false,
            urgent: true,
            idempotency: None,
        };
        let operations = self.escrow.operations();
        operations.enqueue(&permit, wish).await.unwrap();
    }

    async fn start_as(&self, actor: &Actor, id: &str) -> escrow::Result<Changed> {
        let permit: Permit<Unlock> = self
            .escrow
            .authorise(actor, &self.organisation, format!("batch {id}"))
            .await?;
        self.escrow.batches().start(&permit, id).await
    }
}

fn done(changed: Changed) -> BatchView {
    match changed {
        Changed::Done(view) => view,
        other => panic!("it is done: {other:?}"),
    }
}

fn serials(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(serial).collect()
}

#[tokio::test]
async fn every_line_is_looked_at_and_nothing_runs_before_it_is_started() {
    let fleet = Fleet::of(1).await;
    fleet.type_code("NOPRODUCT1", CODE_A).await;
    fleet.name_product("NOCODE1").await;
    let texts = [
        &serial(0),
        "not a serial",
        "batched00000 ",
        "UNKNOWN1",
        "NOPRODUCT1",
        "NOCODE1",
        "",
        CODE_A,
        &CODE_A.replace('-', ""),
    ]
    .map(str::to_owned);
    let view = fleet.draft::<Unlock>(&texts).await;
    assert_eq!(
        (view.state, view.action),
        (BatchState::Draft, BatchAction::Unlock)
    );
    assert_eq!((view.lines, view.ready(), view.done()), (9, 1, 8));
    let wanted = [
        LineState::Ready,
        LineState::NotASerial,
        LineState::Duplicate,
        LineState::UnknownDevice,
        LineState::NoProductType,
        LineState::NoCode,
        LineState::NotASerial,
        LineState::NotASerial,
        LineState::NotASerial,
    ];
    assert_eq!(fleet.words(&view.id).await, wanted.map(LineState::as_str));
    // The same device in a later stretch is the same device.
    let view = fleet.add::<Unlock>(&view.id, 10, &[serial(0)]).await;
    assert_eq!(view.count("duplicate"), 2);
    assert_eq!(fleet.feed(narrow()).await, Fed::default());
}

#[tokio::test]
async fn a_code_in_the_place_of_a_serial_number_is_kept_nowhere() {
    let fleet = Fleet::of(1).await;
    let code = CODE_A.replace('-', "");
    fleet
        .draft::<Unlock>(&[code.clone(), CODE_A.to_owned()])
        .await;
    let mut beside = crate::beside::Beside::of(fleet.escrow.folder()).await;
    let kept = beside
        .texts("SELECT COALESCE(serial, '') FROM batch_lines")
        .await;
    assert_eq!(kept, ["", ""]);
    assert!(
        audit_texts(&fleet)
            .await
            .iter()
            .all(|row| !row.contains(&code))
    );
}

#[tokio::test]
async fn a_stretch_that_is_brought_twice_is_there_once_and_one_that_is_missing_is_missed() {
    let fleet = Fleet::of(4).await;
    let id = fleet.draft::<Unlock>(&serials(0..2)).await.id;
    assert_eq!(fleet.add::<Unlock>(&id, 1, &serials(0..2)).await.lines, 2);
    // Of one that overlaps, what is new.
    assert_eq!(fleet.add::<Unlock>(&id, 2, &serials(1..4)).await.lines, 4);
    assert_eq!(fleet.words(&id).await, ["ready"; 4]);
    let permit: Permit<Unlock> = fleet.permit("batch").await;
    let batches = fleet.escrow.batches();
    for first in [0, 6, i64::MAX] {
        let gap = batches.add_lines(&permit, &id, first, serials(0..1)).await;
        assert!(matches!(gap.unwrap(), Changed::Gap(_)), "{first}");
    }
    let many = batches.add_lines(&permit, &id, 5, serials(0..1_001)).await;
    assert!(matches!(many.unwrap(), Changed::TooMany(_)));
    done(batches.start(&permit, &id).await.unwrap());
    let late = batches.add_lines(&permit, &id, 5, serials(0..1)).await;
    assert!(matches!(late.unwrap(), Changed::NotNow(_)));
}

#[tokio::test]
async fn the_same_key_is_the_same_batch() {
    let fleet = Fleet::of(0).await;
    let permit: Permit<Unlock> = fleet.permit("batch").await;
    let with = |reason: &str| NewBatch {
        reason: reason.to_owned(),
        idempotency: Some(Key::new("key", &[reason])),
        ..new()
    };
    let batches = fleet.escrow.batches();
    let Created::New(first) = batches.create(&permit, with("one")).await.unwrap() else {
        panic!("it is new")
    };
    let Created::Same(again) = batches.create(&permit, with("one")).await.unwrap() else {
        panic!("it is the same")
    };
    assert_eq!(first.id, again.id);
    let other = batches.create(&permit, with("two")).await.unwrap();
    assert!(matches!(other, Created::KeyReused));
    // For another action it is another key.
    let permit: Permit<Refresh> = fleet.permit("batch").await;
    let other = batches.create(&permit, with("one")).await.unwrap();
    assert!(matches!(other, Created::New(_)));
}

#[tokio::test]
async fn lines_enter_the_queue_a_few_at_a_time_each_once_and_it_ends_when_the_last_has() {
    let fleet = Fleet::of(6).await;
    let id = fleet.running(&serials(0..6)).await;
    assert_eq!(fleet.feed(narrow()).await.begun, 4);
    let fed = fleet.feed(narrow()).await;
    assert_eq!((fed.begun, fed.some_run), (0, true));
    let view = fleet.view(&id).await;
    assert_eq!((view.ready(), view.under_way(), view.done()), (2, 4, 0));
    let permit: Permit<Read> = fleet.permit("batch").await;
    let batches = fleet.escrow.batches();
    let lines = batches
        .lines(&permit, &id, Some("queued"), 0, 500)
        .await
        .unwrap();
    assert_eq!(lines.len(), 4);
    let operations = fleet.escrow.operations();
    let may: Permit<Unlock> = fleet.permit("unlock").await;
    for line in &lines {
        operations
            .cancel(&may, line.operation.as_ref().unwrap())
            .await
            .unwrap();
    }
    assert_eq!(fleet.feed(narrow()).await.begun, 2);
    assert_eq!(fleet.view(&id).await.state, BatchState::Running);
    let lines = batches
        .lines(&permit, &id, Some("queued"), 0, 500)
        .await
        .unwrap();
    for line in &lines {
        operations
            .cancel(&may, line.operation.as_ref().unwrap())
            .await
            .unwrap();
    }
    fleet.feed(narrow()).await;
    let view = fleet.view(&id).await;
    assert_eq!((view.state, view.done()), (BatchState::Ended, 6));
    assert_eq!(view.count("cancelled"), 6);
    assert!(!fleet.feed(narrow()).await.some_run);
    let rows = audit_texts(&fleet).await;
    let of = |action: &str| rows.iter().filter(|row| row.contains(action)).count();
    assert_eq!(of("\"unlock.request\""), 6);
    assert_eq!((of("\"batch.start\""), of("\"batch.end\"")), (1, 1));
    let proof = format!("\"proof\":\"batch {id}\"");
    assert_eq!(of(&proof), 6, "each line says whose batch it is of");
    assert!(fleet.record_is_whole().await);
}

#[tokio::test]
async fn what_has_changed_since_it_was_looked_at_is_seen_when_its_turn_comes() {
    let fleet = Fleet::of(2).await;
    let id = fleet.running(&serials(0..2)).await;
    fleet.urgently(1).await;
    fleet.feed_all().await;
    assert_eq!(fleet.words(&id).await, ["queued", "in_progress"]);
}

#[tokio::test]
async fn an_urgent_wish_goes_before_every_line_and_batches_take_turns() {
    let fleet = Fleet::of(9).await;
    let first = fleet.running(&serials(0..4)).await;
    let second = fleet.running(&serials(4..8)).await;
    for _ in 0..2 {
        fleet.feed(narrow()).await;
    }
    assert_eq!(fleet.view(&first).await.under_way(), 4);
    assert_eq!(fleet.view(&second).await.under_way(), 4);
    fleet.urgently(8).await;
    let operations = fleet.escrow.operations();
    let Claim::Lease(lease) = operations.claim(&settings(8, 0.0)).await.unwrap() else {
        panic!("something is due")
    };
    assert_eq!(lease.serial().as_str(), serial(8));
}

#[tokio::test]
async fn one_that_is_paused_begins_nothing_and_one_that_is_cancelled_ends_what_is_not_in_flight() {
    let fleet = Fleet::of(6).await;
    let id = fleet.running(&serials(0..6)).await;
    fleet.feed(narrow()).await;
    let permit: Permit<Unlock> = fleet.permit("batch").await;
    let batches = fleet.escrow.batches();
    let paused = done(batches.pause(&permit, &id).await.unwrap());
    assert_eq!(paused.state, BatchState::Paused);
    assert_eq!(fleet.feed(narrow()).await, Fed::default());
    let resumed = done(batches.resume(&permit, &id).await.unwrap());
    assert_eq!(resumed.state, BatchState::Running);
    let cancelled = done(batches.cancel(&permit, &id).await.unwrap());
    assert_eq!(cancelled.state, BatchState::Cancelled);
    assert_eq!((cancelled.under_way(), cancelled.ready()), (0, 2));
    assert_eq!(cancelled.count(StateName::Cancelled.as_str()), 4);
    assert_eq!(fleet.feed(narrow()).await, Fed::default());
    for again in [
        batches.resume(&permit, &id).await,
        batches.start(&permit, &id).await,
    ] {
        assert!(matches!(again.unwrap(), Changed::NotNow(_)));
    }
    // Of another kind there is none of that name.
    let lock: Permit<Lock> = fleet.permit("batch").await;
    assert!(matches!(
        batches.cancel(&lock, &id).await.unwrap(),
        Changed::Unknown
    ));
}

#[tokio::test]
async fn r21_after_a_restore_no_batch_goes_on_by_itself() {
    let fleet = Fleet::of(6).await;
    let id = fleet.running(&serials(0..6)).await;
    fleet.feed(narrow()).await;
    fleet
        .escrow
        .operations()
        .hold_after_restore()
        .await
        .unwrap();
    let view = fleet.view(&id).await;
    assert_eq!(
        (view.state, view.held_for),
        (BatchState::Paused, Some(HeldFor::Restored))
    );
    assert_eq!((view.under_way(), view.count("needs_review")), (0, 4));
    assert_eq!(fleet.feed(narrow()).await, Fed::default());
}

#[tokio::test]
async fn r14_who_has_lost_the_duty_feeds_nothing() {
    let fleet = Fleet::of(2).await;
    fleet.running(&serials(0..2)).await;
    let stale = fleet.duty("one").await;
    fleet.clock.advance(Duration::from_secs(120));
    fleet.duty("two").await;
    let fed = fleet.escrow.batches().feed(&stale, narrow()).await.unwrap();
    assert_eq!(fed, Fed::default());
}

#[tokio::test]
async fn one_approval_is_for_the_whole_batch_and_for_no_line_more() {
    let fleet = Fleet::of(3).await;
    let desk = settled(&fleet, "desk", &[Role::Operator]).await;
    let max = settled(&fleet, "max", &[Role::Approver]).await;
    let policy = Policy {
        people: 1,
        ..Policy::default()
    };
    let admin = fleet.permit("policy").await;
    let set = fleet
        .escrow
        .policies()
        .set(&admin, Action::Unlock, policy)
        .await;
    set.unwrap().unwrap();
    let id = fleet.draft::<Unlock>(&serials(0..2)).await.id;
    let who = desk.actor(&fleet).await;
    let refused = fleet.start_as(&who, &id).await;
    assert!(matches!(
        refused,
        Err(Error::Refused(Refusal::ApprovalNeeded(_)))
    ));
    let asking = who
        .clone()
        .with_leave(Leave::Asking("the end of the year".to_owned()));
    let Err(Error::Refused(Refusal::Asked { approval })) = fleet.start_as(&asking, &id).await
    else {
        panic!("others are asked")
    };
    let approver = max.actor(&fleet).await;
    let permit: Permit<Approve> = fleet
        .escrow
        .authorise(&approver, &fleet.organisation, approval.as_str())
        .await
        .unwrap();
    let decided = fleet
        .escrow
        .approvals()
        .decide(&permit, &approval, true, None)
        .await;
    decided.unwrap();
    // A line more, and it is another batch than the one that was approved.
    fleet.add::<Unlock>(&id, 3, &serials(2..3)).await;
    let under = who.clone().with_leave(Leave::Under(approval.clone()));
    let unfit = fleet.start_as(&under, &id).await;
    assert!(matches!(unfit, Err(Error::Refused(Refusal::Unfit { .. }))));
    // As it was approved it runs, and its lines need nobody else.
    let id = fleet.draft::<Unlock>(&serials(0..2)).await.id;
    let asking = who
        .clone()
        .with_leave(Leave::Asking("the end of the year".to_owned()));
    let Err(Error::Refused(Refusal::Asked { approval })) = fleet.start_as(&asking, &id).await
    else {
        panic!("others are asked")
    };
    let decided = fleet
        .escrow
        .approvals()
        .decide(&permit, &approval, true, None)
        .await;
    decided.unwrap();
    let under = who.clone().with_leave(Leave::Under(approval));
    let view = done(fleet.start_as(&under, &id).await.unwrap());
    assert_eq!(
        (view.state, view.requested_by.as_str()),
        (BatchState::Running, "desk by name")
    );
    fleet.feed_all().await;
    assert_eq!(fleet.words(&id).await, ["queued"; 2]);
}

#[tokio::test]
async fn an_approval_is_for_whoever_started_it_and_another_who_lets_it_go_on_needs_one() {
    let fleet = Fleet::of(2).await;
    let desk = settled(&fleet, "desk", &[Role::Operator]).await;
    let other = settled(&fleet, "other", &[Role::Operator]).await;
    settled(&fleet, "max", &[Role::Approver]).await;
    let id = fleet.draft::<Unlock>(&serials(0..2)).await.id;
    let (who, other) = (desk.actor(&fleet).await, other.actor(&fleet).await);
    done(fleet.start_as(&who, &id).await.unwrap());
    let may = async |actor: &Actor| -> Permit<Unlock> {
        let subject = format!("batch {id}");
        let authorised = fleet.escrow.authorise(actor, &fleet.organisation, subject);
        authorised.await.unwrap()
    };
    let batches = fleet.escrow.batches();
    done(batches.pause(&may(&who).await, &id).await.unwrap());
    let policy = Policy {
        people: 1,
        ..Policy::default()
    };
    let admin = fleet.permit("policy").await;
    let policies = fleet.escrow.policies();
    let set = policies.set(&admin, Action::Unlock, policy).await;
    set.unwrap().unwrap();
    let refused = batches.resume(&may(&other).await, &id).await;
    assert!(matches!(
        refused,
        Err(Error::Refused(Refusal::ApprovalNeeded(_)))
    ));
    assert_eq!(fleet.view(&id).await.state, BatchState::Paused);
    let resumed = done(batches.resume(&may(&who).await, &id).await.unwrap());
    assert_eq!(resumed.state, BatchState::Running);
}

#[tokio::test]
async fn it_stops_when_whoever_started_it_may_not_do_that_any_more_and_goes_on_for_another() {
    let fleet = Fleet::of(2).await;
    let desk = settled(&fleet, "desk", &[Role::Operator]).await;
    let id = fleet.draft::<Unlock>(&serials(0..2)).await.id;
    let who = desk.actor(&fleet).await;
    done(fleet.start_as(&who, &id).await.unwrap());
    crate::people::set_roles(&fleet, &desk.view.id, &[Role::Viewer])
        .await
        .unwrap();
    fleet.feed_all().await;
    let view = fleet.view(&id).await;
    assert_eq!(
        (view.state, view.held_for),
        (BatchState::Paused, Some(HeldFor::NotAllowed))
    );
    assert_eq!(fleet.words(&id).await, ["ready"; 2]);
    let permit: Permit<Unlock> = fleet.permit("batch").await;
    done(fleet.escrow.batches().resume(&permit, &id).await.unwrap());
    fleet.feed_all().await;
    assert_eq!(fleet.words(&id).await, ["queued"; 2]);
}

#[tokio::test]
async fn batches_are_listed_newest_first_and_found_by_whoever_may_see_them() {
    let fleet = Fleet::of(1).await;
    let first = fleet.draft::<Unlock>(&serials(0..1)).await.id;
    fleet.clock.advance(Duration::from_secs(1));
    let second = fleet.draft::<Refresh>(&serials(0..1)).await;
    assert_eq!(second.count("not_enrolled"), 1);
    let permit: Permit<Read> = fleet.permit("batches").await;
    let batches = fleet.escrow.batches();
    let ids = |views: Vec<BatchView>| views.into_iter().map(|view| view.id).collect::<Vec<_>>();
    let all = batches.list(&permit, None, 10).await.unwrap();
    assert_eq!(ids(all), [second.id.clone(), first.clone()]);
    let rest = batches.list(&permit, Some(&second.id), 10).await.unwrap();
    assert_eq!(ids(rest), std::slice::from_ref(&first));
    let found = batches.locate(&fleet.actor, &first).await.unwrap();
    assert_eq!(
        found,
        Some((fleet.organisation.clone(), BatchAction::Unlock))
    );
    assert_eq!(batches.locate(&fleet.actor, "none").await.unwrap(), None);
    let nothing: Permit<Refresh> = fleet.permit("batch").await;
    let started = batches.start(&nothing, &second.id).await.unwrap();
    assert!(matches!(started, Changed::Nothing(_)));
}

#[tokio::test]
async fn r4_a_batch_of_locks_leaves_out_what_no_list_names() {
    let fleet = Fleet::of(1).await;
    let view = fleet.draft::<Lock>(&serials(0..2)).await;
    assert_eq!(view.count("not_assigned"), 1);
    assert_eq!(view.count("unknown_device"), 1);
}
