//! What requests bring and answers carry: path, query and body, each refused as a problem document.
//!
//! A body may hold a code, a key or a password. So nothing of it is repeated in a refusal, the buffer it is read from is
//! wiped, and so is the buffer of an answer that holds a secret.

use std::fmt;
use std::io::Write;
use std::str::FromStr;

use axum::RequestExt as _;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError};
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::App;
use crate::http::problem::Problem;

/// The most bytes of the variable part of a path: those of the longest name.
const LONGEST_PATH: usize = 4 * LONGEST_NAME;
/// The most characters of a name.
const LONGEST_NAME: usize = 200;

/// The one variable part of a path.
pub(crate) struct Path<T>(pub(crate) T);

impl<T> FromRequestParts<App> for Path<T>
where
    T: FromStr + Send,
    T::Err: fmt::Display,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let text = axum::extract::Path::<String>::from_request_parts(parts, app)
            .await
            .map_err(|_| Problem::bad_request("The address holds something that is no text."))?
            .0;
        // It may go on record as what somebody wanted.
        if text.len() > LONGEST_PATH || text.chars().any(misleads) {
            return Err(Problem::bad_request(
                "The address holds something that nothing here is called.",
            ));
        }
        parsed(&text).map(Self)
    }
}

/// A name of a person or a thing, which goes on record, on lists and to Apple: without space around it, not blank, at most 200
/// characters, and without those that mislead.
///
/// # Errors
/// When it is none. `what` begins the sentence: `The name`.
pub(crate) fn name<'a>(what: &str, text: &'a str) -> Result<&'a str, Problem> {
    let name = text.trim();
    if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(misleads) {
        return Err(Problem::bad_request(format!(
            "{what} is blank, longer than {LONGEST_NAME} characters, or holds control characters."
        )));
    }
    Ok(name)
}

/// Whether a character is not seen, and changes how what stands beside it is seen: a control character, or a change of the
/// direction of writing.
#[must_use]
pub fn misleads(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Reads a text as what it stands for; the errors of these types name no part of it.
pub(crate) fn parsed<T>(text: &str) -> Result<T, Problem>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| Problem::bad_request(sentence(&error.to_string())))
}

/// An error's words as a sentence.
pub(crate) fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    let first: String = letters
        .next()
        .map(|first| first.to_uppercase().collect())
        .unwrap_or_default();
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}

/// The query. `organisation` is taken out: every request may have it, and [`crate::auth::Caller`] reads it.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Problem> {
        let given = parts.uri.query().unwrap_or_default();
        let others =
            form_urlencoded::parse(given.as_bytes()).filter(|(name, _)| name != "organisation");
        let rest = form_urlencoded::Serializer::new(String::from("/?"))
            .extend_pairs(others)
            .finish();
        let unreadable = |words: &str| {
            let detail = match wanted(words) {
                Some(wanted) => format!("The query cannot be read: {wanted}."),
                None => "The query holds a parameter that is not known here, or a value that cannot be read.".to_owned(),
            };
            Problem::bad_request(detail).hint("/openapi.json lists the parameters of each request.")
        };
        let uri: Uri = rest.parse().map_err(|_| unreadable(""))?;
        axum::extract::Query::try_from_uri(&uri)
            .map(|query| Self(query.0))
            .map_err(|rejection| unreadable(&rejection.body_text()))
    }
}

/// The part of a serde message that comes from our own types and repeats nothing of what was sent.
fn wanted(message: &str) -> Option<String> {
    if let Some(at) = message.find("missing field `") {
        return Some(message[at..].to_owned());
    }
    let (_, wanted) = message.rsplit_once(", expected ")?;
    Some(format!("expected {wanted}"))
}

/// A body, read whole and not yet looked into, so that who asks can be checked first. Wiped when dropped.
pub(crate) struct Body {
    bytes: Zeroizing<Vec<u8>>,
    is_json: bool,
}

impl FromRequest<App> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let is_json = is_json(request.headers());
        let read = read(request.into_limited_body());
        let bytes = tokio::time::timeout(app.settings.client_timeout, read).await;
        Ok(Self {
            bytes: bytes.map_err(|_| Problem::too_slow())??,
            is_json,
        })
    }
}

async fn read(mut body: axum::body::Body) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let mut bytes = Zeroizing::new(Vec::new());
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                if let Some(data) = frame.data_ref() {
                    append(&mut bytes, data);
                }
            }
            Err(error) if is_too_large(&error) => return Err(Problem::too_large()),
            Err(_) => return Err(Problem::bad_request("The request broke off.")),
        }
    }
    Ok(bytes)
}

/// Grows without leaving an unwiped copy behind.
fn append(bytes: &mut Zeroizing<Vec<u8>>, more: &[u8]) {
    let needed = bytes.len() + more.len();
    if needed > bytes.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(2 * bytes.capacity())));
        larger.extend_from_slice(bytes);
        *bytes = larger;
    }
    bytes.extend_from_slice(more);
}

fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<LengthLimitError>() {
            return true;
        }
        next = error.source();
    }
    false
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

impl Body {
    /// One that says it is JSON.
    pub(crate) fn of_json(bytes: &[u8]) -> Self {
        Self {
            bytes: Zeroizing::new(bytes.to_owned()),
            is_json: true,
        }
    }

    /// The bytes, as they came.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The body as JSON of a known shape.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        if self.bytes.is_empty() {
            return Err(Problem::bad_request("The request has no body.")
                .hint("Send the JSON that /openapi.json describes for it."));
        }
        if !self.is_json {
            return Err(Problem::not_json());
        }
        serde_json::from_slice(&self.bytes).map_err(|error| unreadable(&error))
    }

    /// The same, where no body, or null, means that nothing is said.
    pub(crate) fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.bytes.is_empty() {
            return Ok(T::default());
        }
        self.json::<Option<T>>().map(Option::unwrap_or_default)
    }
}

/// Says where the fault is and what belongs there, and nothing of what stands there.
fn unreadable(error: &serde_json::Error) -> Problem {
    let at = format!("line {}, column {}", error.line(), error.column());
    let detail = if error.is_data() {
        let message = error.to_string();
        let message = message
            .rsplit_once(" at line ")
            .map_or(&*message, |(words, _)| words);
        match wanted(message) {
            Some(wanted) => {
                format!("The body is not of the form that this request takes, at {at}: {wanted}.")
            }
            None => format!("The body is not of the form that this request takes, at {at}."),
        }
    } else {
        format!("The body is not JSON: the fault is at {at}.")
    };
    Problem::bad_request(detail).hint("/openapi.json describes the body of each request.")
}

/// A text in a body that is nobody else's business: wiped when dropped, and never printed.
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    /// The text, still wiped when dropped.
    pub(crate) fn into_text(self) -> Zeroizing<String> {
        self.0
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret(Zeroizing::new(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Secret, E> {
                Ok(Secret(Zeroizing::new(text)))
            }
        }

        deserializer.deserialize_string(Text)
    }
}

/// An answer that holds a secret. It is written once, into a buffer of its exact size that is wiped once it was sent.
pub(crate) struct SecretJson<T>(pub(crate) StatusCode, pub(crate) T);

impl<T: Serialize> IntoResponse for SecretJson<T> {
    fn into_response(self) -> Response {
        let Self(status, answer) = self;
        match wiped_json(&answer) {
            Ok(bytes) => {
                let json = HeaderValue::from_static("application/json");
                (
                    status,
                    [(header::CONTENT_TYPE, json)],
                    Bytes::from_owner(bytes),
                )
                    .into_response()
            }
            Err(error) => {
                tracing::error!(kind = ?error.classify(), "an answer cannot be written");
                Problem::failed().into_response()
            }
        }
    }
}

fn wiped_json(answer: &impl Serialize) -> serde_json::Result<Zeroizing<Vec<u8>>> {
    struct Count(usize);

    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut size = Count(0);
    serde_json::to_writer(&mut size, answer)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(size.0));
    serde_json::to_writer(&mut *bytes, answer)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CODE: &str = "000H4-0R40M-30F2-0918-5HR3-8F17";

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "read for its errors")]
    struct Wish {
        code: Secret,
        number: Option<u32>,
    }

    fn detail(body: &str) -> String {
        let body = Body {
            bytes: Zeroizing::new(body.as_bytes().to_vec()),
            is_json: true,
        };
        let problem = body.json::<Wish>().err().expect("it is refused");
        serde_json::to_value(problem).unwrap()["detail"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn r23_a_refusal_repeats_nothing_of_the_body() {
        let bodies = [
            json!(CODE),
            json!([CODE]),
            json!({ "code": [CODE] }),
            json!({ "code": { "text": CODE } }),
            json!({ "code": CODE, "number": CODE }),
            json!({ "code": CODE, "number": format!("{CODE}, expected {CODE}") }),
            json!({ "code": CODE, CODE: 1 }),
            json!({ "kode": CODE }),
        ];
        for body in bodies {
            let text = body.to_string();
            assert!(!detail(&text).contains("0R40M"), "{body}");
            assert!(!detail(&text[..text.len() - 1]).contains("0R40M"), "{body}");
        }
    }

    #[test]
    fn a_refusal_says_where_the_fault_is_and_what_belongs_there() {
        assert_eq!(
            detail("{}"),
            "The body is not of the form that this request takes, at line 1, column 2: missing field `code`."
        );
        assert_eq!(
            detail(r#"{"code":"x","numbr":1}"#),
            "The body is not of the form that this request takes, at line 1, column 19: expected `code` or `number`."
        );
        assert_eq!(
            detail(r#"{"code":7}"#),
            "The body is not of the form that this request takes, at line 1, column 9: expected a string."
        );
        assert_eq!(
            detail("{"),
            "The body is not JSON: the fault is at line 1, column 1."
        );
    }

    #[test]
    fn a_secret_answer_fills_its_buffer_exactly() {
        let bytes = wiped_json(&json!({ "code": CODE, "note": "a \"quoted\" word" })).unwrap();
        assert_eq!(bytes.len(), bytes.capacity());
        assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
    }
}
