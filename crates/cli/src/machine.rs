//! What the program asks of the machine it runs on.

use std::sync::Arc;
use std::time::Duration;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use seal::Random;

use crate::voice::{Failure, Outcome};

/// The machine's randomness.
pub(crate) fn random() -> Arc<dyn Random> {
    server::lifecycle::random()
}

/// Runs a command that waits for the network.
///
/// # Errors
/// As the command's; or when the machine gives no event loop.
pub(crate) fn block_on(command: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(no_event_loop)?
        .block_on(command)
}

/// Runs a command that serves: on every core.
///
/// # Errors
/// As the command's; or when the machine gives no event loop.
pub(crate) fn block_on_all_cores(command: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(no_event_loop)?
        .block_on(command)
}

fn no_event_loop(error: std::io::Error) -> Failure {
    Failure::new(format!("the machine gives no event loop: {error}"))
}

/// Keeps what is in memory, codes and keys among it, out of core dumps and away from debuggers (R23).
///
/// # Errors
/// When the machine does not let us.
pub(crate) fn keep_memory_private() -> Result<(), Failure> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|error| {
            Failure::new(format!(
                "core dumps, which hold codes and keys, cannot be turned off: {error}"
            ))
        })
}

/// Lets this process have as many files open as the system allows it, and gives how many connections that leaves room for, when some are
/// left for the database, the MDMs and Apple: 16,384 at most, which take up to 300 MB while they are idle.
pub(crate) fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Some systems name a maximum that they do not grant.
    let files = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let files = files.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    });
    files.saturating_sub(256).clamp(16, 16_384)
}

/// Keeps what is in memory out of the swap, where the system allows a process to lock as much as it likes. True when it is so.
pub(crate) fn keep_memory_out_of_swap() -> bool {
    // With a limit, locking would one day refuse the memory that is needed.
    getrlimit(Resource::Memlock).current.is_none()
        && mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).is_ok()
}

/// Waits between two looks at something that goes on elsewhere.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the command line waits"
)]
pub(crate) async fn pause(how_long: Duration) {
    tokio::time::sleep(how_long).await;
}

/// Signals of the user or of the service manager.
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    reload: tokio::signal::unix::Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To end.
    End,
    /// To read files anew (SIGHUP).
    Reload,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the machine does not tell.
    pub(crate) fn new() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(format!("the program cannot listen for signals: {error}"))
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            reload: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next.
    pub(crate) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::End,
            _ = self.terminate.recv() => Wish::End,
            _ = self.reload.recv() => Wish::Reload,
        }
    }

    /// Waits until the program is to end.
    pub(crate) async fn end(&mut self) {
        while self.next().await != Wish::End {}
    }
}
