//! What a server does when the machine fails it: it says what is wrong, refuses what it cannot keep, keeps what it accepted, and
//! goes on by itself once the machine does.

use std::net::TcpStream;
use std::process::Command;

use sim::nanomdm::Delivery;
use sim::{Device, Kind};

use crate::installation::{Installation, Server};
use crate::support::{binary, wait_for};

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
