//! The upstream's answer becomes the client's. Called by [`super::attempts`].
//!
//! A complete answer is read first, because its cost goes into the headers; beyond [`MAX_BUFFERED`] it is passed on
//! while it comes. A stream is passed on frame by frame, from its first content on: that is where a request is committed to
//! one candidate.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::BodyExt as _;
use nemo_llm::{
    EditSet, Endpoint, ErrorBody, ErrorDialect, StreamObserver, decode_error,
    providers::responses::affinity::Rewriter, render_error, scan_response,
};
use nemo_proto::usage::CostSource;
use nemo_types::money::Decimal;

use super::{
    affinity, attempts,
    body::{Body, Frames},
    context::{Cost, Ending, RequestContext},
    crossing,
    dispatch::{Payload, Refusal, Reply},
    failure::Failure,
    feed::{Feed, Observer, TailScanner},
    headers,
    metered_body::MeteredBody,
    timeouts::{Deadline, Waited},
};
use crate::{
    config::Live,
    upstream::{UpstreamBody, classify},
};

/// Answers of up to this size are complete before their head is sent.
pub const MAX_BUFFERED: usize = 8 * 1024 * 1024;

/// Builds the answer. On an error the context is put back into `slot`, so that the failure is recorded.
///
/// # Errors
/// When the answer goes wrong before anything of it went to the client.
pub async fn run(
    reply: Reply,
    live: &Live,
    dialect: ErrorDialect,
    mut context: Box<RequestContext>,
    slot: &mut Option<Box<RequestContext>>,
) -> Result<Response<Body>, Box<Failure>> {
    let Reply { head, payload, edits, strip_usage_chunk, deadline, slot: deployment, crossing } = reply;
    context.status = head.status.as_u16();
    let head = Head { head, edits, deployment };
    let incoming = match payload {
        Payload::Refusal(refused) => {
            return Ok(refusal(head.build(live, &context, None), *refused, dialect, context));
        }
        Payload::Estimated(estimate) => {
            return Ok(estimated(head.build(live, &context, None), estimate, context));
        }
        Payload::Success(incoming) => incoming,
        Payload::Joined(answers) => {
            let response = head.build(live, &context, None);
            let Some(crossing) = crossing else {
                *slot = Some(context);
                return Err(Failure::unserved());
            };
            return crossing::answer::joined(response, &answers, *crossing, dialect, context, slot);
        }
    };
    if let Some(mut crossing) = crossing {
        let streams = crossing::answer::is_stream(head.content_type());
        if context.endpoint == Endpoint::Videos {
            crossing.tagger = affinity::tagger(live, &context);
        }
        let answer = crossing::answer::run(
            head.build(live, &context, None),
            (streams, incoming),
            *crossing,
            (deadline, dialect),
            context,
            slot,
        );
        return Box::pin(answer).await;
    }
    let content_type = head.content_type();
    let events = is_event_stream(content_type);
    if events || is_opaque(context.endpoint, content_type) {
        let observer = match events {
            true => Observer::Stream(observer(&context, strip_usage_chunk)),
            false => Observer::Opaque,
        };
        let mut feed = Box::new(Feed::new(incoming, observer, deadline));
        if events {
            feed.rewriter = affinity::tagger(live, &context).map(|it| Box::new(Rewriter::stream(it)));
        }
        if let Err(failure) = feed.open().await {
            *slot = Some(context);
            return Err(failure);
        }
        context.content_came(feed.last_frame.into());
        let cost = if events { None } else { context.cost() };
        let mut response = head.build(live, &context, cost);
        if feed.rewriter.is_some() {
            declare(response.headers_mut(), "affinity");
        }
        if events {
            if context.usage_asked && context.deployment.as_ref().is_some_and(|it| it.price.is_some()) {
                declare_cost(response.headers_mut());
            }
            context.stream = true;
            context.release_body();
        }
        *response.body_mut() = Body::Metered(MeteredBody::new(feed, context, dialect));
        return Ok(response);
    }
    match complete(incoming, deadline, &mut context).await {
        Ok(Read::All(frames)) => match error_inside(context.endpoint, &frames) {
            None => Ok(unary(head, live, frames, context)),
            Some(failure) => {
                *slot = Some(context);
                Err(failure)
            }
        },
        Ok(Read::TooLarge(frames, rest)) => {
            let observer = Observer::Tail(TailScanner::new(context.endpoint));
            let mut feed = Box::new(Feed::new(rest, observer, deadline));
            feed.rewriter = affinity::tagger(live, &context).map(|it| Box::new(Rewriter::answer(it)));
            feed.prepend(frames.into_vec());
            let mut response = head.build(live, &context, None);
            if feed.rewriter.is_some() {
                declare(response.headers_mut(), "affinity");
            }
            *response.body_mut() = Body::Metered(MeteredBody::new(feed, context, dialect));
            Ok(response)
        }
        Err(error) => {
            *slot = Some(context);
            Err(error)
        }
    }
}

/// What the head of the answer is made of, once all of it is known.
struct Head {
    /// Of the upstream's answer.
    head: http::response::Parts,
    edits: EditSet,
    /// The slot of the deployment.
    deployment: usize,
}

impl Head {
    fn content_type(&self) -> &[u8] {
        self.head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default()
    }

    /// The answer without its body.
    fn build(mut self, live: &Live, context: &RequestContext, cost: Option<Cost>) -> Response<Body> {
        let upstream = live.upstreams.get(self.deployment);
        let own = headers::Own {
            passed: headers::Passed::take(&mut self.head.headers),
            config_version: Some(live.revision.clone()),
            provider: upstream.map(|upstream| upstream.provider_header.clone()),
            model: upstream.map(|upstream| upstream.model_header.clone()),
            attempts: attempts::count(&context.attempts),
            strategy: context.strategy.map(|strategy| HeaderValue::from_static(strategy.name())),
            overhead_ms: Some(millis(context.overhead)),
            edits: self.edits.header_value().map(HeaderValue::from_static),
            cost: cost.map(|cost| {
                [decimal_header(&cost.nanos.to_decimal()), HeaderValue::from_static(source(cost.source))]
            }),
            rates: context.rates.as_ref(),
        };
        let mut own = own.into_map();
        attempts::list_failed(&context.attempts, &mut own);
        let mut response = Response::new(Body::full(Bytes::new()));
        *response.status_mut() = self.head.status;
        *response.headers_mut() = own;
        response
    }
}

/// Names the edit of an answer that puts its cost into it.
pub fn declare_cost(headers: &mut HeaderMap) {
    declare(headers, "cost");
}

/// Names an edit of an answer, after those of the request.
pub fn declare(headers: &mut HeaderMap, edit: &str) {
    let made = headers.get(headers::EDITS).map(HeaderValue::as_bytes).unwrap_or_default();
    let all = if made.is_empty() { edit.as_bytes().to_vec() } else { [made, b",", edit.as_bytes()].concat() };
    if let Ok(value) = HeaderValue::from_bytes(&all) {
        headers.insert(headers::EDITS, value);
    }
}

/// A client that wants its usage gets the cost with it.
fn observer(context: &RequestContext, strip_usage_chunk: bool) -> StreamObserver {
    let observer = StreamObserver::new(context.endpoint, strip_usage_chunk);
    if context.usage_asked { observer.with_pricing(context.pricing()) } else { observer }
}

/// Milliseconds with three decimals.
fn millis(duration: Duration) -> HeaderValue {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    decimal_header(&Decimal::new(false, micros / 1000, micros % 1000, 3))
}

fn decimal_header(decimal: &Decimal) -> HeaderValue {
    HeaderValue::from_str(decimal.as_str()).unwrap_or(HeaderValue::from_static("0"))
}

fn is_event_stream(content_type: &[u8]) -> bool {
    starts(content_type, "text/event-stream")
}

/// Sound and the like: passed on as it comes, with nothing in it to be read.
fn is_opaque(endpoint: Endpoint, content_type: &[u8]) -> bool {
    let starts = |kind| starts(content_type, kind);
    let readable = starts("application/json") || starts("text/");
    (endpoint == Endpoint::Speech && !readable)
        || ["audio/", "video/", "image/", "application/octet-stream"].into_iter().any(starts)
}

fn starts(content_type: &[u8], kind: &str) -> bool {
    content_type.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind.as_bytes()))
}

/// What the request costs, as far as that is known already.
pub fn price(headers: &mut HeaderMap, context: &RequestContext) {
    if let Some(cost) = context.cost() {
        headers.insert(headers::COST_USD, decimal_header(&cost.nanos.to_decimal()));
        headers.insert(headers::COST_SOURCE, HeaderValue::from_static(source(cost.source)));
    }
}

/// The upstream's refusal, in the client's dialect (B3). Its own body is passed on when it has that shape already.
pub fn refusal(
    mut response: Response<Body>,
    Refusal { body, said, native }: Refusal,
    dialect: ErrorDialect,
    mut context: Box<RequestContext>,
) -> Response<Body> {
    let status = response.status().as_u16();
    let body = if native && has_shape(dialect, &body) {
        body
    } else {
        let message =
            said.message.as_deref().unwrap_or("The upstream refused the request without saying why.");
        let kind = said.kind.as_deref().unwrap_or("invalid_request_error");
        let (code, param) = (said.code.as_deref(), said.param.as_deref());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.remove(header::CONTENT_ENCODING);
        render_error(dialect, &ErrorBody { status, message, kind, code, param, metadata: None })
    };
    context.response_bytes = body.len() as u64;
    context.finish(Ending::Refused { status });
    *response.body_mut() = Body::full(body);
    response
}

/// A count that is the gateway's own.
fn estimated(
    mut response: Response<Body>,
    estimate: Bytes,
    mut context: Box<RequestContext>,
) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(headers::ESTIMATED, HeaderValue::from_static("input_tokens"));
    context.response_bytes = estimate.len() as u64;
    context.finish(Ending::Complete);
    *response.body_mut() = Body::full(estimate);
    response
}

/// Whether this dialect's SDKs can read the body. OpenAI's read `message` as text, and `code` as text or null.
fn has_shape(dialect: ErrorDialect, body: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else { return false };
    let error = &value["error"];
    let (message, code) = (error["message"].is_string(), &error["code"]);
    message
        && match dialect {
            ErrorDialect::OpenAi => code.is_string() || code.is_null(),
            ErrorDialect::OpenRouter => false,
            ErrorDialect::Anthropic => value["type"] == "error" && error["type"].is_string(),
            ErrorDialect::Google => code.is_u64() && error["status"].is_string(),
        }
}

/// A gateway behind this one may say 200 before it knows, and send nothing but an error then.
fn error_inside(endpoint: Endpoint, frames: &[Bytes]) -> Option<Box<Failure>> {
    const BEGIN: &[u8] = b"{\"error\":{";
    if !frames.first()?.starts_with(BEGIN) || !endpoint.has_choices() {
        return None;
    }
    let body = frames.concat();
    let said = decode_error(&body);
    let verdict = classify::told(&said);
    let mut failure = Failure::told(said, verdict)?;
    let info = scan_response(endpoint, &body);
    (failure.usage, failure.provider_cost) = (info.usage, info.provider_cost);
    Some(failure)
}

fn unary(head: Head, live: &Live, frames: Frames, mut context: Box<RequestContext>) -> Response<Body> {
    let joined;
    let whole: &[u8] = match frames.as_slice() {
        [only] => only,
        several => {
            joined = several.concat();
            &joined
        }
    };
    let info = scan_response(context.endpoint, whole);
    context.usage = info.usage;
    context.provider_cost = info.provider_cost;
    context.finish_reason = info.finish_reason;
    context.service_tier = info.service_tier;
    context.response_bytes = whole.len() as u64;
    context.output_bytes = info.output_bytes;
    context.measures = info.measures;
    context.answer_came();
    let cost = context.cost();
    let mut response = head.build(live, &context, cost);
    let with_cost = info.cost_place.filter(|_| context.usage_asked).and_then(|place| {
        let edit = place.edit(whole, cost?.nanos)?;
        edit.apply(whole, 0)
    });
    let frames = match affinity::tagger(live, &context) {
        Some(tagger) => {
            declare(response.headers_mut(), "affinity");
            let rewritten = affinity::tagged(tagger, &frames);
            context.response_bytes = rewritten.iter().map(|frame| frame.len() as u64).sum();
            Frames::from_vec(rewritten)
        }
        None => frames,
    };
    let frames = match with_cost {
        Some(body) => {
            declare_cost(response.headers_mut());
            context.response_bytes = body.len() as u64;
            Frames::from_buf([Bytes::from(body)])
        }
        None => frames,
    };
    context.completed(cost);
    *response.body_mut() = Body::frames(frames);
    response
}

fn source(source: CostSource) -> &'static str {
    match source {
        CostSource::Provider => "provider",
        CostSource::Priced => "priced",
        CostSource::Estimated | CostSource::Unspecified => "estimated",
    }
}

/// What was read of an answer.
pub enum Read {
    All(Frames),
    TooLarge(Frames, UpstreamBody),
}

/// Reads the answer to its end or to the buffer's bound.
pub async fn complete(
    mut incoming: UpstreamBody,
    deadline: Deadline,
    context: &mut RequestContext,
) -> Result<Read, Box<Failure>> {
    let mut frames = Frames::new();
    let mut size = 0;
    let mut waiting = Waited::Idle;
    let read = async {
        loop {
            // Mostly it has come with the head, and no clock is needed.
            let next = match incoming.frame().now_or_never() {
                Some(next) => next,
                None => {
                    let (due, waited) = deadline.next_frame(Some(tokio::time::Instant::now()));
                    waiting = waited;
                    let next = tokio::time::timeout_at(due, incoming.frame()).await;
                    let Ok(next) = next else { return Ok(None) };
                    next
                }
            };
            let Some(frame) = next else { break };
            let Ok(data) = frame?.into_data() else { continue };
            size += data.len();
            frames.push(data);
            if size > MAX_BUFFERED {
                return Ok(Some(false));
            }
        }
        Ok::<_, hyper::Error>(Some(true))
    };
    let outcome = read.await;
    context.answered();
    match outcome {
        Ok(Some(true)) => Ok(Read::All(frames)),
        Ok(Some(false)) => Ok(Read::TooLarge(frames, incoming)),
        Ok(None) => {
            let failure = Failure::timed_out(waiting, deadline.hurried);
            Err(Box::new(Failure { status: 200, ..*failure }))
        }
        Err(_) => Err(Failure::interrupted("interrupted", "broke off in the middle of its answer")),
    }
}
