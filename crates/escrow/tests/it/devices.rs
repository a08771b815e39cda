//! Pages of devices, at a size at which one cannot look at them all.

use std::collections::BTreeMap;

use activation_lock::lock::OurLock;
use activation_lock::time::Timestamp;
use escrow::coverage::CoverageState;
use escrow::devices::{DeviceSummary, Filter};
use escrow::permit::{Permit, Read};

use crate::beside::Beside;
use crate::support::Vault;

/// More than a page looks at.
const DEVICES: i64 = 4_500;
const DAY: i64 = 24 * 60 * 60 * 1000;

/// A fleet in which products, connections, states and words recur at different strides.
async fn fleet() -> Vault {
    let vault = Vault::new().await;
    let (organisation, now) = (vault.organisation.as_str(), vault.now().0);
    let numbers = format!(
        "WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {DEVICES})"
    );
    let mut beside = Beside::of(vault.escrow.folder()).await;
    for sql in [
        format!(
            "{numbers} INSERT INTO devices (organisation, serial, product_type, connection, coverage, window_opened_at, \
             window_closes_at, created_at, seen_at) SELECT '{organisation}', 'D' || CAST(100000 + i AS TEXT), \
             CASE i % 3 WHEN 0 THEN 'iPad14,3' WHEN 1 THEN 'Mac14,2' ELSE 'iPhone15,2' END, \
             CASE i % 7 WHEN 0 THEN 'small' ELSE 'large' END, CASE i % 5 WHEN 0 THEN 'missing' ELSE 'covered' END, \
             CASE i % 5 WHEN 0 THEN {now} + (i % 20 - 21) * {DAY} END, \
             CASE i % 5 WHEN 0 THEN {now} + (i % 20 - 6) * {DAY} END, {now}, {now} FROM numbers"
        ),
        format!(
            "{numbers} INSERT INTO device_terms (organisation, term, serial, source) \
             SELECT '{organisation}', 'd' || CAST(100000 + i AS TEXT), 'D' || CAST(100000 + i AS TEXT), 'serial' FROM numbers"
        ),
        // Words of a name: one that all have, one that few have, and one whose beginning is that of the first.
        format!(
            "{numbers} INSERT INTO device_terms (organisation, term, serial, source) \
             SELECT '{organisation}', word, 'D' || CAST(100000 + i AS TEXT), 'name' FROM numbers, \
             (SELECT 'common' AS word, 1 AS stride UNION ALL SELECT 'commons' AS word, 2 AS stride \
              UNION ALL SELECT 'rare', 900) AS words WHERE i % stride = 0"
        ),
    ] {
        beside.run(&sql).await;
    }
    vault
}

/// All pages of a list; each has at most `limit` devices.
async fn all(vault: &Vault, filter: &Filter, limit: usize) -> Vec<DeviceSummary> {
    let permit: Permit<Read> = vault.permit("devices").await;
    let (mut devices, mut cursor) = (Vec::new(), None);
    loop {
        let page = vault
            .escrow
            .devices()
            .list(&permit, filter, cursor.as_deref(), limit)
            .await
            .unwrap();
        assert!(page.items.len() <= limit);
        devices.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return devices;
        }
    }
}

fn serials(devices: &[DeviceSummary]) -> Vec<String> {
    devices.iter().map(|d| d.serial.to_string()).collect()
}

#[tokio::test]
async fn pages_hold_what_is_asked_for_once_and_in_order() {
    let vault = fleet().await;
    let everything = all(&vault, &Filter::default(), 500).await;
    assert_eq!(everything.len(), DEVICES as usize);
    assert!(serials(&everything).is_sorted());
    let soon = |closes: Timestamp| closes > vault.now() && closes.0 <= vault.now().0 + 5 * DAY;
    let products = [None, Some("iPad14,3"), Some("none")];
    let connections = [None, Some("small"), Some("large")];
    let states = [
        None,
        Some(CoverageState::Missing),
        Some(CoverageState::Covered),
    ];
    let mut asked = 0;
    for question in 0..54 {
        let (product, connection) = (products[question % 3], connections[question / 3 % 3]);
        let (state, closing) = (states[question / 9 % 3], question / 27 == 1);
        let filter = Filter {
            product_type: product.map(str::to_owned),
            connection: connection.map(str::to_owned),
            coverage: state,
            closing,
            search: None,
            lock: None,
        };
        let fits = |device: &&DeviceSummary| {
            product.is_none_or(|p| {
                device
                    .product_type
                    .as_ref()
                    .is_some_and(|is| is.as_str() == p)
            }) && connection.is_none_or(|c| device.connection.as_deref() == Some(c))
                && state.is_none_or(|s| device.coverage == s)
                && (!closing || device.window_closes_at.is_some_and(soon))
        };
        let mut expected: Vec<&DeviceSummary> = everything.iter().filter(fits).collect();
        if closing {
            expected.sort_by_key(|device| device.window_closes_at);
        }
        let expected: Vec<String> = expected.iter().map(|d| d.serial.to_string()).collect();
        for limit in [37, 500] {
            let found = serials(&all(&vault, &filter, limit).await);
            assert!(
                found == expected,
                "{filter:?}: {} of {}",
                found.len(),
                expected.len()
            );
        }
        asked += expected.len();
    }
    assert!(asked > 10_000, "the questions have answers");
}

#[tokio::test]
async fn a_search_shows_a_device_once_by_the_first_of_its_words_that_fits() {
    let vault = fleet().await;
    let everything = all(&vault, &Filter::default(), 500).await;
    let number = |serial: &str| serial[1..].parse::<i64>().unwrap() - 100_000;
    let strides = BTreeMap::from([("common", 1), ("commons", 2), ("rare", 900)]);
    for (search, words) in [
        ("Common", vec!["common"]),
        ("commons", vec!["commons"]),
        ("com", vec!["common"]),
        ("r", vec!["rare"]),
        ("nothing", vec![]),
    ] {
        let fits = |device: &&DeviceSummary| {
            let number = number(device.serial.as_str());
            words.iter().any(|word| number % strides[word] == 0)
        };
        let expected: Vec<DeviceSummary> = everything.iter().filter(fits).cloned().collect();
        for limit in [37, 500] {
            let filter = Filter {
                search: Some(search.to_owned()),
                ..Filter::default()
            };
            let found = serials(&all(&vault, &filter, limit).await);
            assert!(
                found == serials(&expected),
                "{search}: {} of {}",
                found.len(),
                expected.len()
            );
        }
    }
    // With another part of the question, and by the beginning of a serial number.
    let filter = Filter {
        search: Some("d1000".to_owned()),
        connection: Some("small".to_owned()),
        ..Filter::default()
    };
    let found = serials(&all(&vault, &filter, 5).await);
    let expected: Vec<String> = (1..100)
        .filter(|i| i % 7 == 0)
        .map(|i| format!("D{}", 100_000 + i))
        .collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn r20_devices_are_listed_by_how_our_lock_on_them_stands() {
    let vault = fleet().await;
    let everything = all(&vault, &Filter::default(), 500).await;
    crate::beside::run(
        &vault,
        "UPDATE devices SET lock_state = 'confirmed' WHERE serial LIKE '%7'",
    )
    .await;
    crate::beside::run(
        &vault,
        "UPDATE devices SET lock_state = 'unknown' WHERE serial LIKE '%3'",
    )
    .await;
    for (lock, ending) in [(OurLock::Confirmed, '7'), (OurLock::Unknown, '3')] {
        for connection in [None, Some("small")] {
            let filter = Filter {
                lock: Some(lock),
                connection: connection.map(str::to_owned),
                ..Filter::default()
            };
            let fits = |device: &&DeviceSummary| {
                device.serial.as_str().ends_with(ending)
                    && connection.is_none_or(|one| device.connection.as_deref() == Some(one))
            };
            let expected: Vec<DeviceSummary> = everything.iter().filter(fits).cloned().collect();
            assert!(!expected.is_empty());
            for limit in [37, 500] {
                let found = serials(&all(&vault, &filter, limit).await);
                assert!(found == serials(&expected), "{filter:?}: {}", found.len());
            }
        }
    }
    let none = Filter {
        lock: Some(OurLock::SomeoneElses),
        ..Filter::default()
    };
    assert!(all(&vault, &none, 500).await.is_empty());
}
