//! Finding devices by the beginning of any word known of them, at any size of fleet: words are rows, and a prefix is a
//! range of them.

use crate::Result;
use crate::db::{Tx, params};

/// The form in which words are stored and looked up: lower case, without surrounding space.
pub(crate) fn normal(text: &str) -> String {
    text.trim().to_lowercase()
}

/// The first text, in byte order, after everything that starts with `prefix`.
pub(crate) fn prefix_end(prefix: &str) -> String {
    format!("{prefix}\u{10ffff}")
}

/// The words of a text: the whole of it, and every part between spaces and punctuation, at most 32 of 64 characters.
pub(crate) fn words(text: &str) -> Vec<String> {
    let whole = normal(text);
    let mut words: Vec<String> = std::iter::once(whole.as_str())
        .chain(whole.split(|c: char| !c.is_alphanumeric()))
        .filter(|word| !word.is_empty())
        .map(|word| word.chars().take(64).collect())
        .collect();
    words.sort();
    words.dedup();
    words.truncate(32);
    words
}

/// Removes and adds words; both are JSON arrays of organisation, word, serial number and source.
pub(crate) async fn change(tx: &mut Tx<'_>, gone: String, come: String) -> Result<()> {
    if gone != "[]" {
        tx.execute(
            "DELETE FROM device_terms WHERE (organisation, term, serial, source) IN \
             (SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each($1))",
            params![gone],
        )
        .await?;
    }
    if come != "[]" {
        tx.execute(
            "INSERT INTO device_terms (organisation, term, serial, source) \
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each($1) WHERE true \
             ON CONFLICT DO NOTHING",
            params![come],
        )
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_the_whole_and_by_each_word() {
        assert_eq!(words("Anna's iPad"), ["anna", "anna's ipad", "ipad", "s"]);
        assert_eq!(words("iPad4,1"), ["1", "ipad4", "ipad4,1"]);
        assert!(words("  ").is_empty());
    }

    #[test]
    fn a_prefix_is_a_range() {
        let (from, to) = ("sim0", prefix_end("sim0"));
        for inside in ["sim0", "sim00001", "sim0\u{ffff}"] {
            assert!(from <= inside && inside < to.as_str());
        }
        assert!("sim1" > to.as_str());
    }
}
