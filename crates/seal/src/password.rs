//! Passwords of people, stored by argon2id alone.

use argon2::password_hash::phc::PasswordHash as Phc;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{Random, random_bytes};

/// The fewest characters. Length is what counts; NIST SP 800-63B asks for 15 where a password stands alone, 8 beside a second factor.
const SHORTEST: usize = 12;
/// The most bytes, so that nobody has a megabyte hashed.
const LONGEST: usize = 1024;
/// Salt, bytes (RFC 9106, section 3.1).
const SALT: usize = 16;
/// What OWASP asks of argon2id at the least: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// A password as a person typed it. It cannot be printed, and is wiped when dropped.
pub struct Password(Zeroizing<String>);

/// Why a text cannot become a password. It repeats nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PasswordError {
    /// Too few characters.
    #[error(
        "the password is shorter than {SHORTEST} characters: take some words that do not belong together"
    )]
    Short,
    /// Too many bytes.
    #[error("the password is longer than {LONGEST} bytes")]
    Long,
    /// All characters are the same.
    #[error("the password is one character, repeated")]
    Repeated,
}

impl Password {
    /// A text that somebody wants as a new password.
    ///
    /// # Errors
    /// When it is shorter than 12 characters, longer than 1,024 bytes, or one character over and over.
    pub fn new(text: Zeroizing<String>) -> Result<Self, PasswordError> {
        if text.len() > LONGEST {
            return Err(PasswordError::Long);
        }
        if text.chars().count() < SHORTEST {
            return Err(PasswordError::Short);
        }
        let mut characters = text.chars();
        let first = characters.next();
        if characters.all(|one| Some(one) == first) {
            return Err(PasswordError::Repeated);
        }
        Ok(Self(text))
    }

    /// A text that somebody claims to be their password, whatever it looks like. One that is too long is nobody's.
    #[must_use]
    pub fn claimed(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// Hashes it, which takes some tens of milliseconds and 19 MiB.
    #[must_use]
    pub fn hash(&self, random: &(impl Random + ?Sized)) -> PasswordHash {
        let salt = random_bytes::<SALT>(random);
        let phc = hasher()
            .hash_password_with_salt(self.0.as_bytes(), salt.as_slice())
            .expect("the parameters, the salt's length and the password's length are in range");
        PasswordHash(phc.to_string())
    }
}

/// A password's hash in the PHC string format, `$argon2id$v=19$m=...`: with it nobody signs in, but a weak password can be
/// guessed. So it is not printed either.
#[derive(Clone)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// As it is stored.
    #[must_use]
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// The text to store.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the hash of this password; false too for a text that is no hash of argon2id. Takes as long as
    /// [`Password::hash`].
    #[must_use]
    pub fn is_of(&self, password: &Password) -> bool {
        let Ok(phc) = Phc::new(&self.0) else {
            return false;
        };
        phc.algorithm == Algorithm::Argon2id.ident()
            && password.0.len() <= LONGEST
            && hasher()
                .verify_password(password.0.as_bytes(), &phc)
                .is_ok()
    }

    /// Whether the parameters are those of today. Otherwise it is made anew at the next sign-in.
    #[must_use]
    pub fn is_current(&self) -> bool {
        let Ok(phc) = Phc::new(&self.0) else {
            return false;
        };
        let params = Params::try_from(&phc);
        phc.algorithm == Algorithm::Argon2id.ident()
            && params.is_ok_and(|params| {
                params.m_cost() >= MEMORY_KIB
                    && params.t_cost() >= PASSES
                    && params.p_cost() == LANES
            })
    }

    /// Takes the time of a comparison, for an account that does not exist or has no password: who asks learns nothing from
    /// how long it took.
    pub fn of_nobody(password: &Password) {
        let salt = [0; SALT];
        let mut out = Zeroizing::new([0; 32]);
        let text = if password.0.len() <= LONGEST {
            password.0.as_bytes()
        } else {
            b""
        };
        let _ = hasher().hash_password_into(text, &salt, out.as_mut_slice());
    }
}

fn hasher() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None);
    let params = params.expect("the parameters are within the algorithm's");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Same(u8);
    impl Random for Same {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    fn text(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[test]
    fn a_hash_knows_its_password_and_no_other() {
        let Ok(password) = Password::new(text("correct horse battery")) else {
            panic!("it is a good one")
        };
        let hash = password.hash(&Same(1));
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(
            hash.as_str() != password.hash(&Same(2)).as_str(),
            "the salt counts"
        );
        let stored = PasswordHash::stored(hash.as_str().to_owned());
        assert!(stored.is_of(&Password::claimed(text("correct horse battery"))));
        assert!(stored.is_current());
        assert!(!stored.is_of(&Password::claimed(text("correct horse batterz"))));
        assert!(!stored.is_of(&Password::claimed(text(""))));
    }

    /// From the reference program: `echo -n password | argon2 somesalt -id -t 2 -m 16 -p 4 -e`.
    #[test]
    fn it_reads_what_the_reference_program_makes_and_knows_that_its_parameters_are_older() {
        let made = "$argon2id$v=19$m=65536,t=2,p=4$c29tZXNhbHQ$GpZ3sK/oH9p7VIiV56G/64Zo/8GaUw434IimaPqxwCo";
        let hash = PasswordHash::stored(made.to_owned());
        assert!(hash.is_of(&Password::claimed(text("password"))));
        assert!(!hash.is_of(&Password::claimed(text("Password"))));
        assert!(!hash.is_current());
    }

    #[test]
    fn nothing_but_argon2id_is_a_hash() {
        for other in [
            "",
            "correct horse battery",
            "$2b$12$abcdefghijklmnopqrstuuJ",
            "$argon2i$v=19$m=65536,t=2,p=4$c29tZXNhbHQ$GpZ3sK/oH9p7VIiV56G/64Zo/8GaUw434IimaPqxwCo",
        ] {
            let hash = PasswordHash::stored(other.to_owned());
            assert!(
                !hash.is_of(&Password::claimed(text("correct horse battery")))
                    && !hash.is_current()
            );
        }
    }

    #[test]
    fn a_new_password_has_some_length() {
        let error = |given: &str| Password::new(text(given)).err();
        assert_eq!(error("eleven char"), Some(PasswordError::Short));
        assert_eq!(error("zwölf Zeiche"), None);
        assert_eq!(error(&"a".repeat(20)), Some(PasswordError::Repeated));
        assert_eq!(error(&"ab".repeat(513)), Some(PasswordError::Long));
    }
}
