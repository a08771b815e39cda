//! The session of who signed in on this machine, with the server that it is for: it is never sent to another.

use std::path::{Path, PathBuf};

use url::Url;
use zeroize::Zeroizing;

use crate::voice::Failure;
use crate::{private_file, secret_file};

/// The environment variable that names another file.
pub(crate) const VARIABLE: &str = "LOCKWARDEN_SESSION_FILE";

/// A session and its server.
pub(crate) struct Kept {
    /// The server's address.
    pub(crate) url: Url,
    /// The session.
    pub(crate) session: Zeroizing<String>,
}

/// Where it is kept: where the environment says, or in the person's own folder for state.
fn place() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(named) = variable(VARIABLE) {
        return Some(named.into());
    }
    let state = variable("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/state")))?;
    Some(state.join("lockwarden/session"))
}

/// The session that is kept here, if there is one.
///
/// # Errors
/// When there is one that cannot be read.
pub(crate) fn read() -> Result<Option<Kept>, Failure> {
    let Some(path) = place().filter(|path| path.exists()) else {
        return Ok(None);
    };
    let text = secret_file::read(&path, "the session file")?;
    let mut lines = text.lines();
    let kept = match (lines.next().map(Url::parse), lines.next()) {
        (Some(Ok(url)), Some(session)) => Some((url, session)),
        _ => None,
    };
    let (url, session) = kept.ok_or_else(|| {
        Failure::new(format!("{} is not a session file", path.display()))
            .hint("remove it, and sign in again")
    })?;
    Ok(Some(Kept {
        url,
        session: Zeroizing::new(session.trim().to_owned()),
    }))
}

/// Keeps a session, in place of another.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn keep(kept: &Kept) -> Result<PathBuf, Failure> {
    let path = place().ok_or_else(|| {
        Failure::new("there is no place for the session: neither HOME nor XDG_STATE_HOME is set")
            .hint(format!("set {VARIABLE}"))
    })?;
    make_folder(path.parent().unwrap_or(Path::new(".")))?;
    let text = Zeroizing::new(format!("{}\n{}\n", kept.url, kept.session.as_str()));
    private_file::replace(&path, &text)?;
    Ok(path)
}

fn make_folder(folder: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| Failure::new(format!("{} cannot be made: {error}", folder.display())))
}

/// Forgets the session.
///
/// # Errors
/// When it cannot be removed.
pub(crate) fn forget() -> Result<(), Failure> {
    match place().filter(|path| path.exists()) {
        Some(path) => std::fs::remove_file(&path).map_err(|error| {
            Failure::new(format!("{} cannot be removed: {error}", path.display()))
        }),
        None => Ok(()),
    }
}
