//! The one HTTP client for MDMs, and what calls of all of them have in common.

use std::sync::Arc;
use std::time::Duration;

use apple::escrow_key_unlock::{self, Answer};
use apple::redaction;
use apple::transport::ExtraAuthorities;
use escrow::connections::OpenConnection;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Method, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use url::Url;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use super::{ClientError, Delegated};

/// The most that is read of an answer, bytes.
const LIMIT: usize = 64 * 1024;
/// The same of what a provider of identities says.
#[cfg(feature = "oidc")]
const LONGEST: usize = 1024 * 1024;
/// The most of an MDM's own words that is shown, characters.
const WORDS: usize = 300;
/// Finding the address, connecting and the TLS handshake; held below the time-out of the whole call, so that a failure to
/// connect is told apart from a missing answer.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a connection stays open for the next call.
const IDLE: Duration = Duration::from_secs(45);

/// Builds the client: the bundled public authorities and the extra ones are believed, no redirect is followed, no proxy is
/// taken from the environment.
#[expect(
    clippy::disallowed_methods,
    reason = "the one function of this crate that builds an HTTP client"
)]
pub(super) fn build(
    authorities: &ExtraAuthorities,
    timeout: Duration,
) -> Result<reqwest::Client, ClientError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    for authority in authorities.certificates() {
        roots.add(authority.clone())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .user_agent(concat!("Lockwarden/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT.min(timeout.mul_f32(0.9)))
        .timeout(timeout)
        .pool_idle_timeout(IDLE)
        .build()?)
}

/// What a call carries.
pub(super) enum Body {
    Nothing,
    Plist(Vec<u8>),
    Json(Vec<u8>),
    Form(Zeroizing<Vec<u8>>),
}

impl Body {
    /// A form; a code may be in it.
    pub(super) fn form(fields: &[(&str, &str)]) -> Self {
        // Three bytes for each is the most that escaping makes of one, so that no smaller copy is left behind in memory.
        let room = fields
            .iter()
            .map(|(key, value)| key.len() + 3 * value.len() + 2)
            .sum();
        let mut form = Serializer::new(String::with_capacity(room));
        form.extend_pairs(fields);
        Self::Form(Zeroizing::new(form.finish().into_bytes()))
    }
}

/// An answer of an MDM.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// The first [`LIMIT`] bytes of it.
    pub(super) body: Zeroizing<Vec<u8>>,
    cut: bool,
}

/// A call that got no answer.
pub(super) struct Failed(Answer);

impl Failed {
    pub(super) fn for_people(self) -> String {
        let happened = match self.0.request_may_have_reached_apple {
            true => "the MDM did not answer",
            false => "the MDM cannot be reached",
        };
        shorten(&format!("{happened}: {}", self.0.diagnostic))
    }

    pub(super) fn delegated(self) -> Delegated {
        Delegated {
            outcome: self.0.outcome,
            status: None,
            delegate_failed: false,
            diagnostic: self.for_people(),
        }
    }
}

/// Calls one MDM.
pub(super) struct Caller<'a> {
    pub(super) http: &'a reqwest::Client,
    pub(super) connection: &'a OpenConnection,
    /// What is taken out of everything that the MDM says (R23).
    pub(super) secrets: Vec<&'a str>,
}

impl Caller<'_> {
    /// Calls a path, given by its parts, below the connection's address.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &[&str],
        body: Body,
    ) -> Result<Reply, Failed> {
        let view = &self.connection.view;
        let mut url: Url = view
            .base_url
            .parse()
            .expect("a connection is kept with an address that was read as a URL");
        url.path_segments_mut()
            .expect("a connection's address is http or https")
            .pop_if_empty()
            .extend(path);
        let mut request = self
            .http
            .request(method, url)
            .basic_auth(&view.username, Some(self.connection.api_key.as_str()));
        let (kind, bytes) = match body {
            Body::Nothing => (None, Vec::new()),
            Body::Plist(bytes) => (Some("application/xml"), bytes),
            Body::Json(bytes) => (Some("application/json"), bytes),
            Body::Form(bytes) => (Some("application/x-www-form-urlencoded"), bytes.to_vec()),
        };
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind).body(bytes);
        }
        match request.send().await {
            Ok(response) => Ok(read(response).await),
            Err(error) => Err(Failed(escrow_key_unlock::failed(&error, &self.secrets))),
        }
    }

    /// Why nothing can be had of this MDM at present, whatever is asked: it did not take our key, or it is not ready.
    pub(super) fn takes_nothing(&self, reply: &Reply) -> Option<String> {
        match reply.status.as_u16() {
            401 => Some(format!(
                "the MDM did not take our key (status 401): look at user name and API key of the connection {}",
                self.connection.view.name
            )),
            429 | 502..=504 => Some(format!("the MDM is not ready: {}", self.words(reply))),
            _ => None,
        }
    }

    /// The answer for people, with its status.
    pub(super) fn words(&self, reply: &Reply) -> String {
        let text = shorten(&self.text(reply));
        match text.is_empty() {
            true => format!("it answered status {}", reply.status.as_u16()),
            false => format!("it answered status {}: {text}", reply.status.as_u16()),
        }
    }

    /// The answer's body for people.
    pub(super) fn text(&self, reply: &Reply) -> String {
        redaction::diagnostic(&reply.body, reply.cut, &self.secrets)
    }
}

/// Posts JSON that holds no secret; any status from 200 to 299 is a yes.
pub(super) async fn post(
    http: &reqwest::Client,
    address: &str,
    json: String,
) -> Result<(), String> {
    let request = http
        .post(address)
        .header(CONTENT_TYPE, "application/json")
        .body(json);
    match request.send().await {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => Err(format!(
            "{address} answered status {}",
            response.status().as_u16()
        )),
        Err(error) => {
            let failed = escrow_key_unlock::failed(&error, &[]);
            Err(shorten(&format!(
                "{address} did not take it: {}",
                failed.diagnostic
            )))
        }
    }
}

/// What a far end said to what was posted.
pub(crate) struct Delivered {
    /// The status.
    pub(crate) status: u16,
    /// When it wants to be asked again.
    pub(crate) retry_after: Option<Duration>,
}

/// Posts JSON with headers.
///
/// # Errors
/// In words, why there is no answer.
pub(super) async fn deliver(
    http: &reqwest::Client,
    address: &str,
    shown: &str,
    headers: &[(&str, &str)],
    json: String,
) -> Result<Delivered, String> {
    let mut request = http.post(address).header(CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    match request.body(json).send().await {
        Ok(response) => {
            let wait = response
                .headers()
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok());
            Ok(Delivered {
                status: response.status().as_u16(),
                retry_after: wait
                    .and_then(|text| text.parse().ok())
                    .map(Duration::from_secs),
            })
        }
        Err(error) => {
            let failed = escrow_key_unlock::failed(&error.without_url(), &[]);
            Err(shorten(&format!(
                "{shown} did not take it: {}",
                failed.diagnostic
            )))
        }
    }
}

/// Makes a call that a library made up. An answer that is longer than [`LONGEST`] is none.
#[cfg(feature = "oidc")]
pub(super) async fn call(
    http: &reqwest::Client,
    request: http::Request<Vec<u8>>,
) -> Result<http::Response<Vec<u8>>, String> {
    let failed = |error: reqwest::Error| {
        shorten(&escrow_key_unlock::failed(&error.without_url(), &[]).diagnostic)
    };
    let request = reqwest::Request::try_from(request).map_err(failed)?;
    let mut response = http.execute(request).await.map_err(failed)?;
    let mut answer = http::Response::builder().status(response.status());
    if let Some(headers) = answer.headers_mut() {
        headers.clone_from(response.headers());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > LONGEST {
            return Err(format!("the answer is longer than {LONGEST} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    answer.body(body).map_err(|error| error.to_string())
}

async fn read(mut response: reqwest::Response) -> Reply {
    let status = response.status();
    let mut body = Zeroizing::new(Vec::with_capacity(LIMIT));
    let mut cut = false;
    // A body that breaks off is what arrived of it.
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = LIMIT - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            cut = true;
            break;
        }
    }
    Reply { status, body, cut }
}

/// An MDM's own words, where no secret is expected in them, to be shown.
pub(super) fn for_people(text: &str) -> String {
    shorten(&redaction::diagnostic(text.as_bytes(), false, &[]))
}

fn shorten(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
