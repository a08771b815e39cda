//! Unlocks and locks, which are asked for and watched to their end in the same way.

use std::time::Duration;

use activation_lock::device::SerialNumber;
use data_encoding::HEXLOWER;
use seal::Random as _;
use serde_json::Value;

use crate::api::{Api, Ask};
use crate::voice::{DONE, Failure, Outcome, Voice};
use crate::{machine, show};

/// How often it is looked at while we wait.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Which of the two it is.
pub(crate) struct Kind {
    /// What one is called: `unlock`. So is the path under a device where it is asked for.
    pub(crate) one: &'static str,
    /// Where all of them are, in the API and on the command line: `unlocks`.
    pub(crate) all: &'static str,
    /// What a call made for one is called: `attempt`.
    pub(crate) call: &'static str,
    /// Where the calls of one are in its JSON: `attempts`.
    pub(crate) calls: &'static str,
    /// The exit status of the state it ended in.
    pub(crate) exit_status: fn(&str) -> u8,
}

/// A key that makes asking twice ask once, as it fits into a header.
///
/// # Errors
/// When it does not fit.
pub(crate) fn idempotency_key(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    let is_visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    let fits = (1..=255).contains(&text.len()) && text.bytes().all(is_visible);
    fits.then(|| text.to_owned())
        .ok_or("it is not 1 to 255 visible ASCII characters")
}

impl Kind {
    /// Asks for one, under the key or a new one, and watches it to its end when that is wanted.
    pub(crate) async fn ask(
        &self,
        api: &Api,
        serial: &SerialNumber,
        wish: &Value,
        key: Option<String>,
        wait: bool,
        voice: Voice,
    ) -> Outcome {
        let key = key.unwrap_or_else(|| {
            let mut bytes = [0; 16];
            machine::random().fill(&mut bytes);
            HEXLOWER.encode(&bytes)
        });
        let path = ["devices", serial.as_str(), self.one];
        let queued = api
            .ask(Ask::post(&path).json(wish)?.once(&key))
            .await?
            .json()?;
        let id = queued.get("id").and_then(Value::as_str).ok_or_else(|| {
            Failure::new(format!("the server's answer names no {}", self.one))
                .hint("is the server of the same version?")
        })?;
        if !wait {
            voice.data(&queued, || {
                format!("{id}  {}", show::cell(&queued, "state"))
            })?;
            voice.talk(format!(
                "asked for; `lockwarden devices show {serial}` shows how it stands"
            ));
            return Ok(DONE);
        }
        voice.talk(format!(
            "{} {id} is queued; it goes on when you leave this",
            self.one
        ));
        self.ended(api, id, voice).await
    }

    /// Watches one to its end, and shows that.
    pub(crate) async fn ended(&self, api: &Api, id: &str, voice: Voice) -> Outcome {
        let ended = self.watch(api, id, voice).await?;
        let state = ended
            .get("state")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        voice.data(&ended, || {
            let mut lines = vec![format!("{}: {state}", show::cell(&ended, "serial"))];
            lines.extend(show::words(&ended));
            lines.join("\n")
        })?;
        Ok((self.exit_status)(&state))
    }

    /// Shows each call and each wait as it happens, until it has ended.
    async fn watch(&self, api: &Api, id: &str, voice: Voice) -> Result<Value, Failure> {
        let path = [self.all, id];
        let mut told: Vec<String> = Vec::new();
        let mut last_wait = String::new();
        loop {
            let operation = api.ask(Ask::get(&path)).await.map_err(|failure| {
                failure.hint(format!(
                    "the {} goes on; `lockwarden {} show {id}` shows how it stands",
                    self.one, self.all
                ))
            })?;
            let operation = operation.json()?;
            for (index, call) in operation
                .get(self.calls)
                .map_or(&[][..], show::rows)
                .iter()
                .enumerate()
            {
                let line = self.call_line(index, call);
                if told.get(index) != Some(&line) {
                    voice.talk(&line);
                    told.truncate(index);
                    told.resize(index, String::new());
                    told.push(line);
                }
            }
            let done = operation
                .get("done")
                .and_then(Value::as_bool)
                .unwrap_or(false);
            if done {
                return Ok(operation);
            }
            let wait = if operation.get("state").and_then(Value::as_str) == Some("waiting") {
                format!("waiting: {}", show::words(&operation).join(" "))
            } else {
                String::new()
            };
            if wait != last_wait && !wait.is_empty() {
                voice.talk(&wait);
            }
            last_wait = wait;
            machine::pause(LOOK_EVERY).await;
        }
    }

    fn call_line(&self, index: usize, call: &Value) -> String {
        let outcome = call
            .get("outcome")
            .and_then(Value::as_str)
            .unwrap_or("in flight");
        let status = call
            .get("status")
            .and_then(Value::as_u64)
            .map(|status| format!(" ({status})"))
            .unwrap_or_default();
        let kind = call
            .get("code_kind")
            .and_then(Value::as_str)
            .map(|kind| format!(", {kind} code"))
            .unwrap_or_default();
        let happened = show::words(call).into_iter().next().unwrap_or_default();
        format!(
            "{} {}{kind}: {outcome}{status}  {happened}",
            self.call,
            index + 1
        )
        .trim_end()
        .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_fits_into_a_header() {
        assert_eq!(
            idempotency_key(" ticket 4711 ").as_deref(),
            Ok("ticket 4711")
        );
        for bad in ["", " ", "a\nb", "\u{e4}", &"x".repeat(256)] {
            assert!(idempotency_key(bad).is_err(), "{bad:?}");
        }
    }
}
