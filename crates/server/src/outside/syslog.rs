//! Syslog, as RFC 5424 writes a message: one datagram each, to a socket of this machine or over UDP (RFC 5426).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use activation_lock::time::Timestamp;
use tokio::net::{UdpSocket, UnixDatagram, lookup_host};

use crate::http::api::moment;

/// Facility 13 (log audit), severity 6 (informational).
const PRIORITY: u8 = 13 * 8 + 6;
/// The most that a message holds, bytes: a datagram holds little more.
const LONGEST: usize = 60_000;
/// The port that is meant when none is named (RFC 5426).
const PORT: u16 = 514;

/// Where a syslog listens. UDP tells nobody whether it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Syslog {
    /// A datagram socket of this machine, such as `/dev/log`.
    Socket(PathBuf),
    /// A host and port.
    Udp(String),
}

/// A text that is no place of a syslog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write the path of a socket, such as /dev/log, or udp://HOST:PORT")]
pub struct SyslogError;

impl FromStr for Syslog {
    type Err = SyslogError;

    fn from_str(text: &str) -> Result<Self, SyslogError> {
        if text.starts_with('/') {
            return Ok(Self::Socket(text.into()));
        }
        let host = text.strip_prefix("udp://").ok_or(SyslogError)?;
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        match host {
            "" => Err(SyslogError),
            host if host.contains(['/', '@', ' ']) => Err(SyslogError),
            host if has_port => Ok(Self::Udp(host.to_owned())),
            host => Ok(Self::Udp(format!("{host}:{PORT}"))),
        }
    }
}

impl Syslog {
    /// Sends messages, one after the other.
    ///
    /// # Errors
    /// In words, why one of them did not leave.
    pub(super) async fn send(
        &self,
        now: Timestamp,
        kind: &str,
        messages: &[String],
    ) -> Result<(), String> {
        let messages = messages.iter().map(|text| message(now, kind, text));
        let sent = match self {
            Self::Socket(path) => async {
                let socket = UnixDatagram::unbound()?;
                for message in messages {
                    socket.send_to(message.as_bytes(), path).await?;
                }
                Ok(())
            }
            .await
            .map_err(|error: std::io::Error| (path.display().to_string(), error)),
            Self::Udp(host) => async {
                let to = lookup_host(host).await?.next();
                let to = to.ok_or_else(|| std::io::Error::other("the name has no address"))?;
                let any: SocketAddr = match to {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any).await?;
                for message in messages {
                    socket.send_to(message.as_bytes(), to).await?;
                }
                Ok(())
            }
            .await
            .map_err(|error: std::io::Error| (host.clone(), error)),
        };
        sent.map_err(|(place, error)| format!("the syslog at {place} takes nothing: {error}"))
    }
}

fn message(now: Timestamp, kind: &str, text: &str) -> String {
    let at = moment(now);
    let process = std::process::id();
    let head = format!("<{PRIORITY}>1 {at} - lockwarden {process} {kind} - ");
    match head.len() + text.len() <= LONGEST {
        true => head + text,
        false => format!(
            "{head}{{\"too_long\":{},\"position\":{}}}",
            text.len(),
            position(text)
        ),
    }
}

/// The position in a line of a row.
fn position(line: &str) -> serde_json::Value {
    let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    line["position"].clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_780_000_000_123);

    #[test]
    fn a_place_is_a_socket_or_a_host() {
        let udp = |text: &str| Ok(Syslog::Udp(text.to_owned()));
        assert_eq!("/dev/log".parse(), Ok(Syslog::Socket("/dev/log".into())));
        assert_eq!(
            "udp://logs.example.org".parse(),
            udp("logs.example.org:514")
        );
        assert_eq!("udp://192.0.2.7:5140".parse(), udp("192.0.2.7:5140"));
        assert_eq!("udp://[2001:db8::7]:514".parse(), udp("[2001:db8::7]:514"));
        for bad in [
            "",
            "logs",
            "tcp://logs:514",
            "udp://",
            "udp://a b",
            "udp://a/b",
        ] {
            assert_eq!(bad.parse::<Syslog>(), Err(SyslogError), "{bad}");
        }
    }

    #[test]
    fn a_message_is_as_rfc_5424_writes_it() {
        let process = std::process::id();
        assert_eq!(
            message(NOW, "audit-row", "{\"position\":7}"),
            format!(
                "<110>1 2026-05-28T20:26:40.123Z - lockwarden {process} audit-row - {{\"position\":7}}"
            )
        );
        let long = format!("{{\"position\":7,\"text\":\"{}\"}}", "a".repeat(LONGEST));
        let short = message(NOW, "audit-row", &long);
        assert!(short.ends_with(",\"position\":7}"), "{short}");
    }

    #[tokio::test]
    async fn messages_arrive_at_a_socket_and_over_udp() {
        let lines = ["one".to_owned(), "two".to_owned()];
        let mut buffer = [0; 1024];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let at = Syslog::Socket(path.clone());
        let error = at.send(NOW, "audit-row", &lines).await.unwrap_err();
        assert!(error.contains("takes nothing"), "{error}");
        let socket = UnixDatagram::bind(&path).unwrap();
        at.send(NOW, "audit-row", &lines).await.unwrap();
        for line in &lines {
            let length = socket.recv(&mut buffer).await.unwrap();
            assert!(buffer[..length].ends_with(line.as_bytes()));
        }
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = Syslog::Udp(socket.local_addr().unwrap().to_string());
        at.send(NOW, "audit-checkpoint", &lines[..1]).await.unwrap();
        let length = socket.recv(&mut buffer).await.unwrap();
        assert!(buffer[..length].starts_with(b"<110>1 2026-"));
    }
}
