//! Refusals of nobody in particular: counted before they get here, and put on record in one row, so that a flood of them cannot
//! fill it.

use activation_lock::time::Timestamp;
use serde_json::json;

use super::{Audit, Entry, record};
use crate::Result;
use crate::permit::{Actor, OrganisationId, Permissions};

/// Refusals of one kind from one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unauthenticated {
    /// What was refused, in a stable word, such as `token` or `webhook`.
    pub kind: &'static str,
    /// Where it came from; nothing when that is not known, or there were more addresses than are told apart.
    pub address: Option<String>,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first_at: Timestamp,
    /// The last.
    pub last_at: Timestamp,
}

impl Audit<'_> {
    /// Puts refusals on record, all in one row; nothing when there are none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unauthenticated(&self, refusals: Vec<Unauthenticated>) -> Result<()> {
        if refusals.is_empty() {
            return Ok(());
        }
        let escrow = self.0.clone();
        self.0
            .db
            .write("audit.unauthenticated", async move |tx| {
                let told = refusals.iter().map(|refusal| {
                    json!({
                        "kind": refusal.kind,
                        "address": refusal.address,
                        "count": refusal.count,
                        "first_at": refusal.first_at.0,
                        "last_at": refusal.last_at.0,
                    })
                });
                let told: Vec<_> = told.collect();
                let count: u64 = refusals.iter().map(|refusal| refusal.count).sum();
                let actor = Actor::system("server", Permissions::NONE);
                let everywhere = OrganisationId::new("*");
                let entry = Entry::by(&actor, &everywhere, "refused")
                    .subject("unauthenticated")
                    .result("unauthenticated")
                    .detail("count", count)
                    .detail("refusals", told);
                record(tx, &escrow, entry).await
            })
            .await
    }
}
