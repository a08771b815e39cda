//! What is said of the lines of a batch, and of a batch itself.

use crate::batch::{BatchAction, LineState};

use super::{Explanation, words};

/// How a line stands that has no unlock and no lock to speak for it.
#[must_use]
pub fn line(state: LineState) -> Explanation {
    match state {
        LineState::Ready => words(
            "It waits for its turn.",
            "Nothing was done to the device yet.",
            "Nothing.",
        ),
        LineState::Asked => words(
            "It was done.",
            "The device is asked for its code when it next checks in.",
            "Nothing.",
        ),
        LineState::NotASerial => words(
            "What stands there is no serial number.",
            "It names no device, so that nothing was done. What stood there was not kept.",
            "Look at that line in the list: a serial number has letters and digits, and nothing else.",
        ),
        LineState::Duplicate => words(
            "The same device stands in an earlier line.",
            "It is done once.",
            "Nothing.",
        ),
        LineState::UnknownDevice => words(
            "No such device is known in this organisation.",
            "Nothing was done to it.",
            "Compare the serial number with the device. If it is right, let the device enrol, or import it.",
        ),
        LineState::NoCode => words(
            "No code of this device is held.",
            "There is nothing to unlock it with, so that Apple was not asked.",
            "Import its code from where it was managed before; or somebody with the Manage Devices privilege turns the lock off in \
             Apple Business Manager or Apple School Manager.",
        ),
        LineState::NoProductType => words(
            "The product type of this device is not known.",
            "Apple demands it to unlock a device, so that nothing was attempted.",
            "Set it by hand, such as iPad4,1: the hardware's own name. Or let the device enrol, which tells it.",
        ),
        LineState::NotLocked => words(
            "Apple said within the last day that this device is not locked.",
            "There is nothing to turn off.",
            "If the device shows the lock all the same, unlock it on its own and insist.",
        ),
        LineState::AlreadyLocked => words(
            "The organisation's lock is on already, and Apple confirmed it.",
            "Its code is held.",
            "Nothing.",
        ),
        LineState::NotAssigned => words(
            "No server of ours lists this device.",
            "Apple would not lock it for us, so that nothing was done.",
            "Assign it to the server in Apple Business Manager or Apple School Manager.",
        ),
        LineState::InProgress => words(
            "Another unlock or lock of this device was under way.",
            "A device has one at a time; this line did nothing.",
            "See how that one ends.",
        ),
        LineState::NotEnrolled => words(
            "No MDM that is connected here knows the device at present.",
            "It cannot be asked. Its codes are kept.",
            "Enrol it again.",
        ),
    }
}

/// What starting a batch does, in one sentence.
#[must_use]
pub fn about(action: BatchAction) -> &'static str {
    match action {
        BatchAction::Unlock => {
            "The lock of each device is turned off through Apple, with the codes that are held, in the order in which they are likely to work."
        }
        BatchAction::Lock => {
            "The organisation's lock of each device is turned on through Apple, with a code that is on record before Apple is asked."
        }
        BatchAction::Refresh => {
            "Each device is asked for its code again when it next checks in with its MDM."
        }
    }
}
