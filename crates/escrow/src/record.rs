//! The hot verb: what an MDM told, on record before it is acknowledged.
//!
//! For each event: is it known already (R22)? which epoch is it of (R6)? whose answer is it (R1)? what follows (R7, R8)?
//! Events that arrive together are one transaction.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use activation_lock::asking::{self, Refusal};
use activation_lock::codes::{CodeText, Standing};
use activation_lock::device::{ProductFamily, ProductType, SerialNumber};
use activation_lock::guard::{self, Permission, ReadBack, Sent};
use activation_lock::observation::{
    Authenticate, CommandReport, EnrollmentKind, Event, Observation, ReportStatus, ReportedCode,
    TokenUpdate,
};
use activation_lock::time::{DAY, Timestamp};
use activation_lock::window;
use tokio::sync::oneshot;

use crate::codes::{open_text, seal_text};
use crate::commands::{Command, CommandState, CommandType};
use crate::connections::ConnectionRef;
use crate::db::{Tx, params};
use crate::enrollments::{Epoch, EpochState, OpenedBy};
use crate::ledger::{DeviceKey, Held, HeldChange, Ledger};
use crate::{Error, Escrow, Fault, Result, audit, codes};

/// One authenticated event of an MDM.
pub struct Incoming {
    /// The connection it came through.
    pub connection: ConnectionRef,
    /// SHA-256 of the body, for recognising the same event again (R22).
    pub digest: [u8; 32],
    /// What it says.
    pub observation: Observation,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is on record.
    Recorded,
    /// It had been on record before; nothing changed.
    Known,
    /// A channel that never has anything for us (R10); nothing is kept of it.
    Ignored,
}

/// A text waiting for the serial number of its epoch.
const HELD: &str = "held answer";
/// DeviceInformation is asked again when the last answer is older than this.
const INFORMATION_AGE: std::time::Duration = std::time::Duration::from_secs(6 * 24 * 60 * 60);

/// How many events are put on record at once, at most.
const BATCH: usize = 256;

/// An event in line, and who waits for it.
type Waiting = (Arc<Incoming>, oneshot::Sender<Result<Recorded>>);

/// The line before the record: while one batch is being written, the next gathers here.
#[derive(Default)]
pub(crate) struct Line {
    waiting: Mutex<Vec<Waiting>>,
    moving: AtomicBool,
}

impl Line {
    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Escrow {
    /// Puts one event on record. When this returns, it is durable. Events that arrive together are written together.
    ///
    /// # Errors
    /// When the database fails: then nothing is on record, and the sender is to be told so.
    pub async fn record(&self, incoming: Incoming) -> Result<Recorded> {
        let (reply, answer) = oneshot::channel();
        let line = &self.shared.line;
        line.waiting().push((Arc::new(incoming), reply));
        if !line.moving.swap(true, Ordering::SeqCst) {
            tokio::spawn(self.clone().move_line());
        }
        answer.await.unwrap_or(Err(Error::Database(Fault::Closed)))
    }

    /// Writes batch after batch until nobody waits.
    async fn move_line(self) {
        let line = &self.shared.line;
        loop {
            let batch: Vec<Waiting> = {
                let mut waiting = line.waiting();
                let size = waiting.len().min(BATCH);
                waiting.drain(..size).collect()
            };
            if batch.is_empty() {
                line.moving.store(false, Ordering::SeqCst);
                // One may have come between the look and the word that nobody moves the line.
                if line.waiting().is_empty() || line.moving.swap(true, Ordering::SeqCst) {
                    return;
                }
                continue;
            }
            self.record_batch(batch).await;
        }
    }

    async fn record_batch(&self, mut batch: Vec<Waiting>) {
        let events: Vec<Arc<Incoming>> = batch.iter().map(|(event, _)| event.clone()).collect();
        match self.write_events(events).await {
            Ok(recorded) => {
                if recorded.contains(&Recorded::Recorded) {
                    self.wake_courier();
                }
                for ((_, reply), recorded) in batch.into_iter().zip(recorded) {
                    // Nobody waits for it any more: it is on record all the same.
                    let _ = reply.send(Ok(recorded));
                }
            }
            Err(error) if batch.len() == 1 => {
                if let Some((_, reply)) = batch.pop() {
                    let _ = reply.send(Err(error));
                }
            }
            // One bad event must not keep the others off the record.
            Err(_) => {
                for (event, reply) in batch {
                    let result = self.write_events(vec![event]).await;
                    let _ = reply.send(
                        result.map(|recorded| recorded.first().copied().unwrap_or(Recorded::Known)),
                    );
                    self.wake_courier();
                }
            }
        }
    }

    async fn write_events(&self, events: Vec<Arc<Incoming>>) -> Result<Vec<Recorded>> {
        let escrow = self.clone();
        self.db
            .write("record", async move |tx| write(tx, &escrow, &events).await)
            .await
    }
}

/// Channels that never have anything for us (R10).
fn is_of_no_use(kind: EnrollmentKind) -> bool {
    match kind {
        EnrollmentKind::Device | EnrollmentKind::UserEnrollmentDevice => false,
        EnrollmentKind::User | EnrollmentKind::UserEnrollment | EnrollmentKind::SharedIpad => true,
    }
}

/// Reads what the events touch, applies them in order, and writes it back.
async fn write(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    events: &[Arc<Incoming>],
) -> Result<Vec<Recorded>> {
    let mut fresh = not_on_record(tx, events).await?;
    let mut recorded = Vec::with_capacity(events.len());
    for event in events {
        recorded.push(if is_of_no_use(event.observation.kind) {
            Recorded::Ignored
        } else if fresh.remove(&mark(event)) {
            Recorded::Recorded
        } else {
            Recorded::Known
        });
    }
    let news: Vec<&Incoming> = events
        .iter()
        .zip(&recorded)
        .filter(|(_, is)| **is == Recorded::Recorded)
        .map(|(event, _)| &**event)
        .collect();
    if news.is_empty() {
        return Ok(recorded);
    }
    let (mut enrollments, mut serials, mut commands) =
        (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for event in &news {
        let organisation = &event.connection.organisation;
        enrollments.push((
            event.connection.clone(),
            event.observation.enrollment.clone(),
        ));
        match &event.observation.event {
            Event::Authenticate(said) => {
                serials.extend(
                    said.serial
                        .clone()
                        .map(|serial| (organisation.clone(), serial)),
                );
            }
            Event::Report(report) => {
                let told = report
                    .device_information
                    .as_ref()
                    .and_then(|information| information.serial.clone());
                serials.extend(told.map(|serial| (organisation.clone(), serial)));
                commands.extend(report.command.clone().map(|id| (organisation.clone(), id)));
            }
            Event::TokenUpdate(_) | Event::CheckOut | Event::Seen => {}
        }
    }
    let mut ledger = Ledger::new(tx, escrow);
    ledger.read(tx, &enrollments, &serials, &commands).await?;
    for event in &news {
        ledger
            .read_policy(tx, &event.connection.organisation)
            .await?;
        apply(&mut ledger, &event.connection, &event.observation)?;
    }
    ledger.write(tx).await?;
    Ok(recorded)
}

/// What makes an event the same event: organisation, connection, time and hash of the body (R22).
type Mark = (String, String, i64, String);

fn mark(event: &Incoming) -> Mark {
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
async fn not_on_record(tx: &mut Tx<'_>, events: &[Arc<Incoming>]) -> Result<HashSet<Mark>> {
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

fn apply(ledger: &mut Ledger<'_>, connection: &ConnectionRef, seen: &Observation) -> Result<()> {
    let Some(at) = epoch_of(ledger, connection, seen) else {
        return Ok(());
    };
    let now = ledger.now();
    ledger.epoch_mut(at).seen_at = now;
    if matches!(seen.event, Event::Seen | Event::Report(_)) {
        spoke(ledger, at, seen.at);
    }
    match &seen.event {
        Event::Authenticate(said) => authenticated(ledger, at, said, seen.at)?,
        Event::TokenUpdate(said) => enrolled(ledger, at, said, seen.at),
        Event::CheckOut if seen.at >= ledger.epoch(at).event_at => left(ledger, at),
        Event::CheckOut | Event::Seen => {}
        Event::Report(report) => reported(ledger, at, report, seen.at)?,
    }
    if ledger.epoch(at).closed_at.is_none() {
        follow_up(ledger, at);
    }
    Ok(())
}

/// The epoch an event belongs to, opened when it is the first sign of one (R6). `None` when there is nothing to record
/// it on: a check-out of an enrollment that is not there.
fn epoch_of(
    ledger: &mut Ledger<'_>,
    connection: &ConnectionRef,
    seen: &Observation,
) -> Option<usize> {
    let live = ledger.live_epoch(connection, &seen.enrollment);
    let opened_by = match (&seen.event, live.map(|at| ledger.epoch(at))) {
        // Reordered: the epoch this Authenticate began is known by a later event already.
        (Event::Authenticate(_), Some(epoch)) if seen.at <= epoch.event_at => return live,
        (Event::Authenticate(_), _) => OpenedBy::Authenticate,
        (Event::TokenUpdate(TokenUpdate { tally: Some(1), .. }), Some(epoch))
            if epoch.enrolled_at.is_some_and(|enrolled| seen.at > enrolled) =>
        {
            OpenedBy::TokenUpdate
        }
        (_, Some(_)) => return live,
        (Event::CheckOut, None) => return None,
        (Event::TokenUpdate(TokenUpdate { tally: Some(1), .. }), None) => OpenedBy::TokenUpdate,
        (_, None) => OpenedBy::Adopted,
    };
    if let Some(earlier) = live {
        ledger.close_epoch(earlier, EpochState::Superseded, "the device enrolled anew");
    }
    let at = ledger.open_epoch(connection, &seen.enrollment, seen.kind, opened_by, seen.at);
    if let Some(earlier) = live {
        ledger.bequeath_held(earlier, at);
    }
    if opened_by == OpenedBy::Adopted {
        ledger.epoch_mut(at).enrolled_at = Some(seen.at);
    }
    Some(at)
}

fn authenticated(
    ledger: &mut Ledger<'_>,
    at: usize,
    said: &Authenticate,
    when: Timestamp,
) -> Result<()> {
    let epoch = ledger.epoch_mut(at);
    epoch.authenticated_at.get_or_insert(when);
    epoch.udid = said.udid.clone().or(epoch.udid.take());
    epoch.topic = said.topic.clone().or(epoch.topic.take());
    if let Some(serial) = &said.serial
        && identify(ledger, at, serial)?
    {
        let (now, key) = (ledger.now(), key_of(ledger, at, serial));
        ledger.device_mut(&key).learn_authenticate(said, now);
    }
    Ok(())
}

fn key_of(ledger: &Ledger<'_>, at: usize, serial: &SerialNumber) -> DeviceKey {
    (ledger.epoch(at).organisation.clone(), serial.clone())
}

fn enrolled(ledger: &mut Ledger<'_>, at: usize, said: &TokenUpdate, when: Timestamp) {
    let epoch = ledger.epoch_mut(at);
    epoch.enrolled_at.get_or_insert(when);
    epoch.udid = said.udid.clone().or(epoch.udid.take());
    epoch.topic = said.topic.clone().or(epoch.topic.take());
    if said.awaiting_configuration == Some(true) {
        epoch.facts.awaiting_configuration = true;
        set_up_afresh(ledger, at);
    }
}

/// The device speaks as only an enrolled one does: its TokenUpdate was lost, and is made up for (R6).
fn spoke(ledger: &mut Ledger<'_>, at: usize, when: Timestamp) {
    let epoch = ledger.epoch_mut(at);
    if when >= epoch.event_at {
        epoch.enrolled_at.get_or_insert(when);
    }
}

/// The device stood in Setup Assistant in this epoch: the window runs from its start (R9).
fn set_up_afresh(ledger: &mut Ledger<'_>, at: usize) {
    let epoch = ledger.epoch(at);
    if let Some(serial) = epoch.serial.clone() {
        let (key, opened_at) = (key_of(ledger, at, &serial), epoch.opened_at);
        ledger.window_opened(&key, opened_at, window::evidence(true, false));
    }
}

/// The device leaves. Its codes stay and are doubtful from now on (R2, T28).
fn left(ledger: &mut Ledger<'_>, at: usize) {
    ledger.close_epoch(at, EpochState::Left, "the device checked out");
    if let Some(serial) = ledger.epoch(at).serial.clone() {
        let key = key_of(ledger, at, &serial);
        ledger.device_mut(&key).suspect = Some("checked_out".to_owned());
        ledger.refresh_coverage(&key);
        note(
            ledger,
            at,
            "device.left",
            "it checked out of its MDM; its codes are kept",
        );
    }
}

/// The epoch belongs to the device with this serial number, says an answer. False when that contradicts what is on
/// file, which quarantines the epoch (R5).
fn identify(ledger: &mut Ledger<'_>, at: usize, serial: &SerialNumber) -> Result<bool> {
    match ledger.epoch(at).serial.clone() {
        Some(known) if known == *serial => return Ok(true),
        Some(known) => {
            if ledger.epoch(at).state != EpochState::Quarantined {
                let epoch = ledger.epoch_mut(at);
                epoch.state = EpochState::Quarantined;
                epoch.state_reason = Some(format!(
                    "it reported the serial number {serial}, on file is {known}"
                ));
                note(
                    ledger,
                    at,
                    "enrollment.quarantined",
                    "it reported another serial number",
                );
            }
            return Ok(false);
        }
        None => ledger.epoch_mut(at).serial = Some(serial.clone()),
    }
    let (now, key) = (ledger.now(), key_of(ledger, at, serial));
    let connection = ledger.epoch(at).connection.clone();
    let device = ledger.device_mut(&key);
    device.connection = Some(connection);
    device.suspect = None;
    device.seen_at = now;
    for other in ledger.open_epochs(&key) {
        if other == at {
            continue;
        }
        // A fresh enrolment with the same MDM takes the place of the earlier one; anything else is a conflict.
        let epoch = ledger.epoch(at);
        if ledger.epoch(other).connection == epoch.connection
            && epoch.opened_by != OpenedBy::Adopted
        {
            ledger.close_epoch(other, EpochState::Superseded, "the device enrolled anew");
        } else {
            let reason = "two live enrollments claim this serial number";
            for disputed in [other, at] {
                let epoch = ledger.epoch_mut(disputed);
                epoch.state = EpochState::Disputed;
                epoch.state_reason = Some(reason.to_owned());
            }
            follow_up(ledger, other);
            note(ledger, at, "enrollment.disputed", reason);
        }
    }
    if ledger.epoch(at).facts.awaiting_configuration {
        set_up_afresh(ledger, at);
    }
    release_held(ledger, at, &key)?;
    Ok(true)
}

fn note(ledger: &mut Ledger<'_>, at: usize, action: &'static str, words: &str) {
    let epoch = ledger.epoch(at);
    let actor = ledger.escrow().connection_actor(&epoch.connection);
    let mut entry = audit::Entry::by(&actor, &epoch.organisation, action)
        .detail("enrollment", epoch.enrollment.as_str())
        .detail("epoch", epoch.id.as_str())
        .detail("what", words);
    if let Some(serial) = &epoch.serial {
        entry = entry.subject(serial.as_str());
    }
    ledger.audit(entry);
}

/// How an answer stands to what was asked (R1).
fn standing(epoch: &Epoch, command: Option<&Command>) -> Standing {
    match command {
        _ if !epoch.is_undisputed() => Standing::Disputed,
        None => Standing::Unsolicited,
        Some(command) if command.epoch != epoch.id => Standing::Late,
        Some(command) if command.state.has_final_answer() => Standing::Repeated,
        Some(command) if !command.state.is_pending() => Standing::Late,
        Some(_) => Standing::Newest,
    }
}

fn reported(
    ledger: &mut Ledger<'_>,
    at: usize,
    report: &CommandReport,
    when: Timestamp,
) -> Result<()> {
    let epoch = ledger.epoch(at);
    let command = report
        .command
        .as_ref()
        .and_then(|id| ledger.command(&epoch.organisation, id))
        .filter(|c| c.connection == epoch.connection && c.enrollment == epoch.enrollment)
        .cloned();
    let standing = standing(epoch, command.as_ref());
    let failed = matches!(
        report.status,
        ReportStatus::Error | ReportStatus::CommandFormatError
    ) || report
        .failed_settings
        .as_ref()
        .is_some_and(|failed| !failed.is_empty());
    if let Some(command) = &command
        && command.state.is_pending()
    {
        let (state, reason) = match report.status {
            ReportStatus::NotNow => (
                CommandState::NotNow,
                Some("the device said: not now".to_owned()),
            ),
            _ if failed => (CommandState::Failed, first_error(report)),
            _ => (CommandState::Answered, None),
        };
        ledger.answered(&command.id, state, reason);
    }
    if report.status == ReportStatus::NotNow {
        return Ok(());
    }
    if let Some(link) = report
        .errors
        .first()
        .or(report.failed_settings.as_ref().and_then(|f| f.first()))
    {
        ledger.epoch_mut(at).facts.last_error = Some(link.clone());
    }
    if let Some(information) = &report.device_information {
        if let Some(serial) = &information.serial
            && !identify(ledger, at, serial)?
        {
            return Ok(());
        }
        let now = ledger.now();
        ledger.epoch_mut(at).learn(information, now);
        if let Some(serial) = ledger.epoch(at).serial.clone() {
            let key = key_of(ledger, at, &serial);
            ledger.device_mut(&key).learn_information(information, now);
            if information.awaiting_configuration == Some(true) {
                set_up_afresh(ledger, at);
            }
        }
    }
    if let Some(security) = &report.security_info {
        ledger.epoch_mut(at).learn_security(security);
    }
    match &report.bypass_code {
        ReportedCode::Code(text) if !failed => {
            let answer = codes::Answer {
                standing,
                command: report.command.as_deref(),
                event_at: when,
            };
            code_reported(ledger, at, text, &answer);
        }
        _ if command
            .as_ref()
            .is_some_and(|c| c.what == CommandType::BypassCode)
            && standing == Standing::Newest =>
        {
            let facts = &mut ledger.epoch_mut(at).facts;
            facts.answered_without_code = true;
            facts.refusal = Refusal::in_chain(&report.errors);
        }
        _ => {}
    }
    Ok(())
}

fn first_error(report: &CommandReport) -> Option<String> {
    report
        .errors
        .first()
        .or(report
            .failed_settings
            .as_ref()
            .and_then(|failed| failed.first()))
        .map(|link| format!("{} {}: {}", link.domain, link.code, link.description))
}

/// A code arrived. Until the epoch's serial number is known it is held, sealed; it is never thrown away (R1).
fn code_reported(ledger: &mut Ledger<'_>, at: usize, text: &CodeText, answer: &codes::Answer<'_>) {
    let epoch = ledger.epoch(at);
    if let Some(serial) = epoch.serial.clone() {
        let key = key_of(ledger, at, &serial);
        codes::report(ledger, at, &key, text, answer);
        return;
    }
    let (id, organisation, epoch) = (
        ledger.new_id(),
        epoch.organisation.clone(),
        epoch.id.clone(),
    );
    let cell = seal_text(ledger.escrow(), HELD, &organisation, &id, text);
    ledger.hold(Held {
        organisation,
        id,
        epoch,
        command: answer.command.map(str::to_owned),
        standing: answer.standing,
        cell,
        event_at: answer.event_at,
        change: HeldChange::Insert,
    });
}

/// The serial number is known now: the codes that waited for it are put where they belong, in the order they came.
fn release_held(ledger: &mut Ledger<'_>, at: usize, key: &DeviceKey) -> Result<()> {
    let epoch = ledger.epoch(at).id.clone();
    let disputed = !ledger.epoch(at).is_undisputed();
    for held in ledger.release_held(&epoch) {
        let text = open_text(ledger.escrow(), HELD, &key.0, &held.id, &held.cell)?;
        let standing = if disputed {
            Standing::Disputed
        } else {
            held.standing
        };
        let answer = codes::Answer {
            standing,
            command: held.command.as_deref(),
            event_at: held.event_at,
        };
        codes::report(ledger, at, key, &text, &answer);
    }
    Ok(())
}

/// Decides what is asked of the device next, and puts it on record.
pub(crate) fn follow_up(ledger: &mut Ledger<'_>, at: usize) {
    if ledger.epoch(at).enrolled_at.is_some() {
        let due = ask(ledger, at);
        ledger.next_ask(at, Some(due));
        permit_lock(ledger, at);
    }
    if let Some(serial) = ledger.epoch(at).serial.clone() {
        let key = key_of(ledger, at, &serial);
        mark_doubt(ledger, at, &key);
        ledger.refresh_coverage(&key);
    }
}

/// Asks for what is due (R6, R8, R10). Gives the moment of the next ask.
fn ask(ledger: &mut Ledger<'_>, at: usize) -> Timestamp {
    let now = ledger.now();
    let epoch = ledger.epoch(at);
    let family = ledger.product_type(at).map(ProductType::family);
    let not_asked = epoch.why_not_asked(ledger.product_type(at));
    let pending = ledger.pending(at, CommandType::BypassCode).is_some();
    let mut due = asking::next_ask(&epoch.ask_history(pending));
    let mut information_due = epoch
        .facts
        .info_asked_at
        .is_none_or(|asked| asked.plus(INFORMATION_AGE) <= now);
    if epoch.kind == EnrollmentKind::UserEnrollmentDevice {
        information_due = false;
    }
    if not_asked.is_some() {
        due = epoch.facts.info_asked_at.unwrap_or(now).plus(asking::WEEK);
        ledger.void_pending(
            at,
            CommandType::BypassCode,
            "the device is not one that gives a code",
        );
    } else if due <= now {
        information_due |=
            epoch.facts.info_at.is_none() || epoch.triggered_at.is_some_and(|t| t >= due);
    }
    // Who are you before what is your code: an answer of an adopted device waits for its serial number otherwise.
    if information_due {
        if ledger
            .epoch(at)
            .facts
            .info_asked_at
            .is_some_and(|asked| asked.plus(DAY) <= now)
        {
            ledger.void_pending(at, CommandType::DeviceInformation, "unanswered");
        }
        if ledger.plan(at, CommandType::DeviceInformation, "who is it") {
            ledger.epoch_mut(at).facts.info_asked_at = Some(now);
        }
    }
    let facts = &ledger.epoch(at).facts;
    if family == Some(ProductFamily::Mac)
        && facts.manageable.is_none()
        && facts
            .security_asked_at
            .is_none_or(|asked| asked.plus(asking::WEEK) <= now)
    {
        ask_security(ledger, at);
    }
    if not_asked.is_none() && due <= now {
        ledger.void_pending(at, CommandType::BypassCode, "unanswered, asked again");
        ledger.plan(at, CommandType::BypassCode, "its code");
        ledger.epoch_mut(at).last_asked_at = Some(now);
        due = asking::next_ask(&ledger.epoch(at).ask_history(true));
    }
    due
}

fn ask_security(ledger: &mut Ledger<'_>, at: usize) {
    let now = ledger.now();
    if ledger.plan(at, CommandType::SecurityInfo, "can its lock be managed") {
        ledger.epoch_mut(at).facts.security_asked_at = Some(now);
    }
}

/// Sends the permission to lock, or withdraws it, when policy and guard say so (R7).
fn permit_lock(ledger: &mut Ledger<'_>, at: usize) {
    let epoch = ledger.epoch(at);
    let policy = ledger.policy(&epoch.organisation);
    if policy.wanted().is_none() || !epoch.is_undisputed() || epoch.serial.is_none() {
        return;
    }
    let product = ledger.product_type(at);
    let facts = guard::Facts {
        policy,
        not_asked: epoch.why_not_asked(product),
        code_held: epoch.code.is_some(),
        family: product.map(ProductType::family),
        manageable: epoch.facts.manageable,
        read_back: epoch
            .facts
            .allowed
            .zip(epoch.facts.allowed_at)
            .map(|(allowed, at)| ReadBack { allowed, at }),
        sent: ledger.newest_permission(at).and_then(sent_permission),
    };
    let now = ledger.now();
    match guard::permission(&facts) {
        Permission::SendAllow => {
            if ledger.plan(
                at,
                CommandType::LockPermission { allowed: true },
                "policy: allow",
            ) {
                let facts = &mut ledger.epoch_mut(at).facts;
                facts.permission_sent = true;
                facts.first_allow.get_or_insert(now);
            }
        }
        Permission::SendDeny => {
            if ledger.plan(
                at,
                CommandType::LockPermission { allowed: false },
                "policy: deny",
            ) {
                ledger.epoch_mut(at).facts.permission_sent = true;
            }
        }
        Permission::AskSecurityInfo => ask_security(ledger, at),
        Permission::ReadBack => {
            if ledger.plan(
                at,
                CommandType::DeviceInformation,
                "has the permission arrived",
            ) {
                ledger.epoch_mut(at).facts.info_asked_at = Some(now);
            }
        }
        Permission::Nothing(_) => {}
    }
}

fn sent_permission(command: &Command) -> Option<Sent> {
    let CommandType::LockPermission { allowed } = command.what else {
        return None;
    };
    let answer = match command.state {
        CommandState::Planned | CommandState::Queued | CommandState::NotNow => {
            guard::Answer::Pending
        }
        CommandState::Answered => guard::Answer::Acknowledged {
            at: command.answered_at?,
        },
        CommandState::Failed => guard::Answer::Failed,
        CommandState::Void | CommandState::GivenUp => return None,
    };
    Some(Sent { allowed, answer })
}

/// A code whose device may have been locked before the code was had is doubtful (R7).
fn mark_doubt(ledger: &mut Ledger<'_>, at: usize, key: &DeviceKey) {
    let epoch = ledger.epoch(at);
    let (Some(code), Some(gap)) = (epoch.code.clone(), epoch.allowed_before_escrow()) else {
        return;
    };
    let doubt = format!("allowed_before_escrow_{}", gap.as_str());
    if let Some(known) = ledger.codes(key).iter().find(|known| known.id == code)
        && known.doubt.as_ref() != Some(&doubt)
    {
        if let Some(known) = ledger.code_mut(key, &code) {
            known.doubt = Some(doubt);
        }
        note(
            ledger,
            at,
            "code.doubtful",
            "the lock was allowed before this code was had",
        );
    }
}
