//! `lockwarden push-certificate`: by what Apple knows the organisation.

use std::path::{Path, PathBuf};

use apple::push_certificate::PushCertificate;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::api::{Api, Ask, ServerArgs};
use crate::voice::{DONE, Failure, Outcome, Voice};
use crate::{mdm, secret_file, show};

/// Keep MDM push certificates: add, list, test, remove
#[derive(Args)]
pub(crate) struct PushCertificateArgs {
    #[command(subcommand)]
    command: PushCertificateCommand,
}

#[derive(Subcommand)]
enum PushCertificateCommand {
    /// Add a push certificate with its key, or the renewed one of a topic
    ///
    /// It is read and checked here first. A certificate of the same topic is replaced; devices that enrolled with it are
    /// unlocked with the new one.
    Add(AddArgs),
    /// List the certificates, without their keys
    List(ListArgs),
    /// Show the certificate to Apple's server, without sending a code
    Test(NamedArgs),
    /// Remove a certificate
    Remove(NamedArgs),
}

#[derive(Args)]
struct AddArgs {
    #[command(flatten)]
    files: CertificateFiles,
    #[command(flatten)]
    server: ServerArgs,
}

/// The files of a push certificate.
#[derive(Args)]
pub(crate) struct CertificateFiles {
    /// The MDM push certificate: PEM with its chain, or PKCS#12
    #[arg(long, value_name = "PEM|P12")]
    certificate: PathBuf,
    /// Its private key, when it is not in the same file
    #[arg(long, value_name = "PEM")]
    key: Option<PathBuf>,
    /// The file with the password of the PKCS#12 file
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct NamedArgs {
    /// Its identifier, as the list shows it
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct NewCertificate<'a> {
    pem: &'a str,
}

/// Runs the command.
pub(crate) async fn run(args: PushCertificateArgs, voice: Voice) -> Outcome {
    match args.command {
        PushCertificateCommand::Add(args) => add(args, voice).await,
        PushCertificateCommand::List(args) => list(args, voice).await,
        PushCertificateCommand::Test(args) => {
            let api = Api::new(&args.server, voice)?;
            let answer = api
                .ask(Ask::post(&["push-certificates", &args.id, "test"]))
                .await?
                .json()?;
            mdm::tested(&answer, voice)
        }
        PushCertificateCommand::Remove(args) => {
            let api = Api::new(&args.server, voice)?;
            api.ask(Ask::delete(&["push-certificates", &args.id]))
                .await?;
            let talk = "removed; devices of its topic can be unlocked only once there is another";
            voice.done("removed", &args.id, talk)
        }
    }
}

async fn add(args: AddArgs, voice: Voice) -> Outcome {
    let certificate = args.files.load(voice)?;
    let api = Api::new(&args.server, voice)?;
    let pem = certificate.to_sealed_pem();
    let added = api
        .ask(Ask::post(&["push-certificates"]).json(&NewCertificate { pem: &pem })?)
        .await?
        .json()?;
    voice.data(&added, || {
        show::pairs(
            &added,
            &[
                ("id", "id"),
                ("topic", "topic"),
                ("subject", "subject"),
                ("ends", "not_after"),
            ],
        )
    })?;
    Ok(DONE)
}

async fn list(args: ListArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let answer = api.ask(Ask::get(&["push-certificates"])).await?.json()?;
    let rows = show::rows(&answer);
    voice.data(&rows, || {
        show::table(
            &[
                ("ID", "id"),
                ("TOPIC", "topic"),
                ("FROM", "not_before"),
                ("ENDS", "not_after"),
                ("DAYS LEFT", "days_left"),
                ("REPLACED", "superseded_at"),
                ("REMOVED", "removed_at"),
            ],
            rows,
        )
    })?;
    Ok(DONE)
}

impl CertificateFiles {
    /// How many of the files are standard input.
    pub(crate) fn of_standard_input(&self) -> usize {
        [
            Some(&self.certificate),
            self.key.as_ref(),
            self.password_file.as_ref(),
        ]
        .into_iter()
        .flatten()
        .filter(|path| *path == Path::new("-"))
        .count()
    }

    /// Reads and checks certificate and key.
    ///
    /// # Errors
    /// When a file cannot be read, or they are no push certificate with its key.
    pub(crate) fn load(&self, voice: Voice) -> Result<PushCertificate, Failure> {
        let file = secret_file::read_bytes(&self.certificate, "the push certificate's file")?;
        let key = self
            .key
            .as_deref()
            .map(|path| secret_file::read_bytes(path, "the key's file"))
            .transpose()?;
        let password = self
            .password_file
            .as_deref()
            .map(|path| secret_file::read(path, "the password's file"))
            .transpose()?;
        let with_key = self.key.as_deref().unwrap_or(&self.certificate);
        for path in [Some(with_key), self.password_file.as_deref()]
            .into_iter()
            .flatten()
        {
            if let Some(warning) =
                secret_file::warning(path, "a file with a private key or its password")
            {
                voice.talk(warning);
            }
        }
        let password = password
            .as_ref()
            .map(|text| text.trim_end_matches(['\r', '\n']));
        PushCertificate::load(&file, key.as_ref().map(|bytes| bytes.as_slice()), password)
            .map_err(|error| Failure::new(format!("the push certificate cannot be used: {error}")))
    }
}
