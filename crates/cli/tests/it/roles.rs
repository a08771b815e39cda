//! Every command against every role: who may, and nobody else. A command that is added without a row here fails.

use std::collections::BTreeSet;

use escrow::permit::{Permission, Role};

use crate::installation::Installation;
use crate::people::Person;
use crate::support::{file, run};

/// What a command needs: permissions; or one of these.
type Needs = &'static [&'static str];
/// It works on files of this machine.
const FILES: Needs = &["files"];
/// It is about whoever signed in, or signs in.
const ONESELF: Needs = &["oneself"];

/// A command, its arguments (FILE is a file that holds a line), and what it needs.
const TABLE: &[(&str, &[&str], Needs)] = &[
    ("devices list", &[], &["read"]),
    ("devices show", &["KNOWN0000001"], &["read"]),
    (
        "devices set",
        &["KNOWN0000001", "--product-type", "iPad4,1"],
        &["edit", "read"],
    ),
    (
        "devices add-code",
        &["KNOWN0000001", "--code-file", "FILE"],
        &["edit"],
    ),
    ("devices refresh", &["KNOWN0000001"], &["refresh"]),
    (
        "devices purge",
        &["NOSUCHDEVICE", "--reason", "x"],
        &["purge"],
    ),
    (
        "reveal",
        &["KNOWN0000001", "--reason", "x"],
        &["reveal", "read"],
    ),
    (
        "export",
        &["--to", "age1x", "--out-file", "NEWFILE", "--reason", "x"],
        &["export"],
    ),
    ("unlock", &["KNOWN0000001", "--reason", "x"], &["unlock"]),
    ("unlocks show", &["none"], &["read"]),
    ("unlocks cancel", &["none"], &["unlock"]),
    ("unlocks continue", &["none"], &["unlock"]),
    (
        "lock",
        &["KNOWN0000001", "--reason", "x"],
        &["lock", "read"],
    ),
    (
        "bulk unlock",
        &["--file", "FILE", "--reason", "x", "--plan"],
        &["unlock", "read"],
    ),
    (
        "bulk lock",
        &["--file", "FILE", "--reason", "x", "--plan"],
        &["lock", "read"],
    ),
    (
        "bulk refresh",
        &["--file", "FILE", "--reason", "x", "--plan"],
        &["refresh", "read"],
    ),
    ("bulk list", &[], &["read"]),
    ("bulk show", &["none"], &["read"]),
    ("bulk start", &["none"], &["read"]),
    ("bulk watch", &["none"], &["read"]),
    ("bulk pause", &["none"], &["read"]),
    ("bulk resume", &["none"], &["read"]),
    ("bulk cancel", &["none"], &["read"]),
    ("bulk results", &["none"], &["read"]),
    ("locks list", &["KNOWN0000001"], &["read"]),
    ("locks show", &["none"], &["read"]),
    ("locks cancel", &["none"], &["lock"]),
    ("locks continue", &["none"], &["lock"]),
    ("lock-status", &["KNOWN0000001"], &["read"]),
    ("coverage", &[], &["read"]),
    (
        "mdm add",
        &[
            "x",
            "--mdm-url",
            "https://mdm.example.org",
            "--api-key-file",
            "FILE",
        ],
        &["connections"],
    ),
    ("mdm list", &[], &["read"]),
    ("mdm test", &["none"], &["connections", "read"]),
    ("mdm remove", &["none"], &["connections"]),
    (
        "push-certificate add",
        &["--certificate", "FILE"],
        &["connections"],
    ),
    ("push-certificate list", &[], &["read"]),
    ("push-certificate test", &["none"], &["connections"]),
    ("push-certificate remove", &["none"], &["connections"]),
    ("dep keypair", &[], &["connections"]),
    ("dep keys", &[], &["read"]),
    (
        "dep token import",
        &["FILE", "--name", "x"],
        &["connections"],
    ),
    ("dep token add-nanodep", &[], &["connections"]),
    ("dep token remove", &["none"], &["connections"]),
    ("dep tokens", &[], &["read"]),
    ("dep sync", &["none"], &["refresh"]),
    ("dep test", &["none"], &["connections"]),
    ("business-api set", &[], &["connections"]),
    ("business-api show", &[], &["read"]),
    ("business-api test", &[], &["connections"]),
    ("business-api remove", &[], &["connections"]),
    ("approvals list", &[], &["read"]),
    ("approvals show", &["none"], &["read"]),
    ("approvals approve", &["none"], &["approve"]),
    ("approvals refuse", &["none"], &["approve"]),
    ("approvals cancel", &["none"], &["read"]),
    ("policies list", &[], &["read"]),
    ("policies set", &["purge", "--people", "0"], &["admin"]),
    ("policies rescue", &[], FILES),
    ("emergencies list", &[], &["read"]),
    ("emergencies acknowledge", &["none"], &["approve"]),
    ("notices list", &[], &["admin"]),
    (
        "notices add-webhook",
        &["x", "--webhook-url", "http://127.0.0.1:9/"],
        &["admin"],
    ),
    (
        "notices add-mail",
        &[
            "x",
            "--to",
            "zoe@example.org",
            "--host",
            "localhost",
            "--from",
            "x@example.org",
        ],
        &["admin"],
    ),
    ("notices test", &["none"], &["admin"]),
    ("notices remove", &["none"], &["admin"]),
    ("notices rotate-secret", &["none"], &["admin"]),
    ("people list", &[], &["admin"]),
    ("people show", &["none"], &["admin"]),
    ("people invite", &["zoe", "--name", "x"], &["admin"]),
    ("people roles", &["none", "viewer"], &["admin"]),
    ("people reset", &["none"], &["admin"]),
    ("people disable", &["none"], &["admin"]),
    ("people enable", &["none"], &["admin"]),
    ("people sessions", &["none"], &["admin"]),
    ("people end-sessions", &["none"], &["admin"]),
    ("people rescue", &[], FILES),
    ("token create", &["x", "--scope", "read"], &["admin"]),
    ("token list", &[], &["admin"]),
    ("token revoke", &["none"], &["admin"]),
    ("organisations list", &[], &["admin"]),
    ("organisations create", &["Example School"], &["admin"]),
    (
        "organisations set",
        &["Example School", "--user-lock", "leave"],
        &["admin"],
    ),
    ("audit list", &[], &["audit"]),
    ("audit export", &[], &["audit"]),
    ("audit verify", &[], FILES),
    ("audit retain", &[], FILES),
    ("audit public-key", &[], FILES),
    ("key status", &[], &["admin"]),
    ("key rotate", &[], &["admin"]),
    ("key verify", &[], &["admin"]),
    ("key destroy", &["none"], &["admin"]),
    ("key recovery-check", &[], FILES),
    ("key rewrap", &[], FILES),
    ("key generate", &[], FILES),
    ("key wrap", &[], FILES),
    ("backup make", &["--out-file", "NEWFILE"], &["admin"]),
    ("backup list", &[], &["admin"]),
    ("backup forget", &["none"], &["admin"]),
    ("backup verify", &[], FILES),
    ("restore", &[], FILES),
    ("join", &[], ONESELF),
    ("sign-in", &[], ONESELF),
    ("sign-out", &[], ONESELF),
    ("second-factor", &[], ONESELF),
    ("password", &[], ONESELF),
    ("sessions list", &[], ONESELF),
    ("sessions end", &[], ONESELF),
    ("serve", &[], FILES),
    ("worker", &[], FILES),
    ("init", &[], FILES),
    ("doctor", &[], FILES),
    ("db status", &[], FILES),
    ("db migrate", &[], FILES),
    ("db copy", &[], FILES),
    ("code generate", &[], FILES),
    ("code show", &[], FILES),
    ("apple unlock", &[], FILES),
    ("apple lock", &[], FILES),
    ("apple lock-status", &[], FILES),
    ("bench", &[], FILES),
    ("sim apple", &[], FILES),
];

/// The names that a help text lists as commands.
fn listed(help: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut in_list = false;
    for line in help.lines() {
        if line.starts_with("Commands") {
            in_list = true;
        } else if line.is_empty() {
            in_list = false;
        } else if in_list && line.starts_with("  ") && !line.starts_with("   ") {
            names.extend(line.split_whitespace().next().map(str::to_owned));
        }
    }
    names
}

fn leaves(of: &[String]) -> BTreeSet<String> {
    let mut arguments = of.to_vec();
    arguments.push("--help".to_owned());
    let under = listed(&run(&arguments, "").stdout);
    if under.is_empty() {
        return BTreeSet::from([of.join(" ")]);
    }
    under
        .into_iter()
        .flat_map(|name| leaves(&[of, &[name]].concat()))
        .collect()
}

#[test]
fn every_command_has_a_row() {
    let known: BTreeSet<String> = TABLE.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(known.len(), TABLE.len(), "a command stands there twice");
    assert_eq!(leaves(&[]), known);
}

#[test]
fn every_command_lets_in_the_roles_that_it_says_and_no_other() {
    let place = Installation::new();
    let server = place.serve();
    let zoe = Person::first(&place, &server);
    zoe.ok(
        &[
            "devices",
            "set",
            "KNOWN0000001",
            "--product-type",
            "iPad4,1",
        ],
        "",
    );
    let line = file(
        &place.path("."),
        "a-line",
        "000H4-0R40M-30F2-0918-5HR3-8F17\n",
    );
    for role in Role::ALL {
        let login = format!("only-{}", role.as_str());
        let person = Person::another(
            &zoe,
            &server,
            &login,
            &["--all-organisations", role.as_str()],
        );
        for (name, arguments, needs) in TABLE {
            let is_local = *needs == FILES || *needs == ONESELF;
            // What reads files in a form of their own is asked for in the table of routes.
            if is_local || needs_a_file_of_its_own(name) {
                continue;
            }
            let needed: Vec<_> = Permission::ALL
                .iter()
                .filter(|one| needs.contains(&one.as_str()))
                .collect();
            assert_eq!(
                needed.len(),
                needs.len(),
                "{name}: a permission is misspelt"
            );
            let may = needed.iter().all(|one| role.permissions().allow(**one));
            let new = place.path(&format!("new-{login}"));
            let mut full: Vec<&str> = name.split(' ').collect();
            full.extend(arguments.iter().map(|argument| match *argument {
                "FILE" => line.to_str().unwrap(),
                "NEWFILE" => new.to_str().unwrap(),
                other => other,
            }));
            let done = person.run(&full, "");
            let is_refused = done.stderr.contains("does not have the permission `");
            assert_eq!(
                is_refused,
                !may,
                "{} {name}: {}",
                role.as_str(),
                done.stderr
            );
            assert_ne!(done.status, 2, "{name}: {}", done.stderr);
            assert!(!is_refused || done.status == 1, "{name}: {}", done.stderr);
        }
    }
}

fn needs_a_file_of_its_own(name: &str) -> bool {
    [
        "push-certificate add",
        "dep token import",
        "dep token add-nanodep",
        "business-api set",
    ]
    .contains(&name)
}
