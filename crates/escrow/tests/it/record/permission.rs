//! When a user may lock (R7).

use super::*;

const ALLOW: CommandType = CommandType::LockPermission { allowed: true };
const DENY: CommandType = CommandType::LockPermission { allowed: false };

fn what(commands: &[Command]) -> Vec<CommandType> {
    commands.iter().map(|command| command.what).collect()
}

/// An enrollment whose code is held and whose permission is on record, and not at its MDM yet.
async fn about_to_be_allowed(vault: &Vault) -> Mdm<'_> {
    vault.user_lock_policy("allow").await;
    let mdm = Mdm::new(vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect_one(CommandType::BypassCode).await;
    mdm.answer_code(&asked, CODE_A).await;
    mdm
}

#[tokio::test]
async fn r7_the_code_is_on_record_before_the_permission_can_leave() {
    let vault = Vault::new().await;
    let mdm = about_to_be_allowed(&vault).await;
    // One transaction put both on record: whoever can take the command to its MDM finds the code.
    let permission = mdm.collect_one(ALLOW).await;
    let device = mdm.device().await;
    let code_at = device.epochs[0].code_at.expect("the code is held");
    assert!(code_at <= permission.created_at);
    assert_eq!(mdm.current().await.as_deref(), Some(CODE_A));
}

#[tokio::test]
async fn r7_the_code_of_an_earlier_epoch_opens_no_guard() {
    let vault = Vault::new().await;
    let mdm = about_to_be_allowed(&vault).await;
    assert_eq!(what(&mdm.collect().await), [ALLOW]);
    mdm.enrol().await;
    let asked = mdm.collect().await;
    assert!(!what(&asked).contains(&ALLOW));
    let code = asked.iter().find(|c| c.what == CommandType::BypassCode);
    mdm.answer_code(code.unwrap(), "").await;
    assert!(mdm.collect().await.is_empty());
}

#[tokio::test]
async fn r7_a_permission_that_is_no_longer_wanted_does_not_leave() {
    for (policy, expected) in [("leave", vec![]), ("deny", vec![DENY])] {
        let vault = Vault::new().await;
        let mdm = about_to_be_allowed(&vault).await;
        vault.user_lock_policy(policy).await;
        assert!(
            mdm.collect().await.is_empty(),
            "{policy}: nothing is known of the device since"
        );
        mdm.tell(Event::Report(report(None, ReportStatus::Acknowledged)))
            .await;
        assert_eq!(what(&mdm.collect().await), expected, "{policy}");
    }
}

#[tokio::test]
async fn r7_no_permission_leaves_once_it_is_not_sure_whose_enrollment_it_is() {
    let vault = Vault::new().await;
    let mdm = about_to_be_allowed(&vault).await;
    let two = Mdm::on(&vault, "two", "E9", "SERIAL1").await;
    two.enrol().await;
    assert!(!what(&mdm.collect().await).contains(&ALLOW));
}

#[tokio::test]
async fn r7_the_option_is_read_back_and_believed_only_then() {
    let vault = Vault::new().await;
    vault.user_lock_policy("allow").await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect().await;
    mdm.answer_information(&asked[0], mdm.information()).await;
    mdm.answer_code(&asked[1], CODE_A).await;
    let permission = mdm.collect_one(ALLOW).await;
    mdm.tell(Event::Report(report(
        Some(&permission.id),
        ReportStatus::Acknowledged,
    )))
    .await;
    let read = mdm.collect().await;
    assert_eq!(what(&read), [CommandType::DeviceInformation]);
    let mut information = mdm.information();
    information.lock_allowed = Some(true);
    mdm.answer_information(&read[0], information).await;
    assert!(mdm.collect().await.is_empty());
    let device = mdm.device().await;
    assert_eq!(device.epochs[0].allowed_before_escrow, None);
    assert_eq!(device.codes[0].doubt, None);
}

#[tokio::test]
async fn r7_an_option_found_true_before_our_permission_arrived_is_a_gap() {
    let vault = Vault::new().await;
    vault.user_lock_policy("allow").await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect().await;
    mdm.answer_code(&asked[1], CODE_A).await;
    // Our permission is on its way; somebody else's came before it.
    assert_eq!(what(&mdm.collect().await), [ALLOW]);
    let mut information = mdm.information();
    information.lock_allowed = Some(true);
    mdm.answer_information(&asked[0], information).await;
    let device = mdm.device().await;
    assert_eq!(
        device.epochs[0].allowed_before_escrow,
        Some(activation_lock::guard::AllowedBeforeEscrow::Possible)
    );
    assert!(device.codes[0].doubt.is_some());
}

#[tokio::test]
async fn r7_under_the_default_policy_nothing_is_sent() {
    let vault = Vault::new().await;
    let mdm = Mdm::new(&vault, "E1", "SERIAL1").await;
    mdm.enrol().await;
    let asked = mdm.collect().await;
    mdm.answer_information(&asked[0], mdm.information()).await;
    mdm.answer_code(&asked[1], CODE_A).await;
    assert!(mdm.collect().await.is_empty());
}
