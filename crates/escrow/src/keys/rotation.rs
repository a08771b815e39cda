//! New data keys while the vault is in use: they are made and used at once, and what the older ones made is made anew by and by.
//!
//! A batch of rows is opened and sealed again in one transaction with its audit row and the place that was reached, so that it goes
//! on there after a crash. A last pass finds nothing left that an older key made, but what does not open.

use activation_lock::codes::CodeText;
use activation_lock::time::Timestamp;
use seal::{DataKey, Keyring, Purpose, RecoveryPublicKey, Standing};

use super::cells::{CELLS, Cells};
use super::{Keys, insert, insert_wrapping, stored, unlock};
use crate::audit::{self, Entry};
use crate::codes::{CODE, REPORTED_CODE};
use crate::db::{Row, Tx, params};
use crate::news::News;
use crate::people::credentials::nowhere;
use crate::permit::{Actor, Admin, Permissions, Permit};
use crate::{Error, Escrow, Result};

/// Rows of one batch: small, so that no webhook waits long for it.
const BATCH: i64 = 100;
/// What is gone through in a pass: the codes with their fingerprints, every other sealed column, and the lock journal.
const CODES: i64 = 0;

/// How far an exchange of keys is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Its identifier.
    pub id: String,
    /// When the new keys were made.
    pub started_at: Timestamp,
    /// Who had them made.
    pub started_by: String,
    /// Which time everything is gone through; the last one finds nothing left.
    pub pass: u32,
    /// Values made anew so far.
    pub resealed: u64,
    /// Values that do not open, and were left as they are.
    pub damaged: u64,
    /// When it was done.
    pub finished_at: Option<Timestamp>,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// No exchange is under way.
    Idle,
    /// There is more to do.
    More,
    /// That was the last of it.
    Finished,
}

struct At {
    rotation: Rotation,
    stage: i64,
    place: String,
    row: String,
    in_pass: i64,
}

impl Rotation {
    fn from_row(row: &Row) -> Result<Self> {
        let count = |name| -> Result<u64> {
            u64::try_from(row.get::<i64>(name)?).map_err(|_| Error::Corrupt("key_rotations"))
        };
        Ok(Self {
            id: row.get("id")?,
            started_at: row.get("started_at")?,
            started_by: row.get("started_by")?,
            pass: u32::try_from(row.get::<i64>("pass")?).unwrap_or(u32::MAX),
            resealed: count("resealed")?,
            damaged: count("damaged")?,
            finished_at: row.get("finished_at")?,
        })
    }
}

const NEWEST: &str = "SELECT id, started_at, started_by, pass, stage, place, row_id, resealed, in_pass, damaged, finished_at \
     FROM key_rotations ORDER BY id DESC LIMIT 1";

/// The newest exchange of keys, under way or done.
pub(super) async fn newest(tx: &mut Tx<'_>) -> Result<Option<Rotation>> {
    let row = tx.fetch_optional(NEWEST, params![]).await?;
    row.as_ref().map(Rotation::from_row).transpose()
}

async fn under_way(tx: &mut Tx<'_>) -> Result<Option<At>> {
    let Some(row) = tx.fetch_optional(NEWEST, params![]).await? else {
        return Ok(None);
    };
    let rotation = Rotation::from_row(&row)?;
    if rotation.finished_at.is_some() {
        return Ok(None);
    }
    Ok(Some(At {
        rotation,
        stage: row.get("stage")?,
        place: row.get("place")?,
        row: row.get("row_id")?,
        in_pass: row.get("in_pass")?,
    }))
}

impl Keys<'_> {
    /// Makes a new data key of each purpose, for the same recipients, which everything is made with from now on. What the older ones
    /// made is made anew by [`Self::step`]. One that is under way is told instead.
    ///
    /// # Errors
    /// [`Error::Refused`] when the permit no longer holds; or when the database fails.
    pub async fn rotate(&self, permit: &Permit<Admin>) -> Result<Rotation> {
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let random = self.0.shared.random.clone();
        let keys = Purpose::ALL.into_iter().map(|purpose| {
            let key = DataKey::generate(purpose, &random);
            let wrapped = self.0.shared.running.wrap(&key, &random);
            (key, wrapped)
        });
        // The keys are wiped with the verb, which may run again.
        let keys: Vec<_> = keys.collect();
        let result = self
            .0
            .db
            .write("keys.rotate", async move |tx| {
                confirmed.confirm(tx).await?;
                if let Some(at) = under_way(tx).await? {
                    return Ok(at.rotation);
                }
                let recovery = recovery_public(tx).await?;
                let mut ids = Vec::new();
                for (key, wrapped) in &keys {
                    tx.execute(
                        "UPDATE data_keys SET standing = 'older' WHERE purpose = $1 AND standing = 'current'",
                        params![key.purpose().as_str()],
                    )
                    .await?;
                    insert(tx, key.id(), key.purpose()).await?;
                    let for_recovery = recovery.as_ref().map(|public| public.wrap(key, &random));
                    for wrapping in [Some(wrapped), for_recovery.as_ref()].into_iter().flatten() {
                        insert_wrapping(tx, key.id(), wrapping).await?;
                    }
                    if key.purpose() == Purpose::Cells {
                        super::keep_sample(tx, key, &random).await?;
                    }
                    ids.push(format!("{} {}", key.purpose(), key.id()));
                }
                let (id, now) = (tx.new_id().to_string(), tx.now());
                tx.execute(
                    "INSERT INTO key_rotations (id, started_at, started_by, pass, stage, place, row_id, resealed, in_pass, damaged) \
                     VALUES ($1, $2, $3, 1, 0, '', '', 0, 0, 0)",
                    params![id.as_str(), now, confirmed.actor().name()],
                )
                .await?;
                // Signed by the key of before: the new one is in use once this is durable.
                let entry = confirmed.entry("key.rotate").subject(&id).detail("keys", ids.join(", "));
                audit::record(tx, &escrow, entry).await?;
                newest(tx).await?.ok_or(Error::Corrupt("key_rotations"))
            })
            .await;
        let rotation = self.0.audit_refusal(permit, result).await?;
        self.reload().await?;
        self.0.tell(News::Rotations);
        Ok(rotation)
    }

    /// Waits until an exchange of keys may be under way. A wake-up that came since the last wait counts.
    pub async fn woken(&self) {
        self.0.told(News::Rotations).await;
    }

    /// Reads the keys anew: others may have made some.
    pub(super) async fn reload(&self) -> Result<()> {
        let keys = self.0.db.read(stored).await?;
        self.0.set_keyring(unlock(&keys, &self.0.shared.running)?);
        Ok(())
    }

    /// Makes the next batch anew.
    ///
    /// # Errors
    /// When the database or the lock journal fails; the same batch is made anew then.
    pub async fn step(&self) -> Result<Step> {
        let Some(at) = self.0.db.read(under_way).await? else {
            return Ok(Step::Idle);
        };
        // A process that does not seal with the newest key would take everything for done.
        let newest = self.0.db.read(current_for_cells).await?;
        if self.0.keyring().key_ids(Purpose::Cells)[0].to_string() != newest {
            self.reload().await?;
        }
        let journal = CODES + 1 + others().count() as i64;
        // Outside of the transaction, for it is a file: done again after a crash, it finds nothing to do.
        let in_journal = match at.stage == journal {
            true => self.0.lock_journal().reseal(self.0).await?,
            false => 0,
        };
        let escrow = self.0.clone();
        self.0
            .db
            .write("keys.step", async move |tx| {
                let Some(at) = under_way(tx).await? else {
                    return Ok(Step::Idle);
                };
                if at.stage > journal {
                    return end_of_pass(tx, &escrow, &at).await;
                }
                let mut batch = Batch::default();
                let next = if at.stage == CODES {
                    codes(tx, &escrow, &at, &mut batch).await?
                } else if let Some(cells) = others().nth(usize::try_from(at.stage - 1).unwrap_or(usize::MAX)) {
                    column(tx, &escrow, cells, &at, &mut batch).await?
                } else {
                    batch.done = in_journal;
                    None
                };
                let (stage, place, row) = match next {
                    Some((place, row)) => (at.stage, place, row),
                    None => (at.stage + 1, String::new(), String::new()),
                };
                tx.execute(
                    "UPDATE key_rotations SET stage = $2, place = $3, row_id = $4, resealed = resealed + $5, \
                     in_pass = in_pass + $5, damaged = damaged + $6 WHERE id = $1",
                    params![at.rotation.id.as_str(), stage, place, row, batch.done, batch.damaged],
                )
                .await?;
                if !batch.ids.is_empty() {
                    let actor = Actor::system("worker", Permissions::NONE);
                    let entry = Entry::by(&actor, &nowhere(), "key.reseal")
                        .subject(&at.rotation.id)
                        .detail("rows", batch.ids.join(" "));
                    audit::record(tx, &escrow, entry).await?;
                }
                Ok(Step::More)
            })
            .await
    }
}

/// The key that cells are to be sealed with.
async fn current_for_cells(tx: &mut Tx<'_>) -> Result<String> {
    let row = tx
        .fetch_one(
            "SELECT id FROM data_keys WHERE purpose = 'cells' AND standing = 'current'",
            params![],
        )
        .await?;
    row.get("id")
}

/// Sealed columns that have nothing but themselves to be made anew.
fn others() -> impl Iterator<Item = &'static Cells> {
    CELLS.iter().filter(|cells| cells.table != "codes")
}

async fn end_of_pass(tx: &mut Tx<'_>, escrow: &Escrow, at: &At) -> Result<Step> {
    let id = at.rotation.id.as_str();
    if at.in_pass > 0 {
        tx.execute(
            "UPDATE key_rotations SET pass = pass + 1, stage = 0, place = '', row_id = '', in_pass = 0, damaged = 0 WHERE id = $1",
            params![id],
        )
        .await?;
        return Ok(Step::More);
    }
    let now = tx.now();
    tx.execute(
        "UPDATE key_rotations SET finished_at = $2 WHERE id = $1",
        params![id, now],
    )
    .await?;
    let actor = Actor::system("worker", Permissions::NONE);
    let entry = Entry::by(&actor, &nowhere(), "key.rotated")
        .subject(id)
        .detail("resealed", at.rotation.resealed)
        .detail("damaged", at.rotation.damaged);
    audit::record(tx, escrow, entry).await?;
    Ok(Step::Finished)
}

#[derive(Default)]
struct Batch {
    done: i64,
    damaged: i64,
    ids: Vec<String>,
}

/// The next page of a column. Gives where it ended, or nothing at the end.
async fn column(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    cells: &Cells,
    at: &At,
    batch: &mut Batch,
) -> Result<Option<(String, String)>> {
    let rows = tx
        .fetch_all(
            cells.page,
            params![at.place.as_str(), at.row.as_str(), BATCH],
        )
        .await?;
    let keyring = escrow.keyring();
    let current = keyring.key_ids(Purpose::Cells)[0];
    for row in &rows {
        let (place, id): (String, String) = (row.get("place")?, row.get("row_id")?);
        let cell: Vec<u8> = row.get("cell")?;
        if Keyring::cell_key(&cell) == Ok(current) {
            continue;
        }
        match keyring.open_cell(cells.kind, &place, &id, &cell) {
            Ok(plain) => {
                let new = escrow.seal_cell(cells.kind, &place, &id, &plain);
                tx.execute(
                    cells.put,
                    params![place.as_str(), id.as_str(), cell.as_slice(), new],
                )
                .await?;
                batch.done += 1;
                batch
                    .ids
                    .push(format!("{}.{} {id}", cells.table, cells.column));
            }
            Err(error) => {
                tracing::error!(%error, table = cells.table, column = cells.column, row = id, "a sealed cell does not open, and is left as it is");
                batch.damaged += 1;
            }
        }
    }
    last_of(&rows)
}

fn last_of(rows: &[Row]) -> Result<Option<(String, String)>> {
    match rows.last() {
        Some(last) if rows.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX) => {
            Ok(Some((last.get("place")?, last.get("row_id")?)))
        }
        _ => Ok(None),
    }
}

/// The next page of codes: cells and fingerprints together, for one is compared with the other (R24).
async fn codes(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    at: &At,
    batch: &mut Batch,
) -> Result<Option<(String, String)>> {
    let rows = tx
        .fetch_all(
            "SELECT organisation AS place, id AS row_id, serial, fingerprint_key, cell, reported_exact, reported_cell FROM codes \
             WHERE (organisation, id) > ($1, $2) ORDER BY 1, 2 LIMIT $3",
            params![at.place.as_str(), at.row.as_str(), BATCH],
        )
        .await?;
    let keyring = escrow.keyring();
    let current = keyring.key_ids(Purpose::Cells)[0];
    let prints = keyring.key_ids(Purpose::Fingerprints)[0].to_string();
    for row in &rows {
        let (place, id): (String, String) = (row.get("place")?, row.get("row_id")?);
        let cell: Vec<u8> = row.get("cell")?;
        let reported: Option<Vec<u8>> = row.get("reported_cell")?;
        let is_new = |cell: &[u8]| Keyring::cell_key(cell) == Ok(current);
        if is_new(&cell)
            && reported.as_deref().is_none_or(is_new)
            && row.get::<String>("fingerprint_key")? == prints
        {
            continue;
        }
        let made = Made::anew(escrow, &place, &id, row, &cell, reported.as_deref());
        match made {
            Ok(made) => {
                tx.execute(
                    "UPDATE codes SET cell = $3, reported_cell = $4, fingerprint = $5, fingerprint_key = $6, exact = $7, \
                     reported_exact = $8 WHERE organisation = $1 AND id = $2",
                    params![
                        place.as_str(),
                        id.as_str(),
                        made.cell,
                        made.reported_cell,
                        made.fingerprint,
                        prints.as_str(),
                        made.exact,
                        made.reported_exact
                    ],
                )
                .await?;
                batch.done += 1;
                batch.ids.push(format!("codes {id}"));
            }
            Err(error) => {
                tracing::error!(%error, code = id, "a sealed code does not open, and is left as it is");
                batch.damaged += 1;
            }
        }
    }
    last_of(&rows)
}

/// A code's row under the current keys.
struct Made {
    cell: Vec<u8>,
    reported_cell: Option<Vec<u8>>,
    fingerprint: String,
    exact: String,
    reported_exact: Option<String>,
}

impl Made {
    fn anew(
        escrow: &Escrow,
        place: &str,
        id: &str,
        row: &Row,
        cell: &[u8],
        reported: Option<&[u8]>,
    ) -> Result<Self> {
        let serial: String = row.get("serial")?;
        let was_reported = row.get::<Option<String>>("reported_exact")?.is_some();
        let keyring = escrow.keyring();
        let print = |bytes: &[u8]| keyring.fingerprint(place, &serial, bytes).hex();
        let plain = escrow.open_cell(CODE, place, id, cell)?;
        let text = std::str::from_utf8(&plain).ok();
        let text = text.and_then(|text| CodeText::new(text.to_owned()));
        let text = text.ok_or(Error::Corrupt("codes.cell"))?;
        let exact = print(&plain);
        let (reported_cell, reported_exact) = match reported {
            Some(reported) => {
                let told = escrow.open_cell(REPORTED_CODE, place, id, reported)?;
                let cell = escrow.seal_cell(REPORTED_CODE, place, id, &told);
                (Some(cell), Some(print(&told)))
            }
            // It was told as it is kept.
            None => (None, was_reported.then(|| exact.clone())),
        };
        Ok(Self {
            cell: escrow.seal_cell(CODE, place, id, &plain),
            reported_cell,
            fingerprint: print(&text.comparison_form()),
            exact,
            reported_exact,
        })
    }
}

/// The public half of the recovery key, if the vault has one.
pub(crate) async fn recovery_public(tx: &mut Tx<'_>) -> Result<Option<RecoveryPublicKey>> {
    let meta = tx
        .fetch_one("SELECT recovery_public FROM meta", params![])
        .await?;
    meta.get::<Option<String>>("recovery_public")?
        .map(|text| RecoveryPublicKey::parse(&text))
        .transpose()
        .map_err(|_| Error::Corrupt("meta.recovery_public"))
}

/// How a data key stands, as it is written down; nothing for one that is destroyed.
pub(super) fn standing_of(word: &str) -> Option<Standing> {
    match word {
        "current" => Some(Standing::Current),
        "older" => Some(Standing::Older),
        _ => None,
    }
}
