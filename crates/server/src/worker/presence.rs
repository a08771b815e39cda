//! Saying that this process lives, to the others on the database and to whoever looks after them; and asking devices again whose
//! answers went to one that died.

use std::fs::File;
use std::sync::atomic::Ordering;
use std::time::Duration;

use activation_lock::asking::Trigger;
use escrow::replicas::{BEAT, ReplicaView};

use super::{Pauses, rest};
use crate::App;
use crate::lifecycle::Shutdown;

/// When nothing could be kept, it is tried again so soon.
const AGAIN: Duration = Duration::from_secs(1);

/// A clock that is off by more than so many milliseconds is worth a word.
const MOST_OFF: u64 = 60_000;

/// Says it for the first time, before anything is sent to a device: what is asked for after that is not asked for twice.
pub(super) async fn arrive(app: &App, shutdown: &Shutdown) {
    let mut pauses = Pauses::new();
    let mut may_be_lost = false;
    loop {
        let done = async {
            may_be_lost |= died(app).await?;
            // While nobody served, answers were lost too.
            if may_be_lost || !others_served(app).await? {
                ask_again(app).await?;
            }
            Ok::<(), escrow::Error>(())
        };
        let Err(error) = done.await else { return };
        tracing::error!(%error, "this process cannot put on record that it lives; it is tried again");
        if rest(&*app.clock, shutdown, pauses.next()).await {
            return;
        }
    }
}

/// Says it now and then, until the server is to end.
pub(super) async fn work(app: App, shutdown: Shutdown) {
    let mut may_be_lost = false;
    let mut pause = BEAT;
    let mut is_off = false;
    while !rest(&*app.clock, &shutdown, pause).await {
        mind_open_files();
        is_off = mind_clock(&app, is_off);
        let done = async {
            may_be_lost |= died(&app).await?;
            if may_be_lost {
                ask_again(&app).await?;
                may_be_lost = false;
            }
            Ok::<(), escrow::Error>(())
        };
        let done = done.await;
        app.keeps.store(done.is_ok(), Ordering::Relaxed);
        pause = if done.is_ok() { BEAT } else { AGAIN };
        if let Err(error) = done {
            tracing::error!(%error, "nothing can be kept in the vault now, not even that this process lives; it is tried again");
        }
    }
}

/// Says when this machine's clock is off, and when it is right again.
fn mind_clock(app: &App, was_off: bool) -> bool {
    let behind = app.escrow.clock_behind();
    let is_off = behind.unsigned_abs() > MOST_OFF;
    if is_off && !was_off {
        tracing::error!(
            behind_seconds = behind / 1000,
            "this machine's clock is off: it was set back, or the database's server has another time. What is put on record goes on from \
             the later time; certificates and signatures are judged by the wrong one. Set it, by NTP"
        );
    } else if was_off && !is_off {
        tracing::info!("this machine's clock is right again");
    }
    is_off
}

/// Without a file to open nobody is let in, and so nobody can be told but by the log.
fn mind_open_files() {
    if let Err(error) = File::open("/dev/null") {
        tracing::error!(
            %error,
            "no more files can be opened, so that no client is let in and nobody is called: close some connections, or give this process more \
             (LimitNOFILE in its unit)"
        );
    }
}

/// Nobody sends an answer again (R8). Which were lost is not known, so those devices with a question pending are asked again, and
/// only those; one that was set up anew meanwhile shows it in its next answer.
async fn ask_again(app: &App) -> escrow::Result<()> {
    let commands = app.escrow.commands();
    commands.ask_all(None, Trigger::Downtime, false).await?;
    Ok(())
}

/// Says that this process lives. True when others have died.
async fn died(app: &App) -> escrow::Result<bool> {
    let died = app.escrow.replicas().beat(&app.replica).await?;
    if died > 0 {
        tracing::warn!(
            died,
            "processes on the database have died; what was on its way to them is asked for again"
        );
    }
    Ok(died > 0)
}

/// Whether another replica that lives has taken what came meanwhile.
async fn others_served(app: &App) -> escrow::Result<bool> {
    let all = app.escrow.replicas().list().await?;
    let served = |other: &ReplicaView| {
        other.is_alive
            && other.replica.id != app.replica.id
            && other.replica.roles.contains("serve")
    };
    Ok(all.iter().any(served))
}

/// Says that it ends.
pub(super) async fn end(app: &App) {
    if let Err(error) = app.escrow.replicas().end(&app.replica.id).await {
        tracing::warn!(%error, "this process cannot put on record that it ends; it is soon taken for gone");
    }
}

/// Compares the lock journal with the database whenever that was connected to anew, until the server is to end.
pub(super) async fn watch_journal(app: App, shutdown: Shutdown) {
    let mut pauses = Pauses::new();
    loop {
        let watched = tokio::select! {
            watched = app.escrow.watch_journal() => watched,
            () = shutdown.requested() => return,
        };
        match watched {
            Ok(()) => pauses = Pauses::new(),
            Err(error) => {
                tracing::error!(%error, "the lock journal cannot be compared with the database; it is tried again");
                if rest(&*app.clock, &shutdown, pauses.next()).await {
                    return;
                }
            }
        }
    }
}
