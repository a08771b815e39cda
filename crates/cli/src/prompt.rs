//! What a person types at a terminal. Secrets are not shown while they are typed.

use std::io::{self, IsTerminal as _};
use std::path::Path;

use zeroize::Zeroizing;

use crate::secret_file;
use crate::voice::Failure;

/// A secret: from a file when one is named, else typed at the terminal. `what` is what is asked for, such as `Password`;
/// `option` names the option that would name a file.
///
/// # Errors
/// When there is neither a file nor a terminal, or it cannot be read.
pub(crate) fn secret(
    file: Option<&Path>,
    what: &str,
    option: &str,
) -> Result<Zeroizing<String>, Failure> {
    if let Some(path) = file {
        return secret_file::read_word(path, &format!("the file of {option}"));
    }
    if !io::stdin().is_terminal() {
        return Err(
            Failure::usage(format!("{what} cannot be asked for: there is no terminal")).hint(
                format!("{option} names a file that holds it; - is standard input"),
            ),
        );
    }
    rpassword::prompt_password(format!("{what}: "))
        .map(Zeroizing::new)
        .map_err(|error| Failure::new(format!("nothing could be read from the terminal: {error}")))
}

/// A new password, typed twice when it is typed.
///
/// # Errors
/// As [`secret`]; or when the two are not the same.
pub(crate) fn new_password(
    file: Option<&Path>,
    option: &str,
) -> Result<Zeroizing<String>, Failure> {
    let first = secret(file, "New password", option)?;
    if file.is_none() && secret(None, "The same again", option)? != first {
        return Err(Failure::new(
            "the two are not the same: nothing was changed",
        ));
    }
    Ok(first)
}
