//! A production installation of the real binary, made by `init`, beside fakes of Apple and of an MDM that live in the test:
//! so that the server can be killed and come back while the far ends remember everything.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use sim::dep::{Dep, DepOptions};
use sim::postgres::{Keeping, Postgres};
use sim::{
    Apple, AppleOptions, BusinessManager, BusinessManagerOptions, Device, DeviceSpec, Kind,
    NanoMdm, NanoMdmOptions, SIM_TOPIC, Webhook,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::{Finished, command, file, finish, wait_for};

/// The MDM connection's name.
pub(crate) const CONNECTION: &str = "nanomdm";
/// The key of the MDM's API.
pub(crate) const API_KEY: &str = "nanomdm-api-key-in-a-test";
/// The key that webhooks are signed with.
pub(crate) const HMAC_KEY: &str = "webhook-hmac-key-in-a-test";

/// The name that the first person signs in with, who has set up no second factor yet.
pub(crate) const FIRST: &str = "zoe";
/// Their password.
pub(crate) const FIRST_PASSWORD: &str = "correct horse battery";

/// Everything but the server's process.
pub(crate) struct Installation {
    pub(crate) runtime: Runtime,
    pub(crate) apple: Apple,
    /// Apple's enrolment service. The server knows its address, and no token of it.
    pub(crate) dep: Dep,
    /// Apple's business API. The server knows its address, and no account of it.
    pub(crate) business: BusinessManager,
    pub(crate) mdm: NanoMdm,
    /// The server that the vault is on, when it is not in the data folder.
    pub(crate) database: Option<Postgres>,
    folder: TempDir,
    devices: u64,
}

/// A server's process. Killed when dropped.
pub(crate) struct Server {
    /// Nothing for what only stands before servers.
    child: Option<Child>,
    /// Where it is reached.
    pub(crate) url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Server {
    /// What stands before servers, as a server.
    pub(crate) fn elsewhere(url: &str) -> Self {
        Self {
            child: None,
            url: url.to_owned(),
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child().kill().unwrap();
        self.child().wait().unwrap();
    }

    /// SIGTERM, and the end it leads to: the exit status.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        self.child().wait().unwrap().code()
    }

    /// The process.
    pub(crate) fn process(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    fn child(&mut self) -> &mut Child {
        self.child.as_mut().unwrap()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.process().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }
}

impl Installation {
    /// Runs `init`, points it to the fakes, and connects MDM and push certificate with a server that is stopped again.
    pub(crate) fn new() -> Self {
        Self::on(None)
    }

    /// The same, with the vault on a PostgreSQL server of its own.
    pub(crate) fn on_a_database_server() -> Self {
        let server = Postgres::start(Keeping::Durable).unwrap();
        server.create("vault").unwrap();
        Self::on(Some(server))
    }

    fn on(database: Option<Postgres>) -> Self {
        let runtime = Runtime::new().unwrap();
        let (apple, dep, business, mdm) = runtime.block_on(async {
            let apple = Apple::start(AppleOptions::default()).await.unwrap();
            let dep = Dep::start(&apple, DepOptions::default()).await.unwrap();
            let business = BusinessManagerOptions::default();
            let business = BusinessManager::start(&apple, business).await.unwrap();
            let options = NanoMdmOptions {
                api_key: API_KEY.to_owned(),
                ..NanoMdmOptions::default()
            };
            let mdm = NanoMdm::start(options).await.unwrap();
            (apple, dep, business, mdm)
        });
        let installation = Self {
            runtime,
            apple,
            dep,
            business,
            mdm,
            database,
            folder: tempfile::tempdir().unwrap(),
            devices: 0,
        };
        installation.init();
        let server = installation.serve();
        installation.connect(&server);
        assert_eq!(server.stop(), Some(0), "{}", installation.log());
        installation
    }

    fn init(&self) {
        let [etc, data, recovery, token] =
            ["etc", "data", "recovery.key", "admin.token"].map(|name| self.path(name));
        let mut init = command([
            "init",
            "--organisation",
            "Example School",
            "--folder",
            &text(&etc),
            "--data",
            &text(&data),
            "--recovery-key-file",
            &text(&recovery),
            "--token-file",
            &text(&token),
            "--login",
            FIRST,
            "--password-file",
            "-",
        ]);
        if let Some(database) = &self.database {
            let address = file(self.folder.path(), "database", &database.url("vault"));
            init.args(["--database-file", &text(&address)]);
        }
        let made = finish(init, FIRST_PASSWORD);
        assert_eq!(made.status, 0, "{}", made.stderr);
        let ca = file(self.folder.path(), "apple-ca.pem", &self.apple.ca_pem());
        let config = std::fs::read_to_string(self.config()).unwrap();
        let config = config
            .replace("127.0.0.1:8443", "127.0.0.1:0")
            .replace("level = \"info\"", "level = \"debug\"")
            .replace(
                "[apple]",
                &format!(
                    "[apple]\nurl = \"{}\"\nenrolment_url = \"{}\"\nbusiness_url = \"{api}\"\nschool_url = \"{api}\"\n\
                     token_url = \"{}\"\nca_file = \"{}\"",
                    self.apple.url(),
                    self.dep.url(),
                    self.business.token_url(),
                    text(&ca),
                    api = self.business.api_url(),
                ),
            );
        std::fs::write(self.config(), config).unwrap();
    }

    fn connect(&self, server: &Server) {
        let key = file(self.folder.path(), "api.key", API_KEY);
        let hmac = file(self.folder.path(), "hmac.key", HMAC_KEY);
        let certificate = file(
            self.folder.path(),
            "push.pem",
            &self.apple.push_certificate(SIM_TOPIC).bundle_pem(),
        );
        self.ok(
            server,
            &[
                "mdm",
                "add",
                CONNECTION,
                "--mdm-url",
                &self.mdm.url(),
                "--api-key-file",
                &text(&key),
                "--hmac-secret-file",
                &text(&hmac),
            ],
        );
        // The tests look at codes again and again, as one.
        let often = [
            "--reveals-an-hour",
            "1000000",
            "--unlocks-an-hour",
            "1000000",
        ];
        self.ok(
            server,
            &[&["organisations", "set", "Example School"][..], &often].concat(),
        );
        self.ok(
            server,
            &[
                "push-certificate",
                "add",
                "--certificate",
                &text(&certificate),
            ],
        );
    }

    /// A path in the installation's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("etc/lockwarden.toml")
    }

    /// Servers started from now on call Apple as often as they can.
    pub(crate) fn without_pace(&self) {
        let config = std::fs::read_to_string(self.config()).unwrap();
        let config = config.replace("calls_per_second = 5.0", "calls_per_second = 0.0");
        std::fs::write(self.config(), config).unwrap();
    }

    /// Servers started from now on give a call two seconds, and so a lease half a minute.
    pub(crate) fn with_short_calls(&self) {
        let config = std::fs::read_to_string(self.config()).unwrap();
        let config = config.replace("timeout_seconds = 60", "timeout_seconds = 2");
        let config = config.replace("timeout_seconds = 30", "timeout_seconds = 2");
        std::fs::write(self.config(), config).unwrap();
    }

    /// What the servers logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Starts the server and waits until it serves. The MDM's webhooks go to it.
    pub(crate) fn serve(&self) -> Server {
        self.serve_under(command(std::iter::empty::<&str>()))
    }

    /// The same, `under` being the program to start it with: arguments of the server are added to it.
    pub(crate) fn serve_under(&self, under: Command) -> Server {
        let server = self.start(under, "serve", &self.config(), "ready.json");
        self.hook(&server.url);
        server
    }

    /// Has the MDM send its webhooks there.
    pub(crate) fn hook(&self, url: &str) {
        let hook = format!("{url}/v1/hooks/{CONNECTION}");
        self.mdm
            .set_webhook(Some(Webhook::new(hook, Some(HMAC_KEY.as_bytes()))));
    }

    /// Starts one of several processes on the database, with a data folder of its own, and waits until it is there. The MDM's
    /// webhooks do not go to it.
    pub(crate) fn replica(&self, name: &str, does: &str) -> Server {
        let config = self.path(&format!("etc/{name}.toml"));
        let text = std::fs::read_to_string(self.config()).unwrap();
        let own = text.replace(
            &format!("\"{}\"", self.path("data").display()),
            &format!("\"{}\"", self.path(name).display()),
        );
        assert_ne!(own, text);
        std::fs::write(&config, own).unwrap();
        let under = command(std::iter::empty::<&str>());
        self.start(under, does, &config, &format!("{name}.json"))
    }

    fn start(&self, mut under: Command, does: &str, config: &Path, ready: &str) -> Server {
        let ready = self.path(ready);
        // Left by the server before.
        let _ = std::fs::remove_file(&ready);
        let log = || -> File {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.path("log"))
                .unwrap()
        };
        let mut child = under
            .args(does.split(' '))
            .arg("--config")
            .arg(config)
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn()
            .unwrap();
        let url = wait_for("the server to serve", || {
            if let Ok(text) = std::fs::read_to_string(&ready) {
                let ready: Value = serde_json::from_str(&text).unwrap();
                return Some(ready["url"].as_str().unwrap().to_owned());
            }
            assert_eq!(child.try_wait().unwrap(), None, "{}", self.log());
            None
        });
        Server {
            child: Some(child),
            url,
        }
    }

    /// A command that talks to the server.
    pub(crate) fn cli(&self, server: &Server, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command
            .env("LOCKWARDEN_URL", &server.url)
            .env("LOCKWARDEN_TOKEN_FILE", self.path("admin.token"));
        command
    }

    /// Runs a command that talks to the server, to its end.
    pub(crate) fn run(&self, server: &Server, arguments: &[&str]) -> Finished {
        finish(self.cli(server, arguments), "")
    }

    /// The same with `--json`; it must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, server: &Server, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        let done = self.run(server, &arguments);
        assert_eq!(done.status, 0, "{arguments:?}: {}", done.stderr);
        serde_json::from_str(&done.stdout).unwrap_or(Value::Null)
    }

    /// A GET with the first token: head and body of the answer as they came.
    pub(crate) fn get(&self, server: &Server, path: &str) -> String {
        self.http(server, "GET", path, None)
    }

    /// A request with the first token, and its JSON body if it has one: head and body of the answer as they came.
    pub(crate) fn http(
        &self,
        server: &Server,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> String {
        let token = std::fs::read_to_string(self.path("admin.token")).unwrap();
        let address = server.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let body = body.map_or_else(String::new, Value::to_string);
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            token.trim(),
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A new device, not enrolled yet.
    pub(crate) fn device(&mut self, kind: Kind) -> Device {
        self.devices += 1;
        let serial = format!("KEPT{:06}", self.devices);
        let _in_runtime = self.runtime.enter();
        Device::new(
            DeviceSpec::new(serial, kind, self.devices),
            &self.mdm,
            &self.apple,
        )
    }

    /// Has a device poll until the server holds its present code and knows who it is: Apple's fake looks at the IMEIs too.
    pub(crate) fn wait_for_code(&self, server: &Server, device: &Device) {
        let serial = device.serial();
        let wanted = device.code_text();
        wait_for("the device's code", || {
            let _in_runtime = self.runtime.enter();
            device.poll();
            let held = self
                .codes(server, &serial)
                .into_iter()
                .any(|(code, current)| current && code == wanted);
            (held && self.has_said_who_it_is(server, &serial)).then_some(())
        });
    }

    fn has_said_who_it_is(&self, server: &Server, serial: &str) -> bool {
        let shown = self.ok(server, &["devices", "show", serial]);
        let epoch = shown["epochs"].as_array().and_then(|all| all.last());
        epoch.is_some_and(|epoch| !epoch["facts"]["information_at"].is_null())
    }

    /// The codes of a device, by `reveal`: text, and whether it is current.
    pub(crate) fn codes(&self, server: &Server, serial: &str) -> Vec<(String, bool)> {
        let shown = self.run(
            server,
            &["reveal", serial, "--reason", "a test looks", "--json"],
        );
        if shown.status != 0 {
            return Vec::new();
        }
        let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
        let codes = shown["codes"].as_array().cloned().unwrap_or_default();
        codes
            .iter()
            .map(|code| {
                (
                    code["code"].as_str().unwrap_or_default().to_owned(),
                    code["current"].as_bool().unwrap_or_default(),
                )
            })
            .collect()
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
