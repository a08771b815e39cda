//! What an MDM tells, put on record: R1 to R10 and the scenarios of enrolment.

use std::time::Duration;

use activation_lock::codes::CodeText;
use activation_lock::observation::{
    Authenticate, CommandReport, DeviceInformation, EnrollmentKind, ErrorLink, Event, Observation,
    ReportStatus, ReportedCode, SecurityInfo, TokenUpdate,
};
use activation_lock::time::{DAY, Timestamp};
use escrow::commands::{Command, CommandState, CommandType};
use escrow::coverage::CoverageState;
use escrow::devices::DeviceView;
use escrow::enrollments::{EpochState, OpenedBy};
use escrow::record::{Incoming, Recorded};

use crate::support::{CODE_A, CODE_B, CODE_C, Vault};

mod answers;
mod disputes;
mod permission;
mod signs;

/// Speaks as one MDM connection about one enrollment, each event a second later than the one before.
pub(crate) struct Mdm<'a> {
    vault: &'a Vault,
    connection: String,
    enrollment: String,
    serial: Option<String>,
}

pub(crate) fn report(command: Option<&str>, status: ReportStatus) -> CommandReport {
    CommandReport {
        command: command.map(str::to_owned),
        status,
        errors: Vec::new(),
        bypass_code: ReportedCode::Absent,
        device_information: None,
        security_info: None,
        failed_settings: None,
    }
}

impl<'a> Mdm<'a> {
    pub(crate) async fn new(vault: &'a Vault, enrollment: &str, serial: &str) -> Self {
        Self::on(vault, "mdm", enrollment, serial).await
    }

    pub(crate) async fn on(
        vault: &'a Vault,
        connection: &str,
        enrollment: &str,
        serial: &str,
    ) -> Self {
        let connection = vault.connection(connection).await;
        Self {
            vault,
            connection,
            enrollment: enrollment.to_owned(),
            serial: Some(serial.to_owned()),
        }
    }

    async fn tell_at(&self, at: Timestamp, event: Event) -> Recorded {
        self.tell_as(EnrollmentKind::Device, at, event).await
    }

    async fn tell_as(&self, kind: EnrollmentKind, at: Timestamp, event: Event) -> Recorded {
        let incoming = Incoming {
            connection: self.vault.connection_ref(&self.connection),
            digest: self.vault.next_digest(),
            observation: Observation {
                enrollment: self.enrollment.clone(),
                kind,
                at,
                event,
            },
        };
        self.vault.escrow.record(incoming).await.unwrap()
    }

    pub(crate) async fn tell(&self, event: Event) -> Recorded {
        self.vault.clock.advance(Duration::from_secs(1));
        self.tell_at(self.vault.now(), event).await
    }

    async fn authenticate(&self) {
        let said = Authenticate {
            serial: self.serial.as_ref().map(|s| s.parse().unwrap()),
            product_type: "iPhone14,5".parse().ok(),
            topic: Some("com.apple.mgmt.External.test".to_owned()),
            ..Authenticate::default()
        };
        self.tell(Event::Authenticate(said)).await;
    }

    async fn token_update(&self, tally: u64, awaiting: bool) {
        let said = TokenUpdate {
            tally: Some(tally),
            awaiting_configuration: Some(awaiting),
            ..TokenUpdate::default()
        };
        self.tell(Event::TokenUpdate(said)).await;
    }

    pub(crate) async fn enrol(&self) {
        self.authenticate().await;
        self.token_update(1, true).await;
    }

    /// Takes what is due to be queued, as the courier would.
    async fn collect(&self) -> Vec<Command> {
        let taken = self
            .vault
            .escrow
            .commands()
            .take_due(100, Duration::from_secs(60), &[])
            .await
            .unwrap();
        for command in &taken {
            self.vault.escrow.commands().queued(command).await.unwrap();
        }
        taken
            .into_iter()
            .filter(|c| c.enrollment == self.enrollment)
            .collect()
    }

    async fn collect_one(&self, what: CommandType) -> Command {
        let taken = self.collect().await;
        let found = taken.into_iter().find(|c| c.what == what);
        found.unwrap_or_else(|| panic!("no {} was due", what.request_type()))
    }

    pub(crate) async fn answer_code(&self, command: &Command, code: &str) {
        let mut answer = report(Some(&command.id), ReportStatus::Acknowledged);
        answer.bypass_code = match CodeText::new(code.to_owned()) {
            Some(text) => ReportedCode::Code(text),
            None => ReportedCode::Empty,
        };
        self.tell(Event::Report(answer)).await;
    }

    pub(crate) async fn answer_information(
        &self,
        command: &Command,
        information: DeviceInformation,
    ) {
        let mut answer = report(Some(&command.id), ReportStatus::Acknowledged);
        answer.device_information = Some(Box::new(information));
        self.tell(Event::Report(answer)).await;
    }

    pub(crate) fn information(&self) -> DeviceInformation {
        DeviceInformation {
            serial: self.serial.as_ref().map(|s| s.parse().unwrap()),
            product_type: "iPhone14,5".parse().ok(),
            supervised: Some(true),
            ..DeviceInformation::default()
        }
    }

    async fn device(&self) -> DeviceView {
        self.vault.device(self.serial.as_deref().unwrap()).await
    }

    async fn ask_next_day(&self) {
        self.vault.clock.advance(DAY + Duration::from_secs(60));
        self.vault.escrow.commands().plan_due(100).await.unwrap();
    }

    /// The current device code, opened.
    async fn current(&self) -> Option<String> {
        let serial = self.serial.as_deref().unwrap();
        self.vault
            .reveal(serial)
            .await
            .into_iter()
            .find(|c| c.view.current)
            .map(|c| c.text.expose().to_owned())
    }
}

fn with_code(command: Option<&str>, code: &str) -> Event {
    let mut answer = report(command, ReportStatus::Acknowledged);
    answer.bypass_code = ReportedCode::Code(CodeText::new(code.to_owned()).unwrap());
    Event::Report(answer)
}

#[tokio::test]
async fn t19_t20_an_enrolment_is_asked_at_once_and_its_code_kept() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.authenticate().await;
    assert!(
        mdm.collect().await.is_empty(),
        "nothing may be queued before the TokenUpdate"
    );
    mdm.token_update(1, true).await;
    let asked = mdm.collect().await;
    let kinds: Vec<_> = asked.iter().map(|c| c.what).collect();
    assert_eq!(
        kinds,
        [CommandType::DeviceInformation, CommandType::BypassCode]
    );
    mdm.answer_code(&asked[1], CODE_A).await;
    let device = mdm.device().await;
    assert_eq!(device.summary.coverage, CoverageState::Covered);
    assert_eq!(device.codes.len(), 1);
    assert!(device.codes[0].current);
    assert_eq!(mdm.current().await.as_deref(), Some(CODE_A));
}

#[tokio::test]
async fn t20_answers_without_a_code_change_nothing() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let first = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&first, CODE_A).await;
    for failing in ["empty", "absent", "error"] {
        mdm.ask_next_day().await;
        let asked = mdm.collect_one(CommandType::BypassCode).await;
        match failing {
            "empty" => mdm.answer_code(&asked, "").await,
            "absent" => {
                mdm.tell(Event::Report(report(
                    Some(&asked.id),
                    ReportStatus::Acknowledged,
                )))
                .await;
            }
            _ => {
                let mut answer = report(Some(&asked.id), ReportStatus::Error);
                answer.errors.push(ErrorLink {
                    code: 12021,
                    domain: "MCMDMErrorDomain".into(),
                    description: "invalid".into(),
                });
                mdm.tell(Event::Report(answer)).await;
            }
        }
        assert_eq!(mdm.current().await.as_deref(), Some(CODE_A), "{failing}");
        assert_eq!(mdm.device().await.codes.len(), 1, "{failing}");
    }
}

#[tokio::test]
async fn r1_a_b_a_again_goes_back_by_reference() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let mut asked = mdm.collect_one(CommandType::BypassCode).await;
    let mut ids = Vec::new();
    for code in [CODE_A, CODE_B, CODE_A] {
        mdm.answer_code(&asked, code).await;
        assert_eq!(mdm.current().await.as_deref(), Some(code));
        ids.push(
            mdm.device()
                .await
                .codes
                .iter()
                .find(|c| c.current)
                .unwrap()
                .id
                .clone(),
        );
        mdm.ask_next_day().await;
        asked = mdm.collect_one(CommandType::BypassCode).await;
    }
    assert_eq!(
        ids[0], ids[2],
        "the returning code is the row it always was"
    );
    assert_eq!(mdm.device().await.codes.len(), 2);
}

#[tokio::test]
async fn r1_a_late_answer_of_an_older_epoch_is_a_candidate_and_moves_nothing() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let old = mdm.collect_one(CommandType::BypassCode).await;
    mdm.enrol().await;
    let new = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&new, CODE_B).await;
    mdm.answer_code(&old, CODE_A).await;
    assert_eq!(mdm.current().await.as_deref(), Some(CODE_B));
    let device = mdm.device().await;
    assert_eq!(device.codes.len(), 2, "it is never thrown away");
    let again = mdm.collect_one(CommandType::BypassCode).await;
    assert_ne!(again.id, new.id, "it is asked again at once");
}

#[tokio::test]
async fn r1_an_unsolicited_code_is_kept_opens_no_guard_and_is_asked_about() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.tell(with_code(
        Some("00000000-0000-0000-0000-000000000000"),
        CODE_C,
    ))
    .await;
    let device = mdm.device().await;
    assert_eq!(device.codes.len(), 1);
    assert!(!device.codes[0].current);
    assert_eq!(
        device.summary.coverage,
        CoverageState::Missing,
        "it opens no guard and covers nothing"
    );
    mdm.answer_code(&asked, CODE_A).await;
    assert_eq!(mdm.current().await.as_deref(), Some(CODE_A));
    mdm.collect_one(CommandType::BypassCode).await;
}

#[tokio::test]
async fn r1_a_command_takes_one_final_answer() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&asked, CODE_A).await;
    mdm.answer_code(&asked, CODE_B).await;
    assert_eq!(mdm.current().await.as_deref(), Some(CODE_A));
    assert_eq!(mdm.device().await.codes.len(), 2);
}

#[tokio::test]
async fn r3_a_text_that_is_no_code_is_kept_byte_for_byte_with_a_warning() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    let odd = " not a Code \u{2603}";
    mdm.answer_code(&asked, odd).await;
    assert_eq!(mdm.current().await.as_deref(), Some(odd));
    assert_eq!(
        mdm.device().await.codes[0].shape,
        activation_lock::codes::TextShape::Opaque
    );
}

#[tokio::test]
async fn r3_another_writing_of_the_same_code_is_the_same_code() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    vault.type_code("SERIAL1", &CODE_A.to_lowercase()).await;
    mdm.answer_code(&asked, CODE_A).await;
    let codes = mdm.device().await.codes;
    assert_eq!(codes.len(), 1);
    assert_eq!(
        mdm.current().await.as_deref(),
        Some(CODE_A),
        "the device's own bytes are what is replayed"
    );
}

#[tokio::test]
async fn r6_a_fleet_known_only_from_idle_polls_is_adopted_and_asked() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.tell(Event::Seen).await;
    let asked = mdm.collect().await;
    assert_eq!(asked.len(), 2, "who it is and its code, at once, together");
    // The code comes before the name: it is held, not lost.
    mdm.answer_code(&asked[1], CODE_A).await;
    assert!(vault.find("SERIAL1").await.is_none());
    mdm.answer_information(&asked[0], mdm.information()).await;
    let device = mdm.device().await;
    assert_eq!(device.epochs[0].opened_by, OpenedBy::Adopted);
    assert_eq!(device.summary.window, "satisfied");
    assert_eq!(mdm.current().await.as_deref(), Some(CODE_A));
}

#[tokio::test]
async fn r6_a_lost_authenticate_is_made_up_for_by_a_first_token_update() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&asked, CODE_A).await;
    mdm.token_update(2, false).await;
    assert_eq!(
        mdm.device().await.epochs.len(),
        1,
        "a renewed token is no enrolment"
    );
    mdm.token_update(1, true).await;
    let asked = mdm.collect().await;
    let info = asked
        .iter()
        .find(|c| c.what == CommandType::DeviceInformation)
        .expect("asked who it is");
    mdm.answer_information(info, mdm.information()).await;
    let device = mdm.device().await;
    assert_eq!(device.epochs.len(), 2);
    assert_eq!(device.epochs[1].opened_by, OpenedBy::TokenUpdate);
    assert_eq!(
        device.summary.coverage,
        CoverageState::Missing,
        "the code is of the epoch before"
    );
    assert_eq!(
        mdm.current().await.as_deref(),
        Some(CODE_A),
        "and stays current until another comes"
    );
}

#[tokio::test]
async fn r6_reordered_check_ins_are_one_epoch() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    let (first, second) = (Timestamp(1_000_000), Timestamp(1_001_000));
    mdm.tell_at(
        second,
        Event::TokenUpdate(TokenUpdate {
            tally: Some(1),
            ..TokenUpdate::default()
        }),
    )
    .await;
    let said = Authenticate {
        serial: "SERIAL1".parse().ok(),
        ..Authenticate::default()
    };
    mdm.tell_at(first, Event::Authenticate(said)).await;
    let device = mdm.device().await;
    assert_eq!(device.epochs.len(), 1);
    assert_eq!(mdm.collect().await.len(), 2, "asked once");
}

#[tokio::test]
async fn t22_an_erase_keeps_the_record_and_opens_a_new_epoch() {
    let vault = Vault::new().await;
    for enrollment in ["E1", "E2"] {
        let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
        mdm.enrol().await;
        let asked = mdm.collect_one(CommandType::BypassCode).await;
        mdm.answer_code(&asked, CODE_A).await;
        let again = Mdm::new(&vault, enrollment, "SERIAL1").await;
        again.enrol().await;
        let asked = again.collect_one(CommandType::BypassCode).await;
        again.answer_code(&asked, CODE_B).await;
        let device = again.device().await;
        assert!(device.codes.len() == 2, "both codes are kept");
        assert_eq!(again.current().await.as_deref(), Some(CODE_B));
        assert_eq!(
            device
                .epochs
                .iter()
                .filter(|e| e.closed_at.is_none())
                .count(),
            1
        );
    }
}

#[tokio::test]
async fn r5_a_serial_that_differs_from_the_one_on_file_quarantines_the_epoch() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect().await;
    let mut other = mdm.information();
    other.serial = "SERIAL2".parse().ok();
    mdm.answer_information(&asked[0], other).await;
    mdm.answer_code(&asked[1], CODE_A).await;
    let device = mdm.device().await;
    assert_eq!(device.epochs[0].state, EpochState::Quarantined);
    assert!(device.codes.iter().all(|c| !c.current), "it moves nothing");
    assert!(vault.find("SERIAL2").await.is_none());
}

#[tokio::test]
async fn r5_two_live_enrollments_of_one_serial_move_nothing() {
    let vault = Vault::new().await;
    let one = Mdm::on(&vault, "one", "E1", "SERIAL1").await;
    let two = Mdm::on(&vault, "two", "E9", "SERIAL1").await;
    one.enrol().await;
    let asked_one = one.collect_one(CommandType::BypassCode).await;
    two.enrol().await;
    let asked_two = two.collect_one(CommandType::BypassCode).await;
    one.answer_code(&asked_one, CODE_A).await;
    two.answer_code(&asked_two, CODE_B).await;
    let device = one.device().await;
    assert_eq!(device.codes.len(), 2, "both are asked and both are kept");
    assert!(
        device.codes.iter().all(|c| !c.current),
        "neither moves the current code"
    );
    assert!(
        device
            .epochs
            .iter()
            .all(|e| e.state == EpochState::Disputed)
    );
}

#[tokio::test]
async fn r7_permission_waits_for_the_code_and_a_failed_item_is_a_failure() {
    let vault = Vault::new().await;
    vault.user_lock_policy("allow").await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect().await;
    let allow = CommandType::LockPermission { allowed: true };
    assert!(
        asked.iter().all(|c| c.what != allow),
        "not before a code is held"
    );
    mdm.answer_code(&asked[1], "").await;
    assert!(
        mdm.collect().await.iter().all(|c| c.what != allow),
        "an empty answer opens nothing"
    );
    mdm.ask_next_day().await;
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&asked, CODE_A).await;
    let permission = mdm.collect_one(allow).await;
    let mut answer = report(Some(&permission.id), ReportStatus::Acknowledged);
    answer.failed_settings = Some(vec![ErrorLink {
        code: 28000,
        domain: "MCSettingsErrorDomain".into(),
        description: "no".into(),
    }]);
    mdm.tell(Event::Report(answer)).await;
    let device = mdm.device().await;
    let command = device
        .commands
        .iter()
        .find(|c| c.id == permission.id)
        .unwrap();
    assert_eq!(
        command.state,
        CommandState::Failed,
        "T21: acknowledged with a failed item has failed"
    );
    assert!(
        mdm.collect().await.is_empty(),
        "it is not sent over and over"
    );
}

#[tokio::test]
async fn r7_a_lock_allowed_before_the_code_was_held_is_a_shown_gap() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect().await;
    let mut information = mdm.information();
    information.lock_allowed = Some(true);
    mdm.answer_information(&asked[0], information).await;
    mdm.answer_code(&asked[1], CODE_A).await;
    let device = mdm.device().await;
    assert!(device.epochs[0].allowed_before_escrow.is_some());
    assert!(device.codes[0].doubt.is_some());
}

#[tokio::test]
async fn t26_a_mac_that_cannot_be_managed_is_not_allowed_to_lock() {
    let vault = Vault::new().await;
    vault.user_lock_policy("allow").await;
    let mdm = Mdm::new(&vault, "E1", "MACSERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect().await;
    let mut information = mdm.information();
    information.product_type = "MacBookPro17,1".parse().ok();
    mdm.answer_information(&asked[0], information).await;
    mdm.answer_code(&asked[1], CODE_A).await;
    let security = mdm.collect_one(CommandType::SecurityInfo).await;
    let mut answer = report(Some(&security.id), ReportStatus::Acknowledged);
    answer.security_info = Some(SecurityInfo {
        activation_lock_manageable: Some(false),
        ..SecurityInfo::default()
    });
    mdm.tell(Event::Report(answer)).await;
    assert!(mdm.collect().await.is_empty());
    assert!(mdm.device().await.epochs[0].mac_warning.is_some());
}

#[tokio::test]
async fn r8_not_now_leaves_one_pending_command() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.tell(Event::Report(report(Some(&asked.id), ReportStatus::NotNow)))
        .await;
    mdm.ask_next_day().await;
    assert!(
        mdm.collect()
            .await
            .iter()
            .all(|c| c.what != CommandType::BypassCode),
        "the MDM keeps the first"
    );
    mdm.answer_code(&asked, CODE_A).await;
    assert_eq!(
        mdm.current().await.as_deref(),
        Some(CODE_A),
        "its answer still counts"
    );
}

#[tokio::test]
async fn t23_a_code_that_the_device_rotated_is_picked_up_by_asking_again() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect().await;
    let mut information = mdm.information();
    information.find_my = Some(false);
    mdm.answer_information(&asked[0], information.clone()).await;
    mdm.answer_code(&asked[1], CODE_A).await;
    // A week of daily asks later DeviceInformation is due again, and Find My has gone on.
    for _ in 0..7 {
        mdm.ask_next_day().await;
        for command in mdm.collect().await {
            match command.what {
                CommandType::BypassCode => mdm.answer_code(&command, CODE_A).await,
                CommandType::DeviceInformation => {
                    information.find_my = Some(true);
                    mdm.answer_information(&command, information.clone()).await;
                }
                _ => {}
            }
        }
    }
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&asked, CODE_B).await;
    assert_eq!(mdm.current().await.as_deref(), Some(CODE_B));
}

#[tokio::test]
async fn r8_daily_for_fifteen_days_then_weekly() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let mut asks = Vec::new();
    let opened = vault.now();
    for _ in 0..40 {
        for command in mdm.collect().await {
            if command.what == CommandType::BypassCode {
                asks.push(vault.now().since(opened).as_secs() / DAY.as_secs());
                mdm.answer_code(&command, CODE_A).await;
            }
        }
        vault.clock.advance(DAY);
        vault.escrow.commands().plan_due(100).await.unwrap();
    }
    let (daily, weekly): (Vec<u64>, Vec<u64>) = asks.iter().partition(|day| **day <= 15);
    assert!(daily.len() >= 14, "{asks:?}");
    assert!((3..=4).contains(&weekly.len()), "{asks:?}");
}

#[tokio::test]
async fn r10_t25_known_channels_and_devices_are_not_asked() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    for kind in [
        EnrollmentKind::User,
        EnrollmentKind::SharedIpad,
        EnrollmentKind::UserEnrollment,
    ] {
        let said = TokenUpdate {
            tally: Some(1),
            ..TokenUpdate::default()
        };
        assert_eq!(
            mdm.tell_as(kind, vault.now(), Event::TokenUpdate(said))
                .await,
            Recorded::Ignored
        );
    }
    assert!(mdm.collect().await.is_empty());
    mdm.enrol().await;
    let asked = mdm.collect().await;
    let mut shared = mdm.information();
    shared.multi_user = Some(true);
    mdm.answer_information(&asked[0], shared).await;
    for _ in 0..3 {
        mdm.ask_next_day().await;
        assert!(
            mdm.collect()
                .await
                .iter()
                .all(|c| c.what != CommandType::BypassCode)
        );
    }
    let device = mdm.device().await;
    assert_eq!(device.summary.coverage, CoverageState::Exempt);
    assert_eq!(
        device.summary.coverage_reason.as_deref(),
        Some("shared_ipad")
    );
}

#[tokio::test]
async fn r9_t30_the_window_counts_down_only_on_evidence_and_a_late_code_clears_it() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    assert_eq!(mdm.device().await.summary.window, "open");
    vault.clock.advance(DAY * 10);
    assert_eq!(mdm.device().await.summary.window, "closing");
    vault.clock.advance(DAY * 5);
    assert_eq!(mdm.device().await.summary.window, "closed");
    vault.escrow.commands().plan_due(100).await.unwrap();
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&asked, CODE_A).await;
    assert_eq!(mdm.device().await.summary.window, "satisfied");

    let adopted = Mdm::new(&vault, "E2", "SERIAL2").await;
    adopted.tell(Event::Seen).await;
    let asked = adopted.collect().await;
    adopted
        .answer_information(&asked[0], adopted.information())
        .await;
    assert_eq!(
        adopted.device().await.summary.window,
        "unknown",
        "nobody knows when it was supervised"
    );
}

#[tokio::test]
async fn r2_t28_a_check_out_keeps_the_codes_and_says_so() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&asked, CODE_A).await;
    mdm.tell(Event::CheckOut).await;
    let device = mdm.device().await;
    assert_eq!(device.codes.len(), 1);
    assert_eq!(device.summary.suspect.as_deref(), Some("checked_out"));
    assert!(device.epochs[0].closed_at.is_some());
}

#[tokio::test]
async fn r22_the_same_event_twice_is_recorded_once() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    let event = || Incoming {
        connection: vault.connection_ref(&mdm.connection),
        digest: [7; 32],
        observation: Observation {
            enrollment: "E1".into(),
            kind: EnrollmentKind::Device,
            at: Timestamp(5),
            event: Event::Authenticate(Authenticate {
                serial: "SERIAL1".parse().ok(),
                ..Authenticate::default()
            }),
        },
    };
    assert_eq!(
        vault.escrow.record(event()).await.unwrap(),
        Recorded::Recorded
    );
    assert_eq!(vault.escrow.record(event()).await.unwrap(), Recorded::Known);
    assert_eq!(mdm.device().await.epochs.len(), 1);
}

#[tokio::test]
async fn r8_a_reveal_asks_again() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&asked, CODE_A).await;
    assert!(mdm.collect().await.is_empty());
    vault.clock.advance(Duration::from_secs(5));
    vault.reveal("SERIAL1").await;
    mdm.collect_one(CommandType::BypassCode).await;
    assert!(mdm.device().await.codes[0].revealed.is_some());
}
