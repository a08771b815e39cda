//! What devices say.
//!
//! A field of the wrong type, or one that does not parse, is left out; the rest of the message stands. Identifiers that no
//! device has (empty, long, with control characters) are left out too, and words for people are cleaned and cut.

use std::str::FromStr;

use activation_lock::codes::CodeText;
use activation_lock::device::CellularIdentity;
use activation_lock::observation::{
    Authenticate, CommandReport, DeviceInformation, ErrorLink, ReportStatus, ReportedCode,
    SecurityInfo, TokenUpdate,
};

use super::plist::{self, Dictionary, Value};
use super::{Answer, Channel, CheckIn, CheckInMessage, PlistError};
use crate::redaction;

/// The longest identifier that is taken, in bytes. UDIDs have 40, topics 60.
const LONGEST_IDENTIFIER: usize = 255;
/// The most of a name that is kept, in characters.
const LONGEST_NAME: usize = 255;
/// The most of an error's domain that is kept, in characters.
const LONGEST_DOMAIN: usize = 200;
/// The most of an error's description that is kept, in characters.
const LONGEST_DESCRIPTION: usize = 500;
/// The most links of error chains that are kept of a report.
const MOST_LINKS: usize = 16;

const SLOT_ONE: &str = "CTSubscriptionSlotOne";
const SLOT_TWO: &str = "CTSubscriptionSlotTwo";

/// Reads a check-in message.
///
/// # Errors
/// When it is no plist within the limits, or no dictionary with a `MessageType`.
pub fn check_in(bytes: &[u8]) -> Result<CheckIn, PlistError> {
    let said = plist::read(bytes)?;
    let kind = said
        .text("MessageType")
        .ok_or(PlistError::NoMessage("it has no MessageType"))?;
    let message = match kind {
        "Authenticate" => CheckInMessage::Authenticate(Authenticate {
            serial: parsed(&said, "SerialNumber"),
            udid: identifier(&said, "UDID"),
            product_type: parsed(&said, "ProductName"),
            model_name: name(&said, "ModelName"),
            os_version: name(&said, "OSVersion"),
            topic: identifier(&said, "Topic"),
            cellular: top_level_cellular(&said),
        }),
        "TokenUpdate" => CheckInMessage::TokenUpdate(TokenUpdate {
            udid: identifier(&said, "UDID"),
            topic: identifier(&said, "Topic"),
            awaiting_configuration: said.boolean("AwaitingConfiguration"),
            tally: None,
        }),
        "CheckOut" => CheckInMessage::CheckOut,
        _ => CheckInMessage::Other,
    };
    Ok(CheckIn {
        channel: channel(&said),
        message,
    })
}

/// Reads a device's answer to a command, or its poll for work.
///
/// # Errors
/// When it is no plist within the limits, or no dictionary with a `Status` that is known.
pub fn answer(bytes: &[u8]) -> Result<Answer, PlistError> {
    let mut said = plist::read(bytes)?;
    let status = match said.text("Status") {
        Some("Idle") => None,
        Some("Acknowledged") => Some(ReportStatus::Acknowledged),
        Some("Error") => Some(ReportStatus::Error),
        Some("CommandFormatError") => Some(ReportStatus::CommandFormatError),
        Some("NotNow") => Some(ReportStatus::NotNow),
        Some(_) => return Err(PlistError::NoMessage("its Status is not a known one")),
        None => return Err(PlistError::NoMessage("it has no Status")),
    };
    Ok(Answer {
        channel: channel(&said),
        report: status.map(|status| report(&mut said, status)),
    })
}

fn report(said: &mut Dictionary, status: ReportStatus) -> CommandReport {
    let mut errors = Vec::new();
    add_links(&mut errors, said);
    CommandReport {
        command: identifier(said, "CommandUUID"),
        status,
        errors,
        bypass_code: bypass_code(said),
        device_information: said
            .dictionary("QueryResponses")
            .map(|told| Box::new(device_information(told))),
        security_info: said.dictionary("SecurityInfo").map(security_info),
        failed_settings: said.get("Settings").and_then(failed_settings),
    }
}

fn channel(said: &Dictionary) -> Channel {
    Channel {
        udid: identifier(said, "UDID"),
        enrollment_id: identifier(said, "EnrollmentID"),
        user_id: identifier(said, "UserID").or_else(|| identifier(said, "EnrollmentUserID")),
        user_short_name: name(said, "UserShortName"),
    }
}

/// The text moves on without being copied, byte for byte (R3).
fn bypass_code(said: &mut Dictionary) -> ReportedCode {
    match said.take("ActivationLockBypassCode") {
        Some(Value::Text(mut text)) => match CodeText::new(std::mem::take(&mut *text)) {
            Some(code) => ReportedCode::Code(code),
            None => ReportedCode::Empty,
        },
        _ => ReportedCode::Absent,
    }
}

fn device_information(told: &Dictionary) -> DeviceInformation {
    DeviceInformation {
        serial: parsed(told, "SerialNumber"),
        udid: identifier(told, "UDID"),
        product_type: parsed(told, "ProductName"),
        model_name: name(told, "ModelName"),
        device_name: name(told, "DeviceName"),
        os_version: name(told, "OSVersion"),
        supervised: told.boolean("IsSupervised"),
        multi_user: told.boolean("IsMultiUser"),
        activation_lock_supported: told.boolean("IsActivationLockSupported"),
        activation_lock_hint: told.boolean("IsActivationLockEnabled"),
        find_my: told.boolean("IsDeviceLocatorServiceEnabled"),
        awaiting_configuration: told.boolean("AwaitingConfiguration"),
        lock_allowed: told
            .dictionary("MDMOptions")
            .and_then(|options| options.boolean("ActivationLockAllowedWhileSupervised")),
        slots: told.array("ServiceSubscriptions").map(slots),
        cellular: top_level_cellular(told),
    }
}

/// Slots are found by name, never by position; an entry without a name says nothing (R18, contract sheet 1.6). The MEID of
/// slot two is not used.
fn slots(entries: &[Value]) -> CellularIdentity {
    let slot = |wanted: &str| {
        entries
            .iter()
            .filter_map(Value::as_dictionary)
            .find(|entry| entry.text("Slot") == Some(wanted))
    };
    let (one, two) = (slot(SLOT_ONE), slot(SLOT_TWO));
    CellularIdentity {
        imei: one.and_then(|entry| parsed(entry, "IMEI")),
        imei2: two.and_then(|entry| parsed(entry, "IMEI")),
        meid: one.and_then(|entry| parsed(entry, "MEID")),
    }
}

fn top_level_cellular(said: &Dictionary) -> CellularIdentity {
    CellularIdentity {
        imei: parsed(said, "IMEI"),
        imei2: None,
        meid: parsed(said, "MEID"),
    }
}

/// The keys stand in `ManagementStatus`; where they stand beside it they count as well.
fn security_info(told: &Dictionary) -> SecurityInfo {
    let management = told.dictionary("ManagementStatus");
    let truth = |key: &str| {
        management
            .and_then(|status| status.boolean(key))
            .or_else(|| told.boolean(key))
    };
    SecurityInfo {
        activation_lock_manageable: truth("IsActivationLockManageable"),
        enrolled_via_dep: truth("EnrolledViaDEP"),
        user_enrollment: truth("IsUserEnrollment"),
    }
}

/// The failed items of `Settings`, which is a list of results, one result, or results by name (contract sheet 3.22).
fn failed_settings(settings: &Value) -> Option<Vec<ErrorLink>> {
    let mut failed = Vec::new();
    match settings {
        Value::Array(items) => {
            for item in items.iter().filter_map(Value::as_dictionary) {
                add_failure(&mut failed, item);
            }
        }
        Value::Dictionary(one) => {
            add_failure(&mut failed, one);
            for item in one.values().filter_map(Value::as_dictionary) {
                add_failure(&mut failed, item);
            }
        }
        _ => return None,
    }
    Some(failed)
}

fn add_failure(failed: &mut Vec<ErrorLink>, item: &Dictionary) {
    let before = failed.len();
    add_links(failed, item);
    let status = item.text("Status");
    let is_failure = item.get("Status").is_some() && status != Some("Acknowledged");
    if is_failure && failed.len() == before && before < MOST_LINKS {
        let status = status.unwrap_or("that is not readable");
        let description = format!("the item has the status {status}, without a reason");
        failed.push(ErrorLink {
            code: 0,
            domain: "Settings".to_owned(),
            description: for_people(&description, LONGEST_DESCRIPTION),
        });
    }
}

/// Adds the links of an `ErrorChain` (contract sheet 3.9), until there are [`MOST_LINKS`].
fn add_links(links: &mut Vec<ErrorLink>, said: &Dictionary) {
    let chain = said.array("ErrorChain").unwrap_or_default();
    let room = MOST_LINKS - links.len().min(MOST_LINKS);
    let found = chain.iter().filter_map(Value::as_dictionary).map(|link| {
        let description = ["USEnglishDescription", "LocalizedDescription"]
            .into_iter()
            .find_map(|key| link.text(key).filter(|text| !text.trim().is_empty()));
        ErrorLink {
            code: link.integer("ErrorCode").unwrap_or_default(),
            domain: for_people(link.text("ErrorDomain").unwrap_or_default(), LONGEST_DOMAIN),
            description: for_people(description.unwrap_or_default(), LONGEST_DESCRIPTION),
        }
    });
    links.extend(found.take(room));
}

/// A value that is read by its own rules; `None` when it breaks them.
fn parsed<T: FromStr>(said: &Dictionary, key: &str) -> Option<T> {
    said.text(key)?.parse().ok()
}

/// A text that is compared and looked up: taken whole or not at all.
fn identifier(said: &Dictionary, key: &str) -> Option<String> {
    let text = said.text(key)?.trim();
    let fits =
        !text.is_empty() && text.len() <= LONGEST_IDENTIFIER && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

/// A text that is shown.
fn name(said: &Dictionary, key: &str) -> Option<String> {
    let text = for_people(said.text(key)?, LONGEST_NAME);
    (!text.is_empty()).then_some(text)
}

/// Without control characters and without anything that looks like a code (R23), cut to so many characters.
fn for_people(text: &str, most: usize) -> String {
    let start = match text.char_indices().nth(most.saturating_mul(2)) {
        Some((end, _)) => &text[..end],
        None => text,
    };
    let clean = redaction::without_shapes(&redaction::readable(start));
    let clean = clean.trim();
    match clean.char_indices().nth(most) {
        Some((end, _)) => clean[..end].to_owned(),
        None => clean.to_owned(),
    }
}
