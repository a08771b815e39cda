//! Accounts for Apple's Business and School Manager API (contract sheet 4.7 to 4.11): one an organisation, its key sealed.

use activation_lock::time::Timestamp;
use zeroize::Zeroizing;

use crate::db::{Row, Tx, params};
use crate::news::News;
use crate::permit::{Connections, OrganisationId, Permit, Read};
use crate::{Error, Escrow, Result, audit};

pub(crate) const KEY: &str = "business api key";

/// An API account to be kept.
pub struct NewBusinessApi {
    /// The client id; `BUSINESSAPI.` or `SCHOOLAPI.` is how it begins.
    pub client_id: String,
    /// The identifier of the key at Apple.
    pub key_id: String,
    /// The private key, PEM.
    pub private_key: Zeroizing<String>,
}

/// An API account as it is shown: not its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusinessApiView {
    /// Its organisation.
    pub organisation: OrganisationId,
    /// The client id.
    pub client_id: String,
    /// The identifier of the key at Apple.
    pub key_id: String,
    /// Rises with every change.
    pub version: i64,
    /// What is wrong with it, in words, and since when.
    pub problem: Option<(String, Timestamp)>,
    /// Before this nothing is asked with it.
    pub retry_at: Option<Timestamp>,
    /// How far the list of devices was read.
    pub cursor: Option<String>,
    /// When the list was last read to its end.
    pub listed_at: Option<Timestamp>,
    /// When it was first set.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// An API account with its key.
pub struct OpenBusinessApi {
    /// Everything that is not secret.
    pub view: BusinessApiView,
    /// The private key, PEM.
    pub private_key: Zeroizing<String>,
}

macro_rules! select_apis {
    ($rest:literal) => {
        concat!(
            "SELECT organisation, client_id, key_id, cell, version, problem, problem_at, retry_at, cursor, listed_at, ",
            "created_at, updated_at FROM business_apis ",
            $rest
        )
    };
}

impl BusinessApiView {
    fn from_row(row: &Row) -> Result<Self> {
        let problem: Option<String> = row.get("problem")?;
        Ok(Self {
            organisation: OrganisationId::new(row.get::<String>("organisation")?),
            client_id: row.get("client_id")?,
            key_id: row.get("key_id")?,
            version: row.get("version")?,
            problem: problem.zip(row.get("problem_at")?),
            retry_at: row.get("retry_at")?,
            cursor: row.get("cursor")?,
            listed_at: row.get("listed_at")?,
            created_at: row.get("created_at")?,
            updated_at: row.get("updated_at")?,
        })
    }
}

async fn live(tx: &mut Tx<'_>, organisation: &OrganisationId) -> Result<Option<Row>> {
    tx.fetch_optional(
        select_apis!("WHERE organisation = $1 AND removed_at IS NULL"),
        params![organisation.as_str()],
    )
    .await
}

/// The verbs on API accounts. See [`Escrow::business_apis`].
pub struct BusinessApis<'a>(pub(crate) &'a Escrow);

impl BusinessApis<'_> {
    /// Sets the API account of an organisation. Apple's status of its devices is asked for from then on.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn put(
        &self,
        permit: &Permit<Connections>,
        new: NewBusinessApi,
    ) -> Result<BusinessApiView> {
        let (escrow, confirmed, new) = (self.0.clone(), permit.clone(), std::sync::Arc::new(new));
        let result = self
            .0
            .db
            .write("business_apis.put", async move |tx| {
                confirmed.confirm(tx).await?;
                let (organisation, now) = (confirmed.organisation(), tx.now());
                let cell = escrow.seal_cell(
                    KEY,
                    organisation.as_str(),
                    organisation.as_str(),
                    new.private_key.as_bytes(),
                );
                tx.execute(
                    "INSERT INTO business_apis (organisation, client_id, key_id, cell, version, created_at, updated_at) \
                     VALUES ($1, $2, $3, $4, 1, $5, $5) ON CONFLICT (organisation) DO UPDATE SET \
                     client_id = excluded.client_id, key_id = excluded.key_id, cell = excluded.cell, \
                     version = business_apis.version + 1, problem = NULL, problem_at = NULL, retry_at = NULL, cursor = NULL, \
                     listed_at = NULL, updated_at = excluded.updated_at, removed_at = NULL",
                    params![
                        organisation.as_str(),
                        new.client_id.as_str(),
                        new.key_id.as_str(),
                        cell,
                        now
                    ],
                )
                .await?;
                let entry = confirmed
                    .entry("business_api.put")
                    .subject(&new.client_id)
                    .detail("key_id", new.key_id.as_str());
                audit::record(tx, &escrow, entry).await?;
                let row = live(tx, organisation).await?;
                row.as_ref()
                    .map(BusinessApiView::from_row)
                    .transpose()?
                    .ok_or(Error::Corrupt("business_apis.organisation"))
            })
            .await;
        let kept = self.0.audit_refusal(permit, result).await;
        self.0.tell(News::Statuses);
        self.0.tell(News::Listings);
        kept
    }

    /// The API account of an organisation, if it has one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, permit: &Permit<Read>) -> Result<Option<BusinessApiView>> {
        let organisation = permit.organisation().clone();
        self.0
            .db
            .read(async move |tx| {
                let row = live(tx, &organisation).await?;
                row.as_ref().map(BusinessApiView::from_row).transpose()
            })
            .await
    }

    /// The API accounts of all organisations, for the worker and the watch on them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn all(&self) -> Result<Vec<BusinessApiView>> {
        self.0
            .db
            .read(async move |tx| {
                tx.fetch_all(
                    select_apis!("WHERE removed_at IS NULL ORDER BY organisation"),
                    params![],
                )
                .await?
                .iter()
                .map(BusinessApiView::from_row)
                .collect()
            })
            .await
    }

    /// Removes the API account of an organisation; what Apple said stays on record. False when there is none.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn remove(&self, permit: &Permit<Connections>) -> Result<bool> {
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let result = self
            .0
            .db
            .write("business_apis.remove", async move |tx| {
                confirmed.confirm(tx).await?;
                let now = tx.now();
                let removed = tx
                    .execute(
                        "UPDATE business_apis SET removed_at = $2, updated_at = $2 \
                         WHERE organisation = $1 AND removed_at IS NULL",
                        params![confirmed.organisation().as_str(), now],
                    )
                    .await?;
                if removed == 1 {
                    audit::record(tx, &escrow, confirmed.entry("business_api.remove")).await?;
                }
                Ok(removed == 1)
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Opens the API account of an organisation, for a worker.
    ///
    /// # Errors
    /// When it does not open, or the database fails.
    pub async fn open(&self, organisation: &OrganisationId) -> Result<Option<OpenBusinessApi>> {
        let (escrow, organisation) = (self.0.clone(), organisation.clone());
        self.0
            .db
            .read(async move |tx| {
                let Some(row) = live(tx, &organisation).await? else {
                    return Ok(None);
                };
                let cell: Vec<u8> = row.get("cell")?;
                let (kind, row_id) = (KEY, organisation.as_str());
                let bytes = escrow.open_cell(kind, organisation.as_str(), row_id, &cell)?;
                let text = std::str::from_utf8(&bytes)
                    .map_err(|_| Error::Corrupt("business_apis.cell"))?;
                Ok(Some(OpenBusinessApi {
                    view: BusinessApiView::from_row(&row)?,
                    private_key: Zeroizing::new(text.to_owned()),
                }))
            })
            .await
    }

    /// What a call with an API account showed of it, for a worker: what is wrong in words, or nothing; and until when to leave it
    /// alone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note(
        &self,
        account: &BusinessApiView,
        problem: Option<String>,
        retry_at: Option<Timestamp>,
    ) -> Result<()> {
        let is_as_before = problem.is_none() && account.problem.is_none();
        if is_as_before && retry_at.is_none() && account.retry_at.is_none() {
            return Ok(());
        }
        let (organisation, version) = (account.organisation.clone(), account.version);
        self.0
            .db
            .write("business_apis.note", async move |tx| {
                let now = tx.now();
                tx.execute(
                    "UPDATE business_apis SET problem_at = CASE WHEN $3 IS NULL THEN NULL WHEN problem IS NULL THEN $4 \
                     ELSE problem_at END, problem = $3, retry_at = $5 WHERE organisation = $1 AND version = $2",
                    params![
                        organisation.as_str(),
                        version,
                        problem.as_deref(),
                        now,
                        retry_at
                    ],
                )
                .await?;
                Ok(())
            })
            .await
    }
}
