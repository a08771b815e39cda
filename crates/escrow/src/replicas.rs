//! The processes that share a database: which there are, and whether the others live.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use activation_lock::time::{DAY, Timestamp};

use crate::db::{Fault, Row, params, program_version};
use crate::{Escrow, Result, duties};

/// The file that names a data folder.
const NODE: &str = "node";

/// How often a replica says that it lives.
pub const BEAT: Duration = Duration::from_secs(10);
/// How long after its last word a replica is taken for alive.
pub const ALIVE: Duration = Duration::from_secs(35);

/// A process, as it presents itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its identifier, another one after every start.
    pub id: String,
    /// Its data folder, by the identifier that is in it: a process with the same one takes its place.
    pub node: String,
    /// The name of its machine.
    pub host: String,
    /// The program's version.
    pub version: String,
    /// What it does: `serve`, `work`, or both.
    pub roles: String,
}

/// A process, as it is on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// As it presents itself.
    pub replica: Replica,
    /// The schema it knows.
    pub schema_version: i64,
    /// When it started.
    pub started_at: Timestamp,
    /// When it last said that it lives.
    pub seen_at: Timestamp,
    /// When it ended in good order; `None` when it has not, or was killed.
    pub ended_at: Option<Timestamp>,
    /// Whether it is taken for alive.
    pub is_alive: bool,
}

impl ReplicaView {
    pub(crate) fn from_row(row: &Row, now: Timestamp) -> Result<Self, Fault> {
        let (seen_at, ended_at): (Timestamp, Option<Timestamp>) =
            (row.column("seen_at")?, row.column("ended_at")?);
        Ok(Self {
            replica: Replica {
                id: row.column("id")?,
                node: row.column("node")?,
                host: row.column("host")?,
                version: row.column("version")?,
                roles: row.column("roles")?,
            },
            schema_version: row.column("schema_version")?,
            started_at: row.column("started_at")?,
            seen_at,
            ended_at,
            is_alive: ended_at.is_none() && now.since(seen_at) <= ALIVE,
        })
    }
}

/// All of them, those that started last first.
pub(crate) const ALL: &str = "SELECT id, node, host, version, schema_version, roles, started_at, seen_at, ended_at FROM replicas \
    ORDER BY started_at DESC, id";

/// The verbs on replicas.
pub struct Replicas<'e>(pub(crate) &'e Escrow);

impl Replicas<'_> {
    /// The identifier of this process's data folder; made when there is none.
    ///
    /// # Errors
    /// When it can be neither read nor written.
    pub fn node(&self) -> io::Result<String> {
        let path = self.0.folder().join(NODE);
        match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut bytes = [0; 16];
        self.0.random().fill(&mut bytes);
        let node = data_encoding::HEXLOWER.encode(&bytes);
        let mut options = fs::OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(path)?;
        file.write_all(node.as_bytes())?;
        file.sync_all()?;
        Ok(node)
    }

    /// Says that a replica lives, and notices which have died: those whose place it has taken, and those that were not heard of
    /// for long. Gives how many did. What was on its way to them may be lost. Those not heard of for a day are forgotten.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn beat(&self, replica: &Replica) -> Result<u64> {
        let replica = replica.clone();
        self.0
            .db
            .write("replicas.beat", async move |tx| {
                let now = tx.now();
                let died = tx
                    .execute(
                        "UPDATE replicas SET ended_at = $1 WHERE ended_at IS NULL AND id <> $2 AND (node = $3 OR seen_at < $4)",
                        params![now, replica.id.as_str(), replica.node.as_str(), now.minus(ALIVE)],
                    )
                    .await?;
                if died > 0 {
                    duties::free_of_ended(tx).await?;
                }
                tx.execute(
                    "DELETE FROM replicas WHERE seen_at < $1",
                    params![now.minus(DAY)],
                )
                .await?;
                tx.execute(
                    "INSERT INTO replicas (id, node, host, version, schema_version, roles, started_at, seen_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $7) ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, \
                     ended_at = NULL",
                    params![
                        replica.id.as_str(),
                        replica.node.as_str(),
                        replica.host.as_str(),
                        replica.version.as_str(),
                        program_version(),
                        replica.roles.as_str(),
                        now
                    ],
                )
                .await?;
                Ok(died)
            })
            .await
    }

    /// A replica ends in good order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.0
            .db
            .write("replicas.end", async move |tx| {
                let now = tx.now();
                tx.execute(
                    "UPDATE replicas SET ended_at = $2, seen_at = $2 WHERE id = $1",
                    params![id.as_str(), now],
                )
                .await?;
                duties::free_of_ended(tx).await
            })
            .await
    }

    /// All of them that were heard of within a day, those that started last first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self) -> Result<Vec<ReplicaView>> {
        self.0
            .db
            .read(async |tx| {
                let now = tx.now();
                let rows = tx.fetch_all(ALL, params![]).await?;
                let views = rows.iter().map(|row| ReplicaView::from_row(row, now));
                Ok(views.collect::<Result<_, _>>()?)
            })
            .await
    }
}
