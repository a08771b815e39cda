//! Answers with a code that wait for the serial number of their epoch. They are never thrown away (R1).

use super::*;

/// An answer that waits for the serial number of its epoch.
pub(crate) struct Held {
    pub(crate) organisation: OrganisationId,
    pub(crate) id: String,
    pub(crate) epoch: String,
    pub(crate) command: Option<String>,
    pub(crate) standing: Standing,
    pub(crate) cell: Vec<u8>,
    pub(crate) event_at: Timestamp,
    pub(crate) change: HeldChange,
}

/// What is to happen to the row of a held answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeldChange {
    None,
    Insert,
    Move,
}

impl Ledger<'_> {
    pub(super) async fn read_held(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let nameless: Vec<Json> = self
            .epochs
            .iter()
            .filter(|e| e.epoch.serial.is_none())
            .map(|e| json!([e.epoch.organisation.as_str(), e.epoch.id.as_str()]))
            .collect();
        if nameless.is_empty() {
            return Ok(());
        }
        let found = tx
            .fetch_all(
                "SELECT organisation, id, epoch, command, standing, cell, event_at FROM (SELECT value FROM json_each($1)) AS wanted \
                 JOIN held_answers ON organisation = wanted.value ->> 0 AND epoch = wanted.value ->> 1 ORDER BY id",
                params![rows(nameless)],
            )
            .await?;
        for row in found {
            self.held.push(Held {
                organisation: row.get("organisation")?,
                id: row.get("id")?,
                epoch: row.get("epoch")?,
                command: row.get("command")?,
                standing: row
                    .get::<String>("standing")?
                    .parse()
                    .map_err(|_| crate::Error::Corrupt("held_answers.standing"))?,
                cell: row.get("cell")?,
                event_at: row.get("event_at")?,
                change: HeldChange::None,
            });
        }
        Ok(())
    }

    pub(crate) fn hold(&mut self, held: Held) {
        self.held.push(held);
    }

    /// Takes out the answers held for an epoch, in the order they came.
    pub(crate) fn release_held(&mut self, epoch: &str) -> Vec<Held> {
        let (released, kept): (Vec<Held>, Vec<Held>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| held.epoch == epoch);
        self.held = kept;
        self.released.extend(
            released
                .iter()
                .filter(|h| h.change != HeldChange::Insert)
                .map(|h| (h.organisation.clone(), h.id.clone())),
        );
        released
    }

    /// What earlier epochs of the same enrollment told and never said whose it was goes to this new one, for the MDM's name of an
    /// enrollment is one device's. It is of the past there.
    pub(super) fn inherit_held(&mut self, at: usize) {
        let new = self.epoch(at);
        let earlier: HashSet<String> = self
            .epochs
            .iter()
            .map(|entry| &entry.epoch)
            .filter(|epoch| {
                epoch.id != new.id
                    && epoch.serial.is_none()
                    && epoch.connection == new.connection
                    && epoch.enrollment == new.enrollment
            })
            .map(|epoch| epoch.id.clone())
            .collect();
        let new = new.id.clone();
        for held in self
            .held
            .iter_mut()
            .filter(|held| earlier.contains(&held.epoch))
        {
            held.epoch.clone_from(&new);
            held.standing = Standing::Late;
            if held.change == HeldChange::None {
                held.change = HeldChange::Move;
            }
        }
    }

    pub(super) async fn write_held(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        for held in self
            .held
            .iter()
            .filter(|held| held.change != HeldChange::None)
        {
            tx.execute(
                "INSERT INTO held_answers (organisation, id, epoch, command, standing, cell, event_at, recorded_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
                 ON CONFLICT (organisation, id) DO UPDATE SET epoch = excluded.epoch, standing = excluded.standing",
                params![
                    held.organisation.as_str(),
                    held.id.as_str(),
                    held.epoch.as_str(),
                    held.command.as_deref(),
                    held.standing.as_str(),
                    held.cell.clone(),
                    held.event_at,
                    self.now
                ],
            )
            .await?;
        }
        for (organisation, id) in &self.released {
            tx.execute(
                "DELETE FROM held_answers WHERE organisation = $1 AND id = $2",
                params![organisation.as_str(), id.as_str()],
            )
            .await?;
        }
        Ok(())
    }
}
