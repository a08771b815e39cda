//! `lockwarden apple lock-status`, through the real binary, against the fake of Apple's business service.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use sim::{
    AccountKind, Apple, AppleDevice, AppleOptions, BusinessFault, BusinessManager,
    BusinessManagerOptions, Code, OrgDevice, StatusAnswer,
};
use tokio::runtime::Runtime;

use crate::support::{Finished, command, file, finish};

const LOCKED: &str = "SIMTEST00001";
const OURS: &str = "SIMTEST00002";
const OPEN: &str = "SIMTEST00003";
const UNKNOWN: &str = "SIMTEST00009";
/// A published test vector.
const CODE: &str = "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4";
const API: &str = "/v1/";

/// An organisation with three devices: one locked by a person, one by the organisation, one not.
struct Stage {
    business: BusinessManager,
    account: sim::ApiAccount,
    folder: tempfile::TempDir,
    runtime: Runtime,
}

impl Stage {
    fn of(kind: AccountKind) -> Self {
        let runtime = Runtime::new().unwrap();
        let apple = runtime
            .block_on(Apple::start(AppleOptions::default()))
            .unwrap();
        let options = BusinessManagerOptions::default();
        let business = runtime
            .block_on(BusinessManager::start(&apple, options))
            .unwrap();
        for serial in [LOCKED, OURS, OPEN] {
            apple.add_device(AppleDevice {
                serial: serial.to_owned(),
                product_type: "iPad4,1".to_owned(),
                ..AppleDevice::default()
            });
            business.add_device(OrgDevice::new(serial, "iPad4,1"));
        }
        apple.user_lock(LOCKED, CODE).unwrap();
        apple
            .org_lock(OURS, Code::parse(CODE).unwrap().hash())
            .unwrap();
        let stage = Self {
            account: business.issue_account(kind),
            business,
            folder: tempfile::tempdir().unwrap(),
            runtime,
        };
        stage.file("ca.pem", &stage.business.ca_pem());
        let key = stage.file("key.pem", &stage.account.private_key_pem);
        std::fs::set_permissions(key, Permissions::from_mode(0o600)).unwrap();
        stage
    }

    fn new() -> Self {
        Self::of(AccountKind::Business)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        file(self.folder.path(), name, text)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Runs it with these options changed, and others further.
    fn run_with(&self, changes: &[(&'static str, &str)], more: &[&str], stdin: &str) -> Finished {
        let mut options = vec![
            ("--client-id", self.account.client_id.clone()),
            ("--key-id", self.account.key_id.clone()),
            ("--key", self.path("key.pem")),
            ("--apple-url", self.business.api_url()),
            ("--token-url", self.business.token_url()),
            ("--ca-file", self.path("ca.pem")),
        ];
        for (name, value) in changes {
            options.retain(|(known, _)| known != name);
            options.push((name, (*value).to_owned()));
        }
        let mut arguments = vec!["apple".to_owned(), "lock-status".to_owned()];
        for (name, value) in options {
            arguments.extend([name.to_owned(), value]);
        }
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        finish(command(arguments), stdin)
    }

    fn json(&self, serials: &[&str]) -> Finished {
        self.run_with(&[], &[&["--json"], serials].concat(), "")
    }

    /// How often a device was asked about.
    fn questions(&self) -> usize {
        let calls = self.business.journal().all();
        calls.iter().filter(|call| call.method == "GET").count()
    }
}

/// Standard output as one JSON value a line.
#[track_caller]
fn lines(run: &Finished) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).expect("each line is JSON");
    run.stdout.lines().map(parse).collect()
}

/// The words of the problem, with nothing known.
#[track_caller]
fn problem(line: &Value) -> &str {
    assert!(line["is_locked"].is_null() && line["lock_type"].is_null());
    line["problem"].as_str().expect("a problem is told")
}

#[test]
fn each_device_is_shown_in_apples_own_words() {
    for kind in [AccountKind::Business, AccountKind::School] {
        let stage = Stage::of(kind);
        let run = stage.run_with(&[], &[OPEN, "simtest00001", OURS, LOCKED], "");
        assert_eq!(run.status, 0, "{}", run.stderr);
        assert_eq!(
            run.stdout,
            "SERIAL        LOCKED  LOCK TYPE\n\
             SIMTEST00003  no      NONE\n\
             SIMTEST00001  yes     USER\n\
             SIMTEST00002  yes     MDM\n"
        );
        assert_eq!(
            stage.questions(),
            3,
            "a device named twice is asked about once"
        );
        assert_eq!(stage.business.tokens_given(), 1);
    }
}

#[test]
fn as_json_each_device_is_one_object() {
    let stage = Stage::new();
    let missing = StatusAnswer::Missing;
    stage.business.set_status(OURS, missing);
    stage
        .business
        .set_status(OPEN, StatusAnswer::Other("CARRIER".to_owned()));
    let run = stage.json(&[LOCKED, OURS, OPEN]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert_eq!(
        lines(&run),
        [
            json!({ "serial": LOCKED, "is_locked": true, "lock_type": "USER" }),
            json!({ "serial": OURS, "is_locked": null, "lock_type": null }),
            json!({ "serial": OPEN, "is_locked": true, "lock_type": "CARRIER" }),
        ]
    );
    assert!(run.stderr.is_empty(), "{}", run.stderr);
}

#[test]
fn a_device_that_is_not_managed_is_exit_status_3_and_the_others_are_read() {
    let stage = Stage::new();
    let run = stage.json(&[UNKNOWN, LOCKED]);
    assert_eq!(run.status, 3);
    let lines = lines(&run);
    assert!(problem(&lines[0]).contains("does not manage"));
    assert_eq!(lines[1]["lock_type"], "USER");
    let run = stage.run_with(&[], &[UNKNOWN, LOCKED], "");
    assert_eq!(run.status, 3);
    assert!(run.stdout.contains("SIMTEST00009  -       -\n"));
    assert!(
        run.stderr
            .contains("SIMTEST00009: your organisation does not manage")
    );
}

#[test]
fn t31_an_internal_state_is_exit_status_4_and_never_not_locked() {
    let stage = Stage::new();
    stage.business.set_status(OPEN, StatusAnswer::InternalState);
    let run = stage.json(&[OPEN, UNKNOWN, LOCKED]);
    assert_eq!(run.status, 4, "worse than not managed");
    let lines = lines(&run);
    assert!(problem(&lines[0]).contains("does not mean it is not locked"));
    assert_eq!(lines[2]["is_locked"], true);
    let about_another = StatusAnswer::AboutAnother(LOCKED.to_owned());
    stage.business.set_status(OPEN, about_another);
    assert_eq!(stage.json(&[OPEN]).status, 4);
}

#[test]
fn a_refused_account_is_exit_status_5_and_the_rest_is_not_asked() {
    let stage = Stage::new();
    let other = stage.business.issue_account(AccountKind::Business);
    stage.file("other.pem", &other.private_key_pem);
    let wrong_key = [("--key", stage.path("other.pem"))];
    let wrong_key = wrong_key
        .each_ref()
        .map(|(name, path)| (*name, path.as_str()));
    let run = stage.run_with(&wrong_key, &["--json", LOCKED, OPEN], "");
    assert_eq!(run.status, 5);
    let told = lines(&run);
    assert!(problem(&told[0]).contains("invalid_client"));
    assert!(problem(&told[1]).starts_with("not asked: "));
    let calls = stage.business.journal().count();
    assert_eq!(calls, 1, "it is asked once, for a token");

    stage.business.deny(&stage.account, true);
    let run = stage.json(&[UNKNOWN, OPEN]);
    assert_eq!(run.status, 5);
    assert!(problem(&lines(&run)[0]).contains("(403)"));
}

#[test]
fn a_key_that_cannot_be_used_is_exit_status_5_and_nothing_is_asked() {
    let stage = Stage::new();
    let path = stage.file("no-key.pem", &stage.business.ca_pem());
    let no_key = [("--key", path.to_str().unwrap())];
    let run = stage.run_with(&no_key, &[LOCKED], "");
    assert_eq!(run.status, 5);
    assert!(run.stdout.is_empty());
    assert!(run.stderr.contains("no private key"), "{}", run.stderr);
    assert!(run.stderr.contains("chmod 600"), "others may read the file");
    assert_eq!(stage.business.journal().count(), 0);
}

#[test]
fn an_unreachable_service_is_exit_status_6_and_the_rest_is_not_asked() {
    let stage = Stage::new();
    stage.runtime.block_on(stage.business.go_offline());
    let run = stage.json(&[LOCKED, OPEN]);
    assert_eq!(run.status, 6);
    let told = lines(&run);
    assert!(problem(&told[0]).contains("not reached"));
    assert!(problem(&told[1]).starts_with("not asked: "));
    stage.runtime.block_on(stage.business.come_back());
    assert_eq!(stage.json(&[LOCKED, OPEN]).status, 0);
}

#[test]
fn t31_a_short_wait_is_waited_and_a_long_one_is_left_to_a_person() {
    let stage = Stage::new();
    let busy = |seconds| BusinessFault::status(429).retry_after(seconds).on(API);
    stage.business.push_fault(busy("0").times(2));
    let run = stage.run_with(&[], &[LOCKED], "");
    assert_eq!((run.status, stage.questions()), (0, 3), "{}", run.stderr);
    assert!(run.stderr.contains("asks to wait 0 s"), "{}", run.stderr);

    stage.business.push_fault(busy("0").times(3));
    assert_eq!(stage.json(&[LOCKED]).status, 6);
    assert_eq!(stage.questions(), 3 + 3, "not for ever");

    stage.business.push_fault(busy("3600"));
    let run = stage.json(&[LOCKED, OPEN]);
    assert_eq!(run.status, 6);
    let told = lines(&run);
    assert!(problem(&told[0]).contains("wait 3600 s"));
    assert!(problem(&told[1]).starts_with("not asked: "));
    assert_eq!(stage.questions(), 3 + 3 + 1);
}

#[test]
fn a_failure_over_one_device_does_not_keep_the_others_from_being_read() {
    let stage = Stage::new();
    let gateway = BusinessFault::status(504).for_serial(LOCKED).times(9);
    stage.business.push_fault(gateway);
    stage.business.set_status(OURS, StatusAnswer::InternalState);
    let run = stage.json(&[LOCKED, OURS, UNKNOWN, OPEN]);
    assert_eq!(
        run.status, 6,
        "the worst of them, for which asking again helps"
    );
    let told = lines(&run);
    assert!(problem(&told[0]).contains("(504)"));
    assert_eq!(told[3]["lock_type"], "NONE");
}

#[test]
fn a_key_is_read_from_standard_input_too() {
    let stage = Stage::new();
    let key = &stage.account.private_key_sec1_pem;
    let run = stage.run_with(&[("--key", "-")], &["--json", LOCKED], key);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert_eq!(lines(&run)[0]["lock_type"], "USER");
}

#[test]
fn wrong_usage_is_exit_status_2_and_nothing_is_asked() {
    let stage = Stage::new();
    for (changes, serials) in [
        (&[][..], &[][..]),
        (&[], &["NOT A SERIAL"]),
        (&[("--client-id", "OTHERAPI.1")], &[LOCKED]),
        (&[("--key-id", "")], &[LOCKED]),
        (&[("--key", "/no/such/file")], &[LOCKED]),
        (&[("--ca-file", "/no/such/file")], &[LOCKED]),
        (&[("--apple-url", "http://api.example")], &[LOCKED]),
        (&[("--apple-url", "https://api.example/v1")], &[LOCKED]),
        (&[("--token-url", "http://token.example/token")], &[LOCKED]),
    ] {
        let run = stage.run_with(changes, serials, "");
        assert_eq!(run.status, 2, "{changes:?}: {}", run.stderr);
        assert!(run.stdout.is_empty() && !run.stderr.is_empty());
    }
    assert_eq!(stage.business.journal().count(), 0);
}

#[test]
fn r23_no_secret_is_told_whatever_apple_repeats() {
    let stage = Stage::new();
    let secrets: Vec<&str> = (stage.account.private_key_pem.lines())
        .filter(|line| !line.starts_with('-'))
        .collect();
    // Longer than any word that is not a secret: tokens and the parts of an assertion.
    let long = |text: &str| {
        text.split(|c: char| !c.is_ascii_alphanumeric())
            .any(|word| word.len() > 32)
    };
    for (status, path) in [(400, API), (401, API), (403, API), (400, "/auth/")] {
        for json in [&[][..], &["--json"]] {
            stage
                .business
                .push_fault(BusinessFault::echo(status).on(path).times(2));
            let run = stage.run_with(&[], &[json, &[LOCKED]].concat(), "");
            stage.business.clear_faults();
            let said = format!("{}{}", run.stdout, run.stderr);
            assert!([4, 5].contains(&run.status), "{status} {path}");
            assert!(!secrets.iter().any(|secret| said.contains(secret)));
            assert!(!long(&said), "nothing of the length of a secret is left");
        }
    }
    // A secret that was given in the place of a path or an ID is not repeated.
    for (name, secret) in [
        ("--key", secrets[0]),
        ("--client-id", secrets[0]),
        ("--key-id", "a secret with spaces"),
    ] {
        let run = stage.run_with(&[(name, secret)], &[LOCKED], "");
        assert_eq!(run.status, 2);
        assert!(!run.stderr.contains(secret), "{name} is repeated");
    }
}
