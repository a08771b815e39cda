//! People: who they are, and what they may do where.
//!
//! A person is invited, and sets their own password with the invitation: nobody else ever knows it. What they may do is told by
//! the roles that they have in an organisation, or in all. How they prove who they are is in [`credentials`], what comes of it in
//! [`sessions`](crate::sessions).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use activation_lock::time::Timestamp;
use seal::TokenHash;

use crate::approvals::{self, Guard, Passed};
use crate::db::{Row, Tx, params};
use crate::notices::NoticeKind;
use crate::permit::{
    Admin, Grants, OrganisationId, Permission, Permit, PrincipalKind, Refusal, Role, Scope,
};
use crate::principals::SecretText;
use crate::{Error, Escrow, Result, audit};

pub mod credentials;

/// What every invitation begins with.
pub const INVITATION_PREFIX: &str = "lw_invite_";
/// How long an invitation can be taken.
const INVITED_FOR: Duration = Duration::from_secs(7 * 86_400);
/// The most characters of a name to sign in with.
const LONGEST_LOGIN: usize = 100;
/// What stands in `grants` for all organisations.
pub(crate) const EVERYWHERE: &str = "*";

/// The name that somebody signs in with: 1 to 100 letters, digits and `. _ - + @`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login(String);

/// A text that nobody can sign in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name to sign in with has 1 to {LONGEST_LOGIN} letters (a to z), digits, and the characters . _ - + @"
)]
pub struct LoginError;

impl FromStr for Login {
    type Err = LoginError;

    fn from_str(text: &str) -> Result<Self, LoginError> {
        let text = text.trim().to_ascii_lowercase();
        let fits = (1..=LONGEST_LOGIN).contains(&text.len());
        let is_known =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-+@".contains(c);
        if fits && text.chars().all(is_known) {
            Ok(Self(text))
        } else {
            Err(LoginError)
        }
    }
}

impl Login {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A person to be invited.
#[derive(Clone, Debug)]
pub struct NewPerson {
    /// What they sign in with.
    pub login: Login,
    /// Their name, as it stands on the audit trail and is sent to Apple as who asked.
    pub name: String,
    /// Where they can be told something.
    pub email: Option<String>,
}

/// A role that a person has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Where.
    pub scope: Scope,
    /// Which.
    pub role: Role,
    /// Since when.
    pub granted_at: Timestamp,
    /// Who gave it, by name.
    pub granted_by: String,
}

/// A person as listed: nothing they prove themselves with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonView {
    /// The principal's identifier, as the audit trail names it.
    pub id: String,
    /// What they sign in with.
    pub login: String,
    /// Their name.
    pub name: String,
    /// Where they can be told something.
    pub email: Option<String>,
    /// Until when their invitation can be taken; `None` when there is none to take.
    pub invited_until: Option<Timestamp>,
    /// Since when they have the password that they have.
    pub password_at: Option<Timestamp>,
    /// Since when they have a second factor.
    pub second_factor_at: Option<Timestamp>,
    /// The provider that vouches for them.
    pub provider: Option<String>,
    /// When they last signed in.
    pub signed_in_at: Option<Timestamp>,
    /// When they were made.
    pub created_at: Timestamp,
    /// Who made them.
    pub created_by: String,
    /// Since when they cannot sign in any more.
    pub disabled_at: Option<Timestamp>,
    /// What they may do where.
    pub grants: Vec<Granted>,
}

macro_rules! select_people {
    ($rest:literal) => {
        concat!(
            "SELECT people.principal, login, name, email, invited_until, invitation, password_at, totp_at, issuer, signed_in_at, ",
            "people.created_at, people.created_by, disabled_at FROM people ",
            "JOIN principals ON principals.id = people.principal ",
            $rest
        )
    };
}

impl PersonView {
    fn from_row(row: &Row, grants: Vec<Granted>) -> Result<Self> {
        let invitation: Option<String> = row.get("invitation")?;
        Ok(Self {
            id: row.get("principal")?,
            login: row.get("login")?,
            name: row.get("name")?,
            email: row.get("email")?,
            invited_until: invitation.and(row.get("invited_until")?),
            password_at: row.get("password_at")?,
            second_factor_at: row.get("totp_at")?,
            provider: row.get("issuer")?,
            signed_in_at: row.get("signed_in_at")?,
            created_at: row.get("created_at")?,
            created_by: row.get("created_by")?,
            disabled_at: row.get("disabled_at")?,
            grants,
        })
    }

    /// Whether they have proved themselves in a way that is theirs alone, and still can.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let by_themselves = self.password_at.is_some() && self.second_factor_at.is_some();
        (by_themselves || self.provider.is_some()) && self.disabled_at.is_none()
    }
}

/// Why nothing was done to a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PersonProblem {
    /// Somebody signs in with that name already.
    #[error("somebody signs in with the name {0} already")]
    LoginTaken(Login),
    /// There is nobody of that identifier or name.
    #[error("there is no such person")]
    Unknown,
    /// A role that opens codes is for people who have proved themselves.
    #[error(
        "{name} has not set a password and a second factor yet: until then nobody knows whose account it is, and it is not given a role that opens codes"
    )]
    Unsettled {
        /// Whose account it is.
        name: String,
    },
    /// The last who can manage people everywhere would be gone.
    #[error(
        "nobody else can manage people and policies in every organisation: give somebody else the role `admin` in all of them first"
    )]
    LastAdmin,
}

/// The verbs on people. See [`Escrow::people`].
pub struct People<'a>(pub(crate) &'a Escrow);

impl Escrow {
    /// People: invite, list, give roles, shut out.
    #[must_use]
    pub fn people(&self) -> People<'_> {
        People(self)
    }
}

impl People<'_> {
    /// Invites a person, who has no role yet. The text of the invitation is given once.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn add(
        &self,
        permit: &Permit<Admin>,
        new: NewPerson,
    ) -> Result<Result<(PersonView, SecretText), PersonProblem>> {
        let text = SecretText::generate(INVITATION_PREFIX, self.0.random());
        let hash = TokenHash::of(text.expose()).hex();
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let result = self
            .0
            .db
            .write("people.add", async move |tx| {
                confirmed.confirm(tx).await?;
                let (id, now) = (tx.new_id().to_string(), tx.now());
                let by = confirmed.actor().name();
                let taken = tx
                    .fetch_optional(
                        "SELECT principal FROM people WHERE login = $1",
                        params![new.login.as_str()],
                    )
                    .await?;
                if taken.is_some() {
                    return Ok(Err(PersonProblem::LoginTaken(new.login.clone())));
                }
                tx.execute(
                    "INSERT INTO principals (id, organisation, kind, name, created_at) VALUES ($1, NULL, $2, $3, $4)",
                    params![id.as_str(), PrincipalKind::Person.as_str(), new.name.as_str(), now],
                )
                .await?;
                tx.execute(
                    "INSERT INTO people (principal, login, email, invitation, invited_until, created_at, created_by) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7)",
                    params![
                        id.as_str(),
                        new.login.as_str(),
                        new.email.as_deref(),
                        hash.as_str(),
                        now.plus(INVITED_FOR),
                        now,
                        by
                    ],
                )
                .await?;
                let entry = confirmed
                    .entry("person.add")
                    .subject(&id)
                    .detail("login", new.login.as_str())
                    .detail("name", new.name.as_str());
                audit::record(tx, &escrow, entry).await?;
                Ok(Ok(one(tx, &id).await?.ok_or(Error::Corrupt("people"))?))
            })
            .await;
        let made = self.0.audit_refusal(permit, result).await?;
        Ok(made.map(|view| (view, text)))
    }

    /// The people who may do something in the permit's organisation, or nothing anywhere yet; all of them for who manages people
    /// everywhere. By the name they sign in with.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn list(&self, permit: &Permit<Admin>) -> Result<Vec<PersonView>> {
        let confirmed = permit.clone();
        let result = self
            .0
            .db
            .read(async move |tx| {
                confirmed.confirm(tx).await?;
                let rows = tx
                    .fetch_all(select_people!("ORDER BY login"), params![])
                    .await?;
                let mut all = Vec::with_capacity(rows.len());
                for row in &rows {
                    let id: String = row.get("principal")?;
                    let grants = granted(tx, &id).await?;
                    if may_see(&confirmed, &grants) {
                        all.push(PersonView::from_row(row, grants)?);
                    }
                }
                Ok(all)
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// One person, by identifier or by the name they sign in with; `None` too for one whom the actor may not see.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn find(
        &self,
        permit: &Permit<Admin>,
        id_or_login: &str,
    ) -> Result<Option<PersonView>> {
        let all = self.list(permit).await?;
        let wanted = id_or_login.trim();
        Ok(all
            .into_iter()
            .find(|one| one.id == wanted || one.login == wanted.to_ascii_lowercase()))
    }

    /// Sets the roles that a person has in a scope, in place of those they had there.
    ///
    /// # Errors
    /// [`Error::Refused`] when the actor does not manage people in the whole scope; or when the database fails.
    pub async fn set_roles(
        &self,
        permit: &Permit<Admin>,
        person: &str,
        scope: &Scope,
        roles: &[Role],
    ) -> Result<Result<PersonView, PersonProblem>> {
        let (escrow, confirmed, person) = (self.0.clone(), permit.clone(), person.to_owned());
        let (scope, roles) = (scope.clone(), roles.to_vec());
        let result = self
            .0
            .db
            .write("people.set_roles", async move |tx| {
                confirmed.confirm(tx).await?;
                manages(&confirmed, &scope)?;
                let Some(view) = one(tx, &person).await? else {
                    return Ok(Err(PersonProblem::Unknown));
                };
                let had: Vec<Role> = of_scope(&view.grants, &scope);
                let given: Vec<Role> = roles.iter().copied().filter(|r| !had.contains(r)).collect();
                let taken: Vec<Role> = had.iter().copied().filter(|r| !roles.contains(r)).collect();
                let opens = given.iter().any(|role| role.opens_codes());
                // The first of all proves themselves with their first sign-in: there is nobody else who could do it.
                let is_first = confirmed.actor().kind() == PrincipalKind::System;
                if opens && !view.is_settled() && !is_first {
                    return Ok(Err(PersonProblem::Unsettled { name: view.name }));
                }
                if scope == Scope::All && taken.contains(&Role::Admin) && is_last(tx, &view).await? {
                    return Ok(Err(PersonProblem::LastAdmin));
                }
                let organisation = written(&scope);
                let mut passed = Passed::Free;
                if opens {
                    let target = format!("person {} ({}): give {} in {organisation}", view.login, view.id, words(&given));
                    let guard = Guard::people(target).in_scope(scope.clone());
                    passed = approvals::pass(tx, &escrow, &confirmed, &guard).await?;
                }
                let now = tx.now();
                for role in &given {
                    tx.execute(
                        "INSERT INTO grants (organisation, principal, role, granted_at, granted_by) \
                         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
                        params![organisation, person.as_str(), role.as_str(), now, confirmed.actor().name()],
                    )
                    .await?;
                }
                for role in &taken {
                    tx.execute(
                        "DELETE FROM grants WHERE organisation = $1 AND principal = $2 AND role = $3",
                        params![organisation, person.as_str(), role.as_str()],
                    )
                    .await?;
                }
                if !given.is_empty() || !taken.is_empty() {
                    let entry = audit::Entry::by(confirmed.actor(), &OrganisationId::new(organisation), "person.roles")
                        .subject(&person)
                        .detail("login", view.login.as_str())
                        .detail("given", words(&given))
                        .detail("taken", words(&taken));
                    audit::record(tx, &escrow, passed.mark(entry)).await?;
                }
                if opens {
                    let told = serde_json::json!({
                        "person": view.name,
                        "login": view.login,
                        "roles": words(&given),
                        "by": confirmed.actor().name(),
                    });
                    let place = OrganisationId::new(organisation);
                    approvals::tell(tx, &escrow, &place, NoticeKind::RoleGranted, told).await?;
                }
                Ok(Ok(one(tx, &person).await?.ok_or(Error::Corrupt("people"))?))
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Shuts a person out, at once: their sessions and tokens open nothing. Or lets them in again, as they were before.
    ///
    /// # Errors
    /// [`Error::Refused`] when the actor does not manage people everywhere where this one may do something; or when the database
    /// fails.
    pub async fn set_disabled(
        &self,
        permit: &Permit<Admin>,
        person: &str,
        disabled: bool,
    ) -> Result<Result<PersonView, PersonProblem>> {
        let (escrow, confirmed, person) = (self.0.clone(), permit.clone(), person.to_owned());
        let result = self
            .0
            .db
            .write("people.set_disabled", async move |tx| {
                confirmed.confirm(tx).await?;
                let Some(view) = one(tx, &person).await? else {
                    return Ok(Err(PersonProblem::Unknown));
                };
                manages_all_of(&confirmed, &view.grants)?;
                if view.disabled_at.is_some() == disabled {
                    return Ok(Ok(view));
                }
                if disabled && is_last(tx, &view).await? {
                    return Ok(Err(PersonProblem::LastAdmin));
                }
                let mut passed = Passed::Free;
                if !disabled && let Some(guard) = as_them(&view, "let in again") {
                    passed = approvals::pass(tx, &escrow, &confirmed, &guard).await?;
                }
                let now = tx.now();
                let by = confirmed.actor().name();
                if disabled {
                    tx.execute(
                        "UPDATE people SET disabled_at = $2, disabled_by = $3, invitation = NULL, invited_until = NULL \
                         WHERE principal = $1",
                        params![person.as_str(), now, by],
                    )
                    .await?;
                    crate::sessions::end_all(tx, &person, by).await?;
                } else {
                    tx.execute(
                        "UPDATE people SET disabled_at = NULL, disabled_by = NULL WHERE principal = $1",
                        params![person.as_str()],
                    )
                    .await?;
                }
                let action = if disabled { "person.disable" } else { "person.enable" };
                let entry = confirmed.entry(action).subject(&person).detail("login", view.login.as_str());
                audit::record(tx, &escrow, passed.mark(entry)).await?;
                Ok(Ok(one(tx, &person).await?.ok_or(Error::Corrupt("people"))?))
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Invites a person anew who lost what they prove themselves with: their password and second factor are gone, and their
    /// sessions end. Their roles stay.
    ///
    /// # Errors
    /// As [`Self::set_disabled`].
    pub async fn reset(
        &self,
        permit: &Permit<Admin>,
        person: &str,
    ) -> Result<Result<(PersonView, SecretText), PersonProblem>> {
        let text = SecretText::generate(INVITATION_PREFIX, self.0.random());
        let hash = TokenHash::of(text.expose()).hex();
        let (escrow, confirmed, person) = (self.0.clone(), permit.clone(), person.to_owned());
        let result = self
            .0
            .db
            .write("people.reset", async move |tx| {
                confirmed.confirm(tx).await?;
                let Some(view) = one(tx, &person).await? else {
                    return Ok(Err(PersonProblem::Unknown));
                };
                manages_all_of(&confirmed, &view.grants)?;
                let mut passed = Passed::Free;
                if let Some(guard) = as_them(&view, "invite anew") {
                    passed = approvals::pass(tx, &escrow, &confirmed, &guard).await?;
                }
                let now = tx.now();
                tx.execute(
                    "UPDATE people SET invitation = $2, invited_until = $3, password = NULL, password_at = NULL, \
                     totp = NULL, totp_at = NULL, totp_step = NULL, totp_pending = NULL WHERE principal = $1",
                    params![person.as_str(), hash.as_str(), now.plus(INVITED_FOR)],
                )
                .await?;
                crate::sessions::end_all(tx, &person, confirmed.actor().name()).await?;
                let entry = confirmed.entry("person.reset").subject(&person).detail("login", view.login.as_str());
                audit::record(tx, &escrow, passed.mark(entry)).await?;
                Ok(Ok(one(tx, &person).await?.ok_or(Error::Corrupt("people"))?))
            })
            .await;
        let reset = self.0.audit_refusal(permit, result).await?;
        Ok(reset.map(|view| (view, text)))
    }

    /// How many people can sign in, for `doctor`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count(&self) -> Result<u64> {
        self.0
            .db
            .read(async move |tx| {
                let row = tx
                    .fetch_one(
                        "SELECT COUNT(*) AS people FROM people WHERE disabled_at IS NULL AND (password IS NOT NULL OR issuer IS NOT NULL)",
                        params![],
                    )
                    .await?;
                let people: i64 = row.get("people")?;
                u64::try_from(people).map_err(|_| Error::Corrupt("people"))
            })
            .await
    }
}

fn written(scope: &Scope) -> &str {
    scope
        .organisation()
        .map_or(EVERYWHERE, OrganisationId::as_str)
}

fn of_scope(grants: &[Granted], scope: &Scope) -> Vec<Role> {
    grants
        .iter()
        .filter(|one| one.scope == *scope)
        .map(|one| one.role)
        .collect()
}

fn words(roles: &[Role]) -> String {
    roles
        .iter()
        .map(|role| role.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether a person manages people in every organisation, and nobody else does.
async fn is_last(tx: &mut Tx<'_>, person: &PersonView) -> Result<bool> {
    if !of_scope(&person.grants, &Scope::All).contains(&Role::Admin) {
        return Ok(false);
    }
    let other = tx
        .fetch_optional(
            "SELECT people.principal FROM people JOIN grants ON grants.principal = people.principal \
             WHERE grants.organisation = $1 AND role = $2 AND disabled_at IS NULL AND people.principal <> $3 LIMIT 1",
            params![EVERYWHERE, Role::Admin.as_str(), person.id.as_str()],
        )
        .await?;
    Ok(other.is_none())
}

fn manages(permit: &Permit<Admin>, scope: &Scope) -> Result<()> {
    let actor = permit.actor();
    if actor.grants().in_scope(scope).allow(Permission::Admin) {
        return Ok(());
    }
    Err(Error::Refused(Refusal::Organisation {
        actor: actor.name().to_owned(),
        organisation: OrganisationId::new(written(scope)),
    }))
}

/// Who changes how a person proves who they are could act as them, wherever they may act.
fn manages_all_of(permit: &Permit<Admin>, grants: &[Granted]) -> Result<()> {
    grants
        .iter()
        .try_for_each(|one| manages(permit, &one.scope))
}

/// What has to be passed by who could then act as a person who has a role that opens codes.
fn as_them(person: &PersonView, what: &str) -> Option<Guard> {
    let mut scopes = person
        .grants
        .iter()
        .filter(|one| one.role.opens_codes())
        .map(|one| &one.scope);
    let first = scopes.next()?;
    let scope = if scopes.all(|scope| scope == first) {
        first.clone()
    } else {
        Scope::All
    };
    let target = format!("person {} ({}): {what}", person.login, person.id);
    Some(Guard::people(target).in_scope(scope))
}

fn may_see(permit: &Permit<Admin>, grants: &[Granted]) -> bool {
    let manages = permit.actor().grants();
    manages.everywhere().allow(Permission::Admin)
        || grants.is_empty()
        || grants
            .iter()
            .any(|one| one.scope.covers(permit.organisation()))
}

/// One person, in another verb's transaction.
pub(crate) async fn one(tx: &mut Tx<'_>, id: &str) -> Result<Option<PersonView>> {
    let row = tx
        .fetch_optional(select_people!("WHERE people.principal = $1"), params![id])
        .await?;
    let Some(row) = row else { return Ok(None) };
    let grants = granted(tx, id).await?;
    PersonView::from_row(&row, grants).map(Some)
}

/// Whether a person cannot do anything any more.
pub(crate) async fn is_shut_out(tx: &mut Tx<'_>, id: &str) -> Result<bool> {
    let row = tx
        .fetch_optional(
            "SELECT disabled_at FROM people WHERE principal = $1",
            params![id],
        )
        .await?;
    match row {
        Some(row) => Ok(row.get::<Option<Timestamp>>("disabled_at")?.is_some()),
        None => Ok(true),
    }
}

async fn granted(tx: &mut Tx<'_>, person: &str) -> Result<Vec<Granted>> {
    let rows = tx
        .fetch_all(
            "SELECT organisation, role, granted_at, granted_by FROM grants WHERE principal = $1 ORDER BY organisation, role",
            params![person],
        )
        .await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        let organisation: String = row.get("organisation")?;
        // A role of a newer program allows nothing here.
        let Some(role) = Role::from_name(&row.get::<String>("role")?) else {
            continue;
        };
        all.push(Granted {
            scope: if organisation == EVERYWHERE {
                Scope::All
            } else {
                Scope::One(OrganisationId::new(organisation))
            },
            role,
            granted_at: row.get("granted_at")?,
            granted_by: row.get("granted_by")?,
        });
    }
    Ok(all)
}

/// What a person may do where, now.
pub(crate) async fn grants_of(tx: &mut Tx<'_>, person: &str) -> Result<Grants> {
    let mut grants = Grants::none();
    for one in granted(tx, person).await? {
        grants.add(one.scope, one.role.permissions());
    }
    Ok(grants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_plain_and_in_lower_case() {
        let read = |text: &str| text.parse::<Login>().map(|login| login.to_string());
        assert_eq!(read(" Zoe@Example.org "), Ok("zoe@example.org".to_owned()));
        for wrong in ["", " ", "zo e", "zoë", "a/b", "a\nb", &"a".repeat(101)] {
            assert_eq!(read(wrong), Err(LoginError), "{wrong:?}");
        }
    }
}
