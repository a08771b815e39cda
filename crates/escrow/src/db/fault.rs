//! What can go wrong with the database, in words, with nothing of an engine's types and no value of any row.

use std::path::PathBuf;

use thiserror::Error;

use crate::meta::DataKind;

/// A database that did not do what a verb asked.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// The engine refused. The text names tables and columns at most, never values.
    #[error("the database failed, and nothing of this was kept: {0}")]
    Engine(String),
    /// A row that must be unique is there already.
    #[error(
        "the database refused a second row where one is allowed, and nothing of this was kept: {0}"
    )]
    NotUnique(String),
    /// The whole batch this verb was committed with was lost.
    #[error("the database could not commit, and nothing of this was kept: {0}")]
    Commit(String),
    /// The connection was lost between the commit and its answer, and nobody could be asked since.
    #[error(
        "the connection to the database was lost while this was being kept, and whether it was is not known: look before \
         you ask for it again"
    )]
    InDoubt,
    /// A row of a copy is not that of which it is one.
    #[error(
        "the copy of the table {table} differs from what it was copied from, which was changed since the copy was begun: empty \
         the database that is copied into, and begin again"
    )]
    Differs {
        /// The table.
        table: String,
    },
    /// A database of another program's schema is not copied.
    #[error(
        "the database that is to be copied has schema {found}, and this program copies schema {program}: use the lockwarden \
         that serves it, or let this one bring it up to date with `lockwarden db migrate`"
    )]
    OtherSchema {
        /// What it has.
        found: i64,
        /// What this program knows.
        program: i64,
    },
    /// There is nothing to copy.
    #[error("there is no vault in the database that is to be copied")]
    Nothing,
    /// A copy was to be written over something.
    #[error(
        "the database that is to be copied into holds something: nothing is copied over anything"
    )]
    NotEmpty,
    /// A copy was begun and not finished.
    #[error(
        "a copy is being written into this database and is not finished: let `lockwarden db copy` finish it"
    )]
    Unfinished,
    /// A statement that always has a row had none.
    #[error("the database gave no row for a question that always has an answer: {sql}")]
    NoRow {
        /// The statement, a constant of this program.
        sql: &'static str,
    },
    /// A column that is not there, or holds another type.
    #[error(
        "column {column} does not hold {expected}: the database was changed by another program, or is damaged"
    )]
    Column {
        /// The column asked for.
        column: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// The verb stopped at an error in this program.
    #[error(
        "the verb {verb} stopped at an error in this program, and nothing of it was kept: please report it, with the log"
    )]
    Panicked {
        /// The verb.
        verb: &'static str,
    },
    /// The database was closed, because the program is stopping.
    #[error("the database is closed, for the program is stopping: ask again once it runs")]
    Closed,
}

impl Fault {
    /// What the caller of a verb is told that had done its part when its transaction was lost.
    pub(super) fn uncommitted(self) -> Self {
        match self {
            Self::InDoubt => Self::InDoubt,
            other => Self::Commit(other.to_string()),
        }
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(inner) if inner.is_unique_violation() => {
                Self::NotUnique(inner.to_string())
            }
            sqlx::Error::Database(inner) => Self::Engine(inner.to_string()),
            other => Self::Engine(other.to_string()),
        }
    }
}

/// Why a data folder could not be opened. Nothing in it was changed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the data folder {} is in use by another lockwarden: stop that one first, or give this one its own folder", folder.display()
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// A sandbox where production was asked for, or the reverse.
    #[error(
        "the data folder {} is a {found} folder and this is a {wanted} run: the two are never mixed; give another folder", folder.display()
    )]
    OtherKind {
        /// The folder.
        folder: PathBuf,
        /// What it is.
        found: DataKind,
        /// What was asked for.
        wanted: DataKind,
    },
    /// Written by a program so much newer that this one would damage it.
    #[error(
        "the database in {} has schema {schema}, which needs a program that knows schema {oldest} or newer; this one knows {program}: use the newer lockwarden", folder.display()
    )]
    ProgramTooOld {
        /// The folder.
        folder: PathBuf,
        /// The schema it has.
        schema: i64,
        /// The oldest schema a program must know to use it.
        oldest: i64,
        /// The schema this program knows.
        program: i64,
    },
    /// A database without this program's marks.
    #[error("the database in {} was not made by lockwarden, or is damaged: {what}", folder.display())]
    NotOurs {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A migration did not go through; it was undone.
    #[error(
        "the schema change {name} failed and was undone; the database is as it was before: {fault}"
    )]
    Migration {
        /// The migration.
        name: &'static str,
        /// What failed.
        fault: Fault,
    },
    /// A replica that lives could not go on with the schema of this program.
    #[error(
        "the schema change {name} is not made while a replica of an earlier program, on {host}, would damage what it no longer \
         understands: stop that one, wait half a minute, and start this one again"
    )]
    OlderReplica {
        /// The migration.
        name: &'static str,
        /// The replica's machine.
        host: String,
    },
    /// A file could not be made, opened or locked.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was attempted.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}
