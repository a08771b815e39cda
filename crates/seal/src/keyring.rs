//! The opened data keys of a running process, and what is done with them.

use std::collections::HashMap;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::checkpoint::{CheckpointKey, CheckpointPublicKey};
use crate::gcm::{self, NONCE_BYTES, TAG_BYTES};
use crate::{DataKey, KeyId, Purpose, Random, encoding, random_bytes};

/// The version byte that every cell starts with.
const CELL_VERSION: u8 = 1;
/// Bytes before the ciphertext: version, key id, nonce.
const CELL_HEADER: usize = 1 + KeyId::BYTES + NONCE_BYTES;
/// Bytes by which a cell is longer than its plaintext.
pub const CELL_OVERHEAD: usize = CELL_HEADER + TAG_BYTES;

/// Whether a data key makes new values, or only serves those made before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// New values are made with it. One key a purpose.
    Current,
    /// Kept for what was made with it.
    Older,
}

/// The opened data keys: for each purpose one current, and any number of older ones.
///
/// No `Debug`, `Display` or `Serialize`; the keys are wiped when it is dropped.
pub struct Keyring {
    cells: Ring<gcm::Key>,
    fingerprints: Ring<hmac::Key>,
    audit: Ring<hmac::Key>,
    checkpoints: Ring<CheckpointKey>,
}

/// The keys of one purpose.
struct Ring<K> {
    current: KeyId,
    keys: HashMap<KeyId, K>,
}

impl<K> Ring<K> {
    fn collect(
        keys: &[(DataKey, Standing)],
        purpose: Purpose,
        ready: impl Fn(&[u8; 32]) -> K,
    ) -> Result<Self, KeyringError> {
        let mut current = None;
        let mut ring = HashMap::new();
        for (key, standing) in keys.iter().filter(|(key, _)| key.purpose() == purpose) {
            if *standing == Standing::Current && current.replace(key.id()).is_some() {
                return Err(KeyringError::TwoCurrent(purpose));
            }
            ring.insert(key.id(), ready(key.bytes()));
        }
        let current = current.ok_or(KeyringError::NoCurrent(purpose))?;
        Ok(Self {
            current,
            keys: ring,
        })
    }

    fn current(&self) -> &K {
        &self.keys[&self.current]
    }

    fn ids(&self) -> Vec<KeyId> {
        let mut ids: Vec<_> = self.keys.keys().copied().collect();
        ids.sort_unstable_by_key(|id| (*id != self.current, *id));
        ids
    }
}

/// Why some data keys are not a keyring.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum KeyringError {
    /// A purpose without a current key.
    #[error("no data key for {0} is current: the database's key table is incomplete")]
    NoCurrent(Purpose),
    /// A purpose with two current keys.
    #[error("two data keys for {0} are current: the database's key table is inconsistent")]
    TwoCurrent(Purpose),
}

impl Keyring {
    /// A keyring of `keys`, which must hold exactly one current key a purpose. The keys given are wiped.
    ///
    /// # Errors
    /// When a purpose has no current key, or two.
    pub fn new(keys: impl IntoIterator<Item = (DataKey, Standing)>) -> Result<Self, KeyringError> {
        let keys: Vec<_> = keys.into_iter().collect();
        let mac_key = |bytes: &[u8; 32]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
        Ok(Self {
            cells: Ring::collect(&keys, Purpose::Cells, gcm::Key::new)?,
            fingerprints: Ring::collect(&keys, Purpose::Fingerprints, mac_key)?,
            audit: Ring::collect(&keys, Purpose::Audit, mac_key)?,
            checkpoints: Ring::collect(&keys, Purpose::Checkpoints, CheckpointKey::new)?,
        })
    }

    /// The ids of the keys of a purpose: the current one first, then the older ones.
    pub fn key_ids(&self, purpose: Purpose) -> Vec<KeyId> {
        match purpose {
            Purpose::Cells => self.cells.ids(),
            Purpose::Fingerprints => self.fingerprints.ids(),
            Purpose::Audit => self.audit.ids(),
            Purpose::Checkpoints => self.checkpoints.ids(),
        }
    }

    /// Seals `plaintext` for one place: a `kind` of cell (a constant of the program, never the name of an SQL table), an
    /// organisation and a row. It opens only there.
    ///
    /// The bytes: version (1), key id (8), nonce (12), ciphertext, tag (16).
    pub fn seal_cell(
        &self,
        kind: &'static str,
        organisation: &str,
        row: &str,
        plaintext: &[u8],
        random: &(impl Random + ?Sized),
    ) -> Vec<u8> {
        let nonce = *random_bytes::<NONCE_BYTES>(random);
        let mut cell = Vec::with_capacity(plaintext.len() + CELL_OVERHEAD);
        cell.push(CELL_VERSION);
        cell.extend_from_slice(self.cells.current.as_bytes());
        cell.extend_from_slice(&nonce);
        let place = place(kind, organisation, row);
        self.cells
            .current()
            .seal_onto(&mut cell, nonce, &place, plaintext);
        cell
    }

    /// The same with one data key by itself, which is for cells: a key that is not in a keyring yet.
    pub fn seal_cell_with(
        key: &DataKey,
        kind: &'static str,
        organisation: &str,
        row: &str,
        plaintext: &[u8],
        random: &(impl Random + ?Sized),
    ) -> Vec<u8> {
        let nonce = *random_bytes::<NONCE_BYTES>(random);
        let mut cell = vec![CELL_VERSION];
        cell.extend_from_slice(key.id().as_bytes());
        cell.extend_from_slice(&nonce);
        let place = place(kind, organisation, row);
        gcm::Key::new(key.bytes()).seal_onto(&mut cell, nonce, &place, plaintext);
        cell
    }

    /// Opens what [`seal_cell`](Self::seal_cell) sealed for the same place, with whichever key sealed it.
    ///
    /// # Errors
    /// When the cell was sealed for another place, was changed or cut, or its key is not in this keyring.
    pub fn open_cell(
        &self,
        kind: &'static str,
        organisation: &str,
        row: &str,
        cell: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let header = read_header(cell)?;
        let key = self
            .cells
            .keys
            .get(&header.key)
            .ok_or(OpenError::UnknownKey { id: header.key })?;
        key.open(header.nonce, &place(kind, organisation, row), header.sealed)
            .ok_or(OpenError::DoesNotOpen { kind })
    }

    /// The key that sealed `cell`, read without opening it.
    ///
    /// # Errors
    /// When the bytes are not a cell of a known version.
    pub fn cell_key(cell: &[u8]) -> Result<KeyId, OpenError> {
        read_header(cell).map(|header| header.key)
    }

    /// The fingerprint of a code under the current key (R24): equal for the same canonical code of the same device in the same
    /// organisation, and unrelated otherwise.
    pub fn fingerprint(&self, organisation: &str, serial: &str, code: &[u8]) -> Fingerprint {
        fingerprint(
            self.fingerprints.current,
            self.fingerprints.current(),
            organisation,
            serial,
            code,
        )
    }

    /// The fingerprint under the key `id`, to compare with one made before a rotation; nothing when there is no such key.
    pub fn fingerprint_under(
        &self,
        id: KeyId,
        organisation: &str,
        serial: &str,
        code: &[u8],
    ) -> Option<Fingerprint> {
        let key = self.fingerprints.keys.get(&id)?;
        Some(fingerprint(id, key, organisation, serial, code))
    }

    /// The MAC of a text under the current audit key.
    pub fn mac(&self, text: &str) -> Mac {
        Mac {
            key_id: self.audit.current,
            bytes: hmac_bytes(self.audit.current(), &[text.as_bytes()]),
        }
    }

    /// Checks, in constant time, that `mac` was made for exactly `text` with a key of this keyring.
    ///
    /// # Errors
    /// When it was not, or its key is unknown.
    pub fn verify_mac(&self, text: &str, mac: &Mac) -> Result<(), MacError> {
        let id = mac.key_id;
        let key = self
            .audit
            .keys
            .get(&id)
            .ok_or(MacError::UnknownKey { id })?;
        let expected = hmac_bytes(key, &[text.as_bytes()]);
        if bool::from(expected.ct_eq(&mac.bytes)) {
            Ok(())
        } else {
            Err(MacError::Mismatch)
        }
    }
}

impl Keyring {
    /// The signature of a checkpoint's text under the current key: 128 lower-case hexadecimal digits.
    pub fn sign_checkpoint(&self, text: &str) -> String {
        self.checkpoints.current().sign(text)
    }

    /// The public halves of the keys that sign checkpoints: the current one first, then the older ones.
    pub fn checkpoint_keys(&self) -> Vec<CheckpointPublicKey> {
        let ids = self.checkpoints.ids();
        ids.iter()
            .map(|id| self.checkpoints.keys[id].public().clone())
            .collect()
    }
}

/// What comes before a cell's ciphertext, and the rest.
struct Header<'a> {
    key: KeyId,
    nonce: [u8; NONCE_BYTES],
    sealed: &'a [u8],
}

fn read_header(cell: &[u8]) -> Result<Header<'_>, OpenError> {
    let (&version, rest) = cell.split_first().ok_or(OpenError::TooShort)?;
    if version != CELL_VERSION {
        return Err(OpenError::UnknownVersion { version });
    }
    let (id, rest) = rest.split_first_chunk().ok_or(OpenError::TooShort)?;
    let (nonce, sealed) = rest.split_first_chunk().ok_or(OpenError::TooShort)?;
    if sealed.len() < TAG_BYTES {
        return Err(OpenError::TooShort);
    }
    Ok(Header {
        key: KeyId::from_bytes(*id),
        nonce: *nonce,
        sealed,
    })
}

/// The associated data of a cell.
fn place(kind: &str, organisation: &str, row: &str) -> Vec<u8> {
    encoding::parts(&[
        b"lockwarden cell",
        &[CELL_VERSION],
        kind.as_bytes(),
        organisation.as_bytes(),
        row.as_bytes(),
    ])
}

fn fingerprint(
    key_id: KeyId,
    key: &hmac::Key,
    organisation: &str,
    serial: &str,
    code: &[u8],
) -> Fingerprint {
    let parts = [
        b"lockwarden fingerprint 1",
        organisation.as_bytes(),
        serial.as_bytes(),
        code,
    ];
    Fingerprint {
        key_id,
        bytes: hmac_bytes(key, &parts),
    }
}

fn hmac_bytes(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    encoding::each(parts, |piece| context.update(piece));
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.sign().as_ref());
    bytes
}

/// Why a cell did not open.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OpenError {
    /// Fewer bytes than any cell has.
    #[error(
        "these bytes are too short to be a sealed cell: they were cut; restore them from a backup"
    )]
    TooShort,
    /// Made by a newer version of this program.
    #[error(
        "the sealed cell has version {version}, which this program does not know: use a newer one"
    )]
    UnknownVersion {
        /// The version byte found.
        version: u8,
    },
    /// The data key that sealed it is not in this keyring.
    #[error("the cell was sealed with data key {id}, which is not among this database's keys")]
    UnknownKey {
        /// The key named by the cell.
        id: KeyId,
    },
    /// Moved from another row, or changed.
    #[error(
        "a sealed cell of kind {kind} does not open: it was changed, or moved here from another row or organisation"
    )]
    DoesNotOpen {
        /// The kind asked for.
        kind: &'static str,
    },
}

/// Why a MAC was refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MacError {
    /// Not this text's MAC.
    #[error("the text is not the one that was authenticated: it, or its MAC, was changed")]
    Mismatch,
    /// The key that made it is not in this keyring.
    #[error("the MAC was made with data key {id}, which is not among this database's keys")]
    UnknownKey {
        /// The key named by the MAC.
        id: KeyId,
    },
}

/// A keyed fingerprint of a code (R24): tells whether two codes of a device are the same without opening either.
///
/// No `Debug` or `Display`; compare with [`ConstantTimeEq`]. Two made with different keys are never equal.
#[derive(Clone)]
pub struct Fingerprint {
    key_id: KeyId,
    bytes: [u8; 32],
}

impl Fingerprint {
    /// The key that made it.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// 64 lower-case hexadecimal digits, as stored beside the key's id.
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.bytes)
    }

    /// The 32 bytes, as stored beside the key's id.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// A stored fingerprint; nothing when `hex` is not 64 lower-case hexadecimal digits.
    pub fn from_hex(key_id: KeyId, hex: &str) -> Option<Self> {
        Some(Self {
            key_id,
            bytes: hex_bytes(hex)?,
        })
    }
}

impl ConstantTimeEq for Fingerprint {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.key_id.as_bytes().ct_eq(other.key_id.as_bytes()) & self.bytes.ct_eq(&other.bytes)
    }
}

/// A keyed MAC of an audit row's text.
///
/// No `Debug` or `Display`; check it with [`Keyring::verify_mac`].
#[derive(Clone)]
pub struct Mac {
    key_id: KeyId,
    bytes: [u8; 32],
}

impl Mac {
    /// The key that made it.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// 64 lower-case hexadecimal digits, as stored beside the key's id.
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.bytes)
    }

    /// A stored MAC; nothing when `hex` is not 64 lower-case hexadecimal digits.
    pub fn from_hex(key_id: KeyId, hex: &str) -> Option<Self> {
        Some(Self {
            key_id,
            bytes: hex_bytes(hex)?,
        })
    }
}

fn hex_bytes(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 {
        return None;
    }
    HEXLOWER.decode_mut(hex.as_bytes(), &mut bytes).ok()?;
    Some(bytes)
}
