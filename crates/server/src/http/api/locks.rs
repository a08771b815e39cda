//! Locks by the organisation: asked for, watched, cancelled, continued (R4, R20).

use activation_lock::codes::CodeId;
use activation_lock::device::{ProductType, SerialNumber};
use activation_lock::explain;
use activation_lock::lock::{
    CallResult, Evidence, LockOutcome, OurLock, RefusedWhy, ReviewReason, Standing, WaitReason,
};
use activation_lock::operation::StateName;
use apple::dep::LostMessage;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use escrow::locks::{
    CallView, Cancelled, Details, Enqueued, LockStanding, LockSummary, LockView, NewLock, Resumed,
};
use escrow::operations::Key;
use escrow::permit::{Lock as LockRight, OrganisationId, Permission, Permit, Read};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::codes::reason;
use super::devices;
use super::shown::{Explanation, Moment, Page};
use super::unlocks::{ListQuery, idempotency_key, in_progress, key_reused};
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Body, Path, Query, name, sentence};
use crate::http::problem::Problem;

/// A wish to have a device locked by the organisation, and how it stands.
#[derive(Serialize, ToSchema)]
pub(super) struct Lock {
    id: String,
    #[schema(value_type = String)]
    serial: SerialNumber,
    /// The identifier of the organisation.
    #[schema(value_type = String)]
    organisation: OrganisationId,
    /// `queued`, `running`, `waiting`, `locked`, `already_locked`, `refused`, `needs_review` or `cancelled`. Only `locked` says that
    /// Apple confirmed it. An open set: tolerate others, and go by `done`.
    #[schema(value_type = String, example = "queued")]
    state: StateName,
    /// Nothing more happens by itself.
    done: bool,
    /// How it ended, in a word: the state it ended in. Null until it is done. An open set.
    #[schema(value_type = Option<String>)]
    outcome: Option<StateName>,
    /// The state in words.
    explanation: Explanation,
    /// `waiting`: for what, and until when.
    waiting: Option<Waiting>,
    /// `needs_review`: why: `failed`, `undescribed`, `malformed`, `unexpected`, `deadline` or `restored`. An open set.
    #[schema(value_type = Option<String>)]
    review: Option<ReviewReason>,
    /// `refused`: why: `not_accessible`, `org_not_supported` or `device_not_supported`. An open set.
    #[schema(value_type = Option<String>)]
    refused: Option<RefusedWhy>,
    /// `already_locked`: whose lock that is: `confirmed` (ours), `unknown` (it may be ours) or `someone_elses`.
    #[schema(value_type = Option<String>)]
    already_locked_by: Option<OurLock>,
    /// The identifier of the code that opens it, once there is one. It is kept before Apple is called.
    #[schema(value_type = Option<String>)]
    code: Option<CodeId>,
    /// What the locked screen is to show.
    message: Option<String>,
    /// The calls made for it, oldest first.
    calls: Vec<Call>,
    /// Why it was asked for.
    reason: String,
    /// Why it was asked for against a guard.
    override_reason: Option<String>,
    /// The real person behind it.
    requester: String,
    /// The name of the token that asked.
    requested_by: String,
    /// Whether it goes before those asked for in bulk.
    urgent: bool,
    requested_at: Moment,
    /// When a person last continued it.
    resumed_at: Option<Moment>,
    /// When it ends for want of an answer.
    deadline: Moment,
    /// Who asked to cancel it.
    cancelled_by: Option<String>,
    ended_at: Option<Moment>,
    /// Two calls for the device may have been under way at once.
    double_sent: bool,
    /// Rises with every change.
    version: i64,
}

/// What a lock waits for.
#[derive(Serialize, ToSchema)]
#[schema(as = LockWaiting)]
struct Waiting {
    /// Until when at the latest.
    until: Option<Moment>,
    /// `unavailable`, `no_answer`, `failed`, `credential`, `terms_not_signed`, `access_denied` or `no_credential`. An open
    /// set.
    #[schema(value_type = String)]
    why: WaitReason,
}

/// One call to Apple's enrolment service.
#[derive(Serialize, ToSchema)]
#[schema(as = LockCall)]
struct Call {
    id: String,
    /// Its place in the order of calls of this lock, from 1.
    position: u32,
    /// `locked`, `already_locked`, `not_accessible`, `org_not_supported`, `device_not_supported`, `failed`, `undescribed`,
    /// `malformed`, `credential`, `terms_not_signed`, `access_denied`, `unavailable`, `unknown` or `unexpected`; null while it is under
    /// way. An open
    /// set.
    #[schema(value_type = Option<String>)]
    outcome: Option<LockOutcome>,
    /// The program stopped, or lost its turn, while it was under way: nobody saw the answer.
    lost: bool,
    /// The outcome in words.
    explanation: Explanation,
    /// Apple's own word, as it came.
    response_status: Option<String>,
    /// The HTTP status of the answer, if one came.
    status: Option<u16>,
    /// The identifier of the code whose hash was sent.
    #[schema(value_type = String)]
    code: CodeId,
    began_at: Moment,
    ended_at: Option<Moment>,
    /// Whom the hash was sent to: Apple's host, or the address of the NanoDEP.
    recipient: String,
    /// The answer in its own words, without any secret.
    diagnostic: Option<String>,
    /// What an answer said that came after the call was given up.
    late: Option<Late>,
}

/// An answer that came late.
#[derive(Serialize, ToSchema)]
#[schema(as = LateLockAnswer)]
struct Late {
    at: Moment,
    /// As a call's `outcome`.
    #[schema(value_type = String)]
    outcome: LockOutcome,
}

impl From<CallView> for Call {
    fn from(call: CallView) -> Self {
        let (outcome, lost) = match call.result {
            CallResult::InFlight => (None, false),
            CallResult::Lost => (Some(LockOutcome::Unknown), true),
            CallResult::Ended { outcome, .. } => (Some(outcome), false),
        };
        let said = call.response_status.as_deref();
        Self {
            outcome,
            lost,
            explanation: explain::lock::call(call.result, call.status, said).into(),
            id: call.id,
            position: call.position,
            response_status: call.response_status,
            status: call.status,
            code: call.code,
            began_at: call.began_at.into(),
            ended_at: call.ended_at.map(Moment),
            recipient: call.recipient,
            diagnostic: call.diagnostic,
            late: call.late.map(|(at, outcome)| Late {
                at: at.into(),
                outcome,
            }),
        }
    }
}

/// How a lock stands, in words.
pub(crate) fn lock_in_words(lock: &LockView) -> explain::Explanation {
    stands_in_words(lock.state, &lock.details, lock.cancelled_by.as_deref())
}

/// The same, of what is known of it in a list.
pub(super) fn stands_in_words(
    state: StateName,
    details: &Details,
    cancelled_by: Option<&str>,
) -> explain::Explanation {
    match (details.end(state, cancelled_by), details.waits_for) {
        (Some(end), _) => explain::lock::end(&end),
        (None, Some(why)) => explain::lock::waiting(why),
        (None, None) if state == StateName::Queued => explain::lock::queued(),
        (None, None) => explain::lock::running(),
    }
}

impl From<LockView> for Lock {
    fn from(lock: LockView) -> Self {
        let done = lock.is_done();
        let details = &lock.details;
        Self {
            explanation: lock_in_words(&lock).into(),
            waiting: details.waits_for.map(|why| Waiting {
                until: details.until.map(Moment),
                why,
            }),
            review: details.review,
            refused: details.refused,
            already_locked_by: details.ours,
            outcome: done.then_some(lock.state),
            done,
            state: lock.state,
            id: lock.id,
            serial: lock.serial,
            organisation: lock.organisation,
            code: lock.code,
            message: lock.message,
            calls: lock.calls.into_iter().map(Call::from).collect(),
            reason: lock.reason,
            override_reason: lock.override_reason,
            requester: lock.requester,
            requested_by: lock.requested_by,
            urgent: lock.urgent,
            requested_at: lock.requested_at.into(),
            resumed_at: lock.resumed_at.map(Moment),
            deadline: lock.deadline.into(),
            cancelled_by: lock.cancelled_by,
            ended_at: lock.ended_at.map(Moment),
            double_sent: lock.double_sent,
            version: lock.version,
        }
    }
}

/// How the organisation's own lock on a device stands.
#[derive(Serialize, ToSchema)]
#[schema(as = OrganisationLock)]
pub(super) struct Ours {
    /// `none`, `confirmed`, `unknown` (it may be on) or `someone_elses`.
    #[schema(value_type = String)]
    state: OurLock,
    /// What that rests on: `nothing`, `success`, `no_answer`, `already_locked`, `turned_off` or `status` (Apple's own).
    #[schema(value_type = String)]
    evidence: Evidence,
    /// The moment of that evidence.
    at: Option<Moment>,
    /// The state in words.
    explanation: Explanation,
    /// What would strand the lock, as long as one is on or may be.
    warnings: Vec<Explanation>,
    /// Whether Apple locks devices of this kind at all, where that is doubtful.
    doubt: Option<Explanation>,
}

/// How the organisation's own lock stands, in words.
pub(crate) fn standing_in_words(lock: &LockStanding) -> explain::Explanation {
    explain::lock::standing(&Standing {
        state: lock.state,
        evidence: lock.evidence,
        at: lock.at,
        live: Vec::new(),
    })
}

impl Ours {
    pub(super) fn new(lock: &LockStanding, product: Option<&ProductType>) -> Self {
        let warnings = match lock.may_be_on() {
            true => explain::lock::strands().map(Explanation::from).into(),
            false => Vec::new(),
        };
        Self {
            state: lock.state,
            evidence: lock.evidence,
            at: lock.at.map(Moment),
            explanation: standing_in_words(lock).into(),
            warnings,
            doubt: explain::lock::lock_doubt(product.map(ProductType::family))
                .map(Explanation::from),
        }
    }
}

/// A lock as a device's page lists it.
#[derive(Serialize, ToSchema)]
#[schema(as = LockSummary)]
pub(super) struct LockRow {
    id: String,
    /// As in a lock.
    #[schema(value_type = String)]
    state: StateName,
    reason: String,
    requested_by: String,
    requested_at: Moment,
    ended_at: Option<Moment>,
}

impl From<LockSummary> for LockRow {
    fn from(lock: LockSummary) -> Self {
        Self {
            id: lock.id,
            state: lock.state,
            reason: lock.reason,
            requested_by: lock.requested_by,
            requested_at: lock.requested_at.into(),
            ended_at: lock.ended_at.map(Moment),
        }
    }
}

/// Why, and how.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LockWish)]
pub(super) struct Wish {
    /// In the person's own words; kept on record. 1 to 1,000 characters.
    reason: String,
    /// What the locked screen is to show; at most 500 characters.
    message: Option<String>,
    /// The server token to use, by name or identifier; else the one whose server lists the device.
    server_token: Option<String>,
    /// Why it is to be done although no server of ours lists the device, which must be known all the same. 1 to 1,000 characters.
    override_reason: Option<String>,
    /// The real person behind it; the token's name when left out.
    requester: Option<String>,
    /// A person waits for it: it goes before those asked for in bulk.
    #[serde(default)]
    urgent: bool,
}

/// Have a device locked by the organisation.
///
/// The server does it: it makes a code, puts it away twice, and only then asks Apple. `Location` names the lock, to be read until
/// `done`.
#[utoipa::path(
    post,
    path = "/v1/devices/{serial}/lock",
    tag = "locks",
    operation_id = "request_lock",
    security(("token" = ["lock"])),
    params(
        ("serial" = String, Path, description = "The serial number."),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes asking twice harmless, for seven days: the same key \
            with the same body is the same lock. 1 to 255 visible ASCII characters.")
    ),
    request_body = Wish,
    responses(
        (status = 200, description = "A lock of the same token is under way for this device, and this is it. The request adds \
            nothing to it; that it was made, and why, is on record.", body = Lock,
            headers(("Location" = String, description = "`/v1/locks/{id}`"))),
        (status = 202, description = "It stands in the queue; or the same was asked before with the same key, and this is it.",
            body = Lock, headers(("Location" = String, description = "`/v1/locks/{id}`"))),
        (status = 404, description = "`unknown-device`, `unknown-server-token`"),
        (status = 409, description = "`lock-in-progress`, `unlock-in-progress`: an operation of the device is under way; `lock` or \
            `unlock` is its identifier where you may know it. `not-assigned`: no server of ours lists the device. \
            `ambiguous-device`: several organisations know it; name one."),
        (status = 422, description = "`idempotency-key-reused`: the key was used for another request.")
    )
)]
pub(super) async fn request(
    State(app): State<App>,
    caller: Caller,
    Path(serial): Path<SerialNumber>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let organisation = caller.organisation_of(&app, &serial).await?;
    let permit: Permit<LockRight> = app
        .escrow
        .authorise(&caller.actor, &organisation, format!("device {serial}"))
        .await?;
    let wish: Wish = body.json()?;
    let why = reason(&wish.reason)?;
    let requester = match wish.requester.as_deref() {
        Some(given) => name("The requester", given)?,
        None => caller.actor.name(),
    };
    let message = wish.message.as_deref().map(message).transpose()?;
    let override_reason = wish.override_reason.as_deref().map(reason).transpose()?;
    let parts = [
        serial.as_str(),
        why,
        wish.requester.as_deref().unwrap_or_default(),
        message.as_deref().unwrap_or_default(),
        wish.server_token.as_deref().unwrap_or_default(),
        override_reason.unwrap_or_default(),
        if wish.urgent { "urgent" } else { "" },
    ];
    let new = NewLock {
        reason: why.to_owned(),
        requester: requester.to_owned(),
        message: message.clone(),
        server_token: wish.server_token.clone(),
        override_reason: override_reason.map(str::to_owned),
        urgent: wish.urgent,
        idempotency: idempotency_key(&headers)?.map(|key| Key::new(key, &parts)),
        serial,
    };
    match app.escrow.locks().enqueue(&permit, new).await? {
        Enqueued::New(lock) | Enqueued::Same(lock) => Ok(located(StatusCode::ACCEPTED, lock)),
        Enqueued::UnderWay(lock) => Ok(located(StatusCode::OK, lock)),
        Enqueued::LiveElsewhere(live) => Err(in_progress(live)),
        Enqueued::KeyReused => Err(key_reused()),
        Enqueued::NotAssigned => Err(not_assigned()),
        Enqueued::UnknownToken => Err(unknown_server_token()),
        Enqueued::UnknownDevice => Err(Problem::unknown_device()),
    }
}

pub(crate) fn not_assigned() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "not-assigned",
        "No server of ours lists the device",
        "Apple locks only devices that are assigned to the server whose token is used. Nothing was attempted.",
    )
    .hint(
        "Assign the device to this server in Apple Business Manager or Apple School Manager, have the list read, and ask \
         again. If the list is wrong, say why in `override_reason`: Apple decides in the end.",
    )
}

pub(crate) fn unknown_server_token() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown-server-token",
        "No such server token",
        "No server token of that name or identifier is known here.",
    )
}

/// What a locked screen is to show.
pub(crate) fn message(text: &str) -> Result<String, Problem> {
    text.parse::<LostMessage>()
        .map(|message| message.as_str().to_owned())
        .map_err(|error| Problem::bad_request(sentence(&error.to_string())))
}

fn located(status: StatusCode, lock: LockView) -> Response {
    let location = HeaderValue::try_from(format!("/v1/locks/{}", lock.id))
        .expect("an identifier is hexadecimal digits and dashes");
    let body = Json(Lock::from(lock));
    (status, [(header::LOCATION, location)], body).into_response()
}

pub(crate) fn unknown() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown-lock",
        "No such lock",
        "No lock with this identifier is known here.",
    )
}

/// The organisation of a lock: the one named, the token's, or the one of those within reach that has it.
pub(crate) async fn organisation_of(
    app: &App,
    caller: &Caller,
    id: &str,
) -> Result<OrganisationId, Problem> {
    if caller.is_of_one() || !caller.actor.grants().somewhere().allow(Permission::Read) {
        return caller.organisation(app).await;
    }
    let mut all = app.escrow.organisations().list(&caller.actor).await?;
    for organisation in &all {
        let read: Permit<Read> = app
            .escrow
            .authorise(&caller.actor, &organisation.id, subject(id))
            .await?;
        if app.escrow.locks().get(&read, id).await?.is_some() {
            return Ok(organisation.id.clone());
        }
    }
    // None has it, so that each is as good for saying so.
    match all.pop() {
        Some(any) => Ok(any.id),
        None => caller.organisation(app).await,
    }
}

fn subject(id: &str) -> String {
    format!("lock {id}")
}

/// Read a lock: how it stands, and each call.
#[utoipa::path(
    get,
    path = "/v1/locks/{id}",
    tag = "locks",
    operation_id = "show_lock",
    security(("token" = ["read"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses((status = 200, description = "The lock.", body = Lock), (status = 404, description = "`unknown-lock`"))
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Lock>, Problem> {
    let organisation = organisation_of(&app, &caller, &id).await?;
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(&id))
        .await?;
    let lock = app.escrow.locks().get(&permit, &id).await?;
    Ok(Json(lock.ok_or_else(unknown)?.into()))
}

/// Cancel a lock that Apple has not decided yet, or one that needs review. A lock that is on stays on, or may.
#[utoipa::path(
    delete,
    path = "/v1/locks/{id}",
    tag = "locks",
    operation_id = "cancel_lock",
    security(("token" = ["lock"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 200, description = "It has ended, by this or before it.", body = Lock),
        (status = 202, description = "A call is under way: its answer wins. Nothing further is tried.", body = Lock),
        (status = 404, description = "`unknown-lock`")
    )
)]
pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Lock>), Problem> {
    let cancelled = cancel_lock(&app, &caller, &id).await?;
    let status = if cancelled.is_done() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, Json(cancelled.into())))
}

/// Cancels a lock: at once, or before its next call.
pub(crate) async fn cancel_lock(app: &App, caller: &Caller, id: &str) -> Result<LockView, Problem> {
    let organisation = organisation_of(app, caller, id).await?;
    let permit: Permit<LockRight> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(id))
        .await?;
    match app.escrow.locks().cancel(&permit, id).await? {
        Cancelled::Ended(lock) | Cancelled::Pending(lock) => Ok(lock),
        Cancelled::Unknown => Err(unknown()),
    }
}

/// Continue a lock that needs review, with the same code and a new deadline.
#[utoipa::path(
    post,
    path = "/v1/locks/{id}/continue",
    tag = "locks",
    operation_id = "continue_lock",
    security(("token" = ["lock"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 202, description = "It stands in the queue again.", body = Lock,
            headers(("Location" = String, description = "`/v1/locks/{id}`"))),
        (status = 404, description = "`unknown-lock`"),
        (status = 409, description = "`not-in-review`: only a lock that needs review can be continued. \
            `lock-in-progress`, `unlock-in-progress`: another operation of the device is under way.")
    )
)]
pub(super) async fn resume(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let lock = resume_lock(&app, &caller, &id).await?;
    Ok(located(StatusCode::ACCEPTED, lock))
}

/// Continues a lock that needs review.
pub(crate) async fn resume_lock(app: &App, caller: &Caller, id: &str) -> Result<LockView, Problem> {
    let organisation = organisation_of(app, caller, id).await?;
    let permit: Permit<LockRight> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(id))
        .await?;
    match app.escrow.locks().resume(&permit, id).await? {
        Resumed::Queued(lock) => Ok(lock),
        Resumed::NotInReview(lock) => Err(Problem::new(
            StatusCode::CONFLICT,
            "not-in-review",
            "The lock does not wait for a person",
            format!(
                "It is in the state `{}`; only one that needs review can be continued.",
                lock.state
            ),
        )
        .hint("If it has ended, ask for a new lock of the device.")
        .lock(id)),
        Resumed::LiveElsewhere(live) => Err(in_progress(live)),
        Resumed::Unknown => Err(unknown()),
    }
}

/// List the locks of a device, newest first.
#[utoipa::path(
    get,
    path = "/v1/devices/{serial}/locks",
    tag = "locks",
    operation_id = "list_locks",
    security(("token" = ["read"])),
    params(("serial" = String, Path, description = "The serial number."), ListQuery),
    responses(
        (status = 200, description = "The newest; there is one page.", body = Page<Lock>),
        (status = 404, description = "`unknown-device`")
    )
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(serial): Path<SerialNumber>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Lock>>, Problem> {
    let organisation = caller.organisation_of(&app, &serial).await?;
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, format!("device {serial}"))
        .await?;
    let locks = app.escrow.locks();
    let locks = locks.of_device(&permit, &serial, query.limit()).await?;
    if locks.is_empty() && !devices::is_known(&app, &caller, &organisation, &serial).await? {
        return Err(Problem::unknown_device());
    }
    Ok(Json(Page::whole(
        locks.into_iter().map(Lock::from).collect(),
    )))
}
