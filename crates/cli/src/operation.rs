//! Unlocks and locks, which are asked for and watched to their end in the same way.

use std::time::Duration;

use activation_lock::device::SerialNumber;
use data_encoding::HEXLOWER;
use reqwest::StatusCode;
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
    /// What is shown of one, by heading and key. Those of [`Kind::page`] follow.
    pub(crate) facts: &'static [(&'static str, &'static str)],
    /// What is shown of each of its calls, by heading and key.
    pub(crate) columns: &'static [(&'static str, &'static str)],
    /// The exit status of the state it ended in.
    pub(crate) exit_status: fn(&str) -> u8,
}

/// What is shown of either.
const FACTS: &[(&str, &str)] = &[
    ("for", "requester"),
    ("asked by", "requested_by"),
    ("asked at", "requested_at"),
    ("waits until", "until"),
    ("deadline", "deadline"),
    ("cancelled by", "cancelled_by"),
    ("ended", "ended_at"),
];

fn needs_review(operation: &Value) -> bool {
    operation
        .get("state")
        .is_some_and(|state| state == "needs_review")
}

/// Until when it waits, if it does.
fn until(operation: &Value) -> Option<String> {
    let waiting = operation
        .get("waiting")
        .filter(|one| one.get("until").is_some_and(Value::is_string))?;
    Some(show::cell(waiting, "until"))
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

/// One that was never used.
pub(crate) fn new_key() -> String {
    let mut bytes = [0; 16];
    machine::random().fill(&mut bytes);
    HEXLOWER.encode(&bytes)
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
        let key = key.unwrap_or_else(new_key);
        let path = ["devices", serial.as_str(), self.one];
        let answer = api.ask(Ask::post(&path).json(wish)?.once(&key)).await?;
        let asked = answer.json()?;
        let id = asked.get("id").and_then(Value::as_str).ok_or_else(|| {
            Failure::new(format!("the server's answer names no {}", self.one))
                .hint("is the server of the same version?")
        })?;
        let is_under_way = answer.status == StatusCode::OK;
        if is_under_way {
            voice.talk(format!(
                "{} {id} is under way since {}; yours adds nothing to it, and is on record",
                self.one,
                show::cell(&asked, "requested_at")
            ));
        }
        if !wait {
            voice.data(&asked, || format!("{id}  {}", show::cell(&asked, "state")))?;
            let asked_for = if is_under_way { "" } else { "asked for; " };
            voice.talk(format!(
                "{asked_for}`lockwarden {} show {id}` shows how it stands",
                self.all
            ));
            return Ok(DONE);
        }
        if !is_under_way {
            voice.talk(format!(
                "{} {id} is {}; it goes on when you leave this",
                self.one,
                show::cell(&asked, "state")
            ));
        }
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
            if needs_review(&ended) {
                lines.extend(self.answers(&ended));
            }
            lines.extend(self.next(&ended));
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
                let until = until(&operation).map(|until| format!(" until {until}"));
                let until = until.unwrap_or_default();
                format!("waiting{until}: {}", show::sentences(&operation))
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

    /// One as it stands, with each of its calls.
    pub(crate) fn page(&self, operation: &Value) -> String {
        let facts: Vec<_> = self.facts.iter().chain(FACTS).copied().collect();
        let mut known = operation.clone();
        known["until"] = operation
            .pointer("/waiting/until")
            .cloned()
            .unwrap_or_default();
        let mut lines = vec![show::pairs(&known, &facts)];
        lines.extend(show::words(operation));
        lines.extend(self.next(operation));
        let calls = operation.get(self.calls).map_or(&[][..], show::rows);
        if !calls.is_empty() {
            lines.push(format!("\n{}", show::table(self.columns, calls)));
        }
        lines.extend(self.answers(operation));
        lines.join("\n")
    }

    /// The texts of the answers that have one, each on its own line.
    fn answers(&self, operation: &Value) -> Vec<String> {
        let calls = operation.get(self.calls).map_or(&[][..], show::rows);
        let texts = calls.iter().filter(|call| {
            let text = call.get("diagnostic").and_then(Value::as_str);
            text.is_some_and(|text| !text.is_empty())
        });
        let line = |call| {
            let (number, text) = (show::cell(call, "position"), show::cell(call, "diagnostic"));
            format!("answer to {} {number}: {text}", self.call)
        };
        texts.map(line).collect()
    }

    /// The commands that a person has to choose from, where it waits for one.
    fn next(&self, operation: &Value) -> Option<String> {
        let id = operation.get("id").and_then(Value::as_str)?;
        let all = self.all;
        needs_review(operation).then(|| {
            format!("`lockwarden {all} continue {id}` lets it go on, `lockwarden {all} cancel {id}` ends it")
        })
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
        let happened = show::happened(call).unwrap_or_default();
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
