//! Strict fakes of Apple, of MDMs and of devices, with memory, journals and faults on demand.
//!
//! For the tests of whoever builds on Apple's Activation Lock: nothing here calls Apple, and nothing here shares code with
//! the client it tests. It is a second reading of the contract, and refuses what it does not know.
//!
//! * [`Apple`]: the unlock service over mutual TLS, with a table of locks. It also issues push certificates, good and bad.
//! * [`Dep`]: the enrolment service, where an organisation turns the lock on, with its tokens, sessions and lists of devices;
//!   [`NanoDep`] stands before it for those who have no token.
//! * [`BusinessManager`]: the Business and School Manager API, which tells the lock status.
//! * [`NanoMdm`]: webhooks out, commands in.
//! * [`Device`]: a state machine between the two. What it is says [`Kind`]; what happens to it says the test.
//! * [`Postgres`]: a real server, for tests of what its crashes do; [`relay::Relay`] is a bad line to it.
//! * [`World`]: all of it with devices that live, as the sandbox runs it.
//!
//! Faults are queued with [`Apple::push_fault`], [`Dep::push_fault`], [`BusinessManager::push_fault`],
//! [`NanoMdm::push_webhook_fault`] and [`NanoMdm::push_api_fault`]. What happened is in a [`Journal`] each, which can be waited
//! on: [`Journal::wait_for`]. Nothing sleeps that was not told to. Time comes from a [`Now`], randomness from seeds; only keys
//! are new each time, and the tokens and sessions that are made from keys.
//!
//! Codes and tokens live in the fakes, as they live in devices and at Apple, but no journal, `Debug` or log has one: only
//! [`fingerprint`]s.
//!
//! ```
//! use sim::{Apple, AppleOptions, Device, DeviceSpec, Fault, Kind, NanoMdm, NanoMdmOptions, SIM_TOPIC, Webhook};
//!
//! # async fn example() -> Result<(), sim::StartError> {
//! let apple = Apple::start(AppleOptions::default()).await?;
//! let mdm = NanoMdm::start(NanoMdmOptions::default()).await?;
//! mdm.set_webhook(Some(Webhook::new("http://127.0.0.1:8080/v1/hooks/nanomdm", Some(b"key"))));
//!
//! // What the program under test is given: apple.url(), apple.ca_pem(), a push certificate, mdm.api_url().
//! let certificate = apple.push_certificate(SIM_TOPIC);
//!
//! let device = Device::new(DeviceSpec::new("SIMPHONE0001", Kind::IphoneDualSim, 1), &mdm, &apple);
//! device.enrol(); // Authenticate and TokenUpdate go out as webhooks
//! device.poll(); // Idle; answers what was queued through the MDM's API
//! device.lock_with_own_code().expect("it is not locked yet");
//!
//! // The next unlock opens the lock, but its answer is lost.
//! apple.push_fault(Fault::drop_after_commit().for_serial("SIMPHONE0001"));
//! // ... the program under test unlocks ...
//! # return Ok(());
//! apple.journal().wait_for("the unlock", |calls| calls.iter().any(|call| call.unlocked)).await;
//! assert_eq!(apple.lock_state("SIMPHONE0001"), None);
//! # Ok(())
//! # }
//! # let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
//! # runtime.block_on(example()).expect("the fakes start");
//! ```

use std::net::SocketAddr;

use time::OffsetDateTime;

mod answer;
pub mod apple;
mod authority;
mod basic;
pub mod business_manager;
mod clock;
mod code;
mod cursor;
pub mod dep;
pub mod devices;
mod fault;
mod form;
mod http_client;
mod identity_provider;
mod journal;
mod listener;
pub mod mail;
pub mod nanomdm;
mod plists;
pub mod postgres;
mod receiver;
pub mod relay;
pub mod world;

pub use self::{
    apple::{Apple, AppleDevice, AppleOptions, LockKind, LockRefused},
    authority::{AuthorityError, Issuer, Key, PushCertificate, PushCertificateOptions},
    business_manager::{
        AccountKind, ApiAccount, BusinessFault, BusinessManager, BusinessManagerOptions, OrgDevice,
        StatusAnswer,
    },
    clock::Now,
    code::{Code, CodeHash, fingerprint},
    dep::{Dep, DepDevice, DepFault, DepOptions, DepToken, NanoDep, NanoDepOptions},
    devices::{Device, DeviceSpec, Kind, SlotOrder, Udid},
    fault::{Fault, Gate},
    identity_provider::{IdentityClaims, IdentityFault, IdentityProvider},
    journal::{Journal, PATIENCE},
    mail::{Mail, MailSecurity, MailServer},
    nanomdm::{ApiFault, NanoMdm, NanoMdmOptions, Webhook, WebhookFault},
    postgres::{Postgres, copy_test_database, test_database},
    receiver::{Received, WebhookReceiver},
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
    /// The client with which it calls others.
    #[error("the fake's own HTTP client cannot be made: {0}")]
    Client(String),
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
