//! Verification: the whole record is read again, and the first thing that is not as it was written is named.
//!
//! Rows in the chain are taken by their positions, each with its checkpoints; then what is not sealed yet, by each writer's
//! count; then it is asked whether there is anything else. A page is one snapshot, so that a long record holds none open, and
//! memory stays flat.

mod walk;

use std::fmt;

use activation_lock::time::Timestamp;

use self::walk::{Step, Walk};
use crate::{Escrow, Result};

/// Where something is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A row of the chain, by its position.
    Position(u64),
    /// A row that is not sealed, by its writer and its number there; or where one is missing.
    Counter {
        /// The writer; empty for rows of before there were writers.
        writer: String,
        /// The number.
        counter: u64,
    },
    /// A row that stands nowhere: neither in the chain nor in a writer's count.
    Stray,
    /// The count of a writer.
    Writer(String),
    /// The end of the chain.
    End,
    /// A checkpoint that the vault keeps, by its number.
    Checkpoint(u64),
    /// The horizon at that position.
    Horizon(u64),
    /// A line of the checkpoints from outside, from 1.
    Outside(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Position(position) => write!(f, "position {position}"),
            Self::Counter { writer, counter } if writer.is_empty() => {
                write!(f, "row {counter} of those before there were writers")
            }
            Self::Counter { writer, counter } => write!(f, "row {counter} of writer {writer}"),
            Self::Stray => f.write_str("a row outside the chain"),
            Self::Writer(writer) => write!(f, "the count of writer {writer}"),
            Self::End => f.write_str("the end of the chain"),
            Self::Checkpoint(number) => write!(f, "checkpoint {number}"),
            Self::Horizon(position) => write!(f, "the horizon at position {position}"),
            Self::Outside(line) => write!(f, "line {line} of the checkpoints from outside"),
        }
    }
}

/// The first thing that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Where.
    pub place: Place,
    /// The organisation of the row, where it is a row.
    pub organisation: Option<String>,
    /// Its identifier.
    pub id: Option<String>,
    /// What is wrong, in words.
    pub what: String,
}

impl Bad {
    fn new(place: Place, what: impl Into<String>) -> Self {
        Self {
            place,
            organisation: None,
            id: None,
            what: what.into(),
        }
    }

    fn row(self, organisation: Option<String>, id: Option<String>) -> Self {
        Self {
            organisation,
            id,
            ..self
        }
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        if let Some(id) = &self.id {
            write!(f, " (row {id}")?;
            if let Some(organisation) = &self.organisation {
                write!(f, " of organisation {organisation}")?;
            }
            f.write_str(")")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What a record is like in which nothing was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Rows looked at.
    pub rows: u64,
    /// The last position in the chain.
    pub position: u64,
    /// Rows that are not sealed yet.
    pub unsealed: u64,
    /// The time of the last row.
    pub last_at: Option<Timestamp>,
    /// The position and time of the horizon, behind which rows were taken away by retention.
    pub horizon: Option<(u64, Timestamp)>,
    /// Checkpoints from outside that were compared.
    pub compared: u64,
    /// The last of them: up to its position nothing is missing.
    pub proven: Option<Proven>,
    /// Rows after that.
    pub unproven: u64,
}

/// Up to where a checkpoint from outside proves the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The position.
    pub position: u64,
    /// When it was signed.
    pub at: Timestamp,
}

/// In words, without the time, which is for each to write in its way.
impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rows are as they were written, {} of them not sealed yet",
            self.rows, self.unsealed
        )?;
        match self.proven {
            Some(proven) if self.unproven == 0 => write!(
                f,
                "; the checkpoint from outside stands for all of them, up to position {}",
                proven.position
            ),
            Some(proven) => write!(
                f,
                "; the checkpoint from outside stands for those up to position {}, and the {} after it are unproven: what was cut off behind them left no trace",
                proven.position, self.unproven
            ),
            None => f.write_str(
                "; without a checkpoint from outside their end is unproven: what was cut off behind it left no trace",
            ),
        }
    }
}

impl Verified {
    /// Whether a checkpoint from outside stands for all of it: nothing came after.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proven.is_some() && self.unproven == 0
    }
}

/// Verifies a record: [`Self::record`] first, then [`Self::compare`] with what was kept outside.
pub struct Verifier {
    escrow: Escrow,
    walk: Walk,
    compared: u64,
    proven: Option<Proven>,
}

impl Verifier {
    pub(super) fn new(escrow: &Escrow) -> Self {
        Self {
            escrow: escrow.clone(),
            walk: Walk::default(),
            compared: 0,
            proven: None,
        }
    }

    /// Reads the whole record; gives the first thing that is wrong.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record(&mut self) -> Result<Option<Bad>> {
        let mut walk = Walk::default();
        let mut step = Step::Begin;
        while step != Step::End {
            let (escrow, from) = (self.escrow.clone(), walk.clone());
            let walked = self.escrow.db.read(async move |tx| {
                let mut walk = from.clone();
                let step = match step {
                    Step::Begin => walk.begin(tx, &escrow).await?,
                    _ => walk.page(tx, &escrow).await?,
                };
                Ok(step.map(|step| (walk, step)))
            });
            match walked.await? {
                Ok(next) => (walk, step) = next,
                Err(bad) => return Ok(Some(*bad)),
            }
        }
        self.walk = walk;
        Ok(None)
    }

    /// Compares lines that were kept outside, the first of them with this number, with the record that was read; gives the
    /// first thing that is wrong. Empty lines are passed over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn compare(&mut self, first: u64, lines: Vec<String>) -> Result<Option<Bad>> {
        let (escrow, walk) = (self.escrow.clone(), self.walk.clone());
        let compared = self.escrow.db.read(async move |tx| {
            let keys = escrow.keyring().checkpoint_keys();
            let (mut count, mut last) = (0, None);
            for (line, at) in lines.iter().zip(first..) {
                if line.trim().is_empty() {
                    continue;
                }
                match walk.outside(tx, line, &keys).await? {
                    Ok(proven) => (count, last) = (count + 1, Some(proven)),
                    Err(what) => return Ok(Err(Bad::new(Place::Outside(at), what))),
                }
            }
            Ok(Ok((count, last)))
        });
        match compared.await? {
            Ok((count, last)) => {
                self.compared += count;
                self.proven = last.or(self.proven);
                Ok(None)
            }
            Err(bad) => Ok(Some(bad)),
        }
    }

    /// What is known when nothing was found.
    #[must_use]
    pub fn verified(&self) -> Verified {
        let walk = &self.walk;
        let after = |proven: Proven| walk.position.saturating_sub(proven.position);
        Verified {
            rows: walk.rows,
            position: walk.position,
            unsealed: walk.unsealed,
            last_at: walk.last_at,
            horizon: walk.horizon.map(|(position, _, at)| (position, at)),
            compared: self.compared,
            proven: self.proven,
            unproven: self.proven.map_or(walk.rows, after)
                + self.proven.map_or(0, |_| walk.unsealed),
        }
    }
}
