//! Apple's own word on a lock: the API of Apple Business Manager and Apple School Manager (contract sheet, section 4).
//!
//! It only reads: no call of it turns a lock on or off. [`BusinessService::lock_status`] asks for one device's lock,
//! [`BusinessService::org_device`] and [`BusinessService::org_devices`] for what the organisation owns. An [`ApiAccount`] is
//! who asks: with its private key it is given an access token, which is kept until shortly before its end.

pub(crate) mod access_token;
pub mod assertion;
mod error;
pub(crate) mod lock_status;
pub(crate) mod org_devices;
mod reply;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use activation_lock::device::SerialNumber;
use activation_lock::time::Timestamp;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};

use access_token::{AccessToken, AccessTokens};
use assertion::{ClientAssertion, SigningKey};
use reply::ErrorResponse;

use crate::transport::{self, Endpoint, ExtraAuthorities, Origin, Timeouts, TransportError};
use crate::unverified::{
    BUSINESS_AUDIENCE, BUSINESS_ORIGIN, BUSINESS_TOKEN_URL, ORG_DEVICES_PATH, SCHOOL_ORIGIN,
};

pub use error::{BusinessError, Refusal};
pub use lock_status::StatusAnswer;
pub use org_devices::{OrgDevice, Page};
pub(crate) use reply::Reply;

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
    format!("{ORG_DEVICES_PATH}/{serial}")
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
