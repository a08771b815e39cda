//! A permit whose token was revoked meanwhile opens and changes nothing, and that it was tried is on record.

use activation_lock::codes::{CodeKind, CodeText};
use activation_lock::device::SerialNumber;
use escrow::audit::AuditFilter;
use escrow::codes::TypedCode;
use escrow::devices::Corrections;
use escrow::operations::NewUnlock;
use escrow::permit::{Edit, Right, Unlock};

use super::*;
use crate::support::CODE_A;

/// A permit of a token that has been revoked since.
async fn held<P: Right>(vault: &Vault, scope: &str) -> Permit<P> {
    let (view, text) = token(vault, scope).await;
    let who = actor(vault, &text).await;
    let authorised = vault.escrow.authorise(&who, &vault.organisation, "SERIAL1");
    let held = authorised.await.unwrap();
    let permit: Permit<Admin> = vault.permit("token").await;
    let principals = vault.escrow.principals();
    principals.revoke_token(&permit, &view.id).await.unwrap();
    held
}

async fn on_record(vault: &Vault) -> usize {
    let rows = audit_texts(vault).await;
    let revoked = rows.iter().filter(|r| r.contains("\"result\":\"revoked\""));
    revoked.count()
}

#[tokio::test]
async fn r23_a_revoked_token_reveals_and_changes_nothing_and_every_try_is_on_record() {
    let vault = Vault::new().await;
    vault.type_code("SERIAL1", CODE_A).await;
    let serial: SerialNumber = "SERIAL1".parse().unwrap();
    let (escrow, mut tries) = (&vault.escrow, 0);
    let mut refused = async |refusal: Refusal| {
        assert_eq!(refusal, Refusal::Revoked);
        tries += 1;
        assert_eq!(on_record(&vault).await, tries);
    };

    let permit: Permit<Reveal> = held(&vault, "reveal").await;
    let codes = escrow.codes();
    refused(refusal(codes.reveal(&permit, &serial, "to see it").await)).await;

    let permit: Permit<Edit> = held(&vault, "admin").await;
    let typed = TypedCode {
        serial: serial.clone(),
        text: CodeText::new("another".to_owned()).unwrap(),
        kind: CodeKind::Unknown,
        note: None,
    };
    refused(refusal(codes.add_typed(&permit, typed).await)).await;

    let set = Corrections {
        product_type: "iPhone14,5".parse().ok(),
        ..Corrections::default()
    };
    let devices = escrow.devices();
    refused(refusal(devices.correct(&permit, &serial, &set).await)).await;

    let permit: Permit<escrow::permit::Refresh> = held(&vault, "unlock").await;
    let commands = escrow.commands();
    refused(refusal(commands.refresh(&permit, &serial).await)).await;

    let permit: Permit<Unlock> = held(&vault, "unlock").await;
    let wish = NewUnlock {
        serial: serial.clone(),
        reason: "returned".to_owned(),
        requester: "desk@example.org".to_owned(),
        insists: false,
        urgent: false,
        idempotency: None,
    };
    let operations = escrow.operations();
    refused(refusal(operations.enqueue(&permit, wish).await)).await;

    let permit: Permit<escrow::permit::Audit> = held(&vault, "audit").await;
    let (audit, all) = (escrow.audit(), AuditFilter::default());
    refused(refusal(audit.list(&permit, &all, None, 10).await)).await;

    let device = vault.device("SERIAL1").await;
    assert!(device.codes.len() == 1 && device.codes[0].revealed.is_none());
    assert!(device.summary.product_type.is_none() && device.unlocks.is_empty());
}

#[tokio::test]
async fn a_code_that_does_not_open_does_not_keep_the_others_from_whoever_needs_them() {
    let vault = Vault::new().await;
    vault.type_code("SERIAL1", CODE_A).await;
    vault.type_code("SERIAL1", "another").await;
    let codes = vault.device("SERIAL1").await.codes;
    damage(&vault, &codes[0].id.0).await;
    let revealed = vault.reveal("SERIAL1").await;
    assert_eq!(revealed.len(), 1);
    assert!(revealed[0].text.expose() == "another");
    let rows = audit_texts(&vault).await;
    let row = rows.iter().find(|r| r.contains("code.reveal")).unwrap();
    assert!(row.contains(&format!("\"damaged\":\"{}\"", codes[0].id.0)));
    assert!(row.contains(&format!("\"codes\":\"{}\"", codes[1].id.0)));
    let device = vault.device("SERIAL1").await;
    assert!(device.codes[0].revealed.is_none() && device.codes[1].revealed.is_some());

    damage(&vault, &codes[1].id.0).await;
    let permit = vault.permit("SERIAL1").await;
    let serial = "SERIAL1".parse().unwrap();
    let nothing = vault.escrow.codes().reveal(&permit, &serial, "again").await;
    assert!(matches!(nothing, Err(Error::Seal(_))));
    let rows = audit_texts(&vault).await;
    let tried = rows.iter().filter(|r| r.contains("code.reveal")).count();
    assert_eq!(tried, 2, "that it was tried stays on record");
}
