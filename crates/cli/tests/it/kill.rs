//! `kill -9` at any moment: nothing that was acknowledged is lost, no unlock is stuck, and none is falsely called unlocked.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use serde_json::Value;
use sim::apple::Answered;
use sim::nanomdm::Delivery;
use sim::{Device, Fault, Kind};

use crate::installation::{Installation, Server};
use crate::support::{amount, wait_for};

/// How often the server is killed; `scripts/long` asks for more.
fn kills() -> u32 {
    amount("LOCKWARDEN_KILLS", 50)
}

/// An unlock that the server said is queued.
pub(crate) struct Asked {
    id: String,
    serial: String,
}

#[test]
fn r14_kills_at_any_moment_lose_nothing_and_claim_nothing() {
    let mut place = Installation::new();
    let mut rng = ChaCha20Rng::seed_from_u64(14);
    let mut told: BTreeMap<String, Device> = BTreeMap::new();
    let mut asked: Vec<Asked> = Vec::new();
    let mut server = place.serve();
    let mut locked: Option<Device> = None;
    for round in 0..kills() {
        // A device whose code is held already is to be unlocked, while another enrols and tells its code.
        let newcomer = place.device(Kind::ALL[round as usize % 5]);
        if let Some(device) = locked.take() {
            slow_apple(&place, &device, &mut rng);
            asked.extend(ask(&place, &server, &device));
        }
        {
            let _in_runtime = place.runtime.enter();
            newcomer.enrol();
        }
        let moment = Duration::from_millis(rng.random_range(0..400));
        live(&place, &newcomer, moment);
        server.kill();
        server = place.serve();
        place.wait_for_code(&server, &newcomer);
        newcomer.lock_with_own_code().unwrap();
        told.insert(newcomer.serial(), newcomer.clone());
        locked = Some(newcomer);
    }

    acknowledged_codes_are_held(&place, &server, &told);
    for asked in &asked {
        ended_truly(&place, &server, asked);
    }
    assert!(
        asked.len() as u32 >= kills() / 2,
        "only {} unlocks were asked for in {} rounds",
        asked.len(),
        kills()
    );
}

/// Apple takes its time with the device's unlock, before it looks at the lock or after.
pub(crate) fn slow_apple(place: &Installation, device: &Device, rng: &mut ChaCha20Rng) {
    let how_long = Duration::from_millis(rng.random_range(0..150));
    let fault = match rng.random_range(0..4) {
        0 => Fault::drop_after_commit(),
        1 => Fault::drop_before(),
        _ => Fault::delay(how_long),
    };
    place.apple.push_fault(fault.for_serial(device.serial()));
}

/// Asks for an unlock; nothing when the server did not say that it is queued.
pub(crate) fn ask(place: &Installation, server: &Server, device: &Device) -> Option<Asked> {
    let serial = device.serial();
    let asked = place.run(
        server,
        &["unlock", &serial, "--reason", "it is in the way", "--json"],
    );
    let unlock: Value = serde_json::from_str(&asked.stdout).ok()?;
    Some(Asked {
        id: unlock["id"].as_str()?.to_owned(),
        serial,
    })
}

/// The device lives for a while: it polls and answers.
pub(crate) fn live(place: &Installation, device: &Device, how_long: Duration) {
    place.runtime.block_on(async {
        let polls = async {
            loop {
                device.poll();
                tokio::task::yield_now().await;
                place.mdm.pushed().await;
            }
        };
        let _ = tokio::time::timeout(how_long, polls).await;
    });
}

/// Every code in a webhook that was answered with 200 is in the vault.
pub(crate) fn acknowledged_codes_are_held(
    place: &Installation,
    server: &Server,
    told: &BTreeMap<String, Device>,
) {
    let acknowledged = place
        .mdm
        .webhooks()
        .all()
        .into_iter()
        .filter(|sent| matches!(sent.delivery, Delivery::Answered(200)))
        .count();
    assert!(
        acknowledged > told.len(),
        "only {acknowledged} webhooks were acknowledged"
    );
    for (serial, device) in told {
        let held = place.codes(server, serial);
        assert!(
            held.iter().any(|(code, _)| *code == device.code_text()),
            "{serial} told its code and it is not held"
        );
    }
}

/// The unlock ends by itself, and what is said of it is what happened at Apple.
pub(crate) fn ended_truly(place: &Installation, server: &Server, asked: &Asked) {
    let unlock = wait_for(
        &format!("the end of the unlock of {}", asked.serial),
        || {
            let unlock = unlock(place, server, asked);
            unlock["done"].as_bool().unwrap_or(false).then_some(unlock)
        },
    );
    let state = unlock["state"].as_str().unwrap();
    let calls = place.apple.calls_for(&asked.serial);
    let opened = calls.iter().any(|call| call.unlocked);
    let heard = calls
        .iter()
        .any(|call| call.unlocked && matches!(call.answered, Answered::Status(200)));
    match state {
        "unlocked" => assert!(
            heard,
            "{}: called unlocked, and Apple never said so",
            asked.serial
        ),
        // The answer was lost, or the process died before it came.
        "probably_unlocked" | "needs_review" => {
            assert!(
                opened,
                "{}: {state}, and nothing was in doubt",
                asked.serial
            );
        }
        other => panic!("{}: {other}; the right code was held", asked.serial),
    }
    assert_eq!(
        place.apple.lock_state(&asked.serial),
        None,
        "{}",
        asked.serial
    );
}

fn unlock(place: &Installation, server: &Server, asked: &Asked) -> Value {
    place.ok(server, &["unlocks", "show", &asked.id])
}
