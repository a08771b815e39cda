//! Bodies of fuzz targets, as plain functions: each takes any bytes, and panics when something is not as it must always be.
//! `fuzz/` calls them with an instrumented build, the ordinary tests with the corpus and its mutations.

use std::sync::OnceLock;

use activation_lock::bypass_code::BypassCode;
use activation_lock::observation::{ErrorLink, ReportedCode};

use crate::business_manager::assertion::SigningKey;
use crate::business_manager::{BusinessError, Reply, StatusAnswer};
use crate::business_manager::{access_token, lock_status, org_devices};
use crate::dep::key::TokenKey;
use crate::dep::token::ServerToken;
use crate::mdm::{self, Channel, CheckInMessage};
use crate::push_certificate::{PushCertificate, PushCertificateError};
use crate::redaction;

/// The password that encrypted files of the corpus have.
const PASSWORD: &str = "secret";

/// A check-in message.
pub fn check_in(bytes: &[u8]) {
    let Ok(said) = mdm::check_in(bytes) else {
        return;
    };
    check_channel(&said.channel);
    match said.message {
        CheckInMessage::Authenticate(told) => {
            check_identifier(told.udid.as_deref());
            check_identifier(told.topic.as_deref());
            check_words(told.model_name.as_deref(), 255);
            check_words(told.os_version.as_deref(), 255);
            assert!(told.cellular.imei2.is_none());
        }
        CheckInMessage::TokenUpdate(told) => {
            check_identifier(told.udid.as_deref());
            check_identifier(told.topic.as_deref());
            assert!(told.tally.is_none());
        }
        CheckInMessage::CheckOut | CheckInMessage::Other => {}
    }
}

/// A device's answer to a command.
pub fn answer(bytes: &[u8]) {
    let Ok(said) = mdm::answer(bytes) else {
        return;
    };
    check_channel(&said.channel);
    let Some(report) = said.report else {
        return;
    };
    check_identifier(report.command.as_deref());
    check_links(&report.errors);
    check_links(report.failed_settings.as_deref().unwrap_or_default());
    if let ReportedCode::Code(code) = report.bypass_code {
        assert!(!code.expose().trim().is_empty());
    }
    if let Some(told) = report.device_information {
        check_identifier(told.udid.as_deref());
        for words in [&told.model_name, &told.device_name, &told.os_version] {
            check_words(words.as_deref(), 255);
        }
        assert!(told.cellular.imei2.is_none());
    }
}

/// A file with a push certificate.
pub fn push_certificate(bytes: &[u8]) {
    let certificate = match PushCertificate::load(bytes, None, Some(PASSWORD)) {
        Ok(certificate) => certificate,
        Err(error) => return check_error(&error),
    };
    assert!(!certificate.topic().trim().is_empty());
    assert_eq!(certificate.fingerprint().len(), 64);
    let sealed = certificate.to_sealed_pem();
    match PushCertificate::from_sealed_pem(&sealed) {
        Ok(again) => {
            assert_eq!(again.fingerprint(), certificate.fingerprint());
            assert_eq!(again.topic(), certificate.topic());
            assert_eq!(again.not_after(), certificate.not_after());
            assert!(*again.to_sealed_pem() == *sealed, "it is sealed the same");
        }
        Err(error) => panic!("what was sealed does not open: {error}"),
    }
}

/// A file with a server token, for the key of the corpus; and the same bytes as the text that is in such a file.
pub fn token_file(bytes: &[u8]) {
    static KEY: OnceLock<TokenKey> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let pem = include_bytes!("../tests/data/token-files/ours-key.pem");
        TokenKey::from_pem(pem, None).expect("the key that OpenSSL made for tests")
    });
    match ServerToken::open(bytes, key) {
        Ok(token) => check_token(&token),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match ServerToken::from_json(bytes) {
        Ok(token) => check_token(&token),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn check_token(token: &ServerToken) {
    assert!(!token.consumer_key().trim().is_empty());
    let sealed = token.to_sealed_json();
    match ServerToken::from_json(sealed.as_bytes()) {
        Ok(again) => {
            assert!(*again.to_sealed_json() == *sealed, "it is sealed the same");
            assert_eq!(again.access_token_expiry(), token.access_token_expiry());
        }
        Err(error) => panic!("what was sealed does not open: {error}"),
    }
}

fn check_error(error: &PushCertificateError) {
    assert!(!error.to_string().is_empty());
}

/// An API account's key, or an answer of Apple's to one of the questions asked with it. The first byte says which, the next
/// three are the status of the answer; the rest is the file or the body.
pub fn business_manager(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else {
        return;
    };
    if *which == b'k' {
        if let Ok(key) = SigningKey::from_pem(rest) {
            let sealed = key.to_sealed_pem();
            match SigningKey::from_pem(sealed.as_bytes()) {
                Ok(again) => assert!(*again.to_sealed_pem() == *sealed, "it is sealed the same"),
                Err(error) => panic!("what was sealed does not open: {error}"),
            }
        }
        return;
    }
    let Some((status, body)) = rest.split_first_chunk::<3>() else {
        return;
    };
    let Some(status) = std::str::from_utf8(status)
        .ok()
        .and_then(|s| s.parse().ok())
    else {
        return;
    };
    let serial = "SIMTEST00001"
        .parse()
        .expect("letters and digits are a serial number");
    let reply = Reply::new(status, None, body.to_vec(), false, &[]);
    let error = match which {
        b's' => lock_status::read(reply, &serial).map(|answer| match answer {
            StatusAnswer::Known { undescribed, .. } => {
                assert_eq!(status, 200);
                if let Some(text) = undescribed {
                    assert!(text.len() <= lock_status::UNDESCRIBED_LIMIT);
                    assert!(!text.chars().any(char::is_control));
                }
            }
            StatusAnswer::NotManaged => assert_eq!(status, 404),
            StatusAnswer::InternalState { .. } => assert_eq!(status, 500),
        }),
        b'd' => org_devices::read_device(reply, &serial).map(|device| match device {
            Some(device) => assert_eq!((status, device.serial), (200, serial)),
            None => assert_eq!(status, 404),
        }),
        b'p' => org_devices::read_page(reply, Some("cursor")).map(|page| {
            assert_eq!(status, 200);
            assert!(
                page.next
                    .is_none_or(|next| !next.is_empty() && next != "cursor")
            );
            for device in page.items {
                for words in [device.device_model, device.product_family, device.status] {
                    check_words(words.as_deref(), 200);
                }
            }
        }),
        _ => access_token::read(reply, &[]).map(|granted| {
            assert_eq!(status, 200);
            assert!(granted.text.bytes().all(|byte| byte.is_ascii_graphic()));
        }),
    };
    if let Err(error) = error {
        check_trouble(&error);
    }
}

fn check_trouble(error: &BusinessError) {
    let words = error.to_string();
    assert!(words.chars().count() < 1000, "words for people");
    assert!(!words.chars().any(char::is_control));
    let diagnostic = error.diagnostic();
    assert!(diagnostic.chars().count() <= crate::unverified::DIAGNOSTIC_LIMIT);
    assert!(!diagnostic.chars().any(char::is_control));
}

/// A body of Apple's that repeats the code. The first byte says how: in which encoding, and whether the code is a real one or
/// the text up to the first line break; the rest is the body, where `\0` stands for the code.
pub fn redaction(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else {
        return;
    };
    let (code, body) = if how & 0x80 == 0 {
        let Some((raw, body)) = rest.split_first_chunk() else {
            return;
        };
        (BypassCode::from_raw(*raw).to_text().to_string(), body)
    } else {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let (code, body) = rest.split_at(end.unwrap_or(rest.len()));
        (String::from_utf8_lossy(code).into_owned(), body)
    };
    let repeated = encoded(&code, how & 0x0f);
    let mut whole = Vec::new();
    for byte in body {
        match byte {
            0 => whole.extend_from_slice(repeated.as_bytes()),
            other => whole.push(*other),
        }
    }
    let kept = redaction::diagnostic(&whole, how & 0x40 != 0, &[&code]);
    assert!(kept.chars().count() <= crate::unverified::DIAGNOSTIC_LIMIT);
    assert!(!kept.chars().any(char::is_control));
    let code = letters_and_digits(&code);
    if kept != redaction::WITHHELD && code.len() >= 6 {
        assert!(
            !letters_and_digits(&kept).contains(&code),
            "the code is still there"
        );
    }
}

fn encoded(code: &str, how: u8) -> String {
    let bytes = || code.bytes();
    match how {
        0 => code.to_lowercase(),
        1 => code.replace('-', ""),
        2 => bytes().map(|byte| format!("%{byte:02X}")).collect(),
        3 => bytes().map(|byte| format!("%25{byte:02x}")).collect(),
        4 => code
            .chars()
            .map(|c| format!("&#{};", u32::from(c)))
            .collect(),
        5 => code.chars().map(|c| format!("{c} ")).collect(),
        6 => bytes().map(|byte| format!("\\x{byte:02x}")).collect(),
        _ => code.to_owned(),
    }
}

fn letters_and_digits(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_uppercase)
        .collect()
}

fn check_channel(channel: &Channel) {
    check_identifier(channel.udid.as_deref());
    check_identifier(channel.enrollment_id.as_deref());
    check_identifier(channel.user_id.as_deref());
    check_words(channel.user_short_name.as_deref(), 255);
}

fn check_identifier(text: Option<&str>) {
    if let Some(text) = text {
        assert!(!text.trim().is_empty() && text.len() <= 255);
        assert!(!text.chars().any(char::is_control));
    }
}

fn check_words(text: Option<&str>, most: usize) {
    if let Some(text) = text {
        assert!(!text.is_empty() && text.chars().count() <= most);
        assert!(!text.chars().any(char::is_control));
    }
}

fn check_links(links: &[ErrorLink]) {
    assert!(links.len() <= 16);
    for link in links {
        assert!(link.domain.chars().count() <= 200);
        assert!(link.description.chars().count() <= 500);
        let words = [&link.domain, &link.description];
        assert!(!words.iter().any(|text| text.chars().any(char::is_control)));
    }
}
