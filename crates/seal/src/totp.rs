//! One-time passwords by time (RFC 6238), as authenticator apps make them: HMAC-SHA-1, six digits, thirty seconds.

use aws_lc_rs::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key, sign};
use data_encoding::BASE32_NOPAD;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{Random, random_bytes};

/// Bytes of a secret: as many as the hash has (RFC 4226, section 4).
const BYTES: usize = 20;
/// Seconds of a step.
const STEP: i64 = 30;
/// Steps before and after the present one whose code is taken: clocks differ, and people type slowly (RFC 6238, section 5.2).
const LEEWAY: i64 = 1;
/// One more than the largest code.
const MODULUS: u32 = 1_000_000;

/// The secret that an authenticator app shares with us. It cannot be printed, and is wiped when dropped.
pub struct TotpSecret(Zeroizing<[u8; BYTES]>);

impl TotpSecret {
    /// A new one.
    #[must_use]
    pub fn generate(random: &(impl Random + ?Sized)) -> Self {
        Self(random_bytes(random))
    }

    /// One that was kept; `None` when it has not 20 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(bytes.try_into().ok()?)))
    }

    /// Its 20 bytes, to be sealed.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// As it is typed into an app: 32 characters of base32.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE32_NOPAD.encode(self.0.as_slice()))
    }

    /// As it is read from a QR code: an `otpauth` address with the issuer's and the account's names, which hold neither colons
    /// nor characters that would need escaping other than spaces.
    #[must_use]
    pub fn address(&self, issuer: &str, account: &str) -> Zeroizing<String> {
        let plain = |text: &str| -> String {
            let kept = text
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || "-._@ ".contains(*c));
            kept.collect::<String>()
                .replace(' ', "%20")
                .replace('@', "%40")
        };
        let (issuer, account) = (plain(issuer), plain(account));
        let text = self.text();
        Zeroizing::new(format!(
            "otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}",
            text.as_str()
        ))
    }

    /// Which step a code is of, at a moment in seconds since 1970: the present one or a neighbour, and later than `after`, the
    /// last step whose code was used, so that none is used twice. `None` when it is of none of them.
    #[must_use]
    pub fn step_of(&self, code: &str, seconds: i64, after: Option<i64>) -> Option<i64> {
        let now = seconds.div_euclid(STEP);
        let mut found = None;
        // All of them, whichever is right.
        for step in now - LEEWAY..=now + LEEWAY {
            let same: bool = self.code(step).as_bytes().ct_eq(code.as_bytes()).into();
            if same && after.is_none_or(|after| step > after) {
                found = Some(step);
            }
        }
        found
    }

    /// The code at a moment in seconds since 1970, as an app shows it. For tests and the sandbox, which have no app.
    #[must_use]
    pub fn code_at(&self, seconds: i64) -> Zeroizing<String> {
        self.code(seconds.div_euclid(STEP))
    }

    fn code(&self, step: i64) -> Zeroizing<String> {
        let key = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.0.as_slice());
        let tag = sign(&key, &step.to_be_bytes());
        let hash = tag.as_ref();
        let at = usize::from(hash[hash.len() - 1] & 15);
        let four = [hash[at] & 0x7f, hash[at + 1], hash[at + 2], hash[at + 3]];
        Zeroizing::new(format!("{:06}", u32::from_be_bytes(four) % MODULUS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, SHA-1: the last six of its eight digits.
    #[test]
    fn the_vectors_of_rfc_6238() {
        let secret = TotpSecret::from_bytes(b"12345678901234567890").unwrap();
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert!(*secret.code_at(seconds) == code, "at {seconds}");
            assert_eq!(secret.step_of(code, seconds, None), Some(seconds / STEP));
        }
    }

    #[test]
    fn a_code_is_taken_once_and_a_step_early_or_late() {
        let secret = TotpSecret::from_bytes(b"12345678901234567890").unwrap();
        let now = 1_111_111_109;
        let step = now / STEP;
        for other in [-STEP, 0, STEP] {
            assert!(
                secret
                    .step_of(&secret.code_at(now + other), now, None)
                    .is_some()
            );
        }
        for other in [-2 * STEP, 2 * STEP] {
            assert_eq!(
                secret.step_of(&secret.code_at(now + other), now, None),
                None
            );
        }
        let code = secret.code_at(now);
        assert_eq!(secret.step_of(&code, now, Some(step - 1)), Some(step));
        assert_eq!(secret.step_of(&code, now, Some(step)), None);
        for wrong in ["", "81804", "0818040", "081804 ", "999999"] {
            assert_eq!(secret.step_of(wrong, now, None), None);
        }
    }

    #[test]
    fn an_app_reads_its_address() {
        let secret = TotpSecret::from_bytes(b"12345678901234567890").unwrap();
        let address = secret.address("Lock warden", "zoe@example.org&secret=x");
        let told = address.replace(secret.text().as_str(), "SECRET");
        assert_eq!(
            told,
            "otpauth://totp/Lock%20warden:zoe%40example.orgsecretx?secret=SECRET&issuer=Lock%20warden"
        );
        assert!(TotpSecret::from_bytes(b"short").is_none());
    }
}
