//! A fake NanoMDM: signed webhooks out, commands in, the pass-through to Apple's unlock, and faults on demand.
//!
//! The HTTP side speaks as NanoMDM 0.9 does (`/v1/enqueue`, `/v1/push`, `/v1/pushcert`, `/v1/escrowkeyunlock`,
//! `/version`), or under NanoHUB's prefix. The device side is plain method calls: [`NanoMdm::check_in`] and
//! [`NanoMdm::connect`]; [`crate::devices`] uses them, and so can other devices.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use plist::Dictionary;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::Notify;

use self::webhook::{Event, Webhooks};
pub use self::{
    fault::{ApiFault, WebhookFault},
    webhook::{Delivery, Webhook, WebhookForm, WebhookSent},
};
use crate::{
    Journal, Now, PushCertificate, StartError,
    fault::Queue,
    listener::Listener,
    plists::{self, text, to_xml},
};

mod api;
mod fault;
mod webhook;

/// Whose paths and user name the API has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flavour {
    /// `/v1/...`, user `nanomdm`.
    #[default]
    NanoMdm,
    /// `/api/v1/nanomdm/...`, user `nanohub`.
    NanoHub,
}

impl Flavour {
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::NanoMdm => "/v1",
            Self::NanoHub => "/api/v1/nanomdm",
        }
    }

    /// The user name of the Basic authentication.
    pub fn user(self) -> &'static str {
        match self {
            Self::NanoMdm => "nanomdm",
            Self::NanoHub => "nanohub",
        }
    }
}

/// Where the pass-through finds Apple.
#[derive(Clone, Debug)]
pub struct AppleEndpoint {
    /// Scheme, host and port.
    pub url: String,
    /// The authority to trust, PEM.
    pub ca_pem: String,
}

/// How the fake behaves.
#[derive(Clone, Debug)]
pub struct NanoMdmOptions {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The time of `created_at`.
    pub now: Now,
    /// Whose paths and user name.
    pub flavour: Flavour,
    /// The password of the API.
    pub api_key: String,
    /// Where webhooks go; none: they are not sent, and not kept for later.
    pub webhook: Option<Webhook>,
    /// Where the unlock pass-through goes; none: it answers its own 500.
    pub apple: Option<AppleEndpoint>,
    /// How many entries each journal keeps.
    pub journal: usize,
}

impl Default for NanoMdmOptions {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 0).into(),
            now: Now::wall(),
            flavour: Flavour::default(),
            api_key: "sim-api-key".to_owned(),
            webhook: None,
            apple: None,
            journal: 20_000,
        }
    }
}

/// What an enrollment is, in NanoMDM's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum EnrollmentKind {
    /// The device channel.
    Device,
    /// A user channel.
    User,
    /// The device channel of a User Enrollment.
    #[serde(rename = "User Enrollment (Device)")]
    UserEnrollmentDevice,
    /// The user channel of a User Enrollment.
    #[serde(rename = "User Enrollment")]
    UserEnrollment,
    /// A user of a Shared iPad.
    #[serde(rename = "Shared iPad")]
    SharedIpad,
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// NanoMDM's enrollment ID: the UDID, or `UDID:USER` of a user channel.
    pub id: String,
    /// What it is.
    pub kind: EnrollmentKind,
    /// The device's enrollment ID, of a user channel.
    pub parent_id: Option<String>,
    /// The UDID in the message; none in a User Enrollment.
    pub udid: Option<String>,
    /// The `EnrollmentID` in the message; User Enrollments only.
    pub enrollment_id: Option<String>,
}

impl Ids {
    /// The device channel of a device.
    pub fn device(udid: impl Into<String>) -> Self {
        let id = udid.into();
        Self {
            udid: Some(id.clone()),
            id,
            kind: EnrollmentKind::Device,
            parent_id: None,
            enrollment_id: None,
        }
    }

    /// The user channel of this device.
    pub fn user(&self, user: &str, kind: EnrollmentKind) -> Self {
        let id = format!("{}:{user}", self.id);
        Self {
            id,
            kind,
            parent_id: Some(self.id.clone()),
            ..self.clone()
        }
    }
}

/// A check-in message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckIn {
    /// An enrolment begins: the queue is emptied, and nothing is handed out until the TokenUpdate.
    Authenticate,
    /// The enrolment can be pushed to.
    TokenUpdate,
    /// The profile was removed.
    CheckOut,
    /// A Mac hands over its bootstrap token.
    SetBootstrapToken,
    /// A Mac asks for it.
    GetBootstrapToken,
    /// A user of a Mac logs in.
    UserAuthenticate,
    /// Declarative management.
    DeclarativeManagement,
}

impl CheckIn {
    /// The webhook's topic, which ends in the message's type.
    pub fn topic(self) -> &'static str {
        match self {
            Self::Authenticate => "mdm.Authenticate",
            Self::TokenUpdate => "mdm.TokenUpdate",
            Self::CheckOut => "mdm.CheckOut",
            Self::SetBootstrapToken => "mdm.SetBootstrapToken",
            Self::GetBootstrapToken => "mdm.GetBootstrapToken",
            Self::UserAuthenticate => "mdm.UserAuthenticate",
            Self::DeclarativeManagement => "mdm.DeclarativeManagement",
        }
    }
}

/// A command as the device gets it.
#[derive(Clone, Debug)]
pub struct Command {
    /// `CommandUUID`.
    pub uuid: String,
    /// `RequestType`.
    pub request_type: String,
    /// The dictionary under `Command`.
    pub body: Dictionary,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandState {
    /// Waits for the device; after a NotNow too.
    Queued,
    /// The device answered with this status.
    Answered(String),
    /// An Authenticate emptied the queue.
    Cleared,
}

/// One command for one enrollment, as the journal has it.
#[derive(Clone, Debug)]
pub struct CommandQueued {
    /// Counts from 0 in the order of arrival.
    pub number: u64,
    /// When it arrived.
    pub at: OffsetDateTime,
    /// The enrollment ID.
    pub id: String,
    /// `CommandUUID`.
    pub uuid: String,
    /// `RequestType`.
    pub request_type: String,
    /// The whole command.
    pub body: Dictionary,
    /// What became of it.
    pub state: CommandState,
    /// How often the device said NotNow.
    pub not_now: u32,
}

/// A running fake NanoMDM. A clone is the same one, which stops when the last is dropped.
#[derive(Clone)]
pub struct NanoMdm {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
}

struct Shared {
    now: Now,
    flavour: Flavour,
    state: Mutex<State>,
    webhooks: Webhooks,
    faults: Mutex<Queue<ApiFault>>,
    commands: Journal<CommandQueued>,
    calls: Journal<ApiCall>,
    woken: Notify,
}

struct State {
    api_key: String,
    apple: Option<AppleEndpoint>,
    /// Certificate and key, PEM, by topic.
    push_certificates: HashMap<String, String>,
    enrollments: HashMap<String, Enrollment>,
    used: HashSet<String>,
    pushed: BTreeSet<String>,
    pushes: u64,
}

struct Enrollment {
    enabled: bool,
    tally: u32,
    queue: VecDeque<Waiting>,
}

struct Waiting {
    command: Command,
    number: u64,
    not_now: bool,
}

/// One call of the API, as the journal has it; bodies are not kept.
#[derive(Clone, Debug)]
pub struct ApiCall {
    /// Counts from 0 in the order of arrival.
    pub number: u64,
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// What was answered; none: the connection was closed, or the answer is still held back.
    pub status: Option<u16>,
}

impl NanoMdm {
    /// Starts to listen.
    ///
    /// # Errors
    ///
    /// When the address is taken.
    pub async fn start(options: NanoMdmOptions) -> Result<Self, StartError> {
        let shared = Arc::new(Shared {
            now: options.now.clone(),
            flavour: options.flavour,
            state: Mutex::new(State {
                api_key: options.api_key,
                apple: options.apple,
                push_certificates: HashMap::new(),
                enrollments: HashMap::new(),
                used: HashSet::new(),
                pushed: BTreeSet::new(),
                pushes: 0,
            }),
            webhooks: Webhooks::start(options.webhook, options.now, options.journal),
            faults: Mutex::default(),
            commands: Journal::new(options.journal),
            calls: Journal::new(options.journal),
            woken: Notify::new(),
        });
        let listener = Listener::start(options.listen, api::Api::new(shared.clone())).await?;
        Ok(Self {
            shared,
            listener: Arc::new(listener),
        })
    }

    /// `http://127.0.0.1:PORT`, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.listener.address())
    }

    /// The URL with the prefix under which `enqueue`, `push` and the others are found.
    pub fn api_url(&self) -> String {
        format!("{}{}", self.url(), self.shared.flavour.prefix())
    }

    /// Whose paths and user name it has.
    pub fn flavour(&self) -> Flavour {
        self.shared.flavour
    }

    /// Changes where webhooks go; none: they are no longer sent.
    pub fn set_webhook(&self, webhook: Option<Webhook>) {
        self.shared.webhooks.set(webhook);
    }

    /// Whether webhooks go anywhere.
    pub fn has_webhook(&self) -> bool {
        self.shared.webhooks.is_set()
    }

    /// Changes the password of the API.
    pub fn set_api_key(&self, key: impl Into<String>) {
        self.shared.state().api_key = key.into();
    }

    /// Changes where the unlock pass-through goes.
    pub fn set_apple(&self, apple: Option<AppleEndpoint>) {
        self.shared.state().apple = apple;
    }

    /// Stores a push certificate under its topic, as `PUT /v1/pushcert` does.
    pub fn store_push_certificate(&self, certificate: &PushCertificate) {
        let mut state = self.shared.state();
        state
            .push_certificates
            .insert(certificate.topic.clone(), certificate.bundle_pem());
    }

    /// A device sends a check-in message; the webhook goes out. `message` is the property list's dictionary.
    pub fn check_in(&self, ids: &Ids, message: CheckIn, body: Dictionary) {
        let tally = self.shared.checked_in(ids, message);
        self.shared
            .webhooks
            .send(Event::check_in(ids.clone(), message, to_xml(body), tally));
    }

    /// A device connects with a report (`Status` `Idle`, or the answer to a command); the webhook goes out, and the next
    /// command comes back. After NotNow, commands already put off are passed over.
    pub fn connect(&self, ids: &Ids, report: Dictionary) -> Option<Command> {
        let status = text(&report, "Status").unwrap_or("Idle").to_owned();
        let uuid = text(&report, "CommandUUID").map(str::to_owned);
        self.shared.reported(&ids.id, &status, uuid.as_deref());
        self.shared.webhooks.send(Event::connect(
            ids.clone(),
            status.clone(),
            uuid,
            to_xml(report),
        ));
        self.shared.next_command(&ids.id, status == "NotNow")
    }

    /// What waits for this enrollment, oldest first.
    pub fn queue(&self, id: &str) -> Vec<Command> {
        let state = self.shared.state();
        let enrollment = state.enrollments.get(id);
        enrollment
            .map(|one| {
                one.queue
                    .iter()
                    .map(|waiting| waiting.command.clone())
                    .collect()
            })
            .unwrap_or_default()
    }

    /// Whether the enrollment is complete and not checked out.
    pub fn is_enabled(&self, id: &str) -> bool {
        self.shared
            .state()
            .enrollments
            .get(id)
            .is_some_and(|enrollment| enrollment.enabled)
    }

    /// The enrollments pushed to since the last call.
    pub fn take_pushed(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state().pushed)
            .into_iter()
            .collect()
    }

    /// Waits for a push.
    pub async fn pushed(&self) {
        self.shared.woken.notified().await;
    }

    /// Queues a fault of the webhooks to come.
    pub fn push_webhook_fault(&self, fault: WebhookFault) {
        self.shared.webhooks.push_fault(fault);
    }

    /// Sends the webhooks that a fault holds back, oldest first.
    pub fn release_webhooks(&self) {
        self.shared.webhooks.release();
    }

    /// Sends a webhook again, byte for byte; false when the journal no longer has it.
    pub fn replay_webhook(&self, number: u64) -> bool {
        self.shared.webhooks.replay(number)
    }

    /// Queues a fault of the API calls to come.
    pub fn push_api_fault(&self, fault: ApiFault) {
        self.shared.faults().push(fault);
    }

    /// Forgets the faults of API and webhooks that still wait.
    pub fn clear_faults(&self) {
        self.shared.faults().clear();
        self.shared.webhooks.clear_faults();
    }

    /// Closes the API's socket: connecting is refused. Webhooks still go out.
    pub async fn go_offline(&self) {
        self.listener.go_offline().await;
    }

    /// Listens again, at the same address.
    pub async fn come_back(&self) {
        self.listener.come_back().await;
    }

    /// Stops for good: API and webhooks.
    pub async fn stop(&self) {
        self.set_webhook(None);
        self.listener.stop().await;
    }

    /// The webhooks so far, with what the receiver answered.
    pub fn webhooks(&self) -> &Journal<WebhookSent> {
        self.shared.webhooks.journal()
    }

    /// The commands so far.
    pub fn commands(&self) -> &Journal<CommandQueued> {
        &self.shared.commands
    }

    /// The API calls so far.
    pub fn calls(&self) -> &Journal<ApiCall> {
        &self.shared.calls
    }

    /// Waits until no webhook is on its way. Those a fault holds back are not waited for.
    pub async fn webhooks_settled(&self) {
        let settled = |sent: &[WebhookSent]| {
            sent.iter()
                .all(|webhook| webhook.delivery != Delivery::OnItsWay)
        };
        self.webhooks()
            .wait_for("every webhook to be delivered", settled)
            .await;
    }

    /// Waits until a command of this type is queued for this enrollment, and gives the newest.
    pub async fn wait_for_command(&self, id: &str, request_type: &str) -> CommandQueued {
        let is_it =
            |command: &CommandQueued| command.id == id && command.request_type == request_type;
        let what = format!("a command {request_type} for {id}");
        let all = self
            .commands()
            .wait_for(&what, |commands| commands.iter().any(is_it))
            .await;
        all.into_iter()
            .rev()
            .find(is_it)
            .expect("the wait ends when there is one")
    }
}

/// Why a command was not queued, in the words of the API.
enum NotQueued {
    /// The whole call failed.
    All(String),
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn faults(&self) -> MutexGuard<'_, Queue<ApiFault>> {
        self.faults.lock().expect("no holder of this lock panics")
    }

    /// Changes the enrollment, and gives the tally of a TokenUpdate.
    fn checked_in(&self, ids: &Ids, message: CheckIn) -> Option<u32> {
        let mut state = self.state();
        let enrollment = match state.enrollments.get_mut(&ids.id) {
            Some(enrollment) => enrollment,
            None if matches!(message, CheckIn::Authenticate | CheckIn::TokenUpdate) => {
                let new = Enrollment {
                    enabled: false,
                    tally: 0,
                    queue: VecDeque::new(),
                };
                state.enrollments.entry(ids.id.clone()).or_insert(new)
            }
            None => return None,
        };
        match message {
            CheckIn::Authenticate => {
                enrollment.enabled = false;
                enrollment.tally = 0;
                for waiting in enrollment.queue.drain(..) {
                    self.commands.amend(waiting.number, |command| {
                        command.state = CommandState::Cleared
                    });
                }
            }
            CheckIn::TokenUpdate => {
                enrollment.enabled = true;
                enrollment.tally += 1;
                return Some(enrollment.tally);
            }
            CheckIn::CheckOut => enrollment.enabled = false,
            _ => {}
        }
        None
    }

    fn reported(&self, id: &str, status: &str, uuid: Option<&str>) {
        let Some(uuid) = uuid else { return };
        let mut state = self.state();
        let Some(enrollment) = state.enrollments.get_mut(id) else {
            return;
        };
        let Some(index) = enrollment
            .queue
            .iter()
            .position(|waiting| waiting.command.uuid == uuid)
        else {
            return;
        };
        if status == "NotNow" {
            enrollment.queue[index].not_now = true;
            self.commands
                .amend(enrollment.queue[index].number, |command| {
                    command.not_now += 1
                });
        } else if let Some(done) = enrollment.queue.remove(index) {
            self.commands.amend(done.number, |command| {
                command.state = CommandState::Answered(status.to_owned())
            });
        }
    }

    fn next_command(&self, id: &str, pass_over_put_off: bool) -> Option<Command> {
        let state = self.state();
        let enrollment = state
            .enrollments
            .get(id)
            .filter(|enrollment| enrollment.enabled)?;
        let next = enrollment
            .queue
            .iter()
            .find(|waiting| !(pass_over_put_off && waiting.not_now));
        next.map(|waiting| waiting.command.clone())
    }

    /// Queues a command; gives the enrollments that are not known, with what to say of each.
    fn enqueue(
        &self,
        ids: &[&str],
        command: &Command,
    ) -> Result<HashMap<String, String>, NotQueued> {
        let mut state = self.state();
        if !state.used.insert(command.uuid.clone()) {
            // What MySQL says; PostgreSQL's text also has the word "duplicate".
            let uuid = &command.uuid;
            return Err(NotQueued::All(format!(
                "Error 1062 (23000): Duplicate entry '{uuid}' for key 'commands.PRIMARY'"
            )));
        }
        let mut unknown = HashMap::new();
        for id in ids {
            let Some(enrollment) = state.enrollments.get_mut(*id) else {
                unknown.insert((*id).to_owned(), "enrollment ID not found".to_owned());
                continue;
            };
            let number = self.commands.add(|number| CommandQueued {
                number,
                at: self.now.get(),
                id: (*id).to_owned(),
                uuid: command.uuid.clone(),
                request_type: command.request_type.clone(),
                body: command.body.clone(),
                state: CommandState::Queued,
                not_now: 0,
            });
            enrollment.queue.push_back(Waiting {
                command: command.clone(),
                number,
                not_now: false,
            });
        }
        Ok(unknown)
    }

    /// Pushes; gives the number of the push for each that can be pushed to.
    fn push(&self, ids: &[&str]) -> HashMap<String, Result<String, String>> {
        let mut state = self.state();
        let mut results = HashMap::new();
        for id in ids {
            let result = if state
                .enrollments
                .get(*id)
                .is_some_and(|enrollment| enrollment.enabled)
            {
                state.pushes += 1;
                state.pushed.insert((*id).to_owned());
                Ok(uuid::Uuid::from_u64_pair(
                    0x51b0_0000_0000_4000,
                    0x8000_0000_0000_0000 | state.pushes,
                )
                .to_string())
            } else {
                Err("no push info".to_owned())
            };
            results.insert((*id).to_owned(), result);
        }
        drop(state);
        self.woken.notify_one();
        results
    }
}

/// Reads a command as the enqueue call takes it.
fn read_command(xml: &[u8]) -> Result<Command, String> {
    let whole = plists::from_xml(xml).ok_or("the body is no XML property list of a dictionary")?;
    let uuid = text(&whole, "CommandUUID")
        .filter(|uuid| !uuid.is_empty())
        .ok_or("empty CommandUUID")?
        .to_owned();
    let body = whole
        .get("Command")
        .and_then(|command| command.as_dictionary())
        .ok_or("no Command")?
        .clone();
    let request_type = text(&body, "RequestType")
        .filter(|kind| !kind.is_empty())
        .ok_or("empty RequestType")?
        .to_owned();
    if let Some(key) = whole
        .keys()
        .find(|key| !["CommandUUID", "Command"].contains(&key.as_str()))
    {
        return Err(format!("key {key} does not belong in a command"));
    }
    Ok(Command {
        uuid,
        request_type,
        body,
    })
}
