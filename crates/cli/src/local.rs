//! The configuration and the vault of this machine, for the commands on local files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use escrow::meta::DataKind;
use escrow::{Database, Escrow, Opening, PostgresAddress};
use seal::{KeyEncryptionKey, RecoveryPublicKey};
use server::config::Config;

use crate::voice::{Failure, Voice};
use crate::{key_source, secret_file};

/// The environment variable that names the configuration.
pub(crate) const CONFIG_VARIABLE: &str = "LOCKWARDEN_CONFIG";
/// Where the configuration is when nobody says so.
pub(crate) const CONFIG: &str = "/etc/lockwarden/lockwarden.toml";

/// Which configuration.
#[derive(Args, Clone)]
pub(crate) struct ConfigArgs {
    /// The configuration [environment: LOCKWARDEN_CONFIG; default: /etc/lockwarden/lockwarden.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgs {
    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.config
            .clone()
            .or_else(|| std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from))
            .unwrap_or_else(|| PathBuf::from(CONFIG))
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it cannot be read, or is not as it should be.
    pub(crate) fn read(&self) -> Result<Config, Failure> {
        let path = self.path();
        Config::read(&path).map_err(|error| {
            let failure = Failure::new(error.to_string());
            if path.exists() {
                failure
            } else {
                failure.hint("`lockwarden init` writes one; --config names another")
            }
        })
    }
}

/// The running key of a configuration.
///
/// # Errors
/// When it cannot be read or unwrapped.
pub(crate) async fn key(config: &Config, voice: Voice) -> Result<Arc<KeyEncryptionKey>, Failure> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let source = config
        .key_source(credentials.as_deref())
        .map_err(|error| Failure::new(error.to_string()))?;
    key_source::read(&source, voice).await.map(Arc::new)
}

/// A running key's file.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read_key(path: &Path) -> Result<Arc<KeyEncryptionKey>, Failure> {
    let text = secret_file::read(path, "the key file")?;
    KeyEncryptionKey::parse(&text)
        .map(Arc::new)
        .map_err(|error| Failure::new(format!("the key file cannot be used: {error}")))
}

/// The public half of the recovery key, if the configuration names its file.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn recovery_public(config: &Config) -> Result<Option<RecoveryPublicKey>, Failure> {
    let Some(path) = &config.keys.recovery_public_file else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("{} cannot be read: {error}", path.display())))?;
    RecoveryPublicKey::parse(&text)
        .map(Some)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

/// Which database the vault is in.
///
/// # Errors
/// When the configuration's address cannot be used.
pub(crate) fn database(config: &Config) -> Result<Database, Failure> {
    config
        .database()
        .map_err(|error| Failure::new(error.to_string()))
}

/// The database whose address a file holds; the one in the data folder when none is named.
///
/// # Errors
/// When the file cannot be read, or holds no address.
pub(crate) fn database_in(file: Option<&Path>) -> Result<Database, Failure> {
    let Some(file) = file else {
        return Ok(Database::Embedded);
    };
    let text = secret_file::read_word(file, "the file of the database's address")?;
    let address: Result<PostgresAddress, _> = text.parse();
    address
        .map(Database::Postgres)
        .map_err(|error| Failure::new(error.to_string()))
}

/// Looks into the vault of a configuration, beside a running server too. Nothing can be changed.
///
/// # Errors
/// When there is none, it does not open, or its schema is of an earlier program.
pub(crate) async fn look(config: &Config, voice: Voice) -> Result<Escrow, Failure> {
    let folder = &config.data.folder;
    let failed = |error: escrow::Error| Failure::new(error.to_string());
    let database = database(config)?;
    match Escrow::status(folder, database.clone(), &*server::lifecycle::clock())
        .await
        .map_err(failed)?
    {
        Some(status) if status.pending.is_empty() => {}
        Some(_) => {
            return Err(Failure::new("the vault's schema is of an earlier program")
                .hint("`lockwarden db migrate` brings it up to date; `serve` does so too"));
        }
        None => {
            return Err(
                Failure::new(format!("there is no vault in {}", database.place(folder)))
                    .hint("`lockwarden init` makes one"),
            );
        }
    }
    Escrow::look(Opening {
        folder,
        database,
        kind: DataKind::Production,
        key: key(config, voice).await?,
        recovery: None,
        clock: server::lifecycle::clock(),
        random: server::lifecycle::random(),
    })
    .await
    .map_err(failed)
}

/// Opens the vault of a configuration; the folder is locked until it is closed.
///
/// # Errors
/// When it is in use, or does not open.
pub(crate) async fn open(config: &Config, voice: Voice) -> Result<Escrow, Failure> {
    Escrow::open(Opening {
        folder: &config.data.folder,
        database: database(config)?,
        kind: DataKind::Production,
        key: key(config, voice).await?,
        recovery: recovery_public(config)?,
        clock: server::lifecycle::clock(),
        random: server::lifecycle::random(),
    })
    .await
    .map_err(|error| Failure::new(error.to_string()))
}
