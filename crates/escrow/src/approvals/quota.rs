//! How much one human being may do in an hour without another's approval.

use std::time::Duration;

use activation_lock::time::Timestamp;

use crate::db::{Tx, params};
use crate::permit::{Actor, OrganisationId, PrincipalKind, Refusal};
use crate::{Error, Result};

use super::policy::Action;

const HOUR: Duration = Duration::from_secs(3_600);
/// Reveals an hour, where an organisation has not set another number.
pub const REVEALS_AN_HOUR: u32 = 20;
/// Unlocks an hour, where an organisation has not set another number.
pub const UNLOCKS_AN_HOUR: u32 = 50;

/// Counts so many devices more, or refuses it. The program itself has no quota; a token of nobody has its own.
pub(super) async fn take(
    tx: &mut Tx<'_>,
    actor: &Actor,
    organisation: &OrganisationId,
    action: Action,
    devices: u32,
) -> Result<()> {
    // Whoever takes codes away sees them.
    let action = match action {
        Action::Export | Action::ExportPlain => Action::Reveal,
        other => other,
    };
    if actor.kind() == PrincipalKind::System {
        return Ok(());
    }
    let Some(limit) = limit(tx, organisation, action).await? else {
        return Ok(());
    };
    let who = actor.human().unwrap_or(actor.principal());
    let now = tx.now();
    let (since, key) = (
        now.minus(HOUR),
        [organisation.as_str(), who, action.as_str()],
    );
    tx.execute(
        "DELETE FROM quota_uses WHERE organisation = $1 AND who = $2 AND action = $3 AND at <= $4",
        params![key[0], key[1], key[2], since],
    )
    .await?;
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(devices), 0) AS BIGINT) AS uses, MIN(at) AS first_at FROM quota_uses WHERE organisation = $1 AND who = $2 AND action = $3",
            params![key[0], key[1], key[2]],
        )
        .await?;
    let uses: i64 = row.get("uses")?;
    if uses + i64::from(devices) > i64::from(limit) {
        let first: Option<Timestamp> = row.get("first_at")?;
        return Err(Error::Refused(Refusal::Quota {
            actor: actor.name().to_owned(),
            action,
            limit,
            wait: first.map_or(HOUR, |first| first.plus(HOUR).since(now)),
        }));
    }
    let id = tx.new_id().to_string();
    tx.execute(
        "INSERT INTO quota_uses (organisation, who, action, id, at, devices) VALUES ($1, $2, $3, $4, $5, $6)",
        params![key[0], key[1], key[2], id, now, i64::from(devices)],
    )
    .await?;
    Ok(())
}

async fn limit(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    action: Action,
) -> Result<Option<u32>> {
    let (column, default) = match action {
        Action::Reveal => ("reveals_an_hour", REVEALS_AN_HOUR),
        Action::Unlock => ("unlocks_an_hour", UNLOCKS_AN_HOUR),
        _ => return Ok(None),
    };
    let row = tx
        .fetch_optional(
            "SELECT reveals_an_hour, unlocks_an_hour FROM policies WHERE organisation = $1",
            params![organisation.as_str()],
        )
        .await?;
    let set: Option<i64> = row.map(|row| row.get(column)).transpose()?.flatten();
    Ok(Some(
        set.and_then(|set| u32::try_from(set).ok())
            .unwrap_or(default),
    ))
}
