//! Serial numbers that more than one enrollment claims, and enrollments that claim more than one (R5).

use escrow::organisations::Created;

use super::*;

async fn settle(vault: &Vault) -> usize {
    let enrollments = vault.escrow.enrollments();
    enrollments.settle_disputes().await.unwrap()
}

async fn states(mdm: &Mdm<'_>) -> Vec<EpochState> {
    let device = mdm.device().await;
    device.epochs.iter().map(|epoch| epoch.state).collect()
}

/// Two MDMs in which a device seems to be enrolled, the first of them for eight days, with a code.
async fn dispute(vault: &Vault) -> (Mdm<'_>, Mdm<'_>) {
    let one = Mdm::on(vault, "one", "E1", "SERIAL1").await;
    let two = Mdm::on(vault, "two", "E9", "SERIAL1").await;
    one.enrol().await;
    let asked = one.collect_one(CommandType::BypassCode).await;
    one.answer_code(&asked, CODE_A).await;
    // Polls of an enrollment that nobody disputes are not recorded.
    vault.clock.advance(DAY * 8);
    two.enrol().await;
    (one, two)
}

#[tokio::test]
async fn r5_silence_is_counted_from_the_start_of_a_dispute() {
    let vault = Vault::new().await;
    let (one, two) = dispute(&vault).await;
    assert_eq!(settle(&vault).await, 0, "nobody was listened for yet");
    assert_eq!(states(&one).await, [EpochState::Disputed; 2]);
    vault.clock.advance(DAY * 7 - Duration::from_secs(10));
    two.tell(Event::Seen).await;
    assert_eq!(settle(&vault).await, 0);
    vault.clock.advance(Duration::from_secs(10));
    assert_eq!(settle(&vault).await, 1);
    assert_eq!(states(&one).await, [EpochState::Silent, EpochState::Live]);
    let asked = two.collect_one(CommandType::BypassCode).await;
    two.answer_code(&asked, CODE_B).await;
    assert_eq!(two.current().await.as_deref(), Some(CODE_B));
}

#[tokio::test]
async fn r5_a_person_ends_a_dispute_by_taking_the_device_out_of_one_mdm() {
    let vault = Vault::new().await;
    let (one, two) = dispute(&vault).await;
    two.tell(Event::CheckOut).await;
    assert_eq!(settle(&vault).await, 1);
    assert_eq!(states(&one).await, [EpochState::Live, EpochState::Left]);
    let asked = one.collect_one(CommandType::BypassCode).await;
    one.answer_code(&asked, CODE_C).await;
    assert_eq!(one.current().await.as_deref(), Some(CODE_C));
}

#[tokio::test]
async fn r5_answers_in_a_dispute_are_kept_and_not_asked_about_over_and_over() {
    let vault = Vault::new().await;
    let (one, two) = dispute(&vault).await;
    vault.clock.advance(Duration::from_secs(5));
    vault.escrow.commands().plan_due(10).await.unwrap();
    let asked = two.collect_one(CommandType::BypassCode).await;
    two.answer_code(&asked, CODE_B).await;
    two.tell(Event::Seen).await;
    vault.escrow.commands().plan_due(10).await.unwrap();
    let again = two.collect().await;
    assert!(again.iter().all(|c| c.what != CommandType::BypassCode));
    let codes = one.device().await.codes;
    assert_eq!(codes.len(), 2);
    assert_eq!(one.current().await.as_deref(), Some(CODE_A));
}

#[tokio::test]
async fn r5_an_enrollment_in_quarantine_is_in_no_dispute_and_stays_there() {
    let vault = Vault::new().await;
    let one = Mdm::on(&vault, "one", "E1", "SERIAL1").await;
    one.enrol().await;
    let asked = one.collect_one(CommandType::DeviceInformation).await;
    let mut information = one.information();
    information.serial = "SERIAL2".parse().ok();
    one.answer_information(&asked, information).await;
    assert_eq!(states(&one).await, [EpochState::Quarantined]);

    let two = Mdm::on(&vault, "two", "E9", "SERIAL1").await;
    two.enrol().await;
    let both = [EpochState::Quarantined, EpochState::Live];
    assert_eq!(states(&one).await, both);
    let asked = two.collect_one(CommandType::BypassCode).await;
    two.answer_code(&asked, CODE_B).await;
    assert_eq!(two.current().await.as_deref(), Some(CODE_B));
    // It does not win by being heard of while the other is silent.
    for _ in 0..2 {
        vault.clock.advance(DAY * 8);
        one.tell(Event::Seen).await;
        settle(&vault).await;
        assert_eq!(states(&one).await, both);
    }
    assert_eq!(one.device().await.summary.coverage, CoverageState::Covered);
}

#[tokio::test]
async fn r5_an_older_enrolment_whose_device_is_named_late_ends_no_newer_one() {
    let vault = Vault::new().await;
    let old = Mdm::on(&vault, "mdm", "E1", "SERIAL1").await;
    old.token_update(1, false).await;
    let asked = old.collect_one(CommandType::DeviceInformation).await;
    let new = Mdm::on(&vault, "mdm", "E2", "SERIAL1").await;
    new.enrol().await;
    old.answer_information(&asked, old.information()).await;
    let device = new.device().await;
    assert!(device.epochs.iter().all(|epoch| epoch.closed_at.is_none()));
    assert_eq!(states(&new).await, [EpochState::Disputed; 2]);
}

#[tokio::test]
async fn r5_a_serial_number_in_two_organisations_is_two_devices_that_share_no_code() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&asked, CODE_A).await;
    let organisations = vault.escrow.organisations();
    let made = organisations.create(&vault.actor, "Another School").await;
    let Created::New(other) = made.unwrap() else {
        panic!("it is new")
    };
    let authorised = vault.escrow.authorise(&vault.actor, &other.id, "SERIAL1");
    let permit = authorised.await.unwrap();
    let serial = "SERIAL1".parse().unwrap();
    let set = escrow::devices::Corrections::default();
    let devices = vault.escrow.devices();
    devices.correct(&permit, &serial, &set).await.unwrap();
    let authorised = vault.escrow.authorise(&vault.actor, &other.id, "SERIAL1");
    let permit = authorised.await.unwrap();
    let device = devices.get(&permit, &serial).await.unwrap().unwrap();
    assert!(device.codes.is_empty() && device.epochs.is_empty());
    let found = devices.locate(&vault.actor, &serial).await.unwrap();
    let escrow::devices::Located::Several(found) = found else {
        panic!("the organisation has to be named")
    };
    assert_eq!(found.len(), 2);
}
