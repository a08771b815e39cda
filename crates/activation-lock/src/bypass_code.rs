//! What a bypass code is: 16 random bytes, a text form that people type, and the hash that a lock request carries.
//!
//! The format is Apple's own ("Creating and Using Bypass Codes"; contract sheet 0.5 to 0.8). Two things in it surprise:
//! the text is *not* RFC 4648 base32 (its alphabet leaves out B, I, O and S, and the last symbol carries three bits, right
//! aligned, so it is always `0` to `7`); and a lock takes the hash while an unlock takes the text.

use std::fmt;

use rand_core::CryptoRng;
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::hash::{self, Kernel};

/// Bytes in a raw bypass code.
pub const RAW_BYTES: usize = 16;
/// Characters in the text form, dashes included.
pub const TEXT_CHARACTERS: usize = 31;
/// Symbols in the text form, dashes not included.
pub const TEXT_SYMBOLS: usize = 26;
/// Rounds of PBKDF2-HMAC-SHA256 in an [`EscrowKeyHash`].
pub const HASH_ROUNDS: u32 = 50_000;

/// The 32 symbols, each worth its index: five bits.
const SYMBOLS: &[u8; 32] = b"0123456789ACDEFGHJKLMNPQRTUVWXYZ";
/// The characters of the text form that are dashes, counting from one.
const DASH_PLACES: [usize; 5] = [6, 12, 17, 22, 27];
/// Highest value of the last symbol, which carries three bits and not five.
const LAST_SYMBOL_MAX: u8 = 0b111;

/// A bypass code: 16 raw bytes that turn a device's Activation Lock off.
///
/// It is a credential. The type has no `Debug`, `Display` or `Serialize`, compares in constant time and wipes itself when
/// dropped; the text leaves only through [`to_text`](Self::to_text), which is wiped as well. `Clone` is there because a
/// code must sometimes be in two places; each copy wipes itself.
#[derive(Clone, ZeroizeOnDrop)]
pub struct BypassCode {
    raw: [u8; RAW_BYTES],
}

impl BypassCode {
    /// Makes a new code from `rng`, which must be a cryptographic generator seeded by the operating system: whoever can
    /// predict the code can unlock the device.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut code = Self {
            raw: [0; RAW_BYTES],
        };
        rng.fill_bytes(&mut code.raw);
        code
    }

    /// A code from its 16 raw bytes. Every value is a code.
    pub fn from_raw(raw: [u8; RAW_BYTES]) -> Self {
        Self { raw }
    }

    /// The 16 raw bytes. As secret as the text.
    pub fn raw(&self) -> &[u8; RAW_BYTES] {
        &self.raw
    }

    /// The text form: 31 characters, 26 symbols in groups of 5-5-4-4-4-4 with dashes between (contract sheet 0.5, 0.6).
    pub fn to_text(&self) -> Zeroizing<String> {
        let bits = Zeroizing::new(u128::from_be_bytes(self.raw));
        // Room for all of it at once, so that no smaller copy is left behind in memory.
        let mut text = Zeroizing::new(String::with_capacity(TEXT_CHARACTERS));
        for number in 1..=TEXT_SYMBOLS {
            if DASH_PLACES.contains(&(text.len() + 1)) {
                text.push('-');
            }
            text.push(char::from(
                SYMBOLS[usize::from(value_of_symbol(*bits, number))],
            ));
        }
        text
    }

    /// Reads the exact text form and nothing else: 31 characters, dashes in their places, capital letters.
    ///
    /// # Errors
    /// Says which character is wrong and where, counting from one. See [`ParseError`].
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        for (index, found) in text.chars().enumerate() {
            if found != '-' && value_of_char(found).is_none() {
                return Err(ParseError::foreign(index + 1, found));
            }
        }
        let characters = text.chars().count();
        if characters != TEXT_CHARACTERS {
            return Err(ParseError::CharacterCount { found: characters });
        }
        let mut symbols = Symbols::new();
        for (index, found) in text.chars().enumerate() {
            let position = index + 1;
            match (DASH_PLACES.contains(&position), found) {
                (true, '-') => {}
                (true, found) => return Err(ParseError::DashMissing { position, found }),
                (false, '-') => return Err(ParseError::DashMisplaced { position }),
                (false, found) => symbols.take(position, found)?,
            }
        }
        symbols.finish()
    }

    /// Reads what a person typed or pasted. Forgives three things and no fourth: small letters, white space (ASCII white
    /// space and the no-break space of web pages, anywhere), and dashes (ASCII hyphens may be missing or stand anywhere).
    /// A letter that only looks like a symbol is never replaced by it.
    ///
    /// # Errors
    /// Says which character is wrong and where, counting every typed character from one. See [`ParseError`].
    pub fn parse_lenient(text: &str) -> Result<Self, ParseError> {
        let mut symbols = Symbols::new();
        for (index, found) in text.chars().enumerate() {
            if found == '-' || found.is_ascii_whitespace() || found == '\u{a0}' {
                continue;
            }
            let upper = found.to_ascii_uppercase();
            if value_of_char(upper).is_none() {
                return Err(ParseError::foreign(index + 1, found));
            }
            symbols.take(index + 1, upper)?;
        }
        symbols.finish()
    }
}

impl PartialEq for BypassCode {
    /// Takes the same time wherever the first difference is.
    fn eq(&self, other: &Self) -> bool {
        self.raw.ct_eq(&other.raw).into()
    }
}

impl Eq for BypassCode {}

/// The symbols read so far, as the number they write.
struct Symbols {
    bits: Zeroizing<u128>,
    taken: usize,
}

impl Symbols {
    fn new() -> Self {
        Self {
            bits: Zeroizing::new(0),
            taken: 0,
        }
    }

    /// Takes the next symbol. Symbols beyond the last are counted, for the error that follows, and not kept.
    fn take(&mut self, position: usize, symbol: char) -> Result<(), ParseError> {
        let value = value_of_char(symbol).ok_or(ParseError::foreign(position, symbol))?;
        self.taken += 1;
        let width = match self.taken {
            TEXT_SYMBOLS if value > LAST_SYMBOL_MAX => {
                return Err(ParseError::LastSymbol {
                    position,
                    found: symbol,
                });
            }
            TEXT_SYMBOLS => 3,
            1..TEXT_SYMBOLS => 5,
            _ => return Ok(()),
        };
        *self.bits = (*self.bits << width) | u128::from(value);
        Ok(())
    }

    fn finish(self) -> Result<BypassCode, ParseError> {
        if self.taken == TEXT_SYMBOLS {
            Ok(BypassCode {
                raw: self.bits.to_be_bytes(),
            })
        } else {
            Err(ParseError::SymbolCount { found: self.taken })
        }
    }
}

/// The value of symbol `number` (1 to 26) in the text of `bits`, most significant bit first.
fn value_of_symbol(bits: u128, number: usize) -> u8 {
    let (shift, mask) = if number == TEXT_SYMBOLS {
        (0, 0b111)
    } else {
        (128 - 5 * number, 0b1_1111)
    };
    ((bits >> shift) & mask) as u8
}

fn value_of_char(symbol: char) -> Option<u8> {
    let byte = u8::try_from(symbol).ok()?;
    SYMBOLS
        .iter()
        .position(|&known| known == byte)
        .and_then(|index| u8::try_from(index).ok())
}

/// Why a text is not a bypass code.
///
/// An error names at most one character and its place, never the text: it may be shown and logged. Places count
/// characters of the given text from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// A character that no bypass code contains.
    #[error("character {position} is {found:?}, which no bypass code contains{}", Likely(*.likely))]
    ForeignCharacter {
        /// Its place.
        position: usize,
        /// The character.
        found: char,
        /// The symbol it was probably meant to be (B for 8, I for 1, O for 0, S for 5). For a person to look at; it is
        /// never put in by the program.
        likely: Option<char>,
    },
    /// A small letter, where the exact form has capitals.
    #[error(
        "character {position} is the small letter {found:?}; the exact form of a bypass code has capital letters"
    )]
    SmallLetter {
        /// Its place.
        position: usize,
        /// The letter.
        found: char,
    },
    /// The exact form with too many or too few characters.
    #[error(
        "the exact form of a bypass code has 31 characters, dashes included (5-5-4-4-4-4); this text has {found}"
    )]
    CharacterCount {
        /// How many characters the text has, dashes included.
        found: usize,
    },
    /// Too many or too few symbols.
    #[error("a bypass code has 26 letters and digits, dashes not counted; this text has {found}")]
    SymbolCount {
        /// How many symbols the text has, without dashes and spaces.
        found: usize,
    },
    /// A symbol where the exact form has a dash.
    #[error("character {position} is {found:?} where a dash belongs (the groups are 5-5-4-4-4-4)")]
    DashMissing {
        /// Its place.
        position: usize,
        /// The symbol found there.
        found: char,
    },
    /// A dash where the exact form has a symbol.
    #[error(
        "character {position} is a dash where a letter or digit belongs (the groups are 5-5-4-4-4-4)"
    )]
    DashMisplaced {
        /// Its place.
        position: usize,
    },
    /// A last symbol of 8 or more: it carries three bits only.
    #[error(
        "character {position} is {found:?}, but the last character of a bypass code is always one of 0 to 7"
    )]
    LastSymbol {
        /// Its place.
        position: usize,
        /// The symbol found there.
        found: char,
    },
}

impl ParseError {
    fn foreign(position: usize, found: char) -> Self {
        let likely = match found {
            'B' | 'b' => Some('8'),
            'I' | 'i' => Some('1'),
            'O' | 'o' => Some('0'),
            'S' | 's' => Some('5'),
            _ => None,
        };
        if likely.is_none() && found.is_ascii_lowercase() {
            Self::SmallLetter { position, found }
        } else {
            Self::ForeignCharacter {
                position,
                found,
                likely,
            }
        }
    }
}

/// The end of the sentence about a foreign character.
struct Likely(Option<char>);

impl fmt::Display for Likely {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(symbol) => write!(f, "; look at the code again, it may be {symbol:?}"),
            None => Ok(()),
        }
    }
}

/// What a lock request sends as `escrow_key`: the hash of a code, 32 bytes. An unlock takes the code itself, and the hash
/// cannot give the code back (contract sheet 0.8).
///
/// `Display` writes 64 upper-case hexadecimal digits, as Apple's sample prints them; there is no `Debug`, for a hash has
/// no business in a log. Two hashes are equal when their bytes are, whatever the case of the text they came from.
#[derive(Clone, ZeroizeOnDrop)]
pub struct EscrowKeyHash {
    bytes: [u8; Self::BYTES],
}

impl EscrowKeyHash {
    /// Length in bytes.
    pub const BYTES: usize = 32;
    /// Length as hexadecimal digits.
    pub const HEX_DIGITS: usize = 64;

    /// The hash of a code: PBKDF2-HMAC-SHA256 over the 16 raw bytes (not the text), salted with four zero bytes, 50,000 rounds (contract
    /// sheet 0.7). Takes milliseconds by design, more in an unoptimised build.
    ///
    /// ```
    /// use activation_lock::bypass_code::{BypassCode, EscrowKeyHash};
    ///
    /// let code = BypassCode::parse("A8QK7-GFG21-6RHT-V0U9-756P-L7E3")?;
    /// assert_eq!(EscrowKeyHash::of(&code).to_string().len(), EscrowKeyHash::HEX_DIGITS);
    /// # Ok::<(), activation_lock::bypass_code::ParseError>(())
    /// ```
    pub fn of(code: &BypassCode) -> Self {
        Kernel::best()
            .hash(std::slice::from_ref(code), HASH_ROUNDS)
            .pop()
            .expect("one code has one hash")
    }

    /// The hashes of many codes, in their order, on as many threads as the machine runs at once: several times as many a second as one by
    /// one (see `docs/PERFORMANCE.md`).
    ///
    /// ```
    /// use activation_lock::bypass_code::{BypassCode, EscrowKeyHash};
    ///
    /// let codes = [BypassCode::from_raw([1; 16]), BypassCode::from_raw([2; 16])];
    /// let hashes = EscrowKeyHash::of_batch(&codes);
    /// assert!(hashes[1] == EscrowKeyHash::of(&codes[1]));
    /// ```
    pub fn of_batch(codes: &[BypassCode]) -> Vec<Self> {
        hash::of_batch(codes, HASH_ROUNDS)
    }

    /// The same by one kernel on this thread, to measure it.
    ///
    /// # Panics
    /// When this processor has not got what the kernel takes.
    pub fn of_batch_by(kernel: Kernel, codes: &[BypassCode]) -> Vec<Self> {
        kernel.hash(codes, HASH_ROUNDS)
    }

    /// A hash from its 32 bytes.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self { bytes }
    }

    /// Reads exactly 64 hexadecimal digits of either case: both are in use (contract sheet 0.7).
    ///
    /// # Errors
    /// Names the first character that is not a hexadecimal digit, else the wrong length.
    pub fn from_hex(text: &str) -> Result<Self, HashParseError> {
        let mut hash = Self {
            bytes: [0; Self::BYTES],
        };
        let mut digits = 0;
        for (index, found) in text.chars().enumerate() {
            let value = found.to_digit(16).ok_or(HashParseError::ForeignCharacter {
                position: index + 1,
                found,
            })?;
            if let Some(byte) = hash.bytes.get_mut(index / 2) {
                *byte = (*byte << 4) | value as u8;
            }
            digits += 1;
        }
        if digits == Self::HEX_DIGITS {
            Ok(hash)
        } else {
            Err(HashParseError::DigitCount { found: digits })
        }
    }

    /// The 32 bytes.
    pub fn bytes(&self) -> &[u8; Self::BYTES] {
        &self.bytes
    }
}

impl fmt::Display for EscrowKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl PartialEq for EscrowKeyHash {
    /// Takes the same time wherever the first difference is.
    fn eq(&self, other: &Self) -> bool {
        self.bytes.ct_eq(&other.bytes).into()
    }
}

impl Eq for EscrowKeyHash {}

/// Why a text is not an [`EscrowKeyHash`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HashParseError {
    /// A character that is not a hexadecimal digit.
    #[error("character {position} is {found:?}, which is not a hexadecimal digit")]
    ForeignCharacter {
        /// Its place, counting characters from one.
        position: usize,
        /// The character.
        found: char,
    },
    /// Too many or too few digits.
    #[error("the hash of a bypass code has 64 hexadecimal digits; this text has {found}")]
    DigitCount {
        /// How many digits the text has.
        found: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPLES_EXAMPLE: &str = "A8QK7-GFG21-6RHT-V0U9-756P-L7E3";

    /// The error of a text that must not parse. Shown without the text, as everywhere.
    fn refused(result: Result<BypassCode, ParseError>) -> ParseError {
        result.err().expect("this text is not a bypass code")
    }

    #[test]
    fn t2_the_strict_parser_refuses_a_wrong_length() {
        let short = refused(BypassCode::parse("00000-00000-0000-0000-0000-000"));
        let long = refused(BypassCode::parse("00000-00000-0000-0000-0000-00000"));
        assert_eq!(short, ParseError::CharacterCount { found: 30 });
        assert_eq!(long, ParseError::CharacterCount { found: 32 });
        assert_eq!(
            refused(BypassCode::parse("")),
            ParseError::CharacterCount { found: 0 }
        );
        assert_eq!(
            refused(BypassCode::parse("00000000000000000000000000")),
            ParseError::CharacterCount { found: 26 }
        );
    }

    #[test]
    fn t2_the_strict_parser_names_the_first_dash_out_of_place() {
        assert_eq!(
            refused(BypassCode::parse("0000-000000-0000-0000-0000-0000")),
            ParseError::DashMisplaced { position: 5 }
        );
        assert_eq!(
            refused(BypassCode::parse("000000-0000-0000-0000-0000-0000")),
            ParseError::DashMissing {
                position: 6,
                found: '0'
            }
        );
        assert_eq!(
            refused(BypassCode::parse("00000--0000-0000-0000-0000-0000")),
            ParseError::DashMisplaced { position: 7 }
        );
        assert_eq!(
            refused(BypassCode::parse("-00000-0000-0000-0000-0000-0000")),
            ParseError::DashMisplaced { position: 1 }
        );
        assert_eq!(
            refused(BypassCode::parse("-------------------------------")),
            ParseError::DashMisplaced { position: 1 }
        );
    }

    #[test]
    fn t2_a_letter_outside_the_alphabet_is_named_with_its_likely_symbol_and_never_replaced() {
        for (letter, likely) in [('B', '8'), ('I', '1'), ('O', '0'), ('S', '5')] {
            let text = format!("00{letter}00-00000-0000-0000-0000-0000");
            let wanted = ParseError::ForeignCharacter {
                position: 3,
                found: letter,
                likely: Some(likely),
            };
            assert_eq!(refused(BypassCode::parse(&text)), wanted);
            assert_eq!(refused(BypassCode::parse_lenient(&text)), wanted);
            let small = letter.to_ascii_lowercase();
            let wanted = ParseError::ForeignCharacter {
                position: 3,
                found: small,
                likely: Some(likely),
            };
            assert_eq!(
                refused(BypassCode::parse_lenient(&text.to_lowercase())),
                wanted
            );
            let sentence = wanted.to_string();
            assert!(
                sentence.contains("character 3") && sentence.contains(likely),
                "{sentence}"
            );
        }
    }

    #[test]
    fn t2_a_small_letter_is_refused_by_the_strict_parser_and_read_by_the_lenient_one() {
        let small = APPLES_EXAMPLE.to_lowercase();
        assert_eq!(
            refused(BypassCode::parse(&small)),
            ParseError::SmallLetter {
                position: 1,
                found: 'a'
            }
        );
        assert!(BypassCode::parse_lenient(&small).ok() == BypassCode::parse(APPLES_EXAMPLE).ok());
    }

    #[test]
    fn t2_a_last_symbol_of_eight_or_more_is_refused_by_both_parsers() {
        for last in SYMBOLS {
            let text = format!("00000-00000-0000-0000-0000-000{}", char::from(*last));
            let fits = (b'0'..=b'7').contains(last);
            assert_eq!(BypassCode::parse(&text).is_ok(), fits);
            assert_eq!(BypassCode::parse_lenient(&text).is_ok(), fits);
            if !fits {
                let wanted = ParseError::LastSymbol {
                    position: 31,
                    found: char::from(*last),
                };
                assert_eq!(refused(BypassCode::parse(&text)), wanted);
            }
        }
    }

    #[test]
    fn the_lenient_parser_forgives_case_spaces_and_dashes() {
        let code = BypassCode::parse(APPLES_EXAMPLE).ok();
        assert!(code.is_some());
        for typed in [
            "A8QK7GFG216RHTV0U9756PL7E3",
            "a8qk7 gfg21 6rht v0u9 756p l7e3",
            "  A8QK7-GFG21-6RHT-V0U9-756P-L7E3\r\n",
            "A8QK\u{a0}7GFG2\t16RHTV0U9756PL7E3",
            "A-8QK7--GFG216RHT-V0U9-756P-L7E-3-",
        ] {
            assert!(BypassCode::parse_lenient(typed).ok() == code);
        }
    }

    #[test]
    fn the_lenient_parser_forgives_nothing_else() {
        for (foreign, position) in [
            ('\u{2013}', 6),
            ('\u{ff10}', 6),
            ('\u{200b}', 6),
            ('\u{131}', 6),
            ('.', 6),
            ('_', 6),
        ] {
            let text = format!("A8QK7{foreign}GFG21-6RHT-V0U9-756P-L7E3");
            let wanted = ParseError::ForeignCharacter {
                position,
                found: foreign,
                likely: None,
            };
            assert_eq!(refused(BypassCode::parse_lenient(&text)), wanted);
        }
        assert_eq!(
            refused(BypassCode::parse_lenient(" - ")),
            ParseError::SymbolCount { found: 0 }
        );
        assert_eq!(
            refused(BypassCode::parse_lenient(&APPLES_EXAMPLE[..30])),
            ParseError::SymbolCount { found: 25 }
        );
        assert_eq!(
            refused(BypassCode::parse_lenient(&APPLES_EXAMPLE.repeat(2))),
            ParseError::SymbolCount { found: 52 }
        );
    }

    #[test]
    fn r23_no_error_repeats_more_of_the_text_than_one_character() {
        let bad = [
            "A8QK7-GFG21-6RHT-V0U9-756P-L7E",
            "A8QK7-GFG21-6RHT-V0U9-756P-L7E8",
            "A8QK7-GFG21-6BHT-V0U9-756P-L7E3",
            "A8QK7GFG21-6RHT-V0U9-756P-L7E3-",
            "A8QK7-GFG21-6RHT-V0U9-756P-L7e3",
        ];
        for text in bad {
            let error = refused(BypassCode::parse(text));
            for shown in [format!("{error}"), format!("{error:?}")] {
                let leaked = text.as_bytes().windows(3).any(|three| {
                    shown.contains(std::str::from_utf8(three).expect("these texts are ASCII"))
                });
                assert!(!leaked, "an error repeats part of the text");
            }
        }
    }

    #[test]
    fn generate_takes_its_bytes_from_the_given_generator() {
        use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
        let first = BypassCode::generate(&mut ChaCha20Rng::seed_from_u64(1));
        let same = BypassCode::generate(&mut ChaCha20Rng::seed_from_u64(1));
        let other = BypassCode::generate(&mut ChaCha20Rng::seed_from_u64(2));
        assert!(first == same && first != other);
        let mut dynamic: Box<dyn CryptoRng> = Box::new(ChaCha20Rng::seed_from_u64(1));
        assert!(BypassCode::generate(&mut *dynamic) == first);
    }

    #[test]
    fn a_hash_reads_both_cases_and_compares_bytes() {
        let upper = "6789C28A5A596746AF3E7E4D18FACB19C1161E4053CCCA02A3E65CE838938C0E";
        let hash = EscrowKeyHash::from_hex(upper).expect("64 digits");
        assert!(EscrowKeyHash::from_hex(&upper.to_lowercase()).ok() == Some(hash.clone()));
        assert!(hash.to_string() == upper);
        assert!(EscrowKeyHash::from_bytes(*hash.bytes()) == hash);
        assert!(EscrowKeyHash::from_bytes([0; 32]) != hash);
        let foreign = HashParseError::ForeignCharacter {
            position: 2,
            found: 'G',
        };
        assert_eq!(EscrowKeyHash::from_hex("0G").err(), Some(foreign));
        assert_eq!(
            EscrowKeyHash::from_hex(&upper[1..]).err(),
            Some(HashParseError::DigitCount { found: 63 })
        );
        assert_eq!(
            EscrowKeyHash::from_hex(&upper.repeat(2)).err(),
            Some(HashParseError::DigitCount { found: 128 })
        );
    }
}
