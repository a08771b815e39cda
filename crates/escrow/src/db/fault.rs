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
