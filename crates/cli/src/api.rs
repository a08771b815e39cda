//! The client of Lockwarden's own API, for the commands that talk to a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use serde_json::Value;
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::secret_file;
use crate::session_file::{self, Kept};
use crate::voice::{ASKED, Failure, Voice};

/// The environment variable that names the server.
pub(crate) const URL_VARIABLE: &str = "LOCKWARDEN_URL";
/// The environment variable that names the file with the token. The token itself is taken from no variable.
pub(crate) const TOKEN_FILE_VARIABLE: &str = "LOCKWARDEN_TOKEN_FILE";

/// How long an answer may take. A reveal or a list is done in milliseconds.
const TIME_OUT: Duration = Duration::from_secs(60);
/// How long one may take that goes through everything that there is.
const LONG_TIME_OUT: Duration = Duration::from_secs(60 * 60);
/// No answer of the API is larger, but one that is poured.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// Which server, and who asks.
#[derive(Args, Clone)]
pub(crate) struct ServerArgs {
    /// The server's address [environment: LOCKWARDEN_URL]
    #[arg(long, value_name = "URL", help_heading = "Server")]
    url: Option<String>,
    /// The file that holds an API token; - is standard input. Without it you act as who signed in [environment:
    /// LOCKWARDEN_TOKEN_FILE]
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    token_file: Option<PathBuf>,
    /// A certificate authority (PEM) to trust beside the well-known ones
    #[arg(long, value_name = "PEM", help_heading = "Server")]
    ca_file: Option<PathBuf>,
    /// The organisation, when the token is valid in several
    #[arg(long, value_name = "NAME", help_heading = "Server")]
    organisation: Option<String>,
}

/// How to do what takes other people.
#[derive(Args, Clone)]
#[group(id = "leave", multiple = false)]
pub(crate) struct LeaveArgs {
    /// Ask other people for it, with this reason, in place of doing it (exit status 10)
    #[arg(long, value_name = "REASON", help_heading = "Other people")]
    ask_approval: Option<String>,
    /// Do what was approved
    #[arg(long, value_name = "ID", help_heading = "Other people")]
    approval: Option<String>,
    /// Do it without an approval, in an emergency, for this reason: others are told, and have to acknowledge it
    #[arg(long, value_name = "REASON", help_heading = "Other people")]
    break_glass: Option<String>,
}

impl LeaveArgs {
    /// The header that says so, and its value.
    fn header(&self) -> Option<(&'static str, &str)> {
        let asked = self
            .ask_approval
            .as_deref()
            .map(|text| ("lockwarden-ask-approval", text));
        let under = self
            .approval
            .as_deref()
            .map(|text| ("lockwarden-approval", text));
        let broken = self
            .break_glass
            .as_deref()
            .map(|text| ("lockwarden-break-glass", text));
        asked.or(under).or(broken)
    }
}

/// A server, ready to be asked.
pub(crate) struct Api {
    client: reqwest::Client,
    base: Url,
    authorization: Option<HeaderValue>,
    organisation: Option<String>,
    leave: Option<(&'static str, HeaderValue)>,
}

/// What a server answered to a request it accepted.
pub(crate) struct Answer {
    /// The status, 200 to 299.
    pub(crate) status: StatusCode,
    /// The body, which may hold codes: wiped.
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// The body as JSON; null when there is none. Not for answers that hold codes: this copy is not wiped.
    ///
    /// # Errors
    /// When it is something else.
    pub(crate) fn json(&self) -> Result<Value, Failure> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.body).map_err(|_| not_lockwarden(self.status))
    }

    /// The body as text.
    ///
    /// # Errors
    /// When it is not text.
    pub(crate) fn text(&self) -> Result<&str, Failure> {
        std::str::from_utf8(&self.body).map_err(|_| not_lockwarden(self.status))
    }
}

/// Why there is no [`Answer`].
pub(crate) struct Refusal {
    /// The name of the server's problem document, such as `unknown-device`; none when the server could not be reached.
    pub(crate) problem: Option<String>,
    /// The same in words.
    pub(crate) failure: Failure,
}

/// One request.
pub(crate) struct Ask<'a> {
    method: Method,
    path: &'a [&'a str],
    query: Vec<(&'a str, String)>,
    body: Option<Zeroizing<Vec<u8>>>,
    idempotency_key: Option<&'a str>,
    patience: Duration,
}

impl<'a> Ask<'a> {
    /// A request for `/v1/` and these path segments, which are escaped here.
    pub(crate) fn new(method: Method, path: &'a [&'a str]) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            body: None,
            idempotency_key: None,
            patience: TIME_OUT,
        }
    }

    /// To read something.
    pub(crate) fn get(path: &'a [&'a str]) -> Self {
        Self::new(Method::GET, path)
    }

    /// To have something done.
    pub(crate) fn post(path: &'a [&'a str]) -> Self {
        Self::new(Method::POST, path)
    }

    /// To take something away.
    pub(crate) fn delete(path: &'a [&'a str]) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// With a parameter, unless there is no value.
    pub(crate) fn with(mut self, name: &'a str, value: Option<impl Into<String>>) -> Self {
        self.query.extend(value.map(|value| (name, value.into())));
        self
    }

    /// With a JSON body.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub(crate) fn json(mut self, body: &impl Serialize) -> Result<Self, Failure> {
        let bytes = serde_json::to_vec(body)
            .map_err(|error| Failure::new(format!("the request cannot be written: {error}")))?;
        self.body = Some(Zeroizing::new(bytes));
        Ok(self)
    }

    /// The answer may take long: it goes through everything that there is.
    pub(crate) fn patiently(mut self) -> Self {
        self.patience = LONG_TIME_OUT;
        self
    }

    /// So that the same request sent twice is one.
    pub(crate) fn once(mut self, key: &'a str) -> Self {
        self.idempotency_key = Some(key);
        self
    }
}

impl Api {
    /// The server that the arguments or the environment name, asked with a token or, without one, as who signed in there. Either is
    /// read here.
    ///
    /// # Errors
    /// When no server is named, there is neither a token file nor a session, or one cannot be used.
    pub(crate) fn new(args: &ServerArgs, voice: Voice) -> Result<Self, Failure> {
        let token_file = args.token_file.clone();
        let token_file =
            token_file.or_else(|| std::env::var_os(TOKEN_FILE_VARIABLE).map(PathBuf::from));
        let Some(token_file) = token_file else {
            let kept = session_file::read()?;
            let base = named(args)?;
            let kept = match (kept, base) {
                (Some(kept), Some(base)) if kept.url.origin() != base.origin() => {
                    return Err(Failure::usage(
                        "you are signed in at another server, and no token file is named",
                    )
                    .hint("sign in at this one with `lockwarden sign-in`, or give --token-file"));
                }
                (Some(kept), _) => kept,
                (None, None) => return Err(no_server()),
                (None, Some(_)) => {
                    return Err(Failure::usage("no token file is named, and nobody is signed in").hint(format!(
                        "`lockwarden sign-in` signs in; or give --token-file, or set {TOKEN_FILE_VARIABLE}"
                    )));
                }
            };
            return Self::in_session(args, &kept);
        };
        let base = named(args)?.ok_or_else(no_server)?;
        let token = secret_file::read(&token_file, "the token file")?;
        if let Some(warning) = secret_file::warning(&token_file, "the token file") {
            voice.talk(warning);
        }
        Self::with(args, base, Some(token.trim()))
    }

    /// The server that the arguments or the environment name, asked by nobody in particular.
    ///
    /// # Errors
    /// When no server is named.
    pub(crate) fn for_anybody(args: &ServerArgs) -> Result<Self, Failure> {
        Self::with(args, named(args)?.ok_or_else(no_server)?, None)
    }

    /// The server of a session, asked in that.
    ///
    /// # Errors
    /// When the session cannot be used.
    pub(crate) fn in_session(args: &ServerArgs, kept: &Kept) -> Result<Self, Failure> {
        Self::with(args, address(kept.url.as_str())?, Some(&kept.session))
    }

    fn with(args: &ServerArgs, base: Url, secret: Option<&str>) -> Result<Self, Failure> {
        let authorization = secret.map(|secret| {
            let bearer = Zeroizing::new(format!("Bearer {secret}"));
            let mut value = HeaderValue::from_str(&bearer).map_err(|_| {
                Failure::new("the token file holds something that is no token")
                    .hint("it must hold the token alone, on one line")
            })?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Self {
            client: client(args.ca_file.as_deref())?,
            base,
            authorization: authorization.transpose()?,
            organisation: args.organisation.clone(),
            leave: None,
        })
    }

    /// The same, where what it is asked for takes other people.
    ///
    /// # Errors
    /// When that cannot be said in a header.
    pub(crate) fn with_leave(mut self, leave: &LeaveArgs) -> Result<Self, Failure> {
        if let Some((name, text)) = leave.header() {
            let encoded = utf8_percent_encode(text.trim(), NON_ALPHANUMERIC).to_string();
            let value = HeaderValue::try_from(encoded)
                .map_err(|_| Failure::usage("the reason is too long"))?;
            self.leave = Some((name, value));
        }
        Ok(self)
    }

    /// The server's address.
    pub(crate) fn url(&self) -> &Url {
        &self.base
    }

    /// Asks, and takes any success for an answer.
    ///
    /// # Errors
    /// When the server cannot be reached, or refuses: in its own words.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<Answer, Failure> {
        self.try_ask(ask).await.map_err(|refusal| refusal.failure)
    }

    /// The same, for whoever goes on after some refusals.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn try_ask(&self, ask: Ask<'_>) -> Result<Answer, Refusal> {
        let response = self.send(ask).await?;
        let status = response.status();
        let body = whole(response)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let asked = asked_for(status, &body);
        if let Some(failure) = asked {
            Err(Refusal {
                problem: Some("approval-asked".to_owned()),
                failure,
            })
        } else if status.is_success() {
            Ok(Answer { status, body })
        } else {
            Err(Refusal {
                problem: problem_name(&body),
                failure: refused(status, &body),
            })
        }
    }

    /// Asks for an answer of any length, made of lines, and hands it on as it comes: whole lines each time.
    ///
    /// # Errors
    /// As [`Self::ask`]; when the answer breaks off; or as `take` fails.
    pub(crate) async fn pour(
        &self,
        ask: Ask<'_>,
        mut take: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut response = self
            .send(ask.patiently())
            .await
            .map_err(|refusal| refusal.failure)?;
        let status = response.status();
        if !status.is_success() {
            let body = whole(response)
                .await
                .map_err(|error| self.unreachable(&error).failure)?;
            return Err(refused(status, &body));
        }
        let broke_off = || {
            Failure::new("the answer broke off before its end: what came of it is not whole")
                .hint("ask again; the server's log says more")
        };
        let mut left = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| broke_off())? {
            left.extend_from_slice(&chunk);
            let Some(end) = left.iter().rposition(|byte| *byte == b'\n') else {
                continue;
            };
            let rest = left.split_off(end + 1);
            let lines = std::str::from_utf8(&left).map_err(|_| not_lockwarden(status))?;
            take(lines)?;
            left = rest;
        }
        if left.is_empty() {
            Ok(())
        } else {
            Err(broke_off())
        }
    }

    /// Asks for a file, and hands it on as it comes. Gives the value of a header of the answer.
    ///
    /// # Errors
    /// As [`Self::ask`]; when the answer breaks off; or as `take` fails.
    pub(crate) async fn download(
        &self,
        ask: Ask<'_>,
        header: &str,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<Option<String>, Failure> {
        let sent = self.send(ask.patiently()).await;
        let mut response = sent.map_err(|refusal| refusal.failure)?;
        let status = response.status();
        if status != StatusCode::OK {
            let body = whole(response)
                .await
                .map_err(|error| self.unreachable(&error).failure)?;
            return Err(asked_for(status, &body).unwrap_or_else(|| refused(status, &body)));
        }
        let told = response
            .headers()
            .get(header)
            .and_then(|value| value.to_str().ok());
        let told = told.map(str::to_owned);
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.unreachable(&error).failure)?
        {
            take(&chunk)
                .map_err(|error| Failure::new(format!("the file cannot be written: {error}")))?;
        }
        Ok(told)
    }

    async fn send(&self, ask: Ask<'_>) -> Result<reqwest::Response, Refusal> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("an http address has a path")
            .pop_if_empty()
            .push("v1")
            .extend(ask.path);
        let parameters = ask
            .query
            .iter()
            .map(|(name, value)| (*name, value.as_str()));
        let parameters: Vec<_> = parameters
            .chain(
                self.organisation
                    .as_deref()
                    .map(|name| ("organisation", name)),
            )
            .collect();
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        let changes = ask.method != Method::GET;
        let mut request = self
            .client
            .request(ask.method, url)
            .header(ACCEPT, "application/json, application/problem+json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if let Some((name, value)) = self.leave.as_ref().filter(|_| changes) {
            request = request.header(*name, value.clone());
        }
        if let Some(body) = ask.body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(body.to_vec());
        }
        if let Some(key) = ask.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        request
            .timeout(ask.patience)
            .send()
            .await
            .map_err(|error| self.unreachable(&error))
    }

    /// The organisation whose own things are meant, as a path names it: the one that was named, or the token's only one.
    ///
    /// # Errors
    /// When the token is valid in several and none was named, or the server cannot be asked.
    pub(crate) async fn organisation(&self) -> Result<String, Failure> {
        if let Some(named) = &self.organisation {
            return Ok(named.clone());
        }
        let me = self.ask(Ask::get(&["me"])).await?.json()?;
        let all = me.get("organisations").and_then(Value::as_array);
        let text = |key| {
            let texts = all
                .into_iter()
                .flatten()
                .filter_map(move |one| one.get(key));
            texts.filter_map(Value::as_str).collect::<Vec<_>>()
        };
        match text("id").as_slice() {
            [only] => Ok((*only).to_owned()),
            [] => Err(Failure::new("there is no organisation yet")
                .hint("`lockwarden init` makes the first one")),
            _ => Err(Failure::new("this token is valid in several organisations")
                .hint(which_one(&text("name")))),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Refusal {
        let mut why = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            why = inner.to_string();
            source = inner.source();
        }
        let failure = Failure::new(format!("the server at {} gave no answer: {why}", self.base.origin().ascii_serialization()))
            .hint("is `lockwarden serve` running there? If its certificate is of your own authority, name that with --ca-file");
        Refusal {
            problem: None,
            failure,
        }
    }
}

/// What to say when others were asked, in place of an answer.
fn asked_for(status: StatusCode, body: &[u8]) -> Option<Failure> {
    if status != StatusCode::ACCEPTED || problem_name(body).as_deref() != Some("approval-asked") {
        return None;
    }
    let asked: Value = serde_json::from_slice(body).ok()?;
    let id = asked.get("approval").and_then(Value::as_str)?;
    let mut failure = Failure::new(format!(
        "others were asked (approval {id}): nothing is done before they say yes"
    ));
    failure.status = ASKED;
    Some(failure.hint(format!(
        "`lockwarden approvals show {id}` shows how it stands; once it is approved, run the same command with --approval {id}"
    )))
}

/// The server that is named.
fn named(args: &ServerArgs) -> Result<Option<Url>, Failure> {
    let given = args
        .url
        .clone()
        .or_else(|| std::env::var(URL_VARIABLE).ok());
    given.as_deref().map(address).transpose()
}

fn no_server() -> Failure {
    Failure::usage("no server is named").hint(format!("give --url, or set {URL_VARIABLE}"))
}

/// An address of a server: https, or http on this machine.
fn address(text: &str) -> Result<Url, Failure> {
    let wrong = |why: &str| {
        Failure::usage(format!("the server's address is not usable: {why}"))
            .hint("it looks like https://lockwarden.example.org, or http://127.0.0.1:8443 on this machine")
    };
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    let here = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return Err(wrong("it names no host")),
    };
    match url.scheme() {
        "https" => {}
        "http" if here => {}
        "http" => return Err(wrong("http would send the token in the clear; use https")),
        _ => return Err(wrong("it is neither https nor http")),
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(wrong("it holds more than a host, a port and a path"));
    }
    Ok(url)
}

/// The one HTTP client of this crate: our own TLS, no redirects (a token would follow them), no proxy from the environment.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place in this crate that builds an HTTP client"
)]
fn client(ca_file: Option<&Path>) -> Result<reqwest::Client, Failure> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = ca_file {
        let unusable = |why: &dyn std::fmt::Display| {
            Failure::new(format!(
                "the certificate authority in {} cannot be used: {why}",
                path.display()
            ))
            .hint("--ca-file takes one or more certificates in PEM form")
        };
        let pem = std::fs::read(path).map_err(|error| unusable(&error))?;
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots
                .add(certificate.map_err(|error| unusable(&error))?)
                .map_err(|error| unusable(&error))?;
            count += 1;
        }
        if count == 0 {
            return Err(unusable(&"there is no certificate in it"));
        }
    }
    let broken =
        |error: &dyn std::fmt::Display| Failure::new(format!("no TLS client can be made: {error}"));
    let config = ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .map_err(|error| broken(&error))?
    .with_root_certificates(roots)
    .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(TIME_OUT)
        .user_agent(concat!("lockwarden/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| broken(&error))
}

async fn whole(mut response: reqwest::Response) -> Result<Zeroizing<Vec<u8>>, reqwest::Error> {
    let mut body = Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn not_lockwarden(status: StatusCode) -> Failure {
    Failure::new(format!(
        "the answer (status {}) is not one of Lockwarden's",
        status.as_u16()
    ))
    .hint("does --url name a Lockwarden server, and not something in front of it?")
}

/// The name of a problem document (RFC 9457).
fn problem_name(body: &[u8]) -> Option<String> {
    let problem: Value = serde_json::from_slice(body).ok()?;
    name_of(problem.get("type")?.as_str()?).map(str::to_owned)
}

fn name_of(kind: &str) -> Option<&str> {
    kind.strip_prefix("urn:lockwarden:problem:")
}

/// A refusal in the server's words: a problem document (RFC 9457).
fn refused(status: StatusCode, body: &[u8]) -> Failure {
    let Ok(problem) = serde_json::from_slice::<Value>(body) else {
        return not_lockwarden(status);
    };
    let text = |key: &str| {
        problem
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let what = match (text("title"), text("detail")) {
        (Some(title), Some(detail)) if title != detail => {
            format!("{}: {detail}", title.trim_end_matches('.'))
        }
        (Some(one), _) | (None, Some(one)) => one.to_owned(),
        (None, None) => return not_lockwarden(status),
    };
    let failure = Failure::new(format!("{what} (status {})", status.as_u16()));
    if let Some(hint) = text("type").and_then(|kind| on_the_command_line(kind, &problem)) {
        return failure.hint(hint);
    }
    match text("hint").or_else(|| text("to_do")) {
        Some(hint) => failure.hint(hint),
        None if status == StatusCode::UNAUTHORIZED => {
            failure.hint("the token may be mistyped, expired or revoked; `lockwarden token create` makes a new one")
        }
        None => failure,
    }
}

/// What to do, where the server's own hint speaks of requests and there is a command for it.
fn on_the_command_line(kind: &str, problem: &Value) -> Option<String> {
    Some(match name_of(kind)? {
        "organisation-needed" | "ambiguous-device" => {
            let known = problem.get("organisations").and_then(Value::as_array);
            let known: Vec<&str> = known?.iter().filter_map(Value::as_str).collect();
            which_one(&known)
        }
        "unknown-organisation" => "`lockwarden organisations list` lists them".to_owned(),
        "no-product-type" => "`lockwarden devices set SERIAL --product-type iPad4,1` sets it (the hardware's own name, neither \
            the order number nor a name like iPhone XR); or let the device enrol, which tells it"
            .to_owned(),
        "unlock-in-progress" => {
            let id = problem.get("unlock").and_then(Value::as_str)?;
            in_the_way("unlocks", id)
        }
        "lock-in-progress" => {
            let id = problem.get("lock").and_then(Value::as_str)?;
            in_the_way("locks", id)
        }
        "not-assigned" => "assign the device to this server in Apple Business Manager or Apple School Manager, have the list \
            read (`lockwarden dep sync NAME`), and ask again. If the list is wrong, say why with --override-reason: Apple \
            decides in the end"
            .to_owned(),
        "unknown-device" => "check the serial number; a device is known once its MDM told of it, once a list of Apple's enrolment \
            service that names it was read (`lockwarden dep sync NAME` reads one now), or once something was set for it by hand \
            (`lockwarden devices set`)"
            .to_owned(),
        "unknown-server-token" => "`lockwarden dep tokens` lists them".to_owned(),
        "no-business-api" => "somebody with the role of Administrator makes an API account in Apple Business Manager or Apple \
            School Manager; `lockwarden business-api set` sets it"
            .to_owned(),
        "unknown-connection" => "`lockwarden mdm list` lists them".to_owned(),
        "unknown-push-certificate" => "`lockwarden push-certificate list` lists them".to_owned(),
        "unknown-token" => "`lockwarden token list` lists them".to_owned(),
        _ => return None,
    })
}

/// What to do about a lock or an unlock that another one has to wait for.
fn in_the_way(all: &str, id: &str) -> String {
    format!(
        "`lockwarden {all} show {id}` shows it; wait for it to end, agree with whoever asked for it, or end it with `lockwarden \
         {all} cancel {id}`"
    )
}

fn which_one(known: &[&str]) -> String {
    format!(
        "say which one with --organisation NAME: {}",
        known.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_travels_over_https_or_on_this_machine_only() {
        for good in [
            "https://lw.example.org",
            "https://lw.example.org:8443/base",
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://localhost:1",
        ] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in [
            "http://lw.example.org",
            "ftp://127.0.0.1",
            "lw.example.org",
            "https://a:b@lw.example.org",
            "https://lw.example.org/?x=1",
            "http://127.0.0.1.example.org",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let body = br#"{"type":"about:blank","title":"No such device","detail":"No device with this serial number is known.","hint":"Check it."}"#;
        let failure = refused(StatusCode::NOT_FOUND, body);
        assert_eq!(
            failure.what,
            "No such device: No device with this serial number is known. (status 404)"
        );
        assert_eq!(failure.hint.as_deref(), Some("Check it."));
        // A hint about requests is of no use on the command line.
        let body = br#"{"type":"urn:lockwarden:problem:ambiguous-device","title":"t","detail":"d","hint":"Add `?organisation=NAME`.","organisations":["A","B"]}"#;
        assert_eq!(
            refused(StatusCode::CONFLICT, body).hint.as_deref(),
            Some("say which one with --organisation NAME: A, B")
        );
        let body = br#"{"type":"urn:lockwarden:problem:unknown-device","title":"t","detail":"d","hint":"`POST ...`"}"#;
        let hint = refused(StatusCode::NOT_FOUND, body).hint.unwrap();
        assert!(hint.contains("`lockwarden dep sync NAME`"), "{hint}");
        assert!(
            refused(StatusCode::BAD_GATEWAY, b"<html>")
                .what
                .contains("not one of Lockwarden's")
        );
    }
}
