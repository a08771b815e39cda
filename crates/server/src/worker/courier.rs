//! The courier: brings commands to their MDMs. Each is on record, with its CommandUUID, before it leaves (R8), and is tried
//! until the MDM has it.
//!
//! Each MDM has a lane of its own: one that is dead or slow fills its lane and keeps no other waiting. When one takes
//! nothing at all, its lane is closed, and it is asked now and then whether it is back; then everything that waits for it is
//! due at once.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use activation_lock::time::Timestamp;
use escrow::commands::{Command, CommandType};
use futures_util::FutureExt as _;
use tokio::task::JoinSet;

use super::{Pauses, rest, wait_until};
use crate::App;
use crate::connectors::Enqueued;
use crate::lifecycle::Shutdown;

/// However quiet it is, the queue is looked at this often.
const LOOK: Duration = Duration::from_secs(30);
/// Taken at once.
const BATCH: i64 = 64;
/// Commands of one lane that wait in memory; with so many, no more are taken for it.
const BACKLOG: usize = 64;
/// Calls of one MDM at once.
const CALLS: usize = 4;
/// For so long a command is ours. One whose turn does not come in time is left for another try.
const LEASE: Duration = Duration::from_secs(10 * 60);
/// How long an MDM that took nothing is let alone: at first, and at most.
const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(5 * 60);
/// How long calls under way may go on once the server is to end. What is cut off is queued again by the next start: then it
/// is a duplicate, or was never there.
const GRACE: Duration = Duration::from_secs(5);

/// The commands of one MDM.
#[derive(Default)]
struct Lane {
    /// Each with the moment until which it is ours.
    waiting: VecDeque<(Command, Timestamp)>,
    under_way: usize,
    closed: Option<Closed>,
}

/// The MDM took nothing.
struct Closed {
    /// So often in a row.
    times: u32,
    /// Then it is asked whether it is back; `None` while it is being asked.
    asked_at: Option<Timestamp>,
    /// Connections have changed since it was last asked.
    changed: bool,
}

impl Lane {
    fn takes_more(&self) -> bool {
        self.closed.is_none() && self.waiting.len() < BACKLOG
    }

    fn is_idle(&self) -> bool {
        self.closed.is_none() && self.waiting.is_empty() && self.under_way == 0
    }
}

/// What a task of a lane has come back with; everything is on record already.
struct Back {
    connection: String,
    what: What,
}

enum What {
    /// A command was brought to the MDM, which answered.
    Answered,
    /// A command was brought, and the MDM takes nothing.
    Down(String),
    /// Nothing was brought.
    Nothing,
    /// It was asked whether it is back.
    IsBack(Result<(), String>),
}

/// Brings what is due to the MDMs, until the server is to end.
pub(super) async fn work(app: App, shutdown: Shutdown) {
    let mut courier = Courier {
        lanes: HashMap::new(),
        tasks: JoinSet::new(),
        look: true,
        except: BTreeSet::new(),
        next: None,
        app: app.clone(),
        shutdown: shutdown.clone(),
    };
    let mut pauses = Pauses::new();
    let mut changes = app.escrow.connection_changes();
    while !shutdown.is_requested() {
        courier.set_out();
        let wait = match courier.look().await {
            Ok(None) => continue,
            Ok(Some(wait)) => {
                pauses = Pauses::new();
                wait
            }
            Err(error) => {
                tracing::error!(%error, "commands for MDMs cannot be taken from the queue; it is tried again");
                pauses.next()
            }
        };
        tokio::select! {
            Some(back) = courier.tasks.join_next() => courier.back(back),
            () = app.escrow.courier_woken() => courier.look = true,
            Ok(()) = changes.changed() => courier.ask_all(),
            () = app.clock.sleep(wait) => courier.look = true,
            () = shutdown.requested() => {}
        }
    }
    courier.finish().await;
}

struct Courier {
    app: App,
    shutdown: Shutdown,
    /// By connection.
    lanes: HashMap<String, Lane>,
    tasks: JoinSet<Back>,
    /// There may be more to take.
    look: bool,
    /// The connections for which nothing is taken.
    except: BTreeSet<String>,
    /// When something becomes due of the others by itself, and when that was found out.
    next: Option<(Option<Timestamp>, Timestamp)>,
}

impl Courier {
    /// Starts what there is room and time for.
    fn set_out(&mut self) {
        let now = self.app.now();
        for (connection, lane) in &mut self.lanes {
            if let Some(closed) = &mut lane.closed {
                // The clock may have been set back.
                let is_time = |at: Timestamp| now >= at || at.since(now) > LONGEST_REST;
                if closed.asked_at.is_some_and(is_time) {
                    closed.asked_at = None;
                    closed.changed = false;
                    let task = ask(self.app.clone(), connection.clone());
                    let otherwise = What::IsBack(Err("an error in this program".to_owned()));
                    self.tasks
                        .spawn(contained(connection.clone(), task, otherwise));
                }
                continue;
            }
            while lane.under_way < CALLS
                && let Some((command, ours_until)) = lane.waiting.pop_front()
            {
                lane.under_way += 1;
                let (app, shutdown) = (self.app.clone(), self.shutdown.clone());
                let task = bring(app, shutdown, command, ours_until);
                let task = contained(connection.clone(), task, What::Nothing);
                self.tasks.spawn(task);
            }
        }
        self.lanes.retain(|_, lane| !lane.is_idle());
    }

    /// Takes what is due, where there is room. When there is no more, gives how long it is until there is something to do by
    /// itself.
    async fn look(&mut self) -> escrow::Result<Option<Duration>> {
        let commands = self.app.escrow.commands();
        let full = self.lanes.iter().filter(|(_, lane)| !lane.takes_more());
        let except: BTreeSet<String> = full.map(|(connection, _)| connection.clone()).collect();
        if except != self.except {
            // There may be something for a lane that takes more again; and what is due is another question now.
            self.look |= self.except.difference(&except).next().is_some();
            self.next = None;
            self.except = except;
        }
        let except: Vec<String> = self.except.iter().cloned().collect();
        let now = self.app.now();
        if self.look {
            let taken = commands.take_due(BATCH, LEASE, &except).await?;
            self.look = !taken.is_empty();
            for command in taken {
                let lane = self.lanes.entry(command.connection.clone()).or_default();
                lane.waiting.push_back((command, now.plus(LEASE)));
            }
            if self.look {
                return Ok(None);
            }
        }
        // Whatever becomes due sooner than was found out wakes us.
        let holds = |(next, found_at): (Option<Timestamp>, Timestamp)| {
            next.is_none_or(|next| next > now) && now >= found_at && now.since(found_at) < LOOK
        };
        if !self.next.is_some_and(holds) {
            self.next = Some((commands.next_due(&except).await?, now));
        }
        let now = self.app.now();
        let due = self.next.and_then(|(next, _)| next);
        let closed = self.lanes.values().filter_map(|lane| lane.closed.as_ref());
        let moments = closed.filter_map(|closed| closed.asked_at).chain(due);
        let first = moments.map(|moment| wait_until(now, moment)).min();
        Ok(Some(first.map_or(LOOK, |wait| wait.min(LOOK))))
    }

    /// A task has ended.
    fn back(&mut self, back: Result<Back, tokio::task::JoinError>) {
        let Ok(Back { connection, what }) = back else {
            return;
        };
        let now = self.app.now();
        let Some(lane) = self.lanes.get_mut(&connection) else {
            return;
        };
        match what {
            What::IsBack(Ok(())) => {
                tracing::info!(connection, "the MDM takes commands again");
                lane.closed = None;
            }
            What::IsBack(Err(why)) => lane.close(now, &connection, &why),
            What::Answered | What::Nothing => lane.under_way = lane.under_way.saturating_sub(1),
            What::Down(why) => {
                lane.under_way = lane.under_way.saturating_sub(1);
                if lane.closed.is_none() {
                    lane.close(now, &connection, &why);
                }
                let left = std::mem::take(&mut lane.waiting);
                if !left.is_empty() {
                    lane.under_way += 1;
                    let task = put_off(self.app.clone(), left, why);
                    self.tasks
                        .spawn(contained(connection.clone(), task, What::Nothing));
                }
            }
        }
    }

    /// Connections have changed: those that took nothing may do so now.
    fn ask_all(&mut self) {
        let now = self.app.now();
        let closed = self.lanes.values_mut().map(|lane| lane.closed.as_mut());
        for closed in closed.flatten() {
            closed.asked_at = closed.asked_at.map(|_| now);
            closed.changed = true;
        }
    }

    async fn finish(mut self) {
        let under_way = async { while self.tasks.join_next().await.is_some() {} };
        // What does not end in time is dropped.
        let _ = tokio::time::timeout(GRACE, under_way).await;
    }
}

impl Lane {
    fn close(&mut self, now: Timestamp, connection: &str, why: &str) {
        let (times, changed) = self
            .closed
            .as_ref()
            .map_or((0, false), |closed| (closed.times, closed.changed));
        let rest = match changed {
            true => Duration::ZERO,
            false => FIRST_REST
                .saturating_mul(1 << times.min(16))
                .min(LONGEST_REST),
        };
        if times == 0 {
            tracing::warn!(connection, why, "the MDM takes no commands at present");
        }
        self.closed = Some(Closed {
            times: times.saturating_add(1),
            asked_at: Some(now.plus(rest)),
            changed: false,
        });
    }
}

/// Keeps an error in this program from ending the courier.
async fn contained(connection: String, task: impl Future<Output = What>, otherwise: What) -> Back {
    let what = AssertUnwindSafe(task).catch_unwind().await;
    let what = what.unwrap_or_else(|_| {
        // What the panic said is on standard error.
        tracing::error!(
            connection,
            "a command stopped at an error in this program; please report it, with the log"
        );
        otherwise
    });
    Back { connection, what }
}

/// Brings one command to its MDM, and puts on record whether it was taken.
async fn bring(app: App, shutdown: Shutdown, command: Command, ours_until: Timestamp) -> What {
    match deliver(&app, &shutdown, &command, ours_until).await {
        Ok(what) => what,
        Err(error) => {
            // It comes back when it is no longer ours; an MDM that has it says "duplicate" then.
            tracing::error!(%error, command = command.id, "it cannot be recorded what became of a command");
            What::Nothing
        }
    }
}

async fn deliver(
    app: &App,
    shutdown: &Shutdown,
    command: &Command,
    ours_until: Timestamp,
) -> escrow::Result<What> {
    let connections = app.escrow.connections();
    let mut opened = connections.open(&command.connection).await?;
    if let Some(connection) = &opened {
        let turn = app.mdm.turn(&connection.view, app.now());
        if !turn.is_zero() {
            if rest(&*app.clock, shutdown, turn).await {
                return Ok(What::Nothing);
            }
            // It may have been removed, or moved, or been given another key meanwhile.
            opened = connections.open(&command.connection).await?;
        }
    }
    let Some(connection) = opened else {
        not_queued(app, command, "the connection to its MDM was removed").await?;
        return Ok(What::Nothing);
    };
    if app.now() >= ours_until {
        return Ok(What::Nothing);
    }
    let enqueued = app
        .mdm
        .enqueue(
            &connection,
            &command.enrollment,
            &command.id,
            plist(command),
        )
        .await;
    let taken = enqueued == Enqueued::Queued;
    app.metrics.command(command.what.request_type(), taken);
    match enqueued {
        Enqueued::Queued => {
            app.escrow.commands().queued(command).await?;
            tracing::debug!(command = command.id, "the MDM has a command");
            Ok(What::Answered)
        }
        Enqueued::NotQueued(why) => {
            tracing::info!(
                command = command.id,
                why,
                "the MDM did not take a command; it is tried again"
            );
            not_queued(app, command, &why).await?;
            Ok(What::Answered)
        }
        Enqueued::Down(why) => {
            not_queued(app, command, &why).await?;
            Ok(What::Down(why))
        }
    }
}

async fn not_queued(app: &App, command: &Command, why: &str) -> escrow::Result<()> {
    let mut bytes = [0; 8];
    app.random.fill(&mut bytes);
    let random = u64::from_le_bytes(bytes);
    app.escrow.commands().not_queued(command, why, random).await
}

/// What was in line behind a command that showed its MDM to be down is not tried.
async fn put_off(app: App, commands: VecDeque<(Command, Timestamp)>, why: String) -> What {
    for (command, _) in &commands {
        if let Err(error) = not_queued(&app, command, &why).await {
            tracing::error!(%error, "it cannot be recorded what became of a command");
            break;
        }
    }
    What::Nothing
}

/// Asks an MDM whether it takes commands again. If so, what waits for it is due.
async fn ask(app: App, connection: String) -> What {
    let is_back = is_back(&app, &connection).await;
    What::IsBack(is_back.unwrap_or_else(|error| Err(error.to_string())))
}

async fn is_back(app: &App, connection: &str) -> escrow::Result<Result<(), String>> {
    if let Some(open) = app.escrow.connections().open(connection).await?
        && let Err(why) = app.mdm.is_back(&open).await
    {
        return Ok(Err(why));
    }
    app.escrow.commands().hurry(connection).await?;
    Ok(Ok(()))
}

fn plist(command: &Command) -> Vec<u8> {
    let what = match command.what {
        CommandType::BypassCode => apple::mdm::Command::ActivationLockBypassCode,
        CommandType::DeviceInformation => apple::mdm::Command::DeviceInformation,
        CommandType::SecurityInfo => apple::mdm::Command::SecurityInfo,
        CommandType::LockPermission { allowed } => {
            apple::mdm::Command::AllowActivationLock(allowed)
        }
    };
    what.to_plist(&command.id)
}
