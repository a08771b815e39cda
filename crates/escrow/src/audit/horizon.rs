//! The horizon: a signed word that stands for the rows that retention took away, from which the rest is verified.

use activation_lock::time::Timestamp;
use seal::{CheckpointPublicKey, Keyring, Link};
use serde_json::{Value as Json, json};

use super::chain::{Counters, number};
use super::signed::{Signed, read_counters, write_counters};
use crate::db::{Row, Tx, params};
use crate::{Error, Result};

const KIND: &str = "horizon";

/// What a horizon says.
pub(super) struct Horizon {
    /// The last position that was taken away.
    pub(super) position: u64,
    /// When it was signed.
    pub(super) at: Timestamp,
    /// The link at that position.
    pub(super) link: Link,
    /// For each writer, the number of its last row that was taken away.
    pub(super) writers: Counters,
    /// The number of the last checkpoint that was taken away with them.
    pub(super) checkpoints: u64,
}

/// A horizon as the vault keeps it, not looked at yet.
pub(super) struct KeptHorizon {
    pub(super) position: u64,
    pub(super) at: Timestamp,
    pub(super) signed: Signed,
}

impl KeptHorizon {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            position: row.get("position")?,
            at: row.get("at")?,
            signed: Signed {
                text: row.get("text")?,
                signature: row.get("signature")?,
            },
        })
    }

    /// All of them, oldest first: one each time that rows were taken away.
    pub(super) async fn all(tx: &mut Tx<'_>) -> Result<Vec<Self>> {
        tx.fetch_all(
            "SELECT position, at, text, signature FROM audit_horizons ORDER BY position",
            params![],
        )
        .await?
        .iter()
        .map(Self::from_row)
        .collect()
    }
}

impl Horizon {
    /// A horizon that one of these keys signed, whose row says the same.
    ///
    /// # Errors
    /// In words, what is wrong with it.
    pub(super) fn open(kept: &KeptHorizon, keys: &[CheckpointPublicKey]) -> Result<Self, String> {
        let said = kept.signed.open(keys, KIND)?;
        let horizon = Self::read(&said).ok_or_else(|| "it lacks what a horizon says".to_owned())?;
        match horizon.position == kept.position && horizon.at == kept.at {
            true => Ok(horizon),
            false => Err("its columns do not say what was signed".to_owned()),
        }
    }

    fn read(said: &Json) -> Option<Self> {
        Some(Self {
            position: said["position"].as_u64()?,
            at: Timestamp(said["at"].as_i64()?),
            link: Link::from_hex(said["link"].as_str()?)?,
            writers: read_counters(&said["writers"])?,
            checkpoints: said["checkpoints"].as_u64()?,
        })
    }

    /// The latest one, as it says, whoever signed it: for going on, not for believing.
    pub(super) async fn last(tx: &mut Tx<'_>) -> Result<Option<Self>> {
        let row = tx
            .fetch_optional(
                "SELECT text FROM audit_horizons ORDER BY position DESC LIMIT 1",
                params![],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let said: String = row.get("text")?;
        let read = serde_json::from_str(&said)
            .ok()
            .as_ref()
            .and_then(Self::read);
        read.map(Some).ok_or(Error::Corrupt("audit_horizons.text"))
    }

    /// It, signed: the same each time.
    pub(super) fn sign(&self, keyring: &Keyring) -> Signed {
        let said = json!({
            "position": self.position,
            "at": self.at.0,
            "link": self.link.hex(),
            "writers": write_counters(&self.writers),
            "checkpoints": self.checkpoints,
        });
        Signed::new(keyring, KIND, said)
    }

    /// Signs it and puts it beside the chain.
    pub(super) async fn insert(&self, tx: &mut Tx<'_>, keyring: &Keyring) -> Result<Signed> {
        let signed = self.sign(keyring);
        tx.execute(
            "INSERT INTO audit_horizons (position, at, text, signature) VALUES ($1, $2, $3, $4)",
            params![
                number(self.position),
                self.at,
                signed.text.as_str(),
                signed.signature.as_str()
            ],
        )
        .await?;
        Ok(signed)
    }
}
