//! `/v1/responses` of the demo provider: the echo of chat, with the events of the Responses API.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, CHAT_MODEL, MAX_OUTPUT_TOKENS, Refusal, answer_id, check_model, now, text};

const ECHO_CHARS: usize = 500;

#[derive(Deserialize)]
pub(super) struct Request {
    model: String,
    #[serde(default)]
    input: Value,
    #[serde(default)]
    stream: bool,
    max_output_tokens: Option<u64>,
    instructions: Option<String>,
    previous_response_id: Option<String>,
    #[serde(default)]
    metadata: Value,
}

impl Request {
    /// The last text of the input.
    fn said(&self) -> String {
        match &self.input {
            Value::String(text) => text.clone(),
            Value::Array(items) => {
                let content = items.last().map(|item| &item["content"]);
                match content {
                    Some(Value::String(text)) => text.clone(),
                    Some(Value::Array(parts)) => {
                        let texts = parts.iter().filter_map(|part| part["text"].as_str());
                        texts.collect::<Vec<_>>().join(" ")
                    }
                    _ => String::new(),
                }
            }
            _ => String::new(),
        }
    }
}

pub(super) fn answer(request: &Request, body: &[u8]) -> Result<Answer, Refusal> {
    check_model(&request.model, CHAT_MODEL)?;
    let said = request.said();
    let whole =
        format!("Hello from the demo model of Nemo Router. You said: {}", text::shorten(&said, ECHO_CHARS));
    let limit = request.max_output_tokens.unwrap_or(MAX_OUTPUT_TOKENS).min(MAX_OUTPUT_TOKENS);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut pieces: Vec<&str> = text::pieces(&whole);
    let complete = pieces.len() <= limit;
    pieces.truncate(limit);
    let response = Response { request, id: answer_id("resp", body), item: answer_id("msg", body), complete };
    let text = pieces.concat();
    let tokens = (text::input_tokens(&said), u64::try_from(pieces.len()).unwrap_or(u64::MAX));
    if request.stream {
        return Ok(Answer::Named(response.events(&pieces, &text, tokens)));
    }
    Ok(Answer::Whole(response.whole(
        response.status(),
        &[response.message("completed", &text)],
        Some(tokens),
    )))
}

/// What all parts of an answer have in common.
struct Response<'a> {
    request: &'a Request,
    id: String,
    item: String,
    complete: bool,
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

impl Response<'_> {
    fn status(&self) -> &'static str {
        if self.complete { "completed" } else { "incomplete" }
    }

    fn message(&self, status: &str, text: &str) -> Value {
        let content = if status == "in_progress" { json!([]) } else { json!([part(text)]) };
        json!({ "type": "message", "id": self.item, "status": status, "role": "assistant", "content": content })
    }

    /// With `tokens` it is over.
    fn whole(&self, status: &str, output: &[Value], tokens: Option<(u64, u64)>) -> Value {
        let usage = tokens.map(|(input, output)| {
            json!({
                "input_tokens": input, "input_tokens_details": { "cached_tokens": 0, "cache_write_tokens": 0 },
                "output_tokens": output, "output_tokens_details": { "reasoning_tokens": 0 },
                "total_tokens": input + output,
            })
        });
        let cut = (tokens.is_some() && !self.complete).then(|| json!({ "reason": "max_output_tokens" }));
        json!({
            "id": self.id, "object": "response", "created_at": now(), "status": status, "error": null,
            "incomplete_details": cut, "instructions": self.request.instructions,
            "max_output_tokens": self.request.max_output_tokens, "metadata": self.request.metadata,
            "model": CHAT_MODEL, "output": output, "parallel_tool_calls": true,
            "previous_response_id": self.request.previous_response_id, "reasoning": { "effort": null, "summary": null },
            "store": false, "temperature": 1.0, "text": { "format": { "type": "text" } }, "tool_choice": "auto",
            "tools": [], "top_p": 1.0, "truncation": "disabled", "usage": usage, "user": null,
        })
    }

    fn events(&self, pieces: &[&str], text: &str, tokens: (u64, u64)) -> Vec<Value> {
        let begun = || self.whole("in_progress", &[], None);
        let inside = |kind: &str, member: &str, value: Value| json!({ "type": kind, "item_id": self.item, "output_index": 0, "content_index": 0, member: value });
        let mut events = vec![
            json!({ "type": "response.created", "response": begun() }),
            json!({ "type": "response.in_progress", "response": begun() }),
            json!({
                "type": "response.output_item.added", "output_index": 0, "item": self.message("in_progress", ""),
            }),
            inside("response.content_part.added", "part", part("")),
        ];
        events.extend(pieces.iter().map(|piece| {
            let mut event = inside("response.output_text.delta", "delta", json!(piece));
            event["logprobs"] = json!([]);
            event
        }));
        let mut done = inside("response.output_text.done", "text", json!(text));
        done["logprobs"] = json!([]);
        let message = self.message("completed", text);
        events.extend([
            done,
            inside("response.content_part.done", "part", part(text)),
            json!({ "type": "response.output_item.done", "output_index": 0, "item": message }),
            json!({
                "type": format!("response.{}", self.status()),
                "response": self.whole(self.status(), &[message], Some(tokens)),
            }),
        ]);
        for (number, event) in events.iter_mut().enumerate() {
            event["sequence_number"] = json!(number);
        }
        events
    }
}
