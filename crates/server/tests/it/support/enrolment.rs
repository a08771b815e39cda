//! The part of a stage that locks: Apple's enrolment service and its own status.

use std::time::Duration;

use activation_lock::device::SerialNumber;
use activation_lock::lock::{Evidence, OurLock};
use activation_lock::time::Timestamp;
use apple::dep::token::ServerToken;
use escrow::business_apis::NewBusinessApi;
use escrow::devices::Corrections;
use escrow::locks::{Enqueued, LockView, NewLock};
use escrow::server_tokens::{Access, NewServerToken, ServerTokenView};
use server::Settings;
use sim::business_manager::{AccountKind, BusinessManagerOptions, OrgDevice};
use sim::dep::{DepDevice, DepOptions, DepToken};
use sim::{Apple, AppleDevice, BusinessManager, Dep, Now};

use super::{ExtraAuthorities, Stage};

/// Starts both services, and has the server call them.
pub(super) async fn services(
    apple: &Apple,
    now: Now,
    settings: &mut Settings,
) -> (Dep, BusinessManager) {
    let options = DepOptions {
        now: now.clone(),
        ..DepOptions::default()
    };
    let dep = Dep::start(apple, options).await.unwrap();
    let options = BusinessManagerOptions {
        now,
        ..BusinessManagerOptions::default()
    };
    let business = BusinessManager::start(apple, options).await.unwrap();
    let authorities = ExtraAuthorities::from_pem(apple.ca_pem().as_bytes()).unwrap();
    settings.enrolment.origin = dep.url().parse().unwrap();
    settings.enrolment.authorities = authorities.clone();
    settings.enrolment.timeouts = settings.apple.timeouts;
    settings.business.business_origin = business.api_url().parse().unwrap();
    settings.business.school_origin = business.api_url().parse().unwrap();
    settings.business.token_url = business.token_url().parse().unwrap();
    settings.business.audience = business.audience();
    settings.business.authorities = authorities;
    settings.status_pace = Duration::from_millis(1);
    (dep, business)
}

/// A wish to lock, with the usual words.
pub(crate) fn lock_wish(serial: &str) -> NewLock {
    NewLock {
        serial: serial.parse().unwrap(),
        reason: "lost".to_owned(),
        requester: "anna@example.org".to_owned(),
        message: None,
        server_token: None,
        override_reason: None,
        urgent: true,
        idempotency: None,
    }
}

impl Stage {
    /// A token of the enrolment service that the server knows too.
    pub(crate) async fn server_token(&self) -> DepToken {
        let token = self.dep.issue_token("A server");
        self.keep_token(&token).await;
        token
    }

    pub(crate) async fn keep_token(&self, token: &DepToken) -> ServerTokenView {
        let json = token.json();
        let read = ServerToken::from_json(json.as_bytes()).unwrap();
        self.put_token(Access::Apple {
            json: json.into(),
            expires_at: read.access_token_expiry(),
            key: None,
        })
        .await
    }

    pub(crate) async fn put_token(&self, access: Access) -> ServerTokenView {
        let new = NewServerToken {
            name: "main".to_owned(),
            access,
        };
        let permit = self.permit("server token").await;
        let tokens = self.escrow().server_tokens();
        tokens.put(&permit, new).await.unwrap()
    }

    /// A device that Apple knows, assigned to the server of a token, and known here once the list was read.
    pub(crate) async fn assigned(&self, token: &DepToken, serial: &str) {
        self.known_to_apple(serial);
        self.dep.assign(token, DepDevice::new(serial, "iPad"));
        self.listed(serial).await;
        let permit = self.permit(serial).await;
        let set = Corrections {
            product_type: "iPad4,1".parse().ok(),
            ..Corrections::default()
        };
        let parsed: SerialNumber = serial.parse().unwrap();
        let devices = self.escrow().devices();
        devices.correct(&permit, &parsed, &set).await.unwrap();
    }

    pub(crate) fn known_to_apple(&self, serial: &str) {
        self.apple.add_device(AppleDevice {
            serial: serial.to_owned(),
            product_type: "iPad4,1".to_owned(),
            ..AppleDevice::default()
        });
        self.business.add_device(OrgDevice::new(serial, "iPad4,1"));
    }

    /// Has the list read, and waits until it names the device.
    pub(crate) async fn listed(&self, serial: &str) {
        self.read_list().await;
        self.until("the list to name the device", async || {
            let device = self.find(serial).await;
            device.is_some_and(|d| d.listings.iter().any(|l| l.gone_at.is_none()))
        })
        .await;
    }

    pub(crate) async fn read_list(&self) {
        let permit = self.permit("server token").await;
        let tokens = self.escrow().server_tokens();
        tokens.list_now(&permit, "main").await.unwrap();
    }

    /// An account for Apple's own status.
    pub(crate) async fn account(&self) {
        let account = self.business.issue_account(AccountKind::Business);
        let new = NewBusinessApi {
            client_id: account.client_id.clone(),
            key_id: account.key_id.clone(),
            private_key: account.private_key_pem.clone().into(),
        };
        let permit = self.permit("business api").await;
        let apis = self.escrow().business_apis();
        apis.put(&permit, new).await.unwrap();
    }

    /// Asks for a lock, which must be a new one.
    pub(crate) async fn lock(&self, serial: &str) -> LockView {
        match self.ask_for_lock(lock_wish(serial)).await {
            Enqueued::New(view) => view,
            other => panic!("the lock was not queued: {other:?}"),
        }
    }

    pub(crate) async fn ask_for_lock(&self, wish: NewLock) -> Enqueued {
        let permit = self.permit(wish.serial.as_str()).await;
        self.escrow().locks().enqueue(&permit, wish).await.unwrap()
    }

    pub(crate) async fn lock_view(&self, id: &str) -> LockView {
        let permit = self.permit("lock").await;
        let view = self.escrow().locks().get(&permit, id).await.unwrap();
        view.expect("the lock is there")
    }

    /// Waits until a lock is so, while time passes.
    pub(crate) async fn lock_when(&self, id: &str, is_so: impl Fn(&LockView) -> bool) -> LockView {
        let step = Duration::from_millis(50);
        let look = async || is_so(&self.lock_view(id).await);
        self.until_in_steps("the lock to be as expected", step, look)
            .await;
        self.lock_view(id).await
    }

    /// Asks for a lock, and waits until it has ended.
    pub(crate) async fn lock_to_its_end(&self, serial: &str) -> LockView {
        let asked = self.lock(serial).await;
        self.lock_when(&asked.id, LockView::is_done).await
    }

    /// How our lock on a device stands.
    pub(crate) async fn standing(&self, serial: &str) -> (OurLock, Evidence) {
        let lock = self.view(serial).await.lock;
        (lock.state, lock.evidence)
    }

    /// What Apple last said of a device, once it was read at or after a moment.
    pub(crate) async fn apple_said(&self, serial: &str, since: Timestamp) -> String {
        let step = Duration::from_secs(5);
        self.until_in_steps("Apple's status to be read", step, async || {
            let last = self.view(serial).await.status.last;
            last.is_some_and(|said| said.last_at >= since)
        })
        .await;
        let last = self.view(serial).await.status.last.unwrap();
        last.status
            .lock_type
            .map_or_else(String::new, |lock_type| lock_type.as_str().to_owned())
    }
}
