//! The fake Apple's controls over plain HTTP, for those who do not write Rust. Loopback only.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /devices` | `{"serial","product_type","imei"?,"imei2"?,"meid"?,"lock"?:{"kind":"user"\|"mdm","code"? or "hash"?}}` | 201 the device |
//! | `GET /devices/{serial}` | | 200 the device with `"lock"`: `"user"`, `"mdm"` or null; 404 |
//! | `DELETE /devices/{serial}/lock` | | 204: the lock goes off without us |
//! | `POST /faults` | `{"kind","serial"?,"times"?,"milliseconds"?,"status"?,"retry_after"?,"location"?,"body"?,"committing"?}` | 204 |
//! | `DELETE /faults` | | 204 |
//! | `GET /journal` | | 200 the list of [`UnlockCall`](super::UnlockCall)s |
//! | `POST /push-certificates` | `{"topic"?,"days"?,"issuer"?,"rsa"?}` | 201 `{"topic","certificate_pem","key_pem","not_after"}` |
//! | `GET /ca.pem` | | 200 the authority a client must trust |
//!
//! `kind` of a fault: `delay` (with `milliseconds`), `drop_before`, `drop_after_commit`, `status`, `garbage`, `huge_body`,
//! `empty_body`, `xml_body`, `echo`. `issuer`: `trusted`, `chain`, `chainless`, `unknown`. `days` may be negative: a
//! certificate that ended so long ago. Unknown keys are refused.

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
    CodeHash, Issuer, Key, PushCertificateOptions, StartError,
    listener::{Connection, Hangup, Listener, Speaker},
};

/// The running control service; it stops when dropped.
pub struct Control {
    listener: Listener,
}

impl Control {
    /// Starts to listen for controls of `apple`.
    ///
    /// # Errors
    ///
    /// When the address is not a loopback address, or cannot be listened at.
    pub async fn start(apple: Apple, listen: SocketAddr) -> Result<Self, StartError> {
        if !listen.ip().is_loopback() {
            return Err(StartError::NotLoopback(listen));
        }
        Ok(Self {
            listener: Listener::start(listen, Controls(Arc::new(router(apple)))).await?,
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

fn router(apple: Apple) -> Router {
    Router::new()
        .route("/devices", post(add_device))
        .route("/devices/{serial}", get(show_device))
        .route("/devices/{serial}/lock", delete(clear_lock))
        .route("/faults", post(add_fault).delete(clear_faults))
        .route("/journal", get(journal))
        .route("/push-certificates", post(issue))
        .route("/ca.pem", get(ca))
        .with_state(apple)
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
    serial: Option<String>,
    times: Option<u32>,
    milliseconds: Option<u64>,
    status: Option<u16>,
    retry_after: Option<String>,
    location: Option<String>,
    body: Option<String>,
    #[serde(default)]
    committing: bool,
}

async fn add_fault(
    State(apple): State<Apple>,
    Json(new): Json<NewFault>,
) -> Result<StatusCode, Refused> {
    let status = || {
        new.status
            .filter(|status| (200..600).contains(status))
            .ok_or_else(|| bad("status is missing"))
    };
    let mut fault = match new.kind.as_str() {
        "delay" => Fault::delay(Duration::from_millis(
            new.milliseconds
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
    if let Some(value) = new.retry_after {
        fault = fault.retry_after(value);
    }
    if let Some(url) = new.location {
        fault = fault.location(url);
    }
    if let Some(body) = new.body {
        fault = fault.body(body);
    }
    if let Some(serial) = new.serial {
        fault = fault.for_serial(serial);
    }
    if new.committing {
        fault = fault.committing();
    }
    apple.push_fault(fault.times(new.times.unwrap_or(1)));
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
