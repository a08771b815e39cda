//! The key that server tokens are encrypted for: an RSA key of ours, and the certificate of it that a person uploads to the
//! portal (contract sheet 2.40).

use std::sync::Arc;

use activation_lock::time::Timestamp;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rsa::{KeyPair, KeySize, Pkcs1PrivateDecryptingKey, PrivateDecryptingKey};
use rcgen::{CertificateParams, DnType, IsCa};
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};
use zeroize::Zeroizing;

use crate::push_certificate::add_section;
use crate::unverified::TOKEN_CERTIFICATE_YEARS;

/// The largest file that is read, in bytes.
const LARGEST_FILE: usize = 1024 * 1024;
/// The name in the certificate, which the portal shows.
const COMMON_NAME: &str = "Lockwarden";
/// How long before it is made a certificate begins to be valid, for clocks that go after ours.
const BEFORE: i64 = 60 * 60;
const YEAR: i64 = 365 * 24 * 60 * 60;

/// The private key that opens server token files and, where it is known, the certificate that they are made for.
///
/// The key leaves only through [`private_key_pem`](Self::private_key_pem). There is no Debug, so that it is not printed by
/// accident. A clone shares it.
#[derive(Clone)]
pub struct TokenKey {
    inner: Arc<Inner>,
}

struct Inner {
    key: Pkcs1PrivateDecryptingKey,
    pem: Zeroizing<String>,
    /// Makes up what a text that was not encrypted for us decrypts to.
    pretence: hmac::Key,
    certificate: Option<Known>,
}

struct Known {
    pem: String,
    certificate: Certificate,
}

/// Why a key could not be loaded or made. Nothing of the key is ever in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenKeyError {
    /// The file is larger than any key.
    #[error("the file is larger than 1 MiB, which no key is; is it the right file?")]
    TooLarge,
    /// The PEM itself is damaged.
    #[error("the PEM is damaged; copy the file again, whole and as text")]
    DamagedPem,
    /// No private key.
    #[error(
        "there is no private key in the file; give the key whose certificate was uploaded to the portal, as PEM with -----BEGIN PRIVATE KEY----- or -----BEGIN RSA PRIVATE KEY-----"
    )]
    NoKey,
    /// Protected by a password.
    #[error(
        "the private key is encrypted with a password; decrypt it first (openssl pkey -in KEY.pem -out PLAIN.pem)"
    )]
    EncryptedKey,
    /// Not RSA, too short, or damaged.
    #[error(
        "the private key cannot be used: server tokens are encrypted for RSA keys, of at least 2048 bits here"
    )]
    UnusableKey,
    /// No certificate where one was given.
    #[error(
        "there is no certificate in the file; it must be PEM with -----BEGIN CERTIFICATE-----, the one that was uploaded to the portal"
    )]
    NoCertificate,
    /// A certificate that is not X.509.
    #[error("the certificate cannot be read; give the one that was uploaded to the portal")]
    DamagedCertificate,
    /// The certificate is of another key.
    #[error(
        "the certificate belongs to another private key; give the two that were made together, or the key alone"
    )]
    OtherCertificate,
    /// The cryptographic library made none.
    #[error("a key could not be made ({0})")]
    NotMade(String),
}

type Error = TokenKeyError;

impl TokenKey {
    /// A new RSA key of 2048 bits with a certificate of it, signed by itself, that is valid from an hour before `now` for ten
    /// years. Takes a moment of computing, up to a second.
    ///
    /// The randomness is the cryptographic library's own.
    ///
    /// # Errors
    /// When the library makes none, which is not to be expected.
    pub fn generate(now: Timestamp) -> Result<Self, Error> {
        let failed = |what: &str| Error::NotMade(what.to_owned());
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048)
            .map_err(|_| failed("the RSA key was not generated"))?;
        let certificate = self_signed(&key, now).map_err(Error::NotMade)?;
        Self::of(key, Some(&certificate))
    }

    /// Reads a private key from PEM (PKCS#8 or PKCS#1), and the certificate from its own PEM or from the same one. Without a
    /// certificate every token file is tried, and one for another key cannot be told from a damaged one.
    ///
    /// # Errors
    /// Says what is wrong and what to do about it.
    pub fn from_pem(private_key: &[u8], certificate: Option<&[u8]>) -> Result<Self, Error> {
        let (key, beside) = read_key(private_key)?;
        let certificate = match certificate {
            None => beside,
            Some(pem) => Some(read_certificate(pem)?.ok_or(Error::NoCertificate)?),
        };
        Self::of(key, certificate.as_deref())
    }

    fn of(key: PrivateDecryptingKey, certificate: Option<&[u8]>) -> Result<Self, Error> {
        let pkcs8 = AsDer::<Pkcs8V1Der<'static>>::as_der(&key).map_err(|_| Error::UnusableKey)?;
        let known = match certificate {
            None => None,
            Some(der) => {
                let certificate =
                    Certificate::from_der(der).map_err(|_| Error::DamagedCertificate)?;
                if !fits(&certificate, &key) {
                    return Err(Error::OtherCertificate);
                }
                let pem = pem("CERTIFICATE", der).to_string();
                Some(Known { pem, certificate })
            }
        };
        Ok(Self {
            inner: Arc::new(Inner {
                pem: pem("PRIVATE KEY", pkcs8.as_ref()),
                pretence: hmac::Key::new(hmac::HMAC_SHA256, pkcs8.as_ref()),
                key: Pkcs1PrivateDecryptingKey::new(key).map_err(|_| Error::UnusableKey)?,
                certificate: known,
            }),
        })
    }

    /// The certificate, for the portal. `None` when the key was given alone.
    #[must_use]
    pub fn certificate_pem(&self) -> Option<&str> {
        let known = self.inner.certificate.as_ref()?;
        Some(&known.pem)
    }

    /// The private key as PKCS#8, wiped when dropped: what is sealed and stored.
    #[must_use]
    pub fn private_key_pem(&self) -> Zeroizing<String> {
        Zeroizing::clone(&self.inner.pem)
    }

    pub(super) fn certificate(&self) -> Option<&Certificate> {
        let known = self.inner.certificate.as_ref()?;
        Some(&known.certificate)
    }

    /// What `encrypted` holds for this key, as a key of `length` bytes (at most 32).
    ///
    /// A text that does not decrypt to so many bytes gives bytes all the same, always the same ones for it: whoever sends
    /// texts and hears what became of them must not learn which of them decrypt (as RFC 5246, 7.4.7.1, has it for TLS).
    pub(super) fn content_key(&self, encrypted: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
        let key = &self.inner.key;
        let made_up = hmac::sign(&self.inner.pretence, encrypted);
        let mut output = Zeroizing::new(vec![0; key.min_output_size()]);
        match key.decrypt(encrypted, &mut output) {
            Ok(found) if found.len() == length => Zeroizing::new(found.to_vec()),
            _ => Zeroizing::new(made_up.as_ref()[..length].to_vec()),
        }
    }
}

/// The private key of a PEM text, and the certificate that stands beside it.
fn read_key(pem: &[u8]) -> Result<(PrivateDecryptingKey, Option<Vec<u8>>), Error> {
    if pem.len() > LARGEST_FILE {
        return Err(Error::TooLarge);
    }
    let text = String::from_utf8_lossy(pem);
    // Both kinds of encryption, RFC 5958's and the old one with a header.
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(Error::EncryptedKey);
    }
    let mut key = None;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (kind, bytes) = section.map_err(|_| Error::DamagedPem)?;
        let bytes = Zeroizing::new(bytes);
        let read = match kind {
            SectionKind::PrivateKey => PrivateDecryptingKey::from_pkcs8(&bytes),
            SectionKind::RsaPrivateKey => KeyPair::from_der(&bytes).and_then(|pair| {
                let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair)?;
                PrivateDecryptingKey::from_pkcs8(pkcs8.as_ref())
            }),
            SectionKind::EcPrivateKey => return Err(Error::UnusableKey),
            _ => continue,
        };
        key.get_or_insert(read.map_err(|_| Error::UnusableKey)?);
    }
    Ok((key.ok_or(Error::NoKey)?, read_certificate(pem)?))
}

/// The first certificate of a PEM text.
fn read_certificate(pem: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    if pem.len() > LARGEST_FILE {
        return Err(Error::TooLarge);
    }
    match CertificateDer::pem_slice_iter(pem).next() {
        None => Ok(None),
        Some(Ok(der)) => Ok(Some(der.to_vec())),
        Some(Err(_)) => Err(Error::DamagedPem),
    }
}

/// Whether the certificate is of this key.
fn fits(certificate: &Certificate, key: &PrivateDecryptingKey) -> bool {
    let theirs = certificate.tbs_certificate().subject_public_key_info();
    let ours = AsDer::<PublicKeyX509Der<'_>>::as_der(&key.public_key());
    match (theirs.to_der(), ours) {
        (Ok(theirs), Ok(ours)) => theirs == ours.as_ref(),
        _ => false,
    }
}

/// In DER. Without key usages, as the certificates are that Apple's instructions make with OpenSSL.
fn self_signed(key: &PrivateDecryptingKey, now: Timestamp) -> Result<Vec<u8>, String> {
    let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(key).map_err(|error| error.to_string())?;
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(
        &PrivatePkcs8KeyDer::from(pkcs8.as_ref()),
        &rcgen::PKCS_RSA_SHA256,
    )
    .map_err(|error| error.to_string())?;
    let begin = now.0.div_euclid(1000).saturating_sub(BEFORE);
    let moment = |seconds| {
        OffsetDateTime::from_unix_timestamp(seconds)
            .map_err(|_| "no certificate begins at that time".to_owned())
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, COMMON_NAME);
    params.not_before = moment(begin)?;
    params.not_after = moment(begin.saturating_add(TOKEN_CERTIFICATE_YEARS * YEAR))?;
    // So the certificate tells the identifier of its key, by which a file may name it.
    params.is_ca = IsCa::ExplicitNoCa;
    let certificate = params
        .self_signed(&pair)
        .map_err(|error| error.to_string())?;
    Ok(certificate.der().to_vec())
}

fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    // Room for all of it at once, so that no smaller copy is left behind in memory.
    let mut pem = Zeroizing::new(String::with_capacity(der.len() * 3 / 2 + 128));
    add_section(&mut pem, label, der);
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_790_000_000_000);

    fn refused(result: Result<TokenKey, TokenKeyError>) -> TokenKeyError {
        result.err().expect("a key that must not load")
    }

    #[test]
    fn a_new_key_has_a_certificate_for_ten_years_and_reads_back() {
        let key = TokenKey::generate(NOW).unwrap();
        let certificate = key.certificate().unwrap();
        let tbs = certificate.tbs_certificate();
        assert_eq!(tbs.subject().to_string(), "CN=Lockwarden");
        assert_eq!(tbs.subject(), tbs.issuer());
        let (from, until) = (tbs.validity().not_before, tbs.validity().not_after);
        let now = NOW.0.unsigned_abs() / 1000;
        assert_eq!(from.to_unix_duration().as_secs(), now - 3600);
        let years = until.to_unix_duration() - from.to_unix_duration();
        assert_eq!(years.as_secs() / (365 * 24 * 60 * 60), 10);

        let pem = key.certificate_pem().unwrap().as_bytes();
        let again = TokenKey::from_pem(key.private_key_pem().as_bytes(), Some(pem)).unwrap();
        assert!(again.private_key_pem() == key.private_key_pem());
        assert_eq!(again.certificate_pem(), key.certificate_pem());
        let alone = TokenKey::from_pem(key.private_key_pem().as_bytes(), None).unwrap();
        assert_eq!(alone.certificate_pem(), None);
        // As one file.
        let both = [key.private_key_pem().as_bytes(), pem].concat();
        let both = TokenKey::from_pem(&both, None).unwrap();
        assert_eq!(both.certificate_pem(), key.certificate_pem());
    }

    #[test]
    fn a_certificate_of_another_key_is_refused() {
        let (one, other) = (
            TokenKey::generate(NOW).unwrap(),
            TokenKey::generate(NOW).unwrap(),
        );
        let pem = other.certificate_pem().unwrap().as_bytes();
        let mixed = TokenKey::from_pem(one.private_key_pem().as_bytes(), Some(pem));
        assert_eq!(refused(mixed), TokenKeyError::OtherCertificate);
    }

    #[test]
    fn what_is_no_key_says_what_it_is() {
        let read = |pem: &[u8]| refused(TokenKey::from_pem(pem, None));
        assert_eq!(read(b""), TokenKeyError::NoKey);
        assert_eq!(read(b"{}"), TokenKeyError::NoKey);
        assert_eq!(
            read(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n"),
            TokenKeyError::EncryptedKey
        );
        let empty = b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
        assert_eq!(read(empty), TokenKeyError::UnusableKey);
        assert_eq!(read(&vec![b' '; LARGEST_FILE + 1]), TokenKeyError::TooLarge);
    }

    #[test]
    fn a_text_that_is_not_for_us_decrypts_to_the_same_bytes_each_time() {
        let key = TokenKey::generate(NOW).unwrap();
        let made_up = key.content_key(&[7; 256], 16);
        assert_eq!(made_up.len(), 16);
        assert!(made_up == key.content_key(&[7; 256], 16));
        assert!(made_up != key.content_key(&[8; 256], 16));
        assert_eq!(key.content_key(b"", 32).len(), 32);
        let other = TokenKey::generate(NOW).unwrap();
        assert!(made_up != other.content_key(&[7; 256], 16));
    }
}
