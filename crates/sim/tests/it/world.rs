//! A whole world.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use sim::{Code, LockKind, Story, World, WorldOptions, nanomdm::Delivery};

use crate::{
    business_client,
    dep_client::{self, Clock},
    support::{CODE, Receiver, enqueue},
};

fn options(devices: usize) -> WorldOptions {
    WorldOptions {
        seed: 5,
        devices,
        poll_every: Duration::from_millis(50),
        ..WorldOptions::default()
    }
}

#[tokio::test]
async fn the_same_seed_makes_the_same_world() {
    let (one, two) = (
        World::start(options(25)).await.unwrap(),
        World::start(options(25)).await.unwrap(),
    );
    assert_eq!(one.serials(), two.serials());
    assert_eq!(
        one.serials().iter().collect::<BTreeSet<_>>().len(),
        25,
        "all different"
    );
    assert!(one.serials().iter().all(|serial| serial.starts_with("SIM")));
    for serial in one.serials() {
        let (a, b) = (one.device(&serial).unwrap(), two.device(&serial).unwrap());
        assert_eq!(
            (a.kind(), a.enrollment_id(), a.identity()),
            (b.kind(), b.enrollment_id(), b.identity())
        );
    }
    let other = World::start(WorldOptions {
        seed: 6,
        ..options(25)
    })
    .await
    .unwrap();
    assert_ne!(one.serials(), other.serials());
    one.stop().await;
}

#[tokio::test]
async fn what_is_supervised_belongs_to_the_organisation() {
    let clock = Clock::new();
    let world = World::start(WorldOptions {
        now: clock.now(),
        ..options(25)
    })
    .await
    .unwrap();
    let serials = world.serials();
    let supervised: BTreeSet<String> = serials
        .iter()
        .filter(|serial| world.device(serial).unwrap().kind().is_supervised())
        .cloned()
        .collect();
    assert!(supervised.len() < serials.len(), "there are others too");
    let named = |list: &Value, name: &str| -> BTreeSet<String> {
        let devices = list.as_array().unwrap().iter();
        devices
            .map(|device| device[name].as_str().unwrap().to_owned())
            .collect()
    };

    let dep = dep_client::Stage::at(world.apple(), world.dep(), world.dep_token(), clock.clone());
    let list = dep.call("/server/devices", &json!({})).await.json();
    assert_eq!(named(&list["devices"], "serial_number"), supervised);
    let api = business_client::Stage::at(
        world.apple(),
        world.business_manager(),
        world.api_account(),
        clock,
    );
    let list = api.call("/v1/orgDevices").await.json();
    assert_eq!(named(&list["data"], "id"), supervised);

    // One table of locks: on through the one service, seen through the other, with the identity the device has.
    let device = world
        .stories()
        .remove(&Story::Erased)
        .expect("this story has a phone with two SIMs");
    let serial = device.serial();
    let hash = Code::parse(CODE).unwrap().hash().hex();
    assert_eq!(dep.lock_status(&serial, &hash).await, "SUCCESS");
    let path = format!("/v1/orgDevices/{serial}");
    let status = api.call(&format!("{path}/activationLockStatus")).await;
    assert_eq!(status.json()["data"]["attributes"]["lockType"], "MDM");
    let told = api.call(&path).await.json()["data"]["attributes"].clone();
    let identity = device.identity();
    assert_eq!(told["productType"], identity.product_type);
    let told: BTreeSet<&str> = told["imei"]
        .as_array()
        .unwrap()
        .iter()
        .map(|imei| imei.as_str().unwrap())
        .collect();
    let known = [
        identity.imei.as_deref().unwrap(),
        identity.imei2.as_deref().unwrap(),
    ];
    assert_eq!(told, known.into());
    world.stop().await;
}

#[tokio::test]
async fn r6_half_enrolled_before_anybody_listened_and_is_seen_by_its_polls_alone() {
    let receiver = Receiver::start().await;
    let world = World::start(options(10)).await.unwrap();
    assert_eq!(world.mdm().webhooks().count(), 0);
    world.step();
    let enrolled = |world: &World| {
        world
            .serials()
            .iter()
            .filter(|serial| world.device(serial).unwrap().is_enrolled())
            .count()
    };
    assert_eq!(
        enrolled(&world),
        5,
        "the others wait for somebody to listen"
    );
    world.set_webhook(Some(receiver.webhook()));
    world.step();
    world.mdm().webhooks_settled().await;
    assert_eq!(enrolled(&world), 10);
    let count = |topic: &str| receiver.topics().iter().filter(|one| *one == topic).count();
    assert_eq!(
        (
            count("mdm.Authenticate"),
            count("mdm.TokenUpdate"),
            count("mdm.Connect")
        ),
        (5, 5, 5)
    );
}

#[tokio::test]
async fn the_stories_come_to_where_they_wait_for_us() {
    let receiver = Receiver::start().await;
    let world = World::start(WorldOptions {
        webhook: Some(receiver.webhook()),
        ..options(6)
    })
    .await
    .unwrap();
    assert_eq!(
        world.mdm().webhooks().count(),
        0,
        "what enrolled before is never told of, whoever listens"
    );
    world.step();
    let mut codes = Vec::new();
    for round in 0..2 {
        for (index, serial) in world.serials().iter().enumerate() {
            let device = world.device(serial).unwrap();
            codes.push((serial.clone(), device.code_text()));
            let uuid = format!("U-{round}-{index}");
            enqueue(
                world.mdm(),
                &device.enrollment_id(),
                &uuid,
                "ActivationLockBypassCode",
                "",
            )
            .await;
        }
        world.step();
    }
    let stories = world.stories();
    assert_eq!(stories.len(), 5);
    for (story, device) in &stories {
        let serial = device.serial();
        assert_eq!(world.story(&serial), Some(*story));
        assert!(world.story_is_ready(&serial), "{story:?}");
        let lock = (*story != Story::Lost).then_some(LockKind::User);
        assert_eq!(world.apple().lock_state(&serial), lock, "{story:?}");
        let had: BTreeSet<_> = codes
            .iter()
            .filter(|(one, _)| *one == serial)
            .map(|(_, code)| code)
            .collect();
        let changed = matches!(story, Story::Erased | Story::WrongFirst);
        assert_eq!(had.len(), if changed { 2 } else { 1 }, "{story:?}");
    }
    world.mdm().webhooks_settled().await;
    let unasked = "51135113-0000-4000-8000-000000000000";
    let told = world.mdm().webhooks().all();
    assert_eq!(
        told.iter()
            .filter(|sent| sent.command_uuid.as_deref() == Some(unasked))
            .count(),
        1
    );
}

#[tokio::test]
async fn a_lost_ipad_is_erased_once_it_is_locked_and_enrols_again_once_the_lock_is_off() {
    let receiver = Receiver::start().await;
    let world = World::start(WorldOptions {
        webhook: Some(receiver.webhook()),
        ..options(6)
    })
    .await
    .unwrap();
    let device = world.stories().remove(&Story::Lost).unwrap();
    let (serial, first) = (device.serial(), device.code_text());
    world.step();
    let other = world.device(&world.serials()[0]).unwrap();
    for one in [&device, &other] {
        let (id, asked) = (one.enrollment_id(), "ActivationLockBypassCode");
        enqueue(world.mdm(), &id, &format!("U-{id}"), asked, "").await;
    }
    for _ in 0..2 {
        world.step();
        assert!(world.story_is_ready(&serial) && device.is_enrolled());
        assert!(device.code_text() == first, "nothing happens by itself");
    }
    let hash = Code::parse(CODE).unwrap().hash();
    world.apple().org_lock(&serial, hash).unwrap();
    world.apple().org_lock(&other.serial(), hash).unwrap();
    for _ in 0..2 {
        world.step();
        assert!(other.is_enrolled(), "it is no other's story");
        assert!(!device.is_enrolled(), "the lock holds it up");
        assert!(device.code_text() != first, "an erase makes a new code");
    }
    assert_eq!(world.apple().lock_state(&serial), Some(LockKind::Mdm));
    let second = device.code_text();
    world.apple().clear_lock(&serial);
    for _ in 0..2 {
        world.step();
        assert!(device.is_enrolled());
        assert!(device.code_text() == second, "it is erased once");
    }
    world.stop().await;
}

#[tokio::test]
async fn lively_devices_enrol_poll_and_answer_pushes_by_themselves() {
    let receiver = Receiver::start().await;
    let world = World::start(WorldOptions {
        webhook: Some(receiver.webhook()),
        ..options(4)
    })
    .await
    .unwrap();
    world.lively();
    let all_seen = |sent: &[sim::nanomdm::WebhookSent]| {
        let polled: BTreeSet<_> = sent
            .iter()
            .filter(|one| one.topic == "mdm.Connect")
            .map(|one| &one.id)
            .collect();
        polled.len() == 4
    };
    world
        .mdm()
        .webhooks()
        .wait_for("every device to poll", all_seen)
        .await;
    let device = world.device(&world.serials()[0]).unwrap();
    enqueue(
        world.mdm(),
        &device.enrollment_id(),
        "U-1",
        "SecurityInfo",
        "",
    )
    .await;
    let answered = |sent: &[sim::nanomdm::WebhookSent]| {
        let is_it = |one: &sim::nanomdm::WebhookSent| one.command_uuid.as_deref() == Some("U-1");
        sent.iter()
            .any(|one| is_it(one) && one.delivery == Delivery::Answered(200))
    };
    world
        .mdm()
        .webhooks()
        .wait_for("the answer", answered)
        .await;
    world.still();
    world.stop().await;
}
