use std::sync::Arc;
use std::time::Duration;

use activation_lock::time::Timestamp;
use seal::KeyEncryptionKey;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::*;
use crate::clock::ManualClock;
use crate::db::params;
use crate::db::tests::{START, Seeded, database, said};
use crate::meta::DataKind;
use crate::permit::{Actor, OrganisationId, Permission, Permissions};
use crate::{Database, Error, Opening};

mod chain;
mod edits;
mod retain;

pub(super) struct Vault {
    pub(super) folder: TempDir,
    pub(super) clock: ManualClock,
    pub(super) escrow: Escrow,
}

fn opening<'a>(folder: &'a TempDir, clock: &ManualClock, seed: u64) -> Opening<'a> {
    Opening {
        folder: folder.path(),
        database: database(folder.path()),
        kind: DataKind::Sandbox,
        key: Arc::new(KeyEncryptionKey::generate(&Seeded::new(1))),
        recovery: None,
        clock: Arc::new(clock.clone()),
        random: Arc::new(Seeded::new(seed)),
    }
}

async fn vault() -> Vault {
    let folder = tempfile::tempdir().unwrap();
    let database = database(folder.path());
    vault_in(folder, database).await
}

async fn vault_in(folder: TempDir, database: Database) -> Vault {
    let clock = ManualClock::new(START);
    let opening = Opening {
        database,
        ..opening(&folder, &clock, 1)
    };
    let escrow = Escrow::open(opening).await.unwrap();
    Vault {
        folder,
        clock,
        escrow,
    }
}

fn organisation() -> OrganisationId {
    OrganisationId::new("org")
}

fn actor() -> Actor {
    Actor::system(
        "test",
        Permissions::of(&[Permission::Admin, Permission::Audit]),
    )
}

impl Vault {
    async fn put(&self, action: &'static str, subject: &str) {
        self.put_in(&organisation(), action, subject).await.unwrap();
    }

    async fn put_in(
        &self,
        organisation: &OrganisationId,
        action: &'static str,
        subject: &str,
    ) -> Result<()> {
        let (escrow, subject) = (self.escrow.clone(), subject.to_owned());
        let organisation = organisation.clone();
        self.escrow
            .db
            .write("put", async move |tx| {
                let entry = Entry::by(&actor(), &organisation, action)
                    .subject(&subject)
                    .reason("because")
                    .detail("zebra", 1)
                    .detail("ant", json!({"b": [true, null], "a": "é\"\n"}));
                record(tx, &escrow, entry).await
            })
            .await
    }

    async fn permit(&self) -> Permit<permit::Audit> {
        self.escrow
            .authorise(&actor(), &organisation(), "audit")
            .await
            .unwrap()
    }

    /// The rows, and not those that tell that somebody looked.
    async fn listed(&self, filter: AuditFilter, after: Option<&str>, limit: u32) -> Vec<AuditRow> {
        let permit = self.permit().await;
        let audit = self.escrow.audit();
        let mut rows = audit.list(&permit, &filter, after, limit).await.unwrap();
        rows.retain(|row| word(row, "action") != "audit.read");
        rows
    }

    async fn seal(&self) {
        let sealer = self.escrow.audit().sealer();
        while sealer.seal().await.unwrap() != Turn::Ours(0) {}
        sealer.release().await.unwrap();
    }

    async fn checkpoint(&self) -> String {
        let sealer = self.escrow.audit().sealer();
        let Turn::Ours(Some(checkpoint)) = sealer.checkpoint().await.unwrap() else {
            panic!("no checkpoint");
        };
        sealer.release().await.unwrap();
        checkpoint.signed.to_line()
    }

    /// What verification finds, against these lines from outside.
    async fn verify(&self, outside: &[String]) -> std::result::Result<Verified, Bad> {
        verify(&self.escrow, outside).await.unwrap()
    }

    async fn run(&self, sql: &'static str) -> Result<u64> {
        self.escrow
            .db
            .write("tamper", async move |tx| tx.execute(sql, params![]).await)
            .await
    }
}

async fn verify(escrow: &Escrow, outside: &[String]) -> Result<std::result::Result<Verified, Bad>> {
    let mut verifier = escrow.audit().verifier();
    if let Some(bad) = verifier.record().await? {
        return Ok(Err(bad));
    }
    if let Some(bad) = verifier.compare(1, outside.to_vec()).await? {
        return Ok(Err(bad));
    }
    Ok(Ok(verifier.verified()))
}

fn word(row: &AuditRow, name: &str) -> String {
    serde_json::from_str::<Json>(&row.text).unwrap()[name]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn a_row_is_one_canonical_text() {
    let vault = vault().await;
    vault.put("device.test", "SERIAL").await;
    let rows = vault.listed(AuditFilter::default(), None, 10).await;
    let said: Json = serde_json::from_str(&rows[0].text).unwrap();
    let expected = format!(
        concat!(
            r#"{{"action":"device.test","actor":{{"id":"system:test","kind":"system","name":"test"}},"address":null,"#,
            r#""at":1700000000000,"counter":1,"details":{{"ant":{{"a":"é\"\n","b":[true,null]}},"zebra":1}},"id":"{}","#,
            r#""organisation":"org","proof":"program","reason":"because","result":"ok","subject":"SERIAL","version":2,"#,
            r#""writer":{}}}"#
        ),
        rows[0].id, said["writer"]
    );
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].text.as_str(), rows[0].intact, rows[0].position),
        (expected.as_str(), Intact::Yes, None)
    );
    let line: Json = serde_json::from_str(&rows[0].to_line()).unwrap();
    assert_eq!(line["text"], said);
}

#[tokio::test]
async fn rows_are_listed_newest_first_by_page_and_filter() {
    let vault = vault().await;
    let mut marks = Vec::new();
    for (action, subject) in [("a", "one"), ("b", "one"), ("a", "two"), ("a", "one")] {
        vault.clock.advance(Duration::from_secs(60));
        vault.put(action, subject).await;
        marks.push(START.plus(Duration::from_secs(60 * (marks.len() as u64 + 1))));
    }
    let ids = |rows: &[AuditRow]| rows.iter().map(|row| row.id.clone()).collect::<Vec<_>>();
    let all = vault.listed(AuditFilter::default(), None, 10).await;
    assert_eq!(all.len(), 4);
    assert!(all.is_sorted_by(|newer, older| newer.id > older.id));
    let rest = vault
        .listed(AuditFilter::default(), Some(&all[2].id), 3)
        .await;
    assert_eq!(ids(&rest), ids(&all[3..]));

    let one = AuditFilter {
        subject: Some("one".to_owned()),
        ..AuditFilter::default()
    };
    assert_eq!(
        ids(&vault.listed(one.clone(), None, 10).await),
        ids(&[&all[..1], &all[2..]].concat())
    );
    let both = AuditFilter {
        action: Some("b".to_owned()),
        ..one
    };
    let found = vault.listed(both, None, 10).await;
    assert_eq!((found.len(), word(&found[0], "action").as_str()), (1, "b"));
    let actor = |id: &str| AuditFilter {
        actor: Some(id.to_owned()),
        ..AuditFilter::default()
    };
    let found = vault.listed(actor("system:test"), None, 10).await;
    assert_eq!(ids(&found), ids(&all));
    let found = vault.listed(actor("system:other"), None, 10).await;
    assert!(found.is_empty());
    let between = AuditFilter {
        since: Some(marks[1]),
        until: Some(marks[3]),
        ..AuditFilter::default()
    };
    let found = vault.listed(between, None, 10).await;
    assert_eq!(ids(&found), ids(&all[1..3]));
    let refused = AuditFilter {
        result: Some("refused".to_owned()),
        ..AuditFilter::default()
    };
    assert!(vault.listed(refused, None, 10).await.is_empty());
}

#[tokio::test]
async fn reading_the_record_is_on_record_once_a_query_and_not_once_a_page() {
    let vault = vault().await;
    for subject in ["one", "two", "three"] {
        vault.put("a", subject).await;
    }
    let (permit, audit) = (vault.permit().await, vault.escrow.audit());
    let filter = AuditFilter {
        action: Some("a".to_owned()),
        ..AuditFilter::default()
    };
    let first = audit.list(&permit, &filter, None, 1).await.unwrap();
    let after = Some(first[0].id.as_str());
    audit.list(&permit, &filter, after, 1).await.unwrap();
    let mut export = audit.export(&permit, AuditFilter::default()).await.unwrap();
    let mut exported = Vec::new();
    loop {
        let rows = export.next().await.unwrap();
        if rows.is_empty() {
            break;
        }
        exported.extend(rows);
        // What comes after the export began is no part of it.
        vault.put("a", "later").await;
    }
    let actions: Vec<_> = exported.iter().map(|row| word(row, "action")).collect();
    assert_eq!(actions, ["a", "a", "a", "audit.read", "audit.export"]);
    let read: Json = serde_json::from_str(&exported[3].text).unwrap();
    assert_eq!(read["details"], json!({"filter": {"action": "a"}}));
}

#[tokio::test]
async fn a_row_is_never_changed_or_deleted() {
    let vault = vault().await;
    vault.put("a", "one").await;
    vault.seal().await;
    vault.checkpoint().await;
    for sql in [
        "UPDATE audit SET subject = 'two'",
        "DELETE FROM audit",
        "UPDATE audit_chain SET link = ''",
        "DELETE FROM audit_chain",
        "UPDATE audit_checkpoints SET at = 0",
        "DELETE FROM audit_checkpoints",
    ] {
        assert!(vault.run(sql).await.is_err(), "{sql}");
    }
    assert!(vault.verify(&[]).await.is_ok());
}
