//! The running server's own key.

use zeroize::Zeroizing;

use crate::armour::{self, KeyTextError, RUNNING};
use crate::data_key::{WRAPPING_VERSION, unwrapped, wrapping_body, wrapping_context};
use crate::gcm::{self, NONCE_BYTES};
use crate::{
    DataKey, KeyId, Purpose, Random, Recipient, RecipientKind, UnwrapError, Wrapping, random_bytes,
};

/// The key-encryption key: 32 bytes that the running server reads from its key file, and that wrap the data keys.
///
/// Wiped when dropped; no `Debug`, `Display` or `Serialize`.
pub struct KeyEncryptionKey {
    id: KeyId,
    bytes: Zeroizing<[u8; 32]>,
}

impl KeyEncryptionKey {
    /// A new key.
    pub fn generate(random: &(impl Random + ?Sized)) -> Self {
        Self::from_bytes(random_bytes(random))
    }

    fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self {
            id: KeyId::of(RUNNING.label, &bytes),
            bytes,
        }
    }

    /// Reads a key file's text: one line `lockwarden-key-1:<id>:<key in base64url>`; blank lines and lines starting with `#`
    /// are skipped. Who may read the file is for the caller to check.
    ///
    /// # Errors
    /// See [`KeyTextError`]; no message repeats any of the text.
    pub fn parse(text: &str) -> Result<Self, KeyTextError> {
        armour::read(RUNNING, text).map(Self::from_bytes)
    }

    /// The line that [`parse`](Self::parse) reads, without comments or newline. As secret as the key.
    pub fn to_file_text(&self) -> Zeroizing<String> {
        armour::write(RUNNING, self.id, &self.bytes)
    }

    /// Its id, computed from the key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// It as a recipient of wrappings.
    pub fn recipient(&self) -> Recipient {
        Recipient {
            kind: RecipientKind::Running,
            id: self.id,
        }
    }

    /// Wraps `key` so that this key opens it.
    pub fn wrap(&self, key: &DataKey, random: &(impl Random + ?Sized)) -> Wrapping {
        let nonce = *random_bytes::<NONCE_BYTES>(random);
        let mut bytes = vec![WRAPPING_VERSION];
        bytes.extend_from_slice(&nonce);
        gcm::Key::new(&self.bytes).seal_onto(
            &mut bytes,
            nonce,
            &wrapping_context(key.purpose(), key.id(), self.recipient()),
            key.bytes(),
        );
        Wrapping {
            recipient: self.recipient(),
            bytes,
        }
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
        let body = wrapping_body(purpose, id, wrapping, self.recipient())?;
        let opened = body.split_first_chunk().and_then(|(nonce, sealed)| {
            let context = wrapping_context(purpose, id, self.recipient());
            gcm::Key::new(&self.bytes).open(*nonce, &context, sealed)
        });
        unwrapped(purpose, id, opened)
    }
}
