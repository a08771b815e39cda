//! Server tokens: what Apple's device enrolment service knows us by (contract sheet 2b, 2c), or the address of a NanoDEP that
//! has one. Several an organisation, each under a name of ours; a renewed one takes the place of the older under its name.

use std::time::Duration;

use activation_lock::device::SerialNumber;
use activation_lock::lock;
use activation_lock::time::Timestamp;
use zeroize::Zeroizing;

use crate::db::{Row, Tx, params};
use crate::names::names;
use crate::news::News;
use crate::operations::{self, Operation};
use crate::permit::{Connections, OrganisationId, Permit, Read, Refresh};
use crate::{Error, Escrow, Result, audit};

pub(crate) const TOKEN: &str = "server token";
pub(crate) const KEY: &str = "server token key";
/// After a refusal it is found out so much later whether a person has mended it.
const LOOK_AGAIN: Duration = Duration::from_secs(5 * 60);

names! {
    /// Who talks to Apple.
    TokenKind {
        /// We do, with a token of Apple's.
        Apple = "apple",
        /// A NanoDEP, which has the token.
        NanoDep = "nanodep",
    }
}

names! {
    /// What is wrong with a token; a person has to mend it.
    Problem {
        /// Apple, or the NanoDEP, did not accept it.
        Refused = "refused",
        /// Apple's new terms were not accepted by the organisation.
        TermsNotSigned = "terms_not_signed",
        /// It may not do this.
        AccessDenied = "access_denied",
    }
}

/// A token to be kept, or to take the place of the one of its name.
pub struct NewServerToken {
    /// Our name for it.
    pub name: String,
    /// Who talks to Apple, and the secret for that.
    pub access: Access,
}

/// Who talks to Apple, and with what.
pub enum Access {
    /// We do.
    Apple {
        /// The token, as JSON.
        json: Zeroizing<String>,
        /// When it ends.
        expires_at: Timestamp,
        /// The key that opened its file, by identifier, if it was one of ours.
        key: Option<String>,
    },
    /// A NanoDEP does.
    NanoDep {
        /// Its address; https or loopback.
        base_url: String,
        /// Its name for the token.
        dep_name: String,
        /// Its API key.
        api_key: Zeroizing<String>,
    },
}

/// A token as listed: not its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTokenView {
    /// Its identifier, which stays when it is renewed.
    pub id: String,
    /// Its organisation.
    pub organisation: OrganisationId,
    /// Our name for it.
    pub name: String,
    /// Who talks to Apple.
    pub kind: TokenKind,
    /// The NanoDEP's address.
    pub base_url: Option<String>,
    /// The NanoDEP's name for the token.
    pub dep_name: Option<String>,
    /// Rises when it is renewed.
    pub version: i64,
    /// When it ends; not known of one that a NanoDEP has.
    pub expires_at: Option<Timestamp>,
    /// Apple's name for the server.
    pub server_name: Option<String>,
    /// Apple's identifier of the server.
    pub server_uuid: Option<String>,
    /// The organisation's name at Apple.
    pub org_name: Option<String>,
    /// What is wrong with it, and since when.
    pub problem: Option<(Problem, Timestamp)>,
    /// When its device list was last read to its end.
    pub listed_at: Option<Timestamp>,
    /// When the list was last read whole.
    pub whole_at: Option<Timestamp>,
    /// Until when the list is left alone, after a failure or because Apple asked for it.
    pub list_retry_at: Option<Timestamp>,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it was last renewed.
    pub updated_at: Timestamp,
}

/// A token with its secret.
pub struct OpenServerToken {
    /// Everything that is not secret.
    pub view: ServerTokenView,
    /// The token as JSON, or the NanoDEP's API key.
    pub secret: Zeroizing<String>,
}

/// A key whose certificate is uploaded at Apple, which then encrypts a token for it.
pub struct OpenKey {
    /// Its identifier.
    pub id: String,
    /// The certificate, PEM.
    pub certificate: String,
    /// The private key, PEM.
    pub private_key: Zeroizing<String>,
}

/// A key as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyView {
    /// Its identifier.
    pub id: String,
    /// The certificate to upload, PEM.
    pub certificate: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last opened a token.
    pub used_at: Option<Timestamp>,
}

macro_rules! select_tokens {
    ($rest:literal) => {
        concat!(
            "SELECT organisation, id, name, kind, base_url, dep_name, cell, version, expires_at, server_uuid, server_name, ",
            "org_name, problem, problem_at, mended_at, listed_at, whole_at, retry_at, created_at, updated_at FROM server_tokens ",
            $rest
        )
    };
}

impl ServerTokenView {
    fn from_row(row: &Row) -> Result<Self> {
        let problem: Option<String> = row.get("problem")?;
        let problem: Option<Problem> = problem
            .map(|p| Problem::from_name(&p).ok_or(Error::Corrupt("server_tokens.problem")))
            .transpose()?;
        Ok(Self {
            id: row.get("id")?,
            organisation: OrganisationId::new(row.get::<String>("organisation")?),
            name: row.get("name")?,
            kind: TokenKind::from_name(&row.get::<String>("kind")?)
                .ok_or(Error::Corrupt("server_tokens.kind"))?,
            base_url: row.get("base_url")?,
            dep_name: row.get("dep_name")?,
            version: row.get("version")?,
            expires_at: row.get("expires_at")?,
            server_name: row.get("server_name")?,
            server_uuid: row.get("server_uuid")?,
            org_name: row.get("org_name")?,
            problem: problem.zip(row.get("problem_at")?),
            listed_at: row.get("listed_at")?,
            whole_at: row.get("whole_at")?,
            list_retry_at: row.get("retry_at")?,
            created_at: row.get("created_at")?,
            updated_at: row.get("updated_at")?,
        })
    }

    /// Whether it has ended at a moment.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// A token that a lock can be sent with.
pub(crate) struct Usable {
    pub(crate) id: String,
    pub(crate) version: i64,
    base_url: Option<String>,
    mended_at: Option<Timestamp>,
}

impl Usable {
    /// As the state machine takes it; another one after every renewal.
    pub(crate) fn credential(&self) -> lock::Credential {
        lock::Credential {
            id: format!("{}@{}", self.id, self.version),
            mended_at: self.mended_at,
        }
    }

    /// Whom a call with it is sent to, for the audit trail (R17).
    pub(crate) fn recipient(&self, apple: &str) -> String {
        self.base_url.clone().unwrap_or_else(|| apple.to_owned())
    }
}

/// The token for a lock: the one that was named, or what came in its place under its name; where none was named, or that one
/// was removed, one whose server lists the device, else the first. A valid one.
pub(crate) async fn for_lock(tx: &mut Tx<'_>, op: &Operation) -> Result<Option<Usable>> {
    let now = tx.now();
    let row = tx
        .fetch_optional(
            "SELECT id, version, base_url, mended_at FROM server_tokens WHERE organisation = $1 AND removed_at IS NULL \
             AND (expires_at IS NULL OR expires_at > $2) AND ($3 IS NULL OR id = $3 OR EXISTS (SELECT 1 FROM server_tokens AS named \
             WHERE named.organisation = $1 AND named.id = $3 AND named.removed_at IS NOT NULL)) \
             ORDER BY CASE WHEN name = (SELECT name FROM server_tokens AS named WHERE named.organisation = $1 AND named.id = $3) \
             THEN 0 ELSE 1 END, EXISTS (SELECT 1 FROM listed_devices WHERE listed_devices.organisation = $1 AND serial = $4 \
             AND server_token = server_tokens.id AND gone_at IS NULL) DESC, problem IS NOT NULL, id LIMIT 1",
            params![
                op.organisation.as_str(),
                now,
                op.server_token.as_deref(),
                op.serial.as_str()
            ],
        )
        .await?;
    row.map(|row| {
        Ok(Usable {
            id: row.get("id")?,
            version: row.get("version")?,
            base_url: row.get("base_url")?,
            mended_at: row.get("mended_at")?,
        })
    })
    .transpose()
}

/// The identifier of a live token by its identifier or name.
pub(crate) async fn find(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    wanted: &str,
) -> Result<Option<String>> {
    Ok(by_name(tx, organisation, wanted)
        .await?
        .map(|token| token.id))
}

/// A live token by its identifier or name.
async fn by_name(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    wanted: &str,
) -> Result<Option<ServerTokenView>> {
    tx.fetch_optional(
        select_tokens!("WHERE organisation = $1 AND (id = $2 OR name = $2) AND removed_at IS NULL"),
        params![organisation.as_str(), wanted],
    )
    .await?
    .map(|row| ServerTokenView::from_row(&row))
    .transpose()
}

/// The live tokens whose servers list a device.
pub(crate) async fn listing_of(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Vec<String>> {
    tx.fetch_all(
        "SELECT id FROM listed_devices JOIN server_tokens ON server_tokens.organisation = listed_devices.organisation \
         AND id = server_token WHERE listed_devices.organisation = $1 AND serial = $2 AND gone_at IS NULL \
         AND removed_at IS NULL",
        params![organisation.as_str(), serial.as_str()],
    )
    .await?
    .iter()
    .map(|row| row.get("id"))
    .collect()
}

/// What a call showed of a token, by the credential of the call: a problem, or that there is none. Locks that wait for it to be
/// mended go on.
pub(crate) async fn note(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    credential: &str,
    problem: Option<Problem>,
) -> Result<()> {
    let Some((id, version)) = credential.split_once('@') else {
        return Ok(());
    };
    let version: i64 = version.parse().unwrap_or(0);
    let now = tx.now();
    match problem {
        Some(problem) => {
            // The list is read then, which shows whether it was mended meanwhile.
            tx.execute(
                "UPDATE server_tokens SET problem = $4, problem_at = CASE WHEN problem = $4 THEN problem_at ELSE $5 END, \
                 retry_at = COALESCE(retry_at, $6) WHERE organisation = $1 AND id = $2 AND version = $3",
                params![
                    organisation.as_str(),
                    id,
                    version,
                    problem.as_str(),
                    now,
                    now.plus(LOOK_AGAIN)
                ],
            )
            .await?;
        }
        None => {
            let mended = tx
                .execute(
                    "UPDATE server_tokens SET problem = NULL, problem_at = NULL, mended_at = $4 \
                     WHERE organisation = $1 AND id = $2 AND version = $3 AND problem IS NOT NULL",
                    params![organisation.as_str(), id, version, now],
                )
                .await?;
            if mended > 0 {
                operations::wake_for_credential(tx, organisation).await?;
            }
        }
    }
    Ok(())
}

/// The list of the token's server is read again soon: it is not as we think.
pub(crate) async fn list_soon(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    credential: &str,
) -> Result<()> {
    let id = credential.split('@').next().unwrap_or_default();
    let now = tx.now();
    tx.execute(
        "UPDATE server_tokens SET retry_at = $3 WHERE organisation = $1 AND id = $2",
        params![organisation.as_str(), id, now],
    )
    .await?;
    Ok(())
}

/// The verbs on server tokens. See [`Escrow::server_tokens`].
pub struct ServerTokens<'a>(pub(crate) &'a Escrow);

impl ServerTokens<'_> {
    /// Keeps a key whose certificate is to be uploaded at Apple. Both are PEM.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn add_key(
        &self,
        permit: &Permit<Connections>,
        certificate: String,
        private_key: Zeroizing<String>,
    ) -> Result<KeyView> {
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let result = self
            .0
            .db
            .write("server_tokens.add_key", async move |tx| {
                confirmed.confirm(tx).await?;
                let (organisation, now, id) = (confirmed.organisation(), tx.now(), tx.new_id().to_string());
                let cell = escrow.seal_cell(KEY, organisation.as_str(), &id, private_key.as_bytes());
                tx.execute(
                    "INSERT INTO server_token_keys (organisation, id, certificate, cell, created_at) VALUES ($1, $2, $3, $4, $5)",
                    params![organisation.as_str(), id.as_str(), certificate.as_str(), cell, now],
                )
                .await?;
                audit::record(tx, &escrow, confirmed.entry("server_token_key.add").subject(&id)).await?;
                Ok(KeyView { id, certificate: certificate.clone(), created_at: now, used_at: None })
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// The keys of an organisation, newest first, to open a token's file with.
    ///
    /// # Errors
    /// When one does not open, or the database fails.
    pub async fn open_keys(&self, permit: &Permit<Connections>) -> Result<Vec<OpenKey>> {
        let (escrow, organisation) = (self.0.clone(), permit.organisation().clone());
        self.0
            .db
            .read(async move |tx| {
                let rows = tx
                    .fetch_all(
                        "SELECT id, certificate, cell FROM server_token_keys WHERE organisation = $1 ORDER BY id DESC",
                        params![organisation.as_str()],
                    )
                    .await?;
                rows.iter()
                    .map(|row| {
                        let id: String = row.get("id")?;
                        let cell: Vec<u8> = row.get("cell")?;
                        let bytes = escrow.open_cell(KEY, organisation.as_str(), &id, &cell)?;
                        Ok(OpenKey {
                            certificate: row.get("certificate")?,
                            private_key: text(&bytes, "server_token_keys.cell")?,
                            id,
                        })
                    })
                    .collect()
            })
            .await
    }

    /// The keys of an organisation, newest first, without their private halves.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keys(&self, permit: &Permit<Read>) -> Result<Vec<KeyView>> {
        let organisation = permit.organisation().clone();
        self.0
            .db
            .read(async move |tx| {
                tx.fetch_all(
                    "SELECT id, certificate, created_at, used_at FROM server_token_keys WHERE organisation = $1 \
                     ORDER BY id DESC",
                    params![organisation.as_str()],
                )
                .await?
                .iter()
                .map(|row| {
                    Ok(KeyView {
                        id: row.get("id")?,
                        certificate: row.get("certificate")?,
                        created_at: row.get("created_at")?,
                        used_at: row.get("used_at")?,
                    })
                })
                .collect()
            })
            .await
    }

    /// Keeps a token; one of the same name is renewed by it. Locks that wait for one go on at once, and its device list is read.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn put(
        &self,
        permit: &Permit<Connections>,
        new: NewServerToken,
    ) -> Result<ServerTokenView> {
        let (escrow, confirmed, new) = (self.0.clone(), permit.clone(), std::sync::Arc::new(new));
        let result = self
            .0
            .db
            .write("server_tokens.put", async move |tx| {
                confirmed.confirm(tx).await?;
                put(tx, &escrow, &confirmed, &new).await
            })
            .await;
        let kept = self.0.audit_refusal(permit, result).await;
        self.0.operations().wake();
        self.0.tell(News::Listings);
        kept
    }

    /// The tokens of an organisation, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, permit: &Permit<Read>) -> Result<Vec<ServerTokenView>> {
        let organisation = permit.organisation().clone();
        self.0
            .db
            .read(async move |tx| {
                tx.fetch_all(
                    select_tokens!("WHERE organisation = $1 AND removed_at IS NULL ORDER BY name"),
                    params![organisation.as_str()],
                )
                .await?
                .iter()
                .map(ServerTokenView::from_row)
                .collect()
            })
            .await
    }

    /// The tokens of all organisations, for the watch on them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn all(&self) -> Result<Vec<ServerTokenView>> {
        self.0
            .db
            .read(async move |tx| {
                tx.fetch_all(
                    select_tokens!("WHERE removed_at IS NULL ORDER BY organisation, name"),
                    params![],
                )
                .await?
                .iter()
                .map(ServerTokenView::from_row)
                .collect()
            })
            .await
    }

    /// Removes a token, by identifier or name: it is not used any more. False when there is none.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn remove(&self, permit: &Permit<Connections>, wanted: &str) -> Result<bool> {
        let (escrow, confirmed, wanted) = (self.0.clone(), permit.clone(), wanted.to_owned());
        let result = self
            .0
            .db
            .write("server_tokens.remove", async move |tx| {
                confirmed.confirm(tx).await?;
                let organisation = confirmed.organisation();
                let Some(id) = find(tx, organisation, &wanted).await? else {
                    return Ok(false);
                };
                let now = tx.now();
                tx.execute(
                    "UPDATE server_tokens SET removed_at = $3, updated_at = $3 WHERE organisation = $1 AND id = $2",
                    params![organisation.as_str(), id.as_str(), now],
                )
                .await?;
                audit::record(tx, &escrow, confirmed.entry("server_token.remove").subject(&id)).await?;
                Ok(true)
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// A token by its identifier or name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(
        &self,
        organisation: &OrganisationId,
        wanted: &str,
    ) -> Result<Option<ServerTokenView>> {
        let (organisation, wanted) = (organisation.clone(), wanted.to_owned());
        self.0
            .db
            .read(async move |tx| by_name(tx, &organisation, &wanted).await)
            .await
    }

    /// Has the device list of a token's server read at once; `None` when there is no such token.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn list_now(
        &self,
        permit: &Permit<Refresh>,
        wanted: &str,
    ) -> Result<Option<ServerTokenView>> {
        let (escrow, confirmed, wanted) = (self.0.clone(), permit.clone(), wanted.to_owned());
        let result = self
            .0
            .db
            .write("server_tokens.list_now", async move |tx| {
                confirmed.confirm(tx).await?;
                let organisation = confirmed.organisation();
                let Some(token) = by_name(tx, organisation, &wanted).await? else {
                    return Ok(None);
                };
                list_soon(tx, organisation, &token.id).await?;
                audit::record(
                    tx,
                    &escrow,
                    confirmed.entry("server_token.list").subject(&token.id),
                )
                .await?;
                Ok(Some(token))
            })
            .await;
        let found = self.0.audit_refusal(permit, result).await;
        self.0.tell(News::Listings);
        found
    }

    /// Opens a token, for a worker; `None` when it was removed.
    ///
    /// # Errors
    /// When it does not open, or the database fails.
    pub async fn open(
        &self,
        organisation: &OrganisationId,
        id: &str,
    ) -> Result<Option<OpenServerToken>> {
        let (escrow, organisation, id) = (self.0.clone(), organisation.clone(), id.to_owned());
        self.0
            .db
            .read(async move |tx| {
                let row = tx
                    .fetch_optional(
                        select_tokens!(
                            "WHERE organisation = $1 AND id = $2 AND removed_at IS NULL"
                        ),
                        params![organisation.as_str(), id.as_str()],
                    )
                    .await?;
                let Some(row) = row else { return Ok(None) };
                let cell: Vec<u8> = row.get("cell")?;
                let bytes = escrow.open_cell(TOKEN, organisation.as_str(), &id, &cell)?;
                Ok(Some(OpenServerToken {
                    view: ServerTokenView::from_row(&row)?,
                    secret: text(&bytes, "server_tokens.cell")?,
                }))
            })
            .await
    }

    /// What a call with a token showed of it, for a worker: a problem, or that there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note(&self, token: &ServerTokenView, problem: Option<Problem>) -> Result<()> {
        let organisation = token.organisation.clone();
        let credential = format!("{}@{}", token.id, token.version);
        self.0
            .db
            .write("server_tokens.note", async move |tx| {
                note(tx, &organisation, &credential, problem).await
            })
            .await?;
        self.0.operations().wake();
        Ok(())
    }

    /// What Apple calls the server and the organisation of a token, for a worker. A token of another server than before has
    /// another list, which is then read whole.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn learn(
        &self,
        token: &ServerTokenView,
        server_uuid: Option<&str>,
        server_name: Option<&str>,
        org_name: Option<&str>,
    ) -> Result<()> {
        let (organisation, id) = (token.organisation.clone(), token.id.clone());
        let (uuid, server, org) = (
            server_uuid.map(str::to_owned),
            server_name.map(str::to_owned),
            org_name.map(str::to_owned),
        );
        self.0
            .db
            .write("server_tokens.learn", async move |tx| {
                tx.execute(
                    "UPDATE server_tokens SET \
                     cursor = CASE WHEN server_uuid IS NOT NULL AND server_uuid <> $3 THEN NULL ELSE cursor END, \
                     listing = CASE WHEN server_uuid IS NOT NULL AND server_uuid <> $3 THEN 'new' ELSE listing END, \
                     server_uuid = COALESCE($3, server_uuid), server_name = COALESCE($4, server_name), \
                     org_name = COALESCE($5, org_name) WHERE organisation = $1 AND id = $2",
                    params![
                        organisation.as_str(),
                        id.as_str(),
                        uuid.as_deref(),
                        server.as_deref(),
                        org.as_deref()
                    ],
                )
                .await?;
                Ok(())
            })
            .await
    }
}

async fn put(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    permit: &Permit<Connections>,
    new: &NewServerToken,
) -> Result<ServerTokenView> {
    let (organisation, now) = (permit.organisation(), tx.now());
    let had = tx
        .fetch_optional(
            select_tokens!("WHERE organisation = $1 AND name = $2 AND removed_at IS NULL"),
            params![organisation.as_str(), new.name.as_str()],
        )
        .await?;
    let had = had.map(|row| ServerTokenView::from_row(&row)).transpose()?;
    let id = had
        .as_ref()
        .map_or_else(|| tx.new_id().to_string(), |had| had.id.clone());
    let (kind, base_url, dep_name, expires_at, secret) = match &new.access {
        Access::Apple {
            json, expires_at, ..
        } => (TokenKind::Apple, None, None, Some(*expires_at), json),
        Access::NanoDep {
            base_url,
            dep_name,
            api_key,
        } => (
            TokenKind::NanoDep,
            Some(base_url.as_str()),
            Some(dep_name.as_str()),
            None,
            api_key,
        ),
    };
    let cell = escrow.seal_cell(TOKEN, organisation.as_str(), &id, secret.as_bytes());
    tx.execute(
        "INSERT INTO server_tokens (organisation, id, name, kind, base_url, dep_name, cell, version, expires_at, mended_at, \
         listing, listing_run, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, $9, 'new', 0, $9, $9) \
         ON CONFLICT (organisation, id) DO UPDATE SET kind = excluded.kind, base_url = excluded.base_url, \
         dep_name = excluded.dep_name, cell = excluded.cell, version = server_tokens.version + 1, \
         expires_at = excluded.expires_at, problem = NULL, problem_at = NULL, mended_at = excluded.mended_at, \
         listing = 'new', cursor = NULL, retry_at = NULL, updated_at = excluded.updated_at",
        params![
            organisation.as_str(),
            id.as_str(),
            new.name.as_str(),
            kind.as_str(),
            base_url,
            dep_name,
            cell,
            expires_at,
            now
        ],
    )
    .await?;
    let mut entry = permit
        .entry("server_token.put")
        .subject(&new.name)
        .detail("server_token", id.as_str())
        .detail("kind", kind.as_str())
        .detail("renews", had.is_some());
    if let Access::Apple { key: Some(key), .. } = &new.access {
        tx.execute(
            "UPDATE server_token_keys SET used_at = $3 WHERE organisation = $1 AND id = $2",
            params![organisation.as_str(), key.as_str(), now],
        )
        .await?;
        entry = entry.detail("key", key.as_str());
    }
    audit::record(tx, escrow, entry).await?;
    operations::wake_for_credential(tx, organisation).await?;
    let row = tx
        .fetch_one(
            select_tokens!("WHERE organisation = $1 AND id = $2"),
            params![organisation.as_str(), id.as_str()],
        )
        .await?;
    ServerTokenView::from_row(&row)
}

/// The text of an opened cell.
fn text(bytes: &[u8], column: &'static str) -> Result<Zeroizing<String>> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::Corrupt(column))?;
    Ok(Zeroizing::new(text.to_owned()))
}
