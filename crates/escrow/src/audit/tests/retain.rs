//! What stays verifiable when old rows are taken away.

use seal::Link;

use super::super::horizon::Horizon;
use super::super::retain::{RetainError, Retention};
use super::*;
use crate::clock::Clock as _;

/// Thirty rows a minute apart, sealed, with a checkpoint every ten; and the lines that went outside.
async fn thirty() -> (Vault, Vec<String>) {
    let vault = vault().await;
    let mut outside = Vec::new();
    for index in 1..=30 {
        vault.clock.advance(Duration::from_secs(60));
        vault.put("a", &format!("S{index}")).await;
        if index % 10 == 0 {
            vault.seal().await;
            outside.push(vault.checkpoint().await);
        }
    }
    (vault, outside)
}

fn minute(minutes: u64) -> Timestamp {
    START.plus(Duration::from_secs(60 * minutes))
}

fn retention<'a>(archive: &'a std::path::Path, minutes: u64) -> Retention<'a> {
    Retention {
        before: minute(minutes),
        reason: "kept for a year",
        archive,
        streams: &["stream file"],
    }
}

#[tokio::test]
async fn what_is_left_is_verified_from_a_signed_horizon_and_what_went_is_in_the_file() {
    let (vault, mut outside) = thirty().await;
    let archive = vault.folder.path().join("archive");
    let audit = vault.escrow.audit();
    let retained = audit.retain(retention(&archive, 15)).await.unwrap();
    let retained = retained.unwrap();
    assert_eq!((retained.rows, retained.position), (14, 14));
    vault.seal().await;
    outside.push(vault.checkpoint().await);
    let verified = vault.verify(&outside).await.unwrap();
    assert_eq!((verified.rows, verified.position), (17, 31));
    assert_eq!(verified.horizon.unwrap().0, 14);
    assert!(verified.is_proven() && verified.compared == 4);

    let text = std::fs::read_to_string(&archive).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 15);
    assert_eq!(lines[14], retained.horizon.to_line());
    // The file alone shows that it is whole: its rows link up to what the horizon says.
    let mut link = Link::NONE;
    for (line, position) in lines[..14].iter().zip(1..) {
        let row: Json = serde_json::from_str(line).unwrap();
        let text = entry::canonical(&row["text"]);
        let word = |name: &str| row[name].as_str().unwrap().to_owned();
        link = link.next(position, &text, &word("mac_key"), &word("mac"));
    }
    let horizon: Json = serde_json::from_str(&retained.horizon.text).unwrap();
    assert_eq!(horizon["link"], link.hex());

    let everywhere = vault
        .escrow
        .authorise::<permit::Audit>(&actor(), &OrganisationId::new("*"), "audit")
        .await
        .unwrap();
    let told = AuditFilter {
        action: Some("audit.retain".to_owned()),
        ..AuditFilter::default()
    };
    let rows = audit.list(&everywhere, &told, None, 10).await.unwrap();
    let said: Json = serde_json::from_str(&rows[0].text).unwrap();
    assert_eq!(
        (&said["reason"], &said["details"]["rows"]),
        (&json!("kept for a year"), &json!(14))
    );

    // The triggers hold for everything else.
    for sql in [
        "DELETE FROM audit WHERE subject = 'S15'",
        "DELETE FROM audit_chain WHERE position = 15",
        "DELETE FROM audit_checkpoints",
        "DELETE FROM audit_horizons",
        "UPDATE audit_horizons SET position = 20",
    ] {
        assert!(vault.run(sql).await.is_err(), "{sql}");
    }
    // Again, further on; the one before stays.
    let second = vault.folder.path().join("second");
    let audit = vault.escrow.audit();
    let retained = audit.retain(retention(&second, 21)).await.unwrap().unwrap();
    assert_eq!((retained.rows, retained.position), (6, 20));
    assert!(vault.verify(&outside).await.is_ok());
    let third = vault.folder.path().join("third");
    assert!(audit.retain(retention(&third, 21)).await.unwrap().is_none());
    assert!(!third.exists());
}

#[tokio::test]
async fn a_horizon_hides_no_edit() {
    for (drop, edit) in [
        (
            "audit_horizons_are_never_deleted",
            "DELETE FROM audit_horizons",
        ),
        (
            "audit_horizons_are_never_changed",
            "UPDATE audit_horizons SET position = 20",
        ),
        (
            "audit_horizons_are_never_changed",
            "UPDATE audit_horizons SET at = at + 1",
        ),
        (
            "audit_horizons_are_never_changed",
            "UPDATE audit_horizons SET text = replace(text, '\"position\":14', '\"position\":13')",
        ),
        (
            "audit_chain_is_never_deleted",
            "DELETE FROM audit_chain WHERE position = 15",
        ),
        (
            "audit_is_never_deleted",
            "DELETE FROM audit WHERE subject = 'S15'",
        ),
        (
            "audit_checkpoints_are_never_deleted",
            "DELETE FROM audit_checkpoints WHERE number = 2",
        ),
    ] {
        let (vault, outside) = thirty().await;
        let archive = vault.folder.path().join("archive");
        let audit = vault.escrow.audit();
        audit.retain(retention(&archive, 15)).await.unwrap();
        let table = edit
            .split(' ')
            .find(|word| word.starts_with("audit"))
            .unwrap();
        let of = said("", format!(" ON {table}").leak());
        let drop: &'static str = format!("DROP TRIGGER {drop}{of}").leak();
        vault.run(drop).await.unwrap();
        assert!(vault.run(edit).await.unwrap() >= 1, "{edit}");
        assert!(vault.verify(&outside).await.is_err(), "{edit}");
    }
}

#[tokio::test]
async fn a_removal_that_was_interrupted_is_verifiable_and_finished_by_the_next() {
    let (vault, outside) = thirty().await;
    let archive = vault.folder.path().join("archive");
    let audit = vault.escrow.audit();
    // The horizon is there, and no row has gone yet.
    let rows = audit.rows_after(0, 14).await.unwrap();
    let horizon = Horizon {
        position: 14,
        at: vault.clock.now(),
        link: Link::from_hex(rows[13].link.as_deref().unwrap()).unwrap(),
        writers: [(word(&rows[0], "writer"), 14)].into(),
        checkpoints: 1,
    };
    let retention = retention(&archive, 15);
    audit.begin(&retention, horizon, 14).await.unwrap();
    assert_eq!(vault.verify(&outside).await.unwrap().rows, 31);
    vault
        .run(said(
            "DROP TRIGGER audit_is_never_changed",
            "DROP TRIGGER audit_is_never_changed ON audit",
        ))
        .await
        .unwrap();
    vault
        .run("UPDATE audit SET actor = actor || 'x' WHERE subject = 'S7'")
        .await
        .unwrap();
    assert!(vault.verify(&outside).await.is_err());
    vault
        .run("UPDATE audit SET actor = 'system:test' WHERE subject = 'S7'")
        .await
        .unwrap();
    let audit = vault.escrow.audit();
    assert!(audit.retain(retention).await.unwrap().is_none());
    assert_eq!(vault.verify(&outside).await.unwrap().rows, 17);
}

#[tokio::test]
async fn nothing_is_removed_that_was_changed_not_sealed_or_not_given_outside() {
    let (vault, _) = thirty().await;
    let archive = vault.folder.path().join("archive");
    vault.put("a", "not sealed").await;
    let audit = vault.escrow.audit();
    audit.delivered("stream file", 5).await.unwrap();
    let behind = audit.retain(retention(&archive, 99)).await.unwrap_err();
    assert!(
        matches!(behind, RetainError::Behind { has: 5, .. }),
        "{behind}"
    );
    assert!(!archive.exists());
    audit.delivered("stream file", 30).await.unwrap();
    std::fs::write(&archive, "another's").unwrap();
    let taken = audit.retain(retention(&archive, 99)).await.unwrap_err();
    assert!(matches!(taken, RetainError::File { .. }), "{taken}");
    let other = vault.folder.path().join("other");
    let retained = audit.retain(retention(&other, 99)).await.unwrap().unwrap();
    assert_eq!(retained.rows, 30);
    // The row that was not sealed, and the one that tells of the removal.
    assert_eq!(vault.verify(&[]).await.unwrap().rows, 2);
    // The count goes on where it was.
    vault.seal().await;
    assert_eq!(vault.verify(&[]).await.unwrap().position, 32);

    vault
        .run(said(
            "DROP TRIGGER audit_is_never_changed",
            "DROP TRIGGER audit_is_never_changed ON audit",
        ))
        .await
        .unwrap();
    vault.run("UPDATE audit SET at = 0").await.unwrap();
    let third = vault.folder.path().join("third");
    let bad = audit.retain(retention(&third, 99)).await.unwrap_err();
    assert!(matches!(bad, RetainError::Bad(_)), "{bad}");
    assert!(!third.exists());
}
