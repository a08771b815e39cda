//! `lockwarden organisations`: whose devices they are, and what is wanted for them.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;

use crate::api::{Api, Ask, ServerArgs};
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
    /// Set whether people may lock the devices
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
struct SetArgs {
    /// Its identifier, as the list shows it
    id: String,
    /// leave: send nothing; allow: let people lock a device once its code is held; deny: forbid it
    #[arg(long, value_name = "POLICY", value_parser = ["leave", "allow", "deny"])]
    user_lock: String,
    #[command(flatten)]
    server: ServerArgs,
}

const COLUMNS: &[(&str, &str)] = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("USER LOCKS", "user_lock"),
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
        }
        OrganisationsCommand::Create(args) => {
            let api = Api::new(&args.server, voice)?;
            let ask = Ask::post(&["organisations"]).json(&json!({ "name": args.name }))?;
            let made = api.ask(ask).await?.json()?;
            voice.data(&made, || show::table(COLUMNS, [&made]))?;
        }
        OrganisationsCommand::Set(args) => {
            let api = Api::new(&args.server, voice)?;
            let path = ["organisations", args.id.as_str()];
            let ask =
                Ask::new(Method::PATCH, &path).json(&json!({ "user_lock": args.user_lock }))?;
            let set = api.ask(ask).await?.json()?;
            voice.data(&set, || show::table(COLUMNS, [&set]))?;
        }
    }
    Ok(DONE)
}
