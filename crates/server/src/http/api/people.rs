//! People: invited, listed, given roles, shut out.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use escrow::people::{Granted, Login, NewPerson as NewRow, PersonProblem, PersonView};
use escrow::permit::{Admin, OrganisationId, Permission, Permit, Role, Scope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::sessions::Session;
use super::shown::{Moment, Page};
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Body, Path, SecretJson, name, parsed, sentence};
use crate::http::problem::Problem;

/// The most characters of a mail address (RFC 5321, section 4.5.3.1.3).
const LONGEST_EMAIL: usize = 254;

/// A person: nothing that they prove themselves with.
#[derive(Serialize, ToSchema)]
pub(super) struct Person {
    id: String,
    /// What they sign in with.
    login: String,
    /// Their name, as it stands on the record and goes to Apple as who asked.
    name: String,
    email: Option<String>,
    /// Until when their invitation can be taken; null when there is none to take.
    invited_until: Option<Moment>,
    /// Since when they have the password that they have.
    password_at: Option<Moment>,
    /// Since when they have a second factor.
    second_factor_at: Option<Moment>,
    /// The provider of identities that vouches for them, by its address.
    provider: Option<String>,
    /// When they last signed in.
    signed_in_at: Option<Moment>,
    created_at: Moment,
    created_by: String,
    /// Since when they are shut out.
    disabled_at: Option<Moment>,
    /// What they may do where.
    roles: Vec<GivenRole>,
}

/// A role that a person has.
#[derive(Serialize, ToSchema)]
struct GivenRole {
    /// `viewer`, `operator`, `revealer`, `approver`, `auditor`, `connections`, `admin`, `break-glass`. More may come.
    role: &'static str,
    /// The identifier of the organisation; null for all of them.
    organisation: Option<String>,
    granted_at: Moment,
    granted_by: String,
}

impl From<PersonView> for Person {
    fn from(view: PersonView) -> Self {
        Self {
            id: view.id,
            login: view.login,
            name: view.name,
            email: view.email,
            invited_until: view.invited_until.map(Moment),
            password_at: view.password_at.map(Moment),
            second_factor_at: view.second_factor_at.map(Moment),
            provider: view.provider,
            signed_in_at: view.signed_in_at.map(Moment),
            created_at: view.created_at.into(),
            created_by: view.created_by,
            disabled_at: view.disabled_at.map(Moment),
            roles: view.grants.into_iter().map(GivenRole::from).collect(),
        }
    }
}

impl From<Granted> for GivenRole {
    fn from(granted: Granted) -> Self {
        Self {
            role: granted.role.as_str(),
            organisation: granted
                .scope
                .organisation()
                .map(|id| id.as_str().to_owned()),
            granted_at: granted.granted_at.into(),
            granted_by: granted.granted_by,
        }
    }
}

impl From<PersonProblem> for Problem {
    fn from(problem: PersonProblem) -> Self {
        let detail = sentence(&problem.to_string());
        let (status, name, title) = match &problem {
            PersonProblem::LoginTaken(_) => {
                (StatusCode::CONFLICT, "login-taken", "The name is taken")
            }
            PersonProblem::Unknown => (StatusCode::NOT_FOUND, "unknown-person", "No such person"),
            PersonProblem::Unsettled { .. } => (
                StatusCode::CONFLICT,
                "unsettled-person",
                "Nobody has proved to be that person yet",
            ),
            PersonProblem::LastAdmin => {
                (StatusCode::CONFLICT, "last-admin", "Nobody would be left")
            }
        };
        Self::new(status, name, title, detail)
    }
}

/// A person who was invited. The invitation is in this answer and in no other.
#[derive(Serialize, ToSchema)]
#[schema(as = InvitedPerson)]
pub(super) struct Invited<'a> {
    /// Its text, for the person alone: with it they set their password.
    invitation: &'a str,
    #[serde(flatten)]
    person: Person,
}

/// A person to be invited.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPerson {
    /// What they sign in with: 1 to 100 letters, digits and `. _ - + @`.
    login: String,
    /// Their name. 1 to 200 characters.
    name: String,
    /// Where they can be told something.
    email: Option<String>,
}

/// Where people are managed: in the organisation that is named, or everywhere that the caller may.
async fn place(app: &App, caller: &Caller) -> Result<OrganisationId, Problem> {
    if caller.names_one() {
        caller.organisation(app).await
    } else {
        Ok(caller.anywhere(Permission::Admin))
    }
}

async fn permit(app: &App, caller: &Caller, subject: &str) -> Result<Permit<Admin>, Problem> {
    let place = place(app, caller).await?;
    Ok(app.escrow.authorise(&caller.actor, &place, subject).await?)
}

/// The person that a path names, by identifier or by the name they sign in with.
async fn found(app: &App, permit: &Permit<Admin>, wanted: &str) -> Result<PersonView, Problem> {
    let person = app.escrow.people().find(permit, wanted).await?;
    person.ok_or_else(|| PersonProblem::Unknown.into())
}

/// List people, by the name they sign in with.
#[utoipa::path(
    get,
    path = "/v1/people",
    tag = "people",
    operation_id = "list_people",
    security(("token" = ["admin"])),
    responses((status = 200, description = "Those whom you may see; there is one page.", body = Page<Person>))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Page<Person>>, Problem> {
    let permit = permit(&app, &caller, "people").await?;
    let all = app.escrow.people().list(&permit).await?;
    Ok(Json(Page::whole(
        all.into_iter().map(Person::from).collect(),
    )))
}

/// Invite a person. They have no role yet. The invitation is in the answer, once, and can be taken for seven days.
#[utoipa::path(
    post,
    path = "/v1/people",
    tag = "people",
    operation_id = "invite_person",
    security(("token" = ["admin"])),
    request_body = NewPerson,
    responses(
        (status = 201, description = "Give them the invitation.", body = Invited<'_>),
        (status = 409, description = "`login-taken`.")
    )
)]
pub(super) async fn invite(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> Result<Response, Problem> {
    let permit = permit(&app, &caller, "people").await?;
    let given: NewPerson = body.json()?;
    let new = NewRow {
        login: parsed::<Login>(&given.login)?,
        name: name("The name", &given.name)?.to_owned(),
        email: given.email.as_deref().map(email).transpose()?,
    };
    let (view, text) = app.escrow.people().add(&permit, new).await??;
    let invited = Invited {
        invitation: text.expose(),
        person: view.into(),
    };
    Ok(SecretJson(StatusCode::CREATED, invited).into_response())
}

/// A mail address: what stands in front of an `@` and behind it, without anything that could begin another header.
pub(crate) fn email(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    let is_plain = |c: char| c.is_ascii_graphic() && !"<>()[],;:\\\"".contains(c);
    let halves = text.rsplit_once('@');
    let fits = halves
        .is_some_and(|(name, host)| !name.is_empty() && host.contains('.') && !name.contains('@'));
    if fits && text.len() <= LONGEST_EMAIL && text.chars().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err(Problem::bad_request(
            "The mail address is not of the form `name@host`.",
        ))
    }
}

/// Show a person.
#[utoipa::path(
    get,
    path = "/v1/people/{person}",
    tag = "people",
    operation_id = "show_person",
    security(("token" = ["admin"])),
    params(("person" = String, Path, description = "The identifier, or the name they sign in with.")),
    responses(
        (status = 200, description = "The person.", body = Person),
        (status = 404, description = "`unknown-person`.")
    )
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(person): Path<String>,
) -> Result<Json<Person>, Problem> {
    let permit = permit(&app, &caller, "people").await?;
    Ok(Json(found(&app, &permit, &person).await?.into()))
}

/// The roles that a person is to have in one organisation, or in all, in place of those they have there.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Roles {
    /// Any of `viewer`, `operator`, `revealer`, `approver`, `auditor`, `connections`, `admin`, `break-glass`; none takes all away.
    roles: Vec<String>,
    /// In every organisation, those yet to be made included, in place of one.
    #[serde(default)]
    all_organisations: bool,
}

/// Set what a person may do in an organisation.
#[utoipa::path(
    put,
    path = "/v1/people/{person}/roles",
    tag = "people",
    operation_id = "set_roles",
    security(("token" = ["admin"])),
    params(("person" = String, Path, description = "The identifier, or the name they sign in with.")),
    request_body = Roles,
    responses(
        (status = 200, description = "They may do that from now on, and in their sessions and tokens at once.", body = Person),
        (status = 404, description = "`unknown-person`."),
        (status = 409, description = "`unsettled-person`: a role that opens codes is for who has a password and a second factor. `last-admin`: nobody would be left who manages people everywhere.")
    )
)]
pub(super) async fn set_roles(
    State(app): State<App>,
    caller: Caller,
    Path(person): Path<String>,
    body: Body,
) -> Result<Json<Person>, Problem> {
    let anywhere = permit(&app, &caller, "people").await?;
    let given: Roles = body.json()?;
    let roles: Vec<Role> = given
        .roles
        .iter()
        .map(|text| role(text))
        .collect::<Result<_, _>>()?;
    let view = found(&app, &anywhere, &person).await?;
    let (permit, scope) = if given.all_organisations {
        (anywhere, Scope::All)
    } else {
        let organisation = caller.organisation(&app).await?;
        let subject = format!("person {}", view.id);
        let permit = app
            .escrow
            .authorise(&caller.actor, &organisation, subject)
            .await?;
        (permit, Scope::One(organisation))
    };
    let people = app.escrow.people();
    Ok(Json(
        people
            .set_roles(&permit, &view.id, &scope, &roles)
            .await??
            .into(),
    ))
}

fn role(text: &str) -> Result<Role, Problem> {
    Role::from_name(text).ok_or_else(|| {
        let all: Vec<_> = Role::ALL
            .iter()
            .map(|role| format!("`{}`", role.as_str()))
            .collect();
        Problem::bad_request("A role is not known.")
            .hint(format!("Give any of {}.", all.join(", ")))
    })
}

/// What is changed about a person.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PersonChange {
    /// Shut them out, or let them in again.
    disabled: bool,
}

/// Shut a person out: their sessions end, and their tokens open nothing. Or let them in again.
#[utoipa::path(
    patch,
    path = "/v1/people/{person}",
    tag = "people",
    operation_id = "set_person",
    security(("token" = ["admin"])),
    params(("person" = String, Path, description = "The identifier, or the name they sign in with.")),
    request_body = PersonChange,
    responses(
        (status = 200, description = "It is so from now on.", body = Person),
        (status = 404, description = "`unknown-person`."),
        (status = 409, description = "`last-admin`: nobody would be left who manages people everywhere.")
    )
)]
pub(super) async fn set(
    State(app): State<App>,
    caller: Caller,
    Path(person): Path<String>,
    body: Body,
) -> Result<Json<Person>, Problem> {
    let permit = permit(&app, &caller, "people").await?;
    let given: PersonChange = body.json()?;
    let set = shut_out(&app, &permit, &person, given.disabled).await?;
    Ok(Json(set.into()))
}

/// Shuts a person out, or lets them in again.
pub(crate) async fn set_person(
    app: &App,
    caller: &Caller,
    person: &str,
    is_out: bool,
) -> Result<PersonView, Problem> {
    let permit = permit(app, caller, "people").await?;
    shut_out(app, &permit, person, is_out).await
}

async fn shut_out(
    app: &App,
    permit: &Permit<Admin>,
    person: &str,
    is_out: bool,
) -> Result<PersonView, Problem> {
    let view = found(app, permit, person).await?;
    let people = app.escrow.people();
    Ok(people.set_disabled(permit, &view.id, is_out).await??)
}

/// Invite a person anew who lost their password or second factor: both are gone, and their sessions end. Their roles stay.
#[utoipa::path(
    post,
    path = "/v1/people/{person}/reset",
    tag = "people",
    operation_id = "reset_person",
    security(("token" = ["admin"])),
    params(("person" = String, Path, description = "The identifier, or the name they sign in with.")),
    responses(
        (status = 201, description = "Give them the invitation.", body = Invited<'_>),
        (status = 404, description = "`unknown-person`.")
    )
)]
pub(super) async fn reset(
    State(app): State<App>,
    caller: Caller,
    Path(person): Path<String>,
) -> Result<Response, Problem> {
    let permit = permit(&app, &caller, "people").await?;
    let view = found(&app, &permit, &person).await?;
    let (view, text) = app.escrow.people().reset(&permit, &view.id).await??;
    let invited = Invited {
        invitation: text.expose(),
        person: view.into(),
    };
    Ok(SecretJson(StatusCode::CREATED, invited).into_response())
}

/// List the sessions of a person, newest first; ended ones too, for ninety days.
#[utoipa::path(
    get,
    path = "/v1/people/{person}/sessions",
    tag = "people",
    operation_id = "list_sessions_of",
    security(("token" = ["admin"])),
    params(("person" = String, Path, description = "The identifier, or the name they sign in with.")),
    responses(
        (status = 200, description = "All of them; there is one page.", body = Page<Session>),
        (status = 404, description = "`unknown-person`.")
    )
)]
pub(super) async fn sessions(
    State(app): State<App>,
    caller: Caller,
    Path(person): Path<String>,
) -> Result<Json<Page<Session>>, Problem> {
    let permit = permit(&app, &caller, "people").await?;
    let view = found(&app, &permit, &person).await?;
    let now = app.now();
    let all = app.escrow.sessions().list_of(&permit, &view).await?;
    Ok(Json(Page::whole(
        all.into_iter().map(|one| Session::new(one, now)).collect(),
    )))
}

/// End every session of a person: they have to sign in anew.
#[utoipa::path(
    delete,
    path = "/v1/people/{person}/sessions",
    tag = "people",
    operation_id = "end_sessions_of",
    security(("token" = ["admin"])),
    params(("person" = String, Path, description = "The identifier, or the name they sign in with.")),
    responses(
        (status = 204, description = "None opens anything any more."),
        (status = 404, description = "`unknown-person`.")
    )
)]
pub(super) async fn end_sessions(
    State(app): State<App>,
    caller: Caller,
    Path(person): Path<String>,
) -> Result<StatusCode, Problem> {
    let permit = permit(&app, &caller, "people").await?;
    let view = found(&app, &permit, &person).await?;
    app.escrow.sessions().end_all_of(&permit, &view).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_address_cannot_begin_another_header() {
        for good in ["zoe@example.org", " z.o+e@mail.example.org "] {
            assert_eq!(email(good).unwrap(), good.trim());
        }
        let long = format!("{}@example.org", "z".repeat(LONGEST_EMAIL));
        for bad in [
            "zoe",
            "@example.org",
            "zoe@host",
            "a@b@example.org",
            "zoe@example.org\r\nBcc: x@example.org",
            "Zoe <zoe@example.org>",
            "zoe@exämple.org",
            &long,
        ] {
            assert!(email(bad).is_err(), "{bad:?}");
        }
    }
}
