//! The hot verb: what an MDM told, on record before it is acknowledged.
//!
//! For each event: is it known already (R22)? which epoch is it of (R6)? whose answer is it (R1)? what follows (R7, R8)?
//! Events that arrive together are one transaction.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use activation_lock::asking::{Refusal, Trigger};
use activation_lock::codes::{CodeText, Standing};
use activation_lock::device::SerialNumber;
use activation_lock::observation::{
    Authenticate, CommandReport, EnrollmentKind, Event, Observation, ReportStatus, ReportedCode,
    TokenUpdate,
};
use activation_lock::time::Timestamp;
use activation_lock::window;

use crate::codes::{open_text, seal_text};
use crate::commands::{Command, CommandState, CommandType};
use crate::connections::ConnectionRef;
use crate::db::Tx;
use crate::enrollments::{Epoch, EpochState, OpenedBy};
use crate::ledger::{DeviceKey, Held, HeldChange, Ledger};
use crate::{Escrow, Result, audit, codes};

mod follow;
mod known;
mod line;

pub(crate) use follow::follow_up;
#[cfg(test)]
pub(crate) use known::mark_of;
use known::{mark, not_on_record};
pub(crate) use line::Line;

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
pub(crate) const HELD: &str = "held answer";
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

/// By so much the clock of an MDM may be ahead of ours. An event dated later still is taken to be of then: it would keep
/// every later enrolment out, as older than itself.
const AHEAD: Duration = Duration::from_secs(60 * 60);

fn apply(ledger: &mut Ledger<'_>, connection: &ConnectionRef, seen: &Observation) -> Result<()> {
    let now = ledger.now();
    let when = seen.at.min(now.plus(AHEAD));
    let Some(at) = epoch_of(ledger, connection, seen, when) else {
        return Ok(());
    };
    ledger.epoch_mut(at).seen_at = now;
    if matches!(seen.event, Event::Seen | Event::Report(_)) {
        spoke(ledger, at, when);
    }
    match &seen.event {
        Event::Authenticate(said) => authenticated(ledger, at, said, when)?,
        Event::TokenUpdate(said) => enrolled(ledger, at, said, when),
        Event::CheckOut if when >= ledger.epoch(at).event_at => left(ledger, at),
        Event::CheckOut | Event::Seen => {}
        Event::Report(report) => reported(ledger, at, report, when)?,
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
    when: Timestamp,
) -> Option<usize> {
    let live = ledger.live_epoch(connection, &seen.enrollment);
    let opened_by = match (&seen.event, live.map(|at| ledger.epoch(at))) {
        // Reordered: the epoch this Authenticate began is known by a later event already.
        (Event::Authenticate(_), Some(epoch)) if when <= epoch.event_at => return live,
        (Event::Authenticate(_), _) => OpenedBy::Authenticate,
        (Event::TokenUpdate(TokenUpdate { tally: Some(1), .. }), Some(epoch))
            if epoch.enrolled_at.is_some_and(|enrolled| when > enrolled) =>
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
    let at = ledger.open_epoch(connection, &seen.enrollment, seen.kind, opened_by, when);
    if opened_by == OpenedBy::Adopted {
        ledger.epoch_mut(at).enrolled_at = Some(when);
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
        let (epoch, earlier) = (ledger.epoch(at), ledger.epoch(other));
        if other == at || earlier.state == EpochState::Quarantined {
            continue;
        }
        // A fresh enrolment with the same MDM takes the place of the earlier one; anything else is a conflict.
        if earlier.connection == epoch.connection
            && epoch.opened_by != OpenedBy::Adopted
            && earlier.event_at <= epoch.event_at
        {
            ledger.close_epoch(other, EpochState::Superseded, "the device enrolled anew");
        } else {
            dispute(ledger, at, other);
        }
    }
    let epoch = ledger.epoch(at);
    if epoch.is_undisputed() {
        let opened_at = epoch.opened_at;
        ledger.window_of_before(&key, opened_at);
    }
    if ledger.epoch(at).facts.awaiting_configuration {
        set_up_afresh(ledger, at);
    }
    release_held(ledger, at, &key)?;
    Ok(true)
}

/// Both claim one serial number: neither moves the current code until one falls silent (R5). From now on both are listened
/// for: until now polls of the other were no news.
fn dispute(ledger: &mut Ledger<'_>, at: usize, other: usize) {
    let (now, reason) = (
        ledger.now(),
        "two live enrollments claim this serial number",
    );
    for disputed in [other, at] {
        let epoch = ledger.epoch_mut(disputed);
        if epoch.is_undisputed() {
            epoch.state = EpochState::Disputed;
            epoch.state_reason = Some(reason.to_owned());
            epoch.seen_at = now;
        }
    }
    follow_up(ledger, other);
    note(ledger, at, "enrollment.disputed", reason);
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
        Some(command) if command.epoch != epoch.id => Standing::Late,
        _ if !epoch.is_undisputed() => Standing::Disputed,
        Some(command) if command.what == CommandType::BypassCode => match command.state {
            state if state.has_final_answer() => Standing::Repeated,
            state if state.is_pending() => Standing::Newest,
            _ => Standing::Late,
        },
        _ => Standing::Unsolicited,
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
        if state == CommandState::Answered
            && command.what == (CommandType::LockPermission { allowed: true })
        {
            let now = ledger.now();
            ledger.epoch_mut(at).facts.first_allow.get_or_insert(now);
        }
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
    let told = report.device_information.as_deref();
    let sure = match told.and_then(|information| information.serial.as_ref()) {
        Some(serial) => identify(ledger, at, serial)?,
        None => true,
    };
    if let Some(information) = told.filter(|_| sure) {
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
    let standing = standing(ledger.epoch(at), command.as_ref());
    match &report.bypass_code {
        ReportedCode::Code(text) if !failed => {
            let answer = codes::Answer {
                standing,
                command: report.command.as_deref(),
                event_at: when,
            };
            let asked = command.and_then(|command| ledger.epoch_of_id(&command.epoch));
            code_reported(ledger, at, asked.unwrap_or(at), text, &answer);
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

/// A code arrived in the epoch at `at`, in answer to what was asked in the one at `asked`: it is of that one's device. Until
/// the serial number is known it is held, sealed; it is never thrown away (R1).
fn code_reported(
    ledger: &mut Ledger<'_>,
    at: usize,
    asked: usize,
    text: &CodeText,
    answer: &codes::Answer<'_>,
) {
    for of in [asked, at] {
        if let Some(serial) = ledger.epoch(of).serial.clone() {
            let key = key_of(ledger, of, &serial);
            if codes::report(ledger, of, &key, text, answer) {
                ask_again(ledger, at);
            }
            return ledger.refresh_coverage(&key);
        }
    }
    let epoch = ledger.epoch(at);
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
        if codes::report(ledger, at, key, &text, &answer) {
            ask_again(ledger, at);
        }
    }
    Ok(())
}

/// A code came that nobody asked for now: the enrollment it came from is asked again at once (R1, R8).
fn ask_again(ledger: &mut Ledger<'_>, at: usize) {
    let now = ledger.now();
    ledger.epoch_mut(at).trigger(now, Trigger::StrayAnswer);
}
