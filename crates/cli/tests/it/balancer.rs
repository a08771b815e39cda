//! A load balancer: what one puts in front of several servers, as plain as can be.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// How long a server may take to say that it is ready.
const LOOK: Duration = Duration::from_secs(2);

/// Gives each connection to the next server that says it is ready.
pub(crate) struct Balancer {
    address: SocketAddr,
    servers: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Balancer {
    pub(crate) fn start(runtime: &Runtime) -> Self {
        let servers: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let behind = servers.clone();
        runtime.spawn(async move {
            let turn = Arc::new(AtomicUsize::new(0));
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, behind.clone(), turn.clone()));
            }
        });
        Self { address, servers }
    }

    /// Where it is reached.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The servers behind it from now on, by their addresses.
    pub(crate) fn set<'a>(&self, urls: impl IntoIterator<Item = &'a str>) {
        let servers = urls.into_iter();
        *self.servers.lock().unwrap() = servers
            .map(|url| url.strip_prefix("http://").unwrap().parse().unwrap())
            .collect();
    }
}

async fn carry(
    mut client: TcpStream,
    servers: Arc<Mutex<Vec<SocketAddr>>>,
    turn: Arc<AtomicUsize>,
) {
    let behind = servers.lock().unwrap().clone();
    for _ in 0..behind.len() {
        let server = behind[turn.fetch_add(1, Ordering::Relaxed) % behind.len()];
        if !is_ready(server).await {
            continue;
        }
        if let Ok(mut server) = TcpStream::connect(server).await {
            // An end of either is an end.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}

async fn is_ready(server: SocketAddr) -> bool {
    let look = async {
        let mut server = TcpStream::connect(server).await?;
        server
            .write_all(b"GET /readyz HTTP/1.1\r\nhost: balancer\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with(b"HTTP/1.1 200"))
    };
    matches!(tokio::time::timeout(LOOK, look).await, Ok(Ok(true)))
}
