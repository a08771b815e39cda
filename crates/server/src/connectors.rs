//! Connectors: an MDM's bytes become observations, our commands become calls of its API. One file an MDM.

use std::sync::Arc;
use std::time::Duration;

use activation_lock::device::DeviceIdentity;
use activation_lock::observation::Observation;
use activation_lock::time::Timestamp;
use activation_lock::unlock::Outcome;
use apple::transport::ExtraAuthorities;
use escrow::connections::{ConnectionKind, ConnectionView, OpenConnection};

mod http_client;

pub(crate) use http_client::Delivered;
mod micromdm;
pub(crate) mod nanomdm;
mod rate;
#[cfg(test)]
mod tests;

/// Why a webhook's body cannot be read. Repeats nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Not the JSON that this kind of MDM sends.
    #[error("it is not an event of this kind of MDM")]
    NotAnEvent,
    /// The property list of the device.
    #[error("the device's message in it cannot be read")]
    Message,
}

/// Reads a webhook's body. `None` when it is proven and readable and there is nothing in it for us.
///
/// # Errors
/// When it is not what this kind of MDM sends.
pub fn read_event(kind: ConnectionKind, body: &[u8]) -> Result<Option<Observation>, EventError> {
    match kind {
        ConnectionKind::NanoMdm | ConnectionKind::NanoHub | ConnectionKind::MicroMdm => {
            nanomdm::read_event(body)
        }
    }
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
pub struct Client {
    http: reqwest::Client,
    turns: Arc<rate::Turns>,
}

/// What an MDM made of a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Enqueued {
    /// It has it, now or from an earlier try ("duplicate").
    Queued,
    /// It has not, or we cannot know: try again later. In words for a person, without secrets.
    NotQueued(String),
    /// The same, and there is no use in trying another command now: it cannot be reached, is not ready, or does not take
    /// our key.
    Down(String),
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
    /// A client that believes the public authorities and these. `timeout` is for a whole call.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(authorities: &ExtraAuthorities, timeout: Duration) -> Result<Self, ClientError> {
        Ok(Self {
            http: http_client::build(authorities, timeout)?,
            turns: Arc::default(),
        })
    }

    /// Posts JSON to an address that needs no key.
    ///
    /// # Errors
    /// In words, why it was not taken.
    pub(crate) async fn post(&self, address: &str, json: String) -> Result<(), String> {
        http_client::post(&self.http, address, json).await
    }

    /// Posts JSON with these headers, and gives what was answered. `shown` is as much of the address as may be told.
    ///
    /// # Errors
    /// In words, why there is no answer.
    pub(crate) async fn deliver(
        &self,
        address: &str,
        shown: &str,
        headers: &[(&str, &str)],
        json: String,
    ) -> Result<Delivered, String> {
        http_client::deliver(&self.http, address, shown, headers, json).await
    }

    /// Makes a call that a library made up, and gives what was answered.
    ///
    /// # Errors
    /// In words, why there is no answer.
    #[cfg(feature = "oidc")]
    pub(crate) async fn call(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>, String> {
        http_client::call(&self.http, request).await
    }

    fn caller<'a>(&'a self, connection: &'a OpenConnection) -> http_client::Caller<'a> {
        http_client::Caller {
            http: &self.http,
            connection,
            secrets: vec![connection.api_key.as_str()],
        }
    }

    /// Takes the next turn at a connection whose rate is limited: how long until the call may be made.
    pub(crate) fn turn(&self, connection: &ConnectionView, now: Timestamp) -> Duration {
        match connection.max_rate {
            Some(per_second) => self.turns.take(&connection.id, per_second, now),
            None => Duration::ZERO,
        }
    }

    /// Queues a command under its CommandUUID, which is on record already.
    pub(crate) async fn enqueue(
        &self,
        connection: &OpenConnection,
        enrollment: &str,
        command_uuid: &str,
        plist: Vec<u8>,
    ) -> Enqueued {
        if matches!(enrollment, "." | "..") {
            let why = "the enrollment's name cannot be part of an address";
            return Enqueued::NotQueued(why.to_owned());
        }
        let caller = self.caller(connection);
        match connection.view.kind {
            ConnectionKind::NanoMdm | ConnectionKind::NanoHub => {
                nanomdm::enqueue(&caller, enrollment, command_uuid, plist).await
            }
            ConnectionKind::MicroMdm => micromdm::enqueue(&caller, enrollment, plist).await,
        }
    }

    /// Has the MDM call Apple.
    pub(crate) async fn unlock(
        &self,
        connection: &OpenConnection,
        request: &DelegatedUnlock<'_>,
    ) -> Delegated {
        let mut caller = self.caller(connection);
        caller.secrets.push(request.code);
        match connection.view.kind {
            ConnectionKind::NanoMdm | ConnectionKind::NanoHub => {
                nanomdm::unlock(&caller, request).await
            }
            ConnectionKind::MicroMdm => micromdm::unlock(),
        }
    }

    /// Whether an MDM that took nothing may be brought commands again. Changes nothing there.
    pub(crate) async fn is_back(&self, connection: &OpenConnection) -> Result<(), String> {
        let caller = self.caller(connection);
        match connection.view.kind {
            ConnectionKind::NanoMdm | ConnectionKind::NanoHub => nanomdm::is_back(&caller).await,
            ConnectionKind::MicroMdm => micromdm::is_back(&caller).await,
        }
    }

    /// Whether the MDM answers and takes our key: what it said, or what is wrong.
    ///
    /// # Errors
    /// In words for a person, without secrets.
    pub(crate) async fn test(&self, connection: &OpenConnection) -> Result<String, String> {
        let caller = self.caller(connection);
        match connection.view.kind {
            ConnectionKind::NanoMdm | ConnectionKind::NanoHub => nanomdm::test(&caller).await,
            ConnectionKind::MicroMdm => micromdm::test(&caller).await,
        }
    }
}
