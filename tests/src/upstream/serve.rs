//! Connections of the upstream: reads requests, chooses scripts, answers, and breaks connections where told to.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::plan::{self, Playing};
use super::record::{Ended, Recorded};
use super::reply::{self, Answer};
use super::{Shared, dialects, embed, media, stored};
use crate::script::Script;

/// Carries a script for one request, in its text form.
const SCRIPT_HEADER: &str = "x-mock-script";
/// What the token endpoint hands out.
pub const GOOGLE_TOKEN: &str = "ya29.mock-token";
/// A longer request body is answered with 413.
const MAX_BODY: usize = 64 << 20;

/// Order to a connection: forget HTTP, send these bytes, close.
pub(super) struct Takeover {
    pub(super) bytes: Bytes,
    pub(super) reset: bool,
}

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        // Only fails for want of file descriptors; then ending the server is as good as anything.
        let Ok((stream, _)) = listener.accept().await else { return };
        connections.spawn(connection(stream, shared.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let _best_effort = stream.set_nodelay(true);
    let (sender, mut orders) = mpsc::channel(1);
    let service = service_fn(move |request| {
        let (shared, takeover) = (shared.clone(), sender.clone());
        Box::pin(async move { Ok::<_, Infallible>(answer(request, &shared, takeover).await) })
    });
    let mut conn =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let order = tokio::select! {
        // First the connection, so that it has flushed what precedes the order.
        biased;
        _end = poll_fn(|cx| conn.poll_without_shutdown(cx)) => return,
        order = orders.recv() => order,
    };
    let mut stream = conn.into_parts().io.into_inner();
    if let Some(order) = order {
        let _client_gone = stream.write_all(&order.bytes).await;
        if order.reset {
            let _best_effort = stream.set_zero_linger();
        }
    }
}

/// Answers one request, from reading its body to the head of the response.
async fn answer(
    request: Request<Incoming>,
    shared: &Shared,
    takeover: mpsc::Sender<Takeover>,
) -> Response<Playing> {
    let (at, number) = (Instant::now(), shared.next_number());
    let (mut head, body) = request.into_parts();
    let (body, complete) = read(body).await;
    let record = Arc::new(Recorded::new(number, &head, body, at));
    if let Some(uri) = off_azure(&head.uri) {
        head.uri = uri;
    }
    shared.record(record.clone());
    if !complete {
        record.end(Ended::ClientGone);
    }
    let leaving = Leaving(Some(record.clone()));
    let content_type =
        head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = content_type.starts_with("multipart/");
    let request: Value = if form {
        media::form(content_type, &record.body).unwrap_or_default()
    } else {
        serde_json::from_slice(&record.body).unwrap_or_default()
    };
    let spoken = dialects::of_path(&head.method, head.uri.path());
    let of_path = spoken.as_ref().map(|(_, model)| model.as_str()).filter(|model| !model.is_empty());
    let model = request["model"].as_str().or(of_path).unwrap_or_default();
    let script_header = head.headers.get(SCRIPT_HEADER).and_then(|value| value.to_str().ok());
    let (script, model) = match shared.script_for(script_header, model) {
        Ok(found) => found,
        Err(error) => (Script::status(400).content(format!("{error:#}")), model.to_owned()),
    };
    if script.delay > std::time::Duration::ZERO {
        tokio::time::sleep(script.delay).await;
    }
    if let Some(bytes) = &script.wire {
        record.end(Ended::Played);
        let order = Takeover { bytes: bytes.clone(), reset: script.reset };
        let _connection_ended = takeover.send(order).await;
        return std::future::pending().await;
    }
    let (status, answer) = match refuse(shared, &head, &request, &script) {
        _ if head.uri.path() == "/token" => {
            let token = json!({ "access_token": GOOGLE_TOKEN, "expires_in": 3600, "token_type": "Bearer" });
            (StatusCode::OK, Answer::Unary(reply::json_bytes(&token)))
        }
        Some((status, message)) => {
            let error = match &spoken {
                Some((spoken, _)) => dialects::error(*spoken, status.as_u16(), &message),
                None => reply::error(status.as_u16(), &message),
            };
            (status, Answer::Unary(reply::json_bytes(&error)))
        }
        None => route(shared, &head, &request, &model, &script, number),
    };
    let response = respond(status, answer, &script, &record, takeover);
    leaving.defuse();
    response
}

/// What OpenAI has at `/v1/…`, Azure has at `/openai/v1/…`, and by deployment where the query names a version.
fn off_azure(uri: &Uri) -> Option<Uri> {
    let path = uri.path().strip_prefix("/openai/")?;
    let rest = match path.strip_prefix("deployments/") {
        Some(named) => {
            uri.query().filter(|query| query.starts_with("api-version=2"))?;
            named.split_once('/')?.1
        }
        None => path.strip_prefix("v1/")?,
    };
    format!("/v1/{rest}").parse().ok()
}

/// Notes that the client left while the handler was waiting (its future is then dropped).
struct Leaving(Option<Arc<Recorded>>);

impl Leaving {
    /// From here on the response body watches for that.
    fn defuse(mut self) {
        self.0 = None;
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(record) = &self.0 {
            record.end(Ended::ClientGone);
        }
    }
}

/// The body, and whether it came to its end within the limit.
async fn read(mut body: Incoming) -> (Bytes, bool) {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) if all.len() + data.len() <= MAX_BODY => all.extend_from_slice(&data),
            Ok(Err(_trailers)) => {}
            Ok(Ok(_)) | Err(_) => return (all.freeze(), false),
        }
    }
    (all.freeze(), true)
}

/// Errors that come before the endpoint: the script's own, a wrong key, no JSON.
fn refuse(
    shared: &Shared,
    head: &http::request::Parts,
    request: &Value,
    script: &Script,
) -> Option<(StatusCode, String)> {
    if let Some(status) = script.status.filter(|status| !status.is_success()) {
        let message = script.content.clone().unwrap_or_else(|| format!("scripted status {status}"));
        return Some((status, message));
    }
    if let Some(key) = &shared.api_key {
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let given = text(AUTHORIZATION.as_str());
        let bearer = given.and_then(|given| given.strip_prefix("Bearer "));
        let other = ["x-api-key", "x-goog-api-key", "api-key"].into_iter().find_map(text);
        let signed = given.is_some_and(|given| given.starts_with("AWS4-HMAC-SHA256 Credential="));
        if bearer.or(other) != Some(key) && !signed && bearer != Some(GOOGLE_TOKEN) {
            return Some((StatusCode::UNAUTHORIZED, "Incorrect API key provided".into()));
        }
    }
    if let Some((spoken, _)) = dialects::of_path(&head.method, head.uri.path())
        && let Some(message) = dialects::invalid(spoken, head.uri.path(), request)
    {
        return Some((StatusCode::BAD_REQUEST, message.into()));
    }
    let needs_body = head.method == Method::POST && !head.uri.path().ends_with("/cancel");
    let bad_body = needs_body && request.is_null();
    bad_body.then(|| (StatusCode::BAD_REQUEST, "We could not parse the JSON body of your request".into()))
}

fn route(
    shared: &Shared,
    head: &http::request::Parts,
    request: &Value,
    model: &str,
    script: &Script,
    number: u64,
) -> (StatusCode, Answer) {
    let status = script.status.unwrap_or(StatusCode::OK);
    let unary = |value: &Value| Answer::Unary(reply::json_bytes(value));
    let path = head.uri.path();
    if let Some((spoken, _)) = dialects::of_path(&head.method, path) {
        return (status, dialects::answer(spoken, request, model, script, number));
    }
    if let Some(answer) = stored::answer(shared, head, request, model, number) {
        return answer;
    }
    if head.method == Method::POST
        && let Some(answer) =
            path.strip_prefix("/v1").and_then(|path| media::answer(path, request, model, script, number))
    {
        if path == "/v1/responses" {
            stored::remember(shared, request, &answer);
        }
        return (status, answer);
    }
    let answer = match (&head.method, path) {
        (&Method::POST, "/v1/chat/completions") => reply::chat(request, model, script, number),
        (&Method::POST, "/v1/completions") => reply::text(request, model, script, number),
        (&Method::POST, "/v1/embeddings") => {
            Answer::Unary(reply::json_bytes(&embed::embeddings(request, model)))
        }
        (&Method::GET, "/v1/models") => {
            let data: Vec<Value> = shared.models.iter().map(|id| listed(id)).collect();
            unary(&json!({"object": "list", "data": data}))
        }
        (&Method::GET, path) => {
            match path.strip_prefix("/v1/models/").filter(|id| shared.models.iter().any(|m| m == id)) {
                Some(id) => unary(&listed(id)),
                None => {
                    return (
                        StatusCode::NOT_FOUND,
                        unary(&reply::error(404, &format!("no such page: GET {path}"))),
                    );
                }
            }
        }
        (method, path) => {
            return (
                StatusCode::NOT_FOUND,
                unary(&reply::error(404, &format!("no such page: {method} {path}"))),
            );
        }
    };
    (status, answer)
}

fn listed(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "mock"})
}

fn respond(
    status: StatusCode,
    answer: Answer,
    script: &Script,
    record: &Arc<Recorded>,
    takeover: mpsc::Sender<Takeover>,
) -> Response<Playing> {
    let content_type = match answer {
        Answer::Unary(_) => "application/json",
        Answer::Stream(_) => "text/event-stream; charset=utf-8",
        Answer::Typed { content_type, .. } => content_type,
    };
    let (answer, replayed) = match &script.body {
        Some(body) => (Answer::Unary(body.clone()), true),
        None => (answer, false),
    };
    // A replayed stream has no declared length either.
    let declared = !replayed || content_type == "application/json";
    let (steps, length) = plan::steps(answer, script);
    let mut response = Response::new(Playing::new(
        steps,
        script.gate.clone().map(|(_, gate)| gate),
        record.clone(),
        takeover,
    ));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(length) = length.filter(|_| declared) {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    // Names that a gateway must replace by its own values or pass on under another name.
    for (name, value) in [
        ("openai-organization", "org-mock"),
        ("openai-processing-ms", "1"),
        ("openai-version", "2020-10-01"),
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("x-ratelimit-reset-requests", "6ms"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if let Ok(id) = HeaderValue::from_str(&format!("req_mock{:08}", record.number)) {
        headers.insert("x-request-id", id);
    }
    for (name, value) in &script.headers {
        headers.insert(name, value.clone());
    }
    response
}
