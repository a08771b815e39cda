//! Where things live, and how large they grow.

use super::*;

#[test]
fn no_file_is_called_mod_rs() {
    none(
        rust_files()
            .into_iter()
            .map(|source| source.path)
            .filter(|path| path.ends_with("/mod.rs"))
            .collect(),
        "rename x/mod.rs to x.rs beside the folder x/; a test binary's shared code is a module declared in tests/it/main.rs",
    );
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    let empty_names = [
        "utils", "util", "common", "helpers", "helper", "models", "misc",
    ];
    let mut found = Vec::new();
    for source in rust_files() {
        let parts = source.path.trim_end_matches(".rs").split('/');
        if parts.into_iter().any(|part| empty_names.contains(&part)) {
            found.push(source.path.clone());
        }
        for (number, line, _) in source.lines() {
            let declared = line
                .trim()
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub ")
                .strip_prefix("mod ");
            let name = declared.and_then(|rest| rest.split([';', ' ', '{']).next());
            if name.is_some_and(|name| empty_names.contains(&name)) {
                found.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    none(found, "name it after the noun it is about");
}

#[test]
fn each_crate_has_one_integration_test_binary() {
    let mut found = Vec::new();
    for source in files("crates", ".rs") {
        let Some((_, inside)) = source.path.split_once("/tests/") else {
            continue;
        };
        if source.path.matches("/tests/").count() > 1 || source.path.contains("/src/") {
            continue;
        }
        let own_binary = !inside.contains('/') || inside.ends_with("/main.rs");
        if own_binary && inside != "it/main.rs" {
            found.push(source.path.clone());
        }
    }
    for manifest in files("crates", "Cargo.toml") {
        if manifest.text.contains("[[test]]") {
            found.push(format!("{}: [[test]]", manifest.path));
        }
    }
    none(
        found,
        "make it a module of tests/it/main.rs: every further binary is linked anew with everything in it",
    );
}

#[test]
fn no_file_is_longer_than_800_lines() {
    none(
        rust_files()
            .iter()
            .map(|source| (source.text.lines().count(), source))
            .filter(|(lines, _)| *lines > 800)
            .map(|(lines, source)| format!("{}: {lines} lines", source.path))
            .collect(),
        "split it along a noun: x.rs keeps what callers see, x/noun.rs takes the part",
    );
}
