//! The description of the API: served to everybody, and kept in `docs/openapi.json` so that a change of it is read.

use std::path::PathBuf;

use serde_json::Value;

use crate::api::Client;
use crate::support::Stage;

fn kept() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json")
}

#[test]
fn the_kept_description_is_the_served_one() {
    let (path, served) = (kept(), server::description());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &served).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = kept.lines().zip(served.lines()).position(|(a, b)| a != b);
    assert!(
        kept == served,
        "docs/openapi.json is not what is served (from line {}). When the change is meant, write it anew and read what changed: \
         UPDATE=1 cargo nextest run -p server the_kept_description && git diff docs/openapi.json",
        differs.map_or_else(|| "the end".to_owned(), |line| (line + 1).to_string())
    );
}

#[tokio::test]
async fn the_description_is_served_to_everybody() {
    let stage = Stage::new().await;
    let answer = Client::new(&stage, "").get("/openapi.json").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.text(), server::description());
}

/// Everything that a `$ref` names is there, and nothing is there twice under one name with another meaning.
#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &Value, seen: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                seen.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| walk(value, seen));
            }
            Value::Array(items) => items.iter().for_each(|value| walk(value, seen)),
            _ => {}
        }
    }
    let description: Value = serde_json::from_str(&server::description()).unwrap();
    let mut seen = Vec::new();
    walk(&description, &mut seen);
    assert!(!seen.is_empty());
    for reference in seen {
        let pointer = reference.trim_start_matches('#');
        assert!(description.pointer(pointer).is_some(), "{reference}");
    }
}
