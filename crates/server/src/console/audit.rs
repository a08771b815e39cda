//! The record of who did what.

use escrow::audit::{AuditFilter, AuditRow};
use escrow::permit::{Audit, Permit};
use serde_json::Value;

use super::*;
use crate::http::api::{self, AuditFound};

/// Rows a page.
const PAGE: u32 = 50;

#[derive(Template)]
#[template(path = "audit.html")]
pub(super) struct AuditPage {
    frame: Frame,
    subject: String,
    action: String,
    rows: Vec<Row>,
    next: Option<String>,
    /// Where the rows that fit are taken from, one a line.
    export: String,
    /// What was just found in the whole record.
    found: Option<AuditFound>,
}

/// A row as it says itself; nothing where it cannot be read, which happens only to one that was changed.
struct Row {
    at: Option<Timestamp>,
    who: String,
    action: String,
    subject: String,
    reason: String,
    result: String,
    /// Whether it is as it was written.
    is_intact: bool,
}

impl Row {
    fn read(row: &AuditRow) -> Self {
        let said: Value = serde_json::from_str(&row.text).unwrap_or_default();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            at: said["at"].as_i64().map(Timestamp),
            who: word(&said["actor"]["name"]),
            action: word(&said["action"]),
            subject: word(&said["subject"]),
            reason: word(&said["reason"]),
            result: word(&said["result"]),
            is_intact: row.intact.as_str() == "yes",
        }
    }
}

/// What the address asks for.
struct Asked {
    subject: String,
    action: String,
    cursor: String,
}

impl Asked {
    fn read(uri: &Uri) -> Self {
        let given = |name| asked(uri, name).unwrap_or_default().trim().to_owned();
        Self {
            subject: given("subject"),
            action: given("action"),
            cursor: given("cursor"),
        }
    }

    fn filter(&self) -> AuditFilter {
        AuditFilter {
            subject: some(&self.subject),
            action: some(&self.action),
            ..AuditFilter::default()
        }
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl AuditPage {
    async fn of(visitor: &Visitor, uri: &Uri) -> Result<Self, Turned> {
        let app = &visitor.app;
        let organisation = visitor.caller.record(app).await?;
        let actor = &visitor.caller.actor;
        let permit: Permit<Audit> = app.escrow.authorise(actor, &organisation, "audit").await?;
        let asked = Asked::read(uri);
        let cursor = some(&asked.cursor);
        let mut rows = app
            .escrow
            .audit()
            .list(&permit, &asked.filter(), cursor.as_deref(), PAGE + 1)
            .await?;
        let is_more = rows.len() > PAGE as usize;
        rows.truncate(PAGE as usize);
        let frame = visitor.frame("Audit record", &organisation).await?;
        let link = |path: &str, cursor: Option<&str>| {
            let mut pairs = vec![("subject", &*asked.subject), ("action", &*asked.action)];
            pairs.extend(cursor.map(|cursor| ("cursor", cursor)));
            pairs.retain(|(_, value)| !value.is_empty());
            frame.link(path, &pairs)
        };
        let last = rows.last().filter(|_| is_more);
        Ok(Self {
            next: last.map(|row| link("/audit", Some(&row.id))),
            export: link("/audit/rows.jsonl", None),
            rows: rows.iter().map(Row::read).collect(),
            found: None,
            frame,
            subject: asked.subject,
            action: asked.action,
        })
    }
}

pub(super) async fn list(visitor: Visitor, uri: Uri) -> Shown<AuditPage> {
    Ok(Page(StatusCode::OK, AuditPage::of(&visitor, &uri).await?))
}

/// Goes through the whole record, and says what was found.
pub(super) async fn verify(visitor: Visitor, uri: Uri) -> Shown<AuditPage> {
    let found = api::verify_record(&visitor.app, &visitor.caller, None).await?;
    let page = AuditPage {
        found: Some(found),
        ..AuditPage::of(&visitor, &uri).await?
    };
    Ok(Page(StatusCode::OK, page))
}

/// The rows that fit, as they were written.
pub(super) async fn export(visitor: Visitor, uri: Uri) -> Result<Response, Turned> {
    let filter = Asked::read(&uri).filter();
    let mut rows = api::export_rows(&visitor.app, &visitor.caller, filter).await?;
    let name = HeaderValue::from_static("attachment; filename=\"audit.jsonl\"");
    rows.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    Ok(rows)
}
