use std::sync::Arc;

use seal::KeyEncryptionKey;
use tempfile::TempDir;

use super::*;
use crate::Opening;
use crate::clock::ManualClock;
use crate::db::tests::{START, Seeded};
use crate::meta::DataKind;
use crate::permit::{Permission, Permissions};

async fn vault() -> (TempDir, Escrow) {
    let folder = tempfile::tempdir().unwrap();
    let random = Arc::new(Seeded::new(1));
    let opening = Opening {
        folder: folder.path(),
        kind: DataKind::Sandbox,
        key: Arc::new(KeyEncryptionKey::generate(&random)),
        recovery: None,
        clock: Arc::new(ManualClock::new(START)),
        random,
    };
    let vault = Escrow::open(opening).await.unwrap();
    (folder, vault)
}

fn organisation() -> OrganisationId {
    OrganisationId::new("org")
}

fn actor() -> Actor {
    Actor::system("test", Permissions::of(&[Permission::Admin]))
}

async fn put(vault: &Escrow, action: &'static str, subject: &str) {
    let (escrow, subject) = (vault.clone(), subject.to_owned());
    vault
        .db
        .write("put", async move |tx| {
            let entry = Entry::by(&actor(), &organisation(), action)
                .subject(&subject)
                .reason("because")
                .detail("zebra", 1)
                .detail("ant", json!({"b": [true, null], "a": "é\"\n"}));
            record(tx, &escrow, entry).await
        })
        .await
        .unwrap();
}

async fn listed(
    vault: &Escrow,
    filter: AuditFilter,
    after: Option<&str>,
    limit: u32,
) -> Vec<AuditRow> {
    let permit: Permit<Admin> = vault
        .authorise(&actor(), &organisation(), "audit")
        .await
        .unwrap();
    vault
        .audit()
        .list(&permit, &filter, after, limit)
        .await
        .unwrap()
}

fn word(row: &AuditRow, name: &str) -> String {
    serde_json::from_str::<Json>(&row.text).unwrap()[name]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn a_row_is_one_canonical_text() {
    let (_folder, vault) = vault().await;
    put(&vault, "device.test", "SERIAL").await;
    let rows = listed(&vault, AuditFilter::default(), None, 10).await;
    let id = rows[0].id.clone();
    let expected = format!(
        concat!(
            r#"{{"action":"device.test","actor":{{"id":"system:test","kind":"system","name":"test"}},"address":null,"#,
            r#""at":1700000000000,"details":{{"ant":{{"a":"é\"\n","b":[true,null]}},"zebra":1}},"id":"{}","#,
            r#""organisation":"org","proof":"program","reason":"because","result":"ok","subject":"SERIAL","version":1}}"#
        ),
        id
    );
    assert_eq!(
        rows,
        [AuditRow {
            id,
            text: expected,
            intact: Intact::Yes
        }]
    );
}

#[tokio::test]
async fn rows_are_listed_newest_first_by_page_and_filter() {
    let (_folder, vault) = vault().await;
    for (action, subject) in [("a", "one"), ("b", "one"), ("a", "two"), ("a", "one")] {
        put(&vault, action, subject).await;
    }
    let ids = |rows: &[AuditRow]| rows.iter().map(|row| row.id.clone()).collect::<Vec<_>>();
    let all = listed(&vault, AuditFilter::default(), None, 10).await;
    assert_eq!(all.len(), 4);
    assert!(all.is_sorted_by(|newer, older| newer.id > older.id));
    let first = listed(&vault, AuditFilter::default(), None, 3).await;
    let rest = listed(&vault, AuditFilter::default(), Some(&first[2].id), 3).await;
    assert_eq!([ids(&first), ids(&rest)].concat(), ids(&all));

    let one = AuditFilter {
        subject: Some("one".to_owned()),
        ..AuditFilter::default()
    };
    assert_eq!(
        ids(&listed(&vault, one.clone(), None, 10).await),
        ids(&[&all[..1], &all[2..]].concat())
    );
    let both = AuditFilter {
        action: Some("b".to_owned()),
        ..one
    };
    let found = listed(&vault, both, None, 10).await;
    assert_eq!((found.len(), word(&found[0], "action").as_str()), (1, "b"));
    let actor = |id: &str| AuditFilter {
        actor: Some(id.to_owned()),
        ..AuditFilter::default()
    };
    assert_eq!(
        listed(&vault, actor("system:test"), None, 10).await.len(),
        4
    );
    assert!(
        listed(&vault, actor("system:other"), None, 10)
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn a_row_is_never_changed_or_deleted() {
    let (_folder, vault) = vault().await;
    put(&vault, "a", "one").await;
    for sql in ["UPDATE audit SET subject = 'two'", "DELETE FROM audit"] {
        assert!(
            vault
                .db
                .write("tamper", async move |tx| tx.execute(sql, params![]).await)
                .await
                .is_err(),
            "{sql}"
        );
    }
    assert_eq!(
        listed(&vault, AuditFilter::default(), None, 10).await.len(),
        1
    );
}

#[tokio::test]
async fn every_kind_of_tampering_is_found_and_named() {
    // As one with the database file could, and not the key.
    for tampering in [
        "UPDATE audit SET text = replace(text, 'because', 'whatever') WHERE subject = 'two'",
        "UPDATE audit SET text = text || ' ' WHERE subject = 'two'",
        "UPDATE audit SET at = at + 1 WHERE subject = 'two'",
        "UPDATE audit SET actor = 'system:other' WHERE subject = 'two'",
        "UPDATE audit SET action = 'b' WHERE subject = 'two'",
        "UPDATE audit SET result = 'refused' WHERE subject = 'two'",
        "UPDATE audit SET organisation = 'other' WHERE subject = 'two'",
        "UPDATE audit SET id = '0' WHERE subject = 'two'",
        "UPDATE audit SET subject = 'four' WHERE subject = 'two'",
        "UPDATE audit SET mac = (SELECT mac FROM audit WHERE subject = 'three') WHERE subject = 'two'",
        "UPDATE audit SET mac = 'not hex' WHERE subject = 'two'",
        "UPDATE audit SET mac_key = '0011223344556677' WHERE subject = 'two'",
        "UPDATE audit SET text = (SELECT text FROM audit WHERE subject = 'three'), \
         mac = (SELECT mac FROM audit WHERE subject = 'three') WHERE subject = 'two'",
    ] {
        let (_folder, vault) = vault().await;
        for subject in ["one", "two", "three"] {
            put(&vault, "a", subject).await;
        }
        let clean = vault.audit().verify().await.unwrap();
        assert_eq!(
            clean,
            Verified {
                rows: 3,
                changed: Vec::new()
            }
        );
        let changed = vault
            .db
            .write("tamper", async move |tx| {
                tx.execute("DROP TRIGGER audit_is_never_changed", params![])
                    .await?;
                tx.execute(tampering, params![]).await
            })
            .await
            .unwrap();
        assert_eq!(changed, 1, "{tampering}");
        let found = vault.audit().verify().await.unwrap();
        assert_eq!((found.rows, found.changed.len()), (3, 1), "{tampering}");
    }
}

#[tokio::test]
async fn verification_goes_through_every_page() {
    let (_folder, vault) = vault().await;
    for subject in ["one", "two", "three", "four", "five"] {
        put(&vault, "a", subject).await;
    }
    let escrow = vault.clone();
    let pages = vault.db.read(async move |tx| {
        let (mut pages, mut rows, mut after) = (0, 0, None);
        loop {
            let page = verify(tx, escrow.keyring(), after, 2).await?;
            (pages, rows, after) = (pages + 1, rows + page.verified.rows, page.next);
            if after.is_none() {
                return Ok((pages, rows));
            }
        }
    });
    assert_eq!(pages.await.unwrap(), (3, 5));
}
