//! Commands on their way to MDMs: R8.

use std::time::Duration;

use escrow::commands::{Command, CommandState};
use sim::nanomdm::CommandQueued;
use sim::{ApiFault, Device, DeviceSpec, Kind};

use crate::support::{Options, Stage};

const SERIAL: &str = "SIMTEST00001";
const CODE_COMMAND: &str = "ActivationLockBypassCode";

async fn commands(stage: &Stage, serial: &str) -> Vec<Command> {
    stage
        .find(serial)
        .await
        .map(|view| view.commands)
        .unwrap_or_default()
}

/// Waits until all commands of a device are so.
async fn commands_are(stage: &Stage, serial: &str, is_so: impl Fn(&Command) -> bool) {
    stage
        .until("the commands to be as expected", async || {
            let commands = commands(stage, serial).await;
            !commands.is_empty() && commands.iter().all(&is_so)
        })
        .await;
}

/// Waits until all commands of a device are queued, while time passes.
async fn all_queued_in_steps(stage: &Stage, serial: &str) {
    stage
        .until_in_steps(
            "the commands to be queued",
            Duration::from_secs(1),
            async || {
                let commands = commands(stage, serial).await;
                commands
                    .iter()
                    .all(|command| command.state == CommandState::Queued)
            },
        )
        .await;
}

fn uuids(queued: &[CommandQueued], id: &str) -> Vec<String> {
    let mut uuids: Vec<_> = queued
        .iter()
        .filter(|command| command.id == id)
        .map(|command| command.uuid.clone())
        .collect();
    uuids.sort();
    uuids
}

#[tokio::test]
async fn r8_commands_wait_for_an_mdm_that_is_down_and_go_when_it_is_back() {
    let stage = Stage::new().await;
    stage.mdm.go_offline().await;
    stage.device(SERIAL, Kind::IpadWifi).enrol();
    stage.mdm.webhooks_settled().await;
    commands_are(&stage, SERIAL, |command| {
        command.state == CommandState::Planned
            && command
                .reason
                .as_deref()
                .is_some_and(|why| why.contains("cannot be reached"))
    })
    .await;
    stage.mdm.come_back().await;
    // The MDM is asked whether it is back long before each command's own wait, of a minute, is over.
    let before = stage.now();
    all_queued_in_steps(&stage, SERIAL).await;
    assert!(stage.now().since(before) < Duration::from_secs(30));
    let mut known: Vec<_> = commands(&stage, SERIAL)
        .await
        .into_iter()
        .map(|c| c.id)
        .collect();
    known.sort();
    let id = stage.view(SERIAL).await.epochs[0].enrollment.clone();
    assert_eq!(
        uuids(&stage.mdm.commands().all(), &id),
        known,
        "under our CommandUUIDs"
    );
}

#[tokio::test]
async fn r8_a_command_whose_answer_was_lost_is_queued_once() {
    let stage = Stage::new().await;
    stage
        .mdm
        .push_api_fault(ApiFault::lose_answer().for_path("enqueue").times(2));
    let device = stage.device(SERIAL, Kind::IpadWifi);
    device.enrol();
    stage.mdm.webhooks_settled().await;
    commands_are(&stage, SERIAL, |command| command.reason.is_some()).await;
    all_queued_in_steps(&stage, SERIAL).await;
    let queued = uuids(&stage.mdm.commands().all(), &device.enrollment_id());
    let mut once = queued.clone();
    once.dedup();
    assert_eq!((queued.len(), once.len()), (2, 2), "each is there once");
}

#[tokio::test]
async fn r8_an_mdm_that_does_not_know_an_enrollment_is_told_on_the_device_and_tried_again() {
    let stage = Stage::new().await;
    let device = stage.device(SERIAL, Kind::IpadWifi);
    stage
        .mdm
        .push_api_fault(ApiFault::status(500).for_path("enqueue").times(2));
    device.enrol();
    stage.mdm.webhooks_settled().await;
    commands_are(&stage, SERIAL, |command| {
        command
            .reason
            .as_deref()
            .is_some_and(|why| why.contains("did not take it"))
    })
    .await;
    // The others of this MDM go on at once.
    stage.enrolled("SIMTEST00002", Kind::IpadWifi).await;
    assert!(
        commands(&stage, SERIAL)
            .await
            .iter()
            .all(|c| c.state == CommandState::Planned)
    );
    all_queued_in_steps(&stage, SERIAL).await;
}

#[tokio::test]
async fn r8_one_dead_mdm_keeps_no_other_waiting() {
    let mut stage = Stage::new().await;
    let (dead, _) = stage.another_mdm("dead").await;
    // Hangs, rather than refuse: each call takes its whole time-out.
    let gate = sim::Gate::new();
    dead.push_api_fault(ApiFault::hold(&gate).times(10_000));
    let serials: Vec<String> = (0..200).map(|n| format!("SIMDEAD{n:05}")).collect();
    for (number, serial) in (0..).zip(&serials) {
        let spec = DeviceSpec::new(serial, Kind::IpadWifi, number);
        Device::new(spec, &dead, &stage.apple).enrol();
    }
    dead.webhooks_settled().await;
    dead.calls()
        .wait_for("calls of the dead MDM", |calls| calls.len() >= 4)
        .await;
    stage.enrolled(SERIAL, Kind::IpadWifi).await;
    assert_eq!(stage.view(SERIAL).await.codes.len(), 1);
    assert!(
        dead.calls().count() <= 4,
        "no more than its share is tried at once"
    );
    let mut taken = 0;
    for serial in &serials {
        let tried = |command: &&Command| command.tries > 0;
        taken += commands(&stage, serial).await.iter().filter(tried).count();
    }
    assert!(
        (4..200).contains(&taken),
        "{taken} of 400 were taken for it"
    );
    gate.open();
}

#[tokio::test]
async fn r8_a_fleet_gets_its_commands_when_a_dead_mdm_is_back() {
    let stage = Stage::new().await;
    stage.mdm.go_offline().await;
    let devices: Vec<Device> = (0..150)
        .map(|number| stage.device(&format!("SIMFLEET{number:04}"), Kind::IpadWifi))
        .collect();
    for device in &devices {
        device.enrol();
    }
    stage.mdm.webhooks_settled().await;
    commands_are(&stage, "SIMFLEET0000", |command| command.reason.is_some()).await;
    // An hour of it.
    for _ in 0..60 {
        stage.clock.advance(Duration::from_secs(60));
        tokio::task::yield_now().await;
    }
    stage.mdm.come_back().await;
    let before = stage.now();
    stage
        .until_in_steps("the first", Duration::from_secs(1), async || {
            stage.mdm.commands().count() > 0
        })
        .await;
    let took = stage.now().since(before);
    assert!(took < Duration::from_secs(6 * 60), "it took {took:?}");
    stage
        .until("all of them", async || stage.mdm.commands().count() == 300)
        .await;
}

#[tokio::test]
async fn the_rate_of_an_mdm_is_kept() {
    let stage = Stage::with(Options {
        max_rate: Some(0.1),
        ..Options::default()
    })
    .await;
    stage.device(SERIAL, Kind::IpadWifi).enrol();
    let queued = stage.mdm.commands();
    queued
        .wait_for("the first command", |commands| commands.len() == 1)
        .await;
    stage.mdm.webhooks_settled().await;
    stage.clock.advance(Duration::from_millis(9_999));
    // Another device's enrolment goes through the courier meanwhile, and its commands wait behind.
    stage.device("SIMTEST00002", Kind::IpadWifi).enrol();
    stage.mdm.webhooks_settled().await;
    assert_eq!(queued.count(), 1);
    stage.clock.advance(Duration::from_millis(1));
    queued
        .wait_for("the second command", |commands| commands.len() == 2)
        .await;
    assert_eq!(queued.count(), 2);
}

#[tokio::test]
async fn a_command_that_waited_for_its_turn_does_not_go_to_an_mdm_that_was_removed() {
    let stage = Stage::with(Options {
        max_rate: Some(0.1),
        ..Options::default()
    })
    .await;
    stage.device(SERIAL, Kind::IpadWifi).enrol();
    let calls = stage.mdm.calls();
    calls
        .wait_for("the first command", |calls| calls.len() == 1)
        .await;
    stage
        .until("the other to be taken", async || {
            let commands = commands(&stage, SERIAL).await;
            commands.len() == 2 && commands.iter().all(|command| command.tries > 0)
        })
        .await;
    let permit = stage.permit("connection").await;
    let connections = stage.escrow().connections();
    connections.remove(&permit, "mdm").await.unwrap().unwrap();
    stage.clock.advance(Duration::from_secs(10));
    stage
        .until("it to be told", async || {
            let commands = commands(&stage, SERIAL).await;
            let told = |reason: &str| reason.contains("removed");
            commands
                .iter()
                .any(|command| command.reason.as_deref().is_some_and(told))
        })
        .await;
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn r8_an_mdm_is_tried_at_once_when_its_connection_was_mended() {
    let stage = Stage::new().await;
    stage.mdm.set_api_key("another");
    stage.device(SERIAL, Kind::IpadWifi).enrol();
    stage.mdm.webhooks_settled().await;
    commands_are(&stage, SERIAL, |command| {
        command
            .reason
            .as_deref()
            .is_some_and(|why| why.contains("API key of the connection mdm"))
    })
    .await;
    // After some tries it is let alone for minutes.
    let asked = || {
        let calls = stage.mdm.calls().all();
        calls
            .iter()
            .filter(|call| call.path.contains("connection-test"))
            .count()
    };
    stage
        .until_in_steps("some tries", Duration::from_secs(1), async || asked() >= 6)
        .await;
    let permit = stage.permit("connection").await;
    let change = escrow::connections::ConnectionChange {
        api_key: Some("another".to_owned().into()),
        ..Default::default()
    };
    let connections = stage.escrow().connections();
    connections
        .change(&permit, "mdm", change)
        .await
        .unwrap()
        .unwrap();
    commands_are(&stage, SERIAL, |command| {
        command.state == CommandState::Queued
    })
    .await;
}

#[tokio::test]
async fn a_stop_while_an_mdm_hangs_is_not_held_up_and_the_next_start_goes_on() {
    let mut stage = Stage::new().await;
    let gate = sim::Gate::new();
    stage
        .mdm
        .push_api_fault(ApiFault::hold(&gate).for_path("enqueue").times(2));
    stage.device(SERIAL, Kind::IpadWifi).enrol();
    stage
        .mdm
        .calls()
        .wait_for("calls", |calls| calls.len() == 2)
        .await;
    stage.mdm.webhooks_settled().await;
    crate::support::in_time("the stop", stage.stop()).await;
    stage.start().await;
    commands_are(&stage, SERIAL, |command| {
        command.state == CommandState::Queued
    })
    .await;
    assert_eq!(
        commands(&stage, SERIAL).await[0].what.request_type(),
        CODE_COMMAND
    );
    gate.open();
}
