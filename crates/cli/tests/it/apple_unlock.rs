//! `lockwarden apple unlock`, through the real binary and over mutual TLS, against the fake of Apple's service. The codes are
//! published test vectors.

use std::path::PathBuf;

use serde_json::{Value, json};
use sim::{
    Apple, AppleDevice, AppleOptions, Fault, Issuer, LockKind, Now, PushCertificateOptions,
    SIM_TOPIC, fingerprint,
};
use tokio::runtime::Runtime;

use crate::support::{Finished, command, file, finish};

const SERIAL: &str = "SIMTEST00001";
const CODE: &str = "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4";
const OTHER: &str = "PXH8M-QYJZA-2H1J-H9CV-HN5U-KDN7";
const THIRD: &str = "000H4-0R40M-30F2-0918-5HR3-8F17";

/// A fake Apple that knows one iPad, locked with [`CODE`], and a folder with what the command needs.
struct Stage {
    apple: Apple,
    folder: tempfile::TempDir,
    runtime: Runtime,
}

impl Stage {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let apple = runtime
            .block_on(Apple::start(AppleOptions::default()))
            .unwrap();
        apple.add_device(AppleDevice {
            serial: SERIAL.to_owned(),
            product_type: "iPad4,1".to_owned(),
            ..AppleDevice::default()
        });
        apple.user_lock(SERIAL, CODE).unwrap();
        let stage = Self {
            apple,
            folder: tempfile::tempdir().unwrap(),
            runtime,
        };
        stage.file("ca.pem", &stage.apple.ca_pem());
        stage.file(
            "push.pem",
            &stage.apple.push_certificate(SIM_TOPIC).bundle_pem(),
        );
        stage
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        file(self.folder.path(), name, text)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Every option the command must have, as name and value.
    fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("--serial", SERIAL.to_owned()),
            ("--product-type", "iPad4,1".to_owned()),
            ("--org-name", "Example & Co".to_owned()),
            ("--requester", "anna@example.org".to_owned()),
            ("--code-file", "-".to_owned()),
            ("--certificate", self.path("push.pem")),
            ("--apple-url", self.apple.url()),
            ("--ca-file", self.path("ca.pem")),
        ]
    }

    /// Runs it with these options changed; an empty value leaves one out.
    fn run_with(&self, changes: &[(&'static str, &str)], stdin: &str) -> Finished {
        let mut options = self.options();
        for (name, value) in changes {
            options.retain(|(known, _)| known != name);
            if !value.is_empty() {
                options.push((name, (*value).to_owned()));
            }
        }
        let mut arguments = vec!["apple".to_owned(), "unlock".to_owned(), "--json".to_owned()];
        for (name, value) in options {
            arguments.extend([name.to_owned(), value]);
        }
        finish(command(arguments), stdin)
    }

    fn run(&self, stdin: &str) -> Finished {
        self.run_with(&[], stdin)
    }

    fn calls(&self) -> u64 {
        self.apple.journal().count()
    }
}

fn report(outcome: &str, attempts: &[(&str, Option<u16>)]) -> Value {
    let attempts: Vec<Value> = attempts
        .iter()
        .map(|(outcome, status)| json!({ "outcome": outcome, "status": status }))
        .collect();
    json!({ "outcome": outcome, "attempts": attempts })
}

#[track_caller]
fn ended(run: &Finished, exit_status: i32, expected: &Value) {
    assert_eq!(run.json(), *expected, "{}", run.stderr);
    assert_eq!(run.status, exit_status, "{expected}");
    assert_eq!(run.stdout.lines().count(), 1, "one JSON value on one line");
}

#[test]
fn r13_200_is_unlocked_and_exit_status_0() {
    let stage = Stage::new();
    ended(
        &stage.run(CODE),
        0,
        &report("unlocked", &[("unlocked", Some(200))]),
    );
    assert_eq!(stage.apple.lock_state(SERIAL), None);
    let call = stage.apple.journal().get(0).unwrap();
    assert_eq!(call.org_name.as_deref(), Some("Example & Co"));
    assert_eq!(call.guid.as_deref(), Some("anna@example.org"));
    assert_eq!(call.topic.as_deref(), Some(SIM_TOPIC));
    assert_eq!(call.query.len(), 2, "no empty parameters");
}

#[test]
fn r13_404_is_refused_and_exit_status_3() {
    let stage = Stage::new();
    ended(
        &stage.run(OTHER),
        3,
        &report("refused", &[("refused", Some(404))]),
    );
    assert_eq!(stage.apple.lock_state(SERIAL), Some(LockKind::User));
}

/// Whatever is not a refusal stops at the first of two codes.
#[test]
fn r13_every_other_status_stops_with_its_own_exit_status() {
    let stage = Stage::new();
    let cases = [
        (Fault::status(400), 400, "malformed", 4),
        (Fault::status(302), 302, "unexpected", 4),
        (Fault::status(418), 418, "unexpected", 4),
        (Fault::status(401), 401, "credential", 5),
        (Fault::status(403), 403, "credential", 5),
        (Fault::status(429), 429, "unavailable", 6),
        (Fault::status(503).retry_after("3"), 503, "unavailable", 6),
        (Fault::status(408), 408, "unknown", 7),
        (Fault::status(500), 500, "unknown", 7),
        (Fault::status(503), 503, "unknown", 7),
        (Fault::status(202), 202, "unknown", 7),
    ];
    for (number, (fault, status, outcome, exit_status)) in cases.into_iter().enumerate() {
        stage.apple.push_fault(fault);
        let run = stage.run(&format!("{OTHER}\n{CODE}\n"));
        ended(
            &run,
            exit_status,
            &report(outcome, &[(outcome, Some(status))]),
        );
        assert_eq!(stage.calls(), number as u64 + 1, "no second call");
    }
    assert_eq!(stage.apple.lock_state(SERIAL), Some(LockKind::User));
}

#[test]
fn r13_a_lost_answer_is_unknown_and_exit_status_7() {
    let stage = Stage::new();
    for fault in [Fault::drop_before(), Fault::garbage()] {
        stage.apple.push_fault(fault);
        let run = stage.run(&format!("{OTHER}\n{CODE}\n"));
        ended(&run, 7, &report("unknown", &[("unknown", None)]));
    }
    assert_eq!(stage.calls(), 2);
}

#[test]
fn t15_a_refused_certificate_is_credential_and_exit_status_5() {
    let stage = Stage::new();
    let options = PushCertificateOptions::new(SIM_TOPIC, Now::wall().get());
    for issuer in [Issuer::Unknown, Issuer::IntermediateWithoutChain] {
        let certificate = stage
            .apple
            .issue(&options.clone().signed_by(issuer))
            .unwrap();
        stage.file("push.pem", &certificate.bundle_pem());
        let run = stage.run(&format!("{OTHER}\n{CODE}\n"));
        ended(&run, 5, &report("credential", &[("credential", None)]));
    }
    assert_eq!(stage.calls(), 0);
}

#[test]
fn t15_an_expired_certificate_is_credential_and_nothing_is_sent() {
    let stage = Stage::new();
    let options = PushCertificateOptions::new(SIM_TOPIC, Now::wall().get()).expired();
    let certificate = stage.apple.issue(&options).unwrap();
    stage.file("push.pem", &certificate.bundle_pem());
    let run = stage.run(CODE);
    ended(&run, 5, &report("credential", &[("credential", None)]));
    assert_eq!(stage.apple.connections(), 0);
}

#[test]
fn r13_a_certificate_that_cannot_be_used_is_credential_and_nothing_is_sent() {
    let stage = Stage::new();
    let good = stage.apple.push_certificate(SIM_TOPIC);
    let other = stage.apple.push_certificate(SIM_TOPIC);
    for (file, why) in [
        ("hello", "no certificate"),
        (good.certificate_pem.as_str(), "no private key"),
        (
            &format!("{}{}", good.certificate_pem, other.key_pem),
            "another certificate",
        ),
    ] {
        stage.file("push.pem", file);
        let run = stage.run(CODE);
        ended(&run, 5, &report("credential", &[]));
        let said: Value = serde_json::from_str(run.stderr.lines().last().unwrap()).unwrap();
        let error = said["error"].as_str().unwrap();
        assert!(error.contains(why), "{error}");
    }
    let run = stage.run_with(&[("--certificate", "/nowhere/push.pem")], CODE);
    ended(&run, 5, &report("credential", &[]));
    assert_eq!(stage.apple.connections(), 0);
}

#[test]
fn r13_an_apple_that_is_not_reached_is_unavailable_and_exit_status_6() {
    let stage = Stage::new();
    let not_trusted = stage.run_with(&[("--ca-file", "")], CODE);
    let expected = report("unavailable", &[("unavailable", None)]);
    ended(&not_trusted, 6, &expected);
    stage.runtime.block_on(stage.apple.go_offline());
    let run = stage.run(&format!("{OTHER}\n{CODE}\n"));
    ended(&run, 6, &expected);
    assert_eq!(stage.calls(), 0);
}

#[test]
fn codes_are_tried_in_the_order_given_until_one_is_accepted() {
    let stage = Stage::new();
    let run = stage.run(&format!("{OTHER}\n\n  {CODE}  \r\n{OTHER}\n{THIRD}\n"));
    ended(
        &run,
        0,
        &report(
            "unlocked",
            &[("refused", Some(404)), ("unlocked", Some(200))],
        ),
    );
    let sent: Vec<_> = stage
        .apple
        .journal()
        .all()
        .into_iter()
        .map(|call| call.code_fingerprint.unwrap())
        .collect();
    assert_eq!(sent, [fingerprint(OTHER), fingerprint(CODE)]);
}

#[test]
fn a_code_file_is_read_as_standard_input_is() {
    let stage = Stage::new();
    let path = stage.file("codes", &format!("{CODE}\n"));
    let run = stage.run_with(&[("--code-file", path.to_str().unwrap())], "");
    ended(&run, 0, &report("unlocked", &[("unlocked", Some(200))]));
}

#[test]
fn r3_what_a_person_typed_goes_out_in_its_canonical_form_first_and_as_it_stands_second() {
    let stage = Stage::new();
    let typed = OTHER.to_lowercase().replace('-', " ");
    let run = stage.run(&typed);
    ended(
        &run,
        3,
        &report("refused", &[("refused", Some(404)), ("refused", Some(404))]),
    );
    let sent: Vec<_> = stage
        .apple
        .journal()
        .all()
        .into_iter()
        .map(|call| call.code_fingerprint.unwrap())
        .collect();
    assert_eq!(sent, [fingerprint(OTHER), fingerprint(&typed)]);
}

#[test]
fn r13_a_text_that_is_no_code_does_not_block_the_codes_after_it() {
    let stage = Stage::new();
    stage.apple.push_fault(Fault::status(400));
    let run = stage.run(&format!("no code at all\n{CODE}\n"));
    ended(
        &run,
        0,
        &report(
            "unlocked",
            &[("malformed", Some(400)), ("unlocked", Some(200))],
        ),
    );
    stage.apple.push_fault(Fault::status(400));
    let run = stage.run("no code at all\n");
    ended(&run, 4, &report("malformed", &[("malformed", Some(400))]));
}

#[test]
fn r18_numbers_are_sent_as_digits_and_only_when_given() {
    let stage = Stage::new();
    stage.apple.add_device(AppleDevice {
        serial: "SIMTEST00002".to_owned(),
        product_type: "iPhone17,3".to_owned(),
        imei: Some("358823340832230".to_owned()),
        imei2: Some("358823340832248".to_owned()),
        meid: Some("35882334083223".to_owned()),
    });
    stage.apple.user_lock("SIMTEST00002", CODE).unwrap();
    let run = stage.run_with(
        &[
            ("--serial", "simtest00002"),
            ("--product-type", "iPhone17,3"),
            ("--imei", "35 882334 083223 0"),
            ("--imei2", "35-882334-083224-8"),
            ("--meid", "35882334083223"),
        ],
        CODE,
    );
    ended(&run, 0, &report("unlocked", &[("unlocked", Some(200))]));
}

#[test]
fn a_key_may_be_in_a_file_of_its_own() {
    let stage = Stage::new();
    let certificate = stage.apple.push_certificate(SIM_TOPIC);
    stage.file("push.pem", &certificate.certificate_pem);
    stage.file("key.pem", &certificate.key_pem);
    let run = stage.run_with(&[("--key", &stage.path("key.pem"))], CODE);
    ended(&run, 0, &report("unlocked", &[("unlocked", Some(200))]));
}

#[test]
fn r13_wrong_usage_is_exit_status_2_and_sends_nothing() {
    let stage = Stage::new();
    let with_a_path = format!("{}/deviceservicesworkers", stage.apple.url());
    let empty = stage.file("empty", "\n \n");
    let cases: &[(&'static str, &str)] = &[
        ("--apple-url", &with_a_path),
        ("--apple-url", "http://apple.example"),
        ("--apple-url", "deviceservices-external.apple.com"),
        ("--serial", ""),
        ("--serial", "not a serial"),
        ("--product-type", ""),
        ("--product-type", "iPad"),
        ("--imei", "12"),
        ("--org-name", ""),
        ("--org-name", "  "),
        ("--requester", " "),
        ("--code-file", ""),
        ("--code-file", "/nowhere/code"),
        ("--code-file", empty.to_str().unwrap()),
        ("--certificate", ""),
        ("--key", "-"),
        ("--ca-file", empty.to_str().unwrap()),
    ];
    for (name, value) in cases {
        let run = stage.run_with(&[(name, value)], CODE);
        assert_eq!(run.status, 2, "{name} {value:?}: {}", run.stderr);
        assert!(run.stdout.is_empty(), "{name} {value:?}");
        assert!(!run.stderr.is_empty(), "{name} {value:?}");
    }
    assert_eq!(stage.apple.connections(), 0);
}

#[test]
fn r13_a_redirect_is_not_followed() {
    let stage = Stage::new();
    let elsewhere = stage
        .runtime
        .block_on(Apple::start(AppleOptions::default()))
        .unwrap();
    for status in [301, 302, 303, 307, 308] {
        let to = format!("{}{}", elsewhere.url(), sim::apple::PATH);
        stage.apple.push_fault(Fault::status(status).location(to));
        let run = stage.run(CODE);
        ended(
            &run,
            4,
            &report("unexpected", &[("unexpected", Some(status))]),
        );
    }
    assert_eq!(stage.calls(), 5);
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn r13_no_proxy_is_taken_from_the_environment() {
    let stage = Stage::new();
    let mut arguments = vec!["apple".to_owned(), "unlock".to_owned(), "--json".to_owned()];
    for (name, value) in stage.options() {
        arguments.extend([name.to_owned(), value]);
    }
    let mut command = command(arguments);
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env(name, "http://127.0.0.1:1");
    }
    command.env_remove("NO_PROXY").env_remove("no_proxy");
    let run = finish(command, CODE);
    ended(&run, 0, &report("unlocked", &[("unlocked", Some(200))]));
}

#[test]
fn r23_no_code_is_in_what_is_printed_even_when_apple_repeats_it() {
    let stage = Stage::new();
    let hex = data_encoding::HEXLOWER.encode(CODE.as_bytes());
    let raw = "1ea841db5edfafe6075b5ae0d845d254";
    let forms = [CODE, &CODE.replace('-', ""), &hex, raw].map(str::to_lowercase);
    for json in [true, false] {
        for status in [400, 404, 500] {
            stage.apple.push_fault(Fault::echo(status));
            let mut arguments = vec!["apple".to_owned(), "unlock".to_owned()];
            arguments.extend(json.then(|| "--json".to_owned()));
            for (name, value) in stage.options() {
                arguments.extend([name.to_owned(), value]);
            }
            let run = finish(command(arguments), CODE);
            assert_ne!(run.status, 0);
            let all = format!("{}{}", run.stdout, run.stderr).to_lowercase();
            assert!(!forms.iter().any(|form| all.contains(form)), "{status}");
        }
    }
    let refused = finish(command(["apple", "unlock", "--code", CODE]), "");
    assert_eq!(refused.status, 2);
    assert!(!refused.stderr.contains(CODE));
}

#[test]
fn without_json_the_outcome_is_data_and_the_rest_is_talk() {
    let stage = Stage::new();
    let mut arguments = vec!["apple".to_owned(), "unlock".to_owned()];
    for (name, value) in stage.options() {
        arguments.extend([name.to_owned(), value]);
    }
    let run = finish(command(arguments), &format!("{OTHER}\n{CODE}\n"));
    assert_eq!(run.status, 0);
    assert_eq!(run.stdout, "unlocked\n");
    assert!(run.stderr.contains("attempt 1: refused (404)"));
    assert!(run.stderr.contains("attempt 2: unlocked (200)"));
    assert!(run.stderr.contains("What to do: "));
}
