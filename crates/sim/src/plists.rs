//! Property lists as the fakes read and write them: XML only.

use plist::{Dictionary, Value};

/// The XML of a dictionary.
pub(crate) fn to_xml(dictionary: Dictionary) -> Vec<u8> {
    let mut xml = Vec::new();
    Value::Dictionary(dictionary)
        .to_writer_xml(&mut xml)
        .expect("writing to memory does not fail");
    xml
}

/// The dictionary of an XML property list; none when it is anything else.
pub(crate) fn from_xml(xml: &[u8]) -> Option<Dictionary> {
    Value::from_reader_xml(xml).ok()?.into_dictionary()
}

/// The text under a key.
pub(crate) fn text<'a>(dictionary: &'a Dictionary, key: &str) -> Option<&'a str> {
    dictionary.get(key)?.as_string()
}

/// A dictionary of these.
pub(crate) fn dictionary<const N: usize>(pairs: [(&str, Value); N]) -> Dictionary {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}
