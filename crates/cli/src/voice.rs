//! How the program speaks: data on standard output, talk on standard error, and failures with what to do about them.

use std::fmt;
use std::io::{self, Write as _};

use serde::Serialize;
use zeroize::Zeroizing;

/// It did what was asked.
pub(crate) const DONE: u8 = 0;
/// It could not; the message says why.
pub(crate) const FAILED: u8 = 1;
/// It was asked in a way it does not understand; nothing was done.
pub(crate) const USAGE: u8 = 2;

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
        let line = Zeroizing::new(if self.json {
            serde_json::to_string(value).map_err(|error| {
                Failure::new(format!("the result cannot be written as JSON: {error}"))
            })?
        } else {
            text()
        });
        self.line(&line)
    }

    /// One line of data as it is, whatever is asked for.
    ///
    /// # Errors
    /// When standard output takes no more; a reader that has gone away is no error.
    pub(crate) fn line(self, line: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let written = out
            .write_all(line.as_bytes())
            .and_then(|()| {
                if line.ends_with('\n') || line.is_empty() {
                    Ok(())
                } else {
                    out.write_all(b"\n")
                }
            })
            .and_then(|()| out.flush());
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(format!(
                "standard output cannot be written: {error}"
            ))),
            _ => Ok(()),
        }
    }

    /// Talk: what a person may want to know while it goes on.
    pub(crate) fn talk(self, line: impl AsRef<str>) {
        // There is nobody left to tell when standard error is closed.
        let _ = writeln!(io::stderr().lock(), "{}", line.as_ref());
    }

    /// A failure, and what to do about it.
    pub(crate) fn failure(self, failure: &Failure) {
        if self.json {
            let value = serde_json::json!({ "error": failure.what, "hint": failure.hint });
            self.talk(value.to_string());
        } else {
            self.talk(format!("error: {}", failure.what));
            if let Some(hint) = &failure.hint {
                self.talk(format!("hint: {hint}"));
            }
        }
    }
}
