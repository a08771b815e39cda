//! `lockwarden code`, through the real binary. The codes here are published test vectors.

use serde_json::{Value, json};

use crate::support::{command, file, run};

const RAW: &str = "000102030405060708090a0b0c0d0e0f";
const CODE: &str = "000H4-0R40M-30F2-0918-5HR3-8F17";
const HASH: &str = "C5CED1D0C51459C1A887866A5868DD3E9E6F4FC4A8C244F3F9EB9383C0F8AECB";

fn forms() -> Value {
    json!({ "raw": RAW, "code": CODE, "hash": HASH })
}

#[test]
fn a_code_is_shown_in_its_three_forms() {
    let shown = run(["code", "show", "--json"], CODE);
    assert_eq!(shown.status, 0);
    assert!(shown.json() == forms());
    let shown = run(
        ["code", "show", "--raw", "--json", "-"],
        &RAW.to_uppercase(),
    );
    assert!(shown.status == 0 && shown.json() == forms());
    let text = run(["code", "show"], CODE);
    assert!(text.stdout == format!("raw   {RAW}\ncode  {CODE}\nhash  {HASH}\n"));
}

#[test]
fn what_a_person_types_is_forgiven_and_nothing_else() {
    for typed in [
        "000h40r40m30f209185hr38f17",
        "000H4 0R40M 30F2 0918 5HR3 8F17\n",
        " 000h4-0r40m-30f2-0918-5hr3-8f17 ",
        "\u{feff}000H4-0R40M-30F2-0918-5HR3-8F17\r\n",
    ] {
        let shown = run(["code", "show", "--json"], typed);
        assert!(shown.status == 0 && shown.json() == forms());
    }
    let wrong = run(["code", "show"], "OOOH4-0R40M-30F2-0918-5HR3-8F17");
    assert_eq!(wrong.status, 1);
    assert!(wrong.stdout.is_empty());
    assert!(
        wrong.stderr.contains("character 1 is 'O'") && wrong.stderr.contains("'0'"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn a_code_is_read_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "code", &format!("{CODE}\n"));
    let shown = run(
        [
            "code".as_ref(),
            "show".as_ref(),
            "--json".as_ref(),
            path.as_os_str(),
        ],
        "",
    );
    assert!(shown.status == 0 && shown.json() == forms());
}

#[test]
fn every_published_vector_is_shown_right() {
    let vectors = include_str!("../../../activation-lock/tests/vectors/bypass-codes.json");
    let vectors: Vec<Value> = serde_json::from_str(vectors).unwrap();
    assert!(vectors.len() > 5);
    for (number, vector) in vectors.iter().enumerate() {
        let text = run(["code", "show", "--json"], vector["code"].as_str().unwrap());
        assert!(text.json() == *vector, "vector {number}, from its text");
        let raw = run(
            ["code", "show", "--raw", "--json"],
            vector["raw"].as_str().unwrap(),
        );
        assert!(raw.json() == *vector, "vector {number}, from its raw form");
    }
}

#[test]
fn new_codes_are_codes_and_differ() {
    let made = run(["code", "generate", "-n", "3"], "");
    assert_eq!(made.status, 0);
    let lines: Vec<&str> = made.stdout.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0] != lines[1] && lines[1] != lines[2] && lines[0] != lines[2]);
    for line in lines {
        let shown = run(["code", "show", "--json"], line);
        assert!(shown.json()["code"] == line);
    }
    let made = run(["code", "generate", "--json"], "").json();
    let keys: Vec<&String> = made.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["code", "hash", "raw"]);
    assert!(run(["code", "show", "--json"], made["code"].as_str().unwrap()).json() == made);
}

#[test]
fn many_codes_are_a_table_or_lines_of_json_each_with_its_own_hash() {
    let table = run(["code", "generate", "-n", "530", "--csv"], "");
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert_eq!(
        (lines[0], lines.len()),
        ("raw,code,hash", 531),
        "more than a block"
    );
    let distinct: std::collections::BTreeSet<_> = lines.iter().collect();
    assert_eq!(distinct.len(), 531);
    for line in [lines[1], lines[512], lines[513], lines[530]] {
        let parts: Vec<&str> = line.split(',').collect();
        let shown = run(["code", "show", "--json"], parts[1]).json();
        assert!(shown["raw"] == parts[0] && shown["hash"] == parts[2]);
    }
    let both = run(["code", "generate", "--csv", "--json"], "");
    assert_eq!(both.status, 2);
    let text = run(["code", "generate", "-n", "2000"], "");
    assert_eq!(text.stdout.lines().count(), 2_000);
}

#[test]
fn interrupted_it_ends_behind_a_whole_line_and_a_reader_that_goes_away_ends_it() {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::process::Stdio;

    let start = || {
        let mut command = command(["code", "generate", "-n", "1000000000", "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut child = start();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(rest.ends_with("}\n"));
    for line in rest.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok());
    }

    let mut child = start();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut first).unwrap();
    drop(out);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn r23_a_code_among_the_arguments_is_refused_and_not_repeated() {
    for arguments in [
        &["code", "show", "-", CODE][..],
        &["code", "show", "--code", CODE],
        &["code", "generate", "-n", CODE],
        &["code", "show", CODE],
    ] {
        let refused = run(arguments, "");
        assert_ne!(refused.status, 0);
        assert!(refused.stdout.is_empty());
        assert!(!refused.stderr.contains(CODE) && !refused.stderr.contains(RAW));
        assert!(refused.stderr.contains("hint:"), "a hint is missing");
    }
}

#[test]
fn raw_takes_32_hexadecimal_digits_and_nothing_else() {
    for wrong in [
        "",
        "00",
        &RAW[1..],
        &format!("{RAW}0"),
        &RAW.replace('f', "g"),
        CODE,
    ] {
        let refused = run(["code", "show", "--raw"], wrong);
        assert!(refused.status == 1 && refused.stdout.is_empty());
        assert!(refused.stderr.contains("32 hexadecimal digits"));
    }
}
