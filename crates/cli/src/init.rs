//! `lockwarden init`: a configuration, keys, an empty vault, the first organisation and the first token.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use escrow::meta::DataKind;
use escrow::people::Login;
use escrow::principals::SecretText;
use escrow::{Escrow, Opening};
use seal::{KeyEncryptionKey, Password, RecoveryKey};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::owner::Owner;
use crate::private_file::PrivateFile;
use crate::voice::{DONE, Failure, Outcome, Voice};
use crate::{local, machine, private_file, prompt};

/// Make a configuration, the keys, an empty vault, the first organisation and its first token
///
/// The recovery key is shown once, here: it opens every code when the server and its key file are gone. Keep it offline, on
/// paper or on a medium in a safe, and nowhere on this machine. Nothing that exists is overwritten.
#[derive(Args)]
pub(crate) struct InitArgs {
    /// The name of your organisation: Apple is given it with every unlock
    #[arg(long, value_name = "NAME")]
    organisation: String,
    /// The folder for the configuration and the key file; made when it is not there
    #[arg(long, value_name = "FOLDER", default_value = "/etc/lockwarden")]
    folder: PathBuf,
    /// The folder for the data; made when it is not there
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/lockwarden")]
    data: PathBuf,
    /// The file that holds the address of a PostgreSQL database, for a vault that is not in the folder for the data
    #[arg(long, value_name = "FILE")]
    database_file: Option<PathBuf>,
    /// Write the recovery key to this file (mode 0600), on a medium that you take away, instead of showing it
    #[arg(long, value_name = "FILE")]
    recovery_key_file: Option<PathBuf>,
    /// Write the first token, which may do everything, to this file (mode 0600) instead of showing it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The first person, by the name to sign in with: every role but break-glass. Then no token is made unless --token-file is given
    #[arg(long, value_name = "LOGIN")]
    login: Option<Login>,
    /// The first person's name, as it stands on the record and goes to Apple as who asked
    #[arg(long, value_name = "NAME", requires = "login")]
    name: Option<String>,
    /// The file that holds the first person's password; - is standard input. Otherwise it is asked for at the terminal
    #[arg(long, value_name = "FILE", requires = "login")]
    password_file: Option<PathBuf>,
}

/// The most characters of an organisation's name, as in the API.
const LONGEST_NAME: usize = 200;

/// What was made. The keys of JSON output.
#[derive(Serialize)]
struct Made<'a> {
    config: &'a Path,
    key_file: &'a Path,
    recovery_public_file: &'a Path,
    data: &'a Path,
    organisation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    person: Option<&'a str>,
}

/// Runs the command.
pub(crate) async fn run(args: InitArgs, voice: Voice) -> Outcome {
    let name = args.organisation.trim();
    let fits = !name.is_empty() && name.chars().count() <= LONGEST_NAME;
    if !fits || name.chars().any(server::misleads) {
        return Err(Failure::usage(format!(
            "the organisation's name is empty, longer than {LONGEST_NAME} characters, or holds control characters"
        ))
        .hint("Apple is given it with every unlock; write it as it is known there"));
    }
    let first = FirstPerson::asked(&args)?;
    make_folder(&args.folder)?;
    let folder = absolute(&args.folder)?;
    let data = absolute(&args.data)?;
    let database = local::database_in(args.database_file.as_deref())?;
    let database_file = args.database_file.as_deref().map(absolute).transpose()?;
    let config = folder.join("lockwarden.toml");
    let key_file = folder.join("key");
    let recovery_public_file = folder.join("recovery-key.pub");
    // What cannot be made is found out before anything is.
    for path in [&config, &key_file, &recovery_public_file]
        .into_iter()
        .chain(&args.recovery_key_file)
        .chain(&args.token_file)
    {
        if path.exists() {
            return Err(
                Failure::new(format!("{} is there already", path.display()))
                    .hint("nothing is overwritten: a key that is lost takes the codes with it. Name another folder, or move the old files away if no vault needs them"),
            );
        }
    }
    if let Ok(Some(status)) =
        Escrow::status(&data, database.clone(), &*server::lifecycle::clock()).await
    {
        return Err(Failure::new(format!(
            "{} holds a {} vault already",
            args.database_file.as_deref().unwrap_or(&data).display(),
            status.kind
        ))
        .hint("it opens with its own key file alone; name another data folder for a new vault"));
    }

    let random = machine::random();
    let key = KeyEncryptionKey::generate(&random);
    let recovery = RecoveryKey::generate(&random);
    let recovery_text = recovery.to_text();
    // All of them are made before there is a vault: what cannot be made must not leave one behind that nobody opens.
    let mut files = Files::default();
    files.make(&key_file)?.write_line(&key.to_file_text())?;
    files
        .make(&recovery_public_file)?
        .write_line(&recovery.public().to_text())?;
    files.make(&config)?.write_line(&configuration(
        &data,
        database_file.as_deref(),
        &key_file,
        &recovery_public_file,
    ))?;
    if let Some(path) = &args.recovery_key_file {
        files.make(path)?.write_line(&recovery_text)?;
    }
    if let Some(path) = &args.token_file {
        files.make(path)?;
    }

    let escrow = Escrow::open(Opening {
        folder: &data,
        database,
        kind: DataKind::Production,
        key: Arc::new(key),
        recovery: Some(recovery.public().clone()),
        clock: server::lifecycle::clock(),
        random,
    })
    .await
    .map_err(|error| Failure::new(error.to_string()))?;
    let wants_token = first.is_none() || args.token_file.is_some();
    let begun = begin(&escrow, name, first.as_ref(), wants_token).await;
    escrow.close().await;
    let unfinished = |failure: Failure| {
        failure.hint(format!(
            "the vault in {} is empty and its key is gone: remove it before you try again",
            data.display()
        ))
    };
    let token = begun.map_err(|error| unfinished(Failure::new(error)))?;
    if let (Some(_), Some(token)) = (&args.token_file, &token) {
        let file = files.0.last_mut().expect("it was made last");
        file.write_line(token.expose()).map_err(unfinished)?;
    }

    let made = Made {
        config: &config,
        key_file: &key_file,
        recovery_public_file: &recovery_public_file,
        data: &data,
        organisation: name,
        recovery_key: args.recovery_key_file.is_none().then_some(&recovery_text),
        token: token
            .as_ref()
            .filter(|_| args.token_file.is_none())
            .map(SecretText::expose),
        person: first.as_ref().map(|first| first.login.as_str()),
    };
    voice
        .data(&made, || {
            let mut lines = vec![
                format!("configuration  {}", config.display()),
                format!("key file       {}", key_file.display()),
                format!("data           {}", data.display()),
            ];
            lines.extend(made.person.map(|login| format!("first person   {login}")));
            lines.extend(made.token.map(|token| format!("token          {token}")));
            lines.extend(made.recovery_key.map(|key| format!("recovery key   {key}")));
            lines.join("\n")
        })
        .map_err(unfinished)?;
    files.keep();
    voice.talk(
        "Keep the recovery key offline and nowhere on this machine: with it the codes outlive this server. \
         It and the token are not shown again.",
    );
    if let Some(login) = made.person {
        voice.talk(format!(
            "Once the server runs: `lockwarden sign-in {login} --url ...`, then `lockwarden second-factor`."
        ));
    }
    voice.talk(format!(
        "Next: look through {}, then `lockwarden doctor --config {0}` and `lockwarden serve --config {0}`. \
         `lockwarden key recovery-check` shows that the recovery key opens this vault.",
        config.display()
    ));
    Ok(DONE)
}

/// The files made so far. They are taken away again unless they are kept.
#[derive(Default)]
struct Files(Vec<PrivateFile>);

impl Files {
    fn make(&mut self, path: &Path) -> Result<&mut PrivateFile, Failure> {
        self.0.push(private_file::create(path)?);
        Ok(self.0.last_mut().expect("it was just added"))
    }

    fn keep(self) {
        self.0.into_iter().for_each(PrivateFile::keep);
    }
}

/// Who is first: the only one whom nobody invites.
struct FirstPerson {
    login: Login,
    name: String,
    password: Zeroizing<String>,
}

impl FirstPerson {
    /// Before anything is made, so that a password that will not do leaves nothing behind.
    fn asked(args: &InitArgs) -> Result<Option<Self>, Failure> {
        let Some(login) = args.login.clone() else {
            return Ok(None);
        };
        let password = prompt::new_password(args.password_file.as_deref(), "--password-file")?;
        Password::new(password.clone()).map_err(|error| Failure::usage(error.to_string()))?;
        let name = args.name.clone().unwrap_or_else(|| login.to_string());
        if name.trim().is_empty()
            || name.chars().count() > LONGEST_NAME
            || name.chars().any(server::misleads)
        {
            return Err(Failure::usage(
                "the person's name is empty, too long, or holds control characters",
            ));
        }
        Ok(Some(Self {
            login,
            name,
            password,
        }))
    }
}

/// Makes the organisation, and who or what may act first.
async fn begin(
    escrow: &Escrow,
    organisation: &str,
    first: Option<&FirstPerson>,
    wants_token: bool,
) -> Result<Option<SecretText>, String> {
    let failed = |error: escrow::Error| error.to_string();
    let owner = Owner::new(escrow, "init", organisation)
        .await
        .map_err(failed)?;
    if let Some(first) = first {
        let password = Password::new(first.password.clone()).map_err(|error| error.to_string())?;
        owner
            .person(&first.login, &first.name, password)
            .await
            .map_err(|error| error.to_string())?;
    }
    if !wants_token {
        return Ok(None);
    }
    owner.token("first token").await.map(Some).map_err(failed)
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| {
            Failure::new(format!("{} cannot be made: {error}", path.display()))
                .hint("--folder and --data name other folders")
        })
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

fn configuration(
    data: &Path,
    database: Option<&Path>,
    key: &Path,
    recovery_public: &Path,
) -> String {
    let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    let address_file = match database {
        Some(path) => format!("address_file = {}", quoted(path)),
        None => "# address_file = \"/etc/lockwarden/database\"".to_owned(),
    };
    format!(
        r#"# Lockwarden's configuration: this process alone. What belongs to an organisation is kept in the vault, and set with
# `lockwarden mdm` (MDM connections), `push-certificate`, `dep` (server tokens), `business-api` (the API account) and
# `organisations` (policies).

[listen]
address = "127.0.0.1:8443"
# MDMs and people reach it by TLS: give a certificate with its chain and its key (PEM). SIGHUP reads them anew.
# certificate_file = "/etc/lockwarden/tls.pem"
# key_file = "/etc/lockwarden/tls.key"
# Or a proxy of yours ends TLS in front of it. It must name the client in X-Forwarded-For.
# trusted_proxy = true
# How MDMs and people reach it, when that is not the address above.
# public_url = "https://lockwarden.example.org"

[data]
folder = {data}

[database]
# The vault is in the data folder, unless a file holds the address of a PostgreSQL database (docs/SCALING.md):
# postgres://user:password@host/database
{address_file}

[keys]
# Wraps the keys in the vault. Back it up apart from the data. Instead of a file: the systemd credential `lockwarden-key`, or one
# of the two below (docs/KEYS.md).
key_file = {key}
# The public half of the recovery key; the other half is with you, offline.
recovery_public_file = {recovery_public}

[log]
# text or json; error, warn, info, debug, trace, or a filter such as "info,server=debug".
format = "text"
level = "info"

[apple]
# Authorities (PEM) to believe beside the public ones, should Apple's service need one (unverified).
# ca_file = "/etc/lockwarden/apple-ca.pem"
timeout_seconds = 60
# How long after a lock or an unlock Apple's own status is waited for to agree (unverified: Apple does not say how fast it is).
status_settles_minutes = 15
# How often that status is read of a device that nothing happens to; and how often the lists of the enrolment service are read.
status_sweep_days = 30
list_minutes = 60

[mdm]
# ca_file = "/etc/lockwarden/mdm-ca.pem"
timeout_seconds = 30

[work]
# Unlocks and locks worked on at once, and calls to Apple a second. Apple's own limits are not known.
in_flight = 8
calls_per_second = 5.0

[audit]
# Where the audit record goes outside, so that whoever edits the database cannot cut off its end unseen: signed checkpoints at
# least once a minute, and its rows as they are written. Best is a place where this machine can add and not change.
# checkpoint_file = "/var/log/lockwarden/checkpoints"
# checkpoint_webhook = "https://logs.example.org/lockwarden"
# syslog = "/dev/log"
# stream_file = "/var/log/lockwarden/audit"
# stream_syslog = true

[sign_in]
# How long people stay signed in without doing anything, and at most; and whether they need a second factor.
idle_minutes = 60
longest_hours = 12
second_factor = true

# People may sign in at a provider of identities (OpenID Connect), whose groups give them roles: docs/PEOPLE.md.
# [single_sign_on]
# issuer = "https://id.example.org"
# client_id = "lockwarden"
# client_secret_file = "/etc/lockwarden/oidc.secret"
# [[single_sign_on.groups]]
# name = "mdm-service-desk"
# organisation = "Example School"
# roles = ["viewer", "operator"]

[process]
# Codes and keys are in memory: core dumps are off and debuggers are kept away, unless you need them.
core_dumps = false
"#,
        data = quoted(data),
        key = quoted(key),
        recovery_public = quoted(recovery_public),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use server::config::Config;

    #[test]
    fn what_is_written_is_a_configuration() {
        let folder = Path::new("/a \"folder\"");
        let text = configuration(folder, None, Path::new("/k"), Path::new("/r"));
        let config: Config = toml::from_str(&text).unwrap();
        assert_eq!(config.data.folder, folder);
        config.settings().unwrap();
        for command in [
            "mdm",
            "push-certificate",
            "dep",
            "business-api",
            "organisations",
        ] {
            let told = text.lines().take(4).any(|line| {
                line.contains(&format!("`{command}`"))
                    || line.contains(&format!("`lockwarden {command}`"))
            });
            assert!(told, "{command}");
        }
        // What is commented out works too, but for the files that are not there.
        let all: String = text
            .lines()
            .map(|line| {
                let option = line.strip_prefix("# ").filter(|rest| {
                    let is_option = |(key, _): (&str, &str)| !key.contains(' ');
                    rest.starts_with('[') || rest.split_once(" = ").is_some_and(is_option)
                });
                format!("{}\n", option.unwrap_or(line))
            })
            .collect();
        let all = toml::from_str::<Config>(&all).unwrap();
        assert_eq!(all.single_sign_on.unwrap().groups[0].roles.len(), 2);
    }
}
