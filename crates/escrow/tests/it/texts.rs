//! Both engines take every SQL text, and have the same tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sim::Postgres;
use sim::postgres::Keeping;
use sqlx::error::DatabaseError;
use sqlx::{AssertSqlSafe, Executor as _, SqlSafeStr as _};

use crate::beside::Beside;
use crate::support::Vault;

/// What speaks to one engine alone, and what is put together in another way: the exchange of keys runs all of its own.
const LEFT_OUT: [&str; 8] = [
    "db.rs",
    "db/engine",
    "db/settings.rs",
    "db/statistics.rs",
    "db/copy.rs",
    "db/lane/news.rs",
    "keys/cells.rs",
    "tests",
];

/// A word of the source: a text, or something else.
#[derive(Clone, PartialEq)]
enum Word {
    Text(String),
    Other(String),
}

/// The words of a source, without its comments.
fn words(source: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if rest.starts_with("'\"'") || rest.starts_with("b'\"'") {
            rest = rest.split_once("\"'").map_or("", |(_, rest)| rest);
        } else if first == '"' {
            let (text, after) = text(&rest[1..]);
            words.push(Word::Text(text));
            rest = after;
        } else if first.is_whitespace() {
            rest = rest.trim_start();
        } else {
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            let end = rest
                .find(|c| !is_name(c))
                .unwrap_or(rest.len())
                .max(first.len_utf8());
            words.push(Word::Other(rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
    words
}

/// A text up to its closing mark, and what comes after.
fn text(source: &str) -> (String, &str) {
    let mut text = String::new();
    let mut rest = source;
    loop {
        let (before, mark) = rest.split_at(rest.find(['"', '\\']).unwrap());
        text.push_str(before);
        if let Some(after) = mark.strip_prefix('"') {
            return (text, after);
        }
        let escaped = mark[1..].chars().next().unwrap();
        rest = &mark[1 + escaped.len_utf8()..];
        match escaped {
            '\n' => rest = rest.trim_start(),
            'n' => text.push('\n'),
            other => text.push(other),
        }
    }
}

/// The files under a folder.
pub(crate) fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Every SQL text of the vault, put together where a macro does so, with where it is from.
fn texts() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let mut texts = BTreeMap::new();
    let mut macros: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    // Twice, for a file may put its texts together with what another defines.
    for path in paths.iter().chain(&paths) {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        if LEFT_OUT.iter().any(|of| name.contains(of)) {
            continue;
        }
        let source = std::fs::read_to_string(path).unwrap();
        let words = words(source.split("#[cfg(test)]\nmod tests {").next().unwrap());
        let is = |at: usize, other: &str| words.get(at) == Some(&Word::Other(other.to_owned()));
        let mut at = 0;
        while at < words.len() {
            if is(at, "macro_rules") {
                let Word::Other(made) = words[at + 2].clone() else {
                    unreachable!()
                };
                let mut depth = 0;
                let closes = |at: &usize| {
                    depth += i32::from(is(*at, "{")) - i32::from(is(*at, "}"));
                    depth == 0
                };
                let end = (at + 3..words.len()).find(closes).unwrap();
                let begin = (at..end).find(|&at| is(at, "concat"));
                at = end;
                let Some(begin) = begin else { continue };
                let mut parts = Vec::new();
                let mut place = begin;
                while place < end {
                    match &words[place] {
                        Word::Text(text) => parts.push(Some(text.clone())),
                        Word::Other(word) if word == "$" && !is(place + 1, "(") => parts.push(None),
                        Word::Other(_) => {}
                    }
                    place += 1;
                }
                macros.insert(made, parts);
                continue;
            }
            let called = match &words[at] {
                Word::Other(word) if is(at + 1, "!") => macros.get(word),
                _ => None,
            };
            if let (Some(parts), Some(Word::Text(given))) = (called, words.get(at + 3)) {
                let mut whole = String::new();
                for part in parts {
                    whole.push_str(part.as_deref().unwrap_or(given));
                }
                texts.insert(whole, name.clone());
                at += 4;
                continue;
            }
            if let Word::Text(text) = &words[at]
                && ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "]
                    .iter()
                    .any(|begin| text.starts_with(begin))
            {
                texts.insert(text.clone(), name.clone());
            }
            at += 1;
        }
    }
    texts
}

#[tokio::test]
async fn every_sql_text_is_understood_by_both_engines() {
    let texts = texts();
    assert!(texts.len() > 300, "{} texts were found", texts.len());
    let server = Postgres::start(Keeping::Unsynced).unwrap();
    let address = server.create("vault").unwrap();
    let (sqlite, postgres) = (Vault::in_a_file().await, Vault::on(&address).await);
    let mut beside = Beside::of_file(sqlite.path()).await;
    let mut other = Beside::of_server(&address).await;
    let mut wrong = not_understood(&mut beside, &texts).await;
    wrong.extend(not_understood(&mut other, &texts).await);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    drop((sqlite, postgres));
}

/// The texts that an engine does not take, and why.
async fn not_understood(beside: &mut Beside, texts: &BTreeMap<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (text, place) in texts {
        let error = match beside {
            Beside::Sqlite(connection) => connection.prepare(text).err().map(|e| e.to_string()),
            Beside::Postgres(connection) => {
                let sql = AssertSqlSafe(text.clone()).into_sql_str();
                let error = connection.prepare(sql).await.err();
                // What a parameter is, is told with its value, and not here.
                let is_untold = |error: &sqlx::Error| {
                    let code = error.as_database_error().and_then(DatabaseError::code);
                    matches!(code.as_deref(), Some("42P08" | "42P18"))
                };
                error.filter(|e| !is_untold(e)).map(|e| e.to_string())
            }
        };
        wrong.extend(error.map(|error| format!("{place}: {error}\n  {text}")));
    }
    wrong
}

/// The schemas from which PostgreSQL is spoken to.
const POSTGRES: i64 = 12;

/// A program that is a schema behind goes on while replicas are exchanged one by one: all that it asks is still understood.
///
/// What a program asks is kept as `tests/data/texts-NNNN.json` before the next change of the schema: `UPDATE=1` writes the file.
#[tokio::test]
async fn the_texts_of_the_schema_before_are_understood_by_this_one() {
    let server = Postgres::start(Keeping::Unsynced).unwrap();
    let address = server.create("vault").unwrap();
    let (sqlite, postgres) = (Vault::in_a_file().await, Vault::on(&address).await);
    let mut beside = Beside::of_file(sqlite.path()).await;
    let mut other = Beside::of_server(&address).await;
    let number = "SELECT CAST(schema_version AS TEXT) FROM meta UNION ALL SELECT CAST(oldest_compatible AS TEXT) FROM meta";
    let numbers = beside.texts(number).await;
    let numbers: Vec<i64> = numbers.iter().map(|text| text.parse().unwrap()).collect();
    let [schema, oldest] = numbers[..] else {
        panic!("{numbers:?}")
    };
    let file = |schema: i64| {
        let name = format!("tests/data/texts-{schema:04}.json");
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    };
    if std::env::var_os("UPDATE").is_some() {
        let kept = serde_json::to_string_pretty(&texts()).unwrap();
        std::fs::write(file(schema), kept + "\n").unwrap();
    }
    for before in oldest..schema {
        let kept = std::fs::read_to_string(file(before)).unwrap_or_else(|error| {
            panic!(
                "{}: {error}: keep the texts before a migration",
                file(before).display()
            )
        });
        let texts: BTreeMap<String, String> = serde_json::from_str(&kept).unwrap();
        assert!(texts.len() > 250, "{} texts were kept", texts.len());
        let mut wrong = not_understood(&mut beside, &texts).await;
        if before >= POSTGRES {
            wrong.extend(not_understood(&mut other, &texts).await);
        }
        assert!(wrong.is_empty(), "schema {before}: {}", wrong.join("\n"));
    }
    drop((sqlite, postgres));
}

#[tokio::test]
async fn both_engines_have_the_same_columns_and_indexes() {
    let server = Postgres::start(Keeping::Unsynced).unwrap();
    let address = server.create("vault").unwrap();
    let (sqlite, postgres) = (Vault::in_a_file().await, Vault::on(&address).await);
    let mut beside = Beside::of_file(sqlite.path()).await;
    let mut other = Beside::of_server(&address).await;
    let set = |found: Vec<String>| found.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(set(beside.columns().await), set(other.columns().await));
    let kinds = "SELECT tables.name || '.' || columns.name || ' ' || columns.type || ' ' || columns.\"notnull\" FROM \
        sqlite_schema AS tables, pragma_table_info(tables.name) AS columns WHERE tables.type = 'table' \
        AND tables.name NOT LIKE 'sqlite%'";
    let kinds = beside.texts(kinds).await;
    let theirs = "SELECT table_name || '.' || column_name || ' ' || CASE data_type WHEN 'bigint' THEN 'INTEGER' \
        WHEN 'text' THEN 'TEXT' WHEN 'bytea' THEN 'BLOB' WHEN 'double precision' THEN 'REAL' ELSE data_type END || ' ' || \
        CASE is_nullable WHEN 'NO' THEN 1 ELSE 0 END FROM information_schema.columns \
        WHERE table_schema = current_schema()";
    let theirs = set(other.texts(theirs).await);
    // SQLite has columns of a key that are not said to be there always, and are.
    let ours = set(kinds);
    let mut differ: Vec<&String> = ours.difference(&theirs).collect();
    differ.retain(|kind| !theirs.contains(&kind.replace(" 0", " 1")));
    assert!(differ.is_empty(), "{differ:?}");
    let indexes = "SELECT indexes.tbl_name || '.' || indexes.name || CASE WHEN indexes.sql LIKE 'CREATE UNIQUE%' THEN ' unique' \
        ELSE '' END || CASE WHEN indexes.sql LIKE '% WHERE %' THEN ' partial' ELSE '' END FROM sqlite_schema AS indexes \
        WHERE indexes.type = 'index' AND indexes.sql IS NOT NULL";
    let theirs = "SELECT tablename || '.' || indexname || CASE WHEN indexdef LIKE 'CREATE UNIQUE%' THEN ' unique' ELSE '' END || \
        CASE WHEN indexdef LIKE '% WHERE %' THEN ' partial' ELSE '' END FROM pg_indexes \
        WHERE schemaname = current_schema() AND indexname NOT LIKE '%\\_pkey' AND indexname NOT LIKE '%\\_key'";
    let flat = |found: Vec<String>| set(found.iter().map(|one| one.replace('\n', " ")).collect());
    let ours = beside
        .texts(&indexes.replace(
            "indexes.sql LIKE '% WHERE %'",
            "indexes.sql LIKE '%WHERE %'",
        ))
        .await;
    assert_eq!(flat(ours), flat(other.texts(theirs).await));
    let not_by_bytes = "SELECT table_name || '.' || column_name FROM information_schema.columns \
        WHERE table_schema = current_schema() AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'";
    assert_eq!(other.texts(not_by_bytes).await, Vec::<String>::new());
    drop((sqlite, postgres));
}
