//! The file in which Apple hands a server token over: headers, base64, an envelope of CMS, and in it a text (contract sheet
//! 2.41, 2.42).
//!
//! A person may hand in what a program made of the file before: without the headers, as PEM, or decoded. Nothing here tells
//! whether a key fitted but the content did not: the two look the same to whoever sends files and reads our words.

use std::borrow::Cow;

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use cms::content_info::ContentInfo;
use cms::enveloped_data::{
    EnvelopedData, KeyTransRecipientInfo, RecipientIdentifier, RecipientInfo,
};
use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::{Decode as _, Encode as _};
use x509_cert::Certificate;
use x509_cert::ext::pkix::SubjectKeyIdentifier;
use zeroize::Zeroizing;

use super::ber::{self, BerError};
use super::key::TokenKey;
use super::token::TokenJsonError;

/// The largest file that is read, in bytes. Apple's have about three thousand.
const LARGEST_FILE: usize = 1024 * 1024;
/// The most recipients that are tried with the key. Apple's files have one.
const MOST_RECIPIENTS: usize = 16;

const ENVELOPED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.3");
/// RSA with the padding of PKCS#1 v1.5.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const AES_128_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.2");
const AES_192_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.22");
const AES_256_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42");
const DES_EDE3_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.3.7");

/// Why a token file does not open. Nothing of a token is ever in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFileError {
    /// Larger than any token file.
    #[error("the file is larger than 1 MiB, which no server token file is; is it the right file?")]
    TooLarge,
    /// Something else.
    #[error(
        "this is not a server token file: it is {0}. Give the file (.p7m) that Apple Business Manager or Apple School Manager downloads under \"Download MDM Server Token\""
    )]
    NotATokenFile(String),
    /// Its end is missing.
    #[error("the server token file breaks off; copy or download it again, whole")]
    Truncated,
    /// Its form is broken.
    #[error(
        "the server token file is damaged, so that its parts cannot be told; download it again"
    )]
    Malformed,
    /// Encrypted for a certificate that is not ours.
    #[error(
        "this server token file was made for another certificate. Upload our certificate to the MDM server's settings in Apple Business Manager or Apple School Manager, save, download a new token there, and give that one; or give the private key that belongs to the certificate that was uploaded"
    )]
    OtherCertificate,
    /// Encrypted for us, yet it does not open.
    #[error(
        "the server token file is made for this certificate, but its content does not open: it is damaged. Download it again"
    )]
    Damaged,
    /// It does not open, and without a certificate nothing more can be said.
    #[error(
        "the server token file does not open with this private key: it was made for another certificate, or it is damaged. Give the key whose certificate was uploaded to the portal, and download the file again"
    )]
    NotOpened,
    /// A way of encrypting that is not known here.
    #[error(
        "the server token file is encrypted in a way that is not supported ({what} {oid}); Apple's own files use RSA and AES. Please report this, with the numbers and without the file"
    )]
    UnsupportedAlgorithm {
        /// What it is for.
        what: &'static str,
        /// The algorithm's object identifier.
        oid: String,
    },
    /// It opened, and there is no token in it.
    #[error(
        "the server token file opened, but what is in it is no server token: {0}. Download it again; if that does not help, please report this, without the file"
    )]
    NoToken(TokenJsonError),
}

type Error = TokenFileError;

/// The text in the file, decrypted, with whatever stands around the token in it.
pub(super) fn open(file: &[u8], key: &TokenKey) -> Result<Zeroizing<Vec<u8>>, Error> {
    if file.len() > LARGEST_FILE {
        return Err(Error::TooLarge);
    }
    let envelope = envelope(&message(file)?)?;
    let cipher = Cipher::of(&envelope)?;
    let recipients = recipients(&envelope)?;
    let named = |recipient: &&KeyTransRecipientInfo| {
        key.certificate()
            .is_some_and(|certificate| names(&recipient.rid, certificate))
    };
    let is_named = recipients.iter().any(&named);
    // Where none is named the key may still be the right one: a certificate can be made anew for the same key.
    let tried = recipients
        .iter()
        .filter(|recipient| !is_named || named(recipient));
    for recipient in tried.take(MOST_RECIPIENTS) {
        let content_key = key.content_key(recipient.enc_key.as_bytes(), cipher.key_length);
        if let Some(text) = cipher.open(&content_key) {
            return Ok(text);
        }
    }
    Err(match key.certificate() {
        None => Error::NotOpened,
        Some(_) if is_named => Error::Damaged,
        Some(_) => Error::OtherCertificate,
    })
}

/// The bytes of the message, whatever they are wrapped in.
fn message(file: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    if is_binary(file) {
        return Ok(Cow::Borrowed(file));
    }
    let Ok(text) = std::str::from_utf8(file) else {
        return Err(other("binary data of another kind"));
    };
    let text = text.trim_start();
    if text.is_empty() {
        return Err(other("empty"));
    }
    if text.starts_with('{') {
        return Err(other(
            "JSON. If it is a server token that was decrypted before, give it as such",
        ));
    }
    let encoded = if text.starts_with("-----BEGIN ") {
        section(text)?
    } else if starts_with_header(text) {
        let body = after_headers(text).ok_or(Error::Truncated)?;
        match body.trim_start().starts_with("-----BEGIN ") {
            true => section(body.trim_start())?,
            false => body,
        }
    } else {
        text
    };
    decoded(encoded).map(Cow::Owned)
}

fn other(what: &str) -> Error {
    Error::NotATokenFile(what.to_owned())
}

/// A sequence in BER begins so, and no text of base64 does: it begins with an M.
fn is_binary(file: &[u8]) -> bool {
    file.first() == Some(&0x30)
}

/// What stands between the marks of PEM.
fn section(text: &str) -> Result<&str, Error> {
    let label = text["-----BEGIN ".len()..]
        .split("-----")
        .next()
        .unwrap_or_default();
    match label {
        "PKCS7" | "CMS" => {}
        "CERTIFICATE" => return Err(other("a certificate")),
        label if label.ends_with("PRIVATE KEY") => return Err(other("a private key")),
        _ => return Err(other("PEM of another kind")),
    }
    let (_, rest) = text.split_once('\n').ok_or(Error::Truncated)?;
    // Where the end mark is missing, what is encoded will tell whether it is whole.
    Ok(rest.split("-----END ").next().unwrap_or_default())
}

fn starts_with_header(text: &str) -> bool {
    let line = text.lines().next().unwrap_or_default();
    line.split_once(':').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

/// What follows the first empty line.
fn after_headers(text: &str) -> Option<&str> {
    let mut rest = text;
    loop {
        let (line, after) = rest.split_once('\n')?;
        if line.trim_end().is_empty() {
            return Some(after);
        }
        rest = after;
    }
}

/// Base64 with line breaks anywhere; what breaks off is decoded as far as it goes, for its end will be missed later.
fn decoded(text: &str) -> Result<Vec<u8>, Error> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let mut packed: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    while packed.last() == Some(&b'=') {
        packed.pop();
    }
    if packed.len() % 4 == 1 {
        packed.pop();
    }
    match LENIENT.decode(&packed) {
        Ok(bytes) if bytes.is_empty() => Err(Error::Truncated),
        Ok(bytes) if is_binary(&bytes) => Ok(bytes),
        _ => Err(other("text of another kind")),
    }
}

fn envelope(message: &[u8]) -> Result<EnvelopedData, Error> {
    let der = ber::to_der(message).map_err(|error| match error {
        BerError::CutOff => Error::Truncated,
        BerError::Malformed | BerError::OverLimits => Error::Malformed,
    })?;
    let info = ContentInfo::from_der(&der).map_err(|_| match Certificate::from_der(&der) {
        Ok(_) => other("a certificate"),
        Err(_) => Error::Malformed,
    })?;
    if info.content_type != ENVELOPED_DATA {
        return Err(other(&format!(
            "a message of another kind ({})",
            info.content_type
        )));
    }
    info.content.decode_as().map_err(|_| Error::Malformed)
}

/// The recipients whose part is encrypted as it can be opened.
fn recipients(envelope: &EnvelopedData) -> Result<Vec<&KeyTransRecipientInfo>, Error> {
    let all = envelope.recip_infos.0.as_slice();
    let ours: Vec<_> = all
        .iter()
        .filter_map(|recipient| match recipient {
            RecipientInfo::Ktri(ktri) if ktri.key_enc_alg.oid == RSA => Some(ktri),
            _ => None,
        })
        .collect();
    if !ours.is_empty() {
        return Ok(ours);
    }
    let oid = match all.first().ok_or(Error::Malformed)? {
        RecipientInfo::Ktri(ktri) => ktri.key_enc_alg.oid,
        RecipientInfo::Kari(kari) => kari.key_enc_alg.oid,
        RecipientInfo::Kekri(kekri) => kekri.key_enc_alg.oid,
        RecipientInfo::Pwri(pwri) => pwri.key_enc_alg.oid,
        RecipientInfo::Ori(ori) => ori.ori_type,
    };
    Err(Error::UnsupportedAlgorithm {
        what: "for its key",
        oid: oid.to_string(),
    })
}

/// Whether the identifier is that of the certificate.
fn names(identifier: &RecipientIdentifier, certificate: &Certificate) -> bool {
    let ours = certificate.tbs_certificate();
    match identifier {
        RecipientIdentifier::IssuerAndSerialNumber(theirs) => {
            theirs.serial_number == *ours.serial_number()
                && theirs.issuer.to_der().ok() == ours.issuer().to_der().ok()
        }
        RecipientIdentifier::SubjectKeyIdentifier(theirs) => {
            let ours = ours.get_extension::<SubjectKeyIdentifier>();
            matches!(ours, Ok(Some((_, ours))) if ours == *theirs)
        }
    }
}

/// The content and how it is encrypted.
struct Cipher<'a> {
    algorithm: &'static Algorithm,
    key_length: usize,
    iv: &'a [u8],
    content: &'a [u8],
}

impl<'a> Cipher<'a> {
    #[expect(
        deprecated,
        reason = "triple DES is what older programs that make such files use; it only opens here"
    )]
    fn of(envelope: &'a EnvelopedData) -> Result<Self, Error> {
        let encrypted = &envelope.encrypted_content;
        let (algorithm, key_length) = match encrypted.content_enc_alg.oid {
            AES_128_CBC => (&AES_128, 16),
            AES_192_CBC => (&AES_192, 24),
            AES_256_CBC => (&AES_256, 32),
            DES_EDE3_CBC => (&aws_lc_rs::cipher::DES_EDE3_FOR_LEGACY_USE_ONLY, 24),
            oid => {
                return Err(Error::UnsupportedAlgorithm {
                    what: "for its content",
                    oid: oid.to_string(),
                });
            }
        };
        let parameters = encrypted.content_enc_alg.parameters.as_ref();
        let iv = parameters
            .and_then(|iv| iv.decode_as::<&OctetStringRef>().ok())
            .map(OctetStringRef::as_bytes)
            .filter(|iv| iv.len() == algorithm.block_len())
            .ok_or(Error::Malformed)?;
        let content = encrypted
            .encrypted_content
            .as_ref()
            .ok_or(Error::Malformed)?
            .as_bytes();
        Ok(Self {
            algorithm,
            key_length,
            iv,
            content,
        })
    }

    /// The content, when it opens with this key and is a text.
    fn open(&self, key: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let context = match self.iv.len() {
            16 => DecryptionContext::Iv128(FixedLength::try_from(self.iv).ok()?),
            _ => DecryptionContext::Iv64(FixedLength::try_from(self.iv).ok()?),
        };
        let key = UnboundCipherKey::new(self.algorithm, key).ok()?;
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).ok()?;
        let mut content = Zeroizing::new(self.content.to_vec());
        let length = key.decrypt(&mut content, context).ok()?.len();
        content.truncate(length);
        let text = std::str::from_utf8(&content).ok()?;
        let is_text = |c: char| !c.is_control() || matches!(c, '\r' | '\n' | '\t');
        text.chars().all(is_text).then_some(content)
    }
}
