//! Bypass codes as a device and Apple see them: a second writing of the format, kept apart from the product's own so
//! that each checks the other. Contract sheet 0.5 to 0.7.

use std::{fmt, num::NonZeroU32};

use aws_lc_rs::pbkdf2;

/// The 32 symbols; a symbol's place is its value.
const SYMBOLS: &[u8; 32] = b"0123456789ACDEFGHJKLMNPQRTUVWXYZ";
/// How many symbols stand in each group of the text.
const GROUPS: [usize; 6] = [5, 5, 4, 4, 4, 4];
/// PBKDF2 rounds.
const ROUNDS: NonZeroU32 = NonZeroU32::new(50_000).expect("not zero");

/// A bypass code: 16 bytes. Without `Debug` or `Display`, so that it reaches no log by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Code([u8; 16]);

/// What Apple keeps of a code: PBKDF2-HMAC-SHA256 of its 16 bytes, 32 bytes long (the `escrow_key` of a lock call).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CodeHash([u8; 32]);

impl Code {
    /// The code of these bytes.
    pub fn from_raw(raw: [u8; 16]) -> Self {
        Self(raw)
    }

    /// Reads the canonical text alone: 31 characters, upper case, dashes in their places, last symbol `0` to `7`.
    /// Anything else is `None`: to this Apple it is opaque text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut groups = text.split('-');
        let mut value: u128 = 0;
        let mut symbols = 0;
        for length in GROUPS {
            let group = groups.next().filter(|group| group.len() == length)?;
            for symbol in group.bytes() {
                let bits = SYMBOLS.iter().position(|known| *known == symbol)? as u128;
                symbols += 1;
                value = match symbols {
                    26 if bits > 7 => return None,
                    26 => (value << 3) | bits,
                    _ => (value << 5) | bits,
                };
            }
        }
        groups.next().is_none().then(|| Self(value.to_be_bytes()))
    }

    /// The canonical text, 31 characters.
    pub fn text(&self) -> String {
        let value = u128::from_be_bytes(self.0);
        let symbol = |place: usize| {
            let bits = if place == 25 {
                value & 7
            } else {
                (value >> (128 - 5 * (place + 1))) & 31
            };
            char::from(SYMBOLS[bits as usize])
        };
        let mut text = String::with_capacity(31);
        let mut place = 0;
        for (index, length) in GROUPS.into_iter().enumerate() {
            if index > 0 {
                text.push('-');
            }
            text.extend((place..place + length).map(symbol));
            place += length;
        }
        text
    }

    /// The hash that a lock call carries for this code. About 10 ms.
    pub fn hash(&self) -> CodeHash {
        let mut hash = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            ROUNDS,
            &[0; 4],
            &self.0,
            &mut hash,
        );
        CodeHash(hash)
    }
}

impl CodeHash {
    /// Reads 64 hexadecimal digits of either case; `None` for anything else.
    pub fn parse(hex: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE
            .decode(hex.as_bytes())
            .ok()?;
        Some(Self(bytes.try_into().ok()?))
    }

    /// The 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// 64 upper-case hexadecimal digits, as Apple's sample prints them.
    pub fn hex(&self) -> String {
        data_encoding::HEXUPPER.encode(&self.0)
    }
}

impl fmt::Debug for CodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeHash(..)")
    }
}

/// What journals keep instead of a code: the SHA-256 of its text, in lower-case hexadecimal digits.
pub fn fingerprint(text: &str) -> String {
    use sha2::Digest;
    data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(text.as_bytes()))
}

/// What a lock accepts.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// A code with this hash.
    Hash(CodeHash),
    /// Exactly this text, which is no canonical code.
    Text(String),
    /// No code at all: it is the lock of the person who made the server's entry in the portal (contract sheet 2.3).
    Nothing,
}

impl Accepts {
    /// The key that this text opens.
    pub(crate) fn from_text(text: &str) -> Self {
        match Code::parse(text) {
            Some(code) => Self::Hash(code.hash()),
            None => Self::Text(text.to_owned()),
        }
    }

    /// Whether the text opens it.
    pub(crate) fn opens_with(&self, text: &str) -> bool {
        match self {
            Self::Hash(hash) => Code::parse(text).is_some_and(|code| code.hash() == *hash),
            Self::Text(accepted) => accepted == text,
            Self::Nothing => false,
        }
    }
}
