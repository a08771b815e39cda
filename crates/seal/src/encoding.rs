//! One unambiguous encoding of a list of byte strings, for associated data and for what is hashed or authenticated.

/// Each part preceded by its length as four big-endian bytes, so that no two lists of parts encode alike
/// (`["ab", "c"]` and `["a", "bc"]` differ).
pub(crate) fn parts(parts: &[&[u8]]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(parts.iter().map(|part| 4 + part.len()).sum());
    each(parts, |bytes| encoded.extend_from_slice(bytes));
    encoded
}

/// The same encoding, given piece by piece to `take`, for parts that must not be copied.
pub(crate) fn each(parts: &[&[u8]], mut take: impl FnMut(&[u8])) {
    for part in parts {
        let length = u32::try_from(part.len()).expect("no part is four gigabytes long");
        take(&length.to_be_bytes());
        take(part);
    }
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn a_boundary_between_two_parts_is_part_of_the_encoding() {
        assert_ne!(parts(&[b"ab", b"c"]), parts(&[b"a", b"bc"]));
        assert_ne!(parts(&[b"abc"]), parts(&[b"abc", b""]));
        assert_eq!(parts(&[b"a", b""]), b"\0\0\0\x01a\0\0\0\0");
    }
}
