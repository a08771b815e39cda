//! Plists, within limits.

/// Why bytes are not a plist that is read here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlistError {
    /// Not a plist, or a damaged one.
    #[error("this is not a property list that can be read")]
    Unreadable,
}
