//! A raw client of the fake Apple, and a receiver of webhooks.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use sim::{
    Apple, AppleDevice, AppleOptions, NanoMdm, NanoMdmOptions, PushCertificate, SIM_TOPIC, Webhook,
    apple::PATH, nanomdm::AppleEndpoint,
};

pub(crate) const SERIAL: &str = "SIMTEST00001";
/// A published vector.
pub(crate) const CODE: &str = "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4";
/// Another one.
pub(crate) const OTHER_CODE: &str = "PXH8M-QYJZA-2H1J-H9CV-HN5U-KDN7";

pub(crate) fn ipad() -> AppleDevice {
    AppleDevice {
        serial: SERIAL.to_owned(),
        product_type: "iPad4,1".to_owned(),
        ..AppleDevice::default()
    }
}

/// A fake that knows one Wi-Fi iPad.
pub(crate) async fn apple_with(options: AppleOptions) -> Apple {
    let apple = Apple::start(options).await.unwrap();
    apple.add_device(ipad());
    apple
}

pub(crate) async fn apple() -> Apple {
    apple_with(AppleOptions::default()).await
}

/// One whose iPad is locked by a user, and opens with [`CODE`].
pub(crate) async fn locked() -> Apple {
    let apple = apple().await;
    apple.user_lock(SERIAL, CODE).unwrap();
    apple
}

pub(crate) fn tls_config(ca_pem: &str, identity: Option<&PushCertificate>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
            config
                .with_client_auth_cert(chain.map(Result::unwrap).collect(), key)
                .unwrap()
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the tests' one client")]
pub(crate) fn client(ca_pem: &str, identity: Option<&PushCertificate>) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls_config(ca_pem, identity))
        .no_proxy()
        .timeout(Duration::from_secs(60))
        .build()
        .unwrap()
}

/// A client with a good certificate.
pub(crate) fn good_client(apple: &Apple) -> reqwest::Client {
    client(&apple.ca_pem(), Some(&apple.push_certificate(SIM_TOPIC)))
}

/// A request by hand: query and body as given.
pub(crate) fn raw(
    apple: &Apple,
    client: &reqwest::Client,
    query: &str,
    body: &str,
) -> reqwest::RequestBuilder {
    client
        .post(format!("{}{PATH}?{query}", apple.url()))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.to_owned())
}

pub(crate) const QUERY: &str = "serial=SIMTEST00001&productType=iPad4%2C1";

pub(crate) fn form(code: &str) -> String {
    format!("orgName=Example&guid=anna%40example.org&escrowKey={code}")
}

/// A proper unlock request for the iPad.
pub(crate) fn unlock(
    apple: &Apple,
    client: &reqwest::Client,
    code: &str,
) -> reqwest::RequestBuilder {
    raw(apple, client, QUERY, &form(code))
}

pub(crate) async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

/// Everything an error says, its sources included.
pub(crate) fn whole_story(error: &dyn std::error::Error) -> String {
    let mut story = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        story += &format!(": {inner}");
        source = inner.source();
    }
    story
}

/// What a webhook receiver got.
#[derive(Clone)]
pub(crate) struct Received {
    pub(crate) signature: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn topic(&self) -> String {
        self.json()["topic"].as_str().unwrap().to_owned()
    }

    /// The property list within.
    pub(crate) fn payload(&self) -> plist::Dictionary {
        let json = self.json();
        let event = json
            .get("checkin_event")
            .or(json.get("acknowledge_event"))
            .unwrap();
        let xml = STANDARD
            .decode(event["raw_payload"].as_str().unwrap())
            .unwrap();
        plist::Value::from_reader_xml(xml.as_slice())
            .unwrap()
            .into_dictionary()
            .unwrap()
    }
}

/// A small webhook receiver.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    all: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Mutex<u16>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", socket.local_addr().unwrap());
        let receiver = Self {
            url,
            all: Arc::default(),
            answer: Arc::new(Mutex::new(200)),
        };
        let router = Router::new()
            .route("/hook", post(take))
            .with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(socket, router).await });
        receiver
    }

    pub(crate) fn webhook(&self) -> Webhook {
        Webhook::new(&self.url, None)
    }

    pub(crate) fn all(&self) -> Vec<Received> {
        self.all.lock().unwrap().clone()
    }

    pub(crate) fn topics(&self) -> Vec<String> {
        self.all().iter().map(Received::topic).collect()
    }

    pub(crate) fn answer(&self, status: u16) {
        *self.answer.lock().unwrap() = status;
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let signature = headers
        .get("x-hmac-signature")
        .map(|value| value.to_str().unwrap().to_owned());
    receiver.all.lock().unwrap().push(Received {
        signature,
        body: body.to_vec(),
    });
    StatusCode::from_u16(*receiver.answer.lock().unwrap()).unwrap()
}

/// Apple, an MDM behind which the receiver stands, and the receiver.
pub(crate) async fn trio() -> (Apple, NanoMdm, Receiver) {
    let receiver = Receiver::start().await;
    let apple = apple().await;
    let mdm = NanoMdm::start(NanoMdmOptions {
        webhook: Some(receiver.webhook()),
        apple: Some(AppleEndpoint {
            url: apple.url(),
            ca_pem: apple.ca_pem(),
        }),
        ..NanoMdmOptions::default()
    })
    .await
    .unwrap();
    (apple, mdm, receiver)
}

/// A plain client, for the MDM's API.
pub(crate) fn plain() -> reqwest::Client {
    client("", None)
}

/// An API call with the right key.
pub(crate) fn call(mdm: &NanoMdm, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
    plain()
        .request(method, format!("{}{path}", mdm.api_url()))
        .basic_auth(mdm.flavour().user(), Some("sim-api-key"))
}

/// The XML of a command.
pub(crate) fn command(uuid: &str, request_type: &str, rest: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist version=\"1.0\"><dict><key>CommandUUID</key><string>{uuid}</string>\
         <key>Command</key><dict><key>RequestType</key><string>{request_type}</string>{rest}</dict></dict></plist>"
    )
}

/// Queues a command, which must succeed.
pub(crate) async fn enqueue(mdm: &NanoMdm, id: &str, uuid: &str, request_type: &str, rest: &str) {
    let request = call(mdm, reqwest::Method::PUT, &format!("/enqueue/{id}")).body(command(
        uuid,
        request_type,
        rest,
    ));
    assert_eq!(status(request).await, 200);
}
