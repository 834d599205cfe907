//! Errors in both directions: what an upstream's error body says, and our own error bodies in the shape that
//! the client expects (requirements E.1 and E.6). Called by `classify` and by the pipeline's error table.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use crate::ErrorDialect;

/// What an upstream said about a failure. `None`: it did not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamErrorInfo {
    /// At most [`UpstreamErrorInfo::MAX_MESSAGE`] bytes.
    pub message: Option<String>,
    pub kind: Option<String>,
    /// Numbers are given in decimal.
    pub code: Option<String>,
    pub param: Option<String>,
}

impl UpstreamErrorInfo {
    /// Longest message that is kept, in bytes.
    pub const MAX_MESSAGE: usize = 2048;
    /// Longest of the other fields, in bytes.
    const MAX_FIELD: usize = 128;
}

/// Reads an error body in any of the shapes that providers of this dialect use:
/// `{"error":{…}}`, `{"error":"text"}`, `{"detail":…}`, `{"message":…}`, and an array of one such object
/// (Google). Text that is no JSON is the message itself, unless it is a web page.
pub fn decode_error(body: &[u8]) -> UpstreamErrorInfo {
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => from_value(&value),
        Err(_) => UpstreamErrorInfo { message: plain_text(body), ..UpstreamErrorInfo::default() },
    }
}

fn from_value(value: &Value) -> UpstreamErrorInfo {
    match value {
        Value::Array(items) => items.first().map(from_value).unwrap_or_default(),
        Value::String(text) => UpstreamErrorInfo { message: message(text), ..UpstreamErrorInfo::default() },
        Value::Object(outer) => {
            let inner = outer.get("error").filter(|error| error.is_object()).unwrap_or(value);
            let outer_text =
                ["error", "detail", "message"].iter().find_map(|name| text_of(outer.get(*name)?));
            UpstreamErrorInfo {
                message: text_of(&inner["message"]).or(outer_text),
                kind: field(&inner["type"]).or_else(|| field(&inner["status"])),
                code: field(&inner["code"]),
                param: field(&inner["param"]),
            }
        }
        _ => UpstreamErrorInfo::default(),
    }
}

/// A message, also where it is wrapped once more: a list of validation errors (`[{"loc":…,"msg":…}]`), or an
/// object with a `detail` or `message` of its own.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => message(text),
        Value::Array(items) => {
            let lines: Vec<_> = items.iter().take(8).filter_map(validation_error).collect();
            message(&lines.join("; "))
        }
        Value::Object(object) => {
            let inner = ["message", "detail"].iter().find_map(|name| object.get(*name));
            inner.filter(|inner| !inner.is_object()).and_then(text_of)
        }
        _ => None,
    }
}

fn validation_error(item: &Value) -> Option<String> {
    let text = item.as_str().or_else(|| item["msg"].as_str())?;
    let place: Vec<_> = item["loc"].as_array().into_iter().flatten().filter_map(field).collect();
    Some(if place.is_empty() { text.to_owned() } else { format!("{}: {text}", place.join(".")) })
}

fn field(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(cut(text, UpstreamErrorInfo::MAX_FIELD)),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn message(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| cut(text, UpstreamErrorInfo::MAX_MESSAGE))
}

fn plain_text(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    if text.trim_start().starts_with('<') { None } else { message(text) }
}

fn cut(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}

/// An error of ours, or one that we pass on, for a client.
#[derive(Clone, Copy, Debug)]
pub struct ErrorBody<'a> {
    /// The HTTP status that goes with it.
    pub status: u16,
    pub message: &'a str,
    /// OpenAI's `type`.
    pub kind: &'a str,
    pub code: Option<&'a str>,
    pub param: Option<&'a str>,
    /// More for machines, as a member of `error`.
    pub metadata: Option<&'a Value>,
}

#[derive(Serialize)]
struct Envelope<'a, E> {
    error: E,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    choices: &'a [Choice],
}

#[derive(Serialize)]
struct OpenAi<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Value>,
}

#[derive(Serialize)]
struct OpenRouter<'a> {
    code: u16,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Value>,
}

#[derive(Serialize)]
struct Anthropic<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    error: AnthropicError<'a>,
}

#[derive(Serialize)]
struct AnthropicError<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: &'a str,
    /// More than Anthropic has, which its SDKs pass by.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Value>,
}

#[derive(Serialize)]
struct Google<'a> {
    code: u16,
    message: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    details: &'a [Value],
}

/// Anthropic's error types, by status (requirements E.5).
fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        408 | 504 => "timeout_error",
        503 | 529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

/// The names of `google.rpc.Code`, by status.
fn google_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        402 | 429 => "RESOURCE_EXHAUSTED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        408 | 504 => "DEADLINE_EXCEEDED",
        409 => "ABORTED",
        499 => "CANCELLED",
        502 | 503 => "UNAVAILABLE",
        400..=498 => "INVALID_ARGUMENT",
        _ => "INTERNAL",
    }
}

/// Google's way to say what a code and a field are.
fn google_details(code: Option<&str>, param: Option<&str>, metadata: Option<&Value>) -> Vec<Value> {
    let mut details = Vec::new();
    if code.is_some() || metadata.is_some() {
        let mut info = serde_json::json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": code.unwrap_or_default(),
            "domain": "nemo-router",
        });
        if let Some(metadata) = metadata {
            info["metadata"] = metadata.clone();
        }
        details.push(info);
    }
    if let Some(field) = param {
        details.push(serde_json::json!({
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{ "field": field }],
        }));
    }
    details
}

#[derive(Serialize)]
struct Choice {
    index: u32,
    delta: Delta,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Delta {
    content: &'static str,
}

/// How OpenRouter ends a stream that failed: its clients look at the finish reason.
const FAILED_CHOICE: &[Choice] = &[Choice { index: 0, delta: Delta { content: "" }, finish_reason: "error" }];

/// The body of an error response.
pub fn render_error(dialect: ErrorDialect, error: &ErrorBody<'_>) -> Bytes {
    Bytes::from(to_json(dialect, error, &[]))
}

/// One event that reports an error in a stream that has begun. The stream ends after it, without `[DONE]`.
pub fn render_stream_error(dialect: ErrorDialect, error: &ErrorBody<'_>) -> Bytes {
    let choices = match dialect {
        ErrorDialect::OpenRouter => FAILED_CHOICE,
        _ => &[],
    };
    // Anthropic's clients go by the name of an event.
    let mut event = if dialect == ErrorDialect::Anthropic {
        b"event: error\ndata: ".to_vec()
    } else {
        b"data: ".to_vec()
    };
    event.append(&mut to_json(dialect, error, choices));
    event.extend_from_slice(b"\n\n");
    Bytes::from(event)
}

fn to_json(dialect: ErrorDialect, error: &ErrorBody<'_>, choices: &[Choice]) -> Vec<u8> {
    let ErrorBody { status, message, kind, code, param, metadata } = *error;
    let json = match dialect {
        ErrorDialect::OpenAi => {
            serde_json::to_vec(&Envelope { error: OpenAi { message, kind, param, code, metadata }, choices })
        }
        ErrorDialect::OpenRouter => {
            serde_json::to_vec(&Envelope { error: OpenRouter { code: status, message, metadata }, choices })
        }
        ErrorDialect::Anthropic => {
            let error = AnthropicError { kind: anthropic_type(status), message, code, param, metadata };
            serde_json::to_vec(&Anthropic { kind: "error", error })
        }
        ErrorDialect::Google => {
            let (status_name, details) = (google_status(status), google_details(code, param, metadata));
            let error = Google { code: status, message, status: status_name, details: &details };
            serde_json::to_vec(&Envelope { error, choices })
        }
    };
    // Serializing strings, numbers and a `Value` into memory has no way to fail.
    json.unwrap_or_default()
}

#[cfg(test)]
mod tests;
