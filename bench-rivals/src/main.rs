//! The hash of bypass codes against every other way to work it out, on one thread, in rounds that take turns: a machine that slows down
//! slows all of them down. Prints codes a second (median, and the best round) and the ratio to the `pbkdf2` crate.
//!
//!     cargo run --release --manifest-path bench-rivals/Cargo.toml -- [ROUNDS]
//!
//! Better pinned to one core whose sibling is idle: put `taskset -c 1` before it.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Instant;

use activation_lock::bypass_code::{BypassCode, EscrowKeyHash};
use activation_lock::hash::Kernel;

const ROUNDS: u32 = 50_000;
const SALT: [u8; 4] = [0; 4];

type Way = Box<dyn Fn(&[BypassCode]) -> Vec<[u8; 32]>>;

struct Rival {
    name: String,
    /// How many codes it is given at once.
    codes: usize,
    way: Way,
    figures: Vec<f64>,
}

impl Rival {
    fn new(name: &str, codes: usize, way: impl Fn(&[BypassCode]) -> Vec<[u8; 32]> + 'static) -> Self {
        Self {
            name: name.to_owned(),
            codes,
            way: Box::new(way),
            figures: Vec::new(),
        }
    }

    /// One that takes one code after the other.
    fn one(name: &str, way: impl Fn(&[u8], &mut [u8; 32]) + 'static) -> Self {
        Self::new(name, 1, move |codes| {
            codes
                .iter()
                .map(|code| {
                    let mut hash = [0; 32];
                    way(code.raw(), &mut hash);
                    hash
                })
                .collect()
        })
    }

    fn ours(kernel: Kernel, codes: usize) -> Self {
        let name = format!("ours, {kernel:?}, {codes} at once");
        Self::new(&name, codes, move |codes| {
            let hashes = EscrowKeyHash::of_batch_by(kernel, codes);
            hashes.iter().map(|hash| *hash.bytes()).collect()
        })
    }
}

fn main() {
    let rounds = std::env::args().nth(1).map_or(21, |n| n.parse().expect("a number of rounds"));
    let mut rivals = Vec::new();
    for kernel in Kernel::available() {
        rivals.push(Rival::ours(kernel, 1));
        if kernel.width() > 1 {
            rivals.push(Rival::ours(kernel, kernel.width()));
        }
    }
    rivals.push(Rival::one("pbkdf2 (RustCrypto)", |code, hash| {
        pbkdf2::pbkdf2_hmac::<sha2::Sha256>(code, &SALT, ROUNDS, hash);
    }));
    rivals.push(Rival::one("aws-lc-rs", |code, hash| {
        let rounds = NonZeroU32::new(ROUNDS).expect("it is not zero");
        aws_lc_rs::pbkdf2::derive(aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256, rounds, &SALT, code, hash);
    }));
    rivals.push(Rival::one("ring", |code, hash| {
        let rounds = NonZeroU32::new(ROUNDS).expect("it is not zero");
        ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA256, rounds, &SALT, code, hash);
    }));
    rivals.push(Rival::one("OpenSSL", |code, hash| {
        let digest = openssl::hash::MessageDigest::sha256();
        openssl::pkcs5::pbkdf2_hmac(code, &SALT, ROUNDS as usize, digest, hash).expect("it hashes");
    }));

    let codes: Vec<_> = (0..8_u8).map(|n| BypassCode::from_raw([n ^ 0x5a; 16])).collect();
    let right = EscrowKeyHash::of_batch(&codes);
    for rival in &rivals {
        for (hash, right) in (rival.way)(&codes[..rival.codes]).iter().zip(&right) {
            assert!(hash == right.bytes(), "{} gives another hash", rival.name);
        }
    }
    for _ in 0..rounds {
        for rival in &mut rivals {
            let codes = &codes[..rival.codes];
            let began = Instant::now();
            black_box((rival.way)(black_box(codes)));
            rival.figures.push(rival.codes as f64 / began.elapsed().as_secs_f64());
        }
    }
    for rival in &mut rivals {
        rival.figures.sort_by(f64::total_cmp);
    }
    let median = |rival: &Rival| rival.figures[rival.figures.len() / 2];
    let base = rivals.iter().find(|rival| rival.name.starts_with("pbkdf2")).map_or(1.0, median);
    println!("{:28} {:>9} {:>9} {:>7}", "", "median/s", "best/s", "ratio");
    for rival in &rivals {
        let best = rival.figures[rival.figures.len() - 1];
        println!("{:28} {:9.1} {best:9.1} {:7.2}", rival.name, median(rival), median(rival) / base);
    }
}
