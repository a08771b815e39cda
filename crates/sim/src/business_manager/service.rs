//! What the API answers when nothing goes wrong. Contract sheet section 4.

use std::{collections::BTreeMap, sync::MutexGuard};

use bytes::Bytes;
use http::{
    HeaderName, Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST},
    request::Parts,
};
use serde_json::{Map, Value, json};

use super::{
    Shared, State, StatusAnswer, TOKEN_PATH,
    assertion::{Assertion, Demands},
    devices,
};
use crate::{LockKind, answer::Truth, code::fingerprint, form};

const DEVICES: &str = "/v1/orgDevices";
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A request that has arrived.
pub(super) struct Received {
    pub(super) parts: Parts,
    pub(super) body: Bytes,
}

impl Received {
    /// What a careless server may repeat: the access token, or the assertion.
    pub(super) fn secret(&self) -> String {
        let assertion = || {
            let form = form_urlencoded::parse(&self.body);
            form.into_iter()
                .find(|(key, _)| key == "client_assertion")
                .map(|(_, value)| value.into_owned())
        };
        self.header(AUTHORIZATION)
            .and_then(|value| value.split(' ').nth(1).map(str::to_owned))
            .or_else(assertion)
            .unwrap_or_default()
    }

    /// Where the client found this service.
    fn url(&self) -> String {
        format!("https://{}", self.header(HOST).unwrap_or("localhost"))
    }

    fn header(&self, name: HeaderName) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }
}

/// The true answer, and what the journal is told of it.
pub(super) struct Judged {
    pub(super) truth: Truth,
    pub(super) noted: Noted,
}

/// What the journal is told.
#[derive(Default)]
pub(super) struct Noted {
    pub(super) client_id: Option<String>,
    pub(super) key_id: Option<String>,
    pub(super) token_number: Option<u64>,
    pub(super) error: Option<String>,
    pub(super) note: String,
}

/// An answer that is no 200.
struct Refusal {
    status: u16,
    code: &'static str,
    why: String,
}

fn refusal(status: u16, code: &'static str, why: impl Into<String>) -> Refusal {
    Refusal {
        status,
        code,
        why: why.into(),
    }
}

/// What a path of the API names.
enum Named {
    Devices,
    Device(String),
    LockStatus(String),
}

fn named(path: &str) -> Option<Named> {
    let rest = path.strip_prefix(DEVICES)?;
    if rest.is_empty() {
        return Some(Named::Devices);
    }
    let rest = rest.strip_prefix('/')?;
    let (serial, lock_status) = match rest.strip_suffix("/activationLockStatus") {
        Some(serial) => (serial, true),
        None => (rest, false),
    };
    if serial.is_empty() || !serial.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    Some(match lock_status {
        true => Named::LockStatus(serial.to_owned()),
        false => Named::Device(serial.to_owned()),
    })
}

/// The serial number in a path.
pub(super) fn serial_in(path: &str) -> Option<String> {
    match named(path)? {
        Named::Devices => None,
        Named::Device(serial) | Named::LockStatus(serial) => Some(serial),
    }
}

/// Answers the request. What it changes is changed when `commit` says so.
pub(super) fn judge(shared: &Shared, received: &Received, commit: bool) -> Judged {
    let mut judge = Judge {
        shared,
        state: shared.state(),
        received,
        commit,
        noted: Noted::default(),
    };
    let is_token = received.parts.uri.path() == TOKEN_PATH;
    let answer = match is_token {
        true => judge.token(),
        false => judge.api(),
    };
    let (status, body) = match answer {
        Ok(body) => (200, body),
        Err(Refusal { status, code, why }) => {
            let body = match is_token {
                true => json!({ "error": code }),
                false => errors(status, code, judge.noted_id()),
            };
            judge.noted.error = Some(code.to_owned());
            judge.noted.note = why;
            (status, body)
        }
    };
    Judged {
        truth: Truth {
            status,
            headers: vec![(CONTENT_TYPE, "application/json".to_owned())],
            body: body.to_string().into_bytes(),
        },
        noted: judge.noted,
    }
}

/// The body of a status that a fault was given without one.
pub(super) fn told(path: &str, number: u64, status: u16) -> Vec<u8> {
    let body = match path {
        TOKEN_PATH if status < 500 => json!({ "error": "invalid_request" }),
        TOKEN_PATH => json!({ "error": "server_error" }),
        _ => errors(status, code_of(status), number),
    };
    body.to_string().into_bytes()
}

fn code_of(status: u16) -> &'static str {
    match status {
        400 => "PARAMETER_ERROR.INVALID",
        401 => "NOT_AUTHORIZED",
        403 => "FORBIDDEN",
        404 => "NOT_FOUND",
        406 => "NOT_ACCEPTABLE",
        429 => "RATE_LIMIT_EXCEEDED",
        503 => "SERVICE_UNAVAILABLE",
        _ => "UNEXPECTED_ERROR",
    }
}

/// An `ErrorResponse`.
fn errors(status: u16, code: &str, id: u64) -> Value {
    let title = match status {
        400 => "A parameter has an invalid value",
        401 => "Authentication credentials are missing or invalid",
        403 => "This request is forbidden",
        404 => "The specified resource does not exist",
        405 => "The method is not allowed for the specified resource",
        406 => "The requested media type is not available",
        429 => "The rate limit was exceeded",
        _ => "An unexpected error occurred on the server side",
    };
    json!({
        "errors": [{
            "id": format!("51135113-0000-4000-8000-{id:012}"),
            "status": status.to_string(),
            "code": code,
            "title": title,
            "detail": format!("{title}."),
        }],
    })
}

struct Judge<'a> {
    shared: &'a Shared,
    state: MutexGuard<'a, State>,
    received: &'a Received,
    commit: bool,
    noted: Noted,
}

impl Judge<'_> {
    fn noted_id(&self) -> u64 {
        self.shared.calls.count()
    }

    /// Gives an access token for a good assertion.
    fn token(&mut self) -> Result<Value, Refusal> {
        let invalid = |why: String| refusal(400, "invalid_request", why);
        let parts = &self.received.parts;
        if parts.method != Method::POST {
            return Err(refusal(405, "invalid_request", "only POST is served"));
        }
        if parts.uri.query().is_some() {
            return Err(invalid("the token endpoint takes no query".to_owned()));
        }
        if !form::is_form(&parts.headers) {
            let why = "the content type must be application/x-www-form-urlencoded";
            return Err(invalid(why.to_owned()));
        }
        let known = [
            "grant_type",
            "client_id",
            "client_assertion_type",
            "client_assertion",
            "scope",
        ];
        let mut form = form::pairs(&self.received.body, "body")
            .and_then(|pairs| form::only(pairs, "body", &known))
            .map_err(invalid)?;
        let mut taken = |key: &str| {
            form.remove(key)
                .ok_or_else(|| invalid(format!("{key} is missing from the body")))
        };
        if taken("grant_type")? != "client_credentials" {
            let why = "grant_type is not client_credentials";
            return Err(refusal(400, "unsupported_grant_type", why));
        }
        if taken("client_assertion_type")? != JWT_BEARER {
            return Err(invalid(format!(
                "client_assertion_type is not {JWT_BEARER}"
            )));
        }
        let client_id = taken("client_id")?;
        let text = taken("client_assertion")?;
        let scope = taken("scope")?;
        self.noted.client_id = Some(client_id.clone());
        let account = self.signer(&client_id, &text)?;
        if scope != self.state.accounts[account].kind.scope() {
            let why = "the scope is not that of the client";
            return Err(refusal(400, "invalid_scope", why));
        }
        if !self.commit {
            return Ok(json!({}));
        }
        let (number, token) = self.state.give_token(account, self.shared.now.get());
        self.noted.token_number = Some(number);
        Ok(json!({
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": self.state.token_lifetime.whole_seconds(),
            "scope": scope,
        }))
    }

    /// The account that this assertion proves.
    fn signer(&mut self, client_id: &str, text: &str) -> Result<usize, Refusal> {
        let invalid = |why: String| refusal(400, "invalid_client", why);
        let assertion = Assertion::read(text).map_err(invalid)?;
        self.noted.key_id = Some(assertion.key_id().to_owned());
        let now = self.shared.now.get().unix_timestamp();
        let skew = self.state.clock_skew.whole_seconds();
        let once = self.state.one_time_assertions;
        let index = self
            .state
            .accounts
            .iter()
            .position(|account| account.client_id == client_id)
            .ok_or_else(|| invalid("the client is unknown".to_owned()))?;
        let account = &mut self.state.accounts[index];
        let demands = Demands {
            client_id,
            key_id: &account.key_id,
            public_key: &account.public_key,
            audience: &self.shared.audience,
            now,
            skew,
        };
        assertion.check(&demands).map_err(invalid)?;
        account.used.retain(|_, (_, ends)| *ends > now);
        let fingerprint = fingerprint(text);
        match account.used.get(assertion.jti()) {
            Some((first, _)) if *first != fingerprint => {
                let why = "the jti was used by another assertion";
                return Err(invalid(why.to_owned()));
            }
            Some(_) if once => {
                let why = "the assertion was used before, and is good once only";
                return Err(invalid(why.to_owned()));
            }
            _ => {}
        }
        if self.commit {
            let entry = (fingerprint, assertion.ends());
            account.used.insert(assertion.jti().to_owned(), entry);
        }
        Ok(index)
    }

    /// Answers a request that carries an access token.
    fn api(&mut self) -> Result<Value, Refusal> {
        let received = self.received;
        let path = received.parts.uri.path();
        let named = named(path).ok_or_else(|| refusal(404, "NOT_FOUND", "no such path"))?;
        if received.parts.method != Method::GET {
            let why = "nothing is changed through this API: only GET is served";
            return Err(refusal(405, "METHOD_NOT_ALLOWED", why));
        }
        let accept = received.header(ACCEPT).unwrap_or_default();
        if !accept
            .split(',')
            .any(|one| one.split(';').next().unwrap_or_default().trim() == "application/json")
        {
            let why = "Accept must name application/json";
            return Err(refusal(406, "NOT_ACCEPTABLE", why));
        }
        let now = self.shared.now.get();
        let bearer = received
            .header(AUTHORIZATION)
            .and_then(|value| value.strip_prefix("Bearer "))
            .unwrap_or_default();
        let token = self
            .state
            .tokens
            .get(bearer)
            .filter(|token| token.ends > now)
            .ok_or_else(|| {
                let why = "the access token is missing, unknown or expired";
                refusal(401, "NOT_AUTHORIZED", why)
            })?;
        self.noted.token_number = Some(token.number);
        let account = &self.state.accounts[token.account];
        self.noted.client_id = Some(account.client_id.clone());
        if account.denied {
            let why = "the account may not read this";
            return Err(refusal(403, "FORBIDDEN", why));
        }
        match named {
            Named::Devices => self.devices(),
            Named::Device(serial) => self.device(&serial),
            Named::LockStatus(serial) => self.lock_status(&serial),
        }
    }

    fn query(&self, known: &[&str]) -> Result<BTreeMap<String, String>, Refusal> {
        let query = self.received.parts.uri.query().unwrap_or_default();
        form::pairs(query.as_bytes(), "query")
            .and_then(|pairs| form::only(pairs, "query", known))
            .map_err(invalid_parameter)
    }

    fn devices(&mut self) -> Result<Value, Refusal> {
        let query = self.query(&["limit", "cursor", "fields[orgDevices]"])?;
        let limit = match query.get("limit") {
            None => 100,
            Some(limit) => limit
                .parse()
                .ok()
                .filter(|limit| (1..=1000).contains(limit))
                .ok_or_else(|| invalid_parameter("limit must be 1 to 1000"))?,
        };
        let fields = fields(&query, "fields[orgDevices]", &devices::ATTRIBUTES)?;
        let after = match query.get("cursor") {
            None => None,
            Some(cursor) => Some(
                self.shared
                    .cursors
                    .take(cursor)
                    .and_then(|bytes| String::from_utf8(bytes).ok())
                    .ok_or_else(|| invalid_parameter("the cursor is none that was given"))?,
            ),
        };
        let (page, more) = devices::page(&self.state.devices, after.as_deref(), limit);
        self.noted.note = format!("{} devices", page.len());
        let url = self.received.url();
        let next = page
            .last()
            .filter(|_| more)
            .map(|last| self.shared.cursors.give(last.serial_number.as_bytes()));
        let mut links = Map::new();
        links.insert("self".to_owned(), json!(self.own_url()));
        let mut paging = Map::new();
        paging.insert("limit".to_owned(), json!(limit));
        if let Some(cursor) = next {
            let mut next = form_urlencoded::Serializer::new(String::new());
            next.append_pair("limit", &limit.to_string());
            next.append_pair("cursor", &cursor);
            if let Some(fields) = query.get("fields[orgDevices]") {
                next.append_pair("fields[orgDevices]", fields);
            }
            let link = format!("{url}{DEVICES}?{}", next.finish());
            links.insert("next".to_owned(), json!(link));
            paging.insert("nextCursor".to_owned(), json!(cursor));
        }
        let data: Vec<Value> = page
            .into_iter()
            .map(|device| device.resource(fields.as_deref(), &url))
            .collect();
        Ok(json!({ "data": data, "links": links, "meta": { "paging": paging } }))
    }

    fn device(&mut self, serial: &str) -> Result<Value, Refusal> {
        let query = self.query(&["fields[orgDevices]"])?;
        let fields = fields(&query, "fields[orgDevices]", &devices::ATTRIBUTES)?;
        let device = self.state.devices.get(serial).ok_or_else(not_managed)?;
        Ok(json!({
            "data": device.resource(fields.as_deref(), &self.received.url()),
            "links": { "self": self.own_url() },
        }))
    }

    fn lock_status(&mut self, serial: &str) -> Result<Value, Refusal> {
        let query = self.query(&["fields[activationLockStatus]"])?;
        let known = ["isLocked", "lockType"];
        let fields = fields(&query, "fields[activationLockStatus]", &known)?;
        if !self.state.devices.contains_key(serial) {
            return Err(not_managed());
        }
        let status = self.state.statuses.get(serial).cloned().unwrap_or_default();
        let mut id = serial.to_owned();
        let truth = |serial: &str| {
            let stale_for = self.state.stale_for;
            let lock = self.shared.apple.lock_state_before(serial, stale_for);
            let lock_type = match lock {
                Some(LockKind::Mdm) => "MDM",
                Some(LockKind::User) => "USER",
                None => "NONE",
            };
            (Some(lock.is_some()), Some(lock_type.to_owned()))
        };
        let mut more = false;
        let (is_locked, lock_type) = match status {
            StatusAnswer::Truth => truth(serial),
            StatusAnswer::MoreThanTruth => {
                more = true;
                truth(serial)
            }
            StatusAnswer::Missing => (None, None),
            StatusAnswer::Exactly {
                is_locked,
                lock_type,
            } => (is_locked, lock_type),
            StatusAnswer::Other(lock_type) => (Some(true), Some(lock_type)),
            StatusAnswer::AboutAnother(other) => {
                let truth = truth(&other);
                id = other;
                truth
            }
            StatusAnswer::InternalState => {
                let why = "the lock has a state that is internal to Apple";
                return Err(refusal(500, "UNEXPECTED_ERROR", why));
            }
        };
        let mut attributes = Map::new();
        let wanted = |key: &str| {
            fields
                .as_ref()
                .is_none_or(|fields| fields.iter().any(|field| field == key))
        };
        if let Some(is_locked) = is_locked.filter(|_| wanted("isLocked")) {
            attributes.insert("isLocked".to_owned(), json!(is_locked));
        }
        if let Some(lock_type) = lock_type.filter(|_| wanted("lockType")) {
            attributes.insert("lockType".to_owned(), json!(lock_type));
        }
        if more {
            attributes.insert("lockedSince".to_owned(), json!("2026-01-31T12:00:00Z"));
            attributes.insert("lockDetails".to_owned(), json!({ "byPerson": false }));
        }
        let mut data = Map::new();
        data.insert("type".to_owned(), json!("activationLockStatus"));
        data.insert("id".to_owned(), json!(id));
        if !attributes.is_empty() {
            data.insert("attributes".to_owned(), Value::Object(attributes));
        }
        Ok(json!({ "data": data, "links": { "self": self.own_url() } }))
    }

    /// The URL that was asked for.
    fn own_url(&self) -> String {
        let uri = &self.received.parts.uri;
        let tail = uri
            .path_and_query()
            .map_or(uri.path(), |tail| tail.as_str());
        format!("{}{tail}", self.received.url())
    }
}

fn invalid_parameter(why: impl Into<String>) -> Refusal {
    refusal(400, "PARAMETER_ERROR.INVALID", why)
}

fn not_managed() -> Refusal {
    let why = "the organisation does not manage this device";
    refusal(404, "NOT_FOUND", why)
}

/// The names in a list with commas; each must be known.
fn fields(
    query: &BTreeMap<String, String>,
    key: &str,
    known: &[&str],
) -> Result<Option<Vec<String>>, Refusal> {
    let Some(list) = query.get(key) else {
        return Ok(None);
    };
    let names: Vec<String> = list.split(',').map(str::to_owned).collect();
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        None => Ok(Some(names)),
        Some(name) => Err(invalid_parameter(format!("{key} has no field {name}"))),
    }
}
