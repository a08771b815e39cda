//! Who may speak with whom (T15).

use activation_lock::time::Timestamp;
use activation_lock::unlock::Outcome;
use apple::escrow_key_unlock::{UnlockRequest, UnlockService, UnlockSettings};
use apple::transport::ExtraAuthorities;
use sim::apple::{ClientCertificates, TlsVersions};
use sim::{Apple, AppleOptions, Issuer, Key, LockKind, PushCertificate, SIM_TOPIC};

use crate::support::{
    CODE, SERIAL, certificate, ipad, locked, locked_with, now, options, service, settings, unlock,
};

fn bad_certificates(apple: &Apple) -> [(&'static str, PushCertificate); 3] {
    let issue = |options| apple.issue(&options).unwrap();
    [
        ("unknown", issue(options().signed_by(Issuer::Unknown))),
        (
            "chainless",
            issue(options().signed_by(Issuer::IntermediateWithoutChain)),
        ),
        ("expired", issue(options().expired())),
    ]
}

async fn with_tls(tls: TlsVersions) -> Apple {
    locked_with(AppleOptions {
        tls,
        ..AppleOptions::default()
    })
    .await
}

/// A refusal of our certificate is a credential outcome, blames no code, and says what TLS said.
async fn bad_certificates_are_credential(tls: TlsVersions) {
    let apple = with_tls(tls).await;
    // A day on which the certificate that ended yesterday was good: our own look at it must not be what refuses it.
    let last_year = Timestamp(now().0 - 200 * 24 * 60 * 60 * 1000);
    for (which, made) in bad_certificates(&apple) {
        let service = UnlockService::new(&settings(&apple), &certificate(&made)).unwrap();
        let identity = ipad();
        let request = UnlockRequest::new(&identity, "Example", "anna@example.org", CODE).unwrap();
        for _ in 0..3 {
            let answer = service.unlock(&request, last_year).await;
            assert_eq!(
                (answer.outcome, answer.status),
                (Outcome::Credential, None),
                "{which}: {}",
                answer.diagnostic
            );
            assert!(answer.diagnostic.contains("alert"), "{which}");
            // In TLS 1.2 the handshake itself fails; in TLS 1.3 the request is already on its way.
            assert_eq!(
                answer.request_may_have_reached_apple,
                tls == TlsVersions::Only13,
                "{which}"
            );
        }
    }
    apple
        .refused_handshakes()
        .wait_for("nine refusals", |all| all.len() == 9)
        .await;
    assert_eq!(apple.journal().count(), 0, "no request came through");
    assert_eq!(apple.lock_state(SERIAL), Some(LockKind::User));
}

#[tokio::test]
async fn t15_r13_tls_1_2_refusing_our_certificate_is_credential() {
    bad_certificates_are_credential(TlsVersions::Only12).await;
}

#[tokio::test]
async fn t15_r13_tls_1_3_refusing_our_certificate_after_the_request_is_credential() {
    bad_certificates_are_credential(TlsVersions::Only13).await;
}

#[tokio::test]
async fn good_certificates_of_each_kind_are_shown_in_both_versions() {
    for tls in [TlsVersions::Only12, TlsVersions::Only13] {
        for wanted in [
            options(),
            options().signed_by(Issuer::IntermediateWithChain),
            options().with_key(Key::Rsa2048),
        ] {
            let apple = with_tls(tls).await;
            let made = apple.issue(&wanted).unwrap();
            let service = UnlockService::new(&settings(&apple), &certificate(&made)).unwrap();
            let answer = unlock(&service, CODE).await;
            assert_eq!(answer.outcome, Outcome::Unlocked, "{}", answer.diagnostic);
            let call = apple.journal().get(0).unwrap();
            assert_eq!(call.topic.as_deref(), Some(SIM_TOPIC));
        }
    }
}

#[tokio::test]
async fn t15_a_certificate_that_has_ended_by_our_clock_is_not_even_shown() {
    let apple = locked().await;
    let made = apple.issue(&options().expired()).unwrap();
    let service = UnlockService::new(&settings(&apple), &certificate(&made)).unwrap();
    let answer = unlock(&service, CODE).await;
    assert_eq!(answer.outcome, Outcome::Credential);
    assert!(!answer.request_may_have_reached_apple);
    assert!(answer.diagnostic.contains("expired"));
    assert_eq!(apple.connections(), 0);
}

#[tokio::test]
async fn t15_401_and_403_are_credential() {
    let apple = locked_with(AppleOptions {
        client_certificates: ClientCertificates::CheckedInHttp,
        ..AppleOptions::default()
    })
    .await;
    let made = apple.issue(&options().signed_by(Issuer::Unknown)).unwrap();
    let service = UnlockService::new(&settings(&apple), &certificate(&made)).unwrap();
    let answer = unlock(&service, CODE).await;
    assert_eq!(
        (answer.outcome, answer.status),
        (Outcome::Credential, Some(403))
    );
    assert_eq!(apple.lock_state(SERIAL), Some(LockKind::User));
}

#[tokio::test]
async fn r13_a_server_that_we_do_not_trust_is_unavailable_and_gets_nothing() {
    for tls in [TlsVersions::Only12, TlsVersions::Only13] {
        let apple = locked_with(AppleOptions {
            tls,
            foreign_server_certificate: true,
            ..AppleOptions::default()
        })
        .await;
        let answer = unlock(&service(&apple), CODE).await;
        assert_eq!(
            (answer.outcome, answer.status),
            (Outcome::Unavailable, None),
            "{}",
            answer.diagnostic
        );
        assert!(!answer.request_may_have_reached_apple);
        assert!(answer.diagnostic.contains("certificate"));
        assert_eq!(apple.journal().count(), 0);
    }
}

#[tokio::test]
async fn without_the_ca_file_the_fake_is_not_trusted_and_no_other_name_is() {
    let apple = locked().await;
    let made = apple.push_certificate(SIM_TOPIC);
    let without = UnlockSettings {
        authorities: ExtraAuthorities::default(),
        ..settings(&apple)
    };
    let service = UnlockService::new(&without, &certificate(&made)).unwrap();
    assert_eq!(unlock(&service, CODE).await.outcome, Outcome::Unavailable);

    // The fake's certificate names 127.0.0.1 and not this one.
    let other_name = UnlockSettings {
        origin: format!("https://127.0.0.2:{}", apple.address().port())
            .parse()
            .unwrap(),
        ..settings(&apple)
    };
    let service = UnlockService::new(&other_name, &certificate(&made)).unwrap();
    assert_eq!(unlock(&service, CODE).await.outcome, Outcome::Unavailable);
    assert_eq!(apple.journal().count(), 0);
}
