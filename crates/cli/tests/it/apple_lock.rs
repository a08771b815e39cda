//! `lockwarden apple lock`, through the real binary, against the fakes of Apple's enrolment and unlock services.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use activation_lock::bypass_code::{BypassCode, EscrowKeyHash};
use activation_lock::time::Timestamp;
use apple::dep::key::TokenKey;
use serde_json::{Value, json};
use sim::{
    Apple, AppleDevice, AppleOptions, Dep, DepDevice, DepFault, DepOptions, DepToken, Gate,
    LockKind, SIM_TOPIC, fingerprint,
};
use tokio::runtime::Runtime;

use crate::leaks::Search;
use crate::support::{Finished, binary, command, file, finish, wait_for};

const SERIAL: &str = "SIMTEST00001";
const LOCK: &str = "/device/activationlock";
/// A published test vector.
const CODE: &str = "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4";

/// An organisation with one iPad that is not locked, and a folder with what the command needs.
struct Stage {
    apple: Apple,
    dep: Dep,
    token: DepToken,
    folder: tempfile::TempDir,
    runtime: Runtime,
}

impl Stage {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let (apple, dep) = runtime.block_on(async {
            let apple = Apple::start(AppleOptions::default()).await.unwrap();
            let dep = Dep::start(&apple, DepOptions::default()).await.unwrap();
            (apple, dep)
        });
        apple.add_device(AppleDevice {
            serial: SERIAL.to_owned(),
            product_type: "iPad4,1".to_owned(),
            ..AppleDevice::default()
        });
        let token = dep.issue_token("A server");
        dep.assign(&token, DepDevice::new(SERIAL, "iPad Air"));
        let stage = Self {
            apple,
            dep,
            token,
            folder: tempfile::tempdir().unwrap(),
            runtime,
        };
        stage.file("ca.pem", &stage.apple.ca_pem());
        stage.secret("token.json", &stage.token.json());
        stage
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        file(self.folder.path(), name, text)
    }

    /// A file that only its owner may read.
    fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name, text);
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn has(&self, name: &str) -> bool {
        Path::new(&self.path(name)).exists()
    }

    /// The code in a file that the command made.
    fn code(&self, name: &str) -> BypassCode {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        let line = text.strip_suffix('\n').expect("a line, whole");
        BypassCode::parse(line).expect("a code in its exact form")
    }

    /// The arguments, with these options changed; an empty value leaves one out.
    fn arguments(&self, changes: &[(&'static str, &str)]) -> Vec<String> {
        let mut options = vec![
            ("--serial", SERIAL.to_owned()),
            ("--token-file", self.path("token.json")),
            ("--code-out", self.path("new.code")),
            ("--apple-url", self.dep.url()),
            ("--ca-file", self.path("ca.pem")),
        ];
        for (name, value) in changes {
            options.retain(|(known, _)| known != name);
            if *name == "--code-file" {
                options.retain(|(known, _)| *known != "--code-out");
            }
            if !value.is_empty() {
                options.push((name, (*value).to_owned()));
            }
        }
        let options = options
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value]);
        ["apple".to_owned(), "lock".to_owned()]
            .into_iter()
            .chain(options)
            .collect()
    }

    fn run(&self, changes: &[(&'static str, &str)], stdin: &str) -> Finished {
        let mut arguments = self.arguments(changes);
        arguments.push("--json".to_owned());
        finish(command(arguments), stdin)
    }

    /// The same for people.
    fn run_in_words(&self, changes: &[(&'static str, &str)]) -> Finished {
        finish(command(self.arguments(changes)), "")
    }

    /// Turns the lock off with the code in a file.
    fn unlock(&self, code_file: &str) -> Finished {
        let certificate = self.apple.push_certificate(SIM_TOPIC).bundle_pem();
        self.secret("push.pem", &certificate);
        let (url, ca) = (self.apple.url(), self.path("ca.pem"));
        let arguments = [
            ["apple", "unlock"],
            ["--serial", SERIAL],
            ["--product-type", "iPad4,1"],
            ["--org-name", "Example School"],
            ["--requester", "anna@example.org"],
            ["--code-file", code_file],
            ["--certificate", &self.path("push.pem")],
            ["--apple-url", &url],
            ["--ca-file", &ca],
        ];
        finish(command(arguments.concat()), "")
    }

    fn lock_calls(&self) -> Vec<sim::dep::DepCall> {
        let calls = self.dep.journal().all().into_iter();
        calls.filter(|call| call.path == LOCK).collect()
    }

    /// Whether nothing at all was sent.
    fn is_untouched(&self) -> bool {
        self.dep.journal().count() == 0 && self.apple.lock_state(SERIAL).is_none()
    }
}

#[track_caller]
fn ended(run: &Finished, exit_status: i32, outcome: &str, said: Option<&str>) {
    let expected = json!({ "serial": SERIAL, "outcome": outcome, "response_status": said });
    assert_eq!(run.json(), expected, "{}", run.stderr);
    assert_eq!(run.status, exit_status, "{expected}");
    assert_eq!(run.stdout.lines().count(), 1, "one JSON value on one line");
}

/// What the failure says.
fn error(run: &Finished) -> String {
    let said: Value = serde_json::from_str(run.stderr.lines().last().unwrap()).unwrap();
    said["error"].as_str().unwrap().to_owned()
}

#[test]
fn t3_r4_a_new_code_is_kept_before_the_call_and_opens_the_lock() {
    let stage = Stage::new();
    let gate = Gate::new();
    stage.dep.push_fault(DepFault::hold(&gate).on(LOCK));
    let mut arguments = stage.arguments(&[]);
    arguments.push("--json".to_owned());
    let child = command(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The call has arrived and is held: nothing is decided, and the code is there, whole and for its owner alone.
    wait_for("the lock call", || {
        (!stage.lock_calls().is_empty()).then_some(())
    });
    assert_eq!(stage.apple.lock_state(SERIAL), None);
    let hash = EscrowKeyHash::of(&stage.code("new.code")).to_string();
    let mode = std::fs::metadata(stage.path("new.code")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    gate.open();
    let output = child.wait_with_output().unwrap();
    let run = Finished {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    ended(&run, 0, "locked", Some("SUCCESS"));
    assert_eq!(stage.apple.lock_state(SERIAL), Some(LockKind::Mdm));

    // T8: it is the hash of this very code that was sent, and nothing else.
    let [call] = &stage.lock_calls()[..] else {
        panic!("one call");
    };
    assert_eq!(call.escrow_key_fingerprint, Some(fingerprint(&hash)));
    assert_eq!(call.lost_message, None);

    let opened = stage.unlock(&stage.path("new.code"));
    assert_eq!(opened.status, 0, "{}", opened.stderr);
    assert_eq!(stage.apple.lock_state(SERIAL), None);
}

/// `kill -9` cannot tell whether the code is on disk, the system calls can.
#[test]
fn t3_r4_the_code_and_its_name_are_on_disk_before_a_byte_leaves() {
    let stage = Stage::new();
    let kept = stage.secret("kept.code", CODE);
    for changes in [&[][..], &[("--code-file", kept.to_str().unwrap())]] {
        let trace = stage.path("trace");
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-e", "trace=fsync,connect", "-o", &trace])
            .arg(binary())
            .args(stage.arguments(changes));
        let run = finish(strace, "");
        assert!([0, 3].contains(&run.status), "{}", run.stderr);
        let trace = std::fs::read_to_string(&trace).unwrap();
        let port = stage.dep.url();
        let port = format!("htons({})", port.rsplit(':').next().unwrap());
        let before = trace.lines().take_while(|line| !line.contains(&port));
        let synced = before
            .filter(|line| line.contains("fsync") && line.ends_with("= 0"))
            .count();
        assert!(trace.contains(&port), "it connects:\n{trace}");
        assert_eq!(synced, 2, "the file, and its folder:\n{trace}");
    }
}

#[test]
fn t5_r20_each_word_of_apple_has_its_outcome_and_only_success_is_locked() {
    let stage = Stage::new();
    for (said, exit_status, outcome) in [
        ("NOT_ACCESSIBLE", 3, "not_accessible"),
        ("ORG_NOT_SUPPORTED", 3, "org_not_supported"),
        ("DEVICE_NOT_SUPPORTED", 3, "device_not_supported"),
        ("DEVICE_ALREADY_LOCKED", 3, "already_locked"),
        ("FAILED", 7, "failed"),
        ("SHINY_NEW_STATE", 7, "undescribed"),
    ] {
        stage.dep.refuse_lock(SERIAL, Some(said));
        let run = stage.run(&[("--code-out", &stage.path(said))], "");
        ended(&run, exit_status, outcome, Some(said));
        assert!(stage.has(said), "the code stays, whatever the answer");
        assert_eq!(stage.apple.lock_state(SERIAL), None);
    }
    stage.dep.refuse_lock(SERIAL, None);
    ended(&stage.run(&[], ""), 0, "locked", Some("SUCCESS"));
    assert_eq!(stage.lock_calls().len(), 7, "one call each");
}

#[test]
fn t6_what_comes_of_the_other_answers_is_in_the_exit_status() {
    let stage = Stage::new();
    let on_lock = |status| DepFault::status(status).on(LOCK);
    let on_session = |status| DepFault::status(status).on("/session");
    for (number, (fault, exit_status, outcome)) in [
        (on_lock(400), 4, "malformed"),
        (on_lock(418), 4, "unexpected"),
        (on_lock(302), 4, "unexpected"),
        (on_lock(401).times(4), 5, "credential"),
        (on_lock(403).body("ACCESS_DENIED"), 5, "access_denied"),
        (on_lock(403).body("T_C_NOT_SIGNED"), 5, "terms_not_signed"),
        (on_session(401).times(4), 5, "credential"),
        (on_lock(429), 6, "unavailable"),
        (on_lock(503).retry_after("7"), 6, "unavailable"),
        (on_session(500), 6, "unavailable"),
        (on_lock(503), 7, "unknown"),
        (on_lock(500), 7, "unknown"),
        (DepFault::huge_body().on(LOCK), 7, "unknown"),
        (DepFault::garbage().on(LOCK), 7, "unknown"),
        (DepFault::drop_before().on(LOCK), 7, "unknown"),
    ]
    .into_iter()
    .enumerate()
    {
        stage.dep.push_fault(fault);
        let code = format!("{number}.code");
        let run = stage.run(&[("--code-out", &stage.path(&code))], "");
        ended(&run, exit_status, outcome, None);
        assert!(stage.has(&code));
        stage.dep.clear_faults();
        stage.apple.clear_lock(SERIAL);
    }
    stage.runtime.block_on(stage.dep.go_offline());
    let run = stage.run(&[], "");
    ended(&run, 6, "unavailable", None);
    stage.runtime.block_on(stage.dep.come_back());
    let run = stage.run(&[("--ca-file", ""), ("--code-out", &stage.path("x"))], "");
    ended(&run, 6, "unavailable", None);
}

#[test]
fn t7_r4_a_lost_answer_is_asked_for_again_with_the_same_code_which_opens_the_lock() {
    let stage = Stage::new();
    stage.dep.push_fault(DepFault::drop_after_commit().on(LOCK));
    let run = stage.run(&[], "");
    ended(&run, 7, "unknown", None);
    assert_eq!(stage.apple.lock_state(SERIAL), Some(LockKind::Mdm));
    let code = stage.path("new.code");
    assert!(
        run.stderr.contains(&format!("--code-file {code}")),
        "{}",
        run.stderr
    );

    let run = stage.run(&[("--code-file", &code)], "");
    ended(&run, 3, "already_locked", Some("DEVICE_ALREADY_LOCKED"));
    assert!(run.stderr.contains("Keep "), "{}", run.stderr);
    let sent: Vec<_> = stage
        .lock_calls()
        .into_iter()
        .map(|call| call.escrow_key_fingerprint)
        .collect();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0], sent[1], "one code for both");

    let opened = stage.unlock(&code);
    assert_eq!(opened.status, 0, "{}", opened.stderr);
    assert_eq!(stage.apple.lock_state(SERIAL), None);
}

#[test]
fn r4_a_code_that_is_kept_already_is_used_and_none_is_made() {
    let stage = Stage::new();
    let hash = EscrowKeyHash::of(&BypassCode::parse(CODE).unwrap());
    let hash = Some(fingerprint(&hash.to_string()));
    // As it was made, and as a person types it.
    let typed = format!("  {}\n", CODE.to_lowercase().replace('-', " "));
    stage.secret("kept.code", &typed);
    let kept = stage.path("kept.code");
    for (place, stdin) in [(kept.as_str(), ""), ("-", CODE), ("-", &typed)] {
        let run = stage.run(&[("--code-file", place)], stdin);
        ended(&run, 0, "locked", Some("SUCCESS"));
        let sent = stage.lock_calls().pop().unwrap();
        assert_eq!(sent.escrow_key_fingerprint, hash);
        stage.apple.clear_lock(SERIAL);
    }
    assert!(!stage.has("new.code"));
    // What others may read is said.
    stage.file("open.code", CODE);
    let run = stage.run(&[("--code-file", &stage.path("open.code"))], "");
    assert_eq!(run.status, 0);
    assert!(run.stderr.contains("chmod 600"), "{}", run.stderr);
}

#[test]
fn t8_a_message_is_sent_as_it_is() {
    let stage = Stage::new();
    let run = stage.run(&[("--message", "Lost? Call +44 20 7946 0000")], "");
    ended(&run, 0, "locked", Some("SUCCESS"));
    let call = stage.lock_calls().pop().unwrap();
    let shown = call.lost_message.as_deref();
    assert_eq!(shown, Some("Lost? Call +44 20 7946 0000"));
}

#[test]
fn t10_the_file_of_the_portal_opens_with_its_key() {
    let stage = Stage::new();
    let key = TokenKey::generate(Timestamp(1_790_000_000_000)).unwrap();
    let other = TokenKey::generate(Timestamp(1_790_000_000_000)).unwrap();
    let certificate = key.certificate_pem().unwrap();
    let p7m = stage.dep.token_file(&stage.token, certificate);
    stage.file("token.p7m", std::str::from_utf8(&p7m).unwrap());
    stage.secret("key.pem", &key.private_key_pem());
    stage.secret("other.pem", &other.private_key_pem());
    let both = format!("{}{certificate}", *key.private_key_pem());
    stage.secret("both.pem", &both);
    let p7m = stage.path("token.p7m");
    let [key, other, none] = ["key.pem", "other.pem", "ca.pem"].map(|name| stage.path(name));
    let with = |key| [("--token-file", p7m.as_str()), ("--key", key)];

    let wrong = stage.run(&with(&other), "");
    ended(&wrong, 5, "credential", None);
    assert!(error(&wrong).contains("another certificate"));
    let no_key = stage.run(&with(&none), "");
    ended(&no_key, 5, "credential", None);
    assert!(error(&no_key).contains("no private key"));
    let without = stage.run(&with(""), "");
    assert_eq!(without.status, 2, "{}", without.stderr);
    assert!(without.stderr.contains("--key"), "{}", without.stderr);
    assert!(!stage.has("new.code") && stage.is_untouched());

    ended(&stage.run(&with(&key), ""), 0, "locked", Some("SUCCESS"));
    stage.apple.clear_lock(SERIAL);
    let more = ("--code-out", stage.path("second.code"));
    let changes = [with("-").as_slice(), &[(more.0, &more.1)]].concat();
    let run = stage.run(&changes, &both);
    ended(&run, 0, "locked", Some("SUCCESS"));
}

#[test]
fn the_readmes_command_works_as_it_stands() {
    let stage = Stage::new();
    let start = "lockwarden apple lock --serial ";
    let readme = include_str!("../../../../README.md");
    let told = readme.lines().find(|line| line.starts_with(start)).unwrap();
    let serial = told[start.len()..].split(' ').next().unwrap();
    stage.apple.add_device(AppleDevice {
        serial: serial.to_owned(),
        product_type: "iPad4,1".to_owned(),
        ..AppleDevice::default()
    });
    let device = DepDevice::new(serial, "iPad Air");
    stage.dep.assign(&stage.token, device);
    let key = TokenKey::generate(Timestamp(1_790_000_000_000)).unwrap();
    let certificate = key.certificate_pem().unwrap();
    let p7m = stage.dep.token_file(&stage.token, certificate);
    stage.secret("token.p7m", std::str::from_utf8(&p7m).unwrap());
    stage.secret("token.key", &key.private_key_pem());
    let fake = format!("--apple-url {} --ca-file ca.pem", stage.dep.url());
    let line = told.replacen("lockwarden", "\"$lockwarden\"", 1);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("{line} {fake}")])
        .env("lockwarden", binary())
        .current_dir(stage.folder.path());
    let run = finish(shell, "");
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert_eq!(stage.apple.lock_state(serial), Some(LockKind::Mdm));
    stage.code(&format!("{serial}.code"));
}

#[test]
fn t10_a_token_that_has_ended_or_is_none_is_refused_before_anything_is_made() {
    let stage = Stage::new();
    stage.dep.expire_token(&stage.token);
    let over = stage.dep.token(&stage.token.consumer_key).unwrap();
    let over = stage.secret("over.json", &over.json());
    let none = stage.secret("none.json", "{\"consumer_key\":\"CK_1\"}");
    for (file, why) in [(over, "has ended"), (none, "it has no ")] {
        let run = stage.run(&[("--token-file", file.to_str().unwrap())], "");
        ended(&run, 5, "credential", None);
        assert!(error(&run).contains(why), "{}", run.stderr);
    }
    assert!(!stage.has("new.code") && stage.is_untouched());
    // What Apple ends before its day, Apple refuses; the code that was made by then is told of.
    let run = stage.run(&[], "");
    ended(&run, 5, "credential", None);
    let code = stage.path("new.code");
    assert!(run.stderr.contains(&format!("--code-file {code}")));
}

#[test]
fn r4_a_code_that_cannot_be_kept_is_not_locked_with() {
    let stage = Stage::new();
    let there = stage.file("there", "what is there");
    let folder = stage.path("no/such/folder/new.code");
    for (place, status) in [
        (there.to_str().unwrap(), 1),
        (&folder, 1),
        // Root may write everywhere but here.
        ("/proc/self/new.code", 1),
        ("/dev/full", 1),
        (stage.folder.path().to_str().unwrap(), 1),
        ("-", 2),
    ] {
        let run = stage.run(&[("--code-out", place)], "");
        assert_eq!(run.status, status, "{place}: {}", run.stderr);
        assert!(run.stdout.is_empty(), "{place}");
        let told = run.stderr.contains("sent") || run.stderr.contains("before Apple is asked");
        assert!(told, "{}", run.stderr);
    }
    assert_eq!(std::fs::read_to_string(there).unwrap(), "what is there");
    assert!(stage.is_untouched());
    // A disk that takes no more, as far as this process is concerned.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""])
        .arg(binary())
        .args(stage.arguments(&[]));
    let run = finish(shell, "");
    assert_eq!(run.status, 1, "{}", run.stderr);
    assert!(run.stderr.contains("cannot be written"), "{}", run.stderr);
    assert!(!stage.has("new.code"), "what is not whole does not stay");
    assert!(stage.is_untouched());
}

#[test]
fn wrong_usage_is_exit_status_2_and_nothing_is_made_or_sent() {
    let stage = Stage::new();
    let two_codes = stage.secret("two.code", &format!("{CODE}\n{CODE}\n"));
    let long = "x".repeat(501);
    for changes in [
        &[("--serial", "")][..],
        &[("--serial", "not a serial")],
        &[("--token-file", "")],
        &[("--token-file", "/nowhere/token.json")],
        &[("--token-file", "/dev/null")],
        &[("--code-out", "")],
        &[("--code-file", "/nowhere/code")],
        &[("--code-file", "/dev/null")],
        &[("--code-file", two_codes.to_str().unwrap())],
        &[("--code-file", "-"), ("--code-out", "both")],
        &[("--message", " ")],
        &[("--message", &long)],
        &[("--apple-url", "http://apple.example")],
        &[("--apple-url", "https://apple.example/session")],
        &[("--ca-file", "/nowhere/ca.pem")],
    ] {
        let run = stage.run(changes, "no code");
        assert_eq!(run.status, 2, "{changes:?}: {}", run.stderr);
        assert!(run.stdout.is_empty() && !run.stderr.is_empty());
    }
    let twice = stage.run(&[("--code-file", "-"), ("--token-file", "-")], "");
    assert!(error(&twice).contains("read once"), "{}", twice.stderr);
    assert_eq!(twice.status, 2);
    assert!(!stage.has("new.code") && stage.is_untouched());
}

#[test]
fn in_words_it_says_what_happened_and_where_the_code_is() {
    let stage = Stage::new();
    let code = stage.path("new.code");
    let run = stage.run_in_words(&[]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert_eq!(run.stdout, format!("{SERIAL}: locked (SUCCESS)\n"));
    assert!(
        run.stderr
            .contains(&format!("the new code is kept in {code}"))
    );
    assert!(run.stderr.contains("Apple locked the device (SUCCESS)."));
    assert!(run.stderr.contains(&format!("Keep the code in {code}")));

    let run = stage.run_in_words(&[("--code-out", &stage.path("second.code"))]);
    assert_eq!(run.status, 3);
    assert_eq!(
        run.stdout,
        format!("{SERIAL}: already locked (DEVICE_ALREADY_LOCKED)\n")
    );
    let busy = DepFault::status(503)
        .retry_after("7")
        .body("come back later")
        .on(LOCK);
    stage.dep.push_fault(busy);
    let run = stage.run_in_words(&[("--code-out", &stage.path("third.code"))]);
    assert_eq!(run.status, 6);
    assert_eq!(run.stdout, format!("{SERIAL}: unavailable\n"));
    assert!(run.stderr.contains("asks to wait 7 s"), "{}", run.stderr);
    assert!(run.stderr.contains("come back later"), "{}", run.stderr);
    assert!(!run.stderr.contains("Keep the code"), "{}", run.stderr);
}

#[test]
fn r23_no_secret_is_told_whatever_apple_repeats() {
    let stage = Stage::new();
    let code = stage.secret("kept.code", CODE);
    let code = code.to_str().unwrap();
    let mut search = Search::default();
    search.code("the code", CODE);
    for (name, secret) in [
        ("the consumer secret", &stage.token.consumer_secret),
        ("the access token", &stage.token.access_token),
        ("the access secret", &stage.token.access_secret),
    ] {
        search.text(name, secret);
    }
    let look = |run: &Finished| {
        let found = search.found(format!("{}{}", run.stdout, run.stderr).as_bytes());
        assert!(found.is_empty(), "it tells {found:?}");
    };
    for path in [LOCK, "/session"] {
        for status in [400, 401, 403, 429, 500] {
            for json in [true, false] {
                stage
                    .dep
                    .push_fault(DepFault::echo(status).on(path).times(4));
                let run = match json {
                    true => stage.run(&[("--code-file", code)], ""),
                    false => stage.run_in_words(&[("--code-file", code)]),
                };
                assert!(run.status > 3, "{path} {status}: {}", run.status);
                look(&run);
                stage.dep.clear_faults();
            }
        }
    }
    look(&stage.run_in_words(&[("--code-file", code)]));
    // Where a secret stands in the place of another, it is not repeated either.
    let token = stage.path("token.json");
    look(&stage.run(&[("--code-file", &token)], ""));
    look(&stage.run(&[("--code-file", CODE)], ""));
    look(&stage.run(&[("--token-file", code)], ""));
    look(&stage.run(&[("--key", code), ("--token-file", code)], ""));
    let new = stage.run(&[], "");
    search.code("the new code", &stage.code("new.code").to_text());
    let said = format!("{}{}", new.stdout, new.stderr);
    assert!(search.found(said.as_bytes()).is_empty());
}
