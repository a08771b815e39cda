//! Notices: what people should be told. Put on record in the transaction of what they tell of, with a delivery for each channel that
//! wants them; sent by the worker until they were taken, or for three days.
//!
//! A notice holds no code and no secret: it says who wants or did what, to which device, and where to look.

use activation_lock::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use zeroize::Zeroizing;

use crate::db::{Row, Tx, params};
use crate::names::names;
use crate::news::News;
use crate::permit::{Admin, OrganisationId, Permission, Permit, Refusal};
use crate::{Error, Escrow, Result, audit};

mod delivery;

pub use self::delivery::{Delivery, Taken};

/// The kind of cell that holds what a channel signs or signs in with.
pub(crate) const CHANNEL_SECRET: &str = "notice channel secret";
/// The same for the one before, which still counts.
pub(crate) const PREVIOUS_CHANNEL_SECRET: &str = "previous notice channel secret";
/// The kind of cell that holds a webhook's whole address: with many services its path is what lets one in.
pub(crate) const CHANNEL_TARGET: &str = "notice channel address";
/// What stands for all organisations.
const EVERYWHERE: &str = "*";
/// Bytes of a webhook's secret that is made here.
const SECRET_BYTES: usize = 32;
/// What such a secret begins with (Standard Webhooks).
pub const WEBHOOK_SECRET_PREFIX: &str = "whsec_";

names! {
    /// What a notice tells of.
    NoticeKind {
        /// Somebody asks others for an approval.
        ApprovalRequested = "approval_requested",
        /// A request was approved or refused.
        ApprovalDecided = "approval_decided",
        /// Something was done in an emergency, without the approval that it needed.
        BreakGlass = "break_glass",
        /// Another person acknowledged an emergency.
        BreakGlassAcknowledged = "break_glass_acknowledged",
        /// A policy was made looser.
        PolicyLoosened = "policy_loosened",
        /// A role that opens codes was given.
        RoleGranted = "role_granted",
        /// Codes are taken away, many at once.
        CodesExported = "codes_exported",
        /// A person tries a channel out.
        Test = "test",
    }
}

names! {
    /// How a channel reaches people.
    ChannelKind {
        /// A signed POST (Standard Webhooks).
        Webhook = "webhook",
        /// A mail.
        Mail = "mail",
    }
}

/// How a mail server is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailServer {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `tls`: from the first byte; `starttls`: before anything that counts; `none`: on this machine alone.
    pub security: String,
    /// Whom to sign in as, if it wants that.
    pub username: Option<String>,
    /// From whom the mail is.
    pub from: String,
}

/// A channel to be made.
pub struct NewChannel {
    /// What it is called.
    pub name: String,
    /// How it reaches people, and where.
    pub address: NewAddress,
    /// It is told of every organisation.
    pub everywhere: bool,
}

/// Where a new channel goes.
pub enum NewAddress {
    /// An address that is posted to. Its secret is made here.
    Webhook {
        /// The whole of it, which is kept sealed.
        url: String,
        /// As much of it as may be shown: the host.
        shown: String,
    },
    /// Mail addresses, separated by spaces; `approvers` are those who may approve where it happened.
    Mail {
        /// To whom.
        to: String,
        /// By which server.
        server: MailServer,
        /// What to sign in there with.
        password: Option<Zeroizing<String>>,
    },
}

/// A channel as listed: nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelView {
    /// Its identifier.
    pub id: String,
    /// Where it is told of; `None` is everywhere.
    pub organisation: Option<OrganisationId>,
    /// How it reaches people.
    pub kind: ChannelKind,
    /// What it is called.
    pub name: String,
    /// The webhook's host, or the mail addresses.
    pub address: String,
    /// The mail server.
    pub server: Option<MailServer>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When something was last taken.
    pub sent_at: Option<Timestamp>,
    /// Since when nothing is, and why.
    pub failing: Option<(Timestamp, String)>,
}

impl ChannelView {
    fn from_row(row: &Row) -> Result<Self> {
        let kind: String = row.get("kind")?;
        let organisation: String = row.get("organisation")?;
        let mail: Option<String> = row.get("mail")?;
        let since: Option<Timestamp> = row.get("failing_since")?;
        let failure: Option<String> = row.get("failure")?;
        Ok(Self {
            id: row.get("id")?,
            organisation: (organisation != EVERYWHERE).then(|| OrganisationId::new(organisation)),
            kind: ChannelKind::from_name(&kind).ok_or(Error::Corrupt("notice_channels.kind"))?,
            name: row.get("name")?,
            address: row.get("address")?,
            server: mail
                .map(|text| serde_json::from_str(&text))
                .transpose()
                .map_err(|_| Error::Corrupt("notice_channels.mail"))?,
            created_at: row.get("created_at")?,
            sent_at: row.get("sent_at")?,
            failing: since.map(|since| (since, failure.unwrap_or_default())),
        })
    }
}

/// Puts a notice on record, in the transaction of what it tells of.
pub(crate) async fn post(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    organisation: &OrganisationId,
    kind: NoticeKind,
    told: Map<String, Json>,
) -> Result<()> {
    let (id, now) = (tx.new_id().to_string(), tx.now());
    let channels = tx
        .fetch_all(
            "SELECT id, kind, address FROM notice_channels WHERE (organisation = $1 OR organisation = '*') AND removed_at IS NULL",
            params![organisation.as_str()],
        )
        .await?;
    insert(tx, organisation.as_str(), &id, kind, told, &channels, now).await?;
    escrow.tell(News::Notices);
    Ok(())
}

async fn insert(
    tx: &mut Tx<'_>,
    organisation: &str,
    id: &str,
    kind: NoticeKind,
    told: Map<String, Json>,
    channels: &[Row],
    now: Timestamp,
) -> Result<()> {
    let name = tx
        .fetch_optional(
            "SELECT name FROM organisations WHERE id = $1",
            params![organisation],
        )
        .await?
        .map(|row| row.get::<String>("name"))
        .transpose()?;
    let mut text = told;
    text.insert("organisation".to_owned(), json!(name));
    tx.execute(
        "INSERT INTO notices (organisation, id, kind, text, created_at) VALUES ($1, $2, $3, $4, $5)",
        params![organisation, id, kind.as_str(), Json::Object(text).to_string(), now],
    )
    .await?;
    for row in channels {
        let (channel, address): (String, String) = (row.get("id")?, row.get("address")?);
        let is_mail = row.get::<String>("kind")? == ChannelKind::Mail.as_str();
        let recipients = match is_mail {
            true => recipients(tx, organisation, &address).await?,
            false => vec![String::new()],
        };
        // Each by itself: one that is refused keeps it from nobody else.
        for recipient in recipients {
            tx.execute(
                "INSERT INTO notice_deliveries (organisation, notice, channel, recipient, state, attempts, due_at) \
                 VALUES ($1, $2, $3, $4, 'queued', 0, $5)",
                params![organisation, id, channel.as_str(), recipient, now],
            )
            .await?;
        }
    }
    Ok(())
}

/// To whom a mail goes that is to be told of what happened there; an empty one when that is nobody, so that it is seen.
async fn recipients(tx: &mut Tx<'_>, organisation: &str, address: &str) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for word in address.split_whitespace() {
        if word == "approvers" {
            all.extend(approvers(tx, organisation).await?);
        } else {
            all.push(word.to_owned());
        }
    }
    all.sort();
    all.dedup();
    if all.is_empty() {
        all.push(String::new());
    }
    Ok(all)
}

/// The verbs on notices and their channels. See [`Escrow::notices`].
pub struct Notices<'a>(&'a Escrow);

impl Escrow {
    /// What people should be told, and where it goes.
    #[must_use]
    pub fn notices(&self) -> Notices<'_> {
        Notices(self)
    }
}

macro_rules! select_channels {
    ($rest:literal) => {
        concat!(
            "SELECT organisation, id, kind, name, address, target, mail, secret, previous, created_at, sent_at, failing_since, failure ",
            "FROM notice_channels ",
            $rest
        )
    };
}

impl Notices<'_> {
    /// Makes a channel. Gives a webhook's secret, which is shown once.
    ///
    /// # Errors
    /// [`Error::Refused`] when the actor does not manage where it is told of; or when the database fails.
    pub async fn add(
        &self,
        permit: &Permit<Admin>,
        new: NewChannel,
    ) -> Result<(ChannelView, Option<Zeroizing<String>>)> {
        let (kind, address, target, mail, secret) = match new.address {
            NewAddress::Webhook { url, shown } => {
                let secret = Some(self.webhook_secret());
                (
                    ChannelKind::Webhook,
                    shown,
                    Some(Zeroizing::new(url)),
                    None,
                    secret,
                )
            }
            NewAddress::Mail {
                to,
                server,
                password,
            } => {
                let server =
                    serde_json::to_string(&server).map_err(|_| Error::Corrupt("mail server"))?;
                (ChannelKind::Mail, to, None, Some(server), password)
            }
        };
        let shown = secret.clone().filter(|_| kind == ChannelKind::Webhook);
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let result = self
            .0
            .db
            .write("notices.add_channel", async move |tx| {
                confirmed.confirm(tx).await?;
                let organisation = place(&confirmed, new.everywhere)?;
                let (id, now) = (tx.new_id().to_string(), tx.now());
                let sealed = |kind, text: &Option<Zeroizing<String>>| {
                    let text = text.as_ref();
                    text.map(|text| escrow.seal_cell(kind, &organisation, &id, text.as_bytes()))
                };
                let (cell, target) = (sealed(CHANNEL_SECRET, &secret), sealed(CHANNEL_TARGET, &target));
                tx.execute(
                    "INSERT INTO notice_channels (organisation, id, kind, name, address, target, mail, secret, created_at, created_by) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                    params![
                        organisation.as_str(),
                        id.as_str(),
                        kind.as_str(),
                        new.name.as_str(),
                        address.as_str(),
                        target,
                        mail.as_deref(),
                        cell,
                        now,
                        confirmed.actor().name()
                    ],
                )
                .await?;
                let entry = confirmed
                    .entry("notice_channel.add")
                    .subject(&id)
                    .detail("kind", kind.as_str())
                    .detail("address", address.as_str());
                audit::record(tx, &escrow, entry).await?;
                one(tx, &organisation, &id).await?.ok_or(Error::Corrupt("notice_channels"))
            })
            .await;
        let row = self.0.audit_refusal(permit, result).await?;
        Ok((row, shown))
    }

    fn webhook_secret(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        self.0.random().fill(bytes.as_mut_slice());
        let text = Zeroizing::new(data_encoding::BASE64.encode(bytes.as_slice()));
        Zeroizing::new(format!("{WEBHOOK_SECRET_PREFIX}{}", text.as_str()))
    }

    /// The channels of the permit's organisation and those of all, by name.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn list(&self, permit: &Permit<Admin>) -> Result<Vec<ChannelView>> {
        let confirmed = permit.clone();
        let result = self
            .0
            .db
            .read(async move |tx| {
                confirmed.confirm(tx).await?;
                tx.fetch_all(
                    select_channels!(
                        "WHERE (organisation = $1 OR organisation = '*') AND removed_at IS NULL ORDER BY name, id"
                    ),
                    params![confirmed.organisation().as_str()],
                )
                .await?
                .iter()
                .map(ChannelView::from_row)
                .collect()
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Removes a channel: nothing more is sent there. False when there is none of that identifier.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub async fn remove(&self, permit: &Permit<Admin>, id: &str) -> Result<bool> {
        let (escrow, confirmed, id) = (self.0.clone(), permit.clone(), id.to_owned());
        let result = self
            .0
            .db
            .write("notices.remove_channel", async move |tx| {
                confirmed.confirm(tx).await?;
                let Some(organisation) = owned(tx, &confirmed, &id).await? else {
                    return Ok(false);
                };
                let now = tx.now();
                tx.execute(
                    "UPDATE notice_channels SET removed_at = $3, target = NULL, secret = NULL, previous = NULL WHERE organisation = $1 AND id = $2",
                    params![organisation, id.as_str(), now],
                )
                .await?;
                tx.execute(
                    "UPDATE notice_deliveries SET state = 'given_up', failure = 'the channel was removed', ended_at = $2 \
                     WHERE channel = $1 AND state = 'queued'",
                    params![id.as_str(), now],
                )
                .await?;
                audit::record(tx, &escrow, confirmed.entry("notice_channel.remove").subject(&id)).await?;
                Ok(true)
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Gives a webhook another secret. The one before still signs beside it, until the next time.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub async fn rotate_secret(
        &self,
        permit: &Permit<Admin>,
        id: &str,
    ) -> Result<Option<Zeroizing<String>>> {
        let secret = self.webhook_secret();
        let (escrow, confirmed, id, new) = (
            self.0.clone(),
            permit.clone(),
            id.to_owned(),
            secret.clone(),
        );
        let result = self
            .0
            .db
            .write("notices.rotate_secret", async move |tx| {
                confirmed.confirm(tx).await?;
                let Some(organisation) = owned(tx, &confirmed, &id).await? else {
                    return Ok(false);
                };
                let row = tx
                    .fetch_optional(
                        select_channels!("WHERE organisation = $1 AND id = $2 AND kind = 'webhook'"),
                        params![organisation.as_str(), id.as_str()],
                    )
                    .await?;
                let Some(row) = row else { return Ok(false) };
                let former: Option<Vec<u8>> = row.get("secret")?;
                let former = match former {
                    Some(cell) => {
                        let plain = escrow.open_cell(CHANNEL_SECRET, &organisation, &id, &cell)?;
                        Some(escrow.seal_cell(PREVIOUS_CHANNEL_SECRET, &organisation, &id, &plain))
                    }
                    None => None,
                };
                let cell = escrow.seal_cell(CHANNEL_SECRET, &organisation, &id, new.as_bytes());
                tx.execute(
                    "UPDATE notice_channels SET secret = $3, previous = $4 WHERE organisation = $1 AND id = $2",
                    params![organisation, id.as_str(), cell, former],
                )
                .await?;
                audit::record(tx, &escrow, confirmed.entry("notice_channel.rotate_secret").subject(&id)).await?;
                Ok(true)
            })
            .await;
        let rotated = self.0.audit_refusal(permit, result).await?;
        Ok(rotated.then_some(secret))
    }

    /// Sends a notice through one channel, to see that it gets there. False when there is none of that identifier.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub async fn test(&self, permit: &Permit<Admin>, id: &str) -> Result<bool> {
        let (escrow, confirmed, id) = (self.0.clone(), permit.clone(), id.to_owned());
        let result = self
            .0
            .db
            .write("notices.test", async move |tx| {
                confirmed.confirm(tx).await?;
                if owned(tx, &confirmed, &id).await?.is_none() {
                    return Ok(false);
                }
                let (notice, now) = (tx.new_id().to_string(), tx.now());
                let mut told = Map::new();
                told.insert("by".to_owned(), json!(confirmed.actor().name()));
                let organisation = confirmed.organisation().as_str();
                let channel = tx
                    .fetch_all(
                        "SELECT id, kind, address FROM notice_channels WHERE id = $1",
                        params![id.as_str()],
                    )
                    .await?;
                insert(
                    tx,
                    organisation,
                    &notice,
                    NoticeKind::Test,
                    told,
                    &channel,
                    now,
                )
                .await?;
                escrow.tell(News::Notices);
                audit::record(
                    tx,
                    &escrow,
                    confirmed.entry("notice_channel.test").subject(&id),
                )
                .await?;
                Ok(true)
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }
}

/// The mail addresses of those who may approve in an organisation.
async fn approvers(tx: &mut Tx<'_>, organisation: &str) -> Result<Vec<String>> {
    tx.fetch_all(
        "SELECT DISTINCT email FROM people JOIN grants ON grants.principal = people.principal \
         WHERE grants.organisation IN ($1, '*') AND role = 'approver' AND disabled_at IS NULL AND email IS NOT NULL",
        params![organisation],
    )
    .await?
    .iter()
    .map(|row| row.get("email"))
    .collect()
}

/// Where a new channel is told of.
fn place(permit: &Permit<Admin>, everywhere: bool) -> Result<String> {
    let actor = permit.actor();
    if !everywhere {
        return Ok(permit.organisation().as_str().to_owned());
    }
    if actor.grants().everywhere().allow(Permission::Admin) {
        return Ok(EVERYWHERE.to_owned());
    }
    Err(Error::Refused(Refusal::Organisation {
        actor: actor.name().to_owned(),
        organisation: OrganisationId::new(EVERYWHERE),
    }))
}

/// Where a channel is told of that the actor manages.
async fn owned(tx: &mut Tx<'_>, permit: &Permit<Admin>, id: &str) -> Result<Option<String>> {
    let everywhere = permit
        .actor()
        .grants()
        .everywhere()
        .allow(Permission::Admin);
    let row = tx
        .fetch_optional(
            "SELECT organisation FROM notice_channels WHERE id = $1 AND removed_at IS NULL \
             AND (organisation = $2 OR (organisation = '*' AND $3 = 1))",
            params![id, permit.organisation().as_str(), i64::from(everywhere)],
        )
        .await?;
    row.map(|row| row.get("organisation")).transpose()
}

async fn one(tx: &mut Tx<'_>, organisation: &str, id: &str) -> Result<Option<ChannelView>> {
    tx.fetch_optional(
        select_channels!("WHERE organisation = $1 AND id = $2"),
        params![organisation, id],
    )
    .await?
    .map(|row| ChannelView::from_row(&row))
    .transpose()
}
