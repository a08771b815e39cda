//! Rows of the record as they are read: found, checked one by one, and written out as lines.

use activation_lock::time::Timestamp;
use seal::{Keyring, Mac, MacError};
use serde_json::{Value as Json, json};

use super::entry::canonical;
use crate::Result;
use crate::db::{Row, Tx, params};
use crate::permit::OrganisationId;

/// One row of the record, as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRow {
    /// Its identifier; also where a list goes on from.
    pub id: String,
    /// Its place in the chain, once it is sealed.
    pub position: Option<u64>,
    /// The whole text, as it was authenticated.
    pub text: String,
    /// Whether the text and its copies are as they were written.
    pub intact: Intact,
    /// The data key of the MAC.
    pub mac_key: String,
    /// The MAC of the text, hexadecimal.
    pub mac: String,
    /// The chain's link at its place, once it is sealed, hexadecimal.
    pub link: Option<String>,
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

impl Intact {
    /// The stable word: `yes`, `changed` or `unknown_key`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Changed => "changed",
            Self::UnknownKey => "unknown_key",
        }
    }
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
    /// Only those with this result, such as `ok`.
    pub result: Option<String>,
    /// Only those of this moment or later.
    pub since: Option<Timestamp>,
    /// Only those before this moment.
    pub until: Option<Timestamp>,
}

impl AuditFilter {
    /// What was asked for, for the row that tells of it.
    pub(super) fn told(&self) -> Json {
        let all = json!({
            "subject": self.subject,
            "actor": self.actor,
            "action": self.action,
            "result": self.result,
            "since": self.since.map(|at| at.0),
            "until": self.until.map(|at| at.0),
        });
        match all {
            Json::Object(mut all) => {
                all.retain(|_, value| !value.is_null());
                Json::Object(all)
            }
            other => other,
        }
    }

    /// The least identifier that a row of `since` or later can have: an identifier is never of an earlier moment than its row
    /// is.
    fn first_id(&self) -> String {
        let Some(since) = self.since else {
            return String::new();
        };
        let at = since.0.clamp(0, 0xffff_ffff_ffff);
        format!("{:08x}-{:04x}-", at >> 16, at & 0xffff)
    }
}

/// From which side a list goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// Newest first; older than this row.
    OlderThan(Option<&'a str>),
    /// Oldest first; newer than this row, and up to the other.
    NewerThan(Option<&'a str>, &'a str),
}

/// What [`AuditRow::from_row`] reads.
macro_rules! select_rows {
    ($($rest:literal),+) => {
        concat!(
            "SELECT audit.organisation, audit.id, audit.at, audit.actor, audit.action, audit.subject, audit.result, \
             audit.text, audit.mac_key, audit.mac, audit.writer, audit.counter, audit_chain.position, audit_chain.link ",
            $($rest),+
        )
    };
}
pub(super) use select_rows;

macro_rules! list_rows {
    ($index:literal, $order:literal) => {
        select_rows!(
            "FROM audit LEFT JOIN audit_chain \
             ON audit_chain.organisation = audit.organisation AND audit_chain.audit_row = audit.id \
             WHERE audit.organisation = $1 AND ",
            $index,
            " AND ($4 IS NULL OR audit.action = $4) AND ($5 IS NULL OR audit.result = $5) \
             AND audit.at >= $6 AND audit.at < $7 AND audit.id > $8 AND audit.id < $9 ORDER BY audit.id ",
            $order,
            " LIMIT $10"
        )
    };
}

/// One statement for each index, so that a rare subject is not looked for through the whole record.
macro_rules! list_by {
    ($index:literal, $next:expr) => {
        match $next {
            Next::OlderThan(_) => list_rows!($index, "DESC"),
            Next::NewerThan(..) => list_rows!($index, "ASC"),
        }
    };
}

/// Sorts behind every identifier.
const LAST: &str = "~";

/// One page of an organisation's rows.
pub(super) async fn list(
    tx: &mut Tx<'_>,
    keyring: &Keyring,
    organisation: &OrganisationId,
    filter: &AuditFilter,
    next: Next<'_>,
    limit: u32,
) -> Result<Vec<AuditRow>> {
    let sql = if filter.subject.is_some() {
        list_by!(
            "audit.subject = $2 AND ($3 IS NULL OR audit.actor = $3)",
            next
        )
    } else if filter.actor.is_some() {
        list_by!("$2 IS NULL AND audit.actor = $3", next)
    } else {
        list_by!("$2 IS NULL AND $3 IS NULL", next)
    };
    let first = filter.first_id();
    let (above, below) = match next {
        Next::OlderThan(row) => (first, row.unwrap_or(LAST).to_owned()),
        Next::NewerThan(row, last) => (
            first.max(row.unwrap_or_default().to_owned()),
            format!("{last}{LAST}"),
        ),
    };
    let params = params![
        organisation,
        filter.subject.as_deref(),
        filter.actor.as_deref(),
        filter.action.as_deref(),
        filter.result.as_deref(),
        filter.since.map_or(i64::MIN, |at| at.0),
        filter.until.map_or(i64::MAX, |at| at.0),
        above,
        below,
        limit
    ];
    let rows = tx.fetch_all(sql, params).await?;
    Ok(rows
        .iter()
        .map(|row| AuditRow::from_row(row, keyring))
        .collect())
}

impl AuditRow {
    /// From a row of [`select_rows!`]. A column that cannot be read is one that was changed.
    pub(super) fn from_row(row: &Row, keyring: &Keyring) -> Self {
        let text = |column| row.get(column).unwrap_or_default();
        Self {
            id: text("id"),
            position: row.get("position").unwrap_or_default(),
            text: text("text"),
            intact: intact(row, keyring).unwrap_or(Intact::Changed),
            mac_key: text("mac_key"),
            mac: text("mac"),
            link: row.get("link").unwrap_or_default(),
        }
    }

    /// The row as one line of JSON, without a newline: `intact`, `link`, `mac`, `mac_key`, `position`, and `text`, whose
    /// canonical form is what was authenticated. A text that is not canonical JSON, which only a row has that was changed, is
    /// given as a string.
    #[must_use]
    pub fn to_line(&self) -> String {
        let text = serde_json::from_str(&self.text)
            .ok()
            .filter(|text: &Json| text.is_object() && canonical(text) == self.text)
            .unwrap_or_else(|| Json::from(self.text.as_str()));
        canonical(&json!({
            "intact": self.intact.as_str(),
            "link": self.link,
            "mac": self.mac,
            "mac_key": self.mac_key,
            "position": self.position,
            "text": text,
        }))
    }
}

/// Nothing when a column cannot be read, or the text is none of ours.
fn intact(row: &Row, keyring: &Keyring) -> Option<Intact> {
    let text: String = row.get("text").ok()?;
    let key: String = row.get("mac_key").ok()?;
    let mac: String = row.get("mac").ok()?;
    match keyring.verify_mac(&text, &Mac::from_hex(key.parse().ok()?, &mac)?) {
        Ok(()) => {}
        Err(MacError::Mismatch) => return Some(Intact::Changed),
        Err(MacError::UnknownKey { .. }) => return Some(Intact::UnknownKey),
    }
    let told: Json = serde_json::from_str(&text).ok()?;
    let word = |column: &str, told: &Json| {
        let copy: Option<String> = row.get(column).ok()?;
        Some(copy.as_deref() == told.as_str())
    };
    let number = |column: &str, told: &Json| {
        let copy: Option<i64> = row.get(column).ok()?;
        Some(copy == told.as_i64())
    };
    let same = word("organisation", &told["organisation"])?
        && word("id", &told["id"])?
        && number("at", &told["at"])?
        && word("actor", &told["actor"]["id"])?
        && word("action", &told["action"])?
        && word("subject", &told["subject"])?
        && word("result", &told["result"])?
        && word("writer", &told["writer"])?
        && number("counter", &told["counter"])?;
    Some(if same { Intact::Yes } else { Intact::Changed })
}
