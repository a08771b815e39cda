//! Turning a lock off: what will happen, while it happens, and what came of it.

use activation_lock::codes::CodeId;
use activation_lock::device::SerialNumber;
use activation_lock::explain::{self, Explanation};
use activation_lock::operation::StateName;
use activation_lock::unlock::{AttemptResult, Outcome};
use escrow::codes::CodeView;
use escrow::devices::DeviceView;
use escrow::operations::{AttemptView, Enqueued, NewUnlock, OperationView};
use escrow::permit::{Permit, Read, Unlock as UnlockRight};

use super::form::Wish;
use super::*;
use crate::http::api;
use crate::http::extract::Path;

#[derive(Template)]
#[template(path = "unlock_ask.html")]
pub(super) struct AskPage {
    frame: Frame,
    device: DeviceView,
    /// The codes that would be tried, first to last, and whether Apple refused each before.
    tried: Vec<(CodeView, bool)>,
    why: &'static str,
    wish: Wish,
}

impl AskPage {
    async fn of(visitor: &Visitor, serial: &SerialNumber, wish: Wish) -> Result<Self, Turned> {
        let (organisation, device) = device::of(visitor, serial).await?;
        let (app, actor) = (&visitor.app, &visitor.caller.actor);
        let subject = format!("device {serial}");
        let permit: Permit<Read> = app.escrow.authorise(actor, &organisation, subject).await?;
        let order = app.escrow.operations().order(&permit, serial).await?;
        let of = |id: &CodeId| device.codes.iter().find(|code| code.id == *id).cloned();
        let tried = order.codes.iter().filter_map(|id| {
            let was_refused = order.refused_before.contains(id);
            of(id).map(|code| (code, was_refused))
        });
        let tried = tried.collect();
        let frame = visitor
            .frame(format!("Unlock {serial}"), &organisation)
            .await?;
        Ok(Self {
            frame,
            device,
            tried,
            why: explain::order(order.why),
            wish,
        })
    }
}

pub(super) async fn ask(
    visitor: Visitor,
    Path(serial): Path<SerialNumber>,
    uri: Uri,
) -> Shown<AskPage> {
    let page = AskPage::of(&visitor, &serial, Wish::new(&uri)).await?;
    Ok(Page(StatusCode::OK, page))
}

pub(super) async fn request(
    visitor: Visitor,
    Path(serial): Path<SerialNumber>,
    form: Form,
) -> Result<Response, Turned> {
    let app = &visitor.app;
    let organisation = visitor.caller.organisation_of(app, &serial).await?;
    let reason = match api::reason(form.text("reason")) {
        Ok(reason) => reason.to_owned(),
        Err(problem) => {
            let page = AskPage::of(&visitor, &serial, Wish::again(&form, &problem)).await?;
            return Ok(Page(StatusCode::BAD_REQUEST, page).into_response());
        }
    };
    let actor = form::leave(&visitor, &form, &reason)?;
    let subject = format!("device {serial}");
    let permit: Permit<UnlockRight> = app.escrow.authorise(&actor, &organisation, subject).await?;
    let new = NewUnlock {
        reason,
        requester: actor.name().to_owned(),
        insists: form.is_ticked("insist"),
        urgent: true,
        idempotency: None,
        serial,
    };
    let unlock = match app.escrow.operations().enqueue(&permit, new).await? {
        Enqueued::New(unlock) | Enqueued::Same(unlock) | Enqueued::UnderWay(unlock) => unlock,
        Enqueued::LiveElsewhere(live) => return Err(api::in_progress(live).into()),
        Enqueued::KeyReused => return Err(Problem::failed().into()),
        Enqueued::NoProductType => return Err(api::no_product_type().into()),
        Enqueued::UnknownDevice => return Err(Problem::unknown_device().into()),
    };
    Ok(see(&format!("/unlocks/{}", unlock.id)))
}

#[derive(Template)]
#[template(path = "unlock.html")]
pub(super) struct UnlockPage {
    frame: Frame,
    unlock: OperationView,
    explained: Explanation,
    tone: &'static str,
}

impl UnlockPage {
    fn is_done(&self) -> bool {
        self.unlock.is_done()
    }

    fn needs_review(&self) -> bool {
        self.unlock.state == StateName::NeedsReview
    }
}

/// A call in a word and a colour.
pub(super) fn badge(attempt: &AttemptView) -> devices::Badge {
    let (word, class) = match attempt.result {
        AttemptResult::InFlight => ("Under way", "calm"),
        AttemptResult::Lost => ("Nobody saw the answer", "warn"),
        AttemptResult::Ended { outcome, .. } => match outcome {
            Outcome::Unlocked => ("Accepted", "good"),
            Outcome::Refused => ("Refused", "bad"),
            Outcome::Malformed => ("Not understood", "bad"),
            Outcome::Credential => ("We were not accepted", "bad"),
            Outcome::Unavailable => ("Not reached", "warn"),
            Outcome::Unknown => ("No answer", "warn"),
            Outcome::Unexpected => ("Not described", "bad"),
        },
    };
    devices::Badge { word, class }
}

pub(super) fn explained(attempt: &AttemptView) -> Explanation {
    explain::attempt(&attempt.result, attempt.status)
}

/// A state as a heading has it.
pub(super) fn heading(state: &StateName) -> &'static str {
    match state {
        StateName::Queued => "Asked for",
        StateName::Running => "Under way",
        StateName::Waiting => "Waiting",
        StateName::Unlocked => "Unlocked",
        StateName::ProbablyUnlocked => "Probably unlocked",
        StateName::Rejected => "Every code was refused",
        StateName::NotLocked => "It was not locked",
        StateName::NeedsReview => "A person has to look",
        StateName::Cancelled => "Cancelled",
        StateName::Locked => "Locked",
        StateName::AlreadyLocked => "It was locked already",
        StateName::Refused => "Refused",
    }
}

fn tone(state: StateName) -> &'static str {
    match state {
        StateName::Unlocked | StateName::NotLocked => "good",
        StateName::Rejected | StateName::NeedsReview => "bad",
        StateName::ProbablyUnlocked | StateName::Waiting => "warn",
        _ => "calm",
    }
}

async fn read(visitor: &Visitor, id: &str) -> Result<(OrganisationId, OperationView), Turned> {
    let app = &visitor.app;
    let organisation = api::organisation_of_unlock(app, &visitor.caller, id).await?;
    let actor = &visitor.caller.actor;
    let subject = format!("unlock {id}");
    let permit: Permit<Read> = app.escrow.authorise(actor, &organisation, subject).await?;
    let unlock = app.escrow.operations().get(&permit, id).await?;
    Ok((organisation, unlock.ok_or_else(api::unknown_unlock)?))
}

pub(super) async fn show(visitor: Visitor, Path(id): Path<String>) -> Shown<UnlockPage> {
    let (organisation, unlock) = read(&visitor, &id).await?;
    let frame = visitor
        .frame(format!("Unlock of {}", unlock.serial), &organisation)
        .await?;
    Ok(Page(
        StatusCode::OK,
        UnlockPage {
            explained: api::unlock_in_words(&unlock),
            tone: tone(unlock.state),
            frame,
            unlock,
        },
    ))
}

pub(super) async fn cancel(visitor: Visitor, Path(id): Path<String>) -> Result<Response, Turned> {
    api::cancel_unlock(&visitor.app, &visitor.caller, &id).await?;
    Ok(see(&format!("/unlocks/{id}?done=cancelled")))
}

pub(super) async fn resume(visitor: Visitor, Path(id): Path<String>) -> Result<Response, Turned> {
    api::resume_unlock(&visitor.app, &visitor.caller, &id).await?;
    Ok(see(&format!("/unlocks/{id}?done=resumed")))
}
