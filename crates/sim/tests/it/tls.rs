//! Who may speak with the fake Apple at all.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use sim::{
    AppleOptions, Issuer, Key, LockKind, Now, PushCertificate, PushCertificateOptions, SIM_TOPIC,
    apple::{ClientCertificates, TlsVersions},
};

use crate::support::{
    CODE, SERIAL, apple_with, client, good_client, status, tls_config, unlock, whole_story,
};

fn bad_certificates(apple: &sim::Apple) -> [(&'static str, Option<PushCertificate>); 4] {
    let options = PushCertificateOptions::new(SIM_TOPIC, Now::wall().get());
    let issue = |options: PushCertificateOptions| Some(apple.issue(&options).unwrap());
    [
        ("none", None),
        ("unknown", issue(options.clone().signed_by(Issuer::Unknown))),
        (
            "chainless",
            issue(options.clone().signed_by(Issuer::IntermediateWithoutChain)),
        ),
        ("expired", issue(options.expired())),
    ]
}

async fn tls_refuses_bad_certificates(tls: TlsVersions) {
    let apple = apple_with(AppleOptions {
        tls,
        ..AppleOptions::default()
    })
    .await;
    apple.user_lock(SERIAL, CODE).unwrap();
    for (which, certificate) in bad_certificates(&apple) {
        let refused = apple.refused_handshakes().count();
        let client = client(&apple.ca_pem(), certificate.as_ref());
        let error = unlock(&apple, &client, CODE).send().await.expect_err(which);
        assert!(
            whole_story(&error).contains("alert"),
            "{which}: {}",
            whole_story(&error)
        );
        // In TLS 1.3 the client may be told before the fake has written it down.
        apple
            .refused_handshakes()
            .wait_for("the refusal", |all| all.len() as u64 > refused)
            .await;
    }
    assert_eq!(apple.journal().count(), 0, "no request came through");
    assert_eq!(apple.lock_state(SERIAL), Some(LockKind::User));
    assert_eq!(
        status(unlock(&apple, &good_client(&apple), CODE)).await,
        200
    );
}

#[tokio::test]
async fn t15_tls_1_2_refuses_bad_certificates() {
    tls_refuses_bad_certificates(TlsVersions::Only12).await;
}

#[tokio::test]
async fn t15_tls_1_3_refuses_bad_certificates_with_an_alert_that_arrives() {
    tls_refuses_bad_certificates(TlsVersions::Only13).await;
}

/// A refusing server that just closes would reset the connection under a client that is still sending, which then never
/// reads why.
#[tokio::test]
async fn t15_a_client_that_sends_first_and_reads_later_still_finds_the_alert() {
    let apple = apple_with(AppleOptions {
        tls: TlsVersions::Only13,
        ..AppleOptions::default()
    })
    .await;
    let connector =
        tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls_config(&apple.ca_pem(), None)));
    let stream = tokio::net::TcpStream::connect(apple.address())
        .await
        .unwrap();
    let name = rustls::pki_types::ServerName::from(apple.address().ip());
    let mut stream = connector
        .connect(name, stream)
        .await
        .expect("in TLS 1.3 the client is done first");
    let sent = stream.write_all(&vec![b'x'; 4 * 1024 * 1024]).await;
    assert!(sent.is_ok(), "all of it was taken: {sent:?}");
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn t15_http_answers_401_without_and_403_with_a_bad_certificate() {
    let clients = ClientCertificates::CheckedInHttp;
    let apple = apple_with(AppleOptions {
        client_certificates: clients,
        ..AppleOptions::default()
    })
    .await;
    apple.user_lock(SERIAL, CODE).unwrap();
    for (which, certificate) in bad_certificates(&apple) {
        let expected = if certificate.is_none() { 401 } else { 403 };
        let client = client(&apple.ca_pem(), certificate.as_ref());
        assert_eq!(
            status(unlock(&apple, &client, CODE)).await,
            expected,
            "{which}"
        );
    }
    assert_eq!(apple.lock_state(SERIAL), Some(LockKind::User));
    assert_eq!(
        status(unlock(&apple, &good_client(&apple), CODE)).await,
        200
    );
}

#[tokio::test]
async fn rsa_keys_and_intermediate_chains_are_accepted() {
    let apple = apple_with(AppleOptions::default()).await;
    let options = PushCertificateOptions::new(SIM_TOPIC, Now::wall().get());
    for options in [
        options.clone().with_key(Key::Rsa2048),
        options.signed_by(Issuer::IntermediateWithChain),
    ] {
        let certificate = apple.issue(&options).unwrap();
        let client = client(&apple.ca_pem(), Some(&certificate));
        assert_eq!(
            status(unlock(&apple, &client, CODE)).await,
            404,
            "not locked, but heard"
        );
    }
}

#[tokio::test]
async fn a_foreign_server_certificate_is_not_trusted() {
    let apple = apple_with(AppleOptions {
        foreign_server_certificate: true,
        ..AppleOptions::default()
    })
    .await;
    let error = unlock(&apple, &good_client(&apple), CODE)
        .send()
        .await
        .unwrap_err();
    assert!(error.is_connect(), "{}", whole_story(&error));
    apple
        .set_tls(TlsVersions::Both, ClientCertificates::Demanded, false)
        .unwrap();
    assert_eq!(
        status(unlock(&apple, &good_client(&apple), CODE)).await,
        404
    );
}

#[tokio::test]
async fn certificates_are_judged_by_the_fakes_own_time() {
    let next_century = Now::wall().get() + time::Duration::days(36_500);
    let apple = apple_with(AppleOptions {
        now: Now::new(move || next_century),
        ..AppleOptions::default()
    })
    .await;
    let of_today = PushCertificateOptions::new(SIM_TOPIC, Now::wall().get());
    let old = apple.issue(&of_today).unwrap();
    let client_with_old = client(&apple.ca_pem(), Some(&old));
    assert!(unlock(&apple, &client_with_old, CODE).send().await.is_err());
    assert_eq!(
        status(unlock(&apple, &good_client(&apple), CODE)).await,
        404
    );
}
