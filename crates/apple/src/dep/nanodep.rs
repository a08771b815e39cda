//! The way to Apple through NanoDEP: a server that has the token and the session, and signs for whoever has its key
//! (mdm-connectors, section 7).

use percent_encoding::utf8_percent_encode;
use url::Url;
use zeroize::Zeroizing;

use super::oauth::ESCAPED;
use crate::transport::{Origin, OriginError};

/// The proxy of NanoDEP: it has the server token, so that none is needed here (mdm-connectors, 7).
#[derive(Clone)]
pub struct NanoDep {
    pub(super) origin: Origin,
    /// The path up to Apple's own.
    pub(super) prefix: String,
    pub(super) api_key: Zeroizing<String>,
}

/// Why NanoDEP cannot be called so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NanoDepError {
    /// The address.
    #[error("the address of NanoDEP cannot be used: {0}")]
    Address(#[from] OriginError),
    /// A query, a fragment or a user name in the address.
    #[error("give the address of NanoDEP alone, such as https://dep.example.org:9001")]
    TooMuch,
    /// The name.
    #[error(
        "{0:?} is no name that NanoDEP can know a token by: the name is part of a path, so that it is not empty and holds no slash"
    )]
    Name(String),
    /// The key.
    #[error("the API key of NanoDEP is empty; give the one that it was started with")]
    Key,
}

impl NanoDep {
    /// `url` is where NanoDEP listens (https, or http on this machine; a path before its own is kept), `dep_name` the name it
    /// knows the token by, and `api_key` the password of its API.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn new(url: &str, dep_name: &str, api_key: &str) -> Result<Self, NanoDepError> {
        let mut url = Url::parse(url.trim()).map_err(OriginError::NotAUrl)?;
        let bare = url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let path = url.path().trim_end_matches('/').to_owned();
        if !url.cannot_be_a_base() {
            url.set_path("");
        }
        if !bare {
            return Err(NanoDepError::TooMuch);
        }
        // It cuts the name out of the decoded path at the first slash.
        if dep_name.trim().is_empty() || dep_name.contains('/') || [".", ".."].contains(&dep_name) {
            return Err(NanoDepError::Name(dep_name.chars().take(200).collect()));
        }
        if api_key.trim().is_empty() {
            return Err(NanoDepError::Key);
        }
        let name = utf8_percent_encode(dep_name, &ESCAPED);
        Ok(Self {
            origin: url.as_str().parse()?,
            prefix: format!("{path}/proxy/{name}"),
            api_key: Zeroizing::new(api_key.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unverified::SESSION_PATH;

    #[test]
    fn nanodep_is_called_below_its_address_with_the_name_escaped_once() {
        for (url, name, wanted) in [
            (
                "https://dep.example.org:9001",
                "school",
                "https://dep.example.org:9001/proxy/school/session",
            ),
            (
                "https://dep.example.org/nano/",
                "my-school_2.0",
                "https://dep.example.org/nano/proxy/my-school_2.0/session",
            ),
            (
                "http://127.0.0.1:9001/",
                "our school 100%",
                "http://127.0.0.1:9001/proxy/our%20school%20100%25/session",
            ),
        ] {
            let nanodep = NanoDep::new(url, name, "key").expect("an address");
            let path = format!("{}{SESSION_PATH}", nanodep.prefix);
            assert_eq!(nanodep.origin.at(&path, None).as_str(), wanted);
        }
    }

    #[test]
    fn r19_nanodep_is_called_over_https_or_on_this_machine_alone() {
        use NanoDepError::{Address, Key, Name, TooMuch};
        let refused = |url, name, key| NanoDep::new(url, name, key).err();
        let good = "https://dep.example.org";
        for (url, error) in [
            ("http://dep.example.org", Address(OriginError::NotSecure)),
            ("ftp://127.0.0.1", Address(OriginError::NotSecure)),
            ("mailto:me@example.org", Address(OriginError::NotSecure)),
            ("https://me@dep.example.org", TooMuch),
            ("https://:secret@dep.example.org", TooMuch),
            ("https://dep.example.org/?a=b", TooMuch),
            ("https://dep.example.org/#a", TooMuch),
        ] {
            let found = refused(url, "school", "key").expect("an address that is refused");
            assert_eq!(found, error, "{url}");
            assert!(!found.to_string().contains("secret"));
        }
        assert!(matches!(refused("dep", "school", "key"), Some(Address(_))));
        for name in ["", " ", ".", "..", "a/b"] {
            assert_eq!(refused(good, name, "key"), Some(Name(name.to_owned())));
        }
        assert_eq!(refused(good, "school", " "), Some(Key));
        assert_eq!(refused(good, "school", "key"), None);
    }
}
