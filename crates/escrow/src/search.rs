//! Finding devices by the beginning of any word known of them, at any size of fleet: words are rows, and a prefix is a
//! range of them.

use crate::Result;
use crate::db::{Tx, Value};

/// The form in which words are stored and looked up: lower case, without surrounding space.
pub(crate) fn normal(text: &str) -> String {
    text.trim().to_lowercase()
}

/// The first text, in byte order, after everything that starts with `prefix`.
pub(crate) fn prefix_end(prefix: &str) -> String {
    format!("{prefix}\u{10ffff}")
}

/// The words of a text: the whole of it, and every part between spaces and punctuation that is more than one letter or digit (of those
/// that take one byte: in other scripts one sign may be a word), at most 32 of 64 characters.
pub(crate) fn words(text: &str) -> Vec<String> {
    let whole = normal(text);
    let parts = whole.split(|c: char| !c.is_alphanumeric());
    let mut words: Vec<String> = std::iter::once(whole.as_str())
        .chain(parts.filter(|part| part.len() > 1))
        .filter(|word| !word.is_empty())
        .map(|word| word.chars().take(64).collect())
        .collect();
    words.sort();
    words.dedup();
    words.truncate(32);
    words
}

/// Removes and adds words; each is organisation, word, serial number and source.
pub(crate) async fn change(
    tx: &mut Tx<'_>,
    gone: Vec<Vec<Value>>,
    come: Vec<Vec<Value>>,
) -> Result<()> {
    for word in gone {
        tx.execute(
            "DELETE FROM device_terms WHERE organisation = $1 AND term = $2 AND serial = $3 AND source = $4",
            word,
        )
        .await?;
    }
    tx.execute_each(
        "INSERT INTO device_terms (organisation, term, serial, source) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        come,
    )
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_the_whole_and_by_each_word() {
        assert_eq!(words("Anna's iPad"), ["anna", "anna's ipad", "ipad"]);
        assert_eq!(words("iPad4,1"), ["ipad4", "ipad4,1"]);
        assert_eq!(words("王 X"), ["王", "王 x"]);
        assert_eq!(words("X"), ["x"]);
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
