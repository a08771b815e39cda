//! Batches and lines as they are shown.

use super::*;
use crate::db::Row;
use crate::locks;
use crate::operations::Kind;

/// A batch, and how it stands.
#[derive(Clone, Debug)]
pub struct BatchView {
    /// Its identifier.
    pub id: String,
    /// Whose it is.
    pub organisation: OrganisationId,
    /// What is done to each device.
    pub action: BatchAction,
    /// How it stands.
    pub state: BatchState,
    /// Why it was paused, when no person did it.
    pub held_for: Option<HeldFor>,
    /// Why it is wanted.
    pub reason: String,
    /// The real person behind it.
    pub requester: String,
    /// Of locks: what the screens are to show.
    pub message: Option<String>,
    /// Of unlocks: also where Apple says that a device is not locked.
    pub insists: bool,
    /// Who made it.
    pub created_by: String,
    /// Who started it; who made it, until then.
    pub requested_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// When it ended or was cancelled.
    pub ended_at: Option<Timestamp>,
    /// How many lines it has.
    pub lines: i64,
    /// How many of them stand how.
    pub counts: Vec<Count>,
    /// Lines a second that came to their end lately; nothing before there is anything to measure.
    pub rate: Option<f64>,
}

/// So many lines stand so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// A [`LineState`], or where a line has an operation, that one's [`StateName`].
    pub word: &'static str,
    /// How many.
    pub lines: i64,
}

impl BatchView {
    /// Lines that stand so.
    #[must_use]
    pub fn count(&self, word: &str) -> i64 {
        let found = self.counts.iter().find(|count| count.word == word);
        found.map_or(0, |count| count.lines)
    }

    /// Lines that will be done.
    #[must_use]
    pub fn ready(&self) -> i64 {
        self.count(LineState::Ready.as_str())
    }

    /// Lines that stand in the queue or are worked on.
    #[must_use]
    pub fn under_way(&self) -> i64 {
        let live = [StateName::Queued, StateName::Running, StateName::Waiting];
        live.iter().map(|state| self.count(state.as_str())).sum()
    }

    /// Lines that have come to their end, those that were left out among them.
    #[must_use]
    pub fn done(&self) -> i64 {
        self.lines - self.ready() - self.under_way()
    }
}

/// A line.
#[derive(Clone, Debug)]
pub struct LineView {
    /// Its number, from 1.
    pub line: i64,
    /// The device; `None` where none was named.
    pub serial: Option<SerialNumber>,
    /// How it stands.
    pub stands: Stands,
    /// Its unlock or lock.
    pub operation: Option<String>,
    /// When that one ended.
    pub ended_at: Option<Timestamp>,
}

/// How a line stands.
#[derive(Clone, Debug)]
pub enum Stands {
    /// By itself.
    Line(LineState),
    /// As its unlock does, which who is named here cancelled.
    Unlock(StateName, operations::Details, Option<String>),
    /// As its lock does.
    Lock(StateName, locks::Details, Option<String>),
}

impl Stands {
    /// The word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Line(state) => state.as_str(),
            Self::Unlock(state, ..) | Self::Lock(state, ..) => state.as_str(),
        }
    }
}

macro_rules! select_views {
    ($rest:literal) => {
        concat!(
            "SELECT organisation, id, action, state, held_for, reason, requester, message, insists, created_by, requested_by, ",
            "created_at, started_at, ended_at, lines, counted_at, counted, before_at, counted_before FROM batches ",
            $rest
        )
    };
}

fn from_row(row: &Row) -> Result<BatchView> {
    let requested_by: String = row.get("requested_by")?;
    let held_for: Option<String> = row.get("held_for")?;
    let state = BatchState::from_name(&row.get::<String>("state")?)
        .ok_or(Error::Corrupt("batches.state"))?;
    let counted_at: Option<Timestamp> = row.get("counted_at")?;
    let before_at: Option<Timestamp> = row.get("before_at")?;
    let counted = row.get::<i64>("counted")? - row.get::<i64>("counted_before")?;
    let rate = before_at.zip(counted_at).and_then(|(from, until)| {
        let seconds = until.since(from).as_secs_f64();
        let is_moving = state == BatchState::Running && seconds > 0.0 && counted > 0;
        #[expect(clippy::cast_precision_loss, reason = "so many lines there are not")]
        is_moving.then(|| counted as f64 / seconds)
    });
    Ok(BatchView {
        id: row.get("id")?,
        organisation: OrganisationId::new(row.get::<String>("organisation")?),
        action: action_of(row)?,
        state,
        held_for: held_for.as_deref().and_then(HeldFor::from_name),
        reason: row.get("reason")?,
        requester: row
            .get::<Option<String>>("requester")?
            .unwrap_or_else(|| requested_by.clone()),
        message: row.get("message")?,
        insists: row.get("insists")?,
        created_by: row.get("created_by")?,
        requested_by,
        created_at: row.get("created_at")?,
        started_at: row.get("started_at")?,
        ended_at: row.get("ended_at")?,
        lines: row.get("lines")?,
        counts: Vec::new(),
        rate,
    })
}

pub(super) async fn view(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    id: &str,
) -> Result<Option<BatchView>> {
    let row = tx
        .fetch_optional(
            select_views!("WHERE organisation = $1 AND id = $2"),
            params![organisation.as_str(), id],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut view = from_row(&row)?;
    view.counts = counts(tx, organisation, id).await?;
    Ok(Some(view))
}

pub(super) async fn known(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    id: &str,
) -> Result<BatchView> {
    view(tx, organisation, id)
        .await?
        .ok_or(Error::Corrupt("batches.id"))
}

pub(super) async fn list(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    before: Option<&str>,
    limit: u32,
) -> Result<Vec<BatchView>> {
    let rows = tx
        .fetch_all(
            select_views!(
                "WHERE organisation = $1 AND ($2 IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"
            ),
            params![organisation.as_str(), before, i64::from(limit)],
        )
        .await?;
    let mut views = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut view = from_row(row)?;
        view.counts = counts(tx, organisation, &view.id).await?;
        views.push(view);
    }
    Ok(views)
}

/// How the lines of a batch stand: from two indexes, whatever their number.
async fn counts(tx: &mut Tx<'_>, organisation: &OrganisationId, id: &str) -> Result<Vec<Count>> {
    let rows = tx
        .fetch_all(
            "SELECT state, COUNT(*) AS lines FROM batch_lines WHERE organisation = $1 AND batch = $2 \
             GROUP BY state ORDER BY state",
            params![organisation.as_str(), id],
        )
        .await?;
    let mut counts = Vec::new();
    let mut asked = 0;
    for row in &rows {
        let state: LineState = row
            .get::<String>("state")?
            .parse()
            .map_err(|_| Error::Corrupt("batch_lines.state"))?;
        let lines: i64 = row.get("lines")?;
        if state == LineState::Asked {
            asked = lines;
        } else {
            counts.push(Count {
                word: state.as_str(),
                lines,
            });
        }
    }
    let rows = tx
        .fetch_all(
            "SELECT state, COUNT(*) AS lines FROM operations WHERE organisation = $1 AND batch = $2 \
             GROUP BY state ORDER BY state",
            params![organisation.as_str(), id],
        )
        .await?;
    for row in &rows {
        let state: StateName = row
            .get::<String>("state")?
            .parse()
            .map_err(|_| Error::Corrupt("operations.state"))?;
        let lines: i64 = row.get("lines")?;
        asked -= lines;
        // A word of both is one: at an end a device is as it would have been left out.
        match counts.iter_mut().find(|count| count.word == state.as_str()) {
            Some(count) => count.lines += lines,
            None => counts.push(Count {
                word: state.as_str(),
                lines,
            }),
        }
    }
    // Devices that were asked for their code have no operation.
    if asked > 0 {
        let word = LineState::Asked.as_str();
        counts.push(Count { word, lines: asked });
    }
    Ok(counts)
}

macro_rules! select_lines {
    ($rest:literal) => {
        concat!(
            "SELECT line, batch_lines.serial, batch_lines.state AS line_state, operation, kind, operations.state AS state, ",
            "details, cancelled_by, ended_at FROM batch_lines LEFT JOIN operations ON operations.organisation = batch_lines.organisation ",
            "AND operations.id = operation WHERE batch_lines.organisation = $1 AND batch_lines.batch = $2 AND line > $3 ",
            $rest
        )
    };
}

pub(super) async fn lines(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    id: &str,
    state: Option<&str>,
    after: i64,
    limit: i64,
) -> Result<Vec<LineView>> {
    let of = params![organisation.as_str(), id, after, limit];
    let rows = match state {
        None => {
            tx.fetch_all(select_lines!("ORDER BY line LIMIT $4"), of)
                .await?
        }
        Some(word) => {
            let of = params![organisation.as_str(), id, after, limit, word];
            tx.fetch_all(
                select_lines!(
                    "AND COALESCE(operations.state, batch_lines.state) = $5 ORDER BY line LIMIT $4"
                ),
                of,
            )
            .await?
        }
    };
    rows.iter().map(line).collect()
}

fn line(row: &Row) -> Result<LineView> {
    let serial: Option<String> = row.get("serial")?;
    Ok(LineView {
        line: row.get("line")?,
        serial: serial
            .map(|serial| serial.parse())
            .transpose()
            .map_err(|_| Error::Corrupt("batch_lines.serial"))?,
        stands: stands(row)?,
        operation: row.get("operation")?,
        ended_at: row.get("ended_at")?,
    })
}

fn stands(row: &Row) -> Result<Stands> {
    let Some(kind) = row.get::<Option<String>>("kind")? else {
        let state: String = row.get("line_state")?;
        let state = state
            .parse()
            .map_err(|_| Error::Corrupt("batch_lines.state"))?;
        return Ok(Stands::Line(state));
    };
    let (state, details): (String, String) = (row.get("state")?, row.get("details")?);
    let state = state
        .parse()
        .map_err(|_| Error::Corrupt("operations.state"))?;
    let cancelled_by = row.get("cancelled_by")?;
    let corrupt = |_| Error::Corrupt("operations.details");
    Ok(match Kind::from_name(&kind)? {
        Kind::Unlock => {
            let details = serde_json::from_str(&details).map_err(corrupt)?;
            Stands::Unlock(state, details, cancelled_by)
        }
        Kind::Lock => {
            let details = serde_json::from_str(&details).map_err(corrupt)?;
            Stands::Lock(state, details, cancelled_by)
        }
    })
}
