//! HTTP in, work out: webhooks of MDMs, the API, and the workers that speak with MDMs and with Apple.
//!
//! It knows axum and no SQL. [`lifecycle::start`] makes a running server out of an open vault and [`Settings`];
//! [`connectors`] turn an MDM's bytes into observations and our commands into its calls; `http` holds the routes, `worker`
//! what goes on by itself.

mod auth;
pub mod config;
pub mod connectors;
mod console;
pub mod doctor;
pub mod fuzzing;
pub(crate) mod http;
pub mod lifecycle;
mod notices;
mod outside;
mod services;
mod settings;
mod single_sign_on;
pub mod tables;
pub mod telemetry;
pub mod tls;
mod worker;

pub use http::api::description;
pub use http::extract::misleads;
pub use outside::{Outside, Syslog, SyslogError};
pub use settings::Settings;
pub use single_sign_on::{Group, SingleSignOn};

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use activation_lock::time::Timestamp;
use escrow::Escrow;
use escrow::clock::Clock;
use escrow::replicas::Replica;
use seal::Random;

/// What every part of a running server shares. Copies of it are one.
#[derive(Clone)]
pub(crate) struct App(Arc<Parts>);

/// See [`App`].
pub(crate) struct Parts {
    pub(crate) escrow: Escrow,
    /// The vault's clock, which all that is on record is dated by.
    pub(crate) clock: Arc<dyn Clock>,
    /// The machine's clock, for what others check against theirs.
    pub(crate) machine_clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) settings: Settings,
    /// This process, among those on the database.
    pub(crate) replica: Replica,
    /// It is going to end: nobody new should come.
    pub(crate) leaving: AtomicBool,
    /// Something could be kept in the vault when that was last tried.
    pub(crate) keeps: AtomicBool,
    /// What was said of whether it is ready.
    pub(crate) readiness: http::Readiness,
    pub(crate) metrics: telemetry::Metrics,
    /// Apple's services, as our credentials see them.
    pub(crate) services: services::Services,
    /// How MDMs are called.
    pub(crate) mdm: connectors::Client,
    /// The connections as the webhook knows them.
    pub(crate) hooks: http::hooks::Hooks,
    /// What was refused to nobody in particular, until it is on record.
    pub(crate) refusals: http::refusals::Refusals,
    /// Held while the audit record is verified: that reads all of it.
    pub(crate) verifying: tokio::sync::Mutex<()>,
    /// What is known of the provider of identities.
    #[cfg(feature = "oidc")]
    pub(crate) provider: single_sign_on::Provider,
    /// Where it is reached, `http://address:port` or as configured.
    pub(crate) url: String,
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// What a part of a server needs that is tested alone: nothing listens, nothing works.
    #[cfg(test)]
    pub(crate) fn at_rest(
        escrow: Escrow,
        machine_clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        settings: Settings,
    ) -> Self {
        Self::new(Parts {
            replica: lifecycle::replica(&escrow, &*random, &settings)
                .expect("a test has its folder"),
            leaving: AtomicBool::new(false),
            keeps: AtomicBool::new(true),
            readiness: http::Readiness::default(),
            services: services::Services::new(&escrow, &random, &settings),
            clock: escrow.clock(),
            machine_clock,
            escrow,
            random,
            metrics: telemetry::Metrics::new(),
            mdm: connectors::Client::new(&settings.mdm_authorities, settings.mdm_timeout)
                .expect("no authorities are given that could be unreadable"),
            hooks: http::hooks::Hooks::default(),
            refusals: http::refusals::Refusals::default(),
            verifying: tokio::sync::Mutex::default(),
            #[cfg(feature = "oidc")]
            provider: single_sign_on::Provider::default(),
            url: String::new(),
            settings,
        })
    }

    /// Whether people reach it by TLS: its own, or that of a proxy in front.
    pub(crate) fn is_reached_by_tls(&self) -> bool {
        let public = self.settings.public_url.as_ref();
        self.settings.tls.is_some() || public.is_some_and(|url| url.scheme() == "https")
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn machine_now(&self) -> Timestamp {
        self.machine_clock.now()
    }
}
