//! `lockwarden mdm`: the MDM servers whose devices are kept.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::api::{Api, Ask, LeaveArgs, ServerArgs};
use crate::voice::{DONE, FAILED, Outcome, Voice};
use crate::{secret_file, show};

/// Connect MDM servers: add, list, test, remove
#[derive(Args)]
pub(crate) struct MdmArgs {
    #[command(subcommand)]
    command: MdmCommand,
}

#[derive(Subcommand)]
enum MdmCommand {
    /// Connect an MDM
    ///
    /// The answer names the webhook's address and, once, its secret: both belong into the MDM's settings.
    Add(Box<AddArgs>),
    /// List the connections
    List(ListArgs),
    /// Ask an MDM whether it takes our commands
    Test(NamedArgs),
    /// Disconnect an MDM; its devices and their codes stay
    Remove(NamedArgs),
}

#[derive(Args)]
struct AddArgs {
    /// A name for it: lower-case letters, digits and dashes; part of the webhook's address
    name: String,
    /// Which MDM it is
    #[arg(long, value_name = "KIND", value_parser = ["nanomdm", "nanohub", "micromdm"], default_value = "nanomdm")]
    kind: String,
    /// Where its API is: https, or http on this machine
    #[arg(long, value_name = "URL")]
    mdm_url: String,
    /// What stands before the API's own paths [NanoHUB: /api/v1/nanomdm]
    #[arg(long, value_name = "PATH")]
    path_prefix: Option<String>,
    /// The user name of its API
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// The file that holds the password or key of its API; - is standard input
    #[arg(long, value_name = "FILE")]
    api_key_file: PathBuf,
    /// How its webhooks prove themselves: it signs them (hmac), or the address holds a secret (path) [default: path for
    /// MicroMDM, which cannot sign; hmac for others]
    #[arg(long, value_name = "HOW", value_parser = ["hmac", "path"])]
    hook_auth: Option<String>,
    /// The file that holds the HMAC secret it uses already [default: one is made]
    #[arg(long, value_name = "FILE")]
    hmac_secret_file: Option<PathBuf>,
    /// Who calls Apple for its devices: this server with a push certificate (own), or the MDM (delegated)
    #[arg(long, value_name = "WHO", value_parser = ["own", "delegated"], default_value = "own")]
    unlock_via: String,
    /// Calls to it a second, at most
    #[arg(long, value_name = "N")]
    max_rate: Option<f64>,
    #[command(flatten)]
    leave: LeaveArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct NamedArgs {
    /// Its name
    name: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct NewConnection<'a> {
    name: &'a str,
    kind: &'a str,
    base_url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_prefix: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    api_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook_auth: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hmac_secret: Option<&'a str>,
    unlock_via: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_rate: Option<f64>,
}

/// Runs the command.
pub(crate) async fn run(args: MdmArgs, voice: Voice) -> Outcome {
    match args.command {
        MdmCommand::Add(args) => add(*args, voice).await,
        MdmCommand::List(args) => list(args, voice).await,
        MdmCommand::Test(args) => test(args, voice).await,
        MdmCommand::Remove(args) => remove(args, voice).await,
    }
}

async fn add(args: AddArgs, voice: Voice) -> Outcome {
    let api_key = secret_file::read_word(&args.api_key_file, "the file with the MDM's key")?;
    let hmac_secret = args
        .hmac_secret_file
        .as_ref()
        .map(|path| secret_file::read_word(path, "the file with the HMAC secret"))
        .transpose()?;
    let api = Api::new(&args.server, voice)?.with_leave(&args.leave)?;
    let new = NewConnection {
        name: &args.name,
        kind: &args.kind,
        base_url: &args.mdm_url,
        path_prefix: args.path_prefix.as_deref(),
        username: args.username.as_deref(),
        api_key: &api_key,
        hook_auth: args.hook_auth.as_deref(),
        hmac_secret: hmac_secret.as_deref().map(String::as_str),
        unlock_via: &args.unlock_via,
        max_rate: args.max_rate,
    };
    let answer = api.ask(Ask::post(&["mdm"]).json(&new)?).await?;
    if voice.is_json() {
        voice.raw(answer.text()?)?;
        return Ok(DONE);
    }
    let made = answer.json()?;
    let lines = show::pairs(
        &made,
        &[
            ("name", "name"),
            ("webhook", "webhook_url"),
            ("webhook path", "webhook_path"),
            ("HMAC secret", "hmac_secret"),
            ("path secret", "path_secret"),
            ("unlocks via", "unlock_via"),
        ],
    );
    voice.line(&Zeroizing::new(lines))?;
    voice.talk(
        "Give the webhook's address and its secret to the MDM now: the secret is not shown again.",
    );
    Ok(DONE)
}

async fn list(args: ListArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let answer = api.ask(Ask::get(&["mdm"])).await?.json()?;
    let rows = show::rows(&answer);
    voice.data(&rows, || {
        show::table(
            &[
                ("NAME", "name"),
                ("KIND", "kind"),
                ("ADDRESS", "base_url"),
                ("WEBHOOKS BY", "hook_auth"),
                ("UNLOCKS VIA", "unlock_via"),
                ("ADDED", "created_at"),
                ("REMOVED", "removed_at"),
            ],
            rows,
        )
    })?;
    Ok(DONE)
}

async fn test(args: NamedArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let answer = api
        .ask(Ask::post(&["mdm", &args.name, "test"]))
        .await?
        .json()?;
    tested(&answer, voice)
}

/// Shows what a test found: `{"ok", "detail" or "message", "hint"?}`.
///
/// # Errors
/// When standard output takes no more.
pub(crate) fn tested(answer: &Value, voice: Voice) -> Outcome {
    let ok = answer.get("ok").and_then(Value::as_bool).unwrap_or(false);
    voice.data(answer, || {
        let words = ["detail", "message", "what"]
            .iter()
            .find_map(|key| answer.get(key).and_then(Value::as_str));
        format!(
            "{}  {}",
            if ok { "ok  " } else { "fail" },
            words.unwrap_or("no details")
        )
    })?;
    if let (false, Some(hint)) = (ok, answer.get("hint").and_then(Value::as_str)) {
        voice.talk(format!("hint: {hint}"));
    }
    Ok(if ok { DONE } else { FAILED })
}

async fn remove(args: NamedArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    api.ask(Ask::new(Method::DELETE, &["mdm", &args.name]))
        .await?;
    let talk = format!(
        "{} is disconnected; its devices and their codes stay",
        args.name
    );
    voice.done("removed", &args.name, talk)
}
