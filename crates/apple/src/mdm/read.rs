//! What devices say.

use super::{Answer, CheckIn, PlistError};

/// Reads a check-in message.
///
/// # Errors
/// When it is no plist within the limits, or no dictionary with a `MessageType`.
pub fn check_in(_bytes: &[u8]) -> Result<CheckIn, PlistError> {
    Err(PlistError::Unreadable)
}

/// Reads a device's answer to a command, or its poll for work.
///
/// # Errors
/// When it is no plist within the limits, or no dictionary with a `Status` that is known.
pub fn answer(_bytes: &[u8]) -> Result<Answer, PlistError> {
    Err(PlistError::Unreadable)
}
