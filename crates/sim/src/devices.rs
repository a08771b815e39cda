//! Devices as state machines, attached to a fake NanoMDM and to the fake Apple.
//!
//! What a device is, its [`Kind`] says; what happens to it, the test says: [`Device::enrol`], [`Device::poll`],
//! [`Device::find_my_on`], [`Device::erase_and_enrol`] and so on. Everything random comes from the device's seed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use plist::{Dictionary, Value};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::kind::Radio;
pub use self::kind::{DeviceSpec, Kind, SlotOrder};
use crate::{
    Apple, AppleDevice, Code, DepDevice, LockRefused, OrgDevice, SIM_TOPIC,
    nanomdm::{CheckIn, EnrollmentKind, Ids, NanoMdm},
    plists::dictionary,
};

mod answer;
mod kind;

/// One link of an error chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorItem {
    /// Such as `MCMDMErrorDomain`.
    pub domain: String,
    /// The number.
    pub code: i64,
    /// `LocalizedDescription`, and the English one.
    pub text: String,
}

impl ErrorItem {
    /// Any error.
    pub fn new(domain: &str, code: i64, text: &str) -> Self {
        Self {
            domain: domain.to_owned(),
            code,
            text: text.to_owned(),
        }
    }

    /// 12021: what devices answer that do not know the command.
    pub fn invalid_request_type() -> Self {
        Self::new(
            "MCMDMErrorDomain",
            12021,
            "The MDM request is invalid: invalid request type.",
        )
    }

    /// 12078: not allowed in Lost Mode.
    pub fn lost_mode() -> Self {
        Self::new(
            "MCMDMErrorDomain",
            12078,
            "The command is not allowed in Lost Mode.",
        )
    }

    /// 29000: not supervised.
    pub fn not_supervised() -> Self {
        Self::new(
            "MCChaperoneErrorDomain",
            29000,
            "The device is not supervised.",
        )
    }
}

/// How the results of a Settings command are laid out; both occur (contract sheet 3.22).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SettingsForm {
    /// An array with an entry for each item.
    #[default]
    Array,
    /// One dictionary.
    Dictionary,
}

/// What became of turning Find My on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindMy {
    /// The lock is on, and the device's code opens it.
    Locked,
    /// Find My is on without a lock: the MDM has not allowed it on this supervised device.
    NotAllowed,
    /// A lock was on already.
    AlreadyLocked,
}

/// A device. A clone is the same one.
#[derive(Clone)]
pub struct Device {
    mdm: NanoMdm,
    apple: Apple,
    state: Arc<Mutex<State>>,
}

/// An identifier is kept or changed by an erase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Udid {
    /// The same as before: the normal case.
    Same,
    /// A new one.
    New,
}

struct State {
    spec: DeviceSpec,
    rng: ChaCha8Rng,
    radio: Radio,
    udid: String,
    /// Opaque text; canonical, unless a test sets another.
    code: String,
    enrolled: bool,
    silent: bool,
    awaiting: bool,
    allowed: bool,
    find_my: bool,
    /// Whether the code of now has been told to the MDM.
    told_code: bool,
    not_now: u32,
    empty_code: u32,
    missing_key: u32,
    settings_errors: u32,
    settings_form: SettingsForm,
    errors: VecDeque<(Option<String>, Vec<ErrorItem>)>,
    reported_lock: Option<bool>,
    reported_serial: Option<String>,
    answers: u64,
}

impl Device {
    /// A device that was just set up: it has a code, Apple knows it, and it is not enrolled.
    pub fn new(spec: DeviceSpec, mdm: &NanoMdm, apple: &Apple) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(spec.seed);
        let radio = Radio::make(spec.kind.slots(), &mut rng);
        apple.add_device(radio.apple_device(&spec.serial, spec.kind));
        let awaiting = spec.awaiting_configuration;
        let mut state = State {
            spec,
            rng,
            radio,
            udid: String::new(),
            code: String::new(),
            enrolled: false,
            silent: false,
            awaiting,
            allowed: false,
            find_my: false,
            told_code: false,
            not_now: 0,
            empty_code: 0,
            missing_key: 0,
            settings_errors: 0,
            settings_form: SettingsForm::default(),
            errors: VecDeque::new(),
            reported_lock: None,
            reported_serial: None,
            answers: 0,
        };
        state.new_udid();
        state.new_code();
        Self {
            mdm: mdm.clone(),
            apple: apple.clone(),
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// The serial number.
    pub fn serial(&self) -> String {
        self.state().spec.serial.clone()
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.state().spec.kind
    }

    /// The enrollment ID of its device channel: the UDID, or the `EnrollmentID` of a User Enrollment.
    pub fn enrollment_id(&self) -> String {
        self.state().udid.clone()
    }

    /// Its device channel.
    pub fn ids(&self) -> Ids {
        self.state().ids()
    }

    /// What Apple knows of it.
    pub fn identity(&self) -> AppleDevice {
        let state = self.state();
        state
            .radio
            .apple_device(&state.spec.serial, state.spec.kind)
    }

    /// What the enrolment service tells of it.
    pub fn dep_device(&self) -> DepDevice {
        let state = self.state();
        state.radio.dep_device(&state.spec)
    }

    /// What the Business and School Manager API tells of it.
    pub fn org_device(&self) -> OrgDevice {
        let state = self.state();
        state.radio.org_device(&state.spec)
    }

    /// The text of the code it has now: for tests that import it, or look for it where it must not be.
    pub fn code_text(&self) -> String {
        self.state().code.clone()
    }

    /// Whether its profile is installed.
    pub fn is_enrolled(&self) -> bool {
        self.state().enrolled
    }

    /// Whether the MDM has allowed the user's lock.
    pub fn is_allowed(&self) -> bool {
        self.state().allowed
    }

    /// Whether it has told the MDM the code it has now.
    pub fn has_told_code(&self) -> bool {
        self.state().told_code
    }

    /// How many commands it has answered, NotNow included.
    pub fn answers(&self) -> u64 {
        self.state().answers
    }

    // Enrolment.

    /// Installs the profile: Authenticate, then the first TokenUpdate.
    pub fn enrol(&self) {
        self.authenticate();
        self.token_update();
    }

    /// The first half of an enrolment.
    pub fn authenticate(&self) {
        let (ids, body) = {
            let mut state = self.state();
            state.enrolled = false;
            (state.ids(), state.authenticate())
        };
        self.mdm.check_in(&ids, CheckIn::Authenticate, body);
    }

    /// The second half, or a later renewal of the token.
    pub fn token_update(&self) {
        let (ids, body) = {
            let mut state = self.state();
            state.enrolled = true;
            (state.ids(), state.token_update())
        };
        self.mdm.check_in(&ids, CheckIn::TokenUpdate, body);
    }

    /// A user logs in: a TokenUpdate on the user channel, whose enrollment ID it gives.
    pub fn user_channel_token_update(&self, user: &str) -> String {
        let (ids, body) = {
            let mut state = self.state();
            let shared = state.spec.kind == Kind::SharedIpad;
            let kind = match state.spec.kind {
                _ if shared => EnrollmentKind::SharedIpad,
                Kind::UserEnrollment => EnrollmentKind::UserEnrollment,
                _ => EnrollmentKind::User,
            };
            let ids = state.ids().user(user, kind);
            let mut body = state.token_update();
            // A Shared iPad tells all its users apart by their short names alone.
            let user_id = if shared {
                "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"
            } else {
                user
            };
            body.insert("UserID".to_owned(), Value::String(user_id.to_owned()));
            body.insert("UserShortName".to_owned(), Value::String(user.to_owned()));
            (ids, body)
        };
        self.mdm.check_in(&ids, CheckIn::TokenUpdate, body);
        ids.id
    }

    /// A Mac hands over its bootstrap token: noise for us.
    pub fn set_bootstrap_token(&self) {
        let (ids, body) = {
            let mut state = self.state();
            let mut body = state.message("SetBootstrapToken");
            body.insert(
                "BootstrapToken".to_owned(),
                Value::Data(state.bytes::<32>().to_vec()),
            );
            (state.ids(), body)
        };
        self.mdm.check_in(&ids, CheckIn::SetBootstrapToken, body);
    }

    /// The profile is removed, and the device says so.
    pub fn check_out(&self) {
        let (ids, body) = {
            let mut state = self.state();
            state.enrolled = false;
            (state.ids(), state.message("CheckOut"))
        };
        self.mdm.check_in(&ids, CheckIn::CheckOut, body);
    }

    // Commands.

    /// Connects with Idle and answers one command after the other until there is none. Gives how many it answered.
    /// A device that is not enrolled or silent does nothing.
    pub fn poll(&self) -> usize {
        let (ids, idle) = {
            let state = self.state();
            if !state.enrolled || state.silent {
                return 0;
            }
            (state.ids(), state.report("Idle", None))
        };
        let mut answered = 0;
        let mut next = self.mdm.connect(&ids, idle);
        while let Some(command) = next {
            let report = {
                let mut state = self.state();
                let answer = state.answer(&command);
                state.answers += 1;
                let mut report = state.report(answer.status, Some(&command.uuid));
                report.extend(answer.keys);
                report
            };
            answered += 1;
            next = self.mdm.connect(&ids, report);
        }
        answered
    }

    /// Sends one report of the test's own making, whatever was asked: late, unsolicited, or of an unknown command.
    pub fn send_report(&self, command_uuid: Option<&str>, status: &str, keys: Dictionary) {
        let (ids, mut report) = {
            let state = self.state();
            (state.ids(), state.report(status, command_uuid))
        };
        report.extend(keys);
        self.mdm.connect(&ids, report);
    }

    /// Sends a bypass code under this CommandUUID, asked for or not.
    pub fn send_code(&self, command_uuid: &str, code_text: &str) {
        let keys = dictionary([(
            "ActivationLockBypassCode",
            Value::String(code_text.to_owned()),
        )]);
        self.send_report(Some(command_uuid), "Acknowledged", keys);
    }

    /// The next commands are put off, so many times.
    pub fn not_now(&self, times: u32) {
        self.state().not_now = times;
    }

    /// The next command (of this type) fails with this chain.
    pub fn fail_next(&self, request_type: Option<&str>, chain: Vec<ErrorItem>) {
        self.state()
            .errors
            .push_back((request_type.map(str::to_owned), chain));
    }

    /// The next answers hold an empty code.
    pub fn empty_code(&self, times: u32) {
        self.state().empty_code = times;
    }

    /// The next answers hold no code at all.
    pub fn missing_code_key(&self, times: u32) {
        self.state().missing_key = times;
    }

    /// The next items of Settings fail, though the command is acknowledged.
    pub fn fail_settings_items(&self, times: u32) {
        self.state().settings_errors = times;
    }

    /// How results of Settings are laid out.
    pub fn settings_form(&self, form: SettingsForm) {
        self.state().settings_form = form;
    }

    /// What `IsActivationLockEnabled` says, right or wrong; none: what Find My is.
    pub fn report_lock(&self, says: Option<bool>) {
        self.state().reported_lock = says;
    }

    /// What DeviceInformation says the serial number is; none: the true one.
    pub fn report_serial(&self, says: Option<&str>) {
        self.state().reported_serial = says.map(str::to_owned);
    }

    /// It no longer connects.
    pub fn go_silent(&self) {
        self.state().silent = true;
    }

    /// It connects again.
    pub fn speak(&self) {
        self.state().silent = false;
    }

    // What people do with it.

    /// A person turns Find My on. On a supervised device without permission no lock follows.
    pub fn find_my_on(&self) -> FindMy {
        let (serial, code) = {
            let mut state = self.state();
            state.find_my = true;
            if state.spec.kind.is_supervised() && !state.allowed {
                return FindMy::NotAllowed;
            }
            if state.spec.rotates_on_find_my {
                state.new_code();
            }
            (state.spec.serial.clone(), state.code.clone())
        };
        match self.apple.user_lock(&serial, &code) {
            Ok(()) => FindMy::Locked,
            Err(LockRefused::AlreadyLocked(_) | LockRefused::UnknownDevice) => {
                FindMy::AlreadyLocked
            }
        }
    }

    /// A user lock that the code of now opens, permission or not: as if the lock came on before the MDM had its say.
    ///
    /// # Errors
    ///
    /// When a lock is on already.
    pub fn lock_with_own_code(&self) -> Result<(), LockRefused> {
        let (serial, code) = {
            let mut state = self.state();
            state.find_my = true;
            (state.spec.serial.clone(), state.code.clone())
        };
        self.apple.user_lock(&serial, &code)
    }

    /// The person enters the password: Find My and the lock go off.
    pub fn user_unlock(&self) {
        let serial = {
            let mut state = self.state();
            state.find_my = false;
            state.spec.serial.clone()
        };
        self.apple.clear_lock(&serial);
    }

    /// Makes a new code behind the MDM's back, and gives its text.
    pub fn rotate_code(&self) -> String {
        let mut state = self.state();
        state.new_code();
        state.code.clone()
    }

    /// Makes it have this text as its code: what a device answers is opaque.
    pub fn set_code_text(&self, text: &str) {
        let mut state = self.state();
        state.code = text.to_owned();
        state.told_code = false;
    }

    /// Erases it: a new code, permission and Find My gone, enrolment gone without a word. A lock at Apple stays, and
    /// opens with the old code still.
    pub fn erase(&self, udid: Udid) {
        let mut state = self.state();
        state.enrolled = false;
        state.allowed = false;
        state.find_my = false;
        state.awaiting = state.spec.awaiting_configuration;
        state.new_code();
        if udid == Udid::New {
            state.new_udid();
        }
    }

    /// Erases it and enrols it again.
    pub fn erase_and_enrol(&self, udid: Udid) {
        self.erase(udid);
        self.enrol();
    }
}

impl State {
    fn ids(&self) -> Ids {
        let id = self.udid.clone();
        let kind = self.spec.kind.enrollment_kind();
        let (udid, enrollment_id) = if self.is_user_enrollment() {
            (None, Some(id.clone()))
        } else {
            (Some(id.clone()), None)
        };
        Ids {
            id,
            kind,
            parent_id: None,
            udid,
            enrollment_id,
        }
    }

    fn is_user_enrollment(&self) -> bool {
        self.spec.kind == Kind::UserEnrollment
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    fn new_code(&mut self) {
        self.code = Code::from_raw(self.bytes()).text();
        self.told_code = false;
    }

    fn new_udid(&mut self) {
        let bytes = self.bytes::<16>();
        self.udid = if self.spec.kind.is_mac() || self.is_user_enrollment() {
            uuid::Builder::from_random_bytes(bytes)
                .into_uuid()
                .to_string()
                .to_uppercase()
        } else {
            format!("00008110-{}", data_encoding::HEXUPPER.encode(&bytes[..8]))
        };
    }

    /// What every message begins with.
    fn message(&self, message_type: &str) -> Dictionary {
        let mut message = dictionary([
            ("MessageType", Value::String(message_type.to_owned())),
            ("Topic", Value::String(SIM_TOPIC.to_owned())),
        ]);
        message.extend([self.own_id()]);
        message
    }

    fn own_id(&self) -> (String, Value) {
        let key = if self.is_user_enrollment() {
            "EnrollmentID"
        } else {
            "UDID"
        };
        (key.to_owned(), Value::String(self.udid.clone()))
    }

    fn authenticate(&self) -> Dictionary {
        let make = self.spec.kind.make();
        let mut message = self.message("Authenticate");
        message.extend(dictionary([
            ("ProductName", Value::String(make.product_name.to_owned())),
            ("Model", Value::String(make.model.to_owned())),
            ("ModelName", Value::String(make.model_name.to_owned())),
            ("DeviceName", Value::String(make.device_name.to_owned())),
            (
                "OSVersion",
                Value::String(format!("{}.0", self.spec.os_major)),
            ),
            ("BuildVersion", Value::String(make.build.to_owned())),
        ]));
        if self.is_user_enrollment() {
            return message;
        }
        message.insert(
            "SerialNumber".to_owned(),
            Value::String(self.spec.serial.clone()),
        );
        if let Some(imei) = self.radio.imeis.first() {
            message.insert("IMEI".to_owned(), Value::String(kind::spaced(imei)));
        }
        if let Some(meid) = &self.radio.meid {
            message.insert("MEID".to_owned(), Value::String(meid.clone()));
        }
        message
    }

    fn token_update(&mut self) -> Dictionary {
        let magic = uuid::Builder::from_random_bytes(self.bytes())
            .into_uuid()
            .to_string()
            .to_uppercase();
        let mut message = self.message("TokenUpdate");
        message.extend(dictionary([
            ("Token", Value::Data(self.bytes::<32>().to_vec())),
            ("PushMagic", Value::String(magic)),
            ("AwaitingConfiguration", Value::Boolean(self.awaiting)),
        ]));
        if !self.spec.kind.is_mac() && !self.is_user_enrollment() {
            message.insert(
                "UnlockToken".to_owned(),
                Value::Data(self.bytes::<64>().to_vec()),
            );
        }
        message
    }

    fn report(&self, status: &str, command_uuid: Option<&str>) -> Dictionary {
        let mut report = dictionary([("Status", Value::String(status.to_owned()))]);
        report.extend([self.own_id()]);
        if let Some(uuid) = command_uuid {
            report.insert("CommandUUID".to_owned(), Value::String(uuid.to_owned()));
        }
        report
    }
}
