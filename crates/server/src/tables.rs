//! Tables that people bring: lists of serial numbers, in whatever form a spreadsheet left them.
//!
//! The text's encoding (UTF-8, UTF-16 with or without its mark, else Windows' Western one) and what divides its fields (comma, semicolon,
//! tab, bar) are found out, not asked for.

use std::borrow::Cow;
use std::io::{self, Cursor, Read};

use encoding_rs::{Encoding, UTF_16BE, UTF_16LE, WINDOWS_1252};
use encoding_rs_io::{DecodeReaderBytes, DecodeReaderBytesBuilder};

/// What divides fields, the likeliest first.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];
/// How much of a table its form is found out from, bytes.
const LOOKED_AT: u64 = 16 * 1024;
/// Headings under which a serial number stands, as [`plain`] has them.
const SERIAL: &[&str] = &["serial", "serialnumber", "hardwareserial"];

/// Why a table cannot be read. Holds nothing of what stands in it.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It breaks off, or is no text.
    #[error("the table cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// None of its columns is one of serial numbers.
    #[error("the table has several columns, and none is called `serial`")]
    NoSerials,
}

/// The serial numbers of a table, or of a list with one a line, in their order. A heading is told from a device; lines without one are
/// passed over where nothing at all stands in them. Whether something is a serial number is not asked here.
///
/// ```
/// let table = "Name;Serial Number\nAnna;C02XL0GTJGH5\n";
/// assert_eq!(server::tables::serials(table.as_bytes()).unwrap(), ["C02XL0GTJGH5"]);
/// let list = "C02XL0GTJGH5\n\nDMPABC123XYZ\n";
/// assert_eq!(server::tables::serials(list.as_bytes()).unwrap(), ["C02XL0GTJGH5", "DMPABC123XYZ"]);
/// ```
///
/// # Errors
/// When it is no table, or none of several columns holds serial numbers.
pub fn serials(table: impl Read) -> Result<Vec<String>, TableError> {
    let mut reader = reader(table)?;
    let mut record = csv::ByteRecord::new();
    let mut serials = Vec::new();
    let mut column = None;
    while reader.read_byte_record(&mut record).map_err(unreadable)? {
        if record.iter().all(<[u8]>::is_empty) {
            continue;
        }
        let Some(column) = column else {
            let named = record
                .iter()
                .position(|field| SERIAL.contains(&plain(&text(field)).as_str()));
            match (named, record.len()) {
                (Some(named), _) => column = Some(named),
                (None, 1) => {
                    column = Some(0);
                    serials.push(text(&record[0]).trim().to_owned());
                }
                (None, _) => return Err(TableError::NoSerials),
            }
            continue;
        };
        let field = record.get(column).unwrap_or_default();
        serials.push(text(field).trim().to_owned());
    }
    Ok(serials)
}

/// A heading without what people write it differently by: case, spaces, dashes, underscores.
fn plain(heading: &str) -> String {
    heading
        .chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// A field as text: what is not UTF-8 is taken for Windows' Western encoding.
fn text(field: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(field) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => WINDOWS_1252.decode_without_bom_handling(field).0,
    }
}

/// A reader of records, whatever the table's encoding and whatever divides its fields.
fn reader<R: Read>(table: R) -> Result<csv::Reader<impl Read + use<R>>, TableError> {
    let (start, table) = looked_at(table)?;
    let decoded: DecodeReaderBytes<_, Vec<u8>> = DecodeReaderBytesBuilder::new()
        .encoding(encoding(&start))
        .bom_override(true)
        .utf8_passthru(true)
        .strip_bom(true)
        .build(table);
    let (start, decoded) = looked_at(decoded)?;
    Ok(csv::ReaderBuilder::new()
        .delimiter(delimiter(&start))
        .has_headers(false)
        .flexible(true)
        .from_reader(decoded))
}

/// The start of something, and all of it.
fn looked_at<R: Read>(mut from: R) -> io::Result<(Vec<u8>, impl Read + use<R>)> {
    let mut start = Vec::new();
    from.by_ref().take(LOOKED_AT).read_to_end(&mut start)?;
    Ok((start.clone(), Cursor::new(start).chain(from)))
}

fn unreadable(error: csv::Error) -> TableError {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => TableError::Unreadable(error),
        _ => TableError::Unreadable(io::ErrorKind::InvalidData.into()),
    }
}

/// UTF-16 that does not say so shows by its every second byte, for what stands in the tables of this world is mostly ASCII.
fn encoding(start: &[u8]) -> Option<&'static Encoding> {
    match *start {
        [low, 0, second, 0, ..] if low != 0 && second != 0 => Some(UTF_16LE),
        [0, high, 0, second, ..] if high != 0 && second != 0 => Some(UTF_16BE),
        _ => None,
    }
}

/// What stands most often between the fields of the first line.
fn delimiter(start: &[u8]) -> u8 {
    let mut counts = [0_usize; DELIMITERS.len()];
    let mut is_quoted = false;
    for byte in start {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'\n' | b'\r' if !is_quoted && counts != [0; DELIMITERS.len()] => break,
            byte if !is_quoted => {
                if let Some(at) = DELIMITERS.iter().position(|one| one == byte) {
                    counts[at] += 1;
                }
            }
            _ => {}
        }
    }
    let most = counts.iter().max().copied().unwrap_or_default();
    let at = counts.iter().position(|count| *count == most).unwrap_or(0);
    DELIMITERS[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: [&str; 2] = ["C02XL0GTJGH5", "DMPABC123XYZ"];

    fn read(table: &[u8]) -> Vec<String> {
        serials(table).unwrap()
    }

    fn in_utf_16(text: &str, little: bool, mark: bool) -> Vec<u8> {
        let units = mark
            .then_some(0xfeff)
            .into_iter()
            .chain(text.encode_utf16());
        units
            .flat_map(|unit| {
                if little {
                    unit.to_le_bytes()
                } else {
                    unit.to_be_bytes()
                }
            })
            .collect()
    }

    #[test]
    fn a_list_is_read_however_a_spreadsheet_wrote_it() {
        let lists: [&[u8]; 8] = [
            b"C02XL0GTJGH5\nDMPABC123XYZ",
            b"\xef\xbb\xbfSerial\r\nC02XL0GTJGH5\r\nDMPABC123XYZ\r\n",
            b"Asset,Serial Number\n1,C02XL0GTJGH5\n2,DMPABC123XYZ\n",
            b"hardware_serial;note\nC02XL0GTJGH5;a, b, c\nDMPABC123XYZ;\n",
            b"note\tserialNumber\n\"a\nb\"\tC02XL0GTJGH5\n\tDMPABC123XYZ\n",
            b"\n\n  C02XL0GTJGH5  \n\n\"DMPABC123XYZ\"\n\n",
            b"Besitzer;SERIAL-NUMBER\nM\xfcller;C02XL0GTJGH5\nJos\xe9;DMPABC123XYZ\n",
            b"a|serial\nx|C02XL0GTJGH5\ny|DMPABC123XYZ",
        ];
        for list in lists {
            assert_eq!(read(list), WANTED, "{}", String::from_utf8_lossy(list));
        }
    }

    #[test]
    fn utf_16_is_told_with_and_without_its_mark() {
        let table = "Name;Serial\nM\u{fc}ller;C02XL0GTJGH5\nAnna;DMPABC123XYZ\n";
        for little in [true, false] {
            for mark in [true, false] {
                assert_eq!(
                    read(&in_utf_16(table, little, mark)),
                    WANTED,
                    "{little} {mark}"
                );
            }
        }
    }

    #[test]
    fn a_table_whose_columns_nobody_knows_is_refused_and_a_line_without_a_device_keeps_its_place() {
        let unknown = serials(&b"name,owner\nx,y\n"[..]);
        assert!(matches!(unknown, Err(TableError::NoSerials)));
        let gap = read(b"name,serial\nx,C02XL0GTJGH5\ny,\nz,DMPABC123XYZ\n");
        assert_eq!(gap, ["C02XL0GTJGH5", "", "DMPABC123XYZ"]);
        assert!(read(b"").is_empty());
        assert_eq!(read(b"name,serial\nshort\n"), [""]);
    }
}
