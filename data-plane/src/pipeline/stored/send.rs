//! One request to the deployment that has something: where it goes, with its credential, within its timeouts. What it
//! refuses is told as for other calls. Called by [`super`] and [`super::veo`].

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header, uri::PathAndQuery};
use nemo_llm::{Segments, decode_error, providers::responses::affinity};
use nemo_runtime::clock;
use nemo_types::OrgId;

use super::{Call, Fault, GatewayError, Kind, Target};
use crate::{
    app::State,
    config::Live,
    pipeline::{dispatch, failure::Failure, headers, timeouts::Deadline},
    upstream::{Outbound, Patience, Route, SegmentBody, UpstreamBody, Verdict, classify, hints},
};

/// What requests to one target share.
pub struct Sending<'a> {
    state: &'a State,
    pub live: &'a Live,
    pub target: &'a Target<'a>,
    client: &'a HeaderMap,
    org: OrgId,
    pub deadline: Deadline,
}

/// The head of an answer, and its body.
pub type Reply = Response<UpstreamBody>;

impl<'a> Sending<'a> {
    pub fn new(
        state: &'a State,
        live: &'a Live,
        org: OrgId,
        target: &'a Target<'a>,
        client: &'a HeaderMap,
    ) -> Self {
        let clock = (tokio::time::Instant::now(), None);
        let deadline = Deadline::new(&state.settings, &live.snapshot.routing, org, target.deployment, clock);
        Self { state, live, target, client, org, deadline }
    }

    /// Where the provider has this call itself: below the endpoint that has made the thing.
    pub fn below(&self, call: &Call<'_>) -> Result<Uri, GatewayError> {
        let base = self.target.upstream.uri(call.endpoint, false).ok_or_else(internal)?;
        let (path, own) = (base.path(), base.query());
        let mut text = format!("{path}/{}", self.target.id);
        if !call.part.is_empty() {
            text.push('/');
            text.push_str(call.part);
        }
        let queries = own.into_iter().map(str::to_owned).chain(theirs(call.query, own));
        for (at, query) in queries.enumerate() {
            text.push(if at == 0 { '?' } else { '&' });
            text.push_str(&query);
        }
        let mut parts = base.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(text).map_err(|_| internal())?);
        Uri::from_parts(parts).map_err(|_| internal())
    }

    /// This address, in the form that the route wants; `None`: it is not at the deployment's own host, which is the only
    /// one that is ever called.
    pub fn at(&self, url: &str) -> Option<Uri> {
        let (uri, base): (Uri, Uri) = (url.parse().ok()?, self.target.deployment.base_url.parse().ok()?);
        if uri.scheme() != base.scheme() || uri.authority() != base.authority() {
            return None;
        }
        match (&self.target.upstream.route, uri.path_and_query()) {
            (Route::Http1(_), Some(path)) => Some(Uri::from(path.clone())),
            _ => Some(uri),
        }
    }

    /// Sends one request and waits for the head of a success. `body`: JSON.
    pub async fn send(&self, method: Method, uri: Uri, body: Option<Vec<u8>>) -> Result<Reply, Fault> {
        let response = self.ask(method, uri, body).await?;
        if classify::classify(response.status().as_u16()) == Verdict::Success {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    /// The same, whatever the status of the answer.
    pub async fn ask(&self, method: Method, uri: Uri, body: Option<Vec<u8>>) -> Result<Reply, Fault> {
        let target = self.target;
        let mut request = self.request(method, uri, body);
        if let Some(signer) = &target.upstream.signer
            && signer.sign(&mut request).await.is_none()
        {
            return Err(self.failed(*Failure::unsigned()));
        }
        let (now, mut deadline) = (Instant::now(), self.deadline);
        deadline.sent(now.into());
        let (head_by, waited) = deadline.next_frame(None);
        let patience = Patience { now, connect: deadline.connect, head_by };
        let answer = self.state.upstream.send(&target.upstream.route, request, patience).await;
        let response = answer
            .map_err(|failed| self.failed(*Failure::unanswered(failed.error, waited, deadline.hurried)))?;
        let encoding = response.headers().get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|it| !it.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(self.unreadable("sent an answer in an encoding that was not asked for"));
        }
        Ok(response)
    }

    fn request(&self, method: Method, uri: Uri, body: Option<Vec<u8>>) -> Outbound {
        let segments = Segments::from_iter(body.map(Bytes::from));
        let length = segments.iter().map(|it| it.len() as u64).sum::<u64>();
        let has_body = method == Method::POST;
        let mut request = Box::new(Request::new(SegmentBody::new(segments)));
        (*request.method_mut(), *request.uri_mut()) = (method, uri);
        let mut own = self.target.upstream.headers.of(None, self.client.get(header::ACCEPT));
        if has_body {
            own.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        } else {
            own.remove(header::CONTENT_TYPE);
        }
        headers::to_upstream(self.client, Some(self.org), &mut own);
        if let Some(range) = self.client.get(header::RANGE) {
            own.insert(header::RANGE, range.clone());
        }
        *request.headers_mut() = own;
        request
    }

    /// An answer that is no success.
    pub async fn refusal(&self, response: Reply) -> Fault {
        let (head, body) = response.into_parts();
        let body = dispatch::error_body(body).await;
        let (status, said) = (head.status.as_u16(), decode_error(&body));
        let verdict = classify::refine(classify::classify(status), &said);
        if verdict == Verdict::CredentialFault {
            dispatch::log_refusal(self.target.deployment, head.status, &said);
        }
        let hint = hints::read(status, &head.headers, &body, clock::unix_ms());
        match Failure::refused(status, verdict, said.clone(), hint) {
            Some(failure) => self.failed(*failure),
            None => Fault::Theirs { status: head.status, said: Box::new(said) },
        }
    }

    /// It answered with what is no answer.
    pub fn unreadable(&self, what: &'static str) -> Fault {
        self.failed(*Failure::protocol(what))
    }

    pub fn failed(&self, failure: Failure) -> Fault {
        let hint = failure.hint;
        let mut error = failure.into_error(&self.target.deployment.name);
        if error.kind == Kind::UpstreamRateLimited {
            let wait = hint.unwrap_or_default();
            error.retry_after_secs = Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1));
        } else if error.kind == Kind::UpstreamUnavailable {
            // There was no chain.
            error.code = Some("upstream_error");
        }
        error.into()
    }
}

fn internal() -> GatewayError {
    GatewayError::new(Kind::Internal, "The call has no address.")
}

/// The client's part of the query: what the deployment says itself is not the client's to say, and ids in it lose their
/// tags.
fn theirs(query: &str, own: Option<&str>) -> impl Iterator<Item = String> {
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let taken: Vec<String> = own.unwrap_or_default().split('&').map(name).collect();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.filter(move |pair| !taken.contains(&name(pair))).map(|pair| match pair.split_once('=') {
        Some((name @ ("after" | "before"), id)) => format!("{name}={}", affinity::unwrap(id.into())),
        _ => pair.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_passed_on_but_for_what_is_the_deployments() {
        let all = |query: &str, own| theirs(query, own).collect::<Vec<_>>().join("&");
        let query = "include[]=a&include[]=b&&stream=true&starting_after=3";
        assert_eq!(all(query, None), "include[]=a&include[]=b&stream=true&starting_after=3");
        assert_eq!(all("api-version=1&limit=2", Some("api-version=7")), "limit=2");
        assert_eq!(all("after=msg_nemo.7f-00.abc&order=asc", None), "after=msg_abc&order=asc");
        assert_eq!(all("", Some("api-version=7")), "");
    }
}
