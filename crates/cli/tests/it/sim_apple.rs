//! `lockwarden sim`: the fakes alone.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{command, run};

/// The fakes, which end with it.
struct Fakes {
    child: Child,
    folder: TempDir,
    /// What they say of themselves.
    told: Value,
}

impl Drop for Fakes {
    fn drop(&mut self) {
        // They may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Fakes {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = command(["sim", "apple", "--json", "--out"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut fakes = Self {
            child,
            folder,
            told: Value::Null,
        };
        let mut line = String::new();
        let output = fakes.child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        fakes.told = serde_json::from_str(&line).unwrap();
        fakes
    }

    /// What the controls answer.
    fn control(&self, method: &str, path: &str) -> String {
        let url = self.told["control_url"].as_str().unwrap();
        let address = url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// Every method with its path that a text names.
fn controls_in(text: &str) -> BTreeSet<(&str, &str)> {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || "`,()".contains(c))
        .filter(|word| !word.is_empty())
        .collect();
    words
        .windows(2)
        .filter(|two| ["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&two[0]))
        .map(|two| (two[0], two[1]))
        .collect()
}

#[test]
fn the_help_names_every_control_and_each_is_there() {
    let help = run(["sim", "apple", "--help"], "");
    for wanted in [
        "status and echo (want a status)",
        "expired?: true",
        "retry_after?: seconds or text",
    ] {
        assert!(help.stdout.contains(wanted), "{wanted}");
    }
    let told = controls_in(&help.stdout);
    let source = include_str!("../../../sim/src/apple/control.rs");
    let (documented, _) = source.split_once("\nuse ").unwrap();
    assert_eq!(told, controls_in(documented));
    let fakes = Fakes::start();
    for (method, path) in told {
        let path = path.replace(['{', '}'], "");
        let answer = fakes.control(method, &path);
        // Nothing is there: nothing is said. What is unknown, such as a device, is refused in words.
        let is_nowhere = answer.starts_with("HTTP/1.1 404") && answer.contains("content-length: 0");
        let is_other_method = answer.starts_with("HTTP/1.1 405");
        assert!(!is_nowhere && !is_other_method, "{method} {path}: {answer}");
    }
    assert!(
        fakes
            .control("GET", "/nowhere")
            .contains("content-length: 0")
    );
}

#[test]
fn sim_apple_says_where_its_services_are() {
    let fakes = Fakes::start();
    let (told, folder) = (&fakes.told, &fakes.folder);
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
