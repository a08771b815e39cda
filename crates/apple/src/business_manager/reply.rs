//! An answer of Apple's service, before it is known what it means.

use std::time::Duration;

use activation_lock::time::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::BusinessError;
use crate::redaction;
use crate::transport::{bounded_body, retry_after, words};
use crate::unverified::BODY_LIMIT;

/// An answer with a status.
pub(crate) struct Reply {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Zeroizing<Vec<u8>>,
    /// Whether the body went on after what was read of it.
    cut: bool,
    /// Whether it repeats a secret of the question.
    repeats: bool,
    /// What it says in words, without any secret; empty for an answer that gives what was asked.
    pub(super) diagnostic: String,
}

impl Reply {
    /// Reads an answer to a request that held `secrets`, which are taken out of what it says.
    pub(super) async fn receive(
        sent: Result<reqwest::Response, reqwest::Error>,
        limit: usize,
        secrets: &[&str],
        now: Timestamp,
    ) -> Result<Self, BusinessError> {
        let response = sent.map_err(|error| BusinessError::Unavailable {
            status: None,
            retry_after: None,
            diagnostic: redaction::diagnostic(words(&error).as_bytes(), false, secrets),
        })?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers(), now);
        let (body, cut) = bounded_body(response, limit).await;
        Ok(Self::new(status, retry_after, body, cut, secrets))
    }

    pub(crate) fn new(
        status: u16,
        retry_after: Option<Duration>,
        body: Vec<u8>,
        cut: bool,
        secrets: &[&str],
    ) -> Self {
        let body = Zeroizing::new(body);
        // What is given with success is not repeated: it may be a token. An error is short.
        let is_long = body.len() > BODY_LIMIT;
        let diagnostic = match status {
            200..=299 => String::new(),
            _ if is_long => redaction::diagnostic(&body[..BODY_LIMIT], true, secrets),
            _ => match ErrorResponse::read(&body) {
                Some(error) => redaction::diagnostic(error.words().as_bytes(), false, secrets),
                None => redaction::diagnostic(&body, cut, secrets),
            },
        };
        let repeats = redaction::repeats(&body, secrets);
        Self {
            status,
            retry_after,
            body,
            cut,
            repeats,
            diagnostic,
        }
    }

    /// The body as it is described.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, BusinessError> {
        if self.cut {
            return Err(self.unexpected("the answer is larger than any that is described"));
        }
        if self.repeats {
            return Err(
                self.unexpected("the answer repeats what proves who we are, and is not kept")
            );
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            // The words of the error may repeat what could not be read.
            if error.is_eof() && !self.body.is_empty() {
                BusinessError::Unavailable {
                    status: Some(self.status),
                    retry_after: self.retry_after,
                    diagnostic: "the answer broke off".to_owned(),
                }
            } else {
                self.unexpected(format!(
                    "the answer is not as it is described, at line {}, column {}",
                    error.line(),
                    error.column()
                ))
            }
        })
    }

    pub(super) fn unexpected(&self, diagnostic: impl Into<String>) -> BusinessError {
        BusinessError::Unexpected {
            status: self.status,
            diagnostic: diagnostic.into(),
        }
    }

    /// What a status means that is not one of those described for the call.
    pub(super) fn failure(self) -> BusinessError {
        match self.status {
            408 | 429 | 500..=599 => BusinessError::Unavailable {
                status: Some(self.status),
                retry_after: self.retry_after,
                diagnostic: self.diagnostic,
            },
            _ => BusinessError::Unexpected {
                status: self.status,
                diagnostic: self.diagnostic,
            },
        }
    }
}

/// How Apple writes an error (contract sheet 4.4).
#[derive(Deserialize)]
pub(super) struct ErrorResponse {
    errors: Vec<ApiProblem>,
}

#[derive(Deserialize)]
struct ApiProblem {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    detail: Option<String>,
}

impl ErrorResponse {
    /// `None` for a body that is something else.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body)
            .ok()
            .filter(|response: &Self| !response.errors.is_empty())
    }

    /// Whether one of the errors has a code that begins so.
    pub(super) fn has_code(&self, beginning: &str) -> bool {
        self.errors.iter().any(|problem| {
            let code = problem.code.as_deref().unwrap_or_default();
            code.starts_with(beginning)
        })
    }

    fn words(&self) -> String {
        let problem = |problem: &ApiProblem| {
            [&problem.code, &problem.title, &problem.detail]
                .into_iter()
                .flatten()
                .cloned()
                .collect::<Vec<_>>()
                .join(": ")
        };
        self.errors
            .iter()
            .map(problem)
            .collect::<Vec<_>>()
            .join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Reply {
        /// An answer with this body, to a request that held no secret.
        pub(in super::super) fn of(status: u16, body: &str) -> Self {
            Self::new(status, None, body.as_bytes().to_vec(), false, &[])
        }

        pub(in super::super) fn with_retry_after(self, seconds: u64) -> Self {
            Self {
                retry_after: Some(Duration::from_secs(seconds)),
                ..self
            }
        }
    }

    #[test]
    fn what_a_status_means_that_no_call_describes() {
        for status in [408, 429, 500, 502, 503, 504, 599] {
            let failure = Reply::of(status, "").with_retry_after(30).failure();
            assert_eq!(
                failure,
                BusinessError::Unavailable {
                    status: Some(status),
                    retry_after: Some(Duration::from_secs(30)),
                    diagnostic: String::new(),
                }
            );
        }
        for status in [201, 204, 302, 304, 400, 404, 405, 406, 410] {
            let failure = Reply::of(status, "why").failure();
            let BusinessError::Unexpected {
                status: told,
                diagnostic,
            } = failure
            else {
                panic!("{status}: {failure}");
            };
            assert_eq!(told, status);
            let repeated = if status < 300 { "" } else { "why" };
            assert_eq!(diagnostic, repeated, "of success nothing is repeated");
        }
    }

    #[test]
    fn an_answer_that_broke_off_is_asked_for_again_and_another_text_is_not() {
        let read = |body: &str| Reply::of(200, body).json::<Vec<u8>>().unwrap_err();
        assert!(matches!(read("[1, 2"), BusinessError::Unavailable { .. }));
        for body in ["", "<html>", "{}", "[\"secret\"]"] {
            let error = read(body);
            assert!(matches!(error, BusinessError::Unexpected { .. }), "{body}");
            assert!(!error.diagnostic().contains("secret"));
        }
        let cut = Reply::new(200, None, b"[1, 2".to_vec(), true, &[]);
        let error = cut.json::<Vec<u8>>().unwrap_err();
        assert!(
            matches!(error, BusinessError::Unexpected { .. }),
            "too large is not broken off"
        );
    }

    #[test]
    fn r23_an_answer_that_repeats_who_we_are_is_not_taken_in() {
        let body = br#"{"note":"Bearer abcdef123456"}"#.to_vec();
        let reply = Reply::new(200, None, body.clone(), false, &["ABCDEF123456"]);
        let error = reply.json::<serde_json::Value>().unwrap_err();
        assert!(matches!(error, BusinessError::Unexpected { .. }));
        assert!(!error.diagnostic().contains("abcdef"));
        let reply = Reply::new(200, None, body, false, &["another123456"]);
        assert!(reply.json::<serde_json::Value>().is_ok());
    }

    #[test]
    fn an_error_of_apples_form_is_told_in_its_words_without_secrets() {
        let body = r#"{"errors":[{"id":"1","status":"403","code":"FORBIDDEN","title":"No.","detail":"token abcdef123456 may not"},{"code":"OTHER"}]}"#;
        let reply = Reply::new(
            403,
            None,
            body.as_bytes().to_vec(),
            false,
            &["abcdef123456"],
        );
        assert_eq!(
            reply.diagnostic,
            "FORBIDDEN: No.: token [code] may not; OTHER"
        );
        for other in ["", "{}", r#"{"errors":[]}"#, r#"{"errors":"x"}"#, "<html>"] {
            assert!(ErrorResponse::read(other.as_bytes()).is_none(), "{other}");
        }
    }
}
