//! A raw client of the fake Business and School Manager API: its own writing of assertions, and everything open to change.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use data_encoding::BASE64URL_NOPAD;
use reqwest::RequestBuilder;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use sim::{
    AccountKind, ApiAccount, Apple, AppleOptions, BusinessManager, BusinessManagerOptions,
    OrgDevice,
};

use crate::{
    dep_client::{Answer, Clock},
    support::{SERIAL, client, ipad},
};

/// Apple, the API with an account, and one iPad that both know.
pub(crate) struct Stage {
    pub(crate) apple: Apple,
    pub(crate) api: BusinessManager,
    pub(crate) account: ApiAccount,
    pub(crate) clock: Clock,
    http: reqwest::Client,
    jtis: AtomicU64,
}

pub(crate) async fn stage_with(options: BusinessManagerOptions) -> Stage {
    let clock = Clock::new();
    let apple = Apple::start(AppleOptions {
        now: clock.now(),
        ..AppleOptions::default()
    })
    .await
    .unwrap();
    apple.add_device(ipad());
    let options = BusinessManagerOptions {
        now: clock.now(),
        ..options
    };
    let api = BusinessManager::start(&apple, options).await.unwrap();
    let account = api.issue_account(AccountKind::Business);
    api.add_device(OrgDevice::new(SERIAL, "iPad4,1"));
    Stage::at(&apple, &api, &account, clock)
}

pub(crate) async fn stage() -> Stage {
    stage_with(BusinessManagerOptions::default()).await
}

/// Signs these parts with the account's key.
#[expect(
    clippy::disallowed_methods,
    reason = "an ECDSA signature needs a random number, and its randomness is not what is tested"
)]
pub(crate) fn assertion(account: &ApiAccount, header: &Value, claims: &Value) -> String {
    let PrivateKeyDer::Pkcs8(key) =
        PrivateKeyDer::from_pem_slice(account.private_key_pem.as_bytes()).unwrap()
    else {
        panic!("the key is PKCS#8");
    };
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der()).unwrap();
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

pub(crate) type Form = BTreeMap<&'static str, String>;

impl Stage {
    /// One made of what runs already.
    pub(crate) fn at(
        apple: &Apple,
        api: &BusinessManager,
        account: &ApiAccount,
        clock: Clock,
    ) -> Self {
        Self {
            apple: apple.clone(),
            api: api.clone(),
            account: account.clone(),
            clock,
            http: client(&api.ca_pem(), None),
            jtis: AtomicU64::new(0),
        }
    }

    pub(crate) fn header(&self) -> Value {
        json!({ "alg": "ES256", "kid": self.account.key_id, "typ": "JWT" })
    }

    /// Good claims, with a `jti` of their own.
    pub(crate) fn claims(&self) -> Value {
        let (now, id) = (self.clock.seconds(), &self.account.client_id);
        let jti = self.jtis.fetch_add(1, Ordering::SeqCst);
        json!({
            "iss": id, "sub": id, "aud": self.api.audience(), "iat": now, "exp": now + 1200, "jti": format!("jti-{jti}"),
        })
    }

    pub(crate) fn form(&self, assertion: String) -> Form {
        Form::from([
            ("grant_type", "client_credentials".to_owned()),
            ("client_id", self.account.client_id.clone()),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned(),
            ),
            ("client_assertion", assertion),
            ("scope", self.scope().to_owned()),
        ])
    }

    /// The scope that goes with the client's id.
    fn scope(&self) -> &'static str {
        match self.account.client_id.starts_with("SCHOOLAPI.") {
            true => "school.api",
            false => "business.api",
        }
    }

    pub(crate) fn good_form(&self) -> Form {
        self.form(assertion(&self.account, &self.header(), &self.claims()))
    }

    pub(crate) fn token_request(&self, form: &Form) -> RequestBuilder {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        self.http
            .post(self.api.token_url())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
    }

    pub(crate) async fn ask_token(&self, form: &Form) -> Answer {
        Answer::of(self.token_request(form)).await
    }

    /// The OAuth error of a refused request, with its status.
    pub(crate) async fn refused(&self, form: &Form) -> (u16, String) {
        let answer = self.ask_token(form).await;
        let error = answer.json()["error"].clone();
        (answer.status, error.as_str().unwrap_or_default().to_owned())
    }

    /// A new access token.
    pub(crate) async fn token(&self) -> String {
        let answer = self.ask_token(&self.good_form()).await;
        assert_eq!(answer.status, 200);
        let token = answer.json()["access_token"].clone();
        token.as_str().unwrap().to_owned()
    }

    /// A call without any header.
    pub(crate) fn bare(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.api.api_url()))
    }

    pub(crate) fn get(&self, path: &str, token: &str) -> RequestBuilder {
        self.bare(path)
            .header("accept", "application/json")
            .bearer_auth(token)
    }

    /// A call with a token of its own.
    pub(crate) async fn call(&self, path: &str) -> Answer {
        let token = self.token().await;
        Answer::of(self.get(path, &token)).await
    }

    pub(crate) async fn lock_status(&self) -> Answer {
        self.call(&format!("/v1/orgDevices/{SERIAL}/activationLockStatus"))
            .await
    }
}
