//! The lock status of one device (contract sheet 4.1 to 4.4).

use activation_lock::device::SerialNumber;
use activation_lock::lock::{AppleStatus, LockType};
use activation_lock::time::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{ANSWER_LIMIT, BusinessError, BusinessService, ErrorResponse, Reply, device_path};
use crate::redaction;
use crate::unverified::{INTERNAL_STATE_STATUS, LOCK_STATUS_PATH, PATH_ERROR};

/// The type of the answer's one resource.
const TYPE: &str = "activationLockStatus";
/// The most that is kept of attributes nobody described, in bytes of JSON text.
pub(crate) const UNDESCRIBED_LIMIT: usize = 2048;

/// What Apple said of a device's lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusAnswer {
    /// How the lock is, as far as Apple says.
    Known {
        /// The two parts that are described; either may be missing.
        status: AppleStatus,
        /// Attributes nobody described, as the text of a JSON object; for people, and never guessed at. Those that do not
        /// fit into 2,048 bytes together are left out.
        undescribed: Option<String>,
    },
    /// The organisation does not manage a device with this serial number (404).
    NotManaged,
    /// Apple's server failed over this device in the way it is said to when the lock is in a state that only Apple sees
    /// (unverified; it may also be a fault that passes). It does not say whether the device is locked, and it never means
    /// that it is not.
    InternalState {
        /// What Apple says in words, without any secret. May be empty.
        diagnostic: String,
    },
}

impl BusinessService {
    /// Asks for the lock status of a device: Apple's own word, one device a call. How soon it follows a change is not
    /// documented; see [`STATUS_LAGS`](activation_lock::lock::STATUS_LAGS).
    ///
    /// # Errors
    /// When Apple said nothing about the device, and why.
    pub async fn lock_status(
        &self,
        serial: &SerialNumber,
        now: Timestamp,
    ) -> Result<StatusAnswer, BusinessError> {
        let path = format!("{}{LOCK_STATUS_PATH}", device_path(serial));
        let reply = self.get(&path, None, ANSWER_LIMIT, now).await?;
        read(reply, serial)
    }
}

#[derive(Deserialize)]
struct Document {
    data: Resource,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(rename = "type")]
    kind: String,
    id: String,
    #[serde(default)]
    attributes: Option<Map<String, Value>>,
}

/// What an answer means. Total: every status and every body means something.
pub(crate) fn read(reply: Reply, serial: &SerialNumber) -> Result<StatusAnswer, BusinessError> {
    let response = match reply.status {
        200 => None,
        _ => ErrorResponse::read(&reply.body),
    };
    match (reply.status, response) {
        (200, _) => {
            let Document { data } = reply.json()?;
            let is_ours =
                data.kind == TYPE && data.id.parse().is_ok_and(|id: SerialNumber| id == *serial);
            if is_ours {
                Ok(known(data.attributes.unwrap_or_default()))
            } else {
                Err(reply.unexpected("the answer is not about the lock of this device"))
            }
        }
        // Apple's error, or none at all; a page of something else does not speak for the organisation, nor does an error
        // that says the service has no such question.
        (404, Some(response)) if !response.has_code(PATH_ERROR) => Ok(StatusAnswer::NotManaged),
        (404, None) if reply.body.is_empty() => Ok(StatusAnswer::NotManaged),
        (INTERNAL_STATE_STATUS, Some(_)) if reply.retry_after.is_none() => {
            Ok(StatusAnswer::InternalState {
                diagnostic: reply.diagnostic,
            })
        }
        _ => Err(reply.failure()),
    }
}

fn known(mut attributes: Map<String, Value>) -> StatusAnswer {
    let is_locked = attributes.get("isLocked").and_then(Value::as_bool);
    let lock_type = attributes
        .get("lockType")
        .and_then(Value::as_str)
        .map(|word| match LockType::from_text(word) {
            LockType::Other(word) => {
                LockType::Other(redaction::without_shapes(&redaction::readable(&word)))
            }
            described => described,
        });
    // A described name with a value of another kind is not described.
    if is_locked.is_some() {
        attributes.remove("isLocked");
    }
    if lock_type.is_some() {
        attributes.remove("lockType");
    }
    StatusAnswer::Known {
        status: AppleStatus {
            is_locked,
            lock_type,
        },
        undescribed: undescribed(attributes),
    }
}

/// What is left of the attributes, as text, without anything that has the look of a code.
fn undescribed(attributes: Map<String, Value>) -> Option<String> {
    let mut kept = Map::new();
    let mut room = UNDESCRIBED_LIMIT - "{}".len();
    for (name, value) in attributes {
        // The quoted name, a colon, the value, a comma.
        let length = Value::from(name.as_str()).to_string().len() + value.to_string().len() + 2;
        if !value.is_null() && length <= room {
            room -= length;
            kept.insert(name, value);
        }
    }
    (!kept.is_empty()).then(|| {
        let text = Value::Object(kept).to_string();
        redaction::without_shapes(&redaction::readable(&text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERIAL: &str = "SIMTEST00001";
    const INTERNAL: &str = r#"{"errors":[{"id":"1","status":"500","code":"UNEXPECTED_ERROR","title":"An unexpected error occurred."}]}"#;

    fn said(reply: Reply) -> Result<StatusAnswer, BusinessError> {
        read(reply, &SERIAL.parse().unwrap())
    }

    fn about(kind: &str, id: &str, attributes: &str) -> Reply {
        let body = format!(
            r#"{{"data":{{"type":"{kind}","id":"{id}"{attributes}}},"links":{{"self":"x"}}}}"#
        );
        Reply::of(200, &body)
    }

    /// What is understood and what is kept of these attributes.
    #[track_caller]
    fn attributes(text: &str) -> (Option<bool>, Option<LockType>, Option<String>) {
        let reply = about(TYPE, SERIAL, &format!(r#","attributes":{text}"#));
        match said(reply) {
            Ok(StatusAnswer::Known {
                status,
                undescribed,
            }) => (status.is_locked, status.lock_type, undescribed),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn t31_what_apple_says_is_taken_as_it_is_and_nothing_is_guessed() {
        for (text, is_locked, lock_type) in [
            (
                r#"{"isLocked":true,"lockType":"MDM"}"#,
                Some(true),
                Some(LockType::Mdm),
            ),
            (
                r#"{"isLocked":true,"lockType":"USER"}"#,
                Some(true),
                Some(LockType::User),
            ),
            (
                r#"{"isLocked":false,"lockType":"NONE"}"#,
                Some(false),
                Some(LockType::None),
            ),
            (r#"{"isLocked":true}"#, Some(true), None),
            (r#"{"lockType":"USER"}"#, None, Some(LockType::User)),
            ("{}", None, None),
            ("null", None, None),
            (r#"{"isLocked":null,"lockType":null}"#, None, None),
            (
                r#"{"isLocked":true,"lockType":"CARRIER"}"#,
                Some(true),
                Some(LockType::Other("CARRIER".to_owned())),
            ),
        ] {
            assert_eq!(attributes(text), (is_locked, lock_type, None), "{text}");
        }
        assert!(
            matches!(
                said(about(TYPE, SERIAL, "")),
                Ok(StatusAnswer::Known { .. })
            ),
            "without attributes"
        );
    }

    #[test]
    fn t31_what_is_not_described_is_kept_as_it_came() {
        let (is_locked, lock_type, kept) =
            attributes(r#"{"isLocked":"yes","lockType":7,"since":{"a":[1]},"none":null}"#);
        assert_eq!((is_locked, lock_type), (None, None));
        assert_eq!(
            kept.as_deref(),
            Some(r#"{"isLocked":"yes","lockType":7,"since":{"a":[1]}}"#)
        );
        let long = "x".repeat(3000);
        let (_, _, kept) = attributes(&format!(r#"{{"a":"{long}","b":1}}"#));
        assert_eq!(kept.as_deref(), Some(r#"{"b":1}"#));
        let many: Vec<String> = (0..500).map(|n| format!(r#""n{n}":{n}"#)).collect();
        let (_, _, kept) = attributes(&format!("{{{}}}", many.join(",")));
        let kept = kept.unwrap();
        assert!(kept.len() <= UNDESCRIBED_LIMIT && kept.len() > UNDESCRIBED_LIMIT - 20);
        assert!(serde_json::from_str::<Value>(&kept).is_ok());
        let (_, lock_type, _) = attributes(r#"{"lockType":"3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4"}"#);
        assert_eq!(lock_type, Some(LockType::Other("[code]".to_owned())));
        // A code would be worth more than the status.
        let (_, _, kept) = attributes(r#"{"bypass":"3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4"}"#);
        assert_eq!(kept.as_deref(), Some(r#"{"bypass":"[code]"}"#));
    }

    #[test]
    fn t31_an_answer_about_something_else_is_unexpected() {
        assert!(said(about(TYPE, "simtest00001", "")).is_ok());
        for reply in [
            about(TYPE, "SIMTEST00002", ""),
            about(TYPE, "", ""),
            about("orgDevices", SERIAL, ""),
            Reply::of(200, r#"{"data":[]}"#),
            Reply::of(200, "{}"),
            Reply::of(200, INTERNAL),
            Reply::of(204, ""),
        ] {
            let answer = said(reply);
            assert!(
                matches!(answer, Err(BusinessError::Unexpected { .. })),
                "{answer:?}"
            );
        }
    }

    #[test]
    fn t31_404_is_not_managed_only_where_apple_says_so() {
        let not_found = r#"{"errors":[{"status":"404","code":"NOT_FOUND"}]}"#;
        for body in [not_found, ""] {
            assert_eq!(said(Reply::of(404, body)), Ok(StatusAnswer::NotManaged));
        }
        let no_such_path = r#"{"errors":[{"status":"404","code":"PATH_ERROR"}]}"#;
        for body in [no_such_path, "<html>nginx</html>", "{}"] {
            let answer = said(Reply::of(404, body));
            assert!(
                matches!(answer, Err(BusinessError::Unexpected { status: 404, .. })),
                "{answer:?}"
            );
        }
    }

    #[test]
    fn t31_500_is_an_internal_state_only_with_an_error_of_apples_form() {
        assert_eq!(
            said(Reply::of(500, INTERNAL)),
            Ok(StatusAnswer::InternalState {
                diagnostic: "UNEXPECTED_ERROR: An unexpected error occurred.".to_owned()
            })
        );
        for reply in [
            Reply::of(500, ""),
            Reply::of(500, "<html>"),
            Reply::of(500, INTERNAL).with_retry_after(60),
            Reply::of(502, INTERNAL),
            Reply::of(503, INTERNAL),
        ] {
            let status = reply.status;
            let answer = said(reply);
            assert!(
                matches!(answer, Err(BusinessError::Unavailable { status: Some(told), .. }) if told == status),
                "{answer:?}"
            );
        }
    }
}
