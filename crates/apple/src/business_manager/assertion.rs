//! The client assertion: how an API account proves that it holds its private key (contract sheet 4.7).
//!
//! It is a JWT signed with ES256, and as good as the key until it ends. Apple allows 180 days; here one lives for minutes and
//! is made anew for each access token, so that one that leaks is soon worth nothing.

use std::sync::Arc;
use std::time::Duration;

use activation_lock::time::Timestamp;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P256K1_SHA256_ASN1_SIGNING,
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    RsaKeyPair,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::push_certificate::add_section;

/// How long an assertion is good for, from the moment it is made: long enough for clocks that differ and for a slow call.
pub const LIFE: Duration = Duration::from_secs(20 * 60);
/// So much before the moment it is made an assertion says it was made, so that a clock behind ours does not find it to be of
/// the future.
pub const BACKDATED: Duration = Duration::from_secs(60);

/// The largest key file that is read, in bytes.
const LARGEST_FILE: usize = 64 * 1024;

/// The private key of an API account: ECDSA on the curve P-256. Wiped when dropped; a clone shares it.
///
/// It leaves only through [`to_sealed_pem`](Self::to_sealed_pem). There is no Debug, so that it is not printed by accident.
#[derive(Clone)]
pub struct SigningKey(Arc<EncodingKey>);

/// Why a file is not the private key of an API account. Nothing of the key is ever in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// The file is larger than any key.
    #[error("the key file is larger than 64 KiB, which no private key is; is it the right file?")]
    TooLarge,
    /// The PEM itself is damaged.
    #[error("the PEM of the private key is damaged; copy the file again, whole and as text")]
    DamagedPem,
    /// No private key in it.
    #[error(
        "there is no private key in the file; it must be the PEM file that was downloaded once when the API account's key was made, with -----BEGIN PRIVATE KEY----- or -----BEGIN EC PRIVATE KEY-----"
    )]
    NoKey,
    /// More than one.
    #[error("there are several private keys in the file; give the one of this API account alone")]
    Several,
    /// It is protected by a password.
    #[error(
        "the private key is encrypted with a password; decrypt it first (openssl pkey -in KEY.pem -out PLAIN.pem). It is kept sealed here"
    )]
    Encrypted,
    /// A key of another kind than API accounts have.
    #[error(
        "the private key is {0}, and API accounts have ECDSA keys on the curve P-256 alone; give the file that was downloaded when the API account's key was made"
    )]
    OtherKind(&'static str),
    /// It cannot be read as a key.
    #[error(
        "the private key cannot be read: it is damaged, or of a kind that is not known here; API accounts have ECDSA keys on the curve P-256"
    )]
    Damaged,
}

impl SigningKey {
    /// Reads the one private key of a PEM file, PKCS#8 or SEC1. What else stands in the file, such as the curve's parameters
    /// that OpenSSL writes in front, is passed over.
    ///
    /// # Errors
    /// Says what the file holds instead, and what to do about it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, SigningKeyError> {
        if pem.len() > LARGEST_FILE {
            return Err(SigningKeyError::TooLarge);
        }
        // Both kinds of encryption, RFC 5958's and the old one with a header, which is no base64.
        let holds = |text: &[u8]| pem.windows(text.len()).any(|window| window == text);
        if holds(b"BEGIN ENCRYPTED PRIVATE KEY") || holds(b"Proc-Type: 4,ENCRYPTED") {
            return Err(SigningKeyError::Encrypted);
        }
        let mut found = None;
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = section.map_err(|_| SigningKeyError::DamagedPem)?;
            let der = Zeroizing::new(der);
            let is_private = matches!(
                kind,
                SectionKind::PrivateKey | SectionKind::EcPrivateKey | SectionKind::RsaPrivateKey
            );
            if is_private && found.replace(der).is_some() {
                return Err(SigningKeyError::Several);
            }
        }
        Self::from_der(&found.ok_or(SigningKeyError::NoKey)?)
    }

    /// What the key is shows in its bytes: labels are sometimes wrong.
    fn from_der(der: &[u8]) -> Result<Self, SigningKeyError> {
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map_err(|_| match kind(der) {
                Some(kind) => SigningKeyError::OtherKind(kind),
                None => SigningKeyError::Damaged,
            })?;
        let der = pair.to_pkcs8v1().map_err(|_| SigningKeyError::Damaged)?;
        Ok(Self(Arc::new(EncodingKey::from_ec_der(der.as_ref()))))
    }

    /// The key as PEM (PKCS#8), wiped when dropped: what is sealed and stored.
    #[must_use]
    pub fn to_sealed_pem(&self) -> Zeroizing<String> {
        let der = self.0.inner();
        // Room for all of it at once, so that no smaller copy is left behind in memory.
        let mut pem = Zeroizing::new(String::with_capacity(der.len() * 3 / 2 + 128));
        add_section(&mut pem, "PRIVATE KEY", der);
        pem
    }
}

/// What kind of key it is, where it is not the right one.
fn kind(der: &[u8]) -> Option<&'static str> {
    let curves = [
        (&ECDSA_P384_SHA384_ASN1_SIGNING, "ECDSA on the curve P-384"),
        (&ECDSA_P521_SHA512_ASN1_SIGNING, "ECDSA on the curve P-521"),
        (
            &ECDSA_P256K1_SHA256_ASN1_SIGNING,
            "ECDSA on the curve secp256k1",
        ),
    ];
    let on = |algorithm| EcdsaKeyPair::from_private_key_der(algorithm, der).is_ok();
    if let Some((_, name)) = curves.iter().find(|(algorithm, _)| on(algorithm)) {
        Some(name)
    } else if RsaKeyPair::from_pkcs8(der).is_ok() || RsaKeyPair::from_der(der).is_ok() {
        Some("RSA")
    } else if Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).is_ok() {
        Some("Ed25519")
    } else {
        None
    }
}

/// A signed assertion, which whoever has it may use until it ends. Wiped when dropped, and without Debug.
pub struct ClientAssertion(Zeroizing<String>);

impl ClientAssertion {
    /// The JWT, for the body of a request.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The whole and its parts: what a text that repeats it is searched for.
    pub(crate) fn secrets(&self) -> Vec<&str> {
        std::iter::once(self.text())
            .chain(self.text().split('.'))
            .collect()
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    /// Seconds since 1970.
    iat: i64,
    exp: i64,
    jti: String,
}

/// Signs an assertion for `audience`, made at `now`. `identifier` is what makes it unique: 16 bytes that were never used
/// before, written as a UUID.
pub(crate) fn sign(
    client_id: &str,
    key_id: &str,
    key: &SigningKey,
    audience: &str,
    now: Timestamp,
    identifier: [u8; 16],
) -> ClientAssertion {
    let seconds = |moment: Timestamp| moment.0.div_euclid(1000);
    let claims = Claims {
        iss: client_id,
        sub: client_id,
        aud: audience,
        iat: seconds(now.minus(BACKDATED)),
        exp: seconds(now.plus(LIFE)),
        jti: uuid::Builder::from_random_bytes(identifier)
            .into_uuid()
            .to_string(),
    };
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(key_id.to_owned());
    let signed = jsonwebtoken::encode(&header, &claims, &key.0).expect(
        "texts and numbers become JSON, and the key was found to be of P-256 when it was read",
    );
    ClientAssertion(Zeroizing::new(signed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redaction;

    #[test]
    fn r23_a_text_that_repeats_a_part_of_an_assertion_is_searched_for_it() {
        let pem = include_bytes!("../../tests/data/business-manager/p256-pkcs8.pem");
        let key = SigningKey::from_pem(pem).unwrap_or_else(|error| panic!("{error}"));
        let made = sign("BUSINESSAPI.1", "1", &key, "any", Timestamp(0), [0; 16]);
        let parts: Vec<&str> = made.text().split('.').collect();
        let said = format!("{} and {} and {}", parts[2], parts[0], parts[1]);
        let kept = redaction::diagnostic(said.as_bytes(), false, &made.secrets());
        assert_eq!(kept, "[code] and [code] and [code]");
    }
}
