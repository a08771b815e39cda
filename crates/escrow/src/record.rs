//! The hot verb: what an MDM told, on record before it is acknowledged.
//!
//! One event is one transaction: known already? which epoch (R6)? whose answer (R1)? what follows (R7, R8)?

use activation_lock::asking::{self, Refusal};
use activation_lock::codes::{CodeText, Standing};
use activation_lock::device::{ProductFamily, SerialNumber};
use activation_lock::guard::{self, Permission, ReadBack, Sent};
use activation_lock::observation::{
    Authenticate, CommandReport, EnrollmentKind, Event, Observation, ReportStatus, ReportedCode, TokenUpdate,
};
use activation_lock::time::{DAY, Timestamp};

use crate::codes::{open_text, seal_text};
use crate::commands::{Command, CommandState, CommandType};
use crate::connections::ConnectionRef;
use crate::db::{Tx, params};
use crate::enrollments::{Epoch, EpochState, OpenedBy};
use crate::{Escrow, Result, audit, codes, devices, organisations};

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

impl Escrow {
    /// Puts one event on record. When this returns, it is durable.
    ///
    /// # Errors
    /// When the database fails: then nothing is on record, and the sender is to be told so.
    pub async fn record(&self, incoming: Incoming) -> Result<Recorded> {
        let escrow = self.clone();
        let incoming = std::sync::Arc::new(incoming);
        let recorded = self
            .db
            .write("record", async move |tx| apply(tx, &escrow, &incoming).await)
            .await?;
        if recorded == Recorded::Recorded {
            self.wake_courier();
        }
        Ok(recorded)
    }
}

async fn apply(tx: &mut Tx<'_>, escrow: &Escrow, incoming: &Incoming) -> Result<Recorded> {
    let Incoming { connection, digest, observation } = incoming;
    match observation.kind {
        EnrollmentKind::Device | EnrollmentKind::UserEnrollmentDevice => {}
        EnrollmentKind::User | EnrollmentKind::UserEnrollment | EnrollmentKind::SharedIpad => {
            return Ok(Recorded::Ignored);
        }
    }
    if is_known(tx, connection, observation.at, digest).await? {
        return Ok(Recorded::Known);
    }
    let Some(mut epoch) = epoch_of(tx, connection, observation).await? else {
        return Ok(Recorded::Recorded);
    };
    epoch.seen_at = tx.now();
    match &observation.event {
        Event::Authenticate(said) => authenticated(tx, escrow, &mut epoch, said, observation.at).await?,
        Event::TokenUpdate(said) => enrolled(tx, &mut epoch, said, observation.at).await?,
        Event::CheckOut => {
            if observation.at >= epoch.event_at {
                left(tx, escrow, &mut epoch).await?;
                return Ok(Recorded::Recorded);
            }
        }
        Event::Seen => {}
        Event::Report(report) => reported(tx, escrow, &mut epoch, report, observation.at).await?,
    }
    if epoch.closed_at.is_none() {
        follow_up(tx, escrow, &mut epoch).await?;
    }
    Ok(Recorded::Recorded)
}

/// The same body from the same connection with the same time is the same event (R22).
async fn is_known(tx: &mut Tx<'_>, connection: &ConnectionRef, at: Timestamp, digest: &[u8; 32]) -> Result<bool> {
    let now = tx.now();
    let inserted = tx
        .execute(
            "INSERT INTO received_events (organisation, connection, event_at, digest, received_at) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            params![connection.organisation.as_str(), connection.id.as_str(), at, digest.to_vec(), now],
        )
        .await?;
    Ok(inserted == 0)
}

/// The epoch an event belongs to, opened when it is the first sign of one (R6). `None` when there is nothing to record
/// it on: a check-out of an enrollment that is not there.
async fn epoch_of(tx: &mut Tx<'_>, connection: &ConnectionRef, seen: &Observation) -> Result<Option<Epoch>> {
    let live = Epoch::live(tx, connection, &seen.enrollment).await?;
    let opened_by = match (&seen.event, &live) {
        // Reordered: the epoch this Authenticate began is known by a later event already.
        (Event::Authenticate(_), Some(epoch)) if seen.at <= epoch.event_at => return Ok(live),
        (Event::Authenticate(_), _) => OpenedBy::Authenticate,
        (Event::TokenUpdate(TokenUpdate { tally: Some(1), .. }), Some(epoch))
            if epoch.enrolled_at.is_some_and(|enrolled| seen.at > enrolled) =>
        {
            OpenedBy::TokenUpdate
        }
        (_, Some(_)) => return Ok(live),
        (Event::CheckOut, None) => return Ok(None),
        (Event::TokenUpdate(TokenUpdate { tally: Some(1), .. }), None) => OpenedBy::TokenUpdate,
        (_, None) => OpenedBy::Adopted,
    };
    if let Some(mut earlier) = live {
        earlier.close(tx, EpochState::Superseded, "the device enrolled anew").await?;
    }
    let mut epoch = Epoch::open(tx, connection, &seen.enrollment, seen.kind, opened_by, seen.at).await?;
    if opened_by == OpenedBy::Adopted {
        epoch.enrolled_at = Some(seen.at);
    }
    Ok(Some(epoch))
}

async fn authenticated(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    epoch: &mut Epoch,
    said: &Authenticate,
    at: Timestamp,
) -> Result<()> {
    epoch.authenticated_at.get_or_insert(at);
    epoch.udid = said.udid.clone().or(epoch.udid.take());
    epoch.topic = said.topic.clone().or(epoch.topic.take());
    if let Some(serial) = &said.serial {
        if !identify(tx, escrow, epoch, serial).await? {
            return Ok(());
        }
        devices::learn_authenticate(tx, &epoch.organisation, serial, said).await?;
    }
    Ok(())
}

async fn enrolled(tx: &mut Tx<'_>, epoch: &mut Epoch, said: &TokenUpdate, at: Timestamp) -> Result<()> {
    epoch.enrolled_at.get_or_insert(at);
    epoch.udid = said.udid.clone().or(epoch.udid.take());
    epoch.topic = said.topic.clone().or(epoch.topic.take());
    if said.awaiting_configuration == Some(true) && !epoch.facts.awaiting_configuration {
        epoch.facts.awaiting_configuration = true;
        if let Some(serial) = epoch.serial.clone() {
            devices::window_opened(tx, epoch, &serial, true, false).await?;
        }
    }
    Ok(())
}

/// The device leaves. Its codes stay and are doubtful from now on (R2, T28).
async fn left(tx: &mut Tx<'_>, escrow: &Escrow, epoch: &mut Epoch) -> Result<()> {
    epoch.close(tx, EpochState::Left, "the device checked out").await?;
    if let Some(serial) = epoch.serial.clone() {
        devices::suspect(tx, &epoch.organisation, &serial, Some("checked_out")).await?;
        devices::refresh_coverage(tx, &epoch.organisation, &serial).await?;
        note(tx, escrow, epoch, "device.left", "it checked out of its MDM; its codes are kept").await?;
    }
    Ok(())
}

/// The epoch belongs to the device with this serial number, says an answer. False when that contradicts what is on
/// file, which quarantines the epoch (R5).
async fn identify(tx: &mut Tx<'_>, escrow: &Escrow, epoch: &mut Epoch, serial: &SerialNumber) -> Result<bool> {
    match epoch.serial.clone() {
        Some(known) if known == *serial => return Ok(true),
        Some(known) => {
            if epoch.state != EpochState::Quarantined {
                epoch.state = EpochState::Quarantined;
                epoch.state_reason = Some(format!("it reported the serial number {serial}, on file is {known}"));
                note(tx, escrow, epoch, "enrollment.quarantined", "it reported another serial number").await?;
            }
            return Ok(false);
        }
        None => epoch.serial = Some(serial.clone()),
    }
    let organisation = epoch.organisation.clone();
    devices::ensure(tx, &organisation, serial).await?;
    devices::enrolled_with(tx, &organisation, serial, &epoch.connection).await?;
    for mut other in Epoch::open_of_device(tx, &organisation, serial).await? {
        if other.id == epoch.id {
            continue;
        }
        // A fresh enrolment with the same MDM takes the place of the earlier one; anything else is a conflict.
        if other.connection == epoch.connection && epoch.opened_by != OpenedBy::Adopted {
            other.close(tx, EpochState::Superseded, "the device enrolled anew").await?;
        } else {
            let reason = "two live enrollments claim this serial number";
            for disputed in [&mut other, &mut *epoch] {
                disputed.state = EpochState::Disputed;
                disputed.state_reason = Some(reason.to_owned());
            }
            follow_up(tx, escrow, &mut other).await?;
            note(tx, escrow, epoch, "enrollment.disputed", reason).await?;
        }
    }
    if epoch.facts.awaiting_configuration {
        devices::window_opened(tx, epoch, serial, true, false).await?;
    }
    release_held(tx, escrow, epoch, serial).await?;
    Ok(true)
}

async fn note(tx: &mut Tx<'_>, escrow: &Escrow, epoch: &Epoch, action: &'static str, words: &str) -> Result<()> {
    let actor = escrow.connection_actor(&epoch.connection);
    let mut entry = audit::Entry::by(&actor, &epoch.organisation, action)
        .detail("enrollment", epoch.enrollment.as_str())
        .detail("epoch", epoch.id.as_str())
        .detail("what", words);
    if let Some(serial) = &epoch.serial {
        entry = entry.subject(serial.as_str());
    }
    audit::record(tx, escrow, entry).await
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

async fn reported(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    epoch: &mut Epoch,
    report: &CommandReport,
    at: Timestamp,
) -> Result<()> {
    let command = match &report.command {
        Some(id) => Command::by_id(tx, &epoch.organisation, id)
            .await?
            .filter(|c| c.connection == epoch.connection && c.enrollment == epoch.enrollment),
        None => None,
    };
    let standing = standing(epoch, command.as_ref());
    let failed = matches!(report.status, ReportStatus::Error | ReportStatus::CommandFormatError)
        || report.failed_settings.as_ref().is_some_and(|failed| !failed.is_empty());
    if let Some(command) = &command
        && command.state.is_pending()
    {
        let (state, reason) = match report.status {
            ReportStatus::NotNow => (CommandState::NotNow, Some("the device said: not now".to_owned())),
            _ if failed => (CommandState::Failed, first_error(report)),
            _ => (CommandState::Answered, None),
        };
        command.answered(tx, state, reason.as_deref()).await?;
    }
    if report.status == ReportStatus::NotNow {
        return Ok(());
    }
    // A Settings command of ours that was acknowledged with a failed item has failed; nothing else follows from it.
    if let Some(link) = report.errors.first().or(report.failed_settings.as_ref().and_then(|f| f.first())) {
        epoch.facts.last_error = Some(link.clone());
    }
    if let Some(information) = &report.device_information {
        if let Some(serial) = &information.serial
            && !identify(tx, escrow, epoch, serial).await?
        {
            return Ok(());
        }
        let now = tx.now();
        epoch.learn(information, now);
        if let Some(serial) = epoch.serial.clone() {
            devices::learn_information(tx, &epoch.organisation, &serial, information).await?;
            if information.awaiting_configuration == Some(true) {
                devices::window_opened(tx, epoch, &serial, true, false).await?;
            }
        }
    }
    if let Some(security) = &report.security_info {
        epoch.learn_security(security);
    }
    match &report.bypass_code {
        ReportedCode::Code(text) if !failed => {
            code_reported(tx, escrow, epoch, text, standing, report.command.as_deref(), at).await?;
        }
        _ if command.as_ref().is_some_and(|c| c.what == CommandType::BypassCode) && standing == Standing::Newest => {
            epoch.facts.answered_without_code = true;
            epoch.facts.refusal = Refusal::in_chain(&report.errors);
        }
        _ => {}
    }
    Ok(())
}

fn first_error(report: &CommandReport) -> Option<String> {
    report
        .errors
        .first()
        .or(report.failed_settings.as_ref().and_then(|failed| failed.first()))
        .map(|link| format!("{} {}: {}", link.domain, link.code, link.description))
}

/// A code arrived. Until the epoch's serial number is known it is held, sealed; it is never thrown away (R1).
async fn code_reported(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    epoch: &mut Epoch,
    text: &CodeText,
    standing: Standing,
    command: Option<&str>,
    at: Timestamp,
) -> Result<()> {
    if let Some(serial) = epoch.serial.clone() {
        return codes::report(tx, escrow, epoch, &serial, text, standing, command, at).await;
    }
    let (id, now) = (tx.new_id().to_string(), tx.now());
    let cell = seal_text(escrow, HELD, &epoch.organisation, &id, text);
    tx.execute(
        "INSERT INTO held_answers (organisation, id, epoch, command, standing, cell, event_at, recorded_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        params![
            epoch.organisation.as_str(),
            id,
            epoch.id.as_str(),
            command,
            standing.as_str(),
            cell,
            at,
            now
        ],
    )
    .await?;
    Ok(())
}

/// The serial number is known now: the codes that waited for it are put where they belong, in the order they came.
async fn release_held(tx: &mut Tx<'_>, escrow: &Escrow, epoch: &mut Epoch, serial: &SerialNumber) -> Result<()> {
    let held = tx
        .fetch_all(
            "SELECT id, command, standing, cell, event_at FROM held_answers WHERE organisation = $1 AND epoch = $2 \
             ORDER BY id",
            params![epoch.organisation.as_str(), epoch.id.as_str()],
        )
        .await?;
    for row in held {
        let id: String = row.get("id")?;
        let command: Option<String> = row.get("command")?;
        let cell: Vec<u8> = row.get("cell")?;
        let text = open_text(escrow, HELD, &epoch.organisation, &id, &cell)?;
        let mut standing: Standing =
            row.get::<String>("standing")?.parse().map_err(|_| crate::Error::Corrupt("held_answers.standing"))?;
        if !epoch.is_undisputed() {
            standing = Standing::Disputed;
        }
        codes::report(tx, escrow, epoch, serial, &text, standing, command.as_deref(), row.get("event_at")?).await?;
        tx.execute(
            "DELETE FROM held_answers WHERE organisation = $1 AND id = $2",
            params![epoch.organisation.as_str(), id],
        )
        .await?;
    }
    Ok(())
}

/// Decides what is asked of the device next, puts it on record and saves the epoch.
pub(crate) async fn follow_up(tx: &mut Tx<'_>, escrow: &Escrow, epoch: &mut Epoch) -> Result<()> {
    let next_ask_at = if epoch.enrolled_at.is_some() { Some(ask(tx, epoch).await?) } else { None };
    if epoch.enrolled_at.is_some() {
        permit_lock(tx, epoch).await?;
    }
    epoch.save(tx, next_ask_at).await?;
    if let Some(serial) = epoch.serial.clone() {
        mark_doubt(tx, escrow, epoch, &serial).await?;
        devices::refresh_coverage(tx, &epoch.organisation, &serial).await?;
    }
    Ok(())
}

/// Asks for what is due (R6, R8, R10). Gives the moment of the next ask.
async fn ask(tx: &mut Tx<'_>, epoch: &mut Epoch) -> Result<Timestamp> {
    let now = tx.now();
    let product = match &epoch.serial {
        Some(serial) => devices::product_type(tx, &epoch.organisation, serial).await?,
        None => None,
    };
    let not_asked = epoch.why_not_asked(product.as_ref());
    let pending = Command::newest(tx, epoch, CommandType::BypassCode)
        .await?
        .is_some_and(|newest| newest.state.is_pending());
    let mut due = asking::next_ask(&epoch.ask_history(pending));
    let mut information_due = epoch.facts.info_asked_at.is_none_or(|asked| asked.plus(INFORMATION_AGE) <= now);
    if epoch.kind == EnrollmentKind::UserEnrollmentDevice {
        information_due = false;
    }
    if not_asked.is_some() {
        Command::void_pending(tx, epoch, CommandType::BypassCode, "the device is not one that gives a code").await?;
        due = epoch.facts.info_asked_at.unwrap_or(now).plus(asking::WEEK);
    } else if due <= now {
        information_due |= epoch.facts.info_at.is_none() || epoch.triggered_at.is_some_and(|t| t >= due);
    }
    // Who are you before what is your code: an answer of an adopted device waits for its serial number otherwise.
    if information_due {
        let unanswered = epoch.facts.info_asked_at.is_some_and(|asked| asked.plus(DAY) <= now);
        if unanswered {
            Command::void_pending(tx, epoch, CommandType::DeviceInformation, "unanswered").await?;
        }
        if Command::plan(tx, epoch, CommandType::DeviceInformation, "who is it").await? {
            epoch.facts.info_asked_at = Some(now);
        }
    }
    if product.as_ref().is_some_and(|p| p.family() == ProductFamily::Mac)
        && epoch.facts.manageable.is_none()
        && epoch.facts.security_asked_at.is_none_or(|asked| asked.plus(asking::WEEK) <= now)
        && Command::plan(tx, epoch, CommandType::SecurityInfo, "can its lock be managed").await?
    {
        epoch.facts.security_asked_at = Some(now);
    }
    if not_asked.is_none() && due <= now {
        if pending {
            Command::void_pending(tx, epoch, CommandType::BypassCode, "unanswered, asked again").await?;
        }
        Command::plan(tx, epoch, CommandType::BypassCode, "its code").await?;
        epoch.last_asked_at = Some(now);
        due = asking::next_ask(&epoch.ask_history(true));
    }
    Ok(due)
}

/// Sends the permission to lock, or withdraws it, when policy and guard say so (R7).
async fn permit_lock(tx: &mut Tx<'_>, epoch: &mut Epoch) -> Result<()> {
    let policy = organisations::user_lock_policy(tx, &epoch.organisation).await?;
    if policy.wanted().is_none() || !epoch.is_undisputed() {
        return Ok(());
    }
    let Some(serial) = &epoch.serial else { return Ok(()) };
    let product = devices::product_type(tx, &epoch.organisation, serial).await?;
    let sent = Command::newest(tx, epoch, CommandType::LockPermission { allowed: true }).await?;
    let facts = guard::Facts {
        policy,
        not_asked: epoch.why_not_asked(product.as_ref()),
        code_held: epoch.code.is_some(),
        family: product.as_ref().map(|p| p.family()),
        manageable: epoch.facts.manageable,
        read_back: epoch.facts.allowed.zip(epoch.facts.allowed_at).map(|(allowed, at)| ReadBack { allowed, at }),
        sent: sent.as_ref().and_then(sent_permission),
    };
    let now = tx.now();
    match guard::permission(&facts) {
        Permission::SendAllow => {
            if Command::plan(tx, epoch, CommandType::LockPermission { allowed: true }, "policy: allow").await? {
                epoch.facts.first_allow.get_or_insert(now);
            }
        }
        Permission::SendDeny => {
            Command::plan(tx, epoch, CommandType::LockPermission { allowed: false }, "policy: deny").await?;
        }
        Permission::AskSecurityInfo => {
            if Command::plan(tx, epoch, CommandType::SecurityInfo, "can its lock be managed").await? {
                epoch.facts.security_asked_at = Some(now);
            }
        }
        Permission::ReadBack => {
            if Command::plan(tx, epoch, CommandType::DeviceInformation, "has the permission arrived").await? {
                epoch.facts.info_asked_at = Some(now);
            }
        }
        Permission::Nothing(_) => {}
    }
    Ok(())
}

fn sent_permission(command: &Command) -> Option<Sent> {
    let CommandType::LockPermission { allowed } = command.what else { return None };
    let answer = match command.state {
        CommandState::Planned | CommandState::Queued | CommandState::NotNow => guard::Answer::Pending,
        CommandState::Answered => guard::Answer::Acknowledged { at: command.answered_at? },
        CommandState::Failed => guard::Answer::Failed,
        CommandState::Void | CommandState::GivenUp => return None,
    };
    Some(Sent { allowed, answer })
}

/// A code whose device may have been locked before the code was had is doubtful (R7).
async fn mark_doubt(tx: &mut Tx<'_>, escrow: &Escrow, epoch: &Epoch, serial: &SerialNumber) -> Result<()> {
    let (Some(code), Some(gap)) = (&epoch.code, epoch.allowed_before_escrow()) else { return Ok(()) };
    let doubt = format!("allowed_before_escrow_{}", gap.as_str());
    let marked = tx
        .execute(
            "UPDATE codes SET doubt = $4 WHERE organisation = $1 AND serial = $2 AND id = $3 \
             AND (doubt IS NULL OR doubt <> $4)",
            params![epoch.organisation.as_str(), serial.as_str(), code.0.as_str(), doubt],
        )
        .await?;
    if marked == 1 {
        note(tx, escrow, epoch, "code.doubtful", "the lock was allowed before this code was had").await?;
    }
    Ok(())
}
