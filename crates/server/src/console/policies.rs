//! What takes other people, and how much one may do without them.

use escrow::approvals::{Action, Policy};
use escrow::organisations::Organisation;
use escrow::permit::{Admin, Permit};

use super::*;
use crate::http::api;
use crate::http::extract::Path;

const HOUR: u64 = 60 * 60;
const MINUTE: u64 = 60;

#[derive(Template)]
#[template(path = "policies.html")]
pub(super) struct PoliciesPage {
    frame: Frame,
    policies: Vec<(Action, Policy)>,
    organisation: Organisation,
    wrong: Option<String>,
}

impl PoliciesPage {
    async fn of(visitor: &Visitor, wrong: Option<String>) -> Result<Self, Turned> {
        let app = &visitor.app;
        let organisation = visitor.caller.organisation(app).await?;
        let actor = &visitor.caller.actor;
        let all = app.escrow.organisations().list(actor).await?;
        Ok(Self {
            policies: app.escrow.policies().list(&organisation).await?,
            organisation: all
                .into_iter()
                .find(|one| one.id == organisation)
                .ok_or_else(Problem::failed)?,
            frame: visitor.frame("Policies", &organisation).await?,
            wrong,
        })
    }

    fn hours(&self, policy: &Policy) -> u64 {
        policy.ask_within.as_secs() / HOUR
    }

    fn minutes(&self, policy: &Policy) -> u64 {
        policy.use_within.as_secs() / MINUTE
    }
}

pub(super) async fn show(visitor: Visitor) -> Shown<PoliciesPage> {
    Ok(Page(
        StatusCode::OK,
        PoliciesPage::of(&visitor, None).await?,
    ))
}

/// A number of a form.
fn number<T: std::str::FromStr>(form: &Form, name: &str) -> Result<T, Problem> {
    let text = form.text(name).trim();
    text.parse()
        .map_err(|_| Problem::bad_request(format!("\u{201c}{text}\u{201d} is not such a number.")))
}

pub(super) async fn set(
    visitor: Visitor,
    Path(action): Path<String>,
    form: Form,
) -> Result<Response, Turned> {
    let app = &visitor.app;
    let organisation = visitor.caller.organisation(app).await?;
    let actor = asking(&visitor, &form)?;
    let subject = format!("policy {action}");
    let permit: Permit<Admin> = app.escrow.authorise(&actor, &organisation, subject).await?;
    let action = Action::from_name(&action)
        .ok_or_else(|| Problem::bad_request("There is no policy of that name."))?;
    let new = Policy {
        people: number(&form, "people")?,
        self_approval: form.is_ticked("self_approval"),
        ask_within: Duration::from_secs(number::<u64>(&form, "hours")?.saturating_mul(HOUR)),
        use_within: Duration::from_secs(number::<u64>(&form, "minutes")?.saturating_mul(MINUTE)),
    };
    match app.escrow.policies().set(&permit, action, new).await? {
        Ok(()) => Ok(see(&visitor.back("/policies", "policy"))),
        Err(problem) => {
            let problem = api::policy_refused(&problem);
            let wrong = problem.said().detail.to_owned();
            let page = PoliciesPage::of(&visitor, Some(wrong)).await?;
            Ok(Page(problem.status(), page).into_response())
        }
    }
}

pub(super) async fn set_quotas(visitor: Visitor, form: Form) -> Result<Response, Turned> {
    let app = &visitor.app;
    let organisation = visitor.caller.organisation(app).await?;
    let actor = asking(&visitor, &form)?;
    let permit: Permit<Admin> = app
        .escrow
        .authorise(&actor, &organisation, "quotas")
        .await?;
    let (reveals, unlocks) = (number(&form, "reveals")?, number(&form, "unlocks")?);
    app.escrow
        .organisations()
        .set_quotas(&permit, Some(reveals), Some(unlocks))
        .await?;
    Ok(see(&visitor.back("/policies", "policy")))
}

/// Who asks; with a reason where others are to be asked.
fn asking(visitor: &Visitor, form: &Form) -> Result<escrow::permit::Actor, Turned> {
    match form.text("leave") {
        "" if form.text("approval").is_empty() => Ok(visitor.caller.actor.clone()),
        _ => form::leave(visitor, form, api::reason(form.text("reason"))?),
    }
}
