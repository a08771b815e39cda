//! Answers of the API as people read them. Unknown keys and words are left alone: the API may grow.

use activation_lock::time::Timestamp;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::voice::visible;

/// The value under a key, as one line: `-` for none, `yes` and `no`, lists with commas.
pub(crate) fn cell(object: &Value, key: &str) -> String {
    line(object.get(key).unwrap_or(&Value::Null), key)
}

fn line(value: &Value, key: &str) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => is_time(key)
            .then(|| moment(text))
            .flatten()
            .unwrap_or_else(|| visible(text, &[]).into_owned()),
        Value::Number(number) if is_time(key) => number
            .as_i64()
            .and_then(from_millis)
            .unwrap_or_else(|| number.to_string()),
        Value::Number(number) => number.to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| line(item, "")).collect();
            if items.is_empty() {
                "-".to_owned()
            } else {
                items.join(", ")
            }
        }
        Value::Object(map) => {
            let parts: Vec<String> = map
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| format!("{key}={}", line(value, key)))
                .collect();
            parts.join(" ")
        }
    }
}

fn is_time(key: &str) -> bool {
    key == "at"
        || key.ends_with("_at")
        || key == "until"
        || key == "since"
        || key.ends_with("deadline")
        || key.starts_with("not_")
}

fn moment(text: &str) -> Option<String> {
    shown(OffsetDateTime::parse(text, &Rfc3339).ok()?)
}

/// Milliseconds since 1970, as people read them.
fn from_millis(millis: i64) -> Option<String> {
    shown(OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok()?)
}

fn shown(at: OffsetDateTime) -> Option<String> {
    let form = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
    at.to_offset(time::UtcOffset::UTC).format(form).ok()
}

/// A table of `rows`, each an object; a column is its heading and its key.
pub(crate) fn table<'a>(
    columns: &[(&str, &str)],
    rows: impl IntoIterator<Item = &'a Value>,
) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(columns.iter().map(|(heading, _)| *heading));
    let mut count = 0;
    for row in rows {
        table.add_row(columns.iter().map(|(_, key)| cell(row, key)));
        count += 1;
    }
    if count == 0 {
        "none".to_owned()
    } else {
        trimmed(&table.to_string())
    }
}

/// Names and values, one a line, the values in one column.
pub(crate) fn pairs(object: &Value, columns: &[(&str, &str)]) -> String {
    let width = columns
        .iter()
        .map(|(heading, _)| heading.len())
        .max()
        .unwrap_or(0)
        + 2;
    let lines: Vec<String> = columns
        .iter()
        .filter(|(_, key)| object.get(key).is_some_and(|value| !value.is_null()))
        .map(|(heading, key)| format!("{heading:<width$}{}", cell(object, key)))
        .collect();
    lines.join("\n")
}

/// The rows of a page or a list, whatever the key they stand under.
pub(crate) fn rows(answer: &Value) -> &[Value] {
    let list = answer
        .as_array()
        .or_else(|| answer.get("items").and_then(Value::as_array))
        .or_else(|| {
            let mut lists = answer.as_object()?.values().filter_map(Value::as_array);
            lists.next()
        });
    list.map_or(&[], Vec::as_slice)
}

/// What happened, if the object says so in words.
pub(crate) fn happened(object: &Value) -> Option<String> {
    said(object, "happened")
}

/// What happened, what it means and what to do, each on its own line, if the object has these words.
pub(crate) fn words(object: &Value) -> Vec<String> {
    let to_do = said(object, "to_do").map(|to_do| format!("What to do: {to_do}"));
    let means = said(object, "means");
    happened(object)
        .into_iter()
        .chain(means)
        .chain(to_do)
        .collect()
}

/// The same in one line. That nothing is to be done is not said: nobody asked.
pub(crate) fn sentences(object: &Value) -> String {
    let words = ["happened", "means", "to_do"].map(|part| said(object, part));
    let words: Vec<String> = words.into_iter().flatten().collect();
    let told: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .filter(|words| *words != "Nothing.")
        .collect();
    told.join(" ")
}

fn said(object: &Value, part: &str) -> Option<String> {
    let words = ["explanation", "words"]
        .iter()
        .find_map(|key| object.get(key).filter(|value| value.is_object()))
        .unwrap_or(object);
    let text = words.get(part)?.as_str()?;
    Some(visible(text, &[]).into_owned())
}

/// The moment under a key, if there is one.
pub(crate) fn instant(object: &Value, key: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(object.get(key)?.as_str()?, &Rfc3339).ok()
}

/// How long before `now` a moment is: `3 minutes ago`.
pub(crate) fn age(object: &Value, key: &str, now: Timestamp) -> Option<String> {
    let at = instant(object, key)?;
    let passed = i128::from(now.0) - at.unix_timestamp_nanos().div_euclid(1_000_000);
    let minutes = passed.div_euclid(60_000);
    let (count, unit) = match minutes {
        // The clock of the server may be ahead of ours.
        ..=0 => return Some("just now".to_owned()),
        1..60 => (minutes, "minute"),
        60..1440 => (minutes / 60, "hour"),
        _ => (minutes / 1440, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    Some(format!("{count} {unit}{plural} ago"))
}

/// Without the space that the table puts before its first column and after its last.
fn trimmed(table: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let margin = table.lines().map(indent).min().unwrap_or(0);
    let lines: Vec<&str> = table
        .lines()
        .map(|line| line.get(margin..).unwrap_or_default().trim_end())
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_read_in_both_forms() {
        let object = json!({ "seen_at": 1_700_000_000_000_i64, "at": "2026-01-02T03:04:05Z", "count": 5, "ended_at": null });
        assert_eq!(cell(&object, "seen_at"), "2023-11-14 22:13:20Z");
        assert_eq!(cell(&object, "at"), "2026-01-02 03:04:05Z");
        assert_eq!(cell(&object, "count"), "5");
        assert_eq!(cell(&object, "ended_at"), "-");
        assert_eq!(cell(&object, "absent"), "-");
    }

    #[test]
    fn an_age_is_told_in_the_unit_that_fits() {
        let object = json!({ "read_at": "2026-01-02T03:04:05.000Z", "null": null, "text": "x" });
        let told = 1_767_323_045_000;
        let minute = 60_000;
        for (later, expected) in [
            (-5 * minute, "just now"),
            (0, "just now"),
            (minute - 1, "just now"),
            (minute, "1 minute ago"),
            (60 * minute - 1, "59 minutes ago"),
            (60 * minute, "1 hour ago"),
            (24 * 60 * minute - 1, "23 hours ago"),
            (48 * 60 * minute, "2 days ago"),
        ] {
            let age = age(&object, "read_at", Timestamp(told + later));
            assert_eq!(age.as_deref(), Some(expected), "{later}");
        }
        for key in ["null", "text", "absent"] {
            assert_eq!(age(&object, key, Timestamp(told)), None, "{key}");
        }
    }

    #[test]
    fn nothing_to_do_is_not_said() {
        let words = |to_do| json!({ "happened": "It did.", "means": "It is.", "to_do": to_do });
        assert_eq!(sentences(&words("Nothing.")), "It did. It is.");
        assert_eq!(
            sentences(&words("Nothing: it ends.")),
            "It did. It is. Nothing: it ends."
        );
    }

    #[test]
    fn what_to_do_is_called_so_where_it_has_a_line_of_its_own() {
        let said = json!({ "happened": "It did.", "means": "It is.", "to_do": "Nothing." });
        assert_eq!(
            words(&json!({ "explanation": said })),
            ["It did.", "It is.", "What to do: Nothing."]
        );
    }

    #[test]
    fn a_value_is_one_line_and_is_seen() {
        let object = json!({ "reason": "lost\nstate  unlocked\u{1b}[2J" });
        let line = "lost\\u{a}state  unlocked\\u{1b}[2J";
        assert_eq!(cell(&object, "reason"), line);
        assert_eq!(pairs(&object, &[("for", "reason")]), format!("for  {line}"));
    }

    #[test]
    fn a_table_begins_at_the_margin() {
        let rows = [json!({ "a": "one", "b": true }), json!({ "a": "three" })];
        assert_eq!(
            table(&[("A", "a"), ("B", "b")], &rows),
            "A      B\none    yes\nthree  -"
        );
        assert_eq!(table(&[("A", "a")], &[]), "none");
    }
}
