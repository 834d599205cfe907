//! One attempt: build the upstream's request, send it, judge the answer. Called by [`super::attempts`].

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Limited};
use nemo_llm::{EditSet, Endpoint, Link, Plan, Segments, Spliced, UpstreamErrorInfo, codec, decode_error};
use nemo_runtime::{clock, in_place};
use nemo_snapshot::Deployment;

use super::{
    context::RequestContext, crossing::Crossing, failure::Failure, headers, pieces::Pieces,
    timeouts::Deadline,
};
use crate::{
    app::State,
    config::{Live, live::Upstream},
    routing::Pick,
    upstream::{Outbound, Patience, SegmentBody, SendError, Signer, UpstreamBody, Verdict, classify, hints},
};

/// How much of an upstream's error body is read.
const MAX_ERROR_BODY: usize = 256 * 1024;
const ERROR_BODY_PATIENCE: Duration = Duration::from_secs(5);

/// What is to be sent, and where.
pub struct Call<'a> {
    pub pick: &'a Pick,
    pub endpoint: Endpoint,
    pub outgoing: Outgoing,
    pub deadline: Deadline,
    /// Since the attempt before.
    pub waited: Duration,
}

/// The body that goes upstream.
pub struct Outgoing {
    pub body: SegmentBody,
    /// When it is not JSON.
    pub content_type: Option<HeaderValue>,
    pub edits: EditSet,
    pub strip_usage_chunk: bool,
    /// What most requests have no use for.
    pub cold: Option<Cold>,
}

/// Of a request that does not pass as it is.
pub enum Cold {
    /// It was translated, and so must be its answer.
    Crossing(Box<Crossing>),
    /// It can't be put into this candidate's words.
    Refused(Box<Failure>),
    /// These are to be fetched before it can be made.
    Wanting(Box<Vec<Link>>),
    /// The gateway answers it itself, with an estimate.
    Estimated(Bytes),
}

impl From<Spliced> for Outgoing {
    fn from(spliced: Spliced) -> Self {
        let Spliced { segments, edits, strip_usage_chunk, .. } = spliced;
        Self { body: SegmentBody::new(segments), content_type: None, edits, strip_usage_chunk, cold: None }
    }
}

/// An answer that the client gets.
pub struct Reply {
    pub head: http::response::Parts,
    pub payload: Payload,
    pub edits: EditSet,
    pub strip_usage_chunk: bool,
    pub deadline: Deadline,
    pub slot: usize,
    /// How the answer is to be translated.
    pub crossing: Option<Box<Crossing>>,
}

pub enum Payload {
    Success(UpstreamBody),
    /// What was answered to each of a request's pieces, as a JSON array.
    Joined(Bytes),
    /// The upstream's refusal of the client's request.
    Refusal(Box<Refusal>),
    /// The gateway's own estimate, in the client's dialect.
    Estimated(Bytes),
}

impl Reply {
    fn estimated(estimate: Bytes, slot: usize, deadline: Deadline) -> Self {
        let (head, ()) = Response::new(()).into_parts();
        let payload = Payload::Estimated(estimate);
        let edits = EditSet::default();
        Self { head, payload, edits, strip_usage_chunk: false, deadline, slot, crossing: None }
    }
}

/// An upstream's refusal, complete.
pub struct Refusal {
    pub body: Bytes,
    pub said: UpstreamErrorInfo,
    /// It is written in the client's dialect.
    pub native: bool,
}

/// Sends the request once. The attempt stands in the context from when it is sent.
///
/// # Errors
/// When there was no answer that is the client's.
pub async fn run(
    state: &State,
    live: &Live,
    call: Call<'_>,
    client_headers: &HeaderMap,
    context: &mut RequestContext,
) -> Result<Reply, Box<Failure>> {
    let Call { pick, endpoint, outgoing, mut deadline, waited: pause } = call;
    let Outgoing { body, content_type, edits, strip_usage_chunk, cold } = outgoing;
    let deployment = &pick.deployment;
    if let Some(Cold::Estimated(estimate)) = cold {
        context.answering_for(pick);
        return Ok(Reply::estimated(estimate, deployment.slot, deadline));
    }
    let upstream = live.upstreams.get(deployment.slot);
    let uri = upstream.and_then(|upstream| upstream.uri(endpoint, context.stream));
    let sent = context.attempting(pick, pause);
    let mut crossing = match cold {
        None => None,
        Some(Cold::Crossing(crossing)) => Some(crossing),
        Some(Cold::Refused(failure)) => return Err(failure),
        Some(Cold::Estimated(_) | Cold::Wanting(_)) => return Err(Failure::unserved()),
    };
    let (Some(upstream), Some(uri)) = (upstream, uri) else { return Err(unsent(Failure::unserved(), body)) };
    if let Some(key) = &context.key {
        match state.health.begin(live, key.org_id, deployment) {
            Ok(attempt) => context.health = Some(attempt),
            Err(refused) => return Err(unsent(Failure::cooling(refused), body)),
        }
    }
    let request = prepared(endpoint, upstream, (uri, client_headers), (body, content_type), context);
    context.sending();
    deadline.sent(sent.into());
    let (head_by, waited) = deadline.next_frame(None);
    let patience = Patience { now: sent, connect: deadline.connect, head_by };
    let answer = match &upstream.signer {
        None => state.upstream.send(&upstream.route, request, patience).await,
        // Boxed: few requests are signed.
        Some(signer) => Box::pin(signed(state, upstream, signer, (request, patience))).await?,
    };
    context.head_came(sent, answer.as_ref().map_or(0, |response| response.status().as_u16()));
    let response = answer.map_err(|failed| {
        let mut failure = Failure::unanswered(failed.error, waited, deadline.hurried);
        failure.unsent = failed.unsent.map(|request| request.into_body());
        failure
    })?;
    if let Some(estimate) = crossing.as_ref().and_then(|it| it.estimate(context, response.status(), "")) {
        return Ok(uncounted(estimate, deployment.slot, deadline, context));
    }
    let (head, mut payload) = judge(deployment, response, (endpoint, upstream)).await?;
    if let Some(crossing) = crossing.as_mut().filter(|it| !it.pieces.is_empty()) {
        let bodies = std::mem::take(&mut crossing.pieces);
        payload = match payload {
            Payload::Success(first) => {
                let (called, shared) = ((endpoint, upstream, uri), &*context);
                let send = |body| piece(state, deployment, called, (client_headers, body), deadline, shared);
                let pieces = Pieces { bodies, first, deadline };
                Payload::Joined(Box::pin(pieces.joined(send, |answers| crossing.tokens(answers))).await?)
            }
            other => other,
        };
    }
    if let (Payload::Refusal(refusal), Some(crossing)) = (&payload, &crossing) {
        let said = refusal.said.message.as_deref().unwrap_or_default();
        if let Some(estimate) = crossing.estimate(context, head.status, said) {
            return Ok(uncounted(estimate, deployment.slot, deadline, context));
        }
    }
    Ok(Reply { head, payload, edits, strip_usage_chunk, deadline, slot: deployment.slot, crossing })
}

/// Another piece of a request, sent as the first was.
async fn piece(
    state: &State,
    deployment: &Deployment,
    (endpoint, upstream, uri): (Endpoint, &Upstream, &http::Uri),
    (client, body): (&HeaderMap, Bytes),
    mut deadline: Deadline,
    context: &RequestContext,
) -> Result<Payload, Box<Failure>> {
    let body = (SegmentBody::new(Segments::from_iter([body])), None);
    let mut request = prepared(endpoint, upstream, (uri, client), body, context);
    // It is the first piece's.
    request.headers_mut().remove(headers::IDEMPOTENCY_KEY);
    let now = Instant::now();
    deadline.sent(now.into());
    let (head_by, waited) = deadline.next_frame(None);
    let patience = Patience { now, connect: deadline.connect, head_by };
    let answer = match &upstream.signer {
        None => state.upstream.send(&upstream.route, request, patience).await,
        Some(signer) => signed(state, upstream, signer, (request, patience)).await?,
    };
    let response = answer.map_err(|failed| Failure::unanswered(failed.error, waited, deadline.hurried))?;
    Ok(judge(deployment, response, (endpoint, upstream)).await?.1)
}

/// This upstream does not count, which says nothing about its health.
fn uncounted(estimate: Bytes, slot: usize, deadline: Deadline, context: &mut RequestContext) -> Reply {
    context.health = None;
    Reply::estimated(estimate, slot, deadline)
}

/// Signs and sends. Waits for what it signs with only when there has been none since the start.
async fn signed(
    state: &State,
    upstream: &Upstream,
    signer: &Signer,
    (mut request, patience): (Outbound, Patience),
) -> Result<Result<Response<UpstreamBody>, SendError>, Box<Failure>> {
    match signer.sign(&mut request).await {
        Some(()) => Ok(state.upstream.send(&upstream.route, request, patience).await),
        None => Err(unsent(Failure::unsigned(), request.into_body())),
    }
}

fn unsent(mut failure: Box<Failure>, body: SegmentBody) -> Box<Failure> {
    failure.unsent = Some(body);
    failure
}

fn prepared(
    endpoint: Endpoint,
    upstream: &Upstream,
    (uri, client): (&http::Uri, &HeaderMap),
    (body, content_type): (SegmentBody, Option<HeaderValue>),
    context: &RequestContext,
) -> Outbound {
    let length = body.size_hint().exact();
    let mut request = in_place(|| Request::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = upstream.headers.of(length, client.get(header::ACCEPT));
    let headers = request.headers_mut();
    if let Some(content_type) = content_type {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    headers::to_upstream(client, context.key.as_ref().map(|key| key.org_id), headers);
    let anthropic = matches!(endpoint, Endpoint::Messages | Endpoint::CountTokens);
    if anthropic && matches!(upstream.plan(endpoint), Some(Plan::Splice)) {
        headers::to_anthropic(client, headers);
    }
    if let Some(trace) = context.trace {
        trace.onto(context.telemetry(), headers);
    }
    request
}

async fn judge(
    deployment: &Deployment,
    response: Response<UpstreamBody>,
    called: (Endpoint, &Upstream),
) -> Result<(http::response::Parts, Payload), Box<Failure>> {
    let (head, body) = response.into_parts();
    // Nothing compressed was asked for: what it hides could be a thousand times as long as it looks.
    if head
        .headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|it| !it.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Failure::protocol("sent an answer in an encoding that was not asked for"));
    }
    match classify::classify(head.status.as_u16()) {
        Verdict::Success => Ok((head, Payload::Success(body))),
        // Boxed: errors are rare, and reading them takes more room than the rest.
        verdict => Box::pin(refused(deployment, head, body, verdict, called)).await,
    }
}

async fn refused(
    deployment: &Deployment,
    head: http::response::Parts,
    body: UpstreamBody,
    verdict: Verdict,
    (endpoint, upstream): (Endpoint, &Upstream),
) -> Result<(http::response::Parts, Payload), Box<Failure>> {
    let body = error_body(body).await;
    let plan = upstream.plan(endpoint);
    let dialect = match plan {
        Some(Plan::Transcode { to, .. }) => Some(to),
        Some(Plan::Count { by, .. }) => by.dialect(),
        _ => endpoint.dialect(),
    };
    let said = match dialect {
        Some(dialect) => codec::decode_error(dialect, head.status.as_u16(), &body),
        None => decode_error(&body),
    };
    let (status, verdict) = (head.status.as_u16(), classify::refine(verdict, &said));
    if verdict == Verdict::CredentialFault {
        log_refusal(deployment, head.status, &said);
    }
    let hint = hints::read(status, &head.headers, &body, clock::unix_ms());
    match Failure::refused(status, verdict, said.clone(), hint) {
        Some(failure) => Err(failure),
        None => {
            let native = matches!(plan, Some(Plan::Splice) | None);
            Ok((head, Payload::Refusal(Box::new(Refusal { body, said, native }))))
        }
    }
}

/// For the operator alone: what a provider says about a credential is not the client's business.
pub fn log_refusal(deployment: &Deployment, status: StatusCode, said: &UpstreamErrorInfo) {
    tracing::error!(
        deployment = &*deployment.name,
        status = status.as_u16(),
        code = said.code.as_deref(),
        "the upstream refused the gateway's credential: check it, and the account behind it"
    );
}

/// The body of an error answer, as much as is worth reading; empty when it does not come.
pub async fn error_body(body: UpstreamBody) -> Bytes {
    let collected =
        tokio::time::timeout(ERROR_BODY_PATIENCE, Limited::new(body, MAX_ERROR_BODY).collect()).await;
    collected.ok().and_then(Result::ok).map(|collected| collected.to_bytes()).unwrap_or_default()
}
