//! The encoding of Apple's token files made plain: BER, with lengths left open and strings in pieces, becomes DER (contract
//! sheet 2.41).
//!
//! Only what an envelope of CMS needs: tags of one byte, and octet strings put together. How deep and of how many elements
//! a file may be is limited, so that no file costs more than reading it.

/// How deep elements may be nested. A recipient's name is ten deep.
const DEEPEST: usize = 32;
/// The most elements that are read. A file of Apple's has about forty.
const MOST: usize = 4096;

/// What opens the contents of a tag: the bit that says "made of elements".
const CONSTRUCTED: u8 = 0x20;
const OCTET_STRING: u8 = 0x04;
/// The two bits of the class, and the class whose meaning the context gives.
const CLASS: u8 = 0xc0;
const CONTEXT: u8 = 0x80;

/// Why bytes are not BER, or not ours to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BerError {
    /// They end before the first element does.
    CutOff,
    /// They break the rules of the encoding.
    Malformed,
    /// They are nested deeper, or made of more elements, than any token file.
    OverLimits,
}

/// The first element of `bytes` in DER: lengths are told and as short as can be, octet strings are in one piece. What
/// follows the element may only be white space.
///
/// A context tag that holds octet strings and nothing else becomes one string too: so CMS writes its encrypted content. (An
/// explicitly tagged octet string would look the same. An envelope for an RSA key has none.)
pub(super) fn to_der(bytes: &[u8]) -> Result<Vec<u8>, BerError> {
    let mut left = MOST;
    let mut reader = Reader {
        rest: bytes,
        is_whole: false,
        left: &mut left,
    };
    let mut der = Vec::with_capacity(bytes.len());
    let first = reader.element(0)?;
    if !reader.rest.iter().all(u8::is_ascii_whitespace) {
        return Err(BerError::Malformed);
    }
    first.write(&mut der);
    Ok(der)
}

/// One element, its contents already in DER.
struct Element {
    tag: u8,
    contents: Vec<u8>,
}

impl Element {
    fn write(&self, der: &mut Vec<u8>) {
        der.push(self.tag);
        let length = self.contents.len();
        if length < 0x80 {
            der.push(length as u8);
        } else {
            let bytes = length.to_be_bytes();
            let told = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            der.push(0x80 | told.len() as u8);
            der.extend_from_slice(told);
        }
        der.extend_from_slice(&self.contents);
    }
}

/// The elements that one element is made of.
struct Parts {
    /// One after the other.
    der: Vec<u8>,
    /// What is in them, one after the other, as long as all are octet strings.
    strings: Option<Vec<u8>>,
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Whether `rest` is all of an element whose length was told, so that what breaks off in it was never whole.
    is_whole: bool,
    /// How many elements may still be read.
    left: &'a mut usize,
}

impl<'a> Reader<'a> {
    fn element(&mut self, depth: usize) -> Result<Element, BerError> {
        if depth == DEEPEST || *self.left == 0 {
            return Err(BerError::OverLimits);
        }
        *self.left -= 1;
        let tag = self.byte()?;
        // Tags of several bytes, and the mark of an end where nothing is open.
        if tag & 0x1f == 0x1f || tag == 0 {
            return Err(BerError::Malformed);
        }
        let is_constructed = tag & CONSTRUCTED != 0;
        let Some(length) = self.length()? else {
            return match is_constructed {
                true => together(tag, self.parts_to_mark(depth)?),
                false => Err(BerError::Malformed),
            };
        };
        let contents = self.take(length)?;
        if !is_constructed {
            let contents = contents.to_vec();
            return Ok(Element { tag, contents });
        }
        let mut inner = Reader {
            rest: contents,
            is_whole: true,
            left: &mut *self.left,
        };
        let mut parts = Parts::none_yet();
        while !inner.rest.is_empty() {
            parts.add(&inner.element(depth + 1)?);
        }
        together(tag, parts)
    }

    /// The elements up to the mark that ends an open length.
    fn parts_to_mark(&mut self, depth: usize) -> Result<Parts, BerError> {
        let mut parts = Parts::none_yet();
        loop {
            if let Some(rest) = self.rest.strip_prefix(&[0, 0]) {
                self.rest = rest;
                return Ok(parts);
            }
            if self.rest == [0] && !self.is_whole {
                return Err(BerError::CutOff);
            }
            parts.add(&self.element(depth + 1)?);
        }
    }

    /// `None` is the open length.
    fn length(&mut self) -> Result<Option<usize>, BerError> {
        match self.byte()? {
            0x80 => Ok(None),
            short @ 0..0x80 => Ok(Some(usize::from(short))),
            long => {
                let mut length = 0;
                let bytes = usize::from(long & 0x7f);
                if bytes > 4 {
                    return Err(BerError::Malformed);
                }
                for _ in 0..bytes {
                    length = (length << 8) | usize::from(self.byte()?);
                }
                Ok(Some(length))
            }
        }
    }

    fn byte(&mut self) -> Result<u8, BerError> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], BerError> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None if self.is_whole => Err(BerError::Malformed),
            None => Err(BerError::CutOff),
        }
    }
}

impl Parts {
    fn none_yet() -> Self {
        Self {
            der: Vec::new(),
            strings: Some(Vec::new()),
        }
    }

    fn add(&mut self, element: &Element) {
        element.write(&mut self.der);
        match &mut self.strings {
            Some(strings) if element.tag == OCTET_STRING => {
                strings.extend_from_slice(&element.contents);
            }
            strings => *strings = None,
        }
    }
}

/// The element that is made of these parts.
fn together(tag: u8, parts: Parts) -> Result<Element, BerError> {
    let is_in_pieces = tag & CLASS == CONTEXT && !parts.der.is_empty();
    match parts.strings {
        Some(contents) if tag == OCTET_STRING | CONSTRUCTED || is_in_pieces => Ok(Element {
            tag: tag & !CONSTRUCTED,
            contents,
        }),
        None if tag == OCTET_STRING | CONSTRUCTED => Err(BerError::Malformed),
        _ => Ok(Element {
            tag,
            contents: parts.der,
        }),
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER_PERMISSIVE as HEX;

    use super::*;

    fn der(ber: &str) -> Result<String, BerError> {
        let ber = HEX.decode(ber.replace(' ', "").as_bytes()).unwrap();
        to_der(&ber).map(|der| HEX.encode(&der))
    }

    #[test]
    fn t10_open_lengths_and_strings_in_pieces_become_der() {
        for (ber, plain) in [
            ("02 01 05", "020105"),
            ("30 80 02 01 05 00 00", "3003020105"),
            ("30 80 30 80 00 00 30 80 00 00 00 00", "300430003000"),
            ("24 80 04 01 aa 04 02 bb cc 00 00", "0403aabbcc"),
            ("24 05 04 01 aa 04 00", "0401aa"),
            ("24 80 24 80 04 01 aa 00 00 04 01 bb 00 00", "0402aabb"),
            ("24 00", "0400"),
            ("a0 80 04 01 aa 04 01 bb 00 00", "8002aabb"),
            ("a0 80 24 80 04 01 aa 00 00 00 00", "8001aa"),
            ("80 01 aa", "8001aa"),
            // What holds something else, or nothing, stays what it is.
            ("a0 80 02 01 05 04 01 aa 00 00", "a006020105 0401aa"),
            ("a0 80 00 00", "a000"),
            ("30 80 04 01 aa 00 00", "30030401aa"),
            // Lengths that are told in more bytes than they need.
            ("04 81 01 aa", "0401aa"),
            ("30 84 00 00 00 03 02 01 05", "3003020105"),
            // White space of a text that was taken for the end of the file.
            ("02 01 05 0d 0a 20", "020105"),
        ] {
            assert_eq!(der(ber), Ok(plain.replace(' ', "")), "{ber}");
        }
        let long = format!("24 80 {} 00 00", "04 02 aabb".repeat(100));
        assert_eq!(der(&long), Ok(format!("0481c8{}", "aabb".repeat(100))));
    }

    #[test]
    fn t10_what_breaks_off_is_told_from_what_was_never_whole() {
        for (ber, error) in [
            ("", BerError::CutOff),
            ("30", BerError::CutOff),
            ("30 82 01", BerError::CutOff),
            ("30 05 02 01 05", BerError::CutOff),
            ("30 80 02 01 05", BerError::CutOff),
            ("30 80 02 01 05 00", BerError::CutOff),
            ("30 80 04 05 aa", BerError::CutOff),
            ("30 03 02 05 aa", BerError::Malformed),
            ("30 02 30 80", BerError::Malformed),
            ("30 03 30 80 00", BerError::Malformed),
            ("04 80 00 00", BerError::Malformed),
            ("30 04 00 00 05 00", BerError::Malformed),
            ("00 00", BerError::Malformed),
            ("1f 81 01 00", BerError::Malformed),
            ("24 80 02 01 05 00 00", BerError::Malformed),
            ("30 85 00 00 00 00 00", BerError::Malformed),
            ("30 00 30 00", BerError::Malformed),
        ] {
            assert_eq!(der(ber), Err(error), "{ber}");
        }
    }

    #[test]
    fn a_file_of_depth_or_of_crumbs_is_refused_at_once() {
        let nested =
            |depth: usize| [&[0x30, 0x80].repeat(depth)[..], &[0, 0].repeat(depth)].concat();
        assert!(to_der(&nested(DEEPEST)).is_ok());
        assert_eq!(to_der(&nested(DEEPEST + 1)), Err(BerError::OverLimits));
        assert_eq!(
            to_der(&[0x30, 0x80].repeat(500_000)),
            Err(BerError::OverLimits)
        );
        let crumbs = |count: usize| [&[0x30, 0x80][..], &[5, 0].repeat(count), &[0, 0]].concat();
        assert!(to_der(&crumbs(MOST - 1)).is_ok());
        assert_eq!(to_der(&crumbs(MOST)), Err(BerError::OverLimits));
    }
}
