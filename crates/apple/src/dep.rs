//! Apple's device enrolment service: where an organisation's devices are listed, and where it turns a lock on (contract
//! sheet, section 2).
//!
//! A person uploads the certificate of a [`TokenKey`](key::TokenKey) to the portal and downloads a file, which opens as a
//! [`ServerToken`](token::ServerToken). With it a [`DepService`] proves itself to Apple; or it calls Apple through
//! [`NanoDep`], which has the token. What could not be checked against the real service is in [`crate::unverified`].

use std::fmt;
use std::time::Duration;

use activation_lock::lock::{Response, Trouble};

pub use devices::{Account, DepDevice, DevicePage, OpType};
pub use lock::{LockAnswer, LostMessage, LostMessageError};
pub use nanodep::{NanoDep, NanoDepError};
pub use service::{DepService, DepSettings, RandomBytes};

use service::{Failure, Reply, Told};

mod ber;
mod devices;
pub mod key;
mod lock;
mod nanodep;
mod oauth;
mod service;
pub mod token;
pub mod token_file;

/// Why a call that only reads has no result. Nothing secret is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DepError {
    /// The place in the list is not known to Apple (any more).
    #[error(
        "Apple does not go on from this place in the list of devices: {0}. All devices have to be fetched anew, from the beginning"
    )]
    CursorInvalid(CursorProblem),
    /// Apple does not accept the token.
    #[error(
        "Apple does not accept the server token: it has expired, was replaced by a newer one, or the clock of this machine is wrong. Look at the clock; else a person downloads a new token in Apple Business Manager or Apple School Manager and gives it here{}", Said(.diagnostic)
    )]
    TokenRefused {
        /// What Apple says.
        diagnostic: String,
    },
    /// NanoDEP or, through it, Apple does not accept us.
    #[error(
        "NanoDEP does not accept the API key, or Apple does not accept the server token that NanoDEP has. Compare the key with the one that NanoDEP was started with, and look at its log{}", Said(.diagnostic)
    )]
    ProxyRefused {
        /// What was said.
        diagnostic: String,
    },
    /// Apple waits for a person.
    #[error(
        "Apple has new terms that the organisation has not accepted, and answers nothing until then. A person with the role of an administrator signs in to Apple Business Manager or Apple School Manager and accepts them"
    )]
    TermsNotSigned,
    /// The token may not do this.
    #[error(
        "Apple denies access: the server token may not do this. A person looks in Apple Business Manager or Apple School Manager whether the server is still there and the organisation's account is in order{}", Said(.diagnostic)
    )]
    AccessDenied {
        /// What Apple says.
        diagnostic: String,
    },
    /// No answer, or one that asks to come back.
    #[error("Apple's enrolment service is not available now; try again later{}", Said(.diagnostic))]
    Unavailable {
        /// How long Apple asked us to wait.
        retry_after: Option<Duration>,
        /// Why, in words.
        diagnostic: String,
    },
    /// A good status, and a body that is not what is documented.
    #[error(
        "Apple's enrolment service answered {status} with something that cannot be read. Something between here and Apple may have answered in its place{}", Said(.diagnostic)
    )]
    Unreadable {
        /// The HTTP status.
        status: u16,
        /// What it says.
        diagnostic: String,
    },
    /// A status nobody described.
    #[error(
        "Apple's enrolment service answered {status}, which is not expected here. Something between here and Apple may have answered in its place{}", Said(.diagnostic)
    )]
    Unexpected {
        /// The HTTP status.
        status: u16,
        /// What it says.
        diagnostic: String,
    },
}

/// What is wrong with a place in the list of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CursorProblem {
    /// `EXPIRED_CURSOR`: it is older than seven days.
    Expired,
    /// `INVALID_CURSOR`: it is none of this server.
    Invalid,
    /// `EXHAUSTED_CURSOR`: it was used, or there is nothing more behind it.
    Exhausted,
}

impl CursorProblem {
    const ALL: [Self; 3] = [Self::Expired, Self::Invalid, Self::Exhausted];

    /// Apple's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "EXPIRED_CURSOR",
            Self::Invalid => "INVALID_CURSOR",
            Self::Exhausted => "EXHAUSTED_CURSOR",
        }
    }
}

impl fmt::Display for CursorProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "it is older than seven days (EXPIRED_CURSOR)",
            Self::Invalid => "it is none of this server (INVALID_CURSOR)",
            Self::Exhausted => "it has been used up (EXHAUSTED_CURSOR)",
        })
    }
}

/// The end of a sentence: what the other side says, if anything.
struct Said<'a>(&'a str);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            said => write!(f, " (it says: {said})"),
        }
    }
}

impl DepError {
    /// What an answer means that is not a 200.
    fn of_reply(reply: &Reply, is_delegated: bool) -> Self {
        let response = reply.response();
        let cursor = CursorProblem::ALL
            .into_iter()
            .find(|problem| reply.status == 400 && reply.says(problem.as_str()));
        match cursor {
            Some(problem) => Self::CursorInvalid(problem),
            None => Self::of(
                Told {
                    response,
                    status: Some(reply.status),
                    retry_after: reply.retry_after,
                    diagnostic: reply.diagnostic(),
                    may_have_left: true,
                },
                is_delegated,
            ),
        }
    }

    fn of_failure(failure: Failure) -> Self {
        Self::of(Told::from(failure), false)
    }

    fn of(told: Told, is_delegated: bool) -> Self {
        let Told {
            status,
            retry_after,
            diagnostic,
            ..
        } = told;
        match told.response {
            Response::Status {
                trouble: Some(Trouble::TermsNotSigned),
                ..
            } => Self::TermsNotSigned,
            Response::Status {
                trouble: Some(Trouble::AccessDenied),
                ..
            } => Self::AccessDenied { diagnostic },
            Response::Status {
                code: 401 | 403, ..
            } if is_delegated => Self::ProxyRefused { diagnostic },
            Response::TokenRefused
            | Response::Status {
                code: 401 | 403, ..
            } => Self::TokenRefused { diagnostic },
            Response::Status {
                code: status @ (200..=399 | 400 | 402 | 404..=407 | 409..=428 | 430..=499),
                ..
            } => Self::Unexpected { status, diagnostic },
            _ => Self::Unavailable {
                retry_after,
                diagnostic: match (status, diagnostic) {
                    (Some(status), said) if said.is_empty() => format!("status {status}"),
                    (_, said) => said,
                },
            },
        }
    }
}
