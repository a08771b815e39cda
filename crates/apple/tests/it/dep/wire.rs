//! What leaves: exactly what is documented, and with it what the service insists on.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;

use activation_lock::lock::{LockOutcome, ResponseStatus};
use activation_lock::unlock::Outcome;
use sim::dep::DepFault;
use sim::{LockKind, fingerprint};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::support::{OTHER_CODE, service, unlock};

#[tokio::test]
async fn t8_a_lock_call_is_exactly_the_device_the_hash_and_the_message() {
    let organisation = Organisation::new().await;
    let message: LostMessage = "Please call \"us\":\n+44 20 7946 0000".parse().unwrap();
    let answer = lock_with(&organisation.service(), CODE, Some(&message)).await;
    assert_eq!(
        (answer.outcome, answer.response_status, answer.status),
        (
            LockOutcome::Locked,
            Some(ResponseStatus::Success),
            Some(200)
        ),
        "{}",
        answer.diagnostic
    );
    assert!(answer.may_have_reached_apple && answer.retry_after.is_none());
    assert_eq!(organisation.apple.lock_state(SERIAL), Some(LockKind::Mdm));
    // The fake refuses unknown keys, a second device, and anything but 64 hexadecimal digits.
    let call = &organisation.dep.calls_for(SERIAL)[0];
    let sent = fingerprint(&hash(CODE).to_string());
    assert_eq!(call.escrow_key_fingerprint.as_deref(), Some(sent.as_str()));
    assert_eq!(call.lost_message.as_deref(), Some(message.as_str()));
    assert_eq!(call.method, "POST");
    for call in organisation.dep.journal().all() {
        assert_eq!(
            call.protocol_version.as_deref(),
            Some("10"),
            "{}",
            call.path
        );
        let agent = call.user_agent.unwrap();
        assert!(agent.starts_with("Lockwarden/"), "{agent}");
    }
}

#[tokio::test]
async fn t8_without_a_message_none_is_sent() {
    let organisation = Organisation::new().await;
    let answer = lock(&organisation.service()).await;
    assert_eq!(answer.outcome, LockOutcome::Locked);
    let call = &organisation.dep.calls_for(SERIAL)[0];
    assert_eq!(call.lost_message, None);
    assert!(
        call.escrow_key_fingerprint.is_some(),
        "never without the hash"
    );
}

#[tokio::test]
async fn t7_a_lost_reply_is_unknown_and_the_same_code_unlocks_later() {
    let organisation = Organisation::new().await;
    let service_of_locks = organisation.service();
    let lost = DepFault::drop_after_commit().on(LOCK);
    organisation.dep.push_fault(lost);
    let answer = lock(&service_of_locks).await;
    assert_eq!(
        (answer.outcome, answer.status),
        (LockOutcome::Unknown, None)
    );
    assert!(answer.may_have_reached_apple);
    assert!(answer.outcome.leaves_doubt());

    // The same code again: the lock is on, and the answer does not say whose it is.
    let again = lock(&service_of_locks).await;
    assert_eq!(again.outcome, LockOutcome::AlreadyLocked);
    let sent = organisation.dep.calls_for(SERIAL);
    assert_eq!(sent.len(), 2);
    assert_eq!(
        sent[0].escrow_key_fingerprint,
        sent[1].escrow_key_fingerprint
    );

    // A new code would not have been taken over: the first one opens it.
    let unlocks = service(&organisation.apple);
    assert_eq!(unlock(&unlocks, OTHER_CODE).await.outcome, Outcome::Refused);
    assert_eq!(unlock(&unlocks, CODE).await.outcome, Outcome::Unlocked);
    assert_eq!(organisation.apple.lock_state(SERIAL), None);
}

#[tokio::test]
async fn t7_a_call_that_broke_off_before_anything_happened_is_unknown_too() {
    let organisation = Organisation::new().await;
    organisation
        .dep
        .push_fault(DepFault::drop_before().on(LOCK));
    let answer = lock(&organisation.service()).await;
    assert_eq!(answer.outcome, LockOutcome::Unknown);
    assert!(answer.may_have_reached_apple);
    assert_eq!(organisation.apple.lock_state(SERIAL), None);
}

/// A wire to the service that carries the next bytes to it, once it is told to, with something behind them that is not TLS: the
/// service answers with an alert.
async fn wire(to: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let spoil = Arc::new(AtomicBool::new(false));
    let told = spoil.clone();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(to).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
            let told = told.clone();
            tokio::spawn(async move {
                let mut bytes = vec![0; 65_536];
                while let Ok(read @ 1..) = from_client.read(&mut bytes).await {
                    let mut carried = bytes[..read].to_vec();
                    if told.load(Ordering::SeqCst) {
                        carried.extend([23, 3, 3, 0, 32]);
                        carried.extend([7; 32]);
                    }
                    if to_server.write_all(&carried).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, spoil)
}

#[tokio::test]
async fn r4_an_alert_in_the_place_of_an_answer_leaves_the_lock_unknown() {
    let organisation = Organisation::new().await;
    let url = organisation.dep.url();
    let (address, spoil) = wire(url.trim_start_matches("https://").parse().unwrap()).await;
    let settings = DepSettings {
        origin: format!("https://{address}").parse().unwrap(),
        ..organisation.settings()
    };
    let service = DepService::new(&settings, read(&organisation.token), counting()).unwrap();
    service.account(now()).await.unwrap();
    spoil.store(true, Ordering::SeqCst);
    let answer = lock(&service).await;
    assert_eq!(
        (answer.outcome, answer.status),
        (LockOutcome::Unknown, None),
        "{}",
        answer.diagnostic
    );
    assert!(answer.diagnostic.contains("alert"), "{}", answer.diagnostic);
    assert!(answer.may_have_reached_apple);
}

#[tokio::test]
async fn r17_the_recipient_is_the_host_of_the_service() {
    let organisation = Organisation::new().await;
    assert_eq!(organisation.service().recipient(), "127.0.0.1");
    let settings = DepSettings::default();
    let service = DepService::new(&settings, read(&organisation.token), counting()).unwrap();
    assert_eq!(service.recipient(), "mdmenrollment.apple.com");
    assert_eq!(service.longest_call(), Duration::from_secs(60));
}
