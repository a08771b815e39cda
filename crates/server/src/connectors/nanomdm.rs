//! NanoMDM, and NanoHUB, which has NanoMDM's handlers under a prefix. MicroMDM's events differ so little that they are read
//! here as well.
//!
//! What is known of the wire, and how sure it is (mdm-connectors, 1 to 3; V: read in the project's source or documents, G:
//! a guess that the code does not lean on):
//!
//! * V: an event is JSON with `topic`, `created_at` (RFC 3339) and one of `checkin_event` and `acknowledge_event`; in it
//!   `raw_payload` is the device's plist in standard base64. `event_id` may be missing, `url_params` may be null.
//! * V: `ids` (`id`, `type`, `parent_id`) names the enrollment from v0.9 on. Before, and in MicroMDM, there are `udid` and
//!   `enrollment_id` alone, and the plist shows whether a person's channel spoke: an `id` is then the device's, a colon and
//!   the user's (`UserShortName` on a Shared iPad, whose `UserID` is the same for everybody).
//! * V: a device's poll for work comes with `status` `Idle`; `command_uuid` is missing then, or empty (v0.8).
//! * V: `token_update_tally` comes with TokenUpdate alone; MicroMDM has none.
//! * V: the receiver must answer 200; nothing is sent again, and no order is promised.
//! * V: `PUT /v1/enqueue/{id}`, Basic authentication, body a command's plist with its own CommandUUID. 200: queued and
//!   pushed, 207: some of it failed, 500: all of it failed; each with the same JSON. A failed push alone leaves the command
//!   queued. A body that is no command: 500 with `command_error`, and nothing is queued.
//! * V: a CommandUUID that is there already is the storage's own error: MySQL says `Duplicate entry`, PostgreSQL
//!   `duplicate key value violates unique constraint`, SQLite `UNIQUE constraint failed`. The file storage writes it again.
//! * V: `POST /v1/escrowkeyunlock`, a form; Apple's status and body are copied, its headers are lost. Its own errors are
//!   `{"error"}` with 500 (400 for missing parameters), its refusal of the key is 401, all of them without a call to Apple.
//! * V: a path that it does not have is answered by Go's own 404, `404 page not found`.
//! * V: `GET /version` needs no key. NanoHUB's paths: `/api/v1/nanomdm/enqueue` and so on. G: NanoHUB's `/version`.

use std::borrow::Cow;
use std::fmt;

use activation_lock::observation::{EnrollmentKind, Event, Observation};
use activation_lock::time::Timestamp;
use activation_lock::unlock::{Outcome, Response, outcome};
use apple::mdm::{self, Channel, CheckInMessage};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use escrow::connections::{ConnectionKind, OpenConnection};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::{self, Visitor};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::http_client::{Body, Caller, Failed, Reply, for_people};
use super::{Delegated, DelegatedUnlock, Enqueued, EventError};

/// The longest name of an enrollment that is taken, in bytes. A device's has 25 to 40, a person's channel twice as many.
const LONGEST_ID: usize = 255;
/// What a Shared iPad says as the `UserID` of every user.
const SHARED_IPAD_USER: &str = "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF";
/// Where NanoHUB has NanoMDM's handlers, when the connection does not say otherwise.
const NANOHUB_PREFIX: &str = "/api/v1/nanomdm";
/// What Go's HTTP server answers for a path that it does not have.
const NO_SUCH_PATH: &[u8] = b"404 page not found";
/// An enrollment that no device has, for asking whether the API takes our key.
const NOBODY: &str = "lockwarden-connection-test";

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    created_at: Cow<'a, str>,
    checkin_event: Option<Part>,
    acknowledge_event: Option<Part>,
}

/// `checkin_event` or `acknowledge_event`; each has some of the keys.
#[derive(Deserialize)]
struct Part {
    udid: Option<String>,
    enrollment_id: Option<String>,
    ids: Option<Ids>,
    status: Option<String>,
    command_uuid: Option<String>,
    raw_payload: Option<Payload>,
    token_update_tally: Option<u64>,
}

#[derive(Deserialize)]
struct Ids {
    #[serde(default)]
    id: String,
    #[serde(default, rename = "type")]
    kind: String,
}

/// The device's plist, decoded; a code may be in it, so it is wiped. `None` when it is not base64.
struct Payload(Option<Zeroizing<Vec<u8>>>);

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Payload;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text in base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Payload, E> {
                // Decoded into a buffer of the right size, so that no smaller copy is left behind in memory.
                let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
                let length = STANDARD.decode_slice(text.trim_ascii(), &mut bytes).ok();
                Ok(Payload(length.map(|length| {
                    bytes.truncate(length);
                    bytes
                })))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Reads an event. `None` when there is nothing in it for us.
///
/// # Errors
/// When it is no such event, or holds a message that cannot be read and would not be missed only as a sign of life.
pub(super) fn read_event(body: &[u8]) -> Result<Option<Observation>, EventError> {
    let envelope: Envelope<'_> =
        serde_json::from_slice(body).map_err(|_| EventError::NotAnEvent)?;
    let at = moment(&envelope.created_at)?;
    let topic = envelope.topic.strip_prefix("mdm.").unwrap_or_default();
    let part = match topic {
        "Connect" => envelope.acknowledge_event,
        "Authenticate" | "TokenUpdate" | "CheckOut" => envelope.checkin_event,
        _ => match envelope.checkin_event.or(envelope.acknowledge_event) {
            Some(part) => Some(part),
            None => return Ok(None),
        },
    };
    let part = part.ok_or(EventError::NotAnEvent)?;
    let said = said(topic, &part)?;
    let Some((enrollment, kind)) = enrollment(&part, &said.channel)? else {
        return Ok(None);
    };
    // A person's channel never has anything for us (R10): the device channel is the one to ask.
    let of_a_device = matches!(
        kind,
        EnrollmentKind::Device | EnrollmentKind::UserEnrollmentDevice
    );
    Ok(of_a_device.then(|| Observation {
        enrollment,
        kind,
        at,
        event: said.event,
    }))
}

fn moment(text: &str) -> Result<Timestamp, EventError> {
    let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| EventError::NotAnEvent)?;
    let millis = at.unix_timestamp_nanos() / 1_000_000;
    Ok(Timestamp(i64::try_from(millis).expect(
        "four digits of years fit into 64 bits of milliseconds",
    )))
}

/// What the device said, and through whose channel, where the plist was looked at.
struct Said {
    event: Event,
    channel: Option<Channel>,
}

impl Said {
    fn seen(channel: Option<Channel>) -> Self {
        Self {
            event: Event::Seen,
            channel,
        }
    }
}

fn said(topic: &str, part: &Part) -> Result<Said, EventError> {
    let named = part.ids.as_ref().is_some_and(|ids| !ids.id.is_empty());
    let payload = part.raw_payload.as_ref();
    let payload = payload.and_then(|payload| payload.0.as_ref());
    match topic {
        "Authenticate" | "TokenUpdate" => {
            let payload = payload.ok_or(EventError::Message)?;
            let check_in = mdm::check_in(payload).map_err(|_| EventError::Message)?;
            let event = match (topic, check_in.message) {
                ("Authenticate", CheckInMessage::Authenticate(said)) => Event::Authenticate(said),
                ("TokenUpdate", CheckInMessage::TokenUpdate(mut said)) => {
                    said.tally = part.token_update_tally;
                    Event::TokenUpdate(said)
                }
                _ => return Err(EventError::Message),
            };
            Ok(Said {
                event,
                channel: Some(check_in.channel),
            })
        }
        "Connect" if part.status.as_deref() != Some("Idle") => {
            let payload = payload.ok_or(EventError::Message)?;
            let answer = mdm::answer(payload).map_err(|_| EventError::Message)?;
            let event = match answer.report {
                None => Event::Seen,
                Some(mut report) => {
                    let told = part.command_uuid.as_deref().and_then(usable);
                    report.command = report.command.or(told);
                    Event::Report(report)
                }
            };
            Ok(Said {
                event,
                channel: Some(answer.channel),
            })
        }
        // A leave, a poll, or something of no use here: the plist is only asked whose channel it is, where nothing else says.
        _ => {
            let channel = match (named, payload) {
                (false, Some(payload)) => mdm::check_in(payload)
                    .map(|check_in| check_in.channel)
                    .or_else(|_| mdm::answer(payload).map(|answer| answer.channel))
                    .ok(),
                _ => None,
            };
            Ok(match topic {
                "CheckOut" if !named && channel.is_none() => return Err(EventError::Message),
                "CheckOut" => Said {
                    event: Event::CheckOut,
                    channel,
                },
                _ => Said::seen(channel),
            })
        }
    }
}

/// Who spoke: the MDM's name for the enrollment, and what it is. `None` when it is of a kind that is not known here, or when
/// a mere sign of life does not show it.
fn enrollment(
    part: &Part,
    channel: &Option<Channel>,
) -> Result<Option<(String, EnrollmentKind)>, EventError> {
    if let Some(ids) = part.ids.as_ref().filter(|ids| !ids.id.is_empty()) {
        let id = usable(&ids.id).ok_or(EventError::NotAnEvent)?;
        return Ok(EnrollmentKind::from_name(&ids.kind).map(|kind| (id, kind)));
    }
    let Some(channel) = channel else {
        // The plist of a sign of life could not be read: it is not known whose it is.
        return Ok(None);
    };
    let either = |told: &Option<String>, shown: &Option<String>| {
        let told = told.as_deref().filter(|text| !text.is_empty());
        told.or(shown.as_deref()).map(str::to_owned)
    };
    let udid = either(&part.udid, &channel.udid);
    let enrollment_id = either(&part.enrollment_id, &channel.enrollment_id);
    let (device, of_user_enrollment) = match (udid, enrollment_id) {
        (Some(udid), _) => (udid, false),
        (None, Some(id)) => (id, true),
        (None, None) => return Err(EventError::NotAnEvent),
    };
    let is_shared = channel.user_id.as_deref() == Some(SHARED_IPAD_USER);
    let user = match is_shared {
        true => channel.user_short_name.as_deref(),
        false => channel.user_id.as_deref(),
    };
    let (id, kind) = match (user, of_user_enrollment) {
        (None, false) if is_shared => (device, EnrollmentKind::SharedIpad),
        (None, false) => (device, EnrollmentKind::Device),
        (None, true) => (device, EnrollmentKind::UserEnrollmentDevice),
        (Some(user), false) if is_shared => {
            (format!("{device}:{user}"), EnrollmentKind::SharedIpad)
        }
        (Some(user), false) => (format!("{device}:{user}"), EnrollmentKind::User),
        (Some(user), true) => (format!("{device}:{user}"), EnrollmentKind::UserEnrollment),
    };
    let id = usable(&id).ok_or(EventError::NotAnEvent)?;
    Ok(Some((id, kind)))
}

/// A name that is compared and looked up: taken whole or not at all.
fn usable(text: &str) -> Option<String> {
    let fits = !text.is_empty() && text.len() <= LONGEST_ID && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

/// What stands before the API's own paths.
fn prefix(connection: &OpenConnection) -> Vec<&str> {
    let view = &connection.view;
    let prefix = match view.kind {
        ConnectionKind::NanoHub if view.path_prefix.is_empty() => NANOHUB_PREFIX,
        _ => view.path_prefix.as_str(),
    };
    prefix.split('/').filter(|part| !part.is_empty()).collect()
}

/// The path of a call: below `/v1` of NanoMDM, below the prefix itself of NanoHUB.
fn path<'a>(connection: &'a OpenConnection, call: &[&'a str]) -> Vec<&'a str> {
    let mut path = prefix(connection);
    if connection.view.kind != ConnectionKind::NanoHub {
        path.push("v1");
    }
    path.extend(call);
    path
}

/// What `enqueue` answers.
#[derive(Deserialize)]
struct ApiResult {
    #[serde(default)]
    status: std::collections::HashMap<String, OneResult>,
    push_error: Option<String>,
    command_error: Option<String>,
    command_uuid: Option<String>,
    /// In place of all others, where it failed before it looked at the command.
    error: Option<String>,
}

#[derive(Deserialize)]
struct OneResult {
    push_error: Option<String>,
    command_error: Option<String>,
}

/// Queues a command.
pub(super) async fn enqueue(
    caller: &Caller<'_>,
    enrollment: &str,
    command_uuid: &str,
    plist: Vec<u8>,
) -> Enqueued {
    if enrollment.contains(',') {
        let why = "the enrollment's name holds a comma, which NanoMDM takes for two names";
        return Enqueued::NotQueued(why.to_owned());
    }
    let path = path(caller.connection, &["enqueue", enrollment]);
    let reply = match caller.call(Method::PUT, &path, Body::Plist(plist)).await {
        Ok(reply) => reply,
        Err(failed) => return Enqueued::Down(failed.for_people()),
    };
    if let Some(why) = caller.takes_nothing(&reply) {
        return Enqueued::Down(why);
    }
    read_enqueued(&reply.body, reply.status, enrollment, command_uuid)
        .unwrap_or_else(|| Enqueued::NotQueued(not_the_api(caller, &reply)))
}

fn not_the_api(caller: &Caller<'_>, reply: &Reply) -> String {
    format!(
        "what answers at the MDM's address is not NanoMDM's API: {}; look at the connection's address and path prefix",
        caller.words(reply)
    )
}

/// Reads the answer to `enqueue`; `None` when it is not one of NanoMDM's.
pub(crate) fn read_enqueued(
    body: &[u8],
    status: StatusCode,
    enrollment: &str,
    command_uuid: &str,
) -> Option<Enqueued> {
    let result: ApiResult = serde_json::from_slice(body).ok()?;
    let one = result.status.get(enrollment);
    let error = result
        .command_error
        .as_deref()
        .or(one.and_then(|one| one.command_error.as_deref()))
        .or(result.error.as_deref());
    if let Some(error) = error.filter(|text| !text.is_empty()) {
        return Some(if is_duplicate(error) {
            Enqueued::Queued
        } else {
            Enqueued::NotQueued(format!("the MDM did not take it: {}", for_people(error)))
        });
    }
    let is_ours = result
        .command_uuid
        .is_some_and(|uuid| uuid.eq_ignore_ascii_case(command_uuid));
    // A failed push leaves the command in the queue: the device finds it when it next asks.
    let push_failed =
        result.push_error.is_some() || one.is_some_and(|one| one.push_error.is_some());
    match status.as_u16() {
        200 | 207 if is_ours => Some(Enqueued::Queued),
        500 if is_ours && push_failed => Some(Enqueued::Queued),
        500 if is_ours => {
            let why = "the MDM says that it failed, and not how";
            Some(Enqueued::NotQueued(why.to_owned()))
        }
        _ => None,
    }
}

/// Whether a storage says that it has this CommandUUID already (R8).
fn is_duplicate(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    error.contains("duplicate") || error.contains("unique constraint")
}

/// An error of NanoMDM's own.
#[derive(Deserialize)]
struct OwnError {
    #[serde(rename = "error")]
    _error: String,
}

/// Has NanoMDM call Apple (R19).
pub(super) async fn unlock(caller: &Caller<'_>, request: &DelegatedUnlock<'_>) -> Delegated {
    let identity = request.identity;
    let fields = [
        ("topic", Some(request.topic)),
        ("serial", Some(identity.serial.as_str())),
        ("productType", Some(identity.product_type.as_str())),
        ("imei", identity.imei.as_ref().map(|imei| imei.as_str())),
        ("imei2", identity.imei2.as_ref().map(|imei| imei.as_str())),
        ("meid", identity.meid.as_ref().map(|meid| meid.as_str())),
        ("orgName", Some(request.org_name)),
        ("guid", Some(request.guid)),
        ("escrowKey", Some(request.code)),
    ];
    let known: Vec<(&str, &str)> = fields
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    let path = path(caller.connection, &["escrowkeyunlock"]);
    let reply = match caller.call(Method::POST, &path, Body::form(&known)).await {
        Ok(reply) => reply,
        Err(failed) => return failed.delegated(),
    };
    read_unlocked(caller, &reply)
}

fn read_unlocked(caller: &Caller<'_>, reply: &Reply) -> Delegated {
    let status = reply.status.as_u16();
    let text = caller.text(reply);
    if status == 404 && reply.body.trim_ascii() == NO_SUCH_PATH {
        // Go's words and not Apple's: no code is to be blamed for an MDM that cannot make the call.
        let why = "nothing was sent to Apple: the MDM has no call to unlock at this address; look at the connection's address \
                   and path prefix, and at the MDM's version";
        return Delegated {
            outcome: Outcome::Credential,
            status: Some(status),
            delegate_failed: false,
            diagnostic: why.to_owned(),
        };
    }
    let is_own_error = status == 500 && serde_json::from_slice::<OwnError>(&reply.body).is_ok();
    Delegated {
        outcome: outcome(Response::Status {
            code: status,
            // Apple's headers are lost on the way.
            retry_after: false,
        }),
        status: Some(status),
        delegate_failed: is_own_error,
        diagnostic: match (status, is_own_error) {
            (401, _) => format!(
                "the MDM did not take our API key, or Apple not the MDM's certificate: {text}"
            ),
            (_, true) => format!("the MDM's own error: {text}"),
            _ => text,
        },
    }
}

/// Has the API refuse a command that is none, so that it looks at our key. Nothing changes.
async fn offer_nothing(caller: &Caller<'_>) -> Result<Reply, String> {
    let path = path(caller.connection, &["enqueue", NOBODY]);
    let reply = caller
        .call(Method::PUT, &path, Body::Plist(Vec::new()))
        .await
        .map_err(Failed::for_people)?;
    match caller.takes_nothing(&reply) {
        Some(why) => Err(why),
        None => Ok(reply),
    }
}

/// Whether commands may be brought again.
pub(super) async fn is_back(caller: &Caller<'_>) -> Result<(), String> {
    offer_nothing(caller).await.map(|_| ())
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

/// Asks for the version, which needs no key, and then whether the key is taken.
pub(super) async fn test(caller: &Caller<'_>) -> Result<String, String> {
    let mut version = match caller.connection.view.kind {
        ConnectionKind::NanoHub => Vec::new(),
        _ => prefix(caller.connection),
    };
    version.push("version");
    let reply = caller
        .call(Method::GET, &version, Body::Nothing)
        .await
        .map_err(Failed::for_people)?;
    let version = serde_json::from_slice::<Version>(&reply.body)
        .ok()
        .filter(|_| reply.status == StatusCode::OK)
        .map(|told| for_people(&told.version));

    let reply = offer_nothing(caller).await?;
    let refuses_the_command = serde_json::from_slice::<ApiResult>(&reply.body)
        .is_ok_and(|result| result.command_error.is_some());
    match version {
        _ if !refuses_the_command => Err(not_the_api(caller, &reply)),
        Some(version) => Ok(format!(
            "it answers with version {version} and takes the API key"
        )),
        None => Ok("it answers and takes the API key".to_owned()),
    }
}
