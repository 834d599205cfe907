//! What the client gets: the upstream's answer with its ids tagged again, or a film as it comes. Bounded by nothing but
//! time, as nothing is kept of it. Called by [`super`] and [`super::veo`].

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use nemo_llm::{ErrorDialect, providers::responses::affinity::Rewriter, render_stream_error};
use tokio::time::{Instant, Sleep};

use super::{Held, POLL_AFTER, Sending, pass_on, send::Reply};
use crate::{
    pipeline::{body::Interrupted, error::GatewayError, error::Kind, headers, timeouts::Deadline},
    upstream::UpstreamBody,
};

/// An answer on its way.
pub struct Answer {
    head: Head,
    body: Content,
}

struct Head {
    status: StatusCode,
    headers: HeaderMap,
}

enum Content {
    Whole(Whole),
    Passing(Box<Passing>),
}

/// What says how much of a film this is, and what it is called.
const OF_FILMS: [HeaderName; 3] = [header::ACCEPT_RANGES, header::CONTENT_RANGE, header::CONTENT_DISPOSITION];

impl Answer {
    /// The upstream's answer, its ids as this gateway tells them.
    pub fn tagged(sending: &Sending<'_>, reply: Reply, dialect: ErrorDialect, held: Held) -> Self {
        let (mut head, upstream) = reply.into_parts();
        let kind = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let events = kind.get(..17).is_some_and(|it| it.eq_ignore_ascii_case(b"text/event-stream"));
        let tagger = sending.target.tagger.clone();
        let rewriter = if events { Rewriter::stream(tagger) } else { Rewriter::answer(tagger) };
        let mut own = own_headers(sending, &mut head.headers, true);
        pass_on(&[POLL_AFTER], &head.headers, &mut own);
        let mut body = Passing::new(upstream, sending.deadline, held);
        (body.rewriter, body.events) = (Some(rewriter), events.then_some(dialect));
        Self { head: Head { status: head.status, headers: own }, body: Content::Passing(Box::new(body)) }
    }

    /// Bytes as they come.
    pub fn film(sending: &Sending<'_>, reply: Reply, held: Held) -> Self {
        let (mut head, upstream) = reply.into_parts();
        let mut own = own_headers(sending, &mut head.headers, false);
        pass_on(&OF_FILMS, &head.headers, &mut own);
        let body = Passing::new(upstream, sending.deadline, held);
        Self { head: Head { status: head.status, headers: own }, body: Content::Passing(Box::new(body)) }
    }

    /// Something that was made here.
    pub fn whole(sending: &Sending<'_>, kind: &str, body: impl Into<Bytes>, held: Held) -> Self {
        let mut own = own_headers(sending, &mut HeaderMap::new(), false);
        let kind =
            HeaderValue::from_str(kind).unwrap_or(HeaderValue::from_static("application/octet-stream"));
        own.insert(header::CONTENT_TYPE, kind);
        let head = Head { status: StatusCode::OK, headers: own };
        Self { head, body: Content::Whole(Whole { rest: body.into(), _held: held }) }
    }

    pub fn into_response(self) -> Response<axum::body::Body> {
        let mut response = Response::new(match self.body {
            Content::Whole(body) => axum::body::Body::new(body),
            Content::Passing(body) => axum::body::Body::new(body),
        });
        *response.status_mut() = self.head.status;
        *response.headers_mut() = self.head.headers;
        response
    }
}

fn own_headers(sending: &Sending<'_>, upstream: &mut HeaderMap, tagged: bool) -> HeaderMap {
    let target = sending.target;
    let own = headers::Own {
        passed: headers::Passed::take(upstream),
        config_version: Some(sending.live.revision.clone()),
        provider: Some(target.upstream.provider_header.clone()),
        model: Some(target.upstream.model_header.clone()),
        edits: tagged.then_some(HeaderValue::from_static("affinity")),
        ..headers::Own::default()
    };
    own.into_map()
}

/// A body that is there. It goes out piece by piece, so that it counts as held until most of it is sent.
struct Whole {
    rest: Bytes,
    _held: Held,
}

/// Bytes of such a piece.
const PIECE: usize = 64 << 10;

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        let rest = &mut self.get_mut().rest;
        let piece = rest.split_to(rest.len().min(PIECE));
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// A body that passes.
struct Passing {
    upstream: UpstreamBody,
    rewriter: Option<Rewriter>,
    /// In whose words an error is told: the body is a stream of events.
    events: Option<ErrorDialect>,
    deadline: Deadline,
    timer: Pin<Box<Sleep>>,
    last: Instant,
    queue: VecDeque<Bytes>,
    state: State,
    _held: Held,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Complete,
    /// What was sent is not all: the connection is cut, once that is written out.
    Broken {
        flushed: bool,
    },
}

impl Passing {
    fn new(upstream: UpstreamBody, deadline: Deadline, held: Held) -> Self {
        let last = Instant::now();
        let (due, _) = deadline.next_frame(Some(last));
        Self {
            upstream,
            rewriter: None,
            events: None,
            deadline,
            timer: Box::pin(tokio::time::sleep_until(due)),
            last,
            queue: VecDeque::new(),
            state: State::Open,
            _held: held,
        }
    }

    /// Takes one step: queues bytes, or changes the state.
    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match Pin::new(&mut self.upstream).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.last = Instant::now();
                let Ok(data) = frame.into_data() else { return Poll::Ready(()) };
                match &mut self.rewriter {
                    Some(rewriter) => self.queue.extend(rewriter.push(&data)),
                    None if data.is_empty() => {}
                    None => self.queue.push_back(data),
                }
            }
            Poll::Ready(Some(Err(_))) => {
                let message = "The upstream broke off in the middle of its answer.";
                self.cut(&GatewayError::new(Kind::UpstreamInterrupted, message));
            }
            Poll::Ready(None) => {
                self.queue.extend(self.rewriter.as_mut().and_then(Rewriter::finish));
                self.state = State::Complete;
            }
            Poll::Pending => {
                ready!(self.timer.as_mut().poll(cx));
                let (due, waited) = self.deadline.next_frame(Some(self.last));
                if due <= Instant::now() {
                    self.cut(&waited.error());
                } else {
                    self.timer.as_mut().reset(due);
                }
            }
        }
        Poll::Ready(())
    }

    fn cut(&mut self, error: &GatewayError) {
        tracing::warn!(code = error.code(), "an answer about something kept was cut short");
        if let Some(dialect) = self.events {
            // Half an event may have gone out.
            self.queue.push_back(Bytes::from_static(b"\n\n"));
            self.queue.push_back(render_stream_error(dialect, &error.body()));
        }
        self.state = State::Broken { flushed: false };
    }
}

impl HttpBody for Passing {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        let this = self.get_mut();
        loop {
            if let Some(frame) = this.queue.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(frame))));
            }
            match this.state {
                State::Open => ready!(this.poll_upstream(cx)),
                State::Complete => return Poll::Ready(None),
                State::Broken { flushed: false } => {
                    this.state = State::Broken { flushed: true };
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                State::Broken { flushed: true } => return Poll::Ready(Some(Err(Interrupted))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::Complete && self.queue.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        // With tags in it, it gets longer.
        if self.rewriter.is_some() { SizeHint::default() } else { self.upstream.size_hint() }
    }
}
