//! What no file holds.

use std::process::Command;

use super::*;

#[test]
fn no_test_is_ignored() {
    let ignored = concat!("#[ig", "nore");
    none(
        places(&rust_files(), |_, line, _| line.contains(ignored)),
        "make it pass, delete it, or move it to scripts/long when it is only long",
    );
}

#[test]
fn nothing_is_left_for_later_in_the_sources() {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    none(
        places(&rust_files(), |_, line, _| {
            marks.iter().any(|mark| has_word(line, mark))
        }),
        "do it, or write an issue and take the mark out",
    );
}

#[test]
fn certificates_are_always_verified() {
    let doors = [
        concat!("danger_accept", "_invalid"),
        concat!(".dangerous", "()"),
        concat!("with_custom_certificate", "_verifier"),
    ];
    none(
        places(&rust_files(), |_, line, _| {
            doors.iter().any(|door| line.contains(door))
        }),
        "there is no switch to skip verification: trust a private authority through the extra CA file",
    );
}

#[test]
fn tests_wait_for_conditions_and_not_for_time() {
    // The one place a crate's tests may sleep is the loop that waits for a condition, in tests/it/support.
    let sleeps = [concat!("thread::", "sleep"), concat!("time::", "sleep")];
    none(
        places(&rust_files(), |source, line, in_tests| {
            in_tests
                && !source.path.contains("/tests/it/support")
                && sleeps.iter().any(|sleep| line.contains(sleep))
        }),
        "wait for a condition with a generous limit; the loop that polls it belongs in tests/it/support.rs",
    );
}

#[test]
fn no_path_of_one_machine_is_kept() {
    let Ok(listed) = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output()
    else {
        return;
    };
    if !listed.status.success() {
        return; // An unpacked archive has no list of tracked files.
    }
    let folders = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
        concat!("/tm", "p/"),
    ];
    let mut found = Vec::new();
    for path in String::from_utf8(listed.stdout)
        .unwrap()
        .split_terminator('\0')
    {
        if path.ends_with(".lock") || path.starts_with("fuzz/corpus/") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(root().join(path)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            // A folder of the file system begins a path: nothing of a name, a variable or an address stands before it.
            let absolute = |folder: &str| {
                line.match_indices(folder).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.}~)>*".contains(c))
                })
            };
            if folders.iter().any(|folder| absolute(folder)) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none(
        found,
        "use a path from the project's root, a temporary folder made at run time, or one of the program's documented folders",
    );
}
