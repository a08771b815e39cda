//! The record of who did what.

use escrow::audit::{AuditFilter, AuditRow};
use escrow::permit::{Audit, Permit};
use serde_json::Value;
use url::form_urlencoded;

use super::*;

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

pub(super) async fn list(visitor: Visitor, uri: Uri) -> Shown<AuditPage> {
    let app = &visitor.app;
    let organisation = visitor.caller.record(app).await?;
    let actor = &visitor.caller.actor;
    let permit: Permit<Audit> = app.escrow.authorise(actor, &organisation, "audit").await?;
    let query = uri.query().unwrap_or_default().as_bytes();
    let given = |wanted: &str| {
        let found = form_urlencoded::parse(query).find(|(name, _)| name == wanted);
        found.map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let (subject, action, cursor) = (given("subject"), given("action"), given("cursor"));
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    let filter = AuditFilter {
        subject: some(&subject),
        action: some(&action),
        ..AuditFilter::default()
    };
    let cursor = some(&cursor);
    let mut rows = app
        .escrow
        .audit()
        .list(&permit, &filter, cursor.as_deref(), PAGE + 1)
        .await?;
    let is_more = rows.len() > PAGE as usize;
    rows.truncate(PAGE as usize);
    let frame = visitor.frame("Audit record", &organisation).await?;
    let next = rows.last().filter(|_| is_more).map(|row| {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        if !frame.within.is_empty() {
            pairs.append_pair("organisation", &frame.organisation);
        }
        for (name, value) in [
            ("subject", &subject),
            ("action", &action),
            ("cursor", &row.id),
        ] {
            if !value.is_empty() {
                pairs.append_pair(name, value);
            }
        }
        format!("/audit?{}", pairs.finish())
    });
    Ok(Page(
        StatusCode::OK,
        AuditPage {
            rows: rows.iter().map(Row::read).collect(),
            frame,
            subject,
            action,
            next,
        },
    ))
}
