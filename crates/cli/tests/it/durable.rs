//! What is acknowledged is on disk: `kill -9` cannot tell whether it is, the system calls can.

use std::process::Command;

use sim::Kind;

use crate::installation::Installation;
use crate::support::{binary, wait_for};

#[test]
fn r22_the_disk_is_written_between_a_webhook_and_its_200() {
    let mut place = Installation::new();
    let trace = place.path("trace");
    let mut strace = Command::new("strace");
    strace
        // -D: the child is the server itself, so that it is the server that ends with it.
        .args(["-D", "-f", "-s", "64", "-e"])
        .arg("trace=fdatasync,fsync,read,recvfrom,readv,write,sendto,writev,sendmsg")
        .arg("-o")
        .arg(&trace)
        .arg(binary());
    let server = place.serve_under(strace);
    let device = place.device(Kind::Iphone);
    {
        let _in_runtime = place.runtime.enter();
        device.authenticate();
    }
    place.runtime.block_on(place.mdm.webhooks_settled());
    let lines = wait_for("the webhook in the trace", || {
        let text = std::fs::read_to_string(&trace).unwrap();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let asked = lines
            .iter()
            .position(|line| line.contains("POST /v1/hooks/"))?;
        let answered = lines[asked..]
            .iter()
            .position(|line| line.contains("HTTP/1.1 200"))?;
        Some(lines[asked..=asked + answered].to_vec())
    });
    let synced = lines.iter().any(|line| {
        let is_sync = ["fdatasync(", "fdatasync resumed", "fsync(", "fsync resumed"]
            .iter()
            .any(|call| line.contains(call));
        is_sync && line.ends_with("= 0")
    });
    assert!(
        synced,
        "no fdatasync ended between the webhook and its 200:\n{}",
        lines.join("\n")
    );
    drop(server);
}
