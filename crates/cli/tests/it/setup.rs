//! Setting up and looking after an installation: `init`, `doctor`, `db`, and what `serve` refuses.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;
use sim::{Now, PushCertificateOptions};

use crate::installation::Installation;
use crate::support::{Finished, file, run, wait_for};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn findings(done: &Finished) -> Vec<(String, String)> {
    done.stdout
        .lines()
        .map(|line| {
            let finding: Value = serde_json::from_str(line).unwrap();
            let word = |key: &str| finding[key].as_str().unwrap().to_owned();
            (word("what"), word("verdict"))
        })
        .collect()
}

fn verdict<'f>(found: &'f [(String, String)], what: &str) -> Option<&'f str> {
    found
        .iter()
        .find(|(known, _)| known == what)
        .map(|(_, verdict)| verdict.as_str())
}

#[test]
fn r25_init_makes_keys_for_two_recipients_and_keeps_the_private_half_away() {
    let folder = tempfile::tempdir().unwrap();
    let (etc, data) = (folder.path().join("etc"), folder.path().join("data"));
    let arguments = [
        "init",
        "--json",
        "--organisation",
        "Example School",
        "--folder",
        etc.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
    ];
    let made = run(arguments, "");
    assert_eq!(made.status, 0, "{}", made.stderr);
    let made = made.json();
    let recovery = made["recovery_key"].as_str().unwrap();
    let token = made["token"].as_str().unwrap();
    assert!(recovery.starts_with("lockwarden-recovery-1:") && token.starts_with("lw_token_"));
    for name in ["key", "recovery-key.pub", "lockwarden.toml"] {
        assert_eq!(mode(&etc.join(name)), 0o600, "{name}");
    }
    assert_eq!((mode(&etc), mode(&data)), (0o700, 0o700));
    // The private half is nowhere on this machine.
    for folder in [&etc, &data] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let key = recovery.rsplit(':').next().unwrap();
            assert!(
                !bytes
                    .windows(key.len())
                    .any(|window| window == key.as_bytes())
            );
        }
    }
    // Nothing is overwritten.
    let key = std::fs::read(etc.join("key")).unwrap();
    let again = run(arguments, "");
    assert_eq!(again.status, 1);
    assert!(again.stderr.contains("there already"));
    assert!(std::fs::read(etc.join("key")).unwrap() == key);

    let config = etc.join("lockwarden.toml");
    let config = config.to_str().unwrap();
    let before = run(["doctor", "--json", "--config", config], "");
    assert_eq!(before.status, 0, "{}", before.stdout);
    let before = findings(&before);
    assert_eq!(verdict(&before, "recovery key"), Some("warn"));
    assert_eq!(verdict(&before, "key"), Some("ok"));
    let other = recovery.replace("lockwarden-recovery-1", "lockwarden-key-1");
    let refused = run(["key", "recovery-check", "--config", config], &other);
    assert_eq!(refused.status, 1);
    let proven = run(["key", "recovery-check", "--config", config], recovery);
    assert_eq!(proven.status, 0, "{}", proven.stderr);
    let after = findings(&run(["doctor", "--json", "--config", config], ""));
    assert_eq!(verdict(&after, "recovery key"), Some("ok"));
}

#[test]
fn what_fails_leaves_nothing_behind_and_can_be_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("a-file"), "").unwrap();
    let init = |data: &str, token: &str| {
        let (etc, data, recovery, token) =
            (path("etc"), path(data), path("recovery.key"), path(token));
        let arguments = [
            "init",
            "--organisation",
            "Example School",
            "--folder",
            &etc,
            "--data",
            &data,
            "--recovery-key-file",
            &recovery,
            "--token-file",
            &token,
        ];
        run(arguments, "")
    };
    for (data, token) in [
        ("a-file/data", "admin.token"),
        ("data", "nowhere/admin.token"),
    ] {
        let failed = init(data, token);
        assert_eq!(failed.status, 1, "{}", failed.stderr);
        let left: Vec<_> = [
            "etc/key",
            "etc/lockwarden.toml",
            "recovery.key",
            "admin.token",
            "data",
        ]
        .into_iter()
        .filter(|name| folder.path().join(name).exists())
        .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let made = init("data", "admin.token");
    assert_eq!(made.status, 0, "{}", made.stderr);
    assert!(made.stdout.lines().count() == 3, "no secret is shown");
    for name in ["etc/key", "recovery.key", "admin.token"] {
        assert_eq!(mode(&folder.path().join(name)), 0o600, "{name}");
    }

    let config = path("etc/lockwarden.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("127.0.0.1:8443", "127.0.0.1:0")).unwrap();
    let ready = path("nowhere/ready.json");
    let deaf = run(["serve", "--config", &config, "--ready-file", &ready], "");
    assert_eq!(deaf.status, 1);
    assert!(deaf.stderr.contains("nowhere"), "{}", deaf.stderr);

    // No server listens there.
    let token = path("desk.token");
    let server = [
        "--url",
        "http://127.0.0.1:1",
        "--token-file",
        &path("admin.token"),
    ];
    let mut create = vec![
        "token",
        "create",
        "desk",
        "--scope",
        "read",
        "--out-file",
        &token,
    ];
    create.extend(server);
    assert_eq!(run(create, "").status, 1);
    assert!(!Path::new(&token).exists());
}

#[test]
fn a_token_goes_to_its_file_and_its_identifier_is_shown() {
    let place = Installation::new();
    let server = place.serve();
    let file = place.path("desk.token");
    let file = file.to_str().unwrap();
    let create = [
        "token",
        "create",
        "desk",
        "--scope",
        "read",
        "--out-file",
        file,
    ];
    let made = place.ok(&server, &create);
    let token = std::fs::read_to_string(file).unwrap();
    assert!(token.starts_with("lw_token_") && !made.to_string().contains(token.trim()));
    assert_eq!(mode(Path::new(file)), 0o600);
    let id = made["id"].as_str().unwrap();
    assert_eq!(place.run(&server, &["token", "revoke", id]).status, 0);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn r22_an_mdm_proves_itself_as_it_can() {
    let place = Installation::new();
    let server = place.serve();
    let key = place.path("api.key");
    for (kind, auth) in [("nanohub", "hmac"), ("micromdm", "path")] {
        let url = "https://mdm.example.org";
        let key = key.to_str().unwrap();
        let made = place.ok(
            &server,
            &[
                "mdm",
                "add",
                kind,
                "--kind",
                kind,
                "--mdm-url",
                url,
                "--api-key-file",
                key,
            ],
        );
        assert_eq!(made["hook_auth"], auth, "{kind}");
    }
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_sandbox_and_production_never_open_each_others_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (etc, data) = (folder.path().join("etc"), folder.path().join("data"));
    let made = run(
        [
            "init",
            "--organisation",
            "Example School",
            "--folder",
            etc.to_str().unwrap(),
            "--data",
            data.to_str().unwrap(),
        ],
        "",
    );
    assert_eq!(made.status, 0, "{}", made.stderr);
    let refused = run(["serve", "--sandbox", "--data", data.to_str().unwrap()], "");
    assert_eq!(refused.status, 1);
    assert!(refused.stderr.contains("production"), "{}", refused.stderr);
    assert!(!data.join("sandbox.key").exists());
    // Nor is a folder touched that does not say what it is.
    std::fs::write(data.join("lockwarden.db"), "damaged").unwrap();
    let refused = run(["serve", "--sandbox", "--data", data.to_str().unwrap()], "");
    assert_eq!(refused.status, 1);
    assert!(!data.join("sandbox.key").exists());
}

#[test]
fn doctor_says_what_is_wrong_beside_a_running_server() {
    let place = Installation::new();
    let config = place.config();
    let doctor = || {
        run(
            ["doctor", "--json", "--config", config.to_str().unwrap()],
            "",
        )
    };
    let server = place.serve();
    let well = doctor();
    assert_eq!(well.status, 0, "{}", well.stdout);
    let found = findings(&well);
    for what in [
        "configuration",
        "key file",
        "key",
        "database",
        "clock",
        "push certificate",
        "mdm",
    ] {
        assert_eq!(verdict(&found, what), Some("ok"), "{what}: {}", well.stdout);
    }

    place.runtime.block_on(place.mdm.go_offline());
    let ill = doctor();
    assert_eq!(ill.status, 1);
    assert_eq!(
        verdict(&findings(&ill), "mdm"),
        Some("fail"),
        "{}",
        ill.stdout
    );
    place.runtime.block_on(place.mdm.come_back());
    place.mdm.set_api_key("another key");
    assert_eq!(verdict(&findings(&doctor()), "mdm"), Some("fail"));

    let key = place.path("etc/key");
    let right = std::fs::read_to_string(&key).unwrap();
    let other = tempfile::tempdir().unwrap();
    let made = run(
        [
            "init",
            "--organisation",
            "Another",
            "--folder",
            other.path().join("etc").to_str().unwrap(),
            "--data",
            other.path().join("data").to_str().unwrap(),
        ],
        "",
    );
    assert_eq!(made.status, 0);
    std::fs::copy(other.path().join("etc/key"), &key).unwrap();
    let wrong = doctor();
    assert_eq!(wrong.status, 1);
    assert_eq!(
        verdict(&findings(&wrong), "key"),
        Some("fail"),
        "{}",
        wrong.stdout
    );
    std::fs::write(&key, right).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(verdict(&findings(&doctor()), "key file"), Some("warn"));
    assert_eq!(server.stop(), Some(0), "{}", place.log());
}

#[test]
fn serve_refuses_what_would_be_unsafe() {
    let place = Installation::new();
    let config = std::fs::read_to_string(place.config()).unwrap();
    let try_with = |changed: &str| {
        std::fs::write(place.config(), changed).unwrap();
        run(["serve", "--config", place.config().to_str().unwrap()], "")
    };
    // A listener that others reach, without TLS (R22).
    let open = try_with(&config.replace("address = \"127.0.0.1:0\"", "address = \"0.0.0.0:0\""));
    assert_eq!(open.status, 1);
    assert!(open.stderr.contains("TLS"), "{}", open.stderr);
    let misspelt = try_with(&config.replace("calls_per_second", "calls_a_second"));
    assert_eq!(misspelt.status, 1);
    assert!(
        misspelt.stderr.contains("calls_a_second"),
        "{}",
        misspelt.stderr
    );

    std::fs::write(place.config(), &config).unwrap();
    let server = place.serve();
    let second = run(["serve", "--config", place.config().to_str().unwrap()], "");
    assert_eq!(second.status, 1);
    assert!(second.stderr.contains("in use"), "{}", second.stderr);
    let status = run(
        ["db", "status", "--config", place.config().to_str().unwrap()],
        "",
    );
    assert_eq!(status.status, 0, "{}", status.stderr);
    assert_eq!(server.stop(), Some(0));
}

/// Soft and hard limit of the size of a core dump.
fn core_dumps(process: u32) -> Option<(String, String)> {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).ok()?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))?;
    let mut words = line.split_whitespace().skip(4).map(str::to_owned);
    words.next().zip(words.next())
}

#[test]
fn r23_whatever_holds_a_code_or_a_key_leaves_no_core_dump() {
    let place = Installation::new();
    let server = place.serve();
    let none = ("0".to_owned(), "0".to_owned());
    assert!(core_dumps(server.process()) == Some(none.clone()));
    let config = place.config();
    let certificate = place.path("push.pem");
    let certificate = certificate.to_str().unwrap();
    for arguments in [
        &["code", "show"][..],
        &[
            "key",
            "recovery-check",
            "--config",
            config.to_str().unwrap(),
        ],
        &[
            "mdm",
            "add",
            "x",
            "--mdm-url",
            "https://x.example.org",
            "--api-key-file",
            "-",
        ],
        &[
            "push-certificate",
            "add",
            "--certificate",
            certificate,
            "--key",
            "-",
        ],
        &[
            "apple",
            "unlock",
            "--serial",
            "SIMTEST00001",
            "--product-type",
            "iPad4,1",
            "--org-name",
            "o",
            "--requester",
            "g",
            "--certificate",
            certificate,
            "--code-file",
            "-",
        ],
    ] {
        // It waits for its standard input.
        let mut child = place
            .cli(&server, arguments)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        crate::support::wait_for(&format!("{arguments:?} to turn core dumps off"), || {
            (core_dumps(child.id()) == Some(none.clone())).then_some(())
        });
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn r22_the_listener_speaks_tls_and_takes_a_renewed_certificate() {
    let place = Installation::new();
    let certificate = |name: &str| {
        let made =
            rcgen::generate_simple_self_signed([name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let (first, first_key) = certificate("first.example.org");
    let (tls, key) = (place.path("tls.pem"), place.path("tls.key"));
    std::fs::write(&tls, &first).unwrap();
    std::fs::write(&key, &first_key).unwrap();
    let config = std::fs::read_to_string(place.config()).unwrap().replace(
        "address = \"127.0.0.1:0\"",
        &format!(
            "address = \"127.0.0.1:0\"\ncertificate_file = {:?}\nkey_file = {:?}",
            tls.to_str().unwrap(),
            key.to_str().unwrap()
        ),
    );
    std::fs::write(place.config(), config).unwrap();
    let server = place.serve();
    assert!(server.url.starts_with("https://"));
    let ask = |ca: &str| {
        let ca = crate::support::file(&place.path("."), "ca.pem", ca);
        place
            .run(
                &server,
                &["devices", "list", "--ca-file", ca.to_str().unwrap()],
            )
            .status
    };
    assert_eq!(ask(&first), 0, "{}", place.log());
    let (second, second_key) = certificate("second.example.org");
    assert_eq!(ask(&second), 1);
    std::fs::write(&tls, &second).unwrap();
    std::fs::write(&key, &second_key).unwrap();
    server.signal("HUP");
    crate::support::wait_for("the renewed certificate", || {
        (ask(&second) == 0).then_some(())
    });
    // A damaged one is not taken; the one before stays.
    std::fs::write(&tls, "nothing").unwrap();
    server.signal("HUP");
    crate::support::wait_for("the complaint", || {
        place.log().contains("the one before stays").then_some(())
    });
    assert_eq!(ask(&second), 0);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_push_certificate_is_warned_about_from_sixty_days_before_its_end_and_fails_after_it() {
    let place = Installation::new();
    let server = place.serve();
    let now = Now::wall().get();
    for (topic, days, expected) in [
        ("fine", 70, "ok"),
        ("soon", 50, "warn"),
        ("ended", -1, "fail"),
    ] {
        let mut wanted =
            PushCertificateOptions::new(format!("com.apple.mgmt.External.{topic}"), now);
        wanted.not_before = now - time::Duration::days(300);
        wanted.not_after = now + time::Duration::days(days);
        let certificate = place.apple.issue(&wanted).unwrap().bundle_pem();
        let path = file(&place.path("."), "another.pem", &certificate);
        let path = path.to_str().unwrap();
        place.ok(&server, &["push-certificate", "add", "--certificate", path]);
        let config = place.config();
        let found = run(
            ["doctor", "--json", "--config", config.to_str().unwrap()],
            "",
        );
        let line = found.stdout.lines().find(|line| line.contains(topic));
        let finding: Value = serde_json::from_str(line.unwrap()).unwrap();
        assert_eq!(finding["verdict"], expected, "{finding}");
    }
    assert!(
        place
            .get(&server, "/metrics")
            .contains("External.soon\"} 4")
    );
    assert_eq!(server.stop(), Some(0));
    // The log has it once a day, and at every start.
    let server = place.serve();
    wait_for("the warnings in the log", || {
        let log = place.log();
        (log.contains("ends soon") && log.contains("has expired")).then_some(())
    });
    assert_eq!(server.stop(), Some(0));
}
