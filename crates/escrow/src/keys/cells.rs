//! Every sealed column of the database: what is gone through when keys are exchanged or looked after.

use crate::business_apis::KEY as BUSINESS_KEY;
use crate::codes::{CODE, REPORTED_CODE};
use crate::connections::{API_KEY, HOOK_SECRET, PREVIOUS_HOOK_SECRET};
use crate::notices::{CHANNEL_SECRET, CHANNEL_TARGET, PREVIOUS_CHANNEL_SECRET};
use crate::people::credentials::SECOND_FACTOR;
use crate::push_certificates::PUSH_CERTIFICATE;
use crate::record::HELD;
use crate::server_tokens::{KEY as TOKEN_KEY, TOKEN};

/// A sealed column.
pub(super) struct Cells {
    pub(super) table: &'static str,
    pub(super) column: &'static str,
    /// The kind that its cells are bound to.
    pub(super) kind: &'static str,
    /// Reads a page: `$1` and `$2` are the place and row after which it begins, `$3` how many.
    pub(super) page: &'static str,
    /// Puts a cell (`$4`) into the row (`$1`, `$2`) that holds another (`$3`).
    pub(super) put: &'static str,
}

macro_rules! cells {
    ($($table:literal $column:literal: $kind:expr, at $place:literal $row:literal;)+) => {
        &[$(Cells {
            table: $table,
            column: $column,
            kind: $kind,
            page: concat!(
                "SELECT ", $place, " AS place, ", $row, " AS row_id, ", $column, " AS cell FROM ", $table,
                " WHERE ", $column, " IS NOT NULL AND (", $place, ", ", $row, ") > ($1, $2) ORDER BY 1, 2 LIMIT $3"
            ),
            put: concat!(
                "UPDATE ", $table, " SET ", $column, " = $4 WHERE ", $place, " = $1 AND ", $row, " = $2 AND ", $column, " = $3"
            ),
        }),+]
    };
}

/// All of them. A column that is missing here would be lost with its key: a test compares them with the migrations.
pub(super) const CELLS: &[Cells] = cells! {
    "codes" "cell": CODE, at "organisation" "id";
    "codes" "reported_cell": REPORTED_CODE, at "organisation" "id";
    "held_answers" "cell": HELD, at "organisation" "id";
    "connections" "api_key": API_KEY, at "organisation" "id";
    "connections" "hook_secret": HOOK_SECRET, at "organisation" "id";
    "connections" "hook_previous": PREVIOUS_HOOK_SECRET, at "organisation" "id";
    "push_certificates" "cell": PUSH_CERTIFICATE, at "organisation" "id";
    "server_token_keys" "cell": TOKEN_KEY, at "organisation" "id";
    "server_tokens" "cell": TOKEN, at "organisation" "id";
    "business_apis" "cell": BUSINESS_KEY, at "organisation" "organisation";
    "people" "totp": SECOND_FACTOR, at "'*'" "principal";
    "people" "totp_pending": SECOND_FACTOR, at "'*'" "principal";
    "notice_channels" "target": CHANNEL_TARGET, at "organisation" "id";
    "notice_channels" "secret": CHANNEL_SECRET, at "organisation" "id";
    "notice_channels" "previous": PREVIOUS_CHANNEL_SECRET, at "organisation" "id";
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that are no cells: keys have samples and wrappings of their own.
    const NOT_CELLS: &[(&str, &str)] = &[("data_keys", "sample"), ("key_wrappings", "bytes")];

    #[test]
    fn every_column_of_bytes_is_a_cell_or_known_to_be_none() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite");
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let sql = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let mut table = String::new();
            for line in sql.lines() {
                let words: Vec<_> = line.split_whitespace().collect();
                match words.as_slice() {
                    ["CREATE", "TABLE", name, ..] => table = (*name).to_owned(),
                    ["ALTER", "TABLE", name, "ADD", "COLUMN", column, kind, ..]
                        if kind.starts_with("BLOB") =>
                    {
                        found.push(((*name).to_owned(), (*column).to_owned()));
                    }
                    [column, kind, ..] if kind.starts_with("BLOB") => {
                        found.push((table.clone(), (*column).to_owned()));
                    }
                    _ => {}
                }
            }
        }
        let mut known: Vec<_> = CELLS
            .iter()
            .map(|cells| (cells.table, cells.column))
            .chain(NOT_CELLS.iter().copied())
            .map(|(table, column)| (table.to_owned(), column.to_owned()))
            .collect();
        found.sort();
        known.sort();
        assert_eq!(found, known);
    }
}
