//! What is put on record, and its one canonical text.

use activation_lock::time::Timestamp;
use serde_json::{Map, Value as Json, json};

use crate::db::{Tx, Value, params};
use crate::permit::{Actor, OrganisationId};
use crate::{Escrow, Result};

/// The version of the text's shape. Version 1 had no writer and no counter.
const VERSION: u64 = 2;

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
    fn text(&self, id: &str, at: Timestamp, writer: &str, counter: i64) -> String {
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
            "writer": writer,
            "counter": counter,
        }))
    }
}

/// Puts an entry on record, in the transaction of what it tells of.
pub(crate) async fn record(tx: &mut Tx<'_>, escrow: &Escrow, entry: Entry) -> Result<()> {
    insert(tx, escrow, entry).await.map(drop)
}

/// The same, and gives the row's identifier.
pub(super) async fn insert(tx: &mut Tx<'_>, escrow: &Escrow, entry: Entry) -> Result<String> {
    let (id, row) = row(tx, escrow, entry)?;
    tx.execute(INSERT, row).await?;
    Ok(id)
}

/// Puts entries on record, in their order.
pub(crate) async fn record_all(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    entries: Vec<Entry>,
) -> Result<()> {
    let mut rows = Vec::with_capacity(entries.len());
    for entry in entries {
        rows.push(row(tx, escrow, entry)?.1);
    }
    tx.execute_each(INSERT, rows).await.map(drop)
}

const INSERT: &str = "INSERT INTO audit (organisation, id, at, actor, action, subject, result, text, mac_key, mac, writer, \
     counter) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

/// The next row of this transaction's writer: its identifier, and its columns.
fn row(tx: &mut Tx<'_>, escrow: &Escrow, entry: Entry) -> Result<(String, Vec<Value>)> {
    let (id, at) = (tx.new_id().to_string(), tx.now());
    let (writer, counter) = tx.next_audit_row()?;
    let text = entry.text(&id, at, &writer, counter);
    let mac = escrow.keyring().mac(&text);
    let row = params![
        &entry.organisation,
        id.as_str(),
        at,
        entry.actor.principal(),
        entry.action,
        entry.subject,
        entry.result,
        text,
        mac.key_id().to_string(),
        mac.hex(),
        &*writer,
        counter
    ];
    Ok((id, row))
}

/// JSON with sorted keys and no spaces, whatever order a map keeps them in.
pub(crate) fn canonical(value: &Json) -> String {
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
