//! The `demo` provider: an OpenAI-compatible server on loopback that needs no model, no key and no network.
//!
//! Started by `nemo standalone` when no provider is configured, and registered like any other deployment: nothing
//! else knows that it is a demo. It answers the same request the same way every time.

mod chat;
mod completions;
mod embeddings;
mod form;
mod judge;
mod media;
mod responses;
mod schema;
#[cfg(test)]
mod tests;
mod text;

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use nemo_runtime::{
    TaskGroup, clock,
    drain::DrainWatcher,
    http_server::{self, ServerSettings},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub const PROVIDER: &str = "demo";
pub const CHAT_MODEL: &str = "demo-chat";
pub const EMBEDDING_MODEL: &str = "demo-embedding";
pub const IMAGE_MODEL: &str = "demo-image";
pub const SPEECH_MODEL: &str = "demo-speech";
pub const TRANSCRIPTION_MODEL: &str = "demo-transcription";
pub const MODERATION_MODEL: &str = "demo-moderation";
pub const RERANK_MODEL: &str = "demo-rerank";
pub const CONTEXT_WINDOW: u64 = 32_768;
pub const MAX_OUTPUT_TOKENS: u64 = 4_096;

/// What the gateway itself accepts, so that nothing fits there and not here.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
const MAX_CONNECTIONS: usize = 1024;

/// All that it serves.
const MODELS: [&str; 7] = [
    CHAT_MODEL,
    EMBEDDING_MODEL,
    IMAGE_MODEL,
    SPEECH_MODEL,
    TRANSCRIPTION_MODEL,
    MODERATION_MODEL,
    RERANK_MODEL,
];

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Starts the server on a loopback port: on `preferred` if that is free, else on any. It ends with the drain.
///
/// # Errors
/// When no port can be opened.
pub fn start(
    tasks: &TaskGroup,
    drain: DrainWatcher,
    word_delay: Duration,
    preferred: Option<SocketAddr>,
) -> anyhow::Result<SocketAddr> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let preferred = preferred.filter(|addr| addr.ip().is_loopback()).unwrap_or(any);
    let listener = http_server::bind(preferred, "").or_else(|_| http_server::bind(any, ""))?;
    let addr = listener.local_addr()?;
    let service =
        service_fn(move |request| async move { Ok::<_, Infallible>(handle(request, word_delay).await) });
    let settings = ServerSettings { max_connections: MAX_CONNECTIONS, ..ServerSettings::named("demo") };
    tasks.spawn("demo provider", http_server::serve(listener, service, settings, drain));
    Ok(addr)
}

async fn handle(request: Request<Incoming>, word_delay: Duration) -> Response<Body> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().strip_prefix("/v1").unwrap_or_default();
    if head.method == Method::GET && path == "/models" {
        return json_response(StatusCode::OK, &models());
    }
    if head.method != Method::POST {
        return Refusal::new(StatusCode::NOT_FOUND, "no such path at the demo provider", "not_found")
            .into_response();
    }
    let body = match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return Refusal::new(StatusCode::BAD_REQUEST, error.to_string(), "bad_body").into_response();
        }
    };
    let answer = match path {
        "/chat/completions" => parse(&body).and_then(|request| chat::answer(&request, &body)),
        "/completions" => parse(&body).and_then(|request| completions::answer(&request, &body)),
        "/embeddings" => parse(&body).and_then(|request| embeddings::answer(&request)),
        "/responses" => parse(&body).and_then(|request| responses::answer(&request, &body)),
        "/images/generations" => parse(&body).and_then(|request| media::generate(&request)),
        "/images/edits" | "/images/variations" => form(&head, &body).and_then(|form| media::edit(&form)),
        "/audio/speech" => parse(&body).and_then(|request| media::speak(&request)),
        "/audio/transcriptions" | "/audio/translations" => {
            form(&head, &body).and_then(|form| media::listen(&form))
        }
        "/moderations" => parse(&body).and_then(|request| judge::moderate(&request, &body)),
        "/rerank" => parse(&body).and_then(|request| judge::rank(&request, &body)),
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, "no such path at the demo provider", "not_found")),
    };
    match answer {
        Ok(Answer::Whole(value)) => json_response(StatusCode::OK, &value),
        Ok(Answer::Events(events)) => {
            let events = events.into_iter().map(|event| format!("data: {event}\n\n"));
            let events = events.chain(["data: [DONE]\n\n".to_owned()]).map(Bytes::from).collect();
            frames("text/event-stream", events, word_delay)
        }
        Ok(Answer::Named(events)) => {
            let name = |event: &Value| event["type"].as_str().unwrap_or_default().to_owned();
            let event = |event: Value| Bytes::from(format!("event: {}\ndata: {event}\n\n", name(&event)));
            frames("text/event-stream", events.into_iter().map(event).collect(), word_delay)
        }
        Ok(Answer::Frames { content_type, frames: pieces }) => frames(content_type, pieces, word_delay),
        Err(refusal) => refusal.into_response(),
    }
}

fn form(head: &http::request::Parts, body: &[u8]) -> Result<form::Form, Refusal> {
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    form::Form::parse(content_type.unwrap_or_default(), body)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("the body is no request: {error}"), "bad_body")
    })
}

/// What an endpoint answers.
enum Answer {
    Whole(Value),
    /// Sent as events, `[DONE]` last.
    Events(Vec<Value>),
    /// Sent as events that are named after their `type`.
    Named(Vec<Value>),
    /// Something else than JSON.
    Frames {
        content_type: &'static str,
        frames: Vec<Bytes>,
    },
}

/// An error in OpenAI's shape.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    message: String,
    code: &'static str,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>, code: &'static str) -> Self {
        Self { status, message: message.into(), code }
    }

    fn into_response(self) -> Response<Body> {
        let error = json!({
            "message": self.message, "type": "invalid_request_error", "param": null, "code": self.code,
        });
        json_response(self.status, &json!({ "error": error }))
    }
}

/// Refuses names that this server does not serve, as a real one would.
fn check_model(asked: &str, served: &str) -> Result<(), Refusal> {
    if asked == served {
        return Ok(());
    }
    let message = format!("the demo provider has no model {asked:?} here; this endpoint serves {served:?}");
    Err(Refusal::new(StatusCode::NOT_FOUND, message, "model_not_found"))
}

fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    response(status, "application/json", Full::new(Bytes::from(value.to_string())).boxed_unsync())
}

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// One after the other, with a pause before each.
fn frames(content_type: &'static str, frames: Vec<Bytes>, delay: Duration) -> Response<Body> {
    let frames = stream::iter(frames).then(move |frame| async move {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Ok::<_, Infallible>(Frame::data(frame))
    });
    response(StatusCode::OK, content_type, StreamBody::new(frames).boxed_unsync())
}

fn models() -> Value {
    let model = |id| json!({ "id": id, "object": "model", "created": 1_767_225_600, "owned_by": "nemo" });
    json!({ "object": "list", "data": MODELS.map(model) })
}

/// Seconds since the epoch, as `created` has them.
fn now() -> u64 {
    clock::unix_ms() / 1000
}

/// The same for the same request.
fn answer_id(prefix: &str, body: &[u8]) -> String {
    format!("{prefix}-demo{:016x}", text::hash(body))
}
