//! The readers of the MDM protocol, on plists that Python's plistlib made (`tests/data/plists`), each as XML and as binary.

use std::path::PathBuf;

use activation_lock::observation::{
    CommandReport, DeviceInformation, ErrorLink, ReportStatus, ReportedCode, SecurityInfo,
};
use apple::mdm::{Answer, Channel, CheckIn, CheckInMessage, PlistError, answer, check_in};

mod limits;

const UDID: &str = "00008101-000A2D3C0E10001E";
const TOPIC: &str = "com.apple.mgmt.External.51135151-5115-4115-8115-511351135113";

fn file(name: &str, format: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/plists");
    std::fs::read(folder.join(format!("{name}.{format}"))).unwrap()
}

/// What both forms of a file say; `check` is asked for each.
fn each<T>(name: &str, read: fn(&[u8]) -> Result<T, PlistError>, check: impl Fn(T)) {
    for format in ["xml", "bin"] {
        match read(&file(name, format)) {
            Ok(said) => check(said),
            Err(error) => panic!("{name}.{format}: {error}"),
        }
    }
}

fn each_report(name: &str, check: impl Fn(CommandReport)) {
    each(name, answer, |answer: Answer| {
        assert_eq!(answer.channel, device_channel());
        check(answer.report.expect("a report"));
    });
}

fn each_information(name: &str, check: impl Fn(DeviceInformation)) {
    each(name, answer, |answer: Answer| {
        let report = answer.report.expect("a report");
        assert_eq!(report.status, ReportStatus::Acknowledged);
        check(*report.device_information.expect("QueryResponses"));
    });
}

fn device_channel() -> Channel {
    Channel {
        udid: Some(UDID.to_owned()),
        ..Channel::default()
    }
}

#[test]
fn an_authenticate_says_who_comes() {
    each("authenticate-ipad", check_in, |said: CheckIn| {
        assert_eq!(said.channel, device_channel());
        let CheckInMessage::Authenticate(told) = said.message else {
            panic!("not an Authenticate");
        };
        assert_eq!(told.serial.unwrap().as_str(), "DMPTEST00001");
        assert_eq!(told.udid.as_deref(), Some(UDID));
        assert_eq!(told.product_type.unwrap().as_str(), "iPad8,12");
        assert_eq!(told.model_name.as_deref(), Some("iPad"));
        assert_eq!(told.os_version.as_deref(), Some("17.2"));
        assert_eq!(told.topic.as_deref(), Some(TOPIC));
        assert_eq!(told.cellular.imei.unwrap().as_str(), "358823340832230");
        assert_eq!(told.cellular.meid.unwrap().as_str(), "A0000009123456");
        assert!(told.cellular.imei2.is_none());
    });
}

#[test]
fn t25_a_user_enrollment_shows_in_its_channel_and_withholds_the_serial() {
    each("authenticate-user-enrollment", check_in, |said: CheckIn| {
        assert_eq!(said.channel.udid, None);
        assert_eq!(
            said.channel.enrollment_id.as_deref(),
            Some("0A1B2C3D-ENROLLMENT")
        );
        let CheckInMessage::Authenticate(told) = said.message else {
            panic!("not an Authenticate");
        };
        assert!(told.serial.is_none() && told.udid.is_none() && told.cellular.is_empty());
    });
}

#[test]
fn a_token_update_says_whether_set_up_waits_and_whose_channel_it_is() {
    each("token-update-awaiting", check_in, |said: CheckIn| {
        assert_eq!(said.channel, device_channel());
        let CheckInMessage::TokenUpdate(told) = said.message else {
            panic!("not a TokenUpdate");
        };
        assert_eq!(told.udid.as_deref(), Some(UDID));
        assert_eq!(told.topic.as_deref(), Some(TOPIC));
        assert_eq!(told.awaiting_configuration, Some(true));
        assert_eq!(told.tally, None);
    });
    each("token-update-user", check_in, |said: CheckIn| {
        assert_eq!(
            said.channel.user_id.as_deref(),
            Some("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF")
        );
        assert_eq!(
            said.channel.user_short_name.as_deref(),
            Some("anna@example.org")
        );
        let CheckInMessage::TokenUpdate(told) = said.message else {
            panic!("not a TokenUpdate");
        };
        assert_eq!(told.awaiting_configuration, None);
    });
}

#[test]
fn other_check_ins_and_idle_polls_are_signs_of_life() {
    each("check-out", check_in, |said: CheckIn| {
        assert!(matches!(said.message, CheckInMessage::CheckOut));
    });
    each("set-bootstrap-token", check_in, |said: CheckIn| {
        assert!(matches!(said.message, CheckInMessage::Other));
        assert_eq!(said.channel, device_channel());
    });
    each("idle", answer, |said: Answer| {
        assert!(said.report.is_none());
        assert_eq!(said.channel, device_channel());
    });
}

#[test]
fn t20_a_bypass_code_is_taken_byte_for_byte_and_nothing_is_no_code() {
    each_report("code", |report| {
        assert_eq!(report.status, ReportStatus::Acknowledged);
        assert_eq!(
            report.command.as_deref(),
            Some("0197a1de-7a4c-7000-8000-000000000001")
        );
        let ReportedCode::Code(code) = report.bypass_code else {
            panic!("no code");
        };
        assert!(code.expose() == "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4");
        assert!(report.errors.is_empty() && report.device_information.is_none());
        assert!(report.security_info.is_none() && report.failed_settings.is_none());
    });
    each_report("code-opaque", |report| {
        let ReportedCode::Code(code) = report.bypass_code else {
            panic!("no code");
        };
        assert!(code.expose() == " not a code: \u{e9}<&> ");
    });
    each_report("code-empty", |report| {
        assert!(matches!(report.bypass_code, ReportedCode::Empty));
    });
    each_report("code-missing", |report| {
        assert_eq!(report.status, ReportStatus::Acknowledged);
        assert!(matches!(report.bypass_code, ReportedCode::Absent));
    });
}

#[test]
fn t20_errors_and_not_now_are_told_apart() {
    each_report("error-12021", |report| {
        assert_eq!(report.status, ReportStatus::Error);
        assert_eq!(report.errors.len(), 1);
        assert_eq!(report.errors[0].code, 12021);
        assert_eq!(report.errors[0].domain, "MCMDMErrorDomain");
        assert!(
            report.errors[0].description.contains("not a valid request"),
            "English comes first"
        );
        assert!(matches!(report.bypass_code, ReportedCode::Absent));
    });
    each_report("error-29000", |report| {
        let codes: Vec<i64> = report.errors.iter().map(|link| link.code).collect();
        assert_eq!(codes, [29000, 12021]);
    });
    each_report("command-format-error", |report| {
        assert_eq!(report.status, ReportStatus::CommandFormatError);
    });
    each_report("not-now", |report| {
        assert_eq!(report.status, ReportStatus::NotNow);
    });
}

#[test]
fn r18_t17_slots_are_found_by_name_and_never_by_position() {
    each_information("information-dual-sim-reversed", |told| {
        let slots = told.slots.unwrap();
        assert_eq!(slots.imei.unwrap().as_str(), "358823340832230");
        assert_eq!(slots.imei2.unwrap().as_str(), "358823340832248");
        assert_eq!(slots.meid.unwrap().as_str(), "35882334083223");
        assert!(told.cellular.is_empty());
    });
    each_information("information-slot-unnamed", |told| {
        let slots = told.slots.unwrap();
        assert_eq!(slots.imei.unwrap().as_str(), "358823340832230");
        assert!(
            slots.imei2.is_none(),
            "an entry without a name says nothing"
        );
    });
    each_information("information-wifi", |told| {
        assert!(told.slots.is_none() && told.cellular.is_empty());
        assert_eq!(told.product_type.unwrap().as_str(), "iPad4,1");
        assert_eq!(told.find_my, None);
    });
}

#[test]
fn t27_top_level_numbers_are_kept_apart_from_slots() {
    each_information("information-top-level", |told| {
        assert!(told.slots.is_none());
        assert_eq!(told.cellular.imei.unwrap().as_str(), "358823340832230");
        assert_eq!(told.cellular.meid.unwrap().as_str(), "35882334083223");
    });
}

#[test]
fn device_information_fills_every_field_that_is_told() {
    each_information("information-dual-sim-reversed", |mut told| {
        told.slots = None;
        assert_eq!(
            told,
            DeviceInformation {
                serial: Some("DMPTEST00002".parse().unwrap()),
                udid: Some(UDID.to_owned()),
                product_type: Some("iPhone17,3".parse().unwrap()),
                model_name: Some("iPhone".to_owned()),
                device_name: Some("Front desk \u{1f4f1} 2".to_owned()),
                os_version: Some("26.1".to_owned()),
                supervised: Some(true),
                multi_user: Some(false),
                activation_lock_supported: None,
                activation_lock_hint: Some(true),
                find_my: Some(true),
                awaiting_configuration: Some(false),
                lock_allowed: Some(true),
                ..DeviceInformation::default()
            }
        );
    });
    each_information("information-mac", |told| {
        assert_eq!(told.activation_lock_supported, Some(true));
        assert_eq!(told.product_type.unwrap().as_str(), "MacBookPro17,1");
        assert_eq!(told.find_my, None);
    });
}

#[test]
fn a_field_that_does_not_parse_is_left_out_and_the_rest_stands() {
    each_information("information-odd", |told| {
        assert_eq!(told, DeviceInformation::default());
    });
}

#[test]
fn t26_a_mac_says_whether_its_lock_can_be_managed() {
    each_report("security-mac", |report| {
        assert_eq!(
            report.security_info,
            Some(SecurityInfo {
                activation_lock_manageable: Some(true),
                enrolled_via_dep: Some(true),
                user_enrollment: Some(false),
            })
        );
    });
    each_report("security-flat", |report| {
        assert_eq!(
            report.security_info,
            Some(SecurityInfo {
                activation_lock_manageable: Some(false),
                enrolled_via_dep: Some(false),
                user_enrollment: None,
            })
        );
    });
}

#[test]
fn t21_an_acknowledged_report_with_a_failed_item_shows_the_failure() {
    for name in [
        "settings-failed-array",
        "settings-failed-dictionary",
        "settings-failed-by-name",
    ] {
        each_report(name, |report| {
            assert_eq!(report.status, ReportStatus::Acknowledged);
            assert!(report.errors.is_empty());
            assert_eq!(
                report.failed_settings,
                Some(vec![ErrorLink {
                    code: 28000,
                    domain: "MCSettingsErrorDomain".to_owned(),
                    description: "Unknown item.".to_owned(),
                }]),
                "{name}"
            );
        });
    }
    each_report("settings-failed-without-reason", |report| {
        let failed = report.failed_settings.unwrap();
        assert_eq!(failed.len(), 1);
        assert!(failed[0].description.contains("Error"));
    });
    each_report("settings-done", |report| {
        assert_eq!(report.failed_settings, Some(Vec::new()));
    });
    each_report("code", |report| assert_eq!(report.failed_settings, None));
}

#[test]
fn a_plist_that_is_no_message_says_so() {
    let error = |result: Result<CheckIn, PlistError>| result.err().expect("not a check-in");
    assert!(matches!(
        error(check_in(&file("idle", "bin"))),
        PlistError::NoMessage(_)
    ));
    assert!(matches!(
        answer(&file("check-out", "xml")).err(),
        Some(PlistError::NoMessage(_))
    ));
    for bytes in [&b""[..], b"bplist00", b"hello", b"<plist><array/></plist>"] {
        assert!(check_in(bytes).is_err() && answer(bytes).is_err());
    }
}
