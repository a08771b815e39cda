//! The token file that the portal hands out, made as Apple's sample is made: MIME around CMS EnvelopedData in BER with
//! indefinite lengths, and within it MIME around JSON that is broken in the middle of its strings. Contract sheet 2.40 to 2.43.

use aws_lc_rs::{
    cipher::{self, DecryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey},
    rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use rand::Rng;
use serde::Deserialize;
use x509_cert::{
    Certificate,
    der::{DecodePem, Encode},
};

use super::DepToken;

/// Which cipher the content is encrypted with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenFileCipher {
    /// AES with 128 bits, as Apple's sample.
    #[default]
    #[serde(rename = "aes128")]
    Aes128,
    /// DES three times, as files of older tools.
    TripleDes,
}

/// How a token file is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenFileOptions {
    /// The cipher.
    pub cipher: TokenFileCipher,
    /// Whether the JSON stands between `-----BEGIN MESSAGE-----` and `-----END MESSAGE-----`, as in files from the field.
    pub message_marks: bool,
    /// After how many characters the JSON is broken, wherever that is.
    pub width: usize,
    /// Whether lines end in CR LF, outside and within; else in LF.
    pub crlf: bool,
}

impl Default for TokenFileOptions {
    fn default() -> Self {
        Self {
            cipher: TokenFileCipher::default(),
            message_marks: false,
            width: 76,
            crlf: true,
        }
    }
}

/// Why a token file cannot be made for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFileError {
    /// Not one certificate in PEM.
    #[error("the portal takes an X.509 certificate as PEM, and this is none")]
    NotACertificate,
    /// Its key cannot be encrypted to.
    #[error(
        "the certificate's key is not RSA with 2048 bits or more, so nothing can be encrypted to it"
    )]
    NotRsa,
}

/// How many bytes of ciphertext stand in one part.
const PART: usize = 512;

// Object identifiers, encoded.
const ENVELOPED_DATA: &[u8] = &[0x06, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 3];
const DATA: &[u8] = &[0x06, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 1];
const RSA_ENCRYPTION: &[u8] = &[0x06, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 1];
const AES_128_CBC: &[u8] = &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 2];
const DES_EDE3_CBC: &[u8] = &[0x06, 8, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 3, 7];

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const NULL: &[u8] = &[0x05, 0];
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0]`, constructed.
const TAGGED: u8 = 0xA0;

/// Makes the file.
pub(super) fn make(
    token: &DepToken,
    certificate_pem: &str,
    options: TokenFileOptions,
    rng: &mut impl Rng,
) -> Result<Vec<u8>, TokenFileError> {
    let enveloped = enveloped(&content(token, options), certificate_pem, options, rng)?;
    let mut lines = vec![
        "Content-Type: application/pkcs7-mime; name=\"smime.p7m\"; smime-type=enveloped-data"
            .to_owned(),
        "Content-Transfer-Encoding: base64".to_owned(),
        "Content-Disposition: attachment; filename=\"smime.p7m\"".to_owned(),
        "Content-Description: S/MIME Encrypted Message".to_owned(),
        String::new(),
    ];
    lines.extend(broken(&STANDARD.encode(enveloped), 76));
    Ok(joined(lines, options.crlf))
}

/// What is encrypted.
fn content(token: &DepToken, options: TokenFileOptions) -> Vec<u8> {
    let mut lines = vec![
        "Content-Type: text/plain;charset=UTF-8".to_owned(),
        "Content-Transfer-Encoding: 7bit".to_owned(),
        String::new(),
    ];
    let marked = |mark: &str| {
        options
            .message_marks
            .then(|| format!("-----{mark} MESSAGE-----"))
    };
    lines.extend(marked("BEGIN"));
    lines.extend(broken(&token.json(), options.width));
    lines.extend(marked("END"));
    joined(lines, options.crlf)
}

/// The text in lines of so many characters.
fn broken(text: &str, width: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let lines = characters.chunks(width.max(1));
    lines.map(|line| line.iter().collect()).collect()
}

fn joined(mut lines: Vec<String>, crlf: bool) -> Vec<u8> {
    lines.push(String::new());
    lines.join(if crlf { "\r\n" } else { "\n" }).into_bytes()
}

/// The content as CMS EnvelopedData.
fn enveloped(
    content: &[u8],
    certificate_pem: &str,
    options: TokenFileOptions,
    rng: &mut impl Rng,
) -> Result<Vec<u8>, TokenFileError> {
    let (oid, algorithm) = match options.cipher {
        TokenFileCipher::Aes128 => (AES_128_CBC, &cipher::AES_128),
        #[expect(deprecated, reason = "portals may still hand out files made so")]
        TokenFileCipher::TripleDes => (DES_EDE3_CBC, &cipher::DES_EDE3_FOR_LEGACY_USE_ONLY),
    };
    let mut key = match options.cipher {
        TokenFileCipher::Aes128 => vec![0; 16],
        TokenFileCipher::TripleDes => vec![0; 24],
    };
    rng.fill_bytes(&mut key);
    let recipient = recipient(&key, certificate_pem)?;
    let (vector, ciphertext) = encrypted(content, UnboundCipherKey::new(algorithm, &key));
    let parts: Vec<u8> = ciphertext
        .chunks(PART)
        .flat_map(|part| definite(OCTET_STRING, part))
        .collect();
    let algorithm = [oid, &definite(OCTET_STRING, &vector)].concat();
    let encrypted = [
        DATA,
        &definite(SEQUENCE, &algorithm),
        &indefinite(TAGGED, &parts),
    ];
    let enveloped = [
        definite(INTEGER, &[0]),
        definite(SET, &recipient),
        indefinite(SEQUENCE, &encrypted.concat()),
    ];
    let enveloped = indefinite(SEQUENCE, &enveloped.concat());
    let info = [ENVELOPED_DATA, &indefinite(TAGGED, &enveloped)];
    Ok(indefinite(SEQUENCE, &info.concat()))
}

/// The content's key, encrypted to the certificate: KeyTransRecipientInfo.
fn recipient(key: &[u8], certificate_pem: &str) -> Result<Vec<u8>, TokenFileError> {
    let certificate =
        Certificate::from_pem(certificate_pem).map_err(|_| TokenFileError::NotACertificate)?;
    let certificate = certificate.tbs_certificate();
    let der = |encoded: Result<Vec<u8>, _>| encoded.map_err(|_| TokenFileError::NotACertificate);
    let issuer = der(certificate.issuer().to_der())?;
    let serial = der(certificate.serial_number().to_der())?;
    let public = der(certificate.subject_public_key_info().to_der())?;
    let public = PublicEncryptingKey::from_der(&public).map_err(|_| TokenFileError::NotRsa)?;
    let public = Pkcs1PublicEncryptingKey::new(public).map_err(|_| TokenFileError::NotRsa)?;
    let mut encrypted = vec![0; public.ciphertext_size()];
    public
        .encrypt(key, &mut encrypted)
        .map_err(|_| TokenFileError::NotRsa)?;
    let info = [
        definite(INTEGER, &[0]),
        definite(SEQUENCE, &[issuer, serial].concat()),
        definite(SEQUENCE, &[RSA_ENCRYPTION, NULL].concat()),
        definite(OCTET_STRING, &encrypted),
    ];
    Ok(definite(SEQUENCE, &info.concat()))
}

/// The initialisation vector and the ciphertext.
fn encrypted<E: std::fmt::Debug>(
    content: &[u8],
    key: Result<UnboundCipherKey, E>,
) -> (Vec<u8>, Vec<u8>) {
    let key = key.expect("the key is as long as its cipher wants it");
    let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).expect("the cipher is a block cipher");
    let mut ciphertext = content.to_vec();
    let context: DecryptionContext = key
        .encrypt(&mut ciphertext)
        .expect("there is a vector for CBC, and memory for the padding");
    let vector: &[u8] = (&context)
        .try_into()
        .expect("CBC has an initialisation vector");
    (vector.to_vec(), ciphertext)
}

/// A value with its length before it.
fn definite(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut encoded = vec![tag];
    match value.len() {
        short @ 0..0x80 => encoded.push(short as u8),
        long => {
            let length = long.to_be_bytes();
            let digits = &length[long.leading_zeros() as usize / 8..];
            encoded.push(0x80 | digits.len() as u8);
            encoded.extend_from_slice(digits);
        }
    }
    encoded.extend_from_slice(value);
    encoded
}

/// A constructed value whose end is marked.
fn indefinite(tag: u8, value: &[u8]) -> Vec<u8> {
    [&[tag, 0x80], value, &[0, 0]].concat()
}
