//! What the program asks of the machine it runs on.

use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

use seal::Random;

use crate::voice::{Failure, Outcome};

/// The system's random generator.
struct SystemRandom(File);

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        (&self.0)
            .read_exact(bytes)
            .expect("the kernel's random generator gives bytes for ever");
    }
}

/// The system's random generator.
pub(crate) fn random() -> impl Random {
    SystemRandom(File::open("/dev/urandom").expect("every supported system has a random generator"))
}

/// Runs a command that waits for the network.
///
/// # Errors
/// As the command's; or when the machine gives no event loop.
pub(crate) fn block_on(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("the machine gives no event loop: {error}")))?;
    runtime.block_on(command)
}

/// Waits between two looks at something that goes on elsewhere.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the command line waits"
)]
pub(crate) async fn pause(how_long: Duration) {
    tokio::time::sleep(how_long).await;
}

/// Waits until the user or the service manager wants the program to end.
///
/// # Errors
/// When the machine does not tell.
pub(crate) async fn interrupted() -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| {
        signal(kind).map_err(|error| {
            Failure::new(format!("the program cannot listen for signals: {error}"))
        })
    };
    let (mut interrupt, mut terminate) = (
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
    );
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
