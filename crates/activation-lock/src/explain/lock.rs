//! What is said of a lock by the organisation, and of Apple's own status.

use crate::codes::LockStatus;
use crate::device::ProductFamily;
use crate::lock::{
    CallResult, End, LockOutcome, OurLock, RefusedWhy, ReviewReason, Standing, WaitReason,
};

use super::{Explanation, WITHOUT_OUR_CODES, words};

/// Who does what about a server token that Apple does not take (contract sheet 2.23).
const MEND_TOKEN: &str = "Look at the server token in Apple Business Manager or Apple School Manager: it ends after a year, \
     and when its server is removed or its account changes. Somebody who manages servers there downloads a new one; import \
     it here, and the lock goes on by itself.";
const SIGN_TERMS: &str = "Somebody with the role of Administrator signs in to Apple Business Manager or Apple School Manager and \
     accepts the new terms. The lock goes on by itself afterwards.";
const LOOK_AT_SERVER: &str = "Somebody with the role of Administrator looks in Apple Business Manager or Apple School Manager whether the server \
     is still there and the organisation's account is in order.";

/// One call on record, and what it meant.
///
/// `status` is the HTTP status of Apple's answer and `said` its own word for it, where they came.
#[must_use]
pub fn call(result: CallResult, status: Option<u16>, said: Option<&str>) -> Explanation {
    match result {
        CallResult::InFlight => words(
            "The request is on its way to Apple.",
            "Nothing is decided yet. The code is kept.",
            "Wait; Apple answers within a minute, or the request is given up as unanswered.",
        ),
        CallResult::Lost => words(
            "The program stopped, or lost its turn, while this request was on its way to Apple.",
            "The device may be locked by it or not; nobody saw the answer. The code is kept and remains worth trying.",
            "Nothing: the request is made again with the same code.",
        ),
        CallResult::Ended { outcome, .. } => self::outcome(outcome, status, said),
    }
}

/// What one call meant.
#[must_use]
pub fn outcome(outcome: LockOutcome, status: Option<u16>, said: Option<&str>) -> Explanation {
    let answered = |sentence: &str| match (said, status) {
        (Some(said), _) => format!("{sentence} ({said})."),
        (None, Some(status)) => format!("{sentence} (answer {status})."),
        (None, None) => format!("{sentence}."),
    };
    match outcome {
        LockOutcome::Locked => words(
            answered("Apple locked the device"),
            "Activation Lock is on, and the code kept for this lock opens it.",
            "Nothing.",
        ),
        LockOutcome::AlreadyLocked => words(
            answered("Apple says that the device is locked already"),
            "Somebody's lock is on: a person's, or the organisation's. The first lock wins, so that the code of this request \
             holds nothing, unless an earlier request of ours did it. All codes are kept.",
            "Nothing, if it only has to be locked. Apple's own status says whose lock it is.",
        ),
        LockOutcome::NotAccessible => words(
            answered("Apple does not let this server token see the device"),
            "It was not locked by this request.",
            "Assign the device to this server in Apple Business Manager or Apple School Manager, or use the token of the server \
             that it is assigned to.",
        ),
        LockOutcome::OrgNotSupported => words(
            answered("Apple says that the device is not in the organisation's programme"),
            "It was not locked by this request.",
            "Add the device to Apple Business Manager or Apple School Manager, then ask again.",
        ),
        LockOutcome::DeviceNotSupported => words(
            answered("Apple does not lock devices of this kind for an organisation"),
            "It was not locked by this request.",
            "Let its user turn on Find My, where the organisation allows that: the device's own code then opens it.",
        ),
        LockOutcome::Failed => words(
            answered("Apple could not lock the device and says no more"),
            "Whether the lock is on cannot be told. The code is kept and remains worth trying.",
            "Nothing: it is tried again with the same code. If it goes on, contact Apple, as Apple advises.",
        ),
        LockOutcome::Undescribed => words(
            answered("Apple answered with a word that it does not describe"),
            "Whether the lock is on cannot be told (unverified). The code is kept and remains worth trying.",
            "See Apple's own status of the device, or the device itself. Then let the lock continue, or cancel it.",
        ),
        LockOutcome::Malformed => words(
            answered("Apple could not read the request"),
            "The device was not locked by it.",
            "Look at the text of the answer. A message for the screen may be too long or hold something that Apple does not \
             take (its limits are unverified): ask again without it.",
        ),
        LockOutcome::Credential => words(
            match status {
                Some(status) => format!("Apple did not accept the server token (answer {status})."),
                None => "Apple did not accept who we are.".to_owned(),
            },
            "The device was not locked by this request.",
            MEND_TOKEN,
        ),
        LockOutcome::TermsNotSigned => words(
            "Apple has new terms, and nobody has accepted them for the organisation.",
            "The device was not locked by this request; Apple answers nothing else until then.",
            SIGN_TERMS,
        ),
        LockOutcome::AccessDenied => words(
            "Apple does not let the organisation's server do this.",
            "The device was not locked by this request.",
            LOOK_AT_SERVER,
        ),
        LockOutcome::Unavailable => words(
            match status {
                Some(status) => format!("Apple asked us to come back later (answer {status})."),
                None => "Apple could not be reached: no request was sent.".to_owned(),
            },
            "The device was not locked by this request.",
            "Nothing: it is tried again by itself. If it lasts longer than an hour, check that this server reaches \
             mdmenrollment.apple.com on port 443.",
        ),
        LockOutcome::Unknown => words(
            match status {
                Some(status) => format!(
                    "The request reached Apple, and the answer does not say what became of it (answer {status})."
                ),
                None => "The request was sent, and no complete answer came back.".to_owned(),
            },
            "The device may be locked by it or not; it cannot be told from here. The code is kept and remains worth trying.",
            "Nothing: the request is made again with the same code, until there is a definite answer.",
        ),
        LockOutcome::Unexpected => words(
            answered("An answer came that Apple does not describe"),
            "Nothing can be said about the lock (unverified). The code is kept and remains worth trying.",
            "Find out what answered: the text of the answer is kept. It may come from something between us and Apple, such as \
             a proxy server. Then let the lock continue, or cancel it.",
        ),
    }
}

/// A lock that nothing was done for yet.
#[must_use]
pub fn queued() -> Explanation {
    words(
        "The lock was asked for and stands in the queue.",
        "Nothing is decided yet.",
        "Nothing: it begins by itself.",
    )
}

/// A lock that is being worked on.
#[must_use]
pub fn running() -> Explanation {
    words(
        "Apple is being asked to lock the device. Its code was put away first.",
        "Nothing is decided yet; the calls show what was answered so far.",
        "Wait. It goes on by itself.",
    )
}

/// What a waiting lock waits for.
#[must_use]
pub fn waiting(why: WaitReason) -> Explanation {
    match why {
        WaitReason::Unavailable => words(
            "Apple could not be reached, or asked us to come back later.",
            "The device was not locked by these requests.",
            "Nothing: it is tried again by itself, at the time shown.",
        ),
        WaitReason::NoAnswer => words(
            "The last request was sent, and no definite answer came back.",
            "The device may be locked or not. The code is kept and remains worth trying.",
            "Nothing: the request is made again with the same code, at the time shown.",
        ),
        WaitReason::Failed => words(
            "Apple could not lock the device and says no more.",
            "Whether the lock is on cannot be told. The code is kept and remains worth trying.",
            "Nothing: it is tried again with the same code, at the time shown.",
        ),
        WaitReason::Credential => words(
            "Apple did not accept the server token, or may not do this with it.",
            "The device was not locked. The lock goes on by itself once this is mended; if it is not, it ends at its deadline \
             for a person to look at.",
            MEND_TOKEN,
        ),
        WaitReason::TermsNotSigned => words(
            "Apple has new terms, and nobody has accepted them for the organisation.",
            "The device was not locked, and Apple answers nothing else until then.",
            SIGN_TERMS,
        ),
        WaitReason::AccessDenied => words(
            "Apple does not let the organisation's server do this.",
            "The device was not locked. The lock goes on by itself once a call with the token is answered, or it is renewed; \
             if not, it ends at its deadline for a person to look at.",
            LOOK_AT_SERVER,
        ),
        WaitReason::NoCredential => words(
            "There is no server token for this organisation that is still good, nor a proxy that has one.",
            "No request was sent; the device was not locked. The lock goes on by itself once there is one.",
            "Import a server token of Apple Business Manager or Apple School Manager.",
        ),
    }
}

/// How a lock ended.
#[must_use]
pub fn end(end: &End) -> Explanation {
    match end {
        End::Locked => words(
            "Apple locked the device.",
            "Activation Lock is on, and the code kept for this lock opens it.",
            "Turn the lock off before the device is released from the organisation, moved to another device \
             management system, or erased to be set up by itself.",
        ),
        End::AlreadyLocked { ours } => already_locked(*ours),
        End::Refused { why } => outcome(
            match why {
                RefusedWhy::NotAccessible => LockOutcome::NotAccessible,
                RefusedWhy::OrgNotSupported => LockOutcome::OrgNotSupported,
                RefusedWhy::DeviceNotSupported => LockOutcome::DeviceNotSupported,
            },
            None,
            None,
        ),
        End::NeedsReview { why } => review(*why),
        End::Cancelled { by } => words(
            format!("{by} cancelled the lock."),
            "It was not confirmed. Whether the device is locked is as it was before, or as the calls shown say.",
            "Ask again when the device is to be locked.",
        ),
    }
}

fn already_locked(ours: OurLock) -> Explanation {
    let happened = "Apple says that the device is locked already.";
    match ours {
        OurLock::Confirmed => words(
            happened,
            "It is our own lock of before, and the code kept for it opens it.",
            "Nothing.",
        ),
        OurLock::Unknown => words(
            happened,
            "It may be our own: an earlier request got no definite answer. The code of that request is kept, and is tried first \
             when the device is to be unlocked.",
            "Nothing, if it only has to be locked. Apple's own status tells whose lock it is.",
        ),
        OurLock::None | OurLock::SomeoneElses => words(
            happened,
            "It is somebody else's lock: a person's, or one that another system set. The code made for this request holds \
             nothing; it is kept all the same.",
            "Nothing, if it only has to be locked. To unlock it, ask for an unlock: the device's own code opens a person's lock.",
        ),
    }
}

/// Why a lock needs a person.
#[must_use]
pub fn review(why: ReviewReason) -> Explanation {
    match why {
        ReviewReason::Failed => words(
            "Apple could not lock the device, as often as it was asked.",
            "Whether the lock is on cannot be told. The code is kept and remains worth trying.",
            "See Apple's own status of the device, or the device itself; contact Apple, as Apple advises. Then let the lock \
             continue: it uses the same code.",
        ),
        ReviewReason::Undescribed => outcome(LockOutcome::Undescribed, None, None),
        ReviewReason::Malformed => outcome(LockOutcome::Malformed, None, None),
        ReviewReason::Unexpected => outcome(LockOutcome::Unexpected, None, None),
        ReviewReason::Deadline => words(
            "There was no definite answer until the deadline of this lock.",
            "Look at the last call: unless it says that no request was sent, the device may be locked or not. The code is kept \
             and remains worth trying.",
            "Mend what the calls complain about, see whether the device is locked, and let the lock continue: it uses the same \
             code.",
        ),
        ReviewReason::Restored => words(
            "This record comes from a backup or from a copy of the database.",
            "The lock may have gone on elsewhere since, so that nothing was sent from here. The code is kept.",
            "See whether the device is locked and whether it still is to be. Then let the lock continue.",
        ),
    }
}

/// How our lock on a device stands (R20).
#[must_use]
pub fn standing(standing: &Standing) -> Explanation {
    match standing.state {
        OurLock::None => words(
            "No lock of the organisation is known to be on.",
            "A person may have locked the device all the same.",
            "Nothing.",
        ),
        OurLock::Confirmed => words(
            "The organisation has locked the device through Apple.",
            "The code kept for this lock opens it.",
            "Nothing.",
        ),
        OurLock::Unknown => words(
            "The organisation asked Apple to lock the device, and what became of it is not certain.",
            "The device may be locked by it. The code of that request is kept, and is tried first when the device is to be \
             unlocked.",
            "Apple's own status tells, where it can be asked for; or ask for the lock again: it uses the same code.",
        ),
        OurLock::SomeoneElses => words(
            "A lock is on that was not set from here.",
            "It is a person's, or was set by another system.",
            "Nothing. To unlock the device, ask for an unlock: the device's own code opens a person's lock.",
        ),
    }
}

/// What would strand a lock that is on or may be (T29; contract sheet 3.40, 5.6, 5.7).
#[must_use]
pub fn strands() -> [Explanation; 3] {
    [
        words(
            "A lock is on, or may be: do not release the device from the organisation.",
            "A device that was released can no longer be unlocked in Apple Business Manager or Apple School Manager.",
            "Unlock it first.",
        ),
        words(
            "A lock is on, or may be: do not erase the device so that it sets itself up again (Return to Service).",
            "The lock stops it in the middle, until a person types a code.",
            "Unlock it first.",
        ),
        words(
            "A lock is on, or may be: do not move the device to another device management system.",
            "Apple then removes the lock and makes its codes worthless; if the move fails, the device may end up with a lock \
             that only an administrator can remove.",
            "Unlock it first.",
        ),
    ]
}

/// Whether a lock of this kind of device is doubtful from the start (contract sheet 2a).
#[must_use]
pub fn lock_doubt(family: Option<ProductFamily>) -> Option<Explanation> {
    let kind = match family? {
        ProductFamily::Mac => "a Mac",
        ProductFamily::Vision => "a Vision Pro",
        ProductFamily::Mobile => return None,
        _ => "a device of this kind",
    };
    Some(words(
        format!(
            "Whether Apple locks {kind} for an organisation is unverified: Apple's own pages contradict each other."
        ),
        "It is tried, and Apple's answer is believed.",
        "Nothing.",
    ))
}

/// What Apple's own status says (contract sheet 4.3). `None` where it says nothing that is described.
#[must_use]
pub fn status(status: Option<LockStatus>) -> Explanation {
    match status {
        Some(LockStatus::None) => words(
            "Apple says that the device is not locked.",
            "There is nothing to unlock. How soon this follows a change is unverified; allow some minutes.",
            "Nothing.",
        ),
        Some(LockStatus::User) => words(
            "Apple says that a person has locked the device.",
            "The device's own code opens this lock.",
            "To unlock it, ask for an unlock: codes of the device are tried first.",
        ),
        Some(LockStatus::Mdm) => words(
            "Apple says that the organisation has locked the device.",
            "The code made for that lock opens it.",
            "To unlock it, ask for an unlock: codes made for such locks are tried first.",
        ),
        None => words(
            "Apple's status of this device does not say what is described.",
            "Nothing can be concluded from it; its words are kept as they came.",
            format!("To know more, {WITHOUT_OUR_CODES}"),
        ),
    }
}
