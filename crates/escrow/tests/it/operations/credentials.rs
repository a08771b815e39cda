//! Who calls Apple: a push certificate of our own, or an MDM for us.

use super::*;

#[tokio::test]
async fn r19_an_unlock_is_delegated_where_the_connection_says_so_and_its_key_is_the_credential() {
    let desk = Desk {
        vault: Vault::new().await,
    };
    let connection = desk.connection("mdm").await;
    let delegated = ConnectionChange {
        unlock_via: Some(UnlockVia::Delegated),
        ..ConnectionChange::default()
    };
    let permit = desk.permit("connection mdm").await;
    desk.escrow
        .connections()
        .change(&permit, "mdm", delegated)
        .await
        .unwrap()
        .unwrap();
    enrol(&desk, &connection).await;
    desk.add_code(SERIAL, CODE_A, CodeKind::Device).await;
    let id = desk.unlock(SERIAL).await;
    let mut lease = desk.claim().await;
    let begun = desk.begin(&mut lease).await;
    assert_eq!(
        begun.via,
        Via::Connection {
            id: connection.clone(),
            topic: TOPIC.to_owned()
        }
    );
    let attempt = desk.view(&id).await.attempts.remove(0);
    assert!(
        attempt.recipient.contains("http://127.0.0.1:9"),
        "the audit trail names the MDM"
    );
    assert_eq!(
        desk.finish(&begun, Outcome::Credential).await,
        Finished::Parked(StateName::Waiting)
    );

    let new_key = ConnectionChange {
        api_key: Some("another".to_owned().into()),
        ..ConnectionChange::default()
    };
    desk.escrow
        .connections()
        .change(&permit, "mdm", new_key)
        .await
        .unwrap()
        .unwrap();
    assert!(
        same(&desk.work(|_| Outcome::Unlocked).await, &[CODE_A]),
        "a new key goes on at once"
    );
    assert_eq!(desk.state(&id).await, StateName::Unlocked);
}

#[tokio::test]
async fn r19_three_errors_of_the_mdm_itself_need_a_person() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let id = desk.unlock(SERIAL).await;
    for _ in 0..3 {
        let mut lease = desk.claim().await;
        let begun = desk.begin(&mut lease).await;
        let answer = Answer {
            status: Some(500),
            delegate_failed: true,
            ..Answer::default()
        };
        desk.escrow
            .operations()
            .finish(&begun.ticket, Outcome::Unknown, answer)
            .await
            .unwrap();
        desk.clock.advance(Duration::from_secs(3600));
    }
    assert_eq!(
        desk.view(&id).await.details.review,
        Some(ReviewReason::DelegateFails)
    );
}

#[tokio::test]
async fn r18_the_devices_own_topic_is_used_first_and_an_attempt_says_which() {
    let desk = Desk {
        vault: Vault::new().await,
    };
    let connection = desk.connection("mdm").await;
    enrol(&desk, &connection).await;
    desk.certificate("com.apple.mgmt.External.another", "aa")
        .await;
    desk.certificate(TOPIC, "bb").await;
    desk.add_code(SERIAL, CODE_A, CodeKind::Device).await;
    let id = desk.unlock(SERIAL).await;
    desk.work(|_| Outcome::Refused).await;
    let view = desk.view(&id).await;
    let topics: Vec<&str> = view.attempts.iter().map(|a| a.topic.as_str()).collect();
    assert_eq!(topics, [TOPIC, "com.apple.mgmt.External.another"]);
    assert_eq!(
        view.attempts[0].identity.product_type.as_str(),
        "iPhone14,5"
    );
    assert!(
        view.attempts
            .iter()
            .all(|a| a.identity_source == "device" && !a.swapped)
    );
}

// Asking twice.
