//! The codes of devices: kept for ever, sealed, compared without being opened (R1-R3, R24).

use activation_lock::codes::{
    self, Candidate, CodeId, CodeKind, CodeOrigin, CodeText, Form, Standing, TextShape,
};
use activation_lock::device::SerialNumber;
use activation_lock::time::Timestamp;
use activation_lock::window;
use seal::{Fingerprint, KeyId, Keyring, Purpose};
use serde_json::json;
use subtle::ConstantTimeEq;

use crate::db::{Row, Tx, Value, params};
use crate::ledger::{DeviceKey, Ledger, NewObservation};
use crate::permit::{Edit, OrganisationId, Permit};
use crate::{Error, Escrow, Result, audit};

mod reveal;

/// The kind of cell that holds a code's text as it was first had.
pub(crate) const CODE: &str = "bypass code";
/// The kind of cell that holds a code's text as a device sent it, where that differs.
pub(crate) const REPORTED_CODE: &str = "bypass code as reported";

/// One code of a device, without its text.
#[derive(Clone, Debug)]
pub struct CodeView {
    /// The row.
    pub id: CodeId,
    /// Who made it.
    pub kind: CodeKind,
    /// How it came to be known.
    pub origin: CodeOrigin,
    /// How its text is written; `Opaque` is shown as a warning (R3).
    pub shape: TextShape,
    /// Whether it is the current code of its kind.
    pub current: bool,
    /// Whether a lock of ours with this code is on (`confirmed`), may be on (`unknown`), or neither (`none`).
    pub lock_state: String,
    /// Why it may not open the lock, if there is a doubt.
    pub doubt: Option<String>,
    /// A note of the person or import that brought it.
    pub note: Option<String>,
    /// The push topic under which it was had.
    pub topic: Option<String>,
    /// When it was first seen.
    pub created_at: Timestamp,
    /// When it was last seen.
    pub seen_at: Timestamp,
    /// When it was last shown to a person, and to whom.
    pub revealed: Option<(Timestamp, String)>,
    /// When a lock was last turned off with it.
    pub used_at: Option<Timestamp>,
}

/// A code with its text, on its way to a person.
pub struct RevealedCode {
    /// The text as a device or person gave it.
    pub text: CodeText,
    /// Everything else about it.
    pub view: CodeView,
}

/// One row of `codes`, as the verbs work on it.
pub(crate) struct CodeRow {
    pub(crate) view: CodeView,
    reported: bool,
    reported_as_kept: bool,
    cell: Vec<u8>,
    reported_cell: Option<Vec<u8>>,
}

macro_rules! select_codes {
    ($rest:literal) => {
        concat!(
            "SELECT codes.id, kind, origin, shape, exact, cell, reported_exact, reported_cell, topic, ",
            "codes.lock_state, doubt, note, revealed_at, revealed_by, used_at, codes.created_at, codes.seen_at, ",
            "CASE WHEN codes.id = device_code OR codes.id = server_code THEN 1 ELSE 0 END AS current ",
            "FROM codes JOIN devices ON devices.organisation = codes.organisation AND devices.serial = codes.serial ",
            $rest
        )
    };
}

impl CodeRow {
    fn from_row(row: &Row) -> Result<Self> {
        let named = |what| move |_| Error::Corrupt(what);
        let exact: String = row.get("exact")?;
        let reported_exact: Option<String> = row.get("reported_exact")?;
        let revealed_at: Option<Timestamp> = row.get("revealed_at")?;
        let revealed_by: Option<String> = row.get("revealed_by")?;
        Ok(Self {
            view: CodeView {
                id: CodeId(row.get("id")?),
                kind: row
                    .get::<String>("kind")?
                    .parse()
                    .map_err(named("codes.kind"))?,
                origin: row
                    .get::<String>("origin")?
                    .parse()
                    .map_err(named("codes.origin"))?,
                shape: shape_from_name(&row.get::<String>("shape")?),
                current: row.get::<i64>("current")? == 1,
                lock_state: row.get("lock_state")?,
                doubt: row.get("doubt")?,
                note: row.get("note")?,
                topic: row.get("topic")?,
                created_at: row.get("created_at")?,
                seen_at: row.get("seen_at")?,
                revealed: revealed_at.zip(revealed_by),
                used_at: row.get("used_at")?,
            },
            reported: reported_exact.is_some(),
            reported_as_kept: reported_exact.as_ref() == Some(&exact),
            cell: row.get("cell")?,
            reported_cell: row.get("reported_cell")?,
        })
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            code: self.view.id.clone(),
            kind: self.view.kind,
            current: self.view.current,
            possibly_live: self.view.kind == CodeKind::Server && self.view.lock_state != "none",
            forms: codes::forms(self.view.shape, self.reported, self.reported_as_kept),
            parses: self.view.shape != TextShape::Opaque,
            last_seen: self.view.seen_at,
            topic: self.view.topic.clone(),
        }
    }

    /// Opens the text that is sent in a form. The caller has put it on record first (R17).
    fn open(&self, escrow: &Escrow, organisation: &OrganisationId, form: Form) -> Result<CodeText> {
        let (kind, cell) = match (&self.reported_cell, form) {
            (Some(cell), Form::Reported) => (REPORTED_CODE, cell),
            _ => (CODE, &self.cell),
        };
        open_text(escrow, kind, organisation, &self.view.id.0, cell)
    }
}

fn shape_name(shape: TextShape) -> &'static str {
    match shape {
        TextShape::Canonical => "canonical",
        TextShape::Lenient => "lenient",
        TextShape::Opaque => "opaque",
    }
}

fn shape_from_name(text: &str) -> TextShape {
    match text {
        "canonical" => TextShape::Canonical,
        "lenient" => TextShape::Lenient,
        _ => TextShape::Opaque,
    }
}

pub(crate) fn seal_text(
    escrow: &Escrow,
    kind: &'static str,
    organisation: &OrganisationId,
    row: &str,
    text: &CodeText,
) -> Vec<u8> {
    escrow.seal_cell(kind, organisation.as_str(), row, text.expose().as_bytes())
}

pub(crate) fn open_text(
    escrow: &Escrow,
    kind: &'static str,
    organisation: &OrganisationId,
    row: &str,
    cell: &[u8],
) -> Result<CodeText> {
    let bytes = escrow.open_cell(kind, organisation.as_str(), row, cell)?;
    std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| CodeText::new(text.to_owned()))
        .ok_or(Error::Corrupt("codes.cell"))
}

async fn rows(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Vec<CodeRow>> {
    tx.fetch_all(
        select_codes!("WHERE codes.organisation = $1 AND codes.serial = $2 ORDER BY codes.id"),
        params![organisation.as_str(), serial.as_str()],
    )
    .await?
    .iter()
    .map(CodeRow::from_row)
    .collect()
}

/// The codes of a device, oldest first, without their texts.
pub(crate) async fn views(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Vec<CodeView>> {
    Ok(rows(tx, organisation, serial)
        .await?
        .into_iter()
        .map(|row| row.view)
        .collect())
}

/// What an unlock of the device can try (R12).
pub(crate) async fn candidates(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Vec<Candidate>> {
    Ok(rows(tx, organisation, serial)
        .await?
        .iter()
        .map(CodeRow::candidate)
        .collect())
}

/// Opens one code for an attempt that is on record (R17), as the text of the form that is to be sent.
pub(crate) async fn open_for_attempt(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    organisation: &OrganisationId,
    code: &CodeId,
    form: Form,
) -> Result<Option<zeroize::Zeroizing<String>>> {
    let row = tx
        .fetch_optional(
            select_codes!("WHERE codes.organisation = $1 AND codes.id = $2"),
            params![organisation.as_str(), code.0.as_str()],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let text = CodeRow::from_row(&row)?.open(escrow, organisation, form)?;
    Ok(Some(text.in_form(form)))
}

/// Opens a code that was made here, for a call that is being put on record in the same transaction (R4, R17).
pub(crate) async fn open_made(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    organisation: &OrganisationId,
    code: &CodeId,
) -> Result<Option<CodeText>> {
    let text = open_for_attempt(tx, escrow, organisation, code, Form::Canonical).await?;
    Ok(text.and_then(|text| CodeText::new(text.as_str().to_owned())))
}

/// Keeps a code that was made here for a lock; gives its row. The same code again is the same row.
pub(crate) async fn keep_made(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    key: &DeviceKey,
    text: &CodeText,
) -> Result<CodeId> {
    let mut ledger = Ledger::new(tx, escrow);
    ledger
        .read(tx, &[], &[key.clone()].into(), &[].into())
        .await?;
    ledger.device_mut(key);
    let incoming = Incoming {
        key,
        text,
        kind: CodeKind::Server,
        origin: CodeOrigin::Made,
        topic: None,
        note: None,
    };
    let same = incoming.find(&ledger);
    let (id, new) = incoming.keep(&mut ledger, same);
    if new {
        let event_at = ledger.now();
        ledger.observed(NewObservation {
            key: key.clone(),
            code: id.clone(),
            standing: "made",
            epoch: None,
            command: None,
            event_at,
        });
    }
    ledger.refresh_coverage(key);
    ledger.write(tx).await?;
    Ok(id)
}

/// A lock was turned off with this code. It is marked and kept (R2).
pub(crate) async fn mark_used(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    code: &CodeId,
) -> Result<()> {
    let now = tx.now();
    tx.execute(
        "UPDATE codes SET used_at = $3 WHERE organisation = $1 AND id = $2",
        params![organisation.as_str(), code.0.as_str(), now],
    )
    .await?;
    Ok(())
}

/// A code of a device as the ledger knows it: enough to recognise it, and what may change.
pub(crate) struct KnownCode {
    pub(crate) id: CodeId,
    pub(crate) kind: CodeKind,
    fingerprint: String,
    fingerprint_key: String,
    exact: String,
    reported: bool,
    topic: Option<String>,
    pub(crate) doubt: Option<String>,
    pub(crate) newly_reported: Option<Reported>,
    pub(crate) changed: bool,
}

/// A code's text as a device sent it.
pub(crate) struct Reported {
    pub(crate) exact: String,
    /// The text, where it differs from the one that is kept.
    pub(crate) cell: Option<Vec<u8>>,
}

/// A row of `codes` that is to be added.
pub(crate) struct NewCode {
    key: DeviceKey,
    id: CodeId,
    kind: CodeKind,
    origin: CodeOrigin,
    shape: TextShape,
    fingerprint: Fingerprint,
    exact: String,
    cell: Vec<u8>,
    topic: Option<String>,
    note: Option<String>,
}

impl KnownCode {
    /// What changes when it is seen again, in the order of [`crate::ledger`]'s statement.
    pub(crate) fn to_json(
        &self,
        organisation: &OrganisationId,
        now: Timestamp,
    ) -> serde_json::Value {
        json!([
            organisation.as_str(),
            self.id,
            now,
            self.kind.as_str(),
            self.topic,
            self.doubt
        ])
    }
}

/// The codes of these devices; `keys` is a JSON array of organisation and serial number.
pub(crate) async fn of_keys(tx: &mut Tx<'_>, keys: &str) -> Result<Vec<(DeviceKey, KnownCode)>> {
    let rows = tx
        .fetch_all(
            "SELECT organisation, serial, id, kind, fingerprint, fingerprint_key, exact, reported_exact, topic, doubt \
             FROM (SELECT value FROM json_each($1)) AS wanted JOIN codes ON organisation = wanted.value ->> 0 \
             AND serial = wanted.value ->> 1",
            params![keys],
        )
        .await?;
    let mut known = Vec::with_capacity(rows.len());
    for row in rows {
        let serial: String = row.get("serial")?;
        let key = (
            row.get("organisation")?,
            serial.parse().map_err(|_| Error::Corrupt("codes.serial"))?,
        );
        let code = KnownCode {
            id: CodeId(row.get("id")?),
            kind: row
                .get::<String>("kind")?
                .parse()
                .map_err(|_| Error::Corrupt("codes.kind"))?,
            fingerprint: row.get("fingerprint")?,
            fingerprint_key: row.get("fingerprint_key")?,
            exact: row.get("exact")?,
            reported: row.get::<Option<String>>("reported_exact")?.is_some(),
            topic: row.get("topic")?,
            doubt: row.get("doubt")?,
            newly_reported: None,
            changed: false,
        };
        known.push((key, code));
    }
    Ok(known)
}

/// Writes new rows.
pub(crate) async fn insert(tx: &mut Tx<'_>, rows: Vec<Vec<Value>>) -> Result<()> {
    tx.execute_each(
        "INSERT INTO codes (organisation, id, serial, kind, origin, shape, fingerprint, fingerprint_key, exact, cell, \
         reported_exact, topic, note, created_at, seen_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14)",
        rows,
    )
    .await?;
    Ok(())
}

impl NewCode {
    /// Every column that it begins with.
    pub(crate) fn to_row(&self, now: Timestamp) -> Vec<Value> {
        let reported = (self.origin == CodeOrigin::Device).then_some(self.exact.as_str());
        params![
            self.key.0.as_str(),
            self.id.0.as_str(),
            self.key.1.as_str(),
            self.kind.as_str(),
            self.origin.as_str(),
            shape_name(self.shape),
            self.fingerprint.hex(),
            self.fingerprint.key_id().to_string(),
            self.exact.as_str(),
            self.cell.clone(),
            reported,
            self.topic.as_deref(),
            self.note.as_deref(),
            now
        ]
    }
}

/// A code that is to be kept.
struct Incoming<'a> {
    key: &'a DeviceKey,
    text: &'a CodeText,
    kind: CodeKind,
    origin: CodeOrigin,
    topic: Option<&'a str>,
    note: Option<&'a str>,
}

impl Incoming<'_> {
    /// The fingerprint of its bytes, under the key of the row that it is compared with.
    fn exact_under(&self, keyring: &Keyring, key: KeyId) -> String {
        let (organisation, serial) = self.key;
        let bytes = self.text.expose().as_bytes();
        keyring
            .fingerprint_under(key, organisation.as_str(), serial.as_str(), bytes)
            .unwrap_or_else(|| keyring.fingerprint(organisation.as_str(), serial.as_str(), bytes))
            .hex()
    }

    /// The row the code has already, looked for under the key of each row.
    fn find(&self, ledger: &Ledger<'_>) -> Option<CodeId> {
        let (organisation, serial) = self.key;
        let form = self.text.comparison_form();
        let keyring = ledger.escrow().keyring();
        let mut prints: Vec<Fingerprint> = Vec::new();
        for known in ledger.codes(self.key) {
            if !prints
                .iter()
                .any(|print| print.key_id().to_string() == known.fingerprint_key)
            {
                prints.extend(
                    keyring
                        .key_ids(Purpose::Fingerprints)
                        .into_iter()
                        .filter_map(|id| {
                            (id.to_string() == known.fingerprint_key)
                                .then(|| {
                                    keyring.fingerprint_under(
                                        id,
                                        organisation.as_str(),
                                        serial.as_str(),
                                        &form,
                                    )
                                })
                                .flatten()
                        }),
                );
            }
            let same = |print: &Fingerprint| {
                Fingerprint::from_hex(print.key_id(), &known.fingerprint)
                    .is_some_and(|on_file| bool::from(print.ct_eq(&on_file)))
            };
            if prints
                .iter()
                .any(|print| print.key_id().to_string() == known.fingerprint_key && same(print))
            {
                return Some(known.id.clone());
            }
        }
        None
    }

    /// Keeps it: as a new row, or in the row it already has (R1). Says which, and whether it is new.
    fn keep(&self, ledger: &mut Ledger<'_>, same: Option<CodeId>) -> (CodeId, bool) {
        let escrow = ledger.escrow();
        let (organisation, serial) = self.key;
        let keyring = escrow.keyring();
        let from_device = self.origin == CodeOrigin::Device;
        if let Some(known) = same.as_ref().and_then(|id| ledger.code_mut(self.key, id)) {
            known.kind = if known.kind == CodeKind::Unknown {
                self.kind
            } else {
                known.kind
            };
            known.topic = self.topic.map(str::to_owned).or(known.topic.take());
            if from_device && !known.reported {
                known.reported = true;
                // Under the key of the row, so that the two can be compared.
                let key = known.fingerprint_key.parse();
                let key = key.unwrap_or_else(|_| keyring.key_ids(Purpose::Fingerprints)[0]);
                let exact = self.exact_under(&keyring, key);
                let cell = (known.exact != exact).then(|| {
                    seal_text(escrow, REPORTED_CODE, organisation, &known.id.0, self.text)
                });
                known.newly_reported = Some(Reported { exact, cell });
            }
            return (known.id.clone(), false);
        }
        let id = ledger.new_id();
        let form = self.text.comparison_form();
        let fingerprint = keyring.fingerprint(organisation.as_str(), serial.as_str(), &form);
        let exact = self.exact_under(&keyring, fingerprint.key_id());
        let known = KnownCode {
            id: CodeId(id.clone()),
            kind: self.kind,
            fingerprint: fingerprint.hex(),
            fingerprint_key: fingerprint.key_id().to_string(),
            exact: exact.clone(),
            reported: from_device,
            topic: self.topic.map(str::to_owned),
            doubt: None,
            newly_reported: None,
            changed: false,
        };
        let new = NewCode {
            key: self.key.clone(),
            id: CodeId(id.clone()),
            kind: self.kind,
            origin: self.origin,
            shape: self.text.shape(),
            fingerprint,
            exact,
            cell: seal_text(escrow, CODE, organisation, &id, self.text),
            topic: known.topic.clone(),
            note: self.note.map(str::to_owned),
        };
        let id = known.id.clone();
        ledger.add_code(self.key, known, new);
        (id, true)
    }
}

/// How a device's answer came: to which ask, and when.
pub(crate) struct Answer<'a> {
    pub(crate) standing: Standing,
    pub(crate) command: Option<&'a str>,
    pub(crate) event_at: Timestamp,
}

/// A device reported a code (R1), in the epoch at `at`. Says whether it is to be asked again.
pub(crate) fn report(
    ledger: &mut Ledger<'_>,
    at: usize,
    key: &DeviceKey,
    text: &CodeText,
    answer: &Answer<'_>,
) -> bool {
    let topic = ledger.epoch(at).topic.clone();
    let incoming = Incoming {
        key,
        text,
        kind: CodeKind::Device,
        origin: CodeOrigin::Device,
        topic: topic.as_deref(),
        note: None,
    };
    let current = ledger
        .device(key)
        .and_then(|device| device.device_code.clone());
    let same = incoming.find(ledger);
    let retention = codes::retain(current.as_ref(), same.as_ref(), answer.standing);
    let (id, new) = incoming.keep(ledger, retention.existing);
    let epoch = ledger.epoch(at).id.clone();
    ledger.observed(NewObservation {
        key: key.clone(),
        code: id.clone(),
        standing: answer.standing.as_str(),
        epoch: Some(epoch),
        command: answer.command.map(str::to_owned),
        event_at: answer.event_at,
    });

    let now = ledger.now();
    let moved = answer.standing == Standing::Newest && current.as_ref() != Some(&id);
    if moved {
        ledger.device_mut(key).device_code = Some(id.clone());
    }
    if answer.standing == Standing::Newest {
        if retention.replaces && ledger.epoch(at).code.is_none() {
            let opened_at = ledger.epoch(at).opened_at;
            ledger.window_opened(key, opened_at, window::evidence(false, true));
        }
        let epoch = ledger.epoch_mut(at);
        epoch.code = Some(id.clone());
        epoch.code_at.get_or_insert(now);
        epoch.facts.answered_without_code = false;
        epoch.facts.refusal = None;
    }
    if new || moved {
        let actor = ledger
            .escrow()
            .connection_actor(&ledger.epoch(at).connection);
        let entry = audit::Entry::by(&actor, &key.0, "code.recorded")
            .subject(key.1.as_str())
            .detail("code", id.0.as_str())
            .detail("standing", answer.standing.as_str())
            .detail("new", new)
            .detail("replaces", retention.replaces);
        ledger.audit(entry);
    }
    retention.ask_again
}

/// A code typed by a person.
pub struct TypedCode {
    /// The device; it is created when it is not known yet.
    pub serial: SerialNumber,
    /// The text as typed; kept even when it does not parse (R3).
    pub text: CodeText,
    /// Who made it, where the person knows.
    pub kind: CodeKind,
    /// Where it comes from, in the person's words; at most 200 characters are kept.
    pub note: Option<String>,
}

/// What came of a typed code.
#[derive(Clone, Debug)]
pub struct Typed {
    /// Its row.
    pub code: CodeId,
    /// False when this very code was known already.
    pub new: bool,
    /// How it is written; `Opaque` deserves a warning.
    pub shape: TextShape,
}

/// The verbs on codes. See [`Escrow::codes`].
pub struct Codes<'a>(pub(crate) &'a Escrow);

impl Codes<'_> {
    /// Keeps a code that a person typed, as a candidate: it never replaces what a device said (R1).
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn add_typed(&self, permit: &Permit<Edit>, typed: TypedCode) -> Result<Typed> {
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let typed = std::sync::Arc::new(typed);
        let result = self
            .0
            .db
            .write("codes.add_typed", async move |tx| {
                confirmed.confirm(tx).await?;
                let organisation = confirmed.organisation().clone();
                let key = (organisation, typed.serial.clone());
                let mut ledger = Ledger::new(tx, &escrow);
                ledger
                    .read(tx, &[], &[key.clone()].into(), &[].into())
                    .await?;
                ledger.device_mut(&key);
                let note: Option<String> =
                    typed.note.as_ref().map(|n| n.chars().take(200).collect());
                let incoming = Incoming {
                    key: &key,
                    text: &typed.text,
                    kind: typed.kind,
                    origin: CodeOrigin::Person,
                    topic: None,
                    note: note.as_deref(),
                };
                let same = incoming.find(&ledger);
                let (id, new) = incoming.keep(&mut ledger, same);
                let event_at = ledger.now();
                ledger.observed(NewObservation {
                    key: key.clone(),
                    code: id.clone(),
                    standing: "typed",
                    epoch: None,
                    command: None,
                    event_at,
                });
                let entry = confirmed
                    .entry("code.typed")
                    .subject(typed.serial.as_str())
                    .detail("code", id.0.as_str())
                    .detail("new", new);
                ledger.audit(entry);
                ledger.refresh_coverage(&key);
                ledger.write(tx).await?;
                Ok(Typed {
                    code: id,
                    new,
                    shape: typed.text.shape(),
                })
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }
}
