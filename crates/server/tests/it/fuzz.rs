//! The bodies of the fuzz targets, on their corpus and for five seconds each on mutations of it. The mutations are the same in
//! every run; how many of them five seconds hold is not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use server::{fuzzing, lifecycle};

fn files_in(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// Numbers from a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        // Xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap()
    }

    /// A file with something wrong with it.
    fn mutate(&mut self, files: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = files[self.below(files.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes.truncate(at),
                1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                2 => bytes.insert(at, b"\"{}[],:\\\0\xff0"[self.below(11)]),
                3 if !bytes.is_empty() => {
                    let end = at + self.below(bytes.len() - at);
                    bytes.drain(at..end);
                }
                4 => {
                    let other = &files[self.below(files.len())];
                    let from = self.below(other.len());
                    let end = from + self.below(other.len() - from);
                    bytes.splice(at..at, other[from..end].iter().copied());
                }
                _ => bytes.extend_from_within(at..),
            }
        }
        bytes
    }
}

/// The seeds of a fuzz target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let files = files_in(&fuzz.join("corpus").join(target));
    assert!(files.len() > 5, "a corpus of {target} is there");
    files
}

/// Runs a body on each file, and for five seconds on mutations of them. Gives how many of those it found good, and of how
/// many.
fn fuzz(seed: u64, files: &[Vec<u8>], body: fn(&[u8]) -> bool) -> (u64, u64) {
    let run = |bytes: &[u8]| {
        std::panic::catch_unwind(|| body(bytes)).unwrap_or_else(|_| {
            panic!(
                "put this into the corpus (base64): {}",
                STANDARD.encode(bytes)
            )
        })
    };
    for file in files {
        run(file);
    }
    let clock = lifecycle::clock();
    let began = clock.now();
    let mut numbers = Numbers(seed);
    let (mut good, mut all) = (0, 0);
    while clock.now().since(began) < Duration::from_secs(5) {
        all += 1;
        good += u64::from(run(&numbers.mutate(files)));
    }
    (good, all)
}

#[test]
fn fuzz_event() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = files_in(&here.join("tests/data/events"));
    let useful = files.iter().filter(|file| fuzzing::event(file)).count();
    assert!(useful >= 20, "only {useful} of the files say something");
    files.extend(corpus("event"));
    let (good, all) = fuzz(0x9e37_79b9_7f4a_7c15, &files, fuzzing::event);
    assert!(good > 0 && good < all, "{good} of {all} were read");
}

#[test]
fn fuzz_enqueued() {
    let files = corpus("enqueued");
    let queued = files.iter().filter(|file| fuzzing::enqueued(file)).count();
    assert!(queued >= 5, "only {queued} of the answers mean queued");
    let (good, all) = fuzz(0x2545_f491_4f6c_dd1d, &files, fuzzing::enqueued);
    assert!(good > 0 && good < all, "{good} of {all} mean queued");
}

#[test]
fn fuzz_request() {
    let files = corpus("request");
    let read = files.iter().filter(|file| fuzzing::request(file)).count();
    assert!(read >= 20, "only {read} of the bodies are taken");
    let (good, all) = fuzz(0x94d0_49bb_1331_11eb, &files, fuzzing::request);
    assert!(good > 0 && good < all, "{good} of {all} are taken");
}

#[test]
fn fuzz_config() {
    let files = corpus("config");
    let read = files.iter().filter(|file| fuzzing::config(file)).count();
    assert!(read >= 3, "only {read} of the configurations are good");
    let (good, all) = fuzz(0xbf58_476d_1ce4_e5b9, &files, fuzzing::config);
    assert!(good > 0 && good < all, "{good} of {all} are good");
}

#[test]
fn fuzz_table() {
    let files = corpus("table");
    let read = files.iter().filter(|file| fuzzing::table(file)).count();
    assert!(read >= 8, "only {read} of the tables name anything");
    let (good, all) = fuzz(0xd6e8_feb8_6659_fd93, &files, fuzzing::table);
    assert!(good > 0 && good < all, "{good} of {all} name anything");
}

/// A target that is not run by these tests is run by nobody for months.
#[test]
fn every_target_has_its_test_here() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    for entry in std::fs::read_dir(targets).unwrap() {
        let path = entry.unwrap().path();
        let target = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_ours = std::fs::read_to_string(&path)
            .unwrap()
            .contains("server::fuzzing");
        let here = include_str!("fuzz.rs").contains(&format!("corpus(\"{target}\")"));
        assert!(!is_ours || here, "{target}");
    }
}
