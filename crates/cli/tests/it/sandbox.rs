//! `serve --sandbox` as the README tells it: the whole product between fakes, played with the commands it prints.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::approvals::{actions, asked};
use crate::people::Person;
use crate::support::{Finished, binary, command, finish, run, wait_for};

const README: &str = include_str!("../../../../README.md");

pub(crate) struct Sandbox {
    child: Child,
    /// Its data, what it says, and its ready file.
    folder: TempDir,
    pub(crate) ready: Value,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sandbox {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(more: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), more)
    }

    fn start_in(folder: TempDir, more: &[&str]) -> Self {
        let ready_file = folder.path().join("ready.json");
        let path = |name: &str| folder.path().join(name);
        // A production configuration in the surroundings is not looked at.
        let child = command(["serve", "--sandbox", "--listen", "127.0.0.1:0"])
            .args(more)
            .arg("--data")
            .arg(path("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            .env("LOCKWARDEN_CONFIG", "/nowhere/at/all.toml")
            .stdin(Stdio::null())
            .stdout(File::create(path("out")).unwrap())
            .stderr(File::create(path("err")).unwrap())
            .spawn()
            .unwrap();
        let mut sandbox = Self {
            child,
            folder,
            ready: Value::Null,
        };
        let text = wait_for("the sandbox to serve", || {
            let ended = sandbox.child.try_wait().unwrap();
            assert_eq!(ended, None, "{}", sandbox.read("err"));
            std::fs::read_to_string(&ready_file).ok()
        });
        sandbox.ready = serde_json::from_str(&text).unwrap();
        sandbox
    }

    /// Ends it, and starts it again in the same folder.
    fn start_again(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::remove_file(self.folder.path().join("ready.json")).unwrap();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        *self = Self::start_in(folder, &[]);
    }

    /// Puts a file beside its data, and gives the path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = crate::support::file(self.folder.path(), name, text);
        path.to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        let mut command = command(arguments);
        command
            .env("LOCKWARDEN_URL", self.ready["url"].as_str().unwrap())
            .env(
                "LOCKWARDEN_TOKEN_FILE",
                self.folder.path().join("data/operator.token"),
            );
        finish(command, "")
    }

    /// The device whose story the sandbox tells in these words.
    pub(crate) fn device_that_is(&self, story: &str) -> String {
        let out = wait_for("the sandbox's words", || {
            Some(self.read("out")).filter(|out| out.contains("called unlocked"))
        });
        let line = out.lines().find(|line| line.contains(story));
        let line = line.unwrap_or_else(|| panic!("no device is {story:?} in:\n{out}"));
        line.split_whitespace().next().unwrap().to_owned()
    }

    /// Waits until at least so many codes of the device are held.
    pub(crate) fn wait_for_codes(&self, serial: &str, wanted: usize) {
        wait_for(&format!("{wanted} codes of {serial}"), || {
            let shown = self.run(&["devices", "show", serial, "--json"]);
            let device: Value = serde_json::from_str(&shown.stdout).ok()?;
            let codes = device["codes"].as_array()?.len();
            (codes >= wanted).then_some(())
        });
    }

    /// Waits until it can be locked: it has told a code, and Apple's lists name it.
    fn wait_until_lockable(&self, serial: &str) {
        self.wait_for_codes(serial, 1);
        wait_for(&format!("Apple's lists to name {serial}"), || {
            let shown = self.run(&["devices", "show", serial, "--json"]);
            let device: Value = serde_json::from_str(&shown.stdout).ok()?;
            let is_listed = !device["listings"].as_array()?.is_empty();
            let is_known = device["summary"]["product_type"].is_string();
            (is_listed && is_known).then_some(())
        });
    }

    /// Runs a command of the README's, for this device, with its data as JSON.
    #[track_caller]
    fn as_in_the_readme(&self, words: &str, serial: &str) -> Finished {
        let line = format!("$lockwarden {words}");
        let is_there = README.lines().any(|told| told.trim() == line);
        assert!(is_there, "the README has no line `{line}`");
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", &format!("{} --json", line.replace("SERIAL", serial))])
            .env("lockwarden", binary())
            .env("LOCKWARDEN_URL", self.ready["url"].as_str().unwrap())
            .env(
                "LOCKWARDEN_TOKEN_FILE",
                self.folder.path().join("data/operator.token"),
            );
        finish(shell, "")
    }

    fn unlock(&self, serial: &str) -> (i32, Value) {
        let ended = self.run(&["unlock", serial, "--reason", "a story", "--wait", "--json"]);
        let unlock =
            serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{}", ended.stderr));
        (ended.status, unlock)
    }
}

fn outcomes(unlock: &Value) -> Vec<&str> {
    let attempts = unlock["attempts"].as_array().unwrap();
    attempts
        .iter()
        .map(|attempt| attempt["outcome"].as_str().unwrap_or_default())
        .collect()
}

#[test]
fn t12_t13_t22_the_stories_of_the_sandbox_end_as_they_are_told() {
    let sandbox = Sandbox::start();

    let locked = sandbox.device_that_is("locked by its user");
    sandbox.wait_for_codes(&locked, 1);
    let (status, unlock) = sandbox.unlock(&locked);
    assert_eq!((status, unlock["state"].as_str()), (0, Some("unlocked")));
    assert_eq!(outcomes(&unlock), ["unlocked"]);

    // T22: erased while locked, so that a code of its history opens it.
    let erased = sandbox.device_that_is("erased while locked");
    sandbox.wait_for_codes(&erased, 2);
    let (status, unlock) = sandbox.unlock(&erased);
    assert_eq!((status, unlock["state"].as_str()), (0, Some("unlocked")));
    assert_eq!(outcomes(&unlock), ["refused", "unlocked"]);
    assert_eq!(unlock["attempts"][1]["code_current"], false);

    // T12: a wrong first candidate is followed by the right second one.
    let wrong_first = sandbox.device_that_is("newest code is wrong");
    sandbox.wait_for_codes(&wrong_first, 2);
    let (status, unlock) = sandbox.unlock(&wrong_first);
    assert_eq!((status, unlock["state"].as_str()), (0, Some("unlocked")));
    assert_eq!(outcomes(&unlock), ["refused", "unlocked"]);

    // T13: all fail, and it is not called unlocked; Apple's own status tells why.
    let hopeless = sandbox.device_that_is("nobody has");
    sandbox.wait_for_codes(&hopeless, 1);
    let (status, unlock) = sandbox.unlock(&hopeless);
    assert_eq!((status, unlock["state"].as_str()), (3, Some("rejected")));
    assert_eq!(unlock["rejected"], "locked_by_user");
}

/// What Apple said of a lock, and how ours stands, in an answer to `lock-status`.
#[track_caller]
fn standing(shown: &Finished) -> (Value, Value) {
    assert_eq!(shown.status, 0, "{}", shown.stderr);
    let shown = shown.json();
    let ours = &shown["organisation_lock"]["state"];
    (shown["apple"]["lock_type"].clone(), ours.clone())
}

/// Who made the codes that were tried, in their order.
fn made_by(unlock: &Value) -> Vec<&str> {
    let attempts = unlock["attempts"].as_array().unwrap();
    let kinds = attempts.iter().map(|attempt| attempt["code_kind"].as_str());
    kinds.map(Option::unwrap_or_default).collect()
}

/// Two people, with the commands of the sandbox: asked, told, refused, approved, broken by glass; each of it on record.
#[test]
fn a_code_of_the_sandbox_is_seen_and_its_lock_turned_off_by_two_people() {
    let sandbox = Sandbox::start();
    let url = sandbox.ready["url"].as_str().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let receiver = runtime
        .block_on(async { sim::WebhookReceiver::start().await })
        .unwrap();
    let hook = [
        "notices",
        "add-webhook",
        "chat",
        "--webhook-url",
        receiver.url(),
    ];
    assert_eq!(sandbox.run(&hook).status, 0);
    let joined = |login: &'static str, roles: &[&str]| {
        let invited = sandbox.run(&["people", "invite", login, "--name", login, "--json"]);
        assert_eq!(invited.status, 0, "{}", invited.stderr);
        let invited = invited.json();
        let invitation = invited["invitation"].as_str().unwrap();
        let person = Person::joined(sandbox.folder.path().to_owned(), url, login, invitation);
        let given = sandbox.run(&[&["people", "roles", login][..], roles].concat());
        assert_eq!(given.status, 0, "{}", given.stderr);
        person
    };
    let max = joined("max", &["approver", "auditor"]);
    let ann = joined("ann", &["revealer", "operator", "break-glass"]);
    for action in ["reveal", "unlock"] {
        let set = sandbox.run(&["policies", "set", action, "--people", "1"]);
        assert_eq!(set.status, 0, "{}", set.stderr);
    }
    let serial = sandbox.device_that_is("locked by its user");
    sandbox.wait_for_codes(&serial, 1);

    let reveal = ["reveal", &serial, "--reason", "returned"];
    assert_eq!(ann.run(&reveal, "").status, 1);
    let ask = |what: &[&str]| {
        asked(&ann.run(
            &[what, &["--ask-approval", "the owner is here", "--json"]].concat(),
            "",
        ))
    };
    let first = ask(&reveal);
    max.ok(&["approvals", "refuse", &first], "");
    let second = ask(&reveal);
    max.ok(&["approvals", "approve", &second], "");
    let under = |id: &str| ann.run(&[&reveal[..], &["--approval", id]].concat(), "");
    let refused = under(&first);
    assert!(refused.status == 1 && refused.stderr.contains("it was refused"));
    let shown = under(&second);
    assert!(shown.status == 0 && shown.stdout.contains("(current device code)"));

    let unlock = ["unlock", &serial, "--reason", "returned"];
    let glass = ["--break-glass", "nobody is there", "--wait"];
    let done = ann.run(&[&unlock[..], &glass].concat(), "");
    assert_eq!(done.status, 0, "{}", done.stderr);
    let emergency = max.ok(&["emergencies", "list"], "");
    let id = emergency["id"].as_str().or(emergency[0]["id"].as_str());
    max.ok(&["emergencies", "acknowledge", id.unwrap()], "");
    let told = |kind: &str| {
        let all = receiver.journal().all();
        all.iter()
            .any(|one| one.body.contains(&format!("\"{kind}\"")))
    };
    for kind in ["approval_requested", "approval_decided", "break_glass"] {
        wait_for(kind, || told(kind).then_some(()));
    }
    let recorded = actions(&max);
    for action in [
        "approval.ask",
        "approval.approve",
        "approval.refuse",
        "code.reveal",
        "break_glass",
        "break_glass.acknowledge",
        "unlock.request",
        "refused",
    ] {
        assert!(
            recorded.iter().any(|one| one == action),
            "{action}: {recorded:?}"
        );
    }
}

#[test]
fn t3_the_readmes_lost_ipad_is_locked_and_opens_with_the_code_of_its_lock() {
    let sandbox = Sandbox::start();
    let lost = sandbox.device_that_is("nobody locked");
    sandbox.wait_until_lockable(&lost);
    let call = |words: &str| sandbox.as_in_the_readme(words, &lost);

    let locked = call(
        "lock SERIAL --reason \"lost on the bus\" --message \"Please call +44 20 7946 0000\" --wait",
    );
    assert_eq!(locked.status, 0, "{}", locked.stderr);
    assert_eq!(locked.json()["calls"][0]["response_status"], "SUCCESS");
    let status = "lock-status SERIAL --fresh";
    assert_eq!(standing(&call(status)), ("MDM".into(), "confirmed".into()));

    let unlocked = call("unlock SERIAL --reason \"it is back\" --wait");
    assert_eq!(unlocked.status, 0, "{}", unlocked.stderr);
    let unlock = unlocked.json();
    assert_eq!(made_by(&unlock), ["server"]);
    assert_eq!(outcomes(&unlock), ["unlocked"]);
    assert_eq!(standing(&call(status)), ("NONE".into(), "none".into()));

    // Its finder erased it, so that it enrols again with another code of its own; all are kept.
    sandbox.wait_for_codes(&lost, 3);
}

#[test]
fn t5_the_readmes_users_lock_wins_and_opens_with_the_devices_own_code_also_when_played_again() {
    let mut sandbox = Sandbox::start();
    let played = sandbox.device_that_is("locked by its user");
    sandbox.wait_for_codes(&played, 1);
    assert_eq!(sandbox.unlock(&played).0, 0);
    sandbox.start_again();
    let locked = sandbox.device_that_is("locked by its user");
    sandbox.wait_until_lockable(&locked);
    let call = |words: &str| sandbox.as_in_the_readme(words, &locked);

    let refused = call("lock SERIAL --reason \"its user has left\" --wait");
    assert_eq!(refused.status, 3, "{}", refused.stderr);
    let refused = refused.json();
    assert_eq!(refused["state"], "already_locked");
    let said = &refused["calls"][0]["response_status"];
    assert_eq!(said, "DEVICE_ALREADY_LOCKED");
    let shown = standing(&call("lock-status SERIAL --fresh"));
    assert_eq!(shown, ("USER".into(), "someone_elses".into()));

    let unlocked = call("unlock SERIAL --reason \"its user has left\" --wait");
    assert_eq!(unlocked.status, 0, "{}", unlocked.stderr);
    let unlock = unlocked.json();
    assert_eq!(made_by(&unlock), ["device"]);
    assert_eq!(outcomes(&unlock), ["unlocked"]);
    // The code that holds nothing is kept all the same.
    sandbox.wait_for_codes(&locked, 2);
}

#[test]
fn r6_all_devices_of_the_sandbox_that_have_a_code_are_covered_also_those_that_enrolled_before() {
    let sandbox = Sandbox::start();
    let serials: Vec<&str> = sandbox.ready["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|serial| serial.as_str().unwrap())
        .collect();
    assert_eq!(serials.len(), 25);
    wait_for("every device's code", || {
        let listed = sandbox.run(&["devices", "list", "--json"]);
        let devices: Vec<Value> = serde_json::from_str(&listed.stdout).ok()?;
        let all = serials.iter().all(|serial| {
            devices.iter().any(|device| {
                device["serial"] == *serial
                    && ["covered", "exempt"].contains(&device["coverage"].as_str().unwrap_or(""))
            })
        });
        all.then_some(())
    });
    let missing = sandbox.run(&["devices", "list", "--coverage", "missing", "--json"]);
    assert!(missing.stdout.trim() == "[]", "{}", missing.stdout);
}

#[test]
fn what_the_sandbox_prints_can_be_typed() {
    let sandbox = Sandbox::start();
    let out = wait_for("the sandbox's words", || {
        Some(sandbox.read("out")).filter(|out| out.contains("called unlocked"))
    });
    assert!(out.contains("SANDBOX") && out.contains("Nothing reaches Apple"));
    assert!(out.contains(sandbox.ready["token"].as_str().unwrap()));
    let locked = sandbox.device_that_is("locked by its user");
    let lost = sandbox.device_that_is("nobody locked");
    for serial in [&locked, &lost] {
        sandbox.wait_until_lockable(serial);
    }
    let commands: Vec<&str> = out
        .lines()
        .filter(|line| line.contains("--token-file"))
        .collect();
    assert_eq!(commands.len(), 4, "{out}");
    for line in commands {
        let mut shell = std::process::Command::new("sh");
        shell.arg("-c").arg(line.trim());
        let done = finish(shell, "");
        assert_eq!(done.status, 0, "{line}: {}", done.stderr);
    }
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&sandbox.folder.path().join("ready.json")), 0o600);
    assert_eq!(
        mode(&sandbox.folder.path().join("data/operator.token")),
        0o600
    );
}

#[test]
fn where_another_program_listens_it_is_said_how_to_listen_elsewhere() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let refused = run(
        ["serve", "--sandbox", "--listen", &address, "--data", data],
        "",
    );
    assert_eq!(refused.status, 1);
    for told in ["cannot listen on", "hint: ", "`--listen 127.0.0.1:0`"] {
        assert!(refused.stderr.contains(told), "{told}: {}", refused.stderr);
    }
}

#[test]
fn a_sandbox_listens_on_loopback_only() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let refused = run(
        [
            "serve",
            "--sandbox",
            "--listen",
            "0.0.0.0:0",
            "--data",
            data.to_str().unwrap(),
        ],
        "",
    );
    assert_eq!(refused.status, 1);
    assert!(refused.stderr.contains("loopback"), "{}", refused.stderr);
}

#[test]
fn a_sandbox_has_as_many_devices_as_wanted_and_says_everywhere_that_it_is_one() {
    let sandbox = Sandbox::start_with(&["--devices", "6"]);
    assert_eq!(sandbox.ready["devices"].as_array().unwrap().len(), 6);
    let address = sandbox.ready["url"].as_str().unwrap().to_owned();
    let address = address.strip_prefix("http://").unwrap();
    for path in ["/readyz", "/openapi.json", "/v1/devices", "/nowhere"] {
        let mut stream = TcpStream::connect(address).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.contains("lockwarden-sandbox: true"),
            "{path}: {answer}"
        );
    }
}

#[test]
fn production_never_opens_a_sandboxs_folder() {
    let mut sandbox = Sandbox::start_with(&["--devices", "1"]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let made = run(
        [
            "init",
            "--organisation",
            "Example School",
            "--folder",
            &path("etc"),
            "--data",
            &path("data"),
        ],
        "",
    );
    assert_eq!(made.status, 0, "{}", made.stderr);
    let config = path("etc/lockwarden.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let played = sandbox.folder.path().join("data");
    let text = text.replace(&path("data"), played.to_str().unwrap());
    std::fs::write(&config, text).unwrap();
    sandbox.child.kill().unwrap();
    sandbox.child.wait().unwrap();
    let refused = run(["serve", "--config", &config], "");
    assert_eq!(refused.status, 1);
    assert!(refused.stderr.contains("sandbox"), "{}", refused.stderr);
}
