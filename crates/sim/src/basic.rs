//! Basic authentication, as the fake MDM and the fake proxy demand it.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};

/// Whether the request shows this user and password.
pub(crate) fn is(headers: &HeaderMap, user: &str, password: &str) -> bool {
    let expected = format!("{user}:{password}");
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Basic "))
        .and_then(|credential| STANDARD.decode(credential).ok())
        .is_some_and(|credential| credential == expected.as_bytes())
}
