//! Apple's own word on a lock: the API of Apple Business Manager and Apple School Manager (contract sheet, section 4).
//!
//! It only reads: no call of it turns a lock on or off. [`BusinessService::lock_status`] asks for one device's lock,
//! [`BusinessService::org_device`] and [`BusinessService::org_devices`] for what the organisation owns. An [`ApiAccount`] is
//! who asks: with its private key it is given an access token, which is kept until shortly before its end.

pub(crate) mod access_token;
pub mod assertion;
pub(crate) mod lock_status;
pub(crate) mod org_devices;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use activation_lock::device::SerialNumber;
use activation_lock::time::Timestamp;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use access_token::{AccessToken, AccessTokens};
use assertion::{ClientAssertion, SigningKey};

use crate::escrow_key_unlock::{retry_after, words};
use crate::redaction;
use crate::transport::{
    self, Endpoint, ExtraAuthorities, Origin, Timeouts, TransportError, bounded_body,
};
use crate::unverified::{BUSINESS_AUDIENCE, BUSINESS_ORIGIN, BUSINESS_TOKEN_URL, SCHOOL_ORIGIN};

pub use lock_status::StatusAnswer;
pub use org_devices::{OrgDevice, Page};

/// The longest client ID or key ID, in characters.
const LONGEST_ID: usize = 200;
/// The most of an answer about one device, or of one with a token, that is read, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;
/// What both services take and give.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Which of the two services an account belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programme {
    /// Apple Business Manager.
    Business,
    /// Apple School Manager.
    School,
}

impl Programme {
    /// By how the client ID begins (contract sheet 4.8).
    fn of(client_id: &str) -> Option<Self> {
        let begins = |prefix| {
            client_id
                .strip_prefix(prefix)
                .is_some_and(|rest| !rest.is_empty())
        };
        if begins("BUSINESSAPI.") {
            Some(Self::Business)
        } else if begins("SCHOOLAPI.") {
            Some(Self::School)
        } else {
            None
        }
    }

    /// The scope that an access token is asked for.
    #[must_use]
    pub fn scope(self) -> &'static str {
        match self {
            Self::Business => "business.api",
            Self::School => "school.api",
        }
    }
}

impl fmt::Display for Programme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Business => "Apple Business Manager",
            Self::School => "Apple School Manager",
        })
    }
}

/// An API account: by what Apple knows who asks (contract sheet 4.11). No Debug: it holds the key.
#[derive(Clone)]
pub struct ApiAccount {
    client_id: String,
    key_id: String,
    key: SigningKey,
    programme: Programme,
}

/// Why texts do not name an API account. They are not repeated, since a secret may have been given in their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiAccountError {
    /// The client ID is not one.
    #[error(
        "this is no client ID of an API account: it begins with BUSINESSAPI. (Apple Business Manager) or SCHOOLAPI. (Apple School Manager); copy it from the API account there"
    )]
    ClientId,
    /// The key ID is not one.
    #[error(
        "this is no key ID of an API account: it is empty, too long, or holds spaces; copy it from the API account in Apple Business Manager or Apple School Manager"
    )]
    KeyId,
}

impl ApiAccount {
    /// The account of a client ID, the ID of its key, and the key. Spaces around the IDs are dropped.
    ///
    /// # Errors
    /// When an ID is not one; of the client ID, its beginning decides.
    pub fn new(client_id: &str, key_id: &str, key: SigningKey) -> Result<Self, ApiAccountError> {
        let is_id = |text: &str| {
            (1..=LONGEST_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
        };
        let (client_id, key_id) = (client_id.trim(), key_id.trim());
        let programme = Programme::of(client_id)
            .filter(|_| is_id(client_id))
            .ok_or(ApiAccountError::ClientId)?;
        if !is_id(key_id) {
            return Err(ApiAccountError::KeyId);
        }
        Ok(Self {
            client_id: client_id.to_owned(),
            key_id: key_id.to_owned(),
            key,
            programme,
        })
    }

    /// The client ID, `BUSINESSAPI.` or `SCHOOLAPI.` and a UUID. No secret.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The ID of the key. No secret.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Which service it belongs to.
    #[must_use]
    pub fn programme(&self) -> Programme {
        self.programme
    }

    /// A signed proof that this account asks, made at `now` for `audience`. `identifier` is 16 random bytes, never used twice.
    #[must_use]
    pub fn assertion(
        &self,
        audience: &str,
        now: Timestamp,
        identifier: [u8; 16],
    ) -> ClientAssertion {
        assertion::sign(
            &self.client_id,
            &self.key_id,
            &self.key,
            audience,
            now,
            identifier,
        )
    }
}

/// Where and how Apple is called.
#[derive(Clone, Debug)]
pub struct BusinessSettings {
    /// Where the API of Apple Business Manager is.
    pub business_origin: Origin,
    /// Where the API of Apple School Manager is.
    pub school_origin: Origin,
    /// Where access tokens are given, to accounts of both.
    pub token_url: Endpoint,
    /// What an assertion is addressed to. A name, which need not be the token URL.
    pub audience: String,
    /// Authorities believed beside the public ones.
    pub authorities: ExtraAuthorities,
    /// How long each request may take.
    pub timeouts: Timeouts,
}

impl Default for BusinessSettings {
    fn default() -> Self {
        let origin = |text: &str| {
            text.parse()
                .expect("Apple's address is an https origin, which a test reads")
        };
        Self {
            business_origin: origin(BUSINESS_ORIGIN),
            school_origin: origin(SCHOOL_ORIGIN),
            token_url: BUSINESS_TOKEN_URL
                .parse()
                .expect("Apple's address is an https URL, which a test reads"),
            audience: BUSINESS_AUDIENCE.to_owned(),
            authorities: ExtraAuthorities::default(),
            timeouts: Timeouts::default(),
        }
    }
}

/// Why Apple's service gave nothing. Displays what happened, what it means, and what to do; holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusinessError {
    /// Apple does not accept the account, or not for this. Nothing goes on before a person has mended it.
    #[error(transparent)]
    Credential(Refusal),
    /// Nothing was decided: Apple was not reached, or asked us to come back.
    #[error(
        "{}; nothing is known, ask again later",
        unavailable(*.status, *.retry_after)
    )]
    Unavailable {
        /// The HTTP status, when one arrived.
        status: Option<u16>,
        /// How long Apple asked us to wait.
        retry_after: Option<Duration>,
        /// What Apple, or the failure, says in words, without any secret. May be empty.
        diagnostic: String,
    },
    /// An answer nobody described.
    #[error(
        "Apple's service answered in a way that is not described (HTTP status {status}); nothing is known, and asking again will not help before it is found out what answered"
    )]
    Unexpected {
        /// The HTTP status.
        status: u16,
        /// What Apple says, or what is wrong with the answer, in words, without any secret. May be empty.
        diagnostic: String,
    },
}

/// How Apple refused an account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No access token was given.
    #[error("{}", oauth(.error))]
    NoToken {
        /// OAuth's word for it, such as `invalid_client`; the status where there was none.
        error: String,
        /// What Apple says in words. May be empty.
        diagnostic: String,
    },
    /// An access token that was just given was not accepted (401, twice).
    #[error(
        "Apple did not accept the access token that it had just given to the API account (401); see whether the account still exists and belongs to the service that is asked (Business or School)"
    )]
    Token {
        /// What Apple says in words. May be empty.
        diagnostic: String,
    },
    /// The account may not do this (403).
    #[error(
        "the API account may not ask this (403); somebody with the role Administrator has to look at the account and at its rights, in Apple Business Manager or Apple School Manager"
    )]
    Forbidden {
        /// What Apple says in words. May be empty.
        diagnostic: String,
    },
}

fn unavailable(status: Option<u16>, retry_after: Option<Duration>) -> String {
    let mut words = match status {
        None => "Apple's service was not reached, or did not answer".to_owned(),
        Some(429) => "Apple asks us to slow down (429)".to_owned(),
        Some(status) => format!("Apple's service does not answer properly now ({status})"),
    };
    if let Some(wait) = retry_after {
        words.push_str(&format!(" and asks us to wait {} s", wait.as_secs()));
    }
    words
}

/// OAuth's words (RFC 6749, section 5.2) for who has to mend it (contract sheet 4.10).
fn oauth(error: &str) -> String {
    let to_do = match error {
        "invalid_client" => {
            "nearly always the key ID and the private key do not belong together, or the client ID is another \
             organisation's; it can also be a key that was revoked, or a clock here that is wrong by many minutes. Compare \
             client ID, key ID and key with the API account, or make a new key there"
        }
        "invalid_scope" | "unauthorized_client" => {
            "the API account has no right to this service; somebody with the role Administrator has to look at it"
        }
        _ => {
            "compare client ID, key ID and key with the API account, and the time here with the true one"
        }
    };
    format!("Apple gave no access token to the API account ({error}): {to_do}")
}

impl BusinessError {
    /// What Apple, or the failure, says in words, without any secret. May be empty.
    #[must_use]
    pub fn diagnostic(&self) -> &str {
        match self {
            Self::Credential(
                Refusal::NoToken { diagnostic, .. }
                | Refusal::Token { diagnostic }
                | Refusal::Forbidden { diagnostic },
            )
            | Self::Unavailable { diagnostic, .. }
            | Self::Unexpected { diagnostic, .. } => diagnostic,
        }
    }

    /// Whether the next question will fare no better: the trouble is with the account or the service, and not with what was
    /// asked.
    #[must_use]
    pub fn concerns_every_call(&self) -> bool {
        match self {
            Self::Credential(_) => true,
            Self::Unavailable {
                status,
                retry_after,
                ..
            } => retry_after.is_some() || matches!(status, None | Some(429 | 503)),
            Self::Unexpected { .. } => false,
        }
    }
}

/// What a test of an account found. Displays it in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tested {
    /// An access token was given, and devices were read.
    Works,
    /// An access token was given, and the devices could not be read.
    TokenOnly(BusinessError),
    /// Not even that.
    Nothing(BusinessError),
}

impl fmt::Display for Tested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works => f.write_str(
                "the API account was given an access token, and the organisation's devices can be read; whether lock \
                 statuses can be read shows when one is asked for",
            ),
            Self::TokenOnly(error) => write!(
                f,
                "the API account was given an access token, but the organisation's devices could not be read: {error}"
            ),
            Self::Nothing(error) => write!(f, "no access token was given: {error}"),
        }
    }
}

/// Apple's service, as one API account sees it. A clone shares the connections and the access token.
#[derive(Clone)]
pub struct BusinessService(Arc<Inner>);

/// Fills bytes with randomness.
type Random = Box<dyn Fn(&mut [u8]) + Send + Sync>;

struct Inner {
    client: reqwest::Client,
    origin: Origin,
    token_url: Endpoint,
    audience: String,
    timeouts: Timeouts,
    account: ApiAccount,
    random: Random,
    tokens: AccessTokens,
}

impl BusinessService {
    /// The service of the account's programme. `random` fills bytes with randomness nobody can foresee: each assertion has
    /// its own identifier.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(
        settings: &BusinessSettings,
        account: ApiAccount,
        random: impl Fn(&mut [u8]) + Send + Sync + 'static,
    ) -> Result<Self, TransportError> {
        let origin = match account.programme {
            Programme::Business => &settings.business_origin,
            Programme::School => &settings.school_origin,
        };
        Ok(Self(Arc::new(Inner {
            client: transport::client(None, &settings.authorities, settings.timeouts)?,
            origin: origin.clone(),
            token_url: settings.token_url.clone(),
            audience: settings.audience.clone(),
            timeouts: settings.timeouts,
            account,
            random: Box::new(random),
            tokens: AccessTokens::default(),
        })))
    }

    /// The host that is asked.
    #[must_use]
    pub fn recipient(&self) -> &str {
        self.0.origin.host()
    }

    /// The longest that a question takes where nobody else asks for an access token: a token, the question, and both again.
    #[must_use]
    pub fn longest_call(&self) -> Duration {
        self.0.timeouts.overall.saturating_mul(4)
    }

    /// Whether the account works: asks for an access token, unless a good one is at hand, and for one device. Asks nothing
    /// about a lock.
    pub async fn test(&self, now: Timestamp) -> Tested {
        match self.token(now, None).await {
            Err(error) => Tested::Nothing(error),
            Ok(_) => match self.org_devices(None, 1, now).await {
                Err(error) => Tested::TokenOnly(error),
                Ok(_) => Tested::Works,
            },
        }
    }

    /// An access token that is good at `now`, and not the one that was refused.
    async fn token(
        &self,
        now: Timestamp,
        refused: Option<&AccessToken>,
    ) -> Result<Arc<AccessToken>, BusinessError> {
        let ask = access_token::ask(&self.0, now);
        self.0.tokens.get(now, refused, ask).await
    }

    /// Reads a path with at most `limit` bytes of body. On a 401 the access token is renewed once and the call repeated once
    /// (contract sheet 4.9); 401 and 403 are errors, any other status is an answer.
    async fn get(
        &self,
        path: &str,
        query: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Reply, BusinessError> {
        let mut token = self.token(now, None).await?;
        let mut reply = self.get_with(&token, path, query, limit, now).await?;
        if reply.status == 401 {
            token = self.token(now, Some(&token)).await?;
            reply = self.get_with(&token, path, query, limit, now).await?;
        }
        let diagnostic = || reply.diagnostic.clone();
        match reply.status {
            401 => Err(BusinessError::Credential(Refusal::Token {
                diagnostic: diagnostic(),
            })),
            403 => Err(BusinessError::Credential(Refusal::Forbidden {
                diagnostic: diagnostic(),
            })),
            _ => Ok(reply),
        }
    }

    async fn get_with(
        &self,
        token: &AccessToken,
        path: &str,
        query: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Reply, BusinessError> {
        let sent = self
            .0
            .client
            .get(self.0.origin.at(path, query))
            .header(ACCEPT, JSON)
            .header(AUTHORIZATION, token.header())
            .send()
            .await;
        Reply::receive(sent, limit, &[token.text()], now).await
    }
}

fn device_path(serial: &SerialNumber) -> String {
    format!("/v1/orgDevices/{serial}")
}

/// An answer with a status.
pub(crate) struct Reply {
    status: u16,
    retry_after: Option<Duration>,
    body: Zeroizing<Vec<u8>>,
    /// Whether the body went on after what was read of it.
    cut: bool,
    /// What it says in words, without any secret; empty for an answer that gives what was asked.
    diagnostic: String,
}

impl Reply {
    /// Reads an answer to a request that held `secrets`, which are taken out of what it says.
    async fn receive(
        sent: Result<reqwest::Response, reqwest::Error>,
        limit: usize,
        secrets: &[&str],
        now: Timestamp,
    ) -> Result<Self, BusinessError> {
        let response = sent.map_err(|error| BusinessError::Unavailable {
            status: None,
            retry_after: None,
            diagnostic: redaction::diagnostic(words(&error).as_bytes(), false, secrets),
        })?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers(), now);
        let (body, cut) = bounded_body(response, limit).await;
        Ok(Self::new(status, retry_after, body, cut, secrets))
    }

    pub(crate) fn new(
        status: u16,
        retry_after: Option<Duration>,
        body: Vec<u8>,
        cut: bool,
        secrets: &[&str],
    ) -> Self {
        let body = Zeroizing::new(body);
        // What is given with success is not repeated: it may be a token.
        let diagnostic = match (status, ErrorResponse::read(&body)) {
            (200..=299, _) => String::new(),
            (_, Some(response)) => {
                redaction::diagnostic(response.words().as_bytes(), false, secrets)
            }
            (_, None) => redaction::diagnostic(&body, cut, secrets),
        };
        Self {
            status,
            retry_after,
            body,
            cut,
            diagnostic,
        }
    }

    /// The body as it is described.
    fn json<T: DeserializeOwned>(&self) -> Result<T, BusinessError> {
        if self.cut {
            return Err(self.unexpected("the answer is larger than any that is described"));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            // The words of the error may repeat what could not be read.
            if error.is_eof() && !self.body.is_empty() {
                BusinessError::Unavailable {
                    status: Some(self.status),
                    retry_after: self.retry_after,
                    diagnostic: "the answer broke off".to_owned(),
                }
            } else {
                self.unexpected(format!(
                    "the answer is not as it is described, at line {}, column {}",
                    error.line(),
                    error.column()
                ))
            }
        })
    }

    fn unexpected(&self, diagnostic: impl Into<String>) -> BusinessError {
        BusinessError::Unexpected {
            status: self.status,
            diagnostic: diagnostic.into(),
        }
    }

    /// What a status means that is not one of those described for the call.
    fn failure(self) -> BusinessError {
        match self.status {
            408 | 429 | 500..=599 => BusinessError::Unavailable {
                status: Some(self.status),
                retry_after: self.retry_after,
                diagnostic: self.diagnostic,
            },
            _ => BusinessError::Unexpected {
                status: self.status,
                diagnostic: self.diagnostic,
            },
        }
    }
}

/// How Apple writes an error (contract sheet 4.4).
#[derive(Deserialize)]
struct ErrorResponse {
    errors: Vec<ApiProblem>,
}

#[derive(Deserialize)]
struct ApiProblem {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    detail: Option<String>,
}

impl ErrorResponse {
    /// `None` for a body that is something else.
    fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body)
            .ok()
            .filter(|response: &Self| !response.errors.is_empty())
    }

    /// Whether one of the errors has a code that begins so.
    fn has_code(&self, beginning: &str) -> bool {
        self.errors.iter().any(|problem| {
            let code = problem.code.as_deref().unwrap_or_default();
            code.starts_with(beginning)
        })
    }

    fn words(&self) -> String {
        let problem = |problem: &ApiProblem| {
            [&problem.code, &problem.title, &problem.detail]
                .into_iter()
                .flatten()
                .cloned()
                .collect::<Vec<_>>()
                .join(": ")
        };
        self.errors
            .iter()
            .map(problem)
            .collect::<Vec<_>>()
            .join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Reply {
        /// An answer with this body, to a request that held no secret.
        pub(super) fn of(status: u16, body: &str) -> Self {
            Self::new(status, None, body.as_bytes().to_vec(), false, &[])
        }

        pub(super) fn with_retry_after(self, seconds: u64) -> Self {
            Self {
                retry_after: Some(Duration::from_secs(seconds)),
                ..self
            }
        }
    }

    #[test]
    fn the_defaults_are_apples_own_addresses() {
        let settings = BusinessSettings::default();
        assert_eq!(settings.business_origin.to_string(), BUSINESS_ORIGIN);
        assert_eq!(settings.school_origin.to_string(), SCHOOL_ORIGIN);
        assert_eq!(settings.token_url.to_string(), BUSINESS_TOKEN_URL);
        assert_eq!(
            settings.audience, "https://account.apple.com/auth/oauth2/v2/token",
            "contract sheet 4.7"
        );
    }

    #[test]
    fn what_a_status_means_that_no_call_describes() {
        for status in [408, 429, 500, 502, 503, 504, 599] {
            let failure = Reply::of(status, "").with_retry_after(30).failure();
            assert_eq!(
                failure,
                BusinessError::Unavailable {
                    status: Some(status),
                    retry_after: Some(Duration::from_secs(30)),
                    diagnostic: String::new(),
                }
            );
        }
        for status in [201, 204, 302, 304, 400, 404, 405, 406, 410] {
            let failure = Reply::of(status, "why").failure();
            let BusinessError::Unexpected {
                status: told,
                diagnostic,
            } = failure
            else {
                panic!("{status}: {failure}");
            };
            assert_eq!(told, status);
            let repeated = if status < 300 { "" } else { "why" };
            assert_eq!(diagnostic, repeated, "of success nothing is repeated");
        }
    }

    #[test]
    fn an_answer_that_broke_off_is_asked_for_again_and_another_text_is_not() {
        let read = |body: &str| Reply::of(200, body).json::<Vec<u8>>().unwrap_err();
        assert!(matches!(read("[1, 2"), BusinessError::Unavailable { .. }));
        for body in ["", "<html>", "{}", "[\"secret\"]"] {
            let error = read(body);
            assert!(matches!(error, BusinessError::Unexpected { .. }), "{body}");
            assert!(!error.diagnostic().contains("secret"));
        }
        let cut = Reply::new(200, None, b"[1, 2".to_vec(), true, &[]);
        let error = cut.json::<Vec<u8>>().unwrap_err();
        assert!(
            matches!(error, BusinessError::Unexpected { .. }),
            "too large is not broken off"
        );
    }

    #[test]
    fn an_error_of_apples_form_is_told_in_its_words_without_secrets() {
        let body = r#"{"errors":[{"id":"1","status":"403","code":"FORBIDDEN","title":"No.","detail":"token abcdef123456 may not"},{"code":"OTHER"}]}"#;
        let reply = Reply::new(
            403,
            None,
            body.as_bytes().to_vec(),
            false,
            &["abcdef123456"],
        );
        assert_eq!(
            reply.diagnostic,
            "FORBIDDEN: No.: token [code] may not; OTHER"
        );
        for other in ["", "{}", r#"{"errors":[]}"#, r#"{"errors":"x"}"#, "<html>"] {
            assert!(ErrorResponse::read(other.as_bytes()).is_none(), "{other}");
        }
    }

    #[test]
    fn each_failure_says_whether_the_next_question_fares_better() {
        let unavailable = |status, retry_after| BusinessError::Unavailable {
            status,
            retry_after,
            diagnostic: String::new(),
        };
        let forbidden = Refusal::Forbidden {
            diagnostic: String::new(),
        };
        for error in [
            BusinessError::Credential(forbidden),
            unavailable(None, None),
            unavailable(Some(429), None),
            unavailable(Some(503), None),
            unavailable(Some(500), Some(Duration::from_secs(1))),
        ] {
            assert!(error.concerns_every_call(), "{error}");
        }
        for error in [
            unavailable(Some(500), None),
            unavailable(Some(504), None),
            Reply::of(400, "").failure(),
        ] {
            assert!(!error.concerns_every_call(), "{error}");
        }
    }

    #[test]
    fn invalid_client_is_explained() {
        let refused = BusinessError::Credential(Refusal::NoToken {
            error: "invalid_client".to_owned(),
            diagnostic: String::new(),
        });
        let words = refused.to_string();
        assert!(
            words.contains("invalid_client") && words.contains("do not belong together"),
            "{words}"
        );
    }
}
