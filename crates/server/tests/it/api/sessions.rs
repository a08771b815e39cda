//! People through the API: invited, signed in, with a browser's cookie and without, shut out.

use std::time::Duration;

use activation_lock::time::Timestamp;
use escrow::permit::{Role, Scope};
use reqwest::Method;
use seal::TotpSecret;
use serde_json::{Value, json};

use crate::api::{Answer, Client};
use crate::support::Stage;

pub(crate) const PASSWORD: &str = "correct horse battery";
const OTHER: &str = "staple of another kind";

/// Somebody who has set a password and a second factor, with their app.
pub(crate) struct Person {
    login: String,
    app: TotpSecret,
}

pub(crate) fn app_of(secret: &str) -> TotpSecret {
    let bytes = data_encoding::BASE32_NOPAD
        .decode(secret.as_bytes())
        .unwrap();
    TotpSecret::from_bytes(&bytes).unwrap()
}

pub(crate) fn code(app: &TotpSecret, stage: &Stage) -> String {
    use escrow::clock::Clock as _;
    let Timestamp(now) = stage.clock.now();
    app.code_at(now / 1000).as_str().to_owned()
}

async fn sign_in(stage: &Stage, login: &str, password: &str, code: Option<&str>) -> Answer {
    let body = json!({ "login": login, "password": password, "code": code });
    Client::new(stage, "").post("/v1/sign-in", body).await
}

fn text(answer: &Answer, field: &str) -> String {
    answer.json()[field]
        .as_str()
        .unwrap_or_else(|| panic!("{answer:?}"))
        .to_owned()
}

impl Person {
    /// Invited by a token, and settled by their own doing; with these roles in the stage's organisation.
    pub(crate) async fn settled(stage: &Stage, login: &str, roles: &[Role]) -> Self {
        let admin = Client::with(stage, &["admin"]).await;
        let answer = admin
            .post(
                "/v1/people",
                json!({ "login": login, "name": format!("{login} by name") }),
            )
            .await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let taken = json!({ "invitation": text(&answer, "invitation"), "password": PASSWORD });
        let open = Client::new(stage, "");
        assert_eq!(open.post("/v1/invitations", taken).await.status, 204);
        let answer = sign_in(stage, login, PASSWORD, None).await;
        let fresh = Client::new(stage, &text(&answer, "session"));
        let answer = fresh
            .post("/v1/me/second-factor", json!({ "password": PASSWORD }))
            .await;
        let app = app_of(&text(&answer, "secret"));
        let confirmed = fresh
            .put("/v1/me/second-factor", json!({ "code": code(&app, stage) }))
            .await;
        assert_eq!(confirmed.status, 204);
        assert_eq!(fresh.post("/v1/sign-out", json!({})).await.status, 204);
        let person = Self {
            login: login.to_owned(),
            app,
        };
        person.roles(stage, roles).await;
        person
    }

    /// Gives them these roles in the stage's organisation, in place of others.
    pub(crate) async fn roles(&self, stage: &Stage, roles: &[Role]) {
        let people = stage.escrow().people();
        let permit = stage.permit("people").await;
        let id = people.find(&permit, &self.login).await.unwrap().unwrap().id;
        let scope = Scope::One(stage.organisation.clone());
        people
            .set_roles(&permit, &id, &scope, roles)
            .await
            .unwrap()
            .unwrap();
    }

    /// Signs in, with a code that was not used yet.
    pub(crate) async fn client(&self, stage: &Stage) -> Client {
        Client::new(stage, &self.session(stage).await)
    }

    /// A code of their app that was not used yet.
    pub(crate) fn code(&self, stage: &Stage) -> String {
        stage.clock.advance(Duration::from_secs(30));
        code(&self.app, stage)
    }

    async fn session(&self, stage: &Stage) -> String {
        let code = self.code(stage);
        let answer = sign_in(stage, &self.login, PASSWORD, Some(&code)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        text(&answer, "session")
    }
}

#[tokio::test]
async fn a_person_is_invited_and_signs_in() {
    let stage = Stage::new().await;
    let admin = Client::with(&stage, &["admin"]).await;
    let body = json!({ "login": "Zoe", "name": "Zoe Example", "email": "zoe@example.org" });
    let made = admin.post("/v1/people", body.clone()).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.header("cache-control"), Some("no-store"));
    assert_eq!(
        admin.post("/v1/people", body).await.refusal(),
        (409, "login-taken".to_owned())
    );
    let invitation = text(&made, "invitation");
    assert!(invitation.starts_with("lw_invite_"));
    assert_eq!(made.json()["login"], "zoe");
    assert!(!admin.get("/v1/people").await.text().contains(&invitation));

    let open = Client::new(&stage, "");
    let short = json!({ "invitation": invitation, "password": "short" });
    assert_eq!(
        open.post("/v1/invitations", short).await.refusal(),
        (400, "password-refused".to_owned())
    );
    let taken = json!({ "invitation": invitation, "password": PASSWORD });
    assert_eq!(
        open.post("/v1/invitations", taken.clone()).await.status,
        204
    );
    assert_eq!(
        open.post("/v1/invitations", taken).await.refusal(),
        (401, "invitation-refused".to_owned())
    );

    let begun = sign_in(&stage, "zoe", PASSWORD, None).await;
    let zoe = Client::new(&stage, &text(&begun, "session"));
    let me = zoe.get("/v1/me").await.json();
    assert_eq!(
        (&me["kind"], &me["name"]),
        (&json!("person"), &json!("Zoe Example"))
    );
    assert_eq!(
        (&me["second_factor_needed"], &me["permissions"]),
        (&json!(true), &json!([]))
    );
    assert_eq!(
        zoe.get("/v1/devices").await.refusal(),
        (403, "second-factor-needed".to_owned())
    );
    let wrong = zoe
        .post("/v1/me/second-factor", json!({ "password": OTHER }))
        .await;
    assert_eq!(wrong.refusal(), (403, "wrong-proof".to_owned()));
    let made = zoe
        .post("/v1/me/second-factor", json!({ "password": PASSWORD }))
        .await;
    let app = app_of(&text(&made, "secret"));
    assert!(text(&made, "address").starts_with("otpauth://totp/Lockwarden:"));
    let confirmed = zoe
        .put(
            "/v1/me/second-factor",
            json!({ "code": code(&app, &stage) }),
        )
        .await;
    assert_eq!(confirmed.status, 204);
    let told = zoe.get("/v1/devices").await;
    assert_eq!(told.refusal(), (403, "forbidden".to_owned()));
    assert!(told.text().contains("no role"), "{told:?}");

    let roles = json!({ "roles": ["viewer"] });
    let given = admin.put("/v1/people/zoe/roles", roles).await.json();
    assert_eq!(given["roles"][0]["role"], "viewer");
    assert_eq!(zoe.get("/v1/devices").await.status, 200, "at once");
    let unknown = admin
        .put("/v1/people/zoe/roles", json!({ "roles": ["root"] }))
        .await;
    assert_eq!(unknown.refusal(), (400, "bad-request".to_owned()));

    let sessions = zoe.get("/v1/sessions").await.json();
    assert_eq!(sessions["items"][0]["live"], true);
    let theirs = admin.get("/v1/people/zoe/sessions").await.json();
    assert_eq!(theirs["items"], sessions["items"]);
    assert_eq!(admin.delete("/v1/people/zoe/sessions").await.status, 204);
    assert_eq!(
        zoe.get("/v1/me").await.refusal(),
        (401, "unauthenticated".to_owned())
    );
}

#[tokio::test]
async fn a_wrong_name_and_a_wrong_password_look_the_same_and_have_to_wait() {
    let stage = Stage::new().await;
    Person::settled(&stage, "zoe", &[Role::Viewer]).await;
    let mut answers = Vec::new();
    for login in ["zoe", "nobody"] {
        for _ in 0..5 {
            let answer = sign_in(&stage, login, OTHER, Some("123456")).await;
            assert_eq!(answer.refusal(), (401, "sign-in-refused".to_owned()));
            answers.push(answer.text().to_owned());
        }
        let answer = sign_in(&stage, login, OTHER, None).await;
        assert_eq!(answer.refusal(), (429, "too-many-tries".to_owned()));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
}

/// A browser, with its cookie and what it says of the page that asks.
async fn browse(
    stage: &Stage,
    method: Method,
    path: &str,
    cookie: &str,
    says: &[(&str, &str)],
) -> Answer {
    let client = Client::new(stage, "");
    let mut request = client
        .request(method, path)
        .header("cookie", format!("a=b; {cookie}"));
    for (name, value) in says {
        request = request.header(*name, *value);
    }
    client.send(request).await
}

#[tokio::test]
async fn a_browser_keeps_its_session_in_a_cookie_that_no_other_site_can_use() {
    let stage = Stage::new().await;
    let zoe = Person::settled(&stage, "zoe", &[Role::Viewer]).await;
    stage.clock.advance(Duration::from_secs(30));
    let body = |code: String| {
        json!({ "login": "zoe", "password": PASSWORD, "code": code, "cookie": true }).to_string()
    };
    let open = Client::new(&stage, "");
    let ask = |says: (&'static str, &'static str)| {
        let request = open
            .request(Method::POST, "/v1/sign-in")
            .header("content-type", "application/json");
        request
            .header(says.0, says.1)
            .body(body(code(&zoe.app, &stage)))
    };
    let foreign = open.send(ask(("sec-fetch-site", "cross-site"))).await;
    assert_eq!(
        foreign.refusal(),
        (403, "foreign-page".to_owned()),
        "nobody is signed in for another site"
    );
    let answer = open.send(ask(("sec-fetch-site", "same-origin"))).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json().get("session"), None);
    let set = answer.header("set-cookie").unwrap();
    for part in [
        "__Host-lockwarden=lw_session_",
        "; Secure",
        "; HttpOnly",
        "; SameSite=Strict",
        "; Path=/",
    ] {
        assert!(set.contains(part), "{part}");
    }
    let cookie = set.split(';').next().unwrap();

    let seen = browse(&stage, Method::GET, "/v1/devices", cookie, &[]).await;
    assert_eq!(seen.status, 200);
    let own = format!("http://{}", stage.url().strip_prefix("http://").unwrap());
    let foreign: [&[(&str, &str)]; 6] = [
        &[],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "cross-site"), ("origin", &own)],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
    ];
    for says in foreign {
        let answer = browse(&stage, Method::POST, "/v1/sign-out", cookie, says).await;
        assert_eq!(
            answer.refusal(),
            (403, "foreign-page".to_owned()),
            "{says:?}"
        );
    }
    assert_eq!(
        browse(&stage, Method::GET, "/v1/me", cookie, &[])
            .await
            .status,
        200
    );
    let out = browse(
        &stage,
        Method::POST,
        "/v1/sign-out",
        cookie,
        &[("origin", &own)],
    )
    .await;
    assert_eq!(out.status, 204);
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    let after = browse(&stage, Method::GET, "/v1/me", cookie, &[]).await;
    assert_eq!(after.refusal(), (401, "unauthenticated".to_owned()));
}

#[tokio::test]
async fn a_token_of_a_person_ends_with_them() {
    let stage = Stage::new().await;
    let zoe = Person::settled(&stage, "zoe", &[Role::Admin]).await;
    let client = zoe.client(&stage).await;
    let made = client
        .post(
            "/v1/tokens",
            json!({ "name": "hers", "scopes": ["read", "admin"] }),
        )
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    assert!(made.json()["owner"].is_string());
    let beyond = client
        .post(
            "/v1/tokens",
            json!({ "name": "hers", "scopes": ["reveal"] }),
        )
        .await;
    assert_eq!(
        beyond.refusal(),
        (403, "forbidden".to_owned()),
        "nobody gives away what they do not have"
    );
    let program = Client::new(&stage, &text(&made, "token"));
    assert_eq!(program.get("/v1/people").await.status, 200);
    let admin = Client::with(&stage, &["admin"]).await;
    let out = admin
        .patch("/v1/people/zoe", json!({ "disabled": true }))
        .await;
    assert!(out.json()["disabled_at"].is_string());
    for client in [&program, &client] {
        assert_eq!(
            client.get("/v1/me").await.refusal(),
            (401, "unauthenticated".to_owned())
        );
    }
}

#[tokio::test]
async fn a_person_changes_their_password() {
    let stage = Stage::new().await;
    let zoe = Person::settled(&stage, "zoe", &[Role::Viewer]).await;
    let (here, elsewhere) = (zoe.client(&stage).await, zoe.client(&stage).await);
    let change = |old: &str, new: &str| json!({ "old": old, "new": new });
    let wrong = here.put("/v1/me/password", change(OTHER, OTHER)).await;
    assert_eq!(wrong.refusal(), (403, "wrong-proof".to_owned()));
    let short = here.put("/v1/me/password", change(PASSWORD, "short")).await;
    assert_eq!(short.refusal(), (400, "password-refused".to_owned()));
    assert_eq!(
        here.put("/v1/me/password", change(PASSWORD, OTHER))
            .await
            .status,
        204
    );
    assert_eq!(here.get("/v1/me").await.status, 200);
    assert_eq!(elsewhere.get("/v1/me").await.status, 401);
    stage.clock.advance(Duration::from_secs(30));
    let code = code(&zoe.app, &stage);
    let old = sign_in(&stage, "zoe", PASSWORD, Some(&code)).await;
    assert_eq!(old.refusal(), (401, "sign-in-refused".to_owned()));
    assert_eq!(sign_in(&stage, "zoe", OTHER, Some(&code)).await.status, 201);
}

#[tokio::test]
async fn r23_no_secret_of_a_person_is_in_the_audit_record_or_a_list() {
    let stage = Stage::new().await;
    let zoe = Person::settled(&stage, "zoe", &[Role::Viewer]).await;
    let session = zoe.session(&stage).await;
    let admin = Client::with(&stage, &["admin"]).await;
    sign_in(&stage, "zoe", OTHER, Some("123456")).await;
    // A password that was typed where the name belongs.
    sign_in(&stage, OTHER, "x", None).await;
    let reset = admin.post("/v1/people/zoe/reset", Value::Null).await;
    assert_eq!(reset.status, 201);
    let token = crate::api::token_of(&stage, Scope::All, escrow::permit::Permissions::all()).await;
    let all = Client::new(&stage, &token);
    let secret = zoe.app.text();
    for path in [
        "/v1/audit?organisation=*&limit=500",
        "/v1/audit?limit=500",
        "/v1/people",
        "/v1/people/zoe/sessions",
    ] {
        let told = all.get(path).await;
        assert_eq!(told.status, 200, "{path}");
        for secret in [
            PASSWORD,
            OTHER,
            "123456",
            &session,
            secret.as_str(),
            &text(&reset, "invitation"),
        ] {
            assert!(!told.text().contains(secret), "a secret is in {path}");
        }
    }
    let mut actions = Vec::new();
    for path in ["/v1/audit?organisation=*&limit=500", "/v1/audit?limit=500"] {
        let rows = all.get(path).await.json();
        let rows = rows["items"].as_array().unwrap().iter();
        actions.extend(rows.map(|row| row["action"].as_str().unwrap().to_owned()));
    }
    for action in [
        "person.reset",
        "session.begin",
        "credentials.accept",
        "credentials.second_factor",
    ] {
        assert!(
            actions.iter().any(|one| one == action),
            "{action}: {actions:?}"
        );
    }
}
