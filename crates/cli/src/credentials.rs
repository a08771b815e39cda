//! `lockwarden password`, `second-factor` and `sessions`: how you prove who you are.

use std::borrow::Cow;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::{Api, Ask, ServerArgs};
use crate::voice::{DONE, Failure, Outcome, Voice};
use crate::{prompt, show};

/// Change your password; your other sessions end
#[derive(Args)]
pub(crate) struct PasswordArgs {
    /// The file that holds the password so far; - is standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The file that holds the new one
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Set up a second factor, in place of the one that you have
///
/// A secret is shown, to be typed into an authenticator app; the code that the app shows then is asked for. Without a terminal it
/// takes two steps: first the secret is shown, then --code-file confirms it.
#[derive(Args)]
pub(crate) struct SecondFactorArgs {
    /// The file that holds your password; - is standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Confirm the secret that was shown last with the code in this file
    #[arg(long, value_name = "FILE", conflicts_with = "password_file")]
    code_file: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

/// List your sessions, and end them
#[derive(Args)]
pub(crate) struct SessionsArgs {
    #[command(subcommand)]
    command: SessionsCommand,
}

#[derive(Subcommand)]
enum SessionsCommand {
    /// List your sessions, newest first
    List(ListArgs),
    /// End one: it opens nothing from now on
    End(EndArgs),
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct EndArgs {
    /// Its identifier, as the list shows it
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct NewPassword<'a> {
    old: &'a str,
    new: &'a str,
}

#[derive(Serialize)]
struct Proved<'a> {
    password: &'a str,
}

#[derive(Serialize)]
struct Confirmed<'a> {
    code: &'a str,
}

/// The answer, read in place so that no copy of the secret is made.
#[derive(Deserialize)]
struct Made<'a> {
    #[serde(borrow)]
    secret: Cow<'a, str>,
    #[serde(borrow)]
    address: Cow<'a, str>,
}

/// Columns of a list of sessions.
pub(crate) const SESSIONS: &[(&str, &str)] = &[
    ("ID", "id"),
    ("LIVE", "live"),
    ("BEGAN", "created_at"),
    ("LAST USED", "seen_at"),
    ("ENDS", "expires_at"),
    ("FROM", "address"),
    ("WITH", "agent"),
    ("ENDED BY", "ended_by"),
];

/// Runs `password`.
pub(crate) async fn password(args: PasswordArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let old = prompt::secret(
        args.password_file.as_deref(),
        "Password so far",
        "--password-file",
    )?;
    let new = prompt::new_password(args.new_password_file.as_deref(), "--new-password-file")?;
    let change = NewPassword {
        old: &old,
        new: &new,
    };
    api.ask(Ask::new(Method::PUT, &["me", "password"]).json(&change)?)
        .await?;
    voice.done(
        "changed",
        "password",
        "the password is changed; your other sessions have ended",
    )
}

/// Runs `second-factor`.
pub(crate) async fn second_factor(args: SecondFactorArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    if let Some(path) = &args.code_file {
        let code = prompt::secret(Some(path), "Code", "--code-file")?;
        return confirm(&api, &code, voice).await;
    }
    let file = args.password_file.as_deref();
    let password = prompt::secret(file, "Password", "--password-file")?;
    let proved = Proved {
        password: &password,
    };
    let answer = api
        .ask(Ask::post(&["me", "second-factor"]).json(&proved)?)
        .await?;
    if voice.is_json() {
        voice.raw(answer.text()?)?;
    } else {
        let made: Made<'_> = serde_json::from_slice(&answer.body).map_err(|_| {
            Failure::new("the answer does not hold a secret in the form that this version knows")
        })?;
        voice.line(&made.secret)?;
        voice.line(&made.address)?;
    }
    voice.talk("put it into an authenticator app now: it is not shown again");
    if file.is_some() {
        voice.talk("then `lockwarden second-factor --code-file FILE` confirms it");
        return Ok(DONE);
    }
    let code = prompt::secret(None, "The code that the app shows", "--code-file")?;
    confirm(&api, &code, voice).await
}

async fn confirm(api: &Api, code: &str, voice: Voice) -> Outcome {
    let confirmed = Confirmed { code: code.trim() };
    api.ask(Ask::new(Method::PUT, &["me", "second-factor"]).json(&confirmed)?)
        .await?;
    voice.done(
        "confirmed",
        "second factor",
        "the code is asked for from now on; your other sessions have ended",
    )
}

/// Runs `sessions`.
pub(crate) async fn sessions(args: SessionsArgs, voice: Voice) -> Outcome {
    match args.command {
        SessionsCommand::List(args) => {
            let api = Api::new(&args.server, voice)?;
            let answer = api.ask(Ask::get(&["sessions"])).await?.json()?;
            let rows = show::rows(&answer);
            voice.data(&rows, || show::table(SESSIONS, rows))?;
            Ok(DONE)
        }
        SessionsCommand::End(args) => {
            let api = Api::new(&args.server, voice)?;
            api.ask(Ask::delete(&["sessions", &args.id])).await?;
            voice.done(
                "ended",
                &args.id,
                format!("session {} opens nothing from now on", args.id),
            )
        }
    }
}

/// Shows an invitation, which is not shown again.
pub(crate) fn invitation(body: &[u8], voice: Voice) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Invited<'a> {
        #[serde(borrow)]
        invitation: Cow<'a, str>,
        login: String,
    }
    let invited: Invited<'_> = serde_json::from_slice(body).map_err(|_| {
        Failure::new("the answer does not hold an invitation in the form that this version knows")
    })?;
    let shown = json!({ "login": invited.login, "invitation": invited.invitation });
    voice.data(&shown, || invited.invitation.to_string())?;
    voice.talk(format!(
        "give it to {} alone, in a way that nobody else sees: with it `lockwarden join` sets their password, once, within seven days",
        invited.login
    ));
    Ok(())
}
