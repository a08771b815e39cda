//! Events of MDMs, read. The files in `tests/data/events` have the forms of NanoMDM 0.9, NanoMDM 0.8 and MicroMDM; Python's
//! plistlib and json wrote them.

use std::path::PathBuf;

use activation_lock::observation::{EnrollmentKind, Event, Observation, ReportedCode};
use activation_lock::time::Timestamp;
use escrow::connections::ConnectionKind;
use server::connectors::{EventError, read_event};

use crate::support::CODE_B;

const UDID: &str = "00008101-000A1B2C3D4E001E";
const SERIAL: &str = "DMPTEST00001";
const COMMAND: &str = "01932d5e-7c1a-7e51-9a3b-2f6c1d0e9b8a";
const TOPIC: &str = "com.apple.mgmt.External.11111111-2222-4333-8444-555555555555";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/events")
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(format!("{name}.json"))).unwrap()
}

fn kind_of(name: &str) -> ConnectionKind {
    if name.starts_with("micromdm") {
        ConnectionKind::MicroMdm
    } else {
        ConnectionKind::NanoMdm
    }
}

fn read(name: &str) -> Option<Observation> {
    read_event(kind_of(name), &file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What is of use here in an event, in one line.
fn line(name: &str) -> String {
    let Some(seen) = read(name) else {
        return "nothing".to_owned();
    };
    let what = match &seen.event {
        Event::Authenticate(said) => format!(
            "Authenticate {:?} {:?}",
            said.serial.as_ref().map(|serial| serial.as_str()),
            said.product_type.as_ref().map(|kind| kind.as_str())
        ),
        Event::TokenUpdate(said) => {
            format!(
                "TokenUpdate {:?} {:?}",
                said.tally, said.awaiting_configuration
            )
        }
        Event::CheckOut => "CheckOut".to_owned(),
        Event::Seen => "Seen".to_owned(),
        Event::Report(report) => format!(
            "{:?} {:?} {} {:?}",
            report.status,
            report.command.as_deref(),
            match report.bypass_code {
                ReportedCode::Absent => "no code",
                ReportedCode::Empty => "an empty code",
                ReportedCode::Code(_) => "a code",
            },
            report
                .errors
                .iter()
                .map(|link| link.code)
                .collect::<Vec<_>>()
        ),
    };
    format!("{} {}: {what}", seen.kind.as_str(), seen.enrollment)
}

#[test]
fn r6_every_event_says_whose_enrollment_it_is_and_what_happened() {
    let device = |what: &str| format!("Device {UDID}: {what}");
    let code = format!("Acknowledged {:?} a code []", Some(COMMAND));
    let authenticate = format!("Authenticate {:?} {:?}", Some(SERIAL), Some("iPad4,1"));
    for version in ["nanomdm-0.9", "nanomdm-0.8", "micromdm"] {
        for (event, what) in [
            ("authenticate", authenticate.as_str()),
            ("check-out", "CheckOut"),
            ("bypass-code", code.as_str()),
            ("idle", "Seen"),
        ] {
            let name = format!("{version}-{event}");
            assert_eq!(line(&name), device(what), "{name}");
        }
    }
    let later = [
        ("nanomdm-0.9-token-update", "TokenUpdate Some(1) Some(true)"),
        ("nanomdm-0.8-token-update", "TokenUpdate Some(1) None"),
        ("micromdm-token-update", "TokenUpdate None None"),
    ];
    for (name, what) in later {
        assert_eq!(line(name), device(what), "{name}");
    }
    let not_now = format!("NotNow {:?} no code []", Some(COMMAND));
    assert_eq!(line("nanomdm-0.9-not-now"), device(&not_now));
    let error = format!("Error {:?} no code [12021]", Some(COMMAND));
    assert_eq!(line("nanomdm-0.9-error"), device(&error));
}

#[test]
fn r6_messages_of_no_use_are_signs_of_life() {
    for topic in [
        "userauthenticate",
        "setbootstraptoken",
        "getbootstraptoken",
        "declarativemanagement",
        "gettoken",
    ] {
        let name = format!("nanomdm-0.9-{topic}");
        assert_eq!(line(&name), format!("Device {UDID}: Seen"), "{name}");
    }
}

#[test]
fn r10_a_person_s_channel_has_nothing_for_us_whether_the_mdm_names_it_or_the_plist_shows_it() {
    for name in [
        "nanomdm-0.9-token-update-user",
        "nanomdm-0.9-token-update-shared-ipad",
        "nanomdm-0.9-idle-user",
        "nanomdm-0.8-token-update-user",
        "nanomdm-0.8-token-update-shared-ipad",
        "nanomdm-0.8-idle-user",
    ] {
        assert_eq!(line(name), "nothing", "{name}");
    }
}

#[test]
fn r10_the_device_channel_of_a_user_enrollment_is_known_as_one() {
    let wanted = format!(
        "User Enrollment (Device) EA1B2C3D-ENROLL: Authenticate None {:?}",
        Some("iPhone15,3")
    );
    for version in ["nanomdm-0.9", "nanomdm-0.8"] {
        let name = format!("{version}-authenticate-user-enrollment");
        assert_eq!(line(&name), wanted, "{name}");
    }
}

#[test]
fn r1_a_code_arrives_byte_for_byte_with_the_command_it_answers() {
    for name in ["nanomdm-0.9-bypass-code", "micromdm-bypass-code"] {
        let Some(Event::Report(report)) = read(name).map(|seen| seen.event) else {
            panic!("{name} is not read as a report")
        };
        assert_eq!(report.command.as_deref(), Some(COMMAND));
        let ReportedCode::Code(code) = &report.bypass_code else {
            panic!("{name} has no code")
        };
        assert!(code.expose() == CODE_B, "{name}: it is another code");
    }
}

#[test]
fn an_authenticate_says_all_that_is_kept_of_it() {
    let Some(Event::Authenticate(said)) = read("nanomdm-0.9-authenticate").map(|seen| seen.event)
    else {
        panic!("it is not read as an Authenticate")
    };
    assert_eq!(said.udid.as_deref(), Some(UDID));
    assert_eq!(said.topic.as_deref(), Some(TOPIC));
    assert_eq!(said.model_name.as_deref(), Some("iPad"));
    assert_eq!(said.os_version.as_deref(), Some("26.0.1"));
    let imei = said.cellular.imei.as_ref().map(|imei| imei.as_str());
    assert_eq!(imei, Some("356987241567821"));
}

#[test]
fn the_time_is_the_mdm_s_own_in_any_zone_and_precision() {
    // 2026-10-05T08:15:30Z is 1791188130.
    for (name, millis) in [
        ("nanomdm-0.9-authenticate", 1_791_188_130_123),
        ("nanomdm-0.9-idle", 1_791_188_131_000),
        ("micromdm-idle", 1_791_188_130_500),
    ] {
        assert_eq!(read(name).unwrap().at, Timestamp(millis), "{name}");
    }
}

/// The file, with a part of the text in place of another.
fn changed(name: &str, from: &str, to: &str) -> Result<Option<Observation>, EventError> {
    let text = String::from_utf8(file(name)).unwrap();
    assert!(text.contains(from), "{name} has no {from}");
    read_event(kind_of(name), text.replacen(from, to, 1).as_bytes())
}

fn seen(read: Result<Option<Observation>, EventError>) -> bool {
    matches!(
        read,
        Ok(Some(Observation {
            event: Event::Seen,
            ..
        }))
    )
}

#[test]
fn r22_what_is_no_event_is_refused() {
    for garbage in [
        "",
        "null",
        "[]",
        "{}",
        "{\"topic\":\"mdm.Connect\"}",
        "{\"topic\":\"mdm.Connect\",\"created_at\":\"2026-10-05T08:15:30Z\"}",
        "{\"topic\":5,\"created_at\":\"2026-10-05T08:15:30Z\"}",
        "<plist/>",
    ] {
        let read = read_event(ConnectionKind::NanoMdm, garbage.as_bytes());
        assert_eq!(read.err(), Some(EventError::NotAnEvent), "{garbage}");
    }
    let idle = "nanomdm-0.9-idle";
    let code = "nanomdm-0.9-bypass-code";
    for (name, from, to) in [
        (idle, "2026-10-05T10:15:31+02:00", "yesterday"),
        (idle, "\"id\":\"", "\"id\":\"\\u0000"),
        (code, "acknowledge_event", "checkin_event"),
        (
            "nanomdm-0.9-authenticate",
            "checkin_event",
            "acknowledge_event",
        ),
    ] {
        assert_eq!(
            changed(name, from, to).err(),
            Some(EventError::NotAnEvent),
            "{name} {to}"
        );
    }
    let long = format!("\"id\":\"{}", "A".repeat(300));
    assert_eq!(
        changed(idle, "\"id\":\"", &long).err(),
        Some(EventError::NotAnEvent)
    );
}

#[test]
fn r22_a_message_that_cannot_be_read_is_refused_unless_only_a_sign_of_life_is_lost() {
    let code = "nanomdm-0.9-bypass-code";
    for (name, from, to) in [
        (code, "raw_payload\":\"", "raw_payload\":\"?"),
        (code, "raw_payload\":\"", "raw_payload\":\"AAAA"),
        (code, "raw_payload", "nothing"),
        (
            "nanomdm-0.9-authenticate",
            "raw_payload\":\"",
            "raw_payload\":\"AAAA",
        ),
        (
            "nanomdm-0.9-authenticate",
            "mdm.Authenticate",
            "mdm.TokenUpdate",
        ),
        // Without a name beside it, only its message says who left.
        (
            "nanomdm-0.8-check-out",
            "raw_payload\":\"",
            "raw_payload\":\"AAAA",
        ),
    ] {
        assert_eq!(
            changed(name, from, to).err(),
            Some(EventError::Message),
            "{name} {to}"
        );
    }
    // The MDM names the enrollment: the message is not needed.
    let idle = "nanomdm-0.9-idle";
    assert!(seen(changed(
        idle,
        "raw_payload\":\"",
        "raw_payload\":\"AAAA"
    )));
    assert!(seen(changed(idle, "raw_payload", "nothing")));
    let left = changed(
        "nanomdm-0.9-check-out",
        "raw_payload\":\"",
        "raw_payload\":\"AAAA",
    );
    assert!(matches!(
        left,
        Ok(Some(Observation {
            event: Event::CheckOut,
            ..
        }))
    ));
    // It does not: nobody is seen, and nothing is wrong.
    let lost = changed(
        "nanomdm-0.8-idle",
        "raw_payload\":\"",
        "raw_payload\":\"AAAA",
    );
    assert!(matches!(lost, Ok(None)));
}

#[test]
fn r22_what_an_mdm_may_add_is_tolerated() {
    let idle = "nanomdm-0.9-idle";
    assert!(seen(changed(idle, "{", "{\"new\":{\"deep\":[1,null]},")));
    let params = "\"acknowledge_event\":{\"url_params\":{\"a\":\"b\"},\"later\":1,";
    assert!(seen(changed(idle, "\"acknowledge_event\":{", params)));
    assert!(seen(changed(idle, "mdm.Connect", "mdm.SomethingNew")));
    // A kind of enrollment that is not known here is not asked anything; an event without any says nothing.
    assert!(matches!(
        changed(idle, "\"Device\"", "\"Toaster\""),
        Ok(None)
    ));
    let bare = "{\"topic\":\"mdm.SomethingNew\",\"created_at\":\"2026-10-05T08:15:30Z\"}";
    assert!(matches!(
        read_event(ConnectionKind::NanoMdm, bare.as_bytes()),
        Ok(None)
    ));
}

#[test]
fn the_command_of_a_report_is_the_device_s_own_word_or_else_the_mdm_s() {
    let not_now = "nanomdm-0.9-not-now";
    let command = |read: Result<Option<Observation>, EventError>| match read {
        Ok(Some(Observation {
            event: Event::Report(report),
            ..
        })) => report.command,
        _ => panic!("it is not read as a report"),
    };
    assert_eq!(
        command(changed(not_now, COMMAND, "another")).as_deref(),
        Some(COMMAND)
    );
    // <dict><key>Status</key><string>NotNow</string></dict>
    let bare = "PHBsaXN0PjxkaWN0PjxrZXk+U3RhdHVzPC9rZXk+PHN0cmluZz5Ob3ROb3c8L3N0cmluZz48L2RpY3Q+PC9wbGlzdD4=";
    let text = String::from_utf8(file(not_now)).unwrap();
    let (start, _) = text.split_once("\"raw_payload\":\"").unwrap();
    let text = format!("{start}\"raw_payload\":\"{bare}\"}}}}");
    let read = read_event(ConnectionKind::NanoMdm, text.as_bytes());
    assert_eq!(command(read).as_deref(), Some(COMMAND));
}

#[test]
fn a_kind_of_enrollment_is_read_whatever_the_words_of_the_plist() {
    let kind = |read: Result<Option<Observation>, EventError>| read.ok().flatten().map(|o| o.kind);
    let as_device = changed("nanomdm-0.9-idle-user", "\"User\"", "\"Device\"");
    assert_eq!(kind(as_device), Some(EnrollmentKind::Device));
    assert_eq!(
        kind(changed("nanomdm-0.9-idle", "\"Device\"", "\"Shared iPad\"")),
        None
    );
}
