//! Fingerprints (R24), MACs, and signatures of checkpoints.

use seal::{CheckpointPublicKey, DataKey, Fingerprint, Keyring, Mac, MacError, Purpose, Standing};
use subtle::ConstantTimeEq as _;

use crate::support::{Seeded, keyring};

fn same(left: &Fingerprint, right: &Fingerprint) -> bool {
    left.ct_eq(right).into()
}

#[test]
fn r24_a_fingerprint_belongs_to_organisation_serial_and_code() {
    let ring = keyring(1);
    let one = ring.fingerprint("org", "SERIAL", b"code");
    assert!(same(&one, &ring.fingerprint("org", "SERIAL", b"code")));
    for (organisation, serial, code) in [
        ("other", "SERIAL", b"code".as_slice()),
        ("org", "SERIAX", b"code"),
        ("org", "SERIAL", b"Code"),
        ("orgS", "ERIAL", b"code"),
        ("org", "SERIALc", b"ode"),
    ] {
        assert!(!same(&one, &ring.fingerprint(organisation, serial, code)));
    }
    assert!(!same(
        &one,
        &keyring(2).fingerprint("org", "SERIAL", b"code")
    ));
}

#[test]
fn r24_a_fingerprint_carries_its_keys_id_and_outlives_a_rotation() {
    let random = Seeded::new(1);
    let cells = || DataKey::generate(Purpose::Cells, &Seeded::new(8));
    let audit = || DataKey::generate(Purpose::Audit, &Seeded::new(9));
    let checkpoints = || DataKey::generate(Purpose::Checkpoints, &Seeded::new(11));
    let first = || DataKey::generate(Purpose::Fingerprints, &Seeded::new(10));
    let second = DataKey::generate(Purpose::Fingerprints, &random);
    let before = Keyring::new(
        [cells(), audit(), checkpoints(), first()].map(|key| (key, Standing::Current)),
    )
    .unwrap();
    let made = before.fingerprint("org", "SERIAL", b"code");
    let after = Keyring::new([
        (cells(), Standing::Current),
        (audit(), Standing::Current),
        (checkpoints(), Standing::Current),
        (first(), Standing::Older),
        (second, Standing::Current),
    ])
    .unwrap();

    let now = after.fingerprint("org", "SERIAL", b"code");
    assert!(now.key_id() != made.key_id());
    assert!(!same(&now, &made));
    assert_eq!(
        after.key_ids(Purpose::Fingerprints),
        [now.key_id(), made.key_id()]
    );
    let again = after
        .fingerprint_under(made.key_id(), "org", "SERIAL", b"code")
        .unwrap();
    assert!(same(&again, &made));
    assert!(
        before
            .fingerprint_under(now.key_id(), "org", "SERIAL", b"code")
            .is_none()
    );
}

#[test]
fn a_fingerprint_is_read_back_from_its_stored_text() {
    let ring = keyring(1);
    let one = ring.fingerprint("org", "SERIAL", b"code");
    let hex = one.hex();
    assert!(hex.len() == 64);
    assert!(same(
        &Fingerprint::from_hex(one.key_id(), &hex).unwrap(),
        &one
    ));
    for wrong in [&hex[1..], &hex.to_uppercase(), &hex.replace(&hex[..1], "x")] {
        assert!(Fingerprint::from_hex(one.key_id(), wrong).is_none());
    }
}

#[test]
fn a_mac_is_refused_for_any_other_text_and_under_any_other_key() {
    let ring = keyring(1);
    let mac = ring.mac("one text");
    assert_eq!(ring.verify_mac("one text", &mac), Ok(()));
    assert_eq!(ring.verify_mac("one texT", &mac), Err(MacError::Mismatch));
    assert_eq!(ring.verify_mac("one text ", &mac), Err(MacError::Mismatch));
    let id = mac.key_id();
    assert_eq!(
        keyring(2).verify_mac("one text", &mac),
        Err(MacError::UnknownKey { id })
    );
    let mut hex = mac.hex();
    assert_eq!(
        ring.verify_mac("one text", &Mac::from_hex(id, &hex).unwrap()),
        Ok(())
    );
    let last = if hex.ends_with('0') { "1" } else { "0" };
    hex.replace_range(63.., last);
    assert_eq!(
        ring.verify_mac("one text", &Mac::from_hex(id, &hex).unwrap()),
        Err(MacError::Mismatch)
    );
}

#[test]
fn the_public_half_checks_a_checkpoint_and_only_that_one() {
    let ring = keyring(1);
    let signature = ring.sign_checkpoint("position 7");
    let public = &ring.checkpoint_keys()[0];
    let kept = CheckpointPublicKey::parse(&public.to_text()).unwrap();
    assert_eq!((&kept, kept.id()), (public, public.id()));
    assert!(kept.verifies("position 7", &signature));
    assert!(!kept.verifies("position 8", &signature));
    assert!(!kept.verifies("position 7", &signature.to_ascii_uppercase()));
    assert!(!kept.verifies("position 7", &signature[..126]));
    assert!(!kept.verifies("position 7", ""));
    for at in 0..signature.len() {
        let mut changed = signature.clone().into_bytes();
        changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(!kept.verifies("position 7", &changed), "digit {at}");
    }
    assert!(!keyring(2).checkpoint_keys()[0].verifies("position 7", &signature));
}

#[test]
fn a_signature_of_a_key_before_a_rotation_is_still_checked() {
    let key = |purpose, seed| DataKey::generate(purpose, &Seeded::new(seed));
    let rest = || {
        [Purpose::Cells, Purpose::Fingerprints, Purpose::Audit]
            .map(|purpose| (key(purpose, 7), Standing::Current))
    };
    let first = |standing| (key(Purpose::Checkpoints, 8), standing);
    let before = Keyring::new(rest().into_iter().chain([first(Standing::Current)])).unwrap();
    let second = (key(Purpose::Checkpoints, 9), Standing::Current);
    let after = Keyring::new(rest().into_iter().chain([first(Standing::Older), second])).unwrap();
    let (old, keys) = (before.sign_checkpoint("text"), after.checkpoint_keys());
    assert_eq!(keys.len(), 2);
    assert!(keys[0].verifies("text", &after.sign_checkpoint("text")));
    assert!(!keys[0].verifies("text", &old) && keys[1].verifies("text", &old));
}
