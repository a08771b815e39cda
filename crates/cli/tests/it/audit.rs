//! The audit record with the real program: read, given out, proven by what went outside, and made shorter.

use std::path::Path;

use serde_json::Value;

use crate::installation::Installation;
use crate::support::{Finished, run, wait_for};

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The local command, for the installation's configuration.
fn local(place: &Installation, arguments: &[&str]) -> Finished {
    let config = place.config();
    let mut all = vec!["audit"];
    all.extend(arguments);
    all.extend(["--config", config.to_str().unwrap()]);
    run(all, "")
}

fn verdict(done: &Finished) -> String {
    done.json()["verdict"].as_str().unwrap().to_owned()
}

#[test]
fn the_record_is_proven_by_what_went_outside_and_stays_so_when_old_rows_go() {
    let place = Installation::new();
    let (checkpoints, rows) = (place.path("checkpoints"), place.path("rows"));
    let config = std::fs::read_to_string(place.config()).unwrap();
    let config = config.replace(
        "[audit]\n",
        &format!("[audit]\ncheckpoint_file = {checkpoints:?}\nstream_file = {rows:?}\n"),
    );
    std::fs::write(place.config(), config).unwrap();
    let file = checkpoints.to_str().unwrap();

    let server = place.serve();
    let auditor = place.path("auditor.token");
    place.ok(
        &server,
        &[
            "token",
            "create",
            "auditor",
            "--scope",
            "audit",
            "--out-file",
            auditor.to_str().unwrap(),
        ],
    );
    let listed = place.ok(&server, &["audit", "list", "--action", "token.create"]);
    assert_eq!(listed[0]["subject"].as_str().map(str::len), Some(36));
    let table = place.run(&server, &["audit", "list", "--limit", "1"]);
    assert!(table.stdout.contains("WHO") && table.stderr.contains("--limit"));
    let exported = place.path("exported");
    let token = ["--token-file", auditor.to_str().unwrap()];
    let out = ["audit", "export", "--out-file", exported.to_str().unwrap()];
    place.ok(&server, &[&out[..], &token[..]].concat());
    assert!(lines(&exported).last().unwrap().contains("audit.export"));
    wait_for("a checkpoint outside", || lines(&checkpoints).pop());
    // Beside the running server, whose record goes on.
    let beside = local(&place, &["verify", "--json"]);
    assert_eq!(
        (beside.status, verdict(&beside)),
        (3, "unproven".to_owned())
    );
    let remote = ["audit", "verify", "--remote", "--checkpoint", file];
    let remote = place.run(&server, &[&remote[..], &token[..]].concat());
    assert!([0, 3].contains(&remote.status), "{}", remote.stderr);
    assert_eq!(server.stop(), Some(0));

    // At its end all of it was sealed, signed and sent.
    let whole = local(&place, &["verify", "--json", "--checkpoint", file]);
    assert_eq!(
        (whole.status, verdict(&whole)),
        (0, "proven".to_owned()),
        "{}",
        whole.stdout
    );
    assert_eq!(
        lines(&rows).len() as u64,
        whole.json()["rows"].as_u64().unwrap()
    );
    let first = place.path("first");
    std::fs::write(&first, lines(&checkpoints)[0].clone() + "\n{\"checkp").unwrap();
    let early = local(&place, &["verify", "--checkpoint", first.to_str().unwrap()]);
    assert_eq!(early.status, 3);
    assert!(
        early.stdout.contains("the tail after 20"),
        "{}",
        early.stdout
    );
    assert!(
        early.stderr.contains("line 2 was cut off"),
        "{}",
        early.stderr
    );
    let forged = lines(&checkpoints)[0].replace("\"position\":", "\"position\":1");
    std::fs::write(&first, forged).unwrap();
    let forged = local(&place, &["verify", "--checkpoint", first.to_str().unwrap()]);
    assert_eq!(forged.status, 1, "{} {}", forged.stdout, lines(&first)[0]);
    assert!(
        forged.stdout.starts_with("bad: line 1 of the checkpoints"),
        "{}",
        forged.stdout
    );

    let key = local(&place, &["public-key"]);
    assert!(key.stdout.starts_with("lockwarden-checkpoint-public-1:"));
    let archive = place.path("archive");
    let before = whole.json()["proven_until"].as_str().unwrap().to_owned();
    let retain = |before: &str| {
        local(
            &place,
            &[
                "retain",
                "--json",
                "--before",
                before,
                "--reason",
                "a test",
                "--out-file",
                archive.to_str().unwrap(),
            ],
        )
    };
    assert_eq!(retain("2999-01-01").status, 2);
    assert_eq!(retain("2020-01-01").json()["rows"], 0);
    let retained = retain(&before);
    assert_eq!(retained.status, 0, "{}", retained.stderr);
    let gone = retained.json()["rows"].as_u64().unwrap();
    assert_eq!(lines(&archive).len() as u64, gone + 1);
    let last: Value = serde_json::from_str(lines(&archive).last().unwrap()).unwrap();
    assert_eq!(last["checkpoint"]["kind"], "horizon");
    let left = local(&place, &["verify", "--json", "--checkpoint", file]);
    // The row that tells of the removal came after the last checkpoint.
    assert_eq!(
        (left.status, verdict(&left)),
        (3, "unproven".to_owned()),
        "{}",
        left.stdout
    );
    assert!(left.json()["horizon"]["position"].is_u64());
    let server = place.serve();
    wait_for("a checkpoint of the removal", || {
        let last = lines(&checkpoints).pop()?;
        let last: Value = serde_json::from_str(&last).ok()?;
        let position = last["checkpoint"]["position"].as_u64()?;
        (position > gone).then_some(())
    });
    assert_eq!(server.stop(), Some(0));
    let whole = local(&place, &["verify", "--json", "--checkpoint", file]);
    assert_eq!(
        (whole.status, verdict(&whole)),
        (0, "proven".to_owned()),
        "{}",
        whole.stdout
    );
}

#[test]
fn doctor_says_whether_the_record_gets_outside() {
    let place = Installation::new();
    let of_audit = || {
        let config = place.config();
        let done = run(
            ["doctor", "--json", "--config", config.to_str().unwrap()],
            "",
        );
        let found = done
            .stdout
            .lines()
            .map(|line| -> Value { serde_json::from_str(line).unwrap() });
        let found = found.filter(|finding| finding["what"] == "audit");
        let said = found.map(|finding| finding["verdict"].as_str().unwrap().to_owned());
        said.collect::<Vec<_>>()
    };
    assert_eq!(of_audit(), ["warn"]);
    let config = std::fs::read_to_string(place.config()).unwrap();
    let config = config.replace(
        "[audit]\n",
        &format!(
            "[audit]\ncheckpoint_file = {:?}\nstream_file = {:?}\n",
            place.path("checkpoints"),
            place.path("nowhere/rows")
        ),
    );
    std::fs::write(place.config(), config).unwrap();
    assert_eq!(of_audit(), ["warn", "warn"], "nothing was sent yet");
    let server = place.serve();
    wait_for("both to be known", || {
        (of_audit() == ["ok", "fail"]).then_some(())
    });
    assert_eq!(server.stop(), Some(0));
}
