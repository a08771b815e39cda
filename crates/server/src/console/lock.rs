//! Turning a lock of the organisation on: what it means, while it happens, and what came of it.

use activation_lock::device::SerialNumber;
use activation_lock::explain::{self, Explanation};
use activation_lock::lock::{CallResult, LockOutcome};
use activation_lock::operation::StateName;
use escrow::devices::DeviceView;
use escrow::locks::{CallView, Enqueued, LockView, NewLock};
use escrow::permit::{Lock as LockRight, Permit, Read};

use super::form::Wish;
use super::*;
use crate::http::api;
use crate::http::extract::Path;

#[derive(Template)]
#[template(path = "lock_ask.html")]
pub(super) struct AskPage {
    frame: Frame,
    device: DeviceView,
    /// Whether Apple locks devices of this kind at all, where that is doubtful.
    doubt: Option<Explanation>,
    wish: Wish,
    message: String,
}

impl AskPage {
    async fn of(
        visitor: &Visitor,
        serial: &SerialNumber,
        wish: Wish,
        message: &str,
    ) -> Result<Self, Turned> {
        let (organisation, device) = device::of(visitor, serial).await?;
        let product = device.summary.product_type.as_ref();
        Ok(Self {
            frame: visitor
                .frame(format!("Lock {serial}"), &organisation)
                .await?,
            doubt: explain::lock::lock_doubt(product.map(|product| product.family())),
            device,
            wish,
            message: message.to_owned(),
        })
    }
}

pub(super) async fn ask(
    visitor: Visitor,
    Path(serial): Path<SerialNumber>,
    uri: Uri,
) -> Shown<AskPage> {
    let page = AskPage::of(&visitor, &serial, Wish::new(&uri), "").await?;
    Ok(Page(StatusCode::OK, page))
}

pub(super) async fn request(
    visitor: Visitor,
    Path(serial): Path<SerialNumber>,
    form: Form,
) -> Result<Response, Turned> {
    let app = &visitor.app;
    let organisation = visitor.caller.organisation_of(app, &serial).await?;
    let shown = form.text("message").trim();
    let read = api::reason(form.text("reason")).and_then(|reason| {
        let message = (!shown.is_empty())
            .then(|| api::message(shown))
            .transpose()?;
        Ok((reason.to_owned(), message))
    });
    let (reason, message) = match read {
        Ok(read) => read,
        Err(problem) => {
            let wish = Wish::again(&form, &problem);
            let page = AskPage::of(&visitor, &serial, wish, shown).await?;
            return Ok(Page(StatusCode::BAD_REQUEST, page).into_response());
        }
    };
    let actor = form::leave(&visitor, &form, &reason)?;
    let subject = format!("device {serial}");
    let permit: Permit<LockRight> = app.escrow.authorise(&actor, &organisation, subject).await?;
    let new = NewLock {
        requester: actor.name().to_owned(),
        reason,
        message,
        server_token: None,
        override_reason: None,
        urgent: true,
        idempotency: None,
        serial,
    };
    let lock = match app.escrow.locks().enqueue(&permit, new).await? {
        Enqueued::New(lock) | Enqueued::Same(lock) | Enqueued::UnderWay(lock) => lock,
        Enqueued::LiveElsewhere(live) => return Err(api::in_progress(live).into()),
        Enqueued::KeyReused => return Err(Problem::failed().into()),
        Enqueued::NotAssigned => return Err(api::not_assigned().into()),
        Enqueued::UnknownToken => return Err(api::unknown_server_token().into()),
        Enqueued::UnknownDevice => return Err(Problem::unknown_device().into()),
    };
    Ok(see(&format!("/locks/{}", lock.id)))
}

#[derive(Template)]
#[template(path = "lock.html")]
pub(super) struct LockPage {
    frame: Frame,
    lock: LockView,
    explained: Explanation,
    tone: &'static str,
}

impl LockPage {
    fn is_done(&self) -> bool {
        self.lock.is_done()
    }

    fn needs_review(&self) -> bool {
        self.lock.state == StateName::NeedsReview
    }
}

/// A call in a word and a colour.
pub(super) fn badge(call: &CallView) -> devices::Badge {
    let (word, class) = match call.result {
        CallResult::InFlight => ("Under way", "calm"),
        CallResult::Lost => ("Nobody saw the answer", "warn"),
        CallResult::Ended { outcome, .. } => match outcome {
            LockOutcome::Locked => ("Locked", "good"),
            LockOutcome::AlreadyLocked => ("Locked already", "warn"),
            LockOutcome::Unavailable => ("Not reached", "warn"),
            LockOutcome::Unknown => ("No answer", "warn"),
            _ => ("Not locked", "bad"),
        },
    };
    devices::Badge { word, class }
}

pub(super) fn explained(call: &CallView) -> Explanation {
    explain::lock::call(call.result, call.status, call.response_status.as_deref())
}

pub(super) async fn show(visitor: Visitor, Path(id): Path<String>) -> Shown<LockPage> {
    let app = &visitor.app;
    let organisation = api::organisation_of_lock(app, &visitor.caller, &id).await?;
    let actor = &visitor.caller.actor;
    let subject = format!("lock {id}");
    let permit: Permit<Read> = app.escrow.authorise(actor, &organisation, subject).await?;
    let lock = app.escrow.locks().get(&permit, &id).await?;
    let lock = lock.ok_or_else(api::unknown_lock)?;
    let frame = visitor
        .frame(format!("Lock of {}", lock.serial), &organisation)
        .await?;
    let tone = match lock.state {
        StateName::Locked => "good",
        StateName::Refused | StateName::NeedsReview => "bad",
        StateName::AlreadyLocked | StateName::Waiting => "warn",
        _ => "calm",
    };
    Ok(Page(
        StatusCode::OK,
        LockPage {
            explained: api::lock_in_words(&lock),
            tone,
            frame,
            lock,
        },
    ))
}

pub(super) async fn cancel(visitor: Visitor, Path(id): Path<String>) -> Result<Response, Turned> {
    api::cancel_lock(&visitor.app, &visitor.caller, &id).await?;
    Ok(see(&format!("/locks/{id}?done=lock-cancelled")))
}

pub(super) async fn resume(visitor: Visitor, Path(id): Path<String>) -> Result<Response, Turned> {
    api::resume_lock(&visitor.app, &visitor.caller, &id).await?;
    Ok(see(&format!("/locks/{id}?done=lock-resumed")))
}
