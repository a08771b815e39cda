//! How the hash of a code is worked out, fast: PBKDF2-HMAC-SHA256 over 16 bytes, four zero bytes of salt, 32 bytes of output
//! (contract sheet 0.7).
//!
//! Both HMAC states of a code are made once; each round is then two compressions of SHA-256 over a block of which only the first half
//! changes. One code cannot be hastened much, for a round waits for the one before; several at once can, for they do not wait for each
//! other. What does that for one kind of processor is a [`Kernel`].

use std::hint::black_box;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::thread;

use sha2::block_api::compress256;
use zeroize::{Zeroize as _, ZeroizeOnDrop};

use crate::bypass_code::{BypassCode, EscrowKeyHash};

#[cfg(target_arch = "x86_64")]
mod x86;

/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;
/// What SHA-256 begins with (FIPS 180-4, 5.3.3).
const BEGINNING: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
/// The bits that were hashed when 32 bytes follow a block: the end of every block but the first.
const BITS: u32 = 8 * (BLOCK as u32 + 32);

/// A way to work hashes out. All of them give the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// The compression of the `sha2` crate, which knows the processor too; one code after the other. Everywhere.
    Portable,
    /// Eight codes at once in registers of 256 bits: for x86-64 without instructions for SHA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Four codes at once with the processor's own instructions for SHA (SHA-NI).
    #[cfg(target_arch = "x86_64")]
    ShaNi,
}

impl Kernel {
    /// Those that this processor has, the best one first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(x86::has_sha_ni().then_some(Self::ShaNi));
            all.extend(x86::has_avx2().then_some(Self::Avx2));
        }
        all.push(Self::Portable);
        all
    }

    /// The best one.
    #[must_use]
    pub fn best() -> Self {
        Self::available()[0]
    }

    /// How many codes it takes at once.
    #[must_use]
    pub fn width(self) -> usize {
        match self {
            Self::Portable => 1,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 8,
            #[cfg(target_arch = "x86_64")]
            Self::ShaNi => 4,
        }
    }

    /// Works the hashes of these codes out on this thread. `rounds` is at least 1.
    ///
    /// # Panics
    /// When the processor has not got what it takes.
    pub(crate) fn hash(self, codes: &[BypassCode], rounds: u32) -> Vec<EscrowKeyHash> {
        let mut lanes: Vec<Lane> = codes.iter().map(|code| Lane::new(code.raw())).collect();
        let more = rounds.saturating_sub(1);
        match self {
            Self::Portable => lanes.iter_mut().for_each(|lane| lane.go_on(more)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::avx2(&mut lanes, more),
            #[cfg(target_arch = "x86_64")]
            Self::ShaNi => x86::sha_ni(&mut lanes, more),
        }
        wipe_stack();
        lanes.iter().map(Lane::hash).collect()
    }
}

/// The hashes of many codes, worked out by the best kernel on as many threads as the machine runs at once.
pub(crate) fn of_batch(codes: &[BypassCode], rounds: u32) -> Vec<EscrowKeyHash> {
    let kernel = Kernel::best();
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let groups = codes.len().div_ceil(kernel.width());
    // Whole groups a thread: a group that is not full takes as long as one that is.
    let each = groups.div_ceil(threads).max(1) * kernel.width();
    if each >= codes.len() {
        return kernel.hash(codes, rounds);
    }
    thread::scope(|scope| {
        let parts: Vec<_> = codes
            .chunks(each)
            .map(|part| scope.spawn(move || kernel.hash(part, rounds)))
            .collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    })
}

/// Overwrites what the kernels left below on the stack: states that the compiler had moved there.
#[inline(never)]
fn wipe_stack() {
    let mut room = [0_u8; 4096];
    room.zeroize();
    black_box(&room);
}

/// A code on its way to its hash.
#[derive(Clone, ZeroizeOnDrop)]
struct Lane {
    /// SHA-256 after the key in its inner padding.
    inner: [u32; 8],
    /// The same in its outer padding.
    outer: [u32; 8],
    /// The last round's output.
    last: [u32; 8],
    /// All rounds' outputs, each bit added without carry.
    sum: [u32; 8],
}

impl Lane {
    /// After the first round.
    fn new(code: &[u8; 16]) -> Self {
        let (inner, outer) = (keyed(code, 0x36), keyed(code, 0x5c));
        // The salt, which is zero, and the number of the only block of output.
        let mut first = [0; BLOCK];
        first[7] = 1;
        first[8] = 0x80;
        let bits = 8 * (BLOCK as u32 + 8);
        first[BLOCK - 4..].copy_from_slice(&bits.to_be_bytes());
        let mut state = inner;
        compress256(&mut state, &[first]);
        let mut block = last_block();
        let last = compressed(&outer, &state, &mut block);
        state.zeroize();
        block.zeroize();
        Self {
            inner,
            outer,
            last,
            sum: last,
        }
    }

    fn hash(&self) -> EscrowKeyHash {
        let mut bytes = [0; EscrowKeyHash::BYTES];
        for (place, word) in bytes.chunks_exact_mut(4).zip(self.sum) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        let hash = EscrowKeyHash::from_bytes(bytes);
        bytes.zeroize();
        hash
    }

    /// So many rounds more.
    fn go_on(&mut self, rounds: u32) {
        let (mut block, mut half) = (last_block(), [0; 8]);
        for _ in 0..rounds {
            half = compressed(&self.inner, &self.last, &mut block);
            self.last = compressed(&self.outer, &half, &mut block);
            for (sum, word) in self.sum.iter_mut().zip(self.last) {
                *sum ^= word;
            }
        }
        half.zeroize();
        block.zeroize();
    }
}

/// SHA-256 after a block that is the key, padded with zeros, each byte changed by `pad` (RFC 2104).
fn keyed(code: &[u8; 16], pad: u8) -> [u32; 8] {
    let mut block = [pad; BLOCK];
    for (byte, key) in block.iter_mut().zip(code) {
        *byte ^= key;
    }
    let mut state = BEGINNING;
    compress256(&mut state, &[block]);
    block.zeroize();
    state
}

/// A last block of 32 bytes that are not there yet.
fn last_block() -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[32] = 0x80;
    block[BLOCK - 4..].copy_from_slice(&BITS.to_be_bytes());
    block
}

/// What comes of a state and a last block once it holds these words.
#[inline]
fn compressed(state: &[u32; 8], words: &[u32; 8], block: &mut [u8; BLOCK]) -> [u32; 8] {
    for (place, word) in block.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    let mut state = *state;
    compress256(&mut state, std::slice::from_ref(block));
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::Sha256;

    fn expected(code: &BypassCode, rounds: u32) -> [u8; 32] {
        let mut hash = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(code.raw(), &[0; 4], rounds, &mut hash);
        hash
    }

    /// A lane that is swapped, shared or left out shows: every code is another, and every number of them is tried.
    fn check(kernel: Kernel, codes: &[BypassCode], rounds: u32) {
        let hashes = kernel.hash(codes, rounds);
        assert_eq!(hashes.len(), codes.len());
        for (at, (code, hash)) in codes.iter().zip(&hashes).enumerate() {
            assert!(
                *hash.bytes() == expected(code, rounds),
                "{kernel:?}, {} codes, {rounds} rounds, the one at {at}",
                codes.len()
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_kernel_and_number_of_codes_gives_what_the_reference_gives(
            raw in prop::collection::vec(any::<[u8; 16]>(), 0..=19),
        ) {
            let codes: Vec<_> = raw.into_iter().map(BypassCode::from_raw).collect();
            for kernel in Kernel::available() {
                for rounds in [1, 2, 3, 17] {
                    check(kernel, &codes, rounds);
                }
            }
            let hashes = of_batch(&codes, 3);
            prop_assert_eq!(hashes.len(), codes.len());
            for (code, hash) in codes.iter().zip(&hashes) {
                prop_assert!(*hash.bytes() == expected(code, 3), "on several threads");
            }
        }
    }

    #[test]
    fn a_whole_hash_is_the_same_by_every_kernel_and_every_width() {
        let codes: Vec<_> = (0..9_u8)
            .map(|n| BypassCode::from_raw([n.wrapping_mul(37) ^ 0x5a; 16]))
            .collect();
        for kernel in Kernel::available() {
            for count in [1, kernel.width(), codes.len()] {
                check(kernel, &codes[..count], crate::bypass_code::HASH_ROUNDS);
            }
        }
    }

    #[test]
    fn the_portable_kernel_is_everywhere_and_the_last_resort() {
        let all = Kernel::available();
        assert_eq!(all.last(), Some(&Kernel::Portable));
        assert_eq!(Kernel::best(), all[0]);
    }
}
