//! Signing in by a provider of identities, through a browser and for a program; and every way in which what it says proves nothing.

use std::time::Duration;

use escrow::permit::{Permissions, Role, Scope};
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use serde_json::{Value, json};
use server::{Group, SingleSignOn};
use sim::{IdentityClaims, IdentityFault, IdentityProvider};

use crate::api::sessions::Person;
use crate::api::{Answer, Client, token_of};
use crate::support::{self, Options, Stage};

const BEGIN: &str = "/v1/sign-in/provider";
const END: &str = "/v1/sign-in/provider/session";
const SECRET: &str = "a-client-secret-in-a-test";

struct Scene {
    stage: Stage,
    provider: IdentityProvider,
    _folder: tempfile::TempDir,
}

fn zoe(groups: &[&str]) -> IdentityClaims {
    let claims = json!({
        "preferred_username": "zoe", "name": "Zoe Example", "email": "zoe@example.org",
        "groups": groups, "amr": ["pwd"],
    });
    IdentityClaims {
        subject: "00u-zoe".to_owned(),
        in_token: claims.as_object().unwrap().clone(),
        ..IdentityClaims::default()
    }
}

impl Scene {
    async fn new(change: impl FnOnce(&mut SingleSignOn)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
        let now = support::clock_of_providers();
        let provider = IdentityProvider::start(now.1, "lockwarden", Some(SECRET))
            .await
            .unwrap();
        let group = |name: &str, organisation: Option<&str>, roles: &[Role]| Group {
            name: name.to_owned(),
            organisation: organisation.map(str::to_owned),
            roles: roles.to_vec(),
        };
        let mut settings = SingleSignOn {
            issuer: provider.url().to_owned(),
            client_id: "lockwarden".to_owned(),
            client_secret_file: Some(secret),
            scopes: vec!["groups".to_owned()],
            login_claim: "preferred_username".to_owned(),
            groups_claim: "groups".to_owned(),
            methods: Vec::new(),
            groups: vec![
                group(
                    "desk",
                    Some("Example School"),
                    &[Role::Viewer, Role::Revealer],
                ),
                group("mdm-admins", None, &[Role::Admin]),
            ],
        };
        change(&mut settings);
        let stage = Stage::with(Options {
            single_sign_on: Some(settings),
            clock: Some(now.0),
            ..Options::default()
        })
        .await;
        Self {
            stage,
            provider,
            _folder: folder,
        }
    }

    fn open(&self) -> Client {
        Client::new(&self.stage, "")
    }

    /// Begins, and goes where the provider sends to: the ticket, and the page there.
    async fn go(&self) -> (String, Answer) {
        let begun = self.open().post(BEGIN, json!({})).await;
        assert_eq!(begun.status, 200, "{begun:?}");
        let begun = begun.json();
        let back = self.at_provider(begun["url"].as_str().unwrap()).await;
        let page = self.page(&back, None).await;
        (begun["ticket"].as_str().unwrap().to_owned(), page)
    }

    /// Where the provider sends a browser back to.
    async fn at_provider(&self, url: &str) -> String {
        let sent = support::client().get(url).send().await.unwrap();
        assert_eq!(sent.status(), 302);
        sent.headers()[LOCATION].to_str().unwrap().to_owned()
    }

    async fn page(&self, url: &str, cookie: Option<&str>) -> Answer {
        let path = url.strip_prefix(&self.stage.url()).unwrap();
        let client = self.open();
        let mut request = client.request(reqwest::Method::GET, path);
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, cookie);
        }
        client.send(request).await
    }

    /// The whole way, for a program.
    async fn sign_in(&self) -> Answer {
        let (ticket, page) = self.go().await;
        assert_eq!(page.status, 200);
        let body = json!({ "ticket": ticket, "answer": word(&page) });
        self.open().post(END, body).await
    }
}

/// The word that a page shows.
fn word(page: &Answer) -> String {
    let (_, rest) = page.text().split_once("<code>").unwrap();
    rest.split_once("</code>").unwrap().0.to_owned()
}

async fn me(stage: &Stage, answer: &Answer) -> Value {
    let session = answer.json()["session"].as_str().unwrap().to_owned();
    let me = Client::new(stage, &session).get("/v1/me").await;
    assert_eq!(me.status, 200, "{me:?}");
    me.json()
}

#[tokio::test]
async fn groups_give_roles_and_take_them_again() {
    let scene = Scene::new(|_| {}).await;
    scene.provider.set_person(Some(zoe(&["desk", "others"])));
    let first = scene.sign_in().await;
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(first.json()["by_provider"], true);
    let shown = me(&scene.stage, &first).await;
    assert_eq!(
        (&shown["name"], &shown["second_factor_needed"]),
        (&json!("Zoe Example"), &json!(false)),
        "how she proves herself is the provider's business"
    );
    let session = first.json()["session"].as_str().unwrap().to_owned();
    let she = Client::new(&scene.stage, &session);
    assert_eq!(she.get("/v1/devices").await.status, 200);
    assert_eq!(she.get("/v1/people").await.status, 403);

    // What a person gave by hand stays; what groups gave goes with them, for sessions of before too.
    let admin = Client::with(&scene.stage, &["admin"]).await;
    let people = admin.get("/v1/people").await.json();
    assert_eq!(people["items"][0]["provider"], scene.provider.url());
    scene.provider.set_person(Some(zoe(&["others"])));
    let second = scene.sign_in().await;
    assert_eq!(second.refusal(), (403, "not-admitted".to_owned()));
    assert_eq!(she.get("/v1/devices").await.status, 403);

    scene.provider.set_person(Some(zoe(&["mdm-admins"])));
    let third = scene.sign_in().await;
    let session = third.json()["session"].as_str().unwrap().to_owned();
    let she = Client::new(&scene.stage, &session);
    assert_eq!(she.get("/v1/people").await.status, 200);
    let reader = Permissions::of_scope("audit").unwrap();
    let reader = token_of(&scene.stage, Scope::All, reader).await;
    let reader = Client::new(&scene.stage, &reader);
    let rows = async |query: &str| {
        let found = reader.get(&format!("/v1/audit?{query}")).await.json();
        found["items"].as_array().unwrap().clone()
    };
    let refused = rows("organisation=*&action=session.begin&result=refused").await;
    assert_eq!(refused.len(), 1);
    assert_eq!(
        (&refused[0]["subject"], &refused[0]["details"]["why"]),
        (&json!("00u-zoe"), &json!("no_role"))
    );
    let place = scene.stage.organisation.as_str();
    let roles = rows(&format!("organisation={place}&action=person.roles")).await;
    assert_eq!(roles.len(), 2, "given and taken");
    assert_eq!(roles[1]["details"]["given"], "viewer revealer");
    assert_eq!(roles[0]["details"]["taken"], "revealer viewer");
}

#[tokio::test]
async fn a_browser_comes_back_signed_in_and_only_with_its_own_ticket() {
    let scene = Scene::new(|_| {}).await;
    scene.provider.set_person(Some(zoe(&["desk"])));
    let client = scene.open();
    let begin = async |site: &str| {
        let request = client
            .request(reqwest::Method::POST, BEGIN)
            .header("sec-fetch-site", site.to_owned())
            .header("content-type", "application/json");
        client.send(request.body(r#"{"cookie":true}"#)).await
    };
    assert_eq!(
        begin("cross-site").await.refusal(),
        (403, "foreign-page".to_owned())
    );
    let begun = begin("same-origin").await;
    assert_eq!(begun.json().get("ticket"), None, "no script sees it");
    let kept = begun.header(SET_COOKIE.as_str()).unwrap().to_owned();
    for part in [
        "__Host-lockwarden-ticket=",
        "Secure",
        "HttpOnly",
        "SameSite=Lax",
    ] {
        assert!(kept.contains(part), "{part}");
    }
    let cookie = kept.split(';').next().unwrap().to_owned();
    let url = begun.json()["url"].as_str().unwrap().to_owned();
    let other = begin("same-origin").await.json()["url"]
        .as_str()
        .unwrap()
        .to_owned();
    let back_of_another = scene.at_provider(&other).await;
    let mixed = scene.page(&back_of_another, Some(&cookie)).await;
    assert_eq!(mixed.status, 401, "another's answer");
    assert!(
        !mixed
            .header(SET_COOKIE.as_str())
            .unwrap()
            .contains("lw_session_")
    );
    let back = scene.at_provider(&url).await;
    let page = scene.page(&back, Some(&cookie)).await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("You are signed in"));
    let session = page.header(SET_COOKIE.as_str()).unwrap();
    assert!(
        session.starts_with("__Host-lockwarden=lw_session_") && session.contains("SameSite=Strict")
    );
    let again = scene.page(&back, Some(&cookie)).await;
    assert_eq!(again.status, 401, "a code is taken once");
}

#[tokio::test]
async fn what_proves_nothing_lets_nobody_in() {
    let scene = Scene::new(|_| {}).await;
    scene.provider.set_person(Some(zoe(&["desk"])));
    for fault in [
        IdentityFault::OtherNonce,
        IdentityFault::OtherAudience,
        IdentityFault::OtherIssuer,
        IdentityFault::Expired,
        IdentityFault::Unsigned,
        IdentityFault::OtherKey,
        IdentityFault::SharedSecret,
        IdentityFault::OtherAccessToken,
        IdentityFault::Missing,
    ] {
        scene.provider.push_fault(fault);
        let refused = scene.sign_in().await;
        assert_eq!(
            refused.refusal(),
            (401, "sign-in-over".to_owned()),
            "{fault:?}"
        );
    }
    assert_eq!(scene.sign_in().await.status, 201);
    scene.provider.rotate_key();
    assert_eq!(
        scene.sign_in().await.status,
        201,
        "its keys are read each time"
    );

    let (ticket, page) = scene.go().await;
    let right = word(&page);
    let (other, _) = scene.go().await;
    for (ticket, answer) in [
        (other.as_str(), right.as_str()),
        (ticket.as_str(), "YWJj"),
        ("not-a-ticket", right.as_str()),
    ] {
        let refused = scene
            .open()
            .post(END, json!({ "ticket": ticket, "answer": answer }))
            .await;
        assert_eq!(refused.refusal(), (401, "sign-in-over".to_owned()));
    }
    scene.stage.clock.advance(Duration::from_secs(601));
    let late = scene
        .open()
        .post(END, json!({ "ticket": ticket, "answer": right }))
        .await;
    assert_eq!(late.refusal(), (401, "sign-in-over".to_owned()));

    scene.provider.set_person(None);
    let (_, page) = scene.go().await;
    assert_eq!(page.status, 401);
    assert!(page.text().contains("access_denied"));
}

#[tokio::test]
async fn nobody_becomes_somebody_else_by_their_name_and_who_was_shut_out_stays_out() {
    let scene = Scene::new(|_| {}).await;
    let _own = Person::settled(&scene.stage, "zoe", &[Role::Admin]).await;
    scene.provider.set_person(Some(zoe(&["desk"])));
    let refused = scene.sign_in().await;
    assert_eq!(refused.refusal(), (403, "not-admitted".to_owned()));
    assert!(
        refused.json()["detail"]
            .to_string()
            .contains("another person")
    );

    let mut max = zoe(&["desk"]);
    max.subject = "00u-max".to_owned();
    max.in_token["preferred_username"] = json!("max");
    scene.provider.set_person(Some(max.clone()));
    let first = scene.sign_in().await;
    assert_eq!(first.status, 201);
    let admin = Client::with(&scene.stage, &["admin"]).await;
    let shut = admin
        .patch("/v1/people/max", json!({ "disabled": true }))
        .await;
    assert_eq!(shut.status, 200, "{shut:?}");
    assert_eq!(
        scene.sign_in().await.refusal(),
        (403, "not-admitted".to_owned())
    );
    // Another name there is still the same person here.
    max.in_token["preferred_username"] = json!("max2");
    scene.provider.set_person(Some(max));
    assert_eq!(
        scene.sign_in().await.refusal(),
        (403, "not-admitted".to_owned())
    );
    let password = json!({ "login": "max", "password": "" });
    assert_eq!(
        scene.open().post("/v1/sign-in", password).await.status,
        401,
        "there is no password beside"
    );
}

#[tokio::test]
async fn groups_may_stand_in_userinfo_and_a_second_factor_may_be_asked_for() {
    let scene = Scene::new(|settings| settings.methods = vec!["mfa".to_owned()]).await;
    let mut person = zoe(&[]);
    person.in_token.remove("groups");
    person
        .in_userinfo
        .insert("groups".to_owned(), json!("desk"));
    scene.provider.set_person(Some(person.clone()));
    let weak = scene.sign_in().await;
    assert_eq!(weak.refusal(), (403, "not-admitted".to_owned()));
    person.in_token["amr"] = json!(["pwd", "mfa"]);
    scene.provider.set_person(Some(person));
    assert_eq!(scene.sign_in().await.status, 201);
}

#[tokio::test]
async fn without_a_provider_there_is_no_single_sign_on_and_one_that_is_away_says_so() {
    let stage = Stage::new().await;
    let open = Client::new(&stage, "");
    assert_eq!(
        open.post(BEGIN, json!({})).await.refusal(),
        (404, "no-single-sign-on".to_owned())
    );
    let scene = Scene::new(|settings| settings.issuer = "http://127.0.0.1:9".to_owned()).await;
    assert_eq!(
        scene.open().post(BEGIN, json!({})).await.refusal(),
        (503, "provider-unusable".to_owned())
    );
}
