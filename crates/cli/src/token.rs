//! `lockwarden token`: who may use the API.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use escrow::permit::Permissions;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::borrow::Cow;

use crate::api::{Api, Ask, ServerArgs};
use crate::voice::{DONE, Failure, Outcome, Voice};
use crate::{private_file, show};

/// Make, list and take back API tokens
#[derive(Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Make a token; its text is shown once, here, and is nowhere else
    Create(CreateArgs),
    /// List tokens: everything but their text
    List(ListArgs),
    /// Take a token back: it opens nothing from now on
    Revoke(RevokeArgs),
}

#[derive(Args)]
struct CreateArgs {
    /// What it is for; stands on the record of all it does
    name: String,
    /// What it may do; may be given several times
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_parser = PossibleValuesParser::new(Permissions::SCOPES))]
    scopes: Vec<String>,
    /// Days until it ends by itself [default: never]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    expires_in_days: Option<u32>,
    /// Write the token to this new file, which only you may read, instead of showing it
    #[arg(long, value_name = "FILE")]
    out_file: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct RevokeArgs {
    /// Its identifier, as the list shows it
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct NewToken<'a> {
    name: &'a str,
    scopes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_days: Option<u32>,
}

/// The answer, read in place so that no copy of the token is made.
#[derive(Deserialize)]
struct Made<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    id: String,
    name: String,
}

/// Runs the command.
pub(crate) async fn run(args: TokenArgs, voice: Voice) -> Outcome {
    match args.command {
        TokenCommand::Create(args) => create(args, voice).await,
        TokenCommand::List(args) => list(args, voice).await,
        TokenCommand::Revoke(args) => revoke(args, voice).await,
    }
}

async fn create(args: CreateArgs, voice: Voice) -> Outcome {
    // A file that cannot be made is found out before there is a token that nobody has seen.
    let out = args
        .out_file
        .as_deref()
        .map(private_file::create)
        .transpose()?;
    let api = Api::new(&args.server, voice)?;
    let new = NewToken {
        name: &args.name,
        scopes: &args.scopes,
        expires_in_days: args.expires_in_days,
    };
    let answer = api.ask(Ask::post(&["tokens"]).json(&new)?).await?;
    let made: Made<'_> = serde_json::from_slice(&answer.body).map_err(|_| {
        Failure::new("the answer does not hold a token in the form that this version knows")
    })?;
    match out {
        Some(mut file) => {
            file.write_line(&made.token)?;
            file.keep();
            let shown = json!({ "id": made.id, "name": made.name });
            voice.data(&shown, || format!("{}  {}", made.id, made.name))?;
            voice.talk("the token is in the file; it is not shown again");
        }
        None if voice.is_json() => voice.raw(answer.text()?)?,
        None => {
            voice.line(&made.token)?;
            voice.talk("keep it now: it is not shown again");
        }
    }
    Ok(DONE)
}

async fn list(args: ListArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let answer = api.ask(Ask::get(&["tokens"])).await?.json()?;
    let rows = show::rows(&answer);
    voice.data(&rows, || {
        show::table(
            &[
                ("ID", "id"),
                ("NAME", "name"),
                ("MAY", "permissions"),
                ("MADE", "created_at"),
                ("BY", "created_by"),
                ("ENDS", "expires_at"),
                ("REVOKED", "revoked_at"),
                ("LAST USED", "used_at"),
            ],
            rows,
        )
    })?;
    Ok(DONE)
}

async fn revoke(args: RevokeArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    api.ask(Ask::delete(&["tokens", &args.id])).await?;
    let talk = format!("token {} opens nothing from now on", args.id);
    voice.done("revoked", &args.id, talk)
}
