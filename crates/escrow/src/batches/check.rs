//! Each line is looked at as it comes: whether it could be done, and if not, why.

use std::collections::{BTreeMap, BTreeSet};

use activation_lock::batch::{Facts, check};
use activation_lock::bypass_code::BypassCode;
use serde_json::json;

use super::*;
use crate::db::{Row, list};

/// Puts lines behind those that are there.
pub(super) async fn insert(tx: &mut Tx<'_>, batch: &Batch, texts: &[String]) -> Result<()> {
    let serials: Vec<_> = texts.iter().map(|text| serial(text)).collect();
    let wanted: BTreeSet<_> = serials.iter().flatten().collect();
    let mut facts = read(tx, batch, &wanted).await?;
    let now = tx.now();
    let mut rows = Vec::with_capacity(texts.len());
    for (serial, line) in serials.iter().zip(batch.lines + 1..) {
        let state = match serial {
            None => LineState::NotASerial,
            // The first line that names a device takes what is known of it.
            Some(serial) => match facts.remove(serial) {
                None => LineState::Duplicate,
                Some(facts) => check(batch.action, batch.insists, &facts, now),
            },
        };
        let serial = serial.as_ref().map(SerialNumber::as_str);
        rows.push(json!([line, serial, state.as_str()]));
    }
    tx.execute(
        "INSERT INTO batch_lines (organisation, batch, line, serial, state) \
         SELECT $1, $2, CAST(value ->> 0 AS BIGINT), value ->> 1, value ->> 2 FROM json_each($3)",
        params![
            batch.organisation.as_str(),
            batch.id.as_str(),
            json!(rows).to_string()
        ],
    )
    .await?;
    Ok(())
}

/// What a line names. A code that stands in a serial number's place is not kept.
fn serial(text: &str) -> Option<SerialNumber> {
    if BypassCode::parse_lenient(text).is_ok() {
        return None;
    }
    text.parse().ok()
}

fn facts(row: &Row) -> Result<Facts> {
    let is = |column: &str| Ok::<_, Error>(row.get::<i64>(column)? == 1);
    let ours: Option<String> = row.get("lock_state")?;
    let said: Option<i64> = row.get("is_locked")?;
    let at: Option<Timestamp> = row.get("believed_at")?;
    Ok(Facts {
        is_known: is("is_known")?,
        has_product_type: is("has_product_type")?,
        has_code: is("has_code")?,
        is_live: is("is_live")?,
        is_listed: is("is_listed")?,
        is_enrolled: is("is_enrolled")?,
        ours: ours
            .map(|ours| ours.parse())
            .transpose()
            .map_err(|_| Error::Corrupt("devices.lock_state"))?,
        said: said.map(|said| said == 1).zip(at),
    })
}

/// Of devices that no line names yet.
async fn read(
    tx: &mut Tx<'_>,
    batch: &Batch,
    wanted: &BTreeSet<&SerialNumber>,
) -> Result<BTreeMap<SerialNumber, Facts>> {
    let rows = tx
        .fetch_all(
            "SELECT wanted.value ->> 0 AS serial, \
             CASE WHEN devices.serial IS NULL THEN 0 ELSE 1 END AS is_known, \
             CASE WHEN product_type IS NULL THEN 0 ELSE 1 END AS has_product_type, lock_state, \
             CASE WHEN EXISTS (SELECT 1 FROM codes WHERE codes.organisation = $1 AND codes.serial = wanted.value ->> 0) \
             THEN 1 ELSE 0 END AS has_code, \
             CASE WHEN EXISTS (SELECT 1 FROM operations WHERE operations.serial = wanted.value ->> 0 \
             AND operations.ended_at IS NULL) THEN 1 ELSE 0 END AS is_live, \
             CASE WHEN EXISTS (SELECT 1 FROM listed_devices JOIN server_tokens \
             ON server_tokens.organisation = listed_devices.organisation AND server_tokens.id = server_token \
             WHERE listed_devices.organisation = $1 AND listed_devices.serial = wanted.value ->> 0 AND gone_at IS NULL \
             AND removed_at IS NULL) THEN 1 ELSE 0 END AS is_listed, \
             CASE WHEN EXISTS (SELECT 1 FROM epochs WHERE epochs.organisation = $1 AND epochs.serial = wanted.value ->> 0 \
             AND closed_at IS NULL) THEN 1 ELSE 0 END AS is_enrolled, \
             (SELECT is_locked FROM lock_statuses WHERE lock_statuses.organisation = $1 \
             AND lock_statuses.serial = wanted.value ->> 0 ORDER BY lock_statuses.id DESC LIMIT 1) AS is_locked, \
             (SELECT believed_at FROM lock_statuses WHERE lock_statuses.organisation = $1 \
             AND lock_statuses.serial = wanted.value ->> 0 ORDER BY lock_statuses.id DESC LIMIT 1) AS believed_at \
             FROM (SELECT value FROM json_each($2)) AS wanted \
             LEFT JOIN devices ON devices.organisation = $1 AND devices.serial = wanted.value ->> 0 \
             WHERE NOT EXISTS (SELECT 1 FROM batch_lines WHERE batch_lines.organisation = $1 \
             AND batch_lines.serial = wanted.value ->> 0 AND batch_lines.batch = $3)",
            params![
                batch.organisation.as_str(),
                list(wanted.iter().map(|serial| serial.as_str())),
                batch.id.as_str()
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let serial = row.get::<String>("serial")?.parse();
            let serial = serial.map_err(|_| Error::Corrupt("batch_lines.serial"))?;
            Ok((serial, facts(row)?))
        })
        .collect()
}
