//! What has to be looked at now and then: questions that are due, disputes, counters, old keys, certificates that end.

use std::time::Duration;

use activation_lock::time::{DAY, Timestamp};
use apple::dep::token::TokenExpiry;
use apple::push_certificate::WARNING;
use escrow::duties::Duty;

use super::wait_until;
use crate::App;
use crate::lifecycle::Shutdown;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
/// So long after the start the counters are first swept: counting every device is not what a start should wait for.
const FIRST_SWEEP: Duration = Duration::from_secs(10 * 60);
/// Enrollments whose next question is planned in one transaction.
const PLANNED_AT_ONCE: i64 = 500;

/// What is done in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// Questions that are due are put on record (R8).
    Plan,
    /// Disputes over a serial number end where one side has fallen silent (R5).
    SettleDisputes,
    /// Idempotency keys are forgotten.
    SweepKeys,
    /// By what events are recognised is forgotten after 30 days (R22).
    SweepEvents,
    /// The counters are compared with what they count.
    SweepCoverage,
    /// How many codes are held is noted, for how that changes.
    NoteCoverage,
    /// Sessions that ended long ago, wrong answers of yesterday and old notices are forgotten.
    SweepSessions,
    /// Push certificates and server tokens that end soon are logged.
    WatchCertificates,
}

/// A task, and when it is next done.
struct Round {
    task: Task,
    every: Duration,
    due: Timestamp,
}

impl Round {
    /// Whether it is time. The clock may have been set back.
    fn is_due(&self, now: Timestamp) -> bool {
        now >= self.due || self.due.since(now) > self.every
    }
}

/// Goes round until the server is to end.
pub(super) async fn work(app: App, shutdown: Shutdown) {
    let start = app.now();
    let round = |task, every, after| Round {
        task,
        every,
        due: start.plus(after),
    };
    let mut rounds = [
        round(Task::Plan, MINUTE, Duration::ZERO),
        round(Task::WatchCertificates, DAY, Duration::ZERO),
        round(Task::SettleDisputes, HOUR, MINUTE),
        round(Task::SweepKeys, HOUR, MINUTE),
        round(Task::SweepEvents, HOUR, MINUTE),
        round(Task::SweepCoverage, DAY, FIRST_SWEEP),
        round(Task::NoteCoverage, HOUR, MINUTE),
        round(Task::SweepSessions, DAY, HOUR),
    ];
    while !shutdown.is_requested() {
        for round in &mut rounds {
            if !round.is_due(app.now()) {
                continue;
            }
            // What is only logged is logged by each.
            let is_ours = round.task == Task::WatchCertificates || is_ours(&app).await;
            if !is_ours {
                round.due = app.now().plus(MINUTE);
                continue;
            }
            if let Err(error) = perform(round.task, &app, &shutdown).await {
                tracing::error!(%error, task = ?round.task, "a task of the house failed; it is done again in its next round");
            }
            round.due = app.now().plus(round.every);
        }
        let now = app.now();
        let next = rounds.iter().map(|round| wait_until(now, round.due)).min();
        tokio::select! {
            () = app.clock.sleep(next.unwrap_or(MINUTE)) => {}
            () = app.escrow.asks_woken() => rounds[0].due = app.now(),
            () = shutdown.requested() => {}
        }
    }
}

/// Whether this process goes round for all.
async fn is_ours(app: &App) -> bool {
    let duties = app.escrow.duties();
    match duties.hold(Duty::Rounds, &app.replica.id).await {
        Ok(held) => held.is_some(),
        Err(error) => {
            tracing::error!(%error, "who goes round cannot be found out; it is tried again");
            false
        }
    }
}

async fn perform(task: Task, app: &App, shutdown: &Shutdown) -> escrow::Result<()> {
    match task {
        Task::Plan => {
            let full = usize::try_from(PLANNED_AT_ONCE).unwrap_or(usize::MAX);
            let commands = app.escrow.commands();
            while commands.plan_due(PLANNED_AT_ONCE).await? >= full && !shutdown.is_requested() {}
        }
        Task::SettleDisputes => {
            let settled = app.escrow.enrollments().settle_disputes().await?;
            if settled > 0 {
                tracing::info!(
                    settled,
                    "disputes over serial numbers ended: one side fell silent"
                );
            }
        }
        Task::SweepKeys => {
            app.escrow.operations().sweep_idempotency_keys().await?;
        }
        Task::SweepEvents => {
            app.escrow.sweep_known_events().await?;
        }
        Task::SweepSessions => {
            app.escrow.sessions().sweep().await?;
            app.escrow.notices().sweep().await?;
        }
        Task::SweepCoverage => {
            app.escrow.coverage().sweep().await?;
        }
        Task::NoteCoverage => app.escrow.coverage().note_day().await?,
        Task::WatchCertificates => {
            watch_certificates(app).await?;
            watch_server_tokens(app).await?;
        }
    }
    Ok(())
}

async fn watch_server_tokens(app: &App) -> escrow::Result<()> {
    let now = app.now();
    for token in app.escrow.server_tokens().all().await? {
        let Some(end) = token.expires_at else {
            continue;
        };
        let (name, days) = (token.name, end.since(now).as_secs() / DAY.as_secs());
        match TokenExpiry::of(end, now) {
            TokenExpiry::Fine => {}
            TokenExpiry::Expiring => {
                tracing::warn!(
                    name,
                    days,
                    "a server token ends soon; download a new one and import it"
                );
            }
            TokenExpiry::Urgent => {
                tracing::error!(
                    name,
                    days,
                    "a server token ends in a few days; download a new one and import it"
                );
            }
            TokenExpiry::Expired => tracing::error!(
                name,
                "a server token has ended: nothing can be locked with it, nor its list be read; download a new one and import it"
            ),
        }
    }
    Ok(())
}

async fn watch_certificates(app: &App) -> escrow::Result<()> {
    let now = app.now();
    for certificate in app.escrow.push_certificates().all_current().await? {
        let (topic, left) = (&certificate.topic, certificate.not_after.since(now));
        if left.is_zero() {
            tracing::error!(
                topic,
                "a push certificate has expired: no unlock can be made with it; renew it with the same Apple Account, so that the topic stays"
            );
        } else if left <= WARNING {
            tracing::warn!(
                topic,
                days = left.as_secs() / DAY.as_secs(),
                "a push certificate ends soon; renew it with the same Apple Account, so that the topic stays"
            );
        }
    }
    Ok(())
}

/// Has webhooks read their connections anew as soon as one has changed.
pub(super) async fn watch_connections(app: App, shutdown: Shutdown) {
    let mut changes = app.escrow.connection_changes();
    loop {
        tokio::select! {
            Ok(()) = changes.changed() => app.hooks.forget(),
            () = shutdown.requested() => return,
        }
    }
}
