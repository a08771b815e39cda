//! The token file, opened by hand: MIME, base64, BER, RSA, the cipher, MIME again, and JSON in pieces.

use aws_lc_rs::{
    cipher::{self, AES_128, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey},
    rsa::{Pkcs1PrivateDecryptingKey, PrivateDecryptingKey},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::json;
use sim::dep::{TokenFileCipher, TokenFileError, TokenFileOptions};

use crate::dep_client::{Stage, stage};

/// A certificate as a program makes it for the portal, and its key.
fn certificate() -> (String, KeyPair) {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Sim");
    (params.self_signed(&key).unwrap().pem(), key)
}

/// A value in BER: its tag, and its content or the values within.
#[derive(Debug)]
struct Ber {
    tag: u8,
    indefinite: bool,
    content: Vec<u8>,
    within: Vec<Ber>,
}

impl Ber {
    /// Reads one value and what is left behind it; none at the end marker.
    fn read(bytes: &[u8]) -> (Option<Self>, &[u8]) {
        let (tag, length) = (bytes[0], bytes[1]);
        let mut rest = &bytes[2..];
        let mut value = Self {
            tag,
            indefinite: length == 0x80,
            content: Vec::new(),
            within: Vec::new(),
        };
        if (tag, length) == (0, 0) {
            return (None, rest);
        }
        if value.indefinite {
            while let (Some(part), left) = Self::read(rest) {
                value.within.push(part);
                rest = left;
            }
            return (Some(value), &rest[2..]);
        }
        let mut size = usize::from(length);
        if length > 0x80 {
            let (digits, left) = rest.split_at(usize::from(length & 0x7F));
            size = digits
                .iter()
                .fold(0, |size, digit| size << 8 | usize::from(*digit));
            rest = left;
        }
        let (content, left) = rest.split_at(size);
        value.content = content.to_vec();
        let mut inner = content;
        while tag & 0x20 != 0 && !inner.is_empty() {
            let (part, left) = Self::read(inner);
            value.within.extend(part);
            inner = left;
        }
        (Some(value), left)
    }
}

/// The headers and what follows the empty line.
fn mime(text: &str, line: &str) -> (String, String) {
    let (head, body) = text.split_once(&format!("{line}{line}")).unwrap();
    (head.to_owned(), body.to_owned())
}

/// What is within the file, and the lengths of the parts of its ciphertext.
fn open(file: &[u8], key: &KeyPair, options: TokenFileOptions) -> (String, Vec<usize>) {
    let line = if options.crlf { "\r\n" } else { "\n" };
    let (head, body) = mime(std::str::from_utf8(file).unwrap(), line);
    assert!(
        head.starts_with("Content-Type: application/pkcs7-mime;"),
        "{head}"
    );
    assert!(head.contains("Content-Transfer-Encoding: base64"), "{head}");
    assert!(body.lines().all(|line| line.len() <= 76));
    let ber = STANDARD
        .decode(body.split_whitespace().collect::<String>())
        .unwrap();
    assert_eq!(ber[..2], [0x30, 0x80]);
    let (info, rest) = Ber::read(&ber);
    assert!(rest.is_empty());
    let info = info.unwrap();
    let enveloped = &info.within[1].within[0];
    let encrypted = &enveloped.within[2];
    let parts = &encrypted.within[2];
    assert!(
        [&info, &info.within[1], enveloped, encrypted, parts]
            .iter()
            .all(|value| value.indefinite)
    );
    assert_eq!(
        info.within[0].content,
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 3]
    );
    assert_eq!(
        (enveloped.tag, enveloped.within[0].content.as_slice()),
        (0x30, &[0][..])
    );

    let recipient = &enveloped.within[1].within[0];
    let private = PrivateDecryptingKey::from_pkcs8(&key.serialize_der()).unwrap();
    let private = Pkcs1PrivateDecryptingKey::new(private).unwrap();
    let mut content_key = vec![0; private.min_output_size()];
    let content_key = private
        .decrypt(&recipient.within[3].content, &mut content_key)
        .unwrap();
    let vector = &encrypted.within[1].within[1].content;
    #[expect(deprecated, reason = "the fake makes such files too")]
    let (algorithm, context) = match options.cipher {
        TokenFileCipher::Aes128 => (
            &AES_128,
            DecryptionContext::Iv128(vector.as_slice().try_into().unwrap()),
        ),
        TokenFileCipher::TripleDes => (
            &cipher::DES_EDE3_FOR_LEGACY_USE_ONLY,
            DecryptionContext::Iv64(vector.as_slice().try_into().unwrap()),
        ),
    };
    let mut content: Vec<u8> = parts
        .within
        .iter()
        .flat_map(|part| part.content.clone())
        .collect();
    let content_key = UnboundCipherKey::new(algorithm, content_key).unwrap();
    let content = PaddedBlockDecryptingKey::cbc_pkcs7(content_key)
        .unwrap()
        .decrypt(&mut content, context)
        .unwrap();
    let lengths = parts.within.iter().map(|part| part.content.len()).collect();
    (String::from_utf8(content.to_vec()).unwrap(), lengths)
}

/// The JSON within, with its lines joined.
fn check(stage: &Stage, certificate: &str, key: &KeyPair, options: TokenFileOptions) {
    let file = stage
        .dep
        .token_file_with(&stage.token, certificate, options)
        .unwrap();
    let (text, parts) = open(&file, key, options);
    assert!(parts.len() > 1, "in more than one part");
    let (head, body) = mime(&text, if options.crlf { "\r\n" } else { "\n" });
    assert!(head.starts_with("Content-Type: text/plain"), "{head}");
    let mut lines: Vec<&str> = body.lines().collect();
    if options.message_marks {
        assert_eq!(lines.remove(0), "-----BEGIN MESSAGE-----");
        assert_eq!(lines.pop(), Some("-----END MESSAGE-----"));
    }
    assert!(
        lines.len() > 3
            && lines[..lines.len() - 1]
                .iter()
                .all(|line| line.len() == options.width)
    );
    let token = &stage.token;
    let opened: serde_json::Value = serde_json::from_str(&lines.concat()).unwrap();
    let same = opened
        == json!({
            "consumer_key": token.consumer_key, "consumer_secret": token.consumer_secret,
            "access_token": token.access_token, "access_secret": token.access_secret,
            "access_token_expiry": "2028-01-15T08:00:00Z",
        });
    assert!(same, "the token within is another one");
    assert!(serde_json::from_str::<serde_json::Value>(&token.json()).unwrap() == opened);
}

#[tokio::test]
async fn t10_a_token_file_opens_with_the_certificates_key() {
    let stage = stage().await;
    let (certificate, key) = certificate();
    let file = stage.dep.token_file(&stage.token, &certificate);
    assert!(file.starts_with(b"Content-Type: application/pkcs7-mime"));
    for options in [
        TokenFileOptions::default(),
        TokenFileOptions {
            message_marks: true,
            ..TokenFileOptions::default()
        },
        TokenFileOptions {
            cipher: TokenFileCipher::TripleDes,
            width: 64,
            ..TokenFileOptions::default()
        },
        TokenFileOptions {
            crlf: false,
            message_marks: true,
            width: 70,
            ..TokenFileOptions::default()
        },
    ] {
        check(&stage, &certificate, &key, options);
    }
}

#[tokio::test]
async fn t10_the_portal_takes_rsa_certificates_alone() {
    let stage = stage().await;
    let make = |certificate: &str| {
        stage
            .dep
            .token_file_with(&stage.token, certificate, TokenFileOptions::default())
            .err()
    };
    assert_eq!(
        make("no certificate"),
        Some(TokenFileError::NotACertificate)
    );
    let key = KeyPair::generate().unwrap();
    let curve = CertificateParams::default()
        .self_signed(&key)
        .unwrap()
        .pem();
    assert_eq!(make(&curve), Some(TokenFileError::NotRsa));
}
