//! MicroMDM. Its events are read by [`super::nanomdm`]; its API is its own.
//!
//! What is known of the wire, and how sure it is (mdm-connectors, 3; V: read in the project's source):
//!
//! * V: `POST /v1/commands/{udid}`, Basic authentication (user `micromdm`), body a command's plist with its own
//!   CommandUUID: 201. It pushes by itself. It does not say "duplicate": the same command again is queued again, and the
//!   second answer of the device is one that is known already.
//! * V: errors are `{"error"}`, mostly with 500.
//! * V: `POST /v1/devices` with a page lists devices and changes nothing.
//! * V: it has no call that unlocks.

use activation_lock::unlock::Outcome;
use http::{Method, StatusCode};
use serde::Deserialize;

use super::http_client::{Body, Caller, Failed, Reply};
use super::{Delegated, Enqueued};

fn path<'a>(caller: &Caller<'a>, call: &[&'a str]) -> Vec<&'a str> {
    let prefix = caller.connection.view.path_prefix.split('/');
    let mut path: Vec<&str> = prefix.filter(|part| !part.is_empty()).collect();
    path.push("v1");
    path.extend(call);
    path
}

/// Queues a command.
pub(super) async fn enqueue(caller: &Caller<'_>, enrollment: &str, plist: Vec<u8>) -> Enqueued {
    let path = path(caller, &["commands", enrollment]);
    let reply = match caller.call(Method::POST, &path, Body::Plist(plist)).await {
        Ok(reply) => reply,
        Err(failed) => return Enqueued::Down(failed.for_people()),
    };
    if let Some(why) = caller.takes_nothing(&reply) {
        return Enqueued::Down(why);
    }
    match reply.status {
        StatusCode::CREATED => Enqueued::Queued,
        _ => Enqueued::NotQueued(format!("the MDM did not take it: {}", caller.words(&reply))),
    }
}

/// There is no such call: nothing is sent, no code is blamed, and a person has to mend the connection.
pub(super) fn unlock() -> Delegated {
    Delegated {
        outcome: Outcome::Credential,
        status: None,
        delegate_failed: false,
        diagnostic: "nothing was sent: MicroMDM cannot call Apple for us; add its push certificate here and set the \
                     connection to unlock with our own"
            .to_owned(),
    }
}

#[derive(Deserialize)]
struct Devices {
    #[serde(rename = "devices")]
    _devices: serde::de::IgnoredAny,
}

/// Asks for a page of one device.
async fn one_device(caller: &Caller<'_>) -> Result<Reply, String> {
    let path = path(caller, &["devices"]);
    let page = br#"{"page":0,"per_page":1}"#.to_vec();
    let reply = caller
        .call(Method::POST, &path, Body::Json(page))
        .await
        .map_err(Failed::for_people)?;
    match caller.takes_nothing(&reply) {
        Some(why) => Err(why),
        None => Ok(reply),
    }
}

/// Whether commands may be brought again.
pub(super) async fn is_back(caller: &Caller<'_>) -> Result<(), String> {
    one_device(caller).await.map(|_| ())
}

/// Asks for something that needs the key.
pub(super) async fn test(caller: &Caller<'_>) -> Result<String, String> {
    let reply = one_device(caller).await?;
    let is_list =
        reply.status == StatusCode::OK && serde_json::from_slice::<Devices>(&reply.body).is_ok();
    if is_list {
        Ok("it answers and takes the API key".to_owned())
    } else {
        Err(format!(
            "what answers at the MDM's address is not MicroMDM's API: {}; look at the connection's address and path prefix",
            caller.words(&reply)
        ))
    }
}
