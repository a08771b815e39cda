//! What the enrolment service answers when nothing goes wrong. Contract sheet section 2.

use std::sync::MutexGuard;

use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::{
    Settings, Shared,
    devices::{Page, Place, date_text},
    request::{self, Call, Checked, JSON, LockBody, PageBody, Refusal, SESSION, refusal},
    servers::{Server, Servers},
};
use crate::{LockKind, LockRefused, answer::Truth, code::Accepts};

/// The true answer, and what the journal is told of it.
pub(super) struct Judged {
    pub(super) truth: Truth,
    pub(super) noted: Noted,
}

/// What the journal is told.
#[derive(Default)]
pub(super) struct Noted {
    pub(super) token: Option<String>,
    pub(super) session_number: Option<u64>,
    pub(super) response_status: Option<String>,
    pub(super) locked: bool,
    pub(super) note: String,
}

/// A request that is being answered.
struct Judge<'a> {
    shared: &'a Shared,
    settings: Settings,
    servers: MutexGuard<'a, Servers>,
    commit: bool,
    noted: Noted,
    /// The session's new text.
    rotated: Option<String>,
}

/// Answers the request. What it changes is changed when `commit` says so.
pub(super) fn judge(shared: &Shared, request: Result<Checked, Refusal>, commit: bool) -> Judged {
    let mut judge = Judge {
        shared,
        settings: *shared.settings(),
        servers: shared.servers(),
        commit,
        noted: Noted::default(),
        rotated: None,
    };
    let answer = request.and_then(|request| judge.answer(request));
    let (status, body) = match answer {
        Ok(body) => (200, body.to_string()),
        Err(Refusal { status, body, why }) => {
            judge.noted.note = why;
            let body = match judge.settings.quoted_errors {
                true => format!("\"{body}\""),
                false => body.to_owned(),
            };
            (status, body)
        }
    };
    let mut headers = vec![(CONTENT_TYPE, JSON.to_owned())];
    headers.extend(judge.rotated.map(|text| (SESSION, text)));
    Judged {
        truth: Truth {
            status,
            headers,
            body: body.into_bytes(),
        },
        noted: judge.noted,
    }
}

impl Judge<'_> {
    fn answer(&mut self, request: Checked) -> Result<Value, Refusal> {
        let now = self.shared.now.get();
        if let Some((signed, url)) = &request.signed {
            self.noted.token = Some(signed.consumer_key.clone());
            let skew = self.settings.clock_skew;
            let server = self.servers.signer(signed, url, now, skew, self.commit)?;
            self.servers.get(server).refused()?;
            if !self.commit {
                return Ok(json!({}));
            }
            let (number, text) = self.servers.begin_session(server, now);
            self.noted.session_number = Some(number);
            return Ok(json!({ "auth_session_token": text }));
        }
        let text = request.session.as_deref().unwrap_or_default();
        let lifetime = self.settings.session_lifetime;
        let found = self.servers.session(text, now, lifetime).ok_or_else(|| {
            match self.settings.unknown_session_status {
                403 => refusal(403, "FORBIDDEN", "the session is unknown or has ended"),
                _ => refusal(401, "UNAUTHORIZED", "the session is unknown or has ended"),
            }
        })?;
        let server = found.server;
        self.noted.session_number = Some(found.number);
        self.noted.token = Some(self.servers.get(server).token.consumer_key.clone());
        if self.commit {
            self.rotated = self.servers.rotate(server, self.settings.rotation, now);
        }
        self.servers.get(server).refused()?;
        match request.call {
            Call::Session | Call::Account => Ok(account(self.servers.get(server))),
            Call::Fetch => self.page(server, request, true),
            Call::Sync => self.page(server, request, false),
            Call::Details => self.details(server, &request),
            Call::Lock => self.lock(server, &request.body),
        }
    }

    /// A part of the list of devices, or of what happened to them.
    fn page(&mut self, server: usize, request: Checked, whole: bool) -> Result<Value, Refusal> {
        let body = PageBody::read(&request.body)?;
        let limit = body
            .limit
            .map_or(100, |limit| limit as usize)
            .min(self.settings.page_limit);
        let place = match &body.cursor {
            Some(cursor) => Some(self.place(server, cursor)?),
            None if whole => None,
            None => {
                let why = "a synchronisation begins with a cursor";
                return Err(refusal(400, "CURSOR_REQUIRED", why));
            }
        };
        let devices = &self.servers.get(server).devices;
        let page = match (place, whole) {
            (None, _) => devices.fetch(None, limit, request.protocol),
            (Some(Place::Fetch { began, after }), true) => {
                devices.fetch(Some((began, after)), limit, request.protocol)
            }
            (Some(Place::Sync { seen }), false) => devices.sync(seen, limit, request.protocol),
            (Some(Place::Sync { .. }), true) => {
                let why = "a fetch with this cursor has come to its end";
                return Err(refusal(400, "EXHAUSTED_CURSOR", why));
            }
            (Some(Place::Fetch { .. }), false) => {
                let why = "the cursor is of a fetch that has not come to its end";
                return Err(refusal(400, "INVALID_CURSOR", why));
            }
        };
        let Page {
            devices,
            more,
            next,
        } = page;
        self.noted.note = format!("{} devices", devices.len());
        Ok(json!({
            "devices": devices,
            "cursor": self.cursor(server, next),
            "more_to_follow": more,
            "fetched_until": date_text(self.shared.now.get()),
        }))
    }

    fn cursor(&self, server: usize, place: Place) -> String {
        let mut bytes = (server as u64).to_be_bytes().to_vec();
        bytes.extend(self.servers.cursor_generation.to_be_bytes());
        bytes.extend(self.shared.now.get().unix_timestamp().to_be_bytes());
        bytes.extend(place.to_bytes());
        self.shared.cursors.give(&bytes)
    }

    fn place(&self, server: usize, cursor: &str) -> Result<Place, Refusal> {
        let bytes = self.shared.cursors.take(cursor).unwrap_or_default();
        let (_, generation, given, place) = split_cursor(&bytes)
            .filter(|(of, ..)| *of == server as u64)
            .ok_or_else(|| {
                let why = "the cursor is none that this server was given";
                refusal(400, "INVALID_CURSOR", why)
            })?;
        let age = self.shared.now.get().unix_timestamp() - given;
        if generation < self.servers.cursor_generation
            || age >= self.settings.cursor_lifetime.whole_seconds()
        {
            let why = "the cursor has expired";
            return Err(refusal(400, "EXPIRED_CURSOR", why));
        }
        Ok(place)
    }

    fn details(&mut self, server: usize, request: &Checked) -> Result<Value, Refusal> {
        let asked = request::details(&request.body)?;
        let devices = &self.servers.get(server).devices;
        let told = asked.into_iter().map(|serial| {
            let mut record = devices
                .record(&serial, request.protocol)
                .unwrap_or_default();
            let status = match record.is_empty() {
                true => "NOT_ACCESSIBLE",
                false => "SUCCESS",
            };
            record.insert("response_status".to_owned(), json!(status));
            (serial, Value::Object(record))
        });
        Ok(json!({ "devices": Value::Object(told.collect()) }))
    }

    /// Turns the lock on, when that may be.
    fn lock(&mut self, server: usize, body: &[u8]) -> Result<Value, Refusal> {
        let LockBody { device, escrow_key } = LockBody::read(body)?;
        let to_nobody = escrow_key.is_none();
        let told = self.servers.lock_refusals.get(&device).cloned();
        let known = self.servers.get(server).devices.get(&device);
        let (status, note) = match (told, known) {
            (Some(told), _) => (told, "it was told to refuse this lock"),
            (None, None) => (
                "NOT_ACCESSIBLE".to_owned(),
                "the device is not assigned to this server",
            ),
            (None, Some(known)) if known.device_family == "Mac" && !self.settings.locks_macs => {
                let why = "a Mac, and this Apple locks none";
                ("DEVICE_NOT_SUPPORTED".to_owned(), why)
            }
            (None, Some(_)) if !self.commit => {
                self.noted.note = "a fault kept the lock from going on".to_owned();
                return Ok(json!({}));
            }
            (None, Some(_)) => {
                let accepts = escrow_key.map_or(Accepts::Nothing, Accepts::Hash);
                match self.shared.apple.lock(&device, LockKind::Mdm, accepts) {
                    Ok(()) => {
                        self.noted.locked = true;
                        let note = match to_nobody {
                            true => {
                                "locked without escrow_key: tied to the person who made the server's entry, and no code opens it"
                            }
                            false => "locked",
                        };
                        ("SUCCESS".to_owned(), note)
                    }
                    Err(LockRefused::AlreadyLocked(_)) => (
                        "DEVICE_ALREADY_LOCKED".to_owned(),
                        "a lock is on already, and the first one wins",
                    ),
                    Err(LockRefused::UnknownDevice) => (
                        "FAILED".to_owned(),
                        "assigned, but not in this Apple's table of devices",
                    ),
                }
            }
        };
        self.noted.note = note.to_owned();
        self.noted.response_status = Some(status.clone());
        Ok(json!({ "serial_number": device, "response_status": status }))
    }
}

fn split_cursor(bytes: &[u8]) -> Option<(u64, u32, i64, Place)> {
    let (server, rest) = bytes.split_first_chunk::<8>()?;
    let (generation, rest) = rest.split_first_chunk::<4>()?;
    let (given, place) = rest.split_first_chunk::<8>()?;
    Some((
        u64::from_be_bytes(*server),
        u32::from_be_bytes(*generation),
        i64::from_be_bytes(*given),
        Place::from_bytes(place)?,
    ))
}

fn account(server: &Server) -> Value {
    let url = |uri: &str, method: &str, most: u32| match most {
        0 => json!({ "uri": uri, "http_method": [method] }),
        _ => {
            json!({ "uri": uri, "http_method": [method], "limit": { "default": 100, "maximum": most } })
        }
    };
    json!({
        "server_name": server.token.server_name,
        "server_uuid": server.token.server_uuid,
        "facilitator_id": "facilitator@school.example",
        "admin_id": "admin@school.example",
        "org_name": "Sim School",
        "org_email": "office@school.example",
        "org_phone": "+44 20 7946 0000",
        "org_address": "1 Example Street, Exampletown",
        "org_id": "51135113",
        "org_type": "edu",
        "urls": [
            url("/account", "GET", 0),
            url("/server/devices", "POST", 1000),
            url("/devices/sync", "POST", 1000),
            url("/devices", "POST", 0),
            url("/device/activationlock", "POST", 0),
        ],
    })
}
