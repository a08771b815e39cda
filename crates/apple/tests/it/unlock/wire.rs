//! The request, byte for byte (R18, T17).

use activation_lock::device::{CellularIdentity, DeviceIdentity};
use apple::escrow_key_unlock::{UnlockRequest, UnlockService, UnlockSettings};
use apple::mdm;
use apple::transport::{ExtraAuthorities, Timeouts};
use sim::{AppleDevice, SIM_TOPIC};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{CODE, certificate, locked, now, service};

/// Who a device is after what it told in a file of `tests/data/plists`.
fn identity(file: &str) -> DeviceIdentity {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/plists");
    let bytes = std::fs::read(folder.join(file)).unwrap();
    let report = mdm::answer(&bytes).ok().unwrap().report.unwrap();
    let told = report.device_information.unwrap();
    let CellularIdentity { imei, imei2, meid } = told
        .slots
        .filter(|slots| !slots.is_empty())
        .unwrap_or(told.cellular);
    DeviceIdentity {
        serial: told.serial.unwrap(),
        product_type: told.product_type.unwrap(),
        imei,
        imei2,
        meid,
    }
}

/// Everything that a call writes: through plain HTTP, which loopback addresses may use.
async fn written(identity: &DeviceIdentity, org_name: &str, guid: &str, code: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let reader = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let count = stream.read(&mut chunk).await.unwrap();
            assert!(count > 0, "the client went away");
            request.extend_from_slice(&chunk[..count]);
            let text = String::from_utf8_lossy(&request).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .unwrap();
                if body.len() >= length.parse().unwrap() {
                    break;
                }
            }
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        String::from_utf8(request).unwrap()
    });
    let made = locked().await.push_certificate(SIM_TOPIC);
    let settings = UnlockSettings {
        origin: format!("http://{address}").parse().unwrap(),
        authorities: ExtraAuthorities::default(),
        timeouts: Timeouts::default(),
    };
    let service = UnlockService::new(&settings, &certificate(&made)).unwrap();
    let request = UnlockRequest::new(identity, org_name, guid, code).unwrap();
    assert_eq!(service.unlock(&request, now()).await.status, Some(200));
    reader
        .await
        .unwrap()
        .replace(&address.to_string(), "ADDRESS")
}

#[tokio::test]
async fn t17_r18_the_request_is_exactly_this() {
    let identity = identity("information-wifi.xml");
    let written = written(
        &identity,
        "Example & S\u{f6}hne",
        "anna@example.org",
        " not a code=+%2C ",
    )
    .await;
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "POST /deviceservicesworkers/escrowKeyUnlock?serial=DMPTEST00001&productType=iPad4%2C1 HTTP/1.1\r\n\
         content-type: application/x-www-form-urlencoded\r\n\
         accept: */*\r\n\
         user-agent: Lockwarden/{version}\r\n\
         host: ADDRESS\r\n\
         content-length: 100\r\n\
         \r\n\
         orgName=Example+%26+S%C3%B6hne&guid=anna%40example.org&escrowKey=+not+a+code%3D%2B%252C+"
    );
    let body = expected.split("\r\n\r\n").nth(1).unwrap().len();
    let expected = expected.replace("content-length: 100", &format!("content-length: {body}"));
    assert!(
        written == expected,
        "the request differs; its head is\n{}",
        written.split("\r\n\r\n").next().unwrap()
    );
}

#[tokio::test]
async fn t17_r18_each_kind_of_device_is_named_by_what_is_known_of_it() {
    for (file, query) in [
        (
            "information-wifi.bin",
            "serial=DMPTEST00001&productType=iPad4%2C1",
        ),
        (
            "information-dual-sim-reversed.bin",
            "serial=DMPTEST00002&productType=iPhone17%2C3&imei=358823340832230&imei2=358823340832248&meid=35882334083223",
        ),
        (
            "information-slot-unnamed.xml",
            "serial=DMPTEST00002&productType=iPhone17%2C3&imei=358823340832230&meid=35882334083223",
        ),
        (
            "information-top-level.xml",
            "serial=DMPTEST00002&productType=iPhone17%2C3&imei=358823340832230&meid=35882334083223",
        ),
        (
            "information-mac.xml",
            "serial=C02TEST00003&productType=MacBookPro17%2C1",
        ),
    ] {
        let written = written(&identity(file), "Example", "anna", CODE).await;
        let line = written.lines().next().unwrap();
        assert_eq!(
            line,
            format!("POST /deviceservicesworkers/escrowKeyUnlock?{query} HTTP/1.1"),
            "{file}"
        );
        assert!(!line.contains(CODE) && !line.contains("%25"));
    }
}

/// The fake reads the same contract by itself: it refuses what stands in the wrong place, is empty or escaped twice.
#[tokio::test]
async fn t17_the_fake_of_apple_understands_each_kind_of_device() {
    for file in [
        "information-wifi.xml",
        "information-dual-sim-reversed.xml",
        "information-slot-unnamed.bin",
        "information-mac.bin",
    ] {
        let apple = locked().await;
        let identity = identity(file);
        let text = |value: Option<&str>| value.map(str::to_owned);
        apple.add_device(AppleDevice {
            serial: identity.serial.as_str().to_owned(),
            product_type: identity.product_type.as_str().to_owned(),
            imei: text(identity.imei.as_ref().map(|imei| imei.as_str())),
            imei2: text(identity.imei2.as_ref().map(|imei| imei.as_str())),
            meid: text(identity.meid.as_ref().map(|meid| meid.as_str())),
        });
        apple.user_lock(identity.serial.as_str(), CODE).unwrap();
        let request = UnlockRequest::new(&identity, "Example & Co", "anna@example.org", CODE);
        let answer = service(&apple).unlock(&request.unwrap(), now()).await;
        assert_eq!(answer.status, Some(200), "{file}: {}", answer.diagnostic);
        let call = apple.journal().get(0).unwrap();
        assert_eq!(call.org_name.as_deref(), Some("Example & Co"));
        assert_eq!(call.guid.as_deref(), Some("anna@example.org"));
    }
}
