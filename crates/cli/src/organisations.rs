//! `lockwarden organisations`: whose devices they are, and what is wanted for them.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{Api, Ask, LeaveArgs, ServerArgs};
use crate::show;
use crate::voice::{DONE, Outcome, Voice};

/// List organisations, make one, set its policy
#[derive(Args)]
pub(crate) struct OrganisationsArgs {
    #[command(subcommand)]
    command: OrganisationsCommand,
}

#[derive(Subcommand)]
enum OrganisationsCommand {
    /// List those that the token may act in
    List(ListArgs),
    /// Make one; its name goes to Apple with every unlock
    Create(CreateArgs),
    /// Set whether people may lock the devices, whether newly listed ones are locked, and how much one may do in an hour
    ///
    /// What is not given stays as it is.
    Set(SetArgs),
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct CreateArgs {
    /// Its name
    name: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
#[group(id = "policy", required = true, multiple = true, args = ["user_lock", "lock_on_listing", "reveals_an_hour", "unlocks_an_hour"])]
struct SetArgs {
    /// Its name or identifier, as the list shows it
    name: String,
    /// leave: send nothing; allow: let people lock a device once its code is held; deny: forbid it
    #[arg(long, value_name = "POLICY", value_parser = ["leave", "allow", "deny"])]
    user_lock: Option<String>,
    /// on: lock each device that Apple newly lists for a server of ours, at most 20 an hour, then pause for a person; on again
    /// ends a pause
    #[arg(long, value_name = "ON|OFF", value_parser = ["on", "off"])]
    lock_on_listing: Option<String>,
    /// How many reveals one may have in an hour without another's approval
    #[arg(long, value_name = "N")]
    reveals_an_hour: Option<u32>,
    /// How many unlocks one may have in an hour without another's approval
    #[arg(long, value_name = "N")]
    unlocks_an_hour: Option<u32>,
    #[command(flatten)]
    leave: LeaveArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct Policy<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_lock: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_on_listing: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reveals_an_hour: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unlocks_an_hour: Option<u32>,
}

const COLUMNS: &[(&str, &str)] = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("USER LOCKS", "user_lock"),
    ("LOCK ON LISTING", "lock_on_listing"),
    ("PAUSED", "lock_on_listing_paused_at"),
    ("REVEALS AN HOUR", "reveals_an_hour"),
    ("UNLOCKS AN HOUR", "unlocks_an_hour"),
    ("MADE", "created_at"),
];

/// Runs the command.
pub(crate) async fn run(args: OrganisationsArgs, voice: Voice) -> Outcome {
    match args.command {
        OrganisationsCommand::List(args) => {
            let api = Api::new(&args.server, voice)?;
            let answer = api.ask(Ask::get(&["organisations"])).await?.json()?;
            let rows = show::rows(&answer);
            voice.data(&rows, || show::table(COLUMNS, rows))?;
            for organisation in rows {
                tell_pause(organisation, voice);
            }
        }
        OrganisationsCommand::Create(args) => {
            let api = Api::new(&args.server, voice)?;
            let ask = Ask::post(&["organisations"]).json(&json!({ "name": args.name }))?;
            let made = api.ask(ask).await?.json()?;
            voice.data(&made, || show::table(COLUMNS, [&made]))?;
        }
        OrganisationsCommand::Set(args) => {
            let api = Api::new(&args.server, voice)?.with_leave(&args.leave)?;
            let path = ["organisations", args.name.as_str()];
            let policy = Policy {
                user_lock: args.user_lock.as_deref(),
                lock_on_listing: args.lock_on_listing.map(|word| word == "on"),
                reveals_an_hour: args.reveals_an_hour,
                unlocks_an_hour: args.unlocks_an_hour,
            };
            let ask = Ask::new(Method::PATCH, &path).json(&policy)?;
            let set = api.ask(ask).await?.json()?;
            voice.data(&set, || show::table(COLUMNS, [&set]))?;
            tell_pause(&set, voice);
        }
    }
    Ok(DONE)
}

/// Says what to do about a policy that waits for a person (R20).
fn tell_pause(organisation: &Value, voice: Voice) {
    let paused = organisation.get("lock_on_listing_paused_at");
    if paused.is_some_and(|at| !at.is_null()) {
        let name = show::cell(organisation, "name");
        voice.talk(format!(
            "{name}: locking newly listed devices pauses since {}, as many having been locked as may be in an hour. See in \
             `lockwarden devices list` whether these are meant; then `lockwarden organisations set {name:?} --lock-on-listing \
             on` goes on with those listed from now on. A device that was passed over is locked with `lockwarden lock`.",
            show::cell(organisation, "lock_on_listing_paused_at")
        ));
    }
}
