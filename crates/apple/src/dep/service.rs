//! Calls of the enrolment service: the session they need, and what an answer without a result means (contract sheet 2b).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use activation_lock::lock::{Response, Trouble};
use activation_lock::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;
use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Deserialize;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use zeroize::Zeroizing;

use super::nanodep::NanoDep;
use super::oauth::Signer;
use super::token::ServerToken;
use crate::redaction;
use crate::transport::{
    self, ExtraAuthorities, Origin, Timeouts, TransportError, bounded_body, is_refusal,
    retry_after, tls_error, words,
};
use crate::unverified::{
    BODY_LIMIT, DEP_CONTENT_TYPE, DEP_ORIGIN, DEP_PROTOCOL_VERSION, SESSION_PATH,
};

/// The session's header, in requests and answers.
const SESSION: HeaderName = HeaderName::from_static("x-adm-auth-session");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-server-protocol-version");

/// How often one call may be sent in all, while its sessions are refused. A call that is refused its session did nothing.
const MOST_SENDS: usize = 4;

/// Where and how Apple's enrolment service is called.
#[derive(Clone, Debug)]
pub struct DepSettings {
    /// Scheme, host and port; Apple's own by default.
    pub origin: Origin,
    /// Authorities believed beside the public ones.
    pub authorities: ExtraAuthorities,
    /// How long a call may take, with the session that it may need first.
    pub timeouts: Timeouts,
}

impl Default for DepSettings {
    fn default() -> Self {
        Self {
            origin: DEP_ORIGIN
                .parse()
                .expect("Apple's address is an https origin, which a test reads"),
            authorities: ExtraAuthorities::default(),
            timeouts: Timeouts::default(),
        }
    }
}

/// A source of random bytes, for nonces: it fills the whole slice. What one process draws must not come again in another.
pub type RandomBytes = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// Apple's device enrolment service, as one server token sees it. Keeps connections and the session between calls; a clone
/// shares them.
///
/// One service a token: Apple may not bear two sessions of it (contract sheet 2.28).
#[derive(Clone)]
pub struct DepService(Arc<Inner>);

struct Inner {
    client: reqwest::Client,
    origin: Origin,
    timeouts: Timeouts,
    way: Way,
}

enum Way {
    /// To Apple, with a token.
    Token(Box<Holder>),
    /// To NanoDEP, which has the token and the session.
    NanoDep {
        /// The path up to Apple's own.
        prefix: String,
        authorization: HeaderValue,
        api_key: Zeroizing<String>,
    },
}

/// Who proves itself by a token, in one session at a time.
struct Holder {
    token: ServerToken,
    random: RandomBytes,
    current: Mutex<Current>,
    /// Held by who begins a session.
    beginning: tokio::sync::Mutex<()>,
    /// Held by who calls: beside others, or alone.
    turns: RwLock<()>,
}

/// The session that calls begin with.
#[derive(Default)]
struct Current {
    /// How many were begun.
    number: u64,
    text: Option<HeaderValue>,
}

/// The session that a call was sent with.
#[derive(Clone)]
struct Session {
    number: u64,
    text: HeaderValue,
}

/// One call, as it is sent. Its body may be sent again.
pub(super) struct Call {
    pub(super) path: &'static str,
    /// JSON; a GET without one.
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
    /// The most that is read of the answer, in bytes.
    pub(super) limit: usize,
    /// What is taken out of everything that is said back (R23).
    pub(super) secrets: Vec<Zeroizing<String>>,
}

/// An answer to a call, whatever it says.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Zeroizing<Vec<u8>>,
    /// Whether the body went on.
    pub(super) is_cut: bool,
    rotated: Option<HeaderValue>,
    secrets: Vec<Zeroizing<String>>,
}

impl Reply {
    /// Whether its fields may be kept: none of them repeats a secret of the question.
    pub(super) fn is_fit_to_keep(&self) -> bool {
        let secrets: Vec<&str> = self.secrets.iter().map(|text| text.as_str()).collect();
        !redaction::repeats(&self.body, &secrets)
    }

    /// A word of it, without any secret.
    pub(super) fn word(&self, word: &str) -> String {
        let secrets: Vec<&str> = self.secrets.iter().map(|text| text.as_str()).collect();
        redaction::diagnostic(word.as_bytes(), false, &secrets)
    }

    /// What it says in words, without any secret.
    pub(super) fn diagnostic(&self) -> String {
        let read = self.body.len().min(BODY_LIMIT);
        let is_cut = self.is_cut || read < self.body.len();
        let secrets: Vec<&str> = self.secrets.iter().map(|text| text.as_str()).collect();
        redaction::diagnostic(&self.body[..read], is_cut, &secrets)
    }

    /// Whether the body, bare or a JSON string, holds the word (contract sheet 2.24).
    pub(super) fn says(&self, word: &str) -> bool {
        let word = word.as_bytes();
        self.body.windows(word.len()).any(|found| found == word)
    }

    /// What the body of a refusal names. NanoDEP passes it on under another status.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        match self.status {
            200..=299 => None,
            _ if self.says("T_C_NOT_SIGNED") => Some(Trouble::TermsNotSigned),
            _ if self.says("ACCESS_DENIED") => Some(Trouble::AccessDenied),
            _ => None,
        }
    }

    /// It does not know the session (any more); nothing else is wrong (contract sheet 2.21, 2.24).
    fn refuses_session(&self) -> bool {
        match self.status {
            401 => self.trouble().is_none(),
            403 => self.trouble().is_none() && self.says("FORBIDDEN"),
            _ => false,
        }
    }

    /// What it means, unless it is a 200 with something to say.
    pub(super) fn response(&self) -> Response {
        Response::Status {
            code: self.status,
            retry_after: self.retry_after.is_some(),
            trouble: self.trouble(),
        }
    }
}

/// Why there is no answer to a call.
pub(super) enum Failure {
    /// There is no session, and the call did not leave.
    NoSession(NoSession),
    /// It failed on its way.
    Failed(Failed),
}

/// How a request ended that got no answer.
pub(super) struct Failed {
    response: Response,
    diagnostic: String,
    /// Whether a byte of it may have left.
    may_have_left: bool,
}

/// How a session was not begun.
pub(super) enum NoSession {
    /// Apple answered something else.
    Answered(Reply),
    /// Apple did not answer.
    Failed(Failed),
}

/// What is known when a call got no result.
pub(super) struct Told {
    pub(super) response: Response,
    pub(super) status: Option<u16>,
    pub(super) retry_after: Option<Duration>,
    pub(super) diagnostic: String,
    /// Whether a byte of the call itself may have left.
    pub(super) may_have_left: bool,
}

impl From<Failure> for Told {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Failed(failed) => Self {
                response: failed.response,
                status: None,
                retry_after: None,
                diagnostic: failed.diagnostic,
                may_have_left: failed.may_have_left,
            },
            Failure::NoSession(NoSession::Failed(failed)) => Self {
                response: match failed.response {
                    Response::TlsRefused => Response::TlsRefused,
                    _ => Response::NotSent,
                },
                status: None,
                retry_after: None,
                diagnostic: format!("no session was begun: {}", failed.diagnostic),
                may_have_left: false,
            },
            Failure::NoSession(NoSession::Answered(reply)) => Self {
                response: match (reply.status, reply.trouble()) {
                    (_, Some(_)) => reply.response(),
                    (401 | 403, None) => Response::TokenRefused,
                    // A server that has no session to give today, or gives something else.
                    (200..=299 | 408 | 500..=599, None) => Response::NotSent,
                    (_, None) => reply.response(),
                },
                status: Some(reply.status),
                retry_after: reply.retry_after,
                diagnostic: match reply.status {
                    // What is given with success is not repeated: it may be a session.
                    200..=299 => "no session was begun: the answer holds none".to_owned(),
                    _ => format!("no session was begun: {}", reply.diagnostic()),
                },
                may_have_left: false,
            },
        }
    }
}

impl DepService {
    /// A service that proves itself with this token. Nothing is sent yet.
    ///
    /// # Errors
    /// When TLS cannot be set up with these authorities.
    pub fn new(
        settings: &DepSettings,
        token: ServerToken,
        random: RandomBytes,
    ) -> Result<Self, TransportError> {
        let way = Way::Token(Box::new(Holder {
            token,
            random,
            current: Mutex::default(),
            beginning: tokio::sync::Mutex::default(),
            turns: RwLock::default(),
        }));
        Self::made(
            &settings.origin,
            &settings.authorities,
            settings.timeouts,
            way,
        )
    }

    /// A service that is called through NanoDEP. Calls mean the same; who is refused is NanoDEP or we by it, see
    /// [`DepError`](super::DepError).
    ///
    /// # Errors
    /// When TLS cannot be set up with these authorities.
    pub fn through_nanodep(
        nanodep: &NanoDep,
        authorities: &ExtraAuthorities,
        timeouts: Timeouts,
    ) -> Result<Self, TransportError> {
        let credentials = Zeroizing::new(format!("depserver:{}", *nanodep.api_key));
        let mut authorization =
            HeaderValue::try_from(format!("Basic {}", STANDARD.encode(credentials.as_bytes())))
                .expect("base64 is fit for a header");
        authorization.set_sensitive(true);
        let way = Way::NanoDep {
            prefix: nanodep.prefix.clone(),
            authorization,
            api_key: nanodep.api_key.clone(),
        };
        Self::made(&nanodep.origin, authorities, timeouts, way)
    }

    fn made(
        origin: &Origin,
        authorities: &ExtraAuthorities,
        timeouts: Timeouts,
        way: Way,
    ) -> Result<Self, TransportError> {
        Ok(Self(Arc::new(Inner {
            client: transport::client(None, authorities, timeouts)?,
            origin: origin.clone(),
            timeouts,
            way,
        })))
    }

    /// The host that hashes are sent to, which audit rows name (R17).
    #[must_use]
    pub fn recipient(&self) -> &str {
        self.0.origin.host()
    }

    /// The longest that one call takes, with the session that it may need first: what a lease must outlast (R16).
    #[must_use]
    pub fn longest_call(&self) -> Duration {
        self.0.timeouts.overall
    }

    /// Whether calls go through NanoDEP.
    pub(super) fn is_delegated(&self) -> bool {
        matches!(self.0.way, Way::NanoDep { .. })
    }

    /// Sends one call, with a session, and again with a new one when the session is refused. `now` dates the signature.
    pub(super) async fn call(&self, call: &Call, now: Timestamp) -> Result<Reply, Failure> {
        let has_left = AtomicBool::new(false);
        let exchange = self.exchange(call, now, &has_left);
        match tokio::time::timeout(self.0.timeouts.overall, exchange).await {
            Ok(result) => result,
            Err(_) => {
                let may_have_left = has_left.load(Ordering::Relaxed);
                let failed = Failed {
                    response: Response::NoAnswer,
                    diagnostic: "the time ran out".to_owned(),
                    may_have_left,
                };
                Err(match may_have_left {
                    true => Failure::Failed(failed),
                    false => Failure::NoSession(NoSession::Failed(failed)),
                })
            }
        }
    }

    /// `has_left` says, should the time run out, whether the call was under way.
    async fn exchange(
        &self,
        call: &Call,
        now: Timestamp,
        has_left: &AtomicBool,
    ) -> Result<Reply, Failure> {
        let Way::Token(holder) = &self.0.way else {
            has_left.store(true, Ordering::Relaxed);
            return self.send(call, None, now).await;
        };
        let mut refused = None;
        let mut was_renewed = false;
        let mut sends = 0;
        loop {
            // Calls at once may take a session's text from each other, so who was refused twice is sent alone.
            let _turn = holder.turn(sends >= 2).await;
            let session = match refused {
                None => self.session(holder, now).await,
                Some((_, reply)) if sends == MOST_SENDS => return Ok(reply),
                Some((used, reply)) => {
                    let next = self.session_after(holder, &used, &mut was_renewed, now);
                    match next.await {
                        Ok(None) => return Ok(reply),
                        Ok(Some(session)) => Ok(session),
                        Err(none) => Err(none),
                    }
                }
            }
            .map_err(Failure::NoSession)?;
            has_left.store(true, Ordering::Relaxed);
            let reply = self.send(call, Some(&session), now).await?;
            if !reply.refuses_session() {
                holder.adopt(&session, &reply);
                return Ok(reply);
            }
            has_left.store(false, Ordering::Relaxed);
            refused = Some((session, reply));
            sends += 1;
        }
    }

    async fn send(
        &self,
        call: &Call,
        session: Option<&Session>,
        now: Timestamp,
    ) -> Result<Reply, Failure> {
        let mut secrets = call.secrets.clone();
        let (path, credential) = match &self.0.way {
            Way::Token(holder) => {
                secrets.extend(secrets_of(&holder.token));
                let session = session.map(|session| (SESSION, &session.text));
                (call.path.to_owned(), session)
            }
            Way::NanoDep {
                prefix,
                authorization,
                api_key,
            } => {
                secrets.push(api_key.clone());
                let authorization = (AUTHORIZATION, authorization);
                (format!("{prefix}{}", call.path), Some(authorization))
            }
        };
        let method = match call.body {
            Some(_) => Method::POST,
            None => Method::GET,
        };
        let mut request = self.request(method, &path);
        if let Some((name, value)) = credential {
            request = request.header(name, value);
            secrets.extend(text_of(value));
        }
        if let Some(body) = &call.body {
            request = request.body(body.to_vec());
        }
        match request.send().await {
            Ok(response) => Ok(read(response, call.limit, secrets, now).await),
            Err(error) => Err(Failure::Failed(failed(&error, &secrets))),
        }
    }

    /// What every call of the service has in common (contract sheet 2.25).
    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.0
            .client
            .request(method, self.0.origin.at(path, None))
            .header(PROTOCOL_VERSION, DEP_PROTOCOL_VERSION)
            .header(CONTENT_TYPE, DEP_CONTENT_TYPE)
            .header(ACCEPT, DEP_CONTENT_TYPE)
    }

    /// The session to call with. One caller begins it, and the others wait for that one.
    async fn session(&self, holder: &Holder, now: Timestamp) -> Result<Session, NoSession> {
        if let Some(session) = holder.current().session() {
            return Ok(session);
        }
        let _alone = holder.beginning.lock().await;
        let begun = holder.current().session();
        match begun {
            Some(session) => Ok(session),
            None => self.begin(holder, now).await,
        }
    }

    /// The session to call with after this one was refused: the one that other calls have meanwhile, else a new one, else,
    /// when this call had a new one already, none.
    async fn session_after(
        &self,
        holder: &Holder,
        refused: &Session,
        was_renewed: &mut bool,
        now: Timestamp,
    ) -> Result<Option<Session>, NoSession> {
        let _alone = holder.beginning.lock().await;
        if let Some(session) = holder.current().other_than(refused) {
            return Ok(Some(session));
        }
        if *was_renewed {
            return Ok(None);
        }
        *was_renewed = true;
        self.begin(holder, now).await.map(Some)
    }

    /// `GET /session` (contract sheet 2.20), by one caller at a time.
    async fn begin(&self, holder: &Holder, now: Timestamp) -> Result<Session, NoSession> {
        let token = &holder.token;
        let mut nonce = [0; 16];
        (holder.random)(&mut nonce);
        let (authorization, signature) = Signer {
            realm: "ADM",
            consumer_key: token.consumer_key(),
            consumer_secret: token.consumer_secret(),
            token: token.access_token(),
            token_secret: token.access_secret(),
            timestamp: u64::try_from(now.0.div_euclid(1000)).unwrap_or_default(),
            nonce: &HEXLOWER.encode(&nonce),
            version: true,
        }
        .authorization("GET", &self.0.origin.at(SESSION_PATH, None));
        let mut authorization = HeaderValue::try_from(authorization.as_str())
            .expect("what is not a letter, a digit or a plain sign is escaped");
        authorization.set_sensitive(true);
        let mut secrets: Vec<_> = secrets_of(token).collect();
        secrets.extend(text_of(&authorization));
        secrets.push(signature);
        let sent = self
            .request(Method::GET, SESSION_PATH)
            .header(AUTHORIZATION, authorization)
            .send()
            .await;
        let reply = match sent {
            Ok(response) => read(response, BODY_LIMIT, secrets, now).await,
            Err(error) => return Err(NoSession::Failed(failed(&error, &secrets))),
        };
        match session_in(&reply) {
            None => Err(NoSession::Answered(reply)),
            Some(text) => Ok(holder.current().begun(text)),
        }
    }
}

impl Holder {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A turn to call beside others, or alone.
    async fn turn(
        &self,
        alone: bool,
    ) -> (
        Option<RwLockReadGuard<'_, ()>>,
        Option<RwLockWriteGuard<'_, ()>>,
    ) {
        match alone {
            false => (Some(self.turns.read().await), None),
            true => (None, Some(self.turns.write().await)),
        }
    }

    /// Takes over the session's new text, when the answer brings one and the session is still the one we have.
    fn adopt(&self, used: &Session, reply: &Reply) {
        let mut current = self.current();
        if let Some(rotated) = &reply.rotated
            && current.number == used.number
            && current.text.is_some()
        {
            current.text = Some(rotated.clone());
        }
    }
}

impl Current {
    fn session(&self) -> Option<Session> {
        let text = self.text.clone()?;
        let number = self.number;
        Some(Session { number, text })
    }

    /// The session, when it is not the one that was refused; that one is forgotten.
    fn other_than(&mut self, refused: &Session) -> Option<Session> {
        let session = self.session()?;
        match session.text == refused.text {
            true => {
                self.text = None;
                None
            }
            false => Some(session),
        }
    }

    fn begun(&mut self, text: HeaderValue) -> Session {
        self.number += 1;
        self.text = Some(text.clone());
        let number = self.number;
        Session { number, text }
    }
}

/// The session that the answer to `/session` gives.
fn session_in(reply: &Reply) -> Option<HeaderValue> {
    #[derive(Deserialize)]
    struct Body {
        auth_session_token: String,
    }
    if reply.status != 200 || reply.is_cut {
        return None;
    }
    let body: Body = serde_json::from_slice(&reply.body).ok()?;
    sensitive(HeaderValue::try_from(body.auth_session_token).ok()?)
}

/// The text of a session, kept out of everything that prints headers; none when it is empty.
fn sensitive(mut text: HeaderValue) -> Option<HeaderValue> {
    text.set_sensitive(true);
    (!text.is_empty()).then_some(text)
}

fn secrets_of(token: &ServerToken) -> impl Iterator<Item = Zeroizing<String>> {
    [
        token.consumer_secret(),
        token.access_token(),
        token.access_secret(),
    ]
    .map(|text| Zeroizing::new(text.to_owned()))
    .into_iter()
}

fn text_of(header: &HeaderValue) -> Option<Zeroizing<String>> {
    let text = header.to_str().ok()?;
    Some(Zeroizing::new(text.to_owned()))
}

async fn read(
    response: reqwest::Response,
    limit: usize,
    mut secrets: Vec<Zeroizing<String>>,
    now: Timestamp,
) -> Reply {
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers(), now);
    let rotated = response.headers().get(SESSION).cloned();
    let rotated = rotated.and_then(sensitive);
    secrets.extend(rotated.as_ref().and_then(text_of));
    let (body, is_cut) = bounded_body(response, limit).await;
    Reply {
        status,
        retry_after,
        body: Zeroizing::new(body),
        is_cut,
        rotated,
        secrets,
    }
}

fn failed(error: &reqwest::Error, secrets: &[Zeroizing<String>]) -> Failed {
    let never_left = error.is_connect() || error.is_builder();
    let secrets: Vec<&str> = secrets.iter().map(|text| text.as_str()).collect();
    Failed {
        response: match tls_error(error) {
            // An alert in the place of an answer does not say that Apple did nothing: the lock may be on.
            Some(error) if never_left && is_refusal(error) => Response::TlsRefused,
            _ if never_left => Response::NotSent,
            _ => Response::NoAnswer,
        },
        diagnostic: redaction::diagnostic(words(error).as_bytes(), false, &secrets),
        may_have_left: !never_left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_apples_own_address() {
        let settings = DepSettings::default();
        assert_eq!(settings.origin.to_string(), DEP_ORIGIN);
        let url = settings.origin.at(SESSION_PATH, None);
        assert_eq!(url.as_str(), "https://mdmenrollment.apple.com/session");
    }
}
