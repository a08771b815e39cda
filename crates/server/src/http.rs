//! The routes: webhooks, the API, and what watches over a server.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum_server::tls_rustls::RustlsConfig;
use axum_server::{Handle, Server};

use crate::App;
use crate::console;
use crate::http::problem::Problem;
use crate::http::reception::Reception;

pub(crate) mod api;
pub(crate) mod extract;
pub(crate) mod hooks;
pub(crate) mod problem;
mod reception;
pub(crate) mod refusals;
mod watch;

pub(crate) use watch::Readiness;

/// Has a browser go to another page by itself, after a while.
pub(crate) const REFRESH: HeaderName = HeaderName::from_static("refresh");

/// The most that a request of the API holds, bytes. Webhooks have their own limit.
const BODY_LIMIT: usize = 256 * 1024;

/// What every answer has a browser keep to: nothing is stored, guessed at, framed or taken from elsewhere, and no address of ours is
/// told to others.
const FOR_BROWSERS: [(HeaderName, &str); 7] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];
/// Once reached by TLS, a browser comes by TLS alone, for a year.
const TLS_ALWAYS: &str = "max-age=31536000";

/// Everything that is answered.
pub(crate) fn router(app: App) -> Router {
    let watch = Router::new()
        .route("/healthz", get(watch::alive))
        .route("/readyz", get(watch::ready))
        .route("/metrics", get(watch::metrics));
    let all = if app.settings.serves {
        watch
            .merge(hooks::routes())
            .merge(console::routes().layer(DefaultBodyLimit::max(BODY_LIMIT)))
            .merge(api::routes().layer(DefaultBodyLimit::max(BODY_LIMIT)))
    } else {
        watch
    };
    all.fallback(nothing_here)
        .method_not_allowed_fallback(not_so)
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .with_state(app)
}

/// Serves until the handle says to stop.
pub(crate) async fn serve(
    app: App,
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    handle: Handle<SocketAddr>,
) -> std::io::Result<()> {
    let settings = app.settings.clone();
    let reception = Reception::new(router(app), settings.connections);
    match tls {
        Some(tls) => {
            let server = axum_server::from_tcp_rustls(listener, tls)?.handle(handle);
            patient(server, settings.client_timeout)
                .serve(reception)
                .await
        }
        None => {
            let server = axum_server::from_tcp(listener)?.handle(handle);
            patient(server, settings.client_timeout)
                .serve(reception)
                .await
        }
    }
}

/// Lets nobody keep a connection for nothing: neither who sends no request, nor who sends one byte after the other, nor who is
/// gone.
fn patient<A>(server: Server<SocketAddr, A>, patience: Duration) -> Server<SocketAddr, A> {
    let mut server = server.first_request_timeout(patience);
    let builder = server.http_builder();
    builder.http1().header_read_timeout(patience);
    builder.http2().keep_alive_interval(patience);
    server
}

/// Counts and logs each answer. The log has the route's pattern and never the path: a webhook's path may hold a secret (R22).
async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let began = app.now();
    let method = known(request.method());
    let is_http1 = request.version() <= Version::HTTP_11;
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |matched| matched.as_str().to_owned());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in FOR_BROWSERS {
        // A page of the console has said what it loads, and its scripts and styles that they are kept.
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if app.is_reached_by_tls() {
        headers.insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static(TLS_ALWAYS),
        );
    }
    if is_http1 && app.leaving.load(Ordering::Relaxed) {
        // Whoever keeps the connection would lose a request on it in the moment in which it ends.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if app.settings.sandbox {
        headers.insert("lockwarden-sandbox", HeaderValue::from_static("true"));
    }
    let status = response.status().as_u16();
    let took = app.now().since(began);
    app.metrics.request(method, &route, status, took);
    let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    if response.status().is_server_error() {
        tracing::warn!(method, route, status, milliseconds, "answered");
    } else {
        tracing::debug!(method, route, status, milliseconds, "answered");
    }
    response
}

/// A method by its name. Anybody can make up others without end, and each would be kept as a label of a metric.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

async fn nothing_here(headers: HeaderMap) -> Response {
    if console::wants_a_page(&headers) {
        return console::problem_page(&Problem::not_found("There is nothing at this address."));
    }
    Problem::not_found("There is nothing at this address.")
        .hint("The API is under /v1; /openapi.json describes it.")
        .into_response()
}

async fn not_so() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "Not in this way",
        "The address is right, the method is not.",
    )
    .hint("/openapi.json says which methods it takes.")
}
