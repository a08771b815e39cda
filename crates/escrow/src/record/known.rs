//! Which events are on record already (R22).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Incoming, is_of_no_use};
use activation_lock::time::{DAY, Timestamp};

use crate::db::{Tx, list, params};
use crate::{Escrow, Result};

/// For so long an event that comes again is recognised (R22).
const KEPT_FOR: Duration = Duration::from_secs(30 * DAY.as_secs());
/// Marks forgotten in one transaction, so that no webhook has to wait long for it.
const AT_ONCE: i64 = 10_000;

pub(super) fn mark(event: &Incoming) -> String {
    mark_of(&event.connection.id, event.observation.at, &event.digest)
}

/// What makes an event the same event: its time, the connection and the hash of its body (R22); in that order, so that the marks of a day
/// stand together. Of the connection it has the part that is random, and of the hash one half.
pub(crate) fn mark_of(connection: &str, at: Timestamp, digest: &[u8; 32]) -> String {
    let connection = connection.get(24..).unwrap_or_default();
    let digest = data_encoding::HEXLOWER.encode(&digest[..16]);
    format!("{}{connection}{digest}", beginning(at))
}

/// What the marks of a time begin with.
fn beginning(at: Timestamp) -> String {
    format!("{:016x}", at.0)
}

/// Marks the events as received, and gives the marks of those that had not been.
pub(super) async fn not_on_record(
    tx: &mut Tx<'_>,
    events: &[Arc<Incoming>],
) -> Result<HashSet<String>> {
    let marks = events
        .iter()
        .filter(|event| !is_of_no_use(event.observation.kind))
        .map(|event| mark(event));
    let now = tx.now();
    let rows = tx
        .fetch_all(
            "INSERT INTO received_marks (mark, received_at) SELECT value ->> 0, $2 FROM json_each($1) \
             WHERE true ON CONFLICT DO NOTHING RETURNING mark",
            params![list(marks), now],
        )
        .await?;
    rows.iter().map(|row| row.get("mark")).collect()
}

impl Escrow {
    /// Forgets which events were received more than 30 days ago (R22). Gives how many.
    ///
    /// # Errors
    /// When the database fails; what was forgotten by then stays so.
    pub async fn sweep_known_events(&self) -> Result<u64> {
        // Those of an MDM whose clock is ahead stand at the end.
        let mut swept = 0;
        for is_ahead in [false, true] {
            loop {
                let gone = self
                    .db
                    .write("record.sweep_known_events", async move |tx| {
                        let (now, oldest) = (tx.now(), tx.now().minus(KEPT_FOR));
                        let (from, until) = match is_ahead {
                            false => (String::new(), beginning(oldest)),
                            true => (beginning(now), "g".to_owned()),
                        };
                        tx.execute(
                            "DELETE FROM received_marks WHERE mark IN (SELECT mark FROM received_marks \
                             WHERE mark >= $1 AND mark < $2 AND received_at <= $3 ORDER BY mark LIMIT $4)",
                            params![from, until, oldest, AT_ONCE],
                        )
                        .await
                    })
                    .await?;
                swept += gone;
                if gone < AT_ONCE.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(swept)
    }
}
