//! Apple Business Manager and Apple School Manager: the assertion against files and verifiers that this project did not
//! write, the service against its fake.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use activation_lock::device::SerialNumber;
use apple::business_manager::assertion::SigningKey;
use apple::business_manager::{
    ApiAccount, BusinessError, BusinessService, BusinessSettings, StatusAnswer,
};
use apple::transport::{ExtraAuthorities, Timeouts};
use sim::{
    AccountKind, Apple, AppleDevice, AppleOptions, BusinessManager, BusinessManagerOptions,
    OrgDevice,
};

use crate::support::{CODE, SERIAL, now};

mod access_token;
mod assertion;
mod lock_status;
mod org_devices;

/// The fake, whose organisation owns one iPad; beside it the fake whose table of locks it tells.
struct Stage {
    apple: Apple,
    business: BusinessManager,
    account: sim::ApiAccount,
}

impl Stage {
    async fn with(options: BusinessManagerOptions) -> Self {
        let apple = Apple::start(AppleOptions::default()).await.unwrap();
        apple.add_device(AppleDevice {
            serial: SERIAL.to_owned(),
            product_type: "iPad4,1".to_owned(),
            ..AppleDevice::default()
        });
        let business = BusinessManager::start(&apple, options).await.unwrap();
        business.add_device(OrgDevice::new(SERIAL, "iPad4,1"));
        Self {
            account: business.issue_account(AccountKind::Business),
            apple,
            business,
        }
    }

    async fn new() -> Self {
        Self::with(BusinessManagerOptions::default()).await
    }

    async fn locked() -> Self {
        let stage = Self::new().await;
        stage.apple.user_lock(SERIAL, CODE).unwrap();
        stage
    }

    fn settings(&self) -> BusinessSettings {
        BusinessSettings {
            business_origin: self.business.api_url().parse().unwrap(),
            school_origin: self.business.api_url().parse().unwrap(),
            token_url: self.business.token_url().parse().unwrap(),
            authorities: ExtraAuthorities::from_pem(self.business.ca_pem().as_bytes()).unwrap(),
            ..BusinessSettings::default()
        }
    }

    fn service(&self) -> BusinessService {
        service(&self.settings(), account(&self.account))
    }

    /// A service that gives up after so long in all.
    fn impatient(&self, overall: Duration) -> BusinessService {
        let settings = BusinessSettings {
            timeouts: Timeouts {
                connect: Duration::from_secs(60),
                overall,
            },
            ..self.settings()
        };
        service(&settings, account(&self.account))
    }

    /// How many calls of the API were answered, without those for a token.
    fn questions(&self) -> usize {
        let calls = self.business.journal().all();
        calls.iter().filter(|call| call.method == "GET").count()
    }
}

fn service(settings: &BusinessSettings, account: ApiAccount) -> BusinessService {
    // Never the same twice: all that is asked of it here.
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let random = |bytes: &mut [u8]| {
        let count = COUNT.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        bytes
            .iter_mut()
            .zip(count)
            .for_each(|(to, from)| *to = from);
    };
    BusinessService::new(settings, account, random).unwrap()
}

/// The account that the fake issued, as we read it.
fn account(issued: &sim::ApiAccount) -> ApiAccount {
    account_with(issued, &issued.private_key_pem)
}

/// The same with another key.
fn account_with(issued: &sim::ApiAccount, pem: &str) -> ApiAccount {
    let key = SigningKey::from_pem(pem.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    ApiAccount::new(&issued.client_id, &issued.key_id, key).unwrap_or_else(|e| panic!("{e}"))
}

fn serial(text: &str) -> SerialNumber {
    text.parse().unwrap()
}

/// Asks for the iPad's lock.
async fn ask(service: &BusinessService) -> Result<StatusAnswer, BusinessError> {
    service.lock_status(&serial(SERIAL), now()).await
}
