//! Codes taken away: all of them, once, each on record; and not by whoever may not.

use std::collections::BTreeSet;

use activation_lock::device::SerialNumber;
use escrow::approvals::{Action, Decided, Leave, Policy, Unfit};
use escrow::exports::{Export, ExportForm, NewExport};
use escrow::permit::{self, Actor, Approve, Permit, Refusal, Role};
use escrow::{Error, Result};
use serde_json::Value;

use crate::beside::{audit_texts, damage};
use crate::people::settled;
use crate::support::{CODE_A, CODE_B, Vault};

fn sealed_for(recipient: &str) -> ExportForm {
    ExportForm::Sealed([recipient.to_owned()].into())
}

async fn begin(vault: &Vault, actor: &Actor, leave: Leave, form: ExportForm) -> Result<Export> {
    let actor = actor.clone().with_leave(leave);
    let permit: Permit<permit::Export> = vault
        .escrow
        .authorise(&actor, &vault.organisation, "codes")
        .await?;
    let new = NewExport {
        devices: BTreeSet::new(),
        form,
        reason: "leaving".to_owned(),
    };
    vault.escrow.exports().begin(&permit, new).await
}

fn refusal<T>(result: Result<T>) -> Refusal {
    match result {
        Err(Error::Refused(refusal)) => refusal,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was allowed"),
    }
}

fn asked<T>(result: Result<T>) -> String {
    match refusal(result) {
        Refusal::Asked { approval } => approval,
        other => panic!("{other}"),
    }
}

async fn say_yes(vault: &Vault, actor: &Actor, id: &str) {
    let permit: Permit<Approve> = vault
        .escrow
        .authorise(actor, &vault.organisation, id)
        .await
        .unwrap();
    vault
        .escrow
        .approvals()
        .decide(&permit, id, true, None)
        .await
        .unwrap();
}

#[tokio::test]
async fn every_code_is_given_out_once_and_each_batch_names_its_codes_on_record() {
    let vault = Vault::new().await;
    for number in 0..600 {
        let text = format!("opaque {number}");
        vault
            .type_code(&format!("EXPORTED{number:04}"), &text)
            .await;
    }
    // A device with several.
    vault.type_code("EXPORTED0599", CODE_A).await;
    vault.type_code("EXPORTED0599", CODE_B).await;
    let mut export = begin(&vault, &vault.actor, Leave::Plain, sealed_for("age1x"))
        .await
        .unwrap();
    let (mut texts, mut ids, mut batches) = (BTreeSet::new(), Vec::new(), 0);
    loop {
        let codes = export.next().await.unwrap();
        if codes.is_empty() {
            break;
        }
        batches += 1;
        for code in &codes {
            texts.insert(code.text.as_ref().unwrap().expose().to_owned());
            ids.push(code.id.0.clone());
        }
    }
    assert!(export.next().await.unwrap().is_empty());
    assert_eq!((batches, ids.len(), texts.len()), (2, 602, 602));
    assert!(texts.contains(CODE_A) && texts.contains(CODE_B));

    let (mut on_record, mut actions) = (Vec::new(), Vec::new());
    for text in audit_texts(&vault).await {
        assert!(!text.contains(CODE_A) && !text.contains("opaque"));
        let row: Value = serde_json::from_str(&text).unwrap();
        let action = row["action"].as_str().unwrap().to_owned();
        if action == "code.exported" {
            let codes = row["details"]["codes"].as_str().unwrap();
            on_record.extend(codes.split(' ').map(str::to_owned));
        }
        if action.starts_with("code.export") {
            actions.push(action);
        }
    }
    assert!(on_record == ids, "the same codes, in the same order");
    assert_eq!(
        actions,
        [
            "code.export",
            "code.exported",
            "code.exported",
            "code.export_ended"
        ]
    );
    let seen = vault.device("EXPORTED0000").await.codes.remove(0).revealed;
    assert!(seen.is_some(), "it is marked as seen");
}

#[tokio::test]
async fn only_the_named_devices_go_and_a_damaged_code_goes_without_its_text() {
    let vault = Vault::new().await;
    for (serial, code) in [
        ("WANTED000001", CODE_A),
        ("WANTED000002", CODE_B),
        ("NOTWANTED001", "x"),
    ] {
        vault.type_code(serial, code).await;
    }
    let id = vault.device("WANTED000002").await.codes.remove(0).id.0;
    damage(&vault, &id).await;
    let permit: Permit<permit::Export> = vault.permit("codes").await;
    let devices = ["WANTED000002", "WANTED000001", "NOSUCHDEVICE"];
    let new = NewExport {
        devices: devices
            .iter()
            .map(|serial| serial.parse::<SerialNumber>().unwrap())
            .collect(),
        form: sealed_for("age1x"),
        reason: "repair".to_owned(),
    };
    let mut export = vault.escrow.exports().begin(&permit, new).await.unwrap();
    let codes = export.next().await.unwrap();
    let given: Vec<_> = codes
        .iter()
        .map(|code| (code.serial.as_str(), code.text.is_some()))
        .collect();
    assert_eq!(given, [("WANTED000001", true), ("WANTED000002", false)]);
    assert!(export.next().await.unwrap().is_empty());
    let texts = audit_texts(&vault).await;
    assert!(
        texts
            .iter()
            .any(|text| text.contains("\"damaged\"") && text.contains(&id))
    );
}

/// Who may export must not get around what seeing a code takes.
#[tokio::test]
async fn an_export_takes_what_a_reveal_takes_and_is_bound_to_whom_it_is_for() {
    let vault = Vault::new().await;
    vault.type_code("EXPORTED0001", CODE_A).await;
    let desk = settled(&vault, "desk", &[Role::Revealer]).await;
    let max = settled(&vault, "max", &[Role::Approver]).await;
    let desk = desk.actor(&vault).await;
    assert!(
        begin(&vault, &desk, Leave::Plain, sealed_for("age1x"))
            .await
            .is_ok()
    );
    let one = Policy {
        people: 1,
        ..Policy::default()
    };
    let permit = vault.permit("policy").await;
    vault
        .escrow
        .policies()
        .set(&permit, Action::Reveal, one)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        refusal(begin(&vault, &desk, Leave::Plain, sealed_for("age1x")).await).name(),
        "approval_needed"
    );
    let asking = || Leave::Asking("leaving".to_owned());
    let id = asked(begin(&vault, &desk, asking(), sealed_for("age1x")).await);
    say_yes(&vault, &max.actor(&vault).await, &id).await;
    for other in [sealed_for("age1eve"), ExportForm::Plain] {
        let refused = begin(&vault, &desk, Leave::Under(id.clone()), other).await;
        assert!(matches!(
            refusal(refused),
            Refusal::Unfit {
                unfit: Unfit::OtherTargets
            }
        ));
    }
    let under = || Leave::Under(id.clone());
    let mut export = begin(&vault, &desk, under(), sealed_for("age1x"))
        .await
        .unwrap();
    assert_eq!(export.next().await.unwrap().len(), 1);
    let again = begin(&vault, &desk, under(), sealed_for("age1x")).await;
    assert!(matches!(
        refusal(again),
        Refusal::Unfit { unfit: Unfit::Used }
    ));
}

#[tokio::test]
async fn an_export_without_anothers_approval_counts_as_a_reveal_of_each_device() {
    let vault = Vault::new().await;
    for number in 0..15 {
        vault
            .type_code(&format!("EXPORTED{number:04}"), CODE_A)
            .await;
    }
    let desk = settled(&vault, "desk", &[Role::Revealer]).await;
    let export =
        async |actor: &Actor| begin(&vault, actor, Leave::Plain, sealed_for("age1x")).await;
    let actor = desk.actor(&vault).await;
    assert!(export(&actor).await.is_ok());
    assert_eq!(refusal(export(&actor).await).name(), "quota", "20 an hour");
    vault.clock.advance(std::time::Duration::from_secs(3_601));
    assert!(export(&desk.actor(&vault).await).await.is_ok());
}

#[tokio::test]
async fn what_anybody_can_read_takes_another_person_without_any_policy() {
    let vault = Vault::new().await;
    vault.type_code("EXPORTED0001", CODE_A).await;
    let desk = settled(&vault, "desk", &[Role::Revealer, Role::Approver]).await;
    let max = settled(&vault, "max", &[Role::Approver]).await;
    let desk = desk.actor(&vault).await;
    assert_eq!(
        refusal(begin(&vault, &desk, Leave::Plain, ExportForm::Plain).await).name(),
        "approval_needed"
    );
    let asking = Leave::Asking("leaving".to_owned());
    let id = asked(begin(&vault, &desk, asking, ExportForm::Plain).await);
    let permit: Permit<Approve> = vault
        .escrow
        .authorise(&desk, &vault.organisation, &*id)
        .await
        .unwrap();
    let own = vault
        .escrow
        .approvals()
        .decide(&permit, &id, true, None)
        .await;
    assert!(matches!(own.unwrap(), Decided::Own));
    assert!(
        begin(&vault, &desk, Leave::Under(id.clone()), ExportForm::Plain)
            .await
            .is_err()
    );
    say_yes(&vault, &max.actor(&vault).await, &id).await;
    let mut export = begin(&vault, &desk, Leave::Under(id), ExportForm::Plain)
        .await
        .unwrap();
    assert_eq!(export.next().await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_export_stops_where_whoever_asked_for_it_is_shut_out() {
    let vault = Vault::new().await;
    vault.type_code("EXPORTED0001", CODE_A).await;
    let desk = settled(&vault, "desk", &[Role::Revealer]).await;
    let actor = desk.actor(&vault).await;
    let mut export = begin(&vault, &actor, Leave::Plain, sealed_for("age1x"))
        .await
        .unwrap();
    let permit = vault.permit("people").await;
    let scope = permit::Scope::One(vault.organisation.clone());
    vault
        .escrow
        .people()
        .set_roles(&permit, &desk.view.id, &scope, &[Role::Viewer])
        .await
        .unwrap()
        .unwrap();
    assert_eq!(refusal(export.next().await).name(), "no_permission");
}
