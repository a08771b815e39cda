//! Everything that was decided without having seen the real Apple do it.
//!
//! No call to Apple was ever made from this project. Where the contract sheet marks a fact as a guess, the choice made is
//! here, in one file, so that a session with a real device and a real push certificate can settle them one by one. What a
//! status means is decided in `activation_lock::unlock::outcome`; the rows about it are listed here all the same.

/// Where Apple's unlock service is (contract sheet 1.1).
pub const UNLOCK_ORIGIN: &str = "https://deviceservices-external.apple.com";
/// The path of the unlock call (contract sheet 1.1).
pub const UNLOCK_PATH: &str = "/deviceservicesworkers/escrowKeyUnlock";

/// How long the certificate is valid that server tokens are encrypted for, in years of 365 days.
pub const TOKEN_CERTIFICATE_YEARS: i64 = 10;

/// The most of an answer's body that is read, in bytes. Its format is not documented; nothing is decided by it (contract
/// sheet 1b).
pub const BODY_LIMIT: usize = 64 * 1024;

/// The most of a body that is kept as diagnostic text, in characters.
pub const DIAGNOSTIC_LIMIT: usize = 4 * 1024;

/// One choice made where nobody outside Apple knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The row of the contract sheet.
    pub row: &'static str,
    /// What is not known.
    pub unknown: &'static str,
    /// What is done here.
    pub choice: &'static str,
}

/// Every choice, for documents and for `doctor`.
pub const CHOICES: &[Choice] = &[
    Choice {
        row: "1.5",
        unknown: "whether orgName and guid are required in the unlock request",
        choice: "always sent, never empty",
    },
    Choice {
        row: "1.7",
        unknown: "whether a code is accepted without dashes or in small letters",
        choice: "sent in capital letters with dashes; a device's own text is sent as it came",
    },
    Choice {
        row: "1.10",
        unknown: "whether the comma of a product type may stand unescaped",
        choice: "escaped once, as %2C",
    },
    Choice {
        row: "1.12",
        unknown: "which authority signs the service's certificate",
        choice: "the public authorities, and those of the CA file that is configured",
    },
    Choice {
        row: "1.13",
        unknown: "whether the push certificate must belong to the MDM that manages the device",
        choice: "the certificate whose topic the code was obtained under is used first",
    },
    Choice {
        row: "1.13",
        unknown: "what the server answers to a request without a code, and whether it refuses a bad certificate in TLS already",
        choice: "a test of a certificate asks HEAD / and reports whether TLS was set up; it never says that an unlock will work",
    },
    Choice {
        row: "1b",
        unknown: "what 401 and 403 mean",
        choice: "our certificate is not accepted; no code is blamed, and a person has to mend it",
    },
    Choice {
        row: "1b",
        unknown: "what 429 and 503 mean, and how many attempts Apple allows",
        choice: "wait, for as long as Retry-After says; six attempts an unlock and ten a device a day",
    },
    Choice {
        row: "1b",
        unknown: "what an answer's body holds",
        choice: "kept as text without the code, for people; the status alone decides",
    },
    Choice {
        row: "9.1",
        unknown: "whether a device that is not locked answers 200 or 404",
        choice: "200 is believed; 404 is never called \"not locked\"",
    },
    Choice {
        row: "9.3",
        unknown: "whether a missing IMEI or one with spaces is a reason for 404",
        choice: "digits alone, and only what is known",
    },
];
