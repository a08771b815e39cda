//! Identifiers in the order in which they were made: UUIDv7 from a clock and a generator (RFC 9562, section 5.7).

use std::sync::{Arc, Mutex, PoisonError};

use activation_lock::time::Timestamp;
use seal::Random;
use uuid::Uuid;

/// The bits of a UUIDv7 that are neither time, version nor variant.
const TAIL_BITS: u32 = 74;
const TAIL_MASK: u128 = (1 << TAIL_BITS) - 1;

/// Makes identifiers. Each is greater than the one before, even when the clock is set back or stands still.
pub(crate) struct Ids {
    random: Arc<dyn Random>,
    /// Milliseconds and tail of the last one, as one number of 48 and 74 bits.
    last: Mutex<u128>,
}

impl Ids {
    pub(crate) fn new(random: Arc<dyn Random>) -> Self {
        Self {
            random,
            last: Mutex::new(0),
        }
    }

    pub(crate) fn next(&self, now: Timestamp) -> Uuid {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        let tail = u128::from_be_bytes(bytes) & TAIL_MASK;
        let millis = u128::from(u64::try_from(now.0).unwrap_or(0));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = millis << TAIL_BITS | tail;
        // Within one millisecond, count on from the last: its tail was random, so this stays unique across processes.
        *last = if millis > *last >> TAIL_BITS {
            fresh
        } else {
            *last + 1
        };
        spread(*last)
    }
}

/// Lays the 122 bits around version and variant.
fn spread(bits: u128) -> Uuid {
    let millis = (bits >> TAIL_BITS) & 0xffff_ffff_ffff;
    let rand_a = (bits >> 62) & 0xfff;
    let rand_b = bits & ((1 << 62) - 1);
    Uuid::from_u128(millis << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ones;

    impl Random for Ones {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0xff);
        }
    }

    #[test]
    fn identifiers_are_version_7_and_only_grow() {
        let ids = Ids::new(Arc::new(Ones));
        let mut last = Uuid::nil();
        // All tail bits set: the next in the same millisecond overflows into the time.
        for now in [
            1_700_000_000_000,
            1_700_000_000_000,
            1_700_000_000_000,
            1_600_000_000_000,
            1_700_000_000_005,
        ] {
            let id = ids.next(Timestamp(now));
            assert!(
                id > last && id.to_string() > last.to_string(),
                "{id} after {last}"
            );
            assert_eq!(
                (id.get_version_num(), id.get_variant()),
                (7, uuid::Variant::RFC4122)
            );
            last = id;
        }
        assert_eq!(last.as_u128() >> 80, 1_700_000_000_005);
    }
}
