//! Server token files that OpenSSL made (`tests/data/token-files`). The secrets in them protect nothing, and are not printed
//! all the same.

use std::path::Path;

use activation_lock::time::Timestamp;
use apple::dep::key::{TokenKey, TokenKeyError};
use apple::dep::token::{ServerToken, TokenExpiry, TokenJsonError};
use apple::dep::token_file::TokenFileError;
use data_encoding::BASE64;
use sim::dep::{TokenFileCipher, TokenFileOptions};

use super::{Organisation, counting, now};

/// 2027-01-01T00:00:00Z.
const END: Timestamp = Timestamp(1_798_761_600_000);
const A_DAY: i64 = 24 * 60 * 60 * 1000;

fn file(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/token-files");
    std::fs::read(folder.join(name)).unwrap()
}

fn key() -> TokenKey {
    TokenKey::from_pem(&file("ours-key.pem"), Some(&file("ours.pem"))).unwrap()
}

fn key_alone() -> TokenKey {
    TokenKey::from_pem(&file("ours-key.pem"), None).unwrap()
}

fn opened(file: &[u8], key: &TokenKey, what: &str) -> ServerToken {
    match ServerToken::open(file, key) {
        Ok(token) => token,
        Err(error) => panic!("{what}: {error}"),
    }
}

fn refused(file: &[u8], key: &TokenKey, what: &str) -> TokenFileError {
    let Err(error) = ServerToken::open(file, key) else {
        panic!("{what} opens");
    };
    let said = format!("{error} {error:?}");
    for secret in ["CK_4", "CS_3", "AT_0", "AS_c", "Hello"] {
        assert!(!said.contains(secret), "{what}");
    }
    error
}

/// Whether it is the token that the script wrote.
fn is_the_token(token: &ServerToken) -> bool {
    *token.to_sealed_json() == *std::str::from_utf8(&file("token.json")).unwrap()
}

#[test]
fn t10_a_file_as_apple_makes_them_opens_however_it_is_wrapped_and_encrypted() {
    for name in [
        "apple.p7m",
        "marked.p7m",
        "ber.der",
        "definite.der",
        "armoured.pem",
        "bare.b64",
        "aes192.p7m",
        "aes256.p7m",
        "des3.p7m",
        "key-identifier.p7m",
        "two.p7m",
    ] {
        for key in [key(), key_alone()] {
            assert!(is_the_token(&opened(&file(name), &key, name)), "{name}");
        }
    }
    let pkcs1 = TokenKey::from_pem(&file("ours-key-pkcs1.pem"), None).unwrap();
    assert!(is_the_token(&opened(&file("apple.p7m"), &pkcs1, "PKCS#1")));
}

#[test]
fn t10_line_ends_a_mark_and_white_space_change_nothing() {
    let text = String::from_utf8(file("apple.p7m")).unwrap();
    for (what, changed) in [
        ("CRLF", text.replace('\n', "\r\n")),
        ("a mark", format!("\u{feff}{text}")),
        ("space before", format!("\r\n  {text}")),
        ("space behind", format!("{text}\n\n \n")),
        ("a folded header", text.replace("; name=", ";\n\tname=")),
        (
            "no padding",
            text.trim_end().trim_end_matches('=').to_owned(),
        ),
    ] {
        assert!(
            is_the_token(&opened(changed.as_bytes(), &key(), what)),
            "{what}"
        );
    }
    let headers = "Content-Type: application/pkcs7-mime\nContent-Transfer-Encoding: binary\n\n";
    let armoured = [headers.as_bytes(), &file("armoured.pem")].concat();
    assert!(is_the_token(&opened(
        &armoured,
        &key(),
        "PEM behind headers"
    )));
}

#[test]
fn t10_an_expired_token_opens_and_says_that_it_is_over() {
    let token = opened(&file("expired.p7m"), &key(), "expired");
    let now = Timestamp(END.0 - 61 * A_DAY);
    assert_eq!(token.expiry_level(now), TokenExpiry::Expired);
    let token = opened(&file("apple.p7m"), &key(), "fresh");
    assert_eq!(token.access_token_expiry(), END);
    for (days, level) in [
        (61, TokenExpiry::Fine),
        (60, TokenExpiry::Expiring),
        (14, TokenExpiry::Urgent),
        (0, TokenExpiry::Expired),
    ] {
        let now = Timestamp(END.0 - days * A_DAY);
        assert_eq!(token.expiry_level(now), level, "{days}");
        assert_eq!(token.days_left(now), days);
    }
}

#[test]
fn t10_a_file_for_another_certificate_is_told_by_the_name_in_it() {
    let other = TokenKey::from_pem(&file("other-key.pem"), Some(&file("other.pem"))).unwrap();
    let theirs = file("other.p7m");
    let error = refused(&theirs, &key(), "other");
    assert_eq!(error, TokenFileError::OtherCertificate);
    let error = refused(&theirs, &key_alone(), "other");
    assert_eq!(error, TokenFileError::NotOpened);
    assert!(is_the_token(&opened(&theirs, &other, "other")));
    for name in ["apple.p7m", "key-identifier.p7m", "renewed.p7m"] {
        assert_eq!(
            refused(&file(name), &other, name),
            TokenFileError::OtherCertificate
        );
    }
    assert!(is_the_token(&opened(&file("two.p7m"), &other, "two")));
    // Another certificate of the same key: it opens, for it is tried.
    assert!(is_the_token(&opened(
        &file("renewed.p7m"),
        &key(),
        "renewed"
    )));
    let words = TokenFileError::OtherCertificate.to_string();
    assert!(words.contains("another certificate") && words.contains("Upload our certificate"));
}

/// The recipient's encrypted key and the content, changed a byte at a time: nothing but the name in the file may be told apart,
/// or we would decrypt for whoever asks often enough.
#[test]
fn t10_no_change_of_what_is_encrypted_can_be_told_from_another() {
    let whole = file("definite.der");
    let (certified, alone) = (key(), key_alone());
    let encrypted_key = whole
        .windows(4)
        .position(|four| four == [4, 0x82, 1, 0])
        .unwrap()
        + 4;
    let content = whole
        .windows(2)
        .position(|two| two == [0x80, 0x82])
        .unwrap()
        + 4;
    let places = (encrypted_key..encrypted_key + 256)
        .step_by(17)
        .chain((content..whole.len()).step_by(13))
        .chain(whole.len() - 20..whole.len());
    let mut told = std::collections::BTreeSet::new();
    for at in places {
        for flip in [1, 0x80] {
            let mut changed = whole.clone();
            changed[at] ^= flip;
            told.insert(refused(&changed, &certified, "changed").to_string());
            assert_eq!(
                refused(&changed, &alone, "changed"),
                TokenFileError::NotOpened
            );
        }
    }
    assert_eq!(told, [TokenFileError::Damaged.to_string()].into());
    // A content that decrypts to what is no text is no different.
    let noise = refused(&file("noise.p7m"), &certified, "noise");
    assert_eq!(noise, TokenFileError::Damaged);
}

#[test]
fn t10_a_file_that_breaks_off_says_so_wherever_it_does() {
    let names = [
        "apple.p7m",
        "ber.der",
        "definite.der",
        "armoured.pem",
        "bare.b64",
    ];
    for name in names {
        let whole = file(name);
        let text = whole[0] != 0x30;
        // What is decoded of the last few letters of a text may be all but its padding.
        let last = whole.len() - if name == "armoured.pem" { 30 } else { 6 };
        for end in (if text { 300 } else { 1 }..last).step_by(7) {
            let error = refused(&whole[..end], &key(), name);
            assert_eq!(error, TokenFileError::Truncated, "{name} to {end}");
        }
    }
    let headers = file("apple.p7m")[..120].to_vec();
    assert_eq!(
        refused(&headers, &key(), "headers"),
        TokenFileError::Truncated
    );
}

#[test]
fn t10_what_is_no_token_file_says_what_it_looks_like() {
    for (name, what) in [
        ("ours.pem", "it is a certificate"),
        ("certificate.der", "it is a certificate"),
        ("ours-key.pem", "it is a private key"),
        ("ours-key-pkcs1.pem", "it is a private key"),
        ("token.json", "it is JSON"),
        ("signed.p7m", "another kind (1.2.840.113549.1.7.2)"),
        ("gcm.p7m", "another kind (1.2.840.113549.1.9.16.1.23)"),
        ("make.sh", "text of another kind"),
    ] {
        let error = refused(&file(name), &key(), name);
        let words = error.to_string();
        assert!(
            matches!(error, TokenFileError::NotATokenFile(_)),
            "{name}: {words}"
        );
        assert!(
            words.contains(what) && words.contains(".p7m"),
            "{name}: {words}"
        );
    }
    for (bytes, what) in [
        (&b""[..], "empty"),
        (b" \r\n", "empty"),
        (b"\xff\xfe\0\0", "binary data"),
        (b"Dear all: the token", "text"),
        (b"-----BEGIN PGP MESSAGE-----\n", "PEM of another kind"),
    ] {
        let words = refused(bytes, &key(), what).to_string();
        assert!(words.contains(what), "{words}");
    }
    let large = vec![b'A'; 1024 * 1024 + 1];
    assert_eq!(refused(&large, &key(), "large"), TokenFileError::TooLarge);
    let nothing = BASE64.encode(&[0x30, 0x80, 5, 0, 0, 0]);
    let error = refused(nothing.as_bytes(), &key(), "a sequence");
    assert_eq!(error, TokenFileError::Malformed);
}

#[test]
fn t10_an_algorithm_that_is_not_supported_is_named_by_its_number() {
    for (name, what, oid) in [
        ("oaep.p7m", "for its key", "1.2.840.113549.1.1.7"),
        ("elliptic.p7m", "for its key", "1.3.133.16.840.63.0.2"),
        (
            "camellia.p7m",
            "for its content",
            "1.2.392.200011.61.1.1.1.2",
        ),
    ] {
        let error = refused(&file(name), &key(), name);
        let oid = oid.to_owned();
        assert!(error.to_string().contains(&oid));
        assert_eq!(error, TokenFileError::UnsupportedAlgorithm { what, oid });
    }
}

#[test]
fn t10_a_letter_that_opens_and_is_no_token_says_so() {
    let error = refused(&file("letter.p7m"), &key(), "letter");
    assert_eq!(error, TokenFileError::NoToken(TokenJsonError::NotJson));
}

#[test]
fn keys_of_other_kinds_are_refused_by_name() {
    let certificates = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/push-certificates");
    let read = |name: &str| {
        let pem = std::fs::read(certificates.join(name)).unwrap();
        let Err(error) = TokenKey::from_pem(&pem, None) else {
            panic!("{name} is taken");
        };
        error
    };
    assert_eq!(read("weak-key.pem"), TokenKeyError::UnusableKey);
    assert_eq!(read("ec-key-pkcs8.pem"), TokenKeyError::UnusableKey);
    assert_eq!(read("ec-key-sec1.pem"), TokenKeyError::UnusableKey);
    assert_eq!(read("rsa-key-encrypted.pem"), TokenKeyError::EncryptedKey);
    assert_eq!(
        read("rsa-key-encrypted-old.pem"),
        TokenKeyError::EncryptedKey
    );
    assert_eq!(read("ec.pem"), TokenKeyError::NoKey);
    let mixed = TokenKey::from_pem(&file("ours-key.pem"), Some(&file("other.pem")));
    assert_eq!(mixed.err(), Some(TokenKeyError::OtherCertificate));
    let none = TokenKey::from_pem(&file("ours-key.pem"), Some(&file("token.json")));
    assert_eq!(none.err(), Some(TokenKeyError::NoCertificate));
}

/// The other writing of the same contract: lengths left open everywhere, strings in pieces, JSON broken anywhere.
#[tokio::test]
async fn t10_the_portal_makes_a_file_for_our_certificate_and_its_token_works() {
    let organisation = Organisation::new().await;
    let key = TokenKey::generate(now()).unwrap();
    let certificate = key.certificate_pem().unwrap();
    let stranger = TokenKey::generate(now()).unwrap();
    let sealed = ServerToken::from_json(organisation.token.json().as_bytes());
    let sealed = sealed.unwrap().to_sealed_json();
    for cipher in [TokenFileCipher::Aes128, TokenFileCipher::TripleDes] {
        for message_marks in [false, true] {
            for (width, crlf) in [(76, true), (1, false), (3, true), (10_000, false)] {
                let options = TokenFileOptions {
                    cipher,
                    message_marks,
                    width,
                    crlf,
                };
                let made =
                    organisation
                        .dep
                        .token_file_with(&organisation.token, certificate, options);
                let file = made.unwrap();
                let token = opened(&file, &key, "the portal's file");
                assert!(*token.to_sealed_json() == *sealed, "{options:?}");
                let error = refused(&file, &stranger, "the portal's file");
                assert_eq!(error, TokenFileError::OtherCertificate);
            }
        }
    }
    let file = organisation
        .dep
        .token_file(&organisation.token, certificate);
    let token = opened(&file, &key, "the portal's file");
    assert_eq!(token.expiry_level(now()), TokenExpiry::Fine);
    let service = apple::dep::DepService::new(&organisation.settings(), token, counting()).unwrap();
    let account = service.account(now()).await.unwrap();
    assert_eq!(account.server_name.as_deref(), Some("Lockwarden"));
}
