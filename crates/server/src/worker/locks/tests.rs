//! What of a call cannot be seen from outside: that none leaves late, nor with a token that is another one by then.

use std::sync::Arc;

use activation_lock::device::SerialNumber;
use activation_lock::time::Timestamp;
use apple::dep::token::ServerToken;
use apple::transport::ExtraAuthorities;
use escrow::clock::ManualClock;
use escrow::devices::Corrections;
use escrow::locks::NewLock;
use escrow::meta::DataKind;
use escrow::operations::Claim;
use escrow::organisations::Created;
use escrow::permit::{Actor, Permissions, Permit, Right};
use escrow::server_tokens::{Access, NewServerToken};
use escrow::{Escrow, Opening};
use seal::KeyEncryptionKey;
use sim::dep::{Dep, DepDevice, DepOptions, DepToken};
use sim::{Apple, AppleDevice, AppleOptions};

use super::*;
use crate::lifecycle::Shutdown;
use crate::{App, Settings, lifecycle};

const SERIAL: &str = "SIMTEST00001";

/// A vault with a lock of a device, and a token of the enrolment service that has the device.
struct Bench {
    dep: Dep,
    clock: ManualClock,
    queue: Queue,
    organisation: OrganisationId,
    _apple: Apple,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
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
        apple.add_device(AppleDevice {
            serial: SERIAL.to_owned(),
            product_type: "iPad4,1".to_owned(),
            ..AppleDevice::default()
        });
        let dep = Dep::start(&apple, DepOptions::default()).await.unwrap();
        let actor = Actor::system("test", Permissions::all());
        let made = escrow
            .organisations()
            .create(&actor, "Example School")
            .await;
        let Created::New(organisation) = made.unwrap() else {
            panic!("the first organisation is new")
        };
        let mut settings = Settings::new(([127, 0, 0, 1], 0).into());
        settings.enrolment.origin = dep.url().parse().unwrap();
        settings.enrolment.authorities =
            ExtraAuthorities::from_pem(dep.ca_pem().as_bytes()).unwrap();
        let app = App::at_rest(escrow, lifecycle::clock(), random, settings);
        let (_, shutdown) = Shutdown::new();
        let bench = Self {
            queue: Queue::new(&app, &shutdown),
            organisation: organisation.id,
            dep,
            clock,
            _apple: apple,
            _folder: folder,
        };
        let token = bench.dep.issue_token("A server");
        bench.dep.assign(&token, DepDevice::new(SERIAL, "iPad"));
        bench.keep(&token).await;
        bench.ask().await;
        bench
    }

    async fn permit<P: Right>(&self) -> Permit<P> {
        let actor = Actor::system("test", Permissions::all());
        let escrow = &self.queue.app.escrow;
        escrow
            .authorise(&actor, &self.organisation, "test")
            .await
            .unwrap()
    }

    async fn keep(&self, token: &DepToken) {
        let json = token.json();
        let read = ServerToken::from_json(json.as_bytes()).unwrap();
        let new = NewServerToken {
            name: "main".to_owned(),
            access: Access::Apple {
                json: json.into(),
                expires_at: read.access_token_expiry(),
                key: None,
            },
        };
        let tokens = self.queue.app.escrow.server_tokens();
        tokens.put(&self.permit().await, new).await.unwrap();
    }

    async fn ask(&self) {
        let escrow = &self.queue.app.escrow;
        let serial: SerialNumber = SERIAL.parse().unwrap();
        let set = Corrections {
            product_type: "iPad4,1".parse().ok(),
            ..Corrections::default()
        };
        escrow
            .devices()
            .correct(&self.permit().await, &serial, &set)
            .await
            .unwrap();
        let new = NewLock {
            serial,
            reason: "a test".to_owned(),
            requester: "anna@example.org".to_owned(),
            message: None,
            server_token: Some("main".to_owned()),
            override_reason: Some("the list was not read".to_owned()),
            urgent: true,
            idempotency: None,
        };
        escrow
            .locks()
            .enqueue(&self.permit().await, new)
            .await
            .unwrap();
    }

    /// A call, on record and about to leave.
    async fn begun(&self) -> (Lease, Box<Begun>) {
        let app = &self.queue.app;
        let Claim::Lease(mut lease) = app
            .escrow
            .operations()
            .claim(&self.queue.settings)
            .await
            .unwrap()
        else {
            panic!("the lock is due")
        };
        let locks = app.escrow.locks();
        match locks
            .advance(&mut lease, &self.queue.settings)
            .await
            .unwrap()
        {
            Advance::Call(begun) => (lease, begun),
            _ => panic!("there is a call to make"),
        }
    }

    async fn call(&self, lease: &Lease, begun: &Begun) -> (LockOutcome, String) {
        let called = call(&self.queue, lease.organisation(), begun).await;
        (called.outcome, called.answer.diagnostic.unwrap_or_default())
    }
}

#[tokio::test]
async fn r16_no_lock_call_starts_later_than_the_end_of_its_lease_less_its_time_out() {
    let bench = Bench::new().await;
    let (lease, begun) = bench.begun().await;
    // Frozen for half a minute between the record and the call.
    bench.clock.set(Timestamp(begun.latest_start.0 + 1));
    let (outcome, said) = bench.call(&lease, &begun).await;
    assert_eq!(outcome, LockOutcome::Unavailable);
    assert!(said.starts_with("nothing was sent"), "{said}");
    assert!(bench.dep.calls_for(SERIAL).is_empty());

    let bench = Bench::new().await;
    let (lease, begun) = bench.begun().await;
    bench.clock.set(begun.latest_start);
    assert_eq!(bench.call(&lease, &begun).await.0, LockOutcome::Locked);
    assert_eq!(bench.dep.calls_for(SERIAL).len(), 1);
}

#[tokio::test]
async fn r17_a_token_that_was_renewed_since_the_record_calls_nobody() {
    let bench = Bench::new().await;
    let (lease, begun) = bench.begun().await;
    bench.keep(&bench.dep.issue_token("Another server")).await;
    let (outcome, said) = bench.call(&lease, &begun).await;
    assert_eq!(outcome, LockOutcome::Unavailable, "{said}");
    assert!(said.contains("renewed"), "{said}");
    assert!(bench.dep.calls_for(SERIAL).is_empty());
}
