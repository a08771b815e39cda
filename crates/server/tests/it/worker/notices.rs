//! People are told: by webhooks that are signed, and by mail, to real listeners that refuse, lose and come back.

use std::time::Duration;

use apple::transport::ExtraAuthorities;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use escrow::permit::Role;
use serde_json::{Value, json};
use sim::{Kind, MailSecurity, MailServer, Received, WebhookReceiver};

use crate::api::Client;
use crate::api::sessions::Person;
use crate::support::{Options, Stage};

const PASSWORD: &str = "a mail password";

async fn channel(stage: &Stage, body: Value) -> Value {
    let admin = Client::with(stage, &["admin"]).await;
    let made = admin.post("/v1/notice-channels", body).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.json()
}

async fn test(stage: &Stage, channel: &Value) {
    let admin = Client::with(stage, &["admin"]).await;
    let path = format!(
        "/v1/notice-channels/{}/test",
        channel["id"].as_str().unwrap()
    );
    assert_eq!(admin.post(&path, Value::Null).await.status, 202);
}

async fn shown(stage: &Stage) -> Value {
    let admin = Client::with(stage, &["admin"]).await;
    admin.get("/v1/notice-channels").await.json()["items"][0].clone()
}

/// Whether one of the signatures is by this secret, as the scheme has it.
fn is_signed(received: &Received, secret: &str) -> bool {
    let key = STANDARD
        .decode(secret.strip_prefix("whsec_").unwrap())
        .unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let header = |name: &str| received.header(name).unwrap().to_owned();
    let text = format!(
        "{}.{}.{}",
        header("webhook-id"),
        header("webhook-timestamp"),
        received.body
    );
    header("webhook-signature").split(' ').any(|one| {
        let tag = STANDARD.decode(one.strip_prefix("v1,").unwrap()).unwrap();
        hmac::verify(&key, text.as_bytes(), &tag).is_ok()
    })
}

/// Moves the clock on until so many came.
async fn until_received(stage: &Stage, receiver: &WebhookReceiver, count: usize) -> Vec<Received> {
    stage
        .until_in_steps("the webhook", Duration::from_secs(1), async || {
            receiver.journal().count() >= count as u64
        })
        .await;
    receiver.journal().all()
}

#[tokio::test]
async fn a_webhook_is_signed_and_sent_again_under_the_same_identifier_until_it_is_taken() {
    let stage = Stage::new().await;
    let receiver = WebhookReceiver::start().await.unwrap();
    let made = channel(
        &stage,
        json!({ "name": "chat", "webhook_url": format!("{}/hook", receiver.url()) }),
    )
    .await;
    let secret = made["secret"].as_str().unwrap();
    let shown_once = shown(&stage).await.to_string();
    assert!(!shown_once.contains(secret) && !shown_once.contains("/hook"));
    receiver.push_reply(500, None);
    receiver.push_reply(301, Some(("location", "http://127.0.0.1:9/elsewhere")));
    receiver.push_reply(429, Some(("retry-after", "600")));
    test(&stage, &made).await;
    let came = until_received(&stage, &receiver, 3).await;
    let failing = shown(&stage).await;
    assert!(
        failing["failing_since"].is_string() && failing["sent_at"].is_null(),
        "{failing}"
    );
    let waited_from = stage.now();
    let all = until_received(&stage, &receiver, 4).await;
    assert!(
        stage.now().since(waited_from) >= Duration::from_secs(590),
        "it was asked to wait"
    );
    let ids: Vec<_> = all
        .iter()
        .map(|one| one.header("webhook-id").unwrap())
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]) && came.len() == 3);
    assert!(
        all.iter()
            .all(|one| is_signed(one, secret) && one.path == "/hook"),
        "no redirect is followed"
    );
    let body: Value = serde_json::from_str(&all[3].body).unwrap();
    assert_eq!(
        (&body["type"], &body["data"]["organisation"]),
        (&json!("test"), &json!("Example School"))
    );
    stage
        .until("it to be on record", async || {
            shown(&stage).await["sent_at"].is_string()
        })
        .await;
    assert_eq!(shown(&stage).await["failure"], Value::Null);

    // Both secrets sign while one takes over from the other.
    let admin = Client::with(&stage, &["admin"]).await;
    let path = format!("/v1/notice-channels/{}", made["id"].as_str().unwrap());
    let new = admin
        .post(&format!("{path}/rotate-secret"), Value::Null)
        .await
        .json();
    test(&stage, &made).await;
    let last = until_received(&stage, &receiver, 5).await.pop().unwrap();
    assert!(is_signed(&last, secret) && is_signed(&last, new["secret"].as_str().unwrap()));

    receiver.push_reply(410, None);
    test(&stage, &made).await;
    until_received(&stage, &receiver, 6).await;
    stage
        .until("it to be given up", async || {
            shown(&stage).await["failure"].to_string().contains("410")
        })
        .await;
    assert_eq!(admin.delete(&path).await.status, 204);
    assert_eq!(
        admin.delete(&path).await.refusal(),
        (404, "unknown-channel".to_owned())
    );
    let insecure = json!({ "name": "x", "webhook_url": "http://chat.example.org/hook" });
    assert_eq!(
        admin.post("/v1/notice-channels", insecure).await.refusal(),
        (400, "bad-request".to_owned())
    );
}

async fn mail_stage(server: &MailServer) -> Stage {
    Stage::with(Options {
        mdm_authorities: ExtraAuthorities::from_pem(server.ca_pem().as_bytes()).unwrap(),
        ..Options::default()
    })
    .await
}

fn by_mail(server: &MailServer, security: &str, to: &[&str]) -> Value {
    json!({
        "name": "mail",
        "mail_to": to,
        "mail_password": PASSWORD,
        "mail_server": {
            "host": "localhost",
            "port": server.port(),
            "security": security,
            "username": "lockwarden",
            "from": "lockwarden@example.org",
        },
    })
}

async fn until_mailed(stage: &Stage, server: &MailServer, count: u64) {
    stage
        .until_in_steps("the mail", Duration::from_secs(1), async || {
            server.journal().count() >= count
        })
        .await;
}

#[tokio::test]
async fn mail_goes_over_tls_signed_in_and_again_after_a_refusal_for_now() {
    for (security, word) in [
        (MailSecurity::StartTls, "starttls"),
        (MailSecurity::Tls, "tls"),
    ] {
        let server = MailServer::start(security, Some(("lockwarden", PASSWORD)))
            .await
            .unwrap();
        let stage = mail_stage(&server).await;
        let made = channel(&stage, by_mail(&server, word, &["zoe@example.org"])).await;
        assert_eq!(made.get("secret"), None);
        server.push_fault("RCPT", "451 4.3.0 later");
        server.push_fault("TEXT", "452 4.3.1 full");
        test(&stage, &made).await;
        until_mailed(&stage, &server, 1).await;
        let mail = server.journal().all().remove(0);
        assert!(mail.over_tls && mail.user.as_deref() == Some("lockwarden"));
        assert_eq!(
            (mail.from.as_str(), mail.to.as_slice()),
            (
                "lockwarden@example.org",
                &["zoe@example.org".to_owned()][..]
            )
        );
        for part in [
            "Subject: ",
            "Auto-Submitted: auto-generated",
            "Message-ID: <",
            "tries this channel out",
        ] {
            assert!(mail.text.contains(part), "{part}: {}", mail.text);
        }
        server.push_fault("RCPT", "550 5.1.1 nobody of that name");
        test(&stage, &made).await;
        stage
            .until_in_steps("it to be given up", Duration::from_secs(1), async || {
                shown(&stage).await["failure"]
                    .to_string()
                    .contains("nobody of that name")
            })
            .await;
        assert_eq!(server.journal().count(), 1);
    }
}

#[tokio::test]
async fn one_address_that_is_refused_keeps_the_notice_from_nobody_else() {
    let server = MailServer::start(MailSecurity::StartTls, Some(("lockwarden", PASSWORD)))
        .await
        .unwrap();
    let stage = mail_stage(&server).await;
    let to = ["ann@example.org", "zoe@example.org", "max@example.org"];
    let made = channel(&stage, by_mail(&server, "starttls", &to)).await;
    server.push_fault("RCPT", "550 5.1.1 nobody of that name");
    test(&stage, &made).await;
    until_mailed(&stage, &server, 2).await;
    stage
        .until_in_steps("it to be given up", Duration::from_secs(1), async || {
            shown(&stage).await["failure"]
                .to_string()
                .contains("nobody of that name")
        })
        .await;
    let mails = server.journal().all();
    assert!(
        mails.iter().all(|mail| mail.to.len() == 1) && mails[0].to != mails[1].to,
        "nobody is told of the others, or twice: {mails:?}"
    );
}

#[tokio::test]
async fn mail_is_not_given_to_a_server_that_does_not_prove_who_it_is() {
    let server = MailServer::start(MailSecurity::StartTls, Some(("lockwarden", PASSWORD)))
        .await
        .unwrap();
    let stage = Stage::new().await;
    let made = channel(&stage, by_mail(&server, "starttls", &["zoe@example.org"])).await;
    test(&stage, &made).await;
    stage
        .until_in_steps("the failure", Duration::from_secs(1), async || {
            shown(&stage).await["failure"].is_string()
        })
        .await;
    let plain = MailServer::start(MailSecurity::Plain, None).await.unwrap();
    let admin = Client::with(&stage, &["admin"]).await;
    let stripped = channel(&stage, by_mail(&plain, "starttls", &["zoe@example.org"])).await;
    test(&stage, &stripped).await;
    stage
        .until_in_steps("both failures", Duration::from_secs(1), async || {
            let all = admin.get("/v1/notice-channels").await.json();
            all["items"]
                .as_array()
                .unwrap()
                .iter()
                .all(|one| one["failure"].is_string())
        })
        .await;
    assert_eq!((server.journal().count(), plain.journal().count()), (0, 0));
    for (host, to) in [
        ("mail.example.org", "zoe@example.org"),
        ("localhost", "zoe@example.org\r\nBcc: x@example.org"),
    ] {
        let mut body = by_mail(&plain, "none", &[to]);
        body["mail_server"]["host"] = json!(host);
        assert_eq!(
            admin.post("/v1/notice-channels", body).await.refusal(),
            (400, "bad-request".to_owned()),
            "{host}"
        );
    }
}

#[tokio::test]
async fn approvers_are_told_of_a_request_and_everybody_of_an_emergency_and_no_code_is_in_it() {
    let server = MailServer::start(MailSecurity::StartTls, Some(("lockwarden", PASSWORD)))
        .await
        .unwrap();
    let stage = mail_stage(&server).await;
    let receiver = WebhookReceiver::start().await.unwrap();
    let device = stage.enrolled("TOLD00000001", Kind::IpadWifi).await;
    let desk = Person::settled(&stage, "desk", &[Role::Revealer, Role::BreakGlass])
        .await
        .client(&stage)
        .await;
    let max = Person::settled(&stage, "max", &[Role::Approver])
        .await
        .client(&stage)
        .await;
    let escrow = stage.escrow();
    let permit = stage.permit("people").await;
    let scope = escrow::permit::Scope::One(stage.organisation.clone());
    for (login, mail) in [("zoe", Some("zoe@example.org")), ("ann", None)] {
        let new = escrow::people::NewPerson {
            login: login.parse().unwrap(),
            name: login.to_owned(),
            email: mail.map(str::to_owned),
        };
        let (view, _) = escrow.people().add(&permit, new).await.unwrap().unwrap();
        escrow
            .people()
            .set_roles(&permit, &view.id, &scope, &[Role::Approver])
            .await
            .unwrap()
            .unwrap();
    }
    channel(&stage, by_mail(&server, "starttls", &["approvers"])).await;
    channel(
        &stage,
        json!({ "name": "chat", "webhook_url": receiver.url(), "all_organisations": false }),
    )
    .await;
    let admin = Client::with(&stage, &["admin"]).await;
    assert_eq!(
        admin
            .put("/v1/approval-policies/reveal", json!({ "people": 1 }))
            .await
            .status,
        200
    );

    let reveal = |header: &'static str, value: &str| {
        let request = desk.request(reqwest::Method::POST, "/v1/devices/TOLD00000001/reveal");
        let request = request
            .header("content-type", "application/json")
            .header(header, value);
        desk.send(request.body(json!({ "reason": "returned" }).to_string()))
    };
    let asked = reveal("lockwarden-ask-approval", "the%20owner%20left").await;
    let id = asked.json()["approval"].as_str().unwrap().to_owned();
    until_mailed(&stage, &server, 1).await;
    let mail = server.journal().all().remove(0);
    assert_eq!(mail.to, ["zoe@example.org"]);
    for part in [
        "desk by name asks for an approval",
        "TOLD00000001",
        "the owner left",
        &format!("lockwarden approvals show {id}"),
    ] {
        assert!(mail.text.contains(part), "{part}: {}", mail.text);
    }
    assert_eq!(
        max.post(&format!("/v1/approvals/{id}/approve"), Value::Null)
            .await
            .status,
        200
    );
    assert_eq!(reveal("lockwarden-approval", &id).await.status, 200);
    assert_eq!(reveal("lockwarden-break-glass", "fire").await.status, 200);
    let all = until_received(&stage, &receiver, 3).await;
    let kinds: Vec<_> = all
        .iter()
        .map(|one| {
            serde_json::from_str::<Value>(&one.body).unwrap()["type"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(
        kinds,
        ["approval_requested", "approval_decided", "break_glass"]
    );
    until_mailed(&stage, &server, 3).await;
    let code = device.code_text();
    let told = all
        .iter()
        .map(|one| one.body.clone())
        .chain(server.journal().all().into_iter().map(|mail| mail.text));
    for text in told {
        assert!(
            !text.contains(&code) && !text.contains(&code.replace('-', "")),
            "a code is in a notice"
        );
    }
}
