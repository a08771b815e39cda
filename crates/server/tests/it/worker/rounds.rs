//! What is looked at now and then.

use std::time::Duration;

use escrow::commands::CommandState;
use escrow::enrollments::EpochState;
use sim::nanomdm::Delivery;
use sim::{Device, DeviceSpec, Kind};

use crate::support::{Stage, client, in_time};

const SERIAL: &str = "SIMTEST00001";
const HOUR: Duration = Duration::from_secs(60 * 60);

#[tokio::test]
async fn r8_after_a_start_those_with_a_question_pending_are_asked_again() {
    let mut stage = Stage::new().await;
    let told = stage.enrolled("SIMTEST00002", Kind::IpadWifi).await;
    let device = stage.device(SERIAL, Kind::IpadWifi);
    device.enrol();
    let id = device.enrollment_id();
    stage
        .mdm
        .wait_for_command(&id, "ActivationLockBypassCode")
        .await;
    stage.mdm.wait_for_command(&id, "DeviceInformation").await;
    stage
        .until("the commands to be on record as queued", async || {
            let commands = stage.view(SERIAL).await.commands;
            commands.len() == 2 && commands.iter().all(|c| c.state == CommandState::Queued)
        })
        .await;
    stage.stop().await;
    // The answers are lost: nobody listens.
    device.poll();
    stage.mdm.webhooks_settled().await;
    stage.clock.advance(Duration::from_secs(60));
    let before = stage.mdm.commands().count();
    stage.start().await;
    stage
        .mdm
        .commands()
        .wait_for("the question to be asked again", |commands| {
            let asked = |c: &&sim::nanomdm::CommandQueued| {
                c.id == id && c.request_type == "ActivationLockBypassCode"
            };
            commands.iter().filter(asked).count() == 2
        })
        .await;
    stage.tell_code(&device).await;
    stage
        .until("the code to be held", async || {
            device.poll();
            stage.mdm.webhooks_settled().await;
            stage.view(SERIAL).await.codes.len() == 1
        })
        .await;
    let later = stage
        .mdm
        .commands()
        .all()
        .split_off(usize::try_from(before).unwrap());
    assert!(
        later
            .iter()
            .all(|command| command.id != told.enrollment_id())
    );
}

#[tokio::test]
async fn a_removed_connection_s_webhook_is_refused_at_once() {
    let stage = Stage::new().await;
    let device = stage.enrolled(SERIAL, Kind::IpadWifi).await;
    let permit = stage.permit("connection").await;
    let connections = stage.escrow().connections();
    connections.remove(&permit, "mdm").await.unwrap().unwrap();
    let before = stage.now();
    stage
        .until("the webhook to be refused", async || {
            device.poll();
            stage.mdm.webhooks_settled().await;
            let sent = stage.mdm.webhooks().all();
            sent.last()
                .is_some_and(|last| last.delivery == Delivery::Answered(401))
        })
        .await;
    // What is kept of a connection would be used for five seconds more.
    assert!(stage.now().since(before) < Duration::from_secs(3));
}

#[tokio::test]
async fn r8_after_a_burst_of_refused_webhooks_those_with_a_question_pending_are_asked_at_once() {
    let stage = Stage::new().await;
    let other = stage.enrolled("SIMTEST00002", Kind::IpadWifi).await;
    let device = stage.device(SERIAL, Kind::IpadWifi);
    device.enrol();
    let id = device.enrollment_id();
    stage
        .mdm
        .wait_for_command(&id, "ActivationLockBypassCode")
        .await;
    stage
        .until("the commands to be on record as queued", async || {
            let commands = stage.view(SERIAL).await.commands;
            commands.len() == 2 && commands.iter().all(|c| c.state == CommandState::Queued)
        })
        .await;
    stage.clock.advance(Duration::from_secs(1));
    for _ in 0..3 {
        let refused = client().post(format!("{}/v1/hooks/mdm", stage.url()));
        assert_eq!(refused.send().await.unwrap().status(), 401);
    }
    // The next good webhook shows that the MDM is in its right mind again.
    let before = stage.now();
    other.poll();
    let asked = async || {
        let all = stage.mdm.commands().all();
        let ours = all.iter().filter(|c| c.id == id);
        ours.filter(|c| c.request_type == "ActivationLockBypassCode")
            .count()
    };
    stage
        .until("the question again", async || asked().await == 2)
        .await;
    let took = stage.now().since(before);
    assert!(
        took < Duration::from_secs(30),
        "not only in the next round: {took:?}"
    );
}

#[tokio::test]
async fn a_server_with_nothing_to_do_stops_at_once() {
    let mut stage = Stage::new().await;
    in_time("the stop", stage.stop()).await;
}

#[tokio::test]
async fn r5_a_dispute_ends_when_one_side_has_been_silent_for_a_week() {
    let mut stage = Stage::new().await;
    let here = stage.enrolled(SERIAL, Kind::IpadWifi).await;
    let (other, _) = stage.another_mdm("other").await;
    let there = Device::new(
        DeviceSpec::new(SERIAL, Kind::IpadWifi, 99),
        &other,
        &stage.apple,
    );
    there.enrol();
    let states = async || {
        let epochs = stage.view(SERIAL).await.epochs;
        epochs.iter().map(|epoch| epoch.state).collect::<Vec<_>>()
    };
    stage
        .until("the dispute", async || {
            states().await == [EpochState::Disputed; 2]
        })
        .await;
    // Only one of them is heard of from now on.
    stage
        .until_in_steps("the end of the dispute", HOUR, async || {
            there.poll();
            other.webhooks_settled().await;
            states().await == [EpochState::Silent, EpochState::Live]
        })
        .await;
    assert!(here.is_enrolled());
}

#[tokio::test]
async fn r22_an_event_is_known_again_for_thirty_days_and_then_forgotten() {
    let stage = Stage::new().await;
    stage.enrolled(SERIAL, Kind::IpadWifi).await;
    let told_again = async |result: &str| {
        let metrics = client().get(format!("{}/metrics", stage.url()));
        let text = metrics.send().await.unwrap().text().await.unwrap();
        let counter = format!("lockwarden_webhooks_total{{result=\"{result}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&counter));
        line.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    let before = told_again("known").await;
    assert!(stage.mdm.replay_webhook(0));
    stage
        .until("the event to be known", async || {
            told_again("known").await == before + 1
        })
        .await;
    let day = Duration::from_secs(24 * 60 * 60);
    stage.clock.advance(day * 29);
    assert!(stage.mdm.replay_webhook(0));
    stage
        .until("the event to be known still", async || {
            told_again("known").await == before + 2
        })
        .await;
    let recorded = told_again("recorded").await;
    stage.clock.advance(day * 2);
    stage
        .until_in_steps("the event to be forgotten", HOUR, async || {
            stage.mdm.replay_webhook(0);
            stage.mdm.webhooks_settled().await;
            told_again("recorded").await > recorded
        })
        .await;
}
