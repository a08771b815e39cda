//! Cells.

use proptest::prelude::*;
use seal::{CELL_OVERHEAD, Keyring, OpenError, Purpose};

use crate::support::{Seeded, keyring};

const KIND: &str = "test-cell";

proptest! {
    #[test]
    fn a_cell_opens_where_it_was_sealed(
        plaintext in prop::collection::vec(any::<u8>(), 0..200),
        organisation in ".{0,20}",
        row in ".{0,40}",
        seed: u64,
    ) {
        let ring = keyring(1);
        let cell = ring.seal_cell(KIND, &organisation, &row, &plaintext, &Seeded::new(seed));
        prop_assert_eq!(cell.len(), plaintext.len() + CELL_OVERHEAD);
        prop_assert_eq!(&*ring.open_cell(KIND, &organisation, &row, &cell).unwrap(), &plaintext);
    }

    #[test]
    fn a_cell_opens_nowhere_else(
        places in prop::collection::vec("[a-c]{0,3}", 4),
    ) {
        let ring = keyring(1);
        let [sealed_org, sealed_row, org, row] = &places[..] else { unreachable!("four were asked for") };
        prop_assume!((sealed_org, sealed_row) != (org, row));
        let cell = ring.seal_cell(KIND, sealed_org, sealed_row, b"plaintext", &Seeded::new(2));
        prop_assert_eq!(ring.open_cell(KIND, org, row, &cell), Err(OpenError::DoesNotOpen { kind: KIND }));
    }
}

#[test]
fn a_cell_of_one_kind_does_not_open_as_another() {
    let ring = keyring(1);
    let cell = ring.seal_cell(KIND, "org", "row", b"plaintext", &Seeded::new(2));
    assert_eq!(
        ring.open_cell("other-cell", "org", "row", &cell),
        Err(OpenError::DoesNotOpen { kind: "other-cell" })
    );
}

#[test]
fn a_cell_with_any_bit_flipped_does_not_open() {
    let ring = keyring(1);
    let cell = ring.seal_cell(KIND, "org", "row", b"plaintext", &Seeded::new(2));
    for bit in 0..cell.len() * 8 {
        let mut changed = cell.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(
            ring.open_cell(KIND, "org", "row", &changed).is_err(),
            "bit {bit}"
        );
    }
}

#[test]
fn a_cell_cut_at_any_length_does_not_open() {
    let ring = keyring(1);
    let cell = ring.seal_cell(KIND, "org", "row", b"plaintext", &Seeded::new(2));
    for length in 0..cell.len() {
        let refused = ring
            .open_cell(KIND, "org", "row", &cell[..length])
            .unwrap_err();
        assert_eq!(
            refused == OpenError::TooShort,
            length < CELL_OVERHEAD,
            "length {length}: {refused}"
        );
    }
}

#[test]
fn one_plaintext_sealed_twice_gives_two_different_cells() {
    let ring = keyring(1);
    let random = Seeded::new(2);
    let seal = || ring.seal_cell(KIND, "org", "row", b"plaintext", &random);
    assert_ne!(seal(), seal());
}

#[test]
fn a_cell_of_a_strange_key_or_version_is_refused_by_name() {
    let ring = keyring(1);
    let other = keyring(7);
    let mut cell = other.seal_cell(KIND, "org", "row", b"plaintext", &Seeded::new(2));
    let id = other.key_ids(Purpose::Cells)[0];
    assert_eq!(Keyring::cell_key(&cell), Ok(id));
    assert_eq!(
        ring.open_cell(KIND, "org", "row", &cell),
        Err(OpenError::UnknownKey { id })
    );
    cell[0] = 9;
    assert_eq!(
        other.open_cell(KIND, "org", "row", &cell),
        Err(OpenError::UnknownVersion { version: 9 })
    );
}
