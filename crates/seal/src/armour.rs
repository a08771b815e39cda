//! The one-line text form shared by keys that people keep: `<what and version>:<id>:<key in base64url>`.

use data_encoding::BASE64URL_NOPAD;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::KeyId;

/// What a line of key text holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    /// The first field, e.g. `lockwarden-key-1`.
    pub(crate) prefix: &'static str,
    /// What a person calls it.
    pub(crate) name: &'static str,
    /// The label of the key's id.
    pub(crate) label: &'static str,
}

pub(crate) const RUNNING: Form = Form {
    prefix: "lockwarden-key-1",
    name: "a key-encryption key",
    label: "key-encryption key",
};
pub(crate) const RECOVERY: Form = Form {
    prefix: "lockwarden-recovery-1",
    name: "a private recovery key",
    label: "recovery private key",
};
pub(crate) const RECOVERY_PUBLIC: Form = Form {
    prefix: "lockwarden-recovery-public-1",
    name: "a public recovery key",
    label: "recovery public key",
};
pub(crate) const CHECKPOINT_PUBLIC: Form = Form {
    prefix: "lockwarden-checkpoint-public-1",
    name: "a public checkpoint key",
    label: "checkpoint public key",
};

/// Why a key text was refused. No message repeats any of the text.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeyTextError {
    /// Nothing but comments and blank lines.
    #[error("there is no key in it: expected one line that starts with `{expected}:`")]
    Empty {
        /// The first field that was looked for.
        expected: &'static str,
    },
    /// More than one line that is not a comment.
    #[error("line {line} follows a key: exactly one key is expected, and comments start with #")]
    MoreThanOne {
        /// The first line too many, counting from one.
        line: usize,
    },
    /// A key of this program, but not the one asked for.
    #[error("it holds {found}, and {expected} is needed here")]
    OtherKey {
        /// What is needed.
        expected: &'static str,
        /// What it holds.
        found: &'static str,
    },
    /// Not three fields with a first one we know.
    #[error(
        "line {line} is not a key that this version reads: expected `{expected}:<id>:<key>`, without spaces"
    )]
    Unreadable {
        /// The line, counting from one.
        line: usize,
        /// The first field that was looked for.
        expected: &'static str,
    },
    /// The key field is not 43 characters of base64url.
    #[error(
        "the key on line {line} is damaged: it must be 43 characters of base64url, and nothing may be missing"
    )]
    Damaged {
        /// The line, counting from one.
        line: usize,
    },
    /// The id field does not belong to the key field.
    #[error(
        "the line says key {written}, but the key in it is {computed}: a character was changed"
    )]
    OtherId {
        /// The id that is written.
        written: String,
        /// The id of the key that is written.
        computed: KeyId,
    },
}

/// The line for `bytes`, without a newline.
pub(crate) fn write(form: Form, id: KeyId, bytes: &[u8; 32]) -> Zeroizing<String> {
    let mut key = Zeroizing::new([0; 43]);
    BASE64URL_NOPAD.encode_mut(bytes, key.as_mut_slice());
    let id = id.to_string();
    // Room for all of it at once, so that no smaller copy is left behind in memory.
    let mut text = Zeroizing::new(String::with_capacity(
        form.prefix.len() + id.len() + key.len() + 2,
    ));
    text.push_str(form.prefix);
    text.push(':');
    text.push_str(&id);
    text.push(':');
    for byte in key.iter() {
        text.push(char::from(*byte));
    }
    text
}

/// Reads the one key in `text`. Blank lines and lines that start with `#` are skipped.
pub(crate) fn read(form: Form, text: &str) -> Result<Zeroizing<[u8; 32]>, KeyTextError> {
    let expected = form.prefix;
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let (line, content) = lines.next().ok_or(KeyTextError::Empty { expected })?;
    if let Some((line, _)) = lines.next() {
        return Err(KeyTextError::MoreThanOne { line });
    }
    let unreadable = KeyTextError::Unreadable { line, expected };
    let mut fields = content.split(':');
    let (Some(prefix), Some(written), Some(key), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(unreadable);
    };
    if prefix != form.prefix {
        let other = [RUNNING, RECOVERY, RECOVERY_PUBLIC, CHECKPOINT_PUBLIC]
            .into_iter()
            .find(|other| other.prefix == prefix);
        return Err(match other {
            Some(other) => KeyTextError::OtherKey {
                expected: form.name,
                found: other.name,
            },
            None => unreadable,
        });
    }
    if key.len() != 43 {
        return Err(KeyTextError::Damaged { line });
    }
    let mut bytes = Zeroizing::new([0; 32]);
    BASE64URL_NOPAD
        .decode_mut(key.as_bytes(), bytes.as_mut_slice())
        .map_err(|_| KeyTextError::Damaged { line })?;
    let computed = KeyId::of(form.label, &bytes);
    if written.parse() != Ok(computed) {
        // Cut, for a person may have pasted the key into the place of the id.
        let written = written
            .chars()
            .take(2 * KeyId::BYTES)
            .filter(char::is_ascii_hexdigit)
            .collect();
        return Err(KeyTextError::OtherId { written, computed });
    }
    Ok(bytes)
}
