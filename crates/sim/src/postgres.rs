//! A PostgreSQL server for tests, from the system's own programs, that can be stopped, killed, frozen and followed by a standby.
//!
//! It refuses to run as root, as PostgreSQL does: then the user `nobody` runs it.

use std::fmt;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The variable that names a server for tests: `postgres://user@host:port`, without a database.
pub const TEST_SERVER: &str = "LOCKWARDEN_TEST_POSTGRES";

/// The user that may do everything on it, without a password.
const USER: &str = "lockwarden";
/// The user and group `nobody`.
const NOBODY: (u32, u32) = (65534, 65534);

/// The address of the database that belongs to a data folder, on the server that [`TEST_SERVER`] names. It is made at first
/// mention. Nothing when no server is named: then tests run on the embedded database.
///
/// # Panics
/// When a server is named that does not make it.
#[must_use]
pub fn test_database(folder: &Path) -> Option<String> {
    let server = std::env::var(TEST_SERVER).ok()?;
    let name = name_for(folder);
    let made = sql(&server, "postgres", &format!("CREATE DATABASE \"{name}\""));
    match made {
        Ok(_) => {}
        Err(error) if error.to_string().contains("already exists") => {}
        Err(error) => panic!(
            "the database of {} cannot be made: {error}",
            folder.display()
        ),
    }
    Some(format!("{server}/{name}"))
}

/// Makes the database of one folder what that of another is, both closed. False when no server is named.
///
/// # Panics
/// When the server does not.
pub fn copy_test_database(from: &Path, to: &Path) -> bool {
    let Ok(server) = std::env::var(TEST_SERVER) else {
        return false;
    };
    let (from, to) = (name_for(from), name_for(to));
    for text in [
        format!("DROP DATABASE IF EXISTS \"{to}\" WITH (FORCE)"),
        format!("CREATE DATABASE \"{to}\" TEMPLATE \"{from}\""),
    ] {
        sql(&server, "postgres", &text).unwrap_or_else(|error| panic!("{error}"));
    }
    true
}

fn name_for(folder: &Path) -> String {
    let name: String = folder
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    // PostgreSQL cuts longer names.
    name[name.len().saturating_sub(60)..].to_owned()
}

/// Runs SQL with `psql`; gives what it printed, rows alone.
fn sql(server: &str, database: &str, text: &str) -> io::Result<String> {
    let output = Command::new(program("psql"))
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text])
        .arg(format!("{server}/{database}"))
        .stdin(Stdio::null())
        .output()?;
    printed(output)
}

fn printed(output: Output) -> io::Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = [output.stderr, output.stdout].concat();
    Err(io::Error::other(
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

/// Debian keeps the server's programs out of the search path, a folder for each version: the newest is taken.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let newest = versions
        .flatten()
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_string_lossy().parse().ok()?;
            let path = entry.path().join("bin").join(name);
            path.exists().then_some((version, path))
        })
        .max();
    newest.map_or_else(|| name.into(), |(_, path)| path)
}

/// How a server keeps what it commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeping {
    /// As it should: on disk before it is acknowledged.
    #[default]
    Durable,
    /// `fsync` off: fast, and nothing survives the machine. It does survive a killed server.
    Unsynced,
}

/// A server with a folder of its own, both gone with this.
pub struct Postgres {
    folder: PathBuf,
    port: u16,
}

impl Postgres {
    /// Starts a server with no database but its own, on a free port of this machine.
    ///
    /// # Errors
    /// When the programs are missing, or do not start it.
    pub fn start(keeping: Keeping) -> io::Result<Self> {
        let server = Self::prepare()?;
        server.run(
            "initdb",
            &[
                "--username",
                USER,
                "--auth",
                "trust",
                "--encoding",
                "UTF8",
                "--locale",
                "C.UTF-8",
                "--no-sync",
                "-D",
            ],
        )?;
        let fsync = if keeping == Keeping::Durable {
            "on"
        } else {
            "off"
        };
        server.configure(&format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\nfsync = {fsync}\nmax_connections = 200\n\
             wal_level = replica\nmax_wal_senders = 4\nhot_standby = on\n",
            server.port
        ))?;
        server.begin()?;
        Ok(server)
    }

    /// Starts a standby of this server, which follows it without being waited for.
    ///
    /// # Errors
    /// When it does not start.
    pub fn standby(&self) -> io::Result<Self> {
        let standby = Self::prepare()?;
        let from = format!("host=127.0.0.1 port={} user={USER}", self.port);
        standby.run("pg_basebackup", &["-d", &from, "-R", "-c", "fast", "-D"])?;
        standby.configure(&format!("port = {}\n", standby.port))?;
        standby.begin()?;
        Ok(standby)
    }

    fn prepare() -> io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let (process, nth) = (std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(format!("lockwarden-postgres-{process}-{nth}"));
        fs::create_dir(&folder)?;
        if is_root() {
            chown(&folder, Some(NOBODY.0), Some(NOBODY.1))?;
        }
        Ok(Self { folder, port })
    }

    /// The address of one of its databases.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes a database; gives its address.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn create(&self, database: &str) -> io::Result<String> {
        self.sql("postgres", &format!("CREATE DATABASE \"{database}\""))?;
        Ok(self.url(database))
    }

    /// Runs SQL; gives the rows as text.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn sql(&self, database: &str, text: &str) -> io::Result<String> {
        sql(
            &format!("postgres://{USER}@127.0.0.1:{}", self.port),
            database,
            text,
        )
    }

    /// Adds lines to its configuration, for its next start or [`reload`](Self::reload).
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(&self, lines: &str) -> io::Result<()> {
        let path = self.data().join("postgresql.conf");
        let mut text = fs::read_to_string(&path)?;
        text.push_str(lines);
        fs::write(&path, text)
    }

    /// Has it take TLS connections alone from its next start on, as whoever this certificate and key say.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn encrypt(&self, certificate_pem: &str, key_pem: &str) -> io::Result<()> {
        for (name, text) in [("server.crt", certificate_pem), ("server.key", key_pem)] {
            let path = self.data().join(name);
            fs::write(&path, text)?;
            // The server refuses a key that others may read.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            if is_root() {
                chown(&path, Some(NOBODY.0), Some(NOBODY.1))?;
            }
        }
        let path = self.data().join("pg_hba.conf");
        fs::write(&path, "hostssl all all 127.0.0.1/32 trust\n")?;
        self.configure("ssl = on\n")
    }

    /// Has it read its configuration again.
    ///
    /// # Errors
    /// When it does not run.
    pub fn reload(&self) -> io::Result<()> {
        self.run("pg_ctl", &["reload", "-s", "-D"]).map(drop)
    }

    /// Starts it, when it was stopped or killed, and waits until it takes connections.
    ///
    /// # Errors
    /// When it does not start.
    pub fn begin(&self) -> io::Result<()> {
        let log = self.folder.join("log");
        let log = log.to_string_lossy();
        self.run(
            "pg_ctl",
            &["start", "-s", "-w", "-t", "120", "-l", &log, "-D"],
        )
        .map(drop)
    }

    /// Stops it as an administrator does: sessions are ended, everything is on disk.
    ///
    /// # Errors
    /// When it does not stop.
    pub fn stop(&self) -> io::Result<()> {
        self.run("pg_ctl", &["stop", "-s", "-w", "-m", "fast", "-D"])
            .map(drop)
    }

    /// Stops it as a power cut does, as far as its own processes go.
    ///
    /// # Errors
    /// When it does not stop.
    pub fn kill(&self) -> io::Result<()> {
        self.run("pg_ctl", &["stop", "-s", "-w", "-m", "immediate", "-D"])
            .map(drop)
    }

    /// Makes a standby a server that takes writes.
    ///
    /// # Errors
    /// When it is none.
    pub fn promote(&self) -> io::Result<()> {
        self.run("pg_ctl", &["promote", "-s", "-w", "-D"]).map(drop)
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Runs a program of PostgreSQL's; the last argument is the folder of its data.
    fn run(&self, name: &str, arguments: &[&str]) -> io::Result<String> {
        let mut command = Command::new(program(name));
        command
            .args(arguments)
            .arg(self.data())
            .current_dir(&self.folder)
            .env("HOME", &self.folder)
            .stdin(Stdio::null());
        if is_root() {
            command.gid(NOBODY.1).uid(NOBODY.0);
        }
        // The server that pg_ctl leaves behind would keep pipes open.
        let said = self.folder.join("said");
        let file = fs::File::create(&said)?;
        let status = command
            .stdout(file.try_clone()?)
            .stderr(file)
            .status()
            .map_err(|error| {
                let what = format!(
                    "{name} cannot be run ({error}): Debian's package postgresql brings it"
                );
                io::Error::new(error.kind(), what)
            })?;
        let said = fs::read_to_string(said)?;
        if status.success() {
            return Ok(said);
        }
        Err(io::Error::other(format!("{name}: {said}{}", self.log())))
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Postgres")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // It may be stopped already.
        let _ = self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|of| std::os::unix::fs::MetadataExt::uid(&of) == 0)
}
