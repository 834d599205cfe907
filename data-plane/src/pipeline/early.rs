//! From dispatch to the answer, and what a stream's client gets when the upstream is silent for too long before it
//! answers: load balancers close a connection without bytes, often after 60 s, while a model may think for minutes. So
//! after [`Deadline::keep_alive`] the 200 is committed and comments are sent (B7, C17). Candidates are tried as before then, as long as none has begun to answer; whatever the last one says
//! is in the stream, errors as an event. Called by [`super::run`].

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use nemo_llm::{Endpoint, ErrorBody, ErrorDialect, decode_error, render_stream_error};
use tokio::time::{Instant, Sleep};

use super::{
    attempts::{self, Chain, Clock},
    body::{Body, Interrupted},
    context::{Ending, RequestContext},
    dispatch::Outgoing,
    error::{GatewayError, Kind},
    headers, keep_alive,
    original::Original,
    reserve, throttle,
    timeouts::Deadline,
};
use crate::{app::State, config::Live, quota::Denied, routing::Decision};

/// All that is needed to answer a request that was routed.
pub struct Answering {
    pub state: Arc<State>,
    pub live: Arc<Live>,
    pub decision: Decision,
    pub headers: HeaderMap,
    /// For the first candidate; what the others get is made of the original.
    pub outgoing: Outgoing,
    pub deadline: Deadline,
    pub original: Original,
    pub clock: Clock,
    /// Instead of the organization's number of retries.
    pub retries: Option<u8>,
    pub endpoint: Endpoint,
    pub dialect: ErrorDialect,
    /// Nothing is held for the request yet.
    pub denied: Option<Denied>,
}

type Slot = Option<Box<RequestContext>>;
type Answered = (Result<Response<Body>, GatewayError>, Slot);
type Work = Pin<Box<dyn Future<Output = Answered> + Send>>;

impl Answering {
    /// Waits for a moment for what the budgets did not have.
    ///
    /// # Errors
    /// When they still don't.
    pub async fn park(&mut self, slot: &mut Slot) -> Result<(), GatewayError> {
        let gone = || GatewayError::new(Kind::Internal, "The request lost its context.");
        let context = slot.as_mut().ok_or_else(gone)?;
        if let Some(denied) = self.denied.take() {
            reserve::park(context, denied).await?;
        }
        if let Some(cap) = context.cap() {
            let deployment = &self.decision.first().ok_or_else(gone)?.deployment;
            let upstream = self.live.upstreams.get(deployment.slot).ok_or_else(gone)?;
            let called = (upstream, &**deployment);
            let outgoing = self.original.outgoing(self.endpoint, called, None, Some(cap), context);
            self.outgoing = outgoing.ok_or_else(gone)?;
        }
        Ok(())
    }

    /// Sends the request and answers. A stream's answer begins early when the upstream's does not.
    ///
    /// # Errors
    /// As [`attempts::run`].
    pub async fn run(self: Box<Self>, slot: &mut Slot) -> Result<Response<Body>, GatewayError> {
        let stream = slot.as_ref().is_some_and(|context| context.stream);
        match self.deadline.keep_alive.filter(|_| stream) {
            Some(silence) => self.run_stream(slot, silence).await,
            None => self.whole(slot).await,
        }
    }

    async fn whole(self: Box<Self>, slot: &mut Slot) -> Result<Response<Body>, GatewayError> {
        let Self { outgoing, deadline, endpoint, dialect, clock, retries, .. } = *self;
        let chain = Chain {
            state: &self.state,
            live: &self.live,
            decision: &self.decision,
            original: &self.original,
            headers: &self.headers,
            endpoint,
            dialect,
            clock,
            retries,
        };
        attempts::run(&chain, outgoing, deadline, slot).await
    }

    async fn run_stream(
        self: Box<Self>,
        slot: &mut Slot,
        silence: Duration,
    ) -> Result<Response<Body>, GatewayError> {
        let (live, dialect) = (self.live.clone(), self.dialect);
        // Where there are several candidates it is not known yet who will have answered.
        let only = match self.decision.picks.as_slice() {
            [only] => only.deployment.slot,
            _ => usize::MAX,
        };
        let rates = slot.as_ref().and_then(|context| context.rates);
        let mut own = slot.take();
        let mut work: Work = Box::pin(async move {
            let answered = self.whole(&mut own).await;
            (answered, own)
        });
        match tokio::time::timeout(silence, &mut work).await {
            Ok((answered, rest)) => {
                *slot = rest;
                answered
            }
            Err(_) => Ok(head(&live, only, rates, EarlyBody::new(work, silence, dialect))),
        }
    }
}

fn head(live: &Live, deployment: usize, rates: throttle::Told, body: EarlyBody) -> Response<Body> {
    let mut response = Response::new(Body::Early(Box::new(body)));
    let own = response.headers_mut();
    own.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    own.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    own.insert(headers::CONFIG_VERSION, live.revision.clone());
    if let Some(rates) = &rates {
        throttle::describe(rates, own);
    }
    if let Some(upstream) = live.upstreams.get(deployment) {
        own.insert(headers::PROVIDER, upstream.provider_header.clone());
        own.insert(headers::MODEL, upstream.model_header.clone());
    }
    response
}

/// A stream whose answer has not begun yet.
pub struct EarlyBody {
    state: Phase,
    silence: Duration,
    timer: Pin<Box<Sleep>>,
    dialect: ErrorDialect,
}

enum Phase {
    Waiting(Work),
    /// The answer is there.
    Answer(Body),
    /// This event says what went wrong; then the connection is cut.
    Failed(Option<Bytes>),
    /// One turn for the connection to write the event out.
    Flushed,
}

impl EarlyBody {
    fn new(work: Work, silence: Duration, dialect: ErrorDialect) -> Self {
        // The first comment is due: it is what the head was sent for.
        let timer = Box::pin(tokio::time::sleep_until(Instant::now()));
        Self { state: Phase::Waiting(work), silence, timer, dialect }
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        loop {
            match &mut self.state {
                Phase::Waiting(work) => match work.as_mut().poll(cx) {
                    Poll::Ready(answered) => self.state = settled(answered, self.dialect),
                    Poll::Pending => {
                        if self.timer.as_mut().poll(cx).is_pending() {
                            return Poll::Pending;
                        }
                        self.timer.as_mut().reset(Instant::now() + self.silence);
                        return Poll::Ready(Some(Ok(Frame::data(keep_alive::sign(self.dialect)))));
                    }
                },
                Phase::Answer(body) => return Pin::new(body).poll_frame(cx),
                Phase::Failed(event) => {
                    if let Some(event) = event.take() {
                        return Poll::Ready(Some(Ok(Frame::data(event))));
                    }
                    self.state = Phase::Flushed;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Phase::Flushed => return Poll::Ready(Some(Err(Interrupted))),
            }
        }
    }
}

/// What follows the comments: the answer if it is a stream, else an event that says why there is none.
fn settled((answered, context): Answered, dialect: ErrorDialect) -> Phase {
    let event = match answered {
        Ok(response) => match (response.status(), response.into_body()) {
            (StatusCode::OK, body @ Body::Metered(_)) => return Phase::Answer(body),
            (status, Body::Full(refusal)) if status != StatusCode::OK => refused(status, &refusal, dialect),
            _ => {
                let error =
                    GatewayError::new(Kind::UpstreamProtocol, "The upstream did not answer with a stream.");
                render_stream_error(dialect, &error.body())
            }
        },
        Err(error) => {
            if let Some(mut context) = context {
                super::log(&context, &error);
                // The client has seen a 200.
                context.status = StatusCode::OK.as_u16();
                context.finish(Ending::Interrupted(error.code()));
            }
            render_stream_error(dialect, &error.body())
        }
    };
    Phase::Failed(Some(event))
}

/// The upstream's refusal, which is recorded already.
fn refused(status: StatusCode, body: &[u8], dialect: ErrorDialect) -> Bytes {
    let said = decode_error(body);
    let error = ErrorBody {
        status: status.as_u16(),
        message: said.message.as_deref().unwrap_or("The upstream refused the request without saying why."),
        kind: said.kind.as_deref().unwrap_or("invalid_request_error"),
        code: said.code.as_deref(),
        param: said.param.as_deref(),
        metadata: None,
    };
    render_stream_error(dialect, &error)
}
