//! `lockwarden bulk` against the real server: lists as people bring them, kills in the midst of it, and who goes first.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use sim::Fault;
use sim::apple::{Answered, AppleDevice};

use crate::installation::{Installation, Server};
use crate::support::{file, finish, wait_for};

const CODE: &str = "000H4-0R40M-30F2-0918-5HR3-8F17";

/// Devices that are locked by the code that is held of them.
fn fleet(place: &Installation, server: &Server, count: usize) -> Vec<String> {
    let code = file(&place.path(""), "code", CODE);
    let code = code.to_str().unwrap();
    let mut serials = Vec::new();
    for number in 0..count {
        let serial = format!("FLEET{number:05}");
        let device = AppleDevice {
            serial: serial.clone(),
            product_type: "iPad4,1".to_owned(),
            imei: None,
            imei2: None,
            meid: None,
        };
        place.apple.add_device(device);
        place.apple.user_lock(&serial, CODE).unwrap();
        place.ok(
            server,
            &["devices", "set", &serial, "--product-type", "iPad4,1"],
        );
        place.ok(
            server,
            &["devices", "add-code", &serial, "--code-file", code],
        );
        serials.push(serial);
    }
    serials
}

fn list(place: &Installation, serials: &[String]) -> String {
    let path = file(
        &place.path(""),
        "serials.csv",
        &format!("Serial Number\n{}\n", serials.join("\n")),
    );
    path.to_str().unwrap().to_owned()
}

fn counts(batch: &Value) -> Vec<(String, i64)> {
    let counts = batch["counts"].as_array().unwrap();
    let of = |count: &Value| {
        let state = count["state"].as_str().unwrap().to_owned();
        (state, count["lines"].as_i64().unwrap())
    };
    counts.iter().map(of).collect()
}

#[test]
fn a_list_is_planned_done_and_told_line_by_line() {
    let place = Installation::new();
    place.without_pace();
    let server = place.serve();
    let mut serials = fleet(&place, &server, 3);
    serials.push("NOSUCHDEVICE".to_owned());
    let list = list(&place, &serials);
    let common = [
        "bulk",
        "unlock",
        "--file",
        &list,
        "--reason",
        "the end of the year",
    ];
    let with = |more: &[&str]| place.run(&server, &[&common[..], more].concat());
    // Where nobody can be asked, nothing starts by itself.
    let refused = with(&[]);
    assert_eq!(refused.status, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("3 devices will be unlocked"),
        "{}",
        refused.stderr
    );
    assert!(
        refused.stderr.contains("1 left out: unknown device"),
        "{}",
        refused.stderr
    );
    let planned = with(&["--plan", "--idempotency-key", "year", "--json"]);
    assert_eq!(
        (planned.status, &planned.json()["state"]),
        (0, &"draft".into())
    );
    assert!(place.apple.journal().all().is_empty());
    let id = planned.json()["id"].as_str().unwrap().to_owned();
    let done = with(&["--yes", "--idempotency-key", "year", "--json"]);
    assert_eq!(done.status, 3, "{}", done.stderr);
    assert_eq!(
        done.json()["id"],
        id.as_str(),
        "the same key is the same batch"
    );
    assert_eq!(
        counts(&done.json()),
        [("unknown_device".to_owned(), 1), ("unlocked".to_owned(), 3)]
    );
    for serial in &serials[..3] {
        assert_eq!(place.apple.lock_state(serial), None, "{serial}");
    }
    let again = with(&["--yes", "--idempotency-key", "year", "--quiet"]);
    assert_eq!((again.status, &*again.stderr), (3, ""), "done is done");
    assert_eq!(place.apple.journal().all().len(), 3);
    let table = place.run(&server, &["bulk", "results", &id]);
    let rows: Vec<_> = table.stdout.lines().collect();
    assert_eq!(rows.len(), 5);
    assert!(rows[1].starts_with("1,FLEET00000,unlocked,"), "{}", rows[1]);
    assert!(
        rows[4].starts_with("4,NOSUCHDEVICE,unknown_device,"),
        "{}",
        rows[4]
    );
    let lines = place.run(&server, &["bulk", "results", &id, "--json"]);
    assert_eq!(lines.stdout.lines().count(), 4);
    // A list comes in by standard input too, and a filter names devices that are known.
    let asked = [
        "bulk", "refresh", "--file", "-", "--reason", "x", "--yes", "--json",
    ];
    let none = finish(place.cli(&server, &asked), "FLEET00000\nFLEET00001\n");
    assert_eq!(none.status, 1, "{}", none.stderr);
    assert!(
        none.stderr.contains("No line of the batch could be done"),
        "{}",
        none.stderr
    );
    let by_filter = [
        "bulk",
        "unlock",
        "--all-that-fit",
        "--product-type",
        "iPad4,1",
    ];
    let planned = place.run(
        &server,
        &[&by_filter[..], &["--reason", "x", "--plan", "--json"]].concat(),
    );
    assert_eq!(planned.json()["lines"], 3, "{}", planned.stderr);
    let wrong = file(&place.path(""), "wrong.csv", "name,owner\nx,y\n");
    let wrong = [
        "bulk",
        "unlock",
        "--file",
        wrong.to_str().unwrap(),
        "--reason",
        "x",
    ];
    let refused = place.run(&server, &wrong);
    assert!(
        refused.status == 1 && refused.stderr.contains("none is called `serial`"),
        "{}",
        refused.stderr
    );
}

#[test]
fn r14_r16_a_batch_whose_server_is_killed_ten_times_does_every_device_and_none_twice() {
    let place = Installation::new();
    place.without_pace();
    let mut server = place.serve();
    let serials = fleet(&place, &server, 60);
    let list = list(&place, &serials);
    let common = [
        "bulk",
        "unlock",
        "--file",
        &list,
        "--reason",
        "x",
        "--idempotency-key",
        "k",
    ];
    let draft = place.run(&server, &[&common[..], &["--plan", "--json"]].concat());
    let id = draft.json()["id"].as_str().unwrap().to_owned();
    for serial in &serials {
        let slow = Fault::delay(Duration::from_millis(20));
        place.apple.push_fault(slow.for_serial(serial.clone()));
    }
    place.ok(&server, &["bulk", "start", &id, "--no-wait"]);
    let over = |server: &Server| {
        place.ok(server, &["bulk", "show", &id])["done"]
            .as_i64()
            .unwrap()
    };
    for kill in 1..=10 {
        let some = kill * 5;
        wait_for("some more to be over", || {
            (over(&server) >= some).then_some(())
        });
        server.kill();
        server = place.serve();
    }
    let watched = place.run(&server, &["bulk", "watch", &id, "--json"]);
    let ended = watched.json();
    assert_eq!(ended["state"], "ended", "{}", watched.stderr);
    let well: i64 = counts(&ended)
        .into_iter()
        .map(|(state, lines)| match &*state {
            "unlocked" => lines,
            // Nobody saw Apple's answer to a call that was in flight at a kill.
            "probably_unlocked" | "needs_review" => lines,
            other => panic!("{other}: the right code was held"),
        })
        .sum();
    assert_eq!(well, 60);
    for serial in &serials {
        assert_eq!(place.apple.lock_state(serial), None, "{serial}");
        let heard = place.apple.calls_for(serial);
        let heard = heard
            .iter()
            .filter(|call| call.unlocked && matches!(call.answered, Answered::Status(200)));
        assert!(heard.count() <= 1, "{serial}");
    }
    // Each line has one operation, and each operation one line.
    let lines = place.run(&server, &["bulk", "results", &id, "--json"]);
    let operations: BTreeSet<_> = lines
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["operation"].to_string())
        .collect();
    assert_eq!(operations.len(), 60);
    let verified = place.run(&server, &["audit", "verify", "--remote"]);
    // Nothing is wrong with it; no checkpoint from outside stands for its end.
    assert_eq!(verified.status, 3, "{}", verified.stdout);
}

#[test]
fn an_urgent_unlock_overtakes_a_batch() {
    let place = Installation::new();
    place.without_pace();
    let server = place.serve();
    let serials = fleet(&place, &server, 80);
    let (urgent, batch) = serials.split_last().unwrap();
    for serial in batch {
        let slow = Fault::delay(Duration::from_millis(100));
        place.apple.push_fault(slow.for_serial(serial.clone()));
    }
    let list = list(&place, batch);
    let bulk = [
        "bulk",
        "unlock",
        "--file",
        &list,
        "--reason",
        "x",
        "--yes",
        "--no-wait",
        "--json",
    ];
    let started = place.run(&server, &bulk);
    assert_eq!(started.status, 0, "{}", started.stderr);
    wait_for("Apple to be asked", || {
        (place.apple.journal().count() > 0).then_some(())
    });
    let wish = serde_json::json!({ "reason": "a person waits", "urgent": true });
    let before = place.apple.journal().count();
    let path = format!("/v1/devices/{urgent}/unlock");
    let asked = place.http(&server, "POST", &path, Some(&wish));
    assert!(asked.starts_with("HTTP/1.1 202"), "{asked}");
    let call = wait_for("the urgent one to be called for", || {
        place.apple.calls_for(urgent).first().cloned()
    });
    // One place is always left for it: what stood before it is what was in flight, and what had just been claimed.
    let overtaken = call.number - before;
    assert!(overtaken <= 20, "{overtaken} calls went before it");
}
