//! A load generator for one kind of request: HTTP/1.1 on connections that stay open, with as little work as possible, for it
//! shares the cores with what it measures.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The longest answer that is taken, in bytes.
const LONGEST: usize = 1 << 20;

/// A connection to the server.
pub(super) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub(super) async fn new(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            answer: vec![0; LONGEST],
        })
    }

    /// Sends a whole request and waits for the whole answer. Gives its status, and how many milliseconds that took.
    #[allow(
        clippy::disallowed_methods,
        reason = "the clock of the product counts in whole milliseconds, and an answer may take less"
    )]
    pub(super) async fn ask(&mut self, request: &[u8]) -> io::Result<(u16, f64)> {
        let sent = std::time::Instant::now();
        let status = self.answer(request).await?;
        Ok((status, sent.elapsed().as_secs_f64() * 1000.0))
    }

    async fn answer(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.answer[filled..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if let Some(status) = complete(&self.answer[..filled]) {
                return Ok(status);
            }
            if filled == self.answer.len() {
                return Err(io::Error::other("the answer is longer than any should be"));
            }
        }
    }
}

/// The status, once head and body are there.
fn complete(answer: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.get(9..12)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    (body.len() >= length.unwrap_or(0)).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_body() {
        assert_eq!(
            complete(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
            Some(200)
        );
        assert_eq!(complete(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n"), None);
        assert_eq!(
            complete(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nx"),
            None
        );
        assert_eq!(
            complete(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nxx"),
            Some(503)
        );
    }
}
