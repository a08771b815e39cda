//! Notices on their way to people: by a signed POST (Standard Webhooks) or by mail.

mod mail;
mod webhook;

use escrow::notices::{ChannelKind, Delivery, NoticeKind, Taken};
use serde_json::{Value, json};

use crate::App;

pub(crate) use mail::is_server;

/// Sends a notice, and says what came of it.
pub(crate) async fn send(app: &App, delivery: &Delivery) -> Taken {
    match delivery.channel.kind {
        ChannelKind::Webhook => webhook::send(app, delivery).await,
        ChannelKind::Mail => mail::send(app, delivery).await,
    }
}

/// What a notice says, in a line.
fn subject(delivery: &Delivery) -> String {
    let told = |key: &str| word(&delivery.text, key);
    let what = match delivery.kind {
        NoticeKind::ApprovalRequested => {
            format!(
                "{} asks for an approval: {} {}",
                told("requested_by"),
                told("action"),
                told("targets")
            )
        }
        NoticeKind::ApprovalDecided => format!(
            "{} {} what {} asked for: {} {}",
            told("by"),
            told("state"),
            told("requested_by"),
            told("action"),
            told("targets")
        ),
        NoticeKind::BreakGlass => format!(
            "EMERGENCY: {} went on without an approval: {} {}",
            told("by"),
            told("action"),
            told("targets")
        ),
        NoticeKind::BreakGlassAcknowledged => {
            format!(
                "{} acknowledged the emergency of {}",
                told("by"),
                told("done_by")
            )
        }
        NoticeKind::PolicyLoosened => format!(
            "{} made the policy of {} looser",
            told("by"),
            told("policy")
        ),
        NoticeKind::RoleGranted => format!(
            "{} gave {} the roles {}",
            told("by"),
            told("person"),
            told("roles")
        ),
        NoticeKind::CodesExported => format!(
            "{} takes the codes of {} away, {}",
            told("by"),
            match &delivery.text["devices"] {
                Value::Number(count) => format!("{count} devices"),
                _ => "every device".to_owned(),
            },
            told("form")
        ),
        NoticeKind::Test => format!("{} tries this channel out", told("by")),
    };
    // A header is one line.
    what.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect()
}

fn word(text: &Value, key: &str) -> String {
    match &text[key] {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let words: Vec<_> = items.iter().filter_map(Value::as_str).take(5).collect();
            let more = if items.len() > 5 {
                format!(" and {} more", items.len() - 5)
            } else {
                String::new()
            };
            format!("{}{more}", words.join(", "))
        }
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// The notice as programs read it.
fn document(delivery: &Delivery) -> Value {
    json!({
        "type": delivery.kind.as_str(),
        "timestamp": crate::http::api::moment(delivery.created_at),
        "data": delivery.text,
    })
}
