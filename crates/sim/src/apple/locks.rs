//! Apple's table of devices and their locks.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::request::UnlockRequest;
use crate::code::{Accepts, Code, CodeHash};

/// A device as Apple knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppleDevice {
    /// The serial number.
    pub serial: String,
    /// The hardware identifier, such as `iPad4,1`.
    pub product_type: String,
    /// The first slot's IMEI, 15 digits without spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imei: Option<String>,
    /// The second slot's IMEI, 15 digits without spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imei2: Option<String>,
    /// The first slot's MEID, 14 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meid: Option<String>,
}

/// Who turned a lock on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockKind {
    /// The organisation, through Apple.
    Mdm,
    /// A person, with Find My.
    User,
}

/// How strictly the identity in a request is compared with the table. What Apple does is not known (contract sheet 9.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdentityCheck {
    /// Every number Apple knows must be given, and no other.
    #[default]
    Exact,
    /// Only what is given must agree.
    GivenOnly,
}

/// The lock was not turned on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockRefused {
    /// Somebody's lock is on already: the first one wins.
    #[error("a lock is on already, and the first one wins")]
    AlreadyLocked(LockKind),
    /// No such serial number.
    #[error("this Apple does not know the device")]
    UnknownDevice,
}

struct Row {
    device: AppleDevice,
    lock: Option<(LockKind, Accepts)>,
}

/// What a look at the table gave.
pub(super) enum Found {
    Opened,
    NotLocked,
    WrongCode,
    UnknownDevice,
    OtherIdentity,
}

/// How many hashes are remembered, so that a device may be unlocked more than a hundred times a second.
const REMEMBERED: usize = 100_000;

#[derive(Default)]
pub(super) struct Locks {
    rows: HashMap<String, Row>,
    /// By text: hashing is what costs.
    hashes: HashMap<String, CodeHash>,
}

impl Locks {
    /// Adds or changes a device; its lock stays.
    pub(super) fn add(&mut self, device: AppleDevice) {
        match self.rows.get_mut(&device.serial) {
            Some(row) => row.device = device,
            None => {
                self.rows
                    .insert(device.serial.clone(), Row { device, lock: None });
            }
        }
    }

    pub(super) fn device(&self, serial: &str) -> Option<AppleDevice> {
        self.rows.get(serial).map(|row| row.device.clone())
    }

    pub(super) fn lock_of(&self, serial: &str) -> Option<LockKind> {
        self.rows.get(serial)?.lock.as_ref().map(|(kind, _)| *kind)
    }

    /// Turns a lock on, unless one is on.
    pub(super) fn lock(
        &mut self,
        serial: &str,
        kind: LockKind,
        accepts: Accepts,
    ) -> Result<(), LockRefused> {
        let row = self
            .rows
            .get_mut(serial)
            .ok_or(LockRefused::UnknownDevice)?;
        if let Some((first, _)) = &row.lock {
            return Err(LockRefused::AlreadyLocked(*first));
        }
        row.lock = Some((kind, accepts));
        Ok(())
    }

    /// The person enters the password, or the portal turns the lock off.
    pub(super) fn clear(&mut self, serial: &str) {
        if let Some(row) = self.rows.get_mut(serial) {
            row.lock = None;
        }
    }

    pub(super) fn remembered(&self, text: &str) -> Option<CodeHash> {
        self.hashes.get(text).copied()
    }

    pub(super) fn remember(&mut self, text: &str, hash: CodeHash) {
        if self.hashes.len() >= REMEMBERED {
            self.hashes.clear();
        }
        self.hashes.insert(text.to_owned(), hash);
    }

    /// Looks at the lock; opens it when the code fits and `commit` says so. `hash` is that of the request's code, if it is one.
    pub(super) fn try_code(
        &mut self,
        request: &UnlockRequest,
        hash: Option<CodeHash>,
        identity: IdentityCheck,
        commit: bool,
    ) -> Found {
        let Some(row) = self.rows.get_mut(&request.serial) else {
            return Found::UnknownDevice;
        };
        if !same_identity(&row.device, request, identity) {
            return Found::OtherIdentity;
        }
        let fits = match &row.lock {
            None => return Found::NotLocked,
            Some((_, Accepts::Hash(accepted))) => hash.is_some_and(|hash| hash == *accepted),
            Some((_, text @ Accepts::Text(_))) => text.opens_with(&request.escrow_key),
        };
        if !fits {
            return Found::WrongCode;
        }
        if commit {
            row.lock = None;
        }
        Found::Opened
    }
}

fn same_identity(device: &AppleDevice, request: &UnlockRequest, check: IdentityCheck) -> bool {
    let same = |known: &Option<String>, given: &Option<String>| match (known, given) {
        (None, None) => true,
        (Some(known), Some(given)) => known.eq_ignore_ascii_case(given),
        (_, None) => check == IdentityCheck::GivenOnly,
        (None, Some(_)) => false,
    };
    device.product_type == request.product_type
        && same(&device.imei, &request.imei)
        && same(&device.imei2, &request.imei2)
        && same(&device.meid, &request.meid)
}

/// The hash of a text that is a code. About 10 ms.
pub(super) fn hash_of(text: &str) -> Option<CodeHash> {
    Code::parse(text).map(|code| code.hash())
}
