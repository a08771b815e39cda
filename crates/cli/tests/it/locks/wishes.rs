//! What a person reads of a lock or an unlock that waits, needs them, or was asked for twice, and how to take it back.

use sim::Fault;

use super::*;

#[test]
fn r15_what_needs_review_names_the_answer_and_both_commands_and_ends_when_it_is_cancelled() {
    let stage = Stage::new();
    let serial = stage.device.serial();
    // An unlock without a code needs a person.
    let ended = stage.run(&["unlock", &serial, "--reason", "found", "--wait"]);
    assert_eq!(ended.status, 4, "{}", ended.stderr);
    let page = stage.ok(&["devices", "show", &serial]);
    let id = page["unlocks"][0]["id"].as_str().unwrap();
    let next = format!("`lockwarden unlocks continue {id}` lets it go on");
    assert!(ended.stdout.contains(&next), "{}", ended.stdout);
    let cancelled = stage.ok(&["unlocks", "cancel", id]);
    assert_eq!(state(&cancelled), "cancelled");

    stage
        .place
        .dep
        .push_fault(Fault::status(400).on("/device/activationlock"));
    let ended = stage.run(&["lock", &serial, "--reason", "lost", "--wait"]);
    assert_eq!(ended.status, 4, "{}", ended.stderr);
    let id = stage.ok(&["locks", "list", &serial])[0]["id"].clone();
    let id = id.as_str().unwrap();
    let shown = stage.run(&["locks", "show", id]).stdout;
    for told in [&ended.stdout, &shown] {
        assert!(told.contains("\nWhat to do: "), "{told}");
        assert!(told.contains("\nanswer to call 1: "), "{told}");
        for command in ["continue", "cancel"] {
            let next = format!("`lockwarden locks {command} {id}`");
            assert!(told.contains(&next), "{next}: {told}");
        }
    }
    let cancelled = stage.run(&["locks", "cancel", id]);
    assert_eq!(cancelled.status, 0, "{}", cancelled.stderr);
    assert!(
        cancelled.stdout.contains("cancelled the lock."),
        "{}",
        cancelled.stdout
    );
    assert!(
        !cancelled.stdout.contains("locks continue"),
        "{}",
        cancelled.stdout
    );

    assert_eq!(stage.server.stop(), Some(0));
}

#[test]
fn t33_a_second_wish_is_told_that_it_adds_nothing() {
    let stage = Stage::new();
    let serial = stage.device.serial();
    stage.ok(&["dep", "token", "remove", "default"]);
    let ask = |reason: &str| {
        let insisted = [
            "lock",
            &serial,
            "--reason",
            reason,
            "--override-reason",
            "x",
        ];
        stage.run(&insisted)
    };
    let first = ask("lost");
    assert_eq!(first.status, 0, "{}", first.stderr);
    assert!(first.stderr.contains("asked for; "), "{}", first.stderr);
    let id = first.stdout.split_whitespace().next().unwrap().to_owned();
    let second = ask("stolen");
    assert_eq!(second.status, 0, "{}", second.stderr);
    assert!(second.stdout.starts_with(&id), "{}", second.stdout);
    assert!(
        second
            .stderr
            .contains(&format!("lock {id} is under way since ")),
        "{}",
        second.stderr
    );
    assert!(
        second.stderr.contains("yours adds nothing to it"),
        "{}",
        second.stderr
    );
    stage.ok(&["locks", "cancel", &id]);
    assert_eq!(stage.server.stop(), Some(0));
}
