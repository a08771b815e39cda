//! Finding devices by the beginning of any word known of them, at any size of fleet: words are rows, and a prefix is a
//! range of them.

use activation_lock::device::SerialNumber;

use crate::Result;
use crate::db::{Tx, params};
use crate::permit::OrganisationId;

/// The form in which words are stored and looked up: lower case, without surrounding space.
pub(crate) fn normal(text: &str) -> String {
    text.trim().to_lowercase()
}

/// The first text, in byte order, after everything that starts with `prefix`.
pub(crate) fn prefix_end(prefix: &str) -> String {
    format!("{prefix}\u{10ffff}")
}

/// The words of a text: the whole of it, and every part between spaces and punctuation, at most 32 of 64 characters.
fn words(text: &str) -> Vec<String> {
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

/// Replaces the words that a device is found by from one source.
pub(crate) async fn index(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    source: &str,
    text: Option<&str>,
) -> Result<()> {
    let words = text.map(words).unwrap_or_default();
    let had = tx
        .fetch_all(
            "SELECT term FROM device_terms WHERE organisation = $1 AND serial = $2 AND source = $3 ORDER BY term",
            params![organisation.as_str(), serial.as_str(), source],
        )
        .await?
        .iter()
        .map(|row| row.get::<String>("term"))
        .collect::<Result<Vec<_>>>()?;
    if had == words {
        return Ok(());
    }
    tx.execute(
        "DELETE FROM device_terms WHERE organisation = $1 AND serial = $2 AND source = $3",
        params![organisation.as_str(), serial.as_str(), source],
    )
    .await?;
    for word in words {
        tx.execute(
            "INSERT INTO device_terms (organisation, term, serial, source) VALUES ($1, $2, $3, $4) \
             ON CONFLICT DO NOTHING",
            params![organisation.as_str(), word, serial.as_str(), source],
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
