//! Many devices at once, by forms alone.

use super::*;

/// A form that holds a file, as a browser sends it.
fn in_parts(fields: &[(&str, &str)], file: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part =
            format!("--PART\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    let part = "--PART\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.csv\"\r\n\
                Content-Type: text/csv\r\n\r\n";
    body.extend_from_slice(part.as_bytes());
    body.extend_from_slice(file);
    body.extend_from_slice(b"\r\n--PART--\r\n");
    body
}

impl Browser {
    async fn bring(&self, path: &str, fields: &[(&str, &str)], file: &[u8]) -> Answer {
        let request = self
            .http
            .post(format!("{}{path}", self.base))
            .header("sec-fetch-site", "same-origin")
            .header("content-type", "multipart/form-data; boundary=PART")
            .body(in_parts(fields, file));
        self.send(request).await
    }
}

async fn known(stage: &Stage, serial: &str) {
    let admin = Client::with(stage, &["admin"]).await;
    let path = format!("/v1/devices/{serial}");
    let set = serde_json::json!({ "product_type": "iPad4,1" });
    assert_eq!(admin.patch(&path, set).await.status, 200);
}

#[tokio::test]
async fn a_list_is_pasted_and_brought_looked_at_and_started() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "zoe", Role::OF_THE_FIRST).await;
    let phone = enrolled(&stage, "SIMPHONE0001").await;
    phone.lock_with_own_code().unwrap();
    known(&stage, "NOCODE0001").await;
    let browser = Browser::of(&stage, &person, "zoe").await;
    let empty = browser.get("/batches").await;
    assert!(empty.html.contains("No batch yet.") && empty.html.contains("/batches/new"));
    let fields = [
        ("action", "unlock"),
        ("serials", "simphone0001, nocode0001"),
        ("reason", "the <end> of the year"),
    ];
    let file = "Besitzer;Serial\r\nM\u{fc}ller;NOSUCHDEVICE\r\n";
    let file: Vec<u8> = file.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let made = browser.bring("/batches", &fields, &file).await;
    let place = made.place().to_owned();
    let draft = browser.get(&place).await;
    assert!(
        draft.html.contains("<strong>1 of 3</strong>"),
        "{}",
        draft.html
    );
    assert!(draft.html.contains("the &#60;end&#62; of the year"));
    for word in ["ready", "no_code", "unknown_device"] {
        assert!(
            draft.html.contains(&format!("data-word=\"{word}\"")),
            "{word}"
        );
    }
    let part = browser.get(&format!("{place}?state=no_code")).await;
    assert!(part.html.contains("NOCODE0001") && !part.html.contains("SIMPHONE0001"));
    assert!(stage.apple.lock_state("SIMPHONE0001").is_some());
    let started = browser.submit(&format!("{place}/start"), &[]).await;
    assert_eq!(started.place(), format!("{place}?done=batch-started"));
    let step = Duration::from_millis(50);
    stage
        .until_in_steps("the batch to end", step, async || {
            let page = browser.get(&place).await;
            page.html.contains("Done, not all of it")
        })
        .await;
    assert_eq!(stage.apple.lock_state("SIMPHONE0001"), None);
    let table = browser.get(&format!("{place}/results.csv")).await;
    assert!(table.header("content-disposition").contains("results.csv"));
    assert!(
        table.html.contains("1,SIMPHONE0001,unlocked,"),
        "{}",
        table.html
    );
    assert!(browser.get("/batches").await.html.contains(&place));
}

#[tokio::test]
async fn what_is_wrong_with_a_list_is_said_beside_what_was_typed() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "zoe", Role::OF_THE_FIRST).await;
    let browser = Browser::of(&stage, &person, "zoe").await;
    let with = |serials, reason| {
        [
            ("action", "unlock"),
            ("serials", serials),
            ("reason", reason),
        ]
    };
    let blank = browser.submit("/batches", &with("SIMPHONE0001", " ")).await;
    assert_eq!(blank.status, 400);
    assert!(blank.html.contains("The reason is blank") && blank.html.contains("SIMPHONE0001"));
    let nothing = browser.submit("/batches", &with(" ,", "why")).await;
    assert!(nothing.html.contains("No device is named."));
    let columns = b"name,owner\nx,y\n";
    let unknown = browser.bring("/batches", &with("", "why"), columns).await;
    assert_eq!(unknown.status, 400);
    assert!(unknown.html.contains("none is called"), "{}", unknown.html);
    let action = [("action", "erase"), ("serials", "A1"), ("reason", "why")];
    assert_eq!(browser.submit("/batches", &action).await.status, 400);
    assert!(browser.get("/batches").await.html.contains("No batch yet."));
}

#[tokio::test]
async fn devices_are_selected_on_their_list_one_by_one_or_all_that_fit() {
    let stage = Stage::new().await;
    let person = Person::settled(&stage, "zoe", Role::OF_THE_FIRST).await;
    for serial in ["FIRST0001", "FIRST0002", "OTHER0001"] {
        known(&stage, serial).await;
    }
    let browser = Browser::of(&stage, &person, "zoe").await;
    let list = browser.get("/devices?search=first").await;
    assert!(list.html.contains("value=\"FIRST0002\""));
    let chosen = "/batches/new?serial=FIRST0001&serial=OTHER0001&action=refresh";
    let ask = browser.get(chosen).await;
    assert!(
        ask.html.contains("FIRST0001\nOTHER0001</textarea>"),
        "{}",
        ask.html
    );
    assert!(ask.html.contains("value=\"refresh\" checked"));
    let (_, rest) = list.html.split_once("href=\"/batches/new?filter=").unwrap();
    let filter = rest.split_once('"').unwrap().0;
    let ask = browser.get(&format!("/batches/new?filter={filter}")).await;
    assert!(
        ask.html.contains("\u{201c}first\u{201d} is found in"),
        "{}",
        ask.html
    );
    let fields = [
        ("action", "refresh"),
        ("filter", "search=first"),
        ("reason", "why"),
    ];
    let made = browser.submit("/batches", &fields).await;
    let draft = browser.get(made.place()).await;
    assert!(
        draft.html.contains("<strong>0 of 2</strong>"),
        "{}",
        draft.html
    );
    assert!(draft.html.contains("No line of it could be done."));
    assert!(draft.html.contains("FIRST0002") && !draft.html.contains("OTHER0001"));
}

#[tokio::test]
async fn who_may_only_look_sees_a_batch_and_moves_nothing() {
    let stage = Stage::new().await;
    let client = Client::with(&stage, &["unlock"]).await;
    known(&stage, "FIRST0001").await;
    let wish = serde_json::json!({ "reason": "why" });
    let made = client.post("/v1/batches?action=unlock", wish).await;
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let person = Person::settled(&stage, "vera", &[Role::Viewer]).await;
    let browser = Browser::of(&stage, &person, "vera").await;
    let place = format!("/batches/{id}");
    let page = browser.get(&place).await;
    assert_eq!(page.status, 200);
    assert!(
        !page
            .html
            .contains("<form method=\"post\" action=\"/batches")
    );
    for how in ["start", "pause", "resume", "cancel"] {
        let refused = browser.submit(&format!("{place}/{how}"), &[]).await;
        assert_eq!(refused.status, 403, "{how}");
        assert_eq!(
            client.get(&format!("/v1{place}")).await.json()["state"],
            "draft"
        );
    }
}
