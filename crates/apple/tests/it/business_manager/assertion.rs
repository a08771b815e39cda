//! The client assertion (T32). OpenSSL made one with the same key and the same claims; the verifier is of another library
//! than the signer.

use std::collections::HashSet;
use std::path::PathBuf;

use activation_lock::time::Timestamp;
use apple::business_manager::assertion::{SigningKey, SigningKeyError};
use apple::business_manager::{ApiAccount, ApiAccountError, Programme};
use apple::unverified::BUSINESS_AUDIENCE;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use serde_json::Value;

const CLIENT: &str = "BUSINESSAPI.00000000-0000-4000-8000-000000000001";
const KEY: &str = "00000000-0000-4000-8000-000000000002";
/// The first moment of 2026, and some.
const NOW: Timestamp = Timestamp(1_767_225_600_321);
const IDENTIFIER: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

fn file(folder: &str, name: &str) -> Vec<u8> {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    std::fs::read(data.join(folder).join(name)).unwrap()
}

fn ours(name: &str) -> Vec<u8> {
    file("business-manager", name)
}

#[track_caller]
fn key(pem: &[u8]) -> SigningKey {
    SigningKey::from_pem(pem).unwrap_or_else(|error| panic!("{error}"))
}

fn account(key: SigningKey) -> ApiAccount {
    ApiAccount::new(CLIENT, KEY, key).unwrap_or_else(|error| panic!("{error}"))
}

/// The public half of the test key: the point that ends its DER form.
fn public() -> VerifyingKey {
    let pem = String::from_utf8(ours("p256-public.pem")).unwrap();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(base64).unwrap();
    VerifyingKey::from_sec1_bytes(&der[der.len() - 65..]).unwrap()
}

/// Header and claims of a JWT that is right in every part: three parts of base64url without padding, and 64 bytes of
/// signature (RFC 7515, RFC 7518 section 3.4).
#[track_caller]
fn verified(jwt: &str) -> (Value, Value) {
    let parts: Vec<&str> = jwt.split('.').collect();
    assert_eq!(parts.len(), 3);
    let decoded: Vec<Vec<u8>> = parts
        .iter()
        .map(|part| URL_SAFE_NO_PAD.decode(part).unwrap())
        .collect();
    assert_eq!(decoded[2].len(), 64, "the two numbers, and no DER");
    let signed = &jwt[..jwt.rfind('.').unwrap()];
    let signature = Signature::from_slice(&decoded[2]).unwrap();
    public()
        .verify(signed.as_bytes(), &signature)
        .expect("the signature fits");
    let json = |part: &[u8]| serde_json::from_slice(part).unwrap();
    (json(&decoded[0]), json(&decoded[1]))
}

#[test]
fn t32_an_assertion_says_what_the_one_made_by_openssl_says_and_verifies_like_it() {
    let theirs = String::from_utf8(ours("assertion.jwt")).unwrap();
    let (header, claims) = verified(theirs.trim());
    for name in ["p256-sec1.pem", "p256-pkcs8.pem"] {
        let account = account(key(&ours(name)));
        let made = account.assertion(BUSINESS_AUDIENCE, NOW, IDENTIFIER);
        assert_eq!(
            verified(made.text()),
            (header.clone(), claims.clone()),
            "{name}"
        );
    }
}

#[test]
fn t32_an_assertion_begins_a_little_ago_and_ends_soon() {
    let account = account(key(&ours("p256-pkcs8.pem")));
    let (_, claims) = verified(account.assertion("any", NOW, IDENTIFIER).text());
    let seconds = |name: &str| claims[name].as_i64().unwrap();
    let now = NOW.0 / 1000;
    assert!(
        seconds("iat") < now && now - seconds("iat") <= 300,
        "clocks differ by less"
    );
    assert!(seconds("exp") > now + 300, "a slow call still arrives");
    assert!(
        seconds("exp") - seconds("iat") <= 180 * 24 * 60 * 60,
        "the most that Apple takes"
    );
    assert!(
        seconds("exp") - now <= 3600,
        "and it leaks for a short time"
    );
    assert_eq!(claims["aud"], "any");
}

#[test]
fn t32_no_two_assertions_have_the_same_identifier() {
    let account = account(key(&ours("p256-pkcs8.pem")));
    let identifiers: HashSet<String> = (0..32)
        .map(|last| {
            let made = account.assertion(BUSINESS_AUDIENCE, NOW, [last; 16]);
            verified(made.text()).1["jti"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(identifiers.len(), 32);
}

#[test]
fn a_key_is_read_in_each_form_and_sealed_in_one() {
    let sec1 = String::from_utf8(ours("p256-sec1.pem")).unwrap();
    let (_, without_parameters) = sec1.split_once("-----END EC PARAMETERS-----\n").unwrap();
    let pkcs8 = String::from_utf8(ours("p256-pkcs8.pem")).unwrap();
    let sealed = key(pkcs8.as_bytes()).to_sealed_pem();
    for pem in [
        sec1.as_str(),
        without_parameters,
        &pkcs8,
        &sec1.replace('\n', "\r\n"),
        &format!("Bag Attributes\n  friendlyName: key\n{pkcs8}"),
        // Labels that say the other form: the bytes decide.
        &pkcs8.replace("PRIVATE KEY", "EC PRIVATE KEY"),
        &without_parameters.replace("EC PRIVATE KEY", "PRIVATE KEY"),
        &sealed,
    ] {
        assert!(*key(pem.as_bytes()).to_sealed_pem() == *sealed);
    }
    assert!(
        sealed.trim_end() == pkcs8.trim_end(),
        "what is sealed is what OpenSSL writes"
    );
}

#[test]
fn other_keys_are_refused_and_it_is_said_what_they_are() {
    let both = [ours("p256-sec1.pem"), ours("p384.pem")].concat();
    let rsa = |name| file("push-certificates", name);
    let broken = |from: &str, to: &str| {
        let pem = String::from_utf8(ours("p256-pkcs8.pem")).unwrap();
        pem.replacen(from, to, 1).into_bytes()
    };
    for (pem, expected) in [
        (
            ours("p384.pem"),
            SigningKeyError::OtherKind("ECDSA on the curve P-384"),
        ),
        (
            ours("k256.pem"),
            SigningKeyError::OtherKind("ECDSA on the curve secp256k1"),
        ),
        (ours("ed25519.pem"), SigningKeyError::OtherKind("Ed25519")),
        (rsa("rsa-key-pkcs8.pem"), SigningKeyError::OtherKind("RSA")),
        (rsa("rsa-key-pkcs1.pem"), SigningKeyError::OtherKind("RSA")),
        (ours("encrypted.pem"), SigningKeyError::Encrypted),
        (ours("encrypted-old.pem"), SigningKeyError::Encrypted),
        (ours("p256-public.pem"), SigningKeyError::NoKey),
        (rsa("rsa.pem"), SigningKeyError::NoKey),
        (b"no PEM at all".to_vec(), SigningKeyError::NoKey),
        (Vec::new(), SigningKeyError::NoKey),
        (both, SigningKeyError::Several),
        (broken("MIGHAgEA", "MIGHAgE*"), SigningKeyError::DamagedPem),
        (broken("-----END", "---END"), SigningKeyError::DamagedPem),
        (broken("MIGHAgEA", "MIGHAgEC"), SigningKeyError::Damaged),
        (vec![b'-'; 65 * 1024], SigningKeyError::TooLarge),
    ] {
        assert_eq!(SigningKey::from_pem(&pem).err(), Some(expected));
    }
}

#[test]
fn an_account_belongs_to_the_programme_its_client_id_begins_with() {
    let made = |client: &str, id: &str| ApiAccount::new(client, id, key(&ours("p256-pkcs8.pem")));
    for (client, programme, scope) in [
        (CLIENT, Programme::Business, "business.api"),
        (" SCHOOLAPI.1 ", Programme::School, "school.api"),
    ] {
        let account = made(client, KEY).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(account.programme(), programme);
        assert_eq!(account.programme().scope(), scope);
        assert_eq!(account.client_id(), client.trim());
        assert_eq!(account.key_id(), KEY);
    }
    for client in [
        "",
        "BUSINESSAPI.",
        "businessapi.1",
        "OTHERAPI.1",
        "SCHOOLAPI1",
        "X BUSINESSAPI.1",
        "BUSINESSAPI.1 2",
        &format!("BUSINESSAPI.{}", "1".repeat(200)),
    ] {
        assert_eq!(
            made(client, KEY).err(),
            Some(ApiAccountError::ClientId),
            "{client}"
        );
    }
    for id in ["", " ", "a b", "\u{e9}", &"1".repeat(201)] {
        assert_eq!(made(CLIENT, id).err(), Some(ApiAccountError::KeyId), "{id}");
    }
}
