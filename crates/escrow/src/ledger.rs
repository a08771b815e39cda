//! What a verb about devices works on: their rows, read together, changed in memory, written back together.
//!
//! The rules of `record` are plain functions over a ledger. Reading and writing take the same number of statements for
//! one event as for hundreds, each with one JSON parameter.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use activation_lock::codes::{CodeId, CodeKind, Standing};
use activation_lock::device::{CellularIdentity, IdentitySource, ProductType, SerialNumber};
use activation_lock::guard::UserLockPolicy;
use activation_lock::time::Timestamp;
use activation_lock::window;
use serde_json::{Value as Json, json};

use crate::codes::{KnownCode, NewCode};
use crate::commands::{Command, CommandState, CommandType};
use crate::connections::ConnectionRef;
use crate::coverage::{self, CoverageState};
use crate::db::{Tx, params};
use crate::devices::{self, Device};
use crate::enrollments::{Epoch, EpochState, OpenedBy};
use crate::permit::OrganisationId;
use crate::{Escrow, Result, audit, codes, organisations, search};

mod held;

pub(crate) use held::{Held, HeldChange};

/// A device's key.
pub(crate) type DeviceKey = (OrganisationId, SerialNumber);
/// An enrollment's key: connection and the MDM's name for it.
pub(crate) type EnrollmentKey = (ConnectionRef, String);

/// An observation of a code that is to be added.
pub(crate) struct NewObservation {
    pub(crate) key: DeviceKey,
    pub(crate) code: CodeId,
    pub(crate) standing: &'static str,
    pub(crate) epoch: Option<String>,
    pub(crate) command: Option<String>,
    pub(crate) event_at: Timestamp,
}

/// An epoch in the ledger.
pub(crate) struct EpochEntry {
    pub(crate) epoch: Epoch,
    pub(crate) next_ask_at: Option<Timestamp>,
    pub(crate) changed: bool,
    /// What of it is in indexes, as it is on file; `None` when it is new.
    place_on_file: Option<EpochPlace>,
}

type EpochPlace = (Option<SerialNumber>, EpochState, Option<Timestamp>);

/// A command in the ledger.
struct CommandEntry {
    command: Command,
    cause: Option<String>,
    changed: bool,
}

/// The rows that a verb works on.
pub(crate) struct Ledger<'e> {
    escrow: &'e Escrow,
    now: Timestamp,
    epochs: Vec<EpochEntry>,
    devices: BTreeMap<DeviceKey, Device>,
    codes: HashMap<DeviceKey, Vec<KnownCode>>,
    new_codes: Vec<NewCode>,
    commands: HashMap<String, CommandEntry>,
    policies: HashMap<OrganisationId, UserLockPolicy>,
    held: Vec<Held>,
    released: Vec<(OrganisationId, String)>,
    observations: Vec<NewObservation>,
    audit: Vec<audit::Entry>,
    ids: crate::db::IdSource,
}

/// Rows for one JSON parameter.
fn rows(rows: impl IntoIterator<Item = Json>) -> String {
    Json::Array(rows.into_iter().collect()).to_string()
}

/// Writes devices. Columns of indexes are set only where they change: to set one is to write the index.
macro_rules! upsert_devices {
    ($places:literal) => {
        concat!(
            "INSERT INTO devices (organisation, serial, product_type, product_source, imei, imei2, meid, \
             cellular_source, model_name, device_name, os_version, device_code, connection, coverage, coverage_reason, \
             window_evidence, window_opened_at, window_closes_at, suspect, created_at, seen_at, listed_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22) \
             ON CONFLICT (organisation, serial) DO UPDATE SET product_source = excluded.product_source, imei = excluded.imei, \
             imei2 = excluded.imei2, meid = excluded.meid, cellular_source = excluded.cellular_source, \
             model_name = excluded.model_name, device_name = excluded.device_name, os_version = excluded.os_version, \
             device_code = excluded.device_code, coverage_reason = excluded.coverage_reason, \
             window_evidence = excluded.window_evidence, window_opened_at = excluded.window_opened_at, \
             suspect = excluded.suspect, seen_at = excluded.seen_at, listed_at = excluded.listed_at",
            $places
        )
    };
}

/// Writes epochs, as devices are written.
macro_rules! upsert_epochs {
    ($places:literal) => {
        concat!(
            "INSERT INTO epochs (organisation, id, connection, enrollment, kind, serial, udid, topic, opened_by, \
             opened_at, event_at, authenticated_at, enrolled_at, state, state_reason, closed_at, code, code_at, facts, \
             last_asked_at, triggered_at, answers_lost_at, next_ask_at, seen_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24) \
             ON CONFLICT (organisation, id) DO UPDATE SET udid = excluded.udid, topic = excluded.topic, \
             authenticated_at = excluded.authenticated_at, enrolled_at = excluded.enrolled_at, \
             state_reason = excluded.state_reason, code = excluded.code, code_at = excluded.code_at, facts = excluded.facts, \
             last_asked_at = excluded.last_asked_at, triggered_at = excluded.triggered_at, \
             answers_lost_at = excluded.answers_lost_at, next_ask_at = excluded.next_ask_at, seen_at = excluded.seen_at",
            $places
        )
    };
}

impl<'e> Ledger<'e> {
    pub(crate) fn new(tx: &Tx<'_>, escrow: &'e Escrow) -> Self {
        Self {
            escrow,
            now: tx.now(),
            epochs: Vec::new(),
            devices: BTreeMap::new(),
            codes: HashMap::new(),
            new_codes: Vec::new(),
            commands: HashMap::new(),
            policies: HashMap::new(),
            held: Vec::new(),
            released: Vec::new(),
            observations: Vec::new(),
            audit: Vec::new(),
            ids: tx.ids(),
        }
    }

    /// Reads what events of these enrollments can touch: their live epochs, the devices named by them or by `serials`, the
    /// other open epochs of those, their codes, the commands that are pending or named by `commands`, and the epochs and
    /// devices that those were for.
    pub(crate) async fn read(
        &mut self,
        tx: &mut Tx<'_>,
        enrollments: &[EnrollmentKey],
        serials: &BTreeSet<DeviceKey>,
        commands: &BTreeSet<(OrganisationId, String)>,
    ) -> Result<()> {
        let mut epochs = Vec::new();
        if !enrollments.is_empty() {
            epochs = Epoch::live_of(tx, enrollments).await?;
            let live: HashSet<(&str, &str)> = epochs
                .iter()
                .map(|epoch| (epoch.connection.as_str(), epoch.enrollment.as_str()))
                .collect();
            let fresh = enrollments
                .iter()
                .filter(|(c, enrollment)| !live.contains(&(c.id.as_str(), enrollment.as_str())));
            let nameless = Epoch::nameless_of(tx, fresh).await?;
            epochs.extend(nameless);
        }
        let mut named = Vec::new();
        if !commands.is_empty() {
            let ids = rows(commands.iter().map(|(o, id)| json!([o.as_str(), id])));
            named = Command::of_ids(tx, &ids).await?;
        }
        let earlier: Vec<Json> = named
            .iter()
            .filter(|command| epochs.iter().all(|epoch| epoch.id != command.epoch))
            .map(|command| json!([command.organisation.as_str(), command.epoch]))
            .collect();
        if !earlier.is_empty() {
            epochs.extend(Epoch::of_ids(tx, &rows(earlier)).await?);
        }
        self.read_devices(tx, epochs, serials.clone(), named).await
    }

    /// Reads what belongs to these epochs and devices.
    pub(crate) async fn read_devices(
        &mut self,
        tx: &mut Tx<'_>,
        epochs: Vec<Epoch>,
        mut serials: BTreeSet<DeviceKey>,
        named: Vec<Command>,
    ) -> Result<()> {
        for epoch in &epochs {
            if let Some(serial) = &epoch.serial {
                serials.insert((epoch.organisation.clone(), serial.clone()));
            }
        }
        let mut seen: HashSet<String> = epochs.iter().map(|epoch| epoch.id.clone()).collect();
        self.epochs = epochs.into_iter().map(EpochEntry::unchanged).collect();
        if !serials.is_empty() {
            let keys = rows(serials.iter().map(|(o, s)| json!([o.as_str(), s.as_str()])));
            for device in Device::of_keys(tx, &keys).await? {
                self.devices.insert(device.key(), device);
            }
            for epoch in Epoch::open_of_keys(tx, &keys).await? {
                if seen.insert(epoch.id.clone()) {
                    self.epochs.push(EpochEntry::unchanged(epoch));
                }
            }
            for (key, code) in codes::of_keys(tx, &keys).await? {
                self.codes.entry(key).or_default().push(code);
            }
        }
        self.read_held(tx).await?;
        self.read_commands(tx, named).await?;
        let organisations: BTreeSet<OrganisationId> = self
            .epochs
            .iter()
            .map(|e| e.epoch.organisation.clone())
            .chain(serials.into_iter().map(|(o, _)| o))
            .collect();
        for organisation in organisations {
            self.read_policy(tx, &organisation).await?;
        }
        Ok(())
    }

    pub(crate) async fn read_policy(
        &mut self,
        tx: &mut Tx<'_>,
        organisation: &OrganisationId,
    ) -> Result<()> {
        if !self.policies.contains_key(organisation) {
            let policy = organisations::user_lock_policy(tx, organisation).await?;
            self.policies.insert(organisation.clone(), policy);
        }
        Ok(())
    }

    async fn read_commands(&mut self, tx: &mut Tx<'_>, named: Vec<Command>) -> Result<()> {
        let mut found = named;
        if !self.epochs.is_empty() {
            let epochs = rows(
                self.epochs
                    .iter()
                    .map(|e| json!([e.epoch.organisation.as_str(), e.epoch.id.as_str()])),
            );
            found.extend(Command::pending_of(tx, &epochs).await?);
            let watched: Vec<Json> = self
                .epochs
                .iter()
                .filter(|e| e.epoch.facts.permission_sent)
                .map(|e| json!([e.epoch.organisation.as_str(), e.epoch.id.as_str()]))
                .collect();
            if !watched.is_empty() {
                found.extend(Command::permissions_of(tx, &rows(watched)).await?);
            }
        }
        for command in found {
            self.commands.insert(
                command.id.clone(),
                CommandEntry {
                    command,
                    cause: None,
                    changed: false,
                },
            );
        }
        Ok(())
    }

    pub(crate) fn escrow(&self) -> &'e Escrow {
        self.escrow
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn new_id(&self) -> String {
        self.ids.next(self.now).to_string()
    }

    pub(crate) fn policy(&self, organisation: &OrganisationId) -> UserLockPolicy {
        self.policies.get(organisation).copied().unwrap_or_default()
    }

    pub(crate) fn audit(&mut self, entry: audit::Entry) {
        self.audit.push(entry);
    }

    pub(crate) fn observed(&mut self, observation: NewObservation) {
        self.observations.push(observation);
    }

    // Epochs: by index, for two of them are changed at once in a dispute.

    pub(crate) fn live_epoch(&self, connection: &ConnectionRef, enrollment: &str) -> Option<usize> {
        self.epochs.iter().position(|e| {
            e.epoch.closed_at.is_none()
                && e.epoch.enrollment == enrollment
                && e.epoch.connection == connection.id
                && e.epoch.organisation == connection.organisation
        })
    }

    pub(crate) fn epoch_of_id(&self, id: &str) -> Option<usize> {
        self.epochs.iter().position(|e| e.epoch.id == id)
    }

    pub(crate) fn open_epochs(&self, key: &DeviceKey) -> Vec<usize> {
        let mut open: Vec<usize> = (0..self.epochs.len())
            .filter(|at| {
                let epoch = &self.epochs[*at].epoch;
                epoch.closed_at.is_none()
                    && epoch.organisation == key.0
                    && epoch.serial.as_ref() == Some(&key.1)
            })
            .collect();
        open.sort_by(|a, b| self.epochs[*a].epoch.id.cmp(&self.epochs[*b].epoch.id));
        open
    }

    pub(crate) fn epoch(&self, at: usize) -> &Epoch {
        &self.epochs[at].epoch
    }

    pub(crate) fn epoch_mut(&mut self, at: usize) -> &mut Epoch {
        let entry = &mut self.epochs[at];
        entry.changed = true;
        &mut entry.epoch
    }

    pub(crate) fn next_ask(&mut self, at: usize, next_ask_at: Option<Timestamp>) {
        self.epochs[at].next_ask_at = next_ask_at;
        self.epochs[at].changed = true;
    }

    pub(crate) fn open_epoch(
        &mut self,
        connection: &ConnectionRef,
        enrollment: &str,
        kind: activation_lock::observation::EnrollmentKind,
        opened_by: OpenedBy,
        event_at: Timestamp,
    ) -> usize {
        let epoch = Epoch::new(
            self.new_id(),
            connection,
            enrollment,
            kind,
            opened_by,
            event_at,
            self.now,
        );
        self.epochs.push(EpochEntry {
            epoch,
            next_ask_at: None,
            changed: true,
            place_on_file: None,
        });
        let at = self.epochs.len() - 1;
        self.inherit_held(at);
        at
    }

    /// Ends an epoch: its pending commands are void (R8), its codes stay (R2).
    pub(crate) fn close_epoch(&mut self, at: usize, state: EpochState, reason: &str) {
        let now = self.now;
        let epoch = self.epoch_mut(at);
        epoch.state = state;
        epoch.state_reason = Some(reason.to_owned());
        epoch.closed_at = Some(now);
        let id = epoch.id.clone();
        self.next_ask(at, None);
        for entry in self.commands.values_mut() {
            if entry.command.epoch == id && entry.command.state.is_pending() {
                entry.command.state = CommandState::Void;
                entry.command.reason = Some(reason.to_owned());
                entry.changed = true;
            }
        }
    }

    // Devices.

    pub(crate) fn device(&self, key: &DeviceKey) -> Option<&Device> {
        self.devices.get(key)
    }

    pub(crate) fn product_type(&self, at: usize) -> Option<&ProductType> {
        let epoch = self.epoch(at);
        let key = (epoch.organisation.clone(), epoch.serial.clone()?);
        self.device(&key)?.product_type.as_ref()
    }

    /// The device, made when it is not there.
    pub(crate) fn device_mut(&mut self, key: &DeviceKey) -> &mut Device {
        let now = self.now;
        let device = self
            .devices
            .entry(key.clone())
            .or_insert_with(|| Device::new(key, now));
        device.changed = true;
        device
    }

    /// Works out anew whether the code of a device is held, and why not.
    pub(crate) fn refresh_coverage(&mut self, key: &DeviceKey) {
        let newest = self.open_epochs(key).pop().map(|at| self.epoch(at));
        let Some(device) = self.devices.get(key) else {
            return;
        };
        let (state, reason) = match newest {
            None if device.device_code.is_some() => (CoverageState::Covered, None),
            // A code made here for a lock of ours opens no lock of a person.
            None if self
                .codes(key)
                .iter()
                .any(|known| known.kind != CodeKind::Server) =>
            {
                (CoverageState::Covered, Some("kept_only"))
            }
            None if device.was_only_listed() => (CoverageState::Exempt, Some("never_enrolled")),
            None => (CoverageState::Missing, Some("not_enrolled")),
            Some(epoch) => devices::covered_in(epoch, device.product_type.as_ref()),
        };
        if device.coverage != state || device.coverage_reason.as_deref() != reason {
            let device = self.device_mut(key);
            device.coverage = state;
            device.coverage_reason = reason.map(str::to_owned);
        }
    }

    /// An epoch was opened without evidence of an erase: whatever is known of the 15 days is of an earlier one (R9).
    pub(crate) fn window_of_before(&mut self, key: &DeviceKey, opened_at: Timestamp) {
        if self
            .device(key)
            .is_some_and(|d| d.window_opened_at.is_some_and(|had| had < opened_at))
        {
            let device = self.device_mut(key);
            device.window_opened_at = None;
            device.window_evidence = None;
        }
    }

    /// The device was set up afresh: the 15 days run from the start of this epoch (R9).
    pub(crate) fn window_opened(
        &mut self,
        key: &DeviceKey,
        opened_at: Timestamp,
        evidence: Option<window::Evidence>,
    ) {
        let Some(evidence) = evidence else { return };
        if self
            .device(key)
            .is_some_and(|d| d.window_opened_at.is_some_and(|had| had >= opened_at))
        {
            return;
        }
        let device = self.device_mut(key);
        device.window_opened_at = Some(opened_at);
        device.window_evidence = Some(evidence);
    }

    // Codes.

    pub(crate) fn codes(&self, key: &DeviceKey) -> &[KnownCode] {
        self.codes.get(key).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn code_mut(&mut self, key: &DeviceKey, id: &CodeId) -> Option<&mut KnownCode> {
        let code = self
            .codes
            .get_mut(key)?
            .iter_mut()
            .find(|code| code.id == *id)?;
        code.changed = true;
        Some(code)
    }

    pub(crate) fn add_code(&mut self, key: &DeviceKey, known: KnownCode, new: NewCode) {
        self.codes.entry(key.clone()).or_default().push(known);
        self.new_codes.push(new);
    }

    // Commands.

    pub(crate) fn command(&self, organisation: &OrganisationId, id: &str) -> Option<&Command> {
        self.commands
            .get(id)
            .map(|entry| &entry.command)
            .filter(|command| command.organisation == *organisation)
    }

    pub(crate) fn pending(&self, at: usize, what: CommandType) -> Option<&Command> {
        let epoch = &self.epoch(at).id;
        self.commands
            .values()
            .map(|entry| &entry.command)
            .find(|c| {
                c.epoch == *epoch
                    && c.state.is_pending()
                    && c.what.request_type() == what.request_type()
            })
    }

    /// The newest permission command of an epoch.
    pub(crate) fn newest_permission(&self, at: usize) -> Option<&Command> {
        let epoch = &self.epoch(at).id;
        self.commands
            .values()
            .map(|entry| &entry.command)
            .filter(|c| c.epoch == *epoch && matches!(c.what, CommandType::LockPermission { .. }))
            .max_by(|a, b| a.id.cmp(&b.id))
    }

    /// Puts a command on record, unless one of its type is pending in the epoch (R8). Says whether it did.
    pub(crate) fn plan(&mut self, at: usize, what: CommandType, cause: &str) -> bool {
        if self.pending(at, what).is_some() {
            return false;
        }
        let command = Command::new(self.new_id(), self.epoch(at), what, self.now);
        let entry = CommandEntry {
            command,
            cause: Some(cause.to_owned()),
            changed: true,
        };
        self.commands.insert(entry.command.id.clone(), entry);
        true
    }

    /// Makes room for a new command: the pending one, whose answer may never come, no longer counts.
    pub(crate) fn void_pending(&mut self, at: usize, what: CommandType, reason: &str) {
        if let Some(id) = self.pending(at, what).map(|command| command.id.clone()) {
            self.answered(&id, CommandState::Void, Some(reason.to_owned()));
        }
    }

    pub(crate) fn answered(&mut self, id: &str, state: CommandState, reason: Option<String>) {
        let now = self.now;
        if let Some(entry) = self.commands.get_mut(id) {
            entry.command.state = state;
            entry.command.reason = reason;
            entry.command.answered_at = state.has_final_answer().then_some(now);
            entry.changed = true;
        }
    }

    /// Writes back everything that changed.
    pub(crate) async fn write(mut self, tx: &mut Tx<'_>) -> Result<()> {
        self.write_devices(tx).await?;
        self.write_epochs(tx).await?;
        self.write_commands(tx).await?;
        self.write_codes(tx).await?;
        self.write_held(tx).await?;
        audit::record_all(tx, self.escrow, std::mem::take(&mut self.audit)).await
    }

    async fn write_devices(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let changed: Vec<&Device> = self
            .devices
            .values()
            .filter(|device| device.changed)
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        let (moved, others): (Vec<_>, Vec<_>) =
            changed.iter().partition(|device| device.has_moved());
        let rows = |devices: Vec<&&Device>| devices.iter().map(|device| device.to_row()).collect();
        tx.execute_each(
            upsert_devices!(
                ", product_type = excluded.product_type, connection = excluded.connection, coverage = excluded.coverage, \
                 window_closes_at = excluded.window_closes_at"
            ),
            rows(moved),
        )
        .await?;
        tx.execute_each(upsert_devices!(""), rows(others)).await?;
        let mut counts: BTreeMap<(OrganisationId, &'static str), (CoverageState, i64)> =
            BTreeMap::new();
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for device in changed {
            let mut count = |state: CoverageState, change| {
                counts
                    .entry((device.organisation.clone(), state.as_str()))
                    .or_insert((state, 0))
                    .1 += change;
            };
            if device.coverage_on_file() != Some(device.coverage) {
                if let Some(had) = device.coverage_on_file() {
                    count(had, -1);
                }
                count(device.coverage, 1);
            }
            let (organisation, serial) = (device.organisation.as_str(), device.serial.as_str());
            for (source, had, has) in device.terms() {
                if had == has {
                    continue;
                }
                let (had, has) = (search::words(&had), search::words(&has));
                let row = |term: &String| params![organisation, term, serial, source];
                gone.extend(had.iter().filter(|term| !has.contains(term)).map(row));
                come.extend(has.iter().filter(|term| !had.contains(term)).map(row));
            }
        }
        for ((organisation, _), (state, change)) in counts {
            if change != 0 {
                coverage::count(tx, &organisation, state, change).await?;
            }
        }
        search::change(tx, gone, come).await
    }

    async fn write_epochs(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let mut changed: Vec<&EpochEntry> =
            self.epochs.iter().filter(|entry| entry.changed).collect();
        if changed.is_empty() {
            return Ok(());
        }
        // Closed ones first: an enrollment has one live epoch at a time.
        changed.sort_by_key(|entry| entry.epoch.closed_at.is_none());
        let (moved, others): (Vec<_>, Vec<_>) = changed.iter().partition(|entry| entry.has_moved());
        let rows = |entries: Vec<&&EpochEntry>| {
            let rows = entries.iter();
            rows.map(|entry| entry.epoch.to_row(entry.next_ask_at))
                .collect()
        };
        tx.execute_each(
            upsert_epochs!(
                ", serial = excluded.serial, state = excluded.state, closed_at = excluded.closed_at"
            ),
            rows(moved),
        )
        .await?;
        tx.execute_each(upsert_epochs!(""), rows(others)).await?;
        Ok(())
    }

    async fn write_commands(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let mut changed: Vec<&CommandEntry> = self
            .commands
            .values()
            .filter(|entry| entry.changed)
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        // Those that are no longer pending first: one of a type is pending in an epoch.
        changed.sort_by(|a, b| {
            (a.command.state.is_pending(), &a.command.id)
                .cmp(&(b.command.state.is_pending(), &b.command.id))
        });
        tx.execute_each(
            "INSERT INTO commands (organisation, id, epoch, connection, enrollment, type, argument, cause, state, reason, \
             due_at, tries, created_at, answered_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, $11, $12) \
             ON CONFLICT (organisation, id) DO UPDATE SET state = excluded.state, reason = excluded.reason, \
             answered_at = excluded.answered_at, leased_until = NULL",
            changed
                .iter()
                .map(|entry| entry.command.to_row(entry.cause.as_deref()))
                .collect(),
        )
        .await?;
        Ok(())
    }

    async fn write_codes(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let new = self.new_codes.iter().map(|new| new.to_row(self.now));
        codes::insert(tx, new.collect()).await?;
        let seen: Vec<Json> = self
            .codes
            .iter()
            .flat_map(|(key, codes)| {
                codes
                    .iter()
                    .filter(|code| code.changed)
                    .map(|code| code.to_json(&key.0, self.now))
            })
            .collect();
        if !seen.is_empty() {
            tx.execute(
                "UPDATE codes SET seen_at = CAST(seen.value ->> 2 AS BIGINT), kind = seen.value ->> 3, \
                 topic = COALESCE(seen.value ->> 4, topic), doubt = seen.value ->> 5 FROM (SELECT value FROM json_each($1)) AS seen \
                 WHERE codes.organisation = seen.value ->> 0 AND codes.id = seen.value ->> 1",
                params![rows(seen)],
            )
            .await?;
        }
        for (key, codes) in &self.codes {
            for code in codes {
                if let Some(reported) = &code.newly_reported {
                    tx.execute(
                        "UPDATE codes SET reported_exact = $3, reported_cell = $4 WHERE organisation = $1 AND id = $2",
                        params![
                            key.0.as_str(),
                            code.id.0.as_str(),
                            reported.exact.as_str(),
                            reported.cell.clone()
                        ],
                    )
                    .await?;
                }
            }
        }
        if self.observations.is_empty() {
            return Ok(());
        }
        let observations = self.observations.iter().map(|o| {
            params![
                o.key.0.as_str(),
                self.new_id(),
                o.key.1.as_str(),
                o.code.0.as_str(),
                o.standing,
                o.epoch.as_deref(),
                o.command.as_deref(),
                o.event_at,
                self.now
            ]
        });
        tx.execute_each(
            "INSERT INTO code_observations (organisation, id, serial, code, standing, epoch, command, event_at, \
             recorded_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            observations.collect(),
        )
        .await?;
        Ok(())
    }
}

impl EpochEntry {
    fn unchanged(epoch: Epoch) -> Self {
        Self {
            next_ask_at: epoch.next_ask_at,
            place_on_file: Some(Self::place(&epoch)),
            epoch,
            changed: false,
        }
    }

    fn place(epoch: &Epoch) -> EpochPlace {
        (epoch.serial.clone(), epoch.state, epoch.closed_at)
    }

    fn has_moved(&self) -> bool {
        self.place_on_file != Some(Self::place(&self.epoch))
    }
}

/// The identity values that a report may set, and where they come from.
pub(crate) struct Told<'a> {
    pub(crate) product_type: Option<&'a ProductType>,
    pub(crate) model_name: Option<&'a str>,
    pub(crate) device_name: Option<&'a str>,
    pub(crate) os_version: Option<&'a str>,
    pub(crate) cellular: &'a CellularIdentity,
    pub(crate) source: IdentitySource,
}
