//! How people prove who they are: an invitation once, a password that only they know, and a second factor.

use std::time::Duration;

use activation_lock::time::Timestamp;
use seal::{Password, PasswordHash, TokenHash, TotpSecret};
use zeroize::Zeroizing;

use super::{INVITATION_PREFIX, one};
use crate::approvals::Leave;
use crate::audit::Entry;
use crate::db::{Tx, params};
use crate::permit::{Actor, Grants, OrganisationId, PrincipalKind, Proof, Refusal};
use crate::principals::has_form;
use crate::sessions::{self, Verdict};
use crate::{Error, Escrow, Result, audit};

/// The kind of cell that holds the secret of a second factor.
pub(crate) const SECOND_FACTOR: &str = "second factor";
/// What stands for the organisation in such a cell: people belong to none.
const NOWHERE: &str = "*";

/// What came of a change of one's own credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is done.
    Done,
    /// The password or the code that was given is wrong, or there is nothing to confirm.
    Wrong,
    /// Too many wrong ones were given: for so long nothing is looked at.
    Wait(Duration),
}

/// The verbs on one's own credentials. See [`Escrow::credentials`].
pub struct Credentials<'a>(&'a Escrow);

impl Escrow {
    /// What people do about how they prove who they are.
    #[must_use]
    pub fn credentials(&self) -> Credentials<'_> {
        Credentials(self)
    }

    /// Hashes or compares a password away from where the vault's work is done; a few at a time.
    pub(crate) async fn with_hasher<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let permit = self.shared.hashing.acquire().await;
        let _permit = permit.expect("nothing closes it");
        let done = tokio::task::spawn_blocking(work).await;
        done.expect("hashing does not panic, and nothing aborts it")
    }

    pub(crate) fn second_factor(&self, person: &str, cell: &[u8]) -> Result<TotpSecret> {
        let bytes = self.open_cell(SECOND_FACTOR, NOWHERE, person, cell)?;
        TotpSecret::from_bytes(&bytes).ok_or(Error::Corrupt("people.totp"))
    }
}

impl Credentials<'_> {
    /// Takes an invitation: the person's password is this one from now on. False, whatever the reason, when there is no such
    /// invitation, or none any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn accept(
        &self,
        invitation: &str,
        password: Password,
        address: Option<&str>,
    ) -> Result<bool> {
        if !has_form(invitation, INVITATION_PREFIX) {
            return Ok(false);
        }
        let invitation = TokenHash::of(invitation).hex();
        let known = invitation.clone();
        let found = self
            .0
            .db
            .read(async move |tx| invited(tx, &known).await)
            .await?;
        if found.is_none() {
            return Ok(false);
        }
        let hash = self.hash(password).await;
        let (escrow, address) = (self.0.clone(), address.map(str::to_owned));
        self.0
            .db
            .write("credentials.accept", async move |tx| {
                let Some(id) = invited(tx, &invitation).await? else {
                    return Ok(false);
                };
                let now = tx.now();
                tx.execute(
                    "UPDATE people SET invitation = NULL, invited_until = NULL, password = $2, password_at = $3 \
                     WHERE principal = $1",
                    params![id.as_str(), hash.as_str(), now],
                )
                .await?;
                sessions::end_all(tx, &id, "an invitation").await?;
                let view = one(tx, &id).await?.ok_or(Error::Corrupt("people"))?;
                let who = Actor {
                    principal: view.id,
                    kind: PrincipalKind::Person,
                    name: view.name,
                    grants: Grants::none(),
                    proof: Proof::Invitation,
                    address: address.clone(),
                    owner: None,
                    unfinished: true,
                    leave: Leave::Plain,
                };
                let entry = Entry::by(&who, &nowhere(), "credentials.accept").subject(&id);
                audit::record(tx, &escrow, entry).await?;
                Ok(true)
            })
            .await
    }

    async fn hash(&self, password: Password) -> PasswordHash {
        let random = self.0.shared.random.clone();
        self.0.with_hasher(move || password.hash(&random)).await
    }

    /// Changes one's own password. The person's other sessions end.
    ///
    /// # Errors
    /// [`Error::Refused`] when the actor is not a person in a session that is live; or when the database fails.
    pub async fn change_password(
        &self,
        actor: &Actor,
        old: Password,
        new: Password,
    ) -> Result<Change> {
        let (id, session) = themselves(actor)?;
        match self.0.sessions().judge(&id, old).await? {
            Verdict::Right => {}
            Verdict::Wrong => return Ok(Change::Wrong),
            Verdict::Wait(wait) => return Ok(Change::Wait(wait)),
        }
        let hash = self.hash(new).await;
        let (escrow, actor) = (self.0.clone(), actor.clone());
        self.0
            .db
            .write("credentials.change_password", async move |tx| {
                still(tx, &session).await?;
                let now = tx.now();
                tx.execute(
                    "UPDATE people SET password = $2, password_at = $3 WHERE principal = $1",
                    params![id.as_str(), hash.as_str(), now],
                )
                .await?;
                sessions::end_others(tx, &id, &session, "a change of password").await?;
                let entry = Entry::by(&actor, &nowhere(), "credentials.password").subject(&id);
                audit::record(tx, &escrow, entry).await?;
                Ok(Change::Done)
            })
            .await
    }

    /// Makes the secret of a second factor, which counts from [`Self::confirm_second_factor`] on. Asks for the password again,
    /// since who finds an open session must not make it their own.
    ///
    /// # Errors
    /// As [`Self::change_password`].
    pub async fn begin_second_factor(
        &self,
        actor: &Actor,
        password: Password,
    ) -> Result<Result<TotpSecret, Change>> {
        let (id, session) = themselves(actor)?;
        match self.0.sessions().judge(&id, password).await? {
            Verdict::Right => {}
            Verdict::Wrong => return Ok(Err(Change::Wrong)),
            Verdict::Wait(wait) => return Ok(Err(Change::Wait(wait))),
        }
        let secret = TotpSecret::generate(self.0.random());
        let cell = self
            .0
            .seal_cell(SECOND_FACTOR, NOWHERE, &id, secret.expose());
        let (escrow, actor) = (self.0.clone(), actor.clone());
        self.0
            .db
            .write("credentials.begin_second_factor", async move |tx| {
                still(tx, &session).await?;
                tx.execute(
                    "UPDATE people SET totp_pending = $2 WHERE principal = $1",
                    params![id.as_str(), cell.as_slice()],
                )
                .await?;
                let entry =
                    Entry::by(&actor, &nowhere(), "credentials.second_factor.begin").subject(&id);
                audit::record(tx, &escrow, entry).await
            })
            .await?;
        Ok(Ok(secret))
    }

    /// Confirms with a code that the person's app has the secret that was made last: from now on it is their second factor. The
    /// person's other sessions end.
    ///
    /// # Errors
    /// As [`Self::change_password`].
    pub async fn confirm_second_factor(
        &self,
        actor: &Actor,
        code: Zeroizing<String>,
    ) -> Result<Change> {
        let (id, session) = themselves(actor)?;
        let (escrow, actor) = (self.0.clone(), actor.clone());
        self.0
            .db
            .write("credentials.confirm_second_factor", async move |tx| {
                still(tx, &session).await?;
                let row = tx
                    .fetch_one(
                        "SELECT totp_pending FROM people WHERE principal = $1",
                        params![id.as_str()],
                    )
                    .await?;
                let Some(cell) = row.get::<Option<Vec<u8>>>("totp_pending")? else {
                    return Ok(Change::Wrong);
                };
                let secret = escrow.second_factor(&id, &cell)?;
                let now = tx.now();
                let Some(step) = secret.step_of(&code, seconds(now), None) else {
                    return Ok(Change::Wrong);
                };
                tx.execute(
                    "UPDATE people SET totp = totp_pending, totp_at = $2, totp_step = $3, totp_pending = NULL \
                     WHERE principal = $1",
                    params![id.as_str(), now, step],
                )
                .await?;
                sessions::end_others(tx, &id, &session, "a new second factor").await?;
                let entry = Entry::by(&actor, &nowhere(), "credentials.second_factor").subject(&id);
                audit::record(tx, &escrow, entry).await?;
                Ok(Change::Done)
            })
            .await
    }
}

/// Seconds since 1970, which one-time passwords count by.
pub(crate) fn seconds(at: Timestamp) -> i64 {
    at.0.div_euclid(1_000)
}

/// Where the audit rows stand of what concerns no single organisation.
pub(crate) fn nowhere() -> OrganisationId {
    OrganisationId::new(NOWHERE)
}

/// The person who acts about themselves, and their session.
pub(crate) fn themselves(actor: &Actor) -> Result<(String, String)> {
    match (&actor.proof, actor.kind) {
        (Proof::Session(session), PrincipalKind::Person) => {
            Ok((actor.principal.clone(), session.clone()))
        }
        _ => Err(Error::Refused(Refusal::NotAPerson {
            actor: actor.name.clone(),
        })),
    }
}

async fn still(tx: &mut Tx<'_>, session: &str) -> Result<()> {
    if sessions::is_live(tx, session).await? {
        Ok(())
    } else {
        Err(Error::Refused(Refusal::Revoked))
    }
}

async fn invited(tx: &mut Tx<'_>, invitation: &str) -> Result<Option<String>> {
    let now = tx.now();
    let row = tx
        .fetch_optional(
            "SELECT principal, invited_until FROM people WHERE invitation = $1 AND disabled_at IS NULL",
            params![invitation],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let until: Option<Timestamp> = row.get("invited_until")?;
    let id: String = row.get("principal")?;
    Ok(until.is_some_and(|until| now < until).then_some(id))
}
