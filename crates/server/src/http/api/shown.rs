//! What the answers of several nouns are made of: moments, pages, and the words of [`activation_lock::explain`].

use std::borrow::Cow;
use std::collections::HashMap;

use activation_lock::explain;
use activation_lock::time::Timestamp;
use escrow::permit::{Permit, Read};
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::macros::format_description;
use utoipa::ToSchema;

use crate::App;
use crate::http::problem::Problem;

/// A moment: RFC 3339 in UTC, with milliseconds.
#[derive(Clone, Copy, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-10-01T08:30:00.000Z")]
pub(crate) struct Moment(pub(crate) Timestamp);

/// A moment as the API writes it.
pub(crate) fn moment(at: Timestamp) -> String {
    Moment(at).text()
}

impl Moment {
    fn text(self) -> String {
        let nanoseconds = i128::from(self.0.0) * 1_000_000;
        let form = format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        );
        OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
            .ok()
            .and_then(|at| at.format(form).ok())
            // Beyond the years that a date can be written in there is nothing that happened.
            .unwrap_or_else(|| "9999-12-31T23:59:59.999Z".to_owned())
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

/// One page of a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// The rows.
    pub(crate) items: Vec<T>,
    /// Give this as `cursor` for the next page; null on the last.
    pub(crate) next: Option<String>,
}

impl<T> Page<T> {
    /// A list that is whole.
    pub(crate) fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}

/// Something that happened, in words for a service desk.
#[derive(Serialize, ToSchema)]
pub(crate) struct Explanation {
    /// What happened.
    #[schema(value_type = String)]
    happened: Cow<'static, str>,
    /// What it means for the device.
    #[schema(value_type = String)]
    means: Cow<'static, str>,
    /// What to do.
    #[schema(value_type = String)]
    to_do: Cow<'static, str>,
}

impl From<explain::Explanation> for Explanation {
    fn from(words: explain::Explanation) -> Self {
        let explain::Explanation {
            happened,
            means,
            to_do,
        } = words;
        Self {
            happened,
            means,
            to_do,
        }
    }
}

/// A stable word, and what it means.
#[derive(Serialize, ToSchema)]
pub(crate) struct Explained {
    /// The word. More may come.
    word: &'static str,
    /// What it means.
    explanation: Explanation,
}

impl Explained {
    pub(crate) fn new(word: &'static str, words: explain::Explanation) -> Self {
        Self {
            word,
            explanation: words.into(),
        }
    }
}

/// The names of an organisation's MDM connections, for rows that know identifiers.
pub(crate) struct ConnectionNames(HashMap<String, String>);

impl ConnectionNames {
    pub(crate) async fn read(app: &App, permit: &Permit<Read>) -> Result<Self, Problem> {
        let all = app.escrow.connections().list_with_removed(permit).await?;
        Ok(Self(
            all.into_iter().map(|one| (one.id, one.name)).collect(),
        ))
    }

    /// The name; the identifier itself where there is none.
    pub(crate) fn of(&self, id: &str) -> String {
        self.0.get(id).map_or(id, String::as_str).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_to_the_millisecond() {
        assert_eq!(Moment(Timestamp(0)).text(), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            Moment(Timestamp(1_780_000_000_001)).text(),
            "2026-05-28T20:26:40.001Z"
        );
        assert_eq!(
            Moment(Timestamp(i64::MAX)).text(),
            "9999-12-31T23:59:59.999Z"
        );
    }
}
