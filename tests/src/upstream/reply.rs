//! OpenAI's answers to chat and legacy completions, unary and streamed, without IO.
//!
//! Structs rather than `json!`, because the member order of the real API is what byte scanners meet.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use crate::script::{Script, UsageReport};

/// Prompt tokens that every computed usage reports; completion tokens are the pieces of the answer.
pub const PROMPT_TOKENS: u64 = 12;

pub(super) const SENTENCE: &str = "Hello from the mock upstream, where all is well today.";
const CREATED: u64 = 1_760_000_000;
/// A request for more choices is cut to this.
const MAX_CHOICES: u64 = 16;
/// A request or script for more pieces is cut to this.
const MAX_PIECES: usize = 100_000;

/// An answer before the script's faults.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Unary(Bytes),
    /// Whole events with their empty lines, `[DONE]` last.
    Stream(Vec<Bytes>),
    /// Something else than JSON, in pieces, without a declared length.
    Typed {
        content_type: &'static str,
        pieces: Vec<Bytes>,
    },
}

#[derive(Serialize, Clone, Copy)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Serialize, Clone, Copy)]
struct PromptDetails {
    cached_tokens: u64,
    audio_tokens: u64,
}

#[derive(Serialize, Clone, Copy)]
struct CompletionDetails {
    reasoning_tokens: u64,
    audio_tokens: u64,
    accepted_prediction_tokens: u64,
    rejected_prediction_tokens: u64,
}

/// A whole completion or one chunk, chat or legacy.
#[derive(Serialize)]
struct Completion<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: Vec<C>,
    /// `Some(None)` is `null`: what chunks carry once usage was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

/// `message` in whole answers, `delta` in chunks.
#[derive(Serialize)]
struct Choice<'a> {
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Delta<'a>>,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Option<&'a str>,
    refusal: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[ToolCall<'a>; 1]>,
}

#[derive(Serialize, Default)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[ToolCall<'a>; 1]>,
}

#[derive(Serialize)]
struct ToolCall<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

#[derive(Serialize)]
struct TextChoice<'a> {
    text: &'a str,
    index: u64,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

/// What all parts of one answer have in common.
struct Shape<'a> {
    id: String,
    model: &'a str,
    choices: u64,
    pieces: Vec<String>,
    tool: Option<(String, String)>,
    finish: &'static str,
    /// `None` when the script wants none.
    usage: Option<Usage>,
    /// A stream whose client asked for usage.
    usage_asked: bool,
}

fn shape<'a>(request: &Value, model: &'a str, script: &Script, id: String) -> Shape<'a> {
    let tool = called_tool(request);
    let content = script.content.clone().or_else(|| json_content(request)).unwrap_or_else(|| SENTENCE.into());
    let mut pieces = match &tool {
        // Arguments arrive in fragments: halves are enough to show that.
        Some((_, arguments)) => halves(arguments),
        None => split(&content, script.pieces),
    };
    let limit = request["max_completion_tokens"].as_u64().or_else(|| request["max_tokens"].as_u64());
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let cut = tool.is_none() && pieces.len() > limit;
    pieces.truncate(if cut { limit } else { usize::MAX });
    let finish = match (&tool, cut) {
        (Some(_), _) => "tool_calls",
        (None, true) => "length",
        (None, false) => "stop",
    };
    let choices = request["n"].as_u64().unwrap_or(1).clamp(1, MAX_CHOICES);
    let computed = pieces.len() as u64 * choices;
    let usage = match script.usage {
        UsageReport::Computed => Some(usage(PROMPT_TOKENS, computed, 0)),
        UsageReport::Tokens { prompt, completion, cached } => Some(usage(prompt, completion, cached)),
        UsageReport::Missing => None,
    };
    let usage_asked = request["stream_options"]["include_usage"] == true;
    Shape { id, model, choices, pieces, tool, finish, usage, usage_asked }
}

fn usage(prompt: u64, completion: u64, cached: u64) -> Usage {
    Usage {
        prompt_tokens: prompt,
        completion_tokens: completion,
        total_tokens: prompt + completion,
        prompt_tokens_details: PromptDetails { cached_tokens: cached, audio_tokens: 0 },
        completion_tokens_details: CompletionDetails {
            reasoning_tokens: 0,
            audio_tokens: 0,
            accepted_prediction_tokens: 0,
            rejected_prediction_tokens: 0,
        },
    }
}

/// Name and arguments of the tool that the answer calls: the one chosen or the first, unless its result is there.
fn called_tool(request: &Value) -> Option<(String, String)> {
    let choice = &request["tool_choice"];
    let answered = request["messages"].as_array().and_then(|messages| messages.last())?["role"] == "tool";
    if choice == "none" || answered {
        return None;
    }
    let tools = request["tools"].as_array()?;
    let wanted = &choice["function"]["name"];
    let tool = tools.iter().find(|tool| wanted.is_null() || tool["function"]["name"] == *wanted)?;
    let name = tool["function"]["name"].as_str()?.to_owned();
    Some((name, sample(&tool["function"]["parameters"]).to_string()))
}

/// Content for a request that wants JSON.
fn json_content(request: &Value) -> Option<String> {
    let format = &request["response_format"];
    match format["type"].as_str()? {
        "json_schema" => Some(sample(&format["json_schema"]["schema"]).to_string()),
        "json_object" => Some(json!({"answer": "mock"}).to_string()),
        _ => None,
    }
}

/// A value that a simple JSON schema accepts.
pub(super) fn sample(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    match schema["type"].as_str().map(str::to_lowercase).as_deref() {
        Some("string") => json!("mock"),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("null") => Value::Null,
        _ => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required.map(|name| (name.to_owned(), sample(&schema["properties"][name]))).collect()
        }
    }
}

pub(super) fn halves(text: &str) -> Vec<String> {
    let middle = text.len() / 2;
    let middle = (middle..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    vec![text[..middle].into(), text[middle..].into()]
}

/// Words with the space before them; repeated or cut to `count` if given.
pub(super) fn split(content: &str, count: Option<usize>) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for part in content.split_inclusive(' ') {
        words.push(part.to_owned());
    }
    match count {
        Some(count) => words.iter().cycle().take(count.min(MAX_PIECES)).cloned().collect(),
        None => words,
    }
}

/// Answers a chat completion request.
pub(super) fn chat(request: &Value, model: &str, script: &Script, number: u64) -> Answer {
    let shape = shape(request, model, script, format!("chatcmpl-mock{number:08}"));
    if request["stream"] == true { chat_stream(&shape) } else { Answer::Unary(chat_unary(&shape)) }
}

fn chat_unary(shape: &Shape<'_>) -> Bytes {
    let content = shape.pieces.concat();
    let choices = (0..shape.choices).map(|index| {
        let call_id = format!("call_mock{index}");
        // Owned strings end with the closure, so each choice is turned into a value here.
        let tool_calls = shape.tool.as_ref().map(|(name, arguments)| [whole_call(&call_id, name, arguments)]);
        let content = tool_calls.is_none().then_some(content.as_str());
        let message = Message { role: "assistant", content, refusal: None, tool_calls };
        let finish_reason = Some(shape.finish);
        raw(&Choice { index, message: Some(message), delta: None, logprobs: None, finish_reason })
    });
    let choices = choices.collect();
    json_bytes(&completion(shape, "chat.completion", choices, shape.usage.map(Some)))
}

fn whole_call<'a>(id: &'a str, name: &'a str, arguments: &'a str) -> ToolCall<'a> {
    ToolCall {
        index: None,
        id: Some(id),
        kind: Some("function"),
        function: Function { name: Some(name), arguments },
    }
}

fn chat_stream(shape: &Shape<'_>) -> Answer {
    let null_usage = shape.usage_asked.then_some(None);
    let mut events = Vec::new();
    let mut push = |index: u64, delta: Delta<'_>, finish_reason: Option<&'static str>| {
        let choice = Choice { index, message: None, delta: Some(delta), logprobs: None, finish_reason };
        events.push(event(&completion(shape, "chat.completion.chunk", vec![choice], null_usage)));
    };
    for index in 0..shape.choices {
        let id = format!("call_mock{index}");
        if let Some((name, _)) = &shape.tool {
            let call = ToolCall { index: Some(0), ..whole_call(&id, name, "") };
            push(index, Delta { role: Some("assistant"), content: None, tool_calls: Some([call]) }, None);
        } else {
            push(index, Delta { role: Some("assistant"), content: Some(""), tool_calls: None }, None);
        }
    }
    for piece in &shape.pieces {
        for index in 0..shape.choices {
            let delta = if shape.tool.is_some() {
                let function = Function { name: None, arguments: piece };
                let call = ToolCall { index: Some(0), id: None, kind: None, function };
                Delta { tool_calls: Some([call]), ..Delta::default() }
            } else {
                Delta { content: Some(piece), ..Delta::default() }
            };
            push(index, delta, None);
        }
    }
    for index in 0..shape.choices {
        push(index, Delta::default(), Some(shape.finish));
    }
    close_stream::<Choice<'_>>(events, shape, "chat.completion.chunk")
}

/// Answers a legacy completion request.
pub(super) fn text(request: &Value, model: &str, script: &Script, number: u64) -> Answer {
    let shape = shape(request, model, script, format!("cmpl-mock{number:08}"));
    let choice = |text, index, finish_reason| TextChoice { text, index, logprobs: None, finish_reason };
    if request["stream"] != true {
        let content = shape.pieces.concat();
        let choices = (0..shape.choices).map(|index| choice(&content, index, Some(shape.finish))).collect();
        return Answer::Unary(json_bytes(&completion(
            &shape,
            "text_completion",
            choices,
            shape.usage.map(Some),
        )));
    }
    let null_usage = shape.usage_asked.then_some(None);
    let mut events = Vec::new();
    let ends = std::iter::once(("", Some(shape.finish)));
    for (text, finish) in shape.pieces.iter().map(|piece| (piece.as_str(), None)).chain(ends) {
        for index in 0..shape.choices {
            let choices = vec![choice(text, index, finish)];
            events.push(event(&completion(&shape, "text_completion", choices, null_usage)));
        }
    }
    close_stream::<TextChoice<'_>>(events, &shape, "text_completion")
}

fn completion<'a, C>(
    shape: &'a Shape<'_>,
    object: &'static str,
    choices: Vec<C>,
    usage: Option<Option<Usage>>,
) -> Completion<'a, C> {
    let (id, model) = (shape.id.as_str(), shape.model);
    Completion { id, object, created: CREATED, model, system_fingerprint: "fp_mock", choices, usage }
}

/// The usage chunk, if one was asked for, and the terminator.
fn close_stream<C: Serialize>(mut events: Vec<Bytes>, shape: &Shape<'_>, object: &'static str) -> Answer {
    if let (true, Some(usage)) = (shape.usage_asked, shape.usage) {
        events.push(event(&completion::<C>(shape, object, Vec::new(), Some(Some(usage)))));
    }
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    Answer::Stream(events)
}

fn raw(value: &impl Serialize) -> Option<Box<serde_json::value::RawValue>> {
    serde_json::value::to_raw_value(value).ok()
}

pub(super) fn json_bytes(value: &impl Serialize) -> Bytes {
    // Strings and numbers only: this cannot fail, and an empty body would fail the test that meets it.
    serde_json::to_vec(value).unwrap_or_default().into()
}

pub(super) fn event(value: &impl Serialize) -> Bytes {
    Bytes::from([b"data: ", &json_bytes(value)[..], b"\n\n"].concat())
}

/// OpenAI's error envelope for a status.
pub(super) fn error(status: u16, message: &str) -> Value {
    let (kind, code) = match status {
        401 => ("invalid_request_error", json!("invalid_api_key")),
        404 => ("invalid_request_error", json!("model_not_found")),
        429 => ("requests", json!("rate_limit_exceeded")),
        400..=499 => ("invalid_request_error", Value::Null),
        _ => ("server_error", Value::Null),
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

#[cfg(test)]
mod tests;
