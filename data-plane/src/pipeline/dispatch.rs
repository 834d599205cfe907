//! One attempt: build the upstream's request, send it, judge the answer. Called by [`super::attempts`].

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Limited};
use nemo_llm::{EditSet, Endpoint, Spliced, UpstreamErrorInfo, decode_error};
use nemo_runtime::clock;
use nemo_snapshot::Deployment;

use super::{context::RequestContext, failure::Failure, headers, timeouts::Deadline};
use crate::{
    app::State,
    config::{Live, live::Upstream},
    routing::Pick,
    upstream::{Outbound, Patience, SegmentBody, UpstreamBody, Verdict, classify, hints},
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
}

impl From<Spliced> for Outgoing {
    fn from(spliced: Spliced) -> Self {
        let Spliced { segments, edits, strip_usage_chunk, .. } = spliced;
        Self { body: SegmentBody::new(segments), content_type: None, edits, strip_usage_chunk }
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
}

pub enum Payload {
    Success(UpstreamBody),
    /// The upstream's refusal of the client's request, complete.
    Refusal(Bytes),
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
    let Outgoing { body, content_type, edits, strip_usage_chunk } = outgoing;
    let deployment = &pick.deployment;
    let upstream = live.upstreams.get(deployment.slot);
    let uri = upstream.and_then(|upstream| upstream.uri(endpoint));
    let sent = context.attempting(pick, pause);
    let (Some(upstream), Some(uri)) = (upstream, uri) else { return Err(Failure::unserved()) };
    if let Some(key) = &context.key {
        match state.health.begin(live, key.org_id, deployment) {
            Ok(attempt) => context.health = Some(attempt),
            Err(refused) => return Err(unsent(Failure::cooling(refused), body)),
        }
    }
    let mut request = request(upstream, uri, body, content_type, client_headers);
    if let Some(trace) = context.trace {
        trace.onto(context.telemetry(), request.headers_mut());
    }
    context.sending();
    deadline.sent(sent.into());
    let (head_by, waited) = deadline.next_frame(None);
    let patience = Patience { now: sent, connect: deadline.connect, head_by };
    let answer = state.upstream.send(&upstream.route, request, patience).await;
    context.head_came(sent, answer.as_ref().map_or(0, |response| response.status().as_u16()));
    let response = answer.map_err(|failed| {
        let mut failure = Failure::unanswered(failed.error, waited, deadline.hurried);
        failure.unsent = failed.unsent.map(|request| request.into_body());
        failure
    })?;
    let (head, payload) = judge(deployment, response).await?;
    Ok(Reply { head, payload, edits, strip_usage_chunk, deadline, slot: deployment.slot })
}

fn unsent(mut failure: Box<Failure>, body: SegmentBody) -> Box<Failure> {
    failure.unsent = Some(body);
    failure
}

fn request(
    upstream: &Upstream,
    uri: &http::Uri,
    body: SegmentBody,
    content_type: Option<HeaderValue>,
    client: &HeaderMap,
) -> Outbound {
    let length = body.size_hint().exact();
    let mut request = Box::new(Request::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = upstream.headers.of(length, client.get(header::ACCEPT));
    let headers = request.headers_mut();
    if let Some(content_type) = content_type {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    headers::to_upstream(client, headers);
    request
}

async fn judge(
    deployment: &Deployment,
    response: Response<UpstreamBody>,
) -> Result<(http::response::Parts, Payload), Box<Failure>> {
    let (head, body) = response.into_parts();
    match classify::classify(head.status.as_u16()) {
        Verdict::Success => Ok((head, Payload::Success(body))),
        // Boxed: errors are rare, and reading them takes more room than the rest.
        verdict => Box::pin(refused(deployment, head, body, verdict)).await,
    }
}

async fn refused(
    deployment: &Deployment,
    head: http::response::Parts,
    body: UpstreamBody,
    verdict: Verdict,
) -> Result<(http::response::Parts, Payload), Box<Failure>> {
    let body = error_body(body).await;
    let said = decode_error(&body);
    let (status, verdict) = (head.status.as_u16(), classify::refine(verdict, &said));
    if verdict == Verdict::CredentialFault {
        log_refusal(deployment, head.status, &said);
    }
    let hint = hints::read(status, &head.headers, &body, clock::unix_ms());
    match Failure::refused(status, verdict, said, hint) {
        Some(failure) => Err(failure),
        None => Ok((head, Payload::Refusal(body))),
    }
}

/// For the operator alone: what a provider says about a credential is not the client's business.
fn log_refusal(deployment: &Deployment, status: StatusCode, said: &UpstreamErrorInfo) {
    tracing::error!(
        deployment = &*deployment.name,
        status = status.as_u16(),
        code = said.code.as_deref(),
        "the upstream refused the gateway's credential: check it, and the account behind it"
    );
}

/// The body of an error answer, as much as is worth reading; empty when it does not come.
async fn error_body(body: UpstreamBody) -> Bytes {
    let collected =
        tokio::time::timeout(ERROR_BODY_PATIENCE, Limited::new(body, MAX_ERROR_BODY).collect()).await;
    collected.ok().and_then(Result::ok).map(|collected| collected.to_bytes()).unwrap_or_default()
}
