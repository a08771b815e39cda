//! The running key: from a file, or from a program that unwraps it, such as one of a cloud's key service, of Vault or of a hardware
//! module.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use seal::KeyEncryptionKey;
use server::config::KeySource;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::secret_file;
use crate::voice::{Failure, Voice};

/// What the key is called in an environment file.
const NAME: &str = "LOCKWARDEN_KEY";
/// How long the program may take.
const TIME_OUT: Duration = Duration::from_secs(60);
/// No answer of it is longer.
const LONGEST: u64 = 64 * 1024;
/// What begins the text of a running key: whatever the program says beside it is not repeated.
const PREFIX: &str = "lockwarden-key";

/// Reads the running key.
///
/// # Errors
/// When it cannot be read or unwrapped, or is none.
pub(crate) async fn read(source: &KeySource, voice: Voice) -> Result<KeyEncryptionKey, Failure> {
    match source {
        KeySource::File(path) => {
            warn(path, voice);
            parse(&secret_file::read(path, "the key file")?, "the key file")
        }
        KeySource::EnvironmentFile(path) => {
            warn(path, voice);
            let text = secret_file::read(path, "the environment file")?;
            parse(variable(&text)?, "the environment file")
        }
        KeySource::Command { command, wrapped } => {
            let wrapped = secret_file::read(wrapped, "the wrapped key's file")?;
            let text = run(command, "unwrap", &wrapped).await?;
            parse(&text, "what the key command printed")
        }
    }
}

fn warn(path: &Path, voice: Voice) {
    if let Some(warning) = secret_file::warning(path, "the key file") {
        voice.talk(warning);
    }
}

fn parse(text: &str, what: &str) -> Result<KeyEncryptionKey, Failure> {
    KeyEncryptionKey::parse(text)
        .map_err(|error| Failure::new(format!("{what} cannot be used: {error}")))
}

/// The key's value in an environment file, as systemd reads those: one assignment a line, comments begin with `#` or `;`.
fn variable(text: &str) -> Result<&str, Failure> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with(['#', ';']))
        .find_map(|line| line.split_once('=').filter(|(name, _)| name.trim() == NAME))
        .map(|(_, value)| value.trim().trim_matches(['"', '\'']))
        .ok_or_else(|| {
            Failure::new(format!("the environment file has no line {NAME}=..."))
                .hint("docs/KEYS.md shows one")
        })
}

/// Runs the program with `wrap` or `unwrap` as its last argument and gives what it prints.
///
/// # Errors
/// When it cannot be run, fails, takes too long or prints nothing: with what it says on standard error.
pub(crate) async fn run(
    command: &[String],
    word: &str,
    input: &str,
) -> Result<Zeroizing<String>, Failure> {
    let name = command.first().map_or("", String::as_str);
    let failed = |why: &str| {
        Failure::new(format!("the key command {name} {word} {why}")).hint(
            "it is given the key on standard input and prints the other form of it: try it by hand, as the user that the server runs as",
        )
    };
    let (program, arguments) = command.split_first().ok_or_else(|| failed("is empty"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .arg(word)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(&format!("cannot be started: {error}")))?;
    let (mut stdin, mut stdout, mut stderr) = (
        child.stdin.take().expect("it is piped"),
        child.stdout.take().expect("it is piped").take(LONGEST),
        child.stderr.take().expect("it is piped").take(LONGEST),
    );
    // Room for all of it at once, so that no smaller copy is left behind in memory.
    let room = usize::try_from(LONGEST).unwrap_or(usize::MAX);
    let mut printed = Zeroizing::new(String::with_capacity(room));
    let mut said = String::new();
    let talk = async {
        let give = async {
            // A program that does not read is judged by what it prints.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
        };
        let (_, out, err) = tokio::join!(
            give,
            stdout.read_to_string(&mut printed),
            stderr.read_to_string(&mut said)
        );
        out.and(err)?;
        child.wait().await
    };
    let ended = tokio::time::timeout(TIME_OUT, talk).await;
    let status = ended
        .map_err(|_| {
            failed(&format!(
                "did not end within {} seconds",
                TIME_OUT.as_secs()
            ))
        })?
        .map_err(|error| failed(&format!("cannot be talked with: {error}")))?;
    if !status.success() {
        let said: Vec<_> = said
            .lines()
            .filter(|line| !line.contains(PREFIX))
            .take(5)
            .collect();
        return Err(failed(&format!("failed ({status}): {}", said.join("; "))));
    }
    if printed.trim().is_empty() {
        return Err(failed("printed nothing"));
    }
    Ok(printed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_found_among_other_lines() {
        let read = |text: &str| variable(text).map(str::to_owned).ok();
        let key = || Some("lockwarden-key-1:x".to_owned());
        assert_eq!(
            read("# a comment\nOTHER=1\nLOCKWARDEN_KEY=lockwarden-key-1:x\n"),
            key()
        );
        assert_eq!(read("LOCKWARDEN_KEY = \"lockwarden-key-1:x\""), key());
        assert_eq!(read("LOCKWARDEN_KEY='lockwarden-key-1:x'"), key());
        assert_eq!(read("#LOCKWARDEN_KEY=x\nLOCKWARDEN_KEYS=x"), None);
    }
}
