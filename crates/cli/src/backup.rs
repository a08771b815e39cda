//! `lockwarden backup` and `restore`: the whole vault in one encrypted file.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use activation_lock::time::DAY;
use clap::{Args, Subcommand};
use escrow::backups::{self, Backup, OpensWith};
use escrow::permit::{Actor, Admin, OrganisationId, Permissions, Permit};
use seal::{KeyEncryptionKey, RecoveryKey};
use serde_json::{Value, json};

use crate::api::{Api, Ask, ServerArgs};
use crate::local::{self, ConfigArgs};
use crate::voice::{DONE, Failure, Outcome, Voice};
use crate::{machine, private_file, secret_file, show};

/// Back the vault up into one encrypted file, and look after what was backed up
#[derive(Args)]
pub(crate) struct BackupArgs {
    #[command(subcommand)]
    command: BackupCommand,
}

#[derive(Subcommand)]
enum BackupCommand {
    /// Make a backup while the server goes on; it is read back before it is called one
    Make(MakeArgs),
    /// List backups on record
    List(ListArgs),
    /// Say that a backup is gone: the keys that only it needed can be destroyed
    Forget(ForgetArgs),
    /// See that a backup is whole and opens, without restoring it
    Verify(VerifyArgs),
}

#[derive(Args)]
struct MakeArgs {
    /// The new file for it, which only you may read
    #[arg(long, value_name = "FILE")]
    out_file: PathBuf,
    /// What it is called on record [default: the file's name]
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// For how many days it is kept; its keys are not destroyed before that [default: for ever]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    keep_days: Option<u32>,
    /// Make it from this machine's own files, the server being stopped
    #[arg(long)]
    stopped: bool,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct ForgetArgs {
    /// Its identifier, as the list shows it
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// What opens a backup.
#[derive(Args)]
#[group(id = "opens", required = true, multiple = false)]
struct KeyArgs {
    /// The file that holds the running key of its time
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The file that holds the recovery key of its time; - is standard input
    #[arg(long, value_name = "FILE")]
    recovery_key_file: Option<PathBuf>,
}

#[derive(Args)]
struct VerifyArgs {
    /// The backup
    file: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
}

/// Restore a backup into an empty folder
///
/// Afterwards every unlock and lock that was under way waits for a person, nobody is signed in, and open approvals are taken back:
/// what happened since the backup is not known. Tokens are as they were then: revoke those that you had revoked since.
#[derive(Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// The folder for the data; made when it is not there
    #[arg(long, value_name = "FOLDER")]
    into: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    /// With the recovery key: the new file for the new running key of the restored vault
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "key_file",
        conflicts_with = "key_file"
    )]
    new_key_file: Option<PathBuf>,
}

const COLUMNS: &[(&str, &str)] = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("MADE", "made_at"),
    ("KEPT UNTIL", "expires_at"),
    ("GONE", "forgotten_at"),
    ("SHA-256", "digest"),
];

/// Runs `backup`.
pub(crate) async fn run(args: BackupArgs, voice: Voice) -> Outcome {
    match args.command {
        BackupCommand::Make(args) if args.stopped => make_stopped(args, voice).await,
        BackupCommand::Make(args) => make(args, voice).await,
        BackupCommand::List(args) => {
            let api = Api::new(&args.server, voice)?;
            let answer = api.ask(Ask::get(&["backups"])).await?.json()?;
            let rows = show::rows(&answer);
            voice.data(&rows, || show::table(COLUMNS, rows))?;
            Ok(DONE)
        }
        BackupCommand::Forget(args) => {
            let api = Api::new(&args.server, voice)?;
            api.ask(Ask::delete(&["backups", &args.id])).await?;
            voice.done(
                "forgotten",
                &args.id,
                format!("backup {} counts no more", args.id),
            )
        }
        BackupCommand::Verify(args) => {
            let with = args.key.read(None)?;
            let backup = backups::look(&args.file, &with)
                .map_err(|error| Failure::new(error.to_string()))?;
            tell(&backup, voice)?;
            voice.talk("it is whole, and this key opens it");
            Ok(DONE)
        }
    }
}

fn name_of(args: &MakeArgs) -> String {
    let file = args
        .out_file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    args.name
        .clone()
        .or(file)
        .unwrap_or_else(|| "backup".to_owned())
}

async fn make(args: MakeArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let mut file = private_file::create(&args.out_file)?;
    let wanted = json!({ "name": name_of(&args), "keep_days": args.keep_days });
    let mut digest = seal::Digest::new();
    let told = api
        .download(
            Ask::post(&["backups"]).json(&wanted)?,
            "lockwarden-digest",
            |bytes| {
                digest.update(bytes);
                file.write_all(bytes)
            },
        )
        .await?;
    let found = digest.hex();
    if told.as_deref() != Some(&*found) {
        return Err(
            Failure::new("the backup did not arrive whole, and is not kept").hint("make it again"),
        );
    }
    file.sync()?;
    file.keep();
    let shown = json!({ "file": args.out_file, "digest": found });
    voice.data(&shown, || format!("{}  {found}", args.out_file.display()))?;
    voice.talk(
        "keep it apart from the running key; `lockwarden backup verify` shows that a key opens it",
    );
    Ok(DONE)
}

async fn make_stopped(args: MakeArgs, voice: Voice) -> Outcome {
    let config = args.config.read()?;
    let escrow = local::open(&config, voice).await?;
    let actor = Actor::system("command line", Permissions::all());
    let everywhere = OrganisationId::new("*");
    let lasts = args
        .keep_days
        .map(|days| escrow.clock().now().plus(DAY * days));
    let made = async {
        let permit: Permit<Admin> = escrow
            .authorise(&actor, &everywhere, "backups")
            .await
            .map_err(|error| error.to_string())?;
        let made = escrow
            .backups()
            .make(&permit, &args.out_file, &name_of(&args), lasts)
            .await;
        made.map_err(|error| error.to_string())
    };
    let made = made.await;
    escrow.close().await;
    tell(&made.map_err(Failure::new)?, voice)?;
    Ok(DONE)
}

fn tell(backup: &Backup, voice: Voice) -> Result<(), Failure> {
    let shown: Value = json!({
        "id": backup.id,
        "made_at": backup.made_at.0,
        "schema": backup.schema,
        "data_keys": backup.data_keys,
        "digest": backup.digest,
        "size": backup.size,
    });
    voice.data(&shown, || {
        show::pairs(
            &shown,
            &[
                ("backup", "id"),
                ("made", "made_at"),
                ("bytes", "size"),
                ("SHA-256", "digest"),
                ("data keys", "data_keys"),
            ],
        )
    })
}

impl KeyArgs {
    /// What opens the backup. With the recovery key a new running key is made, which `new` is where it goes.
    fn read(&self, new: Option<Arc<KeyEncryptionKey>>) -> Result<OpensWith, Failure> {
        if let Some(path) = &self.key_file {
            return Ok(OpensWith::Running(local::read_key(path)?));
        }
        let path = self.recovery_key_file.as_deref().unwrap_or(Path::new("-"));
        let text = secret_file::read(path, "the recovery key's file")?;
        let recovery = RecoveryKey::parse(&text)
            .map_err(|error| Failure::new(format!("the recovery key cannot be used: {error}")))?;
        Ok(OpensWith::Recovery {
            recovery: Box::new(recovery),
            new: new.unwrap_or_else(|| Arc::new(KeyEncryptionKey::generate(&machine::random()))),
        })
    }
}

/// Runs `restore`.
pub(crate) async fn restore(args: RestoreArgs, voice: Voice) -> Outcome {
    let mut new = None;
    let mut file = None;
    if let Some(path) = &args.new_key_file {
        let mut made = private_file::create(path)?;
        let key = KeyEncryptionKey::generate(&machine::random());
        made.write_line(&key.to_file_text())?;
        (new, file) = (Some(Arc::new(key)), Some(made));
    }
    let with = args.key.read(new)?;
    let clock = server::lifecycle::clock();
    let restored = backups::restore(&args.file, &with, &args.into, clock, machine::random())
        .await
        .map_err(|error| Failure::new(error.to_string()))?;
    if let Some(file) = file {
        file.keep();
    }
    tell(&restored.backup, voice)?;
    voice.talk(format!(
        "restored into {}: {} unlocks and locks that were under way wait for a person, and nobody is signed in",
        args.into.display(),
        restored.held
    ));
    voice.talk(
        "Next: name the folder and the key in the configuration, run `lockwarden doctor`, compare the record with the last checkpoint that \
         was kept outside (`lockwarden audit verify --checkpoint`), and revoke the tokens that had been revoked since.",
    );
    Ok(DONE)
}
