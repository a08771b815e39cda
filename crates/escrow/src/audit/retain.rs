//! Retention: old rows go into a file, a signed horizon takes their place, and only then are they removed.
//!
//! The order of it is what makes it safe: the record is verified; the file, which ends with the horizon, is on disk; the horizon
//! and the row that tells of the removal are committed together; then the rows go, a few at a time. Whatever it is interrupted
//! at, the record stays verifiable, and the next one finishes it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use activation_lock::time::Timestamp;
use seal::Link;
use serde_json::Value as Json;

use super::chain::{BEFORE, Counters, number};
use super::horizon::Horizon;
use super::row::AuditRow;
use super::signed::Signed;
use super::verify::Bad;
use super::{Audit, Entry, record};
use crate::db::params;
use crate::permit::{Actor, OrganisationId, Permissions};
use crate::{Error, Result};

/// Rows written, or removed, at once.
const BATCH: u32 = 500;

/// What is to be removed.
#[derive(Clone, Debug)]
pub struct Retention<'a> {
    /// Rows that are older, up to the first that is not.
    pub before: Timestamp,
    /// Why, in the words of the person who asked.
    pub reason: &'a str,
    /// A new file for them: a line of JSON each, as in an export, and the horizon as the last.
    pub archive: &'a Path,
    /// The places that get rows: what they have not got is not removed.
    pub streams: &'a [&'a str],
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// Rows removed.
    pub rows: u64,
    /// The last position among them.
    pub position: u64,
    /// The horizon that stands for them.
    pub horizon: Signed,
}

/// Why nothing was removed.
#[derive(Debug, thiserror::Error)]
pub enum RetainError {
    /// The record is not as it was written.
    #[error("the record is not as it was written, so nothing was removed: {0}")]
    Bad(Box<Bad>),
    /// A place that gets rows has not got them all.
    #[error(
        "the {outlet} has the record up to position {has} only, so nothing was removed: let the server give it the rest"
    )]
    Behind {
        /// Which.
        outlet: String,
        /// What it has.
        has: u64,
    },
    /// The file.
    #[error("{} cannot be written, so nothing was removed: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] Error),
}

impl Audit<'_> {
    /// Removes old rows that are sealed, of every organisation. Nothing when none is old enough. A removal that was
    /// interrupted is finished first.
    ///
    /// # Errors
    /// As the variants say.
    pub async fn retain(&self, retention: Retention<'_>) -> Result<Option<Retained>, RetainError> {
        let mut verifier = self.verifier();
        if let Some(bad) = verifier.record().await? {
            return Err(RetainError::Bad(Box::new(bad)));
        }
        self.sweep().await?;
        let Some((horizon, rows)) = self.archive(&retention).await? else {
            return Ok(None);
        };
        for outlet in self.outlets().await? {
            if retention.streams.contains(&outlet.name.as_str())
                && outlet.position < horizon.position
            {
                // Nothing was removed, so nobody needs it; one that stays does no harm.
                let _ = std::fs::remove_file(retention.archive);
                return Err(RetainError::Behind {
                    outlet: outlet.name,
                    has: outlet.position,
                });
            }
        }
        let position = horizon.position;
        let signed = self.begin(&retention, horizon, rows).await?;
        self.sweep().await?;
        Ok(Some(Retained {
            rows,
            position,
            horizon: signed,
        }))
    }

    /// Writes the rows to the file, with the horizon behind them; it is on disk when this returns.
    async fn archive(
        &self,
        retention: &Retention<'_>,
    ) -> Result<Option<(Horizon, u64)>, RetainError> {
        let mut horizon = self
            .0
            .db
            .read(async |tx| {
                let at = tx.now();
                let last = Horizon::last(tx).await?;
                Ok(match last {
                    Some(last) => Horizon { at, ..last },
                    None => Horizon {
                        position: 0,
                        at,
                        link: Link::NONE,
                        writers: Counters::new(),
                        checkpoints: 0,
                    },
                })
            })
            .await?;
        let failed = |error| RetainError::File {
            path: retention.archive.to_owned(),
            error,
        };
        let (mut file, mut rows) = (None, 0);
        loop {
            let page = self.rows_after(horizon.position, BATCH).await?;
            let is_last = page.len() < BATCH as usize;
            let mut lines = String::new();
            let mut is_over = is_last;
            for row in page {
                if !is_older(&row, retention.before) {
                    is_over = true;
                    break;
                }
                lines.push_str(&row.to_line());
                lines.push('\n');
                pass(&mut horizon, &row)?;
                rows += 1;
            }
            if !lines.is_empty() {
                let mut writer = match file.take() {
                    Some(writer) => writer,
                    None => begin(retention.archive).map_err(failed)?,
                };
                writer.write_all(lines.as_bytes()).map_err(failed)?;
                file = Some(writer);
            }
            if is_over {
                break;
            }
        }
        let Some(mut writer) = file else {
            return Ok(None);
        };
        horizon.checkpoints = self
            .checkpoints_up_to(horizon.position)
            .await?
            .max(horizon.checkpoints);
        let line = horizon.sign(&self.0.keyring()).to_line() + "\n";
        writer
            .write_all(line.as_bytes())
            .and_then(|()| end(writer, retention.archive))
            .map_err(failed)?;
        Ok(Some((horizon, rows)))
    }

    async fn checkpoints_up_to(&self, position: u64) -> Result<u64> {
        self.0
            .db
            .read(async move |tx| {
                let row = tx
                    .fetch_one(
                        "SELECT MAX(number) AS last FROM audit_checkpoints WHERE position <= $1",
                        params![number(position)],
                    )
                    .await?;
                Ok(row.get::<Option<u64>>("last")?.unwrap_or(0))
            })
            .await
    }

    /// Commits the horizon, and that rows go.
    pub(super) async fn begin(
        &self,
        retention: &Retention<'_>,
        horizon: Horizon,
        rows: u64,
    ) -> Result<Signed> {
        let escrow = self.0.clone();
        let (before, reason) = (retention.before, retention.reason.to_owned());
        let archive = retention.archive.file_name().unwrap_or_default();
        let archive = archive.to_string_lossy().into_owned();
        self.0
            .db
            .write("audit.retain", async move |tx| {
                let signed = horizon.insert(tx, &escrow.keyring()).await?;
                let actor = Actor::system("command line", Permissions::NONE);
                let everywhere = OrganisationId::new("*");
                let entry = Entry::by(&actor, &everywhere, "audit.retain")
                    .subject(&horizon.position.to_string())
                    .reason(&reason)
                    .detail("archive", archive.as_str())
                    .detail("before", before.0)
                    .detail("link", horizon.link.hex())
                    .detail("rows", rows);
                record(tx, &escrow, entry).await?;
                Ok(signed)
            })
            .await
    }

    /// Removes what is behind the horizon, oldest first.
    async fn sweep(&self) -> Result<()> {
        loop {
            let removed = self.0.db.write("audit.sweep", async |tx| {
                let Some(horizon) = Horizon::last(tx).await? else {
                    return Ok(0);
                };
                let row = tx
                    .fetch_one(
                        "SELECT MAX(position) AS last FROM (SELECT position FROM audit_chain \
                         WHERE position <= $1 ORDER BY position LIMIT $2) AS oldest",
                        params![number(horizon.position), BATCH],
                    )
                    .await?;
                let last: Option<i64> = row.get("last")?;
                tx.execute(
                    "DELETE FROM audit WHERE (organisation, id) IN \
                     (SELECT organisation, audit_row FROM audit_chain WHERE position <= $1)",
                    params![last.unwrap_or(0)],
                )
                .await?;
                tx.execute(
                    "DELETE FROM audit_checkpoints WHERE position <= $1",
                    params![last.unwrap_or(number(horizon.position))],
                )
                .await?;
                tx.execute(
                    "DELETE FROM audit_chain WHERE position <= $1",
                    params![last.unwrap_or(0)],
                )
                .await
            });
            if removed.await? == 0 {
                return Ok(());
            }
        }
    }
}

fn is_older(row: &AuditRow, before: Timestamp) -> bool {
    let said: Json = serde_json::from_str(&row.text).unwrap_or_default();
    said["at"].as_i64().is_some_and(|at| at < before.0)
}

/// The horizon moves behind a row.
fn pass(horizon: &mut Horizon, row: &AuditRow) -> Result<()> {
    let said: Json = serde_json::from_str(&row.text).unwrap_or_default();
    let link = row.link.as_deref().and_then(Link::from_hex);
    let (Some(position), Some(link)) = (row.position, link) else {
        return Err(Error::Corrupt("audit_chain.link"));
    };
    let writer = said["writer"].as_str().unwrap_or(BEFORE);
    *horizon.writers.entry(writer.to_owned()).or_default() += 1;
    horizon.position = position;
    horizon.link = link;
    Ok(())
}

fn begin(path: &Path) -> io::Result<BufWriter<File>> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(BufWriter::new(file))
}

/// When this returns, the file and its name are on disk.
fn end(writer: BufWriter<File>, path: &Path) -> io::Result<()> {
    writer.into_inner()?.sync_all()?;
    let folder = path.parent().filter(|path| !path.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
