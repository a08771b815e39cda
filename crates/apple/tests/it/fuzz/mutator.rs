//! A small mutator: seeds changed in the ways that break readers. The same name gives the same mutations.

/// Words of the formats, which random bytes hardly ever hit.
const WORDS: &[&[u8]] = &[
    b"<dict>",
    b"</dict>",
    b"<array>",
    b"</array>",
    b"<key>",
    b"</key><string>",
    b"</string>",
    b"<true/>",
    b"<integer>-1</integer>",
    b"<!--",
    b"<![CDATA[",
    b"]]>",
    b"&#x0;",
    b"&amp;",
    b"<!DOCTYPE x [<!ENTITY a \"b\">]>",
    b"Status",
    b"Acknowledged",
    b"ActivationLockBypassCode",
    b"ErrorChain",
    b"Settings",
    b"QueryResponses",
    b"ServiceSubscriptions",
    b"bplist00",
    b"{\"errors\":[{\"code\":\"PATH_ERROR\"}]}",
    b"\"attributes\":{",
    b"\"isLocked\":true,",
    b"\"lockType\":\"USER\"",
    b"null",
    b"-----BEGIN CERTIFICATE-----\n",
    b"-----END CERTIFICATE-----\n",
    b"-----BEGIN PRIVATE KEY-----\n",
    b"\x30\x82",
    b"\x30\x80",
    b"\x24\x80",
    b"\xa0\x80",
    b"-----BEGIN PKCS7-----\n",
    b"-----BEGIN MESSAGE-----\n",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\xed\xa0\x80",
    b"\xe2\x80\xae",
    b"%00",
    b"\n",
];

const BYTES: &[u8] = &[0, 1, 0x0f, 0x1f, 0x7f, 0x80, 0xa0, 0xaf, 0xd0, 0xdf, 0xff];

/// Longer inputs only make fewer of them.
const LONGEST: usize = 16 * 1024;

pub(super) struct Mutator(u64);

impl Mutator {
    pub(super) fn new(name: &str) -> Self {
        // FNV-1a; never zero, which xorshift would stay at.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(hash | 1)
    }

    /// A number below `end`, which is not zero.
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// A stretch of so many bytes at most; empty in an empty text.
    fn stretch(&mut self, length: usize, most: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let end = (start + self.below(most)).min(length);
        start..end
    }

    /// The next input: a seed with one to eight changes.
    pub(super) fn next(&mut self, seeds: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut input = seeds[self.below(seeds.len())].1.clone();
        for _ in 0..=self.below(8) {
            self.change(&mut input, seeds);
        }
        input.truncate(LONGEST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, seeds: &[(String, Vec<u8>)]) {
        let length = input.len();
        match self.below(9) {
            0 if length > 0 => input[self.below(length)] ^= 1 << self.below(8),
            1 if length > 0 => input[self.below(length)] = BYTES[self.below(BYTES.len())],
            2 if length > 0 => input[self.below(length)] = self.below(256) as u8,
            3 => {
                let word = self.one(WORDS);
                let at = self.below(length + 1);
                input.splice(at..at, word.iter().copied());
            }
            4 => {
                let word = self.one(WORDS);
                let stretch = self.stretch(length, word.len() + 1);
                input.splice(stretch, word.iter().copied());
            }
            5 => {
                let stretch = self.stretch(length, 64);
                input.drain(stretch);
            }
            6 => {
                let stretch = self.stretch(length, 256);
                let again = input[stretch].repeat(1 + self.below(20));
                let at = self.below(length + 1);
                input.splice(at..at, again);
            }
            7 => {
                let other = &seeds[self.below(seeds.len())].1;
                let taken = self.stretch(other.len(), 512);
                let place = self.stretch(length, 64);
                input.splice(place, other[taken].iter().copied());
            }
            _ => {
                let end = self.below(length + 1);
                // Mostly a little is missing, seldom much.
                if self.below(4) == 0 {
                    input.truncate(end);
                } else {
                    input.truncate(length.saturating_sub(self.below(8)));
                }
            }
        }
    }
}
