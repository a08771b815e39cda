//! Archives: any number of bytes under one key that is used for nothing else, in chunks that are each authenticated in their place.
//!
//! The construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015) over AES-256-GCM: the nonce of a chunk is its number and
//! whether it is the last one, and its associated data is what stands before the archive in the open. So a chunk that was changed, left
//! out, doubled, moved or cut off at the end is noticed before anything of it is given out.

use std::io::{self, Read, Write};

use zeroize::Zeroizing;

use crate::gcm::{self, NONCE_BYTES, TAG_BYTES};
use crate::{DataKey, encoding};

/// Bytes of plaintext in each chunk but the last.
const CHUNK: usize = 64 * 1024;
const SEALED: usize = CHUNK + TAG_BYTES;

fn nonce(index: u64, is_last: bool) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[3..11].copy_from_slice(&index.to_be_bytes());
    nonce[11] = u8::from(is_last);
    nonce
}

fn context(header: &[u8]) -> Vec<u8> {
    encoding::parts(&[b"lockwarden archive 1", header])
}

/// Seals what is written into it. Nothing is whole before [`ArchiveWriter::finish`].
pub struct ArchiveWriter<W: Write> {
    out: W,
    key: gcm::Key,
    context: Vec<u8>,
    buffer: Zeroizing<Vec<u8>>,
    index: u64,
}

impl<W: Write> ArchiveWriter<W> {
    /// An archive behind a header that is in the open. The key must be new, and be used for nothing else.
    pub fn new(out: W, key: &DataKey, header: &[u8]) -> Self {
        Self {
            out,
            key: gcm::Key::new(key.bytes()),
            context: context(header),
            buffer: Zeroizing::new(Vec::with_capacity(CHUNK)),
            index: 0,
        }
    }

    fn seal(&mut self, is_last: bool) -> io::Result<()> {
        let mut sealed = Vec::with_capacity(SEALED);
        let nonce = nonce(self.index, is_last);
        self.key
            .seal_onto(&mut sealed, nonce, &self.context, &self.buffer);
        self.buffer.clear();
        self.index += 1;
        self.out.write_all(&sealed)
    }

    /// Seals what is left, which ends the archive, and gives back where it was written to.
    ///
    /// # Errors
    /// As that fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for ArchiveWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The last chunk is the one that is sealed by `finish`, so a full one is kept until more comes.
        if self.buffer.len() == CHUNK {
            self.seal(false)?;
        }
        let taken = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens an archive, chunk by chunk. What it gives was authenticated; the end is one only when the last chunk said so.
pub struct ArchiveReader<R: Read> {
    from: R,
    key: gcm::Key,
    context: Vec<u8>,
    sealed: Vec<u8>,
    opened: Zeroizing<Vec<u8>>,
    given: usize,
    index: u64,
    is_done: bool,
}

impl<R: Read> ArchiveReader<R> {
    /// The archive behind the same header.
    pub fn new(from: R, key: &DataKey, header: &[u8]) -> Self {
        Self {
            from,
            key: gcm::Key::new(key.bytes()),
            context: context(header),
            sealed: Vec::with_capacity(SEALED + 1),
            opened: Zeroizing::new(Vec::new()),
            given: 0,
            index: 0,
            is_done: false,
        }
    }

    /// Opens the next chunk.
    fn next(&mut self) -> io::Result<()> {
        let damaged = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the archive was changed, or cut off",
            )
        };
        // One byte more than a chunk has tells whether it is the last.
        let wanted = SEALED + 1 - self.sealed.len();
        (&mut self.from)
            .take(wanted as u64)
            .read_to_end(&mut self.sealed)?;
        let is_last = self.sealed.len() <= SEALED;
        let end = self.sealed.len().min(SEALED);
        let opened = self.key.open(
            nonce(self.index, is_last),
            &self.context,
            &self.sealed[..end],
        );
        self.opened = opened.ok_or_else(damaged)?;
        self.sealed.drain(..end);
        (self.given, self.is_done) = (0, is_last);
        self.index += 1;
        Ok(())
    }
}

impl<R: Read> Read for ArchiveReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.given == self.opened.len() {
            if self.is_done || into.is_empty() {
                return Ok(0);
            }
            self.next()?;
        }
        let given = into.len().min(self.opened.len() - self.given);
        into[..given].copy_from_slice(&self.opened[self.given..self.given + given]);
        self.given += given;
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Purpose, Random};

    struct Same;
    impl Random for Same {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }

    fn key() -> DataKey {
        DataKey::generate(Purpose::Cells, &Same)
    }

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let mut writer = ArchiveWriter::new(Vec::new(), &key(), b"header");
        // In pieces of odd sizes.
        for piece in plain.chunks(10_007) {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap()
    }

    fn opened(archive: &[u8], header: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        ArchiveReader::new(archive, &key(), header).read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn what_is_sealed_opens_whatever_its_length() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5] {
            let plain: Vec<u8> = (0..length)
                .map(|at| u8::try_from(at % 251).unwrap())
                .collect();
            let archive = sealed(&plain);
            assert!(opened(&archive, b"header").unwrap() == plain, "{length}");
            assert!(
                length == 0
                    || !archive
                        .windows(64.min(length))
                        .any(|w| w == &plain[..64.min(length)])
                    || length == 1
            );
        }
    }

    #[test]
    fn a_change_a_cut_a_swap_and_another_header_are_noticed() {
        let plain = vec![1; 3 * CHUNK + 5];
        let archive = sealed(&plain);
        for at in (0..archive.len()).step_by(9_973) {
            let mut changed = archive.clone();
            changed[at] ^= 1;
            assert!(opened(&changed, b"header").is_err(), "changed at {at}");
        }
        for cut in [
            0,
            1,
            TAG_BYTES,
            SEALED - 1,
            SEALED,
            SEALED + 1,
            3 * SEALED,
            archive.len() - 1,
        ] {
            assert!(opened(&archive[..cut], b"header").is_err(), "cut at {cut}");
        }
        let mut swapped = archive.clone();
        let (first, second) = swapped.split_at_mut(SEALED);
        first.swap_with_slice(&mut second[..SEALED]);
        assert!(opened(&swapped, b"header").is_err());
        let mut longer = archive.clone();
        longer.push(0);
        assert!(opened(&longer, b"header").is_err());
        assert!(opened(&archive, b"another header").is_err());
    }
}
