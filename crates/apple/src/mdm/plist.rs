//! Plists, within limits.
//!
//! The plist crate's own values are built by recursion without a limit: an XML of 780 KB overflows the stack, and a binary of
//! 370 bytes, in which every list names the next one many times, runs for 23 seconds. Its event readers have neither
//! recursion nor memory of what they told; [`read`] builds our own small value from them and stops at the first limit.
//!
//! What is kept is wiped when dropped, for it may be a code. The XML reader's own buffer, which the crate drops as it is,
//! is the copy that cannot be reached from here.

use std::borrow::Cow;
use std::io::Cursor;

use ::plist::stream::{BinaryReader, Event, OwnedEvent, XmlReader};
use zeroize::{Zeroize as _, Zeroizing};

/// The largest plist that is read, and the most text and data a binary one may unfold to, in bytes.
pub(super) const LARGEST: usize = 1024 * 1024;
/// How deep lists and dictionaries may stand in each other.
pub(super) const DEEPEST: usize = 16;
/// How many values a plist may have; keys are not counted.
pub(super) const MOST_NODES: usize = 10_000;

/// Why bytes are not a plist that is read here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlistError {
    /// Not a plist, or a damaged one.
    #[error("this is not a property list that can be read")]
    Unreadable,
    /// More than a mebibyte, as it stands or unfolded.
    #[error("the property list is larger than 1 MiB")]
    TooLarge,
    /// More than 16 levels of lists and dictionaries.
    #[error("the property list is nested more than 16 deep")]
    TooDeep,
    /// More than 10,000 values.
    #[error("the property list holds more than 10,000 values")]
    TooMany,
    /// A plist, but no message of the MDM protocol.
    #[error("the property list is not a message of the MDM protocol: {0}")]
    NoMessage(&'static str),
}

/// A value of a plist. There is no Debug: any text may be a code.
pub(super) enum Value {
    Dictionary(Dictionary),
    Array(Vec<Value>),
    Text(Zeroizing<String>),
    Integer(i64),
    Boolean(bool),
    /// Data, a date, a fraction, a UID, or an integer beyond 64 bits: nothing that is looked at.
    Other,
}

/// Keys and values. Of two values for one key the last one counts.
#[derive(Default)]
pub(super) struct Dictionary(Vec<(Zeroizing<String>, Value)>);

impl Dictionary {
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0
            .iter()
            .rev()
            .find_map(|(known, value)| (known.as_str() == key).then_some(value))
    }

    /// Takes a value out, so that its text need not be copied.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        let index = self
            .0
            .iter()
            .rposition(|(known, _)| known.as_str() == key)?;
        Some(std::mem::replace(&mut self.0[index].1, Value::Other))
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn boolean(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn integer(&self, key: &str) -> Option<i64> {
        match self.get(key)? {
            Value::Integer(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn array(&self, key: &str) -> Option<&[Value]> {
        match self.get(key)? {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn dictionary(&self, key: &str) -> Option<&Dictionary> {
        self.get(key)?.as_dictionary()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().map(|(_, value)| value)
    }
}

impl Value {
    pub(super) fn as_dictionary(&self) -> Option<&Dictionary> {
        match self {
            Self::Dictionary(dictionary) => Some(dictionary),
            _ => None,
        }
    }
}

/// Reads an XML or a binary plist whose root is a dictionary.
pub(super) fn read(bytes: &[u8]) -> Result<Dictionary, PlistError> {
    if bytes.len() > LARGEST {
        return Err(PlistError::TooLarge);
    }
    let root = if bytes.starts_with(b"bplist00") {
        build(BinaryReader::new(Cursor::new(bytes)))?
    } else {
        // The reader skips such sections, and a code in one would be taken for an empty text.
        if bytes.windows(9).any(|window| window == b"<![CDATA[") {
            return Err(PlistError::Unreadable);
        }
        build(XmlReader::new(bytes))?
    };
    match root {
        Value::Dictionary(root) => Ok(root),
        _ => Err(PlistError::NoMessage("it is not a dictionary")),
    }
}

/// A list or a dictionary that is not complete yet.
enum Open {
    Array(Vec<Value>),
    Dictionary(Dictionary, Option<Zeroizing<String>>),
}

fn build(
    events: impl Iterator<Item = Result<OwnedEvent, ::plist::Error>>,
) -> Result<Value, PlistError> {
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    let mut room = Room {
        nodes: MOST_NODES,
        bytes: LARGEST,
    };
    for event in events {
        let event = event.map_err(|_| PlistError::Unreadable)?;
        if root.is_some() {
            return Err(PlistError::Unreadable);
        }
        let is_start = matches!(event, Event::StartArray(_) | Event::StartDictionary(_));
        if is_start && open.len() == DEEPEST {
            return Err(PlistError::TooDeep);
        }
        let complete = match event {
            Event::StartArray(length) => {
                room.take_node(length)?;
                open.push(Open::Array(Vec::new()));
                continue;
            }
            Event::StartDictionary(length) => {
                room.take_node(length)?;
                open.push(Open::Dictionary(Dictionary::default(), None));
                continue;
            }
            Event::EndCollection => match open.pop() {
                Some(Open::Array(items)) => Value::Array(items),
                Some(Open::Dictionary(dictionary, None)) => Value::Dictionary(dictionary),
                _ => return Err(PlistError::Unreadable),
            },
            Event::String(text) => {
                let text = Zeroizing::new(text.into_owned());
                room.take_bytes(text.len())?;
                match open.last_mut() {
                    Some(Open::Dictionary(_, key @ None)) => {
                        *key = Some(text);
                        continue;
                    }
                    _ => {
                        room.take_node(None)?;
                        Value::Text(text)
                    }
                }
            }
            other => {
                room.take_node(None)?;
                scalar(other, &mut room)?
            }
        };
        match open.last_mut() {
            None => root = Some(complete),
            Some(Open::Array(items)) => items.push(complete),
            Some(Open::Dictionary(dictionary, key)) => match key.take() {
                Some(key) => dictionary.0.push((key, complete)),
                None => return Err(PlistError::Unreadable),
            },
        }
    }
    root.ok_or(PlistError::Unreadable)
}

fn scalar(event: OwnedEvent, room: &mut Room) -> Result<Value, PlistError> {
    Ok(match event {
        Event::Boolean(value) => Value::Boolean(value),
        Event::Integer(value) => value.as_signed().map_or(Value::Other, Value::Integer),
        Event::Data(data) => {
            let length = data.len();
            // Push tokens and unlock tokens are data.
            if let Cow::Owned(mut data) = data {
                data.zeroize();
            }
            room.take_bytes(length)?;
            Value::Other
        }
        _ => Value::Other,
    })
}

/// What is left of the limits.
struct Room {
    nodes: usize,
    bytes: usize,
}

impl Room {
    /// One more value, which says that so many will follow in it.
    fn take_node(&mut self, length: Option<u64>) -> Result<(), PlistError> {
        self.nodes = self.nodes.checked_sub(1).ok_or(PlistError::TooMany)?;
        if length.is_some_and(|length| length > self.nodes as u64) {
            return Err(PlistError::TooMany);
        }
        Ok(())
    }

    fn take_bytes(&mut self, count: usize) -> Result<(), PlistError> {
        self.bytes = self.bytes.checked_sub(count).ok_or(PlistError::TooLarge)?;
        Ok(())
    }
}
