//! Which events are on record already (R22).

use std::collections::HashSet;
use std::sync::Arc;

use super::{Incoming, is_of_no_use};
use crate::Result;
use crate::db::{Tx, params};

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
