//! The process configuration: one TOML file, for this process alone (listener, data, keys, log, Apple's address). What
//! replicas and the console share, such as MDM connections, are rows in the vault.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use activation_lock::time::DAY;
use apple::business_manager::BusinessSettings;
use apple::dep::DepSettings;
use apple::escrow_key_unlock::UnlockSettings;
use apple::transport::{
    Endpoint, EndpointError, ExtraAuthorities, ExtraAuthoritiesError, Origin, OriginError, Timeouts,
};
use escrow::lock_statuses::StatusSettings;
use escrow::pace::Rate;
use escrow::permit::Role;
use escrow::sessions::Rules;
use escrow::{BadAddress, Database, PostgresAddress, Weakness};
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use crate::outside::{Outside, SyslogError};
use crate::settings::{Settings, TlsFiles};
use crate::telemetry::LogFormat;

/// The whole file. Unknown keys are refused: a misspelt one would be silently without effect.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[listen]`
    #[serde(default)]
    pub listen: Listen,
    /// `[data]`
    pub data: Data,
    /// `[database]`
    #[serde(default)]
    pub database: DatabasePlace,
    /// `[keys]`
    #[serde(default)]
    pub keys: Keys,
    /// `[log]`
    #[serde(default)]
    pub log: Log,
    /// `[apple]`
    #[serde(default)]
    pub apple: Apple,
    /// `[mdm]`
    #[serde(default)]
    pub mdm: Mdm,
    /// `[work]`
    #[serde(default)]
    pub work: Work,
    /// `[audit]`
    #[serde(default)]
    pub audit: Audit,
    /// `[sign_in]`
    #[serde(default)]
    pub sign_in: SignIn,
    /// `[single_sign_on]`
    pub single_sign_on: Option<SingleSignOn>,
    /// `[process]`
    #[serde(default)]
    pub process: Process,
}

/// `[listen]`: where it is reached.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Address and port.
    pub address: SocketAddr,
    /// PEM, with the chain.
    pub certificate_file: Option<PathBuf>,
    /// PEM, not encrypted.
    pub key_file: Option<PathBuf>,
    /// A proxy of yours ends TLS in front, and names the client in `X-Forwarded-For`.
    pub trusted_proxy: bool,
    /// Where people and MDMs reach it.
    pub public_url: Option<Url>,
    /// How long it goes on serving after it was asked to end, while `/readyz` says that it is going to: longer than a load balancer
    /// takes to notice. At most 600.
    pub leave_seconds: u64,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8443)),
            certificate_file: None,
            key_file: None,
            trusted_proxy: false,
            public_url: None,
            leave_seconds: 0,
        }
    }
}

/// `[data]`: where the vault is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The data folder.
    pub folder: PathBuf,
}

/// `[database]`: a PostgreSQL server, where the database is not in the data folder. See `docs/SCALING.md`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabasePlace {
    /// Its address, without a password.
    pub address: Option<String>,
    /// The file that holds its address, with the password.
    pub address_file: Option<PathBuf>,
    /// The ways of losing what was acknowledged that are put up with, by name: `fsync`, `synchronous_commit`, `full_page_writes`,
    /// `asynchronous_standby`.
    pub allow: Vec<String>,
}

/// `[keys]`: what opens it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keys {
    /// The running key's file. Without it and the two others, the systemd credential `lockwarden-key`.
    pub key_file: Option<PathBuf>,
    /// A file of `NAME=value` lines, one of them `LOCKWARDEN_KEY=...`, as systemd's `EnvironmentFile` has them. It is read from there,
    /// and never taken from the process's environment, which others may see (R23).
    pub key_environment_file: Option<PathBuf>,
    /// A program with its arguments that unwraps the running key: see `docs/KEYS.md`.
    pub key_command: Option<Vec<String>>,
    /// What that program is given: the running key, wrapped.
    pub wrapped_key_file: Option<PathBuf>,
    /// The public half of the recovery key (R25); needed when the database is made.
    pub recovery_public_file: Option<PathBuf>,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `text` or `json`.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}

/// `[apple]`: where Apple is.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Apple {
    /// Scheme, host and port of another address of the unlock service than Apple's own, such as a fake's.
    pub url: Option<String>,
    /// The same of the device enrolment service.
    pub enrolment_url: Option<String>,
    /// The same of the API of Apple Business Manager.
    pub business_url: Option<String>,
    /// The same of the API of Apple School Manager.
    pub school_url: Option<String>,
    /// Another address than Apple's own where access tokens for these two are given, with its path.
    pub token_url: Option<String>,
    /// Authorities to believe beside the public ones, PEM.
    pub ca_file: Option<PathBuf>,
    /// Time-out of a whole call, seconds.
    pub timeout_seconds: u64,
    /// How long after a lock or an unlock Apple's status is waited for to agree, minutes.
    pub status_settles_minutes: u64,
    /// How often Apple's status of a device is read that nothing happens to, days.
    pub status_sweep_days: u64,
    /// How often the lists of the device enrolment service are read, minutes.
    pub list_minutes: u64,
}

impl Default for Apple {
    fn default() -> Self {
        Self {
            url: None,
            enrolment_url: None,
            business_url: None,
            school_url: None,
            token_url: None,
            ca_file: None,
            timeout_seconds: 60,
            status_settles_minutes: 15,
            status_sweep_days: 30,
            list_minutes: 60,
        }
    }
}

/// `[mdm]`: how MDMs are called.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mdm {
    /// Authorities to believe beside the public ones, PEM.
    pub ca_file: Option<PathBuf>,
    /// Time-out of a whole call, seconds.
    pub timeout_seconds: u64,
}

impl Default for Mdm {
    fn default() -> Self {
        Self {
            ca_file: None,
            timeout_seconds: 30,
        }
    }
}

/// `[work]`: how much at once.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Work {
    /// Unlocks worked on at once, at least 2.
    pub in_flight: u32,
    /// Calls to Apple a second; 0 for no limit.
    pub calls_per_second: f64,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            in_flight: 8,
            calls_per_second: 5.0,
        }
    }
}

/// `[audit]`: where the record goes outside.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// A file that gets a line a checkpoint, at least once a minute. It belongs where whoever edits the database cannot write.
    pub checkpoint_file: Option<PathBuf>,
    /// An address that each checkpoint is posted to: https, or http on this machine.
    pub checkpoint_webhook: Option<String>,
    /// A syslog that gets each checkpoint: the path of a socket such as `/dev/log`, or `udp://HOST:PORT`.
    pub syslog: Option<String>,
    /// A file that gets a line of JSON a row, in the order of the chain. It is opened anew for each few: one that was rotated away
    /// is begun again, without a signal.
    pub stream_file: Option<PathBuf>,
    /// The syslog gets the rows too.
    pub stream_syslog: bool,
}

/// `[sign_in]`: how long people stay signed in, and what it takes.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SignIn {
    /// A session that was not used for so long has ended, minutes.
    pub idle_minutes: u64,
    /// A session ends after that, used or not, hours.
    pub longest_hours: u64,
    /// People need a second factor before they may do anything else.
    pub second_factor: bool,
}

impl Default for SignIn {
    fn default() -> Self {
        Self {
            idle_minutes: 60,
            longest_hours: 12,
            second_factor: true,
        }
    }
}

/// `[single_sign_on]`: who vouches for people, by OpenID Connect.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SingleSignOn {
    /// The provider's address, as it calls itself: https, or http on this machine.
    pub issuer: String,
    /// What we are called there.
    pub client_id: String,
    /// A file with the secret that goes with it; none for a public client.
    pub client_secret_file: Option<PathBuf>,
    /// What is asked for beside `openid`.
    #[serde(default = "usual_scopes")]
    pub scopes: Vec<String>,
    /// The claim that is the name to sign in with.
    #[serde(default = "usual_login")]
    pub login_claim: String,
    /// The claim that lists groups.
    #[serde(default = "usual_groups")]
    pub groups_claim: String,
    /// Ways of proving oneself (`amr`) of which one must have been used; without them the provider decides.
    #[serde(default)]
    pub methods: Vec<String>,
    /// `[[single_sign_on.groups]]`: what groups give.
    pub groups: Vec<Group>,
}

fn usual_scopes() -> Vec<String> {
    ["profile", "email", "groups"].map(str::to_owned).to_vec()
}

fn usual_login() -> String {
    "preferred_username".to_owned()
}

fn usual_groups() -> String {
    "groups".to_owned()
}

/// `[[single_sign_on.groups]]`: what a group gives.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The group, as the provider writes it.
    pub name: String,
    /// The organisation, by name; all of them without one.
    pub organisation: Option<String>,
    /// The roles.
    pub roles: Vec<Role>,
}

/// `[process]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// Let the system write core dumps and debuggers attach. Codes are in them.
    pub core_dumps: bool,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// Not the TOML that is expected.
    #[error("{} is not a configuration of this version: line {line}: {says}", path.display())]
    Toml {
        /// Which.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What. Repeats no value: a key may have been put there instead of its file's name.
        says: String,
    },
    /// One of certificate and key is missing.
    #[error("[listen] names only one of certificate_file and key_file; TLS needs both")]
    HalfTls,
    /// An address of Apple's.
    #[error("[apple] {key}: {error}")]
    AppleUrl {
        /// Which.
        key: &'static str,
        /// What is wrong.
        error: OriginError,
    },
    /// Where access tokens are given.
    #[error("[apple] token_url: {0}")]
    TokenUrl(EndpointError),
    /// A span of time that is none.
    #[error("[apple] {0} must be 1 to 10000")]
    Span(&'static str),
    /// A file of authorities.
    #[error("{}: {error}", path.display())]
    Authorities {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        error: ExtraAuthoritiesError,
    },
    /// The public address.
    #[error(
        "[listen] public_url must be https://HOST or http://HOST, with neither user name nor query"
    )]
    PublicUrl,
    /// Fewer than two unlocks at once.
    #[error("[work] in_flight must be at least 2: one place is always left for an urgent unlock")]
    InFlight,
    /// A negative rate.
    #[error("[work] calls_per_second must be 0 (no limit) or a positive number")]
    Pace,
    /// A time-out that leaves no time.
    #[error("timeout_seconds must be 1 to 600")]
    Timeout,
    /// Where checkpoints are posted to.
    #[error("[audit] checkpoint_webhook: {0}")]
    CheckpointWebhook(EndpointError),
    /// A syslog.
    #[error("[audit] syslog: {0}")]
    Syslog(SyslogError),
    /// Rows for a syslog that is not named.
    #[error("[audit] stream_syslog needs syslog, which names where it listens")]
    NoSyslog,
    /// The provider's address.
    #[error("[single_sign_on] issuer: {0}")]
    Issuer(EndpointError),
    /// A provider that this build has no use for.
    #[error("[single_sign_on] is there, and this program was built without the feature `oidc`")]
    NoSingleSignOn,
    /// No address of a database.
    #[error("[database] {0}")]
    Database(BadAddress),
    /// Both `address` and `address_file`.
    #[error("[database] names the database in two ways: keep one of address and address_file")]
    TwoAddresses,
    /// A password where others may read it.
    #[error(
        "[database] address holds a password: put it into a file that only lockwarden may read, and name that as address_file"
    )]
    OpenPassword,
    /// Not the name of a weakness.
    #[error(
        "[database] allow takes fsync, synchronous_commit, full_page_writes and asynchronous_standby"
    )]
    Allow,
    /// No key is named.
    #[error(
        "no key is named: give key_file under [keys], or the systemd credential `lockwarden-key`"
    )]
    NoKey,
    /// More than one place for it.
    #[error(
        "[keys] names the running key in more than one way: keep one of key_file, key_environment_file and key_command"
    )]
    TwoKeys,
    /// A program without what it unwraps, or the reverse.
    #[error(
        "[keys] key_command and wrapped_key_file belong together: the program unwraps what is in the file"
    )]
    HalfKeyCommand,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it cannot be read, or is not as it should be.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        let text = String::from_utf8_lossy(&text);
        Self::parse(&text).map_err(|(line, says)| ConfigError::Toml {
            path: path.to_owned(),
            line,
            says,
        })
    }

    /// Reads the text of a file; else gives the line and what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, (usize, String)> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.bytes().take(start);
            let line = 1 + before.filter(|byte| *byte == b'\n').count();
            let message = error.message();
            let repeats_a_value = ["invalid type", "invalid value", "unknown variant"]
                .iter()
                .any(|kind| message.starts_with(kind));
            let says = match message.rsplit_once(", expected ") {
                Some((_, expected)) if repeats_a_value => format!("expected {expected}"),
                // Whatever else repeats a value puts it in quotes.
                _ => {
                    let words = message.split('"').next().unwrap_or_default();
                    words.trim_end_matches([':', ' ']).to_owned()
                }
            };
            (line, says)
        })
    }

    /// How the server runs. Reads the files of authorities that it names.
    ///
    /// # Errors
    /// When a value cannot be used, or a file cannot be read.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        let tls = match (&self.listen.certificate_file, &self.listen.key_file) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            (None, None) => None,
            _ => return Err(ConfigError::HalfTls),
        };
        if self.listen.public_url.as_ref().is_some_and(|url| {
            !matches!(url.scheme(), "http" | "https")
                || url.host().is_none()
                || !url.username().is_empty()
                || url.query().is_some()
                || url.fragment().is_some()
        }) {
            return Err(ConfigError::PublicUrl);
        }
        if self.work.in_flight < 2 {
            return Err(ConfigError::InFlight);
        }
        if !(self.work.calls_per_second.is_finite() && self.work.calls_per_second >= 0.0) {
            return Err(ConfigError::Pace);
        }
        let seconds = |seconds: u64| match seconds {
            1..=600 => Ok(Duration::from_secs(seconds)),
            _ => Err(ConfigError::Timeout),
        };
        let overall = seconds(self.apple.timeout_seconds)?;
        let timeouts = Timeouts {
            overall,
            connect: Timeouts::default().connect.min(overall),
        };
        let believed = authorities(self.apple.ca_file.as_deref())?;
        let origin = |key: &'static str, url: &Option<String>, own: Origin| match url {
            Some(url) => url
                .parse::<Origin>()
                .map_err(|error| ConfigError::AppleUrl { key, error }),
            None => Ok(own),
        };
        let defaults = BusinessSettings::default();
        let business = BusinessSettings {
            business_origin: origin(
                "business_url",
                &self.apple.business_url,
                defaults.business_origin,
            )?,
            school_origin: origin("school_url", &self.apple.school_url, defaults.school_origin)?,
            token_url: match &self.apple.token_url {
                Some(url) => url.parse().map_err(ConfigError::TokenUrl)?,
                None => defaults.token_url,
            },
            audience: defaults.audience,
            authorities: believed.clone(),
            timeouts,
        };
        let enrolment = DepSettings {
            origin: origin(
                "enrolment_url",
                &self.apple.enrolment_url,
                DepSettings::default().origin,
            )?,
            authorities: believed.clone(),
            timeouts,
        };
        let apple = UnlockSettings {
            origin: origin("url", &self.apple.url, UnlockSettings::default().origin)?,
            authorities: believed,
            timeouts,
        };
        let span = |key: &'static str, count: u64, unit: Duration| match count {
            1..=10_000 => Ok(unit * u32::try_from(count).unwrap_or(u32::MAX)),
            _ => Err(ConfigError::Span(key)),
        };
        let minute = Duration::from_secs(60);
        let statuses = StatusSettings {
            settles_in: span(
                "status_settles_minutes",
                self.apple.status_settles_minutes,
                minute,
            )?,
            sweep_every: span("status_sweep_days", self.apple.status_sweep_days, DAY)?,
        };
        let sign_in = Rules {
            idle: span("idle_minutes", self.sign_in.idle_minutes, minute)?,
            longest: span("longest_hours", self.sign_in.longest_hours, minute * 60)?,
            second_factor: self.sign_in.second_factor,
        };
        let list_every = span("list_minutes", self.apple.list_minutes, minute)?;
        let allow = self.database.allow.iter();
        let allow = allow.map(|name| Weakness::from_name(name).ok_or(ConfigError::Allow));
        Ok(Settings {
            serves: true,
            works: true,
            leave: Duration::from_secs(self.listen.leave_seconds.min(600)),
            allowed_weaknesses: allow.collect::<Result<_, _>>()?,
            tls,
            trusted_proxy: self.listen.trusted_proxy,
            public_url: self.listen.public_url.clone(),
            apple,
            enrolment,
            business,
            statuses,
            list_every,
            mdm_authorities: authorities(self.mdm.ca_file.as_deref())?,
            mdm_timeout: seconds(self.mdm.timeout_seconds)?,
            outside: self.outside()?,
            sign_in,
            single_sign_on: self.single_sign_on()?,
            in_flight: self.work.in_flight,
            pace: Rate::per_second(self.work.calls_per_second),
            ..Settings::new(self.listen.address)
        })
    }

    fn single_sign_on(&self) -> Result<Option<crate::SingleSignOn>, ConfigError> {
        let Some(given) = &self.single_sign_on else {
            return Ok(None);
        };
        if !cfg!(feature = "oidc") {
            return Err(ConfigError::NoSingleSignOn);
        }
        let _: Endpoint = given.issuer.parse().map_err(ConfigError::Issuer)?;
        let groups = given.groups.iter().map(|group| crate::Group {
            name: group.name.clone(),
            organisation: group.organisation.clone(),
            roles: group.roles.clone(),
        });
        Ok(Some(crate::SingleSignOn {
            issuer: given.issuer.clone(),
            client_id: given.client_id.clone(),
            client_secret_file: given.client_secret_file.clone(),
            scopes: given.scopes.clone(),
            login_claim: given.login_claim.clone(),
            groups_claim: given.groups_claim.clone(),
            methods: given.methods.clone(),
            groups: groups.collect(),
        }))
    }

    fn outside(&self) -> Result<Outside, ConfigError> {
        let audit = &self.audit;
        let webhook = audit.checkpoint_webhook.as_deref().map(str::parse);
        let syslog = audit.syslog.as_deref().map(str::parse);
        if audit.stream_syslog && audit.syslog.is_none() {
            return Err(ConfigError::NoSyslog);
        }
        Ok(Outside {
            checkpoint_file: audit.checkpoint_file.clone(),
            checkpoint_webhook: webhook
                .transpose()
                .map_err(ConfigError::CheckpointWebhook)?,
            syslog: syslog.transpose().map_err(ConfigError::Syslog)?,
            stream_file: audit.stream_file.clone(),
            stream_syslog: audit.stream_syslog,
        })
    }

    /// Which database the vault is in. Reads the file that holds its address, if one does.
    ///
    /// # Errors
    /// When the address cannot be used, or the file cannot be read.
    pub fn database(&self) -> Result<Database, ConfigError> {
        let place = &self.database;
        let address: PostgresAddress = match (&place.address, &place.address_file) {
            (None, None) => return Ok(Database::Embedded),
            (Some(_), Some(_)) => return Err(ConfigError::TwoAddresses),
            (Some(text), None) => {
                let address: PostgresAddress = text.parse().map_err(ConfigError::Database)?;
                if address.has_password() {
                    return Err(ConfigError::OpenPassword);
                }
                address
            }
            (None, Some(path)) => {
                let text = Zeroizing::new(read(path)?);
                let text = String::from_utf8_lossy(&text);
                text.trim().parse().map_err(ConfigError::Database)?
            }
        };
        Ok(Database::Postgres(address))
    }

    /// Where the running key is: the one place that is named, or the systemd credential `lockwarden-key` in the folder that
    /// `credentials` gives (`$CREDENTIALS_DIRECTORY`).
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn key_source(&self, credentials: Option<&Path>) -> Result<KeySource, ConfigError> {
        let keys = &self.keys;
        let file = keys.key_file.clone().map(KeySource::File);
        let environment = keys
            .key_environment_file
            .clone()
            .map(KeySource::EnvironmentFile);
        let command = match (&keys.key_command, &keys.wrapped_key_file) {
            (Some(command), Some(wrapped)) if !command.is_empty() => Some(KeySource::Command {
                command: command.clone(),
                wrapped: wrapped.clone(),
            }),
            (None, None) => None,
            _ => return Err(ConfigError::HalfKeyCommand),
        };
        let mut named = [file, environment, command].into_iter().flatten();
        match (named.next(), named.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(ConfigError::TwoKeys),
            (None, _) => credentials
                .map(|folder| folder.join("lockwarden-key"))
                .filter(|path| path.exists())
                .map(KeySource::File)
                .ok_or(ConfigError::NoKey),
        }
    }
}

/// Where the running key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file that holds it.
    File(PathBuf),
    /// A file of `NAME=value` lines, one of them `LOCKWARDEN_KEY=...`.
    EnvironmentFile(PathBuf),
    /// A program that unwraps it.
    Command {
        /// The program and its arguments; `unwrap` is added.
        command: Vec<String>,
        /// The file of what it is given on standard input.
        wrapped: PathBuf,
    },
}

fn authorities(path: Option<&Path>) -> Result<ExtraAuthorities, ConfigError> {
    let Some(path) = path else {
        return Ok(ExtraAuthorities::default());
    };
    ExtraAuthorities::from_pem(&read(path)?).map_err(|error| ConfigError::Authorities {
        path: path.to_owned(),
        error,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| ConfigError::Read {
        path: path.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests;
