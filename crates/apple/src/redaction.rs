//! Takes codes out of a text that somebody else wrote (R23): what Apple or an MDM answers may repeat what was sent.
//!
//! Three nets, each wider than the one before: the encodings that are known, anything with the look of a code or of its
//! hash, and last, when the code or an encoding of it still shows through after undoing every escape and ignoring everything
//! between letters and digits, the whole text is withheld.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use data_encoding::HEXLOWER;
use zeroize::{Zeroize as _, Zeroizing};

use activation_lock::bypass_code::BypassCode;

use crate::unverified::DIAGNOSTIC_LIMIT;

/// What stands where a code was.
pub const MARK: &str = "[code]";
/// What stands where a whole text was.
pub const WITHHELD: &str =
    "[withheld: the text repeats the code in a way that could not be cut out]";

/// Codes with fewer letters and digits than this are not looked for through escapes: they would be found everywhere.
const TELLING: usize = 6;
/// Longer than any encoding of a bypass code that is looked for, in bytes.
const LONGEST: usize = 1024;
/// How many times longer than a text its longest encoding may be, every character of it escaped.
const LONGEST_TIMES: usize = 10;

/// The text that may be kept, shown and logged of an answer's body to a call that carried `codes`: readable, without any of
/// them in any encoding, at most 4,096 characters.
///
/// `cut` says that the body went on: its end, which may hold half a code, is dropped.
#[must_use]
pub fn diagnostic(body: &[u8], cut: bool, codes: &[&str]) -> String {
    let longest = codes
        .iter()
        .map(|code| code.len().saturating_mul(LONGEST_TIMES))
        .fold(LONGEST, usize::max);
    let body = match cut {
        true => &body[..body.len().saturating_sub(longest)],
        false => body,
    };
    let mut text = Zeroizing::new(readable(&String::from_utf8_lossy(body)));
    let needles: Vec<_> = codes.iter().map(|code| needles(code)).collect();
    for needles in &needles {
        let spans = spans(&text, needles);
        text = Zeroizing::new(without(&text, spans));
    }
    text = Zeroizing::new(without_shapes(&text));
    if needles.iter().any(|needles| shows_through(&text, needles)) {
        return WITHHELD.to_owned();
    }
    match text.char_indices().nth(DIAGNOSTIC_LIMIT) {
        Some((end, _)) => text[..end].to_owned(),
        None => text.trim().to_owned(),
    }
}

/// Whether an answer that is to be understood, not shown, repeats one of the secrets that its question carried, in any
/// encoding. What is in its fields is kept and shown later, when nobody knows the secrets any more.
#[must_use]
pub fn repeats(body: &[u8], secrets: &[&str]) -> bool {
    let small = Zeroizing::new(body.to_ascii_lowercase());
    secrets.iter().any(|secret| {
        let needles = needles(secret);
        needles
            .iter()
            .filter(|needle| needle.len() >= TELLING)
            .any(|needle| memchr::memmem::find(&small, needle.as_bytes()).is_some())
    })
}

/// The text without anything that has the look of a bypass code or of a code's hash, for texts where no code is expected.
#[must_use]
pub fn without_shapes(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut spans = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_alphanumeric() {
            at += 1;
            continue;
        }
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        let length = bytes[at..].iter().take_while(|byte| is_part(byte)).count();
        let word = &text[at..at + length];
        let is_hash = word.len() >= 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash || BypassCode::parse_lenient(word).is_ok() {
            spans.push((at, at + length));
        }
        at += length;
    }
    without(text, spans)
}

/// Without control characters: they could forge a log line, and a text in UTF-16 is full of them.
pub(crate) fn readable(text: &str) -> String {
    text.chars()
        .filter_map(|c| match c {
            '\n' | '\t' => Some(' '),
            c if c.is_control() => None,
            '\u{feff}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => None,
            c => Some(c),
        })
        .collect()
}

/// Every encoding of a code that is looked for, in small letters. Wiped when dropped.
fn needles(code: &str) -> Vec<Zeroizing<String>> {
    let mut texts: Vec<Zeroizing<String>> = vec![Zeroizing::new(code.to_owned())];
    let mut raw = None;
    if let Ok(parsed) = BypassCode::parse_lenient(code) {
        texts.push(parsed.to_text());
        raw = Some(parsed);
    }
    let bare: Vec<_> = texts
        .iter()
        .map(|text| Zeroizing::new(text.chars().filter(|c| c.is_alphanumeric()).collect()))
        .collect();
    texts.extend(bare);
    let small: Vec<_> = texts
        .iter()
        .map(|text| Zeroizing::new(text.to_lowercase()))
        .collect();
    texts.extend(small);

    let mut needles = Vec::new();
    for text in &texts {
        needles.push(form_urlencoded::byte_serialize(text.as_bytes()).collect());
        needles.push(
            percent_encoding::percent_encode(text.as_bytes(), percent_encoding::NON_ALPHANUMERIC)
                .to_string(),
        );
        let xml = text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&quot;");
        needles.push(xml);
        add_bytes(&mut needles, text.as_bytes());
    }
    if let Some(parsed) = raw {
        add_bytes(&mut needles, parsed.raw());
    }
    needles.extend(texts.iter().map(|text| text.to_string()));
    let mut needles: Vec<_> = needles
        .into_iter()
        .map(|mut needle| {
            let small = Zeroizing::new(needle.trim().to_ascii_lowercase());
            needle.zeroize();
            small
        })
        .filter(|needle| !needle.is_empty())
        .collect();
    needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    needles.dedup();
    needles
}

/// The bytes in hexadecimal digits, and the part of their base64 that is the same wherever in a longer text they stand.
fn add_bytes(needles: &mut Vec<String>, bytes: &[u8]) {
    needles.push(HEXLOWER.encode(bytes));
    for offset in 0..3 {
        let mut shifted = vec![0; offset];
        shifted.extend_from_slice(bytes);
        let whole = shifted.len() * 8 / 6;
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let mut encoded = engine.encode(&shifted);
            let own = encoded
                .get((offset * 8).div_ceil(6)..whole)
                .unwrap_or_default();
            if own.len() >= TELLING {
                needles.push(own.to_owned());
            }
            encoded.zeroize();
        }
        shifted.zeroize();
    }
}

/// Where any of the needles stands, capital or small.
fn spans(text: &str, needles: &[Zeroizing<String>]) -> Vec<(usize, usize)> {
    let small = Zeroizing::new(text.to_ascii_lowercase());
    let mut spans = Vec::new();
    for needle in needles {
        spans.extend(
            small
                .match_indices(needle.as_str())
                .map(|(at, found)| (at, at + found.len())),
        );
    }
    spans
}

/// The text with [`MARK`] in place of the spans, those that touch taken as one.
fn without(text: &str, mut spans: Vec<(usize, usize)>) -> String {
    spans.sort_unstable();
    let mut kept = String::with_capacity(text.len());
    let mut done = 0;
    for (start, end) in spans {
        if start > done || (start == 0 && done == 0) {
            kept.push_str(&text[done..start]);
            kept.push_str(MARK);
        }
        done = done.max(end);
    }
    kept.push_str(&text[done..]);
    kept
}

/// Whether the code or one of its encodings can be read in the text once escapes are undone and everything between letters
/// and digits is ignored.
fn shows_through(text: &str, needles: &[Zeroizing<String>]) -> bool {
    let mut bare_needles: Vec<_> = needles
        .iter()
        .map(|needle| bare(needle))
        .filter(|needle| needle.len() >= TELLING)
        .collect();
    bare_needles.sort_by(|a, b| a.cmp(b));
    bare_needles.dedup();
    let shows = |text: &str| {
        let bare = bare(text);
        bare_needles
            .iter()
            .any(|needle| bare.contains(needle.as_str()))
    };
    let mut decoded = Zeroizing::new(text.to_owned());
    for _ in 0..3 {
        if shows(&decoded) {
            return true;
        }
        decoded = Zeroizing::new(unescaped(&decoded));
    }
    shows(&decoded)
}

fn bare(text: &str) -> Zeroizing<String> {
    Zeroizing::new(
        text.chars()
            .filter(|c| c.is_alphanumeric())
            .flat_map(char::to_uppercase)
            .collect(),
    )
}

/// One layer of `%41`, `&#65;`, `&#x41;`, `\u0041` and `\x41` undone.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let digits = |from: usize, count: usize| {
            rest.get(from..from + count)
                .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        };
        let found = match c {
            '%' => digits(1, 2).map(|value| (value, 3)),
            '\\' if rest.starts_with("\\u") => digits(2, 4).map(|value| (value, 6)),
            '\\' if rest.starts_with("\\x") => digits(2, 2).map(|value| (value, 4)),
            '&' if rest.starts_with("&#") => rest
                .bytes()
                .take(12)
                .position(|byte| byte == b';')
                .and_then(|end| {
                    let number = &rest[2..end];
                    let value = match number.strip_prefix(['x', 'X']) {
                        Some(hex) => u32::from_str_radix(hex, 16),
                        None => number.parse(),
                    };
                    Some((value.ok()?, end + 1))
                }),
            _ => None,
        };
        match found.and_then(|(value, length)| Some((char::from_u32(value)?, length))) {
            Some((character, length)) => {
                out.push(character);
                rest = &rest[length..];
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}
