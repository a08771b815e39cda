//! Access tokens: given for an assertion, kept until shortly before their end, asked for by one caller at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use activation_lock::time::Timestamp;
use form_urlencoded::Serializer;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::assertion::ClientAssertion;
use super::{ANSWER_LIMIT, ApiAccount, BusinessError, Inner, JSON, Refusal, Reply};
use crate::redaction;

/// So long before its end a token is no longer used: a call with it may take that long to arrive.
const MARGIN: Duration = Duration::from_secs(60);
/// How long a token lives whose life is not told: what is documented (contract sheet 4.8).
const USUAL_LIFE: Duration = Duration::from_secs(3600);
/// The longest token that is taken, in characters.
const LONGEST_TOKEN: usize = 16 * 1024;
/// The most of an OAuth error word that is kept, in characters.
const LONGEST_WORD: usize = 64;

/// A token that Apple gave. Wiped when dropped; no Debug.
pub(super) struct AccessToken {
    text: Zeroizing<String>,
    /// Which one it is, so that a refused one is not used again and its successor not renewed.
    number: u64,
    good_until: Timestamp,
}

impl AccessToken {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// `Bearer` and the token, marked so that HTTP code does not print it.
    pub(super) fn header(&self) -> HeaderValue {
        let value = Zeroizing::new(format!("Bearer {}", *self.text));
        let mut value = HeaderValue::from_str(&value)
            .expect("a token is taken only when it is printable ASCII");
        value.set_sensitive(true);
        value
    }
}

/// What Apple gave, and for how long from when it was asked for.
pub(crate) struct Granted {
    pub(crate) text: Zeroizing<String>,
    pub(crate) life: Duration,
}

/// The one token of a service.
#[derive(Default)]
pub(super) struct AccessTokens {
    kept: Mutex<Kept>,
    /// How many times the token was asked for, to an end.
    rounds: AtomicU64,
}

#[derive(Default)]
struct Kept {
    token: Option<Arc<AccessToken>>,
    /// How the last round failed, if it did.
    failure: Option<BusinessError>,
}

impl AccessTokens {
    /// The token, when it is good at `now` and not the `refused` one; else a new one, for which `ask` is awaited. Others who
    /// come meanwhile wait for that round and share how it ended, so that a refusal is not asked for again by each.
    pub(super) async fn get(
        &self,
        now: Timestamp,
        refused: Option<&AccessToken>,
        ask: impl Future<Output = Result<Granted, BusinessError>>,
    ) -> Result<Arc<AccessToken>, BusinessError> {
        let rounds = self.rounds.load(Ordering::SeqCst);
        let mut kept = self.kept.lock().await;
        let refused = refused.map(|token| token.number);
        if let Some(token) = &kept.token
            && now < token.good_until
            && Some(token.number) != refused
        {
            return Ok(token.clone());
        }
        if let Some(failure) = &kept.failure
            && self.rounds.load(Ordering::SeqCst) > rounds
        {
            return Err(failure.clone());
        }
        kept.token = None;
        let given = ask.await;
        let number = self.rounds.fetch_add(1, Ordering::SeqCst);
        match given {
            Ok(granted) => {
                let used = granted.life - MARGIN.min(granted.life / 2);
                let token = Arc::new(AccessToken {
                    text: granted.text,
                    number,
                    good_until: now.plus(used),
                });
                kept.token = Some(token.clone());
                kept.failure = None;
                Ok(token)
            }
            Err(error) => {
                kept.failure = Some(error.clone());
                Err(error)
            }
        }
    }
}

/// Asks Apple for a token (contract sheet 4.8).
pub(super) async fn ask(service: &Inner, now: Timestamp) -> Result<Granted, BusinessError> {
    let mut identifier = [0; 16];
    (service.random)(&mut identifier);
    let account = &service.account;
    let assertion = account.assertion(&service.audience, now, identifier);
    let form = form(account, &assertion);
    let sent = service
        .client
        .post(service.token_url.url())
        .header(ACCEPT, JSON)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form.to_vec())
        .send()
        .await;
    let secrets = assertion.secrets();
    let reply = Reply::receive(sent, ANSWER_LIMIT, &secrets, now).await?;
    read(reply, &secrets)
}

fn form(account: &ApiAccount, assertion: &ClientAssertion) -> Zeroizing<Vec<u8>> {
    // Three bytes for each is the most that escaping makes of one.
    let room = 512 + 3 * (account.client_id.len() + assertion.text().len());
    let mut form = Serializer::new(String::with_capacity(room));
    form.append_pair("grant_type", "client_credentials")
        .append_pair("client_id", &account.client_id)
        .append_pair(
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        )
        .append_pair("client_assertion", assertion.text())
        .append_pair("scope", account.programme.scope());
    Zeroizing::new(form.finish().into_bytes())
}

#[derive(Deserialize)]
struct Grant {
    access_token: String,
    token_type: Option<String>,
    /// Seconds. Not trusted to be a number: a token whose life is not understood is still a token.
    expires_in: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct OAuthError {
    error: String,
    #[serde(default)]
    error_description: Option<String>,
}

/// What the answer to the request for a token means.
pub(crate) fn read(reply: Reply, secrets: &[&str]) -> Result<Granted, BusinessError> {
    match reply.status {
        200 => {
            let grant: Grant = reply.json()?;
            let is_bearer = grant
                .token_type
                .is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"));
            let text = Zeroizing::new(grant.access_token);
            let fits = (1..=LONGEST_TOKEN).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_bearer || !fits {
                return Err(reply.unexpected(
                    "the access token is of another type than Bearer, or holds what no such token may",
                ));
            }
            let life = grant
                .expires_in
                .and_then(|seconds| seconds.as_u64())
                .map_or(USUAL_LIFE, Duration::from_secs);
            Ok(Granted { text, life })
        }
        400 | 401 | 403 => {
            let said: Option<OAuthError> = serde_json::from_slice(&reply.body).ok();
            match said {
                Some(said) => {
                    let clean = |text: &str| redaction::diagnostic(text.as_bytes(), false, secrets);
                    Err(BusinessError::Credential(Refusal::NoToken {
                        error: clean(&said.error).chars().take(LONGEST_WORD).collect(),
                        diagnostic: clean(&said.error_description.unwrap_or_default()),
                    }))
                }
                // A 400 that is not OAuth's is a request that was not understood, or another server.
                None if reply.status == 400 => Err(reply.failure()),
                None => Err(BusinessError::Credential(Refusal::NoToken {
                    error: format!("HTTP status {}", reply.status),
                    diagnostic: reply.diagnostic,
                })),
            }
        }
        _ => Err(reply.failure()),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const NOW: Timestamp = Timestamp(1_767_225_600_000);

    fn granted(text: &str, seconds: u64) -> Result<Granted, BusinessError> {
        Ok(Granted {
            text: Zeroizing::new(text.to_owned()),
            life: Duration::from_secs(seconds),
        })
    }

    fn refusal() -> BusinessError {
        BusinessError::Credential(Refusal::Forbidden {
            diagnostic: String::new(),
        })
    }

    /// The text of the token at hand, for which nobody may be asked.
    async fn at_hand(tokens: &AccessTokens, now: Timestamp) -> String {
        tokio::select! {
            biased;
            token = tokens.get(now, None, pending()) => token.unwrap_or_else(|e| panic!("{e}")).text().to_owned(),
            () = std::future::ready(()) => panic!("a token was asked for"),
        }
    }

    #[track_caller]
    fn text(given: Result<Arc<AccessToken>, BusinessError>) -> String {
        given
            .unwrap_or_else(|error| panic!("{error}"))
            .text()
            .to_owned()
    }

    #[tokio::test]
    async fn a_token_is_kept_until_shortly_before_its_end() {
        for (life, last) in [(3600, 3540), (100, 50), (0, 0)] {
            let tokens = AccessTokens::default();
            let first = text(tokens.get(NOW, None, async { granted("one", life) }).await);
            assert_eq!(first, "one", "used even when it has no life to speak of");
            let end = NOW.plus(Duration::from_secs(last));
            if last > 0 {
                assert_eq!(at_hand(&tokens, Timestamp(end.0 - 1)).await, "one");
            }
            let second = text(tokens.get(end, None, async { granted("two", 3600) }).await);
            assert_eq!(second, "two");
        }
    }

    #[tokio::test]
    async fn a_refused_token_is_not_used_again_and_its_successor_is_not_renewed() {
        let tokens = AccessTokens::default();
        let first = tokens.get(NOW, None, async { granted("one", 3600) }).await;
        let first = first.unwrap_or_else(|error| panic!("{error}"));
        let renewed = tokens.get(NOW, Some(&first), async { granted("two", 3600) });
        assert_eq!(text(renewed.await), "two");
        // Another call that was refused with the first one finds that somebody has renewed it.
        let second = tokens.get(NOW, Some(&first), async { granted("three", 3600) });
        assert_eq!(text(second.await), "two");
    }

    /// Ten callers at once; gives how often a token was asked for, and what they got.
    async fn ten(
        end: fn() -> Result<Granted, BusinessError>,
    ) -> (u64, Vec<Result<String, BusinessError>>) {
        let tokens = Arc::new(AccessTokens::default());
        let (asked, arrived) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let callers: Vec<_> = (0..10)
            .map(|_| {
                let (tokens, gate) = (tokens.clone(), gate.clone());
                let (asked, arrived) = (asked.clone(), arrived.clone());
                tokio::spawn(async move {
                    arrived.fetch_add(1, Ordering::SeqCst);
                    let ask = async {
                        asked.fetch_add(1, Ordering::SeqCst);
                        gate.acquire().await.unwrap().forget();
                        end()
                    };
                    let given = tokens.get(NOW, None, ask).await;
                    given.map(|token| token.text().to_owned())
                })
            })
            .collect();
        while arrived.load(Ordering::SeqCst) < 10 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(10);
        let mut given = Vec::new();
        for caller in callers {
            given.push(caller.await.unwrap());
        }
        (asked.load(Ordering::SeqCst), given)
    }

    #[tokio::test]
    async fn ten_callers_wait_for_one_round_and_share_how_it_ends() {
        let (asked, given) = ten(|| granted("one", 3600)).await;
        assert_eq!(asked, 1);
        assert!(given.iter().all(|text| text.as_deref() == Ok("one")));
        let (asked, given) = ten(|| Err(refusal())).await;
        assert_eq!(asked, 1, "a refusal is not asked for again by each");
        assert!(given.iter().all(|text| *text == Err(refusal())));
    }

    #[tokio::test]
    async fn who_comes_after_a_failure_asks_again() {
        let tokens = AccessTokens::default();
        let failed = tokens.get(NOW, None, async { Err(refusal()) }).await;
        assert_eq!(failed.err(), Some(refusal()));
        assert_eq!(
            text(tokens.get(NOW, None, async { granted("one", 3600) }).await),
            "one"
        );
    }

    #[test]
    fn a_token_is_read_with_its_life() {
        for (life, expected) in [
            (r#","expires_in":1800"#, 1800),
            ("", 3600),
            (r#","expires_in":"soon""#, 3600),
            (r#","expires_in":-1"#, 3600),
            (r#","scope":"business.api","expires_in":7"#, 7),
        ] {
            let body = format!(r#"{{"access_token":"a.b-c_d","token_type":"bearer"{life}}}"#);
            let granted = read(Reply::of(200, &body), &[]).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(*granted.text, "a.b-c_d");
            assert_eq!(granted.life, Duration::from_secs(expected), "{life}");
        }
    }

    #[test]
    fn what_is_no_token_is_unexpected_and_not_repeated() {
        for body in [
            r#"{"access_token":"","token_type":"Bearer"}"#,
            r#"{"access_token":"secret token"}"#,
            r#"{"access_token":"secret\r\nX: y"}"#,
            r#"{"access_token":"secret","token_type":"mac"}"#,
            r#"{"access_token":["secret"]}"#,
            r#"{"token":"secret"}"#,
            "secret",
        ] {
            let error = read(Reply::of(200, body), &[])
                .err()
                .expect("it is refused");
            assert!(matches!(error, BusinessError::Unexpected { .. }), "{error}");
            assert!(!error.diagnostic().contains("secret"));
        }
    }

    #[test]
    fn t31_refusals_of_the_token_are_named() {
        let refused = |status, body: &str| match read(Reply::of(status, body), &["se.cret.one"]) {
            Err(BusinessError::Credential(Refusal::NoToken { error, diagnostic })) => {
                (error, diagnostic)
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it is refused"),
        };
        for status in [400, 401, 403] {
            assert_eq!(
                refused(
                    status,
                    r#"{"error":"invalid_client","error_description":"assertion se.cret.one"}"#
                ),
                ("invalid_client".to_owned(), "assertion [code]".to_owned())
            );
        }
        assert_eq!(
            refused(401, "no"),
            ("HTTP status 401".to_owned(), "no".to_owned())
        );
        let long = format!(r#"{{"error":"{}"}}"#, "x".repeat(500));
        assert_eq!(refused(400, &long).0.len(), LONGEST_WORD);
        for (status, body) in [(400, "<html>"), (404, r#"{"error":"x"}"#), (302, "")] {
            let error = read(Reply::of(status, body), &[]).err();
            assert!(matches!(error, Some(BusinessError::Unexpected { .. })));
        }
        for status in [429, 500, 503] {
            let reply = Reply::of(status, r#"{"error":"x"}"#).with_retry_after(9);
            let Some(BusinessError::Unavailable { retry_after, .. }) = read(reply, &[]).err()
            else {
                panic!("{status}");
            };
            assert_eq!(retry_after, Some(Duration::from_secs(9)));
        }
    }
}
