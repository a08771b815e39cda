//! Who may speak to the enrolment service: signatures, sessions and headers.

use std::time::Duration;

use serde_json::json;
use sim::{DepOptions, DepToken, dep::Rotation};

use crate::dep_client::{Answer, JSON, Signing, header_of, stage, stage_with};

/// A change of the header's parameters.
type Change = fn(&mut Vec<(String, String)>);

fn set(parameters: &mut [(String, String)], name: &str, value: &str) {
    let found = parameters.iter_mut().find(|(other, _)| other == name);
    found.unwrap().1 = value.to_owned();
}

#[tokio::test]
async fn t6_a_signature_that_is_not_as_rfc_5849_writes_it_is_400() {
    let stage = stage().await;
    let changes: [(&str, Change); 16] = [
        ("no realm", |list| list.retain(|(name, _)| name != "realm")),
        ("another realm", |list| set(list, "realm", "MDA")),
        ("no consumer key", |list| {
            list.retain(|(name, _)| name != "oauth_consumer_key");
        }),
        ("no token", |list| {
            list.retain(|(name, _)| name != "oauth_token")
        }),
        ("no nonce", |list| {
            list.retain(|(name, _)| name != "oauth_nonce")
        }),
        ("an empty nonce", |list| set(list, "oauth_nonce", "")),
        ("no timestamp", |list| {
            list.retain(|(name, _)| name != "oauth_timestamp");
        }),
        ("a timestamp that is no number", |list| {
            set(list, "oauth_timestamp", "now");
        }),
        ("a negative timestamp", |list| {
            set(list, "oauth_timestamp", "-1800000000");
        }),
        ("no signature", |list| {
            list.retain(|(name, _)| name != "oauth_signature");
        }),
        ("a signature that is no base64", |list| {
            set(list, "oauth_signature", "abc");
        }),
        ("another method", |list| {
            set(list, "oauth_signature_method", "PLAINTEXT");
        }),
        ("no version", |list| {
            list.retain(|(name, _)| name != "oauth_version");
        }),
        ("another version", |list| set(list, "oauth_version", "2.0")),
        ("a parameter twice", |list| {
            let again = list[1].clone();
            list.push(again);
        }),
        ("an unknown parameter", |list| {
            list.push(("oauth_callback".to_owned(), "oob".to_owned()));
        }),
    ];
    for (what, change) in changes {
        let mut parameters = stage.signing().parameters();
        change(&mut parameters);
        let answer = stage.ask_session(&header_of(&parameters)).await;
        assert_eq!(answer.status, 400, "{what}");
    }
    let header = stage.signing().header();
    for (what, header) in [
        ("another scheme", header.replacen("OAuth", "Bearer", 1)),
        ("nothing", "OAuth".to_owned()),
        ("without quotes", header.replace('"', "")),
        ("not escaped", header.replace("%3D", "=")),
        ("a letter escaped", header.replace("1.0\"", "1%2E0\"")),
    ] {
        assert_eq!(stage.ask_session(&header).await.status, 400, "{what}");
    }
    let query = stage.request("GET", "/session?a=b");
    let answer = Answer::of(query.header("authorization", stage.signing().header())).await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        Answer::of(stage.request("GET", "/session")).await.status,
        400
    );
    assert_eq!(stage.dep.sessions(), 0);
}

#[tokio::test]
async fn t6_a_signature_of_somebody_else_or_of_another_time_is_401() {
    let stage = stage().await;
    let other = stage.dep.issue_token("Other Server");
    let with_token = |change: fn(&mut DepToken, &DepToken)| {
        let mut signing = stage.signing();
        change(&mut signing.token, &other);
        signing
    };
    let with = |change: fn(&mut Signing)| {
        let mut signing = stage.signing();
        change(&mut signing);
        signing
    };
    for (what, signing) in [
        (
            "an unknown consumer key",
            with_token(|token, _| token.consumer_key = "CK_unknown".to_owned()),
        ),
        (
            "the access token of another server",
            with_token(|token, other| token.access_token.clone_from(&other.access_token)),
        ),
        (
            "the wrong consumer secret",
            with_token(|token, other| token.consumer_secret.clone_from(&other.consumer_secret)),
        ),
        (
            "the wrong access secret",
            with_token(|token, other| token.access_secret.clone_from(&other.access_secret)),
        ),
        ("another URL", with(|signing| signing.url += "s")),
        ("too old", with(|signing| signing.timestamp -= 301)),
        ("too new", with(|signing| signing.timestamp += 301)),
    ] {
        let answer = stage.ask_session(&signing.header()).await;
        assert!(answer.is(401, "UNAUTHORIZED"), "{what}: {answer:?}");
    }
    let mut parameters = stage.signing().parameters();
    set(&mut parameters, "oauth_nonce", "another");
    let answer = stage.ask_session(&header_of(&parameters)).await;
    assert_eq!(answer.status, 401, "what is signed was changed");
    assert_eq!(stage.dep.sessions(), 0);

    // Just inside; and upper case in the host changes nothing.
    for change in [
        |signing: &mut Signing| signing.timestamp -= 300,
        |signing: &mut Signing| signing.timestamp += 300,
    ] {
        let mut signing = stage.signing();
        change(&mut signing);
        assert_eq!(stage.ask_session(&signing.header()).await.status, 200);
    }
}

#[tokio::test]
async fn t6_a_nonce_is_good_once_for_its_timestamp() {
    let stage = stage().await;
    let mut signing = stage.signing();
    assert_eq!(stage.ask_session(&signing.header()).await.status, 200);
    assert_eq!(stage.ask_session(&signing.header()).await.status, 401);
    signing.timestamp += 1;
    assert_eq!(stage.ask_session(&signing.header()).await.status, 200);
    let note = stage.dep.journal().get(1).unwrap().note;
    assert!(note.contains("nonce"), "{note}");
}

#[tokio::test]
async fn t6_a_token_that_has_expired_gets_no_session() {
    let stage = stage().await;
    assert_eq!(
        stage.token.access_token_expiry.unix_timestamp(),
        stage.clock.seconds() + 365 * 86_400
    );
    stage.session().await;
    stage.dep.expire_token(&stage.token);
    let answer = stage.ask_session(&stage.signing().header()).await;
    assert!(answer.is(401, "UNAUTHORIZED"), "{answer:?}");
    let another = stage.dep.issue_token("Renewed");
    stage.clock.advance(365 * 86_400);
    let signing = Signing {
        token: another,
        ..stage.signing()
    };
    assert_eq!(stage.ask_session(&signing.header()).await.status, 401);
}

#[tokio::test]
async fn t6_headers_are_demanded_on_every_call() {
    let stage = stage().await;
    let call = async |path: &str, without: &str, with: Option<&str>| {
        let method = if path == "/devices/sync" {
            "POST"
        } else {
            "GET"
        };
        let mut request = stage.bare(method, path);
        let authorization = stage.signing().header();
        let session = match path {
            "/session" => String::new(),
            _ => stage.session().await,
        };
        for (name, value) in [
            ("user-agent", "sim-tests/1.0"),
            ("content-type", JSON),
            ("x-server-protocol-version", "10"),
            ("authorization", &authorization),
            ("x-adm-auth-session", &session),
        ] {
            if name == without {
                if let Some(value) = with {
                    request = request.header(name, value);
                }
            } else if name
                != if path == "/session" {
                    "x-adm-auth-session"
                } else {
                    "authorization"
                }
            {
                request = request.header(name, value);
            }
        }
        if method == "POST" {
            request = request.body("{}");
        }
        let answer = Answer::of(request).await;
        (answer.status, answer.body)
    };
    for path in ["/session", "/account", "/devices/sync"] {
        let told = |status: u16, body: &str| (status, body.to_owned());
        let agent = "user-agent";
        assert_eq!(
            call(path, agent, None).await,
            told(400, "USER_AGENT_MISSING")
        );
        for odd in ["", " ", "(odd)", "/1.0"] {
            let answer = call(path, agent, Some(odd)).await;
            assert_eq!(answer, told(400, "USER_AGENT_INVALID"), "{odd:?}");
        }
        for wrong in [
            None,
            Some("application/json"),
            Some("application/json; charset=latin1"),
            Some("text/plain"),
        ] {
            let answer = call(path, "content-type", wrong).await;
            assert_eq!(answer.0, 415, "{path} {wrong:?}");
        }
        for right in [
            "application/json;charset=UTF8",
            "Application/JSON; Charset=utf8",
        ] {
            let answer = call(path, "content-type", Some(right)).await;
            assert_ne!(answer.0, 415, "{path} {right}");
        }
    }
    for path in ["/account", "/devices/sync"] {
        for odd in [None, Some(""), Some("ten"), Some("0"), Some("-1")] {
            let (status, body) = call(path, "x-server-protocol-version", odd).await;
            assert_eq!(
                (status, body.as_str()),
                (400, "PROTOCOL_VERSION_INVALID"),
                "{odd:?}"
            );
        }
        let (status, _) = call(path, "x-adm-auth-session", None).await;
        assert_eq!(status, 401, "{path}");
    }
    let odd = stage
        .request("GET", "/account")
        .header("accept", "text/html");
    assert_eq!(Answer::of(odd).await.status, 406);

    let lenient = stage_with(DepOptions {
        content_type_on_session: false,
        ..DepOptions::default()
    })
    .await;
    let request = lenient
        .bare("GET", "/session")
        .header("user-agent", "sim-tests/1.0")
        .header("authorization", lenient.signing().header());
    assert_eq!(Answer::of(request).await.status, 200);
}

#[tokio::test]
async fn paths_and_methods_are_known_or_refused() {
    let stage = stage().await;
    let session = stage.session().await;
    assert_eq!(
        Answer::of(stage.get("/profile", &session)).await.status,
        404
    );
    assert_eq!(
        Answer::of(stage.get("/devices", &session)).await.status,
        405
    );
    assert_eq!(
        Answer::of(stage.post("/session", &session, ""))
            .await
            .status,
        405
    );
    let request = stage.get("/account", &session).body("{}");
    assert!(Answer::of(request).await.is(400, "MALFORMED_REQUEST_BODY"));
}

#[tokio::test]
async fn t9_every_answer_carries_another_session_and_the_one_before_stays_good() {
    let stage = stage().await;
    let first = stage.session().await;
    let account = async |session: &str| Answer::of(stage.get("/account", session)).await;
    let one = account(&first).await;
    let second = one.session.clone().unwrap();
    assert_ne!(first, second);
    // As when two calls were under way at once.
    let two = account(&first).await;
    assert_eq!(two.status, 200);
    assert_eq!(account(&first).await.status, 401, "ignored twice");
    assert_eq!(account(&second).await.status, 200, "the one before");
    assert_eq!(account(&two.session.unwrap()).await.status, 200);
    let refused = account("unknown").await;
    assert!(refused.is(401, "UNAUTHORIZED"), "{refused:?}");
    assert_eq!(refused.session, None, "a refused call changes nothing");
    assert_eq!(stage.dep.sessions(), 1);
    let numbers: Vec<_> = stage
        .dep
        .journal()
        .all()
        .iter()
        .map(|call| call.session_number)
        .collect();
    assert_eq!(
        numbers,
        [Some(1), Some(1), Some(1), None, Some(1), Some(1), None]
    );
}

#[tokio::test]
async fn t9_without_rotation_the_first_session_lasts() {
    let stage = stage_with(DepOptions {
        rotation: Rotation::Never,
        ..DepOptions::default()
    })
    .await;
    let session = stage.session().await;
    for _ in 0..5 {
        let answer = Answer::of(stage.get("/account", &session)).await;
        assert_eq!((answer.status, answer.session), (200, None));
    }
    stage.dep.set_rotation(Rotation::EveryCall { old_ones: 2 });
    for status in [200, 200, 200, 401] {
        assert_eq!(
            Answer::of(stage.get("/account", &session)).await.status,
            status
        );
    }
}

#[tokio::test]
async fn a_new_session_ends_the_older_one_of_the_same_token_alone() {
    let stage = stage().await;
    let other = stage.dep.issue_token("Other Server");
    let signing = Signing {
        token: other.clone(),
        ..stage.signing()
    };
    let others = stage.ask_session(&signing.header()).await.json()["auth_session_token"].clone();
    let (first, second) = (stage.session().await, stage.session().await);
    assert_eq!(Answer::of(stage.get("/account", &first)).await.status, 401);
    assert_eq!(Answer::of(stage.get("/account", &second)).await.status, 200);
    let account = Answer::of(stage.get("/account", others.as_str().unwrap())).await;
    assert_eq!(account.json()["server_name"], "Other Server");
    let calls = stage.dep.journal().all();
    let begun: Vec<_> = calls
        .iter()
        .filter(|call| call.path == "/session")
        .collect();
    assert_eq!(
        begun
            .iter()
            .map(|call| call.session_number)
            .collect::<Vec<_>>(),
        [Some(1), Some(2), Some(3)]
    );
    assert_eq!(begun[0].token.as_deref(), Some(other.consumer_key.as_str()));
}

#[tokio::test]
async fn t6_sessions_end_by_time_and_on_demand() {
    let stage = stage_with(DepOptions {
        session_lifetime: Duration::from_secs(60),
        ..DepOptions::default()
    })
    .await;
    let session = stage.session().await;
    stage.clock.advance(59);
    let answer = Answer::of(stage.get("/account", &session)).await;
    assert_eq!(answer.status, 200);
    let session = answer.session.unwrap();
    stage.clock.advance(59);
    assert_eq!(
        Answer::of(stage.get("/account", &session)).await.status,
        200,
        "each text has its own minute"
    );
    stage.clock.advance(1);
    assert_eq!(
        Answer::of(stage.get("/account", &session)).await.status,
        401
    );

    let session = stage.session().await;
    stage.dep.expire_sessions();
    stage.dep.set_unknown_session_status(403);
    let answer = Answer::of(stage.get("/account", &session)).await;
    assert!(answer.is(403, "FORBIDDEN"), "{answer:?}");
    stage.dep.set_quoted_errors(true);
    let answer = Answer::of(stage.get("/account", &session)).await;
    assert!(answer.is(403, "\"FORBIDDEN\""), "{answer:?}");
}

#[tokio::test]
async fn t6_terms_and_rights_are_refused_with_403_wherever_they_are_asked() {
    let stage = stage().await;
    let session = stage.session().await;
    stage.dep.set_terms_signed(&stage.token, false);
    let answer = Answer::of(stage.get("/account", &session)).await;
    assert!(answer.is(403, "T_C_NOT_SIGNED"), "{answer:?}");
    let session = answer.session.unwrap();
    let answer = stage.ask_session(&stage.signing().header()).await;
    assert!(answer.is(403, "T_C_NOT_SIGNED"), "{answer:?}");
    stage.dep.set_terms_signed(&stage.token, true);
    stage.dep.set_access_denied(&stage.token, true);
    let answer = Answer::of(stage.get("/account", &session)).await;
    assert!(answer.is(403, "ACCESS_DENIED"), "{answer:?}");
    stage.dep.set_access_denied(&stage.token, false);
    stage.session().await;
}

#[tokio::test]
async fn an_account_says_whose_server_it_is() {
    let stage = stage().await;
    let session = stage.session().await;
    let account = Answer::of(stage.get("/account", &session)).await.json();
    assert_eq!(account["server_name"], "Sim Server");
    assert_eq!(account["server_uuid"], stage.token.server_uuid);
    for key in [
        "facilitator_id",
        "admin_id",
        "org_name",
        "org_email",
        "org_phone",
        "org_address",
        "org_id",
        "org_type",
    ] {
        assert!(account[key].is_string(), "{key}");
    }
    assert_eq!(
        account["urls"][1],
        json!({ "uri": "/server/devices", "http_method": ["POST"], "limit": { "default": 100, "maximum": 1000 } })
    );
}

#[tokio::test]
#[should_panic(expected = "did not issue")]
async fn a_token_of_another_service_is_a_mistake_of_the_test() {
    let (one, two) = (stage().await, stage().await);
    one.dep.expire_token(&two.token);
}

#[tokio::test]
async fn t34_no_secret_is_in_the_journal_or_in_debug() {
    let stage = stage().await;
    let hash = "AB".repeat(32);
    stage.lock(crate::support::SERIAL, &hash).await;
    let mut wrong = stage.signing();
    wrong.token.consumer_secret = "wrong".to_owned();
    stage.ask_session(&wrong.header()).await;
    stage
        .call(
            "/device/activationlock",
            &json!({ "device": "X", "escrow_key": "AB" }),
        )
        .await;
    let session = stage.session().await;
    let calls = stage.dep.journal().all();
    let written = format!(
        "{calls:?}{}{:?}",
        serde_json::to_string(&calls).unwrap(),
        stage.token
    )
    .to_lowercase();
    let token = &stage.token;
    for secret in [
        &token.consumer_secret,
        &token.access_token,
        &token.access_secret,
        &session,
        &hash,
    ] {
        assert!(
            !written.contains(&secret.to_lowercase()),
            "a secret is written down"
        );
    }
    assert!(written.contains(&sim::fingerprint(&hash)));
}
