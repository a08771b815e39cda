//! People for whom a provider of identities vouches (OpenID Connect): it says who they are and in which groups, and the configuration
//! says which roles those give. Such roles are given and taken with each sign-in; those that a person gave by hand stay.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use seal::TokenHash;
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    Origin, Rules, SESSION_PREFIX, SessionView, Sessions, actor_of, doorkeeper, insert, throttle,
};
use crate::approvals;
use crate::audit::{self, Entry};
use crate::db::{Tx, params};
use crate::notices::NoticeKind;
use crate::people::credentials::nowhere;
use crate::people::{self, Login, PersonView};
use crate::permit::{Grants, OrganisationId, PrincipalKind, Role, Scope};
use crate::principals::SecretText;
use crate::{Error, Escrow, Result};

/// The kind of cell that a sign-in which is under way is given as. It is never stored.
const TICKET: &str = "sign-in ticket";
/// Bytes of a ticket's name.
const NAME_BYTES: usize = 16;
/// Who gives roles by groups, as it stands on record.
const BY_GROUPS: &str = "single sign-on";

/// Who a provider says that somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The provider.
    pub issuer: String,
    /// Who they are there, for ever.
    pub subject: String,
    /// What they are called when they sign in, as the provider has it.
    pub login: String,
    /// Their name.
    pub name: String,
    /// Where they can be told something.
    pub email: Option<String>,
    /// What their groups give them.
    pub roles: Vec<(Scope, Role)>,
}

/// Why somebody whose identity is known is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityProblem {
    /// Nothing that they may do.
    #[error("none of their groups has a role here")]
    NoRole,
    /// Another person has the name.
    #[error("another person signs in with that name, whom the provider does not vouch for")]
    LoginTaken,
    /// A name that nobody can have here.
    #[error(
        "their name at the provider is none that one can have here: letters a to z, digits and . _ - + @"
    )]
    BadLogin,
    /// They were shut out here.
    #[error("they were shut out here")]
    ShutOut,
}

impl IdentityProblem {
    fn as_str(self) -> &'static str {
        match self {
            Self::NoRole => "no_role",
            Self::LoginTaken => "login_taken",
            Self::BadLogin => "bad_login",
            Self::ShutOut => "shut_out",
        }
    }
}

impl Sessions<'_> {
    /// Counts a try from an address, before anything is looked at; or says how long to wait first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin_with_provider(&self, address: Option<&str>) -> Result<Option<Duration>> {
        let address = address.map(str::to_owned);
        self.0
            .db
            .write("sessions.try_provider", async move |tx| {
                let address = address.as_deref().map(throttle::Counted::Address);
                throttle::begin(tx, &Vec::from_iter(address)).await
            })
            .await
    }

    /// What is to be kept of a sign-in that is under way, as a text that nobody but us reads.
    #[must_use]
    pub fn ticket(&self, kept: &[u8]) -> String {
        let mut name = [0; NAME_BYTES];
        self.0.random().fill(&mut name);
        let cell = self.0.seal_cell(
            TICKET,
            people::EVERYWHERE,
            &BASE64URL_NOPAD.encode(&name),
            kept,
        );
        BASE64URL_NOPAD.encode(&[&name[..], &cell].concat())
    }

    /// What was kept; `None` when the text is none of ours.
    #[must_use]
    pub fn open_ticket(&self, ticket: &str) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = BASE64URL_NOPAD.decode(ticket.trim().as_bytes()).ok()?;
        let (name, cell) = bytes.split_at_checked(NAME_BYTES)?;
        let name = BASE64URL_NOPAD.encode(name);
        let opened = self.0.open_cell(TICKET, people::EVERYWHERE, &name, cell);
        opened.ok()
    }

    /// Begins a session for whom a provider vouches for, and gives them the roles of their groups. They become known with their
    /// first. Roles that they had by groups and have no more are gone also when they are not let in.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sign_in_with_provider(
        &self,
        identity: Identity,
        origin: Origin,
        rules: Rules,
    ) -> Result<Result<(SessionView, SecretText), IdentityProblem>> {
        let text = SecretText::generate(SESSION_PREFIX, self.0.random());
        let hash = TokenHash::of(text.expose()).hex();
        let escrow = self.0.clone();
        let begun = self
            .0
            .db
            .write("sessions.begin_with_provider", async move |tx| {
                let person = match admit(tx, &escrow, &identity, &origin).await? {
                    Ok(person) => person,
                    Err(problem) => {
                        let entry = Entry::by(&doorkeeper(&origin), &nowhere(), "session.begin")
                            .subject(&identity.subject)
                            .detail("issuer", identity.issuer.as_str())
                            .detail("why", problem.as_str())
                            .result("refused");
                        audit::record(tx, &escrow, entry).await?;
                        return Ok(Err(problem));
                    }
                };
                let now = tx.now();
                if let Some(address) = &origin.address {
                    throttle::was_right(tx, &[throttle::Counted::Address(address)]).await?;
                }
                tx.execute(
                    "UPDATE people SET signed_in_at = $2 WHERE principal = $1",
                    params![person.id.as_str(), now],
                )
                .await?;
                let view = insert(tx, &person.id, &hash, "provider", &origin, rules).await?;
                let address = origin.address.clone();
                let who = actor_of(&view, &person.name, Grants::none(), false, address);
                let entry = Entry::by(&who, &nowhere(), "session.begin")
                    .subject(&view.id)
                    .detail("issuer", identity.issuer.as_str());
                audit::record(tx, &escrow, entry).await?;
                Ok(Ok(view))
            })
            .await?;
        Ok(begun.map(|view| (view, text)))
    }
}

/// Finds or makes the person, and brings their roles up to what their groups give.
async fn admit(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    identity: &Identity,
    origin: &Origin,
) -> Result<Result<PersonView, IdentityProblem>> {
    let row = tx
        .fetch_optional(
            "SELECT principal FROM people WHERE issuer = $1 AND subject = $2",
            params![identity.issuer.as_str(), identity.subject.as_str()],
        )
        .await?;
    let id = match row {
        Some(row) => row.get::<String>("principal")?,
        None if identity.roles.is_empty() => return Ok(Err(IdentityProblem::NoRole)),
        None => match make(tx, escrow, identity, origin).await? {
            Ok(id) => id,
            Err(problem) => return Ok(Err(problem)),
        },
    };
    if !identity.name.is_empty() {
        tx.execute(
            "UPDATE principals SET name = $2 WHERE id = $1",
            params![id.as_str(), identity.name.as_str()],
        )
        .await?;
    }
    tx.execute(
        "UPDATE people SET email = $2 WHERE principal = $1",
        params![id.as_str(), identity.email.as_deref()],
    )
    .await?;
    bring_up_to(tx, escrow, &id, identity, origin).await?;
    let person = people::one(tx, &id).await?;
    let person = person.ok_or(Error::Corrupt("people"))?;
    if person.disabled_at.is_some() {
        return Ok(Err(IdentityProblem::ShutOut));
    }
    if person.grants.is_empty() {
        return Ok(Err(IdentityProblem::NoRole));
    }
    Ok(Ok(person))
}

async fn make(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    identity: &Identity,
    origin: &Origin,
) -> Result<Result<String, IdentityProblem>> {
    let Ok(login) = identity.login.parse::<Login>() else {
        return Ok(Err(IdentityProblem::BadLogin));
    };
    // Never joined to a person of the same name: whoever gives out names there would be them.
    let taken = tx
        .fetch_optional(
            "SELECT principal FROM people WHERE login = $1",
            params![login.as_str()],
        )
        .await?;
    if taken.is_some() {
        return Ok(Err(IdentityProblem::LoginTaken));
    }
    let (id, now) = (tx.new_id().to_string(), tx.now());
    tx.execute(
        "INSERT INTO principals (id, organisation, kind, name, created_at) VALUES ($1, NULL, $2, $3, $4)",
        params![
            id.as_str(),
            PrincipalKind::Person.as_str(),
            identity.name.as_str(),
            now
        ],
    )
    .await?;
    tx.execute(
        "INSERT INTO people (principal, login, issuer, subject, created_at, created_by) VALUES ($1, $2, $3, $4, $5, $6)",
        params![
            id.as_str(),
            login.as_str(),
            identity.issuer.as_str(),
            identity.subject.as_str(),
            now,
            BY_GROUPS
        ],
    )
    .await?;
    let entry = Entry::by(&doorkeeper(origin), &nowhere(), "person.add")
        .subject(&id)
        .detail("login", login.as_str())
        .detail("name", identity.name.as_str())
        .detail("issuer", identity.issuer.as_str());
    audit::record(tx, escrow, entry).await?;
    Ok(Ok(id))
}

fn written((scope, role): &(Scope, Role)) -> (String, String) {
    let place = scope
        .organisation()
        .map_or(people::EVERYWHERE, OrganisationId::as_str);
    (place.to_owned(), role.as_str().to_owned())
}

/// Gives what groups give now, and takes what they gave before. Each organisation has its own row on record.
async fn bring_up_to(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    person: &str,
    identity: &Identity,
    origin: &Origin,
) -> Result<()> {
    let rows = tx
        .fetch_all(
            "SELECT organisation, role, by_group FROM grants WHERE principal = $1",
            params![person],
        )
        .await?;
    let (mut has, mut by_group) = (Vec::new(), Vec::new());
    for row in &rows {
        let grant: (String, String) = (row.get("organisation")?, row.get("role")?);
        if row.get::<i64>("by_group")? == 1 {
            by_group.push(grant.clone());
        }
        has.push(grant);
    }
    let wanted: Vec<_> = identity.roles.iter().map(written).collect();
    let mut changes: std::collections::BTreeMap<String, (Vec<String>, Vec<String>)> =
        std::collections::BTreeMap::new();
    let now = tx.now();
    for (place, role) in by_group.iter().filter(|grant| !wanted.contains(grant)) {
        tx.execute(
            "DELETE FROM grants WHERE organisation = $1 AND principal = $2 AND role = $3",
            params![place.as_str(), person, role.as_str()],
        )
        .await?;
        changes
            .entry(place.clone())
            .or_default()
            .1
            .push(role.clone());
    }
    for (place, role) in wanted.iter().filter(|grant| !has.contains(grant)) {
        let given = tx
            .execute(
                "INSERT INTO grants (organisation, principal, role, granted_at, granted_by, by_group) \
                 VALUES ($1, $2, $3, $4, $5, 1) ON CONFLICT DO NOTHING",
                params![place.as_str(), person, role.as_str(), now, BY_GROUPS],
            )
            .await?;
        if given == 1 {
            changes
                .entry(place.clone())
                .or_default()
                .0
                .push(role.clone());
        }
    }
    for (place, (given, taken)) in changes {
        let organisation = OrganisationId::new(place);
        let entry = Entry::by(&doorkeeper(origin), &organisation, "person.roles")
            .subject(person)
            .detail("login", identity.login.as_str())
            .detail("issuer", identity.issuer.as_str())
            .detail("given", given.join(" "))
            .detail("taken", taken.join(" "));
        audit::record(tx, escrow, entry).await?;
        let opens = |name: &String| Role::from_name(name).is_some_and(Role::opens_codes);
        if given.iter().any(opens) {
            let told = json!({
                "person": identity.name,
                "login": identity.login,
                "roles": given.join(" "),
                "by": BY_GROUPS,
            });
            approvals::tell(tx, escrow, &organisation, NoticeKind::RoleGranted, told).await?;
        }
    }
    Ok(())
}
