//! Whose answer it is, and what it moves (R1, R22).

use escrow::codes::CodeView;

use super::*;

async fn of_standing(mdm: &Mdm<'_>, standing: &str) -> usize {
    let timeline = mdm.device().await.timeline;
    let observed = timeline.iter().filter(|line| line.what == "code.observed");
    observed
        .filter(|line| line.details.contains(standing))
        .count()
}

#[tokio::test]
async fn r1_a_code_in_the_answer_to_another_question_is_a_candidate_and_opens_no_guard() {
    let vault = Vault::new().await;
    vault.user_lock_policy("allow").await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let other = mdm.collect_one(CommandType::DeviceInformation).await;
    mdm.tell(with_code(Some(&other.id), CODE_A)).await;
    let device = mdm.device().await;
    assert!(device.codes.len() == 1 && !device.codes[0].current);
    assert_eq!(device.summary.coverage, CoverageState::Missing);
    let allow = CommandType::LockPermission { allowed: true };
    assert!(mdm.collect().await.iter().all(|c| c.what != allow));
}

#[tokio::test]
async fn r1_every_sighting_is_an_observation_with_its_command() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    for _ in 0..3 {
        let asked = mdm.collect_one(CommandType::BypassCode).await;
        mdm.answer_code(&asked, CODE_A).await;
        mdm.ask_next_day().await;
    }
    assert_eq!(of_standing(&mdm, "newest").await, 3);
    assert_eq!(mdm.device().await.codes.len(), 1);
}

#[tokio::test]
async fn r1_a_late_answer_is_a_candidate_of_the_device_that_its_command_was_for() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.tell(Event::CheckOut).await;
    // Nobody knows whose enrollment this is now, but the command is known.
    mdm.answer_code(&asked, CODE_A).await;
    let device = mdm.device().await;
    let [CodeView { current, .. }] = device.codes.as_slice() else {
        panic!("it is kept as a candidate")
    };
    assert!(!current);
    assert_eq!(of_standing(&mdm, "late").await, 1);
    // Also when the enrollment's name has gone to another device meanwhile (R5).
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    let other = Mdm::new(&vault, "E1", "SERIAL2").await;
    other.enrol().await;
    let fresh = other.collect_one(CommandType::BypassCode).await;
    mdm.enrol().await;
    mdm.answer_code(&fresh, CODE_B).await;
    assert_eq!(other.device().await.codes.len(), 1);
    assert_eq!(mdm.device().await.codes.len(), 1);
    // This one was asked of an enrollment whose device was never named: it waits for the name, and is not lost.
    mdm.answer_code(&asked, CODE_C).await;
    assert_eq!(mdm.device().await.codes.len(), 2);
}

#[tokio::test]
async fn r1_a_late_answer_makes_us_ask_the_enrollment_it_came_from_again() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let old = mdm.collect_one(CommandType::BypassCode).await;
    mdm.enrol().await;
    let new = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&new, CODE_B).await;
    assert!(mdm.collect().await.is_empty());
    mdm.answer_code(&old, CODE_B).await;
    assert_eq!(of_standing(&mdm, "late").await, 1);
    mdm.collect_one(CommandType::BypassCode).await;
}

#[tokio::test]
async fn r22_an_answer_that_is_told_again_in_another_event_is_asked_about_by_nobody() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    for _ in 0..3 {
        mdm.answer_code(&asked, CODE_A).await;
    }
    assert!(mdm.collect().await.is_empty(), "it is the same answer");
    assert_eq!(mdm.device().await.codes.len(), 1);
    mdm.answer_code(&asked, CODE_B).await;
    assert_eq!(mdm.device().await.codes.len(), 2);
    mdm.collect_one(CommandType::BypassCode).await;
    assert_eq!(mdm.current().await.as_deref(), Some(CODE_A));
}

#[tokio::test]
async fn r22_marks_of_events_are_kept_for_thirty_days_and_swept_then() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    let told = async |digest: u8| {
        let incoming = Incoming {
            connection: vault.connection_ref(&mdm.connection),
            digest: [digest; 32],
            observation: Observation {
                enrollment: "E1".into(),
                kind: EnrollmentKind::Device,
                at: Timestamp(5),
                event: Event::CheckOut,
            },
        };
        vault.escrow.record(incoming).await.unwrap()
    };
    let sweep = async || vault.escrow.sweep_known_events().await.unwrap();
    assert_eq!(told(1).await, Recorded::Recorded);
    vault.clock.advance(DAY);
    assert_eq!(told(2).await, Recorded::Recorded);
    vault.clock.advance(DAY * 29 - Duration::from_millis(1));
    assert_eq!(sweep().await, 0);
    assert_eq!(told(1).await, Recorded::Known);
    vault.clock.advance(Duration::from_millis(1));
    assert_eq!(sweep().await, 1);
    assert_eq!(told(2).await, Recorded::Known, "it is a day younger");
    assert_eq!(told(1).await, Recorded::Recorded);
}

#[tokio::test]
async fn r6_a_date_far_ahead_keeps_no_later_enrolment_out() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    // The MDM's clock is wrong by ten years, and then right again.
    mdm.tell_at(vault.now().plus(DAY * 3650), Event::Seen).await;
    mdm.collect().await;
    vault.clock.advance(DAY);
    mdm.enrol().await;
    let device = mdm.device().await;
    assert_eq!(device.epochs.len(), 1);
    assert_eq!(device.epochs[0].opened_by, OpenedBy::Authenticate);
    mdm.collect_one(CommandType::BypassCode).await;
    // And a check-out of today counts.
    mdm.tell(Event::CheckOut).await;
    assert!(mdm.device().await.epochs[0].closed_at.is_some());
}

#[tokio::test]
async fn r9_a_new_enrolment_without_evidence_of_an_erase_has_an_unknown_window() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let window = async || mdm.device().await.summary.window;
    assert_eq!(window().await, "open");
    vault.clock.advance(DAY * 30);
    assert_eq!(window().await, "closed");
    mdm.authenticate().await;
    mdm.token_update(1, false).await;
    assert_eq!(window().await, "unknown");
    assert_eq!(mdm.device().await.summary.window_closes_at, None);
    // Another code than the one before would be evidence; the first one ever is none.
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&asked, CODE_A).await;
    assert_eq!(mdm.device().await.summary.window_closes_at, None);
    mdm.authenticate().await;
    mdm.token_update(1, false).await;
    let opened = vault.now().minus(Duration::from_secs(1));
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&asked, CODE_B).await;
    let summary = mdm.device().await.summary;
    assert_eq!(
        summary.window_closes_at,
        Some(opened.plus(activation_lock::window::WINDOW))
    );
    assert_eq!(summary.window, "satisfied");
}

#[tokio::test]
async fn t24_the_code_of_a_device_that_is_set_up_again_becomes_current_and_the_old_one_history() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    for (code, known) in [(CODE_A, 1), (CODE_B, 2)] {
        // The user undid the lock, and set the device up again: a code of its own each time.
        mdm.enrol().await;
        let asked = mdm.collect_one(CommandType::BypassCode).await;
        mdm.answer_code(&asked, code).await;
        let device = mdm.device().await;
        assert_eq!(device.codes.len(), known);
        assert_eq!(device.codes.iter().filter(|c| c.current).count(), 1);
        assert_eq!(device.summary.coverage, CoverageState::Covered);
        assert_eq!(mdm.current().await.as_deref(), Some(code));
    }
}
