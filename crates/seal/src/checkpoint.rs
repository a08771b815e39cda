//! Signatures of checkpoints of the audit record: who has only the public half can check one, and make none.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use data_encoding::HEXLOWER;

use crate::KeyId;
use crate::armour::{self, CHECKPOINT_PUBLIC, KeyTextError};

/// Bytes in an Ed25519 signature.
const SIGNATURE_BYTES: usize = 64;

/// The pair that a data key is the seed of. aws-lc wipes it; no `Debug`, `Display` or `Clone`.
pub(crate) struct CheckpointKey {
    pair: Ed25519KeyPair,
    public: CheckpointPublicKey,
}

impl CheckpointKey {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are an Ed25519 seed");
        let public = pair.public_key().as_ref().try_into();
        let public = public.expect("an Ed25519 public key has 32 bytes");
        Self {
            pair,
            public: CheckpointPublicKey::from_bytes(public),
        }
    }

    pub(crate) fn public(&self) -> &CheckpointPublicKey {
        &self.public
    }

    pub(crate) fn sign(&self, text: &str) -> String {
        HEXLOWER.encode(self.pair.sign(text.as_bytes()).as_ref())
    }
}

/// The half that checks signatures of checkpoints (Ed25519, RFC 8032), and makes none. Not a secret: give it to whoever
/// keeps checkpoints outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointPublicKey {
    id: KeyId,
    bytes: [u8; 32],
}

impl CheckpointPublicKey {
    fn from_bytes(bytes: [u8; 32]) -> Self {
        Self {
            id: KeyId::of(CHECKPOINT_PUBLIC.label, &bytes),
            bytes,
        }
    }

    /// Reads the line `lockwarden-checkpoint-public-1:<id>:<key in base64url>`; blank lines and lines starting with `#` are
    /// skipped.
    ///
    /// # Errors
    /// See [`KeyTextError`].
    pub fn parse(text: &str) -> Result<Self, KeyTextError> {
        armour::read(CHECKPOINT_PUBLIC, text).map(|bytes| Self::from_bytes(*bytes))
    }

    /// The line that [`parse`](Self::parse) reads.
    pub fn to_text(&self) -> String {
        armour::write(CHECKPOINT_PUBLIC, self.id, &self.bytes).to_string()
    }

    /// Its id, which every checkpoint names that it signed.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The 32 bytes of RFC 8032.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Whether `signature`, 128 lower-case hexadecimal digits, was made for exactly `text` with the other half.
    pub fn verifies(&self, text: &str, signature: &str) -> bool {
        let mut bytes = [0; SIGNATURE_BYTES];
        signature.len() == 2 * SIGNATURE_BYTES
            && HEXLOWER
                .decode_mut(signature.as_bytes(), &mut bytes)
                .is_ok()
            && UnparsedPublicKey::new(&ED25519, &self.bytes)
                .verify(text.as_bytes(), &bytes)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 2.
    #[test]
    fn it_is_ed25519_as_in_its_rfc() {
        let hex = |text: &str| HEXLOWER.decode(text.as_bytes()).unwrap();
        let seed = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let key = CheckpointKey::new(seed.as_slice().try_into().unwrap());
        assert_eq!(
            HEXLOWER.encode(key.public().as_bytes()),
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        );
        let signature = concat!(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert_eq!(key.sign("r"), signature);
        assert!(key.public().verifies("r", signature));
    }
}
