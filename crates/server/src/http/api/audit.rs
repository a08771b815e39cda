//! The record of who did what: read, given out whole, and verified.

use activation_lock::time::Timestamp;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use escrow::audit::{AuditFilter, AuditRow, Bad, Place, Verified};
use escrow::permit::{Audit, Grants, OrganisationId, Permission, Permit};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};

use super::shown::{Moment, Page};
use crate::App;
use crate::auth::Caller;
use crate::http::extract::Query;
use crate::http::problem::Problem;

/// Which rows.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExportQuery {
    /// Only rows about this: a serial number, an identifier.
    subject: Option<String>,
    /// Only rows of this principal, by its identifier.
    actor: Option<String>,
    /// Only rows of this action, such as `code.reveal`.
    action: Option<String>,
    /// Only rows with this result, such as `ok`.
    result: Option<String>,
    /// Only rows of this moment or later, RFC 3339.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Only rows before this moment, RFC 3339.
    #[param(format = DateTime)]
    until: Option<String>,
}

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
    /// Only rows with this result, such as `ok`.
    result: Option<String>,
    /// Only rows of this moment or later, RFC 3339.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Only rows before this moment, RFC 3339.
    #[param(format = DateTime)]
    until: Option<String>,
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
    /// Its place in the chain; null until it is sealed, a second or two after it was written.
    position: Option<u64>,
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
            position: row.position,
            intact: row.intact.as_str(),
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

impl ExportQuery {
    fn filter(self) -> Result<AuditFilter, Problem> {
        Ok(AuditFilter {
            subject: self.subject,
            actor: self.actor,
            action: self.action,
            result: self.result,
            since: moment(self.since)?,
            until: moment(self.until)?,
        })
    }
}

fn moment(text: Option<String>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let at = OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| {
        Problem::bad_request("A moment is written as in 2026-10-01T08:30:00Z (RFC 3339).")
    })?;
    let millis = at.unix_timestamp_nanos().div_euclid(1_000_000);
    Ok(i64::try_from(millis).ok().map(Timestamp))
}

async fn permit(app: &App, caller: &Caller) -> Result<Permit<Audit>, Problem> {
    let organisation = caller.record(app).await?;
    let authorised = app.escrow.authorise(&caller.actor, &organisation, "audit");
    Ok(authorised.await?)
}

/// Read the record of who did what, newest first.
///
/// `?organisation=*` gives the rows that concern no single organisation, to a token of all of them. That the record was read is on
/// record, once a query.
#[utoipa::path(
    get,
    path = "/v1/audit",
    tag = "audit",
    operation_id = "list_audit",
    security(("token" = ["audit"])),
    params(ListQuery),
    responses((status = 200, description = "One page.", body = Page<Entry>))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Entry>>, Problem> {
    let permit = permit(&app, &caller).await?;
    let limit = query.limit.unwrap_or(100).clamp(1, 500);
    let which = ExportQuery {
        subject: query.subject,
        actor: query.actor,
        action: query.action,
        result: query.result,
        since: query.since,
        until: query.until,
    };
    let mut rows = app
        .escrow
        .audit()
        .list(
            &permit,
            &which.filter()?,
            query.cursor.as_deref(),
            limit + 1,
        )
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

/// Give out the record, oldest first: one line of JSON a row.
///
/// A line has `intact`, `link`, `mac`, `mac_key`, `position`, and `text`, whose canonical form (keys sorted, no spaces) is what was
/// authenticated. The last row is the one that tells of the export, unless the filter keeps it out. An answer that breaks off is not whole.
#[utoipa::path(
    get,
    path = "/v1/audit/export",
    tag = "audit",
    operation_id = "export_audit",
    security(("token" = ["audit"])),
    params(ExportQuery),
    responses((status = 200, description = "The rows.", body = String, content_type = "application/x-ndjson"))
)]
pub(super) async fn export(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ExportQuery>,
) -> Result<Response, Problem> {
    export_rows(&app, &caller, query.filter()?).await
}

/// Rows as they were written, one a line, poured as they are read.
pub(crate) async fn export_rows(
    app: &App,
    caller: &Caller,
    filter: AuditFilter,
) -> Result<Response, Problem> {
    let permit = permit(app, caller).await?;
    let export = app.escrow.audit().export(&permit, filter).await?;
    let pages = stream::try_unfold(export, async |mut export| {
        let rows = export.next().await.inspect_err(|error| {
            tracing::error!(%error, "an export of the audit record broke off");
        })?;
        let mut lines = String::new();
        for row in &rows {
            lines.push_str(&row.to_line());
            lines.push('\n');
        }
        let page = (Bytes::from(lines), export);
        Ok::<_, escrow::Error>(Some(page).filter(|_| !rows.is_empty()))
    });
    let lines = HeaderValue::from_static("application/x-ndjson");
    Ok(([(header::CONTENT_TYPE, lines)], Body::from_stream(pages)).into_response())
}

/// What to hold the record against.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct VerifyQuery {
    /// A line of checkpoints that was kept outside.
    checkpoint: Option<String>,
}

/// What was found in the record.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditVerification)]
pub(crate) struct Found {
    /// `bad`: something is not as it was written. `unproven`: nothing was found, and no checkpoint from outside stands for the end.
    /// `proven`: nothing was found, and the checkpoint given stands for all of it.
    verdict: &'static str,
    /// The same in words.
    says: String,
    /// The first bad thing.
    bad: Option<Wrong>,
    /// Rows looked at; 0 when something bad was found.
    rows: u64,
    /// The last position in the chain.
    position: u64,
    /// Rows that are not sealed yet.
    unsealed: u64,
    /// Rows after the checkpoint given; all of them without one.
    unproven: u64,
    /// When the checkpoint given was signed.
    proven_until: Option<Moment>,
}

/// The first thing that is not as it was written.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditBad)]
struct Wrong {
    /// Where, in words: a position, or a number of a writer.
    place: String,
    /// Its position, where it has one.
    position: Option<u64>,
    /// The row's organisation, when the token may see it.
    organisation: Option<String>,
    /// The row's identifier, when the token may see it.
    id: Option<String>,
    /// What is wrong.
    what: String,
}

impl Found {
    /// Whether something is not as it was written.
    pub(crate) fn is_bad(&self) -> bool {
        self.bad.is_some()
    }

    /// What was found, in words.
    pub(crate) fn says(&self) -> &str {
        &self.says
    }

    fn bad(bad: Bad, grants: &Grants) -> Self {
        let is_visible = match &bad.organisation {
            Some(organisation) => grants
                .within(&OrganisationId::new(organisation))
                .allow(Permission::Audit),
            None => grants.reach_all(),
        };
        let shown = |text: Option<String>| text.filter(|_| is_visible);
        Self {
            verdict: "bad",
            says: format!("{}: {}", bad.place, bad.what),
            rows: 0,
            position: 0,
            unsealed: 0,
            unproven: 0,
            proven_until: None,
            bad: Some(Wrong {
                place: bad.place.to_string(),
                position: match bad.place {
                    Place::Position(position) => Some(position),
                    _ => None,
                },
                organisation: shown(bad.organisation),
                id: shown(bad.id),
                what: bad.what,
            }),
        }
    }

    fn whole(verified: &Verified) -> Self {
        Self {
            verdict: match verified.is_proven() {
                true => "proven",
                false => "unproven",
            },
            says: verified.to_string(),
            bad: None,
            rows: verified.rows,
            position: verified.position,
            unsealed: verified.unsealed,
            unproven: verified.unproven,
            proven_until: verified.proven.map(|proven| Moment(proven.at)),
        }
    }
}

/// Verify the record, of every organisation: MACs, counts, chain and checkpoints.
///
/// It reads the whole record, which takes seconds for each hundred thousand rows; one is under way at a time.
#[utoipa::path(
    get,
    path = "/v1/audit/verify",
    tag = "audit",
    operation_id = "verify_audit",
    security(("token" = ["audit"])),
    params(VerifyQuery),
    responses(
        (status = 200, description = "What was found.", body = Found),
        (status = 409, description = "Another verification is under way.")
    )
)]
pub(super) async fn verify(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<VerifyQuery>,
) -> Result<Json<Found>, Problem> {
    let found = verify_record(&app, &caller, query.checkpoint).await?;
    Ok(Json(found))
}

/// Goes through the whole record, and holds it against a line of checkpoints where there is one.
pub(crate) async fn verify_record(
    app: &App,
    caller: &Caller,
    checkpoint: Option<String>,
) -> Result<Found, Problem> {
    let permit = permit(app, caller).await?;
    let _turn = app.verifying.try_lock().map_err(|_| {
        Problem::new(
            axum::http::StatusCode::CONFLICT,
            "verification-under-way",
            "The record is being verified",
            "Another verification is under way, and reads the whole record.",
        )
        .hint("Ask again when it has ended.")
    })?;
    let audit = app.escrow.audit();
    let mut verifier = audit.verifier();
    let mut bad = verifier.record().await?;
    if let (None, Some(line)) = (&bad, checkpoint) {
        bad = verifier.compare(1, vec![line]).await?;
    }
    audit.note_verification(&permit, bad.as_ref()).await?;
    Ok(match bad {
        Some(bad) => {
            tracing::error!(place = %bad.place, what = bad.what, "the audit record is not as it was written");
            Found::bad(bad, caller.actor.grants())
        }
        None => Found::whole(&verifier.verified()),
    })
}

/// Which page of them.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CheckpointsQuery {
    /// `next` of the page before.
    cursor: Option<u64>,
    /// Checkpoints a page, 1 to 500; 100 when it is left out.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// One checkpoint.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditCheckpoint)]
pub(super) struct KeptCheckpoint {
    /// What was signed: its canonical form (keys sorted, no spaces).
    #[schema(value_type = Object)]
    checkpoint: Value,
    /// Ed25519, 128 hexadecimal digits.
    signature: String,
}

/// One page of checkpoints.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditCheckpoints)]
pub(super) struct Checkpoints {
    /// Newest first.
    items: Vec<KeptCheckpoint>,
    /// Give this as `cursor` for the next page; null on the last.
    next: Option<u64>,
    /// The public halves of the keys that sign them: the current one first, then older ones.
    public_keys: Vec<String>,
}

/// List the signed checkpoints that the vault keeps, newest first.
///
/// What proves something is a checkpoint that was kept elsewhere: who edits the database can take these away.
#[utoipa::path(
    get,
    path = "/v1/audit/checkpoints",
    tag = "audit",
    operation_id = "list_audit_checkpoints",
    security(("token" = ["audit"])),
    params(CheckpointsQuery),
    responses((status = 200, description = "One page.", body = Checkpoints))
)]
pub(super) async fn checkpoints(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<CheckpointsQuery>,
) -> Result<Json<Checkpoints>, Problem> {
    let permit = permit(&app, &caller).await?;
    let audit = app.escrow.audit();
    let limit = query.limit.unwrap_or(100).clamp(1, 500);
    let mut kept = audit.checkpoints(&permit, query.cursor, limit + 1).await?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = kept.len() > most;
    kept.truncate(most);
    let next = kept.last().filter(|_| more).map(|(number, _)| *number);
    let keys = audit.public_keys();
    Ok(Json(Checkpoints {
        items: kept
            .into_iter()
            .map(|(_, signed)| KeptCheckpoint {
                checkpoint: serde_json::from_str(&signed.text).unwrap_or_default(),
                signature: signed.signature,
            })
            .collect(),
        next,
        public_keys: keys.iter().map(|key| key.to_text()).collect(),
    }))
}
