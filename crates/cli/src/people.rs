//! `lockwarden people`: who may do what.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use escrow::Escrow;
use escrow::permit::{Actor, Admin, OrganisationId, Permissions, Permit, Role};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{Api, Ask, LeaveArgs, ServerArgs};
use crate::credentials::{self, SESSIONS};
use crate::local::{self, ConfigArgs};
use crate::voice::{DONE, Failure, Outcome, Voice};
use crate::{private_file, show};

/// Invite people, give them roles, shut them out
#[derive(Args)]
pub(crate) struct PeopleArgs {
    #[command(subcommand)]
    command: PeopleCommand,
}

#[derive(Subcommand)]
enum PeopleCommand {
    /// List people with their roles
    List(ListArgs),
    /// Show one person
    Show(OneArgs),
    /// Invite somebody; they have no role yet
    Invite(InviteArgs),
    /// Set the roles that somebody has in an organisation, or in all, in place of those they have there
    Roles(RolesArgs),
    /// Invite anew who lost their password or second factor: both are gone, their sessions end, their roles stay
    Reset(GuardedArgs),
    /// Shut somebody out: their sessions end, and their tokens open nothing
    Disable(OneArgs),
    /// Let somebody in again
    Enable(GuardedArgs),
    /// List the sessions of somebody
    Sessions(OneArgs),
    /// End the sessions of somebody: they have to sign in anew
    EndSessions(OneArgs),
    /// On the server's own machine, invite somebody anew when nobody is left who could
    ///
    /// The server must be stopped. Whoever can do this can read the key file and so the vault: it is on record, and needs no
    /// approval.
    Rescue(RescueArgs),
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct OneArgs {
    /// The name they sign in with, or their identifier
    person: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct GuardedArgs {
    #[command(flatten)]
    leave: LeaveArgs,
    #[command(flatten)]
    one: OneArgs,
}

#[derive(Args)]
struct InviteArgs {
    /// What they sign in with: letters, digits and . _ - + @
    login: String,
    /// Their name, as it stands on the record and goes to Apple as who asked
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Where they can be told something
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct RolesArgs {
    /// The name they sign in with, or their identifier
    person: String,
    /// The roles they are to have; none takes all away
    #[arg(value_parser = PossibleValuesParser::new(Role::ALL.iter().map(|role| role.as_str())))]
    roles: Vec<String>,
    /// In every organisation, those yet to be made included
    #[arg(long, conflicts_with = "organisation")]
    all_organisations: bool,
    #[command(flatten)]
    leave: LeaveArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct RescueArgs {
    /// The name they sign in with
    login: String,
    /// Write the invitation to this new file, which only you may read, instead of showing it
    #[arg(long, value_name = "FILE")]
    out_file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Serialize)]
struct NewPerson<'a> {
    login: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
}

const COLUMNS: &[(&str, &str)] = &[
    ("LOGIN", "login"),
    ("NAME", "name"),
    ("ROLES", "roles"),
    ("INVITED UNTIL", "invited_until"),
    ("SECOND FACTOR", "second_factor_at"),
    ("LAST SIGNED IN", "signed_in_at"),
    ("SHUT OUT", "disabled_at"),
];

/// Runs the command.
pub(crate) async fn run(args: PeopleArgs, voice: Voice) -> Outcome {
    match args.command {
        PeopleCommand::List(args) => {
            let api = Api::new(&args.server, voice)?;
            let answer = api.ask(Ask::get(&["people"])).await?.json()?;
            let rows = show::rows(&answer);
            let told: Vec<Value> = rows.iter().map(in_words).collect();
            voice.data(&rows, || show::table(COLUMNS, &told))?;
            Ok(DONE)
        }
        PeopleCommand::Show(args) => {
            let api = Api::new(&args.server, voice)?;
            let person = api.ask(Ask::get(&["people", &args.person])).await?.json()?;
            shown(&person, voice)
        }
        PeopleCommand::Invite(args) => {
            let api = Api::new(&args.server, voice)?;
            let new = NewPerson {
                login: &args.login,
                name: &args.name,
                email: args.email.as_deref(),
            };
            let answer = api.ask(Ask::post(&["people"]).json(&new)?).await?;
            credentials::invitation(&answer.body, voice)?;
            Ok(DONE)
        }
        PeopleCommand::Roles(args) => {
            let api = Api::new(&args.server, voice)?.with_leave(&args.leave)?;
            let wanted =
                json!({ "roles": args.roles, "all_organisations": args.all_organisations });
            let path = ["people", &args.person, "roles"];
            let answer = api.ask(Ask::new(Method::PUT, &path).json(&wanted)?).await?;
            shown(&answer.json()?, voice)
        }
        PeopleCommand::Reset(args) => {
            let api = Api::new(&args.one.server, voice)?.with_leave(&args.leave)?;
            let answer = api
                .ask(Ask::post(&["people", &args.one.person, "reset"]))
                .await?;
            credentials::invitation(&answer.body, voice)?;
            Ok(DONE)
        }
        PeopleCommand::Disable(args) => {
            let api = Api::new(&args.server, voice)?;
            set_disabled(&api, &args.person, true, voice).await
        }
        PeopleCommand::Enable(args) => {
            let api = Api::new(&args.one.server, voice)?.with_leave(&args.leave)?;
            set_disabled(&api, &args.one.person, false, voice).await
        }
        PeopleCommand::Sessions(args) => {
            let api = Api::new(&args.server, voice)?;
            let path = ["people", &args.person, "sessions"];
            let answer = api.ask(Ask::get(&path)).await?.json()?;
            let rows = show::rows(&answer);
            voice.data(&rows, || show::table(SESSIONS, rows))?;
            Ok(DONE)
        }
        PeopleCommand::EndSessions(args) => {
            let api = Api::new(&args.server, voice)?;
            api.ask(Ask::delete(&["people", &args.person, "sessions"]))
                .await?;
            let talk = format!("{} has to sign in anew", args.person);
            voice.done("ended", &args.person, talk)
        }
        PeopleCommand::Rescue(args) => rescue(args, voice).await,
    }
}

async fn set_disabled(api: &Api, person: &str, disabled: bool, voice: Voice) -> Outcome {
    let change = json!({ "disabled": disabled });
    let path = ["people", person];
    let answer = api
        .ask(Ask::new(Method::PATCH, &path).json(&change)?)
        .await?;
    shown(&answer.json()?, voice)
}

fn shown(person: &Value, voice: Voice) -> Outcome {
    voice.data(person, || show::table(COLUMNS, [&in_words(person)]))?;
    Ok(DONE)
}

/// The person with their roles as words: `admin` where it is in all organisations, `viewer in ID` in one.
fn in_words(person: &Value) -> Value {
    let mut told = person.clone();
    if let Some(roles) = told.get_mut("roles").and_then(Value::as_array_mut) {
        for role in roles {
            let name = role["role"].as_str().unwrap_or("-");
            *role = match role["organisation"].as_str() {
                Some(organisation) => json!(format!("{name} in {organisation}")),
                None => json!(name),
            };
        }
    }
    told
}

async fn rescue(args: RescueArgs, voice: Voice) -> Outcome {
    let out = args
        .out_file
        .as_deref()
        .map(private_file::create)
        .transpose()?;
    let config = args.config.read()?;
    let escrow = local::open(&config, voice).await?;
    let reset = reset_here(&escrow, &args.login).await;
    escrow.close().await;
    let (login, text) = reset?;
    if let Some(mut file) = out {
        file.write_line(&text)?;
        file.keep();
        return voice.done(
            "rescued",
            &login,
            format!("the invitation of {login} is in the file; it is not shown again"),
        );
    }
    let body =
        zeroize::Zeroizing::new(json!({ "login": login, "invitation": text.as_str() }).to_string());
    credentials::invitation(body.as_bytes(), voice)?;
    Ok(DONE)
}

async fn reset_here(
    escrow: &Escrow,
    login: &str,
) -> Result<(String, zeroize::Zeroizing<String>), Failure> {
    let failed = |error: escrow::Error| Failure::new(error.to_string());
    let actor = Actor::system("command line", Permissions::all());
    let everywhere = OrganisationId::new("*");
    let permit: Permit<Admin> = escrow
        .authorise(&actor, &everywhere, format!("person {login}"))
        .await
        .map_err(failed)?;
    let people = escrow.people();
    let found = people.find(&permit, login).await.map_err(failed)?;
    let person =
        found.ok_or_else(|| Failure::new(format!("nobody signs in with the name {login}")))?;
    let reset = people.reset(&permit, &person.id).await.map_err(failed)?;
    let (view, text) = reset.map_err(|problem| Failure::new(problem.to_string()))?;
    Ok((
        view.login,
        zeroize::Zeroizing::new(text.expose().to_owned()),
    ))
}
