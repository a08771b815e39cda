//! The recovery key: the second recipient of every data key, whose private half is kept on paper or offline (R25).

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

use crate::armour::{self, KeyTextError, RECOVERY, RECOVERY_PUBLIC};
use crate::data_key::{WRAPPING_VERSION, unwrapped, wrapping_body, wrapping_context};
use crate::gcm::{self, NONCE_BYTES};
use crate::{
    DataKey, KeyId, Purpose, Random, Recipient, RecipientKind, UnwrapError, Wrapping, random_bytes,
};

/// The private half: 32 bytes of X25519. `init` prints it once; it never stays on the server.
///
/// A wrapping is made as ECIES: a fresh X25519 pair agrees with the recipient's public key; HKDF-SHA256 over the shared
/// secret, with both public keys and what is wrapped in its info, gives an AES-256-GCM key that is used once, with a
/// nonce from the same derivation.
///
/// Wiped when dropped; no `Debug`, `Display` or `Serialize`.
pub struct RecoveryKey {
    bytes: Zeroizing<[u8; 32]>,
    public: RecoveryPublicKey,
}

/// The public half: it wraps, and opens nothing. Not a secret; stored with the database's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryPublicKey {
    id: KeyId,
    bytes: [u8; 32],
}

impl RecoveryKey {
    /// A new pair.
    pub fn generate(random: &(impl Random + ?Sized)) -> Self {
        Self::from_bytes(random_bytes(random))
    }

    fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        let public = RecoveryPublicKey::from_bytes(public_half(&agreement_key(&bytes)));
        Self { bytes, public }
    }

    /// Reads the line `lockwarden-recovery-1:<id>:<key in base64url>`; blank lines and lines starting with `#` are skipped.
    ///
    /// # Errors
    /// See [`KeyTextError`]; no message repeats any of the text.
    pub fn parse(text: &str) -> Result<Self, KeyTextError> {
        armour::read(RECOVERY, text).map(Self::from_bytes)
    }

    /// The line that [`parse`](Self::parse) reads. As secret as the key.
    pub fn to_text(&self) -> Zeroizing<String> {
        armour::write(
            RECOVERY,
            KeyId::of(RECOVERY.label, &self.bytes),
            &self.bytes,
        )
    }

    /// The half that may stay on the server.
    pub fn public(&self) -> RecoveryPublicKey {
        self.public.clone()
    }

    /// Opens the wrapping stored for the data key `id` of `purpose`.
    ///
    /// # Errors
    /// [`UnwrapError::WrongKey`] with both ids when it was wrapped for another key; otherwise as the variants say.
    pub fn unwrap(
        &self,
        purpose: Purpose,
        id: KeyId,
        wrapping: &Wrapping,
    ) -> Result<DataKey, UnwrapError> {
        let recipient = self.public.recipient();
        let body = wrapping_body(purpose, id, wrapping, recipient)?;
        let opened = body.split_first_chunk().and_then(|(ephemeral, sealed)| {
            let context = wrapping_context(purpose, id, recipient);
            let own = agreement_key(&self.bytes);
            let (key, nonce) = agreed(&own, ephemeral, ephemeral, &self.public.bytes, &context)?;
            key.open(nonce, &context, sealed)
        });
        unwrapped(purpose, id, opened)
    }
}

impl RecoveryPublicKey {
    fn from_bytes(bytes: [u8; 32]) -> Self {
        Self {
            id: KeyId::of(RECOVERY_PUBLIC.label, &bytes),
            bytes,
        }
    }

    /// Reads the line `lockwarden-recovery-public-1:<id>:<key in base64url>`; blank lines and lines starting with `#` are
    /// skipped.
    ///
    /// # Errors
    /// See [`KeyTextError`].
    pub fn parse(text: &str) -> Result<Self, KeyTextError> {
        armour::read(RECOVERY_PUBLIC, text).map(|bytes| Self::from_bytes(*bytes))
    }

    /// The line that [`parse`](Self::parse) reads.
    pub fn to_text(&self) -> String {
        armour::write(RECOVERY_PUBLIC, self.id, &self.bytes).to_string()
    }

    /// Its id, which names the pair.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// It as a recipient of wrappings.
    pub fn recipient(&self) -> Recipient {
        Recipient {
            kind: RecipientKind::Recovery,
            id: self.id,
        }
    }

    /// Wraps `key` so that the private half opens it.
    ///
    /// # Panics
    /// When this is one of the few X25519 points of small order, which no honest key is.
    pub fn wrap(&self, key: &DataKey, random: &(impl Random + ?Sized)) -> Wrapping {
        let context = wrapping_context(key.purpose(), key.id(), self.recipient());
        let own = agreement_key(&random_bytes(random));
        let ephemeral = public_half(&own);
        let (sealing, nonce) = agreed(&own, &self.bytes, &ephemeral, &self.bytes, &context)
            .expect("a public key made by RecoveryKey is not of small order");
        let mut bytes = vec![WRAPPING_VERSION];
        bytes.extend_from_slice(&ephemeral);
        sealing.seal_onto(&mut bytes, nonce, &context, key.bytes());
        Wrapping {
            recipient: self.recipient(),
            bytes,
        }
    }
}

fn agreement_key(bytes: &[u8; 32]) -> PrivateKey {
    PrivateKey::from_private_key(&X25519, bytes).expect("any 32 bytes are an X25519 private key")
}

fn public_half(key: &PrivateKey) -> [u8; 32] {
    let public = key
        .compute_public_key()
        .expect("an X25519 key has a public half");
    public
        .as_ref()
        .try_into()
        .expect("an X25519 public key has 32 bytes")
}

/// The one-time key and nonce of a wrapping; nothing when `peer` is a point of small order.
fn agreed(
    own: &PrivateKey,
    peer: &[u8; 32],
    ephemeral: &[u8; 32],
    recipient: &[u8; 32],
    context: &[u8],
) -> Option<(gcm::Key, [u8; NONCE_BYTES])> {
    struct Length;
    impl KeyType for Length {
        fn len(&self) -> usize {
            32 + NONCE_BYTES
        }
    }

    let mut derived = Zeroizing::new([0; 32 + NONCE_BYTES]);
    agree(own, UnparsedPublicKey::new(&X25519, peer), (), |shared| {
        Salt::new(HKDF_SHA256, b"lockwarden recovery 1")
            .extract(shared)
            .expand(
                &[ephemeral.as_slice(), recipient.as_slice(), context],
                Length,
            )
            .and_then(|okm| okm.fill(derived.as_mut_slice()))
            .map_err(drop)
    })
    .ok()?;
    let (key, nonce) = derived.split_first_chunk::<32>()?;
    Some((gcm::Key::new(key), nonce.try_into().ok()?))
}
