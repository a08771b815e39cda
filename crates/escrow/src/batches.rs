//! Batches: one wish for many devices.
//!
//! A batch is a draft first: its lines are brought in stretches, each checked as it comes, and can be looked at before anything runs.
//! Starting it is the one guarded verb, and takes one approval for all of it. From then on [`Batches::feed`] lets its lines enter the
//! queue a few at a time, so that a single wish never stands behind a whole fleet, and a batch that is paused begins nothing more. A line
//! and its operation are written in one transaction: whatever is killed, no line enters twice.

use activation_lock::batch::{BatchAction, LineState};
use activation_lock::device::SerialNumber;
use activation_lock::operation::StateName;
use activation_lock::time::Timestamp;

use crate::approvals::{self, Action, Guard};
use crate::audit::{self, Entry};
use crate::db::{Tx, params};
use crate::names::names;
use crate::news::News;
use crate::operations::{self, Key};
use crate::permit::{
    Actor, Grants, Lock, OrganisationId, Permit, PrincipalKind, Proof, Read, Refresh, Right, Unlock,
};
use crate::{Error, Escrow, Result};

mod check;
mod feed;
mod view;

pub use feed::{Fed, Window};
pub use view::{BatchView, Count, LineView, Stands};

/// The most lines of a batch.
pub const MOST_LINES: i64 = 200_000;
/// The most lines that are brought at a time.
pub const MOST_AT_ONCE: usize = 1_000;

/// The right that a batch of one kind takes.
pub trait Bulk: Right {
    /// What such a batch does.
    const ACTION: BatchAction;
}

impl Bulk for Unlock {
    const ACTION: BatchAction = BatchAction::Unlock;
}

impl Bulk for Lock {
    const ACTION: BatchAction = BatchAction::Lock;
}

impl Bulk for Refresh {
    const ACTION: BatchAction = BatchAction::Refresh;
}

names! {
    /// How a batch stands.
    BatchState {
        /// Its lines are brought and looked at; nothing of it runs.
        Draft = "draft",
        /// Its lines enter the queue.
        Running = "running",
        /// No further line enters the queue.
        Paused = "paused",
        /// No further line ever does.
        Cancelled = "cancelled",
        /// Every line has come to its end.
        Ended = "ended",
    }
}

names! {
    /// Why a batch was paused, when no person did it.
    HeldFor {
        /// The database was restored or copied: nothing fires by itself (R21).
        Restored = "restored",
        /// Whoever started it may not do that any more.
        NotAllowed = "not_allowed",
    }
}

/// What a person wants done.
#[derive(Clone, Debug)]
pub struct NewBatch {
    /// Why, in the person's words; on the audit trail.
    pub reason: String,
    /// The real person behind it; whoever starts it, when nobody is named.
    pub requester: Option<String>,
    /// Of locks: what the screens are to show.
    pub message: Option<String>,
    /// Of unlocks: also where Apple says that a device is not locked (R12).
    pub insists: bool,
    /// Makes asking twice harmless.
    pub idempotency: Option<Key>,
}

/// What came of wanting a batch.
#[derive(Clone, Debug)]
pub enum Created {
    /// It is a draft.
    New(BatchView),
    /// The same was wanted before with the same key: it is this one.
    Same(BatchView),
    /// The key was used for another request.
    KeyReused,
}

/// What came of bringing lines, or of changing how a batch stands.
#[derive(Clone, Debug)]
pub enum Changed {
    /// It is so, by this or before it.
    Done(BatchView),
    /// It is in a state in which that cannot be done.
    NotNow(BatchView),
    /// Lines: those before these are not there.
    Gap(BatchView),
    /// Lines: there would be more than [`MOST_LINES`], or these are more than [`MOST_AT_ONCE`].
    TooMany(BatchView),
    /// Start: no line of it could be done.
    Nothing(BatchView),
    /// No such batch of that kind in this organisation.
    Unknown,
}

/// The verbs on batches. See [`Escrow::batches`].
pub struct Batches<'a>(pub(crate) &'a Escrow);

impl Escrow {
    /// Wishes for many devices.
    #[must_use]
    pub fn batches(&self) -> Batches<'_> {
        Batches(self)
    }

    /// Waits until a batch may have something to do.
    pub async fn batches_woken(&self) {
        self.told(News::Batches).await;
    }
}

impl Batches<'_> {
    /// Makes a draft without lines.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn create<P: Bulk>(&self, permit: &Permit<P>, new: NewBatch) -> Result<Created> {
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let result = self
            .0
            .db
            .write("batches.create", async move |tx| {
                confirmed.confirm(tx).await?;
                create(tx, &escrow, &confirmed, &new).await
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Brings lines of a draft, each a serial number, the first being line `first` (from 1), [`MOST_AT_ONCE`] at most. Lines that are
    /// there already are left as they are, so that bringing a stretch twice is harmless. Each is checked as it comes.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn add_lines<P: Bulk>(
        &self,
        permit: &Permit<P>,
        id: &str,
        first: i64,
        texts: Vec<String>,
    ) -> Result<Changed> {
        let (confirmed, id) = (permit.clone(), id.to_owned());
        let result = self
            .0
            .db
            .write("batches.add_lines", async move |tx| {
                confirmed.confirm(tx).await?;
                let organisation = confirmed.organisation();
                let Some(batch) = Batch::load(tx, organisation, &id, P::ACTION).await? else {
                    return Ok(Changed::Unknown);
                };
                if batch.state != BatchState::Draft {
                    return batch.as_it_is(tx, Changed::NotNow).await;
                }
                if first < 1 || first > batch.lines + 1 {
                    return batch.as_it_is(tx, Changed::Gap).await;
                }
                let count = i64::try_from(texts.len()).unwrap_or(i64::MAX);
                let last = first.saturating_add(count) - 1;
                if last > MOST_LINES || texts.len() > MOST_AT_ONCE {
                    return batch.as_it_is(tx, Changed::TooMany).await;
                }
                let known = usize::try_from(batch.lines + 1 - first).unwrap_or(0);
                if let Some(fresh) = texts.get(known..).filter(|fresh| !fresh.is_empty()) {
                    check::insert(tx, &batch, fresh).await?;
                    tx.execute(
                        "UPDATE batches SET lines = $3 WHERE organisation = $1 AND id = $2",
                        params![organisation.as_str(), id.as_str(), last],
                    )
                    .await?;
                }
                let view = view::known(tx, organisation, &id).await?;
                Ok(Changed::Done(view))
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Starts a draft. One approval is for all of it: for so many devices, in this batch, whose lines nobody can change any more.
    ///
    /// # Errors
    /// When the permit no longer holds, it takes others, or the database fails.
    pub async fn start<P: Bulk>(&self, permit: &Permit<P>, id: &str) -> Result<Changed> {
        let (escrow, confirmed, id) = (self.0.clone(), permit.clone(), id.to_owned());
        let result = self
            .0
            .db
            .write("batches.start", async move |tx| {
                confirmed.confirm(tx).await?;
                start(tx, &escrow, &confirmed, &id).await
            })
            .await;
        let started = self.0.audit_refusal(permit, result).await;
        self.0.tell(News::Batches);
        started
    }

    /// Pauses it: no further line enters the queue. What is there goes on to its end.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn pause<P: Bulk>(&self, permit: &Permit<P>, id: &str) -> Result<Changed> {
        self.turn(
            permit,
            id,
            "batch.pause",
            &[BatchState::Running],
            BatchState::Paused,
        )
        .await
    }

    /// Lets one that is paused go on.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn resume<P: Bulk>(&self, permit: &Permit<P>, id: &str) -> Result<Changed> {
        self.turn(
            permit,
            id,
            "batch.resume",
            &[BatchState::Paused],
            BatchState::Running,
        )
        .await
    }

    /// Cancels it, whatever it waits for. Its operations that are under way end as one that is cancelled does: an answer in flight wins.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn cancel<P: Bulk>(&self, permit: &Permit<P>, id: &str) -> Result<Changed> {
        let from = &[BatchState::Draft, BatchState::Running, BatchState::Paused];
        self.turn(permit, id, "batch.cancel", from, BatchState::Cancelled)
            .await
    }

    async fn turn<P: Bulk>(
        &self,
        permit: &Permit<P>,
        id: &str,
        action: &'static str,
        from: &'static [BatchState],
        to: BatchState,
    ) -> Result<Changed> {
        let (escrow, confirmed, id) = (self.0.clone(), permit.clone(), id.to_owned());
        let result = self
            .0
            .db
            .write("batches.turn", async move |tx| {
                confirmed.confirm(tx).await?;
                let organisation = confirmed.organisation();
                let Some(batch) = Batch::load(tx, organisation, &id, P::ACTION).await? else {
                    return Ok(Changed::Unknown);
                };
                if batch.state == to {
                    return batch.as_it_is(tx, Changed::Done).await;
                }
                if !from.contains(&batch.state) {
                    return batch.as_it_is(tx, Changed::NotNow).await;
                }
                let mut entry = confirmed.entry(action).subject(&id);
                if to == BatchState::Running {
                    let by = confirmed.actor();
                    // What was approved was approved for whoever started it.
                    let ready = batch.count(tx, LineState::Ready).await?;
                    if batch.principal != by.principal()
                        && let Some(guard) = batch.guard(ready)
                    {
                        let passed = approvals::pass(tx, &escrow, &confirmed, &guard).await?;
                        entry = passed.mark(entry);
                    }
                    batch.hand_over(tx, by).await?;
                }
                batch.turn_to(tx, to, None).await?;
                audit::record(tx, &escrow, entry).await?;
                if to == BatchState::Cancelled {
                    let by = confirmed.actor();
                    operations::cancel_of_batch(tx, &escrow, organisation, &id, by).await?;
                }
                let view = view::known(tx, organisation, &id).await?;
                Ok(Changed::Done(view))
            })
            .await;
        let turned = self.0.audit_refusal(permit, result).await;
        self.0.tell(News::Batches);
        self.0.operations().wake();
        turned
    }

    /// Finds a batch among the organisations that an actor may act in, and what it does.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn locate(
        &self,
        actor: &Actor,
        id: &str,
    ) -> Result<Option<(OrganisationId, BatchAction)>> {
        let (id, grants) = (id.to_owned(), actor.grants().clone());
        self.0
            .db
            .read(async move |tx| {
                let rows = tx
                    .fetch_all(
                        "SELECT organisation, action FROM batches WHERE id = $1",
                        params![id.as_str()],
                    )
                    .await?;
                for row in rows {
                    let organisation = OrganisationId::new(row.get::<String>("organisation")?);
                    if grants.reach(&organisation) {
                        return Ok(Some((organisation, action_of(&row)?)));
                    }
                }
                Ok(None)
            })
            .await
    }

    /// A batch, with how its lines stand; `None` when there is none of that identifier in the organisation.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, permit: &Permit<Read>, id: &str) -> Result<Option<BatchView>> {
        let (organisation, id) = (permit.organisation().clone(), id.to_owned());
        self.0
            .db
            .read(async move |tx| view::view(tx, &organisation, &id).await)
            .await
    }

    /// The batches of an organisation, newest first; `before` is the identifier of the last one seen.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(
        &self,
        permit: &Permit<Read>,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Vec<BatchView>> {
        let organisation = permit.organisation().clone();
        let before = before.map(str::to_owned);
        self.0
            .db
            .read(async move |tx| view::list(tx, &organisation, before.as_deref(), limit).await)
            .await
    }

    /// Lines in their order, after line `after` (0 for the first), all or those with one word for how they stand; 500 at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lines(
        &self,
        permit: &Permit<Read>,
        id: &str,
        state: Option<&str>,
        after: i64,
        limit: i64,
    ) -> Result<Vec<LineView>> {
        let (organisation, id) = (permit.organisation().clone(), id.to_owned());
        let state = state.map(str::to_owned);
        let limit = limit.clamp(1, 500);
        self.0
            .db
            .read(async move |tx| {
                view::lines(tx, &organisation, &id, state.as_deref(), after, limit).await
            })
            .await
    }
}

async fn create<P: Bulk>(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    permit: &Permit<P>,
    new: &NewBatch,
) -> Result<Created> {
    let (organisation, actor) = (permit.organisation(), permit.actor());
    let route = format!("batch {}", P::ACTION.as_str());
    let principal = actor.principal();
    if let Some(key) = &new.idempotency {
        match operations::find_key(tx, organisation, principal, &route, key).await? {
            Some(operations::Found::Same { operation }) => {
                return Ok(Created::Same(
                    view::known(tx, organisation, &operation).await?,
                ));
            }
            Some(operations::Found::OtherBody) => return Ok(Created::KeyReused),
            None => {}
        }
    }
    let (now, id) = (tx.now(), tx.new_id().to_string());
    tx.execute(
        "INSERT INTO batches (organisation, id, action, state, reason, requester, message, insists, created_by, principal, \
         principal_kind, requested_by, human, token, lines, created_at, fed_at, counted, counted_before) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $9, $12, $13, 0, $14, $14, 0, 0)",
        params![
            organisation.as_str(),
            id.as_str(),
            P::ACTION.as_str(),
            BatchState::Draft.as_str(),
            new.reason.as_str(),
            new.requester.as_deref(),
            new.message.as_deref(),
            i64::from(new.insists),
            actor.name(),
            principal,
            actor.kind().as_str(),
            actor.human(),
            token_of(actor),
            now
        ],
    )
    .await?;
    if let Some(key) = &new.idempotency {
        operations::keep_key(tx, organisation, principal, &route, key, &id).await?;
    }
    let entry = permit
        .entry("batch.create")
        .subject(&id)
        .reason(&new.reason)
        .detail("action", P::ACTION.as_str());
    audit::record(tx, escrow, entry).await?;
    Ok(Created::New(view::known(tx, organisation, &id).await?))
}

async fn start<P: Bulk>(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    permit: &Permit<P>,
    id: &str,
) -> Result<Changed> {
    let (organisation, actor) = (permit.organisation(), permit.actor());
    let Some(batch) = Batch::load(tx, organisation, id, P::ACTION).await? else {
        return Ok(Changed::Unknown);
    };
    match batch.state {
        BatchState::Draft => {}
        // The answer to the first time may have been lost.
        BatchState::Running | BatchState::Paused | BatchState::Ended => {
            return batch.as_it_is(tx, Changed::Done).await;
        }
        BatchState::Cancelled => return batch.as_it_is(tx, Changed::NotNow).await,
    }
    let ready = batch.count(tx, LineState::Ready).await?;
    if ready == 0 {
        return batch.as_it_is(tx, Changed::Nothing).await;
    }
    let mut entry = permit
        .entry("batch.start")
        .subject(id)
        .reason(&batch.reason)
        .detail("action", P::ACTION.as_str())
        .detail("devices", ready)
        .detail("lines", batch.lines);
    if let Some(guard) = batch.guard(ready) {
        entry = approvals::pass(tx, escrow, permit, &guard)
            .await?
            .mark(entry);
    }
    let now = tx.now();
    tx.execute(
        "UPDATE batches SET state = $3, started_at = $4 WHERE organisation = $1 AND id = $2",
        params![organisation.as_str(), id, BatchState::Running.as_str(), now],
    )
    .await?;
    batch.hand_over(tx, actor).await?;
    audit::record(tx, escrow, entry).await?;
    Ok(Changed::Done(view::known(tx, organisation, id).await?))
}

/// After a restore or a copy of the database no batch goes on by itself (R21).
pub(crate) async fn hold_after_restore(tx: &mut Tx<'_>) -> Result<()> {
    tx.execute(
        "UPDATE batches SET state = $1, held_for = $2 WHERE state = $3",
        params![
            BatchState::Paused.as_str(),
            HeldFor::Restored.as_str(),
            BatchState::Running.as_str()
        ],
    )
    .await?;
    Ok(())
}

fn token_of(actor: &Actor) -> Option<&str> {
    match actor.proof() {
        Proof::Token(token) => Some(token),
        _ => None,
    }
}

fn action_of(row: &crate::db::Row) -> Result<BatchAction> {
    let action: String = row.get("action")?;
    action.parse().map_err(|_| Error::Corrupt("batches.action"))
}

/// One row of `batches`.
struct Batch {
    organisation: OrganisationId,
    id: String,
    action: BatchAction,
    state: BatchState,
    reason: String,
    requester: Option<String>,
    message: Option<String>,
    insists: bool,
    principal: String,
    principal_kind: PrincipalKind,
    requested_by: String,
    human: Option<String>,
    token: Option<String>,
    lines: i64,
}

macro_rules! select_batches {
    ($rest:literal) => {
        concat!(
            "SELECT organisation, id, action, state, reason, requester, message, insists, principal, principal_kind, requested_by, ",
            "human, token, lines FROM batches ",
            $rest
        )
    };
}
use select_batches;

impl Batch {
    fn from_row(row: &crate::db::Row) -> Result<Self> {
        let kind = match row.get::<String>("principal_kind")?.as_str() {
            "token" => PrincipalKind::Token,
            "person" => PrincipalKind::Person,
            "system" => PrincipalKind::System,
            _ => return Err(Error::Corrupt("batches.principal_kind")),
        };
        Ok(Self {
            organisation: OrganisationId::new(row.get::<String>("organisation")?),
            id: row.get("id")?,
            action: action_of(row)?,
            state: BatchState::from_name(&row.get::<String>("state")?)
                .ok_or(Error::Corrupt("batches.state"))?,
            reason: row.get("reason")?,
            requester: row.get("requester")?,
            message: row.get("message")?,
            insists: row.get("insists")?,
            principal: row.get("principal")?,
            principal_kind: kind,
            requested_by: row.get("requested_by")?,
            human: row.get("human")?,
            token: row.get("token")?,
            lines: row.get("lines")?,
        })
    }

    async fn load(
        tx: &mut Tx<'_>,
        organisation: &OrganisationId,
        id: &str,
        action: BatchAction,
    ) -> Result<Option<Self>> {
        tx.fetch_optional(
            select_batches!("WHERE organisation = $1 AND id = $2 AND action = $3"),
            params![organisation.as_str(), id, action.as_str()],
        )
        .await?
        .map(|row| Self::from_row(&row))
        .transpose()
    }

    async fn as_it_is(
        &self,
        tx: &mut Tx<'_>,
        of: impl Fn(BatchView) -> Changed,
    ) -> Result<Changed> {
        Ok(of(view::known(tx, &self.organisation, &self.id).await?))
    }

    async fn count(&self, tx: &mut Tx<'_>, state: LineState) -> Result<i64> {
        let row = tx
            .fetch_one(
                "SELECT COUNT(*) AS lines FROM batch_lines WHERE organisation = $1 AND batch = $2 AND state = $3",
                params![self.organisation.as_str(), self.id.as_str(), state.as_str()],
            )
            .await?;
        row.get("lines")
    }

    async fn turn_to(&self, tx: &mut Tx<'_>, to: BatchState, why: Option<HeldFor>) -> Result<()> {
        let now = tx.now();
        let is_over = matches!(to, BatchState::Cancelled | BatchState::Ended);
        tx.execute(
            "UPDATE batches SET state = $3, held_for = $4, ended_at = $5 WHERE organisation = $1 AND id = $2",
            params![
                self.organisation.as_str(),
                self.id.as_str(),
                to.as_str(),
                why.map(HeldFor::as_str),
                is_over.then_some(now)
            ],
        )
        .await?;
        Ok(())
    }

    /// What it takes to have so many of its lines done, where that can take other people.
    fn guard(&self, ready: i64) -> Option<Guard> {
        let action = match self.action {
            BatchAction::Unlock => Action::Unlock,
            BatchAction::Lock => Action::Lock,
            BatchAction::Refresh => return None,
        };
        let (id, lines) = (&self.id, self.lines);
        let target = format!("batch {id} of {ready} devices in {lines} lines");
        let devices = u32::try_from(ready).unwrap_or(u32::MAX);
        Some(Guard::batch(action, target, devices))
    }

    /// From now on it is done for this one.
    async fn hand_over(&self, tx: &mut Tx<'_>, to: &Actor) -> Result<()> {
        tx.execute(
            "UPDATE batches SET principal = $3, principal_kind = $4, requested_by = $5, human = $6, token = $7 \
             WHERE organisation = $1 AND id = $2",
            params![
                self.organisation.as_str(),
                self.id.as_str(),
                to.principal(),
                to.kind().as_str(),
                to.name(),
                to.human(),
                token_of(to)
            ],
        )
        .await?;
        Ok(())
    }

    /// Whoever started it, in what the program does for them.
    fn actor(&self) -> Actor {
        Actor {
            principal: self.principal.clone(),
            kind: self.principal_kind,
            name: self.requested_by.clone(),
            grants: Grants::none(),
            proof: Proof::Batch(self.id.clone()),
            address: None,
            owner: self.human.clone(),
            unfinished: false,
            leave: approvals::Leave::Plain,
        }
    }

    fn requester(&self) -> &str {
        self.requester.as_deref().unwrap_or(&self.requested_by)
    }

    fn entry(&self, action: &'static str) -> Entry {
        Entry::by(&operations::worker(), &self.organisation, action).subject(&self.id)
    }
}
