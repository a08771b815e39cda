//! Everything that was decided without having seen the real Apple do it.
//!
//! No call to Apple was ever made from this project. Where the contract sheet marks a fact as a guess, the choice made is
//! here, in one file, so that a session with a real device and a real push certificate can settle them one by one. What a
//! status means is decided in `activation_lock::unlock::outcome`; the rows about it are listed here all the same.

/// Where Apple's unlock service is (contract sheet 1.1).
pub const UNLOCK_ORIGIN: &str = "https://deviceservices-external.apple.com";
/// The path of the unlock call (contract sheet 1.1).
pub const UNLOCK_PATH: &str = "/deviceservicesworkers/escrowKeyUnlock";

/// Where Apple's device enrolment service is (contract sheet 2.1).
pub const DEP_ORIGIN: &str = "https://mdmenrollment.apple.com";
/// The path that begins a session (contract sheet 2.20).
pub const SESSION_PATH: &str = "/session";
/// The path of the organisation's account.
pub const ACCOUNT_PATH: &str = "/account";
/// The path of the list of devices.
pub const FETCH_PATH: &str = "/server/devices";
/// The path of what happened to the list of devices.
pub const SYNC_PATH: &str = "/devices/sync";
/// The path of the lock call (contract sheet 2.1).
pub const LOCK_PATH: &str = "/device/activationlock";
/// The protocol that is spoken: the first that tells IMEIs (contract sheet 2.26).
pub const DEP_PROTOCOL_VERSION: &str = "10";
/// What every call says that it sends and takes, the session call too (contract sheet 2.25).
pub const DEP_CONTENT_TYPE: &str = "application/json;charset=UTF8";
/// Whether the hash of a code is sent in capital letters (contract sheet 0.7).
pub const ESCROW_KEY_IN_CAPITALS: bool = true;
/// The longest message for a locked screen that is sent, in characters.
pub const LOST_MESSAGE_LIMIT: usize = 500;
/// The most devices that are asked for at once.
pub const PAGE_LIMIT: u16 = 1000;
/// The most of a page of devices that is read, in bytes.
pub const PAGE_BODY_LIMIT: usize = 16 * 1024 * 1024;
/// How long the certificate is valid that server tokens are encrypted for, in years of 365 days.
pub const TOKEN_CERTIFICATE_YEARS: i64 = 10;
/// Where the API of Apple Business Manager is (contract sheet 4.1).
pub const BUSINESS_ORIGIN: &str = "https://api-business.apple.com";
/// Where the API of Apple School Manager is (contract sheet 4.1).
pub const SCHOOL_ORIGIN: &str = "https://api-school.apple.com";
/// Where access tokens for both are given (contract sheet 4.8).
pub const BUSINESS_TOKEN_URL: &str = "https://account.apple.com/auth/oauth2/v2/token";
/// What an assertion for an access token is addressed to (contract sheet 4.7).
pub const BUSINESS_AUDIENCE: &str = "https://account.apple.com/auth/oauth2/v2/token";
/// The path of the list of devices (contract sheet 4.1).
pub const ORG_DEVICES_PATH: &str = "/v1/orgDevices";
/// What follows a device's path to ask for its lock status (contract sheet 4.1).
pub const LOCK_STATUS_PATH: &str = "/activationLockStatus";
/// The most devices that one page is asked for. From memory of Apple's page.
pub const ORG_DEVICES_PAGE: usize = 1000;
/// The status of an answer that may mean a lock in a state only Apple sees, where an error of Apple's own form comes with it
/// (contract sheet 4.4).
pub const INTERNAL_STATE_STATUS: u16 = 500;
/// How the code of an error begins that is about the address and not about the device. From memory of Apple's other services
/// of this kind.
pub const PATH_ERROR: &str = "PATH_ERROR";

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

/// Every choice, for documents.
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
        row: "4.2",
        unknown: "from which version on the API knows lock statuses, and whether every organisation has it",
        choice: "asked at /v1; an error that says the address is wrong (PATH_ERROR) is unexpected, and never \"not managed\"",
    },
    Choice {
        row: "4.4",
        unknown: "how the server error looks that means a lock in a state only Apple sees",
        choice: "500 with an error of Apple's own form and without Retry-After; any other 5xx is unavailable. Neither says that a device is not locked",
    },
    Choice {
        row: "4.4",
        unknown: "whether a 404 has a body",
        choice: "not managed when it is empty or an error of Apple's own form; anything else is unexpected",
    },
    Choice {
        row: "4.8",
        unknown: "which of two addresses gives access tokens, and whether the audience has to be the same",
        choice: "the v2 address for both; each can be configured by itself",
    },
    Choice {
        row: "4.9",
        unknown: "how many calls Apple allows before it answers 429",
        choice: "wait, for as long as Retry-After says; the one-shot command stops when that is long",
    },
    Choice {
        row: "4",
        unknown: "how many devices a page of the list may have",
        choice: "at most 1,000 are asked for; pages are followed by their cursor, and a list is whole or an error",
    },
    Choice {
        row: "4",
        unknown: "how soon the lock status follows a lock or an unlock",
        choice: "for 10 minutes a status that does not fit is no contradiction",
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
    Choice {
        row: "0.7",
        unknown: "whether the hash of a lock call may be in small letters",
        choice: "sent in capital letters, as Apple's sample prints it",
    },
    Choice {
        row: "2a",
        unknown: "whether Macs, Apple TVs and Apple Vision Pro can be locked by their organisation",
        choice: "the call is made, and its answer is believed",
    },
    Choice {
        row: "2.4",
        unknown: "what a response_status means that is not described, and what became of a lock that FAILED",
        choice: "neither locked nor not locked: the code stays worth trying for ever",
    },
    Choice {
        row: "2.7",
        unknown: "how long the message on a locked screen may be, and of which characters",
        choice: "500 characters, without control characters but line breaks",
    },
    Choice {
        row: "2.8",
        unknown: "whether a lock call that is made again takes over a new code",
        choice: "it is made again with the same code, and an answer about another device is no answer",
    },
    Choice {
        row: "2.21",
        unknown: "how long a session is good",
        choice: "used until it is refused, then begun anew once and the call sent again",
    },
    Choice {
        row: "2.24",
        unknown: "how an unknown session is refused, and whether error bodies are bare or JSON strings",
        choice: "401, or 403 with FORBIDDEN somewhere in it; words are looked for anywhere in a body",
    },
    Choice {
        row: "2.25",
        unknown: "which headers the service insists on",
        choice: "protocol version 10, a User-Agent and the JSON content type on every call, the session call too",
    },
    Choice {
        row: "2.27",
        unknown: "how many lock calls Apple allows",
        choice: "as asked for; 429 and Retry-After are honoured",
    },
    Choice {
        row: "2.28",
        unknown: "whether a token may have several sessions, and calls under way at once in one",
        choice: "one session a token; calls go at once, a refused one again with the newest session, and after a second refusal alone",
    },
    Choice {
        row: "2.29",
        unknown: "how far a clock may be off, and how that is told from a token that has ended",
        choice: "401 to the session call is the token's end in our words, which name the clock too",
    },
    Choice {
        row: "2.40",
        unknown: "whether the portal looks at how long the certificate is valid, and at its key usages",
        choice: "ten years and no key usages, so that it outlives the tokens that are made for it",
    },
    Choice {
        row: "2.41",
        unknown: "whether every token file is encrypted with AES and RSA PKCS#1 v1.5",
        choice: "AES with 128, 192 and 256 bits and triple DES, all in CBC mode; another algorithm is named by its number",
    },
];
