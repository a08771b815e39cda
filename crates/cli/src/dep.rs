//! `lockwarden dep`: what Apple's device enrolment service knows the organisation by.

use std::path::PathBuf;

use apple::dep::token::{ServerToken, TokenJsonError};
use clap::{Args, Subcommand};
use data_encoding::BASE64;
use reqwest::Method;
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::api::{Api, Ask, ServerArgs};
use crate::voice::{DONE, Failure, Outcome, Voice};
use crate::{mdm, private_file, secret_file, show};

/// Keep server tokens of Apple's device enrolment service, with which devices are locked
#[derive(Args)]
pub(crate) struct DepArgs {
    #[command(subcommand)]
    command: DepCommand,
}

#[derive(Subcommand)]
enum DepCommand {
    /// Make a key, and print the certificate to upload in Apple Business Manager or Apple School Manager
    ///
    /// The private key stays with the server. It opens the token that Apple makes for the certificate.
    Keypair(KeypairArgs),
    /// List the keys
    Keys(PlainArgs),
    /// Import, add or remove a server token
    Token(TokenArgs),
    /// List the server tokens, and what is to be mended
    Tokens(PlainArgs),
    /// Have the list of devices of a server read now
    Sync(NamedArgs),
    /// Ask Apple whom a server token speaks for; it changes nothing there
    Test(NamedArgs),
}

#[derive(Args)]
struct KeypairArgs {
    /// Write the certificate to this new file instead of showing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct PlainArgs {
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

#[derive(Args)]
struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Import a server token, or the renewed one of the same name
    ///
    /// Locks that wait for one go on at once, and the list of devices of its server is read.
    Import(ImportArgs),
    /// Use a NanoDEP that has the token
    AddNanodep(NanoDepArgs),
    /// Remove a server token: it is not used any more; what was done with it stays on record
    Remove(NamedArgs),
}

#[derive(Args)]
struct ImportArgs {
    /// The file that Apple made for a certificate of ours (.p7m), or the token as JSON, decrypted before; - is standard input
    file: PathBuf,
    /// Our name for it
    #[arg(long, value_name = "NAME", default_value = "default")]
    name: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct NanoDepArgs {
    /// Our name for it
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Where NanoDEP is: https, or http on this machine
    #[arg(long, value_name = "URL")]
    nanodep_url: String,
    /// NanoDEP's name for the token
    #[arg(long, value_name = "NAME")]
    nanodep_name: String,
    /// The file that holds the key of its API; - is standard input
    #[arg(long, value_name = "FILE")]
    api_key_file: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
}

/// A token to be kept: with one of the three.
#[derive(Serialize)]
struct NewToken<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nanodep: Option<NewNanoDep<'a>>,
}

#[derive(Serialize)]
struct NewNanoDep<'a> {
    url: &'a str,
    name: &'a str,
    api_key: &'a str,
}

/// Runs the command.
pub(crate) async fn run(args: DepArgs, voice: Voice) -> Outcome {
    match args.command {
        DepCommand::Keypair(args) => keypair(args, voice).await,
        DepCommand::Keys(args) => keys(args, voice).await,
        DepCommand::Token(args) => match args.command {
            TokenCommand::Import(args) => import(args, voice).await,
            TokenCommand::AddNanodep(args) => add_nanodep(args, voice).await,
            TokenCommand::Remove(args) => remove(args, voice).await,
        },
        DepCommand::Tokens(args) => tokens(args, voice).await,
        DepCommand::Sync(args) => sync(args, voice).await,
        DepCommand::Test(args) => {
            let api = Api::new(&args.server, voice)?;
            let answer = api
                .ask(Ask::post(&["dep-tokens", &args.name, "test"]))
                .await?
                .json()?;
            mdm::tested(&answer, voice)
        }
    }
}

async fn keypair(args: KeypairArgs, voice: Voice) -> Outcome {
    // A file that cannot be made is found out before there is a key that nobody uses.
    let out = args.out.as_deref().map(private_file::create).transpose()?;
    let api = Api::new(&args.server, voice)?;
    let organisation = api.organisation().await?;
    let path = ["organisations", &organisation, "dep-keys"];
    let made = api.ask(Ask::post(&path)).await?.json()?;
    let certificate = made
        .get("certificate_pem")
        .and_then(Value::as_str)
        .ok_or_else(|| {
            Failure::new("the server's answer holds no certificate")
                .hint("is the server of the same version?")
        })?;
    match out {
        Some(mut file) => {
            file.write_line(certificate)?;
            file.keep();
            voice.data(&made, || show::pairs(&made, &[("id", "id")]))?;
        }
        None => voice.data(&made, || certificate.trim_end().to_owned())?,
    }
    voice.talk(
        "Next: in Apple Business Manager or Apple School Manager, add a device management server (or open the one there is), \
         upload this certificate and save; download the server's token; give that file to `lockwarden dep token import FILE`. \
         Then assign the devices to that server.",
    );
    Ok(DONE)
}

async fn keys(args: PlainArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let organisation = api.organisation().await?;
    let path = ["organisations", &organisation, "dep-keys"];
    let answer = api.ask(Ask::get(&path)).await?.json()?;
    let rows = show::rows(&answer);
    voice.data(&rows, || {
        show::table(
            &[("ID", "id"), ("MADE", "created_at"), ("USED", "used_at")],
            rows,
        )
    })?;
    Ok(DONE)
}

/// What a file holds.
enum Held {
    /// The token itself.
    Token(ServerToken),
    /// Something that only the server can open.
    Sealed,
}

/// Tells a decrypted token from a file that Apple encrypted.
///
/// # Errors
/// When it is JSON, and not a token.
fn told_apart(file: &[u8]) -> Result<Held, TokenJsonError> {
    let text = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    match ServerToken::from_json(file) {
        Ok(token) => Ok(Held::Token(token)),
        Err(TokenJsonError::NotJson) if !text.trim_ascii_start().starts_with(b"{") => {
            Ok(Held::Sealed)
        }
        Err(error) => Err(error),
    }
}

async fn import(args: ImportArgs, voice: Voice) -> Outcome {
    let what = "the server token's file";
    let file = secret_file::read_bytes(&args.file, what)?;
    let held = told_apart(&file).map_err(|error| {
        Failure::new(format!("{what} is JSON, and no server token: {error}")).hint(
            "give the file (.p7m) that Apple Business Manager or Apple School Manager downloads, or all of what was decrypted \
             from it",
        )
    })?;
    let (token, file) = match held {
        Held::Token(token) => {
            if let Some(warning) = secret_file::warning(&args.file, what) {
                voice.talk(warning);
            }
            (Some(token.to_sealed_json()), None)
        }
        Held::Sealed => (None, Some(Zeroizing::new(BASE64.encode(&file)))),
    };
    let new = NewToken {
        name: &args.name,
        file: file.as_deref().map(String::as_str),
        token: token.as_deref().map(String::as_str),
        nanodep: None,
    };
    put(&args.server, &new, voice).await
}

async fn add_nanodep(args: NanoDepArgs, voice: Voice) -> Outcome {
    let api_key = secret_file::read_word(&args.api_key_file, "the file with NanoDEP's key")?;
    let new = NewToken {
        name: &args.name,
        file: None,
        token: None,
        nanodep: Some(NewNanoDep {
            url: &args.nanodep_url,
            name: &args.nanodep_name,
            api_key: &api_key,
        }),
    };
    put(&args.server, &new, voice).await
}

async fn put(server: &ServerArgs, new: &NewToken<'_>, voice: Voice) -> Outcome {
    let api = Api::new(server, voice)?;
    let organisation = api.organisation().await?;
    let path = ["organisations", &organisation, "dep-tokens"];
    let kept = api
        .ask(Ask::new(Method::PUT, &path).json(new)?)
        .await?
        .json()?;
    voice.data(&kept, || show::table(COLUMNS, [&kept]))?;
    tell_to_do(&kept, voice);
    voice.talk(
        "kept; its list of devices is read now, and `lockwarden dep tokens` shows when it was",
    );
    Ok(DONE)
}

const COLUMNS: &[(&str, &str)] = &[
    ("NAME", "name"),
    ("KIND", "kind"),
    ("SERVER", "server_name"),
    ("OF", "org_name"),
    ("ENDS", "expires_at"),
    ("HOW SOON", "expiry"),
    ("LISTED", "listed_at"),
    ("PROBLEM", "problem"),
];

async fn tokens(args: PlainArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let organisation = api.organisation().await?;
    let path = ["organisations", &organisation, "dep-tokens"];
    let answer = api.ask(Ask::get(&path)).await?.json()?;
    let rows = show::rows(&answer);
    voice.data(&rows, || show::table(COLUMNS, rows))?;
    for token in rows {
        tell_to_do(token, voice);
    }
    Ok(DONE)
}

/// Says who has to do what about a token that is not as it should be (contract sheet 2.23).
fn tell_to_do(token: &Value, voice: Voice) {
    let name = show::cell(token, "name");
    let word = |key: &str| token.get(key).and_then(Value::as_str);
    if let Some(to_do) = word("to_do") {
        voice.talk(format!("{name}: {to_do}"));
    }
    if word("expiry").is_some_and(|expiry| expiry != "fine") {
        voice.talk(format!(
            "{name}: it is good until {}. Somebody who manages servers in Apple Business Manager or Apple School Manager \
             downloads a new token of this server, which ends this one; `lockwarden dep token import FILE --name {name}` \
             renews it.",
            show::cell(token, "expires_at")
        ));
    }
}

async fn sync(args: NamedArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let path = ["dep-tokens", args.name.as_str(), "sync"];
    let token = api.ask(Ask::post(&path)).await?.json()?;
    voice.data(&token, || {
        show::pairs(&token, &[("name", "name"), ("listed before", "listed_at")])
    })?;
    voice.talk("its list is read now; `lockwarden dep tokens` shows when it was");
    Ok(DONE)
}

async fn remove(args: NamedArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    api.ask(Ask::delete(&["dep-tokens", &args.name])).await?;
    let talk = format!(
        "{} is removed; locks are asked for with other server tokens only",
        args.name
    );
    voice.done("removed", &args.name, talk)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = r#"{"consumer_key":"CK_1","consumer_secret":"CS_2","access_token":"AT_3","access_secret":"AS_4","access_token_expiry":"2027-03-01T12:00:00Z"}"#;

    #[test]
    fn a_token_is_told_from_apples_file_by_what_is_in_it() {
        for token in [
            TOKEN.to_owned(),
            format!("\u{feff}\n {TOKEN}\n"),
            format!("Content-Type: text/plain\r\n\r\n-----BEGIN MESSAGE-----\r\n{TOKEN}\r\n"),
        ] {
            assert!(matches!(told_apart(token.as_bytes()), Ok(Held::Token(_))));
        }
        let der = [0x30, 0x80, 0x06, 0x09, b'{', 0xff, b'}'];
        let mime: &[u8] = b"Content-Type: application/pkcs7-mime\r\n\r\nMIAGCSqGSIb3DQEHA6CA\r\n";
        for sealed in [&der[..], mime, b"", b"anything else"] {
            assert!(matches!(told_apart(sealed), Ok(Held::Sealed)));
        }
        // Not sent away as a file that only the server could read: it may hold half of a token.
        for broken in [
            "{}",
            " {\"consumer_key\":",
            "\u{feff}{\"a\"",
            &TOKEN.replace("CS_2", ""),
        ] {
            assert!(told_apart(broken.as_bytes()).is_err());
        }
    }
}
