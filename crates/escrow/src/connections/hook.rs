//! How webhooks are known to be their MDM's own (R22): by an HMAC with a shared secret, or by a secret in the path.

use seal::TokenHash;
use zeroize::Zeroizing;

use super::{
    Checked, ConnectionKind, ConnectionProblem, ConnectionRef, ConnectionView, Connections,
    HookAuth, by_name,
};
use crate::db::params;
use crate::permit::{
    Actor, Connections as ConnectionsRight, Grants, OrganisationId, Permission, Permissions,
    Permit, PrincipalKind, Proof, Scope,
};
use crate::principals::SecretText;
use crate::{Error, Escrow, Result, audit};

/// What a path secret of a webhook begins with.
pub const HOOK_PREFIX: &str = "lw_hook_";

pub(crate) const HOOK_SECRET: &str = "webhook secret";
pub(crate) const PREVIOUS_HOOK_SECRET: &str = "previous webhook secret";

/// What the webhook needs to know a connection's requests by.
pub enum HookProof {
    /// The live HMAC secrets, the newest first.
    Hmac(Vec<Zeroizing<Vec<u8>>>),
    /// The hashes of the live path secrets.
    Path(Vec<TokenHash>),
}

/// A connection as the webhook sees it. May be kept until [`Escrow::connection_changes`] changes.
pub struct Hook {
    /// The connection.
    pub connection: ConnectionRef,
    /// Its name.
    pub name: String,
    /// Which MDM it is.
    pub kind: ConnectionKind,
    /// How its requests are known.
    pub proof: HookProof,
    /// The connection's version.
    pub version: i64,
}

impl Hook {
    /// The MDM as an actor, once a request was found to be its own.
    #[must_use]
    pub fn actor(&self, address: Option<&str>) -> Actor {
        Actor {
            principal: format!("connection:{}", self.connection.id),
            kind: PrincipalKind::Connection,
            name: self.name.clone(),
            grants: Grants::of(
                Scope::One(self.connection.organisation.clone()),
                Permissions::of(&[Permission::Record]),
            ),
            proof: Proof::Connection(self.connection.id.clone()),
            address: address.map(str::to_owned),
            owner: None,
            unfinished: false,
            leave: crate::approvals::Leave::Plain,
        }
    }
}

/// The secret of a webhook, sealed and hashed as its kind is stored.
pub(super) struct StoredSecret {
    pub(super) cell: Option<Vec<u8>>,
    pub(super) hash: Option<String>,
}

/// Seals or hashes the secret of a webhook for its row.
pub(super) fn store(
    escrow: &Escrow,
    organisation: &OrganisationId,
    id: &str,
    auth: HookAuth,
    secret: &str,
) -> StoredSecret {
    match auth {
        HookAuth::Hmac => StoredSecret {
            cell: Some(escrow.seal_cell(HOOK_SECRET, organisation.as_str(), id, secret.as_bytes())),
            hash: None,
        },
        HookAuth::Path => StoredSecret {
            cell: None,
            hash: Some(TokenHash::of(secret).hex()),
        },
    }
}

impl Connections<'_> {
    /// The secret of a webhook: the one given, or one made here, which is then to be shown.
    pub(super) fn hook_secret(
        &self,
        auth: HookAuth,
        given: Option<Zeroizing<String>>,
    ) -> (Zeroizing<String>, Option<SecretText>) {
        match (auth, given) {
            (HookAuth::Hmac, Some(given)) => (given, None),
            _ => {
                let made = SecretText::generate(HOOK_PREFIX, self.0.random());
                (Zeroizing::new(made.expose().to_owned()), Some(made))
            }
        }
    }

    /// Gives the webhook a new secret; the one before stays good until [`Self::retire_previous_secret`] or the next
    /// rotation. Gives the new one when it was made here.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails. A problem with what was asked for is a value.
    pub async fn rotate_secret(
        &self,
        permit: &Permit<ConnectionsRight>,
        name: &str,
        hmac_secret: Option<Zeroizing<String>>,
    ) -> Result<Checked<Option<SecretText>>> {
        let organisation = permit.organisation().clone();
        let key = name.to_owned();
        let view = self
            .0
            .db
            .read(async move |tx| by_name(tx, &organisation, &key).await)
            .await?;
        let Some(view) = view else {
            return Ok(Err(ConnectionProblem::Unknown));
        };
        let (secret, shown) = self.hook_secret(view.hook_auth, hmac_secret);
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let result =
            self.0
                .db
                .write("connections.rotate_secret", async move |tx| {
                    confirmed.confirm(tx).await?;
                    let organisation = confirmed.organisation();
                    let row = tx
                        .fetch_one(
                            select_connections!("WHERE id = $1"),
                            params![view.id.as_str()],
                        )
                        .await?;
                    // A cell opens in its own place only, so the older secret is sealed anew for its new place.
                    let older: Option<Vec<u8>> = row.get("hook_secret")?;
                    let older = older
                        .map(|cell| {
                            escrow.open_cell(HOOK_SECRET, organisation.as_str(), &view.id, &cell)
                        })
                        .transpose()?
                        .map(|text| {
                            escrow.seal_cell(
                                PREVIOUS_HOOK_SECRET,
                                organisation.as_str(),
                                &view.id,
                                &text,
                            )
                        });
                    let older_hash: Option<String> = row.get("hook_hash")?;
                    let stored = store(&escrow, organisation, &view.id, view.hook_auth, &secret);
                    let now = tx.now();
                    tx.execute(
                    "UPDATE connections SET hook_secret = $2, hook_hash = $3, hook_previous = $4, \
                     hook_previous_hash = $5, version = version + 1, updated_at = $6 WHERE id = $1",
                    params![view.id.as_str(), stored.cell, stored.hash, older, older_hash, now],
                )
                .await?;
                    let entry = confirmed
                        .entry("connection.rotate_secret")
                        .subject(&view.name)
                        .detail("connection", view.id.as_str());
                    audit::record(tx, &escrow, entry).await
                })
                .await;
        self.0.audit_refusal(permit, result).await?;
        self.changed();
        Ok(Ok(shown))
    }

    /// Ends a rotation: the secret before the last one opens nothing any more.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails. A problem with what was asked for is a value.
    pub async fn retire_previous_secret(
        &self,
        permit: &Permit<ConnectionsRight>,
        name: &str,
    ) -> Result<Checked<()>> {
        self.set(
            permit,
            name,
            "connection.retire_secret",
            "UPDATE connections SET hook_previous = NULL, hook_previous_hash = NULL, version = version + 1, \
             updated_at = $2 WHERE id = $1",
        )
        .await
    }

    /// What the webhook knows a connection's requests by; `None` when there is none of that name.
    ///
    /// # Errors
    /// When a secret does not open, or the database fails.
    pub async fn for_hook(&self, name: &str) -> Result<Option<Hook>> {
        let (escrow, name) = (self.0.clone(), name.to_owned());
        self.0
            .db
            .read(async move |tx| {
                let row = tx
                    .fetch_optional(
                        select_connections!("WHERE name = $1 AND removed_at IS NULL"),
                        params![name.as_str()],
                    )
                    .await?;
                let Some(row) = row else { return Ok(None) };
                let view = ConnectionView::from_row(&row)?;
                let proof = match view.hook_auth {
                    HookAuth::Hmac => {
                        let mut secrets = Vec::with_capacity(2);
                        for (kind, column) in [
                            (HOOK_SECRET, "hook_secret"),
                            (PREVIOUS_HOOK_SECRET, "hook_previous"),
                        ] {
                            if let Some(cell) = row.get::<Option<Vec<u8>>>(column)? {
                                secrets.push(escrow.open_cell(
                                    kind,
                                    view.organisation.as_str(),
                                    &view.id,
                                    &cell,
                                )?);
                            }
                        }
                        HookProof::Hmac(secrets)
                    }
                    HookAuth::Path => {
                        let mut hashes = Vec::with_capacity(2);
                        for column in ["hook_hash", "hook_previous_hash"] {
                            if let Some(hex) = row.get::<Option<String>>(column)? {
                                hashes.push(
                                    TokenHash::from_hex(&hex)
                                        .ok_or(Error::Corrupt("connections.hook_hash"))?,
                                );
                            }
                        }
                        HookProof::Path(hashes)
                    }
                };
                Ok(Some(Hook {
                    connection: view.reference(),
                    name: view.name,
                    kind: view.kind,
                    proof,
                    version: view.version,
                }))
            })
            .await
    }
}
