//! T1 of the contract sheet: the text form and the hash agree with Apple's sample and with an independent writing.

use std::fmt::Write as _;

use activation_lock::bypass_code::{BypassCode, EscrowKeyHash};
use activation_lock::hash::Kernel;
use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

#[derive(Deserialize)]
struct Case {
    raw: String,
    code: String,
    hash: String,
}

#[derive(Deserialize)]
struct More {
    cases: Vec<Case>,
    one_hot_sha256: String,
    every_symbol_everywhere_sha256: String,
    hashed_counters_0_to_9999_sha256: String,
}

fn published() -> Vec<Case> {
    serde_json::from_str(include_str!("../vectors/bypass-codes.json")).expect("a list of vectors")
}

fn more() -> More {
    serde_json::from_str(include_str!("../vectors/bypass-codes-more.json"))
        .expect("cases and digests")
}

fn unhex(text: &str) -> [u8; 16] {
    u128::from_str_radix(text, 16)
        .expect("32 hexadecimal digits")
        .to_be_bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

fn check(case: &Case) {
    let code = BypassCode::from_raw(unhex(&case.raw));
    assert_eq!(*code.to_text(), case.code);
    assert_eq!(EscrowKeyHash::of(&code).to_string(), case.hash);
    assert!(BypassCode::parse(&case.code).ok() == Some(code.clone()));
    assert!(
        BypassCode::parse_lenient(&case.code.to_lowercase().replace('-', " ")).ok()
            == Some(code.clone())
    );
    assert!(
        EscrowKeyHash::from_hex(&case.hash.to_lowercase()).ok() == Some(EscrowKeyHash::of(&code))
    );
}

#[test]
fn t1_every_kernel_gives_the_hashes_of_all_vectors() {
    let cases: Vec<Case> = published().into_iter().chain(more().cases).collect();
    let codes: Vec<BypassCode> = cases
        .iter()
        .map(|case| BypassCode::from_raw(unhex(&case.raw)))
        .collect();
    for kernel in Kernel::available() {
        let hashes = EscrowKeyHash::of_batch_by(kernel, &codes);
        for (case, hash) in cases.iter().zip(&hashes) {
            assert_eq!(hash.to_string(), case.hash, "{kernel:?}");
        }
    }
    for (case, hash) in cases.iter().zip(EscrowKeyHash::of_batch(&codes)) {
        assert_eq!(hash.to_string(), case.hash, "on every core");
    }
}

/// SHA-256 over every code, each followed by a line feed.
fn digest(raws: impl Iterator<Item = [u8; 16]>) -> String {
    let mut all = Sha256::new();
    for raw in raws {
        all.update(BypassCode::from_raw(raw).to_text().as_bytes());
        all.update(b"\n");
    }
    hex(&all.finalize())
}

#[test]
fn t1_published_vectors_encode_decode_and_hash_exactly() {
    let cases = published();
    assert_eq!(cases.len(), 7);
    cases.iter().for_each(check);
}

#[test]
fn t1_vectors_of_an_independent_writing_agree() {
    let more = more();
    assert_eq!(more.cases.len(), 21);
    more.cases.iter().for_each(check);
    assert_eq!(
        digest((0..128).map(|bit| (1_u128 << (127 - bit)).to_be_bytes())),
        more.one_hot_sha256
    );
    let every = (0..25).flat_map(|place| {
        (0..32_u128).map(move |value| (value << (123 - 5 * place)).to_be_bytes())
    });
    assert_eq!(digest(every), more.every_symbol_everywhere_sha256);
    let counters = (0..10_000_u32).map(|number| {
        let hash = Sha256::digest(number.to_be_bytes());
        std::array::from_fn(|index| hash[index])
    });
    assert_eq!(digest(counters), more.hashed_counters_0_to_9999_sha256);
}

#[test]
fn t1_ten_thousand_random_codes_survive_the_round_trip_and_end_in_0_to_7() {
    let mut rng = ChaCha20Rng::seed_from_u64(0xA8);
    let mut last_symbols = std::collections::BTreeSet::new();
    for _ in 0..10_000 {
        let code = BypassCode::generate(&mut rng);
        let text = code.to_text();
        assert_eq!(text.len(), 31);
        let last = text.chars().last().expect("31 characters");
        assert!(('0'..='7').contains(&last));
        last_symbols.insert(last);
        assert!(BypassCode::parse(&text).ok() == Some(code.clone()));
        assert!(
            BypassCode::parse_lenient(&text.to_lowercase().replace('-', "")).ok() == Some(code)
        );
    }
    assert_eq!(last_symbols.len(), 8);
}

#[test]
fn t1_the_example_of_apples_command_page_is_canonical() {
    let text = "A8QK7-GFG21-6RHT-V0U9-756P-L7E3";
    let code = BypassCode::parse(text).expect("Apple's example");
    assert_eq!(*code.to_text(), text);
}

#[test]
fn t2_changing_one_character_of_a_code_never_gives_the_same_code() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let code = BypassCode::generate(&mut rng);
    let text = code.to_text();
    for index in 0..text.len() {
        for other in (0_u8..128)
            .map(char::from)
            .filter(|other| !text[index..].starts_with(*other))
        {
            let changed = format!("{}{other}{}", &text[..index], &text[index + 1..]);
            assert!(BypassCode::parse(&changed).ok() != Some(code.clone()));
            let same_to_a_person = text[index..].starts_with(other.to_ascii_uppercase())
                || (text[index..].starts_with('-')
                    && (other == ' ' || other.is_ascii_whitespace()));
            let read = BypassCode::parse_lenient(&changed).ok();
            assert_eq!(read == Some(code.clone()), same_to_a_person);
        }
    }
}

proptest! {
    #[test]
    fn t2_a_text_parses_strictly_only_if_it_is_what_the_code_would_write(text in "[0-9A-Z-]{29,33}|[0-9A-Z]{5}(-[0-9A-Z]{4,5}){5}|\\PC*") {
        if let Ok(code) = BypassCode::parse(&text) {
            prop_assert!(*code.to_text() == text);
            prop_assert!(BypassCode::parse_lenient(&text).ok() == Some(code));
        }
    }

    #[test]
    fn t2_both_parsers_survive_any_text(text in any::<String>()) {
        let _ = BypassCode::parse(&text);
        let _ = BypassCode::parse_lenient(&text);
        let _ = EscrowKeyHash::from_hex(&text);
    }

    #[test]
    fn t1_every_sixteen_bytes_are_a_code(raw in any::<[u8; 16]>()) {
        let code = BypassCode::from_raw(raw);
        prop_assert_eq!(BypassCode::parse(&code.to_text()).map(|read| *read.raw()), Ok(raw));
    }
}
