//! Apple and MDMs that cannot be found, do not answer, or fail.

use sim::nanomdm::ApiFault;
use sim::{Fault, Gate};

use super::*;

fn count(place: &Installation, server: &Server, metric: &str) -> f64 {
    let metrics = place.get(server, "/metrics");
    let mut lines = metrics.lines();
    let line = lines.find_map(|line| line.strip_prefix(metric));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

/// A device that holds a lock of its own, and whose code the server has.
fn locked(place: &mut Installation, server: &Server) -> Device {
    let device = place.device(Kind::ALL[0]);
    enrol(place, &device);
    place.wait_for_code(server, &device);
    device.lock_with_own_code().unwrap();
    device
}

fn unlock(place: &Installation, server: &Server, device: &Device) -> String {
    let asked = ["unlock", &device.serial(), "--reason", "it was returned"];
    let asked = place.ok(server, &asked);
    asked["id"].as_str().unwrap().to_owned()
}

fn wait_for_state(place: &Installation, server: &Server, id: &str, state: &str) -> Value {
    wait_for(&format!("the unlock to be {state}"), || {
        let unlock = place.ok(server, &["unlocks", "show", id]);
        (unlock["state"] == state).then_some(unlock)
    })
}

#[test]
fn a_name_that_cannot_be_looked_up_is_said_and_the_unlock_waits() {
    let mut place = Installation::new();
    let right = std::fs::read_to_string(place.config()).unwrap();
    let server = place.serve();
    let device = locked(&mut place, &server);
    assert_eq!(server.stop(), Some(0));
    // No name under .invalid is ever known (RFC 6761).
    let wrong = right.replacen(
        "url = \"https://127.0.0.1",
        "url = \"https://apple.invalid",
        1,
    );
    assert_ne!(wrong, right);
    std::fs::write(place.config(), wrong).unwrap();
    let server = place.serve();
    let id = unlock(&place, &server, &device);
    let waiting = wait_for_state(&place, &server, &id, "waiting");
    assert_eq!(waiting["waiting"]["why"], "unavailable", "{waiting}");
    let metric = "lockwarden_unlock_attempts_total{outcome=\"unavailable\"}";
    assert!(count(&place, &server, metric) >= 1.0);
    let found = found(&place, "unlocks", |_| ());
    let says = found[0]["says"].as_str().unwrap();
    assert!(
        says.contains("1 unlock waits: Apple could not be reached"),
        "{says}"
    );
    assert!(says.contains("lookup"), "{says}");
    // The server itself is well: it keeps what comes.
    assert!(is_ready(&place, &server));
    assert_eq!(server.stop(), Some(0));
    std::fs::write(place.config(), right).unwrap();
    let server = place.serve();
    wait_for_state(&place, &server, &id, "unlocked");
    assert_eq!(place.apple.lock_state(&device.serial()), None);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn r14_an_apple_that_accepts_and_never_answers_is_waited_for_and_nothing_is_called_unlocked() {
    let mut place = Installation::new();
    place.with_short_calls();
    let server = place.serve();
    let device = locked(&mut place, &server);
    let gate = Gate::new();
    place.apple.push_fault(Fault::hold(&gate).times(1_000));
    let id = unlock(&place, &server, &device);
    let waiting = wait_for_state(&place, &server, &id, "waiting");
    assert_eq!(waiting["waiting"]["why"], "no_answer", "{waiting}");
    let metric = "lockwarden_unlock_attempts_total{outcome=\"unknown\"}";
    assert!(count(&place, &server, metric) >= 1.0);
    let found = found(&place, "unlocks", |_| ());
    let says = found[0]["says"].as_str().unwrap();
    assert!(says.contains("no definite answer"), "{says}");
    assert!(is_ready(&place, &server));
    // It goes on by itself: what was held back is let through late, and the next call is answered.
    place.apple.clear_faults();
    gate.open();
    let ended = wait_for("the unlock to end", || {
        let unlock = place.ok(&server, &["unlocks", "show", &id]);
        (!unlock["ended_at"].is_null()).then_some(unlock)
    });
    let state = ended["state"].as_str().unwrap();
    assert!(
        ["unlocked", "probably_unlocked"].contains(&state),
        "{ended}"
    );
    assert_eq!(place.apple.lock_state(&device.serial()), None);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn an_mdm_that_fails_for_an_hour_is_said_to_and_gets_its_commands_afterwards() {
    let mut place = Installation::new();
    let clock = super::clock::WrongClock::new(&place);
    let mut under = Command::new(binary());
    clock.on(&mut under);
    let server = place.serve_under(under);
    place
        .mdm
        .push_api_fault(ApiFault::status(500).times(1_000_000));
    let device = place.device(Kind::ALL[0]);
    let answers = enrol(&place, &device);
    let taken = |answer: &Delivery| matches!(answer, Delivery::Answered(200));
    assert!(answers.iter().all(taken));
    let mut calls = 0;
    for minutes in [0, 15, 30, 45, 60] {
        clock.set(&format!("+{minutes}m"));
        // Whoever sleeps does not see that the clock was moved; something to do wakes them.
        let another = place.device(Kind::ALL[0]);
        enrol(&place, &another);
        // It is asked again whether it is back, and what is for it is not given up.
        wait_for("the MDM to be called again", || {
            let now = place.mdm.calls().all().len();
            (now > calls).then(|| calls = now)
        });
    }
    let metric = "lockwarden_commands_total{type=\"DeviceInformation\",result=\"not_taken\"}";
    assert!(
        count(&place, &server, metric) >= 1.0,
        "{}",
        place.get(&server, "/metrics")
    );
    assert!(
        place
            .log()
            .contains("did not take it: the fake was told to fail")
    );
    assert_eq!(found(&place, "mdm", |_| ())[0]["verdict"], "fail");
    assert!(is_ready(&place, &server));
    place.mdm.clear_faults();
    // Each failure has doubled the wait, which is shorter than the time that it has failed for.
    clock.set("+120m");
    let another = place.device(Kind::ALL[0]);
    enrol(&place, &another);
    place.wait_for_code(&server, &device);
    assert_eq!(server.stop(), Some(0));
}
