//! What each answer to a lock call means.

use activation_lock::lock::{LockOutcome, ResponseStatus};
use activation_lock::time::Timestamp;
use apple::dep::DepError;
use apple::redaction::MARK;
use sim::apple::Gate;
use sim::dep::DepFault;

use super::*;

/// A status of the lock call alone, nothing having happened.
fn status(status: u16) -> DepFault {
    DepFault::status(status).on(LOCK)
}

#[tokio::test]
async fn t5_r20_each_response_status_is_told_and_only_success_is_a_lock() {
    let organisation = Organisation::new().await;
    let service = organisation.service();
    for (word, outcome) in [
        ("NOT_ACCESSIBLE", LockOutcome::NotAccessible),
        ("ORG_NOT_SUPPORTED", LockOutcome::OrgNotSupported),
        ("DEVICE_NOT_SUPPORTED", LockOutcome::DeviceNotSupported),
        ("DEVICE_ALREADY_LOCKED", LockOutcome::AlreadyLocked),
        ("FAILED", LockOutcome::Failed),
        ("QUEUED_FOR_LATER", LockOutcome::Undescribed),
    ] {
        organisation.dep.refuse_lock(SERIAL, Some(word));
        let answer = lock(&service).await;
        assert_eq!(
            (answer.outcome, answer.status),
            (outcome, Some(200)),
            "{word}"
        );
        let said = answer.response_status.unwrap();
        assert_eq!(said.as_str(), word);
        assert_eq!(
            matches!(said, ResponseStatus::Other(_)),
            word == "QUEUED_FOR_LATER"
        );
    }
    organisation.dep.refuse_lock(SERIAL, None);
    assert_eq!(lock(&service).await.outcome, LockOutcome::Locked);
}

#[tokio::test]
async fn t6_a_bad_request_says_what_the_service_misses() {
    let organisation = Organisation::new().await;
    let service = organisation.service();
    for word in [
        "MALFORMED_REQUEST_BODY",
        "\"USER_AGENT_INVALID\"",
        "USER_AGENT_MISSING",
    ] {
        organisation.dep.push_fault(status(400).body(word));
        let answer = lock(&service).await;
        assert_eq!(answer.outcome, LockOutcome::Malformed, "{word}");
        assert_eq!(answer.diagnostic, word);
    }
    assert_eq!(organisation.calls(LOCK), 3, "nothing is sent twice");
    assert_eq!(organisation.calls(SESSION), 1);
}

#[tokio::test]
async fn t6_a_refused_session_is_begun_anew_once_and_the_call_sent_again() {
    for (refused, quoted) in [(401, false), (403, false), (403, true)] {
        let organisation = Organisation::new().await;
        organisation.dep.set_unknown_session_status(refused);
        organisation.dep.set_quoted_errors(quoted);
        let service = organisation.service();
        service.account(now()).await.unwrap();
        organisation.dep.expire_sessions();
        let answer = lock(&service).await;
        assert_eq!(
            answer.outcome,
            LockOutcome::Locked,
            "{refused}: {}",
            answer.diagnostic
        );
        assert_eq!(
            (organisation.calls(SESSION), organisation.calls(LOCK)),
            (2, 2)
        );

        // A service that refuses every session is not asked for ever.
        organisation.dep.push_fault(status(401).times(100));
        let answer = lock(&service).await;
        assert_eq!(
            (answer.outcome, answer.status),
            (LockOutcome::Credential, Some(401))
        );
        assert_eq!(
            (organisation.calls(SESSION), organisation.calls(LOCK)),
            (3, 4)
        );
    }
}

#[tokio::test]
async fn t6_another_403_is_no_reason_for_a_new_session() {
    let organisation = Organisation::new().await;
    let service = organisation.service();
    for body in ["", "QUOTA", "{\"error\":\"no\"}"] {
        organisation.dep.push_fault(status(403).body(body));
        let answer = lock(&service).await;
        assert_eq!(
            (answer.outcome, answer.status),
            (LockOutcome::Credential, Some(403))
        );
    }
    assert_eq!(
        (organisation.calls(SESSION), organisation.calls(LOCK)),
        (1, 3)
    );
}

#[tokio::test]
async fn t6_a_refused_token_is_a_credential_and_the_lock_call_stays_unsent() {
    let organisation = Organisation::new().await;
    organisation.dep.expire_token(&organisation.token);
    let service = organisation.service();
    let answer = lock(&service).await;
    assert_eq!(
        (answer.outcome, answer.status),
        (LockOutcome::Credential, Some(401))
    );
    assert!(!answer.may_have_reached_apple);
    assert!(answer.diagnostic.starts_with("no session was begun: "));
    assert_eq!(
        (organisation.calls(SESSION), organisation.calls(LOCK)),
        (1, 0)
    );
    let error = service.account(now()).await.unwrap_err();
    assert!(matches!(error, DepError::TokenRefused { .. }));
    let words = error.to_string();
    assert!(
        words.contains("server token") && words.contains("clock"),
        "{words}"
    );
}

#[tokio::test]
async fn t6_a_token_that_ends_while_a_session_is_used_is_found_at_the_next_session() {
    let organisation = Organisation::new().await;
    let service = organisation.service();
    service.account(now()).await.unwrap();
    organisation.dep.expire_token(&organisation.token);
    organisation.dep.expire_sessions();
    let answer = lock(&service).await;
    assert_eq!(
        (answer.outcome, answer.status),
        (LockOutcome::Credential, Some(401))
    );
    assert!(
        !answer.may_have_reached_apple,
        "the lock call was refused, and no other left"
    );
    assert_eq!(
        (organisation.calls(SESSION), organisation.calls(LOCK)),
        (2, 1)
    );
    // A session that was refused is not tried again.
    lock(&service).await;
    assert_eq!(
        (organisation.calls(SESSION), organisation.calls(LOCK)),
        (3, 1)
    );
}

#[tokio::test]
async fn t6_terms_and_denied_access_are_told_to_people_without_a_loop() {
    for quoted in [false, true] {
        for begun in [false, true] {
            let organisation = Organisation::new().await;
            organisation.dep.set_quoted_errors(quoted);
            let service = organisation.service();
            if begun {
                service.account(now()).await.unwrap();
            }
            organisation
                .dep
                .set_terms_signed(&organisation.token, false);
            let answer = lock(&service).await;
            assert_eq!(
                (answer.outcome, answer.status),
                (LockOutcome::TermsNotSigned, Some(403))
            );
            assert_eq!(answer.may_have_reached_apple, begun);
            assert_eq!(organisation.calls(SESSION), 1);
            let error = service.account(now()).await.unwrap_err();
            assert_eq!(error, DepError::TermsNotSigned);
            assert!(
                error
                    .to_string()
                    .contains("signs in to Apple Business Manager")
            );

            organisation.dep.set_terms_signed(&organisation.token, true);
            organisation
                .dep
                .set_access_denied(&organisation.token, true);
            let before = organisation.calls(SESSION);
            let answer = lock(&service).await;
            assert_eq!(
                (answer.outcome, answer.status),
                (LockOutcome::AccessDenied, Some(403))
            );
            assert_eq!(organisation.calls(SESSION) - before, usize::from(!begun));
            let error = service.account(now()).await.unwrap_err();
            assert!(matches!(error, DepError::AccessDenied { .. }), "{error}");

            // Once a person has mended it, the next call goes through.
            organisation
                .dep
                .set_access_denied(&organisation.token, false);
            assert_eq!(lock(&service).await.outcome, LockOutcome::Locked);
        }
    }
}

#[tokio::test]
async fn t6_r13_apple_may_ask_for_time_and_says_how_long() {
    let organisation = Organisation::new().await;
    let service = organisation.service();
    let cases = [
        (
            status(503).retry_after("120"),
            LockOutcome::Unavailable,
            Some(120),
        ),
        (
            status(429).retry_after("7"),
            LockOutcome::Unavailable,
            Some(7),
        ),
        (status(429), LockOutcome::Unavailable, None),
        (status(503), LockOutcome::Unknown, None),
        (status(500), LockOutcome::Unknown, None),
        (status(500).committing(), LockOutcome::Unknown, None),
    ];
    for (fault, outcome, wait) in cases {
        organisation.dep.push_fault(fault);
        let answer = lock(&service).await;
        assert_eq!(answer.outcome, outcome);
        assert_eq!(answer.retry_after, wait.map(Duration::from_secs));
        assert!(answer.may_have_reached_apple);
    }
    organisation.apple.clear_lock(SERIAL);
    // The session call too may be put off: then the lock call never left.
    organisation.dep.expire_sessions();
    for (status, wait) in [(503, Some("120")), (503, None), (429, Some("120"))] {
        let fault = DepFault::status(status).on(SESSION);
        organisation.dep.push_fault(match wait {
            Some(wait) => fault.retry_after(wait),
            None => fault,
        });
        let answer = lock(&organisation.service()).await;
        assert_eq!(
            (answer.outcome, answer.status),
            (LockOutcome::Unavailable, Some(status))
        );
        assert_eq!(answer.retry_after.is_some(), wait.is_some());
        assert!(!answer.may_have_reached_apple);
    }
    assert_eq!(organisation.apple.lock_state(SERIAL), None);
    // A day instead of seconds, dated by the moment that is given.
    organisation
        .dep
        .push_fault(status(503).retry_after("Sun, 06 Nov 1994 08:49:37 GMT"));
    let serial = SERIAL.parse().unwrap();
    let in_1994 = Timestamp(784_111_777_000 - 60_000);
    let service = organisation.service();
    service.account(now()).await.unwrap();
    let answer = service
        .activate_lock(&serial, &hash(CODE), None, in_1994)
        .await;
    assert_eq!(answer.retry_after, Some(Duration::from_secs(60)));
}

#[tokio::test]
async fn r13_no_redirect_is_followed_and_no_other_success_is_believed() {
    let organisation = Organisation::new().await;
    let service = organisation.service();
    let elsewhere = Organisation::new().await;
    let moved = format!("{}{LOCK}", elsewhere.dep.url());
    for redirect in [301, 302, 307, 308] {
        organisation
            .dep
            .push_fault(status(redirect).location(&moved));
        let answer = lock(&service).await;
        assert_eq!(
            (answer.outcome, answer.status),
            (LockOutcome::Unexpected, Some(redirect))
        );
    }
    assert_eq!(elsewhere.dep.journal().count(), 0);
    for (fault, outcome) in [
        (status(404), LockOutcome::Unexpected),
        (status(202), LockOutcome::Unknown),
        (status(408), LockOutcome::Unknown),
    ] {
        organisation.dep.push_fault(fault);
        assert_eq!(lock(&service).await.outcome, outcome);
    }
}

#[tokio::test]
async fn r20_a_200_that_cannot_be_read_is_unknown() {
    let organisation = Organisation::new().await;
    let service = organisation.service();
    let other = r#"{"serial_number":"SIMTEST00002","response_status":"SUCCESS"}"#;
    for fault in [
        DepFault::empty_body().on(LOCK),
        DepFault::xml_body().on(LOCK),
        DepFault::huge_body().on(LOCK),
        status(200).body(other),
        status(200).body("{}"),
        DepFault::garbage().on(LOCK),
    ] {
        organisation.dep.push_fault(fault);
        let answer = lock(&service).await;
        assert_eq!(answer.outcome, LockOutcome::Unknown);
        assert_eq!(answer.response_status, None);
        assert!(answer.may_have_reached_apple);
        assert!(answer.diagnostic.chars().count() <= 4096);
    }
}

#[tokio::test]
async fn r13_what_fails_before_the_lock_call_leaves_is_unavailable() {
    let organisation = Organisation::new().await;
    let unsent = async |service: &DepService, what: &str| {
        let answer = lock(service).await;
        assert_eq!(answer.outcome, LockOutcome::Unavailable, "{what}");
        assert!(!answer.may_have_reached_apple, "{what}");
        assert!(
            answer.diagnostic.starts_with("no session was begun: "),
            "{what}"
        );
    };
    // A server that we have no reason to believe.
    let settings = DepSettings {
        origin: organisation.dep.url().parse().unwrap(),
        ..DepSettings::default()
    };
    let stranger = DepService::new(&settings, read(&organisation.token), counting()).unwrap();
    unsent(&stranger, "an authority that is not believed").await;
    let service = organisation.service();
    for (what, fault) in [
        ("no reply", DepFault::drop_before()),
        ("a lost reply", DepFault::drop_after_commit()),
        ("garbage", DepFault::garbage()),
        ("no session in it", DepFault::status(200).body("{}")),
        (
            "an empty session",
            DepFault::status(200).body(r#"{"auth_session_token":""}"#),
        ),
        (
            "no header's text",
            DepFault::status(200).body(r#"{"auth_session_token":"a\nb"}"#),
        ),
    ] {
        organisation.dep.push_fault(fault.on(SESSION));
        unsent(&service, what).await;
    }
    organisation.dep.go_offline().await;
    unsent(&service, "nobody listens").await;
    assert_eq!(organisation.calls(LOCK), 0);
    organisation.dep.come_back().await;
    assert_eq!(lock(&service).await.outcome, LockOutcome::Locked);
}

#[tokio::test]
async fn r13_the_time_runs_out_with_or_without_the_lock_call_under_way() {
    let organisation = Organisation::new().await;
    let service = organisation.impatient(Duration::from_millis(500));
    let gate = Gate::new();
    organisation
        .dep
        .push_fault(DepFault::hold(&gate).on(SESSION));
    let answer = lock(&service).await;
    assert_eq!(answer.outcome, LockOutcome::Unavailable);
    assert!(!answer.may_have_reached_apple);
    gate.open();

    let patient = organisation.service();
    patient.account(now()).await.unwrap();
    let gate = Gate::new();
    organisation
        .dep
        .push_fault(DepFault::hold_after_commit(&gate).on(LOCK));
    // A slow machine may not even come to send it in time; then it is tried again.
    loop {
        let answer = lock(&service).await;
        if answer.may_have_reached_apple {
            assert_eq!(
                (answer.outcome, answer.status),
                (LockOutcome::Unknown, None)
            );
            break;
        }
        assert_eq!(answer.outcome, LockOutcome::Unavailable);
    }
    gate.open();
}

/// The first lock call was refused its session, so that nothing happened; the second never left.
#[tokio::test]
async fn r13_the_time_runs_out_while_a_session_is_begun_anew() {
    let organisation = Organisation::new().await;
    // Nothing is held but the second session: the time is short, and is tried again with more where the machine is slow.
    for overall in [1, 2, 4, 8, 16] {
        let service = organisation.impatient(Duration::from_secs(overall));
        if service.account(now()).await.is_err() {
            continue;
        }
        organisation.dep.expire_sessions();
        let gate = Gate::new();
        organisation
            .dep
            .push_fault(DepFault::hold(&gate).on(SESSION));
        let answer = lock(&service).await;
        gate.open();
        assert_eq!(answer.outcome, LockOutcome::Unavailable);
        assert!(!answer.may_have_reached_apple);
        assert_eq!(organisation.calls(LOCK), 1);
        return;
    }
    panic!("an account is not told within 16 seconds");
}

#[tokio::test]
async fn r23_what_the_service_repeats_is_taken_out() {
    let organisation = Organisation::new().await;
    let service = organisation.service();
    service.account(now()).await.unwrap();
    for status in [400, 403, 500] {
        organisation.dep.push_fault(DepFault::echo(status).on(LOCK));
        let answer = lock(&service).await;
        assert!(!organisation.shows_a_secret(&answer.diagnostic), "{status}");
        assert!(answer.diagnostic.contains(MARK) || answer.diagnostic.contains("withheld"));
    }
    // What is echoed of the others is the session, or the signature.
    let chosen = r#"{"auth_session_token":"a-session-of-our-choice"}"#;
    for path in ["/account", SESSION] {
        let service = organisation.service();
        if path != SESSION {
            organisation
                .dep
                .push_fault(DepFault::status(200).body(chosen).on(SESSION));
        }
        organisation.dep.push_fault(DepFault::echo(500).on(path));
        let error = service.account(now()).await.unwrap_err();
        for said in [error.to_string(), format!("{error:?}")] {
            assert!(!organisation.shows_a_secret(&said), "{path}");
            assert!(!said.contains("a-session-of-our-choice"), "{path}");
            let signatures = said.split("oauth_signature=").skip(1);
            for signature in signatures {
                let signature = signature.trim_start_matches(['"', '\\']);
                assert!(signature.starts_with(MARK), "{path}");
            }
            assert!(said.contains(MARK) || said.contains("withheld"), "{path}");
        }
    }
}
