//! NanoDEP's reverse proxy: whoever has its key speaks to the enrolment service without a token, for the proxy signs.
//!
//! `/proxy/{name}{path}` with Basic authentication, user `depserver`. Status, body and `Retry-After` are passed through; a
//! session is begun when there is none, and once again when it is refused. `mdm-connectors.md` section 7.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header},
    response::IntoResponse,
};
use data_encoding::HEXLOWER;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{
    Dep, DepToken, LARGEST_BODY, oauth,
    request::{JSON, PROTOCOL, SESSION},
};
use crate::{
    Journal, StartError, http_client,
    listener::{Connection, Hangup, Listener, Speaker},
};

/// The user of the Basic authentication.
pub const NANODEP_USER: &str = "depserver";

/// How long the proxy waits for the enrolment service.
const TIME_OUT: Duration = Duration::from_secs(60);

/// How the fake behaves.
#[derive(Clone)]
pub struct NanoDepOptions {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The password of the API.
    pub api_key: String,
    /// How many entries the journal keeps.
    pub journal: usize,
}

impl Default for NanoDepOptions {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 0).into(),
            api_key: "sim-dep-key".to_owned(),
            journal: 20_000,
        }
    }
}

/// One request, as the journal has it.
#[derive(Clone, Debug, Serialize)]
pub struct NanoDepCall {
    /// Counts from 0 in the order of arrival.
    pub number: u64,
    /// The method.
    pub method: String,
    /// The whole path.
    pub path: String,
    /// What was answered; none while it is under way.
    pub status: Option<u16>,
}

/// A running fake of NanoDEP. A clone is the same service, which stops when the last is dropped.
#[derive(Clone)]
pub struct NanoDep {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
}

struct Shared {
    dep: Dep,
    client: reqwest::Client,
    api_key: String,
    names: Mutex<HashMap<String, Arc<Name>>>,
    calls: Journal<NanoDepCall>,
}

/// One DEP name: its token, and its session while it has one. One call at a time.
struct Name {
    token: DepToken,
    session: tokio::sync::Mutex<Option<String>>,
}

/// What came back from the enrolment service.
struct Passed {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl NanoDep {
    /// Starts to listen on plain HTTP, before this enrolment service.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub async fn start(dep: &Dep, options: NanoDepOptions) -> Result<Self, StartError> {
        let client = http_client::client(Some(&dep.ca_pem()), None, TIME_OUT)
            .map_err(|error| StartError::Client(error.to_string()))?;
        let shared = Arc::new(Shared {
            dep: dep.clone(),
            client,
            api_key: options.api_key,
            names: Mutex::default(),
            calls: Journal::new(options.journal),
        });
        let listener = Listener::start(options.listen, Proxy(shared.clone())).await?;
        Ok(Self {
            shared,
            listener: Arc::new(listener),
        })
    }

    /// `http://127.0.0.1:PORT`, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.listener.address())
    }

    /// Gives the proxy a token to sign with, under this name.
    pub fn add_name(&self, name: &str, token: &DepToken) {
        let entry = Name {
            token: token.clone(),
            session: tokio::sync::Mutex::default(),
        };
        self.shared.names().insert(name.to_owned(), Arc::new(entry));
    }

    /// All requests so far.
    pub fn journal(&self) -> &Journal<NanoDepCall> {
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

#[derive(Clone)]
struct Proxy(Arc<Shared>);

impl Speaker for Proxy {
    async fn answer(
        &self,
        _: Arc<Connection>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Hangup> {
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, LARGEST_BODY)
            .collect()
            .await
            .map_err(|_| Hangup)?
            .to_bytes();
        let number = self.0.calls.add(|number| NanoDepCall {
            number,
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            status: None,
        });
        let path = parts.uri.path().strip_prefix("/proxy/");
        let answer = match path.and_then(|rest| rest.split_at_checked(rest.find('/')?)) {
            None => (StatusCode::NOT_FOUND, "404 page not found\n").into_response(),
            Some(_) if !self.0.allows(&parts.headers) => {
                let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"nanodep\"")];
                (StatusCode::UNAUTHORIZED, challenge, "Unauthorized\n").into_response()
            }
            Some((name, path)) => {
                let call = Forwarded {
                    method: parts.method,
                    path: path.to_owned(),
                    headers: forwarded(&parts.headers),
                    body,
                };
                match self.0.pass(name, call).await {
                    Some(passed) => (passed.status, passed.headers, passed.body).into_response(),
                    None => StatusCode::BAD_GATEWAY.into_response(),
                }
            }
        };
        let status = answer.status().as_u16();
        self.0
            .calls
            .amend(number, |call| call.status = Some(status));
        Ok(answer)
    }
}

/// A call on its way to the enrolment service.
#[derive(Clone)]
struct Forwarded {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// The headers that go on, with those the proxy adds where the client left them out.
fn forwarded(given: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, else_value) in [
        (header::USER_AGENT, "nanodep/sim"),
        (header::CONTENT_TYPE, JSON),
        (header::ACCEPT, JSON),
        (PROTOCOL, "7"),
    ] {
        let value = given
            .get(&name)
            .cloned()
            .unwrap_or_else(|| header::HeaderValue::from_static(else_value));
        headers.insert(name, value);
    }
    headers
}

impl Shared {
    fn names(&self) -> MutexGuard<'_, HashMap<String, Arc<Name>>> {
        self.names.lock().expect("no holder of this lock panics")
    }

    fn allows(&self, headers: &HeaderMap) -> bool {
        crate::basic::is(headers, NANODEP_USER, &self.api_key)
    }

    /// Sends the call with a session; none when the name is unknown or the service did not answer.
    async fn pass(&self, name: &str, call: Forwarded) -> Option<Passed> {
        let name = self.names().get(name).cloned()?;
        let mut session = name.session.lock().await;
        for last_try in [false, true] {
            let text = match session.take() {
                Some(text) => text,
                None => match self.begin(&name.token, &call.headers).await? {
                    Ok(text) => text,
                    Err(refused) => return Some(refused),
                },
            };
            let mut with_session = call.clone();
            with_session
                .headers
                .insert(SESSION, header::HeaderValue::from_str(&text).ok()?);
            let passed = self.send(with_session).await?;
            let forbidden = passed.status == StatusCode::FORBIDDEN
                && String::from_utf8_lossy(&passed.body).contains("FORBIDDEN");
            if (passed.status == StatusCode::UNAUTHORIZED || forbidden) && !last_try {
                continue;
            }
            let newer = passed.headers.get(SESSION);
            let newer = newer.and_then(|value| Some(value.to_str().ok()?.to_owned()));
            *session = Some(newer.unwrap_or(text));
            return Some(passed.without_session());
        }
        None
    }

    /// Begins a session; the refusal is what the service answered.
    async fn begin(&self, token: &DepToken, headers: &HeaderMap) -> Option<Result<String, Passed>> {
        #[derive(Deserialize)]
        struct Given {
            auth_session_token: String,
        }
        let now = self.dep.shared.now.get().unix_timestamp();
        let mut nonce = [0; 16];
        self.dep.shared.servers().rng.fill_bytes(&mut nonce);
        let url = format!("{}/session", self.dep.url());
        let signed = oauth::header(token, &url, now, &HEXLOWER.encode(&nonce));
        let mut headers = headers.clone();
        headers.insert(
            header::AUTHORIZATION,
            header::HeaderValue::from_str(&signed).ok()?,
        );
        let passed = self
            .send(Forwarded {
                method: Method::GET,
                path: "/session".to_owned(),
                headers,
                body: Bytes::new(),
            })
            .await?;
        if passed.status != StatusCode::OK {
            return Some(Err(passed));
        }
        let given: Given = serde_json::from_slice(&passed.body).ok()?;
        Some(Ok(given.auth_session_token))
    }

    async fn send(&self, call: Forwarded) -> Option<Passed> {
        let url = format!("{}{}", self.dep.url(), call.path);
        let answer = self
            .client
            .request(call.method, url)
            .headers(call.headers)
            .body(call.body)
            .send()
            .await
            .ok()?;
        let status = answer.status();
        let kept =
            |name: &HeaderName| [header::CONTENT_TYPE, header::RETRY_AFTER, SESSION].contains(name);
        let headers = answer
            .headers()
            .iter()
            .filter(|(name, _)| kept(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let body = answer.bytes().await.ok()?;
        Some(Passed {
            status,
            headers,
            body,
        })
    }
}

impl Passed {
    /// The proxy's client has nothing to do with sessions.
    fn without_session(mut self) -> Self {
        self.headers.remove(SESSION);
        self
    }
}
