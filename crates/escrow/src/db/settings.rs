//! How a database keeps what is committed to it, as it says itself.

use super::value::{Value, params};
use super::{Tx, value::Row};
use crate::Result;

/// How a database keeps what is committed. See [`crate::Escrow::live_settings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveSettings {
    /// SQLite.
    Sqlite {
        /// `wal`, or what else SQLite says.
        journal_mode: String,
        /// `full` when every commit is on disk before it is acknowledged.
        synchronous: String,
        /// Whether references between tables are enforced.
        foreign_keys: bool,
        /// Whether what is deleted is overwritten.
        secure_delete: bool,
    },
    /// PostgreSQL.
    Postgres {
        /// The server's version.
        version: String,
        /// `off` when a commit may be lost with the machine.
        fsync: String,
        /// `off` when a commit may be lost with the server.
        synchronous_commit: String,
        /// `off` when a torn page may spoil what was kept.
        full_page_writes: String,
        /// Which standbys a commit waits for; empty when for none.
        synchronous_standby_names: String,
        /// How many standbys follow the server now.
        standbys: i64,
    },
}

/// A way in which a database may lose what it has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// `fsync` is off.
    Fsync,
    /// `synchronous_commit` is off.
    SynchronousCommit,
    /// `full_page_writes` is off.
    FullPageWrites,
    /// A standby follows that no commit waits for.
    AsynchronousStandby,
}

impl Weakness {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Fsync,
        Self::SynchronousCommit,
        Self::FullPageWrites,
        Self::AsynchronousStandby,
    ];

    /// The name by which it is allowed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::SynchronousCommit => "synchronous_commit",
            Self::FullPageWrites => "full_page_writes",
            Self::AsynchronousStandby => "asynchronous_standby",
        }
    }

    /// The weakness of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }

    /// What it means, and what to do about it.
    #[must_use]
    pub fn explain(self) -> &'static str {
        match self {
            Self::Fsync => {
                "the database server has fsync off: codes it has acknowledged can be lost with its machine; set fsync = on"
            }
            Self::SynchronousCommit => {
                "the database server has synchronous_commit off: codes it has acknowledged can be lost with it; set \
                 synchronous_commit = on"
            }
            Self::FullPageWrites => {
                "the database server has full_page_writes off: a power cut can spoil what it kept; set full_page_writes = on"
            }
            Self::AsynchronousStandby => {
                "a standby follows the database server without being waited for: what was acknowledged last is not on it when it \
                 takes over; name it in synchronous_standby_names"
            }
        }
    }
}

impl LiveSettings {
    /// The ways in which what was acknowledged may be lost.
    #[must_use]
    pub fn weaknesses(&self) -> Vec<Weakness> {
        let Self::Postgres {
            fsync,
            synchronous_commit,
            full_page_writes,
            synchronous_standby_names,
            standbys,
            ..
        } = self
        else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let mut note = |is: bool, weakness| {
            if is {
                found.push(weakness);
            }
        };
        note(fsync == "off", Weakness::Fsync);
        note(synchronous_commit == "off", Weakness::SynchronousCommit);
        note(full_page_writes == "off", Weakness::FullPageWrites);
        let is_waited_for = !synchronous_standby_names.is_empty()
            && !["off", "local"].contains(&synchronous_commit.as_str());
        note(
            *standbys > 0 && !is_waited_for,
            Weakness::AsynchronousStandby,
        );
        found
    }
}

pub(super) async fn sqlite(tx: &mut Tx<'_>) -> Result<LiveSettings> {
    let mut pragma = async |sql| -> Result<Value> {
        let row = tx.fetch_one(sql, params![]).await?;
        Ok(row.first().cloned().unwrap_or(Value::Int(0)))
    };
    Ok(LiveSettings::Sqlite {
        journal_mode: pragma("PRAGMA journal_mode").await?.to_string(),
        synchronous: match pragma("PRAGMA synchronous").await? {
            Value::Int(0) => "off".to_owned(),
            Value::Int(1) => "normal".to_owned(),
            Value::Int(2) => "full".to_owned(),
            Value::Int(3) => "extra".to_owned(),
            other => other.to_string(),
        },
        foreign_keys: pragma("PRAGMA foreign_keys").await? == Value::Int(1),
        secure_delete: pragma("PRAGMA secure_delete").await? == Value::Int(1),
    })
}

pub(super) async fn postgres(tx: &mut Tx<'_>) -> Result<LiveSettings> {
    let row: Row = tx
        .fetch_one(
            "SELECT current_setting('server_version') AS version, current_setting('fsync') AS fsync, \
             current_setting('synchronous_commit') AS synchronous_commit, \
             current_setting('full_page_writes') AS full_page_writes, \
             current_setting('synchronous_standby_names') AS synchronous_standby_names, \
             (SELECT COUNT(*) FROM pg_stat_replication) AS standbys",
            params![],
        )
        .await?;
    Ok(LiveSettings::Postgres {
        version: row.get("version")?,
        fsync: row.get("fsync")?,
        synchronous_commit: row.get("synchronous_commit")?,
        full_page_writes: row.get("full_page_writes")?,
        synchronous_standby_names: row.get("synchronous_standby_names")?,
        standbys: row.get("standbys")?,
    })
}
