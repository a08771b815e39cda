//! Checkpoints: signed words about the end of the chain, to be kept where nobody who edits the database can edit them.

use activation_lock::time::Timestamp;
use seal::{CheckpointPublicKey, Link};
use serde_json::{Value as Json, json};

use super::chain::{Counters, Sealer, Standing, Turn, in_turn, number, sealed};
use super::signed::{Signed, read_counters, write_counters};
use crate::db::{Row, Tx, params};
use crate::{Escrow, Result};

const KIND: &str = "checkpoint";

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// How many there were, this one included. One that repeats the last, since nothing came after it, has its number.
    pub number: u64,
    /// When it was signed.
    pub at: Timestamp,
    /// The last position in the chain then.
    pub position: u64,
    /// The link at that position: it stands for every row up to there.
    pub link: Link,
    /// For each writer, the number of its last row up to there.
    pub(super) writers: Counters,
    /// It as it was signed.
    pub signed: Signed,
}

impl Checkpoint {
    /// A checkpoint that one of these keys signed.
    ///
    /// # Errors
    /// In words, what is wrong with it.
    pub(super) fn open(signed: &Signed, keys: &[CheckpointPublicKey]) -> Result<Self, String> {
        let said = signed.open(keys, KIND)?;
        Self::read(&said, signed).ok_or_else(|| "it lacks what a checkpoint says".to_owned())
    }

    fn read(said: &Json, signed: &Signed) -> Option<Self> {
        Some(Self {
            number: said["number"].as_u64()?,
            at: Timestamp(said["at"].as_i64()?),
            position: said["position"].as_u64()?,
            link: Link::from_hex(said["link"].as_str()?)?,
            writers: read_counters(&said["writers"])?,
            signed: signed.clone(),
        })
    }
}

impl Sealer {
    /// Signs the end of the chain as it is now. It is kept in the vault too, unless nothing was sealed since the last: then that
    /// one is said again, with the present time. Nothing when no row was ever sealed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn checkpoint(&self) -> Result<Turn<Option<Checkpoint>>> {
        let (escrow, id) = (self.escrow.clone(), self.id.clone());
        self.escrow
            .db
            .write("audit.checkpoint", async move |tx| {
                in_turn(tx, &id, async |tx, standing| {
                    checkpoint(tx, &escrow, standing).await
                })
                .await
            })
            .await
    }
}

async fn checkpoint(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    standing: &mut Standing,
) -> Result<Option<Checkpoint>> {
    if standing.position == 0 {
        return Ok(None);
    }
    let last = tx
        .fetch_optional(
            "SELECT position FROM audit_checkpoints ORDER BY number DESC LIMIT 1",
            params![],
        )
        .await?;
    let last: Option<u64> = last.map(|row| row.get("position")).transpose()?;
    let is_new = last.is_none_or(|last| last < standing.position);
    let mut new = Checkpoint {
        number: standing.checkpoints + u64::from(is_new),
        at: tx.now(),
        position: standing.position,
        link: standing.link,
        writers: sealed(tx).await?,
        signed: Signed {
            text: String::new(),
            signature: String::new(),
        },
    };
    let said = json!({
        "number": new.number,
        "at": new.at.0,
        "position": new.position,
        "link": new.link.hex(),
        "writers": write_counters(&new.writers),
    });
    new.signed = Signed::new(&escrow.keyring(), KIND, said);
    if is_new {
        tx.execute(
            "INSERT INTO audit_checkpoints (number, position, at, text, signature) VALUES ($1, $2, $3, $4, $5)",
            params![
                number(new.number),
                number(new.position),
                new.at,
                new.signed.text.as_str(),
                new.signed.signature.as_str()
            ],
        )
        .await?;
        standing.checkpoints = new.number;
    }
    Ok(Some(new))
}

/// A checkpoint as the vault keeps it, not looked at yet.
pub(super) struct Kept {
    pub(super) number: u64,
    pub(super) position: u64,
    pub(super) at: Timestamp,
    pub(super) signed: Signed,
}

impl Kept {
    pub(super) fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            number: row.get("number")?,
            position: row.get("position")?,
            at: row.get("at")?,
            signed: Signed {
                text: row.get("text")?,
                signature: row.get("signature")?,
            },
        })
    }

    /// Some of them, before a number, newest first.
    pub(super) async fn newest(tx: &mut Tx<'_>, before: u64, limit: u32) -> Result<Vec<Self>> {
        tx.fetch_all(
            "SELECT number, position, at, text, signature FROM audit_checkpoints WHERE number < $1 \
             ORDER BY number DESC LIMIT $2",
            params![number(before), limit],
        )
        .await?
        .iter()
        .map(Self::from_row)
        .collect()
    }
}
