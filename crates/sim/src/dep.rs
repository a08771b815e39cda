//! Apple's device enrolment service: strict, with memory, a journal, and faults on demand.
//!
//! It serves `/session`, `/account`, `/server/devices`, `/devices/sync`, `/devices` and `/device/activationlock` over TLS,
//! by the authority of the [`Apple`] whose table of locks it shares: the first lock wins, whoever turns it on. It is written
//! from contract sheet section 2; what Apple does where the sheet is silent is an option, or decided so:
//!
//! * A wrong `Content-Type` is 415, a wrong `Accept` 406, a missing or odd `X-Server-Protocol-Version` 400
//!   `PROTOCOL_VERSION_INVALID`. Below 10 it is served, without the numbers of protocol 10.
//! * A new session ends the older one of the same token. Its text changes with every answer, see [`Rotation`].
//! * A cursor of a fetch that goes on is `INVALID_CURSOR` for a synchronisation; one of a fetch that has ended is
//!   `EXHAUSTED_CURSOR` for a fetch. A cursor may be used again. A device that was taken away is told by its serial number alone.
//! * A lock of a device that is assigned, but that Apple's table does not know, is `FAILED`.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rustls::ServerConfig;
use serde::Serialize;
use time::OffsetDateTime;

pub use self::{
    devices::DepDevice,
    nanodep::{NANODEP_USER, NanoDep, NanoDepCall, NanoDepOptions},
    servers::DepToken,
    token_file::{TokenFileCipher, TokenFileError, TokenFileOptions},
};
use self::{
    request::{Checked, Refusal, Seen, Strictness},
    servers::Servers,
    service::{Judged, Noted},
};
pub use crate::fault::Fault as DepFault;
use crate::{
    Apple, Journal, Now, StartError,
    answer::{self, Answered},
    apple::tls,
    cursor::Cursors,
    fault::{Fault, Queue},
    listener::{Connection, Hangup, Listener, Speaker},
};

mod devices;
mod nanodep;
mod oauth;
mod request;
mod servers;
mod service;
mod token_file;

/// The largest request body that is read, in bytes.
const LARGEST_BODY: usize = 1024 * 1024;

/// How the text of a session changes. Contract sheet 2.22.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Not at all.
    Never,
    /// With every answer but a refused one; so many of those before stay good.
    EveryCall {
        /// 1: two calls may be under way at once, and a client that keeps its first text is refused at its third call.
        old_ones: usize,
    },
}

impl Default for Rotation {
    fn default() -> Self {
        Self::EveryCall { old_ones: 1 }
    }
}

/// How the fake behaves.
#[derive(Clone, Debug)]
pub struct DepOptions {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The time by which tokens, sessions and cursors are judged and the journal is dated.
    pub now: Now,
    /// How long a session's text is good.
    pub session_lifetime: Duration,
    /// How a session's text changes.
    pub rotation: Rotation,
    /// What an unknown session is answered: 401, or 403 `FORBIDDEN` as Apple's simulator has it.
    pub unknown_session_status: u16,
    /// How far the timestamp of a signature may be off.
    pub clock_skew: Duration,
    /// How long a cursor is good.
    pub cursor_lifetime: Duration,
    /// Whether error bodies are JSON strings, `"X"` instead of `X`.
    pub quoted_errors: bool,
    /// Whether `/session` too insists on the content type.
    pub content_type_on_session: bool,
    /// The largest page, whatever is asked for.
    pub page_limit: usize,
    /// Whether a Mac can be locked: nobody knows (contract sheet 2a).
    pub locks_macs: bool,
    /// How many entries the journal keeps.
    pub journal: usize,
}

impl Default for DepOptions {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 0).into(),
            now: Now::wall(),
            session_lifetime: Duration::from_secs(3 * 60),
            rotation: Rotation::default(),
            unknown_session_status: 401,
            clock_skew: Duration::from_secs(5 * 60),
            cursor_lifetime: Duration::from_secs(7 * 24 * 60 * 60),
            quoted_errors: false,
            content_type_on_session: true,
            page_limit: 1000,
            locks_macs: false,
            journal: 100_000,
        }
    }
}

/// One request, as the journal has it. No secret is in it, and no hash.
#[derive(Clone, Debug, Serialize)]
pub struct DepCall {
    /// Counts from 0 in the order of arrival.
    pub number: u64,
    /// When it arrived.
    #[serde(serialize_with = "crate::serialize_time")]
    pub at: OffsetDateTime,
    /// The connection it came on, counted from 1.
    pub connection: u64,
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The consumer key of the token it was made with, as far as it is known.
    pub token: Option<String>,
    /// `device` of a lock call.
    pub serial: Option<String>,
    /// `lost_message` of a lock call.
    pub lost_message: Option<String>,
    /// SHA-256 of the text of `escrow_key`, see [`crate::fingerprint`]; none when it was left out.
    pub escrow_key_fingerprint: Option<String>,
    /// `X-Server-Protocol-Version`, as it was sent.
    pub protocol_version: Option<String>,
    /// `User-Agent`, as it was sent.
    pub user_agent: Option<String>,
    /// The session that it began, or that it used; sessions count from 1.
    pub session_number: Option<u64>,
    /// What was answered.
    pub answered: Answered,
    /// What a lock call came to, which is told inside a 200; none when a fault kept it from coming to anything.
    pub response_status: Option<String>,
    /// Whether this request turned a lock on.
    pub locked: bool,
    /// The fault that was applied.
    pub fault: Option<&'static str>,
    /// Why it was answered so; known only here, the client is not told.
    pub note: String,
}

/// A running fake of Apple's device enrolment service. A clone is the same service, which stops when the last is dropped.
#[derive(Clone)]
pub struct Dep {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
}

struct Shared {
    apple: Apple,
    now: Now,
    tls: Arc<ServerConfig>,
    cursors: Cursors,
    settings: Mutex<Settings>,
    servers: Mutex<Servers>,
    faults: Mutex<Queue<Fault>>,
    calls: Journal<DepCall>,
}

#[derive(Clone, Copy)]
struct Settings {
    session_lifetime: time::Duration,
    rotation: Rotation,
    unknown_session_status: u16,
    clock_skew: time::Duration,
    cursor_lifetime: time::Duration,
    quoted_errors: bool,
    content_type_on_session: bool,
    page_limit: usize,
    locks_macs: bool,
}

impl Dep {
    /// Starts to listen, beside `apple`: its locks are this service's locks, its authority certifies this service too.
    ///
    /// # Errors
    ///
    /// When it cannot listen, or its certificate cannot be made.
    pub async fn start(apple: &Apple, options: DepOptions) -> Result<Self, StartError> {
        let authority = apple.authority();
        let long = |duration| time::Duration::try_from(duration).unwrap_or(time::Duration::MAX);
        let shared = Arc::new(Shared {
            apple: apple.clone(),
            tls: tls::without_clients(authority, options.now.clone())?,
            now: options.now,
            cursors: Cursors::new(&authority.seed()?),
            settings: Mutex::new(Settings {
                session_lifetime: long(options.session_lifetime),
                rotation: options.rotation,
                unknown_session_status: options.unknown_session_status,
                clock_skew: long(options.clock_skew),
                cursor_lifetime: long(options.cursor_lifetime),
                quoted_errors: options.quoted_errors,
                content_type_on_session: options.content_type_on_session,
                page_limit: options.page_limit,
                locks_macs: options.locks_macs,
            }),
            servers: Mutex::new(Servers::new(ChaCha8Rng::from_seed(authority.seed()?))),
            faults: Mutex::default(),
            calls: Journal::new(options.journal),
        });
        let listener = Listener::start(options.listen, Service(shared.clone())).await?;
        Ok(Self {
            shared,
            listener: Arc::new(listener),
        })
    }

    /// `https://127.0.0.1:PORT`, without a path.
    pub fn url(&self) -> String {
        format!("https://{}", self.listener.address())
    }

    /// The certificate authority of the server, PEM: the same as [`Apple::ca_pem`].
    pub fn ca_pem(&self) -> String {
        self.shared.apple.ca_pem()
    }

    /// A person adds a server in the portal and gets a token for it, good for a year.
    pub fn issue_token(&self, server_name: &str) -> DepToken {
        let expiry = self.shared.now.get() + time::Duration::days(365);
        let expiry = expiry.replace_nanosecond(0).unwrap_or(expiry);
        self.shared.servers().issue(server_name, expiry)
    }

    /// The token with this consumer key.
    pub fn token(&self, consumer_key: &str) -> Option<DepToken> {
        let mut servers = self.shared.servers();
        servers
            .by_key(consumer_key)
            .map(|server| server.token.clone())
    }

    /// From now on `/session` says 401.
    ///
    /// # Panics
    ///
    /// Here and below: when the token is not one of this service.
    pub fn expire_token(&self, token: &DepToken) {
        let now = self.shared.now.get();
        self.shared
            .with(token, |server| server.token.access_token_expiry = now);
    }

    /// The token as the portal hands it out, encrypted to this certificate: what a `.p7m` file holds.
    ///
    /// # Panics
    ///
    /// When the certificate is none in PEM, or its key is not RSA.
    pub fn token_file(&self, token: &DepToken, certificate_pem: &str) -> Vec<u8> {
        self.token_file_with(token, certificate_pem, TokenFileOptions::default())
            .expect("the certificate is one in PEM, and its key is RSA")
    }

    /// The same, made otherwise.
    ///
    /// # Errors
    ///
    /// When the certificate is none in PEM, or its key is not RSA.
    pub fn token_file_with(
        &self,
        token: &DepToken,
        certificate_pem: &str,
        options: TokenFileOptions,
    ) -> Result<Vec<u8>, TokenFileError> {
        let rng = &mut self.shared.servers().rng;
        token_file::make(token, certificate_pem, options, rng)
    }

    /// Assigns a device to the token's server: `added`, or `modified` when it is there already.
    pub fn assign(&self, token: &DepToken, device: DepDevice) {
        let now = self.shared.now.get();
        self.shared
            .with(token, |server| server.devices.put(device, now));
    }

    /// Takes a device away from the token's server: `deleted`.
    pub fn unassign(&self, token: &DepToken, serial: &str) {
        let now = self.shared.now.get();
        self.shared
            .with(token, |server| server.devices.remove(serial, now));
    }

    /// Says whether Apple's newest terms are accepted; while not, everything is 403 `T_C_NOT_SIGNED`.
    pub fn set_terms_signed(&self, token: &DepToken, signed: bool) {
        self.shared
            .with(token, |server| server.terms_signed = signed);
    }

    /// Says whether the token may do nothing at all: 403 `ACCESS_DENIED`.
    pub fn set_access_denied(&self, token: &DepToken, denied: bool) {
        self.shared
            .with(token, |server| server.access_denied = denied);
    }

    /// Every session is unknown from now on.
    pub fn expire_sessions(&self) {
        self.shared.servers().end_sessions();
    }

    /// How many sessions were given so far.
    pub fn sessions(&self) -> u64 {
        self.shared.servers().sessions()
    }

    /// Every cursor given so far has expired.
    pub fn expire_cursors(&self) {
        self.shared.servers().cursor_generation += 1;
    }

    /// Lock calls for this device are answered so from now on, and turn nothing on; none ends that. Any text will do.
    pub fn refuse_lock(&self, serial: &str, response_status: Option<&str>) {
        let refusals = &mut self.shared.servers().lock_refusals;
        match response_status {
            Some(status) => refusals.insert(serial.to_owned(), status.to_owned()),
            None => refusals.remove(serial),
        };
    }

    /// What an unknown session is answered from now on: 401, or 403 `FORBIDDEN`.
    pub fn set_unknown_session_status(&self, status: u16) {
        self.shared.settings().unknown_session_status = status;
    }

    /// Whether error bodies are JSON strings from now on.
    pub fn set_quoted_errors(&self, quoted: bool) {
        self.shared.settings().quoted_errors = quoted;
    }

    /// How sessions' texts change from now on.
    pub fn set_rotation(&self, rotation: Rotation) {
        self.shared.settings().rotation = rotation;
    }

    /// Queues a fault.
    pub fn push_fault(&self, fault: DepFault) {
        self.shared.faults().push(fault);
    }

    /// Forgets the faults that still wait.
    pub fn clear_faults(&self) {
        self.shared.faults().clear();
    }

    /// How many faults still wait.
    pub fn faults_waiting(&self) -> usize {
        self.shared.faults().waiting()
    }

    /// All requests so far.
    pub fn journal(&self) -> &Journal<DepCall> {
        &self.shared.calls
    }

    /// The lock calls for one device so far.
    pub fn calls_for(&self, serial: &str) -> Vec<DepCall> {
        self.journal()
            .all()
            .into_iter()
            .filter(|call| call.serial.as_deref() == Some(serial))
            .collect()
    }

    /// Closes the socket and every connection: connecting is refused.
    pub async fn go_offline(&self) {
        self.listener.go_offline().await;
    }

    /// Listens again, at the same address.
    pub async fn come_back(&self) {
        self.listener.come_back().await;
    }

    /// Stops for good.
    pub async fn stop(&self) {
        self.listener.stop().await;
    }
}

impl Shared {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().expect("no holder of this lock panics")
    }

    fn servers(&self) -> MutexGuard<'_, Servers> {
        self.servers.lock().expect("no holder of this lock panics")
    }

    fn faults(&self) -> MutexGuard<'_, Queue<Fault>> {
        self.faults.lock().expect("no holder of this lock panics")
    }

    /// Changes the server of a token.
    fn with(&self, token: &DepToken, change: impl FnOnce(&mut servers::Server)) {
        let mut servers = self.servers();
        match servers.by_key(&token.consumer_key) {
            Some(server) => change(server),
            None => {
                drop(servers);
                panic!("this service did not issue {token:?}");
            }
        }
    }
}

#[derive(Clone)]
struct Service(Arc<Shared>);

impl Speaker for Service {
    fn tls(&self) -> Option<Arc<ServerConfig>> {
        Some(self.0.tls.clone())
    }

    async fn answer(
        &self,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Hangup> {
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, LARGEST_BODY)
            .collect()
            .await
            .map_err(|_| Hangup)?
            .to_bytes();
        let path = parts.uri.path();
        let mut seen = Seen::of(path, &parts.headers, &body);
        let shared = self.0.clone();
        let strictness = Strictness {
            content_type_on_session: shared.settings().content_type_on_session,
        };
        let request = request::check(
            &parts.method,
            &parts.uri,
            &parts.headers,
            body.to_vec(),
            strictness,
        );
        let fault = shared
            .faults()
            .take(|fault| fault.fits(path, seen.serial.as_deref()));
        let number = shared.calls.add(|number| DepCall {
            number,
            at: shared.now.get(),
            connection: connection.number,
            method: parts.method.to_string(),
            path: path.to_owned(),
            token: None,
            serial: seen.serial.clone(),
            lost_message: seen.lost_message.clone(),
            escrow_key_fingerprint: seen.fingerprint(),
            protocol_version: seen.protocol_version.take(),
            user_agent: seen.user_agent.take(),
            session_number: None,
            answered: Answered::Pending,
            response_status: None,
            locked: false,
            fault: fault.as_ref().map(|fault| fault.name),
            note: String::new(),
        });
        let fault = fault.unwrap_or_else(Fault::none);
        let secret = seen.secret(&parts.headers);
        // As at Apple, a request that has arrived is worked on even if the client no longer waits.
        let work = tokio::spawn(work(shared, connection, number, request, secret, fault));
        work.await.unwrap_or(Err(Hangup))
    }
}

async fn work(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    number: u64,
    request: Result<Checked, Refusal>,
    secret: String,
    fault: Fault,
) -> Result<Response<Body>, Hangup> {
    fault.hold_before().await;
    let Judged { truth, noted } = service::judge(&shared, request, fault.commits());
    let Noted {
        token,
        session_number,
        response_status,
        locked,
        note,
    } = noted;
    shared.calls.amend(number, |call| {
        call.token = token;
        call.session_number = session_number;
        call.response_status = response_status;
        call.locked = locked;
        call.note = note;
    });
    fault.hold_after().await;
    let (answered, answer) = fault.answer(truth, &secret, answer::told, &connection);
    shared.calls.amend(number, |call| call.answered = answered);
    answer
}
