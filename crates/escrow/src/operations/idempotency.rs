//! Idempotency keys: a key counts for a principal, a route, an organisation and a body, for seven days.

use std::fmt::Write as _;
use std::time::Duration;

use seal::TokenHash;

use crate::Result;
use crate::db::{Tx, params};
use crate::permit::OrganisationId;

/// How long a key is remembered.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A key of a client, with the hash of what was asked for under it.
#[derive(Clone, Debug)]
pub struct Key {
    key: String,
    body: String,
}

impl Key {
    /// A key with the parts of the request that it stands for. The parts are hashed; two requests are the same when all
    /// their parts are.
    #[must_use]
    pub fn new(key: impl Into<String>, parts: &[&str]) -> Self {
        let mut body = String::new();
        for part in parts {
            write!(body, "{}:{part},", part.len()).expect("writing to a String does not fail");
        }
        Self {
            key: key.into(),
            body: TokenHash::of(&body).hex(),
        }
    }
}

pub(crate) enum Found {
    Same { operation: String },
    OtherBody,
}

pub(crate) async fn find(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    principal: &str,
    route: &str,
    key: &Key,
) -> Result<Option<Found>> {
    let oldest = tx.now().minus(REMEMBERED);
    let row = tx
        .fetch_optional(
            "SELECT body, operation FROM idempotency_keys WHERE organisation = $1 AND principal = $2 AND route = $3 \
             AND key = $4 AND created_at > $5",
            params![organisation.as_str(), principal, route, key.key.as_str(), oldest],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(if row.get::<String>("body")? == key.body {
        Found::Same {
            operation: row.get("operation")?,
        }
    } else {
        Found::OtherBody
    }))
}

pub(crate) async fn keep(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    principal: &str,
    route: &str,
    key: &Key,
    operation: &str,
) -> Result<()> {
    let now = tx.now();
    tx.execute(
        "INSERT INTO idempotency_keys (organisation, principal, route, key, body, operation, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (organisation, principal, route, key) \
         DO UPDATE SET body = excluded.body, operation = excluded.operation, created_at = excluded.created_at",
        params![organisation.as_str(), principal, route, key.key.as_str(), key.body.as_str(), operation, now],
    )
    .await?;
    Ok(())
}

pub(super) async fn sweep(tx: &mut Tx<'_>) -> Result<u64> {
    let oldest = tx.now().minus(REMEMBERED);
    tx.execute(
        "DELETE FROM idempotency_keys WHERE created_at <= $1",
        params![oldest],
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(
            Key::new("k", &["ab", "c"]).body,
            Key::new("k", &["a", "bc"]).body
        );
        assert_eq!(
            Key::new("k", &["a", "b"]).body,
            Key::new("other", &["a", "b"]).body
        );
    }
}
