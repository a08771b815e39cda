//! What lists, `doctor` and the metrics look at.

use std::time::Duration;

use escrow::audit::Unauthenticated;
use escrow::permit::{Admin, Audit, Connections, Permit, Read};
use escrow::replicas::Replica;

use crate::beside::audit_texts;
use crate::support::{CODE_A, Vault};

#[tokio::test]
async fn connections_are_listed_and_those_that_were_removed_where_that_is_asked_for() {
    let vault = Vault::new().await;
    for name in ["two", "one"] {
        vault.connection(name).await;
    }
    let permit: Permit<Read> = vault.permit("connections").await;
    let connections = vault.escrow.connections();
    let names = |views: Vec<escrow::connections::ConnectionView>| {
        let names = views.into_iter().map(|view| view.name);
        names.collect::<Vec<_>>()
    };
    assert_eq!(
        names(connections.list(&permit).await.unwrap()),
        ["one", "two"]
    );
    let may: Permit<Connections> = vault.permit("two").await;
    connections.remove(&may, "two").await.unwrap().unwrap();
    assert_eq!(names(connections.list(&permit).await.unwrap()), ["one"]);
    let all = connections.list_with_removed(&permit).await.unwrap();
    assert_eq!(names(all), ["one", "two"]);
}

#[tokio::test]
async fn coverage_is_counted_in_an_organisation_and_in_all() {
    let vault = Vault::new().await;
    vault.type_code("SERIAL000001", CODE_A).await;
    let permit: Permit<Read> = vault.permit("coverage").await;
    let coverage = vault.escrow.coverage();
    let own = coverage.report(&permit).await.unwrap();
    assert_eq!(own.covered + own.missing + own.exempt, 1);
    let all = coverage.total().await.unwrap();
    assert_eq!((all.covered, all.missing), (own.covered, own.missing));
}

#[tokio::test]
async fn how_many_codes_are_held_is_kept_day_by_day() {
    let vault = Vault::new().await;
    let permit: Permit<Read> = vault.permit("coverage").await;
    let coverage = vault.escrow.coverage();
    let days = async || {
        let days = coverage.days(&permit, 90).await.unwrap();
        days.iter().map(|day| day.covered).collect::<Vec<_>>()
    };
    coverage.note_day().await.unwrap();
    assert_eq!(days().await, [0]);
    vault.type_code("SERIAL000001", CODE_A).await;
    coverage.note_day().await.unwrap();
    assert_eq!(
        days().await,
        [1],
        "the last look at a day is what is kept of it"
    );
    vault.clock.advance(Duration::from_secs(3 * 24 * 60 * 60));
    coverage.note_day().await.unwrap();
    assert_eq!(days().await, [1, 1]);
    vault.clock.advance(Duration::from_secs(88 * 24 * 60 * 60));
    assert_eq!(days().await, [1], "older ones are not asked for");
}

#[tokio::test]
async fn replicas_live_while_they_are_heard_of_and_end() {
    let vault = Vault::new().await;
    let replicas = vault.escrow.replicas();
    let replica = |name: &str| Replica {
        id: format!("id-{name}"),
        node: format!("node-{name}"),
        host: "host".to_owned(),
        version: "0.0.0".to_owned(),
        roles: "serve work".to_owned(),
    };
    for name in ["one", "two"] {
        replicas.beat(&replica(name)).await.unwrap();
        vault.clock.advance(Duration::from_secs(1));
    }
    let alive = async || {
        let listed = replicas.list().await.unwrap();
        let alive = listed.into_iter().filter(|view| view.is_alive);
        alive.map(|view| view.replica.id).collect::<Vec<_>>()
    };
    let mut both = alive().await;
    both.sort();
    assert_eq!(both, ["id-one", "id-two"]);
    replicas.end("id-one").await.unwrap();
    assert_eq!(alive().await, ["id-two"]);
    // Another process with the same folder takes its place.
    let again = Replica {
        id: "id-two-again".to_owned(),
        ..replica("two")
    };
    replicas.beat(&again).await.unwrap();
    assert_eq!(alive().await, ["id-two-again"]);
}

#[tokio::test]
async fn who_looked_at_the_record_where_it_does_not_go_and_whom_nobody_knew_is_on_record() {
    let vault = Vault::new().await;
    let permit: Permit<Audit> = vault.permit("audit").await;
    let audit = vault.escrow.audit();
    audit.note_verification(&permit, None).await.unwrap();
    audit.undelivered("syslog", "nobody listens").await.unwrap();
    let outlets = audit.outlets().await.unwrap();
    assert_eq!(outlets.len(), 1);
    assert_eq!(outlets[0].failure.as_deref(), Some("nobody listens"));
    audit
        .unauthenticated(vec![Unauthenticated {
            kind: "token",
            address: Some("192.0.2.1".to_owned()),
            count: 7,
            first_at: vault.now(),
            last_at: vault.now(),
        }])
        .await
        .unwrap();
    let texts = audit_texts(&vault).await.join("\n");
    for part in ["audit.verify", "192.0.2.1", "\"count\":7"] {
        assert!(texts.contains(part), "{part}: {texts}");
    }
}

#[tokio::test]
async fn backups_are_listed_forgotten_and_given_up_when_they_cannot_be_written() {
    let vault = Vault::new().await;
    let folder = tempfile::tempdir().unwrap();
    let permit: Permit<Admin> = vault.permit("backup").await;
    let backups = vault.escrow.backups();
    let nowhere = folder.path().join("no such folder/vault.backup");
    assert!(backups.make(&permit, &nowhere, "lost", None).await.is_err());
    let file = folder.path().join("vault.backup");
    backups.make(&permit, &file, "kept", None).await.unwrap();
    let listed = backups.list(&permit).await.unwrap();
    let live: Vec<_> = listed
        .iter()
        .filter(|backup| backup.forgotten_at.is_none())
        .collect();
    assert_eq!(live.len(), 1, "one was given up");
    assert_eq!(live[0].name, "kept");
    let id = live[0].id.clone();
    assert!(backups.forget(&permit, &id).await.unwrap());
    assert!(!backups.forget(&permit, &id).await.unwrap());
}
