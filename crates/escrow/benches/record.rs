//! Events put on record a second, each durable before it is acknowledged: `cargo bench -p escrow --bench record`.
//!
//! Every task plays one device after another: an Authenticate, a first TokenUpdate, and the answer to the question for
//! the code. The figure is what the vault takes, without HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark measures time, and a panic is its report"
)]

#[path = "../tests/it/support.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use activation_lock::codes::CodeText;
use activation_lock::observation::{
    Authenticate, CommandReport, EnrollmentKind, Event, Observation, ReportStatus, ReportedCode,
    TokenUpdate,
};
use activation_lock::time::Timestamp;
use escrow::record::Incoming;
use support::{CODE_A, Vault};

const RUN: Duration = Duration::from_secs(5);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    for tasks in [1, 32, 128, 256] {
        println!(
            "{tasks:>4} at once: {:>6.0} events/s",
            runtime.block_on(measure(tasks))
        );
    }
}

async fn measure(tasks: usize) -> f64 {
    let vault = Arc::new(Vault::new().await);
    let connection = vault.connection("mdm").await;
    let start = Instant::now();
    let mut playing = Vec::new();
    for task in 0..tasks {
        let (vault, connection) = (vault.clone(), connection.clone());
        playing.push(tokio::spawn(async move {
            let mut events = 0_u64;
            while start.elapsed() < RUN {
                let name = format!("T{task}N{events}");
                for event in [
                    Event::Authenticate(Authenticate {
                        serial: name.parse().ok(),
                        product_type: "iPhone14,5".parse().ok(),
                        ..Authenticate::default()
                    }),
                    Event::TokenUpdate(TokenUpdate {
                        tally: Some(1),
                        ..TokenUpdate::default()
                    }),
                    Event::Report(CommandReport {
                        command: None,
                        status: ReportStatus::Acknowledged,
                        errors: Vec::new(),
                        bypass_code: ReportedCode::Code(CodeText::new(CODE_A.to_owned()).unwrap()),
                        device_information: None,
                        security_info: None,
                        failed_settings: None,
                    }),
                ] {
                    let observation = Observation {
                        enrollment: name.clone(),
                        kind: EnrollmentKind::Device,
                        at: Timestamp(i64::try_from(events).unwrap()),
                        event,
                    };
                    let incoming = Incoming {
                        connection: vault.connection_ref(&connection),
                        digest: vault.next_digest(),
                        observation,
                    };
                    vault.escrow.record(incoming).await.unwrap();
                    events += 1;
                }
            }
            events
        }));
    }
    let mut events = 0;
    for player in playing {
        events += player.await.unwrap();
    }
    #[allow(clippy::cast_precision_loss, reason = "a count of events in seconds")]
    let rate = events as f64 / start.elapsed().as_secs_f64();
    rate
}
