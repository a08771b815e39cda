//! One call: its code made and put away first (R4), on record with its recipient before it leaves (R17), and whatever became
//! of it recorded on itself.

use std::time::Duration;

use activation_lock::bypass_code::{BypassCode, EscrowKeyHash};
use activation_lock::codes::{CodeId, CodeText};
use activation_lock::device::SerialNumber;
use activation_lock::lock::{CallResult, End, LockOutcome, ResponseStatus, Step, late_outcome};
use activation_lock::operation::StateName;
use activation_lock::time::Timestamp;
use zeroize::Zeroizing;

use super::journal::Record;
use super::plan::{self, Decision};
use super::standing::{self, refresh};
use super::{Details, Locks, code_to_reuse};
use crate::db::{Row, Tx, params};
use crate::news::News;
use crate::operations::overlap::{self, Overlapped};
use crate::operations::{self, Hold, Lease, PACE, WorkSettings, worker};
use crate::pace::{self, Pace};
use crate::permit::OrganisationId;
use crate::server_tokens::{self, Problem};
use crate::{Error, Escrow, Result, audit, codes, lock_statuses};

/// At most this much of a diagnostic is kept, in characters.
const DIAGNOSTIC: usize = 2_000;

/// What a worker does next with a lock it holds.
pub enum Advance {
    /// Make this call. It is on record, and its code is in the journal.
    Call(Box<Begun>),
    /// The pace allows the next call at this moment; hold on to the lease and advance again then.
    Paced {
        /// When.
        until: Timestamp,
    },
    /// It ended, or waits; the lease is given back.
    Parked(StateName),
    /// The lease was lost: somebody else has the lock. Nothing was changed.
    Lost,
}

/// Names a call, to report what became of it.
#[derive(Clone, Debug)]
pub struct Ticket {
    organisation: OrganisationId,
    operation: String,
    call: String,
}

impl Ticket {
    /// The call's identifier.
    #[must_use]
    pub fn call(&self) -> &str {
        &self.call
    }
}

/// What authenticates a call, for [`crate::server_tokens::ServerTokens::open`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// The server token's identifier.
    pub server_token: String,
    /// Its version.
    pub version: i64,
}

/// A call that is on record and may leave.
pub struct Begun {
    /// Names it.
    pub ticket: Ticket,
    /// The device.
    pub serial: SerialNumber,
    /// The hash of the code, which Apple is given.
    pub escrow_key: EscrowKeyHash,
    /// What the locked screen is to show.
    pub message: Option<String>,
    /// What authenticates it.
    pub via: Via,
    /// After this moment the call must not start any more (R16): report `NotSent` instead.
    pub latest_start: Timestamp,
}

/// What became of a call.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Apple's own word, if it came.
    pub response_status: Option<ResponseStatus>,
    /// The HTTP status, if one came.
    pub status: Option<u16>,
    /// How long Apple asked us to wait.
    pub retry_after: Option<Duration>,
    /// Words for a person, with every secret already taken out of them (R23).
    pub diagnostic: Option<String>,
}

/// What reporting a call's end led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finished {
    /// It is recorded and there is more to do: advance again.
    More,
    /// It is recorded, and with it the lock ended or waits; the lease is given back.
    Parked(StateName),
    /// The call had been given up. The answer is recorded on it and has raised the lock's state, or not.
    Late {
        /// The lock's state now.
        state: StateName,
    },
}

/// What the transaction that begins a call gives.
enum Beginning {
    Call {
        ticket: Ticket,
        code: CodeText,
        via: Via,
        latest_start: Timestamp,
        serial: SerialNumber,
        message: Option<String>,
    },
    Other(Advance),
}

impl Locks<'_> {
    /// Decides what to do next with a lock, with everything read again, and puts it on record: a call with its audit row
    /// before it leaves (R17), an end, or a wait. When it gives a call, its code is on disk twice: in the database, and in the
    /// lock journal (R4).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn advance(&self, lease: &mut Lease, settings: &WorkSettings) -> Result<Advance> {
        let (escrow, settings, hold, paid) = (
            self.0.clone(),
            settings.clone(),
            lease.hold.clone(),
            lease.paid,
        );
        let beginning = self
            .0
            .write_minding_journal("locks.advance", async move |tx| {
                advance(tx, &escrow, &settings, &hold, paid).await
            })
            .await?;
        let (ticket, code, via, latest_start, serial, message) = match beginning {
            Beginning::Other(other) => return Ok(other),
            Beginning::Call {
                ticket,
                code,
                via,
                latest_start,
                serial,
                message,
            } => (ticket, code, via, latest_start, serial, message),
        };
        lease.paid = false;
        let record = Record {
            organisation: ticket.organisation.clone(),
            call: ticket.call.clone(),
            operation: ticket.operation.clone(),
            serial: serial.clone(),
            code: Zeroizing::new(code.expose().to_owned()),
        };
        if let Err(error) = self.0.lock_journal().append(self.0, &record).await {
            tracing::error!(%error, "the lock journal cannot be written: no lock is sent until it can");
            return self.not_put_away(&ticket, &error).await;
        }
        let hashed =
            tokio::task::spawn_blocking(move || code.code().as_ref().map(EscrowKeyHash::of))
                .await
                .ok()
                .flatten();
        let Some(escrow_key) = hashed else {
            // What this program makes is a code; whoever changed it has to be found.
            return Err(Error::Corrupt("codes.cell"));
        };
        Ok(Advance::Call(Box::new(Begun {
            ticket,
            serial,
            escrow_key,
            message,
            via,
            latest_start,
        })))
    }

    /// The code could not be put away a second time: nothing is sent, and it is tried again.
    async fn not_put_away(&self, ticket: &Ticket, error: &std::io::Error) -> Result<Advance> {
        let answer = Answer {
            diagnostic: Some(format!(
                "nothing was sent: the lock journal cannot be written ({error})"
            )),
            ..Answer::default()
        };
        Ok(
            match self
                .finish(ticket, LockOutcome::Unavailable, answer)
                .await?
            {
                Finished::Parked(state) | Finished::Late { state } => Advance::Parked(state),
                Finished::More => Advance::Lost,
            },
        )
    }

    /// Records what became of a call, on itself, whatever happened to the lease meanwhile (R14).
    ///
    /// # Errors
    /// When there is no such call, or the database fails.
    pub async fn finish(
        &self,
        ticket: &Ticket,
        outcome: LockOutcome,
        answer: Answer,
    ) -> Result<Finished> {
        let (escrow, ticket) = (self.0.clone(), ticket.clone());
        let finished = self
            .0
            .db
            .write("locks.finish", async move |tx| {
                finish(tx, &escrow, &ticket, outcome, &answer).await
            })
            .await?;
        if finished != Finished::More {
            self.0.operations().wake();
        }
        self.0.tell(News::Statuses);
        Ok(finished)
    }
}

async fn advance(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    settings: &WorkSettings,
    hold: &Hold,
    paid: bool,
) -> Result<Beginning> {
    let now = tx.now();
    let decision = plan::decide(tx, &hold.organisation, &hold.operation).await?;
    let Some(decision) = decision.filter(|d| d.op.is_held(hold, now)) else {
        return Ok(Beginning::Other(Advance::Lost));
    };
    if decision.step != Step::Call {
        return Ok(Beginning::Other(
            match plan::apply(tx, escrow, &decision).await? {
                Some(state) => Advance::Parked(state),
                // A call of this very lease is in flight: whoever advances has not finished it.
                None => Advance::Lost,
            },
        ));
    }
    if !paid && let Pace::Until(until) = pace::take(tx, PACE, settings.pace).await? {
        operations::take_lease(tx, hold, settings).await?;
        return Ok(Beginning::Other(Advance::Paced { until }));
    }
    begin(tx, escrow, settings, hold, &decision).await
}

async fn begin(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    settings: &WorkSettings,
    hold: &Hold,
    decision: &Decision,
) -> Result<Beginning> {
    let op = &decision.op;
    // The step is a call only where something can authenticate it.
    let token = decision
        .token
        .as_ref()
        .ok_or(Error::Corrupt("server_tokens.id"))?;
    let (code, text) = code_of(tx, escrow, decision).await?;
    let (id, now) = (tx.new_id().to_string(), tx.now());
    let until = operations::take_lease(tx, hold, settings).await?;
    let recipient = token.recipient(&settings.enrolment_host);
    tx.execute(
        "INSERT INTO lock_calls (organisation, id, operation, serial, position, code, credential, recipient, lease_number, \
         began_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        params![
            op.organisation.as_str(),
            id.as_str(),
            op.id.as_str(),
            op.serial.as_str(),
            decision.position(),
            code.0.as_str(),
            token.credential().id,
            recipient.as_str(),
            hold.number,
            now
        ],
    )
    .await?;
    let entry = audit::Entry::by(&worker(), &op.organisation, "lock.call")
        .subject(op.serial.as_str())
        .reason(&op.reason)
        .detail("operation", op.id.as_str())
        .detail("call", id.as_str())
        .detail("code", code.0.as_str())
        .detail("server_token", token.id.as_str())
        .detail("for", op.requester.as_str())
        .detail("recipient", recipient.as_str());
    audit::record(tx, escrow, entry).await?;
    refresh(tx, &op.organisation, &op.serial).await?;
    let ticket = Ticket {
        organisation: op.organisation.clone(),
        operation: op.id.clone(),
        call: id,
    };
    let Some(code) = text else {
        let answer = Answer {
            diagnostic: Some(
                "nothing was sent: the sealed code that has to be used again does not open; run doctor".to_owned(),
            ),
            ..Answer::default()
        };
        return Ok(Beginning::Other(
            match finish(tx, escrow, &ticket, LockOutcome::Malformed, &answer).await? {
                Finished::Parked(state) | Finished::Late { state } => Advance::Parked(state),
                Finished::More => Advance::Paced { until: now },
            },
        ));
    };
    Ok(Beginning::Call {
        ticket,
        code,
        via: Via {
            server_token: token.id.clone(),
            version: token.version,
        },
        latest_start: until.minus(settings.call_timeout),
        serial: op.serial.clone(),
        message: op.message.clone(),
    })
}

/// The code of a lock: the one it has, else the one that has to be used again (R4), else a new one. Its text is `None` where it
/// does not open.
async fn code_of(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    decision: &Decision,
) -> Result<(CodeId, Option<CodeText>)> {
    let op = &decision.op;
    let had = match &op.code {
        Some(code) => Some(code.clone()),
        None => code_to_reuse(tx, &op.organisation, &op.serial).await?,
    };
    let (code, text) = match had {
        Some(code) => {
            let text = match codes::open_made(tx, escrow, &op.organisation, &code).await {
                Ok(text) => text,
                Err(Error::Seal(_) | Error::Corrupt(_)) => None,
                Err(other) => return Err(other),
            };
            (code, text)
        }
        None => {
            let mut raw = Zeroizing::new([0; 16]);
            escrow.random().fill(raw.as_mut_slice());
            let text = BypassCode::from_raw(*raw).to_text();
            // Sixteen bytes are a code, and a code is a text.
            let text =
                CodeText::new(text.as_str().to_owned()).ok_or(Error::Corrupt("codes.cell"))?;
            let key = (op.organisation.clone(), op.serial.clone());
            (codes::keep_made(tx, escrow, &key, &text).await?, Some(text))
        }
    };
    tx.execute(
        "UPDATE operations SET code = $3 WHERE organisation = $1 AND id = $2",
        params![op.organisation.as_str(), op.id.as_str(), code.0.as_str()],
    )
    .await?;
    Ok((code, text))
}

/// A call's row, as far as an answer to it needs it.
struct CallRow {
    serial: SerialNumber,
    credential: String,
    result: CallResult,
    began_at: Timestamp,
}

impl CallRow {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            serial: row
                .get::<String>("serial")?
                .parse()
                .map_err(|_| Error::Corrupt("lock_calls.serial"))?,
            credential: row.get("credential")?,
            result: standing::result(row)?,
            began_at: row.get("began_at")?,
        })
    }
}

async fn finish(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    ticket: &Ticket,
    outcome: LockOutcome,
    answer: &Answer,
) -> Result<Finished> {
    let row = tx
        .fetch_optional(
            "SELECT serial, credential, outcome, lost_at, retry_after, began_at FROM lock_calls \
             WHERE organisation = $1 AND id = $2",
            params![ticket.organisation.as_str(), ticket.call.as_str()],
        )
        .await?
        .ok_or(Error::Corrupt("lock_calls.id"))?;
    let row = CallRow::from_row(&row)?;
    note_problem(tx, ticket, &row, outcome).await?;
    if row.result != CallResult::InFlight {
        return late(tx, escrow, ticket, &row, outcome, answer).await;
    }
    let now = tx.now();
    let retry_after = answer
        .retry_after
        .map(|d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
    tx.execute(
        "UPDATE lock_calls SET outcome = $3, ended_at = $4, response_status = $5, status = $6, retry_after = $7, \
         diagnostic = $8 WHERE organisation = $1 AND id = $2",
        params![
            ticket.organisation.as_str(),
            ticket.call.as_str(),
            outcome.as_str(),
            now,
            answer.response_status.as_ref().map(ResponseStatus::as_str),
            answer.status.map(i64::from),
            retry_after,
            short(answer.diagnostic.as_deref())
        ],
    )
    .await?;
    audit_answer(tx, escrow, ticket, &row, "lock.answer", outcome, answer).await?;
    refresh(tx, &ticket.organisation, &row.serial).await?;
    Ok(
        match plan::settle(tx, escrow, &ticket.organisation, &ticket.operation).await? {
            Some(state) => Finished::Parked(state),
            None => Finished::More,
        },
    )
}

/// What an answer tells of the server token that was used.
async fn note_problem(
    tx: &mut Tx<'_>,
    ticket: &Ticket,
    row: &CallRow,
    outcome: LockOutcome,
) -> Result<()> {
    let problem = match outcome {
        LockOutcome::Credential => Some(Problem::Refused),
        LockOutcome::TermsNotSigned => Some(Problem::TermsNotSigned),
        LockOutcome::AccessDenied => Some(Problem::AccessDenied),
        LockOutcome::Locked
        | LockOutcome::AlreadyLocked
        | LockOutcome::NotAccessible
        | LockOutcome::OrgNotSupported
        | LockOutcome::DeviceNotSupported
        | LockOutcome::Failed
        | LockOutcome::Undescribed => None,
        LockOutcome::Malformed
        | LockOutcome::Unavailable
        | LockOutcome::Unknown
        | LockOutcome::Unexpected => return Ok(()),
    };
    server_tokens::note(tx, &ticket.organisation, &row.credential, problem).await?;
    if outcome == LockOutcome::NotAccessible {
        server_tokens::list_soon(tx, &ticket.organisation, &row.credential).await?;
    }
    Ok(())
}

/// An answer to a call that was given up, or that had one already. It may raise, it never lowers (R14); and where another call
/// for the device began before it came, both were under way at once, which is shown (R16).
async fn late(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    ticket: &Ticket,
    row: &CallRow,
    outcome: LockOutcome,
    answer: &Answer,
) -> Result<Finished> {
    let now = tx.now();
    let recorded = match row.result {
        CallResult::Ended { outcome, .. } => Some(outcome),
        CallResult::InFlight | CallResult::Lost => None,
    };
    let raised = late_outcome(recorded, outcome);
    tx.execute(
        "UPDATE lock_calls SET late_outcome = $3, late_at = $4, outcome = $5, status = COALESCE($6, status), \
         response_status = COALESCE($7, response_status), \
         ended_at = CASE WHEN $5 IS NULL THEN ended_at ELSE COALESCE(ended_at, $4) END, \
         diagnostic = COALESCE($8, diagnostic) WHERE organisation = $1 AND id = $2",
        params![
            ticket.organisation.as_str(),
            ticket.call.as_str(),
            outcome.as_str(),
            now,
            raised.map(LockOutcome::as_str),
            answer.status.map(i64::from),
            answer.response_status.as_ref().map(ResponseStatus::as_str),
            short(answer.diagnostic.as_deref())
        ],
    )
    .await?;
    audit_answer(tx, escrow, ticket, row, "lock.late_answer", outcome, answer).await?;
    if recorded.is_none() {
        let this = Overlapped {
            organisation: &ticket.organisation,
            operation: &ticket.operation,
            call: &ticket.call,
            serial: &row.serial,
            began_at: row.began_at,
            action: "lock.double_sent",
        };
        overlap::mark(tx, escrow, &this).await?;
    }
    refresh(tx, &ticket.organisation, &row.serial).await?;
    let decision = plan::decide(tx, &ticket.organisation, &ticket.operation)
        .await?
        .ok_or(Error::Corrupt("lock_calls.operation"))?;
    let before = decision.op.state;
    if decision.op.ended_at.is_none() {
        // The lock goes on, and its holder decides what is next. A "locked" ends it.
        let state = match &decision.step {
            Step::End(End::Locked) => plan::apply(tx, escrow, &decision).await?,
            _ => None,
        };
        return Ok(Finished::Late {
            state: state.unwrap_or(before),
        });
    }
    if outcome == LockOutcome::Locked && before != StateName::Locked {
        tx.execute(
            "UPDATE operations SET state = $3, details = $4, version = version + 1 WHERE organisation = $1 AND id = $2",
            params![
                ticket.organisation.as_str(),
                ticket.operation.as_str(),
                StateName::Locked.as_str(),
                Details::default().to_json()
            ],
        )
        .await?;
        let entry = audit::Entry::by(&worker(), &ticket.organisation, "lock.end")
            .subject(row.serial.as_str())
            .detail("operation", ticket.operation.as_str())
            .detail("before", before.as_str())
            .result(StateName::Locked.as_str());
        audit::record(tx, escrow, entry).await?;
        lock_statuses::expect_locked(tx, &ticket.organisation, &row.serial).await?;
        return Ok(Finished::Late {
            state: StateName::Locked,
        });
    }
    Ok(Finished::Late { state: before })
}

async fn audit_answer(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    ticket: &Ticket,
    row: &CallRow,
    action: &'static str,
    outcome: LockOutcome,
    answer: &Answer,
) -> Result<()> {
    let said = answer.response_status.as_ref();
    let entry = audit::Entry::by(&worker(), &ticket.organisation, action)
        .subject(row.serial.as_str())
        .detail("operation", ticket.operation.as_str())
        .detail("call", ticket.call.as_str())
        .detail("response_status", said.map_or("", ResponseStatus::as_str))
        .detail(
            "status",
            answer.status.map_or_else(String::new, |s| s.to_string()),
        )
        .result(outcome.as_str());
    audit::record(tx, escrow, entry).await
}

fn short(diagnostic: Option<&str>) -> Option<String> {
    diagnostic.map(|text| text.chars().take(DIAGNOSTIC).collect())
}
