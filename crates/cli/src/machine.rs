//! What the program asks of the machine it runs on.

use std::fs::File;
use std::io::Read as _;

use seal::Random;

/// The system's random generator.
struct SystemRandom(File);

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        (&self.0)
            .read_exact(bytes)
            .expect("the kernel's random generator gives bytes for ever");
    }
}

/// The system's random generator.
pub(crate) fn random() -> impl Random {
    SystemRandom(File::open("/dev/urandom").expect("every supported system has a random generator"))
}
