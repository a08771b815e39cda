//! Connections to MDMs: where commands and delegated unlocks are sent, and how their webhooks are known to be theirs.
//!
//! Changing one changes where codes can go, so it is a permission of its own (R19).

use std::net::IpAddr;

use activation_lock::time::Timestamp;
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::approvals::{self, Guard, Passed};
use crate::db::{Row, Tx, params};
use crate::names::names;
use crate::news::News;
use crate::permit::{Connections as ConnectionsRight, OrganisationId, Permit, Read};
use crate::principals::SecretText;
use crate::{Error, Escrow, Result, audit, operations};

pub(crate) const API_KEY: &str = "connection api key";

names! {
    /// Which MDM it is.
    ConnectionKind {
        /// NanoMDM.
        NanoMdm = "nanomdm",
        /// NanoHUB: NanoMDM's handlers under a prefix.
        NanoHub = "nanohub",
        /// MicroMDM.
        MicroMdm = "micromdm",
    }
}

names! {
    /// Who calls Apple for the devices of a connection.
    UnlockVia {
        /// We, with a push certificate of ours.
        Own = "own",
        /// The MDM, which holds the push certificate (R19).
        Delegated = "delegated",
    }
}

names! {
    /// How a webhook is known to come from its MDM (R22).
    HookAuth {
        /// An HMAC over the body with a shared secret.
        Hmac = "hmac",
        /// A secret in the path, for senders that cannot sign.
        Path = "path",
    }
}

/// A connection as a reference in other rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionRef {
    /// Its organisation.
    pub organisation: OrganisationId,
    /// Its identifier.
    pub id: String,
}

/// Why a connection cannot be made so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionProblem {
    /// The name is not usable in a path.
    #[error(
        "the name may hold lower-case letters, digits and dashes only, at most 40, for it is part of the webhook's address"
    )]
    Name,
    /// There is a connection of that name.
    #[error("there is a connection of that name already: choose another, or remove that one first")]
    NameTaken,
    /// The address is not an address.
    #[error("the address is not of the form https://host[:port][/path]")]
    Address,
    /// The address is neither https nor this machine.
    #[error(
        "the address is not https: codes could be read on the way; plain http is for this machine (loopback) alone"
    )]
    NotHttps,
    /// The prefix does not begin with a slash, or ends with one.
    #[error("the path prefix must be empty, or begin with a slash and not end with one")]
    Prefix,
    /// The rate is not a number of calls a second.
    #[error("the rate must be a positive number of calls a second")]
    Rate,
    /// No such connection.
    #[error("there is no connection of that name")]
    Unknown,
}

/// A connection to be made.
pub struct NewConnection {
    /// Its name in the webhook's address: lower-case letters, digits and dashes.
    pub name: String,
    /// Which MDM it is.
    pub kind: ConnectionKind,
    /// Where its API is: https, or http on this machine.
    pub base_url: String,
    /// What stands before the API's own paths, such as `/api/v1/nanomdm`; mostly empty.
    pub path_prefix: String,
    /// The user name of its API.
    pub username: String,
    /// The password or key of its API.
    pub api_key: Zeroizing<String>,
    /// How its webhooks prove themselves.
    pub hook_auth: HookAuth,
    /// The HMAC secret it uses already; made here when there is none. A path secret is always made here.
    pub hmac_secret: Option<Zeroizing<String>>,
    /// Who calls Apple for its devices.
    pub unlock_via: UnlockVia,
    /// Calls to it a second, at most; `None` for no limit of its own.
    pub max_rate: Option<f64>,
}

/// What is to be changed of a connection.
#[derive(Clone, Default)]
pub struct ConnectionChange {
    /// Where its API is.
    pub base_url: Option<String>,
    /// The user name of its API.
    pub username: Option<String>,
    /// The password or key of its API.
    pub api_key: Option<Zeroizing<String>>,
    /// Who calls Apple for its devices.
    pub unlock_via: Option<UnlockVia>,
}

/// A connection as listed: no secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionView {
    /// Its identifier.
    pub id: String,
    /// Its organisation.
    pub organisation: OrganisationId,
    /// Its name in the webhook's address.
    pub name: String,
    /// Which MDM it is.
    pub kind: ConnectionKind,
    /// Where its API is.
    pub base_url: String,
    /// What stands before the API's own paths.
    pub path_prefix: String,
    /// The user name of its API.
    pub username: String,
    /// How its webhooks prove themselves.
    pub hook_auth: HookAuth,
    /// Whether the secret before the last rotation is still accepted.
    pub previous_secret_live: bool,
    /// Who calls Apple for its devices.
    pub unlock_via: UnlockVia,
    /// Calls to it a second, at most.
    pub max_rate: Option<f64>,
    /// Rises with every change, secrets included.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// When it was removed; its devices and codes stay (R2).
    pub removed_at: Option<Timestamp>,
}

impl ConnectionView {
    /// The connection as a reference in other rows.
    #[must_use]
    pub fn reference(&self) -> ConnectionRef {
        ConnectionRef {
            organisation: self.organisation.clone(),
            id: self.id.clone(),
        }
    }
}

/// What a call to an MDM needs.
pub struct OpenConnection {
    /// Everything that is not secret.
    pub view: ConnectionView,
    /// The password or key of its API.
    pub api_key: Zeroizing<String>,
}

macro_rules! select_connections {
    ($rest:literal) => {
        concat!(
            "SELECT id, organisation, name, kind, base_url, path_prefix, username, api_key, hook_auth, hook_secret, ",
            "hook_previous, hook_hash, hook_previous_hash, unlock_via, max_rate, version, created_at, updated_at, ",
            "removed_at FROM connections ",
            $rest
        )
    };
}

impl ConnectionView {
    fn from_row(row: &Row) -> Result<Self> {
        let kind: String = row.get("kind")?;
        let auth: String = row.get("hook_auth")?;
        let via: String = row.get("unlock_via")?;
        let previous: Option<Vec<u8>> = row.get("hook_previous")?;
        let previous_hash: Option<String> = row.get("hook_previous_hash")?;
        Ok(Self {
            id: row.get("id")?,
            organisation: OrganisationId::new(row.get::<String>("organisation")?),
            name: row.get("name")?,
            kind: ConnectionKind::from_name(&kind).ok_or(Error::Corrupt("connections.kind"))?,
            base_url: row.get("base_url")?,
            path_prefix: row.get("path_prefix")?,
            username: row.get("username")?,
            hook_auth: HookAuth::from_name(&auth).ok_or(Error::Corrupt("connections.hook_auth"))?,
            previous_secret_live: previous.is_some() || previous_hash.is_some(),
            unlock_via: UnlockVia::from_name(&via)
                .ok_or(Error::Corrupt("connections.unlock_via"))?,
            max_rate: row.get("max_rate")?,
            version: row.get("version")?,
            created_at: row.get("created_at")?,
            updated_at: row.get("updated_at")?,
            removed_at: row.get("removed_at")?,
        })
    }
}

mod hook;

pub(crate) use hook::{HOOK_SECRET, PREVIOUS_HOOK_SECRET};

pub use hook::{HOOK_PREFIX, Hook, HookProof};

/// One connection that is not removed, inside another verb's transaction.
pub(crate) async fn by_id(tx: &mut Tx<'_>, id: &str) -> Result<Option<ConnectionView>> {
    tx.fetch_optional(
        select_connections!("WHERE id = $1 AND removed_at IS NULL"),
        params![id],
    )
    .await?
    .map(|row| ConnectionView::from_row(&row))
    .transpose()
}

fn check(new: &NewConnection) -> std::result::Result<(), ConnectionProblem> {
    let name = &new.name;
    let fits = (1..=40).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fits {
        return Err(ConnectionProblem::Name);
    }
    check_address(&new.base_url)?;
    let prefix = &new.path_prefix;
    if !prefix.is_empty()
        && (!prefix.starts_with('/')
            || prefix.ends_with('/')
            || prefix.contains(['?', '#', '%', '.']))
    {
        return Err(ConnectionProblem::Prefix);
    }
    if new
        .max_rate
        .is_some_and(|rate| !rate.is_finite() || rate <= 0.0)
    {
        return Err(ConnectionProblem::Rate);
    }
    Ok(())
}

/// https anywhere, or http on this machine (R19); no user name, query or fragment in it.
fn check_address(text: &str) -> std::result::Result<(), ConnectionProblem> {
    let url = Url::parse(text).map_err(|_| ConnectionProblem::Address)?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).is_loopback(),
        None => return Err(ConnectionProblem::Address),
    };
    match url.scheme() {
        _ if !plain => Err(ConnectionProblem::Address),
        "https" => Ok(()),
        "http" if loopback => Ok(()),
        "http" => Err(ConnectionProblem::NotHttps),
        _ => Err(ConnectionProblem::Address),
    }
}

/// The verbs on connections. See [`Escrow::connections`].
pub struct Connections<'a>(pub(crate) &'a Escrow);

type Checked<T> = std::result::Result<T, ConnectionProblem>;

impl Connections<'_> {
    /// Makes a connection. Gives the webhook's secret when it was made here; it is shown once.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails. A problem with what was asked for is a value.
    pub async fn add(
        &self,
        permit: &Permit<ConnectionsRight>,
        new: NewConnection,
    ) -> Result<Checked<(ConnectionView, Option<SecretText>)>> {
        if let Err(problem) = check(&new) {
            return Ok(Err(problem));
        }
        let (secret, shown) = self.hook_secret(new.hook_auth, new.hmac_secret.clone());
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let new = std::sync::Arc::new((new, secret));
        let result = self
            .0
            .db
            .write("connections.add", async move |tx| {
                confirmed.confirm(tx).await?;
                let (new, secret) = (&new.0, &new.1);
                let (now, id) = (tx.now(), tx.new_id().to_string());
                let organisation = confirmed.organisation();
                let api_key = escrow.seal_cell(API_KEY, organisation.as_str(), &id, new.api_key.as_bytes());
                let stored = hook::store(&escrow, organisation, &id, new.hook_auth, secret);
                let made = tx
                    .execute(
                        "INSERT INTO connections (id, organisation, name, kind, base_url, path_prefix, username, api_key, \
                         hook_auth, hook_secret, hook_hash, unlock_via, max_rate, version, created_at, updated_at) \
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 1, $14, $14) \
                         ON CONFLICT DO NOTHING",
                        params![
                            id.as_str(),
                            organisation.as_str(),
                            new.name.as_str(),
                            new.kind.as_str(),
                            new.base_url.trim_end_matches('/'),
                            new.path_prefix.as_str(),
                            new.username.as_str(),
                            api_key,
                            new.hook_auth.as_str(),
                            stored.cell,
                            stored.hash,
                            new.unlock_via.as_str(),
                            new.max_rate,
                            now
                        ],
                    )
                    .await?;
                if made == 0 {
                    return Ok(Err(ConnectionProblem::NameTaken));
                }
                let guard = Guard::connections(format!("add connection {} to {}", new.name, new.base_url));
                let passed = approvals::pass(tx, &escrow, &confirmed, &guard).await?;
                let entry = confirmed
                    .entry("connection.add")
                    .subject(&new.name)
                    .detail("connection", id.as_str())
                    .detail("kind", new.kind.as_str())
                    .detail("base_url", new.base_url.as_str())
                    .detail("unlock_via", new.unlock_via.as_str());
                audit::record(tx, &escrow, passed.mark(entry)).await?;
                operations::wake_for_credential(tx, organisation).await?;
                let view = by_id(tx, &id).await?.ok_or(Error::Corrupt("connections.id"))?;
                Ok(Ok(view))
            })
            .await;
        let added = self.0.audit_refusal(permit, result).await?;
        self.changed();
        Ok(added.map(|view| (view, shown)))
    }

    /// Changes where a connection's API is and who calls Apple. `None` leaves a value as it is.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails. A problem with what was asked for is a value.
    pub async fn change(
        &self,
        permit: &Permit<ConnectionsRight>,
        name: &str,
        change: ConnectionChange,
    ) -> Result<Checked<ConnectionView>> {
        if let Some(Err(problem)) = change.base_url.as_deref().map(check_address) {
            return Ok(Err(problem));
        }
        let (escrow, confirmed, name) = (self.0.clone(), permit.clone(), name.to_owned());
        let change = std::sync::Arc::new(change);
        let result = self
            .0
            .db
            .write("connections.change", async move |tx| {
                confirmed.confirm(tx).await?;
                let organisation = confirmed.organisation();
                let Some(view) = by_name(tx, organisation, &name).await? else {
                    return Ok(Err(ConnectionProblem::Unknown));
                };
                let base_url = change.base_url.as_deref().unwrap_or(&view.base_url);
                let via = change.unlock_via.unwrap_or(view.unlock_via);
                let mut passed = Passed::Free;
                if base_url.trim_end_matches('/') != view.base_url || via != view.unlock_via {
                    let target = format!("connection {name} to {base_url}, unlocks by {}", via.as_str());
                    passed = approvals::pass(tx, &escrow, &confirmed, &Guard::connections(target)).await?;
                }
                let now = tx.now();
                let api_key = change
                    .api_key
                    .as_ref()
                    .map(|key| escrow.seal_cell(API_KEY, organisation.as_str(), &view.id, key.as_bytes()));
                tx.execute(
                    "UPDATE connections SET base_url = COALESCE($2, base_url), username = COALESCE($3, username), \
                     api_key = COALESCE($4, api_key), unlock_via = COALESCE($5, unlock_via), version = version + 1, \
                     updated_at = $6 WHERE id = $1",
                    params![
                        view.id.as_str(),
                        change.base_url.as_deref().map(|u| u.trim_end_matches('/')),
                        change.username.as_deref(),
                        api_key,
                        change.unlock_via.map(UnlockVia::as_str),
                        now
                    ],
                )
                .await?;
                let entry = confirmed
                    .entry("connection.change")
                    .subject(&name)
                    .detail("connection", view.id.as_str())
                    .detail("base_url", base_url)
                    .detail("api_key_changed", change.api_key.is_some())
                    .detail("unlock_via", via.as_str());
                audit::record(tx, &escrow, passed.mark(entry)).await?;
                operations::wake_for_credential(tx, organisation).await?;
                Ok(Ok(by_id(tx, &view.id).await?.ok_or(Error::Corrupt("connections.id"))?))
            })
            .await;
        let changed = self.0.audit_refusal(permit, result).await;
        self.changed();
        changed
    }

    /// Removes a connection: its webhook is refused and nothing is sent to it. What came from it stays (R2).
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails. A problem with what was asked for is a value.
    pub async fn remove(
        &self,
        permit: &Permit<ConnectionsRight>,
        name: &str,
    ) -> Result<Checked<()>> {
        self.set(
            permit,
            name,
            "connection.remove",
            "UPDATE connections SET removed_at = $2, version = version + 1, updated_at = $2 WHERE id = $1",
        )
        .await
    }

    async fn set(
        &self,
        permit: &Permit<ConnectionsRight>,
        name: &str,
        action: &'static str,
        update: &'static str,
    ) -> Result<Checked<()>> {
        let (escrow, confirmed, name) = (self.0.clone(), permit.clone(), name.to_owned());
        let result = self
            .0
            .db
            .write(action, async move |tx| {
                confirmed.confirm(tx).await?;
                let Some(view) = by_name(tx, confirmed.organisation(), &name).await? else {
                    return Ok(Err(ConnectionProblem::Unknown));
                };
                let now = tx.now();
                tx.execute(update, params![view.id.as_str(), now]).await?;
                let entry = confirmed
                    .entry(action)
                    .subject(&name)
                    .detail("connection", view.id.as_str());
                audit::record(tx, &escrow, entry).await?;
                Ok(Ok(()))
            })
            .await;
        let done = self.0.audit_refusal(permit, result).await;
        self.changed();
        done
    }

    fn changed(&self) {
        self.0.tell(News::Connections);
        self.0.operations().wake();
    }

    /// The connections of an organisation, by name; removed ones are left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, permit: &Permit<Read>) -> Result<Vec<ConnectionView>> {
        let organisation = permit.organisation().clone();
        self.0
            .db
            .read(async move |tx| {
                tx.fetch_all(
                    select_connections!(
                        "WHERE organisation = $1 AND removed_at IS NULL ORDER BY name"
                    ),
                    params![organisation.as_str()],
                )
                .await?
                .iter()
                .map(ConnectionView::from_row)
                .collect()
            })
            .await
    }

    /// The connections of an organisation, the removed ones too, by name: for rows that name one by its identifier.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_with_removed(&self, permit: &Permit<Read>) -> Result<Vec<ConnectionView>> {
        let organisation = permit.organisation().clone();
        self.0
            .db
            .read(async move |tx| {
                tx.fetch_all(
                    select_connections!("WHERE organisation = $1 ORDER BY name, id"),
                    params![organisation.as_str()],
                )
                .await?
                .iter()
                .map(ConnectionView::from_row)
                .collect()
            })
            .await
    }

    /// The MDMs that did not take commands of ours several times in a row, by name, with why.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn not_taking_commands(
        &self,
        permit: &Permit<Read>,
    ) -> Result<Vec<(String, String)>> {
        let organisation = permit.organisation().clone();
        self.0
            .db
            .read(async move |tx| {
                // Of very many, those that are due first say it for all.
                let rows = tx
                    .fetch_all(
                        "SELECT name, (SELECT reason FROM (SELECT reason, tries FROM commands \
                         WHERE commands.connection = connections.id AND state = 'planned' ORDER BY due_at LIMIT 200) AS first \
                         WHERE tries >= 3 AND reason IS NOT NULL LIMIT 1) AS reason FROM connections \
                         WHERE organisation = $1 AND removed_at IS NULL ORDER BY name",
                        params![organisation.as_str()],
                    )
                    .await?;
                let mut silent = Vec::new();
                for row in &rows {
                    if let Some(reason) = row.get::<Option<String>>("reason")? {
                        silent.push((row.get("name")?, reason));
                    }
                }
                Ok(silent)
            })
            .await
    }

    /// One connection of an organisation by its name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, permit: &Permit<Read>, name: &str) -> Result<Option<ConnectionView>> {
        let (organisation, name) = (permit.organisation().clone(), name.to_owned());
        self.0
            .db
            .read(async move |tx| by_name(tx, &organisation, &name).await)
            .await
    }

    /// What a worker needs to call a connection's API; `None` when it was removed.
    ///
    /// # Errors
    /// When a secret does not open, or the database fails.
    pub async fn open(&self, id: &str) -> Result<Option<OpenConnection>> {
        let (escrow, id) = (self.0.clone(), id.to_owned());
        self.0
            .db
            .read(async move |tx| {
                let row = tx
                    .fetch_optional(
                        select_connections!("WHERE id = $1 AND removed_at IS NULL"),
                        params![id.as_str()],
                    )
                    .await?;
                let Some(row) = row else { return Ok(None) };
                let view = ConnectionView::from_row(&row)?;
                let cell: Vec<u8> = row.get("api_key")?;
                let bytes =
                    escrow.open_cell(API_KEY, view.organisation.as_str(), &view.id, &cell)?;
                let api_key = std::str::from_utf8(&bytes)
                    .map_err(|_| Error::Corrupt("connections.api_key"))?;
                Ok(Some(OpenConnection {
                    view,
                    api_key: Zeroizing::new(api_key.to_owned()),
                }))
            })
            .await
    }
}

async fn by_name(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    name: &str,
) -> Result<Option<ConnectionView>> {
    tx.fetch_optional(
        select_connections!("WHERE organisation = $1 AND name = $2 AND removed_at IS NULL"),
        params![organisation.as_str(), name],
    )
    .await?
    .map(|row| ConnectionView::from_row(&row))
    .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r19_an_address_is_https_or_on_this_machine() {
        for good in [
            "https://mdm.example.org",
            "https://mdm.example.org:9000/base",
            "http://127.0.0.1:9000",
            "http://[::1]:9000",
            "http://localhost:9000",
        ] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for plain in [
            "http://mdm.example.org",
            "http://localhost.example.org",
            "http://10.0.0.1",
            "http://0.0.0.0",
        ] {
            assert_eq!(
                check_address(plain),
                Err(ConnectionProblem::NotHttps),
                "{plain}"
            );
        }
        for bad in [
            "",
            "mdm.example.org",
            "ftp://a",
            "https://u:p@a",
            "https://a/?b",
            "https://a/#b",
            "file:///a",
        ] {
            assert_eq!(check_address(bad), Err(ConnectionProblem::Address), "{bad}");
        }
    }
}
