//! `lockwarden key`: the keys of a vault.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use seal::{KeyEncryptionKey, RecoveryKey, RecoveryPublicKey};
use serde_json::{Value, json};

use crate::api::{Api, Ask, ServerArgs};
use crate::local::{self, ConfigArgs};
use crate::voice::{DONE, FAILED, Failure, Outcome, Voice};
use crate::{key_source, machine, private_file, secret_file, show};

/// Look after the keys: exchange them, see that everything opens, try the recovery key
#[derive(Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Show the data keys, and how far their exchange is
    Status(ServerOnly),
    /// Exchange the data keys while the server goes on: new ones are used at once, the rest follows
    Rotate(ServerOnly),
    /// Open everything that is sealed, to see that it does
    ///
    /// Exit status: 0 when everything opens; 1 when something does not.
    Verify(ServerOnly),
    /// Destroy an older data key that nothing needs any more
    Destroy(DestroyArgs),
    /// Show that the offline recovery key opens this vault; until then `doctor` warns
    ///
    /// The server must be stopped. The key is read from a file or standard input and is not kept.
    RecoveryCheck(RecoveryArgs),
    /// Have another running key, another recovery key, or both open this vault in place of those of now
    ///
    /// The server must be stopped. Nothing is sealed anew: the data keys are wrapped for the new ones. Afterwards the configuration has
    /// to name the new running key.
    Rewrap(RewrapArgs),
    /// Make a new running key
    Generate(GenerateArgs),
    /// Have a program wrap a running key, to be unwrapped by it at each start (key_command in the section `keys`)
    Wrap(WrapArgs),
}

#[derive(Args)]
struct ServerOnly {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct DestroyArgs {
    /// Its identifier, as `key status` shows it
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct RecoveryArgs {
    /// The file that holds the recovery key; - is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    recovery_key_file: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Args)]
#[group(id = "new", required = true, multiple = true)]
struct NewKeys {
    /// The file that holds the new running key
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
    /// The file that holds the public half of the new recovery key
    #[arg(long, value_name = "FILE")]
    new_recovery_public_file: Option<PathBuf>,
}

#[derive(Args)]
struct RewrapArgs {
    #[command(flatten)]
    new: NewKeys,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Args)]
struct GenerateArgs {
    /// The new file for it, which only you may read
    #[arg(long, value_name = "FILE")]
    out_file: PathBuf,
    /// Make a recovery key instead: its private half goes there, and its public half into this new file
    #[arg(long, value_name = "FILE")]
    recovery_public_file: Option<PathBuf>,
}

#[derive(Args)]
struct WrapArgs {
    /// The file that holds the running key; - is standard input
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// The new file for what the program prints
    #[arg(long, value_name = "FILE")]
    out_file: PathBuf,
    /// The program and its arguments; `wrap` is added
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<String>,
}

const KEYS: &[(&str, &str)] = &[
    ("ID", "id"),
    ("PURPOSE", "purpose"),
    ("STANDING", "standing"),
    ("OPEN", "open"),
    ("MADE", "created_at"),
    ("WRAPPED FOR", "recipients"),
    ("DESTROYED", "destroyed_at"),
];

const ROTATION: &[(&str, &str)] = &[
    ("exchange", "id"),
    ("began", "started_at"),
    ("by", "started_by"),
    ("pass", "pass"),
    ("made anew", "resealed"),
    ("damaged", "damaged"),
    ("done", "finished_at"),
];

/// Runs the command.
pub(crate) async fn run(args: KeyArgs, voice: Voice) -> Outcome {
    match args.command {
        KeyCommand::Status(args) => status(&args.server, voice).await,
        KeyCommand::Rotate(args) => {
            let api = Api::new(&args.server, voice)?;
            let rotation = api.ask(Ask::post(&["keys", "rotate"])).await?.json()?;
            voice.data(&rotation, || show::pairs(&rotation, ROTATION))?;
            voice.talk("it is under way; `lockwarden key status` shows how far it is");
            Ok(DONE)
        }
        KeyCommand::Verify(args) => verify(&args.server, voice).await,
        KeyCommand::Destroy(args) => {
            let api = Api::new(&args.server, voice)?;
            api.ask(Ask::delete(&["keys", &args.id])).await?;
            voice.done(
                "destroyed",
                &args.id,
                format!("data key {} is destroyed", args.id),
            )
        }
        KeyCommand::RecoveryCheck(args) => recovery_check(args, voice).await,
        KeyCommand::Rewrap(args) => rewrap(args, voice).await,
        KeyCommand::Generate(args) => generate(&args, voice),
        KeyCommand::Wrap(args) => wrap(args, voice).await,
    }
}

async fn status(server: &ServerArgs, voice: Voice) -> Outcome {
    let api = Api::new(server, voice)?;
    let status = api.ask(Ask::get(&["keys"])).await?.json()?;
    voice.data(&status, || {
        let rows = status["keys"].as_array().cloned().unwrap_or_default();
        let mut text = show::table(KEYS, &rows);
        if status["rotation"].is_object() {
            text.push_str("\n\n");
            text.push_str(&show::pairs(&status["rotation"], ROTATION));
        }
        text
    })?;
    Ok(DONE)
}

async fn verify(server: &ServerArgs, voice: Voice) -> Outcome {
    let api = Api::new(server, voice)?;
    let found = api
        .ask(Ask::post(&["keys", "verify"]).patiently())
        .await?
        .json()?;
    let damaged = found["damaged"].as_array().cloned().unwrap_or_default();
    voice.data(&found, || {
        let made = found["by_key"].as_object().into_iter().flatten();
        let mut lines: Vec<_> = made.map(|(id, count)| format!("{id}  {count}")).collect();
        lines.extend(damaged.iter().filter_map(Value::as_str).map(str::to_owned));
        lines.join("\n")
    })?;
    if damaged.is_empty() {
        voice.talk("everything opens");
        return Ok(DONE);
    }
    voice.talk(format!(
        "{} do not open; a backup may have them whole",
        damaged.len()
    ));
    Ok(FAILED)
}

async fn recovery_check(args: RecoveryArgs, voice: Voice) -> Outcome {
    let config = args.config.read()?;
    let text = secret_file::read(&args.recovery_key_file, "the recovery key's file")?;
    let recovery = RecoveryKey::parse(&text)
        .map_err(|error| Failure::new(format!("the recovery key cannot be used: {error}")))?;
    let escrow = local::open(&config, voice).await?;
    let proven = escrow.check_recovery(&recovery).await;
    escrow.close().await;
    proven.map_err(|error| Failure::new(error.to_string()))?;
    let talk = "the recovery key opens this vault; put it back where it is safe";
    voice.done("proven", &recovery.public().id().to_string(), talk)
}

async fn rewrap(args: RewrapArgs, voice: Voice) -> Outcome {
    let config = args.config.read()?;
    let new = args
        .new
        .new_key_file
        .as_deref()
        .map(local::read_key)
        .transpose()?;
    let recovery = args.new.new_recovery_public_file.as_deref().map(|path| {
        let text = secret_file::read(path, "the recovery key's public half")?;
        RecoveryPublicKey::parse(&text).map_err(|error| {
            Failure::new(format!(
                "the recovery key's public half cannot be used: {error}"
            ))
        })
    });
    let recovery = recovery.transpose()?;
    let ids: Vec<_> = new
        .iter()
        .map(|key| key.id())
        .chain(recovery.iter().map(RecoveryPublicKey::id))
        .map(|id| id.to_string())
        .collect();
    let has_new_key = new.is_some();
    let escrow = local::open(&config, voice).await?;
    let done = escrow.keys().rewrap(new, recovery).await;
    escrow.close().await;
    done.map_err(|error| Failure::new(error.to_string()))?;
    if has_new_key {
        voice.talk(format!(
            "the vault opens with the new running key alone: name it in {} before the server is started",
            args.config.path().display()
        ));
    }
    voice.done(
        "rewrapped",
        &ids.join(" "),
        "the data keys are wrapped anew; backups of before open with the keys of before",
    )
}

fn generate(args: &GenerateArgs, voice: Voice) -> Outcome {
    let random = machine::random();
    let mut file = private_file::create(&args.out_file)?;
    let id = match &args.recovery_public_file {
        None => {
            let key = KeyEncryptionKey::generate(&random);
            file.write_line(&key.to_file_text())?;
            key.id()
        }
        Some(path) => {
            let mut public = private_file::create(path)?;
            let key = RecoveryKey::generate(&random);
            file.write_line(&key.to_text())?;
            public.write_line(&key.public().to_text())?;
            public.keep();
            key.public().id()
        }
    };
    file.keep();
    voice.data(&json!({ "id": id.to_string() }), || id.to_string())?;
    Ok(DONE)
}

async fn wrap(args: WrapArgs, voice: Voice) -> Outcome {
    let text = secret_file::read(&args.key_file, "the key file")?;
    let key = KeyEncryptionKey::parse(&text)
        .map_err(|error| Failure::new(format!("the key file cannot be used: {error}")))?;
    let mut file = private_file::create(&args.out_file)?;
    let wrapped = key_source::run(&args.program, "wrap", &text).await?;
    // What cannot be unwrapped again would be a vault that nobody opens.
    let again = key_source::run(&args.program, "unwrap", &wrapped).await?;
    let same = KeyEncryptionKey::parse(&again).is_ok_and(|again| again.id() == key.id());
    if !same {
        return Err(Failure::new(
            "the program does not unwrap what it wrapped: nothing was kept",
        ));
    }
    file.write_line(&wrapped)?;
    file.keep();
    let id = Arc::new(key).id().to_string();
    voice.done("wrapped", &id, "set key_command and wrapped_key_file under [keys], and take the key file away once the server has started with them")
}
