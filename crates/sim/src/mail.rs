//! A mail server that takes mail and keeps it: strict about the order of commands, line ends and who may send what when.
//!
//! It speaks as much of SMTP (RFC 5321) as a client needs to hand mail in: EHLO, STARTTLS (RFC 3207), AUTH PLAIN (RFC 4954), MAIL, RCPT,
//! DATA, RSET, NOOP, QUIT. What it does not know it refuses.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::StartError;
use crate::journal::Journal;

/// Mail that is kept.
const MOST: usize = 1_000;

/// How clients reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailSecurity {
    /// TLS from the first byte.
    Tls,
    /// TLS after STARTTLS, without which it takes no mail.
    StartTls,
    /// None.
    Plain,
}

/// A mail that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// From whom, as the envelope says.
    pub from: String,
    /// To whom, as the envelope says.
    pub to: Vec<String>,
    /// Headers and body, lines ended by `\n`.
    pub text: String,
    /// Whether it came over TLS.
    pub over_tls: bool,
    /// Who had signed in.
    pub user: Option<String>,
}

/// What to answer instead, once: to the next command that begins with this word.
struct Fault {
    word: &'static str,
    reply: String,
}

struct Shared {
    security: MailSecurity,
    account: Option<(String, String)>,
    tls: Arc<ServerConfig>,
    ca_pem: String,
    faults: Mutex<VecDeque<Fault>>,
    journal: Journal<Mail>,
}

/// See the head of this file. Copies of it are one.
#[derive(Clone)]
pub struct MailServer {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl MailServer {
    /// Starts one on any free port of this machine. With an account (user, password) it takes mail only from who signed in.
    ///
    /// # Errors
    /// When it cannot listen, or no certificate can be made.
    pub async fn start(
        security: MailSecurity,
        account: Option<(&str, &str)>,
    ) -> Result<Self, StartError> {
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])
                .map_err(io::Error::other)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .with_no_client_auth()
                    .with_single_cert(vec![made.cert.der().clone()], key)
            })
            .map_err(io::Error::other)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let server = Self {
            address: listener.local_addr()?,
            shared: Arc::new(Shared {
                security,
                account: account.map(|(user, password)| (user.to_owned(), password.to_owned())),
                tls: Arc::new(tls),
                ca_pem: made.cert.pem(),
                faults: Mutex::default(),
                journal: Journal::new(MOST),
            }),
        };
        let shared = server.shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                // A client that hangs up is gone.
                tokio::spawn(async move { shared.serve(stream).await.ok() });
            }
        });
        Ok(server)
    }

    /// Its port, on `localhost`.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The authority that a client has to believe, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.shared.ca_pem
    }

    /// Answers the next command that begins with `word` with this line instead, such as `451 4.3.0 later`.
    pub fn push_fault(&self, word: &'static str, reply: &str) {
        let mut faults = self
            .shared
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        faults.push_back(Fault {
            word,
            reply: reply.to_owned(),
        });
    }

    /// The mail that was taken.
    #[must_use]
    pub fn journal(&self) -> &Journal<Mail> {
        &self.shared.journal
    }
}

/// Where a conversation is.
#[derive(Default)]
struct Session {
    greeted: bool,
    over_tls: bool,
    user: Option<String>,
    from: Option<String>,
    to: Vec<String>,
}

/// What comes after a reply.
enum Next {
    Reply(String),
    Upgrade,
    Quit,
}

impl Shared {
    async fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut session = Session::default();
        let acceptor = TlsAcceptor::from(self.tls.clone());
        if self.security == MailSecurity::Tls {
            session.over_tls = true;
            let stream = acceptor.accept(stream).await?;
            self.talk(stream, session, true).await?;
            return Ok(());
        }
        if let Some((stream, _)) = self.talk(stream, session, true).await? {
            let session = Session {
                over_tls: true,
                ..Session::default()
            };
            let stream = acceptor.accept(stream).await?;
            self.talk(stream, session, false).await?;
        }
        Ok(())
    }

    /// Talks until the client quits, or asks for TLS: then the stream is given back.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        mut session: Session,
        greet: bool,
    ) -> io::Result<Option<(S, Session)>> {
        let mut stream = BufReader::new(stream);
        if greet {
            say(&mut stream, "220 localhost ESMTP a fake").await?;
        }
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(None);
            }
            let Some(command) = line.strip_suffix("\r\n") else {
                say(&mut stream, "500 5.5.2 a line ends with CR LF").await?;
                return Ok(None);
            };
            let word = command
                .split([' ', ':'])
                .next()
                .unwrap_or_default()
                .to_ascii_uppercase();
            if let Some(reply) = self.fault(&word) {
                say(&mut stream, &reply).await?;
                continue;
            }
            if word == "DATA" {
                if session.to.is_empty() {
                    say(&mut stream, "503 5.5.1 nobody it is for").await?;
                    continue;
                }
                say(&mut stream, "354 go on").await?;
                let text = data(&mut stream).await?;
                if let Some(reply) = self.fault("TEXT") {
                    say(&mut stream, &reply).await?;
                    continue;
                }
                let (from, to) = (session.from.take(), std::mem::take(&mut session.to));
                self.journal.add(|_| Mail {
                    from: from.unwrap_or_default(),
                    to,
                    text,
                    over_tls: session.over_tls,
                    user: session.user.clone(),
                });
                say(&mut stream, "250 2.0.0 taken").await?;
                continue;
            }
            match self.answer(&mut session, &word, command) {
                Next::Reply(reply) => say(&mut stream, &reply).await?,
                Next::Upgrade => {
                    say(&mut stream, "220 2.0.0 go on").await?;
                    return Ok(Some((stream.into_inner(), session)));
                }
                Next::Quit => {
                    say(&mut stream, "221 2.0.0 bye").await?;
                    return Ok(None);
                }
            }
        }
    }

    fn fault(&self, word: &str) -> Option<String> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let at = faults.iter().position(|fault| fault.word == word)?;
        faults.remove(at).map(|fault| fault.reply)
    }

    fn answer(&self, session: &mut Session, word: &str, command: &str) -> Next {
        let reply = |text: &str| Next::Reply(text.to_owned());
        let secure = session.over_tls || self.security == MailSecurity::Plain;
        match word {
            "EHLO" => {
                session.greeted = true;
                let mut lines = vec!["250-localhost".to_owned()];
                if self.security == MailSecurity::StartTls && !session.over_tls {
                    lines.push("250-STARTTLS".to_owned());
                }
                if self.account.is_some() && secure {
                    lines.push("250-AUTH PLAIN".to_owned());
                }
                lines.push("250 8BITMIME".to_owned());
                Next::Reply(lines.join("\r\n"))
            }
            "QUIT" => Next::Quit,
            "NOOP" => reply("250 2.0.0 yes"),
            _ if !session.greeted => reply("503 5.5.1 say EHLO first"),
            "STARTTLS" if self.security == MailSecurity::StartTls && !session.over_tls => {
                Next::Upgrade
            }
            "RSET" => {
                (session.from, session.to) = (None, Vec::new());
                reply("250 2.0.0 forgotten")
            }
            _ if !secure => reply("530 5.7.0 say STARTTLS first"),
            "AUTH" => self.sign_in(session, command),
            "MAIL" if self.account.is_some() && session.user.is_none() => {
                reply("530 5.7.0 sign in first")
            }
            "MAIL" => match address(command, "FROM:") {
                Some(from) => {
                    session.from = Some(from);
                    reply("250 2.1.0 yes")
                }
                None => reply("501 5.5.4 from whom"),
            },
            "RCPT" if session.from.is_none() => reply("503 5.5.1 from whom"),
            "RCPT" => match address(command, "TO:") {
                Some(to) => {
                    session.to.push(to);
                    reply("250 2.1.5 yes")
                }
                None => reply("501 5.5.4 to whom"),
            },
            _ => reply("502 5.5.1 not known here"),
        }
    }

    fn sign_in(&self, session: &mut Session, command: &str) -> Next {
        let given = command
            .strip_prefix("AUTH PLAIN ")
            .and_then(|text| STANDARD.decode(text).ok());
        let parts: Option<Vec<String>> = given.map(|bytes| {
            bytes
                .split(|byte| *byte == 0)
                .map(|part| String::from_utf8_lossy(part).into_owned())
                .collect()
        });
        let matches = match (parts.as_deref(), &self.account) {
            (Some([_, user, password]), Some(account)) => {
                (user, password) == (&account.0, &account.1)
            }
            _ => false,
        };
        if matches {
            session.user = self.account.as_ref().map(|(user, _)| user.clone());
            Next::Reply("235 2.7.0 welcome".to_owned())
        } else {
            Next::Reply("535 5.7.8 not so".to_owned())
        }
    }
}

/// The address in `MAIL FROM:<address> ...` and the like.
fn address(command: &str, before: &str) -> Option<String> {
    let rest = command.split_once(' ')?.1;
    let (head, rest) = rest.split_at_checked(before.len())?;
    let (inside, _) = rest.strip_prefix('<')?.split_once('>')?;
    (head.eq_ignore_ascii_case(before) && inside.contains('@')).then(|| inside.to_owned())
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, line: &str) -> io::Result<()> {
    stream.write_all(format!("{line}\r\n").as_bytes()).await?;
    stream.flush().await
}

/// The text up to a dot alone on its line, without the dots that were put before others (RFC 5321, 4.5.2).
async fn data<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> io::Result<String> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line
            .strip_suffix("\r\n")
            .ok_or(io::ErrorKind::InvalidData)?;
        if line == "." {
            return Ok(text);
        }
        text.push_str(line.strip_prefix('.').unwrap_or(line));
        text.push('\n');
    }
}
