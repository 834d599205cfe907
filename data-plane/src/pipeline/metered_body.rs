//! A streamed answer: the upstream's frames go to the client as they are, while usage is observed in passing.
//!
//! Pull-based: no task, no channel. It owns the upstream's body, so that a client that leaves cancels upstream, and
//! the request's context, so that every ending is recorded once. A stream that breaks off ends with an error event
//! in the client's dialect and a cut connection, never as if it were complete (B7, C15).

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use nemo_llm::{Endpoint, ErrorDialect, StreamObserver, render_stream_error, scan_response};
use tokio::time::{Instant, Sleep};

use super::{
    body::Interrupted,
    context::{Ending, RequestContext},
    error::{GatewayError, Kind},
    keep_alive::{self, KeepAlive},
    timeouts::Deadline,
};
use crate::upstream::UpstreamBody;

/// What looks at the frames.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives in a boxed body, and the large variant is the usual one"
)]
pub enum Observer {
    Stream(StreamObserver),
    Tail(TailScanner),
    /// Nothing in it can be read.
    Opaque,
}

/// The body of a streamed answer.
pub struct MeteredBody {
    upstream: UpstreamBody,
    observer: Observer,
    context: Box<RequestContext>,
    dialect: ErrorDialect,
    deadline: Deadline,
    /// One timer for both waits; looked at only when it fires, moved only then.
    timer: Pin<Box<Sleep>>,
    /// When it began, until the first frame.
    last_frame: Instant,
    /// Whether a frame has come.
    begun: bool,
    keep_alive: KeepAlive,
    /// A comment is to go out next.
    comment: bool,
    queue: VecDeque<Bytes>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Complete: hand out what is queued, then end.
    Complete,
    /// Broken: hand out what is queued, let it be flushed, then cut the connection.
    Broken {
        flushed: bool,
    },
}

impl MeteredBody {
    pub fn new(
        upstream: UpstreamBody,
        observer: Observer,
        context: Box<RequestContext>,
        deadline: Deadline,
        dialect: ErrorDialect,
    ) -> Self {
        let now = Instant::now();
        let comments = matches!(observer, Observer::Stream(_));
        let keep_alive = KeepAlive::new(deadline.keep_alive.filter(|_| comments), now);
        let (due, _) = deadline.next_frame(None);
        let due = keep_alive.due(now).map_or(due, |comment| comment.min(due));
        let timer = Box::pin(tokio::time::sleep_until(due));
        let (queue, state, last_frame) = (VecDeque::new(), State::Open, now);
        let (begun, comment) = (false, false);
        Self {
            upstream,
            observer,
            context,
            dialect,
            deadline,
            timer,
            last_frame,
            begun,
            keep_alive,
            comment,
            queue,
            state,
        }
    }

    /// Puts frames in front that were read before.
    pub fn prepend(&mut self, frames: Vec<Bytes>) {
        for frame in frames {
            self.forward(frame);
        }
    }

    pub fn size_hint(&self) -> SizeHint {
        // Only a passed-through complete answer has a known length; a stream's changes when a chunk is cut out.
        SizeHint::default()
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        loop {
            if let Some(frame) = self.queue.pop_front() {
                self.context.response_bytes += frame.len() as u64;
                if self.context.first_byte.is_none() {
                    self.context.first_byte = Some(self.context.started.elapsed());
                }
                return Poll::Ready(Some(Ok(Frame::data(frame))));
            }
            if std::mem::take(&mut self.comment) {
                return Poll::Ready(Some(Ok(Frame::data(keep_alive::COMMENT))));
            }
            match self.state {
                State::Open => ready!(self.poll_upstream(cx)),
                State::Complete => return Poll::Ready(None),
                State::Broken { flushed: false } => {
                    // One turn for the connection to write out the error event before it is cut.
                    self.state = State::Broken { flushed: true };
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                State::Broken { flushed: true } => return Poll::Ready(Some(Err(Interrupted))),
            }
        }
    }

    /// Takes one step: queues frames, or changes the state.
    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match Pin::new(&mut self.upstream).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                (self.last_frame, self.begun) = (Instant::now(), true);
                if let Ok(data) = frame.into_data() {
                    self.forward(data);
                }
            }
            Poll::Ready(Some(Err(_))) => self.broken("The upstream broke off in the middle of its answer."),
            Poll::Ready(None) => self.end(),
            Poll::Pending => return self.poll_timer(cx),
        }
        Poll::Ready(())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let (due, waited) = self.deadline.next_frame(self.begun.then_some(self.last_frame));
            if due <= now {
                self.cut(&waited.error());
                return Poll::Ready(());
            }
            let comment = self.keep_alive.due(self.last_frame);
            if comment.is_some_and(|at| at <= now) {
                self.keep_alive.sent(now);
                self.comment = self.is_between_events();
            }
            let comment = self.keep_alive.due(self.last_frame);
            self.timer.as_mut().reset(comment.map_or(due, |comment| comment.min(due)));
            if self.comment {
                return Poll::Ready(());
            }
        }
    }

    /// Inside an event a comment would be part of it.
    fn is_between_events(&self) -> bool {
        matches!(&self.observer, Observer::Stream(observer) if observer.is_between_events())
    }

    fn forward(&mut self, frame: Bytes) {
        match &mut self.observer {
            Observer::Stream(observer) => match observer.frame(frame) {
                Ok(frames) => self.queue.extend(frames),
                Err(error) => {
                    tracing::debug!(request_id = %self.context.id, %error, "the upstream's stream is malformed");
                    self.broken("The upstream sent a malformed stream.");
                }
            },
            Observer::Tail(tail) => {
                tail.push(&frame);
                self.queue.push_back(frame);
            }
            Observer::Opaque => self.queue.push_back(frame),
        }
    }

    fn end(&mut self) {
        if let Observer::Stream(observer) = &mut self.observer {
            match observer.finish() {
                Ok(frames) => self.queue.extend(frames),
                Err(_) => return self.broken("The upstream's answer ended before it was complete."),
            }
        }
        self.collect();
        self.state = State::Complete;
        let reported = matches!(&self.observer, Observer::Stream(observer) if observer.error().is_some());
        self.context.finish(if reported { Ending::Interrupted("upstream_error") } else { Ending::Complete });
    }

    fn broken(&mut self, message: &'static str) {
        self.cut(&GatewayError::new(Kind::UpstreamInterrupted, message));
    }

    fn cut(&mut self, error: &GatewayError) {
        self.collect();
        if let Observer::Stream(observer) = &self.observer {
            if !observer.is_between_events() {
                // Half an event has gone out: the error must not be read as its other half.
                self.queue.push_back(Bytes::from_static(b"\n\n"));
            }
            self.queue.push_back(render_stream_error(self.dialect, &error.body()));
        }
        tracing::warn!(
            request_id = %self.context.id,
            deployment = self.context.deployment.as_ref().map(|it| &*it.name),
            code = error.code(),
            "a streamed answer was cut short: {}", error.for_log()
        );
        self.state = State::Broken { flushed: false };
        self.context.finish(Ending::Interrupted(error.code()));
    }

    /// Moves what was observed into the context.
    fn collect(&mut self) {
        match &self.observer {
            Observer::Stream(observer) => {
                self.context.usage = observer.usage();
                self.context.provider_cost = observer.provider_cost();
                self.context.finish_reason = observer.finish_reason().cloned();
                self.context.output_bytes = observer.output_bytes();
                self.context.measures = observer.measures();
            }
            Observer::Tail(tail) => {
                let info = tail.scan();
                self.context.usage = info.usage;
                self.context.provider_cost = info.provider_cost;
                // Text without its framing is about half of an answer.
                self.context.output_bytes = tail.total / 2;
                self.context.measures = info.measures;
            }
            Observer::Opaque => {}
        }
    }
}

impl Drop for MeteredBody {
    fn drop(&mut self) {
        // The client left; the context records that, with what was observed, when it is dropped next.
        if self.state == State::Open {
            self.collect();
        }
    }
}

/// Keeps the end of a large complete answer, where its usage stands.
pub struct TailScanner {
    endpoint: Endpoint,
    tail: Vec<u8>,
    total: u64,
}

impl TailScanner {
    /// Usage is the last member of an answer; this is far more than it takes.
    const KEPT: usize = 16 * 1024;

    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, tail: Vec::new(), total: 0 }
    }

    fn push(&mut self, frame: &[u8]) {
        self.total += frame.len() as u64;
        let frame = &frame[frame.len().saturating_sub(Self::KEPT)..];
        let excess = (self.tail.len() + frame.len()).saturating_sub(Self::KEPT);
        self.tail.drain(..excess.min(self.tail.len()));
        self.tail.extend_from_slice(frame);
    }

    fn scan(&self) -> nemo_llm::UnaryInfo {
        scan_response(self.endpoint, &self.tail)
    }
}
