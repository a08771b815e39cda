//! Commands for devices: on record before they go to the MDM, until answered or given up (R8).

use std::collections::BTreeSet;
use std::time::Duration;

use activation_lock::asking::{self, Trigger};
use activation_lock::device::SerialNumber;
use activation_lock::time::Timestamp;

use crate::db::{Row, Tx, Value, list, params};
use crate::enrollments::Epoch;
use crate::ledger::Ledger;
use crate::news::News;
use crate::permit::{OrganisationId, Permit, Refresh};
use crate::{Error, Escrow, Result, record};

/// What is asked of, or told to, a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandType {
    /// `ActivationLockBypassCode`: the code.
    BypassCode,
    /// `DeviceInformation`: who it is and how it stands.
    DeviceInformation,
    /// `SecurityInfo`: whether a Mac's lock can be managed.
    SecurityInfo,
    /// `Settings` with `MDMOptions`: whether a person may lock it.
    LockPermission {
        /// The value of `ActivationLockAllowedWhileSupervised`.
        allowed: bool,
    },
}

impl CommandType {
    /// The `RequestType` of the command.
    #[must_use]
    pub fn request_type(self) -> &'static str {
        match self {
            Self::BypassCode => "ActivationLockBypassCode",
            Self::DeviceInformation => "DeviceInformation",
            Self::SecurityInfo => "SecurityInfo",
            Self::LockPermission { .. } => "Settings",
        }
    }

    fn argument(self) -> Option<&'static str> {
        match self {
            Self::LockPermission { allowed: true } => Some("allow"),
            Self::LockPermission { allowed: false } => Some("deny"),
            _ => None,
        }
    }

    fn from_columns(request_type: &str, argument: Option<&str>) -> Result<Self> {
        Ok(match request_type {
            "ActivationLockBypassCode" => Self::BypassCode,
            "DeviceInformation" => Self::DeviceInformation,
            "SecurityInfo" => Self::SecurityInfo,
            "Settings" => Self::LockPermission {
                allowed: argument == Some("allow"),
            },
            _ => return Err(Error::Corrupt("commands.type")),
        })
    }
}

/// How a command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// On record, not known to be at the MDM.
    Planned,
    /// At the MDM.
    Queued,
    /// The device said "not now"; the MDM keeps it.
    NotNow,
    /// Answered.
    Answered,
    /// Answered with an error, or with a failed item.
    Failed,
    /// Its epoch ended or a newer one took its place.
    Void,
    /// Not wanted any more, with a reason.
    GivenUp,
}

impl CommandState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Queued => "queued",
            Self::NotNow => "not_now",
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Void => "void",
            Self::GivenUp => "given_up",
        }
    }

    fn from_name(text: &str) -> Result<Self> {
        [
            Self::Planned,
            Self::Queued,
            Self::NotNow,
            Self::Answered,
            Self::Failed,
            Self::Void,
            Self::GivenUp,
        ]
        .into_iter()
        .find(|s| s.as_str() == text)
        .ok_or(Error::Corrupt("commands.state"))
    }

    pub(crate) fn is_pending(self) -> bool {
        matches!(self, Self::Planned | Self::Queued | Self::NotNow)
    }

    pub(crate) fn has_final_answer(self) -> bool {
        matches!(self, Self::Answered | Self::Failed)
    }
}

/// A command on record.
#[derive(Clone, Debug)]
pub struct Command {
    /// The organisation it belongs to.
    pub organisation: OrganisationId,
    /// The CommandUUID.
    pub id: String,
    /// The epoch it was made for.
    pub epoch: String,
    /// The MDM connection it goes through.
    pub connection: String,
    /// The enrollment it is for.
    pub enrollment: String,
    /// What it says.
    pub what: CommandType,
    /// How it stands.
    pub state: CommandState,
    /// Why it stands so, where that needs words.
    pub reason: Option<String>,
    /// How often it was tried to queue it.
    pub tries: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When the MDM took it.
    pub queued_at: Option<Timestamp>,
    /// When the device gave its final answer.
    pub answered_at: Option<Timestamp>,
}

macro_rules! select_commands {
    ($rest:literal) => {
        concat!(
            "SELECT commands.organisation, commands.id, epoch, connection, enrollment, commands.type, argument, state, ",
            "reason, tries, created_at, queued_at, answered_at FROM ",
            $rest
        )
    };
}

impl Command {
    fn from_row(row: &Row) -> Result<Self> {
        let request_type: String = row.get("type")?;
        let argument: Option<String> = row.get("argument")?;
        Ok(Self {
            organisation: row.get("organisation")?,
            id: row.get("id")?,
            epoch: row.get("epoch")?,
            connection: row.get("connection")?,
            enrollment: row.get("enrollment")?,
            what: CommandType::from_columns(&request_type, argument.as_deref())?,
            state: CommandState::from_name(&row.get::<String>("state")?)?,
            reason: row.get("reason")?,
            tries: u32::try_from(row.get::<i64>("tries")?).unwrap_or(u32::MAX),
            created_at: row.get("created_at")?,
            queued_at: row.get("queued_at")?,
            answered_at: row.get("answered_at")?,
        })
    }

    /// A new one, on record from now.
    pub(crate) fn new(id: String, epoch: &Epoch, what: CommandType, now: Timestamp) -> Self {
        Self {
            organisation: epoch.organisation.clone(),
            id,
            epoch: epoch.id.clone(),
            connection: epoch.connection.clone(),
            enrollment: epoch.enrollment.clone(),
            what,
            state: CommandState::Planned,
            reason: None,
            tries: 0,
            created_at: now,
            queued_at: None,
            answered_at: None,
        }
    }

    /// Every column, in the order of [`crate::ledger`]'s statement.
    pub(crate) fn to_row(&self, cause: Option<&str>) -> Vec<Value> {
        params![
            self.organisation.as_str(),
            self.id.as_str(),
            self.epoch.as_str(),
            self.connection.as_str(),
            self.enrollment.as_str(),
            self.what.request_type(),
            self.what.argument(),
            cause.unwrap_or_default(),
            self.state.as_str(),
            self.reason.as_deref(),
            self.created_at,
            self.answered_at
        ]
    }

    /// The pending commands of these epochs; `keys` is a JSON array of organisation and epoch.
    pub(crate) async fn pending_of(tx: &mut Tx<'_>, keys: &str) -> Result<Vec<Self>> {
        tx.fetch_all(
            select_commands!(
                "(SELECT value FROM json_each($1)) AS wanted JOIN commands ON organisation = wanted.value ->> 0 \
                 AND epoch = wanted.value ->> 1 AND state IN ('planned', 'queued', 'not_now')"
            ),
            params![keys],
        )
        .await?
        .iter()
        .map(Self::from_row)
        .collect()
    }

    /// The permission commands of these epochs; `keys` as for [`Self::pending_of`].
    pub(crate) async fn permissions_of(tx: &mut Tx<'_>, keys: &str) -> Result<Vec<Self>> {
        tx.fetch_all(
            select_commands!(
                "(SELECT value FROM json_each($1)) AS wanted JOIN commands ON organisation = wanted.value ->> 0 \
                 AND epoch = wanted.value ->> 1 AND commands.type = 'Settings'"
            ),
            params![keys],
        )
        .await?
        .iter()
        .map(Self::from_row)
        .collect()
    }

    /// Commands by organisation and CommandUUID; `keys` is a JSON array of those.
    pub(crate) async fn of_ids(tx: &mut Tx<'_>, keys: &str) -> Result<Vec<Self>> {
        tx.fetch_all(
            select_commands!(
                "(SELECT value FROM json_each($1)) AS wanted JOIN commands ON organisation = wanted.value ->> 0 \
                 AND commands.id = wanted.value ->> 1"
            ),
            params![keys],
        )
        .await?
        .iter()
        .map(Self::from_row)
        .collect()
    }

    /// The newest commands of a device, newest first.
    pub(crate) async fn of_device(
        tx: &mut Tx<'_>,
        organisation: &OrganisationId,
        serial: &SerialNumber,
        limit: i64,
    ) -> Result<Vec<Self>> {
        tx.fetch_all(
            select_commands!(
                "commands WHERE organisation = $1 AND epoch IN (SELECT id FROM epochs WHERE organisation = $1 AND serial = $2) \
                 ORDER BY id DESC LIMIT $3"
            ),
            params![organisation.as_str(), serial.as_str(), limit],
        )
        .await?
        .iter()
        .map(Self::from_row)
        .collect()
    }
}

/// The verbs on commands. See [`Escrow::commands`].
pub struct Commands<'a>(pub(crate) &'a Escrow);

impl Commands<'_> {
    /// Takes up to `limit` commands that are to be queued at their MDM now, those of the connections in `except` left
    /// alone. Each is this caller's for `lease`; when the caller dies, it comes back afterwards.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_due(
        &self,
        limit: i64,
        lease: Duration,
        except: &[String],
    ) -> Result<Vec<Command>> {
        let except = list(except);
        self.0
            .db
            .write("commands.take_due", async move |tx| {
                let now = tx.now();
                let rows = tx
                    .fetch_all(
                        "SELECT id FROM connections WHERE id NOT IN (SELECT value ->> 0 FROM json_each($2)) AND EXISTS \
                         (SELECT 1 FROM commands WHERE state = 'planned' AND commands.connection = connections.id \
                          AND due_at <= $1 AND (leased_until IS NULL OR leased_until <= $1)) ORDER BY id",
                        params![now, except.as_str()],
                    )
                    .await?;
                let mut taken = Vec::new();
                for row in rows {
                    let left = limit - i64::try_from(taken.len()).unwrap_or(limit);
                    if left <= 0 {
                        break;
                    }
                    let connection: String = row.get("id")?;
                    taken.extend(take_due_of(tx, &connection, now.plus(lease), left).await?);
                }
                // In the order in which they were made, which no engine promises of itself.
                taken.sort_by(|one, other| one.id.cmp(&other.id));
                Ok(taken)
            })
            .await
    }

    /// When the next command is to be queued that nobody has taken, if any is, those of the connections in `except` left alone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next_due(&self, except: &[String]) -> Result<Option<Timestamp>> {
        let except = list(except);
        self.0
            .db
            .read(async move |tx| {
                let row = tx
                    .fetch_one(
                        "SELECT MIN(due) AS due FROM (SELECT (SELECT due_at FROM commands WHERE state = 'planned' \
                         AND commands.connection = connections.id AND (leased_until IS NULL OR leased_until <= $2) \
                         ORDER BY due_at LIMIT 1) AS due FROM connections \
                         WHERE id NOT IN (SELECT value ->> 0 FROM json_each($1))) AS each_of",
                        params![except.as_str(), tx.now()],
                    )
                    .await?;
                row.get("due")
            })
            .await
    }

    /// The MDM has it. An answer that came first is left as it is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn queued(&self, command: &Command) -> Result<()> {
        let (organisation, id) = (command.organisation.clone(), command.id.clone());
        self.0
            .db
            .write("commands.queued", async move |tx| {
                let now = tx.now();
                tx.execute(
                    "UPDATE commands SET state = 'queued', reason = NULL, queued_at = $3, leased_until = NULL \
                     WHERE organisation = $1 AND id = $2 AND state = 'planned'",
                    params![organisation.as_str(), id.as_str(), now],
                )
                .await?;
                Ok(())
            })
            .await
    }

    /// The MDM did not take it: it is tried again after a wait that grows with each failure. `reason` is shown on
    /// the device; `random` spreads the waits.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn not_queued(&self, command: &Command, reason: &str, random: u64) -> Result<()> {
        let (organisation, id) = (command.organisation.clone(), command.id.clone());
        let (reason, wait) = (
            reason.to_owned(),
            asking::queue_retry(command.tries.max(1), random),
        );
        self.0
            .db
            .write("commands.not_queued", async move |tx| {
                let due = tx.now().plus(wait);
                tx.execute(
                    "UPDATE commands SET reason = $3, due_at = $4, leased_until = NULL \
                     WHERE organisation = $1 AND id = $2 AND state = 'planned'",
                    params![organisation.as_str(), id.as_str(), reason.as_str(), due],
                )
                .await?;
                Ok(())
            })
            .await
    }

    /// An MDM takes commands again: those that wait to be tried again are due at once. Gives how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn hurry(&self, connection: &str) -> Result<u64> {
        let connection = connection.to_owned();
        let hurried = self
            .0
            .db
            .write("commands.hurry", async move |tx| {
                let now = tx.now();
                tx.execute(
                    "UPDATE commands SET due_at = $1 WHERE state = 'planned' AND due_at > $1 AND connection = $2",
                    params![now, connection.as_str()],
                )
                .await
            })
            .await?;
        self.0.tell(News::Commands);
        Ok(hurried)
    }

    /// Frees what a courier of an earlier process held, for a database that only one process uses.
    pub(crate) async fn free_leases(&self) -> Result<u64> {
        self.0
            .db
            .write("commands.free_leases", async move |tx| {
                tx.execute(
                    "UPDATE commands SET leased_until = NULL WHERE state = 'planned' AND leased_until IS NOT NULL",
                    params![],
                )
                .await
            })
            .await
    }

    /// Puts on record what is due to be asked of devices (R8), for up to `limit` epochs. Gives how many it looked at; as
    /// many as `limit` means there are more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn plan_due(&self, limit: i64) -> Result<usize> {
        let escrow = self.0.clone();
        let looked_at = self
            .0
            .db
            .write("commands.plan_due", async move |tx| {
                let due = Epoch::due(tx, limit).await?;
                let looked_at = due.len();
                let mut ledger = Ledger::new(tx, &escrow);
                ledger
                    .read_devices(tx, due, BTreeSet::new(), Vec::new())
                    .await?;
                for at in 0..looked_at {
                    record::follow_up(&mut ledger, at);
                }
                ledger.write(tx).await?;
                Ok(looked_at)
            })
            .await?;
        if looked_at > 0 {
            self.0.tell(News::Commands);
        }
        Ok(looked_at)
    }

    /// A person asks for the code again.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn refresh(
        &self,
        permit: &Permit<Refresh>,
        serial: &SerialNumber,
    ) -> Result<Refreshed> {
        let (escrow, confirmed, serial) = (self.0.clone(), permit.clone(), serial.clone());
        let result = self
            .0
            .db
            .write("commands.refresh", async move |tx| {
                confirmed.confirm(tx).await?;
                let organisation = confirmed.organisation().clone();
                let asked = ask_soon(tx, &escrow, &organisation, &serial, Trigger::Person).await?;
                crate::audit::record(
                    tx,
                    &escrow,
                    confirmed
                        .entry("device.refresh")
                        .subject(serial.as_str())
                        .detail("enrollments", asked),
                )
                .await?;
                Ok(if asked == 0 {
                    Refreshed::NotEnrolled
                } else {
                    Refreshed::Asked
                })
            })
            .await;
        let done = self.0.audit_refusal(permit, result).await?;
        self.0.tell(News::Commands);
        Ok(done)
    }

    /// Answers may have been lost for every enrollment of a connection, or of all (R8): those with a question pending
    /// are asked again at once, with `everyone` the others too. A question that was tried may be pending too, though nobody
    /// noted that the MDM took it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ask_all(
        &self,
        connection: Option<&str>,
        trigger: Trigger,
        everyone: bool,
    ) -> Result<u64> {
        let connection = connection.map(str::to_owned);
        let asked = self
            .0
            .db
            .write("commands.ask_all", async move |tx| {
                let now = tx.now();
                tx.execute(
                    "UPDATE epochs SET answers_lost_at = $1, triggered_at = $1, next_ask_at = $1 \
                     WHERE closed_at IS NULL AND next_ask_at IS NOT NULL \
                     AND ($2 IS NULL OR connection = $2) AND ($3 = 1 OR EXISTS (SELECT 1 FROM commands \
                     WHERE commands.organisation = epochs.organisation AND commands.epoch = epochs.id \
                     AND (commands.state IN ('queued', 'not_now') OR (commands.state = 'planned' AND commands.tries > 0))))",
                    params![now, connection.as_deref(), i64::from(everyone)],
                )
                .await
            })
            .await?;
        tracing::info!(
            enrollments = asked,
            cause = trigger.as_str(),
            "asking devices again"
        );
        self.0.tell(News::Asks);
        Ok(asked)
    }
}

/// Takes the commands of one connection that are due, those that wait longest first.
async fn take_due_of(
    tx: &mut Tx<'_>,
    connection: &str,
    leased_until: Timestamp,
    limit: i64,
) -> Result<Vec<Command>> {
    let now = tx.now();
    tx.fetch_all(
        "UPDATE commands SET leased_until = $2, tries = tries + 1 WHERE (organisation, id) IN \
         (SELECT organisation, id FROM commands WHERE state = 'planned' AND connection = $4 AND due_at <= $1 \
          AND (leased_until IS NULL OR leased_until <= $1) ORDER BY due_at LIMIT $3) \
         RETURNING organisation, id, epoch, connection, enrollment, type, argument, state, reason, \
         tries, created_at, queued_at, answered_at",
        params![now, leased_until, limit, connection],
    )
    .await?
    .iter()
    .map(Command::from_row)
    .collect()
}

/// What came of a person's wish to ask a device again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// The question is on its way.
    Asked,
    /// No MDM knows the device at present.
    NotEnrolled,
}

/// Asks a device again at once (R8), in every open epoch of it. Gives the number of epochs.
pub(crate) async fn ask_soon(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    trigger: Trigger,
) -> Result<usize> {
    let key = (organisation.clone(), serial.clone());
    let mut ledger = Ledger::new(tx, escrow);
    ledger
        .read(tx, &[], &[key.clone()].into(), &BTreeSet::new())
        .await?;
    let open = ledger.open_epochs(&key);
    for at in &open {
        let now = ledger.now();
        ledger.epoch_mut(*at).trigger(now, trigger);
        record::follow_up(&mut ledger, *at);
    }
    ledger.write(tx).await?;
    Ok(open.len())
}
