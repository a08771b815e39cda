//! Data keys and their recipients (R25), and the texts in which people keep keys.

use seal::{
    DataKey, KeyEncryptionKey, KeyId, KeyTextError, Keyring, KeyringError, Purpose, RecoveryKey,
    RecoveryPublicKey, Standing, UnwrapError, Wrapping,
};

use crate::support::Seeded;

/// Whether two data keys are the same key: each opens what the other seals.
fn same_key(one: DataKey, other: DataKey) -> bool {
    let rest = || {
        [Purpose::Fingerprints, Purpose::Audit, Purpose::Checkpoints].map(|purpose| {
            (
                DataKey::generate(purpose, &Seeded::new(99)),
                Standing::Current,
            )
        })
    };
    let ring = |key| {
        Keyring::new(rest().into_iter().chain([(key, Standing::Current)]))
            .expect("one current key a purpose")
    };
    let cell = ring(one).seal_cell("test-cell", "org", "row", b"plaintext", &Seeded::new(3));
    ring(other)
        .open_cell("test-cell", "org", "row", &cell)
        .is_ok()
}

#[test]
fn r25_a_data_key_opens_for_each_of_its_recipients_and_for_nobody_else() {
    let random = Seeded::new(1);
    let running = KeyEncryptionKey::generate(&random);
    let next = KeyEncryptionKey::generate(&random);
    let recovery = RecoveryKey::generate(&random);
    let stranger = RecoveryKey::generate(&random);
    let generate = || DataKey::generate(Purpose::Cells, &Seeded::new(5));
    let key = generate();
    let (purpose, id) = (key.purpose(), key.id());
    let for_running = running.wrap(&key, &random);
    let for_next = next.wrap(&key, &random);
    let for_recovery = recovery.public().wrap(&key, &random);

    assert!(same_key(
        generate(),
        running.unwrap(purpose, id, &for_running).ok().unwrap()
    ));
    assert!(same_key(
        generate(),
        next.unwrap(purpose, id, &for_next).ok().unwrap()
    ));
    assert!(same_key(
        generate(),
        recovery.unwrap(purpose, id, &for_recovery).ok().unwrap()
    ));

    let wrong = |wrapping: &Wrapping, offered| UnwrapError::WrongKey {
        wanted: wrapping.recipient,
        offered,
    };
    assert_eq!(
        next.unwrap(purpose, id, &for_running).err(),
        Some(wrong(&for_running, next.recipient()))
    );
    assert_eq!(
        running.unwrap(purpose, id, &for_recovery).err(),
        Some(wrong(&for_recovery, running.recipient()))
    );
    assert_eq!(
        stranger.unwrap(purpose, id, &for_recovery).err(),
        Some(wrong(&for_recovery, stranger.public().recipient()))
    );

    // A recipient's name written over another's does not make its key fit.
    let renamed = Wrapping {
        recipient: next.recipient(),
        ..for_running
    };
    assert_eq!(
        next.unwrap(purpose, id, &renamed).err(),
        Some(UnwrapError::Damaged { purpose, id })
    );
    let renamed = Wrapping {
        recipient: stranger.public().recipient(),
        ..for_recovery
    };
    assert_eq!(
        stranger.unwrap(purpose, id, &renamed).err(),
        Some(UnwrapError::Damaged { purpose, id })
    );
}

#[test]
fn a_wrong_key_is_refused_with_both_ids_in_the_message() {
    let random = Seeded::new(1);
    let running = KeyEncryptionKey::generate(&random);
    let other = KeyEncryptionKey::generate(&random);
    let key = DataKey::generate(Purpose::Audit, &random);
    let wrapping = running.wrap(&key, &random);
    let message = other
        .unwrap(Purpose::Audit, key.id(), &wrapping)
        .err()
        .unwrap()
        .to_string();
    assert!(message.contains(&running.id().to_string()), "{message}");
    assert!(message.contains(&other.id().to_string()), "{message}");
}

#[test]
fn r25_a_wrapping_with_any_bit_flipped_or_cut_anywhere_does_not_open() {
    let random = Seeded::new(1);
    let running = KeyEncryptionKey::generate(&random);
    let recovery = RecoveryKey::generate(&random);
    let key = DataKey::generate(Purpose::Cells, &random);
    let (purpose, id) = (key.purpose(), key.id());
    let opens = |wrapping: &Wrapping| {
        running.unwrap(purpose, id, wrapping).is_ok()
            || recovery.unwrap(purpose, id, wrapping).is_ok()
    };
    for wrapping in [
        running.wrap(&key, &random),
        recovery.public().wrap(&key, &random),
    ] {
        assert!(opens(&wrapping));
        for bit in 0..wrapping.bytes.len() * 8 {
            let mut changed = wrapping.clone();
            changed.bytes[bit / 8] ^= 1 << (bit % 8);
            // X25519 ignores the top bit of a public key; the derivation of the sealing key does not.
            assert!(
                !opens(&changed),
                "{} bit {bit}",
                wrapping.recipient.kind.as_str()
            );
        }
        for length in 0..wrapping.bytes.len() {
            let cut = Wrapping {
                bytes: wrapping.bytes[..length].to_vec(),
                ..wrapping.clone()
            };
            assert!(
                !opens(&cut),
                "{} length {length}",
                wrapping.recipient.kind.as_str()
            );
        }
    }
}

#[test]
fn a_wrapping_does_not_open_as_another_key_or_for_another_purpose() {
    let random = Seeded::new(1);
    let running = KeyEncryptionKey::generate(&random);
    let recovery = RecoveryKey::generate(&random);
    let key = DataKey::generate(Purpose::Cells, &random);
    let other = DataKey::generate(Purpose::Cells, &random);
    for (purpose, id) in [
        (Purpose::Cells, other.id()),
        (Purpose::Fingerprints, key.id()),
    ] {
        let damaged = Some(UnwrapError::Damaged { purpose, id });
        assert_eq!(
            running
                .unwrap(purpose, id, &running.wrap(&key, &random))
                .err(),
            damaged
        );
        assert_eq!(
            recovery
                .unwrap(purpose, id, &recovery.public().wrap(&key, &random))
                .err(),
            damaged
        );
    }
}

#[test]
fn r25_the_recovery_key_read_back_from_paper_opens_a_cell() {
    let random = Seeded::new(1);
    let printed = RecoveryKey::generate(&random);
    let public = RecoveryPublicKey::parse(&printed.public().to_text()).unwrap();
    let mut keys = Vec::new();
    let mut stored = Vec::new();
    for purpose in Purpose::ALL {
        let key = DataKey::generate(purpose, &random);
        stored.push((purpose, key.id(), public.wrap(&key, &random)));
        keys.push((key, Standing::Current));
    }
    let cell =
        Keyring::new(keys)
            .unwrap()
            .seal_cell("test-cell", "org", "row", b"plaintext", &random);

    let on_paper = printed.to_text();
    drop(printed);
    let typed = RecoveryKey::parse(&format!("# from the safe\n\n  {}\n", *on_paper))
        .ok()
        .unwrap();
    let opened = stored.iter().map(|(purpose, id, wrapping)| {
        (
            typed.unwrap(*purpose, *id, wrapping).ok().unwrap(),
            Standing::Current,
        )
    });
    let ring = Keyring::new(opened).ok().unwrap();
    assert_eq!(
        *ring.open_cell("test-cell", "org", "row", &cell).unwrap(),
        b"plaintext"
    );
}

#[test]
fn after_a_rotation_old_cells_open_and_new_ones_carry_the_new_key() {
    let random = Seeded::new(1);
    let key = |purpose, seed| DataKey::generate(purpose, &Seeded::new(seed));
    let rest = || {
        [Purpose::Fingerprints, Purpose::Audit, Purpose::Checkpoints]
            .map(|purpose| (key(purpose, 7), Standing::Current))
    };
    let old = Keyring::new(
        rest()
            .into_iter()
            .chain([(key(Purpose::Cells, 2), Standing::Current)]),
    )
    .unwrap();
    let cell = old.seal_cell("test-cell", "org", "row", b"plaintext", &random);
    let new = Keyring::new(rest().into_iter().chain([
        (key(Purpose::Cells, 2), Standing::Older),
        (key(Purpose::Cells, 3), Standing::Current),
    ]))
    .unwrap();
    assert_eq!(
        *new.open_cell("test-cell", "org", "row", &cell).unwrap(),
        b"plaintext"
    );
    let resealed = new.seal_cell("test-cell", "org", "row", b"plaintext", &random);
    assert_eq!(
        Keyring::cell_key(&resealed),
        Ok(key(Purpose::Cells, 3).id())
    );
    assert!(old.open_cell("test-cell", "org", "row", &resealed).is_err());
}

#[test]
fn a_keyring_has_one_current_key_a_purpose() {
    let key = |purpose, seed| DataKey::generate(purpose, &Seeded::new(seed));
    let refused = |keys: Vec<_>| Keyring::new(keys).err();
    let all = || Purpose::ALL.map(|purpose| (key(purpose, 1), Standing::Current));
    assert_eq!(refused(all().into()), None);
    assert_eq!(
        refused(all().into_iter().skip(1).collect()),
        Some(KeyringError::NoCurrent(Purpose::Cells))
    );
    let second = (key(Purpose::Audit, 2), Standing::Current);
    assert_eq!(
        refused(all().into_iter().chain([second]).collect()),
        Some(KeyringError::TwoCurrent(Purpose::Audit))
    );
    let older = all().map(|(key, _)| (key, Standing::Older));
    assert_eq!(
        refused(older.into()),
        Some(KeyringError::NoCurrent(Purpose::Cells))
    );
}

#[test]
fn a_key_file_is_read_back_with_its_comments() {
    let key = KeyEncryptionKey::generate(&Seeded::new(1));
    let text = key.to_file_text();
    assert!(text.starts_with(&format!("lockwarden-key-1:{}:", key.id())));
    let commented = format!("# the key of one server\r\n\r\n{}\r\n# end\r\n", *text);
    let read = KeyEncryptionKey::parse(&commented).ok().unwrap();
    assert_eq!(read.id(), key.id());
    let data_key = DataKey::generate(Purpose::Cells, &Seeded::new(2));
    let wrapping = key.wrap(&data_key, &Seeded::new(3));
    assert!(
        read.unwrap(Purpose::Cells, data_key.id(), &wrapping)
            .is_ok()
    );
}

#[test]
fn a_key_file_that_is_not_one_is_refused_by_its_line() {
    let expected = "lockwarden-key-1";
    let refused = |text: &str| KeyEncryptionKey::parse(text).err().expect("it is refused");
    let line = KeyEncryptionKey::generate(&Seeded::new(1)).to_file_text();
    let other = KeyEncryptionKey::generate(&Seeded::new(2)).to_file_text();

    assert!(refused("") == KeyTextError::Empty { expected });
    assert!(refused("# only talk\n\n") == KeyTextError::Empty { expected });
    assert!(
        refused(&format!("{}\n\n{}\n", *line, *other)) == KeyTextError::MoreThanOne { line: 3 }
    );
    assert!(refused("\nhello") == KeyTextError::Unreadable { line: 2, expected });
    assert!(
        refused(&line.replace("key-1", "key-2")) == KeyTextError::Unreadable { line: 1, expected }
    );
    assert!(refused(&format!("{}:", *line)) == KeyTextError::Unreadable { line: 1, expected });
    assert!(refused(&line[..line.len() - 1]) == KeyTextError::Damaged { line: 1 });
    assert!(refused(&format!("{}!", &line[..line.len() - 1])) == KeyTextError::Damaged { line: 1 });
    // 43 characters carry 258 bits: the last two must be zero, or two texts would be one key.
    assert!(refused(&format!("{}_", &line[..line.len() - 1])) == KeyTextError::Damaged { line: 1 });
    let (head, key) = line.rsplit_once(':').unwrap();
    let (other_head, _) = other.rsplit_once(':').unwrap();
    let computed: KeyId = head.rsplit_once(':').unwrap().1.parse().unwrap();
    let written = other_head.rsplit_once(':').unwrap().1.to_owned();
    assert!(refused(&format!("{other_head}:{key}")) == KeyTextError::OtherId { written, computed });
}

#[test]
fn no_refusal_of_a_key_text_repeats_the_key() {
    let line = KeyEncryptionKey::generate(&Seeded::new(1)).to_file_text();
    let key = line.rsplit_once(':').unwrap().1;
    for text in [
        format!("lockwarden-key-1:{key}:{key}"),
        format!("{key}:{key}:{key}"),
        format!("lockwarden-key-1:0000000000000000:{key}"),
        format!("lockwarden-key-1:0000000000000000:{key}{key}"),
    ] {
        let message = KeyEncryptionKey::parse(&text).err().unwrap().to_string();
        assert!((0..key.len() - 8).all(|at| !message.contains(&key[at..at + 8])));
    }
}

#[test]
fn r25_a_private_recovery_key_is_refused_where_a_servers_key_or_public_half_belongs() {
    let recovery = RecoveryKey::generate(&Seeded::new(1));
    let private = recovery.to_text();
    let found = "a private recovery key";
    let refused = KeyEncryptionKey::parse(&private).err().unwrap();
    assert!(
        refused
            == KeyTextError::OtherKey {
                expected: "a key-encryption key",
                found
            }
    );
    let refused = RecoveryPublicKey::parse(&private).err().unwrap();
    assert!(
        refused
            == KeyTextError::OtherKey {
                expected: "a public recovery key",
                found
            }
    );
    let refused = RecoveryKey::parse(&recovery.public().to_text())
        .err()
        .unwrap();
    assert!(
        refused
            == KeyTextError::OtherKey {
                expected: found,
                found: "a public recovery key"
            }
    );
}
