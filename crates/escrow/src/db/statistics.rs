//! What SQLite's planner is told of the tables. It would guess that an organisation has ten rows, and walk through all of
//! them rather than use a longer index. Ours has millions, and the same plan from the first row on.

use super::Fault;
use super::engine::Connection;
use super::value::params;

/// Rows of a table.
const TABLE: u64 = 10_000_000;
/// Rows that share an organisation.
const OF_ORGANISATION: u64 = 2_500_000;
/// Rows that share a word of a short list, such as a state.
const OF_WORD: u64 = 100_000;
/// Rows that share a name.
const OF_NAME: u64 = 20;

/// Columns whose values are few.
const WORDS: &[&str] = &[
    "state",
    "kind",
    "coverage",
    "connection",
    "product_type",
    "type",
    "action",
    "actor",
    "result",
    "standing",
];

/// Writes the figures and has the planner read them. Connections opened afterwards know them too.
pub(super) async fn set(connection: &mut Connection) -> Result<(), Fault> {
    if connection.is_shared() {
        // PostgreSQL counts for itself.
        return Ok(());
    }
    let columns = connection.fetch_all(
        "SELECT tables.name AS tbl, CASE indexes.origin WHEN 'pk' THEN tables.name ELSE indexes.name END AS idx, \
         indexes.\"unique\" AS is_unique, indexes.partial AS is_partial, columns.name AS col, \
         columns.seqno = (SELECT MAX(seqno) FROM pragma_index_info(indexes.name)) AS is_last \
         FROM sqlite_schema AS tables, pragma_index_list(tables.name) AS indexes, \
         pragma_index_info(indexes.name) AS columns WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite%' \
         ORDER BY tbl, idx, columns.seqno",
        params![],
    )
    .await?;
    let mut figures: Vec<(String, String, u64, String)> = Vec::new();
    for column in &columns {
        let (table, index): (String, String) = (column.column("tbl")?, column.column("idx")?);
        let name: Option<String> = column.column("col")?;
        let unique: bool = column.column("is_unique")?;
        let last: bool = column.column("is_last")?;
        // What is live or pending is a small part of what ever was.
        let part = if column.column("is_partial")? { 10 } else { 1 };
        if figures
            .last()
            .is_none_or(|(t, i, ..)| (t, i) != (&table, &index))
        {
            figures.push((table, index, TABLE / part, (TABLE / part).to_string()));
        }
        let Some((_, _, rows, text)) = figures.last_mut() else {
            continue;
        };
        let share = match name.as_deref() {
            _ if unique && last => 1,
            Some("organisation") => OF_ORGANISATION,
            Some(name) if WORDS.contains(&name) => OF_WORD,
            _ => OF_NAME,
        };
        *rows = (share / part).max(1).min(*rows);
        text.push_str(&format!(" {rows}"));
    }
    connection
        .script("BEGIN IMMEDIATE; ANALYZE; DELETE FROM sqlite_stat1")
        .await?;
    for (table, index, _, text) in figures {
        connection
            .execute(
                "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ($1, $2, $3)",
                params![table, index, text],
            )
            .await?;
    }
    connection.script("COMMIT; ANALYZE sqlite_schema").await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use activation_lock::time::Timestamp;

    use crate::clock::{ManualClock, Steady};
    use crate::db::{Database, Db, Opening, params};
    use crate::meta::DataKind;

    /// Each question of the record must find its rows by the index made for it, whatever the size of the tables.
    #[tokio::test]
    async fn questions_by_key_use_their_index() {
        struct Zeros;
        impl seal::Random for Zeros {
            fn fill(&self, bytes: &mut [u8]) {
                bytes.fill(0);
            }
        }
        let folder = tempfile::TempDir::new().unwrap();
        let opening = Opening {
            folder: folder.path(),
            database: Database::Embedded,
            kind: DataKind::Sandbox,
            clock: Arc::new(Steady::new(Arc::new(ManualClock::new(Timestamp(0))))),
            random: Arc::new(Zeros),
        };
        let db = Db::open(opening).await.unwrap();
        let cases = [
            (
                "EXPLAIN QUERY PLAN SELECT * FROM (SELECT value FROM json_each($1)) AS wanted JOIN epochs ON \
                 organisation = wanted.value ->> 0 AND serial = wanted.value ->> 1 AND closed_at IS NULL",
                "epochs_of_device (organisation=? AND serial=?)",
            ),
            (
                "EXPLAIN QUERY PLAN SELECT * FROM (SELECT value FROM json_each($1)) AS wanted JOIN codes ON \
                 organisation = wanted.value ->> 0 AND serial = wanted.value ->> 1",
                "codes_of_device (organisation=? AND serial=?)",
            ),
            (
                "EXPLAIN QUERY PLAN SELECT * FROM (SELECT value FROM json_each($1)) AS wanted JOIN commands ON \
                 organisation = wanted.value ->> 0 AND epoch = wanted.value ->> 1 \
                 AND state IN ('planned', 'queued', 'not_now')",
                "commands_pending (organisation=? AND epoch=?)",
            ),
            (
                "EXPLAIN QUERY PLAN SELECT * FROM (SELECT value FROM json_each($1)) AS wanted JOIN held_answers ON \
                 organisation = wanted.value ->> 0 AND epoch = wanted.value ->> 1",
                "held_answers_of_epoch (organisation=? AND epoch=?)",
            ),
            (
                "EXPLAIN QUERY PLAN SELECT * FROM (SELECT DISTINCT value FROM json_each($1)) AS wanted JOIN epochs ON \
                 organisation = wanted.value ->> 0 AND connection = wanted.value ->> 1 AND enrollment = wanted.value ->> 2 \
                 AND closed_at IS NOT NULL AND serial IS NULL AND EXISTS (SELECT 1 FROM held_answers \
                 WHERE held_answers.organisation = epochs.organisation AND held_answers.epoch = epochs.id)",
                "epochs_nameless (organisation=? AND connection=? AND enrollment=?)",
            ),
            (
                "EXPLAIN QUERY PLAN SELECT * FROM (SELECT DISTINCT value FROM json_each($1)) AS wanted JOIN epochs ON \
                 organisation = wanted.value ->> 0 AND epochs.id = wanted.value ->> 1",
                "USING PRIMARY KEY (organisation=? AND id=?)",
            ),
            (
                "EXPLAIN QUERY PLAN SELECT organisation, serial FROM epochs WHERE state = 'disputed' AND closed_at IS NULL \
                 AND serial IS NOT NULL GROUP BY organisation, serial \
                 HAVING SUM(CASE WHEN seen_at > $1 THEN 1 ELSE 0 END) = 1 LIMIT 1000",
                "epochs_disputed",
            ),
            (
                "EXPLAIN QUERY PLAN SELECT mark FROM received_marks WHERE mark >= $1 AND mark < $1 AND received_at <= $1 \
                 ORDER BY mark LIMIT 10000",
                "USING PRIMARY KEY (mark>? AND mark<?)",
            ),
            (
                "EXPLAIN QUERY PLAN SELECT id FROM lock_calls WHERE serial = $1 AND began_at >= $1 AND id <> $1 LIMIT 1",
                "lock_calls_of_device (serial=? AND began_at>?)",
            ),
            (
                "EXPLAIN QUERY PLAN SELECT code FROM lock_calls WHERE organisation = $1 AND serial = $1 ORDER BY id",
                "lock_calls_of_device (serial=?)",
            ),
            (
                "EXPLAIN QUERY PLAN SELECT last_at FROM lock_statuses WHERE organisation = $1 AND serial = $1 \
                 ORDER BY id DESC LIMIT 1",
                "lock_statuses_of_device (organisation=? AND serial=?)",
            ),
            (
                "EXPLAIN QUERY PLAN SELECT id FROM commands WHERE state = 'planned' AND connection = $1 AND due_at <= $1 \
                 AND (leased_until IS NULL OR leased_until <= $1) ORDER BY due_at LIMIT 64",
                "commands_due (connection=? AND due_at<?)",
            ),
            (
                "EXPLAIN QUERY PLAN SELECT term, serial FROM device_terms WHERE organisation = $1 AND (term, serial) > ($1, $1) \
                 AND term < $1 ORDER BY term, serial LIMIT 500",
                "USING PRIMARY KEY (organisation=? AND (term,serial)>(?,?) AND term<?)",
            ),
            (
                "EXPLAIN QUERY PLAN SELECT serial FROM devices WHERE organisation = $1 AND coverage = 'missing' \
                 AND (window_closes_at, serial) > ($1, $1) AND window_closes_at <= $1 ORDER BY window_closes_at, serial LIMIT 500",
                "devices_closing (organisation=? AND (window_closes_at,serial)>(?,?) AND window_closes_at<?)",
            ),
            (
                "EXPLAIN QUERY PLAN SELECT serial FROM devices WHERE organisation = $1 AND coverage = $1 AND serial > $1 \
                 ORDER BY serial LIMIT 500",
                "devices_by_coverage (organisation=? AND coverage=? AND serial>?)",
            ),
            (
                "EXPLAIN QUERY PLAN SELECT COUNT(*) FROM devices WHERE organisation IN (SELECT id FROM organisations \
                 WHERE $1 IS NULL OR id = $1) AND coverage = 'missing' AND window_closes_at <= $1",
                "devices_closing (organisation=? AND window_closes_at<?)",
            ),
            (
                "EXPLAIN QUERY PLAN SELECT serial FROM devices WHERE organisation = $1 ORDER BY status_due_at LIMIT 100",
                "devices_by_status_due (organisation=?)",
            ),
            (
                "EXPLAIN QUERY PLAN SELECT name FROM listed_devices JOIN server_tokens \
                 ON server_tokens.organisation = listed_devices.organisation AND id = server_token \
                 WHERE listed_devices.organisation = $1 AND serial = $1 ORDER BY server_token",
                "listed_devices_of_device (organisation=? AND serial=?)",
            ),
        ];
        for (sql, index) in cases {
            let rows = db
                .read(async move |tx| tx.fetch_all(sql, params!["[]"]).await)
                .await
                .unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get("detail").unwrap()).collect();
            assert!(
                plan.iter().any(|step| step.contains(index)),
                "{index}: {plan:?}"
            );
        }
    }
}
