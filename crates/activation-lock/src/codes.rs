//! The codes of a device: what is kept, what replaces what (R1-R3), and which is tried next (R12).

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::bypass_code::BypassCode;
use crate::device::DeviceIdentity;
use crate::time::Timestamp;

/// The text of a code as a device, an import or a person gave it, kept byte for byte (R3). Never empty.
///
/// It cannot be printed, compared by accident or serialised, and is wiped when dropped.
pub struct CodeText(Zeroizing<String>);

/// How a code's text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextShape {
    /// Exactly Apple's form.
    Canonical,
    /// Becomes Apple's form when case, spaces and dashes are put right.
    Lenient,
    /// Not a bypass code as far as we can tell; kept and tried all the same.
    Opaque,
}

impl CodeText {
    /// Takes a text as it came. `None` when there is nothing in it but white space: that means "no code" and
    /// replaces nothing (R1).
    #[must_use]
    pub fn new(text: String) -> Option<Self> {
        let text = Zeroizing::new(text);
        (!text.trim().is_empty()).then_some(Self(text))
    }

    /// The plaintext. Named so that every use can be found.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The code that a lenient reading finds in the text.
    #[must_use]
    pub fn code(&self) -> Option<BypassCode> {
        BypassCode::parse_lenient(&self.0).ok()
    }

    /// How the text is written.
    #[must_use]
    pub fn shape(&self) -> TextShape {
        match self.code() {
            None => TextShape::Opaque,
            Some(code) if code.to_text().as_bytes() == self.0.as_bytes() => TextShape::Canonical,
            Some(_) => TextShape::Lenient,
        }
    }

    /// What two texts are compared and fingerprinted by: Apple's form where the text can be read as one,
    /// the bytes as they are otherwise (R3).
    #[must_use]
    pub fn comparison_form(&self) -> Zeroizing<Vec<u8>> {
        match self.code() {
            Some(code) => Zeroizing::new(code.to_text().as_bytes().to_vec()),
            None => Zeroizing::new(self.0.as_bytes().to_vec()),
        }
    }

    /// Whether both are the same code (R1, R3), in constant time for texts of one length.
    #[must_use]
    pub fn is_same_code(&self, other: &Self) -> bool {
        self.comparison_form()
            .ct_eq(&other.comparison_form())
            .into()
    }

    /// The text to send to Apple for one of the forms of this code.
    #[must_use]
    pub fn in_form(&self, form: Form) -> Zeroizing<String> {
        match (form, self.code()) {
            (Form::Canonical, Some(code)) => code.to_text(),
            _ => self.0.clone(),
        }
    }
}

impl Clone for CodeText {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The identifier of a code's row; one a code and device, for ever (R1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CodeId(pub String);

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable text kept in the database and shown in the API.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = crate::codes::UnknownName;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|v| v.as_str() == text)
                    .ok_or(crate::codes::UnknownName { what: stringify!($name) })
            }
        }
    };
}
pub(crate) use named;

/// A text that is none of the stable names of an enumeration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a known {what}")]
pub struct UnknownName {
    /// The enumeration it was read for.
    pub what: &'static str,
}

named! {
    /// Who made a code (contract sheet 0.1).
    CodeKind {
        /// The device, for the lock of a person.
        Device = "device",
        /// This server, for a lock of its own.
        Server = "server",
        /// Imported without saying; tried as both.
        Unknown = "unknown",
    }
}

named! {
    /// How a code came to be known.
    CodeOrigin {
        /// A device answered with it.
        Device = "device",
        /// Made here for an organisation lock.
        Made = "made",
        /// Carried over from another system.
        Import = "import",
        /// A person typed it.
        Person = "person",
    }
}

named! {
    /// How a device's answer stands to what was asked.
    Standing {
        /// The answer to the newest ask of the live epoch. Only this one moves the current code (R1).
        Newest = "newest",
        /// The answer to an earlier ask, or of an earlier epoch.
        Late = "late",
        /// The answer to a command of ours that already had its final answer.
        Repeated = "repeated",
        /// Nobody here asked, the command is unknown, or it asked for something else.
        Unsolicited = "unsolicited",
        /// From an epoch in quarantine or in conflict (R5).
        Disputed = "disputed",
    }
}

/// What is done with a code that a device reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The code row the answer belongs to: an existing one, or `None` for a new row.
    pub existing: Option<CodeId>,
    /// Whether it becomes (or stays) the current device code.
    pub current: bool,
    /// Whether the code now current differs from the one before: the replaced one goes to history.
    pub replaces: bool,
    /// Whether the guard counts it as "a code observed in this epoch" (R7).
    pub opens_guard: bool,
    /// Whether the device is to be asked again at once.
    pub ask_again: bool,
}

/// What a non-empty answer of a device changes (R1). Empty, missing and failed answers change nothing and
/// do not come here.
///
/// `current` is the device's current device code, `same` the row that already holds this very code.
#[must_use]
pub fn retain(current: Option<&CodeId>, same: Option<&CodeId>, standing: Standing) -> Retention {
    let newest = standing == Standing::Newest;
    let ask_again = match standing {
        // In a dispute or in quarantine no answer would settle anything, and asking would not end.
        Standing::Newest | Standing::Disputed => false,
        // The same answer told twice is one answer (R22).
        Standing::Repeated => same.is_none(),
        Standing::Late | Standing::Unsolicited => true,
    };
    Retention {
        existing: same.cloned(),
        current: newest || (same.is_some() && same == current),
        replaces: newest && current.is_some() && same != current,
        opens_guard: newest,
        ask_again,
    }
}

/// One of the texts that a code may be sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Byte for byte as the device sent it.
    Reported,
    /// Apple's form of it.
    Canonical,
    /// Byte for byte as it was imported or typed.
    Kept,
}

impl Form {
    /// The stable text kept in the database and shown in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Canonical => "canonical",
            Self::Kept => "kept",
        }
    }
}

/// The forms a code is sent in, first to last (R3): what a device sent goes out as it came; what was imported
/// or typed goes out in Apple's form first and as it was kept second.
///
/// `shape` is that of the kept text; `reported` says whether a device ever sent this code, and
/// `reported_as_kept` whether it did so in the very bytes that are kept.
#[must_use]
pub fn forms(shape: TextShape, reported: bool, reported_as_kept: bool) -> Vec<Form> {
    let mut forms = Vec::with_capacity(3);
    if reported {
        forms.push(Form::Reported);
        if reported_as_kept {
            return forms;
        }
    }
    match shape {
        // A canonical text that a device reported in another writing is its own canonical form.
        TextShape::Canonical | TextShape::Lenient => forms.push(Form::Canonical),
        TextShape::Opaque => {}
    }
    if shape != TextShape::Canonical {
        forms.push(Form::Kept);
    }
    forms
}

/// Whose word the lock status is, and what it says (contract sheet 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockStatus {
    /// Locked by the organisation.
    Mdm,
    /// Locked by a person.
    User,
    /// Not locked.
    None,
}

/// A stored code worth trying on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its row.
    pub code: CodeId,
    /// Who made it.
    pub kind: CodeKind,
    /// Whether it is the current code of its kind; everything else is history or unsolicited.
    pub current: bool,
    /// Whether a lock of ours with this code is on or may be on (R4, R20). Only ever true of server codes.
    pub possibly_live: bool,
    /// The forms to send, from [`forms`]; never empty.
    pub forms: Vec<Form>,
    /// Whether the text can be read as a bypass code.
    pub parses: bool,
    /// When it was last seen or made.
    pub last_seen: Timestamp,
    /// The push topic under which it was obtained, if any (R18).
    pub topic: Option<String>,
}

/// What authenticates us to Apple: a push certificate of our own, or an MDM that calls Apple for us (R19).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Credential {
    /// Names this very certificate or connection secret; changes when it is renewed.
    pub id: String,
    /// The push topic, which stays the same when it is renewed.
    pub topic: String,
}

/// One thing to try: which code, in which writing, for which identity, with which credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Try {
    /// The code's row.
    pub code: CodeId,
    /// The writing of it.
    pub form: Form,
    /// Whether the text can be read as a bypass code; a 400 for one that cannot does not stop the search (R13).
    pub parses: bool,
    /// Outside the cap: a server code that may be live (R12).
    pub uncapped: bool,
    /// The identity sent.
    pub identity: DeviceIdentity,
    /// Whether `identity` is the known one with its IMEIs swapped (R18).
    pub swapped: bool,
    /// The credential used.
    pub credential: Credential,
}

impl Try {
    /// Whether both are the same triple (code, identity, certificate). A renewed certificate of the same topic
    /// is the same certificate here: Apple saw the same customer.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.code == other.code
            && self.form == other.form
            && self.identity == other.identity
            && self.credential.topic == other.credential.topic
    }
}

/// What the order of tries depends on.
pub struct Plan<'a> {
    /// The device's codes, in any order.
    pub candidates: &'a [Candidate],
    /// The device, as it will be named to Apple.
    pub identity: &'a DeviceIdentity,
    /// The IMEIs came from a list that names no slots (R18).
    pub imeis_without_slots: bool,
    /// What can authenticate us, the device's own topic first.
    pub credentials: &'a [Credential],
    /// Apple's own word on the lock, when known.
    pub status: Option<LockStatus>,
    /// Triples that Apple answered with 404 in earlier unlocks.
    pub refused_before: &'a [Try],
}

/// Everything that can be tried, first to last (R12).
#[must_use]
pub fn order(plan: &Plan<'_>) -> Vec<Try> {
    let mut ranked: Vec<&Candidate> = plan.candidates.iter().collect();
    let first = first_kind(plan);
    ranked.sort_by_key(|c| {
        (
            !c.parses,
            rank(c, plan.status, first),
            // A lock that may be on before one that is not.
            !c.possibly_live,
            std::cmp::Reverse(c.last_seen),
            c.code.clone(),
        )
    });

    let with = |candidate: &Candidate, form: Form, credential: &Credential| Try {
        code: candidate.code.clone(),
        form,
        parses: candidate.parses,
        uncapped: candidate.possibly_live,
        identity: plan.identity.clone(),
        swapped: false,
        credential: credential.clone(),
    };

    let mut tries = Vec::new();
    // Every code in its first writing, then the other writings of those that parse; ranked puts texts
    // that do not parse last, and they have one writing each.
    for parses in [true, false] {
        for writing in 0..3 {
            for candidate in ranked.iter().filter(|c| c.parses == parses) {
                if let (Some(&form), Some(credential)) = (
                    candidate.forms.get(writing),
                    best_credential(candidate, plan.credentials),
                ) {
                    tries.push(with(candidate, form, credential));
                }
            }
        }
    }
    if plan.imeis_without_slots
        && let Some(swapped) = plan.identity.with_imeis_swapped()
        && let Some(first) = tries.first().cloned()
    {
        tries.push(Try {
            identity: swapped,
            swapped: true,
            ..first
        });
    }
    // Last, whether Apple ties a certificate to a device being unknown (contract sheet 1.13): other
    // certificates.
    for candidate in &ranked {
        let best = best_credential(candidate, plan.credentials);
        for credential in plan.credentials.iter().filter(|c| Some(*c) != best) {
            if let Some(&form) = candidate.forms.first() {
                tries.push(with(candidate, form, credential));
            }
        }
    }
    tries.sort_by_key(|t| plan.refused_before.iter().any(|earlier| earlier.is_same(t)));
    tries
}

/// What it goes by that one kind of code is tried before the other (R12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstBecause {
    /// Apple says that the organisation's lock is on: codes made for such locks first.
    OrganisationLock,
    /// Apple says that a person's lock is on: the device's own codes first.
    UserLock,
    /// Apple says that no lock is on: nothing is tried unless a person insists.
    NotLocked,
    /// Apple's word is not known, and a lock of ours may be on: its code first.
    MayBeOurs,
    /// Apple's word is not known, and no lock of ours is: the device's own codes first.
    Nothing,
}

/// What the order of a device's codes goes by.
#[must_use]
pub fn first_because(status: Option<LockStatus>, candidates: &[Candidate]) -> FirstBecause {
    match status {
        Some(LockStatus::Mdm) => FirstBecause::OrganisationLock,
        Some(LockStatus::User) => FirstBecause::UserLock,
        Some(LockStatus::None) => FirstBecause::NotLocked,
        None if candidates.iter().any(|c| c.possibly_live) => FirstBecause::MayBeOurs,
        None => FirstBecause::Nothing,
    }
}

fn first_kind(plan: &Plan<'_>) -> CodeKind {
    match first_because(plan.status, plan.candidates) {
        FirstBecause::OrganisationLock | FirstBecause::MayBeOurs => CodeKind::Server,
        FirstBecause::NotLocked if plan.candidates.iter().any(|c| c.possibly_live) => {
            CodeKind::Server
        }
        FirstBecause::UserLock | FirstBecause::NotLocked | FirstBecause::Nothing => {
            CodeKind::Device
        }
    }
}

/// Lower is tried earlier.
fn rank(candidate: &Candidate, status: Option<LockStatus>, first: CodeKind) -> u8 {
    let fresh = candidate.current || candidate.possibly_live;
    match status {
        // Apple says whose lock it is: every code of that kind, old ones too, before any other.
        Some(LockStatus::Mdm | LockStatus::User) => match (candidate.kind, fresh) {
            (kind, true) if kind == first => 0,
            (kind, false) if kind == first => 1,
            (CodeKind::Unknown, _) => 2,
            (_, true) => 3,
            (_, false) => 4,
        },
        _ => match (candidate.kind, fresh) {
            (kind, true) if kind == first => 0,
            (CodeKind::Unknown, true) => 2,
            (_, true) => 1,
            (_, false) => 3,
        },
    }
}

fn best_credential<'a>(
    candidate: &Candidate,
    credentials: &'a [Credential],
) -> Option<&'a Credential> {
    candidate
        .topic
        .as_ref()
        .and_then(|topic| credentials.iter().find(|c| c.topic == *topic))
        .or_else(|| credentials.first())
}
