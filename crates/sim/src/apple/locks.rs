//! Apple's table of devices and their locks.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

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
    /// When the lock went on or off, newest last: for whoever answers from an old copy of this table.
    changes: VecDeque<(OffsetDateTime, Option<LockKind>)>,
}

impl Row {
    fn set(&mut self, lock: Option<(LockKind, Accepts)>, at: OffsetDateTime) {
        if self.changes.len() == CHANGES {
            self.changes.pop_front();
        }
        self.changes
            .push_back((at, lock.as_ref().map(|(kind, _)| *kind)));
        self.lock = lock;
    }
}

/// How many changes of each lock are remembered.
const CHANGES: usize = 100;

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
                let row = Row {
                    device,
                    lock: None,
                    changes: VecDeque::new(),
                };
                self.rows.insert(row.device.serial.clone(), row);
            }
        }
    }

    pub(super) fn device(&self, serial: &str) -> Option<AppleDevice> {
        self.rows.get(serial).map(|row| row.device.clone())
    }

    pub(super) fn lock_of(&self, serial: &str) -> Option<LockKind> {
        self.rows.get(serial)?.lock.as_ref().map(|(kind, _)| *kind)
    }

    /// Whose lock was on at that time, as far as is remembered.
    pub(super) fn lock_at(&self, serial: &str, at: OffsetDateTime) -> Option<LockKind> {
        let changes = &self.rows.get(serial)?.changes;
        let last = changes.iter().rev().find(|(changed, _)| *changed <= at)?;
        last.1
    }

    /// Whether such a lock is on, or was, as far as is remembered.
    pub(super) fn had(&self, serial: &str, kind: LockKind) -> bool {
        let row = self.rows.get(serial);
        row.is_some_and(|row| row.changes.iter().any(|(_, lock)| *lock == Some(kind)))
    }

    /// Turns a lock on, unless one is on.
    pub(super) fn lock(
        &mut self,
        serial: &str,
        kind: LockKind,
        accepts: Accepts,
        at: OffsetDateTime,
    ) -> Result<(), LockRefused> {
        let row = self
            .rows
            .get_mut(serial)
            .ok_or(LockRefused::UnknownDevice)?;
        if let Some((first, _)) = &row.lock {
            return Err(LockRefused::AlreadyLocked(*first));
        }
        row.set(Some((kind, accepts)), at);
        Ok(())
    }

    /// The person enters the password, or the portal turns the lock off.
    pub(super) fn clear(&mut self, serial: &str, at: OffsetDateTime) {
        if let Some(row) = self.rows.get_mut(serial) {
            row.set(None, at);
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

    /// Looks at the lock; opens it when the code fits and there is a time to `commit` at. `hash` is that of the request's
    /// code, if it is one.
    pub(super) fn try_code(
        &mut self,
        request: &UnlockRequest,
        hash: Option<CodeHash>,
        identity: IdentityCheck,
        commit: Option<OffsetDateTime>,
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
            Some((_, other)) => other.opens_with(&request.escrow_key),
        };
        if !fits {
            return Found::WrongCode;
        }
        if let Some(at) = commit {
            row.set(None, at);
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
