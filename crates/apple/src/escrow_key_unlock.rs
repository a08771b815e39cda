//! The call that turns a lock off: Apple's `escrowKeyUnlock` (contract sheet, section 1).
//!
//! One call with one code has one [`Answer`]. What it means is decided by the status alone (R13); where there is none, by
//! whether a byte of the request may have left. The request is exact (R18): what names the device stands in the query, only
//! where known and escaped once; who asks and the code stand in the body.

use std::time::Duration;

use activation_lock::device::DeviceIdentity;
use activation_lock::time::Timestamp;
use activation_lock::unlock::{Outcome, Response, outcome};
use form_urlencoded::Serializer;
use reqwest::header::CONTENT_TYPE;
use zeroize::Zeroizing;

use crate::push_certificate::{ExpiryLevel, PushCertificate};
use crate::redaction;
use crate::transport::{
    self, ExtraAuthorities, Origin, Timeouts, TransportError, bounded_body, is_refusal,
    retry_after, tls_error, words,
};
use crate::unverified::{BODY_LIMIT, UNLOCK_ORIGIN, UNLOCK_PATH};

/// Where and how Apple is called.
#[derive(Clone, Debug)]
pub struct UnlockSettings {
    /// Scheme, host and port; Apple's own by default.
    pub origin: Origin,
    /// Authorities believed beside the public ones.
    pub authorities: ExtraAuthorities,
    /// How long a call may take.
    pub timeouts: Timeouts,
}

impl Default for UnlockSettings {
    fn default() -> Self {
        Self {
            origin: UNLOCK_ORIGIN
                .parse()
                .expect("Apple's address is an https origin, which a test reads"),
            authorities: ExtraAuthorities::default(),
            timeouts: Timeouts::default(),
        }
    }
}

/// Apple's unlock service, as one push certificate sees it. Keeps connections open between calls; a clone shares them.
#[derive(Clone)]
pub struct UnlockService {
    client: reqwest::Client,
    origin: Origin,
    timeouts: Timeouts,
    certificate: PushCertificate,
}

/// One code for one device.
#[derive(Clone, Copy)]
pub struct UnlockRequest<'a> {
    identity: &'a DeviceIdentity,
    org_name: &'a str,
    guid: &'a str,
    code: &'a str,
}

/// A part of a request that must not be empty (contract sheet 1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IncompleteRequest {
    /// `orgName`.
    #[error("no organisation is named; Apple records on whose behalf a device was unlocked")]
    OrgName,
    /// `guid`.
    #[error("nobody is named as the one who asks; Apple records who asked for an unlock")]
    Guid,
    /// `escrowKey`.
    #[error("the code is empty")]
    Code,
}

impl<'a> UnlockRequest<'a> {
    /// `org_name` is the organisation and `guid` the real person who asks (mail address, directory name): Apple records both
    /// (contract sheet 1.5). `code` is the text of a code in the writing that is to be sent, byte for byte.
    ///
    /// # Errors
    /// When one of them is empty: nothing empty is ever sent.
    pub fn new(
        identity: &'a DeviceIdentity,
        org_name: &'a str,
        guid: &'a str,
        code: &'a str,
    ) -> Result<Self, IncompleteRequest> {
        if org_name.trim().is_empty() {
            Err(IncompleteRequest::OrgName)
        } else if guid.trim().is_empty() {
            Err(IncompleteRequest::Guid)
        } else if code.trim().is_empty() {
            Err(IncompleteRequest::Code)
        } else {
            Ok(Self {
                identity,
                org_name,
                guid,
                code,
            })
        }
    }

    /// What names the device; each only when known, escaped once.
    fn query(&self) -> String {
        let identity = self.identity;
        let mut query = Serializer::new(String::new());
        query.append_pair("serial", identity.serial.as_str());
        query.append_pair("productType", identity.product_type.as_str());
        for (key, value) in [
            ("imei", identity.imei.as_ref().map(|imei| imei.as_str())),
            ("imei2", identity.imei2.as_ref().map(|imei| imei.as_str())),
            ("meid", identity.meid.as_ref().map(|meid| meid.as_str())),
        ] {
            if let Some(value) = value {
                query.append_pair(key, value);
            }
        }
        query.finish()
    }

    fn form(&self) -> Zeroizing<Vec<u8>> {
        // Three bytes for each is the most that escaping makes of one.
        let room = 64 + 3 * (self.org_name.len() + self.guid.len() + self.code.len());
        let mut form = Serializer::new(String::with_capacity(room));
        form.append_pair("orgName", self.org_name)
            .append_pair("guid", self.guid)
            .append_pair("escrowKey", self.code);
        Zeroizing::new(form.finish().into_bytes())
    }
}

/// How one call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it means (R13).
    pub outcome: Outcome,
    /// The HTTP status, when one arrived.
    pub status: Option<u16>,
    /// How long Apple asked us to wait.
    pub retry_after: Option<Duration>,
    /// What Apple, or the failure, says in words: for people, without any code in any encoding (R23). May be empty.
    pub diagnostic: String,
    /// Whether a byte of the request may have reached Apple. When not, nothing can have happened to the lock.
    pub request_may_have_reached_apple: bool,
}

/// What came of showing a certificate without a code. See [`UnlockService::test`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// TLS was set up with the certificate, and an answer came. What the status of an answer to nothing means is not known.
    Accepted {
        /// The HTTP status.
        status: u16,
    },
    /// TLS refused the certificate.
    Refused {
        /// Why, in words.
        diagnostic: String,
    },
    /// It has ended, so that it was not shown.
    Expired,
    /// Nothing can be said: the server was not reached, was not believed, or did not answer.
    NotReached {
        /// Why, in words.
        diagnostic: String,
    },
}

impl UnlockService {
    /// A service that shows this certificate.
    ///
    /// # Errors
    /// When TLS cannot be set up with it.
    pub fn new(
        settings: &UnlockSettings,
        certificate: &PushCertificate,
    ) -> Result<Self, TransportError> {
        Ok(Self {
            client: transport::client(Some(certificate), &settings.authorities, settings.timeouts)?,
            origin: settings.origin.clone(),
            timeouts: settings.timeouts,
            certificate: certificate.clone(),
        })
    }

    /// The host that codes are sent to, which audit rows name (R17).
    #[must_use]
    pub fn recipient(&self) -> &str {
        self.origin.host()
    }

    /// The longest that [`unlock`](Self::unlock) takes: what a lease must outlast (R16).
    #[must_use]
    pub fn longest_call(&self) -> Duration {
        self.timeouts.overall
    }

    /// Shows the certificate to Apple's server, with a request that names no device and holds no code: `HEAD /`. It tells
    /// whether TLS is set up with this certificate; whether Apple accepts it for an unlock shows only in an unlock
    /// (unverified, see [`crate::unverified`]).
    pub async fn test(&self, now: Timestamp) -> Handshake {
        if self.certificate.expiry_level(now) == ExpiryLevel::Expired {
            return Handshake::Expired;
        }
        // Under TLS 1.3 a refusal arrives after the handshake, so that only an answer shows that there was none.
        match self.client.head(self.origin.at("/", None)).send().await {
            Ok(response) => Handshake::Accepted {
                status: response.status().as_u16(),
            },
            Err(error) => {
                let diagnostic = redaction::diagnostic(words(&error).as_bytes(), false, &[]);
                match tls_error(&error) {
                    Some(error) if is_refusal(error) => Handshake::Refused { diagnostic },
                    _ => Handshake::NotReached { diagnostic },
                }
            }
        }
    }

    /// Calls Apple once. With a certificate that has ended at `now` no call is made: that is a credential outcome, and the
    /// code stays unsent (R13). `now` also dates a `Retry-After` that names a day.
    ///
    /// Once begun, the call may have an effect even if the future is dropped.
    pub async fn unlock(&self, request: &UnlockRequest<'_>, now: Timestamp) -> Answer {
        if self.certificate.expiry_level(now) == ExpiryLevel::Expired {
            return Answer {
                outcome: outcome(Response::TlsRefused),
                status: None,
                retry_after: None,
                diagnostic: "the push certificate has expired; nothing was sent".to_owned(),
                request_may_have_reached_apple: false,
            };
        }
        let url = self.origin.at(UNLOCK_PATH, Some(&request.query()));
        let body = request.form().to_vec();
        let sent = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body)
            .send()
            .await;
        match sent {
            Ok(response) => answered(response, request, now).await,
            Err(error) => failed(&error, &[request.code]),
        }
    }
}

async fn answered(
    response: reqwest::Response,
    request: &UnlockRequest<'_>,
    now: Timestamp,
) -> Answer {
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers(), now);
    let (body, cut) = bounded_body(response, BODY_LIMIT).await;
    let body = Zeroizing::new(body);
    Answer {
        outcome: outcome(Response::Status {
            code: status,
            retry_after: retry_after.is_some(),
        }),
        status: Some(status),
        retry_after,
        diagnostic: redaction::diagnostic(&body, cut, &[request.code]),
        request_may_have_reached_apple: true,
    }
}

/// How a call that got no answer ended, for whoever makes such calls by another way (R19). `secrets` are taken out of the
/// words.
#[must_use]
pub fn failed(error: &reqwest::Error, secrets: &[&str]) -> Answer {
    let never_left = error.is_connect() || error.is_builder();
    let response = match tls_error(error) {
        Some(error) if is_refusal(error) => Response::TlsRefused,
        _ if never_left => Response::NotSent,
        _ => Response::NoAnswer,
    };
    Answer {
        outcome: outcome(response),
        status: None,
        retry_after: None,
        diagnostic: redaction::diagnostic(words(error).as_bytes(), false, secrets),
        request_may_have_reached_apple: !never_left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(product_type: &str) -> DeviceIdentity {
        DeviceIdentity {
            serial: "DMPTEST00001".parse().unwrap(),
            product_type: product_type.parse().unwrap(),
            imei: None,
            imei2: None,
            meid: None,
        }
    }

    #[test]
    fn the_default_is_apples_own_address() {
        let settings = UnlockSettings::default();
        assert_eq!(settings.origin.to_string(), UNLOCK_ORIGIN);
        assert_eq!(
            settings.origin.at(UNLOCK_PATH, Some("serial=A")).as_str(),
            "https://deviceservices-external.apple.com/deviceservicesworkers/escrowKeyUnlock?serial=A"
        );
    }

    #[test]
    fn t17_the_comma_of_a_product_type_is_escaped_exactly_once() {
        let identity = identity("iPad4,1");
        let request = UnlockRequest::new(&identity, "Org & Co", "it@example.com", "A-B").unwrap();
        assert_eq!(request.query(), "serial=DMPTEST00001&productType=iPad4%2C1");
        let origin: Origin = "https://127.0.0.1:1".parse().unwrap();
        let url = origin.at(UNLOCK_PATH, Some(&request.query()));
        assert_eq!(
            url.query(),
            Some("serial=DMPTEST00001&productType=iPad4%2C1"),
            "setting the query must not escape it again"
        );
        assert_eq!(
            request.form().as_slice(),
            b"orgName=Org+%26+Co&guid=it%40example.com&escrowKey=A-B"
        );
    }

    #[test]
    fn r18_nothing_empty_is_sent() {
        let identity = identity("Mac14,2");
        let refused = |org, guid, code| UnlockRequest::new(&identity, org, guid, code).err();
        assert_eq!(refused(" ", "g", "c"), Some(IncompleteRequest::OrgName));
        assert_eq!(refused("o", "", "c"), Some(IncompleteRequest::Guid));
        assert_eq!(refused("o", "g", "\n"), Some(IncompleteRequest::Code));
        assert_eq!(refused("o", "g", "c"), None);
    }

    #[test]
    fn r13_an_alert_is_found_however_deep_it_is_nested() {
        use std::io;
        let alert = || rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA);
        let once = io::Error::new(io::ErrorKind::InvalidData, alert());
        assert!(tls_error(&once).is_some_and(is_refusal));
        let twice = io::Error::other(io::Error::other(io::Error::other(alert())));
        assert!(tls_error(&twice).is_some_and(is_refusal));
        let ours = io::Error::other(rustls::Error::InvalidCertificate(
            rustls::CertificateError::UnknownIssuer,
        ));
        assert!(!tls_error(&ours).is_some_and(is_refusal));
        assert!(tls_error(&io::Error::other("plain")).is_none());
    }

    /// Through a client that shows no certificate, as when the server asks for a kind of key that ours is not.
    #[tokio::test]
    async fn t15_r13_no_certificate_is_credential_in_tls_1_2_and_1_3() {
        use sim::apple::TlsVersions;
        for tls in [TlsVersions::Only12, TlsVersions::Only13] {
            let options = sim::AppleOptions {
                tls,
                ..sim::AppleOptions::default()
            };
            let apple = sim::Apple::start(options).await.unwrap();
            let made = apple.push_certificate(sim::SIM_TOPIC).bundle_pem();
            let certificate = PushCertificate::load(made.as_bytes(), None, None).unwrap();
            let authorities = ExtraAuthorities::from_pem(apple.ca_pem().as_bytes()).unwrap();
            let timeouts = Timeouts::default();
            let service = UnlockService {
                client: transport::client(None, &authorities, timeouts).unwrap(),
                origin: apple.url().parse().unwrap(),
                timeouts,
                certificate,
            };
            let identity = identity("iPad4,1");
            let request = UnlockRequest::new(&identity, "o", "g", "c").unwrap();
            let answer = service.unlock(&request, Timestamp(0)).await;
            assert_eq!(
                (answer.outcome, answer.status),
                (Outcome::Credential, None),
                "{tls:?}: {}",
                answer.diagnostic
            );
            assert_eq!(apple.journal().count(), 0);
        }
    }
}
