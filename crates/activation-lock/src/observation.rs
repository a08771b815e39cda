//! What an MDM told about a device: the one shape between connectors, Apple's formats and the vault.

use crate::codes::CodeText;
use crate::device::{CellularIdentity, ProductType, SerialNumber};
use crate::time::Timestamp;

/// What kind of enrollment an event came from (NanoMDM's `ids.type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EnrollmentKind {
    /// The device channel. Only this one can be asked for a code (R10).
    Device,
    /// A person's channel on a device.
    User,
    /// The device channel of a User Enrollment: no serial number, no code.
    UserEnrollmentDevice,
    /// The person's channel of a User Enrollment.
    UserEnrollment,
    /// A person's channel of a Shared iPad.
    SharedIpad,
}

impl EnrollmentKind {
    /// NanoMDM's own words for the kinds, kept as the stable text in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "Device",
            Self::User => "User",
            Self::UserEnrollmentDevice => "User Enrollment (Device)",
            Self::UserEnrollment => "User Enrollment",
            Self::SharedIpad => "Shared iPad",
        }
    }

    /// Reads [`Self::as_str`] back; `None` for a word not known here.
    #[must_use]
    pub fn from_name(text: &str) -> Option<Self> {
        [
            Self::Device,
            Self::User,
            Self::UserEnrollmentDevice,
            Self::UserEnrollment,
            Self::SharedIpad,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == text)
    }
}

/// One event of an MDM about one enrollment.
pub struct Observation {
    /// The MDM's name for the enrollment, unique within a connection; for device channels mostly the UDID.
    pub enrollment: String,
    /// The kind of enrollment, where the MDM says so; device channel is assumed when it does not and the
    /// event shows nothing else.
    pub kind: EnrollmentKind,
    /// When the MDM says it happened.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// What happened.
pub enum Event {
    /// The start of every enrolment (contract sheet 6).
    Authenticate(Authenticate),
    /// Enrolled, or its push token renewed.
    TokenUpdate(TokenUpdate),
    /// The device says it leaves. Never a reason to delete a code (R2).
    CheckOut,
    /// The device asked for work, or another sign of life without content of use here.
    Seen,
    /// The answer to a command.
    Report(CommandReport),
}

/// What an Authenticate says. Every field may be withheld.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authenticate {
    /// `SerialNumber`; withheld in User Enrollment.
    pub serial: Option<SerialNumber>,
    /// `UDID`.
    pub udid: Option<String>,
    /// `ProductName`: the hardware identifier.
    pub product_type: Option<ProductType>,
    /// `ModelName`, such as `iPhone`.
    pub model_name: Option<String>,
    /// `OSVersion`.
    pub os_version: Option<String>,
    /// `Topic`, which names the push certificate.
    pub topic: Option<String>,
    /// Top-level `IMEI` and `MEID`, which name no slot.
    pub cellular: CellularIdentity,
}

/// What a TokenUpdate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenUpdate {
    /// `UDID`.
    pub udid: Option<String>,
    /// `Topic`.
    pub topic: Option<String>,
    /// `AwaitingConfiguration`: true while in Setup Assistant, which proves a fresh set-up (R9).
    pub awaiting_configuration: Option<bool>,
    /// The MDM's count of TokenUpdates since the Authenticate; 1 is a fresh enrolment.
    pub tally: Option<u64>,
}

/// How a device answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReportStatus {
    /// Done, though single items may have failed.
    Acknowledged,
    /// Refused; the error chain says why.
    Error,
    /// The command was not understood.
    CommandFormatError,
    /// Not now: the MDM keeps it queued (contract sheet 3.10). Not a final answer.
    NotNow,
}

/// One link of an `ErrorChain` (contract sheet 3.9).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ErrorLink {
    /// `ErrorCode`.
    pub code: i64,
    /// `ErrorDomain`.
    pub domain: String,
    /// `USEnglishDescription`, else `LocalizedDescription`, at most 500 characters.
    pub description: String,
}

/// The answer to a command. Devices do not dependably say which command they answer, so every part that
/// was found is here and the command that we sent decides which is looked at.
pub struct CommandReport {
    /// `CommandUUID`, as sent.
    pub command: Option<String>,
    /// How it was answered.
    pub status: ReportStatus,
    /// `ErrorChain`; empty when there was none.
    pub errors: Vec<ErrorLink>,
    /// `ActivationLockBypassCode`.
    pub bypass_code: ReportedCode,
    /// `QueryResponses` of DeviceInformation.
    pub device_information: Option<Box<DeviceInformation>>,
    /// `SecurityInfo`.
    pub security_info: Option<SecurityInfo>,
    /// Failed items of `Settings`: an `Acknowledged` report with any is a failure (R7). `None` when the report
    /// has no `Settings`.
    pub failed_settings: Option<Vec<ErrorLink>>,
}

/// The bypass code of a report. An empty text and a missing key both mean "no code" and replace nothing (R1).
pub enum ReportedCode {
    /// The key is not in the report.
    Absent,
    /// The key is there with nothing in it.
    Empty,
    /// A code, byte for byte.
    Code(CodeText),
}

/// What DeviceInformation told. Any key may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceInformation {
    /// `SerialNumber`.
    pub serial: Option<SerialNumber>,
    /// `UDID`.
    pub udid: Option<String>,
    /// `ProductName`: the hardware identifier.
    pub product_type: Option<ProductType>,
    /// `ModelName`.
    pub model_name: Option<String>,
    /// `DeviceName`.
    pub device_name: Option<String>,
    /// `OSVersion`.
    pub os_version: Option<String>,
    /// `IsSupervised`.
    pub supervised: Option<bool>,
    /// `IsMultiUser`: a Shared iPad.
    pub multi_user: Option<bool>,
    /// `IsActivationLockSupported` (macOS).
    pub activation_lock_supported: Option<bool>,
    /// `IsActivationLockEnabled`: a hint at most (R11).
    pub activation_lock_hint: Option<bool>,
    /// `IsDeviceLocatorServiceEnabled`: Find My is on.
    pub find_my: Option<bool>,
    /// `AwaitingConfiguration`.
    pub awaiting_configuration: Option<bool>,
    /// `MDMOptions.ActivationLockAllowedWhileSupervised`, read back.
    pub lock_allowed: Option<bool>,
    /// From `ServiceSubscriptions`, by slot name.
    pub slots: Option<CellularIdentity>,
    /// From top-level `IMEI` and `MEID`, which name no slot.
    pub cellular: CellularIdentity,
}

/// What SecurityInfo told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecurityInfo {
    /// `ManagementStatus.IsActivationLockManageable` (macOS).
    pub activation_lock_manageable: Option<bool>,
    /// `ManagementStatus.EnrolledViaDEP`: true rules out that a lock came before the enrolment (contract sheet 5.11).
    pub enrolled_via_dep: Option<bool>,
    /// `ManagementStatus.IsUserEnrollment`.
    pub user_enrollment: Option<bool>,
}
