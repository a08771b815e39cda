//! Where the database is: in the data folder, or on a PostgreSQL server.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use thiserror::Error;
use url::{Host, Url};

/// How many connections a process has to a server when nothing else is said.
const CONNECTIONS: usize = 8;

/// Which database a vault is in.
#[derive(Clone, Debug, Default)]
pub enum Database {
    /// SQLite, in the data folder. One process has it.
    #[default]
    Embedded,
    /// PostgreSQL. Any number of replicas share it, each with a data folder of its own.
    Postgres(PostgresAddress),
}

impl Database {
    /// Where it is, in words; `folder` is the data folder.
    #[must_use]
    pub fn place(&self, folder: &Path) -> String {
        match self {
            Self::Embedded => folder.display().to_string(),
            Self::Postgres(address) => address.to_string(),
        }
    }
}

/// A PostgreSQL database: `postgres://user:password@host:port/database?sslmode=verify-full`. With several hosts, separated by commas,
/// the one that takes writes is used.
///
/// Recognised after the question mark: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `host` for the folder of a socket, and
/// `connections`, how many this process may have at the same time (8; one more waits for news). Without `sslmode`, a server on
/// another machine must prove its name (`verify-full`), and one on this machine is spoken to in the clear.
#[derive(Clone)]
pub struct PostgresAddress {
    servers: Vec<PgConnectOptions>,
    connections: usize,
    has_password: bool,
    shown: String,
}

/// Why a text is no address of a database. Does not repeat the text, which may hold a password.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadAddress {
    /// Another beginning.
    #[error(
        "an address of a PostgreSQL database begins with postgres:// (postgres://user@host/database)"
    )]
    Scheme,
    /// Not a URL.
    #[error("the address of the database cannot be read: {0}")]
    Url(String),
    /// No user or no database in it.
    #[error("the address of the database must name {0}: postgres://user@host/database")]
    Without(&'static str),
    /// A parameter that is not known, or not allowed.
    #[error(
        "the address of the database has a parameter {0}, which is not one of sslmode, sslrootcert, sslcert, sslkey, host, \
         connections"
    )]
    Parameter(String),
    /// A value that a parameter cannot have.
    #[error("the address of the database: {0}")]
    Value(String),
}

impl PostgresAddress {
    /// The servers, in the order given.
    pub(super) fn servers(&self) -> &[PgConnectOptions] {
        &self.servers
    }

    /// How many connections read. One more writes, and commits what stands in line together: several would only get in each other's
    /// way (with four, two of three transactions had to be run again).
    pub(super) fn readers(&self) -> usize {
        self.connections - 1
    }

    /// Whether a password is in it.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.has_password
    }

    /// The servers that are spoken to over a network without proof of who they are.
    #[must_use]
    pub fn unproven(&self) -> Vec<String> {
        let unproven = self.servers.iter().filter(|server| {
            !is_here(server)
                && !matches!(
                    server.get_ssl_mode(),
                    PgSslMode::VerifyCa | PgSslMode::VerifyFull
                )
        });
        unproven
            .map(|server| server.get_host().to_owned())
            .collect()
    }
}

impl FromStr for PostgresAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .ok_or(BadAddress::Scheme)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let mut servers = Vec::new();
        let mut shown = Vec::new();
        let mut connections = CONNECTIONS;
        for host in hosts.split(',') {
            let url = Url::parse(&format!("postgres://{user}@{host}{path}"))
                .map_err(|error| BadAddress::Url(error.to_string()))?;
            let server = server(url, &mut connections)?;
            shown.push(match server.get_socket() {
                Some(socket) => socket.display().to_string(),
                None => format!("{}:{}", server.get_host(), server.get_port()),
            });
            servers.push(server);
        }
        let (name, database) = (
            servers[0].get_username().to_owned(),
            servers[0].get_database().unwrap_or_default().to_owned(),
        );
        let shown = format!("postgres://{name}@{}/{database}", shown.join(","));
        Ok(Self {
            servers,
            connections,
            has_password: user.contains(':'),
            shown,
        })
    }
}

fn server(mut url: Url, connections: &mut usize) -> Result<PgConnectOptions, BadAddress> {
    if url.username().is_empty() {
        return Err(BadAddress::Without("a user"));
    }
    if url.path().trim_start_matches('/').is_empty() {
        return Err(BadAddress::Without("a database"));
    }
    let mut is_said = false;
    let mut theirs = Vec::new();
    for (key, value) in url.query_pairs() {
        match &*key {
            "connections" => {
                *connections = value
                    .parse()
                    .ok()
                    .filter(|count| (2..=100).contains(count))
                    .ok_or_else(|| {
                        BadAddress::Value("connections is a number from 2 to 100".to_owned())
                    })?;
                continue;
            }
            "sslmode" => is_said = true,
            "sslrootcert" | "sslcert" | "sslkey" | "host" => {}
            _ => return Err(BadAddress::Parameter(key.into_owned())),
        }
        theirs.push((key.into_owned(), value.into_owned()));
    }
    url.query_pairs_mut().clear().extend_pairs(theirs);
    let options = PgConnectOptions::from_url(&url)
        .map_err(|error| BadAddress::Value(error.to_string()))?
        .application_name("lockwarden")
        .statement_cache_capacity(512)
        // A session whose program stands still is ended by the server, and lets go of what it held.
        .options([
            ("statement_timeout", "30s"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "30s"),
        ])
        // Statements would be logged with their texts; none holds a value, but they are many.
        .disable_statement_logging();
    if is_said {
        return Ok(options);
    }
    let mode = if is_here(&options) {
        PgSslMode::Disable
    } else {
        PgSslMode::VerifyFull
    };
    Ok(options.ssl_mode(mode))
}

/// Whether a server is on this machine.
fn is_here(server: &PgConnectOptions) -> bool {
    server.get_socket().is_some()
        || match Host::parse(server.get_host()) {
            Ok(Host::Domain(name)) => {
                name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
            Ok(Host::Ipv4(ip)) => ip.is_loopback(),
            Ok(Host::Ipv6(ip)) => ip.is_loopback(),
            Err(_) => false,
        }
}

/// Without the password.
impl fmt::Display for PostgresAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown)
    }
}

/// Without the password.
impl fmt::Debug for PostgresAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PostgresAddress, BadAddress> {
        text.parse()
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        let address = parse("postgres://warden:s3cret@db.example.org:5433/lockwarden").unwrap();
        assert_eq!(
            address.to_string(),
            "postgres://warden@db.example.org:5433/lockwarden"
        );
        assert!(!format!("{address:?}").contains("s3cret") && address.has_password());
        for bad in [
            "postgres://warden:s3cret@db.example.org:port/lockwarden",
            "postgres://warden:s3cret@/?x=s3cret",
            "postgres://warden:s3cret@h/lockwarden?pasword=s3cret",
            "postgres://warden:s3cret@h/lockwarden?sslmode=s3cret",
            "mysql://warden:s3cret@h/lockwarden",
        ] {
            let error = parse(bad).unwrap_err();
            let without_the_value = !matches!(error, BadAddress::Value(_));
            assert!(
                !(without_the_value && error.to_string().contains("s3cret")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_server_on_another_machine_must_prove_its_name_unless_told_otherwise() {
        let mode = |text: &str| parse(text).unwrap().servers()[0].get_ssl_mode();
        assert!(matches!(
            mode("postgres://u@db.example.org/d"),
            PgSslMode::VerifyFull
        ));
        for here in ["localhost", "127.0.0.1", "[::1]"] {
            let text = format!("postgres://u@{here}/d");
            assert!(matches!(mode(&text), PgSslMode::Disable), "{here}");
        }
        let text = "postgres://u@h/d?host=/run/postgresql";
        assert!(matches!(mode(text), PgSslMode::Disable));
        let weak = parse("postgres://u@db.example.org/d?sslmode=require").unwrap();
        assert_eq!(weak.unproven(), ["db.example.org"]);
        let strong = parse("postgres://u@db.example.org/d?sslmode=verify-ca").unwrap();
        assert!(strong.unproven().is_empty());
    }

    #[test]
    fn several_hosts_are_several_servers() {
        let address =
            parse("postgres://u:p@a.example.org:1,b.example.org:2,c.example.org/d").unwrap();
        let ports: Vec<u16> = address
            .servers()
            .iter()
            .map(PgConnectOptions::get_port)
            .collect();
        assert_eq!(ports, [1, 2, 5432]);
        assert_eq!(
            address.to_string(),
            "postgres://u@a.example.org:1,b.example.org:2,c.example.org:5432/d"
        );
    }

    #[test]
    fn one_connection_writes_and_the_others_read() {
        let of = |text: &str| parse(text).map(|address| address.readers());
        assert_eq!(of("postgres://u@h/d"), Ok(7));
        assert_eq!(of("postgres://u@h/d?connections=2"), Ok(1));
        assert_eq!(of("postgres://u@h/d?sslmode=disable&connections=5"), Ok(4));
        for bad in ["1", "101", "many"] {
            let text = format!("postgres://u@h/d?connections={bad}");
            assert!(matches!(of(&text), Err(BadAddress::Value(_))), "{bad}");
        }
    }

    #[test]
    fn an_address_names_a_user_and_a_database() {
        assert_eq!(
            parse("postgres://h/d").unwrap_err(),
            BadAddress::Without("a user")
        );
        assert_eq!(
            parse("postgres://u@h").unwrap_err(),
            BadAddress::Without("a database")
        );
        assert!(matches!(
            parse("postgres://u@h/d?options=-cfsync=off"),
            Err(BadAddress::Parameter(_))
        ));
    }
}
