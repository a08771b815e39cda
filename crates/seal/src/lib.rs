//! Sealed cells, the keys that seal them, fingerprints, MACs, signatures of checkpoints, and how people's passwords are kept. No SQL, no clock, no randomness of its own.
//!
//! The keys stand in two layers. A *data key* does the work: it seals cells, makes fingerprints, authenticates audit
//! rows or signs checkpoints of them, one purpose a key. It is stored only *wrapped*, once for each recipient that may open it: the running server's
//! [`KeyEncryptionKey`], and the offline [`RecoveryKey`] whose private half never stays on the server (R25). The opened
//! data keys of a running process are its [`Keyring`].
//!
//! ```
//! use seal::{DataKey, KeyEncryptionKey, Keyring, Purpose, Random, RecoveryKey, Standing};
//!
//! struct Counting(std::sync::atomic::AtomicU8); // Never do this outside an example.
//! impl Random for Counting {
//!     fn fill(&self, bytes: &mut [u8]) {
//!         for byte in bytes {
//!             *byte = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
//!         }
//!     }
//! }
//! let random = Counting(std::sync::atomic::AtomicU8::new(0));
//!
//! let running = KeyEncryptionKey::generate(&random);
//! let recovery = RecoveryKey::generate(&random).public();
//! let mut keys = Vec::new();
//! for purpose in Purpose::ALL {
//!     let key = DataKey::generate(purpose, &random);
//!     let _stored = [running.wrap(&key, &random), recovery.wrap(&key, &random)];
//!     keys.push((key, Standing::Current));
//! }
//! let keyring = Keyring::new(keys)?;
//! let cell = keyring.seal_cell("device-code", "org", "row", b"a code", &random);
//! assert!(*keyring.open_cell("device-code", "org", "row", &cell)? == b"a code");
//! assert!(keyring.open_cell("device-code", "org", "another row", &cell).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "archive")]
mod age;
mod archive;
mod armour;
mod checkpoint;
mod data_key;
mod encoding;
mod gcm;
mod key_encryption_key;
mod key_id;
mod keyring;
mod link;
mod password;
mod recovery_key;
mod secrets_are_mute;
mod token_hash;
mod totp;

#[cfg(feature = "archive")]
pub use crate::age::{AgeRecipient, AgeRecipientError, AgeWriter};
pub use crate::archive::{ArchiveReader, ArchiveWriter};
pub use crate::armour::KeyTextError;
pub use crate::checkpoint::CheckpointPublicKey;
pub use crate::data_key::{DataKey, Purpose, Recipient, RecipientKind, UnwrapError, Wrapping};
pub use crate::key_encryption_key::KeyEncryptionKey;
pub use crate::key_id::{KeyId, KeyIdError};
pub use crate::keyring::{
    CELL_OVERHEAD, Fingerprint, Keyring, KeyringError, Mac, MacError, OpenError, Standing,
};
pub use crate::link::Link;
pub use crate::password::{Password, PasswordError, PasswordHash};
pub use crate::recovery_key::{RecoveryKey, RecoveryPublicKey};
pub use crate::token_hash::{Digest, TokenHash, digest_of};
pub use crate::totp::TotpSecret;

/// Where random bytes come from. The server makes the one real implementation; a test gives a seeded one.
///
/// It must be a cryptographic generator seeded by the operating system: keys and nonces are made from it. There is no
/// error: a generator that cannot give bytes must stop the process, for there is nothing safe to do without it.
pub trait Random: Send + Sync {
    /// Fills all of `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

impl<R: Random + ?Sized> Random for std::sync::Arc<R> {
    fn fill(&self, bytes: &mut [u8]) {
        (**self).fill(bytes);
    }
}

/// `N` bytes from `random`, wiped when dropped.
fn random_bytes<const N: usize>(random: &(impl Random + ?Sized)) -> zeroize::Zeroizing<[u8; N]> {
    let mut bytes = zeroize::Zeroizing::new([0; N]);
    random.fill(bytes.as_mut_slice());
    bytes
}
