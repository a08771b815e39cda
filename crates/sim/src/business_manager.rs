//! Apple's Business and School Manager API: strict, with memory, a journal, and faults on demand.
//!
//! One listener serves what Apple has on two hosts: `POST /auth/oauth2/v2/token`, which verifies the client's assertion for
//! real, and `GET /v1/orgDevices...` with the lock status, whose truth is the table of the [`Apple`] beside it. It is written
//! from contract sheet section 4; what Apple does where the sheet is silent is an option, or decided so:
//!
//! * Every fault of an assertion is 400 `invalid_client`. The very same assertion may be used until it ends, unless
//!   [`BusinessManagerOptions::one_time_assertions`]; another assertion with a `jti` that was used is refused.
//! * Unknown claims, header parameters, form and query parameters are refused.
//! * An access token is good for both kinds of client; several may be good at once.
//! * `limit` is 1 to 1000, 100 when it is left out.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use aws_lc_rs::{
    encoding::{AsDer, EcPrivateKeyRfc5915Der},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use axum::body::Body;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rcgen::{KeyPair, PublicKeyData};
use rustls::ServerConfig;
use serde::Serialize;
use time::OffsetDateTime;

pub use self::devices::OrgDevice;
use self::{
    devices::Devices,
    service::{Judged, Noted, Received},
};
pub use crate::fault::Fault as BusinessFault;
use crate::{
    Apple, Journal, Now, StartError,
    answer::Answered,
    apple::tls,
    cursor::Cursors,
    fault::{Fault, Queue},
    listener::{Connection, Hangup, Listener, Speaker},
};

mod assertion;
mod devices;
mod service;

/// The path of the token endpoint.
pub const TOKEN_PATH: &str = "/auth/oauth2/v2/token";

/// The `aud` that Apple documents. Contract sheet 4.7.
pub const AUDIENCE: &str = "https://account.apple.com/auth/oauth2/v2/token";

/// The largest request body that is read, in bytes.
const LARGEST_BODY: usize = 64 * 1024;

/// How the fake behaves.
#[derive(Clone, Debug)]
pub struct BusinessManagerOptions {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The time by which assertions and tokens are judged and the journal is dated.
    pub now: Now,
    /// How long an access token is good.
    pub token_lifetime: Duration,
    /// How far in the future an assertion may say that it was made.
    pub clock_skew: Duration,
    /// Whether an assertion is good once only.
    pub one_time_assertions: bool,
    /// The `aud` that is demanded.
    pub audience: String,
    /// How old the lock status is that is told: nobody knows (contract sheet 9.8).
    pub stale_for: Duration,
    /// How many entries the journal keeps.
    pub journal: usize,
}

impl Default for BusinessManagerOptions {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 0).into(),
            now: Now::wall(),
            token_lifetime: Duration::from_secs(60 * 60),
            clock_skew: Duration::from_secs(5 * 60),
            one_time_assertions: false,
            audience: AUDIENCE.to_owned(),
            stale_for: Duration::ZERO,
            journal: 100_000,
        }
    }
}

/// Which of the two an account is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountKind {
    /// Apple Business Manager: scope `business.api`.
    Business,
    /// Apple School Manager: scope `school.api`.
    School,
}

impl AccountKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Business => "BUSINESSAPI.",
            Self::School => "SCHOOLAPI.",
        }
    }

    /// The scope that goes with it.
    pub fn scope(self) -> &'static str {
        match self {
            Self::Business => "business.api",
            Self::School => "school.api",
        }
    }
}

/// An API account, as an administrator makes it: the key is shown once.
#[derive(Clone, Serialize)]
pub struct ApiAccount {
    /// `BUSINESSAPI.` or `SCHOOLAPI.`, and an identifier.
    pub client_id: String,
    /// Which of the client's keys it is.
    pub key_id: String,
    /// The private key, P-256, as PKCS#8.
    pub private_key_pem: String,
    /// The same key in the older form, `EC PRIVATE KEY`.
    pub private_key_sec1_pem: String,
}

impl fmt::Debug for ApiAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiAccount")
            .field("client_id", &self.client_id)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// What is answered when a device's lock status is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StatusAnswer {
    /// What Apple's table says, or said a while ago.
    #[default]
    Truth,
    /// The truth, and attributes that no document knows.
    MoreThanTruth,
    /// No attributes at all.
    Missing,
    /// These attributes alone.
    Exactly {
        /// `isLocked`
        is_locked: Option<bool>,
        /// `lockType`
        lock_type: Option<String>,
    },
    /// Locked, with this text as `lockType`.
    Other(String),
    /// The answer is about the device with this serial number instead.
    AboutAnother(String),
    /// The device has a state that is internal to Apple: 500 with an `ErrorResponse`.
    InternalState,
}

/// One request, as the journal has it. No secret is in it.
#[derive(Clone, Debug, Serialize)]
pub struct BusinessCall {
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
    /// The client's id, as far as it is known.
    pub client_id: Option<String>,
    /// `kid` of an assertion.
    pub key_id: Option<String>,
    /// The serial number in the path.
    pub serial: Option<String>,
    /// The access token that was given, or that was used; they count from 1.
    pub token_number: Option<u64>,
    /// What was answered.
    pub answered: Answered,
    /// The code of the error: `invalid_client`, `NOT_FOUND`, ...
    pub error: Option<String>,
    /// The fault that was applied.
    pub fault: Option<&'static str>,
    /// Why it was answered so; known only here, the client is not told.
    pub note: String,
}

/// A running fake of the API. A clone is the same service, which stops when the last is dropped.
#[derive(Clone)]
pub struct BusinessManager {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
}

struct Shared {
    apple: Apple,
    now: Now,
    tls: Arc<ServerConfig>,
    audience: String,
    cursors: Cursors,
    state: Mutex<State>,
    faults: Mutex<Queue<Fault>>,
    calls: Journal<BusinessCall>,
}

struct State {
    rng: ChaCha8Rng,
    accounts: Vec<Account>,
    tokens: HashMap<String, AccessToken>,
    tokens_given: u64,
    devices: Devices,
    statuses: HashMap<String, StatusAnswer>,
    token_lifetime: time::Duration,
    clock_skew: time::Duration,
    one_time_assertions: bool,
    stale_for: Duration,
}

struct Account {
    kind: AccountKind,
    client_id: String,
    key_id: String,
    /// The uncompressed point.
    public_key: Vec<u8>,
    denied: bool,
    /// By `jti`: the fingerprint of the assertion, and when it ends.
    used: HashMap<String, (String, i64)>,
}

struct AccessToken {
    number: u64,
    account: usize,
    ends: OffsetDateTime,
}

impl BusinessManager {
    /// Starts to listen, beside `apple`: its table says what is locked, its authority certifies this service too.
    ///
    /// # Errors
    ///
    /// When it cannot listen, or its certificate cannot be made.
    pub async fn start(apple: &Apple, options: BusinessManagerOptions) -> Result<Self, StartError> {
        let authority = apple.authority();
        let long = |duration| time::Duration::try_from(duration).unwrap_or(time::Duration::MAX);
        let shared = Arc::new(Shared {
            apple: apple.clone(),
            tls: tls::without_clients(authority, options.now.clone())?,
            now: options.now,
            audience: options.audience,
            cursors: Cursors::new(&authority.seed()?),
            state: Mutex::new(State {
                rng: ChaCha8Rng::from_seed(authority.seed()?),
                accounts: Vec::new(),
                tokens: HashMap::new(),
                tokens_given: 0,
                devices: Devices::new(),
                statuses: HashMap::new(),
                token_lifetime: long(options.token_lifetime),
                clock_skew: long(options.clock_skew),
                one_time_assertions: options.one_time_assertions,
                stale_for: options.stale_for,
            }),
            faults: Mutex::default(),
            calls: Journal::new(options.journal),
        });
        let listener = Listener::start(options.listen, Service(shared.clone())).await?;
        Ok(Self {
            shared,
            listener: Arc::new(listener),
        })
    }

    /// `https://127.0.0.1:PORT`, without a path: in place of `https://api-business.apple.com` and its school sister.
    pub fn api_url(&self) -> String {
        format!("https://{}", self.listener.address())
    }

    /// The whole URL of the token endpoint.
    pub fn token_url(&self) -> String {
        format!("{}{TOKEN_PATH}", self.api_url())
    }

    /// The `aud` that an assertion must have: Apple's own literal unless told otherwise, wherever the fake listens.
    pub fn audience(&self) -> String {
        self.shared.audience.clone()
    }

    /// The certificate authority of the server, PEM: the same as [`Apple::ca_pem`].
    pub fn ca_pem(&self) -> String {
        self.shared.apple.ca_pem()
    }

    /// An administrator makes an API account.
    pub fn issue_account(&self, kind: AccountKind) -> ApiAccount {
        let key = KeyPair::generate().expect("a P-256 key can be made");
        let mut state = self.shared.state();
        let account = Account {
            kind,
            client_id: format!("{}{}", kind.prefix(), state.uuid()),
            key_id: state.uuid(),
            public_key: key.der_bytes().to_vec(),
            denied: false,
            used: HashMap::new(),
        };
        let issued = ApiAccount {
            client_id: account.client_id.clone(),
            key_id: account.key_id.clone(),
            private_key_pem: key.serialize_pem(),
            private_key_sec1_pem: sec1_pem(&key),
        };
        state.accounts.push(account);
        issued
    }

    /// Adds a device to the organisation, or changes what is said of it.
    pub fn add_device(&self, device: OrgDevice) {
        let devices = &mut self.shared.state().devices;
        devices.insert(device.serial_number.clone(), device);
    }

    /// The organisation has the device no more: 404.
    pub fn remove_device(&self, serial: &str) {
        self.shared.state().devices.remove(serial);
    }

    /// Says what is answered from now on when this device's lock status is asked.
    pub fn set_status(&self, serial: &str, answer: StatusAnswer) {
        self.shared
            .state()
            .statuses
            .insert(serial.to_owned(), answer);
    }

    /// How old the lock status is that is told from now on.
    pub fn set_stale_for(&self, stale_for: Duration) {
        self.shared.state().stale_for = stale_for;
    }

    /// Every access token is unknown from now on: 401.
    pub fn expire_tokens(&self) {
        self.shared.state().tokens.clear();
    }

    /// How many access tokens were given so far.
    pub fn tokens_given(&self) -> u64 {
        self.shared.state().tokens_given
    }

    /// Says whether the account may read nothing: 403. It still gets access tokens.
    ///
    /// # Panics
    ///
    /// When the account is not one of this service.
    pub fn deny(&self, account: &ApiAccount, denied: bool) {
        let known = self.deny_client(&account.client_id, denied);
        assert!(known, "this service did not issue {account:?}");
    }

    /// The same by the client's id; false when it is unknown.
    pub(crate) fn deny_client(&self, client_id: &str, denied: bool) -> bool {
        let mut state = self.shared.state();
        let mut accounts = state.accounts.iter_mut();
        let found = accounts.find(|account| account.client_id == client_id);
        found.map(|account| account.denied = denied).is_some()
    }

    /// Queues a fault.
    pub fn push_fault(&self, fault: BusinessFault) {
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
    pub fn journal(&self) -> &Journal<BusinessCall> {
        &self.shared.calls
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

impl State {
    fn uuid(&mut self) -> String {
        let mut raw = [0; 16];
        self.rng.fill_bytes(&mut raw);
        let uuid = uuid::Builder::from_random_bytes(raw).into_uuid();
        uuid.hyphenated().to_string()
    }

    /// A new access token for the account.
    fn give_token(&mut self, account: usize, now: OffsetDateTime) -> (u64, String) {
        let mut raw = [0; 32];
        self.rng.fill_bytes(&mut raw);
        let text = data_encoding::BASE64URL_NOPAD.encode(&raw);
        self.tokens.retain(|_, token| token.ends > now);
        self.tokens_given += 1;
        let token = AccessToken {
            number: self.tokens_given,
            account,
            ends: now.saturating_add(self.token_lifetime),
        };
        self.tokens.insert(text.clone(), token);
        (self.tokens_given, text)
    }
}

/// The key as `EC PRIVATE KEY` (RFC 5915).
fn sec1_pem(key: &KeyPair) -> String {
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der())
        .expect("the key was made as PKCS#8 of P-256");
    let der: EcPrivateKeyRfc5915Der<'_> = pair
        .private_key()
        .as_der()
        .expect("a P-256 key can be written in either form");
    let text = data_encoding::BASE64.encode(der.as_ref());
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|at| &text[at..text.len().min(at + 64)])
        .collect();
    format!(
        "-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n",
        lines.join("\n")
    )
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn faults(&self) -> MutexGuard<'_, Queue<Fault>> {
        self.faults.lock().expect("no holder of this lock panics")
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
        let shared = self.0.clone();
        let path = parts.uri.path().to_owned();
        let serial = service::serial_in(&path);
        let fault = shared
            .faults()
            .take(|fault| fault.fits(&path, serial.as_deref()));
        let number = shared.calls.add(|number| BusinessCall {
            number,
            at: shared.now.get(),
            connection: connection.number,
            method: parts.method.to_string(),
            path,
            client_id: None,
            key_id: None,
            serial,
            token_number: None,
            answered: Answered::Pending,
            error: None,
            fault: fault.as_ref().map(|fault| fault.name),
            note: String::new(),
        });
        let received = Received { parts, body };
        let fault = fault.unwrap_or_else(Fault::none);
        // As at Apple, a request that has arrived is worked on even if the client no longer waits.
        let work = tokio::spawn(work(shared, connection, number, received, fault));
        work.await.unwrap_or(Err(Hangup))
    }
}

async fn work(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    number: u64,
    received: Received,
    fault: Fault,
) -> Result<Response<Body>, Hangup> {
    fault.hold_before().await;
    let Judged { truth, noted } = service::judge(&shared, &received, fault.commits());
    let Noted {
        client_id,
        key_id,
        token_number,
        error,
        note,
    } = noted;
    shared.calls.amend(number, |call| {
        call.client_id = client_id;
        call.key_id = key_id;
        call.token_number = token_number;
        call.error = error;
        call.note = note;
    });
    fault.hold_after().await;
    let words = |status| service::told(received.parts.uri.path(), number, status);
    let (answered, answer) = fault.answer(truth, &received.secret(), words, &connection);
    shared.calls.amend(number, |call| call.answered = answered);
    answer
}
