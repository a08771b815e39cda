//! What a database says of itself: what kind of data it holds, and which programs may use it.

use std::fmt;

use activation_lock::time::Timestamp;

use crate::db::{Fault, Row};
use crate::replicas::ReplicaView;

/// What a data folder holds. The two never mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKind {
    /// Real devices and codes.
    Production,
    /// The built-in fakes' devices.
    Sandbox,
}

impl DataKind {
    /// The word stored: `production` or `sandbox`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Sandbox => "sandbox",
        }
    }
}

impl fmt::Display for DataKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What `db status` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What the database holds.
    pub kind: DataKind,
    /// The schema it has.
    pub schema_version: i64,
    /// The oldest schema that a program must know to use it.
    pub oldest_compatible: i64,
    /// The schema this program knows.
    pub program_version: i64,
    /// The schema changes that opening it would apply, in order.
    pub pending: Vec<&'static str>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The public half of the recovery key, as text; `None` in a sandbox that has none (R25).
    pub recovery_public: Option<String>,
    /// When the recovery key was last shown to open a cell, if ever (R25).
    pub recovery_opened_at: Option<Timestamp>,
    /// The processes on it that were heard of within a day, those that started last first.
    pub replicas: Vec<ReplicaView>,
}

impl Status {
    /// Whether this program may open it.
    #[must_use]
    pub fn is_compatible(&self) -> bool {
        self.program_version >= self.oldest_compatible
    }

    /// From the one row of `meta`; what concerns the program is left for the caller to fill in.
    pub(crate) fn from_row(row: &Row) -> Result<Self, Fault> {
        let kind: String = row.column("kind")?;
        let kind = match kind.as_str() {
            "production" => DataKind::Production,
            "sandbox" => DataKind::Sandbox,
            "unfinished" => return Err(Fault::Unfinished),
            _ => {
                return Err(Fault::Column {
                    column: "meta.kind".to_owned(),
                    expected: "a kind of data",
                });
            }
        };
        Ok(Self {
            kind,
            schema_version: row.column("schema_version")?,
            oldest_compatible: row.column("oldest_compatible")?,
            program_version: 0,
            pending: Vec::new(),
            created_at: row.column("created_at")?,
            recovery_public: row.column("recovery_public")?,
            recovery_opened_at: row.column("recovery_opened_at")?,
            replicas: Vec::new(),
        })
    }
}
