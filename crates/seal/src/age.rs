//! Archives in the [age format](https://age-encryption.org/v1), which its recipients open without Lockwarden. The one place where a
//! library draws randomness by itself, from the operating system.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use age::stream::StreamWriter;
use age::x25519;

/// Why something is no recipient.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no recipient of an age archive: one is written age1..., and made by `age-keygen`")]
pub struct AgeRecipientError;

/// Whom an archive is sealed for: a public key, as `age1...`.
#[derive(Clone)]
pub struct AgeRecipient(x25519::Recipient);

impl std::str::FromStr for AgeRecipient {
    type Err = AgeRecipientError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.trim().parse().map(Self).map_err(|_| AgeRecipientError)
    }
}

impl std::fmt::Display for AgeRecipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What is sealed and was not taken yet.
#[derive(Clone, Default)]
struct Sealed(Arc<Mutex<Vec<u8>>>);

impl Sealed {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Sealed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sealed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sealed.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Seals an archive as it is written, a piece at a time.
pub struct AgeWriter {
    writer: StreamWriter<Sealed>,
    sealed: Sealed,
}

impl AgeWriter {
    /// Begins one that each of these recipients opens.
    ///
    /// # Errors
    /// When there is no recipient.
    pub fn new(recipients: &[AgeRecipient]) -> io::Result<Self> {
        let sealed = Sealed::default();
        let all = recipients.iter().map(|one| &one.0 as &dyn age::Recipient);
        let writer = age::Encryptor::with_recipients(all)
            .map_err(io::Error::other)?
            .wrap_output(sealed.clone())?;
        Ok(Self { writer, sealed })
    }

    /// Seals more, and gives what is ready: nothing at times, for pieces of 64 KiB are sealed at once.
    ///
    /// # Errors
    /// When it cannot be sealed.
    pub fn write(&mut self, plain: &[u8]) -> io::Result<Vec<u8>> {
        self.writer.write_all(plain)?;
        Ok(self.sealed.take())
    }

    /// Ends it. An archive without its end does not open.
    ///
    /// # Errors
    /// When it cannot be sealed.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        self.writer.finish()?;
        Ok(self.sealed.take())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn opened(archive: &[u8], identity: &x25519::Identity) -> io::Result<Vec<u8>> {
        let decryptor = age::Decryptor::new(archive).map_err(io::Error::other)?;
        let identity: &dyn age::Identity = identity;
        let mut plain = Vec::new();
        decryptor
            .decrypt(std::iter::once(identity))
            .map_err(io::Error::other)?
            .read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn each_recipient_opens_it_whole_and_nobody_else_or_without_its_end() {
        let (zoe, max, eve) = (
            x25519::Identity::generate(),
            x25519::Identity::generate(),
            x25519::Identity::generate(),
        );
        let recipients = [&zoe, &max].map(|identity| {
            let recipient: AgeRecipient = identity.to_public().to_string().parse().unwrap();
            assert_eq!(recipient.to_string(), identity.to_public().to_string());
            recipient
        });
        let mut writer = AgeWriter::new(&recipients).unwrap();
        let plain: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        let mut archive = Vec::new();
        for piece in plain.chunks(1_000) {
            archive.extend(writer.write(piece).unwrap());
        }
        assert!(
            archive.len() > 100_000,
            "it comes while it is written, not all at the end"
        );
        archive.extend(writer.finish().unwrap());
        for identity in [&zoe, &max] {
            assert!(opened(&archive, identity).unwrap() == plain);
        }
        assert!(opened(&archive, &eve).is_err());
        for cut in [archive.len() - 1, archive.len() - 70_000, 300] {
            assert!(opened(&archive[..cut], &zoe).is_err(), "{cut}");
        }
        assert!(AgeWriter::new(&[]).is_err());
    }

    #[test]
    fn what_is_no_public_key_is_no_recipient() {
        let secret = x25519::Identity::generate().to_string();
        let secret = age::secrecy::ExposeSecret::expose_secret(&secret);
        for text in ["", "age1", "zoe@example.org", secret] {
            assert!(text.parse::<AgeRecipient>().is_err());
        }
    }
}
