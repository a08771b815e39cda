//! Moving a vault from the database in a data folder to a server, and back.

use std::fs;
use std::path::{Path, PathBuf};

use crate::clock::Clock;
pub use crate::db::Copied;
use crate::db::{self, OpenError, PostgresAddress};

/// What a database is called once everything in it has moved elsewhere: no program opens that name.
const MOVED: &str = "moved-lockwarden.db";

/// Where a vault moves, and which way.
#[derive(Clone, Debug)]
pub enum Move {
    /// From a data folder, which no process uses meanwhile, to an empty database.
    ToServer {
        /// The folder; the lock journal and what else is in it stay there.
        folder: PathBuf,
        /// The database.
        server: PostgresAddress,
    },
    /// From a database to a data folder without one. No replica runs meanwhile: what it did would not be in the copy.
    ToFolder {
        /// The database.
        server: PostgresAddress,
        /// The folder; made when it is not there.
        folder: PathBuf,
    },
}

/// What became of a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// How much there was.
    pub copied: Copied,
    /// Where the database file is now that nobody is to open any more.
    pub left: Option<PathBuf>,
}

/// Copies every row, then compares every row, and only then the copy is a vault. One that was interrupted goes on where it was. At its
/// first start nothing fires by itself (R21). `progress` is told after each page.
///
/// # Errors
/// When the folder is in use, the schema is of another program, something is in the place that is copied to, or a row differs; in
/// the place copied from nothing is changed then.
pub async fn copy(
    way: &Move,
    clock: &dyn Clock,
    progress: impl FnMut(Copied),
) -> Result<Moved, OpenError> {
    let now = clock.now();
    match way {
        Move::ToServer { folder, server } => {
            let locked = db::Folder::lock(folder, false)?;
            let copied = db::copy_to_server(locked.path(), server, now, progress).await?;
            let left = put_away(locked.path())?;
            Ok(Moved { copied, left })
        }
        Move::ToFolder { server, folder } => {
            let locked = db::Folder::lock(folder, true)?;
            let copied = db::copy_to_folder(server, locked.path(), now, progress).await?;
            Ok(Moved { copied, left: None })
        }
    }
}

/// A database that is no longer the one in use must not be taken for it.
fn put_away(folder: &Path) -> Result<Option<PathBuf>, OpenError> {
    let (file, left) = (db::Folder::database(folder), folder.join(MOVED));
    fs::rename(&file, &left).map_err(|source| OpenError::File {
        doing: "put away",
        path: file,
        source,
    })?;
    Ok(Some(left))
}
