//! What waits for another person, and what one asked for oneself.

use escrow::approvals::{Action, Approval, State, Which};
use escrow::permit::{Permit, Read};

use super::*;
use crate::http::api;
use crate::http::extract::Path;

/// Requests on the page, at most, of each kind.
const MOST: u32 = 100;

#[derive(Template)]
#[template(path = "approvals.html")]
pub(super) struct ApprovalsPage {
    frame: Frame,
    /// Those of others, which wait for a decision.
    open: Vec<Approval>,
    own: Vec<Approval>,
}

impl ApprovalsPage {
    fn may_decide(&self) -> bool {
        self.frame.may.allow(Permission::Approve)
    }

    /// The page on which what was approved is done.
    fn use_of(&self, approval: &Approval) -> Option<String> {
        if approval.state != State::Approved || approval.is_expired(self.frame.now) {
            return None;
        }
        let target = approval.targets.first()?;
        if let Some(batch) = target.strip_prefix("batch ") {
            let id = batch.split(' ').next()?;
            let pairs = [("approval", approval.id.as_str())];
            return Some(self.frame.link(&format!("/batches/{id}"), &pairs));
        }
        let doing = match approval.action {
            Action::Reveal => "reveal",
            Action::Unlock => "unlock",
            Action::Lock => "lock",
            _ => return None,
        };
        let serial = target.strip_prefix("device ")?;
        let pairs = [("approval", approval.id.as_str())];
        let place = format!("/devices/{serial}/{doing}");
        Some(self.frame.link(&place, &pairs))
    }

    /// The page on which a target can be looked at.
    fn place_of(&self, target: &str) -> Option<String> {
        let (what, rest) = target.split_once(' ')?;
        let name = rest.split(' ').next()?;
        match what {
            "device" => Some(self.frame.link(&format!("/devices/{name}"), &[])),
            "batch" => Some(self.frame.link(&format!("/batches/{name}"), &[])),
            _ => None,
        }
    }

    fn state(&self, approval: &Approval) -> devices::Badge {
        let (word, class) = match approval.state {
            _ if approval.is_expired(self.frame.now) => ("Time over", "calm"),
            State::Asked => ("Waits", "warn"),
            State::Approved => ("Approved", "good"),
            State::Refused => ("Refused", "bad"),
            State::Cancelled => ("Taken back", "calm"),
            State::Used => ("Used", "calm"),
        };
        devices::Badge { word, class }
    }
}

/// What for, as a heading.
pub(super) fn wish(action: &Action) -> &'static str {
    match action {
        Action::Reveal => "See a code",
        Action::Unlock => "Turn a lock off",
        Action::Lock => "Turn a lock on",
        Action::Export => "Take codes away",
        Action::ExportPlain => "Take codes away in the clear",
        Action::Purge => "Remove a device",
        Action::Connections => "Change where codes go",
        Action::People => "Change what people may",
        Action::Policies => "Loosen a policy",
    }
}

pub(super) async fn list(visitor: Visitor) -> Shown<ApprovalsPage> {
    let app = &visitor.app;
    let organisation = visitor.caller.record(app).await?;
    let actor = &visitor.caller.actor;
    let permit: Permit<Read> = app
        .escrow
        .authorise(actor, &organisation, "approvals")
        .await?;
    let approvals = app.escrow.approvals();
    let mut open = approvals.list(&permit, Which::Open, MOST).await?;
    open.retain(|one| is_of_another(one, &visitor.caller));
    let own = approvals.list(&permit, Which::Own, MOST).await?;
    let frame = visitor.frame("Approvals", &organisation).await?;
    Ok(Page(StatusCode::OK, ApprovalsPage { frame, open, own }))
}

/// Whether another person asked.
pub(super) fn is_of_another(approval: &Approval, caller: &Caller) -> bool {
    caller.actor.human() != Some(&approval.human)
}

pub(super) async fn decide(
    visitor: Visitor,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Turned> {
    let comment = form.text("comment").trim();
    let comment = (!comment.is_empty())
        .then(|| api::reason(comment))
        .transpose()?;
    let is_yes = match form.text("say") {
        "yes" => true,
        "no" => false,
        _ => return Err(Problem::bad_request("It is said neither yes nor no.").into()),
    };
    api::decide(&visitor.app, &visitor.caller, &id, comment, is_yes).await?;
    Ok(see(
        &visitor.back("/approvals", if is_yes { "yes" } else { "no" })
    ))
}

pub(super) async fn cancel(visitor: Visitor, Path(id): Path<String>) -> Result<Response, Turned> {
    api::cancel_approval(&visitor.app, &visitor.caller, &id).await?;
    Ok(see(&visitor.back("/approvals", "taken-back")))
}
