//! Texts of others that repeat a code (R23). The codes are published test vectors.

use activation_lock::bypass_code::{BypassCode, EscrowKeyHash};
use apple::redaction::{MARK, WITHHELD, diagnostic, without_shapes};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

use crate::support::{CODE, OTHER_CODE};

/// What the text says once everything but letters and digits is taken out.
fn bare(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_uppercase)
        .collect()
}

fn escaped(text: &str, escape: impl Fn(char) -> String) -> String {
    text.chars().map(escape).collect()
}

/// The code as careless programs repeat it.
fn repetitions() -> Vec<(&'static str, String)> {
    let raw = BypassCode::parse(CODE).unwrap();
    let percent = escaped(CODE, |c| format!("%{:02x}", u32::from(c)));
    vec![
        ("plain", CODE.to_owned()),
        ("without dashes", CODE.replace('-', "")),
        ("small", CODE.to_lowercase()),
        ("small without dashes", CODE.to_lowercase().replace('-', "")),
        ("a parameter", format!("escrowKey={CODE}&x=1")),
        ("dashes escaped", CODE.replace('-', "%2D")),
        ("percent", percent.clone()),
        ("percent twice", percent.replace('%', "%25")),
        ("XML", escaped(CODE, |c| format!("&#{};", u32::from(c)))),
        (
            "XML, hexadecimal",
            escaped(CODE, |c| format!("&#x{:X};", u32::from(c))),
        ),
        (
            "JSON",
            escaped(CODE, |c| format!("\\u{:04x}", u32::from(c))),
        ),
        ("C", escaped(CODE, |c| format!("\\x{:02x}", u32::from(c)))),
        ("hexadecimal", HEXLOWER.encode(CODE.as_bytes())),
        ("HEXADECIMAL", HEXUPPER.encode(CODE.as_bytes())),
        (
            "a dump",
            escaped(CODE, |c| format!("{:02X} ", u32::from(c))),
        ),
        ("base64", BASE64.encode(CODE.as_bytes())),
        ("base64 for URLs", BASE64URL_NOPAD.encode(CODE.as_bytes())),
        (
            "base64 from the second byte",
            BASE64.encode(format!("x{CODE}y").as_bytes()),
        ),
        (
            "base64 from the third byte",
            BASE64.encode(format!("xx{CODE}yy").as_bytes()),
        ),
        (
            "base64 in lines",
            BASE64
                .encode(format!("key={CODE};").as_bytes())
                .as_bytes()
                .chunks(16)
                .map(|line| format!("{}\r\n", String::from_utf8_lossy(line)))
                .collect(),
        ),
        ("the raw code", HEXLOWER.encode(raw.raw())),
        ("the raw code in base64", BASE64.encode(raw.raw())),
        ("the hash", EscrowKeyHash::of(&raw).to_string()),
        ("spaced", escaped(CODE, |c| format!("{c} "))),
        ("by lines", CODE.replace('-', "\r\n")),
        ("with soft hyphens", CODE.replace('-', "\u{ad}")),
        (
            "invisible letters between",
            escaped(CODE, |c| format!("{c}\u{200b}")),
        ),
    ]
}

/// Everything by which a code could be known, without what stands between letters and digits.
fn traces() -> Vec<String> {
    let raw = BypassCode::parse(CODE).unwrap();
    [
        CODE.to_owned(),
        HEXLOWER.encode(CODE.as_bytes()),
        HEXLOWER.encode(raw.raw()),
        BASE64.encode(CODE.as_bytes())[..30].to_owned(),
        BASE64.encode(raw.raw())[..20].to_owned(),
        EscrowKeyHash::of(&raw).to_string(),
    ]
    .iter()
    .map(|text| bare(text))
    .collect()
}

#[test]
fn r23_no_encoding_of_a_code_is_left_in_a_diagnostic() {
    for (name, repeated) in repetitions() {
        for body in [
            repeated.clone(),
            format!("before {repeated} after"),
            format!("<error key=\"{repeated}\">no such key</error>"),
            repeated.repeat(3),
        ] {
            let kept = diagnostic(body.as_bytes(), false, &[CODE]);
            let all = bare(&kept);
            for trace in traces() {
                assert!(!all.contains(&trace), "{name}");
            }
            assert!(
                kept.contains(MARK) || kept == WITHHELD,
                "{name}: something stands in its place"
            );
        }
    }
}

#[test]
fn r23_every_code_that_was_sent_is_looked_for() {
    let body = format!("first {CODE}, then {OTHER_CODE}, then {}", "opaque text 77");
    let kept = diagnostic(
        body.as_bytes(),
        false,
        &[CODE, OTHER_CODE, "opaque text 77"],
    );
    assert_eq!(kept, "first [code], then [code], then [code]");
}

#[test]
fn r23_a_text_in_utf_16_is_read_too() {
    let body: Vec<u8> = format!("key {CODE} is wrong")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let kept = diagnostic(&body, false, &[CODE]);
    assert_eq!(kept, "key [code] is wrong");
}

#[test]
fn r23_the_end_of_a_body_that_was_cut_may_hold_half_a_code_and_is_dropped() {
    let long = "opaque ".repeat(300);
    for code in [CODE, &long] {
        let mut body = vec![b'x'; 40_000];
        body.extend_from_slice(&code.as_bytes()[..code.len() - 3]);
        let kept = diagnostic(&body, true, &[code]);
        assert!(kept.bytes().all(|byte| byte == b'x'));
        assert_eq!(diagnostic(b"short", true, &[code]), "");
    }
}

#[test]
fn what_is_no_code_is_kept_readable() {
    for (body, kept) in [
        (&b"escrow key mismatch"[..], "escrow key mismatch"),
        (
            b"  <code>404</code>\r\n\tno\x1b[31m ",
            "<code>404</code>  no[31m",
        ),
        (b"", ""),
        (b"caf\xc3\xa9 \xff", "caf\u{e9} \u{fffd}"),
        ("left\u{202e}right".as_bytes(), "leftright"),
    ] {
        assert_eq!(diagnostic(body, false, &[CODE]), kept);
    }
    let long = "\u{e9}".repeat(10_000);
    let kept = diagnostic(long.as_bytes(), false, &[CODE]);
    assert_eq!(kept.chars().count(), 4096);
}

#[test]
fn r23_what_looks_like_a_code_or_a_hash_is_cut_out_where_none_is_expected() {
    let hash = "6AB40D5EABE7218EC04182F461005600C7E3426BDDD82CDB405BDE9A1E0014B5";
    for (text, kept) in [
        (format!("key={CODE};"), "key=[code];"),
        (CODE.replace('-', "").to_lowercase(), "[code]"),
        (format!("hash {hash}!"), "hash [code]!"),
        (
            "00008101-000A2D3C0E10001E".to_owned(),
            "00008101-000A2D3C0E10001E",
        ),
        (
            "com.apple.mgmt.External.51135151-5115-4115-8115-511351135113".to_owned(),
            "com.apple.mgmt.External.51135151-5115-4115-8115-511351135113",
        ),
    ] {
        assert_eq!(without_shapes(&text), kept);
    }
}
