//! Forms and queries, read strictly: nothing escaped twice, nothing unknown, nothing empty, nothing given twice.

use std::collections::BTreeMap;

use http::{HeaderMap, header::CONTENT_TYPE};

/// Whether the content type is a form's.
pub(crate) fn is_form(headers: &HeaderMap) -> bool {
    let given = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let (essence, rest) = given.split_once(';').unwrap_or((given, ""));
    let rest = rest.trim().to_ascii_lowercase();
    essence
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded")
        && (rest.is_empty() || rest == "charset=utf-8")
}

/// The decoded pairs. Each escape is undone once; what then still looks escaped was escaped twice.
pub(crate) fn pairs(encoded: &[u8], place: &str) -> Result<Vec<(String, String)>, String> {
    let encoded = std::str::from_utf8(encoded).map_err(|_| format!("the {place} is not UTF-8"))?;
    if encoded.is_empty() {
        return Ok(Vec::new());
    }
    encoded
        .split('&')
        .map(|pair| {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("a part of the {place} has no '='"))?;
            Ok((decoded(key, place)?, decoded(value, place)?))
        })
        .collect()
}

fn decoded(encoded: &str, place: &str) -> Result<String, String> {
    if has_escape(encoded, false) {
        return Err(format!(
            "a '%' in the {place} is not followed by two hexadecimal digits"
        ));
    }
    let spaced = encoded.replace('+', " ");
    let text = percent_encoding::percent_decode_str(&spaced)
        .decode_utf8()
        .map_err(|_| format!("an escape in the {place} is not UTF-8"))?;
    let twice = has_escape(&text, true) || (place == "query" && text.contains('%'));
    if twice {
        Err(format!("the {place} is escaped twice"))
    } else {
        Ok(text.into_owned())
    }
}

/// Whether the text has a `%` that begins an escape (`whole`), or one that does not.
fn has_escape(text: &str, whole: bool) -> bool {
    text.match_indices('%').any(|(at, _)| {
        let is_escape = text
            .as_bytes()
            .get(at + 1..at + 3)
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        is_escape == whole
    })
}

/// The pairs by key, if each is known, not empty, and given once.
pub(crate) fn only(
    pairs: Vec<(String, String)>,
    place: &str,
    known: &[&str],
) -> Result<BTreeMap<String, String>, String> {
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        if !known.contains(&key.as_str()) {
            return Err(format!("parameter {key} is not known in the {place}"));
        }
        if value.is_empty() {
            return Err(format!("{key} is empty: leave it out instead"));
        }
        if map.insert(key.clone(), value).is_some() {
            return Err(format!("{key} is given twice"));
        }
    }
    Ok(map)
}
