//! What needs a person, and what came of the unlocks of each week.

use activation_lock::device::SerialNumber;
use activation_lock::operation::StateName;
use activation_lock::time::{DAY, Timestamp};

use super::{Kind, Operations};
use crate::db::params;
use crate::permit::{Permit, Read};
use crate::{Error, Result};

/// The first day of 1970 was a Thursday, and weeks begin on Mondays.
const FROM_MONDAY: i64 = 3 * DAY.as_millis() as i64;
const WEEK: i64 = 7 * DAY.as_millis() as i64;

/// An unlock or a lock that a person has to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InReview {
    /// Its identifier.
    pub id: String,
    /// What it is for.
    pub kind: Kind,
    /// The device.
    pub serial: SerialNumber,
    /// Since when.
    pub since: Timestamp,
}

/// How the unlocks of one week ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Week {
    /// When it began: a Monday, at midnight in UTC.
    pub began_at: Timestamp,
    /// How many ended how.
    pub outcomes: Vec<(StateName, i64)>,
}

impl Operations<'_> {
    /// Those that need a person, newest first, `limit` at most; and how many there are.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn in_review(
        &self,
        permit: &Permit<Read>,
        limit: u32,
    ) -> Result<(Vec<InReview>, i64)> {
        let organisation = permit.organisation().clone();
        self.0
            .db
            .read(async move |tx| {
                let rows = tx
                    .fetch_all(
                        "SELECT id, kind, serial, COALESCE(ended_at, requested_at) AS since FROM operations \
                         WHERE organisation = $1 AND state = 'needs_review' ORDER BY id DESC LIMIT $2",
                        params![organisation.as_str(), i64::from(limit)],
                    )
                    .await?;
                let count = tx
                    .fetch_one(
                        "SELECT COUNT(*) AS count FROM operations WHERE organisation = $1 AND state = 'needs_review'",
                        params![organisation.as_str()],
                    )
                    .await?;
                let mut found = Vec::with_capacity(rows.len());
                for row in &rows {
                    found.push(InReview {
                        id: row.get("id")?,
                        kind: Kind::from_name(&row.get::<String>("kind")?)?,
                        serial: row
                            .get::<String>("serial")?
                            .parse()
                            .map_err(|_| Error::Corrupt("operations.serial"))?,
                        since: row.get("since")?,
                    });
                }
                Ok((found, count.get("count")?))
            })
            .await
    }

    /// How the unlocks of each of the last so many weeks ended, this week among them; oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn outcomes(&self, permit: &Permit<Read>, weeks: u32) -> Result<Vec<Week>> {
        let organisation = permit.organisation().clone();
        self.0
            .db
            .read(async move |tx| {
                let (week, offset) = (WEEK, FROM_MONDAY);
                let this = (tx.now().0 + offset) / week;
                let first = this - i64::from(weeks) + 1;
                let rows = tx
                    .fetch_all(
                        "SELECT (ended_at + $3) / $4 AS week, state, COUNT(*) AS count FROM operations \
                         WHERE organisation = $1 AND ended_at >= $2 AND kind = 'unlock' GROUP BY 1, 2 ORDER BY 1, 2",
                        params![organisation.as_str(), first * week - offset, offset, week],
                    )
                    .await?;
                let began_at = |number: i64| Timestamp(number * week - offset);
                let mut all: Vec<_> = (first..=this)
                    .map(|number| Week {
                        began_at: began_at(number),
                        outcomes: Vec::new(),
                    })
                    .collect();
                for row in &rows {
                    let began_at = began_at(row.get("week")?);
                    let state: String = row.get("state")?;
                    let state = state
                        .parse()
                        .map_err(|_| Error::Corrupt("operations.state"))?;
                    if let Some(week) = all.iter_mut().find(|week| week.began_at == began_at) {
                        week.outcomes.push((state, row.get("count")?));
                    }
                }
                Ok(all)
            })
            .await
    }
}
