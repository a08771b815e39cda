//! Commands, as plists.

/// A command for a device (contract sheet 3a to 3d).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// `ActivationLockBypassCode`.
    ActivationLockBypassCode,
    /// `DeviceInformation` with the queries that an unlock and the guard need (contract sheet 3d).
    DeviceInformation,
    /// `SecurityInfo`.
    SecurityInfo,
    /// `Settings` with `MDMOptions.ActivationLockAllowedWhileSupervised` (contract sheet 3.20).
    AllowActivationLock(bool),
}

impl Command {
    /// The command as an XML plist, under our CommandUUID.
    #[must_use]
    pub fn to_plist(self, _command_uuid: &str) -> Vec<u8> {
        Vec::new()
    }
}
