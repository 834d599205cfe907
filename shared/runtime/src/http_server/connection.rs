//! One connection: counts its requests, closes it when it is slow or idle, and passes on the drain.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    rt::{Read, Write},
    server::conn::http1,
    service::Service,
};
use hyper_util::{rt::TokioExecutor, server::conn::auto::Connection};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::OtherSide;
use crate::drain::DrainWatcher;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the requests of one connection leave behind for its timer.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    started: AtomicU32,
    in_flight: AtomicU32,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self(Arc::new(Counters { started: AtomicU32::new(0), in_flight: AtomicU32::new(0) }))
    }

    fn begin(&self) -> InFlight {
        // Only the connection's own task and its streams write these, and nothing is published through them.
        self.0.started.fetch_add(1, Ordering::Relaxed);
        self.0.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(&self.0))
    }
}

/// Held from the head of a request to the end of its response's body.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Counters>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts the requests that a service answers.
pub(super) struct Counted<S> {
    service: S,
    activity: Activity,
}

impl<S> Counted<S> {
    pub(super) fn new(service: S, activity: Activity) -> Self {
        Self { service, activity }
    }
}

impl<S, B> Service<Request<Incoming>> for Counted<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<CountedBody<B>>;
    type Error = Infallible;
    type Future = CountedFuture<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_flight = Some(self.activity.begin());
        CountedFuture { response: self.service.call(request), in_flight }
    }
}

/// Tells a service with each request who sent it.
pub(super) struct Told<S> {
    service: S,
    other_side: OtherSide,
}

impl<S> Told<S> {
    pub(super) fn new(service: S, other_side: OtherSide) -> Self {
        Self { service, other_side }
    }
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for Told<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(peer) = self.other_side.peer {
            request.extensions_mut().insert(peer);
        }
        if let Some(shown) = &self.other_side.certificate {
            request.extensions_mut().insert(shown.clone());
        }
        self.service.call(request)
    }
}

pin_project! {
    pub(super) struct CountedFuture<F> {
        #[pin]
        response: F,
        in_flight: Option<InFlight>,
    }
}

impl<F, B> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<CountedBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.response.poll(cx))?;
        let in_flight = this.in_flight.take();
        Poll::Ready(Ok(response.map(|body| CountedBody { body, in_flight })))
    }
}

pin_project! {
    pub(super) struct CountedBody<B> {
        #[pin]
        body: B,
        in_flight: Option<InFlight>,
    }
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Decides when a connection has been slow or idle for too long.
pub(super) struct Deadlines {
    activity: Activity,
    idle: Duration,
    seen: u32,
}

/// What the timer says when it goes off.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Busy,
    Idle,
}

impl Deadlines {
    pub(super) fn new(activity: Activity, first_request: Duration, idle: Duration) -> (Self, Duration) {
        (Self { activity, idle, seen: 0 }, first_request)
    }

    /// Idle: nothing is in flight, and nothing was started since the last time this was asked.
    fn ask(&mut self) -> Verdict {
        let started = self.activity.0.started.load(Ordering::Relaxed);
        let quiet = started == self.seen && self.activity.0.in_flight.load(Ordering::Relaxed) == 0;
        self.seen = started;
        if quiet { Verdict::Idle } else { Verdict::Busy }
    }
}

/// How long a connection that was asked to close may take, when no request is in flight on it.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// Drives a connection to its end.
pub(super) async fn run<C: Graceful>(
    connection: C,
    (deadlines, first_request): (Deadlines, Duration),
    drain: DrainWatcher,
) -> Result<(), BoxError> {
    let signaled = drain.signaled();
    let run = Run {
        connection,
        signaled,
        timer: tokio::time::sleep(first_request),
        drain: &drain,
        waker: None,
        deadlines,
        closing: false,
    };
    run.await
}

pin_project! {
    struct Run<'d, C, W> {
        #[pin]
        connection: C,
        #[pin]
        signaled: W,
        #[pin]
        timer: Sleep,
        drain: &'d DrainWatcher,
        // Whom `signaled` and `timer` will wake.
        waker: Option<Waker>,
        deadlines: Deadlines,
        closing: bool,
    }
}

/// The part of hyper's connections that is needed here, to keep the bounds in one place.
pub(super) trait Graceful {
    fn poll_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>;
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<I, S, B> Graceful for http1::Connection<I, S>
where
    I: Read + Write + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn poll_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.poll(cx).map_err(Into::into)
    }

    fn graceful_shutdown(self: Pin<&mut Self>) {
        http1::Connection::graceful_shutdown(self);
    }
}

impl<I, S, B> Graceful for Connection<'_, I, S, TokioExecutor>
where
    I: Read + Write + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn poll_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.poll(cx)
    }

    fn graceful_shutdown(self: Pin<&mut Self>) {
        Connection::graceful_shutdown(self);
    }
}

impl<C: Graceful, W: Future<Output = ()>> Future for Run<'_, C, W> {
    type Output = Result<(), BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(result) = this.connection.as_mut().poll_end(cx) {
            return Poll::Ready(result);
        }
        // Once they know whom to wake, the drain and the timer need not be polled again: both take locks that all
        // connections share.
        let moved = this.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker()));
        if moved {
            *this.waker = Some(cx.waker().clone());
        }
        let mut close = false;
        if !*this.closing {
            close = this.drain.is_draining() || (moved && this.signaled.as_mut().poll(cx).is_ready());
        }
        let look = moved || this.timer.is_elapsed();
        while look && this.timer.as_mut().poll(cx).is_ready() {
            let idle = this.deadlines.ask() == Verdict::Idle;
            if idle && *this.closing {
                // It was asked to close, has nothing to finish, and stays: half a request's head, most likely.
                return Poll::Ready(Ok(()));
            }
            close |= idle;
            let next = if idle || *this.closing { CLOSE_GRACE } else { this.deadlines.idle };
            this.timer.as_mut().reset(Instant::now() + next);
        }
        if close {
            *this.closing = true;
            this.timer.as_mut().reset(Instant::now() + CLOSE_GRACE);
            // Registers the new time.
            _ = this.timer.as_mut().poll(cx);
            this.connection.as_mut().graceful_shutdown();
            return this.connection.poll_end(cx);
        }
        Poll::Pending
    }
}
