//! How the lines of batches that run enter the queue.

use std::time::Duration;

use super::*;
use crate::approvals::Passed;
use crate::devices;
use crate::duties::Held;
use crate::operations::WorkSettings;
use crate::permit::Permission;
use crate::{commands, locks, people, principals};
use activation_lock::asking::Trigger;

/// Lines that enter in one transaction.
const AT_ONCE: i64 = 50;
/// Between two counts of what has come to its end, for the rate.
const COUNTED_EVERY: Duration = Duration::from_secs(10);

/// How many operations of one batch are live at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(i64);

impl Window {
    /// As many as keep the workers busy until they are next fed: twice those worked on at once, and what the pace lets through in two
    /// seconds. A wish that is not urgent stands behind so many, and no more.
    #[must_use]
    pub fn of(settings: &WorkSettings) -> Self {
        let paced = match settings.pace.per_second {
            rate if rate > 0.0 => (rate * 2.0).min(2_000.0),
            _ => 2_000.0,
        };
        #[expect(clippy::cast_possible_truncation, reason = "two thousand at most")]
        let paced = paced.ceil() as i64;
        Self(paced.max(i64::from(settings.in_flight) * 2))
    }
}

/// What came of a look at the batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fed {
    /// Lines that have entered the queue, or were found not to be possible any more.
    pub begun: usize,
    /// Some batch runs, so that there will be something to do soon.
    pub some_run: bool,
}

impl Batches<'_> {
    /// Lets lines of the batch whose turn it is enter the queue; for the holder of the duty. Each batch has its turn, however long the
    /// others are.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn feed(&self, held: &Held, window: Window) -> Result<Fed> {
        let (escrow, held) = (self.0.clone(), held.clone());
        let fed = self
            .0
            .db
            .write("batches.feed", async move |tx| {
                if !held.is_still_so(tx).await? {
                    return Ok(Fed::default());
                }
                feed(tx, &escrow, window).await
            })
            .await?;
        if fed.begun > 0 {
            self.0.operations().wake();
            self.0.tell(News::Commands);
        }
        Ok(fed)
    }
}

async fn feed(tx: &mut Tx<'_>, escrow: &Escrow, window: Window) -> Result<Fed> {
    let row = tx
        .fetch_optional(
            select_batches!("WHERE state = 'running' ORDER BY fed_at, id LIMIT 1"),
            params![],
        )
        .await?;
    let Some(row) = row else {
        return Ok(Fed::default());
    };
    let batch = Batch::from_row(&row)?;
    let some_run = true;
    if !is_allowed(tx, &batch).await? {
        batch
            .turn_to(tx, BatchState::Paused, Some(HeldFor::NotAllowed))
            .await?;
        let entry = batch
            .entry("batch.pause")
            .result(HeldFor::NotAllowed.as_str());
        audit::record(tx, escrow, entry).await?;
        return Ok(Fed { begun: 0, some_run });
    }
    let live = live(tx, &batch).await?;
    let room = (window.0 - live).clamp(0, AT_ONCE);
    let lines = tx
        .fetch_all(
            "SELECT line, serial FROM batch_lines WHERE organisation = $1 AND batch = $2 AND state = $3 ORDER BY line LIMIT $4",
            params![
                batch.organisation.as_str(),
                batch.id.as_str(),
                LineState::Ready.as_str(),
                room.max(1)
            ],
        )
        .await?;
    if lines.is_empty() && live == 0 {
        batch.turn_to(tx, BatchState::Ended, None).await?;
        audit::record(tx, escrow, batch.entry("batch.end")).await?;
        return Ok(Fed { begun: 0, some_run });
    }
    let room = usize::try_from(room).unwrap_or(0);
    let mut begun = 0;
    for row in lines.iter().take(room) {
        let serial: SerialNumber = row
            .get::<String>("serial")?
            .parse()
            .map_err(|_| Error::Corrupt("batch_lines.serial"))?;
        let (state, operation) = begin(tx, escrow, &batch, &serial).await?;
        tx.execute(
            "UPDATE batch_lines SET state = $4, operation = $5 WHERE organisation = $1 AND batch = $2 AND line = $3",
            params![
                batch.organisation.as_str(),
                batch.id.as_str(),
                row.get::<i64>("line")?,
                state.as_str(),
                operation.as_deref()
            ],
        )
        .await?;
        begun += 1;
    }
    note_turn(tx, &batch).await?;
    Ok(Fed { begun, some_run })
}

/// Does what a line wants, where that is still possible.
async fn begin(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    batch: &Batch,
    serial: &SerialNumber,
) -> Result<(LineState, Option<String>)> {
    let (organisation, actor) = (&batch.organisation, batch.actor());
    if batch.action == BatchAction::Refresh {
        let asked = commands::ask_soon(tx, escrow, organisation, serial, Trigger::Person).await?;
        let entry = Entry::by(&actor, organisation, "device.refresh")
            .subject(serial.as_str())
            .detail("enrollments", asked);
        audit::record(tx, escrow, entry).await?;
        let state = if asked == 0 {
            LineState::NotEnrolled
        } else {
            LineState::Asked
        };
        return Ok((state, None));
    }
    if operations::live_of_serial(tx, serial).await?.is_some() {
        return Ok((LineState::InProgress, None));
    }
    if batch.action == BatchAction::Unlock {
        if devices::identity_for_unlock(tx, organisation, serial)
            .await?
            .is_none()
        {
            return Ok((LineState::NoProductType, None));
        }
        let wish = operations::Wish {
            serial,
            reason: &batch.reason,
            requester: batch.requester(),
            insists: batch.insists,
            urgent: false,
            batch: Some(&batch.id),
        };
        let id = operations::insert(tx, escrow, &actor, organisation, &wish, &Passed::Free).await?;
        return Ok((LineState::Asked, Some(id)));
    }
    if crate::server_tokens::listing_of(tx, organisation, serial)
        .await?
        .is_empty()
    {
        return Ok((LineState::NotAssigned, None));
    }
    let wish = locks::Wish {
        serial,
        reason: &batch.reason,
        requester: batch.requester(),
        message: batch.message.as_deref(),
        server_token: None,
        override_reason: None,
        urgent: false,
        batch: Some(&batch.id),
    };
    let id = locks::insert(tx, escrow, &actor, organisation, &wish, &Passed::Free).await?;
    Ok((LineState::Asked, Some(id)))
}

/// Whether who started it may still do that: a batch goes on for days, and people leave.
async fn is_allowed(tx: &mut Tx<'_>, batch: &Batch) -> Result<bool> {
    if let Some(token) = &batch.token
        && principals::is_revoked(tx, token).await?
    {
        return Ok(false);
    }
    let Some(human) = &batch.human else {
        return Ok(true);
    };
    let permission = match batch.action {
        BatchAction::Unlock => Permission::Unlock,
        BatchAction::Lock => Permission::Lock,
        BatchAction::Refresh => Permission::Refresh,
    };
    let may = people::grants_of(tx, human).await?;
    Ok(
        may.within(&batch.organisation).allow(permission)
            && !people::is_shut_out(tx, human).await?,
    )
}

async fn live(tx: &mut Tx<'_>, batch: &Batch) -> Result<i64> {
    let row = tx
        .fetch_one(
            "SELECT COUNT(*) AS live FROM operations WHERE organisation = $1 AND batch = $2 \
             AND state IN ('queued', 'running', 'waiting')",
            params![batch.organisation.as_str(), batch.id.as_str()],
        )
        .await?;
    row.get("live")
}

/// It has had its turn, and stands behind all others, also where that was in one millisecond. Now and then, what has come to its end is counted.
async fn note_turn(tx: &mut Tx<'_>, batch: &Batch) -> Result<()> {
    let now = tx.now();
    let of = || params![batch.organisation.as_str(), batch.id.as_str(), now];
    tx.execute(
        "UPDATE batches SET fed_at = (SELECT CASE WHEN MAX(others.fed_at) >= $3 THEN MAX(others.fed_at) + 1 ELSE $3 END \
         FROM batches AS others WHERE others.state = 'running') WHERE organisation = $1 AND id = $2",
        of(),
    )
    .await?;
    let row = tx
        .fetch_one(
            "SELECT counted_at FROM batches WHERE organisation = $1 AND id = $2",
            params![batch.organisation.as_str(), batch.id.as_str()],
        )
        .await?;
    let counted_at: Option<Timestamp> = row.get("counted_at")?;
    if counted_at.is_none_or(|at| now.since(at) >= COUNTED_EVERY) {
        tx.execute(
            "UPDATE batches SET before_at = counted_at, counted_before = counted, counted_at = $3, \
             counted = (SELECT COUNT(*) FROM batch_lines WHERE batch_lines.organisation = $1 AND batch_lines.batch = $2 \
             AND batch_lines.state <> 'ready') - (SELECT COUNT(*) FROM operations WHERE operations.organisation = $1 \
             AND operations.batch = $2 AND operations.state IN ('queued', 'running', 'waiting')) \
             WHERE organisation = $1 AND id = $2",
            of(),
        )
        .await?;
    }
    Ok(())
}
