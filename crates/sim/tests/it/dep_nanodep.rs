//! NanoDEP's proxy before the enrolment service.

use serde_json::json;
use sim::{Code, DepFault, LockKind, NanoDep, NanoDepOptions, dep::NANODEP_USER};

use crate::{
    dep_client::{Answer, Stage, stage},
    support::{CODE, SERIAL, plain},
};

async fn proxy() -> (Stage, NanoDep) {
    let stage = stage().await;
    let proxy = NanoDep::start(&stage.dep, NanoDepOptions::default())
        .await
        .unwrap();
    proxy.add_name("school", &stage.token);
    (stage, proxy)
}

/// A call that says nothing but what it must.
fn call(proxy: &NanoDep, method: &str, path: &str) -> reqwest::RequestBuilder {
    plain()
        .request(method.parse().unwrap(), format!("{}{path}", proxy.url()))
        .basic_auth(NANODEP_USER, Some("sim-dep-key"))
}

#[tokio::test]
async fn a_lock_goes_through_without_a_token() {
    let (stage, proxy) = proxy().await;
    let hash = Code::parse(CODE).unwrap().hash().hex();
    let body = json!({ "device": SERIAL, "escrow_key": hash }).to_string();
    let request = call(&proxy, "POST", "/proxy/school/device/activationlock").body(body);
    let answer = Answer::of(request).await;
    assert_eq!(
        answer.json(),
        json!({ "serial_number": SERIAL, "response_status": "SUCCESS" })
    );
    assert_eq!(answer.session, None, "sessions are the proxy's own matter");
    assert_eq!(stage.apple.lock_state(SERIAL), Some(LockKind::Mdm));
    let at_apple = stage.dep.calls_for(SERIAL).pop().unwrap();
    assert_eq!(at_apple.protocol_version.as_deref(), Some("7"));
    assert_eq!(proxy.journal().get(0).unwrap().status, Some(200));
}

#[tokio::test]
async fn what_the_client_says_of_itself_goes_on() {
    let (stage, proxy) = proxy().await;
    let request = call(&proxy, "GET", "/proxy/school/account")
        .header("user-agent", "sim-tests/1.0")
        .header("x-server-protocol-version", "10");
    assert_eq!(
        Answer::of(request).await.json()["server_name"],
        "Sim Server"
    );
    let at_apple = stage.dep.journal().all().pop().unwrap();
    assert_eq!(at_apple.protocol_version.as_deref(), Some("10"));
    assert_eq!(at_apple.user_agent.as_deref(), Some("sim-tests/1.0"));
}

#[tokio::test]
async fn one_session_serves_many_calls_and_is_renewed_once() {
    let (stage, proxy) = proxy().await;
    let account = || async { Answer::of(call(&proxy, "GET", "/proxy/school/account")).await };
    for _ in 0..5 {
        assert_eq!(account().await.status, 200);
    }
    assert_eq!(stage.dep.sessions(), 1, "it follows the rotation");
    for status in [401, 403] {
        stage.dep.set_unknown_session_status(status);
        stage.dep.expire_sessions();
        assert_eq!(account().await.status, 200);
    }
    assert_eq!(stage.dep.sessions(), 3);
    stage.dep.push_fault(
        DepFault::status(401)
            .body("UNAUTHORIZED")
            .on("/account")
            .times(2),
    );
    assert_eq!(account().await.status, 401, "not for ever");
    assert_eq!(stage.dep.faults_waiting(), 0);
}

#[tokio::test]
async fn refusals_are_passed_through() {
    let (stage, proxy) = proxy().await;
    let account = || call(&proxy, "GET", "/proxy/school/account");
    stage
        .dep
        .push_fault(DepFault::status(503).retry_after("9").on("/account"));
    let answer = account().send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (503, &"9".parse().unwrap())
    );
    stage.dep.set_terms_signed(&stage.token, false);
    stage.dep.expire_sessions();
    let answer = Answer::of(account()).await;
    assert!(answer.is(403, "T_C_NOT_SIGNED"), "{answer:?}");
    stage.dep.expire_token(&stage.token);
    assert_eq!(Answer::of(account()).await.status, 401);
    stage.dep.go_offline().await;
    assert_eq!(Answer::of(account()).await.status, 502);
    let unknown = call(&proxy, "GET", "/proxy/unknown/account");
    assert_eq!(Answer::of(unknown).await.status, 502);
    assert_eq!(
        Answer::of(call(&proxy, "GET", "/v1/version")).await.status,
        404
    );
}

#[tokio::test]
async fn without_the_key_it_is_401_in_plain_text() {
    let (stage, proxy) = proxy().await;
    let url = format!("{}/proxy/school/account", proxy.url());
    for request in [
        plain().get(&url),
        plain().get(&url).basic_auth(NANODEP_USER, Some("wrong")),
        plain().get(&url).basic_auth("nanodep", Some("sim-dep-key")),
    ] {
        let answer = Answer::of(request).await;
        assert!(answer.is(401, "Unauthorized\n"), "{answer:?}");
    }
    assert_eq!(stage.dep.journal().count(), 0);
}
