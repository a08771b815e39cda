//! A fake of Apple's service, and calls to it.

use std::time::Duration;

use activation_lock::device::DeviceIdentity;
use activation_lock::time::Timestamp;
use apple::escrow_key_unlock::{Answer, UnlockRequest, UnlockService, UnlockSettings};
use apple::push_certificate::PushCertificate;
use apple::transport::{ExtraAuthorities, Timeouts};
use sim::{Apple, AppleDevice, AppleOptions, Now, PushCertificateOptions, SIM_TOPIC};

pub(crate) const SERIAL: &str = "SIMTEST00001";
/// Published test vectors.
pub(crate) const CODE: &str = "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4";
pub(crate) const OTHER_CODE: &str = "PXH8M-QYJZA-2H1J-H9CV-HN5U-KDN7";

/// A fake Apple that knows one Wi-Fi iPad, locked with [`CODE`].
pub(crate) async fn locked_with(options: AppleOptions) -> Apple {
    let apple = Apple::start(options).await.unwrap();
    apple.add_device(AppleDevice {
        serial: SERIAL.to_owned(),
        product_type: "iPad4,1".to_owned(),
        ..AppleDevice::default()
    });
    apple.user_lock(SERIAL, CODE).unwrap();
    apple
}

pub(crate) async fn locked() -> Apple {
    locked_with(AppleOptions::default()).await
}

/// Settings for the fake.
pub(crate) fn settings(apple: &Apple) -> UnlockSettings {
    UnlockSettings {
        origin: apple.url().parse().unwrap(),
        authorities: ExtraAuthorities::from_pem(apple.ca_pem().as_bytes()).unwrap(),
        timeouts: Timeouts::default(),
    }
}

/// The certificate that the fake gave out, as we read it.
pub(crate) fn certificate(made: &sim::PushCertificate) -> PushCertificate {
    PushCertificate::load(made.bundle_pem().as_bytes(), None, None)
        .unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn service(apple: &Apple) -> UnlockService {
    let made = apple.push_certificate(SIM_TOPIC);
    UnlockService::new(&settings(apple), &certificate(&made)).unwrap()
}

/// One that gives up after so long in all.
pub(crate) fn impatient(apple: &Apple, connect: Duration, overall: Duration) -> UnlockService {
    let settings = UnlockSettings {
        timeouts: Timeouts { connect, overall },
        ..settings(apple)
    };
    let made = apple.push_certificate(SIM_TOPIC);
    UnlockService::new(&settings, &certificate(&made)).unwrap()
}

/// A good certificate of today, to be changed.
pub(crate) fn options() -> PushCertificateOptions {
    PushCertificateOptions::new(SIM_TOPIC, Now::wall().get())
}

pub(crate) fn now() -> Timestamp {
    let nanos = Now::wall().get().unix_timestamp_nanos();
    Timestamp(i64::try_from(nanos / 1_000_000).unwrap())
}

pub(crate) fn ipad() -> DeviceIdentity {
    DeviceIdentity {
        serial: SERIAL.parse().unwrap(),
        product_type: "iPad4,1".parse().unwrap(),
        imei: None,
        imei2: None,
        meid: None,
    }
}

/// One call for the iPad.
pub(crate) async fn unlock(service: &UnlockService, code: &str) -> Answer {
    let identity = ipad();
    let request = UnlockRequest::new(&identity, "Example", "anna@example.org", code).unwrap();
    service.unlock(&request, now()).await
}
