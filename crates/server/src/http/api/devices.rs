//! Devices: list, show, set by hand, ask again.

use activation_lock::asking::{NotAsked, Refusal};
use activation_lock::codes::{CodeKind, CodeOrigin, TextShape};
use activation_lock::device::{
    CellularIdentity, DeviceIdentity, Imei, Meid, ProductType, SerialNumber,
};
use activation_lock::explain;
use activation_lock::guard::AllowedBeforeEscrow;
use activation_lock::lock::OurLock;
use activation_lock::operation::StateName;
use activation_lock::time::Timestamp;
use activation_lock::window::{self, Window};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use escrow::codes::CodeView;
use escrow::commands::{Command, CommandState, CommandType, Refreshed};
use escrow::coverage::CoverageState;
use escrow::devices::{
    Corrections, DeviceSummary, DeviceView, EpochView, Filter, Located, TimelineEntry,
};
use escrow::enrollments::{EpochFacts, EpochState, OpenedBy};
use escrow::operations::UnlockSummary;
use escrow::permit::{Edit, OrganisationId, Permit, Read, Refresh};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::dep_tokens::ListingRow;
use super::lock_status::AppleWord;
use super::locks::{LockRow, Ours};
use super::mdm;
use super::shown::{ConnectionNames, Explained, Explanation, Moment, Page};
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Body, Path, Query, parsed};
use crate::http::problem::Problem;

/// How many rows a page has when nothing is said.
const PAGE: u16 = 100;

/// Which devices, and which page of them.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only devices with a serial number, name, model or product type that has a word beginning so.
    search: Option<String>,
    /// Only devices whose code is held (`covered`), should be held and is not (`missing`), or that give none (`exempt`).
    #[param(value_type = Option<String>)]
    coverage: Option<CoverageState>,
    /// `true`: only devices without a code whose 15 days end within five.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    closing: bool,
    /// Only devices last seen on the MDM connection of this name.
    connection: Option<String>,
    /// Only devices of this product type, such as `iPad4,1`.
    product_type: Option<String>,
    /// Only devices on which the organisation's own lock stands so: `none`, `confirmed`, `unknown`, `someone_elses`.
    #[param(value_type = Option<String>)]
    lock: Option<OurLock>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Rows a page, 1 to 500; 100 when it is left out.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u16>,
}

/// A device as lists show it.
#[derive(Serialize, ToSchema)]
#[schema(as = DeviceSummary)]
pub(super) struct DeviceRow {
    #[schema(value_type = String)]
    serial: SerialNumber,
    /// The identifier of the organisation it belongs to.
    #[schema(value_type = String)]
    organisation: OrganisationId,
    /// The hardware's own name, such as `iPad4,1`. Without it no unlock can be asked for.
    #[schema(value_type = Option<String>)]
    product_type: Option<ProductType>,
    model_name: Option<String>,
    /// The name its user gave it.
    device_name: Option<String>,
    os_version: Option<String>,
    /// The name of the MDM connection it was last seen on.
    connection: Option<String>,
    /// `covered`, `missing` or `exempt`: whether its code is held.
    #[schema(value_type = String)]
    coverage: CoverageState,
    /// Why not, in a stable word. More may come.
    coverage_reason: Option<String>,
    /// How it stands with the 15 days in which a device gives its code: `satisfied`, `unknown`, `open`, `closing` or `closed`.
    #[schema(value_type = String)]
    window: &'static str,
    /// When they end, where that is known.
    window_closes_at: Option<Moment>,
    /// Why its codes may have lost their use, such as `checked_out`. More may come.
    suspect: Option<String>,
    /// How the organisation's own lock on it stands: `none`, `confirmed`, `unknown` (it may be on) or `someone_elses`.
    #[schema(value_type = String)]
    lock: OurLock,
    /// When it was last heard of in an event that was recorded; polls are not.
    seen_at: Moment,
}

impl DeviceRow {
    fn new(summary: DeviceSummary, names: &ConnectionNames) -> Self {
        Self {
            serial: summary.serial,
            organisation: summary.organisation,
            product_type: summary.product_type,
            model_name: summary.model_name,
            device_name: summary.device_name,
            os_version: summary.os_version,
            connection: summary.connection.map(|id| names.of(&id)),
            coverage: summary.coverage,
            coverage_reason: summary.coverage_reason,
            window: summary.window,
            window_closes_at: summary.window_closes_at.map(Moment),
            suspect: summary.suspect,
            lock: summary.lock,
            seen_at: summary.seen_at.into(),
        }
    }
}

/// List or search devices.
///
/// By serial number; a search by the words that fit it, and closing windows by when they close. A page may have fewer rows than its limit
/// although there are more: `next` says so.
#[utoipa::path(
    get,
    path = "/v1/devices",
    tag = "devices",
    operation_id = "list_devices",
    security(("token" = ["read"])),
    params(ListQuery),
    responses((status = 200, description = "One page.", body = Page<DeviceRow>))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<DeviceRow>>, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, "devices")
        .await?;
    let connection = match &query.connection {
        Some(name) => Some(mdm::id_of(&app, &permit, name).await?),
        None => None,
    };
    let filter = Filter {
        search: query.search,
        coverage: query.coverage,
        closing: query.closing,
        connection,
        product_type: query.product_type,
        lock: query.lock,
    };
    let limit = usize::from(query.limit.unwrap_or(PAGE));
    let page = app
        .escrow
        .devices()
        .list(&permit, &filter, query.cursor.as_deref(), limit)
        .await?;
    let names = ConnectionNames::read(&app, &permit).await?;
    Ok(Json(Page {
        items: page
            .items
            .into_iter()
            .map(|one| DeviceRow::new(one, &names))
            .collect(),
        next: page.next,
    }))
}

/// Everything that is known of one device, but the texts of its codes.
#[derive(Serialize, ToSchema)]
pub(super) struct Device {
    summary: DeviceRow,
    /// How it stands with getting its code, in words; null when there is one, or it gives none.
    window: Option<Explanation>,
    /// Exactly how the device is named to Apple; null without a product type.
    identity: Option<Identity>,
    /// IMEIs and MEID, also without a product type.
    cellular: Cellular,
    /// Where the product type comes from: `device` or `person`. More may come.
    product_source: Option<&'static str>,
    /// Its codes, oldest first, without their texts.
    codes: Vec<Code>,
    /// Its enrolments, oldest first.
    epochs: Vec<Epoch>,
    /// Its newest commands, newest first.
    commands: Vec<CommandRow>,
    /// Its unlocks, newest first.
    unlocks: Vec<UnlockRow>,
    /// How the organisation's own lock stands, with what would strand it.
    organisation_lock: Ours,
    /// Its locks by the organisation, newest first.
    locks: Vec<LockRow>,
    /// Apple's own status of its lock.
    apple_status: AppleWord,
    /// The servers of Apple's enrolment service that list it, or did.
    listings: Vec<ListingRow>,
    /// What happened to it, newest first.
    timeline: Vec<TimelineRow>,
}

/// How a device is named to Apple.
#[derive(Serialize, ToSchema)]
pub(super) struct Identity {
    #[schema(value_type = String)]
    serial: SerialNumber,
    #[schema(value_type = String)]
    product_type: ProductType,
    #[schema(value_type = Option<String>)]
    imei: Option<Imei>,
    #[schema(value_type = Option<String>)]
    imei2: Option<Imei>,
    #[schema(value_type = Option<String>)]
    meid: Option<Meid>,
}

impl From<DeviceIdentity> for Identity {
    fn from(identity: DeviceIdentity) -> Self {
        let DeviceIdentity {
            serial,
            product_type,
            imei,
            imei2,
            meid,
        } = identity;
        Self {
            serial,
            product_type,
            imei,
            imei2,
            meid,
        }
    }
}

/// The numbers of a cellular device.
#[derive(Serialize, ToSchema)]
struct Cellular {
    /// IMEI of slot one, or the only one.
    #[schema(value_type = Option<String>)]
    imei: Option<Imei>,
    /// IMEI of slot two.
    #[schema(value_type = Option<String>)]
    imei2: Option<Imei>,
    #[schema(value_type = Option<String>)]
    meid: Option<Meid>,
    /// Where they come from: `list` (without slots, so that their order is a guess), `device`, `slots` or `person`.
    source: Option<&'static str>,
}

/// One code of a device, without its text.
#[derive(Serialize, ToSchema)]
#[schema(as = DeviceCode)]
struct Code {
    id: String,
    /// Who made it: `device`, `server` (this product, for a lock of its own) or `unknown`.
    #[schema(value_type = String)]
    kind: CodeKind,
    /// How it came to be known: `device`, `made`, `import` or `person`.
    #[schema(value_type = String)]
    origin: CodeOrigin,
    /// How its text is written: `canonical`, `lenient`, or `opaque`, which does not look like a code and is tried all the same.
    #[schema(value_type = String)]
    shape: TextShape,
    /// Whether it is the current code of its kind.
    current: bool,
    /// Whether a lock of ours with this code is on (`confirmed`), may be on (`unknown`), or neither (`none`).
    lock_state: String,
    /// Why it may not open the lock, in a stable word, if there is a doubt. More may come.
    doubt: Option<String>,
    /// The doubt in words.
    doubt_explanation: Option<Explanation>,
    /// A note of the person or import that brought it.
    note: Option<String>,
    /// The push topic under which it was had.
    topic: Option<String>,
    /// When it was first seen.
    created_at: Moment,
    /// When it was last seen.
    seen_at: Moment,
    /// When it was last shown to a person.
    revealed_at: Option<Moment>,
    /// To whom.
    revealed_by: Option<String>,
    /// When a lock was last turned off with it.
    used_at: Option<Moment>,
}

impl From<CodeView> for Code {
    fn from(code: CodeView) -> Self {
        let (revealed_at, revealed_by) = code.revealed.unzip();
        Self {
            id: code.id.0,
            kind: code.kind,
            origin: code.origin,
            shape: code.shape,
            current: code.current,
            lock_state: code.lock_state,
            doubt_explanation: code.doubt.as_deref().and_then(doubt).map(Explanation::from),
            doubt: code.doubt,
            note: code.note,
            topic: code.topic,
            created_at: code.created_at.into(),
            seen_at: code.seen_at.into(),
            revealed_at: revealed_at.map(Moment),
            revealed_by,
            used_at: code.used_at.map(Moment),
        }
    }
}

/// A doubt about a code in words.
pub(crate) fn doubt(word: &str) -> Option<explain::Explanation> {
    let gap: AllowedBeforeEscrow = word.strip_prefix("allowed_before_escrow_")?.parse().ok()?;
    Some(explain::allowed_before_escrow(gap))
}

/// One enrolment of a device, from its beginning or from when we first saw it.
#[derive(Serialize, ToSchema)]
struct Epoch {
    id: String,
    /// The name of the MDM connection.
    connection: String,
    /// The MDM's name for the enrolment.
    enrollment: String,
    /// `authenticate`, `token_update` (its beginning was not seen) or `adopted` (it began before us).
    #[schema(value_type = String)]
    opened_by: OpenedBy,
    opened_at: Moment,
    closed_at: Option<Moment>,
    /// `live`, `disputed`, `quarantined`, `superseded`, `left` or `silent`. More may come.
    #[schema(value_type = String)]
    state: EpochState,
    /// Why it stands so.
    state_reason: Option<String>,
    /// When a code was first observed in it.
    code_at: Option<Moment>,
    /// When it was last asked for its code.
    last_asked_at: Option<Moment>,
    /// Why it is not asked for a code, if it is not.
    not_asked: Option<Explained>,
    /// How it refused to give a code, if it did at the last ask.
    refusal: Option<Explained>,
    /// Set when its user may have locked it before its code was had.
    allowed_before_escrow: Option<Explained>,
    /// What is doubtful about a Mac's lock.
    mac_warning: Option<Explained>,
    facts: Facts,
}

impl Epoch {
    fn new(epoch: EpochView, names: &ConnectionNames) -> Self {
        let refusal = epoch.facts.refusal;
        Self {
            connection: names.of(&epoch.connection),
            id: epoch.id,
            enrollment: epoch.enrollment,
            opened_by: epoch.opened_by,
            opened_at: epoch.opened_at.into(),
            closed_at: epoch.closed_at.map(Moment),
            state: epoch.state,
            state_reason: epoch.state_reason,
            code_at: epoch.code_at.map(Moment),
            last_asked_at: epoch.last_asked_at.map(Moment),
            not_asked: epoch
                .not_asked
                .map(|why: NotAsked| Explained::new(why.as_str(), explain::not_asked(why))),
            refusal: refusal
                .map(|how: Refusal| Explained::new(how.as_str(), explain::refusal(how))),
            allowed_before_escrow: epoch
                .allowed_before_escrow
                .map(|gap| Explained::new(gap.as_str(), explain::allowed_before_escrow(gap))),
            mac_warning: epoch
                .mac_warning
                .map(|warning| Explained::new(warning.as_str(), explain::mac_warning(warning))),
            facts: epoch.facts.into(),
        }
    }
}

/// What the check-ins and answers of one enrolment told. Null is "not told".
#[derive(Serialize, ToSchema)]
#[schema(as = EpochFacts)]
struct Facts {
    /// A check-in said that the device stood in Setup Assistant.
    awaiting_configuration: bool,
    supervised: Option<bool>,
    multi_user: Option<bool>,
    user_enrollment: Option<bool>,
    activation_lock_supported: Option<bool>,
    activation_lock_manageable: Option<bool>,
    enrolled_via_dep: Option<bool>,
    /// Find My, as last told.
    find_my: Option<bool>,
    /// The device's own report of its lock, as last told. It is wrong in both directions: a hint at most.
    activation_lock_hint: Option<bool>,
    /// The permission to lock, as last read back.
    lock_allowed: Option<bool>,
    lock_allowed_read_at: Option<Moment>,
    /// A permission, to allow or to deny, was sent.
    permission_sent: bool,
    /// The last answer to a question for the code held none.
    answered_without_code: bool,
    /// When the device last told who it is.
    information_at: Option<Moment>,
    /// The last error it gave.
    last_error: Option<DeviceError>,
}

impl From<EpochFacts> for Facts {
    fn from(facts: EpochFacts) -> Self {
        Self {
            awaiting_configuration: facts.awaiting_configuration,
            supervised: facts.supervised,
            multi_user: facts.multi_user,
            user_enrollment: facts.user_enrollment,
            activation_lock_supported: facts.lock_supported,
            activation_lock_manageable: facts.manageable,
            enrolled_via_dep: facts.enrolled_via_dep,
            find_my: facts.find_my,
            activation_lock_hint: facts.lock_hint,
            lock_allowed: facts.allowed,
            lock_allowed_read_at: facts.allowed_at.map(Moment),
            permission_sent: facts.permission_sent,
            answered_without_code: facts.answered_without_code,
            information_at: facts.info_at.map(Moment),
            last_error: facts.last_error.map(|error| DeviceError {
                code: error.code,
                domain: error.domain,
                description: error.description,
            }),
        }
    }
}

/// An error in a device's own words.
#[derive(Serialize, ToSchema)]
struct DeviceError {
    code: i64,
    domain: String,
    description: String,
}

/// A command for a device.
#[derive(Serialize, ToSchema)]
#[schema(as = Command)]
struct CommandRow {
    /// The CommandUUID.
    id: String,
    /// The RequestType.
    #[serde(rename = "type")]
    request_type: &'static str,
    /// For a command that sets the permission to lock: the value it carries.
    lock_allowed: Option<bool>,
    /// `planned`, `queued`, `not_now`, `answered`, `failed`, `void` or `given_up`. More may come.
    #[schema(value_type = String)]
    state: CommandState,
    /// Why it stands so, where that needs words.
    reason: Option<String>,
    /// The name of the MDM connection.
    connection: String,
    /// The MDM's name for the enrolment.
    enrollment: String,
    /// How often it was tried to queue it.
    tries: u32,
    created_at: Moment,
    queued_at: Option<Moment>,
    answered_at: Option<Moment>,
}

impl CommandRow {
    fn new(command: Command, names: &ConnectionNames) -> Self {
        Self {
            request_type: command.what.request_type(),
            lock_allowed: match command.what {
                CommandType::LockPermission { allowed } => Some(allowed),
                _ => None,
            },
            state: command.state,
            reason: command.reason,
            connection: names.of(&command.connection),
            id: command.id,
            enrollment: command.enrollment,
            tries: command.tries,
            created_at: command.created_at.into(),
            queued_at: command.queued_at.map(Moment),
            answered_at: command.answered_at.map(Moment),
        }
    }
}

/// An unlock as a device's page lists it.
#[derive(Serialize, ToSchema)]
#[schema(as = UnlockSummary)]
struct UnlockRow {
    id: String,
    /// As in an unlock.
    #[schema(value_type = String)]
    state: StateName,
    reason: String,
    requested_by: String,
    requested_at: Moment,
    ended_at: Option<Moment>,
}

impl From<UnlockSummary> for UnlockRow {
    fn from(unlock: UnlockSummary) -> Self {
        Self {
            id: unlock.id,
            state: unlock.state,
            reason: unlock.reason,
            requested_by: unlock.requested_by,
            requested_at: unlock.requested_at.into(),
            ended_at: unlock.ended_at.map(Moment),
        }
    }
}

/// One line of a device's timeline.
#[derive(Serialize, ToSchema)]
#[schema(as = TimelineEntry)]
struct TimelineRow {
    at: Moment,
    /// A stable word, such as `code.observed`. More may come.
    what: String,
    details: String,
}

impl From<TimelineEntry> for TimelineRow {
    fn from(entry: TimelineEntry) -> Self {
        Self {
            at: entry.at.into(),
            what: entry.what,
            details: entry.details,
        }
    }
}

impl Device {
    fn new(view: DeviceView, names: &ConnectionNames, now: Timestamp) -> Self {
        let CellularIdentity { imei, imei2, meid } = view.cellular;
        let source = view.cellular_source.map(|source| source.as_str());
        Self {
            window: window_in_words(&view.summary, now).map(Explanation::from),
            organisation_lock: Ours::new(&view.lock, view.summary.product_type.as_ref()),
            locks: view.locks.into_iter().map(LockRow::from).collect(),
            apple_status: view.status.into(),
            listings: view.listings.into_iter().map(ListingRow::from).collect(),
            summary: DeviceRow::new(view.summary, names),
            identity: view.identity.map(Identity::from),
            cellular: Cellular {
                imei,
                imei2,
                meid,
                source,
            },
            product_source: view.product_source.map(|source| source.as_str()),
            codes: view.codes.into_iter().map(Code::from).collect(),
            epochs: view
                .epochs
                .into_iter()
                .map(|one| Epoch::new(one, names))
                .collect(),
            commands: view
                .commands
                .into_iter()
                .map(|one| CommandRow::new(one, names))
                .collect(),
            unlocks: view.unlocks.into_iter().map(UnlockRow::from).collect(),
            timeline: view.timeline.into_iter().map(TimelineRow::from).collect(),
        }
    }
}

/// How it stands with getting a device's code, in words; nothing when there is one, or it gives none.
pub(crate) fn window_in_words(
    summary: &DeviceSummary,
    now: Timestamp,
) -> Option<explain::Explanation> {
    if summary.coverage != CoverageState::Missing {
        return None;
    }
    let known = summary
        .window_closes_at
        .filter(|_| summary.window != Window::Unknown.as_str());
    let evidence = known.map(|_| window::Evidence::AwaitingConfiguration);
    let opened_at = known.map_or(now, |closes_at| closes_at.minus(window::WINDOW));
    let window = window::window(opened_at, evidence, false, now);
    explain::window(&window)
}

/// Everything about a device, or the problem that it is not known.
async fn page(
    app: &App,
    permit: &Permit<Read>,
    serial: &SerialNumber,
) -> Result<Json<Device>, Problem> {
    let view = app
        .escrow
        .devices()
        .get(permit, serial)
        .await?
        .ok_or_else(Problem::unknown_device)?;
    let names = ConnectionNames::read(app, permit).await?;
    Ok(Json(Device::new(view, &names, app.now())))
}

/// Show one device: who it is, its codes without their texts, its enrolments, its unlocks, what happened to it.
#[utoipa::path(
    get,
    path = "/v1/devices/{serial}",
    tag = "devices",
    operation_id = "show_device",
    security(("token" = ["read"])),
    params(("serial" = String, Path, description = "The serial number.")),
    responses(
        (status = 200, description = "The device.", body = Device),
        (status = 404, description = "`unknown-device`"),
        (status = 409, description = "`ambiguous-device`: several organisations know it; name one.")
    )
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(serial): Path<SerialNumber>,
) -> Result<Json<Device>, Problem> {
    let organisation = caller.organisation_of(&app, &serial).await?;
    let permit = app
        .escrow
        .authorise(&caller.actor, &organisation, format!("device {serial}"))
        .await?;
    page(&app, &permit, &serial).await
}

/// What is set by hand. What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeviceByHand)]
pub(super) struct ByHand {
    /// The hardware's own name, such as `iPad4,1`: neither the order number nor a name like iPhone XR.
    product_type: Option<String>,
    /// IMEI of slot one, or the only one: 14 to 16 digits. Spaces and dashes are dropped.
    imei: Option<String>,
    /// IMEI of slot two.
    imei2: Option<String>,
    /// MEID of slot one: 14 to 18 hexadecimal digits. Spaces and dashes are dropped.
    meid: Option<String>,
}

/// Set by hand how a device is named to Apple. A device that is not known yet becomes known.
///
/// What a person sets is not replaced by what the device tells. It is on record who set it.
#[utoipa::path(
    patch,
    path = "/v1/devices/{serial}",
    tag = "devices",
    operation_id = "set_device",
    security(("token" = ["edit", "read"])),
    params(("serial" = String, Path, description = "The serial number.")),
    request_body = ByHand,
    responses((status = 200, description = "The device as it is now.", body = Device))
)]
pub(super) async fn set(
    State(app): State<App>,
    caller: Caller,
    Path(serial): Path<SerialNumber>,
    body: Body,
) -> Result<Json<Device>, Problem> {
    let organisation = caller.organisation_to_be_of(&app, &serial).await?;
    let subject = format!("device {serial}");
    let permit: Permit<Edit> = app
        .escrow
        .authorise(&caller.actor, &organisation, &*subject)
        .await?;
    let shown = app
        .escrow
        .authorise(&caller.actor, &organisation, subject)
        .await?;
    let given: ByHand = body.json()?;
    let set = Corrections {
        product_type: given.product_type.as_deref().map(parsed).transpose()?,
        imei: given.imei.as_deref().map(parsed).transpose()?,
        imei2: given.imei2.as_deref().map(parsed).transpose()?,
        meid: given.meid.as_deref().map(parsed).transpose()?,
    };
    if set.product_type.is_none() && set.imei.is_none() && set.imei2.is_none() && set.meid.is_none()
    {
        return Err(Problem::bad_request("Nothing is given that could be set.")
            .hint("Give one or more of `product_type`, `imei`, `imei2`, `meid`."));
    }
    app.escrow.devices().correct(&permit, &serial, &set).await?;
    page(&app, &shown, &serial).await
}

/// That a device is being asked.
#[derive(Serialize, ToSchema)]
#[schema(as = AskedDevice)]
pub(super) struct Asked {
    #[schema(value_type = String)]
    serial: SerialNumber,
    /// The question is on its way. The device answers when it is next awake and has a network.
    asked: bool,
}

/// Have a device asked for its code again.
#[utoipa::path(
    post,
    path = "/v1/devices/{serial}/refresh",
    tag = "devices",
    operation_id = "refresh_device",
    security(("token" = ["refresh"])),
    params(("serial" = String, Path, description = "The serial number.")),
    responses(
        (status = 202, description = "The question is on its way.", body = Asked),
        (status = 404, description = "`unknown-device`"),
        (status = 409, description = "`not-enrolled`: no MDM knows the device at present, so that nobody can be asked.")
    )
)]
pub(super) async fn refresh(
    State(app): State<App>,
    caller: Caller,
    Path(serial): Path<SerialNumber>,
) -> Result<(StatusCode, Json<Asked>), Problem> {
    let organisation = caller.organisation_of(&app, &serial).await?;
    let permit: Permit<Refresh> = app
        .escrow
        .authorise(&caller.actor, &organisation, format!("device {serial}"))
        .await?;
    if !is_known(&app, &caller, &organisation, &serial).await? {
        return Err(Problem::unknown_device());
    }
    match app.escrow.commands().refresh(&permit, &serial).await? {
        Refreshed::Asked => Ok((
            StatusCode::ACCEPTED,
            Json(Asked {
                serial,
                asked: true,
            }),
        )),
        Refreshed::NotEnrolled => Err(not_enrolled()),
    }
}

pub(crate) fn not_enrolled() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "not-enrolled",
        "The device is enrolled nowhere",
        "No MDM that is connected here knows the device at present, so that it cannot be asked.",
    )
    .hint("Enrol it again. Its codes are kept.")
}

/// Whether an organisation knows a device.
pub(super) async fn is_known(
    app: &App,
    caller: &Caller,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<bool, Problem> {
    Ok(
        match app.escrow.devices().locate(&caller.actor, serial).await? {
            Located::In(only) => only == *organisation,
            Located::Nowhere => false,
            Located::Several(several) => several.contains(organisation),
        },
    )
}
