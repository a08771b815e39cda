//! Two people and a device at the command line: asked for, approved, refused, broken by glass; each of it on record.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use sim::Kind;

use crate::installation::Installation;
use crate::people::Person;
use crate::support::wait_for;

/// The exit status when others were asked.
const ASKED: i32 = 10;

pub(crate) fn actions(person: &Person<'_>) -> Vec<String> {
    let listed = person.ok(&["audit", "list", "--limit", "200"], "");
    let rows = listed.as_array().cloned().unwrap_or_else(|| vec![listed]);
    rows.iter()
        .filter_map(|row| row["action"].as_str().map(str::to_owned))
        .collect()
}

/// What was asked for, by its identifier in the failure.
pub(crate) fn asked(done: &crate::support::Finished) -> String {
    assert_eq!(done.status, ASKED, "{}", done.stderr);
    let failure: Value = serde_json::from_str(&done.stderr).unwrap();
    let what = failure["error"].as_str().unwrap();
    let (_, rest) = what.split_once("(approval ").unwrap();
    rest.split_once(')').unwrap().0.to_owned()
}

#[test]
fn a_code_is_seen_and_a_lock_turned_off_by_two_people() {
    let mut installation = Installation::new();
    let device = installation.device(Kind::IpadWifi);
    let server = installation.serve();
    {
        let _in_runtime = installation.runtime.enter();
        device.enrol();
    }
    installation.wait_for_code(&server, &device);
    let serial = device.serial();
    let zoe = Person::first(&installation, &server);
    let max = Person::another(&zoe, &server, "max", &["approver", "auditor"]);
    let ann = Person::another(
        &zoe,
        &server,
        "ann",
        &["revealer", "operator", "break-glass"],
    );
    for action in ["reveal", "unlock"] {
        zoe.ok(&["policies", "set", action, "--people", "1"], "");
    }
    let looser = zoe.run(&["policies", "set", "reveal", "--people", "0"], "");
    assert!(
        looser.status == 1 && looser.stderr.contains("another person"),
        "{}",
        looser.stderr
    );

    let reveal = ["reveal", &serial, "--reason", "returned"];
    let refused = ann.run(&reveal, "");
    assert!(
        refused.status == 1 && refused.stdout.is_empty(),
        "{}",
        refused.stderr
    );
    let ask = [
        &reveal[..],
        &["--ask-approval", "the owner is here", "--json"],
    ]
    .concat();
    let id = asked(&ann.run(&ask, ""));
    let listed = max.ok(&["approvals", "list"], "");
    assert_eq!(
        listed[0]["id"].as_str().or(listed["id"].as_str()),
        Some(&*id)
    );
    let own = ann.run(&["approvals", "approve", &id], "");
    assert!(
        own.status == 1 && own.stderr.contains("`approve`"),
        "{}",
        own.stderr
    );
    assert_eq!(
        max.ok(
            &["approvals", "approve", &id, "--comment", "seen the slip"],
            ""
        )["state"],
        "approved"
    );
    let under = [&reveal[..], &["--approval", &id]].concat();
    let shown = ann.run(&under, "");
    assert!(
        shown.status == 0 && shown.stdout.contains(&device.code_text()),
        "{}",
        shown.stderr
    );
    assert!(
        shown.stderr.contains("as the password") && shown.stderr.contains("reports another"),
        "how it is typed: {}",
        shown.stderr
    );

    let unlock = ["unlock", &serial, "--reason", "returned"];
    let id = asked(&ann.run(
        &[&unlock[..], &["--ask-approval", "returned", "--json"]].concat(),
        "",
    ));
    assert_eq!(
        max.ok(&["approvals", "refuse", &id], "")["state"],
        "refused"
    );
    let refused = ann.run(&[&unlock[..], &["--approval", &id]].concat(), "");
    assert!(
        refused.status == 1 && refused.stderr.contains("refused"),
        "{}",
        refused.stderr
    );
    let done = ann.run(
        &[&unlock[..], &["--break-glass", "nobody is there", "--wait"]].concat(),
        "",
    );
    assert!([0, 3].contains(&done.status), "{}", done.stderr);
    let listed = max.run(&["emergencies", "list"], "");
    assert!(
        listed.stdout.contains("nobody is there"),
        "{}",
        listed.stdout
    );
    let emergency = max.ok(&["emergencies", "list"], "");
    let emergency = if emergency.is_array() {
        emergency[0].clone()
    } else {
        emergency
    };
    max.ok(
        &[
            "emergencies",
            "acknowledge",
            emergency["id"].as_str().unwrap(),
        ],
        "",
    );
    let recorded = wait_for("the record", || {
        let recorded = actions(&max);
        recorded
            .iter()
            .any(|one| one == "break_glass.acknowledge")
            .then_some(recorded)
    });
    for action in [
        "approval.ask",
        "approval.approve",
        "approval.refuse",
        "code.reveal",
        "break_glass",
        "unlock.request",
        "refused",
    ] {
        assert!(
            recorded.iter().any(|one| one == action),
            "{action}: {recorded:?}"
        );
    }
    assert!(!installation.log().contains(&device.code_text()));
}

#[test]
fn codes_are_taken_away_in_a_table_by_two_people_only_and_the_approval_is_for_that_alone() {
    let installation = Installation::new();
    let server = installation.serve();
    let zoe = Person::first(&installation, &server);
    let typed = "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4";
    let add = ["devices", "add-code", "TYPED0000001", "--code-file", "-"];
    zoe.ok(&add, typed);
    let max = Person::another(&zoe, &server, "max", &["approver"]);
    let table = installation.path("codes.csv");
    let export = [
        "export",
        "--plain",
        "--out-file",
        table.to_str().unwrap(),
        "--reason",
        "leaving",
    ];
    let refused = zoe.run(&export, "");
    assert!(
        refused.status == 1 && refused.stderr.contains("another person"),
        "{}",
        refused.stderr
    );
    let id = asked(&zoe.run(
        &[&export[..], &["--ask-approval", "leaving", "--json"]].concat(),
        "",
    ));
    assert!(!table.exists(), "no file is left of what was not done");
    max.ok(&["approvals", "approve", &id], "");
    let of_one = [
        &export[..],
        &["--device", "TYPED0000001", "--approval", &id],
    ]
    .concat();
    let refused = zoe.run(&of_one, "");
    assert!(
        refused.status == 1 && refused.stderr.contains("other targets"),
        "{}",
        refused.stderr
    );
    let done = zoe.run(&[&export[..], &["--approval", &id]].concat(), "");
    assert!(
        done.status == 0 && !done.stderr.contains(typed) && done.stdout.is_empty(),
        "{}",
        done.stderr
    );
    let written = std::fs::read_to_string(&table).unwrap();
    assert!(written.contains(&format!("TYPED0000001,{typed},unknown,")));
    let mode = std::fs::metadata(&table).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let recorded = actions(&zoe);
    for action in ["code.export", "code.exported", "code.export_ended"] {
        assert!(recorded.iter().any(|one| one == action), "{recorded:?}");
    }
}

#[test]
fn a_policy_that_nobody_can_meet_any_more_is_loosened_on_the_machine_itself() {
    let installation = Installation::new();
    let server = installation.serve();
    let zoe = Person::first(&installation, &server);
    let _max = Person::another(&zoe, &server, "max", &["approver"]);
    zoe.ok(&["policies", "set", "reveal", "--people", "1"], "");
    zoe.ok(&["people", "disable", "max"], "");
    let stuck = zoe.run(&["policies", "set", "reveal", "--people", "0"], "");
    assert!(stuck.status == 1 && stuck.stderr.contains("another person"));
    let config = installation.config();
    let rescue = [
        "policies",
        "rescue",
        "reveal",
        "--config",
        config.to_str().unwrap(),
    ];
    let running = crate::support::run(rescue, "");
    assert_eq!(running.status, 1, "not beside a running server");
    assert_eq!(server.stop(), Some(0));
    let rescued = crate::support::run(rescue, "");
    assert_eq!(rescued.status, 0, "{}", rescued.stderr);
    let server = installation.serve();
    let listed = installation.ok(&server, &["policies", "list"]).to_string();
    assert!(!listed.contains("\"people\":1"), "{listed}");
    let rows = ["audit", "list", "--action", "policy.approval"];
    let rows = installation.ok(&server, &rows);
    assert_eq!(rows[0]["actor"]["name"], "command line", "{rows}");
}
