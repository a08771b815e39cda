//! `lockwarden notices`: how people are told.

use std::borrow::Cow;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use crate::api::{Api, Ask, ServerArgs};
use crate::voice::{DONE, Failure, Outcome, Voice};
use crate::{secret_file, show};

/// Have people told: of approvals that are asked for, of emergencies, of roles and policies
///
/// No notice holds a code.
#[derive(Args)]
pub(crate) struct NoticesArgs {
    #[command(subcommand)]
    command: NoticesCommand,
}

#[derive(Subcommand)]
enum NoticesCommand {
    /// List the channels, and whether what is sent is taken
    List(ListArgs),
    /// Tell by webhook, signed by the scheme of Standard Webhooks; its secret is shown once
    AddWebhook(WebhookArgs),
    /// Tell by mail
    AddMail(MailArgs),
    /// Send a notice through a channel, to see that it gets there
    Test(OneArgs),
    /// Remove a channel
    Remove(OneArgs),
    /// Give a webhook another secret; the one before still signs beside it until the next time
    RotateSecret(OneArgs),
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct OneArgs {
    /// Its identifier, as the list shows it
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct WebhookArgs {
    /// What it is called
    name: String,
    /// Where it is posted to: https, or http on this machine
    #[arg(long, value_name = "URL")]
    webhook_url: String,
    /// Tell of every organisation
    #[arg(long)]
    all_organisations: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct MailArgs {
    /// What it is called
    name: String,
    /// To whom: an address, or `approvers` for those who may approve where it happened; may be given several times
    #[arg(long = "to", value_name = "ADDRESS", required = true)]
    to: Vec<String>,
    /// The mail server's name
    #[arg(long, value_name = "NAME")]
    host: String,
    /// Its port
    #[arg(long, value_name = "PORT", default_value_t = 465)]
    port: u16,
    /// tls: from the first byte (465); starttls (587); none: a server on this machine alone
    #[arg(long, value_name = "HOW", value_parser = ["tls", "starttls", "none"], default_value = "tls")]
    security: String,
    /// From whom the mail is
    #[arg(long, value_name = "ADDRESS")]
    from: String,
    /// Whom to sign in as at the mail server
    #[arg(long, value_name = "NAME", requires = "password_file")]
    username: Option<String>,
    /// The file that holds the password for that; - is standard input
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// Tell of every organisation
    #[arg(long)]
    all_organisations: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct NewWebhook<'a> {
    name: &'a str,
    webhook_url: &'a str,
    all_organisations: bool,
}

#[derive(Serialize)]
struct NewMail<'a> {
    name: &'a str,
    mail_to: &'a [String],
    mail_server: MailServer<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mail_password: Option<&'a str>,
    all_organisations: bool,
}

#[derive(Serialize)]
struct MailServer<'a> {
    host: &'a str,
    port: u16,
    security: &'a str,
    username: Option<&'a str>,
    from: &'a str,
}

/// The answer, read in place so that no copy of the secret is made.
#[derive(Deserialize)]
struct Made<'a> {
    #[serde(borrow, default)]
    secret: Option<Cow<'a, str>>,
}

const COLUMNS: &[(&str, &str)] = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("KIND", "kind"),
    ("TO", "address"),
    ("LAST TAKEN", "sent_at"),
    ("FAILING SINCE", "failing_since"),
    ("WHY", "failure"),
];

/// Runs the command.
pub(crate) async fn run(args: NoticesArgs, voice: Voice) -> Outcome {
    match args.command {
        NoticesCommand::List(args) => {
            let api = Api::new(&args.server, voice)?;
            let answer = api.ask(Ask::get(&["notice-channels"])).await?.json()?;
            let rows = show::rows(&answer);
            voice.data(&rows, || show::table(COLUMNS, rows))?;
            Ok(DONE)
        }
        NoticesCommand::AddWebhook(args) => {
            let api = Api::new(&args.server, voice)?;
            let new = NewWebhook {
                name: &args.name,
                webhook_url: &args.webhook_url,
                all_organisations: args.all_organisations,
            };
            made(&api, Ask::post(&["notice-channels"]).json(&new)?, voice).await
        }
        NoticesCommand::AddMail(args) => add_mail(args, voice).await,
        NoticesCommand::Test(args) => {
            let api = Api::new(&args.server, voice)?;
            api.ask(Ask::post(&["notice-channels", &args.id, "test"]))
                .await?;
            voice.done(
                "sent",
                &args.id,
                "it is on its way; `lockwarden notices list` shows whether it was taken",
            )
        }
        NoticesCommand::Remove(args) => {
            let api = Api::new(&args.server, voice)?;
            api.ask(Ask::delete(&["notice-channels", &args.id])).await?;
            voice.done("removed", &args.id, "nobody is told there any more")
        }
        NoticesCommand::RotateSecret(args) => {
            let api = Api::new(&args.server, voice)?;
            let path = ["notice-channels", &args.id, "rotate-secret"];
            made(&api, Ask::post(&path), voice).await
        }
    }
}

async fn add_mail(args: MailArgs, voice: Voice) -> Outcome {
    let password = args.password_file.as_deref();
    let password = password
        .map(|path| secret_file::read_word(path, "the file with the mail server's password"));
    let password = password.transpose()?;
    let api = Api::new(&args.server, voice)?;
    let new = NewMail {
        name: &args.name,
        mail_to: &args.to,
        mail_server: MailServer {
            host: &args.host,
            port: args.port,
            security: &args.security,
            username: args.username.as_deref(),
            from: &args.from,
        },
        mail_password: password.as_ref().map(|password| password.as_str()),
        all_organisations: args.all_organisations,
    };
    made(&api, Ask::post(&["notice-channels"]).json(&new)?, voice).await
}

async fn made(api: &Api, ask: Ask<'_>, voice: Voice) -> Outcome {
    let answer = api.ask(ask).await?;
    if voice.is_json() {
        voice.raw(answer.text()?)?;
        return Ok(DONE);
    }
    let made: Made<'_> = serde_json::from_slice(&answer.body).map_err(|_| {
        Failure::new("the answer does not hold a channel in the form that this version knows")
    })?;
    if let Some(secret) = &made.secret {
        voice.line(secret)?;
        voice.talk("give this secret to whoever takes the webhook: it is not shown again");
    }
    voice.talk(
        "`lockwarden notices list` shows the channels; `lockwarden notices test ID` tries one out",
    );
    Ok(DONE)
}
