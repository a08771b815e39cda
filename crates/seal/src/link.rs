//! The hash chain of the audit record: each link stands for its row and for every row before it.

use aws_lc_rs::digest::{Context, SHA256, digest};
use data_encoding::HEXLOWER;

use crate::encoding;

/// One link: SHA-256 over the link before, a position, a row's text and its MAC. Not a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link([u8; 32]);

impl Link {
    /// What the first link follows: zeros.
    pub const NONE: Self = Self([0; 32]);

    /// The link that follows this one: `mac_key` and `mac` as they are stored beside `text`.
    #[must_use]
    pub fn next(&self, position: u64, text: &str, mac_key: &str, mac: &str) -> Self {
        let text = digest(&SHA256, text.as_bytes());
        let mut context = Context::new(&SHA256);
        let parts = [
            b"lockwarden audit link 1",
            self.0.as_slice(),
            &position.to_be_bytes(),
            text.as_ref(),
            mac_key.as_bytes(),
            mac.as_bytes(),
        ];
        encoding::each(&parts, |piece| context.update(piece));
        let mut link = [0; 32];
        link.copy_from_slice(context.finish().as_ref());
        Self(link)
    }

    /// 64 lower-case hexadecimal digits, as stored.
    #[must_use]
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// A stored link; nothing when `hex` is not 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if hex.len() != 64 {
            return None;
        }
        HEXLOWER.decode_mut(hex.as_bytes(), &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stands_for_everything_that_went_into_it() {
        let first = Link::NONE.next(1, "text", "key", "mac");
        assert_eq!(Link::from_hex(&first.hex()), Some(first));
        for other in [
            first.next(1, "text", "key", "mac"),
            Link::NONE.next(2, "text", "key", "mac"),
            Link::NONE.next(1, "texT", "key", "mac"),
            Link::NONE.next(1, "text", "keY", "mac"),
            Link::NONE.next(1, "text", "key", "maC"),
            Link::NONE.next(1, "text", "keym", "ac"),
        ] {
            assert_ne!(other, first);
        }
        assert_eq!(Link::from_hex(&first.hex().to_ascii_uppercase()), None);
        assert_eq!(Link::from_hex(""), None);
    }
}
