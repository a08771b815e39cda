//! Emergencies: what was done without the approval that it needed, until another person has seen it.

use activation_lock::time::Timestamp;

use crate::db::{Row, Tx, params};
use crate::notices::NoticeKind;
use crate::people::credentials::themselves;
use crate::permit::{Approve, Permission, Permit, Read, Refusal};
use crate::{Error, Escrow, Result, audit};

use super::policy::Action;
use super::{Guard, read_targets, tell};

/// One emergency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emergency {
    /// Its identifier, which the audit row names.
    pub id: String,
    /// What was done.
    pub action: Action,
    /// To what.
    pub targets: Vec<String>,
    /// Why, in the person's words.
    pub reason: String,
    /// The person, by their principal's identifier.
    pub human: String,
    /// Their name.
    pub name: String,
    /// When.
    pub at: Timestamp,
    /// When another person acknowledged it, and who.
    pub acknowledged: Option<(Timestamp, String)>,
}

impl Emergency {
    fn from_row(row: &Row) -> Result<Self> {
        let action: String = row.get("action")?;
        let acknowledged_at: Option<Timestamp> = row.get("acknowledged_at")?;
        let acknowledged_by: Option<String> = row.get("acknowledged_by")?;
        Ok(Self {
            id: row.get("id")?,
            action: Action::from_name(&action).ok_or(Error::Corrupt("glass_broken.action"))?,
            targets: read_targets(row)?,
            reason: row.get("reason")?,
            human: row.get("human")?,
            name: row.get("name")?,
            at: row.get("at")?,
            acknowledged: acknowledged_at.map(|at| (at, acknowledged_by.unwrap_or_default())),
        })
    }
}

/// What came of acknowledging an emergency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// It is off the list.
    Done(Emergency),
    /// Whoever broke the glass cannot say that it was all right.
    Own,
    /// There is none of that identifier, or somebody acknowledged it before.
    Unknown,
}

/// Puts on record that a person goes on without the approval that is needed. Gives the emergency's identifier.
pub(super) async fn begin(
    tx: &mut Tx<'_>,
    permit: &Permit<impl crate::permit::Right>,
    guard: &Guard,
    reason: &str,
) -> Result<String> {
    let (actor, organisation) = (permit.actor(), &guard.organisation(permit));
    let (human, _) = themselves(actor)?;
    let may = crate::people::grants_of(tx, &human).await?;
    if !may.within(organisation).allow(Permission::BreakGlass) {
        return Err(Error::Refused(Refusal::Permission {
            actor: actor.name().to_owned(),
            permission: Permission::BreakGlass,
        }));
    }
    let (id, now) = (tx.new_id().to_string(), tx.now());
    tx.execute(
        "INSERT INTO glass_broken (organisation, id, action, targets, reason, human, name, at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        params![
            organisation.as_str(),
            id.as_str(),
            guard.action.as_str(),
            guard.written(),
            reason,
            human,
            actor.name(),
            now
        ],
    )
    .await?;
    Ok(id)
}

/// The verbs on emergencies. See [`Escrow::emergencies`].
pub struct Emergencies<'a>(&'a Escrow);

impl Escrow {
    /// What was done without the approval that it needed.
    #[must_use]
    pub fn emergencies(&self) -> Emergencies<'_> {
        Emergencies(self)
    }
}

impl Emergencies<'_> {
    /// Those of the permit's organisation, newest first; only those that nobody has acknowledged, unless all are asked for.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn list(&self, permit: &Permit<Read>, all: bool) -> Result<Vec<Emergency>> {
        let confirmed = permit.clone();
        let result = self
            .0
            .db
            .read(async move |tx| {
                confirmed.confirm(tx).await?;
                tx.fetch_all(
                    "SELECT id, action, targets, reason, human, name, at, acknowledged_at, acknowledged_by FROM glass_broken \
                     WHERE organisation = $1 AND (acknowledged_at IS NULL OR $2 = 1) ORDER BY id DESC",
                    params![confirmed.organisation().as_str(), i64::from(all)],
                )
                .await?
                .iter()
                .map(Emergency::from_row)
                .collect()
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Says, as another person, that one has seen it.
    ///
    /// # Errors
    /// [`Error::Refused`] when the actor is not a person who signed in, or may not; or when the database fails.
    pub async fn acknowledge(&self, permit: &Permit<Approve>, id: &str) -> Result<Acknowledged> {
        let (escrow, confirmed, id) = (self.0.clone(), permit.clone(), id.to_owned());
        let result = self
            .0
            .db
            .write("emergencies.acknowledge", async move |tx| {
                confirmed.confirm(tx).await?;
                let organisation = confirmed.organisation().as_str();
                let row = tx
                    .fetch_optional(
                        "SELECT id, action, targets, reason, human, name, at, acknowledged_at, acknowledged_by \
                         FROM glass_broken WHERE organisation = $1 AND id = $2 AND acknowledged_at IS NULL",
                        params![organisation, id.as_str()],
                    )
                    .await?;
                let Some(row) = row else { return Ok(Acknowledged::Unknown) };
                let (human, _) = themselves(confirmed.actor())?;
                let mut emergency = Emergency::from_row(&row)?;
                if emergency.human == human {
                    return Ok(Acknowledged::Own);
                }
                let now = tx.now();
                let by = confirmed.actor().name();
                tx.execute(
                    "UPDATE glass_broken SET acknowledged_at = $3, acknowledged_by = $4 WHERE organisation = $1 AND id = $2",
                    params![organisation, id.as_str(), now, by],
                )
                .await?;
                let entry = confirmed.entry("break_glass.acknowledge").subject(&id);
                audit::record(tx, &escrow, entry).await?;
                let told = serde_json::json!({ "emergency": id, "by": by, "done_by": emergency.name });
                let organisation = confirmed.organisation();
                tell(tx, &escrow, organisation, NoticeKind::BreakGlassAcknowledged, told).await?;
                emergency.acknowledged = Some((now, by.to_owned()));
                Ok(Acknowledged::Done(emergency))
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }
}
