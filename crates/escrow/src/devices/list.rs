//! Pages of devices. Whatever is asked for, a page looks at few rows, however many devices there are.
//!
//! One part of the question *leads*: what fits it stands together in an index, in the order in which it is shown. Keys are read from
//! there, a stretch at a time, and the rest of the question is put to those devices alone.

use std::collections::HashMap;

use activation_lock::lock::OurLock;
use activation_lock::time::Timestamp;
use activation_lock::window;
use serde_json::json;

use super::{Device, DeviceSummary, Devices, Filter, Page, select_devices};
use crate::Result;
use crate::coverage::CoverageState;
use crate::db::{Tx, params};
use crate::permit::{OrganisationId, Permit, Read};
use crate::search;

/// Keys read at a time, when not all of them are sure to fit.
const STRETCH: usize = 500;
/// Keys that a page looks at. One that is not full by then says where to go on.
const AT_MOST: usize = 2_000;

/// The part of a question that leads, and with it the order.
enum Lead {
    /// By the word that fits, and then by serial number.
    Word {
        from: String,
        until: String,
    },
    /// Those that close first come first.
    Closing {
        from: Timestamp,
        until: Timestamp,
    },
    /// By serial number, as the others.
    Lock(OurLock),
    Coverage(CoverageState),
    Product(String),
    Connection(String),
    All,
}

/// Where a device stands in the order.
#[derive(Clone)]
struct Key {
    /// The word, or when the window closes in milliseconds; nothing where the serial number alone decides.
    place: String,
    serial: String,
    /// The device stood earlier in the order, for another word.
    is_again: bool,
}

impl Key {
    /// A serial number holds no space.
    fn to_cursor(&self) -> String {
        if self.place.is_empty() {
            return self.serial.clone();
        }
        format!("{} {}", self.place, self.serial)
    }
}

/// The two halves of a cursor.
fn halves(cursor: &str) -> (&str, &str) {
    cursor.rsplit_once(' ').unwrap_or(("", cursor))
}

impl Lead {
    fn of(filter: &Filter, now: Timestamp) -> Self {
        if let Some(search) = &filter.search {
            let from = search::normal(search);
            let until = search::prefix_end(&from);
            return Self::Word { from, until };
        }
        if filter.closing {
            let until = now.plus(window::WINDOW - window::CLOSING_AFTER);
            return Self::Closing { from: now, until };
        }
        // Few devices are locked by us, and hardly any in doubt.
        if let Some(lock) = filter.lock.filter(|lock| *lock != OurLock::None) {
            return Self::Lock(lock);
        }
        // Most devices are covered: that says the least.
        match (&filter.coverage, &filter.product_type, &filter.connection) {
            (Some(state), ..) if *state != CoverageState::Covered => Self::Coverage(*state),
            (_, Some(product), _) => Self::Product(product.clone()),
            (_, _, Some(connection)) => Self::Connection(connection.clone()),
            (Some(state), ..) => Self::Coverage(*state),
            _ => Self::All,
        }
    }

    /// Whether everything that fits this fits the whole question.
    fn is_all_of(&self, filter: &Filter) -> bool {
        let parts = [
            filter.search.is_some(),
            filter.closing,
            filter.coverage.is_some(),
            filter.product_type.is_some(),
            filter.connection.is_some(),
            filter.lock.is_some(),
        ];
        let asked = parts.into_iter().filter(|is| *is).count();
        asked == usize::from(!matches!(self, Self::All))
    }

    /// The next keys after a cursor.
    async fn keys(
        &self,
        tx: &mut Tx<'_>,
        organisation: &OrganisationId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Key>> {
        let (organisation, limit) = (
            organisation.as_str(),
            i64::try_from(limit).unwrap_or(i64::MAX),
        );
        let (place, serial) = halves(after);
        let rows = match self {
            Self::Word { from, until } => {
                let (place, serial) = match place < from.as_str() {
                    true => (from.as_str(), ""),
                    false => (place, serial),
                };
                let sql = "SELECT term AS place, serial, CASE WHEN EXISTS (SELECT 1 FROM device_terms AS other \
                     WHERE other.organisation = $1 AND other.serial = device_terms.serial AND other.term >= $4 \
                     AND other.term < device_terms.term) THEN 1 ELSE 0 END AS is_again FROM device_terms \
                     WHERE organisation = $1 AND (term, serial) > ($2, $3) AND term < $5 ORDER BY term, serial LIMIT $6";
                let params = params![organisation, place, serial, from, until, limit];
                tx.fetch_all(sql, params).await?
            }
            Self::Closing { from, until } => {
                let place = place.parse().map_or(*from, Timestamp);
                // Whatever closes at this moment has closed.
                let (place, serial) = match place <= *from {
                    true => (*from, "\u{10ffff}"),
                    false => (place, serial),
                };
                let sql = "SELECT CAST(window_closes_at AS TEXT) AS place, serial, 0 AS is_again FROM devices \
                     WHERE organisation = $1 AND coverage = 'missing' AND (window_closes_at, serial) > ($2, $3) \
                     AND window_closes_at <= $4 ORDER BY window_closes_at, serial LIMIT $5";
                let params = params![organisation, place, serial, *until, limit];
                tx.fetch_all(sql, params).await?
            }
            Self::Lock(state) => {
                // The first condition is that of the index, in its own words.
                let sql = "SELECT '' AS place, serial, 0 AS is_again FROM devices WHERE organisation = $1 AND lock_state <> 'none' \
                     AND lock_state = $2 AND serial > $3 ORDER BY serial LIMIT $4";
                let params = params![organisation, state.as_str(), serial, limit];
                tx.fetch_all(sql, params).await?
            }
            Self::Coverage(state) => {
                let sql = "SELECT '' AS place, serial, 0 AS is_again FROM devices WHERE organisation = $1 AND coverage = $2 \
                     AND serial > $3 ORDER BY serial LIMIT $4";
                let params = params![organisation, state.as_str(), serial, limit];
                tx.fetch_all(sql, params).await?
            }
            Self::Product(product) => {
                let sql = "SELECT '' AS place, serial, 0 AS is_again FROM devices WHERE organisation = $1 \
                     AND product_type = $2 AND serial > $3 ORDER BY serial LIMIT $4";
                let params = params![organisation, product, serial, limit];
                tx.fetch_all(sql, params).await?
            }
            Self::Connection(connection) => {
                let sql = "SELECT '' AS place, serial, 0 AS is_again FROM devices WHERE organisation = $1 \
                     AND connection = $2 AND serial > $3 ORDER BY serial LIMIT $4";
                let params = params![organisation, connection, serial, limit];
                tx.fetch_all(sql, params).await?
            }
            Self::All => {
                let sql = "SELECT '' AS place, serial, 0 AS is_again FROM devices WHERE organisation = $1 AND serial > $2 \
                     ORDER BY serial LIMIT $3";
                let params = params![organisation, serial, limit];
                tx.fetch_all(sql, params).await?
            }
        };
        let key = |row: &crate::db::Row| {
            Ok(Key {
                place: row.get("place")?,
                serial: row.get("serial")?,
                is_again: row.get("is_again")?,
            })
        };
        rows.iter().map(key).collect()
    }
}

/// Of the devices with these keys, those that fit the whole question.
async fn fitting(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    keys: &[Key],
    filter: &Filter,
    now: Timestamp,
) -> Result<HashMap<String, DeviceSummary>> {
    let fresh = keys.iter().filter(|key| !key.is_again);
    let wanted: Vec<_> = fresh
        .map(|key| json!([organisation.as_str(), key.serial]))
        .collect();
    let closing_before = filter
        .closing
        .then(|| now.plus(window::WINDOW - window::CLOSING_AFTER));
    let sql = select_devices!(
        "(SELECT value FROM json_each($1)) AS wanted JOIN devices ON devices.organisation = wanted.value ->> 0 \
         AND devices.serial = wanted.value ->> 1 WHERE ($2 IS NULL OR coverage = $2) AND ($3 IS NULL OR connection = $3) \
         AND ($4 IS NULL OR product_type = $4) \
         AND ($5 IS NULL OR (coverage = 'missing' AND window_closes_at > $6 AND window_closes_at <= $5)) \
         AND ($7 IS NULL OR lock_state = $7)"
    );
    let params = params![
        json!(wanted).to_string(),
        filter.coverage.map(CoverageState::as_str),
        filter.connection.as_deref(),
        filter.product_type.as_deref(),
        closing_before,
        now,
        filter.lock.map(OurLock::as_str)
    ];
    let rows = tx.fetch_all(sql, params).await?;
    let device = |row| {
        let device = Device::from_row(row)?;
        Ok((device.serial.to_string(), device.summary(now)))
    };
    rows.iter().map(device).collect()
}

impl Devices<'_> {
    /// One page of devices: those whose window closes first, where that is asked for; of a search by the words that fit it; else by
    /// serial number. `limit` is 1 to 500; a page may have fewer although there are more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(
        &self,
        permit: &Permit<Read>,
        filter: &Filter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<DeviceSummary>> {
        let organisation = permit.organisation().clone();
        let filter = filter.clone();
        let after = cursor.unwrap_or("").to_owned();
        let limit = limit.clamp(1, 500);
        self.0
            .db
            .read(async move |tx| {
                let now = tx.now();
                let lead = Lead::of(&filter, now);
                let stretch = match lead.is_all_of(&filter) {
                    true => limit + 1,
                    false => STRETCH,
                };
                let mut after = after.clone();
                let mut shown: Vec<(Key, DeviceSummary)> = Vec::new();
                let mut looked_at = 0;
                loop {
                    let keys = lead.keys(tx, &organisation, &after, stretch).await?;
                    let is_end = keys.len() < stretch;
                    let mut found = fitting(tx, &organisation, &keys, &filter, now).await?;
                    looked_at += keys.len();
                    if let Some(last) = keys.last() {
                        after = last.to_cursor();
                    }
                    for key in keys {
                        // A word may be there from several sources: the first takes the device.
                        let device = found.remove(&key.serial);
                        shown.extend(device.map(|device| (key, device)));
                    }
                    let is_full = shown.len() > limit;
                    shown.truncate(limit);
                    let next = match is_full {
                        true => shown.last().map(|(key, _)| key.to_cursor()),
                        false => Some(after.clone()),
                    };
                    if is_full || is_end || looked_at >= AT_MOST {
                        let items = shown.into_iter().map(|(_, device)| device).collect();
                        let next = next.filter(|_| is_full || !is_end);
                        return Ok(Page { items, next });
                    }
                }
            })
            .await
    }
}
