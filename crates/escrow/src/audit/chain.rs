//! The chain over the record: who may add to it, and how rows get their place in it.
//!
//! Rows of one writer commit in the order of their counter, so the sealer takes each writer's rows from where it stopped and
//! misses none, whatever the order of identifiers. Positions are its own: on an engine with several writers no other order is
//! the one in which rows became durable.

use std::collections::BTreeMap;
use std::time::Duration;

use activation_lock::time::Timestamp;
use seal::Link;

use super::horizon::Horizon;
use crate::db::{Row, Tx, Value, params};
use crate::{Error, Escrow, Result};

/// How long a sealer's lease lasts from its last act.
const LEASE: Duration = Duration::from_secs(30);
/// Rows sealed in one transaction: others wait for it.
const BATCH: u32 = 500;
/// The name under which rows of version 1, which have no writer, are counted in the chain.
pub(super) const BEFORE: &str = "";

/// For each writer, the number of its last row in the chain.
pub(super) type Counters = BTreeMap<String, u64>;

/// What seals the record, one at a time over all processes on a database. See [`super::Audit::sealer`].
pub struct Sealer {
    pub(super) escrow: Escrow,
    /// Tells it apart from every other one.
    pub(super) id: String,
}

/// What became of a turn at sealing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn<T> {
    /// It was ours, with this result.
    Ours(T),
    /// Another process seals, until then at least.
    AnothersUntil(Timestamp),
}

/// The one row of `audit_sealer`: the lease, and the end of the chain.
pub(super) struct Standing {
    holder: Option<String>,
    fence: i64,
    leased_until: Timestamp,
    pub(super) position: u64,
    pub(super) link: Link,
    /// The number of the last checkpoint.
    pub(super) checkpoints: u64,
}

impl Standing {
    pub(super) async fn read(tx: &mut Tx<'_>) -> Result<Self> {
        let row = tx
            .fetch_one(
                "SELECT holder, fence, leased_until, position, link, checkpoints FROM audit_sealer WHERE id = 1",
                params![],
            )
            .await?;
        Self::from_row(&row)
    }

    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            holder: row.get("holder")?,
            fence: row.get("fence")?,
            leased_until: row.get("leased_until")?,
            position: row.get("position")?,
            link: Link::from_hex(&row.get::<String>("link")?)
                .ok_or(Error::Corrupt("audit_sealer.link"))?,
            checkpoints: row.get("checkpoints")?,
        })
    }

    /// Whether this sealer may act now; a new holder gets a new number.
    fn take(&mut self, sealer: &str, now: Timestamp) -> bool {
        let is_own = self.holder.as_deref() == Some(sealer);
        if !is_own && self.holder.is_some() && now < self.leased_until {
            return false;
        }
        if !is_own {
            self.holder = Some(sealer.to_owned());
            self.fence += 1;
            self.leased_until = Timestamp(0);
        }
        true
    }

    /// Writes it back, with the lease anew. `fence` is the number under which it was read: whoever was overtaken in between
    /// changes nothing.
    async fn write(&mut self, tx: &mut Tx<'_>, fence: i64) -> Result<()> {
        self.leased_until = tx.now().plus(LEASE);
        let changed = tx
            .execute(
                "UPDATE audit_sealer SET holder = $1, fence = $2, leased_until = $3, position = $4, link = $5, \
                 checkpoints = $6 WHERE id = 1 AND fence = $7",
                params![
                    self.holder.as_deref(),
                    self.fence,
                    self.leased_until,
                    number(self.position),
                    self.link.hex(),
                    number(self.checkpoints),
                    fence
                ],
            )
            .await?;
        match changed {
            1 => Ok(()),
            _ => Err(Error::Corrupt("audit_sealer.fence")),
        }
    }
}

/// A count as a column has it.
pub(super) fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Sealer {
    /// Seals the rows that are not sealed, a few hundred at once; gives how many, and nothing when none was left. A row that
    /// is missing in its writer's count does not stop it: [`super::Audit::verifier`] finds it.
    ///
    /// # Errors
    /// When the database fails; nothing was sealed then.
    pub async fn seal(&self) -> Result<Turn<u32>> {
        let id = self.id.clone();
        self.escrow
            .db
            .write("audit.seal", async move |tx| {
                in_turn(tx, &id, async |tx, standing| {
                    let rows = unsealed(tx, BATCH).await?;
                    let links = rows.iter().map(|row| append(standing, row)).collect();
                    let sql = "INSERT INTO audit_chain (position, organisation, audit_row, writer, counter, link) \
                         VALUES ($1, $2, $3, $4, $5, $6)";
                    tx.execute_each(sql, links).await?;
                    Ok(u32::try_from(rows.len()).unwrap_or(u32::MAX))
                })
                .await
            })
            .await
    }

    /// Gives the lease back, so that another need not wait for its end.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release(&self) -> Result<()> {
        let id = self.id.clone();
        self.escrow
            .db
            .write("audit.release", async move |tx| free(tx, Some(&id)).await)
            .await
    }
}

/// Takes the lease from this holder, or from whoever has it.
pub(super) async fn free(tx: &mut Tx<'_>, holder: Option<&str>) -> Result<()> {
    tx.execute(
        "UPDATE audit_sealer SET holder = NULL, leased_until = 0 \
         WHERE id = 1 AND holder IS NOT NULL AND ($1 IS NULL OR holder = $1)",
        params![holder],
    )
    .await?;
    Ok(())
}

/// Does something that only the sealer may, if it is this one's turn.
pub(super) async fn in_turn<T>(
    tx: &mut Tx<'_>,
    sealer: &str,
    act: impl AsyncFnOnce(&mut Tx<'_>, &mut Standing) -> Result<T>,
) -> Result<Turn<T>> {
    let mut standing = Standing::read(tx).await?;
    let (now, fence) = (tx.now(), standing.fence);
    if !standing.take(sealer, now) {
        return Ok(Turn::AnothersUntil(standing.leased_until));
    }
    let before = (standing.position, standing.checkpoints);
    let given = act(tx, &mut standing).await?;
    let changed = before != (standing.position, standing.checkpoints);
    // An idle sealer writes nothing until its lease is half over.
    if changed || standing.leased_until.since(now) < LEASE / 2 {
        standing.write(tx, fence).await?;
    }
    Ok(Turn::Ours(given))
}

/// A row on its way into the chain.
struct Unsealed {
    organisation: String,
    id: String,
    writer: String,
    counter: u64,
    text: String,
    mac_key: String,
    mac: String,
}

impl Unsealed {
    fn from_row(row: &Row, writer: &str, counter: u64) -> Result<Self> {
        Ok(Self {
            organisation: row.get("organisation")?,
            id: row.get("id")?,
            writer: writer.to_owned(),
            counter,
            text: row.get("text")?,
            mac_key: row.get("mac_key")?,
            mac: row.get("mac")?,
        })
    }
}

/// The next link, as a row.
fn append(standing: &mut Standing, row: &Unsealed) -> Vec<Value> {
    standing.position += 1;
    standing.link = standing
        .link
        .next(standing.position, &row.text, &row.mac_key, &row.mac);
    params![
        number(standing.position),
        row.organisation.as_str(),
        row.id.as_str(),
        row.writer.as_str(),
        number(row.counter),
        standing.link.hex()
    ]
}

/// For each writer that is known, the number of its last row in the chain: 0 when there is none.
pub(super) async fn sealed(tx: &mut Tx<'_>) -> Result<Counters> {
    let mut counters = Horizon::last(tx)
        .await?
        .map_or_else(Counters::new, |horizon| horizon.writers);
    let mut writers = vec![BEFORE.to_owned()];
    for row in tx
        .fetch_all("SELECT id FROM audit_writers ORDER BY id", params![])
        .await?
    {
        writers.push(row.get("id")?);
    }
    for writer in writers {
        let row = tx
            .fetch_one(
                "SELECT MAX(counter) AS last FROM audit_chain WHERE writer = $1",
                params![writer.as_str()],
            )
            .await?;
        let last = row.get::<Option<u64>>("last")?.unwrap_or(0);
        let counter = counters.entry(writer).or_default();
        *counter = last.max(*counter);
    }
    Ok(counters)
}

/// The next rows to seal: those of version 1 first, then each writer's.
async fn unsealed(tx: &mut Tx<'_>, limit: u32) -> Result<Vec<Unsealed>> {
    let counters = sealed(tx).await?;
    let room = |rows: &Vec<_>| limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(limit));
    let mut rows = of_before(tx, counters[BEFORE], limit).await?;
    for (writer, last) in counters.iter().filter(|(writer, _)| *writer != BEFORE) {
        if room(&rows) == 0 {
            break;
        }
        let found = tx
            .fetch_all(
                "SELECT organisation, id, counter, text, mac_key, mac FROM audit \
                 WHERE writer = $1 AND counter > $2 ORDER BY counter LIMIT $3",
                params![writer.as_str(), number(*last), room(&rows)],
            )
            .await?;
        for row in &found {
            rows.push(Unsealed::from_row(row, writer, row.get("counter")?)?);
        }
    }
    Ok(rows)
}

/// Rows of version 1 in the order of their identifiers, from where the chain has them.
async fn of_before(tx: &mut Tx<'_>, last: u64, limit: u32) -> Result<Vec<Unsealed>> {
    let sealed = tx
        .fetch_optional(
            "SELECT audit_row, organisation FROM audit_chain WHERE writer = $1 AND counter = $2",
            params![BEFORE, number(last)],
        )
        .await?;
    let (id, organisation) = match sealed {
        Some(row) => (row.get("audit_row")?, row.get("organisation")?),
        None => (String::new(), String::new()),
    };
    let found = tx
        .fetch_all(
            "SELECT organisation, id, text, mac_key, mac FROM audit \
             WHERE writer IS NULL AND (id, organisation) > ($1, $2) ORDER BY id, organisation LIMIT $3",
            params![id, organisation, limit],
        )
        .await?;
    found
        .iter()
        .zip(last + 1..)
        .map(|(row, counter)| Unsealed::from_row(row, BEFORE, counter))
        .collect()
}
