//! The codes of devices: kept for ever, sealed, compared without being opened (R1-R3, R24).

use activation_lock::asking::Trigger;
use activation_lock::codes::{
    self, Candidate, CodeId, CodeKind, CodeOrigin, CodeText, Form, Standing, TextShape,
};
use activation_lock::device::SerialNumber;
use activation_lock::time::Timestamp;
use seal::Fingerprint;

use crate::db::{Row, Tx, params};
use crate::enrollments::Epoch;
use crate::permit::{Edit, OrganisationId, Permit, Reveal};
use crate::{Error, Escrow, Result, audit, commands, devices};

/// The kind of cell that holds a code's text as it was first had.
const CODE: &str = "bypass code";
/// The kind of cell that holds a code's text as a device sent it, where that differs.
const REPORTED_CODE: &str = "bypass code as reported";

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
            "SELECT codes.id, kind, origin, shape, exact, cell, reported_exact, reported_cell, topic, lock_state, doubt, ",
            "note, revealed_at, revealed_by, used_at, codes.created_at, codes.seen_at, ",
            "CASE WHEN codes.id = device_code OR codes.id = server_code THEN 1 ELSE 0 END AS current ",
            "FROM codes JOIN devices ON devices.organisation = codes.organisation AND devices.serial = codes.serial ",
            $rest
        )
    };
}

impl CodeRow {
    fn from_row(row: &Row) -> Result<Self> {
        let named = |what| move |_| Error::Corrupt(what);
        let exact: Vec<u8> = row.get("exact")?;
        let reported_exact: Option<Vec<u8>> = row.get("reported_exact")?;
        let revealed_at: Option<Timestamp> = row.get("revealed_at")?;
        let revealed_by: Option<String> = row.get("revealed_by")?;
        Ok(Self {
            view: CodeView {
                id: CodeId(row.get("id")?),
                kind: row.get::<String>("kind")?.parse().map_err(named("codes.kind"))?,
                origin: row.get::<String>("origin")?.parse().map_err(named("codes.origin"))?,
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

async fn rows(tx: &mut Tx<'_>, organisation: &OrganisationId, serial: &SerialNumber) -> Result<Vec<CodeRow>> {
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
    Ok(rows(tx, organisation, serial).await?.into_iter().map(|row| row.view).collect())
}

/// What an unlock of the device can try (R12).
pub(crate) async fn candidates(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Vec<Candidate>> {
    Ok(rows(tx, organisation, serial).await?.iter().map(CodeRow::candidate).collect())
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

/// A lock was turned off with this code. It is marked and kept (R2).
pub(crate) async fn mark_used(tx: &mut Tx<'_>, organisation: &OrganisationId, code: &CodeId) -> Result<()> {
    let now = tx.now();
    tx.execute(
        "UPDATE codes SET used_at = $3, lock_state = 'none' WHERE organisation = $1 AND id = $2",
        params![organisation.as_str(), code.0.as_str(), now],
    )
    .await?;
    Ok(())
}

/// A code that is to be kept.
struct Incoming<'a> {
    organisation: &'a OrganisationId,
    serial: &'a SerialNumber,
    text: &'a CodeText,
    kind: CodeKind,
    origin: CodeOrigin,
    topic: Option<&'a str>,
    note: Option<&'a str>,
}

struct Kept {
    id: CodeId,
    new: bool,
}

fn fingerprint(escrow: &Escrow, incoming: &Incoming<'_>) -> Fingerprint {
    escrow.keyring().fingerprint(
        incoming.organisation.as_str(),
        incoming.serial.as_str(),
        &incoming.text.comparison_form(),
    )
}

/// Looks for the row of a code, under every fingerprint key in use.
async fn find(tx: &mut Tx<'_>, escrow: &Escrow, incoming: &Incoming<'_>) -> Result<Option<CodeId>> {
    for key in escrow.keyring().key_ids(seal::Purpose::Fingerprints) {
        let Some(print) = escrow.keyring().fingerprint_under(
            key,
            incoming.organisation.as_str(),
            incoming.serial.as_str(),
            &incoming.text.comparison_form(),
        ) else {
            continue;
        };
        let row = tx
            .fetch_optional(
                "SELECT id FROM codes WHERE organisation = $1 AND serial = $2 AND fingerprint = $3",
                params![incoming.organisation.as_str(), incoming.serial.as_str(), print.as_bytes().to_vec()],
            )
            .await?;
        if let Some(row) = row {
            return Ok(Some(CodeId(row.get("id")?)));
        }
    }
    Ok(None)
}

/// Keeps a code: a new row, or the row it already has (R1).
async fn keep(tx: &mut Tx<'_>, escrow: &Escrow, incoming: &Incoming<'_>, same: Option<CodeId>) -> Result<Kept> {
    let now = tx.now();
    let (organisation, serial) = (incoming.organisation, incoming.serial);
    let exact = escrow.keyring().fingerprint(
        organisation.as_str(),
        serial.as_str(),
        incoming.text.expose().as_bytes(),
    );
    let exact = exact.as_bytes().to_vec();
    let from_device = incoming.origin == CodeOrigin::Device;
    let Some(id) = same else {
        let id = tx.new_id().to_string();
        let print = fingerprint(escrow, incoming);
        tx.execute(
            "INSERT INTO codes (organisation, id, serial, kind, origin, shape, fingerprint, fingerprint_key, exact, cell, \
             reported_exact, topic, note, created_at, seen_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14)",
            params![
                organisation.as_str(),
                id.as_str(),
                serial.as_str(),
                incoming.kind.as_str(),
                incoming.origin.as_str(),
                shape_name(incoming.text.shape()),
                print.as_bytes().to_vec(),
                print.key_id().to_string(),
                exact.clone(),
                seal_text(escrow, CODE, organisation, &id, incoming.text),
                from_device.then(|| exact.clone()),
                incoming.topic,
                incoming.note,
                now
            ],
        )
        .await?;
        return Ok(Kept { id: CodeId(id), new: true });
    };
    tx.execute(
        "UPDATE codes SET seen_at = $3, topic = COALESCE($4, topic), \
         kind = CASE WHEN kind = 'unknown' THEN $5 ELSE kind END WHERE organisation = $1 AND id = $2",
        params![organisation.as_str(), id.0.as_str(), now, incoming.topic, incoming.kind.as_str()],
    )
    .await?;
    if from_device {
        let cell = seal_text(escrow, REPORTED_CODE, organisation, &id.0, incoming.text);
        tx.execute(
            "UPDATE codes SET reported_exact = $3, reported_cell = CASE WHEN exact = $3 THEN NULL ELSE $4 END \
             WHERE organisation = $1 AND id = $2 AND reported_exact IS NULL",
            params![organisation.as_str(), id.0.as_str(), exact, cell],
        )
        .await?;
    }
    Ok(Kept { id, new: false })
}

async fn observe(
    tx: &mut Tx<'_>,
    incoming: &Incoming<'_>,
    code: &CodeId,
    standing: &str,
    epoch: Option<&str>,
    command: Option<&str>,
    event_at: Timestamp,
) -> Result<()> {
    let (id, now) = (tx.new_id().to_string(), tx.now());
    tx.execute(
        "INSERT INTO code_observations (organisation, id, serial, code, standing, epoch, command, event_at, recorded_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        params![
            incoming.organisation.as_str(),
            id,
            incoming.serial.as_str(),
            code.0.as_str(),
            standing,
            epoch,
            command,
            event_at,
            now
        ],
    )
    .await?;
    Ok(())
}

/// A device reported a code (R1). `epoch` is the live epoch of the enrollment it came from; the caller saves it.
pub(crate) async fn report(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    epoch: &mut Epoch,
    serial: &SerialNumber,
    text: &CodeText,
    standing: Standing,
    command: Option<&str>,
    event_at: Timestamp,
) -> Result<()> {
    let organisation = epoch.organisation.clone();
    let topic = epoch.topic.clone();
    let incoming = Incoming {
        organisation: &organisation,
        serial,
        text,
        kind: CodeKind::Device,
        origin: CodeOrigin::Device,
        topic: topic.as_deref(),
        note: None,
    };
    let current = devices::current_device_code(tx, &organisation, serial).await?;
    let same = find(tx, escrow, &incoming).await?;
    let retention = codes::retain(current.as_ref(), same.as_ref(), standing);
    let kept = keep(tx, escrow, &incoming, retention.existing).await?;
    observe(tx, &incoming, &kept.id, standing.as_str(), Some(&epoch.id), command, event_at).await?;

    let now = tx.now();
    if standing == Standing::Newest {
        if current.as_ref() != Some(&kept.id) {
            devices::set_device_code(tx, &organisation, serial, &kept.id).await?;
        }
        if retention.replaces && epoch.code.is_none() {
            devices::window_opened(tx, epoch, serial, false, true).await?;
        }
        epoch.code = Some(kept.id.clone());
        epoch.code_at.get_or_insert(now);
        epoch.facts.answered_without_code = false;
        epoch.facts.refusal = None;
    }
    if retention.ask_again {
        epoch.trigger(now, Trigger::StrayAnswer);
    }
    if kept.new || retention.replaces {
        let actor = escrow.connection_actor(&epoch.connection);
        let entry = audit::Entry::by(&actor, &organisation, "code.recorded")
            .subject(serial.as_str())
            .detail("code", kept.id.0.as_str())
            .detail("standing", standing.as_str())
            .detail("new", kept.new)
            .detail("replaces", retention.replaces);
        audit::record(tx, escrow, entry).await?;
    }
    Ok(())
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
    /// Opens every code of a device for a person (R8: the device is asked again afterwards). The audit row is
    /// committed before the texts are handed out.
    ///
    /// # Errors
    /// When the permit no longer holds, a cell does not open, or the database fails.
    pub async fn reveal(
        &self,
        permit: &Permit<Reveal>,
        serial: &SerialNumber,
        reason: &str,
    ) -> Result<Vec<RevealedCode>> {
        let (escrow, permit, serial, reason) = (self.0.clone(), permit.clone(), serial.clone(), reason.to_owned());
        let revealed = self
            .0
            .db
            .write("codes.reveal", async move |tx| {
                permit.confirm(tx).await?;
                let organisation = permit.organisation().clone();
                let now = tx.now();
                let rows = rows(tx, &organisation, &serial).await?;
                let mut revealed = Vec::with_capacity(rows.len());
                for row in rows {
                    let form = if row.reported { Form::Reported } else { Form::Kept };
                    let text = row.open(&escrow, &organisation, form)?;
                    revealed.push(RevealedCode { text, view: row.view });
                }
                let ids: Vec<&str> = revealed.iter().map(|r| r.view.id.0.as_str()).collect();
                let entry = permit
                    .entry("code.reveal")
                    .subject(serial.as_str())
                    .reason(&reason)
                    .detail("codes", ids.join(" "));
                audit::record(tx, &escrow, entry).await?;
                tx.execute(
                    "UPDATE codes SET revealed_at = $3, revealed_by = $4 WHERE organisation = $1 AND serial = $2",
                    params![organisation.as_str(), serial.as_str(), now, permit.actor().name()],
                )
                .await?;
                commands::ask_soon(tx, &escrow, &organisation, &serial, Trigger::Reveal).await?;
                Ok(revealed)
            })
            .await?;
        self.0.wake_courier();
        Ok(revealed)
    }

    /// Keeps a code that a person typed, as a candidate: it never replaces what a device said (R1).
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn add_typed(&self, permit: &Permit<Edit>, typed: TypedCode) -> Result<Typed> {
        let (escrow, permit) = (self.0.clone(), permit.clone());
        let typed = std::sync::Arc::new(typed);
        self.0
            .db
            .write("codes.add_typed", async move |tx| {
                permit.confirm(tx).await?;
                let organisation = permit.organisation().clone();
                devices::ensure(tx, &organisation, &typed.serial).await?;
                let note: Option<String> = typed.note.as_ref().map(|n| n.chars().take(200).collect());
                let incoming = Incoming {
                    organisation: &organisation,
                    serial: &typed.serial,
                    text: &typed.text,
                    kind: typed.kind,
                    origin: CodeOrigin::Person,
                    topic: None,
                    note: note.as_deref(),
                };
                let same = find(tx, &escrow, &incoming).await?;
                let kept = keep(tx, &escrow, &incoming, same).await?;
                let now = tx.now();
                observe(tx, &incoming, &kept.id, "typed", None, None, now).await?;
                let entry = permit
                    .entry("code.typed")
                    .subject(typed.serial.as_str())
                    .detail("code", kept.id.0.as_str())
                    .detail("new", kept.new);
                audit::record(tx, &escrow, entry).await?;
                devices::refresh_coverage(tx, &organisation, &typed.serial).await?;
                Ok(Typed { code: kept.id, new: kept.new, shape: typed.text.shape() })
            })
            .await
    }
}
