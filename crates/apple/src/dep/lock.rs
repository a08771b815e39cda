//! The call that turns a lock on: `device/activationlock` (contract sheet 2a).
//!
//! One call has one [`LockAnswer`], which [`outcome`] reads. The hash of the code that opens the lock is always sent: without
//! it the lock would be tied to a person (R4, contract sheet 2.3).

use std::str::FromStr;
use std::time::Duration;

use activation_lock::bypass_code::EscrowKeyHash;
use activation_lock::device::SerialNumber;
use activation_lock::lock::{LockOutcome, Response, ResponseStatus, outcome};
use activation_lock::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::service::{Call, DepService, Reply, Told};
use crate::unverified::{BODY_LIMIT, ESCROW_KEY_IN_CAPITALS, LOCK_PATH, LOST_MESSAGE_LIMIT};

/// What a locked device shows: not empty, at most 500 characters, no control characters but line breaks.
///
/// Apple tells no limit (contract sheet 2.7); this one is ours, so that a text is refused before the call and not by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostMessage(String);

/// Why a text cannot be shown on a locked device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LostMessageError {
    /// Nothing in it.
    #[error("the message is empty; leave it out instead")]
    Empty,
    /// Too long.
    #[error(
        "the message has {0} characters; at most {LOST_MESSAGE_LIMIT} are sent, for it has to be read on a locked screen"
    )]
    TooLong(usize),
    /// A control character.
    #[error("the message holds a control character; write plain text")]
    Control,
}

impl LostMessage {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LostMessage {
    type Err = LostMessageError;

    /// White space around it is dropped.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let characters = text.chars().count();
        if text.is_empty() {
            Err(LostMessageError::Empty)
        } else if characters > LOST_MESSAGE_LIMIT {
            Err(LostMessageError::TooLong(characters))
        } else if text.chars().any(|c| c.is_control() && c != '\n') {
            Err(LostMessageError::Control)
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

/// How one lock call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockAnswer {
    /// What it means. HTTP 200 alone is no success (R20).
    pub outcome: LockOutcome,
    /// Apple's word about this device, when one came.
    pub response_status: Option<ResponseStatus>,
    /// The HTTP status: of the lock call, or of the session call where that decided. `None` when no answer came.
    pub status: Option<u16>,
    /// How long Apple asked us to wait.
    pub retry_after: Option<Duration>,
    /// What Apple, or the failure, says in words: for people, without the hash or any credential (R23). May be empty.
    pub diagnostic: String,
    /// Whether a byte of the lock call may have reached Apple. When not, nothing can have happened to the lock.
    pub may_have_reached_apple: bool,
}

impl DepService {
    /// Asks Apple once to lock the device with the code whose hash this is, which must be on record by then (R4). Where the
    /// session is refused, it is sent again with a new one: the first time nothing was done.
    ///
    /// `now` dates the signature of a new session, and a `Retry-After` that names a day. Once begun, the call may have an
    /// effect even if the future is dropped.
    pub async fn activate_lock(
        &self,
        serial: &SerialNumber,
        escrow_key: &EscrowKeyHash,
        lost_message: Option<&LostMessage>,
        now: Timestamp,
    ) -> LockAnswer {
        let hash = Zeroizing::new(match ESCROW_KEY_IN_CAPITALS {
            true => escrow_key.to_string(),
            false => escrow_key.to_string().to_lowercase(),
        });
        let call = Call {
            path: LOCK_PATH,
            body: Some(body(serial, &hash, lost_message)),
            limit: BODY_LIMIT,
            secrets: vec![hash, Zeroizing::new(STANDARD.encode(escrow_key.bytes()))],
        };
        match self.call(&call, now).await {
            Ok(reply) => answered(&reply, serial),
            Err(failure) => {
                let told = Told::from(failure);
                LockAnswer {
                    outcome: outcome(&told.response),
                    response_status: None,
                    status: told.status,
                    retry_after: told.retry_after,
                    diagnostic: told.diagnostic,
                    may_have_reached_apple: told.may_have_left,
                }
            }
        }
    }
}

/// Exactly these three, the last only where there is one (contract sheet 2.2).
fn body(
    serial: &SerialNumber,
    hash: &str,
    lost_message: Option<&LostMessage>,
) -> Zeroizing<Vec<u8>> {
    #[derive(Serialize)]
    struct Body<'a> {
        device: &'a str,
        escrow_key: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        lost_message: Option<&'a str>,
    }
    let body = Body {
        device: serial.as_str(),
        escrow_key: hash,
        lost_message: lost_message.map(LostMessage::as_str),
    };
    // Two bytes for each is the most that JSON makes of one here, so that no smaller copy is left behind in memory.
    let room = 256 + 2 * lost_message.map_or(0, |message| message.0.len());
    let mut json = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *json, &body).expect("three texts are JSON, and a Vec takes them");
    json
}

fn answered(reply: &Reply, serial: &SerialNumber) -> LockAnswer {
    let response_status = match reply.status {
        200 if !reply.is_cut => said(&reply.body, serial),
        _ => None,
    };
    // A word that nobody described is kept and shown: not so what it may repeat of the call.
    let response_status = response_status.map(|status| match status {
        ResponseStatus::Other(word) => ResponseStatus::Other(reply.word(&word)),
        described => described,
    });
    let response = match (&response_status, reply.status) {
        (Some(said), _) => Response::Answered(said.clone()),
        (None, 200) => Response::Unreadable,
        (None, _) => reply.response(),
    };
    LockAnswer {
        outcome: outcome(&response),
        response_status,
        status: Some(reply.status),
        retry_after: reply.retry_after,
        diagnostic: reply.diagnostic(),
        may_have_reached_apple: true,
    }
}

/// What the body says of this very device; none when it is about another one, or cannot be read.
fn said(body: &[u8], serial: &SerialNumber) -> Option<ResponseStatus> {
    #[derive(Deserialize)]
    struct Body {
        serial_number: String,
        response_status: String,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let theirs: SerialNumber = body.serial_number.parse().ok()?;
    (theirs == *serial).then(|| ResponseStatus::from_text(&body.response_status))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "6789C28A5A596746AF3E7E4D18FACB19C1161E4053CCCA02A3E65CE838938C0E";

    fn serial() -> SerialNumber {
        "DMPTEST00001".parse().unwrap()
    }

    #[test]
    fn t8_the_body_is_exactly_the_device_the_hash_and_the_message() {
        let plain = body(&serial(), HASH, None);
        let wanted = format!("{{\"device\":\"DMPTEST00001\",\"escrow_key\":\"{HASH}\"}}");
        assert!(*plain == wanted.into_bytes());
        let message: LostMessage = " Call \"us\"\n+44 20 ".parse().unwrap();
        let with = body(&serial(), HASH, Some(&message));
        assert!(with.ends_with(br#","lost_message":"Call \"us\"\n+44 20"}"#));
    }

    #[test]
    fn t8_a_message_is_refused_before_the_call_and_not_by_it() {
        let refused = |text: &str| text.parse::<LostMessage>().err();
        assert_eq!(refused(" \n"), Some(LostMessageError::Empty));
        assert_eq!(refused("a\u{7}b"), Some(LostMessageError::Control));
        assert_eq!(refused("a\r\nb"), Some(LostMessageError::Control));
        assert_eq!(refused(&"\u{e9}".repeat(500)), None);
        let long = refused(&"\u{e9}".repeat(501)).unwrap();
        assert_eq!(long, LostMessageError::TooLong(501));
        assert!(long.to_string().contains("at most 500"));
    }

    #[test]
    fn r20_an_answer_about_another_device_says_nothing() {
        let said = |body: &str| said(body.as_bytes(), &serial());
        let success = r#"{"serial_number":"DMPTEST00001","response_status":"SUCCESS"}"#;
        assert_eq!(said(success), Some(ResponseStatus::Success));
        let small = success.replace("DMP", "dmp").replace('}', ",\"new\":1}");
        assert_eq!(said(&small), Some(ResponseStatus::Success));
        let other = ResponseStatus::Other("SHINY".to_owned());
        assert_eq!(said(&success.replace("SUCCESS", "SHINY")), Some(other));
        for body in [
            success.replace("00001", "00002"),
            success.replace("serial_number", "serial"),
            success.replace("response_status", "status"),
            success.replace("\"SUCCESS\"", "200"),
            "SUCCESS".to_owned(),
            String::new(),
        ] {
            assert_eq!(said(&body), None, "{body}");
        }
    }
}
