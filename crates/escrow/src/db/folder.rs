//! The data folder: its files, who may read them, and the lock that gives it to one process.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::OpenError;

const DATABASE: &str = "lockwarden.db";
const LOCK: &str = "lockwarden.lock";

/// A data folder that this process holds, or looks into. The lock goes when this is dropped, or with the process.
pub(crate) struct Folder {
    path: PathBuf,
    _lock: Option<File>,
}

impl Folder {
    /// The database file of a folder.
    pub(crate) fn database(folder: &Path) -> PathBuf {
        folder.join(DATABASE)
    }

    /// Takes a folder, making it, readable by its owner alone, when it is not there; and the file of a database in it, if it is to
    /// hold one.
    pub(crate) fn lock(path: &Path, holds_database: bool) -> Result<Self, OpenError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| OpenError::File {
                doing: "make the folder",
                path: path.to_owned(),
                source,
            })?;
        let lock = private_file(&path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse {
                    folder: path.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(OpenError::File {
                    doing: "lock",
                    path: path.join(LOCK),
                    source,
                });
            }
        }
        if holds_database {
            // Made here and not by the engine, for its mode; the write-ahead log inherits it.
            private_file(&Self::database(path))?;
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: Some(lock),
        })
    }

    /// A folder to look into, whoever holds it.
    pub(crate) fn unlocked(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            _lock: None,
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Opens a file for reading and writing, made for its owner alone when it is not there.
pub(super) fn private_file(path: &Path) -> Result<File, OpenError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| OpenError::File {
            doing: "open",
            path: path.to_owned(),
            source,
        })
}
