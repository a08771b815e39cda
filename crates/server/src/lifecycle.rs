//! The life of a server: the machine's clock and randomness, which are made here and nowhere else; its start; its end.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use activation_lock::time::Timestamp;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use escrow::Escrow;
use escrow::clock::{Clock, Sleep};
use escrow::replicas::Replica;
use seal::Random;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::services::Services;
use crate::{App, Parts, Settings, connectors, http, telemetry, tls, worker};

/// How long requests under way may go on once the server is asked to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// The machine's clock.
#[must_use]
pub fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// The machine's randomness.
#[must_use]
pub fn random() -> Arc<dyn Random> {
    Arc::new(SystemRandom)
}

struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clock"
    )]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that sleeps")]
    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

struct SystemRandom;

impl Random for SystemRandom {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that draws from the machine's randomness"
    )]
    fn fill(&self, bytes: &mut [u8]) {
        aws_lc_rs::rand::fill(bytes)
            .expect("the system's generator gives bytes, or nothing here is safe");
    }
}

/// Tells the parts of a server that it is to end. Copies of it are one.
#[derive(Clone)]
pub(crate) struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Nobody has asked yet; whoever holds the sender may.
    pub(crate) fn new() -> (watch::Sender<bool>, Self) {
        let (sender, asked) = watch::channel(false);
        (sender, Self(asked))
    }

    /// Waits until the server is to end.
    pub(crate) async fn requested(&self) {
        let mut asked = self.0.clone();
        // An error means that the one who would ask is gone, which is an end too.
        let _ = asked.wait_for(|asked| *asked).await;
    }

    /// Whether the server is to end.
    pub(crate) fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

/// What a server is made of.
pub struct Setup {
    /// The open vault; closed when the server stops.
    pub escrow: Escrow,
    /// The machine's clock; the one that the vault was opened with.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// How it runs.
    pub settings: Settings,
}

/// Why a server did not start. The vault is closed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The listener would be reached from other machines without TLS (R22).
    #[error(
        "{0} can be reached from other machines, and no TLS is configured: give `certificate_file` and `key_file` under [listen], or listen on 127.0.0.1 behind a proxy of yours and say `trusted_proxy = true`"
    )]
    PlainListener(SocketAddr),
    /// A sandbox listens on this machine alone.
    #[error("{0} is not a loopback address: a sandbox is for its own machine only")]
    SandboxListener(SocketAddr),
    /// The listener's TLS.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The socket.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// The data folder.
    #[error(
        "the data folder's name for itself, the file `node` in it, can be neither read nor written: {0}"
    )]
    Node(std::io::Error),
    /// The client for MDMs.
    #[error("MDMs cannot be called: {0}")]
    Client(#[from] connectors::ClientError),
}

/// A server that runs. Dropping it does not stop it: see [`Running::stop`].
pub struct Running {
    app: App,
    address: SocketAddr,
    tls: Option<RustlsConfig>,
    shutdown: watch::Sender<bool>,
    handle: Handle<SocketAddr>,
    serving: JoinHandle<std::io::Result<()>>,
    working: JoinHandle<()>,
}

/// Starts a server: it serves when this returns.
///
/// # Errors
/// When it would be unsafe to serve so, or the machine does not let it.
pub async fn start(setup: Setup) -> Result<Running, StartError> {
    let escrow = setup.escrow.clone();
    match assemble(setup).await {
        Ok(running) => Ok(running),
        Err(error) => {
            escrow.close().await;
            Err(error)
        }
    }
}

/// How many connections may stand before the door. Whoever comes when that many do waits a second before trying again.
const AT_THE_DOOR: u32 = 4096;

fn listener(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A server that starts anew need not wait for connections of the one before to fade.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(AT_THE_DOOR)?.into_std()
}

async fn assemble(setup: Setup) -> Result<Running, StartError> {
    let settings = setup.settings;
    refuse_unsafe(&settings)?;
    let tls = settings.tls.as_ref().map(tls::listener).transpose()?;
    let mdm = connectors::Client::new(&settings.mdm_authorities, settings.mdm_timeout)?;
    let listen = |error| StartError::Listen {
        address: settings.listen,
        error,
    };
    let listener = listener(settings.listen).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let url = match &settings.public_url {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => format!(
            "{}://{address}",
            if tls.is_some() { "https" } else { "http" }
        ),
    };
    let (shutdown, asked) = Shutdown::new();
    let replica = replica(&setup.escrow, &*setup.random, &settings)?;
    let services = Services::new(&setup.escrow, &setup.random, &settings);
    let app = App::new(Parts {
        services,
        clock: setup.escrow.clock(),
        machine_clock: setup.clock,
        escrow: setup.escrow,
        random: setup.random,
        replica,
        leaving: AtomicBool::new(false),
        keeps: AtomicBool::new(true),
        readiness: http::Readiness::default(),
        metrics: telemetry::Metrics::new(),
        mdm,
        hooks: http::hooks::Hooks::default(),
        refusals: http::refusals::Refusals::default(),
        verifying: tokio::sync::Mutex::default(),
        #[cfg(feature = "oidc")]
        provider: crate::single_sign_on::Provider::default(),
        url,
        settings,
    });
    let handle = Handle::new();
    let serving = tokio::spawn(http::serve(
        app.clone(),
        listener,
        tls.clone(),
        handle.clone(),
    ));
    let working = tokio::spawn(worker::run(app.clone(), asked));
    Ok(Running {
        app,
        address,
        tls,
        shutdown,
        handle,
        serving,
        working,
    })
}

/// This process, as it presents itself to the others on the database.
pub(crate) fn replica(
    escrow: &Escrow,
    random: &dyn Random,
    settings: &Settings,
) -> Result<Replica, StartError> {
    let mut id = [0; 16];
    random.fill(&mut id);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let roles = [(settings.serves, "serve"), (settings.works, "work")];
    let roles = roles.into_iter().filter(|(does, _)| *does);
    Ok(Replica {
        node: escrow.replicas().node().map_err(StartError::Node)?,
        id: data_encoding::HEXLOWER.encode(&id),
        host: host.trim().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        roles: roles.map(|(_, role)| role).collect::<Vec<_>>().join(" "),
    })
}

/// Codes are not to be read on the way (R22).
fn refuse_unsafe(settings: &Settings) -> Result<(), StartError> {
    let is_loopback = settings.listen.ip().is_loopback();
    if settings.sandbox && !is_loopback {
        return Err(StartError::SandboxListener(settings.listen));
    }
    if settings.tls.is_none() && !is_loopback && !settings.trusted_proxy {
        return Err(StartError::PlainListener(settings.listen));
    }
    Ok(())
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it is reached.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.app.url
    }

    /// The vault it serves.
    #[must_use]
    pub fn escrow(&self) -> &Escrow {
        &self.app.escrow
    }

    /// Reads the listener's certificate and key anew, as after a renewal. True when there is TLS.
    ///
    /// # Errors
    /// When they cannot be used; the ones before stay.
    pub fn reload_tls(&self) -> Result<bool, tls::TlsError> {
        match (&self.tls, &self.app.settings.tls) {
            (Some(config), Some(files)) => tls::reload(config, files).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Waits until the listener fails, which it does not by itself.
    pub async fn failed(&mut self) -> String {
        match (&mut self.serving).await {
            Ok(Ok(())) => "the listener ended".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Stops it: it says that it is not ready any more, and serves on for as long as was set; then no new request is taken, requests and calls to Apple under way are finished, leases are given back, and the
    /// vault is closed.
    pub async fn stop(self) {
        self.app.leaving.store(true, Ordering::Relaxed);
        self.app.clock.sleep(self.app.settings.leave).await;
        self.handle.graceful_shutdown(Some(DRAIN));
        // The workers are gone already when nobody listens.
        let _ = self.shutdown.send(true);
        if let Err(error) = self.working.await {
            tracing::error!(%error, "a worker ended badly");
        }
        if !self.serving.is_finished() {
            let _ = self.serving.await;
        }
        if self.app.settings.works {
            worker::finish_record(&self.app).await;
        }
        self.app.escrow.close().await;
    }
}
