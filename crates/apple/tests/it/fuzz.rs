//! The bodies of the fuzz targets, on their corpus and for five seconds each on mutations of it. The mutations are the same in
//! every run; how many of them five seconds hold is not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use data_encoding::BASE64;

use mutator::Mutator;

mod mutator;

const HOW_LONG: Duration = Duration::from_secs(5);

#[expect(
    clippy::disallowed_methods,
    reason = "five seconds of mutations are five seconds of the machine's clock"
)]
fn reads_clock() -> Instant {
    Instant::now()
}

/// The files of a target's corpus, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    assert!(files.len() > 5, "a corpus of {target} is there");
    files
}

fn fuzz(target: &str, body: fn(&[u8])) {
    let run = |what: &str, input: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| body(input))).is_err() {
            panic!(
                "{target} fails on {what}; put this into the corpus (base64): {}",
                BASE64.encode(input)
            );
        }
    };
    let seeds = corpus(target);
    for (name, seed) in &seeds {
        run(name, seed);
    }
    let mut mutator = Mutator::new(target);
    let began = reads_clock();
    let mut round: u64 = 0;
    while reads_clock().duration_since(began) < HOW_LONG {
        let input = mutator.next(&seeds);
        run(&format!("mutation {round}"), &input);
        round += 1;
    }
    assert!(round > 100, "only {round} mutations in {HOW_LONG:?}");
}

#[test]
fn fuzz_check_in() {
    fuzz("check_in", apple::fuzzing::check_in);
}

#[test]
fn fuzz_answer() {
    fuzz("answer", apple::fuzzing::answer);
}

#[test]
fn fuzz_push_certificate() {
    fuzz("push_certificate", apple::fuzzing::push_certificate);
}

#[test]
fn fuzz_business_manager() {
    fuzz("business_manager", apple::fuzzing::business_manager);
}

#[test]
fn fuzz_redaction() {
    fuzz("redaction", apple::fuzzing::redaction);
}

#[test]
fn fuzz_token_file() {
    fuzz("token_file", apple::fuzzing::token_file);
}

#[test]
fn fuzz_bypass_code() {
    fuzz("bypass_code", activation_lock::fuzzing::bypass_code);
}

/// A target that is not run by these tests is run by nobody for months.
#[test]
fn every_target_has_its_test_here() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    let here = include_str!("fuzz.rs");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let target = name.trim_end_matches(".rs");
        let text = std::fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../fuzz/fuzz_targets")
                .join(&name),
        )
        .unwrap();
        let ours = text.contains("apple::fuzzing") || text.contains("activation_lock::fuzzing");
        assert!(
            !ours || here.contains(&format!("fuzz(\"{target}\"")),
            "{target}"
        );
    }
}
