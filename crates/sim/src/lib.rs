//! Strict fakes of Apple, of MDMs and of devices, with memory, journals and faults on demand.

use std::net::SocketAddr;

use time::OffsetDateTime;

pub mod apple;
mod authority;
mod clock;
mod code;
pub mod devices;
mod http_client;
mod journal;
mod listener;
pub mod nanomdm;
mod plists;
pub mod world;

pub use self::{
    apple::{Apple, AppleDevice, AppleOptions, Fault, Gate, LockKind, LockRefused},
    authority::{AuthorityError, Issuer, Key, PushCertificate, PushCertificateOptions},
    clock::Now,
    code::{Code, CodeHash, fingerprint},
    devices::{Device, DeviceSpec, Kind, SlotOrder, Udid},
    journal::{Journal, PATIENCE},
    nanomdm::{ApiFault, NanoMdm, NanoMdmOptions, Webhook, WebhookFault},
    world::{Story, World, WorldOptions},
};

/// The push topic that the fakes use where none is given.
pub const SIM_TOPIC: &str = "com.apple.mgmt.External.51135151-5115-4115-8115-511351135113";

/// Why a fake could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The socket: is the port taken?
    #[error("the fake cannot listen: {0}")]
    Listen(#[from] std::io::Error),
    /// Its TLS set-up.
    #[error("the fake's TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// Its certificates.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Controls are for this machine alone.
    #[error("{0} is not a loopback address: a fake is controlled from its own machine only")]
    NotLoopback(SocketAddr),
}

fn serialize_time<S: serde::Serializer>(
    at: &OffsetDateTime,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let text = at.format(&time::format_description::well_known::Rfc3339);
    serializer.serialize_str(&text.map_err(serde::ser::Error::custom)?)
}
