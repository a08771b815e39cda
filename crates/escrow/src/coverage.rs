//! Which devices have their code held: counters that change with every device, swept for truth now and then.

use activation_lock::time::{DAY, Timestamp};
use serde::{Deserialize, Serialize};

use crate::db::{Tx, params};
use crate::permit::{OrganisationId, Permit, Read};
use crate::{Escrow, Result};

/// Whether the code of a device is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoverageState {
    /// A code was observed in its live enrolment, or one is kept and it is enrolled nowhere.
    Covered,
    /// It should have a code here and has none.
    Missing,
    /// It is a device that gives no code (R10).
    Exempt,
}

impl CoverageState {
    /// The stable text kept in the database and shown in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Covered => "covered",
            Self::Missing => "missing",
            Self::Exempt => "exempt",
        }
    }

    pub(crate) fn from_name(text: &str) -> Self {
        match text {
            "covered" => Self::Covered,
            "exempt" => Self::Exempt,
            _ => Self::Missing,
        }
    }
}

/// How many devices stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CoverageReport {
    /// Devices whose code is held.
    pub covered: i64,
    /// Devices whose code should be held and is not.
    pub missing: i64,
    /// Of those, the ones whose window closes within five days.
    pub closing: i64,
    /// Of those, the ones whose window has closed.
    pub closed: i64,
    /// Devices that give no code.
    pub exempt: i64,
}

pub(crate) async fn count(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    state: CoverageState,
    change: i64,
) -> Result<()> {
    tx.execute(
        "INSERT INTO coverage (organisation, state, devices) VALUES ($1, $2, $3) \
         ON CONFLICT (organisation, state) DO UPDATE SET devices = coverage.devices + $3",
        params![organisation.as_str(), state.as_str(), change],
    )
    .await?;
    Ok(())
}

/// The verbs on coverage. See [`Escrow::coverage`].
pub struct Coverage<'a>(pub(crate) &'a Escrow);

impl Coverage<'_> {
    /// The counts of one organisation.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn report(&self, permit: &Permit<Read>) -> Result<CoverageReport> {
        let organisation = permit.organisation().clone();
        self.0
            .db
            .read(async move |tx| report(tx, Some(&organisation)).await)
            .await
    }

    /// The counts over all organisations, for the metrics of the installation.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn total(&self) -> Result<CoverageReport> {
        self.0.db.read(async move |tx| report(tx, None).await).await
    }

    /// Counts every device anew and corrects the counters. Gives how far they were off.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sweep(&self) -> Result<i64> {
        let off = self
            .0
            .db
            .write("coverage.sweep", async move |tx| {
                let off = tx
                    .fetch_one(
                        "SELECT CAST(COALESCE(SUM(ABS(difference)), 0) AS BIGINT) AS off FROM (SELECT SUM(n) AS difference FROM \
                         (SELECT organisation, coverage AS state, COUNT(*) AS n FROM devices \
                          GROUP BY organisation, coverage \
                          UNION ALL SELECT organisation, state, -devices FROM coverage) AS both_sides \
                         GROUP BY organisation, state) AS differences",
                        params![],
                    )
                    .await?
                    .get::<i64>("off")?;
                if off != 0 {
                    tx.execute("DELETE FROM coverage", params![]).await?;
                    tx.execute(
                        "INSERT INTO coverage (organisation, state, devices) \
                         SELECT organisation, coverage, COUNT(*) FROM devices GROUP BY organisation, coverage",
                        params![],
                    )
                    .await?;
                }
                Ok(off)
            })
            .await?;
        if off != 0 {
            tracing::warn!(
                off,
                "the coverage counters were off and have been corrected"
            );
        }
        Ok(off)
    }
}

/// How it stood on one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoverageDay {
    /// The day, counted from the first of 1970, in UTC.
    pub day: i64,
    /// Devices whose code was held.
    pub covered: i64,
    /// Devices whose code should have been held and was not.
    pub missing: i64,
    /// Of those, the ones whose window had closed.
    pub closed: i64,
    /// Devices that give no code.
    pub exempt: i64,
}

impl Coverage<'_> {
    /// Notes how it stands today, in each organisation. The last look at a day is what is kept of it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_day(&self) -> Result<()> {
        self.0
            .db
            .write("coverage.note_day", async move |tx| {
                let day = day_of(tx.now());
                let rows = tx.fetch_all("SELECT id FROM organisations", params![]).await?;
                for row in rows {
                    let organisation = OrganisationId::new(row.get::<String>("id")?);
                    let report = report(tx, Some(&organisation)).await?;
                    tx.execute(
                        "INSERT INTO coverage_days (organisation, day, covered, missing, closed, exempt) \
                         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (organisation, day) DO UPDATE SET \
                         covered = excluded.covered, missing = excluded.missing, closed = excluded.closed, \
                         exempt = excluded.exempt",
                        params![
                            organisation.as_str(),
                            day,
                            report.covered,
                            report.missing,
                            report.closed,
                            report.exempt
                        ],
                    )
                    .await?;
                }
                Ok(())
            })
            .await
    }

    /// How it stood on the last so many days, today among them; oldest first. A day on which nobody looked is missing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn days(&self, permit: &Permit<Read>, count: u32) -> Result<Vec<CoverageDay>> {
        let organisation = permit.organisation().clone();
        self.0
            .db
            .read(async move |tx| {
                let first = day_of(tx.now()) - i64::from(count) + 1;
                let rows = tx
                    .fetch_all(
                        "SELECT day, covered, missing, closed, exempt FROM coverage_days \
                         WHERE organisation = $1 AND day >= $2 ORDER BY day",
                        params![organisation.as_str(), first],
                    )
                    .await?;
                rows.iter()
                    .map(|row| {
                        Ok(CoverageDay {
                            day: row.get("day")?,
                            covered: row.get("covered")?,
                            missing: row.get("missing")?,
                            closed: row.get("closed")?,
                            exempt: row.get("exempt")?,
                        })
                    })
                    .collect()
            })
            .await
    }
}

fn day_of(at: Timestamp) -> i64 {
    at.0.div_euclid(DAY.as_millis() as i64)
}

async fn report(tx: &mut Tx<'_>, organisation: Option<&OrganisationId>) -> Result<CoverageReport> {
    let named = organisation.map(OrganisationId::as_str);
    let mut report = CoverageReport::default();
    let rows = tx
        .fetch_all(
            "SELECT state, CAST(SUM(devices) AS BIGINT) AS devices FROM coverage WHERE ($1 IS NULL OR organisation = $1) GROUP BY state",
            params![named],
        )
        .await?;
    for row in rows {
        let devices: i64 = row.get("devices")?;
        match CoverageState::from_name(&row.get::<String>("state")?) {
            CoverageState::Covered => report.covered = devices,
            CoverageState::Missing => report.missing = devices,
            CoverageState::Exempt => report.exempt = devices,
        }
    }
    let now = tx.now();
    let soon = now.plus(activation_lock::window::WINDOW - activation_lock::window::CLOSING_AFTER);
    let row = tx
        .fetch_one(
            "SELECT COALESCE(SUM(CASE WHEN window_closes_at > $2 THEN 1 ELSE 0 END), 0) AS closing, \
             COALESCE(SUM(CASE WHEN window_closes_at <= $2 THEN 1 ELSE 0 END), 0) AS closed FROM devices \
             WHERE organisation IN (SELECT id FROM organisations WHERE $1 IS NULL OR id = $1) AND coverage = 'missing' \
             AND window_closes_at <= $3",
            params![named, now, soon],
        )
        .await?;
    report.closing = row.get("closing")?;
    report.closed = row.get("closed")?;
    Ok(report)
}
