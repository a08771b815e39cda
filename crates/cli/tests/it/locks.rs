//! Locks by the organisation with the real binary: server tokens and the account set up with its own commands, locks asked for,
//! watched and taken back, and devices shown with them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use serde_json::Value;
use sim::dep::{DepDevice, DepToken, NanoDep, NanoDepOptions};
use sim::{AccountKind, Device, Kind, LockKind};

use crate::installation::{Installation, Server};
use crate::support::{Finished, file, finish, run, wait_for};

/// An installation whose server has a token of the enrolment service and a device that is assigned to it.
struct Stage {
    place: Installation,
    server: Server,
    token: DepToken,
    device: Device,
}

impl Stage {
    fn new() -> Self {
        let mut place = Installation::new();
        let server = place.serve();
        let device = place.device(Kind::IpadWifi);
        let token = place.dep.issue_token("Class Rooms");
        place.dep.assign(&token, device.dep_device());
        place.business.add_device(device.org_device());
        let stage = Self {
            place,
            server,
            token,
            device,
        };
        stage.import();
        stage.know(&stage.device);
        stage
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        self.place.run(&self.server, arguments)
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> Value {
        self.place.ok(&self.server, arguments)
    }

    /// A file that only its owner may read.
    fn secret(&self, name: &str, text: &str) -> String {
        let path = file(&self.place.path("."), name, text);
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Imports the token as other programs keep it, and waits until its list was read.
    fn import(&self) {
        let json = self.secret("token.json", &self.token.json());
        self.ok(&["dep", "token", "import", &json]);
        self.wait_for_list("default");
    }

    fn wait_for_list(&self, name: &str) {
        wait_for("the list to be read", || {
            let tokens = self.ok(&["dep", "tokens"]);
            let token = tokens.as_array().unwrap();
            let token = token.iter().find(|token| token["name"] == name).unwrap();
            (!token["listed_at"].is_null()).then_some(())
        });
    }

    /// Says which product the device is: no list of the enrolment service does.
    fn know(&self, device: &Device) {
        let product = device.identity().product_type;
        let serial = device.serial();
        self.ok(&["devices", "set", &serial, "--product-type", &product]);
    }

    /// Sets an account for Apple's own status.
    fn account(&self) -> sim::ApiAccount {
        let account = self.place.business.issue_account(AccountKind::School);
        let key = self.secret("api-account.pem", &account.private_key_pem);
        self.ok(&[
            "business-api",
            "set",
            "--client-id",
            &account.client_id,
            "--key-id",
            &account.key_id,
            "--key",
            &key,
        ]);
        account
    }

    /// `lock --wait` of the device: exit status and the lock.
    fn lock(&self, more: &[&str]) -> (i32, Value) {
        let serial = self.device.serial();
        let mut arguments = vec!["lock", &serial, "--reason", "lost", "--wait", "--json"];
        arguments.extend(more);
        let ended = self.run(&arguments);
        let lock =
            serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{}", ended.stderr));
        (ended.status, lock)
    }
}

mod wishes;

fn state(lock: &Value) -> &str {
    lock["state"].as_str().unwrap_or_default()
}

#[test]
fn t3_t29_a_device_is_locked_shown_with_what_would_strand_it_and_unlocked() {
    let stage = Stage::new();
    stage.account();
    let serial = stage.device.serial();
    let asked = stage.run(&[
        "lock",
        &serial,
        "--reason",
        "ticket 4711",
        "--message",
        "Property of the school",
        "--requester",
        "Anna Example",
        "--urgent",
        "--wait",
    ]);
    assert_eq!(asked.status, 0, "{}", asked.stderr);
    assert!(asked.stdout.starts_with(&format!("{serial}: locked\n")));
    assert!(
        asked
            .stderr
            .contains("call 1: locked (200)  Apple locked the device (SUCCESS).")
    );
    // Nothing is doubtful about an iPad.
    assert!(!asked.stderr.contains("doubtful"), "{}", asked.stderr);
    assert_eq!(stage.place.apple.lock_state(&serial), Some(LockKind::Mdm));

    let listed = stage.ok(&["locks", "list", &serial]);
    assert_eq!(listed[0]["urgent"], true);
    let id = listed[0]["id"].as_str().unwrap();
    let shown = stage.run(&["locks", "show", id]);
    for told in [
        "Property of the school",
        "ticket 4711",
        "Anna Example",
        "SUCCESS",
    ] {
        assert!(shown.stdout.contains(told), "{told}: {}", shown.stdout);
    }

    let status = stage.run(&["lock-status", &serial, "--fresh"]);
    assert_eq!(status.status, 0, "{}", status.stderr);
    let line = status.stdout.lines().nth(1).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..3], [serial.as_str(), "yes", "MDM"], "{line}");
    assert_eq!(words[5..], ["confirmed", "success"], "{line}");
    let strands = "do not release the device from the organisation";
    assert!(status.stderr.contains(strands), "{}", status.stderr);

    let page = stage.run(&["devices", "show", &serial]).stdout;
    for told in [
        "The organisation's lock: confirmed (success, ",
        strands,
        "Return to Service",
        "do not move the device to another device management system",
        "Apple's own status: locked yes, lock type MDM, read ",
        "(just now)",
        "Apple says that the organisation has locked the device.",
        "\n\nLocks\n",
        "\n\nServers of Apple's enrolment service that list it, or did\n",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
    let listed = stage.run(&["devices", "list"]).stdout;
    let heading = listed.lines().next().unwrap();
    assert!(heading.ends_with("LOCK"), "{listed}");
    assert!(listed.contains("confirmed"), "{listed}");

    // The first lock wins: asked again, it is our own that is on.
    let (status, again) = stage.lock(&[]);
    assert_eq!((status, state(&again)), (3, "already_locked"));
    assert_eq!(again["already_locked_by"], "confirmed");

    let unlock = stage.run(&["unlock", &serial, "--reason", "found", "--wait"]);
    assert_eq!(unlock.status, 0, "{}", unlock.stderr);
    let page = stage.run(&["devices", "show", &serial]).stdout;
    assert!(page.contains("The organisation's lock: none (turned_off, "));
    assert!(!page.contains("warning:"), "{page}");
    let listed = stage.run(&["devices", "list"]).stdout;
    assert!(!listed.contains("LOCK"), "{listed}");
    assert_eq!(stage.server.stop(), Some(0));
}

#[test]
fn t5_refused_and_undescribed_have_exit_statuses_of_their_own_and_a_review_goes_on_with_the_same_code()
 {
    let stage = Stage::new();
    let serial = stage.device.serial();
    stage
        .place
        .dep
        .refuse_lock(&serial, Some("DEVICE_NOT_SUPPORTED"));
    let (status, lock) = stage.lock(&[]);
    assert_eq!((status, state(&lock)), (3, "refused"));

    stage.place.dep.refuse_lock(&serial, Some("SOMETHING_NEW"));
    let (status, lock) = stage.lock(&[]);
    assert_eq!((status, state(&lock)), (4, "needs_review"));
    let id = lock["id"].as_str().unwrap();
    let page = stage.run(&["devices", "show", &serial]).stdout;
    assert!(
        page.contains("The organisation's lock: unknown ("),
        "{page}"
    );
    assert!(page.contains("warning:"), "{page}");

    stage.place.dep.refuse_lock(&serial, None);
    let went_on = stage.run(&["locks", "continue", id, "--wait", "--json"]);
    assert_eq!(went_on.status, 0, "{}", went_on.stderr);
    assert_eq!(state(&went_on.json()), "locked");
    assert_eq!(went_on.json()["code"], lock["code"]);
    let refused = stage.run(&["locks", "continue", id]);
    assert_eq!(refused.status, 1);
    assert!(refused.stderr.contains("does not wait for a person"));
    assert_eq!(stage.server.stop(), Some(0));
}

#[test]
fn a_lock_that_waits_for_a_server_token_is_shown_and_cancelled() {
    let stage = Stage::new();
    let serial = stage.device.serial();
    stage.ok(&["dep", "token", "remove", "default"]);
    let refused = stage.run(&["lock", &serial, "--reason", "lost"]);
    assert_eq!(refused.status, 1);
    assert!(
        refused.stderr.contains("--override-reason"),
        "{}",
        refused.stderr
    );
    let unknown = stage.run(&["lock", &serial, "--reason", "lost", "--server-token", "x"]);
    assert_eq!(unknown.status, 1);
    assert!(unknown.stderr.contains("`lockwarden dep tokens`"));

    let arguments = [
        "lock",
        &serial,
        "--reason",
        "lost",
        "--override-reason",
        "the list is late",
        "--idempotency-key",
        "ticket 4711",
        "--wait",
    ];
    let told = stage.place.path("told");
    let mut waiting = stage.place.cli(&stage.server, &arguments);
    waiting.stdin(Stdio::null()).stdout(Stdio::null());
    waiting.stderr(std::fs::File::create(&told).unwrap());
    let mut waiting = waiting.spawn().unwrap();
    wait_for("the wait to be told", || {
        let told = std::fs::read_to_string(&told).unwrap();
        told.contains(": There is no server token").then_some(())
    });
    let told = std::fs::read_to_string(&told).unwrap();
    let waits = told
        .lines()
        .find(|line| line.contains(": There is no"))
        .unwrap();
    let lock = stage.ok(&["locks", "list", &serial])[0].clone();
    assert_eq!(state(&lock), "waiting");
    let id = lock["id"].as_str().unwrap();
    let shown = stage.run(&["locks", "show", id]).stdout;
    assert!(shown.contains("the list is late"), "{shown}");
    assert!(
        shown.contains("There is no server token for this organisation"),
        "{shown}"
    );
    let until = shown
        .lines()
        .find_map(|line| line.strip_prefix("waits until"));
    let until = until.expect("the time of the next try is shown").trim();
    assert!(
        waits.starts_with(&format!("waiting until {until}: ")),
        "{until}: {waits}"
    );
    // Asked twice with the same key it is the same lock; another operation is told of it.
    let twice = stage.ok(&arguments[..arguments.len() - 1]);
    assert_eq!(twice["id"], lock["id"]);
    let unlock = stage.run(&["unlock", &serial, "--reason", "found"]);
    assert_eq!(unlock.status, 1);
    for command in ["show", "cancel"] {
        let told = format!("`lockwarden locks {command} {id}`");
        assert!(unlock.stderr.contains(&told), "{}", unlock.stderr);
    }

    let cancelled = stage.ok(&["locks", "cancel", id]);
    assert_eq!(state(&cancelled), "cancelled");
    assert_eq!(waiting.wait().unwrap().code(), Some(9));
    assert_eq!(stage.server.stop(), Some(0));
}

#[test]
fn what_is_doubtful_about_a_kind_of_device_is_told_before_anything_is_asked() {
    let mut stage = Stage::new();
    let mac = stage.place.device(Kind::Mac);
    stage.place.dep.assign(&stage.token, mac.dep_device());
    stage.ok(&["dep", "sync", "default"]);
    wait_for("the Mac to be listed", || {
        let shown = stage.run(&["devices", "show", &mac.serial()]);
        (shown.status == 0).then_some(())
    });
    stage.know(&mac);
    let asked = stage.run(&["lock", &mac.serial(), "--reason", "lost", "--wait"]);
    assert_eq!(asked.status, 3, "{}", asked.stderr);
    let first = asked.stderr.lines().next().unwrap();
    assert!(
        first.starts_with("doubtful: Whether Apple locks a Mac for an organisation is unverified"),
        "{first}"
    );
    let page = stage.run(&["devices", "show", &mac.serial()]).stdout;
    assert!(
        page.contains("doubtful: Whether Apple locks a Mac"),
        "{page}"
    );
    assert_eq!(stage.server.stop(), Some(0));
}

#[test]
fn t31_the_status_of_several_devices_is_a_line_each_and_problems_are_told_in_words() {
    let mut stage = Stage::new();
    let serial = stage.device.serial();
    let foreign = stage.place.device(Kind::IpadWifi);
    stage.know(&foreign);
    let foreign = foreign.serial();

    let nobody = stage.run(&["lock-status", &serial]);
    assert_eq!(nobody.status, 0, "{}", nobody.stderr);
    assert!(nobody.stderr.contains("`lockwarden business-api set`"));
    let nobody = stage.run(&["lock-status", &serial, &foreign, "--fresh"]);
    assert_eq!(nobody.status, 1);
    assert_eq!(
        nobody
            .stderr
            .matches("`lockwarden business-api set`")
            .count(),
        1,
        "{}",
        nobody.stderr
    );

    let account = stage.account();
    stage.device.lock_with_own_code().unwrap();
    let all = [
        "lock-status",
        &serial,
        "NOSUCHDEVICE",
        &foreign,
        &serial,
        "--fresh",
    ];
    let told = stage.run(&all);
    assert_eq!(told.status, 1);
    let rows: Vec<Vec<&str>> = told
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), 3, "{}", told.stdout);
    assert_eq!(rows[1][..3], [serial.as_str(), "yes", "USER"]);
    assert_eq!(rows[2][..3], [foreign.as_str(), "-", "-"]);
    assert!(told.stderr.contains("NOSUCHDEVICE: No such device"));
    assert!(told.stderr.contains(&format!(
        "{foreign}: Apple says that the organisation does not manage a device"
    )));

    let lines = stage.run(&[&all[..], &["--json"]].concat());
    let lines: Vec<Value> = lines
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["apple"]["lock_type"], "USER");
    assert_eq!(lines[0]["organisation_lock"]["state"], "someone_elses");
    assert!(lines[1]["error"].is_string() && lines[1]["serial"] == "NOSUCHDEVICE");
    assert_eq!(lines[2]["apple"]["problem"], "not_managed");

    // A question that gives nothing leaves what was said before, which is shown with its age.
    stage.place.business.deny(&account, true);
    let denied = stage.run(&["lock-status", &serial, "--fresh"]);
    assert_eq!(denied.status, 1);
    assert!(denied.stdout.contains("USER"), "{}", denied.stdout);
    assert!(
        denied
            .stderr
            .contains("Apple did not accept the API account")
    );
    let page = stage.run(&["devices", "show", &serial]).stdout;
    assert!(page.contains("Last asked "), "{page}");
    assert_eq!(
        stage.run(&["lock-status", &serial]).status,
        0,
        "what is shown was not asked for now"
    );
    let shown = stage.run(&["business-api", "show"]);
    assert!(shown.stdout.contains("to mend"), "{}", shown.stdout);
    assert_eq!(stage.server.stop(), Some(0));
}

#[test]
fn r23_the_account_is_checked_before_it_is_sent_tested_and_removed() {
    let stage = Stage::new();
    let none = stage.run(&["business-api", "show"]);
    assert_eq!(none.status, 1);
    assert!(none.stderr.contains("`lockwarden business-api set`"));
    let account = stage.account();
    let tested = stage.run(&["business-api", "test"]);
    assert_eq!(tested.status, 0, "{}", tested.stdout);
    let shown = stage.run(&["business-api", "show"]);
    assert!(shown.stdout.contains(&account.client_id));

    let key = stage.secret("not-a.key", "AS_no_key_at_all");
    let right = stage.place.path("api-account.pem");
    for (client_id, key, status) in [
        (account.client_id.as_str(), key.as_str(), 1),
        ("CLIENT.1", right.to_str().unwrap(), 2),
    ] {
        let set = [
            "business-api",
            "set",
            "--client-id",
            client_id,
            "--key-id",
            "K",
            "--key",
            key,
        ];
        // Without a server that it could be sent to.
        let refused = run(set, "");
        assert_eq!(refused.status, status, "{}", refused.stderr);
        assert!(!refused.stderr.contains("--url"), "{}", refused.stderr);
        assert!(!refused.stderr.contains("AS_no_key"), "{}", refused.stderr);
    }
    stage.ok(&["business-api", "remove"]);
    assert_eq!(stage.run(&["business-api", "test"]).status, 1);
    assert_eq!(stage.server.stop(), Some(0));
}

#[test]
fn t10_a_server_token_is_made_for_our_certificate_imported_and_renewed() {
    let stage = Stage::new();
    let certificate = stage.place.path("upload.pem");
    let certificate = certificate.to_str().unwrap();
    let made = stage.run(&["dep", "keypair", "--out", certificate]);
    assert_eq!(made.status, 0, "{}", made.stderr);
    assert!(made.stderr.contains("`lockwarden dep token import FILE`"));
    let again = stage.run(&["dep", "keypair", "--out", certificate]);
    assert_eq!(again.status, 1, "nothing is overwritten");
    let pem = std::fs::read_to_string(certificate).unwrap();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(!pem.contains("PRIVATE"));
    let shown = stage.run(&["dep", "keypair"]);
    let other_pem = shown.stdout;
    assert!(other_pem.starts_with("-----BEGIN CERTIFICATE-----"));
    let keys = stage.ok(&["dep", "keys"]);
    assert_eq!(keys.as_array().unwrap().len(), 2);

    let token = stage.place.dep.issue_token("Library");
    let p7m = stage.place.path("token.p7m");
    std::fs::write(&p7m, stage.place.dep.token_file(&token, &pem)).unwrap();
    let p7m = p7m.to_str().unwrap();
    let import = ["dep", "token", "import", p7m, "--name", "library"];
    let imported = stage.run(&import);
    assert_eq!(imported.status, 0, "{}", imported.stderr);
    stage.wait_for_list("library");
    let tested = stage.run(&["dep", "test", "library"]);
    assert_eq!(tested.status, 0, "{}", tested.stdout);
    assert!(tested.stdout.contains("Library"), "{}", tested.stdout);
    let keys = stage.run(&["dep", "keys", "--json"]).json();
    let used = keys.as_array().unwrap().iter();
    assert_eq!(used.filter(|key| !key["used_at"].is_null()).count(), 1);

    // Of the same name it is the same one, renewed.
    assert_eq!(stage.run(&import).status, 0);
    let tokens = stage.ok(&["dep", "tokens"]);
    let names: Vec<&str> = tokens
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["default", "library"]);

    // Made for somebody else's certificate, or something else altogether.
    let foreign = a_certificate_of_others();
    std::fs::write(p7m, stage.place.dep.token_file(&token, &foreign)).unwrap();
    let refused = stage.run(&import);
    assert_eq!(refused.status, 1);
    assert!(
        refused.stderr.contains("another certificate"),
        "{}",
        refused.stderr
    );
    let broken = token.json().replace("consumer_secret", "secret");
    let broken = stage.secret("broken.json", &broken);
    // It is not sent away: there is no server to send it to.
    let refused = run(["dep", "token", "import", &broken], "");
    assert_eq!(refused.status, 1);
    assert!(
        refused.stderr.contains("consumer_secret"),
        "{}",
        refused.stderr
    );
    assert!(!refused.stderr.contains(&token.consumer_secret));
    assert_eq!(stage.run(&["dep", "test", "none"]).status, 1);
    assert_eq!(stage.server.stop(), Some(0));
}

/// A certificate that nothing here has the key of.
fn a_certificate_of_others() -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key);
    certificate.unwrap().pem()
}

#[test]
fn a_nanodep_that_has_the_token_locks_too() {
    let stage = Stage::new();
    stage.ok(&["dep", "token", "remove", "default"]);
    let options = NanoDepOptions::default();
    let key = stage.secret("nanodep.key", &format!("{}\n", options.api_key));
    let nanodep = stage
        .place
        .runtime
        .block_on(NanoDep::start(&stage.place.dep, options))
        .unwrap();
    nanodep.add_name("classes", &stage.token);
    let added = stage.run(&[
        "dep",
        "token",
        "add-nanodep",
        "--name",
        "through nanodep",
        "--nanodep-url",
        &nanodep.url(),
        "--nanodep-name",
        "classes",
        "--api-key-file",
        &key,
    ]);
    assert_eq!(added.status, 0, "{}", added.stderr);
    assert!(added.stdout.contains("nanodep"), "{}", added.stdout);
    stage.wait_for_list("through nanodep");
    let (status, lock) = stage.lock(&["--server-token", "through nanodep"]);
    assert_eq!((status, state(&lock)), (0, "locked"));
    assert_eq!(stage.server.stop(), Some(0));
}

#[test]
fn r20_locking_newly_listed_devices_pauses_and_says_what_to_do() {
    let stage = Stage::new();
    let set =
        |more: &[&str]| stage.run(&[&["organisations", "set", "Example School"], more].concat());
    assert_eq!(set(&[]).status, 2, "nothing is wanted");
    let on = set(&["--lock-on-listing", "on", "--user-lock", "leave"]);
    assert_eq!(on.status, 0, "{}", on.stderr);
    assert!(!on.stderr.contains("pauses"), "{}", on.stderr);
    // One more than are locked by themselves in an hour.
    for number in 0..21 {
        let serial = format!("NEWLYHERE{number:03}");
        let device = DepDevice::new(serial, "iPad");
        stage.place.dep.assign(&stage.token, device);
    }
    stage.ok(&["dep", "sync", "default"]);
    let paused = wait_for("the pause", || {
        let listed = stage.run(&["organisations", "list"]);
        listed.stderr.contains("pauses").then_some(listed)
    });
    assert!(
        paused
            .stderr
            .contains("`lockwarden organisations set \"Example School\" --lock-on-listing on`"),
        "{}",
        paused.stderr
    );
    assert!(set(&["--user-lock", "leave"]).stderr.contains("pauses"));
    let on = stage.ok(&[
        "organisations",
        "set",
        "Example School",
        "--lock-on-listing",
        "on",
    ]);
    assert!(on["lock_on_listing_paused_at"].is_null());
    let off = stage.ok(&[
        "organisations",
        "set",
        "Example School",
        "--lock-on-listing",
        "off",
    ]);
    assert_eq!(off["lock_on_listing"], false);
    assert_eq!(stage.server.stop(), Some(0));
}

#[test]
fn t28_what_a_list_says_that_changes_the_worth_of_codes_is_told() {
    let stage = Stage::new();
    let serial = stage.device.serial();
    let mut listed = stage.device.dep_device();
    listed.is_replacement_device = true;
    listed.mdm_migration_deadline = Some("2027-02-03T04:05:06Z".to_owned());
    stage.place.dep.assign(&stage.token, listed);
    stage.ok(&["dep", "sync", "default"]);
    let page = wait_for("the facts", || {
        let page = stage.run(&["devices", "show", &serial]).stdout;
        page.contains("in place of another device").then_some(page)
    });
    assert!(
        page.contains("until 2027-02-03 04:05:06Z; that ends a lock"),
        "{page}"
    );
    stage.place.dep.unassign(&stage.token, &serial);
    stage.ok(&["dep", "sync", "default"]);
    wait_for("the device to be listed no more", || {
        let page = stage.run(&["devices", "show", &serial, "--json"]).json();
        (!page["listings"][0]["gone_at"].is_null()).then_some(())
    });
    assert_eq!(stage.server.stop(), Some(0));
}

#[test]
fn r5_with_several_organisations_the_one_that_is_meant_has_to_be_named() {
    let stage = Stage::new();
    stage.ok(&["organisations", "create", "Another School"]);
    for arguments in [
        &["dep", "tokens"][..],
        &["dep", "keypair"],
        &["dep", "test", "default"],
        &["business-api", "show"],
    ] {
        let refused = stage.run(arguments);
        assert_eq!(refused.status, 1, "{arguments:?}");
        assert!(
            refused
                .stderr
                .contains("--organisation NAME: Another School, Example School"),
            "{arguments:?}: {}",
            refused.stderr
        );
    }
    let own = stage.ok(&["dep", "tokens", "--organisation", "Example School"]);
    assert_eq!(own.as_array().unwrap().len(), 1);
    let others = stage.ok(&["dep", "tokens", "--organisation", "Another School"]);
    assert_eq!(others.as_array().unwrap().len(), 0);
    let unknown = stage.run(&["dep", "tokens", "--organisation", "No School"]);
    assert!(unknown.stderr.contains("`lockwarden organisations list`"));
    assert_eq!(stage.server.stop(), Some(0));
}

#[test]
fn a_token_may_be_given_leave_to_lock_and_nothing_more() {
    let stage = Stage::new();
    let serial = stage.device.serial();
    let path = stage.place.path("locker.token");
    let path = path.to_str().unwrap();
    stage.ok(&[
        "token",
        "create",
        "locker",
        "--scope",
        "lock",
        "--out-file",
        path,
    ]);
    let may = |arguments: &[&str]| {
        let mut command = stage.place.cli(&stage.server, arguments);
        command.env("LOCKWARDEN_TOKEN_FILE", path);
        finish(command, "").status
    };
    assert_eq!(may(&["lock", &serial, "--reason", "lost", "--wait"]), 0);
    assert_eq!(may(&["unlock", &serial, "--reason", "found"]), 1);
    assert_eq!(may(&["dep", "test", "default"]), 1);
    assert_eq!(stage.server.stop(), Some(0));
}
