//! Which verbs ran on which engine, where a test run wants to know (`scripts/test`). In a build for use there is nothing of this.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The variable that names the folder in which each process notes its verbs.
const FOLDER: &str = "LOCKWARDEN_VERBS";

/// A verb is about to run.
pub(super) fn note(verb: &'static str, is_shared: bool) {
    static NOTED: Mutex<BTreeSet<(&str, bool)>> = Mutex::new(BTreeSet::new());
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !noted.contains(&(verb, is_shared)) {
        let engine = if is_shared { "postgres" } else { "sqlite" };
        let path = Path::new(&folder).join(std::process::id().to_string());
        let file = OpenOptions::new().append(true).create(true).open(path);
        let written = file.and_then(|mut file| writeln!(file, "{engine} {verb}"));
        // Where a test takes the room to write away, a verb that no other test runs will be missed.
        if written.is_ok() {
            noted.insert((verb, is_shared));
        }
    }
}
