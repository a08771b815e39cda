//! A commit whose answer never comes: it was kept or it was not, and the verb is done exactly once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Nothing happens.
const CALM: u8 = 0;
/// The next commit that changed something does not reach the server; its connection is cut.
const BEFORE: u8 = 1;
/// It does, and its answer is kept back.
const AFTER: u8 = 2;
/// It did.
const HAPPENED: u8 = 3;

/// Stands between a vault and its server.
struct Proxy {
    address: SocketAddr,
    what: Arc<AtomicU8>,
}

impl Proxy {
    async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let what = Arc::new(AtomicU8::new(CALM));
        let wish = what.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                tokio::spawn(carry(client, server, wish.clone()));
            }
        });
        Self { address, what }
    }
}

async fn carry(client: TcpStream, server: TcpStream, what: Arc<AtomicU8>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move {
        // An end of either is an end.
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    });
    let mut bytes = vec![0; 65536];
    // Whether the last statement marked the transaction as one that changed something.
    let mut changed = false;
    while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
        let sent = &bytes[..count];
        let holds = |text: &[u8]| sent.windows(text.len()).any(|window| window == text);
        let is_commit = holds(b"COMMIT\0");
        let wanted = what.load(Ordering::SeqCst);
        if is_commit && changed && wanted == BEFORE {
            what.store(HAPPENED, Ordering::SeqCst);
            break;
        }
        if is_commit && changed && wanted == AFTER {
            back.abort();
            what.store(HAPPENED, Ordering::SeqCst);
            let _ = to_server.write_all(sent).await;
            // Until the server has done it.
            tokio::task::yield_now().await;
            break;
        }
        changed = !is_commit;
        if to_server.write_all(sent).await.is_err() {
            break;
        }
    }
    back.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_without_an_answer_is_done_exactly_once() {
    let server = server();
    let address = server.create("vault").unwrap();
    let proxy = Proxy::before(server.port()).await;
    let through = address.replace(
        &format!("127.0.0.1:{}", server.port()),
        &proxy.address.to_string(),
    );
    let vault = Vault::on(&format!("{through}?connections=2")).await;
    for (round, what) in [BEFORE, AFTER, BEFORE, AFTER, AFTER, BEFORE]
        .into_iter()
        .enumerate()
    {
        proxy.what.store(what, Ordering::SeqCst);
        let serial = format!("SERIAL{round:06}");
        vault.type_code(&serial, CODE_A).await;
        assert_eq!(proxy.what.load(Ordering::SeqCst), HAPPENED);
        assert_eq!(vault.device(&serial).await.codes.len(), 1);
        let rows = format!(
            "SELECT COUNT(*) FROM audit WHERE action = 'code.typed' AND subject = '{serial}'"
        );
        assert_eq!(server.sql("vault", &rows).unwrap(), "1", "round {round}");
    }
    assert!(vault.record_is_whole().await);
}
