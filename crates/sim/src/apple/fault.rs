//! Faults a test asks of the fake Apple.

use std::{collections::VecDeque, time::Duration};

use tokio::sync::watch;

/// Holds requests back until a test opens it. A clone is the same gate.
#[derive(Clone)]
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Lets all through, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn pass(&self) {
        // The sender lives in self, so this cannot fail.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// How long something is held back.
#[derive(Clone)]
pub(crate) enum Wait {
    For(Duration),
    Until(Gate),
}

impl Wait {
    pub(crate) async fn pass(&self) {
        match self {
            Self::For(duration) => crate::clock::pause(*duration).await,
            Self::Until(gate) => gate.pass().await,
        }
    }
}

/// What a fault does instead of the true answer.
#[derive(Clone)]
pub(super) enum Act {
    /// The true answer.
    Truth,
    HangUp,
    Garbage,
    Status {
        status: u16,
        retry_after: Option<String>,
        location: Option<String>,
        body: Option<Vec<u8>>,
    },
    /// The true status with another body.
    Body(OddBody),
    /// The status, with a body that repeats the code in several encodings.
    Echo(u16),
}

#[derive(Clone, Copy)]
pub(super) enum OddBody {
    Empty,
    Xml,
    Huge,
}

/// Something that goes wrong with the next unlock requests: once, of any device, unless said otherwise. Faults wait in a queue;
/// each request takes the first that fits it.
#[derive(Clone)]
pub struct Fault {
    pub(super) name: &'static str,
    pub(super) serial: Option<String>,
    pub(super) times: u32,
    pub(super) before: Option<Wait>,
    pub(super) after: Option<Wait>,
    pub(super) commits: bool,
    pub(super) act: Act,
}

impl Fault {
    fn new(name: &'static str, act: Act) -> Self {
        Self {
            name,
            serial: None,
            times: 1,
            before: None,
            after: None,
            commits: true,
            act,
        }
    }

    /// The true answer, late by so much. The wait comes before the lock is looked at.
    pub fn delay(how_long: Duration) -> Self {
        Self {
            before: Some(Wait::For(how_long)),
            ..Self::new("delay", Act::Truth)
        }
    }

    /// The true answer once the gate is open. The lock is looked at (and opened) only then, whether the client still waits or not.
    pub fn hold(gate: &Gate) -> Self {
        Self {
            before: Some(Wait::Until(gate.clone())),
            ..Self::new("hold", Act::Truth)
        }
    }

    /// The lock is looked at (and opened) at once; the answer comes once the gate is open.
    pub fn hold_after_commit(gate: &Gate) -> Self {
        Self {
            after: Some(Wait::Until(gate.clone())),
            ..Self::new("hold_after_commit", Act::Truth)
        }
    }

    /// The connection is closed without an answer, and nothing has happened to the lock.
    pub fn drop_before() -> Self {
        Self {
            commits: false,
            ..Self::new("drop_before", Act::HangUp)
        }
    }

    /// The lock is opened if the code fits, and the connection is closed without an answer.
    pub fn drop_after_commit() -> Self {
        Self::new("drop_after_commit", Act::HangUp)
    }

    /// This status, and nothing has happened to the lock.
    pub fn status(status: u16) -> Self {
        Self {
            commits: false,
            ..Self::new(
                "status",
                Act::Status {
                    status,
                    retry_after: None,
                    location: None,
                    body: None,
                },
            )
        }
    }

    /// Bytes that are no HTTP; nothing has happened to the lock.
    pub fn garbage() -> Self {
        Self {
            commits: false,
            ..Self::new("garbage", Act::Garbage)
        }
    }

    /// The true status with a body of 5 MB.
    pub fn huge_body() -> Self {
        Self::new("huge_body", Act::Body(OddBody::Huge))
    }

    /// The true status without a body.
    pub fn empty_body() -> Self {
        Self::new("empty_body", Act::Body(OddBody::Empty))
    }

    /// The true status with an XML body, as one client in the field parses.
    pub fn xml_body() -> Self {
        Self::new("xml_body", Act::Body(OddBody::Xml))
    }

    /// This status with a body that repeats the code, plain and in several encodings, as a careless server would;
    /// nothing has happened to the lock.
    pub fn echo(status: u16) -> Self {
        Self {
            commits: false,
            ..Self::new("echo", Act::Echo(status))
        }
    }

    /// Sets the `Retry-After` of a [`Fault::status`]: seconds or an HTTP date, as is.
    #[must_use]
    pub fn retry_after(mut self, value: impl Into<String>) -> Self {
        if let Act::Status { retry_after, .. } = &mut self.act {
            *retry_after = Some(value.into());
        }
        self
    }

    /// Sets the `Location` of a [`Fault::status`]: where a redirect points.
    #[must_use]
    pub fn location(mut self, url: impl Into<String>) -> Self {
        if let Act::Status { location, .. } = &mut self.act {
            *location = Some(url.into());
        }
        self
    }

    /// Sets the body of a [`Fault::status`].
    #[must_use]
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        if let Act::Status { body, .. } = &mut self.act {
            *body = Some(bytes.into());
        }
        self
    }

    /// The lock is opened if the code fits, although the answer does not say so.
    #[must_use]
    pub fn committing(mut self) -> Self {
        self.commits = true;
        self
    }

    /// Only requests for this serial number.
    #[must_use]
    pub fn for_serial(mut self, serial: impl Into<String>) -> Self {
        self.serial = Some(serial.into());
        self
    }

    /// So many requests instead of one.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }
}

/// The faults that wait.
#[derive(Default)]
pub(super) struct Faults(VecDeque<Fault>);

impl Faults {
    pub(super) fn push(&mut self, fault: Fault) {
        if fault.times > 0 {
            self.0.push_back(fault);
        }
    }

    pub(super) fn take(&mut self, serial: Option<&str>) -> Option<Fault> {
        let fits = |fault: &Fault| fault.serial.is_none() || fault.serial.as_deref() == serial;
        let index = self.0.iter().position(fits)?;
        let fault = &mut self.0[index];
        fault.times -= 1;
        if fault.times > 0 {
            return Some(fault.clone());
        }
        self.0.remove(index)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn waiting(&self) -> usize {
        self.0.len()
    }
}
