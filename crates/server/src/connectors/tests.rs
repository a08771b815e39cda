//! Calls of MDMs, against the fakes.

use std::time::Duration;

use activation_lock::device::DeviceIdentity;
use activation_lock::time::Timestamp;
use activation_lock::unlock::Outcome;
use apple::mdm::Command;
use apple::transport::ExtraAuthorities;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{get, post, put};
use escrow::connections::{ConnectionKind, ConnectionView, HookAuth, OpenConnection, UnlockVia};
use escrow::permit::OrganisationId;
use sim::nanomdm::{AppleEndpoint, CheckIn, CommandState, Flavour, Ids};
use sim::{ApiFault, Apple, AppleDevice, AppleOptions, Fault, NanoMdm, NanoMdmOptions, SIM_TOPIC};

use super::{Client, Delegated, DelegatedUnlock, Enqueued};

const UDID: &str = "00008101-000A1B2C3D4E001E";
const SERIAL: &str = "SIMTEST00001";
/// Published vectors.
const CODE: &str = "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4";
const OTHER_CODE: &str = "PXH8M-QYJZA-2H1J-H9CV-HN5U-KDN7";
const KEY: &str = "sim-api-key";

fn client() -> Client {
    Client::new(&ExtraAuthorities::default(), Duration::from_secs(30)).unwrap()
}

fn connection(kind: ConnectionKind, base_url: &str) -> OpenConnection {
    let username = match kind {
        ConnectionKind::NanoMdm => "nanomdm",
        ConnectionKind::NanoHub => "nanohub",
        ConnectionKind::MicroMdm => "micromdm",
    };
    OpenConnection {
        view: ConnectionView {
            id: "connection".to_owned(),
            organisation: OrganisationId::new("organisation"),
            name: "mdm".to_owned(),
            kind,
            base_url: base_url.to_owned(),
            path_prefix: String::new(),
            username: username.to_owned(),
            hook_auth: HookAuth::Hmac,
            previous_secret_live: false,
            unlock_via: UnlockVia::Delegated,
            max_rate: None,
            version: 1,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            removed_at: None,
        },
        api_key: KEY.to_owned().into(),
    }
}

/// An MDM with one enrolled device.
async fn mdm(options: NanoMdmOptions) -> (NanoMdm, OpenConnection) {
    let kind = match options.flavour {
        Flavour::NanoMdm => ConnectionKind::NanoMdm,
        Flavour::NanoHub => ConnectionKind::NanoHub,
    };
    let mdm = NanoMdm::start(options).await.unwrap();
    let ids = Ids::device(UDID);
    mdm.check_in(&ids, CheckIn::Authenticate, Default::default());
    mdm.check_in(&ids, CheckIn::TokenUpdate, Default::default());
    let connection = connection(kind, &mdm.url());
    (mdm, connection)
}

async fn enqueue(connection: &OpenConnection, enrollment: &str, uuid: &str) -> Enqueued {
    let plist = Command::ActivationLockBypassCode.to_plist(uuid);
    client().enqueue(connection, enrollment, uuid, plist).await
}

fn why(enqueued: Enqueued) -> String {
    match enqueued {
        Enqueued::NotQueued(why) => why,
        other => panic!("it is {other:?}"),
    }
}

fn why_down(enqueued: Enqueued) -> String {
    match enqueued {
        Enqueued::Down(why) => why,
        other => panic!("it is {other:?}"),
    }
}

#[tokio::test]
async fn r8_a_command_is_queued_under_our_uuid() {
    for flavour in [Flavour::NanoMdm, Flavour::NanoHub] {
        let options = NanoMdmOptions {
            flavour,
            ..NanoMdmOptions::default()
        };
        let (mdm, mut connection) = mdm(options).await;
        assert_eq!(enqueue(&connection, UDID, "0191-A").await, Enqueued::Queued);
        let queued = mdm.commands().all();
        assert_eq!(queued.len(), 1);
        assert_eq!(
            (queued[0].id.as_str(), queued[0].uuid.as_str()),
            (UDID, "0191-A")
        );
        assert_eq!(queued[0].request_type, "ActivationLockBypassCode");
        assert_eq!(mdm.take_pushed(), [UDID]);
        // NanoHUB's prefix may be written out.
        if flavour == Flavour::NanoHub {
            connection.view.path_prefix = "/api/v1/nanomdm".to_owned();
            assert_eq!(enqueue(&connection, UDID, "0191-B").await, Enqueued::Queued);
        }
    }
}

#[tokio::test]
async fn r8_duplicate_on_a_retry_means_queued() {
    let (mdm, connection) = mdm(NanoMdmOptions::default()).await;
    mdm.push_api_fault(ApiFault::lose_answer());
    let lost = why_down(enqueue(&connection, UDID, "0191-A").await);
    assert!(lost.starts_with("the MDM did not answer: "), "{lost}");
    assert_eq!(enqueue(&connection, UDID, "0191-A").await, Enqueued::Queued);
    assert_eq!(mdm.commands().count(), 1);
}

#[tokio::test]
async fn r8_a_failed_push_leaves_the_command_queued() {
    let (mdm, connection) = mdm(NanoMdmOptions::default()).await;
    mdm.check_in(&Ids::device(UDID), CheckIn::CheckOut, Default::default());
    assert_eq!(enqueue(&connection, UDID, "0191-A").await, Enqueued::Queued);
    assert_eq!(mdm.commands().all()[0].state, CommandState::Queued);
}

#[tokio::test]
async fn a_command_that_the_mdm_does_not_take_is_not_queued_and_the_reason_is_told() {
    let (mdm, connection) = mdm(NanoMdmOptions::default()).await;
    let unknown = why(enqueue(&connection, "ANOTHER", "0191-A").await);
    assert_eq!(unknown, "the MDM did not take it: enrollment ID not found");
    let bad = client()
        .enqueue(&connection, UDID, "0191-B", b"junk".to_vec())
        .await;
    assert!(why(bad).contains("decoding command"));
    mdm.push_api_fault(ApiFault::status(500));
    let failed = why(enqueue(&connection, UDID, "0191-C").await);
    assert_eq!(failed, "the MDM did not take it: the fake was told to fail");
    for odd in ["A,B", ".", ".."] {
        why(enqueue(&connection, odd, "0191-D").await);
    }
    assert_eq!(mdm.commands().count(), 0);
    assert_eq!(mdm.calls().count(), 3);
}

#[tokio::test]
async fn an_mdm_that_takes_nothing_is_told_apart_from_a_command_that_it_does_not_take() {
    let (mdm, mut connection) = mdm(NanoMdmOptions::default()).await;
    connection.api_key = "another".to_owned().into();
    let refused = why_down(enqueue(&connection, UDID, "0191-A").await);
    assert!(
        refused.contains("API key of the connection mdm"),
        "{refused}"
    );
    connection.api_key = KEY.to_owned().into();
    mdm.push_api_fault(ApiFault::status(503));
    let busy = why_down(enqueue(&connection, UDID, "0191-A").await);
    assert!(
        busy.starts_with("the MDM is not ready: it answered status 503"),
        "{busy}"
    );
    mdm.push_api_fault(ApiFault::hang_up());
    why_down(enqueue(&connection, UDID, "0191-A").await);
    mdm.go_offline().await;
    let gone = why_down(enqueue(&connection, UDID, "0191-A").await);
    assert!(gone.starts_with("the MDM cannot be reached: "), "{gone}");
    mdm.come_back().await;
    assert_eq!(enqueue(&connection, UDID, "0191-A").await, Enqueued::Queued);
}

/// Something that answers every request of any method so.
async fn always(status: u16, content_type: &'static str, body: &'static str) -> String {
    let answer = move || async move {
        let status = StatusCode::from_u16(status).unwrap();
        (status, [(header::CONTENT_TYPE, content_type)], body)
    };
    serve(Router::new().fallback(answer)).await
}

async fn serve(router: Router) -> String {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    socket_server(socket, router);
    url
}

fn socket_server(socket: tokio::net::TcpListener, router: Router) {
    let handle = axum_server::Handle::new();
    let server = axum_server::from_tcp(socket.into_std().unwrap())
        .unwrap()
        .handle(handle);
    tokio::spawn(server.serve(router.into_make_service()));
}

#[tokio::test]
async fn r8_only_nanomdm_s_own_words_mean_queued() {
    let ours = r#"{"status":{},"command_uuid":"0191-A","request_type":"B"}"#;
    let cases = [
        (200, ours, true),
        (207, ours, true),
        (500, ours, false),
        (200, r#"{"status":{},"command_uuid":"ANOTHER"}"#, false),
        (200, r#"{"version":"v0.9.0"}"#, false),
        (200, "<html>please log in</html>", false),
        (200, "", false),
        (204, ours, false),
        (302, ours, false),
        (404, "404 page not found\n", false),
    ];
    for (status, body, queued) in cases {
        let url = always(status, "application/json", body).await;
        let connection = connection(ConnectionKind::NanoMdm, &url);
        let enqueued = enqueue(&connection, UDID, "0191-A").await;
        assert_eq!(
            enqueued == Enqueued::Queued,
            queued,
            "{status} {body}: {enqueued:?}"
        );
        assert!(!matches!(enqueued, Enqueued::Down(_)), "{status} {body}");
    }
    for storage in [
        "Error 1062 (23000): Duplicate entry 'a' for key 'commands.PRIMARY'",
        "pq: duplicate key value violates unique constraint \"commands_pkey\"",
        "UNIQUE constraint failed: commands.command_uuid",
    ] {
        let body = serde_json::json!({"command_error": storage, "command_uuid": "0191-A"});
        let body: &'static str = Box::leak(body.to_string().into_boxed_str());
        let url = always(500, "application/json", body).await;
        let connection = connection(ConnectionKind::NanoMdm, &url);
        assert_eq!(
            enqueue(&connection, UDID, "0191-A").await,
            Enqueued::Queued,
            "{storage}"
        );
    }
}

#[tokio::test]
async fn r23_what_an_mdm_says_is_shown_without_our_key() {
    let url = always(418, "text/plain", "no: c2ltLWFwaS1rZXk= and sim-api-key").await;
    let connection = connection(ConnectionKind::NanoMdm, &url);
    let said = why(enqueue(&connection, UDID, "0191-A").await);
    assert!(
        !said.contains(KEY) && !said.contains("c2ltLWFwaS1rZXk"),
        "{said}"
    );
}

#[tokio::test]
async fn the_path_keeps_what_the_connection_s_address_has_and_an_id_cannot_leave_its_place() {
    let router = Router::new().route(
        "/base/before/v1/enqueue/{id}",
        put(
            |axum::extract::Path(id): axum::extract::Path<String>| async move {
                serde_json::json!({"command_uuid": "0191-A", "request_type": id}).to_string()
            },
        ),
    );
    let url = serve(router).await;
    let mut connection = connection(ConnectionKind::NanoMdm, &format!("{url}/base"));
    connection.view.path_prefix = "/before".to_owned();
    for id in [UDID, "A/../../B", "A?nopush=1", "A%2FB", "A#B", "UDID:USER"] {
        assert_eq!(
            enqueue(&connection, id, "0191-A").await,
            Enqueued::Queued,
            "{id}"
        );
    }
}

#[tokio::test]
async fn a_test_of_a_connection_tells_an_mdm_that_is_gone_from_a_wrong_key() {
    for flavour in [Flavour::NanoMdm, Flavour::NanoHub] {
        let options = NanoMdmOptions {
            flavour,
            ..NanoMdmOptions::default()
        };
        let (mdm, mut connection) = mdm(options).await;
        let fine = client().test(&connection).await.unwrap();
        assert_eq!(
            fine,
            "it answers with version sim-v0.9.0 and takes the API key"
        );
        connection.api_key = "another".to_owned().into();
        let refused = client().test(&connection).await.unwrap_err();
        assert!(
            refused.contains("API key of the connection mdm"),
            "{refused}"
        );
        connection.api_key = KEY.to_owned().into();
        connection.view.path_prefix = "/elsewhere".to_owned();
        let elsewhere = client().test(&connection).await.unwrap_err();
        assert!(elsewhere.contains("not NanoMDM's API"), "{elsewhere}");
        assert_eq!(mdm.commands().count(), 0, "a test queues nothing");
        mdm.go_offline().await;
        let gone = client().test(&connection).await.unwrap_err();
        assert!(gone.starts_with("the MDM cannot be reached: "), "{gone}");
    }
}

fn identity() -> DeviceIdentity {
    DeviceIdentity {
        serial: SERIAL.parse().unwrap(),
        product_type: "iPhone15,3".parse().unwrap(),
        imei: "356987241567821".parse().ok(),
        imei2: "356987241567839".parse().ok(),
        meid: None,
    }
}

/// An Apple that knows the device of [`identity`], locked by its user with [`CODE`], and an MDM before it.
async fn delegate() -> (Apple, NanoMdm, OpenConnection) {
    let apple = Apple::start(AppleOptions::default()).await.unwrap();
    let identity = identity();
    apple.add_device(AppleDevice {
        serial: SERIAL.to_owned(),
        product_type: identity.product_type.as_str().to_owned(),
        imei: identity.imei.map(|imei| imei.as_str().to_owned()),
        imei2: identity.imei2.map(|imei| imei.as_str().to_owned()),
        ..AppleDevice::default()
    });
    apple.user_lock(SERIAL, CODE).unwrap();
    let options = NanoMdmOptions {
        apple: Some(AppleEndpoint {
            url: apple.url(),
            ca_pem: apple.ca_pem(),
        }),
        ..NanoMdmOptions::default()
    };
    let (mdm, connection) = mdm(options).await;
    mdm.store_push_certificate(&apple.push_certificate(SIM_TOPIC));
    (apple, mdm, connection)
}

async fn unlock(connection: &OpenConnection, code: &str) -> Delegated {
    let identity = identity();
    let request = DelegatedUnlock {
        topic: SIM_TOPIC,
        identity: &identity,
        org_name: "Example & School",
        guid: "anna@example.org",
        code,
    };
    client().unlock(connection, &request).await
}

#[tokio::test]
async fn r19_apple_s_answer_comes_back_through_the_mdm() {
    let (apple, _mdm, connection) = delegate().await;
    let refused = unlock(&connection, OTHER_CODE).await;
    assert_eq!(
        (refused.outcome, refused.status),
        (Outcome::Refused, Some(404))
    );
    let unlocked = unlock(&connection, CODE).await;
    assert_eq!(
        (unlocked.outcome, unlocked.status),
        (Outcome::Unlocked, Some(200))
    );
    assert!(!refused.delegate_failed && !unlocked.delegate_failed);
    assert_eq!(apple.lock_state(SERIAL), None);
    let call = apple.calls_for(SERIAL).pop().unwrap();
    assert_eq!(call.org_name.as_deref(), Some("Example & School"));
    assert_eq!(call.guid.as_deref(), Some("anna@example.org"));
    let expected = [
        ("imei", "356987241567821"),
        ("imei2", "356987241567839"),
        ("productType", "iPhone15,3"),
        ("serial", SERIAL),
    ];
    let query: Vec<_> = call
        .query
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(query, expected, "each only when known (R18)");
}

#[tokio::test]
async fn r19_the_mdm_s_own_error_is_unknown_and_its_401_is_the_connection_s_credential() {
    let (apple, mdm, mut connection) = delegate().await;
    apple.go_offline().await;
    let own = unlock(&connection, CODE).await;
    assert_eq!((own.outcome, own.status), (Outcome::Unknown, Some(500)));
    assert!(own.delegate_failed && own.diagnostic.starts_with("the MDM's own error: "));
    apple.come_back().await;
    apple.push_fault(Fault::status(500).body("<error/>"));
    let of_apple = unlock(&connection, CODE).await;
    assert_eq!(
        (of_apple.outcome, of_apple.status),
        (Outcome::Unknown, Some(500))
    );
    assert!(!of_apple.delegate_failed);
    apple.push_fault(Fault::status(503).retry_after("60"));
    let headers_lost = unlock(&connection, CODE).await;
    assert_eq!(headers_lost.outcome, Outcome::Unknown);
    connection.api_key = "another".to_owned().into();
    let key = unlock(&connection, CODE).await;
    assert_eq!((key.outcome, key.status), (Outcome::Credential, Some(401)));
    assert!(key.diagnostic.contains("did not take our API key"));
    connection.api_key = KEY.to_owned().into();
    mdm.push_api_fault(ApiFault::lose_answer());
    let lost = unlock(&connection, CODE).await;
    assert_eq!((lost.outcome, lost.status), (Outcome::Unknown, None));
    mdm.go_offline().await;
    let gone = unlock(&connection, CODE).await;
    assert_eq!((gone.outcome, gone.status), (Outcome::Unavailable, None));
}

#[tokio::test]
async fn r19_an_mdm_without_the_call_blames_no_code() {
    let url = always(404, "text/plain; charset=utf-8", "404 page not found\n").await;
    let old = unlock(&connection(ConnectionKind::NanoMdm, &url), CODE).await;
    assert_eq!((old.outcome, old.status), (Outcome::Credential, Some(404)));
    let micro = unlock(&connection(ConnectionKind::MicroMdm, &url), CODE).await;
    assert_eq!((micro.outcome, micro.status), (Outcome::Credential, None));
    for (status, outcome) in [
        (404, Outcome::Refused),
        (400, Outcome::Malformed),
        (302, Outcome::Unexpected),
        (405, Outcome::Unexpected),
    ] {
        let url = always(status, "text/xml", "<error code=\"1\"/>").await;
        let answered = unlock(&connection(ConnectionKind::NanoMdm, &url), CODE).await;
        assert_eq!(answered.outcome, outcome, "{status}");
    }
}

#[tokio::test]
async fn r23_a_code_that_an_answer_repeats_is_cut_out() {
    let (apple, _mdm, connection) = delegate().await;
    apple.push_fault(Fault::echo(404));
    let echoed = unlock(&connection, OTHER_CODE).await;
    assert_eq!(echoed.outcome, Outcome::Refused);
    let bare = OTHER_CODE.replace('-', "");
    assert!(!echoed.diagnostic.is_empty());
    assert!(!echoed.diagnostic.contains(OTHER_CODE) && !echoed.diagnostic.contains(&bare));
}

/// MicroMDM as far as we call it, from mdm-connectors, 3.
async fn micromdm() -> String {
    fn allowed(headers: &HeaderMap) -> bool {
        // micromdm:sim-api-key
        let ours = "Basic bWljcm9tZG06c2ltLWFwaS1rZXk=";
        headers
            .get(header::AUTHORIZATION)
            .is_some_and(|value| value == ours)
    }
    let commands = |headers: HeaderMap, body: Bytes| async move {
        let text = String::from_utf8_lossy(&body).into_owned();
        if !allowed(&headers) {
            return (StatusCode::UNAUTHORIZED, String::new());
        }
        if !text.contains("<key>CommandUUID</key>") {
            let error = serde_json::json!({"error": "unmarshal plist"}).to_string();
            return (StatusCode::INTERNAL_SERVER_ERROR, error);
        }
        let payload = serde_json::json!({"payload": {"command_uuid": "0191-A"}}).to_string();
        (StatusCode::CREATED, payload)
    };
    let devices = |headers: HeaderMap| async move {
        if allowed(&headers) {
            (StatusCode::OK, "{\"devices\":[]}")
        } else {
            (StatusCode::UNAUTHORIZED, "")
        }
    };
    let router = Router::new()
        .route("/version", get(|| async { "{\"version\":\"v1.12\"}" }))
        .route("/v1/commands/{udid}", post(commands))
        .route("/v1/devices", post(devices));
    serve(router).await
}

#[tokio::test]
async fn micromdm_takes_raw_commands() {
    let mut connection = connection(ConnectionKind::MicroMdm, &micromdm().await);
    assert_eq!(enqueue(&connection, UDID, "0191-A").await, Enqueued::Queued);
    let bad = client()
        .enqueue(&connection, UDID, "0191-B", b"junk".to_vec())
        .await;
    assert!(why(bad).contains("unmarshal plist"));
    let fine = client().test(&connection).await.unwrap();
    assert_eq!(fine, "it answers and takes the API key");
    connection.api_key = "another".to_owned().into();
    why_down(enqueue(&connection, UDID, "0191-A").await);
    assert!(
        client()
            .test(&connection)
            .await
            .unwrap_err()
            .contains("API key")
    );
    connection.view.path_prefix = "/elsewhere".to_owned();
    assert!(
        client()
            .test(&connection)
            .await
            .unwrap_err()
            .contains("not MicroMDM's API")
    );
    let plain = always(200, "text/html", "<html>please log in</html>").await;
    connection.view.base_url = plain;
    why(enqueue(&connection, UDID, "0191-A").await);
}
