//! How strictly an unlock request is read. Contract sheet 1.1 to 1.10.

use std::collections::BTreeMap;

use http::{HeaderMap, Method, Uri};

use super::PATH;
use crate::form;

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
    let query = form::pairs(uri.query().unwrap_or_default().as_bytes(), "query");
    let form = form::pairs(body, "body");
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
    if !form::is_form(headers) {
        return Err(malformed(
            "the content type must be application/x-www-form-urlencoded",
        ));
    }
    let mut query = only(query, "query", &QUERY)?;
    let mut form = only(form, "body", &BODY)?;
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

/// The pairs by key, if each is known here and given once.
fn only(
    pairs: Result<Vec<(String, String)>, String>,
    place: &str,
    known: &[&str],
) -> Result<BTreeMap<String, String>, Malformed> {
    let pairs = pairs.map_err(malformed)?;
    for (key, _) in &pairs {
        let key = key.as_str();
        if !known.contains(&key) && (QUERY.contains(&key) || BODY.contains(&key)) {
            let why = format!("parameter {key} does not belong in the {place}");
            return Err(malformed(why));
        }
    }
    form::only(pairs, place, known).map_err(malformed)
}

fn taken(map: &mut BTreeMap<String, String>, key: &str, place: &str) -> Result<String, Malformed> {
    map.remove(key)
        .ok_or_else(|| malformed(format!("{key} is missing from the {place}")))
}
