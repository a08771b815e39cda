//! Faults a test asks of a fake: one kind for all services of Apple's, and the queue they wait in.

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
pub(crate) enum Act {
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
    /// The status, with a body that repeats the secret in several encodings.
    Echo(u16),
}

#[derive(Clone, Copy)]
pub(crate) enum OddBody {
    Empty,
    Xml,
    Huge,
}

/// Something that goes wrong with the next requests of a service: once, of any path and device, unless said otherwise.
/// Faults wait in a queue; each request takes the first that fits it.
///
/// What a request changes, it changes when it *commits*: a lock goes on or off, a session begins.
#[derive(Clone)]
pub struct Fault {
    pub(crate) name: &'static str,
    path: Option<String>,
    serial: Option<String>,
    times: u32,
    before: Option<Wait>,
    after: Option<Wait>,
    commits: bool,
    pub(crate) act: Act,
}

impl Fault {
    fn new(name: &'static str, act: Act) -> Self {
        Self {
            name,
            path: None,
            serial: None,
            times: 1,
            before: None,
            after: None,
            commits: true,
            act,
        }
    }

    /// Nothing goes wrong.
    pub(crate) fn none() -> Self {
        Self::new("none", Act::Truth)
    }

    /// The true answer, late by so much. The wait comes before anything is looked at.
    pub fn delay(how_long: Duration) -> Self {
        Self {
            before: Some(Wait::For(how_long)),
            ..Self::new("delay", Act::Truth)
        }
    }

    /// The true answer once the gate is open. The request is looked at, and commits, only then, whether the client still
    /// waits or not.
    pub fn hold(gate: &Gate) -> Self {
        Self {
            before: Some(Wait::Until(gate.clone())),
            ..Self::new("hold", Act::Truth)
        }
    }

    /// The request commits at once; the answer comes once the gate is open.
    pub fn hold_after_commit(gate: &Gate) -> Self {
        Self {
            after: Some(Wait::Until(gate.clone())),
            ..Self::new("hold_after_commit", Act::Truth)
        }
    }

    /// The connection is closed without an answer, and nothing has happened.
    pub fn drop_before() -> Self {
        Self {
            commits: false,
            ..Self::new("drop_before", Act::HangUp)
        }
    }

    /// The request commits, and the connection is closed without an answer.
    pub fn drop_after_commit() -> Self {
        Self::new("drop_after_commit", Act::HangUp)
    }

    /// This status, and nothing has happened.
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

    /// Bytes that are no HTTP; nothing has happened.
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

    /// This status with a body that repeats the secret of the request (a code, a hash, a token), plain and in several
    /// encodings, as a careless server would; nothing has happened.
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

    /// The request commits, although the answer does not say so.
    #[must_use]
    pub fn committing(mut self) -> Self {
        self.commits = true;
        self
    }

    /// Only requests whose path begins so.
    #[must_use]
    pub fn on(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
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

impl Fault {
    /// Whether it goes wrong with a request for this path and device.
    pub(crate) fn fits(&self, path: &str, serial: Option<&str>) -> bool {
        self.path
            .as_deref()
            .is_none_or(|start| path.starts_with(start))
            && (self.serial.is_none() || self.serial.as_deref() == serial)
    }

    /// Whether the request commits.
    pub(crate) fn commits(&self) -> bool {
        self.commits
    }

    /// Holds back what comes before the request is looked at.
    pub(crate) async fn hold_before(&self) {
        if let Some(wait) = &self.before {
            wait.pass().await;
        }
    }

    /// Holds back what comes after the request is looked at: the answer.
    pub(crate) async fn hold_after(&self) {
        if let Some(wait) = &self.after {
            wait.pass().await;
        }
    }
}

/// Faults that wait for their occasion, each good for some times.
pub(crate) struct Queue<F>(VecDeque<(F, u32)>);

impl<F> Default for Queue<F> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

/// A fault that says how often it applies.
pub(crate) trait Counted: Clone {
    fn times(&self) -> u32;
}

impl Counted for Fault {
    fn times(&self) -> u32 {
        self.times
    }
}

impl<F: Counted> Queue<F> {
    pub(crate) fn push(&mut self, fault: F) {
        let times = fault.times();
        if times > 0 {
            self.0.push_back((fault, times));
        }
    }

    pub(crate) fn take(&mut self, fits: impl Fn(&F) -> bool) -> Option<F> {
        let index = self.0.iter().position(|(fault, _)| fits(fault))?;
        let (fault, times) = &mut self.0[index];
        *times -= 1;
        if *times > 0 {
            Some(fault.clone())
        } else {
            self.0.remove(index).map(|(fault, _)| fault)
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn waiting(&self) -> usize {
        self.0.len()
    }
}
