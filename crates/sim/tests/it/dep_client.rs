//! A raw client of the fake enrolment service: its own writing of OAuth, and everything of a request open to change.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sim::{Apple, Dep, DepDevice, DepOptions, DepToken, Now};

use crate::support::{SERIAL, apple, client};

pub(crate) const JSON: &str = "application/json;charset=UTF8";
/// 2027-01-15, a Friday.
pub(crate) const START: i64 = 1_800_000_000;

/// A clock that stands still until it is moved.
#[derive(Clone)]
pub(crate) struct Clock(Arc<AtomicI64>);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(START)))
    }

    pub(crate) fn seconds(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> Now {
        let clock = self.clone();
        Now::new(move || time::OffsetDateTime::from_unix_timestamp(clock.seconds()).unwrap())
    }
}

/// Apple, its enrolment service with one server that has the iPad, and what a client needs.
pub(crate) struct Stage {
    pub(crate) apple: Apple,
    pub(crate) dep: Dep,
    pub(crate) token: DepToken,
    pub(crate) clock: Clock,
    http: reqwest::Client,
    nonces: AtomicU64,
}

/// What a session request is made of.
#[derive(Clone)]
pub(crate) struct Signing {
    pub(crate) token: DepToken,
    pub(crate) url: String,
    pub(crate) timestamp: i64,
    pub(crate) nonce: String,
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped += &format!("%{byte:02X}");
        }
    }
    escaped
}

impl Signing {
    /// The header's parameters in the usual order, escaped.
    pub(crate) fn parameters(&self) -> Vec<(String, String)> {
        let timestamp = self.timestamp.to_string();
        let signed = [
            ("oauth_consumer_key", self.token.consumer_key.as_str()),
            ("oauth_nonce", &self.nonce),
            ("oauth_signature_method", "HMAC-SHA1"),
            ("oauth_timestamp", &timestamp),
            ("oauth_token", &self.token.access_token),
            ("oauth_version", "1.0"),
        ];
        let list: Vec<String> = signed
            .iter()
            .map(|(name, value)| format!("{name}={}", escaped(value)))
            .collect();
        let text = format!("GET&{}&{}", escaped(&self.url), escaped(&list.join("&")));
        let secrets = format!(
            "{}&{}",
            escaped(&self.token.consumer_secret),
            escaped(&self.token.access_secret)
        );
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secrets.as_bytes());
        let signature = STANDARD.encode(hmac::sign(&key, text.as_bytes()));
        let mut parameters = vec![("realm".to_owned(), "ADM".to_owned())];
        parameters.extend(signed.map(|(name, value)| (name.to_owned(), escaped(value))));
        parameters.push(("oauth_signature".to_owned(), escaped(&signature)));
        parameters
    }

    pub(crate) fn header(&self) -> String {
        header_of(&self.parameters())
    }
}

pub(crate) fn header_of(parameters: &[(String, String)]) -> String {
    let list: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    format!("OAuth {}", list.join(", "))
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) session: Option<String>,
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let answer = request.send().await.unwrap();
        let session = answer
            .headers()
            .get("x-adm-auth-session")
            .map(|value| value.to_str().unwrap().to_owned());
        Self {
            status: answer.status().as_u16(),
            session,
            body: answer.text().await.unwrap(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn is(&self, status: u16, body: &str) -> bool {
        self.status == status && self.body == body
    }
}

pub(crate) async fn stage_with(options: DepOptions) -> Stage {
    let apple = apple().await;
    let clock = Clock::new();
    let dep = Dep::start(
        &apple,
        DepOptions {
            now: clock.now(),
            ..options
        },
    )
    .await
    .unwrap();
    let token = dep.issue_token("Sim Server");
    dep.assign(&token, DepDevice::new(SERIAL, "iPad Air"));
    Stage::at(&apple, &dep, &token, clock)
}

pub(crate) async fn stage() -> Stage {
    stage_with(DepOptions::default()).await
}

impl Stage {
    /// One made of what runs already.
    pub(crate) fn at(apple: &Apple, dep: &Dep, token: &DepToken, clock: Clock) -> Self {
        Self {
            apple: apple.clone(),
            dep: dep.clone(),
            token: token.clone(),
            clock,
            http: client(&dep.ca_pem(), None),
            nonces: AtomicU64::new(0),
        }
    }

    pub(crate) fn signing(&self) -> Signing {
        let nonce = self.nonces.fetch_add(1, Ordering::SeqCst);
        Signing {
            token: self.token.clone(),
            url: format!("{}/session", self.dep.url()),
            timestamp: self.clock.seconds(),
            nonce: format!("nonce-{nonce}"),
        }
    }

    /// A request with all headers that every call needs.
    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.http
            .request(method.parse().unwrap(), format!("{}{path}", self.dep.url()))
            .timeout(Duration::from_secs(60))
            .header("user-agent", "sim-tests/1.0")
            .header("content-type", JSON)
            .header("x-server-protocol-version", "10")
    }

    /// A request without any header.
    pub(crate) fn bare(&self, method: &str, path: &str) -> RequestBuilder {
        self.http
            .request(method.parse().unwrap(), format!("{}{path}", self.dep.url()))
    }

    pub(crate) async fn ask_session(&self, authorization: &str) -> Answer {
        let request = self.request("GET", "/session");
        Answer::of(request.header("authorization", authorization)).await
    }

    /// A new session.
    pub(crate) async fn session(&self) -> String {
        let answer = self.ask_session(&self.signing().header()).await;
        assert_eq!(answer.status, 200);
        let given = &answer.json()["auth_session_token"];
        given.as_str().unwrap().to_owned()
    }

    pub(crate) fn get(&self, path: &str, session: &str) -> RequestBuilder {
        self.request("GET", path)
            .header("x-adm-auth-session", session)
    }

    pub(crate) fn post(&self, path: &str, session: &str, body: &str) -> RequestBuilder {
        self.request("POST", path)
            .header("x-adm-auth-session", session)
            .body(body.to_owned())
    }

    /// A call with a session of its own.
    pub(crate) async fn call(&self, path: &str, body: &Value) -> Answer {
        let session = self.session().await;
        Answer::of(self.post(path, &session, &body.to_string())).await
    }

    /// A lock call with a session of its own.
    pub(crate) async fn lock(&self, serial: &str, escrow_key: &str) -> Answer {
        let body = json!({ "device": serial, "escrow_key": escrow_key });
        self.call("/device/activationlock", &body).await
    }

    /// What a lock call answered inside its 200.
    pub(crate) async fn lock_status(&self, serial: &str, escrow_key: &str) -> String {
        let answer = self.lock(serial, escrow_key).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["serial_number"], serial);
        let status = answer.json()["response_status"].clone();
        status.as_str().unwrap().to_owned()
    }
}
