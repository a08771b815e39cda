//! Where the fakes take the time from.

use std::{fmt, sync::Arc, time::Duration};

use time::OffsetDateTime;

/// The time of the fakes, in UTC. Tests hand in one they move themselves.
#[derive(Clone)]
pub struct Now(Arc<dyn Fn() -> OffsetDateTime + Send + Sync>);

impl Now {
    /// Time is whatever `read` says, each time it is asked.
    pub fn new(read: impl Fn() -> OffsetDateTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The machine's clock.
    pub fn wall() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where the fakes read the machine's clock"
        )]
        Self::new(OffsetDateTime::now_utc)
    }

    /// The time now.
    pub fn get(&self) -> OffsetDateTime {
        (self.0)()
    }
}

impl Default for Now {
    fn default() -> Self {
        Self::wall()
    }
}

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Now")
    }
}

impl rustls::time_provider::TimeProvider for Now {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        let seconds = u64::try_from(self.get().unix_timestamp()).ok()?;
        Some(rustls::pki_types::UnixTime::since_unix_epoch(
            Duration::from_secs(seconds),
        ))
    }
}

/// Sleeps: a fault that delays, and the pause between two rounds of lively devices. Nothing else in this crate does.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the fakes sleep, because a test asked them to be slow"
)]
pub(crate) async fn pause(how_long: Duration) {
    tokio::time::sleep(how_long).await;
}
