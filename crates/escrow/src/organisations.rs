//! Organisations: whose devices, codes and people everything else belongs to.

use activation_lock::guard::UserLockPolicy;
use activation_lock::time::Timestamp;

use crate::approvals::{self, Action, Guard, Passed, REVEALS_AN_HOUR, UNLOCKS_AN_HOUR};
use crate::db::{Row, Tx, params};
use crate::permit::{Actor, Admin, OrganisationId, Permit};
use crate::{Error, Escrow, Result, audit};

/// An organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organisation {
    /// Its identifier.
    pub id: OrganisationId,
    /// Its name, which Apple is given as `orgName` (contract sheet 1.5).
    pub name: String,
    /// Whether devices may be told to allow a person's lock (R7).
    pub user_lock: UserLockPolicy,
    /// Whether devices that Apple newly lists are locked by the organisation (R20).
    pub lock_on_listing: bool,
    /// Since when that waits for a person, having locked as many as it may in an hour.
    pub listing_paused_at: Option<Timestamp>,
    /// How many reveals one may have in an hour without another's approval.
    pub reveals_an_hour: u32,
    /// The same of unlocks.
    pub unlocks_an_hour: u32,
    /// When it was made.
    pub created_at: Timestamp,
}

macro_rules! select_organisations {
    ($rest:literal) => {
        concat!(
            "SELECT organisations.id, name, user_lock, lock_on_listing, listing_paused_at, reveals_an_hour, unlocks_an_hour, ",
            "created_at FROM organisations ",
            "LEFT JOIN policies ON policies.organisation = organisations.id ",
            $rest
        )
    };
}

impl Organisation {
    fn from_row(row: &Row) -> Result<Self> {
        let user_lock: Option<String> = row.get("user_lock")?;
        Ok(Self {
            id: OrganisationId::new(row.get::<String>("id")?),
            name: row.get("name")?,
            user_lock: match user_lock {
                Some(text) => text
                    .parse()
                    .map_err(|_| Error::Corrupt("policies.user_lock"))?,
                None => UserLockPolicy::default(),
            },
            lock_on_listing: row.get::<Option<String>>("lock_on_listing")?.as_deref() == Some("on"),
            listing_paused_at: row.get("listing_paused_at")?,
            reveals_an_hour: number(row, "reveals_an_hour", REVEALS_AN_HOUR)?,
            unlocks_an_hour: number(row, "unlocks_an_hour", UNLOCKS_AN_HOUR)?,
            created_at: row.get("created_at")?,
        })
    }
}

fn number(row: &Row, column: &'static str, by_default: u32) -> Result<u32> {
    let set: Option<i64> = row.get(column)?;
    Ok(set
        .and_then(|set| u32::try_from(set).ok())
        .unwrap_or(by_default))
}

/// One organisation, inside another verb's transaction.
pub(crate) async fn by_id(tx: &mut Tx<'_>, id: &OrganisationId) -> Result<Option<Organisation>> {
    tx.fetch_optional(
        select_organisations!("WHERE organisations.id = $1"),
        params![id.as_str()],
    )
    .await?
    .map(|row| Organisation::from_row(&row))
    .transpose()
}

/// Whether the devices of an organisation may be told to allow a person's lock (R7).
pub(crate) async fn user_lock_policy(
    tx: &mut Tx<'_>,
    id: &OrganisationId,
) -> Result<UserLockPolicy> {
    Ok(by_id(tx, id)
        .await?
        .map_or_else(UserLockPolicy::default, |organisation| {
            organisation.user_lock
        }))
}

/// What came of making an organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is made.
    New(Organisation),
    /// There is one of that name.
    NameTaken,
}

/// The verbs on organisations. See [`Escrow::organisations`].
pub struct Organisations<'a>(pub(crate) &'a Escrow);

impl Organisations<'_> {
    /// Makes an organisation. The permit is one of an actor that may act in all organisations: it names none that
    /// exists yet, so the new identifier is made here. The name goes to Apple as it is.
    ///
    /// # Errors
    /// [`Error::Refused`] when the actor may not act in every organisation; or when the database fails.
    pub async fn create(&self, actor: &Actor, name: &str) -> Result<Created> {
        let nowhere = OrganisationId::new("*");
        let permit: Permit<Admin> = self
            .0
            .authorise(actor, &nowhere, format!("organisation {name}"))
            .await?;
        let (escrow, name, confirmed) = (self.0.clone(), name.trim().to_owned(), permit.clone());
        let result = self
            .0
            .db
            .write("organisations.create", async move |tx| {
                confirmed.confirm(tx).await?;
                let id = OrganisationId::new(tx.new_id().to_string());
                let now = tx.now();
                let made = tx
                    .execute(
                        "INSERT INTO organisations (id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                        params![id.as_str(), name.as_str(), now],
                    )
                    .await?;
                if made == 0 {
                    return Ok(Created::NameTaken);
                }
                let user_lock = UserLockPolicy::default();
                tx.execute(
                    "INSERT INTO policies (organisation, user_lock, updated_at) VALUES ($1, $2, $3)",
                    params![id.as_str(), user_lock.as_str(), now],
                )
                .await?;
                let entry = audit::Entry::by(confirmed.actor(), &id, "organisation.create")
                    .subject(&name)
                    .detail("name", name.as_str());
                audit::record(tx, &escrow, entry).await?;
                Ok(Created::New(Organisation {
                    id,
                    name: name.clone(),
                    user_lock,
                    lock_on_listing: false,
                    listing_paused_at: None,
                    reveals_an_hour: REVEALS_AN_HOUR,
                    unlocks_an_hour: UNLOCKS_AN_HOUR,
                    created_at: now,
                }))
            })
            .await;
        self.0.audit_refusal(&permit, result).await
    }

    /// The organisations an actor may act in, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, actor: &Actor) -> Result<Vec<Organisation>> {
        let grants = actor.grants().clone();
        self.0
            .db
            .read(async move |tx| {
                let rows = tx
                    .fetch_all(select_organisations!("ORDER BY name"), params![])
                    .await?;
                let all: Vec<Organisation> = rows
                    .iter()
                    .map(Organisation::from_row)
                    .collect::<Result<_>>()?;
                Ok(all.into_iter().filter(|o| grants.reach(&o.id)).collect())
            })
            .await
    }

    /// One organisation, by identifier or by name; `None` too when the actor may not act in it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(&self, actor: &Actor, id_or_name: &str) -> Result<Option<Organisation>> {
        let mut all = self.list(actor).await?;
        let at = all
            .iter()
            .position(|o| o.id.as_str() == id_or_name)
            .or_else(|| all.iter().position(|o| o.name == id_or_name));
        Ok(at.map(|at| all.swap_remove(at)))
    }

    /// Sets whether devices may be told to allow a person's lock (R7).
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn set_user_lock(
        &self,
        permit: &Permit<Admin>,
        user_lock: UserLockPolicy,
    ) -> Result<()> {
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let result = self
            .0
            .db
            .write("organisations.set_user_lock", async move |tx| {
                confirmed.confirm(tx).await?;
                let now = tx.now();
                tx.execute(
                    "INSERT INTO policies (organisation, user_lock, updated_at) VALUES ($1, $2, $3) \
                     ON CONFLICT (organisation) DO UPDATE SET user_lock = excluded.user_lock, \
                     updated_at = excluded.updated_at",
                    params![confirmed.organisation().as_str(), user_lock.as_str(), now],
                )
                .await?;
                // What was wanted before and has not left yet stays here; what is wanted now follows with each device's next event.
                tx.execute(
                    "UPDATE commands SET state = 'void', reason = 'the policy changed' WHERE organisation = $1 \
                     AND type = 'Settings' AND state = 'planned' AND leased_until IS NULL AND argument <> $2",
                    params![confirmed.organisation().as_str(), user_lock.as_str()],
                )
                .await?;
                let entry = confirmed.entry("policy.user_lock").detail("user_lock", user_lock.as_str());
                audit::record(tx, &escrow, entry).await
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Sets whether devices that Apple newly lists are locked by the organisation (R20). Set anew, a pause ends.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn set_lock_on_listing(&self, permit: &Permit<Admin>, on: bool) -> Result<()> {
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let result = self
            .0
            .db
            .write("organisations.set_lock_on_listing", async move |tx| {
                confirmed.confirm(tx).await?;
                let (now, word) = (tx.now(), if on { "on" } else { "off" });
                let mut passed = Passed::Free;
                if on {
                    let guard = Guard::loosening(Action::Lock, "lock on listing");
                    passed = approvals::pass(tx, &escrow, &confirmed, &guard).await?;
                }
                tx.execute(
                    "UPDATE policies SET lock_on_listing = $2, listing_paused_at = NULL, updated_at = $3 \
                     WHERE organisation = $1",
                    params![confirmed.organisation().as_str(), word, now],
                )
                .await?;
                let entry = confirmed.entry("policy.lock_on_listing").detail("lock_on_listing", word);
                audit::record(tx, &escrow, passed.mark(entry)).await
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Sets how many reveals and unlocks a person may have in an hour without another's approval; `None` leaves a number as it is.
    /// More of them is looser than before, and takes the approval of that.
    ///
    /// # Errors
    /// [`Error::Refused`] when an approval is missing or the permit no longer holds; or when the database fails.
    pub async fn set_quotas(
        &self,
        permit: &Permit<Admin>,
        reveals: Option<u32>,
        unlocks: Option<u32>,
    ) -> Result<()> {
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let result = self
            .0
            .db
            .write("organisations.set_quotas", async move |tx| {
                confirmed.confirm(tx).await?;
                let had = by_id(tx, confirmed.organisation()).await?;
                let had = had.ok_or(Error::Corrupt("organisations"))?;
                let new = (reveals.unwrap_or(had.reveals_an_hour), unlocks.unwrap_or(had.unlocks_an_hour));
                let mut entry = confirmed
                    .entry("policy.quotas")
                    .detail("reveals_an_hour", new.0)
                    .detail("unlocks_an_hour", new.1);
                let looser = [
                    (Action::Reveal, had.reveals_an_hour, new.0),
                    (Action::Unlock, had.unlocks_an_hour, new.1),
                ];
                for (action, had, new) in looser {
                    if new > had {
                        let guard = Guard::loosening(action, &format!("{new} an hour"));
                        entry = approvals::pass(tx, &escrow, &confirmed, &guard).await?.mark(entry);
                    }
                }
                let now = tx.now();
                tx.execute(
                    "UPDATE policies SET reveals_an_hour = $2, unlocks_an_hour = $3, updated_at = $4 WHERE organisation = $1",
                    params![confirmed.organisation().as_str(), i64::from(new.0), i64::from(new.1), now],
                )
                .await?;
                audit::record(tx, &escrow, entry).await
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }
}
