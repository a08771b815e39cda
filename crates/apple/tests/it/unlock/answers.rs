//! What each answer, and each lack of one, means (R13).

use std::time::Duration;

use activation_lock::unlock::Outcome;
use apple::escrow_key_unlock::{UnlockService, UnlockSettings};
use apple::transport::{ExtraAuthorities, Timeouts};
use sim::apple::Answered;
use sim::{Apple, AppleOptions, Fault, Gate, LockKind, SIM_TOPIC, fingerprint};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{
    CODE, OTHER_CODE, SERIAL, certificate, impatient, locked, service, settings, unlock,
};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn t11_t12_the_true_answers_are_unlocked_and_refused() {
    let apple = locked().await;
    let service = service(&apple);
    let wrong = unlock(&service, OTHER_CODE).await;
    assert_eq!((wrong.outcome, wrong.status), (Outcome::Refused, Some(404)));
    let right = unlock(&service, CODE).await;
    assert_eq!(
        (right.outcome, right.status),
        (Outcome::Unlocked, Some(200))
    );
    assert!(right.request_may_have_reached_apple);
    assert_eq!(apple.lock_state(SERIAL), None);
    let sent: Vec<_> = apple.journal().all();
    assert_eq!(sent[0].code_fingerprint, Some(fingerprint(OTHER_CODE)));
    assert_eq!(sent[1].code_fingerprint, Some(fingerprint(CODE)));
}

#[tokio::test]
async fn t14_t16_r13_the_status_alone_decides() {
    let apple = locked().await;
    let service = service(&apple);
    for (status, retry_after, outcome) in [
        (200, None, Outcome::Unlocked),
        (201, None, Outcome::Unknown),
        (204, None, Outcome::Unknown),
        (302, None, Outcome::Unexpected),
        (304, None, Outcome::Unexpected),
        (400, None, Outcome::Malformed),
        (401, None, Outcome::Credential),
        (403, None, Outcome::Credential),
        (404, None, Outcome::Refused),
        (405, None, Outcome::Unexpected),
        (408, None, Outcome::Unknown),
        (429, None, Outcome::Unavailable),
        (429, Some("30"), Outcome::Unavailable),
        (500, None, Outcome::Unknown),
        (500, Some("30"), Outcome::Unknown),
        (503, None, Outcome::Unknown),
        (503, Some("30"), Outcome::Unavailable),
        (503, Some("soon"), Outcome::Unknown),
        (599, None, Outcome::Unknown),
    ] {
        let mut fault = Fault::status(status);
        if let Some(value) = retry_after {
            fault = fault.retry_after(value);
        }
        apple.push_fault(fault);
        let answer = unlock(&service, CODE).await;
        assert_eq!(answer.outcome, outcome, "{status} {retry_after:?}");
        assert_eq!(answer.status, Some(status));
        assert!(answer.request_may_have_reached_apple);
        let waits = retry_after
            .filter(|value| *value == "30")
            .map(|_| Duration::from_secs(30));
        assert_eq!(answer.retry_after, waits, "{status} {retry_after:?}");
    }
    assert_eq!(apple.lock_state(SERIAL), Some(LockKind::User));
}

#[tokio::test]
async fn r13_retry_after_may_name_a_moment() {
    let apple = locked().await;
    apple.push_fault(Fault::status(503).retry_after("Fri, 31 Dec 2100 23:59:59 GMT"));
    let answer = unlock(&service(&apple), CODE).await;
    assert_eq!(answer.outcome, Outcome::Unavailable);
    assert!(answer.retry_after.unwrap() > Duration::from_secs(365 * 24 * 60 * 60));
}

#[tokio::test]
async fn t16_r13_a_lost_answer_is_unknown_whether_it_happened_or_not() {
    let apple = locked().await;
    let service = service(&apple);
    for fault in [
        Fault::drop_before(),
        Fault::garbage(),
        Fault::drop_after_commit(),
    ] {
        apple.push_fault(fault);
        let answer = unlock(&service, CODE).await;
        assert_eq!(
            (answer.outcome, answer.status),
            (Outcome::Unknown, None),
            "{}",
            answer.diagnostic
        );
        assert!(answer.request_may_have_reached_apple);
        assert!(!answer.diagnostic.is_empty());
    }
    assert_eq!(
        apple.journal().count(),
        3,
        "nothing is sent twice by itself"
    );
    assert_eq!(apple.lock_state(SERIAL), None, "the last one did happen");
    assert_eq!(
        unlock(&service, CODE).await.outcome,
        Outcome::Refused,
        "and the code answers 404 from then on"
    );
}

#[tokio::test]
async fn t16_a_time_out_after_the_request_is_unknown_and_the_lock_may_open_later() {
    let apple = locked().await;
    let gate = Gate::new();
    apple.push_fault(Fault::hold(&gate));
    let service = impatient(&apple, LONG, Duration::from_secs(1));
    let answer = unlock(&service, CODE).await;
    assert_eq!((answer.outcome, answer.status), (Outcome::Unknown, None));
    assert!(answer.request_may_have_reached_apple);
    assert_eq!(apple.lock_state(SERIAL), Some(LockKind::User));
    gate.open();
    apple
        .journal()
        .wait_for("the late unlock", |calls| calls[0].unlocked)
        .await;
    assert_eq!(apple.lock_state(SERIAL), None);
}

#[tokio::test]
async fn r13_a_time_out_before_the_request_is_unavailable() {
    // It takes connections (the kernel does) and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let apple = locked().await;
    let made = apple.push_certificate(SIM_TOPIC);
    for (connect, overall) in [
        (Duration::from_millis(300), LONG),
        (LONG, Duration::from_secs(1)),
    ] {
        let settings = UnlockSettings {
            origin: format!("https://{}", silent.local_addr().unwrap())
                .parse()
                .unwrap(),
            authorities: ExtraAuthorities::default(),
            timeouts: Timeouts { connect, overall },
        };
        let service = UnlockService::new(&settings, &certificate(&made)).unwrap();
        assert_eq!(service.longest_call(), overall);
        let answer = unlock(&service, CODE).await;
        assert_eq!(
            answer.outcome,
            Outcome::Unavailable,
            "{}",
            answer.diagnostic
        );
        assert!(!answer.request_may_have_reached_apple);
    }
}

#[tokio::test]
async fn r13_a_connection_that_is_not_made_is_unavailable() {
    let apple = locked().await;
    let service = service(&apple);
    apple.close_connections(1);
    let closed = unlock(&service, CODE).await;
    apple.go_offline().await;
    let offline = unlock(&service, CODE).await;
    for answer in [closed, offline] {
        assert_eq!(
            (answer.outcome, answer.status),
            (Outcome::Unavailable, None),
            "{}",
            answer.diagnostic
        );
        assert!(!answer.request_may_have_reached_apple);
    }
    apple.come_back().await;
    assert_eq!(unlock(&service, CODE).await.outcome, Outcome::Unlocked);
    assert_eq!(apple.journal().count(), 1);
}

#[tokio::test]
async fn r13_a_name_that_is_not_found_is_unavailable() {
    let apple = locked().await;
    let settings = UnlockSettings {
        // Never a host (RFC 6761).
        origin: "https://apple.invalid".parse().unwrap(),
        ..settings(&apple)
    };
    let made = apple.push_certificate(SIM_TOPIC);
    let service = UnlockService::new(&settings, &certificate(&made)).unwrap();
    assert_eq!(service.recipient(), "apple.invalid");
    let answer = unlock(&service, CODE).await;
    assert_eq!(answer.outcome, Outcome::Unavailable);
    assert!(!answer.request_may_have_reached_apple);
}

#[tokio::test]
async fn t18_bodies_are_bounded_and_decide_nothing() {
    let apple = locked().await;
    let service = service(&apple);
    apple.push_fault(Fault::empty_body());
    let empty = unlock(&service, OTHER_CODE).await;
    assert_eq!(
        (empty.outcome, empty.diagnostic.as_str()),
        (Outcome::Refused, "")
    );
    apple.push_fault(Fault::xml_body());
    let xml = unlock(&service, OTHER_CODE).await;
    assert_eq!(xml.outcome, Outcome::Refused);
    assert!(xml.diagnostic.contains("<code>404</code>"));
    apple.push_fault(Fault::huge_body());
    let huge = unlock(&service, CODE).await;
    assert_eq!((huge.outcome, huge.status), (Outcome::Unlocked, Some(200)));
    assert_eq!(huge.diagnostic.len(), 4096);
    // A body that says the contrary of the status.
    apple.push_fault(Fault::status(404).body("<Response><code>200</code></Response>"));
    assert_eq!(unlock(&service, CODE).await.outcome, Outcome::Refused);
    apple.push_fault(Fault::status(500).body(vec![0xff; 100_000]));
    assert_eq!(unlock(&service, CODE).await.outcome, Outcome::Unknown);
}

#[tokio::test]
async fn t18_a_body_without_end_is_not_waited_for() {
    let endless = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", endless.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = endless.accept().await.unwrap();
        let mut request = Vec::new();
        while !String::from_utf8_lossy(&request).contains("escrowKey=") {
            assert!(stream.read_buf(&mut request).await.unwrap() > 0);
        }
        let head = "HTTP/1.1 404 Not Found\r\ncontent-length: 1000000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&[b'x'; 65 * 1024]).await.unwrap();
        // Nothing more comes, and the connection stays open.
        let _ = stream.read_to_end(&mut request).await;
    });
    let made = locked().await.push_certificate(SIM_TOPIC);
    let settings = UnlockSettings {
        origin: origin.parse().unwrap(),
        timeouts: Timeouts {
            connect: LONG,
            overall: LONG * 60,
        },
        ..UnlockSettings::default()
    };
    let service = UnlockService::new(&settings, &certificate(&made)).unwrap();
    let answer = tokio::time::timeout(LONG, unlock(&service, CODE))
        .await
        .expect("what is enough has arrived");
    assert_eq!(
        (answer.outcome, answer.status),
        (Outcome::Refused, Some(404))
    );
    assert_eq!(answer.diagnostic.len(), 4096);
    server.await.unwrap();
}

#[tokio::test]
async fn connections_are_kept_for_the_next_call() {
    let apple = locked().await;
    let service = service(&apple);
    for _ in 0..5 {
        unlock(&service, OTHER_CODE).await;
    }
    let copy = service.clone();
    unlock(&copy, CODE).await;
    assert_eq!(apple.journal().count(), 6);
    assert_eq!(apple.connections(), 1);
    assert!(
        apple
            .journal()
            .all()
            .iter()
            .all(|call| call.connection == 1)
    );
}

#[tokio::test]
async fn r13_redirects_are_not_followed() {
    let apple = locked().await;
    let elsewhere = Apple::start(AppleOptions::default()).await.unwrap();
    let service = service(&apple);
    for status in [301, 302, 303, 307, 308] {
        let to = format!("{}{}", elsewhere.url(), sim::apple::PATH);
        apple.push_fault(Fault::status(status).location(to));
        let answer = unlock(&service, CODE).await;
        assert_eq!(
            (answer.outcome, answer.status),
            (Outcome::Unexpected, Some(status))
        );
        apple.push_fault(Fault::status(status).location("/elsewhere"));
        assert_eq!(unlock(&service, CODE).await.outcome, Outcome::Unexpected);
    }
    assert_eq!(apple.journal().count(), 10);
    assert_eq!(elsewhere.connections(), 0);
}

/// The environment of a process is read once, so this runs itself in a child process whose environment names proxies.
#[tokio::test]
async fn r13_no_proxy_is_taken_from_the_environment() {
    const CHILD: &str = "APPLE_TEST_CHILD";
    const NAME: &str = "unlock::answers::r13_no_proxy_is_taken_from_the_environment";
    if std::env::var_os(CHILD).is_some() {
        let apple = locked().await;
        let answer = unlock(&service(&apple), CODE).await;
        assert_eq!(answer.outcome, Outcome::Unlocked, "{}", answer.diagnostic);
        return;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", NAME, "--nocapture"]).env(CHILD, "1");
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        child.env(name, "http://127.0.0.1:1");
        child.env(name.to_lowercase(), "http://127.0.0.1:1");
    }
    child.env_remove("NO_PROXY").env_remove("no_proxy");
    let ended = child.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn r23_what_apple_says_is_kept_without_the_code_in_any_encoding() {
    let apple = locked().await;
    let service = service(&apple);
    let forms = [
        CODE.to_lowercase(),
        CODE.replace('-', "").to_lowercase(),
        data_encoding::HEXLOWER.encode(CODE.as_bytes()),
        data_encoding::BASE64.encode(CODE.as_bytes()).to_lowercase(),
        "1ea841db5edfafe6075b5ae0d845d254".to_owned(),
        "6ab40d5eabe7218ec04182f461005600".to_owned(),
    ];
    for status in [200, 400, 404, 500] {
        apple.push_fault(Fault::echo(status));
        let answer = unlock(&service, CODE).await;
        assert_eq!(answer.status, Some(status));
        let said = answer.diagnostic.to_lowercase();
        assert!(!forms.iter().any(|form| said.contains(form)), "{status}");
        assert!(said.contains("[code]"), "the rest is kept");
        assert!(said.contains("escrowkey="), "the rest is kept");
    }
    let calls = apple.journal().all();
    assert!(calls.iter().all(|call| call.answered != Answered::Pending));
}
