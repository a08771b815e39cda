//! What the server tells of itself: logs, and metrics. Neither ever holds a code, a token, a key or an HMAC.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use activation_lock::lock::LockOutcome;
use activation_lock::unlock::Outcome;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why a log filter is not one.
#[derive(Debug, thiserror::Error)]
#[error(
    "the log level {text:?} is not one: write error, warn, info, debug or trace, or a filter such as info,server=debug"
)]
pub struct LogLevelError {
    text: String,
}

/// Begins to write log lines to standard error, from `level` on. Only the first call of a process has an effect.
///
/// # Errors
/// When `level` is no filter.
pub fn log(format: LogFormat, level: &str) -> Result<(), LogLevelError> {
    let filter = EnvFilter::try_new(format!("sqlx=warn,{level}")).map_err(|_| LogLevelError {
        text: level.to_owned(),
    })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    // An error means that the process writes them already.
    let _ = match format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    Ok(())
}

/// A few words as the labels of a metric.
type Labels = Vec<(&'static str, String)>;

/// From a tenth of a millisecond to ten seconds and more.
const SECONDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

type Durations = Family<Labels, Histogram, fn() -> Histogram>;

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// What is counted while the server runs. What the vault knows is read when it is asked for.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    request_seconds: Durations,
    webhooks: Family<Labels, Counter>,
    attempts: Family<Labels, Counter>,
    attempt_seconds: Durations,
    lock_calls: Family<Labels, Counter>,
    lock_call_seconds: Durations,
    statuses: Family<Labels, Counter>,
    commands: Family<Labels, Counter>,
    outside: Family<Labels, Counter>,
}

/// What became of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WebhookResult {
    /// On record.
    Recorded,
    /// It had been on record before.
    Known,
    /// Nothing to record: a poll of a known enrollment, or a channel that has nothing for us.
    Quiet,
    /// It did not prove that it is the MDM's own.
    Refused,
    /// It cannot be read.
    Garbage,
    /// It is too large.
    TooLarge,
    /// It did not arrive in time.
    TooSlow,
    /// It could not be put on record.
    Failed,
}

impl WebhookResult {
    fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Known => "known",
            Self::Quiet => "quiet",
            Self::Refused => "refused",
            Self::Garbage => "garbage",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Failed => "failed",
        }
    }
}

/// How this process stands at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    /// Whether the vault could be read.
    pub(crate) vault_answers: bool,
    /// Whether it can keep what comes.
    pub(crate) vault_keeps: bool,
    /// How far the machine's clock is behind, milliseconds.
    pub(crate) clock_behind: i64,
}

/// What the vault says of itself at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Readings {
    /// Unlocks that have not ended.
    pub(crate) unlocks_live: f64,
    /// Those a worker holds.
    pub(crate) unlocks_running: f64,
    /// Age of the oldest of them, seconds.
    pub(crate) oldest_unlock_seconds: f64,
    /// Locks that have not ended.
    pub(crate) locks_live: f64,
    /// Days to the end of each server token, by its name.
    pub(crate) server_tokens: Vec<(String, f64)>,
    /// Devices by coverage state.
    pub(crate) devices: Vec<(String, f64)>,
    /// Days to the end of each current push certificate, by topic.
    pub(crate) certificates: Vec<(String, f64)>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("lockwarden");
        let (requests, webhooks, attempts, commands): (Family<Labels, Counter>, _, _, _) =
            Default::default();
        let request_seconds: Durations = Family::new_with_constructor(seconds);
        let attempt_seconds: Durations = Family::new_with_constructor(seconds);
        let (lock_calls, statuses): (Family<Labels, Counter>, Family<Labels, Counter>) =
            Default::default();
        let lock_call_seconds: Durations = Family::new_with_constructor(seconds);
        let outside: Family<Labels, Counter> = Family::default();
        registry.register(
            "http_requests",
            "Requests answered, by route and status",
            requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "How long answers took, by route",
            Unit::Seconds,
            request_seconds.clone(),
        );
        registry.register(
            "webhooks",
            "Webhooks of MDMs, by what became of them",
            Family::clone(&webhooks),
        );
        registry.register(
            "unlock_attempts",
            "Calls to turn a lock off, by outcome",
            Family::clone(&attempts),
        );
        registry.register_with_unit(
            "unlock_attempt_duration",
            "How long calls to turn a lock off took, by outcome",
            Unit::Seconds,
            attempt_seconds.clone(),
        );
        registry.register(
            "lock_calls",
            "Calls to turn a lock on, by outcome",
            Family::clone(&lock_calls),
        );
        registry.register_with_unit(
            "lock_call_duration",
            "How long calls to turn a lock on took, by outcome",
            Unit::Seconds,
            lock_call_seconds.clone(),
        );
        registry.register(
            "lock_status_readings",
            "Questions to Apple for the status of a lock, by what came of them",
            Family::clone(&statuses),
        );
        registry.register(
            "commands",
            "Commands given to MDMs, by type and whether they were taken",
            Family::clone(&commands),
        );
        registry.register(
            "audit_outside",
            "Checkpoints and rows of the audit record given to places outside, by place and whether they were taken",
            outside.clone(),
        );
        Self {
            registry,
            requests,
            request_seconds,
            webhooks,
            attempts,
            attempt_seconds,
            lock_calls,
            lock_call_seconds,
            statuses,
            commands,
            outside,
        }
    }

    /// The audit record was given to a place outside, which took it or not.
    pub(crate) fn outside(&self, place: &'static str, taken: bool) {
        let result = if taken { "taken" } else { "not_taken" };
        self.outside
            .get_or_create(&vec![
                ("place", place.to_owned()),
                ("result", result.to_owned()),
            ])
            .inc();
    }

    /// A request was answered. `route` is the pattern, never the path, which may hold a secret.
    pub(crate) fn request(&self, method: &str, route: &str, status: u16, took: Duration) {
        let labels = |status: Option<u16>| {
            let mut labels = vec![("method", method.to_owned()), ("route", route.to_owned())];
            labels.extend(status.map(|status| ("status", status.to_string())));
            labels
        };
        self.requests.get_or_create(&labels(Some(status))).inc();
        self.request_seconds
            .get_or_create(&labels(None))
            .observe(took.as_secs_f64());
    }

    /// A webhook came.
    pub(crate) fn webhook(&self, result: WebhookResult) {
        self.webhooks
            .get_or_create(&vec![("result", result.as_str().to_owned())])
            .inc();
    }

    /// A call to turn a lock off ended.
    pub(crate) fn attempt(&self, outcome: Outcome, took: Duration) {
        let labels = vec![("outcome", outcome.as_str().to_owned())];
        self.attempts.get_or_create(&labels).inc();
        self.attempt_seconds
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// A call to turn a lock on ended.
    pub(crate) fn lock_call(&self, outcome: LockOutcome, took: Duration) {
        let labels = vec![("outcome", outcome.as_str().to_owned())];
        self.lock_calls.get_or_create(&labels).inc();
        self.lock_call_seconds
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// Apple was asked for the status of a lock.
    pub(crate) fn status(&self, result: &'static str) {
        self.statuses
            .get_or_create(&vec![("result", result.to_owned())])
            .inc();
    }

    /// A command was given to an MDM, which took it or not.
    pub(crate) fn command(&self, request_type: &str, taken: bool) {
        let result = if taken { "taken" } else { "not_taken" };
        self.commands
            .get_or_create(&vec![
                ("type", request_type.to_owned()),
                ("result", result.to_owned()),
            ])
            .inc();
    }

    /// All of it in the OpenMetrics text form; without what the vault says, when it does not answer.
    pub(crate) fn text(
        &self,
        state: &State,
        readings: Option<&Readings>,
    ) -> Result<String, std::fmt::Error> {
        let one = |value: f64| vec![(Vec::new(), value)];
        let yes = |is: bool| one(f64::from(u8::from(is)));
        let mut gauges = vec![
            (
                "vault_answers",
                "1 while the vault can be read within five seconds",
                yes(state.vault_answers),
            ),
            (
                "vault_keeps",
                "1 while the vault can keep what comes",
                yes(state.vault_keeps),
            ),
            (
                "clock_behind_seconds",
                "How far this machine's clock is behind the time that everything is dated by; negative when it is ahead",
                one(state.clock_behind as f64 / 1000.0),
            ),
        ];
        gauges.extend(readings.into_iter().flat_map(Readings::gauges));
        let mut now = Registry::with_prefix("lockwarden");
        for (name, help, values) in gauges {
            let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
            for (labels, value) in values {
                family.get_or_create(&labels).set(value);
            }
            now.register(name, help, family);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        let mut readings = String::new();
        encode(&mut readings, &now)?;
        // One document has one end mark.
        let text = text.trim_end_matches("# EOF\n");
        Ok(format!("{text}{readings}"))
    }
}

/// A gauge's name, what it means, and its values by their labels.
type Values = (&'static str, &'static str, Vec<(Labels, f64)>);

impl Readings {
    fn gauges(&self) -> Vec<Values> {
        let one = |value: f64| vec![(Vec::new(), value)];
        let labelled = |name: &'static str, rows: &[(String, f64)]| {
            rows.iter()
                .map(|(word, value)| (vec![(name, word.clone())], *value))
                .collect::<Vec<_>>()
        };
        vec![
            (
                "unlocks_live",
                "Unlocks that have not ended",
                one(self.unlocks_live),
            ),
            (
                "unlocks_running",
                "Unlocks that a worker holds",
                one(self.unlocks_running),
            ),
            (
                "oldest_unlock_age_seconds",
                "How long ago the oldest unlock that has not ended was asked for",
                one(self.oldest_unlock_seconds),
            ),
            (
                "locks_live",
                "Locks that have not ended",
                one(self.locks_live),
            ),
            (
                "server_token_days_left",
                "Days to the end of a server token, by its name",
                labelled("name", &self.server_tokens),
            ),
            (
                "devices",
                "Devices by whether their code is held; those closing and closed are among the missing",
                labelled("coverage", &self.devices),
            ),
            (
                "push_certificate_days_left",
                "Days to the end of a push certificate, by topic",
                labelled("topic", &self.certificates),
            ),
        ]
    }
}
