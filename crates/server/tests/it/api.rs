//! The API, through its own door.

use std::fmt;

use escrow::organisations::Created;
use escrow::permit::{Admin, OrganisationId, Permissions, Permit, Scope};
use escrow::principals::NewToken;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::support::{self, Stage};

mod approvals;
mod audit;
mod batches;
mod codes;
mod description;
mod devices;
#[cfg(feature = "archive")]
mod exports;
mod locks;
mod mdm;
mod people;
mod push_certificates;
mod refusals;
mod routes;
mod server_tokens;
pub(crate) mod sessions;
#[cfg(feature = "oidc")]
mod single_sign_on;
mod unlocks;

/// Whoever asks with a token.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

/// What was answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HeaderMap,
    body: String,
}

impl fmt::Debug for Answer {
    /// Without the body, which may hold a code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}, {}", self.status, self.problem())
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn text(&self) -> &str {
        &self.body
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("the answer is JSON")
    }

    /// The name of the problem; empty when it is none.
    pub(crate) fn problem(&self) -> String {
        if self.header("content-type") != Some("application/problem+json") {
            return String::new();
        }
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        for part in ["title", "detail"] {
            assert!(problem[part].is_string(), "a problem has a {part}");
        }
        let name = problem["type"].as_str().expect("a problem has a type");
        name.strip_prefix("urn:lockwarden:problem:")
            .expect("of ours")
            .to_owned()
    }

    /// The status and the name of the problem.
    pub(crate) fn refusal(&self) -> (u16, String) {
        (self.status, self.problem())
    }
}

impl Client {
    /// One with a token; none when it is empty.
    pub(crate) fn new(stage: &Stage, token: &str) -> Self {
        Self {
            http: support::client(),
            base: stage.url(),
            token: token.to_owned(),
        }
    }

    /// One with a new token of these scopes.
    pub(crate) async fn with(stage: &Stage, scopes: &[&str]) -> Self {
        Self::new(stage, &stage.token(scopes).await)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        if self.token.is_empty() {
            request
        } else {
            request.bearer_auth(&self.token)
        }
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.expect("the server answers");
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.text().await.expect("the answer is whole"),
        }
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        self.send(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, Some(&body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PUT, path, Some(&body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PATCH, path, Some(&body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, None).await
    }
}

/// A token with any permissions, valid anywhere.
pub(crate) async fn token_of(stage: &Stage, scope: Scope, permissions: Permissions) -> String {
    let organisation = scope.organisation().unwrap_or(&stage.organisation);
    let escrow = stage.escrow();
    let permit: Permit<Admin> = escrow
        .authorise(&stage.actor, organisation, "token")
        .await
        .unwrap();
    let new = NewToken {
        name: "a token".to_owned(),
        scope,
        permissions,
        expires_at: None,
    };
    let made = escrow.principals().create_token(&permit, new).await;
    made.unwrap().1.expose().to_owned()
}

/// A second organisation.
pub(crate) async fn another_organisation(stage: &Stage, name: &str) -> OrganisationId {
    match stage
        .escrow()
        .organisations()
        .create(&stage.actor, name)
        .await
        .unwrap()
    {
        Created::New(organisation) => organisation.id,
        Created::NameTaken => panic!("the name is taken"),
    }
}

/// Takes the push certificates away, so that an unlock of a device with a code stays live: it waits for one.
pub(crate) async fn without_certificate(stage: &Stage) {
    let client = Client::with(stage, &["connections"]).await;
    let all = client.get("/v1/push-certificates").await.json();
    for certificate in all["items"].as_array().unwrap() {
        let id = certificate["id"].as_str().unwrap();
        let answer = client.delete(&format!("/v1/push-certificates/{id}")).await;
        assert_eq!(answer.status, 204);
    }
}
