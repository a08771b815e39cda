//! One listening socket of a fake: HTTP/1.1, with or without TLS, that can drop a connection, answer rubbish, and go
//! offline and come back at the same address.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::{Buf, Bytes};
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{ServerConfig, pki_types::CertificateDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

/// What speaks behind a socket.
pub(crate) trait Speaker: Clone + Send + Sync + 'static {
    /// The TLS of the next connection; none: plain HTTP.
    fn tls(&self) -> Option<Arc<ServerConfig>> {
        None
    }

    /// Called for each accepted connection; false closes it before a byte is read.
    fn welcomes(&self, _connection: u64) -> bool {
        true
    }

    /// A TLS handshake failed.
    fn handshake_refused(&self, _connection: u64, _why: String) {}

    /// Answers a request; the error closes the connection without an answer.
    fn answer(
        &self,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Hangup>> + Send;
}

/// The connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the fake hung up, as it was told to")]
pub(crate) struct Hangup;

/// What is known of one connection.
pub(crate) struct Connection {
    /// Counts from 1 for each listener.
    pub(crate) number: u64,
    /// The client's certificate and its chain; empty without TLS or certificate.
    pub(crate) client: Vec<CertificateDer<'static>>,
    rubbish: Rubbish,
}

type Rubbish = Arc<Mutex<Option<Bytes>>>;

impl Connection {
    /// Whatever is answered next, these bytes are written instead, and the connection is closed.
    pub(crate) fn write_instead(&self, bytes: &'static [u8]) {
        *self.rubbish.lock().expect("no holder of this lock panics") =
            Some(Bytes::from_static(bytes));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Online,
    Offline,
    Stopped,
}

/// A listening socket; dropping it stops it.
pub(crate) struct Listener {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    bound: watch::Receiver<bool>,
}

impl Listener {
    /// Binds, and answers from then on.
    pub(crate) async fn start(address: SocketAddr, speaker: impl Speaker) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        let mode = watch::Sender::new(Mode::Online);
        let (now_bound, bound) = watch::channel(true);
        tokio::spawn(listen(
            socket,
            address,
            mode.subscribe(),
            now_bound,
            speaker,
        ));
        Ok(Self {
            address,
            mode,
            bound,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the socket and all connections; connecting is refused from then on.
    pub(crate) async fn go_offline(&self) {
        self.mode.send_replace(Mode::Offline);
        self.wait_until_bound(false).await;
    }

    /// Listens at the same address again.
    pub(crate) async fn come_back(&self) {
        self.mode.send_replace(Mode::Online);
        self.wait_until_bound(true).await;
    }

    pub(crate) async fn stop(&self) {
        self.mode.send_replace(Mode::Stopped);
        self.wait_until_bound(false).await;
    }

    async fn wait_until_bound(&self, wanted: bool) {
        // An error means that the task has ended, and its socket with it.
        let _ = self.bound.clone().wait_for(|bound| *bound == wanted).await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.mode.send_replace(Mode::Stopped);
    }
}

async fn listen(
    socket: TcpListener,
    address: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    bound: watch::Sender<bool>,
    speaker: impl Speaker,
) {
    let mut socket = Some(socket);
    let numbers = AtomicU64::new(1);
    loop {
        let wanted = *mode.borrow_and_update();
        match (wanted, socket.take()) {
            (Mode::Stopped, open) => {
                drop(open);
                bound.send_replace(false);
                return;
            }
            (Mode::Offline, open) => {
                drop(open);
                bound.send_replace(false);
                if mode.changed().await.is_err() {
                    return;
                }
            }
            (Mode::Online, None) => match TcpListener::bind(address).await {
                Ok(again) => {
                    socket = Some(again);
                    bound.send_replace(true);
                }
                Err(_) => crate::clock::pause(Duration::from_millis(20)).await,
            },
            (Mode::Online, Some(open)) => {
                tokio::select! {
                    accepted = open.accept() => {
                        if let Ok((stream, _)) = accepted {
                            let number = numbers.fetch_add(1, Ordering::Relaxed);
                            tokio::spawn(until_not_online(mode.clone(), serve(stream, number, speaker.clone())));
                        }
                    }
                    changed = mode.changed() => {
                        if changed.is_err() {
                            return;
                        }
                    }
                }
                socket = Some(open);
            }
        }
    }
}

async fn until_not_online(mut mode: watch::Receiver<Mode>, connection: impl Future<Output = ()>) {
    tokio::select! {
        _ = mode.wait_for(|mode| *mode != Mode::Online) => {}
        () = connection => {}
    }
}

async fn serve(stream: TcpStream, number: u64, speaker: impl Speaker) {
    // Answers are small and waited for; a failure here only makes them slower.
    let _ = stream.set_nodelay(true);
    if !speaker.welcomes(number) {
        return;
    }
    let Some(tls) = speaker.tls() else {
        return converse(stream, Vec::new(), number, speaker).await;
    };
    match TlsAcceptor::from(tls).accept(stream).into_fallible().await {
        Ok(stream) => {
            let client = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let client = client
                .iter()
                .map(|certificate| certificate.clone().into_owned())
                .collect();
            converse(stream, client, number, speaker).await;
        }
        Err((error, stream)) => {
            speaker.handshake_refused(number, error.to_string());
            let_alert_arrive(stream).await;
        }
    }
}

/// Closing a socket with unread bytes resets it, and the client may lose the alert that says why. So read to the end.
async fn let_alert_arrive(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let drain = async {
        let mut waste = [0; 1024];
        while matches!(stream.read(&mut waste).await, Ok(read) if read > 0) {}
    };
    // A client that keeps its side open has had time enough to read.
    let _ = tokio::time::timeout(Duration::from_secs(5), drain).await;
}

async fn converse<S>(
    stream: S,
    client: Vec<CertificateDer<'static>>,
    number: u64,
    speaker: impl Speaker,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let rubbish = Rubbish::default();
    let connection = Arc::new(Connection {
        number,
        client,
        rubbish: rubbish.clone(),
    });
    let service = service_fn(move |request| {
        let (speaker, connection) = (speaker.clone(), connection.clone());
        async move { speaker.answer(connection, request).await }
    });
    let stream = TokioIo::new(Stream {
        inner: stream,
        rubbish,
    });
    // The error is the client's, or the hang-up that was asked for.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(stream, service)
        .await;
}

/// A stream that writes rubbish instead, once told to.
struct Stream<S> {
    inner: S,
    rubbish: Rubbish,
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut rubbish = this.rubbish.lock().expect("no holder of this lock panics");
        let Some(instead) = rubbish.as_mut() else {
            return Pin::new(&mut this.inner).poll_write(cx, bytes);
        };
        while !instead.is_empty() {
            let written = ready!(Pin::new(&mut this.inner).poll_write(cx, instead))?;
            instead.advance(written);
        }
        ready!(Pin::new(&mut this.inner).poll_flush(cx))?;
        ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
        Poll::Ready(Err(io::Error::other(Hangup)))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
