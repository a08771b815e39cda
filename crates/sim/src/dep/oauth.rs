//! OAuth 1.0a as `GET /session` demands it: RFC 5849 with HMAC-SHA1, read strictly. Contract sheet 2.20 and 2.23.

use aws_lc_rs::hmac;
use data_encoding::BASE64;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::DepToken;

/// Everything but the unreserved characters of RFC 3986, as RFC 5849 3.6 has it.
const RESERVED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The parameters of the header, each of which must be there once.
const DEMANDED: [&str; 8] = [
    "realm",
    "oauth_consumer_key",
    "oauth_token",
    "oauth_signature_method",
    "oauth_signature",
    "oauth_timestamp",
    "oauth_nonce",
    "oauth_version",
];

/// A well-formed header: that its signature is right is not yet known.
pub(super) struct Signed {
    pub(super) consumer_key: String,
    pub(super) token: String,
    /// Seconds since 1970.
    pub(super) timestamp: i64,
    pub(super) nonce: String,
    signature: Vec<u8>,
    /// What is signed of the header: all but the realm and the signature, decoded.
    parameters: Vec<(String, String)>,
}

impl Signed {
    /// Reads an `Authorization` header; the error says what is missing, doubled, unknown or malformed.
    pub(super) fn read(header: &str) -> Result<Self, String> {
        let (scheme, list) = header.split_once(' ').unwrap_or((header, ""));
        if !scheme.eq_ignore_ascii_case("OAuth") {
            return Err("the Authorization header is not OAuth".to_owned());
        }
        let mut parameters: Vec<(String, String)> = Vec::new();
        for part in list.split(',') {
            let (name, value) = parameter(part.trim())?;
            if !DEMANDED.contains(&name.as_str()) {
                return Err(format!("parameter {name} is not known"));
            }
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(format!("parameter {name} is given twice"));
            }
            parameters.push((name, value));
        }
        let value = |name: &str| {
            let found = parameters.iter().find(|(other, _)| other == name);
            found
                .map(|(_, value)| value.clone())
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("parameter {name} is missing or empty"))
        };
        for (name, only) in [
            ("realm", "ADM"),
            ("oauth_signature_method", "HMAC-SHA1"),
            ("oauth_version", "1.0"),
        ] {
            if value(name)? != only {
                return Err(format!("parameter {name} must be {only}"));
            }
        }
        let timestamp = value("oauth_timestamp")?;
        let digits = timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let timestamp = timestamp
            .parse()
            .ok()
            .filter(|seconds| digits && *seconds > 0)
            .ok_or("parameter oauth_timestamp is not a positive number of seconds")?;
        let signature = BASE64
            .decode(value("oauth_signature")?.as_bytes())
            .map_err(|_| "parameter oauth_signature is not base64")?;
        Ok(Self {
            consumer_key: value("oauth_consumer_key")?,
            token: value("oauth_token")?,
            timestamp,
            nonce: value("oauth_nonce")?,
            signature,
            parameters: parameters
                .into_iter()
                .filter(|(name, _)| name != "realm" && name != "oauth_signature")
                .collect(),
        })
    }

    /// Whether this token's secrets signed the request.
    pub(super) fn is_by(&self, token: &DepToken, method: &str, url: &str) -> bool {
        let text = base_string(method, url, &self.parameters);
        hmac::verify(&key(token), text.as_bytes(), &self.signature).is_ok()
    }
}

/// One `name="value"`, both escaped as RFC 5849 3.6 has it.
fn parameter(part: &str) -> Result<(String, String), String> {
    let malformed = || "a parameter is not name=\"value\"".to_owned();
    let (name, rest) = part.split_once('=').ok_or_else(malformed)?;
    let value = rest
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .ok_or_else(malformed)?;
    Ok((decoded(name)?, decoded(value)?))
}

fn decoded(escaped: &str) -> Result<String, String> {
    let text = percent_decode_str(escaped)
        .decode_utf8()
        .map_err(|_| "an escape is not UTF-8".to_owned())?;
    // Escaping is unambiguous: whoever escapes the text again must get the same, save for the case of digits.
    if encode(&text).eq_ignore_ascii_case(escaped) {
        Ok(text.into_owned())
    } else {
        Err("a name or value is not escaped as RFC 5849 3.6 says".to_owned())
    }
}

/// Escapes all but unreserved characters (RFC 5849 3.6).
fn encode(text: &str) -> String {
    utf8_percent_encode(text, &RESERVED).to_string()
}

/// The signature base string (RFC 5849 3.4.1). `url` is scheme, authority and path, without a query; `parameters` are decoded,
/// in any order.
fn base_string(method: &str, url: &str, parameters: &[(String, String)]) -> String {
    let mut pairs: Vec<(String, String)> = parameters
        .iter()
        .map(|(name, value)| (encode(name), encode(value)))
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    format!(
        "{}&{}&{}",
        encode(&method.to_ascii_uppercase()),
        encode(url),
        encode(&pairs.join("&"))
    )
}

/// The URL that is signed (RFC 5849 3.4.1.2): lower case, without the usual port.
pub(super) fn base_url(scheme: &str, authority: &str, path: &str) -> String {
    let authority = authority.to_ascii_lowercase();
    let usual = if scheme == "https" { ":443" } else { ":80" };
    let authority = authority.strip_suffix(usual).unwrap_or(&authority);
    format!("{scheme}://{authority}{path}")
}

fn key(token: &DepToken) -> hmac::Key {
    let key = format!(
        "{}&{}",
        encode(&token.consumer_secret),
        encode(&token.access_secret)
    );
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes())
}

/// The `Authorization` header that a client sends with a `GET` of this URL.
pub(super) fn header(token: &DepToken, url: &str, timestamp: i64, nonce: &str) -> String {
    let mut parameters: Vec<(String, String)> = [
        ("oauth_consumer_key", token.consumer_key.as_str()),
        ("oauth_token", &token.access_token),
        ("oauth_signature_method", "HMAC-SHA1"),
        ("oauth_timestamp", &timestamp.to_string()),
        ("oauth_nonce", nonce),
        ("oauth_version", "1.0"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let text = base_string("GET", url, &parameters);
    let signature = BASE64.encode(hmac::sign(&key(token), text.as_bytes()).as_ref());
    parameters.push(("oauth_signature".to_owned(), signature));
    let list: String = parameters
        .iter()
        .map(|(name, value)| format!(", {}=\"{}\"", encode(name), encode(value)))
        .collect();
    format!("OAuth realm=\"ADM\"{list}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// The secrets of the RFC's example; everything else is of no use here.
    fn token(consumer_secret: &str, access_secret: &str) -> DepToken {
        DepToken {
            server_name: String::new(),
            server_uuid: String::new(),
            consumer_key: String::new(),
            consumer_secret: consumer_secret.to_owned(),
            access_token: String::new(),
            access_secret: access_secret.to_owned(),
            access_token_expiry: time::OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn rfc_5849_3_4_1_1_base_string() {
        let url = base_url("http", "EXAMPLE.COM:80", "/request");
        let parameters = pairs(&[
            ("b5", "=%3D"),
            ("a3", "a"),
            ("c@", ""),
            ("a2", "r b"),
            ("oauth_consumer_key", "9djdj82h48djs9d2"),
            ("oauth_token", "kkk9d7dh3k39sjv7"),
            ("oauth_signature_method", "HMAC-SHA1"),
            ("oauth_timestamp", "137131201"),
            ("oauth_nonce", "7d8f3e4a"),
            ("c2", ""),
            ("a3", "2 q"),
        ]);
        assert_eq!(
            base_string("post", &url, &parameters),
            "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D%26c2\
             %3D%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1%26oauth_\
             timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7"
        );
    }

    #[test]
    fn rfc_5849_1_2_signatures() {
        let sign = |token: &DepToken, method, url, parameters: &[(&str, &str)]| {
            let text = base_string(method, url, &pairs(parameters));
            encode(&BASE64.encode(hmac::sign(&key(token), text.as_bytes()).as_ref()))
        };
        // Temporary credentials: there is no token secret yet.
        assert_eq!(
            sign(
                &token("kd94hf93k423kf44", ""),
                "POST",
                "https://photos.example.net/initiate",
                &[
                    ("oauth_consumer_key", "dpf43f3p2l4k3l03"),
                    ("oauth_signature_method", "HMAC-SHA1"),
                    ("oauth_timestamp", "137131200"),
                    ("oauth_nonce", "wIjqoS"),
                    ("oauth_callback", "http://printer.example.com/ready"),
                ],
            ),
            "74KNZJeDHnMBp0EMJ9ZHt%2FXKycU%3D"
        );
        // The request for the photo.
        assert_eq!(
            sign(
                &token("kd94hf93k423kf44", "pfkkdhi9sl3r4s00"),
                "GET",
                "http://photos.example.net/photos",
                &[
                    ("file", "vacation.jpg"),
                    ("size", "original"),
                    ("oauth_consumer_key", "dpf43f3p2l4k3l03"),
                    ("oauth_token", "nnch734d00sl2jdk"),
                    ("oauth_signature_method", "HMAC-SHA1"),
                    ("oauth_timestamp", "137131202"),
                    ("oauth_nonce", "chapoH"),
                ],
            ),
            "MdpQcU8iPSUjWoN%2FUDMsK2sui9I%3D"
        );
    }

    #[test]
    fn what_is_not_to_be_escaped_is_not() {
        assert_eq!(encode("aZ09-._~"), "aZ09-._~");
        assert_eq!(encode(" +*%&=/\u{fc}"), "%20%2B%2A%25%26%3D%2F%C3%BC");
        assert!(decoded("a+b").is_err(), "a plus sign must be escaped");
        assert!(decoded("%7E").is_err(), "an unreserved character must not");
        assert!(decoded("%2").is_err());
        assert!(decoded("%2f").is_ok_and(|text| text == "/"));
    }
}
