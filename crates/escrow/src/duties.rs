//! What one process does for all that share a database: each a lease, with a number that tells a stale holder from the present one.

use std::time::Duration;

use activation_lock::time::Timestamp;

use crate::db::{Tx, params};
use crate::{Escrow, Result};

/// How long a duty is had without a word: its holder says before that it goes on.
pub const LEASE: Duration = Duration::from_secs(60);

/// Something that one process does for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Reading Apple's lists of devices.
    Lists,
    /// Asking for Apple's status of locks.
    Statuses,
    /// Planning questions, ending disputes, sweeping.
    Rounds,
    /// Letting the lines of batches enter the queue.
    Batches,
}

impl Duty {
    fn as_str(self) -> &'static str {
        match self {
            Self::Lists => "lists",
            Self::Statuses => "statuses",
            Self::Rounds => "rounds",
            Self::Batches => "batches",
        }
    }
}

/// A duty that a process has, or had when it last looked.
#[derive(Clone, Debug)]
pub struct Held {
    duty: Duty,
    fence: i64,
}

impl Held {
    /// Whether nobody else has had the duty since, in the transaction of what is done by it.
    pub(crate) async fn is_still_so(&self, tx: &mut Tx<'_>) -> Result<bool> {
        let row = tx
            .fetch_optional(
                "SELECT fence FROM duties WHERE name = $1",
                params![self.duty.as_str()],
            )
            .await?;
        let fence: Option<i64> = row.map(|row| row.get("fence")).transpose()?;
        Ok(fence == Some(self.fence))
    }
}

/// The verbs on duties.
pub struct Duties<'e>(pub(crate) &'e Escrow);

impl Duties<'_> {
    /// Takes a duty, or goes on with it, for [`LEASE`] from now; `None` when another process has it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn hold(&self, duty: Duty, process: &str) -> Result<Option<Held>> {
        let process = process.to_owned();
        self.0
            .db
            .write("duties.hold", async move |tx| {
                let now = tx.now();
                let row = tx
                    .fetch_optional(
                        "SELECT holder, fence, leased_until FROM duties WHERE name = $1",
                        params![duty.as_str()],
                    )
                    .await?;
                let (is_ours, fence) = match row {
                    None => (false, 0),
                    Some(row) => {
                        let (holder, until): (String, Timestamp) =
                            (row.get("holder")?, row.get("leased_until")?);
                        if holder != process && until > now {
                            return Ok(None);
                        }
                        (holder == process && until > now, row.get("fence")?)
                    }
                };
                // Whoever comes back after its time is another holder.
                let fence = if is_ours { fence } else { fence + 1 };
                tx.execute(
                    "INSERT INTO duties (name, holder, fence, leased_until) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, fence = excluded.fence, \
                     leased_until = excluded.leased_until",
                    params![duty.as_str(), process.as_str(), fence, now.plus(LEASE)],
                )
                .await?;
                Ok(Some(Held { duty, fence }))
            })
            .await
    }

    /// Frees all duties, for a database that only one process uses: whoever had one is dead.
    pub(crate) async fn free(&self) -> Result<()> {
        self.0
            .db
            .write("duties.free", async |tx| {
                tx.execute("UPDATE duties SET leased_until = 0", params![])
                    .await?;
                Ok(())
            })
            .await
    }
}

/// Frees the duties of processes that have ended or died.
pub(crate) async fn free_of_ended(tx: &mut Tx<'_>) -> Result<()> {
    tx.execute(
        "UPDATE duties SET leased_until = 0 WHERE holder IN (SELECT id FROM replicas WHERE ended_at IS NOT NULL)",
        params![],
    )
    .await?;
    Ok(())
}
