//! People: who they are, what they may, inviting them, and taking an invitation.

use axum::extract::State;
use axum::http::HeaderMap;
use escrow::people::{Login, NewPerson, PersonView};
use escrow::permit::{Admin, Permit, Role, Scope};
use seal::Password;
use zeroize::Zeroizing;

use super::*;
use crate::auth::Address;
use crate::http::api;
use crate::http::extract::{Path, name, parsed, sentence};
use crate::http::refusals::Kind;

#[derive(Template)]
#[template(path = "people.html")]
pub(super) struct PeoplePage {
    frame: Frame,
    place: OrganisationId,
    people: Vec<PersonView>,
    /// Who was just invited, with the text that lets them in. It is on this page and on no other.
    invited: Option<(String, Zeroizing<String>)>,
}

impl PeoplePage {
    async fn of(visitor: &Visitor) -> Result<(Self, Permit<Admin>), Turned> {
        let app = &visitor.app;
        let organisation = visitor.caller.organisation(app).await?;
        let permit = permit(visitor, &organisation, "people").await?;
        let page = Self {
            frame: visitor.frame("People", &organisation).await?,
            people: app.escrow.people().list(&permit).await?,
            place: organisation,
            invited: None,
        };
        Ok((page, permit))
    }

    /// How it stands with somebody.
    fn state(&self, person: &PersonView) -> devices::Badge {
        let (word, class) = if person.disabled_at.is_some() {
            ("Shut out", "bad")
        } else if person.password_at.is_none() && person.provider.is_none() {
            match person.invited_until {
                Some(until) if until > self.frame.now => ("Invited", "warn"),
                _ => ("Never came", "calm"),
            }
        } else if person.second_factor_at.is_none() && person.provider.is_none() {
            ("No second factor", "warn")
        } else {
            ("Settled", "good")
        };
        devices::Badge { word, class }
    }

    /// Whether they have a role here, or everywhere.
    fn has(&self, person: &PersonView, role: &Role) -> bool {
        let mut here = person
            .grants
            .iter()
            .filter(|given| given.scope.covers(&self.place));
        here.any(|given| given.role == *role)
    }

    /// The roles that somebody has everywhere, which are not changed here.
    fn everywhere(&self, person: &PersonView) -> Vec<&'static str> {
        let all = person
            .grants
            .iter()
            .filter(|given| given.scope == Scope::All);
        all.map(|given| given.role.as_str()).collect()
    }
}

/// What a role is for, in a few words.
pub(super) fn meaning(role: &Role) -> &'static str {
    match role {
        Role::Viewer => "sees everything but codes",
        Role::Operator => "unlocks, locks, has devices asked again",
        Role::Revealer => "sees codes",
        Role::Approver => "says yes or no to others",
        Role::Auditor => "reads the audit record",
        Role::Connections => "changes where codes can go",
        Role::Admin => "manages people and policies",
        Role::BreakGlass => "goes on without approval in an emergency",
    }
}

async fn permit(
    visitor: &Visitor,
    organisation: &OrganisationId,
    subject: &str,
) -> Result<Permit<Admin>, Turned> {
    let actor = &visitor.caller.actor;
    Ok(visitor
        .app
        .escrow
        .authorise(actor, organisation, subject)
        .await?)
}

pub(super) async fn list(visitor: Visitor) -> Shown<PeoplePage> {
    let (page, _) = PeoplePage::of(&visitor).await?;
    Ok(Page(StatusCode::OK, page))
}

pub(super) async fn invite(visitor: Visitor, form: Form) -> Shown<PeoplePage> {
    let (_, permit) = PeoplePage::of(&visitor).await?;
    let email = form.text("email").trim();
    let new = NewPerson {
        login: parsed::<Login>(form.text("login").trim())?,
        name: name("The name", form.text("name"))?.to_owned(),
        email: (!email.is_empty()).then(|| api::email(email)).transpose()?,
    };
    let added = visitor.app.escrow.people().add(&permit, new).await?;
    let (view, invitation) = added.map_err(Problem::from)?;
    let text = Zeroizing::new(invitation.expose().to_owned());
    let (page, _) = PeoplePage::of(&visitor).await?;
    let page = PeoplePage {
        invited: Some((view.login, text)),
        ..page
    };
    Ok(Page(StatusCode::CREATED, page))
}

pub(super) async fn set_roles(
    visitor: Visitor,
    Path(person): Path<String>,
    form: Form,
) -> Result<Response, Turned> {
    let app = &visitor.app;
    let organisation = visitor.caller.organisation(app).await?;
    let roles: Vec<Role> = Role::ALL
        .iter()
        .copied()
        .filter(|role| form.is_ticked(role.as_str()))
        .collect();
    let reason = form.text("reason").trim();
    let actor = match form.text("leave") {
        "" => visitor.caller.actor.clone(),
        _ => form::leave(&visitor, &form, api::reason(reason)?)?,
    };
    let subject = format!("person {person}");
    let permit: Permit<Admin> = app.escrow.authorise(&actor, &organisation, subject).await?;
    let scope = Scope::One(organisation);
    let set = app
        .escrow
        .people()
        .set_roles(&permit, &person, &scope, &roles)
        .await?;
    set.map_err(Problem::from)?;
    Ok(see(&visitor.back("/people", "roles")))
}

pub(super) async fn shut_out(
    visitor: Visitor,
    Path(person): Path<String>,
    form: Form,
) -> Result<Response, Turned> {
    let is_out = match form.text("say") {
        "out" => true,
        "in" => false,
        _ => return Err(Problem::bad_request("It is said neither in nor out.").into()),
    };
    api::set_person(&visitor.app, &visitor.caller, &person, is_out).await?;
    Ok(see(
        &visitor.back("/people", if is_out { "out" } else { "in" })
    ))
}

#[derive(Template)]
#[template(path = "join.html")]
pub(super) struct JoinPage {
    wrong: Option<String>,
}

pub(super) async fn join() -> Page<JoinPage> {
    Page(StatusCode::OK, JoinPage { wrong: None })
}

pub(super) async fn take_invitation(
    State(app): State<App>,
    Address(address): Address,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, Turned> {
    cookie::from_ours(&headers, &app, address)?;
    let back = |status: StatusCode, wrong: String| {
        Ok(Page(status, JoinPage { wrong: Some(wrong) }).into_response())
    };
    let password = match Password::new(form.secret("password")) {
        Ok(password) => password,
        Err(error) => return back(StatusCode::BAD_REQUEST, sentence(&error.to_string())),
    };
    let told = address.map(|ip| ip.to_string());
    let credentials = app.escrow.credentials();
    let invitation = form.secret("invitation");
    if credentials
        .accept(invitation.trim(), password, told.as_deref())
        .await?
    {
        return Ok(see("/sign-in"));
    }
    app.refusals.count(Kind::SignIn, address, app.now());
    let wrong = "The invitation is mistyped, was taken before, or is older than seven days. Ask an administrator for a new one.";
    back(StatusCode::UNAUTHORIZED, wrong.to_owned())
}
