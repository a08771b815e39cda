//! What takes other people: requests for their approval, policies that ask for it, and emergencies.

use std::time::Duration;

use activation_lock::time::Timestamp;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use escrow::approvals::{
    Acknowledged, Action, Approval as Row, Decided, Emergency as EmergencyRow, Policy as PolicyRow,
    PolicyProblem, State as Stands, Vote, Which,
};
use escrow::permit::{Admin, Approve, OrganisationId, Permit, Read};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::codes::reason;
use super::shown::{Moment, Page};
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Body, Path, Query, sentence};
use crate::http::problem::Problem;

/// The most requests in one answer.
const MOST: u32 = 200;
const HOUR: u64 = 3_600;

/// A request for an approval.
#[derive(Serialize, ToSchema)]
pub(super) struct Approval {
    id: String,
    /// What for: `reveal`, `unlock`, `lock`, `export`, `purge`, `connections`, `people`, `policies`. More may come.
    action: &'static str,
    /// On what, in words such as `device C02XL0GTJGH5`.
    targets: Vec<String>,
    /// Why, in the words of who asked.
    reason: String,
    /// Who asked.
    requested_by: String,
    /// `asked`, `approved`, `refused`, `cancelled`, `used`; and `expired` when its time was over before.
    state: &'static str,
    /// Whether it is mine.
    own: bool,
    asked_at: Moment,
    /// Until when it can be decided.
    ask_until: Moment,
    decided_at: Option<Moment>,
    /// Until when it can be used.
    use_until: Option<Moment>,
    used_at: Option<Moment>,
    /// Who said what.
    votes: Vec<Said>,
}

/// What one person said to a request.
#[derive(Serialize, ToSchema)]
#[schema(as = ApprovalVote)]
struct Said {
    name: String,
    /// `yes` or `no`.
    vote: &'static str,
    comment: Option<String>,
    at: Moment,
}

impl Approval {
    fn new(row: Row, caller: &Caller, now: Timestamp) -> Self {
        let state = if row.is_expired(now) {
            "expired"
        } else {
            row.state.as_str()
        };
        Self {
            own: caller.actor.human() == Some(&row.human),
            id: row.id,
            action: row.action.as_str(),
            targets: row.targets,
            reason: row.reason,
            requested_by: row.requested_by,
            state,
            asked_at: row.asked_at.into(),
            ask_until: row.ask_until.into(),
            decided_at: row.decided_at.map(Moment),
            use_until: row.use_until.map(Moment),
            used_at: row.used.map(|(at, _)| Moment(at)),
            votes: row.votes.into_iter().map(Said::from).collect(),
        }
    }
}

impl From<Vote> for Said {
    fn from(vote: Vote) -> Self {
        Self {
            name: vote.name,
            vote: if vote.yes { "yes" } else { "no" },
            comment: vote.comment,
            at: vote.at.into(),
        }
    }
}

/// Which requests are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// `open`: those that wait for a decision (the default); `own`: mine; `all`.
    which: Option<String>,
}

async fn place(app: &App, caller: &Caller) -> Result<OrganisationId, Problem> {
    caller.record(app).await
}

/// List requests for approvals, newest first.
#[utoipa::path(
    get,
    path = "/v1/approvals",
    tag = "approvals",
    operation_id = "list_approvals",
    security(("token" = ["read"])),
    params(Wanted),
    responses((status = 200, description = "The newest 200; there is one page.", body = Page<Approval>))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Approval>>, Problem> {
    let which = match wanted.which.as_deref() {
        None | Some("open") => Which::Open,
        Some("own") => Which::Own,
        Some("all") => Which::All,
        Some(_) => {
            return Err(Problem::bad_request(
                "`which` is not one of `open`, `own`, `all`.",
            ));
        }
    };
    let organisation = place(&app, &caller).await?;
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, "approvals")
        .await?;
    let now = app.now();
    let all = app.escrow.approvals().list(&permit, which, MOST).await?;
    Ok(Json(Page::whole(
        all.into_iter()
            .map(|one| Approval::new(one, &caller, now))
            .collect(),
    )))
}

fn unknown() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown-approval",
        "No such approval",
        "No approval with this identifier was asked for in this organisation, or it is not yours.",
    )
    .hint("`GET /v1/approvals?which=all` lists them.")
}

/// Show a request for an approval.
#[utoipa::path(
    get,
    path = "/v1/approvals/{id}",
    tag = "approvals",
    operation_id = "show_approval",
    security(("token" = ["read"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 200, description = "The request.", body = Approval),
        (status = 404, description = "`unknown-approval`.")
    )
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Approval>, Problem> {
    let organisation = place(&app, &caller).await?;
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, format!("approval {id}"))
        .await?;
    let found = app.escrow.approvals().get(&permit, &id).await?;
    let found = found.ok_or_else(unknown)?;
    Ok(Json(Approval::new(found, &caller, app.now())))
}

/// Take back what one asked for, before it is used.
#[utoipa::path(
    delete,
    path = "/v1/approvals/{id}",
    tag = "approvals",
    operation_id = "cancel_approval",
    security(("token" = ["read"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 204, description = "Nothing can be done with it any more."),
        (status = 404, description = "`unknown-approval`: there is none of yours that could be taken back.")
    )
)]
pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    cancel_approval(&app, &caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes back what one asked for.
pub(crate) async fn cancel_approval(app: &App, caller: &Caller, id: &str) -> Result<(), Problem> {
    let organisation = place(app, caller).await?;
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, format!("approval {id}"))
        .await?;
    if app.escrow.approvals().cancel(&permit, id).await? {
        Ok(())
    } else {
        Err(unknown())
    }
}

/// What one says to a request, beside yes or no.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Comment {
    /// Kept on record.
    comment: Option<String>,
}

/// Say yes to what another person asks for. Only a person who signed in can, and not the one who asked.
#[utoipa::path(
    post,
    path = "/v1/approvals/{id}/approve",
    tag = "approvals",
    operation_id = "approve",
    security(("token" = ["approve"])),
    params(("id" = String, Path, description = "Its identifier.")),
    request_body = Option<Comment>,
    responses(
        (status = 200, description = "The request as it stands now.", body = Approval),
        (status = 403, description = "`own-request`: another person has to say yes. `person-needed`: a token cannot."),
        (status = 404, description = "`unknown-approval`."),
        (status = 409, description = "`approval-closed`: it is decided, taken back, or its time is over; or you have said it before.")
    )
)]
pub(super) async fn approve(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Approval>, Problem> {
    said(&app, &caller, &id, &body, true).await
}

/// Say no to what another person asks for: that ends it.
#[utoipa::path(
    post,
    path = "/v1/approvals/{id}/refuse",
    tag = "approvals",
    operation_id = "refuse",
    security(("token" = ["approve"])),
    params(("id" = String, Path, description = "Its identifier.")),
    request_body = Option<Comment>,
    responses(
        (status = 200, description = "The request as it stands now.", body = Approval),
        (status = 403, description = "`person-needed`: a token cannot."),
        (status = 404, description = "`unknown-approval`."),
        (status = 409, description = "`approval-closed`: it is decided, taken back, or its time is over; or you have said something before.")
    )
)]
pub(super) async fn refuse(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Approval>, Problem> {
    said(&app, &caller, &id, &body, false).await
}

async fn said(
    app: &App,
    caller: &Caller,
    id: &str,
    body: &Body,
    yes: bool,
) -> Result<Json<Approval>, Problem> {
    let permit = may_decide(app, caller, id).await?;
    let given: Comment = body.json_or_default()?;
    let comment = given.comment.as_deref().map(reason).transpose()?;
    let row = decided(app, &permit, id, comment, yes).await?;
    Ok(Json(Approval::new(row, caller, app.now())))
}

/// Says yes or no to a request, with a comment that may go on record.
pub(crate) async fn decide(
    app: &App,
    caller: &Caller,
    id: &str,
    comment: Option<&str>,
    yes: bool,
) -> Result<Row, Problem> {
    let permit = may_decide(app, caller, id).await?;
    decided(app, &permit, id, comment, yes).await
}

async fn may_decide(app: &App, caller: &Caller, id: &str) -> Result<Permit<Approve>, Problem> {
    let organisation = place(app, caller).await?;
    let subject = format!("approval {id}");
    let authorised = app.escrow.authorise(&caller.actor, &organisation, subject);
    Ok(authorised.await?)
}

async fn decided(
    app: &App,
    permit: &Permit<Approve>,
    id: &str,
    comment: Option<&str>,
    yes: bool,
) -> Result<Row, Problem> {
    let approvals = app.escrow.approvals();
    match approvals.decide(permit, id, yes, comment).await? {
        Decided::Counted(row) => Ok(row),
        Decided::Own => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "own-request",
            "Another person has to say yes",
            "You asked for it yourself, and the policy does not let you approve that.",
        )),
        Decided::Before => Err(closed("You have said yes or no to it before.")),
        Decided::Closed(row) => {
            let word = match row.state {
                Stands::Asked => "Its time was over before anybody decided it",
                Stands::Approved => "It is approved already",
                Stands::Refused => "It was refused",
                Stands::Cancelled => "It was taken back",
                Stands::Used => "It was approved and used",
            };
            Err(closed(&format!("{word}.")))
        }
        Decided::Unknown => Err(unknown()),
    }
}

fn closed(detail: &str) -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "approval-closed",
        "That is decided",
        detail.to_owned(),
    )
}

/// How many other people something takes.
#[derive(Serialize, ToSchema)]
#[schema(as = ApprovalPolicy)]
pub(super) struct Policy {
    /// `reveal`, `unlock`, `lock`, `export` or `purge`.
    action: &'static str,
    /// How many people have to say yes: 0, 1 or 2.
    people: u8,
    /// Whether who asks may be one of them.
    self_approval: bool,
    /// How many hours a request can be decided.
    ask_within_hours: u64,
    /// How many minutes what was approved can be done.
    use_within_minutes: u64,
}

/// A policy to be set. What is left out is as the program has it by itself.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewApprovalPolicy {
    /// How many people have to say yes: 0, 1 or 2.
    #[schema(minimum = 0, maximum = 2)]
    people: u8,
    /// Whether who asks may be one of them.
    #[serde(default)]
    self_approval: bool,
    /// How many hours a request can be decided, 1 to 720; 168 when it is left out.
    #[schema(minimum = 1, maximum = 720)]
    ask_within_hours: Option<u64>,
    /// How many minutes what was approved can be done, 5 to 1,440; 60 when it is left out.
    #[schema(minimum = 5, maximum = 1440)]
    use_within_minutes: Option<u64>,
}

/// List what takes other people.
#[utoipa::path(
    get,
    path = "/v1/approval-policies",
    tag = "approvals",
    operation_id = "list_approval_policies",
    security(("token" = ["read"])),
    responses((status = 200, description = "One an action; there is one page.", body = Page<Policy>))
)]
pub(super) async fn list_policies(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Page<Policy>>, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, "approval policies")
        .await?;
    policies(&app, permit.organisation()).await
}

async fn policies(app: &App, organisation: &OrganisationId) -> Result<Json<Page<Policy>>, Problem> {
    let all = app.escrow.policies().list(organisation).await?;
    let shown = all.into_iter().map(|(action, policy)| Policy {
        action: action.as_str(),
        people: policy.people,
        self_approval: policy.self_approval,
        ask_within_hours: policy.ask_within.as_secs() / HOUR,
        use_within_minutes: policy.use_within.as_secs() / 60,
    });
    Ok(Json(Page::whole(shown.collect())))
}

/// Set how many other people something takes. Making it easier takes the approval that it asks for so far.
#[utoipa::path(
    put,
    path = "/v1/approval-policies/{action}",
    tag = "approvals",
    operation_id = "set_approval_policy",
    security(("token" = ["admin"])),
    params(("action" = String, Path, description = "`reveal`, `unlock`, `lock`, `export` or `purge`.")),
    request_body = NewApprovalPolicy,
    responses(
        (status = 200, description = "All of them, as they are now.", body = Page<Policy>),
        (status = 400, description = "`policy-refused`: a number that is not possible."),
        (status = 409, description = "`too-few-approvers`: nobody could say yes.")
    )
)]
pub(super) async fn set_policy(
    State(app): State<App>,
    caller: Caller,
    Path(action): Path<String>,
    body: Body,
) -> Result<Json<Page<Policy>>, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Admin> = app
        .escrow
        .authorise(&caller.actor, &organisation, format!("policy {action}"))
        .await?;
    let action = Action::from_name(&action).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-action",
            "No such action",
            "There is no policy of that name.",
        )
        .hint("It is one of `reveal`, `unlock`, `lock`, `export`, `purge`.")
    })?;
    let given: NewApprovalPolicy = body.json()?;
    let defaults = PolicyRow::default();
    let span = |count: Option<u64>, unit: u64, by_default: Duration| {
        count.map_or(by_default, |count| {
            Duration::from_secs(count.saturating_mul(unit))
        })
    };
    let new = PolicyRow {
        people: given.people,
        self_approval: given.self_approval,
        ask_within: span(given.ask_within_hours, HOUR, defaults.ask_within),
        use_within: span(given.use_within_minutes, 60, defaults.use_within),
    };
    match app.escrow.policies().set(&permit, action, new).await? {
        Ok(()) => policies(&app, &organisation).await,
        Err(problem) => Err(policy_refused(&problem)),
    }
}

/// Why a policy was not set.
pub(crate) fn policy_refused(problem: &PolicyProblem) -> Problem {
    let (status, name, title) = match problem {
        PolicyProblem::TooFewApprovers(_) => (
            StatusCode::CONFLICT,
            "too-few-approvers",
            "Nobody could say yes",
        ),
        _ => (
            StatusCode::BAD_REQUEST,
            "policy-refused",
            "Not a policy that can be set",
        ),
    };
    Problem::new(status, name, title, sentence(&problem.to_string()))
}

/// What was done without the approval that it needed.
#[derive(Serialize, ToSchema)]
pub(super) struct Emergency {
    id: String,
    /// What was done; as the action of an approval.
    action: &'static str,
    /// To what.
    targets: Vec<String>,
    /// Why, in the words of who did it.
    reason: String,
    /// Who did it.
    name: String,
    at: Moment,
    /// When another person said that they have seen it.
    acknowledged_at: Option<Moment>,
    /// Who that was.
    acknowledged_by: Option<String>,
}

impl From<EmergencyRow> for Emergency {
    fn from(row: EmergencyRow) -> Self {
        let (acknowledged_at, acknowledged_by) = row.acknowledged.unzip();
        Self {
            id: row.id,
            action: row.action.as_str(),
            targets: row.targets,
            reason: row.reason,
            name: row.name,
            at: row.at.into(),
            acknowledged_at: acknowledged_at.map(Moment),
            acknowledged_by,
        }
    }
}

/// Whether those are wanted too that were acknowledged.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Seen {
    /// Those that were acknowledged as well.
    #[serde(default)]
    all: bool,
}

/// List emergencies, newest first: what was done without the approval that it needed.
#[utoipa::path(
    get,
    path = "/v1/emergencies",
    tag = "approvals",
    operation_id = "list_emergencies",
    security(("token" = ["read"])),
    params(Seen),
    responses((status = 200, description = "Those that nobody has acknowledged, or all; there is one page.", body = Page<Emergency>))
)]
pub(super) async fn list_emergencies(
    State(app): State<App>,
    caller: Caller,
    Query(seen): Query<Seen>,
) -> Result<Json<Page<Emergency>>, Problem> {
    let organisation = place(&app, &caller).await?;
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, "emergencies")
        .await?;
    let all = app.escrow.emergencies().list(&permit, seen.all).await?;
    Ok(Json(Page::whole(
        all.into_iter().map(Emergency::from).collect(),
    )))
}

/// Say, as another person, that one has seen an emergency: it is off the list.
#[utoipa::path(
    post,
    path = "/v1/emergencies/{id}/acknowledge",
    tag = "approvals",
    operation_id = "acknowledge_emergency",
    security(("token" = ["approve"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 200, description = "It is off the list.", body = Emergency),
        (status = 403, description = "`own-request`: another person has to. `person-needed`: a token cannot."),
        (status = 404, description = "`unknown-emergency`: there is none, or somebody has acknowledged it.")
    )
)]
pub(super) async fn acknowledge(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Emergency>, Problem> {
    let organisation = place(&app, &caller).await?;
    let permit: Permit<Approve> = app
        .escrow
        .authorise(&caller.actor, &organisation, format!("emergency {id}"))
        .await?;
    match app.escrow.emergencies().acknowledge(&permit, &id).await? {
        Acknowledged::Done(row) => Ok(Json(row.into())),
        Acknowledged::Own => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "own-request",
            "Another person has to say so",
            "You broke the glass yourself.",
        )),
        Acknowledged::Unknown => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-emergency",
            "No such emergency",
            "There is none with this identifier in this organisation that nobody has acknowledged.",
        )),
    }
}
