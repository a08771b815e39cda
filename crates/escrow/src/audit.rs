//! The record of who did what: one immutable text a row, authenticated with a key that the database does not hold in
//! the open.
//!
//! The text is canonical JSON (keys sorted, no spaces) of `version`, `id`, `at` (milliseconds), `organisation`, `actor`,
//! `proof`, `address`, `action`, `subject`, `reason`, `result` and `details`. The row's other columns are copies of some of
//! these, to filter by; [`Audit::verify`] holds them against the text. Nothing secret is ever in it.

use activation_lock::time::Timestamp;
use seal::{Keyring, Mac, MacError};
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use crate::db::{Row, Tx, params};
use crate::permit::{Actor, Admin, OrganisationId, Permit};
use crate::{Escrow, Result};

/// The version of the text's shape.
const VERSION: u64 = 1;

/// What is to be put on record. See [`record`].
pub(crate) struct Entry {
    organisation: OrganisationId,
    actor: Actor,
    action: &'static str,
    subject: String,
    reason: Option<String>,
    result: &'static str,
    details: Map<String, Json>,
}

impl Entry {
    /// `actor` did `action` in `organisation`, and it succeeded unless [`result`](Self::result) says otherwise.
    pub(crate) fn by(actor: &Actor, organisation: &OrganisationId, action: &'static str) -> Self {
        Self {
            organisation: organisation.clone(),
            actor: actor.clone(),
            action,
            subject: String::new(),
            reason: None,
            result: "ok",
            details: Map::new(),
        }
    }

    /// To what it was done: a serial number, an identifier.
    pub(crate) fn subject(mut self, subject: &str) -> Self {
        subject.clone_into(&mut self.subject);
        self
    }

    /// Why, in the words of the person who asked.
    pub(crate) fn reason(mut self, reason: &str) -> Self {
        self.reason = Some(reason.to_owned());
        self
    }

    /// What came of it, when that is not `ok`: a short stable name.
    pub(crate) fn result(mut self, result: &'static str) -> Self {
        self.result = result;
        self
    }

    /// One more fact. Never a code, a token, a key or anything made from one.
    pub(crate) fn detail(mut self, name: &'static str, value: impl Into<Json>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// The canonical text.
    fn text(&self, id: &str, at: Timestamp) -> String {
        canonical(&json!({
            "version": VERSION,
            "id": id,
            "at": at.0,
            "organisation": self.organisation.as_str(),
            "actor": {
                "id": self.actor.principal(),
                "kind": self.actor.kind().as_str(),
                "name": self.actor.name(),
            },
            "proof": self.actor.proof().to_string(),
            "address": self.actor.address(),
            "action": self.action,
            "subject": self.subject,
            "reason": self.reason,
            "result": self.result,
            "details": self.details,
        }))
    }
}

/// Puts an entry on record, in the transaction of what it tells of.
pub(crate) async fn record(tx: &mut Tx<'_>, escrow: &Escrow, entry: Entry) -> Result<()> {
    record_with(tx, escrow.keyring(), &entry).await
}

async fn record_with(tx: &mut Tx<'_>, keyring: &Keyring, entry: &Entry) -> Result<()> {
    let (id, at) = (tx.new_id().to_string(), tx.now());
    let text = entry.text(&id, at);
    let mac = keyring.mac(&text);
    tx.execute(
        "INSERT INTO audit (organisation, id, at, actor, action, subject, result, text, mac_key, mac) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        params![
            &entry.organisation,
            id,
            at,
            entry.actor.principal(),
            entry.action,
            entry.subject.as_str(),
            entry.result,
            text,
            mac.key_id().to_string(),
            mac.hex()
        ],
    )
    .await?;
    Ok(())
}

/// JSON with sorted keys and no spaces, whatever order a map keeps them in.
fn canonical(value: &Json) -> String {
    match value {
        Json::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            let members: Vec<_> = members
                .into_iter()
                .map(|(name, value)| format!("{}:{}", Json::from(name.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Json::Array(items) => format!(
            "[{}]",
            items.iter().map(canonical).collect::<Vec<_>>().join(",")
        ),
        simple => simple.to_string(),
    }
}

/// One row of the record, as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRow {
    /// Its identifier; also where a list goes on from.
    pub id: String,
    /// The whole text, as it was authenticated.
    pub text: String,
    /// Whether the text and its copies are as they were written.
    pub intact: Intact,
}

/// Whether a row is as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intact {
    /// It is.
    Yes,
    /// Its text, its MAC or a copied column was changed.
    Changed,
    /// The key that authenticated it is not among the database's keys.
    UnknownKey,
}

/// Which rows to list.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only those about this subject.
    pub subject: Option<String>,
    /// Only those of this principal.
    pub actor: Option<String>,
    /// Only those of this action.
    pub action: Option<String>,
}

macro_rules! select_audit {
    ($rest:literal) => {
        concat!(
            "SELECT organisation, id, at, actor, action, subject, result, text, mac_key, mac FROM audit ",
            $rest
        )
    };
}

impl AuditRow {
    fn from_row(row: &Row, keyring: &Keyring) -> Result<Self> {
        let text: String = row.get("text")?;
        Ok(Self {
            id: row.get("id")?,
            intact: intact(row, &text, keyring)?,
            text,
        })
    }
}

fn intact(row: &Row, text: &str, keyring: &Keyring) -> Result<Intact> {
    let key: String = row.get("mac_key")?;
    let mac: String = row.get("mac")?;
    let Some(mac) = key.parse().ok().and_then(|key| Mac::from_hex(key, &mac)) else {
        return Ok(Intact::Changed);
    };
    match keyring.verify_mac(text, &mac) {
        Ok(()) => {}
        Err(MacError::Mismatch) => return Ok(Intact::Changed),
        Err(MacError::UnknownKey { .. }) => return Ok(Intact::UnknownKey),
    }
    let Ok(told) = serde_json::from_str::<Json>(text) else {
        return Ok(Intact::Changed);
    };
    let copied = |column: &str, told: &Json| -> Result<bool> {
        Ok(told.as_str() == Some(row.get::<String>(column)?.as_str()))
    };
    let same = copied("organisation", &told["organisation"])?
        && copied("id", &told["id"])?
        && told["at"].as_i64() == Some(row.get("at")?)
        && copied("actor", &told["actor"]["id"])?
        && copied("action", &told["action"])?
        && copied("subject", &told["subject"])?
        && copied("result", &told["result"])?;
    Ok(if same { Intact::Yes } else { Intact::Changed })
}

/// The verbs on the record. See [`Escrow::audit`].
pub struct Audit<'a>(&'a Escrow);

impl Escrow {
    /// The record of who did what.
    #[must_use]
    pub fn audit(&self) -> Audit<'_> {
        Audit(self)
    }
}

impl Audit<'_> {
    /// The rows of the permit's organisation that pass a filter, newest first: at most `limit`, older than the row `after`
    /// when one is given.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn list(
        &self,
        permit: &Permit<Admin>,
        filter: &AuditFilter,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<AuditRow>> {
        let (escrow, confirmed, filter) = (self.0.clone(), permit.clone(), filter.clone());
        let after = after.map(str::to_owned);
        let result = self
            .0
            .db
            .read(async move |tx| {
                confirmed.confirm(tx).await?;
                list(
                    tx,
                    escrow.keyring(),
                    confirmed.organisation(),
                    &filter,
                    after.as_deref(),
                    limit,
                )
                .await
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// When the newest row was written, as its identifier tells; `None` in an empty record.
    pub(crate) async fn last_moment(&self) -> Result<Option<Timestamp>> {
        self.0
            .db
            .read(async |tx| {
                // One seek for each organisation, whatever the length of the record.
                let row = tx
                    .fetch_optional(
                        "SELECT MAX(last) AS last FROM (SELECT (SELECT MAX(audit.id) FROM audit \
                         WHERE audit.organisation = organisations.id) AS last FROM organisations) AS each_last",
                        params![],
                    )
                    .await?;
                let last: Option<String> = row.map(|row| row.get("last")).transpose()?.flatten();
                Ok(last.as_deref().and_then(moment_of))
            })
            .await
    }

    /// Recomputes the MAC of every row of every organisation, and compares the copied columns with the text. It finds what
    /// was changed; a row that was taken away leaves no trace here.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn verify(&self) -> Result<Verified> {
        let mut verified = Verified::default();
        let mut after = None;
        loop {
            let (escrow, from) = (self.0.clone(), after.take());
            let page = self
                .0
                .db
                .read(async move |tx| verify(tx, escrow.keyring(), from.clone(), PAGE).await)
                .await?;
            verified.rows += page.verified.rows;
            verified.changed.extend(page.verified.changed);
            after = page.next;
            if after.is_none() {
                return Ok(verified);
            }
        }
    }
}

/// When an identifier of ours was made.
pub(crate) fn moment_of(id: &str) -> Option<Timestamp> {
    let (seconds, nanos) = Uuid::parse_str(id).ok()?.get_timestamp()?.to_unix();
    let millis = i64::try_from(seconds).ok()?.checked_mul(1_000)?;
    Some(Timestamp(millis.checked_add(i64::from(nanos / 1_000_000))?))
}

async fn list(
    tx: &mut Tx<'_>,
    keyring: &Keyring,
    organisation: &OrganisationId,
    filter: &AuditFilter,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<AuditRow>> {
    // One statement for each index, so that a rare subject is not looked for through the whole record.
    let sql = if filter.subject.is_some() {
        select_audit!(
            "WHERE organisation = $1 AND subject = $2 AND ($3 IS NULL OR actor = $3) AND ($4 IS NULL OR action = $4) \
             AND ($5 IS NULL OR id < $5) ORDER BY id DESC LIMIT $6"
        )
    } else if filter.actor.is_some() {
        select_audit!(
            "WHERE organisation = $1 AND $2 IS NULL AND actor = $3 AND ($4 IS NULL OR action = $4) \
             AND ($5 IS NULL OR id < $5) ORDER BY id DESC LIMIT $6"
        )
    } else {
        select_audit!(
            "WHERE organisation = $1 AND $2 IS NULL AND $3 IS NULL AND ($4 IS NULL OR action = $4) \
             AND ($5 IS NULL OR id < $5) ORDER BY id DESC LIMIT $6"
        )
    };
    let params = params![
        organisation,
        filter.subject.as_deref(),
        filter.actor.as_deref(),
        filter.action.as_deref(),
        after,
        limit
    ];
    tx.fetch_all(sql, params)
        .await?
        .iter()
        .map(|row| AuditRow::from_row(row, keyring))
        .collect()
}

/// What [`Audit::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Rows looked at.
    pub rows: u64,
    /// Organisation and identifier of each row that is not as it was written.
    pub changed: Vec<(String, String)>,
}

/// Rows verified in one snapshot, so that a long record does not hold one open.
const PAGE: u32 = 1_000;

struct Page {
    verified: Verified,
    /// Organisation and identifier of the last row; nothing at the end.
    next: Option<(String, String)>,
}

async fn verify(
    tx: &mut Tx<'_>,
    keyring: &Keyring,
    after: Option<(String, String)>,
    limit: u32,
) -> Result<Page> {
    let (organisation, id) = after.unwrap_or_default();
    let rows = tx
        .fetch_all(
            select_audit!("WHERE (organisation, id) > ($1, $2) ORDER BY organisation, id LIMIT $3"),
            params![organisation, id, limit],
        )
        .await?;
    let mut page = Page {
        verified: Verified::default(),
        next: None,
    };
    for row in &rows {
        let place = (row.get("organisation")?, row.get("id")?);
        page.verified.rows += 1;
        if AuditRow::from_row(row, keyring)?.intact != Intact::Yes {
            page.verified.changed.push(place.clone());
        }
        page.next = Some(place);
    }
    if rows.len() < limit as usize {
        page.next = None;
    }
    Ok(page)
}

#[cfg(test)]
mod tests;
