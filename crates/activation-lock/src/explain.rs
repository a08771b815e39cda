//! Every outcome in words: what happened, what it means for the device, what to do.
//!
//! The same words appear in the API, on the command line and in the console. They are for a service desk: no term of the
//! trade without its meaning. Where Apple documents nothing, they say "unverified" (contract sheet, section 9).

use std::borrow::Cow;

use serde::Serialize;

use crate::asking::{NotAsked, Refusal};
use crate::codes::FirstBecause;
use crate::device::ProductFamily;
use crate::guard::{AllowedBeforeEscrow, MacWarning, Nothing};
use crate::unlock::{AttemptResult, End, Outcome, RejectedWhy, ReviewReason, WaitReason};

use crate::window::Window;

pub mod batch;
pub mod lock;

/// Something that happened, in three answers of one or more sentences each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What happened.
    pub happened: Cow<'static, str>,
    /// What it means for the device.
    pub means: Cow<'static, str>,
    /// What to do.
    pub to_do: Cow<'static, str>,
}

fn words(
    happened: impl Into<Cow<'static, str>>,
    means: impl Into<Cow<'static, str>>,
    to_do: impl Into<Cow<'static, str>>,
) -> Explanation {
    Explanation {
        happened: happened.into(),
        means: means.into(),
        to_do: to_do.into(),
    }
}

/// What to do once Apple has accepted a code (contract sheet 1.21 to 1.23).
const AFTER_UNLOCKING: &str = "Erase the device soon: while it is in use, opening Find My locks it again. A device that \
     already shows the Activation Lock screen has to ask Apple once more: give it a network and restart it, or go back \
     one screen and continue. A Mac does this in Recovery.";
/// The ways out that need no code of ours (contract sheet 5.5, 5.14).
const WITHOUT_OUR_CODES: &str = "look at the device. If it is locked, somebody with the Manage Devices privilege can turn \
     the lock off in Apple Business Manager or Apple School Manager, provided the device was added there before it was \
     locked and has not been released; or the person who locked it signs in; or AppleCare removes the lock against proof \
     of purchase.";
const COMPARE_IDENTITY: &str = "compare the serial number, the product type (such as iPad4,1) and the IMEI shown here \
     with the device, and correct them by hand if they differ";
const MEND_CREDENTIAL: &str = "Check the push certificate (the certificate by which device management is known to Apple): \
     it may be missing, expired, revoked, or not the one that this device enrolled with. If the device management server \
     calls Apple for us, check the key by which we log in there.";

/// Why the codes of a device are tried in the order in which they are (R12).
#[must_use]
pub fn order(why: FirstBecause) -> &'static str {
    match why {
        FirstBecause::OrganisationLock => {
            "Apple's own status says that the organisation's lock is on: the codes that were made for it go first."
        }
        FirstBecause::UserLock => {
            "Apple's own status says that a person's lock is on: the codes that the device made go first."
        }
        FirstBecause::NotLocked => {
            "Apple's own status says that no lock is on: nothing is tried unless you insist."
        }
        FirstBecause::MayBeOurs => {
            "Apple's own status is not known, and a lock of the organisation may be on: its code goes first."
        }
        FirstBecause::Nothing => {
            "Apple's own status is not known, and no lock of the organisation is on as far as we know: the codes that the device made go \
             first."
        }
    }
}

/// One attempt on record.
///
/// `status` is the HTTP status of Apple's answer, if there was one.
#[must_use]
pub fn attempt(result: &AttemptResult, status: Option<u16>) -> Explanation {
    match result {
        AttemptResult::InFlight => words(
            "The request is on its way to Apple.",
            "Nothing is decided yet.",
            "Wait; Apple answers within a minute, or the request is given up as unanswered.",
        ),
        AttemptResult::Lost => words(
            "The program stopped, or lost its turn, while this request was on its way to Apple.",
            "Apple may have accepted the code or not; nobody saw the answer.",
            "Nothing: the same code is asked about again.",
        ),
        AttemptResult::Ended { outcome, .. } => self::outcome(*outcome, status),
    }
}

/// What one call with one code meant (R13).
///
/// `status` is the HTTP status of Apple's answer, if there was one.
#[must_use]
pub fn outcome(outcome: Outcome, status: Option<u16>) -> Explanation {
    let answered = |sentence: &str| match status {
        Some(status) => format!("{sentence} (answer {status})."),
        None => format!("{sentence}."),
    };
    match outcome {
        Outcome::Unlocked => words(
            answered("Apple accepted the code"),
            "Activation Lock is off for this device. Nothing shows on the device itself at once.",
            AFTER_UNLOCKING,
        ),
        Outcome::Refused => words(
            answered("Apple refused this code for this device"),
            "Either this is not the code that holds the lock, or Apple finds no device with this serial number, product \
             type and IMEI: Apple gives the same answer to both. A device that is not locked may get it too (unverified).",
            format!("Nothing: the next known code is tried by itself. If none is left, {COMPARE_IDENTITY}."),
        ),
        Outcome::Malformed => words(
            answered("Apple could not read the request"),
            "Nothing was decided about the lock. The code is hardly to blame, unless it is a text that does not look \
             like a code at all: then it is passed over and the next one is tried.",
            format!("If the unlock has stopped: {COMPARE_IDENTITY}; then let it continue."),
        ),
        Outcome::Credential => words(
            match status {
                Some(status) => format!("Apple did not accept who we are (answer {status})."),
                None => "Apple did not accept who we are: the secure connection was refused, or we had no valid \
                         certificate to show."
                    .to_owned(),
            },
            "This says nothing about the device or its codes; no code is blamed. Apple does not document this answer, so \
             this reading of it is unverified.",
            MEND_CREDENTIAL,
        ),
        Outcome::Unavailable => words(
            match status {
                Some(429) => "Apple asked us to come back later because of too many requests (answer 429).".to_owned(),
                Some(status) => format!("Apple asked us to come back later (answer {status})."),
                None => "Apple could not be reached: no request was sent.".to_owned(),
            },
            match status {
                Some(_) => {
                    "The lock is most likely as it was. Apple documents neither this answer nor its limits here, so this \
                     reading is unverified."
                }
                None => "The lock is as it was.",
            },
            "Nothing: the same code is tried again by itself. If it lasts longer than an hour, check that this server \
             reaches deviceservices-external.apple.com on port 443 and that nothing between inspects the encrypted \
             traffic.",
        ),
        Outcome::Unknown => words(
            match status {
                Some(status) => format!("The request reached Apple, and the answer does not say what became of it (answer {status})."),
                None => "The request was sent, and no complete answer came back.".to_owned(),
            },
            "Apple may have turned the lock off or not; it cannot be told from here.",
            "Nothing: the same code is asked about again, until there is a definite answer. With the device in hand, see \
             whether it is still locked.",
        ),
        Outcome::Unexpected => words(
            answered("An answer came that Apple does not describe"),
            "Nothing can be said about the lock (unverified). Such answers often come from something between us and \
             Apple, such as a proxy server.",
            "Find out what answered: the text of the answer is kept with this attempt. Then let the unlock continue, or \
             cancel it.",
        ),
    }
}

/// An unlock that nothing was done for yet (R15).
#[must_use]
pub fn queued() -> Explanation {
    words(
        "The unlock was asked for and stands in the queue.",
        "Nothing is decided yet.",
        "Nothing: it begins by itself.",
    )
}

/// An unlock that is being worked on (R15).
#[must_use]
pub fn running() -> Explanation {
    words(
        "Codes of the device are being tried through Apple, one after the other.",
        "Nothing is decided yet; the attempts show what was answered so far.",
        "Wait. It goes on by itself.",
    )
}

/// What a waiting unlock waits for (R15).
#[must_use]
pub fn waiting(why: WaitReason) -> Explanation {
    match why {
        WaitReason::Unavailable => words(
            "Apple could not be reached, or asked us to come back later.",
            "The lock is most likely as it was. No other code is spent meanwhile.",
            "Nothing: the same code is tried again by itself, at the time shown.",
        ),
        WaitReason::NoAnswer => words(
            "The last request was sent, and no definite answer came back.",
            "Apple may have turned the lock off or not. No other code is tried before this is settled.",
            "Nothing: the same code is asked about again by itself, at the time shown.",
        ),
        WaitReason::Credential => words(
            "Apple, or the device management server that calls Apple for us, did not accept who we are.",
            "No code was judged and none is blamed. The unlock goes on by itself once this is mended; if it is not, it \
             ends at its deadline for a person to look at.",
            MEND_CREDENTIAL,
        ),
        WaitReason::NoCredential => words(
            "There is nothing to identify us to Apple: no push certificate, and no device management server that calls \
             Apple for us.",
            "No request was sent; the lock is as it was. The unlock goes on by itself once there is one.",
            "Add the push certificate (the certificate by which device management is known to Apple), or let the device \
             management server make the call.",
        ),
    }
}

/// How an unlock ended (R15).
#[must_use]
pub fn end(end: &End) -> Explanation {
    match end {
        End::Unlocked { .. } => words(
            "Apple accepted a code.",
            "Activation Lock is off for this device. Nothing shows on the device itself at once.",
            AFTER_UNLOCKING,
        ),
        End::ProbablyUnlocked => words(
            "Apple refused every known code, but only after a request that got no answer.",
            "That request has probably turned the lock off, since a code that was used is refused afterwards. This is \
             unverified: nobody saw Apple accept a code.",
            format!(
                "Make sure: restart the device with a network and {WITHOUT_OUR_CODES} If it is unlocked, erase it soon."
            ),
        ),
        End::Rejected { why } => rejected(*why),
        End::NotLocked => words(
            "Apple's own status says that the device is not locked. No further code was tried.",
            "There is nothing to unlock. How soon that status follows a change is unverified; allow some minutes.",
            "If the device shows the Activation Lock screen all the same, restart it with a network; if it stays, ask for \
             the unlock again and insist.",
        ),
        End::NeedsReview { why, untried } => review(*why, *untried),
        End::Cancelled { by } => words(
            format!("{by} cancelled the unlock."),
            "No code was accepted for it. Whether the device is locked is as it was before, or as the attempts shown say.",
            "Ask again when the device is to be unlocked.",
        ),
    }
}

/// Why every code was refused (T13).
fn rejected(why: RejectedWhy) -> Explanation {
    match why {
        RejectedWhy::LockedByUser => words(
            "Apple refused every known code, and its own status says that a person has locked the device.",
            "It is locked with an Apple Account and Find My, and no code that opens this lock is held here.",
            format!(
                "Ask the person to sign in on the device, or to remove it in their own Find My. Else, {WITHOUT_OUR_CODES}"
            ),
        ),
        RejectedWhy::LockedByOrganisation => words(
            "Apple refused every known code, and its own status says that the organisation has locked the device.",
            "The lock was set with a code that nobody here holds, such as one of an earlier device management system; or \
             Apple does not know the device by this serial number, product type and IMEI.",
            format!(
                "First, {COMPARE_IDENTITY}. If there is a code of the earlier system, add it. Else, {WITHOUT_OUR_CODES}"
            ),
        ),
        RejectedWhy::CannotTell => words(
            "Apple refused every known code.",
            "It cannot be told why: the device may be locked with a code that nobody here holds, Apple may not know it \
             by this serial number, product type and IMEI, or it may not be locked at all (what Apple answers then is \
             unverified).",
            format!("First, {COMPARE_IDENTITY}. Then {WITHOUT_OUR_CODES}"),
        ),
    }
}

/// Why an unlock needs a person (R15). `untried` is how many tries it left undone.
#[must_use]
pub fn review(why: ReviewReason, untried: usize) -> Explanation {
    let left = match untried {
        0 => "Nothing is left to try.".to_owned(),
        1 => "One try is left.".to_owned(),
        many => format!("{many} tries are left."),
    };
    match why {
        ReviewReason::Malformed if untried == 0 => words(
            "Apple refused every code that it could read, and could not read one of the texts that are kept as codes.",
            "None of the codes was accepted. Where a request got no answer, that one may have turned the lock off all the \
             same (unverified).",
            format!(
                "See which text was not read: it is shown as one that does not look like a code, and may have been \
                 mistyped. Else, {WITHOUT_OUR_CODES}"
            ),
        ),
        ReviewReason::Malformed => words(
            "Apple could not read the request and the unlock stopped.",
            format!(
                "Nothing was decided about the lock: other codes would get the same answer. {left}"
            ),
            format!("First, {COMPARE_IDENTITY}. Then let the unlock continue."),
        ),
        ReviewReason::Unexpected => words(
            "An answer came that Apple does not describe, and the unlock stopped.",
            format!("Nothing can be said about the lock (unverified). {left}"),
            "Find out what answered: the text of the answer is kept with the attempt, and it may come from a proxy server \
             between us and Apple. Then let the unlock continue.",
        ),
        ReviewReason::Cap => words(
            "The limit of attempts for one unlock, or for one device in a day, was reached.",
            format!(
                "The codes tried so far were not accepted. Whether Apple locks out after too many wrong codes is \
                 unverified; the limit is there in case it does. {left}"
            ),
            format!(
                "Before spending more, {COMPARE_IDENTITY}. Then let the unlock continue, or try tomorrow."
            ),
        ),
        ReviewReason::NoCandidate => words(
            "No code of this device is known.",
            "Nothing was sent to Apple; the lock is as it was.",
            format!(
                "If the previous device management system, or anybody, has a code of this device, add it and let the \
                 unlock continue. Else, {WITHOUT_OUR_CODES}"
            ),
        ),
        ReviewReason::NoProductType => words(
            "The product type of this device is not known.",
            "Apple demands it, so nothing was sent; the lock is as it was.",
            "Set the product type by hand: it is the hardware's own name, such as iPad4,1 or MacBookPro17,1, and neither \
             the order number nor a name like iPhone XR. Or let the device enrol, which tells it. Then ask again.",
        ),
        ReviewReason::Deadline => words(
            "There was no definite answer until the deadline of this unlock.",
            format!(
                "Look at the last attempt: unless it says that no request was sent, the lock may be off or on. {left}"
            ),
            "See whether the device is still locked. If it is, mend what the attempts complain about and let the unlock \
             continue.",
        ),
        ReviewReason::NewEpoch => words(
            "The device enrolled anew after this unlock was asked for.",
            format!(
                "It was most likely erased and set up again, perhaps for somebody else, and has a new code. Whoever asked \
                 may not mean this device any more. {left}"
            ),
            "Make sure that the device is to be unlocked as it is now. Then let the unlock continue, or cancel it.",
        ),
        ReviewReason::LockedSince => words(
            "A lock of this device was asked for after this unlock was.",
            format!("Going on would undo that lock. {left}"),
            "Find out which of the two is meant. Then let the unlock continue, or cancel it.",
        ),
        ReviewReason::PossiblyDone => words(
            "Apple refused every known code, but the program stopped once while a request was on its way.",
            "That request may have turned the lock off (unverified): a code that was used is refused afterwards.",
            format!(
                "Restart the device with a network and {WITHOUT_OUR_CODES} If it is unlocked, erase it soon."
            ),
        ),
        ReviewReason::Restored => words(
            "This record comes from a backup or from a copy of the database.",
            format!(
                "The unlock may have gone on elsewhere since, so that nothing was sent from here. {left}"
            ),
            "See whether the device is still locked and whether it still is to be unlocked. Then let the unlock continue.",
        ),
        ReviewReason::DelegateFails => words(
            "The device management server that calls Apple for us failed three times.",
            format!(
                "Its error does not say whether Apple was asked: the lock may be off or on. {left}"
            ),
            "Look into that server's log, and see whether the device is still locked. Then let the unlock continue, or \
             let it use a push certificate of our own.",
        ),
    }
}

/// Why a device is not asked for a code (R10).
#[must_use]
pub fn not_asked(why: NotAsked) -> Explanation {
    match why {
        NotAsked::UserChannel => words(
            "This is one person's channel on a device.",
            "Codes belong to the device as a whole, which is asked through its own channel.",
            "Nothing.",
        ),
        NotAsked::UserEnrollment => words(
            "The device belongs to a person, who enrolled it for work (User Enrollment).",
            "Apple lets no organisation have the code of such a device. Only its owner can unlock it.",
            "Nothing, if that is as meant. A device of the organisation has to be erased and enrolled as one.",
        ),
        NotAsked::SharedIpad => words(
            "The device is a Shared iPad.",
            "Apple forbids asking a Shared iPad for a code. A lock that the organisation sets through Apple opens with \
             the code made for that lock.",
            "Nothing.",
        ),
        NotAsked::AppleTv => words(
            "The device is an Apple TV.",
            "An Apple TV has no code to give.",
            "Nothing.",
        ),
        NotAsked::AppleWatch => words(
            "The device is an Apple Watch.",
            "Device management cannot ask an Apple Watch for a code.",
            "Turn a lock off in Apple Business Manager or Apple School Manager, if the watch was added there.",
        ),
        NotAsked::Unsupervised => words(
            "The device is not supervised (set up as the organisation's own).",
            "Such a device makes no code. If its user turns Find My on it is locked, and only that person can unlock it.",
            "Add the device to Apple Business Manager or Apple School Manager, or prepare it with Apple Configurator, and \
             erase it: it is then supervised when it enrols.",
        ),
    }
}

/// How a device refused to give a code (R10). Asking goes on, once a week.
#[must_use]
pub fn refusal(refusal: Refusal) -> Explanation {
    match refusal {
        Refusal::NotSupported => words(
            "The device answered that it does not know the question for a code (error 12021).",
            "It may be of a kind that has no code; Apple advises against relying on error numbers, so this is unverified. \
             An older code is kept. It is asked again once a week.",
            "If it is an iPhone, iPad, Mac or Vision Pro, bring its system up to date and ask again.",
        ),
        Refusal::NotSupervised => words(
            "The device answered that it is not supervised, that is, not set up as the organisation's own (error 29000).",
            "It has no code to give; Apple advises against relying on error numbers, so this is unverified. An older code \
             is kept. It is asked again once a week.",
            "Add the device to Apple Business Manager or Apple School Manager, or prepare it with Apple Configurator, and \
             erase it: it is then supervised when it enrols.",
        ),
    }
}

/// How it stands with getting a device's code (R9). `None` when there is one.
#[must_use]
pub fn window(window: &Window) -> Option<Explanation> {
    let days = |days: u8| {
        if days == 1 {
            "one day".to_owned()
        } else {
            format!("{days} days")
        }
    };
    Some(match window {
        Window::Satisfied => return None,
        Window::Unknown => words(
            "The device has given no code since it enrolled, and it is not known when it was set up.",
            "A device gives its code only in the first 15 days. They may be running or long over.",
            "Make sure that the device is switched on and has a network; it is asked again by itself. If it stays without \
             a code, only an erase and a new enrolment give it a new one. Do not let it be locked before.",
        ),
        Window::Open { days_left, .. } => words(
            "The device has given no code yet.",
            format!(
                "A device gives its code only in the first 15 days; {} left.",
                days(*days_left)
            ),
            "Nothing: it is asked again every day.",
        ),
        Window::Closing { days_left, .. } => words(
            "The device has given no code for ten days or more.",
            format!(
                "A device gives its code only in the first 15 days; {} left.",
                days(*days_left)
            ),
            "Make sure that the device is switched on, unlocked at least once since its last restart, and has a network. \
             Look at how it answered so far.",
        ),
        Window::Closed { .. } => words(
            "The device has given no code in its first 15 days.",
            "It will probably give none any more. If a person locks it, it cannot be unlocked from here.",
            "Do not allow Activation Lock for it. To get a code, erase it and enrol it again; until then it is asked once \
             a week.",
        ),
    })
}

/// Why no permission to lock is sent to a device (R7).
#[must_use]
pub fn no_permission(why: Nothing) -> Explanation {
    match why {
        Nothing::PolicyLeave => words(
            "The organisation's policy is to leave the permission to lock alone.",
            "Whether a person can lock the device is decided elsewhere, or by the device's own default, which is no.",
            "Nothing, or choose the policy \"allow\" or \"deny\".",
        ),
        Nothing::NotAsked => words(
            "The device is not of a kind that gives a code.",
            "Nothing about its lock is changed from here.",
            "Nothing.",
        ),
        Nothing::NoCodeYet => words(
            "No code was had from the device since it enrolled.",
            "Locking is not allowed until there is one: a lock that comes first may not open with the code.",
            "Nothing: permission follows the code by itself.",
        ),
        Nothing::FamilyUnknown => words(
            "It is not known what kind of device this is.",
            "A Mac may be locked only if it says that its lock can be managed, so locking is not allowed until the kind is \
             known.",
            "Wait for the device to tell its product type, or set it by hand.",
        ),
        Nothing::NotManageable => words(
            "The Mac says that its Activation Lock cannot be managed.",
            "Locking is not allowed: a lock could not be taken off from here.",
            "Enrol the Mac through Apple Business Manager or Apple School Manager. Macs with neither an Apple chip nor a \
             T2 chip have no Activation Lock.",
        ),
        Nothing::Pending => words(
            "The permission was sent and the device has not answered yet.",
            "It takes effect when the device is next awake and has a network.",
            "Nothing.",
        ),
        Nothing::Refused => words(
            "The device refused the permission.",
            "Whether a person can lock it is as it was before.",
            "Look at the error the device gave. When the reason is mended, send the permission again.",
        ),
        Nothing::ReadsOtherwise => words(
            "The device confirmed the permission, and on being asked reports the opposite.",
            "Something else sets it, or the device ignores it, as unsupervised devices do.",
            "See whether the device management system sets the same option. Then send the permission again.",
        ),
        Nothing::AsWanted => words(
            "The permission is set as the policy wants it.",
            "Nothing has to change.",
            "Nothing.",
        ),
    }
}

/// The gap "allowed before escrow": the lock was allowed before the code was had (R7).
#[must_use]
pub fn allowed_before_escrow(gap: AllowedBeforeEscrow) -> Explanation {
    let happened = match gap {
        AllowedBeforeEscrow::Certain => {
            "The device allowed its user to lock it before its code was had."
        }
        AllowedBeforeEscrow::Possible => {
            "The device allowed its user to lock it when we first looked. Nobody knows since when."
        }
    };
    words(
        happened,
        "If it was locked in between, the code that is kept may not open it.",
        "Treat the code as doubtful. Turn Find My off and on again on the device while it is at hand, then have its code \
         asked for anew; only an erase and a new enrolment make it certain (unverified).",
    )
}

/// What is wrong with the lock of a Mac from the start (T26).
#[must_use]
pub fn mac_warning(warning: MacWarning) -> Explanation {
    match warning {
        MacWarning::NotManageable => no_permission(Nothing::NotManageable),
        MacWarning::LockedBeforeEnrolment => words(
            "Find My was probably on before the Mac enrolled.",
            "The Mac may be locked by its user already. Device management cannot take that lock off, and the code that is \
             kept does not open it.",
            "Ask its user to turn Find My off and on again. Macs that enrol through Apple Business Manager or Apple School \
             Manager at their first start do not get into this state.",
        ),
    }
}

/// How a person types a code on a device (contract sheet 1d). `family` is `None` where the product type is not known.
#[must_use]
pub fn how_to_type(family: Option<ProductFamily>) -> String {
    const SCREEN: &str =
        "On the Activation Lock screen leave the user name empty and type the code as the password";
    const RECOVERY: &str = "in the Activation Lock window of Recovery choose Recovery Assistant in the menu bar, then \
         \"Activate with MDM key...\", and type the code";
    let how = match family {
        Some(ProductFamily::Mobile) => format!("{SCREEN}."),
        Some(ProductFamily::Vision) => format!("{SCREEN} (unverified on this device)."),
        Some(ProductFamily::Mac) => format!("On the Mac, {RECOVERY}."),
        _ => format!("{SCREEN}. On a Mac, {RECOVERY}."),
    };
    format!("{how} Type it as shown, dashes included. The device needs a network.")
}

/// What seeing a code means for it (R8): it changes nothing, and the device decides when it makes another.
#[must_use]
pub fn after_a_reveal() -> &'static str {
    "The code stays good until the device reports another one. It is kept on record who saw it, and the device is asked for its code \
     again."
}

#[cfg(test)]
mod tests;
