//! The upstream's side of an answer that is passed on while it comes: frames, what is observed in them, and the waits.
//!
//! It begins held back: until the first byte of content nothing goes to the client, so that an answer that breaks off,
//! stalls or turns out to be an error can still come from another candidate (C15). That is the commit point. What comes
//! before (a chunk with nothing but a role, `response.created`) is kept, and goes out together with the content.
//! Opened by [`super::respond`], then driven by [`super::metered_body`].

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Body as _;
use nemo_llm::{
    Endpoint, StreamObserver, UpstreamErrorInfo, providers::responses::affinity::Rewriter, scan_response,
};
use tokio::time::{Instant, Sleep};

use super::{
    context::RequestContext,
    crossing::answer::Crosser,
    error::{GatewayError, Kind},
    failure::Failure,
    timeouts::{Deadline, Waited},
};
use crate::upstream::{UpstreamBody, Verdict, classify};

/// Most bytes that are held back. Who sends more without any content is believed to be answering.
pub const MAX_HELD: usize = 64 << 10;

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
    /// It is translated.
    Crossing(Box<Crosser>),
}

impl Observer {
    /// The error that the upstream has reported within its stream.
    fn error(&self) -> Option<&UpstreamErrorInfo> {
        match self {
            Self::Stream(observer) => observer.error(),
            Self::Crossing(crosser) => crosser.transcoder.error(),
            Self::Tail(_) | Self::Opaque => None,
        }
    }
}

/// How an answer can go wrong once it has begun.
#[derive(Debug)]
pub enum Fault {
    Broken,
    Malformed,
    Truncated,
    Stalled(Waited),
    /// The upstream says so itself, before any content.
    Told(Box<UpstreamErrorInfo>),
}

impl Fault {
    fn what(&self) -> &'static str {
        match self {
            Self::Broken => "broke off in the middle of its answer",
            Self::Malformed => "sent a malformed stream",
            Self::Truncated => "ended its answer before it was complete",
            Self::Stalled(waited) => waited.what(),
            Self::Told(_) => "failed",
        }
    }

    /// For an answer of which the client has got a part.
    pub fn error(&self) -> GatewayError {
        match self {
            Self::Stalled(waited) => waited.error(),
            _ => GatewayError::new(Kind::UpstreamInterrupted, format!("The upstream {}.", self.what())),
        }
    }

    /// For an answer of which nothing went out; `None` when the client is at fault and must be told.
    fn failure(self, hurried: bool) -> Option<Box<Failure>> {
        let label = match &self {
            Self::Broken => "interrupted",
            Self::Malformed => "malformed",
            Self::Truncated => "truncated",
            Self::Stalled(waited) => {
                let failure = Failure::timed_out(*waited, hurried);
                return Some(Box::new(Failure { status: 200, ..*failure }));
            }
            Self::Told(said) => {
                let verdict = classify::told(said);
                return Failure::told((**said).clone(), verdict);
            }
        };
        Some(Failure::interrupted(label, self.what()))
    }
}

/// See the module.
pub struct Feed {
    upstream: UpstreamBody,
    observer: Observer,
    pub deadline: Deadline,
    /// One timer for all waits; looked at only when it fires, and moved only then and by [`Feed::poll_timer`].
    pub timer: Pin<Box<Sleep>>,
    /// It is not later than the wait for the second frame.
    hastened: bool,
    /// When it began, until the first frame.
    pub last_frame: Instant,
    /// Whether a frame has come.
    pub begun: bool,
    /// What is to go to the client next.
    pub queue: VecDeque<Bytes>,
    /// Bytes of data that have come.
    received: usize,
    /// The upstream has ended, and the answer is complete.
    pub ended: bool,
    /// Puts something into every event, where that has to be.
    pub rewriter: Option<Box<Rewriter>>,
}

impl Feed {
    pub fn new(upstream: UpstreamBody, observer: Observer, deadline: Deadline) -> Self {
        let now = Instant::now();
        let (due, _) = deadline.next_frame(None);
        let comments = matches!(observer, Observer::Stream(_) | Observer::Crossing(_));
        let comment = deadline.keep_alive.filter(|_| comments).map(|every| now + every);
        let timer = Box::pin(tokio::time::sleep_until(comment.map_or(due, |comment| comment.min(due))));
        Self {
            upstream,
            observer,
            deadline,
            timer,
            hastened: false,
            last_frame: now,
            begun: false,
            queue: VecDeque::new(),
            received: 0,
            ended: false,
            rewriter: None,
        }
    }

    /// Puts frames of a complete answer in front that were read before.
    pub fn prepend(&mut self, frames: Vec<Bytes>) {
        for frame in frames {
            if let Observer::Tail(tail) = &mut self.observer {
                tail.push(&frame);
            }
            self.pass(frame);
        }
    }

    /// Reads until the answer is worth passing on: its first content, or its regular end.
    ///
    /// # Errors
    /// When it went wrong before, and so nothing of it may be passed on.
    pub async fn open(&mut self) -> Result<(), Box<Failure>> {
        let opened = poll_fn(|cx| self.poll_open(cx)).await;
        let hurried = self.deadline.hurried;
        opened.or_else(|fault| match fault.failure(hurried) {
            Some(mut failure) => {
                match &self.observer {
                    Observer::Stream(observer) => {
                        (failure.usage, failure.provider_cost) = (observer.usage(), observer.provider_cost());
                    }
                    Observer::Crossing(crosser) => failure.usage = crosser.transcoder.usage(),
                    Observer::Tail(_) | Observer::Opaque => {}
                }
                Err(failure)
            }
            None => Ok(()),
        })
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            if self.ended || self.is_committed() {
                return Poll::Ready(Ok(()));
            }
            if let Some(said) = self.observer.error() {
                return Poll::Ready(Err(Fault::Told(Box::new(said.clone()))));
            }
            match self.poll_frame(cx) {
                Poll::Ready(more) => more?,
                Poll::Pending => ready!(self.poll_due(cx))?,
            }
        }
    }

    /// The timer also fires for comments, of which none are sent yet: those before the head are `early`'s.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            ready!(self.poll_timer(cx));
            let (due, waited) = self.due();
            if due <= Instant::now() {
                return Poll::Ready(Err(Fault::Stalled(waited)));
            }
            self.timer.as_mut().reset(due);
        }
    }

    /// Until it is time to look at the waits. It was set for the first frame: the one after it may be waited for less
    /// long, which matters only where there is something to wait for. All later ones are due later.
    pub fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.begun && !self.hastened {
            self.hastened = true;
            let (due, _) = self.due();
            if due < self.timer.deadline() {
                self.timer.as_mut().reset(due);
            }
        }
        self.timer.as_mut().poll(cx)
    }

    /// Until when the next frame must come.
    pub fn due(&self) -> (Instant, Waited) {
        self.deadline.next_frame(self.begun.then_some(self.last_frame))
    }

    fn is_committed(&self) -> bool {
        match &self.observer {
            Observer::Stream(observer) => observer.seen_content() || self.received > MAX_HELD,
            Observer::Opaque => self.received > 0,
            // What becomes nothing is not held.
            Observer::Crossing(crosser) => {
                crosser.transcoder.seen_content() || self.received > MAX_HELD && !self.queue.is_empty()
            }
            Observer::Tail(_) => true,
        }
    }

    /// Takes one frame, or the end, of the upstream.
    ///
    /// # Errors
    /// When the answer is broken; what is in the queue is still good.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        match ready!(Pin::new(&mut self.upstream).poll_frame(cx)) {
            Some(Ok(frame)) => {
                (self.last_frame, self.begun) = (Instant::now(), true);
                Poll::Ready(frame.into_data().map_or(Ok(()), |data| self.forward(data)))
            }
            Some(Err(_)) => Poll::Ready(Err(Fault::Broken)),
            None => Poll::Ready(self.end()),
        }
    }

    fn forward(&mut self, frame: Bytes) -> Result<(), Fault> {
        self.received += frame.len();
        match &mut self.observer {
            Observer::Stream(observer) => {
                let pieces = observer.frame(frame).map_err(|_| Fault::Malformed)?;
                match &mut self.rewriter {
                    None => self.queue.extend(pieces),
                    Some(rewriter) => {
                        self.queue.extend(pieces.iter().flat_map(|piece| rewriter.push(piece)));
                    }
                }
                if observer.is_malformed() {
                    return Err(Fault::Malformed);
                }
            }
            Observer::Tail(tail) => {
                tail.push(&frame);
                self.pass(frame);
            }
            Observer::Opaque => self.queue.push_back(frame),
            Observer::Crossing(crosser) => {
                crosser.frame(&frame, &mut self.queue).map_err(|error| {
                    tracing::debug!("a stream can't be translated: {error}");
                    Fault::Malformed
                })?;
            }
        }
        Ok(())
    }

    fn pass(&mut self, frame: Bytes) {
        match &mut self.rewriter {
            None => self.queue.push_back(frame),
            Some(rewriter) => self.queue.extend(rewriter.push(&frame)),
        }
    }

    fn end(&mut self) -> Result<(), Fault> {
        match &mut self.observer {
            Observer::Stream(observer) => {
                self.queue.extend(observer.finish().map_err(|_| Fault::Truncated)?);
                self.queue.extend(self.rewriter.as_mut().and_then(|rewriter| rewriter.finish()));
            }
            Observer::Crossing(crosser) => {
                crosser.finish(&mut self.queue).map_err(|_| Fault::Truncated)?;
            }
            Observer::Tail(_) => {
                self.queue.extend(self.rewriter.as_mut().and_then(|rewriter| rewriter.finish()));
            }
            Observer::Opaque => {}
        }
        self.ended = true;
        Ok(())
    }

    /// Bytes of generated text that were seen.
    pub fn output_bytes(&self) -> u64 {
        match &self.observer {
            Observer::Stream(observer) => observer.output_bytes(),
            Observer::Crossing(crosser) => crosser.transcoder.output_bytes(),
            Observer::Tail(_) | Observer::Opaque => 0,
        }
    }

    /// What ends a translated stream before its time; `None`: it is not translated.
    pub fn stop(&mut self, choices: u64) -> Option<Bytes> {
        let Observer::Crossing(crosser) = &mut self.observer else { return None };
        Some(crosser.stop(choices))
    }

    /// Whether events can be put in here; only streams have any.
    pub fn has_events(&self) -> bool {
        matches!(self.observer, Observer::Stream(_) | Observer::Crossing(_))
    }

    /// Inside an event a comment, or an event of ours, would be part of it.
    pub fn is_between_events(&self) -> bool {
        match &self.observer {
            Observer::Stream(observer) => observer.is_between_events(),
            // What is translated is written whole.
            Observer::Crossing(_) => true,
            Observer::Tail(_) | Observer::Opaque => false,
        }
    }

    /// What an error that the upstream has reported itself, and the client has got, is called in the request log.
    pub fn reported_error(&self) -> Option<&'static str> {
        Some(match classify::told(self.observer.error()?) {
            Verdict::ClientFault => "upstream_rejected",
            Verdict::RateLimited => "upstream_rate_limited",
            Verdict::CredentialFault => "upstream_credential_rejected",
            Verdict::Success | Verdict::Failure => "upstream_error",
        })
    }

    /// Moves what was observed into the context.
    pub fn collect(&self, context: &mut RequestContext) {
        match &self.observer {
            Observer::Stream(observer) => {
                context.usage = observer.usage();
                context.provider_cost = observer.provider_cost();
                context.finish_reason = observer.finish_reason().cloned();
                context.output_bytes = observer.unreported_bytes();
                context.measures = observer.measures();
                context.service_tier = observer.service_tier();
            }
            Observer::Tail(tail) => {
                let info = tail.scan();
                context.usage = info.usage;
                context.provider_cost = info.provider_cost;
                // Text without its framing is about half of an answer.
                context.output_bytes = tail.total / 2;
                context.measures = info.measures;
                context.service_tier = info.service_tier;
            }
            Observer::Crossing(crosser) => {
                let transcoder = &crosser.transcoder;
                context.usage = transcoder.usage();
                context.finish_reason = transcoder.finish_reason().cloned();
                context.output_bytes = transcoder.unreported_bytes();
                context.service_tier = transcoder.service_tier();
            }
            Observer::Opaque => {}
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
