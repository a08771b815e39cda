//! How a bearer token is stored: by its hash alone.

use aws_lc_rs::digest::{self, SHA256, digest};
use data_encoding::HEXLOWER;
use subtle::{Choice, ConstantTimeEq};

/// SHA-256 of a token of at least 128 random bits. Such a token cannot be guessed, so a fast hash is enough; a password
/// must never be stored this way.
///
/// No `Debug` or `Display`; compare with [`ConstantTimeEq`]. Looking one up by [`hex`](Self::hex) in an index is fine: an
/// attacker cannot choose the hash of a token bit by bit.
#[derive(Clone)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of the whole token as it is presented, prefix and all.
    pub fn of(token: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(hash)
    }

    /// 64 lower-case hexadecimal digits, as stored.
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// A stored hash; nothing when `hex` is not 64 lower-case hexadecimal digits.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let mut hash = [0; 32];
        if hex.len() != 64 {
            return None;
        }
        HEXLOWER.decode_mut(hex.as_bytes(), &mut hash).ok()?;
        Some(Self(hash))
    }
}

impl ConstantTimeEq for TokenHash {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

/// SHA-256 of what comes piece by piece, and is no secret.
pub struct Digest(digest::Context);

impl Digest {
    /// Of nothing yet.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "there is nothing that a default would say"
    )]
    pub fn new() -> Self {
        Self(digest::Context::new(&SHA256))
    }

    /// And of this.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn hex(self) -> String {
        HEXLOWER.encode(self.0.finish().as_ref())
    }
}

/// SHA-256 of what is no secret, as 64 lower-case hexadecimal digits: whether two things are the same.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use subtle::ConstantTimeEq as _;

    use super::TokenHash;

    #[test]
    fn it_is_sha_256() {
        // FIPS 180-4's example of one block.
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(TokenHash::of("abc").hex() == hex);
        let stored = TokenHash::from_hex(hex).unwrap();
        assert!(bool::from(stored.ct_eq(&TokenHash::of("abc"))));
        assert!(!bool::from(stored.ct_eq(&TokenHash::of("abd"))));
        assert!(
            TokenHash::from_hex(&hex[1..]).is_none()
                && TokenHash::from_hex(&hex.to_uppercase()).is_none()
        );
    }
}
