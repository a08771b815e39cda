//! The flow of an enrolment, from the device to the record and back: R1, R6, R7, R8, and T19 to T25.

use std::time::Duration;

use activation_lock::time::DAY;
use escrow::commands::CommandState;
use escrow::coverage::CoverageState;
use escrow::enrollments::{EpochState, OpenedBy};
use sim::devices::ErrorItem;
use sim::nanomdm::CommandQueued;
use sim::{Device, Kind, Udid, WebhookFault};

use crate::support::Stage;

const SERIAL: &str = "SIMTEST00001";

fn types(stage: &Stage, device: &Device) -> Vec<String> {
    let id = device.enrollment_id();
    let queued = stage.mdm.commands().all();
    let of_device = queued.into_iter().filter(|command| command.id == id);
    of_device.map(|command| command.request_type).collect()
}

async fn wait_for(stage: &Stage, device: &Device, request_type: &str) -> CommandQueued {
    stage
        .mdm
        .wait_for_command(&device.enrollment_id(), request_type)
        .await
}

/// Waits until so many commands of this type are queued for the device, while time passes.
async fn wait_for_count(stage: &Stage, device: &Device, request_type: &str, count: usize) {
    stage
        .until_in_steps("enough commands", Duration::from_secs(1), async || {
            let types = types(stage, device);
            types.iter().filter(|kind| *kind == request_type).count() >= count
        })
        .await;
}

fn fingerprint(device: &Device) -> String {
    sim::fingerprint(&device.code_text())
}

#[tokio::test]
async fn t19_a_code_is_asked_for_and_kept_before_the_lock_is_allowed() {
    let stage = Stage::new().await;
    stage.user_lock_policy("allow").await;
    let device = stage.device(SERIAL, Kind::Iphone);
    device.enrol();
    // Who it is, and its code, at once (R6).
    wait_for(&stage, &device, "DeviceInformation").await;
    wait_for(&stage, &device, "ActivationLockBypassCode").await;
    stage.mdm.webhooks_settled().await;
    assert_eq!(
        types(&stage, &device).len(),
        2,
        "the lock is not allowed before the code is held"
    );
    stage.tell_code(&device).await;
    let allow = wait_for(&stage, &device, "Settings").await;
    assert!(stage.view(SERIAL).await.epochs[0].code_at.is_some());
    let item = &allow.body["Settings"].as_array().unwrap()[0];
    let options = item.as_dictionary().unwrap()["MDMOptions"]
        .as_dictionary()
        .unwrap();
    let allowed = options["ActivationLockAllowedWhileSupervised"].as_boolean();
    assert_eq!(allowed, Some(true));
    stage.clock.advance(Duration::from_secs(1));
    device.poll();
    assert!(device.is_allowed());
    // It is read back (R7).
    wait_for_count(&stage, &device, "DeviceInformation", 2).await;
    device.poll();
    stage
        .until("the permission to be read back", async || {
            stage.view(SERIAL).await.epochs[0].facts.allowed == Some(true)
        })
        .await;
    let types = types(&stage, &device);
    assert!(!types.contains(&"DeviceConfigured".to_owned()), "{types:?}");
    assert_eq!(
        stage.view(SERIAL).await.summary.coverage,
        CoverageState::Covered
    );
    assert_eq!(stage.codes(SERIAL).await, [(fingerprint(&device), true)]);
}

#[tokio::test]
async fn t19_the_lock_is_not_allowed_while_the_device_gives_no_code() {
    let stage = Stage::new().await;
    stage.user_lock_policy("allow").await;
    let device = stage.device(SERIAL, Kind::Iphone);
    device.empty_code(1);
    device.enrol();
    wait_for(&stage, &device, "DeviceInformation").await;
    wait_for(&stage, &device, "ActivationLockBypassCode").await;
    device.poll();
    stage
        .until("both answers", async || {
            let commands = stage.view(SERIAL).await.commands;
            commands
                .iter()
                .filter(|c| c.state == CommandState::Answered)
                .count()
                == 2
        })
        .await;
    assert_eq!(
        stage.view(SERIAL).await.summary.coverage,
        CoverageState::Missing
    );
    assert!(!types(&stage, &device).contains(&"Settings".to_owned()));
    // It is asked again the next day (R8), and then the rest follows.
    stage.clock.advance(DAY);
    wait_for_count(&stage, &device, "ActivationLockBypassCode", 2).await;
    stage.tell_code(&device).await;
    wait_for(&stage, &device, "Settings").await;
}

#[tokio::test]
async fn t20_not_now_is_kept_by_the_mdm_and_a_refusal_is_shown() {
    let stage = Stage::new().await;
    let device = stage.device(SERIAL, Kind::Iphone);
    device.not_now(1);
    device.enrol();
    wait_for(&stage, &device, "DeviceInformation").await;
    wait_for(&stage, &device, "ActivationLockBypassCode").await;
    device.poll();
    stage
        .until("the NotNow to be on record", async || {
            let commands = stage.view(SERIAL).await.commands;
            commands
                .iter()
                .any(|command| command.state == CommandState::NotNow)
        })
        .await;
    stage.tell_code(&device).await;
    assert_eq!(types(&stage, &device).len(), 2, "nothing was asked twice");

    let other = stage.device("SIMTEST00002", Kind::Iphone);
    let refusal = vec![ErrorItem::invalid_request_type()];
    other.fail_next(Some("ActivationLockBypassCode"), refusal);
    other.enrol();
    wait_for(&stage, &other, "ActivationLockBypassCode").await;
    stage
        .until("the refusal to be shown", async || {
            other.poll();
            let view = stage.view("SIMTEST00002").await;
            view.epochs[0].facts.refusal.is_some()
        })
        .await;
    let view = stage.view("SIMTEST00002").await;
    assert_eq!(
        view.epochs[0]
            .facts
            .last_error
            .as_ref()
            .map(|link| link.code),
        Some(12021)
    );
}

#[tokio::test]
async fn t22_an_erase_opens_a_new_epoch_and_keeps_the_old_code() {
    let stage = Stage::new().await;
    for (serial, udid) in [(SERIAL, Udid::Same), ("SIMTEST00002", Udid::New)] {
        let device = stage.enrolled(serial, Kind::IphoneDualSim).await;
        let first = fingerprint(&device);
        stage.clock.advance(Duration::from_secs(60));
        device.erase_and_enrol(udid);
        stage.tell_code(&device).await;
        let view = stage.view(serial).await;
        let states: Vec<EpochState> = view.epochs.iter().map(|epoch| epoch.state).collect();
        assert_eq!(
            states,
            [EpochState::Superseded, EpochState::Live],
            "{serial}"
        );
        let held = [(first, false), (fingerprint(&device), true)];
        assert_eq!(stage.codes(serial).await, held, "{serial}");
    }
}

#[tokio::test]
async fn t23_a_code_that_the_device_changed_is_picked_up_within_a_day_and_unlocks() {
    let stage = Stage::new().await;
    let device = stage.enrolled(SERIAL, Kind::Iphone).await;
    device.rotate_code();
    device.lock_with_own_code().unwrap();
    let before = types(&stage, &device).len();
    stage.clock.advance(DAY);
    wait_for_count(&stage, &device, "ActivationLockBypassCode", 2).await;
    assert!(types(&stage, &device).len() > before);
    stage.tell_code(&device).await;
    let asked = stage.unlock(SERIAL).await;
    let view = stage.ended(&asked.id).await;
    assert_eq!((view.state.as_str(), view.attempts.len()), ("unlocked", 1));
}

#[tokio::test]
async fn t24_a_device_set_up_again_after_its_lock_was_undone_unlocks_with_the_new_code() {
    let stage = Stage::new().await;
    let device = stage.enrolled(SERIAL, Kind::Iphone).await;
    device.lock_with_own_code().unwrap();
    device.user_unlock();
    stage.clock.advance(Duration::from_secs(60));
    device.erase_and_enrol(Udid::Same);
    stage.tell_code(&device).await;
    device.lock_with_own_code().unwrap();
    let asked = stage.unlock(SERIAL).await;
    let view = stage.ended(&asked.id).await;
    assert_eq!((view.state.as_str(), view.attempts.len()), ("unlocked", 1));
}

#[tokio::test]
async fn t25_channels_and_devices_that_have_no_code_are_not_asked_for_one() {
    let stage = Stage::new().await;
    let device = stage.device(SERIAL, Kind::SharedIpad);
    device.enrol();
    wait_for(&stage, &device, "DeviceInformation").await;
    wait_for(&stage, &device, "ActivationLockBypassCode").await;
    stage
        .until("the device to say what it is", async || {
            device.poll();
            stage.mdm.webhooks_settled().await;
            stage.view(SERIAL).await.epochs[0].facts.multi_user == Some(true)
        })
        .await;
    let user = device.user_channel_token_update("anna");
    stage.mdm.webhooks_settled().await;
    let codes = || {
        let types = types(&stage, &device);
        types
            .iter()
            .filter(|kind| *kind == "ActivationLockBypassCode")
            .count()
    };
    // Nothing was known of it when it was first asked; now that it is, only who it is is asked now and then.
    assert_eq!(codes(), 1);
    stage.clock.advance(8 * DAY);
    wait_for_count(&stage, &device, "DeviceInformation", 2).await;
    assert_eq!(codes(), 1);
    assert!(
        stage.view(SERIAL).await.epochs[0].not_asked.is_some(),
        "the reason is shown"
    );
    let queued = stage.mdm.commands().all();
    assert!(queued.iter().all(|command| command.id != user));
}

#[tokio::test]
async fn r6_a_fleet_known_only_from_its_polls_gets_all_its_codes() {
    let stage = Stage::new().await;
    // Enrolled before we came: nobody heard of it.
    stage.mdm.set_webhook(None);
    let kinds = [Kind::Iphone, Kind::IpadWifi, Kind::Mac, Kind::IphoneDualSim];
    let devices: Vec<Device> = (0..24)
        .map(|number: usize| stage.device(&format!("SIMOLD{number:06}"), kinds[number % 4]))
        .collect();
    devices.iter().for_each(Device::enrol);
    stage.listen();
    for device in &devices {
        stage.tell_code(device).await;
    }
    stage
        .until("every device to be known with its code", async || {
            for device in &devices {
                device.poll();
            }
            stage.mdm.webhooks_settled().await;
            let coverage = stage.escrow().coverage().total().await.unwrap();
            coverage.covered == 24
        })
        .await;
    for device in &devices {
        let view = stage.view(&device.serial()).await;
        assert_eq!(view.epochs[0].opened_by, OpenedBy::Adopted);
        assert!(view.identity.is_some(), "it can be unlocked");
        assert_eq!(view.summary.window, "satisfied");
    }
}

#[tokio::test]
async fn r6_a_lost_authenticate_is_made_good_by_the_token_update() {
    let stage = Stage::new().await;
    let device = stage.enrolled(SERIAL, Kind::IpadWifi).await;
    stage.clock.advance(Duration::from_secs(60));
    stage
        .mdm
        .push_webhook_fault(WebhookFault::drop().for_topic("mdm.Authenticate"));
    device.erase_and_enrol(Udid::Same);
    stage.tell_code(&device).await;
    stage
        .until("the new epoch", async || {
            device.poll();
            stage.view(SERIAL).await.epochs.len() == 2
        })
        .await;
    let view = stage.view(SERIAL).await;
    assert_eq!(view.epochs[1].opened_by, OpenedBy::TokenUpdate);
    assert_eq!(stage.codes(SERIAL).await.len(), 2);
}

#[tokio::test]
async fn r22_an_event_that_comes_twice_counts_once() {
    let stage = Stage::new().await;
    let device = stage.device(SERIAL, Kind::IpadWifi);
    stage
        .mdm
        .push_webhook_fault(WebhookFault::duplicate().times(50));
    device.enrol();
    stage.tell_code(&device).await;
    let view = stage.view(SERIAL).await;
    assert_eq!((view.epochs.len(), view.codes.len()), (1, 1));
    let answered = stage.mdm.webhooks().all();
    assert!(
        answered
            .iter()
            .all(|sent| sent.delivery == sim::nanomdm::Delivery::Answered(200))
    );
}
