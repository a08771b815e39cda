//! What of a call cannot be seen from outside: that none leaves late.

use std::sync::Arc;

use activation_lock::codes::{CodeKind, CodeText};
use activation_lock::time::Timestamp;
use apple::push_certificate::PushCertificate;
use apple::transport::ExtraAuthorities;
use escrow::clock::ManualClock;
use escrow::codes::TypedCode;
use escrow::connections::{ConnectionKind, HookAuth, NewConnection, UnlockVia};
use escrow::devices::Corrections;
use escrow::meta::DataKind;
use escrow::operations::{Claim, NewUnlock};
use escrow::organisations::Created;
use escrow::permit::{Actor, Permissions, Permit, Right};
use escrow::push_certificates::NewPushCertificate;
use escrow::{Escrow, Opening};
use seal::KeyEncryptionKey;
use sim::{Apple, AppleOptions, NanoMdm, NanoMdmOptions, SIM_TOPIC};

use super::*;
use crate::lifecycle::Shutdown;
use crate::{App, Settings, lifecycle};

/// A vault with a device that has a code, an unlock of it, and both ways to Apple.
struct Bench {
    apple: Apple,
    mdm: NanoMdm,
    clock: ManualClock,
    queue: Queue,
    _folder: tempfile::TempDir,
}

async fn permit<P: Right>(escrow: &Escrow, organisation: &OrganisationId) -> Permit<P> {
    let actor = Actor::system("test", Permissions::all());
    let permit = escrow.authorise(&actor, organisation, "test").await;
    permit.unwrap()
}

impl Bench {
    async fn new(via: UnlockVia) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let clock = ManualClock::new(lifecycle::clock().now());
        let random = lifecycle::random();
        let escrow = Escrow::open(Opening {
            folder: folder.path(),
            database: escrow::Database::Embedded,
            kind: DataKind::Sandbox,
            key: Arc::new(KeyEncryptionKey::generate(&*random)),
            recovery: None,
            clock: Arc::new(clock.clone()),
            random: random.clone(),
        })
        .await
        .unwrap();
        let apple = Apple::start(AppleOptions::default()).await.unwrap();
        let mdm = NanoMdm::start(NanoMdmOptions::default()).await.unwrap();
        let actor = Actor::system("test", Permissions::all());
        let made = escrow
            .organisations()
            .create(&actor, "Example School")
            .await;
        let Created::New(organisation) = made.unwrap() else {
            panic!("the first organisation is new")
        };
        ask_for_unlock(&escrow, &organisation.id).await;
        match via {
            UnlockVia::Own => add_certificate(&escrow, &organisation.id, &apple).await,
            UnlockVia::Delegated => connect(&escrow, &organisation.id, &mdm).await,
        }
        let mut settings = Settings::new(([127, 0, 0, 1], 0).into());
        settings.apple.origin = apple.url().parse().unwrap();
        settings.apple.authorities = ExtraAuthorities::from_pem(apple.ca_pem().as_bytes()).unwrap();
        let app = App::at_rest(escrow, Arc::new(clock.clone()), random, settings);
        let (_, shutdown) = Shutdown::new();
        Self {
            queue: Queue::new(&app, &shutdown),
            apple,
            mdm,
            clock,
            _folder: folder,
        }
    }

    /// A call, on record and about to leave.
    async fn begun(&self) -> (Lease, Box<Begun>) {
        let operations = self.queue.app.escrow.operations();
        let Claim::Lease(mut lease) = operations.claim(&self.queue.settings).await.unwrap() else {
            panic!("the unlock is due")
        };
        match operations
            .advance(&mut lease, &self.queue.settings)
            .await
            .unwrap()
        {
            Advance::Call(begun) => (lease, begun),
            _ => panic!("there is a call to make"),
        }
    }

    fn calls(&self) -> u64 {
        self.apple.journal().count() + self.mdm.calls().count()
    }
}

async fn ask_for_unlock(escrow: &Escrow, organisation: &OrganisationId) {
    let serial: activation_lock::device::SerialNumber = "SIMTEST00001".parse().unwrap();
    let set = Corrections {
        product_type: "iPad4,1".parse().ok(),
        ..Corrections::default()
    };
    let edit = permit(escrow, organisation).await;
    escrow
        .devices()
        .correct(&edit, &serial, &set)
        .await
        .unwrap();
    let typed = TypedCode {
        serial: serial.clone(),
        text: CodeText::new("000H4-0R40M-30F2-0918-5HR3-8F17".to_owned()).unwrap(),
        kind: CodeKind::Device,
        note: None,
    };
    escrow.codes().add_typed(&edit, typed).await.unwrap();
    let new = NewUnlock {
        serial,
        reason: "a test".to_owned(),
        requester: "anna@example.org".to_owned(),
        insists: false,
        urgent: true,
        idempotency: None,
    };
    let unlock = permit(escrow, organisation).await;
    escrow.operations().enqueue(&unlock, new).await.unwrap();
}

async fn add_certificate(escrow: &Escrow, organisation: &OrganisationId, apple: &Apple) {
    let issued = apple.push_certificate(SIM_TOPIC);
    let read = PushCertificate::load(issued.bundle_pem().as_bytes(), None, None).unwrap();
    let new = NewPushCertificate {
        topic: read.topic().to_owned(),
        fingerprint: read.fingerprint().to_owned(),
        subject: read.subject().to_owned(),
        not_before: read.not_before(),
        not_after: read.not_after(),
        pem: read.to_sealed_pem(),
    };
    let permit = permit(escrow, organisation).await;
    escrow.push_certificates().add(&permit, new).await.unwrap();
}

async fn connect(escrow: &Escrow, organisation: &OrganisationId, mdm: &NanoMdm) {
    let new = NewConnection {
        name: "mdm".to_owned(),
        kind: ConnectionKind::NanoMdm,
        base_url: mdm.url(),
        path_prefix: String::new(),
        username: "nanomdm".to_owned(),
        api_key: NanoMdmOptions::default().api_key.into(),
        hook_auth: HookAuth::Hmac,
        hmac_secret: None,
        unlock_via: UnlockVia::Delegated,
        max_rate: None,
    };
    let permit = permit(escrow, organisation).await;
    escrow
        .connections()
        .add(&permit, new)
        .await
        .unwrap()
        .unwrap();
    let seen = escrow.connections().for_hook("mdm").await.unwrap().unwrap();
    enrol(escrow, seen.connection).await;
}

/// The device is enrolled with the MDM, which is then the one to call Apple for it.
async fn enrol(escrow: &Escrow, connection: escrow::connections::ConnectionRef) {
    use activation_lock::observation::{Authenticate, EnrollmentKind, Event, Observation};
    let said = Authenticate {
        serial: "SIMTEST00001".parse().ok(),
        topic: Some(SIM_TOPIC.to_owned()),
        ..Authenticate::default()
    };
    let incoming = escrow::record::Incoming {
        connection,
        digest: [0; 32],
        observation: Observation {
            enrollment: "UDID".to_owned(),
            kind: EnrollmentKind::Device,
            at: Timestamp(1),
            event: Event::Authenticate(said),
        },
    };
    escrow.record(incoming).await.unwrap();
}

#[tokio::test]
async fn r16_no_call_starts_later_than_the_end_of_its_lease_less_its_time_out() {
    for via in [UnlockVia::Own, UnlockVia::Delegated] {
        let bench = Bench::new(via).await;
        let (lease, begun) = bench.begun().await;
        bench.clock.set(begun.latest_start);
        call(&bench.queue, lease.organisation(), &begun).await;
        assert_eq!(bench.calls(), 1, "{via:?}: in time it leaves");
        // Frozen for half a minute between the record and the call.
        bench.clock.set(Timestamp(begun.latest_start.0 + 1));
        let called = call(&bench.queue, lease.organisation(), &begun).await;
        assert_eq!(called.outcome, Outcome::Unavailable, "{via:?}");
        assert!(
            called
                .answer
                .diagnostic
                .unwrap()
                .starts_with("nothing was sent")
        );
        assert_eq!(bench.calls(), 1, "{via:?}");
    }
}
