//! Runs the real binary.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
        .env_remove("LOCKWARDEN_TOKEN_FILE")
        .env_remove("LOCKWARDEN_CONFIG")
        .env("LOCKWARDEN_SESSION_FILE", "/nowhere/session")
        .env_remove("CREDENTIALS_DIRECTORY");
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

/// How much of something a test does: as much as a variable of the environment says, for `scripts/long` asks for more.
pub(crate) fn amount(variable: &str, otherwise: u32) -> u32 {
    let asked = std::env::var(variable).ok();
    asked
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

/// How long a test waits for anything before it fails: other people's machines are slower and busier.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Looks again and again until there is something, and gives it.
///
/// # Panics
/// After [`PATIENCE`], naming `what` was awaited.
#[track_caller]
#[allow(
    clippy::disallowed_methods,
    reason = "the one polling loop of these tests"
)]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
