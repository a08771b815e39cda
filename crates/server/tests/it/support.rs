//! A stage: the fakes of Apple and of an MDM, a vault in a folder of its own, and a real server between them. Time stands
//! still until a test moves it, but for a millisecond with each look at a condition that is waited for.
//!
//! Who waits for what comes of a move of the clock moves it on in steps: the server may have read the time before the move
//! and gone to sleep after it.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use activation_lock::codes::{CodeKind, CodeText};
use activation_lock::device::SerialNumber;
use activation_lock::time::Timestamp;
use apple::push_certificate::PushCertificate;
use apple::transport::{ExtraAuthorities, Timeouts};
use escrow::clock::{Clock, ManualClock};
use escrow::codes::{RevealedCode, TypedCode};
use escrow::connections::{ConnectionKind, ConnectionView, HookAuth, NewConnection, UnlockVia};
use escrow::devices::DeviceView;
use escrow::meta::DataKind;
use escrow::operations::{Enqueued, NewUnlock, OperationView};
use escrow::organisations::Created;
use escrow::pace::Rate;
use escrow::permit::{Actor, OrganisationId, Permissions, Permit, Right, Scope};
use escrow::principals::NewToken;
use escrow::push_certificates::{NewPushCertificate, PushCertificateView};
use escrow::{Database, Escrow, Opening};
use seal::{KeyEncryptionKey, RecoveryKey};
use server::lifecycle::{self, Running, Setup};
use server::{Outside, Settings, SingleSignOn};
use sim::nanomdm::{AppleEndpoint, Flavour};
use sim::{
    Apple, AppleOptions, BusinessManager, Dep, Device, DeviceSpec, Kind, NanoMdm, NanoMdmOptions,
    Now, SIM_TOPIC, Webhook,
};
use tempfile::TempDir;
use time::OffsetDateTime;

mod enrolment;

pub(crate) use enrolment::lock_wish;

/// How long a condition is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Codes that no device of a stage has: published vectors.
pub(crate) const CODE_A: &str = "000H4-0R40M-30F2-0918-5HR3-8F17";
/// Another.
pub(crate) const CODE_B: &str = "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4";

const BEGINNING: Timestamp = Timestamp(1_780_000_000_000);

/// What a stage is made with.
pub(crate) struct Options {
    /// Who calls Apple. Delegated: there is no push certificate here.
    pub(crate) unlock_via: UnlockVia,
    /// Whose paths the MDM has.
    pub(crate) flavour: Flavour,
    /// Calls a second that the MDM takes.
    pub(crate) max_rate: Option<f64>,
    /// Of calls to Apple; in true time.
    pub(crate) timeouts: Timeouts,
    /// Of calls to MDMs; in true time.
    pub(crate) mdm_timeout: Duration,
    /// Unlocks worked on at once.
    pub(crate) in_flight: u32,
    /// Calls for unlocks a second; not positive: no limit.
    pub(crate) pace: f64,
    /// How long clients are waited for; in true time.
    pub(crate) client_timeout: Duration,
    /// Where the audit record goes outside.
    pub(crate) outside: Outside,
    /// Authorities believed beside the public ones when MDMs and mail servers are reached.
    pub(crate) mdm_authorities: ExtraAuthorities,
    /// Who vouches for people.
    pub(crate) single_sign_on: Option<SingleSignOn>,
    /// A clock that another fake goes by already.
    pub(crate) clock: Option<ManualClock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            unlock_via: UnlockVia::Own,
            flavour: Flavour::NanoMdm,
            max_rate: None,
            timeouts: Timeouts::default(),
            mdm_timeout: Duration::from_secs(30),
            in_flight: 8,
            pace: 0.0,
            client_timeout: PATIENCE,
            outside: Outside::default(),
            mdm_authorities: ExtraAuthorities::default(),
            single_sign_on: None,
            clock: None,
        }
    }
}

/// See the head of this file.
pub(crate) struct Stage {
    pub(crate) apple: Apple,
    /// Apple's enrolment service; no token of it is known at first.
    pub(crate) dep: Dep,
    /// Apple's own status; no account is known at first.
    pub(crate) business: BusinessManager,
    pub(crate) mdm: NanoMdm,
    pub(crate) clock: ManualClock,
    pub(crate) organisation: OrganisationId,
    /// May do everything.
    pub(crate) actor: Actor,
    settings: Settings,
    running: Option<Running>,
    hooks: Vec<(NanoMdm, String, String)>,
    folder: TempDir,
}

impl Stage {
    /// One with the usual options.
    pub(crate) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let clock = options
            .clock
            .clone()
            .unwrap_or_else(|| ManualClock::new(BEGINNING));
        let apple = Apple::start(AppleOptions {
            now: now_of(&clock),
            ..AppleOptions::default()
        })
        .await
        .unwrap();
        let mut settings = Settings::new(([127, 0, 0, 1], 0).into());
        settings.apple.origin = apple.url().parse().unwrap();
        settings.apple.authorities = ExtraAuthorities::from_pem(apple.ca_pem().as_bytes()).unwrap();
        settings.apple.timeouts = options.timeouts;
        let (dep, business) = enrolment::services(&apple, now_of(&clock), &mut settings).await;
        settings.mdm_timeout = options.mdm_timeout;
        settings.in_flight = options.in_flight;
        settings.pace = Rate::per_second(options.pace);
        settings.client_timeout = options.client_timeout;
        settings.outside = options.outside.clone();
        settings.mdm_authorities = options.mdm_authorities.clone();
        settings.single_sign_on = options.single_sign_on.clone();

        let folder = TempDir::new().unwrap();
        let escrow = open(&folder, &clock).await;
        let actor = Actor::system("test", Permissions::all());
        let made = escrow
            .organisations()
            .create(&actor, "Example School")
            .await
            .unwrap();
        let Created::New(organisation) = made else {
            panic!("the first organisation is new")
        };
        let mdm = mdm_of(&apple, &clock, options.flavour).await;
        let (_, secret) = connect(
            &escrow,
            &permit(&escrow, &actor, &organisation.id, "mdm").await,
            "mdm",
            &mdm,
            &options,
        )
        .await;
        if options.unlock_via == UnlockVia::Own {
            let permit = permit(&escrow, &actor, &organisation.id, "certificate").await;
            add_certificate(&escrow, &permit, &apple.push_certificate(SIM_TOPIC)).await;
        }
        let mut stage = Self {
            apple,
            dep,
            business,
            clock,
            organisation: organisation.id,
            actor,
            settings,
            running: None,
            hooks: vec![(mdm.clone(), "mdm".to_owned(), secret)],
            mdm,
            folder,
        };
        stage.start_with(escrow).await;
        stage
    }

    async fn start_with(&mut self, escrow: Escrow) {
        let setup = Setup {
            escrow,
            clock: Arc::new(self.clock.clone()),
            random: lifecycle::random(),
            settings: self.settings.clone(),
        };
        let running = lifecycle::start(setup).await.unwrap();
        self.running = Some(running);
        self.listen();
    }

    /// Has the MDMs send their webhooks here.
    pub(crate) fn listen(&self) {
        for (mdm, name, secret) in &self.hooks {
            let url = format!("{}/v1/hooks/{name}", self.url());
            mdm.set_webhook(Some(Webhook::new(url, Some(secret.as_bytes()))));
        }
    }

    /// Stops the server. The fakes go on; their webhooks find nobody.
    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    /// The vault of the folder, after [`Self::stop`].
    pub(crate) async fn vault(&self) -> Escrow {
        open(&self.folder, &self.clock).await
    }

    /// Starts a server on the same folder, after [`Self::stop`].
    pub(crate) async fn start(&mut self) {
        let escrow = open(&self.folder, &self.clock).await;
        self.start_with(escrow).await;
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the server runs")
    }

    pub(crate) fn escrow(&self) -> &Escrow {
        self.running().escrow()
    }

    pub(crate) fn url(&self) -> String {
        self.running().url().to_owned()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) async fn permit<P: Right>(&self, subject: &str) -> Permit<P> {
        permit(self.escrow(), &self.actor, &self.organisation, subject).await
    }

    /// A bearer token with these scopes, such as `read` and `unlock`, for the stage's organisation.
    pub(crate) async fn token(&self, scopes: &[&str]) -> String {
        let permissions = scopes.iter().fold(Permissions::NONE, |all, scope| {
            all.and(Permissions::of_scope(scope).unwrap())
        });
        let new = NewToken {
            name: format!("token for {}", scopes.join(" and ")),
            scope: Scope::One(self.organisation.clone()),
            permissions,
            expires_at: None,
        };
        let permit = self.permit("token").await;
        let made = self.escrow().principals().create_token(&permit, new).await;
        made.unwrap().1.expose().to_owned()
    }

    /// Another MDM with a connection of that name.
    pub(crate) async fn another_mdm(&mut self, name: &str) -> (NanoMdm, ConnectionView) {
        let options = Options::default();
        let mdm = mdm_of(&self.apple, &self.clock, options.flavour).await;
        let permit = self.permit("connection").await;
        let (connection, secret) = connect(self.escrow(), &permit, name, &mdm, &options).await;
        self.hooks.push((mdm.clone(), name.to_owned(), secret));
        self.listen();
        (mdm, connection)
    }

    pub(crate) async fn add_certificate(
        &self,
        certificate: &sim::PushCertificate,
    ) -> PushCertificateView {
        let permit = self.permit("certificate").await;
        add_certificate(self.escrow(), &permit, certificate).await
    }

    pub(crate) async fn user_lock_policy(&self, policy: &str) {
        let permit = self.permit("policy").await;
        let organisations = self.escrow().organisations();
        let set = organisations.set_user_lock(&permit, policy.parse().unwrap());
        set.await.unwrap();
    }

    /// A device at the first MDM, not enrolled yet.
    pub(crate) fn device(&self, serial: &str, kind: Kind) -> Device {
        let seed = serial.bytes().fold(7, |seed: u64, byte| {
            seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte)
        });
        Device::new(DeviceSpec::new(serial, kind, seed), &self.mdm, &self.apple)
    }

    /// A device that has enrolled and told its code and what it is.
    pub(crate) async fn enrolled(&self, serial: &str, kind: Kind) -> Device {
        let device = self.device(serial, kind);
        device.enrol();
        self.tell_code(&device).await;
        self.until("the device to say what it is", async || {
            device.poll();
            self.mdm.webhooks_settled().await;
            let epochs = self.view(serial).await.epochs;
            epochs.iter().any(|epoch| epoch.facts.info_at.is_some())
        })
        .await;
        device
    }

    /// A second later the device polls until it has told the code it has now, and that is on record.
    pub(crate) async fn tell_code(&self, device: &Device) {
        self.clock.advance(Duration::from_secs(1));
        self.until("the device to tell its code", async || {
            device.poll();
            device.has_told_code()
        })
        .await;
        self.mdm.webhooks_settled().await;
    }

    pub(crate) async fn find(&self, serial: &str) -> Option<DeviceView> {
        let serial: SerialNumber = serial.parse().unwrap();
        let permit = self.permit(serial.as_str()).await;
        self.escrow().devices().get(&permit, &serial).await.unwrap()
    }

    pub(crate) async fn view(&self, serial: &str) -> DeviceView {
        self.find(serial).await.expect("the device is known")
    }

    /// Fingerprints, as of [`sim::fingerprint`], of the codes held of a device, oldest first, and whether each is the current
    /// one. Like every reveal it has the device asked again (R8).
    pub(crate) async fn codes(&self, serial: &str) -> Vec<(String, bool)> {
        let revealed = self.reveal(serial).await;
        let told = |code: &RevealedCode| (sim::fingerprint(code.text.expose()), code.view.current);
        revealed.iter().map(told).collect()
    }

    pub(crate) async fn reveal(&self, serial: &str) -> Vec<RevealedCode> {
        let serial: SerialNumber = serial.parse().unwrap();
        let permit = self.permit(serial.as_str()).await;
        let codes = self.escrow().codes();
        codes.reveal(&permit, &serial, "a test").await.unwrap()
    }

    /// A person types a code in.
    pub(crate) async fn type_code(&self, serial: &str, text: &str) {
        let serial: SerialNumber = serial.parse().unwrap();
        let permit = self.permit(serial.as_str()).await;
        let typed = TypedCode {
            serial,
            text: CodeText::new(text.to_owned()).unwrap(),
            kind: CodeKind::Unknown,
            note: None,
        };
        self.escrow()
            .codes()
            .add_typed(&permit, typed)
            .await
            .unwrap();
    }

    /// Asks for an unlock, which must be a new one.
    pub(crate) async fn unlock(&self, serial: &str) -> OperationView {
        match self.ask_for_unlock(serial).await {
            Enqueued::New(view) => view,
            other => panic!("the unlock was not queued: {other:?}"),
        }
    }

    pub(crate) async fn ask_for_unlock(&self, serial: &str) -> Enqueued {
        let serial: SerialNumber = serial.parse().unwrap();
        let permit = self.permit(serial.as_str()).await;
        let new = NewUnlock {
            serial,
            reason: "returned by its user".to_owned(),
            requester: "anna@example.org".to_owned(),
            insists: false,
            urgent: true,
            idempotency: None,
        };
        self.escrow()
            .operations()
            .enqueue(&permit, new)
            .await
            .unwrap()
    }

    pub(crate) async fn operation(&self, id: &str) -> OperationView {
        let permit = self.permit("unlock").await;
        let view = self.escrow().operations().get(&permit, id).await.unwrap();
        view.expect("the unlock is there")
    }

    /// Waits until an unlock has ended, while time passes.
    pub(crate) async fn ended(&self, id: &str) -> OperationView {
        self.operation_when(id, OperationView::is_done).await
    }

    /// Waits until an unlock is so, while time passes: a state that lasts for seconds is seen.
    pub(crate) async fn operation_when(
        &self,
        id: &str,
        is_so: impl Fn(&OperationView) -> bool,
    ) -> OperationView {
        let step = Duration::from_millis(50);
        let look = async || is_so(&self.operation(id).await);
        self.until_in_steps("the unlock to be as expected", step, look)
            .await;
        self.operation(id).await
    }

    /// Waits for a condition, looking again and again.
    pub(crate) async fn until(&self, what: &str, is_so: impl AsyncFnMut() -> bool) {
        self.until_in_steps(what, Duration::from_millis(1), is_so)
            .await;
    }

    /// Waits for a condition, and moves the clock by a step before each new look.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one loop of these tests that looks again and again"
    )]
    pub(crate) async fn until_in_steps(
        &self,
        what: &str,
        step: Duration,
        mut is_so: impl AsyncFnMut() -> bool,
    ) {
        let look = async {
            while !is_so().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
                self.clock.advance(step);
            }
        };
        if tokio::time::timeout(PATIENCE, look).await.is_err() {
            panic!("waited {PATIENCE:?} in vain for {what}");
        }
    }
}

/// Waits for something that is to come by itself.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// The tests' one client.
#[expect(clippy::disallowed_methods, reason = "the tests' one client")]
pub(crate) fn client() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
        .build()
        .unwrap()
}

#[cfg(feature = "oidc")]
/// A clock in the test's hands, and the same for fakes that are there before the stage is.
pub(crate) fn clock_of_providers() -> (ManualClock, Now) {
    let clock = ManualClock::new(BEGINNING);
    let now = now_of(&clock);
    (clock, now)
}

fn now_of(clock: &ManualClock) -> Now {
    let clock = clock.clone();
    Now::new(move || {
        let millis = i128::from(clock.now().0);
        OffsetDateTime::from_unix_timestamp_nanos(millis * 1_000_000).unwrap()
    })
}

async fn open(folder: &TempDir, clock: &ManualClock) -> Escrow {
    struct Same(u8);
    impl seal::Random for Same {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }
    Escrow::open(Opening {
        folder: folder.path(),
        database: database(folder.path()),
        kind: DataKind::Production,
        key: Arc::new(KeyEncryptionKey::generate(&Same(1))),
        recovery: Some(RecoveryKey::generate(&Same(2)).public().clone()),
        clock: Arc::new(clock.clone()),
        random: lifecycle::random(),
    })
    .await
    .unwrap()
}

/// The database of a folder, on whichever engine the tests run.
pub(crate) fn database(folder: &Path) -> Database {
    sim::test_database(folder).map_or(Database::Embedded, |address| {
        Database::Postgres(address.parse().unwrap())
    })
}

async fn permit<P: Right>(
    escrow: &Escrow,
    actor: &Actor,
    organisation: &OrganisationId,
    subject: &str,
) -> Permit<P> {
    let permit = escrow.authorise(actor, organisation, subject).await;
    permit.unwrap()
}

async fn mdm_of(apple: &Apple, clock: &ManualClock, flavour: Flavour) -> NanoMdm {
    let mdm = NanoMdm::start(NanoMdmOptions {
        now: now_of(clock),
        flavour,
        apple: Some(AppleEndpoint {
            url: apple.url(),
            ca_pem: apple.ca_pem(),
        }),
        ..NanoMdmOptions::default()
    })
    .await
    .unwrap();
    mdm.store_push_certificate(&apple.push_certificate(SIM_TOPIC));
    mdm
}

async fn connect(
    escrow: &Escrow,
    permit: &Permit<escrow::permit::Connections>,
    name: &str,
    mdm: &NanoMdm,
    options: &Options,
) -> (ConnectionView, String) {
    let (kind, path_prefix) = match mdm.flavour() {
        Flavour::NanoMdm => (ConnectionKind::NanoMdm, ""),
        Flavour::NanoHub => (ConnectionKind::NanoHub, "/api/v1/nanomdm"),
    };
    let new = NewConnection {
        name: name.to_owned(),
        kind,
        base_url: mdm.url(),
        path_prefix: path_prefix.to_owned(),
        username: mdm.flavour().user().to_owned(),
        api_key: NanoMdmOptions::default().api_key.into(),
        hook_auth: HookAuth::Hmac,
        hmac_secret: None,
        unlock_via: options.unlock_via,
        max_rate: options.max_rate,
    };
    let made = escrow.connections().add(permit, new).await.unwrap();
    let (view, secret) = made.unwrap();
    let secret = secret.expect("the secret was made here");
    (view, secret.expose().to_owned())
}

async fn add_certificate(
    escrow: &Escrow,
    permit: &Permit<escrow::permit::Connections>,
    certificate: &sim::PushCertificate,
) -> PushCertificateView {
    let read = PushCertificate::load(certificate.bundle_pem().as_bytes(), None, None).unwrap();
    let new = NewPushCertificate {
        topic: read.topic().to_owned(),
        fingerprint: read.fingerprint().to_owned(),
        subject: read.subject().to_owned(),
        not_before: read.not_before(),
        not_after: read.not_after(),
        pem: read.to_sealed_pem(),
    };
    escrow.push_certificates().add(permit, new).await.unwrap()
}
