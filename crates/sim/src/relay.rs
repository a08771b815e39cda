//! A line between a client and a server of any protocol over TCP, which can be slow, or broken.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::pause;

/// How the line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// As if there were nothing between.
    Good,
    /// What the client sends arrives later by so much.
    Slow(Duration),
    /// Connections end, and no new one is made.
    Broken,
}

/// The line. It is gone with this.
pub struct Relay {
    address: SocketAddr,
    line: watch::Sender<Line>,
    accepting: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Relay {
    /// A good line to a server, on a free port of this machine.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (line, now) = watch::channel(Line::Good);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *now.borrow() != Line::Broken {
                    tokio::spawn(carry(client, to, now.clone()));
                }
            }
        });
        Ok(Self {
            address,
            line,
            accepting,
        })
    }

    /// Where clients reach it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How the line is from now on, also for connections that there are.
    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

async fn carry(client: TcpStream, to: SocketAddr, mut line: watch::Receiver<Line>) {
    let Ok(server) = TcpStream::connect(to).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut broken = line.clone();
    let there = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            late(&mut line).await;
            if to_server.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = there => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
        _ = broken.wait_for(|line| *line == Line::Broken) => {}
    }
}

/// Waits as long as the line takes; no longer when it gets better meanwhile.
async fn late(line: &mut watch::Receiver<Line>) {
    loop {
        let Line::Slow(by) = *line.borrow_and_update() else {
            return;
        };
        tokio::select! {
            () = pause(by) => return,
            changed = line.changed() => if changed.is_err() { return },
        }
    }
}
