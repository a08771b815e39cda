//! The webhooks of the fake NanoMDM: their form, and their delivery.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::{
    CheckIn, EnrollmentKind, Ids,
    fault::{WebhookAct, WebhookFault},
};
use crate::{Journal, Now, fault::Queue};

/// How long a receiver may take.
const TIME_OUT: Duration = Duration::from_secs(30);

/// Which program's form the webhook has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebhookForm {
    /// NanoMDM 0.9: `ids`, and a signature when there is a key.
    #[default]
    NanoMdm09,
    /// NanoMDM 0.8 and older: no `ids`, no signature, an empty `command_uuid` in idle polls.
    NanoMdm08,
    /// MicroMDM: indented, `event_id` always, `url_params` null, no `ids`, no tally, no signature.
    MicroMdm,
}

/// Where webhooks go.
#[derive(Clone)]
pub struct Webhook {
    /// The URL, http or https.
    pub url: String,
    /// The key of the signature.
    pub hmac_key: Option<Vec<u8>>,
    /// The authority to trust, PEM, when the URL is https.
    pub ca_pem: Option<String>,
    /// Whose form.
    pub form: WebhookForm,
    /// Sends the optional `event_id` in the form of NanoMDM 0.9 too.
    pub event_ids: bool,
    /// One after the other, in order. NanoMDM promises no order: without this, each is sent by itself.
    pub in_order: bool,
}

impl Webhook {
    /// NanoMDM 0.9, in order.
    pub fn new(url: impl Into<String>, hmac_key: Option<&[u8]>) -> Self {
        let hmac_key = hmac_key.map(<[u8]>::to_vec);
        Self {
            url: url.into(),
            hmac_key,
            ca_pem: None,
            form: WebhookForm::default(),
            event_ids: false,
            in_order: true,
        }
    }

    /// In another program's form.
    #[must_use]
    pub fn in_form(mut self, form: WebhookForm) -> Self {
        self.form = form;
        self
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a secret, and the key is one.
        f.debug_struct("Webhook")
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

/// What became of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Not answered yet.
    OnItsWay,
    /// The receiver answered this status; NanoMDM takes 200 alone for success, and never sends again.
    Answered(u16),
    /// The receiver could not be reached, or did not answer.
    Failed(String),
    /// A fault holds it back.
    Held,
    /// A fault dropped it.
    Dropped,
}

/// One webhook, as the journal has it.
#[derive(Clone, Debug)]
pub struct WebhookSent {
    /// Counts from 0.
    pub number: u64,
    /// When it was made.
    pub at: OffsetDateTime,
    /// Such as `mdm.Connect`.
    pub topic: &'static str,
    /// The enrollment ID.
    pub id: String,
    /// The device's `Status`, of a `mdm.Connect`.
    pub status: Option<String>,
    /// The command answered.
    pub command_uuid: Option<String>,
    /// What became of it.
    pub delivery: Delivery,
    /// The webhook that this one repeats.
    pub repeats: Option<u64>,
    body: Sealed,
}

impl WebhookSent {
    /// The body as sent. It may hold a bypass code.
    pub fn body(&self) -> &[u8] {
        &self.body.0
    }
}

/// A body, kept out of logs.
#[derive(Clone)]
struct Sealed(Bytes);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

/// What a webhook tells.
pub(super) struct Event {
    topic: &'static str,
    ids: Ids,
    /// Of a report; none makes it a check-in.
    status: Option<String>,
    command_uuid: Option<String>,
    payload: Vec<u8>,
    tally: Option<u32>,
}

impl Event {
    pub(super) fn check_in(
        ids: Ids,
        message: CheckIn,
        payload: Vec<u8>,
        tally: Option<u32>,
    ) -> Self {
        Self {
            topic: message.topic(),
            ids,
            status: None,
            command_uuid: None,
            payload,
            tally,
        }
    }

    pub(super) fn connect(
        ids: Ids,
        status: String,
        command_uuid: Option<String>,
        payload: Vec<u8>,
    ) -> Self {
        Self {
            topic: "mdm.Connect",
            ids,
            status: Some(status),
            command_uuid,
            payload,
            tally: None,
        }
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    #[serde(serialize_with = "crate::serialize_time")]
    created_at: OffsetDateTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkin_event: Option<CheckInEvent<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledge_event: Option<AcknowledgeEvent<'a>>,
}

#[derive(Serialize)]
struct CheckInEvent<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    udid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enrollment_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<EventIds<'a>>,
    /// Present and null, or absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    url_params: Option<()>,
    raw_payload: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_update_tally: Option<u32>,
}

#[derive(Serialize)]
struct AcknowledgeEvent<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    udid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enrollment_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<EventIds<'a>>,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_uuid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url_params: Option<()>,
    raw_payload: String,
}

#[derive(Serialize)]
struct EventIds<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: EnrollmentKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<&'a str>,
}

impl Event {
    fn body(&self, webhook: &Webhook, at: OffsetDateTime, number: u64) -> Vec<u8> {
        let form = webhook.form;
        let is_micro = form == WebhookForm::MicroMdm;
        let ids = (form == WebhookForm::NanoMdm09).then(|| EventIds {
            id: &self.ids.id,
            kind: self.ids.kind,
            parent_id: self.ids.parent_id.as_deref(),
        });
        let udid = self.ids.udid.as_deref();
        let enrollment_id = self.ids.enrollment_id.as_deref();
        let url_params = is_micro.then_some(());
        let raw_payload = STANDARD.encode(&self.payload);
        let (checkin_event, acknowledge_event) = match &self.status {
            None => {
                let token_update_tally = self.tally.filter(|_| !is_micro);
                let event = CheckInEvent {
                    udid,
                    enrollment_id,
                    ids,
                    url_params,
                    raw_payload,
                    token_update_tally,
                };
                (Some(event), None)
            }
            Some(status) => {
                let command_uuid = match (self.command_uuid.as_deref(), form) {
                    (None, WebhookForm::NanoMdm08) => Some(""),
                    (uuid, _) => uuid,
                };
                let event = AcknowledgeEvent {
                    udid,
                    enrollment_id,
                    ids,
                    status,
                    command_uuid,
                    url_params,
                    raw_payload,
                };
                (None, Some(event))
            }
        };
        let event_id =
            uuid::Uuid::from_u64_pair(0x3eb0_0000_0000_4000, 0x8000_0000_0000_0000 | number);
        let envelope = Envelope {
            topic: self.topic,
            event_id: (is_micro || (webhook.event_ids && form == WebhookForm::NanoMdm09))
                .then(|| event_id.to_string()),
            created_at: at,
            checkin_event,
            acknowledge_event,
        };
        let json = if is_micro {
            serde_json::to_vec_pretty(&envelope)
        } else {
            serde_json::to_vec(&envelope)
        };
        json.expect("strings and numbers are always JSON")
    }
}

/// Makes webhooks, and sends them from a task of its own.
pub(super) struct Webhooks {
    shared: Arc<Delivering>,
    faults: Mutex<Queue<WebhookFault>>,
    /// Held until released; those to be swapped come first.
    held: Mutex<Held>,
    jobs: mpsc::UnboundedSender<Job>,
}

#[derive(Default)]
struct Held {
    after_next: Vec<u64>,
    until_released: Vec<u64>,
}

struct Delivering {
    now: Now,
    target: Mutex<Option<Arc<Target>>>,
    journal: Journal<WebhookSent>,
}

struct Target {
    webhook: Webhook,
    client: Result<reqwest::Client, String>,
}

struct Job {
    number: u64,
    target: Arc<Target>,
}

impl Webhooks {
    pub(super) fn start(webhook: Option<Webhook>, now: Now, journal: usize) -> Self {
        let target = Mutex::new(webhook.map(Target::new));
        let shared = Arc::new(Delivering {
            now,
            target,
            journal: Journal::new(journal),
        });
        let (jobs, mut waiting) = mpsc::unbounded_channel::<Job>();
        let delivering = shared.clone();
        tokio::spawn(async move {
            while let Some(job) = waiting.recv().await {
                let delivery = deliver(delivering.clone(), job.number, job.target.clone());
                if job.target.webhook.in_order {
                    delivery.await;
                } else {
                    tokio::spawn(delivery);
                }
            }
        });
        Self {
            shared,
            faults: Mutex::default(),
            held: Mutex::default(),
            jobs,
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("no holder of this lock panics")
    }

    fn faults(&self) -> MutexGuard<'_, Queue<WebhookFault>> {
        self.faults.lock().expect("no holder of this lock panics")
    }

    pub(super) fn set(&self, webhook: Option<Webhook>) {
        *self.shared.target() = webhook.map(Target::new);
    }

    pub(super) fn is_set(&self) -> bool {
        self.shared.target().is_some()
    }

    pub(super) fn journal(&self) -> &Journal<WebhookSent> {
        &self.shared.journal
    }

    pub(super) fn push_fault(&self, fault: WebhookFault) {
        self.faults().push(fault);
    }

    pub(super) fn clear_faults(&self) {
        self.faults().clear();
    }

    /// Sends it, unless nobody wants webhooks or a fault intervenes.
    pub(super) fn send(&self, event: Event) {
        let Some(target) = self.shared.target().clone() else {
            return;
        };
        let fits = |fault: &WebhookFault| {
            fault.topic.is_none_or(|topic| topic == event.topic)
                && fault.id.as_ref().is_none_or(|id| *id == event.ids.id)
        };
        let act = self.faults().take(fits).map(|fault| fault.act);
        let at = self.shared.now.get();
        let number = self.shared.journal.add(|number| WebhookSent {
            number,
            at,
            topic: event.topic,
            id: event.ids.id.clone(),
            status: event.status.clone(),
            command_uuid: event.command_uuid.clone(),
            delivery: match act {
                Some(WebhookAct::Drop) => Delivery::Dropped,
                Some(WebhookAct::SwapWithNext | WebhookAct::Hold) => Delivery::Held,
                Some(WebhookAct::Duplicate) | None => Delivery::OnItsWay,
            },
            repeats: None,
            body: Sealed(event.body(&target.webhook, at, number).into()),
        });
        match act {
            Some(WebhookAct::Drop) => {}
            Some(WebhookAct::SwapWithNext) => self.held().after_next.push(number),
            Some(WebhookAct::Hold) => self.held().until_released.push(number),
            Some(WebhookAct::Duplicate) => {
                self.dispatch(number, &target);
                self.replay(number);
            }
            None => {
                self.dispatch(number, &target);
                let swapped = std::mem::take(&mut self.held().after_next);
                self.let_go(swapped);
            }
        }
    }

    pub(super) fn release(&self) {
        let (swapped, held) = {
            let mut held = self.held();
            (
                std::mem::take(&mut held.after_next),
                std::mem::take(&mut held.until_released),
            )
        };
        self.let_go(swapped);
        self.let_go(held);
    }

    fn let_go(&self, numbers: Vec<u64>) {
        let Some(target) = self.shared.target().clone() else {
            return;
        };
        for number in numbers {
            self.shared
                .journal
                .amend(number, |sent| sent.delivery = Delivery::OnItsWay);
            self.dispatch(number, &target);
        }
    }

    /// Sends an old one again, as an entry of its own.
    pub(super) fn replay(&self, number: u64) -> bool {
        let (Some(old), Some(target)) = (
            self.shared.journal.get(number),
            self.shared.target().clone(),
        ) else {
            return false;
        };
        let again = self.shared.journal.add(|again| WebhookSent {
            number: again,
            at: self.shared.now.get(),
            delivery: Delivery::OnItsWay,
            repeats: Some(number),
            ..old
        });
        self.dispatch(again, &target);
        true
    }

    fn dispatch(&self, number: u64, target: &Arc<Target>) {
        // The receiver ends with the runtime only.
        let _ = self.jobs.send(Job {
            number,
            target: target.clone(),
        });
    }
}

impl Delivering {
    fn target(&self) -> MutexGuard<'_, Option<Arc<Target>>> {
        self.target.lock().expect("no holder of this lock panics")
    }
}

impl Target {
    fn new(webhook: Webhook) -> Arc<Self> {
        let client = crate::http_client::client(webhook.ca_pem.as_deref(), None, TIME_OUT);
        Arc::new(Self {
            webhook,
            client: client.map_err(|error| error.to_string()),
        })
    }
}

async fn deliver(delivering: Arc<Delivering>, number: u64, target: Arc<Target>) {
    let Some(sent) = delivering.journal.get(number) else {
        return;
    };
    let delivery = match post(&target, sent.body.0).await {
        Ok(status) => Delivery::Answered(status),
        Err(why) => Delivery::Failed(why),
    };
    delivering
        .journal
        .amend(number, |sent| sent.delivery = delivery);
}

async fn post(target: &Target, body: Bytes) -> Result<u16, String> {
    let client = target.client.as_ref().map_err(String::clone)?;
    let mut request = client
        .post(&target.webhook.url)
        .header("content-type", "application/json; charset=utf-8");
    if let (Some(key), WebhookForm::NanoMdm09) = (&target.webhook.hmac_key, target.webhook.form) {
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &body);
        request = request.header("x-hmac-signature", STANDARD.encode(signature));
    }
    // The URL may hold a secret, so it is not part of what is said.
    let response = request
        .body(body)
        .send()
        .await
        .map_err(|error| error.without_url().to_string())?;
    Ok(response.status().as_u16())
}
