//! Connectors: an MDM's bytes become observations, our commands become calls of its API. One file an MDM.

use std::time::Duration;

use activation_lock::device::DeviceIdentity;
use activation_lock::observation::Observation;
use activation_lock::unlock::Outcome;
use apple::transport::ExtraAuthorities;
use escrow::connections::{ConnectionKind, OpenConnection};

/// Why a webhook's body cannot be read. Repeats nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Not the JSON that this kind of MDM sends.
    #[error("it is not an event of this kind of MDM")]
    NotAnEvent,
}

/// Reads a webhook's body. `None` when it is proven and readable and there is nothing in it for us.
///
/// # Errors
/// When it is not what this kind of MDM sends.
pub fn read_event(_kind: ConnectionKind, _body: &[u8]) -> Result<Option<Observation>, EventError> {
    Err(EventError::NotAnEvent)
}

/// Why the client for MDMs cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Http(#[from] reqwest::Error),
}

/// Calls MDMs. Keeps connections open between calls; a clone shares them.
#[derive(Clone)]
pub struct Client;

/// What an MDM made of a command.
pub(crate) enum Enqueued {
    /// It has it, now or from an earlier try ("duplicate").
    Queued,
    /// It has not, or we cannot know: try again later. In words for a person, without secrets.
    NotQueued(String),
}

/// How a delegated unlock ended (R19), in the shape of a call of our own.
pub(crate) struct Delegated {
    pub(crate) outcome: Outcome,
    pub(crate) status: Option<u16>,
    /// It was the MDM's own error, not Apple's.
    pub(crate) delegate_failed: bool,
    /// For people, without the code in any encoding (R23).
    pub(crate) diagnostic: String,
}

/// One code for one device, on its way through an MDM.
pub(crate) struct DelegatedUnlock<'a> {
    pub(crate) topic: &'a str,
    pub(crate) identity: &'a DeviceIdentity,
    pub(crate) org_name: &'a str,
    pub(crate) guid: &'a str,
    pub(crate) code: &'a str,
}

impl Client {
    /// A client that believes the public authorities and these.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(_authorities: &ExtraAuthorities, _timeout: Duration) -> Result<Self, ClientError> {
        Ok(Self)
    }

    /// Queues a command under its CommandUUID, which is on record already.
    pub(crate) async fn enqueue(
        &self,
        _connection: &OpenConnection,
        _enrollment: &str,
        _command_uuid: &str,
        _plist: Vec<u8>,
    ) -> Enqueued {
        Enqueued::NotQueued(String::new())
    }

    /// Has the MDM call Apple.
    pub(crate) async fn unlock(
        &self,
        _connection: &OpenConnection,
        _request: &DelegatedUnlock<'_>,
    ) -> Delegated {
        Delegated {
            outcome: Outcome::Unavailable,
            status: None,
            delegate_failed: false,
            diagnostic: String::new(),
        }
    }

    /// Whether the MDM answers and takes our key: what it said, or what is wrong.
    ///
    /// # Errors
    /// In words for a person, without secrets.
    pub(crate) async fn test(&self, _connection: &OpenConnection) -> Result<String, String> {
        Err(String::new())
    }
}
