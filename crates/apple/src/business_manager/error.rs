//! Why Apple's service gave nothing, in words for people.

use std::time::Duration;

/// Why Apple's service gave nothing. Displays what happened, what it means, and what to do; holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusinessError {
    /// Apple does not accept the account, or not for this. Nothing goes on before a person has mended it.
    #[error(transparent)]
    Credential(Refusal),
    /// Nothing was decided: Apple was not reached, or asked us to come back.
    #[error(
        "{}; nothing is known, ask again later",
        unavailable(*.status, *.retry_after)
    )]
    Unavailable {
        /// The HTTP status, when one arrived.
        status: Option<u16>,
        /// How long Apple asked us to wait.
        retry_after: Option<Duration>,
        /// What Apple, or the failure, says in words, without any secret. May be empty.
        diagnostic: String,
    },
    /// An answer nobody described.
    #[error(
        "Apple's service answered in a way that is not described (HTTP status {status}); nothing is known, and asking again will not help before it is found out what answered"
    )]
    Unexpected {
        /// The HTTP status.
        status: u16,
        /// What Apple says, or what is wrong with the answer, in words, without any secret. May be empty.
        diagnostic: String,
    },
}

/// How Apple refused an account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No access token was given.
    #[error("{}", oauth(.error))]
    NoToken {
        /// OAuth's word for it, such as `invalid_client`; the status where there was none.
        error: String,
        /// What Apple says in words. May be empty.
        diagnostic: String,
    },
    /// An access token that was just given was not accepted (401, twice).
    #[error(
        "Apple did not accept the access token that it had just given to the API account (401); see whether the account still exists and belongs to the service that is asked (Business or School)"
    )]
    Token {
        /// What Apple says in words. May be empty.
        diagnostic: String,
    },
    /// The account may not do this (403).
    #[error(
        "the API account may not ask this (403); somebody with the role Administrator has to look at the account and at its rights, in Apple Business Manager or Apple School Manager"
    )]
    Forbidden {
        /// What Apple says in words. May be empty.
        diagnostic: String,
    },
}

fn unavailable(status: Option<u16>, retry_after: Option<Duration>) -> String {
    let mut words = match status {
        None => "Apple's service was not reached, or did not answer".to_owned(),
        Some(429) => "Apple asks us to slow down (429)".to_owned(),
        Some(status) => format!("Apple's service does not answer properly now ({status})"),
    };
    if let Some(wait) = retry_after {
        words.push_str(&format!(" and asks us to wait {} s", wait.as_secs()));
    }
    words
}

/// OAuth's words (RFC 6749, section 5.2) for who has to mend it (contract sheet 4.10).
fn oauth(error: &str) -> String {
    let to_do = match error {
        "invalid_client" => {
            "nearly always the key ID and the private key do not belong together, or the client ID is another \
             organisation's; it can also be a key that was revoked, or a clock here that is wrong by many minutes. Compare \
             client ID, key ID and key with the API account, or make a new key there"
        }
        "invalid_scope" | "unauthorized_client" => {
            "the API account has no right to this service; somebody with the role Administrator has to look at it"
        }
        _ => {
            "compare client ID, key ID and key with the API account, and the time here with the true one"
        }
    };
    format!("Apple gave no access token to the API account ({error}): {to_do}")
}

impl BusinessError {
    /// What Apple, or the failure, says in words, without any secret. May be empty.
    #[must_use]
    pub fn diagnostic(&self) -> &str {
        match self {
            Self::Credential(
                Refusal::NoToken { diagnostic, .. }
                | Refusal::Token { diagnostic }
                | Refusal::Forbidden { diagnostic },
            )
            | Self::Unavailable { diagnostic, .. }
            | Self::Unexpected { diagnostic, .. } => diagnostic,
        }
    }

    /// Whether the next question will fare no better: the trouble is with the account or the service, and not with what was
    /// asked.
    #[must_use]
    pub fn concerns_every_call(&self) -> bool {
        match self {
            Self::Credential(_) => true,
            Self::Unavailable {
                status,
                retry_after,
                ..
            } => retry_after.is_some() || matches!(status, None | Some(429 | 503)),
            Self::Unexpected { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Reply;
    use super::*;

    #[test]
    fn each_failure_says_whether_the_next_question_fares_better() {
        let unavailable = |status, retry_after| BusinessError::Unavailable {
            status,
            retry_after,
            diagnostic: String::new(),
        };
        let forbidden = Refusal::Forbidden {
            diagnostic: String::new(),
        };
        for error in [
            BusinessError::Credential(forbidden),
            unavailable(None, None),
            unavailable(Some(429), None),
            unavailable(Some(503), None),
            unavailable(Some(500), Some(Duration::from_secs(1))),
        ] {
            assert!(error.concerns_every_call(), "{error}");
        }
        for error in [
            unavailable(Some(500), None),
            unavailable(Some(504), None),
            Reply::of(400, "").failure(),
        ] {
            assert!(!error.concerns_every_call(), "{error}");
        }
    }

    #[test]
    fn invalid_client_is_explained() {
        let refused = BusinessError::Credential(Refusal::NoToken {
            error: "invalid_client".to_owned(),
            diagnostic: String::new(),
        });
        let words = refused.to_string();
        assert!(
            words.contains("invalid_client") && words.contains("do not belong together"),
            "{words}"
        );
    }
}
