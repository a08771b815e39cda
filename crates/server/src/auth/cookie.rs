//! A browser's session: its cookie, and whether a request that carries it comes from a page of ours.

use std::net::IpAddr;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, header};
use url::Url;
use zeroize::Zeroizing;

use crate::App;
use crate::http::problem::Problem;
use crate::http::refusals::Kind;

/// The prefix has browsers see to it that it comes from this host alone, over TLS, and goes nowhere else.
const NAME: &str = "__Host-lockwarden";
const SITE: &str = "sec-fetch-site";

/// What a browser keeps of a sign-in that is under way. It is sent with the way back from another site, so the site is not held to.
const TICKET: &str = "__Host-lockwarden-ticket";

/// The session in a request's cookie.
pub(crate) fn session(headers: &HeaderMap) -> Option<&str> {
    named(headers, NAME)
}

/// The ticket in a request's cookie.
pub(crate) fn ticket(headers: &HeaderMap) -> Option<&str> {
    named(headers, TICKET)
}

/// The header that has a browser keep a ticket.
pub(crate) fn set_ticket(ticket: &str) -> Option<HeaderValue> {
    let line = Zeroizing::new(format!(
        "{TICKET}={ticket}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600"
    ));
    let mut value = HeaderValue::from_str(&line).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The header that has a browser forget it.
pub(crate) fn forget_ticket() -> HeaderValue {
    HeaderValue::from_static(
        "__Host-lockwarden-ticket=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0",
    )
}

fn named<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .find_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == wanted).then_some(value)
        })
}

/// The header that has a browser keep a session, for at most so long.
pub(crate) fn set(session: &str, lasts: Duration) -> Option<HeaderValue> {
    let line = Zeroizing::new(format!(
        "{NAME}={session}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={}",
        lasts.as_secs()
    ));
    let mut value = HeaderValue::from_str(&line).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The header that has a browser forget it.
pub(crate) fn forget() -> HeaderValue {
    HeaderValue::from_static(
        "__Host-lockwarden=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0",
    )
}

/// Whether a request changes nothing, by its method.
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether a browser says that a request comes from a page of ours: by `Sec-Fetch-Site`, which a page cannot set, or else by
/// `Origin`. One that says neither is no browser of today, and is not believed.
pub(super) fn is_ours(headers: &HeaderMap, app: &App) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let own = app.settings.public_url.as_ref();
    if let Some(site) = text(SITE) {
        return site == "same-origin";
    }
    text(header::ORIGIN.as_str())
        .is_some_and(|origin| is_own(origin, text(header::HOST.as_str()), own))
}

/// Lets a request on that makes a browser keep something, when it comes from a page of ours.
///
/// # Errors
/// When it does not, which is counted.
pub(crate) fn from_ours(
    headers: &HeaderMap,
    app: &App,
    from: Option<IpAddr>,
) -> Result<(), Problem> {
    if is_ours(headers, app) {
        return Ok(());
    }
    app.refusals.count(Kind::ForeignPage, from, app.now());
    Err(Problem::foreign_page())
}

/// Whether an origin is the host that the request was sent to, or the address that people are given.
fn is_own(origin: &str, host: Option<&str>, public: Option<&Url>) -> bool {
    let Ok(url) = Url::parse(origin) else {
        return false;
    };
    let is_public = public.is_some_and(|public| public.origin() == url.origin());
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    is_public || (host.is_some() && authority == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others_and_under_its_whole_name_only() {
        let found = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, HeaderValue::from_static(line));
            }
            session(&headers).map(str::to_owned)
        };
        assert_eq!(
            found(&["a=b; __Host-lockwarden=x; c=d"]),
            Some("x".to_owned())
        );
        assert_eq!(found(&["a=b", "__Host-lockwarden=x"]), Some("x".to_owned()));
        assert_eq!(
            found(&["lockwarden=x; __host-lockwarden=y; b__Host-lockwarden=z"]),
            None
        );
    }

    #[test]
    fn an_origin_is_ours_when_it_is_the_host_or_the_public_address() {
        let public = Url::parse("https://lockwarden.example.org/").unwrap();
        let own = |origin: &str| is_own(origin, Some("127.0.0.1:8443"), Some(&public));
        assert!(own("https://127.0.0.1:8443") && own("https://lockwarden.example.org"));
        assert!(own("https://lockwarden.example.org:443"));
        for other in [
            "https://lockwarden.example.org.evil.example",
            "https://evil.example",
            "http://lockwarden.example.org",
            "https://127.0.0.1",
            "null",
            "",
        ] {
            assert!(!own(other), "{other}");
        }
        assert!(!is_own("https://a.example", None, None));
    }

    #[test]
    fn it_is_kept_from_scripts_and_other_sites() {
        let value = set("x", Duration::from_secs(60)).unwrap();
        let text = value.to_str().unwrap();
        assert!(value.is_sensitive());
        for part in [
            "Path=/",
            "Secure",
            "HttpOnly",
            "SameSite=Strict",
            "Max-Age=60",
        ] {
            assert!(text.contains(part), "{part}");
        }
        assert!(forget().to_str().unwrap().starts_with(&format!("{NAME}=;")));
    }
}
