//! One device, as a person reads it.

use activation_lock::time::Timestamp;
use serde_json::Value;

use crate::{lock_status, show};

/// Everything of one device that a person may want to know, as it stands at `now`.
pub(super) fn of(device: &Value, now: Timestamp) -> String {
    let summary = device.get("summary").unwrap_or(device);
    let mut text = show::pairs(
        summary,
        &[
            ("serial", "serial"),
            ("organisation", "organisation"),
            ("product type", "product_type"),
            ("model", "model_name"),
            ("name", "device_name"),
            ("system", "os_version"),
            ("MDM", "connection"),
            ("code", "coverage"),
            ("why not", "coverage_reason"),
            ("window", "window"),
            ("window closes", "window_closes_at"),
            ("doubt", "suspect"),
            ("last seen", "seen_at"),
        ],
    );
    let locks = [
        device.get("organisation_lock").map(organisation_lock),
        device
            .get("apple_status")
            .map(|status| apple_status(status, device, now)),
    ];
    for lines in locks.into_iter().flatten() {
        text.push_str(&format!("\n\n{}", lines.join("\n")));
    }
    let mut section = |title: &str, key: &str, columns: &[(&str, &str)]| {
        let rows = device.get(key).map_or(&[][..], show::rows);
        if !rows.is_empty() {
            text.push_str(&format!("\n\n{title}\n{}", show::table(columns, rows)));
        }
        for fact in rows.iter().flat_map(facts) {
            text.push_str(&format!("\n{fact}"));
        }
    };
    section(
        "Codes (`lockwarden reveal` shows their texts)",
        "codes",
        &[
            ("MADE BY", "kind"),
            ("CURRENT", "current"),
            ("FROM", "origin"),
            ("DOUBT", "doubt"),
            ("FIRST SEEN", "created_at"),
            ("LAST SEEN", "seen_at"),
        ],
    );
    for (title, key) in [("Unlocks", "unlocks"), ("Locks", "locks")] {
        section(
            title,
            key,
            &[
                ("ID", "id"),
                ("STATE", "state"),
                ("ASKED BY", "requested_by"),
                ("ASKED AT", "requested_at"),
                ("ENDED AT", "ended_at"),
            ],
        );
    }
    section(
        "Servers of Apple's enrolment service that list it, or did",
        "listings",
        &[
            ("SERVER TOKEN", "server_token"),
            ("MODEL", "model"),
            ("PROFILE", "profile_status"),
            ("ASSIGNED BY", "assigned_by"),
            ("ASSIGNED AT", "assigned_at"),
            ("LAST LISTED", "last_at"),
            ("GONE", "gone_at"),
        ],
    );
    section(
        "What happened",
        "timeline",
        &[("WHEN", "at"), ("WHAT", "what"), ("DETAILS", "details")],
    );
    text
}

/// How the organisation's own lock stands, with what would strand one that is on or may be (T29).
fn organisation_lock(lock: &Value) -> Vec<String> {
    let mut lines = vec![format!(
        "The organisation's lock: {}",
        show::cell(lock, "state")
    )];
    if lock.get("evidence").is_some_and(|rests| rests != "nothing") {
        let at = lock.get("at").filter(|at| !at.is_null());
        let at = at.map(|_| format!(", {}", show::cell(lock, "at")));
        lines[0].push_str(&format!(
            " ({}{})",
            show::cell(lock, "evidence"),
            at.unwrap_or_default()
        ));
    }
    lines.push(show::sentences(lock));
    let warnings = lock.get("warnings").map_or(&[][..], show::rows);
    lines.extend(
        warnings
            .iter()
            .map(|warning| format!("warning: {}", show::sentences(warning))),
    );
    let doubt = lock.get("doubt").filter(|doubt| doubt.is_object());
    lines.extend(doubt.map(|doubt| format!("doubtful: {}", show::sentences(doubt))));
    lines
}

/// What Apple says of the lock, and how old that is.
fn apple_status(status: &Value, device: &Value, now: Timestamp) -> Vec<String> {
    let is_there = |key: &str| status.get(key).is_some_and(|value| !value.is_null());
    let aged = |key: &str| {
        let age = show::age(status, key, now).map(|age| format!(" ({age})"));
        format!("{}{}", show::cell(status, key), age.unwrap_or_default())
    };
    let mut lines = vec![if is_there("read_at") {
        format!(
            "Apple's own status: locked {}, lock type {}, read {}, so since {}",
            show::cell(status, "is_locked"),
            show::cell(status, "lock_type"),
            aged("read_at"),
            show::cell(status, "since"),
        )
    } else {
        "Apple's own status: not read".to_owned()
    }];
    if status.get("explanation").is_some_and(Value::is_object) {
        lines.push(show::sentences(status));
    }
    lines.extend(overtaken(status, device));
    if is_there("more") {
        lines.push(format!("Apple also says: {}", show::cell(status, "more")));
    }
    if let Some(problem) = status.get("problem").and_then(Value::as_str) {
        let words = lock_status::in_words(problem);
        lines.push(format!("Last asked {}: {words}.", aged("asked_at")));
    }
    if let Some(expected) = status.get("expected").filter(|one| one.is_object()) {
        lines.push(format!(
            "It should come to say {}; until {} it may be late.",
            show::cell(expected, "state"),
            show::cell(expected, "until")
        ));
    }
    if status.get("can_be_asked").is_some_and(|can| can == false) {
        lines.push(lock_status::NOBODY_TO_ASK.to_owned());
    }
    lines
}

/// That a lock was turned off or on since Apple's status was read: until it is read again it tells of before.
fn overtaken(status: &Value, device: &Value) -> Option<String> {
    let read_at = show::instant(status, "read_at")?;
    let changes = [
        ("unlock", "unlocks", &["unlocked", "probably_unlocked"][..]),
        ("lock", "locks", &["locked"]),
    ];
    let since = changes.iter().flat_map(|(what, key, states)| {
        let rows = device.get(*key).map_or(&[][..], show::rows).iter();
        let ended = rows.filter(|row| {
            let state = row.get("state").and_then(Value::as_str);
            state.is_some_and(|state| states.contains(&state))
        });
        ended.filter_map(move |row| Some((show::instant(row, "ended_at")?, *what, row)))
    });
    let (_, what, row) = since
        .filter(|(at, ..)| *at > read_at)
        .max_by_key(|(at, ..)| *at)?;
    Some(format!(
        "That was read before the {what} of {}; `lockwarden lock-status {} --fresh` asks Apple again.",
        show::cell(row, "ended_at"),
        show::cell(device.get("summary").unwrap_or(device), "serial"),
    ))
}

/// What a row says that changes what the codes of a device are worth (T28). Only lists of Apple's say such things.
fn facts(row: &Value) -> Vec<String> {
    let server = show::cell(row, "server_token");
    let is = |key: &str| row.get(key).is_some_and(|value| value == true);
    let mut facts = Vec::new();
    if is("is_replacement") {
        facts.push(format!(
            "{server}: it came in place of another device, whose codes it does not share."
        ));
    }
    if is("released_by_replacement") {
        facts.push(format!(
            "{server}: it was released because another device came in its place."
        ));
    }
    let deadline = row.get("migration_deadline");
    if deadline.is_some_and(|deadline| !deadline.is_null()) {
        facts.push(format!(
            "{server}: it is to move to another device management system until {}; that ends a lock and makes its codes \
             worthless.",
            show::cell(row, "migration_deadline")
        ));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_that_was_read_before_the_newest_unlock_or_lock_is_called_so() {
        let page = |unlocked_at: Value, locked_at: Value| {
            let device = json!({
                "summary": { "serial": "SIMPAD1" },
                "apple_status": {
                    "read_at": "2026-01-02T03:04:05.500Z",
                    "explanation": { "happened": "Apple says that a person has locked the device.", "means": "It is.", "to_do": "Nothing." },
                },
                "unlocks": [
                    { "state": "rejected", "ended_at": "2026-01-02T03:09:00.000Z" },
                    { "state": "unlocked", "ended_at": unlocked_at },
                ],
                "locks": [{ "state": "locked", "ended_at": locked_at }],
            });
            of(&device, Timestamp(0))
        };
        let before = "2026-01-02T03:04:05.499Z";
        let after = "2026-01-02T03:04:05.501Z";
        let later = "2026-01-02T03:05:00.000Z";
        let fresh = page(before.into(), Value::Null);
        assert!(!fresh.contains("That was read before"), "{fresh}");
        let told = page(after.into(), before.into());
        assert!(
            told.contains("That was read before the unlock of 2026-01-02 03:04:05Z;"),
            "{told}"
        );
        let told = page(after.into(), later.into());
        assert!(
            told.contains("That was read before the lock of 2026-01-02 03:05:00Z; `lockwarden lock-status SIMPAD1 --fresh`"),
            "{told}"
        );
    }
}
