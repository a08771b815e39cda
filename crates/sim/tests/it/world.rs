//! A whole world.

use std::{collections::BTreeSet, time::Duration};

use sim::{LockKind, Story, World, WorldOptions, nanomdm::Delivery};

use crate::support::{Receiver, enqueue};

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
    assert_eq!(stories.len(), 4);
    for (story, device) in &stories {
        let serial = device.serial();
        assert_eq!(world.story(&serial), Some(*story));
        assert!(world.story_is_ready(&serial), "{story:?}");
        assert_eq!(
            world.apple().lock_state(&serial),
            Some(LockKind::User),
            "{story:?}"
        );
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
