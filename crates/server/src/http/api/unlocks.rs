//! Unlocks: asked for, watched, cancelled, continued (R12-R15).

use std::borrow::Cow;

use activation_lock::codes::{CodeId, CodeKind};
use activation_lock::device::SerialNumber;
use activation_lock::explain;
use activation_lock::operation::StateName;
use activation_lock::unlock::{AttemptResult, Outcome, RejectedWhy, ReviewReason, WaitReason};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use escrow::operations::{
    AttemptView, Cancelled, Details, Enqueued, Key, Kind, LiveElsewhere, NewUnlock, OperationView,
    Resumed,
};
use escrow::permit::{OrganisationId, Permission, Permit, Read, Unlock as UnlockRight};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::codes::reason;
use super::devices::{self, Identity};
use super::shown::{Explanation, Moment, Page};
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Body, Path, Query, name};
use crate::http::problem::Problem;

/// The header that makes asking twice harmless.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A wish to have a lock turned off, and how it stands.
#[derive(Serialize, ToSchema)]
pub(super) struct Unlock {
    id: String,
    #[schema(value_type = String)]
    serial: SerialNumber,
    /// The identifier of the organisation.
    #[schema(value_type = String)]
    organisation: OrganisationId,
    /// `queued`, `running`, `waiting`, `unlocked`, `probably_unlocked`, `rejected`, `not_locked`, `needs_review` or `cancelled`.
    /// Only `unlocked` says that Apple accepted a code. An open set: tolerate others, and go by `done`.
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
    /// `needs_review`: why, and what is left to try.
    review: Option<Review>,
    /// `rejected`: why, from Apple's own status: `locked_by_user` (no code of that lock is held), `locked_by_organisation` (none of
    /// the codes held opens it) or `cannot_tell`. An open set.
    #[schema(value_type = Option<String>)]
    rejected: Option<RejectedWhy>,
    /// `unlocked`: by which code.
    unlocked_by: Option<UnlockedBy>,
    /// The calls made for it, oldest first.
    attempts: Vec<Attempt>,
    /// Why it was asked for.
    reason: String,
    /// The real person behind it, as Apple is told.
    requester: String,
    /// The name of the token that asked.
    requested_by: String,
    /// Whether it is tried even though Apple says that the device is not locked.
    insist: bool,
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

/// What an unlock waits for.
#[derive(Serialize, ToSchema)]
struct Waiting {
    /// Until when at the latest.
    until: Option<Moment>,
    /// `unavailable`, `no_answer`, `credential` or `no_credential`. An open set.
    #[schema(value_type = String)]
    why: WaitReason,
}

/// Why a person has to look.
#[derive(Serialize, ToSchema)]
struct Review {
    /// `malformed`, `unexpected`, `cap`, `no_candidate`, `no_product_type`, `deadline`, `new_epoch`, `locked_since`,
    /// `possibly_done`, `restored` or `delegate_fails`. An open set.
    #[schema(value_type = String)]
    why: ReviewReason,
    /// Tries left undone.
    untried: usize,
}

/// Which code turned the lock off.
#[derive(Serialize, ToSchema)]
struct UnlockedBy {
    /// The code's identifier.
    #[schema(value_type = String)]
    code: CodeId,
    /// Who made it; `server` means that the lock was ours.
    #[schema(value_type = Option<String>)]
    kind: Option<CodeKind>,
}

/// One call with one code. The code's text is not in it.
#[derive(Serialize, ToSchema)]
struct Attempt {
    id: String,
    /// Its place in the order of calls of this unlock, from 1.
    position: u32,
    /// `unlocked`, `refused`, `malformed`, `credential`, `unavailable`, `unknown` or `unexpected`; null while it is under way. An
    /// open set.
    #[schema(value_type = Option<String>)]
    outcome: Option<Outcome>,
    /// The program stopped, or lost its turn, while it was under way: nobody saw the answer.
    lost: bool,
    /// The outcome in words.
    explanation: Explanation,
    /// The HTTP status of the answer, if one came.
    status: Option<u16>,
    /// The identifier of the code that was tried.
    #[schema(value_type = String)]
    code: CodeId,
    /// Who made the code: `device`, `server` or `unknown`.
    #[schema(value_type = String)]
    code_kind: CodeKind,
    /// Whether it was the current code of its kind then.
    code_current: bool,
    /// When the code had last been seen then.
    code_seen_at: Moment,
    began_at: Moment,
    ended_at: Option<Moment>,
    /// Whom the code was sent to: Apple's host, or the MDM that calls Apple for us.
    recipient: String,
    /// The topic of the push certificate used.
    topic: String,
    /// How the device was named.
    identity: Identity,
    /// Where its IMEIs came from: `list`, `device`, `slots` or `person`.
    identity_source: String,
    /// Whether the two IMEIs were exchanged.
    swapped: bool,
    /// The answer in its own words, without any code.
    diagnostic: Option<String>,
    /// What an answer said that came after the attempt was given up.
    late: Option<Late>,
    /// Another call for the device that may have been under way at the same time.
    overlaps: Option<String>,
}

/// An answer that came late.
#[derive(Serialize, ToSchema)]
#[schema(as = LateAnswer)]
struct Late {
    at: Moment,
    /// As an attempt's `outcome`.
    #[schema(value_type = String)]
    outcome: Outcome,
}

impl From<AttemptView> for Attempt {
    fn from(attempt: AttemptView) -> Self {
        let (outcome, lost) = match attempt.result {
            AttemptResult::InFlight => (None, false),
            AttemptResult::Lost => (Some(Outcome::Unknown), true),
            AttemptResult::Ended { outcome, .. } => (Some(outcome), false),
        };
        Self {
            outcome,
            lost,
            explanation: explain::attempt(&attempt.result, attempt.status).into(),
            id: attempt.id,
            position: attempt.position,
            status: attempt.status,
            code: attempt.code,
            code_kind: attempt.code_kind,
            code_current: attempt.code_current,
            code_seen_at: attempt.code_seen_at.into(),
            began_at: attempt.began_at.into(),
            ended_at: attempt.ended_at.map(Moment),
            recipient: attempt.recipient,
            topic: attempt.topic,
            identity: attempt.identity.into(),
            identity_source: attempt.identity_source,
            swapped: attempt.swapped,
            diagnostic: attempt.diagnostic,
            late: attempt.late.map(|(at, outcome)| Late {
                at: at.into(),
                outcome,
            }),
            overlaps: attempt.overlaps,
        }
    }
}

/// How an unlock stands, in words.
pub(crate) fn unlock_in_words(unlock: &OperationView) -> explain::Explanation {
    let cancelled_by = unlock.cancelled_by.as_deref();
    stands_in_words(unlock.state, &unlock.details, cancelled_by)
}

/// The same, of what is known of it in a list.
pub(super) fn stands_in_words(
    state: StateName,
    details: &Details,
    cancelled_by: Option<&str>,
) -> explain::Explanation {
    match (details.end(state, cancelled_by), details.waits_for) {
        (Some(end), _) => explain::end(&end),
        (None, Some(why)) => explain::waiting(why),
        (None, None) if state == StateName::Queued => explain::queued(),
        (None, None) => explain::running(),
    }
}

impl From<OperationView> for Unlock {
    fn from(unlock: OperationView) -> Self {
        let done = unlock.is_done();
        let details = &unlock.details;
        Self {
            explanation: unlock_in_words(&unlock).into(),
            waiting: details.waits_for.map(|why| Waiting {
                until: details.until.map(Moment),
                why,
            }),
            review: details.review.map(|why| Review {
                why,
                untried: details.untried.unwrap_or(0),
            }),
            rejected: details.rejected,
            unlocked_by: details.by.clone().map(|code| UnlockedBy {
                code,
                kind: details.by_kind,
            }),
            outcome: done.then_some(unlock.state),
            done,
            state: unlock.state,
            id: unlock.id,
            serial: unlock.serial,
            organisation: unlock.organisation,
            attempts: unlock.attempts.into_iter().map(Attempt::from).collect(),
            reason: unlock.reason,
            requester: unlock.requester,
            requested_by: unlock.requested_by,
            insist: unlock.insists,
            urgent: unlock.urgent,
            requested_at: unlock.requested_at.into(),
            resumed_at: unlock.resumed_at.map(Moment),
            deadline: unlock.deadline.into(),
            cancelled_by: unlock.cancelled_by,
            ended_at: unlock.ended_at.map(Moment),
            double_sent: unlock.double_sent,
            version: unlock.version,
        }
    }
}

/// Why, and how.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UnlockWish)]
pub(super) struct Wish {
    /// In the person's own words; kept on record. 1 to 1,000 characters.
    reason: String,
    /// Try even though Apple says that the device is not locked.
    #[serde(default)]
    insist: bool,
    /// The real person behind it (mail address, directory name), whom Apple is told; the token's name when left out.
    requester: Option<String>,
    /// A person waits for it: it goes before those asked for in bulk.
    #[serde(default)]
    urgent: bool,
}

/// Have the lock of a device turned off.
///
/// The server does it: known codes are tried through Apple in the order in which they are likely to work. `Location` names the
/// unlock, to be read until `done`.
#[utoipa::path(
    post,
    path = "/v1/devices/{serial}/unlock",
    tag = "unlocks",
    operation_id = "request_unlock",
    security(("token" = ["unlock"])),
    params(
        ("serial" = String, Path, description = "The serial number."),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes asking twice harmless, for seven days: the same key \
            with the same body is the same unlock. 1 to 255 visible ASCII characters.")
    ),
    request_body = Wish,
    responses(
        (status = 200, description = "An unlock of the same token is under way for this device, and this is it. The request \
            adds nothing to it; that it was made, and why, is on record.", body = Unlock,
            headers(("Location" = String, description = "`/v1/unlocks/{id}`"))),
        (status = 202, description = "It stands in the queue; or the same was asked before with the same key, and this is it.",
            body = Unlock, headers(("Location" = String, description = "`/v1/unlocks/{id}`"))),
        (status = 404, description = "`unknown-device`"),
        (status = 409, description = "`unlock-in-progress`, `lock-in-progress`: another operation of the device is under way; \
            `unlock` or `lock` is its identifier where you may know it. `no-product-type`: Apple demands it and it is not known; nothing was attempted. \
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
    let permit: Permit<UnlockRight> = app
        .escrow
        .authorise(&caller.actor, &organisation, format!("device {serial}"))
        .await?;
    let wish: Wish = body.json()?;
    let reason = reason(&wish.reason)?;
    let requester = match wish.requester.as_deref() {
        Some(given) => name("The requester", given)?,
        None => caller.actor.name(),
    };
    let parts = [
        serial.as_str(),
        reason,
        wish.requester.as_deref().unwrap_or_default(),
        if wish.insist { "insist" } else { "" },
        if wish.urgent { "urgent" } else { "" },
    ];
    let new = NewUnlock {
        reason: reason.to_owned(),
        requester: requester.to_owned(),
        insists: wish.insist,
        urgent: wish.urgent,
        idempotency: idempotency_key(&headers)?.map(|key| Key::new(key, &parts)),
        serial,
    };
    match app.escrow.operations().enqueue(&permit, new).await? {
        Enqueued::New(unlock) | Enqueued::Same(unlock) => Ok(located(StatusCode::ACCEPTED, unlock)),
        Enqueued::UnderWay(unlock) => Ok(located(StatusCode::OK, unlock)),
        Enqueued::LiveElsewhere(live) => Err(in_progress(live)),
        Enqueued::KeyReused => Err(key_reused()),
        Enqueued::NoProductType => Err(no_product_type()),
        Enqueued::UnknownDevice => Err(Problem::unknown_device()),
    }
}

pub(super) fn key_reused() -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "idempotency-key-reused",
        "The idempotency key was used for something else",
        "The key of this request was sent before with another request.",
    )
    .hint("Use a new key for each new wish, and the same one only to repeat the very same request.")
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .map(str::trim)
        .filter(|key| (1..=255).contains(&key.len()))
        .map(Some)
        .ok_or_else(|| {
            Problem::bad_request(
                "The header Idempotency-Key is not 1 to 255 visible ASCII characters.",
            )
        })
}

fn located(status: StatusCode, unlock: OperationView) -> Response {
    let location = HeaderValue::try_from(format!("/v1/unlocks/{}", unlock.id))
        .expect("an identifier is hexadecimal digits and dashes");
    let body = Json(Unlock::from(unlock));
    (status, [(header::LOCATION, location)], body).into_response()
}

/// Another operation of the device is in the way: it has one at a time.
pub(crate) fn in_progress(live: LiveElsewhere) -> Problem {
    let (name, title, path) = match live.kind {
        Kind::Unlock => (
            "unlock-in-progress",
            "An unlock of this device is under way",
            "unlocks",
        ),
        Kind::Lock => (
            "lock-in-progress",
            "A lock of this device is under way",
            "locks",
        ),
    };
    let hint = match &live.id {
        Some(id) => Cow::from(format!(
            "Wait for it to end, agree with whoever asked for it, or cancel it: `DELETE /v1/{path}/{id}`."
        )),
        // Another organisation's.
        None => Cow::from("Wait for it to end."),
    };
    let problem = Problem::new(
        StatusCode::CONFLICT,
        name,
        title,
        "It was asked for before, and a device has one unlock or lock at a time.",
    )
    .hint(hint);
    match (live.kind, live.id) {
        (Kind::Unlock, Some(id)) => problem.unlock(id),
        (Kind::Lock, Some(id)) => problem.lock(id),
        (_, None) => problem,
    }
}

pub(crate) fn no_product_type() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "no-product-type",
        "The product type of this device is not known",
        "Apple demands it to unlock a device, so nothing was attempted.",
    )
    .hint(
        "Set it by hand: `PATCH /v1/devices/{serial}` with {\"product_type\": \"iPad4,1\"} (the hardware's own name, neither the \
         order number nor a name like iPhone XR). Or let the device enrol, which tells it. Then ask again.",
    )
}

pub(crate) fn unknown() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown-unlock",
        "No such unlock",
        "No unlock with this identifier is known here.",
    )
}

/// The organisation of an unlock: the one named, the token's, or the one of those within reach that has it.
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
        if app.escrow.operations().get(&read, id).await?.is_some() {
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
    format!("unlock {id}")
}

/// Read an unlock: how it stands, and each attempt.
#[utoipa::path(
    get,
    path = "/v1/unlocks/{id}",
    tag = "unlocks",
    operation_id = "show_unlock",
    security(("token" = ["read"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses((status = 200, description = "The unlock.", body = Unlock), (status = 404, description = "`unknown-unlock`"))
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Unlock>, Problem> {
    let organisation = organisation_of(&app, &caller, &id).await?;
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(&id))
        .await?;
    let unlock = app
        .escrow
        .operations()
        .get(&permit, &id)
        .await?
        .ok_or_else(unknown)?;
    Ok(Json(unlock.into()))
}

/// Cancel an unlock that is under way, or one that needs review.
#[utoipa::path(
    delete,
    path = "/v1/unlocks/{id}",
    tag = "unlocks",
    operation_id = "cancel_unlock",
    security(("token" = ["unlock"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 200, description = "It has ended, by this or before it.", body = Unlock),
        (status = 202, description = "A call is under way: its answer wins. Nothing further is tried.", body = Unlock),
        (status = 404, description = "`unknown-unlock`")
    )
)]
pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Unlock>), Problem> {
    let cancelled = cancel_unlock(&app, &caller, &id).await?;
    let status = if cancelled.is_done() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, Json(cancelled.into())))
}

/// Cancels an unlock: at once, or before its next call.
pub(crate) async fn cancel_unlock(
    app: &App,
    caller: &Caller,
    id: &str,
) -> Result<OperationView, Problem> {
    let organisation = organisation_of(app, caller, id).await?;
    let permit: Permit<UnlockRight> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(id))
        .await?;
    match app.escrow.operations().cancel(&permit, id).await? {
        Cancelled::Ended(unlock) | Cancelled::Pending(unlock) => Ok(unlock),
        Cancelled::Unknown => Err(unknown()),
    }
}

/// Continue an unlock that needs review, with new counts and a new deadline.
#[utoipa::path(
    post,
    path = "/v1/unlocks/{id}/continue",
    tag = "unlocks",
    operation_id = "continue_unlock",
    security(("token" = ["unlock"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 202, description = "It stands in the queue again.", body = Unlock,
            headers(("Location" = String, description = "`/v1/unlocks/{id}`"))),
        (status = 404, description = "`unknown-unlock`"),
        (status = 409, description = "`not-in-review`: only an unlock that needs review can be continued. \
            `unlock-in-progress`: another unlock of the device is under way. `no-product-type`: it is still not known.")
    )
)]
pub(super) async fn resume(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let unlock = resume_unlock(&app, &caller, &id).await?;
    Ok(located(StatusCode::ACCEPTED, unlock))
}

/// Continues an unlock that needs review.
pub(crate) async fn resume_unlock(
    app: &App,
    caller: &Caller,
    id: &str,
) -> Result<OperationView, Problem> {
    let organisation = organisation_of(app, caller, id).await?;
    let permit: Permit<UnlockRight> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(id))
        .await?;
    match app.escrow.operations().resume(&permit, id).await? {
        Resumed::Queued(unlock) => Ok(unlock),
        Resumed::NotInReview(unlock) => Err(Problem::new(
            StatusCode::CONFLICT,
            "not-in-review",
            "The unlock does not wait for a person",
            format!(
                "It is in the state `{}`; only one that needs review can be continued.",
                unlock.state
            ),
        )
        .hint("If it has ended, ask for a new unlock of the device.")
        .unlock(id)),
        Resumed::LiveElsewhere(live) => Err(in_progress(live)),
        Resumed::NoProductType => Err(no_product_type()),
        Resumed::Unknown => Err(unknown()),
    }
}

/// How many.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// At most so many, 1 to 100; 20 when it is left out.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
}

impl ListQuery {
    pub(super) fn limit(&self) -> u32 {
        self.limit.unwrap_or(20).clamp(1, 100)
    }
}

/// List the unlocks of a device, newest first.
#[utoipa::path(
    get,
    path = "/v1/devices/{serial}/unlocks",
    tag = "unlocks",
    operation_id = "list_unlocks",
    security(("token" = ["read"])),
    params(("serial" = String, Path, description = "The serial number."), ListQuery),
    responses(
        (status = 200, description = "The newest; there is one page.", body = Page<Unlock>),
        (status = 404, description = "`unknown-device`")
    )
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(serial): Path<SerialNumber>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Unlock>>, Problem> {
    let organisation = caller.organisation_of(&app, &serial).await?;
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, format!("device {serial}"))
        .await?;
    let unlocks = app
        .escrow
        .operations()
        .of_device(&permit, &serial, query.limit())
        .await?;
    if unlocks.is_empty() && !devices::is_known(&app, &caller, &organisation, &serial).await? {
        return Err(Problem::unknown_device());
    }
    Ok(Json(Page::whole(
        unlocks.into_iter().map(Unlock::from).collect(),
    )))
}
