//! Apple's lists of devices: those of the enrolment service's servers, whole once and by changes from then on, and that of the
//! Business and School Manager API, once a day.

use std::time::Duration;

use activation_lock::time::DAY;
use apple::dep::{DepDevice, DepError, DepService, DevicePage, OpType};
use escrow::business_apis::BusinessApiView;
use escrow::duties::{Duty, Held};
use escrow::listing::{Job, Line, Listed, OrgDevice, Page, Reading};
use escrow::server_tokens::{Problem, ServerTokenView};

use super::{Pauses, statuses, wait_until};
use crate::App;
use crate::lifecycle::Shutdown;
use crate::services::NoService;

/// However quiet it is, what is due is looked at this often.
const LOOK: Duration = Duration::from_secs(5 * 60);
/// Devices asked for at once.
const PAGE: u16 = 1000;
/// Pages of one list that are read before others have their turn.
const PAGES_A_TURN: usize = 20;
/// After a turn, a list that goes on rests for so long.
const BETWEEN_TURNS: Duration = Duration::from_secs(1);
/// The longest wait that Apple, or what stands in for it, can ask for. Nothing would be read for years after a slip.
pub(super) const LONGEST_WAIT: Duration = DAY;
/// A list that cannot be read is tried again after so long, unless Apple says otherwise.
const AFTER_A_FAILURE: Duration = Duration::from_secs(5 * 60);
/// The list of the Business and School Manager API is read so often.
const ORG_DEVICES_EVERY: Duration = DAY;

/// Reads what is due, until the server is to end.
pub(super) async fn work(app: App, shutdown: Shutdown) {
    let mut pauses = Pauses::new();
    while !shutdown.is_requested() {
        let wait = match look(&app, &shutdown).await {
            Ok(wait) => {
                pauses = Pauses::new();
                wait
            }
            Err(error) => {
                tracing::error!(%error, "Apple's lists cannot be read; it is tried again");
                pauses.next()
            }
        };
        tokio::select! {
            () = app.escrow.listings_woken() => {}
            () = app.clock.sleep(wait) => {}
            () = shutdown.requested() => {}
        }
    }
}

async fn look(app: &App, shutdown: &Shutdown) -> escrow::Result<Duration> {
    if hold(app).await?.is_none() {
        return Ok(LOOK);
    }
    let listing = app.escrow.listing();
    let (due, _) = listing.due(app.settings.list_every).await?;
    for job in due {
        if shutdown.is_requested() {
            return Ok(LOOK);
        }
        read(app, shutdown, job).await?;
    }
    let now = app.now();
    let mut next = listing.due(app.settings.list_every).await?.1;
    for account in app.escrow.business_apis().all().await? {
        let due_at = match (account.retry_at, account.listed_at) {
            (Some(at), _) if at > now => at,
            (_, Some(at)) if account.cursor.is_none() => at.plus(ORG_DEVICES_EVERY),
            _ => now,
        };
        if due_at <= now && !shutdown.is_requested() {
            read_org_devices(app, shutdown, &account).await?;
        } else {
            next = next.into_iter().chain([due_at]).min();
        }
    }
    Ok(next.map_or(LOOK, |at| wait_until(app.now(), at).min(LOOK)))
}

/// Another process may read the lists.
async fn hold(app: &App) -> escrow::Result<Option<Held>> {
    app.escrow.duties().hold(Duty::Lists, &app.replica.id).await
}

/// Reads the list of one server on, until its end.
async fn read(app: &App, shutdown: &Shutdown, job: Job) -> escrow::Result<()> {
    let listing = app.escrow.listing();
    let token = &job.token;
    let opened = app.services.enrolment(&token.organisation, &token.id).await;
    let service = match opened {
        Ok((service, _)) => service,
        Err(NoService::Credential(why) | NoService::Failed(why)) => {
            tracing::error!(token = token.name, why, "a list of devices cannot be read");
            return listing
                .put_off(token, app.now().plus(AFTER_A_FAILURE))
                .await;
        }
    };
    if job.reading == Reading::New || token.server_uuid.is_none() {
        match service.account(app.machine_now()).await {
            Ok(account) => {
                let (uuid, name, org) = (
                    account.server_uuid.as_deref(),
                    account.server_name.as_deref(),
                    account.org_name.as_deref(),
                );
                app.escrow
                    .server_tokens()
                    .learn(token, uuid, name, org)
                    .await?;
            }
            Err(error) => return failed(app, token, &error).await,
        }
    }
    let (mut reading, mut cursor) = (job.reading, job.cursor);
    if reading == Reading::New || (reading == Reading::Changes && cursor.is_none()) {
        listing.begin_whole(token).await?;
        (reading, cursor) = (Reading::Whole, None);
    }
    let mut began_anew = false;
    for _ in 0..PAGES_A_TURN {
        if shutdown.is_requested() {
            return Ok(());
        }
        let Some(held) = hold(app).await? else {
            return Ok(());
        };
        let listing = app.escrow.listing().under(held);
        let page = match ask(app, &service, reading, cursor.as_deref()).await {
            Ok(page) => page,
            // Once a turn, and not where no cursor was sent: a server that takes none is not asked for ever.
            Err(DepError::CursorInvalid(problem)) if cursor.is_some() && !began_anew => {
                tracing::warn!(token = token.name, %problem, "a list of devices is read whole again");
                listing.begin_whole(token).await?;
                (reading, cursor) = (Reading::Whole, None);
                began_anew = true;
                continue;
            }
            Err(error) => return failed(app, token, &error).await,
        };
        // A page that does not say where the next begins would be asked for for ever.
        let more = page.more_to_follow && page.cursor.is_some() && page.cursor != cursor;
        cursor = page.cursor.clone();
        let page = Page {
            lines: page.devices.into_iter().map(line).collect(),
            cursor: page.cursor,
            more,
        };
        let Some(changed) = listing.page(token, reading, page).await? else {
            tracing::info!(
                token = token.name,
                "a list is read no further: its token was removed or renewed"
            );
            return Ok(());
        };
        app.escrow.server_tokens().note(token, None).await?;
        if changed.new > 0 || changed.gone > 0 {
            tracing::info!(
                token = token.name,
                new = changed.new,
                gone = changed.gone,
                locks = changed.locks,
                "a list of devices changed"
            );
        }
        if changed.paused {
            tracing::warn!(
                token = token.name,
                "locking newly listed devices pauses for a person: more were listed than are locked by themselves in an hour"
            );
        }
        if !more {
            return Ok(());
        }
    }
    listing.put_off(token, app.now().plus(BETWEEN_TURNS)).await
}

async fn ask(
    app: &App,
    service: &DepService,
    reading: Reading,
    cursor: Option<&str>,
) -> Result<DevicePage, DepError> {
    match (reading, cursor) {
        (Reading::Changes, Some(cursor)) => {
            service.sync_devices(cursor, PAGE, app.machine_now()).await
        }
        _ => service.fetch_devices(cursor, PAGE, app.machine_now()).await,
    }
}

/// A list could not be read: what a person has to mend is put on record, and it is tried again.
async fn failed(app: &App, token: &ServerTokenView, error: &DepError) -> escrow::Result<()> {
    tracing::warn!(token = token.name, %error, "a list of devices was not read");
    let problem = problem(error);
    if problem.is_some() {
        app.escrow.server_tokens().note(token, problem).await?;
    }
    let wait = match error {
        DepError::Unavailable {
            retry_after: Some(wait),
            ..
        } => (*wait).clamp(Duration::from_secs(1), LONGEST_WAIT),
        _ => AFTER_A_FAILURE,
    };
    let until = app.now().plus(wait);
    app.escrow.listing().put_off(token, until).await
}

/// What a person has to mend of a token, by what a call with it came to.
pub(crate) fn problem(error: &DepError) -> Option<Problem> {
    match error {
        DepError::TokenRefused { .. } | DepError::ProxyRefused { .. } => Some(Problem::Refused),
        DepError::TermsNotSigned => Some(Problem::TermsNotSigned),
        DepError::AccessDenied { .. } => Some(Problem::AccessDenied),
        _ => None,
    }
}

fn line(device: DepDevice) -> Line {
    if device.op_type == Some(OpType::Deleted) {
        return Line::NamesNoMore(device.serial);
    }
    let listed = Listed {
        model: device.model,
        description: device.description,
        color: device.color,
        device_family: device.device_family,
        os: device.os,
        asset_tag: device.asset_tag,
        profile_status: device.profile_status,
        assigned_by: device.device_assigned_by,
        assigned_at: device.device_assigned_date,
        imei: device.imei,
        meid: device.meid,
        eid: device.eid,
        is_replacement: device.is_replacement_device,
        released_by_replacement: device.released_by_replacement,
        migration_deadline: device.mdm_migration_deadline,
    };
    Line::Names(device.serial, Box::new(listed))
}

/// Reads the list of the Business and School Manager API on, until its end.
async fn read_org_devices(
    app: &App,
    shutdown: &Shutdown,
    account: &BusinessApiView,
) -> escrow::Result<()> {
    let service = match app.services.business(&account.organisation).await {
        Ok(Some((service, _))) => service,
        Ok(None) => return Ok(()),
        Err(NoService::Credential(why) | NoService::Failed(why)) => {
            tracing::error!(why, "Apple's list of devices cannot be read");
            let retry_at = Some(app.now().plus(AFTER_A_FAILURE));
            let apis = app.escrow.business_apis();
            return apis.note(account, Some(why), retry_at).await;
        }
    };
    let mut cursor = account.cursor.clone();
    for _ in 0..PAGES_A_TURN {
        if shutdown.is_requested() {
            return Ok(());
        }
        let page = service
            .org_devices(cursor.as_deref(), usize::from(PAGE), app.machine_now())
            .await;
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "Apple's list of devices was not read");
                statuses::note(app, account, Some(&error)).await;
                return Ok(());
            }
        };
        let devices = page
            .items
            .into_iter()
            .map(|device| OrgDevice {
                serial: device.serial,
                product_type: device.product_type,
                model: device.device_model,
                imei: device.imei,
                meid: device.meid,
            })
            .collect();
        let listing = app.escrow.listing();
        if !listing.fill(account, devices, page.next.clone()).await? {
            return Ok(());
        }
        cursor = page.next;
        if cursor.is_none() {
            statuses::note(app, account, None).await;
            return Ok(());
        }
    }
    let retry_at = Some(app.now().plus(BETWEEN_TURNS));
    app.escrow
        .business_apis()
        .note(account, None, retry_at)
        .await
}
