//! How strictly a request of the enrolment service is read. Contract sheet 2.1 to 2.4 and 2.20 to 2.25.

use http::{
    HeaderMap, HeaderName, Method, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use super::oauth::{self, Signed};
use crate::code::{CodeHash, fingerprint};

/// The session's header, in requests and answers.
pub(super) const SESSION: HeaderName = HeaderName::from_static("x-adm-auth-session");
/// The header of the protocol's version.
pub(super) const PROTOCOL: HeaderName = HeaderName::from_static("x-server-protocol-version");
/// The content type of requests and answers, as Apple writes it.
pub(super) const JSON: &str = "application/json;charset=UTF8";

/// Why a request is refused: what the client is told, and why, which only the journal is told.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) body: &'static str,
    pub(super) why: String,
}

pub(super) fn refusal(status: u16, body: &'static str, why: impl Into<String>) -> Refusal {
    Refusal {
        status,
        body,
        why: why.into(),
    }
}

fn malformed(why: impl Into<String>) -> Refusal {
    refusal(400, "MALFORMED_REQUEST_BODY", why)
}

/// What is called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Session,
    Account,
    Fetch,
    Sync,
    Details,
    Lock,
}

impl Call {
    fn of(method: &Method, path: &str) -> Result<Self, Refusal> {
        let (only, call) = match path {
            "/session" => (Method::GET, Self::Session),
            "/account" => (Method::GET, Self::Account),
            "/server/devices" => (Method::POST, Self::Fetch),
            "/devices/sync" => (Method::POST, Self::Sync),
            "/devices" => (Method::POST, Self::Details),
            "/device/activationlock" => (Method::POST, Self::Lock),
            _ => return Err(refusal(404, "NOT_FOUND", "no such path")),
        };
        if *method == only {
            Ok(call)
        } else {
            let why = format!("{path} takes {only} alone");
            Err(refusal(405, "METHOD_NOT_ALLOWED", why))
        }
    }
}

/// A request whose headers are as they must be. Whether the caller may call is looked at before the body is.
pub(super) struct Checked {
    pub(super) call: Call,
    /// Of a call that is not `/session`.
    pub(super) session: Option<String>,
    /// Of such a call: 1 or more.
    pub(super) protocol: u32,
    /// Of `/session`.
    pub(super) signed: Option<(Signed, String)>,
    pub(super) body: Vec<u8>,
}

/// What of a request may be written down, whether it is well formed or not.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) serial: Option<String>,
    pub(super) lost_message: Option<String>,
    pub(super) escrow_key: Option<String>,
    pub(super) protocol_version: Option<String>,
    pub(super) user_agent: Option<String>,
}

impl Seen {
    pub(super) fn of(path: &str, headers: &HeaderMap, body: &[u8]) -> Self {
        let header = |name| text(headers, name).ok().flatten();
        let body: Value = match path {
            "/device/activationlock" => serde_json::from_slice(body).unwrap_or_default(),
            _ => Value::Null,
        };
        let field = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
        Self {
            serial: field("device"),
            lost_message: field("lost_message"),
            escrow_key: field("escrow_key"),
            protocol_version: header(PROTOCOL),
            user_agent: header(USER_AGENT),
        }
    }

    /// What a careless server may repeat: the hash, the session, or the signature.
    pub(super) fn secret(self, headers: &HeaderMap) -> String {
        let header = |name| text(headers, name).ok().flatten();
        self.escrow_key
            .or_else(|| header(SESSION))
            .or_else(|| header(AUTHORIZATION))
            .unwrap_or_default()
    }

    pub(super) fn fingerprint(&self) -> Option<String> {
        self.escrow_key.as_deref().map(fingerprint)
    }
}

/// How strictly, where Apple's service and its simulator differ.
#[derive(Clone, Copy)]
pub(super) struct Strictness {
    pub(super) content_type_on_session: bool,
}

/// Reads everything but the body.
pub(super) fn check(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: Vec<u8>,
    strictness: Strictness,
) -> Result<Checked, Refusal> {
    let call = Call::of(method, uri.path())?;
    user_agent(headers)?;
    if call != Call::Session || strictness.content_type_on_session {
        content_type(headers)?;
    }
    accept(headers)?;
    if uri.query().is_some() {
        return Err(malformed("no call takes a query"));
    }
    let mut checked = Checked {
        call,
        session: None,
        protocol: 1,
        signed: None,
        body,
    };
    if call == Call::Session {
        checked.signed = Some(signed(uri, headers)?);
    } else {
        let session = text(headers, SESSION).map_err(|why| refusal(401, "UNAUTHORIZED", why))?;
        let why = "the X-ADM-Auth-Session is missing";
        checked.session = Some(session.ok_or_else(|| refusal(401, "UNAUTHORIZED", why))?);
        checked.protocol = protocol(headers)?;
    }
    if *method == Method::GET && !checked.body.is_empty() {
        return Err(malformed("a GET has no body"));
    }
    Ok(checked)
}

/// The one value of a header; none when it is missing.
fn text(headers: &HeaderMap, name: HeaderName) -> Result<Option<String>, String> {
    let mut values = headers.get_all(&name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(format!("{name} is given twice"));
    }
    let value = value
        .to_str()
        .map_err(|_| format!("{name} is not plain text"))?;
    Ok(Some(value.to_owned()))
}

fn user_agent(headers: &HeaderMap) -> Result<(), Refusal> {
    let invalid = |why: &str| refusal(400, "USER_AGENT_INVALID", why);
    let given = text(headers, USER_AGENT).map_err(|why| invalid(&why))?;
    let Some(given) = given else {
        let why = "the User-Agent is missing";
        return Err(refusal(400, "USER_AGENT_MISSING", why));
    };
    // A product and perhaps its version (RFC 9110 10.1.5): `lockwarden/1.0`, and what follows a space.
    let product = given.split([' ', '/']).next().unwrap_or_default();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if product.is_empty() || !product.bytes().all(fits) {
        return Err(invalid("the User-Agent does not begin with a product"));
    }
    Ok(())
}

/// `application/json;charset=UTF8`, in either case, and with or without a space.
fn is_json(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    value
        .strip_prefix("application/json;")
        .is_some_and(|rest| matches!(rest, "charset=utf8" | " charset=utf8"))
}

fn content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let given = text(headers, CONTENT_TYPE).ok().flatten();
    if given.as_deref().is_some_and(is_json) {
        return Ok(());
    }
    let why = format!("the Content-Type must be {JSON}, also where there is no body");
    Err(refusal(415, "UNSUPPORTED_MEDIA_TYPE", why))
}

fn accept(headers: &HeaderMap) -> Result<(), Refusal> {
    match text(headers, ACCEPT) {
        Ok(None) => Ok(()),
        Ok(Some(given)) if is_json(&given) || given == "application/json" || given == "*/*" => {
            Ok(())
        }
        _ => {
            let why = format!("Accept must be {JSON}, or missing");
            Err(refusal(406, "NOT_ACCEPTABLE", why))
        }
    }
}

fn protocol(headers: &HeaderMap) -> Result<u32, Refusal> {
    text(headers, PROTOCOL)
        .ok()
        .flatten()
        .filter(|given| given.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|given| given.parse().ok())
        .filter(|version| *version > 0)
        .ok_or_else(|| {
            let why = "X-Server-Protocol-Version is missing or no number";
            refusal(400, "PROTOCOL_VERSION_INVALID", why)
        })
}

/// The signature, and the URL it is of.
fn signed(uri: &Uri, headers: &HeaderMap) -> Result<(Signed, String), Refusal> {
    let bad = |why: String| refusal(400, "BAD_REQUEST", why);
    let header = text(headers, AUTHORIZATION)
        .map_err(bad)?
        .ok_or_else(|| bad("the Authorization header is missing".to_owned()))?;
    let host = text(headers, HOST)
        .map_err(bad)?
        .ok_or_else(|| bad("the Host header is missing".to_owned()))?;
    let signed = Signed::read(&header).map_err(bad)?;
    Ok((signed, oauth::base_url("https", &host, uri.path())))
}

/// Reads a JSON body that holds exactly what it may.
fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    // serde would take the values alone, as a list, for an object.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(malformed("the body is no JSON object"));
    }
    // serde_json's words would repeat what is wrong, which may be a secret.
    serde_json::from_slice(body).map_err(|error| {
        malformed(format!(
            "the body is not what this call takes: {:?} in line {}, column {}",
            error.classify(),
            error.line(),
            error.column()
        ))
    })
}

/// A key that may be left out, but not be null.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// The body of a fetch or a synchronisation.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageBody {
    #[serde(default, deserialize_with = "present")]
    pub(super) cursor: Option<String>,
    #[serde(default, deserialize_with = "present")]
    pub(super) limit: Option<u32>,
}

impl PageBody {
    pub(super) fn read(body: &[u8]) -> Result<Self, Refusal> {
        let body: Self = json(body)?;
        match body.limit {
            Some(0) => Err(malformed("limit is 0")),
            _ => Ok(body),
        }
    }
}

/// The serial numbers of whose details are asked.
pub(super) fn details(body: &[u8]) -> Result<Vec<String>, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        devices: Vec<String>,
    }
    Ok(json::<Body>(body)?.devices)
}

/// A lock call that is well formed.
pub(super) struct LockBody {
    pub(super) device: String,
    /// None: the lock is tied to a person (contract sheet 2.3).
    pub(super) escrow_key: Option<CodeHash>,
}

impl LockBody {
    pub(super) fn read(body: &[u8]) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            device: String,
            #[serde(default, deserialize_with = "present")]
            escrow_key: Option<String>,
            #[serde(default, rename = "lost_message", deserialize_with = "present")]
            _lost_message: Option<String>,
        }
        let Body {
            device, escrow_key, ..
        } = json(body)?;
        if device.is_empty() || !device.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(malformed("device must be one serial number"));
        }
        let escrow_key = match escrow_key {
            None => None,
            Some(hex) => Some(
                CodeHash::parse(&hex)
                    .ok_or_else(|| malformed("escrow_key is not 64 hexadecimal digits"))?,
            ),
        };
        Ok(Self { device, escrow_key })
    }
}
