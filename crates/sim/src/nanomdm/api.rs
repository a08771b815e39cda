//! The HTTP side of the fake NanoMDM.

use std::{collections::BTreeMap, collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, RawQuery, State},
    http::{HeaderMap, Request, Response, StatusCode, header},
    response::IntoResponse,
    routing::{get, post, put},
};
use hyper::{body::Incoming, service::Service};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use serde_json::json;

use super::{
    ApiCall, NotQueued, Shared,
    fault::{ApiAct, ApiFault},
    read_command,
};
use crate::{
    basic, http_client,
    listener::{Connection, Hangup, Speaker},
};

/// How long the pass-through waits for Apple.
const TIME_OUT: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(super) struct Api {
    shared: Arc<Shared>,
    router: Router,
}

impl Api {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let router = Router::new()
            .route("/enqueue/{ids}", put(enqueue))
            .route("/push/{ids}", get(push).put(push))
            .route("/pushcert", put(store_push_certificate))
            .route("/escrowkeyunlock", post(escrow_key_unlock));
        let router = Router::new()
            .route("/version", get(version))
            .nest(shared.flavour.prefix(), router)
            .layer(DefaultBodyLimit::max(1024 * 1024))
            .with_state(shared.clone());
        Self { shared, router }
    }

    async fn routed(&self, request: Request<Incoming>) -> Response<Body> {
        let router = self.router.clone();
        TowerToHyperService::new(router)
            .call(request)
            .await
            .unwrap_or_else(|never| match never {})
    }
}

impl Speaker for Api {
    async fn answer(
        &self,
        _: Arc<Connection>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Hangup> {
        let path = request.uri().path().to_owned();
        let number = self.shared.calls.add(|number| ApiCall {
            number,
            method: request.method().to_string(),
            path: request.uri().to_string(),
            status: None,
        });
        let fits = |fault: &ApiFault| fault.path.as_ref().is_none_or(|part| path.contains(part));
        let fault = self.shared.faults().take(fits).map(|fault| fault.act);
        let answer = match fault {
            Some(ApiAct::HangUp) => return Err(Hangup),
            Some(ApiAct::Status(status, why)) => own_error(status, &why),
            Some(ApiAct::RejectKey) => unauthorised(),
            fault => {
                if let Some(ApiAct::Wait(wait)) = &fault {
                    wait.pass().await;
                }
                let allowed = path == "/version" || self.shared.allows(request.headers());
                let answer = if allowed {
                    self.routed(request).await
                } else {
                    unauthorised()
                };
                if matches!(fault, Some(ApiAct::LoseAnswer)) {
                    return Err(Hangup);
                }
                answer
            }
        };
        self.shared
            .calls
            .amend(number, |call| call.status = Some(answer.status().as_u16()));
        Ok(answer)
    }
}

impl Shared {
    fn allows(&self, headers: &HeaderMap) -> bool {
        basic::is(headers, self.flavour.user(), &self.state().api_key)
    }
}

fn unauthorised() -> Response<Body> {
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"nanomdm\"")];
    (StatusCode::UNAUTHORIZED, challenge, "Unauthorized\n").into_response()
}

fn own_error(status: u16, why: &str) -> Response<Body> {
    answer(status, &json!({ "error": why }))
}

/// JSON with tabs, as NanoMDM indents it.
fn answer(status: u16, body: &impl Serialize) -> Response<Body> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec_pretty(body).expect("strings and numbers are always JSON");
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn version() -> Response<Body> {
    answer(200, &json!({ "version": "sim-v0.9.0" }))
}

#[derive(Default, Serialize)]
struct ApiResult {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<String, OneResult>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_push: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    push_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_uuid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_type: Option<String>,
}

#[derive(Default, Serialize)]
struct OneResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    push_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    push_result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_error: Option<String>,
}

impl ApiResult {
    fn pushed(&mut self, pushes: HashMap<String, Result<String, String>>) {
        for (id, push) in pushes {
            let one = self.status.entry(id).or_default();
            match push {
                Ok(result) => one.push_result = Some(result),
                Err(error) => one.push_error = Some(error),
            }
        }
    }

    /// 200 when all is well, 500 when nothing is, else 207.
    fn answer(self, queued: usize) -> Response<Body> {
        let one_failed = |one: &OneResult| one.push_error.is_some() || one.command_error.is_some();
        let failed = self.push_error.is_some()
            || self.command_error.is_some()
            || self.status.values().any(one_failed);
        let some_went_well =
            queued > 0 || self.status.values().any(|one| one.push_result.is_some());
        let status = match (failed, some_went_well) {
            (false, _) => 200,
            (true, true) => 207,
            (true, false) => 500,
        };
        answer(status, &self)
    }
}

async fn enqueue(
    State(shared): State<Arc<Shared>>,
    Path(ids): Path<String>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Response<Body> {
    let ids: Vec<&str> = ids.split(',').collect();
    let query = query.unwrap_or_default();
    let no_push = form_urlencoded::parse(query.as_bytes())
        .any(|(key, value)| key == "nopush" && !value.is_empty());
    let mut result = ApiResult {
        no_push,
        ..ApiResult::default()
    };
    let command = match read_command(&body) {
        Ok(command) => command,
        Err(why) => {
            result.command_error = Some(format!("decoding command: {why}"));
            return result.answer(0);
        }
    };
    result.command_uuid = Some(command.uuid.clone());
    result.request_type = Some(command.request_type.clone());
    let unknown = match shared.enqueue(&ids, &command) {
        Ok(unknown) => unknown,
        Err(NotQueued::All(why)) => {
            result.command_error = Some(why);
            return result.answer(0);
        }
    };
    let known: Vec<&str> = ids
        .iter()
        .copied()
        .filter(|id| !unknown.contains_key(*id))
        .collect();
    for (id, why) in unknown {
        result.status.entry(id).or_default().command_error = Some(why);
    }
    if !no_push {
        result.pushed(shared.push(&known));
    }
    result.answer(known.len())
}

async fn push(State(shared): State<Arc<Shared>>, Path(ids): Path<String>) -> Response<Body> {
    let ids: Vec<&str> = ids.split(',').collect();
    let mut result = ApiResult::default();
    result.pushed(shared.push(&ids));
    result.answer(0)
}

async fn store_push_certificate(State(shared): State<Arc<Shared>>, body: String) -> Response<Body> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let Ok(certificate) = CertificateDer::from_pem_slice(body.as_bytes()) else {
        return own_error(500, "no certificate in PEM");
    };
    if PrivateKeyDer::from_pem_slice(body.as_bytes()).is_err() {
        return own_error(500, "no unencrypted private key in PEM");
    }
    let (Some(topic), Some(not_after)) = (
        crate::authority::subject_of(&certificate).1,
        crate::authority::not_after_of(&certificate),
    ) else {
        return own_error(500, "the certificate's subject has no topic");
    };
    shared.state().push_certificates.insert(topic.clone(), body);
    answer(200, &json!({ "topic": topic, "not_after": not_after }))
}

const QUERY: [&str; 5] = ["serial", "productType", "imei", "imei2", "meid"];

/// All parameters come in the form; those that Apple wants in the query are moved there. Apple's headers are lost.
async fn escrow_key_unlock(State(shared): State<Arc<Shared>>, body: Bytes) -> Response<Body> {
    let form: HashMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
    let given = |key: &str| form.get(key).filter(|value| !value.is_empty());
    if ["serial", "productType", "escrowKey", "orgName", "guid"]
        .iter()
        .any(|key| given(key).is_none())
    {
        return own_error(400, "invalid or missing parameters");
    }
    let Some(topic) = given("topic") else {
        return own_error(400, "empty topic");
    };
    let encoded = |keys: &[&str]| {
        let mut text = form_urlencoded::Serializer::new(String::new());
        for key in keys {
            if let Some(value) = given(key) {
                text.append_pair(key, value);
            }
        }
        text.finish()
    };
    let (identity, apple) = {
        let state = shared.state();
        (
            state.push_certificates.get(topic).cloned(),
            state.apple.clone(),
        )
    };
    let (Some(identity), Some(apple)) = (identity, apple) else {
        return own_error(500, "no push certificate for the topic, or no Apple");
    };
    let url = format!("{}{}?{}", apple.url, crate::apple::PATH, encoded(&QUERY));
    let client = match http_client::client(Some(&apple.ca_pem), Some(&identity), TIME_OUT) {
        Ok(client) => client,
        Err(error) => return own_error(500, &error.to_string()),
    };
    let request = client
        .post(url)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(encoded(&["escrowKey", "orgName", "guid"]));
    let answered = async {
        let response = request.send().await?;
        let status = response.status();
        Ok::<_, reqwest::Error>((status, response.bytes().await?))
    };
    match answered.await {
        Ok((status, body)) => (
            StatusCode::from_u16(status.as_u16()).unwrap_or(StatusCode::BAD_GATEWAY),
            body,
        )
            .into_response(),
        Err(error) => own_error(500, &format!("escrow key unlock: {}", error.without_url())),
    }
}
