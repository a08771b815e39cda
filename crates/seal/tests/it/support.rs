//! Seeded randomness, and keyrings made from it.

use std::sync::atomic::{AtomicU64, Ordering};

use seal::{DataKey, Keyring, Purpose, Random, Standing};

/// Gives different bytes at every call, and the same ones in every run. Not random: for tests alone.
pub(crate) struct Seeded(AtomicU64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            // SplitMix64.
            let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// One current key a purpose.
pub(crate) fn keyring(seed: u64) -> Keyring {
    let random = Seeded::new(seed);
    let keys = Purpose::ALL.map(|purpose| (DataKey::generate(purpose, &random), Standing::Current));
    Keyring::new(keys).expect("one current key a purpose")
}
