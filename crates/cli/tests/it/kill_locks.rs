//! `kill -9` in the two moments that decide over a lock: after its code was kept and before the call left, and after the call
//! left and before its answer came. Whatever Apple's fake holds locked afterwards opens with what was kept (R4).

use serde_json::{Value, json};
use sim::dep::{DepDevice, DepToken};
use sim::{AppleDevice, Fault, Gate, LockKind};

use crate::installation::{Installation, Server};
use crate::support::{amount, wait_for};

/// How often the server is killed; `scripts/long` asks for more.
fn kills() -> u32 {
    amount("LOCKWARDEN_KILLS", 50)
}

const LOCK: &str = "/device/activationlock";

/// The body of an answer.
fn body(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or(Value::Null)
}

/// A server of the organisation, whose token the vault has under this name.
struct Office {
    name: String,
    token: DepToken,
}

impl Office {
    fn open(place: &Installation, server: &Server, name: &str) -> Self {
        let token = place.dep.issue_token(name);
        let put = json!({ "name": name, "token": token.json() });
        let path = "/v1/organisations/Example%20School/dep-tokens";
        let kept = place.http(server, "PUT", path, Some(&put));
        assert!(kept.starts_with("HTTP/1.1 200"), "the token is not kept");
        Self {
            name: name.to_owned(),
            token,
        }
    }

    /// Asks for a lock of a new device that is assigned to this server.
    fn lock(&self, place: &Installation, server: &Server, serial: &str) -> String {
        place.apple.add_device(AppleDevice {
            serial: serial.to_owned(),
            product_type: "iPad4,1".to_owned(),
            ..AppleDevice::default()
        });
        place
            .dep
            .assign(&self.token, DepDevice::new(serial, "iPad"));
        let known = json!({ "product_type": "iPad4,1" });
        let device = format!("/v1/devices/{serial}");
        place.http(server, "PATCH", &device, Some(&known));
        let wish = json!({
            "reason": "it is in the way",
            "server_token": self.name,
            "override_reason": "the list need not be read for this",
            "urgent": true,
        });
        let asked = body(&place.http(server, "POST", &format!("{device}/lock"), Some(&wish)));
        asked["id"].as_str().expect("it is queued").to_owned()
    }
}

#[test]
fn t4_kills_between_code_and_call_and_between_call_and_answer_leave_no_lock_without_its_code() {
    let place = Installation::new();
    place.without_pace();
    let mut server = place.serve();
    let after = Office::open(&place, &server, "after");
    let mut asked = Vec::new();
    for round in 0..kills() {
        // The call leaves, and Apple locks the device before the kill, or after it.
        let (second, no_answer) = (format!("AFTER{round:07}"), Gate::new());
        let held = match round % 2 {
            0 => Fault::hold_after_commit(&no_answer),
            _ => Fault::hold(&no_answer),
        };
        place.dep.push_fault(held.for_serial(&second).on(LOCK));
        let lock = after.lock(&place, &server, &second);
        wait_for("the call to leave", || {
            is_under_way(&place, &second).then_some(())
        });
        asked.push((lock, second));
        // Its code is kept, and the call waits for a session: it does not leave.
        let (first, no_session) = (format!("BEFORE{round:06}"), Gate::new());
        // Earlier ones want a session too.
        let held = Fault::hold(&no_session).on("/session").times(1_000);
        place.dep.push_fault(held);
        let before = Office::open(&place, &server, &format!("before {round}"));
        let lock = before.lock(&place, &server, &first);
        wait_for("the code to be kept", || {
            let lock = body(&place.get(&server, &format!("/v1/locks/{lock}")));
            lock["code"].is_string().then_some(())
        });
        assert!(!is_under_way(&place, &first), "it has left already");
        asked.push((lock, first));

        server.kill();
        place.dep.clear_faults();
        no_session.open();
        no_answer.open();
        server = place.serve();
    }
    for (lock, serial) in &asked {
        ended_truly(&place, &server, lock, serial);
    }
    let unlocks: Vec<_> = asked
        .iter()
        .map(|(_, serial)| (ask_for_unlock(&place, &server, serial), serial))
        .collect();
    for (unlock, serial) in unlocks {
        let path = format!("/v1/unlocks/{unlock}");
        let ended = done(&place, &server, &path, serial);
        assert_eq!(ended["state"], "unlocked", "{serial} does not open");
        assert_eq!(place.apple.lock_state(serial), None, "{serial}");
    }
}

/// Whether the lock call of a device has come to Apple.
fn is_under_way(place: &Installation, serial: &str) -> bool {
    !place.dep.calls_for(serial).is_empty()
}

/// Waits until an unlock or a lock has ended.
fn done(place: &Installation, server: &Server, path: &str, serial: &str) -> Value {
    wait_for(&format!("the end of {path} of {serial}"), || {
        let now = body(&place.get(server, path));
        now["done"].as_bool().unwrap_or(false).then_some(now)
    })
}

/// The lock ends by itself with the device locked, and what is said of it is what is so.
fn ended_truly(place: &Installation, server: &Server, lock: &str, serial: &str) {
    let ended = done(place, server, &format!("/v1/locks/{lock}"), serial);
    match ended["state"].as_str().unwrap() {
        "locked" => {}
        "already_locked" => assert_eq!(
            ended["already_locked_by"], "unknown",
            "{serial}: a call of ours may have done it"
        ),
        other => panic!("{serial}: {other}"),
    }
    let holds = place.apple.lock_state(serial);
    assert_eq!(holds, Some(LockKind::Mdm), "{serial}");
}

fn ask_for_unlock(place: &Installation, server: &Server, serial: &str) -> String {
    let path = format!("/v1/devices/{serial}/unlock");
    let wish = json!({ "reason": "it is wanted again" });
    let asked = body(&place.http(server, "POST", &path, Some(&wish)));
    asked["id"].as_str().expect("it is queued").to_owned()
}

/// A system call of the trace that ended well, with the number of the line that it began in and of the one that it ended in.
struct Call {
    text: String,
    began: usize,
    ended: usize,
}

/// The calls of a trace of several threads: where another thread came between, a call is in two lines.
fn calls(trace: &str) -> Vec<Call> {
    let mut begun: std::collections::HashMap<&str, (String, usize)> =
        std::collections::HashMap::new();
    let mut calls = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((thread, text)) = line.split_once(' ') else {
            continue;
        };
        let text = text.trim_start();
        if let Some(first) = text.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, (first.to_owned(), at));
        } else if text.starts_with("<... ") {
            let Some((first, began)) = begun.remove(thread) else {
                continue;
            };
            let rest = text.split_once("resumed>").map_or("", |(_, rest)| rest);
            calls.push(Call {
                text: first + rest,
                began,
                ended: at,
            });
        } else {
            calls.push(Call {
                text: text.to_owned(),
                began: at,
                ended: at,
            });
        }
    }
    calls
}

/// The file descriptor that a call was made with, or gave.
fn descriptor(call: &Call, is_result: bool) -> &str {
    match is_result {
        true => call
            .text
            .rsplit_once("= ")
            .map_or("", |(_, number)| number.trim()),
        false => {
            let (_, arguments) = call.text.split_once('(').unwrap_or_default();
            arguments.split([',', ')']).next().unwrap_or_default()
        }
    }
}

#[test]
fn r4_the_code_is_on_disk_twice_before_the_call_leaves() {
    let place = Installation::new();
    let trace = place.path("trace");
    let mut strace = std::process::Command::new("strace");
    strace
        // -D: the child is the server itself, so that it is the server that ends with it.
        .args(["-D", "-f", "-s", "64", "-e"])
        .arg("trace=openat,connect,fdatasync,fsync,read,recvfrom,readv,write,pwrite64,sendto,writev,sendmsg")
        .arg("-o")
        .arg(&trace)
        .arg(crate::support::binary());
    let server = place.serve_under(strace);
    let office = Office::open(&place, &server, "traced");
    let serial = "TRACED000001";
    let lock = office.lock(&place, &server, serial);
    done(&place, &server, &format!("/v1/locks/{lock}"), serial);
    let port = place.dep.url().rsplit_once(':').unwrap().1.to_owned();
    let (calls, line, first) = wait_for("the trace to tell of the call", || {
        let calls = calls(&std::fs::read_to_string(&trace).unwrap());
        let line = calls.iter().position(|call| {
            call.text.starts_with("write(") && call.text.contains(", \"1 ") && call.text.len() > 64
        })?;
        let to_apple: Vec<&str> = calls
            .iter()
            .filter(|call| {
                call.text.starts_with("connect(") && call.text.contains(&format!("htons({port})"))
            })
            .map(|call| descriptor(call, false))
            .collect();
        let first = calls[line..].iter().position(|call| {
            let sends = ["write(", "writev(", "sendto(", "sendmsg("];
            sends.iter().any(|send| call.text.starts_with(send))
                && to_apple.contains(&descriptor(call, false))
        })?;
        Some((calls, line, line + first))
    });
    drop(server);

    let journal = descriptor(&calls[line], false);
    let named =
        |call: &&Call| call.text.starts_with("openat(") && descriptor(call, true) == journal;
    let opened = calls[..line]
        .iter()
        .rfind(named)
        .expect("the journal is opened");
    assert!(opened.text.contains("/lock-journal"), "{}", opened.text);
    let is_sync = |call: &Call| {
        (call.text.starts_with("fdatasync(") || call.text.starts_with("fsync("))
            && call.text.ends_with("= 0")
    };
    let synced = calls[line..first]
        .iter()
        .find(|call| {
            is_sync(call) && descriptor(call, false) == journal && call.began > calls[line].ended
        })
        .expect("the journal is synced before the call leaves");
    assert!(
        calls[first].began > synced.ended,
        "the call left before the journal was on disk"
    );
    // Its name in the folder too, and before it the request and the call in the database.
    let asked = calls
        .iter()
        .position(|call| call.text.contains("\"POST /v1/devices/"))
        .expect("the request is read");
    let before = || calls[asked..line].iter().filter(|call| is_sync(call));
    let is_folder = |call: &&Call| {
        let opens = |open: &&Call| {
            open.text.starts_with("openat(") && descriptor(open, true) == descriptor(call, false)
        };
        let opened = calls[..line].iter().rfind(opens);
        opened.is_some_and(|open| !open.text.contains("O_CREAT"))
    };
    assert!(
        before().any(|call| is_folder(&call)),
        "the folder is synced"
    );
    let kept = before().filter(|call| call.text.starts_with("fdatasync("));
    assert!(
        kept.count() >= 2,
        "the request and the call are not both on disk in the database"
    );
}
