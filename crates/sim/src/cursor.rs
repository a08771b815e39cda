//! Cursors of lists: where to go on, sealed so that only what this service gave comes back.

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;

/// How many bytes of the seal a cursor carries.
const SEAL: usize = 16;

/// Gives cursors and takes them back.
pub(crate) struct Cursors(hmac::Key);

impl Cursors {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, seed))
    }

    /// A text without meaning to others.
    pub(crate) fn give(&self, place: &[u8]) -> String {
        let mut bytes = place.to_vec();
        bytes.extend_from_slice(&self.seal(place));
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// The place of a cursor that was given here; none of any other text.
    pub(crate) fn take(&self, cursor: &str) -> Option<Vec<u8>> {
        let mut bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok()?;
        let seal = bytes.split_off(bytes.len().checked_sub(SEAL)?);
        (seal == self.seal(&bytes)).then_some(bytes)
    }

    fn seal(&self, place: &[u8]) -> [u8; SEAL] {
        let mut seal = [0; SEAL];
        seal.copy_from_slice(&hmac::sign(&self.0, place).as_ref()[..SEAL]);
        seal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_here_is_taken_back() {
        let (mine, other) = (Cursors::new(&[1; 32]), Cursors::new(&[2; 32]));
        let cursor = mine.give(b"page 2");
        assert_eq!(mine.take(&cursor).as_deref(), Some(&b"page 2"[..]));
        assert_eq!(other.take(&cursor), None);
        let forged = BASE64URL_NOPAD.encode(b"page 3, and sixteen bytes");
        for text in ["", "page 2", &cursor[1..], &forged] {
            assert_eq!(mine.take(text), None);
        }
    }
}
