//! What goes into a statement and comes out of it, whatever the engine.

use std::fmt;
use std::sync::Arc;

use activation_lock::time::Timestamp;
use uuid::Uuid;

use super::Fault;
use crate::permit::OrganisationId;

/// What a value is, whether there is one or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A whole number.
    Int,
    /// A fraction.
    Real,
    /// Text.
    Text,
    /// Bytes.
    Blob,
}

/// One value of a row or a parameter.
#[derive(Clone, PartialEq)]
pub(crate) enum Value {
    /// No value. As a parameter it is one of a kind, for engines that must be told.
    Null(Kind),
    /// A whole number; moments are milliseconds.
    Int(i64),
    /// A fraction.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// Shows numbers and text, for settings of the engine. There is no `Debug`: rows hold what must not be logged.
impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null(_) => formatter.write_str("null"),
            Self::Int(number) => number.fmt(formatter),
            Self::Real(number) => number.fmt(formatter),
            Self::Text(text) => text.fmt(formatter),
            Self::Blob(bytes) => write!(formatter, "{} bytes", bytes.len()),
        }
    }
}

/// The parameters of a statement, `$1` first: anything that is `Into<Value>`.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        vec![$($crate::db::Value::from($value)),*]
    };
}
pub(crate) use params;

/// What becomes a value of one kind, whatever it holds.
pub(crate) trait OfKind {
    /// The kind.
    const KIND: Kind;
}

macro_rules! into_value {
    ($($type:ty: $value:ident => $kind:ident $make:expr;)*) => {$(
        impl From<$type> for Value {
            fn from($value: $type) -> Self {
                Self::$kind($make)
            }
        }

        impl OfKind for $type {
            const KIND: Kind = Kind::$kind;
        }
    )*};
}

into_value! {
    i64: number => Int number;
    i32: number => Int number.into();
    u32: number => Int number.into();
    u16: number => Int number.into();
    bool: is => Int is.into();
    f64: number => Real number;
    &str: text => Text text.to_owned();
    &String: text => Text text.clone();
    String: text => Text text;
    &[u8]: bytes => Blob bytes.to_vec();
    Vec<u8>: bytes => Blob bytes;
    Uuid: id => Text id.to_string();
    Timestamp: at => Int at.0;
    &OrganisationId: id => Text id.as_str().to_owned();
}

impl<T: Into<Value> + OfKind> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null(T::KIND), Into::into)
    }
}

/// Texts as one parameter, a list for `SELECT value ->> 0 FROM json_each($1)`.
pub(crate) fn list<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let rows = texts.into_iter().map(|text| vec![text.as_ref().to_owned()]);
    serde_json::Value::from(rows.collect::<Vec<_>>()).to_string()
}

/// What a column can be read as.
pub(crate) trait FromValue: Sized {
    /// What it should hold, in words.
    const EXPECTED: &'static str;

    /// The value read; nothing when it is of another type.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($type:ty, $expected:literal: $pattern:pat => $make:expr;)*) => {$(
        impl FromValue for $type {
            const EXPECTED: &'static str = $expected;

            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    $pattern => $make,
                    _ => None,
                }
            }
        }
    )*};
}

from_value! {
    i64, "a number": Value::Int(number) => Some(*number);
    u32, "a number that is not negative": Value::Int(number) => u32::try_from(*number).ok();
    u64, "a number that is not negative": Value::Int(number) => u64::try_from(*number).ok();
    bool, "0 or 1": Value::Int(number) => match number { 0 => Some(false), 1 => Some(true), _ => None };
    f64, "a number": Value::Real(number) => Some(*number);
    String, "text": Value::Text(text) => Some(text.clone());
    Vec<u8>, "bytes": Value::Blob(bytes) => Some(bytes.clone());
    Uuid, "an identifier": Value::Text(text) => text.parse().ok();
    Timestamp, "a time": Value::Int(millis) => Some(Timestamp(*millis));
    OrganisationId, "an organisation": Value::Text(text) => Some(OrganisationId::new(text.clone()));
}

impl<T: FromValue> FromValue for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Null(_) => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}

/// One row.
pub(crate) struct Row {
    columns: Arc<[String]>,
    values: Vec<Value>,
}

impl Row {
    pub(super) fn new(columns: Arc<[String]>, values: Vec<Value>) -> Self {
        Self { columns, values }
    }

    /// The column of that name.
    pub(crate) fn get<T: FromValue>(&self, column: &str) -> crate::Result<T> {
        Ok(self.column(column)?)
    }

    /// The same, with the plain fault.
    pub(crate) fn column<T: FromValue>(&self, column: &str) -> Result<T, Fault> {
        let fault = || Fault::Column {
            column: column.to_owned(),
            expected: T::EXPECTED,
        };
        let index = self
            .columns
            .iter()
            .position(|name| name == column)
            .ok_or_else(fault)?;
        T::from_value(&self.values[index]).ok_or_else(fault)
    }

    /// The values, in the order of the columns.
    pub(super) fn into_values(self) -> impl Iterator<Item = Value> {
        self.values.into_iter()
    }

    /// The first column, of a row that is one value.
    pub(crate) fn first(&self) -> Option<&Value> {
        self.values.first()
    }
}
