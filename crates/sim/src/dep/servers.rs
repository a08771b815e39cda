//! The servers of an organisation's portal: each with its token, its one session and its devices.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
};

use data_encoding::HEXLOWER;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use time::OffsetDateTime;

use super::{
    Rotation,
    devices::{Assigned, date_text},
    oauth::Signed,
    request::{Refusal, refusal},
};

/// What Apple's portal gives for one server: four secrets and the end of their life. Contract sheet 2.43.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct DepToken {
    /// The server's name in the portal.
    #[serde(skip)]
    pub server_name: String,
    /// The server's identifier.
    #[serde(skip)]
    pub server_uuid: String,
    /// `CK_...`
    pub consumer_key: String,
    /// `CS_...`
    pub consumer_secret: String,
    /// `AT_...`
    pub access_token: String,
    /// `AS_...`
    pub access_secret: String,
    /// From then on it is refused.
    #[serde(serialize_with = "whole_seconds")]
    pub access_token_expiry: OffsetDateTime,
}

impl DepToken {
    /// What a token file holds once it is opened: a JSON object of five strings.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("five strings are always JSON")
    }
}

impl fmt::Debug for DepToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DepToken")
            .field("server_name", &self.server_name)
            .field("consumer_key", &self.consumer_key)
            .finish_non_exhaustive()
    }
}

fn whole_seconds<S: serde::Serializer>(at: &OffsetDateTime, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&date_text(*at))
}

/// A text that holds for some time.
struct Held {
    text: String,
    since: OffsetDateTime,
}

/// A server's session: only the newest lives (contract sheet 2.28).
struct Session {
    number: u64,
    current: Held,
    /// Those that a rotation replaced and that are still good, newest last.
    old: VecDeque<Held>,
}

pub(super) struct Server {
    pub(super) token: DepToken,
    pub(super) terms_signed: bool,
    pub(super) access_denied: bool,
    pub(super) devices: Assigned,
    session: Option<Session>,
    nonces: HashSet<(i64, String)>,
}

impl Server {
    /// What a person in the portal must do before this token is good for anything again.
    pub(super) fn refused(&self) -> Result<(), Refusal> {
        if self.access_denied {
            let why = "the token may not do this";
            return Err(refusal(403, "ACCESS_DENIED", why));
        }
        if self.terms_signed {
            return Ok(());
        }
        let why = "new terms have not been accepted";
        Err(refusal(403, "T_C_NOT_SIGNED", why))
    }
}

/// All servers.
pub(super) struct Servers {
    all: Vec<Server>,
    pub(super) rng: ChaCha8Rng,
    sessions: u64,
    /// Answers of later lock calls, by serial number.
    pub(super) lock_refusals: HashMap<String, String>,
    /// Cursors of an earlier generation have expired.
    pub(super) cursor_generation: u32,
}

/// A session that was found to be good.
pub(super) struct Found {
    pub(super) server: usize,
    pub(super) number: u64,
}

impl Servers {
    pub(super) fn new(rng: ChaCha8Rng) -> Self {
        Self {
            all: Vec::new(),
            rng,
            sessions: 0,
            lock_refusals: HashMap::new(),
            cursor_generation: 0,
        }
    }

    fn random_hex(&mut self, bytes: usize) -> String {
        let mut raw = vec![0; bytes];
        self.rng.fill_bytes(&mut raw);
        HEXLOWER.encode(&raw)
    }

    /// Adds a server with a token of its own.
    pub(super) fn issue(&mut self, name: &str, expiry: OffsetDateTime) -> DepToken {
        let mut uuid = [0; 16];
        self.rng.fill_bytes(&mut uuid);
        let mut secret = |kind: &str| format!("{kind}_{}", self.random_hex(64));
        let token = DepToken {
            server_name: name.to_owned(),
            consumer_key: secret("CK"),
            consumer_secret: secret("CS"),
            access_token: secret("AT"),
            access_secret: secret("AS"),
            access_token_expiry: expiry,
            server_uuid: uuid::Builder::from_random_bytes(uuid)
                .into_uuid()
                .hyphenated()
                .to_string()
                .to_uppercase(),
        };
        self.all.push(Server {
            token: token.clone(),
            terms_signed: true,
            access_denied: false,
            devices: Assigned::default(),
            session: None,
            nonces: HashSet::new(),
        });
        token
    }

    pub(super) fn get(&self, server: usize) -> &Server {
        &self.all[server]
    }

    pub(super) fn by_key(&mut self, consumer_key: &str) -> Option<&mut Server> {
        self.all
            .iter_mut()
            .find(|server| server.token.consumer_key == consumer_key)
    }

    /// Every session is unknown from now on.
    pub(super) fn end_sessions(&mut self) {
        self.all.iter_mut().for_each(|server| server.session = None);
    }

    /// How many sessions were given.
    pub(super) fn sessions(&self) -> u64 {
        self.sessions
    }

    /// Whose signature this is. The nonce is used up when `commit` says so.
    pub(super) fn signer(
        &mut self,
        signed: &Signed,
        url: &str,
        now: OffsetDateTime,
        skew: time::Duration,
        commit: bool,
    ) -> Result<usize, Refusal> {
        let refused = |why: &str| refusal(401, "UNAUTHORIZED", why);
        let index = self
            .all
            .iter()
            .position(|server| server.token.consumer_key == signed.consumer_key)
            .ok_or_else(|| refused("the consumer key is unknown"))?;
        let server = &mut self.all[index];
        if server.token.access_token != signed.token {
            return Err(refused("the token is not that of the consumer key"));
        }
        if !signed.is_by(&server.token, "GET", url) {
            return Err(refused("the signature is wrong"));
        }
        let now_seconds = now.unix_timestamp();
        let skew = skew.whole_seconds();
        if now_seconds.abs_diff(signed.timestamp) > skew.unsigned_abs() {
            return Err(refused("the timestamp is too far off"));
        }
        server
            .nonces
            .retain(|(at, _)| now_seconds.abs_diff(*at) <= skew.unsigned_abs());
        let nonce = (signed.timestamp, signed.nonce.clone());
        if server.nonces.contains(&nonce) {
            return Err(refused("the nonce was used with this timestamp before"));
        }
        if commit {
            server.nonces.insert(nonce);
        }
        if server.token.access_token_expiry <= now {
            return Err(refused("the token has expired"));
        }
        Ok(index)
    }

    /// Begins a session; the server's older one ends.
    pub(super) fn begin_session(&mut self, server: usize, now: OffsetDateTime) -> (u64, String) {
        let text = self.random_hex(24);
        self.sessions += 1;
        self.all[server].session = Some(Session {
            number: self.sessions,
            current: Held {
                text: text.clone(),
                since: now,
            },
            old: VecDeque::new(),
        });
        (self.sessions, text)
    }

    /// Whose session this is.
    pub(super) fn session(
        &self,
        text: &str,
        now: OffsetDateTime,
        lifetime: time::Duration,
    ) -> Option<Found> {
        self.all.iter().enumerate().find_map(|(server, one)| {
            let session = one.session.as_ref()?;
            let held = session
                .old
                .iter()
                .chain([&session.current])
                .find(|held| held.text == text)?;
            (now - held.since < lifetime).then_some(Found {
                server,
                number: session.number,
            })
        })
    }

    /// Gives the session another text; the one before stays good for as many calls as `rotation` says.
    pub(super) fn rotate(
        &mut self,
        server: usize,
        rotation: Rotation,
        now: OffsetDateTime,
    ) -> Option<String> {
        let Rotation::EveryCall { old_ones } = rotation else {
            return None;
        };
        let text = self.random_hex(24);
        let session = self.all[server].session.as_mut()?;
        let current = Held {
            text: text.clone(),
            since: now,
        };
        session
            .old
            .push_back(std::mem::replace(&mut session.current, current));
        while session.old.len() > old_ones {
            session.old.pop_front();
        }
        Some(text)
    }
}
