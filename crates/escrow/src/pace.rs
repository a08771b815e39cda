//! How fast calls may leave: token buckets as rows, shared by every process that uses the database.

use std::time::Duration;

use activation_lock::time::Timestamp;

use crate::Result;
use crate::db::{Tx, params};

/// What asking a bucket for a token gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// One token less is left.
    Taken,
    /// The bucket is empty; there is a token at this moment.
    Until(Timestamp),
}

/// How a bucket fills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Tokens a second; not positive means no limit.
    pub per_second: f64,
    /// Tokens a full bucket holds, at least one.
    pub burst: f64,
}

impl Rate {
    /// A rate whose bucket holds one second's worth, at least one token.
    #[must_use]
    pub fn per_second(per_second: f64) -> Self {
        Self {
            per_second,
            burst: per_second.max(1.0),
        }
    }

    /// A bucket after time has passed. The clock may have been set back: then no time has passed.
    fn filled(self, tokens: f64, passed: Duration) -> f64 {
        (tokens + passed.as_secs_f64() * self.per_second).min(self.burst.max(1.0))
    }

    /// How long until a bucket that holds `tokens` has a whole one.
    fn wait(self, tokens: f64) -> Duration {
        let seconds = (1.0 - tokens) / self.per_second;
        Duration::from_millis(
            Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0)).as_millis() as u64 + 1,
        )
    }
}

/// Takes one token from the bucket `name`, which starts full.
pub(crate) async fn take(tx: &mut Tx<'_>, name: &str, rate: Rate) -> Result<Pace> {
    if rate.per_second <= 0.0 {
        return Ok(Pace::Taken);
    }
    let now = tx.now();
    let row = tx
        .fetch_optional(
            "SELECT tokens, updated_at FROM pace WHERE name = $1",
            params![name],
        )
        .await?;
    let tokens = match row {
        Some(row) => {
            let updated_at: Timestamp = row.get("updated_at")?;
            rate.filled(row.get("tokens")?, now.since(updated_at))
        }
        None => rate.burst.max(1.0),
    };
    if tokens < 1.0 {
        return Ok(Pace::Until(now.plus(rate.wait(tokens))));
    }
    tx.execute(
        "INSERT INTO pace (name, tokens, updated_at) VALUES ($1, $2, $3) \
         ON CONFLICT (name) DO UPDATE SET tokens = excluded.tokens, updated_at = excluded.updated_at",
        params![name, tokens - 1.0, now],
    )
    .await?;
    Ok(Pace::Taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_with_time_and_never_overflows() {
        let rate = Rate::per_second(5.0);
        assert!((rate.filled(0.0, Duration::from_millis(200)) - 1.0).abs() < 1e-9);
        assert!((rate.filled(3.0, Duration::from_secs(3600)) - 5.0).abs() < 1e-9);
        assert!((rate.filled(0.5, Duration::ZERO) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn after_the_wait_there_is_a_token() {
        for per_second in [0.1, 1.0, 3.0, 5.0, 500.0] {
            let rate = Rate::per_second(per_second);
            assert!(rate.filled(0.0, rate.wait(0.0)) >= 1.0, "{per_second}");
        }
    }
}
