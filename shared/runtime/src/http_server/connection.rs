//! One connection: counts its requests, closes it when it is slow or idle or does not read, and passes on the drain.

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
use hyper_util::server::conn::auto::Connection;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::{
    OtherSide, ServerSettings,
    socket::{Seen, Writing},
    streams::{self, Streams},
};
use crate::drain::DrainWatcher;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the requests of one connection leave behind for its timer.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    started: AtomicU32,
    in_flight: AtomicU32,
    writing: Writing,
}

impl Activity {
    pub(super) fn new() -> Self {
        let (started, in_flight) = (AtomicU32::new(0), AtomicU32::new(0));
        Self(Arc::new(Counters { started, in_flight, writing: Writing::new() }))
    }

    pub(super) fn writing(&self) -> &Writing {
        &self.0.writing
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
        let polled = self.project().body.poll_frame(cx);
        streams::polled(matches!(polled, Poll::Ready(Some(Ok(_)))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Decides when a connection has been slow or idle or stalled for too long.
pub(super) struct Deadlines {
    activity: Activity,
    idle: Duration,
    write: Duration,
    seen: u32,
    /// When to ask whether it is idle.
    idle_at: Instant,
    /// When to ask whether it is stalled: its socket was blocked when this was set.
    stalled_at: Option<Instant>,
}

/// What the timer says when it goes off.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Busy,
    Idle,
    Stalled,
}

impl Deadlines {
    pub(super) fn new(activity: Activity, settings: &ServerSettings) -> Self {
        let (idle, write) = (settings.idle, settings.write);
        let idle_at = Instant::now() + settings.first_request;
        Self { activity, idle, write, seen: 0, idle_at, stalled_at: None }
    }

    /// The connection was asked to close.
    fn grace(&mut self, now: Instant) {
        self.idle_at = now + CLOSE_GRACE;
    }

    fn next(&self) -> Instant {
        self.stalled_at.map_or(self.idle_at, |at| at.min(self.idle_at))
    }

    /// Whether there is a new deadline: the socket is blocked, and nobody has looked yet.
    fn watch_writes(&mut self) -> bool {
        let blocked = self.stalled_at.is_none() && !self.activity.writing().is_free();
        if blocked {
            self.look_at_writes(Instant::now());
        }
        blocked
    }

    fn look_at_writes(&mut self, now: Instant) -> Seen {
        let seen = self.activity.writing().look();
        self.stalled_at = (seen == Seen::Blocked).then(|| now + self.write);
        seen
    }

    /// Asked when it is time for one of the two.
    fn ask(&mut self, now: Instant) -> Verdict {
        if self.stalled_at.is_some_and(|at| at <= now) && self.look_at_writes(now) == Seen::Stalled {
            return Verdict::Stalled;
        }
        if now < self.idle_at {
            return Verdict::Busy;
        }
        self.idle_at = now + self.idle;
        if self.is_idle() { Verdict::Idle } else { Verdict::Busy }
    }

    /// Nothing is in flight or still to be written, and nothing was started since the last time this was asked.
    fn is_idle(&mut self) -> bool {
        let counters = &self.activity.0;
        let started = counters.started.load(Ordering::Relaxed);
        let quiet = started == self.seen && counters.in_flight.load(Ordering::Relaxed) == 0;
        self.seen = started;
        quiet && counters.writing.is_free()
    }
}

/// How long a connection that was asked to close may take, when no request is in flight on it.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// Drives a connection to its end.
pub(super) async fn run<C: Graceful>(
    connection: C,
    deadlines: Deadlines,
    drain: DrainWatcher,
) -> Result<(), BoxError> {
    let signaled = drain.signaled();
    let run = Run {
        connection,
        signaled,
        timer: tokio::time::sleep_until(deadlines.next()),
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

impl<I, S, B> Graceful for Connection<'_, I, S, Streams>
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
        let mut look = moved || this.timer.is_elapsed();
        if this.deadlines.watch_writes() {
            this.timer.as_mut().reset(this.deadlines.next());
            look = true;
        }
        while look && this.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            match this.deadlines.ask(now) {
                Verdict::Stalled => return Poll::Ready(Err("the client takes nothing".into())),
                // It was asked to close, has nothing to finish, and stays: half a request's head, most likely.
                Verdict::Idle if *this.closing => return Poll::Ready(Ok(())),
                Verdict::Idle => close = true,
                Verdict::Busy if *this.closing => this.deadlines.grace(now),
                Verdict::Busy => {}
            }
            this.timer.as_mut().reset(this.deadlines.next());
        }
        if close {
            *this.closing = true;
            this.deadlines.grace(Instant::now());
            this.timer.as_mut().reset(this.deadlines.next());
            // Registers the new time.
            _ = this.timer.as_mut().poll(cx);
            this.connection.as_mut().graceful_shutdown();
            return this.connection.poll_end(cx);
        }
        Poll::Pending
    }
}
