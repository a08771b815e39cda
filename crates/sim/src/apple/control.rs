//! The controls of the fake Apple and its services over plain HTTP, for those who do not write Rust. Loopback only.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /devices` | `{"serial","product_type","imei"?,"imei2"?,"meid"?,"lock"?:{"kind":"user"\|"mdm","code"? or "hash"?}}` | 201 the device |
//! | `GET /devices/{serial}` | | 200 the device with `"lock"`: `"user"`, `"mdm"` or null; 404 |
//! | `DELETE /devices/{serial}/lock` | | 204: the lock goes off without us |
//! | `POST /faults` | `{"kind","path"?,"serial"?,"times"?,"milliseconds"?,"status"?,"retry_after"?,"location"?,"body"?,"committing"?}` | 204 |
//! | `DELETE /faults` | | 204 |
//! | `GET /journal` | | 200 the list of [`UnlockCall`](super::UnlockCall)s |
//! | `POST /push-certificates` | `{"topic"?,"days"?,"issuer"?,"rsa"?}` | 201 `{"topic","certificate_pem","key_pem","not_after"}` |
//! | `GET /ca.pem` | | 200 the authority a client must trust, of all services |
//!
//! With an enrolment service:
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /dep/tokens` | `{"server_name"?}` | 201 the token: its server, its four secrets, its end |
//! | `PATCH /dep/tokens/{consumer_key}` | `{"expired"?,"terms_signed"?,"access_denied"?}`: `expired` can be `true` alone, a token that has ended stays so | 204 |
//! | `POST /dep/tokens/{consumer_key}/file` | `{"certificate_pem","cipher"?,"message_marks"?,"width"?,"crlf"?}` | 201 the `.p7m` file |
//! | `POST /dep/tokens/{consumer_key}/devices` | a [`DepDevice`](crate::DepDevice), of which only `serial_number` must be there | 204 |
//! | `DELETE /dep/tokens/{consumer_key}/devices/{serial}` | | 204 |
//! | `PUT /dep/lock-refusals/{serial}` | `{"response_status"}` | 204: lock calls are answered so |
//! | `DELETE /dep/lock-refusals/{serial}` | | 204 |
//! | `POST /dep/expire` | `{"sessions"?,"cursors"?}` | 204: those given so far are good no more |
//! | `POST /dep/faults`, `DELETE /dep/faults` | as above | 204 |
//! | `GET /dep/journal` | | 200 the list of [`DepCall`](crate::dep::DepCall)s |
//!
//! With a Business and School Manager API:
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /business-manager/accounts` | `{"kind"?}`: `business` or `school` | 201 `{"client_id","key_id","private_key_pem","private_key_sec1_pem"}` |
//! | `PATCH /business-manager/accounts/{client_id}` | `{"denied"}` | 204 |
//! | `POST /business-manager/devices` | an [`OrgDevice`](crate::OrgDevice), of which only `serialNumber` must be there | 204 |
//! | `DELETE /business-manager/devices/{serial}` | | 204 |
//! | `PUT /business-manager/devices/{serial}/lock-status` | a [`StatusAnswer`](crate::StatusAnswer): `"truth"`, `"missing"`, `{"other":"PARTS"}`, ... | 204 |
//! | `PUT /business-manager/stale-for` | `{"seconds"}` | 204 |
//! | `POST /business-manager/expire-tokens` | | 204 |
//! | `POST /business-manager/faults`, `DELETE /business-manager/faults` | as above | 204 |
//! | `GET /business-manager/journal` | | 200 the list of [`BusinessCall`](crate::business_manager::BusinessCall)s |
//!
//! `kind` of a fault: `delay` (with `milliseconds`), `drop_before`, `drop_after_commit`, `status` and `echo` (with `status`),
//! `garbage`, `huge_body`, `empty_body`, `xml_body`; `path` is how the path of its requests begins; `retry_after` is seconds, or a
//! text as it is to be sent. `issuer`: `trusted`, `chain`, `chainless`,
//! `unknown`. `days` may be negative: a certificate that ended so long ago. `cipher`: `aes128`, `triple_des`. Unknown keys are
//! refused.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{Request, Response, StatusCode},
    response::IntoResponse,
    routing::{delete, get, post},
};
use hyper::{body::Incoming, service::Service};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Apple, AppleDevice, Fault, LockKind, LockRefused};
use crate::{
    BusinessManager, CodeHash, Dep, Issuer, Key, PushCertificateOptions, StartError,
    listener::{Connection, Hangup, Listener, Speaker},
};

mod business_manager;
mod dep;

/// What is controlled.
#[derive(Clone)]
pub struct Controlled {
    /// The unlock service.
    pub apple: Apple,
    /// The enrolment service, if there is one.
    pub dep: Option<Dep>,
    /// The Business and School Manager API, if there is one.
    pub business_manager: Option<BusinessManager>,
}

impl From<Apple> for Controlled {
    fn from(apple: Apple) -> Self {
        Self {
            apple,
            dep: None,
            business_manager: None,
        }
    }
}

/// The running control service; it stops when dropped.
pub struct Control {
    listener: Listener,
}

impl Control {
    /// Starts to listen for controls of an [`Apple`] alone, or of all that is [`Controlled`].
    ///
    /// # Errors
    ///
    /// When the address is not a loopback address, or cannot be listened at.
    pub async fn start(
        fakes: impl Into<Controlled>,
        listen: SocketAddr,
    ) -> Result<Self, StartError> {
        if !listen.ip().is_loopback() {
            return Err(StartError::NotLoopback(listen));
        }
        let router = Arc::new(router(fakes.into()));
        Ok(Self {
            listener: Listener::start(listen, Controls(router)).await?,
        })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.listener.address())
    }
}

#[derive(Clone)]
struct Controls(Arc<Router>);

impl Speaker for Controls {
    async fn answer(
        &self,
        _: Arc<Connection>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Hangup> {
        let router = Router::clone(&self.0);
        TowerToHyperService::new(router)
            .call(request)
            .await
            .map_err(|never| match never {})
    }
}

fn router(fakes: Controlled) -> Router {
    let router = Router::new()
        .route("/devices", post(add_device))
        .route("/devices/{serial}", get(show_device))
        .route("/devices/{serial}/lock", delete(clear_lock))
        .route("/faults", post(add_fault).delete(clear_faults))
        .route("/journal", get(journal))
        .route("/push-certificates", post(issue))
        .route("/ca.pem", get(ca))
        .with_state(fakes.apple);
    let dep = fakes.dep.map(dep::router).unwrap_or_default();
    let business_manager = fakes
        .business_manager
        .map(business_manager::router)
        .unwrap_or_default();
    router
        .nest("/dep", dep)
        .nest("/business-manager", business_manager)
}

/// A refusal in words.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> axum::response::Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

fn bad(why: impl Into<String>) -> Refused {
    Refused(StatusCode::BAD_REQUEST, why.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewDevice {
    serial: String,
    product_type: String,
    imei: Option<String>,
    imei2: Option<String>,
    meid: Option<String>,
    lock: Option<NewLock>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLock {
    kind: LockKind,
    code: Option<String>,
    hash: Option<String>,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    device: AppleDevice,
    lock: Option<LockKind>,
}

async fn add_device(
    State(apple): State<Apple>,
    Json(new): Json<NewDevice>,
) -> Result<impl IntoResponse, Refused> {
    let NewDevice {
        serial,
        product_type,
        imei,
        imei2,
        meid,
        lock,
    } = new;
    let device = AppleDevice {
        serial,
        product_type,
        imei,
        imei2,
        meid,
    };
    let serial = device.serial.clone();
    apple.add_device(device.clone());
    if let Some(lock) = lock {
        let done = match lock {
            NewLock {
                kind: LockKind::User,
                code: Some(code),
                hash: None,
            } => apple.user_lock(&serial, &code),
            NewLock {
                kind: LockKind::Mdm,
                code: Some(code),
                hash: None,
            } => {
                let code = crate::Code::parse(&code)
                    .ok_or_else(|| bad("an mdm lock needs a canonical code"))?;
                apple.org_lock(&serial, code.hash())
            }
            NewLock {
                kind: LockKind::Mdm,
                code: None,
                hash: Some(hash),
            } => {
                let hash = CodeHash::parse(&hash)
                    .ok_or_else(|| bad("the hash must be 64 hexadecimal digits"))?;
                apple.org_lock(&serial, hash)
            }
            _ => return Err(bad("a lock needs a code, or an mdm lock a hash")),
        };
        done.map_err(|refused: LockRefused| Refused(StatusCode::CONFLICT, refused.to_string()))?;
    }
    Ok((
        StatusCode::CREATED,
        Json(Shown {
            device,
            lock: apple.lock_state(&serial),
        }),
    ))
}

async fn show_device(
    State(apple): State<Apple>,
    Path(serial): Path<String>,
) -> Result<impl IntoResponse, Refused> {
    let unknown = || {
        Refused(
            StatusCode::NOT_FOUND,
            "this Apple does not know the device".to_owned(),
        )
    };
    let device = apple.device(&serial).ok_or_else(unknown)?;
    Ok(Json(Shown {
        device,
        lock: apple.lock_state(&serial),
    }))
}

async fn clear_lock(State(apple): State<Apple>, Path(serial): Path<String>) -> StatusCode {
    apple.clear_lock(&serial);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFault {
    kind: String,
    path: Option<String>,
    serial: Option<String>,
    times: Option<u32>,
    milliseconds: Option<u64>,
    status: Option<u16>,
    retry_after: Option<RetryAfter>,
    location: Option<String>,
    body: Option<String>,
    #[serde(default)]
    committing: bool,
}

/// The header's value: seconds, or any text, such as a date or one that a client has to withstand.
#[derive(Deserialize)]
#[serde(untagged)]
enum RetryAfter {
    Seconds(u64),
    Text(String),
}

impl NewFault {
    fn into_fault(self) -> Result<Fault, Refused> {
        let status = || {
            self.status
                .filter(|status| (200..600).contains(status))
                .ok_or_else(|| bad("status is missing, or is not 200 to 599"))
        };
        let mut fault = match self.kind.as_str() {
            "delay" => Fault::delay(Duration::from_millis(
                self.milliseconds
                    .ok_or_else(|| bad("milliseconds is missing"))?,
            )),
            "drop_before" => Fault::drop_before(),
            "drop_after_commit" => Fault::drop_after_commit(),
            "status" => Fault::status(status()?),
            "garbage" => Fault::garbage(),
            "huge_body" => Fault::huge_body(),
            "empty_body" => Fault::empty_body(),
            "xml_body" => Fault::xml_body(),
            "echo" => Fault::echo(status()?),
            _ => return Err(bad("no fault of that kind")),
        };
        if let Some(value) = self.retry_after {
            fault = fault.retry_after(match value {
                RetryAfter::Seconds(seconds) => seconds.to_string(),
                RetryAfter::Text(text) => text,
            });
        }
        if let Some(url) = self.location {
            fault = fault.location(url);
        }
        if let Some(body) = self.body {
            fault = fault.body(body);
        }
        if let Some(path) = self.path {
            fault = fault.on(path);
        }
        if let Some(serial) = self.serial {
            fault = fault.for_serial(serial);
        }
        if self.committing {
            fault = fault.committing();
        }
        Ok(fault.times(self.times.unwrap_or(1)))
    }
}

async fn add_fault(
    State(apple): State<Apple>,
    Json(new): Json<NewFault>,
) -> Result<StatusCode, Refused> {
    apple.push_fault(new.into_fault()?);
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_faults(State(apple): State<Apple>) -> StatusCode {
    apple.clear_faults();
    StatusCode::NO_CONTENT
}

async fn journal(State(apple): State<Apple>) -> impl IntoResponse {
    Json(apple.journal().all())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCertificate {
    topic: Option<String>,
    days: Option<i64>,
    issuer: Option<String>,
    #[serde(default)]
    rsa: bool,
}

#[derive(Serialize)]
struct Issued {
    topic: String,
    certificate_pem: String,
    key_pem: String,
    #[serde(serialize_with = "crate::serialize_time")]
    not_after: time::OffsetDateTime,
}

async fn issue(
    State(apple): State<Apple>,
    Json(new): Json<NewCertificate>,
) -> Result<impl IntoResponse, Refused> {
    let now = apple.shared.now.get();
    let mut options = PushCertificateOptions::new(
        new.topic.unwrap_or_else(|| crate::SIM_TOPIC.to_owned()),
        now,
    );
    if let Some(days) = new.days.filter(|days| days.abs() < 36_500) {
        options.not_after = now + time::Duration::days(days);
        options.not_before = options
            .not_before
            .min(options.not_after - time::Duration::days(365));
    }
    options.issuer = match new.issuer.as_deref() {
        None | Some("trusted") => Issuer::Trusted,
        Some("chain") => Issuer::IntermediateWithChain,
        Some("chainless") => Issuer::IntermediateWithoutChain,
        Some("unknown") => Issuer::Unknown,
        Some(_) => return Err(bad("issuer must be trusted, chain, chainless or unknown")),
    };
    options.key = if new.rsa { Key::Rsa2048 } else { Key::P256 };
    let made = apple
        .issue(&options)
        .map_err(|error| bad(error.to_string()))?;
    let crate::PushCertificate {
        topic,
        certificate_pem,
        key_pem,
        not_after,
    } = made;
    Ok((
        StatusCode::CREATED,
        Json(Issued {
            topic,
            certificate_pem,
            key_pem,
            not_after,
        }),
    ))
}

async fn ca(State(apple): State<Apple>) -> impl IntoResponse {
    (
        [(axum::http::header::CONTENT_TYPE, "application/x-pem-file")],
        apple.ca_pem(),
    )
}
