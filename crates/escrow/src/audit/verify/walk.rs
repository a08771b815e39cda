//! Walking through the record, as far as one snapshot after the other goes.

use std::collections::VecDeque;

use activation_lock::time::Timestamp;
use seal::{CheckpointPublicKey, Link};

use super::super::chain::{BEFORE, Counters, Standing, number};
use super::super::checkpoint::{Checkpoint, Kept};
use super::super::horizon::{Horizon, KeptHorizon};
use super::super::row::{AuditRow, Intact, select_rows};
use super::super::signed::Signed;
use super::{Bad, Place, Proven};
use crate::db::{Fault, Row, Tx, params};
use crate::{Error, Escrow, Result};

/// Rows verified in one snapshot.
const PAGE: u32 = 1_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Begin,
    Page,
    End,
}

/// A step, or what is wrong.
pub(super) type Walked<T> = Result<Result<T, Box<Bad>>>;

/// As far as the record was read.
#[derive(Clone, Default)]
pub(super) struct Walk {
    pub(super) horizon: Option<(u64, Link, Timestamp)>,
    /// The first position that is there.
    first: u64,
    pub(super) position: u64,
    /// The link there; nothing before the first row of a removal that was not finished.
    link: Option<Link>,
    counters: Counters,
    /// The last row of version 1 in the chain: identifier and organisation.
    before: (String, String),
    checkpoints: u64,
    pub(super) rows: u64,
    pub(super) unsealed: u64,
    pub(super) last_at: Option<Timestamp>,
}

impl Walk {
    /// Reads the horizons, and stands where the chain begins.
    pub(super) async fn begin(&mut self, tx: &mut Tx<'_>, escrow: &Escrow) -> Walked<Step> {
        let keys = escrow.keyring().checkpoint_keys();
        self.link = Some(Link::NONE);
        for kept in KeptHorizon::all(tx).await? {
            let place = Place::Horizon(kept.position);
            match Horizon::open(&kept, &keys) {
                Ok(horizon) => {
                    self.horizon = Some((horizon.position, horizon.link, horizon.at));
                    self.link = Some(horizon.link);
                    self.position = horizon.position;
                    self.counters = horizon.writers;
                    self.checkpoints = horizon.checkpoints;
                }
                Err(what) => return bad(Bad::new(place, what)),
            }
        }
        self.first = first_position(tx).await?.unwrap_or(self.position + 1);
        if let Some((horizon, ..)) = self.horizon
            && self.first <= horizon
        {
            // Rows behind the horizon are left of a removal that was not finished: they are looked at from the first on.
            self.position = self.first.saturating_sub(1);
            self.link = None;
        }
        Ok(Ok(Step::Page))
    }

    /// The next rows of the chain; after the last of them the rest, in the same snapshot.
    pub(super) async fn page(&mut self, tx: &mut Tx<'_>, escrow: &Escrow) -> Walked<Step> {
        if self.has_moved(tx).await? {
            *self = Self::default();
            return Ok(Ok(Step::Begin));
        }
        let rows = tx
            .fetch_all(
                select_rows!(
                    ", audit_chain.position AS place, audit_chain.organisation AS link_organisation, \
                     audit_chain.audit_row AS link_row, audit_chain.writer AS link_writer, \
                     audit_chain.counter AS link_counter FROM audit_chain LEFT JOIN audit \
                     ON audit.organisation = audit_chain.organisation AND audit.id = audit_chain.audit_row \
                     WHERE audit_chain.position > $1 ORDER BY audit_chain.position LIMIT $2"
                ),
                params![number(self.position), PAGE],
            )
            .await?;
        let Some(last) = rows.last() else {
            return self.rest(tx, escrow).await;
        };
        let keys = escrow.keyring().checkpoint_keys();
        let (from, to) = (self.position, last.get("place")?);
        let mut checkpoints = match checkpoints(tx, from, to).await {
            Ok(checkpoints) => checkpoints,
            Err(Error::Database(_)) => {
                let what = "a checkpoint of the rows after it cannot be read";
                return bad(Bad::new(Place::Position(from), what));
            }
            Err(error) => return Err(error),
        };
        for row in &rows {
            if let Err(found) = self.sealed(row, escrow) {
                return bad(found);
            }
            while let Some(kept) = checkpoints.pop_front_if(|kept| kept.position == self.position) {
                if let Err(what) = self.checkpoint(&kept, &keys) {
                    return bad(Bad::new(Place::Checkpoint(kept.number), what));
                }
            }
        }
        if let Some(kept) = checkpoints.front() {
            let what = "it is not in the order in which checkpoints were signed";
            return bad(Bad::new(Place::Checkpoint(kept.number), what));
        }
        Ok(Ok(Step::Page))
    }

    /// Whether retention has taken rows away since it began.
    async fn has_moved(&self, tx: &mut Tx<'_>) -> Result<bool> {
        let row = tx
            .fetch_one(
                "SELECT MAX(position) AS last FROM audit_horizons",
                params![],
            )
            .await?;
        let last: Option<u64> = row.get("last")?;
        let first = first_position(tx).await?;
        let was_here = self.rows > 0 && first != Some(self.first);
        Ok(last != self.horizon.map(|(position, ..)| position) || was_here)
    }

    /// One row of the chain.
    fn sealed(&mut self, row: &Row, escrow: &Escrow) -> std::result::Result<(), Bad> {
        let expected = self.position + 1;
        let place = Place::Position(expected);
        let organisation: Option<String> = row.get("link_organisation").ok();
        let id: Option<String> = row.get("link_row").ok();
        let found =
            |what: &str| Bad::new(place.clone(), what).row(organisation.clone(), id.clone());
        let position: u64 = row
            .get("place")
            .map_err(|_| found("the position cannot be read"))?;
        if position > expected {
            let what = "nothing is at this position: a row was taken out of the chain";
            return Err(Bad::new(place, what));
        }
        if position < expected {
            return Err(found("two rows are at the position before this one"));
        }
        if row.get::<Option<String>>("id").ok().flatten().is_none() {
            return Err(found("the row is gone"));
        }
        let read = AuditRow::from_row(row, &escrow.keyring());
        check_intact(read.intact).map_err(&found)?;
        let writer: Option<String> = row
            .get("writer")
            .map_err(|_| found("the writer cannot be read"))?;
        let counter: Option<u64> = row
            .get("counter")
            .map_err(|_| found("the counter cannot be read"))?;
        let (sealed_as, sealed_count): (String, u64) =
            match (row.get("link_writer"), row.get("link_counter")) {
                (Ok(writer), Ok(counter)) => (writer, counter),
                _ => return Err(found("its writer and counter in the chain cannot be read")),
            };
        let is_same = match (&writer, counter) {
            (Some(writer), Some(counter)) => *writer == sealed_as && counter == sealed_count,
            _ => sealed_as == BEFORE,
        };
        if !is_same {
            return Err(found(
                "the chain says another writer or counter than the row does",
            ));
        }
        let link = self.link.map(|link| {
            link.next(position, &read.text, &read.mac_key, &read.mac)
                .hex()
        });
        let told = read.link.as_deref().unwrap_or_default();
        if link.is_some_and(|link| link != told) {
            return Err(found("its link does not follow from the one before it"));
        }
        let told = Link::from_hex(told).ok_or_else(|| found("its link is none"))?;
        if let Some((horizon, link, _)) = self.horizon
            && position == horizon
            && link != told
        {
            return Err(found(
                "its link is not the one that the horizon was signed for",
            ));
        }
        let is_behind = self
            .horizon
            .is_some_and(|(horizon, ..)| position <= horizon);
        if !is_behind {
            let last = self.counters.entry(sealed_as.clone()).or_default();
            if sealed_count != *last + 1 {
                let place = Place::Counter {
                    writer: sealed_as,
                    counter: *last + 1,
                };
                let what = "the next row of this writer in the chain has another number: one is missing, or they were reordered";
                return Err(Bad::new(place, what).row(organisation.clone(), id.clone()));
            }
            *last = sealed_count;
        }
        if sealed_as == BEFORE {
            self.before = (read.id, organisation.unwrap_or_default());
        }
        self.position = position;
        self.link = Some(told);
        self.rows += 1;
        self.last_at = row.get("at").ok();
        Ok(())
    }

    /// A checkpoint at the row that was read last.
    fn checkpoint(
        &mut self,
        kept: &Kept,
        keys: &[CheckpointPublicKey],
    ) -> std::result::Result<(), String> {
        if self
            .horizon
            .is_some_and(|(horizon, ..)| kept.position <= horizon)
        {
            return Ok(());
        }
        let said = Checkpoint::open(&kept.signed, keys)?;
        if (said.number, said.position, said.at) != (kept.number, kept.position, kept.at) {
            return Err("its columns do not say what was signed".to_owned());
        }
        if said.number != self.checkpoints + 1 {
            return Err(format!(
                "checkpoint {} is missing before it",
                self.checkpoints + 1
            ));
        }
        if Some(said.link) != self.link {
            return Err("the chain has another link at its position".to_owned());
        }
        let counted = self.counters.iter().filter(|(_, counter)| **counter > 0);
        if !counted.eq(said.writers.iter()) {
            return Err("the rows up to it are not those that it was signed for".to_owned());
        }
        self.checkpoints = said.number;
        Ok(())
    }

    /// What follows the chain: rows that are not sealed, and what must agree with all that was read.
    async fn rest(&mut self, tx: &mut Tx<'_>, escrow: &Escrow) -> Walked<Step> {
        let standing = match Standing::read(tx).await {
            Ok(standing) => standing,
            Err(Error::Database(Fault::Engine(what))) => {
                return Err(Error::Database(Fault::Engine(what)));
            }
            Err(_) => {
                return bad(Bad::new(
                    Place::End,
                    "what the sealer knows of it cannot be read",
                ));
            }
        };
        if standing.position != self.position || Some(standing.link) != self.link {
            let what = format!(
                "the chain ends at position {}, and was sealed up to {}",
                self.position, standing.position
            );
            return bad(Bad::new(Place::End, what));
        }
        if standing.checkpoints != self.checkpoints {
            let what = format!(
                "it is missing: the checkpoints end at {}, and {} were signed",
                self.checkpoints, standing.checkpoints
            );
            return bad(Bad::new(Place::Checkpoint(self.checkpoints + 1), what));
        }
        if let Some(left) = leftover_checkpoint(tx, self).await? {
            let what = "it was signed for no position of this chain";
            return bad(Bad::new(Place::Checkpoint(left), what));
        }
        let sealed = self.counters.clone();
        for step in [
            self.unsealed_before(tx, escrow).await?,
            self.unsealed(tx, escrow).await?,
            self.nothing_else(tx, &sealed).await?,
        ] {
            if let Err(found) = step {
                return Ok(Err(found));
            }
        }
        Ok(Ok(Step::End))
    }

    /// Rows of version 1 that are not sealed. They have no count.
    async fn unsealed_before(&mut self, tx: &mut Tx<'_>, escrow: &Escrow) -> Walked<()> {
        let (mut id, mut organisation) = self.before.clone();
        loop {
            let rows = tx
                .fetch_all(
                    select_rows!(
                        "FROM audit LEFT JOIN audit_chain ON FALSE WHERE audit.writer IS NULL \
                         AND (audit.id, audit.organisation) > ($1, $2) ORDER BY audit.id, audit.organisation LIMIT $3"
                    ),
                    params![id.as_str(), organisation.as_str(), PAGE],
                )
                .await?;
            for row in &rows {
                (id, organisation) = (row.get("id")?, row.get("organisation")?);
                if let Err(what) = check_intact(AuditRow::from_row(row, &escrow.keyring()).intact) {
                    let place = Place::Counter {
                        writer: BEFORE.to_owned(),
                        counter: self.counters.get(BEFORE).map_or(0, |last| *last)
                            + self.unsealed
                            + 1,
                    };
                    return bad(Bad::new(place, what).row(Some(organisation), Some(id)));
                }
                self.count(row);
            }
            if rows.is_empty() {
                return Ok(Ok(()));
            }
        }
    }

    /// Each writer's rows that are not sealed: gapless from the last sealed one to where its count says.
    async fn unsealed(&mut self, tx: &mut Tx<'_>, escrow: &Escrow) -> Walked<()> {
        let writers = tx
            .fetch_all("SELECT id, next FROM audit_writers ORDER BY id", params![])
            .await?;
        let mut known = vec![BEFORE.to_owned()];
        for row in &writers {
            let (writer, next): (String, u64) = match (row.get("id"), row.get("next")) {
                (Ok(writer), Ok(next)) => (writer, next),
                (writer, _) => {
                    let place = Place::Writer(writer.unwrap_or_default());
                    return bad(Bad::new(place, "it cannot be read"));
                }
            };
            let mut last = self.counters.get(&writer).map_or(0, |last| *last);
            loop {
                let rows = tx
                    .fetch_all(
                        select_rows!(
                            "FROM audit LEFT JOIN audit_chain ON FALSE \
                             WHERE audit.writer = $1 AND audit.counter > $2 ORDER BY audit.counter LIMIT $3"
                        ),
                        params![writer.as_str(), number(last), PAGE],
                    )
                    .await?;
                for row in &rows {
                    let place = Place::Counter {
                        writer: writer.clone(),
                        counter: last + 1,
                    };
                    let found = |what: &str| {
                        Bad::new(place.clone(), what)
                            .row(row.get("organisation").ok(), row.get("id").ok())
                    };
                    let read = AuditRow::from_row(row, &escrow.keyring());
                    if row.get::<u64>("counter").ok() != Some(last + 1) {
                        let what = "the next row of this writer has another number: one is missing, or is there twice";
                        return bad(found(what));
                    }
                    if let Err(what) = check_intact(read.intact) {
                        return bad(found(what));
                    }
                    last += 1;
                    self.count(row);
                }
                if rows.is_empty() {
                    break;
                }
            }
            if next != last + 1 {
                let what = format!(
                    "its rows end with number {last}, and it counted to {}",
                    next.saturating_sub(1)
                );
                return bad(Bad::new(Place::Writer(writer), what));
            }
            known.push(writer);
        }
        match self.counters.keys().find(|writer| !known.contains(writer)) {
            Some(writer) => {
                let what = "it is gone, and its rows are here";
                bad(Bad::new(Place::Writer(writer.clone()), what))
            }
            None => Ok(Ok(())),
        }
    }

    fn count(&mut self, row: &Row) {
        self.rows += 1;
        self.unsealed += 1;
        self.last_at = row.get("at").ok();
    }

    /// Whether there are rows that neither the chain nor a writer's count led to.
    async fn nothing_else(&self, tx: &mut Tx<'_>, sealed: &Counters) -> Walked<()> {
        let row = tx
            .fetch_one("SELECT COUNT(*) AS rows FROM audit", params![])
            .await?;
        if row.get::<u64>("rows")? == self.rows {
            return Ok(Ok(()));
        }
        let (mut organisation, mut id) = (String::new(), String::new());
        loop {
            let rows = tx
                .fetch_all(
                    "SELECT audit.organisation, audit.id, audit.writer, audit.counter FROM audit LEFT JOIN audit_chain \
                     ON audit_chain.organisation = audit.organisation AND audit_chain.audit_row = audit.id \
                     WHERE audit_chain.position IS NULL AND (audit.organisation, audit.id) > ($1, $2) \
                     ORDER BY audit.organisation, audit.id LIMIT $3",
                    params![organisation.as_str(), id.as_str(), PAGE],
                )
                .await?;
            for row in &rows {
                (organisation, id) = (row.get("organisation")?, row.get("id")?);
                let writer: Option<String> = row.get("writer").unwrap_or_default();
                let counter: Option<u64> = row.get("counter").unwrap_or_default();
                let is_counted = match (&writer, counter) {
                    (Some(writer), Some(counter)) => {
                        self.counters.contains_key(writer)
                            && sealed.get(writer).is_none_or(|last| counter > *last)
                    }
                    (None, None) => (&id, &organisation) > (&self.before.0, &self.before.1),
                    _ => false,
                };
                if !is_counted {
                    let what = "it was put in beside the record, or took the place of another";
                    return bad(Bad::new(Place::Stray, what).row(Some(organisation), Some(id)));
                }
            }
            if rows.is_empty() {
                let what = "there are more rows than the chain and the writers' counts lead to";
                return bad(Bad::new(Place::Stray, what));
            }
        }
    }

    /// A checkpoint from outside, compared with the record that was read.
    pub(super) async fn outside(
        &self,
        tx: &mut Tx<'_>,
        line: &str,
        keys: &[CheckpointPublicKey],
    ) -> Result<std::result::Result<Proven, String>> {
        let Some(signed) = Signed::from_line(line) else {
            return Ok(Err("it is not a checkpoint".to_owned()));
        };
        let said = match Checkpoint::open(&signed, keys) {
            Ok(said) => said,
            Err(what) => return Ok(Err(what)),
        };
        let proven = Proven {
            position: said.position,
            at: said.at,
        };
        if said.position > self.position || said.number > self.checkpoints {
            return Ok(Err(format!(
                "it was signed at position {}, and the record ends at position {}: what came between was cut off, or the vault is an older copy of itself",
                said.position, self.position
            )));
        }
        let link = match self.horizon {
            // What it speaks of was taken away by retention, with a signed word that stands for it.
            Some((horizon, ..)) if said.position < horizon => return Ok(Ok(proven)),
            Some((horizon, link, _)) if said.position == horizon => Some(link),
            _ => {
                let row = tx
                    .fetch_optional(
                        "SELECT link FROM audit_chain WHERE position = $1",
                        params![number(said.position)],
                    )
                    .await?;
                let link: Option<String> = row.map(|row| row.get("link")).transpose()?;
                link.as_deref().and_then(Link::from_hex)
            }
        };
        Ok(match link == Some(said.link) {
            true => Ok(proven),
            false => Err(format!(
                "the record has another link at position {}: rows up to there were changed and sealed anew, or the vault was once replaced by an older copy of itself",
                said.position
            )),
        })
    }
}

fn bad<T>(found: Bad) -> Walked<T> {
    Ok(Err(Box::new(found)))
}

fn check_intact(intact: Intact) -> std::result::Result<(), &'static str> {
    match intact {
        Intact::Yes => Ok(()),
        Intact::Changed => Err("its text, its MAC or a copied column was changed"),
        Intact::UnknownKey => Err("the key that its MAC names is not among this vault's keys"),
    }
}

async fn first_position(tx: &mut Tx<'_>) -> Result<Option<u64>> {
    let sql = "SELECT MIN(position) AS first FROM audit_chain";
    tx.fetch_one(sql, params![]).await?.get("first")
}

/// The checkpoints of a stretch of the chain, in the order of their numbers.
async fn checkpoints(tx: &mut Tx<'_>, from: u64, to: u64) -> Result<VecDeque<Kept>> {
    let rows = tx
        .fetch_all(
            "SELECT number, position, at, text, signature FROM audit_checkpoints \
             WHERE position > $1 AND position <= $2 ORDER BY number",
            params![number(from), number(to)],
        )
        .await?;
    rows.iter().map(Kept::from_row).collect()
}

/// A checkpoint that no position of the chain led to.
async fn leftover_checkpoint(tx: &mut Tx<'_>, walk: &Walk) -> Result<Option<u64>> {
    let row = tx
        .fetch_optional(
            "SELECT number FROM audit_checkpoints WHERE position > $1 OR number > $2 ORDER BY number LIMIT 1",
            params![number(walk.position), number(walk.checkpoints)],
        )
        .await?;
    row.map(|row| row.get("number")).transpose()
}
