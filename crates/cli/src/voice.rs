//! How the program speaks: data on standard output, talk on standard error, and failures with what to do about them.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write as _};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use zeroize::Zeroizing;

/// It did what was asked.
pub(crate) const DONE: u8 = 0;
/// It could not; the message says why.
pub(crate) const FAILED: u8 = 1;
/// It was asked in a way it does not understand; nothing was done.
pub(crate) const USAGE: u8 = 2;

/// Others were asked to approve it first.
pub(crate) const ASKED: u8 = 10;

/// Why a command did not do what was asked, and what to do now. Holds no secret: it is printed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What happened, and what it means.
    pub(crate) what: String,
    /// What to do.
    pub(crate) hint: Option<String>,
    /// The exit status.
    pub(crate) status: u8,
}

impl Failure {
    /// Something did not work.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: None,
            status: FAILED,
        }
    }

    /// The command line asks for something that cannot be.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self {
            status: USAGE,
            ..Self::new(what)
        }
    }

    /// What to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// What a command gives: the exit status, or why it failed.
pub(crate) type Outcome = Result<u8, Failure>;

/// How far something is that has so many parts; shown where standard error is a terminal.
pub(crate) fn bar(parts: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:40} {human_pos} of {human_len}, {per_sec}, {eta} left");
    ProgressBar::new(parts).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The two outputs of a command.
#[derive(Clone, Copy)]
pub(crate) struct Voice {
    json: bool,
}

impl Voice {
    /// With `json`, data is JSON, one value a line.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether data is asked for as JSON.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Data: `value` on one line when JSON is asked for, else the text.
    ///
    /// # Errors
    /// When standard output takes no more; a reader that has gone away is no error.
    pub(crate) fn data(
        self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        // Wiped, since some data are codes: what is printed is meant to be seen, what stays in memory is not.
        if self.json {
            let line = Zeroizing::new(serde_json::to_string(value).map_err(|error| {
                Failure::new(format!("the result cannot be written as JSON: {error}"))
            })?);
            self.raw(&line)
        } else {
            self.line(&Zeroizing::new(text()))
        }
    }

    /// Something was done that gives no data of its own: talk for people, an object for programs.
    ///
    /// # Errors
    /// When standard output takes no more; a reader that has gone away is no error.
    pub(crate) fn done(self, what: &str, subject: &str, talk: impl AsRef<str>) -> Outcome {
        if self.json {
            self.data(&serde_json::json!({ what: subject }), String::new)?;
        }
        self.talk(talk);
        Ok(DONE)
    }

    /// Lines of data for people, whatever is asked for.
    ///
    /// # Errors
    /// When standard output takes no more; a reader that has gone away is no error.
    pub(crate) fn line(self, line: &str) -> Result<(), Failure> {
        self.raw(&Zeroizing::new(visible(line, &['\n']).into_owned()))
    }

    /// One line of data for programs, such as JSON, as it is.
    ///
    /// # Errors
    /// When standard output takes no more; a reader that has gone away is no error.
    pub(crate) fn raw(self, line: &str) -> Result<(), Failure> {
        let is_whole = line.ends_with('\n') || line.is_empty();
        self.pour(line)?;
        if !is_whole {
            self.pour("\n")?;
        }
        Ok(())
    }

    /// Data of any length, as it is. False when the reader has gone away: what is left is worth no work.
    ///
    /// # Errors
    /// When standard output takes no more.
    pub(crate) fn pour(self, data: &str) -> Result<bool, Failure> {
        let mut out = io::stdout().lock();
        let written = out.write_all(data.as_bytes()).and_then(|()| out.flush());
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::new(format!(
                "standard output cannot be written: {error}"
            ))),
        }
    }

    /// Talk: what a person may want to know while it goes on.
    pub(crate) fn talk(self, line: impl AsRef<str>) {
        tell(&visible(line.as_ref(), &['\n']));
    }

    /// A failure, and what to do about it.
    pub(crate) fn failure(self, failure: &Failure) {
        if self.json {
            let value = serde_json::json!({ "error": failure.what, "hint": failure.hint });
            tell(&value.to_string());
        } else {
            self.talk(format!("error: {}", failure.what));
            if let Some(hint) = &failure.hint {
                self.talk(format!("hint: {hint}"));
            }
        }
    }
}

fn tell(line: &str) {
    // There is nobody left to tell when standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A text that others wrote, such as a device's name or a reason, as a terminal may have it: what would change what else is
/// seen there is written as `\u{1b}`.
pub(crate) fn visible<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    let is_fine = |c: char| !server::misleads(c) || kept.contains(&c);
    if text.chars().all(is_fine) {
        return Cow::Borrowed(text);
    }
    // Six characters for each byte at most, so that no smaller copy of a code is left behind in memory.
    let mut shown = String::with_capacity(6 * text.len());
    for c in text.chars() {
        if is_fine(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_unicode());
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_changes_nothing_on_a_terminal() {
        assert_eq!(visible("Anna\u{1b}]0;x\u{7}", &[]), "Anna\\u{1b}]0;x\\u{7}");
        assert_eq!(visible("a\u{202e}b\u{9b}c", &[]), "a\\u{202e}b\\u{9b}c");
        assert_eq!(visible("one\ntwo", &[]), "one\\u{a}two");
        assert_eq!(visible("one\ntwo", &['\n']), "one\ntwo");
        assert!(matches!(
            visible("M\u{fc}ller \u{5d0}", &[]),
            Cow::Borrowed(_)
        ));
    }
}
