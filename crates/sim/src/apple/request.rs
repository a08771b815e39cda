//! How strictly an unlock request is read. Contract sheet 1.1 to 1.10.

use std::collections::BTreeMap;

use http::{HeaderMap, Method, Uri, header::CONTENT_TYPE};

use super::PATH;

const QUERY: [&str; 5] = ["serial", "productType", "imei", "imei2", "meid"];
const BODY: [&str; 3] = ["orgName", "guid", "escrowKey"];

/// A request that is well formed.
pub(super) struct UnlockRequest {
    pub(super) serial: String,
    pub(super) product_type: String,
    pub(super) imei: Option<String>,
    pub(super) imei2: Option<String>,
    pub(super) meid: Option<String>,
    pub(super) escrow_key: String,
}

/// What of a request may be written down, whether it is well formed or not.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) query: BTreeMap<String, String>,
    pub(super) org_name: Option<String>,
    pub(super) guid: Option<String>,
    pub(super) escrow_key: Option<String>,
}

/// Why a request is refused before any device is looked up.
pub(super) struct Malformed {
    pub(super) status: u16,
    pub(super) why: String,
}

fn malformed(why: impl Into<String>) -> Malformed {
    Malformed {
        status: 400,
        why: why.into(),
    }
}

/// Reads the request; what is seen of it is noted even when it is refused.
pub(super) fn read(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
    seen: &mut Seen,
) -> Result<UnlockRequest, Malformed> {
    let query = pairs(uri.query().unwrap_or_default().as_bytes(), "query");
    let form = pairs(body, "body");
    for (key, value) in query.as_deref().unwrap_or_default() {
        // A code in the wrong place stays out of the journal too.
        let value = if QUERY.contains(&key.as_str()) {
            value.as_str()
        } else {
            "(withheld)"
        };
        seen.query.insert(key.clone(), value.to_owned());
    }
    for (key, value) in form.as_deref().unwrap_or_default() {
        match key.as_str() {
            "orgName" => seen.org_name = Some(value.clone()),
            "guid" => seen.guid = Some(value.clone()),
            "escrowKey" => seen.escrow_key = Some(value.clone()),
            _ => {}
        }
    }

    if uri.path() != PATH {
        return Err(Malformed {
            status: 404,
            why: format!("no such path; only {PATH} is served"),
        });
    }
    if method != Method::POST {
        return Err(Malformed {
            status: 405,
            why: "only POST is served".to_owned(),
        });
    }
    form_content_type(headers)?;
    let mut query = only(query?, "query", &QUERY)?;
    let mut form = only(form?, "body", &BODY)?;
    let serial = taken(&mut query, "serial", "query")?;
    let product_type = taken(&mut query, "productType", "query")?;
    let (imei, imei2, meid) = (
        query.remove("imei"),
        query.remove("imei2"),
        query.remove("meid"),
    );
    for (name, value) in [("imei", &imei), ("imei2", &imei2)] {
        if value
            .as_ref()
            .is_some_and(|value| !value.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return Err(malformed(format!("{name} must be digits alone")));
        }
    }
    if meid
        .as_ref()
        .is_some_and(|value| !value.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err(malformed("meid must be hexadecimal digits alone"));
    }
    if !serial.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(malformed("serial must be letters and digits alone"));
    }
    if product_type.contains(char::is_whitespace) {
        return Err(malformed("productType must not contain spaces"));
    }
    taken(&mut form, "orgName", "body")?;
    taken(&mut form, "guid", "body")?;
    let escrow_key = taken(&mut form, "escrowKey", "body")?;
    Ok(UnlockRequest {
        serial,
        product_type,
        imei,
        imei2,
        meid,
        escrow_key,
    })
}

fn form_content_type(headers: &HeaderMap) -> Result<(), Malformed> {
    let given = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let (essence, rest) = given.split_once(';').unwrap_or((given, ""));
    let rest = rest.trim().to_ascii_lowercase();
    if essence
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded")
        && (rest.is_empty() || rest == "charset=utf-8")
    {
        return Ok(());
    }
    Err(malformed(
        "the content type must be application/x-www-form-urlencoded",
    ))
}

/// The decoded pairs. Each escape is undone once; what then still looks escaped was escaped twice.
fn pairs(encoded: &[u8], place: &str) -> Result<Vec<(String, String)>, Malformed> {
    let encoded =
        std::str::from_utf8(encoded).map_err(|_| malformed(format!("the {place} is not UTF-8")))?;
    if encoded.is_empty() {
        return Ok(Vec::new());
    }
    encoded
        .split('&')
        .map(|pair| {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| malformed(format!("a part of the {place} has no '='")))?;
            Ok((decoded(key, place)?, decoded(value, place)?))
        })
        .collect()
}

fn decoded(encoded: &str, place: &str) -> Result<String, Malformed> {
    if has_escape(encoded, false) {
        return Err(malformed(format!(
            "a '%' in the {place} is not followed by two hexadecimal digits"
        )));
    }
    let spaced = encoded.replace('+', " ");
    let text = percent_encoding::percent_decode_str(&spaced)
        .decode_utf8()
        .map_err(|_| malformed(format!("an escape in the {place} is not UTF-8")))?;
    let twice = has_escape(&text, true) || (place == "query" && text.contains('%'));
    if twice {
        Err(malformed(format!("the {place} is escaped twice")))
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

fn only(
    pairs: Vec<(String, String)>,
    place: &str,
    known: &[&str],
) -> Result<BTreeMap<String, String>, Malformed> {
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        if !known.contains(&key.as_str()) {
            let elsewhere = QUERY.contains(&key.as_str()) || BODY.contains(&key.as_str());
            let why = if elsewhere {
                "does not belong in"
            } else {
                "is not known in"
            };
            return Err(malformed(format!("parameter {key} {why} the {place}")));
        }
        if value.is_empty() {
            return Err(malformed(format!("{key} is empty: leave it out instead")));
        }
        if map.insert(key.clone(), value).is_some() {
            return Err(malformed(format!("{key} is given twice")));
        }
    }
    Ok(map)
}

fn taken(map: &mut BTreeMap<String, String>, key: &str, place: &str) -> Result<String, Malformed> {
    map.remove(key)
        .ok_or_else(|| malformed(format!("{key} is missing from the {place}")))
}
