//! Push certificates: what Apple knows our unlock requests by (contract sheet 1.2). One is current a topic; a renewed
//! one takes its place and the older row stays, for attempts name it.

use activation_lock::time::Timestamp;
use zeroize::Zeroizing;

use crate::db::{Row, Tx, params};
use crate::permit::{Connections, OrganisationId, Permit, Read};
use crate::{Error, Escrow, Result, audit, operations};

pub(crate) const PUSH_CERTIFICATE: &str = "push certificate";

/// A push certificate to be kept. Whoever made this has read the PEM: what is said of it here is true of it.
pub struct NewPushCertificate {
    /// The topic: UID of its subject.
    pub topic: String,
    /// SHA-256 of its DER form, in lower-case hexadecimal digits.
    pub fingerprint: String,
    /// Its subject, in words.
    pub subject: String,
    /// Before this it is not valid.
    pub not_before: Timestamp,
    /// From then on it is no longer valid.
    pub not_after: Timestamp,
    /// The certificate, its chain and its private key, as PEM.
    pub pem: Zeroizing<String>,
}

/// A push certificate as listed: not its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushCertificateView {
    /// Its identifier.
    pub id: String,
    /// Its organisation.
    pub organisation: OrganisationId,
    /// The topic.
    pub topic: String,
    /// SHA-256 of its DER form.
    pub fingerprint: String,
    /// Its subject.
    pub subject: String,
    /// Before this it is not valid.
    pub not_before: Timestamp,
    /// From then on it is no longer valid.
    pub not_after: Timestamp,
    /// When it was added.
    pub created_at: Timestamp,
    /// When another of its topic took its place.
    pub superseded_at: Option<Timestamp>,
    /// When it was removed.
    pub removed_at: Option<Timestamp>,
}

impl PushCertificateView {
    /// Whether it can be used at a moment.
    #[must_use]
    pub fn is_usable(&self, now: Timestamp) -> bool {
        self.superseded_at.is_none()
            && self.removed_at.is_none()
            && self.not_before <= now
            && now < self.not_after
    }
}

/// A push certificate with its key.
pub struct OpenPushCertificate {
    /// Everything that is not secret.
    pub view: PushCertificateView,
    /// The certificate, its chain and its private key, as PEM.
    pub pem: Zeroizing<String>,
}

macro_rules! select_certificates {
    ($rest:literal) => {
        concat!(
            "SELECT id, organisation, topic, fingerprint, subject, not_before, not_after, cell, created_at, ",
            "superseded_at, removed_at FROM push_certificates ",
            $rest
        )
    };
}

impl PushCertificateView {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            organisation: OrganisationId::new(row.get::<String>("organisation")?),
            topic: row.get("topic")?,
            fingerprint: row.get("fingerprint")?,
            subject: row.get("subject")?,
            not_before: row.get("not_before")?,
            not_after: row.get("not_after")?,
            created_at: row.get("created_at")?,
            superseded_at: row.get("superseded_at")?,
            removed_at: row.get("removed_at")?,
        })
    }
}

/// The current certificates of an organisation, by topic, expired ones too.
pub(crate) async fn current(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
) -> Result<Vec<PushCertificateView>> {
    tx.fetch_all(
        select_certificates!("WHERE organisation = $1 AND superseded_at IS NULL AND removed_at IS NULL ORDER BY topic"),
        params![organisation.as_str()],
    )
    .await?
    .iter()
    .map(PushCertificateView::from_row)
    .collect()
}

/// The verbs on push certificates. See [`Escrow::push_certificates`].
pub struct PushCertificates<'a>(pub(crate) &'a Escrow);

impl PushCertificates<'_> {
    /// Keeps a certificate and makes it the current one of its topic. Unlocks that wait for one go on at once. The
    /// very same certificate again changes nothing.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn add(
        &self,
        permit: &Permit<Connections>,
        new: NewPushCertificate,
    ) -> Result<PushCertificateView> {
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let new = std::sync::Arc::new(new);
        let result = self
            .0
            .db
            .write("push_certificates.add", async move |tx| {
                confirmed.confirm(tx).await?;
                let organisation = confirmed.organisation();
                let same = current(tx, organisation).await?.into_iter().find(|c| c.fingerprint == new.fingerprint);
                if let Some(same) = same {
                    return Ok(same);
                }
                let (now, id) = (tx.now(), tx.new_id().to_string());
                tx.execute(
                    "UPDATE push_certificates SET superseded_at = $3 WHERE organisation = $1 AND topic = $2 \
                     AND superseded_at IS NULL AND removed_at IS NULL",
                    params![organisation.as_str(), new.topic.as_str(), now],
                )
                .await?;
                tx.execute(
                    "INSERT INTO push_certificates (id, organisation, topic, fingerprint, subject, not_before, not_after, \
                     cell, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                    params![
                        id.as_str(),
                        organisation.as_str(),
                        new.topic.as_str(),
                        new.fingerprint.as_str(),
                        new.subject.as_str(),
                        new.not_before,
                        new.not_after,
                        escrow.seal_cell(PUSH_CERTIFICATE, organisation.as_str(), &id, new.pem.as_bytes()),
                        now
                    ],
                )
                .await?;
                let entry = confirmed
                    .entry("push_certificate.add")
                    .subject(&new.topic)
                    .detail("certificate", id.as_str())
                    .detail("fingerprint", new.fingerprint.as_str());
                audit::record(tx, &escrow, entry).await?;
                operations::wake_for_credential(tx, organisation).await?;
                Ok(PushCertificateView {
                    id,
                    organisation: organisation.clone(),
                    topic: new.topic.clone(),
                    fingerprint: new.fingerprint.clone(),
                    subject: new.subject.clone(),
                    not_before: new.not_before,
                    not_after: new.not_after,
                    created_at: now,
                    superseded_at: None,
                    removed_at: None,
                })
            })
            .await;
        let added = self.0.audit_refusal(permit, result).await;
        self.0.operations().wake();
        added
    }

    /// The certificates of an organisation, current, superseded and removed, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, permit: &Permit<Read>) -> Result<Vec<PushCertificateView>> {
        let organisation = permit.organisation().clone();
        self.0
            .db
            .read(async move |tx| {
                tx.fetch_all(
                    select_certificates!("WHERE organisation = $1 ORDER BY id DESC"),
                    params![organisation.as_str()],
                )
                .await?
                .iter()
                .map(PushCertificateView::from_row)
                .collect()
            })
            .await
    }

    /// The current certificates of all organisations, for the watch on their expiry.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn all_current(&self) -> Result<Vec<PushCertificateView>> {
        self.0
            .db
            .read(async move |tx| {
                tx.fetch_all(
                    select_certificates!(
                        "WHERE superseded_at IS NULL AND removed_at IS NULL ORDER BY not_after"
                    ),
                    params![],
                )
                .await?
                .iter()
                .map(PushCertificateView::from_row)
                .collect()
            })
            .await
    }

    /// Removes a certificate: it is not used any more; its row stays. False when there is none of that identifier.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn remove(&self, permit: &Permit<Connections>, id: &str) -> Result<bool> {
        let (escrow, confirmed, id) = (self.0.clone(), permit.clone(), id.to_owned());
        let result = self
            .0
            .db
            .write("push_certificates.remove", async move |tx| {
                confirmed.confirm(tx).await?;
                let now = tx.now();
                let removed = tx
                    .execute(
                        "UPDATE push_certificates SET removed_at = $3 \
                         WHERE organisation = $1 AND id = $2 AND removed_at IS NULL",
                        params![confirmed.organisation().as_str(), id.as_str(), now],
                    )
                    .await?;
                if removed == 1 {
                    audit::record(
                        tx,
                        &escrow,
                        confirmed.entry("push_certificate.remove").subject(&id),
                    )
                    .await?;
                }
                Ok(removed == 1)
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Opens the current certificate of a topic, for a worker.
    ///
    /// # Errors
    /// When it does not open, or the database fails.
    pub async fn open(
        &self,
        organisation: &OrganisationId,
        topic: &str,
    ) -> Result<Option<OpenPushCertificate>> {
        let (organisation, topic) = (organisation.clone(), topic.to_owned());
        let found = self
            .0
            .db
            .read(async move |tx| {
                let current = current(tx, &organisation).await?;
                Ok(current.into_iter().find(|c| c.topic == topic))
            })
            .await?;
        match found {
            Some(view) => self.open_by_id(&view.organisation, &view.id).await,
            None => Ok(None),
        }
    }

    /// Opens a certificate by its identifier, for a worker; `None` when it was removed.
    ///
    /// # Errors
    /// When it does not open, or the database fails.
    pub async fn open_by_id(
        &self,
        organisation: &OrganisationId,
        id: &str,
    ) -> Result<Option<OpenPushCertificate>> {
        let (escrow, organisation, id) = (self.0.clone(), organisation.clone(), id.to_owned());
        self.0
            .db
            .read(async move |tx| {
                let row = tx
                    .fetch_optional(
                        select_certificates!(
                            "WHERE organisation = $1 AND id = $2 AND removed_at IS NULL"
                        ),
                        params![organisation.as_str(), id.as_str()],
                    )
                    .await?;
                let Some(row) = row else { return Ok(None) };
                let view = PushCertificateView::from_row(&row)?;
                let cell: Vec<u8> = row.get("cell")?;
                let bytes =
                    escrow.open_cell(PUSH_CERTIFICATE, organisation.as_str(), &id, &cell)?;
                let pem = std::str::from_utf8(&bytes)
                    .map_err(|_| Error::Corrupt("push_certificates.cell"))?;
                Ok(Some(OpenPushCertificate {
                    view,
                    pem: Zeroizing::new(pem.to_owned()),
                }))
            })
            .await
    }
}
