//! A streamed answer: the upstream's frames go to the client as they are, while usage is observed in passing.
//!
//! Pull-based: no task, no channel. It owns the upstream's body, so that a client that leaves cancels upstream, and
//! the request's context, so that every ending is recorded once. A stream that breaks off ends with an error event
//! in the client's dialect and a cut connection, never as if it were complete (B7, C15).

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use nemo_llm::{Endpoint, ErrorDialect, render_stream_error, stop_chunk};
use tokio::time::Instant;

use super::{
    body::Interrupted,
    context::{Ending, RequestContext},
    error::GatewayError,
    feed::Feed,
    keep_alive::{self, KeepAlive},
    reserve::{self, spending::Cover},
};

/// The body of a streamed answer.
pub struct MeteredBody {
    feed: Box<Feed>,
    context: Box<RequestContext>,
    dialect: ErrorDialect,
    keep_alive: KeepAlive,
    /// A comment is to go out next.
    comment: bool,
    /// Of a stream that may have to be stopped. Boxed: every answer is moved about with this in it.
    paid: Option<Box<Paid>>,
    state: State,
}

/// A stream that is paid for as it comes.
struct Paid {
    /// A frame like those that are coming.
    sample: Bytes,
    /// Nothing pays for more of it yet, and so nothing more is read.
    parked: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
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
    /// `feed` is open.
    pub fn new(mut feed: Box<Feed>, context: Box<RequestContext>, dialect: ErrorDialect) -> Self {
        let comments = feed.deadline.keep_alive.filter(|_| feed.has_events());
        let keep_alive = KeepAlive::new(comments, feed.last_frame);
        if let Some(comment) = keep_alive.due(feed.last_frame)
            && comment < feed.timer.deadline()
        {
            feed.timer.as_mut().reset(comment);
        }
        let limited = context.spending.is_some() && feed.has_events();
        let sample = || feed.queue.front().cloned().unwrap_or_default();
        let paid = limited.then(|| Box::new(Paid { sample: sample(), parked: None }));
        let mut body = Self { feed, context, dialect, keep_alive, comment: false, paid, state: State::Open };
        if body.feed.ended {
            body.end();
        } else {
            body.pay(false);
        }
        body
    }

    pub fn size_hint(&self) -> SizeHint {
        // Only a passed-through complete answer has a known length; a stream's changes when a chunk is cut out.
        SizeHint::default()
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        loop {
            if let Some(frame) = self.feed.queue.pop_front() {
                self.context.response_bytes += frame.len() as u64;
                if self.context.first_byte.is_none() {
                    self.context.first_byte = Some(self.context.started.elapsed());
                }
                return Poll::Ready(Some(Ok(Frame::data(frame))));
            }
            if std::mem::take(&mut self.comment) {
                return Poll::Ready(Some(Ok(Frame::data(keep_alive::sign(self.dialect)))));
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
        if let Some(paid) = &mut self.paid
            && let Some(parked) = &mut paid.parked
        {
            ready!(parked.as_mut().poll(cx));
            paid.parked = None;
            self.pay(true);
            return Poll::Ready(());
        }
        match self.feed.poll_frame(cx) {
            Poll::Ready(Ok(())) if self.feed.ended => self.end(),
            Poll::Ready(Ok(())) => self.pay(false),
            Poll::Ready(Err(fault)) => self.cut(&fault.error()),
            Poll::Pending => return self.poll_timer(cx),
        }
        Poll::Ready(())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.feed.poll_timer(cx));
            let now = Instant::now();
            let (due, waited) = self.feed.due();
            if due <= now {
                self.cut(&waited.error());
                return Poll::Ready(());
            }
            let comment = self.keep_alive.due(self.feed.last_frame);
            if comment.is_some_and(|at| at <= now) {
                self.keep_alive.sent(now);
                self.comment = self.feed.is_between_events();
            }
            let comment = self.keep_alive.due(self.feed.last_frame);
            self.feed.timer.as_mut().reset(comment.map_or(due, |comment| comment.min(due)));
            if self.comment {
                return Poll::Ready(());
            }
        }
    }

    fn end(&mut self) {
        self.feed.collect(&mut self.context);
        let reported = self.feed.reported_error();
        // The client has got the upstream's own error event. Where a regular end follows no event of its own, this must
        // not look like one (B7).
        let by_end =
            self.context.endpoint.has_choices() || self.context.endpoint == Endpoint::GenerateContent;
        let cut = reported.is_some() && by_end;
        self.state = if cut { State::Broken { flushed: false } } else { State::Complete };
        self.context.finish(reported.map_or(Ending::Complete, Ending::Interrupted));
    }

    /// Holds what pays for the output so far and for some more, or stops the stream. `last`: it has waited for that.
    fn pay(&mut self, last: bool) {
        let Some(paid) = &mut self.paid else { return };
        match reserve::cover(&mut self.context, self.feed.output_bytes(), last) {
            Cover::Paid => {}
            Cover::Wait(denied) => {
                paid.parked = self.context.spending.as_ref().map(|it| Box::pin(it.waited(&denied)) as Pin<_>);
                self.context.metrics().parked.inc();
            }
            Cover::Stop(error) => self.stop(&error),
        }
    }

    /// Nothing pays for more: what has come is the answer, and the client is told that it was cut.
    fn stop(&mut self, error: &GatewayError) {
        let choices = self.context.spending.as_ref().map_or(1, |spending| spending.choices());
        let sample = self.paid.as_ref().map(|paid| paid.sample.clone()).unwrap_or_default();
        let chunk = match self.feed.stop(choices) {
            Some(translated) => Some(translated).filter(|chunk| !chunk.is_empty()),
            None => stop_chunk(self.context.endpoint, &sample, choices),
        };
        if let Some(chunk) = chunk {
            self.close_event();
            self.feed.queue.push_back(chunk);
        }
        self.context.metrics().stopped.inc();
        self.cut(error);
    }

    /// Half an event may have gone out: what follows must not be read as its other half.
    fn close_event(&mut self) {
        if !self.feed.is_between_events() {
            self.feed.queue.push_back(Bytes::from_static(b"\n\n"));
        }
    }

    fn cut(&mut self, error: &GatewayError) {
        self.feed.collect(&mut self.context);
        if self.feed.has_events() {
            self.close_event();
            self.feed.queue.push_back(render_stream_error(self.dialect, &error.body()));
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
}

impl Drop for MeteredBody {
    fn drop(&mut self) {
        // The client left; the context records that, with what was observed, when it is dropped next.
        if self.state == State::Open {
            self.feed.collect(&mut self.context);
        }
    }
}
