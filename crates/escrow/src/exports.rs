//! Codes that are taken away, many at once: an archive sealed for somebody else, or a table that anybody can read.
//!
//! What an approval is given for is the devices and what becomes of their codes, so that nobody is sent another's archive. Each batch is
//! on record with its codes, in the transaction that reads them: what left before an answer broke off is known.

use std::collections::BTreeSet;

use activation_lock::codes::{CodeId, CodeKind, CodeOrigin, CodeText};
use activation_lock::device::SerialNumber;
use activation_lock::time::Timestamp;
use serde_json::json;

use crate::approvals::{self, Action, Guard};
use crate::codes::{CODE, REPORTED_CODE, open_text};
use crate::db::{Row, Tx, list, params};
use crate::news::News;
use crate::notices::NoticeKind;
use crate::permit::{self, OrganisationId, Permit};
use crate::{Error, Escrow, Result, audit};

/// Codes a batch.
const BATCH: i64 = 500;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewExport {
    /// Of which devices; of every one, when there is none.
    pub devices: BTreeSet<SerialNumber>,
    /// What becomes of the codes.
    pub form: ExportForm,
    /// Why, in the person's words.
    pub reason: String,
}

/// What becomes of the codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportForm {
    /// They are sealed for these recipients, in the words of the archive's format.
    Sealed(BTreeSet<String>),
    /// Anybody can read them: it takes another person, whatever the policy says.
    Plain,
}

impl ExportForm {
    fn action(&self) -> Action {
        match self {
            Self::Sealed(_) => Action::Export,
            Self::Plain => Action::ExportPlain,
        }
    }

    fn target(&self) -> String {
        match self {
            Self::Sealed(recipients) => {
                let all: Vec<_> = recipients.iter().map(String::as_str).collect();
                format!("sealed for {}", all.join(" and "))
            }
            Self::Plain => "as a table that anybody can read".to_owned(),
        }
    }
}

/// A code on its way out, with what an unlock of its device needs beside it.
pub struct ExportedCode {
    /// The device.
    pub serial: String,
    /// The row.
    pub id: CodeId,
    /// The text as a device or person gave it; `None` when its cell is damaged.
    pub text: Option<CodeText>,
    /// Who made it.
    pub kind: CodeKind,
    /// How it came to be known.
    pub origin: CodeOrigin,
    /// Whether it is the current code of its kind.
    pub current: bool,
    /// The device's product type, such as `iPad4,1`.
    pub product_type: Option<String>,
    /// Its IMEI.
    pub imei: Option<String>,
    /// Its second IMEI.
    pub imei2: Option<String>,
    /// Its MEID.
    pub meid: Option<String>,
    /// A note of the person or import that brought the code.
    pub note: Option<String>,
    /// When the code was first seen.
    pub created_at: Timestamp,
}

impl ExportedCode {
    fn read(row: &Row, escrow: &Escrow, organisation: &OrganisationId) -> Result<Self> {
        let named = |what| move |_| Error::Corrupt(what);
        let id: String = row.get("id")?;
        let text = match row.get::<Option<Vec<u8>>>("reported_cell")? {
            Some(cell) => open_text(escrow, REPORTED_CODE, organisation, &id, &cell),
            None => open_text(
                escrow,
                CODE,
                organisation,
                &id,
                &row.get::<Vec<u8>>("cell")?,
            ),
        };
        if let Err(error) = &text {
            tracing::error!(%error, code = id, "a sealed code does not open; run doctor");
        }
        Ok(Self {
            serial: row.get("serial")?,
            id: CodeId(id),
            text: text.ok(),
            kind: row
                .get::<String>("kind")?
                .parse()
                .map_err(named("codes.kind"))?,
            origin: row
                .get::<String>("origin")?
                .parse()
                .map_err(named("codes.origin"))?,
            current: row.get::<i64>("current")? == 1,
            product_type: row.get("product_type")?,
            imei: row.get("imei")?,
            imei2: row.get("imei2")?,
            meid: row.get("meid")?,
            note: row.get("note")?,
            created_at: row.get("created_at")?,
        })
    }
}

/// An export that was begun.
pub struct Export {
    escrow: Escrow,
    permit: Permit<permit::Export>,
    id: String,
    reason: String,
    /// A JSON array of serial numbers; `None` for every device.
    devices: Option<String>,
    /// The last code given out: its device and its row.
    after: (String, String),
    given: u64,
    is_over: bool,
}

/// The verbs on exports. See [`Escrow::exports`].
pub struct Exports<'a>(&'a Escrow);

impl Escrow {
    /// Codes that are taken away.
    #[must_use]
    pub fn exports(&self) -> Exports<'_> {
        Exports(self)
    }
}

impl Exports<'_> {
    /// Begins one: that is when an approval is used up, and when others are told.
    ///
    /// # Errors
    /// When the permit no longer holds, it takes others, or the database fails.
    pub async fn begin(&self, permit: &Permit<permit::Export>, new: NewExport) -> Result<Export> {
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let devices =
            (!new.devices.is_empty()).then(|| list(new.devices.iter().map(SerialNumber::as_str)));
        let reason = new.reason.clone();
        let result = self
            .0
            .db
            .write("exports.begin", async move |tx| {
                confirmed.confirm(tx).await?;
                let mut targets: Vec<_> = new
                    .devices
                    .iter()
                    .map(|serial| format!("device {serial}"))
                    .collect();
                if targets.is_empty() {
                    targets.push("every device".to_owned());
                }
                let (form, count) = (new.form.target(), new.devices.len());
                targets.push(form.clone());
                let devices = match count {
                    0 => with_codes(tx, confirmed.organisation()).await?,
                    named => u32::try_from(named).unwrap_or(u32::MAX),
                };
                let guard = Guard::export(new.form.action(), targets, devices);
                let passed = approvals::pass(tx, &escrow, &confirmed, &guard).await?;
                let id = tx.new_id().to_string();
                let entry = confirmed
                    .entry("code.export")
                    .subject(&id)
                    .reason(&new.reason)
                    .detail("form", form.as_str())
                    .detail(
                        "devices",
                        if count == 0 {
                            json!("all")
                        } else {
                            json!(count)
                        },
                    );
                audit::record(tx, &escrow, passed.mark(entry)).await?;
                let told = json!({
                    "export": id,
                    "by": confirmed.actor().name(),
                    "reason": new.reason,
                    "devices": if count == 0 { json!("all") } else { json!(count) },
                    "form": form,
                });
                approvals::tell(
                    tx,
                    &escrow,
                    confirmed.organisation(),
                    NoticeKind::CodesExported,
                    told,
                )
                .await?;
                Ok(id)
            })
            .await;
        let id = self.0.audit_refusal(permit, result).await?;
        self.0.tell(News::Notices);
        Ok(Export {
            escrow: self.0.clone(),
            permit: permit.clone(),
            id,
            reason,
            devices,
            after: (String::new(), String::new()),
            given: 0,
            is_over: false,
        })
    }
}

impl Export {
    /// The next codes, by serial number and then by age; none at the end, which is on record then. They are on record before they
    /// are here, and marked as seen.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn next(&mut self) -> Result<Vec<ExportedCode>> {
        if self.is_over {
            return Ok(Vec::new());
        }
        let (escrow, permit) = (self.escrow.clone(), self.permit.clone());
        let (id, reason, given) = (self.id.clone(), self.reason.clone(), self.given);
        let (devices, after) = (self.devices.clone(), self.after.clone());
        let result = self
            .escrow
            .db
            .write("exports.next", async move |tx| {
                permit.confirm(tx).await?;
                let codes = batch(
                    tx,
                    &escrow,
                    permit.organisation(),
                    devices.as_deref(),
                    &after,
                )
                .await?;
                if codes.is_empty() {
                    let entry = permit
                        .entry("code.export_ended")
                        .subject(&id)
                        .detail("codes", given);
                    audit::record(tx, &escrow, entry).await?;
                    return Ok(codes);
                }
                let of = |damaged: bool| -> Vec<&str> {
                    codes
                        .iter()
                        .filter(|code| code.text.is_none() == damaged)
                        .map(|code| code.id.0.as_str())
                        .collect()
                };
                let (opened, damaged) = (of(false), of(true));
                let mut entry = permit
                    .entry("code.exported")
                    .subject(&id)
                    .reason(&reason)
                    .detail("codes", opened.join(" "));
                if !damaged.is_empty() {
                    entry = entry.detail("damaged", damaged.join(" "));
                }
                audit::record(tx, &escrow, entry).await?;
                let now = tx.now();
                tx.execute(
                    "UPDATE codes SET revealed_at = $3, revealed_by = $4 WHERE organisation = $1 \
                     AND id IN (SELECT value ->> 0 FROM json_each($2))",
                    params![
                        permit.organisation().as_str(),
                        list(&opened),
                        now,
                        permit.actor().name()
                    ],
                )
                .await?;
                Ok(codes)
            })
            .await;
        let codes = self.escrow.audit_refusal(&self.permit, result).await?;
        match codes.last() {
            Some(last) => self.after = (last.serial.clone(), last.id.0.clone()),
            None => self.is_over = true,
        }
        self.given += codes.iter().filter(|code| code.text.is_some()).count() as u64;
        Ok(codes)
    }
}

/// How many devices have codes.
async fn with_codes(tx: &mut Tx<'_>, organisation: &OrganisationId) -> Result<u32> {
    let row = tx
        .fetch_one(
            "SELECT COUNT(DISTINCT serial) AS devices FROM codes WHERE organisation = $1",
            params![organisation.as_str()],
        )
        .await?;
    let devices: i64 = row.get("devices")?;
    Ok(u32::try_from(devices).unwrap_or(u32::MAX))
}

macro_rules! select_exported {
    ($from:literal) => {
        concat!(
            "SELECT codes.serial, codes.id, kind, origin, cell, reported_cell, product_type, imei, imei2, meid, note, ",
            "codes.created_at, CASE WHEN codes.id = device_code OR codes.id = server_code THEN 1 ELSE 0 END AS current ",
            "FROM ",
            $from,
            " JOIN devices ON devices.organisation = codes.organisation AND devices.serial = codes.serial ",
            "WHERE codes.organisation = $1 AND (codes.serial, codes.id) > ($2, $3) ",
            "ORDER BY codes.serial, codes.id LIMIT $4"
        )
    };
}

async fn batch(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    organisation: &OrganisationId,
    devices: Option<&str>,
    after: &(String, String),
) -> Result<Vec<ExportedCode>> {
    let (name, serial, id) = (organisation.as_str(), after.0.as_str(), after.1.as_str());
    let rows = match devices {
        None => {
            tx.fetch_all(
                select_exported!("codes"),
                params![name, serial, id, BATCH],
            )
            .await?
        }
        Some(devices) => {
            tx.fetch_all(
                select_exported!(
                    "(SELECT value FROM json_each($5)) AS wanted JOIN codes ON codes.serial = wanted.value ->> 0"
                ),
                params![name, serial, id, BATCH, devices],
            )
            .await?
        }
    };
    rows.iter()
        .map(|row| ExportedCode::read(row, escrow, organisation))
        .collect()
}
