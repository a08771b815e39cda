//! A real browser: Debian's Chromium, driven by its own driver in the protocol of the W3C (WebDriver), of which a dozen commands
//! are enough here.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use data_encoding::BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::wait_for;

const AXE: &str = include_str!("../../data/axe-core-4.14.1.min.js");
/// The name that an element's identifier has in the protocol.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// What it looks like, and what it can.
#[derive(Clone, Copy, Default)]
pub(crate) struct Look {
    /// As wide as a telephone.
    pub(crate) is_phone: bool,
    /// The person likes it dark.
    pub(crate) is_dark: bool,
    /// Scripts are off.
    pub(crate) without_scripts: bool,
}

/// The browser. It is gone with this.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    base: String,
    _profile: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.ask("DELETE", &format!("/session/{}", self.session), None);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Browser {
    /// A new one, for the pages of a server.
    pub(crate) fn start(base: &str, look: Look) -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's package chromium-driver is installed");
        let mut said = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = said.find_map(|line| {
            let line = line.unwrap();
            let (_, port) = line.split_once("successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        });
        // Its further words are read and dropped, so that it never waits for a reader.
        std::thread::spawn(move || said.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self {
            driver,
            port: port.expect("the driver says where it is"),
            session: String::new(),
            base: base.to_owned(),
            _profile: profile,
        };
        let size = if look.is_phone { "390,844" } else { "1200,900" };
        let arguments = [
            "--headless=new",
            // Chromium does not run as root with its sandbox; what it shows here is ours.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--hide-scrollbars",
            &format!("--user-data-dir={}", browser._profile.path().display()),
            &format!("--window-size={size}"),
        ];
        let mut options = json!({ "args": arguments });
        if look.is_phone {
            let metrics = json!({ "width": 390, "height": 844, "pixelRatio": 2.0 });
            options["mobileEmulation"] = json!({ "deviceMetrics": metrics });
        }
        if look.without_scripts {
            let off = json!({ "profile.managed_default_content_settings.javascript": 2 });
            options["prefs"] = off;
        }
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let made = browser.ask("POST", "/session", Some(&wanted)).unwrap();
        browser.session = made["sessionId"].as_str().unwrap().to_owned();
        let scheme = if look.is_dark { "dark" } else { "light" };
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        let emulate =
            json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": [feature] } });
        browser
            .tell("POST", "/goog/cdp/execute", Some(&emulate))
            .unwrap();
        browser
    }

    /// A command to the driver; what it gives, or why not.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let body = body.map_or_else(String::new, Value::to_string);
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(|e| e.to_string())?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream
            .write_all(request.as_bytes())
            .map_err(|error| error.to_string())?;
        let body = answer(stream).map_err(|error| error.to_string())?;
        let mut said: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let value = said["value"].take();
        match value["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", value["message"])),
            None => Ok(value),
        }
    }

    /// A command to the browser.
    fn tell(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        self.ask(method, &format!("/session/{}{path}", self.session), body)
    }

    /// Goes to a page of the server.
    pub(crate) fn go(&self, path: &str) {
        let url = json!({ "url": format!("{}{path}", self.base) });
        self.tell("POST", "/url", Some(&url)).unwrap();
    }

    /// The path that the address bar has.
    pub(crate) fn path(&self) -> String {
        let url = self.tell("GET", "/url", None).unwrap();
        let url = url.as_str().unwrap();
        url.strip_prefix(&self.base).unwrap_or(url).to_owned()
    }

    /// What this selector finds first, or what this XPath does; now.
    fn look_for(&self, selector: &str) -> Option<String> {
        let kind = if selector.starts_with('/') {
            "xpath"
        } else {
            "css selector"
        };
        let wanted = json!({ "using": kind, "value": selector });
        let found = self.tell("POST", "/element", Some(&wanted)).ok()?;
        Some(format!("/element/{}", found[ELEMENT].as_str()?))
    }

    /// The text of what a selector finds, once there is such a thing.
    pub(crate) fn text_of(&self, selector: &str) -> String {
        wait_for(&format!("the text of {selector}"), || {
            let found = self.look_for(selector)?;
            let text = self.tell("GET", &format!("{found}/text"), None).ok()?;
            text.as_str().map(str::to_owned)
        })
    }

    /// Whether this selector finds something now.
    pub(crate) fn has(&self, selector: &str) -> bool {
        self.look_for(selector).is_some()
    }

    /// Does something with what a selector finds, once there is such a thing. What is replaced in between is looked for again.
    fn with(&self, selector: &str, command: &str, body: &Value) {
        let doing = format!("{command} on {selector} on {}", self.path());
        wait_for(&doing, || {
            let found = self.look_for(selector)?;
            let path = format!("{found}/{command}");
            self.tell("POST", &path, Some(body)).ok()
        });
    }

    /// Writes into a field, in place of what it has.
    pub(crate) fn write(&self, selector: &str, text: &str) {
        self.with(selector, "clear", &json!({}));
        self.with(selector, "value", &json!({ "text": text }));
    }

    /// Chooses a file of this machine.
    pub(crate) fn put(&self, selector: &str, path: &str) {
        self.with(selector, "value", &json!({ "text": path }));
    }

    /// Clicks on something.
    pub(crate) fn click(&self, selector: &str) {
        self.with(selector, "click", &json!({}));
    }

    /// Clicks on the link or button with this text.
    pub(crate) fn press(&self, text: &str) {
        self.click(&format!(
            "//*[self::a or self::button][normalize-space()='{text}']"
        ));
    }

    /// Presses a key, with whatever has the focus.
    pub(crate) fn key(&self, key: &str) {
        let keys = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let actions = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": keys }] });
        self.tell("POST", "/actions", Some(&actions)).unwrap();
    }

    /// The text of the page, as a person sees it.
    pub(crate) fn text(&self) -> String {
        let text = self
            .look_for("body")
            .and_then(|body| self.tell("GET", &format!("{body}/text"), None).ok());
        text.and_then(|text| text.as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    /// Waits until the page has this text.
    pub(crate) fn wait_for_text(&self, wanted: &str) {
        wait_for(&format!("{wanted:?} on {}", self.path()), || {
            self.text().contains(wanted).then_some(())
        });
    }

    fn run(&self, script: &str) -> Value {
        let body = json!({ "script": script, "args": [] });
        self.tell("POST", "/execute/sync", Some(&body)).unwrap()
    }

    /// Keeps a picture of the page under `target/console`, and has axe look for what would shut somebody out, the window for what
    /// is wider than it, and the browser's log for what went wrong.
    pub(crate) fn is_sound(&self, name: &str) {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../console");
        std::fs::create_dir_all(&folder).unwrap();
        let taken = self.tell("GET", "/screenshot", None).unwrap();
        let picture = BASE64.decode(taken.as_str().unwrap().as_bytes()).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), picture).unwrap();
        self.run(AXE);
        let look = "const done = arguments[arguments.length - 1]; axe.run().then((found) => done(found.violations.map((one) => \
             one.id + ': ' + one.nodes.map((node) => node.html + ' ' + node.failureSummary).join(' | '))));";
        let body = json!({ "script": look, "args": [] });
        let found = self.tell("POST", "/execute/async", Some(&body)).unwrap();
        assert_eq!(found, json!([]), "{name}: {}", self.path());
        let wider =
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(self.run(wider), 0, "{name} is wider than the window");
        let log = self
            .tell("POST", "/se/log", Some(&json!({ "type": "browser" })))
            .unwrap();
        let bad: Vec<&Value> = log
            .as_array()
            .unwrap()
            .iter()
            // A page that says that something is not there, or not allowed, is one on purpose.
            .filter(|one| one["source"] != "network")
            .collect();
        assert!(bad.is_empty(), "{name}: {bad:?}");
    }
}

/// The body of an answer. The driver leaves the connection open.
fn answer(stream: TcpStream) -> std::io::Result<Vec<u8>> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(body)
}
