//! The shape of the project, kept by tests: what each crate must not know, where things live, what no file may hold.
//! Each failure names the place and the way to mend it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

mod contents;
mod documents;
mod layers;
mod places;

/// One text file of the project.
struct Source {
    /// From the project's root, with `/` between the parts.
    path: String,
    text: String,
}

impl Source {
    /// The name of the crate's folder, empty outside `crates/`.
    fn krate(&self) -> &str {
        self.path
            .strip_prefix("crates/")
            .and_then(|rest| rest.split('/').next())
            .unwrap_or("")
    }

    /// This test's own sources, which spell out what they look for.
    fn is_tidy(&self) -> bool {
        self.path.contains("/tests/it/tidy")
    }

    fn is_test_file(&self) -> bool {
        self.path.contains("/tests/")
            || self.path.contains("/benches/")
            || self.path.ends_with("/tests.rs")
    }

    /// Lines with their numbers from 1; `true` for lines of test code.
    fn lines(&self) -> impl Iterator<Item = (usize, &str, bool)> {
        let mut in_tests = self.is_test_file();
        self.text.lines().enumerate().map(move |(index, line)| {
            in_tests |= line.trim() == "#[cfg(test)]";
            (index + 1, line, in_tests)
        })
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All files under `folder` whose name ends so, in a settled order. Build output, version control, the fuzzer's corpus
/// and hidden folders are left out.
fn files(folder: &str, ending: &str) -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.')
                    && !["target", "corpus", "artifacts"].contains(&name.as_str())
                {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                let relative = path
                    .strip_prefix(&root)
                    .unwrap()
                    .to_string_lossy()
                    .replace('\\', "/");
                found.push(Source {
                    path: relative,
                    text: std::fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn rust_files() -> Vec<Source> {
    let mut all = files("crates", ".rs");
    all.extend(files("fuzz", ".rs"));
    assert!(
        all.len() > 7,
        "the tidy test does not find the sources; it looked under {}",
        root().display()
    );
    all
}

/// Fails with every finding and with what to do about it.
#[track_caller]
fn none(findings: Vec<String>, mend: &str) {
    assert!(
        findings.is_empty(),
        "{}\n\nTo mend it: {mend}\n",
        findings.join("\n")
    );
}

/// Places, as `path:line: text`, where a line satisfies the condition.
fn places(
    sources: &[Source],
    mut condition: impl FnMut(&Source, &str, bool) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (number, line, in_tests) in source.lines() {
            if condition(source, line, in_tests) {
                found.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    found
}

/// Whether `word` stands in `line` with nothing of a name directly before or after it.
fn has_word(line: &str, word: &str) -> bool {
    let of_a_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(of_a_name)
            && !line[at + word.len()..]
                .chars()
                .next()
                .is_some_and(of_a_name)
    })
}
