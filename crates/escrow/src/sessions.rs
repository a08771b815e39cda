//! Sessions: people who signed in.
//!
//! A session is 32 random bytes behind a prefix, given once and stored as a hash. It ends when it was idle for a while, at the end
//! of its longest time, when it is ended, and when how the person proves who they are changes. What the person may do is read anew
//! with each request.

use std::time::Duration;

use activation_lock::time::{DAY, Timestamp};
use seal::{Password, PasswordHash, TokenHash};
use zeroize::Zeroizing;

use crate::approvals::Leave;
use crate::audit::Entry;
use crate::db::{Row, Tx, params};
use crate::people::credentials::{nowhere, seconds, themselves};
use crate::people::{self, Login, PersonView};
use crate::permit::{Actor, Admin, Grants, Permissions, Permit, PrincipalKind, Proof};
use crate::principals::{SecretText, has_form};
use crate::{Error, Escrow, Result, audit};

use self::throttle::Counted;

mod provider;
mod throttle;

pub use self::provider::{Identity, IdentityProblem};

/// What every session begins with.
pub const SESSION_PREFIX: &str = "lw_session_";
/// How a session was begun with a password, as it stands in the database.
const BY_PASSWORD: &str = "password";
/// How often the last use of a session is written, at most.
const USE_NOTED_EVERY: Duration = Duration::from_secs(60);
/// How long ended sessions are shown.
const SHOWN_FOR: u32 = 90;

/// How long sessions last, and what they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A session that was not used for so long has ended.
    pub idle: Duration,
    /// A session ends after that, used or not.
    pub longest: Duration,
    /// Whether a person needs a second factor before they may do anything else.
    pub second_factor: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(3_600),
            longest: Duration::from_secs(12 * 3_600),
            second_factor: true,
        }
    }
}

/// What somebody says to prove who they are.
pub struct Claim {
    /// The name to sign in with, as typed.
    pub login: String,
    /// The password.
    pub password: Password,
    /// The second factor's code, if one was typed.
    pub code: Option<Zeroizing<String>>,
}

/// From where somebody signs in.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The network address.
    pub address: Option<String>,
    /// The program, as it calls itself; at most its first 200 characters are kept.
    pub agent: Option<String>,
}

/// What came of signing in.
pub enum SignIn {
    /// A session has begun. Its text is given once.
    In(Box<SessionView>, SecretText),
    /// Something of it was wrong. What, is told to nobody.
    Refused {
        /// Whether it is on the audit trail already: not for names that are nobody's.
        on_record: bool,
    },
    /// Too many were wrong: for so long nothing is looked at.
    Wait(Duration),
}

/// Whether a password is a person's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    Wrong,
    Wait(Duration),
}

/// A session as listed: everything but its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Its identifier, which is also what the audit trail names as proof.
    pub id: String,
    /// The person's principal.
    pub person: String,
    /// Whether a provider vouched for the person, in place of a password of theirs.
    pub by_provider: bool,
    /// When it began.
    pub created_at: Timestamp,
    /// When it was last used, to within a minute.
    pub seen_at: Timestamp,
    /// When it ends if it is not used.
    pub idle_until: Timestamp,
    /// When it ends in any case.
    pub expires_at: Timestamp,
    /// The network address it began from.
    pub address: Option<String>,
    /// The program it began with, as that calls itself.
    pub agent: Option<String>,
    /// When it was ended, and by whom or what.
    pub ended: Option<(Timestamp, String)>,
}

macro_rules! select_sessions {
    ($rest:literal) => {
        concat!(
            "SELECT id, principal, proved_by, created_at, seen_at, idle_until, expires_at, address, agent, ended_at, ended_by ",
            "FROM sessions ",
            $rest
        )
    };
}

impl SessionView {
    fn from_row(row: &Row) -> Result<Self> {
        let ended_at: Option<Timestamp> = row.get("ended_at")?;
        let ended_by: Option<String> = row.get("ended_by")?;
        Ok(Self {
            id: row.get("id")?,
            person: row.get("principal")?,
            by_provider: row.get::<String>("proved_by")? != BY_PASSWORD,
            created_at: row.get("created_at")?,
            seen_at: row.get("seen_at")?,
            idle_until: row.get("idle_until")?,
            expires_at: row.get("expires_at")?,
            address: row.get("address")?,
            agent: row.get("agent")?,
            ended: ended_at.map(|at| (at, ended_by.unwrap_or_default())),
        })
    }

    /// Whether it opens anything at a moment.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.ended.is_none() && now < self.idle_until && now < self.expires_at
    }
}

/// Whether a text has the form of a session. It says nothing about whether it is live.
#[must_use]
pub fn looks_like_a_session(text: &str) -> bool {
    has_form(text, SESSION_PREFIX)
}

/// What is compared when somebody signs in.
struct Known {
    id: String,
    login: String,
    name: String,
    password: Option<PasswordHash>,
    totp: Option<Vec<u8>>,
    is_shut_out: bool,
}

/// The verbs on sessions. See [`Escrow::sessions`].
pub struct Sessions<'a>(&'a Escrow);

impl Escrow {
    /// People's sessions.
    #[must_use]
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions(self)
    }
}

impl Sessions<'_> {
    /// Begins a session for who proves to be a person. Everything is looked at together, takes as long whether there is such a
    /// person or not, and a wrong answer does not say what of it was wrong.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sign_in(&self, claim: Claim, origin: Origin, rules: Rules) -> Result<SignIn> {
        let Claim {
            login,
            password,
            code,
        } = claim;
        let login = login.parse::<Login>().ok();
        let tried = login.as_ref().map_or("", Login::as_str).to_owned();
        if let Some(wait) = self.begin(&tried, origin.address.as_deref()).await? {
            return Ok(SignIn::Wait(wait));
        }
        let known = {
            let tried = tried.clone();
            let db = &self.0.db;
            db.read(async move |tx| Known::by_login(tx, &tried).await)
                .await?
        };
        let stored = known.as_ref().and_then(|known| known.password.clone());
        let random = self.0.shared.random.clone();
        // A hash of earlier parameters is made anew while the password is at hand.
        let (is_right, compared, renewed) = self
            .0
            .with_hasher(move || match stored {
                Some(stored) => {
                    let is_right = stored.is_of(&password);
                    let renewed =
                        (is_right && !stored.is_current()).then(|| password.hash(&random));
                    (is_right, Some(stored), renewed)
                }
                None => {
                    PasswordHash::of_nobody(&password);
                    (false, None, None)
                }
            })
            .await;
        let text = SecretText::generate(SESSION_PREFIX, self.0.random());
        let hash = TokenHash::of(text.expose()).hex();
        let escrow = self.0.clone();
        let begun = self
            .0
            .db
            .write("sessions.begin", async move |tx| {
                let Some(known) = &known else {
                    // As much is written as for a name that is somebody's, so that nobody can tell them apart by the time it takes.
                    throttle::touch(tx, &tried).await?;
                    return Ok(Err(false));
                };
                // What was compared must still be so.
                let now = tx.now();
                let fresh = Known::by_id(tx, &known.id).await?;
                let unchanged = fresh.as_ref().filter(|fresh| {
                    let same = |hash: &Option<PasswordHash>| hash.as_ref().map(|h| h.as_str().to_owned());
                    !fresh.is_shut_out && same(&fresh.password) == same(&compared)
                });
                let step = match unchanged {
                    Some(fresh) if is_right => fresh.takes(tx, &escrow, code.as_ref().map(|code| code.as_str())).await?,
                    _ => Err(()),
                };
                let Ok(step) = step else {
                    let entry = Entry::by(&doorkeeper(&origin), &nowhere(), "session.begin")
                        .subject(&known.id)
                        .result("refused");
                    audit::record(tx, &escrow, entry).await?;
                    return Ok(Err(true));
                };
                throttle::was_right(tx, &counted(&tried, origin.address.as_deref())).await?;
                if let Some(renewed) = &renewed {
                    tx.execute(
                        "UPDATE people SET password = $2 WHERE principal = $1",
                        params![known.id.as_str(), renewed.as_str()],
                    )
                    .await?;
                }
                tx.execute(
                    "UPDATE people SET signed_in_at = $2, totp_step = COALESCE($3, totp_step) WHERE principal = $1",
                    params![known.id.as_str(), now, step],
                )
                .await?;
                let view = insert(tx, &known.id, &hash, BY_PASSWORD, &origin, rules).await?;
                let who = actor_of(&view, &known.name, Grants::none(), false, origin.address.clone());
                let entry = Entry::by(&who, &nowhere(), "session.begin")
                    .subject(&view.id)
                    .detail("second_factor", step.is_some());
                audit::record(tx, &escrow, entry).await?;
                Ok(Ok(view))
            })
            .await?;
        Ok(match begun {
            Ok(view) => SignIn::In(Box::new(view), text),
            Err(on_record) => SignIn::Refused { on_record },
        })
    }

    async fn begin(&self, login: &str, address: Option<&str>) -> Result<Option<Duration>> {
        let (login, address) = (login.to_owned(), address.map(str::to_owned));
        self.0
            .db
            .write("sessions.try", async move |tx| {
                throttle::begin(tx, &counted(&login, address.as_deref())).await
            })
            .await
    }

    /// Whether this is the password of a person who acts already. Wrong ones count as when signing in.
    pub(crate) async fn judge(&self, person: &str, password: Password) -> Result<Verdict> {
        let id = person.to_owned();
        let known = self
            .0
            .db
            .read(async move |tx| Known::by_id(tx, &id).await)
            .await?;
        let Known {
            login,
            password: stored,
            ..
        } = known.ok_or(Error::Corrupt("people"))?;
        if let Some(wait) = self.begin(&login, None).await? {
            return Ok(Verdict::Wait(wait));
        }
        let is_right = self
            .0
            .with_hasher(move || stored.is_some_and(|stored| stored.is_of(&password)))
            .await;
        let (escrow, id) = (self.0.clone(), person.to_owned());
        self.0
            .db
            .write("sessions.judge", async move |tx| {
                if is_right {
                    throttle::was_right(tx, &counted(&login, None)).await?;
                    return Ok(Verdict::Right);
                }
                let entry = Entry::by(
                    &doorkeeper(&Origin::default()),
                    &nowhere(),
                    "credentials.prove",
                )
                .subject(&id)
                .result("refused");
                audit::record(tx, &escrow, entry).await?;
                Ok(Verdict::Wrong)
            })
            .await
    }

    /// Whose session this is, with what they may do now. One answer for one that is unknown, ended or expired, and for a person
    /// who was shut out: `None`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn authenticate(
        &self,
        text: &str,
        address: Option<&str>,
        rules: Rules,
    ) -> Result<Option<Actor>> {
        if !looks_like_a_session(text) {
            return Ok(None);
        }
        let hash = TokenHash::of(text).hex();
        let found = self
            .0
            .db
            .read(async move |tx| {
                let now = tx.now();
                let row = tx
                    .fetch_optional(select_sessions!("WHERE hash = $1"), params![hash.as_str()])
                    .await?;
                let Some(row) = row else { return Ok(None) };
                let session = SessionView::from_row(&row)?;
                let person = people::one(tx, &session.person).await?;
                let Some(person) = person.filter(|one| one.disabled_at.is_none()) else {
                    return Ok(None);
                };
                let grants = people::grants_of(tx, &person.id).await?;
                Ok(session
                    .is_live(now)
                    .then_some((session, person, grants, now)))
            })
            .await?;
        let Some((session, person, grants, now)) = found else {
            return Ok(None);
        };
        if now.since(session.seen_at) >= USE_NOTED_EVERY {
            self.note_use(&session, rules.idle).await?;
        }
        // How a provider has people prove themselves is its own business.
        let unfinished =
            rules.second_factor && !session.by_provider && person.second_factor_at.is_none();
        let grants = if unfinished { Grants::none() } else { grants };
        let address = address.map(str::to_owned);
        Ok(Some(actor_of(
            &session,
            &person.name,
            grants,
            unfinished,
            address,
        )))
    }

    async fn note_use(&self, session: &SessionView, idle: Duration) -> Result<()> {
        let (id, until) = (session.id.clone(), session.expires_at);
        self.0
            .db
            .write("sessions.note_use", async move |tx| {
                let now = tx.now();
                let idle_until = now.plus(idle).min(until);
                tx.execute(
                    "UPDATE sessions SET seen_at = $2, idle_until = $3 WHERE id = $1 AND ended_at IS NULL",
                    params![id.as_str(), now, idle_until],
                )
                .await?;
                Ok(())
            })
            .await
    }

    /// The actor's own sessions, newest first; ended ones too, for ninety days.
    ///
    /// # Errors
    /// [`Error::Refused`] when the actor is not a person who signed in; or when the database fails.
    pub async fn list_own(&self, actor: &Actor) -> Result<Vec<SessionView>> {
        let (person, _) = themselves(actor)?;
        self.0
            .db
            .read(async move |tx| of_person(tx, &person).await)
            .await
    }

    /// The sessions of a person, for who manages people where that one may do something.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn list_of(
        &self,
        permit: &Permit<Admin>,
        person: &PersonView,
    ) -> Result<Vec<SessionView>> {
        let (confirmed, person) = (permit.clone(), person.id.clone());
        let result = self
            .0
            .db
            .read(async move |tx| {
                confirmed.confirm(tx).await?;
                of_person(tx, &person).await
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Ends one of the actor's own sessions: the one it acts in when none is named. False when it is none of theirs, or has ended.
    ///
    /// # Errors
    /// [`Error::Refused`] when the actor is not a person who signed in; or when the database fails.
    pub async fn end_own(&self, actor: &Actor, session: Option<&str>) -> Result<bool> {
        let (person, own) = themselves(actor)?;
        let session = session.map_or(own, str::to_owned);
        let (escrow, actor) = (self.0.clone(), actor.clone());
        self.0
            .db
            .write("sessions.end", async move |tx| {
                let ended = end(tx, &session, &person, actor.name()).await?;
                if ended {
                    let entry = Entry::by(&actor, &nowhere(), "session.end").subject(&session);
                    audit::record(tx, &escrow, entry).await?;
                }
                Ok(ended)
            })
            .await
    }

    /// Ends every session of a person.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn end_all_of(&self, permit: &Permit<Admin>, person: &PersonView) -> Result<()> {
        let (escrow, confirmed, person) = (self.0.clone(), permit.clone(), person.id.clone());
        let result = self
            .0
            .db
            .write("sessions.end_all_of", async move |tx| {
                confirmed.confirm(tx).await?;
                end_all(tx, &person, confirmed.actor().name()).await?;
                audit::record(
                    tx,
                    &escrow,
                    confirmed.entry("session.end_all").subject(&person),
                )
                .await
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Forgets sessions that ended long ago, and wrong answers of yesterday.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sweep(&self) -> Result<()> {
        self.0.forget_failures().await?;
        self.0
            .db
            .write("sessions.sweep", async move |tx| {
                let before = tx.now().minus(DAY * SHOWN_FOR);
                tx.execute(
                    "DELETE FROM sessions WHERE expires_at < $1",
                    params![before],
                )
                .await?;
                Ok(())
            })
            .await
    }
}

fn counted<'a>(login: &'a str, address: Option<&'a str>) -> Vec<Counted<'a>> {
    let mut counted = vec![Counted::Account(login)];
    counted.extend(address.map(Counted::Address));
    counted
}

/// What puts on record that somebody was not let in: who it was, is not known.
fn doorkeeper(origin: &Origin) -> Actor {
    let mut actor = Actor::system("sign-in", Permissions::NONE);
    actor.address.clone_from(&origin.address);
    actor
}

fn actor_of(
    session: &SessionView,
    name: &str,
    grants: Grants,
    unfinished: bool,
    address: Option<String>,
) -> Actor {
    Actor {
        principal: session.person.clone(),
        kind: PrincipalKind::Person,
        name: name.to_owned(),
        grants,
        proof: Proof::Session(session.id.clone()),
        address,
        owner: None,
        unfinished,
        leave: Leave::Plain,
    }
}

macro_rules! select_known {
    ($rest:literal) => {
        concat!(
            "SELECT principal, login, name, password, totp, disabled_at FROM people ",
            "JOIN principals ON principals.id = principal ",
            $rest
        )
    };
}

impl Known {
    async fn by_login(tx: &mut Tx<'_>, login: &str) -> Result<Option<Self>> {
        let row = tx
            .fetch_optional(select_known!("WHERE login = $1"), params![login])
            .await?;
        row.as_ref().map(Self::from_row).transpose()
    }

    async fn by_id(tx: &mut Tx<'_>, id: &str) -> Result<Option<Self>> {
        let row = tx
            .fetch_optional(select_known!("WHERE principal = $1"), params![id])
            .await?;
        row.as_ref().map(Self::from_row).transpose()
    }

    fn from_row(row: &Row) -> Result<Self> {
        let password: Option<String> = row.get("password")?;
        let disabled: Option<Timestamp> = row.get("disabled_at")?;
        Ok(Self {
            id: row.get("principal")?,
            login: row.get("login")?,
            name: row.get("name")?,
            password: password.map(PasswordHash::stored),
            totp: row.get("totp")?,
            is_shut_out: disabled.is_some(),
        })
    }

    /// Whether a code is the second factor's, where there is one, and of which step. Each is taken once.
    async fn takes(
        &self,
        tx: &mut Tx<'_>,
        escrow: &Escrow,
        code: Option<&str>,
    ) -> Result<Result<Option<i64>, ()>> {
        let Some(cell) = &self.totp else {
            return Ok(Ok(None));
        };
        let Some(code) = code else { return Ok(Err(())) };
        let row = tx
            .fetch_one(
                "SELECT totp_step FROM people WHERE principal = $1",
                params![self.id.as_str()],
            )
            .await?;
        let secret = escrow.second_factor(&self.id, cell)?;
        let now = tx.now();
        let step = secret.step_of(code.trim(), seconds(now), row.get("totp_step")?);
        Ok(step.map(Some).ok_or(()))
    }
}

async fn insert(
    tx: &mut Tx<'_>,
    person: &str,
    hash: &str,
    proved_by: &str,
    origin: &Origin,
    rules: Rules,
) -> Result<SessionView> {
    let (id, now) = (tx.new_id().to_string(), tx.now());
    let expires_at = now.plus(rules.longest);
    let agent: Option<String> = origin
        .agent
        .as_ref()
        .map(|agent| agent.chars().take(200).collect());
    let view = SessionView {
        id,
        person: person.to_owned(),
        by_provider: proved_by != BY_PASSWORD,
        created_at: now,
        seen_at: now,
        idle_until: now.plus(rules.idle).min(expires_at),
        expires_at,
        address: origin.address.clone(),
        agent,
        ended: None,
    };
    tx.execute(
        "INSERT INTO sessions (id, principal, hash, proved_by, created_at, seen_at, idle_until, expires_at, address, agent) \
         VALUES ($1, $2, $3, $9, $4, $4, $5, $6, $7, $8)",
        params![
            view.id.as_str(),
            person,
            hash,
            now,
            view.idle_until,
            expires_at,
            view.address.as_deref(),
            view.agent.as_deref(),
            proved_by
        ],
    )
    .await?;
    Ok(view)
}

async fn of_person(tx: &mut Tx<'_>, person: &str) -> Result<Vec<SessionView>> {
    tx.fetch_all(
        select_sessions!("WHERE principal = $1 ORDER BY id DESC"),
        params![person],
    )
    .await?
    .iter()
    .map(SessionView::from_row)
    .collect()
}

/// Whether a session is live and its person not shut out, in another verb's transaction.
pub(crate) async fn is_live(tx: &mut Tx<'_>, id: &str) -> Result<bool> {
    let now = tx.now();
    let row = tx
        .fetch_optional(select_sessions!("WHERE id = $1"), params![id])
        .await?;
    let Some(row) = row else { return Ok(false) };
    let session = SessionView::from_row(&row)?;
    Ok(session.is_live(now) && !people::is_shut_out(tx, &session.person).await?)
}

async fn end(tx: &mut Tx<'_>, id: &str, person: &str, by: &str) -> Result<bool> {
    let now = tx.now();
    let ended = tx
        .execute(
            "UPDATE sessions SET ended_at = $3, ended_by = $4 WHERE id = $1 AND principal = $2 AND ended_at IS NULL \
             AND idle_until > $3 AND expires_at > $3",
            params![id, person, now, by],
        )
        .await?;
    Ok(ended == 1)
}

/// Ends every session of a person.
pub(crate) async fn end_all(tx: &mut Tx<'_>, person: &str, by: &str) -> Result<()> {
    end_others(tx, person, "", by).await
}

/// Ends every session of a person but one.
pub(crate) async fn end_others(tx: &mut Tx<'_>, person: &str, but: &str, by: &str) -> Result<()> {
    let now = tx.now();
    tx.execute(
        "UPDATE sessions SET ended_at = $2, ended_by = $3 WHERE principal = $1 AND ended_at IS NULL AND id <> $4",
        params![person, now, by, but],
    )
    .await?;
    Ok(())
}
