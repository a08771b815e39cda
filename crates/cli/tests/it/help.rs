//! What the program says of itself.

use crate::support::{binary, run};

#[test]
fn help_is_as_written_down() {
    trycmd::TestCases::new()
        .register_bin("lockwarden", binary())
        .case("tests/it/help/*.trycmd");
}

#[test]
fn wrong_usage_is_exit_status_2_and_speaks_on_standard_error() {
    for arguments in [
        &["no-such-command"][..],
        &["code"],
        &["code", "generate", "-n", "0"],
        &["devices", "show"],
        &["unlock", "SERIAL1"],
        &["apple", "lock-status", "SERIAL1"],
    ] {
        let refused = run(arguments, "");
        assert_eq!(refused.status, 2, "{arguments:?}");
        assert!(refused.stdout.is_empty() && !refused.stderr.is_empty());
        // For programs as a program reads it.
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        let refused = run(&arguments, "");
        let said: serde_json::Value = serde_json::from_str(&refused.stderr).unwrap();
        assert_eq!(refused.status, 2, "{arguments:?}");
        assert!(said["error"].is_string() && said["hint"].is_string());
    }
}

#[test]
fn a_command_of_a_server_says_how_to_name_one() {
    let refused = run(["devices", "list"], "");
    assert_eq!(refused.status, 2);
    assert!(
        refused.stderr.contains("--url") && refused.stderr.contains("LOCKWARDEN_URL"),
        "{}",
        refused.stderr
    );
    let refused = run(
        ["devices", "list", "--json", "--url", "https://127.0.0.1:1"],
        "",
    );
    let said: serde_json::Value = serde_json::from_str(&refused.stderr).unwrap();
    assert_eq!(refused.status, 2);
    assert!(said["hint"].as_str().unwrap().contains("--token-file"));
}
