//! `lockwarden sim`: the fakes alone.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{command, run};

#[test]
fn sim_apple_says_where_its_services_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = command(["sim", "apple", "--json", "--out"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let read = output.read_line(&mut line);
    child.kill().unwrap();
    child.wait().unwrap();
    read.unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    for (name, start) in [
        ("url", "https://127.0.0.1:"),
        ("dep_url", "https://127.0.0.1:"),
        ("business_manager_url", "https://127.0.0.1:"),
        ("token_url", "https://127.0.0.1:"),
        ("control_url", "http://127.0.0.1:"),
    ] {
        let url = told[name].as_str().unwrap();
        assert!(url.starts_with(start), "{name} is {url}");
    }
    assert!(folder.path().join("ca.pem").exists());
}

#[test]
fn a_fake_listens_on_its_own_machine_only() {
    for place in ["--listen", "--dep-listen", "--business-listen", "--control"] {
        let refused = run(["sim", "apple", place, "192.0.2.1:0"], "");
        assert_ne!(refused.status, 0, "{place}");
        assert!(refused.stderr.contains("loopback"), "{}", refused.stderr);
    }
}
