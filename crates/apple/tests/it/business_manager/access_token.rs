//! Access tokens: for whom they are given, how long they are kept, and how often they are asked for (T31, T32).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use activation_lock::time::Timestamp;
use apple::business_manager::{BusinessError, BusinessService, BusinessSettings, Refusal};
use sim::{AccountKind, BusinessFault, BusinessManagerOptions, Gate, Now};
use time::OffsetDateTime;

use super::{Stage, account, account_with, ask, serial, service};
use crate::support::{SERIAL, now};

const TOKEN: &str = "/auth/";

/// A clock that a test moves, as the fake and as we read it.
#[derive(Clone)]
struct Clock(Arc<AtomicI64>);

impl Clock {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(now().0)))
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }

    fn pass(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    fn of_fake(&self) -> Now {
        let clock = self.clone();
        Now::new(move || {
            let nanos = i128::from(clock.now().0) * 1_000_000;
            OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap()
        })
    }
}

/// OAuth's word for why no token was given.
#[track_caller]
fn refused<T>(answer: Result<T, BusinessError>) -> String {
    match answer {
        Err(BusinessError::Credential(Refusal::NoToken { error, .. })) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it is refused"),
    }
}

#[tokio::test]
async fn t32_a_strict_verifier_accepts_each_kind_of_account_and_each_form_of_key() {
    let stage = Stage::with(BusinessManagerOptions {
        one_time_assertions: true,
        ..BusinessManagerOptions::default()
    })
    .await;
    for kind in [AccountKind::Business, AccountKind::School] {
        let issued = stage.business.issue_account(kind);
        for pem in [&issued.private_key_pem, &issued.private_key_sec1_pem] {
            let service = service(&stage.settings(), account_with(&issued, pem));
            ask(&service).await.unwrap();
            // Each token is asked for with an assertion of its own.
            stage.business.expire_tokens();
            ask(&service).await.unwrap();
        }
    }
    assert_eq!(stage.business.tokens_given(), 8);
}

#[tokio::test]
async fn each_programme_is_asked_at_its_own_address() {
    let stage = Stage::new().await;
    let settings = BusinessSettings {
        school_origin: "https://school.example".parse().unwrap(),
        ..stage.settings()
    };
    let school = stage.business.issue_account(AccountKind::School);
    let asked = |issued| service(&settings, account(issued)).recipient().to_owned();
    assert_eq!(asked(&stage.account), "127.0.0.1");
    assert_eq!(asked(&school), "school.example");
}

#[tokio::test]
async fn t31_a_key_of_another_account_is_invalid_client_and_explained() {
    let stage = Stage::new().await;
    let other = stage.business.issue_account(AccountKind::Business);
    let mixed = account_with(&stage.account, &other.private_key_pem);
    let answer = ask(&service(&stage.settings(), mixed)).await;
    let error = answer.unwrap_err();
    assert!(error.to_string().contains("do not belong together"));
    assert!(error.concerns_every_call());
    assert_eq!(refused::<()>(Err(error)), "invalid_client");
    assert_eq!(stage.questions(), 0, "without a token nothing is asked");
    // The audience is what the fake demands, wherever it listens.
    let settings = BusinessSettings {
        audience: stage.business.token_url(),
        ..stage.settings()
    };
    let addressed_otherwise = service(&settings, account(&stage.account));
    assert_eq!(refused(ask(&addressed_otherwise).await), "invalid_client");
}

#[tokio::test]
async fn t32_clocks_may_differ_by_minutes_and_not_by_more() {
    let stage = Stage::new().await;
    let ask_at = async |seconds: i64| {
        let service = stage.service();
        let now = Timestamp(now().0 + seconds * 1000);
        service.lock_status(&serial(SERIAL), now).await
    };
    for minutes in [-15, -5, 0, 5] {
        ask_at(minutes * 60).await.unwrap();
    }
    for minutes in [-30, 10] {
        assert_eq!(refused(ask_at(minutes * 60).await), "invalid_client");
    }
}

#[tokio::test]
async fn a_token_is_kept_until_shortly_before_its_end_and_a_clone_shares_it() {
    let clock = Clock::new();
    let stage = Stage::with(BusinessManagerOptions {
        now: clock.of_fake(),
        token_lifetime: Duration::from_secs(600),
        ..BusinessManagerOptions::default()
    })
    .await;
    let service = stage.service();
    let ask = async |service: &BusinessService| {
        service
            .lock_status(&serial(SERIAL), clock.now())
            .await
            .unwrap();
        stage.business.tokens_given()
    };
    assert_eq!(ask(&service).await, 1);
    assert_eq!(ask(&service.clone()).await, 1);
    clock.pass(539);
    assert_eq!(ask(&service).await, 1);
    clock.pass(1);
    assert_eq!(ask(&service.clone()).await, 2);
    assert_eq!(ask(&service).await, 2);
    let all = stage.business.journal().all();
    assert!(
        all.iter().all(|call| call.error.is_none()),
        "no call left with a token that had ended"
    );
}

/// Asks ten times at once, while the call for a token is held back.
async fn ten_at_once(stage: &Stage, service: &BusinessService) -> Vec<Result<(), BusinessError>> {
    let gate = Gate::new();
    stage
        .business
        .push_fault(BusinessFault::hold(&gate).on(TOKEN));
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { ask(&service).await.map(|_| ()) })
        })
        .collect();
    tokio::task::yield_now().await;
    gate.open();
    let mut answers = Vec::new();
    for caller in callers {
        answers.push(caller.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn ten_callers_at_once_ask_for_one_token() {
    let stage = Stage::new().await;
    let service = stage.service();
    let answers = ten_at_once(&stage, &service).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(stage.business.tokens_given(), 1);
    assert_eq!(stage.questions(), 10);
    // So it is when all of them are refused with the same token.
    stage.business.expire_tokens();
    let answers = ten_at_once(&stage, &service).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(stage.business.tokens_given(), 2);
}

#[tokio::test]
async fn t31_a_token_endpoint_that_is_busy_is_unavailable() {
    let stage = Stage::new().await;
    let service = stage.service();
    for (fault, status, wait) in [
        (
            BusinessFault::status(429).retry_after("7"),
            Some(429),
            Some(7),
        ),
        (BusinessFault::status(503), Some(503), None),
        (BusinessFault::status(500), Some(500), None),
        (BusinessFault::drop_before(), None, None),
    ] {
        stage.business.push_fault(fault.on(TOKEN));
        let answer = ask(&service).await;
        let Err(BusinessError::Unavailable {
            status: told,
            retry_after,
            ..
        }) = answer
        else {
            panic!("{answer:?}");
        };
        assert_eq!(told, status);
        assert_eq!(retry_after, wait.map(Duration::from_secs));
    }
    for fault in [
        BusinessFault::status(302).location(stage.business.token_url()),
        BusinessFault::status(400).body("<html>"),
        BusinessFault::empty_body(),
        BusinessFault::huge_body(),
    ] {
        stage.business.push_fault(fault.on(TOKEN));
        let answer = ask(&service).await;
        assert!(
            matches!(answer, Err(BusinessError::Unexpected { .. })),
            "{answer:?}"
        );
    }
    assert_eq!(stage.questions(), 0);
    ask(&service).await.unwrap();
}
