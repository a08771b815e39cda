//! `lockwarden business-api`: as whom Apple is asked for its own status of locks.

use std::path::PathBuf;

use apple::business_manager::ApiAccount;
use apple::business_manager::assertion::SigningKey;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Serialize;
use serde_json::Value;

use crate::api::{Api, Ask, ServerArgs};
use crate::voice::{DONE, Failure, Outcome, Voice};
use crate::{mdm, secret_file, show};

/// Keep the API account of Apple Business Manager or Apple School Manager: set, show, test, remove
#[derive(Args)]
pub(crate) struct BusinessApiArgs {
    #[command(subcommand)]
    command: BusinessApiCommand,
}

#[derive(Subcommand)]
enum BusinessApiCommand {
    /// Set the API account with its key, or another key of it
    ///
    /// Somebody with the role of Administrator makes the API account in Apple Business Manager or Apple School Manager, which
    /// shows its private key once. The key is read and checked here first. Apple's own status of locks is asked for from
    /// then on, and the list of devices read.
    Set(SetArgs),
    /// Show the API account, without its key, and what is to be mended
    Show(PlainArgs),
    /// Ask Apple for an access token and for one device; it changes nothing there
    Test(PlainArgs),
    /// Remove the API account; what Apple said stays on record
    Remove(PlainArgs),
}

#[derive(Args)]
struct SetArgs {
    /// The client ID of the API account: BUSINESSAPI. or SCHOOLAPI. and a UUID
    #[arg(long, value_name = "C")]
    client_id: String,
    /// The ID of its key
    #[arg(long, value_name = "K")]
    key_id: String,
    /// The file with its private key, as it was downloaded; - is standard input
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct PlainArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct NewAccount<'a> {
    client_id: &'a str,
    key_id: &'a str,
    private_key: &'a str,
}

/// Runs the command.
pub(crate) async fn run(args: BusinessApiArgs, voice: Voice) -> Outcome {
    match args.command {
        BusinessApiCommand::Set(args) => set(args, voice).await,
        BusinessApiCommand::Show(args) => {
            let api = Api::new(&args.server, voice)?;
            let organisation = api.organisation().await?;
            let account = api.ask(Ask::get(&path(&organisation))).await?.json()?;
            tell(&account, voice)
        }
        BusinessApiCommand::Test(args) => {
            let api = Api::new(&args.server, voice)?;
            let organisation = api.organisation().await?;
            let [organisations, of, what] = path(&organisation);
            let answer = api
                .ask(Ask::post(&[organisations, of, what, "test"]))
                .await?
                .json()?;
            mdm::tested(&answer, voice)
        }
        BusinessApiCommand::Remove(args) => {
            let api = Api::new(&args.server, voice)?;
            let organisation = api.organisation().await?;
            api.ask(Ask::delete(&path(&organisation))).await?;
            let talk = "removed; Apple is not asked any more, and what it said stays on record";
            voice.done("removed", "business-api", talk)
        }
    }
}

fn path(organisation: &str) -> [&str; 3] {
    ["organisations", organisation, "business-api"]
}

async fn set(args: SetArgs, voice: Voice) -> Outcome {
    let what = "the file with the API account's private key";
    let file = secret_file::read_bytes(&args.key, what)?;
    if let Some(warning) = secret_file::warning(&args.key, what) {
        voice.talk(warning);
    }
    let key = SigningKey::from_pem(&file).map_err(|error| Failure::new(error.to_string()))?;
    let private_key = key.to_sealed_pem();
    let account = ApiAccount::new(&args.client_id, &args.key_id, key)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let new = NewAccount {
        client_id: account.client_id(),
        key_id: account.key_id(),
        private_key: &private_key,
    };
    let api = Api::new(&args.server, voice)?;
    let organisation = api.organisation().await?;
    let path = path(&organisation);
    let set = api
        .ask(Ask::new(Method::PUT, &path).json(&new)?)
        .await?
        .json()?;
    tell(&set, voice)?;
    voice.talk("set; `lockwarden business-api test` asks Apple whether it works");
    Ok(DONE)
}

fn tell(account: &Value, voice: Voice) -> Outcome {
    voice.data(account, || {
        show::pairs(
            account,
            &[
                ("client ID", "client_id"),
                ("key ID", "key_id"),
                ("to mend", "problem"),
                ("since", "problem_at"),
                ("not asked before", "retry_at"),
                ("devices listed", "listed_at"),
                ("added", "created_at"),
                ("set", "updated_at"),
            ],
        )
    })?;
    Ok(DONE)
}
