//! Several processes of the real binary on one PostgreSQL database.

use sim::nanomdm::Delivery;
use sim::{Fault, Gate, Kind};

use crate::balancer::Balancer;
use crate::installation::{Installation, Server};
use crate::support::{Finished, run, wait_for};

mod torture;

/// Whether a server says that it is ready.
fn is_ready(place: &Installation, server: &Server) -> bool {
    place.get(server, "/readyz").starts_with("HTTP/1.1 200")
}

/// A command on the installation's own files.
fn local(place: &Installation, arguments: &[&str]) -> Finished {
    let config = place.config();
    let config = ["--config", config.to_str().unwrap()];
    run([arguments, &config].concat(), "")
}

/// Webhooks that got no 200.
fn refused(place: &Installation) -> usize {
    let sent = place.mdm.webhooks().all();
    let is_refused = |delivery: &Delivery| !matches!(delivery, Delivery::Answered(200));
    sent.iter()
        .filter(|sent| is_refused(&sent.delivery))
        .count()
}

#[test]
fn one_after_the_other_is_restarted_and_no_webhook_is_refused() {
    let mut place = Installation::on_a_database_server();
    let config = std::fs::read_to_string(place.config()).unwrap();
    let config = config.replace("[listen]\n", "[listen]\nleave_seconds = 1\n");
    std::fs::write(place.config(), config).unwrap();
    let balancer = Balancer::start(&place.runtime);
    place.hook(&balancer.url());
    let mut servers: Vec<Server> = (0..3)
        .map(|number| place.replica(&format!("replica-{number}"), "serve"))
        .collect();
    balancer.set(servers.iter().map(|server| server.url.as_str()));
    let devices: Vec<_> = (0..60)
        .map(|number| place.device(Kind::ALL[number % 5]))
        .collect();
    let restarts = std::thread::scope(|scope| {
        let enrolments = scope.spawn(|| {
            for device in &devices {
                let sent = place.mdm.webhooks().all().len();
                {
                    let _in_runtime = place.runtime.enter();
                    device.enrol();
                }
                wait_for("the webhooks of a device", || {
                    (place.mdm.webhooks().all().len() > sent).then_some(())
                });
            }
        });
        let mut restarts = 0;
        while restarts < 3 {
            let (first, name) = (servers.remove(0), format!("again-{restarts}"));
            assert!(is_ready(&place, &first));
            assert_eq!(first.stop(), Some(0), "{}", place.log());
            servers.push(place.replica(&name, "serve"));
            balancer.set(servers.iter().map(|server| server.url.as_str()));
            restarts += 1;
        }
        enrolments.join().unwrap();
        restarts
    });
    assert_eq!(restarts, 3);
    for device in &devices {
        place.wait_for_code(&servers[0], device);
    }
    assert_eq!(refused(&place), 0);
    let status = local(&place, &["db", "status", "--json"]).json();
    let standing = |wanted: &str| {
        let replicas = status["replicas"].as_array().unwrap();
        replicas
            .iter()
            .filter(|one| one["standing"] == wanted)
            .count()
    };
    // Besides, the one that the installation was set up with.
    assert_eq!((standing("runs"), standing("ended")), (3, 4), "{status}");
}

#[test]
fn who_serves_and_who_works_are_different_processes() {
    let mut place = Installation::on_a_database_server();
    let server = place.replica("serving", "serve --without-work");
    place.hook(&server.url);
    let worker = place.replica("working", "worker");
    assert!(is_ready(&place, &worker) && is_ready(&place, &server));
    let refused = place.get(&worker, "/v1/devices");
    assert!(refused.starts_with("HTTP/1.1 404"), "{refused}");
    let device = place.device(Kind::ALL[0]);
    {
        let _in_runtime = place.runtime.enter();
        device.enrol();
    }
    // Only the worker queues commands and calls Apple; it is told by the other.
    place.wait_for_code(&server, &device);
    device.lock_with_own_code().unwrap();
    let unlock = ["unlock", &device.serial(), "--reason", "returned", "--wait"];
    place.ok(&server, &unlock);
    assert_eq!(place.apple.lock_state(&device.serial()), None);
    assert_eq!(worker.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_database_that_may_lose_what_it_acknowledged_makes_no_server_ready_unless_allowed() {
    let place = Installation::on_a_database_server();
    let database = place.database.as_ref().unwrap();
    database.configure("synchronous_commit = off\n").unwrap();
    database.reload().unwrap();
    let server = place.replica("one", "serve");
    wait_for("the server to notice", || {
        (!is_ready(&place, &server)).then_some(())
    });
    let said = place.get(&server, "/readyz");
    assert!(said.contains("synchronous_commit"), "{said}");
    let doctor = local(&place, &["doctor", "--json"]);
    assert!(doctor.status != 0 && doctor.stdout.contains("synchronous_commit = on"));
    assert_eq!(server.stop(), Some(0));
    let config = std::fs::read_to_string(place.config()).unwrap();
    let config = config.replace(
        "[database]\n",
        "[database]\nallow = [\"synchronous_commit\"]\n",
    );
    std::fs::write(place.config(), config).unwrap();
    let server = place.replica("one", "serve");
    assert!(is_ready(&place, &server));
}

/// R14, R16: it starts and retries nothing, its late answer is recorded, and the double send, which nothing can fence, is shown.
#[test]
fn r14_r16_one_that_was_frozen_past_its_lease_starts_nothing_and_its_late_answer_is_recorded() {
    let mut place = Installation::on_a_database_server();
    place.with_short_calls();
    let frozen = place.replica("frozen", "serve");
    place.hook(&frozen.url);
    let device = place.device(Kind::ALL[0]);
    {
        let _in_runtime = place.runtime.enter();
        device.enrol();
    }
    place.wait_for_code(&frozen, &device);
    device.lock_with_own_code().unwrap();
    // Apple opens the lock, and the answer is on its way while the process freezes.
    let gate = Gate::new();
    let fault = Fault::hold_after_commit(&gate);
    place.apple.push_fault(fault.for_serial(device.serial()));
    let asked = place.ok(
        &frozen,
        &["unlock", &device.serial(), "--reason", "returned"],
    );
    let id = asked["id"].as_str().unwrap().to_owned();
    wait_for("Apple to open the lock", || {
        place
            .apple
            .lock_state(&device.serial())
            .is_none()
            .then_some(())
    });
    frozen.signal("STOP");
    let other = place.replica("other", "serve");
    // The lease lasts half a minute longer than the call's time-out.
    let done = wait_for("the other one to finish it", || {
        let unlock = place.ok(&other, &["unlocks", "show", &id]);
        unlock["done"].as_bool().unwrap_or(false).then_some(unlock)
    });
    // The right code was refused after a call that had no answer: it was possibly done before a crash.
    assert_eq!(done["state"], "needs_review", "{done}");
    gate.open();
    frozen.signal("CONT");
    let shown = wait_for("what the frozen one heard to be on record", || {
        let unlock = place.ok(&other, &["unlocks", "show", &id]);
        (unlock["double_sent"] == true).then_some(unlock)
    });
    // It heard the answer late, or ran out of time.
    let state = shown["state"].as_str().unwrap();
    assert!(["needs_review", "unlocked"].contains(&state), "{shown}");
    // It is alive, and does not start or try anything again.
    wait_for("the frozen one to be ready", || {
        is_ready(&place, &frozen).then_some(())
    });
    assert_eq!(frozen.stop(), Some(0));
    assert_eq!(place.apple.calls_for(&device.serial()).len(), 2);
}
