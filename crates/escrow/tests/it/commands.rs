//! The queue of commands for MDMs, as a courier sees it (R8).

use std::time::Duration;

use activation_lock::asking::Trigger;
use activation_lock::observation::{EnrollmentKind, Event, Observation};
use activation_lock::time::DAY;
use escrow::commands::Command;
use escrow::permit::{Permit, Read};
use escrow::record::Incoming;

use crate::support::{Vault, open_in};

const LEASE: Duration = Duration::from_secs(600);

/// An enrollment is seen for the first time: two questions become due (R6).
async fn adopt(vault: &Vault, connection: &str, enrollment: &str) -> String {
    let connection = vault.connection(connection).await;
    let incoming = Incoming {
        connection: vault.connection_ref(&connection),
        digest: vault.next_digest(),
        observation: Observation {
            enrollment: enrollment.to_owned(),
            kind: EnrollmentKind::Device,
            at: vault.now(),
            event: Event::Seen,
        },
    };
    vault.escrow.record(incoming).await.unwrap();
    connection
}

async fn take(vault: &Vault, except: &[String]) -> Vec<Command> {
    let commands = vault.escrow.commands();
    commands.take_due(100, LEASE, except).await.unwrap()
}

#[tokio::test]
async fn r8_an_mdm_that_is_left_alone_keeps_no_other_waiting() {
    let vault = Vault::new().await;
    let dead = adopt(&vault, "dead", "UDID-1").await;
    let alive = adopt(&vault, "alive", "UDID-2").await;
    let except = [dead.clone()];
    let commands = vault.escrow.commands();
    assert!(commands.next_due(&except).await.unwrap().is_some());
    let taken = take(&vault, &except).await;
    assert_eq!(taken.len(), 2);
    assert!(taken.iter().all(|command| command.connection == alive));
    for command in &taken {
        commands.queued(command).await.unwrap();
    }
    assert_eq!(commands.next_due(&except).await.unwrap(), None);
    assert_eq!(commands.next_due(&[]).await.unwrap(), Some(vault.now()));
    let rest = take(&vault, &[]).await;
    assert!(rest.len() == 2 && rest.iter().all(|command| command.connection == dead));
}

#[tokio::test]
async fn r8_when_an_mdm_is_back_what_waited_for_it_is_due_at_once() {
    let vault = Vault::new().await;
    let connection = adopt(&vault, "mdm", "UDID-1").await;
    let other = adopt(&vault, "other", "UDID-2").await;
    let commands = vault.escrow.commands();
    for command in &take(&vault, &[]).await {
        let reason = "the MDM cannot be reached";
        commands.not_queued(command, reason, 0).await.unwrap();
    }
    assert!(take(&vault, &[]).await.is_empty());
    assert_eq!(commands.hurry(&connection).await.unwrap(), 2);
    let taken = take(&vault, &[]).await;
    assert_eq!(taken.len(), 2);
    assert!(taken.iter().all(|command| command.connection != other));
}

#[tokio::test]
async fn an_mdm_that_takes_no_commands_several_times_in_a_row_is_named_with_its_reason() {
    let vault = Vault::new().await;
    adopt(&vault, "mdm", "UDID-1").await;
    vault.connection("other").await;
    let permit: Permit<Read> = vault.permit("today").await;
    let connections = vault.escrow.connections();
    let found = async || connections.not_taking_commands(&permit).await.unwrap();
    let commands = vault.escrow.commands();
    for tries in 1..=3 {
        assert!(found().await.is_empty(), "{tries}");
        for command in &take(&vault, &[]).await {
            commands
                .not_queued(command, "it answers 500", 0)
                .await
                .unwrap();
        }
        vault.clock.advance(DAY);
    }
    assert_eq!(
        found().await,
        [("mdm".to_owned(), "it answers 500".to_owned())]
    );
    for command in &take(&vault, &[]).await {
        commands.queued(command).await.unwrap();
    }
    assert!(found().await.is_empty());
}

#[tokio::test]
async fn r8_what_a_dead_courier_held_is_free_when_the_vault_opens() {
    let vault = Vault::in_a_file().await;
    adopt(&vault, "mdm", "UDID-1").await;
    assert_eq!(take(&vault, &[]).await.len(), 2);
    assert!(take(&vault, &[]).await.is_empty());
    vault.escrow.close().await;
    let again = open_in(
        vault.escrow.folder(),
        escrow::Database::Embedded,
        &vault.clock,
        3,
    )
    .await
    .unwrap();
    let taken = again.commands().take_due(100, LEASE, &[]).await.unwrap();
    assert_eq!(taken.len(), 2);
}

#[tokio::test]
async fn r8_planning_wakes_the_courier_and_asking_all_wakes_the_planning() {
    let vault = Vault::new().await;
    adopt(&vault, "mdm", "UDID-1").await;
    let commands = vault.escrow.commands();
    for command in &take(&vault, &[]).await {
        commands.queued(command).await.unwrap();
    }
    // The permit that the first sight left.
    vault.escrow.courier_woken().await;
    vault.clock.advance(Duration::from_secs(1));
    assert_eq!(
        commands
            .ask_all(None, Trigger::Downtime, false)
            .await
            .unwrap(),
        1
    );
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, vault.escrow.asks_woken())
        .await
        .expect("asking all leaves work for the planning");
    assert_eq!(commands.plan_due(10).await.unwrap(), 1);
    tokio::time::timeout(patience, vault.escrow.courier_woken())
        .await
        .expect("what was planned is for the courier");
    assert!(!take(&vault, &[]).await.is_empty());
}
