//! One attempt: build the upstream's request, send it, judge the answer. Called by [`super::run`].

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use nemo_llm::{EditSet, Endpoint, Spliced, decode_error};
use serde_json::json;

use super::{
    context::RequestContext,
    error::{GatewayError, Kind},
    headers,
    timeouts::{Deadline, Waited},
};
use crate::{
    config::live::Upstream,
    routing::Decision,
    upstream::{CallError, Patience, SegmentBody, UpstreamBody, UpstreamClient, Verdict, classify},
};

/// How much of an upstream's error body is read.
const MAX_ERROR_BODY: usize = 256 * 1024;
const ERROR_BODY_PATIENCE: Duration = Duration::from_secs(5);

/// What is to be sent, and where.
pub struct Call<'a> {
    pub upstream: &'a Upstream,
    pub endpoint: Endpoint,
    pub outgoing: Outgoing,
    pub deadline: Deadline,
    pub decision: &'a Decision,
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

/// Sends the request once.
///
/// # Errors
/// 502 when there was no usable answer or our credential was refused, 429 when the upstream limits us.
pub async fn run(
    client: &UpstreamClient,
    call: Call<'_>,
    client_headers: &HeaderMap,
    context: &mut RequestContext,
) -> Result<Reply, GatewayError> {
    let Call { upstream, endpoint, outgoing, mut deadline, decision } = call;
    let Outgoing { body, content_type, edits, strip_usage_chunk } = outgoing;
    let mut request = request(upstream, endpoint, body, content_type, client_headers)?;
    if let Some(trace) = context.trace {
        trace.onto(context.telemetry(), request.headers_mut());
    }
    let sent = context.dispatching();
    deadline.sent(sent.into());
    let (head_by, waited) = deadline.next_frame(None);
    let patience = Patience { now: sent, connect: deadline.connect, head_by };
    let answer = client.send(&upstream.route, request, patience).await;
    context.upstream = sent.elapsed();
    let attempt = Attempt { decision, took: context.upstream };
    let response = answer.map_err(|error| attempt.unanswered(error, waited))?;
    let payload = attempt.judge(response).await?;
    let (head, payload) = payload;
    Ok(Reply { head, payload, edits, strip_usage_chunk, deadline, slot: decision.deployment.slot })
}

fn request(
    upstream: &Upstream,
    endpoint: Endpoint,
    body: SegmentBody,
    content_type: Option<HeaderValue>,
    client: &HeaderMap,
) -> Result<Request<SegmentBody>, GatewayError> {
    let unserved = || GatewayError::new(Kind::Internal, "The deployment does not serve this endpoint.");
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = upstream.uri(endpoint).ok_or_else(unserved)?.clone();
    *request.headers_mut() = upstream.headers.clone();
    let headers = request.headers_mut();
    if let Some(content_type) = content_type {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    headers::to_upstream(client, headers);
    Ok(request)
}

/// What was tried, for headers, error bodies and logs.
struct Attempt<'a> {
    decision: &'a Decision,
    took: Duration,
}

impl Attempt<'_> {
    /// `waited` is what a timeout was a timeout of.
    fn unanswered(&self, error: CallError, waited: Waited) -> GatewayError {
        let (kind, what) = match error {
            CallError::Timeout => return self.timed_out(waited),
            CallError::ConnectTimeout => return self.timed_out(Waited::Connect),
            CallError::Connect => (Kind::UpstreamUnavailable, "could not be reached"),
            CallError::Broken => (Kind::UpstreamUnavailable, "broke the connection"),
            CallError::Protocol => (Kind::UpstreamProtocol, "sent something that is no HTTP"),
        };
        self.failed(kind, what, error.label(), None)
    }

    fn timed_out(&self, waited: Waited) -> GatewayError {
        let what = format!("{}.", waited.what());
        let error = self.failed(Kind::UpstreamTimeout, &what, "timeout", None);
        GatewayError { code: Some(waited.code()), ..error }
    }

    async fn judge(
        &self,
        response: Response<UpstreamBody>,
    ) -> Result<(http::response::Parts, Payload), GatewayError> {
        let (head, body) = response.into_parts();
        let verdict = classify(head.status, &head.headers);
        if verdict == Verdict::Success {
            return Ok((head, Payload::Success(body)));
        }
        let body = error_body(body).await;
        let status = head.status;
        let label = status.as_str();
        Err(match verdict {
            Verdict::Success | Verdict::ClientFault => return Ok((head, Payload::Refusal(body))),
            Verdict::CredentialFault => {
                self.log_refusal(status, &body);
                self.failed(Kind::UpstreamCredential, "refused the gateway's credential", label, None)
            }
            Verdict::RateLimited { retry_after_secs } => {
                let error = self.failed(
                    Kind::UpstreamRateLimited,
                    "is limiting the rate of requests",
                    label,
                    Some(&body),
                );
                GatewayError { retry_after_secs, ..error }
            }
            Verdict::Failure => self.failed(Kind::UpstreamUnavailable, "failed", label, Some(&body)),
        })
    }

    /// For the operator alone: what a provider says about a credential is not the client's business.
    fn log_refusal(&self, status: StatusCode, body: &Bytes) {
        let said = decode_error(body);
        tracing::error!(
            deployment = &*self.decision.deployment.name,
            status = status.as_u16(),
            code = said.code.as_deref(),
            "the upstream refused the gateway's credential: check it, and the account behind it"
        );
    }

    fn failed(&self, kind: Kind, what: &str, result: &str, body: Option<&Bytes>) -> GatewayError {
        let deployment = &self.decision.deployment;
        let millis = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        let said = body.and_then(|body| decode_error(body).message).map(|text| format!(": {text}"));
        let end = if what.ends_with('.') { "" } else { "." };
        let message = format!("The upstream {} {what}{}", deployment.name, said.as_deref().unwrap_or(end));
        let unquoted = said.map(|_| format!("The upstream {} {what}{end}", deployment.name).into());
        let attempt = json!({
            "deployment": &*deployment.name,
            "provider": &*deployment.provider,
            "model": &*deployment.upstream_model,
            "result": result,
            "latency_ms": millis,
        });
        let chain = format!("{}/{};{result};{millis}ms", deployment.provider, deployment.upstream_model);
        GatewayError {
            metadata: Some(Box::new(json!({ "attempts": [attempt] }))),
            chain: HeaderValue::from_str(&chain).ok().map(Box::new),
            unquoted,
            ..GatewayError::new(kind, message)
        }
    }
}

/// The body of an error answer, as much as is worth reading; empty when it does not come.
async fn error_body(body: UpstreamBody) -> Bytes {
    let collected =
        tokio::time::timeout(ERROR_BODY_PATIENCE, Limited::new(body, MAX_ERROR_BODY).collect()).await;
    collected.ok().and_then(Result::ok).map(|collected| collected.to_bytes()).unwrap_or_default()
}
