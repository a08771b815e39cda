//! Batches: one wish for many devices, looked at line by line before anything runs.

use activation_lock::batch::BatchAction;
use activation_lock::device::SerialNumber;
use activation_lock::explain;
use axum::Json;
use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use escrow::batches::{
    BatchState, BatchView, Bulk, Changed, Created, HeldFor, LineView, MOST_AT_ONCE, MOST_LINES,
    NewBatch, Stands,
};
use escrow::operations::Key;
use escrow::permit::{Lock, OrganisationId, Permit, Read, Refresh, Unlock};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::codes::reason;
use super::locks::message;
use super::shown::{Moment, Page};
use super::unlocks::{idempotency_key, key_reused};
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Body, Path, Query, name};
use crate::http::problem::Problem;

/// The most lines in one answer.
const MOST: i64 = 500;

/// A wish for many devices, and how it stands.
#[derive(Serialize, ToSchema)]
pub(super) struct Batch {
    id: String,
    /// The identifier of the organisation.
    #[schema(value_type = String)]
    organisation: OrganisationId,
    /// `unlock`, `lock` or `refresh`.
    #[schema(value_type = String, example = "unlock")]
    action: BatchAction,
    /// `draft`: its lines are brought and looked at, and nothing of it runs; `running`; `paused`; `cancelled`; `ended`.
    state: &'static str,
    /// Why it was paused, when no person did it: `restored` (the database was restored or copied, and nothing fires by itself) or
    /// `not_allowed` (whoever started it may not do that any more).
    held_for: Option<&'static str>,
    reason: String,
    /// The real person behind it, whom Apple is told.
    requester: String,
    message: Option<String>,
    insist: bool,
    created_by: String,
    /// Who started it; who made it, until then.
    requested_by: String,
    created_at: Moment,
    started_at: Option<Moment>,
    ended_at: Option<Moment>,
    /// How many lines it has.
    lines: i64,
    /// Lines that will be done.
    ready: i64,
    /// Lines that stand in the queue or are worked on.
    under_way: i64,
    /// Lines that have come to their end, those that were left out among them.
    done: i64,
    /// How many lines stand how: by the word of a line, or of its unlock or lock once it has one. An open set.
    counts: Vec<Count>,
    /// Lines a second that came to their end lately; null while there is nothing to measure.
    rate: Option<f64>,
    /// At that rate, the seconds until every line has come to its end; null while there is no rate.
    seconds_left: Option<f64>,
}

/// So many lines stand so.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchCount)]
struct Count {
    #[schema(value_type = String)]
    state: &'static str,
    lines: i64,
}

impl From<BatchView> for Batch {
    fn from(view: BatchView) -> Self {
        Self {
            ready: view.ready(),
            under_way: view.under_way(),
            done: view.done(),
            seconds_left: seconds_left(&view),
            id: view.id,
            organisation: view.organisation,
            action: view.action,
            state: view.state.as_str(),
            held_for: view.held_for.map(HeldFor::as_str),
            reason: view.reason,
            requester: view.requester,
            message: view.message,
            insist: view.insists,
            created_by: view.created_by,
            requested_by: view.requested_by,
            created_at: view.created_at.into(),
            started_at: view.started_at.map(Moment),
            ended_at: view.ended_at.map(Moment),
            lines: view.lines,
            counts: view
                .counts
                .into_iter()
                .map(|count| Count {
                    state: count.word,
                    lines: count.lines,
                })
                .collect(),
            rate: view.rate,
        }
    }
}

/// At the rate of lately, how long until every line has come to its end.
pub(crate) fn seconds_left(view: &BatchView) -> Option<f64> {
    let left = view.lines - view.done();
    #[expect(
        clippy::cast_precision_loss,
        reason = "a batch has fewer lines than a double has whole numbers"
    )]
    view.rate.map(|rate| left as f64 / rate)
}

/// A line of a batch.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchLine)]
pub(super) struct Line {
    /// Its number, from 1.
    line: i64,
    /// The device; null where no serial number stood.
    #[schema(value_type = Option<String>)]
    serial: Option<SerialNumber>,
    /// `ready`, `asked`, `not_a_serial`, `duplicate`, `unknown_device`, `no_code`, `no_product_type`, `not_locked`,
    /// `already_locked`, `not_assigned`, `in_progress`, `not_enrolled`; or the state of its unlock or lock. An open set.
    state: &'static str,
    /// Its unlock or lock, once it has one.
    operation: Option<String>,
    /// The same in words: what happened, what it means for the device, what to do.
    words: super::shown::Explanation,
    ended_at: Option<Moment>,
}

impl Line {
    fn of(line: LineView) -> Self {
        Self {
            words: line_in_words(&line.stands).into(),
            line: line.line,
            serial: line.serial,
            state: line.stands.word(),
            operation: line.operation,
            ended_at: line.ended_at.map(Moment),
        }
    }
}

/// How a line stands, in words.
pub(crate) fn line_in_words(stands: &Stands) -> explain::Explanation {
    match stands {
        Stands::Line(state) => explain::batch::line(*state),
        Stands::Unlock(state, details, by) => {
            super::unlocks::stands_in_words(*state, details, by.as_deref())
        }
        Stands::Lock(state, details, by) => {
            super::locks::stands_in_words(*state, details, by.as_deref())
        }
    }
}

/// What such a batch does.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct What {
    /// `unlock`, `lock` or `refresh`.
    #[param(value_type = String)]
    action: BatchAction,
}

/// What is wanted, and why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewBatch)]
pub(super) struct Wish {
    /// In the person's own words; kept on record. 1 to 1,000 characters.
    reason: String,
    /// The real person behind it (mail address, directory name), whom Apple is told; the name of whoever starts it when left out.
    requester: Option<String>,
    /// Of locks: what the screens are to show.
    message: Option<String>,
    /// Of unlocks: also where Apple says that a device is not locked.
    #[serde(default)]
    insist: bool,
}

/// Lines of a draft.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BatchLines)]
pub(super) struct Lines {
    /// The number of the first of them, from 1. Lines that are there already are left as they are.
    first: i64,
    /// Serial numbers, one a line, 1,000 at most. What is none is kept as a line that does nothing.
    serials: Vec<String>,
}

/// Make a draft of a batch: nothing of it runs before it is started.
#[utoipa::path(
    post,
    path = "/v1/batches",
    tag = "batches",
    operation_id = "create_batch",
    security(("token" = ["unlock"]), ("token" = ["lock"]), ("token" = ["refresh"])),
    params(What, ("Idempotency-Key" = Option<String>, Header, description = "Makes asking twice harmless, for seven days: the same key \
        with the same body is the same batch. 1 to 255 visible ASCII characters.")),
    request_body = Wish,
    responses(
        (status = 201, description = "A draft without lines; or the same was wanted before with the same key, and this is it.", body = Batch,
            headers(("Location" = String, description = "`/v1/batches/{id}`"))),
        (status = 422, description = "`idempotency-key-reused`: the key was used for another request.")
    )
)]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    Query(what): Query<What>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    match what.action {
        BatchAction::Unlock => create_as::<Unlock>(&app, &caller, &headers, &body).await,
        BatchAction::Lock => create_as::<Lock>(&app, &caller, &headers, &body).await,
        BatchAction::Refresh => create_as::<Refresh>(&app, &caller, &headers, &body).await,
    }
}

async fn create_as<P: Bulk>(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    body: &Body,
) -> Result<Response, Problem> {
    let organisation = caller.organisation(app).await?;
    let permit: Permit<P> = app
        .escrow
        .authorise(&caller.actor, &organisation, "batch")
        .await?;
    let wish: Wish = body.json()?;
    let reason = reason(&wish.reason)?;
    let requester = wish
        .requester
        .as_deref()
        .map(|given| name("The requester", given))
        .transpose()?;
    let message = wish.message.as_deref().map(message).transpose()?;
    let parts = [
        reason,
        requester.unwrap_or_default(),
        message.as_deref().unwrap_or_default(),
        if wish.insist { "insist" } else { "" },
    ];
    let new = NewBatch {
        reason: reason.to_owned(),
        requester: requester.map(str::to_owned),
        insists: wish.insist,
        idempotency: idempotency_key(headers)?.map(|key| Key::new(key, &parts)),
        message,
    };
    let batch = match app.escrow.batches().create(&permit, new).await? {
        Created::New(batch) | Created::Same(batch) => batch,
        Created::KeyReused => return Err(key_reused()),
    };
    let location = HeaderValue::try_from(format!("/v1/batches/{}", batch.id))
        .map_err(|_| Problem::failed())?;
    let body = Json(Batch::from(batch));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body).into_response())
}

/// Which batches.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// At most so many, 1 to 100; 20 when it is left out.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// List the batches of an organisation, newest first.
#[utoipa::path(
    get,
    path = "/v1/batches",
    tag = "batches",
    operation_id = "list_batches",
    security(("token" = ["read"])),
    params(ListQuery),
    responses((status = 200, description = "A page.", body = Page<Batch>))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Batch>>, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, "batches")
        .await?;
    let limit = query.limit.unwrap_or(20).clamp(1, 100);
    let batches = app.escrow.batches();
    let found = batches
        .list(&permit, query.cursor.as_deref(), limit)
        .await?;
    let is_full = found.len() == limit as usize;
    let next = found.last().map(|last| last.id.clone());
    Ok(Json(Page {
        items: found.into_iter().map(Batch::from).collect(),
        next: next.filter(|_| is_full),
    }))
}

/// Read a batch: how it stands, and how many of its lines stand how.
#[utoipa::path(
    get,
    path = "/v1/batches/{id}",
    tag = "batches",
    operation_id = "show_batch",
    security(("token" = ["read"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses((status = 200, description = "The batch.", body = Batch), (status = 404, description = "`unknown-batch`"))
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Batch>, Problem> {
    let (_, view) = read_batch(&app, &caller, &id).await?;
    Ok(Json(view.into()))
}

/// A batch, with the permit by which it was read.
pub(crate) async fn read_batch(
    app: &App,
    caller: &Caller,
    id: &str,
) -> Result<(Permit<Read>, BatchView), Problem> {
    let batches = app.escrow.batches();
    let organisation = match batches.locate(&caller.actor, id).await? {
        Some((organisation, _)) => organisation,
        None => caller.organisation(app).await?,
    };
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, format!("batch {id}"))
        .await?;
    let view = batches.get(&permit, id).await?.ok_or_else(unknown)?;
    Ok((permit, view))
}

/// Which lines.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LinesQuery {
    /// Those that stand so, by the word of `counts`; all when it is left out.
    state: Option<String>,
    /// The `next` of the page before.
    cursor: Option<i64>,
    /// At most so many, 1 to 500; 100 when it is left out.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<i64>,
}

/// List the lines of a batch in their order, each with how it stands.
#[utoipa::path(
    get,
    path = "/v1/batches/{id}/lines",
    tag = "batches",
    operation_id = "list_batch_lines",
    security(("token" = ["read"])),
    params(("id" = String, Path, description = "Its identifier."), LinesQuery),
    responses((status = 200, description = "A page.", body = Page<Line>), (status = 404, description = "`unknown-batch`"))
)]
pub(super) async fn lines(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<LinesQuery>,
) -> Result<Json<Page<Line>>, Problem> {
    let (permit, _) = read_batch(&app, &caller, &id).await?;
    let limit = query.limit.unwrap_or(100).clamp(1, MOST);
    let (state, after) = (query.state.as_deref(), query.cursor.unwrap_or(0));
    let batches = app.escrow.batches();
    let found = batches.lines(&permit, &id, state, after, limit).await?;
    let is_full = i64::try_from(found.len()).is_ok_and(|found| found == limit);
    let next = found.last().map(|last| last.line.to_string());
    Ok(Json(Page {
        items: found.into_iter().map(Line::of).collect(),
        next: next.filter(|_| is_full),
    }))
}

/// Take the results of a batch as a table (CSV, RFC 4180), one row a line.
///
/// The columns: `line`, `serial`, `state`, `operation`, `ended_at`, `happened`, `means`, `to_do`.
#[utoipa::path(
    get,
    path = "/v1/batches/{id}/results",
    tag = "batches",
    operation_id = "export_batch_results",
    security(("token" = ["read"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 200, description = "The table.", content_type = "text/csv"),
        (status = 404, description = "`unknown-batch`")
    )
)]
pub(super) async fn results(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    results_table(&app, &caller, &id).await
}

/// The results of a batch as a table, poured as it is read.
pub(crate) async fn results_table(
    app: &App,
    caller: &Caller,
    id: &str,
) -> Result<Response, Problem> {
    let (permit, _) = read_batch(app, caller, id).await?;
    let heading = table_row(&[
        "line",
        "serial",
        "state",
        "operation",
        "ended_at",
        "happened",
        "means",
        "to_do",
    ])
    .map_err(|_| Problem::failed())?;
    let escrow = app.escrow.clone();
    let id = id.to_owned();
    let pieces = stream::try_unfold(Some((0, heading)), move |next: Option<(i64, Vec<u8>)>| {
        let (escrow, permit, id) = (escrow.clone(), permit.clone(), id.clone());
        async move {
            let Some((after, mut table)) = next else {
                return Ok(None);
            };
            let batches = escrow.batches();
            let lines = batches.lines(&permit, &id, None, after, MOST).await;
            let lines = lines.map_err(|error| {
                tracing::error!(%error, "the results of a batch broke off");
                std::io::Error::other(error)
            })?;
            for line in &lines {
                let words = line_in_words(&line.stands);
                table.extend(table_row(&[
                    &line.line.to_string(),
                    line.serial.as_ref().map_or("", SerialNumber::as_str),
                    line.stands.word(),
                    line.operation.as_deref().unwrap_or_default(),
                    &line.ended_at.map(super::moment).unwrap_or_default(),
                    &words.happened,
                    &words.means,
                    &words.to_do,
                ])?);
            }
            let next = lines.last().map(|last| (last.line, Vec::new()));
            Ok::<_, std::io::Error>(Some((Bytes::from(table), next)))
        }
    });
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/csv; charset=utf-8; header=present"),
        ),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::from_static("attachment; filename=\"results.csv\""),
        ),
    ];
    Ok((StatusCode::OK, headers, Stream::from_stream(pieces)).into_response())
}

/// One record of a table (RFC 4180). Nothing in it is a secret.
fn table_row(fields: &[&str]) -> std::io::Result<Vec<u8>> {
    let mut row = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    row.write_record(fields)?;
    row.into_inner().map_err(|error| error.into_error())
}

/// Bring lines of a draft, in stretches. Each is looked at as it comes.
///
/// Bringing a stretch twice is harmless: lines go by their numbers. It takes the permission of the batch's action too, as all that
/// changes a batch does.
#[utoipa::path(
    post,
    path = "/v1/batches/{id}/lines",
    tag = "batches",
    operation_id = "add_batch_lines",
    security(("token" = ["read"])),
    params(("id" = String, Path, description = "Its identifier.")),
    request_body = Lines,
    responses(
        (status = 200, description = "They are there.", body = Batch),
        (status = 404, description = "`unknown-batch`"),
        (status = 409, description = "`batch-not-a-draft`: it was started or cancelled. `lines-missing`: those before these are not there yet.")
    )
)]
pub(super) async fn add_lines(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Batch>, Problem> {
    let change = Change::Lines(&body);
    let batch = change_batch::<Problem>(&app, &caller, &id, change).await?;
    Ok(Json(batch.into()))
}

/// Start a batch. One approval, where a policy asks for one, is for all of it.
#[utoipa::path(
    post,
    path = "/v1/batches/{id}/start",
    tag = "batches",
    operation_id = "start_batch",
    security(("token" = ["read"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 202, description = "It runs; or others were asked to approve it first, as the request wanted.", body = Batch),
        (status = 404, description = "`unknown-batch`"),
        (status = 409, description = "`batch-over`: it was cancelled. `nothing-to-do`: no line of it could be done.")
    )
)]
pub(super) async fn start(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Batch>), Problem> {
    let batch = change_batch::<Problem>(&app, &caller, &id, Change::Start).await?;
    Ok((StatusCode::ACCEPTED, Json(batch.into())))
}

/// Pause a batch: no further line enters the queue. What stands there goes on to its end.
#[utoipa::path(
    post,
    path = "/v1/batches/{id}/pause",
    tag = "batches",
    operation_id = "pause_batch",
    security(("token" = ["read"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 200, description = "It is paused.", body = Batch),
        (status = 404, description = "`unknown-batch`"),
        (status = 409, description = "`batch-not-running`")
    )
)]
pub(super) async fn pause(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Batch>, Problem> {
    let batch = change_batch::<Problem>(&app, &caller, &id, Change::Pause).await?;
    Ok(Json(batch.into()))
}

/// Let a batch that is paused go on, for whoever says so.
#[utoipa::path(
    post,
    path = "/v1/batches/{id}/resume",
    tag = "batches",
    operation_id = "resume_batch",
    security(("token" = ["read"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 200, description = "It runs.", body = Batch),
        (status = 404, description = "`unknown-batch`"),
        (status = 409, description = "`batch-not-paused`")
    )
)]
pub(super) async fn resume(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Batch>, Problem> {
    let batch = change_batch::<Problem>(&app, &caller, &id, Change::Resume).await?;
    Ok(Json(batch.into()))
}

/// Cancel a batch. What of it is under way is cancelled too: an answer in flight wins.
#[utoipa::path(
    delete,
    path = "/v1/batches/{id}",
    tag = "batches",
    operation_id = "cancel_batch",
    security(("token" = ["read"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 200, description = "It is cancelled.", body = Batch),
        (status = 404, description = "`unknown-batch`"),
        (status = 409, description = "`batch-over`: it has ended.")
    )
)]
pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Batch>, Problem> {
    let batch = change_batch::<Problem>(&app, &caller, &id, Change::Cancel).await?;
    Ok(Json(batch.into()))
}

/// What is to be done to a batch.
#[derive(Clone, Copy)]
pub(crate) enum Change<'a> {
    /// Lines are brought, in a body.
    Lines(&'a Body),
    /// It is started.
    Start,
    /// It is paused.
    Pause,
    /// It goes on.
    Resume,
    /// It is cancelled.
    Cancel,
}

/// Does something to a batch, under the permission that its action takes.
pub(crate) async fn change_batch<E: From<Problem> + From<escrow::Error>>(
    app: &App,
    caller: &Caller,
    id: &str,
    change: Change<'_>,
) -> Result<BatchView, E> {
    let (_, view) = read_batch(app, caller, id).await?;
    match view.action {
        BatchAction::Unlock => change_as::<Unlock, E>(app, caller, &view, change).await,
        BatchAction::Lock => change_as::<Lock, E>(app, caller, &view, change).await,
        BatchAction::Refresh => change_as::<Refresh, E>(app, caller, &view, change).await,
    }
}

async fn change_as<P: Bulk, E: From<Problem> + From<escrow::Error>>(
    app: &App,
    caller: &Caller,
    view: &BatchView,
    change: Change<'_>,
) -> Result<BatchView, E> {
    let id = view.id.as_str();
    let permit: Permit<P> = app
        .escrow
        .authorise(&caller.actor, &view.organisation, format!("batch {id}"))
        .await?;
    let batches = app.escrow.batches();
    let changed = match change {
        Change::Lines(body) => {
            let given: Lines = body.json()?;
            if given.serials.len() > MOST_AT_ONCE {
                return Err(Problem::bad_request(format!(
                    "More than {MOST_AT_ONCE} lines are brought at once."
                ))
                .hint("Bring them in stretches, each with the number of its first line.")
                .into());
            }
            batches
                .add_lines(&permit, id, given.first, given.serials)
                .await?
        }
        Change::Start => batches.start(&permit, id).await?,
        Change::Pause => batches.pause(&permit, id).await?,
        Change::Resume => batches.resume(&permit, id).await?,
        Change::Cancel => batches.cancel(&permit, id).await?,
    };
    Ok(settled(changed, change)?)
}

/// What came of it, or why nothing did.
fn settled(changed: Changed, change: Change<'_>) -> Result<BatchView, Problem> {
    let conflict =
        |name, title, detail: String| Problem::new(StatusCode::CONFLICT, name, title, detail);
    let stands = |view: &BatchView| format!("It is in the state `{}`.", view.state.as_str());
    Err(match changed {
        Changed::Done(view) => return Ok(view),
        Changed::Unknown => unknown(),
        Changed::NotNow(view) => match change {
            Change::Lines(_) => conflict(
                "batch-not-a-draft",
                "The batch is no draft any more",
                stands(&view),
            )
            .hint("Its lines are what was looked at and approved: make another batch for more devices."),
            Change::Start | Change::Cancel => {
                conflict("batch-over", "The batch is over", stands(&view))
                    .hint("Make another batch for the devices that are left.")
            }
            Change::Pause => conflict("batch-not-running", "The batch does not run", stands(&view)),
            Change::Resume if view.state == BatchState::Draft => {
                conflict("batch-not-paused", "The batch is not paused", stands(&view))
                    .hint("Start it.")
            }
            Change::Resume => {
                conflict("batch-not-paused", "The batch is not paused", stands(&view))
            }
        },
        Changed::Gap(view) => conflict(
            "lines-missing",
            "The lines before these are not there",
            format!("The batch has {} lines, and the next is line {}.", view.lines, view.lines + 1),
        ),
        Changed::TooMany(_) => conflict(
            "batch-full",
            "The batch would have too many lines",
            format!("A batch has at most {MOST_LINES} lines."),
        )
        .hint("Make several."),
        Changed::Nothing(_) => conflict(
            "nothing-to-do",
            "No line of the batch could be done",
            "Each of its lines was left out, for a reason that stands beside it.".to_owned(),
        )
        .hint("Look at its lines: each says what to do."),
    })
}

pub(crate) fn unknown() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown-batch",
        "No such batch",
        "No batch with this identifier is known here.",
    )
}
