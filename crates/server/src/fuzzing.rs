//! Bodies of fuzz targets, as plain functions: what is made of bytes that others wrote never panics.

use escrow::connections::ConnectionKind;

use crate::config::Config;
use crate::connectors::{self, nanomdm};
use crate::http;

/// A webhook's body. Gives whether it was read as one that says something.
#[must_use]
pub fn event(body: &[u8]) -> bool {
    let read = [
        ConnectionKind::NanoMdm,
        ConnectionKind::NanoHub,
        ConnectionKind::MicroMdm,
    ]
    .map(|kind| matches!(connectors::read_event(kind, body), Ok(Some(_))));
    read.contains(&true)
}

/// What NanoMDM answers when a command is given to it; the first two bytes are the status. Gives whether the command was taken
/// for queued.
#[must_use]
pub fn enqueued(bytes: &[u8]) -> bool {
    let Some((status, body)) = bytes.split_first_chunk() else {
        return false;
    };
    ::http::StatusCode::from_u16(u16::from_be_bytes(*status)).is_ok_and(|status| {
        nanomdm::read_enqueued(body, status, "UDID", "0191-A") == Some(connectors::Enqueued::Queued)
    })
}

/// The body of a request, as each that takes one would read it. Gives whether one does.
#[must_use]
pub fn request(body: &[u8]) -> bool {
    http::api::reads(body)
}

/// A configuration. Gives whether a server can be run by it.
#[must_use]
pub fn config(text: &[u8]) -> bool {
    // Without the files that it names: those are this machine's.
    Config::parse(&String::from_utf8_lossy(text)).is_ok_and(|config| {
        config.apple.ca_file.is_none() && config.mdm.ca_file.is_none() && config.settings().is_ok()
    })
}

/// A table or list that somebody brings. Gives whether it names anything.
#[must_use]
pub fn table(bytes: &[u8]) -> bool {
    crate::tables::serials(bytes).is_ok_and(|serials| !serials.is_empty())
}
