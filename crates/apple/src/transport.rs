//! The one place that builds an HTTP client: who we are, whom we believe, how long we wait.
//!
//! No redirect is followed, no proxy is taken from the environment, and nothing turns verification off (R13, contract
//! sheet 1.12). A client speaks HTTP/1.1 and keeps its connections for the next call.

use std::error::Error as _;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use activation_lock::time::Timestamp;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

use crate::push_certificate::PushCertificate;

/// How long a connection stays open for the next call.
const IDLE: Duration = Duration::from_secs(45);

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Finding the address, connecting and the TLS handshake. Held below `overall`, so that a failure to connect is told
    /// apart from a missing answer.
    pub connect: Duration,
    /// The whole call, with the answer's body.
    pub overall: Duration,
}

impl Default for Timeouts {
    /// 10 seconds to connect, 60 seconds in all (contract sheet 7.27).
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            overall: Duration::from_secs(60),
        }
    }
}

/// A server's scheme, host and port, and nothing else: the path stays Apple's.
///
/// https, or http on a loopback host, where only a fake can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(Url);

/// Why a text is not an [`Origin`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Not a URL.
    #[error("this is not a URL ({0}); write it as https://host or https://host:port")]
    NotAUrl(url::ParseError),
    /// Neither https nor http on this machine.
    #[error(
        "codes and tokens are sent over https only; http is taken for this machine's own addresses alone, for tests"
    )]
    NotSecure,
    /// A path, a query, a fragment or a user name.
    #[error("give scheme, host and port alone, such as https://host:port; the path is Apple's own")]
    TooMuch,
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text.trim()).map_err(OriginError::NotAUrl)?;
        if !is_secure(&url) {
            return Err(OriginError::NotSecure);
        }
        let bare = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if bare {
            Ok(Self(url))
        } else {
            Err(OriginError::TooMuch)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl Origin {
    /// The host, which audit rows name as the recipient (R17).
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// The URL of an absolute path here, with a query that is already escaped.
    pub(crate) fn at(&self, path: &str, query: Option<&str>) -> Url {
        let mut url = self.0.clone();
        url.set_path(path);
        url.set_query(query);
        url
    }
}

/// A whole address, path and all, of a service whose path is not fixed.
///
/// https, or http on a loopback host, without query, fragment and user name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Url);

/// Why a text is not an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL.
    #[error("this is not a URL ({0}); write it as https://host/path")]
    NotAUrl(url::ParseError),
    /// Neither https nor http on this machine.
    #[error(
        "secrets are sent over https only; http is taken for this machine's own addresses alone, for tests"
    )]
    NotSecure,
    /// A query, a fragment or a user name.
    #[error("give the address without a query (?), a fragment (#) and a user name (@)")]
    TooMuch,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text.trim()).map_err(EndpointError::NotAUrl)?;
        if !is_secure(&url) {
            Err(EndpointError::NotSecure)
        } else if url.query().is_some()
            || url.fragment().is_some()
            || !url.username().is_empty()
            || url.password().is_some()
        {
            Err(EndpointError::TooMuch)
        } else {
            Ok(Self(url))
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl Endpoint {
    /// The host it names: what may be shown of an address whose path is itself a secret.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    pub(crate) fn url(&self) -> Url {
        self.0.clone()
    }
}

fn is_secure(url: &Url) -> bool {
    match url.scheme() {
        "https" => url.host().is_some(),
        "http" => url.host().is_some_and(|host| is_loopback(&host)),
        _ => false,
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => IpAddr::from(*address).is_loopback(),
        Host::Ipv6(address) => IpAddr::from(*address).is_loopback(),
    }
}

/// Certificate authorities that are believed beside the bundled public ones: Apple's private roots, or a fake's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtraAuthorities(Vec<CertificateDer<'static>>);

/// Why a file of authorities could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtraAuthoritiesError {
    /// No PEM certificate in it.
    #[error(
        "there is no certificate in the CA file; it must be PEM, with -----BEGIN CERTIFICATE----- (convert DER with: openssl x509 -inform der -in FILE -out FILE.pem)"
    )]
    Empty,
    /// A certificate that cannot be read.
    #[error("certificate {0} of the CA file is damaged; nothing of the file was taken")]
    Damaged(usize),
}

impl ExtraAuthorities {
    /// Reads the certificates of a PEM file.
    ///
    /// # Errors
    /// When there is none, or one of them is damaged.
    pub fn from_pem(pem: &[u8]) -> Result<Self, ExtraAuthoritiesError> {
        let mut authorities = Vec::new();
        for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let damaged = ExtraAuthoritiesError::Damaged(index + 1);
            let certificate = certificate.map_err(|_| damaged)?;
            RootCertStore::empty()
                .add(certificate.clone())
                .map_err(|_| damaged)?;
            authorities.push(certificate);
        }
        if authorities.is_empty() {
            return Err(ExtraAuthoritiesError::Empty);
        }
        Ok(Self(authorities))
    }

    /// The certificates, for a client of another service.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// TLS could not be set up.
    #[error("TLS cannot be set up with this certificate and these authorities: {0}")]
    Tls(#[from] rustls::Error),
    /// The HTTP client could not be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Http(#[from] reqwest::Error),
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Builds the client. `identity` is shown to servers that ask for a client certificate.
#[expect(
    clippy::disallowed_methods,
    reason = "the one function of this crate that builds an HTTP client"
)]
pub(crate) fn client(
    identity: Option<&PushCertificate>,
    extra: &ExtraAuthorities,
    timeouts: Timeouts,
) -> Result<reqwest::Client, TransportError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    for authority in &extra.0 {
        roots.add(authority.clone())?;
    }
    let tls = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut tls = match identity {
        None => tls.with_no_client_auth(),
        Some(certificate) => {
            let shown: Arc<dyn ResolvesClientCert> =
                Arc::new(SingleCertAndKey::from(certificate.certified()));
            tls.with_client_cert_resolver(shown)
        }
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .user_agent(concat!("Lockwarden/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(timeouts.connect.min(timeouts.overall.mul_f32(0.9)))
        .timeout(timeouts.overall)
        .pool_idle_timeout(IDLE)
        .build()?)
}

/// Reads at most `limit` bytes of a body, and says whether there was more. A body that breaks off is what arrived of it.
pub(crate) async fn bounded_body(mut response: reqwest::Response, limit: usize) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = limit - body.len();
        if chunk.len() > room {
            body.extend_from_slice(&chunk[..room]);
            return (body, true);
        }
        body.extend_from_slice(&chunk);
    }
    (body, false)
}

/// `Retry-After`: seconds, or a moment (contract sheet 2.27). A moment that has passed is no wait at all.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = Timestamp(i64::try_from(at.as_millis()).unwrap_or(i64::MAX));
    Some(at.since(now))
}

/// Whether TLS says that the other side does not accept us: any alert of it, or that our certificate is of no kind it takes
/// (R13). That we do not accept the other side is not one.
pub(crate) fn is_refusal(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::AlertReceived(_)
            | rustls::Error::PeerIncompatible(
                rustls::PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon
            )
    )
}

/// The TLS error at the bottom of a failure. An I/O error keeps what caused it inside itself and names only the cause of
/// that as its source, so both ways are walked.
pub(crate) fn tls_error<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        next = match error.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as _),
            None => error.source(),
        };
    }
    None
}

/// The failure and its causes in one line. The URL, which would only repeat the device, is left out.
pub(crate) fn words(error: &reqwest::Error) -> String {
    let mut words = String::new();
    let mut next = error.source();
    while let Some(error) = next {
        let said = error.to_string();
        if !words.ends_with(&said) {
            if !words.is_empty() {
                words.push_str(": ");
            }
            words.push_str(&said);
        }
        next = error.source();
    }
    match words.is_empty() {
        true if error.is_timeout() => "the time ran out".to_owned(),
        true => "the call failed".to_owned(),
        false => words,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn r13_only_https_or_loopback_http_without_a_path_is_an_origin() {
        for good in [
            "https://deviceservices-external.apple.com",
            "https://127.0.0.1:8443/",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
            "http://localhost:1",
        ] {
            assert!(good.parse::<Origin>().is_ok(), "{good}");
        }
        for (bad, why) in [
            (
                "http://deviceservices-external.apple.com",
                OriginError::NotSecure,
            ),
            ("http://127.0.0.1.example.com", OriginError::NotSecure),
            ("http://localhost.example.com", OriginError::NotSecure),
            ("ftp://127.0.0.1", OriginError::NotSecure),
            (
                "https://apple.com/deviceservicesworkers",
                OriginError::TooMuch,
            ),
            ("https://apple.com/?a=b", OriginError::TooMuch),
            ("https://apple.com/#x", OriginError::TooMuch),
            ("https://me@apple.com", OriginError::TooMuch),
            ("https://:secret@apple.com", OriginError::TooMuch),
        ] {
            assert_eq!(bad.parse::<Origin>(), Err(why), "{bad}");
        }
        assert!(matches!(
            "deviceservices-external.apple.com".parse::<Origin>(),
            Err(OriginError::NotAUrl(_))
        ));
        let origin: Origin = "https://apple.com:444/".parse().unwrap();
        assert_eq!(origin.to_string(), "https://apple.com:444");
        assert_eq!(origin.host(), "apple.com");
    }

    #[test]
    fn an_endpoint_has_a_path_and_is_as_secure_as_an_origin() {
        for good in [
            "https://account.apple.com/auth/oauth2/v2/token",
            "https://apple.com",
            "http://127.0.0.1:8080/token",
        ] {
            assert!(good.parse::<Endpoint>().is_ok(), "{good}");
        }
        for (bad, why) in [
            ("http://account.apple.com/token", EndpointError::NotSecure),
            ("file:///token", EndpointError::NotSecure),
            ("https://apple.com/token?a=b", EndpointError::TooMuch),
            ("https://apple.com/token#x", EndpointError::TooMuch),
            ("https://me@apple.com/token", EndpointError::TooMuch),
            ("https://:secret@apple.com/token", EndpointError::TooMuch),
        ] {
            assert_eq!(bad.parse::<Endpoint>(), Err(why), "{bad}");
        }
        let endpoint: Endpoint = " https://apple.com/token ".parse().unwrap();
        assert_eq!(endpoint.to_string(), "https://apple.com/token");
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_refused() {
        assert_eq!(
            ExtraAuthorities::from_pem(b"not PEM"),
            Err(ExtraAuthoritiesError::Empty)
        );
        assert_eq!(
            ExtraAuthorities::from_pem(
                b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
            ),
            Err(ExtraAuthoritiesError::Damaged(1))
        );
    }

    fn wait(value: &'static str, now: i64) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
        retry_after(&headers, Timestamp(now))
    }

    #[test]
    fn r13_retry_after_is_seconds_or_a_moment() {
        let epoch_plus_a_minute = 784_111_777_000 - 60_000;
        assert_eq!(wait("120", 0), Some(Duration::from_secs(120)));
        assert_eq!(
            wait("Sun, 06 Nov 1994 08:49:37 GMT", epoch_plus_a_minute),
            Some(Duration::from_secs(60))
        );
        assert_eq!(
            wait("Sun, 06 Nov 1994 08:49:37 GMT", 800_000_000_000),
            Some(Duration::ZERO)
        );
        assert_eq!(
            wait("99999999999999999999999", 0),
            Some(Duration::from_secs(u64::MAX))
        );
        for useless in ["", "soon", "-1", "1.5"] {
            assert_eq!(wait(useless, 0), None, "{useless:?}");
        }
    }
}
