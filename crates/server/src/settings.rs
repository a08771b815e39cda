//! How a server runs: what the process configuration, or the sandbox, decides.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use apple::business_manager::BusinessSettings;
use apple::dep::DepSettings;
use apple::escrow_key_unlock::UnlockSettings;
use apple::transport::ExtraAuthorities;
use escrow::Weakness;
use escrow::lock_statuses::StatusSettings;
use escrow::pace::Rate;
use escrow::sessions::Rules as SignInRules;
use url::Url;

use crate::outside::Outside;
use crate::single_sign_on::SingleSignOn;

/// How a server runs. What can change while it runs is in the vault instead.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Certificate and key of the listener; without them it speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// A proxy of ours stands in front: it ends TLS, and names the client in `X-Forwarded-For`.
    pub trusted_proxy: bool,
    /// Where people and MDMs reach it, when that is not the listener's address.
    pub public_url: Option<Url>,
    /// Where Apple is, and how it is called.
    pub apple: UnlockSettings,
    /// Where Apple's enrolment service is, and how it is called.
    pub enrolment: DepSettings,
    /// Where Apple's Business and School Manager API is, and how it is called.
    pub business: BusinessSettings,
    /// When Apple's status of a lock is asked for.
    pub statuses: StatusSettings,
    /// Between two questions for a status that nobody waits for.
    pub status_pace: Duration,
    /// How often the lists of the enrolment service are read.
    pub list_every: Duration,
    /// Authorities believed beside the public ones when MDMs, or a NanoDEP, are called.
    pub mdm_authorities: ExtraAuthorities,
    /// Time-out of a whole call to an MDM.
    pub mdm_timeout: Duration,
    /// Whether people, programs and MDMs are served; else it only says how it stands.
    pub serves: bool,
    /// Whether it works on what there is to do by itself; else another process on the database must.
    pub works: bool,
    /// How long it goes on serving after it has said that it is going to end, so that those who send others here notice.
    pub leave: Duration,
    /// Unlocks worked on at once.
    pub in_flight: u32,
    /// Calls for unlocks a second, over all processes on the database.
    pub pace: Rate,
    /// How long a client may take to send the head of a request, and again to send its body.
    pub client_timeout: Duration,
    /// Connections from clients at once; further ones wait.
    pub connections: usize,
    /// Where the audit record goes outside.
    pub outside: Outside,
    /// How long people stay signed in, and what it takes.
    pub sign_in: SignInRules,
    /// Who vouches for people, beside their own passwords.
    pub single_sign_on: Option<SingleSignOn>,
    /// The ways of losing what was acknowledged that are put up with.
    pub allowed_weaknesses: Vec<Weakness>,
    /// Everything is said to be a sandbox.
    pub sandbox: bool,
}

/// The listener's TLS files, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate with its chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Settings {
    /// The defaults, on an address: 8 unlocks at once, 5 calls a second, Apple's own service, plain HTTP.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            tls: None,
            trusted_proxy: false,
            public_url: None,
            apple: UnlockSettings::default(),
            enrolment: DepSettings::default(),
            business: BusinessSettings::default(),
            statuses: StatusSettings::default(),
            status_pace: Duration::from_millis(500),
            list_every: Duration::from_secs(60 * 60),
            mdm_authorities: ExtraAuthorities::default(),
            mdm_timeout: Duration::from_secs(30),
            serves: true,
            works: true,
            leave: Duration::ZERO,
            in_flight: 8,
            pace: Rate::per_second(5.0),
            client_timeout: Duration::from_secs(30),
            // A process may mostly have 1,024 files open: some are left for the database, the MDMs and Apple.
            connections: 768,
            outside: Outside::default(),
            sign_in: SignInRules::default(),
            single_sign_on: None,
            allowed_weaknesses: Vec::new(),
            sandbox: false,
        }
    }
}
