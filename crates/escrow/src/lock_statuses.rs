//! Apple's own status of a device's lock (contract sheet, section 4): what it said and when, and when it is asked for again.
//!
//! A status is kept as it came, with words that nobody described. It is asked for when an unlock begins, when a lock or an
//! unlock has ended, until it agrees or a time has passed, and otherwise once in a long while.

use std::time::Duration;

use activation_lock::codes::LockStatus;
use activation_lock::device::SerialNumber;
use activation_lock::lock::{AppleStatus, Event, LockType, STATUS_LAGS, What};
use activation_lock::time::{DAY, Timestamp};
use serde_json::json;

use crate::db::{Row, Tx, params};
use crate::locks::refresh;
use crate::names::names;
use crate::operations::worker;
use crate::permit::{OrganisationId, Permit, Read};
use crate::{Error, Escrow, Result, audit};

/// The most of unknown attributes that is kept, in characters.
const MORE: usize = 4_000;
/// A status that is older says nothing about which code to try first.
const GUIDES_FOR: Duration = DAY;
/// After a lock or an unlock has ended, the first look is taken so soon.
const FIRST_LOOK: Duration = Duration::from_secs(30);
/// A status that does not agree yet is read again so soon.
const NEXT_LOOK: Duration = Duration::from_secs(60);
/// After a problem the next try is so far away, at least.
const AFTER_A_PROBLEM: Duration = Duration::from_secs(15 * 60);

names! {
    /// What Apple's status should come to say after what was done.
    Expected {
        /// That a lock is on.
        Locked = "locked",
        /// That none is.
        NotLocked = "not_locked",
    }
}

/// When a status is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusSettings {
    /// How long after a lock or an unlock a status that does not agree is put down to its being late.
    pub settles_in: Duration,
    /// How often the status of a device is read that nothing happens to.
    pub sweep_every: Duration,
}

impl Default for StatusSettings {
    /// A quarter of an hour; thirty days.
    fn default() -> Self {
        Self {
            settles_in: Duration::from_secs(15 * 60),
            sweep_every: 30 * DAY,
        }
    }
}

/// What came of asking Apple.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It answered.
    Said {
        /// The status.
        status: AppleStatus,
        /// Attributes that nobody described, as JSON.
        more: Option<String>,
    },
    /// There is no status, for a reason in a stable word: `not_managed`, `internal_state`, `credential`, `unavailable`,
    /// `unexpected`.
    Problem(&'static str),
}

/// Apple's status of a device, as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusView {
    /// Whether Apple can be asked: the organisation has an account for its API.
    pub can_be_asked: bool,
    /// What it last said, and when: since when, and when it was last read so.
    pub last: Option<Said>,
    /// When it was last asked for.
    pub asked_at: Option<Timestamp>,
    /// Why the last time gave nothing.
    pub problem: Option<String>,
    /// What it should come to say, and until when that is waited for.
    pub expected: Option<(Expected, Timestamp)>,
}

/// One thing that Apple said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The status.
    pub status: AppleStatus,
    /// Attributes that nobody described, as JSON.
    pub more: Option<String>,
    /// When it was first read.
    pub first_at: Timestamp,
    /// When it was last read.
    pub last_at: Timestamp,
    /// When it was first and last read while nothing else was expected: what is read against an expectation is taken to be late,
    /// and proves nothing until the expectation is given up.
    pub believed: Option<(Timestamp, Timestamp)>,
}

impl Said {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            status: AppleStatus {
                is_locked: row.get("is_locked")?,
                lock_type: row
                    .get::<Option<String>>("lock_type")?
                    .as_deref()
                    .map(LockType::from_text),
            },
            more: row.get("more")?,
            first_at: row.get("first_at")?,
            last_at: row.get("last_at")?,
            believed: row
                .get::<Option<Timestamp>>("believed_from")?
                .zip(row.get("believed_at")?),
        })
    }
}

/// A device whose status is to be read now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its organisation.
    pub organisation: OrganisationId,
    /// The device.
    pub serial: SerialNumber,
}

/// What Apple said of a device, one entry a change, oldest first.
async fn said(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Vec<Said>> {
    tx.fetch_all(
        "SELECT is_locked, lock_type, more, first_at, last_at, believed_from, believed_at FROM lock_statuses \
         WHERE organisation = $1 AND serial = $2 ORDER BY id",
        params![organisation.as_str(), serial.as_str()],
    )
    .await?
    .iter()
    .map(Said::from_row)
    .collect()
}

/// What Apple said of a device, for how our lock on it stands (R20).
pub(crate) async fn events(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for said in said(tx, organisation, serial).await? {
        let Some((known, (from, until))) = said.status.known().zip(said.believed) else {
            continue;
        };
        for at in [from, until] {
            events.push(Event {
                at,
                late: None,
                what: What::Said(known),
            });
        }
    }
    Ok(events)
}

/// The changes of a device's status in words, for its timeline.
pub(crate) async fn changes(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Vec<(Timestamp, String)>> {
    let said = said(tx, organisation, serial).await?;
    Ok(said
        .into_iter()
        .map(|said| {
            let word = match (&said.status.lock_type, said.status.is_locked) {
                (Some(lock_type), _) => lock_type.as_str().to_owned(),
                (None, Some(true)) => "locked".to_owned(),
                (None, Some(false)) => "not locked".to_owned(),
                (None, None) => "nothing".to_owned(),
            };
            (said.first_at, format!("Apple says {word}"))
        })
        .collect())
}

/// A device's status as it is shown.
pub(crate) async fn view(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<StatusView> {
    let can_be_asked = can_be_asked(tx, organisation).await?;
    let last = said(tx, organisation, serial).await?.pop();
    let row = tx
        .fetch_optional(
            "SELECT status_asked_at, status_problem, status_expected, status_expected_until FROM devices \
             WHERE organisation = $1 AND serial = $2",
            params![organisation.as_str(), serial.as_str()],
        )
        .await?;
    let Some(row) = row else {
        return Ok(StatusView {
            can_be_asked,
            ..StatusView::default()
        });
    };
    let expected: Option<String> = row.get("status_expected")?;
    let expected = expected
        .map(|e| Expected::from_name(&e).ok_or(Error::Corrupt("devices.status_expected")))
        .transpose()?;
    Ok(StatusView {
        can_be_asked,
        last,
        asked_at: row.get("status_asked_at")?,
        problem: row.get("status_problem")?,
        expected: expected.zip(row.get("status_expected_until")?),
    })
}

/// Whether an organisation has an API account.
async fn can_be_asked(tx: &mut Tx<'_>, organisation: &OrganisationId) -> Result<bool> {
    Ok(tx
        .fetch_optional(
            "SELECT organisation FROM business_apis WHERE organisation = $1 AND removed_at IS NULL",
            params![organisation.as_str()],
        )
        .await?
        .is_some())
}

/// What Apple's status is worth to an unlock.
#[derive(Default)]
pub(crate) struct Word {
    /// Whether Apple can be asked.
    pub(crate) can_be_asked: bool,
    /// When it was last read and believed, and what it then said.
    last: Option<(Timestamp, Option<LockStatus>)>,
    /// Something happened to the lock since, or so shortly before that it may not be told of yet.
    is_overtaken: bool,
}

impl Word {
    /// The status that decides which code is tried first (R12): the last one, where it is not old, nor older than what happened
    /// to the lock since.
    pub(crate) fn guide(&self, now: Timestamp) -> Option<LockStatus> {
        let (read_at, known) = self.last?;
        known.filter(|_| !self.is_overtaken && now.since(read_at) <= GUIDES_FOR)
    }

    /// The last status, if it was read at or after a moment, and tells of all that happened to the lock.
    pub(crate) fn read_since(&self, since: Timestamp) -> Option<LockStatus> {
        let (read_at, known) = self.last?;
        known.filter(|_| !self.is_overtaken && read_at >= since)
    }
}

/// What Apple's status of a device is worth to an unlock, in one look: unlocks are many.
pub(crate) async fn word(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Word> {
    let row = tx
        .fetch_optional(
            "SELECT EXISTS (SELECT 1 FROM business_apis WHERE business_apis.organisation = $1 AND removed_at IS NULL) AS can, \
             lock_evidence, lock_at, is_locked, lock_type, more, first_at, last_at, believed_from, believed_at FROM devices \
             LEFT JOIN lock_statuses ON lock_statuses.organisation = $1 AND lock_statuses.id = (SELECT MAX(id) \
             FROM lock_statuses WHERE lock_statuses.organisation = $1 AND lock_statuses.serial = $2) \
             WHERE devices.organisation = $1 AND devices.serial = $2",
            params![organisation.as_str(), serial.as_str()],
        )
        .await?;
    let Some(row) = row else {
        return Ok(Word::default());
    };
    let can_be_asked = row.get("can")?;
    if row.get::<Option<Timestamp>>("last_at")?.is_none() {
        return Ok(Word {
            can_be_asked,
            ..Word::default()
        });
    }
    let said = Said::from_row(&row)?;
    let (evidence, at): (String, Option<Timestamp>) =
        (row.get("lock_evidence")?, row.get("lock_at")?);
    let known = said.status.known();
    let read_at = said.believed.map(|(_, at)| at);
    // Apple accepting a code and then saying that none is on is one story; a lock and then none may be about the time before.
    let lag = match (evidence.as_str(), known) {
        ("turned_off", Some(LockStatus::None)) => Duration::ZERO,
        _ => STATUS_LAGS,
    };
    let overtakes = |read_at: Timestamp| at.is_some_and(|at| read_at < at.plus(lag));
    Ok(Word {
        can_be_asked,
        is_overtaken: evidence != "status" && read_at.is_some_and(overtakes),
        last: read_at.map(|at| (at, known)),
    })
}

/// A lock has ended with one on, or perhaps: Apple's status is to confirm it.
pub(crate) async fn expect_locked(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<()> {
    expect(tx, organisation, serial, Expected::Locked).await
}

/// An unlock has ended: Apple's status is to confirm that no lock is on.
pub(crate) async fn expect_not_locked(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<()> {
    expect(tx, organisation, serial, Expected::NotLocked).await
}

async fn expect(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    expected: Expected,
) -> Result<()> {
    if !can_be_asked(tx, organisation).await? {
        return Ok(());
    }
    let due = tx.now().plus(FIRST_LOOK);
    tx.execute(
        "UPDATE devices SET status_expected = $3, status_expected_until = NULL, status_due_at = $4 \
         WHERE organisation = $1 AND serial = $2",
        params![
            organisation.as_str(),
            serial.as_str(),
            expected.as_str(),
            due
        ],
    )
    .await?;
    Ok(())
}

/// The verbs on Apple's status. See [`Escrow::lock_statuses`].
pub struct LockStatuses<'a>(pub(crate) &'a Escrow);

impl LockStatuses<'_> {
    /// A device's status as far as it is known.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn of_device(
        &self,
        permit: &Permit<Read>,
        serial: &SerialNumber,
    ) -> Result<StatusView> {
        let (organisation, serial) = (permit.organisation().clone(), serial.clone());
        self.0
            .db
            .read(async move |tx| view(tx, &organisation, &serial).await)
            .await
    }

    /// The devices of organisations with an account whose status is to be read now, at most `limit`, and when the next is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn due(&self, limit: u32) -> Result<(Vec<Due>, Option<Timestamp>)> {
        self.0
            .db
            .read(async move |tx| {
                let now = tx.now();
                let (mut due, mut next) = (Vec::new(), None);
                let organisations = tx
                    .fetch_all(
                        "SELECT organisation, retry_at FROM business_apis WHERE removed_at IS NULL ORDER BY organisation",
                        params![],
                    )
                    .await?;
                for row in &organisations {
                    let organisation = OrganisationId::new(row.get::<String>("organisation")?);
                    let retry_at: Option<Timestamp> = row.get("retry_at")?;
                    if let Some(at) = retry_at.filter(|at| *at > now) {
                        next = next.into_iter().chain([at]).min();
                        continue;
                    }
                    let rows = tx
                        .fetch_all(
                            "SELECT serial, status_due_at FROM devices WHERE organisation = $1 \
                             ORDER BY status_due_at LIMIT $2",
                            params![organisation.as_str(), limit],
                        )
                        .await?;
                    for row in &rows {
                        let at: Timestamp = row.get("status_due_at")?;
                        if at > now {
                            next = next.into_iter().chain([at]).min();
                            break;
                        }
                        due.push(Due {
                            organisation: organisation.clone(),
                            serial: row
                                .get::<String>("serial")?
                                .parse()
                                .map_err(|_| Error::Corrupt("devices.serial"))?,
                        });
                    }
                }
                Ok((due, next))
            })
            .await
    }

    /// Puts what came of asking on record, works out how our lock stands, and plans the next time. Whoever was told so by Apple
    /// need not wait for anything else.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record(
        &self,
        organisation: &OrganisationId,
        serial: &SerialNumber,
        reading: Reading,
        settings: StatusSettings,
    ) -> Result<()> {
        let (escrow, organisation, serial) = (self.0.clone(), organisation.clone(), serial.clone());
        self.0
            .db
            .write("lock_statuses.record", async move |tx| {
                record(tx, &escrow, &organisation, &serial, &reading, settings).await
            })
            .await
    }
}

/// Puts what came of asking on record, inside another verb's transaction.
pub(crate) async fn record(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    reading: &Reading,
    settings: StatusSettings,
) -> Result<()> {
    let now = tx.now();
    let before = view(tx, organisation, serial).await?;
    let (problem, known) = match reading {
        Reading::Said { status, .. } => (None, status.known()),
        Reading::Problem(problem) => (Some(*problem), None),
    };
    let row = tx
        .fetch_optional(
            "SELECT status_expected, status_expected_until FROM devices WHERE organisation = $1 AND serial = $2",
            params![organisation.as_str(), serial.as_str()],
        )
        .await?;
    let Some(row) = row else { return Ok(()) };
    let expected: Option<String> = row.get("status_expected")?;
    let expected = expected.as_deref().and_then(Expected::from_name);
    let until: Option<Timestamp> = row.get("status_expected_until")?;
    // What is waited for began with the first look at it.
    let until = until.unwrap_or(now.plus(settings.settles_in));
    let agrees = match (expected, known) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(Expected::Locked), Some(status)) => status != LockStatus::None,
        (Some(Expected::NotLocked), Some(status)) => status == LockStatus::None,
    };
    let given_up = !agrees && now >= until;
    let waits = !agrees && !given_up;
    if let Reading::Said { status, more } = reading {
        let last = before.last.as_ref();
        keep(
            tx,
            organisation,
            serial,
            last,
            status,
            more.as_deref(),
            !waits,
        )
        .await?;
    }
    let next = match (waits, problem) {
        (true, None) => NEXT_LOOK,
        (true, Some(_)) => NEXT_LOOK.max(FIRST_LOOK),
        (false, Some(_)) => AFTER_A_PROBLEM.max(settings.sweep_every / 30),
        (false, None) => settings.sweep_every,
    };
    tx.execute(
        "UPDATE devices SET status_asked_at = $3, status_problem = $4, status_due_at = $5, \
         status_expected = CASE WHEN $6 = 1 THEN status_expected END, \
         status_expected_until = CASE WHEN $6 = 1 THEN CAST($7 AS BIGINT) END WHERE organisation = $1 AND serial = $2",
        params![
            organisation.as_str(),
            serial.as_str(),
            now,
            problem,
            now.plus(next),
            i64::from(waits),
            until
        ],
    )
    .await?;
    refresh(tx, organisation, serial).await?;
    let changed = match reading {
        Reading::Said { status, .. } => {
            before.last.as_ref().map(|said| &said.status) != Some(status)
        }
        Reading::Problem(_) => false,
    };
    let disagrees = (given_up && problem.is_none()).then(|| expected.map_or("", Expected::as_str));
    if changed || disagrees.is_some() {
        let said = match reading {
            Reading::Said { status, .. } => json!({
                "is_locked": status.is_locked,
                "lock_type": status.lock_type.as_ref().map(LockType::as_str),
            }),
            Reading::Problem(problem) => json!(problem),
        };
        let mut entry = audit::Entry::by(&worker(), organisation, "status.read")
            .subject(serial.as_str())
            .detail("said", said);
        if let Some(expected) = disagrees {
            entry = entry.detail("expected", expected).result("disagrees");
        }
        audit::record(tx, escrow, entry).await?;
    }
    Ok(())
}

/// Keeps what Apple said: the same again moves the end of its time, anything else is a row of its own.
async fn keep(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    last: Option<&Said>,
    status: &AppleStatus,
    more: Option<&str>,
    is_believed: bool,
) -> Result<()> {
    let now = tx.now();
    let believed = is_believed.then_some(now);
    let more: Option<String> = more.map(|more| more.chars().take(MORE).collect());
    if last.is_some_and(|said| said.status == *status && said.more == more) {
        tx.execute(
            "UPDATE lock_statuses SET last_at = $3, believed_from = COALESCE(believed_from, $4), \
             believed_at = COALESCE($4, believed_at) WHERE organisation = $1 AND id = (SELECT id FROM lock_statuses \
             WHERE organisation = $1 AND serial = $2 ORDER BY id DESC LIMIT 1)",
            params![organisation.as_str(), serial.as_str(), now, believed],
        )
        .await?;
        return Ok(());
    }
    let id = tx.new_id().to_string();
    tx.execute(
        "INSERT INTO lock_statuses (organisation, id, serial, is_locked, lock_type, more, first_at, last_at, believed_from, believed_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $8)",
        params![
            organisation.as_str(),
            id.as_str(),
            serial.as_str(),
            status.is_locked.map(i64::from),
            status.lock_type.as_ref().map(LockType::as_str),
            more,
            now,
            believed
        ],
    )
    .await?;
    Ok(())
}
