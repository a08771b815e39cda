//! People at the command line: the first one of `init`, who invites others; signed in and out, shut out, rescued.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use data_encoding::BASE32_NOPAD;
use seal::TotpSecret;
use serde_json::Value;

use crate::installation::{FIRST, FIRST_PASSWORD, Installation, Server};
use crate::support::{Finished, command, file, finish, wait_for};

const PASSWORD: &str = "a password of somebody else";

/// A person at a terminal of their own: their session file, and their app.
pub(crate) struct Person<'a> {
    /// Where their session file is.
    folder: PathBuf,
    login: &'a str,
    app: Option<TotpSecret>,
    /// Codes up to this step were used.
    used: u64,
}

fn step() -> u64 {
    let now = server::lifecycle::clock().now().0;
    u64::try_from(now / 1_000).unwrap() / 30
}

impl<'a> Person<'a> {
    pub(crate) fn new(installation: &Installation, login: &'a str) -> Self {
        Self::at(installation.path("."), login)
    }

    pub(crate) fn at(folder: PathBuf, login: &'a str) -> Self {
        Self {
            folder,
            login,
            app: None,
            used: 0,
        }
    }

    fn session_file(&self) -> PathBuf {
        self.folder.join(format!("{}.session", self.login))
    }

    fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.env("LOCKWARDEN_SESSION_FILE", self.session_file());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str], stdin: &str) -> Finished {
        finish(self.cli(arguments), stdin)
    }

    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str], stdin: &str) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        let done = self.run(&arguments, stdin);
        assert_eq!(done.status, 0, "{arguments:?}: {}", done.stderr);
        serde_json::from_str(&done.stdout).unwrap_or(Value::Null)
    }

    /// A code that was not used before: of the next half minute, which is taken too, when this one's was.
    fn code(&mut self) -> String {
        let next = wait_for("a code that was not used", || {
            let next = step().max(self.used + 1);
            (next <= step() + 1).then_some(next)
        });
        self.used = next;
        let at = i64::try_from(next * 30).unwrap();
        self.app.as_ref().unwrap().code_at(at).as_str().to_owned()
    }

    #[track_caller]
    pub(crate) fn sign_in(&mut self, server: &Server, password: &str) -> Finished {
        self.sign_in_at(&server.url, password)
    }

    #[track_caller]
    fn sign_in_at(&mut self, url: &str, password: &str) -> Finished {
        let password = file(&self.folder, "password", password);
        let mut arguments = vec!["sign-in", self.login, "--url", url, "--password-file"];
        let password = password.to_str().unwrap().to_owned();
        arguments.push(&password);
        let code = if self.app.is_some() {
            self.code()
        } else {
            String::new()
        };
        if !code.is_empty() {
            arguments.extend(["--code-file", "-"]);
        }
        self.run(&arguments, &code)
    }

    pub(crate) fn set_up(&mut self, password: &str) {
        let made = self.ok(&["second-factor", "--password-file", "-"], password);
        let secret = made["secret"].as_str().unwrap();
        let bytes = BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
        self.app = TotpSecret::from_bytes(&bytes);
        let code = self.code();
        self.ok(&["second-factor", "--code-file", "-"], &code);
    }
}

impl<'a> Person<'a> {
    /// Somebody who takes an invitation, signs in and sets up their second factor.
    pub(crate) fn joined(folder: PathBuf, url: &str, login: &'a str, invitation: &str) -> Self {
        let mut person = Self::at(folder, login);
        let password = file(&person.folder, "joining.password", PASSWORD);
        let join = [
            "join",
            "--url",
            url,
            "--invitation-file",
            "-",
            "--password-file",
            password.to_str().unwrap(),
        ];
        person.ok(&join, invitation);
        assert_eq!(person.sign_in_at(url, PASSWORD).status, 0);
        person.set_up(PASSWORD);
        person
    }

    /// The first person of an installation, with their second factor.
    pub(crate) fn first(installation: &Installation, server: &Server) -> Self {
        let mut zoe = Self::new(installation, FIRST);
        assert_eq!(zoe.sign_in(server, FIRST_PASSWORD).status, 0);
        zoe.set_up(FIRST_PASSWORD);
        zoe
    }

    /// Another, invited and given these roles by that one.
    pub(crate) fn another(zoe: &Self, server: &Server, login: &'a str, roles: &[&str]) -> Self {
        let invited = zoe.ok(&["people", "invite", login, "--name", login], "");
        let invitation = invited["invitation"].as_str().unwrap();
        let person = Self::joined(zoe.folder.clone(), &server.url, login, invitation);
        zoe.ok(&[&["people", "roles", login][..], roles].concat(), "");
        person
    }
}

#[test]
fn the_first_person_invites_another_who_may_what_their_roles_allow() {
    let installation = Installation::new();
    let server = installation.serve();
    let mut zoe = Person::new(&installation, FIRST);
    let refused = zoe.sign_in(&server, PASSWORD);
    assert_eq!(refused.status, 1);
    assert!(
        refused.stderr.contains("the password or the code is wrong"),
        "{}",
        refused.stderr
    );
    assert!(!zoe.session_file().exists());
    let begun = zoe.sign_in(&server, FIRST_PASSWORD);
    assert_eq!(begun.status, 0, "{}", begun.stderr);
    assert!(
        begun.stderr.contains("lockwarden second-factor"),
        "{}",
        begun.stderr
    );
    let mode = std::fs::metadata(zoe.session_file())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let unfinished = zoe.run(&["devices", "list"], "");
    assert!(
        unfinished.stderr.contains("second factor"),
        "{}",
        unfinished.stderr
    );
    zoe.set_up(FIRST_PASSWORD);
    zoe.ok(&["devices", "list"], "");
    let me = zoe.ok(&["people", "show", FIRST], "");
    let roles: Vec<_> = me["roles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|role| role["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles.len(), 7);
    assert!(!roles.contains(&"break-glass"), "nobody has it by default");

    let invited = zoe.ok(&["people", "invite", "max", "--name", "Max Example"], "");
    let invitation = invited["invitation"].as_str().unwrap();
    let mut max = Person::new(&installation, "max");
    let password = file(installation.path("").as_path(), "max.password", PASSWORD);
    let join = [
        "join",
        "--url",
        &server.url,
        "--invitation-file",
        "-",
        "--password-file",
        password.to_str().unwrap(),
    ];
    max.ok(&join, invitation);
    let again = max.run(&join, invitation);
    assert!(
        again.status == 1 && again.stderr.contains("taken before"),
        "{}",
        again.stderr
    );
    assert_eq!(max.sign_in(&server, PASSWORD).status, 0);
    let early = zoe.run(&["people", "roles", "max", "revealer"], "");
    assert!(early.stderr.contains("second factor"), "{}", early.stderr);
    max.set_up(PASSWORD);
    let given = zoe.ok(&["people", "roles", "max", "revealer"], "");
    assert_eq!(given["roles"][0]["role"], "revealer");
    max.ok(&["devices", "list"], "");
    let refused = max.run(&["people", "list"], "");
    assert!(
        refused.status == 1 && refused.stderr.contains("`admin`"),
        "{}",
        refused.stderr
    );

    let listed = zoe.run(&["people", "list"], "");
    assert!(
        listed.stdout.contains("Max Example") && listed.stdout.contains("revealer in "),
        "{}",
        listed.stdout
    );
    zoe.ok(&["people", "disable", "max"], "");
    let out = max.run(&["devices", "list"], "");
    assert!(
        out.status == 1 && out.stderr.contains("sign-in"),
        "{}",
        out.stderr
    );

    // A session goes to its own server and to no other.
    let elsewhere = zoe.run(&["devices", "list", "--url", "http://127.0.0.1:9"], "");
    assert!(
        elsewhere.status == 2 && elsewhere.stderr.contains("another server"),
        "{}",
        elsewhere.stderr
    );
    assert_eq!(zoe.ok(&["sessions", "list"], "")[0]["live"], true);
    zoe.ok(&["sign-out"], "");
    assert!(!zoe.session_file().exists());
    for secret in [FIRST_PASSWORD, PASSWORD, invitation] {
        assert!(
            !installation.log().contains(secret),
            "a secret is in the log"
        );
    }
}

#[test]
fn who_lost_everything_is_rescued_on_the_machine_itself() {
    let installation = Installation::new();
    let out = installation.path("invitation");
    let config = installation.config();
    let rescue = |login: &str| {
        let arguments = [
            "people",
            "rescue",
            login,
            "--config",
            config.to_str().unwrap(),
            "--out-file",
            out.to_str().unwrap(),
        ];
        finish(command(arguments), "")
    };
    let nobody = rescue("nobody");
    assert!(nobody.status == 1 && !out.exists(), "{}", nobody.stderr);
    let done = rescue(FIRST);
    assert_eq!(done.status, 0, "{}", done.stderr);
    let invitation = std::fs::read_to_string(&out).unwrap();
    let server = installation.serve();
    let mut zoe = Person::new(&installation, FIRST);
    assert_eq!(zoe.sign_in(&server, FIRST_PASSWORD).status, 1);
    let password = file(installation.path("").as_path(), "new.password", PASSWORD);
    let join = [
        "join",
        "--url",
        &server.url,
        "--invitation-file",
        "-",
        "--password-file",
        password.to_str().unwrap(),
    ];
    zoe.ok(&join, &invitation);
    assert_eq!(zoe.sign_in(&server, PASSWORD).status, 0);
    zoe.set_up(PASSWORD);
    let record = zoe.ok(
        &["audit", "list", "--organisation", "*", "--limit", "100"],
        "",
    );
    let actions: Vec<_> = record
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| row["action"].as_str())
        .collect();
    assert!(actions.contains(&"person.reset"), "{actions:?}");
}

/// A person who signs in at a provider, with the real program, the real server and a browser that follows one redirect.
#[cfg(feature = "oidc")]
#[test]
fn a_person_signs_in_at_a_provider_and_brings_a_word_back_to_the_terminal() {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::Stdio;

    let installation = Installation::new();
    let provider = installation.runtime.block_on(async {
        sim::IdentityProvider::start(sim::Now::wall(), "lockwarden", None)
            .await
            .unwrap()
    });
    let claims =
        serde_json::json!({ "preferred_username": "ann", "name": "Ann", "groups": ["desk"] });
    provider.set_person(Some(sim::IdentityClaims {
        subject: "ann-for-ever".to_owned(),
        in_token: claims.as_object().unwrap().clone(),
        ..sim::IdentityClaims::default()
    }));
    let mut config = std::fs::read_to_string(installation.config()).unwrap();
    config.push_str(&format!(
        "\n[single_sign_on]\nissuer = \"{}\"\nclient_id = \"lockwarden\"\n\
         [[single_sign_on.groups]]\nname = \"desk\"\norganisation = \"Example School\"\nroles = [\"viewer\"]\n",
        provider.url()
    ));
    std::fs::write(installation.config(), config).unwrap();
    let server = installation.serve();

    let ann = Person::new(&installation, "ann");
    let arguments = [
        "sign-in",
        "--single-sign-on",
        "--answer-file",
        "-",
        "--url",
        &server.url,
    ];
    let mut child = ann
        .cli(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let (_, page) = line.trim().split_once(": http").unwrap();
    let page = format!("http{page}");
    let sent = browse(&page);
    let (_, back) = sent.split_once("location: ").unwrap();
    let page = browse(back.lines().next().unwrap());
    let (_, rest) = page.split_once("<code>").unwrap();
    let word = rest.split_once("</code>").unwrap().0.to_owned();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{word}").unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    assert_eq!(ann.run(&["devices", "list"], "").status, 0);
    assert_eq!(ann.run(&["people", "list"], "").status, 1);
    assert!(!installation.log().contains(&word));
}

/// What a browser is answered at an address of this machine, head and body.
#[cfg(feature = "oidc")]
fn browse(url: &str) -> String {
    use std::io::{Read as _, Write as _};

    let (address, path) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
