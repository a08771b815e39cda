//! Who may know whom.

use super::*;

/// What each crate names in its manifest, by crate folder: all kinds of dependencies, or only those of the program.
fn dependencies(with_dev: bool) -> BTreeMap<String, BTreeSet<String>> {
    fn gather(table: &toml::Table, kinds: &[&str], into: &mut BTreeSet<String>) {
        for kind in kinds {
            for (name, value) in table
                .get(*kind)
                .and_then(|v| v.as_table())
                .into_iter()
                .flatten()
            {
                let package = value
                    .get("package")
                    .and_then(|v| v.as_str())
                    .unwrap_or(name);
                into.insert(package.to_owned());
            }
        }
        for (_, target) in table
            .get("target")
            .and_then(|v| v.as_table())
            .into_iter()
            .flatten()
        {
            gather(target.as_table().unwrap(), kinds, into);
        }
    }
    let kinds: &[&str] = if with_dev {
        &["dependencies", "build-dependencies", "dev-dependencies"]
    } else {
        &["dependencies", "build-dependencies"]
    };
    files("crates", "Cargo.toml")
        .iter()
        .map(|manifest| {
            let mut names = BTreeSet::new();
            gather(&manifest.text.parse().unwrap(), kinds, &mut names);
            (manifest.krate().to_owned(), names)
        })
        .collect()
}

/// Finds the crates that name one of `banned`, save those in `allowed`.
fn named_outside(banned: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (krate, names) in dependencies(true) {
        for name in banned.iter().filter(|name| names.contains(**name)) {
            if !allowed.contains(&krate.as_str()) {
                found.push(format!("crates/{krate}/Cargo.toml names {name}"));
            }
        }
    }
    found
}

#[test]
fn activation_lock_names_no_runtime_no_network_no_database_and_no_global_randomness() {
    let banned = [
        "tokio",
        "reqwest",
        "hyper",
        "axum",
        "sqlx",
        "rusqlite",
        "rand",
        "getrandom",
        "rustls",
        "aws-lc-rs",
        "tracing",
        "time",
        "uuid",
        "tempfile",
    ];
    let names = &dependencies(true)["activation-lock"];
    none(
        banned
            .iter()
            .filter(|name| names.contains(**name))
            .map(|name| format!("activation-lock names {name}"))
            .collect(),
        "activation-lock is pure. Pass the time, the random generator or the bytes in, and do the rest in a crate above",
    );
}

#[test]
fn activation_lock_does_no_input_or_output_and_waits_for_nothing() {
    let banned = [
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::thread",
        "std::io",
        "async fn",
        ".await",
    ];
    let sources: Vec<_> = files("crates/activation-lock/src", ".rs");
    // Hashes of a fleet are worked out on every core; the threads have ended when the function returns.
    let hash = "crates/activation-lock/src/hash.rs";
    none(
        places(&sources, |source, line, in_tests| {
            let is_code = !in_tests && !line.trim_start().starts_with("//");
            let is_excepted = source.path == hash && line.contains("std::thread");
            is_code && !is_excepted && banned.iter().any(|name| line.contains(name))
        }),
        "activation-lock is pure: functions over values. Move the reading, writing or waiting to the crate that calls it",
    );
}

#[test]
fn what_is_unsafe_is_in_one_module() {
    let sources: Vec<_> = files("crates", ".rs");
    let module = "crates/activation-lock/src/hash/x86.rs";
    none(
        places(&sources, |source, line, _| {
            let code = line.split("//").next().unwrap_or_default();
            source.path != module
                && !source.path.ends_with("tidy/layers.rs")
                && ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code"]
                    .iter()
                    .any(|word| code.contains(word))
        }),
        "the one module with unsafe code hashes on x86-64, has its proof, and runs under a sanitizer. Find a safe way",
    );
}

#[test]
fn crates_depend_downwards_only() {
    let may_name: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("activation-lock", &[][..]),
        ("apple", &["activation-lock"][..]),
        ("seal", &[][..]),
        ("escrow", &["activation-lock", "seal"][..]),
        (
            "server",
            &["activation-lock", "apple", "escrow", "seal"][..],
        ),
        ("sim", &["activation-lock"][..]),
        (
            "cli",
            &[
                "activation-lock",
                "apple",
                "escrow",
                "seal",
                "server",
                "sim",
            ][..],
        ),
    ]);
    let all = dependencies(false);
    let mut found = Vec::new();
    for (krate, names) in &all {
        let Some(allowed) = may_name.get(krate.as_str()) else {
            found.push(format!(
                "crates/{krate} has no place in the map of this test"
            ));
            continue;
        };
        for name in names.iter().filter(|name| all.contains_key(*name)) {
            if !allowed.contains(&name.as_str()) {
                found.push(format!("{krate} names {name}"));
            }
        }
    }
    none(
        found,
        "see the map in ARCHITECTURE.md; what two crates share belongs in activation-lock, or in the crate above both",
    );
}

#[test]
fn apple_and_escrow_do_not_know_each_other() {
    let all = dependencies(true);
    let mut found = Vec::new();
    for (one, other) in [("apple", "escrow"), ("escrow", "apple"), ("apple", "seal")] {
        if all[one].contains(other) {
            found.push(format!("{one} names {other}"));
        }
    }
    none(
        found,
        "only server::worker sees both; their common words are in activation-lock",
    );
}

#[test]
fn crates_that_speak_sql_are_named_in_escrow_alone() {
    none(
        named_outside(
            &[
                "sqlx",
                "sqlx-core",
                "sqlx-postgres",
                "libsqlite3-sys",
                "rusqlite",
            ],
            &["escrow"],
        ),
        "add a verb to escrow and call it; tests read the database through escrow too",
    );
}

#[test]
fn sql_is_written_in_escrow_alone() {
    let verbs = ["SELECT ", "INSERT INTO ", "DELETE FROM ", "CREATE TABLE "];
    let sources = rust_files();
    none(
        places(&sources, |source, line, _| {
            !["escrow", ""].contains(&source.krate())
                && !source.is_tidy()
                && verbs.iter().any(|verb| line.contains(&format!("\"{verb}")))
        }),
        "add a verb to escrow and call it",
    );
}

#[test]
fn axum_is_named_in_server_and_sim_alone() {
    none(
        named_outside(&["axum", "axum-server", "tower-http"], &["server", "sim"]),
        "routes live in crates/server (the product) or crates/sim (the fakes)",
    );
}

#[test]
fn sim_does_not_use_apple() {
    none(
        dependencies(true)["sim"]
            .iter()
            .filter(|name| ["apple", "escrow", "seal", "server"].contains(&name.as_str()))
            .map(|name| format!("sim names {name}"))
            .collect(),
        "sim is a second, independent writing of Apple's contract: give it its own wire structs",
    );
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let found = files("crates", "Cargo.toml")
        .iter()
        .filter(|manifest| {
            let table: toml::Table = manifest.text.parse().unwrap();
            table
                .get("lints")
                .and_then(|l| l.get("workspace"))
                .and_then(|w| w.as_bool())
                != Some(true)
        })
        .map(|manifest| manifest.path.clone())
        .collect();
    none(found, "add\n[lints]\nworkspace = true");
}

#[test]
fn one_place_a_crate_builds_an_http_client() {
    let builders = [
        "Client::builder(",
        "ClientBuilder::new(",
        "reqwest::Client::new(",
        "reqwest::get(",
    ];
    let mut by_crate: BTreeMap<(String, bool), Vec<String>> = BTreeMap::new();
    for source in rust_files().iter().filter(|source| !source.is_tidy()) {
        for (number, line, in_tests) in source.lines() {
            if !line.trim_start().starts_with("//")
                && builders.iter().any(|builder| line.contains(builder))
            {
                by_crate
                    .entry((source.krate().to_owned(), in_tests))
                    .or_default()
                    .push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    none(
        by_crate
            .into_values()
            .filter(|places| places.len() > 1)
            .flatten()
            .collect(),
        "call the function of the crate that already builds one: identity, roots, time-outs, redirects and proxy are decided there",
    );
}

#[test]
fn no_verb_of_escrow_takes_the_time() {
    let mut found = Vec::new();
    for source in files("crates/escrow/src", ".rs") {
        // A verb speaks to the database, so it is async; what is not looks at values it was given.
        for (at, _) in source.text.match_indices("pub async fn ") {
            let rest = &source.text[at..];
            let signature = &rest[..rest.find(['{', ';']).unwrap_or(rest.len())];
            if has_word(signature, "now:") || has_word(signature, "now :") {
                found.push(format!(
                    "{}: {}",
                    source.path,
                    signature.lines().next().unwrap_or_default()
                ));
            }
        }
    }
    none(
        found,
        "inside a verb, read tx.now(): the Clock on SQLite, the server's time on PostgreSQL",
    );
}
