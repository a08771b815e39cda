//! `lockwarden join`, `sign-in` and `sign-out`: a person at a server.

use std::borrow::Cow;
use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::api::{Answer, Api, Ask, ServerArgs};
use crate::session_file::{self, Kept};
use crate::voice::{DONE, Failure, Outcome, Voice};
use crate::{prompt, secret_file};

/// Take an invitation: set the password that you sign in with
///
/// The invitation and the password are asked for at the terminal, or read from files.
#[derive(Args)]
pub(crate) struct JoinArgs {
    /// The file that holds the invitation; - is standard input
    #[arg(long, value_name = "FILE")]
    invitation_file: Option<PathBuf>,
    /// The file that holds the new password; - is standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Sign in: from then on the commands of this server need no token
///
/// The session is kept in a file that only you may read ($XDG_STATE_HOME/lockwarden/session, or where LOCKWARDEN_SESSION_FILE
/// says), and is sent to that server alone.
#[derive(Args)]
pub(crate) struct SignInArgs {
    /// The name that you sign in with
    #[arg(required_unless_present = "single_sign_on")]
    login: Option<String>,
    /// Sign in at your organisation's provider of identities: open the page that is named, and bring back the word that it shows
    #[arg(long, conflicts_with_all = ["login", "password_file", "code_file"])]
    single_sign_on: bool,
    /// The file that holds that word; - is standard input
    #[arg(long, value_name = "FILE", requires = "single_sign_on")]
    answer_file: Option<PathBuf>,
    /// The file that holds the password; - is standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The file that holds the code of the second factor; without it and without a terminal none is given
    #[arg(long, value_name = "FILE")]
    code_file: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Sign out: the session ends, at the server and here
#[derive(Args)]
pub(crate) struct SignOutArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct Taken<'a> {
    invitation: &'a str,
    password: &'a str,
}

#[derive(Serialize)]
struct Claimed<'a> {
    login: &'a str,
    password: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
}

#[derive(Serialize)]
struct Answered<'a> {
    ticket: &'a str,
    answer: &'a str,
}

/// The answer, read in place so that no copy of the session is made.
#[derive(Deserialize)]
struct Begun<'a> {
    #[serde(borrow)]
    session: Cow<'a, str>,
    expires_at: String,
}

/// Runs `join`.
pub(crate) async fn join(args: JoinArgs, voice: Voice) -> Outcome {
    let api = Api::for_anybody(&args.server)?;
    let file = args.invitation_file.as_deref();
    let invitation = prompt::secret(file, "Invitation", "--invitation-file")?;
    let password = prompt::new_password(args.password_file.as_deref(), "--password-file")?;
    let taken = Taken {
        invitation: invitation.trim(),
        password: &password,
    };
    api.ask(Ask::post(&["invitations"]).json(&taken)?).await?;
    let talk = "the password is set; next: `lockwarden sign-in`, then `lockwarden second-factor`";
    voice.done("joined", api.url().as_str(), talk)
}

/// Runs `sign-in`.
pub(crate) async fn sign_in(args: SignInArgs, voice: Voice) -> Outcome {
    let api = Api::for_anybody(&args.server)?;
    let Some(login) = &args.login else {
        return by_provider(&api, &args, voice).await;
    };
    let password = prompt::secret(args.password_file.as_deref(), "Password", "--password-file")?;
    let code = match (&args.code_file, &args.password_file) {
        (Some(path), _) => Some(secret_file::read_word(path, "the file of --code-file")?),
        (None, Some(_)) => None,
        (None, None) => {
            let what = "Code of the second factor (empty when there is none yet)";
            Some(prompt::secret(None, what, "--code-file")?)
        }
    };
    let claimed = Claimed {
        login,
        password: &password,
        code: code
            .as_ref()
            .map(|code| code.trim())
            .filter(|code| !code.is_empty()),
    };
    let answer = api.ask(Ask::post(&["sign-in"]).json(&claimed)?).await?;
    keep(&api, &args, &answer, voice).await
}

/// Begins at the provider, and ends with what a person brings back from there.
async fn by_provider(api: &Api, args: &SignInArgs, voice: Voice) -> Outcome {
    let path = ["sign-in", "provider"];
    let begun = api.ask(Ask::post(&path).json(&json!({}))?).await?.json()?;
    let part = |name: &str| {
        begun[name].as_str().ok_or_else(|| {
            Failure::new(
                "the answer does not say where to sign in, in a form that this version knows",
            )
        })
    };
    let (page, ticket) = (part("url")?, part("ticket")?);
    voice.talk(format!("open this page within ten minutes: {page}"));
    let file = args.answer_file.as_deref();
    let word = prompt::secret(file, "Word that the page shows", "--answer-file")?;
    let answered = Answered {
        ticket,
        answer: word.trim(),
    };
    let path = ["sign-in", "provider", "session"];
    let answer = api.ask(Ask::post(&path).json(&answered)?).await?;
    keep(api, args, &answer, voice).await
}

/// Keeps a session that has begun.
async fn keep(api: &Api, args: &SignInArgs, answer: &Answer, voice: Voice) -> Outcome {
    let begun: Begun<'_> = serde_json::from_slice(&answer.body).map_err(|_| {
        Failure::new("the answer does not hold a session in the form that this version knows")
    })?;
    let kept = Kept {
        url: api.url().clone(),
        session: Zeroizing::new(begun.session.into_owned()),
    };
    let path = session_file::keep(&kept)?;
    let me = Api::in_session(&args.server, &kept)?
        .ask(Ask::get(&["me"]))
        .await?
        .json()?;
    let shown = json!({ "signed_in": me["name"], "expires_at": begun.expires_at });
    voice.data(&shown, || {
        format!("signed in as {}", me["name"].as_str().unwrap_or("-"))
    })?;
    voice.talk(format!("the session is kept in {}", path.display()));
    if me["second_factor_needed"] == Value::Bool(true) {
        voice.talk("a second factor comes first: `lockwarden second-factor` sets it up");
    }
    Ok(DONE)
}

/// Runs `sign-out`.
pub(crate) async fn sign_out(args: SignOutArgs, voice: Voice) -> Outcome {
    let Some(kept) = session_file::read()? else {
        return Err(Failure::new("nobody is signed in here"));
    };
    let ended = Api::in_session(&args.server, &kept)?
        .try_ask(Ask::post(&["sign-out"]))
        .await;
    match ended {
        Ok(_) => {}
        // It had ended already.
        Err(refusal) if refusal.problem.as_deref() == Some("unauthenticated") => {}
        Err(refusal) => return Err(refusal.failure),
    }
    session_file::forget()?;
    voice.done("signed_out", kept.url.as_str(), "signed out")
}
