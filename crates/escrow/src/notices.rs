//! Notices: what people should be told. Put on record in the transaction of what they tell of, with a delivery for each channel that
//! wants them; sent by the worker until they were taken, or for three days.
//!
//! A notice holds no code and no secret: it says who wants or did what, to which device, and where to look.

use std::time::Duration;

use activation_lock::time::{DAY, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use zeroize::Zeroizing;

use crate::db::{Row, Tx, params};
use crate::names::names;
use crate::permit::{Admin, OrganisationId, Permission, Permit, Refusal};
use crate::{Error, Escrow, Result, audit};

/// The kind of cell that holds what a channel signs or signs in with.
pub(crate) const CHANNEL_SECRET: &str = "notice channel secret";
/// The same for the one before, which still counts.
pub(crate) const PREVIOUS_CHANNEL_SECRET: &str = "previous notice channel secret";
/// What stands for all organisations.
const EVERYWHERE: &str = "*";
/// A delivery that was begun is another's after that.
const LEASE: Duration = Duration::from_secs(120);
/// Between two tries: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);
/// After that a delivery is given up.
const GIVEN_UP_AFTER: u32 = 3;
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
    Webhook(String),
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
    /// The webhook's address, or the mail addresses.
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

/// A delivery that this process makes now.
pub struct Delivery {
    /// The notice, which is the same however often it is sent.
    pub notice: String,
    /// What it tells of.
    pub kind: NoticeKind,
    /// When that was.
    pub created_at: Timestamp,
    /// What it says, a JSON object.
    pub text: Json,
    /// Where it goes.
    pub channel: ChannelView,
    /// To whom a mail goes.
    pub recipients: Vec<String>,
    /// What the channel signs or signs in with: the one of now first.
    pub secrets: Vec<Zeroizing<String>>,
    organisation: String,
    attempts: i64,
    began_at: Timestamp,
}

/// What a far end said to a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was taken.
    Yes,
    /// Not now: in words, why; and when to try again, if it said so.
    Later(String, Option<Duration>),
    /// Never.
    Never(String),
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
            "SELECT id FROM notice_channels WHERE (organisation = $1 OR organisation = '*') AND removed_at IS NULL",
            params![organisation.as_str()],
        )
        .await?;
    let mut ids = Vec::with_capacity(channels.len());
    for channel in &channels {
        ids.push(channel.get::<String>("id")?);
    }
    insert(tx, organisation.as_str(), &id, kind, told, &ids, now).await?;
    escrow.shared.notices.notify_one();
    Ok(())
}

async fn insert(
    tx: &mut Tx<'_>,
    organisation: &str,
    id: &str,
    kind: NoticeKind,
    told: Map<String, Json>,
    channels: &[String],
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
    for channel in channels {
        tx.execute(
            "INSERT INTO notice_deliveries (organisation, notice, channel, state, attempts, due_at) \
             VALUES ($1, $2, $3, 'queued', 0, $4)",
            params![organisation, id, channel.as_str(), now],
        )
        .await?;
    }
    Ok(())
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
            "SELECT organisation, id, kind, name, address, mail, secret, previous, created_at, sent_at, failing_since, failure ",
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
        let (kind, address, mail, secret) = match new.address {
            NewAddress::Webhook(address) => (
                ChannelKind::Webhook,
                address,
                None,
                Some(self.webhook_secret()),
            ),
            NewAddress::Mail {
                to,
                server,
                password,
            } => {
                let server =
                    serde_json::to_string(&server).map_err(|_| Error::Corrupt("mail server"))?;
                (ChannelKind::Mail, to, Some(server), password)
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
                let cell = secret
                    .as_ref()
                    .map(|secret| escrow.seal_cell(CHANNEL_SECRET, &organisation, &id, secret.as_bytes()));
                tx.execute(
                    "INSERT INTO notice_channels (organisation, id, kind, name, address, mail, secret, created_at, created_by) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                    params![
                        organisation.as_str(),
                        id.as_str(),
                        kind.as_str(),
                        new.name.as_str(),
                        address.as_str(),
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
                    "UPDATE notice_channels SET removed_at = $3, secret = NULL, previous = NULL WHERE organisation = $1 AND id = $2",
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
                insert(
                    tx,
                    organisation,
                    &notice,
                    NoticeKind::Test,
                    told,
                    std::slice::from_ref(&id),
                    now,
                )
                .await?;
                escrow.shared.notices.notify_one();
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

    /// Waits until something may have to be sent. A wake-up that came since the last wait counts.
    pub async fn woken(&self) {
        self.0.shared.notices.notified().await;
    }

    /// Takes a delivery that is due, for two minutes; or tells when the next one is.
    ///
    /// # Errors
    /// When the database fails, or a channel's secret does not open.
    pub async fn claim(&self) -> Result<Result<Delivery, Option<Timestamp>>> {
        let escrow = self.0.clone();
        self.0
            .db
            .write("notices.claim", async move |tx| {
                let now = tx.now();
                let row = tx
                    .fetch_optional(
                        "SELECT organisation, notice, channel, attempts, due_at FROM notice_deliveries WHERE state = 'queued' \
                         ORDER BY due_at LIMIT 1",
                        params![],
                    )
                    .await?;
                let Some(row) = row else { return Ok(Err(None)) };
                let due: Timestamp = row.get("due_at")?;
                if due > now {
                    return Ok(Err(Some(due)));
                }
                let organisation: String = row.get("organisation")?;
                let (notice, channel): (String, String) = (row.get("notice")?, row.get("channel")?);
                // Whoever takes it and dies leaves it to the next one.
                tx.execute(
                    "UPDATE notice_deliveries SET due_at = $4, leased_until = $4, attempts = attempts + 1 \
                     WHERE organisation = $1 AND notice = $2 AND channel = $3",
                    params![organisation.as_str(), notice.as_str(), channel.as_str(), now.plus(LEASE)],
                )
                .await?;
                let attempts: i64 = row.get("attempts")?;
                let made = delivery(tx, &escrow, &organisation, &notice, &channel, attempts + 1).await;
                match made {
                    Ok(delivery) => Ok(Ok(delivery)),
                    Err(Error::Database(fault)) => Err(fault.into()),
                    // It must not stand in the way of all others.
                    Err(error) => {
                        tracing::error!(%error, channel, "a notice cannot be sent, and is given up");
                        tx.execute(
                            "UPDATE notice_deliveries SET state = 'given_up', failure = $4, ended_at = $5 \
                             WHERE organisation = $1 AND notice = $2 AND channel = $3",
                            params![organisation, notice, channel, error.to_string(), now],
                        )
                        .await?;
                        Ok(Err(Some(now)))
                    }
                }
            })
            .await
    }

    /// Puts on record what came of a delivery.
    ///
    /// # Errors
    /// When the database fails: then it is sent again, under the same identifier.
    pub async fn finish(&self, delivery: &Delivery, taken: &Taken) -> Result<()> {
        let (organisation, notice) = (delivery.organisation.clone(), delivery.notice.clone());
        let (channel, attempts, taken) = (
            delivery.channel.id.clone(),
            delivery.attempts,
            taken.clone(),
        );
        let created_at = delivery.created_at;
        let mut jitter = [0; 1];
        self.0.random().fill(&mut jitter);
        self.0
            .db
            .write("notices.finish", async move |tx| {
                let now = tx.now();
                let (state, failure, due) = match &taken {
                    Taken::Yes => ("sent", None, None),
                    Taken::Never(why) => ("given_up", Some(why), None),
                    Taken::Later(why, _) if now.since(created_at) >= DAY * GIVEN_UP_AFTER => {
                        ("given_up", Some(why), None)
                    }
                    Taken::Later(why, wait) => {
                        let wait = wait.unwrap_or_else(|| pause(attempts, jitter[0])).min(LONGEST_PAUSE * 6);
                        ("queued", Some(why), Some(now.plus(wait)))
                    }
                };
                tx.execute(
                    "UPDATE notice_deliveries SET state = $4, failure = $5, due_at = COALESCE($6, due_at), leased_until = NULL, \
                     ended_at = $7 WHERE organisation = $1 AND notice = $2 AND channel = $3 AND state = 'queued'",
                    params![
                        organisation.as_str(),
                        notice.as_str(),
                        channel.as_str(),
                        state,
                        failure.map(String::as_str),
                        due,
                        (state != "queued").then_some(now)
                    ],
                )
                .await?;
                match failure {
                    None => {
                        tx.execute(
                            "UPDATE notice_channels SET sent_at = $2, failing_since = NULL, failure = NULL WHERE id = $1",
                            params![channel.as_str(), now],
                        )
                        .await?
                    }
                    Some(why) => {
                        tx.execute(
                            "UPDATE notice_channels SET failing_since = COALESCE(failing_since, $2), failure = $3 WHERE id = $1",
                            params![channel.as_str(), now, why.as_str()],
                        )
                        .await?
                    }
                };
                Ok(())
            })
            .await
    }

    /// Forgets what was sent or given up ninety days ago.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sweep(&self) -> Result<()> {
        self.0
            .db
            .write("notices.sweep", async move |tx| {
                let before = tx.now().minus(DAY * 90);
                tx.execute(
                    "DELETE FROM notice_deliveries WHERE ended_at < $1",
                    params![before],
                )
                .await?;
                tx.execute("DELETE FROM notices WHERE created_at < $1", params![before])
                    .await?;
                Ok(())
            })
            .await
    }
}

/// How long after the so-manyth try the next one comes: twice as long each time, and a bit apart from others.
fn pause(attempts: i64, jitter: u8) -> Duration {
    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(20);
    let whole = (FIRST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE);
    whole.mul_f64(0.75 + f64::from(jitter) / 1_024.0)
}

async fn delivery(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    organisation: &str,
    notice: &str,
    channel: &str,
    attempts: i64,
) -> Result<Delivery> {
    let row = tx
        .fetch_one(
            "SELECT kind, text, created_at FROM notices WHERE organisation = $1 AND id = $2",
            params![organisation, notice],
        )
        .await?;
    let kind: String = row.get("kind")?;
    let text: String = row.get("text")?;
    let created_at = row.get("created_at")?;
    let row = tx
        .fetch_one(select_channels!("WHERE id = $1"), params![channel])
        .await?;
    let place: String = row.get("organisation")?;
    let mut secrets = Vec::new();
    for (column, kind) in [
        ("secret", CHANNEL_SECRET),
        ("previous", PREVIOUS_CHANNEL_SECRET),
    ] {
        if let Some(cell) = row.get::<Option<Vec<u8>>>(column)? {
            let plain = escrow.open_cell(kind, &place, channel, &cell)?;
            let text = std::str::from_utf8(&plain)
                .map_err(|_| Error::Corrupt("notice_channels.secret"))?;
            secrets.push(Zeroizing::new(text.to_owned()));
        }
    }
    let channel = ChannelView::from_row(&row)?;
    let mut recipients = Vec::new();
    if channel.kind == ChannelKind::Mail {
        for word in channel.address.split_whitespace() {
            if word == "approvers" {
                recipients.extend(approvers(tx, organisation).await?);
            } else {
                recipients.push(word.to_owned());
            }
        }
        recipients.sort();
        recipients.dedup();
    }
    Ok(Delivery {
        kind: NoticeKind::from_name(&kind).ok_or(Error::Corrupt("notices.kind"))?,
        text: serde_json::from_str(&text).map_err(|_| Error::Corrupt("notices.text"))?,
        notice: notice.to_owned(),
        created_at,
        channel,
        recipients,
        secrets,
        organisation: organisation.to_owned(),
        attempts,
        began_at: tx.now(),
    })
}

impl Delivery {
    /// When this try began.
    #[must_use]
    pub fn began_at(&self) -> Timestamp {
        self.began_at
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour_and_are_a_bit_apart() {
        assert!(pause(1, 0) >= FIRST_PAUSE.mul_f64(0.7) && pause(1, 255) <= FIRST_PAUSE);
        assert!(pause(1, 0) < pause(1, 255));
        assert!(pause(2, 0) > pause(1, 255));
        assert!(
            pause(i64::MAX, 255) <= LONGEST_PAUSE && pause(40, 0) >= LONGEST_PAUSE.mul_f64(0.7)
        );
    }
}
