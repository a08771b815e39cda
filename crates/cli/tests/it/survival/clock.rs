//! A machine whose clock is wrong.

use std::path::PathBuf;

use super::*;

/// What makes a program see another time than the machine's, at once whenever the file changes.
pub(super) struct WrongClock {
    library: PathBuf,
    file: PathBuf,
}

impl WrongClock {
    pub(super) fn new(place: &Installation) -> Self {
        let folders = std::fs::read_dir("/usr/lib").unwrap();
        let library = folders
            .map(|folder| folder.unwrap().path().join("faketime/libfaketime.so.1"))
            .find(|path| path.exists());
        let clock = Self {
            library: library.expect("Debian's package faketime is installed"),
            file: place.path("clock"),
        };
        clock.set("+0");
        clock
    }

    /// So far off, as `+0`, `-24h`.
    pub(super) fn set(&self, off: &str) {
        std::fs::write(&self.file, off).unwrap();
    }

    pub(super) fn on(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

#[test]
fn a_clock_that_is_set_back_a_day_is_noticed_and_turns_no_order_around() {
    let mut place = Installation::new();
    let clock = WrongClock::new(&place);
    let mut under = Command::new(binary());
    clock.on(&mut under);
    let server = place.serve_under(under);
    let first = place.device(Kind::ALL[0]);
    enrol(&place, &first);
    place.wait_for_code(&server, &first);
    assert_eq!(
        found(&place, "clock", |doctor| clock.on(doctor))[0]["verdict"],
        "ok"
    );
    clock.set("-24h");
    wait_for("the log to say so", || {
        place.log().contains("clock is off").then_some(())
    });
    let metrics = place.get(&server, "/metrics");
    let behind = metrics
        .lines()
        .find_map(|line| line.strip_prefix("lockwarden_clock_behind_seconds{} "))
        .unwrap();
    let behind: f64 = behind.parse().unwrap();
    assert!((80_000.0..90_000.0).contains(&behind), "{behind}");
    assert_eq!(
        found(&place, "clock", |doctor| clock.on(doctor))[0]["verdict"],
        "fail"
    );
    // It keeps what comes, and what comes later is later.
    let second = place.device(Kind::ALL[1]);
    enrol(&place, &second);
    place.wait_for_code(&server, &second);
    assert!(is_ready(&place, &server));
    assert_eq!(server.stop(), Some(0));
    // Nor does one that starts with it forget the time.
    let mut under = Command::new(binary());
    clock.on(&mut under);
    let server = place.serve_under(under);
    wait_for("the log to say so again", || {
        (place.log().matches("clock is off").count() == 2).then_some(())
    });
    let third = place.device(Kind::ALL[2]);
    enrol(&place, &third);
    place.wait_for_code(&server, &third);
    clock.set("+0");
    wait_for("the log to say that it is right", || {
        place.log().contains("clock is right again").then_some(())
    });
    assert_eq!(
        found(&place, "clock", |doctor| clock.on(doctor))[0]["verdict"],
        "ok"
    );
    let listed = place.ok(&server, &["audit", "list", "--limit", "1000"]);
    // Newest first, as they were written.
    let moments: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["at"].as_str().unwrap())
        .collect();
    assert!(moments.len() > 3);
    assert!(moments.iter().rev().is_sorted(), "{moments:?}");
    assert_eq!(server.stop(), Some(0));
}
