//! The signature of the session call: OAuth 1.0a with HMAC-SHA1 (RFC 5849; contract sheet 2.20). Pure: the moment and the
//! nonce are given.

use std::fmt::Write as _;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use url::Url;
use zeroize::Zeroizing;

/// What is escaped: everything but letters, digits and these four (RFC 5849, 3.6; RFC 3986, 2.3).
pub(super) const ESCAPED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Who signs, and when.
pub(super) struct Signer<'a> {
    /// `realm`, which is not signed.
    pub(super) realm: &'a str,
    pub(super) consumer_key: &'a str,
    pub(super) consumer_secret: &'a str,
    pub(super) token: &'a str,
    pub(super) token_secret: &'a str,
    /// Seconds since 1970.
    pub(super) timestamp: u64,
    /// Unique among all calls with this timestamp.
    pub(super) nonce: &'a str,
    /// Whether `oauth_version` is sent, which RFC 5849 leaves open and Apple wants.
    pub(super) version: bool,
}

impl Signer<'_> {
    /// The value of `Authorization` for a request without a form in its body, and the signature in it by itself.
    pub(super) fn authorization(
        &self,
        method: &str,
        url: &Url,
    ) -> (Zeroizing<String>, Zeroizing<String>) {
        let mut parameters = self.protocol();
        let signature = self.signature(&base_string(method, url, &parameters));
        parameters.push(("oauth_signature", signature.clone()));
        let mut header = Zeroizing::new(String::with_capacity(512));
        let room = "a String takes any text";
        write!(header, "OAuth realm=\"{}\"", self.realm).expect(room);
        for (name, value) in &parameters {
            write!(header, ", {name}=\"{}\"", escaped(value)).expect(room);
        }
        (header, signature)
    }

    fn protocol(&self) -> Vec<(&'static str, Zeroizing<String>)> {
        let timestamp = self.timestamp.to_string();
        let version = self.version.then_some(("oauth_version", "1.0"));
        [
            ("oauth_consumer_key", self.consumer_key),
            ("oauth_token", self.token),
            ("oauth_signature_method", "HMAC-SHA1"),
            ("oauth_timestamp", &timestamp),
            ("oauth_nonce", self.nonce),
        ]
        .into_iter()
        .chain(version)
        .map(|(name, value)| (name, Zeroizing::new(value.to_owned())))
        .collect()
    }

    /// RFC 5849, 3.4.2.
    fn signature(&self, base_string: &str) -> Zeroizing<String> {
        let key = Zeroizing::new(format!(
            "{}&{}",
            escaped(self.consumer_secret),
            escaped(self.token_secret)
        ));
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
        Zeroizing::new(STANDARD.encode(hmac::sign(&key, base_string.as_bytes())))
    }
}

/// What is signed: the method, the address, and every parameter of the query and of `more` (RFC 5849, 3.4.1).
fn base_string(method: &str, url: &Url, more: &[(&str, Zeroizing<String>)]) -> Zeroizing<String> {
    let mut address = url.clone();
    address.set_query(None);
    address.set_fragment(None);
    let pair = |name: &str, value: &str| [name, value].map(|part| escaped(part).to_string());
    let query = url.query_pairs();
    let mut parameters: Vec<Zeroizing<[String; 2]>> = query
        .map(|(name, value)| Zeroizing::new(pair(&name, &value)))
        .chain(
            more.iter()
                .map(|(name, value)| Zeroizing::new(pair(name, value))),
        )
        .collect();
    // By name, and where names are the same by value, each as it is written when escaped.
    parameters.sort_by(|one, other| one.as_slice().cmp(other.as_slice()));
    let mut joined = Zeroizing::new(String::with_capacity(512));
    for pair in &parameters {
        let separator = if joined.is_empty() { "" } else { "&" };
        let [name, value] = &**pair;
        write!(joined, "{separator}{name}={value}").expect("a String takes any text");
    }
    Zeroizing::new(format!(
        "{}&{}&{}",
        method.to_ascii_uppercase(),
        escaped(address.as_str()),
        escaped(&joined)
    ))
}

fn escaped(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, &ESCAPED)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5849, 3.4.1.1, word for word.
    #[test]
    fn the_base_string_is_that_of_the_rfc() {
        let url = "http://EXAMPLE.COM:80/request?b5=%3D%253D&a3=a&c%40=&a2=r%20b";
        let more = [
            ("oauth_consumer_key", "9djdj82h48djs9d2"),
            ("oauth_token", "kkk9d7dh3k39sjv7"),
            ("oauth_signature_method", "HMAC-SHA1"),
            ("oauth_timestamp", "137131201"),
            ("oauth_nonce", "7d8f3e4a"),
            // The body's: c2&a3=2+q
            ("c2", ""),
            ("a3", "2 q"),
        ];
        let more = more.map(|(name, value)| (name, Zeroizing::new(value.to_owned())));
        assert_eq!(
            *base_string("post", &url.parse().unwrap(), &more),
            "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D\
             %253D%25253D%26c%2540%3D%26c2%3D%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D\
             7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1%26oauth_timestamp%3D137131201%26oauth_token%3D\
             kkk9d7dh3k39sjv7"
        );
    }

    /// RFC 5849, 3.4.1.2: the port is part of it unless it is the scheme's own.
    #[test]
    fn the_address_is_that_of_the_rfc() {
        for (url, address) in [
            (
                "HTTP://EXAMPLE.COM:80/r%20v/X?id=123",
                "http%3A%2F%2Fexample.com%2Fr%2520v%2FX",
            ),
            (
                "https://www.example.net:8080/?q=1",
                "https%3A%2F%2Fwww.example.net%3A8080%2F",
            ),
        ] {
            let signed = base_string("GET", &url.parse().unwrap(), &[]);
            assert_eq!(signed.split('&').nth(1), Some(address));
        }
    }

    /// RFC 5849, 3.6.
    #[test]
    fn what_is_escaped_is_that_of_the_rfc() {
        assert_eq!(escaped("aZ09-._~").to_string(), "aZ09-._~");
        assert_eq!(
            escaped(" +/=&%\u{e9}").to_string(),
            "%20%2B%2F%3D%26%25%C3%A9"
        );
    }

    /// RFC 5849, 1.2: the request for the photo, word for word.
    #[test]
    fn the_photo_of_the_rfc_is_signed() {
        let signer = Signer {
            realm: "Photos",
            consumer_key: "dpf43f3p2l4k3l03",
            consumer_secret: "kd94hf93k423kf44",
            token: "nnch734d00sl2jdk",
            token_secret: "pfkkdhi9sl3r4s00",
            timestamp: 137_131_202,
            nonce: "chapoH",
            version: false,
        };
        let url = "http://photos.example.net/photos?file=vacation.jpg&size=original";
        assert_eq!(
            *signer.authorization("GET", &url.parse().unwrap()).0,
            "OAuth realm=\"Photos\", oauth_consumer_key=\"dpf43f3p2l4k3l03\", \
             oauth_token=\"nnch734d00sl2jdk\", oauth_signature_method=\"HMAC-SHA1\", \
             oauth_timestamp=\"137131202\", oauth_nonce=\"chapoH\", \
             oauth_signature=\"MdpQcU8iPSUjWoN%2FUDMsK2sui9I%3D\""
        );
    }

    #[test]
    fn apples_call_names_the_version_and_signs_it() {
        let mut signer = Signer {
            realm: "ADM",
            consumer_key: "CK_1",
            consumer_secret: "CS/+&",
            token: "AT_1",
            token_secret: "AS_1",
            timestamp: 1,
            nonce: "n",
            version: true,
        };
        let url: Url = "https://mdmenrollment.apple.com/session".parse().unwrap();
        let signature = |signer: &Signer<'_>| {
            let (header, signature) = signer.authorization("GET", &url);
            assert!(header.starts_with("OAuth realm=\"ADM\", oauth_consumer_key=\"CK_1\""));
            let (_, last) = header.rsplit_once(", ").unwrap();
            assert_eq!(last, format!("oauth_signature=\"{}\"", escaped(&signature)));
            signature
        };
        let with = signature(&signer);
        assert!(
            signer
                .authorization("GET", &url)
                .0
                .contains(", oauth_version=\"1.0\", ")
        );
        signer.version = false;
        assert_ne!(signature(&signer), with);
        signer.nonce = "m";
        assert_ne!(signature(&signer), with);
    }
}
