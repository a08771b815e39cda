//! The name of a key: safe to print, and enough to tell two keys apart.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;
use thiserror::Error;

use crate::encoding;

/// The id of any key in this crate: the first eight bytes of SHA-256 over a label (what the key is for) and the key, shown
/// as 16 lower-case hexadecimal digits. It is computed from the key, so it cannot be given to a wrong one, and it
/// reveals nothing of a key of 256 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; Self::BYTES]);

impl KeyId {
    /// Bytes in an id.
    pub const BYTES: usize = 8;

    /// The id of the key `bytes` that serves what `label` says.
    pub(crate) fn of(label: &str, bytes: &[u8; 32]) -> Self {
        let mut context = Context::new(&SHA256);
        encoding::each(
            &[b"lockwarden key id 1", label.as_bytes(), bytes],
            |piece| context.update(piece),
        );
        let digest = context.finish();
        let mut id = [0; Self::BYTES];
        id.copy_from_slice(&digest.as_ref()[..Self::BYTES]);
        Self(id)
    }

    /// An id from its eight bytes.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The eight bytes.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&HEXLOWER.encode(&self.0))
    }
}

/// A text that is not a key id.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a key id is 16 hexadecimal digits in lower case")]
pub struct KeyIdError;

impl FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        let mut bytes = [0; Self::BYTES];
        if text.len() != 2 * Self::BYTES {
            return Err(KeyIdError);
        }
        HEXLOWER
            .decode_mut(text.as_bytes(), &mut bytes)
            .map_err(|_| KeyIdError)?;
        Ok(Self(bytes))
    }
}
