//! Files that only their owner may read: keys, tokens, the sandbox's ready file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::voice::Failure;

/// A file just made, mode 0600. Until it is kept it is taken away again when it is dropped, so that a command that fails can be
/// run again.
pub(crate) struct PrivateFile {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        if !self.kept {
            // Whoever reads that the command failed looks at what it left.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes a new file that only its owner may read.
///
/// # Errors
/// When there is one already, which is left as it is, or it cannot be made.
pub(crate) fn create(path: &Path) -> Result<PrivateFile, Failure> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| {
            let failure = Failure::new(format!("{} cannot be made: {error}", path.display()));
            if error.kind() == io::ErrorKind::AlreadyExists {
                failure.hint("nothing is overwritten: move the file away first, or name another")
            } else {
                failure
            }
        })?;
    Ok(PrivateFile {
        file,
        path: path.to_owned(),
        kept: false,
    })
}

impl io::Write for PrivateFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl PrivateFile {
    /// Leaves it where it is.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    /// Has what was written on disk, and the file's name too.
    ///
    /// # Errors
    /// When that cannot be had.
    pub(crate) fn sync(&self) -> Result<(), Failure> {
        sync(&self.file, &self.path).map_err(|error| {
            Failure::new(format!(
                "it is not certain that {} is on disk: {error}",
                self.path.display()
            ))
        })
    }

    /// Writes a line, and does not come back before it is on disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write_line(&mut self, line: &str) -> Result<(), Failure> {
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| {
                if line.ends_with('\n') {
                    Ok(())
                } else {
                    self.file.write_all(b"\n")
                }
            })
            .and_then(|()| sync(&self.file, &self.path))
            .map_err(|error| {
                Failure::new(format!(
                    "{} cannot be written: {error}",
                    self.path.display()
                ))
            })
    }
}

/// Has a file on disk, and its name too: a key that is gone after a power failure would leave a vault that does not open, a
/// code that is gone a device that does not.
fn sync(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    File::open(folder_of(path))?.sync_all()
}

/// Does not come back before what others wrote into a file is on disk. What is no plain file, such as a pipe, is left alone.
///
/// # Errors
/// When that cannot be had.
pub(crate) fn make_durable(path: &Path) -> Result<(), Failure> {
    let synced = File::open(path).and_then(|file| match file.metadata()?.is_file() {
        true => sync(&file, path),
        false => Ok(()),
    });
    synced.map_err(|error| {
        Failure::new(format!(
            "it is not certain that {} is on disk: {error}",
            path.display()
        ))
    })
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Puts a file that only its owner may read in a place at once, whole or not at all, replacing what is there.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // Left behind by a process that died while it wrote.
    let _ = std::fs::remove_file(&beside);
    let mut file = create(&beside)?;
    file.write_line(text)?;
    std::fs::rename(&beside, path)
        .map_err(|error| Failure::new(format!("{} cannot be written: {error}", path.display())))?;
    file.keep();
    Ok(())
}
