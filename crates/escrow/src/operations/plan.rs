//! From rows to the values that the decision is made on.

use std::time::Duration;

use activation_lock::codes::{
    self, Candidate, CodeId, CodeKind, Credential, FirstBecause, Form, Plan, Try,
};
use activation_lock::device::{DeviceIdentity, IdentitySource, SerialNumber};
use activation_lock::operation::Backoff;
use activation_lock::time::{DAY, Timestamp};
use activation_lock::unlock::{
    self, AskedStatus, Attempt, AttemptResult, End, Outcome, ReviewReason, Step,
};

use super::{AttemptView, Kind, Operation};
use crate::connections::{self, UnlockVia};
use crate::db::{Row, Tx, params};
use crate::enrollments::{Epoch, OpenedBy};
use crate::permit::OrganisationId;
use crate::{Error, Result, devices, lock_statuses, push_certificates};

/// One row of `attempts`: as it is shown, and as the decision takes it.
pub(super) struct AttemptRow {
    pub(super) view: AttemptView,
    pub(super) attempt: Attempt,
}

macro_rules! select_attempts {
    ($rest:literal) => {
        concat!(
            "SELECT organisation, id, operation, serial, position, code, code_kind, code_current, code_seen_at, form, ",
            "parses, uncapped, identity, identity_source, swapped, credential, topic, recipient, began_at, ended_at, ",
            "lost_at, outcome, status, retry_after, delegate_failed, diagnostic, late_outcome, late_at, ",
            "\"overlaps\" FROM attempts ",
            $rest
        )
    };
}

fn form_from_name(text: &str) -> Option<Form> {
    [Form::Reported, Form::Canonical, Form::Kept]
        .into_iter()
        .find(|form| form.as_str() == text)
}

impl AttemptRow {
    fn from_row(row: &Row) -> Result<Self> {
        let corrupt = |what| move |_| Error::Corrupt(what);
        let outcome: Option<String> = row.get("outcome")?;
        let outcome: Option<Outcome> = outcome
            .map(|o| o.parse())
            .transpose()
            .map_err(corrupt("attempts.outcome"))?;
        let late: Option<String> = row.get("late_outcome")?;
        let late: Option<Outcome> = late
            .map(|o| o.parse())
            .transpose()
            .map_err(corrupt("attempts.late_outcome"))?;
        let late_at: Option<Timestamp> = row.get("late_at")?;
        let lost_at: Option<Timestamp> = row.get("lost_at")?;
        let ended_at: Option<Timestamp> = row.get("ended_at")?;
        let retry_after: Option<i64> = row.get("retry_after")?;
        let retry_after =
            retry_after.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
        let result = match outcome {
            Some(outcome) => AttemptResult::Ended {
                outcome,
                retry_after,
            },
            None if lost_at.is_some() => AttemptResult::Lost,
            None => AttemptResult::InFlight,
        };
        let identity: DeviceIdentity = serde_json::from_str(&row.get::<String>("identity")?)
            .map_err(|_| Error::Corrupt("attempts.identity"))?;
        let code = CodeId(row.get("code")?);
        let began_at: Timestamp = row.get("began_at")?;
        let topic: String = row.get("topic")?;
        let swapped = row.get::<bool>("swapped")?;
        let status: Option<i64> = row.get("status")?;
        Ok(Self {
            attempt: Attempt {
                tried: Try {
                    code: code.clone(),
                    form: form_from_name(&row.get::<String>("form")?)
                        .ok_or(Error::Corrupt("attempts.form"))?,
                    parses: row.get::<bool>("parses")?,
                    uncapped: row.get::<bool>("uncapped")?,
                    identity: identity.clone(),
                    swapped,
                    credential: Credential {
                        id: row.get("credential")?,
                        topic: topic.clone(),
                    },
                },
                began_at,
                ended_at: ended_at.or(lost_at),
                result,
                delegate_failed: row.get::<bool>("delegate_failed")?,
            },
            view: AttemptView {
                id: row.get("id")?,
                position: u32::try_from(row.get::<i64>("position")?).unwrap_or(u32::MAX),
                result,
                status: status.and_then(|s| u16::try_from(s).ok()),
                code,
                code_kind: row
                    .get::<String>("code_kind")?
                    .parse()
                    .map_err(corrupt("attempts.code_kind"))?,
                code_current: row.get::<bool>("code_current")?,
                code_seen_at: row.get("code_seen_at")?,
                identity,
                identity_source: row.get("identity_source")?,
                swapped,
                topic,
                recipient: row.get("recipient")?,
                began_at,
                ended_at,
                diagnostic: row.get("diagnostic")?,
                late: late_at.zip(late),
                overlaps: row.get("overlaps")?,
            },
        })
    }
}

/// The calls of an operation, oldest first.
pub(super) async fn attempts_of(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    operation: &str,
) -> Result<Vec<AttemptRow>> {
    tx.fetch_all(
        select_attempts!("WHERE organisation = $1 AND operation = $2 ORDER BY position"),
        params![organisation.as_str(), operation],
    )
    .await?
    .iter()
    .map(AttemptRow::from_row)
    .collect()
}

/// One call.
pub(super) async fn attempt(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    id: &str,
) -> Result<Option<AttemptRow>> {
    tx.fetch_optional(
        select_attempts!("WHERE organisation = $1 AND id = $2"),
        params![organisation.as_str(), id],
    )
    .await?
    .map(|row| AttemptRow::from_row(&row))
    .transpose()
}

/// What other operations for the same serial number mean for this one (R12): how much of the cap of a day they used up,
/// anywhere, and the triples that were refused in this organisation ever. A 404 after a call of the same operation that got no
/// answer blames no code (R14): that call may have been the one that turned the lock off.
async fn others(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    except: &str,
) -> Result<(usize, Vec<Try>)> {
    let since = tx.now().minus(DAY);
    let rows = tx
        .fetch_all(
            select_attempts!(
                "WHERE serial = $1 AND operation <> $2 AND (began_at > $3 OR organisation = $4) \
                 ORDER BY organisation, operation, position"
            ),
            params![serial.as_str(), except, since, organisation.as_str()],
        )
        .await?;
    let mut operations: Vec<((String, String), Vec<Attempt>)> = Vec::new();
    for row in &rows {
        let key = (row.get("organisation")?, row.get("operation")?);
        if operations.last().is_none_or(|(of, _)| *of != key) {
            operations.push((key, Vec::new()));
        }
        if let Some((_, attempts)) = operations.last_mut() {
            attempts.push(AttemptRow::from_row(row)?.attempt);
        }
    }
    let (mut spent, mut refused) = (0, Vec::new());
    for ((of, _), attempts) in operations {
        spent += unlock::spent(attempts.iter().filter(|a| a.began_at > since));
        if of == organisation.as_str() {
            let sure = attempts.into_iter().take_while(|a| !is_unknown(a));
            refused.extend(sure.filter(is_refused).map(|a| a.tried));
        }
    }
    Ok((spent, refused))
}

/// Whether a call may have worked without anybody having seen it.
fn is_unknown(attempt: &Attempt) -> bool {
    match attempt.result {
        AttemptResult::InFlight | AttemptResult::Lost => true,
        AttemptResult::Ended { outcome, .. } => outcome == Outcome::Unknown,
    }
}

fn is_refused(attempt: &Attempt) -> bool {
    matches!(
        attempt.result,
        AttemptResult::Ended {
            outcome: Outcome::Refused,
            ..
        }
    )
}

/// A connection's secret as a credential: another one after every change, the same topic.
fn delegated(connection: &connections::ConnectionView, topic: &str) -> Credential {
    Credential {
        id: format!("connection:{}@{}", connection.id, connection.version),
        topic: topic.to_owned(),
    }
}

/// The connection that a credential of an attempt names, if it is not a certificate.
pub(super) fn connection_of(credential: &Credential) -> Option<&str> {
    credential.id.strip_prefix("connection:")?.split('@').next()
}

/// What can authenticate us for a device, its own topic first (R18, R19). An expired certificate is none.
async fn credentials(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    newest: Option<&Epoch>,
) -> Result<Vec<Credential>> {
    let now = tx.now();
    let mut credentials = Vec::new();
    if let Some((epoch, topic)) = newest.and_then(|epoch| Some((epoch, epoch.topic.as_ref()?)))
        && let Some(connection) = connections::by_id(tx, &epoch.connection).await?
        && connection.unlock_via == UnlockVia::Delegated
    {
        credentials.push(delegated(&connection, topic));
    }
    let mut own: Vec<_> = push_certificates::current(tx, organisation)
        .await?
        .into_iter()
        .filter(|certificate| certificate.is_usable(now))
        .map(|certificate| Credential {
            id: certificate.id,
            topic: certificate.topic,
        })
        .collect();
    own.sort_by_key(|credential| {
        newest.and_then(|epoch| epoch.topic.as_ref()) != Some(&credential.topic)
    });
    credentials.append(&mut own);
    Ok(credentials)
}

/// An operation, all that bears on it, and what is to be done now.
pub(super) struct Decision {
    pub(super) op: Operation,
    pub(super) attempts: Vec<AttemptRow>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) source: IdentitySource,
    pub(super) step: Step,
}

impl Decision {
    /// The candidate whose code a row names.
    pub(super) fn candidate(&self, code: &CodeId) -> Option<&Candidate> {
        self.candidates.iter().find(|c| c.code == *code)
    }

    /// The kind of a code that was tried, from its attempt.
    pub(super) fn kind_tried(&self, code: &CodeId) -> Option<CodeKind> {
        self.attempts
            .iter()
            .find(|a| a.view.code == *code)
            .map(|a| a.view.code_kind)
    }
}

/// All that bears on which codes of a device are tried, and in which order.
struct Bearing {
    candidates: Vec<Candidate>,
    known: Option<(DeviceIdentity, IdentitySource)>,
    epochs: Vec<Epoch>,
    spent_by_others_today: usize,
    apple: lock_statuses::Word,
    refused_before: Vec<Try>,
    tries: Vec<Try>,
}

/// Reads it, for an unlock or for none.
async fn bearing(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    operation: &str,
) -> Result<Bearing> {
    let candidates = crate::codes::candidates(tx, organisation, serial).await?;
    let known = devices::identity_for_unlock(tx, organisation, serial).await?;
    let epochs = Epoch::all_of_device(tx, organisation, serial).await?;
    let credentials = credentials(tx, organisation, epochs.last()).await?;
    let (spent_by_others_today, refused_before) =
        others(tx, organisation, serial, operation).await?;
    let apple = lock_statuses::word(tx, organisation, serial).await?;
    let tries = known.as_ref().map_or_else(Vec::new, |(identity, source)| {
        codes::order(&Plan {
            candidates: &candidates,
            identity,
            imeis_without_slots: *source == IdentitySource::List,
            credentials: &credentials,
            status: apple.guide(tx.now()),
            refused_before: &refused_before,
        })
    });
    Ok(Bearing {
        candidates,
        known,
        epochs,
        spent_by_others_today,
        apple,
        refused_before,
        tries,
    })
}

/// In which order the codes of a device would be tried now, and what that goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The codes, first to last.
    pub codes: Vec<CodeId>,
    /// Those of them that Apple has refused before, with this identity and certificate.
    pub refused_before: Vec<CodeId>,
    /// Why the first is the first.
    pub why: FirstBecause,
}

/// What an unlock of a device that was asked for now would try.
pub(super) async fn order_now(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Order> {
    let bearing = bearing(tx, organisation, serial, "").await?;
    let mut order = Order {
        codes: Vec::new(),
        refused_before: Vec::new(),
        why: codes::first_because(bearing.apple.guide(tx.now()), &bearing.candidates),
    };
    for one in &bearing.tries {
        if order.codes.contains(&one.code) {
            continue;
        }
        order.codes.push(one.code.clone());
        if bearing
            .refused_before
            .iter()
            .any(|before| before.is_same(one))
        {
            order.refused_before.push(one.code.clone());
        }
    }
    Ok(order)
}

/// Reads everything again and decides (R12). `None` when there is no such operation.
pub(super) async fn decide(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    operation: &str,
) -> Result<Option<Decision>> {
    let Some(op) = Operation::load(tx, Kind::Unlock, organisation, operation).await? else {
        return Ok(None);
    };
    let attempts = attempts_of(tx, organisation, operation).await?;
    let Bearing {
        candidates,
        known,
        epochs,
        spent_by_others_today,
        apple,
        tries,
        ..
    } = bearing(tx, organisation, &op.serial, &op.id).await?;
    // An enrollment that was merely found under way is no sign of a new one.
    let epoch_opened_at = epochs
        .iter()
        .filter(|e| e.opened_by != OpenedBy::Adopted)
        .map(|e| e.opened_at)
        .max();
    let since = op.resumed_at.unwrap_or(op.requested_at);
    let source = known
        .as_ref()
        .map_or(IdentitySource::Device, |(_, source)| *source);
    let wish = unlock::Unlock {
        requested_at: op.requested_at,
        resumed_at: op.resumed_at,
        deadline: op.deadline,
        cancelled_by: op.cancelled_by.clone(),
        insists: op.insists,
        attempts: attempts.iter().map(|row| row.attempt.clone()).collect(),
        spent_by_others_today,
        epoch_opened_at,
        // A device has one operation at a time: none can have been asked for since.
        lock_requested_at: None,
        restored_at: op.restored_at,
        status: AskedStatus {
            can_be_asked: apple.can_be_asked,
            asked_at: op.status_asked_at,
            said: apple.read_since(since),
        },
        backoff: Backoff::default(),
    };
    let step = match unlock::next(&wish, &tries, candidates.len(), tx.now()) {
        // What names the device to Apple was taken away since the request.
        Step::Try(_) | Step::Wait { .. } if known.is_none() => Step::End(End::NeedsReview {
            why: ReviewReason::NoProductType,
            untried: candidates.len(),
        }),
        step => step,
    };
    Ok(Some(Decision {
        op,
        attempts,
        candidates,
        source,
        step,
    }))
}
