//! What the fakes of Apple's services answer: the truth, or what a fault makes of it.

use axum::body::Body;
use http::{
    HeaderName, Response, StatusCode,
    header::{LOCATION, RETRY_AFTER},
};
use serde::Serialize;

use crate::{
    fault::{Act, Fault, OddBody},
    listener::{Connection, Hangup},
};

/// The size of [`Fault::huge_body`], in bytes.
const HUGE: usize = 5 * 1024 * 1024;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answered {
    /// Nothing yet: it is held back.
    Pending,
    /// This status.
    Status(u16),
    /// Bytes that are no HTTP.
    Garbage,
    /// The connection was closed without an answer.
    HungUp,
}

/// The answer when nothing goes wrong.
pub(crate) struct Truth {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(HeaderName, String)>,
    pub(crate) body: Vec<u8>,
}

impl Fault {
    /// What goes out instead of the truth. `secret` is what a careless server may repeat; `words` is the body of a status
    /// that a fault was given without one.
    pub(crate) fn answer(
        self,
        truth: Truth,
        secret: &str,
        words: impl FnOnce(u16) -> Vec<u8>,
        connection: &Connection,
    ) -> (Answered, Result<Response<Body>, Hangup>) {
        let Truth {
            mut status,
            mut headers,
            body,
        } = truth;
        let body = match self.act {
            Act::Truth => body,
            Act::Body(OddBody::Empty) => Vec::new(),
            Act::Body(OddBody::Xml) => xml(status),
            Act::Body(OddBody::Huge) => vec![b'x'; HUGE],
            Act::Status {
                status: told,
                retry_after,
                location,
                body,
            } => {
                status = told;
                headers.extend(retry_after.map(|value| (RETRY_AFTER, value)));
                headers.extend(location.map(|url| (LOCATION, url)));
                body.unwrap_or_else(|| words(told))
            }
            Act::Echo(told) => {
                status = told;
                echo(secret)
            }
            Act::HangUp => return (Answered::HungUp, Err(Hangup)),
            Act::Garbage => {
                connection.write_instead(b"\x16\x03 this is no HTTP at all\r\n\r\n\0\0\0");
                return (Answered::Garbage, Ok(Response::new(Body::empty())));
            }
        };
        let mut answer = Response::builder()
            .status(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        for (name, value) in headers {
            answer = answer.header(name, value);
        }
        let answer = answer.body(Body::from(body)).map_err(|_| Hangup);
        (Answered::Status(status), answer)
    }
}

/// The body of a status that a fault was given without one.
pub(crate) fn told(status: u16) -> Vec<u8> {
    format!("the fake was told to answer {status}").into_bytes()
}

fn xml(status: u16) -> Vec<u8> {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response version=\"1\"><code>{status}</code><message>from the fake</message></Response>\n"
    )
    .into_bytes()
}

/// The secret, in the encodings a careless server may repeat it in.
fn echo(secret: &str) -> Vec<u8> {
    use base64::Engine;
    let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let bare = secret.replace('-', "");
    let base64 = base64::engine::general_purpose::STANDARD.encode(secret);
    let hex = data_encoding::HEXLOWER.encode(secret.as_bytes());
    let json = serde_json::Value::from(secret);
    let upper = secret.to_ascii_uppercase();
    let other_case = match upper == secret {
        true => secret.to_ascii_lowercase(),
        false => upper,
    };
    format!("escrowKey={form}&plain={secret}&bare={bare}&other={other_case}&base64={base64}&hex={hex}&json={json}").into_bytes()
}
