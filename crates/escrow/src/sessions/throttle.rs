//! How often somebody may try to prove who they are: wrong answers cost time, an account's and an address's each, counted in the
//! database so that no restart forgets them.

use std::net::IpAddr;
use std::time::Duration;

use activation_lock::time::{DAY, Timestamp};
use seal::TokenHash;

use crate::db::{Tx, params};
use crate::{Escrow, Result};

/// What is counted apart.
pub(super) enum Counted<'a> {
    /// A name that was tried, whether somebody signs in with it or not.
    Account(&'a str),
    /// Where it was tried from.
    Address(&'a str),
}

/// How wrong answers become waiting.
struct Rule {
    free: i64,
    longest: Duration,
    /// After that long without a wrong answer they are forgotten.
    forgotten_after: Duration,
}

impl Counted<'_> {
    fn rule(&self) -> Rule {
        match self {
            Self::Account(_) => Rule {
                free: 5,
                longest: Duration::from_secs(15 * 60),
                forgotten_after: DAY,
            },
            // Many people may share one.
            Self::Address(_) => Rule {
                free: 20,
                longest: Duration::from_secs(60),
                forgotten_after: Duration::from_secs(3_600),
            },
        }
    }

    /// What stands in the database: not the text itself, since people type passwords into the wrong field.
    fn mark(&self) -> String {
        let text = match self {
            Self::Account(login) => format!("account {login}"),
            Self::Address(address) => format!("address {}", network(address)),
        };
        TokenHash::of(&text).hex()
    }
}

impl Rule {
    /// How long after the last of so many wrong answers the next is looked at: twice as long each time.
    fn delay(&self, failures: i64) -> Duration {
        let beyond = u32::try_from(failures - self.free)
            .unwrap_or(u32::MAX)
            .min(20);
        match failures >= self.free {
            true => Duration::from_secs(1 << beyond).min(self.longest),
            false => Duration::ZERO,
        }
    }
}

/// Of an address of version 6, the network of one site: who has one has very many addresses.
fn network(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        _ => address.to_owned(),
    }
}

/// Counts a try as a wrong one, before it is looked at, so that many at once gain nothing. Or says how long to wait first.
pub(super) async fn begin(tx: &mut Tx<'_>, counted: &[Counted<'_>]) -> Result<Option<Duration>> {
    let now = tx.now();
    let mut wait = Duration::ZERO;
    let mut counts = Vec::with_capacity(counted.len());
    for one in counted {
        let (mark, rule) = (one.mark(), one.rule());
        let row = tx
            .fetch_optional(
                "SELECT failures, last_at FROM sign_in_failures WHERE mark = $1",
                params![mark.as_str()],
            )
            .await?;
        let mut failures = 0;
        if let Some(row) = row {
            let last: Timestamp = row.get("last_at")?;
            if now.since(last) < rule.forgotten_after {
                failures = row.get("failures")?;
                wait = wait.max(rule.delay(failures).saturating_sub(now.since(last)));
            }
        }
        counts.push((mark, failures + 1));
    }
    if !wait.is_zero() {
        return Ok(Some(wait));
    }
    for (mark, failures) in counts {
        tx.execute(
            "INSERT INTO sign_in_failures (mark, failures, last_at) VALUES ($1, $2, $3) \
             ON CONFLICT (mark) DO UPDATE SET failures = excluded.failures, last_at = excluded.last_at",
            params![mark, failures, now],
        )
        .await?;
    }
    Ok(None)
}

/// The try was right after all: an account's count begins anew, and an address has one wrong answer less. An address's count does
/// not begin anew, or who has an account of their own could go on guessing others' for ever.
pub(super) async fn was_right(tx: &mut Tx<'_>, counted: &[Counted<'_>]) -> Result<()> {
    for one in counted {
        let sql = match one {
            Counted::Account(_) => "UPDATE sign_in_failures SET failures = 0 WHERE mark = $1",
            Counted::Address(_) => {
                "UPDATE sign_in_failures SET failures = failures - 1 WHERE mark = $1 AND failures > 0"
            }
        };
        tx.execute(sql, params![one.mark()]).await?;
    }
    Ok(())
}

/// Writes what is there anyway.
pub(super) async fn touch(tx: &mut Tx<'_>, login: &str) -> Result<()> {
    tx.execute(
        "UPDATE sign_in_failures SET failures = failures WHERE mark = $1",
        params![Counted::Account(login).mark()],
    )
    .await?;
    Ok(())
}

impl Escrow {
    /// Forgets wrong answers of long ago.
    pub(super) async fn forget_failures(&self) -> Result<()> {
        self.db
            .write("sessions.forget_failures", async move |tx| {
                let before = tx.now().minus(DAY);
                tx.execute(
                    "DELETE FROM sign_in_failures WHERE last_at < $1",
                    params![before],
                )
                .await?;
                Ok(())
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_doubles_and_has_an_end() {
        let rule = Counted::Account("zoe").rule();
        let waits: Vec<_> = (3..=20).map(|n| rule.delay(n).as_secs()).collect();
        assert_eq!(waits[..6], [0, 0, 1, 2, 4, 8]);
        assert_eq!(waits.last(), Some(&900));
        assert_eq!(rule.delay(i64::MAX).as_secs(), 900);
    }

    #[test]
    fn one_site_is_one_address() {
        let mark = |address: &str| Counted::Address(address).mark();
        assert_eq!(mark("2001:db8:1:2::7"), mark("2001:db8:1:2:ffff::1"));
        assert_ne!(mark("2001:db8:1:2::7"), mark("2001:db8:1:3::7"));
        assert_ne!(mark("192.0.2.7"), mark("192.0.2.8"));
        assert_ne!(mark("zoe"), Counted::Account("zoe").mark());
    }
}
