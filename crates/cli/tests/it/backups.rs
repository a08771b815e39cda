//! The restore drill with the real binary: nothing but a backup and the recovery key, on another machine.

use std::path::Path;

use serde_json::Value;
use sim::Kind;

use crate::installation::Installation;
use crate::support::{command, finish};

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn t35_a_restore_drill_with_nothing_but_the_backup_and_the_recovery_key() {
    let mut place = Installation::new();
    let device = place.device(Kind::IpadWifi);
    let server = place.serve();
    {
        let _in_runtime = place.runtime.enter();
        device.enrol();
    }
    place.wait_for_code(&server, &device);
    let backup = text(&place.path("vault.backup"));
    let made = place.ok(
        &server,
        &[
            "backup",
            "make",
            "--out-file",
            &backup,
            "--name",
            "drill",
            "--keep-days",
            "30",
        ],
    );
    assert_eq!(made["digest"].as_str().unwrap().len(), 64);
    let again = place.run(&server, &["backup", "make", "--out-file", &backup]);
    assert!(
        again.status == 1 && again.stderr.contains("cannot be made"),
        "{}",
        again.stderr
    );
    let listed = place.ok(&server, &["backup", "list"]);
    let listed = if listed.is_array() {
        listed[0].clone()
    } else {
        listed
    };
    assert_eq!(
        (&listed["name"], &listed["digest"]),
        (&Value::from("drill"), &made["digest"])
    );
    let left: Vec<_> = std::fs::read_dir(place.path("data"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("backup-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(server.stop(), Some(0));

    // The machine is gone: what is left is the file and the paper.
    std::fs::remove_dir_all(place.path("data")).unwrap();
    std::fs::remove_file(place.path("etc/key")).unwrap();
    let recovery = text(&place.path("recovery.key"));
    let whole = finish(
        command([
            "backup",
            "verify",
            &backup,
            "--recovery-key-file",
            &recovery,
        ]),
        "",
    );
    assert_eq!(whole.status, 0, "{}", whole.stderr);
    let (data, key) = (text(&place.path("data")), text(&place.path("etc/key")));
    let restore = [
        "restore",
        &backup,
        "--into",
        &data,
        "--recovery-key-file",
        &recovery,
        "--new-key-file",
        &key,
    ];
    let restored = finish(command(restore), "");
    assert_eq!(restored.status, 0, "{}", restored.stderr);
    assert!(
        restored.stderr.contains("wait for a person"),
        "{}",
        restored.stderr
    );
    let twice = finish(
        command([
            "restore",
            &backup,
            "--into",
            &data,
            "--recovery-key-file",
            &recovery,
            "--new-key-file",
            &text(&place.path("x")),
        ]),
        "",
    );
    assert!(
        twice.status == 1 && twice.stderr.contains("not empty") && !place.path("x").exists(),
        "{}",
        twice.stderr
    );

    let server = place.serve();
    let codes = place.codes(&server, &device.serial());
    assert!(
        codes
            .iter()
            .any(|(code, current)| *current && *code == device.code_text())
    );
    let verified = finish(
        command(["audit", "verify", "--config", &text(&place.config())]),
        "",
    );
    assert!([0, 3].contains(&verified.status), "{}", verified.stderr);
    assert_eq!(server.stop(), Some(0));
    let cold = text(&place.path("cold.backup"));
    let made = finish(
        command([
            "backup",
            "make",
            "--stopped",
            "--config",
            &text(&place.config()),
            "--out-file",
            &cold,
            "--json",
        ]),
        "",
    );
    assert_eq!(made.status, 0, "{}", made.stderr);
    let wrong = finish(
        command(["backup", "verify", &backup, "--key-file", &key]),
        "",
    );
    assert!(
        wrong.status == 1 && wrong.stderr.contains("the key that was given"),
        "{}",
        wrong.stderr
    );
    assert_eq!(
        finish(command(["backup", "verify", &cold, "--key-file", &key]), "").status,
        0
    );

    let bytes = std::fs::read(&backup).unwrap();
    let code = device.code_text();
    for secret in [code.clone(), code.replace('-', ""), device.serial()] {
        assert!(
            !bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes()),
            "it lies open in the backup"
        );
    }
}
