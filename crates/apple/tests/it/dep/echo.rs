//! Answers that repeat what was sent: what is kept of them, and shown later, holds no secret (R23).

use activation_lock::lock::{LockOutcome, ResponseStatus};
use apple::dep::DepError;
use serde_json::json;
use sim::dep::DepFault;

use super::*;

#[tokio::test]
async fn r23_a_word_that_repeats_the_hash_is_kept_without_it() {
    let organisation = Organisation::new().await;
    let said = json!({ "serial_number": SERIAL, "response_status": format!("ODD {}", hash(CODE)) });
    let echo = DepFault::status(200).body(said.to_string()).on(LOCK);
    organisation.dep.push_fault(echo);
    let answer = lock(&organisation.service()).await;
    assert_eq!(answer.outcome, LockOutcome::Undescribed);
    let word = answer.response_status.as_ref().map(ResponseStatus::as_str);
    assert_eq!(word, Some("ODD [code]"));
    assert!(!organisation.shows_a_secret(&answer.diagnostic));
}

#[tokio::test]
async fn r23_an_account_or_a_list_that_repeats_a_secret_is_not_taken_in() {
    let organisation = Organisation::new().await;
    let token = &organisation.token;
    for secret in [
        token.access_secret.clone(),
        token.consumer_secret.to_lowercase(),
        BASE64.encode(token.access_token.as_bytes()),
    ] {
        let said = json!({ "server_name": format!("It was {secret}") });
        organisation
            .dep
            .push_fault(DepFault::status(200).body(said.to_string()).on("/account"));
        let error = organisation.service().account(now()).await.unwrap_err();
        assert!(matches!(error, DepError::Unreadable { .. }), "an account");
        assert!(
            !organisation.shows_a_secret(&error.to_string()),
            "an account"
        );
        let said =
            json!({ "devices": [{ "serial_number": SERIAL, "asset_tag": secret }], "cursor": "c" });
        organisation.dep.push_fault(
            DepFault::status(200)
                .body(said.to_string())
                .on("/server/devices"),
        );
        let error = organisation
            .service()
            .fetch_devices(None, 10, now())
            .await
            .unwrap_err();
        assert!(matches!(error, DepError::Unreadable { .. }), "a list");
        assert!(!organisation.shows_a_secret(&error.to_string()), "a list");
    }
    assert!(organisation.service().account(now()).await.is_ok());
}

#[tokio::test]
async fn r23_what_is_given_with_a_session_is_not_repeated() {
    let organisation = Organisation::new().await;
    let session = "1758000000-a-session-that-nobody-else-may-use";
    for (status, body) in [
        (201, json!({ "auth_session_token": session }).to_string()),
        (200, format!("session {session}")),
    ] {
        organisation
            .dep
            .push_fault(DepFault::status(status).body(body).on(SESSION));
        let answer = lock(&organisation.service()).await;
        assert_eq!(answer.outcome, LockOutcome::Unavailable);
        assert!(
            answer.diagnostic.contains("no session was begun"),
            "{}",
            answer.diagnostic
        );
        assert!(!answer.diagnostic.contains("nobody-else"), "{status}");
    }
}
