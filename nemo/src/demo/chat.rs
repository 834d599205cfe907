//! `/v1/chat/completions` of the demo provider: echoes, calls the first tool, or answers with JSON.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, CHAT_MODEL, MAX_OUTPUT_TOKENS, Refusal, answer_id, check_model, now, schema, text};

/// How much of the request is repeated in the answer.
const ECHO_CHARS: usize = 500;
/// Choices of one answer.
const MAX_CHOICES: u64 = 8;
/// Arguments of a tool call are streamed in pieces of this many characters.
const ARGUMENT_CHARS: usize = 8;
/// Tokens that each message costs beyond its text.
const TOKENS_PER_MESSAGE: u64 = 4;

#[derive(Deserialize)]
pub(super) struct Request {
    model: String,
    messages: Vec<Message>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    n: Option<u64>,
    tools: Option<Vec<Tool>>,
    tool_choice: Option<Value>,
    response_format: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct StreamOptions {
    #[serde(default)]
    pub(super) include_usage: bool,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Value,
}

#[derive(Deserialize)]
struct Tool {
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    parameters: Value,
}

impl Message {
    /// The text, also of content in parts.
    fn text(&self) -> String {
        match &self.content {
            Value::String(text) => text.clone(),
            Value::Array(parts) => {
                let texts = parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str));
                texts.collect::<Vec<_>>().join(" ")
            }
            _ => String::new(),
        }
    }
}

/// What one choice says.
enum Say {
    Text { pieces: Vec<String>, finish: &'static str },
    Call { id: String, name: String, arguments: String },
}

impl Say {
    fn finish(&self) -> &'static str {
        match self {
            Self::Text { finish, .. } => finish,
            Self::Call { .. } => "tool_calls",
        }
    }

    fn tokens(&self) -> u64 {
        match self {
            Self::Text { pieces, .. } => u64::try_from(pieces.len()).unwrap_or(u64::MAX),
            Self::Call { name, arguments, .. } => text::input_tokens(name) + text::input_tokens(arguments),
        }
    }

    fn message(&self) -> Value {
        match self {
            Self::Text { pieces, .. } => {
                json!({ "role": "assistant", "content": pieces.concat(), "refusal": null })
            }
            Self::Call { id, name, arguments } => json!({
                "role": "assistant",
                "content": null,
                "refusal": null,
                "tool_calls": [{ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } }],
            }),
        }
    }

    fn deltas(&self) -> Vec<Value> {
        match self {
            Self::Text { pieces, .. } => {
                let first = json!({ "role": "assistant", "content": "" });
                [first].into_iter().chain(pieces.iter().map(|piece| json!({ "content": piece }))).collect()
            }
            Self::Call { id, name, arguments } => {
                let call = json!({
                    "index": 0, "id": id, "type": "function", "function": { "name": name, "arguments": "" },
                });
                let mut deltas = vec![json!({ "role": "assistant", "content": null, "tool_calls": [call] })];
                let chars: Vec<char> = arguments.chars().collect();
                deltas.extend(chars.chunks(ARGUMENT_CHARS).map(|part| {
                    let part: String = part.iter().collect();
                    json!({ "tool_calls": [{ "index": 0, "function": { "arguments": part } }] })
                }));
                deltas
            }
        }
    }
}

pub(super) fn answer(request: &Request, body: &[u8]) -> Result<Answer, Refusal> {
    check_model(&request.model, CHAT_MODEL)?;
    if request.messages.is_empty() {
        return Err(Refusal::new(http::StatusCode::BAD_REQUEST, "messages must not be empty", "bad_body"));
    }
    let count = request.n.unwrap_or(1).clamp(1, MAX_CHOICES);
    let id = answer_id("chatcmpl", body);
    let say = say(request, body);
    let prompt_tokens: u64 =
        request.messages.iter().map(|message| text::input_tokens(&message.text()) + TOKENS_PER_MESSAGE).sum();
    let usage = usage(prompt_tokens, say.tokens() * count);
    if request.stream {
        let include_usage = request.stream_options.as_ref().is_some_and(|options| options.include_usage);
        return Ok(Answer::Events(chunks(&id, &say, count, include_usage.then_some(&usage))));
    }
    let choices: Vec<_> = (0..count)
        .map(|index| json!({ "index": index, "message": say.message(), "logprobs": null, "finish_reason": say.finish() }))
        .collect();
    Ok(Answer::Whole(json!({
        "id": id,
        "object": "chat.completion",
        "created": now(),
        "model": CHAT_MODEL,
        "choices": choices,
        "usage": usage,
        "system_fingerprint": "fp_demo",
    })))
}

fn say(request: &Request, body: &[u8]) -> Say {
    let last = request.messages.last();
    let answers_tool = last.is_some_and(|message| message.role == "tool");
    if !answers_tool && let Some(function) = chosen_function(request) {
        let arguments = schema::example(&function.parameters, "example").to_string();
        let id = format!("call_demo{:016x}", text::hash(body));
        return Say::Call { id, name: function.name.clone(), arguments };
    }
    let said = last.map(Message::text).unwrap_or_default();
    let whole = if answers_tool {
        format!("The tool returned: {}", text::shorten(&said, ECHO_CHARS))
    } else if let Some(structured) = structured(request, &said) {
        structured
    } else {
        let user = request.messages.iter().rev().find(|message| message.role == "user").map(Message::text);
        format!(
            "Hello from the demo model of Nemo Router. You said: {}",
            text::shorten(user.as_deref().unwrap_or(&said), ECHO_CHARS)
        )
    };
    limited(&whole, request.max_completion_tokens.or(request.max_tokens))
}

/// The text, cut at the limit as a model would be.
fn limited(whole: &str, limit: Option<u64>) -> Say {
    let limit =
        usize::try_from(limit.unwrap_or(MAX_OUTPUT_TOKENS).min(MAX_OUTPUT_TOKENS)).unwrap_or(usize::MAX);
    let mut pieces: Vec<String> = text::pieces(whole).into_iter().map(str::to_owned).collect();
    let finish = if pieces.len() > limit { "length" } else { "stop" };
    pieces.truncate(limit);
    Say::Text { pieces, finish }
}

/// The function to call: the one that `tool_choice` names, else the first.
fn chosen_function(request: &Request) -> Option<&Function> {
    let functions = || request.tools.iter().flatten().filter_map(|tool| tool.function.as_ref());
    match &request.tool_choice {
        Some(Value::String(choice)) if choice == "none" => None,
        Some(Value::Object(choice)) => {
            let name =
                choice.get("function").and_then(|function| function.get("name")).and_then(Value::as_str);
            functions().find(|function| Some(function.name.as_str()) == name)
        }
        _ => functions().next(),
    }
}

/// JSON when the request asks for it: by its schema, or an object with what was said.
fn structured(request: &Request, said: &str) -> Option<String> {
    let format = request.response_format.as_ref()?;
    match format.get("type").and_then(Value::as_str)? {
        "json_object" => Some(json!({ "answer": text::shorten(said, ECHO_CHARS) }).to_string()),
        "json_schema" => Some(schema::example(format.pointer("/json_schema/schema")?, "example").to_string()),
        _ => None,
    }
}

pub(super) fn usage(prompt: u64, completion: u64) -> Value {
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": { "cached_tokens": 0, "audio_tokens": 0 },
        "completion_tokens_details": { "reasoning_tokens": 0, "audio_tokens": 0 },
    })
}

/// The events of a streamed answer. With `usage`, all carry the member and an extra one has the numbers.
fn chunks(id: &str, say: &Say, count: u64, usage: Option<&Value>) -> Vec<Value> {
    let created = now();
    let chunk = |choices: Value, usage_member: Option<&Value>| {
        let mut chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": created, "model": CHAT_MODEL,
            "system_fingerprint": "fp_demo", "choices": choices,
        });
        if usage.is_some() {
            chunk["usage"] = usage_member.cloned().unwrap_or(Value::Null);
        }
        chunk
    };
    let choice = |index: u64, delta: Value, finish: Value| json!([{ "index": index, "delta": delta, "logprobs": null, "finish_reason": finish }]);
    let mut events = Vec::new();
    for delta in say.deltas() {
        events.extend((0..count).map(|index| chunk(choice(index, delta.clone(), Value::Null), None)));
    }
    events.extend((0..count).map(|index| chunk(choice(index, json!({}), say.finish().into()), None)));
    if usage.is_some() {
        events.push(chunk(json!([]), usage));
    }
    events
}
