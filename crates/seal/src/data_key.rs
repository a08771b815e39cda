//! Data keys, and the wrapped forms in which they are stored.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::{KeyId, Random, encoding, random_bytes};

/// The version byte that every [`Wrapping`]'s bytes start with.
pub(crate) const WRAPPING_VERSION: u8 = 1;

/// What a data key is for. A key serves one purpose only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Seals cells, by AES-256-GCM.
    Cells,
    /// Makes fingerprints of codes, by HMAC-SHA256 (R24).
    Fingerprints,
    /// Authenticates audit rows, by HMAC-SHA256.
    Audit,
    /// Signs checkpoints of the audit record, by Ed25519: the key is the pair's seed.
    Checkpoints,
}

impl Purpose {
    /// All purposes.
    pub const ALL: [Self; 4] = [
        Self::Cells,
        Self::Fingerprints,
        Self::Audit,
        Self::Checkpoints,
    ];

    /// The word stored for it: `cells`, `fingerprints`, `audit` or `checkpoints`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cells => "cells",
            Self::Fingerprints => "fingerprints",
            Self::Audit => "audit",
            Self::Checkpoints => "checkpoints",
        }
    }

    /// The purpose that [`as_str`](Self::as_str) calls `word`.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|purpose| purpose.as_str() == word)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A data key in the open: 32 random bytes for one purpose. Wiped when dropped; no `Debug`, `Display` or `Serialize`.
pub struct DataKey {
    purpose: Purpose,
    id: KeyId,
    bytes: Zeroizing<[u8; 32]>,
}

impl DataKey {
    /// A new key.
    pub fn generate(purpose: Purpose, random: &(impl Random + ?Sized)) -> Self {
        Self::from_bytes(purpose, random_bytes(random))
    }

    pub(crate) fn from_bytes(purpose: Purpose, bytes: Zeroizing<[u8; 32]>) -> Self {
        let id = KeyId::of(purpose.as_str(), &bytes);
        Self { purpose, id, bytes }
    }

    /// What it is for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Its id, computed from purpose and key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }
}

/// The two kinds of recipient a data key is wrapped for (R25).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecipientKind {
    /// The key-encryption key that the running server holds.
    Running,
    /// The recovery key, whose private half is kept off the server.
    Recovery,
}

impl RecipientKind {
    /// The word stored for it: `running` or `recovery`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Recovery => "recovery",
        }
    }
}

/// Who can open a wrapping: a kind and the id of that recipient's key. Its text is `running:<id>` or `recovery:<id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Recipient {
    /// Which kind of key.
    pub kind: RecipientKind,
    /// Which key.
    pub id: KeyId,
}

impl fmt::Display for Recipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.kind.as_str(), self.id)
    }
}

impl FromStr for Recipient {
    type Err = crate::KeyIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, id) = text.split_once(':').ok_or(crate::KeyIdError)?;
        let kind = match kind {
            "running" => RecipientKind::Running,
            "recovery" => RecipientKind::Recovery,
            _ => return Err(crate::KeyIdError),
        };
        Ok(Self {
            kind,
            id: id.parse()?,
        })
    }
}

/// A data key as it is stored: sealed so that one recipient can open it. Not a secret.
///
/// The bytes are a version byte, then for a running key a 12-byte nonce, for a recovery key a 32-byte ephemeral X25519
/// public key; then 48 bytes of AES-256-GCM ciphertext and tag. The associated data name purpose, key id and recipient,
/// so that a wrapping stored under another key's name does not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapping {
    /// Who can open it.
    pub recipient: Recipient,
    /// The sealed key.
    pub bytes: Vec<u8>,
}

/// What is authenticated beside a wrapped key.
pub(crate) fn wrapping_context(purpose: Purpose, id: KeyId, recipient: Recipient) -> Vec<u8> {
    encoding::parts(&[
        b"lockwarden wrapping",
        &[WRAPPING_VERSION],
        purpose.as_str().as_bytes(),
        id.as_bytes(),
        recipient.kind.as_str().as_bytes(),
        recipient.id.as_bytes(),
    ])
}

/// The data key that came out of a wrapping, checked against the id it is stored under.
pub(crate) fn unwrapped(
    purpose: Purpose,
    id: KeyId,
    bytes: Option<Zeroizing<Vec<u8>>>,
) -> Result<DataKey, UnwrapError> {
    let damaged = UnwrapError::Damaged { purpose, id };
    let opened = bytes.ok_or_else(|| damaged.clone())?;
    let mut bytes = Zeroizing::new([0; 32]);
    if opened.len() != bytes.len() {
        return Err(damaged);
    }
    bytes.copy_from_slice(&opened);
    let key = DataKey::from_bytes(purpose, bytes);
    if key.id() == id {
        Ok(key)
    } else {
        Err(damaged)
    }
}

/// Why a wrapped data key did not open.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UnwrapError {
    /// The key offered is not the one it was wrapped for.
    #[error(
        "the data keys are wrapped for key {wanted}, and the key given is {offered}: nothing was opened or changed; give the key file of {wanted}"
    )]
    WrongKey {
        /// The recipient written beside the wrapping.
        wanted: Recipient,
        /// The key that was offered.
        offered: Recipient,
    },
    /// Made by a newer version of this program.
    #[error(
        "the wrapping of data key {id} has version {version}, which this program does not know: use a newer one"
    )]
    UnknownVersion {
        /// The data key.
        id: KeyId,
        /// The version byte found.
        version: u8,
    },
    /// The bytes were changed, cut, or stored under another key's name or purpose.
    #[error(
        "the wrapping of data key {id} ({purpose}) is damaged or belongs to another key: restore the database, or open it with the other recipient's key"
    )]
    Damaged {
        /// The purpose it is stored under.
        purpose: Purpose,
        /// The data key it is stored under.
        id: KeyId,
    },
}

/// Checks recipient and version; gives what follows the version byte.
pub(crate) fn wrapping_body(
    purpose: Purpose,
    id: KeyId,
    wrapping: &Wrapping,
    offered: Recipient,
) -> Result<&[u8], UnwrapError> {
    if wrapping.recipient != offered {
        return Err(UnwrapError::WrongKey {
            wanted: wrapping.recipient,
            offered,
        });
    }
    match wrapping.bytes.split_first() {
        Some((&WRAPPING_VERSION, body)) => Ok(body),
        Some((&version, _)) => Err(UnwrapError::UnknownVersion { id, version }),
        None => Err(UnwrapError::Damaged { purpose, id }),
    }
}
