//! Refusals of nobody in particular, counted by kind and address until they are put on record together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use activation_lock::time::Timestamp;
use escrow::audit::Unauthenticated;

/// Addresses told apart at once; refusals from further ones are counted without theirs.
const ADDRESSES: usize = 256;

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A request to the API without a token or session that is valid.
    Token,
    /// Somebody who was not let in, and of whom it is not known who they are.
    SignIn,
    /// A browser was made to send its session by a page of another site.
    ForeignPage,
    /// A webhook that did not prove that it is its MDM's own.
    Webhook,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::SignIn => "sign_in",
            Self::ForeignPage => "foreign_page",
            Self::Webhook => "webhook",
        }
    }
}

#[derive(Clone, Copy)]
struct Count {
    count: u64,
    first_at: Timestamp,
    last_at: Timestamp,
}

/// The counts since they were last taken. However many are refused, it stays small.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<HashMap<(Kind, Option<IpAddr>), Count>>);

impl Refusals {
    /// Something was refused.
    pub(crate) fn count(&self, refused: Kind, address: Option<IpAddr>, now: Timestamp) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_told_apart = counts.len() < ADDRESSES || counts.contains_key(&(refused, address));
        let key = (refused, address.filter(|_| is_told_apart));
        let count = counts.entry(key).or_insert(Count {
            count: 0,
            first_at: now,
            last_at: now,
        });
        count.count += 1;
        count.last_at = now;
    }

    /// The counts, which begin anew; in the order of kinds and addresses.
    pub(crate) fn take(&self) -> Vec<Unauthenticated> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken: Vec<_> = std::mem::take(&mut *counts).into_iter().collect();
        drop(counts);
        taken.sort_unstable_by_key(|(key, _)| *key);
        taken
            .into_iter()
            .map(|((refused, address), count)| Unauthenticated {
                kind: refused.as_str(),
                address: address.map(|address| address.to_string()),
                count: count.count,
                first_at: count.first_at,
                last_at: count.last_at,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_flood_from_everywhere_stays_small_and_every_refusal_counts() {
        let refusals = Refusals::default();
        for number in 0..100_000_u32 {
            let address = IpAddr::from(Ipv4Addr::from(number));
            refusals.count(Kind::Token, Some(address), Timestamp(number.into()));
            refusals.count(Kind::Webhook, None, Timestamp(number.into()));
        }
        let taken = refusals.take();
        assert!(taken.len() <= ADDRESSES + 2, "{}", taken.len());
        let of = |kind: &str| {
            let of = taken.iter().filter(|one| one.kind == kind);
            of.map(|one| one.count).sum::<u64>()
        };
        assert_eq!((of("token"), of("webhook")), (100_000, 100_000));
        let rest = &taken[0];
        assert_eq!((rest.kind, rest.address.as_deref()), ("token", None));
        assert_eq!(rest.last_at, Timestamp(99_999));
        assert!(refusals.take().is_empty());
    }
}
