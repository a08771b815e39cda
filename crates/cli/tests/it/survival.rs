//! What a server does when the machine fails it: it says what is wrong, refuses what it cannot keep, keeps what it accepted, and
//! goes on by itself once the machine does.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use sim::nanomdm::Delivery;
use sim::{Device, Kind};

use crate::installation::{Installation, Server};
use crate::support::{binary, finish, wait_for};

mod clock;
mod database;
mod far_ends;

/// What doctor finds of one thing, as somebody with this environment who runs it.
fn found(place: &Installation, what: &str, set: impl FnOnce(&mut Command)) -> Vec<Value> {
    let mut doctor = Command::new(binary());
    doctor
        .args(["doctor", "--json", "--config"])
        .arg(place.config());
    set(&mut doctor);
    let done = finish(doctor, "");
    let all = done.stdout.lines();
    let all = all.map(|line| serde_json::from_str::<Value>(line).expect(&done.stderr));
    all.filter(|one| one["what"] == what).collect()
}

/// Sets a limit of a process that runs.
fn limit(server: &Server, what: &str) {
    let done = Command::new("prlimit")
        .args(["--pid", &server.process().to_string(), what])
        .status();
    assert!(done.unwrap().success(), "{what}");
}

fn is_ready(place: &Installation, server: &Server) -> bool {
    place.get(server, "/readyz").starts_with("HTTP/1.1 200")
}

/// The webhooks of a device that enrols, by how they were answered.
fn enrol(place: &Installation, device: &Device) -> Vec<Delivery> {
    let before = place.mdm.webhooks().all().len();
    {
        let _in_runtime = place.runtime.enter();
        device.enrol();
    }
    place.runtime.block_on(place.mdm.webhooks_settled());
    let all = place.mdm.webhooks().all();
    all[before..]
        .iter()
        .map(|sent| sent.delivery.clone())
        .collect()
}

#[test]
fn a_disk_that_is_full_refuses_webhooks_and_says_so_and_one_with_room_again_goes_on() {
    let mut place = Installation::new();
    // A write past the limit fails, as on a disk without room, in place of ending the process.
    let mut under = Command::new("bash");
    under
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "bash"])
        .arg(binary());
    let server = place.serve_under(under);
    let first = place.device(Kind::ALL[0]);
    enrol(&place, &first);
    place.wait_for_code(&server, &first);
    // No write fits any more, wherever in a file.
    limit(&server, "--fsize=0:");
    // Until it tries to keep something, it does not know: then it says so until it can.
    wait_for("the server to notice", || {
        let said = place.get(&server, "/readyz");
        said.contains("cannot keep").then_some(())
    });
    let second = place.device(Kind::ALL[1]);
    let answers = enrol(&place, &second);
    assert!(!answers.is_empty());
    assert!(
        !answers
            .iter()
            .any(|answer| matches!(answer, Delivery::Answered(200)))
    );
    // What it holds, it still shows.
    assert!(!place.ok(&server, &["devices", "list"]).is_null());
    limit(&server, "--fsize=unlimited:");
    wait_for("the server to be ready", || {
        is_ready(&place, &server).then_some(())
    });
    place.wait_for_code(&server, &first);
    place.wait_for_code(&server, &second);
    assert_eq!(server.stop(), Some(0));
}

/// System calls of a running process that fail for a while.
struct Failing(Child);

impl Failing {
    fn of(server: &Server, calls: &str, error: &str) -> Self {
        let tracer = Command::new("strace")
            .args([
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-p",
                &server.process().to_string(),
            ])
            .args(["-e", &format!("trace={calls}"), "-e"])
            .arg(format!("inject={calls}:error={error}"))
            .stdin(Stdio::null())
            .spawn();
        Self(tracer.unwrap())
    }

    /// They succeed again.
    fn end(mut self) {
        let asked = Command::new("kill").arg(self.0.id().to_string()).status();
        assert!(asked.unwrap().success());
        self.0.wait().unwrap();
    }
}

#[test]
fn a_file_system_that_becomes_read_only_refuses_webhooks_and_goes_on_once_it_is_mended() {
    let mut place = Installation::new();
    let server = place.serve();
    let first = place.device(Kind::ALL[0]);
    enrol(&place, &first);
    place.wait_for_code(&server, &first);
    // As on a disk whose errors made the system stop writing to it: what is open stays open.
    let read_only = Failing::of(
        &server,
        "pwrite64,pwritev,ftruncate,fallocate,fdatasync",
        "EROFS",
    );
    wait_for("the server to notice", || {
        let said = place.get(&server, "/readyz");
        said.contains("cannot keep").then_some(())
    });
    assert!(place.log().contains("nothing can be kept"));
    let metrics = place.get(&server, "/metrics");
    assert!(
        metrics.contains("lockwarden_vault_keeps{} 0.0"),
        "{metrics}"
    );
    let second = place.device(Kind::ALL[1]);
    let answers = enrol(&place, &second);
    assert!(!answers.is_empty());
    let taken = |answer: &Delivery| matches!(answer, Delivery::Answered(200));
    assert!(!answers.iter().any(taken));
    assert!(!place.ok(&server, &["devices", "list"]).is_null());
    read_only.end();
    wait_for("the server to be ready", || {
        is_ready(&place, &server).then_some(())
    });
    place.wait_for_code(&server, &first);
    place.wait_for_code(&server, &second);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let mut place = Installation::new();
    let mut under = Command::new("bash");
    under
        .args(["-c", "exec \"$@\" >/dev/full 2>&1", "bash"])
        .arg(binary());
    let server = place.serve_under(under);
    // Who asks for what is not there, or without a token, has a line in the log.
    for path in ["/readyz", "/v1/devices", "/nothing"] {
        assert!(
            place.get(&server, path).starts_with("HTTP/1.1 "),
            "{path} was not answered"
        );
    }
    let device = place.device(Kind::ALL[0]);
    enrol(&place, &device);
    place.wait_for_code(&server, &device);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn who_may_open_no_more_files_serves_again_once_some_are_closed() {
    let mut place = Installation::new();
    let server = place.serve();
    let first = place.device(Kind::ALL[0]);
    enrol(&place, &first);
    place.wait_for_code(&server, &first);
    let files = std::fs::read_dir(format!("/proc/{}/fd", server.process())).unwrap();
    limit(&server, &format!("--nofile={}:", files.count() + 8));
    let address = server.url.strip_prefix("http://").unwrap();
    // They are taken in by the machine, and nobody can open the door to most of them.
    let crowd: Vec<TcpStream> = (0..64)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    wait_for("the log to say so", || {
        place
            .log()
            .contains("no more files can be opened")
            .then_some(())
    });
    drop(crowd);
    let second = place.device(Kind::ALL[1]);
    let answers = enrol(&place, &second);
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Delivery::Answered(200)))
    );
    limit(&server, "--nofile=1024:");
    place.wait_for_code(&server, &second);
    assert!(is_ready(&place, &server));
    assert_eq!(server.stop(), Some(0));
}
