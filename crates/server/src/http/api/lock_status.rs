//! Apple's own status of a device's lock (contract sheet, section 4): whose word it is, and how old.

use std::time::Duration;

use activation_lock::device::SerialNumber;
use activation_lock::explain;
use activation_lock::lock::LockType;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use escrow::lock_statuses::{Reading, Said, StatusView};
use escrow::permit::{Permit, Read, Refresh};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::devices;
use super::locks::Ours;
use super::shown::{Explanation, Moment};
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Path, Query};
use crate::http::problem::Problem;
use crate::worker::statuses;

/// Apple's own status of a lock, and how ours stands.
#[derive(Serialize, ToSchema)]
pub(super) struct LockStatus {
    #[schema(value_type = String)]
    serial: SerialNumber,
    /// Apple's word.
    apple: AppleWord,
    /// How the organisation's own lock stands, from everything on record.
    organisation_lock: Ours,
}

/// What Apple says of a device's lock, and when it said so.
#[derive(Serialize, ToSchema)]
#[schema(as = AppleStatus)]
pub(super) struct AppleWord {
    /// Whether Apple can be asked: the organisation has an account for its API.
    can_be_asked: bool,
    /// `isLocked`, as Apple last said; null where it said nothing.
    is_locked: Option<bool>,
    /// `lockType`, as Apple last said: `MDM` (the organisation's), `USER` (a person's), `NONE`, or another word as it came.
    lock_type: Option<String>,
    /// Attributes that are not described, as they came.
    #[schema(value_type = Option<Object>)]
    more: Option<serde_json::Value>,
    /// When Apple was first read to say so.
    since: Option<Moment>,
    /// When Apple was last read to say so.
    read_at: Option<Moment>,
    /// When Apple was last asked, answered or not.
    asked_at: Option<Moment>,
    /// Why the last question gave nothing: `not_managed`, `internal_state`, `credential`, `unavailable` or `unexpected`. An open set.
    problem: Option<String>,
    /// What it should come to say after a lock or an unlock, and until when that is waited for.
    expected: Option<Expected>,
    /// The status in words; null where there is none.
    explanation: Option<Explanation>,
}

/// What Apple's status should come to say.
#[derive(Serialize, ToSchema)]
#[schema(as = ExpectedStatus)]
struct Expected {
    /// `locked` or `not_locked`.
    state: &'static str,
    /// Until then a status that does not agree is put down to its being late.
    until: Moment,
}

impl From<StatusView> for AppleWord {
    fn from(view: StatusView) -> Self {
        let last = view.last.as_ref();
        let status = last.map(|said| &said.status);
        let more = last.and_then(|said| said.more.as_deref());
        Self {
            can_be_asked: view.can_be_asked,
            is_locked: status.and_then(|status| status.is_locked),
            lock_type: status
                .and_then(|status| status.lock_type.as_ref())
                .map(|lock_type: &LockType| lock_type.as_str().to_owned()),
            more: more.map(|more| {
                serde_json::from_str(more).unwrap_or_else(|_| serde_json::Value::from(more))
            }),
            since: last.map(|said: &Said| said.first_at.into()),
            read_at: last.map(|said| said.last_at.into()),
            asked_at: view.asked_at.map(Moment),
            problem: view.problem,
            expected: view.expected.map(|(expected, until)| Expected {
                state: expected.as_str(),
                until: until.into(),
            }),
            explanation: status.map(|status| explain::lock::status(status.known()).into()),
        }
    }
}

/// Whether to ask Apple now.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StatusQuery {
    /// `1`: ask Apple now, and wait for its answer, which needs the permission `refresh`; else what it last said.
    fresh: Option<u8>,
}

/// Show Apple's own status of a device's lock, and how the organisation's own lock stands.
#[utoipa::path(
    get,
    path = "/v1/devices/{serial}/lock-status",
    tag = "locks",
    operation_id = "show_lock_status",
    security(("token" = ["read"])),
    params(("serial" = String, Path, description = "The serial number."), StatusQuery),
    responses(
        (status = 200, description = "What Apple last said, and when. A question that gave nothing leaves what it said before.",
            body = LockStatus),
        (status = 404, description = "`unknown-device`"),
        (status = 409, description = "`no-business-api`: there is no account to ask Apple with. `ambiguous-device`: several \
            organisations know it; name one."),
        (status = 503, description = "`apple-asked-to-wait`: with `fresh`, while Apple wants no questions; `Retry-After` says how long.")
    )
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(serial): Path<SerialNumber>,
    Query(query): Query<StatusQuery>,
) -> Result<Json<LockStatus>, Problem> {
    let organisation = caller.organisation_of(&app, &serial).await?;
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, format!("device {serial}"))
        .await?;
    if !devices::is_known(&app, &caller, &organisation, &serial).await? {
        return Err(Problem::unknown_device());
    }
    if query.fresh.unwrap_or(0) != 0 {
        let _: Permit<Refresh> = app
            .escrow
            .authorise(&caller.actor, &organisation, format!("device {serial}"))
            .await?;
        if let Some(wait) = statuses::left_alone_for(&app, &organisation).await? {
            return Err(asked_to_wait(wait));
        }
        let reading = statuses::ask(&app, &organisation, &serial).await;
        if reading == Reading::Problem("no_account") {
            return Err(no_account());
        }
        let settings = app.settings.statuses;
        app.escrow
            .lock_statuses()
            .record(&organisation, &serial, reading, settings)
            .await?;
    }
    let device = app
        .escrow
        .devices()
        .get(&permit, &serial)
        .await?
        .ok_or_else(Problem::unknown_device)?;
    Ok(Json(LockStatus {
        organisation_lock: Ours::new(&device.lock, device.summary.product_type.as_ref()),
        apple: device.status.into(),
        serial,
    }))
}

fn asked_to_wait(wait: Duration) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "apple-asked-to-wait",
        "Apple wants no questions now",
        "It was asked too often, or failed; nothing new is known of the device.",
    )
    .hint(
        "Without `fresh`, what it last said is shown, with its time. It is asked again by itself.",
    )
    .retry_after(wait)
}

fn no_account() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "no-business-api",
        "Apple cannot be asked",
        "The organisation has no account here for Apple's Business and School Manager API.",
    )
    .hint("Somebody with the role of Administrator makes an API account in Apple Business Manager or Apple School Manager; set it with `lockwarden business-api set`.")
}
