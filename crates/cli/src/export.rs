//! `lockwarden export`: codes, to be taken elsewhere.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use activation_lock::device::SerialNumber;
use clap::Args;
use serde_json::json;

use crate::api::{Api, Ask, LeaveArgs, ServerArgs};
use crate::devices;
use crate::private_file;
use crate::voice::{Failure, Outcome, Voice};

/// Take codes away, in an archive that another person opens without Lockwarden
///
/// The archive is in the age format: `age-keygen` makes a key, and `age --decrypt -i KEY` opens the archive, which holds a table with a row
/// a code, the former ones too. Who asked, why and which codes left is on record, and channels for notices are told. With --plain it is the
/// table itself, which takes another person whatever the policies say.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("form").required(true).multiple(true).args(["to", "to_file", "plain"]))]
pub(crate) struct ExportArgs {
    /// Whom the archive is for: a public key, as age1...; again for more
    #[arg(long, value_name = "KEY")]
    to: Vec<String>,
    /// A file with a public key a line; lines that begin with # are passed over
    #[arg(long, value_name = "FILE")]
    to_file: Option<PathBuf>,
    /// A table that anybody can read, in place of an archive
    #[arg(long, conflicts_with_all = ["to", "to_file"])]
    plain: bool,
    /// Only the codes of this device; again for more [default: every device]
    #[arg(long, value_name = "SERIAL")]
    device: Vec<SerialNumber>,
    /// Why: kept on record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The new file for it, which only you may read
    #[arg(long, value_name = "FILE")]
    out_file: PathBuf,
    #[command(flatten)]
    leave: LeaveArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
pub(crate) async fn run(args: ExportArgs, voice: Voice) -> Outcome {
    let reason = devices::reason(&args.reason)?;
    let mut recipients: BTreeSet<String> =
        args.to.iter().map(|key| key.trim().to_owned()).collect();
    if let Some(path) = &args.to_file {
        recipients.extend(keys_of(path)?);
    }
    let api = Api::new(&args.server, voice)?.with_leave(&args.leave)?;
    let body = json!({
        "reason": reason,
        "recipients": recipients,
        "plain": args.plain,
        "devices": args.device,
    });
    let mut file = private_file::create(&args.out_file)?;
    api.download(
        Ask::post(&["exports"]).json(&body)?,
        "content-type",
        |bytes| file.write_all(bytes),
    )
    .await?;
    file.sync()?;
    file.keep();
    let place = args.out_file.display().to_string();
    let talk = if args.plain {
        "the codes are in the file, and whoever reads it can use them: remove it when it has served"
            .to_owned()
    } else {
        format!("the codes are in the archive: `age --decrypt -i KEY_FILE {place}` opens it")
    };
    voice.done("exported", &place, talk)
}

fn keys_of(path: &Path) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("{} cannot be read: {error}", path.display())))?;
    let keys: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    // A secret key among them is not sent anywhere.
    if let Some(line) = keys.iter().position(|line| !line.starts_with("age1")) {
        return Err(Failure::usage(format!(
            "key {} in {} is not a public key, which begins with age1",
            line + 1,
            path.display()
        ))
        .hint("`age-keygen -y KEY_FILE` gives the public key of a key file"));
    }
    Ok(keys.into_iter().map(str::to_owned).collect())
}
