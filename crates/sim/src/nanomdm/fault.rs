//! Faults a test asks of the fake NanoMDM.

use std::time::Duration;

use crate::fault::{Counted, Gate, Wait};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WebhookAct {
    Drop,
    Duplicate,
    SwapWithNext,
    Hold,
}

/// Something that goes wrong with the next webhook; of any topic and enrollment, unless said otherwise.
#[derive(Clone)]
pub struct WebhookFault {
    pub(super) act: WebhookAct,
    pub(super) topic: Option<&'static str>,
    pub(super) id: Option<String>,
    times: u32,
}

impl WebhookFault {
    fn new(act: WebhookAct) -> Self {
        Self {
            act,
            topic: None,
            id: None,
            times: 1,
        }
    }

    /// It is never sent.
    pub fn drop() -> Self {
        Self::new(WebhookAct::Drop)
    }

    /// It is sent twice.
    pub fn duplicate() -> Self {
        Self::new(WebhookAct::Duplicate)
    }

    /// It is sent after the one that follows it.
    pub fn swap_with_next() -> Self {
        Self::new(WebhookAct::SwapWithNext)
    }

    /// It waits for [`NanoMdm::release_webhooks`](super::NanoMdm::release_webhooks).
    pub fn hold() -> Self {
        Self::new(WebhookAct::Hold)
    }

    /// Only webhooks of this topic, such as `mdm.Authenticate`.
    #[must_use]
    pub fn for_topic(mut self, topic: &'static str) -> Self {
        self.topic = Some(topic);
        self
    }

    /// Only webhooks of this enrollment.
    #[must_use]
    pub fn for_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// So many webhooks instead of one.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }
}

impl Counted for WebhookFault {
    fn times(&self) -> u32 {
        self.times
    }
}

#[derive(Clone)]
pub(super) enum ApiAct {
    HangUp,
    LoseAnswer,
    Status(u16, String),
    Wait(Wait),
    RejectKey,
}

/// Something that goes wrong with the next API call; of any path, unless said otherwise.
#[derive(Clone)]
pub struct ApiFault {
    pub(super) act: ApiAct,
    pub(super) path: Option<String>,
    times: u32,
}

impl ApiFault {
    fn new(act: ApiAct) -> Self {
        Self {
            act,
            path: None,
            times: 1,
        }
    }

    /// The connection is closed, and nothing was done.
    pub fn hang_up() -> Self {
        Self::new(ApiAct::HangUp)
    }

    /// The call is done, and the connection is closed without an answer.
    pub fn lose_answer() -> Self {
        Self::new(ApiAct::LoseAnswer)
    }

    /// This status with `{"error": ...}`, and nothing was done.
    pub fn status(status: u16) -> Self {
        Self::new(ApiAct::Status(
            status,
            "the fake was told to fail".to_owned(),
        ))
    }

    /// The call is done late by so much.
    pub fn delay(how_long: Duration) -> Self {
        Self::new(ApiAct::Wait(Wait::For(how_long)))
    }

    /// The call is done once the gate is open.
    pub fn hold(gate: &Gate) -> Self {
        Self::new(ApiAct::Wait(Wait::Until(gate.clone())))
    }

    /// The key is refused with 401, though it is right.
    pub fn reject_key() -> Self {
        Self::new(ApiAct::RejectKey)
    }

    /// Only calls whose path contains this, such as `enqueue`.
    #[must_use]
    pub fn for_path(mut self, part: impl Into<String>) -> Self {
        self.path = Some(part.into());
        self
    }

    /// So many calls instead of one.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }
}

impl Counted for ApiFault {
    fn times(&self) -> u32 {
        self.times
    }
}
