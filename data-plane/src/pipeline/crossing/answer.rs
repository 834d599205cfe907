//! The answer of an upstream of another dialect, translated on its way back: whole, or event by event. Called by
//! [`respond`](super::super::respond) for requests that have a [`Crossing`].

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use nemo_llm::{
    CodecError, ErrorDialect, FinishReason, Plan, ServiceTier, StreamObserver, UpstreamErrorInfo, count,
    providers::responses::affinity::Tagger,
    scan_response,
    transcode::{self, StreamTranscoder},
};
use nemo_types::{Measure, Usage};

use super::Crossing;
use crate::{
    pipeline::{
        affinity,
        body::Body,
        context::{Ending, RequestContext},
        dispatch::Refusal,
        failure::Failure,
        feed::{Feed, Observer},
        headers,
        metered_body::MeteredBody,
        respond::{self, Read},
        timeouts::Deadline,
    },
    upstream::UpstreamBody,
};

/// A stream on its way through two dialects.
pub struct Crosser {
    pub transcoder: StreamTranscoder,
    /// Looks at what the client gets, to put the cost into it; for clients that asked for their usage.
    priced: Option<StreamObserver>,
}

impl Crosser {
    /// What the client gets for this piece of the upstream's body. What comes before an error is good.
    pub fn frame(
        &mut self,
        frame: &Bytes,
        queue: &mut impl Extend<Bytes>,
    ) -> Result<(), transcode::TranscodeError> {
        let mut out = Vec::with_capacity(frame.len().min(MAX_AHEAD));
        let read = self.transcoder.frame(frame, &mut out);
        self.push(out, queue);
        read
    }

    /// The same for the end of that body.
    pub fn finish(&mut self, queue: &mut impl Extend<Bytes>) -> Result<(), transcode::TranscodeError> {
        let mut out = Vec::new();
        let ended = self.transcoder.finish(&mut out);
        self.push(out, queue);
        ended
    }

    /// What tells the client that the gateway stops its answer.
    pub fn stop(&mut self, choices: u64) -> Bytes {
        let mut out = Vec::new();
        self.transcoder.stop(choices, &mut out);
        out.into()
    }

    fn push(&mut self, out: Vec<u8>, queue: &mut impl Extend<Bytes>) {
        if out.is_empty() {
            return;
        }
        let out = Bytes::from(out);
        match &mut self.priced {
            // Events of our own are whole, and never too long.
            Some(observer) => queue.extend(observer.frame(out).unwrap_or_default()),
            None => queue.extend([out]),
        }
    }
}

/// Room that is made ahead for what a frame becomes.
const MAX_AHEAD: usize = 16 << 10;

/// Builds the client's answer. `response` has the gateway's own headers already; `streams`: [`is_stream`] of what comes.
///
/// # Errors
/// When the answer goes wrong before anything of it went to the client.
pub async fn run(
    mut response: Response<Body>,
    (streams, incoming): (bool, UpstreamBody),
    crossing: Crossing,
    (deadline, dialect): (Deadline, ErrorDialect),
    mut context: Box<RequestContext>,
    slot: &mut Option<Box<RequestContext>>,
) -> Result<Response<Body>, Box<Failure>> {
    declare_dropped(&mut response, &crossing);
    if streams != context.stream {
        *slot = Some(context);
        return Err(Failure::protocol("answered with another content type than was asked for"));
    }
    let kind = if streams { "text/event-stream" } else { "application/json" };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if streams {
        return stream(response, incoming, crossing, (deadline, dialect), context, slot).await;
    }
    let read = respond::complete(incoming, deadline, &mut context).await;
    let failure = match read {
        Ok(Read::All(frames)) => return whole(response, &frames.concat(), crossing, dialect, context, slot),
        Ok(Read::TooLarge(..)) => Failure::protocol("sent an answer that is too large to be translated"),
        Err(failure) => failure,
    };
    *slot = Some(context);
    Err(failure)
}

/// The same of the answers to a request's pieces.
///
/// # Errors
/// When they are no answers.
pub fn joined(
    mut response: Response<Body>,
    answers: &[u8],
    crossing: Crossing,
    dialect: ErrorDialect,
    mut context: Box<RequestContext>,
    slot: &mut Option<Box<RequestContext>>,
) -> Result<Response<Body>, Box<Failure>> {
    declare_dropped(&mut response, &crossing);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    context.answered();
    whole(response, answers, crossing, dialect, context, slot)
}

fn declare_dropped(response: &mut Response<Body>, crossing: &Crossing) {
    if let Some(dropped) = &crossing.dropped {
        response.headers_mut().insert(headers::DROPPED_PARAMS, dropped.clone());
    }
}

/// The client's answer, of all that the upstream has said.
fn whole(
    response: Response<Body>,
    answer: &[u8],
    crossing: Crossing,
    dialect: ErrorDialect,
    context: Box<RequestContext>,
    slot: &mut Option<Box<RequestContext>>,
) -> Result<Response<Body>, Box<Failure>> {
    match translate(&crossing, answer) {
        Ok(translated) => Ok(unary(response, translated, crossing.tagger, context)),
        // Whoever else is asked would be asked for the same.
        Err(error) if error.withheld => Ok(withheld(response, error, dialect, context)),
        Err(error) => {
            tracing::debug!(request_id = %context.id, "an answer can't be translated: {error}");
            *slot = Some(context);
            Err(Failure::protocol("sent an answer that can't be read"))
        }
    }
}

/// The provider has kept its answer back, as OpenAI says it.
fn withheld(
    mut response: Response<Body>,
    error: CodecError,
    dialect: ErrorDialect,
    context: Box<RequestContext>,
) -> Response<Body> {
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let said = UpstreamErrorInfo {
        message: Some(error.message),
        kind: Some("invalid_request_error".to_owned()),
        code: Some(CONTENT_POLICY.to_owned()),
        param: Some(error.path).filter(|path| !path.is_empty()),
    };
    respond::refusal(response, Refusal { body: Bytes::new(), said, native: false }, dialect, context)
}

/// `error.code` of what a provider's filters have kept back.
const CONTENT_POLICY: &str = "content_policy_violation";

/// Whether an upstream's answer of this type comes event by event.
pub fn is_stream(kind: &[u8]) -> bool {
    let starts = |begin: &[u8]| kind.get(..begin.len()).is_some_and(|it| it.eq_ignore_ascii_case(begin));
    starts(b"text/event-stream") || starts(b"application/vnd.amazon.eventstream")
}

async fn stream(
    mut response: Response<Body>,
    incoming: UpstreamBody,
    crossing: Crossing,
    (deadline, dialect): (Deadline, ErrorDialect),
    mut context: Box<RequestContext>,
    slot: &mut Option<Box<RequestContext>>,
) -> Result<Response<Body>, Box<Failure>> {
    let transcoder = match crossing.plan {
        Plan::Transcode { from, to } => StreamTranscoder::new((from, to), crossing.echo, dialect),
        Plan::Splice | Plan::Convert(_) | Plan::Count { .. } => None,
    };
    let Some(transcoder) = transcoder else {
        *slot = Some(context);
        return Err(Failure::protocol("streams what can't be translated"));
    };
    let has_price = context.deployment.as_ref().is_some_and(|it| it.price.is_some());
    let priced = (context.usage_asked && has_price)
        .then(|| StreamObserver::new(context.endpoint, false).with_pricing(context.pricing()));
    if priced.is_some() {
        respond::declare_cost(response.headers_mut());
    }
    let observer = Observer::Crossing(Box::new(Crosser { transcoder, priced }));
    let mut feed = Box::new(Feed::new(incoming, observer, deadline));
    if let Err(failure) = feed.open().await {
        *slot = Some(context);
        return Err(failure);
    }
    context.content_came(feed.last_frame.into());
    context.release_body();
    *response.body_mut() = Body::Metered(MeteredBody::new(feed, context, dialect));
    Ok(response)
}

/// A complete answer in the client's dialect.
#[derive(Default)]
struct Translated {
    body: Vec<u8>,
    usage: Option<Usage>,
    finish_reason: Option<FinishReason>,
    service_tier: ServiceTier,
    output_bytes: u64,
    measures: Vec<Measure>,
}

fn translate(crossing: &Crossing, body: &[u8]) -> Result<Translated, CodecError> {
    match crossing.plan {
        Plan::Transcode { from, to } => {
            let transcode::Answer { body, usage, finish_reason, service_tier, output_bytes } =
                transcode::response((from, to), body, &crossing.echo)?;
            Ok(Translated { body, usage, finish_reason, service_tier, output_bytes, measures: Vec::new() })
        }
        Plan::Convert(conversion) => {
            let nemo_llm::Converted { body, usage, measures } = (conversion.response)(body, &crossing.echo)?;
            Ok(Translated { body, usage, measures, ..Translated::default() })
        }
        Plan::Count { from, by } => {
            let body = count::response((from, by), body)?;
            Ok(Translated { body, ..Translated::default() })
        }
        Plan::Splice => Err(CodecError::invalid("", "The answer is not to be translated.")),
    }
}

fn unary(
    mut response: Response<Body>,
    translated: Translated,
    tagger: Option<Tagger>,
    mut context: Box<RequestContext>,
) -> Response<Body> {
    let Translated { mut body, usage, finish_reason, service_tier, output_bytes, measures } = translated;
    context.usage = usage;
    context.finish_reason = finish_reason;
    context.service_tier = service_tier;
    context.output_bytes = output_bytes;
    context.measures = measures;
    context.answer_came();
    respond::price(response.headers_mut(), &context);
    if context.usage_asked
        && let Some(place) = scan_response(context.endpoint, &body).cost_place
        && let Some(priced) = context
            .cost()
            .and_then(|cost| place.edit(&body, cost.nanos))
            .and_then(|edit| edit.apply(&body, 0))
    {
        respond::declare_cost(response.headers_mut());
        body = priced;
    }
    if let Some(tagger) = tagger {
        body = affinity::tagged(tagger, [&body.into()]).concat();
    }
    context.response_bytes = body.len() as u64;
    context.finish(Ending::Complete);
    *response.body_mut() = Body::full(body);
    response
}
