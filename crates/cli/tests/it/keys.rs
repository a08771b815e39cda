//! Keys of the real binary: exchanged under load while the process is killed, unwrapped by a program, exchanged by hand.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use activation_lock::codes::{CodeKind, CodeText};
use activation_lock::device::SerialNumber;
use escrow::codes::TypedCode;
use escrow::keys::KeyStatus;
use escrow::meta::DataKind;
use escrow::permit::{Actor, Admin, Edit, Permissions, Permit};
use escrow::{Escrow, Opening};
use seal::{KeyEncryptionKey, Purpose};
use serde_json::{Value, json};

use crate::installation::{Installation, Server};
use crate::support::{amount, command, file, finish, wait_for};

/// A published vector, used as everybody's code.
const CODE: &str = "000H4-0R40M-30F2-0918-5HR3-8F17";

/// How many codes are sealed anew; `scripts/long` asks for more.
fn codes() -> usize {
    amount("LOCKWARDEN_CODES", 5_000) as usize
}

fn serial(number: usize) -> String {
    format!("ROTATE{number:06}")
}

fn opening(place: &Installation) -> (Arc<KeyEncryptionKey>, std::path::PathBuf) {
    let text = std::fs::read_to_string(place.path("etc/key")).unwrap();
    (
        Arc::new(KeyEncryptionKey::parse(&text).unwrap()),
        place.path("data"),
    )
}

/// Opens the vault of a stopped server for as long as `work` takes.
fn inside<T>(place: &Installation, look: bool, work: impl AsyncFnOnce(&Escrow) -> T) -> T {
    let (key, folder) = opening(place);
    place.runtime.block_on(async {
        let opening = Opening {
            folder: &folder,
            database: escrow::Database::Embedded,
            kind: DataKind::Production,
            key,
            recovery: None,
            clock: server::lifecycle::clock(),
            random: server::lifecycle::random(),
        };
        let escrow = if look {
            Escrow::look(opening).await
        } else {
            Escrow::open(opening).await
        };
        let escrow = escrow.unwrap();
        let done = work(&escrow).await;
        escrow.close().await;
        done
    })
}

async fn permit(escrow: &Escrow) -> Permit<Admin> {
    let actor = Actor::system("test", Permissions::all());
    let everywhere = escrow::permit::OrganisationId::new("*");
    escrow.authorise(&actor, &everywhere, "keys").await.unwrap()
}

fn status(place: &Installation) -> KeyStatus {
    inside(place, true, async |escrow| {
        escrow.keys().status(&permit(escrow).await).await.unwrap()
    })
}

fn seed(place: &Installation, count: usize) {
    inside(place, false, async |escrow| {
        let actor = Actor::system("test", Permissions::all());
        let organisation = escrow
            .organisations()
            .list(&actor)
            .await
            .unwrap()
            .remove(0)
            .id;
        let permit: Permit<Edit> = escrow
            .authorise(&actor, &organisation, "codes")
            .await
            .unwrap();
        for chunk in (0..count).collect::<Vec<_>>().chunks(500) {
            let codes = escrow.codes();
            let typed = chunk.iter().map(|number| {
                let serial: SerialNumber = serial(*number).parse().unwrap();
                let text = CodeText::new(CODE.to_owned()).unwrap();
                codes.add_typed(
                    &permit,
                    TypedCode {
                        serial,
                        text,
                        kind: CodeKind::Device,
                        note: None,
                    },
                )
            });
            for done in futures_util::future::join_all(typed).await {
                done.unwrap();
            }
        }
    });
}

/// Requests one after the other, of every kind that touches a code, for as long as the server is meant to be there.
fn load(
    place: &Installation,
    server: &Server,
    stop: &AtomicBool,
    answered: &AtomicU32,
    devices: usize,
) {
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        number = (number + 7) % devices;
        let path = format!("/v1/devices/{}", serial(number));
        let reveal = json!({ "reason": "load" });
        let text = json!({ "text": CODE });
        for (method, path, body) in [
            ("GET", path.clone(), None),
            ("POST", format!("{path}/codes"), Some(&text)),
            ("POST", format!("{path}/reveal"), Some(&reveal)),
        ] {
            let answer = place.http(server, method, &path, body);
            assert!(
                answer.starts_with("HTTP/1.1 20"),
                "{method}: {}",
                &answer[..60.min(answer.len())]
            );
            answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[test]
fn keys_are_exchanged_under_load_while_the_server_is_killed_twice() {
    let place = Installation::new();
    let count = codes();
    seed(&place, count);
    let before = status(&place);
    let server = place.serve();
    place.ok(&server, &["key", "rotate"]);
    server.kill();
    let first = status(&place).rotation.unwrap();
    assert!(
        first.finished_at.is_none(),
        "it was killed in the middle: {first:?}"
    );
    let server = place.serve();
    server.kill();
    let second = status(&place).rotation.unwrap();
    assert!(
        second.finished_at.is_none() && second.resealed >= first.resealed,
        "{second:?}"
    );

    let server = place.serve();
    let (stop, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| load(&place, &server, &stop, &answered, count));
        wait_for("the exchange to end", || {
            assert!(!loading.is_finished(), "a request failed");
            let shown = place.ok(&server, &["key", "status"]);
            shown["rotation"]["finished_at"].is_string().then_some(())
        });
        stop.store(true, Ordering::SeqCst);
        loading.join().unwrap();
    });
    assert!(answered.load(Ordering::SeqCst) >= 3);
    let found = place.ok(&server, &["key", "verify"]);
    assert_eq!(found["damaged"], json!([]));
    for key in before
        .keys
        .iter()
        .filter(|key| matches!(key.purpose, Purpose::Cells | Purpose::Fingerprints))
    {
        assert_eq!(
            found["by_key"][key.id.to_string()],
            Value::Null,
            "{} {}",
            key.purpose,
            key.id
        );
        place.ok(&server, &["key", "destroy", &key.id.to_string()]);
    }
    let shown = place.codes(&server, &serial(count - 1));
    assert_eq!(shown, [(CODE.to_owned(), false)], "as it was typed");
    assert_eq!(server.stop(), Some(0));
    let server = place.serve();
    assert_eq!(place.codes(&server, &serial(0)).len(), 1);
    let needed = place.run(
        &server,
        &[
            "key",
            "destroy",
            &before
                .keys
                .iter()
                .find(|key| key.purpose == Purpose::Audit)
                .unwrap()
                .id
                .to_string(),
        ],
    );
    assert!(
        needed.status == 1 && needed.stderr.contains("still needed"),
        "{}",
        needed.stderr
    );
}

/// A stand-in for a cloud's key service, Vault or a hardware module: it keeps what it is given under a name, and gives that.
fn key_service(folder: &Path) -> std::path::PathBuf {
    let script = "#!/bin/sh\nset -e\nhere=$(dirname \"$0\")\ncase \"$2\" in\n\
         wrap) cat > \"$here/kept-$1\"; echo \"wrapped-by-$1\" ;;\n\
         unwrap) read -r name; [ \"$name\" = \"wrapped-by-$1\" ] || { echo \"no such key\" >&2; exit 3; }; cat \"$here/kept-$1\" ;;\n\
         esac\n";
    let path = file(folder, "key-service", script);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn reconfigure(place: &Installation, keys: &str) {
    let config = std::fs::read_to_string(place.config()).unwrap();
    let line = config
        .lines()
        .find(|line| line.starts_with("key_file = ") && line.contains("etc/key"))
        .unwrap();
    std::fs::write(place.config(), config.replace(line, keys)).unwrap();
}

#[test]
fn the_running_key_is_unwrapped_by_a_program_or_read_from_an_environment_file() {
    let place = Installation::new();
    let service = key_service(&place.path("."));
    let (key, wrapped) = (place.path("etc/key"), place.path("etc/key.wrapped"));
    let made = finish(
        command([
            "key",
            "wrap",
            "--key-file",
            &text(&key),
            "--out-file",
            &text(&wrapped),
            &text(&service),
            "ours",
        ]),
        "",
    );
    assert_eq!(made.status, 0, "{}", made.stderr);
    let secret = std::fs::read_to_string(&key).unwrap();
    assert!(std::fs::read_to_string(&wrapped).unwrap().trim() == "wrapped-by-ours");
    let original = std::fs::read_to_string(place.config()).unwrap();
    let by_program = |name: &str| {
        format!(
            "key_command = [{:?}, {name:?}]\nwrapped_key_file = {:?}",
            text(&service),
            text(&wrapped)
        )
    };
    reconfigure(&place, &by_program("ours"));
    std::fs::remove_file(&key).unwrap();
    let server = place.serve();
    place.ok(&server, &["key", "status"]);
    assert_eq!(server.stop(), Some(0));

    std::fs::write(place.config(), &original).unwrap();
    reconfigure(&place, &by_program("theirs"));
    let refused = finish(command(["doctor", "--config", &text(&place.config())]), "");
    assert!(
        refused.status == 1 && refused.stdout.contains("no such key"),
        "{}",
        refused.stdout
    );
    let last = secret.lines().rfind(|line| !line.starts_with('#')).unwrap();
    assert!(
        !refused.stdout.contains(last) && !refused.stderr.contains(last),
        "a key was shown"
    );

    let environment = file(
        &place.path("."),
        "key.env",
        &format!("# of the unit\nLOCKWARDEN_KEY={last}\n"),
    );
    std::fs::set_permissions(&environment, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(place.config(), &original).unwrap();
    reconfigure(
        &place,
        &format!("key_environment_file = {:?}", text(&environment)),
    );
    let server = place.serve();
    place.ok(&server, &["key", "status"]);
    assert_eq!(server.stop(), Some(0));
    assert!(!place.log().contains(last), "a key is in the log");

    std::fs::write(place.config(), original).unwrap();
    reconfigure(
        &place,
        &format!(
            "{}\nkey_environment_file = {:?}",
            by_program("ours"),
            text(&environment)
        ),
    );
    let two = finish(command(["doctor", "--config", &text(&place.config())]), "");
    assert!(two.stdout.contains("more than one way"), "{}", two.stdout);
}

#[test]
fn r25_another_running_key_and_another_recovery_key_take_over() {
    let place = Installation::new();
    seed(&place, 1);
    let path = |name: &str| text(&place.path(name));
    for arguments in [
        &["key", "generate", "--out-file", &path("new.key")][..],
        &[
            "key",
            "generate",
            "--out-file",
            &path("new.recovery"),
            "--recovery-public-file",
            &path("new.recovery.pub"),
        ],
    ] {
        let made = finish(command(arguments), "");
        assert_eq!(made.status, 0, "{}", made.stderr);
    }
    let config = text(&place.config());
    let rewrap = [
        "key",
        "rewrap",
        "--config",
        &config,
        "--new-key-file",
        &path("new.key"),
        "--new-recovery-public-file",
        &path("new.recovery.pub"),
    ];
    let done = finish(command(rewrap), "");
    assert_eq!(done.status, 0, "{}", done.stderr);
    let refused = finish(command(rewrap), "");
    assert!(
        refused.status == 1 && refused.stderr.contains("data keys are wrapped for"),
        "{}",
        refused.stderr
    );
    reconfigure(&place, &format!("key_file = {:?}", path("new.key")));
    let check = |file: &str| {
        finish(
            command([
                "key",
                "recovery-check",
                "--config",
                &config,
                "--recovery-key-file",
                file,
            ]),
            "",
        )
    };
    assert_eq!(
        check(&path("recovery.key")).status,
        1,
        "the former recovery key opens nothing"
    );
    assert_eq!(check(&path("new.recovery")).status, 0);
    let server = place.serve();
    assert_eq!(place.codes(&server, &serial(0)).len(), 1);
}
