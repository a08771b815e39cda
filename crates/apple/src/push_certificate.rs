//! The push certificate: what Apple knows an organisation by, and the client certificate of an unlock (contract sheet
//! 1.2).

use std::fmt::Write as _;
use std::sync::Arc;

use activation_lock::time::{DAY, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use zeroize::{Zeroize as _, Zeroizing};

use crate::transport::provider;

/// The object identifier of a subject's `UID`, where Apple puts the topic.
const UID: ObjectIdentifier = ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.1");

/// How long before its end a certificate is shown as expiring.
pub const WARNING: std::time::Duration = std::time::Duration::from_secs(60 * 24 * 60 * 60);

/// The largest file that is read, in bytes.
const LARGEST_FILE: usize = 1024 * 1024;

/// A push certificate with its chain and its private key, which fits.
///
/// The key leaves only through [`to_sealed_pem`](Self::to_sealed_pem). There is no Debug, so that it is not printed by
/// accident.
#[derive(Clone)]
pub struct PushCertificate {
    certified: Arc<CertifiedKey>,
    pem: Arc<Zeroizing<String>>,
    topic: String,
    subject: String,
    not_before: Timestamp,
    not_after: Timestamp,
    fingerprint: String,
}

/// How close a certificate is to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryLevel {
    /// More than 60 days left.
    Fine,
    /// At most 60 days left: renew it, with the same Apple Account, so that the topic stays.
    Expiring,
    /// Over. It stays readable, for it may be renewed, and an unlock with it is not even tried.
    Expired,
}

/// Why a push certificate could not be loaded. Nothing of the key is ever in it.
#[derive(Debug, thiserror::Error)]
pub enum PushCertificateError {
    /// The file is larger than any certificate.
    #[error("the file is larger than 1 MiB, which no certificate is; is it the right file?")]
    TooLarge,
    /// No certificate in the PEM.
    #[error(
        "there is no certificate in the file; it must be PEM with -----BEGIN CERTIFICATE-----, as the Apple Push Certificates Portal gives it"
    )]
    NoCertificate,
    /// The PEM itself is damaged.
    #[error("the PEM is damaged; copy the file again, whole and as text")]
    DamagedPem,
    /// A certificate that is not X.509.
    #[error(
        "the certificate cannot be read ({0}); download it again from the Apple Push Certificates Portal"
    )]
    DamagedCertificate(String),
    /// No private key in either file.
    #[error(
        "there is no private key in the file; give the key that the certificate request was made with, in the same file or as a second one"
    )]
    NoKey,
    /// The private key is protected by a password.
    #[error(
        "the private key is encrypted with a password; decrypt it first (openssl pkey -in KEY.pem -out PLAIN.pem), or give both as PKCS#12 with its password. It is kept sealed here"
    )]
    EncryptedKey,
    /// The key is none that TLS can use.
    #[error(
        "the private key cannot be used ({0}); it must be RSA with at least 2048 bits, or ECDSA"
    )]
    UnusableKey(String),
    /// The key is of another certificate.
    #[error(
        "the private key belongs to another certificate; give the key that this certificate was requested with (after a renewal the key is often a new one)"
    )]
    OtherKey,
    /// Not a push certificate.
    #[error(
        "this is not an MDM push certificate: its subject ({subject}) has no UID, where Apple puts the topic (com.apple.mgmt...)"
    )]
    NotAPushCertificate {
        /// The subject that was found.
        subject: String,
    },
    /// Several push certificates with keys in one file.
    #[error("the file holds several push certificates with their keys; give one of them alone")]
    Several,
    /// The PKCS#12 password is wrong.
    #[error("the password of the PKCS#12 file is wrong, or was not given")]
    WrongPassword,
    /// A lone certificate in binary form, where its key or PKCS#12 was expected.
    #[error(
        "the file is a certificate in binary form (DER), which holds no key; turn it into PEM (openssl x509 -inform der -in FILE -out FILE.pem) and give its key as a second file"
    )]
    BinaryCertificate,
    /// The PKCS#12 cannot be read.
    #[error(
        "the PKCS#12 file cannot be read ({0}); if the password is right, turn it into PEM instead: openssl pkcs12 -legacy -nodes -in FILE.p12 -out FILE.pem"
    )]
    DamagedPkcs12(String),
}

type Error = PushCertificateError;

impl PushCertificate {
    /// Loads a certificate from files as people have them: PEM with certificate, chain and key in one or two files (PKCS#8,
    /// PKCS#1 or SEC1), or PKCS#12 with its password. Which one it is shows in the bytes. An expired one loads; see
    /// [`expiry_level`](Self::expiry_level).
    ///
    /// # Errors
    /// Says what is wrong and what to do about it.
    pub fn load(file: &[u8], key: Option<&[u8]>, password: Option<&str>) -> Result<Self, Error> {
        let is_pem = file.windows(11).any(|bytes| bytes == b"-----BEGIN ");
        if is_pem || file.first() != Some(&0x30) {
            Self::from_pem(file, key)
        } else {
            Self::from_pkcs12(file, password.unwrap_or_default())
        }
    }

    /// Loads PEM: certificate and chain in `file`, the key there or in `key`.
    ///
    /// # Errors
    /// See [`load`](Self::load).
    pub fn from_pem(file: &[u8], key: Option<&[u8]>) -> Result<Self, Error> {
        let mut certificates = Vec::new();
        let mut keys = Keys::default();
        let mut encrypted = false;
        for pem in [Some(file), key].into_iter().flatten() {
            if pem.len() > LARGEST_FILE {
                return Err(Error::TooLarge);
            }
            // Both kinds of encryption, RFC 5958's and the old one with a header.
            encrypted |= contains(pem, b"BEGIN ENCRYPTED PRIVATE KEY")
                || contains(pem, b"Proc-Type: 4,ENCRYPTED");
            for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
                let (kind, bytes) = match section {
                    Ok(section) => section,
                    Err(_) if encrypted => return Err(Error::EncryptedKey),
                    Err(_) => return Err(Error::DamagedPem),
                };
                match kind {
                    SectionKind::Certificate => certificates.push(CertificateDer::from(bytes)),
                    SectionKind::PrivateKey => keys.0.push(PrivateKeyDer::Pkcs8(bytes.into())),
                    SectionKind::RsaPrivateKey => keys.0.push(PrivateKeyDer::Pkcs1(bytes.into())),
                    SectionKind::EcPrivateKey => keys.0.push(PrivateKeyDer::Sec1(bytes.into())),
                    _ => {}
                }
            }
        }
        if certificates.is_empty() {
            return Err(Error::NoCertificate);
        }
        if keys.0.is_empty() && encrypted {
            return Err(Error::EncryptedKey);
        }
        Self::of(certificates, &keys)
    }

    /// Loads PKCS#12, in the old forms that Keychain exports and in the new ones.
    ///
    /// # Errors
    /// See [`load`](Self::load).
    pub fn from_pkcs12(file: &[u8], password: &str) -> Result<Self, Error> {
        if file.len() > LARGEST_FILE {
            return Err(Error::TooLarge);
        }
        let archive = p12_keystore::Pkcs12Archive::from_pkcs12(file, password).map_err(
            |error| match error {
                p12_keystore::error::Error::MacError(_) => Error::WrongPassword,
                _ if Certificate::from_der(file).is_ok() => Error::BinaryCertificate,
                other => Error::DamagedPkcs12(other.to_string()),
            },
        )?;
        let certificates = archive
            .certs
            .iter()
            .map(|bag| CertificateDer::from(bag.cert.as_der().to_vec()))
            .collect::<Vec<_>>();
        let mut keys = Keys::default();
        for bag in &archive.keys {
            keys.0
                .push(PrivateKeyDer::Pkcs8(bag.key.as_der().to_vec().into()));
        }
        if certificates.is_empty() {
            return Err(Error::NoCertificate);
        }
        Self::of(certificates, &keys)
    }

    /// Opens what [`to_sealed_pem`](Self::to_sealed_pem) gave.
    ///
    /// # Errors
    /// Only when the text was changed since.
    pub fn from_sealed_pem(pem: &str) -> Result<Self, Error> {
        Self::from_pem(pem.as_bytes(), None)
    }

    /// Finds the one push certificate whose key is there.
    fn of(certificates: Vec<CertificateDer<'static>>, keys: &Keys) -> Result<Self, Error> {
        if keys.0.is_empty() {
            return Err(Error::NoKey);
        }
        let mut found: Option<Self> = None;
        let mut problem = Error::OtherKey;
        for key in &keys.0 {
            for leaf in &certificates {
                let certified = match CertifiedKey::from_der(
                    vec![leaf.clone()],
                    key.clone_key(),
                    &provider(),
                ) {
                    Ok(certified) => certified,
                    Err(rustls::Error::InconsistentKeys(_)) => continue,
                    Err(rustls::Error::InvalidCertificate(why)) => {
                        problem = Error::DamagedCertificate(format!("{why:?}"));
                        continue;
                    }
                    Err(error) => {
                        problem = Error::UnusableKey(error.to_string());
                        continue;
                    }
                };
                let chain = chain(leaf, &certificates);
                match Self::pair(certified.key, chain, key) {
                    Ok(pair)
                        if found
                            .as_ref()
                            .is_some_and(|f| f.fingerprint == pair.fingerprint) => {}
                    Ok(_) if found.is_some() => return Err(Error::Several),
                    Ok(pair) => found = Some(pair),
                    Err(error) => problem = error,
                }
            }
        }
        found.ok_or(problem)
    }

    fn pair(
        signer: Arc<dyn rustls::sign::SigningKey>,
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<Self, Error> {
        let leaf = &chain[0];
        let parsed = Certificate::from_der(leaf)
            .map_err(|error| Error::DamagedCertificate(error.to_string()))?;
        let subject = parsed.tbs_certificate().subject();
        let Some(topic) = topic(&parsed) else {
            return Err(Error::NotAPushCertificate {
                subject: subject.to_string(),
            });
        };
        let validity = parsed.tbs_certificate().validity();
        Ok(Self {
            topic,
            subject: subject.to_string(),
            not_before: moment(&validity.not_before),
            not_after: moment(&validity.not_after),
            fingerprint: data_encoding::HEXLOWER
                .encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf).as_ref()),
            pem: Arc::new(sealed_pem(&chain, key)),
            certified: Arc::new(CertifiedKey::new(chain, signer)),
        })
    }

    /// The topic: the subject's UID, `com.apple.mgmt.External.<uuid>`.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The subject, for people, as RFC 4514 writes it.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// From when on it is valid.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Until when it is valid.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// SHA-256 of the certificate's DER form, in lower-case hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whole days until it ends; negative once it is over.
    #[must_use]
    pub fn days_left(&self, now: Timestamp) -> i64 {
        let day = i64::try_from(DAY.as_millis()).unwrap_or(i64::MAX);
        self.not_after.0.saturating_sub(now.0).div_euclid(day)
    }

    /// How close it is to its end.
    #[must_use]
    pub fn expiry_level(&self, now: Timestamp) -> ExpiryLevel {
        if now > self.not_after {
            ExpiryLevel::Expired
        } else if now >= self.not_after.minus(WARNING) {
            ExpiryLevel::Expiring
        } else {
            ExpiryLevel::Fine
        }
    }

    /// Certificate, chain and private key as one PEM text, wiped when dropped: what is sealed and stored. The key is in it
    /// as it was given (PKCS#8, PKCS#1 or SEC1).
    #[must_use]
    pub fn to_sealed_pem(&self) -> Zeroizing<String> {
        Zeroizing::clone(&self.pem)
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

/// Private keys, wiped when dropped.
#[derive(Default)]
struct Keys(Vec<PrivateKeyDer<'static>>);

impl Drop for Keys {
    fn drop(&mut self) {
        for key in &mut self.0 {
            key.zeroize();
        }
    }
}

/// The leaf, then those of the others that lead up from it; certificates that do not belong are left out.
fn chain(
    leaf: &CertificateDer<'static>,
    others: &[CertificateDer<'static>],
) -> Vec<CertificateDer<'static>> {
    let parsed = others
        .iter()
        .filter_map(|der| Some((der, Certificate::from_der(der).ok()?)))
        .collect::<Vec<_>>();
    let mut chain = vec![leaf.clone()];
    while let Some((_, last)) = parsed.iter().find(|(der, _)| Some(*der) == chain.last()) {
        let issuer = parsed.iter().find(|(der, candidate)| {
            candidate.tbs_certificate().subject() == last.tbs_certificate().issuer()
                && !chain.contains(der)
        });
        match issuer {
            Some((der, _)) => chain.push((*der).clone()),
            None => break,
        }
    }
    chain
}

fn topic(certificate: &Certificate) -> Option<String> {
    let uid = certificate
        .tbs_certificate()
        .subject()
        .iter()
        .find(|attribute| attribute.oid == UID)?;
    // Apple writes a UTF8String; the other string types hold ASCII in the same bytes.
    let text = std::str::from_utf8(uid.value.value()).ok()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn moment(time: &x509_cert::time::Time) -> Timestamp {
    let millis = time.to_unix_duration().as_millis();
    Timestamp(i64::try_from(millis).unwrap_or(i64::MAX))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

fn sealed_pem(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Zeroizing<String> {
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    let bytes = chain.iter().map(|der| der.len()).sum::<usize>() + key.secret_der().len();
    // Room for all of it at once, so that no smaller copy is left behind in memory.
    let mut pem = Zeroizing::new(String::with_capacity(
        bytes * 3 / 2 + 128 * (chain.len() + 1),
    ));
    for der in chain {
        add_section(&mut pem, "CERTIFICATE", der);
    }
    add_section(&mut pem, label, key.secret_der());
    pem
}

/// Adds one section of PEM.
pub(crate) fn add_section(pem: &mut String, label: &str, der: &[u8]) {
    let lines = "a String takes any text";
    writeln!(pem, "-----BEGIN {label}-----").expect(lines);
    for line in der.chunks(48) {
        let line = Zeroizing::new(STANDARD.encode(line));
        writeln!(pem, "{}", *line).expect(lines);
    }
    writeln!(pem, "-----END {label}-----").expect(lines);
}
