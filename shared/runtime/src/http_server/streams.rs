//! The streams of HTTP/2 connections: one that the client leaves standing is reset, and its siblings go on.
//!
//! HTTP/2 has a window for each stream. Where that of one is full, the socket is not: the connection's timer sees
//! nothing of it, and hyper polls the body again only when there is room. So the task of the stream watches itself.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

thread_local! {
    /// Whether the body that was polled last on this thread handed out a frame. It is how a body tells the task that
    /// polls it: hyper's types are between the two.
    static HANDED_OUT: Cell<Option<bool>> = const { Cell::new(None) };
}

/// A body was polled.
pub(super) fn polled(handed_out: bool) {
    HANDED_OUT.set(Some(handed_out));
}

/// Runs streams, and ends one whose client has not taken a frame for `write`.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    pub(super) write: Duration,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let watched = Watched { stream, write: self.write, standing: false, moved: false, timer: None };
        TokioExecutor::new().execute(watched);
    }
}

pin_project! {
    struct Watched<F> {
        #[pin]
        stream: F,
        write: Duration,
        // A frame waits for room.
        standing: bool,
        // Frames were taken since the timer was set.
        moved: bool,
        // From the first frame that had to wait, until one look finds none. Few streams ever have one.
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        HANDED_OUT.set(None);
        if this.stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // Whoever polls a body again has taken what it handed out before.
        if let Some(standing) = HANDED_OUT.take() {
            (*this.standing, *this.moved) = (standing, true);
        }
        if *this.standing && this.timer.is_none() {
            *this.timer = Some(Box::pin(tokio::time::sleep(*this.write)));
            *this.moved = false;
        }
        while let Some(timer) = this.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            if !*this.standing {
                *this.timer = None;
            } else if std::mem::take(this.moved) {
                timer.as_mut().reset(Instant::now() + *this.write);
            } else {
                tracing::debug!("a stream is reset: its client takes nothing of it");
                // Dropped by that, it resets itself.
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}
