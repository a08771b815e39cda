//! Runs the real binary.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The binary under test.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lockwarden"))
}

/// A command with the binary and nothing of the surroundings that could change what it does.
pub(crate) fn command<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .env_remove("LOCKWARDEN_URL")
        .env_remove("LOCKWARDEN_TOKEN_FILE");
    command
}

/// What a finished process left behind. Output is compared with `assert!`, which does not print it: it may hold codes.
pub(crate) struct Finished {
    /// The exit status; -1 when a signal ended it.
    pub(crate) status: i32,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Finished {
    /// Standard output as one JSON value.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).expect("standard output is one JSON value")
    }
}

/// Runs it to its end with this standard input.
pub(crate) fn run<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
    stdin: &str,
) -> Finished {
    finish(command(arguments), stdin)
}

/// Runs a command to its end with this standard input.
pub(crate) fn finish(mut command: Command, stdin: &str) -> Finished {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut input = child.stdin.take().expect("it is piped");
    // A process that refuses its arguments does not read.
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    let output = child.wait_with_output().expect("the binary ends");
    Finished {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("output is text"),
        stderr: String::from_utf8(output.stderr).expect("output is text"),
    }
}

/// Writes a file into a folder and gives its path.
pub(crate) fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the temporary folder takes files");
    path
}
