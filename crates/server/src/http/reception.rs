//! Where connections come in: each has a place, and only so many have one.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::extract::{ConnectInfo, Extension};
use axum::middleware::AddExtension;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tower::{Layer as _, Service};

/// Gives each connection the routes, its client's address, and a place. When there is no place left, none is accepted until one
/// ends: they wait outside.
pub(super) struct Reception {
    router: Router,
    places: Arc<Semaphore>,
    waiting: Option<Waiting>,
    next: Option<Place>,
}

type Waiting = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// The place of a connection, which goes with it.
#[derive(Clone)]
pub(super) struct Place(#[allow(dead_code, reason = "held")] Arc<OwnedSemaphorePermit>);

impl Reception {
    pub(super) fn new(router: Router, places: usize) -> Self {
        Self {
            router,
            places: Arc::new(Semaphore::new(places)),
            waiting: None,
            next: None,
        }
    }
}

impl Service<SocketAddr> for Reception {
    type Response = AddExtension<AddExtension<Router, ConnectInfo<SocketAddr>>, Place>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.next.is_none() {
            let places = &self.places;
            let waiting = self
                .waiting
                .get_or_insert_with(|| Box::pin(places.clone().acquire_owned()));
            let place = ready!(waiting.as_mut().poll(context));
            self.waiting = None;
            let place = place.expect("the places are never closed");
            self.next = Some(Place(Arc::new(place)));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, client: SocketAddr) -> Self::Future {
        let place = self.next.take().expect("it was ready before it is called");
        let routes = Extension(ConnectInfo(client)).layer(self.router.clone());
        ready(Ok(Extension(place).layer(routes)))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tower::ServiceExt as _;

    use super::*;

    #[test]
    fn no_more_come_in_than_there_are_places() {
        let client = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut reception = Reception::new(Router::new(), 2);
        let mut come_in = || {
            let ready = reception.ready().now_or_never()?;
            ready.expect("it never fails").call(client).now_or_never()
        };
        let first = come_in();
        let second = come_in();
        assert!(first.is_some() && second.is_some());
        assert!(come_in().is_none());
        // A request under way holds the place too.
        let request = first.clone();
        drop(first);
        assert!(come_in().is_none());
        drop(request);
        let third = come_in();
        assert!(third.is_some());
        assert!(come_in().is_none());
    }
}
