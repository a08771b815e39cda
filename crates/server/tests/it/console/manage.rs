//! Policies, tokens and keys, by forms alone; and what the first page says.

use super::*;

/// Somebody who may manage every organisation.
async fn of_all(stage: &Stage, login: &str) -> Browser {
    let person = Person::settled(stage, login, Role::OF_THE_FIRST).await;
    let people = stage.escrow().people();
    let permit = stage.permit("people").await;
    let id = people.find(&permit, login).await.unwrap().unwrap().id;
    let set = people
        .set_roles(
            &permit,
            &id,
            &escrow::permit::Scope::All,
            Role::OF_THE_FIRST,
        )
        .await;
    set.unwrap().unwrap();
    Browser::of(stage, &person, login).await
}

#[tokio::test]
async fn a_token_is_made_shown_once_used_and_taken_back() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "zoe", Role::OF_THE_FIRST).await;
    let browser = Browser::of(&stage, &person, "zoe").await;
    let fields = [("name", "a <program>"), ("unlock", "yes"), ("days", "7")];
    let made = browser.submit("/tokens", &fields).await;
    assert_eq!(
        (made.status, made.header("cache-control")),
        (201, "no-store")
    );
    let (_, rest) = made.html.split_once("<p class=\"code small\">").unwrap();
    let text = rest.split_once('<').unwrap().0.to_owned();
    let program = Client::new(&stage, &text);
    let me = program.get("/v1/me").await.json();
    assert_eq!(me["name"], "a <program>");
    let list = browser.get("/tokens").await;
    assert!(list.html.contains("a &#60;program&#62;") && !list.html.contains(&text));
    let (_, rest) = list.html.split_once("action=\"/tokens/").unwrap();
    let id = rest.split_once('/').unwrap().0;
    let back = browser.submit(&format!("/tokens/{id}/revoke"), &[]).await;
    assert_eq!(back.place(), "/tokens?done=token-back");
    assert_eq!(program.get("/v1/me").await.status, 401);
    for wrong in [
        &[("name", "x")][..],
        &[("name", "x"), ("read", "yes"), ("days", "0")],
        &[("name", " "), ("read", "yes")],
    ] {
        assert_eq!(browser.submit("/tokens", wrong).await.status, 400);
    }
}

#[tokio::test]
async fn a_policy_and_the_quotas_are_set_and_what_cannot_be_is_said() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "zoe", Role::OF_THE_FIRST).await;
    Person::settled(&stage, "max", &[Role::Approver]).await;
    let browser = Browser::of(&stage, &person, "zoe").await;
    let with = |people| [("people", people), ("hours", "24"), ("minutes", "30")];
    let set = browser.submit("/policies/unlock", &with("1")).await;
    assert_eq!(set.place(), "/policies?done=policy");
    let page = browser.get("/policies").await;
    assert!(
        page.html.contains(
            "name=\"minutes\" type=\"number\" min=\"5\" max=\"1440\" required value=\"30\""
        )
    );
    let three = browser.submit("/policies/unlock", &with("3")).await;
    assert_eq!(three.status, 400);
    assert!(
        three.html.contains("A policy asks for 0, 1 or 2 people"),
        "{}",
        three.html
    );
    assert_eq!(
        browser.submit("/policies/erase", &with("1")).await.status,
        400
    );
    let words = browser.submit("/policies/unlock", &with("many")).await;
    assert!(
        words.status == 400
            && words
                .html
                .contains("\u{201c}many\u{201d} is not such a number.")
    );
    // What takes others then takes them here too.
    enrolled(&stage, "SIMPHONE0001").await;
    let unlock = "/devices/SIMPHONE0001/unlock";
    let refused = browser.submit(unlock, &[("reason", "x")]).await;
    assert!(
        refused
            .html
            .contains("takes the approval of another person"),
        "{}",
        refused.html
    );
    let quotas = [("reveals", "7"), ("unlocks", "9")];
    let set = browser.submit("/policies/quotas", &quotas).await;
    assert_eq!(set.place(), "/policies?done=policy");
    let page = browser.get("/policies").await;
    assert!(
        page.html
            .contains("name=\"unlocks\" type=\"number\" min=\"0\" required value=\"9\"")
    );
}

#[tokio::test]
async fn keys_are_shown_and_exchanged_by_who_may_manage_everything() {
    let stage = Stage::new().await;
    let browser = of_all(&stage, "zoe").await;
    let page = browser.get("/keys").await;
    assert!(
        page.html
            .contains("has never shown that it opens this vault"),
        "{}",
        page.html
    );
    assert!(page.html.contains("They were never exchanged."));
    let rotated = browser.submit("/keys/rotate", &[]).await;
    assert_eq!(rotated.place(), "/keys?done=rotated");
    stage
        .until_in_steps("the exchange", Duration::from_millis(50), async || {
            let page = browser.get("/keys").await;
            page.html.contains("Last exchanged")
        })
        .await;
    // Of one organisation it is not enough.
    let person = Person::settled(&stage, "max", Role::OF_THE_FIRST).await;
    let max = Browser::of(&stage, &person, "max").await;
    assert_eq!(max.get("/keys").await.status, 403);
}

#[tokio::test]
async fn the_first_page_names_what_needs_a_person_and_shows_what_came_of_the_weeks() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "zoe", Role::OF_THE_FIRST).await;
    let phone = enrolled(&stage, "SIMPHONE0001").await;
    phone.lock_with_own_code().unwrap();
    let browser = Browser::of(&stage, &person, "zoe").await;
    let quiet = browser.get("/").await;
    assert!(
        quiet.html.contains("None in the last thirteen weeks."),
        "{}",
        quiet.html
    );
    stage
        .apple
        .push_fault(sim::Fault::status(418).for_serial("SIMPHONE0001"));
    let fields = [("reason", "ticket 7"), ("insist", "yes")];
    let asked = browser
        .submit("/devices/SIMPHONE0001/unlock", &fields)
        .await;
    let place = asked.place().to_owned();
    stage
        .until("the unlock to stop", async || {
            browser
                .get(&place)
                .await
                .html
                .contains("A person has to look")
        })
        .await;
    let page = browser.get("/").await;
    assert!(
        page.html.contains(&format!("href=\"{place}\"")),
        "{}",
        page.html
    );
    assert!(page.html.contains("waits for a person to look"));
    assert!(page.html.contains("<svg class=\"chart\""));
    assert!(
        page.html.contains("<th scope=\"row\">2026-05-25</th>"),
        "{}",
        page.html
    );
}

#[tokio::test]
async fn an_mdm_is_connected_and_what_it_is_to_be_given_is_shown_once() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "zoe", Role::OF_THE_FIRST).await;
    let browser = Browser::of(&stage, &person, "zoe").await;
    let with = |name, base_url, api_key| {
        [
            ("kind", "nanohub"),
            ("name", name),
            ("base_url", base_url),
            ("api_key", api_key),
        ]
    };
    let there = "https://mdm.example.org";
    for (wrong, said) in [
        (with("Not So", there, "key"), "name"),
        (with("new", "ftp://mdm.example.org", "key"), "https"),
        (with("new", there, " "), "is blank"),
        (with("mdm", there, "key"), "of that name already"),
    ] {
        let answer = browser.submit("/connections/mdm", &wrong).await;
        assert!(
            answer.status >= 400 && answer.status < 500,
            "{}",
            answer.html
        );
        let (_, told) = answer.html.split_once("role=\"alert\"").unwrap();
        assert!(told.contains(said), "{said}: {told}");
        assert!(
            told.contains(wrong[2].1) && !told.contains("value=\"key\""),
            "{told}"
        );
    }
    let fields = with("second", there, "the key of its API");
    let made = browser.submit("/connections/mdm", &fields).await;
    assert_eq!(
        (made.status, made.header("cache-control")),
        (201, "no-store")
    );
    assert!(made.html.contains("/v1/hooks/second</dd>"), "{}", made.html);
    let (_, rest) = made.html.split_once("data-copy=\"").unwrap();
    let key = rest.split_once('"').unwrap().0.to_owned();
    let list = browser.get("/connections").await;
    assert!(list.html.contains("second") && !list.html.contains(&key));
    assert!(!made.html.contains("the key of its API"));
    let admin = Client::with(&stage, &["connections"]).await;
    let kept = admin.get("/v1/mdm/second").await.json();
    assert_eq!(
        (&kept["kind"], &kept["path_prefix"]),
        (&"nanohub".into(), &"/api/v1/nanomdm".into())
    );
}

#[tokio::test]
async fn a_push_certificate_is_kept_from_two_files_and_what_is_none_is_refused() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "zoe", Role::OF_THE_FIRST).await;
    let browser = Browser::of(&stage, &person, "zoe").await;
    let refused = browser
        .submit("/connections/certificate", &[("certificate", "none")])
        .await;
    assert_eq!(refused.status, 422);
    let issued = stage
        .apple
        .push_certificate("com.apple.mgmt.External.second");
    let fields = [
        ("certificate", &*issued.certificate_pem),
        ("key", &*issued.key_pem),
    ];
    let kept = browser.submit("/connections/certificate", &fields).await;
    assert_eq!(kept.place(), "/connections?done=certificate");
    let list = browser.get("/connections").await;
    assert!(list.html.contains("com.apple.mgmt.External.second"));
    assert!(!list.html.contains("PRIVATE KEY"));
}

#[tokio::test]
async fn who_begins_is_led_to_the_first_code() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "zoe", Role::OF_THE_FIRST).await;
    let browser = Browser::of(&stage, &person, "zoe").await;
    let begun = browser.get("/").await;
    assert!(
        begun.html.contains("The way to the first code"),
        "{}",
        begun.html
    );
    assert_eq!(begun.html.matches("<li class=\"done\">").count(), 3);
    enrolled(&stage, "SIMPHONE0001").await;
    let there = browser.get("/").await;
    assert!(!there.html.contains("The way to the first code"));
}

#[tokio::test]
async fn the_record_is_verified_and_taken_by_who_may_read_it() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "zoe", Role::OF_THE_FIRST).await;
    let browser = Browser::of(&stage, &person, "zoe").await;
    let found = browser.submit("/audit/verify", &[]).await;
    assert_eq!(found.status, 200);
    assert!(
        found.html.contains("class=\"said\" role=\"status\""),
        "{}",
        found.html
    );
    let rows = browser.get("/audit/rows.jsonl?action=audit.verify").await;
    assert!(rows.header("content-disposition").contains("audit.jsonl"));
    assert_eq!(rows.html.lines().count(), 1, "{}", rows.html);
    let listed = browser.get("/audit?action=audit.verify").await;
    assert!(
        listed
            .html
            .contains("/audit/rows.jsonl?action=audit.verify"),
        "{}",
        listed.html
    );
}
