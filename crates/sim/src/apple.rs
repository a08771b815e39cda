//! Apple's unlock service: strict, with memory, a journal, and faults on demand.
//!
//! It serves `POST /deviceservicesworkers/escrowKeyUnlock` over mutual TLS and answers as contract sheet section 1 has
//! it: 200 unlocked, 400 malformed, 404 anything about the device or the code. What Apple does where the sheet says
//! "unknown" is an option.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use rustls::{ServerConfig, pki_types::UnixTime, server::danger::ClientCertVerifier};
use serde::Serialize;
use time::OffsetDateTime;

pub use self::{
    locks::{AppleDevice, IdentityCheck, LockKind, LockRefused},
    tls::TlsVersions,
};
use self::{
    locks::{Found, Locks},
    request::{Malformed, Seen, UnlockRequest},
};
use crate::{
    AuthorityError, Journal, Now, PushCertificate, PushCertificateOptions, StartError,
    answer::{self, Truth},
    authority::{self, Authority},
    code::{Accepts, CodeHash, fingerprint},
    fault::Queue,
    listener::{Connection, Hangup, Listener, Speaker},
};
pub use crate::{
    answer::Answered,
    fault::{Fault, Gate},
};

pub mod control;
mod locks;
mod request;
pub(crate) mod tls;

/// The path of the unlock call.
pub const PATH: &str = "/deviceservicesworkers/escrowKeyUnlock";

/// The largest request body that is read, in bytes.
const LARGEST_BODY: usize = 64 * 1024;

/// Where a client certificate is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// In the handshake: no certificate, an expired or an unknown one is refused by TLS.
    #[default]
    Demanded,
    /// In HTTP: 401 without a certificate, 403 with an expired or unknown one.
    CheckedInHttp,
}

/// How the fake behaves.
#[derive(Clone, Debug)]
pub struct AppleOptions {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The time by which certificates are judged and the journal is dated.
    pub now: Now,
    /// Which TLS is spoken.
    pub tls: TlsVersions,
    /// Where a client certificate is looked at.
    pub client_certificates: ClientCertificates,
    /// Presents a server certificate of an authority that nobody trusts.
    pub foreign_server_certificate: bool,
    /// What a device answers whose lock is off: 404 or 200, since nobody knows (contract sheet 9.1).
    pub when_not_locked: u16,
    /// How strictly the identity is compared.
    pub identity: IdentityCheck,
    /// How many entries the journal keeps.
    pub journal: usize,
}

impl Default for AppleOptions {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 0).into(),
            now: Now::wall(),
            tls: TlsVersions::default(),
            client_certificates: ClientCertificates::default(),
            foreign_server_certificate: false,
            when_not_locked: 404,
            identity: IdentityCheck::default(),
            journal: 100_000,
        }
    }
}

/// One request, as the journal has it. The code itself is never in it.
#[derive(Clone, Debug, Serialize)]
pub struct UnlockCall {
    /// Counts from 0 in the order of arrival.
    pub number: u64,
    /// When it arrived.
    #[serde(serialize_with = "crate::serialize_time")]
    pub at: OffsetDateTime,
    /// The connection it came on, counted from 1: the same number again means that the connection was reused.
    pub connection: u64,
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The decoded query; values of keys that do not belong there are withheld.
    pub query: BTreeMap<String, String>,
    /// `serial` of the query.
    pub serial: Option<String>,
    /// `orgName` of the body.
    pub org_name: Option<String>,
    /// `guid` of the body.
    pub guid: Option<String>,
    /// SHA-256 of the code's text, see [`crate::fingerprint`].
    pub code_fingerprint: Option<String>,
    /// The subject of the client's certificate.
    pub certificate_subject: Option<String>,
    /// Its UID: the topic.
    pub topic: Option<String>,
    /// What was answered.
    pub answered: Answered,
    /// Whether this request turned the lock off.
    pub unlocked: bool,
    /// The fault that was applied.
    pub fault: Option<&'static str>,
    /// Why it was answered so; known only here, the client is not told.
    pub note: String,
}

/// A handshake that failed.
#[derive(Clone, Debug, Serialize)]
pub struct RefusedHandshake {
    /// The connection, counted from 1.
    pub connection: u64,
    /// What TLS said.
    pub why: String,
}

/// A running fake of Apple's unlock service. A clone is the same service, which stops when the last is dropped.
#[derive(Clone)]
pub struct Apple {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
}

struct Shared {
    now: Now,
    authority: Authority,
    verifier: Arc<dyn ClientCertVerifier>,
    settings: Mutex<Settings>,
    locks: Mutex<Locks>,
    faults: Mutex<Queue<Fault>>,
    calls: Journal<UnlockCall>,
    refused: Journal<RefusedHandshake>,
    connections: AtomicU64,
    close_at_accept: AtomicU64,
}

struct Settings {
    tls: Arc<ServerConfig>,
    client_certificates: ClientCertificates,
    when_not_locked: u16,
    identity: IdentityCheck,
}

impl Apple {
    /// Makes new authorities and starts to listen.
    pub async fn start(options: AppleOptions) -> Result<Self, StartError> {
        let authority = Authority::new(options.now.clone())?;
        let verifier = tls::verifier(&authority)?;
        let tls = tls::config(
            &authority,
            options.now.clone(),
            options.tls,
            options.client_certificates,
            options.foreign_server_certificate,
        )?;
        let shared = Arc::new(Shared {
            now: options.now,
            authority,
            verifier,
            settings: Mutex::new(Settings {
                tls,
                client_certificates: options.client_certificates,
                when_not_locked: options.when_not_locked,
                identity: options.identity,
            }),
            locks: Mutex::default(),
            faults: Mutex::default(),
            calls: Journal::new(options.journal),
            refused: Journal::new(options.journal),
            connections: AtomicU64::new(0),
            close_at_accept: AtomicU64::new(0),
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

    /// The address it listens at.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// The certificate authority of the server, PEM: what a client must trust.
    pub fn ca_pem(&self) -> String {
        self.shared.authority.servers_pem()
    }

    /// Makes a push certificate.
    ///
    /// # Errors
    ///
    /// When the options cannot be put into a certificate.
    pub fn issue(
        &self,
        options: &PushCertificateOptions,
    ) -> Result<PushCertificate, AuthorityError> {
        self.shared.authority.issue(options)
    }

    /// A good push certificate for this topic.
    ///
    /// # Panics
    ///
    /// When the topic cannot stand in a certificate.
    pub fn push_certificate(&self, topic: &str) -> PushCertificate {
        let options = PushCertificateOptions::new(topic, self.shared.authority.now());
        self.issue(&options)
            .expect("a topic is plain text, which a certificate can hold")
    }

    /// Adds a device, or changes what is known of it; its lock stays.
    pub fn add_device(&self, device: AppleDevice) {
        self.shared.locks().add(device);
    }

    /// What is known of a device.
    pub fn device(&self, serial: &str) -> Option<AppleDevice> {
        self.shared.locks().device(serial)
    }

    /// A person turns Find My on: a user lock that this code opens. A text that is no canonical code opens by itself alone.
    ///
    /// # Errors
    ///
    /// When a lock is on already, or the device is unknown.
    pub fn user_lock(&self, serial: &str, code_text: &str) -> Result<(), LockRefused> {
        let accepts = match self.shared.hash(code_text) {
            Some(hash) => Accepts::Hash(hash),
            None => Accepts::from_text(code_text),
        };
        self.lock(serial, LockKind::User, accepts)
    }

    /// The organisation turns the lock on with the hash of its code.
    ///
    /// # Errors
    ///
    /// When a lock is on already, or the device is unknown.
    pub fn org_lock(&self, serial: &str, hash: CodeHash) -> Result<(), LockRefused> {
        self.lock(serial, LockKind::Mdm, Accepts::Hash(hash))
    }

    /// Turns a lock on, unless one is on.
    pub(crate) fn lock(
        &self,
        serial: &str,
        kind: LockKind,
        accepts: Accepts,
    ) -> Result<(), LockRefused> {
        let now = self.shared.now.get();
        self.shared.locks().lock(serial, kind, accepts, now)
    }

    /// The lock goes off without us: the person enters the password, or somebody uses the portal.
    pub fn clear_lock(&self, serial: &str) {
        self.shared.locks().clear(serial, self.shared.now.get());
    }

    /// Whose lock is on; none when it is off or the device is unknown.
    pub fn lock_state(&self, serial: &str) -> Option<LockKind> {
        self.shared.locks().lock_of(serial)
    }

    /// Whether the organisation's lock is on, or was, as far as is remembered.
    pub(crate) fn was_locked_by_organisation(&self, serial: &str) -> bool {
        self.shared.locks().had(serial, LockKind::Mdm)
    }

    /// Whose lock was on so long ago.
    pub(crate) fn lock_state_before(&self, serial: &str, ago: Duration) -> Option<LockKind> {
        let ago = time::Duration::try_from(ago).unwrap_or(time::Duration::MAX);
        let at = self.shared.now.get().saturating_sub(ago);
        self.shared.locks().lock_at(serial, at)
    }

    /// What certifies the other services of this Apple too.
    pub(crate) fn authority(&self) -> &Authority {
        &self.shared.authority
    }

    /// Queues a fault.
    pub fn push_fault(&self, fault: Fault) {
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

    /// The next `times` connections are closed as soon as they are made, before a byte is read.
    pub fn close_connections(&self, times: u64) {
        self.shared.close_at_accept.store(times, Ordering::SeqCst);
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

    /// What a device answers from now on whose lock is off: 404 or 200.
    pub fn set_when_not_locked(&self, status: u16) {
        self.shared.settings().when_not_locked = status;
    }

    /// How strictly the identity is compared from now on.
    pub fn set_identity(&self, identity: IdentityCheck) {
        self.shared.settings().identity = identity;
    }

    /// Changes the TLS of later connections: versions, where client certificates are looked at, and whether the
    /// server's own certificate is one that nobody trusts.
    ///
    /// # Errors
    ///
    /// When the new certificate cannot be made.
    pub fn set_tls(
        &self,
        versions: TlsVersions,
        clients: ClientCertificates,
        foreign_server_certificate: bool,
    ) -> Result<(), StartError> {
        let (authority, now) = (&self.shared.authority, self.shared.now.clone());
        let config = tls::config(
            authority,
            now,
            versions,
            clients,
            foreign_server_certificate,
        )?;
        let mut settings = self.shared.settings();
        settings.tls = config;
        settings.client_certificates = clients;
        Ok(())
    }

    /// All requests so far.
    pub fn journal(&self) -> &Journal<UnlockCall> {
        &self.shared.calls
    }

    /// The requests for one device so far.
    pub fn calls_for(&self, serial: &str) -> Vec<UnlockCall> {
        self.journal()
            .all()
            .into_iter()
            .filter(|call| call.serial.as_deref() == Some(serial))
            .collect()
    }

    /// The handshakes that TLS refused.
    pub fn refused_handshakes(&self) -> &Journal<RefusedHandshake> {
        &self.shared.refused
    }

    /// How many connections were made.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn locks(&self) -> MutexGuard<'_, Locks> {
        self.locks.lock().expect("no holder of this lock panics")
    }

    fn faults(&self) -> MutexGuard<'_, Queue<Fault>> {
        self.faults.lock().expect("no holder of this lock panics")
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().expect("no holder of this lock panics")
    }

    /// The hash of a text that is a code, remembered: it costs 10 ms to make.
    fn hash(&self, text: &str) -> Option<CodeHash> {
        if let Some(hash) = self.locks().remembered(text) {
            return Some(hash);
        }
        let hash = locks::hash_of(text)?;
        self.locks().remember(text, hash);
        Some(hash)
    }

    /// In HTTP mode: what is wrong with the client's certificate.
    fn certificate_refusal(&self, connection: &Connection) -> Option<(u16, String)> {
        if self.settings().client_certificates == ClientCertificates::Demanded {
            return None;
        }
        let Some((leaf, chain)) = connection.client.split_first() else {
            return Some((401, "no client certificate".to_owned()));
        };
        let seconds = u64::try_from(self.now.get().unix_timestamp()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let refused = self.verifier.verify_client_cert(leaf, chain, now).err()?;
        Some((403, format!("client certificate refused: {refused}")))
    }

    /// The true answer: status, and why. Turns the lock off when the code fits and `commit` says so.
    fn judge(
        &self,
        connection: &Connection,
        request: Result<UnlockRequest, Malformed>,
        commit: bool,
    ) -> (u16, bool, String) {
        if let Some((status, why)) = self.certificate_refusal(connection) {
            return (status, false, why);
        }
        let request = match request {
            Ok(request) => request,
            Err(malformed) => return (malformed.status, false, malformed.why),
        };
        let hash = self.hash(&request.escrow_key);
        let (when_not_locked, identity) = {
            let settings = self.settings();
            (settings.when_not_locked, settings.identity)
        };
        let at = commit.then(|| self.now.get());
        let (status, unlocked, why) = match self.locks().try_code(&request, hash, identity, at) {
            Found::Opened => (200, commit, "the code fits"),
            Found::NotLocked => (when_not_locked, false, "not locked"),
            Found::WrongCode => (404, false, "the code does not fit"),
            Found::UnknownDevice => (404, false, "unknown device"),
            Found::OtherIdentity => (404, false, "product type, IMEI or MEID differ"),
        };
        (status, unlocked, why.to_owned())
    }
}

/// What is told to the client of a true answer.
fn text_for(status: u16, note: &str) -> String {
    match status {
        200 => String::new(),
        404 => "escrow key mismatch".to_owned(),
        _ => note.to_owned(),
    }
}

#[derive(Clone)]
struct Service(Arc<Shared>);

impl Speaker for Service {
    fn tls(&self) -> Option<Arc<ServerConfig>> {
        Some(self.0.settings().tls.clone())
    }

    fn welcomes(&self, _connection: u64) -> bool {
        self.0.connections.fetch_add(1, Ordering::SeqCst);
        let one_less = |times: u64| times.checked_sub(1);
        self.0
            .close_at_accept
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .is_err()
    }

    fn handshake_refused(&self, connection: u64, why: String) {
        self.0.refused.add(|_| RefusedHandshake { connection, why });
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
        let mut seen = Seen::default();
        let request = request::read(&parts.method, &parts.uri, &parts.headers, &body, &mut seen);
        let shared = self.0.clone();
        let (certificate_subject, topic) = connection
            .client
            .first()
            .map(authority::subject_of)
            .unwrap_or_default();
        let serial = seen.query.get("serial").cloned();
        let fault = shared
            .faults()
            .take(|fault| fault.fits(parts.uri.path(), serial.as_deref()));
        let number = shared.calls.add(|number| UnlockCall {
            number,
            at: shared.now.get(),
            connection: connection.number,
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: seen.query,
            serial,
            org_name: seen.org_name,
            guid: seen.guid,
            code_fingerprint: seen.escrow_key.as_deref().map(fingerprint),
            certificate_subject,
            topic,
            answered: Answered::Pending,
            unlocked: false,
            fault: fault.as_ref().map(|fault| fault.name),
            note: String::new(),
        });
        // As at Apple, a request that has arrived is worked on even if the client no longer waits.
        let work = tokio::spawn(work(
            shared,
            connection,
            number,
            request,
            seen.escrow_key,
            fault,
        ));
        work.await.unwrap_or(Err(Hangup))
    }
}

async fn work(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    number: u64,
    request: Result<UnlockRequest, Malformed>,
    escrow_key: Option<String>,
    fault: Option<Fault>,
) -> Result<Response<Body>, Hangup> {
    let fault = fault.unwrap_or_else(Fault::none);
    fault.hold_before().await;
    let (status, unlocked, note) = shared.judge(&connection, request, fault.commits());
    shared.calls.amend(number, |call| call.unlocked = unlocked);
    fault.hold_after().await;
    let truth = Truth {
        status,
        headers: Vec::new(),
        body: text_for(status, &note).into_bytes(),
    };
    let secret = escrow_key.unwrap_or_default();
    let (answered, answer) = fault.answer(truth, &secret, answer::told, &connection);
    shared.calls.amend(number, |call| {
        call.answered = answered;
        call.note = note;
    });
    answer
}
