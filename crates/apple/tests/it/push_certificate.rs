//! Push certificates as people have them: files that OpenSSL made (`tests/data/push-certificates`).

use std::path::PathBuf;

use activation_lock::time::Timestamp;
use apple::push_certificate::{ExpiryLevel, PushCertificate, PushCertificateError as Error};

const TOPIC: &str = "com.apple.mgmt.External.51135151-5115-4115-8115-511351135113";
/// 2026-01-01 and 2027-01-01, the first and the last moment of the certificates.
const BEGIN: Timestamp = Timestamp(1_767_225_600_000);
const END: Timestamp = Timestamp(1_798_761_600_000);
const DAY: i64 = 24 * 60 * 60 * 1000;

fn file(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/push-certificates");
    std::fs::read(folder.join(name)).unwrap()
}

fn pem(names: &[&str]) -> Vec<u8> {
    names.iter().flat_map(|name| file(name)).collect()
}

/// What is known of a good one. A certificate has no Debug, so its parts are compared.
#[track_caller]
fn good(loaded: Result<PushCertificate, Error>) -> PushCertificate {
    let certificate = loaded.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(certificate.topic(), TOPIC);
    assert_eq!(certificate.not_before(), BEGIN);
    assert_eq!(certificate.not_after(), END);
    let subject = certificate.subject();
    assert!(subject.contains("CN=APSP:51135151"), "{subject}");
    // What is sealed opens again, whatever it was read from.
    let sealed = certificate.to_sealed_pem();
    let again = PushCertificate::from_sealed_pem(&sealed).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.fingerprint(), certificate.fingerprint());
    assert!(*again.to_sealed_pem() == *sealed);
    certificate
}

fn certificates_in(certificate: &PushCertificate) -> usize {
    let sealed = certificate.to_sealed_pem();
    sealed.matches("-----BEGIN CERTIFICATE-----").count()
}

#[track_caller]
fn refused(loaded: Result<PushCertificate, Error>) -> Error {
    loaded.err().expect("it is refused")
}

#[test]
fn pem_is_read_in_any_order_with_any_kind_of_key() {
    for (names, chain) in [
        (&["rsa.pem", "intermediate.pem", "rsa-key-pkcs8.pem"][..], 2),
        (&["rsa-key-pkcs8.pem", "rsa.pem"], 1),
        (&["intermediate.pem", "rsa-key-pkcs1.pem", "rsa.pem"], 2),
        (&["ec.pem", "ec-key-sec1.pem"], 1),
        (&["ec-key-pkcs8.pem", "intermediate.pem", "ec.pem"], 2),
        (&["exported.pem"], 2),
        // The same certificate twice is one certificate.
        (&["rsa.pem", "rsa.pem", "rsa-key-pkcs8.pem"], 1),
        // Another certificate beside it does no harm.
        (&["ec.pem", "rsa.pem", "rsa-key-pkcs8.pem"], 1),
    ] {
        let certificate = good(PushCertificate::load(&pem(names), None, None));
        assert_eq!(certificates_in(&certificate), chain, "{names:?}");
    }
}

#[test]
fn the_key_may_be_in_a_file_of_its_own() {
    for key in ["rsa-key-pkcs8.pem", "rsa-key-pkcs1.pem"] {
        let certificate = pem(&["rsa.pem", "intermediate.pem"]);
        good(PushCertificate::load(&certificate, Some(&file(key)), None));
    }
    good(PushCertificate::load(
        &file("ec.pem"),
        Some(&file("ec-key-sec1.pem")),
        None,
    ));
}

#[test]
fn the_fingerprint_is_the_certificates_whatever_the_file() {
    let from_pem = good(PushCertificate::load(
        &pem(&["rsa.pem", "rsa-key-pkcs1.pem"]),
        None,
        None,
    ));
    let from_p12 = good(PushCertificate::load(
        &file("modern.p12"),
        None,
        Some("secret"),
    ));
    assert_eq!(from_pem.fingerprint(), from_p12.fingerprint());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &file("rsa.der"));
    assert_eq!(
        from_pem.fingerprint(),
        data_encoding::HEXLOWER.encode(digest.as_ref())
    );
}

#[test]
fn pkcs12_is_read_with_the_new_and_the_old_encryption() {
    for (name, password, chain) in [
        ("modern.p12", Some("secret"), 2),
        ("modern-no-password.p12", None, 2),
        ("modern-no-password.p12", Some(""), 2),
        ("legacy.p12", Some("secret"), 2),
        ("legacy-no-password.p12", None, 2),
        ("legacy-3des.p12", Some("secret"), 1),
        ("umlaut.p12", Some("p\u{e4}ssw\u{f6}rt"), 1),
        ("ec.p12", Some("secret"), 1),
        ("plain.p12", None, 1),
    ] {
        let loaded = PushCertificate::load(&file(name), None, password);
        assert!(loaded.is_ok(), "{name}: {}", loaded.err().unwrap());
        assert_eq!(certificates_in(&good(loaded)), chain, "{name}");
    }
}

#[test]
fn a_wrong_password_is_told_from_a_damaged_file() {
    for name in ["modern.p12", "legacy.p12", "legacy-3des.p12", "ec.p12"] {
        for password in [None, Some("wrong")] {
            let error = refused(PushCertificate::load(&file(name), None, password));
            assert!(matches!(error, Error::WrongPassword), "{name}: {error}");
        }
    }
    let mut damaged = file("modern.p12");
    damaged.truncate(500);
    let error = refused(PushCertificate::load(&damaged, None, Some("secret")));
    assert!(matches!(error, Error::DamagedPkcs12(_)), "{error}");
    let error = refused(PushCertificate::load(
        &file("no-key.p12"),
        None,
        Some("secret"),
    ));
    assert!(matches!(error, Error::NoKey), "{error}");
    let error = refused(PushCertificate::load(&file("rsa.der"), None, None));
    assert!(matches!(error, Error::BinaryCertificate), "{error}");
}

#[test]
fn what_is_missing_or_does_not_fit_is_named() {
    type Check = fn(&Error) -> bool;
    let cases: &[(&[&str], Check, &str)] = &[
        (
            &["rsa.pem"],
            |e| matches!(e, Error::NoKey),
            "no private key",
        ),
        (
            &["rsa-key-pkcs8.pem"],
            |e| matches!(e, Error::NoCertificate),
            "no certificate",
        ),
        (
            &["rsa.pem", "ec-key-sec1.pem"],
            |e| matches!(e, Error::OtherKey),
            "another certificate",
        ),
        (
            &["rsa.pem", "weak-key.pem"],
            |e| matches!(e, Error::OtherKey | Error::UnusableKey(_)),
            "key",
        ),
        (
            &["weak.pem", "weak-key.pem"],
            |e| matches!(e, Error::UnusableKey(_)),
            "2048 bits",
        ),
        (
            &["rsa.pem", "rsa-key-encrypted.pem"],
            |e| matches!(e, Error::EncryptedKey),
            "decrypt it first",
        ),
        (
            &["rsa.pem", "rsa-key-encrypted-old.pem"],
            |e| matches!(e, Error::EncryptedKey),
            "decrypt it first",
        ),
        (
            &["no-topic.pem", "rsa-key-pkcs8.pem"],
            |e| matches!(e, Error::NotAPushCertificate { .. }),
            "www.example.org",
        ),
        (
            &["rsa.pem", "rsa-key-pkcs8.pem", "ec.pem", "ec-key-sec1.pem"],
            |e| matches!(e, Error::Several),
            "several",
        ),
    ];
    for (names, fits, words) in cases {
        let error = refused(PushCertificate::load(&pem(names), None, None));
        assert!(fits(&error), "{names:?}: {error}");
        assert!(error.to_string().contains(words), "{names:?}: {error}");
    }
}

#[test]
fn garbage_is_refused_with_words() {
    let cut = {
        let mut cut = pem(&["rsa-key-pkcs8.pem", "rsa.pem"]);
        cut.truncate(cut.len() - 100);
        cut
    };
    let mixed_up = String::from_utf8(pem(&["rsa-key-pkcs8.pem", "rsa.pem"]))
        .unwrap()
        .replace("CERTIFICATE-----\nMII", "CERTIFICATE-----\nAAA");
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("text", b"hello".to_vec()),
        ("a DER certificate", file("rsa.der")),
        ("zeros", vec![0; 100]),
        ("a DER header", vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
        ("a cut PEM", cut),
        ("a certificate that is none", mixed_up.into_bytes()),
        ("too much", vec![b'-'; 1024 * 1024 + 1]),
    ] {
        let error = refused(PushCertificate::load(&bytes, None, None));
        assert!(!error.to_string().is_empty(), "{what}");
    }
    let error = refused(PushCertificate::load(
        &vec![0x30; 2 * 1024 * 1024],
        None,
        None,
    ));
    assert!(matches!(error, Error::TooLarge), "{error}");
}

#[test]
fn r23_no_error_shows_anything_of_the_key() {
    let key = String::from_utf8(file("rsa-key-pkcs8.pem")).unwrap();
    let lines: Vec<&str> = key.lines().filter(|line| line.len() == 64).collect();
    assert!(lines.len() > 20);
    let damaged = key.replace(lines[3], &lines[3].replace('A', "*"));
    for bytes in [
        damaged.into_bytes(),
        pem(&["no-topic.pem", "rsa-key-pkcs8.pem"]),
        pem(&["ec.pem", "rsa-key-pkcs8.pem"]),
    ] {
        let error = refused(PushCertificate::load(&bytes, None, None));
        let words = format!("{error} {error:?}");
        assert!(!lines.iter().any(|line| words.contains(&line[..16])));
    }
}

#[test]
fn expiry_is_shown_from_60_days_out() {
    let certificate = good(PushCertificate::load(
        &pem(&["ec.pem", "ec-key-sec1.pem"]),
        None,
        None,
    ));
    for (now, level, days) in [
        (BEGIN.0, ExpiryLevel::Fine, 365),
        (END.0 - 60 * DAY - 1, ExpiryLevel::Fine, 60),
        (END.0 - 60 * DAY, ExpiryLevel::Expiring, 60),
        (END.0, ExpiryLevel::Expiring, 0),
        (END.0 + 1, ExpiryLevel::Expired, -1),
        (END.0 + DAY, ExpiryLevel::Expired, -1),
    ] {
        assert_eq!(certificate.expiry_level(Timestamp(now)), level, "{now}");
        assert_eq!(certificate.days_left(Timestamp(now)), days, "{now}");
    }
}
