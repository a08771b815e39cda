//! Apple's own status of locks: asked for after a lock or an unlock until it agrees, and otherwise once in a long while.

use std::time::Duration;

use activation_lock::device::SerialNumber;
use apple::business_manager::{BusinessError, StatusAnswer};
use escrow::business_apis::BusinessApiView;
use escrow::duties::Duty;
use escrow::lock_statuses::Reading;
use escrow::permit::OrganisationId;

use super::lists::LONGEST_WAIT;
use super::{Pauses, rest, wait_until};
use crate::App;
use crate::lifecycle::Shutdown;
use crate::services::NoService;

/// However quiet it is, what is due is looked at this often.
const LOOK: Duration = Duration::from_secs(60);
/// Devices asked about one after the other before what is due is looked at anew.
const BATCH: u32 = 50;
/// After an account had to be left alone, what is due is looked at anew so soon.
const AFTER_A_PAUSE: Duration = Duration::from_secs(1);
/// An account that does not work is left alone for so long, unless Apple says otherwise.
const AFTER_A_PROBLEM: Duration = Duration::from_secs(5 * 60);

/// Reads what is due, until the server is to end.
pub(super) async fn work(app: App, shutdown: Shutdown) {
    let mut pauses = Pauses::new();
    while !shutdown.is_requested() {
        let wait = match look(&app, &shutdown).await {
            Ok(Some(wait)) => {
                pauses = Pauses::new();
                wait
            }
            Ok(None) => continue,
            Err(error) => {
                tracing::error!(%error, "the statuses that are due cannot be read; it is tried again");
                pauses.next()
            }
        };
        tokio::select! {
            () = app.escrow.statuses_woken() => {}
            () = app.clock.sleep(wait) => {}
            () = shutdown.requested() => {}
        }
    }
}

/// Reads a batch. Gives how long it is until there is more to do; `None` when there is at once.
async fn look(app: &App, shutdown: &Shutdown) -> escrow::Result<Option<Duration>> {
    let duties = app.escrow.duties();
    if duties
        .hold(Duty::Statuses, &app.replica.id)
        .await?
        .is_none()
    {
        return Ok(Some(LOOK));
    }
    let statuses = app.escrow.lock_statuses();
    let (due, next) = statuses.due(BATCH).await?;
    if due.is_empty() {
        let wait = next.map_or(LOOK, |at| wait_until(app.now(), at).min(LOOK));
        return Ok(Some(wait));
    }
    let mut left_alone: Option<OrganisationId> = None;
    for device in due {
        let is_ours = duties
            .hold(Duty::Statuses, &app.replica.id)
            .await?
            .is_some();
        if shutdown.is_requested() || !is_ours {
            return Ok(Some(LOOK));
        }
        if left_alone.as_ref() == Some(&device.organisation) {
            continue;
        }
        let (reading, goes_on) = asked(app, &device.organisation, &device.serial).await;
        if goes_on {
            let settings = app.settings.statuses;
            statuses
                .record(&device.organisation, &device.serial, reading, settings)
                .await?;
        } else {
            left_alone = Some(device.organisation);
        }
        if rest(&*app.clock, shutdown, app.settings.status_pace).await {
            return Ok(Some(LOOK));
        }
    }
    // Where an account had to be left alone, its time comes later.
    Ok(left_alone.map(|_| AFTER_A_PAUSE))
}

/// Asks Apple once about a device.
pub(crate) async fn ask(
    app: &App,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Reading {
    asked(app, organisation, serial).await.0
}

/// How long an organisation's account is left alone still, because Apple asked for it or it failed.
pub(crate) async fn left_alone_for(
    app: &App,
    organisation: &OrganisationId,
) -> escrow::Result<Option<Duration>> {
    let accounts = app.escrow.business_apis().all().await?;
    let account = accounts
        .iter()
        .find(|one| one.organisation == *organisation);
    let until = account.and_then(|account| account.retry_at);
    let now = app.now();
    Ok(until
        .filter(|until| *until > now)
        .map(|until| until.since(now)))
}

/// Asks Apple once about a device. Also says whether the next question to it is worth asking now.
async fn asked(app: &App, organisation: &OrganisationId, serial: &SerialNumber) -> (Reading, bool) {
    let (service, account) = match app.services.business(organisation).await {
        Ok(Some(opened)) => opened,
        Ok(None) => return (Reading::Problem("no_account"), false),
        Err(none) => {
            tracing::error!(why = none.why(), "Apple's status cannot be asked for");
            leave_alone(app, organisation, none.why()).await;
            let is_credential = matches!(none, NoService::Credential(_));
            let word = if is_credential {
                "credential"
            } else {
                "unavailable"
            };
            return (Reading::Problem(word), false);
        }
    };
    let answer = service.lock_status(serial, app.machine_now()).await;
    app.metrics.status(match &answer {
        Ok(StatusAnswer::Known { .. }) => "known",
        Ok(StatusAnswer::NotManaged) => "not_managed",
        Ok(StatusAnswer::InternalState { .. }) => "internal_state",
        Err(error) => word(error),
    });
    let goes_on = match &answer {
        Ok(_) => {
            note(app, &account, None).await;
            true
        }
        Err(error) if error.concerns_every_call() => {
            note(app, &account, Some(error)).await;
            false
        }
        Err(_) => true,
    };
    let reading = match answer {
        Ok(StatusAnswer::Known {
            status,
            undescribed,
        }) => Reading::Said {
            status,
            more: undescribed,
        },
        Ok(StatusAnswer::NotManaged) => Reading::Problem("not_managed"),
        Ok(StatusAnswer::InternalState { diagnostic }) => {
            tracing::warn!(
                serial = serial.as_str(),
                diagnostic,
                "Apple gives no status of this device"
            );
            Reading::Problem("internal_state")
        }
        Err(error) => {
            tracing::warn!(serial = serial.as_str(), %error, "Apple's status of a device was not read");
            Reading::Problem(word(&error))
        }
    };
    (reading, goes_on)
}

/// Nothing is asked with an account for a while that cannot be used at all.
async fn leave_alone(app: &App, organisation: &OrganisationId, why: &str) {
    let apis = app.escrow.business_apis();
    let accounts = apis.all().await.unwrap_or_default();
    if let Some(account) = accounts.iter().find(|a| a.organisation == *organisation) {
        let retry_at = app.now().plus(AFTER_A_PROBLEM);
        if let Err(error) = apis
            .note(account, Some(why.to_owned()), Some(retry_at))
            .await
        {
            tracing::error!(%error, "how the account for Apple's API fares cannot be recorded");
        }
    }
}

/// The stable word of a failure.
fn word(error: &BusinessError) -> &'static str {
    match error {
        BusinessError::Credential(_) => "credential",
        BusinessError::Unavailable { .. } => "unavailable",
        BusinessError::Unexpected { .. } => "unexpected",
    }
}

/// Puts on record how the account fares.
pub(super) async fn note(app: &App, account: &BusinessApiView, error: Option<&BusinessError>) {
    let (problem, retry_at) = match error {
        None => (None, None),
        Some(error) => {
            let wait = match error {
                BusinessError::Unavailable {
                    retry_after: Some(wait),
                    ..
                } => (*wait).min(LONGEST_WAIT),
                _ => AFTER_A_PROBLEM,
            };
            let problem = match error {
                BusinessError::Credential(_) => Some(error.to_string()),
                _ => None,
            };
            (problem, Some(app.now().plus(wait)))
        }
    };
    if let Err(error) = app
        .escrow
        .business_apis()
        .note(account, problem, retry_at)
        .await
    {
        tracing::error!(%error, "how the account for Apple's API fares cannot be recorded");
    }
}
