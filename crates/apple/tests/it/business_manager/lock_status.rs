//! What each answer about a lock means (T31).

use std::time::Duration;

use activation_lock::codes::LockStatus;
use activation_lock::lock::{AppleStatus, LockType};
use apple::business_manager::{BusinessError, BusinessSettings, Refusal, StatusAnswer};
use apple::transport::ExtraAuthorities;
use sim::apple::Answered;
use sim::{BusinessFault, Code, Gate};

use super::{Stage, account, ask, serial, service};
use crate::support::{CODE, SERIAL, now};

/// Where questions about devices go, and not those for a token.
const API: &str = "/v1/";

#[track_caller]
fn known(answer: Result<StatusAnswer, BusinessError>) -> (AppleStatus, Option<String>) {
    match answer {
        Ok(StatusAnswer::Known {
            status,
            undescribed,
        }) => (status, undescribed),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn t31_apples_own_word_follows_the_lock() {
    let stage = Stage::new().await;
    let service = stage.service();
    let said = async || known(ask(&service).await).0.known();
    assert_eq!(said().await, Some(LockStatus::None));
    stage.apple.user_lock(SERIAL, CODE).unwrap();
    assert_eq!(said().await, Some(LockStatus::User));
    stage.apple.clear_lock(SERIAL);
    let hash = Code::parse(CODE).unwrap().hash();
    stage.apple.org_lock(SERIAL, hash).unwrap();
    assert_eq!(said().await, Some(LockStatus::Mdm));
    assert_eq!(stage.business.tokens_given(), 1, "one token for all of it");
}

#[tokio::test]
async fn t31_missing_unknown_and_further_attributes_are_taken_as_they_are() {
    let stage = Stage::locked().await;
    let service = stage.service();
    let set = |answer| stage.business.set_status(SERIAL, answer);
    set(sim::StatusAnswer::Missing);
    assert_eq!(known(ask(&service).await), (AppleStatus::default(), None));
    set(sim::StatusAnswer::Exactly {
        is_locked: Some(true),
        lock_type: None,
    });
    let (status, _) = known(ask(&service).await);
    assert_eq!((status.is_locked, &status.lock_type), (Some(true), &None));
    assert_eq!(status.known(), None, "nothing is guessed");
    set(sim::StatusAnswer::Other("CARRIER".to_owned()));
    let (status, _) = known(ask(&service).await);
    assert_eq!(
        status.lock_type,
        Some(LockType::Other("CARRIER".to_owned()))
    );
    set(sim::StatusAnswer::MoreThanTruth);
    let (status, undescribed) = known(ask(&service).await);
    assert_eq!(status.known(), Some(LockStatus::User));
    let undescribed = undescribed.expect("what is new is kept");
    let kept: serde_json::Value = serde_json::from_str(&undescribed).unwrap();
    assert_eq!(kept["lockDetails"]["byPerson"], false);
}

#[tokio::test]
async fn t31_an_answer_about_another_device_says_nothing_about_this_one() {
    let stage = Stage::locked().await;
    let other = sim::StatusAnswer::AboutAnother("SIMTEST00002".to_owned());
    stage.business.set_status(SERIAL, other);
    let answer = ask(&stage.service()).await;
    assert!(
        matches!(answer, Err(BusinessError::Unexpected { status: 200, .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn t31_404_is_not_managed() {
    let stage = Stage::locked().await;
    let service = stage.service();
    let unknown = serial("SIMTEST00002");
    assert_eq!(
        service.lock_status(&unknown, now()).await,
        Ok(StatusAnswer::NotManaged)
    );
    stage.business.remove_device(SERIAL);
    assert_eq!(ask(&service).await, Ok(StatusAnswer::NotManaged));
}

#[tokio::test]
async fn t31_500_is_an_internal_state_and_never_not_locked() {
    let stage = Stage::locked().await;
    stage
        .business
        .set_status(SERIAL, sim::StatusAnswer::InternalState);
    let answer = ask(&stage.service()).await;
    let Ok(StatusAnswer::InternalState { diagnostic }) = answer else {
        panic!("{answer:?}");
    };
    assert!(diagnostic.contains("unexpected error"), "{diagnostic}");
}

#[tokio::test]
async fn t31_401_renews_the_token_once_and_repeats_the_call_once() {
    let stage = Stage::locked().await;
    let service = stage.service();
    known(ask(&service).await);
    stage.business.expire_tokens();
    known(ask(&service).await);
    let all = stage.business.journal().all();
    let calls: Vec<_> = all
        .iter()
        .map(|call| (call.method.as_str(), call.answered))
        .collect();
    let (token, question) = ("POST", "GET");
    assert_eq!(
        calls,
        [
            (token, Answered::Status(200)),
            (question, Answered::Status(200)),
            (question, Answered::Status(401)),
            (token, Answered::Status(200)),
            (question, Answered::Status(200)),
        ]
    );
    // A service that takes no token at all is not asked for ever.
    stage
        .business
        .push_fault(BusinessFault::status(401).on(API).times(9));
    let answer = ask(&service).await;
    assert!(
        matches!(
            answer,
            Err(BusinessError::Credential(Refusal::Token { .. }))
        ),
        "{answer:?}"
    );
    assert_eq!(stage.business.journal().count(), 5 + 3);
}

#[tokio::test]
async fn t31_403_is_credential() {
    let stage = Stage::locked().await;
    stage.business.deny(&stage.account, true);
    let answer = ask(&stage.service()).await;
    let Err(BusinessError::Credential(Refusal::Forbidden { diagnostic })) = answer else {
        panic!("{answer:?}");
    };
    assert!(diagnostic.contains("FORBIDDEN"), "{diagnostic}");
    assert_eq!(stage.questions(), 1, "and it is not asked again");
}

#[tokio::test]
async fn t31_429_and_5xx_are_unavailable_for_as_long_as_apple_says() {
    let stage = Stage::locked().await;
    let service = stage.service();
    for (status, retry_after, body) in [
        (429, Some("30"), None),
        (429, None, None),
        (503, Some("30"), None),
        (503, None, None),
        (502, None, None),
        (408, None, None),
        (500, None, Some("")),
        (500, None, Some("<html>")),
        (500, Some("30"), None),
    ] {
        let mut fault = BusinessFault::status(status).on(API);
        if let Some(value) = retry_after {
            fault = fault.retry_after(value);
        }
        if let Some(body) = body {
            fault = fault.body(body);
        }
        stage.business.push_fault(fault);
        let answer = ask(&service).await;
        let Err(BusinessError::Unavailable {
            status: told,
            retry_after: wait,
            ..
        }) = answer
        else {
            panic!("{status} {retry_after:?} {body:?}: {answer:?}");
        };
        assert_eq!(told, Some(status));
        assert_eq!(wait, retry_after.map(|_| Duration::from_secs(30)));
    }
    assert_eq!(stage.questions(), 9, "nothing is asked again by itself");
    known(ask(&service).await);
}

#[tokio::test]
async fn t31_no_answer_is_unavailable() {
    let stage = Stage::locked().await;
    let service = stage.service();
    known(ask(&service).await);
    for fault in [BusinessFault::drop_before(), BusinessFault::garbage()] {
        stage.business.push_fault(fault.on(API));
        let answer = ask(&service).await;
        assert!(
            matches!(answer, Err(BusinessError::Unavailable { status: None, .. })),
            "{answer:?}"
        );
    }
    stage.business.go_offline().await;
    let answer = ask(&service).await;
    let Err(error) = answer else {
        panic!("{answer:?}");
    };
    assert!(!error.diagnostic().is_empty());
    assert!(error.concerns_every_call());
    stage.business.come_back().await;
    known(ask(&service).await);
}

#[tokio::test]
async fn t31_a_time_out_is_unavailable() {
    let stage = Stage::locked().await;
    let gate = Gate::new();
    stage
        .business
        .push_fault(BusinessFault::hold(&gate).on(API));
    let answer = ask(&stage.impatient(Duration::from_secs(1))).await;
    assert!(
        matches!(answer, Err(BusinessError::Unavailable { status: None, .. })),
        "{answer:?}"
    );
    gate.open();
}

#[tokio::test]
async fn t31_anything_else_is_unexpected_and_no_redirect_is_followed() {
    let stage = Stage::locked().await;
    let service = stage.service();
    let elsewhere = format!("{}/v1/elsewhere", stage.business.api_url());
    for fault in [
        BusinessFault::status(302).location(&elsewhere),
        BusinessFault::status(400),
        BusinessFault::status(406),
        BusinessFault::status(404).body("<html>"),
        BusinessFault::huge_body(),
        BusinessFault::empty_body(),
        BusinessFault::xml_body(),
    ] {
        stage.business.push_fault(fault.on(API));
        let answer = ask(&service).await;
        assert!(
            matches!(answer, Err(BusinessError::Unexpected { .. })),
            "{answer:?}"
        );
    }
    let paths: Vec<String> = (stage.business.journal().all().into_iter())
        .map(|call| call.path)
        .collect();
    assert!(!paths.iter().any(|path| path.contains("elsewhere")));
}

#[tokio::test]
async fn an_answer_is_read_up_to_a_limit() {
    let stage = Stage::locked().await;
    let good = r#"{"data":{"type":"activationLockStatus","id":"SIMTEST00001"}}"#;
    let padded = |spaces: usize| format!("{good}{}", " ".repeat(spaces));
    let service = stage.service();
    let answered = async |body: String| {
        let fault = BusinessFault::status(200).body(body).on(API);
        stage.business.push_fault(fault);
        ask(&service).await
    };
    known(answered(padded(60 * 1024)).await);
    let answer = answered(padded(70 * 1024)).await;
    assert!(
        matches!(answer, Err(BusinessError::Unexpected { status: 200, .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn t34_r23_tokens_and_assertions_are_in_no_diagnostic() {
    let stage = Stage::locked().await;
    for (status, path) in [
        (401, API),
        (403, API),
        (400, API),
        (503, API),
        (400, "/auth/"),
        (401, "/auth/"),
        (503, "/auth/"),
    ] {
        let fault = BusinessFault::echo(status).on(path).times(2);
        stage.business.push_fault(fault);
        let Err(error) = ask(&stage.service()).await else {
            panic!("{status} {path}");
        };
        let said = error.diagnostic();
        assert!(
            said.contains("[code]") || said == apple::redaction::WITHHELD,
            "the fake repeated the secret, and the rest is kept"
        );
        // Every token and assertion is longer, without any dash or dot in between.
        let longest = said
            .split(|c: char| !c.is_ascii_alphanumeric())
            .map(str::len)
            .max();
        assert!(
            longest < Some(24),
            "nothing of the length of a secret is left"
        );
        stage.business.clear_faults();
    }
}

#[tokio::test]
async fn a_server_that_is_not_trusted_gets_nothing() {
    let stage = Stage::locked().await;
    let settings = BusinessSettings {
        authorities: ExtraAuthorities::default(),
        ..stage.settings()
    };
    let answer = ask(&service(&settings, account(&stage.account))).await;
    let Err(BusinessError::Unavailable { diagnostic, .. }) = answer else {
        panic!("{answer:?}");
    };
    assert!(diagnostic.contains("certificate"), "{diagnostic}");
    assert_eq!(stage.business.journal().count(), 0);
}
