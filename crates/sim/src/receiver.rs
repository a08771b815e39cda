//! A far end that takes webhooks: it keeps what it was sent, and answers as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, Uri};
use tokio::net::TcpListener;

use crate::StartError;
use crate::journal::Journal;

/// A request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its path.
    pub path: String,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body, as text.
    pub body: String,
    /// The status that it was answered with.
    pub status: u16,
}

impl Received {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What to answer next: a status, and a header beside it.
type Reply = (u16, Option<(&'static str, String)>);

struct Shared {
    replies: Mutex<VecDeque<Reply>>,
    journal: Journal<Received>,
}

/// See the head of this file. Copies of it are one.
#[derive(Clone)]
pub struct WebhookReceiver {
    shared: Arc<Shared>,
    url: String,
}

impl WebhookReceiver {
    /// Starts one on any free port of this machine. It answers 204 unless it is told otherwise.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> Result<Self, StartError> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            replies: Mutex::default(),
            journal: Journal::new(1_000),
        });
        let router = Router::new().fallback(take).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { shared, url })
    }

    /// Where it is, without a path.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers the next request so; with a header, such as `Retry-After` or `Location`.
    pub fn push_reply(&self, status: u16, header: Option<(&'static str, &str)>) {
        let header = header.map(|(name, value)| (name, value.to_owned()));
        let mut replies = self
            .shared
            .replies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        replies.push_back((status, header));
    }

    /// What came.
    #[must_use]
    pub fn journal(&self) -> &Journal<Received> {
        &self.shared.journal
    }
}

async fn take(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let reply = shared
        .replies
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .pop_front();
    let (status, header) = reply.unwrap_or((204, None));
    let text =
        |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    shared.journal.add(|_| Received {
        path: uri.path().to_owned(),
        headers: headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), text(value)))
            .collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
        status,
    });
    let mut response = Response::builder().status(status);
    if let Some((name, value)) = header {
        response = response.header(name, value);
    }
    response
        .body(Body::empty())
        .expect("the header was given by a test")
}
