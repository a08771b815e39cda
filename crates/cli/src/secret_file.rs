//! Secrets come from files or standard input, never from the arguments (R23).

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use crate::voice::Failure;

/// No file that holds a secret is larger.
const LARGEST: u64 = 1024 * 1024;

/// Reads the whole file, or standard input for `-`, as text (UTF-8, with or without a byte order mark). `what` names it in messages: `the token file`. The path is
/// not repeated in them, since a secret may have been given in its place.
///
/// # Errors
/// When it cannot be read, is not text, or is larger than a mebibyte.
pub(crate) fn read(path: &Path, what: &str) -> Result<Zeroizing<String>, Failure> {
    let bytes = read_bytes(path, what)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| Failure::new(format!("{what} is not text")))?;
    // Some editors begin a file with a mark that nobody sees.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Ok(Zeroizing::new(text.to_owned()))
}

/// The same, for a secret that is one word, such as a password: without the white space around it.
///
/// # Errors
/// As [`read`]; or when there is nothing else in it.
pub(crate) fn read_word(path: &Path, what: &str) -> Result<Zeroizing<String>, Failure> {
    let text = read(path, what)?;
    let word = Zeroizing::new(text.trim().to_owned());
    if word.is_empty() {
        return Err(Failure::new(format!("{what} is empty")));
    }
    Ok(word)
}

/// The same, for what need not be text.
///
/// # Errors
/// When it cannot be read or is larger than a mebibyte.
pub(crate) fn read_bytes(path: &Path, what: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let cannot = |error: io::Error| {
        Failure::new(format!("{what} cannot be read: {error}"))
            .hint("give the path of a file, or - for standard input; the secret itself does not belong on the command line")
    };
    let bytes = if path.as_os_str() == "-" {
        whole(io::stdin().lock(), 0)
    } else {
        let file = File::open(path).map_err(cannot)?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        whole(file, size)
    }
    .map_err(cannot)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Failure::new(format!(
            "{what} is larger than {LARGEST} bytes: it is not what is asked for here"
        )));
    }
    Ok(bytes)
}

fn whole(source: impl Read, size: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it at once, so that no smaller copy is left behind in memory.
    let room = usize::try_from(size.clamp(8 * 1024, LARGEST)).unwrap_or(8 * 1024) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    source.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Warns when others than the owner may read a file that holds a secret; `None` when all is well.
pub(crate) fn warning(path: &Path, what: &str) -> Option<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o077 != 0).then(|| {
        format!(
            "warning: {what} can be read by others than its owner (mode {:03o}); chmod 600 it",
            mode & 0o777
        )
    })
}
