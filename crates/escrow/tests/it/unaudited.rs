//! What cannot be put on the audit record does not happen.

use std::time::Duration;

use activation_lock::device::SerialNumber;
use escrow::Error;
use escrow::audit::AuditFilter;
use escrow::devices::Corrections;
use escrow::exports::{ExportForm, NewExport};
use escrow::operations::NewUnlock;
use escrow::permit::{
    Admin, Audit, Edit, Export, Permissions, Permit, Purge, Reveal, Role, Scope, Unlock,
};
use escrow::principals::NewToken;
use escrow::sessions::{Identity, Origin, Rules};

use crate::beside::{Beside, audit_texts};
use crate::support::{CODE_A, Vault};

#[tokio::test]
async fn without_its_row_nothing_is_revealed_made_asked_for_changed_or_read() {
    let vault = Vault::new().await;
    vault.type_code("SERIAL1", CODE_A).await;
    let serial: SerialNumber = "SERIAL1".parse().unwrap();
    let set = Corrections {
        product_type: "iPhone14,5".parse().ok(),
        ..Corrections::default()
    };
    let edit: Permit<Edit> = vault.permit("SERIAL1").await;
    let devices = vault.escrow.devices();
    devices.correct(&edit, &serial, &set).await.unwrap();
    let reveal: Permit<Reveal> = vault.permit("SERIAL1").await;
    let unlock: Permit<Unlock> = vault.permit("SERIAL1").await;
    let admin: Permit<Admin> = vault.permit("token").await;
    let audit: Permit<Audit> = vault.permit("audit").await;
    let wish = || NewUnlock {
        serial: serial.clone(),
        reason: "returned".to_owned(),
        requester: "desk@example.org".to_owned(),
        insists: false,
        urgent: false,
        idempotency: None,
    };
    let new = || NewToken {
        name: "a token".to_owned(),
        scope: Scope::One(vault.organisation.clone()),
        permissions: Permissions::of_scope("read").unwrap(),
        expires_at: Some(vault.now().plus(Duration::from_secs(60))),
    };
    let export: Permit<Export> = vault.permit("codes").await;
    let purge: Permit<Purge> = vault.permit("SERIAL1").await;
    let wanted = || NewExport {
        devices: [].into(),
        form: ExportForm::Sealed(["age1x".to_owned()].into()),
        reason: "leaving".to_owned(),
    };
    let mut begun = vault
        .escrow
        .exports()
        .begin(&export, wanted())
        .await
        .unwrap();
    let identity = || Identity {
        issuer: "https://id.example.org".to_owned(),
        subject: "00u-zoe".to_owned(),
        login: "zoe".to_owned(),
        name: "Zoe".to_owned(),
        email: None,
        roles: vec![(Scope::All, Role::Viewer)],
    };
    let failed = |error: Option<Error>| assert!(matches!(error, Some(Error::Database(_))));
    let escrow = &vault.escrow;
    let before = audit_texts(&vault).await.len();
    let mut beside = Beside::of(escrow.folder()).await;
    for (kind, table) in [("INSERT", "audit"), ("UPDATE", "audit_writers")] {
        beside.refuse(kind, table).await;
        failed(escrow.codes().reveal(&reveal, &serial, "why").await.err());
        failed(escrow.principals().create_token(&admin, new()).await.err());
        failed(escrow.operations().enqueue(&unlock, wish()).await.err());
        let other = Corrections {
            product_type: "iPad4,1".parse().ok(),
            ..Corrections::default()
        };
        failed(devices.correct(&edit, &serial, &other).await.err());
        let all = AuditFilter::default();
        failed(escrow.audit().list(&audit, &all, None, 10).await.err());
        failed(escrow.audit().export(&audit, all).await.err());
        failed(escrow.exports().begin(&export, wanted()).await.err());
        failed(begun.next().await.err());
        failed(devices.purge(&purge, &serial, "sold", false).await.err());
        let (origin, rules) = (Origin::default(), Rules::default());
        let sessions = escrow.sessions();
        let signed_in = sessions.sign_in_with_provider(identity(), origin, rules);
        failed(signed_in.await.err());
        beside.allow(kind, table).await;
    }
    assert_eq!(audit_texts(&vault).await.len(), before);
    let device = vault.device("SERIAL1").await;
    assert!(device.codes[0].revealed.is_none() && device.unlocks.is_empty());
    assert_eq!(device.summary.product_type, set.product_type);
    let tokens = escrow.principals().list_tokens(&admin).await.unwrap();
    assert!(tokens.is_empty());
    let people = escrow.people().list(&admin).await.unwrap();
    assert!(people.is_empty(), "nobody became known");
    // And everything works again.
    assert_eq!(
        begun.next().await.unwrap().len(),
        1,
        "nothing was passed over"
    );
    assert_eq!(vault.reveal("SERIAL1").await.len(), 1);
    let mut verifier = escrow.audit().verifier();
    assert_eq!(verifier.record().await.unwrap(), None);
}
