//! R23, T34: after a whole story, no code, hash, token or key lies open in the data folder, the logs, the metrics or what the
//! commands printed.

use std::collections::HashMap;
use std::path::Path;

use activation_lock::bypass_code::{BypassCode, EscrowKeyHash};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use data_encoding::HEXLOWER;
use sim::{AccountKind, Device, Fault, Kind, MailSecurity, MailServer, Udid, WebhookReceiver};

use crate::installation::{API_KEY, HMAC_KEY, Installation, Server};
use crate::people::Person;
use crate::support::{file, wait_for};

/// Looks for many secrets at once. Each has its name, and stands in every writing that a program may give it.
#[derive(Default)]
pub(crate) struct Search {
    /// By the first bytes, in small letters.
    needles: HashMap<[u8; HEAD], Vec<(String, Vec<u8>)>>,
}

const HEAD: usize = 6;

impl Search {
    fn add(&mut self, name: &str, bytes: &[u8]) {
        let small = bytes.to_ascii_lowercase();
        let Some(head) = small.first_chunk::<HEAD>() else {
            panic!("{name} is too short to be looked for");
        };
        self.needles
            .entry(*head)
            .or_default()
            .push((name.to_owned(), small.clone()));
    }

    /// A secret text, plain and encoded.
    pub(crate) fn text(&mut self, name: &str, text: &str) {
        self.add(name, text.as_bytes());
        self.bytes(name, text.as_bytes());
    }

    /// Secret bytes, in hexadecimal digits and base64 wherever they stand in a longer text.
    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        self.add(
            &format!("{name} in hexadecimal digits"),
            HEXLOWER.encode(bytes).as_bytes(),
        );
        for offset in 0..3 {
            let mut shifted = vec![0; offset];
            shifted.extend_from_slice(bytes);
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                let encoded = engine.encode(&shifted);
                let own = &encoded[(offset * 8).div_ceil(6)..shifted.len() * 8 / 6];
                self.add(&format!("{name} in base64"), own.as_bytes());
            }
        }
    }

    pub(crate) fn code(&mut self, name: &str, text: &str) {
        self.text(name, text);
        let bare: String = text.chars().filter(|c| *c != '-').collect();
        self.text(&format!("{name} without dashes"), &bare);
        let code = BypassCode::parse(text).unwrap();
        self.add(&format!("{name}, raw"), code.raw());
        self.bytes(&format!("{name}, raw"), code.raw());
        let hash = EscrowKeyHash::of(&code);
        self.add(&format!("{name}, hashed"), hash.bytes());
        self.bytes(&format!("{name}, hashed"), hash.bytes());
    }

    /// The names of what is found.
    pub(crate) fn found(&self, haystack: &[u8]) -> Vec<String> {
        let small = haystack.to_ascii_lowercase();
        let mut found = Vec::new();
        for at in 0..small.len().saturating_sub(HEAD - 1) {
            let head: &[u8; HEAD] = small[at..].first_chunk().unwrap();
            for (name, needle) in self.needles.get(head).into_iter().flatten() {
                if small[at..].starts_with(needle) {
                    found.push(name.clone());
                }
            }
        }
        found
    }
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let mut search = Search::default();
    search.code("a code", "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4");
    for leak in [
        &b"x 3um43-puyvy-qyd1-uvcc-hehj-fka4 y"[..],
        b"3UM43PUYVYQYD1UVCCHEHJFKA4",
        b"1ea841db5edfafe6075b5ae0d845d254",
        b"6AB40D5EABE7218EC04182F461005600C7E3426BDDD82CDB405BDE9A1E0014B5",
        &STANDARD_NO_PAD
            .encode("escrowKey=3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4&x")
            .into_bytes(),
    ] {
        assert!(!search.found(leak).is_empty());
    }
    assert!(search.found(b"PXH8M-QYJZA-2H1J-H9CV-HN5U-KDN7").is_empty());
}

#[test]
fn r23_t34_no_secret_lies_open_anywhere_after_a_whole_story() {
    let mut place = Installation::new();
    let mut search = Search::default();
    search.text("the MDM's API key", API_KEY);
    search.text("the webhook key", HMAC_KEY);
    let read = |name: &str| {
        std::fs::read_to_string(place.path(name))
            .unwrap()
            .trim()
            .to_owned()
    };
    search.text("the first token", &read("admin.token"));
    for (name, path) in [
        ("the running key", "etc/key"),
        ("the recovery key", "recovery.key"),
    ] {
        let line = read(path);
        let key = line.rsplit(':').next().unwrap();
        search.text(name, key);
        let bytes = URL_SAFE_NO_PAD.decode(key).unwrap();
        search.add(name, &bytes);
    }
    let pem = read("push.pem");
    let key = pem.split("-----BEGIN PRIVATE KEY-----").nth(1).unwrap();
    search.text(
        "the push certificate's key",
        key.trim().lines().next().unwrap(),
    );

    // Everything is logged that can be, also by the libraries.
    let config = std::fs::read_to_string(place.config()).unwrap();
    let loudest = config.replace("level = \"debug\"", "level = \"trace\"");
    assert!(loudest != config);
    std::fs::write(place.config(), loudest).unwrap();

    // A story with everything in it: enrolments, a rotation, an erase, reveals, unlocks that fail in every way, a crash.
    let server = place.serve();
    let key = place.path("api.key");
    let made = place.ok(
        &server,
        &[
            "mdm",
            "add",
            "cannot-sign",
            "--kind",
            "micromdm",
            "--mdm-url",
            &place.mdm.url(),
            "--api-key-file",
            key.to_str().unwrap(),
        ],
    );
    let path = made["webhook_path"].as_str().unwrap().to_owned();
    search.text("the secret in a path", path.rsplit('/').next().unwrap());
    let by_path = place.get(&server, &path);
    let phone = place.device(Kind::IphoneDualSim);
    let pad = place.device(Kind::IpadWifi);
    let mut said = String::new();
    for device in [&phone, &pad] {
        let _in_runtime = place.runtime.enter();
        device.enrol();
    }
    for device in [&phone, &pad] {
        place.wait_for_code(&server, device);
        search.code("a device's code", &device.code_text());
    }
    phone.lock_with_own_code().unwrap();
    {
        let _in_runtime = place.runtime.enter();
        phone.erase_and_enrol(Udid::Same);
    }
    place.wait_for_code(&server, &phone);
    search.code("the code after an erase", &phone.code_text());
    for status in [500, 404, 400] {
        place
            .apple
            .push_fault(Fault::echo(status).for_serial(phone.serial()));
    }
    let typed = "PXH8M-QYJZA-2H1J-H9CV-HN5U-KDN7";
    search.code("a typed code", typed);
    for serial in [phone.serial(), pad.serial()] {
        let unlock = place.run(
            &server,
            &["unlock", &serial, "--reason", "a test", "--wait"],
        );
        said.push_str(&unlock.stdout);
        said.push_str(&unlock.stderr);
        let shown = place.run(&server, &["devices", "show", &serial, "--json"]);
        said.push_str(&shown.stdout);
        said.push_str(&shown.stderr);
    }
    said.push_str(&locked_by_the_organisation(
        &place,
        &server,
        &pad,
        &mut search,
    ));
    let mut looked_at = taken_away(&place, &server, &phone.serial(), &mut search);
    let metrics = place.get(&server, "/metrics");
    let refused = place.get(&server, "/v1/hooks/nanomdm/a-secret-in-a-path");
    server.kill();
    let server = place.serve();
    let audit = place.get(&server, "/v1/audit");
    assert_eq!(server.stop(), Some(0));

    looked_at.extend([
        ("the log".to_owned(), place.log().into_bytes()),
        ("the metrics".to_owned(), metrics.into_bytes()),
        ("a refusal".to_owned(), refused.into_bytes()),
        ("another refusal".to_owned(), by_path.into_bytes()),
        ("the audit trail".to_owned(), audit.into_bytes()),
        ("what commands printed".to_owned(), said.into_bytes()),
    ]);
    for entry in std::fs::read_dir(place.path("data")).unwrap() {
        let path = entry.unwrap().path();
        looked_at.push((name_of(&path), std::fs::read(&path).unwrap()));
    }
    assert!(
        looked_at
            .iter()
            .any(|(name, bytes)| name == "lockwarden.db" && bytes.len() > 4096)
    );
    assert!(
        place.log().contains("TRACE"),
        "the log does not tell enough to be worth a look"
    );
    for (name, bytes) in looked_at {
        let found = search.found(&bytes);
        assert!(found.is_empty(), "{name} holds {found:?}");
    }
}

/// What leaves: a backup, an archive of codes, and what people are told by webhook and by mail.
fn taken_away(
    place: &Installation,
    server: &Server,
    serial: &str,
    search: &mut Search,
) -> Vec<(String, Vec<u8>)> {
    let (receiver, mails) = place.runtime.block_on(async {
        let receiver = WebhookReceiver::start().await.unwrap();
        let mails = MailServer::start(MailSecurity::Plain, None).await.unwrap();
        (receiver, mails)
    });
    let url = format!("{}/a-secret-in-the-path", receiver.url());
    search.text("a webhook's path", "a-secret-in-the-path");
    let hook = ["notices", "add-webhook", "chat", "--webhook-url", &url];
    let made = place.ok(server, &hook);
    let secret = made["secret"].as_str().unwrap();
    search.text("a webhook's secret", secret.strip_prefix("whsec_").unwrap());
    let port = mails.port().to_string();
    let mail = [
        "notices",
        "add-mail",
        "mail",
        "--to",
        "zoe@example.org",
        "--host",
        "localhost",
        "--port",
        &port,
        "--security",
        "none",
        "--from",
        "lockwarden@example.org",
    ];
    place.ok(server, &mail);
    let zoe = Person::first(place, server);
    let max = Person::another(&zoe, server, "max", &["approver"]);
    zoe.ok(&["policies", "set", "reveal", "--people", "1"], "");
    let ask = [
        "reveal",
        serial,
        "--reason",
        "back",
        "--ask-approval",
        "back",
    ];
    assert_eq!(zoe.run(&ask, "").status, 10);
    let listed = max.ok(&["approvals", "list"], "");
    let id = listed["id"]
        .as_str()
        .or(listed[0]["id"].as_str())
        .unwrap()
        .to_owned();
    max.ok(&["approvals", "approve", &id], "");
    let reveal = ["reveal", serial, "--reason", "back", "--approval", &id];
    assert_eq!(zoe.run(&reveal, "").status, 0);

    let auditor = age::x25519::Identity::generate();
    let [archive, backup] = ["codes.age", "vault.backup"].map(|name| place.path(name));
    let export = [
        "export",
        "--to",
        &auditor.to_public().to_string(),
        "--out-file",
        archive.to_str().unwrap(),
        "--reason",
        "leaving",
    ];
    assert_eq!(zoe.run(&export, "").status, 1, "it takes another person");
    assert!(!archive.exists());
    let asked = zoe.run(&[&export[..], &["--ask-approval", "leaving"]].concat(), "");
    assert_eq!(asked.status, 10, "{}", asked.stderr);
    let listed = max.ok(&["approvals", "list"], "");
    let id = listed["id"]
        .as_str()
        .or(listed[0]["id"].as_str())
        .unwrap()
        .to_owned();
    max.ok(&["approvals", "approve", &id], "");
    let done = zoe.run(&[&export[..], &["--approval", &id]].concat(), "");
    assert_eq!(done.status, 0, "{}", done.stderr);
    place.ok(
        server,
        &["backup", "make", "--out-file", backup.to_str().unwrap()],
    );
    wait_for("everything to be told", || {
        // An approval asked for and decided, twice; codes taken away.
        (receiver.journal().count() >= 5 && mails.journal().count() >= 5).then_some(())
    });
    let mut left = vec![
        ("the archive".to_owned(), std::fs::read(&archive).unwrap()),
        ("the backup".to_owned(), std::fs::read(&backup).unwrap()),
    ];
    for told in receiver.journal().all() {
        // Where it was posted to is where the secret path belongs.
        left.push((
            "a webhook".to_owned(),
            format!("{:?} {}", told.headers, told.body).into_bytes(),
        ));
    }
    for mail in mails.journal().all() {
        left.push(("a mail".to_owned(), mail.text.into_bytes()));
    }
    left
}

/// The same story with a lock of the organisation, and Apple's own status of it: what was printed.
fn locked_by_the_organisation(
    place: &Installation,
    server: &Server,
    device: &Device,
    search: &mut Search,
) -> String {
    let serial = device.serial();
    let token = place.dep.issue_token("Class Rooms");
    for (name, secret) in [
        ("the consumer secret", &token.consumer_secret),
        ("the access token", &token.access_token),
        ("the access secret", &token.access_secret),
    ] {
        search.text(name, secret);
    }
    let account = place.business.issue_account(AccountKind::School);
    let key = account.private_key_pem.lines().nth(1).unwrap();
    search.text("the API account's key", key);
    place.dep.assign(&token, device.dep_device());
    place.business.add_device(device.org_device());
    let [json, pem] = [
        ("token.json", &token.json()),
        ("api-account.pem", &account.private_key_pem),
    ]
    .map(|(name, text)| file(&place.path("."), name, text));
    let mut said = String::new();
    let mut run = |arguments: &[&str]| {
        let done = place.run(server, arguments);
        said.push_str(&done.stdout);
        said.push_str(&done.stderr);
        done.status
    };
    assert_eq!(run(&["dep", "token", "import", json.to_str().unwrap()]), 0);
    let set = [
        "business-api",
        "set",
        "--client-id",
        &account.client_id,
        "--key-id",
        &account.key_id,
        "--key",
        pem.to_str().unwrap(),
    ];
    assert_eq!(run(&set), 0);
    wait_for("the device to be listed", || {
        let shown = place.ok(server, &["devices", "show", &serial]);
        (!shown["listings"][0].is_null()).then_some(())
    });
    place.apple.clear_lock(&serial);
    // Apple says back what was sent.
    let lock = "/device/activationlock";
    place.dep.push_fault(Fault::echo(400).on(lock));
    for status in [4, 0] {
        let lock = ["lock", &serial, "--reason", "a test", "--wait"];
        assert_eq!(run(&lock), status);
    }
    for (code, _) in place.codes(server, &serial) {
        search.code("a code of the locked device", &code);
    }
    for arguments in [
        &["lock-status", &serial, "--fresh"][..],
        &["locks", "list", &serial, "--json"],
        &["dep", "tokens", "--json"],
        &["business-api", "show", "--json"],
    ] {
        assert_eq!(run(arguments), 0, "{arguments:?}");
    }
    said
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}
