//! What the fake Apple accepts, and what it refuses.

use sim::{
    AppleDevice, AppleOptions, Code, CodeHash, LockKind, LockRefused, SIM_TOPIC, apple::Answered,
    apple::IdentityCheck, fingerprint,
};

use crate::support::{
    CODE, OTHER_CODE, QUERY, SERIAL, apple, form, good_client, ipad, locked, raw, status, unlock,
};

/// Raw bytes, code and hash: the contract sheet's five, and the two more of Apple's format that are published.
const VECTORS: [(&str, &str, &str); 7] = [
    (
        "00000000000000000000000000000000",
        "00000-00000-0000-0000-0000-0000",
        "deab860d28deb5b7121d6d8fcf0f78e1471756d1b2c566c03277c23ea8930b4f",
    ),
    (
        "000102030405060708090a0b0c0d0e0f",
        "000H4-0R40M-30F2-0918-5HR3-8F17",
        "c5ced1d0c51459c1a887866a5868dd3e9e6f4fc4a8c244f3f9eb9383c0f8aecb",
    ),
    (
        "ffffffffffffffffffffffffffffffff",
        "ZZZZZ-ZZZZZ-ZZZZ-ZZZZ-ZZZZ-ZZZ7",
        "ed6cfc1588b175d652d1dd6705ba7fec058b5c76facdd8ff41285ca0d341bd25",
    ),
    (
        "1ea841db5edfafe6075b5ae0d845d254",
        "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4",
        "6ab40d5eabe7218ec04182f461005600c7e3426bddd82cdb405bde9a1e0014b5",
    ),
    (
        "b7608a5fd1fa8500c6095ee152ea4caf",
        "PXH8M-QYJZA-2H1J-H9CV-HN5U-KDN7",
        "6789c28a5a596746af3e7e4d18facb19c1161e4053ccca02a3e65ce838938c0e",
    ),
    (
        "44ebe63375969fec2da67e87e7317946",
        "8LNYD-DVNKU-GYRC-E6GU-3YFD-CT86",
        "c1968cb4c013ea893f1922bb5c39f81e35012c0bd9ce3c01cc2a05873a2499e6",
    ),
    (
        "cb84798c3ca85a674194550a2e96aed8",
        "TF27L-31WN1-E6FH-DMAM-52X5-NFV0",
        "23cf8b7873425fd8efe31dc5b6ab9c357eb98a2a59c82ea1084ca8af58cc480a",
    ),
];

#[test]
fn t1_codes_and_hashes_agree_with_the_published_vectors() {
    for (raw, text, hash) in VECTORS {
        let raw: [u8; 16] = data_encoding::HEXLOWER
            .decode(raw.as_bytes())
            .unwrap()
            .try_into()
            .unwrap();
        let code = Code::from_raw(raw);
        assert_eq!(code.text(), text);
        assert!(
            Code::parse(text).is_some_and(|parsed| parsed == code),
            "{text} is read back"
        );
        assert_eq!(code.hash().hex().to_lowercase(), hash);
        assert_eq!(CodeHash::parse(hash), Some(code.hash()));
    }
}

#[test]
fn t2_only_the_canonical_text_is_a_code() {
    for text in [
        "",
        "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA",
        "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA44",
        "3UM43PUYVYQYD1UVCCHEHJFKA4",
        "3um43-puyvy-qyd1-uvcc-hehj-fka4",
        "3UM4-3PUYVY-QYD1-UVCC-HEHJ-FKA4",
        "BUM43-PUYVY-QYD1-UVCC-HEHJ-FKA4",
        "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA8",
        "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4-",
    ] {
        assert!(Code::parse(text).is_none(), "{text} is no code");
    }
}

#[tokio::test]
async fn the_right_code_opens_a_user_lock_once() {
    let apple = locked().await;
    let client = good_client(&apple);
    assert_eq!(apple.lock_state(SERIAL), Some(LockKind::User));
    assert_eq!(status(unlock(&apple, &client, OTHER_CODE)).await, 404);
    assert_eq!(apple.lock_state(SERIAL), Some(LockKind::User));
    assert_eq!(status(unlock(&apple, &client, CODE)).await, 200);
    assert_eq!(apple.lock_state(SERIAL), None);
    assert_eq!(
        status(unlock(&apple, &client, CODE)).await,
        404,
        "an open lock answers like a wrong code"
    );
    apple.set_when_not_locked(200);
    assert_eq!(status(unlock(&apple, &client, OTHER_CODE)).await, 200);
}

#[tokio::test]
async fn an_organisation_lock_opens_with_the_code_of_its_hash() {
    let apple = apple().await;
    apple
        .org_lock(SERIAL, CodeHash::parse(VECTORS[4].2).unwrap())
        .unwrap();
    assert_eq!(
        apple.user_lock(SERIAL, CODE),
        Err(LockRefused::AlreadyLocked(LockKind::Mdm)),
        "the first lock wins"
    );
    let client = good_client(&apple);
    assert_eq!(status(unlock(&apple, &client, CODE)).await, 404);
    assert_eq!(status(unlock(&apple, &client, VECTORS[4].1)).await, 200);
}

#[tokio::test]
async fn a_lock_with_opaque_text_opens_with_exactly_that_text() {
    let apple = apple().await;
    apple.user_lock(SERIAL, "not-a-code").unwrap();
    let client = good_client(&apple);
    for (code, expected) in [(CODE, 404), ("NOT-A-CODE", 404), ("not-a-code", 200)] {
        assert_eq!(status(unlock(&apple, &client, code)).await, expected);
    }
}

#[tokio::test]
async fn malformed_requests_are_refused_and_change_nothing() {
    let apple = locked().await;
    let client = good_client(&apple);
    let good = form(CODE);
    let cases: &[(&str, &str, &str)] = &[
        (
            "serial=SIMTEST00001&productType=iPad4%252C1",
            &good,
            "escaped twice",
        ),
        ("serial=SIMTEST00001&productType=iPad4%2", &good, "'%'"),
        ("serial=SIMTEST00001", &good, "productType is missing"),
        ("productType=iPad4%2C1", &good, "serial is missing"),
        (
            "serial=SIMTEST00001&productType=iPad4%2C1&imei=",
            &good,
            "imei is empty",
        ),
        (
            "serial=SIMTEST00001&productType=iPad4%2C1&imei=35+882334+083223+0",
            &good,
            "imei must be digits",
        ),
        (
            "serial=SIMTEST00001&productType=iPad4%2C1&imei2=35882334O832230",
            &good,
            "imei2 must be digits",
        ),
        (
            "serial=SIMTEST00001&productType=iPad4%2C1&meid=3588233408322G",
            &good,
            "meid must be hexadecimal",
        ),
        (
            "serial=SIMTEST00001&serial=SIMTEST00001&productType=iPad4%2C1",
            &good,
            "given twice",
        ),
        (
            "serial=SIMTEST00001&productType=iPad4%2C1&colour=red",
            &good,
            "not known",
        ),
        (
            "serial=SIMTEST00001&productType=iPad4%2C1&orgName=Example",
            &good,
            "does not belong",
        ),
        (
            "serial=SIMTEST00001&productType=iPad4%2C1&lonely",
            &good,
            "has no '='",
        ),
        (
            "serial=SIM%20TEST00001&productType=iPad4%2C1",
            &good,
            "serial must be",
        ),
        (
            QUERY,
            &format!("{good}&serial=SIMTEST00001"),
            "does not belong",
        ),
        (QUERY, &format!("{good}&escrowKey={CODE}"), "given twice"),
        (
            QUERY,
            &format!("guid=anna&escrowKey={CODE}"),
            "orgName is missing",
        ),
        (
            QUERY,
            &format!("orgName=Example&escrowKey={CODE}"),
            "guid is missing",
        ),
        (QUERY, "orgName=Example&guid=anna", "escrowKey is missing"),
        (
            QUERY,
            "orgName=Example&guid=anna&escrowKey=",
            "escrowKey is empty",
        ),
        (
            QUERY,
            &format!("orgName=Exam%2520ple&guid=anna&escrowKey={CODE}"),
            "escaped twice",
        ),
        (
            QUERY,
            &format!("orgName=%FF&guid=anna&escrowKey={CODE}"),
            "not UTF-8",
        ),
    ];
    for (query, body, why) in cases {
        assert_eq!(
            status(raw(&apple, &client, query, body)).await,
            400,
            "{why}"
        );
        let call = apple.journal().all().pop().unwrap();
        assert!(call.note.contains(why), "{}: expected {why}", call.note);
    }
    assert_eq!(apple.lock_state(SERIAL), Some(LockKind::User));
    assert_eq!(
        status(unlock(&apple, &client, CODE)).await,
        200,
        "the same client does well with a good request"
    );
}

#[tokio::test]
async fn wrong_content_type_path_and_method_are_refused() {
    let apple = locked().await;
    let client = good_client(&apple);
    let url = format!("{}{}?{QUERY}", apple.url(), sim::apple::PATH);
    let no_type = client.post(&url).body(form(CODE));
    assert_eq!(status(no_type).await, 400);
    let json = client
        .post(&url)
        .header("content-type", "application/json")
        .body(form(CODE));
    assert_eq!(status(json).await, 400);
    assert_eq!(status(client.get(&url)).await, 405);
    let elsewhere = client.post(format!("{}/escrowKeyUnlock?{QUERY}", apple.url()));
    assert_eq!(
        status(
            elsewhere
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form(CODE))
        )
        .await,
        404
    );
    let last = apple.journal().all().pop().unwrap();
    assert!(
        last.note.contains("no such path"),
        "the journal tells this 404 from a wrong code"
    );
    assert_eq!(apple.lock_state(SERIAL), Some(LockKind::User));
    let charset = client.post(&url).header(
        "content-type",
        "application/x-www-form-urlencoded; charset=UTF-8",
    );
    assert_eq!(status(charset.body(form(CODE))).await, 200);
}

#[tokio::test]
async fn r18_an_unescaped_comma_is_as_good_as_an_escaped_one() {
    let apple = locked().await;
    let client = good_client(&apple);
    assert_eq!(
        status(raw(
            &apple,
            &client,
            "serial=SIMTEST00001&productType=iPad4,1",
            &form(CODE)
        ))
        .await,
        200
    );
}

#[tokio::test]
async fn an_unknown_device_or_another_identity_is_not_found() {
    let apple = apple().await;
    apple.add_device(AppleDevice {
        imei: Some("358823340832230".to_owned()),
        imei2: Some("358823340832248".to_owned()),
        meid: Some("3588233408322A".to_owned()),
        ..ipad()
    });
    apple.user_lock(SERIAL, CODE).unwrap();
    let client = good_client(&apple);
    let first_two =
        "serial=SIMTEST00001&productType=iPad4%2C1&imei=358823340832230&imei2=358823340832248";
    for query in [
        "serial=SIMTEST00002&productType=iPad4%2C1",
        "serial=SIMTEST00001&productType=iPad4%2C2&imei=358823340832230&imei2=358823340832248&meid=3588233408322A",
        QUERY,
        first_two,
        "serial=SIMTEST00001&productType=iPad4%2C1&imei=358823340832248&imei2=358823340832230&meid=3588233408322A",
    ] {
        assert_eq!(
            status(raw(&apple, &client, query, &form(CODE))).await,
            404,
            "{query}"
        );
    }
    assert_eq!(apple.lock_state(SERIAL), Some(LockKind::User));
    apple.set_identity(IdentityCheck::GivenOnly);
    assert_eq!(
        status(raw(&apple, &client, first_two, &form(CODE))).await,
        200
    );
    apple.user_lock(SERIAL, CODE).unwrap();
    apple.set_identity(IdentityCheck::Exact);
    let whole = format!("{first_two}&meid=3588233408322a");
    assert_eq!(status(raw(&apple, &client, &whole, &form(CODE))).await, 200);
}

#[tokio::test]
async fn the_journal_has_all_but_the_code() {
    let apple = locked().await;
    let client = good_client(&apple);
    assert_eq!(status(unlock(&apple, &client, OTHER_CODE)).await, 404);
    assert_eq!(status(unlock(&apple, &client, CODE)).await, 200);
    let in_query = format!("{QUERY}&escrowKey={CODE}");
    assert_eq!(
        status(raw(&apple, &client, &in_query, &form(CODE))).await,
        400
    );
    let calls = apple.calls_for(SERIAL);
    assert_eq!(
        calls.iter().map(|call| call.number).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert_eq!(calls[0].answered, Answered::Status(404));
    assert!(!calls[0].unlocked && calls[1].unlocked);
    assert_eq!(
        calls[0].connection, calls[1].connection,
        "the connection was reused"
    );
    assert_eq!(calls[1].topic.as_deref(), Some(SIM_TOPIC));
    assert!(
        calls[1]
            .certificate_subject
            .as_deref()
            .unwrap()
            .contains("APSP:")
    );
    assert_eq!(calls[1].org_name.as_deref(), Some("Example"));
    assert_eq!(calls[1].guid.as_deref(), Some("anna@example.org"));
    assert_eq!(calls[1].query["productType"], "iPad4,1");
    assert_eq!(calls[1].code_fingerprint, Some(fingerprint(CODE)));
    let journal = serde_json::to_string(&calls).unwrap();
    assert!(
        !journal.contains("3UM43") && !journal.contains("PXH8M"),
        "no code is in the journal, wherever it was sent"
    );
    assert!(!format!("{calls:?}").contains("3UM43"));
}

#[tokio::test]
async fn two_clients_unlock_at_once_and_one_wins() {
    let apple = locked().await;
    let (one, two) = (good_client(&apple), good_client(&apple));
    let (one, two) = tokio::join!(
        status(unlock(&apple, &one, CODE)),
        status(unlock(&apple, &two, CODE))
    );
    assert_eq!(one + two, 604, "one 200 and one 404");
    assert_eq!(apple.connections(), 2);
}

#[tokio::test]
async fn a_device_can_be_locked_only_when_it_is_known() {
    let apple = apple_without_devices().await;
    assert_eq!(
        apple.user_lock(SERIAL, CODE),
        Err(LockRefused::UnknownDevice)
    );
    apple.add_device(ipad());
    apple.user_lock(SERIAL, CODE).unwrap();
    apple.add_device(ipad());
    assert_eq!(
        apple.lock_state(SERIAL),
        Some(LockKind::User),
        "a device that is told again keeps its lock"
    );
    apple.clear_lock(SERIAL);
    assert_eq!(apple.lock_state(SERIAL), None);
}

async fn apple_without_devices() -> sim::Apple {
    sim::Apple::start(AppleOptions::default()).await.unwrap()
}
