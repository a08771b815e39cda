//! What tests and documents must name.

use super::*;

/// The names of all functions in test code.
fn test_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in rust_files() {
        for (_, line, in_tests) in source.lines() {
            let line = line.trim().trim_start_matches("async ");
            if let Some(rest) = line.strip_prefix("fn ").filter(|_| in_tests) {
                names.insert(rest.split(['(', '<']).next().unwrap_or_default().to_owned());
            }
        }
    }
    names
}

/// The marks (`r12`, `t17`) that no test's name holds.
fn unnamed(marks: impl IntoIterator<Item = String>) -> Vec<String> {
    let names = test_names();
    marks
        .into_iter()
        .filter(|mark| {
            !names
                .iter()
                .any(|name| name.split('_').any(|part| part == mark))
        })
        .map(|mark| format!("no test is named after {mark}"))
        .collect()
}

#[test]
fn each_rule_has_a_test_that_names_it() {
    let rules = (1..=25).map(|n| format!("r{n}"));
    none(
        unnamed(rules),
        "write the test that fails when the rule is broken, and begin its name with the rule's number",
    );
}

#[test]
fn each_scenario_has_a_test_that_names_it() {
    let scenarios = (1..=34).map(|n| format!("t{n}"));
    none(
        unnamed(scenarios),
        "write the scenario of the contract sheet as a test, and begin its name with its number",
    );
}

/// `table.column` of each column that the SQLite migrations make.
fn columns() -> BTreeSet<String> {
    let mut columns = BTreeSet::new();
    for migration in files("crates/escrow/migrations/sqlite", ".sql") {
        let sql: String = migration
            .text
            .lines()
            .map(|line| line.split("--").next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join(" ");
        for statement in sql.split(';') {
            let words: Vec<&str> = statement.split_whitespace().collect();
            let upper = words.join(" ").to_uppercase();
            if upper.starts_with("CREATE TABLE") || upper.starts_with("CREATE TEMP") {
                let (head, body) = statement.split_once('(').unwrap();
                let table = head.split_whitespace().next_back().unwrap();
                for item in top_level_items(body) {
                    let first = item.split([' ', '(']).next().unwrap_or_default().to_owned();
                    let constraint = ["PRIMARY", "UNIQUE", "FOREIGN", "CHECK", "CONSTRAINT", ""];
                    if !constraint.contains(&first.to_uppercase().as_str()) {
                        columns.insert(format!("{table}.{}", first.trim_matches('"')));
                    }
                }
            } else if upper.starts_with("ALTER TABLE") && upper.contains(" ADD ") {
                let after = words
                    .iter()
                    .position(|word| word.eq_ignore_ascii_case("ADD"))
                    .unwrap()
                    + 1;
                let skip = usize::from(words[after].eq_ignore_ascii_case("COLUMN"));
                columns.insert(format!(
                    "{}.{}",
                    words[2],
                    words[after + skip].trim_matches('"')
                ));
            }
        }
    }
    columns
}

/// Splits the body of a `CREATE TABLE`, from after its opening parenthesis, at the commas that stand in no further one.
fn top_level_items(body: &str) -> Vec<String> {
    let (mut items, mut depth) = (vec![String::new()], 0);
    for c in body.chars() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => break,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                items.push(String::new());
                continue;
            }
            _ => {}
        }
        items.last_mut().unwrap().push(c);
    }
    items
        .iter()
        .map(|item| item.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
fn each_column_is_in_the_data_model() {
    let columns = columns();
    assert!(
        columns.len() > 20,
        "the tidy test found only {} columns in crates/escrow/migrations/sqlite",
        columns.len()
    );
    let documented = documented_columns();
    let missing = columns
        .difference(&documented)
        .map(|column| format!("{column} is in a migration and not in docs/DATA_MODEL.md"));
    let stale = documented
        .difference(&columns)
        .map(|column| format!("{column} is in docs/DATA_MODEL.md and in no migration"));
    none(
        missing.chain(stale).collect(),
        "under the heading of the table, one row a column: \
         | `column` | what it holds | who writes it and when | mutable or not |",
    );
}

/// `table.column` of each row of docs/DATA_MODEL.md: the names in backticks in a row's first cell, in the table that the
/// heading above names in backticks. A name may also say its table itself.
fn documented_columns() -> BTreeSet<String> {
    let model = std::fs::read_to_string(root().join("docs/DATA_MODEL.md")).unwrap_or_default();
    let mut documented = BTreeSet::new();
    let mut table = None;
    for line in model.lines() {
        if line.starts_with('#') {
            table = in_backticks(line).next();
        } else if let Some(row) = line.trim().strip_prefix('|') {
            for name in in_backticks(row.split('|').next().unwrap_or_default()) {
                match table {
                    _ if name.contains('.') => documented.insert(name.to_owned()),
                    Some(table) => documented.insert(format!("{table}.{name}")),
                    None => false,
                };
            }
        }
    }
    documented
}

fn in_backticks(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn what_apple_calls_an_api_account_has_no_other_name() {
    let pages = files(".", ".md").into_iter().chain(files("docs", ".json"));
    let pages = pages.filter(|page| page.text.to_lowercase().contains("business account"));
    none(
        pages.map(|page| page.path).collect(),
        "write \"API account\", as the glossary does; only the command is called `business-api`",
    );
}
