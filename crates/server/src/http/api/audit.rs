//! The record of who did what.

use activation_lock::time::Timestamp;
use axum::Json;
use axum::extract::State;
use escrow::audit::{AuditFilter, AuditRow, Intact};
use escrow::permit::{Admin, Permit};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::shown::{Moment, Page};
use crate::App;
use crate::auth::Caller;
use crate::http::extract::Query;
use crate::http::problem::Problem;

/// Which rows, and which page of them.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only rows about this: a serial number, an identifier.
    subject: Option<String>,
    /// Only rows of this principal, by its identifier.
    actor: Option<String>,
    /// Only rows of this action, such as `code.reveal`.
    action: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Rows a page, 1 to 500; 100 when it is left out.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// One row of the record.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(super) struct Entry {
    id: String,
    /// Whether the row is as it was written: `yes`, `changed`, or `unknown_key` (the key that authenticated it is not among the
    /// database's keys). What a row says that is not `yes` is not to be believed.
    intact: &'static str,
    #[serde(flatten)]
    said: Said,
}

/// What a row says. Null where it cannot be read, which happens only to a row that was changed.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = AuditText)]
struct Said {
    at: Option<Moment>,
    actor: Option<Actor>,
    /// How the actor proved who it is, such as `token` and its identifier.
    proof: Option<String>,
    /// The network address it came from.
    address: Option<String>,
    /// A stable word, such as `unlock.request`. More may come.
    action: Option<String>,
    /// To what it was done: a serial number, an identifier.
    subject: Option<String>,
    /// Why, in the words of the person who asked.
    reason: Option<String>,
    /// `ok`, or what came of it in a stable word.
    result: Option<String>,
    /// More facts, by name.
    #[schema(value_type = Option<Object>)]
    details: Option<Value>,
}

/// Who acted.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditActor)]
struct Actor {
    id: Option<String>,
    /// `token`, `person`, `connection` or `system`.
    kind: Option<String>,
    name: Option<String>,
}

impl From<AuditRow> for Entry {
    fn from(row: AuditRow) -> Self {
        let said = serde_json::from_str(&row.text).ok().map(Said::read);
        Self {
            id: row.id,
            intact: match row.intact {
                Intact::Yes => "yes",
                Intact::Changed => "changed",
                Intact::UnknownKey => "unknown_key",
            },
            said: said.unwrap_or_default(),
        }
    }
}

impl Said {
    fn read(mut text: Value) -> Self {
        let word = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            at: text["at"].as_i64().map(|at| Moment(Timestamp(at))),
            actor: text["actor"].is_object().then(|| Actor {
                id: word(&text["actor"]["id"]),
                kind: word(&text["actor"]["kind"]),
                name: word(&text["actor"]["name"]),
            }),
            proof: word(&text["proof"]),
            address: word(&text["address"]),
            action: word(&text["action"]),
            subject: word(&text["subject"]),
            reason: word(&text["reason"]),
            result: word(&text["result"]),
            details: text.get_mut("details").map(Value::take),
        }
    }
}

/// Read the record of who did what, newest first.
#[utoipa::path(
    get,
    path = "/v1/audit",
    tag = "audit",
    operation_id = "list_audit",
    security(("token" = ["admin"])),
    params(ListQuery),
    responses((status = 200, description = "One page.", body = Page<Entry>))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Entry>>, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Admin> = app
        .escrow
        .authorise(&caller.actor, &organisation, "audit")
        .await?;
    let filter = AuditFilter {
        subject: query.subject,
        actor: query.actor,
        action: query.action,
    };
    let limit = query.limit.unwrap_or(100).clamp(1, 500);
    let mut rows = app
        .escrow
        .audit()
        .list(&permit, &filter, query.cursor.as_deref(), limit + 1)
        .await?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > most;
    rows.truncate(most);
    let next = rows.last().filter(|_| more).map(|row| row.id.clone());
    Ok(Json(Page {
        items: rows.into_iter().map(Entry::from).collect(),
        next,
    }))
}
