//! Which events are on record already (R22).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Incoming, is_of_no_use};
use activation_lock::time::DAY;

use crate::db::{Tx, params};
use crate::{Escrow, Result};

/// For so long an event that comes again is recognised (R22).
const KEPT_FOR: Duration = Duration::from_secs(30 * DAY.as_secs());
/// Marks forgotten in one transaction, so that no webhook has to wait long for it.
const AT_ONCE: i64 = 10_000;

/// What makes an event the same event: organisation, connection, time and hash of the body (R22).
pub(super) type Mark = (String, String, i64, String);

pub(super) fn mark(event: &Incoming) -> Mark {
    let Incoming {
        connection,
        digest,
        observation,
    } = event;
    let digest = data_encoding::HEXLOWER.encode(digest);
    (
        connection.organisation.as_str().to_owned(),
        connection.id.clone(),
        observation.at.0,
        digest,
    )
}

/// Marks the events as received, and gives the marks of those that had not been.
pub(super) async fn not_on_record(
    tx: &mut Tx<'_>,
    events: &[Arc<Incoming>],
) -> Result<HashSet<Mark>> {
    let marks: Vec<_> = events
        .iter()
        .filter(|event| !is_of_no_use(event.observation.kind))
        .map(|event| mark(event))
        .collect();
    let now = tx.now();
    let rows = tx
        .fetch_all(
            "INSERT INTO received_events (organisation, connection, event_at, digest, received_at) \
             SELECT value ->> 0, value ->> 1, CAST(value ->> 2 AS BIGINT), value ->> 3, $2 FROM json_each($1) \
             WHERE true ON CONFLICT DO NOTHING RETURNING organisation, connection, event_at, digest",
            params![serde_json::json!(marks).to_string(), now],
        )
        .await?;
    let mut fresh = HashSet::with_capacity(rows.len());
    for row in rows {
        fresh.insert((
            row.get("organisation")?,
            row.get("connection")?,
            row.get("event_at")?,
            row.get("digest")?,
        ));
    }
    Ok(fresh)
}

impl Escrow {
    /// Forgets which events were received more than 30 days ago (R22). Gives how many.
    ///
    /// # Errors
    /// When the database fails; what was forgotten by then stays so.
    pub async fn sweep_known_events(&self) -> Result<u64> {
        let mut swept = 0;
        loop {
            let gone = self
                .db
                .write("record.sweep_known_events", async move |tx| {
                    let oldest = tx.now().minus(KEPT_FOR);
                    tx.execute(
                        "DELETE FROM received_events WHERE (organisation, connection, event_at, digest) IN \
                         (SELECT organisation, connection, event_at, digest FROM received_events \
                          WHERE received_at <= $1 ORDER BY received_at LIMIT $2)",
                        params![oldest, AT_ONCE],
                    )
                    .await
                })
                .await?;
            swept += gone;
            if gone < AT_ONCE.unsigned_abs() {
                return Ok(swept);
            }
        }
    }
}
