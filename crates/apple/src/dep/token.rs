//! The server token: what a server of an organisation proves itself with to Apple's device enrolment service (contract sheet
//! 2.43).

use activation_lock::time::{DAY, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::{Iso8601, Rfc3339};
use zeroize::Zeroizing;

use super::key::TokenKey;
use super::token_file::{self, TokenFileError};

/// How long before its end a token is shown as expiring.
pub const WARNING: std::time::Duration = std::time::Duration::from_secs(60 * 24 * 60 * 60);
/// How long before its end a token has to be renewed now.
pub const URGENT: std::time::Duration = std::time::Duration::from_secs(14 * 24 * 60 * 60);

/// The largest text that is read, in bytes.
const LARGEST: usize = 1024 * 1024;
/// The last millisecond of the year 9999, after which RFC 3339 cannot write a moment.
const LAST_MOMENT: i64 = 253_402_300_799_999;

/// A server token: four texts and a day on which they end.
///
/// They leave only in a signed call and through [`to_sealed_json`](Self::to_sealed_json). There is no Debug, so that it is
/// not printed by accident; it wipes itself when dropped.
#[derive(Clone)]
pub struct ServerToken {
    consumer_key: Zeroizing<String>,
    consumer_secret: Zeroizing<String>,
    access_token: Zeroizing<String>,
    access_secret: Zeroizing<String>,
    access_token_expiry: Timestamp,
}

/// How close a token is to its end. It is renewed in the portal, by downloading a new one: that ends the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenExpiry {
    /// More than 60 days left.
    Fine,
    /// At most 60 days left.
    Expiring,
    /// At most 14 days left.
    Urgent,
    /// Over: Apple refuses every call.
    Expired,
}

impl TokenExpiry {
    /// How close a token is to its `end` at `now`.
    #[must_use]
    pub fn of(end: Timestamp, now: Timestamp) -> Self {
        if now >= end {
            Self::Expired
        } else if now >= end.minus(URGENT) {
            Self::Urgent
        } else if now >= end.minus(WARNING) {
            Self::Expiring
        } else {
            Self::Fine
        }
    }
}

/// Why a JSON text is not a server token. Nothing of the text is ever in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenJsonError {
    /// Larger than any token.
    #[error("it is larger than 1 MiB, which no token is")]
    TooLarge,
    /// Not JSON, or a part of it is of the wrong type.
    #[error("it is not JSON of the form {{\"consumer_key\": \"CK_...\", ...}}")]
    NotJson,
    /// A part is missing or empty.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// The end is not a moment.
    #[error("its access_token_expiry is not a moment such as 2027-03-01T12:00:00Z")]
    Expiry,
}

impl ServerToken {
    /// Opens the file that Apple Business Manager or Apple School Manager gave for the certificate of `key`.
    ///
    /// A token that has expired opens like any other: see [`expiry_level`](Self::expiry_level).
    ///
    /// # Errors
    /// Says what is wrong with the file and what to do about it.
    pub fn open(file: &[u8], key: &TokenKey) -> Result<Self, TokenFileError> {
        let text = token_file::open(file, key)?;
        Self::from_json(&text).map_err(TokenFileError::NoToken)
    }

    /// Reads the decrypted token: the JSON that other programs keep, or the whole text as it was in the file, with its headers
    /// and marks and with lines broken in the middle of a word (contract sheet 2.42). What is not known is ignored.
    ///
    /// # Errors
    /// Says which part cannot be read, without any of it.
    pub fn from_json(text: &[u8]) -> Result<Self, TokenJsonError> {
        if text.len() > LARGEST {
            return Err(TokenJsonError::TooLarge);
        }
        let wire: Wire =
            serde_json::from_slice(&json(text)).map_err(|_| TokenJsonError::NotJson)?;
        let part = |name, value: Option<Wiped>| match value {
            Some(Wiped(text)) if !text.trim().is_empty() => Ok(text),
            _ => Err(TokenJsonError::Missing(name)),
        };
        let expiry = part("access_token_expiry", wire.access_token_expiry)?;
        Ok(Self {
            consumer_key: part("consumer_key", wire.consumer_key)?,
            consumer_secret: part("consumer_secret", wire.consumer_secret)?,
            access_token: part("access_token", wire.access_token)?,
            access_secret: part("access_secret", wire.access_secret)?,
            access_token_expiry: moment(&expiry).ok_or(TokenJsonError::Expiry)?,
        })
    }

    /// The token as JSON, wiped when dropped: what is sealed and stored. [`from_json`](Self::from_json) reads it.
    #[must_use]
    pub fn to_sealed_json(&self) -> Zeroizing<String> {
        let [key, secret, access, access_secret] = [
            &self.consumer_key,
            &self.consumer_secret,
            &self.access_token,
            &self.access_secret,
        ];
        // Six bytes for each is the most that JSON makes of one, so that no smaller copy is left behind in memory.
        let bytes = key.len() + secret.len() + access.len() + access_secret.len();
        let mut json = Zeroizing::new(Vec::with_capacity(256 + 6 * bytes));
        let written = serde_json::to_writer(
            &mut *json,
            &Sealed {
                consumer_key: key,
                consumer_secret: secret,
                access_token: access,
                access_secret,
                access_token_expiry: &written(self.access_token_expiry),
            },
        );
        written.expect("five texts are JSON, and a Vec takes them");
        let json = std::mem::take(&mut *json);
        Zeroizing::new(String::from_utf8(json).expect("serde_json writes UTF-8"))
    }

    /// The consumer key, by which the token is known at Apple. It proves nothing without the secrets.
    #[must_use]
    pub fn consumer_key(&self) -> &str {
        &self.consumer_key
    }

    /// When it ends: about a year after it was downloaded.
    #[must_use]
    pub fn access_token_expiry(&self) -> Timestamp {
        self.access_token_expiry
    }

    /// Whole days until it ends; negative once it is over.
    #[must_use]
    pub fn days_left(&self, now: Timestamp) -> i64 {
        let day = i64::try_from(DAY.as_millis()).unwrap_or(i64::MAX);
        let left = self.access_token_expiry.0.saturating_sub(now.0);
        left.div_euclid(day)
    }

    /// How close it is to its end.
    #[must_use]
    pub fn expiry_level(&self, now: Timestamp) -> TokenExpiry {
        TokenExpiry::of(self.access_token_expiry, now)
    }

    pub(super) fn consumer_secret(&self) -> &str {
        &self.consumer_secret
    }

    pub(super) fn access_token(&self) -> &str {
        &self.access_token
    }

    pub(super) fn access_secret(&self) -> &str {
        &self.access_secret
    }
}

/// A moment in ISO 8601, as Apple writes it; `None` when it is none after 1970 and before the year 10000.
pub(super) fn moment(text: &str) -> Option<Timestamp> {
    let moment = OffsetDateTime::parse(text.trim(), &Iso8601::DEFAULT).ok()?;
    let millis = i64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
    (0..=LAST_MOMENT)
        .contains(&millis)
        .then_some(Timestamp(millis))
}

fn written(moment: Timestamp) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(moment.0) * 1_000_000)
        .ok()
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .expect("only a moment that RFC 3339 can write was read")
}

/// The JSON in the text: from the first brace to the last, the lines joined with nothing between. Headers and marks have no
/// braces.
fn json(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let from = text.iter().position(|byte| *byte == b'{').unwrap_or(0);
    let to = text.iter().rposition(|byte| *byte == b'}');
    let text = text.get(from..=to.unwrap_or(0)).unwrap_or_default();
    let mut joined = Zeroizing::new(Vec::with_capacity(text.len()));
    joined.extend(text.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
    joined
}

#[derive(Deserialize)]
struct Wire {
    consumer_key: Option<Wiped>,
    consumer_secret: Option<Wiped>,
    access_token: Option<Wiped>,
    access_secret: Option<Wiped>,
    access_token_expiry: Option<Wiped>,
}

#[derive(Serialize)]
struct Sealed<'a> {
    consumer_key: &'a str,
    consumer_secret: &'a str,
    access_token: &'a str,
    access_secret: &'a str,
    access_token_expiry: &'a str,
}

struct Wiped(Zeroizing<String>);

impl<'de> Deserialize<'de> for Wiped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = r#"{"consumer_key":"CK_1","consumer_secret":"CS_2","access_token":"AT_3","access_secret":"AS_4","access_token_expiry":"2027-03-01T12:00:00Z"}"#;
    const END: Timestamp = Timestamp(1_803_902_400_000);

    fn read(text: &str) -> Result<ServerToken, TokenJsonError> {
        ServerToken::from_json(text.as_bytes())
    }

    fn parts(token: &ServerToken) -> [&str; 4] {
        [
            &token.consumer_key,
            &token.consumer_secret,
            &token.access_token,
            &token.access_secret,
        ]
    }

    #[test]
    fn t10_the_json_is_read_plain_pretty_wrapped_and_with_what_stands_around_it() {
        let pretty = PLAIN.replace(",\"", ",\n    \"").replace(':', ": ");
        let pretty = pretty.replace("12: 00: 00", "12:00:00");
        let wrapped: Vec<&str> = PLAIN
            .as_bytes()
            .chunks(7)
            .map(|line| std::str::from_utf8(line).expect("ASCII"))
            .collect();
        let wrapped = wrapped.join("\r\n");
        let headers =
            "Content-Type: text/plain;charset=UTF-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n";
        for text in [
            PLAIN.to_owned(),
            format!("\u{feff}{PLAIN}\n"),
            pretty,
            wrapped.clone(),
            format!("{headers}{wrapped}"),
            format!("{headers}-----BEGIN MESSAGE-----\r\n{wrapped}\r\n-----END MESSAGE-----\r\n"),
            PLAIN.replace("{\"con", "{\"new\":[1,{}],\"con"),
        ] {
            let token = read(&text).expect("a token");
            assert!(parts(&token) == ["CK_1", "CS_2", "AT_3", "AS_4"]);
            assert_eq!(token.access_token_expiry(), END);
        }
    }

    #[test]
    fn what_is_no_token_says_which_part_and_repeats_none_of_it() {
        use TokenJsonError::*;
        for (text, error) in [
            (String::new(), NotJson),
            ("}{".to_owned(), NotJson),
            ("{}".to_owned(), Missing("access_token_expiry")),
            (
                PLAIN.replace("\"CS_2\"", "\"\""),
                Missing("consumer_secret"),
            ),
            (
                PLAIN.replace("\"CS_2\"", "null"),
                Missing("consumer_secret"),
            ),
            (
                PLAIN.replace("consumer_key", "key"),
                Missing("consumer_key"),
            ),
            (PLAIN.replace("\"AS_4\"", "[\"AS_4\"]"), NotJson),
            (PLAIN.replace("2027-03-01T12:00:00Z", "soon"), Expiry),
            (PLAIN.replace("2027-03-01T12:00:00Z", "2027-03-01"), Expiry),
            (PLAIN.replace("2027", "1969"), Expiry),
            (" ".repeat(LARGEST + 1), TooLarge),
        ] {
            let found = read(&text).err().expect("no token");
            assert_eq!(found, error);
            for secret in ["CK_1", "CS_2", "AT_3", "AS_4"] {
                assert!(!found.to_string().contains(secret));
            }
        }
    }

    #[test]
    fn what_is_sealed_reads_back_the_same() {
        let odd = PLAIN.replace("CS_2", r#"\"\\\u00e9\u0001/"#);
        let odd = odd.replace("12:00:00Z", "12:00:00.5+02:00");
        for text in [PLAIN, &odd] {
            let token = read(text).expect("a token");
            let again = read(&token.to_sealed_json()).expect("what was sealed");
            assert!(parts(&again) == parts(&token));
            assert_eq!(again.access_token_expiry(), token.access_token_expiry());
        }
        assert!(*read(PLAIN).expect("a token").to_sealed_json() == *PLAIN);
    }

    #[test]
    fn t10_a_token_warns_at_sixty_and_at_fourteen_days_and_ends() {
        const A_DAY: i64 = 24 * 60 * 60 * 1000;
        let token = read(PLAIN).expect("a token");
        for (now, level, days) in [
            (END.0 - 60 * A_DAY - 1, TokenExpiry::Fine, 60),
            (END.0 - 60 * A_DAY, TokenExpiry::Expiring, 60),
            (END.0 - 14 * A_DAY - 1, TokenExpiry::Expiring, 14),
            (END.0 - 14 * A_DAY, TokenExpiry::Urgent, 14),
            (END.0 - 1, TokenExpiry::Urgent, 0),
            (END.0, TokenExpiry::Expired, 0),
            (END.0 + 1, TokenExpiry::Expired, -1),
        ] {
            assert_eq!(token.expiry_level(Timestamp(now)), level, "{now}");
            assert_eq!(token.days_left(Timestamp(now)), days, "{now}");
        }
    }

    #[test]
    fn moments_are_read_as_apple_and_others_write_them() {
        for (text, millis) in [
            ("2027-03-01T12:00:00Z", Some(END.0)),
            (" 2027-03-01T12:00:00.000Z\n", Some(END.0)),
            ("2027-03-01T14:00:00+02:00", Some(END.0)),
            ("20270301T140000+0200", Some(END.0)),
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59Z", None),
            ("9999-12-31T23:59:59.9999Z", Some(LAST_MOMENT)),
            ("9999-12-31T23:59:59-01:00", None),
            ("-000001-01-01T00:00:00Z", None),
            ("", None),
            ("yesterday", None),
        ] {
            assert_eq!(moment(text), millis.map(Timestamp), "{text}");
        }
    }
}
