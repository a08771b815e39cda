//! Every verb has a case on both engines: compares the verbs in the sources with those that the tests have noted, once `scripts/test` has
//! run them all and says in `LOCKWARDEN_VERBS_NOTED` where the notes are.

use std::collections::BTreeSet;
use std::path::Path;

use crate::texts::sources;

/// Verbs that only a database in a file has, or a vault that is older than keys of its own.
const WITHOUT: &[&str] = &[
    "audit::free_lease",
    "commands::free_leases",
    "duties::free",
    "operations::lease::free_leases_of_earlier_incarnations",
    "backups::settle",
    "keys::take_over",
];

/// A verb in the sources.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Verb {
    module: String,
    /// The function whose closure it is.
    function: String,
    /// The function that is handed over in a closure's place.
    handed: Option<String>,
}

impl Verb {
    fn name(&self) -> String {
        let function = self.handed.as_ref().unwrap_or(&self.function);
        format!("{}::{function}", self.module)
    }

    /// Whether a note, the type of a closure or function, is of this verb.
    fn is_noted_as(&self, note: &str) -> bool {
        if let Some(handed) = &self.handed {
            return note.ends_with(&format!("::{handed}"));
        }
        let module = match self.module.as_str() {
            "lib" => "escrow::".to_owned(),
            module => format!("escrow::{module}::"),
        };
        let of = |end: &str| note.contains(&format!("::{}{end}", self.function));
        note.contains(&module) && note.ends_with("{{closure}}") && (of("::{{") || of("<"))
    }
}

/// What is handed to the database in the sources.
fn verbs() -> BTreeSet<Verb> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let mut verbs = BTreeSet::new();
    for path in paths {
        let name = path.strip_prefix(&root).unwrap().with_extension("");
        let module = name.to_string_lossy().replace('/', "::");
        if module.contains("tests") {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code = source.lines().filter(|line| !line.trim().starts_with("//"));
        let code = code
            .map(|line| line.trim_start().to_owned() + "\n")
            .collect::<String>();
        let code = code.replace("db\n.", "db.");
        for (at, call) in code
            .match_indices("db.write(")
            .chain(code.match_indices("db.read("))
        {
            let before = &code[..at];
            let begin = before.rfind("fn ").unwrap() + 3;
            let function = before[begin..].split(['(', '<']).next().unwrap();
            let mut given = code[at + call.len()..].trim_start();
            if call == "db.write(" {
                given = given.split_once(',').unwrap().1.trim_start();
            }
            let handed = given.split([')', ',']).next().unwrap().trim();
            let handed = (!given.starts_with("async")).then(|| handed.rsplit("::").next().unwrap());
            verbs.insert(Verb {
                module: module.clone(),
                function: function.to_owned(),
                handed: handed.map(str::to_owned),
            });
        }
    }
    verbs
}

/// What the tests have noted, each line an engine and the type of a closure or function.
fn noted(folder: &Path) -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(folder, &mut files);
    let texts = files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap());
    let texts: Vec<String> = texts.collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    lines.map(str::to_owned).collect()
}

#[test]
fn every_verb_has_a_case_on_both_engines() {
    let verbs = verbs();
    assert!(verbs.len() > 150, "{} verbs were found", verbs.len());
    for name in WITHOUT {
        assert!(
            verbs.iter().any(|verb| verb.name() == *name),
            "{name} is none any more"
        );
    }
    let Some(folder) = std::env::var_os("LOCKWARDEN_VERBS_NOTED") else {
        return;
    };
    let noted = noted(Path::new(&folder));
    let mut wrong = Vec::new();
    for verb in &verbs {
        let ran = |engine: &str| {
            let mut notes = noted.iter().filter_map(|note| note.strip_prefix(engine));
            notes.any(|note| verb.is_noted_as(note))
        };
        let name = verb.name();
        let is_excused = WITHOUT.contains(&name.as_str());
        match ran("sqlite ") && ran("postgres ") {
            true if is_excused => {
                wrong.push(format!("{name} has a case by now: take it off the list"))
            }
            false if !is_excused => wrong.push(format!(
                "no test runs {name} on both engines: give it a case"
            )),
            _ => {}
        }
    }
    assert!(
        wrong.is_empty(),
        "{} notes\n{}",
        noted.len(),
        wrong.join("\n")
    );
}
