//! Signs that make up for events that were lost, and a sign that decides nothing.

use activation_lock::asking::Trigger;

use super::*;

#[tokio::test]
async fn r6_a_lost_token_update_is_made_up_for_by_the_next_poll() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.authenticate().await;
    assert!(
        mdm.collect().await.is_empty(),
        "its enrolment is not complete as far as anybody said"
    );
    let known = async || {
        let connection = vault.connection_ref(&mdm.connection);
        let enrollments = vault.escrow.enrollments();
        enrollments.is_known(&connection, "E1").await.unwrap()
    };
    assert!(!known().await, "its poll is news");
    // A poll that was sent before the Authenticate proves nothing of what came after it.
    mdm.tell_at(vault.now().minus(DAY), Event::Seen).await;
    assert!(mdm.collect().await.is_empty());
    mdm.tell(Event::Seen).await;
    assert!(known().await);
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&asked, CODE_A).await;
    assert_eq!(mdm.device().await.epochs.len(), 1);
    assert_eq!(mdm.current().await.as_deref(), Some(CODE_A));
}

#[tokio::test]
async fn r1_a_code_told_before_the_serial_number_is_kept_through_a_new_enrolment() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.tell(Event::Seen).await;
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&asked, CODE_A).await;
    // Erased and enrolled anew before it was asked, or had said, who it is; a crash in between loses nothing.
    mdm.enrol().await;
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&asked, CODE_B).await;
    holds_a_as_a_candidate_and_b_as_current(&vault).await;
}

#[tokio::test]
async fn r1_a_code_told_before_the_serial_number_is_kept_through_a_check_out() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.tell(Event::Seen).await;
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&asked, CODE_A).await;
    mdm.tell(Event::CheckOut).await;
    vault.clock.advance(DAY);
    mdm.enrol().await;
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&asked, CODE_B).await;
    holds_a_as_a_candidate_and_b_as_current(&vault).await;
}

async fn holds_a_as_a_candidate_and_b_as_current(vault: &Vault) {
    let held = vault.reveal("SERIAL1").await;
    let held: Vec<_> = held
        .iter()
        .map(|code| (code.text.expose().to_owned(), code.view.current))
        .collect();
    assert!(held.len() == 2);
    assert!(held.contains(&(CODE_A.to_owned(), false)), "a candidate");
    assert!(held.contains(&(CODE_B.to_owned(), true)), "the current one");
}

#[tokio::test]
async fn r8_after_a_crash_a_question_that_may_have_reached_the_mdm_is_asked_again() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let commands = vault.escrow.commands();
    // Taken to its MDM, and nobody lived to note what became of it.
    let taken = commands.take_due(10, DAY, &[]).await.unwrap();
    let asked = |all: &[Command]| {
        let codes = all.iter().filter(|c| c.what == CommandType::BypassCode);
        codes.map(|c| c.id.clone()).collect::<Vec<_>>()
    };
    vault.clock.advance(Duration::from_secs(60));
    commands
        .ask_all(None, Trigger::Downtime, false)
        .await
        .unwrap();
    commands.plan_due(10).await.unwrap();
    let again = mdm.collect().await;
    assert_eq!(asked(&again).len(), 1);
    assert_ne!(asked(&again), asked(&taken), "under a name of its own");
}

#[tokio::test]
async fn r8_every_question_whose_answer_may_be_lost_is_asked_again_after_a_crash() {
    let vault = Vault::new().await;
    vault.user_lock_policy("allow").await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect().await;
    let of = |all: &[Command], what: CommandType| all.iter().find(|c| c.what == what).cloned();
    let code = of(&asked, CommandType::BypassCode).unwrap();
    let mac = DeviceInformation {
        product_type: "Mac14,2".parse().ok(),
        ..mdm.information()
    };
    mdm.answer_code(&code, CODE_A).await;
    let information = of(&asked, CommandType::DeviceInformation).unwrap();
    mdm.answer_information(&information, mac).await;
    // The Mac is asked whether its lock can be managed; that answer, and one to a newer question, are lost with us.
    let security = mdm.collect_one(CommandType::SecurityInfo).await;
    let commands = vault.escrow.commands();
    vault.clock.advance(Duration::from_secs(60));
    commands
        .ask_all(None, Trigger::Downtime, false)
        .await
        .unwrap();
    commands.plan_due(10).await.unwrap();
    let again = mdm.collect().await;
    for what in [
        CommandType::SecurityInfo,
        CommandType::BypassCode,
        CommandType::DeviceInformation,
    ] {
        assert!(of(&again, what).is_some(), "{}", what.request_type());
    }
    assert_ne!(
        of(&again, CommandType::SecurityInfo).unwrap().id,
        security.id
    );
    // Nothing was lost since: nothing is asked over and over.
    commands.plan_due(10).await.unwrap();
    mdm.tell(Event::Seen).await;
    assert!(mdm.collect().await.is_empty());
}

#[tokio::test]
async fn r11_the_devices_own_word_on_its_lock_decides_nothing() {
    let mut seen = Vec::new();
    for hint in [None, Some(false), Some(true)] {
        let vault = Vault::new().await;
        vault.user_lock_policy("allow").await;
        let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
        mdm.enrol().await;
        let asked = mdm.collect().await;
        let of = |what| asked.iter().find(|c: &&Command| c.what == what).unwrap();
        let information = DeviceInformation {
            activation_lock_hint: hint,
            ..mdm.information()
        };
        mdm.answer_information(of(CommandType::DeviceInformation), information)
            .await;
        mdm.answer_code(of(CommandType::BypassCode), CODE_A).await;
        let next: Vec<_> = mdm.collect().await.into_iter().map(|c| c.what).collect();
        let device = mdm.device().await;
        assert_eq!(device.epochs[0].facts.lock_hint, hint, "it is shown");
        seen.push((next, device.summary.coverage, device.codes[0].doubt.clone()));
    }
    let allowed = CommandType::LockPermission { allowed: true };
    assert_eq!(seen[0], (vec![allowed], CoverageState::Covered, None));
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
}
