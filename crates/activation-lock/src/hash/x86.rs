//! SHA-256 over several codes at once on x86-64: the only place of this crate with `unsafe`.
//!
//! What is unsafe and why it holds:
//! * Calling a function that takes instructions which not every processor has. Each call stands behind the question whether this one has
//!   them, in [`sha_ni`] and [`avx2`].
//! * Two `asm!` blocks, whose proof stands beside them.
//!
//! The instructions themselves are safe functions of `std::arch`, called where they may be. Words are kept in the order in which
//! `sha256rnds2` wants them (A B E F and C D G H), so that no bytes are turned round between rounds.

#![allow(unsafe_code, reason = "the one module with it; see its head")]

use std::arch::asm;
use std::arch::x86_64::*;
use std::array;

use zeroize::Zeroize;

use super::{BITS, Lane};

/// The constants of SHA-256, four a row (FIPS 180-4, 4.2.2), and the second half of every block, which is always the same: the end of
/// the message, and its length in bits.
#[repr(C, align(64))]
struct Table([[u32; 4]; 18]);

static TABLE: Table = Table([
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    [0x8000_0000, 0, 0, 0],
    [0, 0, 0, BITS],
]);
/// Where the second half of a block is in it.
const SECOND_HALF: usize = 16;

/// Whether this processor has what [`sha_ni`] takes.
pub(super) fn has_sha_ni() -> bool {
    is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1")
        && is_x86_feature_detected!("avx")
}

/// Whether this processor has what [`avx2`] takes.
pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
}

/// So many rounds more for each, four at once as long as there are four.
pub(super) fn sha_ni(lanes: &mut [Lane], rounds: u32) {
    assert!(has_sha_ni(), "this processor has no instructions for SHA");
    // SAFETY: the processor has the instructions: asserted above.
    unsafe { by_fours(lanes, rounds) }
}

#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
fn by_fours(lanes: &mut [Lane], rounds: u32) {
    let (fours, rest) = lanes.as_chunks_mut::<4>();
    for four in fours {
        go_on(four, rounds, |from, last, words| {
            compress_four(from, last, words)
        });
    }
    match rest {
        [] => {}
        [one] => go_on(array::from_mut(one), rounds, |from, last, words| {
            compress_one(from, last, words);
        }),
        // Four at once take less time than two one by one.
        some => {
            let mut four: [Lane; 4] = array::from_fn(|n| some[n.min(some.len() - 1)].clone());
            go_on(&mut four, rounds, |from, last, words| {
                compress_four(from, last, words);
            });
            for (lane, done) in some.iter_mut().zip(&four) {
                lane.clone_from(done);
            }
        }
    }
}

/// `N` states of SHA-256, each in two registers: A B E F, and C D G H.
#[derive(Clone, Copy)]
struct States<const N: usize> {
    abef: [__m128i; N],
    cdgh: [__m128i; N],
}

/// What the compressions of `N` codes have their words in. Wiped with the rest.
#[repr(C, align(64))]
struct Words<const N: usize>([[__m128i; 4]; N]);

#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
fn go_on<const N: usize>(
    lanes: &mut [Lane; N],
    rounds: u32,
    compress: impl Fn(&States<N>, &mut States<N>, &mut Words<N>),
) {
    let mut inner = packed(array::from_fn(|n| &lanes[n].inner));
    let mut outer = packed(array::from_fn(|n| &lanes[n].outer));
    let mut last = packed(array::from_fn(|n| &lanes[n].last));
    let mut sum = packed(array::from_fn(|n| &lanes[n].sum));
    let mut words = Words([[_mm_setzero_si128(); 4]; N]);
    for _ in 0..rounds {
        compress(&inner, &mut last, &mut words);
        compress(&outer, &mut last, &mut words);
        for n in 0..N {
            sum.abef[n] = _mm_xor_si128(sum.abef[n], last.abef[n]);
            sum.cdgh[n] = _mm_xor_si128(sum.cdgh[n], last.cdgh[n]);
        }
    }
    for (n, lane) in lanes.iter_mut().enumerate() {
        lane.last = unpacked(last.abef[n], last.cdgh[n]);
        lane.sum = unpacked(sum.abef[n], sum.cdgh[n]);
    }
    for states in [&mut inner, &mut outer, &mut last, &mut sum] {
        states.abef.zeroize();
        states.cdgh.zeroize();
    }
    words
        .0
        .as_flattened_mut()
        .iter_mut()
        .for_each(Zeroize::zeroize);
}

#[target_feature(enable = "sse4.1")]
fn packed<const N: usize>(states: [&[u32; 8]; N]) -> States<N> {
    let four = |a: u32, b: u32, c: u32, d: u32| {
        _mm_set_epi32(
            a.cast_signed(),
            b.cast_signed(),
            c.cast_signed(),
            d.cast_signed(),
        )
    };
    States {
        abef: states.map(|[a, b, _, _, e, f, _, _]| four(*a, *b, *e, *f)),
        cdgh: states.map(|[_, _, c, d, _, _, g, h]| four(*c, *d, *g, *h)),
    }
}

#[target_feature(enable = "sse4.1")]
fn unpacked(abef: __m128i, cdgh: __m128i) -> [u32; 8] {
    let [f, e, b, a] = split(abef);
    let [h, g, d, c] = split(cdgh);
    [a, b, c, d, e, f, g, h]
}

#[target_feature(enable = "sse4.1")]
fn split(four: __m128i) -> [u32; 4] {
    [
        _mm_extract_epi32::<0>(four),
        _mm_extract_epi32::<1>(four),
        _mm_extract_epi32::<2>(four),
        _mm_extract_epi32::<3>(four),
    ]
    .map(i32::cast_unsigned)
}

/// The words of a block from the state that the compression before gave: the first four, and the next.
#[target_feature(enable = "sse4.1")]
#[inline]
fn words_of(abef: __m128i, cdgh: __m128i) -> (__m128i, __m128i) {
    (
        _mm_shuffle_epi32::<0xb1>(_mm_unpackhi_epi64(abef, cdgh)),
        _mm_shuffle_epi32::<0xb1>(_mm_unpacklo_epi64(abef, cdgh)),
    )
}

// The compressions by hand. A compiler that is given the instructions one by one moves them about: of four codes it keeps too much in the
// sixteen registers, and stores and loads the rest again and again; of one it works all words out first, and the rounds wait. Here eight
// registers hold the states of four codes, four the newest words, two are scratch, and the older words are in memory, where they are needed
// late; and the words of later rounds are worked out while earlier rounds wait. In the text of a stream, $ab and $cd are its state, $new its newest words, and
// $at its place in the memory at {w}.

/// Four rounds of one stream, with its newest words and row $k of the constants.
macro_rules! rounds {
    ($k:literal, $ab:literal, $cd:literal, $new:literal) => {
        concat!(
            "vpaddd xmm0, ",
            $new,
            ", xmmword ptr [{k} + 16*",
            $k,
            "]\n",
            "sha256rnds2 ",
            $cd,
            ", ",
            $ab,
            "\n",
            "vpshufd xmm0, xmm0, 14\n",
            "sha256rnds2 ",
            $ab,
            ", ",
            $cd,
            "\n",
        )
    };
}

/// The same with the words of the message, which are in memory.
macro_rules! first_half {
    ($k:literal, $ab:literal, $cd:literal, $new:literal, $at:literal) => {
        concat!(
            "vmovdqa ",
            $new,
            ", xmmword ptr [{w} + ",
            $at,
            " + 16*",
            $k,
            "]\n",
            rounds!($k, $ab, $cd, $new),
        )
    };
}

/// Four rounds of all four streams with row $row of the table, which is the same for all.
macro_rules! second_half {
    (one: $k:literal, $row:literal) => {
        concat!(
            "vmovdqa xmm0, xmmword ptr [{k} + 16*",
            $row,
            "]\n",
            "vpaddd xmm0, xmm0, xmmword ptr [{k} + 16*",
            $k,
            "]\n",
            "sha256rnds2 {cd0}, {ab0}\n",
            "vpshufd xmm0, xmm0, 14\n",
            "sha256rnds2 {ab0}, {cd0}\n",
        )
    };
    ($k:literal, $row:literal) => {
        concat!(
            "vmovdqa xmm0, xmmword ptr [{k} + 16*",
            $row,
            "]\n",
            "vpaddd xmm0, xmm0, xmmword ptr [{k} + 16*",
            $k,
            "]\n",
            "vpshufd {x}, xmm0, 14\n",
            "sha256rnds2 {cd0}, {ab0}\n",
            "sha256rnds2 {cd1}, {ab1}\n",
            "sha256rnds2 {cd2}, {ab2}\n",
            "sha256rnds2 {cd3}, {ab3}\n",
            "vmovdqa xmm0, {x}\n",
            "sha256rnds2 {ab0}, {cd0}\n",
            "sha256rnds2 {ab1}, {cd1}\n",
            "sha256rnds2 {ab2}, {cd2}\n",
            "sha256rnds2 {ab3}, {cd3}\n",
        )
    };
}

/// Keeps the newest words in place $slot, and does their rounds.
macro_rules! kept {
    ($k:literal, $slot:literal, $ab:literal, $cd:literal, $new:literal, $at:literal) => {
        concat!(
            "vmovdqa xmmword ptr [{w} + ",
            $at,
            " + 16*",
            $slot,
            "], ",
            $new,
            "\n",
            rounds!($k, $ab, $cd, $new),
        )
    };
}

/// From what stands in {x} and xmm0 the newest words.
macro_rules! newest {
    ($new:literal) => {
        concat!(
            "vpaddd {x}, {x}, xmm0\n",
            "sha256msg2 {x}, ",
            $new,
            "\n",
            "vmovdqa ",
            $new,
            ", {x}\n",
        )
    };
}

/// Rounds 16 to 19. What would be added from the second half is zero.
macro_rules! fifth {
    ($ab:literal, $cd:literal, $new:literal, $at:literal) => {
        concat!(
            "vmovdqa ",
            $new,
            ", xmmword ptr [{w} + ",
            $at,
            "]\n",
            "sha256msg1 ",
            $new,
            ", xmmword ptr [{w} + ",
            $at,
            " + 16]\n",
            "sha256msg2 ",
            $new,
            ", xmmword ptr [{k} + 16*17]\n",
            kept!(4, 0, $ab, $cd, $new, $at),
        )
    };
}

/// Rounds 20 to 23.
macro_rules! sixth {
    ($ab:literal, $cd:literal, $new:literal, $at:literal) => {
        concat!(
            "vmovdqa {x}, xmmword ptr [{w} + ",
            $at,
            " + 16]\n",
            "sha256msg1 {x}, xmmword ptr [{k} + 16*16]\n",
            "vpalignr xmm0, ",
            $new,
            ", xmmword ptr [{k} + 16*17], 4\n",
            newest!($new),
            kept!(5, 1, $ab, $cd, $new, $at),
        )
    };
}

/// Rounds 24 to 27. `sha256msg1` of the second half is its first row.
macro_rules! seventh {
    ($ab:literal, $cd:literal, $new:literal, $at:literal) => {
        concat!(
            "vmovdqa {x}, xmmword ptr [{k} + 16*16]\n",
            "vpalignr xmm0, ",
            $new,
            ", xmmword ptr [{w} + ",
            $at,
            "], 4\n",
            newest!($new),
            kept!(6, 2, $ab, $cd, $new, $at),
        )
    };
}

/// Rounds 28 to 31.
macro_rules! eighth {
    ($ab:literal, $cd:literal, $new:literal, $at:literal) => {
        concat!(
            "vmovdqa {x}, xmmword ptr [{k} + 16*17]\n",
            "sha256msg1 {x}, xmmword ptr [{w} + ",
            $at,
            "]\n",
            "vpalignr xmm0, ",
            $new,
            ", xmmword ptr [{w} + ",
            $at,
            " + 16], 4\n",
            newest!($new),
            kept!(7, 3, $ab, $cd, $new, $at),
        )
    };
}

/// Any four rounds after those, from the words in places $a (which becomes the newest), $b and $c, and the newest.
macro_rules! later {
    ($k:literal, $a:literal, $b:literal, $c:literal, $ab:literal, $cd:literal, $new:literal, $at:literal) => {
        concat!(
            "vmovdqa {x}, xmmword ptr [{w} + ",
            $at,
            " + 16*",
            $a,
            "]\n",
            "sha256msg1 {x}, xmmword ptr [{w} + ",
            $at,
            " + 16*",
            $b,
            "]\n",
            "vpalignr xmm0, ",
            $new,
            ", xmmword ptr [{w} + ",
            $at,
            " + 16*",
            $c,
            "], 4\n",
            newest!($new),
            kept!($k, $a, $ab, $cd, $new, $at),
        )
    };
}

/// One step of all four streams, or of the only one.
macro_rules! streams {
    (one: $step:ident $(, $number:literal)*) => {
        $step!($($number,)* "{ab0}", "{cd0}", "{new0}", 0)
    };
    ($step:ident $(, $number:literal)*) => {
        concat!(
            $step!($($number,)* "{ab0}", "{cd0}", "{new0}", 0),
            $step!($($number,)* "{ab1}", "{cd1}", "{new1}", 64),
            $step!($($number,)* "{ab2}", "{cd2}", "{new2}", 128),
            $step!($($number,)* "{ab3}", "{cd3}", "{new3}", 192),
        )
    };
}

/// Compresses a last block whose first half is `last`, which becomes what comes of it.
#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
#[inline]
fn compress_one(from: &States<1>, last: &mut States<1>, words: &mut Words<1>) {
    (words.0[0][0], words.0[0][1]) = words_of(last.abef[0], last.cdgh[0]);
    let ([mut ab0], [mut cd0]) = (from.abef, from.cdgh);
    // The instructions for SHA have no form that leaves the upper halves alone: where the compiler has used those, each of them
    // would wait, a hundred times as long on some processors.
    _mm256_zeroupper();
    // SAFETY: as in `compress_four`, with one place of `words`: {w} + 0 to 63.
    unsafe {
        asm!(
            streams!(one: first_half, 0),
            streams!(one: first_half, 1),
            second_half!(one: 2, 16),
            second_half!(one: 3, 17),
            streams!(one: fifth),
            streams!(one: sixth),
            streams!(one: seventh),
            streams!(one: eighth),
            streams!(one: later, 8, 0, 1, 2),
            streams!(one: later, 9, 1, 2, 3),
            streams!(one: later, 10, 2, 3, 0),
            streams!(one: later, 11, 3, 0, 1),
            streams!(one: later, 12, 0, 1, 2),
            streams!(one: later, 13, 1, 2, 3),
            streams!(one: later, 14, 2, 3, 0),
            streams!(one: later, 15, 3, 0, 1),
            k = in(reg) TABLE.0.as_ptr(),
            w = in(reg) words.0.as_mut_ptr(),
            ab0 = inout(xmm_reg) ab0, cd0 = inout(xmm_reg) cd0, new0 = out(xmm_reg) _,
            x = out(xmm_reg) _,
            out("xmm0") _,
            options(nostack, preserves_flags),
        );
    }
    last.abef[0] = _mm_add_epi32(ab0, from.abef[0]);
    last.cdgh[0] = _mm_add_epi32(cd0, from.cdgh[0]);
}

/// The same of four.
#[target_feature(enable = "sha,ssse3,sse4.1,avx")]
#[inline]
fn compress_four(from: &States<4>, last: &mut States<4>, words: &mut Words<4>) {
    for (n, place) in words.0.iter_mut().enumerate() {
        (place[0], place[1]) = words_of(last.abef[n], last.cdgh[n]);
    }
    let [mut ab0, mut ab1, mut ab2, mut ab3] = from.abef;
    let [mut cd0, mut cd1, mut cd2, mut cd3] = from.cdgh;
    // The instructions for SHA have no form that leaves the upper halves alone: where the compiler has used those, each of them
    // would wait, a hundred times as long on some processors.
    _mm256_zeroupper();
    // SAFETY: it executes instructions of the features that this function takes. It reads {k} + 0 to 287, which is `TABLE` whole, and
    // reads and writes {w} + 0 to 255, which is `words` whole, nowhere else; both are aligned to 64 bytes, and `vmovdqa` asks for 16. Every
    // register that it writes is named: the states, the newest words, {x}, xmm0. It uses no stack and touches no flags.
    unsafe {
        asm!(
            streams!(first_half, 0),
            streams!(first_half, 1),
            second_half!(2, 16),
            second_half!(3, 17),
            streams!(fifth),
            streams!(sixth),
            streams!(seventh),
            streams!(eighth),
            streams!(later, 8, 0, 1, 2),
            streams!(later, 9, 1, 2, 3),
            streams!(later, 10, 2, 3, 0),
            streams!(later, 11, 3, 0, 1),
            streams!(later, 12, 0, 1, 2),
            streams!(later, 13, 1, 2, 3),
            streams!(later, 14, 2, 3, 0),
            streams!(later, 15, 3, 0, 1),
            k = in(reg) TABLE.0.as_ptr(),
            w = in(reg) words.0.as_mut_ptr(),
            ab0 = inout(xmm_reg) ab0, cd0 = inout(xmm_reg) cd0, new0 = out(xmm_reg) _,
            ab1 = inout(xmm_reg) ab1, cd1 = inout(xmm_reg) cd1, new1 = out(xmm_reg) _,
            ab2 = inout(xmm_reg) ab2, cd2 = inout(xmm_reg) cd2, new2 = out(xmm_reg) _,
            ab3 = inout(xmm_reg) ab3, cd3 = inout(xmm_reg) cd3, new3 = out(xmm_reg) _,
            x = out(xmm_reg) _,
            out("xmm0") _,
            options(nostack, preserves_flags),
        );
    }
    for (n, (ab, cd)) in [(ab0, cd0), (ab1, cd1), (ab2, cd2), (ab3, cd3)]
        .into_iter()
        .enumerate()
    {
        last.abef[n] = _mm_add_epi32(ab, from.abef[n]);
        last.cdgh[n] = _mm_add_epi32(cd, from.cdgh[n]);
    }
}

/// So many rounds more for each, eight at once.
pub(super) fn avx2(lanes: &mut [Lane], rounds: u32) {
    assert!(has_avx2(), "this processor has no registers of 256 bits");
    let (eights, rest) = lanes.as_chunks_mut::<8>();
    for eight in eights {
        // SAFETY: the processor has the instructions: asserted above.
        unsafe { go_on_eight(eight, rounds) };
    }
    match rest.len() {
        // Eight at once take less time than two one by one, where there are no instructions for SHA.
        0..=1 => rest.iter_mut().for_each(|lane| lane.go_on(rounds)),
        some => {
            let mut eight: [Lane; 8] = array::from_fn(|n| rest[n.min(some - 1)].clone());
            // SAFETY: as above.
            unsafe { go_on_eight(&mut eight, rounds) };
            for (lane, done) in rest.iter_mut().zip(&eight) {
                lane.clone_from(done);
            }
        }
    }
}

/// Eight states of SHA-256: each register holds one word of all.
type Eight = [__m256i; 8];

#[target_feature(enable = "avx2")]
fn go_on_eight(lanes: &mut [Lane; 8], rounds: u32) {
    let mut inner = spread(array::from_fn(|n| &lanes[n].inner));
    let mut outer = spread(array::from_fn(|n| &lanes[n].outer));
    let mut last = spread(array::from_fn(|n| &lanes[n].last));
    let mut sum = spread(array::from_fn(|n| &lanes[n].sum));
    let mut words = [_mm256_setzero_si256(); 16];
    for _ in 0..rounds {
        last = compress_eight(&inner, &last, &mut words);
        last = compress_eight(&outer, &last, &mut words);
        for (sum, word) in sum.iter_mut().zip(last) {
            *sum = _mm256_xor_si256(*sum, word);
        }
    }
    gather(&last, lanes, |lane| &mut lane.last);
    gather(&sum, lanes, |lane| &mut lane.sum);
    for states in [&mut inner, &mut outer, &mut last, &mut sum] {
        states.zeroize();
    }
    words.zeroize();
}

#[target_feature(enable = "avx2")]
fn spread(states: [&[u32; 8]; 8]) -> Eight {
    array::from_fn(|word| {
        let [a, b, c, d, e, f, g, h] = states.map(|state| state[word].cast_signed());
        _mm256_set_epi32(h, g, f, e, d, c, b, a)
    })
}

#[target_feature(enable = "avx2")]
fn gather(states: &Eight, lanes: &mut [Lane; 8], of: impl Fn(&mut Lane) -> &mut [u32; 8]) {
    for (word, eight) in states.iter().enumerate() {
        let low = split(_mm256_extracti128_si256::<0>(*eight));
        let high = split(_mm256_extracti128_si256::<1>(*eight));
        for (lane, value) in lanes.iter_mut().zip(low.into_iter().chain(high)) {
            of(lane)[word] = value;
        }
    }
}

/// A turn to the right of each word.
macro_rules! turned {
    ($word:expr, $by:literal) => {
        _mm256_or_si256(
            _mm256_srli_epi32::<$by>($word),
            _mm256_slli_epi32::<{ 32 - $by }>($word),
        )
    };
}

/// The sum of several, without carry (`xor`) or with (`add`).
macro_rules! xor {
    ($a:expr, $b:expr, $c:expr) => {
        _mm256_xor_si256(_mm256_xor_si256($a, $b), $c)
    };
}

#[target_feature(enable = "avx2")]
#[inline]
fn compress_eight(from: &Eight, last: &Eight, w: &mut [__m256i; 16]) -> Eight {
    let add = |a, b| _mm256_add_epi32(a, b);
    w[..8].copy_from_slice(last);
    for (place, word) in w[8..].iter_mut().zip(TABLE.0[SECOND_HALF..].as_flattened()) {
        *place = _mm256_set1_epi32(word.cast_signed());
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *from;
    for (round, constant) in TABLE.0[..16].as_flattened().iter().enumerate() {
        let at = round % 16;
        if round >= 16 {
            let (early, late) = (w[(at + 1) % 16], w[(at + 14) % 16]);
            let small = xor!(
                turned!(early, 7),
                turned!(early, 18),
                _mm256_srli_epi32::<3>(early)
            );
            let large = xor!(
                turned!(late, 17),
                turned!(late, 19),
                _mm256_srli_epi32::<10>(late)
            );
            w[at] = add(add(w[at], small), add(w[(at + 9) % 16], large));
        }
        let choice = _mm256_xor_si256(g, _mm256_and_si256(e, _mm256_xor_si256(f, g)));
        let turned_e = xor!(turned!(e, 6), turned!(e, 11), turned!(e, 25));
        let key = add(w[at], _mm256_set1_epi32(constant.cast_signed()));
        let first = add(add(h, key), add(choice, turned_e));
        let most = _mm256_xor_si256(
            b,
            _mm256_and_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(b, c)),
        );
        let turned_a = xor!(turned!(a, 2), turned!(a, 13), turned!(a, 22));
        (h, g, f, e) = (g, f, e, add(d, first));
        (d, c, b, a) = (c, b, a, add(first, add(most, turned_a)));
    }
    let after = [a, b, c, d, e, f, g, h];
    array::from_fn(|word| add(from[word], after[word]))
}
