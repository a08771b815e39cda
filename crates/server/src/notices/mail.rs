//! A notice as a mail.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use activation_lock::time::Timestamp;
use escrow::notices::{Delivery, MailServer, Taken};
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use serde_json::Value;

use super::{subject, word};
use crate::App;

/// How long a mail server may take for each command.
const TIME_OUT: Duration = Duration::from_secs(30);

/// Says that no human being wrote it, so that nobody's absence answers (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// Whether a mail server can be reached so: with TLS, or on this machine.
pub(crate) fn is_server(server: &MailServer) -> bool {
    let here = server.host == "localhost"
        || server
            .host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    match server.security.as_str() {
        "tls" | "starttls" => true,
        "none" => here,
        _ => false,
    }
}

/// Sends it.
pub(super) async fn send(app: &App, delivery: &Delivery) -> Taken {
    let Some(server) = &delivery.channel.server else {
        return Taken::Never("the channel names no mail server".to_owned());
    };
    if delivery.recipient.is_empty() {
        return Taken::Never("nobody who may approve has a mail address".to_owned());
    }
    let message = match message(app, delivery, server) {
        Ok(message) => message,
        Err(why) => return Taken::Never(why),
    };
    let transport = match transport(app, delivery, server) {
        Ok(transport) => transport,
        Err(why) => return Taken::Later(why, None),
    };
    let place = format!("{}:{}", server.host, server.port);
    match transport.send(message).await {
        Ok(_) => Taken::Yes,
        Err(error) => {
            let code = error.status().map(u16::from);
            let why = format!("{place}: {}", told(&error));
            // Signing in, or the lack of it, is a person's to mend; what else is refused for good stays refused.
            match code {
                Some(530 | 534 | 535 | 538) => Taken::Later(why, None),
                _ if error.is_permanent() => Taken::Never(why),
                _ => Taken::Later(why, None),
            }
        }
    }
}

/// An error with what caused it, in a line.
fn told(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let _ = write!(words, ": {inner}");
        source = inner.source();
    }
    words
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect()
}

fn message(app: &App, delivery: &Delivery, server: &MailServer) -> Result<Message, String> {
    let mailbox = |text: &str| {
        text.parse::<Mailbox>()
            .map_err(|_| "an address is not one that mail can go to".to_owned())
    };
    let host = server
        .from
        .rsplit_once('@')
        .map_or("localhost", |(_, host)| host);
    let message = Message::builder()
        .from(mailbox(&server.from)?)
        .to(mailbox(&delivery.recipient)?)
        .subject(subject(delivery))
        .message_id(Some(format!("<{}@{host}>", delivery.notice)))
        .date(system_time(delivery.created_at))
        .header(AutoSubmitted)
        .header(ContentType::TEXT_PLAIN);
    message
        .body(text(app, delivery))
        .map_err(|error| format!("the mail cannot be written: {error}"))
}

fn system_time(at: Timestamp) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or(0))
}

/// What it says. No code and no secret is in a notice.
fn text(app: &App, delivery: &Delivery) -> String {
    let mut text = format!("{}\n\n", subject(delivery));
    let told = delivery.text.as_object().into_iter().flatten();
    for (key, value) in told.filter(|(_, value)| !value.is_null()) {
        let value = match value {
            Value::Array(items) if items.len() > 5 => format!("{} of them", items.len()),
            _ => word(&delivery.text, key),
        };
        // A line of somebody else's words is one of theirs, whatever they wrote.
        let value = value.lines().map(str::trim).collect::<Vec<_>>().join(" / ");
        let _ = writeln!(text, "{}: {value}", key.replace('_', " "));
    }
    let id = |key: &str| delivery.text[key].as_str();
    let next = match (id("approval"), id("emergency")) {
        (Some(id), _) => format!("lockwarden approvals show {id}"),
        (_, Some(_)) => "lockwarden emergencies list".to_owned(),
        _ => String::new(),
    };
    let address = app
        .settings
        .public_url
        .as_ref()
        .map_or(app.url.as_str(), url::Url::as_str);
    let _ = write!(text, "\nServer: {address}\n");
    if !next.is_empty() {
        let _ = writeln!(text, "See: {next}");
    }
    text
}

fn transport(
    app: &App,
    delivery: &Delivery,
    server: &MailServer,
) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let tls = || {
        let mut parameters = TlsParameters::builder(server.host.clone())
            .certificate_store(CertificateStore::WebpkiRoots);
        for authority in app.settings.mdm_authorities.certificates() {
            let certificate = Certificate::from_der(authority.to_vec())
                .map_err(|error| format!("an authority cannot be used: {error}"))?;
            parameters = parameters.add_root_certificate(certificate);
        }
        parameters
            .build_rustls()
            .map_err(|error| format!("TLS cannot be set up: {error}"))
    };
    let tls = match server.security.as_str() {
        "tls" => Tls::Wrapper(tls()?),
        "starttls" => Tls::Required(tls()?),
        _ => Tls::None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server.host.clone())
        .port(server.port)
        .hello_name(ClientId::default())
        .timeout(Some(TIME_OUT))
        .tls(tls);
    if let (Some(user), Some(password)) = (&server.username, delivery.secrets.first()) {
        builder = builder.credentials(Credentials::new(user.clone(), password.as_str().to_owned()));
    }
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_goes_in_the_clear_on_this_machine_alone() {
        let server = |host: &str, security: &str| MailServer {
            host: host.to_owned(),
            port: 25,
            security: security.to_owned(),
            username: None,
            from: "lockwarden@example.org".to_owned(),
        };
        for (host, security, fits) in [
            ("mail.example.org", "tls", true),
            ("mail.example.org", "starttls", true),
            ("mail.example.org", "none", false),
            ("localhost", "none", true),
            ("127.0.0.1", "none", true),
            ("localhost.example.org", "none", false),
            ("mail.example.org", "perhaps", false),
        ] {
            assert_eq!(
                is_server(&server(host, security)),
                fits,
                "{host} {security}"
            );
        }
    }
}
