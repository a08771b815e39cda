//! The console, as a browser without scripts uses it: pages, forms, and what is refused.

mod bulk;
mod manage;

use std::time::Duration;

use activation_lock::codes::Form;
use escrow::permit::Role;
use reqwest::header::HeaderMap;
use sim::{Device, Kind};

use crate::api::sessions::{PASSWORD, Person, app_of, code};
use crate::api::{Client, another_organisation};
use crate::support::{self, Stage};

/// A browser that has signed in, or not.
struct Browser {
    http: reqwest::Client,
    base: String,
    cookie: String,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    html: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Where it leads.
    fn place(&self) -> &str {
        assert_eq!(self.status, 303, "{}", self.html);
        self.header("location")
    }
}

impl Browser {
    fn new(stage: &Stage) -> Self {
        Self {
            http: support::client(),
            base: stage.url(),
            cookie: "a=b".to_owned(),
        }
    }

    async fn of(stage: &Stage, person: &Person, login: &str) -> Self {
        let mut browser = Self::new(stage);
        let code = person.code(stage);
        let fields = [("login", login), ("password", PASSWORD), ("code", &*code)];
        let answer = browser.submit("/sign-in", &fields).await;
        assert_eq!(answer.place(), "/");
        browser.keep(&answer);
        browser
    }

    fn keep(&mut self, answer: &Answer) {
        let set = answer.header("set-cookie");
        self.cookie = set.split(';').next().unwrap().to_owned();
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let request = request
            .header("cookie", &self.cookie)
            .header("accept", "text/html");
        let response = request.send().await.unwrap();
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            html: response.text().await.unwrap(),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(self.http.get(format!("{}{path}", self.base)))
            .await
    }

    async fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.submit_from("same-origin", path, fields).await
    }

    async fn submit_from(&self, site: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let request = self
            .http
            .post(format!("{}{path}", self.base))
            .header("sec-fetch-site", site)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        self.send(request).await
    }
}

/// An iPhone whose code is held.
async fn enrolled(stage: &Stage, serial: &str) -> Device {
    stage.enrolled(serial, Kind::IphoneDualSim).await
}

#[tokio::test]
async fn who_has_not_signed_in_does_so_and_is_then_where_they_wanted_to_be() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "zoe", &[Role::Viewer]).await;
    let mut browser = Browser::new(&stage);
    let answer = browser.get("/devices?search=a%26b").await;
    assert_eq!(
        answer.place(),
        "/sign-in?next=%2Fdevices%3Fsearch%3Da%2526b"
    );
    let page = browser.get(answer.place()).await;
    assert_eq!(page.status, 200);
    assert!(
        page.html.contains(r#"value="/devices?search=a%26b""#),
        "{}",
        page.html
    );
    let wrong = [
        ("login", "zoe"),
        ("password", "wrong <b>"),
        ("next", "/devices"),
    ];
    let answer = browser.submit("/sign-in", &wrong).await;
    assert_eq!((answer.status, answer.header("set-cookie")), (401, ""));
    assert!(answer.html.contains("is wrong") && answer.html.contains(r#"value="zoe""#));
    assert!(
        !answer.html.contains("wrong &lt;b"),
        "a password never comes back"
    );
    let code = person.code(&stage);
    let mut right = vec![("login", "zoe"), ("password", PASSWORD), ("code", &*code)];
    right.push(("next", "//evil.example"));
    let elsewhere = browser.submit_from("cross-site", "/sign-in", &right).await;
    assert_eq!(elsewhere.status, 403);
    let answer = browser.submit("/sign-in", &right).await;
    assert_eq!(answer.place(), "/", "nobody is led elsewhere");
    browser.keep(&answer);
    let page = browser.get("/devices").await;
    assert_eq!(page.status, 200);
    assert!(page.html.contains("No device is known yet"));
    assert_eq!(browser.submit("/sign-out", &[]).await.place(), "/sign-in");
    assert_eq!(
        browser.get("/devices").await.place(),
        "/sign-in?next=%2Fdevices"
    );
}

#[tokio::test]
async fn a_second_factor_comes_before_anything_else() {
    let stage = Stage::new().await;
    let admin = Client::with(&stage, &["admin"]).await;
    let body = serde_json::json!({ "login": "yan", "name": "Yan" });
    let made = admin.post("/v1/people", body).await.json();
    let taken = serde_json::json!({ "invitation": made["invitation"], "password": PASSWORD });
    let open = Client::new(&stage, "");
    assert_eq!(open.post("/v1/invitations", taken).await.status, 204);
    let mut browser = Browser::new(&stage);
    let fields = [("login", "yan"), ("password", PASSWORD)];
    let answer = browser.submit("/sign-in", &fields).await;
    browser.keep(&answer);
    assert_eq!(browser.get("/devices").await.place(), "/second-factor");
    assert!(
        browser
            .get("/second-factor")
            .await
            .html
            .contains("is needed here")
    );
    let wrong = browser
        .submit("/second-factor", &[("password", "wrong")])
        .await;
    assert_eq!(wrong.status, 403);
    let made = browser
        .submit("/second-factor", &[("password", PASSWORD)])
        .await;
    assert_eq!(
        (made.status, made.header("cache-control")),
        (200, "no-store")
    );
    let (_, rest) = made.html.split_once(r#"<code class="code">"#).unwrap();
    let secret = rest.split_once('<').unwrap().0;
    let digits = code(&app_of(secret), &stage);
    let confirmed = browser
        .submit("/second-factor/confirm", &[("code", &digits)])
        .await;
    assert_eq!(confirmed.place(), "/");
    assert_ne!(browser.get("/").await.status, 303);
}

#[tokio::test]
async fn a_page_loads_what_comes_from_here_and_nothing_stands_in_it() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "zoe", Role::OF_THE_FIRST).await;
    enrolled(&stage, "SIMPHONE0001").await;
    let browser = Browser::of(&stage, &person, "zoe").await;
    let device = "/devices/SIMPHONE0001";
    let pages = [
        "/sign-in",
        "/",
        "/devices",
        "/approvals",
        "/sessions",
        "/audit",
        "/connections",
        "/connections/mdm/new",
        "/people",
        "/tokens",
        "/policies",
        "/batches",
        "/batches/new",
        "/join",
        "/system",
        "/second-factor",
        device,
        "/devices/NOTHERE0001",
    ];
    let asks = ["unlock", "reveal", "lock"].map(|doing| format!("{device}/{doing}"));
    for path in pages.into_iter().chain(asks.iter().map(String::as_str)) {
        let page = browser.get(path).await;
        let policy = page.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'self';") && !policy.contains("unsafe"),
            "{path}: {policy}"
        );
        assert!(policy.contains("frame-ancestors 'none'"));
        assert_eq!(page.header("x-frame-options"), "DENY");
        assert_eq!(page.header("cache-control"), "no-store");
        let html = page.html.to_lowercase();
        for inline in [
            "<style",
            " style=",
            "<script>",
            "javascript:",
            " onclick",
            " onload",
            "=\"http",
            "=\"//",
        ] {
            assert!(!html.contains(inline), "{path} has {inline}");
        }
        for part in html.split("=\"/assets/").skip(1) {
            let name = part.split_once('"').unwrap().0;
            let asset = browser.get(&format!("/assets/{name}")).await;
            assert_eq!(asset.status, 200, "{name}");
            assert!(asset.header("cache-control").contains("immutable"));
        }
        assert_eq!(html.split("=\"/assets/").count(), 5, "{path}");
    }
    assert_eq!(browser.get("/devices/NOTHERE0001").await.status, 404);
    assert_eq!(browser.get("/nowhere").await.status, 404);
    assert_eq!(browser.get("/assets/nothing.js").await.status, 404);
}

/// Every form that changes something, with fields that would do.
const FORMS: [(&str, &[(&str, &str)]); 23] = [
    ("/devices/SIMPHONE0001/refresh", &[]),
    (
        "/devices/SIMPHONE0001/product-type",
        &[("product_type", "iPhone15,2")],
    ),
    ("/devices/SIMPHONE0001/unlock", &[("reason", "a ticket")]),
    ("/devices/SIMPHONE0001/reveal", &[("reason", "a ticket")]),
    ("/devices/SIMPHONE0001/lock", &[("reason", "a ticket")]),
    (
        "/batches",
        &[
            ("action", "unlock"),
            ("serials", "SIMPHONE0001"),
            ("reason", "a ticket"),
        ],
    ),
    ("/connections/mdm/test", &[]),
    ("/people", &[("login", "new"), ("name", "New")]),
    ("/people/zoe/roles", &[("admin", "yes")]),
    ("/people/zoe/shut-out", &[("say", "out")]),
    (
        "/connections/mdm",
        &[
            ("kind", "nanomdm"),
            ("name", "new"),
            ("base_url", "https://mdm.example.org"),
            ("api_key", "key"),
        ],
    ),
    ("/audit/verify", &[]),
    ("/connections/certificate", &[("certificate", "none")]),
    ("/tokens", &[("name", "a program"), ("read", "yes")]),
    ("/tokens/01890000-0000-7000-8000-000000000000/revoke", &[]),
    (
        "/policies/reveal",
        &[("people", "0"), ("hours", "24"), ("minutes", "60")],
    ),
    ("/policies/quotas", &[("reveals", "9"), ("unlocks", "9")]),
    ("/keys/rotate", &[]),
    ("/locks/01890000-0000-7000-8000-000000000000/cancel", &[]),
    ("/locks/01890000-0000-7000-8000-000000000000/resume", &[]),
    (
        "/approvals/01890000-0000-7000-8000-000000000000",
        &[("say", "yes")],
    ),
    ("/unlocks/01890000-0000-7000-8000-000000000000/cancel", &[]),
    ("/unlocks/01890000-0000-7000-8000-000000000000/resume", &[]),
];

#[tokio::test]
async fn who_may_only_look_has_no_control_and_a_forged_form_is_refused() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "vera", &[Role::Viewer]).await;
    let phone = enrolled(&stage, "SIMPHONE0001").await;
    let browser = Browser::of(&stage, &person, "vera").await;
    let page = browser.get("/devices/SIMPHONE0001").await;
    assert_eq!(page.status, 200);
    // Batches can be looked at by whoever may look.
    let shown = page.html.replace(r#"<a href="/batches">"#, "");
    for (form, _) in FORMS {
        assert!(!shown.contains(form), "{form}");
    }
    for (form, fields) in FORMS {
        let answer = browser.submit(form, fields).await;
        assert_eq!(answer.status, 403, "{form}");
        assert!(!answer.html.contains(&*phone.code_text()));
    }
}

#[tokio::test]
async fn a_form_on_a_page_of_another_site_does_nothing() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "zoe", Role::OF_THE_FIRST).await;
    let phone = enrolled(&stage, "SIMPHONE0001").await;
    let browser = Browser::of(&stage, &person, "zoe").await;
    for (form, fields) in FORMS.into_iter().chain([("/sign-out", &[][..])]) {
        let answer = browser.submit_from("cross-site", form, fields).await;
        assert_eq!(answer.status, 403, "{form}");
        assert!(!answer.html.contains(&*phone.code_text()));
    }
    assert_eq!(browser.get("/devices").await.status, 200, "still signed in");
}

#[tokio::test]
async fn a_code_is_shown_with_a_reason_and_on_no_other_page() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "zoe", Role::OF_THE_FIRST).await;
    let phone = enrolled(&stage, "SIMPHONE0001").await;
    let held = stage.codes("SIMPHONE0001").await;
    assert_eq!(held.len(), 1);
    let text = phone.code_text();
    let dashed = activation_lock::codes::CodeText::new(text.to_string())
        .unwrap()
        .in_form(Form::Canonical);
    let browser = Browser::of(&stage, &person, "zoe").await;
    let page = browser.get("/devices/SIMPHONE0001").await;
    assert!(page.html.contains("/devices/SIMPHONE0001/reveal"));
    assert!(!page.html.contains(&*dashed) && !page.html.contains(&*text));
    let reveal = "/devices/SIMPHONE0001/reveal";
    let blank = browser.submit(reveal, &[("reason", "  ")]).await;
    assert_eq!(blank.status, 400);
    assert!(blank.html.contains("The reason is blank") && !blank.html.contains(&*dashed));
    let shown = browser.submit(reveal, &[("reason", "ticket 7")]).await;
    assert_eq!(
        (shown.status, shown.header("cache-control")),
        (200, "no-store")
    );
    assert!(shown.html.contains(&*dashed));
    assert!(shown.html.contains("leave the user name empty"));
    assert_eq!(shown.header("refresh"), "120; url=/devices/SIMPHONE0001");
    let page = browser.get("/devices/SIMPHONE0001").await;
    assert!(page.html.contains("Shown to zoe by name") && !page.html.contains(&*dashed));
}

#[tokio::test]
async fn a_lock_is_turned_off_by_a_form_and_the_page_says_what_came_of_it() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "zoe", Role::OF_THE_FIRST).await;
    let phone = enrolled(&stage, "SIMPHONE0001").await;
    phone.lock_with_own_code().unwrap();
    let browser = Browser::of(&stage, &person, "zoe").await;
    let unlock = "/devices/SIMPHONE0001/unlock";
    let ask = browser.get(unlock).await;
    assert!(ask.html.contains("Made by the device"));
    let fields = [("reason", "ticket <7>"), ("insist", "yes")];
    let asked = browser.submit(unlock, &fields).await;
    let place = asked.place().to_owned();
    stage
        .until("the unlock to end", async || {
            !browser.get(&place).await.html.contains("hx-trigger")
        })
        .await;
    let ended = browser.get(&place).await;
    assert!(ended.html.contains("Apple accepted a code."));
    assert!(ended.html.contains("ticket &#60;7&#62;") && !ended.html.contains("<7>"));
    assert_eq!(stage.apple.lock_state("SIMPHONE0001"), None);
    let gone = browser
        .get("/unlocks/01890000-0000-7000-8000-000000000000")
        .await;
    assert_eq!(gone.status, 404);
}

#[tokio::test]
async fn devices_are_found_filtered_and_paged_by_links_alone() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "zoe", &[Role::Viewer]).await;
    let admin = Client::with(&stage, &["admin", "reveal"]).await;
    for number in 0..60 {
        let path = format!("/v1/devices/PAGED{number:04}");
        let set = serde_json::json!({ "product_type": "iPad4,1" });
        assert_eq!(admin.patch(&path, set).await.status, 200);
    }
    let browser = Browser::of(&stage, &person, "zoe").await;
    let rows = |page: &Answer| page.html.matches("class=\"serial\"").count();
    let first = browser.get("/devices").await;
    assert_eq!(rows(&first), 50);
    let (_, rest) = first.html.split_once(r#"rel="next" href=""#).unwrap();
    let next = rest.split_once('"').unwrap().0.replace("&#38;", "&");
    let second = browser.get(&next).await;
    assert_eq!(rows(&second), 10);
    assert!(!second.html.contains("rel=\"next\""));
    assert_eq!(rows(&browser.get("/devices?search=paged0007").await), 1);
    assert_eq!(rows(&browser.get("/devices?coverage=covered").await), 0);
    let none = browser.get("/devices?search=%3Cscript%3E").await;
    assert!(none.html.contains("No device fits") && !none.html.contains("<script>"));
}

#[tokio::test]
async fn who_belongs_to_several_organisations_says_which() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "zoe", &[Role::Viewer]).await;
    let other = another_organisation(&stage, "A & B").await;
    let browser = Browser::of(&stage, &person, "zoe").await;
    let mine = browser.get("/devices").await;
    assert!(
        !mine.html.contains("A &#38; B"),
        "of one organisation, one knows of no other"
    );
    let people = stage.escrow().people();
    let permit = stage.permit("people").await;
    let id = people.find(&permit, "zoe").await.unwrap().unwrap().id;
    let scope = escrow::permit::Scope::One(other);
    people
        .set_roles(&permit, &id, &scope, &[Role::Viewer])
        .await
        .unwrap()
        .unwrap();
    let asked = browser.get("/devices").await;
    assert_eq!(asked.status, 409);
    assert!(
        asked.html.contains("?organisation=A%20%26%20B"),
        "{}",
        asked.html
    );
    let page = browser.get("/devices?organisation=A%20%26%20B").await;
    assert_eq!(page.status, 200);
    assert!(page.html.contains(r#"href="/?organisation=A%20%26%20B""#));
    assert!(page.html.contains("Switch to "));
}

#[tokio::test]
async fn what_takes_another_person_is_asked_for_approved_and_done_once() {
    let stage = Stage::new().await;
    let desk = Person::settled(&stage, "desk", &[Role::Revealer, Role::Operator]).await;
    let ann = Person::settled(&stage, "ann", &[Role::Approver]).await;
    let phone = enrolled(&stage, "SIMPHONE0001").await;
    let admin = Client::with(&stage, &["admin"]).await;
    let one = serde_json::json!({ "people": 1 });
    let set = admin.put("/v1/approval-policies/reveal", one).await;
    assert_eq!(set.status, 200);
    let (desk, ann) = (
        Browser::of(&stage, &desk, "desk").await,
        Browser::of(&stage, &ann, "ann").await,
    );
    let reveal = "/devices/SIMPHONE0001/reveal";
    let alone = desk.submit(reveal, &[("reason", "ticket 7")]).await;
    assert_eq!(alone.status, 403);
    assert!(alone.html.contains("choose to ask them") && !alone.html.contains(&*phone.code_text()));
    let wish = [("reason", "ticket 7"), ("leave", "ask")];
    assert_eq!(
        desk.submit(reveal, &wish).await.place(),
        "/approvals?done=wanted"
    );
    let own = desk.get("/approvals?done=wanted").await;
    assert!(own.html.contains("Others are asked.") && own.html.contains("Take back"));
    assert!(ann.get("/").await.html.contains("for an approval"));
    let open = ann.get("/approvals").await;
    assert!(open.html.contains("ticket 7") && open.html.contains("device SIMPHONE0001"));
    let (_, rest) = open.html.split_once(r#"action="/approvals/"#).unwrap();
    let decide = format!("/approvals/{}", rest.split_once('"').unwrap().0);
    assert_eq!(desk.submit(&decide, &[("say", "yes")]).await.status, 403);
    assert_eq!(
        ann.submit_from("cross-site", &decide, &[("say", "yes")])
            .await
            .status,
        403
    );
    assert_eq!(ann.submit(&decide, &[]).await.status, 400);
    let said = ann
        .submit(&decide, &[("say", "yes"), ("comment", "it is ours")])
        .await;
    assert_eq!(said.place(), "/approvals?done=yes");
    let own = desk.get("/approvals").await;
    assert!(own.html.contains("it is ours") && own.html.contains("Approved"));
    let (_, rest) = own
        .html
        .split_once(r#"href="/devices/SIMPHONE0001/reveal?approval="#)
        .unwrap();
    let id = rest.split_once('"').unwrap().0;
    let form = desk.get(&format!("{reveal}?approval={id}")).await;
    assert!(
        form.html
            .contains(&format!(r#"name="approval" value="{id}""#))
    );
    let fields = [("reason", "ticket 7"), ("approval", id)];
    let shown = desk.submit(reveal, &fields).await;
    assert_eq!(shown.status, 200);
    assert!(shown.html.contains(&*phone.code_text()));
    // The answer may have been lost; a while later it was not.
    assert_eq!(desk.submit(reveal, &fields).await.status, 200);
    stage.clock.advance(Duration::from_secs(301));
    assert_eq!(desk.submit(reveal, &fields).await.status, 409);
}

#[tokio::test]
async fn somebody_is_invited_joins_is_given_a_role_and_is_shut_out() {
    let stage = Stage::new().await;
    let boss = Person::settled(&stage, "boss", &[Role::Admin, Role::Viewer]).await;
    let boss = Browser::of(&stage, &boss, "boss").await;
    let fields = [("login", "Kim"), ("name", "Kim <Example>"), ("email", "")];
    let invited = boss.submit("/people", &fields).await;
    assert_eq!(
        (invited.status, invited.header("cache-control")),
        (201, "no-store")
    );
    assert!(invited.html.contains("Kim &#60;Example&#62;"));
    let (_, rest) = invited.html.split_once("lw_invite_").unwrap();
    let invitation = format!("lw_invite_{}", rest.split_once('<').unwrap().0);
    assert!(
        !boss.get("/people").await.html.contains("lw_invite_"),
        "once"
    );
    assert_eq!(
        boss.submit("/people", &fields).await.status,
        409,
        "the name is taken"
    );
    let mut kim = Browser::new(&stage);
    let short = [("invitation", &*invitation), ("password", "short")];
    assert_eq!(kim.submit("/join", &short).await.status, 400);
    let taken = [("invitation", &*invitation), ("password", PASSWORD)];
    assert_eq!(
        kim.submit_from("cross-site", "/join", &taken).await.status,
        403
    );
    assert_eq!(kim.submit("/join", &taken).await.place(), "/sign-in");
    assert_eq!(kim.submit("/join", &taken).await.status, 401, "once");
    let people = stage.escrow().people();
    let permit = stage.permit("people").await;
    let view = people.find(&permit, "kim").await.unwrap().unwrap();
    let roles = format!("/people/{}/roles", view.id);
    let given = boss
        .submit(&roles, &[("viewer", "yes"), ("operator", "yes")])
        .await;
    assert_eq!(given.place(), "/people?done=roles");
    // A role that opens codes is for who has proved themselves.
    assert_eq!(
        boss.submit(&roles, &[("revealer", "yes")]).await.status,
        409
    );
    let view = people.find(&permit, "kim").await.unwrap().unwrap();
    assert_eq!(view.grants.len(), 2);
    let answer = kim
        .submit("/sign-in", &[("login", "kim"), ("password", PASSWORD)])
        .await;
    kim.keep(&answer);
    assert_eq!(kim.get("/").await.place(), "/second-factor");
    let out = format!("/people/{}/shut-out", view.id);
    assert_eq!(
        boss.submit(&out, &[("say", "out")]).await.place(),
        "/people?done=out"
    );
    assert_eq!(kim.get("/").await.place(), "/sign-in");
    assert!(boss.get("/people").await.html.contains("Shut out"));
    assert_eq!(
        boss.submit(&out, &[("say", "in")]).await.place(),
        "/people?done=in"
    );
}
