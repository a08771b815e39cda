//! A provider of identities: OpenID Connect's code flow with PKCE, as strict as the standards let it be, with one person at its browser.
//!
//! It asks nobody for a password: whoever comes is the person that was set. It refuses parameters that it does not know, takes a code
//! once, and checks the verifier of PKCE (RFC 7636) and the client's secret.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, Uri, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use crate::clock::Now;
use crate::journal::Journal;
use crate::{StartError, form};

/// How long an ID token is good, seconds.
const LASTS: i64 = 300;

/// What is wrong with the next ID token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityFault {
    /// It is of another sign-in.
    OtherNonce,
    /// It is for another client.
    OtherAudience,
    /// It is of another provider.
    OtherIssuer,
    /// Its time is over.
    Expired,
    /// Nobody signed it: `alg` is `none`.
    Unsigned,
    /// A key signed it that the provider does not publish.
    OtherKey,
    /// It is signed with the client's secret, which the client knows too.
    SharedSecret,
    /// The access token beside it is another's.
    OtherAccessToken,
    /// There is none.
    Missing,
}

/// Who is at the provider's browser.
#[derive(Clone, Debug, Default)]
pub struct IdentityClaims {
    /// Who it is, for ever.
    pub subject: String,
    /// What the ID token says beside.
    pub in_token: Map<String, Value>,
    /// What the userinfo endpoint says beside.
    pub in_userinfo: Map<String, Value>,
}

/// A sign-in that a code stands for.
struct Grant {
    redirect_uri: String,
    nonce: String,
    challenge: String,
    person: IdentityClaims,
}

struct Inner {
    key: EcdsaKeyPair,
    key_id: u32,
    person: Option<IdentityClaims>,
    grants: HashMap<String, Grant>,
    tokens: HashMap<String, IdentityClaims>,
    faults: VecDeque<IdentityFault>,
    counter: u64,
}

struct Shared {
    url: String,
    now: Now,
    client_id: String,
    secret: Option<String>,
    inner: Mutex<Inner>,
    journal: Journal<String>,
}

/// See the head of this file. Copies of it are one.
#[derive(Clone)]
pub struct IdentityProvider {
    shared: Arc<Shared>,
}

fn new_key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key of P-256 can be made")
}

#[expect(
    clippy::disallowed_methods,
    reason = "a signature takes a nonce, as a key does that is new each time"
)]
fn signed(key: &EcdsaKeyPair, text: &str) -> Vec<u8> {
    let signature = key.sign(&SystemRandom::new(), text.as_bytes());
    signature.expect("a key of P-256 signs").as_ref().to_vec()
}

fn sha256(text: &str) -> Vec<u8> {
    digest(&SHA256, text.as_bytes()).as_ref().to_vec()
}

impl IdentityProvider {
    /// Starts one on any free port of this machine, with one client: confidential when it has a secret.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(
        now: Now,
        client_id: &str,
        secret: Option<&str>,
    ) -> Result<Self, StartError> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            url,
            now,
            client_id: client_id.to_owned(),
            secret: secret.map(str::to_owned),
            inner: Mutex::new(Inner {
                key: new_key(),
                key_id: 1,
                person: None,
                grants: HashMap::new(),
                tokens: HashMap::new(),
                faults: VecDeque::new(),
                counter: 0,
            }),
            journal: Journal::new(1_000),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(describe))
            .route("/keys", get(keys))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/userinfo", get(userinfo))
            .with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { shared })
    }

    /// Where it is, which is also what it calls itself.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// Whoever comes next is this person; without one, nobody is let through.
    pub fn set_person(&self, person: Option<IdentityClaims>) {
        self.shared.inner().person = person;
    }

    /// The next ID token is wrong in this way.
    pub fn push_fault(&self, fault: IdentityFault) {
        self.shared.inner().faults.push_back(fault);
    }

    /// Signs with another key from now on; the one before is not published any more.
    pub fn rotate_key(&self) {
        let mut inner = self.shared.inner();
        inner.key = new_key();
        inner.key_id += 1;
    }

    /// The paths that were asked for.
    #[must_use]
    pub fn journal(&self) -> &Journal<String> {
        &self.shared.journal
    }
}

impl Shared {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self, path: &str) {
        self.journal.add(|_| path.to_owned());
    }

    fn id_token(&self, inner: &mut Inner, grant: &Grant, access_token: &str) -> Option<String> {
        let fault = inner.faults.pop_front();
        if fault == Some(IdentityFault::Missing) {
            return None;
        }
        let is = |other: IdentityFault| fault == Some(other);
        let now = self.now.get().unix_timestamp();
        let mut claims = grant.person.in_token.clone();
        let wrong = |wrong: bool, right: &str| match wrong {
            true => format!("another {right}"),
            false => right.to_owned(),
        };
        let half = sha256(&wrong(is(IdentityFault::OtherAccessToken), access_token));
        for (name, value) in [
            (
                "iss",
                json!(if is(IdentityFault::OtherIssuer) {
                    "https://id.example.org"
                } else {
                    &self.url
                }),
            ),
            (
                "aud",
                json!(wrong(is(IdentityFault::OtherAudience), &self.client_id)),
            ),
            (
                "nonce",
                json!(wrong(is(IdentityFault::OtherNonce), &grant.nonce)),
            ),
            ("sub", json!(grant.person.subject)),
            ("iat", json!(now)),
            (
                "exp",
                json!(if is(IdentityFault::Expired) {
                    now - 1
                } else {
                    now + LASTS
                }),
            ),
            ("at_hash", json!(URL_SAFE_NO_PAD.encode(&half[..16]))),
        ] {
            claims.insert(name.to_owned(), value);
        }
        if is(IdentityFault::SharedSecret) {
            // Nothing else about it is wrong.
            claims.remove("at_hash");
        }
        let algorithm = match fault {
            Some(IdentityFault::Unsigned) => "none",
            Some(IdentityFault::SharedSecret) => "HS256",
            _ => "ES256",
        };
        let head = json!({ "typ": "JWT", "alg": algorithm, "kid": inner.key_id.to_string() });
        let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encoded(&head), encoded(&Value::Object(claims)));
        let signature = match fault {
            Some(IdentityFault::Unsigned) => Vec::new(),
            Some(IdentityFault::SharedSecret) => {
                let secret = self.secret.as_deref().unwrap_or_default();
                let key =
                    aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
                aws_lc_rs::hmac::sign(&key, text.as_bytes())
                    .as_ref()
                    .to_vec()
            }
            fault => {
                let other = new_key();
                let key = match fault {
                    Some(IdentityFault::OtherKey) => &other,
                    _ => &inner.key,
                };
                signed(key, &text)
            }
        };
        Some(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Whether the client proves who it is: by its secret, when it has one.
    fn is_client(&self, headers: &HeaderMap, form: &HashMap<String, String>) -> bool {
        let Some(secret) = &self.secret else {
            return form.get("client_id") == Some(&self.client_id)
                && !headers.contains_key(header::AUTHORIZATION);
        };
        let expected = STANDARD.encode(format!("{}:{secret}", self.client_id));
        headers
            .get(header::AUTHORIZATION)
            .is_some_and(|value| value.as_bytes() == format!("Basic {expected}").as_bytes())
            && !form.contains_key("client_id")
    }
}

async fn describe(State(shared): State<Arc<Shared>>) -> Json<Value> {
    shared.seen("/.well-known/openid-configuration");
    let url = &shared.url;
    Json(json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"),
        "userinfo_endpoint": format!("{url}/userinfo"),
        "jwks_uri": format!("{url}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
        "code_challenge_methods_supported": ["S256"],
    }))
}

async fn keys(State(shared): State<Arc<Shared>>) -> Json<Value> {
    shared.seen("/keys");
    let inner = shared.inner();
    let point = inner.key.public_key().as_ref();
    let part = |range| URL_SAFE_NO_PAD.encode(&point[range]);
    Json(json!({ "keys": [{
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256",
        "kid": inner.key_id.to_string(),
        "x": part(1..33_usize), "y": part(33..65_usize),
    }] }))
}

fn refused(why: &str) -> Response<Body> {
    Response::builder()
        .status(StatusCode::BAD_REQUEST)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(
            json!({ "error": "invalid_request", "error_description": why }).to_string(),
        ))
        .expect("the parts are fixed")
}

/// The pairs, when none is unknown or given twice.
fn known(encoded: &[u8], names: &[&str]) -> Result<HashMap<String, String>, String> {
    let mut known = HashMap::new();
    for (name, value) in form::pairs(encoded, "form")? {
        if !names.contains(&name.as_str()) {
            return Err(format!("{name} is not known"));
        }
        if value.is_empty() || known.insert(name.clone(), value).is_some() {
            return Err(format!("{name} is empty or given twice"));
        }
    }
    Ok(known)
}

async fn authorize(State(shared): State<Arc<Shared>>, uri: Uri) -> Response<Body> {
    shared.seen("/authorize");
    const NAMES: [&str; 8] = [
        "response_type",
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
    ];
    let given = match known(uri.query().unwrap_or_default().as_bytes(), &NAMES) {
        Ok(given) => given,
        Err(why) => return refused(&why),
    };
    let has = |name: &str| given.get(name).map_or("", String::as_str);
    let fits = given.len() == NAMES.len()
        && has("response_type") == "code"
        && has("client_id") == shared.client_id
        && has("scope").split(' ').any(|scope| scope == "openid")
        && has("state").len() >= 22
        && has("nonce").len() >= 22
        && has("code_challenge").len() == 43
        && has("code_challenge_method") == "S256";
    if !fits {
        return refused("a parameter is missing or wrong");
    }
    let mut inner = shared.inner();
    inner.counter += 1;
    let answer = match inner.person.clone() {
        None => "error=access_denied".to_owned(),
        Some(person) => {
            let code = format!("code/{}+{}", inner.counter, has("code_challenge"));
            let grant = Grant {
                redirect_uri: has("redirect_uri").to_owned(),
                nonce: has("nonce").to_owned(),
                challenge: has("code_challenge").to_owned(),
                person,
            };
            inner.grants.insert(code.clone(), grant);
            form_urlencoded::Serializer::new(String::new())
                .append_pair("code", &code)
                .finish()
        }
    };
    let target = format!(
        "{}?{answer}&state={}",
        has("redirect_uri"),
        percent_encoding::utf8_percent_encode(has("state"), percent_encoding::NON_ALPHANUMERIC)
    );
    Response::builder()
        .status(StatusCode::FOUND)
        .header(header::LOCATION, target)
        .body(Body::empty())
        .unwrap_or_else(|_| refused("the address to go back to is none"))
}

async fn token(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    shared.seen("/token");
    const NAMES: [&str; 5] = [
        "grant_type",
        "code",
        "redirect_uri",
        "code_verifier",
        "client_id",
    ];
    let given = match known(&body, &NAMES) {
        Ok(given) if form::is_form(&headers) => given,
        Ok(_) => return refused("it is no form"),
        Err(why) => return refused(&why),
    };
    if !shared.is_client(&headers, &given) {
        return refused("the client does not prove who it is");
    }
    let has = |name: &str| given.get(name).map_or("", String::as_str);
    let mut inner = shared.inner();
    let Some(grant) = inner.grants.remove(has("code")) else {
        return refused("the code is unknown, or was used");
    };
    let challenge = URL_SAFE_NO_PAD.encode(sha256(has("code_verifier")));
    if has("grant_type") != "authorization_code"
        || has("redirect_uri") != grant.redirect_uri
        || challenge != grant.challenge
    {
        return refused("grant type, address or verifier is wrong");
    }
    inner.counter += 1;
    let access_token = format!("access-{}", inner.counter);
    inner
        .tokens
        .insert(access_token.clone(), grant.person.clone());
    let id_token = shared.id_token(&mut inner, &grant, &access_token);
    let mut answer = json!({
        "access_token": access_token,
        "token_type": "Bearer",
        "expires_in": LASTS,
    });
    if let Some(id_token) = id_token {
        answer["id_token"] = json!(id_token);
    }
    Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CACHE_CONTROL, "no-store")
        .body(Body::from(answer.to_string()))
        .expect("the parts are fixed")
}

async fn userinfo(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response<Body> {
    shared.seen("/userinfo");
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    let inner = shared.inner();
    let Some(person) = inner.tokens.get(given) else {
        return refused("the access token is unknown");
    };
    let mut claims = person.in_userinfo.clone();
    claims.insert("sub".to_owned(), json!(person.subject));
    Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(Value::Object(claims).to_string()))
        .expect("the parts are fixed")
}
