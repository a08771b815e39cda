//! AES-256-GCM as this crate uses it: key, nonce, associated data, bytes in place.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// Bytes in a nonce. Nonces are random: a key may seal 2^32 values before a repeat is likelier than 2^-32.
pub(crate) const NONCE_BYTES: usize = 12;
/// Bytes in the tag that follows the ciphertext.
pub(crate) const TAG_BYTES: usize = 16;

/// A key ready for use. aws-lc wipes its copy when this is dropped.
pub(crate) struct Key(LessSafeKey);

impl Key {
    pub(crate) fn new(bytes: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, bytes).expect("an AES-256 key has 32 bytes");
        Self(LessSafeKey::new(key))
    }

    /// Appends the ciphertext and tag of `plaintext` to `out`.
    pub(crate) fn seal_onto(
        &self,
        out: &mut Vec<u8>,
        nonce: [u8; NONCE_BYTES],
        associated_data: &[u8],
        plaintext: &[u8],
    ) {
        // Room for all of it at once: growing later would leave a copy of the plaintext behind in memory.
        out.reserve_exact(plaintext.len() + TAG_BYTES);
        let start = out.len();
        out.extend_from_slice(plaintext);
        let tag = self
            .0
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated_data),
                &mut out[start..],
            )
            .expect("AES-GCM refuses only plaintexts beyond 64 gigabytes");
        out.extend_from_slice(tag.as_ref());
    }

    /// The plaintext, or nothing when the tag does not belong to these bytes, nonce and associated data.
    pub(crate) fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated_data: &[u8],
        ciphertext_and_tag: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(ciphertext_and_tag.to_vec());
        let length = self
            .0
            .open_in_place(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated_data),
                bytes.as_mut_slice(),
            )
            .ok()?
            .len();
        bytes.truncate(length);
        Some(bytes)
    }
}
