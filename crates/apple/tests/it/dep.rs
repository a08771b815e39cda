//! Apple's device enrolment service: server token files that OpenSSL made, and calls of the fake over TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use activation_lock::bypass_code::{BypassCode, EscrowKeyHash};
use apple::dep::token::ServerToken;
use apple::dep::{DepService, DepSettings, LockAnswer, LostMessage, RandomBytes};
use apple::transport::{ExtraAuthorities, Timeouts};
use data_encoding::BASE64;
use sim::dep::{Dep, DepDevice, DepOptions, DepToken};
use sim::{Apple, AppleDevice, AppleOptions};

use crate::support::{CODE, SERIAL, now};

mod answers;
mod echo;
mod lists;
mod nanodep;
mod session;
mod token_file;
mod wire;

const LOCK: &str = "/device/activationlock";
const SESSION: &str = "/session";

/// A fake Apple that knows one iPad, not locked, and the enrolment service of an organisation that owns it.
struct Organisation {
    apple: Apple,
    dep: Dep,
    token: DepToken,
}

impl Organisation {
    async fn new() -> Self {
        Self::with(DepOptions::default()).await
    }

    async fn with(options: DepOptions) -> Self {
        let apple = Apple::start(AppleOptions::default()).await.unwrap();
        apple.add_device(AppleDevice {
            serial: SERIAL.to_owned(),
            product_type: "iPad4,1".to_owned(),
            ..AppleDevice::default()
        });
        let dep = Dep::start(&apple, options).await.unwrap();
        let token = dep.issue_token("Lockwarden");
        dep.assign(&token, DepDevice::new(SERIAL, "iPad Air"));
        Self { apple, dep, token }
    }

    fn settings(&self) -> DepSettings {
        DepSettings {
            origin: self.dep.url().parse().unwrap(),
            authorities: ExtraAuthorities::from_pem(self.dep.ca_pem().as_bytes()).unwrap(),
            timeouts: Timeouts::default(),
        }
    }

    fn service(&self) -> DepService {
        DepService::new(&self.settings(), read(&self.token), counting()).unwrap()
    }

    /// One that gives up after so long in all.
    fn impatient(&self, overall: Duration) -> DepService {
        let timeouts = Timeouts {
            connect: overall,
            overall,
        };
        let settings = DepSettings {
            timeouts,
            ..self.settings()
        };
        DepService::new(&settings, read(&self.token), counting()).unwrap()
    }

    /// How many calls of a path arrived.
    fn calls(&self, path: &str) -> usize {
        let calls = self.dep.journal().all();
        calls.iter().filter(|call| call.path == path).count()
    }

    /// What must not be in anything that is said: the token, the session, the hash.
    fn shows_a_secret(&self, said: &str) -> bool {
        let token = &self.token;
        let said = said.to_lowercase();
        let hash = hash(CODE);
        let text = hash.to_string();
        [
            token.consumer_secret.clone(),
            token.access_token.clone(),
            token.access_secret.clone(),
            BASE64.encode(text.as_bytes()),
            BASE64.encode(hash.bytes()),
            text,
        ]
        .iter()
        .any(|secret| said.contains(&secret.to_lowercase()))
    }
}

fn read(token: &DepToken) -> ServerToken {
    match ServerToken::from_json(token.json().as_bytes()) {
        Ok(token) => token,
        Err(error) => panic!("{error}"),
    }
}

/// Bytes that do not come again in this process, which is all that a fake asks of nonces.
fn counting() -> RandomBytes {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    Arc::new(|bytes| {
        let count = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        bytes[..8].copy_from_slice(&count);
    })
}

fn hash(code: &str) -> EscrowKeyHash {
    EscrowKeyHash::of(&BypassCode::parse(code).unwrap())
}

/// One lock call for the iPad, with the hash of [`CODE`].
async fn lock(service: &DepService) -> LockAnswer {
    lock_with(service, CODE, None).await
}

async fn lock_with(service: &DepService, code: &str, message: Option<&LostMessage>) -> LockAnswer {
    let serial = SERIAL.parse().unwrap();
    service
        .activate_lock(&serial, &hash(code), message, now())
        .await
}
