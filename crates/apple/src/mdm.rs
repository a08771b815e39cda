//! The MDM protocol: commands to devices, and what devices say (contract sheet, sections 3 and 6).
//!
//! [`Command::to_plist`] writes a command; [`check_in`] and [`answer`] read what a device sent, from an XML or a binary
//! plist, within limits of size and depth, and never panic.

use activation_lock::observation::{Authenticate, CommandReport, TokenUpdate};

mod command;
mod plist;
mod read;

pub use command::Command;
pub use plist::PlistError;
pub use read::{answer, check_in};

/// Whose channel of a device a message came through, as the message itself shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channel {
    /// `UDID`.
    pub udid: Option<String>,
    /// `EnrollmentID`, in place of the UDID in a User Enrollment.
    pub enrollment_id: Option<String>,
    /// `UserID` or `EnrollmentUserID`: a person's channel.
    pub user_id: Option<String>,
    /// `UserShortName`, which a Shared iPad's user channels carry as well.
    pub user_short_name: Option<String>,
}

/// A check-in message.
pub struct CheckIn {
    /// Whose channel it came through.
    pub channel: Channel,
    /// What it says.
    pub message: CheckInMessage,
}

/// What a check-in message says.
pub enum CheckInMessage {
    /// `Authenticate`.
    Authenticate(Authenticate),
    /// `TokenUpdate`. Its tally is not in the message: the MDM counts.
    TokenUpdate(TokenUpdate),
    /// `CheckOut`.
    CheckOut,
    /// Any other; nothing of it is of use here.
    Other,
}

/// An answer of a device, or its poll for work.
pub struct Answer {
    /// Whose channel it came through.
    pub channel: Channel,
    /// The report; `None` when the device asks for work (`Idle`).
    pub report: Option<CommandReport>,
}
