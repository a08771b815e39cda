//! Calls through NanoDEP, which has the token and the session.

use activation_lock::lock::LockOutcome;
use apple::dep::{DepError, NanoDep};
use sim::dep::{DepFault, NanoDepOptions};
use sim::{LockKind, fingerprint};

use super::*;

const KEY: &str = "nanodep-key-for-tests";
const NAME: &str = "school-1";

struct Proxied {
    organisation: Organisation,
    nanodep: sim::dep::NanoDep,
}

impl Proxied {
    async fn new() -> Self {
        let organisation = Organisation::new().await;
        let options = NanoDepOptions {
            api_key: KEY.to_owned(),
            ..NanoDepOptions::default()
        };
        let nanodep = sim::dep::NanoDep::start(&organisation.dep, options)
            .await
            .unwrap();
        nanodep.add_name(NAME, &organisation.token);
        Self {
            organisation,
            nanodep,
        }
    }

    fn service(&self, key: &str) -> DepService {
        let Ok(nanodep) = NanoDep::new(&self.nanodep.url(), NAME, key) else {
            panic!("the address of the fake is one");
        };
        let authorities = ExtraAuthorities::default();
        DepService::through_nanodep(&nanodep, &authorities, Timeouts::default()).unwrap()
    }
}

#[tokio::test]
async fn nanodep_signs_for_us_and_we_need_no_token() {
    let proxied = Proxied::new().await;
    let service = proxied.service(KEY);
    let message: LostMessage = "Call us".parse().unwrap();
    let answer = lock_with(&service, CODE, Some(&message)).await;
    assert_eq!(answer.outcome, LockOutcome::Locked, "{}", answer.diagnostic);
    let organisation = &proxied.organisation;
    assert_eq!(organisation.apple.lock_state(SERIAL), Some(LockKind::Mdm));
    let call = &organisation.dep.calls_for(SERIAL)[0];
    let sent = fingerprint(&hash(CODE).to_string());
    assert_eq!(call.escrow_key_fingerprint.as_deref(), Some(sent.as_str()));
    assert_eq!(call.lost_message.as_deref(), Some("Call us"));
    assert_eq!(call.protocol_version.as_deref(), Some("10"), "passed on");
    // One session, and it is NanoDEP's.
    let account = service.account(now()).await.unwrap();
    assert_eq!(account.server_name.as_deref(), Some("Lockwarden"));
    let page = service.fetch_devices(None, 1000, now()).await.unwrap();
    assert_eq!(page.devices.len(), 1);
    assert_eq!(organisation.dep.sessions(), 1);
    let paths: Vec<String> = proxied
        .nanodep
        .journal()
        .all()
        .into_iter()
        .map(|call| call.path)
        .collect();
    let wanted = [LOCK, "/account", "/server/devices"].map(|path| format!("/proxy/{NAME}{path}"));
    assert_eq!(paths, wanted);
    assert_eq!(service.recipient(), "127.0.0.1");
}

#[tokio::test]
async fn r19_a_wrong_api_key_is_a_credential_and_is_not_repeated() {
    let proxied = Proxied::new().await;
    let service = proxied.service("another-key");
    let answer = lock(&service).await;
    assert_eq!(
        (answer.outcome, answer.status),
        (LockOutcome::Credential, Some(401))
    );
    let error = service.account(now()).await.unwrap_err();
    assert!(matches!(error, DepError::ProxyRefused { .. }));
    let words = error.to_string();
    assert!(
        words.contains("NanoDEP") && words.contains("API key"),
        "{words}"
    );
    assert!(!words.contains("another-key"));
    assert_eq!(proxied.nanodep.journal().count(), 2, "each was sent once");
    assert_eq!(proxied.organisation.dep.journal().count(), 0);
}

#[tokio::test]
async fn t6_what_apple_says_to_nanodep_is_understood_under_whatever_status_it_comes() {
    let proxied = Proxied::new().await;
    let service = proxied.service(KEY);
    let organisation = &proxied.organisation;
    service.account(now()).await.unwrap();
    // NanoDEP answers 502 with the body of a refusal when it gets no session.
    for status in [403, 502] {
        let terms = DepFault::status(status).body("T_C_NOT_SIGNED");
        organisation.dep.push_fault(terms.on(LOCK));
        assert_eq!(lock(&service).await.outcome, LockOutcome::TermsNotSigned);
        let denied = DepFault::status(status).body("\"ACCESS_DENIED\"");
        organisation.dep.push_fault(denied.on("/account"));
        let error = service.account(now()).await.unwrap_err();
        assert!(matches!(error, DepError::AccessDenied { .. }), "{error}");
    }
    organisation.dep.go_offline().await;
    let answer = lock(&service).await;
    assert_eq!(
        (answer.outcome, answer.status),
        (LockOutcome::Unknown, Some(502))
    );
    let error = service.account(now()).await.unwrap_err();
    assert!(matches!(error, DepError::Unavailable { .. }), "{error}");
    proxied.nanodep.go_offline().await;
    let answer = lock(&service).await;
    assert_eq!(answer.outcome, LockOutcome::Unavailable);
    assert!(!answer.may_have_reached_apple);
}
